"""Model files: safetensors, with the configuration in its metadata. Nothing that is read is ever executed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import validation
from elman.typing import Real

_FORMAT = "elman.{}/1"  # with the model's class
_TRAINING = "training:"  # before the names of arrays that are not the model's
_DTYPES = {"float32": "F32", "float64": "F64"}  # ours and the names that safetensors has for them


class Progress(NamedTuple):
    """How far a training has come: what JSON can hold, and arrays."""

    record: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def save(
    path: Path,
    kind: str,
    state: Mapping[str, Real],
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write atomically: what `path` names is the old file or the whole new one, never a part of it."""
    from safetensors.numpy import save as to_bytes  # only here: `import elman` does without it

    validation.text_mapping(metadata, "metadata")
    header = {"format": _FORMAT.format(kind), "config": json.dumps(config), "metadata": json.dumps(dict(metadata))}
    arrays = dict(state)
    if progress is not None:
        header["training"] = json.dumps(progress.record)
        arrays |= {_TRAINING + name: array for name, array in progress.arrays.items()}
    content = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()}, header)
    temporary = path.parent / f".elman-{secrets.token_hex(8)}.part"  # of this call only, whoever else saves there
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, kinds: Iterable[str]) -> tuple[str, dict[str, Real], dict[str, Any], dict[str, str]]:
    """The class, parameters, configuration and metadata of a file that `save` wrote; use it within `refusing`."""
    from safetensors import safe_open

    with path.open("rb"):  # the usual OSError where there is no file to read
        pass
    formats = {_FORMAT.format(kind): kind for kind in kinds}
    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
        kind = formats[validation.choice(header.get("format"), "its format", formats)]
        config, metadata = json.loads(header["config"]), json.loads(header["metadata"])
        validation.instance(config, "its configuration", dict)
        validation.text_mapping(metadata, "its metadata")
        dtype = _DTYPES[validation.choice(config["dtype"], "its dtype", _DTYPES)]
        state = {}
        for name in file.keys():  # noqa: SIM118 - it is no dict
            if not name.startswith(_TRAINING):
                validation.choice(file.get_slice(name).get_dtype(), f"the dtype of its {name}", [dtype])
                state[name] = file.get_tensor(name)
    return kind, state, config, metadata


def load_progress(path: Path) -> Progress | None:
    """What `save` was given to go on from, None for a model alone; use it within `refusing`."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
        if "training" not in header:
            return None
        record = json.loads(header["training"])
        validation.instance(record, "its training", dict)
        names = [name for name in file.keys() if name.startswith(_TRAINING)]  # noqa: SIM118 - it is no dict
        return Progress(record, {name.removeprefix(_TRAINING): file.get_tensor(name) for name in names})


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Whatever turns out to be wrong with a file's content is a ValueError that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is not an elman model: it has no {error}") from error
    except (
        SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} is not an elman model: {error}") from error


def stack_size(n_inputs: int, **config: Any) -> tuple[int, int]:
    """The number of parameters of a stack of layers, and of its outputs."""
    hidden = validation.positive_int(config["hidden_size"], "hidden_size")
    layers = validation.positive_int(config["num_layers"], "num_layers")
    directions = 2 if validation.flag(config["bidirectional"], "bidirectional") else 1
    n_states = directions * hidden
    upper = (layers - 1) * directions * hidden * (n_states + hidden + 1)
    return directions * hidden * (n_inputs + hidden + 1) + upper, n_states


def check_size(state: Mapping[str, Real], expected: int) -> None:
    """Refuse a configuration of a larger model than the file holds, before memory is allocated for it."""
    actual = sum(array.size for array in state.values())
    if expected != actual:
        raise ValueError(f"its configuration stands for {expected} parameters, it holds {actual}")
