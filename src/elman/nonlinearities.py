"""A user's own activation: a pair of scalar functions that the NumPy backend maps and the Numba backend compiles in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elman import validation
from elman.attributes import Checked
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
    """An activation of one's own, for the backends "numba", into whose kernel it is compiled, and "numpy".

    Parameters
    ----------
    f : function of one float
        f(a), in Python that Numba can compile: arithmetic, conditions, `math`.
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
    validation.derivative_pair(f, df)
    return own
