"""What a training run has been asked to do, checked once: the arguments of `fit`, and what checkpoints say of them.

`Data` and `Trainable` are what such a run needs besides.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from elman import check
from elman.attributes import Settings, optional
from elman.data.metrics import Metrics
from elman.data.outputs import Output
from elman.data.rows import Rows
from elman.data.sequences import Epoch, Window
from elman.layer.parameters import Parameters
from elman.layer.rnn import RNN
from elman.storage import atomic, files
from elman.training import optimizers
from elman.training.callbacks import Callback, as_callbacks
from elman.training.checkpoint import fingerprint_of
from elman.training.optimizers import EVERYWHERE, Adam, Optimizer, apply
from elman.typing import Real

Schedule = Callable[[float, float], float]  # of the epochs done and of all, to a factor of the learning rate


class Penalties(NamedTuple):
    """What is added to a loss, by the names of arguments; of which terms, `SequenceModel.train_step` says."""

    activation_l1: float = 0.0
    activation_l2: float = 0.0
    weight_l1: float = 0.0
    weight_l2: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Penalties:
        """From arguments, some of which may not be there."""
        return cls(*(check.non_negative(given.get(name, 0.0), name) for name in cls._fields))


class Trained(NamedTuple):
    """Some of a model's parameters: those that an update changes."""

    names: frozenset[str]
    places: Sequence[slice]  # in the buffer
    others: Sequence[slice]

    @classmethod
    def of(cls, trainable: Any, parameters: Parameters) -> Trained | None:
        """From an argument of that name, names or globs; None for all."""
        if trainable is None:
            return None
        if isinstance(trainable, (str, Mapping)) or not isinstance(trainable, Iterable):
            cure = f": [{trainable!r}]" if isinstance(trainable, str) else ""
            raise TypeError(f"trainable must be a list of names of parameters, got {check.shown(trainable)}{cure}")
        known, found = list(parameters.named()), set[str]()
        for i, pattern in enumerate(trainable):
            check.text(pattern, f"trainable[{i}]")
            names = [name for name in known if fnmatch.fnmatchcase(name, pattern)]  # alike on all systems
            if not names:
                raise ValueError(f"trainable[{i}] must fit one of {check.listed(known)}, got {pattern!r}")
            found.update(names)
        if not found:
            check.refuse("trainable must have at least one name, got none: without it, or with None, all are trained")
        if len(found) == len(known):
            return None
        return cls(frozenset(found), parameters.places(found), parameters.places({*known} - found))


class Descent(NamedTuple):
    """How a batch changes the parameters."""

    optimizer: Optimizer
    max_norm: float  # of the gradient
    max_value: float | None  # of each of its values, after that
    tbptt: tuple[int, int] | None = None  # update after k1 steps, from gradients that go back k2
    memory: float | None = None  # how many time steps (an int) or bytes (a float) a tape may take
    penalties: Penalties = Penalties()
    trained: Trained | None = None  # None: all parameters

    @classmethod
    def of(cls, optimizer: Any, clip_norm: Any, clip_value: Any, trained: Trained | None) -> Descent:
        """From the arguments of `train_step`."""
        if not isinstance(optimizer, Optimizer):
            given = check.shown(optimizer) + check.cure(optimizer, [f"elman.{name}(lr)" for name in optimizers.__all__])
            raise TypeError(f"optimizer must be one of elman's, such as elman.Adam(1e-3), got {given}")
        max_norm = math.inf if clip_norm is None else check.positive(clip_norm, "clip_norm")
        return cls(optimizer, max_norm, optional(check.positive)(clip_value, "clip_value"), trained=trained)

    def wanted(self, gradients: Parameters) -> Parameters:
        """Room for gradients, with None for arrays that nobody wants."""
        return gradients if self.trained is None else gradients.only(self.trained.names)

    def update(self, backend: ModuleType, loss: float, parameters: Real, gradient: Real) -> None:
        """One step of parameters (n,) along the gradient (n,) of a loss, or an error, and nothing changed."""
        places: Sequence[slice] = EVERYWHERE
        if self.trained is not None:
            places = self.trained.places
            for other in self.trained.others:  # some are there: those of a direction with which another is trained
                gradient[other] = 0
        norm = float(backend.clip_norm(gradient, max_norm=self.max_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.optimizer.steps + 1}: the loss is {loss:.6g} and the norm of its gradient {norm:.6g}; "
                f"nothing was updated. A smaller lr (now {self.optimizer.lr:g}) or clip_norm usually helps."
            )
        if self.max_value is not None:
            # more would overflow in a float32
            max_value = min(self.max_value, float(np.finfo(gradient.dtype).max))
            np.clip(gradient, -max_value, max_value, out=gradient)
        apply(self.optimizer, backend, {"flat": parameters}, {"flat": gradient}, places)


