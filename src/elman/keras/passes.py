"""The two passes over a sequence, from arrays to arrays, in the order and with the masks of Keras.

Keras's arrays are (B, T, ·) and its weights (I, H) and (H, H), as the kernels have them, so nothing is copied or
transposed. Steps that a mask leaves out are taken out of rows, which then have lengths; where all of them are at the
ends, rows stay where they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import backends
from elman.backends.contract import Gradients, Layer
from elman.layer.workspace import Workspace
from elman.typing import Int, Real

_WORKSPACES = {np.dtype(kind): Workspace(np.dtype(kind)) for kind in (np.float32, np.float64)}
_counts = {"forward": 0, "backward": 0, "loops": 0}


class Calls(NamedTuple):
    """How often what has computed: see `kernel_calls`."""

    forward: int
    backward: int
    loops: int


def kernel_calls() -> Calls:
    """How often layers have computed with elman's kernels, and how often not, since the process began.

    Returns
    -------
    Calls
        `forward` and `backward` count passes over a sequence by the kernels, and `loops` the times that a layer was
        left to Keras's own loop: in a program that JAX compiles once, each time that it is compiled.

    Examples
    --------
    >>> from elman.keras import SimpleRNN
    >>> before = kernel_calls()
    >>> y = SimpleRNN(4)(np.ones((2, 50, 3), "float32"))
    >>> kernel_calls().forward - before.forward
    1
    """
    return Calls(**_counts)


def count(what: str) -> None:
    """One more of these."""
    _counts[what] += 1


class Options(NamedTuple):
    """What a call depends on besides arrays."""

    activation: str
    go_backwards: bool
    return_sequences: bool
    zero_output_for_mask: bool
    begins_with_state: bool  # whether outputs before a row's first step are its initial state, as on JAX, or zeros


class Call(NamedTuple):
    """What is computed, in arrays or in a framework's tensors."""

    x: Any  # (B, T, I)
    h_0: Any  # (B, H)
    kernel: Any  # (I, H)
    recurrent_kernel: Any  # (H, H)
    bias: Any  # (H,), or None
    recurrent_mask: Any  # (B, H), or None: what recurrent dropout multiplies states by
    mask: Any  # bool (B, T), or None: which steps count


class _Steps:
    """Which steps of a batch count, and where the kernels have them.

    `mask` and `within` are None where all do, and equal where the others are at the ends of rows.
    """

    def __init__(self, call: Call, options: Options) -> None:
        self.lengths: Int | None = None
        self.is_in_place = True
        self._options, self._h_0 = options, call.h_0
        if call.mask is None or call.mask.all():
            return
        self.mask: NDArray[np.bool_] = call.mask
        self.lengths = self.mask.sum(axis=1)
        self._within = np.arange(self.mask.shape[1]) < self.lengths[:, None]
        self.is_in_place = bool((self.mask == self._within).all())

    def packed(self, rows: Real) -> Real:
        """Rows (B, T, ·) with the steps that count at their beginnings."""
        if self.is_in_place:
            return rows
        packed = np.zeros(rows.shape, rows.dtype)
        packed[self._within] = rows[self.mask]
        return packed

    def unpack(self, packed: Real, rows: Real) -> None:
        """The inverse; at the other steps, rows are as they were."""
        if not self.is_in_place:
            rows[self.mask] = packed[self._within]

    def fill(self, rows: Real, y: Real) -> None:
        """Write outputs of the steps that do not count: zeros, or those of the step before them, in packed y."""
        if self._options.zero_output_for_mask:
            rows[~self.mask] = 0
            return
        row, step, source, is_first = self._repeated()
        values = y[row, source]
        values[is_first] = self._h_0[row[is_first]] if self._options.begins_with_state else 0
        rows[row, step] = values

    def add_filled(self, d_rows: Real, d_y: Real, d_h_0: Real) -> None:
        """Add the gradient by what `fill` has written to that by where it is from."""
        if self._options.zero_output_for_mask:
            return
        row, step, source, is_first = self._repeated()
        np.add.at(d_y, (row[~is_first], source[~is_first]), d_rows[row[~is_first], step[~is_first]])
        if self._options.begins_with_state:
            np.add.at(d_h_0, row[is_first], d_rows[row[is_first], step[is_first]])

    def _repeated(self) -> tuple[Int, Int, Int, NDArray[np.bool_]]:
        """Row and step of outputs that are repeated, their packed step, and whether there is none before them."""
        assert self.lengths is not None
        done = self.mask.cumsum(axis=1)
        row, step = (~self.mask).nonzero()
        source = done[row, step] - (0 if self._options.go_backwards else 1)
        is_first = source == (self.lengths[row] if self._options.go_backwards else -1)
        return row, step, np.where(is_first, 0, source), is_first

    def is_zero(self) -> NDArray[np.bool_]:
        """Whether the last output (B,) is zeros instead of the last state."""
        assert self.lengths is not None
        nothing: NDArray[np.bool_] = (self.lengths == 0) & (not self._options.begins_with_state)
        last = self.mask[:, 0 if self._options.go_backwards else -1]
        return nothing | ~last if self._options.zero_output_for_mask else nothing


