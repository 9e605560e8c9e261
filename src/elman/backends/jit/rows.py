"""Rows over time, and the sums over them that are parameter gradients: csrc/rows.h, where the reasons stand."""

from __future__ import annotations

from typing import Any

from elman.backends import native
from elman.backends.jit.gemm import Panel, copy_row, panel_of, panels_between, tile_of
from elman.backends.jit.options import kernel
from elman.backends.jit.plan import ceil_div, cheapest_division, part
from elman.backends.jit.simd import Address, load, load_upto, reals, size_of_real, splat, store_upto, width_of
from elman.backends.jit.structs import (
    FLOAT,
    INT,
    INTS,
    Pointer,
    Struct,
    byte,
    cache_size,
    call,
    give_back,
    ints,
    larger,
    lease,
    local,
    prefetch,
    smaller,
    stack,
)
from elman.backends.jit.tile import MAX_HEIGHT, MAX_NARROW_WIDTH, tallest

# Element (t, b, i) is at data + (t * t_stride + b * b_stride + i) * size: strides in elements
ROWS = Struct("rows", data=INT, t_stride=INT, b_stride=INT)


def c_struct(name: str, *objects: Any, **fields: Any) -> Struct:
    """The structure of csrc/elman.h that holds the arrays and numbers of the contract's objects."""
    for kind in objects:
        for field, hint in kind.__annotations__.items():
            if hint is float:
                fields[field] = FLOAT
            if {"rows", "steps"} & set(getattr(hint, "__metadata__", ("",))[0].split()):
                fields[field] = ROWS
    return Struct.of_c(name, native.OFFSETS[name], **fields)


# What a pass goes over: rows b with their lengths (0: T for all), and of their steps, in a direction's own order,
# [first, last)
EXTENT = Struct("extent", T=INT, B=INT, lengths=INT, first=INT, last=INT)

# For each (t, b) a row of `width` values: that of `rows`, or with shift = -1 or 1 that of the step before or after it,
# start[b] where there is none, and reset[b] where there is a reset; times mask[b] if there is a mask. Or one-hot rows,
# given as tokens.
SOURCE = Struct("source", rows=ROWS, resets=ROWS, shift=INT, start=INT, reset=INT, mask=INT, width=INT, has_tokens=INT)

# The gradient of a matrix: d_weight (left.width, columns) += sum over (t, b) of left(t, b)^T delta(t, b); d_bias
# likewise; either may be 0. Its tasks are blocks of d_weight.
OUTER_SUM = Struct(
    "outer_sum",
    extent=Pointer(EXTENT),
    backwards=INT,
    left=SOURCE,
    delta=ROWS,
    d_weight=INT,
    d_bias=INT,
    columns=INT,
    panels=INT,
    row_parts=INT,
    column_parts=INT,
    tiles=INTS,
)

DEPTH = 128  # terms summed while a panel of delta stays in the first-level cache
STRIP = 24  # rows of left that are packed side by side: whole tiles of every height but 5
LEAST_PANELS = 6  # to read packed rows, for packing them to be worth it
MASKED_ROWS = 96  # of d_weight in a task where left is masked

# Terms of a task, gathered until there are enough for a run of the micro-kernel. begin, end: rows of d_weight;
# left, delta: DEPTH addresses; masked: rows of left times their masks, from `begin` on
TERMS = Struct("terms", begin=INT, end=INT, n=INT, left=INTS, delta=INTS, masked=INT)

# bytes of a task's memory, for the widest vectors and reals
_OUT, _LIST, _PANEL, _MASKED = 8 * MAX_HEIGHT, 8 * DEPTH, DEPTH * MAX_NARROW_WIDTH * 64, DEPTH * MASKED_ROWS * 8


@kernel
def at(v: Any, rows: Any, t: int, b: int) -> Address:
    return rows.data + (t * rows.t_stride + b * rows.b_stride) * size_of_real(v)


@kernel
def integer_at(rows: Any, t: int, b: int) -> Address:
    return rows.data + (t * rows.t_stride + b * rows.b_stride) * 8


@kernel
def is_reset(resets: Any, t: int, b: int) -> bool:
    """Of a layer's resets."""
    return resets.data != 0 and byte(resets.data + t * resets.t_stride + b * resets.b_stride) != 0