class Plan(NamedTuple):
    """A run of `fit`."""

    descent: Descent
    epochs: int
    batch_size: int
    accumulate: int
    average: float | None
    metrics: Metrics
    shards: int | None
    steps_per_epoch: int | None
    schedule: Schedule | None
    scheduled_sampling: float | Schedule | None
    validation_split: float | None
    shuffle: bool
    callbacks: Sequence[Callback]
    progress: bool
    checkpoint: Path | None
    checkpoint_every: int | None
    resume: bool

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any],
        parameters: Parameters,
        *,
        metrics: Sequence[str],
        tbptt: tuple[int, int] | None = None,
        memory: float | None = None,
    ) -> Plan:
        """From the arguments of `fit`, by their names; what they are about, and tbptt and memory, a model checks.

        metrics: the names of those that the model has.
        """
        if tbptt is not None and memory is not None:
            check.refuse("memory must be None where there is tbptt, which keeps no more than its steps")
        if given["checkpoint"] is None and (given["checkpoint_every"] is not None or given["resume"] is not False):
            check.refuse("checkpoint must be a path where there is checkpoint_every or resume, got None")
        optimizer = Adam(1e-3) if given["optimizer"] is None else given["optimizer"]
        trained = Trained.of(given["trainable"], parameters)
        descent = Descent.of(optimizer, given["clip_norm"], given["clip_value"], trained)
        descent = descent._replace(tbptt=tbptt, memory=memory, penalties=Penalties.of(given))
        shards = None if given["comm"] is None else given["shards"]
        return cls(
            descent,
            metrics=Metrics.of(given["metrics"], metrics),
            accumulate=int(given["accumulate"]),  # which `ranks.joined` checks, as shards
            shards=shards,
            **{name: accepted(given[name], name) for name, accepted in _ACCEPTED.items()},
        )

    @property
    def n_rows(self) -> int:
        """How many sequences of a data set to an update."""
        return self.batch_size * self.accumulate

    def factor(self, done: float, epochs: int | None = None) -> float:
        """What the learning rate is multiplied by when so many epochs are done, of the plan's or of so many."""
        if self.schedule is None:
            return 1.0
        return check.non_negative(self.schedule(done, epochs or self.epochs), "what schedule returns")

    def part_fed_back(self, done: float, epochs: int | None = None) -> float:
        """With which probability predictions are fed back instead of targets when so many epochs are done."""
        given = self.scheduled_sampling
        if not callable(given):
            return given or 0.0
        return check.probability(given(done, epochs or self.epochs), "what scheduled_sampling returns")

    @property
    def with_state(self) -> list[Callback]:
        """The callbacks that keep a state in checkpoints."""
        return [callback for callback in self.callbacks if type(callback).state is not Callback.state]

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on, by the names of `fit`'s arguments."""
        descent = self.descent
        return {
            "batch_size": self.batch_size,
            "accumulate": None if self.accumulate == 1 else self.accumulate,
            "average": self.average,
            "metrics": [*self.metrics.names] if self.metrics.are_given else None,
            "shards": self.shards,
            "steps_per_epoch": self.steps_per_epoch,
            "optimizer": repr(descent.optimizer),
            **self.described_schedules(self.epochs),
            "clip_norm": None if descent.max_norm == math.inf else descent.max_norm,
            "clip_value": descent.max_value,
            "tbptt": descent.tbptt,
            "activation_l2": descent.penalties.activation_l2,
            **{name: getattr(descent.penalties, name) or None for name in ("activation_l1", "weight_l1", "weight_l2")},
            "trainable": None if descent.trained is None else sorted(descent.trained.names),
            "validation_split": self.validation_split,
            "shuffle": self.shuffle,
            "callbacks that keep a state": ", ".join(map(described, self.with_state)) or None,
        }

    def described_schedules(self, epochs: int) -> dict[str, Any]:
        """What depends on the epochs done, in a run of so many, by the names of `fit`'s arguments."""
        return {
            "schedule": _described_schedule(self.schedule, self.factor, epochs),
            "scheduled_sampling": _described_schedule(self.scheduled_sampling, self.part_fed_back, epochs),
        }