def forward(call: Call, options: Options, kept: Real | None = None) -> tuple[Real, Real, Real]:
    """The outputs (B, T, H), or (B, H) of the last step, the last states (B, H), and outputs for the backward pass.

    The latter, (B, T, H), are written to `kept`, and are the former where they can be.
    """
    steps, (n_rows, n_steps, _) = _Steps(call, options), call.x.shape
    if kept is None:
        kept = np.empty((n_steps, n_rows, call.h_0.shape[1]), call.x.dtype).swapaxes(0, 1)  # PyTorch's dropout behind
        # the layer draws in the order of memory, which is that of time where Keras's loop has written it
    h_n = np.empty((1, *call.h_0.shape), call.x.dtype)
    backends.resolve().forward(_layer(call, options, steps, kept, h_n))
    count("forward")
    result = h_n[0].copy()
    if options.return_sequences:
        result = kept if steps.is_in_place else np.empty_like(kept)
        rows, y = _in_time(result, options), _in_time(kept, options)
        steps.unpack(y, rows)
        if steps.lengths is not None:
            steps.fill(rows, y)
    elif steps.lengths is not None:
        result[steps.is_zero()] = 0
    return result, h_n[0], kept


def backward(
    call: Call, options: Options, kept: Real, d_result: Real | None, d_h_n: Real | None, d_x: Real | None
) -> tuple[Real | None, ...]:
    """Gradients by h_0, kernel, recurrent_kernel and bias, from those by the results; that by x is written to d_x."""
    steps, d_h_0, d_y = _Steps(call, options), np.empty_like(call.h_0, order="C"), None
    d_last = np.zeros_like(d_h_0) if d_h_n is None else d_h_n
    d_first = np.zeros_like(d_h_0)  # through what comes before the first step
    if d_result is not None and options.return_sequences:
        d_rows = _in_time(d_result, options)
        d_y = steps.packed(d_rows)
        if steps.lengths is not None and not options.zero_output_for_mask:
            d_y = d_y.copy() if steps.is_in_place else d_y
            steps.add_filled(d_rows, d_y, d_first)
    elif d_result is not None:
        d_last = d_last + (d_result if steps.lengths is None else np.where(steps.is_zero()[:, None], 0, d_result))
    layer = _layer(call, options, steps, kept, None)
    sums = [None if array is None else np.zeros((1, *array.shape), array.dtype) for array in call[2:5]]
    d_packed = d_x if steps.is_in_place or d_x is None else np.empty_like(d_x)
    if d_x is not None and steps.lengths is not None:
        d_x.fill(0)
    with _WORKSPACES[d_h_0.dtype].lease(1, *layer.y.shape) as (delta,):
        given, before = None if d_y is None else _rows(d_y), None if d_packed is None else d_packed.swapaxes(0, 1)
        values: Any = given, np.ascontiguousarray(d_last)[None], delta, *sums, d_h_0[None], before
        backends.resolve().backward(layer, Gradients(*values))
    count("backward")
    if d_x is not None and d_packed is not None:
        steps.unpack(d_packed, d_x)
    return d_h_0 + d_first, *[None if array is None else array[0] for array in sums]


def _layer(call: Call, options: Options, steps: _Steps, kept: Real, h_n: Real | None) -> Layer:
    h_0, *weights, mask = (None if array is None else np.ascontiguousarray(array)[None] for array in call[1:6])
    x, y = _rows(steps.packed(call.x)), _rows(_in_time(kept, options))
    values: Any = h_0, *weights, y, h_n, options.activation, steps.lengths, mask, options.go_backwards
    return Layer(x, *values)


def _in_time(rows: Real, options: Options) -> Real:
    """Outputs (B, T, ·), which Keras has in the order in which they are computed, in the order of time; and back."""
    return rows[:, ::-1] if options.go_backwards else rows


def _rows(array: Real) -> Real:
    """(B, T, ·) as kernels take it, (T, B, ·) with unit stride on the last axis."""
    if array.strides[2] != array.itemsize and array.shape[2] > 1:
        array = array.copy()
    return array.swapaxes(0, 1)
