"""Training some of the parameters only: those change as if all were trained, the others do not, and cost nothing."""

import fnmatch
from typing import Any

import numpy as np
import pytest

import elman
from elman.backends import reference

BACKENDS = elman.available_backends()
N = 3
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "both directions": {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    "a last output": {"num_layers": 2, "pattern": "many-to-one", "form": "potential", "leak": 0.4, "learn_leak": True},
    "leaks": {"num_layers": 3, "leak": [0.2, 0.3, 0.4], "learn_leak": True, "noise": 0.1, "learn_h_0": True},
    "signs": {"excitatory": 0.7, "readout_from": "excitatory", "recurrent_dropout": 0.2},
}
CHOICES = {
    "the readout": ["weight_ho", "bias_o"],
    "its bias": ["bias_o"],
    "all but the readout": ["*_l*"],
    "biases": ["bias_*"],
    "recurrent weights": ["weight_hh_l?"],
    "the top": ["*_l1*", "weight_ho"],
    "one direction": ["weight_hh_l0_reverse", "weight_ih_l1"],
    "leaks": ["leak_l1"],
    "first states": ["h_0"],
}


def model_of(name: str, **options: Any) -> elman.SequenceModel:
    inputs, outputs = elman.Features(N), elman.Categories(4)
    return elman.SequenceModel(inputs, outputs, hidden_size=6, dtype="float64", seed=1, **{**MODELS[name], **options})


def batch(model: elman.SequenceModel, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((7, 5, N)), rng.integers(0, 4, (7, 5))
    return x, y[0] if model.pattern == "many-to-one" else y


def fits(model: elman.SequenceModel, patterns: list[str]) -> bool:
    return all(fnmatch.filter(model.parameters(), pattern) for pattern in patterns)


CASES = [(name, choice) for name in MODELS for choice in CHOICES if fits(model_of(name), CHOICES[choice])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "choice"), CASES)
def test_what_is_trained_changes_as_ever_and_nothing_else(name: str, choice: str, backend: str) -> None:
    options = {"lengths": [7, 3, 1, 7, 5], "activation_l1": 0.1, "weight_l2": 0.01, "weight_l1": 0.1, "noise_seed": 3}
    whole, part = model_of(name, backend=backend), model_of(name, backend=backend)
    before, (x, y) = whole.state_dict(), batch(whole)
    losses = [
        whole.train_step(x, y, optimizer=elman.SGD(0.5), **options),
        part.train_step(x, y, optimizer=elman.SGD(0.5), trainable=CHOICES[choice], **options),
    ]
    assert losses[0] == losses[1]
    names = {one for pattern in CHOICES[choice] for one in fnmatch.filter(before, pattern)}
    for key, array in part.parameters().items():
        expected = whole.parameters()[key] if key in names else before[key]
        np.testing.assert_array_equal(array, expected, err_msg=key)
        assert key not in names or np.any(array != before[key])


@pytest.mark.parametrize("backend", BACKENDS)
def test_decay_and_momentum_leave_the_others_alone(backend: str) -> None:
    model = model_of("two layers", backend=backend)
    x, y = batch(model)
    optimizer = elman.AdamW(0.1, weight_decay=0.5)
    model.train_step(x, y, optimizer=optimizer)
    before = model.state_dict()
    model.train_step(x, y, optimizer=optimizer, trainable=["*_ho", "weight_ih_l1"])
    for key, array in model.parameters().items():
        assert np.array_equal(array, before[key]) == (key not in ("weight_ho", "weight_ih_l1")), key
    model.train_step(x, y, optimizer=optimizer)
    assert all(np.any(array != before[key]) for key, array in model.parameters().items())


