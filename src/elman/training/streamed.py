"""Batches that a function gives, each a small data set, prepared one ahead in a thread."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from elman import check
from elman.data.ahead import Ahead
from elman.data.rows import Rows
from elman.data.sequences import DataSet, Epoch, Item
from elman.training.checkpoint import fingerprint
from elman.typing import Real


def data_of(given: Mapping[str, Any], names: tuple[str, ...], read: Callable[..., DataSet]) -> DataSet | Streamed:
    """What `fit` is given to train on, by its arguments of these names: a data set, or the batches that X returns."""
    n_batches = given["steps_per_epoch"]
    if not callable(given["X"]):
        if n_batches is not None:
            given_as = "an iterator: give the function that returns it" if hasattr(given["X"], "__next__") else "data"
            check.refuse(f"steps_per_epoch must be None where X is no function that returns batches, got {given_as}")
        return read(*(given[name] for name in names))
    for name in names[1:]:
        if given[name] is not None:
            raise ValueError(
                f"{name} must be None where X is a function that returns it, got {check.shown(given[name])}"
            )
    if given["schedule"] is not None and n_batches is None:
        check.refuse("steps_per_epoch must be an int where X is a function and there is a schedule, got None")
    is_compared = given["checkpoint"] is not None or given["comm"] is not None
    read = functools.partial(read, may_be_empty=True)
    return Streamed(given["X"], n_batches, names, read, is_compared=is_compared)


class Streamed:
    """The batches of one epoch after the other: those of a fresh iterator for each, or the first so many of them.

    What is asked for is after what has been asked for before, or the same once more: batches are there once.
    """

    may_wait = True
    shards: Sequence[slice] | None = None  # as those of a data set

    def __init__(
        self,
        function: Callable[[], Any],
        n_batches: int | None,
        names: tuple[str, ...],
        read: Callable[..., DataSet],
        *,
        is_compared: bool,
    ) -> None:
        """names: of what a batch may consist of; read: from that, and `names` of it for messages, to a data set."""
        self._function, self._n_batches, self._names, self._read = function, n_batches, names, read
        self._ahead = Ahead()
        self._iterator: Iterator[Any] = iter(())
        self._prepared: Iterator[Item] = iter(())  # what becomes of its batches
        self._is_over = True  # whether it has given all
        self._epoch, self._i = -1, 0  # of the next one
        self._next: Item | None = None  # where it has been asked for
        self._n_rows = 0  # of what has been prepared in the epoch
        self.digest = "" if is_compared else None  # of all that has been prepared

    def parts(self) -> dict[str, Rows | Real | None]:
        """Nothing that could be compared before it is there."""
        return {}

    def epoch(self, batch_size: int, rng: np.random.Generator | None, epoch: int, start: int) -> Epoch:  # noqa: ARG002
        """An epoch, from the batch of that number on."""
        if self._epoch < epoch:
            self.skip(epoch)
            self._begin_epoch()
        for item in self._items() if self._i < start else ():
            if item.number == start:
                break
        return Epoch(self._n_batches, self._items())

    def skip(self, n_epochs: int) -> None:
        """Go to the end of so many epochs."""
        while self._epoch + 1 < n_epochs or not self._is_over:
            if self._is_over:
                self._begin_epoch()
            for _ in self._items():
                pass

    def close(self) -> None:
        """End the thread. The iterator is no more than let go: others may have it."""
        self._ahead.close()
        self._iterator, self._prepared, self._next, self._is_over = iter(()), iter(()), None, True

    def _begin_epoch(self) -> None:
        given = self._function()
        if not hasattr(given, "__iter__"):
            raise TypeError(f"X must return an iterator of batches, got {check.shown(given)}")
        self._iterator, self._is_over = iter(given), False
        self._epoch, self._i, self._n_rows = self._epoch + 1, 0, 0
        numbers = itertools.count() if self._n_batches is None else range(self._n_batches)
        self._prepared = self._ahead.map(self._item, numbers)

    def _items(self) -> Iterator[Item]:
        """From the next batch on to the end of the epoch. An item is the next one until that after it is asked for."""
        while not self._is_over:
            self._next = item = self._next or next(self._prepared, None)
            if item is None:
                self._is_over = True
                if self._i < (self._n_batches or 0):
                    expected = f"steps_per_epoch={self._n_batches} batches"
                    raise ValueError(f"X must return an iterator of at least {expected}, got {self._i}")
                return
            yield item
            self._next = None
            self._i += 1

    def _item(self, i: int) -> Item | None:
        """The next batch, None after the last one: in the thread."""
        given = next(self._iterator, _END)
        if given is _END:
            return None
        if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= len(self._names):
            forms = " or ".join(f"({', '.join(self._names[:n])})" for n in range(2, len(self._names) + 1))
            raise TypeError(f"batches must be {forms}, got {check.shown(given)} as batch {i}")
        data = self._read(*given, names=tuple(f"{name} of batch {i}" for name in self._names))
        rows, first, before = data.rows(), self._n_rows, self.digest
        self._n_rows += len(data.lengths)
        if before is not None:
            parts = [fingerprint(part) for part in data.parts().values() if part is not None]
            self.digest = hashlib.sha256("\n".join([before, *parts]).encode()).hexdigest()[:12]
        data.shards = self.shards
        return Item(i, data.prepared(rows), first + rows, before, self.digest)


_END = object()
