"""Parameters that are not finite do not get in unnoticed, and nothing is predicted from them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.layer.rnn import stack_of
from elman.models.base import network_of

from ..models.test_patterns import backend_names

NOT_FINITE = [np.nan, np.inf, -np.inf]
MODELS: dict[str, Callable[..., Any]] = {
    "layer": lambda **options: elman.RNN(3, 4, num_layers=2, bidirectional=True, **options),
    "SequenceModel": lambda **options: elman.SequenceModel(
        elman.Tokens(3), elman.Binary(2), hidden_size=4, learn_h_0=True, **options
    ),
    "Seq2Seq": lambda **options: elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, **options),
}
models = pytest.mark.parametrize("name", MODELS)


def make(name: str, **options: Any) -> Any:
    return MODELS[name](**{"seed": 0, "backend": "numpy"} | options)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


# Loading


@models
@pytest.mark.parametrize("value", NOT_FINITE)
def test_load_state_dict(name: str, value: float) -> None:
    own = make(name)
    before = own.state_dict()
    for key in before:
        state = own.state_dict()
        place = (0,) * state[key].ndim
        state[key][place] = value
        with pytest.raises(
            ValueError, match=rf"^{key} must be finite, got {value} at {list(place)}".replace("[", r"\[")
        ):
            own.load_state_dict(state)
        same(own.state_dict(), before)


@models
def test_a_value_that_is_too_large_for_float32(name: str) -> None:
    own, wide = make(name), make(name, dtype="float64")
    before, state = own.state_dict(), wide.state_dict()
    key = [*state][-1]  # the others would have been copied before
    state[key].flat[0] = -1e300
    wide.load_state_dict(state)
    with pytest.raises(ValueError, match=rf"^{key} as float32 must be finite, got -inf at \[0\]$"):
        own.load_state_dict(state)
    same(own.state_dict(), before)


def test_the_sum_of_pytorch_s_biases() -> None:
    rnn = elman.RNN(2, 3)
    state = {name: array.astype(np.float64) for name, array in rnn.state_dict(pytorch=True).items()}
    state["bias_ih_l0"][:] = state["bias_hh_l0"][:] = 3e38
    with pytest.raises(ValueError, match=r"^bias_ih_l0 \+ bias_hh_l0 as float32 must be finite, got inf at \[0\]$"):
        rnn.load_state_dict(state)
    state["bias_hh_l0"][1] = np.nan
    with pytest.raises(ValueError, match=r"^bias_hh_l0 must be finite, got nan at \[1\]$"):
        rnn.load_state_dict(state)


@pytest.mark.parametrize("name", ["SequenceModel", "Seq2Seq"])
def test_load(name: str, tmp_path: Path) -> None:
    own, file = make(name), tmp_path / "model.safetensors"
    own.save(file)
    good = file.read_bytes()
    own.parameters()["bias_o"][1] = np.nan
    with pytest.raises(FloatingPointError, match=r"^the bias_o to be saved is nan: the parameters"):
        own.save(file)
    assert file.read_bytes() == good, "what is there may be all that is left of the model"
    network = network_of(own)
    saved = elman.storage.files.Saved(network.kind, own.parameters(), network.config(), {}, None)
    file.write_bytes(b"".join(elman.storage.files.pieces(saved)))  # as another program may
    with pytest.raises(ValueError, match=r"model\.safetensors is not an elman model: bias_o must be finite, got nan"):
        elman.load(file)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_state_dict_of_pytorch() -> None:
    import torch

    layer, rnn = torch.nn.RNN(2, 3), elman.RNN(2, 3)
    torch.nn.init.constant_(layer.weight_hh_l0, float("nan"))
    with pytest.raises(ValueError, match=r"^weight_hh_l0 must be finite, got nan at \[0, 0\]$"):
        rnn.load_state_dict({key: value.detach() for key, value in layer.state_dict().items()})


# Predicting

OUTPUTS = {"categories": elman.Categories(3), "binary": elman.Binary(2), "reals": elman.Reals()}
PATTERNS = ["many-to-many", "many-to-one"]
SAYS = "^the output is (nan|inf|-inf): the parameters, or states, are not finite, or far too large$"
X = [np.array([0, 1, 2, 0]), np.array([1, 2])]


def targets(outputs: Any, pattern: str) -> Any:
    kind = int if isinstance(outputs, elman.Categories) else float
    axes = () if isinstance(outputs, elman.Categories) else (outputs.n,)
    return np.ones((2, *axes), kind) if pattern.endswith("one") else [np.ones((len(x), *axes), kind) for x in X]


@backend_names
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_predictions(backend: str, outputs: str, pattern: str, value: float) -> None:
    kind = OUTPUTS[outputs]
    model = elman.SequenceModel(elman.Tokens(3), kind, pattern=pattern, hidden_size=4, seed=0, backend=backend)
    expected = model.predict(X)
    weight = model.parameters()["weight_ho"]
    kept = weight.copy()
    weight[-1, 0] = value
    Y = targets(kind, pattern)
    calls = [lambda: model.predict(X), lambda: model.evaluate(X, Y)]
    if outputs != "reals":
        calls.append(lambda: model.predict_proba(X))
    for call in calls:
        with pytest.raises(FloatingPointError, match=SAYS):
            call()
    weight[:] = kept
    for one, other in zip(model.predict(X), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@backend_names
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_stream_stays_as_it_was(backend: str) -> None:
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0, backend=backend)
    stream = model.stream()
    stream.predict([0, 1])
    before = stream.state.copy()
    weight = model.parameters()["weight_ih_l0"]
    kept = weight[:, 2].copy()
    weight[:, 2] = np.nan
    for call in (stream.predict, stream.predict_proba):
        with pytest.raises(FloatingPointError, match=SAYS):
            call([0, 2])
        np.testing.assert_array_equal(stream.state, before)
    assert stream.predict([0]).shape == (1,)  # nothing that is read is wrong
    weight[:, 2] = kept
    stream.state[...] = before
    assert stream.predict([0, 2]).tolist() == model.predict([[0, 1, 0, 2]])[0][2:].tolist()


@backend_names
@pytest.mark.filterwarnings("ignore:invalid value")
def test_sequences_to_sequences(backend: str) -> None:
    model = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0, backend=backend)
    Y = [[0], [1, 2]]
    for name in model.parameters():
        own = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0, backend=backend)
        own.parameters()[name][...] = np.nan
        of_one = r"largest output of X\[[01]\] at step 0"
        with pytest.raises(FloatingPointError, match=SAYS.replace("output", of_one)):
            own.predict(X)
        with pytest.raises(FloatingPointError, match=SAYS.replace("output", f"({of_one}|loss)")):
            own.evaluate(X, Y)
    model.parameters()["decoder.weight_ih_l0"][:, 2] = np.nan  # a token that is only fed as a target
    with pytest.raises(FloatingPointError, match=r"^the loss is nan: "):
        model.evaluate([[0]], [[2, 2, 2]])


@backend_names
def test_only_what_is_within_the_lengths(backend: str) -> None:
    """The memory of outputs that nobody sees may hold anything."""
    model = elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=4, seed=0, backend=backend)
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 1)) for n in (9, 1, 5)]
    expected = model.predict(X)
    with stack_of(model.rnn).lease(9, 3) as (y,):  # what `predict` is going to use again
        y[...] = np.nan
    for one, other in zip(model.predict(X), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(model.evaluate(X, list(X))["loss"])


def test_outputs_whose_sum_overflows_are_finite() -> None:
    model = elman.SequenceModel(elman.Tokens(1), elman.Reals(), hidden_size=2, seed=0, backend="numpy")
    model.parameters()["bias_o"][:] = 3e38
    assert np.isfinite(model.predict([[0] * 8])[0]).all()


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
@pytest.mark.filterwarnings("ignore:max_iter=1 epochs are over")
def test_estimators() -> None:
    from elman.sklearn import RNNClassifier, RNNRegressor, RNNTagger

    X = np.random.default_rng(0).normal(size=(6, 3, 1))
    for kind, y in [(RNNClassifier, X[:, 0, 0] > 0), (RNNRegressor, X[:, 0, 0]), (RNNTagger, X[..., 0] > 0)]:
        estimator = kind(hidden_size=3, max_iter=1).fit(X, y)
        estimator.model_.parameters()["bias_l0"][:] = np.nan
        with pytest.raises(FloatingPointError, match=SAYS):
            estimator.predict(X)


@pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])
def test_gradients_of_h_0_that_are_infinite(backend: str) -> None:
    """They are an error, and no warning of NumPy's, of inf − inf, before it."""
    options = {"hidden_size": 1, "nonlinearity": "identity", "learn_h_0": True, "seed": 0, "backend": backend}
    model = elman.SequenceModel(elman.Tokens(1), elman.Categories(2), **options)
    for name, array in model.parameters().items():
        array[...] = 1e30 * np.array([[1], [-1]]) if name == "weight_ho" else 1e30 if name == "weight_hh_l0" else 0
    with pytest.raises(FloatingPointError, match="nothing was updated"):
        model.train_step([[0, 0]], [[0, 1]], optimizer=elman.SGD(0.1))
