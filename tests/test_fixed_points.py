"""Fixed points beside those that can be written down, and beside the layer's own steps."""

import copy
import re
from typing import Any

import numpy as np
import pytest

import elman
from elman import analysis, reference
from elman.backends.reference import ACTIVATIONS
from elman.layer.jacobian import TimeStep
from elman.layer.rnn import stack_of

ZERO = np.zeros(1)
SOFTSIGN = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2)


def layer(weight_hh: Any, bias: Any = 0.0, **options: Any) -> elman.RNN:
    """Of one input, which comes to all units alike."""
    weight = np.atleast_2d(np.asarray(weight_hh, dtype=float))
    rnn = elman.RNN(1, len(weight), **{"dtype": "float64", **options})
    p = rnn.parameters()
    p["weight_ih_l0"][...], p["weight_hh_l0"][...], p["bias_l0"][...] = 1, weight, bias
    return rnn


def steps_of(rnn: elman.RNN, h: Any, x: Any) -> Any:
    return rnn.step(x, h[None])[1][0]


def differences(rnn: elman.RNN, h: Any, x: Any, e: float = 1e-6) -> Any:
    """Jacobians (N, H, H) by central differences of the layer's steps."""
    moves = e * np.eye(h.shape[1])
    columns = [(steps_of(rnn, h + move, x) - steps_of(rnn, h - move, x)) / (2 * e) for move in moves]
    return np.stack(columns, axis=2)


def sorted_by_states(found: analysis.FixedPoints) -> Any:
    order = np.lexsort(found.states.round(6).T)
    return found.states[order], found.eigenvalues[order], found.is_stable[order]


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_a_pitchfork(form: str, leak: float):
    """h = tanh(2 h) and v = 2 tanh(v): ± h*, whose v is atanh h*, and 0."""
    found = elman.fixed_points(layer(2, form=form, leak=leak), ZERO, np.linspace(-2, 2, 21)[:, None])
    states, eigenvalues, is_stable = sorted_by_states(found)
    h = 0.957504024079  # by bisection of h - tanh(2 h)
    outer = h if form == "rate" else np.arctanh(h)
    np.testing.assert_allclose(states[:, 0], [-outer, 0, outer], atol=1e-11)
    slope = 2 * (1 - h * h)
    np.testing.assert_allclose(eigenvalues[:, 0], 1 - leak + leak * np.array([slope, 2, slope]), atol=1e-10)
    assert is_stable.tolist() == [True, False, True]
    assert found.n_unstable.tolist() == [0, 0, 1]
    assert found.n_starts.sum() == 21


def test_before_the_pitchfork_and_at_it():
    for weight in (0.9, 1.0):
        bound = 1e-9 if weight < 1 else 1e-3  # at 1, h - tanh h is h³/3, and so 3e-10 already here
        found = elman.fixed_points(layer(weight), ZERO, np.linspace(-2, 2, 20)[:, None], unique_tolerance=2 * bound)
        assert len(found) == 1
        np.testing.assert_allclose(found.states, 0, atol=bound)
        np.testing.assert_allclose(found.eigenvalues, weight, atol=bound**2)


@pytest.mark.parametrize("n_units", [1, 2, 9])
def test_a_linear_layer_has_one_point(n_units: int, rng: np.random.Generator):
    weight, bias = rng.normal(size=(n_units, n_units)), rng.normal(size=n_units)
    rnn, start = layer(weight, bias, nonlinearity="identity"), rng.normal(size=(5, n_units))
    found = elman.fixed_points(rnn, ZERO, start, outlier_scale=None)
    assert len(found) == 1
    np.testing.assert_allclose(found.states[0], np.linalg.solve(np.eye(n_units) - weight, bias), rtol=1e-9)
    expected = np.linalg.eigvals(weight)
    np.testing.assert_allclose(np.sort_complex(found.eigenvalues[0]), np.sort_complex(expected), atol=1e-12)
    assert (np.diff(np.abs(found.eigenvalues[0])) <= 1e-15).all(), "the largest is first"


