"""What the shape of the code may cost, in four numbers: `python tools/structure.py [ROOT]` exits 1 beyond a limit.

Circles: modules that import each other, directly or through others. Imports inside functions count, and those under
`if TYPE_CHECKING`: who reads the one module has to read the other.

Reaches: what a module takes from behind another one's underscore. That is `thing._name`, unless the thing is self, cls,
super(), a class of the module or of another package, or a class of the module defines _name (it may look into its like,
and into helpers beside it); `module._name`; `from elman.module import _name`. An underscore dropped without a docstring
is one, too: `thing.name`, if all that is called so in the package are public methods without a docstring, in other
modules. There is no inference of types, so a namesake counts as well; a docstring is the cure.

Parameters: without self and cls. Public signatures may have more, and compiled entry points; they are listed.

Lines: of all text in src and csrc.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

PACKAGE = "elman"
# The modules whose __all__ is the public API
PUBLIC = ("elman", "elman.keras", "elman.onnx", "elman.torch", "elman.sklearn")

MOST_IN_CIRCLES = 0  # modules: each can be read, tested and moved without one that needs it
MOST_REACHES = 10  # for where a method would cost more than a look inside; at d323fba this counts 122
MOST_PARAMETERS = 12  # more want to be an object; at d323fba five functions have up to 17, and a compiled entry 21
# As when memory and files had become safe (15,978 at d323fba), and 100 for caches, strips of rows, and a compiled cache
# that may be damaged, and 200 for sums beside shards, prefetching, and peaks of speed and memory, and 450 for small
# calls, dropout and many models in the benchmark, beside peers, and for telling what became slower, and 550 for
# dropout's random numbers in NumPy, C and Numba, 150 for a third of the time that Numba takes before a first call, and
# 300 for reading PyTorch's weights where they lie and for doing what torch.nn.RNN does besides passes, 150 for three
# activations, and 1,750 for leaky and noisy cells, in NumPy, C and Numba, and what layers, models and runs have to know
# of them, and 600 for these in PyTorch and for batches that a function returns, and 600 for signs and masks of weights
# and for training some parameters only, and 450 for fixed points and their picture, and 650 for resets, which NumPy,
# C and Numba, layers, models, data sets and PyTorch's layers have, and 900 for forward mode, of layers, of models'
# curvature, and in PyTorch, and 1,750 for ONNX, both ways, 900 for Keras, 450 for weights across frameworks, 450 for
# data that are read when they are needed, and 250 for what Seq2Seq and streams had not, and 350 for several processes,
# 150 for small numbers and reading ahead, 950 for texts of any size, in words and bytes, and their command, and 900 for
# losses, distributions, intervals and labels without alignment, and 400 for plateaus, held-out parts, summaries and a
# search for a learning rate, 50 for kinds of data that learn from it, and 600 for embeddings and columns, and 50 for
# modules that are imported when they are asked for, 100 for batches that are added up, 100 for an average of
# parameters, 350 for metrics, 450 for labels of tokens and categories, and 250 for scheduled sampling and what Seq2Seq
# draws, 750 for forecasts, their trials and many sequences at once, and 450 for scalers, 200 for rows that tiles ask
# for early and memory of large results, 80 for what Clang and Windows have to be told, and what a plan says of
# itself; who needs more says why
MOST_LINES = 35_430

OF_NAMEDTUPLES = ("_asdict", "_field_defaults", "_fields", "_make", "_replace")  # public, whatever they look like
OF_ARRAYS = (
    "T all any argmax astype dtype fill flat max mean min ravel repeat reshape round size sum take transpose view"
)
OF_OTHERS = {*OF_ARRAYS.split(), *(n for kind in (str, bytes, list, tuple, dict, set, memoryview) for n in dir(kind))}
SELF = ("self", "cls", "super()")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """A file of a package, which is a dictionary of all of them. One in Cython is only a name."""

    def __init__(self, path: Path, source: Path, package: dict[str, Module]) -> None:
        parts = path.relative_to(source).with_suffix("").parts
        self.is_init = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_init else parts)
        self.package = package
        self.tree = ast.parse(path.read_text(encoding="utf-8") if path.suffix == ".py" else "")
        self.nodes = sorted(ast.walk(self.tree), key=lambda node: getattr(node, "lineno", 0))
        self.attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        self.classes = [node for node in self.nodes if isinstance(node, ast.ClassDef)]
        self.functions = [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def imports(self) -> list[tuple[int, str, str, str]]:
        """Of each imported name: the line, the name here, what it stands for, the module that is imported for it."""
        found = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    here = alias.asname or alias.name.partition(".")[0]
                    found.append((node.lineno, here, alias.name if alias.asname else here, alias.name))
            elif isinstance(node, ast.ImportFrom):
                parents = self.name.split(".")[: self.is_init - node.level or None] if node.level else []
                origin = ".".join([*parents, *filter(None, [node.module])])
                for alias in node.names:
                    full = f"{origin}.{alias.name}"
                    needed = full if full in self.package else origin
                    found.append((node.lineno, alias.asname or alias.name, full, needed))
        return found

    @cached_property
    def bound(self) -> dict[str, str]:
        return {here: full for _, here, full, _ in self.imports}

    @cached_property
    def needs(self) -> dict[str, int]:
        """The modules that this one needs, each with a line that says so.

        `import elman.a.b` needs elman.a.b, not elman/__init__.py: Python runs that first, but nothing is taken from it,
        and if it counted, every module would be in a circle with it. `elman.name` needs it.
        """
        found = [(name, line) for line, _, _, name in self.imports]
        found += [(self.meaning(n.value), n.lineno) for n in self.attributes if self.meaning(n) not in self.package]
        return {name: line for name, line in reversed(found) if name in self.package and name != self.name}

    def meaning(self, node: ast.expr) -> str:
        """The full name of what an expression stands for, if that begins with an imported name; else nothing."""
        if isinstance(node, ast.Attribute):
            before = self.meaning(node.value)
            return before and f"{before}.{node.attr}"
        return self.bound.get(node.id, "") if isinstance(node, ast.Name) else ""

    def is_foreign(self, node: ast.expr) -> bool:
        """Whether an expression may stand for a thing of another module of the package."""
        return ast.unparse(node) not in SELF and self.meaning(node).partition(".")[0] in ("", PACKAGE)


def read(root: Path) -> dict[str, Module]:
    package: dict[str, Module] = {}
    for path in sorted((root / "src" / PACKAGE).rglob("*.py*")):
        if path.suffix in (".py", ".pyx"):
            module = Module(path, root / "src", package)
            package[module.name] = module
    return package


def circles(package: dict[str, Module]) -> Iterator[str]:
    """The modules in circles, one circle after the other, with what keeps each there."""
    reached = {name: {*module.needs} for name, module in package.items()}
    for middle in package:  # Warshall's algorithm
        for names in reached.values():
            names |= reached[middle] if middle in names else set()
    circle = {name: tuple(n for n in package if n in reached[name] and name in reached[n]) for name in package}
    for number, members in enumerate(sorted({*circle.values()} - {()}), start=1):
        for name in members:
            arrows = (f"{n} (line {line})" for n, line in sorted(package[name].needs.items()) if n in members)
            yield f"circle {number}: {name} -> {', '.join(arrows)}"


def reaches(module: Module) -> Iterator[str]:
    for line, _, full, _ in module.imports:
        origin, _, name = full.rpartition(".")
        if is_private(name) and origin.partition(".")[0] == PACKAGE:
            yield f"{module.name}:{line}: from {origin} import {name}"
    classes = {node.name for node in module.classes}
    members = {name for node in module.classes for name in [*assigned(node), *(f.name for f in methods(node))]}
    for node in module.attributes:
        is_beside = node.attr in members or ast.unparse(node.value) in classes
        is_excused = is_beside and module.meaning(node.value) not in module.package
        if is_private(node.attr) and not is_excused and module.is_foreign(node.value):
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_NAMEDTUPLES


def methods(node: ast.ClassDef) -> list[Function]:
    return [statement for statement in node.body if isinstance(statement, Function)]


def assigned(node: ast.ClassDef) -> Iterator[str]:
    """What a class assigns, in its body or to self."""
    for statement in (s for s in node.body if isinstance(s, ast.Assign | ast.AnnAssign)):
        yield from (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    for n in ast.walk(node):
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and ast.unparse(n.value) in SELF:
            yield n.attr


def dropped(package: dict[str, Module]) -> Iterator[str]:
    """Where public methods of other modules are used that have no docstring."""
    bare: dict[str, set[str]] = {}  # their names, and where they are defined
    clear = {*OF_OTHERS}  # what may be something else, or is documented
    for module in package.values():
        clear |= {function.name for function in module.functions if ast.get_docstring(function)}
        for kind in module.classes:
            clear |= {*assigned(kind)}
            if kind.name[0] != "_" and "Protocol" not in " ".join(map(ast.unparse, kind.bases)):
                for method in methods(kind):
                    bare.setdefault(method.name, set()).add(module.name)
    for module in package.values():
        for node in module.attributes:
            is_bare = node.attr in bare and node.attr[0] != "_" and node.attr not in clear
            if is_bare and module.name not in bare[node.attr] and module.is_foreign(node.value):
                yield f"{module.name}:{node.lineno}: {ast.unparse(node)}, which has no docstring"


def long_signatures(package: dict[str, Module]) -> tuple[list[str], list[str]]:
    """The functions with too many parameters, and those that may have as many."""
    public = {function for name in PUBLIC for function in signatures(name, package)}
    beyond, allowed = [], []
    for module in package.values():
        for function in module.functions:
            a = function.args
            names = [arg.arg for arg in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if arg]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            what = f"{module.name}:{function.lineno}: {function.name} has {count} parameters"
            if count > MOST_PARAMETERS and function in public:
                allowed.append(f"{what}, allowed: public")
            elif count > MOST_PARAMETERS and any(map(is_entry, function.decorator_list)):
                allowed.append(f"{what}, allowed: compiled entry")
            elif count > MOST_PARAMETERS:
                beyond.append(what)
    return beyond, allowed


def is_entry(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).partition("(")[0].endswith("entry")


def signatures(name: str, package: dict[str, Module]) -> Iterator[Function]:
    """Public functions: of a module, of that name, or the methods of that class and its documented bases."""
    origin, _, last = name.rpartition(".")
    if name in package:
        for exported in exports(package[name]):
            yield from signatures(f"{name}.{exported}", package)
    elif origin in package:
        module = package[origin]
        for node in module.tree.body:
            if isinstance(node, Function) and node.name == last:
                yield node
            elif isinstance(node, ast.ClassDef) and node.name == last and ast.get_docstring(node):
                yield from (f for f in methods(node) if f.name in ("__init__", "__call__") or f.name[0] != "_")
                for base in node.bases:
                    yield from signatures(module.meaning(base) or f"{origin}.{ast.unparse(base)}", package)
        if module.bound.get(last, name) != name:
            yield from signatures(module.bound[last], package)


def exports(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return [n.name for n in module.tree.body if isinstance(n, Function | ast.ClassDef) and n.name[0] != "_"]


def count_lines(root: Path) -> int:
    count = 0
    for path in filter(Path.is_file, [*(root / "src").rglob("*"), *(root / "csrc").rglob("*")]):
        with contextlib.suppress(UnicodeDecodeError):  # not text
            count += path.read_text(encoding="utf-8").count("\n")
    return count


def main(root: Path) -> int:
    package = read(root)
    in_circles, undocumented = [*circles(package)], [*dropped(package)]
    behind = [reach for module in package.values() for reach in reaches(module)]
    beyond, allowed = long_signatures(package)
    print(*in_circles, *behind, *undocumented, *beyond, *allowed, sep="\n", end="\n\n")
    table = [
        ("modules in circles", len(in_circles), MOST_IN_CIRCLES),
        ("reaches behind a foreign underscore", len(behind + undocumented), MOST_REACHES),
        (f"functions of over {MOST_PARAMETERS} parameters", len(beyond), 0),
        ("lines", count_lines(root), MOST_LINES),
    ]
    for what, found, limit in table:
        print(f"{what:37}{found:7,} of at most {limit:6,}{'  BEYOND' if found > limit else ''}")
    return int(any(found > limit for _, found, limit in table))


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:])))
