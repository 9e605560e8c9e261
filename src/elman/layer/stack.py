"""Layers above one another over a batch: the backend called once per layer, forward and backward.

Nothing is validated here. Shapes are those of `elman.backends.contract`, with the states of all layers in one array
(L·D, B, H). `forward` and `backward` work in memory that they are given, a `Stack` in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from elman.backends.activations import Activation
from elman.backends.contract import Gradients, Layer
from elman.layer.architecture import Architecture
from elman.layer.parameters import Parameters, layout
from elman.layer.workspace import SMALL, Lease, Workspace, aligned_zeros
from elman.lengths import clipped
from elman.typing import Int, Real

Weights = tuple[Real, Real, Real | None]  # one layer's weight_ih (D, I, H), weight_hh (D, H, H), bias (D, H)
_PLAIN = tuple(Layer._field_defaults.values())[2:]  # what follows lengths and mask
_NOTHING: Sequence[Real] = ()
_quick = tuple.__new__  # of a NamedTuple: its own constructor takes three times as long, as a small call has time for
_STRETCH = 64  # time steps that `last_states` runs at once: packing the weights for them costs 1 % of the work


class Mode(NamedTuple):
    """How a call computes. An `RNN` lets all of it be set at any time, so it is read once, when the call begins."""

    backend: ModuleType
    activation: str | Activation
    dropout: float = 0.0  # between layers
    recurrent_dropout: float = 0.0


class Drawn(NamedTuple):
    """Where a pass has its dropout from: what is drawn for a unit depends on these and on its place, nothing else."""

    key: int  # 64 bits
    first_step: int = 0  # of a stretch of a longer sequence, which draws what the whole does


class Tape(NamedTuple):
    """What a forward pass leaves for the backward pass; its memory is leased, for as long as a `with` block."""

    mode: Mode
    layers: Sequence[Layer]  # each with what it has read and written
    batch_major: bool = False
    leases: Sequence[Lease] = ()
    d_y: Real | None = None  # room for the gradient by the last outputs, where these are leased

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *_: object) -> None:
        for lease in self.leases:
            lease.release()


def layers_of(
    x: Real | Int,
    h_0: Real,
    h_n: Real | None,
    weights: Sequence[Weights],
    outputs: Sequence[Real],
    mode: Mode,
    lengths: Int | None = None,
    recurrent_mask: Real | None = None,
    dropped: Sequence[Real] = (),
    drawn: Drawn | None = None,
) -> list[Layer]:
    """The layers of one pass. Those above the first read the outputs (T, B, D·H) below, or what dropout leaves of them.

    h_0, h_n and recurrent_mask have the states of all layers, (L·D, B, H). Without `drawn`, kernels drop nothing.
    """
    n, layers = len(weights), []
    for k, of_layer in enumerate(weights):
        before, after, mask = _own(h_0, k, n), _own(h_n, k, n), _own(recurrent_mask, k, n)
        layer = _quick(Layer, (x, before, *of_layer, outputs[k], after, mode.activation, lengths, mask, *_PLAIN))
        x = outputs[k]
        if k < len(dropped):
            x = dropped[k]
            if drawn is not None:
                layer = layer._replace(dropped=x, dropout=mode.dropout, key=drawn.key, layer=k)
                layer = layer._replace(first_step=drawn.first_step)
        layers.append(layer)
    return layers


def _own(states: Any, k: int, n_layers: int) -> Any:
    """Layer k's of the states (L·D, B, H)."""
    if n_layers == 1 or states is None:
        return states
    n = len(states) // n_layers
    return states[k * n : (k + 1) * n]


def forward(tape: Tape) -> None:
    """Run all layers, each of which writes its outputs and last states and, with dropout, the inputs of the next."""
    for layer in tape.layers:
        tape.mode.backend.forward(layer)


def backward(
    tape: Tape,
    d_y: Real | None,
    d_h_n: Real | None,
    d_h_0: Real,
    d_x: Real | None,
    gradients: Sequence[Weights],
    scratch: Sequence[Real],
    look: Callable[[int, Real | None, Real], None] | None = None,
    pass_on: Callable[[int, Real], None] | None = None,
) -> None:
    """Write d_h_0 and, unless None, d_x (T, B, I); *add* to gradients, arrays like the weights'.

    scratch: as many arrays (T, B, D·H) as there are layers, at most 3. After each layer k, `look` is called with k,
    the gradient by its outputs and that by its pre-activations, both (T, B, D·H); what is beyond the lengths is left
    as it was in scratch. What comes between layers besides kernels changes the gradient by the inputs of layer k, in
    `pass_on`.
    """
    delta, *d_inputs = scratch
    n = len(gradients)
    for k in range(n - 1, -1, -1):
        d_input = d_inputs[k % len(d_inputs)] if k else d_x
        values = d_y, _own(d_h_n, k, n), delta, *gradients[k], _own(d_h_0, k, n), d_input, None
        tape.mode.backend.backward(tape.layers[k], _quick(Gradients, values))
        if look is not None:
            look(k, d_y, delta)
        if pass_on is not None and k and d_input is not None:
            pass_on(k, d_input)
        d_y = d_input


