"""A layer over a sequence: forward, and back-propagation through time: csrc/recurrence.h, where the reasons stand.

Both passes divide the batch into shards, which run through the time steps by themselves; the threads of one share its
columns. Backward, the terms of a block of some steps are added to the parameters' gradients while the shards are at the
next one, or, where threads share columns, before it; d_x comes last.
"""

from __future__ import annotations

from typing import Any

from elman.backends.contract import Gradients, Layer
from elman.backends.jit.dropout import DRAWING, drop_rows, keep_again, set_drawing
from elman.backends.jit.gemm import (
    EPILOGUE,
    MATRIX,
    gemm,
    pack,
    panels_between,
    place,
    scratch_size,
    set_matrix,
)
from elman.backends.jit.options import kernel
from elman.backends.jit.plan import MAX_ROWS, best_sharing, ceil_div, mode_for, part, threads_for
from elman.backends.jit.rows import (
    DEPTH,
    EXTENT,
    OUTER_SUM,
    ROWS,
    SOURCE,
    add_row,
    at,
    c_struct,
    integer_at,
    is_reset,
    length_of,
    multiply_row,
    outer_sum_task,
    outer_sum_tasks,
    plan_outer_sum,
    prefetch_row,
    row_of,
    set_extent,
    set_rows,
    time_of,
)
from elman.backends.jit.simd import Address, size_of_real
from elman.backends.jit.structs import (
    CALL_BYTES,
    INT,
    INTS,
    NO_MEMORY,
    Pointer,
    Struct,
    after,
    begin_call,
    cache_size,
    call,
    clear,
    copy,
    end_call,
    give_back,
    ints,
    larger,
    lease,
    local,
    meet,
    run,
    run_team,
    smaller,
    stack,
    stopped,
)
from elman.backends.jit.tile import DIRECT, PACKED

# What a caller hands over: elman_layer of csrc/elman.h. own: the tables of tiles and of those by columns (tile.py)
LAYER = c_struct("layer", Layer, Gradients, own=INTS, epilogues=INTS)

PASS = Struct(
    "pass",
    layer=Pointer(LAYER),
    extent=EXTENT,
    shards=INT,
    parts=INT,
    is_backward=INT,
    ih=MATRIX,  # forward: the weights; backward: their transposes, ih for both directions, (D * H, I)
    ih_1=MATRIX,
    hh=MATRIX,
    hh_1=MATRIX,
    zeros=INT,  # as many as the widest row
    start=INT,  # (D, B, H): f of the initial states, where the cell's outputs are not its states; or 0
    reset=INT,  # the same of those that resets go back to
    masked=INT,  # forward: (parts, D, B, H), rows' states times their masks; backward: (D, B, H), what is left of d_y,
    # or what reaches the state of a reset
    drawing=DRAWING,
    come=INT,  # (D, shards), a cache line each: to the meetings of a shard's threads
    sums=OUTER_SUM,  # backward: the parameters' gradients, ...
    sums_1=OUTER_SUM,
    sums_2=OUTER_SUM,
    sums_3=OUTER_SUM,
    summed=EXTENT,  # ... over these steps
    sum_tasks=INT,
)

_LIST = 8 * MAX_ROWS  # bytes of a list of rows
_SOON = 4 * _LIST


# Rows first, first + stride, ... of the batch, in direction d, and one thread's panels of its matrices
SHARD = Struct(
    "shard",
    d=INT,
    first=INT,
    stride=INT,
    count=INT,
    part=INT,
    ih=MATRIX,
    hh=MATRIX,
    column=INT,  # the thread's own columns of H: of states
    columns=INT,
    input_column=INT,  # and of what the inputs make of pre-activations, which are others
    input_columns=INT,
    come=INT,
    met=INT,
)

_MATRIX_BYTES, _EXTENT_BYTES = MATRIX.size, EXTENT.size


@kernel
def set_share(own: Any, whole: Any, i: int, parts: int) -> None:
    copy(own, whole, _MATRIX_BYTES)
    own.first, own.last = whole.panels // parts * i, whole.panels // parts * (i + 1)


