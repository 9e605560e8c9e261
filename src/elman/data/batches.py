"""Arguments of calls about single batches, checked: time-major arrays of steps side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data import checks
from elman.data.inputs import Tokens
from elman.data.kinds import Kinds
from elman.data.outputs import Categories, Targets
from elman.data.rows import padded
from elman.data.sequences import Batch
from elman.lengths import within
from elman.typing import Int, Real


def batch_of(x: Any, y: Any, lengths: Any, weights: Any, kinds: Kinds, resets: Any = None) -> Batch:
    """What `SequenceModel.train_step` is given, as the network takes it."""
    inputs, outputs, pattern, dtype = kinds
    feeds_back = kinds.feeds_back
    if pattern.one_input:
        x = inputs.array(x, "x", dtype, ("B",), (1, "B"))
        x = x if x.ndim == (2 if isinstance(inputs, Tokens) else 3) else x[None]
    else:
        x = inputs.array(x, "x", dtype, ("T", "B"), row_lengths=lengths)
    n_steps, n_rows = x.shape[:2]
    if feeds_back:
        n_steps = checks.n_steps(y, "y")
    if lengths is not None:
        lengths = check.lengths(lengths, n_rows, n_steps)
    if resets is not None:
        resets = check.booleans(resets, "resets", (n_steps, n_rows))
    if pattern.one_output:
        read = _read((1, n_rows), None, weights, kinds)
        shapes = [(n_rows,), (1, n_rows)] if pattern.one_input else [(n_rows,)]
        y = outputs.targets(y, "y", dtype, *shapes, read=read)
        y = y.reshape((1, n_rows) if isinstance(outputs, Categories) else (1, n_rows, outputs.n))
        if lengths is not None and not lengths.all():
            has_target = outputs.has_target(y)
            checks.no_empty_rows(lengths, (has_target if read is None else has_target & read.counts())[0])
    elif outputs.is_of_sequences:
        y = outputs.targets(y, "y", dtype, ("U", n_rows)).T
        own_lengths = [n_steps] * n_rows if lengths is None else lengths.tolist()
        rows = [row[: checks.n_labels(row, f"y[:, {b}]")] for b, row in enumerate(y)]
        each = [checks.laid(row, n, f"y[:, {b}]") for b, (row, n) in enumerate(zip(rows, own_lengths, strict=True))]
        y = padded([*each, np.zeros(n_steps, np.int64)])[:, :-1]
    else:
        read = _read((n_steps, n_rows), lengths, weights, kinds)
        y = outputs.targets(y, "y", dtype, (n_steps, n_rows), read=read)
    x, y = inputs.scaled(x, dtype), outputs.scaled(y, dtype)
    if feeds_back:
        if isinstance(outputs, Categories):
            checks.no_gaps(y, "y", read)
        x = kinds.taught(x, y)
    if weights is not None:
        of_steps = [] if outputs.is_of_sequences else [y.shape[:2]]
        weights = checks.weights(weights, "weights", dtype, (n_rows,), *of_steps)
        weights = np.broadcast_to(weights, y.shape[:2])
    targets = Targets.of(outputs, own(y), None if pattern.one_output else lengths, weights, dtype)
    checks.any_weight(targets.total, "y", targets.weights is not None)
    return Batch(own(x), lengths, targets, resets=resets)


def own(array: Real | Int) -> Real | Int:
    """Tokens and categories as a copy, which kernels index with: another thread may change a caller's meanwhile."""
    return array.copy() if array.dtype.kind == "i" else array


def _read(shape: tuple[int, int], lengths: Int | None, weights: Any, kinds: Kinds) -> checks.Read | None:
    """Which targets (T, B) are looked at, None for all."""
    if lengths is None and weights is None:
        return None

    def counts() -> NDArray[np.bool_]:
        mask = np.ones(shape, dtype=bool) if lengths is None else within(shape[0], lengths)
        if weights is None:
            return mask
        return mask & (checks.weights(weights, "weights", kinds.dtype, shape[1:], shape) > 0)

    return checks.Read(counts, kinds.feeds_back)
