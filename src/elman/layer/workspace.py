"""Scratch memory that is used again, so that a second call of the same shape allocates only what it returns."""

from __future__ import annotations

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
_MOST_KEPT = 1 << 27  # bytes of such memory that nobody has
_kept: list[Real] = []


class _Owner:
    """The memory of an array, which is kept when neither that nor a view of it is left."""

    __slots__ = ("__array_interface__", "_memory")

    def __init__(self, memory: Real, n_bytes: int) -> None:
        self._memory = memory
        data = -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT, False
        self.__array_interface__ = {"shape": (n_bytes,), "typestr": "|u1", "data": data, "version": 3}

    def __del__(self, kept: list[Real] = _kept) -> None:  # `pop` and `append` are atomic
        kept.append(self._memory)
        while sum(memory.size for memory in tuple(kept)) > _MOST_KEPT:
            kept.pop(0)


def recycled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Real:
    """`np.empty`, where a large array lies where an earlier one of about its size lay, up to 128 MiB of which are kept.

    What is new, the system clears page by page when it is first written to: up to 7 % of a pass over large layers.
    """
    size = prod(shape)
    if size < LARGE:
        return np.empty(shape, dtype)
    n_bytes = size * dtype.itemsize
    wanted = n_bytes + _ALIGNMENT
    for _ in range(len(_kept)):
        try:
            memory = _kept.pop(0)
        except IndexError:  # another thread was quicker
            continue
        if wanted <= memory.size <= wanted + wanted // 4:
            break
        _kept.append(memory)
    else:
        memory = np.empty(wanted, np.uint8)
    return np.asarray(_Owner(memory, n_bytes)).view(dtype).reshape(shape)


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
