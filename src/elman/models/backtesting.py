"""Forecasts from many moments of known series, and how far off they were (rolling origins)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.data import checks
from elman.data.outputs import Reals
from elman.typing import Int, Real


class Backtest(NamedTuple):
    """What `elman.backtest` returns: K forecasts, and what came instead.

    Errors are those at each step of a forecast, the first one first: their mean over forecasts and numbers.

    Examples
    --------
    >>> forecasts, actual = np.array([[[2.0], [4.0]]]), np.array([[[1.0], [1.0]]])
    >>> Backtest(np.array([0]), np.array([5]), forecasts, actual, np.ones((1, 1))).mae
    array([1., 3.])
    """

    series: Int  # (K,): which one of the series each forecast is about
    origins: Int  # (K,): how many steps of it were known
    forecasts: Real  # (K, steps, n), of quantiles the median
    actual: Real  # (K, steps, n)
    scales: Real  # (K, n): the mean absolute error of the seasonal naive forecast within what was known

    @property
    def mae(self) -> Real:
        """The mean absolute error, (steps,)."""
        return np.asarray(np.abs(self.forecasts - self.actual).mean(axis=(0, 2)))

    @property
    def rmse(self) -> Real:
        """The root of the mean squared error, (steps,)."""
        return np.asarray(np.sqrt(((self.forecasts - self.actual) ** 2).mean(axis=(0, 2))))

    @property
    def mase(self) -> Real:
        """The mean absolute scaled error, (steps,) (Hyndman & Koehler, 2006).

        Below 1, forecasts are better than the seasonal naive ones for one step were within what was known. It is
        infinite, or NaN, where a series has not changed from season to season.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.abs(self.forecasts - self.actual) / self.scales[:, None]
        return np.asarray(scaled.mean(axis=(0, 2)))

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure: forecasts of the first series, of its first number; and errors by step.

        It is written to a PNG if there is a path. Needs ``pip install 'elman[plot]'``.
        """
        from elman.plot import backtest_figure, save_png

        own = self.series == self.series[0]
        figure = backtest_figure(
            self.origins[own], self.actual[own, :, 0], self.forecasts[own, :, 0], {"MAE": self.mae, "RMSE": self.rmse}
        )
        if path is not None:
            save_png(figure, path)
        return figure

    def __repr__(self) -> str:
        n, steps, _ = self.forecasts.shape
        means = ", ".join(f"{name} {getattr(self, name).mean():.4g}" for name in ("mae", "rmse", "mase"))
        return f"Backtest of {n} forecasts of {steps} steps: {means}"


def backtest(
    model: Any,
    series: Any,
    steps: int,
    *,
    first: int,
    every: int = 1,
    refit: int | None = None,
    season: int = 1,
) -> Backtest:
    """Forecast series again and again, from moments at which the rest was not known yet (rolling origins).

    Parameters
    ----------
    model : SequenceModel, or function (list of arrays (T_i, n + E)) -> model
        What has a method `forecast`, as `SequenceModel` has; or what makes it of all that is known at an origin, the
        rows of each series before it: a new model that has been fitted to these, say. What has no `outputs`, as a
        SequenceModel has, is asked ``forecast(history, steps)``, without what is known of the future.
    series : list of arrays (T_i, n + E), or one array (N, T, n + E)
        The first n columns are forecast, the others are taken for known at each time: see `SequenceModel.forecast`.
    steps : int
        How many steps to forecast.
    first : int
        How many steps of a series are known at the first origin.
    every : int
        How many steps later each further origin is. The last one is where `steps` are left.
    refit : int, optional
        With a function: how many origins a model is for, before the function is called again. By default, what it makes
        of the steps before the first origin is for all of them.
    season : int
        How many steps a season has, for errors that are relative to the seasonal naive forecast; 1 for none.

    Returns
    -------
    Backtest
        Forecasts, what came instead, and errors by step: `mae`, `rmse`, `mase`; and `plot()`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or if no series is long enough. And what the model raises.

    Notes
    -----
    Nothing that a forecast is made of comes from behind its origin, but for the columns that are known ahead. A
    model that is given has to be fitted to steps before `first` alone: that is the caller's.

    Examples
    --------
    >>> import elman
    >>> series, _ = elman.tasks.sines(20, n_steps=60, seed=0)
    >>> model = elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=16, seed=0)
    >>> history = model.fit(series[:, :39], series[:, 1:40], epochs=5, progress=False)
    >>> found = elman.backtest(model, series, 5, first=40, every=5)
    >>> found.origins[:4], found.forecasts.shape, found.mae.shape
    (array([40, 45, 50, 55]), (80, 5, 1), (5,))
    """
    checks.one_for_each(series, "series")
    rows = [check.as_array(one, f"series[{i}]") for i, one in enumerate(series)]
    for i, one in enumerate(rows):
        check.shape(one.shape, f"series[{i}]", [("T", rows[0].shape[1] if rows[0].ndim == 2 else "n")])
        if one.dtype.kind not in "iuf":
            raise TypeError(f"series[{i}] must hold numbers, got {check.shown(one)}")
        check.finite(one, f"series[{i}]")
    steps, every = check.positive_int(steps, "steps"), check.positive_int(every, "every")
    season, first = check.positive_int(season, "season"), check.positive_int(first, "first")
    if first <= season:
        raise ValueError(f"first must be more than season, got {first} and {season}")
    is_function = not hasattr(model, "forecast")
    if is_function and not callable(model):
        raise TypeError(
            f"model must have a method forecast, or be a function that makes a model, got {check.shown(model)}"
        )
    if refit is not None and not is_function:
        check.refuse(f"refit must be None with a model, which is taken as it is, got {check.shown(refit)}")
    refit = None if refit is None else check.positive_int(refit, "refit")
    last = max(map(len, rows)) - steps
    origins = range(first, last + 1, every)
    if not origins:
        raise ValueError(f"series must have at least first + steps = {first + steps} steps, got at most {last + steps}")
    cases, found = list[tuple[int, int]](), list[Real]()
    for start in range(0, len(origins), refit or len(origins)):
        own = origins[start : start + (refit or len(origins))]
        one = model([row[: own[0]] for row in rows]) if is_function else model
        if not hasattr(one, "forecast"):
            raise TypeError(f"what model returns must have a method forecast, got {check.shown(one)}")
        at = [(i, origin) for i, row in enumerate(rows) for origin in own if origin + steps <= len(row)]
        cases += at
        found.append(_forecasts(one, rows, at, steps))
    order = sorted(range(len(cases)), key=cases.__getitem__)
    forecasts = np.concatenate(found)[order].astype(np.float64)
    which, known = np.array([cases[i] for i in order]).T
    targets = [row[:, : forecasts.shape[2]].astype(np.float64) for row in rows]
    actual = [targets[i][origin : origin + steps] for i, origin in zip(which, known, strict=True)]
    changes = [np.abs(one[season:] - one[:-season]) for one in targets]  # errors of the seasonal naive forecast
    scales = [changes[i][: origin - season].mean(axis=0) for i, origin in zip(which, known, strict=True)]
    return Backtest(which, known, forecasts, np.array(actual), np.array(scales))


def _forecasts(model: Any, rows: Sequence[Any], cases: Sequence[tuple[int, int]], steps: int) -> Real:
    """(K, steps, n): of series number i after so many steps, for each case (i, steps)."""
    known = [rows[i][:origin] for i, origin in cases]
    outputs, n_columns, name = getattr(model, "outputs", None), rows[0].shape[1], "what the model forecasts"
    if not isinstance(outputs, Reals):
        forecasts = check.as_array(model.forecast(known, steps), name)
        check.shape(forecasts.shape, name, [(len(cases), steps, "n")])
        if forecasts.shape[2] > n_columns:
            raise ValueError(f"{name} must be columns of series, {n_columns}, got {forecasts.shape[2]}")
        return forecasts
    has_more = n_columns > outputs.n
    future = np.array([rows[i][origin : origin + steps, outputs.n :] for i, origin in cases]) if has_more else None
    forecasts = np.asarray(model.forecast(known, steps, future))
    return forecasts if forecasts.ndim == 3 else forecasts[..., outputs.rank]
