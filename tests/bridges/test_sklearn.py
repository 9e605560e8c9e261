"""`elman.sklearn`, against scikit-learn's own checks and against `SequenceModel` itself."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import elman
from elman.models.base import network_of

pytest.importorskip("sklearn")

import joblib
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import d2_pinball_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    cross_val_score,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import parametrize_with_checks

from elman.sklearn import RNNClassifier, RNNRegressor, RNNTagger

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ESTIMATORS = [RNNClassifier, RNNRegressor, RNNTagger]


# Weights are what targets count in the loss; means and deviations are of all steps alike
OF_WEIGHTS = {"check_sample_weight_equivalence_on_dense_data": "scalers know no weights"}


@parametrize_with_checks(
    [RNNClassifier(), RNNRegressor(), RNNRegressor(scale=True)],
    expected_failed_checks=lambda estimator: OF_WEIGHTS if getattr(estimator, "scale", False) else {},
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_misspelt_parameter_names_the_class_and_a_subclass_is_as_any(estimator):
    class Mine(estimator):
        pass

    class MineWithMore(Mine):
        def __init__(self, hidden_size=32, more=1):
            super().__init__(hidden_size)
            self.more = more

    with pytest.raises(TypeError, match=rf"^{estimator.__name__}\.__init__\(\) got an unexpected .* 'hiden'"):
        estimator(hiden=3)
    with pytest.raises(TypeError, match=r"Mine\.__init__\(\) got an unexpected .* 'hiden'"):
        Mine(hiden=3)
    assert clone(Mine(7, max_iter=3)).get_params() == estimator(7, max_iter=3).get_params()
    assert MineWithMore(5, more=2).get_params() == {"hidden_size": 5, "more": 2}
    assert MineWithMore(5).max_iter == 200


# Data: series (n, T, 2), and what is learned from them


def series(rng, n=40, n_steps=6, dtype="float64"):
    return rng.normal(size=(n, n_steps, 2)).astype(dtype)


def unequal(rng, n=40, dtype="float64"):
    return [rng.normal(size=(n_steps, 2)).astype(dtype) for n_steps in rng.integers(1, 9, n)]


def targets(estimator, X):
    """What fits the estimator, of sequences (T_i, 2)."""
    if isinstance(estimator, RNNTagger) or estimator is RNNTagger:
        return [np.where(x[:, 0] > 0, "up", "down") for x in X]
    sums = np.array([x.sum() for x in X])
    return sums if isinstance(estimator, RNNRegressor) or estimator is RNNRegressor else np.where(sums > 0, "b", "a")


def flat(predictions):
    return np.concatenate([np.atleast_1d(each) for each in predictions])


def parameters(estimator):
    return network_of(estimator.model_).parameters.flat


# What it computes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [series, unequal])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_is_the_same_as_a_sequence_model(kind, make, dtype, rng):
    X = make(rng, dtype=dtype)
    y = targets(kind, X)
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "recurrent_dropout": 0.1}
    estimator = kind(7, learning_rate_init=0.01, weight_decay=0.1, max_iter=5, batch_size=16, random_state=3, **options)
    estimator.fit(X, y)

    Y, outputs = y, elman.Reals(1)
    if kind is not RNNRegressor:
        Y = [np.searchsorted(estimator.classes_, each) for each in y]
        outputs = elman.Categories(2)
    pattern = "many-to-many" if kind is RNNTagger else "many-to-one"
    seed = check_random_state(3).randint(2**31 - 1)
    model = elman.SequenceModel(
        elman.Features(2), outputs, pattern=pattern, hidden_size=7, dtype=dtype, seed=seed, **options
    )
    optimizer = elman.AdamW(0.01, weight_decay=0.1)
    history = model.fit(X, Y, epochs=5, batch_size=16, optimizer=optimizer, clip_norm=1.0, progress=False)
    assert estimator.loss_curve_ == history["loss"]
    assert estimator.best_loss_ == min(history["loss"])
    assert parameters(estimator).dtype == dtype
    np.testing.assert_array_equal(parameters(estimator), network_of(model).parameters.flat)
    expected = model.predict(X)
    if kind is RNNRegressor:
        np.testing.assert_array_equal(estimator.predict(X), expected[:, 0])
        return
    np.testing.assert_array_equal(flat(estimator.predict(X)), estimator.classes_[flat(expected)])
    for found, probabilities in zip(estimator.predict_proba(X), model.predict_proba(X), strict=True):
        np.testing.assert_array_equal(found, probabilities)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_forms_of_the_same_data(kind, rng):
    X = rng.normal(size=(20, 5, 1))
    y = targets(kind, X)
    fitted = kind(4, max_iter=3, random_state=0).fit(X, y)
    nested = np.empty(20, dtype=object)
    nested[:] = list(X)
    for form in (list(X), X.tolist(), tuple(X), nested, np.asfortranarray(X), X[..., 0], X[..., 0].tolist()):
        again = kind(4, max_iter=3, random_state=0).fit(form, y)
        np.testing.assert_array_equal(parameters(again), parameters(fitted))
        np.testing.assert_array_equal(flat(again.predict(form)), flat(fitted.predict(X)))
    assert fitted.n_features_in_ == 1
    assert again.n_features_in_ == 5
    integers = kind(4, max_iter=1).fit(np.arange(40).reshape(20, 2, 1) % 3, targets(kind, X[:, :2]))
    assert parameters(integers).dtype == "float64"


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_series_of_one_number_at_each_step(kind, rng):
    X = [x[:, :1] for x in unequal(rng)]
    y = targets(kind, [np.repeat(x, 2, axis=1) for x in X])
    fitted = kind(4, max_iter=3, random_state=0).fit(X, y)
    for form in (lambda x: x[:, 0], lambda x: x[:, 0].tolist(), lambda x: tuple(x[:, 0].tolist())):
        again = kind(4, max_iter=3, random_state=0).fit([form(x) for x in X], y)
        np.testing.assert_array_equal(parameters(again), parameters(fitted))
        np.testing.assert_array_equal(flat(again.predict([form(x) for x in X])), flat(fitted.predict(X)))
        assert again.n_features_in_ == 1
    equal = rng.normal(size=(5, 6))
    expected = flat(fitted.predict(equal[..., None]))
    for form in (equal, list(equal), equal.tolist()):
        np.testing.assert_array_equal(flat(again.predict(form)), expected)
    with pytest.raises(ValueError, match=r"^X\[1\] must have shape \(T,\), got \(3, 1\)"):
        again.predict([np.zeros(4), np.zeros((3, 1))])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_series_of_other_lengths_than_in_training(kind, rng):
    """Where these happened to be equally long: a list holds series still, as a part of it may in cross-validation."""
    X = rng.normal(size=(8, 6))
    others = [*X[:2], X[2, :3], X[3, :1]]
    expected = kind(4, max_iter=2, random_state=0).fit(X[..., None], y := targets(kind, X[..., None]))
    for form in (X, list(X), X.tolist()):
        fitted = kind(4, max_iter=2, random_state=0).fit(form, y)
        for some in (others, others[2:3], others[:2]):
            columns = [x[:, None] for x in some]
            np.testing.assert_array_equal(flat(fitted.predict(some)), flat(expected.predict(columns)))
            np.testing.assert_array_equal(flat(fitted.predict(columns)), flat(expected.predict(columns)))
        with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 6 features"):
            fitted.predict(X[:, :3])
        with pytest.raises(ValueError, match="X must have 1 features at each step, as in training, got 2"):
            fitted.predict(np.zeros((2, 6, 2)))


def test_no_copies(rng):
    classifier = RNNClassifier(4, max_iter=1)
    for X in (series(rng), series(rng, dtype="float32"), rng.normal(size=(9, 5))):
        assert np.shares_memory(classifier._sequences(X, reset=True), X)


WORDS = ["good", "bad", "film", "the", "not"]


def reviews(rng, n=60, words=WORDS):
    return [[words[i] for i in rng.integers(0, len(words), length)] for length in rng.integers(1, 9, n)]


def judged(kind, X):
    """What fits the estimator, of sequences of words."""
    if kind is RNNTagger:
        return [["noun" if word == "film" else "other" for word in x] for x in X]
    counts = np.array([x.count("good") for x in X])
    return counts if kind is RNNRegressor else np.where(counts > 0, "yes", "no")


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_words_are_the_tokens_of_a_sequence_model(kind, rng):
    X = reviews(rng)
    y = judged(kind, X)
    estimator = kind(7, max_iter=5, batch_size=16, random_state=3).fit(X, y)
    Y, outputs = y, elman.Reals(1)
    if kind is not RNNRegressor:
        Y, outputs = [np.searchsorted(estimator.classes_, each) for each in y], elman.Categories(2)
    pattern, seed = "many-to-many" if kind is RNNTagger else "many-to-one", check_random_state(3).randint(2**31 - 1)
    model = elman.SequenceModel(elman.Tokens(6), outputs, pattern=pattern, hidden_size=7, seed=seed)
    model.parameters()["weight_ih_l0"][:, 5] = 0
    codes = [np.searchsorted(sorted(WORDS), x) for x in X]
    history = model.fit(
        codes, Y, epochs=5, batch_size=16, optimizer=elman.AdamW(1e-3, weight_decay=0.0), clip_norm=1.0, progress=False
    )
    assert estimator.loss_curve_ == history["loss"]
    np.testing.assert_array_equal(parameters(estimator), network_of(model).parameters.flat)
    nested = np.empty(len(X), dtype=object)
    nested[:] = X
    for form in (X, tuple(X), nested, [np.array(x) for x in X], [np.array(x, object) for x in X]):
        again = kind(7, max_iter=5, batch_size=16, random_state=3).fit(form, y)
        np.testing.assert_array_equal(parameters(again), parameters(estimator))
        np.testing.assert_array_equal(flat(again.predict(form)), flat(estimator.predict(X)))
    numbers = kind(7, max_iter=5, batch_size=16, random_state=3, tokens=True).fit([c.tolist() for c in codes], y)
    np.testing.assert_array_equal(parameters(numbers), parameters(estimator))
    np.testing.assert_array_equal(flat(numbers.predict(codes)), flat(estimator.predict(X)))
    assert numbers.n_features_in_ == estimator.n_features_in_ == 1
    table = np.array([x[:1] * 3 for x in X])
    np.testing.assert_array_equal(flat(estimator.predict(table)), flat(estimator.predict(table.tolist())))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_words_that_training_has_not_seen(kind, rng, tmp_path):
    X = reviews(rng)
    y, options = judged(kind, X), {"max_iter": 100, "learning_rate_init": 0.02, "random_state": 0}
    estimator = kind(8, early_stopping=True, weight_decay=0.1, bidirectional=True, **options).fit(X, y)
    assert estimator.score(X, y) > 0.8
    weights = estimator.model_.parameters()
    assert not weights["weight_ih_l0"][:, -1].any()
    assert not weights["weight_ih_l0_reverse"][:, -1].any()
    np.testing.assert_array_equal(flat(estimator.predict([["fil", "good"]])), flat(estimator.predict([["?", "good"]])))
    other = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(flat(other.predict([["?", "good"]])), flat(estimator.predict([["?", "good"]])))
    estimator.model_.save(tmp_path / "model")
    loaded = elman.load(tmp_path / "model").predict([["?", "good"]])
    np.testing.assert_array_equal(flat(loaded), flat(estimator.model_.predict([["?", "good"]])))
    before, more = parameters(estimator).copy(), ["good", "never"]
    own = {} if kind is RNNRegressor else {"classes": estimator.classes_}
    estimator.set_params(early_stopping=False).partial_fit(
        [more], [y[0][:1] * 2] if kind is RNNTagger else y[:1], **own
    )
    assert (parameters(estimator) != before).any()
    assert "never" not in estimator.model_.inputs.labels
    letters = kind(8, **options).fit(
        ["".join(x) for x in X],
        judged(kind, X) if kind is not RNNTagger else [["o" if c == "o" else "other" for c in "".join(x)] for x in X],
    )
    assert letters.model_.inputs.labels[:3] == ("a", "b", "d")
    search = GridSearchCV(kind(8, max_iter=3, tokens=True, random_state=0), {"hidden_size": [4, 6]}, cv=2)
    assert search.fit(X, y).best_params_["hidden_size"] in (4, 6)
    with pytest.raises(TypeError, match=r"^tokens must be True or False, got 'yes'"):
        kind(tokens="yes").fit(X, y)
    with pytest.raises(ValueError, match=r"^X\[1\] must not have an empty axis"):
        estimator.predict([["good"], []])
    for text in ("good film", "good", np.str_("good film")):
        with pytest.raises(TypeError, match=rf"^X\[1\] must be a sequence of labels, got '{text}': .* '{text}'\.split"):
            estimator.predict([["good"], text])


def test_learns_series_and_tags(rng):
    X = unequal(rng, 300)
    for kind in ESTIMATORS:
        y = targets(kind, X)
        estimator = kind(16, learning_rate_init=0.01, random_state=0).fit(X[:200], y[:200])
        assert estimator.score(X[200:], y[200:]) > 0.85


@pytest.mark.parametrize(
    "labels", [["x", "longer"], [-5, 3], [False, True], [0.0, 2.0], np.array(["p", "q"], dtype=object)]
)
def test_labels_of_any_kind(labels, rng):
    X, labels = series(rng), np.asarray(labels)
    y = labels[(X.sum(axis=(1, 2)) > 0).astype(int)]
    classifier = RNNClassifier(8, learning_rate_init=0.02, random_state=0).fit(X, y)
    np.testing.assert_array_equal(classifier.classes_, np.unique(labels))
    assert classifier.classes_.dtype == classifier.predict(X).dtype == y.dtype
    assert classifier.score(X, y) > 0.9
    np.testing.assert_array_equal(
        classifier.classes_[classifier.predict_proba(X).argmax(axis=1)], classifier.predict(X)
    )
    tags = labels[(X[..., 0] > 0).astype(int)]
    tagger = RNNTagger(8, learning_rate_init=0.02, random_state=0).fit(X, tags)
    np.testing.assert_array_equal(tagger.classes_, np.unique(labels))
    assert tagger.predict(X).shape == tags.shape
    assert tagger.score(X, tags) == (tagger.predict(X) == tags).mean() > 0.9
    weights = np.arange(len(X))
    expected = np.average((tagger.predict(X) == tags).mean(axis=1), weights=weights)
    assert tagger.score(X, tags, sample_weight=weights) == pytest.approx(expected)


def test_several_outputs(rng):
    X = series(rng)
    y = np.stack([X.sum(axis=(1, 2)), X[:, -1, 0]], axis=1)
    regressor = RNNRegressor(16, learning_rate_init=0.01, random_state=0).fit(X, y)
    assert regressor.predict(X).shape == y.shape
    assert regressor.score(X, y) > 0.9
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        assert regressor.fit(X, y[:, :1]).predict(X).shape == (40,)
    large = TransformedTargetRegressor(
        RNNRegressor(learning_rate_init=0.01, random_state=0), transformer=StandardScaler()
    )
    assert large.fit(X, 1000 + 100 * y[:, 0]).score(X, 1000 + 100 * y[:, 0]) > 0.9


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_scaling_is_that_of_the_steps(kind, rng):
    """As by hand, where one can: StandardScaler takes no sequences of unequal lengths."""
    X = [3e4 + 500 * x for x in unequal(rng)]
    y = targets(kind, X)
    options = {"hidden_size": 8, "max_iter": 20, "random_state": 0}
    scaled = kind(scale=True, **options).fit(X, y)
    steps = StandardScaler().fit(np.concatenate(X))
    np.testing.assert_allclose(scaled.model_.inputs.scaler.mean, steps.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaled.model_.inputs.scaler.scale, steps.scale_, rtol=1e-12)
    if kind is not RNNRegressor:
        hand = kind(**options).fit(scaled.model_.inputs.scaler.transform(X), y)
        np.testing.assert_array_equal(parameters(scaled), parameters(hand))
    for bad in "yes", 1, None:
        with pytest.raises(TypeError, match=r"^scale must be"):
            kind(scale=bad).fit(X, y)


def test_scaled_targets(rng):
    X = 1e3 + 30 * series(rng, n=160, dtype="float32")  # of 40, eight units learn half of the noise
    y = 2e6 + 1e4 * X[:, -1, 0].astype(float)
    options = {"hidden_size": 8, "learning_rate_init": 0.03, "random_state": 0, "max_iter": 400, "tol": 1e-3}
    with pytest.warns(UserWarning, match="in elman.sklearn it is scale=True"):
        RNNRegressor(**options).fit(X, y)
    regressor = RNNRegressor(scale=True, **options).fit(X, y)
    assert regressor.score(X, y) > 0.9
    assert abs(regressor.predict(X).mean() / y.mean() - 1) < 0.01
    noisy = y + 1e5 * rng.standard_normal(len(y))
    low, high = RNNRegressor(scale=True, distribution="normal", **options).fit(X, noisy).predict_interval(X).T
    assert ((low < noisy) & (noisy < high)).mean() > 0.7
    assert 1e5 < (high - low).mean() < 1e6
    early = RNNRegressor(scale=True, early_stopping=True, **options).fit(X, y)
    assert early.model_.outputs.scaler.mean != regressor.model_.outputs.scaler.mean, "of what is trained on"
    counts = RNNRegressor(scale=True, distribution="poisson", **options).fit(X, np.round(y / 1e6))
    assert counts.model_.outputs.scaler is None is not counts.model_.inputs.scaler
    warm = RNNRegressor(scale=True, warm_start=True, **options).fit(X, y)
    first = warm.model_.inputs.scaler
    assert warm.fit(2 * X, y).model_.inputs.scaler is first
    assert clone(warm).scale
    part = RNNRegressor(scale=True, **options).partial_fit(X[:20], y[:20]).partial_fit(X[20:], y[20:])
    np.testing.assert_allclose(part.model_.outputs.scaler.mean, y[:20].mean(), rtol=1e-12)


def test_losses_and_distributions(rng):
    X = series(rng)
    y = X[:, -1, 0] + 0.1 * rng.standard_normal(len(X))
    options = {"hidden_size": 8, "learning_rate_init": 0.03, "random_state": 0, "max_iter": 100, "tol": 1e-3}
    options |= {"n_iter_no_change": 20}
    quantiles = RNNRegressor(loss="quantile", quantiles=(0.1, 0.5, 0.9), **options).fit(X, y)
    predicted = quantiles.predict(X)
    assert predicted.shape == (len(X), 3)
    expected = [d2_pinball_score(y, predicted[:, i], alpha=q) for i, q in enumerate((0.1, 0.5, 0.9))]
    assert quantiles.score(X, y) == np.mean(expected) > 0.4
    np.testing.assert_array_equal(quantiles.predict_interval(X, coverage=0.8), predicted[:, [0, 2]])
    normal = RNNRegressor(distribution="normal", **options).fit(X, np.stack([y, -y], axis=1))
    assert normal.predict_interval(X).shape == (len(X), 2, 2)
    assert normal.score(X, np.stack([y, -y], axis=1)) > 0.8
    early = RNNRegressor(loss="absolute_error", early_stopping=True, **options).fit(X, y)
    assert early.best_validation_score_ == max(early.validation_scores_) < 0
    assert clone(early).loss == "absolute_error"
    with pytest.raises(
        ValueError, match=r"^loss must be one of 'squared_error', 'absolute_error', 'huber', 'quantile'"
    ):
        RNNRegressor(loss="mse").fit(X, y)
    with pytest.raises(ValueError, match=r"^predict_interval needs outputs that are Reals with a distribution or"):
        early.predict_interval(X)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_weights(kind, rng):
    """0 is as if a sequence were not there, 2 as if it were there twice."""
    X = unequal(rng, 12)
    y, weights = targets(kind, X), np.array([0, 1, 2] * 4)
    weighted = kind(4, max_iter=20, random_state=0).fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(12), weights)
    repeated = kind(4, max_iter=20, random_state=0).fit([X[i] for i in rows], [y[i] for i in rows])
    np.testing.assert_allclose(parameters(weighted), parameters(repeated), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)


@pytest.mark.parametrize("kind", [RNNClassifier, RNNTagger])
def test_class_weights(kind, rng):
    X = series(rng)
    y = np.array(["rare"] * 4 + ["often"] * 36)
    y = np.repeat(y[:, None], 6, axis=1) if kind is RNNTagger else y
    balanced = kind(4, max_iter=5, class_weight="balanced", random_state=0).fit(X, y)
    given = kind(4, max_iter=5, class_weight={"rare": 5, "often": 40 / 72}, random_state=0).fit(X, y)
    plain = kind(4, max_iter=5, random_state=0).fit(X, y)
    np.testing.assert_array_equal(parameters(balanced), parameters(given))
    assert (parameters(balanced) != parameters(plain)).any()
    with pytest.raises(ValueError, match="class_weight='balanced' needs all of the data"):
        clone(balanced).partial_fit(X, y, classes=["rare", "often"])


# How training goes


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_random_state(kind, rng):
    X = unequal(rng)
    y = targets(kind, X)
    fit = lambda state: parameters(kind(4, max_iter=2, batch_size=8, dropout=0.1, random_state=state).fit(X, y))  # noqa: E731
    np.testing.assert_array_equal(fit(1), fit(1))
    np.testing.assert_array_equal(fit(1), fit(np.random.RandomState(1)))
    assert (fit(1) != fit(2)).any()
    assert (fit(None) != fit(None)).any()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_partial_fit(kind, rng):
    """An epoch in each call, with one optimizer: those of `fit`, where a batch is the whole."""
    X = series(rng)
    y = targets(kind, X)
    whole = kind(4, max_iter=3, random_state=0).fit(X, y)
    part = kind(4, random_state=0)
    classes = {} if kind is RNNRegressor else {"classes": ["up", "down"] if kind is RNNTagger else ["b", "a"]}
    for i in range(3):
        assert part.partial_fit(X, y, **(classes if i < 2 else {})) is part
        assert part.n_iter_ == 1
    np.testing.assert_array_equal(parameters(part), parameters(whole))
    assert part.loss_curve_ == whole.loss_curve_
    part.set_params(learning_rate_init=0.0).partial_fit(X, y, sample_weight=np.ones(40))
    np.testing.assert_array_equal(parameters(part), parameters(whole))
    with pytest.raises(ValueError, match="early_stopping must be False for partial_fit"):
        part.set_params(early_stopping=True).partial_fit(X, y)


def test_classes_of_partial_fit(rng):
    X = series(rng, 3)
    classifier = RNNClassifier(4)
    with pytest.raises(ValueError, match="classes must be given to the first call"):
        classifier.partial_fit(X, ["a", "b", "a"])
    classifier.partial_fit(X, ["a", "b", "a"], classes=["c", "b", "a"])
    assert classifier.predict_proba(X).shape == (3, 3)
    numbers = RNNClassifier(4).partial_fit(X, [1, 2, 1], classes=[1, 2])
    for fitted, y in [(classifier, ["a", "b", "bb"]), (classifier, [1, 2, 3]), (numbers, ["1", "2", "a"])]:
        with pytest.raises(ValueError, match=r"y must hold classes among \[.*\], got"):
            fitted.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"classes must be those of before, \['a', 'b', 'c'\], got \['a', 'b'\]"):
        classifier.partial_fit(X, ["a", "b", "a"], classes=["a", "b"])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_warm_start(kind, rng):
    X = series(rng)
    y = targets(kind, X)
    estimator = kind(4, max_iter=3, warm_start=True, random_state=0).fit(X, y)
    model, first = estimator.model_, estimator.loss_curve_
    estimator.fit(X, y)
    assert estimator.model_ is model
    assert estimator.loss_curve_[:3] == first
    assert len(estimator.loss_curve_) == 6
    assert estimator.loss_curve_[3] < estimator.loss_curve_[0]
    assert estimator.n_iter_ == 3
    with pytest.raises(ValueError, match="is expecting 2 features"):
        estimator.fit(X[..., :1], y)
    estimator.set_params(warm_start=False).fit(X, y)
    assert estimator.loss_curve_ == first
    assert estimator.model_ is not model


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_early_stopping_restores_the_best(kind, weighted, rng):
    X = unequal(rng, 100)
    y, weights = targets(kind, X), rng.integers(1, 4, 100)
    estimator = kind(8, learning_rate_init=0.03, early_stopping=True, validation_fraction=0.25, random_state=0)
    estimator.fit(X, y, sample_weight=weights if weighted else None)
    assert len(estimator.validation_scores_) == len(estimator.loss_curve_) == estimator.n_iter_ < 200
    assert estimator.best_loss_ is None
    seed = check_random_state(0).randint(2**31 - 1)
    stratify = y if kind is RNNClassifier else None
    _, X_out, _, y_out, _, w_out = train_test_split(X, y, weights, test_size=0.25, stratify=stratify, random_state=seed)
    score = estimator.score(X_out, y_out, sample_weight=w_out if weighted else None)
    assert score == pytest.approx(estimator.best_validation_score_)
    assert score >= max(estimator.validation_scores_) - estimator.tol - 1e-6
    assert kind(4, max_iter=1).fit(X, y).validation_scores_ is None


@pytest.mark.filterwarnings("error")
def test_says_where_it_has_not_converged(rng):
    X = series(rng)
    y = targets(RNNClassifier, X)
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs are over") as caught:
        RNNClassifier(4, max_iter=2).fit(X, y)
    assert caught[0].filename == __file__
    stopped = RNNClassifier(4, max_iter=50, tol=100.0, n_iter_no_change=3).fit(X, y)
    assert stopped.n_iter_ == 4
    assert RNNClassifier(4, max_iter=4, tol=100.0, n_iter_no_change=3).fit(X, y).n_iter_ == 4
    RNNClassifier(4).partial_fit(X, y, classes=["a", "b"])


def test_verbose_shows_progress(rng, capsys):
    X = series(rng)
    RNNClassifier(4, max_iter=1).fit(X, targets(RNNClassifier, X))
    assert capsys.readouterr().err == ""
    RNNClassifier(4, max_iter=1, verbose=True).fit(X, targets(RNNClassifier, X))
    assert "epochs" in capsys.readouterr().err


# What does not fit


BAD_X = [
    (np.zeros(5), "Expected 2D array, got 1D array"),
    (np.zeros((5, 4, 0)), "X must not have an empty axis"),
    (np.zeros((0, 4, 2)), "X must not have an empty axis"),
    (np.zeros((0, 4)), r"Found array with 0 sample\(s\)"),
    ([], "Expected 2D array, got 1D array"),
    (np.zeros((5, 2, 2, 2)), "dim 4"),
    (np.full((5, 4, 2), np.nan), "Input X contains NaN"),
    ([np.full((4, 2), np.inf)] * 5, "Input X contains infinity"),
    (np.zeros((5, 4, 2), complex), "Complex data not supported"),
    ([np.zeros((4, 2)), np.zeros((4, 3))], r"X\[1\] must have shape \(T, 2\), got \(4, 3\)"),
    ([np.zeros((4, 2)), np.zeros(4)], r"X\[1\] must have shape \(T, 2\), got \(4,\)"),
    ([np.zeros((4, 2)), np.zeros((0, 2))], r"X\[1\] must not have an empty axis"),
    ([np.zeros((4, 2, 1))] * 5, r"X\[0\] must have shape \(T, features\), got \(4, 2, 1\)"),
]


@pytest.mark.parametrize(("X", "message"), BAD_X, ids=range(len(BAD_X)))
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_bad_sequences(kind, X, message, rng):
    good = series(rng, 5)
    fitted = kind(4, max_iter=1).fit(good, targets(kind, good))
    with pytest.raises(ValueError, match=message):
        fitted.predict(X)
    y = targets(kind, good)[: len(X)] if len(X) else targets(kind, good)[:1]
    with pytest.raises(ValueError, match=f"{message}|inconsistent numbers of samples"):
        kind(4, max_iter=1).fit(X, y)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_predicts_what_it_was_trained_on(kind, rng):
    X = series(rng)
    wide, narrow = kind(4, max_iter=1).fit(X, targets(kind, X)), kind(4, max_iter=1).fit(X[..., 0], targets(kind, X))
    for fitted, bad, message in [
        (wide, X[..., :1], "X has 1 features, but .* is expecting 2"),
        (wide, list(X[..., :1]), "X has 1 features, but .* is expecting 2"),
        (wide, X[:, :2, 0], "X must have 2 features at each step, as in training, got 1"),
        (narrow, X[:, :5, 0], "X has 5 features, but .* is expecting 6"),
        (narrow, rng.normal(size=(3, 4, 6)), "X must have 1 features at each step, as in training, got 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted.predict(bad)
    assert len(wide.predict(X[:, :2])) == len(wide.predict([X[0], X[1, :1]])) + 38 == 40
    with pytest.raises(NotFittedError):
        kind().predict(X)
    with pytest.raises(NotFittedError):
        kind().score(X, targets(kind, X))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("num_layers", "2"),
        ("nonlinearity", "sine"),
        ("bidirectional", 1),
        ("dropout", 2.0),
        ("recurrent_dropout", 1.0),
        ("learning_rate_init", -1),
        ("weight_decay", "much"),
        ("clip_norm", 0),
        ("batch_size", "all"),
        ("max_iter", 0),
        ("tol", -1),
        ("n_iter_no_change", 2.5),
        ("early_stopping", "yes"),
        ("validation_fraction", 1.0),
        ("validation_fraction", 0),
        ("validation_fraction", 0.01),
        ("warm_start", None),
        ("backend", "abacus"),
    ],
)
def test_bad_parameters(name, value, rng):
    X = series(rng)
    for kind in ESTIMATORS:
        estimator = kind(early_stopping=True).set_params(**{name: value})
        with pytest.raises((TypeError, ValueError), match=name):
            estimator.fit(X, targets(kind, X))
        assert not hasattr(estimator, "model_")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a"] * 4] * 3, "inconsistent numbers of samples"),
        ([["a"] * 4, ["a"] * 3], r"y\[1\] must have as many steps as X\[1\], 4, got 3"),
        ([["a"] * 4, "aaaa"], r"y\[1\] must have shape \(T,\), got \(\)"),
        ([["a"] * 4, [["a"]] * 4], r"y\[1\] must have shape \(T,\), got \(4, 1\)"),
        ([[0.5] * 4, [1.5] * 4], "Unknown label type"),
        ([[0.0] * 4, [np.nan] * 4], "Input y contains NaN"),
    ],
)
def test_bad_tags(y, message, rng):
    with pytest.raises(ValueError, match=message):
        RNNTagger(4).fit(series(rng, 2, 4), y)


def test_bad_targets_and_weights(rng):
    X = series(rng, 4)
    for kind, y, message in [
        (RNNClassifier, [0.5, 1.5, 2.5, 3.5], "Unknown label type"),
        (RNNClassifier, [[1, 0], [0, 1]] * 2, "y should be a 1d array"),
        (RNNRegressor, [1.0, np.inf, 0, 0], "Input y contains infinity"),
        (RNNRegressor, np.zeros((4, 2, 1)), "dim 3"),
        (RNNRegressor, ["a"] * 4, "could not convert|Unable to convert"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind(4).fit(X, y)
    for weights, message in [
        ([1, 2, 3, -1], "sample_weight must be finite and at least 0"),
        ([1, 2, 3], r"sample_weight must have shape \(4,\)"),
        ([0, 0, 0, 0], "whose weight is not zero"),
    ]:
        for kind in ESTIMATORS:
            with pytest.raises(ValueError, match=message):
                kind(4).fit(X, targets(kind, X), sample_weight=weights)
    regressor = RNNRegressor(4, max_iter=1, warm_start=True).fit(X, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="y must have 2 outputs for each sequence, as before, got 1"):
        regressor.fit(X, np.zeros(4))


# scikit-learn's tools


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_copies(kind, rng):
    X = unequal(rng)
    y = targets(kind, X)
    estimator = kind(5, max_iter=2, random_state=0).fit(X, y)
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    buffer.seek(0)
    for again in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator), joblib.load(buffer)):
        np.testing.assert_array_equal(flat(again.predict(X)), flat(estimator.predict(X)))
        again.set_params(warm_start=True).fit(X, y)
        assert len(again.loss_curve_) == 4
    fresh = clone(estimator)
    assert not hasattr(fresh, "model_")
    assert fresh.get_params() == estimator.get_params()
    assert repr(fresh) == f"{kind.__name__}(hidden_size=5, max_iter=2, random_state=0)"
    with pytest.raises(ValueError, match="Invalid parameter 'width'"):
        fresh.set_params(width=3)


def test_going_on_with_the_model(rng, tmp_path):
    X = unequal(rng)
    tagger = RNNTagger(8, max_iter=3).fit(X, targets(RNNTagger, X))
    tagger.model_.save(tmp_path / "tagger.safetensors")
    loaded = elman.load(tmp_path / "tagger.safetensors")
    stream = loaded.stream()
    for x, expected in zip(X, tagger.predict(X), strict=True):
        np.testing.assert_array_equal(tagger.classes_[loaded.predict([x.astype("float64")])[0]], expected)
    codes = [int(code) for x_t in X[0] for code in stream.predict(x_t[None])]
    assert tagger.classes_[codes].tolist() == tagger.predict(X)[0].tolist()


def searched(X, y, *, steps, grid, **options):
    with joblib.parallel_config(**options):
        search = GridSearchCV(make_pipeline(*steps), grid, cv=3, n_jobs=None if options else 1).fit(X, y)
    return search.cv_results_["mean_test_score"].tolist(), search.best_params_


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_searches_in_parallel(backend, rng):
    flat_X = rng.normal(size=(60, 12))
    y = np.where(flat_X.sum(axis=1) > 0, "b", "a")

    def three_d(X):
        return X.reshape(-1, 6, 2)

    steps = (StandardScaler(), FunctionTransformer(three_d), RNNClassifier(max_iter=4, random_state=0))
    grid = {"rnnclassifier__hidden_size": [4, 9], "rnnclassifier__bidirectional": [False, True]}
    alone = searched(flat_X, y, steps=steps, grid=grid)
    assert searched(flat_X, y, steps=steps, grid=grid, backend=backend, n_jobs=2) == alone


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_searches_with_lists_of_unequal_sequences(kind, rng):
    X = unequal(rng)
    y = targets(kind, X)
    estimator = kind(max_iter=3, random_state=0)
    scores = cross_val_score(estimator, X, y, cv=3, n_jobs=1)
    with joblib.parallel_config(backend="threading"):
        np.testing.assert_array_equal(cross_val_score(estimator, X, y, cv=3, n_jobs=2), scores)
    search = GridSearchCV(estimator, {"hidden_size": [3, 5]}, cv=2).fit(X, y, sample_weight=np.ones(40))
    assert flat(search.predict(X)).shape == flat(y).shape


def test_workers_share_the_cores(monkeypatch):
    """Two processes on n cores have n // 2 threads each, as all that knows OMP_NUM_THREADS."""
    monkeypatch.delenv("ELMAN_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(elman.get_num_threads)() for _ in range(4))
    assert set(found) == {max(1, joblib.cpu_count() // 2)}


def test_data_frames(rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(rng.normal(size=(30, 4)), columns=["t0", "t1", "t2", "t3"])
    y = pandas.Series(np.where(X.sum(axis=1) > 0, "b", "a"), index=range(100, 130))
    weights = pandas.Series(np.ones(30))
    fitted = RNNClassifier(4, max_iter=2, random_state=0).fit(X, y, sample_weight=weights)
    assert fitted.feature_names_in_.tolist() == X.columns.tolist()
    plain = RNNClassifier(4, max_iter=2, random_state=0).fit(X.to_numpy(), y.to_numpy())
    np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X.to_numpy()))
    assert not hasattr(plain, "feature_names_in_")
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(X.rename(columns={"t0": "other"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(X.to_numpy())
    frames = [frame for _, frame in X.groupby(np.arange(30) // 4)]
    tagger = RNNTagger(4, max_iter=1).fit(frames, [y.iloc[i : i + 4] for i in range(0, 30, 4)])
    assert sum(map(len, tagger.predict(frames))) == 30


def test_searches_on_a_cluster(cluster, rng):
    """Two processes, with one thread each, find what this one does."""
    X = series(rng)
    y = targets(RNNClassifier, X)
    classifier, rates = RNNClassifier(3, max_iter=3, random_state=0), {"learning_rate_init": uniform(0.001, 0.1)}
    searches = [
        GridSearchCV(classifier, {"hidden_size": [3, 5]}, cv=2),
        HalvingRandomSearchCV(classifier, rates, n_candidates=3, min_resources=20, cv=2, random_state=0),
    ]

    def where(estimator, X, y):  # noqa: ARG001
        return {"process": os.getpid(), "threads": elman.get_num_threads()}

    with joblib.parallel_config(backend=cluster, n_jobs=-1):
        there = [clone(search).fit(X, y) for search in searches]
        scores = cross_validate(classifier, X, y, cv=4, scoring=where)
    assert os.getpid() not in scores["test_process"]
    assert set(scores["test_threads"]) == {1}
    for found, search in zip(there, searches, strict=True):
        alone = search.fit(X, y)
        assert found.best_params_ == alone.best_params_
        np.testing.assert_array_equal(found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
        np.testing.assert_array_equal(parameters(found.best_estimator_), parameters(alone.best_estimator_))


# Where it is missing


def test_is_imported_on_request_only():
    program = "import sys, elman; assert 'sklearn' not in sys.modules; import elman.sklearn"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_scikit_learn_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.removeprefix("elman.").split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # what makes an import fail
    with pytest.raises(ImportError, match=r"pip install 'elman\[sklearn\]'"):
        import elman.sklearn  # noqa: F401