@kernel
def set_shard(v: Any, s: Any, p: Any, task: int) -> None:
    n_rows, shard, i = p.extent.B, task // p.parts, task % p.parts
    s.d, n = shard // p.shards, shard % p.shards
    s.part, s.come, s.met = i, p.come + 64 * shard, 0
    if p.extent.lengths:  # dealt like cards, since rows in the order of their lengths are common
        s.first, s.stride, s.count = n, p.shards, (n_rows - n + p.shards - 1) // p.shards
    else:
        s.first, s.stride = part(n_rows, p.shards, n), 1
        s.count = part(n_rows, p.shards, n + 1) - s.first
    set_share(s.hh, after(p.hh, s.d), i, p.parts)
    if not p.is_backward:
        set_share(s.ih, after(p.ih, s.d), i, p.parts)
    own = panels_between(v, s.hh.columns, s.hh.panels, s.hh.first, s.hh.last)
    s.column, s.columns = own.column, own.columns
    if not (p.is_backward or p.layer.has_tokens):
        own = panels_between(v, s.ih.columns, s.ih.panels, s.ih.first, s.ih.last)
    s.input_column, s.input_columns = own.column, own.columns


@kernel
def meet_parts(p: Any, s: Any) -> bool:
    """Wait until all parts of a shard have come here; whether the call is stopped and the shard is to be left."""
    if p.parts == 1:
        return False
    s.met += p.parts
    return meet(s.come, s.met) != 0


@kernel
def backwards(layer: Any, d: int) -> bool:
    return d == 1 or layer.reverse != 0


@kernel
def state(v: Any, layer: Any, array: Address, d: int, b: int) -> Address:
    """A row of direction d's own array (D, B, H)."""
    return array + (d * layer.B + b) * layer.H * size_of_real(v)


@kernel
def set_columns(v: Any, rows: Any, layer: Any, all_columns: Any, d: int) -> None:
    """rows = direction d's columns of (T, B, D * H)."""
    set_rows(rows, all_columns, d * layer.H * size_of_real(v))


@kernel
def state_is_second(layer: Any) -> bool:
    return layer.cell != 0 and ints(layer.cell)[5] != 0  # elman_cell of csrc/elman.h


@kernel
def set_states(v: Any, rows: Any, layer: Any, d: int) -> None:
    """The states: the outputs, but for some cells."""
    if state_is_second(layer):
        set_columns(v, rows, layer, layer.second, d)
    else:
        set_columns(v, rows, layer, layer.y, d)


@kernel
def set_states_before(v: Any, before: Any, layer: Any, d: int) -> None:
    """For each step the states before it."""
    set_states(v, before.rows, layer, d)
    before.shift = 1 if backwards(layer, d) else -1
    before.start, before.mask = state(v, layer, layer.h_0, d, 0), 0
    before.width, before.has_tokens, before.reset = layer.H, 0, layer.h_reset
    set_rows(before.resets, layer.resets, 0)


@kernel
def set_outputs_before(v: Any, before: Any, p: Any, d: int) -> None:
    """For each step the outputs before it: what the product with weight_hh is of."""
    layer = p.layer
    set_columns(v, before.rows, layer, layer.y, d)
    before.shift = 1 if backwards(layer, d) else -1
    before.start = state(v, layer, p.start if p.start else layer.h_0, d, 0)
    before.mask = state(v, layer, layer.mask, d, 0) if layer.mask else 0
    before.width, before.has_tokens, before.reset = layer.H, 0, p.reset if p.reset else layer.h_reset
    set_rows(before.resets, layer.resets, 0)


@kernel
def start_size(v: Any, layer: Any) -> int:
    """Of p.start and p.reset, in bytes."""
    if not state_is_second(layer):
        return 0
    return (2 if layer.resets.data else 1) * layer.D * layer.B * layer.H * size_of_real(v)


