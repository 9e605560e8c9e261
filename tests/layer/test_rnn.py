"""The layer: its forms of input, its derivative, its parameters. Its values are compared in test_torch.py."""

import copy
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import elman
from elman import backends, reference
from elman.layer.parameters import Entry, Parameters
from elman.layer.rnn import mode_of, move_to, stack_of

from ..compare import assert_same_bits

LENGTHS = np.array([6, 0, 9, 1])
T, B, I, H = 9, 4, 3, 5  # noqa: E741 - the names of docs/design.md

backend_names = pytest.mark.parametrize("backend", elman.available_backends())
directions = pytest.mark.parametrize("bidirectional", [False, True])


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((T, B, I))


def layer(**options: Any) -> elman.RNN:
    return elman.RNN(I, H, **{"dtype": "float64", "seed": 0} | options)


def random_states(rnn: elman.RNN, rng: np.random.Generator, n_rows: int = B) -> np.ndarray:
    n_directions = 2 if rnn.bidirectional else 1
    return rng.standard_normal((rnn.num_layers * n_directions, n_rows, H)).astype(rnn.dtype)


# Forms of input


@backend_names
@directions
def test_list_is_padded_with_lengths(backend: str, bidirectional: bool, x: np.ndarray, rng: np.random.Generator):
    rnn = layer(num_layers=3, dropout=0.3, bidirectional=bidirectional, backend=backend)
    twin = copy.deepcopy(rnn)  # draws the same dropout
    h_0, d_h_n = random_states(rnn, rng), random_states(rnn, rng)
    x[np.arange(T)[:, None] >= LENGTHS] = np.nan
    y, h_n, pullback = rnn.vjp(x, h_0, LENGTHS)
    d_y = rng.standard_normal(y.shape)
    d_y[np.arange(T)[:, None] >= LENGTHS] = np.nan
    d_x, d_h_0, d_params = pullback(d_y, d_h_n)

    items, h_n_list, pullback_list = twin.vjp([x[:n, b] for b, n in enumerate(LENGTHS)], h_0)
    d_items, d_h_0_list, d_params_list = pullback_list([d_y[:n, b] for b, n in enumerate(LENGTHS)], d_h_n)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(items[b], y[:n, b], rtol=1e-12)
        np.testing.assert_allclose(d_items[b], d_x[:n, b], rtol=1e-12)
        assert not y[n:, b].any()
        assert not d_x[n:, b].any()
    np.testing.assert_allclose(h_n_list, h_n, rtol=1e-12)
    np.testing.assert_allclose(d_h_0_list, d_h_0, rtol=1e-12)
    for name, gradient in d_params.items():
        np.testing.assert_allclose(d_params_list[name], gradient, rtol=1e-9, err_msg=name)
    assert np.array_equal(h_n[:, 1], h_0[:, 1])  # the sequence of length 0
    assert np.array_equal(d_h_0[:, 1], d_h_n[:, 1])


@backend_names
def test_all_sequences_empty(backend: str, rng: np.random.Generator):
    rnn = layer(num_layers=2, bidirectional=True, backend=backend)
    h_0 = random_states(rnn, rng, n_rows=2)
    y, h_n, pullback = rnn.vjp([np.zeros((0, I)), np.zeros((0, I))], h_0)
    assert [item.shape for item in y] == [(0, 2 * H), (0, 2 * H)]
    assert np.array_equal(h_n, h_0)
    d_x, d_h_0, d_params = pullback(y, h_n)
    assert [item.shape for item in d_x] == [(0, I), (0, I)]
    assert np.array_equal(d_h_0, h_n)
    assert not any(gradient.any() for gradient in d_params.values())


