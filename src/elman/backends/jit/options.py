"""What Numba is asked for, and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numba import config, njit, types

from elman.backends.jit.compiling import EntryCompiler, PartCompiler

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

_OPTIONS: dict[str, Any] = {
    "nogil": True,  # other Python threads run meanwhile
    "error_model": "numpy",  # no test for a zero divisor: none is possible
    "fastmath": False,  # sums keep their order and every multiply-add its rounding: bits equal those of C
    "_nrt": False,  # nothing is allocated, so there is nothing to count references of
}

_PART = _OPTIONS | {
    "no_cpython_wrapper": True,  # no one calls it but compiled code, ...
    "no_cfunc_wrapper": True,
    "pipeline_class": PartCompiler,  # ... of which it becomes a part
}
_ENTRY = _OPTIONS | {"no_cfunc_wrapper": True}  # only Python calls it


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled ones call: as a part of each `entry` that needs it."""
    dispatcher: Any = njit(function, **_PART)
    resolve = dispatcher.get_call_template

    def without_literals(args: Any, kws: Any) -> Any:
        """Numba would compile f(0) apart from f(1) and f(n): a fifth of all that it compiles here."""
        return resolve([types.unliteral(kind) for kind in args], kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


def entry(function: Callable[..., Any], level_for: Callable[[Any], int] = lambda _: 3, *, cache: bool = True) -> Any:
    """Compile a function that Python calls; it is kept on disk where that is possible.

    `level_for` says, of the type of its first argument, how far LLVM is to optimise it. Not to be kept is what a user's
    own functions go into: another process knows others.
    """
    function.level_for = level_for  # type: ignore[attr-defined]
    try:  # Numba looks for a folder here, at the decoration, and raises where it may write to none
        return njit(function, cache=cache, pipeline_class=EntryCompiler, **_ENTRY)
    except RuntimeError as error:
        warn_once(str(error))
        return njit(function, pipeline_class=EntryCompiler, **_ENTRY)


def pass_entry(function: Callable[..., Any]) -> Any:
    """A pass calls tiles and epilogues and does little itself: LLVM's level 3 would take half as long again."""
    return entry(function, lambda _: 1)


def tile_entry(function: Callable[..., Any]) -> Any:
    """A tile is emitted as it should be; but without free masks its loop has a branch, of which level 3 makes two."""
    return entry(function, lambda v: 0 if v.masks_are_free else 3)


def user_function(function: Callable[..., Any]) -> Any:
    """Compile a user's own function by all of Numba's passes: there may be anything in it."""
    return njit(function, nogil=True, error_model="numpy")


_warned = False


def warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        message = f"the numba backend compiles anew in each process: the disk does not keep its code ({reason})"
        warnings.warn(f"{message}; set NUMBA_CACHE_DIR to a folder where it can", RuntimeWarning, stacklevel=2)
