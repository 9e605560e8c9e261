"""Labels for tokens and categories: a model with them is, bit for bit, the one with the integers they stand for."""

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data.named import Coder
from elman.models.base import network_of

from ..compare import assert_same_bits
from .test_patterns import backend_names

WORDS = ["the", "a", "cat", "mat", "sat"]  # not sorted
TAGS = ["noun", "verb", "other"]
LENGTHS = [4, 1, 6, 3, 2, 5]
QUIET: dict[str, Any] = {"epochs": 2, "batch_size": 4, "progress": False}


def model_of(inputs: Any, outputs: Any, **options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(inputs, outputs, **{"hidden_size": 5, "seed": 0} | options)


def codes(rng: np.random.Generator, n: int, lengths: Any = LENGTHS) -> list[np.ndarray]:
    return [rng.integers(0, n, length) for length in lengths]


def said(numbers: Any, labels: Any) -> list[list[Any]]:
    return [[labels[i] for i in row] for row in numbers]


def flat(model: elman.SequenceModel) -> Any:
    return network_of(model).parameters.flat


def assert_labels(found: Any, expected: Any, labels: Any) -> None:
    """What is predicted, in labels, is what is predicted in numbers."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, np.asarray(labels)[other])
        assert np.asarray(one).dtype == np.asarray(labels).dtype


def objects(rows: list[list[Any]]) -> list[np.ndarray]:
    return [np.array(row, dtype=object) for row in rows]


FORMS: dict[str, Callable[[list[list[Any]]], Any]] = {
    "lists": lambda rows: rows,
    "tuples": lambda rows: tuple(map(tuple, rows)),
    "arrays": lambda rows: [np.array(row) for row in rows],
    "objects": objects,
    "strings of any length": lambda rows: [np.array(row, np.dtypes.StringDType()) for row in rows],
}
KINDS: dict[str, tuple[Any, Any]] = {
    "words": (WORDS, TAGS),
    "characters": (list("edcba"), list("xyz")),
    "numbers": ([7, -1, 3, 2**40, 0], [5, 0, -1]),
    "flags": ([True, False], [False, True]),
    "of several types": (["a", 1, "b", 2, False], ["x", 0, True]),
}


@backend_names
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_labels_is_that_with_numbers(kind: str, backend: str, rng: np.random.Generator):
    words, tags = KINDS[kind]
    X, Y = codes(rng, len(words)), codes(rng, len(tags))
    plain = model_of(elman.Tokens(len(words)), elman.Categories(len(tags)), backend=backend)
    history = plain.fit(X, Y, validation_data=(X, Y), **QUIET)
    expected, words_of = plain.predict(X), np.array(tags) if len({*map(type, tags)}) == 1 else np.array(tags, object)
    names = [name for name in FORMS if kind != "of several types" or name != "arrays"]
    names = [name for name in names if kind in ("words", "characters") or name[:7] != "strings"]
    for form in map(FORMS.__getitem__, names):
        x, y = form(said(X, words)), form(said(Y, tags))
        model = model_of(elman.Tokens(labels=words), elman.Categories(labels=tags), backend=backend)
        assert (model.inputs.n, model.outputs.n) == (len(words), len(tags))
        assert model.fit(x, y, validation_data=(x, y), **QUIET) == history
        np.testing.assert_array_equal(flat(model), flat(plain))
        assert_labels(model.predict(x), expected, words_of)
        for one, other in zip(model.predict_proba(x), plain.predict_proba(X), strict=True):
            np.testing.assert_array_equal(one, other)
        assert model.evaluate(x, y) == plain.evaluate(X, Y)
    if kind == "characters":
        x, y = (["".join(row) for row in said(*given)] for given in ((X, words), (Y, tags)))
        assert model.evaluate(x, y) == model.evaluate(np.array(x), np.array(y, object)) == plain.evaluate(X, Y)


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one", "one-to-many"])
def test_tables_and_items(pattern: str, rng: np.random.Generator):
    one_input, one_output = pattern.startswith("one"), pattern.endswith("one")
    X, Y = (rng.integers(0, 3, (6,) if is_one else (6, 4)) for is_one in (one_input, one_output))
    options = {"pattern": pattern, "dtype": "float64"}
    plain = model_of(elman.Tokens(3), elman.Categories(3), **options)
    expected = plain.fit(X, Y, **QUIET)
    for dtype in (str, object):
        x, y = np.array(TAGS, dtype)[X], np.array(TAGS, dtype)[Y]
        for form in (lambda a: a, np.ndarray.tolist, np.asfortranarray):
            model = model_of(elman.Tokens(labels=TAGS), elman.Categories(labels=TAGS), **options)
            assert model.fit(form(x), form(y), **QUIET) == expected
            assert model.evaluate(form(x), form(y)) == plain.evaluate(X, Y)
            if pattern != "one-to-many":
                found = model.predict(form(x))
                assert (
                    isinstance(found, np.ndarray) == (one_output or isinstance(form(x), np.ndarray)) or dtype is object
                )
                assert_labels(found, plain.predict(X), TAGS)


@backend_names
def test_steps(backend: str, rng: np.random.Generator):
    x, y, lengths = rng.integers(0, 4, (5, 3)), rng.integers(-1, 3, (5, 3)), np.array([5, 2, 4])
    words, tags = np.array(WORDS, object)[x], np.array([*TAGS, None])[y]
    plain = model_of(elman.Tokens(5), elman.Categories(3), backend=backend)
    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS), backend=backend)
    beyond = np.arange(5)[:, None] >= lengths
    words[beyond] = "padding"
    tags[3, 1] = ["no hash"]
    given, expected = (words, tags), (x, np.where(beyond, -1, y))
    assert model.loss(*given, lengths=lengths) == plain.loss(*expected, lengths=lengths)
    for one in (given, (words.tolist(), tags.tolist())):
        found = model.loss_and_grads(*one, lengths=lengths)
        loss, gradients = plain.loss_and_grads(*expected, lengths=lengths)
        assert found[0] == loss
        assert_same_bits(found[1], gradients)
    options = {"optimizer": elman.SGD(0.1), "lengths": lengths}
    assert model.train_step(*given, **options) == plain.train_step(*expected, **options)
    weights = (~beyond).astype(float)
    assert model.loss(np.array(WORDS)[x], tags, weights=weights) == plain.loss(x, expected[1], weights=weights)
    stream, other = model.stream(3), plain.stream(3)
    assert_labels(stream.predict(np.array(WORDS)[x]), other.predict(x), TAGS)
    assert_labels([model.stream().predict(["a", "cat"])], [plain.stream().predict([1, 2])], TAGS)
    assert stream.predict(np.empty((2, 0), str), rows=[]).shape == (2, 0)
    np.testing.assert_array_equal(stream.predict_proba(np.array(WORDS)[x]), other.predict_proba(x))


def test_what_counts_for_nothing_may_be_anything(rng: np.random.Generator):
    X, Y = codes(rng, 5), codes(rng, 3)
    weights: list[Any] = [np.ones(n) for n in LENGTHS]
    x, y = said(X, WORDS), said(Y, TAGS)
    y[2][3], weights[2][3] = "whatever", 0
    y[3][1], Y[3][1] = None, -1
    plain = model_of(elman.Tokens(5), elman.Categories(3))
    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS))
    assert model.evaluate(x, y, weights=weights) == plain.evaluate(X, Y, weights=weights)
    letters = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=list("nvo")))
    text = ["".join("nvo"[i] if i >= 0 else "?" for i in row) for row in Y]
    weights[3][1] = 0
    assert letters.evaluate(x, text, weights=weights) == plain.evaluate(X, Y, weights=weights)


def test_strangers(rng: np.random.Generator):
    X, Y = said(codes(rng, 5), WORDS), codes(rng, 3)
    model = model_of(elman.Tokens(labels=WORDS, unknown="?"), elman.Categories(3))
    assert model.inputs.labels == (*WORDS, "?")
    given = elman.Tokens(labels=["?", *WORDS], unknown="?")
    assert given == elman.Tokens(6, labels=["?", *WORDS], unknown="?") != elman.Tokens(labels=["?", *WORDS])
    assert given.n == 6
    assert elman.Tokens(labels=np.arange(3), unknown=np.int64(2)) == elman.Tokens(labels=[0, 1, 2], unknown=2)
    with_some = [
        [word if word != "cat" else [None, "dog", "", "cats"][i % 4] for word in row] for i, row in enumerate(X)
    ]
    as_one = [[word if word != "cat" else "?" for word in row] for row in X]
    assert model.evaluate(with_some, Y) == model.evaluate(as_one, Y)
    for other in (3, 1.5, b"cat"):
        with pytest.raises(ValueError, match=rf"^X\[0\] must hold labels that are str, got {other!r} at \[1\]$"):
            model.predict([["cat", other]])
    model = model_of(elman.Tokens(labels=[10, 20], unknown=0), elman.Categories(3))
    np.testing.assert_array_equal(model.predict([[10, np.int32(7)]])[0], model.predict([[10, 0]])[0])


# Labels that fit learns


def test_fit_learns_what_it_trains_on(rng: np.random.Generator):
    X, Y = said(codes(rng, 5, [4] * 12), WORDS), said(codes(rng, 3, [4] * 12), TAGS)
    X[-1][0], Y[0][0] = "rare", None
    given = elman.Tokens(9, labels="fit", unknown="?"), elman.Categories(3, labels="fit")
    model = model_of(*given)
    model.fit(X, Y, validation_split=0.25, **QUIET)
    assert model.inputs.labels == (*sorted(WORDS), "?")
    assert model.outputs.labels == tuple(sorted(TAGS))
    assert given[0].labels == given[1].labels == "fit", "another model's"
    by_hand = model_of(elman.Tokens(9, labels=sorted(WORDS), unknown="?"), elman.Categories(labels=sorted(TAGS)))
    by_hand.fit(X, Y, validation_split=0.25, **QUIET)
    np.testing.assert_array_equal(flat(model), flat(by_hand))
    model.fit(X[:1], [["noun"] * 4], **QUIET)
    assert len(model.outputs.labels) == 3, "they stay those of the first fit"
    for x, y in (
        (np.array(X), np.array([[tag or "noun" for tag in row] for row in Y])),
        (objects(X), objects(Y)),
        ([np.array(row) for row in X], Y),
    ):
        again = model_of(elman.Tokens(9, labels="fit"), elman.Categories(3, labels="fit"))
        again.fit(x, y, validation_data=(x[:2], y[:2]), **QUIET)
        assert again.inputs.labels == tuple(sorted([*WORDS, "rare"]))
    numbers = model_of(elman.Tokens(9, labels="fit"), elman.Categories(3, labels="fit"), pattern="many-to-one")
    numbers.fit([[30, 10], [20]], ["b", "a"], **QUIET)
    assert numbers.inputs.labels == (10, 20, 30)
    assert numbers.outputs.labels == ("a", "b")
    mixed = model_of(elman.Tokens(9, labels="fit"), elman.Categories(3, labels="fit"), pattern="one-to-one")
    mixed.fit(["b", 2, False, "a"], [True, "x", True, "x"], **QUIET)
    assert mixed.inputs.labels == (False, 2, "a", "b")


def test_a_text_and_its_next_characters():
    text = "abcab"
    model = model_of(elman.Tokens(4, labels="fit"), elman.Categories(4, labels="fit"))
    model.fit([text[:2]], [text[1:3]], **QUIET)
    assert model.inputs.labels == model.outputs.labels == tuple("abc")
    windows = elman.Windows(np.array(list("abcabd" * 4 + "z" * 6)), 6)
    model = model_of(elman.Tokens(9, labels="fit"), elman.Categories(9, labels="fit"))
    with pytest.raises(
        ValueError, match=r"^Y\[3\] = series\[19:25\] must hold labels among \['a', 'b', 'c', 'd'\].*'z'"
    ):
        model.fit(windows, validation_split=0.3, **QUIET)
    model.fit(windows, **QUIET)
    assert model.inputs.labels == tuple("abcdz")
    plain = model_of(elman.Tokens(9), elman.Categories(4))
    plain.fit(elman.Windows(np.searchsorted(list("abcd"), windows.series[:19]), 6), **QUIET)
    model = model_of(elman.Tokens(9, labels="fit"), elman.Categories(labels=list("abcd")))
    model.fit(elman.Windows(windows.series[:19], 6), **QUIET)
    assert_labels(
        model.predict(elman.Windows(windows.series[:19], 6)), plain.predict([[0, 1, 2, 0, 1, 3]] * 3), list("abcd")
    )


def test_before_fit_and_after_one_that_is_refused(tmp_path: Path, rng: np.random.Generator):
    X, Y = said(codes(rng, 5), WORDS), said(codes(rng, 3), TAGS)
    model = model_of(elman.Tokens(5, labels="fit"), elman.Categories(3, labels="fit"))
    reader = model_of(elman.Features(2), elman.Categories(3, labels="fit"))
    writer = model_of(elman.Tokens(3, labels="fit"), elman.Categories(3, labels="fit"))
    calls: list[Callable[[], Any]] = [
        lambda: model.train_step([["a"]], [["noun"]], optimizer=elman.SGD(0.1)),
        lambda: model.predict(X),
        lambda: model.evaluate(X, Y),
        lambda: writer.generate(["a"], 3),
        lambda: model.stream().predict(["a"]),
        lambda: model.save(tmp_path / "model"),
        lambda: reader.predict(np.zeros((1, 2, 2))),
        lambda: reader.predict_proba(np.zeros((1, 2, 2))),
        lambda: reader.stream().predict(np.zeros((1, 2))),
        lambda: reader.loss(np.zeros((1, 1, 2)), [["a"]]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^labels='fit' are not known yet: the data of `fit` say them, or give a"):
            call()
    assert not (tmp_path / "model").exists()
    refused: list[tuple[Any, Any, dict[str, Any], str]] = [
        (X, Y, {"epochs": 0}, "epochs must be"),
        (X, Y[:-1], {}, "Y must have as many sequences as X"),
        (X, Y, {"validation_data": ([["dog"]], [["noun"]])}, r"validation_data\[0\]\[0\] must hold labels among"),
        ([*X[:-1], ["some", "other", "word", "is", "a"]], Y, {}, "n must have room for the labels of X, 9, got 5"),
        (X, [*Y[:-1], ["a"] * 5], {}, "n must have room for the labels of Y, 4, got 3"),
        (lambda: iter([]), None, {}, "X must be data with labels='fit', which all of it says, got a function"),
        ([[1.5, 2]], [["a", "b"]], {}, "X must hold labels that are str, int or bool, got 1.5"),
        ([[["a"], ["b", "c"]]], Y, {}, "X must hold labels with labels='fit', got"),
        (None, Y, {}, "X must be a list of sequences or an array"),
    ]
    for x, y, options, message in refused:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            model.fit(x, y, **QUIET | options)
        assert model.inputs.labels == model.outputs.labels == "fit"
    found = model.find_lr(X, Y, steps=3)
    assert len(found.lr) == 3
    assert model.inputs.labels == "fit"


def test_a_run_goes_on_and_many_models(tmp_path: Path, rng: np.random.Generator):
    X, Y = said(codes(rng, 5), WORDS), said(codes(rng, 3), TAGS)

    def make() -> elman.SequenceModel:
        return model_of(elman.Tokens(9, labels="fit"), elman.Categories(4, labels="fit", class_weights="balanced"))

    whole, first, second, many = make(), make(), make(), [make()]
    expected = whole.fit(X, Y, **QUIET | {"epochs": 4})
    options: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint", "resume": True}
    first.fit(X, Y, **QUIET, **options)
    assert elman.load(tmp_path / "checkpoint").inputs == first.inputs
    assert second.fit(X, Y, **QUIET | {"epochs": 4}, **options) == expected
    np.testing.assert_array_equal(flat(second), flat(whole))
    with pytest.raises(ValueError, match="is of another run: "):
        make().fit(X[::-1], [["noun"] * len(row) for row in X[::-1]], **QUIET, **options)
    elman.fit_many(many, X, Y, workers=1, **QUIET)
    assert (many[0].inputs, many[0].outputs) == (whole.inputs, whole.outputs)


# Room for more labels than there are


@backend_names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_room_that_is_not_used(backend: str, dtype: str, rng: np.random.Generator):
    """Loss, gradients and draws are those of a model without it; what has no label has a probability of 0."""
    options = {"backend": backend, "dtype": dtype}
    wide, narrow = (model_of(elman.Tokens(labels=TAGS), elman.Categories(n, labels=TAGS), **options) for n in (8, 3))
    for name, array in narrow.parameters().items():
        array[...] = wide.parameters()[name][:3] if name.endswith("o") else wide.parameters()[name]
    wide.parameters()["bias_o"][3:] = 100
    x, y = (np.array(TAGS)[rng.integers(0, 3, (6, 4))] for _ in range(2))
    loss, gradients = wide.loss_and_grads(x, y)
    expected, others = narrow.loss_and_grads(x, y)
    bound = 1e-5 if dtype == "float32" else 1e-13
    assert loss == pytest.approx(expected, rel=bound)
    for name, value in others.items():
        found = gradients[name][:3] if name.endswith("o") else gradients[name]
        np.testing.assert_allclose(found, value, rtol=bound, atol=bound)
    assert not gradients["bias_o"][3:].any()
    assert not gradients["weight_ho"][3:].any()
    p = wide.predict_proba(x.T)
    assert p.shape == (4, 6, 8)
    assert not p[..., 3:].any()
    np.testing.assert_array_equal(wide.predict(x.T), narrow.predict(x.T))
    assert wide.effective_weights()["bias_o"][3:].max() < -1e20
    starts = model_of(elman.Tokens(8, labels=TAGS), elman.Categories(8, labels=TAGS), **options)
    starts.parameters()["bias_o"][3:] = 100
    wild = np.abs(1e37 * rng.standard_normal(wide.parameters()["weight_ho"].shape))
    wide.parameters()["weight_ho"][...], wide.parameters()["bias_o"][...] = wild, -1e38
    assert {*wide.predict(x.T).ravel().tolist()} <= {*TAGS}
    for temperature in (1.0, 0.0, 1e-8, 50.0):
        assert {*starts.generate("noun", 200, temperature=temperature, seed=0).tolist()} <= {*TAGS}


# Files, other processes


def test_files_pickles_and_other_processes(tmp_path: Path, rng: np.random.Generator):
    X, Y = said(codes(rng, 5), WORDS), said(codes(rng, 3), TAGS)
    model = model_of(elman.Tokens(9, labels="fit", unknown="NaN"), elman.Categories(7, labels="fit"))
    model.fit(X, Y, **QUIET)
    model.save(tmp_path / "model")
    loaded = elman.load(tmp_path / "model")
    assert (loaded.inputs, loaded.outputs) == (model.inputs, model.outputs)
    for one in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_labels(one.predict(X), [np.searchsorted(sorted(TAGS), row) for row in model.predict(X)], sorted(TAGS))
    words = [*X[0], "a stranger"]
    program = f"import elman; print(elman.load({str(tmp_path / 'model')!r}).predict([{words}])[0].tolist())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(model.predict([words])[0].tolist())
    (tmp_path / "model").write_bytes((tmp_path / "model").read_bytes().replace(b"verb", b"noun"))
    with pytest.raises(ValueError, match="is not an elman model"):
        elman.load(tmp_path / "model")


@backend_names
def test_embeddings_of_labels(backend: str, tmp_path: Path, rng: np.random.Generator):
    X, Y, vectors = codes(rng, 5), codes(rng, 5), rng.standard_normal((5, 4))
    x, y = said(X, WORDS), said(Y, WORDS)
    for own, options in (
        ({"embedding_dim": 4}, {}),
        ({"embedding": vectors}, {}),
        ({"embedding_dim": 5}, {"tied": True}),
    ):
        options = {"backend": backend, **options}
        plain = model_of(elman.Tokens(5, **own), elman.Categories(5), **options)
        model = model_of(elman.Tokens(labels=WORDS, **own), elman.Categories(labels=WORDS), **options)
        assert model.fit(x, y, **QUIET) == plain.fit(X, Y, **QUIET)
        assert_same_bits(model.state_dict(), plain.state_dict())
        assert_labels(model.predict(x), plain.predict(X), WORDS)
        assert_labels([model.generate("cat", 9, seed=1)], [plain.generate(2, 9, seed=1)], WORDS)
        model.save(tmp_path / "model")
        assert_labels(elman.load(tmp_path / "model").predict(x), plain.predict(X), WORDS)
    wide = model_of(elman.Tokens(9, labels="fit", embedding_dim=4), elman.Categories(9, labels="fit"), backend=backend)
    wide.fit(x, y, **QUIET)
    assert wide.inputs == elman.Tokens(9, labels=sorted(WORDS), embedding_dim=4) != elman.Tokens(9, embedding_dim=4)
    with pytest.raises(
        ValueError, match=r"^parts\[0\] must be tokens without labels, as a table holds numbers, got Tok"
    ):
        elman.Columns(elman.Tokens(labels=WORDS), elman.Features(2))


def test_onnx(tmp_path: Path, rng: np.random.Generator):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import elman.onnx

    from ..bridges.onnx_models import check_models_among

    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(5, labels=TAGS))
    elman.onnx.export(model, tmp_path / "model.onnx")
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert '"labels": ["noun", "verb", "other"]' in entries["elman.config"]
    wide, other = (elman.Tokens(9, labels=WORDS), elman.Categories(7, labels=WORDS)), elman.Categories(7, labels=TAGS)
    models = [model, model_of(*wide, pattern="many-to-one"), model_of(*wide, pattern="one-to-many")]
    for one in models[1:]:
        one.parameters()["bias_o"][5:] = 100
    assert check_models_among([*models, elman.Seq2Seq(wide[0], other, hidden_size=5, seed=0)], tmp_path) == 4
    loaded, X = elman.onnx.load(tmp_path / "model.onnx"), said(codes(rng, 5), WORDS)
    assert (loaded.inputs, loaded.outputs) == (model.inputs, model.outputs)
    assert_labels(loaded.predict(X), [[TAGS.index(tag) for tag in row] for row in model.predict(X)], TAGS)


# What else models do


def test_generate():
    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=WORDS))
    plain = model_of(elman.Tokens(5), elman.Categories(5))
    for start, number in ((["a", "cat"], [1, 2]), ("cat", 2), (np.array(["mat"]), [3])):
        assert_labels([model.generate(start, 20, seed=1)], [plain.generate(number, 20, seed=1)], WORDS)
    assert_labels([model.generate("a", 20, end="cat", seed=1)], [plain.generate(1, 20, end=2, seed=1)], WORDS)
    letters = model_of(elman.Tokens(labels=["a", "b", "c"]), elman.Categories(labels=["a", "b", "c"]))
    three = model_of(elman.Tokens(3), elman.Categories(3))
    assert_labels([letters.generate("bca", 9, seed=1)], [three.generate([1, 2, 0], 9, seed=1)], ["a", "b", "c"])
    for end in ("xyz", ["a"], 2):
        with pytest.raises(ValueError, match=rf"^end must be one of the labels .*, got {re.escape(repr(end))}$"):
            letters.generate("bca", 9, end=end)
    with pytest.raises(ValueError, match=r"^end must be one of the labels .*, got 'cats': perhaps 'cat'$"):
        model.generate("a", 20, end="cats")
    many, texts = letters.generate([list("bca"), ["a"]], 9, seed=1), letters.generate(["bca", "a"], 9, seed=1)
    np.testing.assert_array_equal(letters.generate(np.array(["bca", "a"]), 9, seed=1), texts)
    assert_labels(many, three.generate([[1, 2, 0], [0]], 9, seed=1), ["a", "b", "c"])
    np.testing.assert_array_equal(texts, many)
    assert letters.generate(["b", "c", "a"], 9, seed=1).shape == (9,), "one"
    options: dict[str, Any] = {"pattern": "one-to-many"}
    one = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=WORDS[:3]), **options)
    other = model_of(elman.Tokens(5), elman.Categories(3), **options)
    assert_labels([one.generate("mat", 9, seed=1)], [other.generate(3, 9, seed=1)], WORDS)
    given = elman.Tokens(9, labels="fit", unknown="?"), elman.Categories(7, labels="fit")
    learned = model_of(*given, **options)
    learned.fit(["a", "b"], [["c", "a"], ["d"]], **QUIET)
    assert learned.inputs.labels == (*"abcd", "?")
    assert learned.outputs.labels == tuple("abcd")
    beside = model_of(elman.Features(2), elman.Categories(labels=TAGS), **options)
    assert {*beside.generate(np.zeros(2), 9, seed=0).tolist()} <= {*TAGS}


@backend_names
def test_sequences_to_sequences(backend: str, rng: np.random.Generator):
    X, Y = codes(rng, 5), codes(rng, 3, [2, 0, 3, 1, 0, 2])
    options: dict[str, Any] = {"hidden_size": 5, "seed": 0, "backend": backend}
    plain = elman.Seq2Seq(elman.Tokens(5), elman.Categories(3), **options)
    expected = plain.fit(X, Y, validation_data=(X, Y), **QUIET)
    x, y = said(X, WORDS), said(Y, TAGS)
    model = elman.Seq2Seq(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS), **options)
    assert model.fit(x, y, validation_data=(x, y), **QUIET) == expected
    for beam in (1, 3):
        assert_labels(model.predict(x, beam=beam), plain.predict(X, beam=beam), TAGS)
    wide = elman.Seq2Seq(elman.Tokens(9, labels="fit"), elman.Categories(9, labels="fit"), **options)
    wide.fit(x, y, **QUIET)
    assert (wide.inputs.labels, wide.outputs.labels) == (tuple(sorted(WORDS)), tuple(sorted(TAGS)))
    wide = elman.Seq2Seq(elman.Tokens(9, labels="fit"), elman.Categories(7, labels="fit"), **options)
    wide.fit(x, y, **QUIET)
    wide.decoder.parameters()  # nothing to say, but live
    network_of(wide).parameters.named()["bias_o"][3:7] = 100
    assert all({*row.tolist()} <= {*TAGS} for beam in (1, 9) for row in wide.predict(x, beam=beam))
    letters = elman.Seq2Seq(elman.Tokens(labels=["a"]), elman.Categories(labels=["b"]), **options)
    assert letters.fit(["aa", "a"], ["b", ""], **QUIET)["loss"]


def test_labels_without_alignment(rng: np.random.Generator):
    X, Y = rng.standard_normal((4, 6, 2)), [[0, 2], [1], [], [2, 2]]
    plain, model = (model_of(elman.Features(2), elman.Labels(**own)) for own in ({"n": 3}, {"labels": TAGS}))
    y = said(Y, TAGS)
    assert model.fit(X, y, **QUIET) == plain.fit(X, Y, **QUIET)
    assert_labels(model.predict(X), plain.predict(X), TAGS)
    steps = np.array([["noun", "verb"], ["other", None]])
    assert model.loss(X[:2].swapaxes(0, 1), steps) == plain.loss(X[:2].swapaxes(0, 1), [[0, 1], [2, -1]])
    learned = model_of(elman.Features(2), elman.Labels(5, labels="fit"))
    learned.fit(X, y, **QUIET)
    network_of(learned).parameters.named()["bias_o"][3:5] = 100
    assert all({*row.tolist()} <= {*TAGS} for row in learned.predict(X))


def test_functions_that_measure_get_labels(rng: np.random.Generator):
    X, Y = said(codes(rng, 5), WORDS), said(codes(rng, 3), TAGS)
    Y[0][0] = None

    def right(y: Any, predicted: Any) -> float:
        assert {*y.tolist()} == {*TAGS}
        return float(np.mean(y == predicted))

    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(7, labels=TAGS))
    found = model.evaluate(X, Y, metrics=[right, "accuracy", "f1", "perplexity"])
    assert found["right"] == pytest.approx(found["accuracy"])
    own = elman.Seq2Seq(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS), hidden_size=5, seed=0)
    words = said(codes(rng, 3), TAGS)
    written = own.evaluate(X, words, metrics={"n": lambda y, p: sum(map(len, y)) + 0 * len(p[0])})
    assert written["n"] == sum(LENGTHS)
    assert own.evaluate(X, words, metrics={"first": lambda y, _: float(y[0].tolist() == words[0])})["first"] == 1
    ctc = model_of(elman.Features(2), elman.Labels(labels=TAGS))
    given = ctc.evaluate(
        rng.standard_normal((1, 9, 2)), [words[0]], metrics={"a": lambda y, _: float(y[0].tolist() == words[0])}
    )
    assert given["a"] == 1


def test_functions_of_batches(rng: np.random.Generator):
    X, Y = codes(rng, 5), codes(rng, 3)
    plain, model = model_of(elman.Tokens(5), elman.Categories(3)), None
    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS))
    options = {"epochs": 2, "progress": False}
    expected = plain.fit(lambda: iter([(X[:3], Y[:3]), (X[3:], Y[3:])]), **options)
    x, y = said(X, WORDS), said(Y, TAGS)
    assert model.fit(lambda: iter([(x[:3], y[:3]), (x[3:], y[3:])]), **options) == expected


def test_characters_that_numpy_drops_at_the_end():
    model = model_of(elman.Tokens(3, labels="fit"), elman.Categories(3, labels="fit"))
    model.fit(["ab\0"], ["b\0\0"], epochs=200, optimizer=elman.Adam(0.02), progress=False)
    assert model.predict(["ab\0"])[0].tolist() == ["b", "\0", "\0"]


def test_windows_of_objects_and_of_a_text(rng: np.random.Generator):
    numbers = rng.integers(0, 3, 40)
    series = np.array(TAGS, object)[numbers]
    targets = series.copy()
    targets[3] = None
    for pattern in ("many-to-many", "many-to-one"):
        plain, model = model_of(elman.Tokens(3), elman.Categories(3), pattern=pattern), None
        given = np.where(np.arange(40) == 3, -1, numbers)
        expected = plain.fit(elman.Windows(numbers, 4, targets=given), **QUIET)
        model = model_of(elman.Tokens(labels=TAGS), elman.Categories(labels=TAGS), pattern=pattern)
        assert model.fit(elman.Windows(series, 4, targets=targets), **QUIET) == expected
        np.testing.assert_array_equal(flat(model), flat(plain))
    text = "".join("abc"[i] for i in numbers)
    plain, model = (
        model_of(inputs(), outputs())
        for inputs, outputs in [
            (lambda: elman.Tokens(3), lambda: elman.Categories(3)),
            (lambda: elman.Tokens(3, labels="fit"), lambda: elman.Categories(3, labels="fit")),
        ]
    )
    assert model.fit(elman.Windows(text, 4), **QUIET) == plain.fit(elman.Windows(numbers, 4), **QUIET)


# What is refused


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: elman.Tokens(), "n must be a positive int, got None"),
        (lambda: elman.Tokens(labels=[]), "labels must hold at least one"),
        (lambda: elman.Tokens(labels=["a", "b", "a"]), "labels must be different, got 'a' more than once"),
        (lambda: elman.Tokens(labels=[1, True]), "labels must be different, got 1 more than once"),
        (lambda: elman.Tokens(labels=["a", ["b"]]), r"labels must be str, int or bool, got \['b'\] at \[1\]"),
        (lambda: elman.Tokens(labels=["a", None]), r"labels must be str, int or bool, got None at \[1\]"),
        (lambda: elman.Tokens(labels=[0.5]), r"labels must be str, int or bool, got 0.5 at \[0\]"),
        (lambda: elman.Tokens(labels="abc"), r"labels must be a list or 'fit', got 'abc': list\('abc'\)"),
        (lambda: elman.Tokens(labels={"a", "b"}), "labels must be a list of str, int or bool, or 'fit', got {'"),
        (lambda: elman.Tokens(labels=7), "labels must be a list of str, int or bool, or 'fit', got 7"),
        (lambda: elman.Tokens(2, labels=["a", "b", "c"]), "n must have room for 3 labels, got 2: without it, it is"),
        (lambda: elman.Tokens("2", labels=["a"]), "n must be a positive int, got '2'"),
        (lambda: elman.Tokens(labels="fit"), "n must be a positive int with labels='fit', which it has room for, got"),
        (
            lambda: elman.Tokens(3, labels="fit", embedding=np.ones((3, 2))),
            "labels must be a list where there is an embedding, whose rows are in its order, got 'fit'",
        ),
        (lambda: elman.Tokens(3, unknown="?"), r"unknown must be None without labels, got '\?'"),
        (lambda: elman.Tokens(labels=["a"], unknown=[1]), r"unknown must be a str, an int or a bool, got \[1\]"),
        (lambda: elman.Categories(2, labels=["a", "b", "c"]), "n must have room for 3 labels, got 2"),
        (
            lambda: model_of(
                elman.Tokens(labels=["a", "b"]), elman.Categories(labels=["b", "a"]), pattern="one-to-many"
            ),
            r"pattern='one-to-many' needs outputs with the labels of the inputs, got Categories\(2, labels=\('b', 'a'",
        ),
        (
            lambda: model_of(elman.Tokens(2), elman.Categories(labels=["b", "a"])).generate(0, 3),
            "generate needs outputs with the labels of the inputs, got Categories",
        ),
        (
            lambda: model_of(
                elman.Tokens(labels=["a", "b"], embedding_dim=5), elman.Categories(labels=["b", "a"]), tied=True
            ),
            r"tied=True needs outputs with the labels of the inputs, got Categories\(2, labels=\('b', 'a'\)\) and Tok",
        ),
        (
            lambda: model_of(elman.Tokens(labels=["a", "b"]), elman.Categories(labels=["a", "b"])).generate(
                "a", 3, end="z"
            ),
            r"end must be one of the labels \['a', 'b'\], got 'z'",
        ),
    ],
)
def test_bad_labels(function: Callable[[], Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        function()


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (
            [["the"], ["the", "dog"]],
            None,
            r"X\[1\] must hold labels among \['the', 'a', .* got 'dog' at \[1\]: with unk",
        ),
        ([["the", "cats"]], None, r"X\[0\] must hold labels among .* got 'cats' at \[1\]: perhaps 'cat'$"),
        (np.array([["the", "dog"]]), None, r"X must hold labels among .* got 'dog' at \[0, 1\]"),
        ([["the", 0]], None, r"X\[0\] must hold labels among .* got 0 at \[1\]: with unknown='<unk>', Tokens take all"),
        ([["the", (["a"],)]], None, r"X\[0\] must hold labels among .* got \(\['a'\],\) at \[1\]"),
        ([["the", ["a"]]], None, r"X\[0\] must hold labels among .* got \['a'\] at \[1\]"),
        ([["the", None]], None, r"X\[0\] must hold labels among .* got None at \[1\]"),
        (
            ["the cat"],
            None,
            r"X\[0\] must be a sequence of labels, got 'the cat': a list of some, as of 'the cat'\.split",
        ),
        ([["the"], []], [["noun"], []], r"X\[1\] must not have an empty axis"),
        (["the"], [["noun"]], r"X\[0\] must be a sequence of labels, got 'the'"),
        ("the", [["noun"]], "X must be a list of sequences or an array"),
        (
            [["the"]],
            [["nomen"]],
            r"Y\[0\] must hold labels among \['noun', 'verb', 'other'\], or None where there is no",
        ),
        ([["the"]], [["nun"]], r"Y\[0\] must hold .* no target, got 'nun' at \[0\]: perhaps 'noun'"),
        ([["the"]], [[-1]], r"Y\[0\] must hold .* no target, got -1 at \[0\]$"),
    ],
)
def test_labels_that_there_are_not(X: Any, Y: Any, message: str):
    model = model_of(elman.Tokens(labels=WORDS), elman.Categories(labels=TAGS))
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        model.predict(X) if Y is None else model.fit(X, Y, **QUIET)


@pytest.mark.parametrize("unknown", [None, -1])
def test_floats_and_bytes_are_no_labels(unknown: Any):
    model = model_of(elman.Tokens(labels=[0, 1, 2], unknown=unknown), elman.Categories(labels=[0, 1]))
    for call in (
        lambda: model.predict(np.array([[0.5, np.nan]])),
        lambda: model.predict([np.array([0.0, 1.0])]),
        lambda: model.stream().predict(np.array([1.0])),
    ):
        with pytest.raises(TypeError, match=r"^(X|X\[0\]|x) must hold labels, str, int or bool, got float64 of shape"):
            call()
    with pytest.raises(TypeError, match=r"^X must hold labels, str, int or bool, got \|S1 of shape \(1, 1\)"):
        model_of(elman.Tokens(labels=["a"], unknown="?"), elman.Binary()).predict(np.array([[b"a"]]))
    with pytest.raises(TypeError, match=r"^Y must hold labels, str, int or bool, got float64 of shape \(1, 2\)"):
        model.fit([[0, 1]], np.array([[0.0, np.nan]]), **QUIET)


def test_str_without_labels_has_a_cure():
    model = model_of(elman.Tokens(5), elman.Categories(3))
    with pytest.raises(TypeError, match=r"^X\[0\] must hold integers, got <U3 .*: tokens and categories may be str if"):
        model.predict([["the"]])
    with pytest.raises(TypeError, match=r"^X must be a list of sequences"):
        model.predict(["the"])


def test_many_labels_are_shown_in_short_and_compared_in_full():
    words = [f"word {i}" for i in range(1000)]
    one, other = elman.Tokens(labels=words), elman.Tokens(labels=[*words[:-1], "other"])
    assert len(repr(one)) < 200
    assert one != other
    assert hash(one) == hash(elman.Tokens(labels=tuple(words)))
    assert one == elman.Tokens(labels=np.array(words))
    assert repr(elman.Tokens(labels=["a", "b"])) == "Tokens(2, labels=('a', 'b'))"
    with pytest.raises(AttributeError, match="labels of Tokens is fixed"):
        one.labels = ["a"]


def test_labels_become_integers_once(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator):
    """What is there, whatever its form; not in each epoch again."""
    calls, codes_of = [], Coder.codes
    monkeypatch.setattr(Coder, "codes", lambda *args, **options: calls.append(0) or codes_of(*args, **options))
    for words, tags in ((WORDS, TAGS), ([7, 1, 3, 2, 0], [5, 0, 1])):
        X, Y = said(codes(rng, 5, [4] * 6), words), said(codes(rng, 3, [4] * 6), tags)
        for form in (lambda rows: rows, objects, lambda rows: [np.array(row) for row in rows], np.array, np.int8):
            if form is np.int8 and words is WORDS:
                continue
            x, y = form(X), form(Y)
            calls.clear()
            model_of(elman.Tokens(labels=words), elman.Categories(labels=tags)).fit(x, y, **QUIET | {"epochs": 5})
            assert len(calls) == (2 if isinstance(x, np.ndarray) else 12)


def test_classes_of_whole_sequences_are_no_tokens():
    """Though there is room for as many; where both are at each step, one may become the other."""
    kinds = elman.Tokens(9, labels="fit"), elman.Categories(9, labels="fit")
    model = elman.SequenceModel(*kinds, pattern="many-to-one", hidden_size=3, seed=0)
    model.fit([["a", "b"], ["c"]], ["good", "bad"], progress=False)
    assert (model.inputs.labels, model.outputs.labels) == (("a", "b", "c"), ("bad", "good"))
    tagger = elman.SequenceModel(*kinds, hidden_size=3, seed=0)
    tagger.fit([["a", "b"]], [["A", "B"]], progress=False)
    assert tagger.inputs.labels == tagger.outputs.labels == ("A", "B", "a", "b")
    tied = elman.Tokens(9, labels="fit", embedding_dim=3), kinds[1]
    model = elman.SequenceModel(*tied, pattern="many-to-one", hidden_size=3, tied=True, seed=0)
    model.fit([["a", "b"], ["c"]], ["a", "d"], progress=False)
    assert model.inputs.labels == model.outputs.labels == ("a", "b", "c", "d")
