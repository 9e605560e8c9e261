"""A layer that runs backwards in time: one that runs forwards over the same steps the other way round."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elman
from elman import RNN

from ..compare import assert_same_bits

T, B, I, H = 130, 4, 3, 6  # noqa: E741 - the names of docs/design.md; T has three stretches of `last_state`
LENGTHS = [130, 0, 65, 1]
LEAKS = np.array([0.1, 0.7, 0.2, 0.9, 1.0, 0.5])
KINDS: dict[str, dict[str, Any]] = {
    "elman": {},
    "rate": {"leak": LEAKS},
    "potential": {"leak": LEAKS, "form": "potential", "nonlinearity": "softplus"},
    "learned": {"leak": 0.3, "learn_leak": True},
    "signs": {"excitatory": 0.5},
}


def turned(x: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Each row's steps within its length the other way round, and zeros beyond."""
    out = np.zeros_like(x)
    for b, n in enumerate(lengths):
        out[:n, b] = x[:n, b][::-1]
    return out


def results(rnn: RNN, x: Any, h_0: Any, d_y: Any, d_h_n: Any, lengths: Any) -> dict[str, np.ndarray]:
    y, h_n, pullback = rnn.vjp(x, h_0, lengths)
    d_x, d_h_0, gradients = pullback(d_y, d_h_n)
    again, states = rnn(x, h_0, lengths)
    assert_same_bits({"y": again, "h_n": states}, {"y": y, "h_n": h_n})
    assert_same_bits({"h_n": rnn.last_state(x, h_0, lengths)}, {"h_n": h_n})
    return {"y": y, "h_n": h_n, "d_x": d_x, "d_h_0": d_h_0, **gradients}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", elman.available_backends())
def test_it_is_the_layer_over_turned_steps(backend: str, dtype: str, n_layers: int, kind: str):
    options = {"dtype": dtype, "seed": 1, "backend": backend, **KINDS[kind]}
    rnn, forwards = (RNN(I, H, n_layers, reverse=reverse, **options) for reverse in (True, False))
    assert rnn.parameters().keys() == forwards.parameters().keys()
    rng = np.random.default_rng(0)
    x, d_y = (rng.standard_normal((T, B, n)).astype(dtype) for n in (I, H))
    h_0, d_h_n = rng.standard_normal((2, n_layers, B, H)).astype(dtype)
    for lengths in (LENGTHS, None):
        n = lengths or [T] * B
        got = results(rnn, x, h_0, d_y, d_h_n, lengths)
        expected = results(forwards, turned(x, n), h_0, turned(d_y, n), d_h_n, lengths)
        expected |= {name: turned(expected[name], n) for name in ("y", "d_x")}
        for name, array in got.items():  # weights add up their steps in another order
            bound = 2e-5 if dtype == "float32" else 1e-13
            exact = name in ("y", "h_n", "d_x", "d_h_0") and backend != "numpy"  # whose products depend on the shape
            scale = 0 if exact else bound * np.abs(expected[name]).max()
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=scale, err_msg=name)


def test_forms_of_input_agree():
    rnn = RNN(I, H, 2, reverse=True, dtype="float64", seed=1)
    sequences = [np.random.default_rng(n).standard_normal((n, I)) for n in (5, 1, 0, 3)]
    y, h_n = rnn(sequences)
    for b, x in enumerate(sequences[:2]):
        alone, last = rnn(x)
        np.testing.assert_array_equal(y[b], alone)
        np.testing.assert_array_equal(h_n[:, b], last)
        rnn.batch_first = True
        np.testing.assert_array_equal(rnn(x[None])[0][0], alone)
        rnn.batch_first = False


def test_it_is_the_second_half_of_both_directions():
    both, rnn = RNN(I, H, bidirectional=True, seed=1), RNN(I, H, reverse=True, seed=2)
    own = both.parameters()
    rnn.load_state_dict({name: own[f"{name}_reverse"] for name in rnn.parameters()})
    x = np.random.default_rng(0).standard_normal((7, 3, I), dtype=np.float32)
    y, h_n = both(x, lengths=[7, 2, 4])
    got, last = rnn(x, lengths=[7, 2, 4])
    assert_same_bits({"y": got, "h_n": last}, {"y": y[..., H:].copy(), "h_n": h_n[1:]})


def test_noise_of_a_step_is_that_of_the_step():
    rnn = RNN(I, H, reverse=True, leak=0.2, noise=0.1, dtype="float64", seed=1)
    x = np.zeros((T, B, I))
    xi = rnn.noise_like(x, noise_seed=3)[0]
    p, h, alpha = rnn.parameters(), np.zeros((B, H)), 0.2
    for t in reversed(range(T)):
        a = h @ p["weight_hh_l0"].T + p["bias_l0"] + 0.1 * np.sqrt(2 / alpha) * xi[t]
        h = (1 - alpha) * h + alpha * np.tanh(a)
    y, h_n = rnn(x, noise_seed=3)
    np.testing.assert_allclose(h_n[0], h, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(rnn.last_state(x, noise_seed=3), h_n)
    np.testing.assert_array_equal(y[0], h_n[0])


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
def test_a_model_learns_what_comes_later(pattern: str, tmp_path: Any):
    """The next token but one is known from the end alone."""
    rng = np.random.default_rng(0)
    X = [rng.integers(0, 3, n) for n in rng.integers(2, 9, 60)]
    Y = np.array([x[0] for x in X]) if pattern == "many-to-one" else [np.r_[x[1:], 0] for x in X]
    options: dict[str, Any] = {"pattern": pattern, "hidden_size": 16, "reverse": True, "seed": 0}
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), **options)
    model.fit(X, Y, epochs=60, optimizer=elman.Adam(0.02), progress=False)
    assert model.evaluate(X, Y)["accuracy"] > 0.97
    model.save(tmp_path / "model.safetensors")
    loaded = elman.load(tmp_path / "model.safetensors")
    assert loaded.rnn.reverse
    assert "reverse=True" in repr(loaded.rnn)
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.evaluate(X, Y) == model.evaluate(X, Y)


def model(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=2, reverse=True, seed=0, **options)


X, TARGETS, SGD = np.zeros((4, 1), int), np.zeros((4, 1), int), elman.SGD(0.1)
REFUSED: dict[str, Callable[[], Any]] = {
    "reverse must be False with bidirectional=True": lambda: RNN(2, 3, bidirectional=True, reverse=True),
    "reverse must be True or False": lambda: RNN(2, 3, reverse="yes"),
    "step is not possible with reverse=True": lambda: RNN(2, 3, reverse=True).step(np.zeros(2)),
    "resets must be None with reverse=True": lambda: RNN(2, 3, reverse=True)(np.zeros((4, 2)), resets=[True] * 4),
    "state must be None with reverse=True": lambda: model().loss(X, TARGETS, state=np.zeros((1, 1, 2), np.float32)),
    "memory must be None with reverse=True": lambda: model().train_step(X, TARGETS, optimizer=SGD, memory=2),
    "tbptt is not possible with reverse=True": lambda: model().fit(X.T, TARGETS.T, tbptt=(2, 2)),
    "stream is not possible with reverse=True": lambda: model().stream(),
    "generate is not possible with reverse=True": lambda: model().generate(0, 3),
    "pattern='one-to-many' is not possible with reverse=True": lambda: model(pattern="one-to-many"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_begins_at_the_end_is_refused_where_states_go_on(message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        REFUSED[message]()
