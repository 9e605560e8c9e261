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
from elman.backends.reference import CELLS
from elman.layer import constraints
from elman.layer.architecture import Architecture
from elman.layer.constraints import Factors
from elman.layer.dynamics import INPUT_STREAM, Dynamics, OfLayer, add_by_logits, mixed
from elman.layer.parameters import Parameters, layout
from elman.layer.resets import Resets, in_stretch, with_resets
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
    """Where a pass has dropout and noise from: what is drawn for a unit depends on these and on its place, no more."""

    key: int = 0  # of dropout, 64 bits
    first_step: int = 0  # of a stretch of a longer sequence, which draws what the whole does
    keys: Int | None = None  # (B,), each row's of the noise; None for none


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
    dynamics: Sequence[OfLayer] = (),
    seconds: Sequence[Real] = (),
) -> list[Layer]:
    """The layers of one pass. Those above the first read the outputs (T, B, D·H) below, or what dropout leaves of them.

    h_0, h_n and recurrent_mask have the states of all layers, (L·D, B, H). Without `drawn`, kernels drop nothing. What
    leaky cells keep goes to `seconds` (T, B, D·H).
    """
    n, layers = len(weights), []
    for k, of_layer in enumerate(weights):
        before, after, mask = _own(h_0, k, n), _own(h_n, k, n), _own(recurrent_mask, k, n)
        layer = _quick(Layer, (x, before, *of_layer, outputs[k], after, mode.activation, lengths, mask, *_PLAIN))
        x = outputs[k]
        if k < len(dropped):
            x = dropped[k]
            if drawn is not None and mode.dropout:
                layer = layer._replace(dropped=x, dropout=mode.dropout, key=drawn.key, layer=k)
                layer = layer._replace(first_step=drawn.first_step)
        if dynamics:
            cell, numbers, noise = dynamics[k]
            if cell != "elman":
                layer = layer._replace(cell=cell, numbers=numbers, second=seconds[k])
            if noise is not None and drawn is not None and drawn.keys is not None:
                layer = layer._replace(noise=noise, keys=drawn.keys, layer=k, first_step=drawn.first_step)
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
    on_leaks: Callable[[int, Real, Real | None], None] | None = None,
    lowest: int = 0,
    d_h_reset: Real | None = None,
) -> None:
    """Write d_h_0 and, unless None, d_x (T, B, I); *add* to gradients, arrays like the weights', unless None.

    scratch: as many arrays (T, B, D·H) as there are layers, at most 3. After each layer k, `look` is called with k,
    the gradient by its outputs and that by its pre-activations, both (T, B, D·H); what is beyond the lengths is left
    as it was in scratch. What comes between layers besides kernels changes the gradient by the inputs of layer k, in
    `pass_on`. Where leaks are learned, `on_leaks` is called with k and the gradients of each row by α and by σ √(2/α),
    both (D, B, H). What reaches the states of resets is added to d_h_reset (L, B, H). Of layers below the `lowest`, and
    of their states, there are no gradients.
    """
    delta, *d_inputs = scratch
    n = len(gradients)
    for k in range(n - 1, lowest - 1, -1):
        d_input = d_x if k == 0 else d_inputs[k % len(d_inputs)] if k > lowest else None
        layer, own, further = tape.layers[k], _own(d_h_0, k, n), _NOTHING_FURTHER
        if layer.cell != "elman" or on_leaks is not None:
            further = _room_of_leaks(layer, own, is_learned=on_leaks is not None)
        values = d_y, _own(d_h_n, k, n), delta, *gradients[k], own, d_input, *further, _own(d_h_reset, k, n)
        tape.mode.backend.backward(layer, _quick(Gradients, values))
        if on_leaks is not None:
            on_leaks(k, *further[1:])
        if look is not None:
            look(k, d_y, delta)
        if pass_on is not None and k and d_input is not None:
            pass_on(k, d_input)
        d_y = d_input


def states_of(layer: Layer) -> Real:
    """What has gone from step to step in a pass, (T, B, D·H)."""
    return layer.second if CELLS[layer.cell].state_is_second and layer.second is not None else layer.y


def outputs_of(mode: Mode, states: Real) -> Layer:
    """A layer whose y (1, B, D·H) is f of states (D, B, H), with the bits that kernels give it.

    It has one step, in which row b reads token b, whose weights are its states.
    """
    n_directions, n_rows, n_units = states.shape
    weight_hh = np.zeros((n_directions, n_units, n_units), states.dtype)
    tokens, y = np.arange(n_rows, dtype=np.int64)[None], np.empty((1, n_rows, n_directions * n_units), states.dtype)
    layer = Layer(tokens, np.zeros_like(states), states, weight_hh, None, y, None, mode.activation)
    mode.backend.forward(layer)
    return layer