class Stack:
    """Layers on their parameters, with memory to run in. It can be used from several threads at once."""

    architecture: Architecture
    parameters: Parameters  # they begin with the layers' entries; a model's go on
    weights: list[Weights]  # of each layer, live
    rng: np.random.Generator  # what dropout is drawn with
    workspace: Workspace

    __slots__ = (
        "_is_large",
        "_of_one_direction",
        "_places",
        "_size",
        "architecture",
        "parameters",
        "rng",
        "weights",
        "workspace",
    )

    def __init__(self, architecture: Architecture, parameters: Parameters, rng: np.random.Generator) -> None:
        self.architecture, self.parameters, self.rng = architecture, parameters, rng
        self.weights = self.by_layer(parameters.arrays)
        self._of_one_direction = [(ih[0], hh[0], None if bias is None else bias[0]) for ih, hh, bias in self.weights]
        self.workspace = Workspace(parameters.flat.dtype)
        entries = parameters.entries[: architecture.n_entries]
        self._size, places = layout(entries, parameters.flat.dtype)
        self._places = [(entry.names, *place, len(place[1]) == 3) for entry, place in zip(entries, places, strict=True)]
        self._is_large = architecture.n_parameters > 1 << 12  # else it does not matter where an array begins

    def by_layer(self, arrays: Sequence[Real]) -> list[Weights]:
        """Arrays that lie as the parameters do: those of each layer."""
        n, architecture = self.architecture.num_layers, self.architecture
        if architecture.bias:
            return [(arrays[i], arrays[i + 1], arrays[i + 2]) for i in range(0, 3 * n, 3)]
        return [(arrays[i], arrays[i + 1], None) for i in range(0, 2 * n, 2)]

    def zeros(self) -> tuple[list[Real], dict[str, Real]]:
        """Room for gradients by the layers' parameters, for a caller to keep: for kernels, and as users see it."""
        arrays, named, dtype = [], {}, self.workspace.dtype
        flat = aligned_zeros((self._size,), dtype) if self._is_large else None
        for names, place, shape, is_matrix in self._places:
            array = np.zeros(shape, dtype) if flat is None else flat[place].reshape(shape)
            arrays.append(array)
            for d, name in enumerate(names):
                named[name] = array[d].T if is_matrix else array[d]
        return arrays, named

    def lease(self, n_steps: int, n_rows: int) -> Lease:
        """One array (T, B, D·H), as outputs and their gradients have it, with arbitrary content."""
        return self.workspace.lease(1, n_steps, n_rows, self.architecture.n_outputs)

    def evaluate(
        self,
        mode: Mode,
        x: Real | Int,
        h_0: Real,
        h_n: Real,
        y: Real,
        lengths: Int | None = None,
        batch_major: bool = False,
    ) -> None:
        """Run all layers over x (T, B, I) or tokens (T, B), writing h_n (L·D, B, H) and y (T, B, D·H): no dropout.

        What is `batch_major` lies in memory as (B, T, ·).
        """
        if len(self.weights) == 1:
            mode.backend.forward(*layers_of(x, h_0, h_n, self.weights, (y,), mode, lengths))
            return
        (n_steps, n_rows, n_columns), n_inner = y.shape, len(self.weights) - 1
        with self.workspace.lease(min(n_inner, 2), n_steps, n_rows, n_columns, batch_major) as buffers:
            outputs = [*(buffers[k % len(buffers)] for k in range(n_inner)), y]  # the buffers take turns
            for layer in layers_of(x, h_0, h_n, self.weights, outputs, mode, lengths):
                mode.backend.forward(layer)

    def forward(
        self,
        mode: Mode,
        x: Real | Int,
        h_0: Real,
        h_n: Real,
        y: Real | None = None,
        lengths: Int | None = None,
        *,
        drawn: Drawn | None = None,
        batch_major: bool = False,
    ) -> Tape:
        """`evaluate` with dropout, all that `backward` needs being kept.

        Without y, the last layer's outputs lie in leased memory too, and there is room for their gradient, `tape.d_y`.
        What dropout is `drawn` from is drawn itself, unless it is given.
        """
        n_inner, drops, recurrent_mask, d_y = len(self.weights) - 1, False, None, None
        if mode.dropout or mode.recurrent_dropout:
            drops, drawn = n_inner > 0 and mode.dropout > 0, drawn or self.draw(mode)
            if mode.recurrent_dropout and drawn is not None:
                recurrent_mask = self._recurrent_mask(mode, drawn.key, x.shape[1])
        count = n_inner * (2 if drops else 1) + (0 if y is not None else 2)
        buffers: list[Real] = []
        leases: tuple[Lease, ...] = ()
        if count:
            leases = (self.workspace.lease(count, x.shape[0], x.shape[1], self.architecture.n_outputs, batch_major),)
            buffers = leases[0].arrays
        if y is None:
            *_, y, d_y = buffers
        outputs, dropped = [*buffers[:n_inner], y], buffers[n_inner : 2 * n_inner] if drops else _NOTHING
        layers = layers_of(x, h_0, h_n, self.weights, outputs, mode, lengths, recurrent_mask, dropped, drawn)
        tape = _quick(Tape, (mode, layers, batch_major, leases, d_y))
        forward(tape)
        return tape

    def backward(
        self, tape: Tape, d_y: Real | None, d_h_n: Real | None, d_h_0: Real, d_x: Real | None, gradients: Sequence[Real]
    ) -> None:
        """Write d_h_0 (L·D, B, H) and, unless None, d_x (T, B, I); *add* to gradients, which lie like parameters."""
        y = tape.layers[0].y
        count, by_layer = min(len(self.weights), 3), self.by_layer(gradients)
        if y.size <= SMALL:
            backward(tape, d_y, d_h_n, d_h_0, d_x, by_layer, [np.empty(y.shape, y.dtype) for _ in range(count)])
            return
        n_steps, n_rows, n_columns = y.shape
        with self.workspace.lease(count, n_steps, n_rows, n_columns, tape.batch_major) as scratch:
            backward(tape, d_y, d_h_n, d_h_0, d_x, by_layer, scratch)

    def step(self, backend: ModuleType, activation: str | Activation, x_t: Real | Int, h: Real, h_next: Real) -> None:
        """One time step of one direction: x_t (B, I) or tokens (B,), h (L, B, H); writes h_next (L, B, H)."""
        for k, (weight_ih, weight_hh, bias) in enumerate(self._of_one_direction):
            backend.step(x_t, h[k], weight_ih, weight_hh, bias, h_next[k], activation=activation)
            x_t = h_next[k]

    def last_states(self, mode: Mode, x: Real, h_0: Real, lengths: Int | None, batch_major: bool = False) -> Real:
        """The h_n of `evaluate`, in memory that does not grow with T.

        Where several layers run in both directions, each needs the outputs of the one below from both ends: it grows.
        """
        n_steps, n_rows = x.shape[:2]
        h, h_n = np.empty_like(h_0), h_0.copy()
        if self.architecture.bidirectional and self.architecture.num_layers > 1:
            columns = self.architecture.n_outputs
            with self.workspace.lease(1, n_steps, n_rows, columns, batch_major) as (y,):
                self.evaluate(mode, x, h_0, h_n, y, lengths, batch_major)
            return h_n
        if self.architecture.bidirectional:
            return self._last_states_both_ways(mode, x, h_0, lengths)
        with self.lease(min(n_steps, _STRETCH), n_rows) as (y,):
            for part, part_lengths in _stretches(x, lengths):
                h, h_n = h_n, h
                self.evaluate(mode, part, h, h_n, y[: len(part)], part_lengths)
        return h_n

    def _last_states_both_ways(self, mode: Mode, x: Real, h_0: Real, lengths: Int | None) -> Real:
        """Of one layer: one direction over the stretches, then the other from the last one."""
        ((weight_ih, weight_hh, bias),), last = self.weights, np.empty_like(h_0)
        with self.workspace.lease(1, min(len(x), _STRETCH), x.shape[1], self.architecture.hidden_size) as (y,):
            for d in range(2):
                own = slice(d, d + 1)
                weights = weight_ih[own], weight_hh[own], None if bias is None else bias[own]
                h, h_n = np.empty_like(h_0[own]), h_0[own].copy()
                for part, own_lengths in _stretches(x, lengths, backwards=d == 1):
                    h, h_n = h_n, h
                    outputs = y[: len(part)]
                    layer = Layer(part, h, *weights, outputs, h_n, mode.activation, own_lengths, reverse=d == 1)
                    mode.backend.forward(layer)
                last[own] = h_n
        return last

    def draw(self, mode: Mode) -> Drawn | None:
        """What the dropout of a pass is drawn from, if it has some."""
        if not (mode.recurrent_dropout or (mode.dropout and len(self.weights) > 1)):
            return None
        return Drawn(int(self.rng.integers(1 << 64, dtype=np.uint64)))

    def _recurrent_mask(self, mode: Mode, key: int, n_rows: int) -> Real:
        """What states are multiplied by on their way to the next step: (L·D, B, H) of 0 or 1 / (1 - p)."""
        mask = np.empty(self.architecture.state_shape(n_rows), self.parameters.flat.dtype)
        for k in range(n := len(self.weights)):
            mode.backend.recurrent_mask(_own(mask, k, n), p=mode.recurrent_dropout, key=key, layer=k)
        return mask


def _stretches(x: Real, lengths: Int | None, *, backwards: bool = False) -> Iterator[tuple[Real, Int | None]]:
    """Stretches of x and how many steps of each a sequence takes part in."""
    starts = range(0, len(x), _STRETCH)
    for start in reversed(starts) if backwards else starts:
        part = x[start : start + _STRETCH]
        yield part, clipped(lengths, start, len(part))
