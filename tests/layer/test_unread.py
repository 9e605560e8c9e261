"""Targets of weight 0 are not looked at: whatever stands there, results are those of any other value, to the bit."""

import copy
import importlib.util
from typing import Any

import numpy as np
import pytest

import elman

from ..models.test_patterns import LENGTHS, Problem, T, backend_names, combinations, make

POISON = {"Reals": [np.nan, np.inf, -np.inf, 1e300], "Binary": [np.nan, np.inf, -1.0, 2.0]}
CATEGORIES = [-2, 4, 77, 2**62, -(2**63)]


def poisoned(p: Problem) -> np.ndarray:
    """The targets with what must not be read: where the weight is 0 and nothing that counts is fed from there."""
    y, outputs, n_rows = p.y.copy(), p.model.outputs, p.weights.shape[-1]
    weights = p.weights.ravel() if p.model.pattern.endswith("one") else np.broadcast_to(p.weights, (T, n_rows))
    unread = weights == 0
    if p.model.pattern == "one-to-many":
        within = np.arange(T)[:, None] < (T if p.lengths is None else p.lengths)
        unread = ~np.logical_or.accumulate(((weights > 0) & within)[::-1])[::-1]
    values: Any = CATEGORIES if isinstance(outputs, elman.Categories) else POISON[type(outputs).__name__]
    y = y if isinstance(outputs, elman.Categories) else y.astype(np.float64)
    places = np.argwhere(unread)
    assert len(places)
    for i, place in enumerate(places.tolist()):
        y[tuple(place)] = values[i % len(values)]
    return y


def weighted(case: dict[str, str], dtype: str, backend: str, weights: str, lengths: bool = True) -> Problem:
    p = make(**case, weights=weights, dtype=dtype, backend=backend, lengths=lengths)
    if p.weights is not None and p.weights.shape[0] == T:
        p.weights[2, 2:] = p.weights[T - 1] = 0
        if p.lengths is not None:
            p.weights[p.lengths - 1, np.arange(len(p.lengths))] = 0
            p.weights[0, 1:] = 1
    return p


every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
every_weight = pytest.mark.parametrize("weights", ["rows", "steps"])


def same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@backend_names
@combinations
@every_dtype
@every_weight
def test_steps(case: dict[str, str], dtype: str, backend: str, weights: str) -> None:
    p = weighted(case, dtype, backend, weights)
    y = poisoned(p)
    loss, gradients = p.model.loss_and_grads(p.x, p.y, **p.options)
    unread_loss, unread = p.model.loss_and_grads(p.x, y, **p.options)
    assert unread_loss == loss
    same(unread.values(), gradients.values())
    assert p.model.loss(p.x, y, **p.options) == p.model.loss(p.x, p.y, **p.options)
    same(p.model.gradient_norms(p.x, y, **p.options), p.model.gradient_norms(p.x, p.y, **p.options))
    other = copy.deepcopy(p.model)
    other.train_step(p.x, p.y, optimizer=elman.SGD(0.1), **p.options)
    p.model.train_step(p.x, y, optimizer=elman.SGD(0.1), **p.options)
    same(p.model.parameters().values(), other.parameters().values())


def data_set(p: Problem, y: np.ndarray) -> tuple[list[Any], list[Any], Any]:
    """Arrays (T, B, ·) and lengths as sequences, and weights as `fit` takes them."""
    n = np.full(len(LENGTHS), T) if p.lengths is None else p.lengths
    one_in, one_out = p.model.pattern.startswith("one"), p.model.pattern.endswith("one")
    X = p.x if one_in else [p.x[: n[b], b] for b in range(len(n))]
    Y = y if one_out else [y[: n[b], b] for b in range(len(n))]
    if p.weights.ndim == 1:
        return X, Y, p.weights
    return X, Y, p.weights[0] if one_out else [p.weights[: n[b], b] for b in range(len(n))]


@backend_names
@combinations
@every_weight
@pytest.mark.parametrize("form", ["lists", "arrays"])
def test_data_sets(case: dict[str, str], backend: str, weights: str, form: str) -> None:
    p = weighted(case, "float32", backend, weights, lengths=form == "lists")
    results = []
    for y in (p.y, poisoned(p)):
        own = copy.deepcopy(p.model)
        X, Y, w = data_set(p, y)
        if form == "arrays":
            X, Y, w = np.stack([*X]), np.stack([*Y]), np.stack([*w])
        data: dict[str, Any] = {"validation_data": (X, Y, w), "weights": w}
        before = own.evaluate(X, Y, weights=w, batch_size=3)
        assert all(np.isfinite(value) for value in before.values())
        history = own.fit(X, Y, epochs=2, batch_size=2, optimizer=elman.SGD(0.1), progress=False, **data)
        results.append((before, dict(history), own.state_dict()))
    assert results[0][:2] == results[1][:2]
    same(results[0][2].values(), results[1][2].values())


@backend_names
def test_the_example_of_the_documentation(backend: str) -> None:
    model = elman.SequenceModel(elman.Features(2), elman.Reals(1), hidden_size=8, seed=0, backend=backend)
    x, y, weights = np.ones((3, 1, 2)), np.array([[1], [np.nan], [2]]), np.array([[1], [0], [1]])
    assert round(model.loss(x, y, weights=weights), 4) == 1.6941


