"""A public attribute that is set is checked as in the constructor, or fixed; and pickles and copies are as ever."""

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman import schedules

from .models.test_patterns import backend_names

OBJECTS: dict[str, Callable[[], Any]] = {
    "RNN": lambda: elman.RNN(2, 3, seed=0),
    "reference.RNN": lambda: elman.reference.RNN(2, 3, seed=0),
    "SequenceModel": lambda: elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0),
    "Seq2Seq": lambda: elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0),
    "Tokens": lambda: elman.Tokens(3, labels=["a", "b"], unknown="?"),
    "Features": lambda: elman.Features(3, scaler=elman.Scaler()),
    "Scaler": lambda: elman.Scaler(mean=[1, 2], scale=[3, 4]),
    "Columns": lambda: elman.Columns(elman.Tokens(3, embedding_dim=2), elman.Features(2)),
    "Categories": lambda: elman.Categories(3, labels="fit"),
    "Binary": lambda: elman.Binary(class_weights=[1, 2]),
    "Labels": lambda: elman.Labels(3),
    "Reals": lambda: elman.Reals(3, loss="quantile", quantiles=(0.1, 0.9), missing=np.nan),
    "SGD": lambda: elman.SGD(0.1, momentum=0.9),
    "Adagrad": lambda: elman.Adagrad(0.1),
    "Adam": lambda: elman.Adam(0.1),
    "AdamW": lambda: elman.AdamW(0.1),
    "EarlyStopping": lambda: elman.EarlyStopping(),
    "ReduceOnPlateau": lambda: elman.ReduceOnPlateau(),
    "Constant": lambda: schedules.Constant(),
    "Cosine": lambda: schedules.Cosine(),
    "Step": lambda: schedules.Step(2),
}
NUMBER = [None, "0.5", True, -0.5, np.nan, np.inf, 10**400, np.array(0.5), [0.5]]
INT = [None, "1", True, 0.5, -1, 2**63, 10**400, np.array(1)]
OPTIMIZER = {"lr": ([0.5, np.float32(0.25)], NUMBER), "steps": ([0, np.int64(7)], INT)}
SETTABLE: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {  # values that are taken, and that are not
    "RNN": {
        "nonlinearity": (["relu", elman.activation(lambda a: a, lambda _: 1.0)], ["tan", None, 3, np.tanh]),
        "batch_first": ([True, np.bool_(False)], [1, None, "no"]),
        "dropout": ([0, 1, 0.5], [*NUMBER, 1.5]),
        "recurrent_dropout": ([0, 0.5], [*NUMBER, 1]),
        "backend": ([None, "numpy", "cython"], ["fortran", 3, ""]),
    },
    "SequenceModel": {"metadata": ([{}, {"a": "b"}], [None, {"a": 1}, {1: "a"}, ["a"], "a"])},
    "SGD": OPTIMIZER | {"momentum": ([0, 0.9, 1], [*NUMBER, 1.5])},
    "Adagrad": OPTIMIZER | {"eps": ([0, 1e-3], NUMBER)},
    "Adam": OPTIMIZER
    | {
        "eps": ([0, 1e-3], NUMBER),
        "betas": ([(0, 0.5), [0.5, 0]], [None, 0.9, (0.9,), (0.9, 1), (-0.1, 0.9), (0.9, np.nan), (True, 0.9)]),
        "weight_decay": ([0, 0.1], NUMBER),
    },
    "EarlyStopping": {
        "monitor": (["loss"], [None, 3]),
        "patience": ([1, np.int8(3)], [*INT, 0]),
        "min_delta": ([0, 0.5], NUMBER),
        "restore_best": ([False], [0, None]),
        "mode": (["min", "max"], ["least", None, 1]),
    },
    "Constant": {"warmup": ([0, 3], NUMBER)},
}
SETTABLE["reference.RNN"], SETTABLE["Seq2Seq"], SETTABLE["AdamW"] = (
    SETTABLE["RNN"],
    SETTABLE["SequenceModel"],
    SETTABLE["Adam"],
)
SETTABLE["ReduceOnPlateau"] = {name: SETTABLE["EarlyStopping"][name] for name in ("monitor", "patience", "min_delta")}
SETTABLE["ReduceOnPlateau"] |= {"mode": SETTABLE["EarlyStopping"]["mode"], "min_lr": ([0, 0.5], NUMBER)}
SETTABLE["ReduceOnPlateau"]["factor"] = ([0, 0.5], [*NUMBER, 1])
SETTABLE["Cosine"] = SETTABLE["Constant"] | {"final": ([0, 0.5], NUMBER)}
SETTABLE["Step"] = SETTABLE["Constant"] | {
    "every": ([1, 0.5, np.inf], [value for value in NUMBER if value is not np.inf] + [0]),
    "factor": ([0, 2.0], NUMBER),
}
SHAPE = [
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "bidirectional",
    "reverse",
    "dtype",
    "initialization",
    "spectral_radius",
    "leak",
    "noise",
    "form",
    "learn_leak",
    "input_noise",
    "signs",
    "excitatory",
    "mask_hh",
    "mask_ih",
]
FIXED = {
    "RNN": SHAPE,
    "reference.RNN": SHAPE,
    "SequenceModel": ["inputs", "outputs", "pattern", "learn_h_0", "mask_ho", "readout_from", "tied", "rnn"],
    "Seq2Seq": ["inputs", "outputs", "learn_h_0", "encoder", "decoder"],
    "Tokens": ["n", "labels", "unknown", "embedding_dim", "embedding"],
    "Features": ["n", "scaler"],
    "Scaler": ["mean", "scale"],
    "Columns": ["n", "parts"],
    "Binary": ["n", "loss", "class_weights"],
    **{name: ["n", "labels", "loss", "class_weights"] for name in ("Categories", "Labels")},
    "Reals": ["n", "loss", "class_weights", "quantiles", "distribution", "missing", "scaler"],
}


