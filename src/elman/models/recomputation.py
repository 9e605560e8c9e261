"""Exact back-propagation through sequences that are too long for a full tape: states are computed twice.

The first pass keeps the states at the beginnings of segments only. The second one goes from the last segment to the
first, computes the states of each again, and back-propagates through it (Griewank & Walther, 2008, chapter 12). Kernels
add parameters' gradients over steps descending, so they are, to the last bit, those of a tape of the whole sequence.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from elman import check
from elman.data.outputs import penalize
from elman.data.sequences import Batch
from elman.layer.parameters import Parameters
from elman.layer.rnn import stack_of
from elman.layer.stack import Mode
from elman.layer.workspace import Lease
from elman.typing import Real

if TYPE_CHECKING:
    from elman.models.sequence import SequenceModel

_MORE_STATES = 6  # (L, B, H) besides those at the beginnings of segments


def segment_length(model: SequenceModel, batch: Batch, memory: float) -> int:
    """How many steps at a time: an int is the answer; of a float, bytes, the largest number that they suffice for."""
    n_steps, n_rows = len(batch.x), int(batch.x.shape[1])
    if isinstance(memory, int):
        return memory
    rnn, width = model.rnn, stack_of(model.rnn).architecture.n_outputs
    # Arrays (T, B, D·H) of the two passes, with dropout its masks and what it leaves; the gradient by the outputs
    n_arrays = rnn.num_layers + min(rnn.num_layers, 3) + 1 + (2 * (rnn.num_layers - 1) if rnn.dropout else 0)
    of_real = int(rnn.dtype.itemsize)
    of_step = n_rows * (n_arrays * width + model.outputs.n) * of_real
    of_states = rnn.num_layers * n_rows * width * of_real
    if n_steps * of_step <= memory:
        return n_steps

    def needed(n: int) -> float:
        return n * of_step + (math.ceil(n_steps / n) + _MORE_STATES) * of_states

    least = max(1, min(n_steps, round(math.sqrt(n_steps * of_states / of_step))))  # where `needed` is smallest
    _check_memory(memory, needed(least))
    return least + bisect.bisect_right(range(least, n_steps), memory, key=needed) - 1


def differentiate(
    model: SequenceModel, mode: Mode, batch: Batch, h_0: Real, gradients: Parameters, n: int, l2: float
) -> tuple[float, Real]:
    """`SequenceModel._differentiate` with n steps at a time."""
    stack, scale = stack_of(model.rnn), model._penalty_scale(batch, l2)
    rng = stack.rng
    parts = [slice(t, min(t + n, len(batch.x))) for t in range(0, len(batch.x), n)]
    mask = stack.draw_recurrent_mask(mode, h_0.shape[1])  # for all segments
    before, draws = [h_0], [dict(rng.bit_generator.state)]  # of each segment: states, and what dropout is drawn with
    for part in parts[:-1]:
        h_n = np.empty_like(h_0)
        x, lengths = batch.x[part], _lengths(batch, part)
        with stack.forward(mode, x, before[-1], h_n, lengths=lengths, recurrent_mask=mask):
            pass  # in the memory that the second pass takes
        before.append(h_n)
        draws.append(dict(rng.bit_generator.state))
    loss, last, d_after = 0.0, h_0, None
    end_of_draws: dict[str, Any] = {}
    lease: Lease | None = None
    for part in reversed(parts):
        rng.bit_generator.state = draws.pop()
        h, h_n, d_h = before.pop(), np.empty_like(h_0), np.empty_like(h_0)
        lengths = _lengths(batch, part)
        tape = stack.forward(mode, batch.x[part], h, h_n, lengths=lengths, recurrent_mask=mask)
        if not end_of_draws:
            last, end_of_draws = h_n, dict(rng.bit_generator.state)
        if model._traits.one_output:
            d_y = None
            if d_after is None:
                loss, d_after = model._loss_of_last(mode, batch, h_n, gradients)
        else:
            lease = stack.lease(part.stop - part.start, batch.x.shape[1])
            d_y = lease.arrays[0]
            weights = None if batch.weights is None else batch.weights[part]
            y = batch.y[part]
            loss += model._readout_loss(
                mode.backend, tape.outputs[-1], y, batch.total, lengths, weights, d_y, gradients
            )
        if l2:
            if d_y is None:
                lease = stack.lease(part.stop - part.start, batch.x.shape[1])
                d_y = lease.arrays[0]
                d_y[...] = 0
            loss += penalize(tape.outputs[-1], lengths, scale, d_y)
        stack.backward(tape, d_y, d_after, d_h, None, gradients)
        d_after = d_h
        del tape, d_y  # before the next segment needs as much
        lease = None
    rng.bit_generator.state = end_of_draws
    assert d_after is not None
    model._learn_h_0(d_after, gradients)
    return loss, last


def _lengths(batch: Batch, part: slice) -> Any:
    """How many steps of a segment each row takes part in."""
    return None if batch.lengths is None else (batch.lengths - part.start).clip(0, part.stop - part.start)


def memory_limit(value: Any, name: str) -> int | float | None:
    """None; a positive int, of time steps; or a string such as "200MB", as a float of bytes."""
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9.]+) *([kMG]?)B", value)
        with contextlib.suppress(ValueError):
            if match:
                return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    elif check.is_int(value):
        return check.positive_int(value, name)
    else:
        raise TypeError(f"{name} must be None, a number of steps or a string like '200MB', got {check.shown(value)}")
    raise ValueError(f"{name} must be None, a number of steps or a string like '200MB', got {check.shown(value)}")


def _check_memory(given: float, least: float) -> None:
    if given < least:
        raise ValueError(f"memory must be at least '{least / 1e6:.3g}MB' for this batch, got '{given / 1e6:.3g}MB'")
