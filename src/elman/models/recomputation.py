"""Exact back-propagation through sequences that are too long for a full tape: states are computed twice.

The first pass keeps the states at the beginnings of segments only. The second one goes from the last segment to the
first, computes the states of each again, and back-propagates through it (Griewank & Walther, 2008, chapter 12). Kernels
add parameters' gradients over steps descending, so they are, to the last bit, those of a tape of the whole sequence;
with a leak, whose sums are cut in two, they are so to rounding.

A layer that runs in both directions needs a third pass. What comes back to a step depends on the states of both, which
come from either end, and goes on through each in its own order.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.data.sequences import Batch
from elman.layer.resets import Resets, in_stretch
from elman.layer.rnn import RNN, stack_of
from elman.layer.stack import Drawn, Mode, Stack
from elman.models.reading import Reading
from elman.typing import Int, Real

_MORE_STATES = 6  # (L·D, B, H) besides those at the beginnings of segments
_STATES_OF_RESETS = 3  # those that they go back to, twice, and the gradient by them


Differentiate = Callable[..., tuple[float, Real, Real]]  # as SequenceNetwork.differentiate
OfLast = Callable[[Real], tuple[float, Real]]  # the loss of the last states (L·D, B, H), and its gradient by them


class Cost(NamedTuple):
    """What a pass with recomputation takes, in bytes."""

    n_steps: int
    of_step: int
    of_states: int
    n_more: int  # states besides those at the beginnings of segments

    @classmethod
    def of(cls, stack: Stack, mode: Mode, x: Real | Int, n_outputs: int = 0, *, has_resets: bool = False) -> Cost:
        """That of a batch x (T, B, ·), with so many outputs of a readout."""
        (n_steps, n_rows), architecture = map(int, x.shape[:2]), stack.architecture
        n_layers, of_real = architecture.num_layers, stack.workspace.dtype.itemsize
        # Arrays (T, B, D·H) of the two passes, with what dropout leaves and cells keep; the gradient by the outputs
        n_arrays = n_layers + min(n_layers, 3) + 1 + (n_layers - 1 if mode.dropout else 0)
        n_arrays += 0 if stack.dynamics.cell == "elman" else n_layers
        n_noisy = architecture.input_size if stack.dynamics.input_noise else 0
        of_step = n_rows * (n_arrays * architecture.n_outputs + n_outputs + n_noisy) * of_real
        n_more = _MORE_STATES + (_STATES_OF_RESETS if has_resets else 0)
        return cls(n_steps, of_step, math.prod(architecture.state_shape(n_rows)) * of_real, n_more)

    @property
    def of_all(self) -> int:
        """With all steps at a time."""
        return self.n_steps * self.of_step

    @property
    def least(self) -> int:
        """With as many steps at a time as take least."""
        return min(self.of_all, self._of(self._best))

    @property
    def _best(self) -> int:
        return max(1, min(self.n_steps, round(math.sqrt(self.n_steps * self.of_states / self.of_step))))

    def _of(self, n: int) -> int:
        return n * self.of_step + (math.ceil(self.n_steps / n) + self.n_more) * self.of_states

    def longest(self, memory: float) -> int:
        """The most steps at a time for which so many bytes, no less than the least, suffice."""
        if self.of_all <= memory:
            return self.n_steps
        return self._best + bisect.bisect_right(range(self._best, self.n_steps), memory, key=self._of) - 1


def segment_lengths(costs: Sequence[Cost], memory: float) -> list[int]:
    """How many steps at a time in each of some passes whose memory is there at once.

    memory: an int is the answer; a float is bytes, of which each gets what it needs least, and a part of the rest.
    """
    if isinstance(memory, int):
        return [memory for _ in costs]
    needed, of_all = sum(cost.least for cost in costs), sum(cost.of_all for cost in costs)
    if memory < needed:
        sizes = f"at least '{needed / 1e6:.3g}MB' for this batch, got '{memory / 1e6:.3g}MB'"
        raise ValueError(f"memory must be {sizes}")
    return [cost.longest(cost.least + (memory - needed) * cost.of_all / of_all) for cost in costs]


def differentiated(
    differentiate: Differentiate,
    n: int,
    stack: Stack,
    mode: Mode,
    batch: Batch,
    h_0: Real,
    resets: Resets | None = None,
    of_last: OfLast | None = None,
    reading: Reading | None = None,
) -> tuple[float, Real, Real]:
    """What `differentiate` makes of a batch, with n steps at a time: the loss, the last states, the gradient by h_0.

    It takes the mode, a stretch, the states before it; what comes back from the steps behind, `d_h_n`, None at the end;
    what dropout and noise are `drawn` from; the `loss` so far; and the `direction` to back-propagate through, if it is
    one of two: the second one when all else is done. `of_last` is what it does at the end where only the last states
    count. `reading`: how layers read inputs.
    """
    drawn = stack.draw(mode, batch.x.shape[1], batch.keys)  # for all segments
    if n >= len(batch.x):
        return differentiate(mode, batch, h_0, drawn=_from(batch.first_step, drawn))
    segments = _Segments(stack, mode, batch, n, drawn, resets, reading or Reading([]))
    if stack.architecture.bidirectional:
        return _both_ways(differentiate, segments, h_0, of_last)
    before, starts = [h_0], segments.starts  # of each segment
    for start in starts[:-1]:
        before.append(segments.states_behind(start, before[-1]))  # in the memory that the second pass takes
    loss, last, d_h_n = 0.0, h_0, None
    for start in reversed(starts):
        part, own = segments.part(start)
        loss, h_n, d_h_n = differentiate(mode, part, before.pop(), d_h_n=d_h_n, drawn=own, loss=loss)
        if start == starts[-1]:
            last = h_n
    assert d_h_n is not None
    return loss, last, d_h_n


def _both_ways(
    differentiate: Differentiate, segments: _Segments, h_0: Real, of_last: OfLast | None
) -> tuple[float, Real, Real]:
    """The same for one layer, (2, B, H), whose states go into a segment from both ends."""
    starts, mode, loss, d_last = segments.starts, segments.mode, 0.0, None

    def states_between(direction: int) -> list[Real]:
        """A direction's before and behind the segments, in its own order."""
        states, h = [h_0[direction]], h_0.copy()
        for start in reversed(starts) if direction else starts:
            h[direction] = states[-1]
            states.append(segments.states_behind(start, h)[direction].copy())
        return states

    ahead, back = states_between(0), [h_0[1]]
    if of_last is not None:
        loss, d_last = of_last(np.array([ahead[-1], states_between(1)[-1]]))
    d_h = d_last
    for i in reversed(range(len(starts))):
        (part, own), h = segments.part(starts[i]), np.array([ahead[i], back[-1]])
        loss, h_n, d_h = differentiate(mode, part, h, d_h_n=d_h, drawn=own, loss=loss, direction=0)
        back.append(h_n[1].copy())
    h_n, d_ahead, d_h = np.array([ahead[-1], back.pop()]), d_h, d_last
    for i in range(len(starts)):
        (part, own), h = segments.part(starts[i]), np.array([ahead[i], back.pop()])
        _, _, d_h = differentiate(mode, part, h, d_h_n=d_h, drawn=own, direction=1)
    assert d_ahead is not None
    assert d_h is not None
    return loss, h_n, np.array([d_ahead[0], d_h[1]])


