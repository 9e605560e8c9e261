"""Gauss–Newton products beside the dense matrix Jᵀ H J, its J by central differences of the outputs."""

from typing import Any

import numpy as np
import pytest

import elman

OUTPUTS = {"categories": elman.Categories(3), "binary": elman.Binary(2), "reals": elman.Reals(2)}
LAYERS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"form": "potential", "leak": 0.4, "learn_leak": True, "learn_h_0": True},
    {"leak": 0.4, "learn_leak": True, "learn_h_0": True, "bidirectional": True},
]
N_STEPS, N_ROWS, EPS = 4, 3, 1e-5


def outputs_of(model: elman.SequenceModel, x: np.ndarray, lengths: Any) -> np.ndarray:
    """o (T, B, O), or (1, B, O) where there is one for each sequence."""
    own, rnn = model.parameters(), model.rnn
    h_0 = np.repeat(own["h_0"][:, None], N_ROWS, axis=1) if "h_0" in own else None
    inputs = np.eye(5)[x] if x.ndim == 2 else x
    h, h_n = rnn(inputs, h_0, lengths)
    if model.pattern == "many-to-one":
        last = h_n[-2 if rnn.bidirectional else -1 :]
        h = np.concatenate(list(np.tanh(last) if rnn.form == "potential" else last), axis=1)[None]
    return h @ own["weight_ho"].T + own["bias_o"]


def second_derivative(outputs: Any, o: np.ndarray) -> np.ndarray:
    """Of a step's loss by its outputs (O,): (O, O)."""
    if isinstance(outputs, elman.Reals):
        return 2 * np.eye(len(o)) / len(o)
    if isinstance(outputs, elman.Binary):
        p = 1 / (1 + np.exp(-o))
        return np.diag(p * (1 - p)) / len(o)
    p = np.exp(o) / np.exp(o).sum()
    return np.diag(p) - np.outer(p, p)


def dense(model: elman.SequenceModel, x: np.ndarray, weights: np.ndarray, lengths: Any) -> np.ndarray:
    """The matrix, parameters in the order of `parameters()`; weights (T, B) are 0 where there is no target."""
    columns = []
    for array in model.parameters().values():
        for i in np.ndindex(array.shape):
            before = array[i]
            array[i] = before + EPS
            above = outputs_of(model, x, lengths)
            array[i] = before - EPS
            columns.append((above - outputs_of(model, x, lengths)) / (2 * EPS))
            array[i] = before
    jacobian, o = np.stack(columns, axis=-1), outputs_of(model, x, lengths)  # (T, B, O, n)
    total = sum(
        weights[i] * jacobian[i].T @ second_derivative(model.outputs, o[i]) @ jacobian[i]
        for i in np.ndindex(weights.shape)
        if weights[i]
    )
    return total / weights.sum()


def problem(kind: str, pattern: str, layers: dict[str, Any], *, tokens: bool = False) -> Any:
    """A model, a batch with lengths, weights and missing targets, and each target's weight (T, B)."""
    rng, outputs, one = np.random.default_rng(3), OUTPUTS[kind], pattern == "many-to-one"
    inputs = elman.Tokens(5) if tokens else elman.Features(2)
    model = elman.SequenceModel(inputs, outputs, pattern=pattern, hidden_size=3, dtype="float64", seed=0, **layers)
    for array in model.parameters().values():
        array += rng.uniform(-0.2, 0.2, array.shape)
    x = rng.integers(0, 5, (N_STEPS, N_ROWS)) if tokens else rng.standard_normal((N_STEPS, N_ROWS, 2))
    lengths = np.array([4, 1, 3])
    shape = (N_ROWS,) if one else (N_STEPS, N_ROWS)
    weights = rng.uniform(0.5, 2, shape)
    if kind == "categories":
        y = rng.integers(0, 3, shape)
        y[-1] = -1
    else:
        y = rng.integers(0, 2, (*shape, 2)).astype(float)
        weights[0] = 0
    counted = np.where(y >= 0, weights, 0) if kind == "categories" else weights
    counted = counted[None] if one else counted * (np.arange(N_STEPS)[:, None] < lengths)
    return model, (x, y), {"lengths": lengths, "weights": weights}, counted


@pytest.mark.parametrize("layers", LAYERS, ids=str)
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_it_is_the_dense_matrix_times_v(kind: str, pattern: str, layers: dict[str, Any]):
    model, batch, kept, counted = problem(kind, pattern, layers)
    matrix, rng = dense(model, batch[0], counted, kept["lengths"]), np.random.default_rng(0)
    v = {name: rng.standard_normal(array.shape) for name, array in model.parameters().items()}
    for backend in elman.available_backends():
        model.rnn.backend = backend
        product = model.gauss_newton_product(*batch, v, **kept)
        assert list(product) == list(v)
        got, flat = (np.concatenate([one.ravel() for one in each.values()]) for each in (product, v))
        np.testing.assert_allclose(got, matrix @ flat, rtol=0, atol=1e-8 * np.abs(matrix @ flat).max())


def test_tokens_and_missing_names():
    model, batch, kept, counted = problem("categories", "many-to-many", {}, tokens=True)
    matrix, own = dense(model, batch[0], counted, kept["lengths"]), model.parameters()
    for only in own:
        v = {only: np.random.default_rng(0).standard_normal(own[only].shape)}
        product = model.gauss_newton_product(*batch, v, **kept)
        flat = np.concatenate([v.get(name, 0 * array).ravel() for name, array in own.items()])
        got = np.concatenate([one.ravel() for one in product.values()])
        np.testing.assert_allclose(got, matrix @ flat, rtol=0, atol=1e-8 * np.abs(matrix).max())


def test_teacher_forcing_and_no_targets():
    model = elman.SequenceModel(
        elman.Tokens(3), elman.Categories(3), pattern="one-to-many", hidden_size=4, dtype="float64"
    )
    x, y = [1, 2], [[0, 1], [2, 2], [1, 0]]
    _, v = model.loss_and_grads(x, y)
    forced = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4, dtype="float64")
    for name, array in forced.parameters().items():
        array[...] = model.parameters()[name]
    expected = forced.gauss_newton_product([[1, 2], [0, 1], [2, 2]], y, v)
    for name, one in model.gauss_newton_product(x, y, v).items():
        np.testing.assert_allclose(one, expected[name], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    ("v", "error", "message"),
    [
        ([1], TypeError, "v must be a dict"),
        ({"weight": np.ones(3)}, ValueError, "v must have some of the names .*weight"),
        ({"bias_o": np.ones(4)}, ValueError, r"v\['bias_o'\] must have shape \(3,\)"),
        ({"bias_o": np.ones(3, int)}, TypeError, r"v\['bias_o'\] must hold float32 or float64"),
    ],
)
def test_refusals(v: Any, error: type[Exception], message: str):
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4)
    with pytest.raises(error, match=message):
        model.gauss_newton_product([[0], [1]], [[1], [2]], v)
