"""Every pattern learns what it is for: fixed seeds, modest budgets."""

from typing import Any

import numpy as np
import pytest

import elman
from elman.schedules import Cosine

TRAINING = {"batch_size": 32, "schedule": Cosine(warmup=1), "clip_norm": 1.0, "progress": False}


def test_digits_many_to_one():
    """8 × 8 pixels as 8 steps of 8 features."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn has the data: pip install '.[test]'")
    pixels, y = datasets.load_digits(return_X_y=True)
    X, is_test = pixels.reshape(-1, 8, 8) / 16, np.arange(len(y)) % 4 == 0
    model = elman.SequenceModel(
        elman.Features(8), elman.Categories(10), pattern="many-to-one", hidden_size=64, seed=0
    )  # fmt: skip
    model.fit(X[~is_test], y[~is_test], epochs=60, optimizer=elman.Adam(3e-3), **TRAINING)
    assert model.evaluate(X[is_test], y[is_test])["accuracy"] >= 0.96


def test_parity_many_to_one():
    """Is the number of ones among 3 to 12 tokens odd?"""
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[list[Any], np.ndarray]:
        X = [rng.integers(0, 4, k) for k in rng.integers(3, 13, n)]
        return X, np.array([np.count_nonzero(x == 1) % 2 for x in X])

    model = elman.SequenceModel(elman.Tokens(4), elman.Binary(), pattern="many-to-one", hidden_size=64, seed=0)
    model.fit(*data(2000), epochs=80, optimizer=elman.Adam(3e-3), **TRAINING)
    assert model.evaluate(*data(1000))["accuracy"] >= 0.95


@pytest.mark.parametrize(("bidirectional", "least", "most"), [(True, 0.98, 1), (False, 0.2, 0.5)])
def test_a_tag_that_depends_on_the_next_token(bidirectional: bool, least: float, most: float):
    """Of three tags, so that chance is a third: only who has seen the next token can do better."""
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[list[Any], list[Any]]:
        X = [rng.integers(0, 6, k) for k in rng.integers(4, 15, n)]
        return X, [np.append((x[:-1] + x[1:]) % 3, 0) for x in X]

    model = elman.SequenceModel(
        elman.Tokens(6), elman.Categories(3), hidden_size=32, bidirectional=bidirectional, seed=0
    )
    model.fit(*data(1000), epochs=15, optimizer=elman.Adam(5e-3), **TRAINING)
    assert least <= model.evaluate(*data(300))["accuracy"] <= most


@pytest.mark.parametrize("outputs", [elman.Categories(12), elman.Binary(4), elman.Reals(2)], ids=str)
def test_six_melodies_one_to_many(outputs: Any):
    rng = np.random.default_rng(0)
    starts = np.eye(6)
    if isinstance(outputs, elman.Categories):
        melodies: Any = rng.integers(0, 12, (6, 16))
    else:
        melodies = rng.integers(0, 2, (6, 16, outputs.n))
    model = elman.SequenceModel(elman.Features(6), outputs, pattern="one-to-many", hidden_size=48, seed=0)
    model.fit(starts, melodies, epochs=1000, optimizer=elman.Adam(5e-3), **TRAINING)
    for start, melody in zip(starts, melodies, strict=True):
        played = model.generate(start, 16, temperature=0)
        np.testing.assert_array_equal(np.round(played), melody)


def test_sort_and_drop_repeats_seq2seq():
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[list[Any], list[Any]]:
        X = [rng.integers(0, 10, k) for k in rng.integers(3, 9, n)]
        return X, [np.unique(x) for x in X]

    model = elman.Seq2Seq(elman.Tokens(10), elman.Categories(10), hidden_size=128, seed=0)
    model.fit(*data(4000), epochs=20, optimizer=elman.Adam(3e-3), **TRAINING)
    X, Y = data(500)
    assert model.evaluate(X, Y)["exact"] >= 0.9
    for beam in (1, 4):
        assert np.mean([np.array_equal(*pair) for pair in zip(model.predict(X, beam=beam), Y, strict=True)]) >= 0.9


def test_running_mean_of_reals():
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[list[Any], list[Any]]:
        X = [rng.uniform(-1, 1, (k, 1)) for k in rng.integers(5, 30, n)]
        return X, [np.cumsum(x, axis=0) / np.arange(1, len(x) + 1)[:, None] for x in X]

    model = elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=32, seed=0)
    model.fit(*data(800), epochs=40, optimizer=elman.Adam(5e-3), **TRAINING)
    assert model.evaluate(*data(200))["r2"] >= 0.95


def test_adding_problem_with_identity_initialised_relu():
    """The sum of the two of 50 numbers that are marked (Le, Jaitly & Hinton, 2015); a mean gives 0.17."""
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[np.ndarray, np.ndarray]:
        X = np.stack([rng.uniform(0, 1, (n, 50)), np.zeros((n, 50))], axis=-1)
        rows = np.arange(n)
        X[rows, rng.integers(0, 25, n), 1] = X[rows, rng.integers(25, 50, n), 1] = 1
        return X, X.prod(axis=-1).sum(axis=1)

    model = elman.SequenceModel(
        elman.Features(2),
        elman.Reals(),
        pattern="many-to-one",
        hidden_size=64,
        nonlinearity="relu",
        initialization="identity",
        seed=0,
    )
    X, y = data(500)
    assert model.evaluate(X, y)["loss"] > 0.1
    model.fit(*data(4000), epochs=20, optimizer=elman.Adam(1e-3), **TRAINING)
    assert model.evaluate(X, y)["loss"] < 0.02
