"""The backends: which there are, and which one a call uses.

An explicit `backend` argument comes before `use_backend()`, that before the environment variable ELMAN_BACKEND, which
is read once, and that before the default, which is fixed. Every backend is a module with the functions of
`elman.backends.reference`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from types import ModuleType
from typing import NamedTuple

from elman import check, threads
from elman.interrupts import postponed


class _Entry(NamedTuple):
    module: str
    needs: tuple[str, ...]  # packages that it imports, apart from NumPy
    remedy: str  # how to get it


_TABLE = {
    "numpy": _Entry("elman.backends.reference", (), "it is a part of elman: reinstall elman"),
    "numba": _Entry(
        "elman.backends.jit.backend",
        ("numba", "elman.backends.native"),
        "pip install numba; not every elman brings it",
    ),
    "cython": _Entry("elman.backends.native", (), "reinstall elman from a wheel, or from source with a C compiler"),
}
NAMES = tuple(_TABLE)
DEFAULT = "cython"

_chosen: str | None = None  # by use_backend(), for the whole process
_default: str | None = None  # what the environment says, once it has been asked
_loaded: dict[str, ModuleType] = {}


def available() -> tuple[str, ...]:
    """The names of the backends that are installed here.

    Examples
    --------
    >>> "numpy" in available()
    True
    """
    return tuple(name for name, entry in _TABLE.items() if all(map(_is_there, (entry.module, *entry.needs))))


def use_backend(name: str) -> contextlib.AbstractContextManager[object]:
    """Let every layer and model that was given no backend of its own use this one, in all threads, from now on.

    Parameters
    ----------
    name : {"numpy", "numba", "cython"}

    Returns
    -------
    context manager
        Restores the previous choice when a `with` block ends. The choice is made at once, with or without one.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ImportError
        If it is not installed here; the message says how to get it.

    Examples
    --------
    >>> with use_backend("numpy"):
    ...     print(current())
    numpy
    """
    previous = _chosen
    get(name)
    _choose(name)
    restore = contextlib.ExitStack()
    restore.callback(_choose, previous)
    return restore


def get(name: str, argument: str = "backend") -> ModuleType:
    """The module of a backend, imported at the first call; `argument` is what an error message calls the name."""
    entry = _TABLE[check.choice(name, argument, NAMES)]
    if name not in _loaded:
        try:
            with postponed():
                module = importlib.import_module(entry.module)
        except ImportError as error:
            others = ", ".join(map(repr, available()))
            raise ImportError(
                f"{argument} {name!r} is not installed here ({error}). To get it: {entry.remedy}. Available: {others}"
            ) from error
        if hasattr(module, "set_num_threads"):
            threads.attach_pool(module)
        _loaded[name] = module
    return _loaded[name]


def resolve(explicit: str | None = None) -> ModuleType:
    """The module that a call uses, given its own choice or None. Runs in every call, even a single time step."""
    name = explicit or _chosen or _default or _asked()
    module = _loaded.get(name)
    if module is None:
        is_from_environment = not (explicit or _chosen) and "ELMAN_BACKEND" in os.environ
        module = get(name, "ELMAN_BACKEND" if is_from_environment else "backend")
    return module


def current() -> str:
    """The name of the backend that is used where none is given."""
    return _chosen or _default or _asked()


def _asked() -> str:
    """What is used without any choice. The environment is asked once: that takes as long as half a time step."""
    global _default
    wanted = os.environ.get("ELMAN_BACKEND")
    _default = check.choice(wanted, "ELMAN_BACKEND", NAMES) if wanted else DEFAULT
    return _default


def _choose(name: str | None) -> None:
    global _chosen
    _chosen = name


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
