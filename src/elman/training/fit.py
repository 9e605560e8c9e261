"""What the models' methods `fit` call."""

from __future__ import annotations

import contextlib
from typing import Any

from elman.training.callbacks import History
from elman.training.distributed import DistributedRun
from elman.training.loop import Run
from elman.training.plan import Data, Plan, Trainable
from elman.training.ranks import Ranks


def fit(model: Any, network: Trainable, data: Data, held_out: Data | None, plan: Plan, ranks: Ranks | None) -> History:
    """Train a network, on several ranks if there are some; the model, which it is behind, is what callbacks see."""
    given = model, network, data, held_out, plan
    with contextlib.closing(data):
        run = Run(*given) if ranks is None else DistributedRun(*given, ranks)
        run.prepare()
        run.go_on()
        return run.history
