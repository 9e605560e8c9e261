"""Seq2Seq: the loss by hand, gradients, search against trying everything, data sets, files, runs that go on."""

import copy
import fnmatch
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

import elman
from elman.models.base import network_of

from ..compare import assert_same_bits

V, N, H = 5, 3, 6
backend_names = pytest.mark.parametrize("backend", elman.available_backends())
compiled_names = pytest.mark.parametrize("backend", [name for name in elman.available_backends() if name != "numpy"])
kinds = pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"inputs": "features", "num_layers": 2},
        {"inputs": "features", "bidirectional": True, "class_weights": [1, 2, 3, 0.5, 1]},
        {"num_layers": 2, "bidirectional": True, "learn_h_0": True},
        {"inputs": "features", "learn_h_0": True, "leak": 0.4, "form": "potential", "learn_leak": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)


def make(*, inputs: str = "tokens", class_weights: Any = None, **options: Any) -> elman.Seq2Seq:
    options = {"hidden_size": H, "dtype": "float64", "seed": 4} | options
    kind = elman.Tokens(V) if inputs == "tokens" else elman.Features(N)
    model = elman.Seq2Seq(kind, elman.Categories(V, class_weights=class_weights), **options)
    if model.learn_h_0:  # which are zeros at first
        h_0 = model.parameters()["h_0"]
        assert h_0.shape == (model.encoder.num_layers * (1 + model.encoder.bidirectional), options["hidden_size"])
        assert not h_0.any()
        h_0[...] = np.random.default_rng(1).uniform(-1, 1, h_0.shape)
    return model


def pairs(model: elman.Seq2Seq, rng: np.random.Generator, n: int = 9) -> tuple[list[Any], list[Any]]:
    """Random ones of unequal lengths, and an empty target."""
    lengths = rng.integers(1, 7, n)
    if isinstance(model.inputs, elman.Tokens):
        X = [rng.integers(0, V, k) for k in lengths]
    else:
        X = [rng.standard_normal((k, N)) for k in lengths]
    return X, [rng.integers(0, V, k) for k in [0, *rng.integers(1, 8, n - 1)]]


def first_states(model: elman.Seq2Seq, x: np.ndarray) -> np.ndarray:
    """The decoder's (L, D·H), by the encoder alone."""
    _, h_n = model.encoder(np.eye(V)[x] if x.dtype == int else x, model.parameters().get("h_0"))
    return h_n.reshape(model.encoder.num_layers, -1)


