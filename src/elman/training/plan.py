"""What a training run has been asked to do, checked once: the arguments of `fit`, and what checkpoints say of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.attributes import Settings, optional
from elman.storage import atomic
from elman.training.callbacks import Callback, as_callbacks
from elman.training.checkpoint import fingerprint_of
from elman.training.optimizers import Adam, Optimizer

Schedule = Callable[[float, float], float]  # of the epochs done and of all, to a factor of the learning rate


class Descent(NamedTuple):
    """How a batch changes the parameters."""

    optimizer: Optimizer
    max_norm: float  # of the gradient
    max_value: float | None  # of each of its values, after that
    tbptt: tuple[int, int] | None = None  # update after k1 steps, from gradients that go back k2
    memory: float | None = None  # how many time steps (an int) or bytes (a float) a tape may take
    activation_l2: float = 0.0  # of a penalty on large states

    @classmethod
    def of(cls, optimizer: Any, clip_norm: Any, clip_value: Any) -> Descent:
        """From the arguments of `train_step`."""
        check.instance(optimizer, "optimizer", Optimizer)
        max_norm = math.inf if clip_norm is None else check.positive(clip_norm, "clip_norm")
        return cls(optimizer, max_norm, optional(check.positive)(clip_value, "clip_value"))


class Plan(NamedTuple):
    """A run of `fit`."""

    descent: Descent
    epochs: int
    batch_size: int
    schedule: Schedule | None
    shuffle: bool
    callbacks: Sequence[Callback]
    progress: bool
    checkpoint: Path | None
    checkpoint_every: int | None
    resume: bool

    @classmethod
    def of(cls, *, optimizer: Any, clip_norm: Any, clip_value: Any, **options: Any) -> Plan:
        """From the arguments of `fit`, but for the data and what is a model's to check: see `Descent`."""
        if options["checkpoint"] is None and (
            options["checkpoint_every"] is not None or options["resume"] is not False
        ):
            check.refuse("checkpoint must be a path where there is checkpoint_every or resume, got None")
        descent = Descent.of(Adam(1e-3) if optimizer is None else optimizer, clip_norm, clip_value)
        return cls(descent, **{name: accepted(options[name], name) for name, accepted in _ACCEPTED.items()})

    def factor(self, done: float, epochs: int | None = None) -> float:
        """What the learning rate is multiplied by when so many epochs are done, of the plan's or of so many."""
        if self.schedule is None:
            return 1.0
        return check.non_negative(self.schedule(done, epochs or self.epochs), "what schedule returns")

    @property
    def with_state(self) -> list[Callback]:
        """The callbacks that keep a state in checkpoints."""
        return [callback for callback in self.callbacks if type(callback).state is not Callback.state]

    def settings(self, *, has_dropout: bool) -> dict[str, Any]:
        """What must be the same for a run to go on, by the names of `fit`'s arguments."""
        descent = self.descent
        return {
            "batch_size": self.batch_size,
            "optimizer": repr(descent.optimizer),
            "schedule": self.described_schedule(self.epochs),
            "clip_norm": None if descent.max_norm == math.inf else descent.max_norm,
            "clip_value": descent.max_value,
            "tbptt": descent.tbptt,
            "memory": _described_memory(descent.memory) if has_dropout else None,  # else it makes no difference
            "activation_l2": descent.activation_l2,
            "shuffle": self.shuffle,
            "callbacks that keep a state": ", ".join(map(described, self.with_state)) or None,
        }

    def described_schedule(self, epochs: int) -> str | None:
        """The schedule, which may be any function: then by some of its values in a run of so many epochs."""
        if self.schedule is None:
            return None
        factors = np.array([self.factor((i + 0.5) / 1000 * epochs, epochs) for i in range(1000)])
        kind = repr(self.schedule) if isinstance(self.schedule, Settings) else "a function"
        return f"{kind} with factors such as {factors[::250].tolist()} (fingerprint {fingerprint_of([factors])})"


def described(callback: Callback) -> str:
    """What must be the same of a callback: ours say all, of others it is the class."""
    return repr(callback) if isinstance(callback, Settings) else type(callback).__name__


def _described_memory(memory: float | None) -> str | None:
    return None if memory is None else f"{memory:g} {'steps' if isinstance(memory, int) else 'bytes'}"


def _schedule(value: Any, name: str) -> Any:
    check.function(value, name)
    return value


def _place(value: Any, name: str) -> Path:
    path = check.path(value, name)
    atomic.check_place(path, name)  # now, and not after an epoch
    return path


_ACCEPTED = {
    "schedule": optional(_schedule),
    "checkpoint": optional(_place),
    "epochs": check.positive_int,
    "batch_size": check.positive_int,
    "shuffle": check.flag,
    "callbacks": as_callbacks,
    "checkpoint_every": optional(check.positive_int),
    "progress": check.flag,
    "resume": check.flag,
}
