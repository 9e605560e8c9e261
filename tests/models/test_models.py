"""The model: loss and gradients, training, truncation, drawing, data sets, copies. PyTorch is an oracle of its own."""

import copy
import itertools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import elman
from elman import backends, reference
from elman.data.kinds import PATTERNS, Kinds
from elman.data.sequences import Sequences
from elman.models.base import network_of
from elman.training.optimizers import Optimizer

from ..compare import assert_same_bits

T, B, H, V = 8, 4, 6, 5
LENGTHS = np.array([3, 8, 1, 6])
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}  # of the largest entry, as in test_torch.py

backend_names = pytest.mark.parametrize("backend", elman.available_backends())
directions = pytest.mark.parametrize("bidirectional", [False, True])


def make_model(n_inputs: int = V, n_outputs: int = V, **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": H, "dtype": "float64", "seed": 0} | options
    return elman.SequenceModel(elman.Tokens(n_inputs), elman.Categories(n_outputs), **options)


def random_batch(rng: np.random.Generator, model: elman.SequenceModel | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (T, B) and targets, some of which are missing."""
    n_inputs, n_outputs = (model.inputs.n, model.outputs.n) if model else (V, V)
    y = rng.integers(0, n_outputs, (T, B))
    y[rng.random((T, B)) < 0.2] = -1
    y[0, 0] = 0
    return rng.integers(0, n_inputs, (T, B)), y


def random_state(rng: np.random.Generator, model: elman.SequenceModel) -> np.ndarray:
    return rng.uniform(-1, 1, (model.rnn.num_layers, B, H)).astype(model.rnn.dtype)


def one_hot(x: np.ndarray, model: elman.SequenceModel) -> np.ndarray:
    return np.eye(model.inputs.n)[x]


def everything(model: elman.SequenceModel, optimizer: Any) -> dict[str, np.ndarray]:
    """All that a training step may change."""
    memories = {f"{name}/{i}": m for name, ms in optimizer._memories.items() for i, m in enumerate(ms)}
    return copy.deepcopy({**model.parameters(), **memories, "steps": np.array(optimizer.steps)})


# PyTorch


class Peer:
    """The same model in PyTorch: one-hot inputs, RNN, Linear, cross_entropy."""

    def __init__(self, model: elman.SequenceModel) -> None:
        self.torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test: pip install torch")
        self.torch.set_num_threads(1)  # its threads spin: on a busy machine that makes an operation 100 times slower
        layer, self.dtype = model.rnn, getattr(self.torch, model.rnn.dtype.name)
        self.n_inputs = model.inputs.n
        self.rnn = self.torch.nn.RNN(
            model.inputs.n,
            layer.hidden_size,
            layer.num_layers,
            layer.nonlinearity,
            bidirectional=layer.bidirectional,
            dtype=self.dtype,
        )
        n_states = model.parameters()["weight_ho"].shape[1]
        self.linear = self.torch.nn.Linear(n_states, model.outputs.n, dtype=self.dtype)
        named = {name: self.torch.tensor(array) for name, array in layer.state_dict(pytorch=True).items()}
        self.rnn.load_state_dict(named)
        readout = {"weight": model.parameters()["weight_ho"], "bias": model.parameters()["bias_o"]}
        self.linear.load_state_dict({name: self.torch.tensor(array) for name, array in readout.items()})
        layers = {
            name.replace("bias_ih", "bias"): p for name, p in self.rnn.named_parameters() if "bias_hh" not in name
        }
        self.parameters = {**layers, "weight_ho": self.linear.weight, "bias_o": self.linear.bias}
        for name, second_bias in self.rnn.named_parameters():
            if "bias_hh" in name:
                second_bias.requires_grad_(False)  # and stays zero: elman has one

    def loss(
        self, x: np.ndarray, y: np.ndarray, state: np.ndarray | None = None, lengths: np.ndarray | None = None
    ) -> Any:
        torch = self.torch
        inputs: Any = torch.nn.functional.one_hot(torch.tensor(x), self.n_inputs).to(self.dtype)
        if lengths is not None:
            y = np.where(np.arange(len(y))[:, None] < lengths, y, -1)
            inputs = torch.nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor(lengths), enforce_sorted=False)
        h, self.last_state = self.rnn(inputs, None if state is None else torch.tensor(state))
        if lengths is not None:
            h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, total_length=len(x))
        return torch.nn.functional.cross_entropy(
            self.linear(h).flatten(0, 1), torch.tensor(y).flatten(), ignore_index=-1
        )

    def gradients(self, *args: Any) -> dict[str, np.ndarray]:
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = self.loss(*args)
        loss.backward()
        named = {name: parameter.grad.numpy() for name, parameter in self.parameters.items()}
        return {"loss": loss.detach().numpy(), **named}


def assert_near(got: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        atol = tolerance * np.abs(value).max()
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol, err_msg=name)


@backend_names
@directions
@pytest.mark.parametrize("has_lengths", [False, True])
@pytest.mark.parametrize(("num_layers", "nonlinearity"), [(1, "tanh"), (2, "relu"), (3, "tanh")])
def test_loss_and_gradients_are_those_of_torch(
    num_layers: int,
    nonlinearity: str,
    has_lengths: bool,
    bidirectional: bool,
    backend: str,
    dtype: str,
    rng: np.random.Generator,
):
    model = make_model(
        n_outputs=7,
        num_layers=num_layers,
        nonlinearity=nonlinearity,
        bidirectional=bidirectional,
        dtype=dtype,
        backend=backend,
    )
    x, y = random_batch(rng, model)
    lengths = LENGTHS if has_lengths else None
    state = None if bidirectional else random_state(rng, model)
    carried = None if state is None else state.copy()
    peer = Peer(model)
    expected = peer.gradients(x, y, state, lengths)
    if has_lengths:  # nobody may look at what lies beyond
        beyond = np.arange(T)[:, None] >= LENGTHS
        x, y = np.where(beyond, -7, x), np.where(beyond, 10**9, y)
    loss, gradients = model.loss_and_grads(x, y, state=carried, lengths=lengths)
    assert isinstance(loss, float)
    assert all(gradient.dtype == dtype for gradient in gradients.values())
    assert_near({"loss": loss, **gradients}, expected, TOLERANCE[dtype])
    assert gradients.keys() == model.parameters().keys()
    if state is not None:
        np.testing.assert_allclose(carried, peer.last_state.detach().numpy(), rtol=0, atol=TOLERANCE[dtype])
    assert model.loss(x, y, state=state, lengths=lengths) == pytest.approx(loss, rel=1e-6)


OPTIMIZERS = {
    "SGD": {"lr": 0.3},
    "SGD with momentum": {"lr": 0.1, "momentum": 0.9},
    "Adagrad": {"lr": 0.1},
    "Adam": {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6},
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
}


@backend_names
@pytest.mark.parametrize(
    "clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_norm": 0.1, "clip_value": 0.02}]
)
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_training_is_that_of_torch(rule: str, clip: dict[str, float], backend: str, rng: np.random.Generator):
    model = make_model(num_layers=2, backend=backend)
    peer, kind = Peer(model), rule.split()[0]
    optimizer, peer_optimizer = (
        make(**OPTIMIZERS[rule])
        for make in (
            getattr(elman, kind),
            lambda **options: getattr(peer.torch.optim, kind)(peer.parameters.values(), **options),
        )
    )
    before = model.state_dict()
    for _ in range(5):
        x, y = random_batch(rng)
        expected = peer.gradients(x, y)["loss"]
        parameters = list(peer.parameters.values())
        norm = float(peer.torch.nn.utils.clip_grad_norm_(parameters, math.inf))
        if "clip_norm" in clip:
            assert norm > clip["clip_norm"]
            # PyTorch divides by norm + 1e-6
            peer.torch.nn.utils.clip_grad_norm_(parameters, clip["clip_norm"] * (norm + 1e-6) / norm)
        if "clip_value" in clip:
            assert any((parameter.grad.abs() > clip["clip_value"]).any() for parameter in parameters)
            peer.torch.nn.utils.clip_grad_value_(parameters, clip["clip_value"])
        peer_optimizer.step()
        assert model.train_step(x, y, optimizer=optimizer, **clip) == pytest.approx(float(expected), rel=1e-9)
    assert optimizer.steps == 5
    trained = {name: parameter.detach().numpy() for name, parameter in peer.parameters.items()}
    assert_near(model.parameters(), trained, 1e-9)
    assert all(np.abs(trained[name] - before[name]).max() > 1e-4 for name in before)


@backend_names
def test_a_limit_that_nothing_reaches(backend: str, dtype: str, rng: np.random.Generator):
    x, y = random_batch(rng)
    plain, limited = make_model(dtype=dtype, backend=backend), make_model(dtype=dtype, backend=backend)
    plain.train_step(x, y, optimizer=elman.SGD(0.1))
    for n, limit in enumerate((1e300, math.inf)):  # beyond float32
        limited.load_state_dict(make_model(dtype=dtype).state_dict())
        limited.train_step(x, y, optimizer=elman.SGD(0.1), clip_value=limit, clip_norm=limit if n else None)
        assert_same_bits(limited.parameters(), plain.parameters())


# Loss and gradients


@backend_names
@directions
def test_central_differences(bidirectional: bool, backend: str, rng: np.random.Generator):
    model = make_model(num_layers=2, bidirectional=bidirectional, dropout=0.4, backend=backend)
    x, y = random_batch(rng)
    again = copy.deepcopy(model)  # to draw the same dropout in every evaluation
    _, gradients = model.loss_and_grads(x, y, lengths=LENGTHS)
    params = model.state_dict()

    def value(params: dict[str, np.ndarray]) -> float:
        twin = copy.deepcopy(again)
        twin.load_state_dict(params)
        return twin.loss_and_grads(x, y, lengths=LENGTHS)[0]

    for _ in range(5):
        along = {name: rng.standard_normal(array.shape) for name, array in params.items()}
        ahead, behind = (value({name: params[name] + e * along[name] for name in params}) for e in (1e-6, -1e-6))
        slope = sum((gradients[name] * along[name]).sum() for name in params)
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)


@backend_names
@directions
def test_loss_by_hand(bidirectional: bool, backend: str, rng: np.random.Generator):
    """The layer's outputs, the readout, and the mean of -log p over the steps that have a target."""
    model = make_model(num_layers=2, bidirectional=bidirectional, backend=backend)
    x, y = random_batch(rng)
    h, _ = model.rnn(one_hot(x, model))
    o = h @ model.parameters()["weight_ho"].T + model.parameters()["bias_o"]
    p = np.exp(o) / np.exp(o).sum(axis=-1, keepdims=True)
    expected = -np.mean([np.log(p[t, b, y[t, b]]) for t in range(T) for b in range(B) if y[t, b] >= 0])
    assert model.loss(x, y) == pytest.approx(expected, rel=1e-12)
    assert model.loss_and_grads(x, y)[0] == pytest.approx(expected, rel=1e-12)
    assert model.train_step(x, y, optimizer=elman.SGD(0.1)) == pytest.approx(expected, rel=1e-12)


@backend_names
def test_rows_without_steps_and_forms_of_input(backend: str, rng: np.random.Generator):
    model = make_model(backend=backend)
    x, y = random_batch(rng)
    loss, gradients = model.loss_and_grads(x, y, lengths=LENGTHS)
    with_empty_row = (np.insert(x, 1, -1, axis=1), np.insert(y, 1, 99, axis=1))
    lengths = np.insert(LENGTHS, 1, 0)
    more_loss, more_gradients = model.loss_and_grads(*with_empty_row, lengths=lengths)
    assert more_loss == pytest.approx(loss, rel=1e-12)
    assert_near(more_gradients, gradients, 1e-12)
    for same_x, same_y in (
        (x.tolist(), y.tolist()),
        (x.astype(np.uint8), y.astype(np.int8)),
        (np.asfortranarray(x), y[::-1].copy()[::-1]),
        (x.astype(">i4"), np.repeat(y, 2, axis=1)[:, ::2]),
    ):
        same_loss, same_gradients = model.loss_and_grads(same_x, same_y, lengths=LENGTHS.tolist())
        assert same_loss == loss
        assert_same_bits(same_gradients, gradients)


@backend_names
def test_gradients_are_fresh_arrays(backend: str, rng: np.random.Generator):
    model = make_model(backend=backend)
    x, y = random_batch(rng)
    _, gradients = model.loss_and_grads(x, y)
    kept = copy.deepcopy(gradients)
    model.loss_and_grads(y.clip(0), x)
    model.train_step(y.clip(0), x, optimizer=elman.SGD(0.1))
    assert_same_bits(gradients, kept)


# The state


@backend_names
def test_state_goes_on_from_one_call_to_the_next(backend: str, dtype: str, rng: np.random.Generator):
    model = make_model(num_layers=2, dtype=dtype, backend=backend)
    x, y = random_batch(rng)
    at_once = random_state(rng, model)
    misaligned = np.zeros(at_once.nbytes + 1, np.uint8)[1:].view(dtype).reshape(at_once.shape)
    states = [at_once.copy(), np.asfortranarray(at_once), np.repeat(at_once, 2, axis=-1)[..., ::2], misaligned]
    misaligned[:] = at_once
    loss = model.loss(x, y, state=at_once)
    for state in states:
        parts = (slice(0, 3), slice(3, 4), slice(4, T))
        total = sum(model.loss(x[i], y[i], state=state) * np.count_nonzero(y[i] >= 0) for i in parts)
        assert total / np.count_nonzero(y >= 0) == pytest.approx(loss, rel=1e-6 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(state, at_once, rtol=1e-6 if dtype == "float32" else 1e-12)
    assert at_once.any()
    zeros = np.zeros_like(at_once)
    assert model.loss(x, y, state=zeros) == model.loss(x, y)


@backend_names
def test_truncated_back_propagation(backend: str, rng: np.random.Generator):
    """No gradient goes through the state, and it is the one that the parameters before the update led to."""
    model = make_model(num_layers=2, backend=backend)
    optimizer, state = elman.SGD(0.5), np.zeros((2, B, H))
    for _ in range(3):
        peer, x, y = Peer(model), *random_batch(rng)
        expected = peer.gradients(x, y, state)
        before, lr = model.state_dict(), optimizer.lr
        loss = model.train_step(x, y, optimizer=optimizer, state=state)
        steps = {name: (before[name] - array) / lr for name, array in model.parameters().items()}
        assert_near({"loss": loss, **steps}, expected, 1e-9)
        np.testing.assert_allclose(state, peer.last_state.detach().numpy(), rtol=1e-9)


# What is not finite


def poison_weight(model: elman.SequenceModel) -> None:
    model.parameters()["weight_ih_l0"][1, 2] = np.nan


def poison_readout(model: elman.SequenceModel) -> None:
    model.parameters()["bias_o"][0] = np.inf


def make_loss_infinite(model: elman.SequenceModel) -> None:
    """A category of probability zero: the loss of such a target is infinite, the gradient is not."""
    model.parameters()["bias_o"][1] = -np.inf


def make_gradient_overflow(model: elman.SequenceModel) -> None:
    """All states are zero and the loss is finite, but its gradient grows by a large factor in each step backwards."""
    for name, array in model.parameters().items():
        if name.startswith(("weight_ih", "bias")):
            array[...] = 0
        if name.startswith("weight_hh"):
            array[...] = 1e60 if array.dtype == np.float64 else 1e8


@backend_names
@pytest.mark.parametrize("spoil", [poison_weight, poison_readout, make_loss_infinite, make_gradient_overflow])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0, "clip_value": 0.1}])
def test_what_is_not_finite_changes_nothing(
    spoil: Any, clip: dict[str, float], backend: str, dtype: str, rng: np.random.Generator
):
    model, optimizer = make_model(dtype=dtype, backend=backend), elman.Adam(0.25)
    x, y = random_batch(rng)
    x[0, 0], y[0, 0] = 2, 1  # so that what is spoilt matters
    for _ in range(2):
        model.train_step(x, y, optimizer=optimizer)
    spoil(model)
    state = np.zeros((1, B, H), dtype) if spoil is make_gradient_overflow else random_state(rng, model)
    before, state_before = everything(model, optimizer), state.copy()
    with np.errstate(all="ignore"):
        assert math.isfinite(model.loss(x, y)) == (spoil is make_gradient_overflow)
        with pytest.raises(FloatingPointError, match=r"^step 3: the loss is .* nothing was updated.*\(now 0\.25\)"):
            model.train_step(x, y, optimizer=optimizer, state=state, **clip)
        with pytest.raises(FloatingPointError, match=r"^step 3: "):
            model.fit(x.T, y.T, optimizer=optimizer, progress=False)
    assert_same_bits(everything(model, optimizer), before)
    assert_same_bits({"state": state}, {"state": state_before})


