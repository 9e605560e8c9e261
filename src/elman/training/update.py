"""How a batch changes the parameters."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from elman import check
from elman.training.optimizers import Optimizer


class Update(NamedTuple):
    """How a batch changes the parameters."""

    optimizer: Optimizer
    max_norm: float  # of the gradient
    max_value: float | None  # of each of its values, after that
    tbptt: tuple[int, int] | None = None  # update after k1 steps, from gradients that go back k2
    memory: float | None = None  # how many time steps (an int) or bytes (a float) a tape may take
    activation_l2: float = 0.0  # of a penalty on large states

    @classmethod
    def of(cls, optimizer: Any, clip_norm: Any, clip_value: Any) -> Update:
        check.instance(optimizer, "optimizer", Optimizer)
        max_norm = math.inf if clip_norm is None else check.positive(clip_norm, "clip_norm")
        return cls(optimizer, max_norm, None if clip_value is None else check.positive(clip_value, "clip_value"))
