"""Checks of data sets and targets: what may stand in them, and where it need not be looked at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data.rows import is_column, is_sliced
from elman.typing import Int, Real


def n_steps(value: Any, name: str) -> int:
    """The T of an array (T, ...)."""
    array = check.as_array(value, name)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} must have an axis of time that is not empty, got shape {array.shape}")
    return len(array)


class Read(NamedTuple):
    """Which targets are looked at: those that count and, where they are fed back, all before them."""

    counts: Callable[[], NDArray[np.bool_]]  # within the lengths, of weight above 0; asked only about wrong targets
    is_fed_back: bool = False
    time_axis: int = 0

    @property
    def note(self) -> str:
        return " where it is fed back before a target that counts" if self.is_fed_back else ""

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """For targets of this shape, which may have another axis behind that of `counts`."""
        counts = self.counts()
        mask = _or_later(counts, self.time_axis) if self.is_fed_back else counts
        return mask.reshape(shape if mask.size == math.prod(shape) else (*shape[:-1], 1))


def _or_later(marks: NDArray[np.bool_], axis: int = 0) -> NDArray[np.bool_]:
    """Which steps are marked or have one that is after them."""
    return np.flip(np.logical_or.accumulate(np.flip(marks, axis), axis=axis), axis)


def categories(value: Any, name: str, n: int, shapes: Sequence[check.Shape], read: Read | None = None) -> Int:
    """An int64 array of one of the shapes, from -1 (no target) to n - 1; where it is not looked at, -1 for others."""
    given = value if type(value) is np.ndarray else check.as_array(value, name)
    array = check.as_int64(given, name)
    check.shape(array.shape, name, shapes)
    if (array + 1).view(np.uint64).max() <= n:  # as in `tokens`
        return array
    wrong = (array < -1) | (array >= n)
    for where in looked_at(wrong, read):
        raise ValueError(
            f"{name} must hold -1 (no target) or categories from 0 to {n - 1}{_note(read)}, "
            f"got {given[where]} at {list(where)}"
        )
    return np.where(wrong, -1, array)


def numbers(
    value: Any,
    name: str,
    dtype: np.dtype[Any],
    n: int,
    shapes: Sequence[check.Shape],
    read: Read | None = None,
    *,
    kinds: str,
    most: float = np.inf,
    are_counts: bool = False,
    may_miss: bool = False,
) -> Real:
    """Targets (..., n) of `dtype`, `...` being one of the shapes, or (...) for n = 1; finite, or from 0 to `most`.

    `kinds` are those of the dtypes that are taken. Where it is not looked at, what is none of these becomes 0. Counts
    are integers from 0 on; what `may_miss` may be NaN.
    """
    array = value if type(value) is np.ndarray else check.as_array(value, name)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.dtype == np.float16:
        expected = "bool, integers, float32 or float64" if "b" in kinds else "float32, float64 or integers"
        raise TypeError(f"{name} must hold {expected}, got {array.dtype} of shape {array.shape}")
    check.shape(array.shape, name, [(*shape, n) for shape in shapes] + (list(shapes) if n == 1 else []))
    if not any(check.is_like(array.shape, (*shape, n)) for shape in shapes):
        array = array[..., None]
    fits = array.dtype == dtype and array.strides[-1] == array.itemsize and array.flags.aligned
    with np.errstate(all="ignore"):  # where it is not looked at there is anything
        array = array if fits else np.array(array, dtype=dtype, order="C")
        is_bounded = most < np.inf or are_counts
        is_within = not is_bounded or (array.min() >= 0 and array.max() <= most)
        if check.is_finite(array) and is_within and not (are_counts and (array % 1).any()):
            return array
        wrong = np.isinf(array) if may_miss else ~np.isfinite(array)
        for where in looked_at(wrong, read):
            raise ValueError(f"{name} must be finite{_note(read)}, got {array[where]} at {list(where)}")
        if is_bounded:
            fits = (array >= 0) & (array <= most) & (array % 1 == 0 if are_counts else True)
            wrong |= ~(fits | np.isnan(array)) if may_miss else ~fits
        for where in looked_at(wrong, read):
            expected = "counts, integers of at least 0" if are_counts else f"values from 0 to {most:g}"
            expected += _note(read)
            raise ValueError(f"{name} must hold {expected}, got {array[where]} at {list(where)}")
    array = array.copy()
    array[wrong] = 0
    return array


def widened(value: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array, as `dtype` where it holds small numbers: bool, float16, or integers of which float32 has all."""
    array = value if type(value) is np.ndarray else check.as_array(value, name)
    is_small = array.dtype.kind in "biuf" and np.can_cast(array.dtype, np.float32)
    return np.array(array, dtype=dtype, order="C") if is_small and array.dtype != dtype else array


def looked_at(wrong: NDArray[np.bool_], read: Read | None) -> Iterator[tuple[int, ...]]:
    """The first place of a wrong target that is looked at, if there is one."""
    if read is not None and wrong.any():
        wrong = wrong & read.mask(wrong.shape)
    yield from map(tuple, np.argwhere(wrong)[:1].tolist())


def _note(read: Read | None) -> str:
    return "" if read is None else read.note


