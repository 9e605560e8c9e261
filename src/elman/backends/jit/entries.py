"""What Python calls: from arrays, by their `id` (wall.py), to the structures of the passes.

`none` and `ndarray` are the ids of None and of NumPy's array type. Each entry holds its arrays against the layer and
returns 0, what a call of a kernel returns instead (csrc/pool.h), or the wall's first fault.
"""

from __future__ import annotations

from typing import Any

from elman.backends.jit.optimizers import UPDATE, adagrad_block, adam_block, clip_pass, run_blocks, sgd_block
from elman.backends.jit.options import entry, kernel, pass_entry, tile_entry
from elman.backends.jit.readout import CROSS_ENTROPY, READOUT, readout_pass
from elman.backends.jit.recurrence import PASS, backward_pass, forward_pass
from elman.backends.jit.simd import Address, size_of_real
from elman.backends.jit.structs import CALL_BYTES, NO_MEMORY, begin_call, end_call, ints, local, stack, store_double
from elman.backends.jit.tile import column_tile_table, tile_table
from elman.backends.jit.wall import (
    ANY,
    BLOCK,
    INTEGERS,
    LOOSE,
    OPTIONAL,
    ROWS,
    WALL,
    WRITTEN,
    array_of,
    check,
    check_lengths,
    check_targets,
    check_tokens,
    data_of,
    is_array,
    ndim_of,
    set_rows_of,
)
from elman.backends.wall import DTYPE, NO_ARRAY, SHAPE


@kernel
def set_layer(
    v: Any,
    w: Any,
    layer: Any,
    tiles: Any,
    epilogues: Any,
    x: int,
    h_0: int,
    weight_ih: int,
    weight_hh: int,
    lengths: int,
    mask: int,
    reverse: int,
) -> None:
    """From arguments 0 to 3 and 20 and 21: their places in the contract, or else (elman.backends.jit) from 20 on."""
    check(v, w, 2, weight_ih, BLOCK, 3, ANY, ANY, ANY)
    if w.fault:
        return
    shape = array_of(weight_ih).shape
    layer.D, layer.I, layer.H = shape[0], shape[1], shape[2]
    if layer.D > 2 or (reverse and layer.D > 1):
        w.fault = 8 * 2 + SHAPE
    layer.has_tokens = x != w.none and is_array(w, x) and ndim_of(x) == 2
    if layer.has_tokens:
        check(v, w, 0, x, INTEGERS | LOOSE, 2, ANY, ANY, 1)
    else:
        check(v, w, 0, x, ROWS, 3, ANY, ANY, layer.I)
    if w.fault:
        return
    layer.T, layer.B = array_of(x).shape[0], array_of(x).shape[1]
    layer.tiles, layer.epilogues = ints(tiles), ints(epilogues)
    layer.reverse = reverse
    check(v, w, 1, h_0, BLOCK, 3, layer.D, layer.B, layer.H)
    check(v, w, 3, weight_hh, BLOCK, 3, layer.D, layer.H, layer.H)
    check_lengths(v, w, 20, lengths, layer.T, layer.B)
    check(v, w, 21, mask, BLOCK | OPTIONAL, 3, layer.D, layer.B, layer.H)
    if w.fault:
        return
    set_rows_of(layer.x, x, w, 8 if layer.has_tokens else size_of_real(v))
    layer.h_0, layer.weight_ih = data_of(h_0, w), data_of(weight_ih, w)
    layer.weight_hh, layer.mask = data_of(weight_hh, w), data_of(mask, w)
    layer.lengths = data_of(lengths, w)
    if layer.has_tokens:
        check_tokens(w, 0, layer.x, layer.T, layer.B, layer.lengths, layer.I)


