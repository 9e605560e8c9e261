"""What goes into a model: kinds of input."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import check
from elman.check import Shape
from elman.data.learned import Kind
from elman.typing import Int, Real


class Input(Kind):
    """What all kinds of input have."""

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Any:
        """Validated input: of one of these shapes, with another axis of n for features."""
        raise NotImplementedError


class Tokens(Input):
    """Integers from 0 to n - 1, one at each step: a word, a character, a symbol. The kernels need no one-hot arrays.

    Examples
    --------
    >>> Tokens(27)
    Tokens(27)
    """

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Int:  # noqa: ARG002
        return check.tokens(x, name, self.n, *shapes, row_lengths=row_lengths)


class Features(Input):
    """n real numbers at each step. One-hot features give a model the same numbers as the tokens that they stand for.

    They are float32 or float64; in data sets also bool, float16, or integers of up to 16 bits.

    Examples
    --------
    >>> Features(8)
    Features(8)
    """

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Real:
        array = check.real_array(x, name, dtype, *[(*shape, self.n) for shape in shapes])
        if row_lengths is not None:
            row_lengths = check.lengths(row_lengths, array.shape[1], len(array))
        check.finite(array, name, row_lengths)
        return array
