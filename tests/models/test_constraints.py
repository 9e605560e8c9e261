"""Signs and masks of weights: layers and models that have them, beside plain ones with the weights that act."""

import pickle

import numpy as np
import pytest

import elman
from elman import reference

BACKENDS = ("numpy", "numba", "cython")


def made(kind=elman.RNN, *sizes, **options):
    return kind(*sizes, dtype="float64", seed=3, **options)


def mask(*shape, seed=0, density=0.6):
    return np.random.default_rng(seed).random(shape) < density


LAYERS = {
    "signs": ({"signs": [1, -1, 1, 1, -1, 1, 1]}, 1),
    "signs of layers": ({"signs": np.array([[1.0, -1, 1, 1, -1, 1, 1], [-1, 1, 1, 1, 1, 1, -1]])}, 2),
    "excitatory": ({"excitatory": 0.6, "bidirectional": True}, 2),
    "masks": ({"mask_hh": mask(7, 7), "mask_ih": mask(7, 3), "bias": False}, 2),
    "masks of layers": ({"mask_hh": [None, mask(7, 7)], "mask_ih": [mask(7, 3), mask(7, 7, seed=1)]}, 2),
    "all": (
        {"excitatory": 0.6, "mask_hh": mask(7, 7), "mask_ih": [None, mask(7, 14)], "bidirectional": True}
        | {"leak": 0.3, "learn_leak": True, "form": "potential", "recurrent_dropout": 0.2, "dropout": 0.3},
        2,
    ),
}


def factor(rnn, name):
    """What a weight, or its magnitude, is multiplied by: mask · diag(signs), columns being those of units before it."""
    shape, (part, k) = rnn.parameters()[name].shape, name.replace("_reverse", "").split("_l")
    masks, k = {"weight_hh": rnn.mask_hh, "weight_ih": rnn.mask_ih}.get(part), int(k)
    own = masks[k] if isinstance(masks, tuple) else masks if part == "weight_hh" or k == 0 else None
    scale, below = (
        np.ones(shape) if own is None else own.astype(float),
        {"weight_hh": k, "weight_ih": k - 1}.get(part, -1),
    )
    signs = None
    if below >= 0 and rnn.excitatory is not None:
        n = round(rnn.excitatory * rnn.hidden_size)
        signs = [1.0] * n + [-1.0] * (rnn.hidden_size - n)
    elif below >= 0 and rnn.signs is not None:
        signs = rnn.signs[below] if rnn.signs.ndim == 2 else rnn.signs
    if signs is not None:
        scale = scale @ np.diag(np.tile(signs, shape[1] // len(signs)).astype(float))
    return scale, signs is not None


def plain(rnn, **options):
    """The layer whose parameters are the weights that act."""
    names = ("bidirectional", "bias", "leak", "form", "learn_leak", "dropout", "recurrent_dropout")
    options = {name: getattr(rnn, name) for name in names} | options
    other = made(elman.RNN, rnn.input_size, rnn.hidden_size, rnn.num_layers, **options)
    other.load_state_dict(rnn.effective_weights())
    return other


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_plain_one_with_the_weights_that_act(name, backend):
    options, n_layers = LAYERS[name]
    rnn = made(elman.RNN, 3, 7, n_layers, backend=backend, **options)
    effective = rnn.effective_weights()
    for key, weight in rnn.parameters().items():
        scale, is_signed = factor(rnn, key)
        np.testing.assert_array_equal(effective[key], scale * (np.abs(weight) if is_signed else weight), err_msg=key)
    rng = np.random.default_rng(1)
    other, lengths = plain(rnn, backend=backend), [5, 0, 3, 5]
    x, h_0 = rng.standard_normal((5, 4, 3)), rng.standard_normal(rnn(np.ones((1, 4, 3)))[1].shape)
    for results in zip(rnn(x, h_0, lengths), other(x, h_0, lengths), strict=True):
        np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(rnn.last_state(x, h_0), other.last_state(x, h_0))
    if not rnn.bidirectional:
        np.testing.assert_array_equal(rnn.step(x[0], h_0)[0], other.step(x[0], h_0)[0])
    (y, _, pullback), (_, _, of_plain) = rnn.vjp(x, h_0, lengths), other.vjp(x, h_0, lengths)
    d_y, d_h_n = rng.standard_normal(y.shape), rng.standard_normal(h_0.shape)
    for _ in range(2):  # a pullback may be called again
        *of_arguments, gradients = pullback(d_y, d_h_n)
        *of_others, by_acting = of_plain(d_y, d_h_n)
        for one, another in zip(of_arguments, of_others, strict=True):
            np.testing.assert_array_equal(one, another)
        for key, weight in rnn.parameters().items():
            scale, is_signed = factor(rnn, key)
            slope = scale * np.where(weight < 0, -1, 1) if is_signed else scale
            np.testing.assert_array_equal(gradients[key], by_acting[key] * slope, err_msg=key)


def test_gradients_are_those_of_central_differences_and_go_on_at_zero():
    rnn = made(elman.RNN, 2, 6, 2, excitatory=0.5, mask_hh=mask(6, 6))
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 3, 2)), rnn.parameters()["weight_ih_l1"]
    y, _, pullback = rnn.vjp(x)
    d_y = rng.standard_normal(y.shape)
    gradients = pullback(d_y)[2]
    for name, array in rnn.parameters().items():
        for i in range(0, array.size, 5):
            place, before = np.unravel_index(i, array.shape), array.flat[i]
            values = []
            for e in (1e-6, -1e-6):
                array[place] = before + e
                values.append((rnn(x)[0] * d_y).sum())
            array[place] = before
            assert gradients[name][place] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-8)
    weight[2, 1] = weight[3, 5] = 0  # from a unit with +1, and from one with -1
    y, _, pullback = rnn.vjp(x)
    gradients, before = pullback(d_y)[2]["weight_ih_l1"], (y * d_y).sum()
    for place in ((2, 1), (3, 5)):
        weight[place] = 1e-7
        assert gradients[place] == pytest.approx(((rnn(x)[0] * d_y).sum() - before) / 1e-7, rel=1e-4)
        weight[place] = 0


