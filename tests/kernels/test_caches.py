"""The sizes of the caches: read from the machine, and what the division of work makes of them (csrc/plan.h)."""

import numpy as np
import pytest

import elman
from elman.benchmark.explain import explain
from elman.benchmark.workloads import Shape, Workload

KIB, MIB = 1 << 10, 1 << 20
SMALL, LARGE = (32 * KIB, 256 * KIB, 8 * MIB), (48 * KIB, 2 * MIB, 64 * MIB)
native = elman.backends.get("cython")


@pytest.fixture
def plan_with(threads):
    """Of a backward pass on two threads: (T, B, I, H), the caches, options -> plan."""
    threads(2)

    def plan(shape, caches, **options):
        native.use_cache_sizes(*caches)
        return native.plan(*shape, is_backward=True, **options)

    yield plan
    native.use_cache_sizes(0, 0, 0)


def test_sizes_are_those_of_a_machine():
    first, second, last = native.cache_sizes()
    assert 8 * KIB <= first < second <= last
    native.use_cache_sizes(*SMALL)
    assert native.cache_sizes() == SMALL
    native.use_cache_sizes(0, 0, 0)
    assert native.cache_sizes() == (first, second, last)
    with pytest.raises(ValueError, match="at least 4096"):
        native.use_cache_sizes(48)


@pytest.mark.usefixtures("instruction_set")
def test_gradients_are_summed_while_their_terms_are_in_the_second_level(plan_with):
    two_steps = 2 * 8 * (3 * 64 + 32) * 4
    for caches in (SMALL, LARGE):
        assert plan_with((1000, 8, 32, 64), caches)["block_steps"] == caches[1] // two_steps


@pytest.mark.usefixtures("instruction_set")
def test_gradients_that_fit_no_cache_are_summed_over_more_terms_at_once(plan_with):
    matrices = 64 * (2 * 64 + 32) * 4
    shape, caches = (1000, 128, 32, 64), (32 * KIB, 64 * KIB)
    assert [plan_with(shape, (*caches, last))["block_steps"] for last in (matrices, matrices - 4096)] == [1, 4]


@pytest.mark.usefixtures("instruction_set")
def test_weights_from_afar_cost(plan_with):
    """2 MiB of them: too much for a small second level, of which states want a part, too."""
    shape, far = (50, 32, 8, 724), (32 * KIB, 2 * MIB, 64 * MIB)
    near = (32 * KIB, 4 * MIB, 64 * MIB)
    plans = [plan_with(shape, caches, parts=1) for caches in (near, far)]
    (least, cycles), vectors = (plan["cycles"] for plan in plans), -(-724 // plans[1]["vector_reals"])
    most = least + 1.3 * 724 * vectors
    if plans[0]["width"] == plans[1]["width"]:
        assert cycles == pytest.approx(most)
    else:  # on AVX-512, another tile: the widest of those that are within a hundredth of the cheapest
        assert least < cycles < most / 0.99


@pytest.mark.usefixtures("instruction_set")
def test_panels_that_the_first_level_holds_cost_less(plan_with):
    """A single row has each vector for one multiply-add: from further away it does not come in time."""
    for shape in ((50, 1, 8, 99), (50, 1, 8, 640)):
        near, far = (plan_with(shape, (first, *LARGE[1:]), parts=1)["cycles"] for first in (1 << 30, 4096))
        assert far > 1.2 * near


def test_threads_share_columns_of_what_the_last_level_does_not_hold(plan_with):
    """12 MiB of weights, for few rows: each thread then reads half of them from memory in each step, not all."""
    assert plan_with((50, 16, 8, 1760), SMALL)["parts"] == 2
    assert plan_with((50, 16, 8, 1760), LARGE)["parts"] == 1


@pytest.mark.usefixtures("plan_with")
def test_explain_says_which_sizes_it_thinks_of():
    native.use_cache_sizes(*LARGE)
    assert "caches of 48 KiB, 2 MiB and 64 MiB" in explain(Workload(Shape(2, 1, 3, 16)))


def test_no_bit_depends_on_them(plan_with):
    rnn, x = elman.RNN(5, 200, seed=0), np.random.default_rng(0).standard_normal((30, 9, 5))

    def results():
        y, h_n, pullback = rnn.vjp(x)
        return [y, h_n, *pullback(y)[2].values()]

    for backend in ("cython", *(["numba"] if "numba" in elman.backends.available() else [])):
        with elman.use_backend(backend):
            plan_with((1, 1, 1, 1), (4096, 4096, 4096))
            small = results()
            plan_with((1, 1, 1, 1), LARGE)
            assert all(np.array_equal(a, b) for a, b in zip(small, results(), strict=True))