@kernel
def set_start(v: Any, p: Any, memory: Address) -> None:
    """What the first steps, and those of resets, read, in some memory, if that is not the initial states."""
    layer, out, size = p.layer, ints(stack(8)), start_size(v, p.layer)
    if size:
        n_bytes = layer.D * layer.B * layer.H * size_of_real(v)
        p.start = memory
        out[0] = memory
        copy(memory, layer.h_0, n_bytes)
        if layer.resets.data:
            p.reset = memory + n_bytes
            copy(p.reset, layer.h_reset, n_bytes)
        call(layer.epilogues[2], (local(EPILOGUE), 0, 1, 0, size // size_of_real(v), out))


@kernel
def numbers_of(v: Any, layer: Any, array: Address, d: int) -> Address:
    """The direction's part of an array (D, H) of numbers, 0 where there are none."""
    return array + d * layer.H * size_of_real(v) if array else 0


@kernel
def noise_step(p: Any, s: Any, column: int, columns: int, t: int, n: int, b: Any, factors: Any, out: Any) -> None:
    """Add normals times factors to some columns of n rows of a step, of the batch: b. (It is always made in C.)"""
    layer = p.layer
    place = layer.first_step + t, 4 * layer.layer + 2 * s.d, column, columns
    call(layer.add_noise, (layer.keys, n, b, *place, factors, out))


@kernel
def plan_shards(v: Any, p: Any, threads: int) -> None:
    layer = p.layer
    set_extent(p.extent, layer.T, layer.B, layer.lengths)
    sharing = best_sharing(v, layer, threads)
    p.shards, p.parts = sharing.shards, sharing.parts
    set_drawing(p.drawing, layer.dropout, layer.key, 4 * layer.layer)


@kernel
def come_size(p: Any) -> int:
    """Of p.come, in bytes."""
    return p.layer.D * p.shards * 64 if p.parts > 1 else 0


# ---- forward


@kernel
def second_of(v: Any, layer: Any, d: int, t: int, b: int) -> Address:
    """What a cell keeps of a step besides y, 0 for nothing."""
    return at(v, layer.second, t, b) + d * layer.H * size_of_real(v) if layer.second.data else 0


@kernel
def drop_step(v: Any, p: Any, s: Any, step: int, n: int, b: Any, y: Any) -> None:
    """What dropout leaves of a step's rows y, n of the batch: b."""
    layer, rows, dropped = p.layer, local(ROWS), ints(stack(_LIST))
    t = time_of(p.extent, step, backwards(layer, s.d))
    set_columns(v, rows, layer, layer.dropped, s.d)
    for i in range(n):
        dropped[i] = at(v, rows, t, b[i])
    drop_rows(v, p.drawing, n, b, layer.first_step + t, s.d, s.column, s.columns, y, dropped)


@kernel
def noise_block(v: Any, p: Any, s: Any, begin: int, end: int, b: Any, ends: Any, y: Any) -> None:
    """To a block's pre-activations y: rows of the batch b, each step's up to its end."""
    layer, factors, begin_of_step = p.layer, ints(stack(_LIST)), 0
    for i in range(s.count):
        factors[i] = numbers_of(v, layer, layer.noise, s.d)
    for i in range(end - begin):
        t, n = time_of(p.extent, begin + i, backwards(layer, s.d)), ends[i] - begin_of_step
        rows, out = after(b, begin_of_step), after(y, begin_of_step)
        noise_step(p, s, s.input_column, s.input_columns, t, n, rows, factors, out)
        begin_of_step = ends[i]


@kernel
def forward_block(v: Any, p: Any, s: Any, begin: int, end: int) -> None:
    """A few steps, as many as MAX_ROWS allows: their inputs' part in one product, then step by step the recurrence."""
    layer, size = p.layer, size_of_real(v)
    before, states, y_rows = local(SOURCE), local(SOURCE), local(ROWS)
    set_outputs_before(v, before, p, s.d)
    set_states_before(v, states, layer, s.d)
    set_columns(v, y_rows, layer, layer.y, s.d)
    bias = layer.bias + s.d * layer.H * size if layer.bias else p.zeros
    x, h, init, y = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    own, second = ints(stack(_LIST)), ints(stack(_LIST))  # own: the states before
    b, ends, n = ints(stack(_LIST)), ints(stack(_LIST)), 0
    for step in range(begin, end):
        t = time_of(p.extent, step, backwards(layer, s.d))
        for i in range(s.count):
            row = s.first + i * s.stride
            if t >= length_of(p.extent, row):
                continue
            b[n], init[n], y[n], h[n] = row, bias, at(v, y_rows, t, row), row_of(v, before, p.extent, t, row)
            if layer.cell:
                own[n], second[n] = row_of(v, states, p.extent, t, row), second_of(v, layer, s.d, t, row)
            if layer.has_tokens:
                x[n] = layer.weight_ih + (s.d * layer.I + ints(integer_at(layer.x, t, row))[0]) * layer.H * size
            else:
                x[n] = at(v, layer.x, t, row)
            n += 1
        ends[step - begin] = n
    if layer.has_tokens:
        for i in range(n):
            j = s.column * size
            add_row(v, y[i] + j, x[i] + j, bias + j, s.columns)
    else:
        gemm(v, s.ih, n, x, init, y, local(EPILOGUE))
    if layer.noise:
        noise_block(v, p, s, begin, end, b, ends, y)
    if meet_parts(p, s):
        return
    activate, begin_of_step = local(EPILOGUE), 0
    activate.apply, activate.numbers = layer.epilogues[0], numbers_of(v, layer, layer.numbers, s.d)
    for i in range(end - begin):
        if layer.mask:
            for k in range(begin_of_step, ends[i]):
                masked = state(v, layer, p.masked, s.part * layer.D + s.d, b[k])
                multiply_row(v, masked, h[k], state(v, layer, layer.mask, s.d, b[k]), layer.H)
                h[k] = masked
        if p.parts > 1:
            for k in range(begin_of_step, ends[i]):
                prefetch_row(v, h[k], layer.H)
        activate.before, activate.second = after(own, begin_of_step), after(second, begin_of_step)
        y_step = after(y, begin_of_step)
        gemm(v, s.hh, ends[i] - begin_of_step, after(h, begin_of_step), y_step, y_step, activate)
        if layer.dropped.data:
            drop_step(v, p, s, begin + i, ends[i] - begin_of_step, after(b, begin_of_step), y_step)
        if meet_parts(p, s):
            return
        begin_of_step = ends[i]


@kernel
def forward_shard(v: Any, p: Any, i: int) -> None:
    layer, s = p.layer, local(SHARD)
    set_shard(v, s, p, i)
    steps = MAX_ROWS // s.count
    for begin in range(0, layer.T, steps):
        if begin and stopped():
            return
        forward_block(v, p, s, begin, smaller(begin + steps, layer.T))
    if not layer.h_n or s.part > 0:
        return
    y = local(ROWS)
    set_states(v, y, layer, s.d)
    for k in range(s.count):
        b = s.first + k * s.stride
        length = length_of(p.extent, b)
        t = 0 if backwards(layer, s.d) else length - 1
        last = at(v, y, t, b) if length else state(v, layer, layer.h_0, s.d, b)
        copy(state(v, layer, layer.h_n, s.d, b), last, layer.H * size_of_real(v))


# ---- backward


@kernel
def step_from(v: Any, row: Address, rows: Any, back: bool) -> Address:
    """The same row of the step that a backward pass comes to next."""
    return row + (rows.t_stride if back else -rows.t_stride) * size_of_real(v)


@kernel
def backward_step(v: Any, p: Any, s: Any, t: int) -> None:
    """One step back: delta = (d_y + mask * (weight_hh delta[next])) f'(y); at a row's last step d_h_n is the product.

    Where the state is not the output, it is what the cell carries past the product instead. Before a reset, it is 0.

    The product stands alone, so that a pass cut in two, d_h_0 of one being d_h_n of the other, gives the same bits.
    """
    layer = p.layer
    d_y_rows, y_rows, deltas, left, e = local(ROWS), local(ROWS), local(ROWS), local(ROWS), local(EPILOGUE)
    set_columns(v, d_y_rows, layer, layer.d_y, s.d)
    set_columns(v, y_rows, layer, layer.y, s.d)
    set_columns(v, deltas, layer, layer.delta, s.d)
    following, init, delta = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    d_y, y, mask_address, n = ints(stack(_LIST)), ints(stack(_LIST)), stack(_LIST), 0
    mask, before, second, carry = ints(mask_address), ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    states, d_numbers_address = local(SOURCE), stack(_LIST)
    d_numbers = ints(d_numbers_address)
    set_states_before(v, states, layer, s.d)
    e.apply, e.y, e.d_y, e.mask = layer.epilogues[1], y, d_y, 0
    e.numbers, e.before, e.second, e.carry = numbers_of(v, layer, layer.numbers, s.d), before, second, carry
    e.d_numbers = d_numbers_address if layer.d_numbers else 0
    back, j = backwards(layer, s.d), s.column * size_of_real(v)
    drops = layer.d_y.data != 0 and layer.dropout > 0
    set_columns(v, left, layer, layer.dropped, s.d)
    reads_d_y, reads_second = layer.d_y.data != 0 and not drops, layer.second.data != 0
    e.soon, e.n_soon = stack(_SOON), 2 + (1 if reads_d_y else 0) + (1 if reads_second else 0)
    soon, k = ints(e.soon), 0
    for i in range(s.count):
        b = s.first + i * s.stride
        length = length_of(p.extent, b)
        if t >= length:
            continue
        d_y[n] = at(v, d_y_rows, t, b) if layer.d_y.data else p.zeros
        if drops:
            masked = state(v, layer, p.masked, s.d, b)
            keep_again(v, masked + j, d_y[n] + j, at(v, left, t, b) + j, p.drawing.factor, s.columns)
            d_y[n] = masked
        delta[n], y[n] = at(v, deltas, t, b), at(v, y_rows, t, b)
        is_last = t == (0 if back else length - 1)
        is_end = is_last or is_reset(layer.resets, t + 1, b)
        d_h_n = state(v, layer, layer.d_h_n, s.d, b) + j if is_last and layer.d_h_n else 0
        if layer.cell:
            before[n], second[n] = row_of(v, states, p.extent, t, b), second_of(v, layer, s.d, t, b)
            carry[n] = state(v, layer, layer.carry, s.d, b) if layer.carry else 0
            if is_end and layer.carry:
                add_row(v, carry[n] + j, d_h_n if p.start else 0, 0, s.columns)
            if layer.d_numbers:
                d_numbers[n] = state(v, layer, layer.d_numbers, s.d, b)
        if is_end:
            add_row(v, delta[n] + j, 0 if p.start else d_h_n, 0, s.columns)
            call(e.apply, (e, n, 1, s.column, s.columns, after(delta, n)))
        else:
            # where the rows of the step after this one are
            soon[k], soon[k + 1] = step_from(v, delta[n], layer.delta, back), step_from(v, y[n], layer.y, back)
            k += 2
            if reads_d_y:
                soon[k] = step_from(v, d_y[n], layer.d_y, back)
                k += 1
            if reads_second:
                soon[k] = step_from(v, second[n], layer.second, back)
                k += 1
            following[n], init[n] = at(v, deltas, t - 1 if back else t + 1, b), p.zeros
            mask[n] = state(v, layer, layer.mask, s.d, b) if layer.mask else 0
            n += 1
    if layer.mask:
        e.mask = mask_address
    if p.parts > 1:
        for i in range(n):
            prefetch_row(v, following[i], layer.H)
    gemm(v, s.hh, n, following, init, delta, e)


@kernel
def noise_gradient(v: Any, p: Any, s: Any, t: int) -> None:
    """To the gradients by what multiplies the noise: a step's delta times its normals, which are drawn again."""
    layer, deltas, n = p.layer, local(ROWS), 0
    set_columns(v, deltas, layer, layer.delta, s.d)
    b, delta, d_noise = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    for i in range(s.count):
        row = s.first + i * s.stride
        if t < length_of(p.extent, row):
            b[n], delta[n], d_noise[n] = row, at(v, deltas, t, row), state(v, layer, layer.d_noise, s.d, row)
            n += 1
    noise_step(p, s, s.column, s.columns, t, n, b, delta, d_noise)


@kernel
def start_gradient(p: Any, s: Any, start: Address, row: Address) -> None:
    """From the gradient by what a first step reads, some columns of `start`, that by the initial state."""
    e = local(EPILOGUE)
    y, d_y, out = ints(stack(8)), ints(stack(8)), ints(stack(8))
    y[0], d_y[0], out[0] = start, p.zeros, row
    e.y, e.d_y = y, d_y
    call(p.layer.epilogues[3], (e, 0, 1, 0, s.columns, out))


@kernel
def gradient_before(v: Any, p: Any, s: Any, n: int, b: Any, delta: Any, start: Address, out: Any) -> None:
    """What reaches the states before n rows' steps with these deltas, whose outputs there were `start` (D, B, H).

    That is mask * (weight_hh delta), which goes through f where outputs are not states, and what the cell carries past
    the product.
    """
    layer, j, init = p.layer, s.column * size_of_real(v), ints(stack(_LIST))
    for i in range(n):
        init[i] = p.zeros
    gemm(v, s.hh, n, delta, init, out, local(EPILOGUE))
    for i in range(n):
        row = out[i] + j
        if layer.mask:
            multiply_row(v, row, row, state(v, layer, layer.mask, s.d, b[i]) + j, s.columns)
        if start:
            start_gradient(p, s, state(v, layer, start, s.d, b[i]) + j, row)
        if layer.carry:
            add_row(v, row, row, state(v, layer, layer.carry, s.d, b[i]) + j, s.columns)


@kernel
def initial_gradient(v: Any, p: Any, s: Any) -> None:
    """What reaches the initial states: for a row of no steps d_h_n, and nothing where the first one is a reset."""
    layer, deltas, j, n = p.layer, local(ROWS), s.column * size_of_real(v), 0
    set_columns(v, deltas, layer, layer.delta, s.d)
    first, d_h_0, b = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    for i in range(s.count):
        row = s.first + i * s.stride
        length = length_of(p.extent, row)
        b[n], d_h_0[n] = row, state(v, layer, layer.d_h_0, s.d, row)
        if length == 0 or is_reset(layer.resets, 0, row):
            d_h_n = state(v, layer, layer.d_h_n, s.d, row) + j if length == 0 and layer.d_h_n else 0
            add_row(v, d_h_0[n] + j, d_h_n, 0, s.columns)
        else:
            first[n] = at(v, deltas, length - 1 if backwards(layer, s.d) else 0, row)
            n += 1
    gradient_before(v, p, s, n, b, first, p.start, d_h_0)


@kernel
def reset_gradient(v: Any, p: Any, s: Any, t: int) -> None:
    """To the gradients by the states that a step's resets go back to."""
    layer, deltas, n = p.layer, local(ROWS), 0
    set_columns(v, deltas, layer, layer.delta, s.d)
    delta, out, b = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    for i in range(s.count):
        row = s.first + i * s.stride
        if t < length_of(p.extent, row) and is_reset(layer.resets, t, row):
            b[n], delta[n], out[n] = row, at(v, deltas, t, row), state(v, layer, p.masked, s.d, row)
            n += 1
    gradient_before(v, p, s, n, b, delta, p.reset, out)
    for i in range(n):
        j = s.column * size_of_real(v)
        d_h_reset = state(v, layer, layer.d_h_reset, s.d, b[i]) + j
        add_row(v, d_h_reset, d_h_reset, out[i] + j, s.columns)


@kernel
def backward_shard(v: Any, p: Any, i: int) -> None:
    layer, s = p.layer, local(SHARD)
    set_shard(v, s, p, i)
    steps = MAX_ROWS // s.count  # as many as forward in a block: so often it looks whether to stop
    for step in range(p.extent.last - 1, p.extent.first - 1, -1):
        if step % steps == 0 and stopped():
            return
        t = time_of(p.extent, step, backwards(layer, s.d))
        backward_step(v, p, s, t)
        if layer.d_noise:
            noise_gradient(v, p, s, t)
        if meet_parts(p, s):
            return
        if layer.d_h_reset:
            reset_gradient(v, p, s, t)
    if p.extent.first == 0:
        initial_gradient(v, p, s)


@kernel
def input_gradient(v: Any, p: Any, task: int) -> None:
    """d_x for MAX_ROWS places of (T, B): one chain over the units of both directions."""
    layer = p.layer
    delta, init, d_x, n = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST)), 0
    for i in range(task * MAX_ROWS, smaller((task + 1) * MAX_ROWS, layer.T * layer.B)):
        t, b = i // layer.B, i % layer.B
        if t >= length_of(p.extent, b):
            continue
        delta[n], d_x[n], init[n] = at(v, layer.delta, t, b), at(v, layer.d_x, t, b), p.zeros
        n += 1
    gemm(v, p.ih, n, delta, init, d_x, local(EPILOGUE))


