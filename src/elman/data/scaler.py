"""Numbers brought to about unit size and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.attributes import Checked
from elman.typing import Real

_TOGETHER = 1 << 20  # values whose differences from the first are there at a time
_ROUNDING = 4 * np.finfo(np.float64).eps  # in a spread that is no more than this part of the mean


class Moments:
    """Weights, means and sums of squared deviations of n columns, part by part (Chan, Golub & LeVeque, 1983)."""

    def __init__(self, n: int) -> None:
        self.total, self.mean, self.spread = (np.zeros(n) for _ in range(3))

    def add(self, values: Real, weights: Any) -> None:
        """Another part: values and weights (N, n) in float64."""
        n = weights.sum(axis=0)
        own_mean = (weights * values).sum(axis=0) / np.where(n > 0, n, 1)
        self.spread += (weights * (values - own_mean) ** 2).sum(axis=0)
        both = np.where(n > 0, self.total + n, 1)
        self.spread += (own_mean - self.mean) ** 2 * (self.total * n / both)  # eq. 2.1b
        self.mean += (own_mean - self.mean) * (n / both)
        self.total += n


class Scaler(Checked):
    """Z-scores: each feature less its mean, divided by its standard deviation, over all steps of all sequences.

    Networks learn from numbers of about unit size. Given to `Features` or `Reals`, it is fitted by the first `fit` of a
    model, on what is trained on alone; the model, its pickles and its files have it then, and what is predicted is in
    the units of the data. Or on its own, for lists of sequences of unequal length, which those of scikit-learn do not
    take.

    Parameters
    ----------
    mean, scale : numbers (n,), optional
        Those that are known already; by default `fit` finds them. A model's scaler, which it learns, is a copy.

    Attributes
    ----------
    mean, scale : array (n,) of float64, or None before `fit`
        Mean and standard deviation of each feature, read-only. The scale of a feature that never changes is 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Notes
    -----
    Sums are in float64, of differences from the first step, so that a mean that is large beside its standard deviation
    costs no digits: parts of the data are put together by equation 2.1b of Chan, Golub & LeVeque (1983), "Algorithms
    for computing the sample variance". The standard deviation is that of all steps, Σ (x − mean)² / N under the root.

    Examples
    --------
    >>> scaler = Scaler().fit([[[1.0, 50], [2, 50]], [[3, 50]]])  # two sequences, of two steps and of one
    >>> scaler.mean.tolist(), scaler.scale.round(3).tolist()
    ([2.0, 50.0], [0.816, 1.0])
    >>> scaler.inverse_transform(scaler.transform([[[4.0, 50]]]))[0].round(9).tolist()
    [[4.0, 50.0]]
    """

    _fixed = frozenset(("mean", "scale"))
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    def __init__(self, *, mean: Any = None, scale: Any = None) -> None:
        if (mean is None) != (scale is None):
            check.refuse(f"mean and scale must be given together, got {check.shown(mean)} and {check.shown(scale)}")
        if mean is not None:
            self._put(*(_numbers(value, name) for value, name in ((mean, "mean"), (scale, "scale"))))

    def _put(self, mean: Real, scale: Real) -> None:
        check.shape(scale.shape, "scale", (mean.shape,))
        if not (scale > 0).all():
            raise ValueError(f"scale must be above 0, got {scale.tolist()}")
        for array in (mean, scale):
            array.flags.writeable = False
        self.__dict__.update(mean=mean, scale=scale)

    def fit(self, X: Any, *, missing: float | None = None) -> Self:
        """Find mean and scale of the features of some sequences.

        Parameters
        ----------
        X : list of arrays (T_i, n), or (T_i,) of one feature; or one array, whose last axis is that of the features
            Reals, integers or bool; finite. Sequences may be empty, but not all. An array (T,) is of one feature.
        missing : NaN, optional
            With ``missing=np.nan``, numbers that are NaN do not count.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        """
        if missing is not None:
            check.number(missing, "missing", "None or NaN", math.isnan)
        found = _sequences(X, "X", None, may_miss=missing is not None)
        if not any(steps.size for steps, _ in found):
            raise ValueError("X must hold at least one step")
        each = [steps.reshape(-1, steps.shape[-1]) for steps, _ in found]
        n, n_together = each[0].shape[1], max(1, _TOGETHER // max(1, each[0].shape[1]))
        parts = (steps[i : i + n_together] for steps in each for i in range(0, len(steps), n_together))
        self._put(*_moments(parts, n))
        return self

    def transform(self, X: Any) -> Any:
        """(X − mean) / scale, in float64: an array, or a list of arrays, as X is; NaN stays NaN.

        X is as `fit` takes it, with as many features. A ValueError says so before `fit`.
        """
        return self._each(X, scaled)

    def inverse_transform(self, X: Any) -> Any:
        """X · scale + mean, in float64: what `transform` made, or a model that was trained on it, in the units of X."""
        return self._each(X, unscaled)

    def __repr__(self) -> str:
        each = {} if self.mean is None or self.scale is None else {"mean": self.mean, "scale": self.scale}
        return f"Scaler({', '.join(f'{name}={array.tolist()}' for name, array in each.items())})"

    def _each(self, X: Any, function: Callable[[Scaler, Real], Real]) -> Any:
        n = len(known(self)[0])
        made = [function(self, steps).reshape(shape) for steps, shape in _sequences(X, "X", n, may_miss=True)]
        return made if _is_list(X) else made[0]


def known(scaler: Scaler) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale, or an error that says how to come by them."""
    if scaler.mean is None or scaler.scale is None:
        check.refuse("scaler must be fitted before: by the `fit` of its model, or by scaler.fit(X), got Scaler()")
    return scaler.mean, scaler.scale


