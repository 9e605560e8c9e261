"""What comes out of a model: each kind of output with its loss, its targets, and what is predicted from it.

The loss of a model is the mean over all steps that have a target, weighted if there are weights:
Σ weight · loss / Σ weight. The loss of a step with several labels or numbers is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.attributes import Checked
from elman.backends.reference import ACTIVATIONS
from elman.check import Shape
from elman.data import checks
from elman.data.checks import Read
from elman.lengths import clipped, within
from elman.typing import Int, Real

_sigmoid = ACTIVATIONS["sigmoid"][0]


Scored = tuple[Any, Any, Real]  # targets, predictions and weights of some steps


def _mean(parts: Iterable[tuple[Any, Real]]) -> float:
    """Of values (N,) with weights (N,)."""
    total, weight = 0.0, 0.0
    for values, weights in parts:
        total += float((values * weights).sum())
        weight += float(weights.sum())
    return total / weight


class Output(Checked):
    """What all kinds of output have. Outputs o are what the readout gives, before softmax or sigmoid."""

    loss: ClassVar[str]  # of the kernel contract
    metric: ClassVar[str]  # what `score` measures
    is_mean: ClassVar[bool] = True  # whether the loss of a step is the mean over n outputs; kernels compute the sum
    _fixed = frozenset(("n", "class_weights"))
    n: int
    class_weights: NDArray[np.float64] | None  # one for each category, or for 0 and 1

    def __init__(self, n: int, class_weights: Any = None, n_classes: int | None = None) -> None:
        self.n = check.size(n, "n")
        given = class_weights is not None
        self.class_weights = checks.class_weights(class_weights, n_classes or self.n) if given else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"class_weights": None} | state)  # older pickles have it only where there are some

    def __repr__(self) -> str:
        given = "" if self.class_weights is None else f", class_weights={self.class_weights.tolist()}"
        return f"{type(self).__name__}({self.n}{given})"

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Any:
        """Validated targets: of one of these shapes, with another axis of n unless the targets are categories.

        What is not to be `read` may be anything, and becomes something harmless.
        """
        raise NotImplementedError

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        """Which of the targets are some."""
        return np.ones(y.shape[:-1], dtype=bool)

    def class_weight(self, y: Real | Int) -> Real:
        """The class weight of each target, whatever it may be where there is none."""
        raise NotImplementedError

    def predict(self, o: Real) -> Real | Int:
        """The likeliest label, or the numbers, for outputs o (..., n)."""
        raise NotImplementedError

    def probabilities(self, o: Real) -> Real:
        """For outputs o (..., n)."""
        raise NotImplementedError

    def curved(self, o: Real, d_o: Real) -> Real:
        """The second derivative of a step's loss, summed over labels or numbers, times a tangent d_o of o (..., n)."""
        raise NotImplementedError

    def score(self, parts: Iterable[Scored]) -> float:
        """How good predictions (N, ...) are for targets y (N, ...), with weights (N,): of all parts together."""
        raise NotImplementedError

    def feed(self, y: Real | Int, out: Real) -> None:
        """Write targets or predictions y as the input columns (..., n) of the step after them."""
        out[...] = y