NOT_THERE = [
    (elman.Reals(), [[1.0], [np.nan], [2.0]], r"y must be finite where .*, got nan at \[1, 0, 0\]"),
    (elman.Binary(), [[1.0], [2.0], [0.0]], r"y must hold values from 0 to 1 where .*, got 2.0 at \[1, 0, 0\]"),
    (elman.Categories(2), [[1], [7], [0]], r"y must hold -1 \(no target\) or .* where .*, got 7 at \[1, 0\]"),
    (elman.Categories(2), [[1], [-1], [0]], r"y must not have a target after a -1.*, got -1 at \[1, 0\]"),
]


@pytest.mark.parametrize(("outputs", "y", "message"), NOT_THERE)
def test_what_is_fed_back_before_a_target_that_counts(outputs: Any, y: Any, message: str) -> None:
    model = elman.SequenceModel(elman.Features(1), outputs, pattern="one-to-many", hidden_size=3, backend="numpy")
    x, weights, state = np.ones((1, 1)), [[1.0], [0.0], [1.0]], model.state_dict()
    if "after a -1" not in message:
        assert "where it is fed back before a target that counts" in message.replace("where .*", "") + (
            _error(model, x, y, weights)
        )
    with pytest.raises(ValueError, match=message):
        model.train_step(x, y, optimizer=elman.SGD(0.1), weights=weights)
    with pytest.raises(ValueError, match=message.replace("y must", r"Y\[0\] must").replace(", 0]", "]", 1)[:40]):
        model.fit(x, [np.array(y)[:, 0]], weights=[np.array(weights)[:, 0]], progress=False)
    same(model.state_dict().values(), state.values())
    assert model.loss(x, y[:2], weights=weights[:2]) == model.loss(x, [y[0], y[0]], weights=weights[:2])


def _error(model: Any, x: Any, y: Any, weights: Any) -> str:
    with pytest.raises(ValueError, match="fed back") as error:
        model.loss(x, y, weights=weights)
    return str(error.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_read_is_refused_all_the_same(wrong: float) -> None:
    model = elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=3, backend="numpy")
    x, y = np.ones((3, 2, 1)), np.ones((3, 2))
    y[1, 0] = y[2, 1] = wrong
    weights = np.ones((3, 2))
    weights[1, 0] = 0
    with pytest.raises(ValueError, match=rf"^y must be finite, got {wrong} at \[2, 1, 0\]$"):
        model.loss(x, y, weights=weights)
    with pytest.raises(ValueError, match=rf"^Y\[1\] must be finite, got {wrong} at \[2, 0\]$"):
        model.fit([*x.swapaxes(0, 1)], [*y.T], weights=[*weights.T], progress=False)
    with pytest.raises(ValueError, match="y must hold at least one target whose weight is not zero"):
        model.loss(x, y, weights=np.zeros((3, 2)))


def test_a_row_without_steps_may_have_a_target_that_does_not_count() -> None:
    model = elman.SequenceModel(elman.Tokens(2), elman.Reals(), pattern="many-to-one", hidden_size=3, backend="numpy")
    x, lengths = np.zeros((2, 2), dtype=int), [2, 0]
    expected = model.loss(x[:, :1], [1.0])
    assert model.loss(x, [1.0, np.nan], lengths=lengths, weights=[1, 0]) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"lengths must be at least 1 where a row has a target, got 0 at \[1\]"):
        model.loss(x, [1.0, 1.0], lengths=lengths, weights=[1, 1])


def test_nothing_is_written_to_the_caller_s_targets() -> None:
    model = elman.SequenceModel(elman.Features(1), elman.Categories(2), hidden_size=3, backend="numpy")
    y = np.array([[1], [9], [0]])
    y.flags.writeable = False
    model.loss(np.ones((3, 1, 1)), y, weights=[[1], [0], [1]])
    numbers = elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=3, dtype="float64", backend="numpy")
    y = np.array([[1], [np.nan], [0]])
    y.flags.writeable = False
    numbers.loss(np.ones((3, 1, 1)), y, weights=[[1], [0], [1]])


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_sample_weight() -> None:
    from elman.sklearn import RNNRegressor

    X = np.random.default_rng(0).normal(size=(6, 4, 1))
    y, weights = X[:, 0, 0].copy(), np.array([1, 0, 2, 1, 0, 1])
    options: dict[str, Any] = {"hidden_size": 3, "random_state": 0, "max_iter": 3, "tol": 1e9, "n_iter_no_change": 1}
    expected = RNNRegressor(**options).fit(X, y, sample_weight=weights)
    y[1], y[4] = np.nan, np.inf
    found = RNNRegressor(**options).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    found.partial_fit(X, y, sample_weight=weights)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        RNNRegressor(**options).fit(X, y)
    with pytest.raises(ValueError, match="Input y contains infinity"):
        RNNRegressor(**options).fit(X, y, sample_weight=[1, 0, 1, 1, 1, 1])
