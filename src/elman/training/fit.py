"""What the models' methods `fit` call."""

from __future__ import annotations

import contextlib
from typing import Any

from elman import check
from elman.data.sequences import DataSet
from elman.training.callbacks import History
from elman.training.distributed import DistributedRun
from elman.training.loop import Run
from elman.training.plan import Data, Plan, Trainable
from elman.training.ranks import Ranks


def fit(model: Any, network: Trainable, data: Data, held_out: Data | None, plan: Plan, ranks: Ranks | None) -> History:
    """Train a network, on several ranks if there are some; the model, which it is behind, is what callbacks see."""
    if plan.validation_split is not None:
        data, held_out = _divided(data, held_out, plan.validation_split)
        held_out = held_out if ranks is None or ranks.is_root else None
    given = model, network, data, held_out, plan
    with contextlib.closing(data):
        run = Run(*given) if ranks is None else DistributedRun(*given, ranks)
        run.prepare()
        run.go_on()
        return run.history


def _divided(data: Data, held_out: Data | None, fraction: float) -> tuple[Data, Data]:
    """What `validation_split` leaves to train on, and what it holds out."""
    if held_out is not None:
        check.refuse(f"validation_split must be None where there is validation_data, got {fraction}")
    if not isinstance(data, DataSet):
        check.refuse(f"validation_split must be None where X is a function that returns batches, got {fraction}")
    return data.divided(fraction, "validation_split")
