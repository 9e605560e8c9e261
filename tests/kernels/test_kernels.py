"""Every backend against the reference, and what docs/design.md promises about numbers."""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elman.backends
from elman.backends import reference
from elman.backends.contract import Update

from ..cases import (
    CASES,
    LAYOUTS,
    READOUT_CASES,
    Problem,
    Readout,
    check_untouched,
    make,
    make_readout,
    name,
    place,
    poison,
)
from ..compare import (
    assert_close,
    assert_same_bits,
    check_backward,
    check_forward,
    check_readout,
    check_readout_loss,
)

PER_ROW = ("y", "h_n", "delta", "d_h_0", "d_x")


def run(p: Problem, backend) -> dict[str, np.ndarray]:
    """Forward, then backward from its states: all results."""
    out = p.forward(backend)
    return out | p.backward(backend, out["y"])


def per_row(out: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: array for key, array in out.items() if key in PER_ROW}


# ---- values


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward(backend, dtype, case):
    check_forward(backend, make(**case, dtype=dtype))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_backward(backend, dtype, case):
    check_backward(backend, make(**case, dtype=dtype))


@pytest.mark.parametrize("case", READOUT_CASES, ids=name)
def test_readout_loss(backend, dtype, case):
    check_readout_loss(backend, make_readout(**case, dtype=dtype))


@pytest.mark.parametrize("case", [case for case in READOUT_CASES if case["lengths"] == "none"], ids=name)
def test_readout(backend, dtype, case):
    check_readout(backend, make_readout(**case, dtype=dtype))


@pytest.mark.parametrize("case", [case for case in CASES if case.get("D") is None and not case.get("mask")], ids=name)
def test_step(backend, dtype, case):
    """A step is a forward pass of T = 1."""
    p = make(**case | {"T": 1, "lengths": "none", "reverse": False}, dtype=dtype)
    h_n = _step(backend, p)
    exact = p.astype("float64").forward(reference)["h_n"]
    n_terms = p.weight_ih.shape[1] + p.weight_hh.shape[1] + 1
    np.testing.assert_allclose(h_n, exact, rtol=0, atol=4 * n_terms * np.finfo(dtype).eps * max(1, np.abs(exact).max()))


def _step(backend, p: Problem) -> np.ndarray:
    h_next = poison(p.h_0[0].shape, p.dtype)
    bias = None if p.bias is None else p.bias[0]
    x = np.ascontiguousarray(p.x[0])
    backend.step(x, p.h_0[0], p.weight_ih[0], p.weight_hh[0], bias, h_next, activation=p.activation)
    return h_next[None]


def test_gradients_of_zero_stride(backend, dtype):
    """A constant d_y, as the gradient of a sum over y, comes as a read-only broadcast."""
    p = make(T=4, B=5, H=17, dtype=dtype)
    constant = p.replace(d_y=np.broadcast_to(p.d_y[0, 0], p.d_y.shape))
    check_backward(backend, constant)