def weights(value: Any, name: str, dtype: np.dtype[Any], *shapes: check.Shape) -> Real:
    """Finite numbers of at least 0, as a fresh array of `dtype`."""
    array = value if type(value) is np.ndarray else check.as_array(value, name)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype} of shape {array.shape}")
    check.shape(array.shape, name, shapes)
    with np.errstate(over="ignore"):
        array = np.array(array, dtype=dtype, order="C")
    if not (array.min() >= 0 and np.isfinite(array.max())):
        for where in np.argwhere(~((array >= 0) & (array < np.inf)))[:1].tolist():
            raise ValueError(f"{name} must be finite and at least 0, got {array[tuple(where)]} at {where}")
    return array


def class_weights(value: Any, n: int) -> NDArray[np.float64]:
    array = weights(value, "class_weights", np.dtype(np.float64), (n,)).astype(np.float64, copy=False)
    if not array.all():
        raise ValueError(f"class_weights must be above 0, got {array.tolist()}")
    array.flags.writeable = False
    return array


def quantiles(value: Any) -> tuple[float, ...]:
    """Increasing numbers between 0 and 1."""
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) == 0:
        raise TypeError(f"quantiles must be some numbers between 0 and 1, got {check.shown(value)}")
    expected = "a number between 0 and 1"
    found = tuple(check.number(q, f"quantiles[{i}]", expected, lambda q: 0 < q < 1) for i, q in enumerate(value))
    if any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(f"quantiles must increase, got {found}")
    return found


def finite_sum(weights: list[float]) -> float:
    """Of weights times class weights, exact."""
    try:
        return math.fsum(weights)
    except OverflowError:
        raise ValueError("weights, times class_weights, must have a finite sum") from None


def any_weight(total: float, name: str, is_weighted: bool) -> None:
    """Something must count in a mean."""
    if not 0 < total < np.inf:
        condition = " whose weight is not zero" if is_weighted else ""
        raise ValueError(f"{name} must hold at least one target{condition}")


def one_for_each(value: Any, name: str) -> Any:
    """One item for each sequence: a list, or an array along its first axis."""
    is_read_later = is_sliced(value) or is_column(value)
    if not is_read_later and hasattr(value, "__array__") and not isinstance(value, np.ndarray):  # a tensor, say
        value = check.as_array(value, name)
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    is_listed = is_read_later or isinstance(value, (list, tuple)) or is_array
    if not is_listed:
        raise TypeError(f"{name} must be a list of sequences or an array (N, T), got {check.shown(value)}")
    if len(value) == 0:
        raise ValueError(f"{name} must hold at least one sequence")
    return value


def listed(value: Any, name: str, *, may_be_text: bool = False) -> Any:
    """What `one_for_each` returns, if its items are sequences."""
    if any(np.isscalar(item) and not (may_be_text and isinstance(item, str)) for item in value[:1]):
        raise TypeError(f"{name} must be a list of sequences or an array (N, T), got {check.shown(value)}")
    return value


def token_sequence(value: Any, name: str, n: int) -> Int:
    """Tokens (T,) from 0 to n - 1, which may be none."""
    array = check.as_int64(check.as_array(value, name), name)
    check.shape(array.shape, name, (("T",),), allow_empty=True)
    return check.tokens(array, name, n, ("T",)) if array.size else array


def n_labels(labels: Int, name: str) -> int:
    """How many there are in (U,), -1 being behind the last one."""
    n = int((labels != -1).sum())
    if (labels[:n] == -1).any():
        raise ValueError(f"{name} must have -1 behind its last label alone, got it at {int((labels == -1).argmax())}")
    return n


def laid(labels: Int, n_steps: int, name: str) -> Int:
    """Labels (U,) in an array of so many steps, which must be enough for blanks between equal ones, too; then -1."""
    needed = len(labels) + int(np.count_nonzero(labels[1:] == labels[:-1]))
    if needed > n_steps:
        raise ValueError(f"{name} must have labels that need no more than its {n_steps} steps, got ones for {needed}")
    found = np.full(n_steps, -1)
    found[: len(labels)] = labels
    return found


def same_number(n: int, expected: int, name: str, expected_name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must have as many sequences as {expected_name}, {expected}, got {n}")


def same_lengths(lengths: Int, expected: Int, name: str, expected_name: str) -> None:
    same_number(len(lengths), len(expected), name, expected_name)
    for i in np.flatnonzero(lengths != expected)[:1]:
        raise ValueError(
            f"{name}[{i}] must have as many steps as {expected_name}[{i}], {expected[i]}, got {lengths[i]}"
        )


def no_gaps(y: Real | Int, name: str, read: Read | None) -> None:
    """Categories (T, B) that are fed back: a target that counts must not come after a step without one."""
    is_missing = y < 0
    if not is_missing.any():
        return
    has_target = ~is_missing if read is None else ~is_missing & read.counts()
    for where in np.argwhere(is_missing[:-1] & _or_later(has_target)[1:])[:1].tolist():
        raise ValueError(
            f"{name} must not have a target after a -1, as each is the next step's input, got -1 at {where}"
        )


def no_empty_rows(lengths: Int, has_target: NDArray[np.bool_]) -> None:
    for b in np.flatnonzero((lengths == 0) & has_target)[:1]:
        raise ValueError(f"lengths must be at least 1 where a row has a target, got 0 at [{b}]")
