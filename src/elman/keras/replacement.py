"""Layers of a model replaced in place."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras

from elman import check
from elman.keras.layer import SimpleRNN, inner_loop, reason_to_leave
from elman.replaced import Report


def accelerate(model: keras.layers.Layer) -> Report:
    """Let every `keras.layers.SimpleRNN` of a model compute with elman's kernels, from now on.

    Layers stay what and where they are: weights, names and class, and so the model's files, are Keras's, which reads
    them without elman. What has been read, cloned or copied is accelerated by a call of its own. A second time changes
    nothing; `restore` undoes it.

    Parameters
    ----------
    model : keras.layers.Layer
        A model, compiled, trained or not, or a single layer. Layers within layers are found: in models,
        `Bidirectional`, `TimeDistributed`.

    Returns
    -------
    Report
        Names of the layers that were replaced, and those of the recurrent layers that were left, with the reason: other
        kinds, subclasses, and what `SimpleRNN` says that Keras's loop computes.

    Raises
    ------
    TypeError
        If model is not a layer.

    Examples
    --------
    >>> import keras
    >>> layers = [keras.layers.SimpleRNN(5, return_sequences=True, name="rnn"), keras.layers.GRU(5, name="decoder")]
    >>> model = keras.Sequential([keras.Input((None, 3)), *layers])
    >>> accelerate(model)
    rnn: replaced
    decoder: left, elman has no GRU
    """
    check.instance(model, "model", keras.layers.Layer)
    replaced, left, own = [], {}, []
    for name, layer in _recurrent(model):
        if isinstance(layer, SimpleRNN) or "inner_loop" in vars(layer):
            own.append(name)
            continue
        reason = _reason_to_leave(layer)
        if reason is None:
            vars(layer)["inner_loop"] = functools.partial(inner_loop, layer)
            replaced.append(name)
        else:
            left[name] = reason
    _compile_anew(model)
    return Report(tuple(replaced), left, tuple(own))


def restore(model: keras.layers.Layer) -> tuple[str, ...]:
    """Undo `accelerate`: let Keras compute every layer of a model, where it is.

    Parameters
    ----------
    model : keras.layers.Layer
        Or a single layer. Layers that were made as `elman.keras.SimpleRNN` become Keras's, too.

    Returns
    -------
    tuple of str
        The names of the layers that were restored, as in a `Report`.

    Raises
    ------
    TypeError
        If model is not a layer.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([SimpleRNN(5, name="rnn")])
    >>> restore(model)
    ('rnn',)
    >>> type(model.layers[0]).__module__
    'keras.src.layers.rnn.simple_rnn'
    """
    check.instance(model, "model", keras.layers.Layer)
    restored = []
    for name, layer in _recurrent(model):
        if type(layer) is SimpleRNN:
            object.__setattr__(layer, "__class__", keras.layers.SimpleRNN)  # a layer's own would track the value
            restored.append(name)
        elif vars(layer).pop("inner_loop", None) is not None:
            restored.append(name)
    _compile_anew(model)
    return tuple(restored)


def _recurrent(model: Any) -> Iterator[tuple[str, Any]]:
    """The recurrent layers and their names."""
    return ((name, layer) for name, layer in _layers(model) if isinstance(layer, _RECURRENT))


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """All layers but those within recurrent ones, each once, and their names."""
    seen, waiting = set(), [(model.name, model)]
    while waiting:
        name, layer = waiting.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield name, layer
        if not isinstance(layer, _RECURRENT):
            prefix = "" if layer is model else f"{name}/"
            waiting[:0] = [(prefix + one.name, one) for one in _below(layer)]


_RECURRENT = (keras.layers.RNN, keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
_below = keras.Model.layers.fget  # which any layer has, but only models as `layers`


def _reason_to_leave(layer: Any) -> str | None:
    kind = type(layer)
    if kind is keras.layers.SimpleRNN:
        return reason_to_leave(layer)
    if kind is keras.layers.RNN:
        return f"an RNN of {type(layer.cell).__qualname__}: keras.layers.SimpleRNN can be replaced"
    if isinstance(layer, keras.layers.SimpleRNN):
        return f"a subclass of keras.layers.SimpleRNN, {kind.__qualname__}, may have a call of its own"
    return f"elman has no {kind.__name__}"


def _compile_anew(model: Any) -> None:
    """Drop what has been compiled: on JAX, programs with the layers as they were."""
    for _, layer in _layers(model):
        if isinstance(layer, keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None