def contents(thing: Any) -> bytes:
    return pickle.dumps(vars(thing) if not hasattr(thing, "parameters") else thing)


@pytest.mark.parametrize(("name", "attribute"), [(name, key) for name, keys in SETTABLE.items() for key in keys])
def test_what_may_be_set(name: str, attribute: str) -> None:
    thing, (right, wrong) = OBJECTS[name](), SETTABLE[name][attribute]
    for value in right:
        setattr(thing, attribute, value)
        assert getattr(thing, attribute) == (tuple(value) if isinstance(value, list) else value)
    before = vars(thing).copy()
    for value in wrong:
        with pytest.raises((TypeError, ValueError), match=rf"^{attribute}\b.* must "):
            setattr(thing, attribute, value)
        assert all(vars(thing)[key] is value for key, value in before.items())


@pytest.mark.parametrize(("name", "attribute"), [(name, key) for name, keys in FIXED.items() for key in keys])
def test_what_is_fixed(name: str, attribute: str) -> None:
    thing = OBJECTS[name]()
    before = contents(thing)
    for value in (getattr(thing, attribute), 3, None):
        with pytest.raises(AttributeError, match=rf"\b{attribute}\b"):
            setattr(thing, attribute, value)
    assert contents(thing) == before


def test_the_message() -> None:
    with pytest.raises(AttributeError, match=r"^hidden_size of RNN is fixed once it is made: make another RNN$"):
        elman.RNN(2, 3).hidden_size = 4


def test_what_is_an_attribute_of_layers() -> None:
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4)
    with pytest.raises(AttributeError, match=r"^dropout is an attribute of layers, .* set model.rnn.dropout$"):
        model.dropout = 0.5
    pairs = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4)
    with pytest.raises(AttributeError, match=r"set model.encoder.backend and model.decoder.backend$"):
        pairs.backend = "numpy"


@pytest.mark.parametrize("name", OBJECTS)
def test_no_attribute_is_missing(name: str) -> None:
    """All that the constructor takes, and all that an instance has."""
    thing = OBJECTS[name]()
    known = {*SETTABLE.get(name, {}), *FIXED.get(name, [])}
    public = {key for key in vars(thing) if key[0] != "_"}
    public |= {key for key in inspect.signature(type(thing)).parameters if hasattr(thing, key)}
    assert public <= known


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_are_as_ever(name: str, duplicate: Callable[[Any], Any]) -> None:
    thing = duplicate(OBJECTS[name]())
    for attribute, (right, wrong) in SETTABLE.get(name, {}).items():
        setattr(thing, attribute, right[0])
        with pytest.raises((TypeError, ValueError), match=attribute):
            setattr(thing, attribute, wrong[0])
    for attribute in FIXED.get(name, []):
        with pytest.raises(AttributeError, match=attribute):
            setattr(thing, attribute, 3)
    thing.something_of_the_user_s_own = 3


