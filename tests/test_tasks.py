"""The classic problems: what they promise, that they come back from a seed, and that a model can learn them."""

import math
import re
from typing import Any

import numpy as np
import pytest

import elman
from elman import tasks

GENERATORS = (
    tasks.adding,
    tasks.copy,
    tasks.parity,
    tasks.temporal_order,
    tasks.embedded_reber,
    tasks.sines,
    tasks.flip_flop,
)


@pytest.mark.parametrize("generate", GENERATORS)
def test_a_seed_says_it_all(generate: Any):
    def flat(seed: Any) -> list[float]:
        return [float(value) for part in generate(20, seed=seed) for item in part for value in np.ravel(item)]

    assert flat(3) == flat(np.random.default_rng(3))
    assert flat(3) != flat(4)
    assert all(len(part) == 20 for part in generate(20))


def test_adding():
    X, Y = tasks.adding(5000, n_steps=20, seed=0)
    marks = X[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :10].sum(axis=1) == 1).all()
    assert (marks[:, 10:].sum(axis=1) == 1).all()
    np.testing.assert_allclose(Y[:, 0], [x[m == 1].sum() for x, m in zip(X[..., 0], marks, strict=True)])
    assert Y.var() == pytest.approx(tasks.BASELINES["adding"], rel=0.1)


def test_copy():
    X, Y = tasks.copy(50, n_symbols=4, n_copied=3, delay=5, seed=0)
    assert X.shape == Y.shape == (50, 11)
    np.testing.assert_array_equal(Y[:, -3:], X[:, :3])
    assert (Y[:, :-3] == 4).all()
    assert (X[:, 7] == 5).all()
    assert (np.delete(X[:, 3:], 4, axis=1) == 4).all()
    assert set(np.unique(X[:, :3])) == {0, 1, 2, 3}
    p = np.full((11, 5), 1e-300)  # the best that does not look: a blank for sure, then any symbol
    p[:8, 4], p[8:, :4] = 1, 0.25
    loss = -np.log(p[np.arange(11), Y]).mean()
    assert loss == pytest.approx(tasks.copy_baseline(4, 3, 5))


def test_parity():
    X, Y = tasks.parity(2000, min_steps=2, max_steps=5, seed=0)
    assert {len(x) for x in X} == {2, 3, 4, 5}
    assert [[sum(x.tolist()) % 2] for x in X] == Y.tolist()
    assert 0.45 < Y.mean() < 0.55


def test_temporal_order():
    X, Y = tasks.temporal_order(500, n_steps=60, seed=0)
    for x, y in zip(X, Y, strict=True):
        (first, second), symbols = np.flatnonzero(x < 2), x[x < 2]
        assert 6 <= first < 12
        assert 30 <= second < 36
        assert y == 2 * symbols[0] + symbols[1]
    assert set(Y.tolist()) == {0, 1, 2, 3}
    assert set(np.unique(X)) == set(range(6))


def test_embedded_reber():
    """Against the grammar as a regular expression."""
    after_x = "(?:XT*VP)*(?:S|XT*VV)"
    inner = f"B(?:TS*X{after_x}|PT*V(?:V|P{after_x}))E"
    X, Y = tasks.embedded_reber(300, seed=0)
    seen: dict[tuple[str, ...], set[str]] = {}
    for x, y in zip(X, Y, strict=True):
        string = "".join("BTPSXVE"[i] for i in x)
        assert re.fullmatch(rf"B([TP]){inner}\1", string), string
        may = ["".join("BTPSXVE"[i] for i in np.flatnonzero(row)) for row in y]
        assert may[-1] == "E"
        assert may[-2] == string[1], "only who remembers can know"
        assert all(symbol in follow for symbol, follow in zip(string[1:], may, strict=False))
        assert all(len(follow) == 2 for follow in may[2:-3])
        for i, follow in enumerate(may[:-3]):
            seen.setdefault((string[2 : i + 1], follow), set()).add(string[i + 1])
    often = {key: symbols for key, symbols in seen.items() if len(key[0]) < 3}
    assert all(symbols == set(follow) for (_, follow), symbols in often.items())


def test_sines():
    X, Y = tasks.sines(500, n_steps=40, noise=0.2, seed=0)
    assert X.shape == Y.shape == (500, 40, 1)
    assert (X[:, 1:] - Y[:, :-1]).std() == pytest.approx(0.2, rel=0.05)
    assert (Y**2).mean() == pytest.approx(tasks.BASELINES["sines"], rel=0.1)
    clean, ahead = tasks.sines(5, noise=0, seed=0)
    np.testing.assert_array_equal(clean[:, 1:], ahead[:, :-1])


def test_flip_flop():
    X, Y = tasks.flip_flop(200, n_bits=2, n_steps=30, probability=0.3, seed=0)
    assert X.shape == Y.shape == (200, 30, 2)
    assert set(np.unique(X)) == {-1, 0, 1}
    assert (X[:, 0] != 0).all()
    assert (X[:, 1:] != 0).mean() == pytest.approx(0.3, abs=0.02)
    for x, y in zip(X.swapaxes(1, 2).reshape(-1, 30), Y.swapaxes(1, 2).reshape(-1, 30), strict=True):
        last = 0.0
        for pulse, target in zip(x, y, strict=True):
            last = pulse or last
            assert target == last
    assert (Y**2).mean() == tasks.BASELINES["flip_flop"]
    assert abs(Y.mean()) < 0.05


def test_a_model_beats_the_baselines():
    X, Y = tasks.temporal_order(1000, n_steps=20, seed=0)
    model = elman.SequenceModel(elman.Tokens(6), elman.Categories(4), pattern="many-to-one", hidden_size=32, seed=0)
    assert model.evaluate(X, Y)["loss"] == pytest.approx(tasks.BASELINES["temporal_order"], rel=0.1)
    model.fit(X, Y, epochs=60, optimizer=elman.Adam(3e-3), clip_norm=1.0, progress=False)
    assert model.evaluate(*tasks.temporal_order(500, n_steps=20, seed=1))["accuracy"] > 0.95
    X, Y = tasks.embedded_reber(300, seed=0)
    grammar = elman.SequenceModel(elman.Tokens(7), elman.Binary(7), hidden_size=32, seed=0)
    grammar.fit(X, Y, epochs=30, optimizer=elman.Adam(5e-3), clip_norm=1.0, progress=False)
    assert grammar.evaluate(*tasks.embedded_reber(100, seed=1))["accuracy"] > 0.97
    assert math.isclose(tasks.BASELINES["parity"], math.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.adding(0), "n must be a positive int, got 0"),
        (lambda: tasks.adding(5, n_steps=1), "n_steps must be an int of at least 2, got 1"),
        (lambda: tasks.copy(5, n_symbols=0), "n_symbols must be a positive int, got 0"),
        (lambda: tasks.copy(5, delay=0.5), "delay must be a positive int, got 0.5"),
        (lambda: tasks.parity(5, min_steps=4, max_steps=3), "max_steps must be an int of at least 4, got 3"),
        (lambda: tasks.temporal_order(5, n_steps="a"), "n_steps must be an int of at least 10, got 'a'"),
        (lambda: tasks.sines(5, noise=-1), "noise must be a finite number of at least 0, got -1"),
        (lambda: tasks.flip_flop(5, probability=2), "probability must be a number from 0 to 1, got 2"),
        (lambda: tasks.embedded_reber(5, seed=-1), "seed must not be negative, got -1"),
    ],
)
def test_bad_input(call: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        call()
