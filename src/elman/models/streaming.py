"""Predictions for sequences that come in chunk by chunk."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from elman import check
from elman.data.batches import own
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
    """

    def __init__(self, model: Model, batch_size: int | None, keys: Int | None = None) -> None:
        self._model = model
        self._batch_size = batch_size
        self._keys, self._n_steps = keys, 0  # of the noise, and how many steps have been made
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

    def predict(self, x: Any, *, resets: Any = None) -> Any:
        """The likeliest labels, or the numbers, for the next steps.

        Parameters
        ----------
        x : integers (T,) or array (T, n); with a batch size (T, B) or (T, B, n)
        resets : bool (T,), or with a batch size (T, B), optional
            Where new sequences begin, as with `reset` before such a step; but noise goes on.

        Returns
        -------
        categories (T,), or labels or numbers (T, n); with a batch size (T, B) or (T, B, n)
            Where the pattern has one output for each sequence, that for all of it so far: without the axis T.

        Raises
        ------
        TypeError, ValueError
            If x or resets do not fit.
        FloatingPointError
            If the outputs are not finite, as parameters or states are not, or far too large. In both cases the state is
            left as it was.
        """
        return self._run(x, self._network.kinds.outputs.predict, resets)

    def predict_proba(self, x: Any, *, resets: Any = None) -> Real:
        """The probability of each category, or of each label being 1, in the form of `predict` with an axis of n."""
        probabilities: Real = self._run(x, self._network.kinds.outputs.probabilities, resets)
        return probabilities

    def reset(self, rows: Any = None) -> None:
        """Let new sequences begin: in all rows, or in those of an array of indices or of bool (B,).

        Noise begins anew where all rows do.
        """
        n_rows = self.state.shape[1]
        if rows is None:
            self._n_steps = 0
        begins = slice(None) if rows is None else _row_indices(rows, "rows", n_rows)
        self.state[:, begins] = self._network.initial_state(n_rows)[:, begins]

    def _run(self, x: Any, function: Any, resets: Any) -> Any:
        network = self._network
        inputs, _, pattern, dtype = network.kinds
        axes: Any = ("T",) if self._batch_size is None else ("T", self._batch_size)
        x = own(inputs.array(x, "x", dtype, axes))
        if resets is not None:
            resets = check.booleans(resets, "resets", x.shape[: len(axes)]).reshape(len(x), -1)
        x = x if self._batch_size else x[:, None]
        mode, stack, drawn = network.mode(), network.stack, network.noise(self._keys)
        if drawn is not None:
            drawn = drawn._replace(first_step=self._n_steps)
        if len(x) == 1 and resets is None:  # with less around it
            h_n = np.empty_like(self._state)
            y = stack.step(mode, np.ascontiguousarray(x[0]), self._state, h_n, drawn)
            values = function(network.outputs(mode.backend, y[None]))
        else:
            with stack.lease(*x.shape[:2]) as (y,):
                h, h_n = network.states(mode, x, None, self._state, y, drawn, resets)
                values = function(network.outputs(mode.backend, h))
        self._state[...] = h_n
        self._n_steps += len(x)
        values = values if self._batch_size else values[:, 0]
        return values[0] if pattern.one_output else values

    def __repr__(self) -> str:
        return f"Stream({self._model}, batch_size={self._batch_size})"


def _row_indices(value: Any, name: str, n_rows: int) -> Any:
    """Indices from 0 to n_rows - 1, or bool (n_rows,)."""
    array = np.atleast_1d(check.as_array(value, name))
    if array.dtype == bool:
        check.shape(array.shape, name, ((n_rows,),))
        return array
    array = check.as_int64(array, name)
    if array.size and not (array.min() >= 0 and array.max() < n_rows):
        raise ValueError(f"{name} must be from 0 to {n_rows - 1}, got {array.min()} to {array.max()}")
    return array
