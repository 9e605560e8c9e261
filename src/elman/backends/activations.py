"""A user's own activation: a pair of scalar functions that NumPy's backend maps, and Numba compiles for the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elman import check
from elman.attributes import Checked
from elman.interrupts import postponed
from elman.typing import Real


class Activation(Checked):
    """What `activation` returns, for `nonlinearity=`. Two are equal only if they are the same object.

    Attributes
    ----------
    f, df : function
        The pair, which is compiled once: fixed.
    name : str
        Likewise.
    """

    _fixed = frozenset(("f", "df", "name"))

    def __init__(self, f: Callable[[float], float], df: Callable[[float], float], name: str) -> None:
        self.f, self.df, self.name = f, df, name

    def __repr__(self) -> str:
        return f"activation({self.name})"

    def apply(self, a: Real) -> Real:
        """f of each element, computed in float64."""
        return self._mapped("f", a)

    def derivative(self, y: Real) -> Real:
        """f' at y = f(a), element by element."""
        return self._mapped("df", y)

    def _mapped(self, name: str, values: Real) -> Real:
        try:
            results = map(getattr(self, name), values.astype(np.float64).ravel().tolist())
            flat = np.fromiter(results, np.float64, values.size)
        except Exception as error:
            raise RuntimeError(f"nonlinearity {self}: its {name} raised {error!r}") from error
        return flat.reshape(values.shape).astype(values.dtype)


def activation(f: Callable[[float], float], df: Callable[[float], float], *, name: str | None = None) -> Activation:
    """An activation of one's own, which Numba compiles for the kernels; the backend "numpy" takes it as it is.

    Parameters
    ----------
    f : function of one float
        f(a), in Python that Numba can compile: arithmetic, conditions, `math`. What it takes from outside, such as a
        global number, stays as it is at the first call.
    df : function of one float
        f' as a function of the output y = f(a), as back-propagation keeps y only.
    name : str, optional
        By default that of f.

    Returns
    -------
    Activation
        For `nonlinearity=` of `RNN` and `SequenceModel`. Both functions are evaluated in float64, for float32 too.
        Where one raises in a call, that raises a RuntimeError which names the activation.

    Raises
    ------
    TypeError
        If f or df is no function of one float that returns a float, or if Numba (where it is installed) cannot compile
        it without Python objects.
    ValueError
        If a value is not finite for some a from −8 to 8, or df(f(a)) is not the derivative of f there, as measured by
        central differences. A few exceptions are let pass: at a kink there is no derivative.

    Examples
    --------
    >>> softsign = activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2, name="softsign")
    >>> softsign
    activation(softsign)
    """
    own = Activation(f, df, getattr(f, "__name__", "f") if name is None else name)
    _check_pair(f, df)
    return own


def _check_pair(f: Any, df: Any) -> None:
    """f(a) and df(y), y = f(a): checked as `elman.activation` says."""
    grid = [-8 + 16 * (i + 0.4142) / 400 for i in range(400)]  # off the places where kinks usually are
    outputs = _floats(f, "f", grid)
    slopes = _floats(df, "df", outputs)
    step = 1e-6
    upper, lower = _floats(f, "f", [a + step for a in grid]), _floats(f, "f", [a - step for a in grid])
    measured = [(b - a) / (2 * step) for a, b in zip(lower, upper, strict=True)]
    wrong = [i for i, (d, m) in enumerate(zip(slopes, measured, strict=True)) if abs(d - m) > 1e-4 * max(1, abs(m))]
    if len(wrong) > 4:
        i = wrong[0]
        raise ValueError(
            f"df must be the derivative of f as a function of y = f(a): for a = {grid[i]:.4g}, y = {outputs[i]:.6g} "
            f"it gives {slopes[i]:.6g}, where differences of f give {measured[i]:.6g}"
        )
    if importlib.util.find_spec("numba") is not None:
        _check_compiles(f, "f")
        _check_compiles(df, "df")


def _floats(function: Any, name: str, values: Sequence[float]) -> list[float]:
    """A user's function of each value: real and finite."""
    if not callable(function):
        raise TypeError(f"{name} must be a function of one float, got {check.shown(function)}")
    results = []
    for x in values:
        try:
            y = function(x)
        except Exception as error:
            raise TypeError(f"{name} must be a function of one float, but {name}({x:.4g}) raised {error!r}") from error
        if not isinstance(y, (int, float, np.integer, np.floating)) or isinstance(y, bool):
            raise TypeError(f"{name} must return a float, got {check.shown(y)} from {name}({x:.4g})")
        if not np.isfinite(y):
            raise ValueError(f"{name} must be finite from -8 to 8, got {y} from {name}({x:.4g})")
        results.append(float(y))
    return results


def _check_compiles(function: Any, name: str) -> None:
    with postponed():
        import numba

    try:
        compiled = numba.njit(function)
        with postponed():
            compiled.compile((numba.types.float64,))
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
        raise TypeError(f"{name} must be a function that Numba can compile: {reason}") from error
