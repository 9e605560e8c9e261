"""A run that is kept in a file, so that it can go on from there as if nothing had happened.

checkpoint.py says what is in the file. Nothing of it is believed before all of it has been checked.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from elman import check
from elman.attributes import accepted_settings, settings_of
from elman.data.sequences import Item, Windows
from elman.interrupts import Interrupts
from elman.layer.parameters import load_state
from elman.storage import atomic, files
from elman.training import checkpoint
from elman.training.callbacks import History, Training, check_state
from elman.training.checkpoint import fingerprint, refusing
from elman.training.optimizers import go_on, memories_of
from elman.training.plan import Data, Plan, Trainable, described
from elman.typing import Real


class Resumable(Training):
    """What a run is: where it stands, and what must be the same for it to go on."""

    def __init__(self, model: Any, network: Trainable, data: Data, held_out: Data | None, plan: Plan) -> None:
        names = ["loss", *(f"val_{name}" for name in ("loss", *plan.metrics.names) if held_out is not None)]
        history = History({name: [] for name in names})
        super().__init__(model, plan.descent.optimizer, plan.epochs, history, network.parameters.flat)
        self._network, self._data, self._held_out, self._plan = network, data, held_out, plan
        self._windows = Windows(plan.descent.tbptt, network.predicted)
        # Where it stands in the epoch: the next batch, the next window of it and the state that this begins with
        self._batch, self._window = 0, 0
        self._state: Real | None = None
        self._sums = (0.0, 0.0)  # of weight times loss, and of weights
        self._order = network.shuffle_rng.bit_generator.state  # that the epoch's batches were drawn with
        self._digest = data.digest  # of the batches that have been begun
        self._average = None if plan.average is None else self.flat.copy()  # or what it is a mean of,
        self._is_averaged = False  # while the model has the average
        self._has_keys = network.is_noisy or plan.scheduled_sampling is not None  # of rows, which draw something each
        self._noise_seed: int | None = None  # drawn, where rows have keys, when it is sure that the run begins
        self._given = settings_of(self.optimizer)
        has_file = plan.checkpoint is not None
        self._interrupts = Interrupts(are_noted=has_file)
        self._place = Path() if plan.checkpoint is None else plan.checkpoint.absolute()  # wherever callbacks may go
        self._about = self._about_run() if has_file else {}

    def check_storable(self) -> None:
        """Refuse now, and not after an epoch, what cannot be in a file."""
        self._network.check_saveable(self.model.metadata)
        self._states()

    def save(self) -> None:
        """Write the model with all that `restore` needs: the old file or the whole new one."""
        states, arrays = self._states()
        memories = memories_of(self.optimizer, "flat")
        arrays = {f"optimizer.{i}": array for i, array in enumerate(memories)} | arrays
        if self._window and self._state is not None:
            arrays["state"] = self._state
        with self._averaged():
            if self._average is not None:
                arrays["trained"] = self._average
            run = files.Checkpoint(self._record(states), arrays)
            atomic.write(self._place, *self._network.content(self.model.metadata, run), name="checkpoint")

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the model has the average of its parameters, if there is one."""
        is_mine = self._average is not None and not self._is_averaged
        if is_mine:
            self._swap()
        try:
            yield
        finally:
            if is_mine:
                self._swap()

    def _swap(self) -> None:
        assert self._average is not None
        with self._interrupts.noting(True):  # it is whole, or is none
            kept = self.flat.copy()
            self.flat[:], self._average[:] = self._average, kept
            self._is_averaged = not self._is_averaged

    def restore(self, path: Path) -> None:
        """Go on from the checkpoint: all of it, or an error and nothing changed."""
        network, optimizer = self._network, self.optimizer
        parameters, record, arrays = self._of_this_run(path)
        flat = network.parameters.flat
        with refusing(path):
            generators = checkpoint.read_generators(record, network.generators())
            memories = checkpoint.read_memories(record, arrays, optimizer, flat)
            own = check.instance(record["optimizer"], "its optimizer", dict)
            settings = accepted_settings(optimizer, own, "its optimizer")
            check.same_names(record, self._record([]), "its training")
            epoch, steps = (check.count(record[name], f"its {name}") for name in ("epoch", "steps"))
            history = checkpoint.read_history(record, list(self.history), epoch, self._plan.metrics.unbounded)
            first, second = check.pair(record["sums"], "its sums")
            sums = check.finite_number(first, "its sums"), check.non_negative(second, "its sums")
            is_stopped = check.flag(record["is_stopped"], "its is_stopped")
            noise_seed = None
            if self._has_keys:
                noise_seed = check.non_negative_int(record["noise_seed"], "its noise_seed")
            batch, window = (check.count(record[name], f"its {name}") for name in ("batch", "window"))
        n_batches, item = self._item_at(epoch, batch, window, generators[0])
        with refusing(path):
            check.below(batch, "its batch", batch + 1 if n_batches is None else n_batches + 1)
            if not is_stopped:  # then there may be others that nobody has asked for
                self._check_batches(record, item, window)
            state = self._read_state(record, arrays, item, sums, batch > 0)
            trained = None if self._average is None else checkpoint.read_parameters(arrays, "trained", flat)
            n_begun = epoch + (batch > 0 or window > 0)
            check.at_least(steps, "its steps", n_begun)
        if self.epochs < n_begun:
            begun = f"at least {n_begun}, as the run in {path} has begun so many"
            raise ValueError(f"epochs must be {begun}, got {self.epochs}")
        with refusing(path):
            names = {f"optimizer.{i}" for i in range(len(memories))} | ({"state"} if window else set())
            names |= set() if trained is None else {"trained"}
            states = self._read_states(record, arrays, names)
            before = flat.copy()
            load_state(network.parameters.named(), parameters)  # all of them or an error
        try:
            self._load_states(states, path)
        except BaseException:
            flat[:] = before
            raise
        if self._average is not None:
            self._average[:], flat[:] = flat.copy(), trained
        for generator, read in zip(network.generators(), generators, strict=True):
            generator.bit_generator.state = read.bit_generator.state
        go_on(optimizer, "flat", memories, record["optimizer_steps"], settings)
        self.history.update(history)
        self.epoch, self.steps, self._sums, self._is_stopped = epoch, steps, sums, is_stopped
        self._batch, self._window, self._state, self._noise_seed = batch, window, state, noise_seed

    def _about_run(self) -> dict[str, Any]:
        """What must be the same for a run to go on, by the names that messages use."""
        rnn, seed = self._network.rnns[0], self._network.seed
        is_part = self._plan.validation_split is not None  # of what is fingerprinted anyway
        validation = {} if self._held_out is None or is_part else _fingerprints(self._held_out)
        settings = {
            "seed": seed,
            "initialization": None if seed is None else rnn.initialization,
            "spectral_radius": None if seed is None else rnn.spectral_radius,
            **_fingerprints(self._data),
            **{f"validation_data[{i}]": value for i, value in enumerate(validation.values())},
            **self._plan.settings(),
        }
        return files.as_read(settings)

    def _record(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """All but arrays, with the states of callbacks."""
        _, *generators = self._network.generators()
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
            **({"noise_seed": self._noise_seed} if self._has_keys else {}),
            **({} if self._digest is None else {"digest": self._digest}),
            "optimizer": settings_of(self.optimizer),
            "optimizer_steps": self.optimizer.steps,
            "generators": [self._order, *(generator.bit_generator.state for generator in generators)],
            "callbacks": states,
        }

    def _of_this_run(self, path: Path) -> tuple[dict[str, Real], dict[str, Any], checkpoint.Arrays]:
        """Parameters, record and arrays of a checkpoint that says that it is of a run like this one."""
        parameters, record, arrays = checkpoint.read(path, self._network.kind, self._network.config())
        with refusing(path):
            if "settings" in record:
                record, arrays = checkpoint.modernized(record, arrays, self._about, self.optimizer, self.epochs)
            epochs = check.positive_int(record["epochs"], "its epochs")
            run = check.instance(record["run"], "its run", dict)
            run.pop("memory", None)  # on which bits depended once
        now = self._about | self._plan.described_schedules(epochs)
        if now["seed"] is None:  # nobody asks for one here, and the first parameters are those of the run
            first = {name: run.get(name) for name in ("seed", "initialization", "spectral_radius")}
            now, self._about = now | first, self._about | first
        checkpoint.same_run(run, now, str(path))
        return parameters, record, arrays

    def _item_at(self, epoch: int, batch: int, window: int, rng: np.random.Generator) -> tuple[int | None, Item | None]:
        """How many batches an epoch has, and the one that is next; None for none where it may be any."""
        if batch == window == 0:
            self._data.skip(epoch)
            return None, None
        rng = copy.deepcopy(rng)
        n, items = self._data.epoch(self._plan.n_rows, rng if self._plan.shuffle else None, epoch, batch)
        return n, next(items, None)

    def _check_batches(self, record: dict[str, Any], item: Item | None, window: int) -> None:
        """Those of a function must be what they were."""
        found = self._data.digest if item is None else item.after if window else item.before
        if record.get("digest") != found:
            check.refuse(
                "the batches that X returns are others than they were: let it begin as it did when the run began"
            )
        self._digest = found

    def _read_state(
        self,
        record: dict[str, Any],
        arrays: checkpoint.Arrays,
        item: Item | None,
        sums: tuple[float, float],
        has_batches: bool,
    ) -> Real | None:
        """The state before the next window; the sums of what has been done are checked, too."""
        batch: Any = None if item is None else item.batch
        window = check.below(record["window"], "its window", 1 if batch is None else self._windows.count(len(batch.x)))
        weight = self._windows.weight_before(batch, window) if window else 0.0
        is_something_done = sums[1] > 0 if self._data.may_wait else has_batches or weight > 0
        _check_sums(*sums, is_something_done=is_something_done, name="its sums")
        if item is None or not window:
            return None
        expected = self._network.initial_state(len(item.rows))
        state = checkpoint.read_array(arrays, "state", expected.dtype, expected.shape)
        goes_on = self._windows.rows(batch, window)
        check.finite(state[:, goes_on], "its training:state")  # of sequences that have ended it is anything
        return state

    # Callbacks

    def _states(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What the callbacks keep: what goes into JSON, and arrays."""
        states, arrays = list[dict[str, Any]](), dict[str, Any]()
        for i, callback in enumerate(self._plan.with_state):
            state, own = checkpoint.divided(callback.state(), f"what state() of {described(callback)} returns")
            states.append(state)
            arrays |= {f"callback.{i}.{name}": array for name, array in own.items()}
        return states, arrays

    def _read_states(self, record: dict[str, Any], arrays: checkpoint.Arrays, others: set[str]) -> list[dict[str, Any]]:
        """Those of the callbacks, put together again. The arrays are theirs and `others`, and there are no more."""
        callbacks, states, expected = self._plan.with_state, [], set(others)
        check.same_count(len(record["callbacks"]), len(callbacks), "its callbacks", "callbacks that keep a state")
        for i, callback in enumerate(callbacks):
            start = f"callback.{i}."
            own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            expected |= {start + name for name in own}
            states.append({**check.instance(record["callbacks"][i], "its callbacks", dict), **own})
            check_state(callback, states[-1], self._network.parameters.flat)
        check.same_names(arrays, expected, "its training")
        return states

    def _load_states(self, states: list[dict[str, Any]], path: Path) -> None:
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


def _fingerprints(data: Data) -> dict[str, str | None]:
    return {name: None if rows is None else fingerprint(rows) for name, rows in data.parts().items()}


def _check_sums(loss: float, weight: float, is_something_done: bool, name: str) -> None:
    """The weighted sum of losses, and the sum of weights, in an epoch."""
    is_right = weight > 0 and np.isfinite(loss / weight) if is_something_done else loss == weight == 0
    if not is_right:
        raise ValueError(f"{name} must be those of what was trained on in this epoch, got {loss} and {weight}")
