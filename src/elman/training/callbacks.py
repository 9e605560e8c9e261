"""What is recorded of a training, and what may be done in its course."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from elman import check, schedules
from elman.attributes import Checks, Settings, one_of, settings_text
from elman.data.metrics import OF_LOSS
from elman.training import checkpoint
from elman.training.optimizers import Optimizer
from elman.typing import Real

Function = Callable[["Training"], Any]  # a callback without a class


class History(dict[str, list[float]]):
    """What was measured in each epoch: a dict of lists.

    Examples
    --------
    >>> history = History(loss=[1.2, 0.7], val_loss=[1.3, 0.9])
    >>> history["val_loss"][-1]
    0.9
    """

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure of all curves, written to a PNG if there is a path. Needs ``pip install 'elman[plot]'``.

        Examples
        --------
        >>> History(loss=[1.2, 0.7]).plot(getfixture("tmp_path") / "loss.png")
        <Figure size ...>
        """
        from elman.plot import history_figure, save_png

        figure = history_figure(self, FALLING)
        if path is not None:
            save_png(figure, path)
        return figure


class Training:
    """One run of `fit`, as callbacks see it.

    Attributes
    ----------
    model, optimizer
    history : History
    epochs, epoch : int
        How many there are to be, and how many are done.
    steps : int
        Updates so far.
    loss : float
        The mean loss of the last batch, before its update.
    flat : array (n,)
        The model's parameters, one behind the other; live, so that what is written there changes them. In `on_epoch`
        with `average` it is that.
    """

    def __init__(
        self, model: Any, optimizer: Optimizer, epochs: int, history: History, parameters: Real | None = None
    ) -> None:
        self.model, self.optimizer, self.history = model, optimizer, history
        self.flat = np.zeros(0) if parameters is None else parameters
        self.epochs, self.epoch, self.steps, self.loss = epochs, 0, 0, math.nan
        self._lr = optimizer.lr  # what a schedule multiplies
        self._is_stopped = self._is_cut = False

    def stop(self, *, now: bool = False) -> None:
        """Make this epoch the last one; with `now`, end it after this step."""
        self._is_stopped, self._is_cut = True, self._is_cut or now


class Callback:
    """Something to be done in the course of a training. A function instead of one is called as `on_epoch`.

    What it changes of the optimizer's settings lasts until `fit` returns.

    Examples
    --------
    >>> import elman
    >>> class Patient(Callback):
    ...     def on_epoch(self, training):
    ...         if training.history["loss"][-1] < 0.5:
    ...             training.stop()
    >>> model = elman.SequenceModel(elman.Tokens(2), elman.Categories(2), hidden_size=8, seed=0)
    >>> options = {"epochs": 500, "optimizer": elman.Adam(0.05), "progress": False}
    >>> len(model.fit([[0, 1, 0]], [[1, 0, 1]], callbacks=[Patient()], **options)["loss"]) < 500
    True
    """

    def on_start(self, training: Training) -> None:
        """Before the first step, and before a run goes on."""

    def on_step(self, training: Training) -> None:
        """After each update."""

    def on_epoch(self, training: Training) -> None:
        """After each epoch, when it is in the history."""

    def on_end(self, training: Training) -> None:
        """After the last epoch."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of this callback: numbers, strings, lists of them, and arrays, by name.

        A run goes on only with callbacks of the classes that kept a state in it, in their order; others may differ.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        If this raises, `fit` does not go on, and calls it again with what `state` returned just before.
        """

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        return settings_text(self)

    def _check_state(self, state: dict[str, Any], parameters: Real) -> None:
        """Refuse what a checkpoint says, as long as nothing has been changed; parameters (n,) are the model's."""


_SHORT = "mae", "mse", "mape", "mase"  # rmse and smape, too
FALLING = "loss", "error", "deviance", *_SHORT, *OF_LOSS  # how measures end that are better the smaller they are


