"""Labels that tokens and categories may have: words, characters, tags, whatever a data set holds in their place."""

from __future__ import annotations

import difflib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.check import Shape
from elman.data import checks
from elman.data.learned import Kind
from elman.data.rows import is_column, row_of
from elman.typing import Int

_STRANGER = -2  # where there is no label of ours; -1 is no label at all
Wrong = Callable[[NDArray[np.bool_]], Iterable[tuple[int, ...]]]  # of those, the first place that matters, if any


class Coder:
    """Labels in the order of the numbers that they stand for, and how one becomes the other."""

    def __init__(self, labels: tuple[Any, ...], unknown: Any) -> None:
        self.labels = labels
        self._codes = {label: i for i, label in enumerate(labels)}
        self._or_none = {**self._codes, None: -1}
        self._of_strangers = _STRANGER if unknown is None else self._codes[unknown]
        self._kinds = tuple({np.integer if type(one) is int else type(one) for one in labels} | {*map(type, labels)})
        self.are_characters = all(isinstance(one, str) and len(one) == 1 for one in labels if one != unknown)

    @functools.cached_property
    def _array(self) -> NDArray[Any]:
        kinds = {type(one) for one in self.labels}
        is_plain = len(kinds) == 1 and (kinds != {int} or all(abs(one) < 1 << 63 for one in self.labels))
        if kinds == {str}:
            is_plain = not any(one.endswith("\0") for one in self.labels)  # which NumPy drops
        return np.array(self.labels, dtype=None if is_plain else object)

    def decoded(self, codes: Int) -> NDArray[Any]:
        """The labels of numbers (...): an array of str, int or bool, or of objects where they are of several types."""
        # Where all outputs are far below -1e30, one that has no label may be the largest
        return self._array.take(codes, mode="clip")

    def codes(
        self, value: Any, name: str, shapes: Sequence[Shape], wrong: Wrong, *, may_miss: bool, allow_empty: bool = False
    ) -> Int:
        """The numbers of labels, of one of the shapes; -1 for None, if it may miss, and for what does not matter."""
        array = as_labels(self._spelled(value, name, shapes), name)
        if array.dtype.kind not in "OUTbiu" and array.size:  # numbers, bytes, dates: not even strangers
            raise TypeError(f"{name} must hold labels, str, int or bool, got {array.dtype} of shape {array.shape}")
        check.shape(array.shape, name, shapes, allow_empty=allow_empty)
        known = self._or_none if may_miss else self._codes
        flat = array.ravel().tolist()
        try:
            found = np.fromiter(map(known.get, flat, itertools.repeat(self._of_strangers)), np.int64, len(flat))
        except TypeError:  # of what has no hash, and so is no label
            found = np.array([known.get(one, self._of_strangers) if _has_hash(one) else _STRANGER for one in flat])
        if self._of_strangers >= 0:  # of another type than all labels: not even strangers
            for i in np.flatnonzero(found == self._of_strangers).tolist():
                if flat[i] is not None and not isinstance(flat[i], self._kinds):
                    found[i] = _STRANGER
        found = found.reshape(array.shape)
        if not found.size or found.min() > _STRANGER:
            return found
        for where in wrong(found == _STRANGER):
            missing = ", or None where there is no target" if may_miss else ""
            expected = f"labels among {check.shown(list(self.labels))}{missing}"
            if self._of_strangers >= 0:
                expected = f"labels that are {' or '.join(sorted({type(one).__name__ for one in self.labels}))}"
            label = array[where].item() if isinstance(array[where], np.generic) else array[where]
            cure = self._cure(label, is_token=not allow_empty and not may_miss)
            place = f" at {list(where)}" if where else ""
            raise ValueError(f"{name} must hold {expected}, got {check.shown(label)}{place}{cure}")
        return found.clip(-1)

    def code(self, value: Any, name: str) -> int:
        """The number of one label, which has to be among them."""
        if not _has_hash(value) or value not in self._codes:
            cure = self._cure(value, is_token=False)
            raise ValueError(
                f"{name} must be one of the labels {check.shown(list(self.labels))}, got {check.shown(value)}{cure}"
            )
        return self._codes[value]

    def spelled(self, text: str, name: str) -> list[str]:
        """A sequence of characters, if these are the labels."""
        if not self.are_characters:
            split = check.shown(str(text))
            raise TypeError(f"{name} must be a sequence of labels, got {split}: a list of some, as of {split}.split()")
        return list(text)

    def _spelled(self, value: Any, name: str, shapes: Sequence[Shape]) -> Any:
        """A str that stands for a sequence as that."""
        if not isinstance(value, str):
            return value
        is_one = () in shapes and (len(shapes) == 1 or value in self._codes or not self.are_characters)
        return value if is_one else self.spelled(value, name)

    def _cure(self, label: Any, *, is_token: bool) -> str:
        """What may have been meant, or what takes a stranger."""
        if isinstance(label, str):
            near = difflib.get_close_matches(label, [one for one in self.labels if isinstance(one, str)], 1)
            if near:
                return f": perhaps {near[0]!r}"
        takes_none = is_token and self._of_strangers < 0
        return ": with unknown='<unk>', Tokens take all others for that one" if takes_none else ""


