"""Predictions for sequences that come in chunk by chunk."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from elman import check
from elman.data.batches import own
from elman.data.checks import n_steps as n_steps_of
from elman.models.base import Model, network_of
from elman.models.network import SequenceNetwork
from elman.typing import Int, Real


class Stream:
    """What `SequenceModel.stream` returns: it keeps the states from one chunk to the next.

    Attributes
    ----------
    state : array (L, B, H)
        The states after all that has come in: live, and zeros at first, or the model's h_0. An array that it is set to
        is copied into it.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.SequenceModel(elman.Features(2), elman.Reals(1), hidden_size=8, seed=0)
    >>> stream = model.stream()
    >>> stream.predict(np.ones((3, 2))).shape
    (3, 1)
    >>> stream.reset()

    Many sequences, of which some go on at a time:

    >>> stream = model.stream(100)
    >>> stream.predict(np.ones((1, 2, 2)), rows=[7, 3]).shape  # a step of two of them
    (1, 2, 1)
    """

    def __init__(self, model: Model, batch_size: int | None, keys: Int | None = None) -> None:
        self._model = model
        self._batch_size = batch_size
        # Of the noise, and how many steps each row has made
        self._keys, self._n_steps = keys, np.zeros(batch_size or 1, np.int64)
        self._state = self._network.initial_state(batch_size or 1)

    @property
    def _network(self) -> SequenceNetwork:
        return cast(SequenceNetwork, network_of(self._model))

    @property
    def state(self) -> Real:
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        with np.errstate(over="ignore"):
            array = check.real_array(value, "state", self._state.dtype, self._state.shape)
        check.finite(array, "state")
        self._state[...] = array

    def predict(self, x: Any, *, resets: Any = None, rows: Any = None) -> Any:
        """The likeliest labels, or the numbers, for the next steps.

        Parameters
        ----------
        x : integers (T,) or array (T, n); with a batch size (T, B) or (T, B, n)
        resets : bool (T,), or with a batch size (T, B), optional
            Where new sequences begin, as with `reset` before such a step; but noise goes on.
        rows : integers (R,), or bool (B,), optional
            Those that x is about, with R in the place of B, in this order, none of them twice; perhaps none at all.
            The others stay as they are, and take no time. Needs a batch size.

        Returns
        -------
        categories (T,), or labels or numbers (T, n); with a batch size (T, B) or (T, B, n)
            Where the pattern has one output for each sequence, that for all of it so far: without the axis T.

        Raises
        ------
        TypeError, ValueError
            If x, resets or rows do not fit.
        FloatingPointError
            If the outputs are not finite, as parameters or states are not, or far too large. In both cases the state is
            left as it was.
        """
        return self._run(x, self._network.kinds.outputs.answers, resets, rows)

    def predict_proba(self, x: Any, *, resets: Any = None, rows: Any = None) -> Real:
        """The probability of each category, or of each label being 1, in the form of `predict` with an axis of n."""
        probabilities: Real = self._run(x, self._network.kinds.outputs.probabilities, resets, rows)
        return probabilities

    def reset(self, rows: Any = None) -> None:
        """Let new sequences begin: in all rows, or in those that `rows` says, as in `predict`.

        Noise begins anew where all rows do.
        """
        n_rows = self.state.shape[1]
        if rows is None:
            self._n_steps[:] = 0
        begins = slice(None) if rows is None else _row_indices(rows, n_rows)
        self.state[:, begins] = self._network.initial_state(n_rows)[:, begins]

    def _run(self, x: Any, function: Any, resets: Any, rows: Any) -> Any:
        inputs, outputs, pattern, dtype = self._network.kinds
        if rows is not None and self._batch_size is None:
            check.refuse("rows must be None for a stream without a batch size")
        chosen = None if rows is None else _row_indices(rows, len(self._n_steps))
        if chosen is not None and not len(chosen):
            n_steps = n_steps_of(x, "x")
            check.shape(np.shape(x)[:2], "x", ((n_steps, 0),), allow_empty=True)
            values = function(np.empty((n_steps, 0, outputs.n), dtype))
            return values[0] if pattern.one_output else values
        n_rows = self._batch_size if chosen is None else len(chosen)
        axes: Any = ("T",) if n_rows is None else ("T", n_rows)
        x = own(inputs.scaled(inputs.array(x, "x", dtype, axes), dtype))
        if resets is not None:
            resets = check.booleans(resets, "resets", x.shape[: len(axes)]).reshape(len(x), -1)
        x = x if n_rows else x[:, None]
        own_rows: Any = slice(None) if chosen is None else chosen
        is_noisy = self._keys is not None and self._network.stack.dynamics.is_noisy
        outcome = self._outcome_by_steps if is_noisy and np.ptp(self._n_steps[own_rows]) else self._outcome
        values, self._state[:, own_rows] = outcome(x, function, resets, own_rows)
        self._n_steps[own_rows] += len(x)
        values = values if n_rows else values[:, 0]
        return values[0] if pattern.one_output else values

    def _outcome_by_steps(self, x: Any, function: Any, resets: Any, rows: Any) -> tuple[Any, Real]:
        """`_outcome` of rows that have made unequal numbers of steps, for each of which noise is drawn by itself."""
        n_steps, indices, parts = self._n_steps[rows], np.arange(len(self._n_steps))[rows], []
        groups = [np.flatnonzero(n_steps == n) for n in np.unique(n_steps)]
        for group in groups:
            begins = None if resets is None else resets[:, group]
            parts.append(self._outcome(np.ascontiguousarray(x[:, group]), function, begins, indices[group]))
        order = np.argsort(np.concatenate(groups))
        values, states = (np.concatenate(each, axis=1)[:, order] for each in zip(*parts, strict=True))
        return values, states

    def _outcome(self, x: Real | Int, function: Any, resets: Any, rows: Any) -> tuple[Any, Real]:
        """What comes of the next steps of some rows, with as many behind them: values (T, R, ·), and the states."""
        network, state = self._network, np.ascontiguousarray(self._state[:, rows])
        mode, stack = network.mode(), network.stack
        drawn = None if self._keys is None else network.noise(self._keys[rows])
        if drawn is not None:
            drawn = drawn._replace(first_step=int(self._n_steps[rows][0]))
        if len(x) == 1 and resets is None:  # with less around it
            h_n, reading = np.empty_like(state), network.reading(mode, x)
            x_t = np.ascontiguousarray(reading.of(x)[0])
            y = stack.step(mode, x_t, state, h_n, drawn, reading.weights)
            return function(network.outputs(mode.backend, y[None])), h_n
        with stack.lease(*x.shape[:2]) as (y,):
            h, h_n = network.states(mode, x, None, state, y, drawn, resets)
            return function(network.outputs(mode.backend, h)), h_n

    def __repr__(self) -> str:
        return f"Stream({self._model}, batch_size={self._batch_size})"


def _row_indices(rows: Any, n_rows: int) -> Int:
    """Indices from 0 to n_rows - 1, each once, of some rows, which a bool (n_rows,) may tell."""
    array = np.atleast_1d(check.as_array(rows, "rows"))
    if array.dtype == bool:
        check.shape(array.shape, "rows", ((n_rows,),))
        return np.flatnonzero(array)
    array = check.as_int64(array, "rows")
    check.shape(array.shape, "rows", (("R",),), allow_empty=True)
    if array.size and not (array.min() >= 0 and array.max() < n_rows):
        raise ValueError(f"rows must be from 0 to {n_rows - 1}, got {array.min()} to {array.max()}")
    if len({*array.tolist()}) < len(array):
        twice = np.bincount(array).argmax()
        raise ValueError(f"rows must have each row once, got {twice} more often")
    return array
