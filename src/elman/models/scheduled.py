"""Scheduled sampling (Bengio et al., 2015): in training, too, a network reads some of its own predictions.

It is done in two passes, as Mihaylova & Martins (2019) do it where steps are computed side by side: the first, with the
targets fed back and no gradients, predicts each step; in the second some of what is fed back are these predictions. In
the one pass of Bengio et al., a prediction has been made from earlier ones; here all are made from targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from elman.layer.dynamics import mixed
from elman.layer.stack import Mode, Stack, Weights, stretches
from elman.typing import Bool, Int, Real

_STREAM = 1  # of a row's key; 0 is that of a decoder's noise


def predictions(
    stack: Stack,
    mode: Mode,
    x: Real | Int,
    lengths: Int | None,
    h: Real,
    predict: Callable[[ModuleType, Real], Real | Int],
    weights: Sequence[Weights] | None = None,
) -> Any:
    """Those of each step of x (T, B, ·), (T, B) or (T, B, n), from states h (L, B, H) on, without dropout and noise.

    `predict` makes them of a backend and the outputs (t, B, H) of some steps: memory besides does not grow with T.
    """
    parts = []
    for _, part, own in stretches(x, lengths, backwards=False):
        before, h = h, np.empty_like(h)
        with stack.lease(*part.shape[:2]) as (y,), np.errstate(all="ignore"):  # beyond the lengths there is anything
            stack.evaluate(mode, part, before, h, y, own, weights=weights)
            parts.append(predict(mode.backend, y))
    return np.concatenate(parts)


def is_fed_back(keys: Int, n_steps: int, probability: float) -> Bool:
    """Of which steps (T, B) the prediction is fed back: with this probability, by the rows' keys (B,) and the place."""
    drawn = mixed(mixed(keys.view(np.uint64), _STREAM), np.arange(n_steps)[:, None])
    return np.asarray((drawn >> np.uint64(11)) * 2.0**-53 < probability)
