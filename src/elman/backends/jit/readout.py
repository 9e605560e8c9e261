"""The readout and its loss: csrc/readout.h, where the reasons stand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elman.backends.contract import LOSSES, Readout
from elman.backends.jit.gemm import (
    EPILOGUE,
    MATRIX,
    gemm,
    pack,
    place,
    scratch_size,
    set_matrix,
)
from elman.backends.jit.options import kernel
from elman.backends.jit.plan import MAX_ROWS, ceil_div, mode_for, threads_for
from elman.backends.jit.rows import (
    EXTENT,
    OUTER_SUM,
    at,
    c_struct,
    integer_at,
    length_of,
    outer_sum_task,
    outer_sum_tasks,
    plan_outer_sum,
    set_extent,
    set_rows,
)
from elman.backends.jit.simd import (
    Address,
    choose,
    largest,
    load_padded,
    load_real,
    load_upto,
    real,
    reals,
    size_of_real,
    splat,
    store_real,
    store_upto,
    total,
)
from elman.backends.jit.structs import (
    CALL_BYTES,
    INT,
    INTS,
    NO_MEMORY,
    Pointer,
    Struct,
    begin_call,
    clear,
    end_call,
    give_back,
    ints,
    larger,
    lease,
    load_double,
    local,
    run,
    smaller,
    stack,
    store_double,
)
from elman.backends.jit.tile import DIRECT, PACKED
from elman.backends.jit.vecmath import exp_negative, sigmoid

CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SQUARED_ERROR, LINEAR = range(len(LOSSES))

# What a caller hands over: elman_readout of csrc/elman.h, with `own` as in a layer; and the state of the pass
READOUT = c_struct("readout", Readout, own=INTS)
PASS = Struct(
    "readout_pass",
    readout=Pointer(READOUT),
    extent=EXTENT,
    weight=MATRIX,
    transposed=MATRIX,
    zeros=INT,
    losses=INT,  # of each task, or 0 for the outputs alone
    has_gradient=INT,  # by the outputs
    sum=OUTER_SUM,
)

_LIST = 8 * MAX_ROWS  # bytes of a list of rows


# Each loss: of one row of outputs o, which with `gradient` becomes scale times the loss's gradient by it.


@kernel
def cross_entropy(v: Any, o: Address, columns: int, token: int, scale: Any, gradient: bool) -> float:
    size, n_reals = size_of_real(v), reals(v)
    if token < 0:
        if gradient:
            clear(o, columns * size)
        return 0.0
    most, sums = splat(v, -np.inf), splat(v, 0.0)
    for j in range(0, columns, n_reals):
        x = load_padded(v, o + j * size, smaller(columns - j, n_reals), -np.inf)
        most = choose(x > most, x, most)
    highest = largest(most)
    at_token = load_real(v, o + token * size) - highest
    for j in range(0, columns, n_reals):
        n = smaller(columns - j, n_reals)
        e = exp_negative(v, load_padded(v, o + j * size, n, -np.inf) - splat(v, highest))
        sums = sums + e
        store_upto(o + j * size, e, n)
    sum_of_exp = total(sums)
    if gradient:
        factor = splat(v, scale / sum_of_exp)
        for j in range(0, columns, n_reals):
            n = smaller(columns - j, n_reals)
            store_upto(o + j * size, load_upto(v, o + j * size, n) * factor, n)
        store_real(v, o + token * size, load_real(v, o + token * size) - scale)
    return math.log(np.float64(sum_of_exp)) - np.float64(at_token)


@kernel
def binary_cross_entropy(v: Any, o: Address, columns: int, target: Address, scale: Any, gradient: bool) -> float:
    loss, size, n_reals = 0.0, size_of_real(v), reals(v)
    for j in range(columns):
        x, y = np.float64(load_real(v, o + j * size)), np.float64(load_real(v, target + j * size))
        loss += (x if x > 0 else 0.0) - x * y + math.log1p(math.exp(-abs(x)))
    if gradient:
        for j in range(0, columns, n_reals):
            n = smaller(columns - j, n_reals)
            difference = sigmoid(v, load_upto(v, o + j * size, n)) - load_upto(v, target + j * size, n)
            store_upto(o + j * size, difference * splat(v, scale), n)
    return loss


@kernel
def squared_error(v: Any, o: Address, columns: int, target: Address, scale: Any, gradient: bool) -> float:
    loss, size = 0.0, size_of_real(v)
    for j in range(columns):
        error = load_real(v, o + j * size) - load_real(v, target + j * size)
        loss += np.float64(error) * np.float64(error)
        if gradient:
            store_real(v, o + j * size, (error + error) * scale)
    return loss


@kernel
def linear(v: Any, o: Address, columns: int, target: Address, scale: Any, gradient: bool) -> float:
    loss, size = 0.0, size_of_real(v)
    for j in range(columns):
        y = load_real(v, target + j * size)
        loss += np.float64(load_real(v, o + j * size)) * np.float64(y)
        if gradient:
            store_real(v, o + j * size, y * scale)
    return loss


@kernel
def loss_of(v: Any, r: Any, o: Address, target: Address, scale: Any, gradient: bool) -> float:
    if r.loss == CROSS_ENTROPY:
        return cross_entropy(v, o, r.O, ints(target)[0], scale, gradient)
    if r.loss == BINARY_CROSS_ENTROPY:
        return binary_cross_entropy(v, o, r.O, target, scale, gradient)
    if r.loss == SQUARED_ERROR:
        return squared_error(v, o, r.O, target, scale, gradient)
    return linear(v, o, r.O, target, scale, gradient)


@kernel
def weighted_loss(v: Any, r: Any, o: Address, target: Address, weight: Address, gradient: bool) -> float:
    """The loss of one row of outputs times its weight, which is 1 where there is none."""
    scale = real(v, r.scale)
    if not weight:
        return loss_of(v, r, o, target, scale, gradient)
    w = load_real(v, weight)
    if w == 0:
        if gradient:
            clear(o, r.O * size_of_real(v))
        return 0.0
    return np.float64(w) * loss_of(v, r, o, target, scale * w, gradient)


@kernel
def readout_rows(v: Any, p: Any, task: int) -> None:
    """MAX_ROWS places of (T, B)."""
    r = p.readout
    h, o, init, d_h = ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST)), ints(stack(_LIST))
    target, weight, gradient, n = ints(stack(_LIST)), ints(stack(_LIST)), p.has_gradient != 0, 0
    for i in range(task * MAX_ROWS, smaller((task + 1) * MAX_ROWS, r.T * r.B)):
        t, b = i // r.B, i % r.B
        if t >= length_of(p.extent, b):
            continue
        h[n], o[n], init[n] = at(v, r.h, t, b), at(v, r.o, t, b), r.bias if r.bias else p.zeros
        target[n] = integer_at(r.target, t, b) if r.loss == CROSS_ENTROPY else at(v, r.target, t, b)
        weight[n] = at(v, r.weights, t, b) if r.weights.data else 0
        d_h[n] = at(v, r.d_h, t, b) if r.d_h.data else 0
        n += 1
    nothing = local(EPILOGUE)
    gemm(v, p.weight, n, h, init, o, nothing)
    if not p.losses:
        return
    loss = 0.0
    for i in range(n):
        loss += weighted_loss(v, r, o[i], target[i], weight[i], gradient)
        init[i] = p.zeros
    store_double(p.losses + 8 * task, loss)
    if r.d_h.data:
        gemm(v, p.transposed, n, o, init, d_h, nothing)


@kernel
def pack_weight(v: Any, p: Any, i: int) -> None:
    r = p.readout
    pack(v, p.weight, i, 0, r.K, r.weight, r.O, False)


@kernel
def pack_transposed(v: Any, p: Any, i: int) -> None:
    r = p.readout
    pack(v, p.transposed, i, 0, r.O, r.weight, r.O, True)


@kernel
def readout_gradient(v: Any, p: Any, i: int) -> None:
    outer_sum_task(v, p.sum, i)


@kernel
def add_gradient(v: Any, p: Any, threads: int) -> None:
    r, s = p.readout, p.sum
    set_rows(s.left.rows, r.h, 0)
    set_rows(s.delta, r.o, 0)
    s.extent, s.left.width, s.columns, s.tiles = p.extent, r.K if r.d_weight else 1, r.O, ints(r.own[1])
    s.d_weight, s.d_bias = r.d_weight, r.d_bias
    plan_outer_sum(v, s, threads)
    run(v, readout_gradient, p, outer_sum_tasks(s), threads)


@kernel
def readout_pass(v: Any, p: Any, loss: Address) -> int:
    """Its loss goes to an address, or with 0 there is none. Returns 0, or NO_MEMORY for scratch."""
    r, tiles = p.readout, ints(p.readout.own[0])
    rows, size = r.T * r.B, size_of_real(v)
    tasks, goes_back = ceil_div(rows, MAX_ROWS), loss != 0 and r.d_h.data != 0
    sums = loss != 0 and (r.d_weight != 0 or r.d_bias != 0)
    p.has_gradient = 1 if goes_back or sums else 0
    threads = threads_for(2.0 * rows * r.K * r.O * (1 + (1 if goes_back else 0) + (1 if sums else 0)))
    set_extent(p.extent, r.T, r.B, r.lengths)
    set_matrix(v, p.weight, tiles, r.K, r.O, rows, 1, mode_for(rows))
    set_matrix(v, p.transposed, tiles, r.O, r.K, rows, 1, PACKED if goes_back else DIRECT)
    widest = ceil_div(larger(r.K, r.O), reals(v)) * reals(v) * size
    scratch = lease(scratch_size(v, p.weight) + scratch_size(v, p.transposed) + widest + 8 * tasks)
    if not scratch:
        return NO_MEMORY
    p.zeros = place(v, p.transposed, 0, place(v, p.weight, r.weight, scratch))
    clear(p.zeros, widest)
    p.losses = p.zeros + widest if loss else 0
    if p.weight.mode == PACKED:
        run(v, pack_weight, p, p.weight.panels, threads)
    if goes_back:
        run(v, pack_transposed, p, p.transposed.panels, threads)
    run(v, readout_rows, p, tasks, threads)
    if loss:
        sum_of_losses = 0.0
        for i in range(tasks):
            sum_of_losses += load_double(p.losses + 8 * i)
        store_double(loss, sum_of_losses)
    if sums:
        add_gradient(v, p, threads)
    give_back(scratch)
    return 0


@kernel
def readout(v: Any, r: READOUT) -> int:
    return readout_loss(v, r, 0)


@kernel
def readout_loss(v: Any, r: READOUT, loss: Address) -> int:
    p, call = local(PASS), stack(CALL_BYTES)
    p.readout = r
    begin_call(call)
    status, reason = readout_pass(v, p, loss), end_call(call)
    return status if status else reason
