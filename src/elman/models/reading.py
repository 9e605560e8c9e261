"""What layers read of a model's inputs in one call, and where gradients go from there.

Tokens (T, B) with an embedding E (n, d) are not looked up one by one. What acts on a token is its row of E weight_ihᵀ,
so layers read tokens with those rows for a weight, (H, U) for the U distinct ones of a call: U d H multiply-adds
instead of T B d H, and in training three times so. With H = 256, d = 64 and T B = 2,048 those would be 201 of the 1,006
million operations of a step; 6 are left with 65 tokens, 88 with 896 distinct ones of 10,000. Kernels add up gradients
by those weights in the order of all others, so that `memory` leaves the bits of the embedding's alone.
Columns, of which several may have an embedding, are laid out as reals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman.backends.contract import Readout
from elman.data.inputs import Input
from elman.layer.stack import Mode, Weights
from elman.typing import Int, Real

Arrays = list[Any]  # that lie like parameters: gradients, None where one is not wanted


class Reading:
    """Inputs as they are."""

    weights: Sequence[Weights] | None = None  # of the layers, as they act; None for their own

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays  # where the layers' gradients are added

    def of(self, x: Any) -> Any:
        """What layers read of a stretch (T, B, ·)."""
        return x

    def room(self, x: Any) -> Any:  # noqa: ARG002
        """For the gradient by what they read, 0 beyond the lengths; None where nobody wants it."""
        return None

    def add(self, x: Any, d_x: Any) -> None:
        """Add those of a stretch."""

    def end(self) -> None:
        """Add what gradients of all stretches lead to."""


class LaidOut(Reading):
    """Inputs (T, B, ·) as reals (T, B, I)."""

    def __init__(self, inputs: Input, tables: Arrays, arrays: Arrays, d_tables: Arrays) -> None:
        super().__init__(arrays)
        self._inputs, self._tables, self._d_tables = inputs, tables, d_tables

    def of(self, x: Any) -> Any:
        return self._inputs.laid_out(x, self._tables)

    def room(self, x: Any) -> Any:
        return None if all(table is None for table in self._d_tables) else np.zeros_like(x)

    def add(self, x: Any, d_x: Any) -> None:
        if d_x is not None:
            with np.errstate(all="ignore"):  # the update says if they are not finite
                self._inputs.add_by_tables(self._d_tables, x, d_x)


class ByToken(Reading):
    """Tokens with an embedding, with weights of their own for the distinct ones among x."""

    def __init__(
        self, x: Int, table: Real, weights: Sequence[Weights], mode: Mode, arrays: Arrays, d_table: Real | None
    ) -> None:
        """table: the embedding (d, n)."""
        super().__init__(arrays)
        self._backend, self._d_table = mode.backend, d_table
        is_there = np.zeros(table.shape[1], bool)
        is_there.put(x, True, mode="clip")  # as beyond the lengths there may be any number
        self._tokens = is_there.nonzero()[0]
        self._places = np.cumsum(is_there) - 1
        self._rows = np.ascontiguousarray(table.T[self._tokens])[None]  # (1, U, d)
        (self._weight_ih, weight_hh, bias), upper = weights[0], weights[1:]
        n_directions, _, n_units = self._weight_ih.shape
        acting = np.empty((n_directions, len(self._tokens), n_units), table.dtype)
        for own, into in zip(self._weight_ih, acting, strict=True):
            mode.backend.readout(Readout(self._rows, own, None, into[None]))
        self.weights = [(acting, weight_hh, bias), *upper]
        self._d_weight, self._d_acting = arrays[0] if arrays else None, None
        if self._d_weight is not None or d_table is not None:
            self._d_acting = np.zeros_like(acting)
        self.arrays = [self._d_acting, *arrays[1:]]

    def of(self, x: Int) -> Int:
        return self._places.take(x, mode="clip")

    def end(self) -> None:
        if self._d_acting is None:
            return
        for d, (own, d_own) in enumerate(zip(self._weight_ih, self._d_acting, strict=True)):
            d_rows = None if self._d_table is None else np.empty_like(self._rows)
            d_weight = None if self._d_weight is None else self._d_weight[d]
            wanted: Any = {"d_h": d_rows, "d_weight": d_weight}
            scratch = np.empty_like(d_own)[None]
            self._backend.readout_loss(Readout(self._rows, own, None, scratch, d_own[None], "linear", **wanted))
            if d_rows is not None and self._d_table is not None:
                with np.errstate(all="ignore"):  # the update says if they are not finite
                    self._d_table[:, self._tokens] += d_rows[0].T