def test_a_first_step_that_is_not_finite_leaves_a_new_optimizer(rng: np.random.Generator):
    model, optimizer = make_model(), elman.Adam(0.1)
    poison_weight(model)
    with pytest.raises(FloatingPointError, match=r"^step 1: "):
        model.train_step(*random_batch(rng), optimizer=optimizer)
    assert optimizer.steps == 0
    optimizer.update({"other": np.ones(3)}, {"other": np.ones(3)})


# The same again


def train(model: elman.SequenceModel, n_steps: int, **options: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    rng, optimizer = np.random.default_rng(1), elman.Adam(0.01)
    n = model.inputs.n
    data = [(rng.integers(0, n, (30, 17)), rng.integers(-1, n, (30, 17))) for _ in range(3)]
    return [model.train_step(*data[i % 3], optimizer=optimizer, **options) for i in range(n_steps)], model.state_dict()


@directions
def test_training_curves_of_all_backends_agree(bidirectional: bool):
    curves = [
        train(make_model(num_layers=2, bidirectional=bidirectional, dropout=0.2, backend=backend), 40, clip_norm=0.5)
        for backend in elman.available_backends()
    ]
    for losses, parameters in curves[1:]:
        np.testing.assert_allclose(losses, curves[0][0], rtol=1e-9)
        assert_near(parameters, curves[0][1], 1e-7)
    assert curves[0][0][-1] < curves[0][0][0]


@pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])
@directions
def test_threads_do_not_change_a_bit(bidirectional: bool, backend: str, dtype: str, threads: Any):
    results = []
    for n_threads in (1, 2, 3, 7):
        threads(n_threads)
        options = {"hidden_size": 45, "num_layers": 2, "bidirectional": bidirectional, "dropout": 0.1}
        model = make_model(23, 23, **options, dtype=dtype, backend=backend)
        results.append(train(model, 10, clip_norm=1.0, lengths=np.arange(17) * 30 // 16))
    for losses, parameters in results[1:]:
        assert losses == results[0][0]
        assert_same_bits(parameters, results[0][1])


@backend_names
def test_seeds(backend: str, dtype: str):
    def train_one(seed: Any) -> tuple[list[float], dict[str, np.ndarray]]:
        return train(make_model(num_layers=2, dropout=0.3, dtype=dtype, seed=seed, backend=backend), 10)

    expected = train_one(5)
    for seed in (5, np.int64(5), np.random.default_rng(5)):
        losses, parameters = train_one(seed)
        assert losses == expected[0]
        assert_same_bits(parameters, expected[1])
    assert not {*train_one(6)[0], *train_one(None)[0]} & {*expected[0]}


def test_initial_parameters():
    single, double = make_model(dtype="float32", bidirectional=True), make_model(bidirectional=True)
    for name, array in double.parameters().items():
        assert np.array_equal(single.parameters()[name], array.astype(np.float32))
        bound = 1 / math.sqrt(2 * H if name in ("weight_ho", "bias_o") else H)
        assert 0.4 * bound < np.abs(array).max() <= bound
    assert double.parameters()["weight_ho"].shape == (V, 2 * H)
    assert double.parameters()["bias_o"].shape == (V,)
    layer = elman.RNN(V, H, bidirectional=True, dtype="float64", seed=0).parameters()
    assert list(double.parameters()) == [*layer, "weight_ho", "bias_o"]
    assert_same_bits(double.rnn.parameters(), layer)


def test_parameters_are_live(rng: np.random.Generator):
    model = make_model()
    x, y = random_batch(rng)
    before = model.state_dict()
    for array in model.parameters().values():
        array[...] = 0
    assert model.loss(x, y) == pytest.approx(math.log(V))
    assert not any(array.any() for array in model.rnn.parameters().values())
    assert before["weight_ho"].all()
    model.load_state_dict(before)
    assert_same_bits(model.parameters(), before)
    assert not any(np.shares_memory(array, before[name]) for name, array in model.parameters().items())


# Drawing


def draw_step_by_step(
    model: elman.SequenceModel, prompt: list[int], length: int, temperature: float, seed: int
) -> list[int]:
    """By the layer's own `step` and the definition: u from [0, 1) falls into one of the categories' shares."""
    rng, h, p = np.random.default_rng(seed), None, model.parameters()
    tokens = list(prompt)
    for i in range(len(prompt) + length - 1):
        y, h = model.rnn.step(one_hot(np.array(tokens[i]), model), h)
        if i >= len(prompt) - 1:
            o = p["weight_ho"] @ y + p["bias_o"]
            if temperature == 0:
                tokens.append(int(np.argmax(o)))
            else:
                shares = np.cumsum(np.exp(o / temperature))
                tokens.append(int(np.sum(rng.random() * shares[-1] >= shares)))
    return tokens[len(prompt) :]


@backend_names
@pytest.mark.parametrize("temperature", [0, 0.5, 1.0, 3])
@pytest.mark.parametrize("prompt", [[3], [1, 4, 4, 0, 2, 2]])
def test_generate_goes_step_by_step(prompt: list[int], temperature: float, backend: str):
    model = make_model(num_layers=3, backend=backend)
    for array in model.parameters().values():
        array *= 3  # otherwise all distributions are nearly the same
    tokens = model.generate(prompt, 30, temperature=temperature, seed=3)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == draw_step_by_step(model, prompt, 30, temperature, seed=3)
    assert len(set(tokens.tolist())) > 1
    assert model.generate(np.repeat(prompt, 2)[::2], 30, temperature=temperature, seed=3).tolist() == tokens.tolist()


@backend_names
def test_generate_seeds_and_continuation(backend: str, dtype: str):
    model = make_model(num_layers=2, dropout=0.9, dtype=dtype, backend=backend)
    before = pickle.dumps(model)
    expected = model.generate([1, 2], 40, seed=7)
    assert np.array_equal(model.generate([1, 2], 40, seed=np.random.default_rng(7)), expected)
    assert not np.array_equal(model.generate([1, 2], 40, seed=8), expected)
    assert not np.array_equal(model.generate([1, 2], 40), model.generate([1, 2], 40))
    rng = np.random.default_rng(7)
    first = model.generate([1, 2], 13, seed=rng)
    rest = model.generate([1, 2, *first], 27, seed=rng)
    assert [*first, *rest] == expected.tolist()
    assert model.generate([1], 0).shape == (0,)
    assert pickle.dumps(model) == before, "drawing changes nothing"


@pytest.mark.parametrize("end", [None, 0, 1, 2, 3, 4])
def test_a_generator_never_goes_back(end: int | None):
    """Another thread may draw from it meanwhile; it goes on by 64 numbers at a time."""
    rng, other = np.random.default_rng(7), np.random.default_rng(7)
    n = len(make_model().generate([1], 200, seed=rng, end=end))
    other.random(200 if end is None else min(200, 64 * (n // 64 + 1)))
    assert rng.bit_generator.state == other.bit_generator.state


def test_a_length_is_no_memory():
    model = make_model()
    assert len(model.generate([1], 2**31 - 1, seed=0, end=3)) < 1000


@backend_names
def test_temperature(backend: str):
    model = make_model(backend=backend)
    greedy = model.generate([2], 50, temperature=0)
    for tiny in (1e-9, 5e-324):
        assert np.array_equal(model.generate([2], 50, temperature=tiny, seed=1), greedy)
    counts = np.bincount(model.generate([2], 5000, temperature=1e9, seed=1), minlength=V)
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(800)  # five standard deviations


@backend_names
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_generate_draws_from_the_distribution(temperature: float, backend: str, dtype: str):
    """A Markov chain as a network: its state is the last token, its outputs that row of a table of logarithms."""
    p = np.array([[0.7, 0.2, 0.1], [0.05, 0.5, 0.45], [0.3, 0.3, 0.4]])
    model = make_model(3, 3, hidden_size=3, nonlinearity="identity", dtype=dtype, backend=backend)
    for name, array in model.parameters().items():
        array[...] = {"weight_ih_l0": np.eye(3), "weight_ho": temperature * np.log(p.T)}.get(name, 0)
    tokens = model.generate([0], 8000, temperature=temperature, seed=11)
    counts = np.zeros((3, 3))
    np.add.at(counts, (np.array([0, *tokens[:-1]]), tokens), 1)
    n = counts.sum(axis=1, keepdims=True)
    assert (np.abs(counts - n * p) < 4 * np.sqrt(n * p * (1 - p))).all()


@backend_names
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_generate_needs_finite_outputs(value: float, temperature: float, backend: str):
    model = make_model(backend=backend)
    model.parameters()["bias_o"][1] = value
    with pytest.raises(FloatingPointError, match=r"the largest output is (nan|inf)"):
        model.generate([0], 100, temperature=temperature, seed=0)
    model.parameters()["bias_o"][1] = -np.inf  # never drawn
    assert 1 not in model.generate([0], 100, temperature=temperature, seed=0)


# Dropout


@backend_names
def test_dropout_is_for_training_only(backend: str, rng: np.random.Generator):
    model, plain = (make_model(num_layers=2, dropout=p, backend=backend) for p in (0.5, 0))
    x, y = random_batch(rng)
    assert model.loss(x, y) == plain.loss(x, y)
    assert np.array_equal(model.generate([0], 20, seed=0), plain.generate([0], 20, seed=0))
    stay = elman.SGD(lr=0)
    losses = [model.train_step(x, y, optimizer=stay) for _ in range(3)] + [model.loss_and_grads(x, y)[0]]
    assert len({*losses, plain.loss(x, y)}) == 5
    history = model.fit(x.T, y.T, epochs=2, optimizer=stay, validation_data=(x.T, y.T), progress=False)
    assert history["val_loss"] == [pytest.approx(plain.loss(x, y), rel=1e-12)] * 2
    assert len({*history["loss"], *losses}) == 6
    assert model.loss(x, y) == plain.loss(x, y)


# Data sets


def counting(n: int, n_steps: int) -> np.ndarray:
    """Sequences (N, T + 1) that count upwards modulo V from different starts."""
    return (np.arange(n)[:, None] + np.arange(n_steps + 1)) % V


RAGGED = [np.array([1, 0, 4, 2, 3, 3, 1]), np.array([2]), np.array([0, 0, 1]), np.array([4, 1, 2])]
RAGGED_TARGETS = [np.array([0, -1, 4, 1, 3, 0, 1]), np.array([2]), np.array([-1, -1, 1]), np.array([3, 1, 2])]


@backend_names
@pytest.mark.parametrize("form", ["array", "lists", "ragged", "object array"])
def test_fit_learns(form: str, backend: str, dtype: str):
    data = counting(12, 9)
    x, y = list(data[:, :-1]), list(data[:, 1:])
    ends = [2 + i % 8 for i in range(12)]
    X, Y = {
        "array": (data[:, :-1], data[:, 1:]),
        "lists": ([row.tolist() for row in x], tuple(row.tolist() for row in y)),
        "ragged": tuple([row[:end] for row, end in zip(rows, ends, strict=True)] for rows in (x, y)),
        "object array": tuple(
            np.array([row[:i] for row, i in zip(rows, ends, strict=True)], object) for rows in (x, y)
        ),
    }[form]
    model = make_model(hidden_size=12, dtype=dtype, backend=backend)
    options = {"epochs": 30, "batch_size": 4, "optimizer": elman.Adam(0.05), "clip_norm": 1.0}
    history = model.fit(X, Y, **options, validation_data=(X, Y), progress=False)
    assert list(history) == ["loss", "val_loss", "val_accuracy"]
    assert all(len(values) == 30 and all(type(v) is float for v in values) for values in history.values())
    assert history["loss"][0] > 1
    assert history["loss"][-1] < 0.1
    assert history["val_loss"][-1] < 0.1
    assert model.generate([3], 7, temperature=0).tolist() == [4, 0, 1, 2, 3, 4, 0]


@backend_names
@directions
def test_a_padded_batch_is_the_ragged_one(bidirectional: bool, backend: str, dtype: str):
    def fresh() -> tuple[elman.SequenceModel, Optimizer]:
        options = {"num_layers": 2, "dropout": 0.3, "bidirectional": bidirectional, "backend": backend, "dtype": dtype}
        return make_model(**options), elman.Adam(0.01)

    (ragged, optimizer), (padded, padded_optimizer) = fresh(), fresh()
    clip = {"clip_norm": 0.1, "clip_value": 0.01}
    history = ragged.fit(RAGGED, RAGGED_TARGETS, epochs=3, optimizer=optimizer, shuffle=False, progress=False, **clip)
    order = np.argsort([len(x) for x in RAGGED], kind="stable")  # as batches have it
    lengths = np.array([len(RAGGED[i]) for i in order])
    x, y = np.full((2, 7, 4), 10**9)
    for b, i in enumerate(order):
        x[: lengths[b], b], y[: lengths[b], b] = RAGGED[i], RAGGED_TARGETS[i]
    losses = [padded.train_step(x, y, optimizer=padded_optimizer, lengths=lengths, **clip) for _ in range(3)]
    assert history == {"loss": losses}
    assert_same_bits(everything(ragged, optimizer), everything(padded, padded_optimizer))


def test_padding_with_targets_of_minus_one():
    model = make_model()
    x, y = np.zeros((7, 4), int), np.full((7, 4), -1)
    for b, (tokens, targets) in enumerate(zip(RAGGED, RAGGED_TARGETS, strict=True)):
        x[: len(tokens), b], y[: len(tokens), b] = tokens, targets
    loss, gradients = model.loss_and_grads(x, y)
    expected, expected_gradients = model.loss_and_grads(x, y, lengths=[len(tokens) for tokens in RAGGED])
    assert loss == pytest.approx(expected, rel=1e-12)
    assert_near(gradients, expected_gradients, 1e-12)


@backend_names
def test_history_is_the_mean_over_targets(backend: str):
    model = make_model(backend=backend)
    losses = [model.loss(x[:, None], y[:, None]) for x, y in zip(RAGGED, RAGGED_TARGETS, strict=True)]
    mean = np.average(losses, weights=[np.count_nonzero(y >= 0) for y in RAGGED_TARGETS])
    for batch_size in (1, 2, 3, 100):
        history = model.fit(
            RAGGED,
            RAGGED_TARGETS,
            epochs=2,
            batch_size=batch_size,
            optimizer=elman.SGD(lr=0),
            validation_data=(RAGGED, RAGGED_TARGETS),
            progress=False,
        )
        assert {key: history[key] for key in ("loss", "val_loss")} == {
            key: [pytest.approx(mean, rel=1e-12)] * 2 for key in ("loss", "val_loss")
        }


def test_sequences_without_targets_do_not_matter():
    def fit(X: list[np.ndarray], Y: list[np.ndarray]) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
        model = make_model()
        return model.fit(X, Y, epochs=3, batch_size=1, shuffle=False, progress=False), model.state_dict()

    expected = fit(RAGGED, RAGGED_TARGETS)
    found = fit([*RAGGED, np.array([1, 2])], [*RAGGED_TARGETS, np.array([-1, -1])])
    assert found[0] == expected[0]
    assert_same_bits(found[1], expected[1])


def test_shuffling():
    def fit(seed: int, shuffle: bool) -> tuple[list[float], dict[str, np.ndarray]]:
        model = make_model(seed=0)
        network_of(model).shuffle_rng = network_of(make_model(seed=seed)).shuffle_rng
        data = np.random.default_rng(2).integers(0, V, (10, 6))
        history = model.fit(data, data, epochs=3, batch_size=3, shuffle=shuffle, progress=False)
        return history["loss"], model.state_dict()

    in_order, again, shuffled, shuffled_again, otherwise = (
        fit(seed, shuffle) for seed, shuffle in ((0, False), (1, False), (0, True), (0, True), (1, True))
    )
    assert in_order[0] == again[0]
    assert_same_bits(in_order[1], again[1])
    assert shuffled[0] == shuffled_again[0]
    assert_same_bits(shuffled[1], shuffled_again[1])
    assert len({*in_order[0], *shuffled[0], *otherwise[0]}) == 9


def token_data(X: list[np.ndarray]) -> Sequences:
    kinds = Kinds(elman.Tokens(500), elman.Categories(500), PATTERNS["many-to-many"], np.dtype("float32"))
    return Sequences(X, X, kinds=kinds)


def batches_of(data: Sequences, seed: int | None) -> list[list[int]]:
    """Which sequences are together, by their first tokens."""
    rng = None if seed is None else np.random.default_rng(seed)
    return [data.batch(rows).x[0].tolist() for rows in data.groups(7, rng)]


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_batches(seed: int | None):
    """Each sequence once, batches full but for the last of those sorted together, and hardly any padding."""
    rng = np.random.default_rng(3)
    X = [np.full(n, i) for i, n in enumerate(rng.integers(1, 200, 500))]
    data = token_data(X)
    groups = data.groups(7, None if seed is None else np.random.default_rng(seed))
    batches = [data.batch(rows) for rows in groups]
    seen, area = [], 0
    for batch in batches:
        n_steps, n_rows = batch.x.shape
        lengths = np.full(n_rows, n_steps) if batch.lengths is None else batch.lengths
        for b, n in enumerate(lengths):
            i = int(batch.x[0, b])
            assert np.array_equal(batch.x[:n, b], X[i])
            assert np.array_equal(batch.targets.y[:n, b], X[i])
            assert len(X[i]) == n
            seen.append(i)
        assert n_rows <= 7
        assert batch.targets.total == lengths.sum()
        area += batch.x.size
    assert sorted(seen) == list(range(500))
    assert len(batches) <= 500 / 7 + 4
    assert area < 1.15 * sum(map(len, X))


def test_chance_decides_about_batches_and_their_order():
    X = [np.full(1 + i % 50, i) for i in range(500)]
    data = token_data(X)
    one, other = batches_of(data, 0), batches_of(data, 1)
    assert one == batches_of(data, 0)
    assert len({*map(frozenset, one)} & {*map(frozenset, other)}) < 10, "who is together"
    for batches in (one, other):
        lengths = [max(1 + i % 50 for i in batch) for batch in batches]
        n_descents = sum(a > b for a, b in itertools.pairwise(lengths))
        assert n_descents > 20, "not from short to long"
    lengths = [max(1 + i % 50 for i in batch) for batch in batches_of(data, None)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("progress", [False, True])
def test_progress_goes_to_standard_error(progress: bool, capsys: pytest.CaptureFixture[str]):
    make_model().fit(RAGGED, RAGGED_TARGETS, epochs=2, validation_data=(RAGGED, RAGGED_TARGETS), progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("loss=" in err and "val_loss=" in err and "2.0/2" in err) if progress else err == ""


def test_fit_goes_on_with_its_optimizer():
    once, twice = make_model(), make_model()
    optimizer = elman.Adam(0.01)
    options = {"batch_size": 2, "progress": False}
    history = once.fit(RAGGED, RAGGED_TARGETS, epochs=6, optimizer=elman.Adam(0.01), **options)
    parts = [twice.fit(RAGGED, RAGGED_TARGETS, epochs=3, optimizer=optimizer, **options)["loss"] for _ in range(2)]
    assert optimizer.steps == 12
    assert [*parts[0], *parts[1]] == history["loss"]
    assert_same_bits(once.parameters(), twice.parameters())
    default = make_model()
    explicit = make_model()
    assert default.fit(RAGGED, RAGGED_TARGETS, progress=False) == explicit.fit(
        RAGGED, RAGGED_TARGETS, epochs=10, batch_size=32, optimizer=elman.Adam(1e-3), shuffle=True, progress=False
    )


@backend_names
def test_data_sets_may_lie_in_memory_in_any_way(backend: str, rng: np.random.Generator):
    model = elman.SequenceModel(elman.Features(4), elman.Reals(4), hidden_size=H, seed=0, backend=backend)
    one = rng.standard_normal((3, T, 4)).astype(np.float32)
    ways = [np.broadcast_to(one[0], one.shape), np.broadcast_to(one[:1, :1], one.shape), one[::-1], one.T.copy().T]
    for X in [*ways, *(way.swapaxes(0, 1) for way in ways)]:
        assert model.evaluate(X, X) == model.evaluate(X.copy(), X.copy())


# Copies


@backend_names
@directions
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies(duplicate: Any, bidirectional: bool, backend: str, rng: np.random.Generator):
    options = {"num_layers": 2, "dropout": 0.4, "bidirectional": bidirectional, "backend": backend}
    model, optimizer = make_model(**options), elman.Adam(0.01)
    model.metadata = {"some": "text"}
    x, y = random_batch(rng)
    for _ in range(3):
        model.train_step(x, y, optimizer=optimizer)
    before = everything(model, optimizer)
    twin, twin_optimizer = duplicate((model, optimizer))
    assert repr(twin) == repr(model)
    assert twin.metadata == model.metadata
    assert twin.metadata is not model.metadata

    def go_on(model: elman.SequenceModel, optimizer: Optimizer) -> list[Any]:
        losses = [model.train_step(x, y, optimizer=optimizer, clip_value=0.01) for _ in range(3)]
        return [losses, model.fit(RAGGED, RAGGED_TARGETS, epochs=2, batch_size=2, optimizer=optimizer, progress=False)]

    ahead = go_on(twin, twin_optimizer)
    assert_same_bits(everything(model, optimizer), before)
    assert go_on(model, optimizer) == ahead
    assert_same_bits(everything(twin, twin_optimizer), everything(model, optimizer))
    for array in twin.parameters().values():
        array[...] = 0
    assert twin.loss(x, y) == pytest.approx(math.log(V)), "the twin's arrays are live"
    assert not any(array.any() for array in twin.rnn.parameters().values())
    assert model.loss(x, y) != pytest.approx(math.log(V))


def test_a_pickle_holds_the_parameters_once():
    model = make_model(hidden_size=100)
    assert len(pickle.dumps(model)) < 1.2 * network_of(model).parameters.flat.nbytes


def test_repr():
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(4), hidden_size=5)
    assert repr(model) == "SequenceModel(Tokens(3), Categories(4), hidden_size=5) with 69 parameters"
    options = {"num_layers": 2, "nonlinearity": "relu", "bidirectional": True, "dropout": 0.5, "dtype": "float64"}
    model = make_model(3, 4, hidden_size=np.int64(5), **options, backend="numpy", seed=np.random.default_rng())
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    expected = f"SequenceModel(Tokens(3), Categories(4), hidden_size=5, {shown}, backend='numpy') with 294 parameters"
    assert repr(model) == expected


# The backends


def test_reference_computes_on_numpy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, rng: np.random.Generator):
    x, y = random_batch(rng)
    model = reference.SequenceModel(elman.Tokens(V), elman.Categories(V), hidden_size=H, seed=0)
    model.save(tmp_path / "model.safetensors")
    loaded = reference.load(tmp_path / "model.safetensors")
    assert type(loaded) is reference.SequenceModel
    used = []
    numpy = backends.get("numpy")
    for name in ("forward", "readout_loss", "backward", "clip_norm", "update", "readout", "generate"):
        function = getattr(numpy, name)
        monkeypatch.setattr(numpy, name, lambda *a, f=function, n=name, **k: used.append(n) or f(*a, **k))
    for either in (model, loaded, pickle.loads(pickle.dumps(model))):
        used.clear()
        either.train_step(x, y, optimizer=reference.Adam(0.1))
        either.generate([1], 2)
        assert used == [
            "forward",
            "readout_loss",
            "backward",
            "clip_norm",
            "update",
            "generate",
            *["forward", "readout"] * 2,
        ]


def test_choice_of_backend(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator):
    x, y = random_batch(rng)
    used = []
    for name in elman.available_backends():
        module = backends.get(name)
        function = module.readout_loss
        monkeypatch.setattr(module, "readout_loss", lambda *a, f=function, n=name, **k: used.append(n) or f(*a, **k))
    for name in elman.available_backends():
        make_model(backend=name).loss(x, y)
        with elman.use_backend(name):
            make_model().loss(x, y)
    make_model().loss(x, y)
    assert used == [*np.repeat(elman.available_backends(), 2), backends.current()]


@backend_names
def test_several_threads(backend: str, rng: np.random.Generator):
    model = make_model(num_layers=2, backend=backend)
    inputs = [rng.integers(0, V, (n, B)) for n in rng.integers(1, 30, 40)]

    def run(x: np.ndarray) -> list[Any]:
        loss, gradients = model.loss_and_grads(x, x)
        drawn = model.generate(x[:, 0], 10, seed=len(x))
        return [loss, model.loss(x, x), *drawn, *(gradient.tobytes() for gradient in gradients.values())]

    expected = list(map(run, inputs))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, inputs)) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_summary(dtype: str):
    """All arrays are in it with their shapes, and numbers that add up; a row for each layer and direction."""
    options: dict[str, Any] = {"num_layers": 2, "learn_h_0": True, "learn_leak": True, "leak": 0.5, "dtype": dtype}
    tokens, classes = elman.Tokens(3), elman.Categories(3)
    for model, n_layers in (
        (elman.SequenceModel(tokens, elman.Reals(1), hidden_size=1, dtype=dtype), 1),
        (elman.SequenceModel(tokens, classes, hidden_size=40, bidirectional=True, **options), 4),
        (elman.Seq2Seq(tokens, classes, hidden_size=40, bidirectional=True, **options), 6),
    ):
        first, empty, _, *rows, total = model.summary().split("\n")
        assert (first, empty) == (repr(model), "")
        assert sum(" layer " in f" {row}" for row in rows) == n_layers
        numbers = [int(row.split()[-1].replace(",", "")) for row in [*rows, total]]
        parameters = model.parameters()
        n = sum(array.size for array in parameters.values())
        assert sum(numbers[:-1]) == numbers[-1] == n
        assert f" {dtype}, {n * np.dtype(dtype).itemsize:,} bytes " in total
        assert sum(row.count(" (") for row in rows) == len(parameters)
        for name, array in parameters.items():
            assert any(
                f"{name.removesuffix('_reverse').rpartition('.')[2].partition('_l')[0]} {array.shape}" in row
                for row in rows
            )
