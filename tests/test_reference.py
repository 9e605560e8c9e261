"""The NumPy reference against the textbook's scalar loops and against differences of the loss; all in float64."""

import numpy as np
import pytest

from elman.backends import reference
from elman.backends.contract import Update

from . import oracle
from .cases import active_steps, make, make_readout, name
from .compare import assert_close

SMALL = [
    {},
    {"D": 2, "lengths": "ragged", "mask": True},
    {"reverse": True, "lengths": "ragged", "bias": False},
    {"tokens": True, "mask": True, "d_h_n": False},
    {"tokens": True, "D": 2, "lengths": "full", "d_y": False},
    {"T": 1, "B": 1, "I": 1, "H": 1},
    {"B": 4, "I": 1, "H": 2, "lengths": "zero"},
]
ACTIVATIONS = sorted(reference.ACTIVATIONS)
LOSSES = sorted(reference.LOSSES)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", SMALL, ids=name)
def test_forward_is_the_textbook(case, activation):
    p = make(**case, activation=activation)
    y, h_n = oracle.forward(p.x, p.h_0, p.weight_ih, p.weight_hh, p.bias, **p.options)
    assert_close(p.forward(reference), {"y": y, "h_n": h_n})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", SMALL, ids=name)
def test_backward_is_the_textbook(case, activation):
    p = make(**case, activation=activation)
    got = p.backward(reference, p.forward(reference)["y"])
    expected = oracle.backward(p.x, p.h_0, p.weight_ih, p.weight_hh, p.bias, p.d_y, p.d_h_n, **p.options)
    expected = {key: expected[key] + p.sums.get(key, 0) for key in got}
    assert_close(got, expected)


def _numerical_gradient(loss, array: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
    """Central differences of loss() by each entry of the array (changed in place); NaN where it is not active."""
    gradient = np.full(array.shape, np.nan)
    for index in np.ndindex(array.shape):
        if active is None or active[index[:2]]:
            value, above_below = array[index], []
            for array[index] in (value + 1e-5, value - 1e-5):
                above_below.append(loss())
            array[index] = value
            gradient[index] = (above_below[0] - above_below[1]) / 2e-5
    return gradient


def _assert_gradients(got, numerical) -> None:
    assert_close(got, numerical, {key: 1e-6 * max(1, np.nanmax(np.abs(array))) for key, array in numerical.items()})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", [case for case in SMALL if case.get("lengths") != "zero"], ids=name)
def test_backward_is_the_gradient(case, activation):
    p = make(**case, activation=activation)
    arrays = {"h_0": p.h_0, "weight_ih": p.weight_ih, "weight_hh": p.weight_hh}
    arrays |= {} if p.bias is None else {"bias": p.bias}
    arrays |= {"x": p.x} if p.x.ndim == 3 else {}
    arrays = {key: array.copy() for key, array in arrays.items()}
    p = p.replace(**arrays)

    def loss() -> float:
        out = p.forward(reference)
        from_y = 0 if p.d_y is None else np.nansum(p.d_y * out["y"])
        return from_y + (0 if p.d_h_n is None else (p.d_h_n * out["h_n"]).sum())

    active = active_steps(p.lengths, *p.x.shape[:2])
    numerical = {
        f"d_{key}": _numerical_gradient(loss, array, active if key == "x" else None) for key, array in arrays.items()
    }
    got = p.backward(reference, p.forward(reference)["y"])
    _assert_gradients({key: got[key] - p.sums.get(key, 0) for key in numerical}, numerical)


def test_step_is_one_step_of_the_textbook():
    for activation in ACTIVATIONS:
        p = make(T=1, B=3, I=4, H=6, activation=activation)
        h_next = np.full((3, 6), np.nan)
        reference.step(p.x[0], p.h_0[0], p.weight_ih[0], p.weight_hh[0], p.bias[0], h_next, activation=activation)
        _, h_n = oracle.forward(p.x, p.h_0, p.weight_ih, p.weight_hh, p.bias, activation=activation)
        assert_close({"h_next": h_next}, {"h_next": h_n[0]})


READOUTS = [
    {},
    {"lengths": "ragged", "bias": False},
    {"lengths": "full", "O": 1},
    {"T": 1, "B": 1, "K": 1},
    {"weights": "steps", "lengths": "ragged", "T": 6, "B": 5},
    {"weights": "rows"},
]


def test_readout_is_the_textbook():
    for r in (make_readout(), make_readout(bias=False, layout="gaps")):
        assert_close({"o": r.outputs(reference)}, {"o": oracle.readout(r.h, r.weight, r.bias)})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", READOUTS, ids=name)
def test_readout_loss_is_the_textbook(case, loss):
    r = make_readout(**case, loss=loss)
    got = r.run(reference)
    options = {"loss": loss, "scale": r.scale, "lengths": r.lengths, "weights": r.weights}
    expected = oracle.readout_loss(r.h, r.weight, r.bias, r.target, **options)
    assert_close(got, {key: expected[key] + r.sums.get(key, 0) for key in got})
    assert r.loss_only(reference) == pytest.approx(float(expected["total"]), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", READOUTS, ids=name)
def test_readout_loss_gives_the_gradient(case, loss):
    r = make_readout(**case, loss=loss)
    arrays = {"h": r.h.copy(), "weight": r.weight.copy()} | ({} if r.bias is None else {"bias": r.bias.copy()})
    r = r.replace(**arrays)
    active = active_steps(r.lengths, *r.h.shape[:2])
    numerical = {
        f"d_{key}": _numerical_gradient(lambda: r.scale * r.loss_only(reference), array, active if key == "h" else None)
        for key, array in arrays.items()
    }
    got = r.run(reference)
    _assert_gradients({key: got[key] - r.sums.get(key, 0) for key in numerical}, numerical)


def test_optimizers_are_the_textbook(rng):
    parameters, gradient, first = rng.standard_normal((3, 20))
    second = rng.random(20)
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "weight_decay": 0.2, "step": 3}
    for rule, state, options in (
        ("sgd", [], {"lr": 0.1, "momentum": 0.7}),
        ("sgd", [first], {"lr": 0.1, "momentum": 0.7}),
        ("adagrad", [second], {"lr": 0.1, "eps": 1e-3}),
        ("adam", [first, second], settings),
        ("average", [], {"rate": 0.3}),
    ):
        got = [parameters.copy(), *(array.copy() for array in state)]
        reference.update(Update(rule, got[0], gradient, tuple(got[1:]), tuple(options.values())))
        expected = getattr(oracle, rule)(parameters, gradient, *(state or [None]), **options)
        for array, values in zip(got, expected, strict=False):  # without momentum the oracle returns a None more
            np.testing.assert_allclose(array, values, rtol=1e-12, atol=1e-15, err_msg=rule)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_norm_is_the_textbook(rng, max_norm):
    gradient = rng.standard_normal(30)
    expected, expected_norm = oracle.clip_norm(gradient, max_norm=max_norm)
    assert reference.clip_norm(gradient, max_norm=max_norm) == pytest.approx(expected_norm, rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