def add_by_states(into: Real, mode: Mode, layer: Layer, d_y: Real) -> None:
    """Add the gradient by the states of `outputs_of`, (D, B, H), given that by its y."""
    sums = into, np.zeros_like(layer.weight_hh), None
    mode.backend.backward(layer, Gradients(d_y, None, np.empty_like(d_y), *sums, np.empty_like(into), None))


_NOTHING_FURTHER: Any = None, None, None


def _room_of_leaks(layer: Layer, like: Real, *, is_learned: bool) -> Any:
    """carry, d_numbers and d_noise of `Gradients`, (D, B, H)."""
    is_leaky = layer.cell != "elman"
    d_numbers = np.zeros_like(like) if is_learned and is_leaky else None
    d_noise = np.zeros_like(like) if is_learned and layer.noise is not None else None
    return np.empty_like(like) if is_leaky else None, d_numbers, d_noise


class Stack:
    """Layers on their parameters, with memory to run in. It can be used from several threads at once."""

    architecture: Architecture
    parameters: Parameters  # they begin with the layers' entries; a model's go on
    weights: list[Weights]  # of each layer, live
    dynamics: Dynamics
    factors: Factors  # what makes of the weights those that act, none where they are the same
    rng: np.random.Generator  # what dropout is drawn with
    workspace: Workspace

    __slots__ = (
        "_extents",
        "_fixed_dynamics",
        "_is_large",
        "_of_one_direction",
        "_places",
        "_size",
        "architecture",
        "dynamics",
        "factors",
        "parameters",
        "rng",
        "weights",
        "workspace",
    )

    def __init__(
        self,
        architecture: Architecture,
        parameters: Parameters,
        rng: np.random.Generator,
        dynamics: Dynamics,
        factors: Factors,
    ) -> None:
        self.architecture, self.parameters, self.rng, self.dynamics = architecture, parameters, rng, dynamics
        self.factors = factors
        self._extents = architecture.n_entries, architecture.n_entries // architecture.num_layers  # of layers' arrays
        self.weights = self.by_layer(parameters.arrays)
        self._of_one_direction = _of_one_direction(self.weights)
        self.workspace = Workspace(parameters.flat.dtype)
        entries = parameters.entries[: architecture.n_entries]
        self._size, places = layout(entries, parameters.flat.dtype)
        self._places = [(entry.names, *place, len(place[1]) == 3) for entry, place in zip(entries, places, strict=True)]
        self._is_large = architecture.n_parameters > 1 << 12  # else it does not matter where an array begins
        is_plain = dynamics.cell == "elman" and not dynamics.is_noisy
        self._fixed_dynamics = None if dynamics.is_learned else () if is_plain else self._dynamics_with(None)

    def by_layer(self, arrays: Sequence[Real]) -> list[Weights]:
        """Arrays that lie as the parameters do: those of each layer."""
        has_bias, (n, each) = self.architecture.bias, self._extents
        return [(arrays[i], arrays[i + 1], arrays[i + 2] if has_bias else None) for i in range(0, n, each)]

    def weights_now(self) -> list[Weights]:
        """Each layer's weights as they act."""
        if not self.factors:
            return self.weights
        return self.by_layer(constraints.effective(self.factors, self.parameters.arrays[: self._extents[0]]))

    def effective_weights(self) -> dict[str, Real]:
        """Copies of the layers' parameters, weights as they act, by name as users see them."""
        return constraints.named(self.factors, self.parameters, self._extents[0])

    def chain(self, gradients: Sequence[Real]) -> None:
        """Make of gradients by weights that act, which lie like parameters, those by the parameters, in place."""
        constraints.chain(self.factors, gradients, self.parameters.arrays)

    def leaks_of(self, arrays: Sequence[Real]) -> Sequence[Real]:
        """Of such arrays those that stand for the logits of leaks, (D, H) for each layer; none if they are fixed."""
        n, each = self._extents
        return arrays[each - 1 : n : each] if self.dynamics.is_learned else _NOTHING

    def adder(self, tape: Tape, arrays: Sequence[Real]) -> Callable[[int, Real, Real | None], None] | None:
        """The `on_leaks` of `backward` that adds to gradients, which lie like parameters; None if leaks are fixed."""
        d_logits = self.leaks_of(arrays)
        if all(one is None for one in d_logits):
            return None

        def add(k: int, *d_leaks: Any) -> None:
            if d_logits[k] is not None:
                add_by_logits(d_logits[k], tape.layers[k].numbers, tape.layers[k].noise, *d_leaks)

        return add

    def lowest_of(self, gradients: Sequence[Real | None]) -> int:
        """The lowest layer of which a gradient is wanted, L where none is; they lie like parameters."""
        n, each = self._extents
        return next((i for i in range(n) if gradients[i] is not None), n) // each

    def dynamics_now(self) -> Sequence[OfLayer]:
        """What kernels get of each layer's, nothing where that is Elman's without noise."""
        fixed = self._fixed_dynamics
        return self._dynamics_with(self.leaks_of(self.parameters.arrays)) if fixed is None else fixed

    def _dynamics_with(self, logits: Sequence[Real] | None) -> Sequence[OfLayer]:
        (n_directions, _, n_units), dtype = self.weights[0][1].shape, self.parameters.flat.dtype
        of_layer, shape = self.dynamics.of_layer, (n_directions, n_units)
        return [
            of_layer(k, dtype, shape, None if logits is None else logits[k])
            for k in range(self.architecture.num_layers)
        ]

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
        drawn: Drawn | None = None,
        resets: Resets | None = None,
        weights: Sequence[Weights] | None = None,
    ) -> None:
        """Run all layers over x (T, B, I) or tokens (T, B), writing h_n (L·D, B, H) and y (T, B, D·H): no dropout.

        What is `batch_major` lies in memory as (B, T, ·). There is noise where it is `drawn`. `weights` are those that
        act, where the caller has them.
        """
        dynamics, weights = self.dynamics_now(), weights or self.weights_now()
        if len(self.weights) == 1 and not dynamics:
            layers = layers_of(x, h_0, h_n, weights, (y,), mode, lengths)
            mode.backend.forward(*self._placed(layers, resets))
            return
        (n_steps, n_rows, n_columns), n_inner = y.shape, len(self.weights) - 1
        x, n_seconds = self._with_noise(mode, x, drawn), 0 if self.dynamics.cell == "elman" else 1
        n_buffers = min(n_inner, 2)
        with self.workspace.lease(n_buffers + n_seconds, n_steps, n_rows, n_columns, batch_major) as buffers:
            outputs = [*(buffers[k % n_buffers] for k in range(n_inner)), y]  # the buffers take turns
            seconds = buffers[n_buffers:] * len(self.weights)
            own = drawn, dynamics, seconds
            layers = layers_of(x, h_0, h_n, weights, outputs, mode, lengths, None, (), *own)
            for layer in self._placed(layers, resets):
                mode.backend.forward(layer)

    def _placed(self, layers: list[Layer], resets: Resets | None) -> list[Layer]:
        """The layers of a pass in their direction, which alone has resets."""
        if self.architecture.reverse:
            return [layer._replace(reverse=True) for layer in layers]
        return with_resets(layers, resets)

    def _with_noise(self, mode: Mode, x: Any, drawn: Drawn | None) -> Any:
        """What the first layer reads."""
        if self.dynamics.input_noise == 0 or drawn is None or drawn.keys is None:
            return x
        noisy = np.empty(x.shape, x.dtype)
        mode.backend.normals(noisy, drawn.keys, stream=INPUT_STREAM, first_step=drawn.first_step)
        noisy *= x.dtype.type(self.dynamics.input_scale)
        noisy += x
        return noisy

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
        resets: Resets | None = None,
        weights: Sequence[Weights] | None = None,
    ) -> Tape:
        """`evaluate` with dropout, all that `backward` needs being kept.

        Without y, the last layer's outputs lie in leased memory too, and there is room for their gradient, `tape.d_y`.
        What dropout is `drawn` from is drawn itself, unless it is given.
        """
        n_inner, n_seconds, drops, recurrent_mask, d_y = len(self.weights) - 1, 0, False, None, None
        dynamics = self._fixed_dynamics
        if dynamics is None or dynamics or mode.dropout or mode.recurrent_dropout:
            dynamics, n_seconds = self.dynamics_now(), 0 if self.dynamics.cell == "elman" else len(self.weights)
            drops, drawn = n_inner > 0 and mode.dropout > 0, drawn or self.draw(mode, x.shape[1])
            if mode.recurrent_dropout and drawn is not None:
                recurrent_mask = self._recurrent_mask(mode, drawn.key, x.shape[1])
            x = self._with_noise(mode, x, drawn)
        count = n_seconds + n_inner * (2 if drops else 1) + (0 if y is not None else 2)
        buffers: list[Real] = []
        leases: tuple[Lease, ...] = ()
        if count:
            leases = (self.workspace.lease(count, x.shape[0], x.shape[1], self.architecture.n_outputs, batch_major),)
            buffers = leases[0].arrays
        seconds = _NOTHING
        if n_seconds:
            seconds, buffers = buffers[:n_seconds], buffers[n_seconds:]
        if y is None:
            *_, y, d_y = buffers
        outputs, dropped = [*buffers[:n_inner], y], buffers[n_inner : 2 * n_inner] if drops else _NOTHING
        weights = weights or self.weights_now()
        layers = layers_of(
            x, h_0, h_n, weights, outputs, mode, lengths, recurrent_mask, dropped, drawn, dynamics, seconds
        )
        tape = _quick(Tape, (mode, self._placed(layers, resets), batch_major, leases, d_y))
        forward(tape)
        return tape

    def backward(
        self,
        tape: Tape,
        d_y: Real | None,
        d_h_n: Real | None,
        d_h_0: Real,
        d_x: Real | None,
        gradients: Sequence[Any],
        d_h_reset: Real | None = None,
        lowest: int = 0,
        direction: int | None = None,
    ) -> None:
        """Write d_h_0 (L·D, B, H) and, unless None, d_x (T, B, I); *add* to gradients, which lie like parameters.

        And to d_h_reset (L, B, H) what reaches the states of resets. Gradients are those by the weights as they act:
        when all is added, `chain` makes of them those by the parameters. Where one is None, nobody wants it; and none
        of layers below the `lowest`, nor of their states. Of one layer in both directions, it may be one `direction`.
        """
        if lowest == len(self.weights):
            return
        if direction is not None:
            tape, own, columns = _one_way(tape, direction)
            d_y, d_h_n = None if d_y is None else d_y[..., columns], None if d_h_n is None else d_h_n[own]
            d_h_0 = d_h_0[own]
            gradients = [None if array is None else array[own] for array in gradients]
        y = tape.layers[0].y
        count, by_layer, on_leaks = min(len(self.weights), 3), self.by_layer(gradients), self.adder(tape, gradients)
        if y.size <= SMALL:
            scratch = [np.empty(y.shape, y.dtype) for _ in range(count)]
            backward(tape, d_y, d_h_n, d_h_0, d_x, by_layer, scratch, None, None, on_leaks, lowest, d_h_reset)
            return
        n_steps, n_rows, n_columns = y.shape
        with self.workspace.lease(count, n_steps, n_rows, n_columns, tape.batch_major) as scratch:
            backward(tape, d_y, d_h_n, d_h_0, d_x, by_layer, scratch, None, None, on_leaks, lowest, d_h_reset)

    def step(
        self,
        mode: Mode,
        x_t: Real | Int,
        h: Real,
        h_next: Real,
        drawn: Drawn | None = None,
        weights: Sequence[Weights] | None = None,
    ) -> Real:
        """One time step of one direction: x_t (B, I) or tokens (B,), h (L, B, H); writes h_next (L, B, H).

        `weights` are those that act, where the caller has them. Returns the last layer's outputs (B, H).
        """
        if self.dynamics.cell != "elman" or drawn is not None or self.factors:
            y: Real = np.empty((1, *h.shape[1:]), h.dtype)
            self.evaluate(mode, x_t[None], h, h_next, y, drawn=drawn, weights=weights)
            return y.reshape(h.shape[1:])
        of_one_direction = self._of_one_direction if weights is None else _of_one_direction(weights)
        for k, (weight_ih, weight_hh, bias) in enumerate(of_one_direction):
            mode.backend.step(x_t, h[k], weight_ih, weight_hh, bias, h_next[k], activation=mode.activation)
            x_t = h_next[k]
        return h_next[-1]  # type: ignore[no-any-return]

    def last_states(
        self,
        mode: Mode,
        x: Real | Int,
        h_0: Real,
        lengths: Int | None,
        batch_major: bool = False,
        drawn: Drawn | None = None,
        resets: Resets | None = None,
        weights: Sequence[Weights] | None = None,
    ) -> Real:
        """The h_n of `evaluate`, in memory that does not grow with T.

        Where several layers run in both directions, each needs the outputs of the one below from both ends: it grows.
        So it does where leaky ones do.
        """
        (n_steps, n_rows), weights = x.shape[:2], weights or self.weights_now()
        h, h_n = np.empty_like(h_0), h_0.copy()
        if self.architecture.bidirectional and not self.dynamics_now() and self.architecture.num_layers == 1:
            return self._last_states_both_ways(mode, x, h_0, lengths, *weights)
        if self.architecture.bidirectional:
            columns = self.architecture.n_outputs
            with self.workspace.lease(1, n_steps, n_rows, columns, batch_major) as (y,):
                self.evaluate(mode, x, h_0, h_n, y, lengths, batch_major, drawn, None, weights)
            return h_n
        with self.lease(min(n_steps, _STRETCH), n_rows) as (y,):
            for start, part, part_lengths in stretches(x, lengths, self.architecture.reverse):
                h, h_n = h_n, h
                own = None if drawn is None else drawn._replace(first_step=drawn.first_step + start)
                begins = in_stretch(resets, start, start + len(part))
                self.evaluate(mode, part, h, h_n, y[: len(part)], part_lengths, False, own, begins, weights)
        return h_n

    def _last_states_both_ways(
        self, mode: Mode, x: Real | Int, h_0: Real, lengths: Int | None, of_layer: Weights
    ) -> Real:
        """Of one layer: one direction over the stretches, then the other from the last one."""
        (weight_ih, weight_hh, bias), last = of_layer, np.empty_like(h_0)
        with self.workspace.lease(1, min(len(x), _STRETCH), x.shape[1], self.architecture.hidden_size) as (y,):
            for d in range(2):
                own = slice(d, d + 1)
                weights = weight_ih[own], weight_hh[own], None if bias is None else bias[own]
                h, h_n = np.empty_like(h_0[own]), h_0[own].copy()
                for _, part, own_lengths in stretches(x, lengths, d == 1):
                    h, h_n = h_n, h
                    outputs = y[: len(part)]
                    layer = Layer(part, h, *weights, outputs, h_n, mode.activation, own_lengths, reverse=d == 1)
                    mode.backend.forward(layer)
                last[own] = h_n
        return last

    def draw(self, mode: Mode, n_rows: int, keys: Int | None = None) -> Drawn | None:
        """What dropout and noise of a pass are drawn from, if it has some; keys are the noise's, if they are given."""
        drops = mode.recurrent_dropout > 0 or (mode.dropout > 0 and len(self.weights) > 1)
        if not (drops or self.dynamics.is_noisy):
            return None
        key = self._draw_key() if drops else 0
        if self.dynamics.is_noisy and keys is None:
            keys = mixed(self._draw_key(), np.arange(n_rows)).view(np.int64)
        return Drawn(key, keys=keys if self.dynamics.is_noisy else None)

    def _draw_key(self) -> int:
        return int(self.rng.integers(1 << 64, dtype=np.uint64))

    def _recurrent_mask(self, mode: Mode, key: int, n_rows: int) -> Real:
        """What states are multiplied by on their way to the next step: (L·D, B, H) of 0 or 1 / (1 - p)."""
        mask = np.empty(self.architecture.state_shape(n_rows), self.parameters.flat.dtype)
        for k in range(n := len(self.weights)):
            mode.backend.recurrent_mask(_own(mask, k, n), p=mode.recurrent_dropout, key=key, layer=k)
        return mask