@kernel
def set_step(
    v: Any, w: Any, layer: Any, tiles: Any, epilogues: Any, x: int, h: int, weight_ih: int, weight_hh: int
) -> None:
    """A sequence of one time step: x (B, I) or tokens (B,), all of it contiguous."""
    check(v, w, 2, weight_ih, BLOCK, 2, ANY, ANY, 1)
    if w.fault:
        return
    shape = array_of(weight_ih).shape
    layer.T, layer.D, layer.I, layer.H = 1, 1, shape[0], shape[1]
    layer.has_tokens = x != w.none and is_array(w, x) and ndim_of(x) == 1
    check(v, w, 0, x, INTEGERS if layer.has_tokens else BLOCK, 1 if layer.has_tokens else 2, ANY, layer.I, 1)
    if w.fault:
        return
    layer.B = array_of(x).shape[0]
    check(v, w, 1, h, BLOCK, 2, layer.B, layer.H, 1)
    check(v, w, 3, weight_hh, BLOCK, 2, layer.H, layer.H, 1)
    layer.tiles, layer.epilogues = ints(tiles), ints(epilogues)
    layer.x.data, layer.x.b_stride = data_of(x, w), 1 if layer.has_tokens else layer.I
    layer.h_0, layer.weight_ih, layer.weight_hh = data_of(h, w), data_of(weight_ih, w), data_of(weight_hh, w)
    if layer.has_tokens:
        check_tokens(w, 0, layer.x, 1, layer.B, 0, layer.I)


@tile_entry
def tiles(v: Any) -> Address:
    return tile_table(v)


@tile_entry
def column_tiles(v: Any) -> Address:
    return column_tile_table(v)


@pass_entry
def forward(
    v: Any,
    tiles: Any,
    epilogues: Any,
    none: int,
    ndarray: int,
    x: int,
    h_0: int,
    weight_ih: int,
    weight_hh: int,
    bias: int,
    y: int,
    h_n: int,
    lengths: int,
    mask: int,
    reverse: int,
    is_step: int,
) -> int:
    """`forward` of the contract, or `step` (y is h_next)."""
    p, w, call = local(PASS), local(WALL), stack(CALL_BYTES)
    w.none, w.ndarray = none, ndarray
    layer = p.layer
    if is_step:
        set_step(v, w, layer, tiles, epilogues, x, h_0, weight_ih, weight_hh)
        check(v, w, 4, bias, BLOCK | OPTIONAL, 1, layer.H, 1, 1)
        check(v, w, 5, y, BLOCK | WRITTEN, 2, layer.B, layer.H, 1)
        layer.y.b_stride = layer.H
    else:
        set_layer(v, w, layer, tiles, epilogues, x, h_0, weight_ih, weight_hh, lengths, mask, reverse)
        check(v, w, 4, bias, BLOCK | OPTIONAL, 2, layer.D, layer.H, 1)
        check(v, w, 5, y, ROWS | WRITTEN, 3, layer.T, layer.B, layer.D * layer.H)
        check(v, w, 6, h_n, BLOCK | WRITTEN, 3, layer.D, layer.B, layer.H)
        if w.fault == 0:
            set_rows_of(layer.y, y, w, size_of_real(v))
    if w.fault:
        return w.fault
    layer.y.data, layer.bias, layer.h_n = data_of(y, w), data_of(bias, w), data_of(h_n, w)
    begin_call(call)
    status, reason = forward_pass(v, p), end_call(call)
    return status if status else reason


