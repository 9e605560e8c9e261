"""What comes out of a model: each kind of output with its loss, its targets, and what is predicted from it.

The loss of a model is the mean over all steps that have a target, weighted if there are weights:
Σ weight · loss / Σ weight. The loss of a step with several labels or numbers is their mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.backends.reference import ACTIVATIONS
from elman.check import Shape
from elman.data import checks, losses, metrics
from elman.data.checks import Read
from elman.data.learned import Kind
from elman.data.metrics import Scored, Tally
from elman.data.named import Named, room
from elman.data.scaler import Scaler, known, unscaled
from elman.lengths import clipped, within
from elman.typing import Int, Real

_sigmoid = ACTIVATIONS["sigmoid"][0]
_LARGEST_COUNT = 1e15  # that a mean may be where counts are drawn, of int64


class Output(Kind):
    """What all kinds of output have. Outputs o are what the readout gives, before softmax or sigmoid."""

    kernel: ClassVar[str]  # the loss of the kernel contract that says what outputs are
    loss: Any  # that one; another one's name, a function, or None for that of a distribution
    is_of_sequences: ClassVar[bool] = False  # whether a target is that of a sequence, none of whose steps has its own
    class_weights: Any = None  # one for each category, or for 0 and 1; "balanced" before `fit` has found them
    missing: float | None = None  # NaN where that stands for a target that is not there
    _fixed = frozenset(("n", "loss", "class_weights"))
    _learnable = frozenset((*Kind._learnable, "class_weights"))

    def __init__(self, n: int, loss: Any = None, class_weights: Any = None, n_classes: int | None = None) -> None:
        super().__init__(n)
        if loss is not None:
            self._put(loss=check.function(loss, "loss"))
        if isinstance(class_weights, str):
            if class_weights != "balanced":
                raise ValueError(f"class_weights must be numbers or 'balanced', got {class_weights!r}")
            self._put(class_weights=class_weights)
        elif class_weights is not None:
            self._put(class_weights=checks.class_weights(class_weights, n_classes or self.n))

    @property
    def n_units(self) -> int:
        """The O of the readout."""
        return self.n

    @property
    def n_reals(self) -> int:
        """How many reals a step's loss takes at once, at most; as `tracemalloc` sees the losses of numbers."""
        return self.n_units * (1 if self.is_in_kernels else 32)

    @property
    def nameless(self) -> slice | None:
        """The units that stand for nothing, if there are some: a room for labels that is larger than need be."""
        return None

    @property
    def is_in_kernels(self) -> bool:
        """Whether the kernels compute its loss."""
        return isinstance(self.loss, str) and self.loss == self.kernel and self.missing is None

    @property
    def is_mean(self) -> bool:
        """Whether the loss of a step is the mean over n outputs, of which the sum is computed."""
        return not callable(self.loss) and self.kernel != "cross_entropy"

    @property
    def needs_unit_size(self) -> bool:
        """Whether targets are compared with outputs, which begin at about 1, as they are."""
        return False

    @property
    def may_feed(self) -> bool:
        """Whether what is predicted may be the input of the next step."""
        return True

    def differentiated(self, o: Real, y: Real | Int) -> tuple[Real, Real]:
        """The losses (N,) of outputs o (N, O) and targets, and the derivatives (N, O), where no kernel has them."""
        return losses.own(self.loss, o, y)

    # Class weights that the targets of `fit` say

    @property
    def waits_for(self) -> str | None:
        return "class_weights='balanced'" if isinstance(self.class_weights, str) else super().waits_for

    def learned_from(self, parts: Iterable[Real | Int]) -> dict[str, Any]:
        if not isinstance(self.class_weights, str):
            return super().learned_from(parts)
        return {"class_weights": self.balanced(np.asarray(functools.reduce(np.add, map(self.class_counts, parts))))}

    def class_counts(self, y: Real | Int) -> NDArray[np.float64]:
        """How many targets of each class there are among y (N, ...)."""
        raise NotImplementedError

    def balanced(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights with which all classes that there are count the same, given how many targets of each there are."""
        there = counts > 0
        weights = np.where(there, counts.sum() / (there.sum() * np.where(there, counts, 1)), 1)
        return checks.class_weights(weights, len(counts))

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Any:
        """Validated targets: of one of these shapes, with another axis of n unless the targets are categories.

        What is not to be `read` may be anything, and becomes something harmless.
        """
        raise NotImplementedError

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        """Which of the targets are some."""
        return np.ones(y.shape[:-1], dtype=bool)

    def share(self, y: Real | Int) -> Real:
        """Which part of each target (N, ...) is there, of those that are some."""
        return np.ones(len(y))

    def class_weight(self, y: Real | Int) -> Real:
        """The class weight of each target, whatever it may be where there is none."""
        raise NotImplementedError

    def predict(self, o: Real) -> Real | Int:
        """The likeliest label, or the numbers, for outputs o (..., n)."""
        raise NotImplementedError

    def answers(self, o: Real) -> Any:
        """What is predicted for outputs o (..., n), as users are told it."""
        return self.predict(o)

    def probabilities(self, o: Real) -> Real:
        """For outputs o (..., n)."""
        raise NotImplementedError

    def parameters(self, o: Real) -> tuple[Real, list[str]]:  # noqa: ARG002
        """Those of a distribution (..., n, k), with their names, for outputs o (..., O)."""
        check.refuse(f"predict_distribution needs outputs that are Reals with a distribution, got {self}")

    def interval(self, o: Real, ends: tuple[float, float]) -> Real:  # noqa: ARG002
        """(..., n, 2), for outputs o (..., O): the quantiles that are asked for."""
        check.refuse(f"predict_interval needs outputs that are Reals with a distribution or quantiles, got {self}")

    def curved(self, o: Real, d_o: Real) -> Real:
        """The second derivative of a step's loss, summed over labels or numbers, times a tangent d_o of o (..., n)."""
        raise NotImplementedError

    def scored(self, targets: Targets, predicted: Any, weights: Real) -> Scored:
        """Those of the targets of a batch that count, what is predicted for them, and the weights of these."""
        counts = targets.counts(self)
        return targets.y[counts], predicted[counts], weights

    def tally(self) -> Tally:
        """What adds up what `scored` gives of each batch."""
        raise NotImplementedError

    @property
    def metrics(self) -> list[str]:
        """The names of what can be measured of predictions, and of the loss; by default the first one is."""
        of_loss = metrics.OF_LOSS if self.kernel == "cross_entropy" and self.is_in_kernels else ()
        return [*self.tally().names, *of_loss]

    def feed(self, y: Real | Int, out: Real) -> None:
        """Write targets or predictions y as the input columns (..., n) of the step after them."""
        out[...] = y


class Categories(Named, Output):
    """One of n categories at each step: softmax and cross-entropy. Targets are integers, −1 where there is none.

    Parameters
    ----------
    n : int
        How many there are; by default as many as there are labels.
    labels : list of str, int or bool, or "fit", optional
        What targets are, and predictions: as for `Tokens`, in the order of the columns of `predict_proba`. A target is
        None where there is none, not −1.
    loss : function, optional
        One of your own in the place of the cross-entropy; see Notes.
    class_weights : numbers (n,) or "balanced", optional
        What a target of each category counts, in the loss and its mean; 1 by default. "balanced": what the targets of
        the first `fit` say, N / (k · N_c) for a category with N_c of N targets of k categories. The model has these
        numbers then, and its files too; before, it has no loss.

    Notes
    -----
    A loss of your own is a function f(o, y) of outputs o (N, n), and of the targets y of as many steps, integers (N,);
    for `Binary` and `Reals` numbers (N, n). It returns the loss of each step, (N,), and its derivative by o, (N, n).
    It is asked about steps that count alone, whose weights it need not know. A file cannot hold it.

    Examples
    --------
    >>> Categories(27)
    Categories(27)
    """

    kernel = loss = "cross_entropy"
    _fixed = frozenset((*Output._fixed, "labels"))
    _learnable = Named._learnable | Output._learnable

    def __init__(
        self, n: int | None = None, *, labels: Any = None, loss: Any = None, class_weights: Any = None
    ) -> None:
        n, labels = room(n, labels)
        super().__init__(n, loss, class_weights)
        if labels is not None:
            self._put(labels=labels)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Int:  # noqa: ARG002
        if self.labels is None:
            return checks.categories(y, name, self.n, shapes, read)
        return self.coder.codes(y, name, shapes, lambda wrong: checks.looked_at(wrong, read), may_miss=True)

    def written(self, y: Any, name: str, shape: Shape) -> Int:
        """A sequence (T,) of categories, all of them there, which may be none; or several, (N, T)."""
        if self.labels is None:
            return checks.token_sequence(y, name, self.n) if len(shape) == 1 else check.tokens(y, name, self.n, shape)
        own: dict[str, Any] = {"may_miss": False, "allow_empty": len(shape) == 1}
        return self.coder.codes(y, name, [shape], lambda wrong: checks.looked_at(wrong, None), **own)

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        return np.asarray(y >= 0)

    def class_weight(self, y: Real | Int) -> Real:
        weights: Real = self.class_weights.take(y.astype(np.int64, copy=False), mode="clip")
        return weights

    def class_counts(self, y: Real | Int) -> NDArray[np.float64]:
        return np.bincount(y, minlength=self.n).astype(np.float64)

    def predict(self, o: Real) -> Int:
        return np.asarray(o.argmax(axis=-1), dtype=np.int64)

    def answers(self, o: Real) -> Any:
        return self.named(self.predict(o))

    def probabilities(self, o: Real) -> Real:
        p = np.exp(o - o.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        return np.asarray(p)

    def curved(self, o: Real, d_o: Real) -> Real:
        p = self.probabilities(o)
        mean: Real = (p * d_o).sum(axis=-1, keepdims=True)
        return p * (d_o - mean)

    def tally(self) -> Tally:
        return metrics.Counts(self.n)

    def feed(self, y: Real | Int, out: Real) -> None:
        out[...] = np.arange(self.n) == y[..., None]


class Labels(Categories):
    """Labels of a sequence, in their order, but not at which steps: CTC (Graves et al., 2006).

    Targets are a list of labels from 0 to n − 1 for each sequence, fewer than it has steps: with one more step between
    two equal ones. Arrays have −1 behind the last one. Or what `labels` says, as for `Categories`: arrays have None
    there. The readout has a unit more, the last one, n, for the blank. The loss of a sequence is −log p, divided by the
    number of its labels (or 1), and that of a model the mean over sequences, weighted if there are weights (N,): that
    of ``torch.nn.functional.ctc_loss`` with ``blank=n`` and its ``reduction="mean"``. `predict` gives the labels of the
    likeliest unit at each step, without repeats and blanks.

    Needs pattern="many-to-many", and all steps at once: neither `tbptt` nor `memory`.

    Examples
    --------
    >>> import elman
    >>> model = elman.SequenceModel(elman.Features(2), Labels(3), hidden_size=16, seed=0)
    >>> X = np.eye(2)[[[0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]]
    >>> history = model.fit(X, [[0, 2, 0], [2, 0]], epochs=60, optimizer=elman.Adam(0.02), progress=False)
    >>> [labels.tolist() for labels in model.predict(X)]
    [[0, 2, 0], [2, 0]]
    """

    loss = "ctc"
    is_of_sequences = True

    def __init__(self, n: int | None = None, *, labels: Any = None) -> None:
        super().__init__(n, labels=labels)

    @property
    def n_units(self) -> int:
        return self.n + 1

    @property
    def may_feed(self) -> bool:
        return False

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        """That of a sequence, none of whose labels has a step, is at its first one."""
        return np.broadcast_to((np.arange(len(y)) == 0)[:, None], y.shape).copy()

    def predict(self, o: Real) -> Int:
        """Of outputs (T, ..., n + 1), the label that begins at each step, or −1."""
        path = o.argmax(axis=-1)
        begins = path < self.n
        begins[1:] &= path[1:] != path[:-1]
        return np.where(begins, path, -1)

    def scored(self, targets: Targets, predicted: Any, weights: Real) -> Scored:
        there, rows = within(len(predicted), _full(targets.lengths, predicted)), targets.counts(self)[0]
        y, found = ([row[row >= 0] for row in np.where(there, one, -1)[:, rows].T] for one in (targets.y, predicted))
        return y, found, weights

    def tally(self) -> Tally:
        return metrics.Edits()


class Binary(Output):
    """n labels at each step, each of them 0 or 1: sigmoid and binary cross-entropy, their mean over the labels.

    Targets are bool, integers or reals from 0 to 1. Several of the labels may be 1 at once.

    Parameters
    ----------
    n : int
    loss : function, optional
        One of your own in the place of the binary cross-entropy: see `Categories`.
    class_weights : numbers (2,) or "balanced", optional
        What a target of 0 and one of 1 count, in the loss and its mean, or that the targets of `fit` say so: see
        `Categories`. Needs n = 1, as a step has one weight.

    Examples
    --------
    >>> Binary()
    Binary(1)
    """

    kernel = loss = "binary_cross_entropy"

    def __init__(self, n: int = 1, *, loss: Any = None, class_weights: Any = None) -> None:
        if class_weights is not None and check.size(n, "n") > 1:
            check.refuse(f"class_weights must be None for n = {n} labels, as a step has one weight")
        super().__init__(n, loss, class_weights, n_classes=2)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Real:
        return checks.numbers(y, name, dtype, self.n, shapes, read, kinds="biuf", most=1)

    def class_weight(self, y: Real | Int) -> Real:
        zero, one = self.class_weights
        with np.errstate(all="ignore"):  # beyond the lengths there is anything
            return np.asarray(zero + (one - zero) * y[..., 0].astype(np.float64))

    def class_counts(self, y: Real | Int) -> NDArray[np.float64]:
        n_ones = float(y.sum(dtype=np.float64))
        return np.array([len(y) - n_ones, n_ones])

    def predict(self, o: Real) -> Int:
        return (o > 0).astype(np.int64)

    def probabilities(self, o: Real) -> Real:
        return np.asarray(_sigmoid(o))

    def curved(self, o: Real, d_o: Real) -> Real:
        p = self.probabilities(o)
        return p * (1 - p) * d_o

    def tally(self) -> Tally:
        return metrics.Counts(2, self.n, is_binary=True)


class Reals(Output):
    """n real numbers at each step: the outputs as they are, quantiles, or a distribution of each number.

    Parameters
    ----------
    n : int
    loss : str or function, optional
        What the loss of a number is, e being the error: "squared_error" e², the default; "absolute_error" ``|e|``;
        "huber" ½ e² up to ``|e| = 1`` and ``|e| − ½`` beyond (Huber, 1964); "quantile", the pinball loss (Koenker &
        Bassett, 1978). The loss of a step is the mean over its numbers. Or a function of your own: see `Categories`.
    quantiles : increasing numbers between 0 and 1
        Which ones to predict, with loss="quantile": `predict` has them in a last axis, sorted, so that they never
        cross.
    distribution : {"normal", "student_t", "poisson", "negative_binomial"}, optional
        Of each number by itself. The loss is the negative log-likelihood, with all constants. `predict` gives the mean,
        `predict_distribution` all parameters, which are read from as many units o of the readout, by s(o) =
        log(1 + exp(o)) where they have to be positive: "normal" has mean o and scale 10⁻⁶ + s(o); "student_t" the same
        and df 2 + 10⁻⁶ + s(o); "poisson" a mean 10⁻⁶ + s(o); "negative_binomial" the same and a dispersion 10⁻⁶ + s(o),
        with the variance mean + dispersion · mean² (Salinas et al., 2020). The last two are of counts.
    scaler : Scaler, optional
        What brings targets to about unit size: see `Features`. Losses, of your own, too, are of scaled numbers;
        predictions, metrics and what is generated are in the units of the targets, in float64, as a float32 has no more
        than seven digits. Not for counts.
    missing : NaN, optional
        With ``missing=np.nan``, targets that are NaN do not count: a step is as much less as it has less numbers, and
        the loss is the mean over all numbers that are there. With a loss of your own, a step with a NaN does not count.

    Examples
    --------
    >>> Reals(3)
    Reals(3)
    >>> Reals(2, loss="quantile", quantiles=(0.05, 0.5, 0.95))
    Reals(2, loss='quantile', quantiles=(0.05, 0.5, 0.95))
    """

    kernel = loss = "squared_error"
    quantiles: tuple[float, ...] | None = None
    distribution: str | None = None
    _fixed = frozenset((*Output._fixed, "quantiles", "distribution", "missing", "scaler"))

    def __init__(
        self,
        n: int = 1,
        *,
        loss: Any = None,
        quantiles: Any = None,
        distribution: str | None = None,
        scaler: Scaler | None = None,
        missing: float | None = None,
    ) -> None:
        super().__init__(n)
        self._put_scaler(scaler)
        if (quantiles is not None) != (isinstance(loss, str) and loss == "quantile"):
            check.refuse(f"quantiles must be given with loss='quantile', and only then, got {check.shown(quantiles)}")
        if distribution is not None and loss is not None:
            check.refuse(f"loss must be None with a distribution, which brings its own, got {check.shown(loss)}")
        if loss is not None:
            is_name = not callable(loss)
            self._put(loss=check.choice(loss, "loss", [*losses.POINTS, "quantile"]) if is_name else loss)
        if distribution is not None:
            name = check.choice(distribution, "distribution", losses.DISTRIBUTIONS)
            self._put(loss=None, distribution=name)
            if scaler is not None and losses.DISTRIBUTIONS[name].are_counts:
                check.refuse(f"scaler must be None with distribution={name!r}, which is of counts, got {scaler}")
        if quantiles is not None:
            self._put(quantiles=checks.quantiles(quantiles))
        if missing is not None:
            self._put(missing=check.number(missing, "missing", "None or NaN", math.isnan))

    @property
    def needs_unit_size(self) -> bool:
        return self.scaler is None and not self.are_counts and not callable(self.loss)

    @property
    def are_counts(self) -> bool:
        """Whether its targets are 0, 1, 2, …."""
        return self._law is not None and self._law.are_counts

    @property
    def _law(self) -> losses.Distribution | None:
        return None if self.distribution is None else losses.DISTRIBUTIONS[self.distribution]

    @property
    def n_units(self) -> int:
        return self.n * len(self.quantiles or (self._law.least if self._law else (0,)))

    @property
    def law(self) -> str:
        """How kernels read a number from its units: one of contract.LAWS."""
        if self._law is None:
            return "quantiles" if self.quantiles else "value"
        return "counts" if self._law.are_counts else str(self.distribution)

    @property
    def rank(self) -> int:
        """That of the median among the quantiles, or of what is nearest to it."""
        return int(np.abs(np.array(self.quantiles or (0.5,)) - 0.5).argmin())

    def draw_counts(self, rng: np.random.Generator, o: Real, name: str) -> Real:
        """Counts (B, n) for outputs o (B, O)."""
        assert self._law is not None
        assert self._law.draw is not None
        parameters = np.moveaxis(self.parameters(o)[0].astype(np.float64), -1, 0)
        finite_outputs(np.where(parameters[0] > _LARGEST_COUNT, np.inf, parameters[0]), name)
        return self._law.draw(rng, *parameters).astype(o.dtype)

    @property
    def may_feed(self) -> bool:
        return all(one is None for one in (self.quantiles, self.distribution, self.missing))

    def differentiated(self, o: Real, y: Real | Int) -> tuple[Real, Real]:
        if callable(self.loss):
            return super().differentiated(o, y)
        function = self._law.loss if self._law else losses.pinball(self.quantiles) if self.quantiles else None
        there = ~np.isnan(y)
        units = o.astype(np.float64).reshape(*y.shape, -1)
        each, d_o = (function or losses.POINTS[self.loss])(units, np.where(there, y, 0).astype(np.float64))
        return np.where(there, each, 0).sum(axis=1), np.where(there[..., None], d_o, 0).reshape(o.shape)

    def targets(self, y: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, read: Read | None = None) -> Real:
        own: dict[str, Any] = {"kinds": "iuf", "are_counts": self.are_counts, "may_miss": self.missing is not None}
        return checks.numbers(y, name, self.as_read(y, dtype), self.n, shapes, read, **own)

    def has_target(self, y: Real | Int) -> NDArray[np.bool_]:
        if self.missing is None:
            return super().has_target(y)
        there = ~np.isnan(y)
        return np.asarray(there.all(axis=-1) if callable(self.loss) else there.any(axis=-1))

    def share(self, y: Real | Int) -> Real:
        return np.asarray((~np.isnan(y)).mean(axis=-1))

    def predict(self, o: Real) -> Real:
        if self._law is not None:
            return np.ascontiguousarray(self.parameters(o)[0][..., 0])
        if self.quantiles is None:
            return self.unscaled(o.copy())
        return self._of_each(np.sort(self._by_number(o), axis=-1))

    def probabilities(self, o: Real) -> Real:  # noqa: ARG002
        check.refuse(f"predict_proba needs outputs that are Categories or Binary, got {self}")

    def parameters(self, o: Real) -> tuple[Real, list[str]]:
        if self._law is None:
            return super().parameters(o)
        found = self._law.parameters(self._by_number(o))
        if self.scaler is not None:  # mean and scale are the first two
            found = found.astype(np.float64)
            found[..., 0], found[..., 1] = self.unscaled(found[..., 0]), found[..., 1] * known(self.scaler)[1]
        return found, [*self._law.least]

    def interval(self, o: Real, ends: tuple[float, float]) -> Real:
        if self._law is not None:
            return self._of_each(self._law.quantiles(self._by_number(o), ends))
        if self.quantiles is None:
            return super().interval(o, ends)
        found = [i for end in ends for i, q in enumerate(self.quantiles) if math.isclose(q, end, abs_tol=1e-9)]
        if len(found) < 2:
            wanted = f"{ends[0]:.6g} and {ends[1]:.6g}"
            check.refuse(f"coverage must be what lies between two of the quantiles, got one for {wanted} of {self}")
        return self.predict(o)[..., found]

    def unscaled(self, values: Real) -> Real:
        """Numbers (..., n) in the units of the targets."""
        return values if self.scaler is None else unscaled(self.scaler, values)

    def _of_each(self, values: Real) -> Real:
        """Likewise, several of each number (..., n, k)."""
        return self.unscaled(values.swapaxes(-1, -2)).swapaxes(-1, -2)

    def scored(self, targets: Targets, predicted: Any, weights: Real) -> Scored:
        y, predicted, weights = super().scored(targets, predicted, weights)
        return self.unscaled(y), predicted, weights

    def _by_number(self, o: Real) -> Real:
        """(..., n, k), of units (..., n · k)."""
        return o.reshape(*o.shape[:-1], self.n, -1)

    def curved(self, o: Real, d_o: Real) -> Real:  # noqa: ARG002
        return 2 * d_o

    def tally(self) -> Tally:
        return metrics.Quantiles(self.quantiles) if self.quantiles else metrics.Errors(self.n)

    @property
    def metrics(self) -> list[str]:
        """Likewise, but where the absolute error is the loss, it is that."""
        is_absolute = isinstance(self.loss, str) and self.loss == "absolute_error"
        return sorted(super().metrics, key=lambda name: is_absolute and name != "mean_absolute_error")


class Targets(NamedTuple):
    """What the outputs of a batch are compared with."""

    y: Real | Int  # categories (T, B), or (T, B, n)
    lengths: Int | None  # (B,); None where all are T
    weights: Real | None  # (T, B), class weights included; None for 1
    total: float  # the sum of the weights of all targets

    @classmethod
    def of(cls, outputs: Output, y: Any, lengths: Int | None, weights: Real | None, dtype: np.dtype[Any]) -> Targets:
        """Targets y that count what `weights` and the outputs' class weights say."""
        if isinstance(outputs.class_weights, str):
            check.refuse("class_weights='balanced' are not known yet: the targets of `fit` say them, or give numbers")
        if outputs.class_weights is not None:
            by_class = outputs.class_weight(y)
            with np.errstate(all="ignore"):  # beyond the lengths there is anything
                weights = np.asarray(by_class if weights is None else by_class * weights, dtype=dtype)
        return cls(y, lengths, weights, total_weight(outputs, y, weights, lengths))

    def stretch(self, start: int, stop: int) -> Targets:
        """Those of the steps from `start` to `stop`; `total` stays that of all."""
        y, weights = self.y[start:stop], None if self.weights is None else self.weights[start:stop]
        return Targets(y, clipped(self.lengths, start, len(y)), weights, self.total)

    def counts(self, outputs: Output) -> NDArray[np.bool_]:
        """Which steps (T, B) have a target, within the lengths, of a weight above 0."""
        counts = outputs.has_target(self.y)
        if self.lengths is not None:
            counts = counts & within(len(self.y), self.lengths)
        return counts if self.weights is None else counts & (self.weights > 0)

    def differentiated(self, outputs: Output, o: Real) -> tuple[float, Real]:
        """The sum of losses that no kernel has, weighted, for outputs o (T, B, O), and its gradient by these."""
        counts, d_o = self.counts(outputs), np.zeros_like(o)
        if not counts.any():
            return 0.0, d_o
        if outputs.is_of_sequences:
            return self._unaligned(o, counts[0])
        with np.errstate(all="ignore"):  # the update says if they are not finite
            each, slopes = outputs.differentiated(o[counts], self.y[counts])
            if self.weights is not None:
                weights = self.weights[counts]
                each, slopes = each * weights, slopes * weights[:, None]
            d_o[counts] = slopes
        return float(each.sum(dtype=np.float64)), d_o

    def _unaligned(self, o: Real, rows: NDArray[np.bool_]) -> tuple[float, Real]:
        """Of the labels of some rows."""
        lengths, d_o = _full(self.lengths, o)[rows], np.zeros_like(o)
        y = np.where(within(len(o), lengths), self.y[:, rows], -1)
        with np.errstate(all="ignore"):  # beyond the lengths there is anything
            units = np.where(within(len(o), lengths)[..., None], o[:, rows], 0).astype(np.float64)
            each, slopes = losses.ctc(units, y, lengths)
            weights = np.ones(len(lengths)) if self.weights is None else self.weights[0, rows]
            d_o[:, rows] = slopes * weights[:, None]
            return float((each * weights).sum()), d_o


def _full(lengths: Int | None, steps: Real | Int) -> Int:
    """(B,), where None is for all steps (T, B, ·)."""
    return np.full(steps.shape[1], len(steps)) if lengths is None else lengths


def total_weight(outputs: Output, y: Real | Int, weights: Real | None, lengths: Int | None) -> float:
    """The sum of the weights of the steps that have a target; exact, so that it does not depend on padding."""
    n_steps, n_rows = y.shape[:2]
    if weights is None and outputs.missing is None and not isinstance(outputs, Categories):
        return float(n_steps * n_rows if lengths is None else lengths.sum())
    counts = outputs.has_target(y)
    if lengths is not None:
        counts &= within(n_steps, lengths)
    if outputs.missing is not None:
        share = outputs.share(y[counts])
        return checks.finite_sum((share if weights is None else share * weights[counts]).tolist())
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