def test_two_relu_units_that_inhibit_each_other():
    """h₁ = max(1 − 2 h₂, 0) and the other way round: one wins, or both are at 1/3."""
    found = elman.fixed_points(
        layer([[0, -2], [-2, 0]], 1, nonlinearity="relu"), ZERO, np.random.default_rng(0).random((50, 2))
    )
    states, eigenvalues, is_stable = sorted_by_states(found)
    np.testing.assert_allclose(states, [[1, 0], [1 / 3, 1 / 3], [0, 1]], atol=1e-9)
    np.testing.assert_allclose(np.sort(eigenvalues.real, axis=1), [[0, 0], [-2, 2], [0, 0]], atol=1e-9)
    assert is_stable.tolist() == [True, False, True]


LEAKS = [0.2, [np.array([0.1, 0.3, 0.5, 0.7, 0.9])]]


@pytest.mark.parametrize("nonlinearity", [*ACTIVATIONS, SOFTSIGN], ids=str)
@pytest.mark.parametrize("form", ["rate", "potential"])
def test_all_layers_stand_still_there(form: str, nonlinearity: Any, rng: np.random.Generator):
    """A leak changes eigenvalues, and not the points."""
    weight, bias, x = 0.15 * rng.normal(size=(5, 5)), 0.2 * rng.normal(size=5), 0.3 * rng.normal(size=1)
    start = 0.1 * rng.normal(size=(40, 5))
    options = {"form": form, "nonlinearity": nonlinearity, "backend": "numpy"}
    plain = elman.fixed_points(layer(weight, bias, **options), x, start, outlier_scale=None)
    assert len(plain) >= 1
    for leak, learn_leak in ((1.0, False), *((leak, False) for leak in LEAKS), (0.2, True)):
        rnn = layer(weight, bias, **options, leak=leak, learn_leak=learn_leak)
        found = elman.fixed_points(rnn, x, start, outlier_scale=None)
        inputs = np.broadcast_to(x, (len(found), 1))
        np.testing.assert_allclose(steps_of(rnn, found.states, inputs), found.states, atol=1e-10)
        of_differences = np.linalg.eigvals(differences(rnn, found.states, inputs))
        for own, expected in zip(found.eigenvalues, of_differences, strict=True):
            distances = np.abs(own[:, None] - expected)
            assert distances.min(axis=0).max() < 1e-6
            assert distances.min(axis=1).max() < 1e-6
        near = np.linalg.norm(found.states[:, None] - plain.states, axis=2).min(axis=1)
        assert near.max() < 1e-7


def test_a_layer_in_float32_is_computed_in_float64(rng: np.random.Generator):
    for package in (elman, reference):
        rnn = package.RNN(2, 6, leak=0.3, seed=0)
        found = package.fixed_points(rnn, np.ones(2, np.float32), rng.normal(size=(20, 6)).astype(np.float32))
        assert len(found) == 1
        assert found.states.dtype == np.float64
        assert found.q[0] < 1e-28
        np.testing.assert_allclose(
            steps_of(rnn, found.states.astype(np.float32), np.ones((1, 2))), found.states, atol=1e-6
        )


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("leak", [1.0, 0.1])
def test_a_line_attractor(form: str, leak: float, rng: np.random.Generator):
    """Each start goes to the nearest point of the line, and one eigenvalue there is 1."""
    left, right = rng.normal(size=(2, 6))
    right /= np.linalg.norm(right)
    weight = np.outer(right, left / (left @ right))  # its line is that of `right`
    rnn = layer(weight, nonlinearity="identity", form=form, leak=leak)
    start = rng.normal(size=(30, 6))
    found = elman.fixed_points(rnn, ZERO, start, outlier_scale=None)
    assert len(found) == 30
    assert found.q.max() < 1e-20
    ends = found.states[found.point_of_start]
    np.testing.assert_allclose(ends, np.outer(start @ right, right), atol=1e-6)
    np.testing.assert_allclose(found.eigenvalues[:, 0], 1, atol=1e-7)
    np.testing.assert_allclose(found.eigenvalues[:, 1:], 1 - leak, atol=1e-6)


