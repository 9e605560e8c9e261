"""Resets: a row whose state becomes the initial one before some steps is, to the bit, as many sequences run apart."""

import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import elman.backends
from elman.backends import native, reference
from elman.backends.contract import Gradients

from ..cases import LAYOUTS, Problem, bits, check_untouched, make, place, poison
from ..compare import assert_same_bits
from .test_leaks import CELLS, options_of

COMPILED = [name for name in elman.backends.available() if name != "numpy"]
PER_ROW = ("y", "h_n", "d_h_0", "d_x", "d_h_reset", "second", "dropped", "delta")
PROBLEMS = [
    {"T": 7, "B": 3, "I": 4, "H": 5},
    {"T": 9, "B": 4, "I": 3, "H": 17, "lengths": "ragged", "mask": True},
    {"T": 6, "B": 5, "I": 6, "H": 33, "lengths": "ragged", "activation": "sigmoid", "layout": "gaps"},
    {"T": 5, "B": 30, "I": 5, "H": 16, "tokens": True, "layout": "batch_major", "activation": "relu"},
    {"T": 9, "B": 1, "I": 2, "H": 70, "d_y": False, "bias": False, "activation": "softplus"},
    {"T": 1, "B": 1, "I": 1, "H": 1},
    {"T": 3, "B": 2, "I": 1, "H": 1, "lengths": "zero"},
    {"T": 40, "B": 2, "I": 2, "H": 66, "d_h_n": False, "activation": "identity", "layout": "flipped"},
]


def resets_of(p: Problem, density: float = 0.3) -> np.ndarray:
    """Some, beyond the lengths too; one at step 0, and two in a row."""
    resets = np.random.default_rng(5).random(p.x.shape[:2]) < density
    resets[0, 0], resets[-2:, -1] = True, True
    return resets


def dropout_of(p: Problem) -> dict[str, Any]:
    return {"dropout": 0.25, "key": 77, "layer": 3, "first_step": 7} if p.x.ndim == 3 else {}


def run(
    p: Problem, backend: ModuleType, options: dict[str, Any], resets: np.ndarray | None, h_reset: np.ndarray | None
) -> dict[str, np.ndarray]:
    """What both passes write."""
    shape = len(p.x), p.h_0.shape[1], p.h_0.shape[2]
    out = {name: poison(shape, p.dtype, p.layout) for name in ("y", "delta")}
    out |= {name: poison(p.h_0.shape, p.dtype) for name in ("h_n", "d_h_0")}
    out |= {name: place(array, writeable=True) for name, array in p.sums.items()}
    if p.x.ndim == 3:
        out["d_x"] = poison(p.x.shape, p.dtype, p.layout)
    if options.get("dropout"):
        out["dropped"] = poison(shape, p.dtype, p.layout)
    if has_cell := options["cell"] != "elman":
        out["second"] = poison(shape, p.dtype, p.layout)
    sums = {"d_numbers": has_cell, "d_noise": options.get("noise") is not None, "d_h_reset": h_reset is not None}
    out |= {name: place(np.zeros_like(p.h_0), writeable=True) for name, is_there in sums.items() if is_there}
    layer = p.layer(out["y"], out["h_n"], out.get("dropped"))
    layer = layer._replace(second=out.get("second"), resets=resets, h_reset=h_reset, **options)
    backend.forward(layer)
    names = ("delta", "d_weight_ih", "d_weight_hh", "d_bias", "d_h_0", "d_x")
    carry = poison(p.h_0.shape, p.dtype) if has_cell else None
    further = carry, *map(out.get, ("d_numbers", "d_noise", "d_h_reset"))
    backend.backward(layer, Gradients(p.d_y, p.d_h_n, *map(out.get, names), *further))  # type: ignore[arg-type]
    for name, array in out.items():
        check_untouched(array, p.lengths if name in ("y", "second", "delta", "d_x", "dropped") else None)
    return out