@settings(  # a backend may stay what it is from one example to the next
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.fixed_dictionaries(
        {"T": st.integers(1, 12), "B": st.integers(1, 20), "I": st.integers(1, 40), "H": st.integers(1, 70)}
    ),
    direction=st.sampled_from([{}, {"reverse": True}, {"D": 2}]),
    flags=st.fixed_dictionaries(
        {key: st.booleans() for key in ("tokens", "mask", "bias", "d_y", "d_h_n", "input_grad")}
    ),
    choices=st.fixed_dictionaries(
        {
            "activation": st.sampled_from(list(reference.ACTIVATIONS)),
            "lengths": st.sampled_from(["none", "full", "ragged", "zero"]),
            "layout": st.sampled_from(LAYOUTS),
            "dtype": st.sampled_from(["float32", "float64"]),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_anything(backend, sizes, direction, flags, choices, seed):
    p = make(**sizes, **direction, **flags, **choices, seed=seed)
    check_forward(backend, p)
    check_backward(backend, p)


def _wrong(**functions) -> SimpleNamespace:
    return SimpleNamespace(**vars(reference) | functions)


def _no_recurrence(layer, gradients):
    reference.backward(layer._replace(weight_hh=0 * layer.weight_hh), gradients)


def _transposed(layer, gradients):
    reference.backward(layer._replace(weight_hh=layer.weight_hh.swapaxes(1, 2)), gradients)


def _opposite_sign(layer, gradients):
    reference.backward(layer, gradients._replace(d_y=-gradients.d_y))


def _overwrites_sums(layer, gradients):
    gradients.d_weight_ih[...] = 0
    reference.backward(layer, gradients)


def _forgets_a_unit(layer):
    reference.forward(layer)
    layer.y[-1, -1, -1] = 0


def _careless_tanh(layer):
    reference.forward(layer)
    layer.y[...] *= 1 + 1e-4


def _writes_beyond_lengths(layer):
    reference.forward(layer)
    layer.y[layer.lengths[0] :, 0] = np.nan


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("check", "kernel"),
    [
        (check_backward, _wrong(backward=_no_recurrence)),
        (check_backward, _wrong(backward=_transposed)),
        (check_backward, _wrong(backward=_opposite_sign)),
        (check_backward, _wrong(backward=_overwrites_sums)),
        (check_forward, _wrong(forward=_forgets_a_unit)),
        (check_forward, _wrong(forward=_careless_tanh)),
        (check_forward, _wrong(forward=_writes_beyond_lengths)),
    ],
)
def test_a_wrong_kernel_is_caught(check, kernel, dtype, layout):
    p = make(T=3, B=4, I=17, H=33, dtype=dtype, lengths="ragged", layout=layout, seed=1)
    assert p.lengths[0] < 3 == p.lengths[-1]
    check(reference, p)
    with pytest.raises(AssertionError):
        check(kernel, p)


# ---- optimizers

OPTIMIZERS = {  # the states that each takes, and its settings
    "sgd": ([], {"lr": 0.1, "momentum": 0.0}),
    "sgd-momentum": (["mean"], {"lr": 0.1, "momentum": 0.9}),
    "adagrad": (["square"], {"lr": 0.1, "eps": 1e-10}),
    "adam": (
        ["mean", "square"],
        {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "step": 1},
    ),
    "adam-late": (
        ["mean", "square"],
        {"lr": 0.01, "beta1": 0.95, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1, "step": 2000},
    ),
    "average": ([], {"rate": 0.01}),
}


def _optimizer_arrays(rng: np.random.Generator, n: int, dtype: str) -> dict[str, np.ndarray]:
    parameters, gradient, mean = rng.standard_normal((3, n)).astype(dtype)
    gradient[:: max(3, n // 5)] = 0  # an ordinary gradient
    square = rng.uniform(0.1, 2, n).astype(dtype)
    return {"parameters": parameters, "gradient": gradient, "mean": mean, "square": square}


def _update(backend, rule: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that one update writes, copies of those given."""
    states, numbers = OPTIMIZERS[rule]
    written = {key: place(arrays[key], writeable=True) for key in ("parameters", *states)}
    memories, gradient = tuple(written[key] for key in states), place(arrays["gradient"])
    backend.update(Update(rule.partition("-")[0], written["parameters"], gradient, memories, tuple(numbers.values())))
    for array in written.values():
        check_untouched(array)
    return written


@pytest.mark.parametrize("n", [1, 7, 16, 33, 1000, 50_001])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_optimizers(backend, dtype, rng, rule, n):
    """A dozen roundings for each element, none of more than u times the largest number (squares are not small)."""
    arrays = _optimizer_arrays(rng, n, dtype)
    exact = _update(reference, rule, {key: array.astype(float) for key, array in arrays.items()})
    scale = max(float(np.abs(array).max()) for array in (*arrays.values(), *exact.values()))
    got = _update(backend, rule, arrays)
    assert_close(got, exact, dict.fromkeys(exact, 12 * float(np.finfo(dtype).eps) / 2 * scale))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-6, 1 - 1e-8])
def test_the_first_step_of_adam_is_lr(backend, dtype, beta):
    """Whatever the betas: float32 has 1 - 1e-6 to some per cent of the 1e-6, and 1 for 1 - 1e-8."""
    gradient = np.array([1, -2, 0.5, 3e3, -1e-3], dtype)
    parameters, mean, square = np.zeros((3, 5), dtype)
    backend.update(Update("adam", parameters, gradient, (mean, square), (0.01, beta, beta, 0.0, 0.0, 1)))
    np.testing.assert_allclose(parameters, -0.01 * np.sign(gradient), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 16, 33, 1000, 50_001])
@pytest.mark.parametrize("magnitude", [1.0, 1e25, 1e-25])
def test_clip_norm(backend, dtype, rng, n, magnitude):
    """In float32 too the squares are summed in float64: 1e25 does not overflow, nor does 1e-25 vanish."""
    gradient = (magnitude * rng.standard_normal(n)).astype(dtype)
    norm = np.sqrt(np.square(gradient, dtype=float).sum())
    clipped = place(gradient, writeable=True)
    tolerance = 1e-12 if dtype == "float64" else 4 * float(np.finfo(dtype).eps)
    returned = backend.clip_norm(clipped, max_norm=float(norm) / 3)
    assert type(returned) is float
    assert returned == pytest.approx(norm, rel=tolerance, abs=0)
    np.testing.assert_allclose(clipped, gradient / 3, rtol=tolerance)

    small = place(gradient, writeable=True)
    assert backend.clip_norm(small, max_norm=float(norm) * 1.01) == returned
    assert_same_bits({"gradient": small}, {"gradient": gradient})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clip_norm_leaves_what_is_not_finite(backend, dtype, rng, bad):
    gradient = rng.standard_normal(100).astype(dtype)
    gradient[71] = bad
    kept = gradient.copy()
    assert not np.isfinite(backend.clip_norm(gradient, max_norm=1.0))
    assert_same_bits({"gradient": gradient}, {"gradient": kept})


# ---- bits: what a result does not depend on

ROW_SIZES = [
    {"T": 6, "B": 13, "I": 17, "H": 33},
    {"T": 3, "B": 33, "I": 3, "H": 64, "D": 2},
    {"T": 5, "B": 7, "I": 65, "H": 130, "mask": True},
    {"T": 40, "B": 5, "I": 1, "H": 16, "lengths": "ragged", "D": 2},
    {"T": 4, "B": 100, "I": 5, "H": 17, "reverse": True, "lengths": "ragged"},
    {"T": 7, "B": 9, "I": 30, "H": 100, "tokens": True},
]


@pytest.mark.parametrize("case", ROW_SIZES, ids=name)
def test_a_row_does_not_depend_on_its_batch(compiled, dtype, case):
    p = make(**case, dtype=dtype)
    whole = per_row(run(p, compiled))
    n_rows = case["B"]
    parts = [slice(b, b + 1) for b in range(0, n_rows, max(1, n_rows // 10))]
    for rows in [*parts, slice(0, 2), slice(1, 6), slice(n_rows // 3, n_rows)]:
        some = per_row(run(p.rows(rows), compiled))
        assert_same_bits(some, {key: array[:, rows] for key, array in whole.items()})


@pytest.mark.parametrize("loss", reference.LOSSES)
def test_a_row_of_the_readout_does_not_depend_on_its_batch(compiled, dtype, loss):
    r = make_readout(T=3, B=14, K=33, O=17, loss=loss, weights="steps", dtype=dtype)
    outputs, gradients = r.outputs(compiled), r.run(compiled)
    for rows in (slice(0, 1), slice(13, 14), slice(3, 9)):
        part = r.rows(rows)
        assert_same_bits({"o": part.outputs(compiled)}, {"o": outputs[:, rows]})
        some = part.run(compiled)
        assert_same_bits(
            {key: some[key] for key in ("o", "d_h")}, {key: gradients[key][:, rows] for key in ("o", "d_h")}
        )


SHARED_COLUMNS = [  # so few rows that threads share the columns of H (csrc/plan.h)
    {"T": 40, "B": 1, "I": 3, "H": 257},
    {"T": 30, "B": 2, "I": 5, "H": 300, "D": 2, "mask": True, "lengths": "ragged"},
    {"T": 97, "B": 1, "I": 9, "H": 200, "tokens": True, "reverse": True, "mask": True},
]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", SHARED_COLUMNS, ids=name)
def test_threads_share_columns(threads, case):
    native = elman.backends.get("cython")  # and not imported, or it would not hear of the number of threads
    sizes, directions = [case[name] for name in "TBIH"], case.get("D", 1)
    threads(7)
    assert native.plan(*sizes, directions=directions, is_backward=True)["parts"] > 1
    assert native.plan(*sizes, directions=directions, parts=8) is None
    threads(1)
    assert native.plan(*sizes, directions=directions)["parts"] == 1


@pytest.mark.parametrize(
    "case",
    [
        *ROW_SIZES,
        {"T": 30, "B": 1, "I": 3, "H": 257},
        {"T": 12, "B": 2, "I": 64, "H": 130, "D": 2},
        {"T": 20, "B": 64, "I": 100, "H": 128},
        *SHARED_COLUMNS,
    ],
    ids=name,
)
def test_results_do_not_depend_on_threads(compiled, dtype, threads, case):
    p = make(**case, dtype=dtype)
    threads(1)
    one = run(p, compiled)
    for n in (2, 3, 7, 16, 64):  # more than the cores is legal
        threads(n)
        assert_same_bits(run(p, compiled), one)


@pytest.mark.parametrize(
    "case",
    [
        {"T": 300, "B": 5, "I": 3, "H": 16, "D": 2, "lengths": "ragged"},
        {"T": 300, "B": 2, "I": 5, "H": 300, "D": 2, "mask": True, "lengths": "ragged"},
        {"T": 290, "B": 1, "I": 9, "H": 200, "tokens": True, "reverse": True, "mask": True},
    ],
    ids=name,
)
def test_sums_do_not_depend_on_blocks(compiled, dtype, threads, case):
    """With caches that hold all, and so small that a block is 128 terms, and all weights beyond the second level."""
    native, p = elman.backends.get("cython"), make(**case, dtype=dtype)
    try:
        native.use_cache_sizes(*3 * [1 << 30])
        threads(1)
        one = run(p, compiled)
        native.use_cache_sizes(*3 * [4096])
        for n in (1, 2, 7):
            threads(n)
            assert_same_bits(run(p, compiled), one)
    finally:
        native.use_cache_sizes(0, 0, 0)


@pytest.mark.parametrize("loss", reference.LOSSES)
@pytest.mark.parametrize("sizes", [{"T": 50, "B": 33, "K": 64, "O": 65}, {"T": 9, "B": 5, "K": 17, "O": 3}], ids=name)
def test_losses_do_not_depend_on_threads(compiled, dtype, threads, loss, sizes):
    r = make_readout(**sizes, loss=loss, lengths="ragged", weights="steps", dtype=dtype)
    dense = make_readout(**sizes, dtype=dtype)
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        alone = {"alone": np.array(r.loss_only(compiled)), "outputs": dense.outputs(compiled)}
        results.append(r.run(compiled) | alone)
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_norms_and_updates_do_not_depend_on_threads(compiled, dtype, threads, rng):
    arrays = _optimizer_arrays(rng, 300_007, dtype)
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        clipped = arrays["gradient"].copy()
        norm = compiled.clip_norm(clipped, max_norm=1.0)
        results.append({"clipped": clipped, "norm": np.array(norm)})
        for rule in OPTIMIZERS:
            results[-1] |= {f"{rule} {key}": array for key, array in _update(compiled, rule, arrays).items()}
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_calls_from_several_threads(backend, dtype):
    problems = [make(T=9, B=8, I=17, H=65, dtype=dtype, seed=seed) for seed in range(6)]
    expected = [run(p, backend) for p in problems]
    with ThreadPoolExecutor(4) as pool:
        for got, one in zip(pool.map(lambda p: run(p, backend), 5 * problems), 5 * expected, strict=True):
            assert_same_bits(got, one)


SEGMENTED = [
    {"T": 41, "B": 3, "I": 4, "H": 33},
    {"T": 17, "B": 1, "I": 65, "H": 130},
    {"T": 23, "B": 7, "I": 5, "H": 17, "lengths": "ragged"},
    {"T": 23, "B": 20, "I": 9, "H": 16, "mask": True, "bias": False},
    {"T": 70, "B": 2, "I": 9, "H": 15, "tokens": True, "activation": "sigmoid"},
]


@pytest.mark.parametrize("reverse", [False, True], ids=["ahead", "reverse"])
@pytest.mark.parametrize("case", SEGMENTED, ids=name)
def test_forward_in_segments_is_the_whole(compiled, dtype, case, reverse):
    p = make(**case, reverse=reverse, dtype=dtype)
    n_steps = len(p.x)
    cuts = [0, 1, n_steps // 3, n_steps - 1, n_steps]
    segments = list(itertools.pairwise(cuts))
    h, parts = p.h_0, []
    for start, stop in reversed(segments) if reverse else segments:
        out = p.times(start, stop).replace(h_0=h).forward(compiled)
        h, parts = out["h_n"], [out["y"], *parts] if reverse else [*parts, out["y"]]
    assert_same_bits({"y": np.concatenate(parts), "h_n": h}, p.forward(compiled))


@pytest.mark.parametrize("case", SEGMENTED, ids=name)
def test_backward_in_segments_is_the_whole(compiled, dtype, case):
    """Recomputation: the last segment first, each handing its d_h_0 to the one before and adding to the same sums."""
    p = make(**case, dtype=dtype)
    y = p.forward(compiled)["y"]
    whole = p.backward(compiled, y)
    n_steps = len(p.x)
    for cut in (1, n_steps // 2, n_steps - 1):
        middle = p.times(0, cut).forward(compiled)["h_n"]
        late = p.times(cut, n_steps).replace(h_0=middle)
        late_out = late.backward(compiled, late.forward(compiled)["y"])
        sums = {key: late_out[key] for key in p.sums}
        early = p.times(0, cut).replace(d_h_n=late_out["d_h_0"], sums=sums)
        out = early.backward(compiled, y[:cut])
        for key in out.keys() & {"delta", "d_x"}:
            out[key] = np.concatenate([out[key], late_out[key]])
        assert_same_bits(out, whole)


@pytest.mark.parametrize("direction", [{}, {"reverse": True}, {"D": 2}], ids=["ahead", "reverse", "both"])
def test_a_ragged_batch_is_each_row_alone(compiled, dtype, direction):
    p = make(T=11, B=9, I=5, H=33, lengths="ragged", dtype=dtype, **direction)
    together = p.forward(compiled)
    for b, length in enumerate(p.lengths):
        if length > 0:
            alone = p.rows(slice(b, b + 1)).times(0, length).replace(lengths=None).forward(compiled)
            expected = {"y": together["y"][:length, b : b + 1], "h_n": together["h_n"][:, b : b + 1]}
            assert_same_bits(alone, expected)


@pytest.mark.parametrize("case", [{}, {"bias": False}, {"D": 2, "mask": True}], ids=name)
def test_tokens_are_one_hot_inputs(compiled, dtype, case):
    p = make(T=6, B=5, I=19, H=33, tokens=True, dtype=dtype, **case)
    one_hot = p.replace(x=np.eye(19, dtype=dtype)[p.x])
    assert_same_bits(p.forward(compiled), one_hot.forward(compiled))


@pytest.mark.parametrize("case", [{}, {"tokens": True}, {"bias": False, "activation": "sigmoid"}], ids=name)
def test_steps_are_the_sequence(compiled, dtype, case):
    p = make(T=7, B=5, I=17, H=33, dtype=dtype, **case)
    h, states = p.h_0, []
    for t in range(len(p.x)):
        h = _step(compiled, p.times(t, t + 1).replace(h_0=h))
        states.append(h[0])
    assert_same_bits({"y": np.stack(states), "h_n": h}, p.forward(compiled))


# ---- extremes


@pytest.mark.parametrize("huge", [1e3, 1e5, 1e30, np.inf])
@pytest.mark.parametrize(("activation", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1), ("retanh", 0, 1)])
def test_saturation(backend, dtype, activation, low, high, huge):
    """Exactly the limits, a gradient of exactly 0, and never NaN."""
    sign = np.array([1, -1, 1, -1, -1])
    p = make(T=1, B=5, I=1, H=33, dtype=dtype, activation=activation)
    p = p.replace(x=(huge * sign).astype(dtype)[None, :, None], weight_ih=np.ones_like(p.weight_ih))
    y = p.forward(backend)["y"]
    np.testing.assert_array_equal(y, np.broadcast_to(np.where(sign > 0, high, low)[:, None], y.shape))
    if np.isfinite(huge):
        out = p.backward(backend, y)
        for key in ("delta", "d_x", "d_h_0"):
            np.testing.assert_array_equal(out[key], np.zeros_like(out[key]))
        for key, array in p.sums.items():
            np.testing.assert_array_equal(out[key], array)


@pytest.mark.parametrize("huge", [1e3, 1e30, np.inf])
def test_limits_of_softplus_and_power(backend, dtype, huge):
    """a or nothing, and a² or nothing, to infinity; of softplus, slopes of exactly 1 and 0."""
    values = np.array([huge, -huge, np.nan, 0], dtype)
    p = make(T=1, B=4, I=1, H=33, dtype=dtype, bias=False)
    p = p.replace(x=values[None, :, None], weight_ih=np.ones_like(p.weight_ih), h_0=np.zeros_like(p.h_0))
    with np.errstate(over="ignore"):
        softplus, power = (p.replace(activation=name).forward(backend)["y"][0] for name in ("softplus", "power"))
        square = values[0] ** 2
    np.testing.assert_array_equal(softplus[:3].T, np.full((33, 3), [values[0], 0, np.nan], dtype))
    np.testing.assert_array_equal(power.T, np.full((33, 4), [square, 0, np.nan, 0], dtype))
    np.testing.assert_array_equal(_slopes(backend, "softplus", np.full(16, values[0])), 1)
    np.testing.assert_array_equal(_slopes(backend, "softplus", np.zeros(16, dtype)), 0)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_losses_of_huge_outputs(backend, dtype, loss):
    """Sure of the right answer: no loss. Sure of the wrong one: the distance of the outputs, and finite gradients."""
    outputs = np.array([[[2e4, 0, -2e4], [2e4, 0, -2e4]]], dtype)
    if loss == "cross_entropy":
        target, expected = np.array([[0, 2]]), 4e4
        gradient = np.array([[[0, 0, 0], [1, 0, -1]]])
    else:
        target = np.array([[[1, 1, 0], [0, 1, 1]]], dtype)
        expected = 4e4 + 2 * np.log(2)
        gradient = np.array([[[0, -0.5, 0], [1, -0.5, -1]]])
    zeros = {"d_weight": np.zeros((3, 3), dtype)}
    r = Readout(h=outputs, weight=np.eye(3, dtype=dtype), bias=None, target=target, sums=zeros, loss=loss, scale=1.0)
    got = r.run(backend)
    assert float(got["total"]) == pytest.approx(expected, rel=4 * float(np.finfo(dtype).eps))
    np.testing.assert_allclose(got["o"], gradient, rtol=0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_nan_stays_in_its_row(backend, dtype, activation):
    p = make(T=5, B=9, I=3, H=33, dtype=dtype, activation=activation)
    x = p.x.copy()
    x[2, 4, 1] = np.nan
    clean, got = run(p, backend), run(p.replace(x=x), backend)
    for rows in (slice(0, 4), slice(5, 9)):
        others = {key: array[:, rows] for key, array in per_row(clean).items()}
        assert_same_bits({key: array[:, rows] for key, array in per_row(got).items()}, others)
    assert_same_bits({"y": got["y"][:2]}, {"y": clean["y"][:2]})
    assert np.isnan(got["y"][2:, 4]).all()
    assert np.isnan(got["h_n"][:, 4]).all()


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_subnormals(backend, dtype, activation):
    """They may count as zero, and then relu and retanh have no slope there; no more."""
    tiny = np.finfo(dtype).tiny
    p = make(T=6, B=5, I=7, H=33, dtype=dtype, activation=activation, bias=False)
    tiny_p = p.replace(**{key: (getattr(p, key) * tiny).astype(dtype) for key in ("x", "h_0", "d_h_n")})
    method = Problem.forward if activation in ("relu", "retanh") else run
    got, exact = method(tiny_p, backend), method(tiny_p.astype("float64"), reference)
    for key, array in exact.items():
        tolerance = 1e3 * tiny + 1e3 * np.finfo(dtype).eps * np.abs(array).max()
        np.testing.assert_allclose(got[key], array, rtol=0, atol=tolerance, err_msg=key)


def test_flushing_of_subnormals_ends_with_the_kernel(backend, dtype, rng):
    p, r = make(T=3, B=4, H=33, dtype=dtype), make_readout(dtype=dtype)
    arrays = _optimizer_arrays(rng, 20, dtype)
    calls = {
        "forward and backward": lambda: run(p, backend),
        "step": lambda: _step(backend, p),
        "readout": lambda: r.outputs(backend),
        "loss": lambda: r.run(backend),
        "clip_norm": lambda: backend.clip_norm(arrays["gradient"].copy(), max_norm=1.0),
    } | {rule: functools.partial(_update, backend, rule, arrays) for rule in OPTIMIZERS}
    small = np.full(9, 1.5 * np.finfo(dtype).tiny, dtype)
    for key, call in calls.items():
        call()
        assert (small * np.asarray(0.25, dtype) != 0).all(), key  # the result is subnormal
        assert (small * np.asarray(0.25, dtype) * 8 != 0).all(), key  # and so is the operand


# ---- elementary functions


def _activate(backend, activation: str, values: np.ndarray) -> np.ndarray:
    """f(values) by `step`: the identity as weights, states of zero."""
    x = values.reshape(-1, 64)
    h_next = np.full_like(x, np.nan)
    eye, zeros = np.eye(64, dtype=x.dtype), np.zeros((64, 64), x.dtype)
    backend.step(x, np.zeros_like(x), eye, zeros, None, h_next, activation=activation)
    return h_next.reshape(-1)


def _slopes(backend, activation: str, y: np.ndarray) -> np.ndarray:
    """f' at states y, by `backward`: one step of one row, to which a gradient of ones comes."""
    p = make(T=1, B=1, I=1, H=y.size, dtype=y.dtype, activation=activation, d_h_n=False, input_grad=False)
    p = p.replace(d_y=np.ones_like(p.d_y), weight_hh=np.zeros_like(p.weight_hh))
    return p.backward(backend, y.reshape(1, 1, -1))["delta"].reshape(-1)


EXACT = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "softplus": lambda a: mpmath.log1p(mpmath.exp(a)),
    "retanh": lambda a: max(mpmath.tanh(a), 0),
    "power": lambda a: max(a, 0) ** 2,
}
EXACT_SLOPES = {"softplus": lambda y: -mpmath.expm1(-y), "power": lambda y: 2 * mpmath.sqrt(y)}


def _exactly(function, values: np.ndarray) -> np.ndarray:
    with mpmath.workprec(200):
        return np.array([float(function(mpmath.mpf(v))) for v in values.tolist()])


def _assert_ulp(backend, got: np.ndarray, values: np.ndarray, exact: np.ndarray) -> None:
    """At most 2 ULP; NumPy's own functions, of which the reference is made, have up to 4. Subnormals may be zero."""
    limit = 4 if backend is reference else 2
    with np.errstate(invalid="ignore"):  # of what no number can hold
        errors = np.abs(got.astype(float) - exact.astype(float)) / np.spacing(np.abs(exact)).astype(float)
    errors[got == exact] = 0
    normal = np.minimum(np.abs(values), np.abs(exact)) >= np.finfo(values.dtype).tiny
    worst = np.argmax(np.where(normal, errors, 0))
    assert errors[worst] <= limit, f"f({values[worst]!r}) = {got[worst]!r}, not {exact[worst]!r}"
    assert (np.abs(got[~normal] - exact[~normal]) <= np.finfo(values.dtype).tiny).all()


@pytest.mark.parametrize("activation", EXACT)
@np.errstate(over="ignore")
def test_elementary_functions_in_float32(backend, rng, activation):
    magnitudes = np.geomspace(1e-38, 3e38, 1 << 16)
    near = [rng.uniform(-bound, bound, 1 << 15) for bound in (1, 10, 110)]
    values = np.concatenate([magnitudes, -magnitudes, *near, np.zeros(64)]).astype(np.float32)
    exact = reference.ACTIVATIONS[activation][0](values.astype(float)).astype(np.float32)
    _assert_ulp(backend, _activate(backend, activation, values), values, exact)


@pytest.mark.parametrize("activation", EXACT)
@np.errstate(over="ignore")
def test_elementary_functions_in_float64(backend, rng, activation):
    magnitudes = np.geomspace(1e-307, 1e300, 512)
    near = [rng.uniform(-bound, bound, 256) for bound in (1e-3, 0.1, 1, 20, 750)]
    values = np.concatenate([magnitudes, -magnitudes, *near])
    _assert_ulp(backend, _activate(backend, activation, values), values, _exactly(EXACT[activation], values))


@pytest.mark.parametrize("activation", EXACT_SLOPES)
def test_slopes_that_are_elementary_functions(backend, dtype, rng, activation):
    """Of softplus' small states, which are about its slopes, too."""
    y = np.concatenate([np.geomspace(1e-37, 1e30, 512), rng.uniform(0, 3, 2048), rng.uniform(0, 100, 256)])
    y = y.astype(dtype)
    exact = _exactly(EXACT_SLOPES[activation], y).astype(dtype)
    _assert_ulp(backend, _slopes(backend, activation, y), y, exact)


def test_tanh_where_it_is_least_exact(compiled, dtype, rng):
    """Just above ln 2 / 4, where most is lost by rounding."""
    if np.finfo(np.longdouble).nmant < 60 and dtype == "float64":
        pytest.skip("no reals here that are wider than float64")
    values = rng.uniform(0.17, 0.36, 200_000).astype(dtype)
    exact = np.tanh(values.astype(np.longdouble))
    errors = np.abs(_activate(compiled, "tanh", values) - exact) / np.spacing(exact.astype(dtype))
    assert errors.max() <= (2 if dtype == "float32" else 2.2)


def test_softplus_where_it_is_least_exact(compiled, dtype, rng):
    """Where its last bits are half as large as those of e^a, and where a is added to about log 2."""
    if np.finfo(np.longdouble).nmant < 60 and dtype == "float64":
        pytest.skip("no reals here that are wider than float64")
    values = np.concatenate([rng.uniform(-0.45, -0.43, 200_000), rng.uniform(0, 0.1, 200_000)]).astype(dtype)
    exact = np.log1p(np.exp(values.astype(np.longdouble)))
    errors = np.abs(_activate(compiled, "softplus", values) - exact) / np.spacing(exact.astype(dtype))
    assert errors.max() <= 1.75


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_nan_in_nan_out(backend, dtype, activation):
    values = np.full(64, np.nan, dtype)
    assert np.isnan(_activate(backend, activation, values)).all()


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 4), (5, 3), (17, 16), (37, 70), (128, 33)])
def test_transpose_each(shape, dtype, rng):
    native = pytest.importorskip("elman.backends.native")
    source, target = rng.standard_normal(shape).astype(dtype), np.full(shape[::-1], np.nan, dtype)
    row, copy = source[0].copy(), np.full(shape[1], np.nan, dtype)
    native.transpose_each([source, row, source], [target, copy, None])
    assert np.array_equal(target, source.T)
    assert np.array_equal(copy, row)
    with pytest.raises(ValueError, match="targets: expected extents"):
        native.transpose_each([source], [np.empty((shape[1] + 1, shape[0]), dtype)])
    with pytest.raises(ValueError, match="shorter"):
        native.transpose_each([source, row], [target])
