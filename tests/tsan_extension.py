"""The compiled extension under ThreadSanitizer (tests/sanitize.sh): several Python threads, teams, forks, interrupts.

    python tests/tsan_extension.py

It needs the backend "cython" built with -fsanitize=thread, and libtsan preloaded; without, it tests results only. The
interpreter and NumPy are not instrumented, but TSan sees the locks that they take, as it stands in for pthread's
functions, and so the order that they make. What it reports is therefore a race in what was compiled with it.
"""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import elman
from elman.backends import native

WIDE = (20, 33, 16, 64)  # T, B, I, H: rows are divided among three threads
TEAM = (40, 2, 3, 256)  # columns are: few rows, and H large


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"   {name}: {time.monotonic() - start:.1f} s", flush=True)


def layer_of(sizes: tuple[int, int, int, int], **options: Any) -> tuple[elman.RNN, np.ndarray]:
    T, B, I, H = sizes  # noqa: E741 - the contract's names
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    return elman.RNN(I, H, seed=0, backend="cython", **options), x


def both_passes(rnn: elman.RNN, x: np.ndarray) -> list[np.ndarray]:
    y, h_n, pullback = rnn.vjp(x)
    d_x, d_h_0, gradients = pullback(y, h_n)
    return [y, h_n, d_x, d_h_0, *gradients.values()]


def training(steps: int = 2) -> list[np.ndarray]:
    """Steps of each optimizer, over readout, loss and clipping; large enough for several threads."""
    values = []
    for optimizer in (elman.SGD(0.1, momentum=0.9), elman.Adagrad(0.01), elman.Adam(0.01)):
        model = elman.SequenceModel(elman.Tokens(50), elman.Categories(50), hidden_size=64, seed=0, backend="cython")
        x = np.arange(20 * 33).reshape(20, 33) % 50
        for _ in range(steps):
            model.train_step(x, (x + 1) % 50, optimizer=optimizer, clip_norm=0.1)
        values += model.state_dict().values()
    return values


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """To the last bit, whatever the number of threads."""
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def at_once(*functions: Callable[[], None]) -> None:
    """Run them in threads of their own; the first error of one is raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def callers(shared: elman.RNN, x: np.ndarray, expected: list[np.ndarray]) -> None:
    """Four at once, two of them in the same layer, while the number of threads changes."""
    is_over = threading.Event()

    def passes(rnn: elman.RNN) -> None:
        for _ in range(3):
            assert_same(both_passes(rnn, x), expected)

    def restless() -> None:
        n = 0
        while not is_over.wait(0.002):
            n = n % 4 + 1
            elman.set_num_threads(n)

    def working() -> None:
        own = elman.RNN(shared.input_size, shared.hidden_size, seed=0, backend="cython")
        try:
            at_once(lambda: passes(shared), lambda: passes(shared), lambda: passes(own), lambda: training(1))
        finally:
            is_over.set()

    at_once(working, restless)
    elman.set_num_threads(3)


def forked(function: Callable[[], None]) -> None:
    """The function in a forked child, which has none of the workers."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            function()
            status = 0
        os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the forked child ended with {status}"


def interrupted(function: Callable[[], Any], after: float) -> str:
    """When Ctrl-C so many seconds after the start of the function raised: "within" it, "behind" it, or "never"."""
    timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGINT))
    came = "within"
    try:
        timer.start()
        function()
        came = "behind"
        timer.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        return came
    finally:
        timer.join()
    return "never"  # a finalizer has swallowed it


def interrupts(rnn: elman.RNN, x: np.ndarray, expected: list[np.ndarray]) -> None:
    """In calls of the main thread, alone or beside another thread whose call goes on. Afterwards all is as before."""
    long, outcomes = np.tile(x, (8, 1, 1)), []
    for n_threads, others, after in itertools.product((1, 3), (0, 1), (0.0, 0.05, 0.1)):
        elman.set_num_threads(n_threads)
        threads = [threading.Thread(target=lambda: assert_same(both_passes(rnn, x), expected)) for _ in range(others)]
        for thread in threads:
            thread.start()
        outcomes.append(interrupted(lambda: both_passes(rnn, long), after))
        for thread in threads:
            thread.join()
        assert_same(both_passes(rnn, x), expected)
    print("  ", ", ".join(f"{outcomes.count(each)} {each}" for each in ("within", "behind", "never")))
    assert outcomes.count("never") < 3, outcomes


def handled(rnn: elman.RNN, x: np.ndarray, expected: list[np.ndarray]) -> None:
    """A signal whose handler makes a call of its own, in the middle of one that goes on afterwards."""
    long, calls = np.tile(x, (8, 1, 1)), 0

    def handle(*_: Any) -> None:
        nonlocal calls
        calls += 1
        assert_same(both_passes(rnn, x), expected)

    whole = both_passes(rnn, long)
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert_same(both_passes(rnn, long), whole)
    signal.signal(signal.SIGALRM, before)
    assert calls == 1, calls


def main() -> None:
    native.use_instruction_set(native.instruction_sets()[-1])
    elman.set_num_threads(1)
    wide, team = layer_of(WIDE, num_layers=2, bidirectional=True), layer_of(TEAM)
    with section("one thread"):
        alone, alone_in_team, trained = both_passes(*wide), both_passes(*team), training()
    elman.set_num_threads(3)
    for (T, B, I, H), name in ((WIDE, "shards"), (TEAM, "parts")):  # noqa: E741
        for is_backward in (False, True):
            plan = native.plan(T, B, I, H, is_backward=is_backward)
            assert plan["threads"] > 1, f"{(T, B, I, H)} runs on one thread: {plan}"
            assert plan[name] > 1 or not is_backward, f"{(T, B, I, H)} is not divided into {name}: {plan}"
    with section("three threads"):
        assert_same(both_passes(*wide), alone)
        assert_same(both_passes(*team), alone_in_team)
        assert_same(training(), trained)
    with section("several callers"):
        rnn, x = layer_of(WIDE)
        callers(rnn, x, both_passes(rnn, x))
    with section("teams of several callers"):
        at_once(*[lambda: assert_same(both_passes(*team), alone_in_team)] * 3)
    with section("fork"):
        forked(lambda: assert_same(both_passes(*team), alone_in_team))
        assert_same(both_passes(*team), alone_in_team)
    with section("interrupts"):
        interrupts(*wide, alone)
        interrupts(*team, alone_in_team)
        handled(*wide, alone)
        handled(*team, alone_in_team)


if __name__ == "__main__":
    main()
