"""Data sets of sequences, cut into batches, and these into windows, each of which leads to an update."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.data import checks
from elman.data.ahead import Ahead
from elman.data.checks import Read
from elman.data.inputs import Input, Tokens
from elman.data.kinds import PATTERNS, Kinds, Pattern
from elman.data.named import as_labels
from elman.data.order import Groups
from elman.data.outputs import Categories, Output, Targets, total_weight
from elman.data.rows import Column, Listed, Rows, Table, is_column, is_sliced, row_of
from elman.lengths import clipped, within
from elman.typing import Bool, Int, Real

T = TypeVar("T")
_SORTED_TOGETHER = 32  # batches, by length: padding goes, chance stays
_LEARNED_TOGETHER = 1 << 20  # values
_MOST_LISTED = 1 << 20  # rows, of those that are read when they are needed; of more, an order takes too much memory


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

    def count(self, n_steps: int) -> int:
        """How many updates a batch of so many steps leads to."""
        return 1 if self.tbptt is None else -(-n_steps // self.tbptt[0])

    def has(self, batch: Any, i: int) -> bool:
        """Whether a batch has steps whose targets are those of window number i."""
        return self.tbptt is None or i * self.tbptt[0] < len(batch.x)

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


class DataSet:
    """A data set of sequences, or of single items, without targets; with the steps before which they begin anew.

    Batches of what is read when it is needed are prepared one ahead, in a thread.
    """

    shards: Sequence[slice] | None = None  # of the rows of a batch, where epochs give each on its own
    digest: str | None = None  # of what epochs have given, as `Item` has it
    part = slice(0, None)  # the sequences that this is about

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
        self.inputs, self.dtype = inputs, dtype
        self.x = _input_rows(X, inputs, pattern, dtype, name)
        self.lengths = self.x.lengths
        self.resets = None if resets is None else _reset_rows(resets, resets_name, self.x, name)
        self.costs = self.lengths  # what is about equal in a batch
        self.is_array, self.are_there, self._ahead = self.x.is_table, self.x.are_there, Ahead()

    @property
    def may_wait(self) -> bool:
        """Whether batches may take their time, or have no target."""
        return not self.are_there

    def rows(self) -> Int:
        """The sequences that there is something to learn from."""
        return np.arange(len(self.lengths))[self.part]

    def divided(self, fraction: float, name: str) -> tuple[Self, Self]:
        """All but the last sequences, and these, about so many of all; on the same rows."""
        n = len(self.lengths)
        n_last = round(n * fraction)
        if not 0 < n_last < n:
            raise ValueError(f"{name} must leave a sequence for each part, got {fraction} of {n}")
        first, last = copy.copy(self), copy.copy(self)
        first.part, last.part = slice(0, n - n_last), slice(n - n_last, None)
        first._ahead, last._ahead = Ahead(), Ahead()
        if not (first.has_target() and last.has_target()):
            raise ValueError(f"{name} must leave a target for each part, got {fraction} of {n} sequences")
        return first, last

    def has_target(self) -> bool:
        """Whether there is something to learn from; read until it is found, where that is not known."""
        return len(self.rows()) > 0

    def batch(self, rows: Int) -> Any:
        """Some of the sequences, as the network takes them."""
        raise NotImplementedError

    def parts(self) -> dict[str, Rows | Real | None]:
        """The rows, by the names of `fit`'s arguments."""
        raise NotImplementedError

    def epoch(self, batch_size: int, rng: np.random.Generator | None, epoch: int, start: int) -> Epoch:  # noqa: ARG002
        """All batches of an epoch from that number on, in the order of the groups."""
        groups = self.groups(batch_size, rng)

        def item(i: int) -> Item:
            rows = groups[i]
            return Item(i, self.prepared(rows), rows)

        return Epoch(len(groups), self._in_turn(item, range(start, len(groups))))

    @contextlib.contextmanager
    def each(self, function: Callable[[Int], T], batch_size: int) -> Iterator[Iterator[tuple[Int, T]]]:
        """The rows of each batch, of about equal length, and function(rows)."""
        with contextlib.closing(self):
            yield self._in_turn(lambda rows: (rows, function(rows)), self.groups(batch_size))

    def _in_turn(self, function: Callable[[Any], T], values: Iterable[Any]) -> Iterator[T]:
        return map(function, values) if self.are_there else self._ahead.map(function, values)

    def prepared(self, rows: Int) -> Any:
        """A batch, None where nothing has a target; or a list of batches, one for each part, None where it is empty."""
        if self.shards is None:
            batch = self.batch(rows) if len(rows) else None
            return batch if batch is not None and batch.targets.total > 0 else None
        return [self.batch(own) if len(own := rows[part]) else None for part in self.shards]

    def skip(self, n_epochs: int) -> None:
        """Nothing comes of so many epochs that have been before."""

    def close(self) -> None:
        """End the thread."""
        self._ahead.close()

    def groups(self, batch_size: int, rng: np.random.Generator | None = None) -> Sequence[Int]:
        """The sequences of each batch, of about equal length; drawn at random if there is a generator."""
        if not self.are_there and not self.part.start and len(self.lengths) > _MOST_LISTED:
            key = None if rng is None else int(rng.integers(1 << 63))
            return Groups(self.costs[self.part], batch_size, _SORTED_TOGETHER, key)
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
        """(T, B, ·), scaled, and lengths."""
        return self.inputs.scaled(self.x.side_by_side(rows), self.dtype), _or_none(self.lengths[rows])

    def resets_of(self, rows: Int) -> Bool | None:
        """(T, B), if there are some."""
        return None if self.resets is None else np.asarray(self.resets.side_by_side(rows))

    def input_steps(self) -> Iterator[Real | Int]:
        """The inputs of the sequences of this part, (N,) or (N, n), some steps at a time; with little in memory."""
        for rows in _some_together(range(len(self.x))[self.part], self.x, self.inputs.n):
            x = self.x.side_by_side(rows)
            yield x[within(len(x), self.x.lengths[rows])]


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
        of_labels = kinds.outputs.is_of_sequences
        self.y = (
            _label_rows(Y, kinds, names, self.x) if of_labels else _target_rows(Y, kinds, names, len(self.x), given)
        )
        self.weights = None if given is None else given.rows(self.y)
        if not pattern.one_output:
            if not pattern.one_input:
                _check_same_lengths(self.y, self.x, names[1], names[0])
            self.lengths = self.costs = self.y.lengths
        self.are_there, self.y_name = self.x.are_there and self.y.are_there, names[1]
        self.counts = self._counting() if self.y.are_there else None
        if self.counts is not None and not may_be_empty:
            checks.any_weight(float(self.counts.any()), names[1], weights is not None)

    def parts(self) -> dict[str, Rows | Real | None]:
        return {"X": self.x, "Y": self.y, "weights": self.weights, "resets": self.resets}

    def rows(self) -> Int:
        rows = super().rows()
        return rows if self.counts is None else rows[self.counts[rows]]

    def has_target(self) -> bool:
        if self.counts is not None:
            return super().has_target()
        start = self.part.start
        parts = slice(start, start + 1), self.part  # the first sequence has one, as a rule, and is soon read
        return any(counts.any() for part in parts for _, _, counts in self._counted(part))

    def batch(self, rows: Int) -> Batch:
        (x, lengths), y = self.inputs_of(rows), self.kinds.outputs.scaled(self.y.side_by_side(rows), self.dtype)
        of_targets = None if self.kinds.pattern.one_output else lengths
        targets = Targets.of(self.kinds.outputs, y, of_targets, self.user_weights(rows, y), self.dtype)
        return Batch(self.kinds.taught(x, y), lengths, targets, resets=self.resets_of(rows))

    def weighted(self, rows: Int) -> tuple[Batch, Real | None]:
        """Some of the sequences, and what their targets count, without class weights."""
        batch = self.batch(rows)
        return batch, self.user_weights(rows, batch.targets.y)

    def user_weights(self, rows: Int, y: Real | Int) -> Real | None:
        """(T, B), without class weights."""
        if self.weights is None:
            return None
        if isinstance(self.weights, np.ndarray):
            return np.broadcast_to(self.weights[rows], y.shape[:2])
        weights: Real = self.weights.side_by_side(rows)
        return weights

    def target_steps(self) -> Iterator[Real | Int]:
        """The targets of a weight that is not 0 of the sequences of this part, (N,) or (N, n), some at a time."""
        return (y[counts] for _, y, counts in self._counted(self.part))

    def _counting(self) -> NDArray[np.bool_]:
        """Which sequences have a target of a weight that is not 0."""
        found = np.empty(len(self.y), bool)
        for rows, _, counts in self._counted():
            found[rows] = counts.any(axis=0)
        return found

    def _counted(self, part: slice = slice(None)) -> Iterator[tuple[Int, Real | Int, NDArray[np.bool_]]]:
        """Some sequences of a part at a time, their targets (T, B, ·), and which count, with a weight above 0."""
        for rows in _some_together(range(len(self.y))[part], self.y, self.kinds.outputs.n):
            y = self.y.side_by_side(rows)
            yield rows, y, Targets(y, self.y.lengths[rows], self.user_weights(rows, y), 0).counts(self.kinds.outputs)


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
        self,
        X: Any,
        Y: Any,
        inputs: Input,
        written: Categories,
        predicted: Output,
        dtype: np.dtype[Any],
        names: Sequence[str],
    ) -> None:
        super().__init__(X, inputs, PATTERNS["many-to-many"], dtype, names[0])
        self.predicted, self.edge = predicted, written.n

        self.y = _token_rows(Y, names[1], written)
        checks.same_number(len(self.y), len(self.x), names[1], names[0])
        self.y_lengths = self.y.lengths
        self.are_there = self.x.are_there and self.y.are_there
        self.costs = self.lengths + self.y_lengths

    def parts(self) -> dict[str, Rows | Real | None]:
        return {"X": self.x, "Y": self.y}

    def batch(self, rows: Int) -> PairedBatch:
        y, n_rows = self.y.side_by_side(rows), len(rows)
        y_in = np.concatenate([np.full((1, n_rows), self.edge), y])
        y_out = np.concatenate([y, np.zeros((1, n_rows), np.int64)])
        y_out[self.y_lengths[rows], np.arange(n_rows)] = self.edge
        targets = Targets.of(self.predicted, y_out, self.y_lengths[rows] + 1, None, self.dtype)
        return PairedBatch(*self.inputs_of(rows), y_in, targets)


