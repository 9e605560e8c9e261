"""Sequences that a model goes on with: each output is drawn, and becomes the next input.

A sequence draws from a generator of its own, so that what comes of it does not depend on those beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.backends.contract import Generation, Layer, Readout
from elman.data.batches import own
from elman.data.inputs import Features, Tokens
from elman.data.kinds import PATTERNS
from elman.data.outputs import Binary, Categories, Reals, finite_outputs
from elman.data.scaler import known
from elman.data.sequences import DataSet
from elman.layer.stack import layers_of, states_of
from elman.models.network import Network, SequenceNetwork
from elman.typing import Int, Real

_CHUNK = 64  # steps between which Ctrl-C is answered
_COLDEST = float(np.finfo(np.float64).tiny)  # what is smaller is 0 for kernels, whose threads flush subnormals


def generate(
    network: SequenceNetwork,
    start: Any,
    length: Any,
    *,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    end: Any,
    seed: Any,
    n_samples: Any,
    batch_size: Any,
) -> Any:
    """What `SequenceModel.generate` returns, given its arguments."""
    kinds = network.kinds
    _check_kinds(network)
    is_item = kinds.feeds_back and isinstance(kinds.inputs, Features)  # what a sequence begins with, or else a sequence
    are_many = _depth(start) > 1 + (isinstance(kinds.inputs, Features) and not is_item)
    are_many = are_many or (isinstance(kinds.inputs, Tokens) and kinds.inputs.are_spelled(start))
    first = None if are_many else _first_inputs(network, start)
    length = check.size_of_at_least(length, "length", 0)
    options = options_of(temperature, top_k, top_p)
    if not isinstance(kinds.outputs, Categories) and not top_k is top_p is end is None:
        check.refuse(f"top_k, top_p and end must be None for outputs that are {kinds.outputs}")
    end = kinds.outputs.code(end, "end") if isinstance(kinds.outputs, Categories) and end is not None else None
    rng, n = check.generator(seed), 1 if n_samples is None else check.size(n_samples, "n_samples")
    batch_size = check.positive_int(batch_size, "batch_size")
    options["end"] = end
    is_random = options["temperature"] > 0 and not isinstance(kinds.outputs, Reals)
    n_uniforms = (1 if isinstance(kinds.outputs, Categories) else kinds.outputs.n) if is_random else 0

    def drawn(begun: Begun, rngs: Sequence[np.random.Generator], name: Name) -> list[Any]:
        path = go_on(network, begun.repeated(n), length, Uniforms(rngs, n, n_uniforms), name, options)
        each = [path.drawn[:n_drawn, row] for row, n_drawn in enumerate(path.n_drawn)]
        if isinstance(kinds.outputs, Binary):
            each = [row.astype(np.int64) for row in each]
        elif isinstance(kinds.outputs, Categories):
            each = [kinds.outputs.named(row) for row in each]
        elif isinstance(kinds.outputs, Reals):
            each = [kinds.outputs.unscaled(row) for row in each]
        if n_samples is None:
            return each
        return [each[i : i + n] if end is not None else np.stack(each[i : i + n]) for i in range(0, len(each), n)]

    if first is not None:
        return drawn(begin(network, first), [rng], lambda *_: "largest output")[0]
    data = DataSet(start, kinds.inputs, kinds.pattern if is_item else PATTERNS["many-to-many"], kinds.dtype, "start")
    rngs = rng.spawn(len(data.lengths)) if is_random else [rng] * len(data.lengths)
    results: list[Any] = [None] * len(data.lengths)
    with data.each(data.inputs_of, batch_size) as batches:
        for rows, (x, lengths) in batches:
            begun = begin(network, _padded(network, x), lengths)
            name = named("largest output of start[{}] at step {}", rows, n)
            for row, found in zip(rows, drawn(begun, [rngs[row] for row in rows], name), strict=True):
                results[row] = found
    return results if end is not None else np.stack(results)


def options_of(temperature: Any, top_k: Any, top_p: Any) -> dict[str, Any]:
    """Fields of `Generation`, given arguments of these names."""
    temperature = check.non_negative(temperature, "temperature")
    return {
        "temperature": max(temperature, _COLDEST) if temperature > 0 else 0.0,
        "top_k": None if top_k is None else check.positive_int(top_k, "top_k"),
        "top_p": None if top_p is None else check.positive_probability(top_p, "top_p"),
    }


def _depth(value: Any, most: int = 4) -> int:
    """How many axes something has that may be a list of arrays; no more than so many are counted."""
    is_array = isinstance(value, np.ndarray)
    if most and (value.dtype == object and value.ndim > 0 if is_array else isinstance(value, (list, tuple))):
        return 1 + (_depth(value[0], most - 1) if len(value) else 0)
    shape = getattr(value, "shape", ())
    return len(shape) if isinstance(shape, tuple) else 0


def _check_kinds(network: SequenceNetwork) -> None:
    """Refuse what cannot be fed back."""
    inputs, outputs, pattern, _ = network.kinds
    if runs_back := network.stack.architecture.runs_back:
        check.refuse(f"generate is not possible with {runs_back}: that direction begins at the end")
    if not network.kinds.feeds_back:
        is_input = isinstance(inputs, Features) or (isinstance(inputs, Tokens) and isinstance(outputs, Categories))
        if pattern.one_input or pattern.one_output or not is_input or outputs.n != inputs.n or not outputs.may_feed:
            is_forecast = isinstance(inputs, Features) and isinstance(outputs, Reals) and not pattern.one_input
            cure = ": forecast feeds them back, beside what is known" if is_forecast and outputs.n <= inputs.n else ""
            check.refuse(f"generate needs outputs that are inputs, got {outputs} and {inputs}{cure}")
        if isinstance(inputs, Tokens):
            network.kinds.check_labels("generate")


def _first_inputs(network: SequenceNetwork, start: Any) -> Real | Int:
    """What `generate` begins with, as input (T, 1, ·) of the layers."""
    inputs, _, _, dtype = network.kinds
    if network.kinds.feeds_back and isinstance(inputs, Features):
        one: Real = _padded(network, inputs.scaled(inputs.array(start, "start", dtype, ()), dtype)[None, None])
        return one
    shapes = [("T",)] if isinstance(inputs, Features) else [(), ("n",)]
    steps: Real | Int = np.atleast_1d(inputs.scaled(inputs.array(start, "start", dtype, *shapes), dtype))
    return own(steps[:, None])


def _padded(network: SequenceNetwork, x: Any) -> Any:
    """With columns for what is fed back, where these come beside features."""
    n_more = network.kinds.input_size - x.shape[-1] if network.kinds.feeds_back and x.ndim == 3 else 0
    return np.concatenate([x, np.zeros((*x.shape[:2], n_more), x.dtype)], axis=2) if n_more else x


class Begun(NamedTuple):
    """Where sequences go on from."""

    h: Real  # (L, B, H): the states before their last inputs
    x: Any  # (1, B, ·): these

    def repeated(self, n: int) -> Begun:
        """Each sequence n times."""
        return self if n == 1 else Begun(np.repeat(self.h, n, axis=1), np.repeat(self.x, n, axis=1))


def begin(network: SequenceNetwork, x: Real | Int, lengths: Int | None = None) -> Begun:
    """Run over inputs (T, B, ·) but for each sequence's last one."""
    n_steps, n_rows = x.shape[:2]
    h = network.initial_state(n_rows)
    if n_steps > 1:
        before, h = h, np.empty_like(h)
        with network.stack.lease(n_steps - 1, n_rows) as (y,):
            lengths_before, mode = None if lengths is None else lengths - 1, network.mode()
            network.stack.evaluate(mode, x[:-1], before, h, y, lengths_before, weights=network.weights_fed(mode))
    return Begun(h, np.asarray(x[-1:] if lengths is None else x[lengths - 1, np.arange(n_rows)][None]))


