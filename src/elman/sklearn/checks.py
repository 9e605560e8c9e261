"""What X and y may be: the forms in which scikit-learn's users have sequences, and the labels of their steps."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data import checks as data_checks
from elman.typing import Int

Rows = list[Any] | NDArray[Any]  # one array where all sequences are equally long


def lengths_of(rows: Rows) -> Int:
    return np.array([len(row) for row in rows], dtype=np.int64)


def cut(steps: Any, lengths: Int) -> Rows:
    """Steps (Σ T_i, ·) that lie below one another as sequences: an array (n, T, ·) where all are equally long."""
    if lengths.min() == lengths.max():
        return np.asarray(steps.reshape(len(lengths), -1, *steps.shape[1:]))
    return np.split(steps, lengths.cumsum()[:-1])


def steps(value: Any, name: str, *, are_series: bool = False) -> tuple[Any, Int | None]:
    """Sequences of features as all their steps below one another, (Σ T_i, features), and the T_i.

    They are an array (n, T, features) or a list of (T_i, features), or of numbers (T_i,), a feature. Anything else
    comes back as it is, and None; but if they `are_series`, the rows of an array (n, T) are sequences like these.
    """
    if getattr(value, "ndim", 0) == 3:
        array = check.as_array(value, name)
        check.shape(array.shape, name, (("n", "T", "features"),))
        return array.reshape(-1, array.shape[2]), np.full(len(array), array.shape[1])
    if not (_holds_sequences(value) or (are_series and _n_axes(value) == 2)):
        return value, None
    items = [check.as_array(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if items[0].ndim != 1:
        check.shape(items[0].shape, f"{name}[0]", (("T", "features"),))
    n = items[0].shape[1:]
    for i, item in enumerate(items):
        check.shape(item.shape, f"{name}[{i}]", (("T", *n),))
    return np.concatenate([item.reshape(len(item), -1) for item in items]), np.array([len(item) for item in items])


def holds_text(value: Any) -> bool:
    """Whether sequences are of str: their steps, or they themselves, of characters."""
    first = value
    for _ in range(3):
        if not isinstance(first, (list, tuple, np.ndarray)) or getattr(first, "ndim", 1) == 0 or not len(first):
            break
        first = first[0]
    return isinstance(first, str)


def sequences(value: Any, name: str, spelled: Callable[[str, str], Any] = lambda text, _: list(text)) -> Rows:
    """Sequences of tokens as a list, or an array (n, T); str as lists of characters, or as a model spells them."""
    value = data_checks.listed(data_checks.one_for_each(value, name), name, may_be_text=True)
    if isinstance(value, np.ndarray) and value.ndim > 1 and value.dtype != object:
        return value
    return [spelled(item, f"{name}[{i}]") if isinstance(item, str) else item for i, item in enumerate(value)]


def _n_axes(value: Any) -> int:
    """Of an array of numbers, perhaps as lists; 0 of anything else."""
    if isinstance(value, np.ndarray):
        return value.ndim
    return 1 + np.ndim(value[0]) if isinstance(value, (list, tuple)) and value else 0


def _holds_sequences(value: Any) -> bool:
    """Whether a list holds more than the rows of one array (n, T)."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = list(value)
    if check.is_list_of_arrays(value):
        return value[0].ndim > 1 or len({np.shape(item) for item in value}) > 1
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        return False
    are_lists = all(isinstance(one, (list, tuple)) for one in value)
    return (are_lists and len({len(one) for one in value}) > 1) or np.ndim(value[0]) == 2


def as_before(n: int, expected: int, name: str, words: str) -> None:
    """What there must be as many of as in an earlier call."""
    if n != expected:
        raise ValueError(f"{name} must have {expected} {words}, got {n}")


def enough_held_out(n: int, name: str) -> None:
    if n < 2:
        raise ValueError(f"{name} must leave at least 2 sequences to validate on, got {n}")


def label_sequences(value: Any, name: str) -> tuple[NDArray[Any], Int]:
    """The labels of all steps one after another, and how many each sequence has."""
    value = data_checks.listed(data_checks.one_for_each(value, name), name)
    items = [check.as_array(item, f"{name}[{i}]") for i, item in enumerate(value)]
    for i, item in enumerate(items):
        check.shape(item.shape, f"{name}[{i}]", (("T",),))
    return np.concatenate(items), np.array([len(item) for item in items])


def codes(array: NDArray[Any], name: str, classes: NDArray[Any]) -> Int:
    """Labels (n,) as indices of sorted classes."""
    codes = np.searchsorted(classes, array).clip(max=len(classes) - 1)
    for i in np.flatnonzero(classes[codes] != array)[:1]:
        raise ValueError(f"{name} must hold classes among {_classes_text(classes)}, got {array[i]!r}")
    return codes


def same_classes(classes: NDArray[Any], expected: NDArray[Any]) -> None:
    if not np.array_equal(classes, expected):
        raise ValueError(f"classes must be those of before, {_classes_text(expected)}, got {_classes_text(classes)}")


def _classes_text(classes: NDArray[Any]) -> str:
    return reprlib.repr(classes.tolist())