@kernel
def sum_task(v: Any, p: Any, i: int) -> None:
    s = p.sums
    while i >= outer_sum_tasks(s):
        i -= outer_sum_tasks(s)
        s = after(s, 1)
    outer_sum_task(v, s, i)


@kernel
def plan_sums(v: Any, p: Any, threads: int) -> None:
    layer, size = p.layer, size_of_real(v)
    for d in range(layer.D):
        hh, ih = after(p.sums, 2 * d), after(p.sums, 2 * d + 1)
        set_outputs_before(v, hh.left, p, d)
        hh.d_bias = layer.d_bias + d * layer.H * size if layer.d_bias else 0
        if layer.d_weight_hh:
            hh.d_weight = layer.d_weight_hh + d * layer.H * layer.H * size
        else:
            hh.left.width, hh.left.mask = 1, 0  # the bias needs one task, and no column of h
        set_rows(ih.left.rows, layer.x, 0)
        ih.left.width, ih.left.has_tokens = layer.I, layer.has_tokens
        if layer.d_weight_ih:
            ih.d_weight = layer.d_weight_ih + d * layer.I * layer.H * size
        for i in range(2):
            s = after(hh, i)
            if not (s.d_weight or s.d_bias):
                continue
            set_columns(v, s.delta, layer, layer.delta, d)
            s.extent, s.columns, s.tiles, s.backwards = p.summed, layer.H, ints(layer.own[1]), backwards(layer, d)
            plan_outer_sum(v, s, threads)
            p.sum_tasks += outer_sum_tasks(s)


