"""The caller's arrays as the kernels' (T, B, ·), and results in the caller's form again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.layer.architecture import Architecture
from elman.layer.resets import Resets, check_forward
from elman.layer.workspace import Lease, Workspace, recycled
from elman.typing import Bool, Int, Real


class Call(NamedTuple):
    """What a layer is called with, as the kernels take it, and the form that the caller knows it in.

    Sequences of a list are copied together, into memory that x has for as long as somebody has the call.
    """

    x: Real  # (T, B, I)
    h_0: Real  # (L·D, B, H)
    lengths: Int | None
    form: str  # "time_major", "batch_major", "single" (unbatched) or "list"
    lease: Lease | None
    resets: Resets | None = None

    @classmethod
    def of(
        cls,
        x: Any,
        h_0: Any,
        lengths: Any,
        resets: Any,
        architecture: Architecture,
        batch_first: bool,
        workspace: Workspace,
    ) -> Call:
        """Validated arguments of `RNN.__call__`."""
        n_inputs, dtype, lease = architecture.input_size, workspace.dtype, None
        form = "batch_major" if batch_first else "time_major"
        if type(x) is np.ndarray and x.ndim == 3 and x.shape[2] == n_inputs and check.is_ready(x, dtype):
            pass
        elif check.is_list_of_arrays(x):
            form = "list"
        else:
            x = check.real_array(x, "x", dtype, (*("BT" if batch_first else "TB"), n_inputs), ("T", n_inputs))
            form = "single" if x.ndim == 2 else form
        if form == "list":
            if lengths is not None:
                check.refuse("lengths must be None where x is a list, whose arrays have their own")
            sequences = _sequences(x, "x", dtype, *[("T", n_inputs)] * len(x))
            lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
            x, lease = _gathered(sequences, workspace)
        elif form == "single":
            if lengths is not None:
                check.refuse("lengths must be None where x is unbatched, a single sequence (T, I)")
            x = x[:, None]
        else:
            x = x.swapaxes(0, 1) if batch_first else x
            lengths = None if lengths is None else check.lengths(lengths, x.shape[1], len(x))
        shape = architecture.n_states, x.shape[1], architecture.hidden_size
        h_0 = np.zeros(shape, dtype) if h_0 is None else _states(h_0, "h_0", dtype, shape, form)
        call = tuple.__new__(cls, (x, h_0, lengths, form, lease, None))  # a third of the time of cls(…)
        return call if resets is None else call._with_resets(resets, architecture)

    def _with_resets(self, value: Any, architecture: Architecture) -> Call:
        check_forward(architecture.runs_back)
        return self._replace(resets=Resets(self._steps(value, "resets"), np.zeros(self.h_0.shape, self.h_0.dtype)))

    def _steps(self, value: Any, name: str) -> Bool:
        """What the caller gives in this form for each step, as a (T, B), validated."""
        n_steps, n_rows, _ = self.x.shape
        if self.form == "time_major":
            return check.booleans(value, name, (n_steps, n_rows))
        if self.form == "batch_major":
            return check.booleans(value, name, (n_rows, n_steps)).T
        if self.form == "single":
            return check.booleans(value, name, (n_steps,))[:, None]
        assert self.lengths is not None
        steps, items = np.zeros((n_rows, n_steps), bool), items_of(value, name, n_rows)
        for b, (item, n) in enumerate(zip(items, self.lengths.tolist(), strict=True)):
            steps[b, :n] = check.booleans(item, f"{name}[{b}]", (n,), allow_empty=True)
        return steps.T

    @property
    def batch_major(self) -> bool:
        """Whether arrays over time lie in memory as (B, T, ·); for a list, what is past the ends stays untouched."""
        return self.form == "batch_major" or self.form == "list"

    def empty(self, n_columns: int) -> Real:
        """A fresh (T, B, n_columns), zero where no kernel writes unless the caller never sees that."""
        n_steps, n_rows, _ = self.x.shape
        if self.lengths is None and self.form == "time_major":
            return recycled((n_steps, n_rows, n_columns), self.x.dtype)
        create = recycled if self.lengths is None or self.form == "list" else np.zeros
        if self.batch_major:
            return create((n_rows, n_steps, n_columns), self.x.dtype).swapaxes(0, 1)
        return create((n_steps, n_rows, n_columns), self.x.dtype)

    def empty_states(self) -> Real:
        """A fresh (L·D, B, H)."""
        return np.empty(self.h_0.shape, self.h_0.dtype)

    def over_time(self, value: Any, name: str, n_columns: int, workspace: Workspace) -> tuple[Real, Lease | None]:
        """What the caller gives in this form as a (T, B, n_columns), validated, and the lease of a copy's memory."""
        (n_steps, n_rows, _), dtype = self.x.shape, self.x.dtype
        if self.form == "time_major":
            return check.real_array(value, name, dtype, (n_steps, n_rows, n_columns)), None
        if self.form == "batch_major":
            return check.real_array(value, name, dtype, (n_rows, n_steps, n_columns)).swapaxes(0, 1), None
        if self.form == "single":
            return check.real_array(value, name, dtype, (n_steps, n_columns))[:, None], None
        assert self.lengths is not None
        shapes = [(n, n_columns) for n in self.lengths.tolist()]
        return _gathered(_sequences(value, name, dtype, *shapes), workspace)

    def states(self, h: Any, name: str) -> Real:
        """What the caller gives in the form of h_0 as a C-contiguous (L·D, B, H), validated."""
        return _states(h, name, self.h_0.dtype, self.h_0.shape, self.form)

    def show(self, array: Real) -> Any:
        """A (T, B, ·) as the caller knows it."""
        if self.form == "time_major":
            return array
        if self.form == "list":
            assert self.lengths is not None
            return [array[:n, b] for b, n in enumerate(self.lengths.tolist())]
        return array[:, 0] if self.form == "single" else array.swapaxes(0, 1)

    def show_states(self, h: Real) -> Real:
        """A (L·D, B, H) as the caller knows it."""
        return h.reshape(h.shape[0], h.shape[2]) if self.form == "single" else h


def _states(h: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], form: str) -> Real:
    given = (shape[0], shape[2]) if form == "single" else shape
    return check.real_array(h, name, dtype, given, contiguous=True).reshape(shape)


def _sequences(value: Any, name: str, dtype: np.dtype[Any], *shapes: check.Shape) -> list[Real]:
    """One array for each of the shapes, whose first axes may be empty."""
    return [
        check.real_array(item, f"{name}[{i}]", dtype, shape, allow_empty=True)
        for i, (item, shape) in enumerate(zip(items_of(value, name, len(shapes)), shapes, strict=True))
    ]


def items_of(value: Any, name: str, n: int) -> Sequence[Any]:
    """Those of a list of n arrays."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of {n} arrays, got {check.shown(value)}")
    if len(value) != n:
        raise ValueError(f"{name} must be a list of {n} arrays, got {len(value)}")
    return value


def _gathered(sequences: list[Real], workspace: Workspace) -> tuple[Real, Lease]:
    """Sequences (T_i, ·), copied into one (T, B, ·) that is not touched beyond their ends."""
    n_steps = max(1, *map(len, sequences))
    lease = workspace.lease(1, n_steps, len(sequences), sequences[0].shape[1], batch_major=True)
    for b, sequence in enumerate(sequences):
        lease.arrays[0][: len(sequence), b] = sequence
    return lease.arrays[0], lease