@pytest.mark.parametrize("excitatory", [0.5, 0.8])
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_excitation_and_inhibition_are_balanced(excitatory, density, dtype):
    own = mask(150, 150, density=density) if density < 1 else None
    rnn = elman.RNN(3, 150, 2, excitatory=excitatory, mask_hh=own, dtype=dtype, seed=0)
    eps = np.finfo(dtype).eps
    for name, weight in rnn.effective_weights().items():
        if name in ("weight_hh_l0", "weight_hh_l1", "weight_ih_l1"):
            assert np.abs(weight.sum(axis=1, dtype=np.float64)).max() < 30 * eps * np.abs(weight).sum(axis=1).max()
        if name.startswith("weight_hh"):
            radius = np.abs(np.linalg.eigvals(weight.astype(np.float64))).max()
            assert radius == pytest.approx(1 / np.sqrt(3), rel=0.2)


def test_without_balance_one_eigenvalue_is_far_outside():
    signs = np.where(np.arange(150) < 120, 1, -1)
    unbalanced = np.abs(elman.RNN(3, 150, seed=0).parameters()["weight_hh_l0"]) * signs
    assert np.abs(np.linalg.eigvals(unbalanced)).max() > 3


def test_activity_neither_dies_nor_explodes():
    options = {"nonlinearity": "relu", "seed": 0, "dtype": "float64"}
    x = np.abs(np.random.default_rng(0).standard_normal((200, 4, 3)))
    of_signs = elman.RNN(3, 200, excitatory=0.8, **options)(x)[0]
    of_none = elman.RNN(3, 200, **options)(x)[0]
    assert 0.3 < np.abs(of_signs[100:]).mean() / np.abs(of_none[100:]).mean() < 3
    assert 0.7 < np.abs(of_signs[150:]).mean() / np.abs(of_signs[50:100]).mean() < 1.4


def test_units_of_one_kind_and_a_unit_alone():
    for excitatory in (0.0, 1.0):
        weight = made(elman.RNN, 2, 40, excitatory=excitatory).effective_weights()["weight_hh_l0"]
        np.testing.assert_allclose(np.abs(weight).sum(axis=1), 1 / np.sqrt(3))
    rnn = made(elman.RNN, 1, 1, signs=[-1], mask_hh=np.zeros((1, 1), bool))
    assert rnn.effective_weights()["weight_hh_l0"] == 0
    assert np.isfinite(rnn(np.ones((3, 1, 1)))[0]).all()