@kernel
def shard_or_sum(v: Any, p: Any, i: int) -> None:
    """The shards over a block of steps, and behind them, for who is done with these, the sums over the block before."""
    shards = p.layer.D * p.shards
    if i < shards:
        backward_shard(v, p, i)
    else:
        sum_task(v, p, i - shards)


# ---- packing: one task for each panel of every matrix


@kernel
def pack_hh(v: Any, p: Any, i: int) -> None:
    layer, panels = p.layer, p.hh.panels
    d = i // panels
    weight = layer.weight_hh + d * layer.H * layer.H * size_of_real(v)
    pack(v, after(p.hh, d), i % panels, 0, layer.H, weight, layer.H, p.is_backward != 0)


@kernel
def pack_ih(v: Any, p: Any, i: int) -> None:
    layer, panels, matrix = p.layer, p.ih.panels, p.layer.I * p.layer.H * size_of_real(v)
    if p.is_backward:
        for d in range(layer.D):
            pack(v, p.ih, i, d * layer.H, layer.H, layer.weight_ih + d * matrix, layer.H, True)
    else:
        d = i // panels
        pack(v, after(p.ih, d), i % panels, 0, layer.I, layer.weight_ih + d * matrix, layer.H, False)


# ---- the passes


@kernel
def run_shards(v: Any, task: Any, p: Any, threads: int) -> None:
    """Run a task for every shard's every part."""
    shards, parts = p.layer.D * p.shards, p.parts
    if parts > 1:
        clear(p.come, 64 * shards)
        if run_team(v, task, p, shards * parts):
            return
        p.parts = 1  # the other threads are not to be had now
    run(v, task, p, shards, threads)
    p.parts = parts


