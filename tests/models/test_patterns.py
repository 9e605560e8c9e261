"""Patterns, inputs and outputs of SequenceModel, in all combinations: losses by hand, gradients, PyTorch, data sets."""

import copy
import itertools
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

import elman
from elman.models.base import network_of

from ..compare import assert_same_bits

T, B, H, V, N = 6, 4, 5, 4, 3
LENGTHS = np.array([3, 6, 1, 5])

backend_names = pytest.mark.parametrize("backend", elman.available_backends())
compiled_names = pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])

PATTERNS = ("many-to-many", "many-to-one", "one-to-one", "one-to-many")
INPUTS = {"tokens": elman.Tokens(V), "features": elman.Features(N)}
OUTPUTS = {
    "categories": elman.Categories(V),
    "weighted categories": elman.Categories(V, class_weights=[1, 0.5, 2, 0.3]),
    "binary": elman.Binary(2),
    "weighted binary": elman.Binary(class_weights=[1, 3]),
    "reals": elman.Reals(N),
    "one real": elman.Reals(),
}


class Problem(NamedTuple):
    """A model with a batch for it, as the step level takes it."""

    model: elman.SequenceModel
    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray | None
    weights: np.ndarray | None

    @property
    def options(self) -> dict[str, Any]:
        return {"lengths": self.lengths, "weights": self.weights}


def targets(outputs: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if isinstance(outputs, elman.Categories):
        return rng.integers(0, V, shape)
    if isinstance(outputs, elman.Binary):
        return rng.integers(0, 2, (*shape, outputs.n)).astype(bool)
    return rng.standard_normal((*shape, outputs.n))


def make(
    inputs: str = "tokens",
    outputs: str = "categories",
    pattern: str = "many-to-many",
    *,
    lengths: bool = True,
    weights: str | None = None,
    dtype: str = "float64",
    **options: Any,
) -> Problem:
    """Random, from the arguments alone. Some categories are missing, and beyond the lengths there is poison."""
    rng = np.random.default_rng([len(inputs), len(outputs), len(pattern), lengths])
    kind_in, kind_out = INPUTS[inputs], OUTPUTS[outputs]
    model = elman.SequenceModel(
        kind_in, kind_out, pattern=pattern, **{"hidden_size": H, "seed": 1, "dtype": dtype} | options
    )
    x_shape = (B,) if pattern.startswith("one") else (T, B)
    y_shape = (B,) if pattern.endswith("one") else (T, B)
    x = rng.integers(0, V, x_shape) if inputs == "tokens" else rng.standard_normal((*x_shape, N))
    y = targets(kind_out, y_shape, rng)
    if isinstance(kind_out, elman.Categories):
        y[-1] = -1 if pattern == "one-to-many" else np.where(rng.random(y[-1].shape) < 0.4, -1, y[-1])
        y[..., 1] = 1  # at least one that counts
    n = LENGTHS if lengths and pattern != "one-to-one" else None
    if n is not None:
        beyond = np.arange(T)[:, None] >= n
        if x.shape[:2] == (T, B):
            x[beyond] = 77 if inputs == "tokens" else np.nan
        if y.shape[:2] == (T, B):
            y = y.astype(float) if y.dtype == bool else y
            y[beyond] = 99 if y.dtype == int else np.nan
    w = (
        None
        if weights is None
        else rng.uniform(0.5, 2, (B,) if weights == "rows" else y_shape if len(y_shape) == 2 else (1, B))
    )
    if w is not None:
        w[..., 0] = 0
    return Problem(model, x, y, n, w)


COMBINATIONS = [
    {"inputs": i, "outputs": o, "pattern": p}
    for i, o, p in itertools.product(INPUTS, OUTPUTS, PATTERNS)
    if not (p == "one-to-many" and i == "tokens" and "categories" not in o)
]
PREDICTING = [case for case in COMBINATIONS if case["pattern"] != "one-to-many"]
predicting = pytest.mark.parametrize("case", PREDICTING, ids=lambda case: "-".join(case.values()))
combinations = pytest.mark.parametrize("case", COMBINATIONS, ids=lambda case: "-".join(case.values()))


# The loss, by hand


def loss_of_step(outputs: Any, o: np.ndarray, y: Any) -> tuple[float, float]:
    """The loss of one step by its definition, and its class weight."""
    if isinstance(outputs, elman.Categories):
        weight = 1.0 if outputs.class_weights is None else outputs.class_weights[y]
        return float(-np.log(np.exp(o[y]) / np.exp(o).sum())), weight
    if isinstance(outputs, elman.Binary):
        p = 1 / (1 + np.exp(-o))
        weight = 1.0 if outputs.class_weights is None else outputs.class_weights[int(y[0])]
        return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))), weight
    return float(np.mean((o - y) ** 2)), 1.0


def fed_back(model: elman.SequenceModel, y: Any) -> np.ndarray:
    return np.eye(V)[y] if isinstance(model.outputs, elman.Categories) else y


