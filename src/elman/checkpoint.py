"""What a checkpoint says of a training: which run it is of, and where that stands, checked before it is believed.

Use what reads parts of it within `refusing`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import io, validation
from elman.base import Model
from elman.data import Rows, lengths_of
from elman.optimizers import Optimizer
from elman.typing import Int, Real

Arrays = Mapping[str, NDArray[Any]]

_MOST_VALUES = 1 << 20  # of a data set that a fingerprint is made of


def fingerprint(rows: Rows, *, is_sampled: bool = True) -> str:
    """The sizes of a data set, and a hash of its lengths and values: of all of them, or of a million of many."""
    rows = rows[:, None] if isinstance(rows, np.ndarray) and rows.ndim == 1 else rows
    lengths = lengths_of(rows)
    n_values = int(lengths.sum()) * int(np.prod(rows[0].shape[1:]))
    parts = _sampled(rows, n_values) if is_sampled and n_values > _MOST_VALUES else rows
    return f"{_sizes(len(rows), int(lengths.sum()))} (fingerprint {fingerprint_of([lengths, *parts])})"


def fingerprint_of(arrays: Iterable[NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()[:12]


def _sampled(rows: Rows, n_values: int) -> Iterator[Real | Int]:
    """About a million values, always the same ones."""
    rng, mean = np.random.default_rng(0), max(1, n_values // len(rows))
    most = max(1024, _MOST_VALUES // len(rows))  # of a row
    n_rows = min(_MOST_VALUES // min(most, mean), 1 << 16)  # a row takes a microsecond, however short it is
    for i in np.unique(rng.integers(0, len(rows), n_rows)):
        values = rows[i].reshape(-1)
        yield values if len(values) <= most else values[rng.integers(0, len(values), most)]


def _sizes(n: int, n_steps: int) -> str:
    return f"{n} sequence{'s' if n > 1 else ''} of {n_steps} steps in all"


def refusing(path: Path) -> contextlib.AbstractContextManager[None]:
    return io.refusing(path, "no checkpoint that this run can go on from")


def read(path: Path, model: Model) -> tuple[dict[str, Real], dict[str, Any], Arrays]:
    """The parameters of a checkpoint of such a model, its record and the other arrays."""
    with refusing(path):
        saved = io.load(path, [model._file_kind])
        config = io.flat(saved.config)
    if saved.progress is None:
        validation.refuse(
            f"{path} is no checkpoint of a training, but a model alone: there is nothing to go on from. Save models "
            "under other names than checkpoints, or begin anew without resume."
        )
    validation.same_run(config, io.flat(io.as_read(model._config())), str(path))
    return saved.state, *saved.progress


def divided(state: Any, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A callback's state: what goes into JSON, and arrays."""
    validation.instance(state, name, dict)
    arrays: dict[str, NDArray[Any]] = {}
    values: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, np.ndarray):
            arrays[key] = value
        else:
            values[key] = value.item() if isinstance(value, np.generic) else value
    validation.storable(values, arrays, name)
    return values, arrays


def read_array(arrays: Arrays, name: str, dtype: np.dtype[Any], shape: validation.Shape) -> Real:
    """One of the arrays, of just this dtype and shape. (What it holds of rows that have ended may be anything.)"""
    array, shown = arrays[name], f"its training:{name}"
    validation.choice(array.dtype.name, f"the dtype of {shown}", [dtype.name])
    return np.array(validation.real_array(array, shown, dtype, shape, contiguous=True))


def read_memories(record: Mapping[str, Any], arrays: Arrays, optimizer: Optimizer, model: Model) -> list[Real]:
    """The optimizer's memories of the model's parameters; none before its first step."""
    steps = validation.count(record["optimizer_steps"], "its optimizer_steps")
    found, flat = [name for name in arrays if name.startswith("optimizer.")], model._parameters.flat
    may_be = optimizer._possible_n_memories if steps else (0,)
    names = [f"optimizer.{i}" for i in range(len(found) if len(found) in may_be else may_be[-1])]
    validation.same_names(found, names, "its training")
    memories = [read_array(arrays, name, flat.dtype, flat.shape) for name in names]
    for i, array in enumerate(memories):
        check = validation.squares if i == optimizer._squares else validation.finite
        check(array, f"its training:optimizer.{i}")
    return memories


def read_settings(record: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Those of the optimizer, which callbacks may have changed since the run began."""
    found, checks = validation.instance(record["optimizer"], "its optimizer", dict), optimizer._settable
    validation.same_names(found, optimizer._settings(), "its optimizer")
    return {name: checks[name](value, f"{name} of its optimizer") for name, value in found.items()}


def read_generators(record: Mapping[str, Any], model: Model) -> list[np.random.Generator]:
    """Copies of the model's generators, each where the checkpoint says."""
    states, generators = record["generators"], copy.deepcopy(model._generators())
    validation.same_count(len(states), len(generators), "its generators", "the model's")
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state
        taken = generator.bit_generator.state  # NumPy cuts what is too large, and leaves out what it does not know
        validation.generator_state(taken, state, "its generators")
    return generators


def read_history(record: Mapping[str, Any], names: list[str], n_epochs: int) -> dict[str, list[float]]:
    """A list of numbers, one for each epoch, for each name."""
    history = validation.instance(record["history"], "its history", dict)
    validation.same_names(list(history), names, "its history")
    for name, values in history.items():
        validation.instance(values, f"its history of {name}", list)
        validation.same_count(len(values), n_epochs, f"its history of {name}", "epochs")
        for value in values:
            validation.instance(value, f"its history of {name}", float)
            if not name.endswith("r2"):  # which has no limits
                validation.finite_number(value, f"its history of {name}")
    return history


def take_over(generators: list[np.random.Generator], model: Model) -> None:
    for generator, read in zip(model._generators(), generators, strict=True):
        generator.bit_generator.state = read.bit_generator.state


def modernized(
    record: dict[str, Any], arrays: Arrays, now: Mapping[str, Any], optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was written before files had digests, in today's form.

    What it does not say of its run is taken to be as it is `now`.
    """
    old = validation.instance(record["settings"], "its settings", dict)
    run = {**now, **{name: old[name] for name in now if name in old}}
    run["memory"] = now["memory"]
    run["clip_norm"] = None if old["clip_norm"] == math.inf else old["clip_norm"]
    sizes = _sizes(old["the number of sequences"], old["the number of steps of the sequences"])
    run["X"] = now["X"] if str(now["X"]).startswith(f"{sizes} ") else sizes
    settings = {"lr": record["lr"], **old["optimizer"]}
    given = io.as_read({"kind": type(optimizer).__name__, **optimizer._settings()})
    is_same = all(given.get(name) == value for name, value in settings.items())
    kind = settings.pop("kind")
    run["optimizer"] = now["optimizer"] if is_same else f"{kind}({', '.join(f'{k}={v}' for k, v in settings.items())})"
    states: list[dict[str, Any]] = []
    kept = dict(arrays)
    for i, state in enumerate(record["callbacks"]):  # of all, with nothing where a callback keeps no state
        own = [name for name in arrays if name.startswith(f"callback.{i}.")]
        for name in own:
            kept[f"callback.{len(states)}.{name.split('.', 2)[2]}"] = kept.pop(name)
        states += [state] if state or own else []
    current = {**io.as_read(optimizer._settings()), "lr": record["lr"]}
    new = {**record, "run": run, "epochs": max(1, record["epoch"]), "optimizer": current, "callbacks": states}
    return {name: value for name, value in new.items() if name not in ("settings", "lr")}, kept
