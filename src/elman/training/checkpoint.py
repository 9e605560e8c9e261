"""What a checkpoint says of a training: which run it is of, and where that stands, checked before it is believed.

Use what reads parts of it within `refusing`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import reprlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.attributes import settings_of
from elman.data.rows import Rows, total_of
from elman.storage import files
from elman.training.optimizers import Optimizer, checks_of_memories
from elman.typing import Int, Real

Arrays = Mapping[str, NDArray[Any]]

_SETTINGS = reprlib.Repr()  # in messages about what differs: most lists are shown whole
_SETTINGS.maxlist, _SETTINGS.maxlevel = 50, 3

_MOST_VALUES = 1 << 20  # of a data set that a fingerprint is made of


def fingerprint(rows: Rows | Real) -> str:
    """The sizes of a data set, and a hash of its lengths and values: of all of them, or of a million of many."""
    given: Any = rows[:, None] if isinstance(rows, np.ndarray) else rows
    n, is_there = len(rows), isinstance(rows, np.ndarray) or rows.are_there
    n_steps = n if isinstance(rows, np.ndarray) else total_of(rows)
    lengths = np.ones(n, np.int64) if isinstance(rows, np.ndarray) else rows.lengths
    n_values = n_steps * int(np.prod(given[0].shape[1:]))
    parts = _sampled(given, n_values, is_there=is_there) if n_values > _MOST_VALUES else given
    of_all = lengths if is_there else lengths[:: max(1, n >> 16)]
    read = "" if is_there else ", read as they are needed"  # in an order of their own, as not all targets are known
    return f"{_sizes(n, n_steps)}{read} (fingerprint {fingerprint_of([of_all, *parts])})"


def fingerprint_of(arrays: Iterable[NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()[:12]


def _sampled(rows: Any, n_values: int, *, is_there: bool) -> Iterator[Real | Int]:
    """About a million values, always the same ones."""
    rng, mean = np.random.default_rng(0), max(1, n_values // len(rows))
    most = max(1024, _MOST_VALUES // len(rows))  # of a row
    most_rows = 1 << (16 if is_there else 8)  # each takes a microsecond, however short it is, or what a disk takes
    n_rows = min(_MOST_VALUES // min(most, mean), most_rows)
    for i in np.unique(rng.integers(0, len(rows), n_rows)):
        values = rows[i].reshape(-1)
        yield values if len(values) <= most else values[rng.integers(0, len(values), most)]


def _sizes(n: int, n_steps: int) -> str:
    return f"{n} sequence{'s' if n > 1 else ''} of {n_steps} steps in all"


def refusing(path: Path) -> contextlib.AbstractContextManager[None]:
    """Whatever turns out to be wrong with a checkpoint is a ValueError that names the file."""
    return files.refusing(path, "no checkpoint that this run can go on from")


def read(path: Path, kind: str, config: dict[str, Any]) -> tuple[dict[str, Real], dict[str, Any], Arrays]:
    """The parameters of a checkpoint of a model of that kind and configuration, its record and the other arrays."""
    with refusing(path):
        saved = files.load(path, [kind])
        found = files.flat(saved.config)
    if saved.checkpoint is None:
        check.refuse(
            f"{path} is no checkpoint of a training, but a model alone: there is nothing to go on from. Save models "
            "under other names than checkpoints, or begin anew without resume."
        )
    same_run(found, files.flat(files.as_read(config)), str(path))
    return saved.parameters, *saved.checkpoint


def divided(state: Any, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A callback's state: what goes into JSON, and arrays."""
    check.instance(state, name, dict)
    arrays: dict[str, NDArray[Any]] = {}
    values: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, np.ndarray):
            arrays[key] = value
        else:
            values[key] = value.item() if isinstance(value, np.generic) else value
    _check_storable(values, arrays, name)
    return values, arrays


def read_array(arrays: Arrays, name: str, dtype: np.dtype[Any], shape: check.Shape) -> Real:
    """One of the arrays, of just this dtype and shape. (What it holds of rows that have ended may be anything.)"""
    array, shown = arrays[name], f"its training:{name}"
    check.choice(array.dtype.name, f"the dtype of {shown}", [dtype.name])
    return np.array(check.real_array(array, shown, dtype, shape, contiguous=True))


def read_parameters(arrays: Arrays, name: str, parameters: Real) -> Real:
    """One of the arrays, finite and like parameters (n,)."""
    array = read_array(arrays, name, parameters.dtype, parameters.shape)
    check.finite(array, f"its training:{name}")
    return array