def outputs_of_row(p: Problem, b: int) -> list[np.ndarray]:
    """The outputs for the targets of one row, by the layer alone, whose input is put together here."""
    model, n = p.model, T if p.lengths is None else int(p.lengths[b])
    x: Any = p.x[b : b + 1] if p.model.pattern.startswith("one") else p.x[:n, b]
    x = np.eye(V)[x] if x.dtype == int else x
    if model.pattern == "one-to-many":
        y = [fed_back(model, p.y[t, b]) for t in range(n - 1)]
        if isinstance(model.inputs, elman.Tokens):
            x = np.array([x[0], *y])
        else:
            rows = [np.concatenate([x[0], np.zeros(model.outputs.n)])]
            x = np.array(rows + [np.concatenate([np.zeros(N), item]) for item in y])
    h, h_n = model.rnn(x)
    if model.pattern.endswith("one"):
        h = np.concatenate(h_n[-2:] if model.rnn.bidirectional else h_n[-1:])[None]
    return list(h @ model.parameters()["weight_ho"].T + model.parameters()["bias_o"])


def loss_by_hand(p: Problem) -> float:
    sums = np.zeros(2)
    for b in range(B):
        for t, o in enumerate(outputs_of_row(p, b)):
            y = p.y[b] if p.model.pattern.endswith("one") else p.y[t, b]
            weight = 1.0 if p.weights is None else np.broadcast_to(p.weights, (T, B))[t, b]
            if not (isinstance(p.model.outputs, elman.Categories) and y < 0):
                loss, class_weight = loss_of_step(p.model.outputs, o, y)
                sums += weight * class_weight * np.array([loss, 1])
    return sums[0] / sums[1]


def variants(pattern: str) -> list[dict[str, Any]]:
    more = [] if pattern == "one-to-many" else [{"bidirectional": True, "weights": "steps", "num_layers": 2}]
    return [{"lengths": False}, {"num_layers": 2, "weights": "rows"}, {"weights": "steps"}, *more]


@backend_names
@combinations
def test_loss_by_hand(case: dict[str, str], backend: str):
    for options in variants(case["pattern"]):
        p = make(**case, **options, backend=backend)
        expected = loss_by_hand(p)
        assert p.model.loss(p.x, p.y, **p.options) == pytest.approx(expected, rel=1e-12)
        assert p.model.loss_and_grads(p.x, p.y, **p.options)[0] == pytest.approx(expected, rel=1e-12)
        assert p.model.train_step(p.x, p.y, **p.options, optimizer=elman.SGD(0.1)) == pytest.approx(expected, rel=1e-12)
        assert p.model.loss(p.x, p.y, **p.options) < expected


@backend_names
@combinations
def test_central_differences(case: dict[str, str], backend: str, rng: np.random.Generator):
    for options in variants(case["pattern"]):
        drops = {"dropout": 0.3, "recurrent_dropout": 0.2} if "num_layers" in options else {}
        p = make(**case, **options, **drops, learn_h_0=True, backend=backend)
        p.model.parameters()["h_0"][:] = rng.standard_normal(p.model.parameters()["h_0"].shape)
        again = copy.deepcopy(p.model)  # to draw the same dropout in every evaluation
        _, gradients = p.model.loss_and_grads(p.x, p.y, **p.options)
        parameters = p.model.state_dict()

        def value(parameters: dict[str, np.ndarray], again: Any = again, p: Problem = p) -> float:
            twin = copy.deepcopy(again)
            twin.load_state_dict(parameters)
            return twin.loss_and_grads(p.x, p.y, **p.options)[0]

        for _ in range(3):
            along = {name: rng.standard_normal(array.shape) for name, array in parameters.items()}
            ahead, behind = (value({k: parameters[k] + e * along[k] for k in parameters}) for e in (1e-6, -1e-6))
            slope = sum((gradients[name] * along[name]).sum() for name in parameters)
            assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)


# The same numbers in several ways


@backend_names
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one"])
def test_one_hot_features_are_tokens(pattern: str, backend: str):
    p = make("tokens", pattern=pattern, backend=backend, num_layers=2)
    options = {"pattern": pattern, "hidden_size": H, "num_layers": 2, "seed": 1, "dtype": "float64", "backend": backend}
    features = elman.SequenceModel(elman.Features(V), OUTPUTS["categories"], **options)
    assert_same_bits(features.parameters(), p.model.parameters())
    one_hot = np.eye(V)[p.x.clip(0, V - 1)]
    loss, gradients = p.model.loss_and_grads(p.x, p.y, **p.options)
    other_loss, other_gradients = features.loss_and_grads(one_hot, p.y, **p.options)
    assert other_loss == pytest.approx(loss, rel=1e-12)
    for name, array in gradients.items():
        np.testing.assert_allclose(other_gradients[name], array, rtol=1e-11, atol=1e-14)


@backend_names
@combinations
def test_forms_of_targets_and_inputs(case: dict[str, str], backend: str):
    p = make(**case, lengths=False, backend=backend)
    loss = p.model.loss(p.x, p.y)
    if case["pattern"].startswith("one"):
        assert p.model.loss(p.x[None], p.y) == loss
    if case["pattern"] == "one-to-one":
        assert p.model.loss(p.x, p.y[None]) == loss
    if p.y.shape[-1] == 1 and "categories" not in case["outputs"]:
        assert p.model.loss(p.x, p.y[..., 0]) == loss
    assert p.model.loss(p.x, p.y.tolist()) == loss
    if p.y.dtype == bool:
        assert p.model.loss(p.x, p.y.astype(np.uint8)) == p.model.loss(p.x, p.y.astype(np.float32)) == loss
    if case["outputs"].endswith("real"):
        whole = np.round(p.y)
        assert p.model.loss(p.x, whole.astype(np.int32)) == p.model.loss(p.x, whole)


