"""The learning rate to begin with, found by a short training in which it rises (Smith, 2017)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.training.callbacks import Callback, Training
from elman.training.optimizers import Adam

_KEPT = 0.9  # of the mean of losses, from one update to the next
_MOST = 100_000  # updates: a rate for each
_OWN = {"epochs", "schedule", "callbacks", "progress", "checkpoint", "checkpoint_every", "resume", "comm", "shards"}
_OWN |= {"validation_data", "validation_split", "metrics", "average"}


class LearningRates(NamedTuple):
    """What `SequenceModel.find_lr` returns: the loss before each update, and the learning rate of that update.

    Examples
    --------
    >>> import numpy as np
    >>> found = LearningRates(np.array([1e-3, 1e-2, 1e-1]), np.array([1.0, 0.9, 0.2]), np.array([1.0, 0.95, 0.7]))
    >>> found.steepest
    0.01
    """

    lr: NDArray[np.float64]  # (n,)
    loss: NDArray[np.float64]  # (n,)
    smoothed: NDArray[np.float64]  # (n,): exponential means of the loss

    @property
    def steepest(self) -> float:
        """Where the smoothed loss falls fastest by log lr, before its least value: a rate to begin with.

        It is how far it falls over a tenth of the rates that counts, but for the first tenth, where a mean of a few
        losses falls and rises with the batches. Nor does it count what comes after the smoothed loss, having fallen by
        a third of all that it falls, has risen above where it was: there it leaps, down as well as up.
        """
        first, over = len(self.lr) // 10, max(1, len(self.lr) // 10)
        smoothed = self.smoothed[first:]
        whole = smoothed[0] - smoothed.min()
        has_fallen = smoothed[0] - np.minimum.accumulate(smoothed) > whole / 3
        leaps = has_fallen & (smoothed > smoothed[0] + whole / 10)  # less is noise
        smoothed = smoothed[: int(leaps.argmax()) if leaps.any() else None]
        smoothed = smoothed[: int(smoothed.argmin()) + 1]
        falls = smoothed[over:] - smoothed[:-over]
        return float(self.lr[first + int(falls.argmin()) + over // 2 if falls.size else 0])

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure of it, written to a PNG if there is a path. Needs ``pip install 'elman[plot]'``."""
        from elman.plot import learning_rates_figure, save_png

        figure = learning_rates_figure(self.lr, self.loss, self.smoothed, self.steepest)
        if path is not None:
            save_png(figure, path)
        return figure


class _Rising(Callback):
    """Sets the rate of each update, and ends the training where the loss has risen far."""

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates, self.losses, self.smoothed, self._mean = rates, list[float](), list[float](), 0.0

    def on_start(self, training: Training) -> None:
        training.optimizer.lr = self.rates[0]

    def on_step(self, training: Training) -> None:
        self.losses.append(training.loss)
        n = len(self.losses)
        self._mean = _KEPT * self._mean + (1 - _KEPT) * training.loss
        self.smoothed.append(self._mean / (1 - _KEPT**n))
        first, least, last = self.smoothed[0], min(self.smoothed), self.smoothed[-1]
        if n == len(self.rates) or last - least > max(first - least, abs(first)):
            training.stop(now=True)
        else:
            training.optimizer.lr = self.rates[n]


def find_lr(model: Any, X: Any, Y: Any, lr: tuple[Any, Any], steps: Any, options: Mapping[str, Any]) -> LearningRates:
    """Of a copy of the model, trained with these options of `fit`."""
    first, last = (check.positive(one, f"lr[{i}]") for i, one in enumerate(check.pair(lr, "lr")))
    if not first < last < math.inf:
        raise ValueError(f"lr[0] must be below lr[1], {last}, got {first}")
    steps = check.integers(2, _MOST)(steps, "steps")
    for name in options:
        if name in _OWN:
            raise TypeError(f"find_lr must not be given {name}, which it sets or does without")
    given = dict(options)
    given["optimizer"] = copy.deepcopy(given.get("optimizer") or Adam(1e-3))
    rising = _Rising(np.geomspace(first, last, steps))
    try:
        copy.deepcopy(model).fit(X, Y, epochs=steps, callbacks=[rising], progress=False, **given)
    except FloatingPointError:
        if not rising.losses:
            raise
    n = len(rising.losses)
    return LearningRates(rising.rates[:n], np.array(rising.losses), np.array(rising.smoothed))