class _Segments(NamedTuple):
    """A batch, so many steps at a time."""

    stack: Stack
    mode: Mode
    batch: Batch
    n: int
    drawn: Drawn | None
    resets: Resets | None
    reading: Reading

    @property
    def starts(self) -> range:
        return range(0, len(self.batch.x), self.n)

    def part(self, start: int) -> tuple[Batch, Drawn | None]:
        """The segment that begins there, and what it draws from."""
        return self.batch.stretch(start, min(start + self.n, len(self.batch.x))), _from(start, self.drawn)

    def states_behind(self, start: int, before: Real) -> Real:
        """Fresh ones, (L·D, B, H), of the segment that begins there."""
        (part, own), h_n = self.part(start), np.empty_like(before)
        begins = in_stretch(self.resets, start, start + self.n)
        given: Any = {"lengths": part.lengths, "drawn": own, "resets": begins, "weights": self.reading.weights}
        with self.stack.forward(self.mode, self.reading.of(part.x), before, h_n, **given):
            return h_n


def _from(start: int, drawn: Drawn | None) -> Drawn | None:
    return None if drawn is None else drawn._replace(first_step=start)


def memory_of(value: Any, name: str, rnn: RNN) -> int | float | None:
    """None; a positive int, of time steps; or a string such as "200MB", as a float of bytes. If the layers allow it."""
    if value is None:
        return None
    (stack, why) = stack_of(rnn), ""
    if stack.architecture.reverse:
        why = "reverse=True: that direction begins at the end"
    elif stack.architecture.bidirectional and rnn.num_layers > 1:
        why = "bidirectional=True and more than one layer: each needs what the one below puts out, from both ends"
    elif stack.architecture.bidirectional and rnn.learn_leak and stack.dynamics.has_noisy_units:
        why = "bidirectional=True where leaks of noisy units are learned: noise is drawn for both directions at once"
    if why:
        check.refuse(f"{name} must be None with {why}")
    if check.is_int(value):
        return check.positive_int(value, name)
    match = re.fullmatch(r"([0-9.]+) *([kMG]?)B", value) if isinstance(value, str) else None
    with contextlib.suppress(ValueError):
        if match:
            return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"{name} must be None, a number of steps or a string like '200MB', got {check.shown(value)}")