@pass_entry
def backward(
    v: Any,
    tiles: Any,
    column_tiles: Any,
    epilogues: Any,
    none: int,
    ndarray: int,
    x: int,
    h_0: int,
    weight_ih: int,
    weight_hh: int,
    y: int,
    d_y: int,
    d_h_n: int,
    delta: int,
    d_weight_ih: int,
    d_weight_hh: int,
    d_bias: int,
    d_h_0: int,
    d_x: int,
    lengths: int,
    mask: int,
    reverse: int,
) -> int:
    p, w, call = local(PASS), local(WALL), stack(CALL_BYTES)
    w.none, w.ndarray = none, ndarray
    layer, size = p.layer, size_of_real(v)
    set_layer(v, w, layer, tiles, epilogues, x, h_0, weight_ih, weight_hh, lengths, mask, reverse)
    outputs = layer.D * layer.H
    check(v, w, 4, y, ROWS, 3, layer.T, layer.B, outputs)
    check(v, w, 5, d_y, ROWS | OPTIONAL, 3, layer.T, layer.B, outputs)
    check(v, w, 6, d_h_n, BLOCK | OPTIONAL, 3, layer.D, layer.B, layer.H)
    check(v, w, 7, delta, ROWS | WRITTEN, 3, layer.T, layer.B, outputs)
    check(v, w, 8, d_weight_ih, BLOCK | WRITTEN, 3, layer.D, layer.I, layer.H)
    check(v, w, 9, d_weight_hh, BLOCK | WRITTEN, 3, layer.D, layer.H, layer.H)
    check(v, w, 10, d_bias, BLOCK | WRITTEN | OPTIONAL, 2, layer.D, layer.H, 1)
    check(v, w, 11, d_h_0, BLOCK | WRITTEN, 3, layer.D, layer.B, layer.H)
    check(v, w, 12, d_x, ROWS | WRITTEN | OPTIONAL, 3, layer.T, layer.B, layer.I)
    if w.fault == 0 and layer.has_tokens and d_x != none:
        w.fault = 8 * 12 + DTYPE
    if w.fault:
        return w.fault
    layer.column_tiles = ints(column_tiles)
    set_rows_of(layer.y, y, w, size)
    set_rows_of(layer.d_y, d_y, w, size)
    set_rows_of(layer.delta, delta, w, size)
    set_rows_of(layer.d_x, d_x, w, size)
    layer.d_h_n, layer.d_h_0 = data_of(d_h_n, w), data_of(d_h_0, w)
    layer.d_weight_ih, layer.d_weight_hh = data_of(d_weight_ih, w), data_of(d_weight_hh, w)
    layer.d_bias = data_of(d_bias, w)
    begin_call(call)
    status, reason = backward_pass(v, p), end_call(call)
    return status if status else reason


@kernel
def set_readout(v: Any, w: Any, r: Any, tiles: Any, h: int, weight: int, bias: int, o: int) -> None:
    check(v, w, 1, weight, BLOCK, 2, ANY, ANY, 1)
    if w.fault:
        return
    shape = array_of(weight).shape
    check(v, w, 0, h, ROWS, 3, ANY, ANY, shape[0])
    if w.fault:
        return
    r.T, r.B, r.K, r.O = array_of(h).shape[0], array_of(h).shape[1], shape[0], shape[1]
    check(v, w, 2, bias, BLOCK | OPTIONAL, 1, r.O, 1, 1)
    check(v, w, 4, o, ROWS | WRITTEN, 3, r.T, r.B, r.O)
    if w.fault:
        return
    r.tiles = ints(tiles)
    set_rows_of(r.h, h, w, size_of_real(v))
    set_rows_of(r.o, o, w, size_of_real(v))
    r.weight_data, r.bias = data_of(weight, w), data_of(bias, w)


@kernel
def set_loss(v: Any, w: Any, r: Any, target: int, d_h: int, d_weight: int, d_bias: int, weights: int) -> None:
    size = size_of_real(v)
    check(v, w, 22, weights, LOOSE | OPTIONAL, 2, r.T, r.B, 1)
    if r.loss == CROSS_ENTROPY:
        check(v, w, 3, target, INTEGERS | LOOSE, 2, r.T, r.B, 1)
    else:
        check(v, w, 3, target, ROWS, 3, r.T, r.B, r.O)
    check(v, w, 5, d_h, ROWS | WRITTEN | OPTIONAL, 3, r.T, r.B, r.K)
    check(v, w, 6, d_weight, BLOCK | WRITTEN | OPTIONAL, 2, r.K, r.O, 1)
    check(v, w, 7, d_bias, BLOCK | WRITTEN | OPTIONAL, 1, r.O, 1, 1)
    if w.fault == 0 and (d_h == w.none) != (d_weight == w.none):
        w.fault = 8 * 6 + NO_ARRAY
    if w.fault:
        return
    set_rows_of(r.target, target, w, 8 if r.loss == CROSS_ENTROPY else size)
    set_rows_of(r.weights, weights, w, size)
    set_rows_of(r.d_h, d_h, w, size)
    r.d_weight, r.d_bias = data_of(d_weight, w), data_of(d_bias, w)
    if r.loss == CROSS_ENTROPY:
        check_targets(v, w, 3, r)


