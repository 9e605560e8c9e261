"""What X and y may be: the forms in which scikit-learn's users have sequences, and the labels of their steps."""

from __future__ import annotations

import reprlib
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


def steps(value: Any, name: str) -> tuple[Any, Int | None]:
    """Sequences of features as all their steps below one another, (Σ T_i, features), and the T_i.

    They are an array (n, T, features) or a list of (T_i, features). Anything else comes back as it is, and None.
    """
    if getattr(value, "ndim", 0) == 3:
        array = check.as_array(value, name)
        check.shape(array.shape, name, (("n", "T", "features"),))
        return array.reshape(-1, array.shape[2]), np.full(len(array), array.shape[1])
    if not _holds_sequences(value):
        return value, None
    items = [check.as_array(item, f"{name}[{i}]") for i, item in enumerate(value)]
    check.shape(items[0].shape, f"{name}[0]", (("T", "features"),))
    for i, item in enumerate(items):
        check.shape(item.shape, f"{name}[{i}]", (("T", items[0].shape[1]),))
    return np.concatenate(items), np.array([len(item) for item in items])


def _holds_sequences(value: Any) -> bool:
    """Whether a list holds more than the rows of one array (n, T)."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = list(value)
    if check.is_list_of_arrays(value):
        return value[0].ndim > 1 or len({np.shape(item) for item in value}) > 1
    return isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(value[0]) == 2


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
