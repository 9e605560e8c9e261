"""Model files: what is saved comes back, and nothing that a file may contain does any harm."""

import json
import os
import pickle
import stat
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import elman

from ..compare import assert_same_bits

H, V = 6, 3
METADATA = {"vocabulary": '["a", "b"]', "": "", "β": "line\nfeed, \0, \ud800 and 🙂"}


def make_model(**options: Any) -> elman.SequenceModel:
    options = {"hidden_size": H, "seed": 0} | options
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), **options)


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good file, without a digest, which would tell of every change before anything else does."""
    path = tmp_path_factory.mktemp("content") / "model.safetensors"
    make_model(num_layers=2).save(path)
    return with_metadata(path.read_bytes(), digest=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    (size,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def pack(header: Any, data: bytes) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def with_metadata(content: bytes, **changes: Any) -> bytes:
    """The same tensors under other metadata; None removes an entry."""
    header, data = unpack(content)
    metadata = header["__metadata__"] | changes
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    return pack(header, data)


def with_config(content: bytes, **changes: Any) -> bytes:
    """The same tensors under another configuration; ... removes an entry."""
    config = json.loads(unpack(content)[0]["__metadata__"]["config"]) | changes
    return with_metadata(content, config=json.dumps({key: v for key, v in config.items() if v is not ...}))


def with_tensor(content: bytes, name: str, **changes: Any) -> bytes:
    """The same bytes under another description of one tensor."""
    header, data = unpack(content)
    header[name] |= changes
    return pack(header, data)


def with_arrays(content: bytes, change: Callable[[dict[str, np.ndarray]], Any], path: Path) -> bytes:
    """The same metadata with other tensors."""
    path.write_bytes(content)
    state = load_file(path)
    change(state)
    save_file(state, path, unpack(content)[0]["__metadata__"])
    return path.read_bytes()


def refused(path: Path, content: bytes | None = None, reason: str = "") -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"is not an elman model: .*{reason}") as caught:
        elman.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not")
    assert len(message) < 5000
    assert "\n" not in message


# What is saved comes back


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3, "nonlinearity": "relu", "dropout": 0.25},
        {"num_layers": 2, "bidirectional": True, "nonlinearity": "sigmoid"},
        {"nonlinearity": "retanh"},
    ],
)
def test_round_trip(options: dict[str, Any], dtype: str, backend: str, path: Path, rng: np.random.Generator):
    model = make_model(**options, dtype=dtype, backend=backend)
    for array in model.parameters().values():
        array *= 10.0 ** rng.integers(-40, 35, array.shape)  # subnormal float32, too
    model.parameters()["weight_hh_l0"][:3, 0] = [
        sign * getattr(np.finfo(dtype), name) for sign, name in ((1, "max"), (-1, "max"), (1, "smallest_subnormal"))
    ]
    model.metadata = METADATA
    before = model.state_dict()
    model.save(path)
    assert_same_bits(model.parameters(), before)
    loaded = elman.load(str(path), backend=backend)
    assert type(loaded) is elman.SequenceModel
    assert_same_bits(loaded.parameters(), before)
    assert loaded.metadata == METADATA
    assert repr(loaded) == repr(model)
    assert loaded.rnn.dtype is model.rnn.dtype
    assert_same_bits(load_file(path), before)  # a safetensors file like any other, with the names of `parameters()`
    again = path.with_name("again.safetensors")
    loaded.save(again)
    assert unpack(again.read_bytes()) == unpack(path.read_bytes())


@pytest.mark.parametrize("backend", elman.available_backends())
def test_a_loaded_model_goes_on(backend: str, path: Path, rng: np.random.Generator):
    model = make_model(num_layers=2, backend=backend)
    x, y = rng.integers(0, V, (2, 9, 4))
    model.train_step(x, y, optimizer=elman.Adam(0.01))
    model.save(path)
    loaded = elman.load(path, backend=backend)
    assert np.array_equal(loaded.generate([0], 20, seed=3), model.generate([0], 20, seed=3))
    losses = []
    for either in (model, loaded):
        optimizer = elman.Adam(0.01)
        losses.append([either.train_step(x, y, optimizer=optimizer) for _ in range(3)])
    assert losses[0] == losses[1]
    assert_same_bits(loaded.parameters(), model.parameters())
    for array in loaded.parameters().values():
        array[...] = 0
    assert not any(array.any() for array in loaded.rnn.parameters().values()), "the loaded arrays are live"


def test_metadata_are_text(path: Path):
    model = make_model()
    model.save(path)
    before = path.read_bytes()
    for wrong in ({"a": 1}, {1: "a"}, ["a"], None, "text"):
        with pytest.raises(TypeError, match=r"^metadata must be a dict from str to str, got "):
            model.metadata = wrong
        model.__dict__["metadata"] = wrong  # as by a change within it
        with pytest.raises(TypeError, match=r"^metadata must be a dict from str to str, got "):
            model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# A file appears whole or not at all


@pytest.mark.parametrize("function", ["os.replace", "os.fsync", "safetensors.numpy.save"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_failing_save_leaves_what_was_there(
    is_there: bool, error: BaseException, function: str, path: Path, monkeypatch: pytest.MonkeyPatch
):
    if is_there:
        make_model(seed=1).save(path)
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(function, fail)
    with pytest.raises(type(error)):
        make_model(seed=2).save(path)
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == before
    monkeypatch.undo()
    make_model(seed=2).save(path)
    assert_same_bits(elman.load(path).parameters(), make_model(seed=2).parameters())
    assert os.listdir(path.parent) == [path.name]


def test_until_the_end_there_is_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    make_model(seed=1).save(path)
    before, replace = path.read_bytes(), os.replace
    seen = []

    def look_first(source: Any, target: Any) -> None:
        seen.append((path.read_bytes(), Path(source).parent, Path(source).stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_first)
    make_model(seed=2).save(path)
    assert seen == [(before, path.parent, len(before))]
    assert path.read_bytes() != before


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file(path: Path):
    make_model().save(path)
    other = path.with_name("other")
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_where_nothing_can_be_written(tmp_path: Path):
    for target, error in ((tmp_path / "missing" / "model", FileNotFoundError), (tmp_path, OSError)):
        with pytest.raises(error):
            make_model().save(target)
    for wrong in (3, None, b"bytes", ["model"]):
        with pytest.raises(TypeError, match=r"^path must be a str or a path, got "):
            make_model().save(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^path must be a str or a path, got "):
            elman.load(wrong)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
    assert not list(tmp_path.parent.glob(".elman*"))


# What is not a model


def test_what_cannot_be_read(tmp_path: Path, path: Path, content: bytes):
    with pytest.raises(FileNotFoundError):
        elman.load(path)
    with pytest.raises(OSError, match="directory"):
        elman.load(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^backend must be one of .*, got 'fortran'"):
        elman.load(path, backend="fortran")
    with pytest.raises(TypeError, match=r"^backend must be one of .*, got 1"):
        elman.load(path, backend=1)  # type: ignore[arg-type]
    elman.load(path)


# The digest


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(path: Path):
    import hashlib

    make_model().save(path)
    content = path.read_bytes()
    digest = unpack(content)[0]["__metadata__"]["digest"]
    assert content.count(digest.encode()) == 1
    assert hashlib.blake2b(content.replace(digest.encode(), b"0" * 64), digest_size=32).hexdigest() == digest
    make_model().save(path)
    assert path.read_bytes() == content, "the same model is the same file"


def test_each_bit_counts(path: Path):
    """Of a whole file: each that is flipped, each end that is cut off, and whatever is put behind."""
    small = elman.SequenceModel(elman.Tokens(1), elman.Categories(1), hidden_size=1, seed=0)
    options: dict[str, Any] = {"checkpoint": path, "callbacks": [elman.EarlyStopping("loss")], "progress": False}
    small.fit([[0, 0]], [[0, 0]], epochs=1, **options)
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for i in range(8 * len(content)):
            changed = content[i // 8] ^ (1 << i % 8)
            for byte in (changed, content[i // 8]):
                file.seek(i // 8)
                file.write(bytes([byte]))
                if byte == changed:
                    refused(path)
        elman.load(path)
        for n in range(len(content) - 1, -1, -1):
            file.truncate(n)
            refused(path)
    refused(path, content + b"\0")


def test_each_bit_counts_for_a_run_that_goes_on(path: Path):
    options: dict[str, Any] = {"epochs": 1, "checkpoint": path, "progress": False}
    model = make_model()
    model.fit([[0, 1]], [[1, 2]], **options)
    content, before = path.read_bytes(), model.state_dict()
    for i in range(0, 8 * len(content), 401):
        changed = bytearray(content)
        changed[i // 8] ^= 1 << i % 8
        path.write_bytes(changed)
        optimizer = elman.Adam(1e-3)
        with pytest.raises(ValueError, match=f"^{path} is no checkpoint that this run can go on from: "):
            model.fit([[0, 1]], [[1, 2]], optimizer=optimizer, resume=True, **options)
        assert optimizer.steps == 0
        assert path.read_bytes() == changed
    assert_same_bits(model.parameters(), before)


def test_what_is_changed_without_a_new_digest_is_refused(content: bytes, path: Path):
    make_model(num_layers=2).save(path)
    signed = path.read_bytes()
    header, data = unpack(signed)
    reason = "has been damaged, or changed"
    refused(path, pack(json.dumps(header).encode(), data), reason)  # no harm, but not the same bytes
    refused(path, with_metadata(signed, metadata='{"by": "another"}'), reason)
    for digest in ("", "0" * 64, "x", header["__metadata__"]["digest"].upper()):
        refused(path, with_metadata(content, digest=digest), reason)
    refused(path, with_metadata(content, diges="0" * 64), "the name of each of its entries must be one of")
    path.write_bytes(content)
    elman.load(path)


@pytest.mark.parametrize("i", range(31))
def test_truncated(i: int, content: bytes, path: Path):
    refused(path, content[: len(content) * i // 31])
    refused(path, content[: len(content) - 1 - i])


def test_bytes_of_all_kinds(content: bytes, path: Path, rng: np.random.Generator):
    refused(path, b"")
    refused(path, content + b"\0")
    refused(path, content[1:])
    refused(path, b"PK\3\4" + content)
    refused(path, b"#!/bin/sh\necho a script, no model\n" * 100)
    for size in (2**64 - 1, 2**63, 2**40, len(content) - 7):
        refused(path, struct.pack("<Q", size) + content[8:])
    for n in (1, 7, 8, 9, 100, 10_000):
        refused(path, rng.bytes(n))
    refused(path, pack(b"[" * 100_000, b""))
    refused(path, pack(b'{"a":' * 100_000, b""))
    refused(path, pack(b'{"__metadata__":{},"__metadata__":{}}', b""), "comes twice")
    refused(path, pack(b"{}", b""))
    refused(path, pack(b'"text"', b""))


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_a_pickle_is_not_executed(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    refused(path, pickle.dumps(make_model()))
    refused(path, pickle.dumps(Pickled()))
    refused(path, pickle.dumps(Pickled(), protocol=0))
    assert not Path("harm").exists()


def test_a_file_of_another_program(path: Path):
    for metadata in (None, {"format": "pt"}, {"config": "{}", "metadata": "{}"}):
        save_file({"weight": np.ones((3, 4), np.float32)}, path, metadata)
        refused(path, reason="its format must be one of 'elman.SequenceModel/1', 'elman.Seq2Seq/1', got ")


METADATA_ENTRIES = [
    ({"format": "elman.SequenceModel/2"}, "its format must be one of"),
    ({"format": "x" * 100_000}, "its format must be one of"),
    ({"config": None}, "it has no 'config'"),
    ({"metadata": None}, "it has no 'metadata'"),
    ({"config": ""}, "Expecting value"),
    ({"config": "{'hidden_size': 6}"}, "Expecting property name"),
    ({"config": "[" * 100_000}, ""),
    ({"config": '{"a":' * 100_000}, ""),
    ({"config": "[]"}, "its configuration must be"),
    ({"config": "null"}, "its configuration must be"),
    ({"config": '"inputs"'}, "its configuration must be"),
    ({"config": "{}"}, "it has no "),
    ({"metadata": "no JSON"}, "Expecting value"),
    ({"metadata": "[" * 100_000}, ""),
    ({"metadata": "null"}, "its metadata must be a dict from str to str, got None"),
    ({"metadata": '["a"]'}, "its metadata must be a dict from str to str"),
    ({"metadata": '{"a": 1}'}, "its metadata must be a dict from str to str"),
    ({"metadata": '{"a": "b", "a": "c"}'}, "the name 'a' comes twice in it"),
    ({"config": '{"dtype": "float32", "hidden_size": 6, "hidden_size": 7}'}, "the name 'hidden_size' comes twice"),
    ({"unknown": "text"}, "the name of each of its entries must be one of 'format', "),
    ({"metadata": '{"a": {"b": "c"}}'}, "its metadata must be a dict from str to str"),
    ({"format": 1}, ""),  # what the format of safetensors itself forbids
    ({"more": ["a"]}, ""),
    ({"config": {"hidden_size": H}}, ""),
]


@pytest.mark.parametrize(("changes", "reason"), METADATA_ENTRIES, ids=lambda value: str(value)[:60])
def test_metadata_of_the_wrong_kind(changes: dict[str, Any], reason: str, content: bytes, path: Path):
    refused(path, with_metadata(content, **changes), reason)


NO_SIZES = [0, -1, -(10**12), True, False, None, 6.0, 1e400, "6", [6], {"n": 6}]
LARGE_SIZES = [10**12, 2**62, 10**30, 10**3000]
KINDS = {"inputs": "Tokens", "outputs": "Categories"}
CONFIGURATIONS = [
    *[({name: n}, f"{name} must be a positive int") for name in ("hidden_size", "num_layers") for n in NO_SIZES],
    *[({name: n}, "") for name in ("hidden_size", "num_layers") for n in LARGE_SIZES],
    *[({name: {"kind": kind, "n": n}}, "n must be a positive int") for name, kind in KINDS.items() for n in NO_SIZES],
    *[({name: {"kind": kind, "n": n}}, "stands for") for name, kind in KINDS.items() for n in (V + 1, 10**9)],
    *[
        ({name: {"kind": kind, "n": n}}, "n must be a positive int below")
        for name, kind in KINDS.items()
        for n in LARGE_SIZES
    ],
    *[({name: {"kind": "Sounds", "n": V}}, f"the kind of its {name} must be one of '{KINDS[name]}'") for name in KINDS],
    *[
        ({name: {"kind": kind, "n": V, "more": 1}}, "unexpected keyword argument 'more'")
        for name, kind in KINDS.items()
    ],
    *[({name: {"kind": kind}}, "n must be a positive int, got None") for name, kind in KINDS.items()],
    *[({name: {"n": V}}, "it has no 'kind'") for name in KINDS],
    *[({name: {"kind": ["Tokens"], "n": V}}, "") for name in KINDS],
    *[({name: value}, "") for name in KINDS for value in (None, V, "Tokens", ["Tokens", V], {})],
    *[({name: ...}, f"it has no '{name}'") for name in ("hidden_size", "num_layers", "bidirectional", "dtype", *KINDS)],
    ({"hidden_size": 10**12}, r"stands for \d+ parameters, it holds 159"),
    ({"hidden_size": 10**6, "num_layers": -(10**6)}, "num_layers must be a positive int"),
    ({"num_layers": 3}, "stands for 237 parameters, it holds 159"),
    ({"bidirectional": True}, r"stands for \d+ parameters, it holds 159"),
    ({"bidirectional": 0}, "bidirectional must be True or False, got 0"),
    ({"bidirectional": "no"}, "bidirectional must be True or False, got 'no'"),
    ({"nonlinearity": "__import__('os')"}, "nonlinearity must be one of"),
    ({"nonlinearity": ["tanh"]}, "nonlinearity must be one of"),
    ({"pattern": "some-to-some"}, "pattern must be one of"),
    ({"pattern": 3}, "pattern must be one of"),
    ({"dropout": -0.5}, "dropout must be a number from 0 to 1"),
    ({"dropout": float("nan")}, "dropout must be a number from 0 to 1"),
    ({"dropout": 10**400}, "dropout must be a number from 0 to 1"),
    ({"recurrent_dropout": 1.0}, "recurrent_dropout must be a number from 0 to 1, exclusive, got 1.0"),
    ({"dropout": None}, "dropout must be a number from 0 to 1"),
    ({"dtype": "float64"}, "the dtype of its .* must be one of 'F64', got 'F32'"),
    ({"dtype": "float16"}, "its dtype must be one of"),
    ({"dtype": 3}, "its dtype must be one of"),
    ({"backend": "numpy"}, "backend"),  # what is not for a file to choose
    ({"seed": 10}, "seed"),
    ({"self": 1}, "self"),
    ({"state": {}}, "state"),
    ({"extra": 1}, "extra"),
    ({"extra": {}}, "extra"),
    ({"": 1}, ""),
]


@pytest.mark.parametrize(("changes", "reason"), CONFIGURATIONS, ids=lambda value: str(value)[:60])
def test_configuration_that_is_none(changes: dict[str, Any], reason: str, content: bytes, path: Path):
    refused(path, with_config(content, **changes), reason)


def test_large_sizes_take_no_memory(content: bytes, path: Path):
    refused(path, with_config(content, hidden_size=10**12))  # imports what it needs
    tracemalloc.start()
    for changes in (
        {"hidden_size": 10**6},
        {"hidden_size": 10**6, "num_layers": 10**6},
        {"num_layers": 10**9},
        {"inputs": {"kind": "Tokens", "n": 10**9}},
        {"outputs": {"kind": "Categories", "n": 10**9}},
    ):
        refused(path, with_config(content, **changes), r"stands for \d+ parameters")
    header, _ = unpack(content)
    header["bias_o"] = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
    refused(path, pack(header, b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


TENSORS: list[tuple[Callable[[dict[str, np.ndarray]], Any], str]] = [
    (lambda state: state.clear(), "159 parameters, it holds 0"),
    (lambda state: state.pop("bias_o"), "159 parameters, it holds 156"),
    (lambda state: state.update(extra=np.ones(1, np.float32)), "159 parameters, it holds 160"),
    (lambda state: state.update(extra=state.pop("bias_o")), r"missing \['bias_o'\], unexpected \['extra'\]"),
    (lambda state: state.update(extra=np.ones((0, 3), np.float32)), r"missing \[\], unexpected \['extra'\]"),
    (
        lambda state: state.update(weight_ih_l0=state["weight_ih_l0"].T.copy()),
        r"weight_ih_l0 must have shape \(6, 3\), got \(3, 6\)",
    ),
    (
        lambda state: state.update(bias_o=state["bias_o"].reshape(3, 1)),
        r"bias_o must have shape \(3,\), got \(3, 1\)",
    ),
    (
        lambda state: state.update(bias_l0=state["bias_o"], bias_o=state["bias_l0"]),
        r"bias_l0 must have shape \(6,\), got \(3,\)",
    ),
    *[
        (
            lambda state, dtype=dtype: state.update(bias_o=state["bias_o"].astype(dtype)),
            f"the dtype of its bias_o must be one of 'F32', got '{name}'",
        )
        for dtype, name in (("f8", "F64"), ("f2", "F16"), ("i1", "I8"), ("i4", "I32"), ("u8", "U64"), ("?", "BOOL"))
    ],
]


@pytest.mark.parametrize(("change", "reason"), TENSORS)
def test_tensors_that_do_not_fit(change: Any, reason: str, content: bytes, path: Path):
    refused(path, with_arrays(content, change, path), reason)


@pytest.mark.parametrize(
    "name", ["I32", "U32", "C64", "BF16", "F16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I1", 7, None]
)
def test_dtypes_that_numpy_may_not_have(name: Any, content: bytes, path: Path):
    header, _ = unpack(content)
    n_bytes = {"C64": 8, "BF16": 2, "F16": 2, "F4": 0.5, "I1": 1}.get(name, 1 if str(name).startswith("F8") else 4)
    shape = [int(12 / n_bytes)]  # of the 3 float32 of the last one
    assert header["bias_o"]["shape"] == [3]
    refused(path, with_tensor(content, "bias_o", dtype=name, shape=shape))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [4]},
        {"shape": [-3]},
        {"shape": [2**63, 2**63]},
        {"shape": "3"},
        {"shape": None},
        {"data_offsets": [0, 12]},
        {"data_offsets": [12, 0]},
        {"data_offsets": [-12, 0]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": []},
    ],
    ids=str,
)
def test_descriptions_that_contradict_the_data(changes: dict[str, Any], content: bytes, path: Path):
    refused(path, with_tensor(content, "bias_o", **changes))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=4))
@example(flips=[(0, 1)])
@example(flips=[(7, 128)])
def test_flipped_bytes(flips: list[tuple[int, int]], content: bytes, tmp_path_factory: pytest.TempPathFactory):
    """A model or a ValueError, whatever the damage."""
    changed = bytearray(content)
    for position, value in flips:
        changed[position % len(content)] ^= value
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(changed)
    try:
        with np.errstate(invalid="ignore"):  # of signalling NaN
            model = elman.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is not an elman model: ")  # noqa: PT017
    else:
        with np.errstate(all="ignore"):
            assert model.loss([[0], [1]], [[1], [2]]) is not None
