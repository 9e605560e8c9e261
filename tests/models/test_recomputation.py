"""Back-propagation with recomputation: the bits of a full tape, in the memory that was promised."""

import copy
import tracemalloc
from typing import Any

import numpy as np
import pytest

import elman
from elman.layer.rnn import stack_of
from elman.models.base import network_of

from ..compare import assert_same_bits

T, B, N, V = 23, 4, 3, 5
LENGTHS = np.array([23, 5, 11, 6])
compiled_names = pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])


def make(pattern: str, outputs: Any, *, tokens: bool = False, **options: Any) -> tuple[elman.SequenceModel, Any, Any]:
    rng = np.random.default_rng(3)
    inputs: Any = elman.Tokens(V) if tokens else elman.Features(N)
    options = {"hidden_size": 19, "num_layers": 3, "seed": 0} | options
    model = elman.SequenceModel(inputs, outputs, pattern=pattern, **options)
    x_shape = (B,) if pattern == "one-to-many" else (T, B)
    x = rng.integers(0, V, x_shape) if tokens else rng.standard_normal((*x_shape, N))
    y_shape = (B,) if pattern == "many-to-one" else (T, B)
    y = rng.integers(0, V, y_shape) if isinstance(outputs, elman.Categories) else rng.random((*y_shape, outputs.n))
    return model, x, y


BOTH_WAYS = {"bidirectional": True, "num_layers": 1}
MASK = np.random.default_rng(5).random((19, 19)) < 0.6
CASES: list[tuple[str, Any, dict[str, Any]]] = [
    ("many-to-many", elman.Categories(V), {}),
    ("many-to-many", elman.Categories(V), {"tokens": True}),
    ("many-to-many", elman.Binary(2), {"nonlinearity": "relu"}),
    ("many-to-one", elman.Reals(2), {}),
    ("many-to-one", elman.Categories(V), {"tokens": True, "num_layers": 1}),
    ("one-to-many", elman.Reals(2), {"num_layers": 2}),
    ("many-to-many", elman.Reals(2), {"recurrent_dropout": 0.3}),
    ("many-to-many", elman.Reals(2), {"dropout": 0.4, "recurrent_dropout": 0.3}),
    ("many-to-many", elman.Reals(2), {"learn_h_0": True}),
    ("many-to-one", elman.Reals(2), {"learn_h_0": True}),
    ("many-to-many", elman.Categories(V), {"tokens": True, **BOTH_WAYS}),
    ("many-to-many", elman.Binary(2), {"learn_h_0": True, "mask_hh": MASK, **BOTH_WAYS}),
    ("many-to-one", elman.Reals(2), {"recurrent_dropout": 0.3, "learn_h_0": True, **BOTH_WAYS}),
    ("many-to-one", elman.Categories(V), {"tokens": True, **BOTH_WAYS}),
    ("many-to-many", elman.Reals(2), {"noise": 0.2, "input_noise": 0.1, **BOTH_WAYS}),
    ("many-to-one", elman.Reals(2), {"noise": 0.2, "hidden_size": 1, **BOTH_WAYS}),
]


@compiled_names
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("pattern", "outputs", "options"), CASES, ids=str)
def test_gradients_have_the_bits_of_a_full_tape(
    pattern: str, outputs: Any, options: dict[str, Any], lengths: Any, backend: str, dtype: str
):
    model, x, y = make(pattern, outputs, backend=backend, dtype=dtype, **options)
    given = {"lengths": lengths, "weights": np.linspace(0.5, 2, B), "activation_l2": 0.5 * (pattern != "one-to-many")}
    before = stack_of(model.rnn).rng.bit_generator.state
    loss, gradients = model.loss_and_grads(x, y, **given)
    for memory in (1, 7, 22, 23, 99):
        stack_of(model.rnn).rng.bit_generator.state = before
        again, recomputed = model.loss_and_grads(x, y, **given, memory=memory)
        assert again == pytest.approx(loss, rel=1e-6 if dtype == "float32" else 1e-13)
        assert_same_bits(recomputed, gradients)


