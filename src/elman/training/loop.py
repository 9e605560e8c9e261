"""How models are trained on data sets: epochs, batches, what is recorded, and how a run that was cut off goes on.

`fit` is what the models' methods of that name call. A `Training` is one run of it, as callbacks see it.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.attributes import accepted_settings, settings_of
from elman.data.sequences import Rows
from elman.interrupts import Interrupts
from elman.storage import atomic, files
from elman.training import checkpoint
from elman.training.callbacks import History, Training, check_state
from elman.training.optimizers import go_on, memories_of
from elman.training.plan import Descent, Plan, described
from elman.typing import Int, Real


class Data(Protocol):
    """A data set as `fit` goes through it: groups of sequences, each of which becomes a batch."""

    @property
    def lengths(self) -> Int: ...
    def parts(self) -> dict[str, Rows | None]: ...  # by the names of arguments
    def groups(self, batch_size: int, rng: np.random.Generator | None = None) -> list[Int]: ...


class Trainable(Protocol):
    """What a model does for `fit`."""

    def _ready(self, data: Any, rows: Int) -> Any: ...
    def _n_windows(self, batch: Any, descent: Descent) -> int: ...
    def _gradients_of(
        self, batch: Any, descent: Descent, window: int, state: Real | None
    ) -> tuple[float, float, Real | None]: ...
    def _rows_of(self, batch: Any, descent: Descent, window: int) -> NDArray[np.bool_]: ...
    def _weight_before(self, batch: Any, descent: Descent, window: int) -> float: ...  # if there are several windows
    def _evaluate(self, data: Any, batch_size: int) -> dict[str, float]: ...


def fit(model: Any, data: Data, held_out: Data | None, plan: Plan) -> History:
    """`SequenceModel.fit`, of validated data."""
    run = Run(model, data, held_out, plan)
    if plan.checkpoint is not None:
        run.check_storable()
        if plan.resume and plan.checkpoint.exists():
            run.restore(plan.checkpoint)
    run.go_on()
    return run.history


class Run(Training):
    """One run of `fit`: what callbacks see of it, and how it goes on."""

    def __init__(self, model: Any, data: Data, held_out: Data | None, plan: Plan) -> None:
        names = ["loss"] if held_out is None else ["loss", "val_loss", f"val_{model._metric}"]
        super().__init__(model, plan.descent.optimizer, plan.epochs, History({name: [] for name in names}))
        self._trainable: Trainable = model
        self._data, self._held_out, self._plan = data, held_out, plan
        self._given = settings_of(self.optimizer)
        self._lr = self.optimizer.lr  # what the schedule multiplies
        has_file = plan.checkpoint is not None
        self._place = (
            Path() if plan.checkpoint is None else plan.checkpoint.absolute()
        )  # callbacks may go to another folder
        self._about = self._about_run() if has_file else {}
        self._interrupts = Interrupts(are_noted=has_file)
        # Where it stands in the epoch: the next batch, the next window of it and the state that this begins with
        self._batch, self._window = 0, 0
        self._state: Real | None = None
        self._sums = (0.0, 0.0)  # of weight times loss, and of weights
        self._order = model._shuffle_rng.bit_generator.state  # that the epoch's batches were drawn with

    # The loop

    def go_on(self) -> None:
        """From where it stands to the last epoch."""
        try:
            for callback in self._plan.callbacks:
                callback.on_start(self)
            with _progress_bar(self, show=self._plan.progress) as bar, self._interrupts.handled():
                while self.epoch < self.epochs and not self._is_stopped:
                    self._run_epoch(bar)
        finally:
            for name, value in self._given.items():  # a schedule, or callbacks, have changed them
                setattr(self.optimizer, name, value)
        for callback in self._plan.callbacks:
            callback.on_end(self)

    def _run_epoch(self, bar: Any) -> None:
        rng = self.model._shuffle_rng
        self._order = rng.bit_generator.state
        groups = self._data.groups(self._plan.batch_size, rng if self._plan.shuffle else None)
        for i in range(self._batch, len(groups)):
            batch = self._trainable._ready(self._data, groups[i])
            n_windows = self._trainable._n_windows(batch, self._plan.descent)
            for window in range(self._window, n_windows):
                self._step(batch, window, (i + (window + 0.5) / n_windows) / len(groups))
                is_last = window + 1 == n_windows
                self._batch, self._window = (i + 1, 0) if is_last else (i, window + 1)
                self._state = None if is_last else self._state
                self._after_step()
                done = self.epoch + (i + (window + 1) / n_windows) / len(groups)
                bar.update(done - bar.n)  # not by parts, whose sum may be beyond the end: tqdm would warn
        self._end_epoch()
        bar.set_postfix({name: f"{values[-1]:.4f}" for name, values in self.history.items()}, refresh=False)
        bar.update(self.epoch - bar.n)
        if self._plan.checkpoint is not None:
            self._save()
        self._stop_if_interrupted()

    def _step(self, batch: Any, window: int, done: float) -> None:
        if self._plan.schedule is not None:
            self.optimizer.lr = self._lr * self._plan.factor(self.epoch + done)
        state = self._state if window else None
        with self._nothing_changes():
            loss, weight, after = self._trainable._gradients_of(batch, self._plan.descent, window, state)
        with self._interrupts.noted():  # an update is whole, or is none
            if weight > 0:
                self.model._update(loss, self._plan.descent)
            self.loss, self._state = loss, after
            self.steps += 1
            self._sums = self._sums[0] + weight * loss, self._sums[1] + weight

    def _after_step(self) -> None:
        for callback in self._plan.callbacks:
            callback.on_step(self)
        if self._plan.checkpoint_every is not None and self.steps % self._plan.checkpoint_every == 0:
            self._save()
        self._stop_if_interrupted()

    def _end_epoch(self) -> None:
        measured = {}
        if self._held_out is not None:
            with self._nothing_changes():
                measured = self._trainable._evaluate(self._held_out, self._plan.batch_size)
        self.history["loss"].append(self._sums[0] / self._sums[1])
        for name, value in measured.items():
            self.history[f"val_{name}"].append(value)
        self.epoch += 1
        self._batch, self._sums = 0, (0.0, 0.0)
        self._order = self.model._shuffle_rng.bit_generator.state
        for callback in self._plan.callbacks:
            callback.on_epoch(self)

    @contextlib.contextmanager
    def _nothing_changes(self) -> Iterator[None]:
        """While long calls run that change nothing but what is drawn, Ctrl-C ends them at once."""
        _, *generators = self.model._generators()
        before = [generator.bit_generator.state for generator in generators]
        try:
            with self._interrupts.raised():
                yield
        except BaseException as error:
            for generator, state in zip(generators, before, strict=True):
                generator.bit_generator.state = state
            if isinstance(error, KeyboardInterrupt):
                self._save_what_is_done()
            raise

    def _stop_if_interrupted(self) -> None:
        if self._interrupts.came:
            self._save_what_is_done()
            raise KeyboardInterrupt

    def _save_what_is_done(self) -> None:
        if self._plan.checkpoint is not None:
            self._save()
            print(
                f"\nStopped after {self.steps} steps. {self._plan.checkpoint} holds all; "
                "fit with resume=True goes on from there.",
                file=sys.stderr,
            )

    # Checkpoints

    def _about_run(self) -> dict[str, Any]:
        """What must be the same for a run to go on, by the names that messages use."""
        model, layer = self.model, self.model._layers()[0]
        held_out = {} if self._held_out is None else _fingerprints(self._held_out)
        settings = {
            "seed": model._seed,
            "initialization": None if model._seed is None else layer.initialization,
            "spectral_radius": None if model._seed is None else layer.spectral_radius,
            **_fingerprints(self._data),
            **{f"validation_data[{i}]": value for i, value in enumerate(held_out.values())},
            **self._plan.settings(has_dropout=layer.dropout > 0 or layer.recurrent_dropout > 0),
        }
        return files.as_read(settings)

    def _save(self) -> None:
        atomic.write(self._place, *self._content(), name="checkpoint")

    def check_storable(self) -> None:
        """Refuse now, and not after an epoch, what cannot be in a file."""
        self.model._check_saveable()
        for callback in self._plan.with_state:
            checkpoint.divided(callback.state(), f"what state() of {described(callback)} returns")

    def _content(self) -> tuple[bytes, memoryview]:
        """What a checkpoint holds, in pieces."""
        states: list[dict[str, Any]] = []
        arrays = {f"optimizer.{i}": array for i, array in enumerate(memories_of(self.optimizer, "flat"))}
        for i, callback in enumerate(self._plan.with_state):
            state, own = checkpoint.divided(callback.state(), f"what state() of {described(callback)} returns")
            states.append(state)
            arrays |= {f"callback.{i}.{name}": array for name, array in own.items()}
        if self._window and self._state is not None:
            arrays["state"] = self._state
        content: tuple[bytes, memoryview] = self.model._content(files.Progress(self._record(states), arrays))
        return content

    def _record(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """All but arrays, with the states of callbacks."""
        _, *generators = self.model._generators()
        return {
            "run": self._about,
            "epochs": self.epochs,
            "history": self.history,
            "epoch": self.epoch,
            "steps": self.steps,
            "batch": self._batch,
            "window": self._window,
            "sums": self._sums,
            "is_stopped": self._is_stopped,
            "optimizer": settings_of(self.optimizer),
            "optimizer_steps": self.optimizer.steps,
            "generators": [self._order, *(generator.bit_generator.state for generator in generators)],
            "callbacks": states,
        }

    def _of_this_run(self, path: Path) -> tuple[dict[str, Real], dict[str, Any], checkpoint.Arrays]:
        """Parameters, record and arrays of a checkpoint that says that it is of a run like this one."""
        parameters, record, arrays = checkpoint.read(path, self.model)
        with checkpoint.refusing(path):
            if "settings" in record:
                record, arrays = checkpoint.modernized(record, arrays, self._about, self.optimizer)
            epochs = check.positive_int(record["epochs"], "its epochs")
            run = check.instance(record["run"], "its run", dict)
        now = self._about | {"schedule": self._plan.described_schedule(epochs)}
        if now["seed"] is None:  # nobody asks for one here, and the first parameters are those of the run
            first = {name: run.get(name) for name in ("seed", "initialization", "spectral_radius")}
            now, self._about = now | first, self._about | first
        checkpoint.same_run(run, now, str(path))
        return parameters, record, arrays

    def restore(self, path: Path) -> None:
        """Go on from the checkpoint: all of it, or an error and nothing changed."""
        model, optimizer = self.model, self.optimizer
        parameters, record, arrays = self._of_this_run(path)
        with checkpoint.refusing(path):
            generators = checkpoint.read_generators(record, model)
            memories = checkpoint.read_memories(record, arrays, optimizer, model)
            settings = accepted_settings(
                optimizer, check.instance(record["optimizer"], "its optimizer", dict), "its optimizer"
            )
            check.same_names(record, self._record([]), "its training")
            epoch, steps = (check.count(record[name], f"its {name}") for name in ("epoch", "steps"))
            history = checkpoint.read_history(record, list(self.history), epoch)
            first, second = check.pair(record["sums"], "its sums")
            sums = check.finite_number(first, "its sums"), check.non_negative(second, "its sums")
            is_stopped = check.flag(record["is_stopped"], "its is_stopped")
            batch, window, state = self._read_place(record, arrays, generators[0], sums)
            n_begun = epoch + (batch > 0 or window > 0)
            check.at_least(steps, "its steps", n_begun)
        _check_epochs(self.epochs, n_begun, str(path))
        with checkpoint.refusing(path):
            names = {f"optimizer.{i}" for i in range(len(memories))} | ({"state"} if window else set())
            states = self._read_callbacks(record, arrays, names)
            before = model._parameters.flat.copy()
            model.load_state_dict(parameters)  # all of it or an error
        try:
            self._load_callbacks(states, path)
        except BaseException:
            model._parameters.flat[:] = before
            raise
        checkpoint.take_over(generators, model)
        go_on(optimizer, "flat", memories, record["optimizer_steps"], settings)
        self.history.update(history)
        self.epoch, self.steps, self._sums, self._is_stopped = epoch, steps, sums, is_stopped
        self._batch, self._window, self._state = batch, window, state

    def _read_callbacks(
        self, record: dict[str, Any], arrays: checkpoint.Arrays, others: set[str]
    ) -> list[dict[str, Any]]:
        """Their states, put together again. The arrays are theirs and `others`, and there are no more."""
        callbacks, states, expected = self._plan.with_state, [], set(others)
        check.same_count(len(record["callbacks"]), len(callbacks), "its callbacks", "callbacks that keep a state")
        for i, callback in enumerate(callbacks):
            start = f"callback.{i}."
            own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            expected |= {start + name for name in own}
            states.append({**check.instance(record["callbacks"][i], "its callbacks", dict), **own})
            check_state(callback, states[-1], self.model)
        check.same_names(arrays, expected, "its training")
        return states

    def _load_callbacks(self, states: list[dict[str, Any]], path: Path) -> None:
        """All of them or, as what is a stranger's may raise, none."""
        callbacks = self._plan.with_state
        before = [copy.deepcopy(callback.state()) for callback in callbacks]
        for i, (callback, state) in enumerate(zip(callbacks, states, strict=True)):
            try:
                callback.load_state(state)
            except BaseException as error:
                for loaded, own in zip(callbacks[: i + 1], before, strict=False):
                    loaded.load_state(own)
                if not isinstance(error, Exception):
                    raise
                raise ValueError(f"{described(callback)} does not take its state in {path}: {error!r}") from error

    def _read_place(
        self, record: dict[str, Any], arrays: checkpoint.Arrays, rng: np.random.Generator, sums: tuple[float, float]
    ) -> tuple[int, int, Real | None]:
        """Where in the epoch whose order is drawn from `rng` it stands: the batch, its window, the state before it."""
        groups = self._data.groups(self._plan.batch_size, copy.deepcopy(rng) if self._plan.shuffle else None)
        batch = check.below(record["batch"], "its batch", len(groups) + 1)
        if batch == len(groups):
            _check_sums(*sums, is_something_done=True, name="its sums")
            return batch, check.below(record["window"], "its window", 1), None
        ready = self._trainable._ready(self._data, groups[batch])
        n_windows = self._trainable._n_windows(ready, self._plan.descent)
        window = check.below(record["window"], "its window", n_windows)
        weight = self._trainable._weight_before(ready, self._plan.descent, window) if window else 0.0
        _check_sums(*sums, is_something_done=batch > 0 or weight > 0, name="its sums")
        if not window:
            return batch, 0, None
        layer = self.model._layers()[-1]
        shape = (layer.num_layers, len(groups[batch]), layer.hidden_size)  # windows are of one direction
        state = checkpoint.read_array(arrays, "state", layer.dtype, shape)
        goes_on = self._trainable._rows_of(ready, self._plan.descent, window)
        check.finite(state[:, goes_on], "its training:state")  # of sequences that have ended it is anything
        return batch, window, state


def _fingerprints(data: Data) -> dict[str, str | None]:
    return {name: None if rows is None else checkpoint.fingerprint(rows) for name, rows in data.parts().items()}


def _progress_bar(training: Training, *, show: bool) -> Any:
    from tqdm import tqdm  # only here: `import elman` does without it

    layout = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} epochs, {remaining} left{postfix}"
    return tqdm(total=training.epochs, initial=training.epoch, bar_format=layout, disable=not show)


def _check_epochs(epochs: int, n_begun: int, path: str) -> None:
    if epochs < n_begun:
        raise ValueError(f"epochs must be at least {n_begun}, as the run in {path} has begun so many, got {epochs}")


def _check_sums(loss: float, weight: float, is_something_done: bool, name: str) -> None:
    """The weighted sum of losses, and the sum of weights, in an epoch."""
    is_right = weight > 0 and np.isfinite(loss / weight) if is_something_done else loss == weight == 0
    if not is_right:
        raise ValueError(f"{name} must be those of what was trained on in this epoch, got {loss} and {weight}")