def test_what_integrates_has_slow_points_with_an_eigenvalue_near_1():
    rng = np.random.default_rng(0)
    X = 0.3 * rng.normal(size=(256, 30, 1)) * (rng.random((256, 30, 1)) < 0.3)
    model = elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=16, dtype="float64", seed=0)
    Y = X.cumsum(axis=1)
    schedule = elman.schedules.Cosine()  # without it, the loss goes up and down until the end
    given = {"optimizer": elman.Adam(5e-3), "clip_norm": 1.0, "schedule": schedule}
    model.fit(X, Y, epochs=100, batch_size=32, **given, progress=False)
    assert model.evaluate(X, Y)["loss"] < 0.05 * Y.var()
    states, _ = model.rnn(X.swapaxes(0, 1))
    found = elman.fixed_points(model.rnn, ZERO, states, n=200, tolerance=1e-5, seed=0)
    assert len(found) > 20
    largest = np.abs(found.eigenvalues)
    assert np.abs(largest[:, 0] - 1).max() < 0.15
    assert np.abs(largest[:, 0] - 1).min() < 0.02
    assert largest[:, 1].max() < 0.9, "a line, and no plane"


def test_an_input_for_each_start(rng: np.random.Generator):
    """Points under different inputs are not merged, near as they may be."""
    rnn, x = layer(0.5), np.repeat([0.0, 1e-6, 1.0], 4)[:, None]
    start = rng.normal(size=(12, 1))
    found = elman.fixed_points(rnn, x, start)
    assert sorted(found.inputs.ravel().tolist()) == [0, 1e-6, 1]
    np.testing.assert_allclose(np.tanh(found.inputs + 0.5 * found.states), found.states, atol=1e-12)
    np.testing.assert_array_equal(found.inputs[found.point_of_start], x)
    as_trajectories = elman.fixed_points(rnn, x.reshape(4, 3, 1), start.reshape(4, 3, 1))
    np.testing.assert_array_equal(as_trajectories.states, found.states)
    one = elman.fixed_points(rnn, x[0], start[0])
    assert one.states.shape == (1, 1)
    drawn = elman.fixed_points(rnn, x, start, n=5, seed=0)
    assert len(drawn.q_of_start) == 5
    assert len(elman.fixed_points(rnn, x, start, n=50, seed=0).q_of_start) == 50


def test_each_start_leads_to_its_point():
    """To the one that it leads to by itself, in whatever order they are returned."""
    rng = np.random.default_rng(3)
    rnn, start = layer(2 * np.eye(3) + 0.1 * rng.normal(size=(3, 3))), rng.normal(size=(60, 3))
    found = elman.fixed_points(rnn, ZERO, start)
    assert len(found) > 8
    assert (np.diff(found.n_unstable) >= 0).all()
    np.testing.assert_array_equal(found.n_starts, [np.sum(found.point_of_start == i) for i in range(len(found))])
    for one, i in zip(start, found.point_of_start, strict=True):
        alone = elman.fixed_points(rnn, ZERO, one)
        np.testing.assert_allclose(alone.states[0], found.states[i], atol=1e-8)
        np.testing.assert_allclose(
            np.sort_complex(alone.eigenvalues[0]), np.sort_complex(found.eigenvalues[i]), atol=1e-8
        )


