"""`elman.Scaler`, alone and in models: beside NumPy on all steps laid end to end, and beside scaling by hand."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from ..compare import assert_same_bits
from .test_patterns import backend_names

LENGTHS = (4, 1, 7, 3, 5, 6, 2, 4, 1, 3)
FIT: dict[str, Any] = {"epochs": 2, "batch_size": 3, "progress": False}


def ragged(rng: np.random.Generator, n: int = 2, dtype: str = "float64") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features around (3000, -0.01, …), and numbers of about a million to be predicted."""
    X = [(rng.standard_normal((t, n)) * [900, 0.002][:n] + [3000, -0.01][:n]).astype(dtype) for t in LENGTHS]
    return X, [(2e6 + 300 * x[:, :1] + 1e5 * rng.standard_normal((len(x), 1))).astype(dtype) for x in X]


def by_numpy(X: Any) -> tuple[np.ndarray, np.ndarray]:
    steps = np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in X]).astype(np.longdouble)
    mean, scale = steps.mean(axis=0), steps.std(axis=0)
    return mean.astype(np.float64), np.where(scale > 0, scale, 1).astype(np.float64)


def assert_fits(scaler: Any, X: Any, rtol: float = 1e-12) -> None:
    mean, scale = by_numpy(X)
    np.testing.assert_allclose(scaler.mean, mean, rtol=rtol)
    np.testing.assert_allclose(scaler.scale, scale, rtol=rtol)


def scaled(**options: Any) -> elman.SequenceModel:
    return model_of(elman.Features(2, scaler=elman.Scaler()), elman.Reals(1, scaler=elman.Scaler()), **options)


def model_of(inputs: Any, outputs: Any, **options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(inputs, outputs, **{"hidden_size": 5, "seed": 0, **options})


# Alone


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_moments_are_those_of_all_steps(rng: np.random.Generator, dtype: str):
    X, Y = ragged(rng, dtype=dtype)
    for given in (X, Y, [*X, np.empty((0, 2), dtype)], [x.tolist() for x in X], [y[:, 0] for y in Y]):
        assert_fits(elman.Scaler().fit(given), [x for x in given if len(x)])
    table = rng.standard_normal((5, 4, 3)).astype(dtype)
    assert_fits(elman.Scaler().fit(table), table.reshape(1, -1, 3))
    assert_fits(elman.Scaler().fit(table[0, :, 0]), table[:1, :, 0])
    assert_fits(elman.Scaler().fit(np.array([*X, None], dtype=object)[:-1]), X)


def test_a_mean_that_is_large_beside_its_deviation(rng: np.random.Generator):
    far = [1e8 + 100 * rng.standard_normal((n, 1)).astype(np.float32) for n in (400, 1, 3000)]
    far = [x.astype(np.float32) for x in far]
    assert_fits(elman.Scaler().fit(far), far)
    farther = [1e12 + rng.standard_normal((1000, 1)), 1e12 + rng.standard_normal((7, 1))]
    mean, scale = by_numpy(farther)
    found = elman.Scaler().fit(farther)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, np.float32(0.1), -1e300, 1e-310, 3])
def test_what_never_changes_has_the_scale_1(value: Any):
    X = [np.full((n, 1), value) for n in (3, 1, 7)]
    scaler = elman.Scaler().fit(X)
    assert scaler.scale is not None
    assert scaler.mean is not None
    assert (scaler.mean.tolist(), scaler.scale.tolist()) == ([float(value)], [1.0])
    assert not np.concatenate(scaler.transform(X)).any()
    noisy = elman.Scaler().fit(np.array([0.3, 0.1 + 0.2]))  # but for rounding
    assert noisy.scale is not None
    assert noisy.scale.tolist() == [1.0]


