"""`fit(validation_split=)`: the same bits as with the two parts given apart, whatever the data are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elman
from elman.data import sequences

from ..compare import assert_same_bits
from .test_on_demand import OnDisk

N, V = 23, 5
RNG = np.random.default_rng(0)
X = [RNG.integers(0, V, 2 + i % 9) for i in range(N)]
Y = [np.where(RNG.random(len(x)) < 0.2, -1, np.roll(x, -1)) for x in X]
Y[3], Y[20] = (np.full(len(X[i]), -1) for i in (3, 20))  # sequences without any target, in both parts
WEIGHTS = np.linspace(0.5, 1.5, N)
TABLE = RNG.integers(0, V, (N, 6))
FEATURES = RNG.normal(size=(N, 7, 3))


def ragged() -> tuple[Any, ...]:
    return X, Y, WEIGHTS


def table() -> tuple[Any, ...]:
    return TABLE, np.roll(TABLE, -1, axis=1), None


def on_disk() -> tuple[Any, ...]:
    return OnDisk(TABLE), OnDisk(np.roll(TABLE, -1, axis=1)), None


def make(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), hidden_size=6, dropout=0.2, seed=0, **options)


def part_of(data: tuple[Any, ...], part: slice) -> tuple[Any, ...]:
    return tuple(None if one is None else OnDisk(one[part]) if isinstance(one, OnDisk) else one[part] for one in data)


@pytest.mark.parametrize("data", [ragged, table, on_disk])
@pytest.mark.parametrize(("fraction", "n_last"), [(0.1, 2), (0.5, 12), (0.95, 22), (0.03, 1)])
def test_as_two_parts(
    data: Callable[[], tuple[Any, ...]], fraction: float, n_last: int, monkeypatch: pytest.MonkeyPatch
):
    n = N - n_last
    for most in (1 << 20, 0):  # data that are read when they are needed are too many to be listed
        monkeypatch.setattr(sequences, "_MOST_LISTED", most)
        one, other, options = make(noise=0.1), make(noise=0.1), {"epochs": 2, "batch_size": 4, "progress": False}
        x, y, weights = data()
        history = one.fit(x, y, weights=weights, validation_split=fraction, **options)
        x, y, weights = part_of(data(), slice(n))
        held_out = part_of(data(), slice(n, None))
        assert history == other.fit(x, y, weights=weights, validation_data=held_out, **options)
        assert_same_bits(one.parameters(), other.parameters())


def test_balanced_classes_are_those_of_what_is_trained_on():
    def balanced() -> elman.SequenceModel:
        outputs = elman.Categories(V, class_weights="balanced")
        return elman.SequenceModel(elman.Tokens(V), outputs, hidden_size=6, seed=0)

    one, other, options = balanced(), balanced(), {"epochs": 2, "batch_size": 4, "progress": False}
    history = one.fit(X, Y, validation_split=0.5, **options)
    assert history == other.fit(X[:11], Y[:11], validation_data=(X[11:], Y[11:]), **options)
    assert_same_bits(one.parameters(), other.parameters())


def test_pairs_and_windows():
    def pairs() -> elman.Seq2Seq:
        return elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=6, seed=0)

    options = {"epochs": 2, "batch_size": 4, "progress": False}
    one, other = pairs(), pairs()
    history = one.fit(X, X, validation_split=0.3, **options)
    assert history == other.fit(X[:16], X[:16], validation_data=(X[16:], X[16:]), **options)
    assert_same_bits(one.parameters(), other.parameters())
    series = RNG.integers(0, V, 61)
    one, other = make(), make()
    history = one.fit(elman.Windows(series, 10, stride=10), validation_split=0.5, **options)
    held_out = elman.Windows(series[30:], 10, stride=10)
    assert history == other.fit(elman.Windows(series[:31], 10, stride=10), validation_data=held_out, **options)
    assert_same_bits(one.parameters(), other.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0}, "validation_split must be a number above 0, got 0"),
        ({"validation_split": 1}, "validation_split must be a number from 0 to 1, exclusive, got 1"),
        ({"validation_split": "0.1"}, "validation_split must be a number from 0 to 1, exclusive, got '0.1'"),
        ({"validation_split": 0.01}, "validation_split must leave a sequence for each part, got 0.01 of 23"),
        ({"validation_split": 0.95}, "validation_split must leave a target for each part, got 0.95 of 23 sequences"),
        (
            {"validation_split": 0.1, "validation_data": (X, Y)},
            "validation_split must be None where there is validation_data, got 0.1",
        ),
        (
            {"X": lambda: iter([(X, Y)]), "Y": None, "validation_split": 0.1},
            "validation_split must be None where X is a function that returns batches, got 0.1",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str):
    model = make()
    before = model.state_dict()
    given = {"X": X, "Y": [np.full(2, -1), *Y[1:]], "progress": False} | options
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        model.fit(**given)
    assert_same_bits(model.parameters(), before)
