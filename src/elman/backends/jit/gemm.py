"""Products out = init + left right, made of tiles: csrc/gemm.h, where the reasons stand."""

from __future__ import annotations

from typing import Any, NamedTuple

from elman.backends.jit.options import kernel
from elman.backends.jit.plan import MAX_ROWS, ceil_div, cheapest_division, cycles_from_afar, part, share_of
from elman.backends.jit.simd import (
    Address,
    load_real,
    load_upto,
    reals,
    size_of_real,
    store,
    store_real,
    width_of,
)
from elman.backends.jit.structs import INT, INTS, Struct, after, call, clear, smaller, stopped
from elman.backends.jit.tile import DIRECT, MAX_HEIGHT, MAX_WIDTH, PACKED, tallest

# A right operand (depth, columns) in `panels` of nearly equal width. data: the array itself (DIRECT), or panel after
# panel, each (depth, width * VL), 0 beyond the columns (PACKED). Products are made with its panels [first, last). Far:
# what a thread reads of it lies beyond the second-level cache.
MATRIX = Struct(
    "matrix", data=INT, depth=INT, columns=INT, panels=INT, first=INT, last=INT, mode=INT, is_far=INT, tiles=INTS
)

# What happens to a tile right after it was stored: apply(epilogue, row, rows, column, columns, out), or 0 for nothing.
# For a gradient (activations.py) y, d_y and mask (or 0): rows as out's; soon and n_soon: as a tile's (tile.py). For
# cells but Elman's: their numbers, and rows of the states before, of what they keep of the step, of what they carry
# past the product, and of their numbers' gradients (or 0).
EPILOGUE = Struct(
    "epilogue",
    apply=INT,
    y=INTS,
    d_y=INTS,
    mask=INT,
    soon=INT,
    n_soon=INT,
    numbers=INT,
    before=INTS,
    second=INTS,
    carry=INTS,
    d_numbers=INT,
)


class Panel(NamedTuple):
    """Columns [column, column + columns), in `width` vectors."""

    column: int
    columns: int
    width: int


@kernel
def panels_between(v: Any, columns: int, panels: int, first: int, last: int) -> Panel:
    vectors = ceil_div(columns, reals(v))
    begin, end = part(vectors, panels, first), part(vectors, panels, last)
    column = begin * reals(v)
    return Panel(column, smaller(end * reals(v), columns) - column, end - begin)


@kernel
def panel_of(v: Any, columns: int, panels: int, p: int) -> Panel:
    return panels_between(v, columns, panels, p, p + 1)


@kernel
def set_matrix(v: Any, right: Any, tiles: Any, depth: int, columns: int, rows: int, parts: int, mode: int) -> None:
    """A matrix for products of at most `rows` rows at a time, by `parts` threads; `place` then gives it memory."""
    right.depth, right.columns, right.mode, right.tiles = depth, columns, mode, tiles
    each = cheapest_division(v, depth, share_of(v, columns, parts), smaller(rows, MAX_ROWS), MAX_WIDTH).panels
    right.panels = right.last = each * parts
    cycles = cycles_from_afar(v, depth * share_of(v, columns, parts) * size_of_real(v))
    right.is_far = 1 if mode == PACKED and cycles > 0.0 else 0


@kernel
def scratch_size(v: Any, right: Any) -> int:
    """In bytes."""
    return 0 if right.mode == DIRECT else right.depth * ceil_div(right.columns, reals(v)) * width_of(v)


@kernel
def place(v: Any, right: Any, array: Address, scratch: Address) -> Address:
    """Let right be the array itself, or a copy to be packed at the beginning of `scratch`; returns the rest of it."""
    right.data = array if right.mode == DIRECT else scratch
    return scratch + scratch_size(v, right)


@kernel
def copy_row(v: Any, to: Address, source: Address, columns: int, width: int) -> None:
    """Copy `columns` reals into `width` vectors, zeros behind them."""
    for i in range(width):
        offset = i * width_of(v)
        store(to + offset, load_upto(v, source + offset, smaller(columns - i * reals(v), reals(v))))


@kernel
def transpose(v: Any, to: Address, width: int, source: Address, stride: int, depth: int, columns: int) -> None:
    """to[i * width + j] = source[j * stride + i] for i < depth, j < columns; zeros beyond the columns."""
    size, line = size_of_real(v), 64 // size_of_real(v)
    for begin in range(0, depth, line):
        for j in range(columns):
            for i in range(begin, smaller(begin + line, depth)):
                store_real(v, to + (i * width + j) * size, load_real(v, source + (j * stride + i) * size))
    if columns < width:
        for i in range(depth):
            clear(to + (i * width + columns) * size, (width - columns) * size)


@kernel
def pack(v: Any, right: Any, p: int, k: int, depth: int, source: Address, stride: int, transposed: bool) -> None:
    """Rows [k, k + depth) of panel p: row k + i from source[i * stride + column], or source[column * stride + i]."""
    c, size = panel_of(v, right.columns, right.panels, p), size_of_real(v)
    width = c.width * reals(v)
    to = right.data + (c.column * right.depth + k * width) * size
    if transposed:
        transpose(v, to, width, source + c.column * stride * size, stride, depth, c.columns)
    else:
        for i in range(depth):
            copy_row(v, to + i * width * size, source + (i * stride + c.column) * size, c.columns, c.width)


@kernel
def tile_of(tiles: Any, mode: int, width: int, height: int) -> Address:
    """From the table of tile.py."""
    return tiles[(mode * MAX_WIDTH + width - 1) * MAX_HEIGHT + height - 1]


PANELS = 16  # of a product, between looks at whether to stop


@kernel
def gemm(v: Any, right: Any, n: int, left: Any, init: Any, out: Any, e: Any) -> None:
    """out[r] = init[r] + left[r] right for n <= MAX_ROWS rows, then the epilogue."""
    if n == 0:  # as all rows have ended
        return
    for p in range(right.first, right.last):
        if p % PANELS == PANELS - 1 and stopped():
            return
        c = panel_of(v, right.columns, right.panels, p)
        tiles = ceil_div(n, tallest(v, c.width))
        if right.mode == DIRECT:
            data, step = c.column, right.columns
        else:
            data, step = c.column * right.depth, c.width * reals(v)
        data, step = right.data + data * size_of_real(v), step * size_of_real(v)
        following = c
        if right.is_far:
            following = panel_of(v, right.columns, right.panels, p + 1 if p + 1 < right.last else right.first)
        ahead_step = ceil_div(following.width * reals(v), tiles) * size_of_real(v) if right.is_far else 0
        ahead = right.data + following.column * right.depth * size_of_real(v)
        for i in range(tiles):
            row = part(n, tiles, i)
            rows = part(n, tiles, i + 1) - row
            tile, out_rows = tile_of(right.tiles, right.mode, c.width, rows), after(out, row)
            left_rows, init_rows = after(left, row), after(init, row)
            right_args = data, right.depth, step, c.column, c.columns
            ahead_args = ahead + i * ahead_step * right.depth, ahead_step, e.soon + row * e.n_soon * 8, e.n_soon
            call(tile, (left_rows, init_rows, out_rows, *right_args, *ahead_args))
            if e.apply:
                call(e.apply, (e, row, rows, c.column, c.columns, out_rows))
