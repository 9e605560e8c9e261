"""A run of `fit` on several processes: each computes the gradients of its shards of a batch, and updates its model.

With `accumulate` it is one process, which has all shards.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.about import instruction_set
from elman.attributes import settings_of
from elman.data.sequences import Item, Window
from elman.layer.rnn import mode_of
from elman.storage import files
from elman.training.callbacks import Callback
from elman.training.checkpoint import Arrays, read_array
from elman.training.loop import Run
from elman.training.optimizers import go_on, memories_of
from elman.training.plan import Data, Descent, Penalties, Plan, Trainable
from elman.training.ranks import Ranks, Sums
from elman.typing import Int, Real

_WHERE_IT_STANDS = "epoch", "steps", "_sums", "_batch", "_window", "_state", "_noise_seed", "_average"
_FOLLOWED = "epochs", "history", "_lr", "_is_stopped", "_is_cut"
_OF_RANK_0 = "seed", "initialization", "spectral_radius", "callbacks that keep a state", "metrics"  # and what follows


class DistributedRun(Run):
    """One run of `fit`, as one rank goes through it: rank 0 has the callbacks, the held-out data, the checkpoint."""

    def __init__(
        self, model: Any, network: Trainable, data: Data, held_out: Data | None, plan: Plan, ranks: Ranks
    ) -> None:
        super().__init__(model, network, data, held_out, plan)
        self._ranks, self._n_rows, self._n_of_batch = ranks, 0, 0  # rows and windows of this batch
        data.shards = [slice(shard, None, ranks.n_shards) for shard in ranks.own]
        self._has_dropout = any(rnn.dropout or rnn.recurrent_dropout for rnn in network.rnns)
        self._watches_steps = False

    def prepare(self) -> None:
        self._check_alike()
        if self._ranks.is_root:
            super().prepare()
        methods = [getattr(callback.on_step, "__func__", None) for callback in self._plan.callbacks]
        own = {name: getattr(self, name) for name in _WHERE_IT_STANDS}
        memories, watches = memories_of(self.optimizer, "flat"), any(one is not Callback.on_step for one in methods)
        own, memories, self._watches_steps = self._ranks.shared("run", (own, memories, watches))
        for name, value in own.items():
            setattr(self, name, value)
        go_on(self.optimizer, "flat", memories, self.optimizer.steps, {})
        self._follow()

    def _check_alike(self) -> None:
        """Refuse what would make the ranks' models differ, or their batches."""
        rnn = self._network.rnns[-1]
        about = self._about_run()
        own = files.as_read(
            {name: about[name] for name in about if name not in _OF_RANK_0 and not name.startswith("validation_data")}
            | self._config()
            | {"epochs": self.epochs, "memory": self._plan.descent.memory}
            | {"backend": mode_of(rnn).backend.__name__, "instruction set": instruction_set()}
        )
        expected = self._ranks.shared("settings", own)
        for name in [*expected, *own]:
            here, there = own.get(name), expected.get(name)
            if not files.is_same(here, there):
                raise ValueError(
                    f"{name} must be the same on all ranks, got {there} on rank 0 and {here} on rank {self._ranks.rank}"
                )

    def _drawn(self, batch: Any, rows: Int, done: float) -> Any:
        """The same of each part of a batch."""
        parts = zip(batch, self._data.shards or (), strict=True)
        return [super(DistributedRun, self)._drawn(own, rows[part], done) for own, part in parts]

    def _n_windows(self, item: Item) -> int:
        digest = int(item.after or "0", 16)  # 48 bits
        of_own = [(0, 0, digest) if own is None else (len(own.x), own.targets.total, digest) for own in item.batch]
        with self._nothing_changes():
            n_steps, totals, digests = self._ranks.gathered("batch", of_own).T
        if digests.min() != digests.max():
            check.refuse("X must return the same batches on all ranks, got others")
        self._n_rows, self._n_of_batch = len(item.rows), 0
        if totals.any():
            self._n_of_batch = self._windows.count(int(n_steps.max()))
        return self._n_of_batch

    def _gradients(self, batch: Any, i: int) -> tuple[float, float, Real | None]:
        ranks, windows = self._ranks, [self._window_of(own, i) for own in batch]
        of_own = [(0, 0) if own is None else self._weights(own.batch) for own in windows]
        weights, n_penalized, _ = ranks.gathered("window", of_own).T
        total, first = math.fsum(weights), int(n_penalized.argmax())
        descents = [self._descent(n_penalized, shard, first) for shard in ranks.own]
        losses, states, sums = [], [], Sums()
        with self._drawing() as draw_for:
            for shard, window, descent in zip(ranks.own, windows, descents, strict=True):
                draw_for(shard)
                loss, after = self._gradients_of_shard(shard, window, total, descent)
                losses.append(loss)
                states.append(after)
                sums.add(shard, self._network.gradients.flat.copy())
        of_shards, self._network.gradients.flat[:] = ranks.summed(losses, sums)
        return math.fsum(of_shards), total, self._side_by_side(states) if i + 1 < self._n_of_batch else None

    def _window_of(self, part: Any, i: int) -> Window | None:
        """Window number i of a part of a batch, if it has that."""
        return self._windows.window(part, i) if part is not None and self._windows.has(part, i) else None

    def _weights(self, batch: Any) -> tuple[float, float]:
        """What a mean of losses, and one of penalties on activations, has of a part of a batch."""
        return batch.targets.total, self._network.n_penalized(batch)

    def _descent(self, n_penalized: NDArray[np.float64], shard: int, first: int) -> Descent:
        """The plan's, with the shard's part of the penalties, so that those of all add up to these."""
        descent, (l1, l2, *of_weights) = self._plan.descent, self._plan.descent.penalties
        part = float(n_penalized[shard] / max(1, n_penalized.sum()))
        of_weights = of_weights if shard == first else [0.0, 0.0]
        return descent._replace(penalties=Penalties(l1 * part, l2 * part, *of_weights))

    def _gradients_of_shard(
        self, shard: int, window: Window | None, total: float, descent: Descent
    ) -> tuple[float, Real | None]:
        """A shard's part of the mean loss, and the states behind it. Its gradients are written."""
        rows = slice(shard, None, self._ranks.n_shards)
        before = None if self._state is None else np.ascontiguousarray(self._state[:, rows])
        if window is None:
            self._network.gradients.flat.fill(0)
            return 0.0, before
        batch = window.batch
        of_all = batch._replace(targets=batch.targets._replace(total=total))
        return self._network.gradients_of(window._replace(batch=of_all), before, descent)

    def _side_by_side(self, states: list[Real | None]) -> Real:
        """(L·D, B, H) of all shards."""
        whole = self._network.initial_state(self._n_rows)
        for shard, own in enumerate(self._ranks.listed("states", states)):
            if own is not None:
                whole[:, shard :: self._ranks.n_shards] = own
        return whole

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[Callable[[int], None]]:
        """Within, what is given a shard makes of the generators ones of its own, which are alike on all ranks."""
        _, *generators = self._network.generators()
        if not self._has_dropout:
            yield lambda _: None
            return
        keys = [int(generator.integers(1 << 63)) for generator in generators]
        states = [generator.bit_generator.state for generator in generators]

        def draw_for(shard: int) -> None:
            for generator, key in zip(generators, keys, strict=True):
                generator.bit_generator.state = type(generator.bit_generator)([key, shard]).state

        yield draw_for
        for generator, state in zip(generators, states, strict=True):
            generator.bit_generator.state = state

    # What rank 0 alone has

    def _call(self, name: str) -> None:
        super()._call(name)
        if name == "on_step" and not self._watches_steps:
            return
        with self._nothing_changes():
            self._follow()

    def _follow(self) -> None:
        """Become what rank 0 is."""
        network, optimizer, states = self._network, self.optimizer, self._generators()
        settings = {**settings_of(optimizer), "steps": optimizer.steps}
        own = [getattr(self, name) for name in _FOLLOWED], settings, network.parameters.flat, states
        shared = self._ranks.shared("callbacks", (*own, self.model.metadata, self._config()))
        followed, settings, network.parameters.flat[:], states, self.model.metadata, config = shared
        for name, value in zip(_FOLLOWED, followed, strict=True):
            setattr(self, name, value)
        for name, value in settings.items():
            setattr(optimizer, name, value)
        for generator, state in zip(network.generators(), states, strict=True):
            generator.bit_generator.state = state
        for key, value in self._config().items():
            if value != config[key]:
                given = f"{key}={config[key]} on rank 0 and {value} on rank {self._ranks.rank}"
                check.refuse(f"callbacks, which rank 0 alone calls, must leave the model as it is, got {given}")

    def _end_epoch(self) -> None:
        found = zlib.crc32(repr(self._generators()).encode(), zlib.crc32(self._network.parameters.flat.data))
        with self._nothing_changes():
            by_shard = self._ranks.gathered("parameters", [[found]] * len(self._ranks.own))[:, 0]
        if (by_shard != by_shard[0]).any():
            raise RuntimeError(f"the ranks' parameters have come apart in epoch {self.epoch}")
        super()._end_epoch()

    def _generators(self) -> list[Any]:
        return [generator.bit_generator.state for generator in self._network.generators()]

    # Where it stands, from a checkpoint that rank 0 alone has read

    def _config(self) -> dict[str, str]:
        return {name: repr(value) for name, value in self._network.config().items()}

    def _read_state(
        self,
        record: dict[str, Any],
        arrays: Arrays,
        item: Item | None,
        sums: tuple[float, float],  # noqa: ARG002
        has_batches: bool,  # noqa: ARG002
    ) -> Real | None:
        """The state before the next window, where each rank has but a part of the batch."""
        if item is None or not record["window"]:
            return None
        expected = self._network.initial_state(len(item.rows))
        return read_array(arrays, "state", expected.dtype, expected.shape)
