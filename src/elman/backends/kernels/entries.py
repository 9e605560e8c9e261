"""What Python calls: from arrays, by their `id`, to the structures of the passes.

The id of an object is its address in CPython, and a NumPy array begins with where its data are, how many axes it has
and where its shape and strides are (`PyArrayObject_fields`, the part of NumPy's C API that extensions are compiled
against). Reading these here takes nanoseconds where unpacking an array in Python takes a microsecond, and a kernel has
no array in its signature, so neither strides nor None make Numba compile it again. `none` is the id of None.
"""

from __future__ import annotations

from typing import Any

from elman.backends.kernels import entry, kernel, pass_entry, tile_entry
from elman.backends.kernels.memory import INT, INTS, Struct, ints, local, view
from elman.backends.kernels.optimizers import UPDATE, adagrad_block, adam_block, clip_pass, run_blocks, sgd_block
from elman.backends.kernels.readout import CROSS_ENTROPY, READOUT, readout_pass
from elman.backends.kernels.recurrence import PASS, backward_pass, forward_pass
from elman.backends.kernels.tile import column_tile_table, tile_table
from elman.backends.simd import Address, size_of_real

_ARRAY = Struct("array", data=INT, ndim=INT, shape=INTS, strides=INTS)
_HEADER = object.__basicsize__  # of every Python object: its count of references and its type


@kernel
def array_of(array: int) -> Any:
    return view(_ARRAY, array + _HEADER)


@kernel
def ndim_of(array: int) -> int:
    return array_of(array).ndim & 0xFFFFFFFF  # a C int, and what fills it up to 8 bytes


@kernel
def data_of(array: int, none: int) -> Address:
    """The address of an array's data, 0 for None."""
    return 0 if array == none else array_of(array).data


@kernel
def set_rows_of(rows: Any, array: int, none: int, size: int) -> None:
    """rows = an array (T, B, n) of elements of `size` bytes, or no rows for None."""
    rows.data = data_of(array, none)
    if array != none:
        rows.t_stride = array_of(array).strides[0] // size
        rows.b_stride = array_of(array).strides[1] // size


@kernel
def set_layer(
    v: Any,
    layer: Any,
    tiles: Any,
    epilogues: Any,
    none: int,
    x: int,
    h_0: int,
    weight_ih: int,
    weight_hh: int,
    lengths: int,
    mask: int,
    reverse: int,
) -> None:
    shape = array_of(weight_ih).shape
    layer.T, layer.B = array_of(x).shape[0], array_of(x).shape[1]
    layer.D, layer.I, layer.H = shape[0], shape[1], shape[2]
    layer.tiles, layer.epilogues = ints(tiles), ints(epilogues)
    layer.has_tokens, layer.reverse = ndim_of(x) == 2, reverse
    set_rows_of(layer.x, x, none, 8 if layer.has_tokens else size_of_real(v))
    layer.h_0, layer.weight_ih = data_of(h_0, none), data_of(weight_ih, none)
    layer.weight_hh, layer.mask = data_of(weight_hh, none), data_of(mask, none)
    layer.lengths = data_of(lengths, none)


@kernel
def set_step(layer: Any, tiles: Any, epilogues: Any, none: int, x: int, h: int, weight_ih: int, weight_hh: int) -> None:
    """A sequence of one time step: x (B, I) or tokens (B,), all of it contiguous."""
    shape = array_of(weight_ih).shape
    layer.T, layer.D, layer.B, layer.I, layer.H = 1, 1, array_of(x).shape[0], shape[0], shape[1]
    layer.tiles, layer.epilogues = ints(tiles), ints(epilogues)
    layer.has_tokens = ndim_of(x) == 1
    layer.x.data, layer.x.b_stride = data_of(x, none), 1 if layer.has_tokens else layer.I
    layer.h_0, layer.weight_ih, layer.weight_hh = data_of(h, none), data_of(weight_ih, none), data_of(weight_hh, none)


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
) -> int:
    """`forward` of the contract, or where weights are of one direction, `step` (y is h_next)."""
    p = local(PASS)
    layer = p.layer
    if ndim_of(weight_ih) == 2:
        set_step(layer, tiles, epilogues, none, x, h_0, weight_ih, weight_hh)
        layer.y.data, layer.y.b_stride = data_of(y, none), layer.H
    else:
        set_layer(v, layer, tiles, epilogues, none, x, h_0, weight_ih, weight_hh, lengths, mask, reverse)
        set_rows_of(layer.y, y, none, size_of_real(v))
    layer.bias, layer.h_n = data_of(bias, none), data_of(h_n, none)
    return forward_pass(v, p)


