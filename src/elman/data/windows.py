"""Windows of one long series, cut out when a batch needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data.inputs import Tokens
from elman.data.kinds import Kinds
from elman.data.outputs import Categories
from elman.data.rows import gathered, is_sliced, stretches_of
from elman.typing import Int


class Windows:
    """A data set of windows of one long series, for `SequenceModel.fit`, `predict` and `evaluate`.

    Window i is the steps from i · stride on, and its targets are what stands `horizon` steps later. Nothing is copied
    but what a batch needs, so a series may be a file: `numpy.memmap`, or what else slices are taken of (zarr, h5py).

    Parameters
    ----------
    series : integers (S,), labels (S,), a str of characters, or array (S, n)
        Tokens, features or columns; (S,) is taken for one feature.
    length : int
        How many steps a window has.
    stride : int, optional
        How many steps there are from the beginning of a window to that of the next; by default `length`.
    targets : as series, optional
        Where targets are taken from, step by step beside the series; by default the series itself.
    horizon : int
        By how many steps the targets are later: 0 for those of the same steps. Where the model has one target for
        each sequence, it is that of the last step of a window.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or if the series has no window.

    Examples
    --------
    >>> import elman
    >>> windows = Windows(np.arange(1000) % 7, 20)
    >>> len(windows)
    49
    >>> model = elman.SequenceModel(elman.Tokens(7), elman.Categories(7), hidden_size=16, seed=0)
    >>> history = model.fit(windows, epochs=20, optimizer=elman.Adam(0.01), progress=False)
    >>> model.evaluate(windows)["accuracy"] > 0.9
    True
    """

    def __init__(
        self, series: Any, length: int, *, stride: int | None = None, targets: Any = None, horizon: int = 1
    ) -> None:
        self.series = _series(series, "series")
        self.length = check.size(length, "length")
        self.stride = self.length if stride is None else check.size(stride, "stride")
        self.horizon = check.non_negative_int(horizon, "horizon")
        self.targets = self.series if targets is None else _series(targets, "targets")
        n = len(self.series)
        if len(self.targets) != n:
            raise ValueError(f"targets must have as many steps as series, {n}, got {len(self.targets)}")
        if n < self.length + self.horizon:
            expected = f"at least length + horizon = {self.length + self.horizon} steps"
            raise ValueError(f"series must have {expected}, got {n}")

    def __len__(self) -> int:
        return (len(self.series) - self.length - self.horizon) // self.stride + 1

    def __repr__(self) -> str:
        return f"Windows of {self.length} steps, {len(self)} of them"

    def inputs_for(self, kinds: Kinds) -> Any:
        """X, as a data set takes it."""
        return _Windowed(self, "series", 0, self.length, has_columns=not isinstance(kinds.inputs, Tokens))

    def targets_for(self, kinds: Kinds) -> Any:
        """Y, as a data set takes it."""
        has_columns = not isinstance(kinds.outputs, Categories)
        name = "series" if self.targets is self.series else "targets"
        if kinds.pattern.one_output:
            return _Windowed(self, name, self.length - 1 + self.horizon, None, has_columns=has_columns)
        return _Windowed(self, name, self.horizon, self.length, has_columns=has_columns)


class _Windowed:
    """Steps of each window of a series, as an array (N, T, ·), or without T one step of each."""

    def __init__(self, windows: Windows, name: str, offset: int, n_steps: int | None, *, has_columns: bool) -> None:
        """name: that of the series among the attributes."""
        series = getattr(windows, name)
        self._series, self._name, self._stride = series, name, windows.stride
        self._offset, self._n_steps = offset, n_steps
        columns = series.shape[1:] or ((1,) if has_columns else ())
        self.shape = (len(windows), *(() if n_steps is None else (n_steps,)), *columns)
        self.dtype = series.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, i: Any) -> NDArray[Any]:
        return self.rows_at(np.atleast_1d(range(len(self))[i]))  # not of all of them, which may be many

    def stretch(self, n: int) -> NDArray[Any]:
        """The steps from the beginning of the first of n windows to the end of the last one."""
        start = self._offset
        return np.asarray(self._series[start : start + (n - 1) * self._stride + (self._n_steps or 1)])

    def place_of(self, i: int) -> str:
        """Where one of them lies, in messages."""
        start = i * self._stride + self._offset
        return f"{self._name}[{start}]" if self._n_steps is None else f"{self._name}[{start}:{start + self._n_steps}]"

    def rows_at(self, rows: Int) -> NDArray[Any]:
        """Some of them, as a fresh array."""
        starts = rows * self._stride + self._offset
        n = self._n_steps
        if n is None:
            return gathered(self._series, starts).reshape(len(rows), *self.shape[1:])
        return stretches_of(self._series, starts, n).reshape(len(rows), *self.shape[1:])


def _series(value: Any, name: str) -> Any:
    array = value if is_sliced(value) else check.as_array(list(value) if isinstance(value, str) else value, name)
    if len(array.shape) not in (1, 2):
        raise ValueError(f"{name} must have shape (S,) or (S, n), got {tuple(array.shape)}")
    return array