@entry
def readout(
    v: Any,
    tiles: Any,
    column_tiles: Any,
    none: int,
    ndarray: int,
    h: int,
    weight: int,
    bias: int,
    target: int,
    o: int,
    d_h: int,
    d_weight: int,
    d_bias: int,
    lengths: int,
    weights: int,
    loss_kind: int,
    scale: float,
    loss: int,
) -> int:
    """`readout_loss` of the contract, its result to the address `loss`; or with loss = 0 `readout`."""
    r, w, call = local(READOUT), local(WALL), stack(CALL_BYTES)
    w.none, w.ndarray = none, ndarray
    set_readout(v, w, r, tiles, h, weight, bias, o)
    check_lengths(v, w, 20, lengths, r.T, r.B)
    r.column_tiles = ints(column_tiles)
    r.loss, r.scale = loss_kind, scale
    if loss and w.fault == 0:
        r.lengths = data_of(lengths, w)
        set_loss(v, w, r, target, d_h, d_weight, d_bias, weights)
    if w.fault:
        return w.fault
    begin_call(call)
    status, reason = readout_pass(v, r, loss), end_call(call)
    return status if status else reason


@kernel
def update_of(v: Any, w: Any, u: Any, parameters: int, gradient: int, state: int, square: int, kind: int) -> None:
    """What an update goes over: arguments 0 to 3; `kind` of the last two."""
    check(v, w, 0, parameters, BLOCK | WRITTEN, 1, ANY, 1, 1)
    if w.fault:
        return
    u.n = array_of(parameters).shape[0]
    check(v, w, 1, gradient, BLOCK, 1, u.n, 1, 1)
    check(v, w, 2, state, BLOCK | WRITTEN | kind, 1, u.n, 1, 1)
    check(v, w, 3, square, BLOCK | WRITTEN | kind, 1, u.n, 1, 1)
    if w.fault:
        return
    u.parameters, u.gradient = data_of(parameters, w), data_of(gradient, w)
    u.state, u.square = data_of(state, w), data_of(square, w)


@entry
def clip_norm(v: Any, none: int, ndarray: int, gradient: int, max_norm: float, norm: int) -> int:
    """The norm goes to an address."""
    u, w = local(UPDATE), local(WALL)
    w.none, w.ndarray = none, ndarray
    update_of(v, w, u, gradient, gradient, none, none, OPTIONAL)
    if w.fault:
        return w.fault
    result = clip_pass(v, u, max_norm)
    store_double(norm, result)
    return NO_MEMORY if result < 0 else 0


@entry
def sgd(
    v: Any, none: int, ndarray: int, parameters: int, gradient: int, velocity: int, lr: float, momentum: float
) -> int:
    u, w = local(UPDATE), local(WALL)
    w.none, w.ndarray = none, ndarray
    update_of(v, w, u, parameters, gradient, velocity, none, OPTIONAL)
    if w.fault == 0:
        u.lr, u.beta1 = lr, momentum
        run_blocks(v, sgd_block, u)
    return w.fault


@entry
def adagrad(
    v: Any, none: int, ndarray: int, parameters: int, gradient: int, square_sum: int, lr: float, eps: float
) -> int:
    u, w = local(UPDATE), local(WALL)
    w.none, w.ndarray = none, ndarray
    update_of(v, w, u, parameters, gradient, square_sum, square_sum, 0)
    if w.fault == 0:
        u.lr, u.eps = lr, eps
        run_blocks(v, adagrad_block, u)
    return w.fault


@entry
def adam(
    v: Any,
    none: int,
    ndarray: int,
    parameters: int,
    gradient: int,
    mean: int,
    square: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    correction: float,
) -> int:
    u, w = local(UPDATE), local(WALL)
    w.none, w.ndarray = none, ndarray
    update_of(v, w, u, parameters, gradient, mean, square, 0)
    if w.fault == 0:
        u.rate, u.beta1, u.beta2, u.eps, u.decay, u.correction = rate, beta1, beta2, eps, decay, correction
        run_blocks(v, adam_block, u)
    return w.fault