@kernel
def forward_pass(v: Any, p: Any) -> int:
    """0, or NO_MEMORY for scratch."""
    layer, size, tiles = p.layer, size_of_real(v), ints(p.layer.own[0])
    rows = layer.T * layer.B
    threads = threads_for(2.0 * rows * layer.D * layer.H * (layer.H + (1 if layer.has_tokens else layer.I)))
    plan_shards(v, p, threads)
    shard_rows = ceil_div(layer.B, p.shards)
    for d in range(layer.D):
        set_matrix(v, after(p.hh, d), tiles, layer.H, layer.H, shard_rows, p.parts, mode_for(rows))
        mode = DIRECT if layer.has_tokens else mode_for(rows)
        set_matrix(v, after(p.ih, d), tiles, layer.I, layer.H, shard_rows * layer.T, p.parts, mode)
    masked = p.parts * layer.D * layer.B * layer.H if layer.mask else 0
    matrices = layer.D * (scratch_size(v, p.hh) + scratch_size(v, p.ih))
    scratch = lease(come_size(p) + matrices + start_size(v, layer) + (layer.H + masked) * size)
    if not scratch:
        return NO_MEMORY
    p.come, free = scratch, scratch + come_size(p)
    for d in range(layer.D):
        free = place(v, after(p.hh, d), layer.weight_hh + d * layer.H * layer.H * size, free)
        free = place(v, after(p.ih, d), layer.weight_ih + d * layer.I * layer.H * size, free)
    p.zeros, p.masked = free, free + layer.H * size
    clear(p.zeros, layer.H * size)
    set_start(v, p, p.masked + masked * size)
    if p.hh.mode == PACKED:
        run(v, pack_hh, p, layer.D * p.hh.panels, threads)
    if p.ih.mode == PACKED:
        run(v, pack_ih, p, layer.D * p.ih.panels, threads)
    run_shards(v, forward_shard, p, threads)
    give_back(scratch)
    return 0