def apart(
    p: Problem, backend: ModuleType, options: dict[str, Any], resets: np.ndarray, h_reset: np.ndarray
) -> dict[str, np.ndarray]:
    """The same of the pieces between resets, each a call: of the whole batch, whose other rows have no steps."""
    n_steps, n_rows, n_units = len(p.x), *p.h_0.shape[1:]
    lengths = np.full(n_rows, n_steps) if p.lengths is None else p.lengths
    whole = {name: poison((n_steps, n_rows, n_units), p.dtype) for name in ("y", "delta")}
    whole |= {name: np.zeros_like(p.h_0) for name in ("h_n", "d_h_0", "d_h_reset")}
    sums: dict[str, np.ndarray] = {name: array.copy() for name, array in p.sums.items()}
    for b, length in enumerate(lengths):
        starts = sorted({0, *np.flatnonzero(resets[:length, b])})
        for i, start in reversed(list(enumerate(starts))):
            is_last, is_reset = i == len(starts) - 1, bool(length) and resets[start, b]
            stop = length if is_last else starts[i + 1]
            piece = p.times(start, max(stop, start + 1)).replace(lengths=(np.arange(n_rows) == b) * (stop - start))
            piece = piece.replace(
                h_0=h_reset if is_reset else p.h_0,
                d_h_n=p.d_h_n if is_last else None,
                sums={name: np.zeros_like(array) for name, array in p.sums.items()},
            )
            out = run(piece, backend, options | {"first_step": options.get("first_step", 0) + start}, None, None)
            for name in {"y", "delta", "second", "dropped", "d_x"} & out.keys():
                shape = n_steps, n_rows, out[name].shape[2]
                whole.setdefault(name, poison(shape, p.dtype))[start:stop, b] = out[name][: stop - start, b]
            if is_last:
                whole["h_n"][:, b] = out["h_n"][:, b]
            if is_reset:
                whole["d_h_reset"][:, b] += out["d_h_0"][:, b]
            else:
                whole["d_h_0"][:, b] = out["d_h_0"][:, b]
            for name in (*p.sums, "d_numbers", "d_noise"):
                if name in out:
                    array = out[name] if name in p.sums else out[name] * (np.arange(n_rows) == b)[:, None]
                    sums[name] = sums.get(name, 0) + array
    return whole | sums


def problem(case: dict[str, Any], dtype: str, cell: str) -> tuple[Problem, dict[str, Any], np.ndarray, np.ndarray]:
    p = make(**case, dtype=dtype)
    options = options_of(p, cell) | dropout_of(p)
    h_reset = place(np.random.default_rng(9).uniform(-0.9, 0.9, p.h_0.shape).astype(dtype))
    return p, options, resets_of(p), h_reset


@functools.cache
def of_reference(i: int, dtype: str, cell: str, is_apart: bool = False) -> dict[str, np.ndarray]:
    """What problem i comes to in float64 by the reference, whole or in pieces."""
    p, options, resets, h_reset = problem(PROBLEMS[i], dtype, cell)
    exact = {name: np.asarray(options[name], "float64") for name in ("numbers", "noise") if options[name] is not None}
    function = apart if is_apart else run
    return function(p.astype("float64"), reference, options | exact, resets, h_reset.astype("float64"))


def check_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], eps: float) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        bound = eps * np.abs(array[~np.isnan(array)]).max(initial=1)
        np.testing.assert_allclose(got[name], array, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("i", range(len(PROBLEMS)))
@pytest.mark.parametrize("cell", CELLS)
def test_the_reference_is_its_pieces(cell: str, i: int):
    check_close(of_reference(i, "float64", cell), of_reference(i, "float64", cell, is_apart=True), 1e-12)


@pytest.mark.parametrize("i", range(len(PROBLEMS)))
@pytest.mark.parametrize("cell", CELLS)
def test_a_backend_is_the_reference(backend: ModuleType, dtype: str, cell: str, i: int):
    p, *others = problem(PROBLEMS[i], dtype, cell)
    check_close(run(p, backend, *others), of_reference(i, dtype, cell), 1e-12 if dtype == "float64" else 2e-5)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.usefixtures("instruction_set")
def test_pieces_run_apart(dtype: str, cell: str, case: dict[str, Any]):
    """By C, whose bits Numba has."""
    p, *others = problem(case, dtype, cell)
    got, expected = (function(p, elman.backends.get("cython"), *others) for function in (run, apart))
    assert got.keys() == expected.keys()
    within = [name for name in PER_ROW if name in got]
    assert_same_bits({name: got[name] for name in within}, {name: expected[name] for name in within})
    for name in got.keys() - set(within):
        bound = np.abs(expected[name]).max() * (1e-12 if dtype == "float64" else 1e-5)
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=bound)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.skipif("numba" not in elman.backends.available(), reason="there is no Numba for this Python")
@pytest.mark.usefixtures("instruction_set")
def test_compiled_backends_agree_to_the_bit(dtype: str, cell: str):
    for case in PROBLEMS:
        p, *others = problem(case, dtype, cell)
        cython, numba = (run(p, elman.backends.get(name), *others) for name in ("cython", "numba"))
        assert_same_bits(numba, cython)


