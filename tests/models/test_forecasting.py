"""Many sequences generated side by side; forecasts of many series; forecasts from rolling origins."""

import pickle
import signal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data import losses
from elman.models import generation

from .test_patterns import backend_names

LENGTHS = 4, 1, 9
KNOWN = 2  # columns that are known ahead
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "absolute_error": {"loss": "absolute_error", "missing": np.nan},
    "quantile": {"loss": "quantile", "quantiles": (0.05, 0.4, 0.95)},
    **{name: {"distribution": name} for name in losses.DISTRIBUTIONS},
}
DRAWN = ("normal", "student_t", "poisson", "negative_binomial")


def model_of(n: int = 1, known: int = KNOWN, kind: str = "plain", **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 6, "seed": 0, "dtype": "float64"} | options
    model = elman.SequenceModel(elman.Features(n + known), elman.Reals(n, **KINDS[kind]), **options)
    for array in model.parameters().values():
        array *= 2  # for outputs of a size that matters when they are fed back
    return model


def history_of(n: int, rng: np.random.Generator, lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    return [rng.normal(size=(length, n)) for length in lengths]


def fed(model: Any, history: np.ndarray, future: np.ndarray | None, values: np.ndarray) -> list[np.ndarray]:
    """What a stream predicts where these values (steps, n) are its inputs, one after the other."""
    stream = model.stream()
    found = [stream.predict(history)[-1]]
    for k, value in enumerate(values[:-1]):
        x = value if future is None else np.concatenate([value, future[k]])
        found.append(stream.predict(x[None])[-1])
    return found


# Forecasts


@backend_names
@pytest.mark.parametrize("known", [0, KNOWN])
@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_is_fed_back(kind: str, known: int, backend: str, rng: np.random.Generator):
    """70 steps: more than one call of a kernel."""
    model = model_of(2, known, kind, num_layers=2, backend=backend)
    history = history_of(2 + known, rng)
    future = rng.normal(size=(3, 70, known)) if known else None
    found = model.forecast(history, 70, future)
    assert found.shape == ((3, 70, 2, 3) if kind == "quantile" else (3, 70, 2))
    for i, one in enumerate(history):
        values = found[i, ..., 1] if kind == "quantile" else found[i]  # 0.4 is nearest to the median
        own_future = None if future is None else future[i]
        np.testing.assert_allclose(found[i], fed(model, one, own_future, values), rtol=1e-9, atol=1e-9)


@backend_names
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
def test_a_step_is_what_predict_says(pattern: str, kind: str, backend: str, rng: np.random.Generator):
    model = model_of(kind=kind, pattern=pattern, backend=backend)
    history = history_of(3, rng)
    expected = model.predict(history)
    last = expected if pattern == "many-to-one" else [one[-1] for one in expected]
    for future in (None, np.zeros((3, 0, 2)), np.zeros((3, 1, 2))):
        found = model.forecast(history, 1, future)[:, 0]
        np.testing.assert_allclose(found, last, rtol=0 if backend != "numpy" else 1e-12)


@backend_names
@pytest.mark.parametrize(
    "options",
    [{"leak": 0.3}, {"leak": 0.3, "form": "potential"}, {"learn_h_0": True}, {"nonlinearity": "relu"}],
    ids=str,
)
def test_other_layers(options: dict[str, Any], backend: str, rng: np.random.Generator):
    model = model_of(num_layers=2, backend=backend, **options)
    history, future = history_of(3, rng), rng.normal(size=(3, 5, KNOWN))
    found = model.forecast(history, 5, future)
    for i, one in enumerate(history):
        np.testing.assert_allclose(found[i], fed(model, one, future[i], found[i]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["cython", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_series_do_not_depend_on_each_other(kind: str, backend: str, dtype: str, rng: np.random.Generator):
    model = model_of(kind=kind, dtype=dtype, backend=backend)
    history, future = history_of(3, rng, (4, 1, 9, 9, 2)), rng.normal(size=(5, 6, KNOWN))
    paths: dict[str, Any] = {"n_samples": 3, "seed": 7} if kind in DRAWN else {}
    found = model.forecast(history, 6, future, **paths)
    assert found.dtype == dtype
    np.testing.assert_array_equal(model.forecast(history, 6, future, batch_size=2, **paths), found)
    np.testing.assert_array_equal(model.forecast(history[:3], 6, future[:3], **paths), found[:3])
    others = [*(one + 1 for one in history[:4]), history[4]]
    np.testing.assert_array_equal(model.forecast(others, 6, future, **paths)[4], found[4])
    together = np.array([history[2], history[3]])  # one array
    expected = model.forecast(history[2:4], 6, future[2:4], **paths)
    np.testing.assert_array_equal(model.forecast(together, 6, future[2:4], **paths), expected)


@backend_names
@pytest.mark.parametrize("of_inputs", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "absolute_error"])
def test_forecasts_are_in_the_units_of_the_data(kind: str, of_inputs: bool, backend: str, rng: np.random.Generator):
    """Whichever scalers there are; what is fed back is converted from one to the other."""
    are_counts = kind in ("poisson", "negative_binomial")
    inputs = elman.Scaler(mean=[50, -3, 0], scale=[9, 2, 0.1]) if of_inputs else None
    outputs = None if are_counts else elman.Scaler(mean=[40], scale=[7])
    kinds = elman.Features(3, scaler=inputs), elman.Reals(1, scaler=outputs, **KINDS[kind])
    model = elman.SequenceModel(*kinds, hidden_size=6, seed=0, dtype="float64", backend=backend)
    history, future = history_of(3, rng), rng.normal(size=(3, 70, KNOWN))
    found = model.forecast(history, 70, future)
    for i, one in enumerate(history):
        values = found[i, ..., 1] if kind == "quantile" else found[i]
        np.testing.assert_allclose(found[i], fed(model, one, future[i], values), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(model.forecast(history, 1)[:, 0], found[:, 0])
    if kind in DRAWN:
        paths = model.forecast(history, 5, future[:, :5], n_samples=2, seed=0)
        for i, own in enumerate(np.random.default_rng(0).spawn(3)):
            stream, uniforms = model.stream(), None if are_counts else own.random((5, 2, 1, 2))
            laws = [distribution_of(model, stream, history[i])]
            laws += [distribution_of(model, stream, np.r_[paths[i, 1, k], future[i, k]][None]) for k in range(4)]
            for k, law in enumerate(laws):
                mean, scale = law["mean"][0][-1], law.get("scale", [[1]])[0][-1]
                z = (paths[i, 1, k] - mean) / scale
                if kind == "normal":
                    assert uniforms is not None
                    r2, turn = -2 * np.log1p(-uniforms[k, 1, 0, 0]), np.cos(2 * np.pi * uniforms[k, 1, 0, 1])
                    np.testing.assert_allclose(z, np.sqrt(r2) * turn, rtol=1e-6, atol=1e-9)
                assert abs(z) < 30


def test_what_is_generated_is_in_the_units_of_the_data(rng: np.random.Generator):
    inputs, outputs = elman.Scaler(mean=[50, -3], scale=[9, 2]), elman.Scaler(mean=[40, 0], scale=[7, 0.5])
    start = [rng.normal(50, 9, size=(n, 2)) for n in (3, 1)]
    for kind in (elman.Reals(2, scaler=outputs), elman.Reals(2), elman.Binary(2), elman.Categories(2)):
        model = elman.SequenceModel(
            elman.Features(2, scaler=inputs), kind, hidden_size=6, seed=0, dtype="float64", backend="cython"
        )
        found = model.generate(start, 5, temperature=0)
        for one, drawn in zip(start, found, strict=True):
            steps = np.eye(2)[drawn] if isinstance(kind, elman.Categories) else drawn.astype(float)
            np.testing.assert_allclose(fed(model, one, None, steps), drawn, rtol=1e-9, atol=1e-9)


def test_the_future_is_that_of_its_step(rng: np.random.Generator):
    model, history, future = model_of(), history_of(3, rng), rng.normal(size=(3, 5, KNOWN))
    found = model.forecast(history, 5, future)
    np.testing.assert_array_equal(model.forecast(history, 5, future[:, :4]), found)
    np.testing.assert_array_equal(model.forecast(history, 5, future.astype("f4")[:, :4]).round(4), found.round(4))
    future[:, 2] += 1
    changed = (model.forecast(history, 5, future) != found).all(axis=(0, 2))
    assert changed.tolist() == [False, False, False, True, True]
    future[:, 4] = 99  # from which nothing is predicted
    assert model.forecast(history, 5, future).tolist() != found.tolist()
    np.testing.assert_array_equal(model.forecast(history, 5, future), model.forecast(history, 5, future[:, :4]))
    future[:, 4] = np.nan  # or not known yet
    np.testing.assert_array_equal(model.forecast(history, 5, future), model.forecast(history, 5, future[:, :4]))


@backend_names
@pytest.mark.parametrize("kind", ["normal", "student_t"])
def test_paths_are_drawn_with_numbers_of_their_own(kind: str, backend: str, rng: np.random.Generator):
    """Each value is the quantile-like function of two uniform numbers that Box & Muller, and Bailey, have."""
    model, n = model_of(2, kind=kind, backend=backend), 4
    history, future = history_of(4, rng), rng.normal(size=(3, 66, KNOWN))
    paths = model.forecast(history, 66, future, n_samples=n, seed=5)
    assert paths.shape == (3, n, 66, 2)
    for i, own in enumerate(np.random.default_rng(5).spawn(3)):
        uniforms = np.concatenate([own.random((steps, n, 2, 2)) for steps in (64, 2)])
        for s in range(n):
            stream = model.stream()
            x = history[i]
            for k in range(66):
                laws = {name: value[0][-1] for name, value in distribution_of(model, stream, x).items()}
                r2, turn = -2 * np.log1p(-uniforms[k, s, :, 0]), np.cos(2 * np.pi * uniforms[k, s, :, 1])
                if kind == "student_t":
                    r2 = laws["df"] * np.expm1(r2 / laws["df"])
                np.testing.assert_allclose(paths[i, s, k], laws["mean"] + laws["scale"] * np.sqrt(r2) * turn, rtol=1e-6)
                x = np.concatenate([paths[i, s, k], future[i, k]])[None]


def distribution_of(model: Any, stream: Any, x: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Parameters of the distributions that a stream predicts, (1, T, n)."""
    parameters = stream._run(x, lambda o: model.outputs.parameters(o)[0], None, None)
    _, names = model.outputs.parameters(np.zeros((1, model.outputs.n_units)))
    return {name: [parameters[..., i]] for i, name in enumerate(names)}


@backend_names
@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
def test_paths_of_counts(kind: str, backend: str, rng: np.random.Generator):
    model, n = model_of(kind=kind, backend=backend), 3
    history, future = history_of(3, rng), rng.normal(size=(3, 4, KNOWN))
    paths = model.forecast(history, 4, future, n_samples=n, seed=5)
    assert (paths == paths.round()).all()
    for i, own in enumerate(np.random.default_rng(5).spawn(3)):
        streams, x = [model.stream() for _ in range(n)], [history[i]] * n
        for k in range(4):
            laws = [distribution_of(model, stream, one) for stream, one in zip(streams, x, strict=True)]
            mean, *rest = (np.array([one[name][0][-1] for one in laws]) for name in laws[0])
            drawn = own.poisson(mean) if not rest else own.negative_binomial(1 / rest[0], 1 / (1 + rest[0] * mean))
            np.testing.assert_array_equal(paths[i, :, k], drawn)
            x = [np.concatenate([one, future[i, k]])[None] for one in drawn]


def test_paths_have_the_distribution_that_is_predicted(rng: np.random.Generator):
    stats = pytest.importorskip("scipy.stats")
    history = history_of(3, rng)
    for kind, law in (("normal", stats.norm), ("student_t", stats.t)):
        model = model_of(kind=kind, dtype="float32")
        first = model.forecast(history, 1, n_samples=3000, seed=1)[:, :, 0, 0]
        laws = model.predict_distribution(history)
        for i, drawn in enumerate(first):
            own = {name: value[i][-1, 0] for name, value in laws.items()}
            fitting = law(own["mean"], own["scale"]) if kind == "normal" else law(own["df"], own["mean"], own["scale"])
            assert stats.kstest(drawn, fitting.cdf).pvalue > 1e-3


def test_seeds(rng: np.random.Generator):
    model, history = model_of(known=0, kind="normal"), history_of(1, rng)
    found = model.forecast(history, 3, n_samples=2, seed=3)
    np.testing.assert_array_equal(model.forecast(history, 3, n_samples=2, seed=np.random.default_rng(3)), found)
    assert (model.forecast(history, 3, n_samples=2, seed=4) != found).all()
    assert (model.forecast(history, 3, n_samples=2) != model.forecast(history, 3, n_samples=2)).all()
    own = np.random.default_rng(3)
    first, second = (model.forecast(history, 3, n_samples=2, seed=own) for _ in range(2))
    assert (first == found).all()
    assert (second != found).all()
    assert len(np.unique(found)) == found.size


def test_one_of_everything():
    model = model_of(known=0, hidden_size=1)
    assert model.forecast(np.ones((1, 1, 1)), 1).shape == (1, 1, 1)
    model = model_of(known=0, hidden_size=1, kind="normal")
    assert model.forecast(np.ones((1, 1, 1)), 1, n_samples=1).shape == (1, 1, 1, 1)
    reference = elman.reference.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=1, seed=0)
    assert reference.forecast(np.ones((1, 1, 1)), 2).shape == (1, 2, 1)


def test_forecasting_changes_nothing(tmp_path: Path, rng: np.random.Generator):
    model, history = model_of(known=0, kind="normal"), history_of(1, rng)
    before, copies = pickle.dumps(model), [one.copy() for one in history]
    found = model.forecast(history, 5, n_samples=2, seed=0)
    assert pickle.dumps(model) == before
    np.testing.assert_array_equal(np.concatenate(history), np.concatenate(copies))
    model.save(tmp_path / "model.safetensors")
    loaded = elman.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.forecast(history, 5, n_samples=2, seed=0), found)


@backend_names
def test_a_forecast_that_diverges(backend: str):
    model = model_of(known=0, hidden_size=1, nonlinearity="identity", dtype="float32", backend=backend)
    for array in model.parameters().values():
        array[...] = 1
    with np.errstate(all="ignore"):
        with pytest.raises(FloatingPointError, match=r"the forecast of history\[1\] at step 6 is inf"):  # it doubles
            model.forecast([[[0.0]], [[1e37]]], 9)
        model.parameters()["bias_o"][:] = np.nan
        with pytest.raises(FloatingPointError, match=r"the forecast of history\[0\] at step 0 is nan"):
            model.forecast([[[0.0]]], 9)
    counts = model_of(kind="poisson", known=0, backend=backend)
    counts.parameters()["bias_o"][:] = 1e20
    with pytest.raises(FloatingPointError, match=r"the forecast of history\[0\] at step 0 is inf"):
        counts.forecast([[[0.0]]], 9, n_samples=2)


@backend_names
def test_ctrl_c_is_answered(backend: str, monkeypatch: pytest.MonkeyPatch):
    """Between the calls of a kernel, each of so many steps."""
    model, calls = model_of(known=0, backend=backend), []

    class Backend:
        def __getattr__(self, name: str) -> Any:
            return getattr(own, name)

        def generate(self, g: Any) -> Any:
            calls.append(len(g.drawn))
            if len(calls) == 2:
                signal.raise_signal(signal.SIGINT)
            return own.generate(g)

    own = elman.backends.get(backend)
    network = model._network
    mode = network.mode()
    monkeypatch.setattr(type(network), "mode", lambda _: mode._replace(backend=Backend()))
    with pytest.raises(KeyboardInterrupt):
        model.forecast([[[0.0]]], 10**6)
    assert calls == [generation._CHUNK] * len(calls)
    assert len(calls) == 2


def wrong_forecasts() -> Iterator[tuple[Any, str]]:
    X, F = np.zeros((2, 3, 3)), np.zeros((2, 4, 2))
    model = model_of()
    yield lambda: model.forecast(X[0], 4, F), "history must have shape (N, T, 3), got (3, 3)"
    yield lambda: model.forecast([X[0], X[1, :, :2]], 4, F), "history[1] must have shape (T, 3), got (3, 2)"
    yield lambda: model.forecast([X[0], X[1] * np.nan], 4, F), "history[1] must be finite, got nan at [0, 0]"
    yield lambda: model.forecast([], 4, F), "history must hold at least one sequence"
    yield lambda: model.forecast(X, 0, F), "steps must be a positive int, got 0"
    yield lambda: model.forecast(X, 4), "future must be given for the last 2 of the inputs, which are not predicted"
    yield lambda: model.forecast(X, 4, F[:1]), "future must have shape (2, 4, 2) or (2, 3, 2), got (1, 4, 2)"
    yield lambda: model.forecast(X, 6, F), "future must have shape (2, 6, 2) or (2, 5, 2), got (2, 4, 2)"
    yield lambda: model.forecast(X, 4, F * np.inf), "future must be finite, got nan at [0, 0, 0]"
    yield lambda: model.forecast(X, 4, "abc"), "future must hold float32 or float64"
    yield (
        lambda: model.forecast(X, 4, F, n_samples=2),
        "n_samples must be None where outputs are no distribution, got 2",
    )
    yield lambda: model.forecast(X, 4, F, batch_size=0), "batch_size must be a positive int, got 0"
    yield lambda: model.forecast(X, 4, F, seed=-1), "seed must not be negative, got -1"
    yield lambda: model_of(known=0).forecast(X[..., :1], 4, F), "future must be None where all inputs are predicted"
    drawn = model_of(kind="normal")
    yield lambda: drawn.forecast(X, 4, F, n_samples=0), "n_samples must be a positive int, got 0"
    yield lambda: drawn.forecast(X, 4, F, n_samples=2**62), "n_samples must be a positive int below 2**31, got"
    for outputs in (elman.Reals(4), elman.Categories(3), elman.Binary(1)):
        other = elman.SequenceModel(elman.Features(3), outputs, hidden_size=2)
        yield (
            lambda other=other: other.forecast(X, 4),
            "forecast needs Features, the first of which are what Reals predict",
        )
    tokens = elman.SequenceModel(elman.Tokens(3), elman.Reals(1), hidden_size=2)
    yield lambda: tokens.forecast([[0]], 4), "forecast needs Features"
    yield lambda: model_of(known=0, pattern="one-to-many").forecast(X, 4), "forecast needs inputs at each step, got"
    for options in ({"bidirectional": True}, {"reverse": True}):
        backwards = model_of(**options)
        yield lambda model=backwards: model.forecast(X, 4, F), "forecast is not possible with"


def test_wrong_forecasts():
    for call, message in wrong_forecasts():
        with pytest.raises((TypeError, ValueError)) as error, np.errstate(invalid="ignore"):
            call()
        assert str(error.value).startswith(message)


# Many sequences generated side by side


def many() -> dict[str, tuple[Any, list[Any], dict[str, Any]]]:
    """A model, sequences to go on with, and options."""
    rng = np.random.default_rng(0)
    token = {"inputs": elman.Tokens(5), "outputs": elman.Categories(5)}
    ragged = [[1], [4, 0, 2, 2], [3, 3], [0]]
    features = [rng.normal(size=(n, 2)) for n in (3, 1, 5)]
    real = {"inputs": elman.Features(2), "outputs": elman.Reals(2)}
    beside = {"inputs": elman.Features(3), "pattern": "one-to-many"}
    names = {"labels": ["a", "b", "c", "d", "e"]}
    named = {"inputs": elman.Tokens(5, **names), "outputs": elman.Categories(5, **names)}
    return {
        "tokens": (token, ragged, {}),
        "labels of tokens": (named, [["a"], list("ecb")], {}),
        "labels of tokens, to an end": (named, [["a"], list("ecb")], {"end": "c"}),
        "an embedding": ({**token, "inputs": elman.Tokens(5, embedding_dim=3)}, ragged, {}),
        "array of tokens": (token, [[1, 2], [3, 4]], {"top_k": 3, "top_p": 0.9}),
        "an end": (token, ragged, {"end": 3}),
        "greedy": (token, ragged, {"temperature": 0}),
        "labels": ({**real, "outputs": elman.Binary(2)}, features, {"temperature": 0.5}),
        "numbers": (real, features, {}),
        "one-hot": ({**real, "outputs": elman.Categories(2)}, features, {}),
        "one-to-many, tokens": ({**token, "pattern": "one-to-many"}, ragged, {}),
        "one-to-many, categories": ({**beside, "outputs": elman.Categories(4)}, [*np.eye(3)], {"end": 2}),
        "one-to-many, labels": ({**beside, "outputs": elman.Binary(4)}, [*np.eye(3)], {}),
    }


def generated(name: str, backend: str) -> tuple[elman.SequenceModel, list[Any], dict[str, Any]]:
    kinds, start, options = many()[name]
    model = elman.SequenceModel(**kinds, hidden_size=6, num_layers=2, seed=0, backend=backend)
    for array in model.parameters().values():
        array *= 3
    return model, start, options


def assert_same(found: Any, expected: Any, *, exactly: bool) -> None:
    """The same numbers, in the same lists and arrays."""
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, exactly=exactly)
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if found.dtype.kind == "U":
        np.testing.assert_array_equal(found, expected)
        return
    np.testing.assert_allclose(found, expected, rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-4)


@backend_names
@pytest.mark.parametrize("n_samples", [None, 1, 3])
@pytest.mark.parametrize("name", many())
def test_many_are_as_each_alone(name: str, n_samples: int | None, backend: str):
    model, start, options = generated(name, backend)
    options = {**options, "n_samples": n_samples}
    found = model.generate(start, 70, seed=7, **options)
    own = np.random.default_rng(7).spawn(len(start))
    each = [model.generate(one, 70, seed=rng, **options) for one, rng in zip(start, own, strict=True)]
    if "end" not in options:
        assert found.shape[: 1 + bool(n_samples)] == ((len(start), n_samples) if n_samples else (len(start),))
        each = np.array(each)
    assert_same(found, each, exactly=backend != "numpy")
    again = model.generate(start, 70, seed=7, batch_size=2, **options)
    assert_same(again, found, exactly=backend != "numpy")
    assert_same(model.generate(start, 0, seed=7, **options), model.generate(start, 0, **options), exactly=True)


@backend_names
def test_ends_are_their_own(backend: str):
    """What is drawn before an end is what is drawn without one."""
    model, start, _ = generated("an end", backend)
    whole = model.generate(start, 200, seed=3, n_samples=4)
    found = model.generate(start, 200, seed=3, n_samples=4, end=3)
    lengths = []
    for row, each in zip(whole, found, strict=True):
        for one, ended in zip(row, each, strict=True):
            n = [*one, 3].index(3)
            assert ended.tolist() == one[:n].tolist()
            lengths.append(n)
    assert len(set(lengths)) > 5


def test_samples_are_different_and_the_first_is_that_without():
    model, start, _ = generated("tokens", "cython")
    found = model.generate(start[1], 30, seed=0, n_samples=5)
    assert found.shape == (5, 30)
    assert len({tuple(one) for one in found}) == 5
    np.testing.assert_array_equal(
        model.generate(start[1], 30, seed=0, n_samples=1)[0], model.generate(start[1], 30, seed=0)
    )


def test_many_outputs_that_are_not_finite():
    model, start, _ = generated("numbers", "cython")
    model.parameters()["bias_o"][1] = np.inf
    with pytest.raises(FloatingPointError, match=r"the largest output of start\[1\] at step 0 is inf"):
        model.generate(start, 3)


# Rolling origins


def test_nothing_comes_from_behind_an_origin(rng: np.random.Generator):
    model, series = model_of(), history_of(3, rng, (30, 22, 11))
    found = elman.backtest(model, series, 4, first=10, every=5)
    assert [*zip(found.series.tolist(), found.origins.tolist(), strict=True)] == [
        *((0, origin) for origin in (10, 15, 20, 25)),
        *((1, origin) for origin in (10, 15)),
    ]
    for k, (i, origin) in enumerate(zip(found.series, found.origins, strict=True)):
        changed = [one.copy() for one in series]
        for one in changed[: i + 1]:
            one[origin:, 0] += 1 + rng.random(len(one) - origin)
        again = elman.backtest(model, changed, 4, first=10, every=5)
        np.testing.assert_array_equal(again.forecasts[k], found.forecasts[k])
        np.testing.assert_array_equal(found.actual[k], series[i][origin : origin + 4, :1])
        expected = model.forecast([series[i][:origin]], 4, series[i][None, origin : origin + 4, 1:])[0]
        np.testing.assert_allclose(found.forecasts[k], expected, rtol=1e-12)


def test_errors_by_step(rng: np.random.Generator):
    """By scalar loops, of Hyndman & Koehler (2006)."""
    model, series, season = model_of(2), history_of(4, rng, (30, 22)), 3
    found = elman.backtest(model, series, 4, first=10, every=5, season=season)
    for step in range(4):
        absolute, squared, scaled = [], [], []
        for k, (i, origin) in enumerate(zip(found.series, found.origins, strict=True)):
            for j in range(2):
                error = abs(found.forecasts[k, step, j] - series[i][origin + step, j])
                naive = [abs(series[i][t, j] - series[i][t - season, j]) for t in range(season, origin)]
                absolute.append(error)
                squared.append(error**2)
                scaled.append(error / (sum(naive) / len(naive)))
        assert found.mae[step] == pytest.approx(np.mean(absolute))
        assert found.rmse[step] == pytest.approx(np.mean(squared) ** 0.5)
        assert found.mase[step] == pytest.approx(np.mean(scaled))
    assert repr(found).startswith("Backtest of 6 forecasts of 4 steps: mae ")


class Naive:
    """The last value again, of the first column."""

    def forecast(self, history: list[np.ndarray], steps: int) -> np.ndarray:
        return np.repeat([one[-1:, :1] for one in history], steps, axis=1)


def test_models_of_other_kinds(rng: np.random.Generator):
    series = [np.arange(20.0)[:, None] * [[2, 5]], np.arange(12.0)[:, None] * [[3, 5]]]
    found = elman.backtest(Naive(), series, 3, first=8)
    np.testing.assert_allclose(found.mase, [1, 2, 3])
    steady = elman.backtest(Naive(), np.zeros((1, 9, 1)), 1, first=8)
    assert np.isnan(steady.mase)
    quantiles = elman.backtest(model_of(kind="quantile"), history_of(3, rng, (20,)), 3, first=8)
    assert quantiles.forecasts.shape == (10, 3, 1)


@pytest.mark.parametrize(("refit", "expected"), [(None, [5]), (1, [5, 7, 9, 11]), (3, [5, 11])])
def test_models_that_are_fitted_again(refit: int | None, expected: list[int], rng: np.random.Generator):
    series, known = history_of(1, rng, (14, 9)), []

    def fitted(histories: list[np.ndarray]) -> elman.SequenceModel:
        known.append([len(one) for one in histories])
        model = elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=2, seed=0)
        pairs = [one[:-1] for one in histories], [one[1:] for one in histories]
        model.fit(*pairs, epochs=1, progress=False)
        return model

    found = elman.backtest(fitted, series, 3, first=5, every=2, refit=refit)
    assert known == [[origin, min(origin, 9)] for origin in expected]
    assert found.origins.tolist() == [5, 7, 9, 11, 5]
    one = fitted([row[: expected[-1]] for row in series])
    np.testing.assert_allclose(found.forecasts[3], one.forecast([series[0][:11]], 3)[0], rtol=1e-5)


def test_a_picture(tmp_path: Path, rng: np.random.Generator):
    pytest.importorskip("matplotlib")
    found = elman.backtest(model_of(), history_of(3, rng, (20, 30)), 3, first=8)
    figure = found.plot(tmp_path / "backtest.png")
    assert (tmp_path / "backtest.png").read_bytes()[1:4] == b"PNG"
    errors = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}
    np.testing.assert_array_equal(errors["MAE"], found.mae)


def wrong_backtests() -> Iterator[tuple[Any, str]]:
    X, model = np.zeros((2, 10, 3)), model_of()
    yield (
        lambda: elman.backtest(model, X, 3, first=8),
        "series must have at least first + steps = 11 steps, got at most 10",
    )
    yield lambda: elman.backtest(model, X[0], 3, first=5), "series[0] must have shape (T, n), got (3,)"
    yield lambda: elman.backtest(model, [*X, X[0] * np.nan], 3, first=5), "series[2] must be finite, got nan at [0, 0]"
    yield (
        lambda: elman.backtest(model, X.astype(object), 3, first=5),
        "series[0] must hold numbers, got an array",
    )
    yield (
        lambda: elman.backtest(model, [X[0], X[1, :, :2]], 3, first=5),
        "series[1] must have shape (T, 3), got (10, 2)",
    )
    yield lambda: elman.backtest(model, X, 0, first=5), "steps must be a positive int, got 0"
    yield lambda: elman.backtest(model, X, 3, first=5, every=0), "every must be a positive int, got 0"
    yield lambda: elman.backtest(model, X, 3, first=5, season=0), "season must be a positive int, got 0"
    yield lambda: elman.backtest(model, X, 3, first=5, season=5), "first must be more than season, got 5 and 5"
    yield (
        lambda: elman.backtest(model, X, 3, first=5, refit=1),
        "refit must be None with a model, which is taken as it is",
    )
    yield lambda: elman.backtest(lambda _: model, X, 3, first=5, refit=0), "refit must be a positive int, got 0"
    yield lambda: elman.backtest(7, X, 3, first=5), "model must have a method forecast, or be a function that makes"
    yield lambda: elman.backtest(model, [], 3, first=5), "series must hold at least one sequence"
    yield lambda: elman.backtest(len, X, 3, first=5), "what model returns must have a method forecast, got 2"
    for shape, words in (((6, 3), "have shape (6, 3, n)"), ((6, 3, 4), "be columns of series, 3, got 4")):
        own = types.SimpleNamespace(forecast=lambda *_, shape=shape: np.zeros(shape), outputs=[])
        yield lambda own=own: elman.backtest(own, X, 3, first=5), f"what the model forecasts must {words}"


def test_wrong_backtests():
    for call, message in wrong_backtests():
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert str(error.value).startswith(message)


@backend_names
@pytest.mark.parametrize("outputs", [elman.Categories(8), elman.Binary(8)])
def test_the_least_temperature_is_not_zero(backend: str, outputs: Any):
    """Kernels' threads flush subnormal numbers, and 0 / 0 is none."""
    inputs = elman.Tokens(8) if isinstance(outputs, elman.Categories) else elman.Features(8)
    start = np.arange(8)[:3] if isinstance(inputs, elman.Tokens) else np.eye(8)[:3]
    model = elman.SequenceModel(inputs, outputs, hidden_size=4, dtype="float64", seed=1, backend=backend)
    likeliest = model.generate(start, 5, temperature=0)
    np.testing.assert_array_equal(model.generate(start, 5, temperature=5e-324, seed=0), likeliest)
