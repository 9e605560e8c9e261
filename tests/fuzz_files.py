"""Damaged and hostile model files and checkpoints: each must be read as what it says, or be refused in one way.

    python tests/fuzz_files.py SEED SECONDS [--inputs N] [--only CASE]

An input is a small good file with one to three mutations, which know of its structure, drawn from [SEED, number of the
case] and nothing else, so `--only` repeats it, and shows them. Mutations are made without the digest that a file has of
itself, or all would end there; every eighth case damages a file with its digest, which must be noticed.

`elman.load` returns a model that is what its configuration says, and finite, or raises a ValueError whose message
begins with the path, is one line and not long. `fit` with `resume=True` goes on with finite numbers, or raises such a
ValueError and has changed nothing. All else is a finding: another error, a warning, a panic,
names twice in what was believed, more than a second, more than 100 MB. Numbers that are not finite are none if
parameters, memories, states or settings of the optimizer are huge, or its eps is 0.

If the process dies, the temporary directory that it leaves behind holds the file.
"""

import argparse
import collections
import contextlib
import copy
import faulthandler
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import elman
from elman import text
from elman.models.base import network_of

SHARED = "/dev/shm"  # memory, where there is such a thing
MOST_SECONDS, MOST_BYTES, MOST_CHARACTERS = 1.0, 100 << 20, 5000  # of an input; of the message about it
DTYPES = {"F16": "f2", "F32": "f4", "F64": "f8", "I8": "i1", "I32": "i4", "I64": "i8", "U64": "u8", "BOOL": "?"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

# JSON that Python would not write, under names that it does
AGAIN = "(again)"  # behind a key: it comes twice
RAW = {
    "(deep)": "[" * 100_000 + "]" * 100_000,
    "(deeper)": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "(shallow)": "[" * 500 + "]" * 500,
    "(open)": "[" * 100_000,
    "(list)": f"[{'0, ' * 10_000}0]",
    "(digits)": "9" * 5000,
    "(1e400)": "1e400",
    "(nothing)": "",
}
AWKWARD_NUMBERS: list[Any] = [
    *(True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**128, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1.0, 2.5, -3.5, 5e-324, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf")),
]
AWKWARD: list[Any] = [
    *(None, *AWKWARD_NUMBERS),
    *("", "x", "a\nb", "\0", "\ud800", "β", "x" * 10_000, [], {}, [[]], {"": {}}, [1, 2], {"x" * 9000: 1}),
    *("float16", "float32", "float64", "Tokens", "Features", "Columns"),
    *("Categories", "Binary", "Reals", "PCG64", "MT19937"),
    *("relu", "tanh", "many-to-one", "one-to-many", "elman.SequenceModel/1", "elman.Seq2Seq/1", "elman.Tagger/1"),
    *("BF16", "F8_E4M3", "F4", *DTYPES, *RAW),
]
KEYS = ["", "a\nb", "x" * 10_000, "self", "cls", "seed", "backend", "state", "kind", "n", "class_weights", "dtype"]
KEYS += ["initialization", "spectral_radius", "learn_h_0", "config", "digest", "parameters", "best"]
KEYS += ["labels", "unknown", "embedding", "embedding_0", "embedding_dim", "parts", "tied"]
KEYS += ["training:state", "training:optimizer.0", "training:callback.0.best", "training:\n", "bias_ih_l0", "x\ny"]
SIGNALLING = {2: 0x7C01, 4: 0x7F800001, 8: 0x7FF0000000000001}
NUMBERS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, 1e-320, 1e30, -1e38, 1e300, -1e300]


# Good files, and the runs that they are of


class StopAt(elman.Callback):
    def __init__(self, step: int | None = None) -> None:
        self.step = step

    def on_step(self, training: Any) -> None:
        if training.steps == self.step:
            raise InterruptedError


class Fit:
    """A run of `fit`, begun with `stop_at`, to go on again without."""

    def __init__(self, model: Any, optimizer: Any, callbacks: list[Any], *data: Any, **options: Any) -> None:
        self.model, self.optimizer, self.callbacks, self.data, self.options = model, optimizer, callbacks, data, options

    def go(self, path: Path, stop_at: int | None = None) -> list[float]:
        options = self.options | ({"checkpoint_every": 1} if stop_at else {"resume": True})
        callbacks = [*self.callbacks, StopAt(stop_at)]
        shared = {"optimizer": self.optimizer, "callbacks": callbacks, "checkpoint": path, "progress": False}
        return [value for values in self.model.fit(*self.data, **shared, **options).values() for value in values]

    def more(self) -> list[Any]:
        return [callback.state() for callback in self.callbacks]


class Untimed(text.Recorder):
    """Files do not depend on how fast this is."""

    def on_step(self, training: Any) -> None:
        super().on_step(training)
        self.seconds = 0.5


class Text:
    """A run of `elman.text.train`, as `elman train` makes it."""

    def __init__(self) -> None:
        self.model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=2, seed=5, backend="cython")
        self.optimizer, self.tokens = elman.Adam(0.01), np.arange(60) * 7 % 11 % 3
        self.recorder = Untimed(self.tokens[:20].reshape(4, 5), steps=5)

    def go(self, path: Path, stop_at: int | None = None) -> list[float]:
        options: dict[str, Any] = {"checkpoint_every": 1} if stop_at else {"resume": True}
        options |= {"optimizer": self.optimizer, "callbacks": [self.recorder, StopAt(stop_at)], "checkpoint": path}
        text.train(self.model, self.tokens, steps=5, batch_size=2, sequence_length=3, **options)
        return [*self.recorder.losses, *self.recorder.validation_losses.values()]

    def more(self) -> list[Any]:
        return [self.recorder.losses, self.recorder.validation_losses, self.recorder.seconds]