def read_memories(record: Mapping[str, Any], arrays: Arrays, optimizer: Optimizer, parameters: Real) -> list[Real]:
    """The optimizer's memories of parameters (n,); none before its first step."""
    steps = check.count(record["optimizer_steps"], "its optimizer_steps")
    found = [name for name in arrays if name.startswith("optimizer.")]
    checks = checks_of_memories(optimizer, len(found), steps)
    names = [f"optimizer.{i}" for i in range(len(checks))]
    check.same_names(found, names, "its training")
    memories = [read_array(arrays, name, parameters.dtype, parameters.shape) for name in names]
    for array, name, accepted in zip(memories, names, checks, strict=True):
        accepted(array, f"its training:{name}")
    return memories


def read_generators(record: Mapping[str, Any], own: list[np.random.Generator]) -> list[np.random.Generator]:
    """Copies of a model's generators, each where the checkpoint says."""
    states, generators = record["generators"], copy.deepcopy(own)
    check.same_count(len(states), len(generators), "its generators", "the model's")
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state
        taken = generator.bit_generator.state  # NumPy cuts what is too large, and leaves out what it does not know
        _check_generator(taken, state, "its generators")
    return generators


def read_history(
    record: Mapping[str, Any], names: list[str], n_epochs: int, unbounded: Collection[str]
) -> dict[str, list[float]]:
    """A list of numbers, one for each epoch, for each name; those of some metrics may be any."""
    history = check.instance(record["history"], "its history", dict)
    check.same_names(list(history), names, "its history")
    for name, values in history.items():
        check.instance(values, f"its history of {name}", list)
        check.same_count(len(values), n_epochs, f"its history of {name}", "epochs")
        for value in values:
            check.instance(value, f"its history of {name}", float)
            if name.removeprefix("val_") not in unbounded:
                check.finite_number(value, f"its history of {name}")
    return history


def modernized(
    record: dict[str, Any], arrays: Arrays, now: Mapping[str, Any], optimizer: Optimizer, epochs: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was written before files had digests, in today's form.

    What it does not say of its run is taken to be as it is `now`.
    """
    old = check.instance(record["settings"], "its settings", dict)
    run = {**now, **{name: old[name] for name in now if name in old}}
    run["clip_norm"] = None if old["clip_norm"] == math.inf else old["clip_norm"]
    sizes = _sizes(old["the number of sequences"], old["the number of steps of the sequences"])
    is_of = next((name for name in ("X", "Y") if str(now[name]).startswith(f"{sizes} ")), None)  # Y for one-to-many
    run["X"] = sizes if is_of is None else now["X"]
    settings = {"lr": record["lr"], **old["optimizer"]}
    given = files.as_read({"kind": type(optimizer).__name__, **settings_of(optimizer)})
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
    current = {**files.as_read(settings_of(optimizer)), "lr": record["lr"]}
    new = {**record, "run": run, "epochs": epochs, "optimizer": current, "callbacks": states}
    return {name: value for name, value in new.items() if name not in ("settings", "lr")}, kept


def _check_storable(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    """What JSON and safetensors can hold."""
    expected = "numbers, strings, lists of them, and arrays of numbers by name"
    for key in [*values, *arrays]:
        if not isinstance(key, str) or not key.isprintable():
            raise TypeError(f"{name} must be a dict of {expected}, got {check.shown(key)} as a name")
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.itemsize > 8:
            raise TypeError(f"{name} must be a dict of {expected}, got {check.shown(array)} as {key!r}")
    try:
        json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name} must be a dict of {expected}: {error}") from error


def same_run(found: Any, expected: Mapping[str, Any], path: str) -> None:
    """A run can only go on as what it was."""
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not say which run it is of, but {check.shown(found)}")
    for name in [*expected, *found]:
        here, there = expected.get(name), found.get(name)
        if not files.is_same(here, there):
            raise ValueError(
                f"{path} is of another run: {_described(name)} is {_described(here)} here, it was {_described(there)} "
                "there. Go on with what was given there, or begin anew with another file."
            )


def _check_generator(found: Mapping[str, Any], given: Any, name: str) -> None:
    """The state of a generator that was given one."""
    if not files.is_same(found, given) or found["state"]["inc"] % 2 == 0 or found["has_uint32"] not in (0, 1):
        raise ValueError(f"{name} must be where {found['bit_generator']} can be, got {check.shown(given)}")


def _described(value: Any) -> str:
    """A setting: as it is, where that is a line that is not too long."""
    if not isinstance(value, str):
        return _SETTINGS.repr(value)
    text = value if value.isprintable() else ascii(value)
    return text if len(text) < 500 else f"{text[:400]}… (CRC {zlib.crc32(text.encode()):08x} of {len(text)} characters)"
