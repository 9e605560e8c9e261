"""Scratch memory that is used again, so that a second call of the same shape allocates only what it returns."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableSequence
from math import prod
from typing import Any

import numpy as np

from elman.typing import Int, Real

_NOTHING: Any = np.zeros(0, dtype=np.uint8)
SMALL = 1 << 12  # values of scratch that the allocator has as quickly as a workspace
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned_size(n: int, dtype: np.dtype[Any]) -> int:
    """The least multiple of the alignment, in elements, that holds n of them."""
    per_line = _ALIGNMENT // dtype.itemsize
    return -(-n // per_line) * per_line


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """Zeros that start on a multiple of 64 bytes. The system hands them out untouched: they cost what is used."""
    n_bytes = prod(shape) * dtype.itemsize
    memory = np.zeros(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


LARGE = 1 << 20  # values of an array whose memory is worth using again
MOST_RECYCLED = 1 << 28  # bytes of such memory, whether somebody has it or not
_lent: dict[int, tuple[Any, Any]] = {}  # by the id of what tells that an array is gone: that, and its memory
_gone: list[Any] = []  # what has told it


def recycled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """`np.empty`, where a large array lies where one of about its size lay that nobody refers to any more.

    What is new, the system clears page by page when it is first written to.
    """
    size = prod(shape)
    if size < LARGE:
        return np.empty(shape, dtype)
    n_bytes = size * dtype.itemsize
    memory = _memory(n_bytes + _ALIGNMENT)
    if memory is None:
        return np.empty(shape, dtype)
    start = -memory.__array_interface__["data"][0] % _ALIGNMENT
    # Views refer to this array, as what is below it is none.
    owner = np.frombuffer(memoryview(memory), np.uint8, n_bytes, start)
    is_gone = weakref.ref(owner, _gone.append)  # not Python's code, in which a Ctrl-C would be lost
    _lent[id(is_gone)] = is_gone, memory
    return owner.view(dtype).reshape(shape)


def _memory(n_bytes: int) -> Any:
    """So many bytes or a few more that nobody has; None where too many are in use."""
    for _ in range(len(_gone)):
        try:
            is_gone = _gone.pop(0)
        except IndexError:  # another thread was quicker
            break
        _, memory = _lent.pop(id(is_gone), (None, _NOTHING))  # nothing, where an interrupt came before it was noted
        if n_bytes <= memory.size <= n_bytes + n_bytes // 4:
            return memory
        _lent[id(is_gone)] = is_gone, memory
        _gone.append(is_gone)
    while sum(memory.size for _, memory in tuple(_lent.values())) + n_bytes > MOST_RECYCLED:
        try:
            _lent.pop(id(_gone.pop(0)), None)
        except IndexError:
            return None
    return np.empty(n_bytes, np.uint8)


_PIECE = 1 << 20  # values that NumPy goes through at once: about a millisecond


def pieces(array: Real | Int) -> Iterator[slice]:
    """The steps of an array (T, B, n), some at a time: Ctrl-C is honoured between them, not in NumPy's own loops."""
    n = max(1, _PIECE // max(1, array[0].size))
    for start in range(0, len(array), n):
        yield slice(start, start + n)


class Block:
    """Some memory and the equal arrays that it is cut into at present."""

    __slots__ = ("arrays", "memory", "shape")

    def __init__(self) -> None:
        self.memory: Real = _NOTHING
        self.shape: tuple[int, int, bool] | None = None
        self.arrays: list[Real] = []


class Lease:
    """Arrays of a workspace, for as long as a `with` block, which gets them as a list.

    What has no such block, as the user's pullback, gives them back when nobody refers to the lease any more.
    """

    __slots__ = ("_block", "_free", "arrays")

    def __init__(self, block: Block, free: MutableSequence[Any]) -> None:
        self._free, self._block = free, block
        self.arrays = block.arrays

    def __enter__(self) -> list[Real]:
        return self.arrays

    def release(self, *_: object) -> None:
        """Give the arrays back, once: whoever leases next may get them."""
        if self.arrays is not _RELEASED:
            self.arrays = _RELEASED
            self._free.append(self._block)

    __exit__ = __del__ = release


_RELEASED: list[Real] = []


class Workspace:
    """Free blocks of one dtype, listed by how many arrays they hold and how wide these are.

    Safe in several threads without a lock: a block is in at most one lease, and `pop` and `append` are atomic. Blocks
    are cut anew for another number of steps or rows and only replaced where they are too small (or far too large), so
    that sequences of varying length do not pile up memory.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._free: dict[tuple[int, int], list[Block]] = {}

    def lease(self, count: int, n_steps: int, n_rows: int, n_columns: int, batch_major: bool = False) -> Lease:
        """`count` arrays (T, B, n_columns) with arbitrary content; in memory (B, T, n_columns) if `batch_major`."""
        free = self._free.get((count, n_columns))
        if free is None:  # `setdefault`, as another thread may have come here, too
            free = self._free.setdefault((count, n_columns), [])
        try:
            block = free.pop()
        except IndexError:
            block = Block()
        shape = (n_steps, n_rows, batch_major)
        if block.shape != shape:
            self._cut(block, count, n_columns, shape)
        return Lease(block, free)

    def _cut(self, block: Block, count: int, n_columns: int, shape: tuple[int, int, bool]) -> None:
        n_steps, n_rows, batch_major = shape
        stored = (n_rows, n_steps, n_columns) if batch_major else (n_steps, n_rows, n_columns)
        stride = aligned_size(prod(stored), self.dtype)
        if not count * stride <= block.memory.size <= max(8 * count * stride, 1 << 16):
            block.arrays, block.memory = [], _NOTHING  # given back before as much, or more, is asked for
            block.memory = aligned_zeros((count * stride,), self.dtype)
        arrays = [block.memory[i * stride :][: prod(stored)].reshape(stored) for i in range(count)]
        block.arrays = [array.swapaxes(0, 1) for array in arrays] if batch_major else arrays
        block.shape = shape