def _described_schedule(given: Any, values: Callable[[float, int], float], epochs: int) -> Any:
    """A schedule, which may be any function: then by some of its values. What is no function is as it is."""
    if not callable(given):
        return given
    factors = np.array([values((i + 0.5) / 1000 * epochs, epochs) for i in range(1000)])
    kind = repr(given) if isinstance(given, Settings) else "a function"
    return f"{kind} with factors such as {factors[::250].tolist()} (fingerprint {fingerprint_of([factors])})"


def described(callback: Callback) -> str:
    """What must be the same of a callback: ours say all, of others it is the class."""
    return repr(callback) if isinstance(callback, Settings) else type(callback).__name__


def _schedule(value: Any, name: str) -> Schedule:
    cure = check.cure(value, [f"elman.schedules.{call}" for call in ("Constant()", "Cosine()", "Step(every)")])
    cure = f": callbacks=[elman.{type(value).__name__}(…)]" if isinstance(value, Callback) else cure
    if cure or not callable(value):
        raise TypeError(f"{name} must be a function, got {check.shown(value)}{cure}")
    return value  # type: ignore[no-any-return]


def _sampling(value: Any, name: str) -> float | Schedule:
    if callable(value) and not isinstance(value, type):
        return value  # type: ignore[no-any-return]
    return check.number(value, name, "a number from 0 to 1, or a function", lambda part: 0 <= part <= 1)


def _fraction(value: Any, name: str) -> float:
    return check.positive(check.below_one(value, name), name)


def _place(value: Any, name: str) -> Path:
    path = check.path(value, name)
    atomic.check_place(path, name)  # now, and not after an epoch
    return path


_ACCEPTED = {
    "schedule": optional(_schedule),
    "scheduled_sampling": optional(_sampling),
    "checkpoint": optional(_place),
    "epochs": check.positive_int,
    "batch_size": check.positive_int,
    "average": optional(_fraction),
    "steps_per_epoch": optional(check.positive_int),
    "validation_split": optional(_fraction),
    "shuffle": check.flag,
    "callbacks": as_callbacks,
    "checkpoint_every": optional(check.positive_int),
    "progress": check.flag,
    "resume": check.flag,
}


class Data(Protocol):
    """What is trained on: a data set (elman.data.sequences), or what gives batches (elman.training.streamed)."""

    shards: Sequence[slice] | None
    digest: str | None

    @property
    def may_wait(self) -> bool: ...
    def parts(self) -> dict[str, Rows | Real | None]: ...
    def epoch(self, batch_size: int, rng: np.random.Generator | None, epoch: int, start: int) -> Epoch: ...
    def skip(self, n_epochs: int) -> None: ...
    def close(self) -> None: ...


class Trainable(Protocol):
    """A network (elman.models.network, whose docstrings say what is what): what is behind a model."""

    kind: ClassVar[str]
    metrics: Sequence[str]
    rnns: Sequence[RNN]
    predicted: Output
    parameters: Parameters
    shuffle_rng: np.random.Generator
    seed: str | None

    def generators(self) -> list[np.random.Generator]: ...
    @property
    def is_noisy(self) -> bool: ...
    def draw_noise_seed(self) -> int: ...
    def fed_back(self, batch: Any, probability: float) -> Any: ...

    gradients: Parameters

    def initial_state(self, n_rows: int) -> Real: ...
    def n_penalized(self, batch: Any, /) -> int: ...
    def gradients_of(self, window: Window, state: Real | None, descent: Descent, /) -> tuple[float, Real | None]: ...
    def update(self, loss: float, descent: Descent) -> None: ...
    def add_to_average(self, average: Real, rate: float) -> None: ...
    def evaluate(self, data: Any, batch_size: int, metrics: Metrics) -> dict[str, float]: ...
    def config(self) -> dict[str, Any]: ...
    def check_saveable(self, metadata: Mapping[str, str]) -> dict[str, Any]: ...
    def content(self, metadata: Mapping[str, str], run: files.Checkpoint | None = None) -> tuple[bytes, memoryview]: ...
