"""Forward mode: how outputs and states move when inputs, initial states and parameters do.

A tangent of a layer goes through the steps as a gradient does, the other way round. Of Elman's cell, with what moves a
step's pre-activation from outside,

    u[t] = weight_ih d_x[t] + d_weight_ih x[t] + d_weight_hh h[t−1] + d_bias,

it is d_h[t] = f'(h[t]) ∘ (u[t] + weight_hh d_h[t−1]), and what `backward` computes is delta[t] = f'(h[t]) ∘ (d_y[t] +
weight_hhᵀ delta[t+1]): the same recurrence, transposed and reversed in time. So the kernel of the one is that of the
other (Williams & Zipser, 1989, carry such tangents along for each weight; here there is one for each direction asked
for).

Of leaky cells it is the *other* one's, as one is leaky behind f and the other before it. With α weight_hh / α (each
column's leak over each row's) for weight_hh:

- rate: d_h[t] = (1 − α) d_h[t−1] + α f'(r[t]) ∘ (u[t] + weight_hh d_h[t−1]) is what "potential" carries back if
  d_y = α u and its outputs are the rates r; its delta is α d_h.
- potential: d_v[t] = (1 − α) d_v[t−1] + α (u[t] + weight_hh d_y[t−1]) is what "rate" carries back if its rates are y;
  its delta is α d_y. It does not say what d_v is, but for the one after the last step, as d_h_0: the kernel runs to the
  step before that, and the last one is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.backends.contract import Gradients, Layer, Readout
from elman.layer.forms import Call, items_of
from elman.layer.jacobian import functions_of
from elman.layer.stack import Drawn, Mode, Stack, Tape, outputs_of, stretches
from elman.typing import Int, Real

_ROWS = 96  # so many run at once at most: a product of the kernels has no more (csrc/plan.h), and y is copied for them
Own = Mapping[str, Real]  # of one layer's direction: tangents of parameters (K, *shape), by "weight_ih" and so on


class Moves(NamedTuple):
    """K tangents of what a pass depends on."""

    n: int  # K
    d_x: Sequence[Real] | None  # K of (T, B, I)
    d_h_0: Real  # (K, L·D, B, H)
    d_params: Mapping[str, Real]  # (K, *shape), by the names of `RNN.parameters`; those that are missing are zero


def effective_tangents(stack: Stack, d_params: Mapping[str, Real]) -> Mapping[str, Real]:
    """Tangents of the weights as they act (`Stack.weights_now`), from those of the parameters, by their names."""
    found = dict(d_params)
    for i, factor in stack.factors.items():
        for name, weight in zip(stack.parameters.entries[i].names, stack.parameters.arrays[i], strict=True):
            if name in found:
                tangent = found[name].swapaxes(1, 2).copy()  # (K, from, to)
                factor.chain(tangent, weight)
                found[name] = tangent.swapaxes(1, 2)
    return found


# ---- arguments of `RNN.jvp`


def moves_of(call: Call, stack: Stack, shapes: Mapping[str, Any], d_x: Any, d_h_0: Any, d_params: Any) -> Moves:
    """Validated; shapes: those of the parameters, by name."""
    own: Any = {} if d_params is None else d_params
    check.some_of(own, "d_params", shapes)
    form = call.h_0.shape[::2] if call.form == "single" else call.h_0.shape
    inputs = {} if d_x is None else _inputs(call, d_x)
    moving = inputs | ({} if d_h_0 is None else {"d_h_0": (d_h_0, form)})
    moving |= {f"d_params[{name!r}]": (value, shapes[name]) for name, value in own.items()}
    if not moving:
        raise ValueError("d_x, d_h_0 and d_params must not all be None: pass the tangent of what moves")
    n: int | str = "K"  # what it is in the first of them
    arrays = {}
    for name, (value, shape) in moving.items():
        arrays[name] = check.real_array(value, name, call.x.dtype, (n, *shape), allow_empty=0 in shape, contiguous=True)
        n = len(arrays[name])
    assert isinstance(n, int)
    states = np.zeros((n, *call.h_0.shape), call.x.dtype)
    if d_h_0 is not None:
        states = arrays["d_h_0"].reshape(states.shape)
    named = {name: arrays[f"d_params[{name!r}]"] for name in own}
    of_x = None if d_x is None else _over_time(call, [arrays[name] for name in inputs])
    return Moves(n, of_x, states, effective_tangents(stack, named))


def _inputs(call: Call, d_x: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """What there is of d_x, by name, and the shapes that it must have, without K."""
    n_steps, n_rows, n_inputs = call.x.shape
    if call.form != "list":
        steps = {"single": (n_steps,), "batch_major": (n_rows, n_steps)}.get(call.form, (n_steps, n_rows))
        return {"d_x": (d_x, (*steps, n_inputs))}
    assert call.lengths is not None
    pairs = zip(items_of(d_x, "d_x", n_rows), call.lengths.tolist(), strict=True)
    return {f"d_x[{b}]": (value, (length, n_inputs)) for b, (value, length) in enumerate(pairs)}


def _over_time(call: Call, arrays: Sequence[Real]) -> list[Real]:
    """K of (T, B, I)."""
    if call.form != "list":
        (d_x,) = arrays
        return list(d_x[:, :, None] if call.form == "single" else d_x.swapaxes(1, 2) if call.batch_major else d_x)
    n_steps, n_rows, n_inputs = call.x.shape
    gathered = np.zeros((len(arrays[0]), n_rows, n_steps, n_inputs), call.x.dtype)
    for b, one in enumerate(arrays):
        gathered[:, b, : one.shape[1]] = one
    return list(gathered.swapaxes(1, 2))


def shown_over_time(call: Call, d_y: Real, n: int) -> Any:
    """A (T, K·B, ·) as the caller knows it, K in front."""
    steps = d_y.reshape(len(d_y), n, -1, d_y.shape[2]).swapaxes(0, 1)  # (K, T, B, ·)
    if call.form == "list":
        assert call.lengths is not None
        return [steps[:, :length, b] for b, length in enumerate(call.lengths.tolist())]
    return steps[:, :, 0] if call.form == "single" else steps.swapaxes(1, 2) if call.batch_major else steps


def shown_states(call: Call, d_h: Real) -> Real:
    """A (K, L·D, B, H) as the caller knows it."""
    return d_h[:, :, 0] if call.form == "single" else d_h


# ---- passes


def over_time(stack: Stack, mode: Mode, call: Call, moves: Moves, drawn: Drawn | None) -> tuple[Real, Real, Real, Real]:
    """y (T, B, D·H) and h_n (L·D, B, H) of a plain call, and their tangents (T, K·B, D·H) and (K, L·D, B, H)."""
    y = call.empty(stack.architecture.n_outputs)
    own: Any = {"y": y, "drawn": drawn or Drawn(), "batch_major": call.batch_major}
    return through(stack, mode, call.x, call.h_0, call.lengths, moves, **own)


def through(
    stack: Stack,
    mode: Mode,
    x: Real | Int,
    h_0: Real,
    lengths: Int | None,
    moves: Moves,
    *,
    y: Real | None = None,
    drawn: Drawn = Drawn(),  # noqa: B008 - it cannot change
    batch_major: bool = False,
) -> tuple[Any, Real, Real, Real]:
    """The same, from what `Stack.forward` takes; y is written unless it is None."""
    h_n, plain = np.empty_like(h_0), mode._replace(dropout=0.0, recurrent_dropout=0.0)
    with stack.forward(plain, x, h_0, h_n, y, lengths, drawn=drawn, batch_major=batch_major) as tape:
        return y, h_n, *of_tape(tape, moves, batch_major)


def last(stack: Stack, mode: Mode, call: Call, moves: Moves, drawn: Drawn | None) -> tuple[Real, Real]:
    """h_n and its tangents. In one direction, no more steps than a stretch are kept at a time."""
    h, architecture = call.h_0, stack.architecture
    parts = stretches(call.x, call.lengths, architecture.reverse)
    for start, x, lengths in [(0, call.x, call.lengths)] if architecture.bidirectional else parts:
        d_x = None if moves.d_x is None else [one[start : start + len(x)] for one in moves.d_x]
        own = (drawn or Drawn())._replace(first_step=start)
        _, h, _, d_h = through(stack, mode, x, h, lengths, moves._replace(d_x=d_x), drawn=own)
        moves = moves._replace(d_h_0=d_h)
    return h, moves.d_h_0


def of_tape(tape: Tape, moves: Moves, batch_major: bool = False) -> tuple[Real, Real]:
    """Tangents of the last layer's outputs (T, K·B, D·H), and of all last states (K, L·D, B, H)."""
    (n_steps, n_rows, n_columns), d_h_n = tape.layers[-1].y.shape, np.empty_like(moves.d_h_0)
    shape = (moves.n * n_rows, n_steps, n_columns) if batch_major else (n_steps, moves.n * n_rows, n_columns)
    d_y = np.zeros(shape, d_h_n.dtype)  # kernels leave alone what is beyond the lengths
    d_y = d_y.swapaxes(0, 1) if batch_major else d_y
    n = max(1, _ROWS // n_rows)
    for first in range(0, moves.n, n):
        end = min(first + n, moves.n)
        with np.errstate(all="ignore"):  # what is beyond the lengths is computed with, and may be anything
            d_h_n[first:end] = _group(tape, _between(moves, first, end), d_y[:, first * n_rows : end * n_rows])
    return d_y, d_h_n


def _between(moves: Moves, first: int, end: int) -> Moves:
    """Some of the tangents."""
    own = slice(first, end)
    d_params = {name: one[own] for name, one in moves.d_params.items()}
    return Moves(end - first, None if moves.d_x is None else moves.d_x[own], moves.d_h_0[own], d_params)


def _group(tape: Tape, moves: Moves, d_y: Real) -> Real:
    """Tangents that run as rows beside one another: those of the last outputs are written, of states returned."""
    n, d_inputs, d_h_0, d_params = moves
    d_h_n, (n_directions, _, n_units) = np.empty_like(d_h_0), tape.layers[0].weight_hh.shape
    for k, layer in enumerate(tape.layers):
        out = d_y if k == len(tape.layers) - 1 else np.zeros(d_y.shape, d_y.dtype)
        for d in range(n_directions):
            i, suffix = k * n_directions + d, f"_l{k}" + ("_reverse" if d else "")
            own = {name[: -len(suffix)]: one for name, one in d_params.items() if name.endswith(suffix)}
            pass_ = _Pass(tape.mode, direction_of(layer, d), n, d, own)
            d_h_n[:, i] = pass_.run(d_inputs, d_h_0[:, i], out[..., d * n_units : (d + 1) * n_units])
        d_inputs = split(out, n)
    return d_h_n


def split(rows: Real, n: int) -> list[Real]:
    """A (T, K·B, ·) as K views (T, B, ·)."""
    n_rows = rows.shape[1] // n
    return [rows[:, k * n_rows : (k + 1) * n_rows] for k in range(n)]


def direction_of(layer: Layer, d: int) -> Layer:
    """One direction of a layer, as a layer of one; in bias, numbers and noise (1, H)."""

    def own(array: Real | None) -> Any:
        return None if array is None else array[d : d + 1]

    n = layer.weight_hh.shape[1]
    columns = slice(d * n, (d + 1) * n)
    h_0, weight_ih, weight_hh, bias, numbers, noise = map(
        own, (layer.h_0, layer.weight_ih, layer.weight_hh, layer.bias, layer.numbers, layer.noise)
    )
    second = None if layer.second is None else layer.second[..., columns]
    arrays = {"h_0": h_0, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
    further = {"numbers": numbers, "noise": noise, "second": second, "y": layer.y[..., columns], "h_n": None}
    return layer._replace(**arrays, **further, reverse=layer.reverse or d == 1)


class _Pass:
    """K tangents of one direction of a layer that has run, as rows k·B + b."""

    def __init__(self, mode: Mode, layer: Layer, n: int, d: int, own: Own) -> None:
        self.mode, self.layer, self.n, self.d, self.own = mode, layer, n, d, own
        self.n_steps, self.n_rows, self.n_units = layer.y.shape
        self.dtype = layer.y.dtype
        self.lengths = None if layer.lengths is None else np.tile(layer.lengths, n)
        self.leak: Any = 1 if layer.numbers is None else layer.numbers[0]  # α (H,)

    def run(self, d_inputs: Sequence[Real] | None, d_h_0: Real, d_y: Real) -> Real:
        """Write the tangents of outputs d_y (T, K·B, H), and return those of the last states (K, B, H)."""
        start, cell = d_h_0.reshape(1, -1, self.n_units), self.layer.cell
        of_cell = {"elman": self._elman, "rate": self._rate, "potential": self._potential}[cell]
        last: Real = of_cell(self._parts(d_inputs), start, d_y).reshape(d_h_0.shape)
        return last

    # The cells: from what moves pre-activations besides the states, and d_h_0 (1, K·B, H), as `run`

    def _elman(self, parts: Any, start: Real, d_y: Real) -> Real:
        weight = self.layer.weight_hh[0]
        self._back("elman", weight, self._driven(parts), d_y, y=self.layer.y, d_h_n=self._product(start, weight))
        return self._last_of(d_y, start)

    def _rate(self, parts: Any, start: Real, d_y: Real) -> Real:
        layer, weight, added = self.layer, self.layer.weight_hh[0] * self.leak, None
        assert layer.second is not None
        if "leak" in self.own:  # d_h = d_h′ + E, E being what moving leaks have added up to
            added = self._added_by_leaks(layer.second - self._before(layer.y, layer.h_0[0]))
            parts = [*parts, (split(self._before(added, 0, tiled=True), self.n), [layer.weight_hh[0]] * self.n)]
        driven = self._driven(parts)
        rows, first = self._ends(is_last=False)
        driven[first, rows] += self._product(start, weight)[0, rows]
        self._back("potential", self._crossed(), driven, d_y, y=layer.second, d_h_n=(1 - self.leak) * start)
        d_y /= self.leak
        if added is not None:
            d_y += added
        return self._last_of(d_y, start)

    def _added_by_leaks(self, differences: Real) -> Real:
        """E[t] = (1 − α) E[t−1] + d_α (r[t] − h[t−1]), (T, K·B, H), by a layer without weights whose f is 1."""
        steps, n_units = self._room(zero=True), self.n_units
        for one, d_logits in zip(split(steps, self.n), self.own["leak"], strict=True):
            np.multiply(differences, d_logits * self.leak * (1 - self.leak), out=one)
        added = self._room(zero=True)
        nothing = np.zeros((n_units, n_units), self.dtype)
        self._back("potential", nothing, steps, added, y=self.layer.y, d_h_n=None, activation="identity")
        added /= self.leak
        return added

    def _potential(self, parts: Any, start: Real, d_y: Real) -> Real:
        layer, weight = self.layer, self.layer.weight_hh[0] * self.leak
        assert layer.second is not None
        driven, (_, slope) = self._driven(parts), functions_of(self.mode.activation)
        if "leak" in self.own:
            differences = layer.second - self._before(layer.second, layer.h_0[0])
            for one, d_logits in zip(split(driven, self.n), self.own["leak"], strict=True):
                one += (1 - self.leak) * d_logits * differences
        outputs = np.tile(slope(outputs_of(self.mode, layer.h_0).y), (1, self.n, 1)) * start
        rest = (1 - self.leak) * start + self._product(outputs, weight)  # of the state before, in the state after
        if self.n_steps > 1:
            inner = slice(1, None) if layer.reverse else slice(-1)
            lengths = None if self.lengths is None else (self.lengths - 1).clip(0)
            into = driven[inner], d_y[inner]
            given = {"y": layer.y[inner], "d_h_n": rest, "lengths": lengths}
            rest = self._back("rate", self._crossed(), *into, **given)
            d_y /= self.leak
        rows, last = self._ends(is_last=True)
        d_v = start.copy()
        d_v[0, rows] = rest[0, rows] + driven[last, rows]
        d_y[last, rows] = slope(layer.y[last, rows % self.n_rows]) * d_v[0, rows]
        return d_v

    # What they are made of

    def _parts(self, d_inputs: Sequence[Real] | None) -> list[tuple[Sequence[Real], Sequence[Real]]]:
        """Pairs of K inputs (T, B, n) and K weights (n, H), whose products move the pre-activations."""
        layer, own, parts = self.layer, self.own, list[Any]()
        if d_inputs is not None:
            parts.append((d_inputs, [layer.weight_ih[0]] * self.n))
        if "weight_ih" in own and layer.x.ndim == 3:
            parts.append(([layer.x] * self.n, list(own["weight_ih"].swapaxes(1, 2))))
        if "weight_hh" in own:
            start = outputs_of(self.mode, layer.h_0).y if layer.cell == "potential" else layer.h_0
            parts.append(([self._before(layer.y, start[0])] * self.n, list(own["weight_hh"].swapaxes(1, 2))))
        return parts

    def _driven(self, parts: Sequence[tuple[Sequence[Real], Sequence[Real]]]) -> Real:
        """α u (T, K·B, H): what moves pre-activations besides the states, one product for each tangent."""
        driven, nothing = self._room(zero=not parts), np.zeros((self.n, self.n_units), self.dtype)
        d_bias = self.own.get("bias", nothing) * self.leak
        for k, out in enumerate(split(driven, self.n)):
            if parts:
                inputs, weights = [each[k] for each, _ in parts], [each[k] for _, each in parts]
                x = inputs[0]
                if len(parts) > 1:  # in an order that follows that of the inputs
                    x = np.ascontiguousarray(np.concatenate(inputs, axis=2))
                weight = np.concatenate(weights) * self.leak if len(parts) > 1 else weights[0] * self.leak
                weight = np.ascontiguousarray(weight, self.dtype)
                bias = np.ascontiguousarray(d_bias[k]) if "bias" in self.own else None
                self.mode.backend.readout(Readout(x, weight, bias, out))
            else:
                out += d_bias[k]
        if (
            "weight_ih" in self.own and self.layer.x.ndim == 2
        ):  # a token selects a row, and beyond the lengths it is any
            for out, weight in zip(split(driven, self.n), self.own["weight_ih"], strict=True):
                out += (weight.T * self.leak).take(self.layer.x, axis=0, mode="clip")
        if "leak" in self.own and self.layer.noise is not None:
            self._move_noise(driven)
        return driven

    def _move_noise(self, driven: Real) -> None:
        """σ √(2/α) moves with α, too."""
        layer, xi = self.layer, np.empty((self.n_steps, self.n_rows, self.n_units), self.dtype)
        assert layer.keys is not None
        assert layer.noise is not None
        stream = 4 * layer.layer + 2 * self.d
        self.mode.backend.normals(xi, layer.keys, stream=stream, first_step=layer.first_step)
        for out, d_logits in zip(split(driven, self.n), self.own["leak"], strict=True):
            out -= (self.leak * (1 - self.leak) / 2 * layer.noise[0] * d_logits) * xi

    def _crossed(self) -> Real:
        """weight_hh (H, H) for the other cell's kernel: its delta are α times the tangents."""
        crossed: Real = self.layer.weight_hh[0] * (self.leak / self.leak[:, None])
        return crossed

    def _back(
        self,
        cell: str,
        weight: Real,
        driven: Real,
        delta: Real,
        *,
        y: Real,
        d_h_n: Real | None,
        lengths: Int | None = None,
        activation: Any = None,
    ) -> Real:
        """`backward` of a layer with the transposed weights, which runs the other way; writes delta, returns d_h_0."""
        n_steps, n_rows, n_units = driven.shape
        if self.n > 1:
            y = np.broadcast_to(y[:, None], (n_steps, self.n, self.n_rows, n_units)).reshape(driven.shape)
        x = np.broadcast_to(np.zeros((1, 1, 1), self.dtype), (n_steps, n_rows, 1))
        states = np.zeros((1, n_rows, n_units), self.dtype)
        transposed, f = np.ascontiguousarray(weight.T, self.dtype)[None], activation or self.mode.activation
        layer = Layer(x, states, np.zeros((1, 1, n_units), self.dtype), transposed, None, y, None, f)
        own = self.lengths if lengths is None else lengths
        layer = layer._replace(lengths=own, reverse=not self.layer.reverse, cell=cell)
        carry, d_h_0 = None, np.empty_like(states)
        if cell != "elman":
            layer, carry = layer._replace(numbers=self.layer.numbers, second=y), np.empty_like(states)
        self.mode.backend.backward(layer, Gradients(driven, d_h_n, delta, None, None, None, d_h_0, None, carry))
        return d_h_0

    def _product(self, rows: Real, weight: Real) -> Real:
        """(1, K·B, H) times (H, H)."""
        out = np.empty_like(rows)
        self.mode.backend.readout(Readout(rows, np.ascontiguousarray(weight, self.dtype), None, out))
        return out

    def _room(self, *, zero: bool) -> Real:
        return (np.zeros if zero else np.empty)((self.n_steps, self.n * self.n_rows, self.n_units), self.dtype)

    def _ends(self, *, is_last: bool) -> tuple[Int, Int]:
        """Of the rows that have steps, K·B together: which they are, and each one's first or last step."""
        n = self.n * self.n_rows
        lengths = np.full(n, self.n_steps) if self.lengths is None else self.lengths
        rows = np.flatnonzero(lengths)
        return rows, lengths[rows] - 1 if is_last != self.layer.reverse else np.zeros_like(rows)

    def _before(self, over_time: Real, start: Any, *, tiled: bool = False) -> Real:
        """For each step what there was before it in this direction: of arrays (T, B, H), or `tiled` (T, K·B, H)."""
        before = np.empty(over_time.shape, self.dtype)
        if not self.layer.reverse:
            before[0], before[1:] = start, over_time[:-1]
            return before
        before[-1], before[:-1] = start, over_time[1:]
        rows, first = self._ends(is_last=False)
        if not tiled:
            own = rows < self.n_rows
            rows, first = rows[own], first[own]
        before[first, rows] = start if np.ndim(start) == 0 else start[rows]
        return before

    def _last_of(self, d_y: Real, start: Real) -> Real:
        """Each row's own last, or where it has no steps what it begins with: (1, K·B, H)."""
        rows, last = self._ends(is_last=True)
        found = start.copy()
        found[0, rows] = d_y[last, rows]
        return found
