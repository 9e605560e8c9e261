"""The documentation's programs run and print what it says they print; its reference has every public name."""

import doctest
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import elman

DOCS = Path(__file__).parent.parent / "docs"
GENERATED = {"_build", "_ext", "_static", "examples"}
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in GENERATED]
TESTED_ELSEWHERE = {"activations"}  # in test_activation.py; they take long to compile
# Programs that need these are run where they are installed
PEERS = {"dask", "flax", "jax", "keras", "mpi4py", "onnx", "onnxruntime", "optuna", "ray", "torch"}
# With what runs what they write
BRIDGES = {"elman.keras": {"keras"}, "elman.onnx": {"onnx", "onnxruntime"}, "elman.torch": {"torch"}}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def programs(page: Path) -> list[tuple[int, str]]:
    """The Python in a page, with the numbers of its lines."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


@pytest.mark.parametrize(
    "page", [path for path in PAGES if programs(path) and path.stem not in TESTED_ELSEWHERE], ids=lambda path: path.stem
)
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    """One after another, with the same variables."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for line, program in programs(page):
        peers = {name for name in PEERS if f"import {name}" in program or f"from {name}" in program}
        peers.update(*(needed for bridge, needed in BRIDGES.items() if bridge in program))
        if not all(map(_is_installed, peers)):
            continue
        with warnings.catch_warnings():
            if peers:
                warnings.simplefilter("ignore")  # of theirs
            if ">>>" in program:
                test = doctest.DocTestParser().get_doctest(program, names, page.name, str(page), line)
                runner.run(test, clear_globs=False)
                names = test.globs
            else:
                exec(compile("\n" * line + program, page, "exec"), names)
    assert runner.summarize().failed == 0


def _is_installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.rst"))
    documented = set(re.findall(r":: elman\.(\w+)\s", reference))
    assert set(elman.__all__) <= documented
    # Of a module, all that has a docstring is shown
    assert all(isinstance(getattr(elman, name), types.ModuleType) or name in documented for name in elman.__all__)


@pytest.mark.parametrize("name", ["onnx", "sklearn", "torch"])
def test_bridges_are_in_the_reference(name):
    pytest.importorskip(name)
    text = (DOCS / "reference" / f"{name}.rst").read_text(encoding="utf-8")
    documented = re.findall(rf":: elman\.{name}\.(\w+)\s", text)
    assert sorted(documented) == sorted(importlib.import_module(f"elman.{name}").__all__)


def test_every_page_can_be_reached():
    """Sphinx warns about that, too; this test needs no Sphinx."""
    linked = set()
    for path in [*PAGES, *(DOCS / "reference").glob("*.rst")]:
        text = path.read_text(encoding="utf-8")
        for block in re.findall(
            r"^(?:```\{toctree\}|\.\. toctree::)\n(.*?)(?:^```|\Z)", text, re.DOTALL | re.MULTILINE
        ):
            entries = [line.strip() for line in block.splitlines()]
            linked |= {(path.parent / entry).resolve() for entry in entries if entry and not entry.startswith(":")}
            if ":glob:" in entries:
                pages = (page for entry in entries for page in path.parent.glob(f"{entry}.md"))
                linked |= {page.with_suffix("").resolve() for page in pages}
    assert {path.with_suffix("").resolve() for path in PAGES} - linked == {(DOCS / "index").resolve()}


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", "README.md"])
def test_links_to_files_lead_somewhere(name):
    """Within docs/, Sphinx checks them."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (DOCS.parent / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (DOCS.parent / link).exists()] == []


def test_the_stages_of_a_fast_kernel_agree(tmp_path):
    """docs/understand/kernels.md, on a shape that takes no time."""
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    if compiler is None:
        pytest.skip("no C compiler")
    spec = importlib.util.spec_from_file_location("measure", DOCS / "understand" / "ladder" / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    measure.ROUNDS = 1
    assert set(measure.measure(measure.compiled(str(tmp_path)), 3, 4, 64)) == {*measure.STAGES, "elman"}


def documented(function: Any) -> Iterator[tuple[str, Any]]:
    """A public function, or a class with its public methods."""
    yield function.__name__, function
    if inspect.isclass(function):
        for name, method in inspect.getmembers(function, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{function.__name__}.{name}", method


PUBLIC = [getattr(elman, name) for name in elman.__all__]


@pytest.mark.parametrize(
    ("name", "function"),
    [each for thing in PUBLIC if inspect.isclass(thing) or inspect.isfunction(thing) for each in documented(thing)],
)
def test_every_parameter_is_documented(name: str, function: Any) -> None:
    """Where parameters are documented at all, all of them are."""
    section = re.search(r"Parameters\n-+\n(.*?)(\n\n\w+\n-+\n|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    if section is None:
        return
    heads = [line.partition(" : ")[0] for line in section[1].split("\n") if line[:1].strip()]
    named = {word for head in heads for word in re.findall(r"\w+", head)}
    missing = [parameter for parameter in inspect.signature(function).parameters if parameter not in {*named, "self"}]
    assert not missing, name
