"""Resets of models: whatever is done with sequences that begin anew is done with the pieces that they consist of."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from ..compare import assert_same_bits

T, B, N = 12, 5, 3
LENGTHS = np.array([12, 3, 0, 7, 11])
BACKENDS = elman.available_backends()
COMPILED = [name for name in BACKENDS if name != "numpy"]
KINDS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "learn_h_0": True},
    {"leak": 0.3, "learn_leak": True, "learn_h_0": True},
    {"leak": 0.3, "form": "potential", "num_layers": 2, "learn_h_0": True, "nonlinearity": "softplus"},
]


def make(pattern: str = "many-to-many", **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 7, "seed": 1, "dtype": "float64"} | options
    model = elman.SequenceModel(elman.Features(N), elman.Reals(2), pattern=pattern, **options)
    if model.learn_h_0:
        model.parameters()["h_0"][...] = np.random.default_rng(2).uniform(-0.5, 0.5, model.parameters()["h_0"].shape)
    return model


def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and resets, (T, B, ·): one at step 0, two in a row, and some beyond the lengths."""
    resets = rng.random((T, B)) < 0.25
    resets[0, 0], resets[4:6, 4], resets[-1] = True, True, True
    return rng.standard_normal((T, B, N)), rng.standard_normal((T, B, 2)), resets


def pieces(lengths: Any, resets: np.ndarray) -> list[tuple[int, slice]]:
    """Of each row, what is between resets."""
    found = []
    for b, n in enumerate(np.full(B, T) if lengths is None else lengths):
        ends = sorted({0, *np.flatnonzero(resets[:n, b]).tolist(), int(n)})
        found += [(b, slice(*ends_)) for ends_ in itertools.pairwise(ends)]
    return found


def side_by_side(array: np.ndarray, where: list[tuple[int, slice]]) -> np.ndarray:
    out = np.zeros((T, len(where), array.shape[2]))
    for i, (b, steps) in enumerate(where):
        out[: steps.stop - steps.start, i] = array[steps, b]
    return out


def check_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-12 * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_gradients_are_those_of_pieces(rng: np.random.Generator, options: Any, lengths: Any, backend: str):
    model, (x, y, resets) = make(backend=backend, **options), data(rng)
    where = pieces(lengths, resets)
    lengths_ = np.array([steps.stop - steps.start for _, steps in where])
    loss, gradients = model.loss_and_grads(x, y, lengths=lengths, resets=resets)
    expected = model.loss_and_grads(side_by_side(x, where), side_by_side(y, where), lengths=lengths_)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    check_close(gradients, expected[1])
    assert model.loss(x, y, lengths=lengths, resets=resets) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_one_output_is_about_what_follows_the_last_reset(rng: np.random.Generator, options: Any, backend: str):
    model, (x, y, resets) = make("many-to-one", backend=backend, **options), data(rng)
    lengths = np.maximum(LENGTHS, 1)
    last = {b: piece for b, piece in pieces(lengths, resets)}  # noqa: C416 - the last one of each row
    where = list(last.items())
    lengths_ = np.array([steps.stop - steps.start for _, steps in where])
    loss, gradients = model.loss_and_grads(x, y[0], lengths=lengths, resets=resets)
    expected = model.loss_and_grads(side_by_side(x, where), y[0], lengths=lengths_)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    check_close(gradients, expected[1])
    X, R = ([array[:n, b] for b, n in enumerate(lengths)] for array in (x, resets))
    np.testing.assert_allclose(
        model.predict(X, resets=R), model.predict([x[steps, b] for b, steps in where]), rtol=1e-12
    )