def scaled(scaler: Scaler, x: Real, dtype: Any = np.float64) -> Real:
    """Numbers (..., n), computed in float64."""
    mean, scale = known(scaler)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the lengths there is anything
        made = np.asarray(x - mean)
        made /= scale
        return made.astype(dtype, copy=False)


def unscaled(scaler: Scaler, x: Real) -> Real:
    """Likewise, the other way."""
    mean, scale = known(scaler)
    return np.asarray(x.astype(np.float64, copy=False) * scale + mean)


def fitted(parts: Iterable[Real], n: int) -> Scaler:
    """A scaler of checked steps (N, n), NaN where one is missing, a part at a time."""
    mean, scale = _moments(parts, n)
    return Scaler(mean=mean, scale=scale)


def _moments(parts: Iterable[Real], n: int) -> tuple[Real, Real]:
    """Mean and scale."""
    moments, first = Moments(n), np.full(n, np.nan)  # the first number of each feature
    with np.errstate(all="ignore"):
        for part in parts:
            if len(part) > 0:
                there = ~np.isnan(part)
                first = np.where(np.isnan(first), part[there.argmax(axis=0), np.arange(n)], first)
                moments.add(np.where(there, part - first, 0), there)
        mean = np.where(moments.total > 0, first + moments.mean, 0)
        scale = np.sqrt(moments.spread / np.maximum(moments.total, 1))
    if not (np.isfinite(mean) & np.isfinite(scale)).all():
        found = f"{mean.tolist()} and {scale.tolist()}"
        raise ValueError(f"numbers to be scaled must have a finite mean and standard deviation, got {found}")
    return mean, np.where(scale > _ROUNDING * abs(mean), scale, 1.0)


def _numbers(value: Any, name: str) -> Real:
    array = check.as_array(value, name)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold numbers, got {check.shown(value)}")
    check.shape(array.shape, name, (("n",),))
    array = np.array(array, np.float64)
    check.finite(array, name)
    return array


def _is_list(X: Any) -> bool:
    if isinstance(X, np.ndarray):
        return bool(X.dtype == object)
    return isinstance(X, (list, tuple)) and not any(map(np.isscalar, X[:1]))


def _sequences(X: Any, name: str, n: int | None, *, may_miss: bool) -> list[tuple[Real, tuple[int, ...]]]:
    """Arrays (..., n) of numbers of any kind, with the shapes that they were given in."""
    if isinstance(X, (list, tuple)) and len(X) == 0:
        raise ValueError(f"{name} must hold at least one sequence")
    each = [(item, f"{name}[{i}]") for i, item in enumerate(X)] if _is_list(X) else [(X, name)]
    found = []
    for item, own_name in each:
        array = check.as_array(item, own_name)
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise TypeError(f"{own_name} must be an array of numbers (T, n), got {check.shown(item)}")
        steps = array.reshape(-1, 1) if array.ndim == 1 else array
        n = steps.shape[-1] if n is None else n
        check.shape(steps.shape, own_name, ((*steps.shape[:-1], n),), allow_empty=True)
        wrong = np.isinf(steps) if may_miss else ~np.isfinite(steps)
        for where in np.argwhere(wrong)[:1].tolist():
            cure = "" if may_miss or not np.isnan(steps[tuple(where)]) else " (missing=np.nan leaves it out)"
            raise ValueError(f"{own_name} must be finite, got {steps[tuple(where)]} at {where}{cure}")
        found.append((steps, array.shape))
    return found
