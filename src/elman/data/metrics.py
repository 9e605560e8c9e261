"""What is measured of predictions besides the loss: by name, from sums in float64, or by functions of a user's own.

A tally takes the targets that count, what is predicted for them and their weights, some at a time. Its methods that
`names` has are metrics.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data import losses
from elman.data.scaler import Moments
from elman.typing import Int, Real

Scored = tuple[Any, Any, Real]  # targets, predictions and weights of some steps
Metric = str | Callable[..., Any]

OF_LOSS: dict[str, Callable[[float], float]] = {  # the cross-entropy of categories, in nats
    "perplexity": lambda loss: float(np.exp(loss)),
    "bits_per_token": lambda loss: loss / math.log(2),
}
_UNBOUNDED = {"r2", *OF_LOSS}  # which may be infinite, or nearly
_WEIGHTS = "sample_weight", "weights"  # what functions call them


class Tally:
    """Sums over parts of a data set."""

    names: ClassVar[tuple[str, ...]]

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """Targets, predictions and weights (N,) of some steps, or sequences."""
        raise NotImplementedError


class Counts(Tally):
    """How often each of some classes is there, is found, and is both: (classes, columns)."""

    names = "accuracy", "balanced_accuracy", "f1"

    def __init__(self, n_classes: int, n_columns: int = 1, *, is_binary: bool = False) -> None:
        self._is_binary = is_binary
        self._there, self._found, self._hits = np.zeros((3, n_classes, n_columns))

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """Categories (N,), or labels (N, n), which are 1 from one half on."""
        if self._is_binary:
            y = y >= 0.5
            for c in (0, 1):
                for total, at in ((self._there, y == c), (self._found, predicted == c)):
                    total[c] += weights @ at
                self._hits[c] += weights @ ((y == c) & (predicted == c))
            return
        n, right = len(self._there), y == predicted
        for total, given, own in (
            (self._there, y, weights), (self._found, predicted, weights), (self._hits, y[right], weights[right])
        ):  # fmt: skip
            total[:, 0] += np.bincount(given, own, n)

    def accuracy(self) -> float:
        """The part that is right."""
        return float((self._hits.sum(axis=0) / self._there.sum(axis=0)).mean())

    def balanced_accuracy(self) -> float:
        """That of each class, the mean over those that are there; and over labels."""
        return _mean_where(self._there > 0, self._hits, self._there)

    def f1(self) -> float:
        """2 · hits / (there + found), the mean over the classes that are one of both; of labels that for 1."""
        n = self._there + self._found
        if self._is_binary:
            return float((2 * self._hits[1] / np.where(n[1] > 0, n[1], 1)).mean())
        return _mean_where(n > 0, 2 * self._hits, n)


def _mean_where(counts: NDArray[np.bool_], part: Real, whole: Real) -> float:
    """Of part / whole (classes, columns): over the classes that count, then over columns."""
    ratios = part / np.where(counts, whole, 1)
    return float(((ratios * counts).sum(axis=0) / counts.sum(axis=0)).mean())


class Errors(Tally):
    """Of n numbers, each of which may be missing: NaN."""

    names = "r2", "mean_squared_error", "root_mean_squared_error", "mean_absolute_error"

    def __init__(self, n: int) -> None:
        self._moments = Moments(n)
        self._squares, self._absolute = np.zeros((2, n))

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """Numbers (N, n)."""
        there = ~np.isnan(y)
        y, weights = np.where(there, y, 0).astype(np.float64), weights[:, None] * there
        errors = y - predicted
        self._squares += (weights * errors**2).sum(axis=0)
        self._absolute += (weights * np.abs(errors)).sum(axis=0)
        self._moments.add(y, weights)

    def r2(self) -> float:
        """The part of the targets' variance that is explained, the mean over the n numbers."""
        spread = self._moments.spread
        explained = 1 - self._squares / np.where(spread > 0, spread, 1)
        return float(np.where(spread > 0, explained, self._squares == 0)[self._moments.total > 0].mean())

    def mean_squared_error(self) -> float:
        return float(self._squares.sum() / self._moments.total.sum())

    def root_mean_squared_error(self) -> float:
        """The mean over the n numbers."""
        there = self._moments.total > 0
        return float(np.sqrt(self._squares[there] / self._moments.total[there]).mean())

    def mean_absolute_error(self) -> float:
        return float(self._absolute.sum() / self._moments.total.sum())


class Quantiles(Tally):
    """Of numbers, each of which may be missing, and several quantiles of each."""

    names = "mean_pinball_loss", "coverage"

    def __init__(self, quantiles: Sequence[float]) -> None:
        self._pinball, self._total, self._loss, self._within = losses.pinball(quantiles), 0.0, 0.0, 0.0

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """Numbers (N, n) and quantiles (N, n, Q)."""
        there = ~np.isnan(y)
        y, weights = np.where(there, y, 0), weights[:, None] * there
        each, _ = self._pinball(predicted.astype(np.float64), y)
        self._loss += float((each * weights).sum())
        self._within += float((((predicted[..., 0] <= y) & (y <= predicted[..., -1])) * weights).sum())
        self._total += float(weights.sum())

    def mean_pinball_loss(self) -> float:
        """The mean over the quantiles."""
        return self._loss / self._total

    def coverage(self) -> float:
        """The part of the targets from the lowest quantile to the highest."""
        return self._within / self._total