@pytest.mark.parametrize("options", KINDS[1:], ids=str)
def test_central_differences_by_h_0(rng: np.random.Generator, options: Any):
    model, (x, y, resets) = make(**options), data(rng)
    gradient, h_0 = model.loss_and_grads(x, y, resets=resets)[1]["h_0"], model.parameters()["h_0"]
    for where in np.ndindex(h_0.shape):
        losses, before = [], h_0[where]
        for step in (1e-5, -1e-5):
            h_0[where] = before + step
            losses.append(model.loss(x, y, resets=resets))
        h_0[where] = before
        assert gradient[where] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("is_array", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_and_scores_of_data_sets(rng: np.random.Generator, is_array: bool, backend: str):
    model, (x, y, resets) = make(backend=backend, **KINDS[1]), data(rng)
    lengths = np.full(B, T) if is_array else np.maximum(LENGTHS, 1)
    X, Y, R = ([array[:n, b] for b, n in enumerate(lengths)] for array in (x, y, resets))
    where = pieces(lengths, resets)
    parts = model.predict([x[steps, b] for b, steps in where])
    given = [np.stack(rows) for rows in (X, Y, R)] if is_array else [X, Y, R]
    predicted = model.predict(given[0], resets=given[2], batch_size=2)
    for (b, steps), part in zip(where, parts, strict=True):
        if backend == "numpy":
            np.testing.assert_allclose(predicted[b][steps], part, rtol=1e-12, atol=1e-14)
        else:
            assert_same_bits({"y": predicted[b][steps]}, {"y": part})
    scores = model.evaluate(*given[:2], resets=given[2])
    expected = model.evaluate([x[steps, b] for b, steps in where], [y[steps, b] for b, steps in where])
    assert scores == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "learn_h_0": True, "dropout": 0.3, "recurrent_dropout": 0.2}]
)
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("backend", COMPILED)
def test_recomputation_has_the_bits_of_a_full_tape(rng: np.random.Generator, options: Any, pattern: str, backend: str):
    x, y, resets = data(rng)
    y, lengths = (y, LENGTHS) if pattern == "many-to-many" else (y[0], np.maximum(LENGTHS, 1))
    found = [
        make(pattern, backend=backend, **options).loss_and_grads(x, y, lengths=lengths, resets=resets, memory=memory)
        for memory in (None, 1, 5, 11, "20kB")
    ]
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-12)
        assert_same_bits(gradients, found[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_that_are_carried(rng: np.random.Generator, backend: str):
    """A state goes into the first piece, and comes out of the last one."""
    model, (x, y, resets) = make(backend=backend, num_layers=2), data(rng)
    state = rng.standard_normal((2, B, 7))
    carried, apart = state.copy(), state.copy()
    model.loss(x, y, state=carried, resets=resets)
    for t in range(T):
        apart[:, resets[t]] = 0
        model.loss(x[t : t + 1], y[t : t + 1], state=apart)
    np.testing.assert_allclose(carried, apart, rtol=1e-12, atol=1e-15)
    stepped = state.copy()
    model.train_step(x, y, state=stepped, resets=resets, optimizer=elman.SGD(0.1))
    np.testing.assert_array_equal(stepped, carried)


@pytest.mark.parametrize("options", [{}, {"learn_h_0": True, "num_layers": 2}], ids=str)
def test_windows_carry_states_up_to_resets(rng: np.random.Generator, options: Any):
    """All begin anew with the second window of two, so that each is a batch by itself."""
    x, y, resets = data(rng)
    resets[0] = False
    resets[6] = True
    model, other = make(**options), make(**options)
    X, Y, R = (list(array.swapaxes(0, 1)) for array in (x, y, resets))
    given = {"optimizer": elman.SGD(0.1), "progress": False, "epochs": 1, "shuffle": False}
    model.fit(X, Y, resets=R, tbptt=(6, 6), **given)
    optimizer = elman.SGD(0.1)
    for part in (slice(0, 6), slice(6, 12)):
        other.train_step(x[part], y[part], resets=resets[part], optimizer=optimizer)
    check_close(model.parameters(), other.parameters())


def test_windows_beside_states_by_hand(rng: np.random.Generator):
    x, y, resets = data(rng)
    model, other, optimizer, state = make(), make(), elman.SGD(0.1), np.zeros((1, B, 7))
    X, Y, R = (array.swapaxes(0, 1) for array in (x, y, resets))
    model.fit(X, Y, resets=R, tbptt=(5, 5), optimizer=elman.SGD(0.1), progress=False, epochs=1, shuffle=False)
    for start in range(0, T, 5):
        part = slice(start, start + 5)
        other.train_step(x[part], y[part], resets=resets[part], state=state, optimizer=optimizer)
    check_close(model.parameters(), other.parameters())


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("batch_size", [None, B])
def test_streams(rng: np.random.Generator, options: Any, batch_size: int | None):
    model, (x, _, resets) = make(**options), data(rng)
    x, resets = (x, resets) if batch_size else (x[:, 4], resets[:, 4])
    whole, parts = model.stream(batch_size), model.stream(batch_size)
    expected = whole.predict(x, resets=resets)
    cuts = [0, 1, 4, 5, 6, T]
    got = [parts.predict(x[i:j], resets=resets[i:j]) for i, j in itertools.pairwise(cuts)]
    assert_same_bits({"y": np.concatenate(got)}, {"y": expected})
    assert_same_bits({"state": parts.state}, {"state": whole.state})
    stepped = model.stream(batch_size)
    for t in range(T):
        if resets[t].any():
            stepped.reset(np.flatnonzero(resets[t]))
        assert_same_bits({"y": stepped.predict(x[t : t + 1])}, {"y": expected[t : t + 1]})


def test_fit_in_all_forms_and_a_run_that_goes_on(rng: np.random.Generator, tmp_path: Path):
    x, y, resets = (array.swapaxes(0, 1) for array in data(rng))
    given = {"epochs": 3, "batch_size": 2, "progress": False, "optimizer": elman.Adam(0.01)}
    options = {"dropout": 0.2, "num_layers": 2, "learn_h_0": True}
    whole = make(**options)
    history = whole.fit(x, y, resets=resets, validation_data=(x, y, None, resets), **copy.deepcopy(given))
    listed = make(**options)
    listed.fit(list(x), list(y), resets=resets.tolist(), **copy.deepcopy(given))
    assert_same_bits(listed.parameters(), whole.parameters())
    assert history["val_loss"][-1] == whole.evaluate(x, y, resets=resets, batch_size=2)["loss"]
    path, cut = tmp_path / "run", make(**options)
    cut.fit(x, y, resets=resets, checkpoint=path, **copy.deepcopy(given) | {"epochs": 1})
    again = make(**options)
    for others, what in ((None, "None"), (~resets, "5 sequences of 60 steps")):
        with pytest.raises(ValueError, match=f"another run: resets is {what}.* here, it was 5 sequences of 60 steps"):
            again.fit(x, y, resets=others, checkpoint=path, resume=True, **copy.deepcopy(given))
    again.fit(x, y, resets=resets, checkpoint=path, resume=True, **copy.deepcopy(given))
    assert_same_bits(again.parameters(), whole.parameters())


def test_batches_of_a_function(rng: np.random.Generator):
    x, y, resets = (array.swapaxes(0, 1) for array in data(rng))
    given = {"epochs": 2, "batch_size": 5, "progress": False, "shuffle": False}
    one, other = make(), make()
    one.fit(x, y, resets=resets, **given)
    other.fit(lambda: iter([(x, y, None, resets)]), **given)
    assert_same_bits(other.parameters(), one.parameters())
    with pytest.raises(ValueError, match=r"resets of batch 0\[0\] must have shape \(12,\), got \(11,\)"):
        other.fit(lambda: iter([(x, y, None, list(resets[:, 1:]))]), **given)
    with pytest.raises(ValueError, match="resets must be None where X is a function that returns it"):
        other.fit(lambda: iter([(x, y)]), resets=resets, **given)


def test_noise_is_that_of_places(rng: np.random.Generator):
    x, y, resets = data(rng)
    found = [
        make(leak=0.2, noise=0.3, learn_leak=True, num_layers=2, backend=backend).loss_and_grads(
            x, y, resets=resets, noise_seed=5, lengths=LENGTHS
        )
        for backend in BACKENDS
    ]
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-12)
        check_close(gradients, found[0][1])


def test_none_at_all_is_as_without(rng: np.random.Generator):
    x, y, _ = data(rng)
    model, none = make(**KINDS[1]), np.zeros((T, B), bool)
    (loss, gradients), expected = model.loss_and_grads(x, y, resets=none), model.loss_and_grads(x, y)
    assert loss == expected[0]
    assert_same_bits(gradients, expected[1])


# What is refused


def test_models_that_cannot_begin_anew(rng: np.random.Generator):
    x, y, resets = data(rng)
    both, single = make(bidirectional=True), make("one-to-one")
    calls = [
        lambda m, x, y, r: m.train_step(x, y, optimizer=elman.SGD(0.1), resets=r),
        lambda m, x, y, r: m.loss(x, y, resets=r),
        lambda m, x, y, r: m.loss_and_grads(x, y, resets=r),
        lambda m, x, y, r: m.fit(x, y, resets=r, progress=False),
        lambda m, x, y, r: m.evaluate(x, y, resets=r),
        lambda m, x, _, r: m.predict(x, resets=r),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^resets must be None with bidirectional=True: that direction begins"):
            call(both, x, y, resets)
        with pytest.raises(
            ValueError, match=r"^resets must be None with pattern='one-to-one', whose input comes first"
        ):
            call(single, x[0], y[0], resets[:1])
    with pytest.raises(ValueError, match=r"^validation_data\[3\] must be None with bidirectional=True"):
        both.fit(x, y, validation_data=(x, y, None, resets), progress=False)


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (np.ones((T, B), int), TypeError, r"resets must hold bool, got int64 of shape \(12, 5\): compare"),
        (np.ones((B, T), bool), ValueError, r"resets must have shape \(12, 5\), got \(5, 12\)"),
        (np.ones(T, bool), ValueError, r"resets must have shape \(12, 5\), got \(12,\)"),
    ],
)
def test_wrong_resets_of_batches(rng: np.random.Generator, resets: Any, error: type[Exception], message: str):
    model, (x, y, _) = make(), data(rng)
    before = copy.deepcopy(model.parameters())
    for call in (model.loss, model.loss_and_grads, lambda *a, **k: model.train_step(*a, optimizer=elman.SGD(1), **k)):
        with pytest.raises(error, match=message):
            call(x, y, resets=resets)
    with pytest.raises(error, match=message):
        model.stream(B).predict(x, resets=resets)
    assert_same_bits(model.parameters(), before)


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (True, TypeError, r"resets must be a list of sequences or an array"),
        ([np.ones(4, bool)], ValueError, r"resets must have as many sequences as X, 2, got 1"),
        ([np.ones(4, bool)] * 2, ValueError, r"resets\[1\] must have shape \(3,\), got \(4,\)"),
        ([np.ones(4, bool), [0, 1, 0]], TypeError, r"resets\[1\] must hold bool, got int64"),
        (np.ones((2, 4), bool), ValueError, r"resets\[1\] must have as many steps as X\[1\], 3, got 4"),
        ([True, False], ValueError, r"resets\[0\] must have shape \(4,\), got \(\)"),
    ],
)
def test_wrong_resets_of_data_sets(rng: np.random.Generator, resets: Any, error: type[Exception], message: str):
    model, X, Y = make(), [rng.random((4, N)), rng.random((3, N))], [rng.random((4, 2)), rng.random((3, 2))]
    for call in (model.evaluate, lambda X, Y, **k: model.fit(X, Y, **k), lambda X, _, **k: model.predict(X, **k)):
        with pytest.raises(error, match=message):
            call(X, Y, resets=resets)