@backend_names
def test_batch_first_and_unbatched(backend: str, x: np.ndarray, rng: np.random.Generator):
    rnn, flipped = layer(num_layers=2, backend=backend), layer(num_layers=2, batch_first=True, backend=backend)
    h_0 = random_states(rnn, rng)
    y, h_n = rnn(x, h_0, LENGTHS)
    y_flipped, h_n_flipped = flipped(x.swapaxes(0, 1), h_0, LENGTHS)
    np.testing.assert_allclose(y_flipped, y.swapaxes(0, 1), rtol=1e-12)
    np.testing.assert_allclose(h_n_flipped, h_n, rtol=1e-12)
    y_single, h_n_single = flipped(x[:6, 0], h_0[:, 0])
    np.testing.assert_allclose(y_single, y[:6, 0], rtol=1e-12)
    np.testing.assert_allclose(h_n_single, h_n[:, 0], rtol=1e-12)


@backend_names
def test_strides_and_widths_do_not_matter(backend: str, x: np.ndarray, rng: np.random.Generator):
    rnn = layer(num_layers=2, backend=backend)
    h_0 = random_states(rnn, rng)
    expected, _ = rnn(x, h_0)
    misaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    misaligned[:] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    reversed_twice = x[::-1, ::-1].copy()[::-1, ::-1]
    wide = np.repeat(x, 2, axis=-1)[..., ::2]
    for same in (misaligned, read_only, reversed_twice, wide, np.asfortranarray(x), x.astype(">f8"), x.tolist()):
        assert np.array_equal(rnn(same, np.asfortranarray(h_0))[0], expected)
    narrow, _ = rnn(x.astype(np.float32), h_0)
    assert narrow.dtype == np.float64
    np.testing.assert_allclose(narrow, expected, atol=1e-6)


