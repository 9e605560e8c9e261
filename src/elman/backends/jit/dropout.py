"""Dropout: csrc/dropout.h, where the reasons stand. (What it makes for a mask is always made in C.)"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from elman.backends.jit.options import kernel
from elman.backends.jit.rows import prefetch_row
from elman.backends.jit.simd import (
    INT64,
    Address,
    Lanes,
    Site,
    Vector,
    emit_pointer,
    emit_splat,
    emitted,
    load_upto,
    reals,
    size_of_real,
    splat,
    store_upto,
    width_of,
)
from elman.backends.jit.structs import FLOAT, INT, Struct, after, larger, smaller, stack, truncated

VECTORS = 2  # of counters at a time: more of the rounds are under way
DRAWN_ROWS = 16  # that are drawn for before they are masked

_KEPT = DRAWN_ROWS * VECTORS * 2 * 64  # bytes, for the widest vectors

# Of a key; least: what a unit's word has to be for it to be kept, unless all are dropped, or none, and rows copied;
# factor: of what is kept; stream: of direction 0
DRAWING = Struct("drawing", key=INT, least=INT, is_all=INT, is_none=INT, factor=FLOAT, stream=INT)


@kernel
def set_drawing(d: Any, p: float, key: int, stream: int) -> None:
    least = truncated(p * 2.0**32 + 2.0**52 - 2.0**52)  # rounded, by the sum
    d.key, d.least, d.is_all, d.is_none = key, least, least >> 32, 1 if p == 0.0 else 0
    d.factor, d.stream = 1.0 / (1.0 - p), stream


def _emit_words(builder: Any, wide: Any, key: Any, counter: tuple[Any, ...]) -> list[Any]:
    """Philox4x32-10: four words in the lower halves of vectors; the upper ones are not looked at."""
    a, b, c, e = counter
    low = ir.Constant(wide, [(1 << 32) - 1] * wide.count)
    for i in range(10):
        half_keys = key, builder.lshr(key, INT64(32))
        steps = i * 0x9E3779B9, i * 0xBB67AE85
        keys = (
            builder.and_(builder.add(k, INT64(s)), INT64((1 << 32) - 1)) for k, s in zip(half_keys, steps, strict=True)
        )
        key_0, key_1 = (emit_splat(builder, wide, k) for k in keys)
        left, right = (
            builder.mul(builder.and_(x, low), ir.Constant(wide, [m] * wide.count))
            for x, m in ((a, 0xD2511F53), (c, 0xCD9E8D57))
        )
        half = ir.Constant(wide, [32] * wide.count)
        a, b = builder.xor(builder.xor(b, key_0), builder.lshr(right, half)), right
        c, e = builder.xor(builder.xor(e, key_1), builder.lshr(left, half)), left
    return [a, b, c, e]


def _emit_pick(builder: Any, a: Any, b: Any, first: int) -> Any:
    """Of each four of a's and of b's every other one, from `first` on."""
    n = a.type.count
    which = [k + i for i in range(first, n, 4) for k in (0, 2, n, n + 2)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), n), which))


@emitted
def draw_row(
    at: Site, v: Lanes, kept: Address, key: int, least: int, counter: int, row: int, step: int, stream: int
) -> None:
    """For 2 * VECTORS vectors of units, as 32-bit integers, whether they are kept: -1 or 0."""
    builder, n = at.builder, v.width // 8
    wide, halves = ir.VectorType(INT64, n), ir.VectorType(ir.IntType(32), 2 * n)
    rest = [emit_splat(builder, wide, x) for x in (row, step, stream)]
    least = emit_splat(builder, halves, builder.trunc(least, ir.IntType(32)))
    for i in range(VECTORS):
        order = ir.Constant(wide, [i * n + k // 2 + k % 2 * (n // 2) for k in range(n)])
        first = builder.add(emit_splat(builder, wide, counter), order)
        words = [builder.bitcast(x, halves) for x in _emit_words(builder, wide, key, (first, *rest))]
        one, other = _emit_pick(builder, *words[:2], 0), _emit_pick(builder, *words[2:], 0)
        for k in range(2):
            is_kept = builder.icmp_unsigned(">=", _emit_pick(builder, one, other, k), least)
            place = builder.add(kept, INT64((2 * i + k) * v.width))
            builder.store(builder.sext(is_kept, halves), emit_pointer(builder, halves, place), align=4)


@emitted
def where_kept(at: Site, kept: Address, x: Vector) -> Vector:
    """x, or -0.0 where a 32-bit integer at an address is not -1."""
    lanes, builder = at.lanes, at.builder
    narrow = ir.VectorType(ir.IntType(32), lanes.n)
    mask = builder.load(emit_pointer(builder, narrow, kept), align=4)
    is_kept = builder.icmp_signed("<", mask, ir.Constant(narrow, None))
    return builder.select(is_kept, x, lanes.ir_constant(-0.0))


@emitted
def where_left(at: Site, left: Vector, x: Vector) -> Vector:
    """x, or 0 where what is left is -0.0."""
    lanes, builder = at.lanes, at.builder
    integers = ir.VectorType(lanes.ir_integer, lanes.n)
    dropped = ir.Constant(integers, [1 << (8 * lanes.size - 1)] * lanes.n)
    is_dropped = builder.icmp_signed("==", builder.bitcast(left, integers), dropped)
    return builder.select(is_dropped, lanes.ir_constant(0.0), x)


@kernel
def draw(v: Any, d: Any, n: int, b: Any, counter: int, step: int, stream: int, kept: Address) -> None:
    key, least = d.key, d.least
    for k in range(n):
        draw_row(v, kept + k * VECTORS * 2 * width_of(v), key, least, counter, b[k], step, stream)


@kernel
def keep(v: Any, out: Address, row: Address, kept: Address, factor: float, n: int) -> None:
    """out = row times the factor where units are kept; what is not kept is -0.0, whatever it was."""
    for j in range(0, n, reals(v)):
        own, offset = smaller(n - j, reals(v)), j * size_of_real(v)
        store_upto(out + offset, where_kept(kept + 4 * j, load_upto(v, row + offset, own) * factor + 0.0), own)


@kernel
def keep_again(v: Any, out: Address, row: Address, left: Address, factor: float, n: int) -> None:
    """out = row times the factor where units were kept, by what is left of them; what was dropped is 0."""
    for j in range(0, n, reals(v)):
        own, offset = smaller(n - j, reals(v)), j * size_of_real(v)
        kept = where_left(load_upto(v, left + offset, own), load_upto(v, row + offset, own) * factor)
        store_upto(out + offset, kept, own)


@kernel
def drop_rows(
    v: Any, d: Any, n: int, b: Any, step: int, direction: int, column: int, columns: int, rows: Any, out: Any
) -> None:
    """out = what dropout leaves of n rows of a step: of a direction's units [column, column + columns)."""
    kept, drawn, size = stack(_KEPT), VECTORS * 2 * width_of(v) // 4, size_of_real(v)
    if d.is_none:
        for k in range(n):
            for j in range(0, columns, reals(v)):
                own, offset = smaller(columns - j, reals(v)), (column + j) * size
                store_upto(out[k] + offset, load_upto(v, rows[k] + offset, own), own)
        return
    if d.is_all:
        for k in range(n):
            for j in range(0, columns, reals(v)):
                store_upto(out[k] + (column + j) * size, splat(v, -0.0), smaller(columns - j, reals(v)))
        return
    for first in range(column // 4 * 4, column + columns, drawn):
        j = larger(first, column)
        some, offset = smaller(first + drawn, column + columns) - j, j * size
        for k in range(n):
            if k % DRAWN_ROWS == 0:
                for i in range(k, smaller(n, k + DRAWN_ROWS)):
                    prefetch_row(v, rows[i] + offset, some)
                    prefetch_row(v, out[i] + offset, some)
                draw(v, d, smaller(n - k, DRAWN_ROWS), after(b, k), first // 4, step, d.stream + 2 * direction, kept)
            keep(v, out[k] + offset, rows[k] + offset, kept + 4 * (k % DRAWN_ROWS * drawn + j - first), d.factor, some)