@combinations
def test_weights_of_one_change_nothing(case: dict[str, str]):
    p = make(**case)
    loss, gradients = p.model.loss_and_grads(p.x, p.y, lengths=p.lengths)
    for weights in (np.ones(B), np.ones(B, dtype=bool), [1] * B):
        same, same_gradients = p.model.loss_and_grads(p.x, p.y, lengths=p.lengths, weights=weights)
        assert same == loss
        assert_same_bits(same_gradients, gradients)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_weight_of_zero_is_no_target(outputs: str):
    p = make("features", outputs, lengths=False)
    few, gradients = p.model.loss_and_grads(p.x[:4], p.y[:4])
    hidden = np.ones((T, B))
    hidden[4:] = 0
    same, same_gradients = p.model.loss_and_grads(p.x, p.y, weights=hidden)
    assert same == few
    for name, array in gradients.items():
        np.testing.assert_allclose(same_gradients[name], array, rtol=1e-12, atol=1e-15)


# PyTorch


@backend_names
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("outputs", ["categories", "weighted categories", "binary", "reals"])
def test_gradients_are_those_of_torch(outputs: str, pattern: str, bidirectional: bool, backend: str):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test: pip install torch")
    torch.set_num_threads(1)
    options = {"num_layers": 2, "bidirectional": bidirectional, "backend": backend}
    p = make("features", outputs, pattern, lengths=pattern == "many-to-one", **options)
    kind, layer = p.model.outputs, p.model.rnn
    rnn = torch.nn.RNN(N, H, 2, bidirectional=bidirectional, dtype=torch.float64)
    rnn.load_state_dict({name: torch.tensor(array) for name, array in layer.state_dict(pytorch=True).items()})
    weight, bias = (torch.tensor(p.model.parameters()[name], requires_grad=True) for name in ("weight_ho", "bias_o"))
    x: Any = torch.tensor(np.nan_to_num(p.x))
    if p.lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(p.lengths), enforce_sorted=False)
    h, h_n = rnn(x)
    if pattern == "many-to-one":
        h = torch.cat(tuple(h_n[-2:]), dim=1) if bidirectional else h_n[-1]
    o, y = h @ weight.T + bias, torch.tensor(p.y)
    if isinstance(kind, elman.Categories):
        given = None if kind.class_weights is None else torch.tensor(kind.class_weights)
        loss = torch.nn.functional.cross_entropy(o.reshape(-1, V), y.reshape(-1), weight=given, ignore_index=-1)
    elif isinstance(kind, elman.Binary):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(o, y.double())
    else:
        loss = torch.nn.functional.mse_loss(o, y)
    loss.backward()
    own, gradients = p.model.loss_and_grads(p.x, p.y, lengths=p.lengths)
    assert own == pytest.approx(loss.item(), rel=1e-12)
    named = {name.replace("bias_ih", "bias"): v for name, v in rnn.named_parameters() if "bias_hh" not in name}
    for name, tensor in {**named, "weight_ho": weight, "bias_o": bias}.items():
        np.testing.assert_allclose(gradients[name], tensor.grad, rtol=0, atol=1e-12, err_msg=name)


# Data sets


class DataSet(NamedTuple):
    X: Any
    Y: Any
    weights: Any


def data_set(p: Problem, rng: np.random.Generator, n: int = 23, *, array: bool = False) -> DataSet:
    """n sequences in lists, or as arrays."""
    lengths = np.full(n, 5) if array else rng.integers(1, 12, n)
    one_in, one_out = p.model.pattern.startswith("one"), p.model.pattern.endswith("one")

    def inputs(shape: tuple[int, ...]) -> np.ndarray:
        return (
            rng.integers(0, V, shape) if isinstance(p.model.inputs, elman.Tokens) else rng.standard_normal((*shape, N))
        )

    X: Any = inputs((n,)) if one_in else [inputs((k,)) for k in lengths]
    Y: Any = targets(p.model.outputs, (n,), rng) if one_out else [targets(p.model.outputs, (k,), rng) for k in lengths]
    w: Any = rng.uniform(0, 2, n) if one_out else [rng.uniform(0, 2, k) for k in lengths]
    return DataSet(np.array(X), np.array(Y), np.array(w)) if array else DataSet(X, Y, w)


def padded(items: Any, one: bool) -> np.ndarray:
    """(T, B, ·), or the items themselves where there is one for each row."""
    if one:
        return np.array(items)
    first = np.asarray(items[0])
    out = np.zeros((max(map(len, items)), len(items), *first.shape[1:]), first.dtype)
    for b, item in enumerate(items):
        out[: len(item), b] = item
    return out


def step_arguments(p: Problem, data: DataSet) -> dict[str, Any]:
    """A whole data set as one batch of the step level, the shorter ones padded with zeros."""
    one_in, one_out = p.model.pattern.startswith("one"), p.model.pattern.endswith("one")
    weights = data.weights if one_out else padded(data.weights, one=False)
    arguments = {"x": padded(data.X, one_in), "y": padded(data.Y, one_out), "weights": weights}
    if p.model.pattern != "one-to-one":
        arguments["lengths"] = [len(item) for item in (data.Y if one_in else data.X)]
    return arguments


