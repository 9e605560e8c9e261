"""A stack of layers over a batch: the backend called once per layer, forward and backward.

Nothing is validated and nothing is allocated here. Shapes are those of `elman.backends.reference`, with the states of
all layers in one array (L·D, B, H).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from elman.backends.activations import Activation
from elman.backends.contract import Gradients, Layer
from elman.layer.workspace import pieces
from elman.typing import Int, Real

Weights = tuple[Real, Real, Real | None]  # one layer's weight_ih (D, I, H), weight_hh (D, H, H), bias (D, H)


class Tape(NamedTuple):
    """What a forward pass leaves for the backward pass. What `leases` holds ends with it."""

    backend: ModuleType
    activation: str | Activation
    h_0: Real
    lengths: Int | None
    inputs: list[Real | Int]  # of each layer (T, B, ·)
    outputs: list[Real]  # of each layer (T, B, D·H), before dropout
    masks: Sequence[Real]  # (T, B, D·H) each, one per layer but the last; empty without dropout
    recurrent_mask: Real | None  # (L·D, B, H)
    batch_major: bool
    leases: tuple[object, ...]

    def layer(self, k: int, own: slice, weights: Weights, h_n: Real | None) -> Layer:
        """Layer k, whose states are `own` of all."""
        mask = None if self.recurrent_mask is None else self.recurrent_mask[own]
        return Layer(self.inputs[k], self.h_0[own], *weights, self.outputs[k], h_n, self.activation, self.lengths, mask)


def forward(tape: Tape, weights: Sequence[Weights], h_n: Real) -> None:
    """Run all layers on `tape.inputs[0]`, writing h_n and the tape's outputs and, with dropout, its other inputs.

    Without dropout, the inputs of a layer are the outputs of the one below: the same arrays.
    """
    n_directions = len(h_n) // len(weights)
    for k in range(len(weights)):
        if k and tape.masks:
            drop(tape, k)
        own = slice(k * n_directions, (k + 1) * n_directions)
        tape.backend.forward(tape.layer(k, own, weights[k], h_n[own]))


def backward(
    tape: Tape,
    weights: Sequence[Weights],
    d_y: Real | None,
    d_h_n: Real | None,
    d_h_0: Real,
    d_x: Real | None,
    gradients: Sequence[Real],
    scratch: Sequence[Real],
) -> None:
    """Write d_h_0 and, unless None, d_x (T, B, I); *add* to gradients, arrays in the order of the weights'.

    scratch: as many arrays (T, B, D·H) as there are layers, at most 3.
    """
    delta, *d_inputs = scratch
    n_directions = len(d_h_0) // len(weights)
    n_arrays = 2 if weights[0][2] is None else 3
    for k in reversed(range(len(weights))):
        d_weight_ih, d_weight_hh, *d_biases = gradients[n_arrays * k : n_arrays * (k + 1)]
        own = slice(k * n_directions, (k + 1) * n_directions)
        d_input = d_inputs[k % len(d_inputs)] if k else d_x
        outputs = Gradients(
            d_y,
            None if d_h_n is None else d_h_n[own],
            delta,
            d_weight_ih,
            d_weight_hh,
            d_biases[0] if d_biases else None,
            d_h_0[own],
            d_input,
        )
        tape.backend.backward(tape.layer(k, own, weights[k], None), outputs)
        if d_input is not None and k and tape.masks:
            with np.errstate(all="ignore"):  # beyond the lengths there is anything
                for piece in pieces(d_input):
                    d_input[piece] *= tape.masks[k - 1][piece]
        d_y = d_input


def drop(tape: Tape, k: int) -> None:
    """Write layer k's inputs: what dropout leaves of the outputs below."""
    with np.errstate(all="ignore"):  # beyond the lengths there is anything
        for piece in pieces(tape.inputs[k]):
            np.multiply(tape.outputs[k - 1][piece], tape.masks[k - 1][piece], out=tape.inputs[k][piece])