def test_spectral_radius_is_that_of_what_acts():
    rnn = made(elman.RNN, 3, 50, excitatory=0.8, mask_hh=mask(50, 50), spectral_radius=0.9, bidirectional=True)
    for name, weight in rnn.effective_weights().items():
        if name.startswith("weight_hh"):
            assert np.abs(np.linalg.eigvals(weight)).max() == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(4))
def test_where_excitation_and_inhibition_cancel_out_there_is_no_radius_to_scale(seed):
    for dtype in ("float32", "float64"):
        with pytest.raises(ValueError, match=r"spectral_radius must be None .* cancel out"):
            elman.RNN(1, 2, excitatory=0.5, spectral_radius=0.9, dtype=dtype, seed=seed)


@pytest.mark.parametrize("excitatory", [None, 0.5])
def test_what_is_masked_may_be_anything(excitatory):
    rnn = made(elman.RNN, 3, 5, mask_hh=~np.eye(5, dtype=bool), excitatory=excitatory)
    x = np.ones((4, 2, 3))
    expected, (_, _, pullback) = rnn(x)[0], rnn.vjp(x)
    rnn.parameters()["weight_hh_l0"][np.diag_indices(5)] = np.nan
    np.testing.assert_array_equal(rnn(x)[0], expected)
    assert not np.signbit(rnn.effective_weights()["weight_hh_l0"].diagonal()).any()
    with np.errstate(all="ignore"):
        gradient = pullback(np.full(expected.shape, np.inf))[2]["weight_hh_l0"]
    assert np.all(gradient.diagonal() == 0)


def test_pytorch_gets_the_weights_that_act():
    rnn = made(elman.RNN, 3, 7, 2, excitatory=0.6, mask_hh=mask(7, 7))
    x, other = np.ones((4, 2, 3)), made(elman.RNN, 3, 7, 2)
    other.load_state_dict(rnn.state_dict(pytorch=True))
    np.testing.assert_array_equal(other(x)[0], rnn(x)[0])
    again = made(elman.RNN, 3, 7, 2, excitatory=0.6, mask_hh=mask(7, 7))
    again.load_state_dict(rnn.state_dict(pytorch=True))
    np.testing.assert_array_equal(again(x)[0], rnn(x)[0])


# Models

OPTIONS = {
    "hidden_size": 10,
    "excitatory": 0.8,
    "mask_hh": mask(10, 10),
    "mask_ih": mask(10, 3, seed=2),
    "mask_ho": mask(2, 10, seed=1),
    "readout_from": "excitatory",
}


def model_of(**options):
    return made(elman.SequenceModel, elman.Features(3), elman.Categories(2), **{**OPTIONS, **options})


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((30, 9, 3)), rng.integers(0, 2, (30, 9))


