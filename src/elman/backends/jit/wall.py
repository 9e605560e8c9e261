"""The wall where arrays become pointers (elman.backends.wall), and arrays as compiled code sees them, by their `id`.

The id of an object is its address in CPython, and a NumPy array begins with where its data are, how many axes it has
and where its shape and strides are (`PyArrayObject_fields`, the part of NumPy's C API that extensions are compiled
against; likewise the first fields of `PyArray_Descr`). Reading these here takes nanoseconds where unpacking an array in
Python takes a microsecond, and a kernel has no array in its signature, so neither strides nor None make Numba compile
it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.backends import wall
from elman.backends.jit.options import kernel
from elman.backends.jit.rows import integer_at
from elman.backends.jit.simd import Address, load_real, size_of_real
from elman.backends.jit.structs import INT, INTS, Struct, ints, load_int, view

_ARRAY = Struct("array", data=INT, ndim=INT, shape=INTS, strides=INTS, base=INT, descr=INT, flags=INT)
_HEADER = object.__basicsize__  # of every Python object: its count of references and its type
_WRITEABLE = 0x400  # of the flags

# id(None) and id(np.ndarray), as they are in this process; and the first fault: 8 · number of the argument + what
WALL = Struct("wall", none=INT, ndarray=INT, fault=INT)

# What is expected of an array besides its extents
BLOCK = 0  # reals, C-contiguous
ROWS = 1  # reals, of any strides but one on the last axis
LOOSE = 2  # of any strides
INTEGERS = 4
WRITTEN = 8
OPTIONAL = 16  # may be None
ANY = -1  # an extent that is the array's to say


def _word(dtype: Any) -> int:
    """A dtype as 8 bytes of its descriptor say it: kind, type, byte order, (flags), type number."""
    native = b"|" if dtype.itemsize == 1 else b"="
    fields = dtype.kind.encode() + dtype.char.encode() + native + b"\0" + dtype.num.to_bytes(4, "little")
    return int.from_bytes(fields, "little")


_FLAGS = ~(0xFF << 24)
_FLOAT, _DOUBLE, _INT64 = _word(np.dtype("f")), _word(np.dtype("d")), _word(np.dtype(np.int64))
_OTHERS = [np.dtype(c) for c in "lq" if np.dtype(c).itemsize == 8]  # int64 has two names where long has 8 bytes
_ALSO_INT64 = _word(next((dtype for dtype in _OTHERS if dtype.num != np.dtype(np.int64).num), np.dtype(np.int64)))


@kernel
def array_of(array: int) -> Any:
    return view(_ARRAY, array + _HEADER)


@kernel
def is_array(w: Any, array: int) -> bool:
    return load_int(array + _HEADER - 8) == w.ndarray


@kernel
def ndim_of(array: int) -> int:
    return array_of(array).ndim & 0xFFFFFFFF  # a C int, and what fills it up to 8 bytes


@kernel
def data_of(array: int, w: Any) -> Address:
    """The address of an array's data, 0 for None."""
    return 0 if array == w.none else array_of(array).data


@kernel
def set_rows_of(rows: Any, array: int, w: Any, size: int) -> None:
    """rows = an array (T, B, n) of elements of `size` bytes, or no rows for None."""
    rows.data = data_of(array, w)
    if array != w.none:
        rows.t_stride = array_of(array).strides[0] // size
        rows.b_stride = array_of(array).strides[1] // size


@kernel
def fault_of(v: Any, w: Any, array: int, kind: int, ndim: int, n0: int, n1: int, n2: int) -> int:
    """What is wrong with an array (elman.backends.wall), or 0."""
    if not is_array(w, array):
        return wall.NO_ARRAY
    a, size = array_of(array), 8 if kind & INTEGERS else size_of_real(v)
    dtype = load_int(a.descr + _HEADER + 8) & _FLAGS
    if kind & INTEGERS:
        if dtype != _INT64 and dtype != _ALSO_INT64:
            return wall.DTYPE
    elif dtype != (_FLOAT if size == 4 else _DOUBLE):
        return wall.DTYPE
    if ndim_of(array) != ndim:
        return wall.SHAPE
    for i in range(ndim):
        expected = n0 if i == 0 else (n1 if i == 1 else n2)
        if a.shape[i] < 1 or (expected != ANY and a.shape[i] != expected):
            return wall.SHAPE
    if a.data % size:
        return wall.ALIGNMENT
    unit = size
    for i in range(ndim - 1, -1, -1):
        if a.shape[i] > 1:  # else its stride leads nowhere
            if a.strides[i] != unit and not (kind & LOOSE or (kind & ROWS and i < ndim - 1)):
                return wall.STRIDES
            if a.strides[i] % size:
                return wall.ALIGNMENT
        unit *= a.shape[i]
    return wall.READ_ONLY if kind & WRITTEN and not a.flags & _WRITEABLE else 0


@kernel
def check(v: Any, w: Any, i: int, array: int, kind: int, ndim: int, n0: int, n1: int, n2: int) -> None:
    """Hold argument i against the layer: dtype, extents, strides, alignment, and that outputs can be written to."""
    if w.fault == 0:
        fault = wall.NO_ARRAY
        if array != w.none:
            fault = fault_of(v, w, array, kind, ndim, n0, n1, n2)
        elif kind & OPTIONAL:
            fault = 0
        if fault:
            w.fault = 8 * i + fault


@kernel
def check_lengths(v: Any, w: Any, i: int, lengths: int, n_steps: int, n_rows: int) -> None:
    check(v, w, i, lengths, INTEGERS | OPTIONAL, 1, n_rows, 1, 1)
    if w.fault == 0 and lengths != w.none:
        values = ints(data_of(lengths, w))
        for b in range(n_rows):
            if values[b] < 0 or values[b] > n_steps:
                w.fault = 8 * i + wall.VALUES


@kernel
def length_in(lengths: Address, b: int, n_steps: int) -> int:
    return ints(lengths)[b] if lengths else n_steps


@kernel
def check_tokens(w: Any, i: int, rows: Any, n_steps: int, n_rows: int, lengths: Address, n: int) -> None:
    """Tokens (T, B) are from 0 to n - 1 within the lengths."""
    for b in range(n_rows):
        for t in range(length_in(lengths, b, n_steps)):
            token = load_int(integer_at(rows, t, b))
            if token < 0 or token >= n:
                w.fault = 8 * i + wall.VALUES


@kernel
def check_targets(v: Any, w: Any, i: int, r: Any) -> None:
    """The categories of all steps with a weight are below O; negative ones are none."""
    weights = r.weights
    for b in range(r.B):
        for t in range(length_in(r.lengths, b, r.T)):
            if load_int(integer_at(r.target, t, b)) >= r.O:
                place = weights.data + (t * weights.t_stride + b * weights.b_stride) * size_of_real(v)
                if not weights.data or load_real(v, place) != 0.0:
                    w.fault = 8 * i + wall.VALUES