class Named(Kind):
    """Tokens or categories, which labels may stand for: given, or those of the data that `fit` is given."""

    labels: Any = None  # a tuple; "fit" before `fit` has found them
    unknown: Any = None  # the one that stands for all others
    _coder: Coder | None = None
    _learnable: ClassVar[frozenset[str]] = frozenset(("labels",))

    def _put(self, **values: Any) -> None:
        super()._put(**values)
        if "labels" in values:
            labels = values["labels"]
            super()._put(_coder=Coder(labels, self.unknown) if isinstance(labels, tuple) else None)

    @property
    def waits_for(self) -> str | None:
        return "labels='fit'" if isinstance(self.labels, str) else super().waits_for

    @property
    def coder(self) -> Coder:
        """What makes numbers of labels, where there are some; an error where they are not known yet."""
        self.check_known()
        assert self._coder is not None
        return self._coder

    @property
    def nameless(self) -> slice | None:
        """The numbers that no label stands for, if there are some."""
        n = len(self.labels) if isinstance(self.labels, tuple) else self.n
        return slice(n, self.n) if n < self.n else None

    def check_known(self) -> None:
        if isinstance(self.labels, str):
            check.refuse("labels='fit' are not known yet: the data of `fit` say them, or give a list")

    def are_spelled(self, value: Any) -> bool:
        """Whether it is a list of sequences that are str, of characters: not of such labels themselves."""
        is_list = isinstance(value, (list, tuple, np.ndarray)) and getattr(value, "ndim", 1) == 1
        is_list = is_list and all(isinstance(one, str) for one in value)
        return is_list and self.labels is not None and self.coder.are_characters and any(len(one) > 1 for one in value)

    def named(self, codes: Int) -> Any:
        """Numbers (...) as labels, if there are some."""
        return codes if self.labels is None else self.coder.decoded(codes)

    def code(self, value: Any, name: str) -> int:
        """The number of one."""
        if self.labels is None:
            return check.below(value, name, self.n)
        return self.coder.code(value, name)

    def learn_labels(self, found: set[Any], name: str) -> None:
        """Take the labels that there are in data."""
        labels = _accepted(in_order(found), f"labels of {name}", self.unknown)
        if len(labels) > self.n:
            raise ValueError(f"n must have room for the labels of {name}, {len(labels)}, got {self.n}")
        self._put(labels=labels)


def room(n: int | None, labels: Any, unknown: Any = None) -> tuple[Any, Any]:
    """n and labels, as a constructor is given them."""
    if labels is None:
        if unknown is not None:
            check.refuse(f"unknown must be None without labels, got {check.shown(unknown)}")
        return n, None
    if isinstance(labels, str):
        if labels != "fit":
            raise ValueError(f"labels must be a list or 'fit', got {check.shown(labels)}: list({labels!r:.20})")
        if n is None:
            raise TypeError("n must be a positive int with labels='fit', which it has room for, got None")
        return n, labels
    if not isinstance(labels, (list, tuple, np.ndarray)) or getattr(labels, "ndim", 1) != 1:
        raise TypeError(f"labels must be a list of str, int or bool, or 'fit', got {check.shown(labels)}")
    labels = _accepted(labels, "labels", unknown)
    if n is not None and check.size(n, "n") < len(labels):
        raise ValueError(f"n must have room for {len(labels)} labels, got {n}: without it, it is their number")
    return len(labels) if n is None else n, labels


