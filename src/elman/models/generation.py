"""Sequences that a model goes on with: each output is drawn, and becomes the next input."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import check
from elman.backends.contract import Generation, Readout
from elman.data.batches import own
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Binary, Categories, Reals, finite_outputs
from elman.layer.stack import layers_of, states_of
from elman.models.network import SequenceNetwork
from elman.typing import Int, Real

_CHUNK = 64  # steps between which Ctrl-C is answered


def generate(
    network: SequenceNetwork, start: Any, length: Any, *, temperature: Any, top_k: Any, top_p: Any, end: Any, seed: Any
) -> Any:
    """What `SequenceModel.generate` returns, given its arguments."""
    outputs, first = network.kinds.outputs, _first_inputs(network, start)
    length = check.size_of_at_least(length, "length", 0)
    temperature = check.non_negative(temperature, "temperature")
    if not isinstance(outputs, Categories) and not top_k is top_p is end is None:
        check.refuse(f"top_k, top_p and end must be None for outputs that are {outputs}")
    top_k = None if top_k is None else check.positive_int(top_k, "top_k")
    top_p = None if top_p is None else check.positive_probability(top_p, "top_p")
    end = outputs.code(end, "end") if isinstance(outputs, Categories) and end is not None else None
    rng = check.generator(seed)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "end": end}
    drawn: Any = _drawn(network, first, length, rng, options)
    if isinstance(outputs, Categories):
        return outputs.named(drawn)
    return drawn.astype(np.int64) if isinstance(outputs, Binary) else drawn


def _first_inputs(network: SequenceNetwork, start: Any) -> Real | Int:
    """What `generate` begins with, as input (T, 1, ·) of the layers."""
    inputs, outputs, pattern, dtype = network.kinds
    if runs_back := network.stack.architecture.runs_back:
        check.refuse(f"generate is not possible with {runs_back}: that direction begins at the end")
    feeds_back = network.kinds.feeds_back
    if feeds_back and isinstance(inputs, Features):
        first = np.zeros((1, 1, network.kinds.input_size), dtype)
        first[0, 0, : inputs.n] = inputs.array(start, "start", dtype, ())
        return first
    if not feeds_back:
        is_input = isinstance(inputs, Features) or (isinstance(inputs, Tokens) and isinstance(outputs, Categories))
        if pattern.one_input or pattern.one_output or not is_input or outputs.n != inputs.n or not outputs.may_feed:
            check.refuse(f"generate needs outputs that are inputs, got {outputs} and {inputs}")
        if isinstance(inputs, Tokens):
            network.kinds.check_labels("generate")
    shapes = [("T",)] if isinstance(inputs, Features) else [(), ("n",)]
    steps: Real | Int = np.atleast_1d(inputs.array(start, "start", dtype, *shapes))
    return own(steps[:, None])


def _drawn(
    network: SequenceNetwork, first: Real | Int, length: int, rng: np.random.Generator, options: dict[str, Any]
) -> Real | Int:
    """What follows on `first` (T, 1, ·): outputs (length, n), or categories (length,), or fewer up to an end."""
    mode, stack, outputs = network.mode(), network.stack, network.kinds.outputs
    weights = network.reading(mode, np.arange(network.inputs.n)).weights or stack.weights_now()
    h, o = network.initial_state(1), np.empty((1, 1, outputs.n), network.kinds.dtype)
    if len(first) > 1:
        before, h = h, np.empty_like(h)
        with stack.lease(len(first) - 1, 1) as (y,):
            stack.evaluate(mode, first[:-1], before, h, y, weights=weights)
    y = np.empty((len(h), 1, *h.shape[1:]), h.dtype)
    own: dict[str, Any] = {"dynamics": stack.dynamics_now(), "seconds": [*np.empty_like(y)]}
    layers = layers_of(first[-1:].copy(), h, None, weights, [*y], mode, **own)
    readout = Readout(y[-1], *network.readout_now(), o, loss=outputs.kernel)
    is_category = isinstance(outputs, Categories)
    parts: list[Any] = [np.empty(0, np.int64) if is_category else np.empty((0, outputs.n), h.dtype)]
    is_random = options["temperature"] > 0 and not isinstance(outputs, Reals)
    for start in range(0, length, _CHUNK):
        n = min(_CHUNK, length - start)
        part = np.empty((n, *parts[0].shape[1:]), parts[0].dtype)
        uniforms = np.asarray(rng.random((n, 1 if is_category else outputs.n)), np.float64) if is_random else None
        done = mode.backend.generate(Generation(layers, readout, part, uniforms, **options))
        parts.append(part[:done])
        if done < n:
            finite_outputs(o.max(), "largest output")
            break
        h[...] = [states_of(layer)[0] for layer in layers]
    return np.concatenate(parts)
