"""Some rows of a stream at a time: each goes on as it would alone, to the bit, and the others stay."""

from typing import Any

import numpy as np
import pytest

import elman

N, R, V = 7, 3, 5
BACKENDS = elman.available_backends()
MODELS: list[dict[str, Any]] = [
    {"inputs": "tokens", "learn_h_0": True},
    {"inputs": "features", "num_layers": 2, "pattern": "many-to-one"},
    {"inputs": "features", "noise": 0.3, "input_noise": 0.1, "hidden_size": 1},
    {"inputs": "tokens", "noise": 0.3, "leak": 0.4, "form": "potential", "num_layers": 2, "pattern": "many-to-one"},
    {"inputs": "features", "excitatory": 0.6, "learn_h_0": True},
]


def make(*, inputs: str = "features", **options: Any) -> elman.SequenceModel:
    kind: Any = elman.Tokens(V) if inputs == "tokens" else elman.Features(2)
    model = elman.SequenceModel(kind, elman.Categories(4), **{"hidden_size": 19, "seed": 1} | options)
    if model.learn_h_0:
        model.parameters()["h_0"][...] = np.random.default_rng(2).uniform(-1, 1, model.parameters()["h_0"].shape)
    return model


def steps_of(model: elman.SequenceModel, rng: np.random.Generator, *axes: int) -> Any:
    return rng.integers(0, V, axes) if isinstance(model.inputs, elman.Tokens) else rng.standard_normal((*axes, 2))


@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_row_goes_on_as_it_would_alone(options: dict[str, Any], backend: str, dtype: str):
    model, rng = make(**options, backend=backend, dtype=dtype), np.random.default_rng(0)
    seeds = rng.integers(0, 99, N)
    stream = model.stream(N, noise_seed=seeds)
    alone = [model.stream(1, noise_seed=seeds[b : b + 1]) for b in range(N)]
    bound = {"float32": 1e-5, "float64": 1e-13}[dtype] if backend == "numpy" else 0
    for i in range(14):
        rows: Any = rng.permutation(N)[: rng.integers(1, N + 1)]
        n = (1, 3, 2)[i % 3]
        x, resets = steps_of(model, rng, n, len(rows)), None if i % 4 else rng.random((n, len(rows))) < 0.3
        before, given = stream.state.copy(), rows.tolist()
        if i == 5:
            given = np.zeros(N, bool)
            given[rows], rows = True, np.sort(rows)
        got = stream.predict_proba(x, rows=given, resets=resets)
        for j, b in enumerate(rows):
            own = alone[b].predict_proba(x[:, j : j + 1], resets=None if resets is None else resets[:, j : j + 1])
            place = (slice(None), slice(j, j + 1)) if model.pattern == "many-to-many" else slice(j, j + 1)
            np.testing.assert_allclose(got[place], own, rtol=0, atol=bound)
            np.testing.assert_allclose(stream.state[:, b], alone[b].state[:, 0], rtol=0, atol=bound)
        others = np.setdiff1d(np.arange(N), rows)
        np.testing.assert_array_equal(stream.state[:, others], before[:, others])
        if i == 8:
            stream.reset(rows[:2])
            for b in rows[:2]:
                alone[b].reset([0])
    x = steps_of(model, rng, 2, N)  # all of them, from unequal numbers of steps
    expected = [one.predict_proba(x[:, b : b + 1]) for b, one in enumerate(alone)]
    axis = 1 if model.pattern == "many-to-many" else 0
    np.testing.assert_allclose(stream.predict_proba(x), np.concatenate(expected, axis), rtol=0, atol=bound)


def test_a_model_that_is_served_takes_and_gives_back_rows():
    """Eight sequences of unequal lengths in three rows: whenever one is over, the next one has its row."""
    model, rng = make(inputs="tokens"), np.random.default_rng(4)
    waiting = {i: rng.integers(0, V, n) for i, n in enumerate([4, 1, 9, 2, 2, 6, 3, 1])}
    expected = {i: model.predict([x])[0].tolist() for i, x in waiting.items()}
    stream, queue, free = model.stream(R), list(waiting), [*range(R)]
    served, came = dict[int, int](), {i: list[int]() for i in waiting}
    while came != expected:
        while free and queue:
            row = free.pop()
            served[row] = queue.pop(0)
            stream.reset(row)
        rows = [row for row in served if rng.random() < 0.7] or [min(served)]
        x = [[waiting[served[row]][len(came[served[row]])] for row in rows]]
        for row, label in zip(rows, stream.predict(x, rows=rows)[0], strict=True):
            i = served[row]
            came[i].append(int(label))
            assert came[i] == expected[i][: len(came[i])]
            if len(came[i]) == len(waiting[i]):
                del served[row]
                free.append(row)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 3], ValueError, "rows must be from 0 to 2, got 0 to 3"),
        ([-1], ValueError, "rows must be from 0 to 2, got -1 to -1"),
        ([1, 2, 1], ValueError, "rows must have each row once, got 1 more often"),
        ([[0, 1]], ValueError, r"rows must have shape \(R,\), got \(1, 2\)"),
        ([True], ValueError, r"rows must have shape \(3,\), got \(1,\)"),
        ([0.5], TypeError, "rows must hold integers, got float64"),
        ([0, 2], ValueError, r"x must have shape \(T, 2\), got \(4, 3\)"),
        ([], ValueError, r"x must have shape \(4, 0\), got \(4, 3\)"),
    ],
    ids=str,
)
def test_what_is_refused(rows: Any, error: type[Exception], message: str):
    model = make(inputs="tokens")
    stream, x = model.stream(R), np.zeros((4, R), int)
    stream.predict(x)
    before = stream.state.copy()
    for method in (stream.predict, stream.predict_proba):
        with pytest.raises(error, match=f"^{message}"):
            method(x, rows=rows)
    if message.startswith("rows"):
        with pytest.raises(error, match=f"^{message}"):
            stream.reset(rows)
    np.testing.assert_array_equal(stream.state, before)
    with pytest.raises(ValueError, match=r"^rows must be None for a stream without a batch size"):
        model.stream().predict([0], rows=[0])


@pytest.mark.parametrize("rows", [[], [False] * R, np.zeros(0, int)], ids=str)
def test_of_no_rows_nothing_comes(rows: Any):
    for options in ({"inputs": "tokens"}, {"pattern": "many-to-one"}):
        model = make(**options)
        stream = model.stream(R)
        x = np.zeros((4, R), int) if options.get("inputs") else np.ones((4, R, 2))
        for method in (stream.predict, stream.predict_proba):
            expected = method(x)
            found, before = method(x[:, :0], rows=rows), stream.state.copy()
            one_output = model.pattern == "many-to-one"
            assert found.shape == ((0, *expected.shape[1:]) if one_output else (4, 0, *expected.shape[2:]))
            assert found.dtype == expected.dtype
            stream.reset(rows)
            np.testing.assert_array_equal(stream.state, before)


def test_an_outcome_that_is_not_finite_changes_nothing():
    model = make()
    stream = model.stream(R, noise_seed=3)
    stream.predict(np.ones((2, 2, 2)), rows=[2, 0])
    before = stream.state.copy()
    model.parameters()["bias_o"][0] = np.inf
    with pytest.raises(FloatingPointError):
        stream.predict(np.ones((2, 1, 2)), rows=[2])
    np.testing.assert_array_equal(stream.state, before)