def _some_together(which: range, of: Rows, n: int) -> Iterator[Int]:
    """Which rows, as many at a time as have a million values, n at each step."""
    n_together = max(1, _LEARNED_TOGETHER // max(1, int(of.lengths.max()) * n))
    for start in range(0, len(which), n_together):
        yield np.array(which[start : start + n_together])


def _token_rows(Y: Any, name: str, outputs: Categories) -> Rows:
    """Sequences of tokens that are written, which may be empty."""

    def checked(value: Any, name: str, which: Any) -> Int:
        return outputs.written(value, name, ("T",) if isinstance(which, int) else ("N", "T"))

    Y, dtype = checks.one_for_each(Y, name), _dtype_of_codes(outputs)
    if _is_table(Y) and 0 not in Y.shape:
        return Table(Y, name, checked, dtype=dtype)
    return _listed(checks.listed(Y, name, may_be_text=dtype is None), name, checked, dtype)


def _dtype_of_codes(kind: Tokens | Categories) -> Any:
    """What rows are converted to: at once, whatever they are, where that takes looking labels up."""
    return np.dtype(np.int64) if kind.labels is None else None


def _label_rows(Y: Any, kinds: Kinds, names: Sequence[str], x: Rows) -> Rows:
    """Those of labels without alignment, each as long as the row of x: (T_i,), −1 behind the last label."""
    x_name, name, *_ = names
    Y = checks.one_for_each(Y, name)
    checks.same_number(len(Y), len(x), name, x_name)
    if isinstance(Y, np.ndarray) and Y.ndim == 2 and Y.dtype.kind in "iu" and kinds.outputs.labels is None:
        Y = [row[: checks.n_labels(row, f"{name}[{i}]")] for i, row in enumerate(Y)]
    assert isinstance(kinds.outputs, Categories)
    return Laid(_token_rows(Y, name, kinds.outputs), x.lengths, name)


class Laid(Rows):
    """Labels in arrays as long as what they are about, −1 behind the last one."""

    is_table = False

    def __init__(self, labels: Rows, lengths: Int, name: str) -> None:
        self._labels, self._name, self.lengths, self.are_there = labels, name, lengths, labels.are_there

    def __getitem__(self, i: int) -> Int:
        return checks.laid(self._labels[i], int(self.lengths[i]), f"{self._name}[{i}]")


def _input_rows(X: Any, inputs: Input, pattern: Pattern, dtype: np.dtype[Any], name: str) -> Rows:
    X = checks.one_for_each(X, name)
    dtype = inputs.as_read(X, dtype)
    dtype_in = _dtype_of_codes(inputs) if isinstance(inputs, Tokens) else dtype

    def checked(value: Any, name: str, which: Any) -> Real | Int:
        is_one = isinstance(which, int)
        if pattern.one_input:
            shapes: list[Any] = [(), (1,)] if is_one else [("N",), ("N", 1)]
        else:
            shapes = [("T",)] if is_one else [("N", "T")]
        value = value if isinstance(inputs, Tokens) else checks.widened(value, name, dtype)
        found: Real | Int = inputs.array(value, name, dtype, *shapes)
        return found

    return _rows_of(inputs, X, name, checked, dtype_in, are_items=pattern.one_input)


def _rows_of(kind: Input | Output, given: Any, name: str, checked: Any, dtype: Any, *, are_items: bool) -> Rows:
    """Rows of inputs or of targets, of which sequences have one each if they are items."""
    if are_items:
        as_array = check.as_array if kind.labels is None else as_labels
        given = given if is_sliced(given) else as_array(given, name)
        return Table(given, name, checked, dtype=dtype, are_items=True)
    if _is_table(given):
        return Table(given, name, checked, dtype=dtype)
    return _listed(checks.listed(given, name, may_be_text=dtype is None), name, checked, dtype)


def _listed(value: Any, name: str, checked: Any, dtype: Any) -> Rows:
    if is_column(value):
        return Column(value, name, checked)
    return Listed(value, name, checked, dtype=dtype)


def _is_table(value: Any) -> bool:
    """Whether it is one array of sequences."""
    is_array = value.dtype != object if isinstance(value, np.ndarray) else is_sliced(value)
    return is_array and len(value.shape) > 1


def _reset_rows(resets: Any, name: str, x: Rows, x_name: str) -> Rows:
    resets = checks.one_for_each(resets, name)
    checks.same_number(len(resets), len(x), name, x_name)
    if _is_table(resets):
        table = Table(resets, name, lambda value, name, _: check.booleans(value, name, ("N", "T"), ("T",)), dtype=bool)
        _check_same_lengths(table, x, name, x_name)
        return table

    def checked(value: Any, name: str, i: Any) -> Bool:
        return check.booleans(value, name, (int(x.lengths[i]),), allow_empty=True)

    return _listed(resets, name, checked, bool)


def _target_rows(Y: Any, kinds: Kinds, names: Sequence[str], n: int, weights: _Weights | None) -> Rows:
    (x_name, name, *_), (_, outputs, pattern, dtype) = names, kinds
    Y, is_category = checks.one_for_each(Y, name), isinstance(outputs, Categories)
    checks.same_number(len(Y), n, name, x_name)
    has_time, dtype = not pattern.one_output, outputs.as_read(Y, dtype)
    dtype_in = _dtype_of_codes(outputs) if isinstance(outputs, Categories) else dtype

    def checked(value: Any, name: str, which: Any) -> Real | Int:
        shape = (() if isinstance(which, int) else ("N",)) + (("T",) if has_time else ())
        value = value if is_category else checks.widened(value, name, dtype)
        read = None
        if weights is not None:
            axes = np.shape([*value] if isinstance(value, str) else value)  # perhaps too few, as `targets` says
            n_steps = axes[len(shape) - 1 : len(shape)] if has_time else (None,)
            read = weights.read(which, *n_steps) if n_steps else None
        found: Real | Int = outputs.targets(value, name, dtype, shape, read=read)
        if kinds.feeds_back and is_category:
            of_one = [(found, name, which)] if isinstance(which, int) else _each(found, name, which)
            for y, own_name, i in of_one:
                checks.no_gaps(y, own_name, None if weights is None else weights.read(i, len(y)))
        return found

    return _rows_of(outputs, Y, name, checked, dtype_in, are_items=pattern.one_output)


def _each(rows: Any, name: str, which: Int) -> Iterator[tuple[Any, str, int]]:
    """Rows, each with its name and its number."""
    for row, i in zip(rows, which.tolist(), strict=True):
        yield row, f"{name}[{i}]", i


def _check_same_lengths(rows: Rows, expected: Rows, name: str, expected_name: str) -> None:
    n = 1 if rows.is_table and expected.is_table else None  # all have that of the first
    checks.same_lengths(rows.lengths[:n], expected.lengths[:n], name, expected_name)


class _Weights:
    """What targets count: (N,), one for each sequence, or as many for each as it has targets."""

    def __init__(self, given: Any, kinds: Kinds, names: Sequence[str], n: int) -> None:
        x_name, _, self.name, _ = names
        self.given, self.dtype, self.n = checks.one_for_each(given, self.name), kinds.dtype, n
        checks.same_number(len(self.given), n, self.name, x_name)
        self.is_of_sequences = np.ndim(row_of(self.given, 0)) == 0 or kinds.pattern.one_output
        if kinds.outputs.is_of_sequences and not self.is_of_sequences:
            check.refuse(f"{self.name} must be one for each sequence, (N,), with {kinds.outputs}")
        self.is_fed_back = kinds.feeds_back

    @functools.cached_property
    def of_sequences(self) -> Real:
        return checks.weights(self.given, self.name, self.dtype, (self.n,))

    def of_steps(self, i: int, n_steps: int) -> Real:
        return checks.weights(row_of(self.given, i), f"{self.name}[{i}]", self.dtype, (n_steps,))

    def rows(self, y: Rows) -> Rows | Real:
        """Once the targets are known."""
        if self.is_of_sequences:
            return self.of_sequences

        def checked(value: Any, name: str, which: Any) -> Real:
            shape = (int(y.lengths[which]),) if isinstance(which, int) else (len(which), int(y.lengths[0]))
            return checks.weights(value, name, self.dtype, shape)

        if y.is_table and _is_table(self.given):
            return Table(self.given, self.name, checked, dtype=self.dtype)
        return _listed(self.given, self.name, checked, self.dtype)

    def counts(self, i: int, n_steps: int) -> NDArray[np.bool_]:
        """Which targets of a sequence have a weight above 0."""
        if self.is_of_sequences:
            return np.full(n_steps, self.of_sequences[i] > 0)
        return np.asarray(self.of_steps(i, n_steps) > 0)

    def read(self, which: Any, n_steps: int | None) -> Read:
        """Which targets are looked at: of a sequence, or of several, (N, T), or (N,) if there is one for each."""
        if n_steps is None:
            return Read(lambda: np.asarray(self.of_sequences[which] > 0))
        if isinstance(which, int):
            return Read(lambda: self.counts(which, n_steps), self.is_fed_back)
        return Read(lambda: np.stack([self.counts(i, n_steps) for i in which]), self.is_fed_back, time_axis=1)


def _or_none(lengths: Int) -> Int | None:
    return None if lengths.min() == lengths.max() else lengths
