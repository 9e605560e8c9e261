"""What comes out of a model: each kind of output with its loss, its targets and the kernel that computes them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from elman import validation
from elman.typing import Int, Real


class Categories:
    """One of n categories at each step: softmax and cross-entropy. Targets are integers, −1 where there is none.

    Examples
    --------
    >>> Categories(27)
    Categories(27)
    """

    loss: ClassVar[str] = "cross_entropy"  # of the kernel contract

    def __init__(self, n: int) -> None:
        self.n = validation.positive_int(n, "n")

    def __repr__(self) -> str:
        return f"Categories({self.n})"

    def targets(self, y: Any, shape: tuple[int, ...], lengths: Int | None) -> tuple[Int, int]:
        """Validated targets (T, B) and how many there are."""
        return validation.targets(y, "y", self.n, shape, lengths)

    def choose(self, o: Real, temperature: float, rng: np.random.Generator) -> int:
        """A category drawn from the softmax of outputs o (O,) / temperature; the likeliest for temperature 0."""
        most = o.max()
        if not np.isfinite(most):  # of NaN, `searchsorted` would make a category beyond the last
            raise FloatingPointError(f"the largest output is {most}: the parameters are not finite, or far too large")
        if temperature == 0:
            return int(o.argmax())
        with np.errstate(over="ignore"):  # a tiny temperature leaves nothing of what is less likely
            z = np.subtract(o, most, dtype=np.float64) / temperature
        cumulative = np.exp(z).cumsum()
        return int(cumulative.searchsorted(rng.random() * cumulative[-1], side="right"))
