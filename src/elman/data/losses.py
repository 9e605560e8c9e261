"""Losses that no kernel has, and their derivatives: NumPy gets outputs from the readout and hands slopes back to it.

A loss of numbers takes outputs o (N, n, k), k units for each of n numbers, and targets y (N, n), in float64. It returns
the loss of each number (N, n), and its derivative by o (N, n, k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.lengths import within
from elman.typing import Int, Real

Loss = Callable[[Real, Real], tuple[Real, Real]]

_LEAST = 1e-6  # of what must be above 0: nearer to it, a loss in float32 has no slope any more
_STIRLING = 1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156  # Abramowitz & Stegun, 6.1.40


def squared_error(o: Real, y: Real) -> tuple[Real, Real]:
    """(o − y)²: the outputs are means."""
    error = o - y[..., None]
    return error[..., 0] ** 2, 2 * error


def absolute_error(o: Real, y: Real) -> tuple[Real, Real]:
    """|o − y|: the outputs are medians."""
    error = o - y[..., None]
    return np.abs(error[..., 0]), np.sign(error)


def huber(o: Real, y: Real) -> tuple[Real, Real]:
    """½ e² where |e| ≤ 1, else |e| − ½: a mean that outliers pull at no more than other targets (Huber, 1964)."""
    error = o - y[..., None]
    near = np.clip(error, -1, 1)
    return (near * (error - near / 2))[..., 0], near


def pinball(quantiles: Sequence[float]) -> Loss:
    """max(q e, (q − 1) e) for e = y − o, the mean over the quantiles q (Koenker & Bassett, 1978)."""
    q = np.array(quantiles)

    def loss(o: Real, y: Real) -> tuple[Real, Real]:
        error = y[..., None] - o
        return np.maximum(q * error, (q - 1) * error).mean(axis=-1), ((error < 0) - q) / len(q)

    return loss


POINTS: dict[str, Loss] = {"squared_error": squared_error, "absolute_error": absolute_error, "huber": huber}


# Distributions


class Distribution(NamedTuple):
    """One of numbers, with as many units for each number as it has parameters."""

    least: dict[str, float | None]  # of each parameter: softplus(o) is added to it; None for o itself, any number
    nll: Callable[..., tuple[Real, Sequence[Real]]]  # −log p(y) of y and parameters (N, n), and derivatives by these
    quantile: Callable[..., Real]  # of a probability and the parameters
    draw: Callable[..., Real] | None = None  # of a generator and the parameters, where it is one of 0, 1, 2, …

    @property
    def are_counts(self) -> bool:
        """Whether it is one of 0, 1, 2, …, from which kernels do not draw."""
        return self.draw is not None

    def parameters(self, o: Real) -> Real:
        """Those of o (..., k), in its dtype; the first one is the mean."""
        each = [u if least is None else least + _softplus(u) for least, u in self._units(o)]
        return np.stack(each, axis=-1).astype(o.dtype, copy=False)

    def loss(self, o: Real, y: Real) -> tuple[Real, Real]:
        """The negative log-likelihood, of which nothing is left out."""
        losses, slopes = self.nll(y, *np.moveaxis(self.parameters(o), -1, 0))
        each = [
            d if least is None else d * (np.tanh(u / 2) + 1) / 2
            for (least, u), d in zip(self._units(o), slopes, strict=True)
        ]
        return losses, np.stack(each, axis=-1)

    def quantiles(self, o: Real, probabilities: Sequence[float]) -> Real:
        """(..., Q), those of each number."""
        parameters = np.moveaxis(self.parameters(o).astype(np.float64), -1, 0)
        return np.stack([self.quantile(p, *parameters) for p in probabilities], axis=-1).astype(o.dtype)

    def _units(self, o: Real) -> list[tuple[float | None, Real]]:
        return list(zip(self.least.values(), np.moveaxis(o, -1, 0), strict=True))


def _normal(y: Real, mean: Real, scale: Real) -> tuple[Real, Sequence[Real]]:
    """½ z² + log(scale √(2π)), z = (y − mean) / scale."""
    z = (y - mean) / scale
    return z**2 / 2 + np.log(scale) + math.log(2 * math.pi) / 2, (-z / scale, (1 - z**2) / scale)


def _student_t(y: Real, mean: Real, scale: Real, df: Real) -> tuple[Real, Sequence[Real]]:
    """Log Γ(df/2) − log Γ((df + 1)/2) + log(scale √(df π)) + (df + 1)/2 log(1 + z²/df)."""
    z = (y - mean) / scale
    (upper, d_upper), (lower, d_lower) = log_gamma((df + 1) / 2), log_gamma(df / 2)
    tail, pull = np.log1p(z**2 / df), (df + 1) / (df + z**2)
    losses = lower - upper + np.log(scale) + np.log(df * math.pi) / 2 + (df + 1) / 2 * tail
    d_df = (d_lower - d_upper + 1 / df + tail - pull * z**2 / df) / 2
    return losses, (-pull * z / scale, (1 - pull * z**2) / scale, d_df)


def _poisson(y: Real, mean: Real) -> tuple[Real, Sequence[Real]]:
    """Mean − y log mean + log y!."""
    return mean - y * np.log(mean) + log_gamma(y + 1)[0], (1 - y / mean,)


def _negative_binomial(y: Real, mean: Real, dispersion: Real) -> tuple[Real, Sequence[Real]]:
    """Log Γ(r) + log y! − log Γ(y + r) + (y + r) log(1 + mean/r) − y log(mean/r), r = 1 / dispersion.

    The variance is mean + dispersion · mean² (the NB2 of Cameron & Trivedi, 1986).
    """
    r = 1 / dispersion
    (upper, d_upper), (lower, d_lower), ratio = log_gamma(y + r), log_gamma(r), dispersion * mean
    losses = lower + log_gamma(y + 1)[0] - upper + (y + r) * np.log1p(ratio) - y * np.log(ratio)
    d_dispersion = r**2 * (d_upper - d_lower - np.log1p(ratio)) + (y + r) * mean / (1 + ratio) - y * r
    return losses, ((mean - y) / (mean * (1 + ratio)), d_dispersion)


def _of_scipy(name: str, arguments: Callable[..., tuple[Any, ...]]) -> Callable[..., Real]:
    """A quantile function of scipy.stats, whose parameters are other ones."""

    def quantile(p: float, *parameters: Real) -> Real:
        try:
            from scipy import stats  # only here: training does without it
        except ImportError as error:
            raise ImportError(f"predict_interval of scipy.stats.{name} needs SciPy: pip install scipy") from error
        return np.asarray(getattr(stats, name).ppf(p, *arguments(*parameters)))

    return quantile


DISTRIBUTIONS = {
    "normal": Distribution(
        {"mean": None, "scale": _LEAST}, _normal, lambda p, mean, scale: mean + scale * NormalDist().inv_cdf(p)
    ),
    "student_t": Distribution(
        {"mean": None, "scale": _LEAST, "df": 2 + _LEAST},  # above 2 there is a variance
        _student_t,
        _of_scipy("t", lambda mean, scale, df: (df, mean, scale)),
    ),
    "poisson": Distribution(
        {"mean": _LEAST},
        _poisson,
        _of_scipy("poisson", lambda mean: (mean,)),
        lambda rng, mean: rng.poisson(mean),
    ),
    "negative_binomial": Distribution(
        {"mean": _LEAST, "dispersion": _LEAST},
        _negative_binomial,
        _of_scipy("nbinom", lambda mean, dispersion: (1 / dispersion, 1 / (1 + dispersion * mean))),
        lambda rng, mean, dispersion: rng.negative_binomial(1 / dispersion, 1 / (1 + dispersion * mean)),
    ),
}


def _softplus(x: Real) -> Real:
    return np.asarray(np.logaddexp(0, x))


def log_gamma(x: Real) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log Γ(x) and its derivative, for x > 0: Stirling's series at x + 8, and Γ(x + 1) = x Γ(x)."""
    z, steps = x + 8, [x + i for i in range(8)]
    value = (z - 0.5) * np.log(z) - z + math.log(2 * math.pi) / 2 - sum(map(np.log, steps))
    slope = np.log(z) - 0.5 / z - sum(1 / step for step in steps)
    for i, c in enumerate(_STIRLING):
        power = z ** -(2 * i + 1)
        value, slope = value + c * power, slope - (2 * i + 1) * c * power / z
    return value, slope