@pytest.mark.parametrize("sizes", [{"B": 1, "H": 512, "T": 30}, {"B": 37, "H": 70, "T": 30, "lengths": "ragged"}])
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_no_bit(threads: Any, name: str, cell: str, sizes: dict[str, Any]):
    backend = elman.backends.get(name)
    p, *others = problem(sizes | {"I": 3}, "float32", cell)
    expected = apart(p, backend, *others)
    same = [key for key in PER_ROW if key in expected]
    for n_threads in (1, 2):
        threads(n_threads)
        if sizes["B"] == 1 and n_threads == 2:
            for is_backward in (False, True):
                assert native.plan(30, 1, 3, 512, is_backward=is_backward)["parts"] == 2
        for _ in range(3):
            got = run(p, backend, *others)
            assert_same_bits({key: got[key] for key in same}, {key: expected[key] for key in same})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_none_is_as_no_resets_and_how_they_lie_does_not_matter(backend: ModuleType, dtype: str, cell: str, layout: str):
    p, options, resets, h_reset = problem({"T": 6, "B": 5, "H": 37, "lengths": "ragged", "mask": True}, dtype, cell)
    none = run(p, backend, options, np.zeros_like(resets), h_reset)
    assert not none.pop("d_h_reset").any()
    assert_same_bits(none, run(p, backend, options, None, None))
    wide = np.zeros((12, 15), bool)
    lying = {
        "time_major": resets,
        "batch_major": resets.T.copy().T,
        "gaps": wide[::2, ::3],
        "flipped": resets[::-1, ::-1].copy()[::-1, ::-1],
    }[layout]
    lying[...] = resets
    assert_same_bits(run(p, backend, options, lying, h_reset), run(p, backend, options, resets, h_reset))
    beyond = resets.copy()
    beyond[np.arange(6)[:, None] >= p.lengths] = True  # type: ignore[operator]
    assert_same_bits(run(p, backend, options, beyond, h_reset), run(p, backend, options, resets, h_reset))


@pytest.mark.parametrize("cell", CELLS)
def test_resets_at_all_steps_leave_no_product_over_time(backend: ModuleType, cell: str):
    """Each step is a sequence; h_0 is not read, be it NaN."""
    p, options, resets, h_reset = problem({"T": 6, "B": 4, "H": 9}, "float64", cell)
    resets[:] = True
    got = run(p.replace(h_0=np.full_like(p.h_0, np.nan)), backend, options, resets, h_reset)
    assert not got["d_h_0"].any()
    for name, array in apart(p, backend, options, resets, h_reset).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_central_differences(backend: ModuleType, cell: str):
    """Of Σ y d_y + Σ h_n d_h_n, where nothing is dropped, by what all is computed from."""
    p, options, resets, h_reset = problem({"T": 6, "B": 3, "H": 4, "lengths": "ragged"}, "float64", cell)
    options["dropout"] = 0.0
    got = run(p, backend, options, resets, h_reset)
    active = np.arange(6)[:, None] < p.lengths  # type: ignore[operator]

    def loss(**changes: np.ndarray) -> float:
        own = {name: changes.pop(name) for name in ("numbers",) if name in changes}
        h = changes.pop("h_reset", h_reset)
        out = run(p.replace(**changes), backend, options | own, resets, h)
        return float((out["y"] * p.d_y)[active].sum() + (out["h_n"] * p.d_h_n).sum())

    inputs = {name: getattr(p, name) for name in ("h_0", "weight_ih", "weight_hh", "bias")} | {"h_reset": h_reset}
    inputs |= {} if cell == "elman" else {"numbers": options["numbers"]}
    for name, array in inputs.items():
        gradient = got[f"d_{name}"] - p.sums.get(f"d_{name}", 0)
        gradient = gradient.sum(axis=1) if name == "numbers" else gradient
        for where in np.ndindex(array.shape):
            low, high = array.copy(), array.copy()
            low[where] -= 1e-5
            high[where] += 1e-5
            slope = (loss(**{name: high}) - loss(**{name: low})) / 2e-5
            np.testing.assert_allclose(gradient[where], slope, rtol=1e-6, atol=1e-7, err_msg=f"{name}{where}")


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_refused(name: str):
    """By the wall, which test_wall.py shows the rest of."""
    backend = elman.backends.get(name)
    p, _, resets, h_reset = problem({"T": 4, "B": 3, "I": 5, "H": 6}, "float32", "elman")
    both = make(T=4, B=3, I=5, H=6, D=2, dtype="float32")
    cases = [
        ("h_reset", p, resets, None),
        ("resets", p, None, h_reset),
        ("resets", p.replace(reverse=True), resets, h_reset),
        ("resets", both, resets, np.zeros_like(both.h_0)),
    ]
    for what, problem_, given, states in cases:
        y = poison((4, 3, problem_.h_0.shape[0] * 6), p.dtype)
        with pytest.raises((TypeError, ValueError), match=f"{what}: expected"):
            backend.forward(problem_.layer(y)._replace(resets=given, h_reset=states))
        assert (bits(y) == bits(poison(y.shape, p.dtype))).all()