def test_a_readout_sees_what_it_may_see():
    model = model_of()
    weight = model.effective_weights()["weight_ho"]
    seen = mask(2, 10, seed=1) & (np.arange(10) < 8)
    np.testing.assert_array_equal(weight, np.where(seen, model.parameters()["weight_ho"], 0))
    X, Y = data()
    h = model.rnn(X.swapaxes(0, 1))[0]
    o = h @ weight.T + model.parameters()["bias_o"]
    np.testing.assert_array_equal(model.predict(X), o.argmax(axis=-1).T)
    _, gradients = model.loss_and_grads(X.swapaxes(0, 1), Y.T)
    assert np.all(gradients["weight_ho"][~seen] == 0)
    assert np.all(gradients["weight_ho"][seen] != 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_the_plain_one_with_the_weights_that_act(backend):
    model = model_of(backend=backend, pattern="many-to-one")
    other = model_of(backend=backend, pattern="many-to-one", **dict.fromkeys([*OPTIONS][1:]))
    other.load_state_dict(model.effective_weights())
    X, Y = data()
    x, y = X.swapaxes(0, 1), Y[:, 0]
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    options = {"weight_l1": 0.01, "weight_l2": 0.02}
    loss, gradients = model.loss_and_grads(x, y, **options)
    loss_of_other, by_acting = other.loss_and_grads(x, y, **options)
    assert loss == pytest.approx(loss_of_other, rel=1e-14)
    for name, weight in model.parameters().items():
        is_there = model.effective_weights()[name] != 0
        slope = np.sign(weight * model.effective_weights()[name]) * is_there
        np.testing.assert_allclose(gradients[name], by_acting[name] * slope, rtol=1e-12, atol=1e-16)


def test_training_keeps_signs_and_zeros():
    model, (X, Y) = model_of(dropout=0.0), data()
    before = model.effective_weights()
    model.fit(X, Y, epochs=30, optimizer=elman.Adam(0.05), progress=False)
    after = model.effective_weights()
    for name in ("weight_hh_l0", "weight_ih_l0", "weight_ho"):
        np.testing.assert_array_equal(before[name] == 0, after[name] == 0)
    name = "weight_hh_l0"
    np.testing.assert_array_equal(np.sign(before[name]), np.sign(after[name]))
    is_flipped = np.sign(model.parameters()[name]) != np.sign(model_of().parameters()[name])
    assert is_flipped.any()  # weights that went through 0, and came out with their sign


def test_segments_streams_and_windows_agree_with_the_whole():
    model, (X, Y) = model_of(), data()
    x, y = X.swapaxes(0, 1), Y.T
    whole, parts = model.loss_and_grads(x, y), model.loss_and_grads(x, y, memory=4)
    assert whole[0] == pytest.approx(parts[0], rel=1e-14)
    long = np.tile(X, (1, 20, 1)).swapaxes(0, 1)
    np.testing.assert_array_equal(model.rnn.last_state(long), model.rnn(long)[1])
    stream = model.stream(30)
    pieces = [stream.predict(x[:1]), stream.predict(x[1:5]), stream.predict(x[5:])]
    np.testing.assert_array_equal(np.concatenate(pieces), model.predict(X).T)
    for name, gradient in whole[1].items():
        np.testing.assert_array_equal(gradient, parts[1][name])


def test_generation():
    options = {"hidden_size": 12, "excitatory": 0.7, "mask_ho": mask(4, 12), "seed": 1}
    model = elman.SequenceModel(elman.Tokens(4), elman.Categories(4), **options)
    other = elman.SequenceModel(elman.Tokens(4), elman.Categories(4), hidden_size=12, seed=1)
    other.load_state_dict(model.effective_weights())
    np.testing.assert_array_equal(model.generate([1, 2], 50, seed=0), other.generate([1, 2], 50, seed=0))


def test_files_pickles_and_resumed_runs(tmp_path):
    X, Y = data()
    model, whole = (model_of(num_layers=2, mask_ih=[mask(10, 3), None], noise=0.1) for _ in range(2))
    whole.fit(X, Y, epochs=4, progress=False)
    model.fit(X, Y, epochs=2, progress=False, checkpoint=tmp_path / "run")
    resumed = model_of(num_layers=2, mask_ih=[mask(10, 3), None], noise=0.1)
    resumed.fit(X, Y, epochs=4, progress=False, checkpoint=tmp_path / "run", resume=True)
    whole.save(tmp_path / "model")
    expected = whole.predict_proba(X)
    for other in (resumed, elman.load(tmp_path / "model"), pickle.loads(pickle.dumps(whole))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert repr(other) == repr(whole)
        assert other.effective_weights().keys() == whole.effective_weights().keys()
    other = model_of(num_layers=2, mask_ih=[mask(10, 3, seed=9), None], noise=0.1)
    with pytest.raises(ValueError, match="mask_ih"):
        other.fit(X, Y, epochs=4, progress=False, checkpoint=tmp_path / "run", resume=True)
    assert "mask_hh=<bool (10, 10)>, mask_ih=(<bool (10, 3)>, None)" in repr(whole)
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(pickle.dumps(whole)).mask_ho[0] = True


@pytest.mark.parametrize("name", ["signs of layers", "all"])
def test_forward_mode_is_the_transpose(name):
    options, n_layers = LAYERS[name]
    rnn, rng = (
        made(elman.RNN, 3, 7, n_layers, **{**options, "dropout": 0, "recurrent_dropout": 0}),
        np.random.default_rng(4),
    )
    x = rng.standard_normal((5, 4, 3))
    d_params = {key: rng.standard_normal((2, *array.shape)) for key, array in rnn.parameters().items()}
    _, _, d_y, _ = rnn.jvp(x, None, d_params=d_params)
    y, _, pullback = rnn.vjp(x)
    for k in range(2):
        by_y = rng.standard_normal(y.shape)
        gradients = pullback(by_y)[2]
        expected = sum((gradients[key] * d_params[key][k]).sum() for key in d_params)
        assert (by_y * d_y[k]).sum() == pytest.approx(expected, rel=1e-10)


def test_curvature():
    options = {"hidden_size": 4, "mask_hh": mask(4, 4), "mask_ih": mask(4, 3), "mask_ho": mask(2, 4)}
    model = model_of(**options)
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((5, 4, 3)), rng.integers(0, 2, (5, 4))
    other = model_of(**{**dict.fromkeys(OPTIONS), "hidden_size": 4})
    other.load_state_dict(model.effective_weights())
    v = {key: rng.standard_normal(array.shape) for key, array in model.parameters().items()}
    slopes = {key: np.ones_like(array) for key, array in v.items()}
    for key, (name, of_masks) in zip(
        ("weight_hh_l0", "weight_ih_l0", "weight_ho"), [("mask_hh", 1), ("mask_ih", 0), ("mask_ho", 0)], strict=True
    ):
        weight = model.parameters()[key]
        slopes[key] = options[name] * (np.where(weight < 0, -1, 1) if of_masks else 1)
    slopes["weight_hh_l0"] = slopes["weight_hh_l0"] * np.array([1, 1, 1, -1])  # round(0.8 · 4) are excitatory
    slopes["weight_ho"] = slopes["weight_ho"] * np.array([1, 1, 1, 0])
    found = model.gauss_newton_product(x, y, v)
    expected = other.gauss_newton_product(x, y, {key: v[key] * slopes[key] for key in v})
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key] * slopes[key], rtol=1e-10, atol=1e-14, err_msg=key)