@backend_names
@directions
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 64, 65, 200])
def test_last_state_is_h_n(
    backend: str, bidirectional: bool, num_layers: int, n_steps: int, dtype: str, rng: np.random.Generator
):
    rnn = layer(num_layers=num_layers, bidirectional=bidirectional, dtype=dtype, backend=backend)
    x, h_0 = rng.standard_normal((n_steps, B, I)), random_states(rnn, rng)
    before = h_0.copy()
    for lengths in (None, [n_steps, 0, n_steps // 2, 1]):
        assert np.array_equal(rnn.last_state(x, h_0, lengths), rnn(x, h_0, lengths)[1])
    assert np.array_equal(rnn.last_state([x[:7, 0], x[:0, 1]]), rnn([x[:7, 0], x[:0, 1]])[1])
    assert np.array_equal(rnn.last_state(x[:, 0]), rnn(x[:, 0])[1])
    assert np.array_equal(h_0, before)


@directions
def test_last_state_needs_no_memory_for_the_steps(bidirectional: bool):
    rnn = layer(bidirectional=bidirectional, backend="numpy")
    x = np.ones((4000, 1, I))
    rnn.last_state(x)
    tracemalloc.start()
    rnn.last_state(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80_000  # the outputs alone would be 160,000 bytes or more


@backend_names
def test_step_by_step(backend: str, x: np.ndarray, rng: np.random.Generator):
    rnn = layer(num_layers=3, backend=backend)
    h = h_0 = random_states(rnn, rng)
    single = h_0[:, 0]
    y, h_n = rnn(x, h_0)
    for t in range(T):
        y_t, h = rnn.step(x[t], h)
        y_single, single = rnn.step(x[t, 0], single)
        np.testing.assert_allclose(y_t, y[t], rtol=1e-12)
        np.testing.assert_allclose(y_single, y[t, 0], rtol=1e-12)
    np.testing.assert_allclose(h, h_n, rtol=1e-12)
    np.testing.assert_allclose(single, h_n[:, 0], rtol=1e-12)
    assert np.array_equal(rnn.step(x[0])[1], rnn.step(x[0], np.zeros_like(h_0))[1])
    y_t[:] = 0
    assert h[-1].all(), "y_t is an array of its own"


# The derivative


@backend_names
@directions
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"])
def test_central_differences(
    nonlinearity: str, bidirectional: bool, backend: str, x: np.ndarray, rng: np.random.Generator
):
    rnn = layer(num_layers=3, nonlinearity=nonlinearity, dropout=0.4, bidirectional=bidirectional, backend=backend)
    for array in rnn.parameters().values():
        array *= 0.3 if nonlinearity == "power" else 1  # or states explode
    h_0 = random_states(rnn, rng)
    again = copy.deepcopy(rnn)  # to draw the same dropout in every evaluation
    y, h_n, pullback = rnn.vjp(x, h_0, LENGTHS)
    d_y, d_h_n = rng.standard_normal(y.shape), rng.standard_normal(h_n.shape)
    d_x, d_h_0, d_params = pullback(d_y, d_h_n)

    def value(x: np.ndarray, h_0: np.ndarray, params: dict[str, np.ndarray]) -> float:
        twin = copy.deepcopy(again)
        twin.load_state_dict(params)
        y, h_n, _ = twin.vjp(x, h_0, LENGTHS)
        return float((y * d_y).sum() + (h_n * d_h_n).sum())

    params = rnn.state_dict()
    for _ in range(5):
        along_x, along_h_0 = rng.standard_normal(x.shape), rng.standard_normal(h_0.shape)
        along = {name: rng.standard_normal(array.shape) for name, array in params.items()}
        eps = 1e-6
        ahead, behind = (
            value(x + e * along_x, h_0 + e * along_h_0, {name: params[name] + e * along[name] for name in params})
            for e in (eps, -eps)
        )
        slope = (d_x * along_x).sum() + (d_h_0 * along_h_0).sum() + sum((d_params[n] * along[n]).sum() for n in params)
        assert (ahead - behind) / (2 * eps) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@backend_names
def test_pullback_again(backend: str, x: np.ndarray, rng: np.random.Generator):
    rnn = layer(num_layers=2, dropout=0.5, backend=backend)
    h_0 = random_states(rnn, rng)
    y, h_n, pullback = rnn.vjp(x, h_0)
    d_y = rng.standard_normal(y.shape)
    first = pullback(d_y)
    kept = copy.deepcopy(first)
    rnn.vjp(2 * x)[2](d_y)  # works in other memory
    h_0[:] = h_n  # a caller's state, updated in place
    h_n[:] = 0
    for other in (pullback(d_y), pullback(d_y, np.zeros_like(h_n)), first):
        for a, b in zip((*other[:2], *other[2].values()), (*kept[:2], *kept[2].values()), strict=True):
            assert np.array_equal(a, b)
    d_x, d_h_0, _ = pullback(d_y, input_grad=False)
    assert d_x is None
    assert np.array_equal(d_h_0, kept[1])
    assert not any(array.any() for array in pullback(None)[2].values())
    assert pullback(None, h_n + 1)[1].any()


def test_y_of_a_vjp_is_read_only(x: np.ndarray):
    # The pullback needs it: `y -= target; pullback(y)` must not give wrong gradients silently.
    for given in (x, [x[:, 0]], x[:, 0]):
        y, _, _ = layer(backend="numpy").vjp(given)
        with pytest.raises(ValueError, match="read-only"):
            (y[0] if isinstance(y, list) else y)[:] = 0


@backend_names
def test_dropout(backend: str, rng: np.random.Generator):
    x = rng.standard_normal((50, 40, I))
    rnn = layer(num_layers=2, nonlinearity="identity", dropout=0.25, bias=False, backend=backend)
    plain, _ = rnn(x)
    assert np.array_equal(plain, rnn(x)[0])
    assert np.array_equal(plain, layer(num_layers=2, nonlinearity="identity", bias=False, backend=backend)(x)[0])
    dropped = [rnn.vjp(x)[0] for _ in range(100)]
    assert not np.array_equal(dropped[0], dropped[1])
    assert np.abs(np.mean(dropped, axis=0) - plain).mean() < 0.1 * np.abs(plain).mean()  # right on average
    assert np.array_equal(layer(dropout=0.25, backend=backend).vjp(x)[0], layer(backend=backend)(x)[0])  # one layer
    assert not layer(num_layers=2, nonlinearity="relu", bias=False, dropout=1.0, backend=backend).vjp(x)[0].any()


@backend_names
def test_results_may_get_another_shape(backend: str):
    rnn, x = layer(backend=backend), np.ones((T, B, I))
    y, h_n, pullback = rnn.vjp(x)
    expected = pullback(np.ones((T, B, H)))
    y.shape, h_n.shape = (T * B, H), (B, H)
    assert all(np.array_equal(a, b) for a, b in zip(pullback(np.ones((T, B, H)))[:2], expected[:2], strict=True))


@backend_names
def test_results_stay_valid(backend: str, x: np.ndarray):
    rnn = layer(num_layers=3, backend=backend)
    results = [rnn(x), rnn.vjp(x)[:2], rnn.vjp(x)[2](rnn(x)[0]), rnn.step(x[0]), [rnn.last_state(x)]]
    kept = copy.deepcopy(results)
    for _ in range(3):
        rnn(-x)
        rnn.vjp(-x)[2](np.ones((T, B, H)))
        rnn.last_state(-x)
        rnn.step(-x[0])
    for result, before in zip(results, kept, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(result[:2], before[:2], strict=True))
    assert all(np.array_equal(array, kept[2][2][name]) for name, array in results[2][2].items())


@backend_names
def test_several_threads(backend: str, rng: np.random.Generator):
    rnn = layer(num_layers=3, backend=backend)
    inputs = [rng.standard_normal((n, B, I)) for n in rng.integers(1, 30, 40)]

    def run(x: np.ndarray) -> list[np.ndarray]:
        y, h_n, pullback = rnn.vjp(x)
        d_x, d_h_0, d_params = pullback(y)
        return [y, h_n, d_x, d_h_0, rnn.last_state(x), *d_params.values()]

    expected = list(map(run, inputs))
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(run, inputs), expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.skipif("cython" not in elman.available_backends(), reason="the reference allocates as it likes")
@pytest.mark.parametrize("form", ["padded", "list"])
def test_second_call_allocates_what_it_returns(form: str, rng: np.random.Generator):
    rnn = layer(num_layers=3, dropout=0.5, backend="cython")
    x = rng.standard_normal((500, 40, I))
    given = list(x.swapaxes(0, 1)) if form == "list" else x
    d_y: Any = rnn(given)[0]

    def peak_of_a_step() -> int:
        tracemalloc.start()
        y, _, pullback = rnn.vjp(given)
        d_x, _, _ = pullback(d_y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(d_x) == len(y)
        return peak

    returned = 500 * 40 * (H + I) * 8
    assert peak_of_a_step() > 4 * returned
    assert peak_of_a_step() < 1.1 * returned + 200_000  # NumPy's ufuncs have buffers of 64 KiB


@pytest.mark.skipif("cython" not in elman.available_backends(), reason="the reference allocates as it likes")
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_memory_of_a_training_pass(num_layers: int):
    """At most 2.5 values for each state, beyond what goes in and comes out."""
    rnn = elman.RNN(3, 64, num_layers, seed=0, backend="cython")
    x, d_y = np.ones((300, 8, 3), rnn.dtype), np.ones((300, 8, 64), rnn.dtype)
    tracemalloc.start()
    _, _, pullback = rnn.vjp(x)
    pullback(d_y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    comes_out = d_y.nbytes + x.nbytes + sum(array.nbytes for array in rnn.parameters().values())  # y, d_x, gradients
    assert peak - comes_out < 2.5 * num_layers * d_y.nbytes


# Parameters


def test_names_shapes_and_layout():
    rnn = elman.RNN(3, 5, num_layers=2, bidirectional=True)
    shapes = {"weight_ih_l0": (5, 3), "weight_ih_l1": (5, 10)}
    shapes |= {f"weight_hh_l{k}": (5, 5) for k in range(2)} | {f"bias_l{k}": (5,) for k in range(2)}
    shapes |= {f"{name}_reverse": shape for name, shape in shapes.items()}
    assert {name: array.shape for name, array in rnn.parameters().items()} == shapes
    for array in rnn.parameters().values():
        assert array.T.flags.carray  # k-major
        assert array.dtype == np.float32
    parameters = stack_of(rnn).parameters
    for array in parameters.arrays:
        assert array.__array_interface__["data"][0] % 64 == 0
        assert np.shares_memory(array, parameters.flat)
    assert list(elman.RNN(3, 5, bias=False).parameters()) == ["weight_ih_l0", "weight_hh_l0"]


@backend_names
def test_parameters_are_live(backend: str, x: np.ndarray):
    rnn = layer(num_layers=2, bidirectional=True, backend=backend)
    before, _ = rnn(x)
    for array in rnn.parameters().values():
        array[...] = 0
    assert not rnn(x)[0].any()
    rnn.load_state_dict(layer(num_layers=2, bidirectional=True).state_dict())
    assert np.array_equal(rnn(x)[0], before)


def test_seeds():
    single, double = layer(dtype="float32").parameters(), layer().parameters()
    for name, array in double.items():
        assert np.array_equal(single[name], array.astype(np.float32))
        assert 0.3 / np.sqrt(H) < np.abs(array).max() <= 1 / np.sqrt(H)
        assert np.array_equal(layer(seed=np.random.default_rng(0)).parameters()[name], array)
        assert not np.array_equal(layer(seed=None).parameters()[name], array)
    assert np.array_equal(double["weight_ih_l0"], np.random.default_rng(0).uniform(-(H**-0.5), H**-0.5, (H, I)))
    rng = np.random.default_rng(0)
    assert not np.array_equal(layer(seed=rng).parameters()["bias_l0"], layer(seed=rng).parameters()["bias_l0"])


def test_state_dict_is_a_copy():
    rnn = layer()
    state = rnn.state_dict()
    state["bias_l0"][:] = 7
    assert not (rnn.parameters()["bias_l0"] == 7).any()
    rnn.load_state_dict(state)
    assert (rnn.parameters()["bias_l0"] == 7).all()
    rnn.load_state_dict(rnn.parameters())  # its own live arrays


def test_biases_of_pytorch():
    rnn, state = layer(), layer().state_dict(pytorch=True)
    assert not state["bias_hh_l0"].any()
    state["bias_hh_l0"] += 1
    rnn.load_state_dict({name: array.astype(np.float32) for name, array in state.items()})
    np.testing.assert_allclose(rnn.parameters()["bias_l0"], layer().parameters()["bias_l0"] + 1, rtol=1e-6)


@backend_names
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda rnn: pickle.loads(pickle.dumps(rnn))])
def test_copies(duplicate: Any, backend: str, x: np.ndarray):
    rnn = layer(num_layers=2, dropout=0.5, backend=backend)
    expected = rnn(x)[0]
    twin = duplicate(rnn)
    assert repr(twin) == repr(rnn)
    assert twin.dtype is rnn.dtype
    assert np.array_equal(twin(x)[0], expected)
    assert np.array_equal(twin.vjp(x)[0], rnn.vjp(x)[0])
    twin.parameters()["bias_l1"][:] += 1
    assert not np.array_equal(twin(x)[0], expected)
    assert np.array_equal(rnn(x)[0], expected)
    assert stack_of(twin).parameters.flat.__array_interface__["data"][0] % 64 == 0


def test_repr():
    assert repr(elman.RNN(3, 5)) == "RNN(3, 5) with 45 parameters"
    rnn = elman.RNN(np.int64(3), 5, 2, "relu", False, bidirectional=True, dtype=np.float64, backend="numpy", seed=7)
    expected = "RNN(3, 5, num_layers=2, nonlinearity='relu', bias=False, bidirectional=True, dtype='float64', "
    assert repr(rnn) == expected + "backend='numpy') with 230 parameters"


# What a model builds on


@backend_names
@directions
def test_a_model_on_the_layer(backend: str, bidirectional: bool, rng: np.random.Generator):
    rnn = layer(num_layers=2, bidirectional=bidirectional, backend=backend)
    before = rnn.state_dict()
    parameters = Parameters([*stack_of(rnn).architecture.entries(), Entry(("weight_ho",), (7, H))], rnn.dtype)
    move_to(parameters, rnn)
    assert all(np.array_equal(array, before[name]) for name, array in rnn.parameters().items())
    assert list(parameters.named()) == [*before, "weight_ho"]
    assert all(np.shares_memory(array, parameters.flat) for array in rnn.parameters().values())
    model = pickle.loads(pickle.dumps({"rnn": rnn, "parameters": parameters}))
    assert stack_of(model["rnn"]).parameters is model["parameters"]

    tokens, h_0 = rng.integers(0, I, (T, B)), random_states(rnn, rng)
    one_hot = np.eye(I)[tokens]
    y, h_n, pullback = rnn.vjp(one_hot, h_0)
    d_y, d_h_n = rng.standard_normal(y.shape), rng.standard_normal(h_n.shape)
    _, d_h_0, d_params = pullback(d_y, d_h_n)

    gradients = Parameters(parameters.entries, rnn.dtype)
    states, d_states = np.empty_like(h_0), np.empty_like(h_0)
    stack = stack_of(rnn)
    with stack.forward(mode_of(rnn), tokens, h_0, states) as tape:
        np.testing.assert_allclose(tape.layers[-1].y, y, rtol=1e-12)
        stack.backward(tape, d_y, d_h_n, d_states, None, gradients.arrays)
    np.testing.assert_allclose(states, h_n, rtol=1e-12)
    np.testing.assert_allclose(d_states, d_h_0, rtol=1e-9)
    for name, gradient in d_params.items():
        np.testing.assert_allclose(gradients.named()[name], gradient, rtol=1e-9, atol=1e-12)


# The package


def test_reference_is_the_same_api():
    assert reference.__all__ == elman.__all__
    assert all(hasattr(reference, name) for name in elman.__all__)


def test_reference_computes_on_numpy(monkeypatch: pytest.MonkeyPatch, x: np.ndarray):
    used = []
    numpy = backends.get("numpy")
    monkeypatch.setattr(numpy, "forward", lambda *_, **__: used.append("numpy"))
    reference.RNN(I, H)(x)
    assert used == ["numpy"]
    assert mode_of(pickle.loads(pickle.dumps(reference.RNN(I, H)))).backend is numpy


def test_import_is_light():
    """By what it loads, as no test is decided by a clock; `python -X importtime -c "import elman"` shows the time."""
    program = "import sys, numpy; before = set(sys.modules); import elman; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    heavy = {"numba", "torch", "llvmlite", "scipy", "matplotlib", "click", "tqdm", "safetensors", "importlib.metadata"}
    heavy |= {"cloudpickle", "joblib"}
    assert not heavy & {name for module in loaded for name in (module, module.partition(".")[0])}
    assert len([name for name in loaded if name.partition(".")[0] != "elman"]) < 60


@pytest.mark.parametrize("module", ["elman", "elman.reference"])
def test_submodules_are_imported_when_they_are_asked_for(module: str):
    """Without an import of their own; what a submodule lacks is said, and `hasattr` goes on."""
    program = f"""if True:
        import importlib, sys
        elman = importlib.import_module("{module}")
        asked = {{"keras", "onnx", "plot", "sklearn", "text", "torch"}}
        assert asked <= set(dir(elman)) and "RNN" in dir(elman)
        assert not {{"elman." + name for name in asked}} & set(sys.modules)
        assert elman.text is sys.modules["elman.text"] and elman.text.Corpus
        sys.modules["matplotlib"] = sys.modules["torch"] = None  # as where they are not installed
        for name in ("torch", "plot", "plots", "__wrapped__"):
            assert not hasattr(elman, name)
        try:
            elman.torch
        except AttributeError as error:
            print(error)
        try:
            elman.plots
        except AttributeError as error:
            print(error)
        try:
            from elman import torch
        except ImportError as error:
            print(error)"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    reason = "elman.torch needs PyTorch: pip install 'elman[torch]'"
    missing = f"module '{module}' has no attribute"
    assert run.stdout.splitlines() == [f"{missing} 'torch': {reason}", f"{missing} 'plots'", reason]


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"bias": False}], ids=str)
def test_initializations(options: dict[str, Any], dtype: str):
    def make(**more: Any) -> dict[str, np.ndarray]:
        return elman.RNN(5, 20, seed=0, dtype=dtype, **options, **more).parameters()

    uniform, tolerance = make(), 30 * np.finfo(dtype).eps
    for name, array in make(initialization="orthogonal").items():
        if name.startswith("weight_hh"):
            np.testing.assert_allclose(array @ array.T, np.eye(20), atol=tolerance)
            assert not np.allclose(array, np.eye(20), atol=0.1)
        else:
            np.testing.assert_array_equal(array, uniform[name])
    for name, array in make(initialization="identity").items():
        expected = {"weight_hh": np.eye(20), "bias": np.zeros(20)}.get(name.split("_l")[0], uniform[name])
        np.testing.assert_array_equal(array, expected)
    for initialization in ("uniform", "orthogonal", "identity"):
        for name, array in make(initialization=initialization, spectral_radius=1.25).items():
            if name.startswith("weight_hh"):
                radius = np.abs(np.linalg.eigvals(array.astype(float))).max()
                assert radius == pytest.approx(1.25, rel=1e-5 if dtype == "float32" else 1e-12)
                unscaled = make(initialization=initialization)[name]
                np.testing.assert_allclose(array / array.max(), unscaled / unscaled.max(), rtol=1e-5, atol=1e-6)


def test_initialization_is_shown():
    rnn = elman.RNN(2, 3, initialization="orthogonal", spectral_radius=0.5)
    assert repr(rnn) == "RNN(2, 3, initialization='orthogonal', spectral_radius=0.5) with 18 parameters"


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_dropout_drops_the_same_units_at_all_steps(bidirectional: bool, backend: str, dtype: str):
    """States that only go on from step to step: a unit's is 0 from the first step on, or multiplied by 1 / (1 - p)."""
    options = {"recurrent_dropout": 0.75, "bidirectional": bidirectional, "initialization": "identity"}
    rnn = elman.RNN(2, 50, nonlinearity="identity", dtype=dtype, seed=0, backend=backend, **options)
    x, h_0 = np.zeros((4, 30, 2)), np.ones((1 + bidirectional, 30, 50))
    y, _ = rnn(x, h_0)
    assert (y == 1).all(), "a plain call drops nothing"
    y, _, _ = rnn.vjp(x, h_0)
    ahead, behind = y[..., :50], y[::-1, :, 50:]
    for states in (ahead, behind) if bidirectional else (ahead,):
        dropped = states[0] == 0
        assert 0.7 < dropped.mean() < 0.8
        for t, state in enumerate(states):
            np.testing.assert_array_equal(state, np.where(dropped, 0, 4.0 ** (t + 1)))
    assert not np.array_equal(rnn.vjp(x, h_0)[0], y), "drawn anew each time"


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("form", ["given", "batch_first"])
def test_a_pullback_keeps_no_array_of_the_caller_s_but_x(backend: str, form: str, rng: np.random.Generator):
    rnn = elman.RNN(3, 5, bidirectional=True, batch_first=form == "batch_first", seed=0, backend=backend)
    x, h_0, lengths = rng.standard_normal((4, 4, 3)), rng.standard_normal((2, 4, 5)), np.array([4, 0, 2, 3])
    y, _, pullback = rnn.vjp(x, h_0, lengths)
    expected = pullback(y)
    for value in (10**8, 4, -1):  # beyond the arrays, or plausible
        lengths[:], h_0[...] = value, np.nan
        d_x, d_h_0, gradients = pullback(y)
        np.testing.assert_array_equal(d_x, expected[0])
        np.testing.assert_array_equal(d_h_0, expected[1])
        assert_same_bits(gradients, expected[2])