def tokens_model(**options: Any) -> elman.SequenceModel:
    outputs = elman.Categories(2, class_weights=[1.0, 2.5])
    return elman.SequenceModel(elman.Tokens(3), outputs, hidden_size=2, backend="cython", seed=1, **options)


def features_model(**options: Any) -> elman.SequenceModel:
    options |= {"hidden_size": 3, "dtype": "float64", "backend": "cython", "seed": 2}
    return elman.SequenceModel(elman.Features(2), elman.Reals(1), **options)


def columns_model() -> elman.SequenceModel:
    inputs = elman.Columns(elman.Tokens(3, embedding_dim=2), elman.Features(1), elman.Tokens(2))
    return elman.SequenceModel(inputs, elman.Binary(), hidden_size=2, backend="cython", seed=4)


def tied_model() -> elman.SequenceModel:
    options = {"hidden_size": 2, "tied": True, "backend": "cython", "seed": 5}
    return elman.SequenceModel(elman.Tokens(4, embedding_dim=2), elman.Categories(4), **options)


def labelled_model() -> elman.SequenceModel:
    inputs, outputs = elman.Tokens(4, labels=["a", 3, "β"], unknown="?"), elman.Categories(3, labels=[True, False])
    return elman.SequenceModel(inputs, outputs, hidden_size=2, backend="cython", seed=6)


def translator(**options: Any) -> elman.Seq2Seq:
    inputs, outputs = elman.Tokens(2), elman.Categories(2)
    return elman.Seq2Seq(inputs, outputs, hidden_size=2, bidirectional=True, backend="cython", seed=3, **options)


def by_windows() -> Fit:
    data = [[0, 1, 2, 0, 1], [1, 2, 0, 2], [2, 2]], [[0, 1, 0, 0, 1], [1, 1, 0, 1], [0, 0]]
    options = {"tbptt": (2, 2), "batch_size": 2, "epochs": 2, "validation_data": data}
    model, stopping = tokens_model(dropout=0.25, num_layers=2), elman.EarlyStopping(patience=3)
    return Fit(model, elman.Adam(0.01), [stopping], *data, **options)


def by_epochs() -> Fit:
    x = np.linspace(-1, 1, 12).reshape(3, 2, 2)
    model = features_model(learn_h_0=True, pattern="many-to-one")
    return Fit(model, elman.SGD(0.01, momentum=0.5), [], x, x[:, :1, 0], epochs=3, batch_size=2, clip_norm=1.0)


def by_pairs() -> Fit:
    return Fit(translator(), elman.Adagrad(0.1), [], [[0, 1], [1], [1, 1]], [[1], [0, 0], []], epochs=2, batch_size=2)


class Good(NamedTuple):
    content: bytes
    is_signed: bool
    file: "File"
    begin: Callable[[], Any] | None = None  # a run that it is a checkpoint of


