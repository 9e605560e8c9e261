"""Data sets of sequences, cut into batches, and these into windows, each of which leads to an update."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data import checks
from elman.data.checks import Read
from elman.data.inputs import Input, Tokens
from elman.data.kinds import PATTERNS, Kinds, Pattern
from elman.data.outputs import Output, Targets, total_weight
from elman.lengths import clipped
from elman.typing import Bool, Int, Real

_SORTED_TOGETHER = 32  # batches, by length: padding goes, chance stays


class Batch(NamedTuple):
    """Sequences side by side, time-major; T is 1 where there is one item for each sequence."""

    x: Real | Int  # (T, B) or (T, B, n): the steps that the network runs
    lengths: Int | None  # (B,); None where all are T
    targets: Targets  # those of the last steps, where there are fewer
    keys: Int | None = None  # (B,): what each row's noise is drawn with, where that is given
    first_step: int = 0  # of a longer sequence, whose noise it has
    resets: Bool | None = None  # (T, B): before which steps rows begin anew

    def stretch(self, start: int, stop: int, first_target: int | None = None) -> Batch:
        """The steps from `start` to `stop`, with the targets from `first_target` on; their `total` stays that of all.

        Where there is one target for each sequence, that comes with all stretches.
        """
        x, lengths, targets = self.x[start:stop], clipped(self.lengths, start, stop - start), self.targets
        if len(targets.y) == len(self.x):
            targets = targets.stretch(start if first_target is None else first_target, stop)
        resets = None if self.resets is None else self.resets[start:stop]
        return Batch(x, lengths, targets, self.keys, self.first_step + start, resets)


class Window(NamedTuple):
    """Some steps of a batch, whose targets lead to one update."""

    batch: Any  # Batch, unless there is one window
    is_first: bool = True  # whether sequences begin here
    n_done: int | None = None  # after how many of its steps the next window begins; None for all


class Windows(NamedTuple):
    """One window or, in truncated back-propagation through time, one for each k1 steps, which begins k2 before its end.

    Its targets are those of the k1 steps.
    """

    tbptt: tuple[int, int] | None = None  # k1, k2
    outputs: Output | None = None

    def count(self, batch: Any) -> int:
        """How many updates a batch leads to."""
        return 1 if self.tbptt is None else -(-len(batch.x) // self.tbptt[0])

    def window(self, batch: Any, i: int) -> Window:
        """Number i of a batch."""
        if self.tbptt is None:
            return Window(batch)
        start, k1 = self._start(i), self.tbptt[0]
        part = self._part(batch, start, i * k1, (i + 1) * k1)
        return Window(part, start == 0, self._start(i + 1) - start)

    def rows(self, batch: Batch, i: int) -> NDArray[np.bool_]:
        """Which rows (B,) have steps in a window."""
        lengths = np.full(batch.x.shape[1], len(batch.x)) if batch.lengths is None else batch.lengths
        return np.asarray(lengths > self._start(i))

    def weight_before(self, batch: Batch, i: int) -> float:
        """That of the targets of the windows before this one."""
        return 0.0 if self.tbptt is None else self._part(batch, 0, 0, i * self.tbptt[0]).targets.total

    def _start(self, i: int) -> int:
        """Where a window begins; no earlier than the sequences."""
        k1, k2 = self.tbptt or (0, 0)
        return max(0, (i + 1) * k1 - k2)

    def _part(self, batch: Batch, start: int, first_target: int, stop: int) -> Batch:
        assert self.outputs is not None
        part = batch.stretch(start, stop, first_target)
        y, lengths, weights, _ = part.targets
        return part._replace(targets=part.targets._replace(total=total_weight(self.outputs, y, weights, lengths)))


class Item(NamedTuple):
    """A batch of an epoch."""

    number: int
    batch: Any  # None where nothing has a target
    rows: Int  # which ones of the data set
    before: str | None = None  # what tells the batches before it from others, where data are not all there at once
    after: str | None = None


class Epoch(NamedTuple):
    """How often one goes through the data: once."""

    n_batches: int | None  # None where nobody knows
    items: Iterator[Item]


Rows = list[Any] | Real | Int | Bool  # an array (N, T, ·) where all sequences are equally long, or a list of (T_i, ·)


class DataSet:
    """A data set of sequences, or of single items, without targets; with the steps before which they begin anew."""

    may_wait = False  # whether batches may take their time
    digest: str | None = None  # of what epochs have given, as `Item` has it

    def __init__(
        self,
        X: Any,
        inputs: Input,
        pattern: Pattern,
        dtype: np.dtype[Any],
        name: str,
        resets: Any = None,
        resets_name: str = "resets",
    ) -> None:
        self.dtype = dtype
        self.x = _input_rows(X, inputs, pattern, dtype, name)
        self.lengths = lengths_of(self.x)
        self.resets = None if resets is None else _reset_rows(resets, resets_name, self.lengths, name)
        self.costs = self.lengths  # what is about equal in a batch
        self.is_array = isinstance(self.x, np.ndarray)

    def rows(self) -> Int:
        """The sequences that there is something to learn from."""
        return np.arange(len(self.lengths))

    def batch(self, rows: Int) -> Any:
        """Some of the sequences, as the network takes them."""
        raise NotImplementedError

    def parts(self) -> dict[str, Rows | None]:
        """The rows, by the names of `fit`'s arguments."""
        raise NotImplementedError

    def epoch(self, batch_size: int, rng: np.random.Generator | None, epoch: int, start: int) -> Epoch:  # noqa: ARG002
        """All batches of an epoch from that number on, in the order of the groups."""
        groups = self.groups(batch_size, rng)
        return Epoch(len(groups), (Item(i, self.batch(groups[i]), groups[i]) for i in range(start, len(groups))))

    def skip(self, n_epochs: int) -> None:
        """Nothing comes of so many epochs that have been before."""

    def close(self) -> None:
        """Nothing has to be ended."""

    def groups(self, batch_size: int, rng: np.random.Generator | None = None) -> list[Int]:
        """The sequences of each batch, of about equal length; drawn at random if there is a generator."""
        order = self.rows()
        n = len(order)
        if rng is not None:
            order = rng.permutation(order)
        n_together = n if rng is None else batch_size * _SORTED_TOGETHER
        groups = []
        for start in range(0, n, n_together):
            part = order[start : start + n_together]
            part = part[np.argsort(self.costs[part], kind="stable")]
            groups += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        return groups if rng is None else [groups[i] for i in rng.permutation(len(groups))]

    def inputs_of(self, rows: Int) -> tuple[Real | Int, Int | None]:
        """(T, B, ·) and lengths."""
        return side_by_side(self.x, rows), _or_none(self.lengths[rows])

    def resets_of(self, rows: Int) -> Bool | None:
        """(T, B), if there are some."""
        return None if self.resets is None else np.asarray(side_by_side(self.resets, rows))