def _of_one_direction(weights: Sequence[Weights]) -> list[Weights]:
    """Without the axis of directions, of which there is one, or the first is meant."""
    return [(ih[0], hh[0], None if bias is None else bias[0]) for ih, hh, bias in weights]


def _one_way(tape: Tape, direction: int) -> tuple[Tape, slice, slice]:
    """The tape of one layer in both directions as that of one; and what this has of arrays (D, ·), and of columns.

    Noise is that of the first direction, which matters where kernels draw it again.
    """
    layer, own = tape.layers[0], slice(direction, direction + 1)
    n_units = layer.h_0.shape[2]
    columns = slice(direction * n_units, (direction + 1) * n_units)
    given = {name: array for name in _OF_DIRECTIONS if (array := getattr(layer, name)) is not None}
    parts = {name: array[..., columns] if name in ("y", "second") else array[own] for name, array in given.items()}
    return tape._replace(layers=[layer._replace(**parts, h_n=None, reverse=direction == 1)]), own, columns


_OF_DIRECTIONS = "h_0", "weight_ih", "weight_hh", "bias", "mask", "numbers", "noise", "y", "second"


def stretches(x: Real | Int, lengths: Int | None, backwards: bool) -> Iterator[tuple[int, Real | Int, Int | None]]:
    """Where stretches of x begin, the stretches, and how many steps of each a sequence takes part in."""
    starts = range(0, len(x), _STRETCH)
    for start in reversed(starts) if backwards else starts:
        part = x[start : start + _STRETCH]
        yield start, part, clipped(lengths, start, len(part))