def test_starts_are_drawn_from_a_seed(rng: np.random.Generator):
    rnn, start = layer(rng.normal(size=(8, 8))), rng.normal(size=(50, 8))
    before = copy.deepcopy((start, rnn.state_dict()))
    a, b, c = (elman.fixed_points(rnn, ZERO, start, n=30, noise=0.5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.q_of_start, b.q_of_start)
    np.testing.assert_array_equal(a.states, b.states)
    assert not np.array_equal(a.q_of_start, c.q_of_start)
    np.testing.assert_equal((start, rnn.state_dict()), before)


def test_slow_points_are_kept_if_the_tolerance_says_so():
    """Beyond the fold, h = tanh(2 h + 0.55) has lost two of three points; where they met, a state is slow."""
    rnn, start = layer(2, 0.55), np.linspace(-1, -0.5, 7)[:, None]
    found = elman.fixed_points(rnn, ZERO, start)
    assert (found.point_of_start == analysis.NOT_FIXED).all()
    assert repr(found) == "0 fixed points from 7 starts, 0 stable\n7 starts led to no fixed point: q is 4e-05 or more"
    found = elman.fixed_points(rnn, ZERO, start, tolerance=5e-5)
    assert len(found) >= 1
    assert (found.point_of_start >= 0).all()
    assert found.q.max() <= 5e-5
    np.testing.assert_allclose(found.eigenvalues, 1, atol=0.1)  # where F - h is least, F' = 1
    moved = np.tanh(2 * found.states + 0.55) - found.states
    np.testing.assert_allclose(moved[:, 0], np.sqrt(2 * found.q), atol=1e-12)


def test_what_is_not_found_is_at_a_minimum_of_q():
    rng = np.random.default_rng(1)
    rnn, start = layer(1.8 * rng.normal(size=(30, 30)) / np.sqrt(30)), rng.normal(size=(100, 30))
    found = elman.fixed_points(rnn, ZERO, start, outlier_scale=None)
    lost = found.point_of_start == analysis.NOT_FIXED
    assert 10 < lost.sum() < 100
    assert found.q_of_start[lost].min() > 1e-6
    step = TimeStep.of(stack_of(rnn), "tanh", np.float64)
    h, x = analysis._settled(step, start, np.zeros((100, 1)), 1e-20, 500)[lost], np.zeros((lost.sum(), 1))
    r = steps_of(rnn, h, x) - h
    np.testing.assert_allclose(np.square(r).sum(axis=1) / 2, found.q_of_start[lost], rtol=1e-9)
    gradient = np.einsum("ni,nij->nj", r, rnn.jacobian(h, x) - np.eye(30))
    assert np.abs(gradient).max() < 1e-7


def test_outliers_are_counted():
    """h = 1.001 h + 0.01 far away from starts around 0."""
    rnn, start = layer(1.001, 0.01, nonlinearity="identity"), np.linspace(-0.1, 0.1, 9)[:, None]
    found = elman.fixed_points(rnn, ZERO, start)
    assert found.point_of_start.tolist() == [analysis.OUTLIER] * 9
    assert repr(found) == "0 fixed points from 9 starts, 0 stable\n9 starts led to outliers"
    for options in ({"outlier_scale": None}, {"outlier_scale": 1e4}):
        np.testing.assert_allclose(elman.fixed_points(rnn, ZERO, start, **options).states, [[-10]], rtol=1e-9)
    np.testing.assert_allclose(elman.fixed_points(rnn, ZERO, np.zeros((3, 1))).states, [[-10]], rtol=1e-9)


def test_starts_from_which_no_step_is_finite():
    rnn = layer(1, 0.1, nonlinearity="power")
    found = elman.fixed_points(rnn, ZERO, np.array([[1e200], [0.0]]), outlier_scale=None)
    assert found.point_of_start.tolist() == [analysis.NOT_FIXED, 0]
    assert not np.isfinite(found.q_of_start[0])
    assert repr(found).endswith("1 start led to no fixed point: q is inf or more")


def test_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator):
    rnn, start = layer(1.2 * rng.normal(size=(7, 7))), rng.normal(size=(40, 7))
    whole = elman.fixed_points(rnn, ZERO, start)
    monkeypatch.setattr(analysis, "_MEMORY", 4 * 8 * 49 * 3)
    parts = elman.fixed_points(rnn, ZERO, start)
    assert len(whole) == len(parts)
    np.testing.assert_allclose(sorted_by_states(parts)[0], sorted_by_states(whole)[0], atol=1e-10)


def test_max_iterations():
    found = elman.fixed_points(layer(2), ZERO, np.array([[0.4], [0.0]]), max_iterations=1)
    assert found.point_of_start.tolist() == [analysis.NOT_FIXED, 0]


def test_the_table():
    found = elman.fixed_points(layer(2), ZERO, np.linspace(-2, 2, 21)[:, None])
    lines = repr(found).splitlines()
    assert lines[0] == "3 fixed points from 21 starts, 2 stable"
    assert re.split(" {2,}", lines[1]) == ["point", "starts", "q", "largest |eigenvalue|", "not below 1"]
    assert re.fullmatch(r" +2 +\d+ +\de[+-]\d+ +2\.0000 +1", lines[4])
    line = elman.fixed_points(
        layer(np.eye(2), nonlinearity="identity"), ZERO, np.random.default_rng(0).normal(size=(99, 2))
    )
    assert repr(line).splitlines()[-1] == "and 69 more"