@kernel
def set_rows(rows: Any, other: Any, offset: int) -> None:
    """rows = other, each row from `offset` bytes on."""
    rows.data, rows.t_stride, rows.b_stride = other.data + offset, other.t_stride, other.b_stride


@kernel
def set_extent(extent: Any, n_steps: int, n_rows: int, lengths: Address) -> None:
    extent.T, extent.B, extent.lengths, extent.first, extent.last = n_steps, n_rows, lengths, 0, n_steps


@kernel
def time_of(e: Any, step: int, backwards: bool) -> int:
    return e.T - 1 - step if backwards else step


@kernel
def length_of(e: Any, b: int) -> int:
    return ints(e.lengths)[b] if e.lengths else e.T


@kernel
def prefetch_row(v: Any, row: Address, columns: int) -> None:
    """Ask for a row that will be needed soon."""
    for j in range(0, columns * size_of_real(v), 64):
        prefetch(row + j)


@kernel
def add_row(v: Any, out: Address, one: Address, other: Address, columns: int) -> None:
    """out = one + other, either of them 0 for zeros."""
    for j in range(0, columns, reals(v)):
        n, offset = smaller(columns - j, reals(v)), j * size_of_real(v)
        x = load_upto(v, one + offset, n) if one else splat(v, 0.0)
        if other:
            x = x + load_upto(v, other + offset, n)
        store_upto(out + offset, x, n)


@kernel
def multiply_row(v: Any, out: Address, one: Address, other: Address, columns: int) -> None:
    for j in range(0, columns, reals(v)):
        n, offset = smaller(columns - j, reals(v)), j * size_of_real(v)
        store_upto(out + offset, load_upto(v, one + offset, n) * load_upto(v, other + offset, n), n)


@kernel
def row_of(v: Any, s: Any, e: Any, t: int, b: int) -> Address:
    if is_reset(s.resets, t, b):
        return s.reset + b * s.width * size_of_real(v)
    if (s.shift < 0 and t == 0) or (s.shift > 0 and t + 1 == length_of(e, b)):
        return s.start + b * s.width * size_of_real(v)
    return at(v, s.rows, t + s.shift, b)


@kernel
def outer_sum_tasks(s: Any) -> int:
    return s.row_parts * s.column_parts


