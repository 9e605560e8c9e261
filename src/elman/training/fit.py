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
    plan.metrics.check_data(held_out)
    given = model, network, data, held_out, plan
    with contextlib.closing(data):
        run = Run(*given) if ranks is None else DistributedRun(*given, ranks)
        run.prepare()
        run.go_on()
        return run.history


def divided(data: Any, held_out: Data | None, plan: Plan, ranks: Ranks | None) -> tuple[Any, Any]:
    """What is trained on, and what is held out, on rank 0: by `validation_split`, if that is given."""
    fraction = plan.validation_split
    if fraction is None:
        return data, held_out
    if held_out is not None:
        check.refuse(f"validation_split must be None where there is validation_data, got {fraction}")
    if not isinstance(data, DataSet):
        check.refuse(f"validation_split must be None where X is a function that returns batches, got {fraction}")
    data, held_out = data.divided(fraction, "validation_split")
    return data, held_out if ranks is None or ranks.is_root else None
