"""`fit(scheduled_sampling=)`: what is read in training by hand, whose gradient, and that nothing depends on batches."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elman
from elman.models import scheduled
from elman.models.base import network_of

from ..compare import assert_same_bits
from .test_training import Stop, StopAt

V, N, H = 5, 3, 6
backend_names = pytest.mark.parametrize("backend", elman.available_backends())
RNG = np.random.default_rng(0)
LENGTHS = [1, 7, 3, 1, 5, 2, 4, 6]
TARGETS = [RNG.integers(0, V, n) for n in LENGTHS]
NUMBERS = [RNG.standard_normal((n, 2)) for n in LENGTHS]


def pairs(embedding_dim: int | None = None, **options: Any) -> Any:
    X = [np.random.default_rng(n).integers(0, V, n) for n in LENGTHS]
    model = elman.Seq2Seq(
        elman.Tokens(V, embedding_dim=embedding_dim), elman.Categories(V), hidden_size=H, seed=4, **options
    )
    return model, X, [TARGETS[0][:0], *TARGETS[1:]]


def items(inputs: Any, outputs: Any, Y: Any, **options: Any) -> Any:
    tokens = isinstance(inputs, elman.Tokens)
    X = np.arange(len(Y)) % V if tokens else np.random.default_rng(1).standard_normal((len(Y), inputs.n))
    model = elman.SequenceModel(inputs, outputs, pattern="one-to-many", hidden_size=H, seed=4, **options)
    return model, X, Y


MAKERS: dict[str, Callable[..., Any]] = {
    "pairs": lambda **options: pairs(bidirectional=True, **options),
    "pairs, two layers": lambda **options: pairs(num_layers=2, form="potential", leak=0.5, **options),
    "categories": lambda **options: items(elman.Features(N), elman.Categories(V), TARGETS, **options),
    "tokens": lambda **options: items(elman.Tokens(V + 1), elman.Categories(V), TARGETS, num_layers=2, **options),
    "embedded tokens": lambda **options: items(
        elman.Tokens(V, embedding_dim=3), elman.Categories(V), TARGETS, **options
    ),
    "pairs, embedded": lambda **options: pairs(embedding_dim=3, **options),
    "labels": lambda **options: items(elman.Features(N), elman.Binary(2), [y > 0 for y in NUMBERS], **options),
    "numbers": lambda **options: items(elman.Features(N), elman.Reals(2), NUMBERS, **options),
}
kinds = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def sharpened(model: Any) -> Any:
    """Larger weights, so that predictions differ from step to step."""
    for array in model.parameters().values():
        array *= 3
    return model


def batch_of(model: Any, X: Any, Y: Any) -> tuple[Any, Any, np.ndarray]:
    """All rows as one batch, with keys; the network, and the keys."""
    network, data, keys = network_of(model), model._data(X, Y), np.arange(len(X)) * 77
    return network, data.batch(np.arange(len(X)))._replace(keys=keys), keys


def predicted_by_hand(model: Any, x: Any, y: Any) -> Any:
    """What the model puts out at each step that reads the targets, step by step in NumPy."""
    rnn = model.decoder if isinstance(model, elman.Seq2Seq) else model.rnn
    h = np.zeros((rnn.num_layers, rnn.hidden_size))
    tables = np.eye(V + 1) if getattr(model.inputs, "embedding_dim", None) is None else model.parameters()["embedding"]
    if isinstance(model, elman.Seq2Seq):
        _, h = model.encoder(tables[x][:, : model.encoder.input_size])
        h, given = h.reshape(rnn.num_layers, -1), np.eye(V + 1)[[V, *y]]
    elif isinstance(model.inputs, elman.Tokens):
        given = tables[[x, *y[:-1]]]
    else:
        fed = np.eye(V)[y] if isinstance(model.outputs, elman.Categories) else y.astype(float)
        given = np.zeros((len(y), N + fed.shape[1]))
        given[0, :N], given[1:, N:] = x, fed[:-1]
    states, _ = rnn(given, h)
    return states @ model.parameters()["weight_ho"].T + model.parameters()["bias_o"]


@backend_names
@kinds
def test_what_is_read_is_what_is_predicted_from_targets(make: Any, backend: str):
    model, X, Y = make(dtype="float64", backend=backend)
    is_pair = isinstance(model, elman.Seq2Seq)
    sharpened(model).parameters()["bias_o"][-1] += 2.0 if is_pair else 0  # ends are predicted, too
    network, batch, keys = batch_of(model, X, Y)
    n_ends = 0
    read = "y" if is_pair else "x"
    before, after = getattr(batch, read), getattr(network.fed_back(batch, 0.5), read)
    n_changed = 0
    for b, (x, y) in enumerate(zip(X, Y, strict=True)):
        o = predicted_by_hand(model, x, y)
        is_own = scheduled.is_fed_back(keys, len(before), 0.5)[:, b]
        np.testing.assert_array_equal(after[0, b], before[0, b])
        for t in range(1, len(o)):
            prediction = o[t - 1].argmax() if isinstance(model.outputs, elman.Categories) else o[t - 1]
            if isinstance(model.outputs, elman.Binary):
                prediction = prediction > 0
            if is_pair and prediction == V:
                prediction, n_ends = y[t - 1], n_ends + is_own[t - 1]  # the end is not read
            if not is_pair and isinstance(model.inputs, elman.Features):
                category = isinstance(model.outputs, elman.Categories)
                prediction = [*np.zeros(N), *(np.eye(V)[prediction] if category else prediction)]
            expected = prediction if is_own[t - 1] else before[t, b]
            np.testing.assert_allclose(after[t, b], expected, rtol=1e-10, atol=1e-12)
            n_changed += not np.array_equal(after[t, b], before[t, b])
    assert 4 < n_changed < sum(LENGTHS) - 4
    assert not is_pair or n_ends > 0
    whole = getattr(network.fed_back(batch, 1.0), read)
    assert not np.array_equal(whole, after)


@kinds
def test_long_sequences_are_predicted_in_stretches(make: Any):
    """The state goes on from one to the next."""
    model, X, Y = make(dtype="float64")
    longer = [np.concatenate([y] * 40) for y in Y]
    network, batch, _ = batch_of(sharpened(model), X, longer)
    is_pair = isinstance(model, elman.Seq2Seq)
    h_0 = network._encoded(network.modes()[0], batch.x, batch.lengths) if is_pair else network.initial_state(len(X))
    if is_pair:
        reading, given = None, (network._decoder, network.modes()[1], batch.y)
    else:
        reading = network.reading(network.mode(), batch.x)
        given = network.stack, network.mode(), reading.of(batch.x)
    own = h_0, network.raw_outputs, None if reading is None else reading.weights
    read = scheduled.predictions(*given, batch.targets.lengths, *own)
    for b, (x, y) in enumerate(zip(X, longer, strict=True)):
        expected = predicted_by_hand(model, x, y)
        np.testing.assert_allclose(read[: len(expected), b], expected, rtol=1e-9, atol=1e-12)
    assert max(map(len, longer)) > 2 * 64


def test_draws_are_even_and_of_their_own():
    drawn = scheduled.is_fed_back(np.arange(2000), 30, 0.3)
    np.testing.assert_allclose(drawn.mean(axis=1), 0.3, atol=0.05)
    np.testing.assert_allclose(drawn.mean(), 0.3, atol=0.006)
    correlations = np.corrcoef(drawn)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 0.09
    np.testing.assert_array_equal(scheduled.is_fed_back(np.array([7, 3]), 9, 0.3), drawn[:9, [7, 3]])
    assert scheduled.is_fed_back(np.arange(9), 9, 1.0).all()


@backend_names
@kinds
def test_gradients_do_not_go_through_predictions(make: Any, backend: str):
    """Of the same inputs, taken as given, central differences are the gradient of the step."""
    model, X, Y = make(dtype="float64", backend=backend)
    network, batch, _ = batch_of(sharpened(model), X, Y)
    descent = elman.training.plan.Descent.of(elman.SGD(1.0), None, None, None)
    window = elman.data.sequences.Window(network.fed_back(batch, 0.7))
    loss, _ = network.gradients_of(window, None, descent)
    plain, _ = copy_of(model).gradients_of(elman.data.sequences.Window(batch), None, descent)
    assert abs(loss - plain) > 1e-3
    gradient, flat, rng = network.gradients.flat.copy(), network.parameters.flat, np.random.default_rng(5)
    before = flat.copy()
    for _ in range(4):
        along, losses = rng.standard_normal(flat.shape), []
        for e in (1e-6, -1e-6):
            flat[:] = before + e * along
            losses.append(network.gradients_of(window, None, descent)[0])
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(gradient @ along, rel=1e-6, abs=1e-8)


def copy_of(model: Any) -> Any:
    return network_of(pickle.loads(pickle.dumps(model)))


OPTIONS: dict[str, Any] = {"epochs": 4, "batch_size": 3, "progress": False, "clip_norm": 1.0}


def fitted(make: Any, own: dict[str, Any], **options: Any) -> Any:
    model, X, Y = make(**own)
    optimizer = elman.Adam(0.02)
    history = model.fit(X, Y, optimizer=optimizer, **{**OPTIONS, **options})
    return model, history


@backend_names
@kinds
def test_backends_and_what_does_not_matter(make: Any, backend: str):
    own: dict[str, Any] = {"backend": backend, "dtype": "float64", "dropout": 0.2}
    model, history = fitted(make, own, scheduled_sampling=0.6)
    _, reference = fitted(make, own | {"backend": "numpy"}, scheduled_sampling=0.6)
    np.testing.assert_allclose(history["loss"], reference["loss"], rtol=1e-8)
    _, taught = fitted(make, own)
    assert history["loss"][1:] != taught["loss"][1:]
    by_function, _ = fitted(make, own, scheduled_sampling=lambda done, epochs: 0.6 if 0 < done < epochs else 2)
    assert_same_bits(by_function.parameters(), model.parameters())
    by_parts, _ = fitted(make, own, scheduled_sampling=0.6, memory=2)
    for name, array in by_parts.parameters().items():
        np.testing.assert_allclose(array, model.parameters()[name], rtol=1e-9, atol=1e-12)


@kinds
def test_probability_zero_is_teacher_forcing_and_a_schedule_begins_with_it(make: Any):
    taught, history = fitted(make, {})
    for zero in (0, 0.0, np.float32(0), lambda *_: 0):
        model, _ = fitted(make, {}, scheduled_sampling=zero)
        assert_same_bits(model.parameters(), taught.parameters())
    later, _ = fitted(make, {}, scheduled_sampling=lambda done, _: float(done > 2))
    _, other = fitted(make, {}, scheduled_sampling=lambda done, _: float(done > 2))
    assert other["loss"][:2] == history["loss"][:2]
    assert other["loss"][3] != history["loss"][3]
    assert any((later.parameters()[name] != array).any() for name, array in taught.parameters().items())


@kinds
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(make: Any, tmp_path: Any):
    own: dict[str, Any] = {"dropout": 0.2, "noise": 0.05}
    options: dict[str, Any] = {"scheduled_sampling": lambda done, epochs: done / epochs}
    whole, history = fitted(make, own, **options)
    options |= {"checkpoint": tmp_path / "run", "checkpoint_every": 1}
    with pytest.raises(Stop):
        fitted(make, own, **options, callbacks=[StopAt(5)])
    with pytest.raises(ValueError, match=r"scheduled_sampling is 0.5 here, it was a function with factors"):
        fitted(make, own, **{**options, "scheduled_sampling": 0.5}, resume=True)
    with pytest.raises(ValueError, match="scheduled_sampling is None here"):
        fitted(make, own, **{**options, "scheduled_sampling": None}, resume=True)
    model, resumed = fitted(make, own, **options, resume=True)
    assert resumed == history
    assert_same_bits(model.parameters(), whole.parameters())
    generators = zip(network_of(model).generators(), network_of(whole).generators(), strict=True)
    assert all(one.bit_generator.state == other.bit_generator.state for one, other in generators)


def test_what_a_sequence_draws_does_not_depend_on_its_batch():
    """Without a shuffle, and with a learning rate that changes nothing, losses of rows add up, whatever the batches."""
    model, X, Y = pairs(dtype="float64")
    losses = []
    for size in (1, 3, 8):
        twin = pickle.loads(pickle.dumps(model))
        options: dict[str, Any] = {"shuffle": False, "optimizer": elman.SGD(1e-300), "scheduled_sampling": 0.5}
        losses.append(twin.fit(X, Y, **{**OPTIONS, **options, "batch_size": size, "epochs": 2})["loss"])
    np.testing.assert_allclose(losses, losses[:1] * 3, rtol=1e-12)
    assert losses[0][0] != pytest.approx(losses[0][1], rel=1e-9)  # each epoch draws anew


def test_a_function_of_batches_draws_the_same():
    (whole, X, Y), (twin, _, _) = pairs(dtype="float64"), pairs(dtype="float64")
    options: dict[str, Any] = {**OPTIONS, "shuffle": False, "scheduled_sampling": 0.5, "batch_size": 8}
    history = whole.fit(X, Y, **options)
    np.testing.assert_allclose(twin.fit(lambda: iter([(X, Y)]), **options)["loss"], history["loss"], rtol=1e-10)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"scheduled_sampling": 1.5},
        ValueError,
        "scheduled_sampling must be a number from 0 to 1, or a function, got 1.5",
    ),
    ({"scheduled_sampling": float("nan")}, ValueError, "scheduled_sampling must be a number from 0 to 1"),
    ({"scheduled_sampling": "0.5"}, TypeError, "scheduled_sampling must be a number from 0 to 1, or a function"),
    ({"scheduled_sampling": elman.schedules.Cosine}, TypeError, "scheduled_sampling must be a number from 0 to 1"),
    ({"scheduled_sampling": lambda *_: 2}, ValueError, "what scheduled_sampling returns must be a number from 0 to 1"),
    ({"scheduled_sampling": 0.5, "tbptt": (2, 2)}, ValueError, "scheduled_sampling must be None where there is tbptt"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refusals(options: dict[str, Any], error: type[Exception], message: str):
    model, X, Y = MAKERS["categories"]()
    before = model.state_dict()
    with pytest.raises(error, match=message):
        model.fit(X, Y, **OPTIONS, **options)
    assert_same_bits(model.parameters(), before)


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one"])
def test_nothing_is_fed_back(pattern: str):
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), pattern=pattern, hidden_size=4, seed=0)
    with pytest.raises(ValueError, match=f"scheduled_sampling needs pattern='one-to-many', .* got '{pattern}'"):
        model.fit([[0, 1]], [[1, 2]], scheduled_sampling=0.5)


def test_a_loss_that_is_not_finite_is_told_as_ever():
    model, X, Y = pairs()
    model.parameters()["bias_o"][...] = np.nan
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan"):
        model.fit(X, Y, **OPTIONS, scheduled_sampling=1.0)
