"""Memory of large results, which is used again once nobody has them."""

import gc
import signal
import threading

import numpy as np
import pytest

import elman
from elman.layer import workspace

F32 = np.dtype(np.float32)
SHAPE = workspace.LARGE // 64, 4, 16  # as few values as are recycled


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()
    yield
    forget()


def forget():
    """Of memory that nobody has."""
    while workspace._gone:
        del workspace._lent[id(workspace._gone.pop())]


def n_bytes():
    return sum(memory.size for _, memory in workspace._lent.values())


def address(array):
    return array.__array_interface__["data"][0]


def test_what_nobody_has_is_used_again_and_what_somebody_has_is_not():
    first = workspace.recycled(SHAPE, F32)
    assert first.shape == SHAPE
    assert first.dtype == F32
    assert first.flags.c_contiguous
    assert first.flags.writeable
    place, view = address(first), first[1:, ::2].view()
    assert place % 64 == 0
    del first
    gc.collect()
    assert not workspace._gone  # the view has it
    other = workspace.recycled(SHAPE, F32)
    assert not np.shares_memory(other, view)
    del view
    assert address(workspace.recycled(SHAPE, F32)) == place
    assert address(other) != place


def test_other_sizes_get_memory_of_their_own():
    one = workspace.recycled(SHAPE, F32)
    place = address(one)
    del one
    double = workspace.recycled((2 * SHAPE[0], *SHAPE[1:]), F32)
    assert address(double) != place
    assert len(workspace._gone) == 1
    assert workspace.recycled((3, 4, 5), F32).base is None  # a small one is NumPy's own


def test_how_much_there_is_at_most():
    n = workspace.MOST_RECYCLED // (4 * F32.itemsize)
    arrays = [workspace.recycled((n - 64,), F32) for _ in range(4)]
    another = workspace.recycled((n - 64,), F32)
    assert another.base is None  # NumPy's own
    assert n_bytes() <= workspace.MOST_RECYCLED
    del arrays[1:]
    wide = workspace.recycled((2 * n,), F32)  # what nobody has makes room
    assert wide.base is not None
    assert n_bytes() <= workspace.MOST_RECYCLED
    assert workspace.recycled((4 * n,), F32).base is None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timer")
def test_an_interrupt_is_not_lost_where_a_result_goes():
    """It comes while NumPy is at work on the only reference to one, which goes before Python looks at signals."""
    rnn = elman.RNN(3, 32, seed=0, backend="cython")
    x = np.zeros((workspace.LARGE // 32, 1, 3), F32)

    def timed(y):
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        return y

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            np.arctan(timed(rnn(x)[0]))
            for _ in range(10_000_000):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("backend", ["numpy", "numba", "cython"])
def test_results_of_calls_are_never_those_of_others(batch_first, backend):
    rnn = elman.RNN(3, 32, batch_first=batch_first, backend=backend, seed=0)
    rng, kept = np.random.default_rng(0), []
    for _ in range(3):
        x = rng.standard_normal((2, workspace.LARGE // 64, 3) if batch_first else (workspace.LARGE // 64, 2, 3))
        y, _, pullback = rnn.vjp(x.astype(F32))
        d_x = pullback(np.ones_like(y))[0]
        kept = [*kept[-1:], (y, y.copy(), d_x, d_x.copy(), pullback)]  # what is dropped is free now
        del y, d_x, pullback
        for results in kept:
            assert np.array_equal(results[0], results[1])
            assert np.array_equal(results[2], results[3])


def test_threads_get_different_memory():
    seen = []

    def work(value):
        is_own = True
        for _ in range(40):
            array = workspace.recycled(SHAPE, F32)
            array[::64] = value
            is_own &= bool((array[::64] == value).all())
        seen.append(is_own)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4