class Edits(Tally):
    """Of labels of sequences."""

    names = ("label_error",)

    def __init__(self) -> None:
        self._wrong, self._n = 0.0, 0.0

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """Lists of labels (U_i,)."""
        for expected, found, weight in zip(y, predicted, weights, strict=True):
            self._wrong += float(weight) * losses.edit_distance(found, expected)
            self._n += float(weight) * len(expected)

    def label_error(self) -> float:
        """The edit distance of the labels that are predicted, divided by how many there are (Graves et al., 2006)."""
        return self._wrong / max(self._n, 1)


class Exact(Tally):
    """Of sequences that are right or wrong as a whole."""

    names = ("exact",)

    def __init__(self) -> None:
        self._each = list[bool]()

    def add(self, y: Any, predicted: Any, weights: Real) -> None:  # noqa: ARG002 - there are none
        """Lists of tokens (U_i,)."""
        self._each += map(np.array_equal, y, predicted)

    def exact(self) -> float:
        """The part that is right from the first token to the end."""
        return float(np.mean(self._each))


class Metrics(NamedTuple):
    """What is to be measured: names, some of them of functions."""

    names: Sequence[str]
    functions: Mapping[str, Callable[..., Any]]
    are_given: bool

    @classmethod
    def of(cls, given: Any, known: Sequence[str]) -> Metrics:
        """From an argument `metrics`: names that are known, functions, or functions by name; None for the first one."""
        if given is None:
            return cls(known[:1], {}, are_given=False)
        if isinstance(given, str) or not isinstance(given, Iterable):
            cure = f": [{given!r}]" if isinstance(given, str) else ""
            raise TypeError(f"metrics must be a list of names and functions, got {check.shown(given)}{cure}")
        names, functions = list[str](), dict[str, Callable[..., Any]]()
        for i, (place, name, metric) in enumerate(_each(given)):
            if callable(metric):
                functions[name := name or _name_of(metric, place)] = metric
            else:
                name = check.choice(metric, place, known)
            if name in ("loss", *names):
                raise ValueError(f"metrics must have other names than 'loss' and one another, got {name!r} at [{i}]")
            names.append(name)
        return cls(names, functions, are_given=True)

    def check_data(self, data: Any) -> None:
        """Refuse to measure what is not held out, and functions that would not know of weights."""
        if data is None and self.are_given:
            check.refuse(
                "metrics must be None where there is neither validation_data nor validation_split, of which they are, "
                f"got {check.listed(self.names)}"
            )
        for name, function in self.functions.items():
            if getattr(data, "weights", None) is not None and _weights_name(function) is None:
                raise TypeError(f"metrics[{name!r}] must take sample_weight where there are weights, got {function!r}")

    @property
    def unbounded(self) -> set[str]:
        """The names of those that may be any number, infinity and NaN among them."""
        return {*self.functions, *_UNBOUNDED}


def _each(given: Iterable[Any]) -> list[tuple[str, str, Any]]:
    """What an item is called in messages, its name if that is given, and the metric."""
    if isinstance(given, Mapping):
        for name, function in given.items():
            if not (isinstance(name, str) and name.isprintable() and name):
                raise TypeError(f"metrics must have names that are text, got {check.shown(name)}")
            check.function(function, f"metrics[{name!r}]")
        return [(f"metrics[{name!r}]", name, function) for name, function in given.items()]
    return [(f"metrics[{i}]", "", metric) for i, metric in enumerate(given)]


def _name_of(function: Callable[..., Any], place: str) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    if not name.isidentifier():  # of a lambda
        raise ValueError(f"{place} must have a name, got {function!r}: give a dict from names to functions")
    return str(name)


def _weights_name(function: Callable[..., Any]) -> str | None:
    """What a function calls weights; None if it does not take them."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of what is written in C
        return None
    return next((name for name in _WEIGHTS if name in parameters), None)


class Measured:
    """What a data set comes to."""

    def __init__(
        self, metrics: Metrics, tally: Tally, named: Callable[[Any], Any], *, are_weighted: bool = False
    ) -> None:
        """named: what makes labels of categories; are_weighted: whether functions are to know of weights."""
        self._metrics, self._tally, self._named, self._are_weighted = metrics, tally, named, are_weighted
        self._parts = list[Scored]()  # for functions, which see all at once

    def add(self, y: Any, predicted: Any, weights: Real) -> None:
        """As a tally's."""
        self._tally.add(y, predicted, weights)
        if self._metrics.functions:
            self._parts.append((self._told(y), self._told(predicted), weights))

    def _told(self, y: Any) -> Any:
        return [*map(self._named, y)] if isinstance(y, list) else self._named(y)

    def values(self, loss: float) -> dict[str, float]:
        """The loss, and the metrics by name."""
        found, together = {"loss": loss}, tuple(_joined(each) for each in zip(*self._parts, strict=True))
        for name in self._metrics.names:
            if name in self._metrics.functions:
                found[name] = self._called(name, together)
            elif name in OF_LOSS:
                found[name] = OF_LOSS[name](loss)
            else:
                found[name] = getattr(self._tally, name)()
        return found

    def _called(self, name: str, together: tuple[Any, ...]) -> float:
        function, (y, predicted, weights) = self._metrics.functions[name], together
        weights_name = _weights_name(function) if self._are_weighted else None
        value = function(y, predicted, **({weights_name: weights} if weights_name else {}))
        return check.number(_item(value), f"what metrics[{name!r}] returns", "a number", lambda _: True)


def _item(value: Any) -> Any:
    """The number in an array without axes."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _joined(parts: Sequence[Any]) -> Real | Int | list[Any]:
    """(N,) or (N, n) of all parts, without the axis of a single number; or a list of sequences."""
    if isinstance(parts[0], list):
        return [row for rows in parts for row in rows]
    whole = np.concatenate(parts)
    return whole[:, 0] if whole.ndim > 1 and whole.shape[1] == 1 else whole