@backend_names
@combinations
def test_ragged_and_padded_data_have_the_same_bits(
    case: dict[str, str], backend: str, dtype: str, rng: np.random.Generator
):
    p = make(**case, num_layers=2, dropout=0.2, backend=backend, dtype=dtype)
    data = data_set(p, rng)
    lengths = (
        [len(item) for item in (data.Y if case["pattern"] == "one-to-many" else data.X)]
        if case["pattern"] != "one-to-one"
        else [1] * 23
    )
    order = np.argsort(lengths, kind="stable")  # as a batch has them
    in_order = DataSet(*([part[i] for i in order] for part in data))
    once, again = copy.deepcopy(p.model), copy.deepcopy(p.model)
    options = {"clip_norm": 0.5, "clip_value": 0.1}
    history = once.fit(
        data.X, data.Y, weights=data.weights, batch_size=99, epochs=3, optimizer=elman.Adam(0.01), shuffle=False,
        progress=False, **options,
    )  # fmt: skip
    optimizer, arguments = elman.Adam(0.01), step_arguments(p, in_order)
    losses = [again.train_step(**arguments, optimizer=optimizer, **options) for _ in range(3)]
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-15)
    assert_same_bits(once.parameters(), again.parameters())


@compiled_names
@predicting
def test_predictions_do_not_depend_on_the_batch(
    case: dict[str, str], backend: str, dtype: str, rng: np.random.Generator
):
    p = make(**case, backend=backend, dtype=dtype, num_layers=2)
    data = data_set(p, rng)
    for method in [p.model.predict] + [p.model.predict_proba] * ("real" not in case["outputs"]):
        together = method(data.X)
        for options in ({"batch_size": 1}, {"batch_size": 7}):
            for one, other in zip(method(data.X, **options), together, strict=True):
                np.testing.assert_array_equal(one, other)
        alone = [method(data.X[i : i + 1])[0] for i in range(len(data.X))]
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


@backend_names
@predicting
def test_predictions_by_hand(case: dict[str, str], backend: str, rng: np.random.Generator):
    p, array = make(**case, backend=backend), rng.random() < 0.5
    data = data_set(p, rng, array=array)
    predicted = p.model.predict(data.X)
    n, kind = len(data.X), p.model.outputs
    is_single = case["pattern"].endswith("one")
    assert type(predicted) is (np.ndarray if array or is_single else list)
    assert len(predicted) == n
    probabilities = p.model.predict_proba(data.X) if "real" not in case["outputs"] else [None] * n
    for i in range(n):
        row = Problem(
            p.model,
            np.asarray(data.X[i])[None] if case["pattern"].startswith("one") else data.X[i][:, None],
            p.y,
            None,
            None,
        )
        o: Any = outputs_of_row(row._replace(lengths=np.array([len(np.atleast_1d(data.X[i]))])), 0)
        o = np.array(o)[0] if is_single else np.array(o)
        assert predicted[i].shape == (o.shape[:-1] if isinstance(kind, elman.Categories) else o.shape)
        if isinstance(kind, elman.Categories):
            np.testing.assert_array_equal(predicted[i], o.argmax(axis=-1))
            expected = np.exp(o) / np.exp(o).sum(axis=-1, keepdims=True)
            np.testing.assert_allclose(probabilities[i], expected, rtol=1e-12)
        elif isinstance(kind, elman.Binary):
            np.testing.assert_array_equal(predicted[i], (o > 0).astype(int))
            np.testing.assert_allclose(probabilities[i], 1 / (1 + np.exp(-o)), rtol=1e-12)
        else:
            np.testing.assert_allclose(predicted[i], o, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("inputs", INPUTS)
def test_predictions_keep_the_form_of_the_data(inputs: str, rng: np.random.Generator):
    p = make(inputs)
    data = data_set(p, rng, array=True)
    dense = p.model.predict(data.X)
    assert dense.shape == data.X.shape[:2]
    ragged = np.empty(23, dtype=object)
    ragged[:] = [x[: 1 + i % 5] for i, x in enumerate(data.X)]
    for X in (list(data.X), tuple(data.X), ragged, list(ragged)):
        predicted = p.model.predict(X)
        assert type(predicted) is list
        for i, row in enumerate(predicted):
            np.testing.assert_array_equal(row, dense[i, : len(X[i])])


@backend_names
@combinations
def test_evaluate_by_hand(case: dict[str, str], backend: str, rng: np.random.Generator):
    p = make(**case, backend=backend)
    data = data_set(p, rng)
    kind = p.model.outputs
    if isinstance(kind, elman.Categories):
        for y in data.Y if not case["pattern"].endswith("one") else [data.Y]:
            y[-1] = -1
    found = p.model.evaluate(data.X, data.Y, weights=data.weights, batch_size=5)
    assert found["loss"] == pytest.approx(p.model.loss(**step_arguments(p, data)), rel=1e-12)
    assert list(found) == ["loss", "r2" if "real" in case["outputs"] else "accuracy"]
    if case["pattern"] == "one-to-many":
        return
    sums = np.zeros(2)
    rows = []
    for y, predicted, w in zip(data.Y, p.model.predict(data.X), data.weights, strict=True):
        for y_t, p_t, w_t in [(y, predicted, w)] if np.ndim(w) == 0 else zip(y, predicted, w, strict=True):
            if not (isinstance(kind, elman.Categories) and y_t < 0):
                sums += w_t * np.array([np.mean(y_t == p_t), 1])
                rows.append((w_t, y_t, p_t))
    if "real" in case["outputs"]:
        metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle: pip install '.[test]'")
        w, y, predicted = (np.array(part) for part in zip(*rows, strict=True))
        assert found["r2"] == pytest.approx(metrics.r2_score(y, predicted, sample_weight=w), rel=1e-9)
    else:
        assert found["accuracy"] == pytest.approx(sums[0] / sums[1], rel=1e-12)


# Truncated back-propagation


def truncated_by_hand(p: Problem, x: np.ndarray, y: np.ndarray, k1: int, k2: int, lr: float) -> None:
    """One sequence (T, 1): an update after every k1 steps; the states before the last k2 are constants."""
    parameters, plain = p.model.parameters(), make("tokens", num_layers=2, backend=p.model.rnn.backend).model
    states = [np.zeros((2, 1, H))]  # before each step, each by the parameters of its time
    for end in range(k1, len(x) + k1, k1):
        start, first = max(0, end - k2), end - k1
        plain.load_state_dict({name: array for name, array in parameters.items() if name != "h_0"})
        states[0] = parameters["h_0"][:, None].copy() if p.model.learn_h_0 else states[0]
        weights = np.zeros(x[start:end].shape)
        weights[first - start :] = 1
        part = x[start:end], y[start:end]
        _, gradients = plain.loss_and_grads(*part, state=states[start].copy(), weights=weights)
        if start == 0:
            _, gradients = p.model.loss_and_grads(*part, weights=weights)
        del states[start + 1 :]
        for t in range(start, min(end, len(x))):
            after = states[t].copy()
            plain.loss(x[t : t + 1], y[t : t + 1], state=after)
            states.append(after)
        for name, gradient in gradients.items():
            parameters[name] -= lr * gradient


@backend_names
@pytest.mark.parametrize("learn_h_0", [False, True])
@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 5), (1, 4), (5, 6), (20, 20), (4, 100)])
def test_truncated_back_propagation(k1: int, k2: int, learn_h_0: bool, backend: str, rng: np.random.Generator):
    p = make("tokens", num_layers=2, learn_h_0=learn_h_0, backend=backend)
    by_hand = copy.deepcopy(p)
    x, y = rng.integers(0, V, (2, 13))
    history = p.model.fit([x], [y], tbptt=(k1, k2), epochs=1, optimizer=elman.SGD(0.5), progress=False)
    truncated_by_hand(by_hand, x[:, None], y[:, None], k1, k2, lr=0.5)
    assert len(history["loss"]) == 1
    for name, array in by_hand.model.parameters().items():
        np.testing.assert_allclose(p.model.parameters()[name], array, rtol=1e-10, atol=1e-12)


