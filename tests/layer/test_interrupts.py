"""Ctrl-C during one long call: honoured soon, and nothing is torn. The signal goes to the process, as a terminal's."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.layer.rnn import stack_of

from ..compare import assert_same_bits

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.usefixtures("usual_handler"),
]

COMPILED = [name for name in elman.available_backends() if name != "numpy"]
TRIES = 4  # of which the best counts, as the machine may have other things to do


@pytest.fixture(params=COMPILED)
def compiled_name(request: pytest.FixtureRequest) -> str:
    return request.param


def soon() -> float:
    """0.3 seconds, and more where others want the cores, too."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0.3 * max(1, os.getloadavg()[0] / n_cores)


@contextlib.contextmanager
def signalled(after: float) -> Iterator[list[float]]:
    """A signal after some seconds; when it was sent."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        yield sent
    finally:
        timer.cancel()
        timer.join()


def seconds_to_stop(call: Callable[[], Any], after: float = 0.05) -> float:
    """How long a call that takes far longer went on after the signal."""
    with signalled(after) as sent:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - sent[0]


def assert_stops_soon(call: Callable[[], Any]) -> None:
    for _ in range(TRIES):
        seconds = seconds_to_stop(call)
        if seconds < soon():
            return
    raise AssertionError(f"{seconds:.2f} s")


def free_blocks(rnn: elman.RNN) -> int:
    return sum(map(len, stack_of(rnn).workspace._free.values()))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_layer_s_call_and_its_pullback(compiled_name: str, n_threads: int, threads: Callable[[int], None]):
    threads(n_threads)
    rnn = elman.RNN(64, 1024, seed=0, backend=compiled_name)
    x = np.ones((4000, 16, 64), np.float32)  # some seconds
    short = x[:5]
    expected = rnn(short)
    rnn.vjp(short)[2](None)  # what is compiled then is not what this is about
    assert_stops_soon(lambda: rnn(x))
    assert_stops_soon(lambda: rnn.last_state(x))
    y, _, pullback = rnn.vjp(x[:1000])
    d_y = np.ones_like(y)
    assert_stops_soon(partial(pullback, d_y))
    assert_stops_soon(lambda: rnn.vjp(x))
    del pullback
    n_free = free_blocks(rnn)
    assert n_free > 0
    for array, before in zip(rnn(short), expected, strict=True):
        np.testing.assert_array_equal(array, before)
    assert free_blocks(rnn) == n_free, "what an interrupted call had leased is used again"


@pytest.mark.parametrize("sizes", [(1 << 14, 64), (16, 1 << 16)])
def test_normals_stop_soon(sizes: tuple[int, int], threads: Callable[[int], None]):
    threads(1)
    steps, rows = sizes
    row = np.empty((1, 1, 2048), np.float32)  # of which each row is a view, instead of so much memory
    out = np.lib.stride_tricks.as_strided(row, (steps, rows, 2048), (0, 0, 4))
    keys = np.zeros(rows, np.int64)
    assert_stops_soon(lambda: elman.backends.get("cython").normals(out, keys, stream=0))


@pytest.mark.parametrize("n_rows", [1, 3])
def test_threads_that_share_columns(compiled_name: str, n_rows: int, threads: Callable[[int], None]):
    """They wait for one another after each step, and nobody for whom has left."""
    threads(2)
    rnn = elman.RNN(8, 1024, seed=0, backend=compiled_name)
    rnn.vjp(np.ones((2, n_rows, 8)))[2](None)
    x = np.ones((40_000, n_rows, 8), np.float32)
    assert_stops_soon(lambda: rnn(x))
    y, _, pullback = rnn.vjp(x[:8000])
    assert_stops_soon(lambda: pullback(np.ones_like(y)))
    assert np.isfinite(rnn(x[:10])[0]).all()


def make_model(backend: str, **options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 512, "num_layers": 2, "dropout": 0.2, "seed": 0, "backend": backend} | options
    return elman.SequenceModel(elman.Features(4), elman.Reals(2), **options)


def make_data(n_steps: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((192, n_steps, 4)), rng.standard_normal((192, n_steps, 2))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_prediction_and_evaluation(compiled_name: str, n_threads: int, threads: Callable[[int], None]):
    threads(n_threads)
    model, (x, y) = make_model(compiled_name), make_data(2000)
    model.evaluate(x[:2, :3], y[:2, :3])  # what is compiled then is not what this is about
    assert_stops_soon(lambda: model.predict(x, batch_size=192))
    assert_stops_soon(lambda: model.evaluate(x, y, batch_size=192))
    assert np.isfinite(model.predict(x[:2, :3])).all()


class Interrupted(elman.Callback):
    """Sends a signal some time after a step; kept out of checkpoints."""

    def __init__(self, at: int) -> None:
        self.at, self.sent = at, list[float]()

    def on_step(self, training: Any) -> None:
        if training.steps == self.at:

            def send() -> None:
                self.sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

            threading.Timer(0.05, send).start()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_fit_with_a_checkpoint(
    compiled_name: str, n_threads: int, threads: Callable[[int], None], tmp_path: Path, capsys: Any
):
    """The step that was interrupted is made anew, with the same dropout, so that the end is that of one run."""
    threads(n_threads)
    x, y = make_data()
    options: dict[str, Any] = {"epochs": 1, "batch_size": 64, "progress": False}
    whole, path = make_model(compiled_name), tmp_path / "run"
    history = whole.fit(x, y, callbacks=[Interrupted(at=-1)], **options)
    model, callback = make_model(compiled_name), Interrupted(at=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, callbacks=[callback], checkpoint=path, **options)
    assert time.monotonic() - callback.sent[0] < 5, "with saving"
    assert "Stopped after 1 steps" in capsys.readouterr().err
    other = make_model(compiled_name, seed=None)
    assert other.fit(x, y, callbacks=[Interrupted(at=-1)], checkpoint=path, resume=True, **options) == history
    assert_same_bits(other.parameters(), whole.parameters())


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_fit_stops_soon(
    compiled_name: str, n_threads: int, has_checkpoint: bool, threads: Callable[[int], None], tmp_path: Path
):
    threads(n_threads)
    model, (x, y) = make_model(compiled_name), make_data(2000)
    model.loss_and_grads(x[:2, :3], y[:2, :3])  # what is compiled then is not what this is about
    before = model.state_dict()
    options: dict[str, Any] = {"batch_size": 192, "progress": False}
    if has_checkpoint:
        options["checkpoint"] = tmp_path / "run"
    seconds = []
    for _ in range(TRIES):
        seconds.append(seconds_to_stop(lambda: model.fit(x, y, **options), after=0.5))
        assert_same_bits(model.parameters(), before), "not one step was done"
        if seconds[-1] < soon():
            break
    assert seconds[-1] < soon()
    assert model.fit(x[:2, :3], y[:2, :3], epochs=1, progress=False)["loss"][0] < 5


def test_between_two_steps_it_does_not_wait_for_the_next(compiled_name: str, tmp_path: Path):
    model, (x, y) = make_model(compiled_name), make_data(2000)
    model.loss_and_grads(x[:2, :3], y[:2, :3])

    def schedule(done: float, epochs: float) -> float:
        sent.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)  # with a checkpoint it is only noted here
        return done / epochs

    for _ in range(TRIES):
        sent: list[float] = []
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, batch_size=192, progress=False, schedule=schedule, checkpoint=tmp_path / "run")
        if time.monotonic() - sent[0] < soon():
            return
    raise AssertionError("it waited for the step")


def test_what_is_interrupted_while_it_is_validated_goes_on(compiled_name: str, tmp_path: Path):
    x, y = make_data(10)
    held_out, path = make_data(300), tmp_path / "run"
    options: dict[str, Any] = {"epochs": 1, "batch_size": 192, "progress": False}
    whole = make_model(compiled_name)
    history = whole.fit(x, y, callbacks=[Interrupted(at=-1)], validation_data=held_out, **options)
    with pytest.raises(KeyboardInterrupt):
        make_model(compiled_name).fit(
            x, y, callbacks=[Interrupted(at=1)], validation_data=held_out, checkpoint=path, **options
        )
    model = make_model(compiled_name, seed=None)
    options |= {"validation_data": held_out, "checkpoint": path, "resume": True}
    assert model.fit(x, y, callbacks=[Interrupted(at=-1)], **options) == history
    assert_same_bits(model.parameters(), whole.parameters())


def test_a_handler_that_goes_on_and_one_that_computes(compiled_name: str):
    """Whatever a handler does, as between two lines of Python: the call goes on to the same bits."""
    rnn, other = (elman.RNN(64, 768, seed=seed, backend=compiled_name) for seed in (0, 1))
    x = np.ones((1500, 16, 64), np.float32)
    expected, seen = rnn(x)[0], []

    def handle(*_: Any) -> None:
        seen.append(other(x[:20])[0])

    signal.signal(signal.SIGINT, handle)
    for _ in range(TRIES):
        with signalled(0.02):
            np.testing.assert_array_equal(rnn(x)[0], expected)
    assert seen
    np.testing.assert_array_equal(seen[0], other(x[:20])[0])


def test_what_a_handler_raises_is_raised(compiled_name: str):
    rnn, x = elman.RNN(64, 1024, seed=0, backend=compiled_name), np.ones((4000, 16, 64), np.float32)

    def handle(*_: Any) -> None:
        raise TimeoutError("enough")

    signal.signal(signal.SIGINT, handle)
    with signalled(0.05), pytest.raises(TimeoutError, match="enough"):
        rnn(x)


def test_numba_is_imported_whole(tmp_path: Path):
    code = (
        "import os, signal, threading, numpy as np, elman\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    code += "rnn, x = elman.RNN(2, 3, seed=0, backend='numba'), np.ones((2, 1, 2))\n"
    code += "threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    code += "try:\n    rnn(x)\n    print('not interrupted')\n"
    code += "except KeyboardInterrupt:\n    print('interrupted')\nprint(rnn(x)[0].shape)\n"
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}  # where nothing lies that is ready
    options: Any = {"capture_output": True, "text": True, "timeout": 300, "check": True, "env": env}
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.stdout == "interrupted\n(2, 1, 3)\n", "which takes longer than that to import"


def test_other_threads_are_not_disturbed(compiled_name: str):
    """A signal is the main thread's to answer, which here is interrupted, while another one's call goes on."""
    rnn, x = elman.RNN(64, 512, seed=0, backend=compiled_name), np.ones((2000, 16, 64), np.float32)
    expected, results = rnn(x)[0], []
    thread = threading.Thread(target=lambda: results.append(rnn(x)[0]))
    thread.start()
    assert_stops_soon(lambda: [rnn(x) for _ in range(100)])
    thread.join()
    np.testing.assert_array_equal(results[0], expected)