def test_the_picture(tmp_path: Any, rng: np.random.Generator):
    pytest.importorskip("matplotlib")
    rnn = layer(2 * np.eye(4))
    trajectories, _ = rnn(np.zeros((20, 6, 1)), 0.1 * rng.normal(size=(1, 6, 4)))
    found = elman.fixed_points(rnn, ZERO, trajectories, n=50, noise=0.3, seed=0)
    for given, n_lines in (
        (trajectories, 6),
        (trajectories[:, 0], 1),
        ([trajectories[:3, 0], trajectories[:, 1]], 2),
        (None, 0),
    ):
        for n_components in (2, 3):
            figure = found.plot(given, n_components=n_components)
            (axes,) = figure.axes
            assert len(axes.lines) == n_lines
            assert [text.get_text() for text in axes.get_legend().texts] == ["stable", "not stable"]
    (axes,) = found.plot(trajectories, path=tmp_path / "points.png").axes
    assert (tmp_path / "points.png").read_bytes()[1:4] == b"PNG"
    cloud = trajectories.reshape(-1, 4)
    _, _, components = np.linalg.svd(cloud - cloud.mean(axis=0))
    expected = (trajectories[:, 0] - cloud.mean(axis=0)) @ components[:2].T
    np.testing.assert_allclose(np.abs(axes.lines[0].get_xydata()), np.abs(expected), atol=1e-12)
    one = elman.fixed_points(layer(0.5), ZERO, np.ones((3, 1)))
    assert len(one.plot(n_components=3).axes) == 1
    nothing = elman.fixed_points(layer(1, 1, nonlinearity="identity"), ZERO, np.ones((3, 1)))
    for points, given, message in [
        (nothing, None, "trajectories must be given where there is no fixed point: there is nothing else to draw"),
        (one, np.ones((5, 2)), "trajectories must have shape"),
        (one, [np.ones((5, 2))], r"trajectories\[0\] must have shape"),
        (one, np.full((5, 1), np.nan), r"trajectories\[0\] must be finite, got nan"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            points.plot(given)
    with pytest.raises(ValueError, match=r"^n_components must be"):
        one.plot(n_components=4)


GOOD = {"rnn": layer(np.eye(3)), "x": ZERO, "start": np.zeros((5, 3))}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rnn": None}, "rnn must be elman.RNN, such as a model's model.rnn, got None"),
        (
            {"rnn": elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=3)},
            "rnn must be elman.RNN, such as a model's model.rnn, got",
        ),
        (
            {"rnn": elman.RNN(1, 3, num_layers=2)},
            "fixed_points needs one layer and one direction, got num_layers=2, bidirectional=False",
        ),
        (
            {"rnn": elman.RNN(1, 3, bidirectional=True)},
            "fixed_points needs one layer and one direction, got num_layers=1",
        ),
        ({"start": np.zeros((5, 4))}, "start must have shape (N, 3) or (3,) or (T, B, 3), got (5, 4)"),
        ({"start": np.zeros((0, 3))}, "start must not have an empty axis, got shape (0, 3)"),
        ({"start": np.zeros((5, 3), int)}, "start must hold float32 or float64, got int64"),
        ({"start": np.full((5, 3), np.nan)}, "start must be finite, got nan at [0, 0]"),
        ({"start": np.full((5, 3), np.inf)}, "start must be finite, got inf at [0, 0]"),
        ({"x": np.zeros(2)}, "x must have shape (1,) or (5, 1), got (2,)"),
        ({"x": np.zeros((4, 1))}, "x must have shape (1,) or (5, 1), got (4, 1)"),
        ({"x": np.array([np.nan])}, "x must be finite, got nan at [0]"),
        ({"n": 0}, "n must be a positive int, got 0"),
        ({"noise": -0.1}, "noise must be a finite number of at least 0, got -0.1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"tolerance": 0}, "tolerance must be a finite number above 0, got 0"),
        ({"tolerance": np.nan}, "tolerance must be a finite number above 0, got nan"),
        ({"max_iterations": 0}, "max_iterations must be a positive int, got 0"),
        ({"unique_tolerance": -1}, "unique_tolerance must be a finite number of at least 0, got -1"),
        ({"outlier_scale": 0}, "outlier_scale must be a finite number above 0, got 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(wrong: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        elman.fixed_points(**{**GOOD, **wrong})