@backend_names
def test_windows_as_long_as_the_data_change_nothing(backend: str, rng: np.random.Generator):
    for pattern in ("many-to-many", "one-to-many"):
        p = make("features", "reals", pattern, num_layers=2, dropout=0.3, backend=backend)
        data, other = data_set(p, rng), copy.deepcopy(p.model)
        options = {"epochs": 2, "batch_size": 4, "weights": data.weights, "progress": False}
        assert p.model.fit(data.X, data.Y, **options) == other.fit(data.X, data.Y, tbptt=(11, 11), **options)
        assert_same_bits(p.model.parameters(), other.parameters())


@compiled_names
def test_ragged_sequences_in_windows(backend: str, rng: np.random.Generator):
    """What has ended takes no part: sequences together, one step each, with a learning rate of 0."""
    p = make("features", "binary", num_layers=2, backend=backend)
    data = data_set(p, rng)
    whole = p.model.evaluate(data.X, data.Y)["loss"]
    for tbptt in ((2, 2), (1, 3), (3, 7)):
        history = p.model.fit(data.X, data.Y, tbptt=tbptt, epochs=1, optimizer=elman.SGD(0), progress=False)
        assert history["loss"] == [pytest.approx(whole, rel=1e-12)]


# Streams


@compiled_names
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("outputs", ["categories", "binary", "reals"])
def test_streams_are_the_whole_sequence(
    outputs: str, inputs: str, pattern: str, backend: str, dtype: str, rng: np.random.Generator
):
    options = {"num_layers": 2, "hidden_size": 33, "learn_h_0": outputs == "binary", "dtype": dtype}
    p = make(inputs, outputs, pattern, **options, backend=backend)
    if p.model.learn_h_0:
        p.model.parameters()["h_0"][:] = rng.standard_normal((2, 33))
    cuts = [0, 1, 2, 9, 40, 100]
    X = rng.integers(0, V, (3, 100)) if inputs == "tokens" else rng.standard_normal((3, 100, N))
    for method in ["predict"] + ["predict_proba"] * (outputs != "reals"):
        whole = getattr(p.model, method)(X)
        alone, together = p.model.stream(), p.model.stream(3)
        parts, joint = [], []
        for start, stop in itertools.pairwise(cuts):
            parts.append(getattr(alone, method)(X[0, start:stop]))
            joint.append(getattr(together, method)(X[:, start:stop].swapaxes(0, 1)))
        if pattern == "many-to-one":
            np.testing.assert_array_equal(parts[-1], whole[0])
            np.testing.assert_array_equal(joint[-1], whole)
        else:
            np.testing.assert_array_equal(np.concatenate(parts), whole[0])
            np.testing.assert_array_equal(np.concatenate(joint).swapaxes(0, 1), whole)


