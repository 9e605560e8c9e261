"""Sizes of one in every axis, and all of them together: strides of such axes are whatever NumPy left there."""

import itertools
from typing import Any

import numpy as np
import pytest

import elman

PATTERNS = ("many-to-many", "many-to-one", "one-to-one", "one-to-many")
BACKENDS = elman.available_backends()


def assert_close(outcomes: list[list[np.ndarray]]) -> None:
    for outcome in outcomes[1:]:
        for array, expected in zip(outcome, outcomes[0], strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers(dtype: str, D: int, rng: np.random.Generator):
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for T, B, I, H, L in itertools.product((1, 2), repeat=5):  # noqa: E741
        x = rng.standard_normal((B, T, I))
        outcomes = []
        for backend in BACKENDS:
            rnn = elman.RNN(I, H, L, batch_first=True, bidirectional=D == 2, dtype=dtype, seed=1, backend=backend)
            y, h_n, pullback = rnn.vjp(x, lengths=[T] * B)
            d_x, d_h_0, gradients = pullback(np.cos(y), np.sin(h_n))
            outcomes.append([y, h_n, rnn.last_state(x), d_x, d_h_0, *gradients.values()])
            if D == 1:
                outcomes[-1] += rnn.step(x[:, 0])
        for outcome in outcomes[1:]:
            for array, expected in zip(outcome, outcomes[0], strict=True):
                np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["categories", "reals", "labels"])
def test_models(kind: str, pattern: str, D: int, rng: np.random.Generator):
    if pattern == "one-to-many" and D == 2:
        return  # outputs are fed back, which goes one way
    one_input, one_output = pattern.startswith("one"), pattern.endswith("one")
    for T, B, V, H, L, n in itertools.product((1, 2), repeat=6):
        if kind == "categories" and pattern == "one-to-many" and n > V:
            continue
        inputs = elman.Tokens(V) if kind == "categories" else elman.Features(V)
        outputs = {"categories": elman.Categories, "reals": elman.Reals, "labels": elman.Binary}[kind](n)
        x_shape, y_shape = (B,) if one_input else (T, B), (B,) if one_output else (T, B)
        x = rng.integers(0, V, x_shape) if kind == "categories" else rng.standard_normal((*x_shape, V))
        y: Any = rng.integers(0, n, y_shape) if kind == "categories" else rng.integers(0, 2, (*y_shape, n))
        outcomes = []
        for backend in BACKENDS:
            model = elman.SequenceModel(
                inputs, outputs, pattern=pattern, hidden_size=H, num_layers=L, bidirectional=D == 2, dtype="float64",
                seed=1, backend=backend,
            )  # fmt: skip
            loss, gradients = model.loss_and_grads(x, y)
            outcomes.append([np.array([loss, model.loss(x, y)]), *gradients.values()])
            X, Y = (a if one else a.swapaxes(0, 1) for a, one in ((x, one_input), (y, one_output)))
            outcomes[-1].append(np.array([*model.evaluate(X, Y).values()]))
            model.train_step(x, y, optimizer=elman.Adam(0.01))
            outcomes[-1] += model.parameters().values()
            if pattern != "one-to-many":
                outcomes[-1].append(np.asarray(model.predict(X)))
        assert_close(outcomes)


@pytest.mark.parametrize("D", [1, 2])
def test_seq2seq(D: int, rng: np.random.Generator):
    for T, B, V, H, L, n in itertools.product((1, 2), repeat=6):
        X, Y = rng.integers(0, V, (B, T)), rng.integers(0, n, (B, T))
        outcomes = []
        for backend in BACKENDS:
            model = elman.Seq2Seq(
                elman.Tokens(V), elman.Categories(n), hidden_size=H, num_layers=L, bidirectional=D == 2,
                dtype="float64", seed=1, backend=backend,
            )  # fmt: skip
            history = model.fit(X, Y, epochs=2, progress=False)
            outcomes.append([np.array(history["loss"]), *model.parameters().values()])
            outcomes[-1] += model.predict(X, beam=2)
        assert_close(outcomes)