def log_probabilities(model: elman.Seq2Seq, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each next token, and of the end, after each beginning of y: (T + 1, V + 1)."""
    h, _ = model.decoder(np.eye(V + 1)[[V, *y]], first_states(model, x))
    o = h @ model.parameters()["weight_ho"].T + model.parameters()["bias_o"]
    return o - np.log(np.exp(o).sum(axis=-1, keepdims=True))


def loss_by_hand(model: elman.Seq2Seq, X: list[Any], Y: list[Any]) -> float:
    sums = np.zeros(2)
    w = np.ones(V + 1)
    if model.outputs.class_weights is not None:
        w[:V] = model.outputs.class_weights
    for x, y in zip(X, Y, strict=True):
        for token, log_p in zip([*y, V], log_probabilities(model, x, y), strict=True):
            sums += w[token] * np.array([-log_p[token], 1])
    return sums[0] / sums[1]


@backend_names
@kinds
def test_loss_by_hand(options: dict[str, Any], backend: str, rng: np.random.Generator):
    model = make(**options, backend=backend)
    X, Y = pairs(model, rng)
    expected = loss_by_hand(model, X, Y)
    for batch_size in (1, 4, 99):
        assert model.evaluate(X, Y, batch_size=batch_size)["loss"] == pytest.approx(expected, rel=1e-12)
    history = model.fit(X, Y, epochs=1, batch_size=99, optimizer=elman.SGD(0.1), progress=False)
    assert history["loss"] == [pytest.approx(expected, rel=1e-12)]
    assert model.evaluate(X, Y)["loss"] < expected


def penalty_by_hand(model: elman.Seq2Seq, X: list[Any], Y: list[Any], l1: float, l2: float) -> float:
    read = [np.eye(V + 1)[[V, *y]] for y in Y]
    h = np.concatenate([model.decoder(y, first_states(model, x))[0] for x, y in zip(X, read, strict=True)])
    return l1 * float(np.abs(h).mean()) + l2 * float((h**2).mean())


@backend_names
@kinds
def test_penalties_on_the_decoder(options: dict[str, Any], backend: str, rng: np.random.Generator):
    model = make(**options, backend=backend)
    X, Y = pairs(model, rng)
    before, given = model.state_dict(), {"epochs": 1, "batch_size": 99, "progress": False}
    losses, gradients = [], []
    for penalties in ({}, {"activation_l1": 0.3, "activation_l2": 0.7}):
        model.load_state_dict(before)
        losses += model.fit(X, Y, optimizer=elman.SGD(1.0), **given, **penalties)["loss"]
        gradients.append({name: before[name] - array for name, array in model.parameters().items()})
    model.load_state_dict(before)
    assert losses[1] - losses[0] == pytest.approx(penalty_by_hand(model, X, Y, 0.3, 0.7), rel=1e-10)

    def value(parameters: dict[str, np.ndarray]) -> float:
        model.load_state_dict(parameters)
        return penalty_by_hand(model, X, Y, 0.3, 0.7)

    for _ in range(3):
        along = {name: rng.standard_normal(array.shape) for name, array in before.items()}
        ahead, behind = (value({name: before[name] + e * along[name] for name in before}) for e in (1e-6, -1e-6))
        slope = sum(((gradients[1][name] - gradients[0][name]) * along[name]).sum() for name in before)
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-8)


@backend_names
@kinds
def test_central_differences(options: dict[str, Any], backend: str, rng: np.random.Generator):
    """A step of plain gradient descent shows the gradient; losses around it show whether it is right."""
    model = make(**options, backend=backend)
    X, Y = pairs(model, rng)
    moved, before = copy.deepcopy(model), model.state_dict()
    moved.fit(X, Y, epochs=1, batch_size=99, optimizer=elman.SGD(1.0), progress=False)
    gradients = {name: before[name] - array for name, array in moved.parameters().items()}

    def value(parameters: dict[str, np.ndarray]) -> float:
        model.load_state_dict(parameters)
        return model.evaluate(X, Y)["loss"]

    for _ in range(5):
        along = {name: rng.standard_normal(array.shape) for name, array in before.items()}
        ahead, behind = (value({name: before[name] + e * along[name] for name in before}) for e in (1e-6, -1e-6))
        slope = sum((gradients[name] * along[name]).sum() for name in before)
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-7)


@backend_names
def test_first_states_are_learned_or_not(backend: str, rng: np.random.Generator):
    X, Y = pairs(make(), rng)

    def fitted(trainable: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        model = make(bidirectional=True, learn_h_0=True, backend=backend)
        before = model.state_dict()
        model.fit(X, Y, epochs=1, batch_size=99, optimizer=elman.SGD(1.0), trainable=trainable, progress=False)
        return before, model.state_dict()

    before, whole = fitted()
    assert (before["h_0"] != whole["h_0"]).all()
    for trainable in (["h_0"], ["encoder.*"], ["decoder.*"], ["h_0", "weight_ho"]):
        after = fitted(trainable)[1]
        for name, array in after.items():
            is_trained = any(fnmatch.fnmatch(name, pattern) for pattern in trainable)
            expected = (whole if is_trained else before)[name]
            np.testing.assert_array_equal(array, expected, err_msg=f"{trainable}: {name}")


def test_files_without_first_states_are_as_they_were(tmp_path: Any):
    plain, learned = make(), make(learn_h_0=True)
    assert "learn_h_0" not in network_of(plain).config()
    assert list(learned.parameters()) == [*list(plain.parameters())[:-2], "h_0", "weight_ho", "bias_o"]
    learned.save(tmp_path / "model")
    assert elman.load(tmp_path / "model").learn_h_0
    state = plain.__getstate__()
    del state["learn_h_0"]  # as pickles of 0.1 are
    old = elman.Seq2Seq.__new__(elman.Seq2Seq)
    old.__setstate__(state)
    assert repr(old) == repr(plain)
    with pytest.raises(TypeError, match="learn_h_0 must be True or False, got 1"):
        elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=H, learn_h_0=1)  # type: ignore[arg-type]


def sharpened(model: elman.Seq2Seq) -> elman.Seq2Seq:
    """Larger weights, so that distributions differ."""
    for array in model.parameters().values():
        array *= 3
    return model


def best_of_all(model: elman.Seq2Seq, x: np.ndarray, limit: int) -> list[int]:
    """The sequence with the highest mean log-probability, of all; those of `limit` tokens need no end."""
    scores = {}
    for n in range(limit + 1):
        for y in itertools.product(range(V), repeat=n):
            log_p = log_probabilities(model, x, np.array(y, dtype=int))
            tokens = list(y) if n == limit else [*y, V]
            scores[y] = np.mean([log_p[t, token] for t, token in enumerate(tokens)])
    return list(max(scores, key=lambda y: scores[y]))


@backend_names
def test_a_wide_beam_finds_the_best_of_all(backend: str, rng: np.random.Generator):
    model = sharpened(make(backend=backend))
    model.parameters()["bias_o"][V] += 1.5  # ends are as likely as tokens
    X, _ = pairs(model, rng, 6)
    wide = model.predict(X, beam=4 * V**3, max_length=3)
    assert [tokens.tolist() for tokens in wide] == [best_of_all(model, x, 3) for x in X]
    assert len({len(tokens) for tokens in wide}) > 1


@backend_names
@kinds
def test_a_beam_of_one_takes_the_likeliest(options: dict[str, Any], backend: str, rng: np.random.Generator):
    model = sharpened(make(**options, backend=backend))
    X, _ = pairs(model, rng, 20)
    predicted = model.predict(X)
    assert len({len(tokens) for tokens in predicted}) > 1
    for x, tokens in zip(X, predicted, strict=True):
        assert tokens.dtype == np.int64
        greedy: list[int] = []
        while len(greedy) < 2 * len(x) + 10:
            token = int(log_probabilities(model, x, np.array(greedy, dtype=int))[-1].argmax())
            if token == V:
                break
            greedy.append(token)
        assert tokens.tolist() == greedy
    for limit in (0, 1, 3):
        cut = model.predict(X, max_length=limit)
        assert [tokens.tolist() for tokens in cut] == [tokens[:limit].tolist() for tokens in predicted]


@compiled_names
@kinds
def test_predictions_do_not_depend_on_the_batch(
    options: dict[str, Any], backend: str, dtype: str, rng: np.random.Generator
):
    model = sharpened(make(**options, backend=backend, dtype=dtype))
    X, _ = pairs(model, rng, 15)
    for beam in (1, 3):
        together = model.predict(X, beam=beam)
        alone = [model.predict([x], beam=beam)[0] for x in X]
        by_two = model.predict(X, beam=beam, batch_size=2)
        for one, two, three in zip(together, alone, by_two, strict=True):
            assert one.tolist() == two.tolist() == three.tolist()


def test_exact_is_what_predict_gets_right(rng: np.random.Generator):
    model = sharpened(make())
    X, Y = pairs(model, rng, 12)
    predicted = model.predict(X, max_length=30)
    mixed = [p if i % 3 else y for i, (p, y) in enumerate(zip(predicted, Y, strict=True))]
    right = [p.tolist() == y.tolist() and len(p) < 30 for p, y in zip(predicted, mixed, strict=True)]
    assert 0 < sum(right) < 12
    assert model.evaluate(X, mixed)["exact"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_training_curves_of_all_backends_agree(bidirectional: bool, rng: np.random.Generator):
    X, Y = pairs(make(), rng, 30)
    curves = []
    for backend in elman.available_backends():
        model = make(bidirectional=bidirectional, num_layers=2, dropout=0.2, backend=backend)
        options = {"epochs": 8, "batch_size": 5, "optimizer": elman.Adam(0.02), "progress": False}
        curves.append(model.fit(X, Y, **options, validation_data=(X, Y)))
    assert list(curves[0]) == ["loss", "val_loss", "val_exact"]
    assert curves[0]["loss"][-1] < curves[0]["loss"][0]
    for curve in curves[1:]:
        for name, values in curve.items():
            np.testing.assert_allclose(values, curves[0][name], rtol=1e-9, atol=1e-9)


class Stop(Exception):
    pass


@pytest.mark.parametrize("own", [{}, {"learn_h_0": True}], ids=str)
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(own: dict[str, Any], tmp_path: Any, rng: np.random.Generator):
    own = {"dropout": 0.3, "num_layers": 2, "bidirectional": True, **own}
    X, Y = pairs(make(), rng, 20)
    options = {"epochs": 3, "batch_size": 6, "progress": False}
    whole = make(**own)
    history = whole.fit(X, Y, **options, callbacks=[lambda _: None])

    class StopAt(elman.Callback):
        def on_step(self, training: Any) -> None:
            if training.steps == 6:
                raise Stop

    options |= {"checkpoint": tmp_path / "run", "checkpoint_every": 1}
    with pytest.raises(Stop):
        make(**own).fit(X, Y, **options, callbacks=[StopAt()])
    model = make(**own, seed=None)
    assert model.fit(X, Y, **options, resume=True, callbacks=[lambda _: None]) == history
    assert_same_bits(model.parameters(), whole.parameters())
    assert_same_bits(elman.load(tmp_path / "run").parameters(), whole.parameters())


@kinds
def test_files_and_copies(options: dict[str, Any], tmp_path: Any, rng: np.random.Generator):
    model = sharpened(make(**options, dtype="float32", dropout=0.25))
    X, Y = pairs(model, rng)
    model.metadata = {"vocabulary": "abc"}
    model.save(tmp_path / "model")
    expected = model.evaluate(X, Y)
    for twin in (elman.load(tmp_path / "model"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin) == repr(model)
        assert twin.metadata == model.metadata
        assert_same_bits(twin.parameters(), model.parameters())
        assert twin.evaluate(X, Y) == expected
        for array in twin.parameters().values():
            array[...] = 0
        layers = (twin.encoder, twin.decoder)
        assert not any(array.any() for layer in layers for array in layer.parameters().values()), "arrays are live"
    assert model.evaluate(X, Y) == expected
    model = make(hidden_size=100)
    assert len(pickle.dumps(model)) < 1.2 * network_of(model).parameters.flat.nbytes
    loaded = elman.reference.load(tmp_path / "model")
    assert type(loaded) is elman.reference.Seq2Seq
    assert loaded.evaluate(X, Y)["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_parameters_by_name():
    model = make(bidirectional=True, num_layers=2)
    names = [f"encoder.{name}" for name in model.encoder.parameters()]
    names += [f"decoder.{name}" for name in model.decoder.parameters()]
    assert list(model.parameters()) == [*names, "weight_ho", "bias_o"]
    assert model.parameters()["weight_ho"].shape == (V + 1, 2 * H)
    assert model.parameters()["decoder.weight_ih_l0"].shape == (2 * H, V + 1)
    bound = H**-0.5
    largest = {name: np.abs(array).max() for name, array in model.parameters().items()}
    assert all(0.5 * bound < value <= bound for name, value in largest.items() if name.startswith("encoder"))
    assert 0.4 * bound < largest["weight_ho"] <= (2 * H) ** -0.5
    expected = "Seq2Seq(Tokens(5), Categories(5), hidden_size=6, num_layers=2, bidirectional=True, dtype='float64')"
    assert repr(model).startswith(expected + " with ")
    model.encoder.parameters()["weight_hh_l1"][...] = 7
    assert (model.parameters()["encoder.weight_hh_l1"] == 7).all()
