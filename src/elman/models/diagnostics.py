"""How gradients fare on their way back through time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from elman.backends.contract import Layer
from elman.data.sequences import Batch
from elman.layer.jacobian import functions_of
from elman.layer.stack import Drawn, backward
from elman.lengths import within
from elman.models.network import SequenceNetwork
from elman.typing import Int, Real

_FLAT = 0.02  # of the steepest slope: where a unit hardly passes a gradient on. For tanh, |h| > 0.99


class GradientNorms(NamedTuple):
    """What `SequenceModel.gradient_norms` returns, for each layer and step."""

    norms: Real  # (L, T): of the gradient by the layer's states after step t, of all rows and units together
    saturated: Real  # (L,): the part of f's values where the slope is under 2 % of the steepest for values from 0 to 1


def gradient_norms(network: SequenceNetwork, batch: Batch) -> GradientNorms:
    """One pass forward and one back, without dropout and noise."""
    stack, (n_steps, n_rows) = network.stack, batch.x.shape[:2]
    n_layers, mode = len(stack.weights), network.mode()._replace(dropout=0.0, recurrent_dropout=0.0)
    lengths = np.full(n_rows, n_steps) if batch.lengths is None else batch.lengths
    is_active, gradients, h_0 = within(n_steps, lengths), network.zeros(), network.initial_state(n_rows)
    norms, saturated = np.empty((n_layers, n_steps)), np.empty(n_layers)
    _, slope = functions_of(mode.activation)
    # for values from 0 to 1, as "power" has no steepest slope
    steepest = max(np.ravel(slope(np.linspace(0, 1, 101))))
    h_n, d_h_0 = np.empty_like(h_0), np.empty_like(h_0)
    reading = network.reading(mode, batch.x, gradients)
    own: Any = {"lengths": batch.lengths, "drawn": Drawn(), "weights": reading.weights}
    with stack.forward(mode, reading.of(batch.x), h_0, h_n, **own) as tape:
        d_y, d_h_n = np.zeros_like(tape.layers[-1].y), np.zeros_like(h_n)
        if network.kinds.pattern.one_output:
            _, d_h_n = network.loss_of_last(mode, batch, h_n, gradients)
        else:
            network.loss_of(mode.backend, tape.layers[-1].y, batch.targets, d_y, gradients)

        def look(k: int, d_y: Real | None, delta: Real) -> None:
            assert d_y is not None
            own = slice(k * stack.architecture.n_directions, (k + 1) * stack.architecture.n_directions)
            d_h = _by_states(tape.layers[k], d_y, delta, d_h_n[own], lengths)
            norms[k] = np.sqrt(np.square(d_h * is_active[..., None], dtype=np.float64).sum(axis=(1, 2)))
            rates = tape.layers[k].second if tape.layers[k].cell == "rate" else tape.layers[k].y
            assert rates is not None
            saturated[k] = np.mean(slope(rates[is_active]) < _FLAT * steepest)

        scratch = [np.zeros_like(d_y) for _ in range(min(n_layers, 3))]  # beyond the lengths nothing is written
        on_leaks = stack.adder(tape, gradients.arrays)
        backward(tape, d_y, d_h_n, d_h_0, None, stack.by_layer(reading.arrays), scratch, look, on_leaks=on_leaks)
    return GradientNorms(norms, saturated)


def _by_states(layer: Layer, d_y: Real, delta: Real, d_h_n: Real, lengths: Int) -> Real:
    """The gradient by a layer's states (T, B, D·H): what reaches each as output, and from the step after it or the end.

    d_y and delta, the gradient by the pre-activations, (T, B, D·H); d_h_n (D, B, H).
    """
    weight_hh, numbers = layer.weight_hh, layer.numbers
    d_h, n_rows, n_units = d_y.copy(), d_y.shape[1], weight_hh.shape[-1]
    for d in range(len(weight_hh)):
        columns = slice(d * n_units, (d + 1) * n_units)
        if layer.cell == "potential" and numbers is not None:  # of which the pre-activation is this part
            d_h[..., columns] = delta[..., columns] / numbers[d]
            continue
        through_time = delta[..., columns] @ weight_hh[d].T
        ends = lengths - 1 if d == 0 else np.zeros(n_rows, dtype=np.int64)
        d_h[ends, np.arange(n_rows), columns] += d_h_n[d]
        if d == 0:
            d_h[:-1, :, columns] += through_time[1:]
        else:
            d_h[1:, :, columns] += through_time[:-1]
        if layer.cell == "rate" and numbers is not None:  # which each step passes a part of to the one before
            _pass_on(d_h[..., columns], 1 - numbers[d], lengths, backwards=d == 1)
    return d_h


def _pass_on(d_h: Real, share: Real, lengths: Int, *, backwards: bool) -> None:
    for t in range(1, len(d_h)) if backwards else range(len(d_h) - 2, -1, -1):
        rows = lengths > (t if backwards else t + 1)
        d_h[t, rows] += share * d_h[t - 1 if backwards else t + 1, rows]