class Uniforms(NamedTuple):
    """What rows draw with: so many numbers at each step, from the generator of their sequence, each with n samples."""

    rngs: Sequence[np.random.Generator]
    n_samples: int
    n: int  # 0 where nothing is drawn

    def next(self, n_steps: int, rows: Int) -> Real | None:
        """(T, B, n), for rows in ascending order."""
        if not self.n:
            return None
        if len(self.rngs) == self.n_samples == 1:  # where it takes a good part of the time
            return self.rngs[0].random((n_steps, 1, self.n))
        sequences, place = np.unique(rows // self.n_samples, return_inverse=True)
        blocks = [self.rngs[i].random((n_steps, self.n_samples, self.n)) for i in sequences]
        return np.concatenate(blocks, axis=1).take(place * self.n_samples + rows % self.n_samples, axis=1)


class Path(NamedTuple):
    """What has been drawn in B rows."""

    drawn: Any  # categories (N, B), or reals (N, B, n)
    n_drawn: Int  # (B,): how many of them are each row's
    outputs: Any  # (N, B, O), if they were asked for


Name = Callable[[int, int], str]  # what an output is called that is not finite, of a row and a step


def named(text: str, sequences: Int, n_samples: int) -> Name:
    """With the number of the sequence, and the step, in the text."""
    return lambda row, step: text.format(sequences[row // n_samples], step)


Sample = Callable[[Real, int], Real]  # numbers (B, n) of outputs (B, O) at a step, with which all rows go on


def go_on(
    network: Network,
    begun: Begun,
    length: int,
    uniforms: Uniforms,
    name: Name,
    options: dict[str, Any],
    *,
    beside: Real | None = None,
    sample: Sample | None = None,
    keeps_outputs: bool = False,
) -> Path:
    """At most `length` steps of B rows.

    options: fields of `Generation`; beside (length, B, E): columns of the input behind those that are fed back;
    sample: what draws numbers that no kernel draws.
    """
    steps = _Steps(network, uniforms, name, options, beside, sample, keeps_outputs)
    parts = [*steps.run(begun, length)]
    if len(parts) == 1:
        ((_, _, drawn, outputs, done),) = parts
        return Path(drawn[: done.max()], done, outputs[: done.max()] if keeps_outputs else None)
    n_drawn = np.zeros(begun.x.shape[1], np.int64)
    for part in parts:
        n_drawn[part.rows] += part.done
    most = int(n_drawn.max(initial=0))

    def whole(each: list[Any], empty: Any) -> Any:
        array = np.zeros((most, len(n_drawn), *empty.shape[2:]), empty.dtype)
        for part, values in zip(parts, each, strict=True):
            array[part.start : part.start + len(values), part.rows] = values[: most - part.start]
        return array

    drawn, outputs = steps.room(0, 0)
    own_outputs = whole([part.outputs for part in parts], outputs) if keeps_outputs else None
    return Path(whole([part.drawn for part in parts], drawn), n_drawn, own_outputs)


class _Part(NamedTuple):
    """Some steps, from that number on, of the rows that had not ended."""

    start: int
    rows: Int
    drawn: Any
    outputs: Any
    done: Int  # how many of these are each row's


class _Steps(NamedTuple):
    """What steps are made with."""

    network: Network
    uniforms: Uniforms
    name: Name
    options: dict[str, Any]
    beside: Real | None
    sample: Sample | None
    keeps_outputs: bool

    def run(self, begun: Begun, length: int) -> Iterator[_Part]:
        """Some steps at a time, until all rows have ended, which are left out from then on."""
        network, (h, x), rows = self.network, begun, np.arange(begun.x.shape[1])
        mode, each = network.mode(), _CHUNK if self.sample is None else 1
        layered = network.weights_fed(mode), network.stack.dynamics_now(), network.readout_now()
        affine = _affine(network)
        layers, readout, before = _layers(mode, layered, h, x, network.predicted)
        for start in range(0, length if len(rows) else 0, each):
            n = min(each, length - start)
            drawn, outputs = self.room(n, len(rows))
            beside = None if self.beside is None else self.beside[start : start + n].take(rows, axis=1)
            own = {"uniforms": self.uniforms.next(n, rows), "outputs": outputs, "beside": beside, "affine": affine}
            g = Generation(layers, readout, drawn, **own, **self.options)
            done, x = mode.backend.generate(g), layers[0].x
            goes_on = done == n
            has_ended = not goes_on.all()
            if has_ended:
                self._check_ends(g, done, start, rows)
            if self.sample is not None:
                drawn[0] = self.sample(outputs[0], start)
                fed = drawn[0] if affine is None else drawn[0] * affine[0] + affine[1]
                x[0, :, : fed.shape[1]] = fed
            yield _Part(start, rows, drawn, outputs, done)
            for k, layer in enumerate(layers):
                before[k] = states_of(layer)[0]
            if has_ended:
                rows = rows[goes_on]
                if not len(rows):
                    return
                own_layers = _layers(mode, layered, before[:, goes_on], x[:, goes_on], network.predicted)
                layers, readout, before = own_layers

    def _check_ends(self, g: Generation, done: Int, start: int, rows: Int) -> None:
        """Say so where a row has ended because what it had drawn was not finite."""
        are_numbers = isinstance(self.network.predicted, Reals)
        for b in np.flatnonzero(done < len(g.drawn)):
            name, o = self.name(int(rows[b]), start + int(done[b])), g.readout.o[0, b]
            finite_outputs(o if are_numbers else o.max(), name)
            if are_numbers:
                finite_outputs(g.drawn[done[b], b], name)

    def room(self, n_steps: int, n_rows: int) -> tuple[Any, Any]:
        """For what is drawn, and for outputs, if they are looked at."""
        outputs, dtype = self.network.predicted, self.network.parameters.flat.dtype
        are_looked_at = self.keeps_outputs or self.sample is not None
        o = np.empty((n_steps, n_rows, outputs.n_units), dtype) if are_looked_at else None
        if isinstance(outputs, Categories):
            return np.empty((n_steps, n_rows), np.int64), o
        return np.empty((n_steps, n_rows, outputs.n), dtype), o


def _affine(network: Network) -> Real | None:
    """What makes of outputs the inputs that they are fed back as, where these have another scaler (2, n)."""
    if not isinstance(network, SequenceNetwork):
        return None
    (inputs, outputs, _, dtype), n = network.kinds, network.kinds.outputs.n
    if network.kinds.feeds_back or inputs.scaler is outputs.scaler is None:
        return None
    (mean, scale), (of_o, scale_of_o) = (
        (np.zeros(n), np.ones(n)) if scaler is None else (each[:n] for each in known(scaler))
        for scaler in (inputs.scaler, outputs.scaler)
    )
    made = np.array([scale_of_o / scale, (of_o - mean) / scale])
    return None if (made == [[1], [0]]).all() else made.astype(dtype)


def _layers(mode: Any, layered: Any, h: Real, x: Any, outputs: Any) -> tuple[list[Layer], Readout, Real]:
    """Those of one step of rows with copies of states (L, B, H) and inputs (1, B, ·); the states, to be written."""
    weights, dynamics, (weight, bias) = layered
    y, before = np.empty((len(h), 1, *h.shape[1:]), h.dtype), h.copy(order="C")
    of_leaks: dict[str, Any] = {"dynamics": dynamics, "seconds": [*np.empty_like(y)]}
    layers = layers_of(x.copy(order="C"), before, None, weights, [*y], mode, **of_leaks)
    o = np.empty((1, h.shape[1], outputs.n_units), h.dtype)
    return layers, Readout(y[-1], weight, bias, o, loss=outputs.kernel), before
