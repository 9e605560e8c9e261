"""The order in which an epoch goes through a data set that is too large to be listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from elman.layer.dynamics import mixed
from elman.typing import Int

_ROUNDS = 6


class Shuffled:
    """The numbers from 0 to n − 1 in an order that a key gives: each is computed when it is asked for.

    A Feistel network permutes the numbers of an even number of bits; what it takes beyond n goes through it again until
    it is below (Black & Rogaway, 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, n: int, key: int) -> None:
        self.n, self._half = n, np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._keys = mixed(key, np.arange(_ROUNDS))

    def at(self, places: Int) -> Int:
        """What stands there, of an array of places."""
        found = self._permuted(places.astype(np.uint64))
        while (beyond := np.flatnonzero(found >= self.n)).size:
            found[beyond] = self._permuted(found[beyond])
        return found.astype(np.int64)

    def _permuted(self, x: np.ndarray) -> np.ndarray:
        mask = (np.uint64(1) << self._half) - np.uint64(1)
        left, right = x >> self._half, x & mask
        for key in self._keys:
            left, right = right, left ^ (mixed(key, right) & mask)
        return (left << self._half) | right


class Groups(Sequence[Int]):
    """The rows of each batch: in the order of their numbers or, with a key, shuffled; by length within some batches."""

    def __init__(self, lengths: Int, batch_size: int, n_together: int, key: int | None) -> None:
        self._lengths, self._batch_size, self._n_together = lengths, batch_size, n_together * batch_size
        self._order = None if key is None else Shuffled(len(lengths), key)
        self._kept: tuple[int, Int] | None = None  # the rows that were sorted last

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __getitem__(self, i: int) -> Int:  # type: ignore[override]
        if not 0 <= i < len(self):
            raise IndexError(i)
        start = i * self._batch_size
        first = start - start % self._n_together
        if self._kept is None or self._kept[0] != first:
            self._kept = first, self._sorted(first)
        return self._kept[1][start - first : start - first + self._batch_size]

    def __iter__(self) -> Iterator[Int]:
        return (self[i] for i in range(len(self)))

    def _sorted(self, first: int) -> Int:
        rows = np.arange(first, min(first + self._n_together, len(self._lengths)))
        rows = rows if self._order is None else self._order.at(rows)
        return rows[np.argsort(self._lengths[rows], kind="stable")]
