"""What Numba is asked for, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config, njit, types

from elman.backends.jit.compiling import PartCompiler

if config.DISABLE_JIT:  # by a file of Numba's, too
    raise ImportError("NUMBA_DISABLE_JIT is set")

_OPTIONS: dict[str, Any] = {
    "pipeline_class": PartCompiler,  # compiled code of which it becomes a part is all that calls it
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "nogil": True,  # other Python threads run meanwhile
    "error_model": "numpy",  # no test for a zero divisor: none is possible
    "fastmath": False,  # sums keep their order and every multiply-add its rounding: bits equal those of C
    "_nrt": False,  # nothing is allocated, so there is nothing to count references of
}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled ones call: as a part of each `compiling.whole` that needs it."""
    dispatcher: Any = njit(function, **_OPTIONS)
    resolve = dispatcher.get_call_template

    def without_literals(args: Any, kws: Any) -> Any:
        """Numba would compile f(0) apart from f(1) and f(n): a fifth of all that it compiles here."""
        return resolve([types.unliteral(kind) for kind in args], kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


def user_function(function: Callable[..., Any]) -> Any:
    """Compile a user's own function of a float by all of Numba's passes: there may be anything in it."""
    return njit("(float64,)", nogil=True, error_model="numpy")(function)