@kernel
def plan_outer_sum(v: Any, s: Any, threads: int) -> None:
    """Blocks wide rather than tall, as they read whole stretches of delta; at least one for each thread."""
    rows = s.left.width
    s.panels = cheapest_division(v, DEPTH, s.columns, rows, MAX_NARROW_WIDTH).panels
    if s.left.has_tokens:
        s.row_parts, s.column_parts = 1, smaller(s.panels, threads)
        return
    s.column_parts = ceil_div(s.panels, larger(1, 512 // (MAX_NARROW_WIDTH * reals(v))))
    # of d_weight, which should stay in the second-level cache from one run of terms to the next
    block_bytes, block_columns = cache_size(2) // 2, ceil_div(s.columns, s.column_parts)
    parts = larger(threads if rows > 16 else 1, ceil_div(rows * block_columns * size_of_real(v), block_bytes))
    if s.left.mask:
        parts = larger(parts, ceil_div(rows, MASKED_ROWS))
    s.row_parts = smaller(parts, rows)


@kernel
def gather(v: Any, g: Any, s: Any, t: int, row: int) -> None:
    """One more term: where its rows of delta and a are."""
    size, n = size_of_real(v), g.n
    left = row_of(v, s.left, s.extent, t, row) + g.begin * size
    if s.left.mask:
        rows = g.end - g.begin
        masked = g.masked + n * rows * size
        multiply_row(v, masked, left, s.left.mask + (row * s.left.width + g.begin) * size, rows)
        left = masked
    g.left[n], g.delta[n] = left, at(v, s.delta, t, row)
    g.n = n + 1


@kernel
def add_bias_terms(v: Any, d_bias: Address, c: Panel, packed: Address, n: int) -> None:
    """d_bias += the sum over n packed rows of a panel."""
    for i in range(c.width):
        columns, offset = smaller(c.columns - i * reals(v), reals(v)), i * width_of(v)
        x = load_upto(v, d_bias + offset, columns)
        for k in range(n):
            x = x + load(v, packed + k * c.width * width_of(v) + offset)
        store_upto(d_bias + offset, x, columns)


AHEAD = 16  # rows that are copied are asked for so many before: they lie apart


@kernel
def pack_strips(v: Any, g: Any, strips: Address) -> None:
    """Gather a task's columns of left in strips, [strip][term][STRIP], so that tiles read on and on."""
    rows = g.end - g.begin
    for k in range(g.n):
        if k + AHEAD < g.n:
            prefetch_row(v, g.left[k + AHEAD], rows)
        for i in range(0, rows, STRIP):
            to = strips + (i * DEPTH + k * STRIP) * size_of_real(v)
            add_row(v, to, g.left[k] + i * size_of_real(v), 0, smaller(rows - i, STRIP))


@kernel
def add_panel_terms(v: Any, g: Any, s: Any, strips: Address, c: Panel) -> None:
    """`strips`: left's rows in them, or 0 to read it in place, as one."""
    size, packed, out, left = size_of_real(v), stack(_PANEL), ints(stack(_OUT)), ints(stack(_LIST))
    for k in range(g.n):
        if k + AHEAD < g.n:
            prefetch_row(v, g.delta[k + AHEAD] + c.column * size, c.columns)
        copy_row(v, packed + k * c.width * width_of(v), g.delta[k] + c.column * size, c.columns, c.width)
        left[k] = strips + k * STRIP * size if strips else g.left[k]
    rows = g.end - g.begin
    strip = STRIP if strips else rows
    for begin in range(0, rows if s.d_weight else 0, strip):
        own = smaller(rows - begin, strip)
        tiles = ceil_div(own, tallest(v, c.width))
        for i in range(tiles):
            first = part(own, tiles, i)
            height = part(own, tiles, i + 1) - first
            for r in range(height):
                out[r] = s.d_weight + (g.begin + begin + first + r) * s.columns * size
                prefetch_row(v, out[r] + (height * s.columns + c.column) * size, c.columns)  # the next tile's
            first += begin * DEPTH if strips else 0
            call(
                tile_of(s.tiles, 0, c.width, height),
                (left, out, out, packed, g.n, first, c.column, c.columns, 0, 0, 0, 0),
            )
    if s.d_bias and g.begin == 0:
        add_bias_terms(v, s.d_bias + c.column * size, c, packed, g.n)


@kernel
def add_terms(v: Any, g: Any, s: Any, first_panel: int, end_panel: int) -> None:
    rows = ceil_div(g.end - g.begin, STRIP) * STRIP
    strips = lease(rows * DEPTH * size_of_real(v)) if end_panel - first_panel >= LEAST_PANELS else 0
    if strips:  # without memory: in place
        pack_strips(v, g, strips)
    for p in range(first_panel, end_panel):
        add_panel_terms(v, g, s, strips, panel_of(v, s.columns, s.panels, p))
    if strips:
        give_back(strips)
    g.n = 0


@kernel
def add_token_term(v: Any, s: Any, column: int, columns: int, t: int, row: int) -> None:
    """A token is a one-hot row: its term is one row of d_weight."""
    size = size_of_real(v)
    token = ints(integer_at(s.left.rows, t, row))[0]
    d_weight = s.d_weight + (token * s.columns + column) * size
    add_row(v, d_weight, d_weight, at(v, s.delta, t, row) + column * size, columns)


@kernel
def outer_sum_task(v: Any, s: Any, task: int) -> None:
    """Steps descend, rows ascend: one chain for each element, which a run over earlier steps continues."""
    i, j = task // s.column_parts, task % s.column_parts
    first_panel, end_panel = part(s.panels, s.column_parts, j), part(s.panels, s.column_parts, j + 1)
    own = panels_between(v, s.columns, s.panels, first_panel, end_panel)
    g = local(TERMS)
    g.begin, g.end = part(s.left.width, s.row_parts, i), part(s.left.width, s.row_parts, i + 1)
    g.left, g.delta, g.masked = ints(stack(_LIST)), ints(stack(_LIST)), stack(_MASKED)
    e = s.extent
    for step in range(e.last - 1, e.first - 1, -1):
        t = time_of(e, step, s.backwards != 0)
        for row in range(e.B):
            if t < length_of(e, row):
                if s.left.has_tokens:
                    add_token_term(v, s, own.column, own.columns, t, row)
                else:
                    gather(v, g, s, t, row)
            # the run for the last terms stands here, too: compiled once
            if g.n == DEPTH or (g.n and step == e.first and row == e.B - 1):
                add_terms(v, g, s, first_panel, end_panel)