@pass_entry
def backward(
    v: Any,
    tiles: Any,
    column_tiles: Any,
    epilogues: Any,
    none: int,
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
    p = local(PASS)
    layer, size = p.layer, size_of_real(v)
    set_layer(v, layer, tiles, epilogues, none, x, h_0, weight_ih, weight_hh, lengths, mask, reverse)
    layer.column_tiles = ints(column_tiles)
    set_rows_of(layer.y, y, none, size)
    set_rows_of(layer.d_y, d_y, none, size)
    set_rows_of(layer.delta, delta, none, size)
    set_rows_of(layer.d_x, d_x, none, size)
    layer.d_h_n, layer.d_h_0 = data_of(d_h_n, none), data_of(d_h_0, none)
    layer.d_weight_ih, layer.d_weight_hh = data_of(d_weight_ih, none), data_of(d_weight_hh, none)
    layer.d_bias = data_of(d_bias, none)
    return backward_pass(v, p)


@kernel
def set_readout(v: Any, r: Any, tiles: Any, none: int, h: int, weight: int, bias: int, o: int) -> None:
    shape = array_of(weight).shape
    r.T, r.B, r.K, r.O = array_of(h).shape[0], array_of(h).shape[1], shape[0], shape[1]
    r.tiles = ints(tiles)
    set_rows_of(r.h, h, none, size_of_real(v))
    set_rows_of(r.o, o, none, size_of_real(v))
    r.weight_data, r.bias = data_of(weight, none), data_of(bias, none)


@entry
def readout(
    v: Any,
    tiles: Any,
    column_tiles: Any,
    none: int,
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
    r = local(READOUT)
    set_readout(v, r, tiles, none, h, weight, bias, o)
    r.column_tiles = ints(column_tiles)
    r.loss, r.scale, r.lengths = loss_kind, scale, data_of(lengths, none)
    set_rows_of(r.target, target, none, 8 if loss_kind == CROSS_ENTROPY else size_of_real(v))
    set_rows_of(r.weights, weights, none, size_of_real(v))
    set_rows_of(r.d_h, d_h, none, size_of_real(v))
    r.d_weight, r.d_bias = data_of(d_weight, none), data_of(d_bias, none)
    return readout_pass(v, r, loss)


@kernel
def update_of(none: int, parameters: int, gradient: int, state: int, square: int, u: Any) -> None:
    u.n, u.parameters = array_of(parameters).shape[0], data_of(parameters, none)
    u.gradient, u.state, u.square = data_of(gradient, none), data_of(state, none), data_of(square, none)


@entry
def clip_norm(v: Any, none: int, gradient: int, max_norm: float) -> float:
    u = local(UPDATE)
    update_of(none, gradient, none, none, none, u)
    return clip_pass(v, u, max_norm)


@entry
def sgd(v: Any, none: int, parameters: int, gradient: int, velocity: int, lr: float, momentum: float) -> None:
    u = local(UPDATE)
    update_of(none, parameters, gradient, velocity, none, u)
    u.lr, u.beta1 = lr, momentum
    run_blocks(v, sgd_block, u)


@entry
def adagrad(v: Any, none: int, parameters: int, gradient: int, square_sum: int, lr: float, eps: float) -> None:
    u = local(UPDATE)
    update_of(none, parameters, gradient, none, square_sum, u)
    u.lr, u.eps = lr, eps
    run_blocks(v, adagrad_block, u)


@entry
def adam(
    v: Any,
    none: int,
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
) -> None:
    u = local(UPDATE)
    update_of(none, parameters, gradient, mean, square, u)
    u.rate, u.beta1, u.beta2, u.eps, u.decay, u.correction = rate, beta1, beta2, eps, decay, correction
    run_blocks(v, adam_block, u)
