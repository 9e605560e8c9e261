"""`find_lr`: what a loop of one's own finds, and nothing is changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.models.base import network_of

X = [np.arange(i, i + 3 + i % 4) % 3 for i in range(12)]
Y = [np.roll(x, -1) for x in X]
TABLE = np.arange(40).reshape(4, 10) % 3


def make(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=8, seed=0, **options)


def state_of(model: Any, optimizer: Any) -> list[Any]:
    generators = [generator.bit_generator.state for generator in network_of(model).generators()]
    return [*generators, repr(optimizer), optimizer.steps, *(array.tobytes() for array in model.parameters().values())]


def test_as_a_loop_of_one_s_own():
    model, other, optimizer = make(), make(), elman.SGD(7.0, momentum=0.5)
    before = state_of(model, optimizer)
    found = model.find_lr(
        TABLE, TABLE[:, ::-1], lr=(1e-3, 0.1), steps=9, optimizer=optimizer, shuffle=False, clip_norm=1
    )
    assert state_of(model, optimizer) == before
    losses, own = [], elman.SGD(1.0, momentum=0.5)
    for i in range(9):
        own.lr = 1e-3 * 100 ** (i / 8)
        np.testing.assert_allclose(found.lr[i], own.lr, rtol=1e-12)
        own.lr = float(found.lr[i])
        losses.append(other.train_step(TABLE.T, TABLE[:, ::-1].T, optimizer=own, clip_norm=1.0))
    assert found.loss.tolist() == losses
    weights = 0.9 ** np.arange(9)
    smoothed = [np.average(losses[: n + 1], weights=weights[: n + 1][::-1]) for n in range(9)]
    np.testing.assert_allclose(found.smoothed, smoothed, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_where_it_falls_fastest(n: int):
    """At the update behind which the next loss is least, as long as it falls."""
    smoothed = np.array([3.0, 2.9, 2.8, 2.0, 1.9, 1.9, 1.8, 9.0, 3.0])[: n + 1]
    found = elman.training.rates.LearningRates(np.geomspace(1e-3, 1, n + 1), smoothed, smoothed)
    assert found.steepest == found.lr[{1: 0, 3: 2, 7: 2}[n]]
    rising = elman.training.rates.LearningRates(found.lr, smoothed[::-1], np.arange(n + 1.0))
    assert rising.steepest == found.lr[0]


def test_batches_that_differ_at_first():
    """The means of the first losses fall by chance, below all that comes later, too."""
    lr, smoothed = np.geomspace(1e-5, 1, 100), np.full(100, 0.7)
    smoothed[:4] = 1.2, 0.8, 0.4, 0.6
    smoothed[50:60] = 0.7 - 0.02 * np.arange(10)
    found = elman.training.rates.LearningRates(lr, smoothed, smoothed)
    assert lr[45] < found.steepest < lr[60]


def test_where_the_loss_leaps_it_says_nothing():
    lr = np.geomspace(1e-5, 1, 100)
    loss = np.interp(np.arange(100), [0, 40, 60, 70, 90, 99], [0.7, 0.7, 0.5, 0.8, 0.8, 0.2])
    found = elman.training.rates.LearningRates(lr, loss, loss)
    assert lr[40] < found.steepest < lr[60]


@pytest.mark.parametrize("seed", range(5))
def test_batches_that_differ_throughout(seed: int):
    """What they fall and rise by chance, before the loss falls, is no leap."""
    lr, rng = np.geomspace(1e-5, 1, 100), np.random.default_rng(seed)
    true = np.interp(np.arange(100), [0, 40, 65, 75, 85, 99], [1, 1, 0.3, 0.3, 0.9, 2])
    loss, weights = true * rng.lognormal(0, 0.2, 100), 0.9 ** np.arange(100)
    smoothed = np.array([np.average(loss[: n + 1], weights=weights[: n + 1][::-1]) for n in range(100)])
    found = elman.training.rates.LearningRates(lr, loss, smoothed)
    assert lr[35] < found.steepest < lr[75]


def test_it_learns_with_what_was_found(tmp_path: Path):
    model = make(dropout=0.1, num_layers=2)
    before = state_of(model, elman.SGD(1))
    found = model.find_lr(X, Y, batch_size=4)
    assert state_of(model, elman.SGD(1)) == before
    losses = [
        make().fit(X, Y, epochs=10, optimizer=elman.Adam(lr), progress=False)["loss"][-1]
        for lr in (found.steepest, found.steepest / 1000)
    ]
    assert losses[0] < 0.7 * losses[1]
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes()[1:4] == b"PNG"


def test_it_ends_where_it_diverges():
    series = np.random.default_rng(0).normal(size=(6, 9, 2))
    model = elman.SequenceModel(elman.Features(2), elman.Reals(2), hidden_size=4, nonlinearity="relu", seed=0)
    found = model.find_lr(series, series, lr=(1e-3, 1e30), optimizer=elman.SGD(1))
    assert 10 < len(found.loss) < 60
    assert np.isfinite(found.smoothed).all()
    model.parameters()["bias_o"][0] = np.nan
    with pytest.raises(FloatingPointError, match="step 1"):
        model.find_lr(series, series)


def test_pairs_and_batches_from_a_function():
    pairs = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0)
    found = pairs.find_lr(X, Y, steps=5, lr=(0.1, 0.2))
    assert found.lr.tolist() == np.geomspace(0.1, 0.2, 5).tolist()
    assert make().find_lr(lambda: iter([(X, Y)]), steps=3).loss.shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps must be an int from 2 to"),
        ({"lr": 0.1}, "lr must be a pair, got 0.1"),
        ({"lr": (0, 0.1)}, r"lr\[0\] must be a number above 0, got 0"),
        ({"lr": (0.1, 0.1)}, r"lr\[0\] must be below lr\[1\], 0.1, got 0.1"),
        ({"lr": (0.1, np.inf)}, r"lr"),
        ({"epochs": 3}, "find_lr must not be given epochs, which it sets or does without"),
        ({"callbacks": []}, "find_lr must not be given callbacks"),
        ({"optimizer": "sgd"}, r"optimizer must be one of elman's, .* got 'sgd': elman.SGD\(lr\)"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        make().find_lr(X, Y, **options)