def test_there_and_back(rng: np.random.Generator):
    X, _ = ragged(rng)
    scaler = elman.Scaler().fit(X)
    made = scaler.transform(X)
    for x, one, back in zip(X, made, scaler.inverse_transform(made), strict=True):
        np.testing.assert_array_equal(one, (x - scaler.mean) / scaler.scale)
        np.testing.assert_allclose(back, x, rtol=1e-14)
    steps = np.concatenate(made)
    np.testing.assert_allclose(steps.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(steps.std(axis=0), 1, rtol=1e-12)
    series = elman.Scaler().fit([1.0, 2, 3])
    assert series.transform([2.0, 3]).shape == (2,)
    assert series.transform(np.float32([[[2]]])).shape == (1, 1, 1)
    assert [x.shape for x in series.transform([[1, 2], [3]])] == [(2,), (1,)]
    np.testing.assert_array_equal(np.isnan(series.transform([np.nan, 2])), [True, False])


def test_missing_numbers_do_not_count(rng: np.random.Generator):
    X = [np.where(rng.random((n, 2)) < 0.4, np.nan, rng.standard_normal((n, 2)) * 7) for n in (1, 9, 30)]
    X[0][0] = np.nan, 5.0
    scaler, steps = elman.Scaler().fit(X, missing=np.nan), np.concatenate(X)
    np.testing.assert_allclose(scaler.mean, np.nanmean(steps, axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, np.nanstd(steps, axis=0), rtol=1e-12)
    with pytest.raises(
        ValueError, match=r"^X\[0\] must be finite, got nan at \[0, 0\] \(missing=np.nan leaves it out\)"
    ):
        elman.Scaler().fit(X)
    nothing = elman.Scaler().fit([[[np.nan]]], missing=np.nan)
    assert repr(nothing) == "Scaler(mean=[0.0], scale=[1.0])"


def test_it_is_what_it_says(rng: np.random.Generator):
    X, _ = ragged(rng)
    scaler = elman.Scaler().fit(X)
    assert repr(elman.Scaler()) == "Scaler()"
    for other in (eval(repr(scaler), {"Scaler": elman.Scaler}), pickle.loads(pickle.dumps(scaler)), copy.copy(scaler)):
        assert_same_bits({"mean": other.mean, "scale": other.scale}, {"mean": scaler.mean, "scale": scaler.scale})
    with pytest.raises(ValueError, match="read-only"):
        scaler.mean[0] = 1  # type: ignore[index]
    assert elman.reference.Scaler is elman.Scaler


BAD: list[tuple[Any, str]] = [
    (lambda: elman.Scaler().fit([]), "X must hold at least one sequence"),
    (lambda: elman.Scaler().fit([np.empty((0, 2))]), "X must hold at least one step"),
    (lambda: elman.Scaler().fit(np.empty((3, 0))), "X must hold at least one step"),
    (lambda: elman.Scaler().fit("abc"), "X must be an array of numbers (T, n), got 'abc'"),
    (lambda: elman.Scaler().fit(3.0), "X must be an array of numbers (T, n), got 3.0"),
    (lambda: elman.Scaler().fit([["a"]]), "X[0] must be an array of numbers (T, n), got ['a']"),
    (lambda: elman.Scaler().fit([[[1, 2]], [[1]]]), "X[1] must have shape (1, 2), got (1, 1)"),
    (lambda: elman.Scaler().fit([[1, np.inf]], missing=np.nan), "X[0] must be finite, got inf at [1, 0]"),
    (lambda: elman.Scaler().fit([[1.0]], missing=0.0), "missing must be None or NaN, got 0.0"),
    (lambda: elman.Scaler().fit([[1e308], [-1e308]]), "numbers to be scaled must have a finite mean and"),
    (lambda: elman.Scaler().transform([[1.0]]), "scaler must be fitted before: by the `fit` of its model, or by"),
    (lambda: elman.Scaler(mean=[1.0]), "mean and scale must be given together, got [1.0] and None"),
    (lambda: elman.Scaler(mean=[1.0], scale=[0.0]), "scale must be above 0, got [0.0]"),
    (lambda: elman.Scaler(mean=[1.0], scale=[1.0, 2]), "scale must have shape (1,), got (2,)"),
    (lambda: elman.Scaler(mean=[np.nan], scale=[1.0]), "mean must be finite, got nan at [0]"),
    (lambda: elman.Scaler(mean=["a"], scale=[1.0]), "mean must hold numbers, got ['a']"),
    (lambda: elman.Features(2, scaler=1), "scaler must be elman.Scaler, got 1"),  # type: ignore[arg-type]
    (lambda: elman.Reals(3, scaler=elman.Scaler().fit([[1, 2]])), "mean of scaler must have shape (3,), got (1,)"),
    (
        lambda: elman.Reals(distribution="poisson", scaler=elman.Scaler()),
        "scaler must be None with distribution='poisson', which is of counts, got Scaler()",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_does_not_fit_is_named(call: Any, message: str):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert str(raised.value).startswith(message)


# In models: beside scaling by hand


@backend_names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_the_same_bits_as_by_hand(rng: np.random.Generator, backend: str, dtype: str, loss: str):
    X, Y = ragged(rng)
    outputs = elman.Reals(1, loss=loss, scaler=elman.Scaler())
    model = model_of(elman.Features(2, scaler=elman.Scaler()), outputs, dtype=dtype, backend=backend)
    history = model.fit(X, Y, **FIT, validation_data=(X[:3], Y[:3]))
    sx, sy = model.inputs.scaler, model.outputs.scaler
    assert sx is not None
    assert sy is not None
    assert_fits(sx, X)
    assert_fits(sy, Y)
    x, y = sx.transform(X), sy.transform(Y)
    hand = model_of(elman.Features(2), elman.Reals(1, loss=loss), dtype=dtype, backend=backend)
    expected = hand.fit(x, y, **FIT, validation_data=(x[:3], y[:3]))
    assert history["loss"] == expected["loss"]
    assert history["val_loss"] == expected["val_loss"]
    assert_same_bits(model.state_dict(), hand.state_dict())
    predicted = model.predict(X)
    for one, other in zip(predicted, hand.predict(x), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, sy.inverse_transform(other))
    found, by_hand = model.evaluate(X, Y), hand.evaluate(x, y)
    assert found["loss"] == by_hand["loss"]
    errors = np.concatenate(predicted) - np.concatenate(Y)
    if loss == "absolute_error":
        assert found["mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    else:
        assert found["r2"] == pytest.approx(1 - (errors**2).mean() / np.concatenate(Y).var(), rel=1e-5)
        assert found["r2"] == pytest.approx(by_hand["r2"], rel=1e-5)
    loss_here, gradients = model.loss_and_grads(X[2][:, None], Y[2][:, None])
    loss_there, others = hand.loss_and_grads(x[2][:, None], y[2][:, None])
    assert loss_here == loss_there
    assert_same_bits(gradients, others)
    assert model.train_step(X[2][:, None], Y[2][:, None], optimizer=elman.SGD(0.1)) == loss_there


@pytest.mark.parametrize("pattern", ["many-to-one", "one-to-one", "one-to-many"])
def test_patterns_by_hand(rng: np.random.Generator, pattern: str):
    n, length = 9, 4
    has_time = pattern.startswith("many"), pattern.endswith("many")
    X, Y = (1e4 + 300 * rng.standard_normal((n, *([length] if many else []), 2)) for many in has_time)
    model = model_of(elman.Features(2, scaler=elman.Scaler()), elman.Reals(2, scaler=elman.Scaler()), pattern=pattern)
    hand = model_of(elman.Features(2), elman.Reals(2), pattern=pattern)
    model.fit(X, Y, **FIT)
    sx, sy = model.inputs.scaler, model.outputs.scaler
    assert sx is not None
    assert sy is not None
    assert_fits(sx, X.reshape(1, -1, 2))
    assert_fits(sy, Y.reshape(1, -1, 2))
    x, y = sx.transform(X), sy.transform(Y)
    hand.fit(x, y, **FIT)
    assert_same_bits(model.state_dict(), hand.state_dict())
    if pattern == "one-to-many":
        np.testing.assert_array_equal(model.generate(X[0], 7), sy.inverse_transform(hand.generate(x[0], 7)))
    else:
        np.testing.assert_array_equal(model.predict(X), sy.inverse_transform(hand.predict(x)))


@pytest.mark.parametrize(
    "options",
    [
        {"distribution": "normal"},
        {"distribution": "student_t"},
        {"loss": "quantile", "quantiles": (0.05, 0.5, 0.95)},
        {"loss": "huber", "missing": np.nan},
    ],
)
def test_distributions_quantiles_and_missing_targets(rng: np.random.Generator, options: dict[str, Any]):
    X, Y = ragged(rng)
    Y = [np.concatenate([y, 5 * y], axis=1) for y in Y]
    if "missing" in options:
        Y = [np.where(rng.random(y.shape) < 0.3, np.nan, y) for y in Y]
    model = model_of(elman.Features(2), elman.Reals(2, **options, scaler=elman.Scaler()), dtype="float64")
    X = [x / 3000 for x in X]
    model.fit(X, Y, **FIT)
    scaler = model.outputs.scaler
    assert scaler is not None
    np.testing.assert_allclose(scaler.mean, np.nanmean(np.concatenate(Y), axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, np.nanstd(np.concatenate(Y), axis=0), rtol=1e-12)
    hand, y = model_of(elman.Features(2), elman.Reals(2, **options), dtype="float64"), scaler.transform(Y)
    hand.fit(X, y, **FIT)
    assert_same_bits(model.state_dict(), hand.state_dict())
    mean, scale = scaler.mean, scaler.scale
    assert scale is not None
    for one, other in zip(model.predict(X), hand.predict(X), strict=True):
        is_of_quantiles = other.ndim == 3
        back = other * (scale[:, None] if is_of_quantiles else scale) + (mean[:, None] if is_of_quantiles else mean)
        np.testing.assert_allclose(one, back, rtol=1e-14)
    if "missing" not in options:
        for one, other in zip(model.predict_interval(X), hand.predict_interval(X), strict=True):
            np.testing.assert_allclose(one, other * scale[:, None] + mean[:, None], rtol=1e-14)
    if "distribution" in options:
        found, there = model.predict_distribution(X), hand.predict_distribution(X)
        np.testing.assert_allclose(found["mean"][0], there["mean"][0] * scale + mean, rtol=1e-14)
        np.testing.assert_allclose(found["scale"][0], there["scale"][0] * scale, rtol=1e-14)
        if "df" in there:
            np.testing.assert_array_equal(found["df"][0], there["df"][0])


@backend_names
@pytest.mark.parametrize("where", ["both", "inputs", "outputs", "the same"])
def test_what_is_fed_back_is_scaled_as_inputs_are(rng: np.random.Generator, backend: str, where: str):
    """A stream is asked step by step, in the units of the data, and told what it has said."""
    X = [np.array([50.0, -3]) + rng.standard_normal((n, 2)) * [4, 0.5] for n in LENGTHS]
    first, second = elman.Scaler().fit(X), elman.Scaler(mean=[40.0, 1], scale=[8, 0.25])
    inputs = elman.Features(2, scaler=None if where == "outputs" else first)
    outputs = elman.Reals(2, scaler=None if where == "inputs" else first if where == "the same" else second)
    model = model_of(inputs, outputs, dtype="float64", backend=backend)
    stream, expected = model.stream(), []
    said = stream.predict(X[2])[-1]
    for _ in range(70):  # more than are made at a time
        expected.append(said)
        said = stream.predict(said[None])[0]
    np.testing.assert_allclose(model.generate(X[2], 70), expected, rtol=1e-9)


@backend_names
def test_what_is_predicted_in_training_is_fed_back_as_targets_are(rng: np.random.Generator, backend: str):
    X, Y = 1e4 + 300 * rng.standard_normal((9, 2)), 1e6 + 300 * rng.standard_normal((9, 5, 1))
    own: dict[str, Any] = {"pattern": "one-to-many", "dtype": "float64", "backend": backend}
    model, hand = scaled(**own), model_of(elman.Features(2), elman.Reals(1), **own)
    history = model.fit(X, Y, **FIT, scheduled_sampling=0.5)
    x, y = elman.Scaler().fit(X).transform(X), elman.Scaler().fit(Y).transform(Y)
    np.testing.assert_allclose(history["loss"], hand.fit(x, y, **FIT, scheduled_sampling=0.5)["loss"], rtol=1e-9)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, hand.state_dict()[name], rtol=1e-6, atol=1e-9)


def test_labels_that_are_fed_back_are_scaled_as_inputs_are():
    inputs = elman.Features(2, scaler=elman.Scaler(mean=[0.3, 0.6], scale=[0.2, 3]))
    model = model_of(inputs, elman.Binary(2), dtype="float64", spectral_radius=1.5, seed=0)
    start = np.array([[1.0, 0], [0, 1], [0, 0]])
    stream, expected = model.stream(), []
    said = stream.predict(start)[-1]
    for _ in range(9):
        expected.append(said.tolist())
        said = stream.predict(said[None].astype(float))[0]
    assert model.generate(start, 9, temperature=0).tolist() == expected
    assert len({*map(tuple, expected)}) > 1


def test_a_stream_predicts_what_the_model_does(rng: np.random.Generator):
    X, Y = ragged(rng, dtype="float32")
    model = scaled()
    model.fit(X, Y, **FIT)
    stream = model.stream()
    np.testing.assert_array_equal(np.concatenate([stream.predict(x[None]) for x in X[2]]), model.predict(X)[2])
    several = model.stream(2)
    assert several.predict(np.ones((3, 0, 2), np.float32), rows=[]).shape == (3, 0, 1)


def test_targets_of_more_digits_than_a_float32_has(rng: np.random.Generator):
    X = [rng.standard_normal((9, 1)) for _ in range(40)]
    Y = [1e8 + np.cumsum(x, axis=0) for x in X]  # of which a float32 has every eighth
    model = model_of(elman.Features(1), elman.Reals(1, scaler=elman.Scaler()))
    model.fit(X, Y, epochs=60, optimizer=elman.Adam(0.02), progress=False)
    assert model.evaluate(X, Y)["r2"] > 0.95
    assert np.abs(np.concatenate(model.predict(X)) - np.concatenate(Y)).mean() < 1


# What the first fit learns, and from what


@pytest.mark.parametrize("form", ["list", "array", "memory-mapped", "small", "windows", "lists"])
def test_whatever_data_lie_in(rng: np.random.Generator, tmp_path: Path, form: str):
    x, y = rng.integers(0, 100, (30, 6, 2)), rng.integers(-100, 100, (30, 6, 1))
    X: Any = x.astype(np.float32)
    Y: Any = y.astype(np.float32)
    if form == "list":
        X, Y = [*X], [*Y]
    elif form == "memory-mapped":
        np.save(tmp_path / "x.npy", X)
        np.save(tmp_path / "y.npy", Y)
        X, Y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    elif form == "small":
        X, Y = x.astype(np.int8), y.astype(np.float16)
    elif form == "lists":
        X, Y = x.astype(float).tolist(), y.tolist()
    elif form == "windows":
        X, Y = elman.Windows(X.reshape(-1, 2), 6, targets=Y.reshape(-1), horizon=0), None
    model = scaled()
    model.fit(X, Y, **FIT)
    assert_fits(model.inputs.scaler, [x.reshape(-1, 2)])
    assert_fits(model.outputs.scaler, [y.reshape(-1, 1)])
    other = scaled()
    other.fit(x.astype(np.float32), y.astype(np.float32), **FIT)
    assert_same_bits(model.state_dict(), other.state_dict())


def test_what_is_trained_on_alone(rng: np.random.Generator):
    X, Y = ragged(rng)
    split, given, weighted = scaled(), scaled(), scaled()
    split.fit(X, Y, **FIT, validation_split=0.3)
    given.fit(X[:7], Y[:7], **FIT, validation_data=(X[7:], Y[7:]))
    for model in (split, given):
        assert_fits(model.inputs.scaler, X[:7])
        assert_fits(model.outputs.scaler, Y[:7])
    assert_same_bits(split.state_dict(), given.state_dict())
    weighted.fit(X, [np.full_like(Y[0], 1e30), *Y[1:]], **FIT, weights=[0, *np.ones(len(X) - 1)])
    assert_fits(weighted.outputs.scaler, Y[1:])


def test_the_first_fit_alone(rng: np.random.Generator):
    X, Y = ragged(rng)
    inputs, outputs = elman.Features(2, scaler=elman.Scaler()), elman.Reals(1, scaler=elman.Scaler())
    model = model_of(inputs, outputs)
    with pytest.raises(ValueError, match=r"^epochs must be"):
        model.fit(X, Y, epochs=0)
    with pytest.raises(ValueError, match=r"^checkpoint must"):
        model.fit(X, Y, resume=True)
    with pytest.raises(ValueError, match=r"^validation_data\[1\] must have as many"):
        model.fit(X, Y, validation_data=(X, Y[1:]), **FIT)
    model.parameters()["bias_o"][...] = np.nan
    with pytest.raises(FloatingPointError, match=r"^step 1: the loss is nan"):
        model.fit(X, Y, **FIT)
    model.parameters()["bias_o"][...] = 0
    model.find_lr(X, Y, steps=3)
    assert model.inputs == inputs
    assert model.outputs == outputs, "as before a fit that is refused"
    model.fit(X, Y, **FIT)
    first, second = model.inputs, model.outputs
    assert repr(inputs.scaler) == repr(outputs.scaler) == "Scaler()", "those of other models"
    model.fit([3 * x for x in X], Y, **FIT)
    assert model.inputs is first
    assert model.outputs is second
    assert_fits(model.inputs.scaler, X)


def test_what_has_been_trained_with_it_keeps_it(rng: np.random.Generator):
    """An error in the middle of a run leaves parameters that are of no use with another scaler."""
    X, Y = ragged(rng)

    def stop(_: Any) -> None:
        raise ValueError("no more")

    model = scaled()
    with pytest.raises(ValueError, match="no more"):
        model.fit(X, Y, callbacks=[stop], **FIT)
    assert_fits(model.inputs.scaler, X)
    assert_fits(model.outputs.scaler, Y)
    other = scaled()
    other.fit(X, Y, **{**FIT, "epochs": 1})
    np.testing.assert_array_equal(model.predict(X)[0], other.predict(X)[0])


def test_before_a_fit_there_is_nothing_to_be_had(rng: np.random.Generator, tmp_path: Path):
    X, Y = ragged(rng)
    x, y = X[2][:, None], Y[2][:, None]
    both = elman.Scaler(), None
    for sx, sy in ((*both,), (*both[::-1],)):
        model = model_of(elman.Features(2, scaler=sx), elman.Reals(1, scaler=sy))
        calls: list[Any] = [
            lambda model=model: model.train_step(x, y, optimizer=elman.SGD(0.1)),
            lambda model=model: model.loss(x, y),
            lambda model=model: model.predict(X),
            lambda model=model: model.evaluate(X, Y),
            lambda model=model: model.stream().predict(X[0]),
            lambda model=model: model.save(tmp_path / "file"),
        ]
        before = model.state_dict()
        for call in calls:
            with pytest.raises(ValueError, match=r"^scaler must be fitted before: by the `fit` of its model, or by"):
                call()
        with pytest.raises(ValueError, match=r"^X must be data with scaler=Scaler\(\).* got a function"):
            model.fit(lambda: iter([(X, Y)]), epochs=1, progress=False)
        assert_same_bits(model.state_dict(), before)
        assert not list(tmp_path.iterdir())
        assert repr(pickle.loads(pickle.dumps(model))) == repr(model)


def test_a_function_of_batches_has_one_that_is_fitted(rng: np.random.Generator):
    X, Y = ragged(rng)
    sx, sy = elman.Scaler().fit(X), elman.Scaler().fit(Y)
    model = model_of(elman.Features(2, scaler=sx), elman.Reals(1, scaler=sy))
    hand = model_of(elman.Features(2), elman.Reals(1))
    history = model.fit(lambda: iter([(X[:4], Y[:4]), (X[4:], Y[4:])]), epochs=2, progress=False)
    x, y = sx.transform(X), sy.transform(Y)
    assert history == hand.fit(lambda: iter([(x[:4], y[:4]), (x[4:], y[4:])]), epochs=2, progress=False)
    assert_same_bits(model.state_dict(), hand.state_dict())


def test_many_models_and_pairs(rng: np.random.Generator):
    X, Y = ragged(rng)
    alone, models = scaled(), [scaled(), scaled(seed=1)]
    alone.fit(X, Y, **FIT)
    elman.fit_many(models, X, Y, workers=2, **FIT)
    assert models[0].inputs == models[1].inputs == alone.inputs
    assert models[0].outputs == alone.outputs
    assert_same_bits(models[0].state_dict(), alone.state_dict())
    written = [rng.integers(0, 3, n) for n in LENGTHS]
    pairs = elman.Seq2Seq(elman.Features(2, scaler=elman.Scaler()), elman.Categories(3), hidden_size=4, seed=0)
    with pytest.raises(ValueError, match=r"^scaler must be fitted before"):
        pairs.predict(X)
    pairs.fit(X, written, **FIT)
    assert pairs.inputs.scaler is not None
    assert_fits(pairs.inputs.scaler, X)
    hand, x = elman.Seq2Seq(elman.Features(2), elman.Categories(3), hidden_size=4, seed=0), None
    x = pairs.inputs.scaler.transform(X)
    hand.fit(x, written, **FIT)
    assert_same_bits(pairs.state_dict(), hand.state_dict())
    for one, other in zip(pairs.predict(X), hand.predict(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_columns_scale_their_features_alone(rng: np.random.Generator, tmp_path: Path):
    X, Y = ragged(rng)
    X = [np.column_stack([rng.integers(0, 9, len(x)), x, rng.integers(0, 3, len(x)), x[:, :1] ** 2]) for x in X]
    inputs = elman.Columns(
        elman.Tokens(9, embedding_dim=2),
        elman.Features(2, scaler=elman.Scaler()),
        elman.Tokens(3),
        elman.Features(1, scaler=elman.Scaler(mean=[9e6], scale=[5e6])),
    )
    plain = elman.Columns(elman.Tokens(9, embedding_dim=2), elman.Features(2), elman.Tokens(3), elman.Features(1))
    model, hand = (model_of(kind, elman.Reals(1, scaler=elman.Scaler())) for kind in (inputs, plain))
    with pytest.raises(ValueError, match=r"^scaler must be fitted before"):
        model.predict(X)
    model.fit(X, Y, **FIT)
    assert "Scaler()" in repr(inputs)
    assert_fits(model.inputs.parts[1].scaler, [x[:, 1:3] for x in X])  # type: ignore[union-attr]
    assert repr(model.inputs.parts[3].scaler) == "Scaler(mean=[9000000.0], scale=[5000000.0])"  # type: ignore[union-attr]
    assert model.inputs.scaler is not None
    scaled_x = model.inputs.scaler.transform(X)
    for x, one in zip(X, scaled_x, strict=True):
        np.testing.assert_array_equal(one[:, [0, 3]], x[:, [0, 3]])
    hand.fit(scaled_x, Y, **FIT)
    assert_same_bits(model.state_dict(), hand.state_dict())
    model.save(tmp_path / "columns")
    for other in (elman.load(tmp_path / "columns"), pickle.loads(pickle.dumps(model))):
        assert other.inputs == model.inputs
        np.testing.assert_array_equal(other.predict(X)[2], model.predict(X)[2])


# Files


def test_a_run_goes_on(rng: np.random.Generator, tmp_path: Path):
    X, Y = ragged(rng)
    whole, first, second = scaled(), scaled(), scaled()
    options = {**FIT, "validation_split": 0.2}
    expected = whole.fit(X, Y, **options)
    kept = {"checkpoint": tmp_path / "checkpoint", "resume": True}
    first.fit(X, Y, **{**options, "epochs": 1}, **kept)
    assert elman.load(tmp_path / "checkpoint").inputs == first.inputs
    assert second.fit(X, Y, **options, **kept) == expected
    assert_same_bits(second.state_dict(), whole.state_dict())
    other = model_of(elman.Features(2, scaler=elman.Scaler(mean=[0, 0], scale=[1, 1])), whole.outputs)
    with pytest.raises(ValueError, match=r"inputs.scaler.mean is \[0.0, 0.0\] here, it was \["):
        other.fit(X, Y, **options, **kept)


NEW_PROCESS = """
import sys
import numpy as np
import elman
x = np.load(sys.argv[2])
model = elman.load(sys.argv[1])
np.savez(sys.argv[3], predicted=model.predict(x), mean=model.inputs.scaler.mean, scale=model.outputs.scaler.scale)
"""


def test_a_file_has_all_digits(rng: np.random.Generator, tmp_path: Path):
    X, Y = ragged(rng, dtype="float32")
    model = scaled()
    model.fit(X, Y, **FIT)
    model.save(tmp_path / "model.elman")
    np.save(tmp_path / "x.npy", X[2][None])
    given = [str(tmp_path / name) for name in ("model.elman", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *given], check=True)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(found["predicted"], model.predict(X[2][None]))
    assert model.inputs.scaler is not None
    assert model.outputs.scaler is not None
    np.testing.assert_array_equal(found["mean"], model.inputs.scaler.mean)
    np.testing.assert_array_equal(found["scale"], model.outputs.scaler.scale)
    loaded = elman.load(tmp_path / "model.elman")
    assert loaded.inputs == model.inputs
    assert loaded.outputs == model.outputs
    loaded.fit(X, Y, **FIT)
    assert loaded.inputs == model.inputs, "it goes on with what it has"


# Targets that nobody has scaled


def test_large_targets_are_named(rng: np.random.Generator):
    X, Y = ragged(rng)
    X = [x / 3000 for x in X]
    size = f"{np.sqrt(np.square(np.concatenate(Y)).mean()):.3g}".replace("+", r"\+")
    with pytest.warns(UserWarning, match=rf"size {size}.*Reals\(1, scaler=elman.Scaler\(\)\)") as found:
        model_of(elman.Features(2), elman.Reals(1)).fit(X, Y, **FIT)
    assert len(found) == 1
    assert found[0].filename == __file__
    one = [np.concatenate([y / 1e6, np.where(rng.random(y.shape) < 0.5, np.nan, y)], axis=1) for y in Y]
    with pytest.warns(UserWarning, match="targets are of size"):  # one of two, of which some are missing
        model_of(elman.Features(2), elman.Reals(2, loss="huber", missing=np.nan)).fit(X, one, **FIT)
    counts = [np.round(y / 1e3) for y in Y]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model_of(elman.Features(2), elman.Reals(1)).fit(X, [y / 1e4 for y in Y], **FIT)
        model_of(elman.Features(2), elman.Reals(1, distribution="poisson")).fit(X, counts, **FIT)
        own = elman.Reals(1, loss=lambda o, y: (((o - y / 1e6) ** 2)[:, 0], 2 * (o - y / 1e6)))
        model_of(elman.Features(2), own).fit(X, Y, **FIT)
        model_of(elman.Features(2), elman.Reals(1, scaler=elman.Scaler())).fit(X, Y, **FIT)
