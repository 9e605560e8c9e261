"""Model files: safetensors, with the configuration in its metadata. Nothing that is read is ever executed.

The entry "digest" is the BLAKE2b (32 bytes, in hex) of the whole file as it is with 64 zeros in its place. Older
files have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.storage import atomic
from elman.typing import Real

_FORMAT = "elman.{}/1"  # with the model's class
_ENTRIES = ("format", "config", "metadata", "training", "digest")
_TRAINING = "training:"  # before the names of arrays that are not the model's
_DTYPES = {"float32": "F32", "float64": "F64"}  # ours and the names that safetensors has for them
_BLANK = "0" * 64


class Checkpoint(NamedTuple):
    """How far a training has come: what JSON can hold, and arrays."""

    record: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class Saved(NamedTuple):
    """What is in a file."""

    kind: str  # the model's class
    parameters: dict[str, Real]
    config: dict[str, Any]
    metadata: dict[str, str]
    checkpoint: Checkpoint | None  # None for a model alone


def pieces(saved: Saved) -> tuple[bytes, memoryview]:
    """A file's content: up to the end of its header, and behind."""
    from safetensors.numpy import save as serialized  # only here: `import elman` does without it

    entries = {
        "format": _FORMAT.format(saved.kind),
        "config": json.dumps(saved.config),
        "metadata": json.dumps(dict(saved.metadata)),
    }
    arrays: dict[str, NDArray[Any]] = dict(saved.parameters)
    if saved.checkpoint is not None:
        entries["training"] = json.dumps(saved.checkpoint.record)
        arrays |= {_TRAINING + name: array for name, array in saved.checkpoint.arrays.items()}
    content = serialized({name: np.asarray(array, order="C") for name, array in arrays.items()}, entries)
    end = _end_of_header(content)
    header, data = json.loads(content[8:end]), memoryview(content)[end:]
    return _packed(header, _digest(_packed(header, _BLANK), data)), data


def load(path: Path, kinds: Iterable[str]) -> Saved:
    """What `pieces` was given; use it within `refusing`. A file is opened once, as others may replace it meanwhile."""
    from safetensors.numpy import load as arrays_of

    formats = {_FORMAT.format(kind): kind for kind in kinds}
    with atomic.open_to_read(path) as file:
        header = _read_header(file)
        entries = check.text_mapping(header.get("__metadata__") or {}, "its entries")
        kind = formats[check.choice(entries.get("format"), "its format", formats)]
        for name in entries:
            check.choice(name, "the name of each of its entries", _ENTRIES)
        file.seek(0)  # only now: a large file of another kind is not read
        content = file.read()
    if "digest" in entries:
        _check_digest(content, entries["digest"])
    config = check.instance(_from_json(entries["config"]), "its configuration", dict)
    metadata = check.text_mapping(_from_json(entries["metadata"]), "its metadata")
    dtype = _DTYPES[check.choice(config["dtype"], "its dtype", _DTYPES)]
    for name, described in header.items():
        if name != "__metadata__" and not name.startswith(_TRAINING):
            check.choice(described["dtype"], f"the dtype of its {name}", [dtype])
    arrays = arrays_of(content)
    parameters = {name: array for name, array in arrays.items() if not name.startswith(_TRAINING)}
    if "training" not in entries:
        check.same_names(arrays, parameters, "its arrays")
        return Saved(kind, parameters, config, metadata, None)
    record = check.instance(_from_json(entries["training"]), "its training", dict)
    own = {name.removeprefix(_TRAINING): array for name, array in arrays.items() if name.startswith(_TRAINING)}
    return Saved(kind, parameters, config, metadata, Checkpoint(record, own))


def as_read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values in the form in which they come back from a file."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def _from_json(text: str | bytes) -> Any:
    """What it stands for. Where a name comes twice, readers differ in which they take, so that is a ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            check.refuse(f"the name {next(name for name in names if names.count(name) > 1)!r} comes twice in it")
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        check.refuse("its JSON is nested too deeply")
    except json.JSONDecodeError as error:
        check.refuse(f"its JSON is damaged: {error}")


def _read_header(file: Any) -> dict[str, Any]:
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size <= os.fstat(file.fileno()).st_size - 8:
        check.refuse("it does not begin like a file of safetensors (ONNX's are for elman.onnx.load), or is truncated")
    return check.instance(_from_json(file.read(size)), "its header", dict)


def _end_of_header(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _packed(header: dict[str, Any], digest: str) -> bytes:
    """A file up to the end of its header. (Sorted, as safetensors writes it in another order each time.)"""
    header["__metadata__"]["digest"] = digest
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays are aligned
    return len(text).to_bytes(8, "little") + text


def _digest(header: bytes, data: memoryview) -> str:
    found = hashlib.blake2b(header, digest_size=32)
    found.update(data)
    return found.hexdigest()


def _check_digest(content: bytes, digest: str) -> None:
    """Refuse what is not what was written."""
    end = _end_of_header(content)
    header = content[:end].replace(f'"digest":"{digest}"'.encode(), f'"digest":"{_BLANK}"'.encode(), 1)
    if _digest(header, memoryview(content)[end:]) != digest:
        check.refuse("its content does not have the digest that stands in it: it has been damaged, or changed")


@contextlib.contextmanager
def refusing(path: Path, what: str = "not an elman model") -> Iterator[None]:
    """Whatever turns out to be wrong with a file's content is a ValueError that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is {what}: it has no {_one_line(error)}") from error
    except (
        SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} is {what}: {_one_line(error)}") from error


def _one_line(words: object, longest: int = 1000) -> str:
    """Words that may quote anything from a file."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(words)[: longest + 1])
    return text if len(text) <= longest else f"{text[:longest]}…"


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A configuration without dicts in it, under names such as "outputs.n"."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        is_nested = isinstance(value, dict) and value
        result |= flat(value, f"{before}{name}.") if is_nested else {before + name: value}
    return result


def check_size(parameters: Mapping[str, Real], expected: int) -> None:
    """Refuse a configuration of a larger model than the file holds, before memory is allocated for it."""
    actual = sum(array.size for array in parameters.values())
    if expected != actual:
        raise ValueError(f"its configuration stands for {expected} parameters, it holds {actual}")


def is_same(found: Any, expected: Any) -> bool:
    """In JSON, where 1, 1.0 and true are not."""
    try:
        return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
    except RecursionError:  # nothing of ours is nested so deeply
        return False
