"""tools/structure.py finds one offender against each of its rules, and leaves alone what is allowed."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "structure.py"
THIRTEEN = ", ".join(f"x{n}" for n in range(13))


@pytest.fixture(scope="module")
def structure():
    spec = importlib.util.spec_from_file_location("structure", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def written(tmp_path):
    """Writes files of a package elman; returns the root of the tree."""

    def write(files: dict[str, str]) -> Path:
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "src" / "elman" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "members"),
    [
        ({"a.py": "from elman import b", "b.py": "from elman.a import name"}, {"elman.a", "elman.b"}),
        ({"a.py": "import elman.b", "b.py": "def f():\n    import elman.a as other"}, {"elman.a", "elman.b"}),
        ({"a.py": "from elman import b", "b.py": "if TYPE_CHECKING:\n    from elman import a"}, {"elman.a", "elman.b"}),
        (
            {"p/a.py": "from . import b", "p/b.py": "from .a import name", "p/__init__.py": ""},
            {"elman.p.a", "elman.p.b"},
        ),
        ({"p/q/a.py": "from ... import b", "b.py": "from elman.p.q import a"}, {"elman.p.q.a", "elman.b"}),
        (
            {"a.py": "import elman.b", "b.py": "import elman.c", "c.py": "from elman import a"},
            {"elman.a", "elman.b", "elman.c"},
        ),
        ({"__init__.py": "from elman.a import name", "a.py": "from elman import name"}, {"elman", "elman.a"}),
        (
            {"__init__.py": "from elman.a import name", "a.py": "import elman.b\nelman.name", "b.py": ""},
            {"elman", "elman.a"},
        ),
        ({"p/__init__.py": "from .a import name", "p/a.py": "from . import other"}, {"elman.p", "elman.p.a"}),
    ],
)
def test_circles_are_found(structure, written, files, members):
    found = [*structure.circles(structure.read(written({"beside.py": "from elman import a", **files})))]
    assert {line.split(" -> ")[0].removeprefix("circle 1: ") for line in found} == members
    assert all("(line " in line for line in found)


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "from elman import b\nfrom elman import c", "b.py": "from elman import c", "c.py": "import numpy"},
        {"__init__.py": "from elman.a import name", "a.py": "import elman.b\nelman.b.name", "b.py": ""},
        {"p/__init__.py": "from elman.p.a import name", "p/a.py": "from elman.p import b", "p/b.py": ""},
        {"p/__init__.py": "from elman.p import a", "p/a.py": "from elman.p import native", "p/native.pyx": "cimport x"},
    ],
)
def test_needing_a_module_of_a_package_is_no_circle(structure, written, files):
    assert [*structure.circles(structure.read(written(files)))] == []


OWN = "class A:\n    _b: int = 0\n    def _m(self): self._c, x = 1, 2\n"


@pytest.mark.parametrize(
    "source",
    [
        "def f(x): x._b",
        "class A:\n    def f(self): self.x._b",
        "class A:\n    def f(self): super().x()._b",
        "def f(x): x._b = 1",
        "from elman.other import _b",
        "from .other import _b",
        "from elman import other\nother._b",
        "import elman.other\nelman.other._b",
        "from elman import other\n" + OWN + "other._b",
        "from elman.other import Other\nOther._b()",
    ],
)
def test_reaches_are_found(structure, written, source):
    package = structure.read(written({"a.py": source, "other.py": ""}))
    (found,) = structure.reaches(package["elman.a"])
    assert found.startswith(f"elman.a:{source.count(chr(10), 0, source.rindex('_b')) + 1}: ")


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def f(self): self._b, super()._b()\n    def g(cls): cls._b",
        OWN + "def f(x): x._b, x._m(), x._c",
        OWN + "A._of_a_base",
        "def f(x): x.__dict__, x._replace(b=1), x._fields",
        "import numpy as np\nnp._b, np.core._b\nfrom torch import _C",
        "_b = 1\n_b.c",
    ],
)
def test_what_is_ones_own_is_no_reach(structure, written, source):
    package = structure.read(written({"a.py": source, "other.py": ""}))
    assert [*structure.reaches(package["elman.a"])] == []


BARE = "class B:\n    def forward_all(self): pass\n"


def test_an_underscore_dropped_without_a_docstring_is_found(structure, written):
    package = structure.read(written({"a.py": "def f(x):\n    x.forward_all()", "b.py": BARE}))
    assert [*structure.dropped(package)] == ["elman.a:2: x.forward_all, which has no docstring"]


@pytest.mark.parametrize(
    "definition",
    [
        "class B:\n    def forward_all(self): 'Documented.'",
        BARE + "class Base:\n    def forward_all(self): 'Documented.'",
        BARE + "class C:\n    forward_all: int",
        BARE.replace("B", "B(Protocol)"),
        BARE.replace("B", "_B"),
        BARE + "def f(x): x.forward_all()",
    ],
)
def test_other_public_names_are_no_reach(structure, written, definition):
    uses = "" if "def f(x)" in definition else "def f(x): x.forward_all(), x.copy()"
    more = "class D:\n    def copy(self): pass"
    package = structure.read(written({"a.py": uses, "b.py": definition, "d.py": more}))
    assert [*structure.dropped(package)] == []


@pytest.mark.parametrize(
    "source",
    [
        f"def f({THIRTEEN}): pass",
        f"class A:\n    def f(self, {THIRTEEN}): pass",
        f"def f({THIRTEEN}): pass".replace("x11, x12", "*args, **kwargs"),
        f"def f(*, {THIRTEEN}): pass",
        f"@kernel\ndef f({THIRTEEN}): pass",
        f"def public():\n    def f({THIRTEEN}): pass",
        f"class Public:\n    'Documented.'\n    def _f(self, {THIRTEEN}): pass",
    ],
)
def test_long_signatures_are_found(structure, written, source):
    init = "from elman.a import Public, public\n__all__ = ['Public', 'public']"
    beyond, allowed = structure.long_signatures(structure.read(written({"__init__.py": init, "a.py": source})))
    assert len(beyond) == 1
    assert beyond[0].endswith("f has 13 parameters")
    assert allowed == []


PUBLIC_CLASS = "class Public{}:\n    'Documented.'\n    def {}(self, " + THIRTEEN + "): pass\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.py": f"def public({THIRTEEN}): pass"}, "public"),
        ({"a.py": PUBLIC_CLASS.format("", "__init__")}, "public"),
        ({"a.py": PUBLIC_CLASS.format("", "method")}, "public"),
        (
            {
                "a.py": "from elman.p import Base\nclass Public(Base):\n    'Documented.'",
                "p/__init__.py": "from .b import Base",
                "p/b.py": PUBLIC_CLASS.replace("Public", "Base").format("", "__call__"),
            },
            "public",
        ),
        ({"torch/__init__.py": f"__all__ = ['f']\ndef f({THIRTEEN}): pass"}, "public"),
        ({"schedules.py": f"def public({THIRTEEN}): pass"}, "public"),
        ({"a.py": f"@tile_entry(1)\ndef f({THIRTEEN}): pass"}, "compiled entry"),
    ],
)
def test_some_signatures_may_be_long(structure, written, files, reason):
    init = (
        "from elman import schedules\nfrom elman.a import Public, public\n__all__ = ['Public', 'public', 'schedules']"
    )
    beyond, allowed = structure.long_signatures(structure.read(written({"__init__.py": init, **files})))
    assert beyond == []
    assert [line.partition("allowed: ")[2] for line in allowed] == [reason]


def test_twelve_parameters_are_not_too_many(structure, written):
    package = structure.read(written({"a.py": f"class A:\n    def f(self, {THIRTEEN[:-5]}): pass"}))
    assert structure.long_signatures(package) == ([], [])


def test_lines_are_those_of_all_text(structure, written):
    root = written({"a.py": "1\n2\n", "b.pyx": "3\n"})
    (root / "csrc").mkdir()
    (root / "csrc" / "kernel.h").write_text("4\n5\n")
    (root / "csrc" / "kernel.o").write_bytes(b"\x7fELF\xff\n")
    (root / "elsewhere.py").write_text("6\n")
    assert structure.count_lines(root) == 5


@pytest.mark.parametrize(
    ("limit", "files"),
    [
        ("MOST_IN_CIRCLES", {"a.py": "import elman.b", "b.py": "import elman.a"}),
        ("MOST_REACHES", {"a.py": "def f(x): x._b"}),
        ("MOST_REACHES", {"a.py": "def f(x): x.forward_all()", "b.py": BARE}),
        ("MOST_PARAMETERS", {"a.py": f"def f({THIRTEEN}): pass"}),
        ("MOST_LINES", {"a.py": "\n"}),
    ],
)
def test_it_fails_beyond_a_limit(structure, written, monkeypatch, capsys, limit, files):
    root = written(files)
    monkeypatch.setattr(structure, limit, 13)
    assert structure.main(root) == 0
    monkeypatch.setattr(structure, limit, 0)
    assert structure.main(root) == 1
    assert capsys.readouterr().out.count("BEYOND") == 1