def good(content: bytes, begin: Callable[[], Any] | None = None) -> Good:
    return Good(content, "digest" in unpack(content)[0]["__metadata__"], File.of(content), begin)


def good_files(path: Path) -> list[Good]:
    files = []
    many = {"num_layers": 2, "dropout": 0.25, "learn_h_0": True}
    plain = tokens_model(), features_model(bidirectional=True, learn_h_0=True), translator(**many)
    for model in (*plain, columns_model(), tied_model(), labelled_model()):
        model.metadata = {"vocabulary": '["a", "b"]', "β": ""}
        model.save(path)
        files.append(good(path.read_bytes()))
    for begin, stop_at in ((by_windows, 7), (by_epochs, 3), (by_pairs, 2), (Text, 3)):
        with contextlib.suppress(InterruptedError):
            begin().go(path, stop_at)
        files.append(good(path.read_bytes(), begin))
    return files


# Mutations: each changes what it gets, and says what it did


class File(NamedTuple):
    """A good file, taken apart; of JSON in its metadata, the text."""

    metadata: dict[str, str]
    arrays: dict[str, Any]

    @classmethod
    def of(cls, content: bytes) -> "File":
        header, data = unpack(content)
        metadata = {key: text for key, text in sorted(header.pop("__metadata__").items()) if key != "digest"}
        arrays = {}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            arrays[name] = np.frombuffer(data[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        return cls(metadata, arrays)

    def header(self) -> tuple[dict[str, Any], bytes]:
        header: dict[str, Any] = {"__metadata__": self.metadata}
        contents, end = [array.tobytes() for array in self.arrays.values()], 0
        for (name, array), content in zip(self.arrays.items(), contents, strict=True):
            start, end = end, end + len(content)
            header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
        return header, b"".join(contents)


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def dumps(tree: Any) -> str:
    text = json.dumps(tree)
    if "(" in text:
        for name, raw in RAW.items():
            text = text.replace(f'"{name}"', raw)
        text = text.replace(AGAIN, "")
    return text


def mutated(rng: random.Random, good: File, donor: File) -> tuple[bytes, list[str]]:
    """The file with one to three changes, and what they are."""
    stages = rng.choices(range(4), [3, 5, 2, 1], k=rng.choice([1, 1, 1, 2, 3]))
    file = File(good.metadata.copy(), good.arrays.copy())
    done = [change_arrays(rng, file.arrays, donor.arrays) for _ in range(stages.count(0))]
    done += [change_metadata(rng, file.metadata, donor.metadata) for _ in range(stages.count(1))]
    header, data = file.header()
    done += [f"header: {change_tree(rng, header)}" for _ in range(stages.count(2))]
    encoded = dumps(header).encode()
    content = struct.pack("<Q", len(encoded)) + encoded + data
    for _ in range(stages.count(3)):
        content, what = damaged(rng, content)
        done.append(what)
    return content, done


def change_metadata(rng: random.Random, metadata: dict[str, str], others: dict[str, str]) -> str:
    """A change in what JSON in the metadata stands for."""
    name = rng.choice([name for name in metadata if name != "format"] or ["format"])
    if name in others and rng.random() < 0.05:
        metadata[name] = others[name]
        return f"{name} of another file"
    try:
        tree = {name: json.loads(metadata[name])}
    except (ValueError, RecursionError):  # after an earlier change
        tree = {name: None}
    what = change_tree(rng, tree)
    metadata |= {key.removesuffix(AGAIN): dumps(value) for key, value in tree.items()}
    if name not in tree:
        del metadata[name]
    return what


def change_arrays(rng: random.Random, arrays: dict[str, Any], others: dict[str, Any]) -> str:
    """Something that is a safetensors file all the same."""
    name = rng.choice([*arrays] or [""])
    array, how = arrays.get(name, np.zeros((2, 1))), rng.choice(["value", "value", "shape", "dtype", "name", "all"])
    if how == "value" and array.size and array.dtype.kind == "f":
        value, where = rng.choice([*NUMBERS, "signalling"]), rng.choice([rng.randrange(array.size), slice(None)])
        arrays[name] = array = array.copy()
        with np.errstate(all="ignore"):
            if value == "signalling":  # NaN, at whose conversion the processor raises a flag
                array.reshape(-1).view(f"u{array.itemsize}")[where] = SIGNALLING[array.itemsize]
            else:
                array.reshape(-1)[where] = value
        return f"{name}: {value} at {where}"
    if how == "dtype":
        dtype = rng.choice([*DTYPES.values()])
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(dtype)
        return f"{name}: as {dtype}"
    if how == "name":
        other = rng.choice([*arrays, *others, *KEYS])
        arrays[name], arrays[other] = arrays.get(other, array), array
        if rng.random() < 0.5:
            del arrays[name]
        return f"{name:.40}: becomes {other!r:.40}"
    if how == "all":
        pick = rng.choice([np.transpose, np.ravel, np.atleast_3d, lambda a: a[..., :0], None])
        arrays |= others if pick is None else {name: pick(array) for name, array in arrays.items()}
        return f"all arrays: {getattr(pick, '__name__', 'another file')}"
    flat = array.reshape(-1)
    arrays[name] = rng.choice([array.T, flat, array[None], array[..., None], array[:0], flat[:1], np.repeat(flat, 3)])
    if rng.random() < 0.1:
        arrays[name] = arrays[name].reshape(arrays[name].shape + (1,) * 40)  # more than NumPy's 64 if done twice
    return f"{name}: of shape {arrays[name].shape}, not {array.shape}"


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """All that can be replaced: what it is in, and the keys that lead to it."""
    for key in range(len(tree)) if isinstance(tree, list) else [*tree] if isinstance(tree, dict) else ():
        yield tree, (*at, key)
        if isinstance(tree[key], (list, dict)):
            yield from places(tree[key], (*at, key))


def change_tree(rng: random.Random, tree: dict[str, Any]) -> str:
    nodes = [*places(tree)]
    (parent, (*_, key)), (other, (*_, other_key)) = where, elsewhere = rng.choice(nodes), rng.choice(nodes)
    where, elsewhere = (".".join(f"{key:.40}" for key in map(str, place[1])) for place in (where, elsewhere))
    value, how = parent[key], rng.choice(["awkward", "any", "nudge", "copy", "swap", "remove", "key", "twice", "size"])
    if how == "nudge" and isinstance(value, (int, float)) and abs(value) < 1e300:
        nudged = [value + 1, value - 1, -value, float(value), value * 2, value + 0.5, -value - 1, str(value), [value]]
        parent[key] = rng.choice(nudged)
        return f"{where}: {value!r:.40} becomes {parent[key]!r:.40}"
    if how == "copy":
        parent[key] = copy.deepcopy(other[other_key])
        return f"{where}: becomes that of {elsewhere}"
    if how == "swap":
        parent[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(value)
        return f"{where}: swapped with {elsewhere}"
    if how == "remove":
        del parent[key]
        return f"{where}: removed"
    if how in ("key", "twice") and isinstance(parent, dict):
        new = key + AGAIN if how == "twice" else rng.choice([*KEYS, *parent])
        parent[new] = copy.deepcopy(rng.choice([value, value, rng.choice(AWKWARD)]))
        if how == "key" and rng.random() < 0.5:
            parent.pop(key)
        return f"{where}: also, or now, as {new!r:.40}: {parent.get(new)!r:.40}"
    if how == "size" and isinstance(value, list) and value:
        parent[key] = rng.choice([value[:-1], value[1:], [*value, value[-1]], value * 2, value * 1000])
        return f"{where}: {len(parent[key])} items, not {len(value)}"
    is_alike = how == "awkward" and isinstance(value, (int, float))
    parent[key] = copy.deepcopy(rng.choice(AWKWARD_NUMBERS if is_alike else AWKWARD))
    return f"{where}: {value!r:.40} becomes {parent[key]!r:.40}"


def damaged(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    i, how = rng.randrange(len(content)), rng.choice(["bit", "bit", "cut", "insert", "remove", "more"])
    where = f"byte {i}, after {content[max(0, i - 16) : i]!r}"  # the order in the metadata is not always the same
    if how == "bit":
        bit = rng.randrange(8)
        return content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :], f"bit {bit} flipped of {where}"
    if how == "cut":
        return content[:i], f"cut before {where}"
    if how == "remove":
        return content[:i] + content[i + 1 :], f"without {where}"
    i, more = (len(content) if how == "more" else i), rng.choice([b"\0", b" ", b"}", content[i:][:8], content])
    return content[:i] + more + content[i:], f"{more!r:.40} {'at the end' if how == 'more' else 'before ' + where}"


# What must be so


class Finding(Exception):
    """What is wrong, in a few words that are the same for the same mistake."""


class Hang(BaseException):
    """More than ten seconds."""


def refused(error: ValueError, path: Path, *, is_first: bool) -> None:
    message = str(error)
    if str(path) not in message or (is_first and not message.startswith(str(path))):
        raise Finding(f"a ValueError that does not name the file, from {place_of(error)}") from error
    if "\n" in message or len(message) >= MOST_CHARACTERS:
        what = "of more than one line" if "\n" in message else "that is too long"
        raise Finding(f"a message {what}, from {place_of(error)}") from error


def place_of(error: BaseException) -> str:
    """Where the first of a chain of errors was raised: the innermost line of ours."""
    while error.__cause__ is not None:
        error = error.__cause__
    places = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    code, line = ([place for place in places if "elman" in Path(place[0].co_filename).parts] or places)[-1]
    return f"{Path(code.co_filename).name}:{line} in {code.co_name}"


def is_loaded(path: Path) -> bool:
    """Whether there is a model in the file, which must be as it says; else it must have been refused."""
    try:
        model = elman.load(path, backend="cython")
    except ValueError as error:
        refused(error, path, is_first=True)
        return False
    config, metadata = believed(path, "config", "metadata")
    built = network_of(model).config()
    wrong = [key for key, value in config.items() if built.get(key, False) != value]  # learn_h_0 is only there if True
    if wrong or model.metadata != metadata:
        raise Finding(f"a model of another configuration than the file's: {', '.join(wrong)}")
    are_finite(model.parameters().values(), "parameters")
    pattern = getattr(model, "pattern", "many-to-many")
    x = np.zeros((1, 2), int) if isinstance(model.inputs, elman.Tokens) else np.ones((1, 2, model.inputs.n))
    x = np.zeros_like(x) if isinstance(model.inputs, elman.Columns) else x
    x = np.full(x.shape, model.inputs.labels[0], dtype=object) if model.inputs.labels else x
    with contextlib.suppress(FloatingPointError):
        if pattern != "one-to-many":  # which asks for outputs that can be inputs
            model.predict(x[:, 0] if pattern == "one-to-one" else x)
    return True


def believed(path: Path, *names: str) -> list[Any]:
    """JSON that a file was read from, in which no name may come twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise Finding(f"names twice in {where}")
        return dict(pairs)

    content, where = path.read_bytes(), "the header"
    header = json.loads(content[8 : 8 + struct.unpack_from("<Q", content)[0]], object_pairs_hook=once)
    return [json.loads(header["__metadata__"][where := name], object_pairs_hook=once) for name in names]


def are_finite(arrays: Any, name: str) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise Finding(f"{name} that are not finite")


def snapshot(run: Any) -> str:
    """All that a resume which is refused must leave as it is."""
    optimizer, generators = run.optimizer, [g.bit_generator.state for g in network_of(run.model).generators()]
    memories = [array.tobytes() for arrays in optimizer._memories.values() for array in arrays]
    flat, more = network_of(run.model).parameters.flat.tobytes(), run.more()
    return repr((flat, generators, memories, optimizer.steps, repr(optimizer), more, run.model.metadata))


def is_resumed(path: Path, run: Any) -> bool:
    """Whether the run went on, or else was refused with nothing changed."""
    before, content = snapshot(run), path.read_bytes()
    try:
        numbers = run.go(path)
    except ValueError as error:
        refused(error, path, is_first=False)
        if snapshot(run) != before or path.read_bytes() != content:
            raise Finding(f"changed, though refused, by {place_of(error)}") from error
        return False
    except FloatingPointError as error:
        path.write_bytes(content)  # of the checkpoint that the run went on from, not one that it wrote
        if not is_odd(content):
            raise Finding(f"not finite, though nothing was odd: {place_of(error)}") from error
    else:
        path.write_bytes(content)
        are_finite([numbers], "losses after a resume")
        if not is_odd(content):
            are_finite([network_of(run.model).parameters.flat], "parameters after a resume")
    believed(path, "config", "metadata", "training")
    return True


def is_odd(content: bytes) -> bool:
    """Whether numbers that are allowed may lead to others that are not finite: huge ones, and an eps of 0."""
    file = File.of(content)
    record = json.loads(file.metadata["training"])
    optimizer = record.get("optimizer", {})
    numbers = np.array([optimizer.get(name, 0) for name in ("lr", "weight_decay")] + [*record.get("sums", [])], float)
    is_huge = not all((np.abs(values) < 1e3).all() for values in (*file.arrays.values(), numbers))
    return is_huge or optimizer.get("eps", 1) < 1e-30  # in float32 that may be 0


# The campaign


class Campaign:
    def __init__(self, seed: int, directory: str, *, is_shown: bool) -> None:
        self.seed, self.path, self.is_shown = seed, Path(directory) / "a.model", is_shown
        self.files = good_files(self.path)
        self.runs: dict[Any, Any] = {}  # that nothing has changed yet
        self.counts: collections.Counter[str] = collections.Counter()
        self.found: collections.Counter[str] = collections.Counter()

    def case(self, number: int) -> None:
        rng = random.Random(f"{self.seed}, {number}")
        good = rng.choice(self.files)
        if is_signed := good.is_signed and number % 8 == 0:
            content, what = damaged(rng, good.content)
            done = [f"{what}, under the digest"]
        else:
            try:
                content, done = mutated(rng, good.file, rng.choice(self.files).file)
            except (RecursionError, ValueError):  # of a second one, after nesting or axes without number
                return
        if self.is_shown:
            print(*done, sep="\n")
        self.path.write_bytes(content)
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        signal.setitimer(signal.ITIMER_REAL, 10)
        try:
            self.judge(number, good, must_be_refused=is_signed and content != good.content)
            used, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak, time.process_time() - start
            if seconds > MOST_SECONDS or used * 1024 > MOST_BYTES:
                raise Finding("more than a second" if seconds > MOST_SECONDS else "more than 100 MB")
        except KeyboardInterrupt:
            raise
        except Finding as finding:
            self.report(number, done, str(finding), finding)
        except BaseException as error:  # a panic of safetensors is no Exception
            self.report(number, done, f"{type(error).__name__} from {place_of(error)}", error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def judge(self, number: int, good: Good, *, must_be_refused: bool) -> None:
        is_good = is_model = self.count("load", is_loaded(self.path))
        if good.begin is not None and (is_good or number % 4 == 0):  # resume reads with the same lines
            run = self.runs.pop(good.begin, None) or good.begin()
            is_good |= (is_going := self.count("resume", is_resumed(self.path, run)))
            if not is_going:
                self.runs[good.begin] = run
            elif not is_model:
                raise Finding("resumed from what load refuses")
        if must_be_refused and is_good:
            raise Finding("damage that the digest did not show")

    def count(self, name: str, is_accepted: bool) -> bool:
        self.counts[f"{name}: {'accepted' if is_accepted else 'refused'}"] += 1
        return is_accepted

    def report(self, number: int, done: list[str], what: str, error: BaseException) -> None:
        self.found[what] += 1
        if self.found[what] == 1 or self.is_shown:
            print(f"finding: seed {self.seed} case {number}: {what}", *done, sep="\n    ")
            lines = "".join(traceback.format_exception(error.__cause__ or error, chain=False)).splitlines()
            print(*(f"        {line:.200}" for line in lines[-12:]), sep="\n", flush=True)

    def run(self, seconds: float, inputs: int | None) -> None:
        start, number = time.monotonic(), 0
        while time.monotonic() - start < seconds and number != inputs:
            self.case(number)
            number += 1
        took = time.monotonic() - start
        print(f"{number} inputs in {took:.1f} s, {number / took:.0f} a second; {len(self.found)} findings")
        print(*(f"{n:9} {what}" for what, n in sorted(self.counts.items())), sep="\n")
        print(*(f"{n:9} times {what}" for what, n in self.found.most_common()), sep="\n")


def hang(*_: Any) -> None:
    raise Hang


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--inputs", type=int, help="stop after so many")
    parser.add_argument("--only", type=int, metavar="CASE", help="repeat a case, and show its mutations")
    options = parser.parse_args()
    warnings.simplefilter("error")
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))  # more is a MemoryError, and a finding
    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory(dir=SHARED if os.path.isdir(SHARED) else None) as directory:
        campaign = Campaign(options.seed, directory, is_shown=options.only is not None)
        if options.only is not None:
            campaign.case(options.only)
        else:
            campaign.run(options.seconds, options.inputs)
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