class Sequences(DataSet):
    """A data set of sequences X with targets Y, weights and resets: what `SequenceModel.fit` takes."""

    def __init__(
        self,
        X: Any,
        Y: Any,
        weights: Any = None,
        resets: Any = None,
        *,
        kinds: Kinds,
        names: Sequence[str] = ("X", "Y", "weights", "resets"),
        may_be_empty: bool = False,
    ) -> None:
        self.kinds, pattern = kinds, kinds.pattern
        super().__init__(X, kinds.inputs, pattern, kinds.dtype, names[0], resets, names[3])
        given = None if weights is None else _Weights(weights, kinds, names, len(self.x))
        self.y = _target_rows(Y, kinds, names, len(self.x), given)
        self.weights = None if given is None else given.rows(lengths_of(self.y))
        if not pattern.one_output:
            y_lengths = lengths_of(self.y)
            if not pattern.one_input:
                checks.same_lengths(y_lengths, self.lengths, names[1], names[0])
            self.lengths = self.costs = y_lengths
        if kinds.feeds_back and self.y[0].ndim == 1:
            for i, y in enumerate(self.y):
                checks.no_gaps(y, f"{names[1]}[{i}]", None if given is None else given.read(i, y))
        self.counts = self._counting()
        if not may_be_empty:
            checks.any_weight(float(self.counts.any()), names[1], weights is not None)

    def parts(self) -> dict[str, Rows | None]:
        return {"X": self.x, "Y": self.y, "weights": self.weights, "resets": self.resets}

    def rows(self) -> Int:
        return np.flatnonzero(self.counts)

    def batch(self, rows: Int) -> Batch:
        x, y, lengths = side_by_side(self.x, rows), side_by_side(self.y, rows), _or_none(self.lengths[rows])
        of_targets = None if self.kinds.pattern.one_output else lengths
        targets = Targets.of(self.kinds.outputs, y, of_targets, self.user_weights(rows, y), self.dtype)
        return Batch(self.kinds.taught(x, y), lengths, targets, resets=self.resets_of(rows))

    def user_weights(self, rows: Int, y: Real | Int) -> Real | None:
        """(T, B), without class weights."""
        if self.weights is None:
            return None
        if isinstance(self.weights, np.ndarray) and self.weights.ndim == 1:
            return np.broadcast_to(self.weights[rows], y.shape[:2])
        weights: Real = side_by_side(self.weights, rows)
        return weights

    def _counting(self) -> NDArray[np.bool_]:
        """Which sequences have a target of a weight that is not 0."""
        if isinstance(self.y, np.ndarray) and self.weights is None:
            return np.asarray(self.kinds.outputs.has_target(self.y).any(axis=1))
        counts = [self.kinds.outputs.has_target(y) for y in self.y]
        if self.weights is not None:
            counts = [each & (w > 0) for each, w in zip(counts, self.weights, strict=True)]
        return np.array([each.any() for each in counts])