def test_what_is_in_an_old_pickle() -> None:
    """The names under which values lie have not changed."""
    assert list(vars(elman.SGD(0.1))) == ["lr", "steps", "_memories", "momentum"]
    assert list(vars(elman.AdamW(0.1))) == ["lr", "steps", "_memories", "betas", "eps", "weight_decay"]
    old = elman.SGD.__new__(elman.SGD)  # in those of 0.1, two had others
    old.__setstate__({"_lr": 0.1, "steps": 3, "_memories": {}, "_momentum": 0.5})
    assert vars(old) == {"lr": 0.1, "steps": 3, "_memories": {}, "momentum": 0.5}
    assert {*vars(elman.RNN(2, 3))} >= {
        *SHAPE,
        "dropout",
        "recurrent_dropout",
        "nonlinearity",
        "batch_first",
        "backend",
    }


def test_class_weights_are_read_only() -> None:
    given = np.array([1.0, 2.0])
    outputs = elman.Categories(2, class_weights=given)
    assert outputs.class_weights is not None
    with pytest.raises(ValueError, match="read-only"):
        outputs.class_weights[0] = -1
    given[0] = 7
    assert outputs.class_weights.tolist() == [1, 2]


@backend_names
def test_what_is_set_takes_effect(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 2, 2))
    rnn = elman.RNN(2, 3, seed=0)
    rnn.nonlinearity, rnn.batch_first, rnn.backend = "relu", True, backend
    expected = elman.RNN(2, 3, nonlinearity="relu", batch_first=True, seed=0, backend=backend)
    np.testing.assert_array_equal(rnn(x)[0], expected(x)[0])


def test_a_model_whose_parts_differ_is_not_saved(tmp_path: Any) -> None:
    model, file = OBJECTS["Seq2Seq"](), tmp_path / "model.safetensors"
    model.encoder.dropout = 0.5
    with pytest.raises(
        ValueError, match=r"^dropout must be the same in encoder and decoder to be saved, got 0.5 and 0.0"
    ):
        model.save(file)
    assert not file.exists()
    model.decoder.dropout = 0.5
    model.save(file)
    assert elman.load(file).decoder.dropout == 0.5


def test_an_optimizer_at_its_last_step() -> None:
    rnn, optimizer = elman.RNN(2, 3, seed=0, backend="numpy"), elman.Adam(0.1)
    optimizer.steps = 2**63 - 1
    before = rnn.state_dict()
    with pytest.raises(ValueError, match=r"^steps must be "), elman.use_backend("numpy"):
        optimizer.update(rnn.parameters(), rnn.state_dict())
    assert all(np.array_equal(array, before[name]) for name, array in rnn.parameters().items())


# A stream's state

BAD_STATES = [
    (np.zeros((1, 1, 4), np.float32), r"must have shape \(1, 64, 4\), got \(1, 1, 4\)"),
    (np.zeros((64, 4), np.float32), r"must have shape \(1, 64, 4\), got \(64, 4\)"),
    (np.zeros((1, 64, 5), np.float32), r"must have shape \(1, 64, 4\), got \(1, 64, 5\)"),
    (np.zeros((1, 64, 4), int), "must hold float32 or float64, got int64"),
    (np.zeros((1, 64, 4), object), "must hold float32 or float64, got object"),
    (np.full((1, 64, 4), np.nan), r"must be finite, got nan at \[0, 0, 0\]"),
    (np.full((1, 64, 4), 1e300), r"must be finite, got inf at \[0, 0, 0\]"),
    (None, "must hold float32 or float64"),
    (0.0, r"must have shape \(1, 64, 4\), got \(\)"),
]


def stream_of(backend: str) -> tuple[elman.SequenceModel, Any]:
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0, backend=backend)
    return model, model.stream(64)


