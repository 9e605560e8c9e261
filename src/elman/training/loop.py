"""How networks are trained on data sets: epochs, batches, updates, and what is recorded of them.

A `Training` is one run of `fit`, as callbacks see it.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from elman.data.sequences import Item
from elman.interrupts import postponed
from elman.layer.dynamics import keys_of_rows
from elman.training.callbacks import Training
from elman.training.resumable import Resumable
from elman.typing import Int, Real


class Run(Resumable):
    """One run of `fit`, and how it goes on."""

    def prepare(self) -> None:
        """Go to where the checkpoint stands, if there is one, or draw what stays the same until the end."""
        path = self._plan.checkpoint
        if path is not None:
            self.check_storable()
        if path is not None and self._plan.resume and path.exists():
            self.restore(path)
        elif self._has_keys:
            self._noise_seed = self._network.draw_noise_seed()

    def go_on(self) -> None:
        """From where it stands to the last epoch, unless a callback or Ctrl-C ends it before."""
        try:
            self._call("on_start")
            with _progress_bar(self, show=self._plan.progress) as bar, self._interrupts.handled():
                while self.epoch < self.epochs and not self._is_stopped:
                    self._run_epoch(bar)
        finally:
            for name, value in self._given.items():  # a schedule, or callbacks, have changed them
                setattr(self.optimizer, name, value)
            if self._average is not None and self.steps:
                with postponed():
                    self.flat[:] = self._average
        self._call("on_end")

    def _run_epoch(self, bar: Any) -> None:
        plan, rng = self._plan, self._network.shuffle_rng
        self._order = rng.bit_generator.state
        with self._waiting():
            n, items = self._data.epoch(plan.n_rows, rng if plan.shuffle else None, self.epoch, self._batch)
        while (item := self._next(items)) is not None:
            batch, i = self._drawn(item.batch, item.rows, (item.number + 0.5) / (n or math.inf)), item.number
            n_windows = self._n_windows(item)
            for window in range(self._window, n_windows):
                self._step(batch, window, (i + (window + 0.5) / n_windows) / (n or math.inf))
                is_last = window + 1 == n_windows
                self._batch, self._window = (i + 1, 0) if is_last else (i, window + 1)
                self._state, self._digest = None if is_last else self._state, item.after
                self._after_step()
                if self._is_cut:
                    break
                done = self.epoch + (i + (window + 1) / n_windows) / (n or math.inf)
                if n is None:  # nobody knows how far the epoch is
                    bar.set_postfix({"updates": self.steps}, refresh=False)
                bar.update(done - bar.n)  # not by parts, whose sum may be beyond the end: tqdm would warn
            if self._is_cut:
                break
            self._batch, self._digest = i + 1, item.after  # be there no window
        self._end_epoch()
        bar.set_postfix({name: f"{values[-1]:.4f}" for name, values in self.history.items()}, refresh=False)
        bar.update(self.epoch - bar.n)
        if plan.checkpoint is not None:
            self.save()
        self._stop_if_interrupted()

    def _call(self, name: str) -> None:
        """The callbacks' methods of a name."""
        for callback in self._plan.callbacks:
            getattr(callback, name)(self)

    def _n_windows(self, item: Item) -> int:
        return 0 if item.batch is None else self._windows.count(len(item.batch.x))

    def _next(self, items: Iterator[Item]) -> Item | None:
        with self._waiting():
            return next(items, None)

    def _waiting(self) -> contextlib.AbstractContextManager[None]:
        return self._nothing_changes() if self._data.may_wait else contextlib.nullcontext()

    def _drawn(self, batch: Any, rows: Int, done: float) -> Any:
        """A batch with what its rows draw noise with: the run, the epoch and the rows, nothing else.

        So it is decided, too, where predictions are fed back.
        """
        if self._noise_seed is None or batch is None:
            return batch
        batch = batch._replace(keys=keys_of_rows(self._noise_seed, self.epoch, rows))
        part = self._plan.part_fed_back(self.epoch + done)
        if part == 0:
            return batch
        with self._nothing_changes():
            return self._network.fed_back(batch, part)

    def _step(self, batch: Any, i: int, done: float) -> None:
        """The update of window number i."""
        plan = self._plan
        if plan.schedule is not None:
            self.optimizer.lr = self._lr * plan.factor(self.epoch + done)
        with self._nothing_changes():
            loss, weight, after = self._gradients(batch, i)
        with self._interrupts.noting(True):  # an update is whole, or is none
            if weight > 0:
                self._network.update(loss, plan.descent)
            self.loss, self._state = loss, after
            self.steps += 1
            if (kept := plan.average) is not None and self._average is not None:
                # so that θ_i has a weight ∝ kept^(t − i) after t updates
                self._network.add_to_average(self._average, (1 - kept) / (1 - kept**self.steps))
            self._sums = self._sums[0] + weight * loss, self._sums[1] + weight

    def _gradients(self, batch: Any, i: int) -> tuple[float, float, Real | None]:
        """Of window number i: the mean loss, the weight of its targets, the states behind it. Gradients are written."""
        window = self._windows.window(batch, i)
        loss, after = self._network.gradients_of(window, self._state if i else None, self._plan.descent)
        return loss, window.batch.targets.total, after

    def _after_step(self) -> None:
        self._call("on_step")
        if self._is_cut:  # at the end of the epoch all this is done
            return
        every = self._plan.checkpoint_every
        if every is not None and self.steps % every == 0:
            self.save()
        self._stop_if_interrupted()

    def _end_epoch(self) -> None:
        measured = {}
        if self._held_out is not None:
            with self._nothing_changes(), self._averaged():
                measured = self._network.evaluate(self._held_out, self._plan.batch_size, self._plan.metrics)
        if self._sums[1] == 0 and not self._is_cut:
            is_data = self._data.parts()  # and no function
            given = "Y must hold at least one target" if is_data else "X must return batches with a target"
            raise ValueError(f"{given} in each epoch, got none in epoch {self.epoch}")
        self.history["loss"].append(self._sums[0] / self._sums[1] if self._sums[1] else math.nan)
        for name, value in measured.items():
            self.history[f"val_{name}"].append(value)
        self.epoch += 1
        self._batch, self._window, self._state, self._sums = 0, 0, None, (0.0, 0.0)
        self._order = self._network.shuffle_rng.bit_generator.state
        with self._averaged():
            self._call("on_epoch")

    @contextlib.contextmanager
    def _nothing_changes(self) -> Iterator[None]:
        """While long calls run that change nothing but what is drawn, Ctrl-C ends them at once."""
        _, *generators = self._network.generators()
        before = [generator.bit_generator.state for generator in generators]
        try:
            with self._interrupts.noting(False):
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
            self.save()
            print(
                f"\nStopped after {self.steps} steps. {self._plan.checkpoint} holds all; "
                "fit with resume=True goes on from there.",
                file=sys.stderr,
            )


def _progress_bar(training: Training, *, show: bool) -> Any:
    if not show:  # nor a tqdm that is disabled: its lock, a semaphore of the system, outlives workers that are killed
        return contextlib.nullcontext(SimpleNamespace(n=0.0, update=_ignore, set_postfix=_ignore))
    from tqdm import tqdm  # only here: `import elman` does without it

    layout = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} epochs, {remaining} left{postfix}"
    return tqdm(total=training.epochs, initial=training.epoch, bar_format=layout)


def _ignore(*_: Any, **__: Any) -> None:
    """What a bar that nobody sees does."""