LEAKY: list[dict[str, Any]] = [
    {"leak": 0.3, "learn_leak": True},
    {"leak": 0.3, "learn_leak": True, "form": "potential", "learn_h_0": True},
    {"leak": 0.3, "noise": 0.2, "form": "potential", "recurrent_dropout": 0.2},
    {"hidden_size": 1, "nonlinearity": "relu"},
]


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("options", LEAKY, ids=str)
def test_both_directions_to_rounding(options: dict[str, Any], pattern: str, backend: str):
    model, x, y = make(pattern, elman.Reals(2), backend=backend, dtype="float64", **BOTH_WAYS, **options)
    given: Any = {"noise_seed": 3, "activation_l1": 0.1}
    for lengths in (None, LENGTHS):
        before = stack_of(model.rnn).rng.bit_generator.state
        loss, gradients = model.loss_and_grads(x, y, lengths=lengths, **given)
        for memory in (1, 5, 22, "40kB"):
            stack_of(model.rnn).rng.bit_generator.state = before
            again, recomputed = model.loss_and_grads(x, y, lengths=lengths, **given, memory=memory)
            assert again == pytest.approx(loss, rel=1e-13)
            for name, array in gradients.items():
                np.testing.assert_allclose(recomputed[name], array, rtol=1e-11, atol=1e-14, err_msg=name)


def test_the_reference_and_the_state():
    for backend in elman.available_backends():
        model, x, y = make("many-to-many", elman.Reals(2), backend=backend, dtype="float64")
        whole, parts = np.full((2, 3, B, 19), 0.25)
        loss, gradients = model.loss_and_grads(x, y, state=whole, lengths=LENGTHS)
        again, recomputed = model.loss_and_grads(x, y, state=parts, lengths=LENGTHS, memory=5)
        assert again == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(parts, whole, rtol=1e-12)
        for name, array in gradients.items():
            np.testing.assert_allclose(recomputed[name], array, rtol=1e-10, atol=1e-14)


@compiled_names
@pytest.mark.parametrize("own", [{}, BOTH_WAYS], ids=str)
def test_training_has_the_bits_of_a_full_tape(own: dict[str, Any], backend: str, rng: np.random.Generator):
    model, _, _ = make("many-to-many", elman.Reals(2), backend=backend, **own)
    other = copy.deepcopy(model)
    X = [rng.standard_normal((n, N)) for n in rng.integers(1, 60, 20)]
    Y = [rng.standard_normal((len(x), 2)) for x in X]
    options = {"epochs": 3, "batch_size": 4, "clip_norm": 0.5, "progress": False}
    model.fit(X, Y, **options)
    other.fit(X, Y, **options, memory=8)
    assert_same_bits(other.parameters(), model.parameters())