def test_the_norm_is_that_of_what_is_trained() -> None:
    model, other = model_of("both directions", dropout=0.0), model_of("both directions", dropout=0.0)
    x, y = batch(model)
    _, gradients = model.loss_and_grads(x, y)
    names = ["weight_hh_l0_reverse", "bias_o"]
    norm = np.sqrt(sum(np.square(gradients[name]).sum() for name in names))
    before = other.state_dict()
    other.train_step(x, y, optimizer=elman.SGD(1.0), clip_norm=norm / 2, trainable=names)
    for name in names:
        np.testing.assert_allclose(before[name] - other.parameters()[name], gradients[name] / 2, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("options", [{"memory": 3}, {"tbptt": (2, 4)}, {"batch_size": 2, "clip_value": 0.01}])
def test_runs_in_parts(options: dict[str, Any]) -> None:
    model, other = model_of("two layers"), model_of("two layers")
    x, y = batch(model)
    X, Y = x.swapaxes(0, 1), y.T
    before = model.state_dict()
    given = {"epochs": 2, "optimizer": elman.SGD(0.1), "progress": False, "shuffle": False}
    model.fit(X, Y, trainable=["weight_*_l1"], **given, **options)
    for key, array in model.parameters().items():
        assert np.array_equal(array, before[key]) == (not key.startswith("weight") or "l1" not in key), key
    if "memory" in options:
        other.fit(X, Y, trainable=["weight_*_l1"], **given)
        for key, array in other.parameters().items():
            np.testing.assert_array_equal(array, model.parameters()[key], err_msg=key)


def test_what_is_frozen_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    losses: list[Any] = []
    backward, readout_loss = reference.backward, reference.readout_loss
    monkeypatch.setattr(reference, "backward", lambda layer, g: (seen.append(g), backward(layer, g))[1])
    monkeypatch.setattr(reference, "readout_loss", lambda r: (losses.append(r), readout_loss(r))[1])
    model = model_of("leaks", backend="numpy")
    x, y = batch(model)

    def step(*trainable: str) -> tuple[list[Any], Any]:
        seen.clear()
        losses.clear()
        model.train_step(x, y, optimizer=elman.SGD(0.1), trainable=trainable)
        return list(seen), losses[-1]

    passes, loss = step("weight_ho")
    assert not passes
    assert loss.d_h is None
    assert loss.d_bias is None
    passes, loss = step("bias_l2", "leak_l2")
    assert [one.d_weight_ih is None and one.d_weight_hh is None and one.d_x is None for one in passes] == [True]
    assert loss.d_weight is None
    assert passes[0].d_numbers is not None
    passes, _ = step("weight_ih_l1")
    assert [one.d_x is None for one in passes] == [False, True]
    assert [one.d_weight_ih is None for one in passes] == [True, False]
    assert [one.d_numbers is None for one in passes] == [True, True]
    passes, _ = step("h_0")
    assert [one.d_bias is one.d_weight_hh is None for one in passes] == [True] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_to_sequences(backend: str) -> None:
    X, Y = [[0, 1, 2], [2, 1], [1]], [[1, 2], [0], [2, 0, 1]]

    def fitted(trainable: list[str] | None) -> tuple[Any, Any]:
        options = {"hidden_size": 5, "num_layers": 2, "bidirectional": True, "dtype": "float64", "backend": backend}
        model = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), seed=0, **options)
        before = model.state_dict()
        options = {"optimizer": elman.SGD(0.5), "epochs": 1, "progress": False, "weight_l2": 0.01}
        model.fit(X, Y, trainable=trainable, **options)
        return before, model.state_dict()

    before, whole = fitted(None)
    for trainable in ["decoder.*"], ["encoder.weight_hh_l1_reverse"], ["*_ho"], ["decoder.bias_l1", "encoder.bias_l0"]:
        after = fitted(trainable)[1]
        names = {name for pattern in trainable for name in fnmatch.filter(before, pattern)}
        for name, array in after.items():
            expected = whole[name] if name in names else before[name]
            np.testing.assert_array_equal(array, expected, err_msg=f"{trainable}: {name}")


def test_a_run_goes_on(tmp_path: Any) -> None:
    models = [model_of("leaks") for _ in range(3)]
    x, y = batch(models[0])
    X, Y = x.swapaxes(0, 1), y.T
    given = {"progress": False, "batch_size": 2, "trainable": ["weight_hh_*", "leak_l0"]}
    models[0].fit(X, Y, epochs=3, **given)
    models[1].fit(X, Y, epochs=2, checkpoint=tmp_path / "run", **given)
    models[2].fit(X, Y, epochs=3, checkpoint=tmp_path / "run", resume=True, **given)
    for key, array in models[0].parameters().items():
        np.testing.assert_array_equal(array, models[2].parameters()[key], err_msg=key)
    with pytest.raises(ValueError, match="trainable is None here"):
        models[2].fit(X, Y, epochs=4, checkpoint=tmp_path / "run", resume=True, **{**given, "trainable": None})
    same = ["leak_l0", "weight_hh_l0", "weight_hh_l1", "weight_hh_l2"]
    models[2].fit(X, Y, epochs=4, checkpoint=tmp_path / "run", resume=True, **{**given, "trainable": same})


def test_all_of_them_is_as_ever() -> None:
    models = [model_of("plain"), model_of("plain")]
    x, y = batch(models[0])
    for model, trainable in zip(models, (None, ["*"]), strict=True):
        model.train_step(x, y, optimizer=elman.Adam(0.1), clip_norm=0.1, trainable=trainable)
    for key, array in models[0].parameters().items():
        np.testing.assert_array_equal(array, models[1].parameters()[key])


@pytest.mark.parametrize(
    ("trainable", "error", "message"),
    [
        ("weight_ho", TypeError, r"trainable must be a list of names of parameters, got 'weight_ho': \['weight_ho'\]"),
        (3, TypeError, "trainable must be a list of names"),
        ({"weight_ho": np.ones((4, 6), bool)}, TypeError, "trainable must be a list of names"),
        ([3], TypeError, r"trainable\[0\] must be a str"),
        (["bias_o", "weight_oh"], ValueError, r"trainable\[1\] must fit one of 'weight_ih_l0', .*got 'weight_oh'"),
        (["WEIGHT_HO"], ValueError, r"trainable\[0\] must fit one of"),
        ([], ValueError, "trainable must have at least one name"),
    ],
)
def test_what_is_refused(trainable: Any, error: type[Exception], message: str) -> None:
    model = model_of("plain")
    (x, y), before = batch(model), model.state_dict()
    with pytest.raises(error, match=message):
        model.train_step(x, y, optimizer=elman.SGD(0.1), trainable=trainable)
    with pytest.raises(error, match=message):
        model.fit(x.swapaxes(0, 1), y.T, trainable=trainable, progress=False)
    for key, array in model.parameters().items():
        np.testing.assert_array_equal(array, before[key])