class _Watching(Settings, Callback):
    """What waits for a measure to become better."""

    _settable: ClassVar[Checks] = {
        "monitor": check.text,
        "patience": check.positive_int,
        "min_delta": check.non_negative,
        "mode": one_of(("auto", "min", "max")),
    }
    monitor: str
    patience: int
    min_delta: float
    mode: str

    def _reset(self) -> None:
        self._best, self._waited = -np.inf, 0

    def on_start(self, training: Training) -> None:
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in training.history):
            check.refuse(f"monitor={self.monitor!r} needs validation_data=, which fit was not given")
        check.choice(self.monitor, "monitor", training.history)
        if training.steps == 0:
            self._reset()

    def _is_better(self, training: Training) -> bool:
        """Whether the last epoch was; if not, one more has been waited for."""
        falls = self.monitor.endswith(FALLING) if self.mode == "auto" else self.mode == "min"
        value = (-1 if falls else 1) * training.history[self.monitor][-1]
        if value > self._best + self.min_delta:
            self._best, self._waited = value, 0
            return True
        self._waited += 1
        return False

    def state(self) -> dict[str, Any]:
        return {"best": float(self._best), "waited": self._waited}

    def load_state(self, state: dict[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]

    def _check_state(self, state: dict[str, Any], parameters: Real) -> None:  # noqa: ARG002
        check.same_names(state, self.state(), f"its state of {type(self).__name__}")
        best = state["best"]
        if not isinstance(best, float) or not best < np.inf:  # the largest of some numbers, which may be none
            raise ValueError(f"its best must be a number, got {check.shown(best)}")
        check.count(state["waited"], "its waited")


class EarlyStopping(_Watching):
    """Stop when a measure has not become better for some epochs.

    Parameters
    ----------
    monitor : str
        A name in the history.
    patience : int
        After how many epochs in a row that were no better to stop.
    min_delta : float
        What counts as better: by more than this.
    restore_best : bool
        Whether to end with the parameters of the best epoch.
    mode : {"auto", "min", "max"}
        Whether the measure should fall or rise; with "auto", names that end with "loss", "error", "deviance", "mae",
        "mse", "mape", "mase", "perplexity" or "bits_per_token" should fall, all else rise.

    Examples
    --------
    >>> EarlyStopping("val_accuracy", patience=3)
    EarlyStopping(monitor='val_accuracy', patience=3, min_delta=0.0, restore_best=True)
    """

    _settable = _Watching._settable | {"restore_best": check.flag}

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.restore_best = restore_best
        self.mode = mode
        self._reset()

    def __repr__(self) -> str:  # in checkpoints, too, of which older ones know no mode
        return settings_text(self, ("mode",) if self.mode == "auto" else ())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"mode": "auto"} | state)  # which those of 0.1 have not

    def _reset(self) -> None:
        super()._reset()
        self._parameters: Real = np.zeros(0)  # the best ones

    def on_epoch(self, training: Training) -> None:
        if self._is_better(training) and self.restore_best:
            self._parameters = training.flat.copy()
        if self._waited >= self.patience:
            training.stop()

    def on_end(self, training: Training) -> None:
        if self._parameters.size:
            training.flat[:] = self._parameters

    def state(self) -> dict[str, Any]:
        return super().state() | {"parameters": self._parameters}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._parameters = state["parameters"]

    def _check_state(self, state: dict[str, Any], parameters: Real) -> None:
        super()._check_state(state, parameters)
        if state["parameters"].size:
            array = checkpoint.read_array(state, "parameters", parameters.dtype, parameters.shape)
            check.finite(array, "its parameters")


class ReduceOnPlateau(_Watching):
    """Make the learning rate smaller when a measure has not become better for some epochs.

    With a schedule both count: lr is what the optimizer was given, times the schedule's factor, times `factor` for each
    time that it was reduced.

    Parameters
    ----------
    monitor : str
        A name in the history.
    factor : float
        What lr is multiplied by, below 1.
    patience : int
        After how many epochs in a row that were no better; then it waits for as many again.
    min_delta : float
        What counts as better: by more than this.
    min_lr : float
        How small lr may become, the schedule's factor left out.
    mode : {"auto", "min", "max"}
        As in `EarlyStopping`, whose `patience` should be larger where both are in use.

    Examples
    --------
    >>> ReduceOnPlateau("val_loss", factor=0.5, patience=3)
    ReduceOnPlateau(monitor='val_loss', factor=0.5, patience=3, min_delta=0.0, min_lr=0.0, mode='auto')
    """

    _settable = _Watching._settable | {"factor": check.below_one, "min_lr": check.non_negative}

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.min_delta = min_delta
        self.min_lr = min_lr
        self.mode = mode
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._lr = math.inf  # once it has been reduced, what to

    def on_start(self, training: Training) -> None:
        super().on_start(training)
        training._lr = min(training._lr, self._lr)  # where a run goes on

    def on_epoch(self, training: Training) -> None:
        if self._is_better(training) or self._waited < self.patience:
            return
        self._waited, before = 0, training._lr
        if before > self.min_lr:
            training._lr = self._lr = max(before * self.factor, self.min_lr)
            training.optimizer.lr *= self._lr / before  # callbacks may have changed it, and a schedule sets it anew

    def state(self) -> dict[str, Any]:
        return super().state() | {"lr": self._lr}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._lr = state["lr"]

    def _check_state(self, state: dict[str, Any], parameters: Real) -> None:
        super()._check_state(state, parameters)
        if not isinstance(state["lr"], float) or not state["lr"] >= 0:
            raise ValueError(f"its lr must be a number of at least 0, got {check.shown(state['lr'])}")


class _FunctionCallback(Callback):
    def __init__(self, function: Function) -> None:
        self._function = function

    def on_epoch(self, training: Training) -> None:
        self._function(training)


def as_callbacks(value: Any, name: str) -> list[Callback]:
    """A list of callbacks, of functions too."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of callbacks, got {check.shown(value)}")
    items = list(value)
    for i, item in enumerate(items):
        is_schedule = isinstance(item, schedules.Constant)
        if not isinstance(item, Callback) and (isinstance(item, type) or is_schedule or not callable(item)):
            cure = f": schedule=elman.schedules.{type(item).__name__}(…)" if is_schedule else ""
            raise TypeError(f"{name}[{i}] must be an elman.Callback or a function, got {check.shown(item)}{cure}")
    return [item if isinstance(item, Callback) else _FunctionCallback(item) for item in items]


def check_state(callback: Callback, state: dict[str, Any], parameters: Real) -> None:
    """Refuse what a checkpoint says of a callback of ours; parameters (n,) are the model's. Nothing changes."""
    callback._check_state(state, parameters)