def test_dropout_is_the_same_in_both_passes(rng: np.random.Generator):
    model, x, y = make("many-to-many", elman.Reals(2), dtype="float64", dropout=0.4, recurrent_dropout=0.2)
    again = copy.deepcopy(model)
    _, gradients = model.loss_and_grads(x, y, memory=6)
    parameters = model.state_dict()

    def value(parameters: dict[str, np.ndarray]) -> float:
        twin = copy.deepcopy(again)
        twin.load_state_dict(parameters)
        loss = twin.loss_and_grads(x, y, memory=6)[0]
        assert stack_of(twin.rnn).rng.bit_generator.state == stack_of(model.rnn).rng.bit_generator.state
        return loss

    for _ in range(3):
        along = {name: rng.standard_normal(array.shape) for name, array in parameters.items()}
        ahead, behind = (value({k: parameters[k] + e * along[k] for k in parameters}) for e in (1e-6, -1e-6))
        slope = sum((gradients[name] * along[name]).sum() for name in parameters)
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"num_layers": 4, "dropout": 0.5}, BOTH_WAYS], ids=str)
@pytest.mark.parametrize("memory", ["2MB", "4.5MB", "9000kB", "1GB"])
def test_memory_is_as_promised(memory: str, options: dict[str, Any]):
    n_steps, n_rows = 3000, 8
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n_steps, n_rows, 2)).astype("float32"), np.zeros((n_steps, n_rows, 1), "float32")
    model = elman.SequenceModel(elman.Features(2), elman.Reals(), hidden_size=32, seed=0, **options)
    fixed = 4 * network_of(model).parameters.flat.nbytes + 100_000  # the gradients, Adam's memories, what Python needs
    model.loss(x[:2], y[:2])  # imports what it needs
    optimizer = elman.Adam(1e-3)
    tracemalloc.start()
    model.train_step(x, y, optimizer=optimizer, memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    allowed = {"2MB": 2e6, "4.5MB": 4.5e6, "9000kB": 9e6, "1GB": 1e9}[memory]
    assert peak < allowed + fixed
    if memory != "1GB":
        assert peak > 0.6 * allowed, "as much as it may"


def test_bad_memory():
    model, x, y = make("many-to-many", elman.Reals(2))
    before = model.state_dict()
    for memory, message in (
        (0, "memory must be a positive int, got 0"),
        (1.5, "memory must be None, a number of steps or a string like '200MB', got 1.5"),
        (True, "memory must be None, a number of steps or a string like '200MB', got True"),
        ("much", "memory must be None, a number of steps or a string like '200MB', got 'much'"),
        ("1.2.3MB", "memory must be None, a number of steps or a string like '200MB'"),
        ("-5MB", "memory must be None, a number of steps or a string like '200MB'"),
        ("1kB", "memory must be at least '0.0[0-9]*MB' for this batch, got '0.001MB'"),
    ):
        for call in (model.loss_and_grads, lambda *a, **k: model.train_step(*a, **k, optimizer=elman.SGD(0.1))):
            with pytest.raises((TypeError, ValueError), match=f"^{message}"):
                call(x, y, memory=memory)
    with pytest.raises(ValueError, match=r"^memory must be None where there is tbptt"):
        model.fit([x[:, 0]], [y[:, 0]], memory=3, tbptt=(2, 2))
    both: list[tuple[dict[str, Any], str]] = [
        ({"reverse": True}, "reverse=True: that direction begins at the end"),
        ({"bidirectional": True}, "bidirectional=True and more than one layer: each needs"),
        ({**BOTH_WAYS, "leak": 0.5, "learn_leak": True, "noise": 0.1}, "bidirectional=True where leaks of noisy units"),
    ]
    for options, message in both:
        other, _, _ = make("many-to-many", elman.Reals(2), **options)
        with pytest.raises(ValueError, match=f"^memory must be None with {message}"):
            other.loss_and_grads(x, y, memory=3)
        with pytest.raises(ValueError, match=f"^memory must be None with {message}"):
            other.fit([x[:, 0]], [y[:, 0]], memory=3)
    assert_same_bits(model.parameters(), before)


# Seq2Seq

PAIRED: list[dict[str, Any]] = [
    {},
    {"tokens": True, "num_layers": 1, "hidden_size": 1},
    {"learn_h_0": True, "dropout": 0.3, "recurrent_dropout": 0.2},
    {"tokens": True, "noise": 0.2, "num_layers": 2},
    {"learn_h_0": True, "noise": 0.2, "recurrent_dropout": 0.2, **BOTH_WAYS},
    {"tokens": True, **BOTH_WAYS},
]


def pairs(*, tokens: bool = False, n: int = 7, **options: Any) -> tuple[Any, list[Any], list[Any]]:
    """A function that makes a model, and unequal pairs for it: one of a single step, and one whose target is empty."""
    rng = np.random.default_rng(3)
    lengths = [1, *rng.integers(2, 30, n - 1)]
    X = [rng.integers(0, V, k) if tokens else rng.standard_normal((k, N)) for k in lengths]
    Y = [rng.integers(0, V, k) for k in [*rng.integers(1, 25, n - 1), 0]]
    inputs = elman.Tokens(V) if tokens else elman.Features(N)
    options = {"hidden_size": 19, "num_layers": 3, "seed": 0} | options
    return lambda: elman.Seq2Seq(inputs, elman.Categories(V), **options), X, Y


@compiled_names
@pytest.mark.parametrize("options", PAIRED, ids=str)
def test_pairs_are_trained_with_the_bits_of_a_full_tape(options: dict[str, Any], backend: str, dtype: str):
    new, X, Y = pairs(**options, backend=backend, dtype=dtype)
    given: dict[str, Any] = {"epochs": 2, "batch_size": 4, "progress": False, "activation_l2": 0.5, "weight_l1": 1e-3}
    whole = new()
    history = whole.fit(X, Y, **given)
    assert np.isfinite(history["loss"]).all()
    for memory in (1, 4, 24, "100kB", "1GB"):
        model = new()
        losses = model.fit(X, Y, **given, memory=memory)["loss"]
        np.testing.assert_allclose(losses, history["loss"], rtol=1e-6 if dtype == "float32" else 1e-13)
        assert_same_bits(model.parameters(), whole.parameters())


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("trainable", [["weight_ho"], ["encoder.bias_l0"], ["decoder.*"], ["h_0"], None], ids=str)
@pytest.mark.parametrize("own", [{"num_layers": 2}, BOTH_WAYS, {**BOTH_WAYS, "leak": 0.4, "learn_leak": True}], ids=str)
def test_parts_of_pairs_are_trained_as_ever(own: dict[str, Any], trainable: Any, backend: str):
    new, X, Y = pairs(learn_h_0=True, backend=backend, dtype="float64", **own)
    whole, model = new(), new()
    given: dict[str, Any] = {"epochs": 1, "trainable": trainable, "optimizer": elman.SGD(0.5), "progress": False}
    whole.fit(X, Y, **given)
    model.fit(X, Y, **given, memory=5)
    for name, array in whole.parameters().items():
        np.testing.assert_allclose(model.parameters()[name], array, rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.5}, BOTH_WAYS], ids=str)