@backend_names
def test_streams_are_reset_by_rows(backend: str, rng: np.random.Generator):
    p = make("features", "reals", learn_h_0=True, backend=backend)
    p.model.parameters()["h_0"][:] = rng.standard_normal(H)
    x = rng.standard_normal((8, 3, N))
    fresh = p.model.stream(3).predict(x)
    for rows in (1, [1], np.array([False, True, False])):
        stream = p.model.stream(3)
        stream.predict(x[:5])
        stream.reset(rows)
        after = stream.predict(x)
        np.testing.assert_allclose(after[:, 1], fresh[:, 1], rtol=1e-12)
        assert not np.isclose(after[:, [0, 2]], fresh[:, [0, 2]], rtol=1e-4).all()
    stream.reset()
    np.testing.assert_allclose(stream.predict(x), fresh, rtol=1e-12)


# The penalty on large states


PENALTIES = {"activation_l1": 1.5, "activation_l2": 3.5, "weight_l1": 0.02, "weight_l2": 0.3}


def penalty(p: Problem) -> float:
    """That of PENALTIES: the states within the lengths, one row after the other, and the weights."""
    parameters = p.model.parameters()
    rnn = elman.RNN(N, H, 2, bidirectional=p.model.rnn.bidirectional, dtype="float64", backend="numpy")
    rnn.load_state_dict({name: parameters[name] for name in rnn.parameters()})
    n = [len(p.x)] * B if p.lengths is None else p.lengths
    states = np.concatenate([rnn(p.x[: n[b], b])[0] for b in range(B)])
    weights = np.concatenate([array.ravel() for name, array in parameters.items() if name.startswith("weight_")])
    on_states = 1.5 * np.abs(states).mean() + 3.5 * np.mean(states**2)
    return float(on_states + 0.02 * np.abs(weights).sum() + 0.3 * np.sum(weights**2))


@backend_names
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("options", [{"lengths": False}, {"weights": "rows"}, {"bidirectional": True}], ids=str)
def test_penalties_by_hand(options: dict[str, Any], pattern: str, backend: str):
    """Whatever weights the steps have, and whether or not they have a target."""
    p = make("features", "categories", pattern, num_layers=2, backend=backend, **options)
    expected = p.model.loss(p.x, p.y, **p.options) + penalty(p)
    assert p.model.loss_and_grads(p.x, p.y, **p.options, **PENALTIES)[0] == pytest.approx(expected, rel=1e-12)
    options = {**p.options, "optimizer": elman.SGD(0.01), **PENALTIES}
    assert p.model.train_step(p.x, p.y, **options) == pytest.approx(expected, rel=1e-12)
    assert p.model.train_step(p.x, p.y, **options) < expected
    if "bidirectional" not in options and pattern == "many-to-many" and p.lengths is None:
        x, y = p.x.swapaxes(0, 1), p.y.swapaxes(0, 1)
        expected = p.model.loss(p.x, p.y) + penalty(p)
        fit = {"epochs": 1, "optimizer": elman.SGD(0), **PENALTIES, "progress": False}
        history = p.model.fit(x, y, **fit, validation_data=(x, y))
        assert history["loss"] == [pytest.approx(expected, rel=1e-12)]
        assert history["val_loss"] == [pytest.approx(p.model.loss(p.x, p.y), rel=1e-12)]


@backend_names
@combinations
def test_central_differences_with_penalties(case: dict[str, str], backend: str, rng: np.random.Generator):
    for options in variants(case["pattern"]):
        p = make(**case, **options, backend=backend)
        given = {**p.options, **PENALTIES}
        _, gradients = p.model.loss_and_grads(p.x, p.y, **given)
        before = p.model.state_dict()
        for _ in range(2):
            along = {name: rng.standard_normal(array.shape) for name, array in before.items()}
            values = []
            for e in (1e-6, -1e-6):
                p.model.load_state_dict({name: before[name] + e * along[name] for name in before})
                values.append(p.model.loss_and_grads(p.x, p.y, **given)[0])
            slope = sum((gradients[name] * along[name]).sum() for name in before)
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)
        p.model.load_state_dict(before)


