"""`keras.layers.SimpleRNN`, with the loop over a sequence in elman's kernels."""

from __future__ import annotations

import importlib
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import keras
from keras import activations, ops, tree

from elman.keras import passes
from elman.keras.passes import Call, Options

engine = importlib.import_module("elman.keras.on_" + ("jax" if keras.backend.backend() == "jax" else "torch"))

_OWN = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity", "softplus": "softplus"}
_ACTIVATIONS = {getattr(of, name): own for name, own in _OWN.items() for of in (activations, ops) if hasattr(of, name)}
_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class FallbackWarning(UserWarning):
    """A layer is computed by Keras's own loop, which is slow, for the reason that this names: once for each of a layer.

    Examples
    --------
    >>> warnings.simplefilter("ignore", FallbackWarning)  # for who knows
    """


def inner_loop(layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
    """What `keras.layers.RNN` calls for its loop over steps: the last outputs, all of them, and the last states.

    Of the outputs only those are right that the layer returns.
    """
    reason = reason_to_leave(layer)
    if reason is None:
        call = _call(layer, sequences, initial_state, mask, training)
        reason = _misfit(call)
        if reason is None and engine.runs(call):
            outputs, h_n = engine.rnn(call, _options(layer))
            return outputs, outputs, [h_n]
    if reason:
        _say(layer, reason)
    if not engine.is_symbolic(sequences):
        passes.count("loops")
    return keras.layers.RNN.inner_loop(layer, sequences, initial_state, mask, training)


def reason_to_leave(layer: Any) -> str | None:
    """Why the kernels cannot compute a layer, whatever it is called with."""
    cell = layer.cell
    if type(cell) is not keras.layers.SimpleRNNCell:
        return f"its cell is a {type(cell).__qualname__}"
    if layer.unroll:
        return "unroll=True is Keras's"
    if cell.activation not in _ACTIVATIONS:
        return f"elman has no activation {getattr(cell.activation, '__name__', cell.activation)}"
    if {layer.compute_dtype, cell.compute_dtype} not in ({"float32"}, {"float64"}):
        return f"elman computes in float32 or float64, not in {cell.compute_dtype}"
    return None


def _call(layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool) -> Call:
    cell, (h_0, *_) = layer.cell, tree.flatten(initial_state)
    dropout, recurrent_mask = (
        (cell.get_dropout_mask(sequences[:, 0, :]), cell.get_recurrent_dropout_mask(h_0)) if training else (None, None)
    )
    x = sequences if dropout is None else sequences * ops.expand_dims(dropout, 1)
    if layer.stateful:
        h_0 = ops.copy(h_0)  # the layer will write the last states there
    variables = cell.kernel, cell.recurrent_kernel, cell.bias
    weights = [None if one is None else ops.convert_to_tensor(one) for one in variables]
    marks = [None if one is None else ops.cast(one, "bool") for one in tree.flatten(mask)[:1]] or [None]
    return Call._make((x, h_0, *weights, recurrent_mask, *marks))


def _misfit(call: Call) -> str | None:
    """Why the kernels cannot compute this call: empty where Keras will refuse it, or nothing is to do."""
    kinds = {keras.backend.standardize_dtype(one.dtype) for one in call[:5] if one is not None}
    if kinds not in ({"float32"}, {"float64"}):
        return f"its inputs and weights are {' and '.join(sorted(kinds))}"
    (n_rows, n_steps, n_inputs), n_units = call.x.shape, call.recurrent_kernel.shape[0]
    is_refused = tuple(call.h_0.shape) != (n_rows, n_units) or call.kernel.shape[0] != n_inputs
    if is_refused or not n_rows * n_steps * n_inputs:
        return ""
    if call.mask is not None and tuple(call.mask.shape) != (n_rows, n_steps):
        return f"its mask has the shape {tuple(call.mask.shape)}"
    return None


def _options(layer: Any) -> Options:
    activation, begins = _ACTIVATIONS[layer.cell.activation], engine.BEGINS_WITH_STATE
    return Options(activation, layer.go_backwards, layer.return_sequences, layer.zero_output_for_mask, begins)


def _say(layer: Any, reason: str) -> None:
    said = _said.setdefault(layer, set())
    if reason not in said:
        said.add(reason)
        message = f"the layer {layer.name} is computed by Keras's own loop: {reason}"
        warnings.warn(message, FallbackWarning, stacklevel=5)


@keras.saving.register_keras_serializable("elman")
class SimpleRNN(keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN`, with the loop over a sequence in elman's kernels.

    Arguments, weights, shapes, masks, dropout, states and errors are those of `keras.layers.SimpleRNN`, of which it is
    a subclass. In files it is `elman>SimpleRNN`: who reads them imports `elman.keras` before, or `restore` comes before
    they are written.

    Parameters
    ----------
    *args, **kwargs
        Those of `keras.layers.SimpleRNN`: units, activation, return_sequences and so on.

    Warns
    -----
    FallbackWarning
        In a call, if it is Keras's own loop that computes: with `unroll=True`, another activation than tanh, relu,
        sigmoid, softplus or linear, or another dtype than float32 and float64.

    Examples
    --------
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((None, 3)), SimpleRNN(5), keras.layers.Dense(1)])
    >>> tuple(model(np.ones((2, 50, 3), "float32")).shape)
    (2, 1)
    """

    inner_loop = inner_loop
