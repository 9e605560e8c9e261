"""A text as numbers, of which some stretches are left out, in memory or in a file; and what in it is a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman.data.rows import give_back
from elman.typing import Int

Numbers = NDArray[Any]  # (n,) integers, code points or the like: an array, or a file that is mapped
Stretches = tuple[Int, Int]  # where they begin (k,) and end (k,), both ascending

_COPY = 50  # numbers in a row that make a copy
_ROW = 24  # numbers that are hashed together: those from some multiple of 24 on are in every copy
_BLOCK = _ROW << 15  # numbers that are looked at together
_ODD = np.random.default_rng(0).integers(1 << 63, size=13, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


class Encoded:
    """Tokens: what a table says of numbers (n,), without those between the stretches that are kept."""

    def __init__(self, numbers: Numbers, table: Int | None = None, kept: Stretches | None = None) -> None:
        self._numbers, self._table = numbers, table
        self._starts, stops = kept or (np.zeros(1, np.int64), np.array([len(numbers)]))
        self._ends = np.cumsum(stops - self._starts)  # among the tokens

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, n: int) -> Int:
        """n tokens (n,) from one on, round and round."""
        assert self._table is not None
        return np.asarray(self._table[self.numbers(start, n)], np.int64)

    def numbers(self, start: int, n: int) -> Numbers:
        """The same as numbers."""
        found = np.empty(n, self._numbers.dtype)
        done, start = 0, start % len(self)
        i = int(self._ends.searchsorted(start, "right"))
        while done < n:
            place = int(self._starts[i] + start - (self._ends[i - 1] if i else 0))
            part = min(n - done, int(self._ends[i]) - start)
            found[done : done + part] = self._numbers[place : place + part]
            done, start, i = done + part, start + part, i + 1
            if i == len(self._ends):
                start = i = 0
        give_back(self._numbers)
        return found

    def looked_up(self, table: Int) -> Encoded:
        """The same with a table."""
        return Encoded(self._numbers, table, (self._starts, self._starts + np.diff(self._ends, prepend=0)))

    def without(self, starts: Int, stops: Int) -> Encoded:
        """What is left without stretches, which may overlap."""
        bounds = np.unique(np.concatenate([[0], starts, stops, self._ends]))
        first, last = bounds[:-1], bounds[1:]
        is_kept = starts.searchsorted(first, "right") == stops.searchsorted(first, "right")
        first, last = first[is_kept], last[is_kept]
        i = self._ends.searchsorted(first, "right")
        places = first + (self._starts - np.concatenate([[0], self._ends[:-1]]))[i]
        return Encoded(self._numbers, self._table, (places, places + last - first))

    def without_copies(self, pieces: Numbers) -> Encoded:
        """What is left without stretches that are in pieces (k, length); all of it, if that were most of it."""
        if pieces.shape[1] < _COPY:
            return self
        dtype = np.promote_types(pieces.dtype, self._numbers.dtype)
        copies, rest, size = _Copies(pieces.astype(dtype)), self, -1
        while len(rest) != size:  # what is left on the two sides of a gap may make up another copy
            size = len(rest)
            rest = rest.without(*copies.among(rest, len(self) // 2))
            if 2 * len(rest) < len(self):
                return self
        return rest


class _Copies:
    """Finds stretches of 50 numbers that are in pieces, by their hashes."""

    def __init__(self, pieces: Numbers) -> None:
        self._dtype = pieces.dtype
        rows = np.lib.stride_tricks.sliding_window_view(pieces, _ROW, axis=1)
        self._rows = _Set(_hashes_of_rows(np.ascontiguousarray(rows)))
        self._whole = _Set(_hashes_of_copies(pieces))

    def among(self, text: Encoded, most: int) -> Stretches:
        """The stretches that are copies: all, or some that are more than so many numbers together."""
        starts, stops, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for start in range(0, len(text) - _COPY + 1, _BLOCK):
            block = text.numbers(start, min(_BLOCK + _COPY - 1, len(text) - start)).astype(self._dtype, copy=False)
            places = self._places(block) + start
            if not len(places):
                continue
            ends = np.flatnonzero(np.diff(places) > _COPY)
            starts.append(places[np.append(0, ends + 1)])
            stops.append(places[np.append(ends, -1)] + _COPY)
            found += int((stops[-1] - starts[-1]).sum()) - _COPY  # by so many, blocks may overlap
            if found > most:
                break
        return np.concatenate(starts), np.concatenate(stops)

    def _places(self, block: Numbers) -> Int:
        """Where copies begin in a block, ascending."""
        rows = block[: len(block) // _ROW * _ROW].reshape(-1, _ROW)
        starts = _ROW * self._rows.places(_hashes_of_rows(rows))
        if not len(starts):
            return starts
        around = np.pad(block, (_ROW - 1, _COPY))  # a copy begins up to 23 before the first row in it
        found = []
        for part in np.array_split(starts, -(-len(starts) // 4096)):
            text = around[part[:, None] + np.arange(_COPY + _ROW - 1)]
            places = self._whole.places(_hashes_of_copies(text))
            found.append(part[places // _ROW] - (_ROW - 1) + places % _ROW)
        places = np.concatenate(found)
        return places[(places >= 0) & (places <= len(block) - _COPY)]


class _Set:
    """Hashes, to look others up in."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._sorted = np.sort(hashes, axis=None)
        self._may_be = np.zeros(1 << 21, bool)  # which is looked up first, as caches hold it
        self._may_be[self._short(self._sorted)] = True

    def places(self, hashes: NDArray[np.uint64]) -> Int:
        """Which ones are among them, by their places in what is raveled."""
        maybe = np.flatnonzero(self._may_be[self._short(hashes)])
        found = hashes.reshape(-1)[maybe]
        at = np.minimum(self._sorted.searchsorted(found), len(self._sorted) - 1)
        return np.asarray(maybe[self._sorted[at] == found])

    @staticmethod
    def _short(hashes: NDArray[np.uint64]) -> Int:
        return (hashes >> np.uint64(43)).view(np.int64)


def _hashes_of_rows(rows: Numbers) -> NDArray[np.uint64]:
    """(…) of rows (…, 24), contiguous, for which their bytes are taken together by eights."""
    words = rows.view(np.uint64)
    found: NDArray[np.uint64] = words[..., 0] * _ODD[0]
    for i in range(1, words.shape[-1]):
        found += words[..., i] * _ODD[i]
    return found


def _hashes_of_copies(text: Numbers) -> NDArray[np.uint64]:
    """(…, n - 49) of texts (…, n): polynomials of the 50 numbers from each place on."""
    n, base = text.shape[-1], int(_ODD[-1])
    powers, inverse = (np.cumprod(np.full(n, factor, np.uint64)) for factor in (base, pow(base, -1, 1 << 64)))
    sums = np.zeros((*text.shape[:-1], n + 1), np.uint64)
    np.cumsum(text.astype(np.uint64) * powers, axis=-1, out=sums[..., 1:])
    return np.asarray((sums[..., _COPY:] - sums[..., :-_COPY]) * inverse[: n - _COPY + 1], np.uint64)
