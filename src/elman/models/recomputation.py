"""Exact back-propagation through sequences that are too long for a full tape: states are computed twice.

The first pass keeps the states at the beginnings of segments only. The second one goes from the last segment to the
first, computes the states of each again, and back-propagates through it (Griewank & Walther, 2008, chapter 12). Kernels
add parameters' gradients over steps descending, so they are, to the last bit, those of a tape of the whole sequence;
with a leak, whose sums are cut in two, they are so to rounding.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from elman import check
from elman.data.sequences import Batch
from elman.layer.resets import Resets, in_stretch
from elman.layer.stack import Drawn, Mode, Stack
from elman.typing import Int, Real

_MORE_STATES = 6  # (L, B, H) besides those at the beginnings of segments
_STATES_OF_RESETS = 3  # those that they go back to, twice, and the gradient by them


Differentiate = Callable[..., tuple[float, Real, Real]]  # SequenceNetwork.differentiate


def segment_length(
    stack: Stack, mode: Mode, x: Real | Int, h_0: Real, n_outputs: int, memory: float, *, has_resets: bool = False
) -> int:
    """How many steps at a time: an int is the answer; of a float, bytes, the largest number that they suffice for."""
    if isinstance(memory, int):
        return memory
    n_steps, n_rows = map(int, x.shape[:2])
    n_more = _MORE_STATES + (_STATES_OF_RESETS if has_resets else 0)
    architecture = stack.architecture
    n_layers, of_states, of_real = architecture.num_layers, int(h_0.nbytes), int(h_0.itemsize)
    # Arrays (T, B, D·H) of the two passes, with what dropout leaves and cells keep; the gradient by the outputs
    n_arrays = n_layers + min(n_layers, 3) + 1 + (n_layers - 1 if mode.dropout else 0)
    n_arrays += 0 if stack.dynamics.cell == "elman" else n_layers
    n_noisy = architecture.input_size if stack.dynamics.input_noise else 0
    of_step = n_rows * (n_arrays * architecture.n_outputs + n_outputs + n_noisy) * of_real
    if n_steps * of_step <= memory:
        return n_steps

    def needed(n: int) -> float:
        return n * of_step + (math.ceil(n_steps / n) + n_more) * of_states

    least = max(1, min(n_steps, round(math.sqrt(n_steps * of_states / of_step))))  # where `needed` is smallest
    if memory < needed(least):
        sizes = f"at least '{needed(least) / 1e6:.3g}MB' for this batch, got '{memory / 1e6:.3g}MB'"
        raise ValueError(f"memory must be {sizes}")
    return least + bisect.bisect_right(range(least, n_steps), memory, key=needed) - 1


def in_segments(
    differentiate: Differentiate,
    n: int,
    stack: Stack,
    mode: Mode,
    batch: Batch,
    h_0: Real,
    resets: Resets | None,
    *into: Any,
) -> tuple[float, Real, Real]:
    """What `differentiate` makes of a batch, with n steps at a time."""
    n_steps = len(batch.x)
    starts, drawn = range(0, n_steps, n), stack.draw(mode, batch.x.shape[1], batch.keys)  # for all segments
    before = [h_0]  # of each segment
    for start in starts[:-1]:
        part, h_n = batch.stretch(start, start + n), np.empty_like(h_0)
        own, begins = _from(start, drawn), in_stretch(resets, start, start + n)
        with stack.forward(mode, part.x, before[-1], h_n, lengths=part.lengths, drawn=own, resets=begins):
            before.append(h_n)  # in the memory that the second pass takes
    loss, last, d_h_n = 0.0, h_0, None
    for start in reversed(starts):
        part, own = batch.stretch(start, min(start + n, n_steps)), _from(start, drawn)
        loss, h_n, d_h_n = differentiate(mode, part, before.pop(), *into, d_h_n=d_h_n, drawn=own, loss=loss)
        if start == starts[-1]:
            last = h_n
    assert d_h_n is not None
    return loss, last, d_h_n


def _from(start: int, drawn: Drawn | None) -> Drawn | None:
    return None if drawn is None else drawn._replace(first_step=start)


def memory_limit(value: Any, name: str) -> int | float | None:
    """None; a positive int, of time steps; or a string such as "200MB", as a float of bytes."""
    if value is None:
        return None
    if check.is_int(value):
        return check.positive_int(value, name)
    match = re.fullmatch(r"([0-9.]+) *([kMG]?)B", value) if isinstance(value, str) else None
    with contextlib.suppress(ValueError):
        if match:
            return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"{name} must be None, a number of steps or a string like '200MB', got {check.shown(value)}")
