"""Losses and distributions of real numbers, missing targets, losses of one's own, class weights that `fit` finds."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data import losses
from elman.data.outputs import Output

from ..compare import assert_same_bits
from .test_io import unpack, with_metadata
from .test_patterns import backend_names

N = 3
QUANTILES = (0.05, 0.3, 0.95)
REALS: dict[str, dict[str, Any]] = {
    "squared_error": {"missing": np.nan},  # without, a kernel has it
    "absolute_error": {"loss": "absolute_error"},
    "huber": {"loss": "huber"},
    "quantile": {"loss": "quantile", "quantiles": QUANTILES},
    **{name: {"distribution": name} for name in losses.DISTRIBUTIONS},
}
reals = pytest.mark.parametrize("name", REALS)


def focal(o: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1 − p)² · −log p of the category's probability p (Lin et al., 2017)."""
    p = np.exp(o - o.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    hit = np.arange(o.shape[1]) == y[:, None]
    q = p[hit][:, None]
    slope = 2 * (1 - q) * q * np.log(q) - (1 - q) ** 2  # by the logarithm of q
    return ((1 - q) ** 2 * -np.log(q))[:, 0], slope * (hit - p)


def squared(o: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ((o - y) ** 2).mean(axis=1), 2 * (o - y) / o.shape[1]


def model_of(outputs: Output, **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 5, "seed": 0, "dtype": "float64"} | options
    return elman.SequenceModel(elman.Features(2), outputs, **options)


def targets(outputs: Output, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if isinstance(outputs, elman.Categories):
        return rng.integers(-1, outputs.n, shape)
    if isinstance(outputs, elman.Binary):
        return rng.integers(0, 2, (*shape, outputs.n))
    if (outputs.distribution or "") in ("poisson", "negative_binomial"):
        return rng.poisson(2.0, (*shape, outputs.n)).astype(float)
    return rng.standard_normal((*shape, outputs.n))


def data_of(outputs: Output, rng: np.random.Generator, n: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    lengths = rng.integers(2, 9, n)
    return [rng.standard_normal((t, 2)) for t in lengths], [targets(outputs, (t,), rng) for t in lengths]


# Each loss by itself


@reals
def test_a_loss_has_the_derivative_that_differences_give(name: str, rng: np.random.Generator):
    outputs = elman.Reals(N, **REALS[name])
    o, y = 3 * rng.standard_normal((20, outputs.n_units)), targets(outputs, (20,), rng)
    loss, d_o = outputs.differentiated(o, y)
    for unit in range(outputs.n_units):
        e = 1e-6 * (np.arange(outputs.n_units) == unit)
        measured = (outputs.differentiated(o + e, y)[0] - outputs.differentiated(o - e, y)[0]) / 2e-6
        assert (np.abs(d_o[:, unit] - measured) <= 1e-6 * np.abs(measured) + 1e-7 + 1e-9 * loss).all()


@pytest.mark.parametrize("name", losses.DISTRIBUTIONS)
def test_a_distribution_is_scipy_s(name: str, rng: np.random.Generator):
    stats = pytest.importorskip("scipy.stats")
    law, outputs = losses.DISTRIBUTIONS[name], elman.Reals(N, distribution=name)
    o, y = 4 * rng.standard_normal((200, N, len(law.least))), targets(outputs, (200,), rng)
    mean, *rest = np.moveaxis(law.parameters(o), -1, 0)
    of_scipy = {
        "normal": lambda: stats.norm(mean, *rest),
        "student_t": lambda: stats.t(rest[1], mean, rest[0]),
        "poisson": lambda: stats.poisson(mean),
        "negative_binomial": lambda: stats.nbinom(1 / rest[0], 1 / (1 + rest[0] * mean)),
    }[name]()
    log_p = of_scipy.logpmf(y) if law.are_counts else of_scipy.logpdf(y)
    rounding = 1e-8 if name == "negative_binomial" else 1e-12  # of log Γ(1 / dispersion), up to 10⁷
    np.testing.assert_allclose(law.loss(o, y)[0], -log_p, rtol=1e-12, atol=rounding)
    np.testing.assert_allclose(of_scipy.mean(), mean, rtol=1e-9)
    if name == "negative_binomial":
        np.testing.assert_allclose(of_scipy.var(), mean + rest[0] * mean**2, rtol=1e-9)
    interval = np.moveaxis(law.quantiles(o, (0.1, 0.9)), -1, 0)
    np.testing.assert_allclose(interval, of_scipy.ppf([[[0.1]], [[0.9]]]), rtol=1e-9)


def test_log_gamma_is_scipy_s():
    special = pytest.importorskip("scipy.special")
    x = np.concatenate([10.0 ** np.linspace(-6, 9, 500), np.linspace(0.5, 3, 100)])
    value, slope = losses.log_gamma(x)
    np.testing.assert_allclose(value, special.gammaln(x), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(slope, special.digamma(x), rtol=1e-13, atol=1e-13)


def test_extreme_outputs_have_finite_losses():
    for name, law in losses.DISTRIBUTIONS.items():
        o = np.array([[-1e4] * len(law.least), [80.0] * len(law.least)])[:, None]
        loss, d_o = law.loss(o, np.array([[0.0], [1.0]]))
        assert np.isfinite(loss).all(), name
        assert np.isfinite(d_o).all(), name


# In models


@backend_names
@reals
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
def test_central_differences(pattern: str, name: str, backend: str, rng: np.random.Generator):
    outputs = elman.Reals(2, **{"missing": np.nan} | REALS[name])
    model = model_of(outputs, pattern=pattern, backend=backend, bidirectional=pattern == "many-to-many")
    check_gradient(model, targets(outputs, (4,) if pattern == "many-to-one" else (6, 4), rng), rng)


@backend_names
@pytest.mark.parametrize("outputs", [elman.Categories(3, loss=focal), elman.Reals(2, loss=squared)], ids=["c", "r"])
def test_central_differences_with_a_loss_of_one_s_own(outputs: Output, backend: str, rng: np.random.Generator):
    check_gradient(model_of(outputs, backend=backend), targets(outputs, (6, 4), rng), rng)


def check_gradient(model: elman.SequenceModel, y: np.ndarray, rng: np.random.Generator) -> None:
    x, options = rng.standard_normal((6, 4, 2)), {"lengths": [3, 6, 1, 5], "weights": np.array([1, 0.5, 2, 0])}
    if model.outputs.missing is not None:
        y[1, 0], y[2, :1] = np.nan, np.nan
    parameters = model.state_dict()
    loss, gradients = model.loss_and_grads(x, y, **options)
    assert loss == pytest.approx(model.loss(x, y, **options), rel=1e-14)
    for _ in range(2):
        along, values = {k: rng.standard_normal(v.shape) for k, v in parameters.items()}, []
        for e in (1e-6, -1e-6):
            model.load_state_dict({k: parameters[k] + e * along[k] for k in parameters})
            values.append(model.loss(x, y, **options))
        slope = sum(float((gradients[k] * along[k]).sum()) for k in along)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=2e-6, abs=1e-7)


@backend_names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_path_by_numpy_is_that_of_the_kernels(dtype: str, backend: str, rng: np.random.Generator):
    x, y = rng.standard_normal((6, 4, 2)), rng.standard_normal((6, 4, 2))
    options: dict[str, Any] = {"lengths": [3, 6, 1, 5], "weights": [1, 0, 2, 3]}
    loss, gradients = model_of(elman.Reals(2), dtype=dtype, backend=backend).loss_and_grads(x, y, **options)
    for outputs in (elman.Reals(2, missing=np.nan), elman.Reals(2, loss=squared)):
        model = model_of(outputs, dtype=dtype, backend=backend)
        own_loss, own = model.loss_and_grads(x, y, **options)
        tolerance = 1e-6 if dtype == "float32" else 1e-13
        assert own_loss == pytest.approx(loss, rel=tolerance)
        for name, array in gradients.items():
            np.testing.assert_allclose(own[name], array, rtol=tolerance, atol=tolerance)


def test_a_loss_of_one_s_own_is_shown_steps_that_count_alone(rng: np.random.Generator):
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def loss(o: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append((o, y))
        o[:], y[:] = np.nan, 7  # whatever is done to them
        return np.ones(len(o), np.float32), np.zeros(o.shape, int)

    model, x = model_of(elman.Categories(3, loss=loss)), rng.standard_normal((5, 3, 2))
    y = np.array([[0, 1, 2], [-1, 1, 7], [2, 2, 7], [1, 0, 7], [0, 2, 7]])
    weights = [1, 2, 1]
    assert model.loss(x, y, lengths=[5, 4, 1], weights=weights) == 1
    assert model.loss_and_grads(x, y, lengths=[5, 4, 1], weights=weights)[0] == 1
    assert [(o.shape, each.shape) for o, each in seen] == [((9, 3), (9,))] * 2
    with pytest.raises(ValueError, match=r"^loss <function .*> cannot be saved: a model file holds no functions$"):
        model.save("nowhere")


BAD_RESULTS: list[tuple[Any, str]] = [
    (lambda o, _: o, "what loss returns must be a pair, got"),
    (lambda o, y: (o, y, 1), "what loss returns must be a pair, got 3 items"),
    (lambda o, _: (1.0, o), r"what loss returns at \[0\] must have shape \(6,\), got \(\)"),
    (lambda o, _: (o[:, 0], o[:, :1]), r"what loss returns at \[1\] must have shape \(6, 2\), got \(6, 1\)"),
    (lambda o, _: (o[:, 0].astype(str), o), r"what loss returns must be reals, got .* at \[0\]"),
]


@pytest.mark.parametrize(("loss", "message"), BAD_RESULTS)
def test_what_a_loss_of_one_s_own_must_return(loss: Any, message: str):
    model = model_of(elman.Reals(2, loss=loss))
    before = model.state_dict()
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        model.train_step(np.ones((3, 2, 2)), np.ones((3, 2, 2)), optimizer=elman.SGD(0.1))
    assert_same_bits(model.state_dict(), before)


def test_a_loss_that_is_not_finite_changes_nothing():
    model = model_of(elman.Reals(2, loss=lambda o, _: (np.full(len(o), np.nan), o)))
    before = model.state_dict()
    with pytest.raises(FloatingPointError, match="loss"):
        model.train_step(np.ones((3, 2, 2)), np.ones((3, 2, 2)), optimizer=elman.SGD(0.1))
    assert_same_bits(model.state_dict(), before)


@reals
def test_the_same_bits_with_recomputation(name: str, rng: np.random.Generator):
    outputs = elman.Reals(2, **REALS[name])
    model, x, y = model_of(outputs), rng.standard_normal((9, 4, 2)), targets(outputs, (9, 4), rng)
    loss, gradients = model.loss_and_grads(x, y, lengths=[9, 4, 7, 1])
    again, own = model.loss_and_grads(x, y, lengths=[9, 4, 7, 1], memory=2)
    assert again == pytest.approx(loss, rel=1e-13)
    assert_same_bits(own, gradients)


@reals
def test_a_row_does_not_depend_on_its_batch(name: str, rng: np.random.Generator):
    outputs = elman.Reals(2, **REALS[name])
    X, Y = data_of(outputs, rng)
    model = model_of(outputs)
    model.fit(X, Y, epochs=1, tbptt=(2, 3), progress=False)
    whole, stream = model.predict(X), model.stream()
    for x, found in zip(X, whole, strict=True):
        np.testing.assert_array_equal(model.predict([x])[0], found)
        stream.reset()
        np.testing.assert_array_equal(np.concatenate([stream.predict(x[:1]), stream.predict(x[1:])]), found)
    measured = model.evaluate(X, Y)
    assert measured == pytest.approx(model.evaluate(X, Y, batch_size=1), rel=1e-12)
    y, predicted = np.concatenate(Y), np.concatenate(whole)
    expected = {
        "absolute_error": lambda: ("mean_absolute_error", np.abs(y - predicted).mean()),
        "quantile": lambda: ("mean_pinball_loss", measured["loss"]),
    }.get(name, lambda: ("r2", np.mean(1 - ((y - predicted) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0))))()
    assert [*measured] == ["loss", expected[0]]
    assert measured[expected[0]] == pytest.approx(expected[1], rel=1e-9 if name != "quantile" else 0.5)


def test_what_is_learned(rng: np.random.Generator):
    """Of numbers that depend on nothing, the losses know what they say they know."""
    X, Y = np.zeros((1000, 1, 2)), np.round(np.exp(1.5 + 0.5 * rng.standard_normal((1000, 1, 1))))
    options: dict[str, Any] = {"epochs": 30, "batch_size": 200, "optimizer": elman.Adam(0.05), "progress": False}

    def trained(**own: Any) -> elman.SequenceModel:
        model = model_of(elman.Reals(1, **own), hidden_size=2)
        model.fit(X, Y, **copy.deepcopy(options))
        return model

    assert trained(loss="absolute_error").predict(X[:1]).item() == pytest.approx(np.median(Y), abs=0.3)
    quantiles = trained(loss="quantile", quantiles=[0.1, 0.9])
    for low, high in (quantiles.predict(X[:1])[0, 0, 0], quantiles.predict_interval(X[:1], coverage=0.8)[0, 0, 0]):
        for q, found in ((0.1, low), (0.9, high)):  # an integer, as Y are
            assert np.mean(found - 0.6 > Y) <= q <= np.mean(found + 0.6 > Y)
    for name in losses.DISTRIBUTIONS:
        parameters = trained(distribution=name).predict_distribution(X[:1])
        assert parameters["mean"].item() == pytest.approx(Y.mean(), rel=0.12)
        if "dispersion" in parameters:
            variance = Y.mean() + parameters["dispersion"].item() * Y.mean() ** 2
            assert variance == pytest.approx(Y.var(), rel=0.4)


# Predictions


@reals
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one"])
def test_forms(pattern: str, name: str, rng: np.random.Generator):
    outputs = elman.Reals(N, **REALS[name])
    model = model_of(outputs, pattern=pattern, dtype="float32")
    steps = () if pattern == "one-to-one" else (5,)
    X, out = rng.standard_normal((4, *steps, 2)), (4, *(steps if pattern == "many-to-many" else ()), N)
    predicted = model.predict(X)
    assert predicted.dtype == np.float32
    assert predicted.shape == out + ((3,) if name == "quantile" else ())
    if name == "quantile":
        assert (np.diff(predicted) >= 0).all()
        np.testing.assert_array_equal(model.predict_interval(X, coverage=0.9), predicted[..., [0, 2]])
        with pytest.raises(ValueError, match=r"^coverage must be .* got one for 0.1 and 0.9 of Reals\(3, loss='quan"):
            model.predict_interval(X, coverage=0.8)
    if outputs.distribution is None:
        with pytest.raises(ValueError, match=r"^predict_distribution needs outputs that are Reals with a distribution"):
            model.predict_distribution(X)
    else:
        parameters = model.predict_distribution(X)
        assert {key: value.shape for key, value in parameters.items()} == dict.fromkeys(parameters, out)
        np.testing.assert_array_equal(parameters["mean"], predicted)
        if pattern == "many-to-many":
            listed = model.predict_distribution([*X[:2], X[2, :1]])
            np.testing.assert_array_equal(listed["mean"][1], predicted[1])
            assert listed["mean"][2].shape == (1, N)
    if name in ("squared_error", "absolute_error", "huber"):
        with pytest.raises(ValueError, match=r"^predict_interval needs outputs that are Reals with a distribution or"):
            model.predict_interval(X)
    with pytest.raises(ValueError, match=r"^predict_proba needs outputs that are Categories or Binary"):
        model.predict_proba(X)


@pytest.mark.parametrize("name", losses.DISTRIBUTIONS)
def test_intervals(name: str, rng: np.random.Generator):
    pytest.importorskip("scipy.stats")
    model, X = model_of(elman.Reals(N, distribution=name)), rng.standard_normal((4, 5, 2))
    narrow, wide = (model.predict_interval(X, coverage=coverage) for coverage in (0.5, 0.99))
    assert wide.shape == (4, 5, N, 2)
    assert (wide[..., 0] <= narrow[..., 0]).all()
    assert (narrow[..., 1] <= wide[..., 1]).all()
    assert ((wide[..., 0] <= model.predict(X)) & (model.predict(X) <= wide[..., 1])).all()
    for wrong in (0, 1, 0.0, 1.5, np.nan, "0.9", None):
        with pytest.raises((TypeError, ValueError), match=r"^coverage must be a number between 0 and 1, got "):
            model.predict_interval(X, coverage=wrong)


def test_an_interval_without_scipy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    model, X = model_of(elman.Reals(distribution="poisson")), np.zeros((1, 1, 2))
    with pytest.raises(ImportError, match=r"^predict_interval of scipy.stats.poisson needs SciPy: pip install scipy$"):
        model.predict_interval(X)
    model_of(elman.Reals(distribution="normal")).predict_interval(X)


ALL = [
    *(elman.Reals(2, **given) for given in REALS.values()),
    elman.Reals(1, loss="huber", missing=np.nan),
    elman.Categories(3, class_weights=[1, 2, 3]),
    elman.Categories(3, class_weights="balanced"),
    elman.Binary(class_weights="balanced"),
    elman.Binary(2),
]
PREDICTED = """
import sys, numpy as np, elman
for path in sys.argv[1:]:
    model = elman.load(path)
    found = model.predict(np.load(path + ".npy"))
    assert np.array_equal(found, np.load(path + ".y.npy")), path
    print(model.outputs)
"""


def test_save_load_in_a_new_process_same_predictions(tmp_path: Path, rng: np.random.Generator):
    paths, X = [], rng.standard_normal((3, 4, 2))
    for i, outputs in enumerate(ALL):
        model = model_of(outputs)
        model.fit(X, targets(outputs, (3, 4), rng).clip(0), epochs=1, progress=False)
        path = str(tmp_path / str(i))
        model.save(path)
        np.save(path + ".npy", X)
        np.save(path + ".y.npy", model.predict(X))
        assert repr(elman.load(path)) == repr(model)
        paths.append((path, repr(model.outputs)))
    done = subprocess.run([sys.executable, "-c", PREDICTED, *dict(paths)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [shown for _, shown in paths]


def test_a_configuration_that_is_none(tmp_path: Path):
    """Of files that a stranger has written."""
    path = tmp_path / "model"
    model_of(elman.Reals(1, loss="quantile", quantiles=QUANTILES)).save(path)
    content = with_metadata(path.read_bytes(), digest=None)
    config = json.loads(unpack(content)[0]["__metadata__"]["config"])
    for changes, reason in [
        ({"quantiles": [0.1, 0.2]}, "stands for"),
        ({"quantiles": [0.1] * 10**5}, "quantiles must increase"),
        ({"quantiles": "0.1"}, "quantiles must be some numbers"),
        ({"loss": "own", "quantiles": None}, "loss must be one of"),
        ({"loss": ["huber"], "quantiles": None}, "loss must be one of"),
        ({"missing": 1.0}, "missing must be None or NaN"),
        ({"missing": "nan"}, "missing must be None or NaN"),
        ({"distribution": "normal"}, "loss must be None with a distribution"),
    ]:
        outputs = config["outputs"] | changes
        path.write_bytes(with_metadata(content, config=json.dumps(config | {"outputs": outputs})))
        with pytest.raises(ValueError, match=f"is not an elman model: .*{reason}"):
            elman.load(path)


@pytest.mark.parametrize("outputs", ALL, ids=repr)
def test_outputs_are_what_they_show(outputs: Output):
    namespace = {"nan": np.nan, **vars(elman)}
    assert eval(repr(outputs), namespace) == outputs
    assert pickle.loads(pickle.dumps(outputs)) == outputs


# Missing targets


@backend_names
@pytest.mark.parametrize("given", [{}, {"loss": "huber"}, {"distribution": "normal"}], ids=str)
def test_what_is_missing_does_not_count(given: dict[str, Any], backend: str, rng: np.random.Generator):
    model = model_of(elman.Reals(2, missing=np.nan, **given), backend=backend)
    alone = [model_of(elman.Reals(1, **given), backend=backend) for _ in range(2)]
    x, y, lengths = rng.standard_normal((6, 3, 2)), rng.standard_normal((6, 3, 2)), np.array([6, 2, 5])
    y[rng.random(y.shape) < 0.4] = np.nan
    y[3] = np.nan
    within = np.arange(6)[:, None] < lengths
    weights = np.array([1, 0.5, 2])
    total, count = 0.0, 0.0
    for j, each in enumerate(alone):  # the same layers, and one number's part of the readout
        units = model.outputs.n_units // 2
        own = {
            k: v[j * units : (j + 1) * units] if k.endswith("_o") or "_ho" in k else v
            for k, v in model.parameters().items()
        }
        each.load_state_dict(own)
        there = ~np.isnan(y[..., j]) & within
        own_weights = there * weights
        value = each.loss(x, np.where(there, y[..., j], 0)[..., None], lengths=lengths, weights=own_weights)
        total, count = total + value * own_weights.sum(), count + own_weights.sum()
    assert model.loss(x, y, lengths=lengths, weights=weights) == pytest.approx(total / count, rel=1e-12)
    poisoned = y.copy()
    poisoned[~within] = np.inf
    assert model.loss(x, poisoned, lengths=lengths) == model.loss(x, y, lengths=lengths)


def test_steps_and_sequences_without_targets(rng: np.random.Generator):
    outputs = elman.Reals(2, missing=np.nan)
    X, Y = data_of(outputs, rng)
    Y[0][:], Y[1][1:] = np.nan, np.nan
    model, other = (model_of(outputs, seed=3) for _ in range(2))
    options: dict[str, Any] = {"epochs": 2, "batch_size": 2, "shuffle": False, "progress": False}
    assert model.fit(X, Y, **options)["loss"] == pytest.approx(other.fit(X[1:], Y[1:], **options)["loss"], rel=0.5)
    measured = model.evaluate(X, Y)
    assert measured == pytest.approx(model.evaluate(X[1:], Y[1:]))
    assert np.isfinite(list(measured.values())).all()
    with pytest.raises(ValueError, match=r"^Y must hold at least one target"):
        model.fit(X[:1], Y[:1], **options)
    with pytest.raises(ValueError, match=r"^y must hold at least one target"):
        model.loss(X[0][:, None], Y[0][:, None])
    with pytest.raises(ValueError, match=r"^Y\[0\] must be finite, got nan at \[0, 0\]"):
        model_of(elman.Reals(2)).fit(X, Y, **options)
    Y[2][0, 0] = np.inf
    with pytest.raises(ValueError, match=r"^Y\[2\] must be finite, got inf at \[0, 0\]"):
        model.fit(X, Y, **options)


def test_a_column_without_targets_has_no_part_in_r2(rng: np.random.Generator):
    model, X, Y = model_of(elman.Reals(2, missing=np.nan)), rng.standard_normal((3, 5, 2)), np.full((3, 5, 2), np.nan)
    Y[..., 0] = rng.standard_normal((3, 5))
    y, predicted = Y[..., 0], model.predict(X)[..., 0]
    expected = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert model.evaluate(X, Y)["r2"] == pytest.approx(expected, rel=1e-12)


# Class weights that the targets say


def tagged(rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    X = [rng.standard_normal((t, 2)) for t in rng.integers(1, 9, 100)]
    return X, [rng.choice(4, size=len(x), p=[0.7, 0.2, 0.05, 0.05]) - (rng.random(len(x)) < 0.1) for x in X]


def expected_weights(y: np.ndarray) -> np.ndarray:
    utils = pytest.importorskip("sklearn.utils.class_weight")
    return utils.compute_class_weight("balanced", classes=np.unique(y), y=y)


def test_balanced_weights_are_scikit_learn_s(rng: np.random.Generator):
    X, Y = tagged(rng)
    given = elman.Categories(4, class_weights="balanced")
    model = model_of(given)
    model.fit(X, Y, epochs=1, progress=False)
    y = np.concatenate(Y)
    np.testing.assert_allclose(model.outputs.class_weights, expected_weights(y[y >= 0]), rtol=1e-15)
    assert given.class_weights == "balanced", "another model's"
    found = model.outputs.class_weights
    model.fit(X[:50], Y[:50], epochs=1, progress=False)
    assert model.outputs.class_weights is found, "they stay those of the first fit"
    other = model_of(elman.Categories(4, class_weights=found))
    other.load_state_dict(model.state_dict())
    assert other.evaluate(X, Y) == model.evaluate(X, Y)
    assert elman.Categories(3, class_weights="balanced").balanced(np.array([3.0, 0, 1])).tolist() == [4 / 6, 1, 2]


def test_balanced_labels_and_weights_of_0(rng: np.random.Generator):
    X, Y = rng.standard_normal((40, 3, 2)), (rng.random((40, 3, 1)) < 0.2).astype(int)
    model, weights = model_of(elman.Binary(class_weights="balanced")), np.repeat([0, 2], 20)
    model.fit(X, Y, weights=weights, epochs=1, progress=False)
    np.testing.assert_allclose(model.outputs.class_weights, expected_weights(Y[20:].reshape(-1)), rtol=1e-15)


def test_balanced_weights_are_not_known_before_fit(tmp_path: Path, rng: np.random.Generator):
    X, Y = tagged(rng)
    model = model_of(elman.Categories(4, class_weights="balanced"))
    x, y = np.zeros((2, 1, 2)), np.zeros((2, 1), int)
    for call in (
        lambda: model.train_step(x, y, optimizer=elman.SGD(0.1)),
        lambda: model.loss(x, y),
        lambda: model.evaluate(X, Y),
        lambda: model.gradient_norms(x, y),
    ):
        with pytest.raises(ValueError, match=r"^class_weights='balanced' are not known yet: the targets of `fit` say"):
            call()
    with pytest.raises(ValueError, match=r"^X must be data with class_weights='balanced'.* got a function"):
        model.fit(lambda: iter([(X, Y)]), epochs=1, progress=False)
    model.save(tmp_path / "file")
    assert elman.load(tmp_path / "file").outputs.class_weights == "balanced"
    (tmp_path / "checkpoint").write_bytes(b"none")
    with pytest.raises(ValueError, match="is no checkpoint"):
        model.fit(X, Y, progress=False, checkpoint=tmp_path / "checkpoint", resume=True)
    assert model.outputs.class_weights == "balanced"
    with pytest.raises(ValueError, match=r"^outputs must have the cross-entropy, and class weights that are numbers"):
        elman.Seq2Seq(elman.Tokens(4), elman.Categories(4, class_weights="balanced"), hidden_size=4)


def test_a_balanced_run_goes_on(tmp_path: Path, rng: np.random.Generator):
    X, Y = tagged(rng)
    options: dict[str, Any] = {"progress": False, "validation_data": (X[:9], Y[:9]), "batch_size": 10}

    def make() -> elman.SequenceModel:
        return model_of(elman.Categories(4, class_weights="balanced"), seed=5)

    whole, first, second = make(), make(), make()
    expected = whole.fit(X, Y, epochs=3, **options)
    options |= {"checkpoint": tmp_path / "checkpoint", "resume": True}
    first.fit(X, Y, epochs=1, **options)
    assert elman.load(tmp_path / "checkpoint").outputs == first.outputs
    assert second.fit(X, Y, epochs=3, **options) == expected
    assert_same_bits(second.state_dict(), whole.state_dict())
    many = [make()]
    elman.fit_many(many, X, Y, workers=1, epochs=1, progress=False)
    assert many[0].outputs == whole.outputs


def test_balanced_weights_of_data_on_disk(tmp_path: Path, rng: np.random.Generator):
    y = rng.choice(4, size=(300, 5), p=[0.7, 0.1, 0.1, 0.1])
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "x.npy", rng.standard_normal((300, 5, 2)))
    X, Y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    model = model_of(elman.Categories(4, class_weights="balanced"))
    model.fit(X, Y, epochs=1, batch_size=100, progress=False)
    np.testing.assert_allclose(model.outputs.class_weights, expected_weights(y.reshape(-1)), rtol=1e-15)


# What is refused


def refusals() -> Iterator[tuple[Any, str]]:
    reals = elman.Reals
    yield (
        lambda: reals(1, loss="mse"),
        "loss must be one of 'squared_error', 'absolute_error', 'huber', 'quantile', got",
    )
    yield lambda: reals(1, loss=3), "loss must be one of"
    yield lambda: elman.Categories(2, loss="focal"), "loss must be a function, got 'focal'"
    yield lambda: reals(1, loss="quantile"), "quantiles must be given with loss='quantile', and only then, got None"
    yield lambda: reals(1, quantiles=[0.5]), r"quantiles must be given with loss='quantile', and only then, got \[0.5\]"
    for wrong, message in [
        ((), "some numbers between 0 and 1"),
        ("0.1", "some numbers between 0 and 1"),
        (0.5, "some numbers between 0 and 1"),
        ([0.1, 0.1], "increase"),
        ([0.9, 0.1], "increase"),
    ]:
        yield lambda wrong=wrong: reals(1, loss="quantile", quantiles=wrong), f"quantiles must (be )?{message}, got"
    for wrong in (0, 1, np.nan, "a", None, True):
        expected = r"quantiles\[1\] must be a number between 0 and 1, got"
        yield lambda wrong=wrong: reals(1, loss="quantile", quantiles=[0.1, wrong]), expected
    yield lambda: reals(1, distribution="gauss"), "distribution must be one of 'normal', 'student_t', 'poisson', 'neg"
    yield lambda: reals(1, distribution="normal", loss="huber"), "loss must be None with a distribution, which brings"
    for wrong in (0, "nan", -999.0, [np.nan]):
        yield lambda wrong=wrong: reals(1, missing=wrong), "missing must be None or NaN, got"
    yield lambda: elman.Categories(2, class_weights="even"), "class_weights must be numbers or 'balanced', got 'even'"
    for given in ({"distribution": "normal"}, {"loss": "quantile", "quantiles": [0.5]}, {"missing": np.nan}):
        outputs = reals(2, **given)
        yield lambda outputs=outputs: model_of(outputs, pattern="one-to-many"), "pattern='one-to-many' needs outputs th"
        yield lambda outputs=outputs: model_of(outputs).generate(np.zeros((2, 2)), 3), "generate needs outputs that are"
    x = np.zeros((2, 1, 2))
    yield (
        lambda: model_of(reals(2, loss="huber")).gauss_newton_product(x, x, {}),
        "gauss_newton_product needs a loss wi",
    )
    yield lambda: model_of(reals(2, distribution="poisson")).loss(x, x + 0.5), "y must hold counts, integers of at leas"
    yield lambda: model_of(reals(2, distribution="poisson")).loss(x, x - 1), "y must hold counts, integers of at least "
    own = elman.Categories(2, loss=focal)
    yield lambda: elman.Seq2Seq(elman.Tokens(2), own, hidden_size=2), "outputs must have the cross-entropy, and class"


@pytest.mark.parametrize(("call", "message"), [*refusals()])
def test_refusals(call: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_counts_that_are_missing_or_not_looked_at():
    model, x = model_of(elman.Reals(1, distribution="poisson", missing=np.nan)), np.zeros((3, 1, 2))
    assert np.isfinite(model.loss(x, [[1], [np.nan], [-3]], lengths=[2]))
    with pytest.raises(ValueError, match=r"^y must hold counts, integers of at least 0, got -3.0 at \[2, 0, 0\]"):
        model.loss(x, [[1], [np.nan], [-3]])


def test_generation_goes_on_with_point_losses(rng: np.random.Generator):
    start = rng.standard_normal((4, 2))
    for loss in ("absolute_error", "huber", squared):
        expected = model_of(elman.Reals(2)).generate(start, 5)
        np.testing.assert_array_equal(model_of(elman.Reals(2, loss=loss)).generate(start, 5), expected)
    model = model_of(elman.Reals(2, loss="huber"), pattern="one-to-many")
    assert model.generate([0.1, 0.2], 4).shape == (4, 2)