@backend_names
def test_penalties_in_windows_count_each_state_once(backend: str, rng: np.random.Generator):
    """With a learning rate of 0, windows add up to the whole, however far back gradients go."""
    p = make("features", "reals", num_layers=2, lengths=False, backend=backend)
    x, y = p.x.swapaxes(0, 1), p.y.swapaxes(0, 1)
    options = {"epochs": 1, "optimizer": elman.SGD(0), **PENALTIES, "progress": False}
    expected = p.model.loss(p.x, p.y) + penalty(p)
    for tbptt in (None, (2, 2), (2, 5), (3, 6), (6, 6)):
        assert p.model.fit(x, y, tbptt=tbptt, **options)["loss"] == [pytest.approx(expected, rel=1e-12)]
    data, twin = data_set(p, rng), copy.deepcopy(p.model)
    options = {"epochs": 2, "activation_l2": 2.0, "progress": False}
    assert p.model.fit(data.X, data.Y, **options) == twin.fit(data.X, data.Y, tbptt=(11, 11), **options)
    assert_same_bits(p.model.parameters(), twin.parameters())


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "1", True, None])
def test_bad_penalties(value: Any, name: str):
    p, given = make(), {name: value}
    for call in (
        lambda: p.model.loss_and_grads(p.x, p.y, **p.options, **given),
        lambda: p.model.train_step(p.x, p.y, **p.options, optimizer=elman.SGD(1), **given),
        lambda: p.model.fit([[0]], [[0]], **given),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be a finite number of at least 0"):
            call()


# The states before the first step


def with_h_0(case: dict[str, str], rng: np.random.Generator, **options: Any) -> Problem:
    p = make(**case, num_layers=2, learn_h_0=True, **options)
    h_0 = p.model.parameters()["h_0"]
    assert h_0.shape == (2 * (1 + p.model.rnn.bidirectional), H)
    assert not h_0.any()
    h_0[:] = rng.standard_normal(h_0.shape)
    return p


@backend_names
@combinations
def test_the_gradient_by_h_0_is_the_sum_over_the_rows(
    case: dict[str, str], backend: str, dtype: str, rng: np.random.Generator
):
    """Row by row, in batches of one; and where h_0 is zero, it is the model that does not learn it."""
    for options in [{}] if case["pattern"] == "one-to-many" else [{}, {"bidirectional": True}]:
        p = with_h_0(case, rng, lengths=False, backend=backend, dtype=dtype, **options)
        _, gradients = p.model.loss_and_grads(p.x, p.y)
        rows, weights = [], []
        for b in range(B):
            part = [array[b : b + 1] if len(array) == B and array.shape[:2] != (T, B) else array[:, b : b + 1]
                    for array in (p.x, p.y)]  # fmt: skip
            if isinstance(p.model.outputs, elman.Categories):
                counted = part[1][part[1] >= 0]
                given = p.model.outputs.class_weights
                weights.append(float(np.ones(V)[counted].sum() if given is None else given[counted].sum()))
            else:
                given = p.model.outputs.class_weights if isinstance(p.model.outputs, elman.Binary) else None
                weights.append(float(part[1][..., 0].size if given is None else given[part[1].astype(int)].sum()))
            rows.append(p.model.loss_and_grads(*part)[1]["h_0"] if weights[-1] else 0)
        expected = sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)
        rtol = 1e-4 if dtype == "float32" else 1e-11
        np.testing.assert_allclose(gradients["h_0"], expected, rtol=rtol, atol=rtol * np.abs(expected).max())
        p.model.parameters()["h_0"][:] = 0
        plain = make(**case, num_layers=2, lengths=False, backend=backend, dtype=dtype, **options)
        loss, gradients = p.model.loss_and_grads(p.x, p.y)
        loss_of_plain, expected = plain.model.loss_and_grads(p.x, p.y)
        assert loss == loss_of_plain
        assert gradients.pop("h_0").any()
        assert_same_bits(gradients, expected)