def in_order(found: set[Any]) -> list[Any]:
    """Labels, sorted, by type where there are several."""
    return sorted(found, key=lambda one: (type(one).__name__, one))


def as_labels(value: Any, name: str) -> NDArray[Any]:
    """An array of labels as they are; of a list, of objects, as NumPy would make str of numbers among these."""
    if isinstance(value, (list, tuple, str)):
        return check.as_array(value, name, object)
    return check.as_array(value, name)


def learn_labels(
    X: Any, Y: Any, inputs: Kind, outputs: Kind, pattern: Any, held_out: float | None, *, are_one: bool = False
) -> None:
    """Let tokens and categories that wait for labels have those of a data set, all but this last part of it.

    are_one: whether both have the same, if both wait.
    """
    given: dict[str, Any] = {"X": (inputs, X, pattern.one_input), "Y": (outputs, Y, pattern.one_output)}
    found, waiting = dict[str, set[Any]](), dict[str, Any]()
    for name, (kind, sequences, are_items) in given.items():
        if isinstance(kind.labels, str):
            if callable(X):
                check.refuse("X must be data with labels='fit', which all of it says, got a function")
            waiting[name], found[name] = kind, labels_of(sequences, name, held_out, are_items=are_items)
    are_one = are_one and len(waiting) == 2
    for name, kind in waiting.items():
        kind.learn_labels(set().union(*found.values()) if are_one else found[name], "X and Y" if are_one else name)


def labels_of(sequences: Any, name: str, held_out: float | None = None, *, are_items: bool = False) -> set[Any]:
    """The labels that there are in a data set, all but its last part; None is none."""
    value = checks.one_for_each(sequences, name)
    n = len(value) - (0 if held_out is None else round(len(value) * held_out))
    is_array = isinstance(value, np.ndarray) and value.dtype != object and value.ndim > 1
    if hasattr(value, "stretch"):  # of windows
        parts: Iterable[Any] = [value.stretch(n)]
    else:
        row = (lambda i: value[i].as_py()) if is_column(value) else functools.partial(row_of, value)
        parts = [value[:n]] if is_array or are_items else map(row, range(n))
    found = set[Any]()
    for part in parts:
        array = as_labels(list(part) if isinstance(part, str) else part, name)
        try:
            found.update(array.ravel().tolist() if array.dtype == object else np.unique(array).tolist())
        except TypeError:
            raise TypeError(f"{name} must hold labels with labels='fit', got {check.shown(part)}") from None
    labels = {one.item() if isinstance(one, np.generic) else one for one in found - {None}}
    for one in labels:
        if not _is_label(one):
            cure = ": None stands for a missing target" if isinstance(one, float) and one != one else ""
            raise TypeError(f"{name} must hold labels that are str, int or bool, got {check.shown(one)}{cure}")
    return labels


def _is_label(value: Any) -> bool:
    return isinstance(value, (str, bool, np.bool_)) or check.is_int(value)


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _accepted(labels: Iterable[Any], name: str, unknown: Any) -> tuple[Any, ...]:
    """Labels, with that of unknown ones, as Python has them: some, each once."""
    own = list[Any]()
    for i, label in enumerate(labels):
        if not _is_label(label):
            raise TypeError(f"{name} must be str, int or bool, got {check.shown(label)} at [{i}]")
        own.append(label.item() if isinstance(label, np.generic) else label)
    if unknown is not None and not _is_label(unknown):
        raise TypeError(f"unknown must be a str, an int or a bool, got {check.shown(unknown)}")
    own += [] if unknown is None or unknown in own else [unknown]
    if not own:
        raise ValueError(f"{name} must hold at least one")
    if len(set(own)) < len(own):
        twice = Counter(own).most_common(1)[0][0]
        raise ValueError(f"{name} must be different, got {check.shown(twice)} more than once")
    return tuple(own)
