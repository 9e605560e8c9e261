"""`evaluate(metrics=)` and `fit(metrics=)`: what scikit-learn makes of the same targets and predictions."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from .ranks import on_ranks

sklearn_metrics = pytest.importorskip("sklearn.metrics")
rng = np.random.default_rng(0)
N, V = 23, 5
LENGTHS = rng.integers(1, 8, N)
X = [rng.normal(size=(n, 2)) for n in LENGTHS]
WEIGHTS = [rng.uniform(0.5, 2, n) * (rng.random(n) < 0.8) for n in LENGTHS]
OF_ROWS = rng.uniform(0.5, 2, N)


def some(make: Any, missing: Any = None) -> list[Any]:
    """Targets for each step; some are missing."""
    made = [make(n) for n in LENGTHS]
    if missing is None:
        return made
    return [np.where(rng.random(one.shape) < 0.2, missing, one) for one in made]


WEIGHTS_OF = [1, 2, 3, 4, 5]
CASES: dict[str, tuple[Any, list[Any]]] = {
    "categories": (lambda: elman.Categories(V), some(lambda n: rng.integers(V, size=n), -1)),
    "class weights": (lambda: elman.Categories(V, class_weights=WEIGHTS_OF), some(lambda n: rng.integers(V, size=n))),
    "some never there": (lambda: elman.Categories(9), some(lambda n: rng.integers(2, size=n))),
    "one label": (lambda: elman.Binary(), some(lambda n: rng.integers(2, size=(n, 1)))),
    "labels": (lambda: elman.Binary(3), some(lambda n: rng.integers(2, size=(n, 3)))),
    "one number": (lambda: elman.Reals(missing=np.nan), some(lambda n: rng.normal(size=(n, 1)), np.nan)),
    "numbers": (lambda: elman.Reals(3, loss="absolute_error"), some(lambda n: rng.normal(size=(n, 3)))),
    "counts": (lambda: elman.Reals(2, distribution="poisson"), some(lambda n: rng.poisson(3, size=(n, 2)))),
    "quantiles": (
        lambda: elman.Reals(2, loss="quantile", quantiles=(0.1, 0.5, 0.9)), some(lambda n: rng.normal(size=(n, 2)))
    ),
}  # fmt: skip


def make(outputs: Any, **options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(
        elman.Features(2), outputs, **{"hidden_size": 7, "dtype": "float64", "seed": 1, **options}
    )


def expected(name: str, y: Any, found: Any, weights: Any, model: Any, loss: float) -> float:
    """Of targets (N, ...) that are there."""
    own: dict[str, Any] = {"sample_weight": weights}
    if name == "coverage":
        inside = ((found[..., 0] <= y) & (y <= found[..., -1])).mean(axis=1)
        return float(np.average(inside, weights=weights))
    if name == "mean_pinball_loss":
        return float(
            np.mean(
                [
                    sklearn_metrics.mean_pinball_loss(y, found[..., i], alpha=q, **own)
                    for i, q in enumerate(model.outputs.quantiles)
                ]
            )
        )
    if name in ("perplexity", "bits_per_token"):
        return math.exp(loss) if name == "perplexity" else loss / math.log(2)
    if isinstance(model.outputs, elman.Binary):  # columns of their own, as scikit-learn's accuracy is of whole rows
        function = getattr(sklearn_metrics, {"f1": "f1_score"}.get(name, f"{name}_score"))
        return float(np.mean([function(y[:, i], found[:, i], **own) for i in range(y.shape[1])]))
    if name == "f1":
        return float(sklearn_metrics.f1_score(y, found, average="macro", **own))
    function = getattr(sklearn_metrics, name, None) or getattr(sklearn_metrics, f"{name}_score")
    return float(function(y, found, **own))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_values_are_scikit_learn_s(case: str, is_weighted: bool):
    outputs, Y = CASES[case]
    model, weights = make(outputs()), WEIGHTS if is_weighted else None
    y, found = np.concatenate(Y), np.concatenate(model.predict(X))
    own = np.concatenate(WEIGHTS if is_weighted else [np.ones(n) for n in LENGTHS])
    there = (y >= 0 if y.ndim == 1 else ~np.isnan(y).any(axis=1)) & (own > 0)
    names = model._network.metrics
    for batch_size in (1, 5, 128):
        values = model.evaluate(X, Y, weights=weights, batch_size=batch_size, metrics=names)
        assert list(values) == ["loss", *names]
        for name in names:
            wanted = expected(name, y[there], found[there], own[there] if is_weighted else None, model, values["loss"])
            assert values[name] == pytest.approx(wanted, rel=1e-11, abs=1e-13), name
    assert model.evaluate(X, Y, weights=weights) == model.evaluate(X, Y, weights=weights, metrics=names[:1])


def test_numbers_that_are_missing_leave_the_others():
    Y = some(lambda n: rng.normal(size=(n, 2)), np.nan)
    model = make(elman.Reals(2, missing=np.nan))
    y, found = np.concatenate(Y), np.concatenate(model.predict(X))
    there, errors = ~np.isnan(y), np.nan_to_num(y - found)
    values = model.evaluate(X, Y, metrics=model._network.metrics)
    assert values["mean_squared_error"] == pytest.approx(values["loss"], rel=1e-12)
    assert values["mean_absolute_error"] == pytest.approx(abs(errors).sum() / there.sum(), rel=1e-12)
    of_columns = np.sqrt((errors**2).sum(axis=0) / there.sum(axis=0))
    assert values["root_mean_squared_error"] == pytest.approx(of_columns.mean(), rel=1e-12)


def test_labels_are_one_from_a_half_on():
    model = make(elman.Binary(2))
    soft = some(lambda n: rng.choice([0.1, 0.4, 0.5, 0.9], size=(n, 2)))
    hard = [(y >= 0.5).astype(float) for y in soft]
    names = ["accuracy", "f1", "balanced_accuracy"]
    one, other = (model.evaluate(X, Y, metrics=names) for Y in (soft, hard))
    assert [one[name] for name in names] == [other[name] for name in names]


@pytest.mark.parametrize("backend", ["numpy", "cython", "numba"])
@pytest.mark.parametrize("case", ["categories", "one label", "one number"])
def test_functions_see_the_same(backend: str, case: str):
    """One for each sequence, and a single one, in float32."""
    outputs, Y = CASES[case]
    last = np.array([np.nan_to_num(y[-1]) for y in Y])
    model = make(outputs(), pattern="many-to-one", dtype="float32", backend=backend)
    named, functions = {
        "categories": (["accuracy"], [sklearn_metrics.accuracy_score]),
        "one label": (["f1"], {"f1": sklearn_metrics.f1_score}),
        "one number": (["mean_absolute_error"], [functools.partial(sklearn_metrics.mean_absolute_error)]),
    }[case]
    for n in (1, N):
        own: dict[str, Any] = {"weights": OF_ROWS[:n], "batch_size": 4}
        one = model.evaluate(X[:n], np.maximum(last, 0)[:n], metrics=named, **own)
        other = model.evaluate(X[:n], np.maximum(last, 0)[:n], metrics=functions, **own)
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-6)


def test_what_functions_get():
    seen: list[Any] = []

    def sees(y: Any, found: Any, weights: Any = None) -> Any:
        seen.append((y, found, weights))
        return np.array(len(y))

    shapes = {"categories": (), "one number": (), "numbers": (3,), "quantiles": (2, 3)}
    for case, rest in shapes.items():
        outputs, Y = CASES[case]
        values = make(outputs()).evaluate(X, Y, metrics=[sees, "accuracy"] if case == "categories" else [sees])
        y, found, weights = seen.pop()
        assert weights is None
        assert values["sees"] == len(y) == len(found) < sum(LENGTHS) + 1
        assert found.shape[1:] == rest
        make(outputs()).evaluate(X, Y, weights=WEIGHTS, metrics=[sees])
        y, found, weights = seen.pop()
        assert len(weights) == len(y)
        assert weights.min() > 0


def test_functions_of_sequences():
    def longer(y: Any, found: Any) -> float:
        return float(np.mean([len(own) - len(other) for own, other in zip(found, y, strict=True)]))

    labels = elman.SequenceModel(elman.Features(2), elman.Labels(3), hidden_size=5, seed=0)
    given = [[0], [1, 2], [0, 2]]
    inputs = [rng.normal(size=(6, 2)) for _ in given]
    values = labels.evaluate(inputs, given, metrics=["label_error", longer])
    assert values["longer"] == longer(given, labels.predict(inputs))
    pairs = elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=5, seed=0)
    pairs.parameters()["bias_o"][-1] = -9.0  # so that it hardly ends
    values = pairs.evaluate(given, given, metrics=[longer, "exact", "perplexity", "bits_per_token"], batch_size=2)
    assert values["longer"] == longer(given, pairs.predict(given)) > 1  # to the end
    assert values["exact"] == pairs.evaluate(given, given)["exact"]
    assert math.log(values["perplexity"]) == pytest.approx(values["loss"])
    assert values["bits_per_token"] * math.log(2) == pytest.approx(values["loss"])


def mean_error(y: Any, found: Any) -> float:
    return float((y - found).mean())


TAGS = CASES["categories"][1]


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("f1", {}, TypeError, r"metrics must be a list of names and functions, got 'f1': \['f1'\]"),
        (3, {}, TypeError, "metrics must be a list of names and functions, got 3"),
        ([3], {}, TypeError, r"metrics\[0\] must be one of 'accuracy', 'balanced_accuracy', 'f1', 'perplexity'"),
        (["f1", "r2"], {}, ValueError, r"metrics\[1\] must be one of 'accuracy', .*'bits_per_token'.*, got 'r2'"),
        (["f1", "f1"], {}, ValueError, r"other names than 'loss' and one another, got 'f1' at \[1\]"),
        ({"loss": mean_error}, {}, ValueError, "other names than 'loss'"),
        ({1: mean_error}, {}, TypeError, "metrics must have names that are text, got 1"),
        ({"f1": "f1"}, {}, TypeError, r"metrics\['f1'\] must be a function, got 'f1'"),
        ([lambda y, found: 0], {}, ValueError, r"metrics\[0\] must have a name, got .*: give a dict"),  # noqa: ARG005
        ([mean_error], {"weights": WEIGHTS}, TypeError, r"metrics\['mean_error'\] must take sample_weight"),
        ({"own": lambda y, found: "1"}, {}, TypeError, r"what metrics\['own'\] returns must be a number"),  # noqa: ARG005
    ],
)
def test_what_is_no_metric(given: Any, options: dict[str, Any], error: type[Exception], message: str):
    model = make(elman.Categories(V))
    before = model.state_dict()
    with pytest.raises(error, match=message):
        model.evaluate(X, TAGS, metrics=given, **options)
    if "own" in message:
        return
    held_out = (X, TAGS, options.get("weights"))
    with pytest.raises(error, match=message):
        model.fit(X, TAGS, metrics=given, validation_data=held_out, progress=False)
    np.testing.assert_array_equal(model.parameters()["bias_o"], before["bias_o"])


def test_metrics_of_what_is_held_out():
    with pytest.raises(ValueError, match="metrics must be None where there is neither validation_data nor validation"):
        make(elman.Categories(V)).fit(X, TAGS, metrics=["f1"], progress=False)
    model = make(elman.Categories(V))
    stopping = elman.EarlyStopping("val_perplexity", patience=1)
    metrics = ["f1", "perplexity", mean_error]
    given: dict[str, Any] = {"epochs": 4, "progress": False, "metrics": metrics, "optimizer": elman.SGD(10.0)}
    history = model.fit(X, TAGS, validation_data=(X[:9], TAGS[:9]), callbacks=[stopping], **given)
    assert list(history) == ["loss", "val_loss", "val_f1", "val_perplexity", "val_mean_error"]
    best = int(np.argmin(history["val_perplexity"]))  # the smallest: it falls
    assert best < 3
    found = model.evaluate(X[:9], TAGS[:9], metrics=metrics, batch_size=32)
    assert {f"val_{name}": value for name, value in found.items()} == {
        name: values[best] for name, values in history.items() if name != "loss"
    }


class Stop(Exception):
    pass


def test_a_run_goes_on(tmp_path: Path):
    def unknown(_: Any, __: Any) -> float:
        return math.nan

    def fail(training: Any) -> None:
        if training.epoch == 2:
            raise Stop

    given: dict[str, Any] = {"epochs": 3, "progress": False, "validation_split": 0.3, "metrics": ["f1", unknown]}
    whole, cut, later = (make(elman.Categories(V)) for _ in range(3))
    expected = whole.fit(X, TAGS, **given)
    given |= {"checkpoint": tmp_path / "run"}
    with pytest.raises(Stop):
        cut.fit(X, TAGS, **given, callbacks=[fail])
    with pytest.raises(ValueError, match=r"metrics is None here, it was \['f1', 'unknown'\] there"):
        later.fit(X, TAGS, **given | {"metrics": None}, resume=True)
    history = later.fit(X, TAGS, **given, resume=True)
    assert history["val_f1"] == expected["val_f1"]
    assert np.isnan(history["val_unknown"]).all()


def test_ranks():
    def run(comm: Any) -> Any:
        given: dict[str, Any] = {"epochs": 2, "progress": False, "metrics": ["f1", mean_error]}
        callbacks = [elman.EarlyStopping("val_f1", patience=1)]
        return dict(
            make(elman.Categories(V)).fit(X, TAGS, validation_data=(X, TAGS), callbacks=callbacks, comm=comm, **given)
        )

    expected, *_ = on_ranks(1, run)
    assert isinstance(expected, dict), expected
    assert set(expected) == {"loss", "val_loss", "val_f1", "val_mean_error"}
    assert on_ranks(3, run) == [expected] * 3


def test_many_models():
    models = [make(elman.Categories(V), seed=seed) for seed in (0, 1)]
    histories = elman.fit_many(
        models, X, TAGS, workers=1, progress=False, validation_split=0.3, metrics=[mean_error], average=0.9, epochs=2,
        accumulate=2, batch_size=2,
    )  # fmt: skip
    one = make(elman.Categories(V), seed=1)
    given: dict[str, Any] = {"validation_split": 0.3, "metrics": [mean_error], "average": 0.9, "accumulate": 2}
    assert histories[1] == one.fit(X, TAGS, **given, progress=False, epochs=2, batch_size=2)
    np.testing.assert_array_equal(one.parameters()["weight_ho"], models[1].parameters()["weight_ho"])


def test_data_that_are_read_when_they_are_needed(tmp_path: Path):
    x, y = rng.normal(size=(N, 6, 2)), rng.integers(V, size=(N, 6))
    mapped = np.memmap(tmp_path / "x", x.dtype, "w+", shape=x.shape)
    mapped[:] = x
    model = make(elman.Categories(V))
    metrics = ["balanced_accuracy", mean_error]
    assert model.evaluate(mapped, y, metrics=metrics) == model.evaluate(x, y, metrics=metrics)