class PairedBatch(NamedTuple):
    """Inputs (T_x, B, ·), and what they become (T_y + 1, B)."""

    x: Real | Int
    lengths: Int | None
    y: Int  # with the start before
    targets: Targets  # with the end behind
    keys: Int | None = None  # as in Batch


class Pairs(DataSet):
    """A data set of sequences X and the sequences of tokens Y that they become.

    The last of the categories that are predicted is none of these tokens: it stands for the start and the end.
    """

    def __init__(
        self, X: Any, Y: Any, inputs: Input, predicted: Output, dtype: np.dtype[Any], names: Sequence[str]
    ) -> None:
        super().__init__(X, inputs, PATTERNS["many-to-many"], dtype, names[0])
        self.predicted, self.edge = predicted, predicted.n - 1
        self.y = checks.sequences(Y, names[1], lambda item, name: checks.token_sequence(item, name, self.edge))
        checks.same_number(len(self.y), len(self.x), names[1], names[0])
        self.y_lengths = lengths_of(self.y)
        self.costs = self.lengths + self.y_lengths

    def parts(self) -> dict[str, Rows | None]:
        return {"X": self.x, "Y": self.y}

    def batch(self, rows: Int) -> PairedBatch:
        y, n_rows = side_by_side(self.y, rows), len(rows)
        y_in = np.concatenate([np.full((1, n_rows), self.edge), y])
        y_out = np.concatenate([y, np.zeros((1, n_rows), np.int64)])
        y_out[self.y_lengths[rows], np.arange(n_rows)] = self.edge
        targets = Targets.of(self.predicted, y_out, self.y_lengths[rows] + 1, None, self.dtype)
        return PairedBatch(*self.inputs_of(rows), y_in, targets)


def _input_rows(X: Any, inputs: Input, pattern: Pattern, dtype: np.dtype[Any], name: str) -> Rows:
    X = checks.one_for_each(X, name)
    if pattern.one_input:
        array: Real | Int = inputs.array(X, name, dtype, ("N",), ("N", 1))
        n_axes = 2 if isinstance(inputs, Tokens) else 3
        return array if array.ndim == n_axes else array[:, None]
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim > 1:
        return np.asarray(inputs.array(X, name, dtype, ("N", "T")))
    return checks.sequences(X, name, lambda item, name: inputs.array(item, name, dtype, ("T",)))


def _reset_rows(resets: Any, name: str, lengths: Int, x_name: str) -> Rows:
    resets = checks.one_for_each(resets, name)
    checks.same_number(len(resets), len(lengths), name, x_name)
    if isinstance(resets, np.ndarray) and resets.ndim == 2:
        array = check.booleans(resets, name, ("N", "T"))
        checks.same_lengths(lengths_of(array), lengths, name, x_name)
        return array
    return [
        check.booleans(item, f"{name}[{i}]", (n,), allow_empty=True)
        for i, (item, n) in enumerate(zip(resets, lengths.tolist(), strict=True))
    ]


