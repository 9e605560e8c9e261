"""The curvature of a model's loss along a vector, as second-order methods want it (Martens, 2010)."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import check
from elman.backends.contract import Readout
from elman.data.outputs import Targets
from elman.data.sequences import Batch
from elman.layer import tangents
from elman.layer.jacobian import functions_of
from elman.layer.parameters import Parameters
from elman.layer.stack import Drawn
from elman.models.network import SequenceNetwork
from elman.typing import Real


def vector_of(network: SequenceNetwork, v: Any) -> Parameters:
    """A vector over all parameters, from a dict of arrays that are named and shaped like them."""
    vector = network.zeros()
    named = vector.named()
    check.some_of(v, "v", named)
    for name, value in v.items():
        named[name][...] = check.real_array(value, f"v[{name!r}]", vector.flat.dtype, named[name].shape)
    return vector


def gauss_newton_product(network: SequenceNetwork, batch: Batch, v: Parameters) -> Parameters:
    """G v of the mean loss: the outputs' tangents, times the loss's own curvature, taken back (Schraudolph, 2002).

    v, which is written to, becomes what moves the weights as they act.
    """
    network.chain(v)
    stack, n_rows, product = network.stack, batch.x.shape[1], network.zeros()
    mode = network.mode()._replace(dropout=0.0, recurrent_dropout=0.0)
    h_0 = network.initial_state(n_rows)
    reading, moves = network.laid_out(product), _moves(network, v, h_0, batch.x)
    x = reading.of(batch.x)
    h_n, d_h_0, d_x = np.empty_like(h_0), np.empty_like(h_0), reading.room(x)
    with stack.forward(mode, x, h_0, h_n, lengths=batch.lengths, drawn=Drawn()) as tape:
        d_states, d_last = tangents.of_tape(tape, moves)
        targets, layer, one_output = batch.targets, None, network.kinds.pattern.one_output
        if one_output:
            h, layer = network.last_outputs(mode, h_n)
            d_h = d_last[0, -stack.architecture.n_directions :].swapaxes(0, 1).reshape(h.shape)
            if layer is not None:
                d_h = d_h * functions_of(mode.activation)[1](h)
        else:
            skipped = len(d_states) - len(targets.y)  # steps without a target
            h, d_h = tape.layers[-1].y[skipped:], d_states[skipped:]
        d_o = _curved(network, mode.backend, h, np.ascontiguousarray(d_h), v, targets)
        back = _through_readout(network, mode.backend, h, d_o, product)
        if one_output:
            stack.backward(tape, None, network.by_last(mode, layer, back, h_n), d_h_0, d_x, product.arrays)
        else:
            d_y = np.zeros_like(d_states)
            d_y[skipped:] = back
            stack.backward(tape, d_y, None, d_h_0, d_x, product.arrays)
    reading.add(batch.x, d_x)
    if network.learns_h_0:
        product.named()["h_0"][...] = d_h_0.sum(axis=1, dtype=np.float64)
    network.chain(product)
    return product


def _moves(network: SequenceNetwork, v: Parameters, h_0: Real, x: Any) -> tangents.Moves:
    """What the vector moves of the layers, as one tangent; rows begin alike."""
    own = {name: one[None] for name, one in v.named(network.stack.architecture.n_entries).items()}
    d_h_0 = np.zeros_like(h_0)
    if network.learns_h_0:
        d_h_0 += v.named()["h_0"][:, None]
    d_x = [network.inputs.moved(x, tables)] if (tables := network.tables(v)) else None
    return tangents.Moves(1, d_x, d_h_0[None], own)


def _curved(network: SequenceNetwork, backend: Any, h: Real, d_h: Real, v: Parameters, targets: Targets) -> Real:
    """The loss's second derivative by the outputs, times their tangent: (T, B, O), 0 where there is no target."""
    weight, bias = network.readout_now()
    d_weight, d_bias = network.readout_of(v)
    o, d_o, moved = (np.empty((*h.shape[:2], network.predicted.n_units), h.dtype) for _ in range(3))
    backend.readout(Readout(h, weight, bias, o))
    backend.readout(Readout(d_h, weight, None, d_o))
    backend.readout(Readout(h, d_weight, d_bias, moved))
    with np.errstate(all="ignore"):  # beyond the lengths there is anything
        curved = network.predicted.curved(o, d_o + moved)
        if targets.weights is not None:
            curved *= targets.weights[..., None]
    counts = targets.counts(network.predicted)
    scale = targets.total * (network.predicted.n if network.predicted.is_mean else 1)
    return np.where(counts[..., None], curved, 0) / h.dtype.type(scale) if scale > 0 else np.zeros_like(o)


def _through_readout(network: SequenceNetwork, backend: Any, h: Real, d_o: Real, into: Parameters) -> Real:
    """The gradient by what the readout sees, from that by its outputs; the readout's own is added."""
    (weight, _), (d_weight, d_bias) = network.readout_now(), network.readout_of(into)
    rows, own = h.reshape(-1, h.shape[-1]), d_o.reshape(-1, d_o.shape[-1])
    has_target = own.any(axis=1)  # elsewhere states may be anything
    d_weight += rows[has_target].T @ own[has_target]
    d_bias += own.sum(axis=0)
    d_h = np.empty_like(h)
    backend.readout(Readout(d_o, np.ascontiguousarray(weight.T), None, d_h))
    return d_h