def test_the_reference_is_the_same():
    one, other = made(elman.RNN, 3, 7, excitatory=0.6), made(reference.RNN, 3, 7, excitatory=0.6)
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    np.testing.assert_allclose(one(x)[0], other(x)[0], rtol=1e-12, atol=1e-14)


REFUSED = {
    "signs must be \\+1 or -1": {"signs": [1, 2, -1]},
    "signs must have shape": {"signs": [1, -1]},
    "signs must be ±1": {"signs": ["a", "b", "c"]},
    "signs must be None": {"signs": [1, 1, -1], "excitatory": 0.5},
    "excitatory must be a number from 0 to 1": {"excitatory": 1.5},
    "mask_hh must hold bool, got float64": {"mask_hh": np.ones((3, 3))},
    "mask_hh must have shape": {"mask_hh": np.ones((3, 2), bool)},
    "mask_hh must be an array or a list of one": {"mask_hh": [[True], [True, False]]},
    "mask_ih must have shape": {"mask_ih": np.ones((2, 3), bool)},
    "one for each of 2 layers": {"mask_ih": [None], "num_layers": 2},
    "mask_ih\\[1\\] must have shape": {"mask_ih": [None, np.ones((3, 2), bool)], "num_layers": 2},
    "initialization must be 'uniform'": {"excitatory": 0.5, "initialization": "orthogonal"},
    "spectral_radius must be None": {"mask_hh": np.tri(3, k=-1, dtype=bool), "spectral_radius": 0.9},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    with pytest.raises((TypeError, ValueError), match=message):
        elman.RNN(2, 3, **REFUSED[message])


def test_what_models_refuse():
    for message, options in {
        "mask_ho must have shape": {"mask_ho": np.ones((10, 2), bool)},
        "mask_ho must hold bool": {"mask_ho": np.ones((2, 10))},
        "readout_from must be None or 'excitatory', got 'inhibitory': for others": {"readout_from": "inhibitory"},
        "needs units with the sign": {"excitatory": None},
        "needs units with the sign \\+1": {"excitatory": 0.0},
    }.items():
        with pytest.raises((TypeError, ValueError), match=message):
            model_of(**options)
    model = model_of()
    with pytest.raises(AttributeError, match="fixed"):
        model.mask_ho = None
    with pytest.raises(AttributeError, match="fixed"):
        model.rnn.signs = None
