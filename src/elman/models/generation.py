"""Sequences that a model goes on with: each output is drawn, and becomes the next input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from elman import check
from elman.backends.contract import Readout
from elman.data.batches import own
from elman.data.inputs import Features
from elman.data.outputs import Binary, Categories
from elman.models.network import SequenceNetwork
from elman.typing import Int, Real


def generate(
    network: SequenceNetwork, start: Any, length: Any, *, temperature: Any, top_k: Any, top_p: Any, end: Any, seed: Any
) -> Real | Int:
    """What `SequenceModel.generate` returns, given its arguments."""
    outputs, first = network.kinds.outputs, _first_inputs(network, start)
    length = check.size_of_at_least(length, "length", 0)
    temperature = check.non_negative(temperature, "temperature")
    if not isinstance(outputs, Categories) and not top_k is top_p is end is None:
        check.refuse(f"top_k, top_p and end must be None for outputs that are {outputs}")
    top_k = None if top_k is None else check.positive_int(top_k, "top_k")
    top_p = None if top_p is None else check.positive_probability(top_p, "top_p")
    end = None if end is None else check.below(end, "end", outputs.n)
    rng = check.generator(seed)
    drawn: list[Any] = []
    for o in _outputs_one_by_one(network, first, length, lambda: drawn[-1]):
        item = outputs.draw(o, rng, temperature, (top_k, top_p))
        if end is not None and item == end:
            break
        drawn.append(item)
    if isinstance(outputs, Categories):
        return np.array(drawn, dtype=np.int64)
    dtype = np.int64 if isinstance(outputs, Binary) else network.kinds.dtype
    return np.array(drawn, dtype).reshape(-1, outputs.n)


def _first_inputs(network: SequenceNetwork, start: Any) -> Real | Int:
    """What `generate` begins with, as input (T, 1, ·) of the layers."""
    inputs, outputs, pattern, dtype = network.kinds
    if network.stack.architecture.bidirectional:
        check.refuse("generate is not possible with bidirectional=True: that direction begins at the end")
    feeds_back = network.kinds.feeds_back
    if feeds_back and isinstance(inputs, Features):
        first = np.zeros((1, 1, network.kinds.input_size), dtype)
        first[0, 0, : inputs.n] = inputs.array(start, "start", dtype, ())
        return first
    if not feeds_back:
        is_input = isinstance(inputs, Features) or isinstance(outputs, Categories)
        if pattern.one_input or pattern.one_output or not is_input or outputs.n != inputs.n:
            check.refuse(f"generate needs outputs that are inputs, got {outputs} and {inputs}")
    shapes = [("T",)] if isinstance(inputs, Features) else [(), ("n",)]
    steps: Real | Int = np.atleast_1d(inputs.array(start, "start", dtype, *shapes))
    return own(steps[:, None])


def _outputs_one_by_one(
    network: SequenceNetwork, first: Real | Int, length: int, drawn: Callable[[], Any]
) -> Iterator[Real]:
    """Outputs (n,) after `first` (T, 1, ·), and then after each of what was `drawn` from those before."""
    mode, stack, outputs = network.mode(), network.stack, network.kinds.outputs
    h = network.initial_state(1)
    h_next, o = np.empty_like(h), np.empty((1, 1, outputs.n), h.dtype)
    with stack.lease(len(first), 1) as (y,):
        stack.evaluate(mode, first, h, h_next, y)
    weight, bias = network.readout_of(network.parameters)
    x_t = np.zeros_like(first[0])
    n_given = network.kinds.inputs.n if network.kinds.feeds_back else 0  # features beside what is fed back
    for i in range(length):
        if i and x_t.ndim == 1:
            x_t[0] = drawn()
        elif i:
            outputs.feed(np.asarray(drawn()), x_t[0, n_given:])
        if i:
            stack.step(mode.backend, mode.activation, x_t, h, h_next)
        h, h_next = h_next, h
        mode.backend.readout(Readout(h[-1:], weight, bias, o))
        yield o[0, 0]
