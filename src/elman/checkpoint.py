"""What a checkpoint says of a training, checked before any of it is believed: use it within `io.refusing`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import validation
from elman.base import Model
from elman.optimizers import Optimizer
from elman.typing import Real

Arrays = Mapping[str, NDArray[Any]]


def read_array(arrays: Arrays, name: str, dtype: np.dtype[Any], shape: validation.Shape) -> Real:
    """One of the arrays, of just this dtype and shape. (What it holds of rows that have ended may be anything.)"""
    array, shown = arrays[name], f"its training:{name}"
    validation.choice(array.dtype.name, f"the dtype of {shown}", [dtype.name])
    return validation.real_array(array, shown, dtype, shape, contiguous=True)


def read_memories(record: Mapping[str, Any], arrays: Arrays, optimizer: Optimizer, model: Model) -> list[Real]:
    """The optimizer's memories of the model's parameters; none before its first step."""
    flat = model._parameters.flat
    n = optimizer._n_memories if validation.non_negative_int(record["optimizer_steps"], "its optimizer_steps") else 0
    names = [f"optimizer.{i}" for i in range(n)]
    validation.same_names([name for name in arrays if name.startswith("optimizer.")], names, "its training")
    memories = [read_array(arrays, name, flat.dtype, flat.shape) for name in names]
    for name, array in zip(names, memories, strict=True):
        validation.no_nan(array, f"its training:{name}")  # a square may well be too large for the dtype
    return memories


def read_generators(record: Mapping[str, Any], model: Model) -> list[np.random.Generator]:
    """Copies of the model's generators, each where the checkpoint says."""
    states, generators = record["generators"], copy.deepcopy(model._generators())
    validation.same_number(len(states), len(generators), "its generators", "the model")
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state
    return generators


def read_history(record: Mapping[str, Any], names: list[str], n_epochs: int) -> dict[str, list[float]]:
    """A list of numbers, one for each epoch, for each name."""
    history = validation.instance(record["history"], "its history", dict)
    validation.same_names(list(history), names, "its history")
    for name, values in history.items():
        validation.instance(values, f"its history of {name}", list)
        validation.same_number(len(values), n_epochs, f"its history of {name}", "epochs")
        for value in values:
            validation.instance(value, f"its history of {name}", float)
    return history


def take_over(generators: list[np.random.Generator], model: Model) -> None:
    for generator, read in zip(model._generators(), generators, strict=True):
        generator.bit_generator.state = read.bit_generator.state