@pytest.mark.parametrize("memory", ["3MB", "6.5MB", "1GB"])
def test_memory_of_pairs_is_as_promised(memory: str, options: dict[str, Any]):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3000, 2)).astype("float32"), rng.integers(0, 3, (8, 2000))
    options = {"hidden_size": 32, "num_layers": 1, "seed": 0} | options
    model = elman.Seq2Seq(elman.Features(2), elman.Categories(3), **options)
    model.fit(x[:, :2], y[:, :2], epochs=1, progress=False)  # imports what it needs
    fixed = 4 * network_of(model).parameters.flat.nbytes + 100_000 + 8 * y.nbytes + 2 * x.nbytes  # and batches
    tracemalloc.start()
    model.fit(x, y, epochs=1, progress=False, memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    allowed = {"3MB": 3e6, "6.5MB": 6.5e6, "1GB": 1e9}[memory]
    assert peak < allowed + fixed
    if memory != "1GB":
        assert peak > 0.6 * allowed, "as much as it may"


def test_bad_memory_of_pairs():
    new, X, Y = pairs()
    model = new()
    before = model.state_dict()
    messages = [(0, "a positive int, got 0"), ("much", "None, a number"), ("1kB", r"at least '0\.0[0-9]*MB'")]
    for memory, message in messages:
        with pytest.raises(ValueError, match=f"^memory must be {message}"):
            model.fit(X, Y, memory=memory, progress=False)
    assert_same_bits(model.parameters(), before)
    for own in ({}, {"num_layers": 1, "leak": 0.5, "learn_leak": True, "noise": 0.1}):
        new, X, Y = pairs(bidirectional=True, **own)
        with pytest.raises(ValueError, match=r"^memory must be None with bidirectional=True"):
            new().fit(X, Y, memory=3, progress=False)
