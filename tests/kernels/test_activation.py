"""Activations of a user's own: those of docs/activations.md, and pairs that must be refused."""

import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import elman
from elman.backends import native

DOCS = Path(__file__).parents[2] / "docs" / "activations.md"


def documented() -> dict[str, object]:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    return names


FORMULAS = {
    "softsign": lambda a: a / (1 + np.abs(a)),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "hard_sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0, 1),
}
BACKENDS = elman.available_backends()


def f(a: float) -> float:
    return a / (1 + abs(a))


def df(y: float) -> float:
    return (1 - abs(y)) ** 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMULAS)
def test_documented_ones(name: str, backend: str, dtype: str, rng: np.random.Generator):
    rnn = elman.RNN(3, 17, nonlinearity=documented()[name], dtype=dtype, seed=0, backend=backend)
    weights = {key: value.astype(np.float64) for key, value in rnn.parameters().items()}
    x = rng.normal(size=(5, 4, 3)).astype(dtype)
    y, _, pullback = rnn.vjp(x)
    d_y = rng.normal(size=y.shape).astype(dtype)
    d_x, _, gradients = pullback(d_y)

    def loss(**changed: np.ndarray) -> float:
        own = {"x": x.astype(np.float64), **weights, **changed}
        h, total = np.zeros((4, 17)), 0.0
        for t in range(5):
            a = own["x"][t] @ own["weight_ih_l0"].T + h @ own["weight_hh_l0"].T + own["bias_l0"]
            h = FORMULAS[name](a)
            total += float((h * d_y[t]).sum())
        return total

    tolerance = 1e-6 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(
        float((y.astype(np.float64) * d_y).sum()), loss(), rtol=1e-10 if tolerance < 1e-5 else 1e-5
    )
    for key, gradient in {"x": d_x, **gradients}.items():
        base = x.astype(np.float64) if key == "x" else weights[key]
        for _ in range(4):
            where = tuple(rng.integers(n) for n in base.shape)
            up, down = base.copy(), base.copy()
            up[where] += 1e-6
            down[where] -= 1e-6
            difference = (loss(**{key: up}) - loss(**{key: down})) / 2e-6
            assert float(gradient[where]) == pytest.approx(
                difference, rel=tolerance, abs=tolerance * float(np.abs(gradient).max())
            )


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        ((f, lambda y: y), ValueError, "df must be the derivative of f"),
        ((lambda a: -a / (1 + abs(a)), df), ValueError, "df must be the derivative of f"),
        ((3, df), TypeError, "f must be a function of one float, got 3"),
        ((f, None), TypeError, "df must be a function of one float"),
        ((lambda _: None, df), TypeError, "f must return a float, got None"),
        ((lambda a: str(a), df), TypeError, "f must return a float"),
        ((lambda a: complex(a), df), TypeError, "f must return a float"),
        ((lambda a: a > 0, df), TypeError, "f must return a float"),
        ((math.pow, df), TypeError, "f must be a function of one float"),
        ((lambda a: math.log(a), df), TypeError, "f must be a function of one float"),
        ((lambda _: math.inf, df), ValueError, "f must be finite"),
    ],
)
def test_refused(pair, error, message):
    with pytest.raises(error, match=re.escape(message)):
        elman.activation(*pair)


@pytest.mark.skipif("numba" not in BACKENDS, reason="there is no Numba to refuse it")
def test_refused_by_numba():
    table = {True: 1.0, False: 0.01}
    with pytest.raises(TypeError, match="f must be a function that Numba can compile"):
        elman.activation(lambda a: table[a > 0] * a, lambda y: 1.0 if y > 0 else 0.01)


def test_without_numba(monkeypatch: pytest.MonkeyPatch):
    rnn = elman.RNN(3, 5, nonlinearity=elman.activation(f, df), backend="cython")
    monkeypatch.setattr(native, "takes_activations", False)
    with pytest.raises(ValueError, match=r"activation\(f\) must be compiled by Numba for the backend 'cython'"):
        rnn(np.ones((2, 1, 3)))


def test_model(tmp_path: Path):
    own = elman.activation(f, df)
    model = elman.reference.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=8, nonlinearity=own, seed=0)
    assert math.isfinite(model.train_step([[0], [1]], [[1], [2]], optimizer=elman.SGD(0.1)))
    assert "nonlinearity=activation(f)" in repr(model)
    with pytest.raises(ValueError, match="cannot be saved"):
        model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_pickle():
    rnn = elman.reference.RNN(3, 5, nonlinearity=elman.activation(f, df), seed=0)
    x = np.ones((2, 1, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rnn))(x)[0], rnn(x)[0])


def f_above(a: float) -> float:
    if a > 3:
        raise ValueError("too large")
    return a


def df_above(y: float) -> float:
    if y > 2.5:
        raise ValueError("too large")
    return 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_rows", [1, 200])
def test_a_function_that_raises(backend: str, n_rows: int, rng: np.random.Generator):
    """The call raises, names the activation, and nothing is updated: in f, in df, in a step, in training."""
    broken = elman.backends.activations.Activation(f_above, df_above, "broken")  # activation() would refuse it
    rnn = elman.RNN(2, 40, 2, broken, seed=0, backend=backend)
    x = rng.uniform(-1, 1, (9, n_rows, 2))
    expected = rnn(x)[0]
    message = r"nonlinearity activation\(broken\): its f"
    x_broken = x.copy()
    x_broken[5, -1] = 50
    for call in (lambda: rnn(x_broken), lambda: rnn.vjp(x_broken), lambda: rnn.step(x_broken[5])):
        with pytest.raises(RuntimeError, match=message):
            call()
    np.testing.assert_array_equal(rnn(x)[0], expected)
    model = elman.SequenceModel(
        elman.Features(2), elman.Reals(1), hidden_size=40, nonlinearity=broken, seed=0, backend=backend
    )
    optimizer, before, state = elman.Adam(0.1), model.state_dict(), np.zeros((1, n_rows, 40), np.float32)
    model.parameters()["bias_l0"][0] = 2.75  # f does it, df does not
    before = model.state_dict()
    for wrong in (x, x_broken):
        with pytest.raises(RuntimeError, match=message):
            model.train_step(wrong, wrong[..., :1], optimizer=optimizer, state=state)
        assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
        assert not state.any()
        assert optimizer.steps == 0
    with pytest.raises(RuntimeError, match=message):
        model.fit(x.swapaxes(0, 1), x.swapaxes(0, 1)[..., :1], progress=False)
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
