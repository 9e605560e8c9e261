"""
Forecasting carbon dioxide
==========================

The monthly CO2 on Mauna Loa from 1958 to 2001, shipped with statsmodels, rises and breathes with the seasons. In the
last twelve years networks go two years ahead, beside what they have to beat. Up to half a year they are the best, by
little; from a year on it is autoregression with a line and seasons. Their intervals of 80 % are too narrow.
"""

from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from statsmodels.datasets import co2
from statsmodels.tsa.ar_model import ar_select_order
from statsmodels.tsa.statespace.exponential_smoothing import ExponentialSmoothing

import elman

EPOCHS = 30
NETWORKS, WINDOW, HORIZON = 5, 36, 24
y = co2.load_pandas().data["co2"].interpolate().resample("MS").mean().to_numpy()
before, n_train = len(y) - 22 * 12, len(y) - 12 * 12  # ten years choose; what comes after them is for the comparison
change, std, angle = np.diff(y, prepend=y[0]), np.diff(y[:before]).std(), np.pi / 6 * np.arange(len(y))
inputs = np.column_stack([change / std, np.sin(angle), np.cos(angle)])  # the month is known ahead


# %%
# Networks
# --------
def trained(n, size):  # on the first n months, in windows whose first year does not count: too little is known there
    X, Y = (np.stack([inputs[i : i + WINDOW] for i in range(k, n - WINDOW + k)]) for k in (0, 1))
    options = {"weights": np.tile(np.arange(WINDOW) >= 12.0, (len(X), 1)), "schedule": elman.schedules.Cosine()}
    kinds = elman.Features(3), elman.Reals(1, distribution="normal")
    models = [elman.SequenceModel(*kinds, hidden_size=size, seed=seed) for seed in range(NETWORKS)]
    for model in models:
        model.fit(X, Y[..., :1], epochs=EPOCHS, optimizer=elman.AdamW(5e-3, weight_decay=0.5), **options)
    return models


def paths(models, known, **drawn):  # (paths, HORIZON): the mean of each network or, with n_samples, draws
    history, future = inputs[None, : len(known)], inputs[None, len(known) :][:, :HORIZON, 1:]
    changes = [model.forecast(history, HORIZON, future, **drawn).reshape(-1, HORIZON) for model in models]
    return known[-1] + np.cumsum(np.concatenate(changes) * std, axis=1)


def backtest(method, first=n_train, last=None):  # of a method that makes paths, or one, of the months known
    def forecast(known, _):
        return np.stack([method(each[:, 0]).reshape(-1, HORIZON).mean(axis=0) for each in known])[..., None]

    return elman.backtest(SimpleNamespace(forecast=forecast), y[None, :last, None], HORIZON, first=first)


size = min((16, 32, 64), key=lambda n: backtest(partial(paths, trained(before, n)), before, n_train).mae.mean())
models = trained(n_train, size)
ar = ar_select_order(y[:n_train], 24, ic="aic", trend="ct", seasonal=True, period=12).model.fit()
smoothing = ExponentialSmoothing(y[:n_train], trend=True, seasonal=12).fit(maxiter=200, disp=False)
methods = {
    "naive": lambda known: np.repeat(known[-1], HORIZON),
    "seasonal naive": lambda known: np.resize(known[-12:], HORIZON),
    "autoregression": lambda known: ar.apply(known).forecast(HORIZON),
    "exponential smoothing": lambda known: smoothing.apply(known).forecast(HORIZON),
    "networks": partial(paths, models),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for name, method in methods.items():
    found = backtest(method)
    print(f"{name:>22}:", *(f"{e:.2f}" for e in found.mae[[0, 2, 5, 11, 23]]), "ppm, 1, 3, 6, 12 and 24 months ahead")
    right.plot(range(1, HORIZON + 1), found.mae, label=name)
drawn = [paths(models, y[:n], n_samples=100, seed=0) for n in found.origins]
(lower, upper), actual = np.quantile(drawn, (0.1, 0.9), axis=1), found.actual[..., 0]
left.fill_between(range(1, HORIZON + 1), lower[0], upper[0], alpha=0.3, label="80 % of the networks' paths")
left.plot(range(1, HORIZON + 1), actual[0], "k.-", label="what came")
left.set(title="The first two years", xlabel="months ahead", ylabel="CO2 in ppm")
right.set(title="Mean absolute errors", xlabel="months ahead", ylabel="ppm", ylim=(0, 1.8))
figure.legend(loc="outside lower center", ncols=4)
figure.savefig("co2.png", dpi=120)
print(f"Within 80 % of the paths: {np.mean((lower < actual) & (actual < upper)):.0%}\nThe plot is in co2.png")