class Categories(Output):
    """One of n categories at each step: softmax and cross-entropy. Targets are integers, −1 where there is none.

    Parameters
    ----------
    n : int
    class_weights : numbers (n,), optional
        What a target of each category counts, in the loss and its mean; 1 by default.

    Examples
    --------
    >>> Categories(27)
    Categories(27)
    """

    loss = "cross_entropy"
    metric = "accuracy"
    is_mean = False

    def __init__(self, n: int, *, class_weights: Any = None) -> None:
        super().__init__(n, class_weights)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Int:  # noqa: ARG002
        return checks.categories(y, name, self.n, shapes, read)

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        return np.asarray(y >= 0)

    def class_weight(self, y: Real | Int) -> Real:
        assert self.class_weights is not None
        return self.class_weights.take(y.astype(np.int64, copy=False), mode="clip")

    def predict(self, o: Real) -> Int:
        return np.asarray(o.argmax(axis=-1), dtype=np.int64)

    def probabilities(self, o: Real) -> Real:
        p = np.exp(o - o.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        return np.asarray(p)

    def curved(self, o: Real, d_o: Real) -> Real:
        p = self.probabilities(o)
        mean: Real = (p * d_o).sum(axis=-1, keepdims=True)
        return p * (d_o - mean)

    def score(self, parts: Iterable[Scored]) -> float:
        return _mean((y == predicted, weights) for y, predicted, weights in parts)

    def feed(self, y: Real | Int, out: Real) -> None:
        out[...] = np.arange(self.n) == y[..., None]


class Binary(Output):
    """n labels at each step, each of them 0 or 1: sigmoid and binary cross-entropy, their mean over the labels.

    Targets are bool, integers or reals from 0 to 1. Several of the labels may be 1 at once.

    Parameters
    ----------
    n : int
    class_weights : numbers (2,), optional
        What a target of 0 and one of 1 count, in the loss and its mean. Needs n = 1, as a step has one weight.

    Examples
    --------
    >>> Binary()
    Binary(1)
    """

    loss = "binary_cross_entropy"
    metric = "accuracy"

    def __init__(self, n: int = 1, *, class_weights: Any = None) -> None:
        if class_weights is not None and check.size(n, "n") > 1:
            check.refuse(f"class_weights must be None for n = {n} labels, as a step has one weight")
        super().__init__(n, class_weights, n_classes=2)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Real:
        return checks.numbers(y, name, dtype, self.n, shapes, read, kinds="biuf", most=1)

    def class_weight(self, y: Real | Int) -> Real:
        assert self.class_weights is not None
        zero, one = self.class_weights
        with np.errstate(all="ignore"):  # beyond the lengths there is anything
            return np.asarray(zero + (one - zero) * y[..., 0].astype(np.float64))

    def predict(self, o: Real) -> Int:
        return (o > 0).astype(np.int64)

    def probabilities(self, o: Real) -> Real:
        return np.asarray(_sigmoid(o))

    def curved(self, o: Real, d_o: Real) -> Real:
        p = self.probabilities(o)
        return p * (1 - p) * d_o

    def score(self, parts: Iterable[Scored]) -> float:
        return _mean((((y >= 0.5) == predicted).mean(axis=1), weights) for y, predicted, weights in parts)


class Reals(Output):
    """n real numbers at each step: the outputs as they are, and the mean of the squared errors.

    Examples
    --------
    >>> Reals(3)
    Reals(3)
    """

    loss = "squared_error"
    metric = "r2"

    def __init__(self, n: int = 1) -> None:
        super().__init__(n)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Real:
        return checks.numbers(y, name, dtype, self.n, shapes, read, kinds="iuf")

    def predict(self, o: Real) -> Real:
        return o.copy()

    def probabilities(self, o: Real) -> Real:  # noqa: ARG002
        check.refuse(f"predict_proba needs outputs that are Categories or Binary, got {self}")

    def curved(self, o: Real, d_o: Real) -> Real:  # noqa: ARG002
        return 2 * d_o

    def score(self, parts: Iterable[Scored]) -> float:
        """R²: the part of the targets' variance that is explained, the mean over the n numbers."""
        total, mean, spread, rest = 0.0, np.zeros(self.n), np.zeros(self.n), np.zeros(self.n)
        for own_y, predicted, own_weights in parts:
            if not (n := own_weights.sum()):
                continue
            y, weights = own_y.astype(np.float64), own_weights[:, None]
            rest += (weights * (y - predicted) ** 2).sum(axis=0)
            own_mean = (weights * y).sum(axis=0) / n
            spread += (weights * (y - own_mean) ** 2).sum(axis=0)
            spread += (own_mean - mean) ** 2 * (total * n / (total + n))  # Chan, Golub & LeVeque (1983), eq. 2.1b
            mean += (own_mean - mean) * (n / (total + n))
            total += n
        explained = 1 - rest / np.where(spread > 0, spread, 1)
        return float(np.where(spread > 0, explained, rest == 0).mean())


class Targets(NamedTuple):
    """What the outputs of a batch are compared with."""

    y: Real | Int  # categories (T, B), or (T, B, n)
    lengths: Int | None  # (B,); None where all are T
    weights: Real | None  # (T, B), class weights included; None for 1
    total: float  # the sum of the weights of all targets

    @classmethod
    def of(cls, outputs: Output, y: Any, lengths: Int | None, weights: Real | None, dtype: np.dtype[Any]) -> Targets:
        """Targets y that count what `weights` and the outputs' class weights say."""
        if outputs.class_weights is not None:
            by_class = outputs.class_weight(y)
            with np.errstate(all="ignore"):  # beyond the lengths there is anything
                weights = np.asarray(by_class if weights is None else by_class * weights, dtype=dtype)
        return cls(y, lengths, weights, total_weight(outputs, y, weights, lengths))

    def stretch(self, start: int, stop: int) -> Targets:
        """Those of the steps from `start` to `stop`; `total` stays that of all."""
        y, weights = self.y[start:stop], None if self.weights is None else self.weights[start:stop]
        return Targets(y, clipped(self.lengths, start, len(y)), weights, self.total)


def total_weight(outputs: Output, y: Real | Int, weights: Real | None, lengths: Int | None) -> float:
    """The sum of the weights of the steps that have a target; exact, so that it does not depend on padding."""
    n_steps, n_rows = y.shape[:2]
    if weights is None and not isinstance(outputs, Categories):
        return float(n_steps * n_rows if lengths is None else lengths.sum())
    counts: Any = y >= 0 if weights is None else outputs.has_target(y)
    if lengths is not None:
        counts &= within(n_steps, lengths)
    return float(np.count_nonzero(counts)) if weights is None else checks.finite_sum(weights[counts].tolist())


def finite_outputs(values: Any, what: str = "output", lengths: Int | None = None) -> None:
    """Say so where there is nothing to predict from: in outputs (T, B, O), within the lengths, or in losses."""
    values = np.asarray(values)
    if check.is_finite(values):
        return
    wrong = ~np.isfinite(values)
    if lengths is not None:
        wrong &= within(len(wrong), lengths)[..., None]
    for value in values[wrong][:1]:
        raise FloatingPointError(f"the {what} is {value}: the parameters, or states, are not finite, or far too large")


def penalize(h: Real, lengths: Int | None, scales: tuple[float, float], d_h: Real | None) -> float:
    """scales · (Σ |h|, Σ h²) of y (T, B, K) within the lengths; its gradient is added to d_h, unless None."""
    (l1, l2), total = scales, 0.0
    for t in range(0, len(h), 64):  # a few steps at a time, for the sake of memory
        part = h[t : t + 64]
        kept = part if lengths is None else part[within(len(part), lengths - t)]
        with np.errstate(all="ignore"):
            if l1:
                total += l1 * float(np.abs(kept).sum(dtype=np.float64))
                if d_h is not None:
                    d_h[t : t + 64] += l1 * np.sign(part)
            if l2:
                total += l2 * float(np.square(kept, dtype=np.float64).sum())
                if d_h is not None:
                    d_h[t : t + 64] += 2 * l2 * part
    return total
