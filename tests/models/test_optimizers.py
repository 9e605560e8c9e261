"""Optimizers on users' arrays. The rules' values are compared in test_reference.py, test_kernels.py, test_models.py."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elman
from elman.training.optimizers import Optimizer

from ..compare import assert_same_bits

Arrays = dict[str, np.ndarray]

RULES: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: elman.SGD(0.1),
    "momentum": lambda: elman.SGD(0.1, momentum=0.9),
    "Adagrad": lambda: elman.Adagrad(0.1),
    "Adam": lambda: elman.Adam(0.1),
    "AdamW": lambda: elman.AdamW(0.1, weight_decay=0.3),
}

backend_names = pytest.mark.parametrize("backend", elman.available_backends())
rules = pytest.mark.parametrize("rule", RULES)


def snapshot(optimizer: Optimizer, parameters: Arrays) -> Arrays:
    """All that an update may change."""
    memories = {f"{name}/{i}": m for name, ms in optimizer._memories.items() for i, m in enumerate(ms)}
    return copy.deepcopy({**parameters, **memories, "steps": np.array(optimizer.steps), "lr": np.array(optimizer.lr)})


def some_parameters() -> Arrays:
    return {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.ones((3, 4))), "c": np.linspace(-1, 1, 5)}


def some_gradients() -> Arrays:
    return {name: 0.5 - array**2 for name, array in some_parameters().items()}


@backend_names
@rules
def test_an_update_is_what_a_model_does(rule: str, backend: str, dtype: str, rng: np.random.Generator):
    inputs, outputs = elman.Tokens(5), elman.Categories(7)
    model = elman.SequenceModel(inputs, outputs, hidden_size=6, num_layers=2, dtype=dtype, seed=0, backend=backend)
    twin, optimizer, twin_optimizer = copy.deepcopy(model), RULES[rule](), RULES[rule]()
    for _ in range(4):
        x, y = rng.integers(0, 5, (2, 8, 4))
        model.train_step(x, y, optimizer=optimizer)
        _, gradients = twin.loss_and_grads(x, y)
        with elman.use_backend(backend):
            twin_optimizer.update(twin.parameters(), gradients)
        assert_same_bits(twin.parameters(), model.parameters())
    assert twin_optimizer.steps == optimizer.steps == 4


@backend_names
@rules
def test_a_layer_learns(rule: str, backend: str, rng: np.random.Generator):
    """The loop of someone who needs no model: the layer, a pullback, an optimizer."""
    x = rng.standard_normal((10, 8, 3))
    target, _ = elman.RNN(3, 5, seed=1, dtype="float64")(x)
    rnn, optimizer = elman.RNN(3, 5, seed=0, dtype="float64", backend=backend), RULES[rule]()
    losses = []
    with elman.use_backend(backend):
        for _ in range(30):
            y, _, pullback = rnn.vjp(x)
            losses.append(np.mean((y - target) ** 2))
            _, _, gradients = pullback(2 * (y - target) / y.size, input_grad=False)
            optimizer.update(rnn.parameters(), gradients)
    assert losses[-1] < 0.8 * losses[0]


@backend_names
@rules
def test_forms_of_arrays(rule: str, backend: str):
    """Gradients may have any layout, width and order of names; parameters are updated where they lie."""
    expected, optimizer = some_parameters(), RULES[rule]()
    gradients = {name: array.astype(np.float32).astype(float) for name, array in some_gradients().items()}
    kept = copy.deepcopy(gradients)
    with elman.use_backend(backend):
        for _ in range(3):
            optimizer.update(expected, gradients)
    assert_same_bits(gradients, kept)
    assert all(np.abs(array - expected[name]).max() > 0.01 for name, array in some_parameters().items())
    read_only = copy.deepcopy(gradients)
    for array in read_only.values():
        array.flags.writeable = False
    for form in (
        read_only,
        {name: np.asfortranarray(array) for name, array in gradients.items()},
        {name: np.repeat(array, 2, axis=0)[::2] for name, array in gradients.items()},
        {name: array[::-1].copy()[::-1] for name, array in gradients.items()},
        {name: array.astype(np.float32) for name, array in gradients.items()},
        {name: array.astype(">f8") for name, array in gradients.items()},
        {name: gradients[name].tolist() for name in reversed(gradients)},
    ):
        parameters, optimizer = some_parameters(), RULES[rule]()
        before = {name: array.__array_interface__["data"] for name, array in parameters.items()}
        with elman.use_backend(backend):
            for _ in range(3):
                optimizer.update(parameters, form)
        assert_same_bits(parameters, expected)
        assert {name: array.__array_interface__["data"] for name, array in parameters.items()} == before


@rules
def test_a_single_number(rule: str):
    scalar, vector = {"a": np.array(2.0)}, {"a": np.array([2.0])}
    for parameters in (scalar, vector):
        optimizer = RULES[rule]()
        for _ in range(2):
            optimizer.update(parameters, {"a": 0.5 * parameters["a"]})
    assert scalar["a"] == vector["a"][0] != 2


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def misaligned(array: np.ndarray) -> np.ndarray:
    other = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    other[...] = array
    return other


B = some_parameters()["b"]
NOTHING = ...
NO_REALS = "must be an array of float32 or float64, got"
LAYOUT = "parameters['b'] must be contiguous, aligned and writeable"
MISFITS = [  # (where, what is there in the place of "b", the message)
    ("parameters", NOTHING, "gradients must have the names ['a', 'c'], got ['a', 'b', 'c']"),
    ("parameters", B.tolist(), f"parameters['b'] {NO_REALS} [["),
    ("parameters", B.astype(int), f"parameters['b'] {NO_REALS} an array of int64 and shape (3, 4)"),
    ("parameters", B.astype(np.float16), f"parameters['b'] {NO_REALS} an array of float16"),
    ("parameters", B.astype(complex), f"parameters['b'] {NO_REALS} an array of complex128"),
    ("parameters", B.astype(object), f"parameters['b'] {NO_REALS} an array of object"),
    ("parameters", B.astype(">f8"), f"parameters['b'] {NO_REALS} an array of >f8"),
    ("parameters", np.ones((4, 4))[:3, :3], LAYOUT),
    ("parameters", np.ones((3, 4))[::-1], LAYOUT),
    ("parameters", np.ones((3, 8))[:, ::2], LAYOUT),
    ("parameters", np.ones((4, 6)).T[::2], LAYOUT),
    ("parameters", read_only(np.ones((3, 4))), LAYOUT),
    ("parameters", read_only(np.ones((4, 3)).T), LAYOUT),
    ("parameters", misaligned(np.ones((3, 4))), LAYOUT),
    ("parameters", np.ones((4, 3)), "gradients['b'] must have shape (4, 3), got (3, 4)"),
    ("gradients", NOTHING, "gradients must have the names ['a', 'b', 'c'], got ['a', 'c']"),
    ("gradients", B.T, "gradients['b'] must have shape (3, 4), got (4, 3)"),
    ("gradients", B[:2], "gradients['b'] must have shape (3, 4), got (2, 4)"),
    ("gradients", 1.0, "gradients['b'] must have shape (3, 4), got ()"),
    ("gradients", B.astype(int), "gradients['b'] must hold float32 or float64, got int64"),
    ("gradients", B.astype(np.float16), "gradients['b'] must hold float32 or float64, got float16"),
    ("gradients", B.astype(complex), "gradients['b'] must hold float32 or float64, got complex128"),
    ("gradients", "text", "gradients['b'] must hold float32 or float64, got <U4"),
    ("gradients", [[1.0], [2.0, 3.0]], "gradients['b'] must be an array, got "),
]


@rules
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(("where", "value", "message"), MISFITS, ids=[message for _, _, message in MISFITS])
def test_what_does_not_fit_changes_nothing(where: str, value: Any, message: str, is_new: bool, rule: str):
    optimizer, arguments = RULES[rule](), {"parameters": some_parameters(), "gradients": some_gradients()}
    if not is_new:
        optimizer.update(**arguments)
    arguments[where]["b"] = value
    if value is NOTHING:
        del arguments[where]["b"]
    before = snapshot(optimizer, arguments["parameters"])
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        optimizer.update(**arguments)
    after = snapshot(optimizer, arguments["parameters"])
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name], array) for name, array in before.items())


@pytest.mark.parametrize("wrong", [None, [np.ones(3)], np.ones(3), "a"])
def test_what_is_no_dict(wrong: Any):
    for arguments, name in (((wrong, some_gradients()), "parameters"), ((some_parameters(), wrong), "gradients")):
        with pytest.raises(TypeError, match=f"^{name} must be a dict from names to arrays, got "):
            elman.Adam(0.1).update(*arguments)


@pytest.mark.parametrize("rule", [name for name in RULES if name != "SGD"])
@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("b"),
        lambda arrays: arrays.update(d=np.ones(3)),
        lambda arrays: arrays.update(d=arrays.pop("b")),
        lambda arrays: arrays.update(b=np.ones(11)),
        lambda arrays: arrays.update(b=np.ones((3, 4), np.float32)),
        lambda arrays: arrays.clear(),
    ],
)
def test_other_parameters_need_another_optimizer(change: Any, rule: str):
    optimizer, parameters, gradients = RULES[rule](), some_parameters(), some_gradients()
    optimizer.update(parameters, gradients)
    change(parameters)
    change(gradients)
    before = snapshot(optimizer, parameters)
    with pytest.raises(ValueError, match=r"^optimizer has worked on other parameters \(\['a', 'b', 'c'\]\) before"):
        optimizer.update(parameters, gradients)
    assert_same_bits(snapshot(optimizer, parameters), before)


@pytest.mark.parametrize("rule", [name for name in RULES if name != "SGD"])
def test_another_model_needs_another_optimizer(rule: str):
    def make(hidden_size: int, dtype: str = "float64") -> elman.SequenceModel:
        return elman.SequenceModel(
            elman.Tokens(3), elman.Categories(3), hidden_size=hidden_size, dtype=dtype, backend="numpy", seed=0
        )

    x = np.array([[0], [1], [2]])
    optimizer = RULES[rule]()
    make(4).train_step(x, x, optimizer=optimizer)
    for other in (make(9), make(4, "float32")):
        before, state = snapshot(optimizer, other.parameters()), np.ones((1, 1, other.rnn.hidden_size), other.rnn.dtype)
        with pytest.raises(ValueError, match=r"^optimizer has worked on other parameters"):
            other.train_step(x, x, optimizer=optimizer, state=state)
        with pytest.raises(ValueError, match=r"^optimizer has worked on other parameters"):
            optimizer.update(other.parameters(), other.loss_and_grads(x, x)[1])
        assert_same_bits(snapshot(optimizer, other.parameters()), before)
        assert (state == 1).all()


@rules
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on(duplicate: Any, rule: str):
    optimizer, parameters = RULES[rule](), some_parameters()
    optimizer.update(parameters, some_gradients())
    twin, twin_parameters = duplicate((optimizer, parameters))
    before = snapshot(optimizer, parameters)
    twin.update(twin_parameters, some_gradients())
    assert_same_bits(snapshot(optimizer, parameters), before)
    optimizer.update(parameters, some_gradients())
    assert_same_bits(snapshot(twin, twin_parameters), snapshot(optimizer, parameters))


@rules
def test_lr_may_change(rule: str):
    optimizer, parameters = RULES[rule](), some_parameters()
    optimizer.lr = 0
    optimizer.update(parameters, some_gradients())
    assert_same_bits(parameters, some_parameters())
    assert optimizer.steps == 1
    for wrong in (-0.1, float("nan"), float("inf"), "0.1", None, True):
        with pytest.raises((TypeError, ValueError), match=r"^lr must be a finite number of at least 0, got "):
            optimizer.lr = wrong
        assert optimizer.lr == 0
    optimizer.lr = np.float32(0.5)
    optimizer.update(parameters, some_gradients())
    assert all((array != some_parameters()[name]).any() for name, array in parameters.items())


RATES = "must be a number from 0 to 1, exclusive, got"
ARGUMENTS = [
    (elman.SGD, (-1,), {}, "lr must be a finite number of at least 0, got -1"),
    (elman.SGD, ("fast",), {}, "lr must be a finite number of at least 0, got 'fast'"),
    (elman.SGD, (0.1,), {"momentum": 1.1}, "momentum must be a number from 0 to 1, got 1.1"),
    (elman.SGD, (0.1,), {"momentum": None}, "momentum must be a number from 0 to 1, got None"),
    (elman.Adagrad, (0.1,), {"eps": -1e-10}, "eps must be a finite number of at least 0, got -1e-10"),
    (elman.Adam, (float("nan"),), {}, "lr must be a finite number of at least 0, got nan"),
    (elman.Adam, (0.1,), {"betas": 0.9}, "betas must be a pair, got 0.9"),
    (elman.Adam, (0.1,), {"betas": (0.9,)}, "betas must be a pair, got 1 items"),
    (elman.Adam, (0.1,), {"betas": (1.0, 0.9)}, f"betas[0] {RATES} 1.0"),
    (elman.Adam, (0.1,), {"betas": (0.9, -0.1)}, f"betas[1] {RATES} -0.1"),
    (elman.Adam, (0.1,), {"betas": (0.9, "x")}, f"betas[1] {RATES} 'x'"),
    (elman.Adam, (0.1,), {"eps": None}, "eps must be a finite number of at least 0, got None"),
    (elman.AdamW, (0.1,), {"weight_decay": -1}, "weight_decay must be a finite number of at least 0, got -1"),
]


@pytest.mark.parametrize(("kind", "args", "options", "message"), ARGUMENTS)
def test_arguments(kind: type[Optimizer], args: tuple[Any, ...], options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        kind(*args, **options)


# Settings that change


@pytest.mark.parametrize("backend", elman.available_backends())
def test_momentum_that_changes_between_updates(backend: str) -> None:
    """v ← momentum · v + g, as the momentum is at the time; v is 0 until there is one."""
    theta, v, gradient = np.zeros(3), np.zeros(3), np.array([1.0, -2.0, 3.0])
    parameters, optimizer, has_velocity = {"a": theta.copy()}, elman.SGD(0.1), False
    with elman.use_backend(backend):
        for momentum in (0.0, 0.0, 0.9, 0.5, 0.0, 0.0, 1.0, 0.25):
            optimizer.momentum = momentum
            has_velocity = has_velocity or momentum > 0
            v = momentum * v + gradient if has_velocity else v
            theta = theta - 0.1 * (v if has_velocity else gradient)
            optimizer.update(parameters, {"a": gradient})
            np.testing.assert_allclose(parameters["a"], theta, rtol=1e-12)
    assert len(optimizer._memories["a"]) == 1


@pytest.mark.parametrize("make", [elman.Adam, elman.AdamW, elman.Adagrad, elman.SGD])
def test_settings_that_are_set_are_those_of_the_constructor(make: Any) -> None:
    changed = {"lr": 0.05, "momentum": 0.5, "betas": (0.5, 0.75), "eps": 0.125, "weight_decay": 0.25}
    given = {name: value for name, value in changed.items() if name in inspect.signature(make).parameters}
    first, second = make(0.1), make(**given)
    for name, value in given.items():
        setattr(first, name, value)
    results = []
    for optimizer in (first, second):
        parameters = {"a": np.linspace(-1, 1, 7)}
        for i in range(4):
            optimizer.update(parameters, {"a": np.full(7, 0.5 + i)})
        results.append(parameters["a"])
    assert (results[0] == results[1]).all()
