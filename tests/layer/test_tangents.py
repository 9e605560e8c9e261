"""Forward mode: beside reverse mode, beside PyTorch's, and in all forms of input."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import elman
from elman.layer import tangents
from elman.layer.rnn import mode_of, stack_of

UNITS = [0.1, 0.5, 0.9, 0.3, 1.0]
DYNAMICS = {
    "elman": {},
    "rate": {"leak": np.array(UNITS)},
    "learned rate": {"leak": 0.3, "learn_leak": True, "noise": 0.2},
    "potential": {"form": "potential", "leak": np.array(UNITS)},
    "learned potential": {"form": "potential", "leak": 0.3, "learn_leak": True, "noise": 0.2},
    "potential at 1": {"form": "potential"},
}
SHAPES = [
    {"T": 6, "B": 4},
    {"T": 1, "B": 1},
    {"T": 7, "B": 4, "num_layers": 2, "bidirectional": True, "lengths": [0, 7, 5, 1]},
    {"T": 1, "B": 2, "num_layers": 2, "batch_first": True, "lengths": [1, 0]},
    {"T": 130, "B": 3, "bias": False, "lengths": [64, 130, 1]},
    {"T": 5, "B": 3, "bidirectional": True, "batch_first": True, "nonlinearity": "relu"},
    {"T": 130, "B": 3, "num_layers": 2, "reverse": True, "lengths": [64, 130, 1]},
]


def made(dynamics: str = "elman", *, T: int, B: int, lengths: Any = None, K: int = 3, **options: Any) -> Any:
    """An RNN, the arguments of a call, and K tangents of all of them."""
    rng = np.random.default_rng(T + B)
    rnn = elman.RNN(3, 5, **DYNAMICS[dynamics], **options, dtype="float64", seed=1)
    x = rng.standard_normal((B, T, 3) if rnn.batch_first else (T, B, 3))
    h_0 = rng.standard_normal((rnn.num_layers * (1 + rnn.bidirectional), B, 5))
    kept = {"lengths": None if lengths is None else np.array(lengths), "noise_seed": 3 if "noise" in str(rnn) else None}
    d_params = {name: rng.standard_normal((K, *array.shape)) for name, array in rnn.parameters().items()}
    return rnn, (x, h_0), kept, (rng.standard_normal((K, *x.shape)), rng.standard_normal((K, *h_0.shape)), d_params)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("backend", elman.available_backends())
def test_it_is_the_transpose_of_vjp(backend: str, dynamics: str, shape: dict[str, Any]):
    rnn, (x, h_0), kept, (d_x, d_h_0, d_params) = made(dynamics, **shape, backend=backend)
    y, h_n, d_y, d_h_n = rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept)
    rng = np.random.default_rng(0)
    by_y, by_h_n = rng.standard_normal(y.shape), rng.standard_normal(h_n.shape)
    expected_y, expected_h_n, pullback = rnn.vjp(x, h_0, **kept)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(h_n, expected_h_n)
    if kept["lengths"] is not None:
        is_beyond = np.arange(shape["T"])[:, None] >= kept["lengths"]
        assert not d_y[:, is_beyond.T if rnn.batch_first else is_beyond].any()
    gradients = pullback(by_y, by_h_n)
    for k in range(3):
        of_params = [(gradients[2][name] * d_params[name][k]).sum() for name in d_params]
        terms = [(gradients[0] * d_x[k]).sum(), (gradients[1] * d_h_0[k]).sum(), *of_params]
        got = (by_y * d_y[k]).sum() + (by_h_n * d_h_n[k]).sum()
        assert abs(got - sum(terms)) <= 1e-13 * sum(map(abs, terms))


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_each_alone_and_their_sum(dynamics: str):
    rnn, (x, h_0), kept, (d_x, d_h_0, d_params) = made(dynamics, T=6, B=4, num_layers=2, lengths=[6, 0, 3, 1])
    alone = [rnn.jvp(x, d_x, h_0, **kept), rnn.jvp(x, None, h_0, d_h_0, **kept)]
    alone += [rnn.jvp(x, None, h_0, d_params={name: one}, **kept) for name, one in d_params.items()]
    together = rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept)
    for i in (2, 3):
        np.testing.assert_allclose(together[i], sum(results[i] for results in alone), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"])
@pytest.mark.parametrize("form", ["rate", "potential"])
def test_central_differences(form: str, nonlinearity: str):
    rnn = elman.RNN(3, 5, 2, nonlinearity, leak=0.4, learn_leak=True, form=form, dtype="float64", seed=2)
    rng, own = np.random.default_rng(0), rnn.parameters()
    x, h_0 = rng.standard_normal((4, 3, 3)), rng.uniform(0.2, 0.8, (2, 3, 5))
    moves = {name: rng.standard_normal((1, *array.shape)) for name, array in own.items()}
    d_x, d_h_0 = rng.standard_normal((1, *x.shape)), rng.standard_normal((1, *h_0.shape))
    *_, d_y, d_h_n = rnn.jvp(x, d_x, h_0, d_h_0, moves)
    results, before = [], {name: array.copy() for name, array in own.items()}
    for eps in (1e-6, -1e-6):
        for name, array in own.items():
            array[...] = before[name] + eps * moves[name][0]
        results.append(rnn(x + eps * d_x[0], h_0 + eps * d_h_0[0]))
    for got, plus, minus in zip((d_y, d_h_n), *results, strict=True):
        np.testing.assert_allclose(got[0], (plus - minus) / 2e-6, rtol=1e-6, atol=1e-7)


def test_the_reference_and_float32():
    for dynamics in DYNAMICS:
        rnn, (x, h_0), kept, (d_x, d_h_0, d_params) = made(dynamics, T=9, B=4, num_layers=2, lengths=[9, 0, 3, 1])
        exact = rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept)
        rnn.backend = "numpy"
        np.testing.assert_allclose(rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept)[2], exact[2], rtol=1e-11, atol=1e-13)
        single = elman.RNN(3, 5, 2, **DYNAMICS[dynamics], seed=1)
        got = single.jvp(x, d_x, h_0, d_h_0, d_params, **kept)
        for one, expected in zip(got, exact, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    rnn, (x, h_0), _, (d_x, d_h_0, d_params) = made(T=20, B=4, num_layers=2, bidirectional=True, K=1)
    other = torch.nn.RNN(3, 5, 2, bidirectional=True, dtype=torch.float64)
    other.load_state_dict({name: torch.tensor(a) for name, a in rnn.state_dict(pytorch=True).items()})
    own = {name: one.detach() for name, one in other.named_parameters()}
    moves = {
        name: torch.tensor(d_params[name.replace("bias_ih", "bias")][0]) if "bias_hh" not in name else 0 * one
        for name, one in own.items()
    }
    primals, along = (own, *map(torch.tensor, (x, h_0))), (moves, *map(torch.tensor, (d_x[0], d_h_0[0])))
    results, expected = torch.func.jvp(lambda p, *of: torch.func.functional_call(other, p, of), primals, along)
    got = rnn.jvp(x, d_x, h_0, d_h_0, d_params)
    for one, value in zip((got[0], got[1], got[2][0], got[3][0]), (*results, *expected), strict=True):
        np.testing.assert_allclose(one, value.numpy(), rtol=0, atol=1e-12 * np.abs(value.numpy()).max())


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_states_alone(dynamics: str, bidirectional: bool):
    rnn, (x, h_0), kept, tangent = made(dynamics, T=150, B=4, bidirectional=bidirectional, lengths=[150, 0, 64, 65])
    d_x, d_h_0, d_params = tangent
    _, h_n, _, d_h_n = rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept)
    y, last, d_y, d_last = rnn.jvp(x, d_x, h_0, d_h_0, d_params, **kept, last_only=True)
    assert y is None
    assert d_y is None
    np.testing.assert_array_equal(last, h_n)
    np.testing.assert_allclose(d_last, d_h_n, rtol=1e-12, atol=1e-14)


def test_memory_for_last_states_does_not_grow():
    rnn, peaks = elman.RNN(2, 40, seed=0), []
    for n_steps in (300, 3000):
        x = np.ones((n_steps, 8, 2), np.float32)
        d_x = np.ones((2, *x.shape), np.float32)
        rnn.jvp(x, d_x, last_only=True)
        tracemalloc.start()
        rnn.jvp(x, d_x, last_only=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_forms_of_x():
    rnn, (x, h_0), _, (d_x, d_h_0, d_params) = made("rate", T=6, B=3)
    lengths = [6, 0, 4]
    y, _, d_y, d_h_n = rnn.jvp(x, d_x, h_0, d_h_0, d_params, lengths=lengths)
    sequences, moves = ([one[..., :n, b, :] for b, n in enumerate(lengths)] for one in (x, d_x))
    got = rnn.jvp(sequences, moves, h_0, d_h_0, d_params)
    for b, n in enumerate(lengths):
        assert got[2][b].shape == (3, n, 5)
        np.testing.assert_array_equal(got[2][b], d_y[:, :n, b])
        np.testing.assert_array_equal(got[0][b], y[:n, b])
    np.testing.assert_array_equal(got[3], d_h_n)
    single = rnn.jvp(x[:, 0], d_x[:, :, 0], h_0[:, 0], d_h_0[:, :, 0], d_params)
    np.testing.assert_allclose(single[2], d_y[:, :, 0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(single[3], d_h_n[:, :, 0], rtol=0, atol=1e-14)
    assert single[3].shape == (3, 1, 5)


def test_a_function_of_one_s_own():
    pytest.importorskip("numba")
    own = elman.activation(lambda a: np.tanh(a), lambda y: 1 - y * y, name="own")
    for form in ("rate", "potential"):
        results = []
        for f in (own, "tanh"):
            rnn = elman.RNN(3, 5, nonlinearity=f, leak=0.3, form=form, dtype="float64", seed=0, backend="numpy")
            results.append(rnn.jvp(np.ones((4, 2, 3)), np.ones((1, 4, 2, 3)))[2])
        np.testing.assert_allclose(*results, rtol=1e-12)


@pytest.mark.parametrize("backend", elman.available_backends())
def test_inputs_of_any_strides(backend: str):
    rng = np.random.default_rng(8)
    rnn = elman.RNN(3, 1, dtype="float64", seed=0, backend=backend)
    d_params = {name: rng.standard_normal((2, *array.shape)) for name, array in rnn.parameters().items()}
    for x in (np.broadcast_to(rng.standard_normal(3), (6, 1, 3)), rng.standard_normal((3, 1, 6)).T):
        expected = rnn.jvp(np.array(x, order="C"), None, d_params=d_params)
        for one, other in zip(rnn.jvp(x, None, d_params=d_params), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_tokens_of_models():
    model = elman.SequenceModel(elman.Tokens(7), elman.Categories(2), hidden_size=5, dtype="float64", seed=0)
    network, tokens = model._network, np.array([[0, 3], [6, -1], [2, 99]])  # beyond the length there is anything
    stack, lengths, h_0 = network.stack, np.array([3, 1]), np.zeros((1, 2, 5))
    d_weight = np.random.default_rng(0).standard_normal((1, 5, 7))
    mode = mode_of(network.rnns[0])
    got = tangents.through(
        stack, mode, tokens, h_0, lengths, tangents.Moves(1, None, h_0[None] * 0, {"weight_ih_l0": d_weight})
    )[3]
    rnn = elman.RNN(7, 5, dtype="float64")
    rnn.load_state_dict({name: model.parameters()[name] for name in rnn.parameters()})
    one_hot = np.eye(7)[np.where(np.arange(3)[:, None] < lengths, tokens, 0)]
    expected = rnn.jvp(one_hot, None, d_params={"weight_ih_l0": d_weight}, lengths=lengths)[3]
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert stack_of(network.rnns[0]) is stack


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"d_x": None}, ValueError, "d_x, d_h_0 and d_params must not all be None"),
        ({"d_x": np.ones((4, 2, 3))}, ValueError, r"d_x must have shape \(K, 4, 2, 3\)"),
        ({"d_x": np.ones((1, 4, 2, 3), int)}, TypeError, "d_x must hold float32 or float64"),
        ({"d_x": np.ones((0, 4, 2, 3))}, ValueError, "d_x must not have an empty axis"),
        ({"d_x": 1.0}, ValueError, r"d_x must have shape \(K, 4, 2, 3\)"),
        ({"d_h_0": np.ones((2, 1, 2, 5))}, ValueError, r"d_h_0 must have shape \(1, 1, 2, 5\)"),
        ({"d_params": {"bias_l0": np.ones((2, 5))}}, ValueError, r"d_params\['bias_l0'\] must have shape \(1, 5\)"),
        ({"d_params": {"bias_l1": np.ones((1, 5))}}, ValueError, r"d_params must have some of the names .*bias_l1"),
        ({"d_params": {"bias_l0": np.ones((1, 5), int)}}, TypeError, "must hold float32 or float64"),
        ({"d_params": [1]}, TypeError, "d_params must be a dict"),
        ({"d_params": {"bias_l0": None}}, TypeError, r"d_params\['bias_l0'\]"),
        ({"last_only": 1}, TypeError, "last_only must be True or False"),
    ],
)
def test_refusals(wrong: dict[str, Any], error: type[Exception], message: str):
    arguments = {"x": np.ones((4, 2, 3)), "d_x": np.ones((1, 4, 2, 3))} | wrong
    with pytest.raises(error, match=message):
        elman.RNN(3, 5).jvp(**arguments)
    with pytest.raises((TypeError, ValueError), match="d_x must be a list"):
        elman.RNN(3, 5).jvp([np.ones((4, 3))], np.ones((1, 4, 3)))
