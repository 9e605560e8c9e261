"""How gradients fare on their way back through time."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elman.backends.activations import Activation
from elman.backends.contract import Gradients, Layer
from elman.backends.reference import ACTIVATIONS
from elman.check import active
from elman.data.sequences import Batch
from elman.typing import Real

if TYPE_CHECKING:
    from elman.models.sequence import SequenceModel

_FLAT = 0.02  # of the steepest slope: where a unit hardly passes a gradient on. For tanh, |h| > 0.99


class GradientNorms(NamedTuple):
    """What `SequenceModel.gradient_norms` returns, for each layer and step."""

    norms: Real  # (L, T): of the gradient by the layer's states after step t, of all rows and units together
    saturated: Real  # (L,): the part of the states where the slope of the nonlinearity is under 2 % of its steepest


def gradient_norms(model: SequenceModel, backend: ModuleType, batch: Batch, h_0: Real) -> GradientNorms:
    """One pass forward and one back, without dropout and with all arrays kept."""
    rnn, n_rows = model.rnn, batch.x.shape[1]
    is_active = active(len(batch.x), np.full(n_rows, len(batch.x)) if batch.lengths is None else batch.lengths)
    outputs, h_n = _forward(model, backend, batch, h_0)
    gradients, d_y, d_h_n = model._zeros(), np.zeros_like(outputs[-1]), np.zeros_like(h_n)
    if model._traits.one_output:
        _, d_h_n = model._loss_of_last(backend, batch, h_n, gradients)
    else:
        lengths = model._target_lengths(batch)
        model._readout_loss(backend, outputs[-1], batch.y, batch.total, lengths, batch.weights, d_y, gradients)
    norms, saturated = np.empty((rnn.num_layers, len(batch.x))), np.empty(rnn.num_layers)
    steepest = max(np.ravel(_slope(rnn.nonlinearity, np.linspace(0, 1, 101))))
    for k in reversed(range(rnn.num_layers)):
        d_h, d_y = _backward(model, backend, batch, h_0, outputs, d_y, d_h_n, k)
        norms[k] = np.sqrt(np.square(d_h * is_active[..., None], dtype=np.float64).sum(axis=(1, 2)))
        saturated[k] = np.mean(_slope(rnn.nonlinearity, outputs[k][is_active]) < _FLAT * steepest)
    return GradientNorms(norms, saturated)


def _forward(model: SequenceModel, backend: ModuleType, batch: Batch, h_0: Real) -> tuple[list[Real], Real]:
    """Each layer's outputs (T, B, D·H), zero beyond the lengths, and the last states."""
    rnn, h_n = model.rnn, np.empty_like(h_0)
    n_directions = len(h_0) // rnn.num_layers
    inputs, outputs = batch.x, []
    for k, weights in enumerate(rnn._weights):
        own = slice(k * n_directions, (k + 1) * n_directions)
        y = np.zeros((*batch.x.shape[:2], rnn._n_outputs), rnn.dtype)
        backend.forward(Layer(inputs, h_0[own], *weights, y, h_n[own], rnn.nonlinearity, batch.lengths))
        outputs.append(y)
        inputs = y
    return outputs, h_n


def _backward(
    model: SequenceModel,
    backend: ModuleType,
    batch: Batch,
    h_0: Real,
    outputs: list[Real],
    d_y: Real,
    d_h_n: Real,
    k: int,
) -> tuple[Real, Real]:
    """The gradients by the states of layer k and by its inputs (T, B, ·), zeros if these are the data."""
    rnn, n_directions, n_units = model.rnn, len(h_0) // model.rnn.num_layers, model.rnn.hidden_size
    own = slice(k * n_directions, (k + 1) * n_directions)
    weight_ih, weight_hh, bias = rnn._weights[k]
    delta, d_h = np.zeros_like(d_y), d_y.copy()
    d_x = np.zeros_like(d_y) if k else None
    x, y = outputs[k - 1] if k else batch.x, outputs[k]
    layer = Layer(x, h_0[own], weight_ih, weight_hh, bias, y, None, rnn.nonlinearity, batch.lengths)
    d_bias, d_h_0 = None if bias is None else np.zeros_like(bias), np.empty_like(h_0[own])
    d_weight_ih, d_weight_hh = np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    backend.backward(layer, Gradients(d_y, d_h_n[own], delta, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_x))
    n_rows = d_h.shape[1]
    last = np.full(n_rows, len(d_h) - 1) if batch.lengths is None else batch.lengths - 1
    for d in range(n_directions):  # what reaches a state from the step that comes after it, or from the end
        columns = slice(d * n_units, (d + 1) * n_units)
        through_time = delta[..., columns] @ weight_hh[d].T
        ends = last if d == 0 else np.zeros(n_rows, dtype=np.int64)
        d_h[ends, np.arange(n_rows), columns] += d_h_n[own][d]
        if d == 0:
            d_h[:-1, :, columns] += through_time[1:]
        else:
            d_h[1:, :, columns] += through_time[:-1]
    return d_h, np.zeros_like(d_y) if d_x is None else d_x


def _slope(nonlinearity: str | Activation, y: Real) -> Real:
    """f' as a function of y = f(a)."""
    return nonlinearity.derivative(y) if isinstance(nonlinearity, Activation) else ACTIVATIONS[nonlinearity][1](y)
