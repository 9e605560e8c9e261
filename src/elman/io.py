"""Model files: safetensors, with the configuration in its metadata. Nothing that is read is ever executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from elman import validation
from elman.typing import Real

_FORMAT = "elman.SequenceModel/1"


def save(path: str | Path, state: Mapping[str, Real], config: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write atomically: what `path` names is the old file or the whole new one, never a part of it."""
    from safetensors.numpy import save as to_bytes  # only here: `import elman` does without it

    validation.text_mapping(metadata, "metadata")
    header = {"format": _FORMAT, "config": json.dumps(config), "metadata": json.dumps(dict(metadata))}
    content = to_bytes({name: np.ascontiguousarray(array) for name, array in state.items()}, header)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[dict[str, Real], dict[str, Any], dict[str, str]]:
    """The parameters, configuration and metadata of a file that `save` wrote; ValueError if it is none."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with path.open("rb"):  # the usual OSError where there is no file to read
        pass
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise ValueError(f"expected the format {_FORMAT}, got {header.get('format')!r}")
            config, metadata = json.loads(header["config"]), json.loads(header["metadata"])
            if not isinstance(config, dict):
                raise ValueError("its configuration is not an object")
            validation.text_mapping(metadata, "metadata")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not an elman model: {error}") from error
    return state, config, metadata


def check_size(state: Mapping[str, Real], n_inputs: int, n_outputs: int, **config: Any) -> None:
    """Refuse a configuration of a larger model than the file holds, before memory is allocated for it."""
    hidden, layers = config.get("hidden_size"), config.get("num_layers")
    directions = 2 if config.get("bidirectional") else 1
    if not isinstance(hidden, int) or not isinstance(layers, int):
        raise ValueError("hidden_size and num_layers must be ints")
    n_states = directions * hidden
    upper = (layers - 1) * directions * hidden * (n_states + hidden + 1)
    expected = directions * hidden * (n_inputs + hidden + 1) + upper + n_outputs * (n_states + 1)
    actual = sum(array.size for array in state.values())
    if expected != actual:
        raise ValueError(f"its configuration stands for {expected} parameters, it holds {actual}")