@backend_names
@pytest.mark.parametrize(("state", "message"), BAD_STATES)
def test_a_state_that_does_not_fit(backend: str, state: Any, message: str) -> None:
    _, stream = stream_of(backend)
    x = np.ones((2, 64), dtype=int)
    stream.predict(x)
    live, before = stream.state, stream.state.copy()
    with pytest.raises((TypeError, ValueError), match=f"^state {message}"):
        stream.state = state
    assert stream.state is live
    np.testing.assert_array_equal(live, before)
    stream.predict(x)


@backend_names
def test_a_state_that_fits_is_copied(backend: str) -> None:
    model, stream = stream_of(backend)
    x = np.random.default_rng(0).integers(0, 3, (4, 64))
    stream.predict(x[:2])
    saved = stream.state.copy()
    expected = stream.predict_proba(x[2:])
    for form in (saved, saved.astype(np.float64), np.asfortranarray(saved), saved.tolist(), saved.astype(">f4")):
        live = stream.state
        stream.state = form
        assert stream.state is live
        np.testing.assert_array_equal(stream.predict_proba(x[2:]), expected)
        np.testing.assert_array_equal(np.asarray(form), saved)
    stream.state = stream.state[:, ::-1]  # of itself
    stream.state[...] = saved
    np.testing.assert_array_equal(stream.predict_proba(x[2:]), expected)
    assert model.stream(64).state.any() == np.False_


@pytest.mark.parametrize(
    "shown",
    [
        "SGD(lr=0.1, momentum=0.9)",
        "Adagrad(lr=0.1, eps=1e-10)",
        "Adam(lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)",
        "AdamW(lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)",
        "Constant(warmup=0.0)",
        "Cosine(warmup=0.0, final=0.0)",
        "Step(warmup=0.0, every=2.0, factor=0.1)",
        "EarlyStopping(monitor='val_loss', patience=5, min_delta=0.0, restore_best=True)",
        "ReduceOnPlateau(monitor='val_loss', factor=0.1, patience=5, min_delta=0.0, min_lr=0.0, mode='auto')",
    ],
)
def test_settings_are_shown_as_they_are_now(shown: str) -> None:
    name = shown.partition("(")[0]
    thing = OBJECTS[name]()
    assert repr(thing) == shown
    for attribute, (right, _) in SETTABLE[name].items():
        setattr(thing, attribute, right[0])
        assert attribute == "steps" or f"{attribute}={getattr(thing, attribute)!r}" in repr(thing)


def test_a_callback_of_one_s_own_is_shown() -> None:
    class Mine(elman.Callback):
        def __init__(self) -> None:
            self.every, self._seen = 3, 0

    assert repr(Mine()) == "Mine(every=3)"
    assert repr(elman.Callback()) == "Callback()"


@pytest.mark.skipif(np.__version__ < "2", reason="its arrays are NumPy 2's, which NumPy 1 does not read")
def test_an_old_pickle() -> None:
    """Of objects of all kinds, made before optimizers' settings could be changed: they work as ever."""
    old = pickle.loads((Path(__file__).parent / "data" / "objects-0.1.pickle").read_bytes())
    assert repr(old["sgd"]) == "SGD(lr=0.1, momentum=0.9)"
    assert repr(old["adamw"]) == repr(elman.AdamW(0.1))
    assert repr(old["stopping"]) == repr(elman.EarlyStopping(patience=3))
    assert repr(old["cosine"]) == repr(elman.schedules.Cosine(warmup=2))
    assert old["rnn"](np.zeros((2, 3)))[0].shape == (2, 4)
    X, numbers = [[0, 1], [2]], [np.ones((2, 2)), np.ones((1, 2))]
    data = {"tokens": (X, X), "weighted": (numbers, [0, 1]), "reals": (numbers, numbers), "seq2seq": (X, X)}
    data["binary"] = X, [np.ones((2, 2), int), np.ones((1, 2), int)]
    for name, (x, y) in data.items():
        model = old[name]
        assert repr(model)
        model.predict(x)
        assert len(model.fit(x, y, epochs=2, optimizer=old["adam"], progress=False)["loss"]) == 2
        old["adam"] = elman.Adam(0.1)
    old["tokens"].train_step([[0], [1]], [[1], [2]], optimizer=old["sgd"])
    assert old["sgd"].steps == 2
