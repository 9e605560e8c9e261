"""`fit` on a function that returns batches: the same bits as on the data, one batch ahead, and how it ends."""

import functools
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman import schedules

V, N, T = 5, 12, 9
rng = np.random.default_rng(0)
TOKENS, TARGETS = rng.integers(V, size=(2, N, T))
WEIGHTS = rng.uniform(0.5, 2, N)


class Stop(Exception):
    pass


def make(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), hidden_size=6, seed=0, **options)


def batches(size: int = 4, X: Any = TOKENS, Y: Any = TARGETS, weights: Any = None) -> Iterator[tuple[Any, ...]]:
    for i in range(0, len(X), size):
        own = slice(i, i + size)
        yield (X[own], Y[own]) if weights is None else (X[own], Y[own], weights[own])


def ended(model: Any, history: Any) -> list[Any]:
    return [dict(history), *(array.tobytes() for array in model.parameters().values())]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"tbptt": (3, 4), "clip_norm": 0.5},
    {"validation_data": (TOKENS[:3], TARGETS[:3]), "memory": 2},
    {"schedule": schedules.Cosine(warmup=1)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("kind", [{}, {"leak": 0.3, "noise": 0.4, "num_layers": 2, "dropout": 0.3}], ids=["", "noise"])
def test_the_same_bits_as_the_data(kind: dict[str, Any], weights: Any, options: dict[str, Any]):
    given = {"epochs": 3, "progress": False, **options}
    whole, parts = make(**kind), make(**kind)
    first = whole.fit(TOKENS, TARGETS, weights=weights, batch_size=4, shuffle=False, **given)
    second = parts.fit(lambda: batches(weights=weights), steps_per_epoch=3, **given)
    assert ended(whole, first) == ended(parts, second)


def test_sequences_of_other_models():
    Y = [row[:n] for row, n in zip(TARGETS, rng.integers(0, T, N), strict=True)]
    lists = [TOKENS[i, : 1 + i % T] for i in range(N)]
    kinds = elman.Tokens(V), elman.Categories(V)
    models = [elman.Seq2Seq(*kinds, hidden_size=6, seed=0) for _ in range(2)]
    first = models[0].fit(lists, Y, batch_size=N, shuffle=False, epochs=2, progress=False)
    order = np.argsort([len(x) + len(y) for x, y in zip(lists, Y, strict=True)], kind="stable")
    one = [lists[i] for i in order], [Y[i] for i in order]
    second = models[1].fit(lambda: [one], epochs=2, progress=False)
    assert ended(models[0], first) == ended(models[1], second)
    to_one = elman.SequenceModel(elman.Features(3), elman.Reals(2), pattern="many-to-one", hidden_size=6, seed=0)
    ragged = [rng.normal(size=(n, 3)) for n in (3, 1, 7)]
    history = to_one.fit(lambda: [(ragged, rng.normal(size=(3, 2)))] * 2, epochs=2, progress=False)
    assert len(history["loss"]) == 2


def test_one_ahead_in_a_thread_and_no_more():
    given, seen, threads = [0], [], set()

    def forever() -> Iterator[Any]:
        while True:
            given[0] += 1
            threads.add(threading.current_thread().name)
            yield TOKENS, TARGETS

    def note(training: Any) -> None:
        time.sleep(0.05)
        seen.append((training.steps, given[0]))

    class EachStep(elman.Callback):
        def on_step(self, training: Any) -> None:
            note(training)

    before = threading.active_count()
    stream = forever()
    make().fit(lambda: stream, steps_per_epoch=4, epochs=2, callbacks=[EachStep()], progress=False)
    assert [n for n, _ in seen] == [*range(1, 9)]
    assert [n for _, n in seen] == [2, 3, 4, 4, 6, 7, 8, 8]  # the next one, and nothing beyond an epoch
    assert given == [8]
    assert threads == {"elman-batches_0"}
    assert threading.active_count() == before


def test_memory_may_be_used_again():
    def one_buffer() -> Iterator[Any]:
        x, y = np.empty((4, T), int), np.empty((4, T), int)
        for own_x, own_y in batches():
            x[:], y[:] = own_x, own_y
            yield x, y
            x[:], y[:] = 0, 0

    one, other = make(), make()
    history = one.fit(batches, epochs=2, progress=False)
    assert ended(one, history) == ended(other, other.fit(one_buffer, epochs=2, progress=False))


def test_what_has_no_target_is_left_out():
    nothing = TOKENS[:3], np.full((3, T), -1)
    one, other = make(leak=0.2, noise=0.5), make(leak=0.2, noise=0.5)
    first = one.fit(lambda: iter([*batches(), nothing]), epochs=2, progress=False)
    assert ended(one, first) == ended(other, other.fit(batches, epochs=2, progress=False))
    with pytest.raises(ValueError, match="X must return batches with a target in each epoch, got none in epoch 0"):
        make().fit(lambda: [nothing], progress=False)


class StopAt(elman.Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, training: Any) -> None:
        if training.steps == self.steps:
            raise Stop


def stateful(seed: int = 3, n: int = 3) -> Callable[[], Iterator[Any]]:
    """Other batches in each epoch, by a generator of its own."""
    own = np.random.default_rng(seed)

    def draw() -> Iterator[Any]:
        for _ in range(n):
            yield tuple(own.integers(V, size=(2, 4, T)))

    return draw


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize("options", [{}, {"tbptt": (4, 6)}, {"steps_per_epoch": 3, "schedule": schedules.Cosine()}])
def test_a_run_goes_on(cut: int, options: dict[str, Any], tmp_path: Path):
    path = tmp_path / "run.safetensors"
    arguments = {"epochs": 3, "progress": False, "checkpoint": path, "checkpoint_every": 1, **options}
    whole, part = make(leak=0.2, noise=0.3, dropout=0.2), make(leak=0.2, noise=0.3, dropout=0.2)
    expected = ended(whole, whole.fit(stateful(), **arguments))
    path.unlink()
    with pytest.raises(Stop):
        part.fit(stateful(), callbacks=[StopAt(cut + 1)], **arguments)
    fresh = make(leak=0.2, noise=0.3, dropout=0.2)
    before = ended(fresh, {})
    for wrong in (stateful(4), stateful(n=0)):
        with pytest.raises(ValueError, match=r"others than they were|at least steps_per_epoch"):
            fresh.fit(wrong, resume=True, **arguments)
    with pytest.raises(ValueError, match="is of another run: X is"):
        fresh.fit(TOKENS, TARGETS, resume=True, **{**arguments, "steps_per_epoch": None})
    assert ended(fresh, {}) == before
    assert ended(fresh, fresh.fit(stateful(), resume=True, **arguments)) == expected


@pytest.mark.parametrize(("cut", "options"), [(5, {}), (14, {"tbptt": (4, 6)})])
def test_a_run_goes_on_after_batches_without_targets(cut: int, options: dict[str, Any], tmp_path: Path):
    nothing, path = (TOKENS[:3], np.full((3, T), -1)), tmp_path / "run.safetensors"
    given = [nothing, *batches(), nothing]
    arguments = {"progress": False, "checkpoint": path, "checkpoint_every": 1, **options}
    whole, part = make(), make()
    expected = ended(whole, whole.fit(lambda: given, epochs=2, **arguments))
    path.unlink()
    part.fit(lambda: given, epochs=1, **arguments)
    with pytest.raises(Stop):
        part.fit(lambda: given, epochs=2, resume=True, callbacks=[StopAt(cut)], **arguments)
    fresh = make()
    assert ended(fresh, fresh.fit(lambda: given, epochs=2, resume=True, **arguments)) == expected


def test_a_run_that_is_over_asks_for_no_more(tmp_path: Path):
    arguments = {"epochs": 2, "progress": False, "checkpoint": tmp_path / "run.safetensors", "resume": True}
    histories = []
    for _ in range(2):
        stream = functools.partial(next, itertools.repeat(iter([*batches(), *batches()])))
        histories.append(make().fit(stream, steps_per_epoch=3, **arguments))
    assert histories[0] == histories[1]


def test_errors_of_the_function_are_not_the_checkpoint_s(tmp_path: Path):
    arguments = {"progress": False, "checkpoint": tmp_path / "run.safetensors"}
    make().fit(batches, epochs=1, **arguments)
    with pytest.raises(ZeroDivisionError, match="theirs"):
        make().fit(failing, epochs=2, resume=True, **arguments)


def test_tensors_are_arrays():
    torch = pytest.importorskip("torch")
    one, other = make(), make()
    history = one.fit(TOKENS, TARGETS, weights=WEIGHTS, epochs=2, progress=False)
    X, Y, weights = (torch.from_numpy(array) for array in (TOKENS, TARGETS, WEIGHTS))
    assert ended(one, history) == ended(other, other.fit(X, Y, weights=weights, epochs=2, progress=False))
    one, other = make(), make()
    history = one.fit(lambda: [(X, Y)], epochs=2, progress=False)
    assert ended(one, history) == ended(other, other.fit(lambda: [(TOKENS, TARGETS)], epochs=2, progress=False))


def test_iterators_are_closed():
    closed = []

    def noted() -> Iterator[Any]:
        try:
            yield from [(TOKENS, TARGETS)] * 5
        finally:
            closed.append(threading.current_thread().name)

    make().fit(noted, steps_per_epoch=2, epochs=2, progress=False)
    assert len(closed) == 2
    with pytest.raises(Stop):
        make().fit(noted, callbacks=[StopAt(2)], progress=False)
    assert len(closed) == 3


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C does not come to a process alone")
@pytest.mark.usefixtures("usual_handler")
def test_ctrl_c_while_it_waits(tmp_path: Path):
    entered = []

    def slow() -> Iterator[Any]:
        yield TOKENS, TARGETS
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        entered.append(threading.current_thread())
        yield TOKENS, TARGETS

    with pytest.raises(KeyboardInterrupt):
        make().fit(slow, progress=False, checkpoint=tmp_path / "run.safetensors")
    assert not entered[0].is_alive()
    model = make()
    history = model.fit(lambda: [(TOKENS, TARGETS)] * 2, epochs=2, progress=False)
    fresh = make()
    resumed = fresh.fit(
        lambda: [(TOKENS, TARGETS)] * 2, epochs=2, progress=False, checkpoint=tmp_path / "run.safetensors", resume=True
    )
    assert ended(model, history) == ended(fresh, resumed)


def failing() -> Iterator[Any]:
    yield TOKENS, TARGETS
    raise ZeroDivisionError("theirs")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": failing}, ZeroDivisionError, "theirs"),
        ({"X": lambda: 3}, TypeError, "X must return an iterator of batches, got 3"),
        ({"X": lambda: iter([3])}, TypeError, "(X, Y, weights) or (X, Y, weights, resets), got 3 as batch 0"),
        ({"X": lambda: [(TOKENS, TARGETS)], "Y": TARGETS}, ValueError, "Y must be None where X is a function"),
        ({"X": batches, "weights": WEIGHTS}, ValueError, "weights must be None where X is a function"),
        ({"X": batches, "steps_per_epoch": 4}, ValueError, "at least steps_per_epoch=4 batches, got 3"),
        ({"X": batches, "steps_per_epoch": 0}, ValueError, "steps_per_epoch must be"),
        ({"X": batches, "schedule": schedules.Cosine()}, ValueError, "steps_per_epoch must be an int where X is a"),
        ({"X": TOKENS, "Y": TARGETS, "steps_per_epoch": 3}, ValueError, "steps_per_epoch must be None"),
        ({"X": lambda: [(TOKENS, TARGETS[:3])]}, ValueError, "Y of batch 0 must have as many sequences as X"),
        ({"X": lambda: batches(X=TOKENS + 1)}, ValueError, "X of batch 0 must hold tokens from 0 to 4"),
        ({"X": list}, ValueError, "X must return batches with a target in each epoch, got none in epoch 0"),
        ({"X": TOKENS}, TypeError, "Y must be"),
        ({"X": batches(), "steps_per_epoch": 3}, ValueError, "an iterator: give the function that returns it"),
    ],
)  # fmt: skip
def test_what_is_refused(arguments: dict[str, Any], error: Any, message: str):
    before = threading.active_count()
    with pytest.raises(error, match=re.escape(message)):
        make().fit(**arguments, progress=False)
    assert threading.active_count() == before


def test_many_models_do_not_share_a_function():
    with pytest.raises(TypeError, match="X must be data, got a function"):
        elman.fit_many([make(), make()], batches, None, progress=False)
