"""What goes into a model: kinds of input, and data sets cut into batches of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from elman import validation
from elman.typing import Int

_POOL = 32  # batches whose sequences are sorted by length together: padding goes, chance stays


class Tokens:
    """Integers from 0 to n - 1, one at each step: a word, a character, a symbol. The kernels need no one-hot arrays.

    Examples
    --------
    >>> Tokens(27)
    Tokens(27)
    """

    def __init__(self, n: int) -> None:
        self.n = validation.positive_int(n, "n")

    def __repr__(self) -> str:
        return f"Tokens({self.n})"

    def array(self, x: Any, lengths: Any) -> Int:
        """Validated input (T, B), whatever there is beyond the lengths."""
        return validation.tokens(x, "x", self.n, ("T", "B"), row_lengths=lengths)


class Batch(NamedTuple):
    """Sequences side by side, time-major; lengths is None where all are equally long."""

    x: Int
    y: Int
    lengths: Int | None
    n_targets: int


class Sequences:
    """A data set of token sequences X with targets Y for each step: lists of (T_i,) arrays, or arrays (N, T)."""

    def __init__(self, X: Any, Y: Any, *, n_inputs: int, n_outputs: int, names: tuple[str, str]) -> None:
        self.x = validation.token_sequences(X, names[0], 0, n_inputs)
        self.y = validation.token_sequences(Y, names[1], -1, n_outputs)
        validation.same_lengths(self.x, self.y, *names)
        self.lengths = np.array([len(x) for x in self.x], dtype=np.int64)
        self.n_targets = np.array([np.count_nonzero(y >= 0) for y in self.y], dtype=np.int64)
        validation.any_target(self.n_targets, names[1])

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """All sequences with a target in batches of about equal length; in random order if there is a generator."""
        order = np.flatnonzero(self.n_targets)
        n = len(order)
        if rng is not None:
            order = rng.permutation(order)
        pool = n if rng is None else batch_size * _POOL
        groups = []
        for start in range(0, n, pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            groups += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        for i in range(len(groups)) if rng is None else rng.permutation(len(groups)):
            yield self._batch(groups[i])

    def _batch(self, rows: Int) -> Batch:
        lengths = self.lengths[rows]
        # (B, T) in memory, and zeros that the system has not touched: the cost follows the sum of the lengths
        x, y = (np.zeros((len(rows), lengths.max()), np.int64) for _ in range(2))
        for i, row in enumerate(rows):
            x[i, : lengths[i]] = self.x[row]
            y[i, : lengths[i]] = self.y[row]
        return Batch(x.T, y.T, None if lengths.min() == lengths.max() else lengths, int(self.n_targets[rows].sum()))