def _target_rows(
    Y: Any, kinds: Kinds, names: Sequence[str], n: int, weights: _Weights | None
) -> list[Any] | Real | Int:
    (x_name, name, *_), (_, outputs, pattern, dtype) = names, kinds
    Y = checks.one_for_each(Y, name)
    checks.same_number(len(Y), n, name, x_name)
    if pattern.one_output:
        array = outputs.targets(Y, name, dtype, ("N",), read=None if weights is None else weights.read_all(None))
        return np.asarray(array)[:, None]
    if isinstance(Y, np.ndarray) and Y.dtype != object and Y.ndim > 1:
        read = None if weights is None else weights.read_all(Y.shape[1])
        return np.asarray(outputs.targets(Y, name, dtype, ("N", "T"), read=read))
    return [
        outputs.targets(item, f"{name}[{i}]", dtype, ("T",), read=None if weights is None else weights.read(i, item))
        for i, item in enumerate(checks.sequences(Y, name, lambda item, _: item))
    ]


class _Weights:
    """What targets count: (N,), one for each sequence, or as many for each as it has targets."""

    def __init__(self, given: Any, kinds: Kinds, names: Sequence[str], n: int) -> None:
        x_name, _, self.name, _ = names
        self.given, self.dtype, self.n = checks.one_for_each(given, self.name), kinds.dtype, n
        checks.same_number(len(self.given), n, self.name, x_name)
        self.is_of_sequences = np.ndim(self.given[0]) == 0 or kinds.pattern.one_output
        self.is_fed_back = kinds.feeds_back

    @functools.cached_property
    def of_sequences(self) -> Real:
        return checks.weights(self.given, self.name, self.dtype, (self.n,))

    def of_steps(self, i: int, n_steps: int) -> Real:
        return checks.weights(self.given[i], f"{self.name}[{i}]", self.dtype, (n_steps,))

    def rows(self, lengths: Int) -> Rows:
        if self.is_of_sequences:
            return self.of_sequences
        return [self.of_steps(i, n) for i, n in enumerate(lengths.tolist())]

    def counts(self, i: int, n_steps: int) -> NDArray[np.bool_]:
        """Which targets of a sequence have a weight above 0."""
        if self.is_of_sequences:
            return np.full(n_steps, self.of_sequences[i] > 0)
        return np.asarray(self.of_steps(i, n_steps) > 0)

    def read(self, i: int, targets: Any) -> Read:
        """Which targets of a sequence are looked at."""
        return Read(lambda: self.counts(i, len(targets)), self.is_fed_back)

    def read_all(self, n_steps: int | None) -> Read:
        """The same of all sequences, (N, T), or (N,) if there is one target for each."""
        if n_steps is None:
            return Read(lambda: self.of_sequences > 0)
        return Read(lambda: np.stack([self.counts(i, n_steps) for i in range(self.n)]), self.is_fed_back, time_axis=1)


def lengths_of(rows: Rows) -> Int:
    if isinstance(rows, np.ndarray):
        return np.full(len(rows), rows.shape[1], dtype=np.int64)
    return np.array([len(row) for row in rows], dtype=np.int64)


def _or_none(lengths: Int) -> Int | None:
    return None if lengths.min() == lengths.max() else lengths


def side_by_side(data: Rows, rows: Int) -> Any:
    """Some of the sequences as (T, B, ·): (B, T, ·) in memory, and what the system hands out as zeros beyond the ends.

    So the cost follows the sum of the lengths.
    """
    if isinstance(data, np.ndarray):
        return data.take(rows, axis=0).swapaxes(0, 1)  # data[rows] would lie in memory in the order that data does
    n_steps, first = max(len(data[row]) for row in rows), data[rows[0]]
    together = np.zeros((len(rows), n_steps, *first.shape[1:]), first.dtype)
    for i, row in enumerate(rows):
        together[i, : len(data[row])] = data[row]
    return together.swapaxes(0, 1)
