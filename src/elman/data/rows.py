"""Rows of a data set: sequences, or single items, that are read, checked and converted when a batch needs them.

So a data set takes no more memory than what it lies in: a file that is mapped, an array on disk, small integers.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman.typing import Int

Check = Callable[[Any, str, Any], NDArray[Any]]  # of rows as given, their name, and which they are, to checked ones
_BLOCK = 1 << 22  # bytes of an array that are checked at a time
_READ_TOGETHER = 32  # rows of a file that is mapped
_LARGE = 1 << 26  # bytes of a file that is mapped from which on its pages are given back
_NEAR = 1 << 17  # bytes: what the system reads around a place that it is asked for


class Rows:
    """N rows (T_i, ·), as the kernels take them."""

    lengths: Int  # (N,)
    is_table: bool  # whether they are one array (N, T, ·)
    are_there: bool  # whether all have been checked, as reading them costs nothing

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> NDArray[Any]:
        """A row (T, ·)."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def side_by_side(self, rows: Int) -> Any:
        """Some of them as (T, B, ·): (B, T, ·) in memory, zeros beyond the ends."""
        return padded([self[i] for i in rows.tolist()])


class Table(Rows):
    """Rows of an array (N, T, ·), or of one (N, ·) of single items, each a row with T = 1.

    Anything with `shape` and `dtype` of which slices can be taken will do.
    """

    is_table = True

    def __init__(self, source: Any, name: str, check: Check, *, dtype: Any, are_items: bool = False) -> None:
        """dtype: what they are converted to; None: at once, if they are there, whatever they take."""
        self._source, self._name, self._check, self._are_items = source, name, check, are_items
        self.are_there = not is_sliced(source)
        if self.are_there and (dtype is None or source.dtype == dtype):
            self._source, self._check = check(source, name, np.arange(len(source))), _as_it_is
        elif self.are_there:
            self._check_all()
        else:
            self._read(np.arange(1))  # the others are like it
        n_steps = 1 if are_items else source.shape[1]
        self.lengths = np.broadcast_to(np.int64(n_steps), (len(source),))  # which may be more than memory has room for

    def __getitem__(self, i: int) -> NDArray[Any]:
        row: NDArray[Any] = self._read(np.array([i]))[0]
        return row

    def side_by_side(self, rows: Int) -> Any:
        return self._read(rows).swapaxes(0, 1)

    def _check_all(self) -> None:
        n_rows, n = len(self._source), max(1, _BLOCK // max(1, self._source[:1].nbytes))
        try:
            for start in range(0, n_rows, n):
                rows = np.arange(start, min(start + n, n_rows))
                self._check(self._source[start : start + n], self._name, rows)
        except (TypeError, ValueError):
            self._check(self._source, self._name, np.arange(n_rows))  # says where in the whole
            raise

    def _read(self, rows: Int) -> NDArray[Any]:
        """(B, T, ·)."""
        given = gathered(self._source, rows)
        try:
            found = self._check(given, self._name, rows)
        except (TypeError, ValueError):
            for row, one in zip(rows.tolist(), given, strict=True):  # of which one says more
                self._check(one, self._name_of(row), row)
            raise
        n_axes = 2 if found.dtype == np.int64 else 3
        return found[:, None] if self._are_items and found.ndim < n_axes else found

    def _name_of(self, row: int) -> str:
        """With where it lies in a series, if it is a window."""
        place = f" = {self._source.place_of(row)}" if hasattr(self._source, "place_of") else ""
        return f"{self._name}[{row}]{place}"


class Listed(Rows):
    """Rows of a list of arrays (T_i, ·)."""

    is_table = False

    def __init__(self, source: Sequence[Any], name: str, check: Check, *, dtype: Any) -> None:
        self._name, self._check = name, check
        self.are_there, is_as_it_is, self._items = True, True, list[Any]()
        for i, item in enumerate(source):
            if is_sliced(item):
                self.are_there = is_as_it_is = False
                self._items.append(item)
                continue
            checked = check(item, f"{name}[{i}]", i)
            keeps = dtype is not None and isinstance(item, np.ndarray) and item.dtype != dtype and item.size > 0
            self._items.append(item if keeps else checked)
            is_as_it_is = is_as_it_is and not keeps
        if is_as_it_is:
            self._check = _as_it_is
        self.lengths = np.array([len(item) for item in self._items], dtype=np.int64)

    def __getitem__(self, i: int) -> NDArray[Any]:
        item = self._items[i]
        if self._check is not _as_it_is and not isinstance(item, np.ndarray):
            item = np.asarray(item[:])
        found = self._check(item, f"{self._name}[{i}]", i)
        if not self.are_there:
            give_back(item)
        return found


class Column(Rows):
    """Rows of an Arrow column of lists, whose items are read where they lie."""

    is_table, are_there = False, False

    def __init__(self, source: Any, name: str, check: Check) -> None:
        self._source, self._name, self._check = source, name, check
        if source.null_count:
            raise ValueError(f"{name} must have a sequence in each row, got {source.null_count} nulls")
        chunks = getattr(source, "chunks", [source])
        self.lengths = np.concatenate([np.asarray(chunk.value_lengths()).astype(np.int64) for chunk in chunks])

    def __getitem__(self, i: int) -> NDArray[Any]:
        name = f"{self._name}[{i}]"
        return self._check(_numbers_of(self._source[int(i)].values, name), name, int(i))


def _numbers_of(values: Any, name: str) -> NDArray[Any]:
    """Steps (T,) of a row, or (T, n) where each is a list itself."""
    if not hasattr(values.type, "value_field"):
        if values.null_count:
            raise ValueError(f"{name} must have a value at each step, got {values.null_count} nulls")
        found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return found
    widths = np.asarray(values.value_lengths().fill_null(0))
    if len({*widths.tolist()}) > 1:
        raise ValueError(f"{name} must have as many numbers at each step, got {widths.min()} and {widths.max()}")
    return _numbers_of(values.flatten(), name).reshape(len(values), -1)


def is_column(value: Any) -> bool:
    """Whether it is an Arrow column of lists."""
    is_of_arrow = type(value).__module__.partition(".")[0] == "pyarrow"
    return is_of_arrow and hasattr(getattr(value, "type", None), "value_field")


def total_of(rows: Rows) -> int:
    """How many steps they have together."""
    return len(rows) * int(rows.lengths[0]) if rows.is_table else int(rows.lengths.sum())


def padded(sequences: Sequence[NDArray[Any]]) -> Any:
    """Sequences (T_i, ·) as (T, B, ·); the cost follows the sum of the lengths."""
    n_steps, first = max(map(len, sequences)), sequences[0]
    together = np.zeros((len(sequences), n_steps, *first.shape[1:]), first.dtype)
    for i, sequence in enumerate(sequences):
        together[i, : len(sequence)] = sequence
    return together.swapaxes(0, 1)


def is_sliced(value: Any) -> bool:
    """Whether slices of it are read when they are asked for: a file that is mapped, or an array on disk."""
    if isinstance(value, np.ndarray):
        return _mapped(value) is not None
    has_all = all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__", "__len__"))
    # A tensor, a column of pandas, or a str of NumPy
    is_there = hasattr(value, "__dlpack__") or hasattr(value, "iloc") or isinstance(value, str)
    return has_all and not is_there


def row_of(source: Any, i: int) -> Any:
    """One row of a list, or of an array of any kind."""
    return source[i] if isinstance(source, (list, tuple, np.ndarray)) else source[i : i + 1][0]


def gathered(source: Any, rows: Int) -> NDArray[Any]:
    """Some rows of an array of any kind, as a fresh array."""
    if isinstance(source, np.ndarray):
        if _mapped(source) is None:
            return source.take(rows, axis=0)  # source[rows] would lie in memory in the order that source does
        found = np.empty((len(rows), *source.shape[1:]), source.dtype)
        for part in _parts(len(rows)):
            _ask_for(source, rows[part])
            np.take(np.asarray(source), rows[part], axis=0, out=found[part], mode="clip")
            give_back(source)
        return found
    if hasattr(source, "rows_at"):
        return np.asarray(source.rows_at(rows))
    order = rows.argsort(kind="stable")
    ends = np.flatnonzero(np.diff(rows[order]) != 1) + 1
    runs = [range(int(rows[part[0]]), int(rows[part[-1]]) + 1) for part in np.split(order, ends)]
    return np.concatenate([_slice_of(source, run) for run in runs])[order.argsort()]


def _slice_of(source: Any, rows: range) -> NDArray[Any]:
    """Some rows that follow one another, of what may be a stranger's class."""
    found, shape = np.asarray(source[rows.start : rows.stop]), (len(rows), *source.shape[1:])
    if found.shape != shape:
        shown = f"[{rows.start}:{rows.stop}] of a {type(source).__name__}"
        raise ValueError(f"{shown} must have shape {shape}, as its own shape says, got {found.shape}")
    return found


def stretches_of(source: Any, starts: Int, n: int) -> NDArray[Any]:
    """The n rows from each of some starts on, as a fresh array (B, n, ·)."""
    found = np.empty((len(starts), n, *source.shape[1:]), source.dtype)
    for part in _parts(len(starts)):
        _ask_for(source, starts[part], n)
        for into, start in zip(found[part], starts[part].tolist(), strict=True):
            into[...] = source[start : start + n]
        give_back(source)
    return found


def _parts(n: int) -> Iterator[slice]:
    """Of the rows of a batch, so that each takes little memory of a file's pages, which come with many neighbours."""
    return (slice(start, start + _READ_TOGETHER) for start in range(0, n, _READ_TOGETHER))


def _as_it_is(rows: Any, name: str, which: Any) -> Any:  # noqa: ARG001
    return rows


def _bases(array: Any) -> Iterator[Any]:
    while array is not None:
        yield array
        array = getattr(array, "base", None)


def _mapped(array: NDArray[Any]) -> Any:
    """The map of a file that an array lies in, None if it lies in memory."""
    return next((base for base in _bases(array) if isinstance(base, mmap.mmap)), None)


def _large(array: Any) -> Any:
    """The map of a large file that an array lies in, unless it holds what the file does not (copy on write)."""
    modes = {base.mode for base in _bases(array) if isinstance(base, np.memmap)}
    mapped = _mapped(array) if modes and modes <= {"r", "r+", "w+"} and hasattr(mmap, "MADV_DONTNEED") else None
    return mapped if mapped is not None and len(mapped) >= _LARGE else None


def _ask_for(array: Any, starts: Int, n: int = 1) -> None:
    """Let the system read n rows from each of some starts on and, where these lie apart, not what lies around them."""
    mapped = _large(array)
    step = 0 if mapped is None else array.strides[0]
    if not 0 < n * step < _NEAR or (abs(np.diff(starts)) * step < _NEAR).all():
        return
    mapped.madvise(mmap.MADV_RANDOM)
    first = array.ctypes.data - np.frombuffer(mapped, np.uint8, 1).ctypes.data
    for begin in (first + starts * step).tolist():
        page = begin - begin % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, begin + n * step - page)


def give_back(array: Any) -> None:
    """Let go of the pages of a large file that have been read: the system would count them as this process's memory."""
    if (mapped := _large(array)) is not None:
        mapped.madvise(mmap.MADV_NORMAL)
        mapped.madvise(mmap.MADV_DONTNEED)