@kernel
def block_steps(v: Any, layer: Any) -> int:
    """Steps after which their share of the parameters' gradients is summed, two blocks of them being in the caches.

    They have enough terms for one run of the micro-kernel, or for four where gradients and weights fit no cache.
    """
    step_bytes = layer.B * (3 * layer.D * layer.H + layer.I) * size_of_real(v)
    matrices = layer.D * layer.H * (2 * layer.H + layer.I) * size_of_real(v)
    terms = 4 * DEPTH if matrices > cache_size(3) else DEPTH
    return larger(larger(cache_size(2) // (2 * step_bytes), ceil_div(terms, layer.B)), 1)


@kernel
def backward_pass(v: Any, p: Any) -> int:
    layer, size, tiles = p.layer, size_of_real(v), ints(p.layer.own[0])
    rows, widest = layer.T * layer.B, larger(layer.H, layer.I)
    threads = threads_for(2.0 * rows * layer.D * layer.H * (2 * layer.H + layer.I))
    wants_d_x = layer.d_x.data != 0
    p.is_backward = 1
    plan_shards(v, p, threads)
    set_matrix(v, p.ih, tiles, layer.D * layer.H, layer.I, rows, 1, PACKED if wants_d_x else DIRECT)
    for d in range(layer.D):
        set_matrix(v, after(p.hh, d), tiles, layer.H, layer.H, ceil_div(layer.B, p.shards), p.parts, PACKED)
    masked = layer.D * layer.B * layer.H if layer.dropout > 0 or layer.d_h_reset else 0
    matrices = layer.D * scratch_size(v, p.hh) + scratch_size(v, p.ih)
    scratch = lease(come_size(p) + matrices + start_size(v, layer) + (widest + masked) * size)
    if not scratch:
        return NO_MEMORY
    p.come = scratch
    free = place(v, p.ih, 0, scratch + come_size(p))
    for d in range(layer.D):
        free = place(v, after(p.hh, d), 0, free)
    p.zeros, p.masked = free, free + widest * size
    clear(p.zeros, widest * size)
    set_start(v, p, p.masked + masked * size)
    plan_sums(v, p, threads)
    run(v, pack_hh, p, layer.D * p.hh.panels, threads)
    if wants_d_x:
        run(v, pack_ih, p, p.ih.panels, threads)
    block, e = block_steps(v, layer), p.extent
    while e.last > 0 and not stopped():
        e.first = e.last - smaller(block, e.last)
        if p.parts > 1:
            run_shards(v, backward_shard, p, threads)
        else:
            sums = p.sum_tasks if e.last < layer.T else 0
            run(v, shard_or_sum, p, layer.D * p.shards + sums, threads)
        copy(p.summed, e, _EXTENT_BYTES)
        e.last = e.first
        if p.parts > 1 or e.first == 0:
            run(v, sum_task, p, p.sum_tasks, threads)
    if wants_d_x:
        run(v, input_gradient, p, ceil_div(rows, MAX_ROWS), threads)
    give_back(scratch)
    return 0


@kernel
def forward(v: Any, layer: LAYER) -> int:
    p, call = local(PASS), stack(CALL_BYTES)
    p.layer = layer
    begin_call(call)
    status, reason = forward_pass(v, p), end_call(call)
    return status if status else reason


@kernel
def backward(v: Any, layer: LAYER) -> int:
    p, call = local(PASS), stack(CALL_BYTES)
    p.layer = layer
    begin_call(call)
    status, reason = backward_pass(v, p), end_call(call)
    return status if status else reason