# Labels without alignment


def ctc(o: Real, y: Int, lengths: Int) -> tuple[Real, Real]:
    """−log p of each row's labels, over all ways to lay them among its steps (Graves et al., 2006), and its derivative.

    Outputs o (T, B, O), in float64, the last one of them the blank; labels y (U, B), a row's own being those from 0 on;
    lengths (B,), enough for them. Either is divided by how many labels a row has, or 1: (B,), (T, B, O).
    """
    n_steps, n_rows, n_units = o.shape
    log_p = o - o.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    n_labels = (y >= 0).sum(axis=0)
    places = np.full((n_rows, 2 * int(n_labels.max(initial=0)) + 1), n_units - 1)  # blanks, with the labels between
    places[:, 1::2] = np.where(y >= 0, y, n_units - 1)[: places.shape[1] // 2].T
    skips = np.zeros(places.shape, dtype=bool)  # whether the place before the one before may come before it
    skips[:, 2:] = (places[:, 2:] != n_units - 1) & (places[:, 2:] != places[:, :-2])
    emitted = np.take_along_axis(log_p, np.broadcast_to(places, (n_steps, *places.shape)), axis=2)
    s, last = np.arange(places.shape[1]), 2 * n_labels[:, None]
    ends = np.where((s == last) | (s == last - 1), 0, -np.inf)
    ahead, back = np.full_like(emitted, -np.inf), np.broadcast_to(ends, emitted.shape).copy()
    ahead[0, :, :2] = emitted[0, :, :2]
    for t in range(1, n_steps):  # equation 6, to the place s after step t
        ahead[t] = emitted[t] + _sum_of_ways(ahead[t - 1], np.where(skips, _moved(ahead[t - 1], 2), -np.inf), 1)
    for t in range(n_steps - 2, -1, -1):  # equation 10, without what step t itself has
        later = back[t + 1] + emitted[t + 1]
        ways = _sum_of_ways(later, _moved(np.where(skips, later, -np.inf), -2), -1)
        back[t] = np.where((t < lengths - 1)[:, None], ways, ends)
    total = np.logaddexp.reduce(ahead[0] + back[0], axis=-1)
    passes, d_o = np.exp(ahead + back - total[:, None]), np.exp(log_p)
    for i in range(places.shape[1]):  # equation 16
        d_o[:, np.arange(n_rows), places[:, i]] -= passes[:, :, i]
    d_o[~within(n_steps, lengths)] = 0
    n = np.maximum(n_labels, 1)
    return -total / n, d_o / n[:, None]


def _moved(x: Real, by: int) -> Real:
    """(B, S), each place what is so many before it, or behind it."""
    moved = np.full_like(x, -np.inf)
    if by > 0:
        moved[:, by:] = x[:, :-by]
    else:
        moved[:, :by] = x[:, -by:]
    return moved


def _sum_of_ways(stay: Real, skip: Real, by: int) -> Real:
    return np.asarray(np.logaddexp(np.logaddexp(stay, _moved(stay, by)), skip))


def edit_distance(found: Int, expected: Int) -> int:
    """How many labels have to be put in, left out or replaced (Levenshtein, 1966)."""
    row = np.arange(len(expected) + 1)
    for i, label in enumerate(found):
        best = np.minimum(row[1:] + 1, row[:-1] + (expected != label))
        row[:] = np.minimum.accumulate(np.concatenate([[i + 1], best]) - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


# Of a user's own


def own(function: Any, o: Real, y: Any) -> tuple[Real, Real]:
    """What a user's function makes of o (N, O) and the targets: losses (N,) and their derivatives (N, O)."""
    losses, d_o = (np.asarray(one) for one in check.pair(function(o, y), "what loss returns"))
    for i, (found, expected) in enumerate(((losses, o.shape[:1]), (d_o, o.shape))):
        if found.dtype.kind not in "iuf":
            raise TypeError(f"what loss returns must be reals, got {check.shown(found)} at [{i}]")
        check.shape(found.shape, f"what loss returns at [{i}]", [expected])
    return losses, d_o
