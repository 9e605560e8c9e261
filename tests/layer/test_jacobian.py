"""Jacobians of a time step, beside PyTorch's and the layer's own steps."""

from typing import Any

import numpy as np
import pytest

import elman
from elman import backends

N, I, H = 7, 3, 5  # noqa: E741
OPTIONS = [
    {},
    {"leak": 0.3, "noise": 0.5},
    {"leak": np.linspace(0.1, 1, H), "bias": False},
    {"leak": 0.4, "form": "potential"},
    {"leak": np.linspace(0.1, 0.9, H), "form": "potential", "learn_leak": True},
]


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_differences_of_steps(options: dict[str, Any], nonlinearity: Any, rng: np.random.Generator):
    h, x, e = rng.normal(size=(N, H)), rng.normal(size=(N, I)), 1e-6
    for name in backends.available():
        rnn = elman.RNN(I, H, nonlinearity=nonlinearity, dtype="float64", seed=0, backend=name, **options)
        found = rnn.jacobian(h, x)
        for j in range(H):
            along = e * (np.arange(H) == j)
            above, below = (rnn.step(x, (h + sign * along)[None])[1][0] for sign in (1, -1))
            np.testing.assert_allclose(found[:, :, j], (above - below) / (2 * e), atol=1e-8)
        np.testing.assert_array_equal(rnn.jacobian(h[2], x[2]), rnn.jacobian(h[2:3], x[2:3])[0])
        np.testing.assert_allclose(rnn.jacobian(h, x[0]), rnn.jacobian(h, np.broadcast_to(x[0], x.shape)), atol=1e-15)


def test_an_activation_of_a_user_s_own(rng: np.random.Generator):
    softsign = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2)
    test_differences_of_steps({"leak": 0.3}, softsign, rng)


@pytest.mark.parametrize("form", ["rate", "potential"])
def test_it_is_what_pytorch_finds(form: str, rng: np.random.Generator):
    torch = pytest.importorskip("torch")
    rnn = elman.RNN(I, H, leak=0.3, form=form, dtype="float64", seed=0)
    h, x = rng.normal(size=(N, H)), rng.normal(size=(N, I))
    p = {name: torch.tensor(array) for name, array in rnn.parameters().items()}

    def step(h: Any, x: Any) -> Any:
        past = torch.tanh(h) if form == "potential" else h
        a = p["weight_ih_l0"] @ x + p["weight_hh_l0"] @ past + p["bias_l0"]
        return 0.7 * h + 0.3 * (a if form == "potential" else torch.tanh(a))

    expected = torch.vmap(torch.func.jacrev(step))(torch.tensor(h), torch.tensor(x))
    np.testing.assert_allclose(rnn.jacobian(h, x), expected, atol=1e-14)


def test_what_is_refused(dtype: str):
    rnn = elman.RNN(I, H, dtype=dtype, seed=0)
    assert rnn.jacobian(np.zeros((N, H)), np.zeros(I)).dtype == dtype
    for h, x, name in [
        (np.zeros((N, H + 1)), np.zeros((N, I)), "h must have shape"),
        (np.zeros((N, H)), np.zeros((N + 1, I)), "x must have shape"),
        (np.zeros((N, H), int), np.zeros((N, I)), "h must hold float"),
    ]:
        with pytest.raises((TypeError, ValueError), match=name):
            rnn.jacobian(h, x)
    for options in ({"num_layers": 2}, {"bidirectional": True}):
        with pytest.raises(ValueError, match="jacobian needs one layer and one direction"):
            elman.RNN(I, H, **options).jacobian(np.zeros(H), np.zeros(I))