@backend_names
def test_h_0_is_learned_and_used_everywhere(backend: str, tmp_path: Any, threads: Any):
    """Every sequence begins with 1 where nothing that comes in tells: without biases, only h_0 does."""
    X, Y = np.zeros((6, 5, 1)), np.tile([[1], [0], [0], [0], [0]], (6, 1, 1))
    results = []
    for n_threads in (1, 2, 5):
        threads(n_threads)
        model = elman.SequenceModel(
            elman.Features(1), elman.Binary(), hidden_size=H, learn_h_0=True, seed=0, backend=backend
        )
        model.fit(X, Y, epochs=150, optimizer=elman.Adam(0.03), progress=False)
        results.append(model.state_dict())
    if backend != "numpy":
        assert_same_bits(results[1], results[0])
        assert_same_bits(results[2], results[0])
    assert model.evaluate(X, Y)["accuracy"] == 1
    assert model.predict(X[:1])[0, :, 0].tolist() == [1, 0, 0, 0, 0]
    model.save(tmp_path / "model")
    loaded = elman.load(tmp_path / "model", backend=backend)
    assert repr(loaded) == repr(model)
    assert "learn_h_0=True" in repr(model)
    for other in (loaded, copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    norms = model.gradient_norms(X.swapaxes(0, 1), Y.swapaxes(0, 1)).norms
    model.parameters()["h_0"][:] = 0
    assert (model.gradient_norms(X.swapaxes(0, 1), Y.swapaxes(0, 1)).norms != norms).any()
    assert model.predict(X[:1])[0, 0] != 1


@backend_names
def test_generation_begins_with_h_0(backend: str, rng: np.random.Generator):
    p = with_h_0({"inputs": "tokens", "outputs": "categories"}, rng, backend=backend)
    firsts = []
    for _ in range(8):
        p.model.parameters()["h_0"][:] = 3 * rng.standard_normal((2, H))
        (first,) = p.model.generate([2, 0], 1, temperature=0)
        assert first == p.model.predict([[2, 0]])[0][-1]
        firsts.append(first)
    assert len(set(firsts)) > 1


def test_files_without_h_0_stay_what_they_were_and_misuse_is_refused(rng: np.random.Generator):
    assert "learn_h_0" not in network_of(make().model).config()
    p = with_h_0({"inputs": "tokens"}, rng, lengths=False)
    state = np.zeros((2, B, H))
    for method in (p.model.loss, p.model.loss_and_grads):
        with pytest.raises(ValueError, match="state must be None with learn_h_0=True"):
            method(p.x, p.y, state=state)
    with pytest.raises(TypeError, match="learn_h_0 must be True or False, got 1"):
        make(learn_h_0=1)
    with pytest.raises(ValueError, match=r"missing \['h_0'\]"):
        p.model.load_state_dict(make(num_layers=2).model.state_dict())


# Generation


@backend_names
@pytest.mark.parametrize("case", [case for case in COMBINATIONS if case["pattern"] == "one-to-many"], ids=str)
def test_what_is_generated_is_fed_back(case: dict[str, str], backend: str, rng: np.random.Generator):
    p, inputs = make(**case, num_layers=2, backend=backend), case["inputs"]
    for array in p.model.parameters().values():
        array *= 2
    start = 2 if inputs == "tokens" else rng.standard_normal(N)
    drawn = p.model.generate(start, 7, temperature=0)
    assert len(drawn) == 7
    taught = Problem(p.model, np.array([start]), drawn[:, None], None, None)
    expected = p.model.outputs.predict(np.array(outputs_of_row(taught._replace(lengths=np.array([7])), 0)))
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    again = [p.model.generate(start, 7, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert p.model.generate(start, 0).shape == drawn[:0].shape


@backend_names
@pytest.mark.parametrize("outputs", [elman.Reals(3), elman.Binary(3), elman.Categories(3)], ids=repr)
def test_a_series_goes_on(outputs: Any, backend: str, rng: np.random.Generator):
    """What was generated, read as the steps behind the beginning, has these predictions."""
    model = elman.SequenceModel(
        elman.Features(3), outputs, hidden_size=H, num_layers=2, dtype="float64", seed=2, backend=backend
    )
    for array in model.parameters().values():
        array *= 3
    start = rng.standard_normal((4, 3))
    drawn = model.generate(start, 6, temperature=0)
    fed = np.eye(3)[drawn] if isinstance(outputs, elman.Categories) else drawn
    (predicted,) = model.predict([np.concatenate([start, fed[:-1]])])
    np.testing.assert_allclose(drawn, predicted[3:], rtol=1e-9)
    assert len(np.unique(drawn, axis=0)) > 1
    assert model.generate(start[:1], 0).shape == drawn[:0].shape


@backend_names
def test_top_k_top_p_and_end(backend: str):
    """A model that does not look at its input: its distribution is that of its bias."""
    model = elman.SequenceModel(elman.Tokens(5), elman.Categories(5), hidden_size=2, backend=backend)
    p = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    for name, array in model.parameters().items():
        array[...] = np.log(p) if name == "bias_o" else 0

    def frequencies(**options: Any) -> np.ndarray:
        return np.bincount(model.generate(0, 4000, seed=0, **options), minlength=5) / 4000

    for options, kept in (
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.01}, [1]),
        ({"top_p": 0.6}, [1, 3]),
        ({"top_p": 0.75}, [1, 3, 4]),
        ({"top_p": 1.0}, [0, 1, 2, 3, 4]),
        ({"top_k": 2, "top_p": 0.5}, [1]),  # of what the two have together
        ({"top_k": 2, "top_p": 0.6}, [1, 3]),
    ):
        expected = np.zeros(5)
        expected[kept] = p[kept] / p[kept].sum()
        found = frequencies(**options)
        np.testing.assert_allclose(found, expected, atol=0.03, err_msg=str(options))
        assert (found[expected == 0] == 0).all()
    whole = model.generate(0, 50, seed=1).tolist()
    assert model.generate(0, 50, seed=1, end=3).tolist() == whole[: whole.index(3)]
    assert model.generate(0, 50, seed=1, top_k=1, end=3).tolist() == [1] * 50


# Files


@combinations
def test_models_come_back_from_files(case: dict[str, str], tmp_path: Any):
    p = make(**case, num_layers=2)
    p.model.save(tmp_path / "model")
    loaded = elman.load(tmp_path / "model")
    assert repr(loaded) == repr(p.model)
    assert loaded.outputs == p.model.outputs
    assert loaded.loss(p.x, p.y, **p.options) == p.model.loss(p.x, p.y, **p.options)


@pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])
def test_tokens_that_another_thread_changes_meanwhile(backend: str):
    """Whatever comes of it, nothing is read or written out of bounds: in a process of its own, which would die."""
    code = """
import sys, threading, time, numpy as np, elman
rng, n = np.random.default_rng(0), 30
model = elman.SequenceModel(elman.Tokens(n), elman.Categories(n), hidden_size=64, seed=0, backend=sys.argv[1])
x, y = rng.integers(0, n, (2, 300, 64))
good, stop, stream = x.copy(), threading.Event(), model.stream(64)
def corrupt():
    while not stop.is_set():
        x[:], y[:] = 10**12, 10**12
        time.sleep(0.0003)
        x[:], y[:] = good, good
        time.sleep(0.0005)
thread = threading.Thread(target=corrupt)
thread.start()
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for call in (lambda: model.loss(x, y), lambda: model.loss_and_grads(x, y), lambda: stream.predict(x)):
        try:
            call()
        except ValueError:
            pass
stop.set()
thread.join()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code, backend], capture_output=True, text=True, timeout=300)
    assert done.stdout == "alive\n", done.stderr
