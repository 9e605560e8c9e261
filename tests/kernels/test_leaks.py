"""The leaky cells, and noise: both equations beside loops in plain PyTorch, and bits that are the same everywhere."""

import itertools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import elman.backends
from elman.backends import reference
from elman.backends.contract import Gradients

from ..cases import Problem, check_untouched, make, place, poison
from ..compare import assert_same_bits

CELLS = "elman", "rate", "potential"
KEYS = np.array([3, -1, 1 << 62, 0, 77, 2**31, -(2**63), 12345678901, 5], np.int64)
PROBLEMS = [
    {"T": 6, "B": 3, "I": 4, "H": 5},
    {"T": 7, "B": 4, "I": 3, "H": 17, "D": 2, "lengths": "ragged", "mask": True},
    {"T": 5, "B": 9, "I": 6, "H": 33, "reverse": True, "lengths": "ragged", "activation": "sigmoid"},
    {"T": 4, "B": 100, "I": 5, "H": 16, "tokens": True, "layout": "batch_major", "activation": "relu"},
    {"T": 9, "B": 1, "I": 2, "H": 257, "d_y": False, "bias": False},
    {"T": 1, "B": 1, "I": 1, "H": 1, "lengths": "zero"},
    {"T": 130, "B": 2, "I": 2, "H": 66, "d_h_n": False, "activation": "identity"},
]


def options_of(p: Problem, cell: str, noise: bool = True) -> dict[str, Any]:
    """A leak for each unit, and noise for each row."""
    rng, shape = np.random.default_rng(1), p.h_0.shape[::2]
    numbers = None if cell == "elman" else place(rng.uniform(0.05, 1, shape).astype(p.dtype))
    options = {"cell": cell, "numbers": numbers}
    if noise:
        keys = place(np.resize(KEYS, p.h_0.shape[1]))
        options |= {
            "noise": place(rng.uniform(0, 0.5, shape).astype(p.dtype)),
            "keys": keys,
            "layer": 3,
            "first_step": 7,
        }
    return options


def run(p: Problem, backend: ModuleType, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """What both passes write."""
    shape = len(p.x), p.h_0.shape[1], p.h_0.shape[0] * p.h_0.shape[2]
    out = {name: poison(shape, p.dtype, p.layout) for name in ("y", "delta")}
    out |= {name: poison(p.h_0.shape, p.dtype) for name in ("h_n", "d_h_0")}
    out |= {name: place(array, writeable=True) for name, array in p.sums.items()}
    if p.x.ndim == 3:
        out["d_x"] = poison(p.x.shape, p.dtype, p.layout)
    if has_cell := options["cell"] != "elman":
        out["second"] = poison(shape, p.dtype, p.layout)
    sums = {"d_numbers": has_cell, "d_noise": options.get("noise") is not None}
    out |= {name: place(np.ones_like(p.h_0), writeable=True) for name, is_there in sums.items() if is_there}
    layer = p.layer(out["y"], out["h_n"])._replace(second=out.get("second"), **options)
    backend.forward(layer)
    names = ("delta", "d_weight_ih", "d_weight_hh", "d_bias", "d_h_0", "d_x")
    carry = poison(p.h_0.shape, p.dtype) if has_cell else None
    further = carry, out.get("d_numbers"), out.get("d_noise")
    backend.backward(layer, Gradients(p.d_y, p.d_h_n, *map(out.get, names), *further))  # type: ignore[arg-type]
    for name, array in out.items():
        check_untouched(array, p.lengths if name in ("y", "second", "delta", "d_x") else None)
    return out


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_backend_is_the_reference(backend: ModuleType, dtype: str, cell: str, case: dict[str, Any]):
    p = make(**case, dtype=dtype)
    options = options_of(p, cell)
    got = run(p, backend, options)
    exact = {
        name: np.asarray(array, "float64")
        for name, array in options.items()
        if name in ("numbers", "noise") and array is not None
    }
    expected = run(p.astype("float64"), reference, options | exact)
    for name, array in expected.items():
        tolerance = (1e-12 if dtype == "float64" else 2e-5) * np.abs(array[~np.isnan(array)]).max(initial=1)
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.skipif("numba" not in elman.backends.available(), reason="there is no Numba for this Python")
def test_compiled_backends_agree_to_the_bit(dtype: str, cell: str):
    for case in PROBLEMS:
        p = make(**case, dtype=dtype)
        options = options_of(p, cell)
        cython, numba = (run(p, elman.backends.get(name), options) for name in ("cython", "numba"))
        assert_same_bits(numba, cython)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_no_bit(cell: str, n_threads: int):
    backend = elman.backends.get("cython")
    for sizes in (
        {"B": 1, "H": 512, "T": 40},
        {"B": 37, "H": 70, "T": 50, "lengths": "ragged"},
        {"B": 2, "H": 300, "D": 2},
    ):
        p = make(**sizes, dtype="float32")
        expected = run(p, backend, options_of(p, cell))
        before = elman.get_num_threads()
        try:
            elman.set_num_threads(n_threads)
            for _ in range(10):  # threads that share columns have others of inputs than of states
                assert_same_bits(run(p, backend, options_of(p, cell)), expected)
        finally:
            elman.set_num_threads(before)


def test_a_leak_of_1_and_no_noise_is_elman_s_cell_to_the_bit(backend: ModuleType, dtype: str):
    p = make(T=6, B=5, H=37, D=2, lengths="ragged", mask=True, dtype=dtype)
    ones = np.ones(p.h_0.shape[::2], p.dtype)
    plain = run(p, backend, {"cell": "elman"})
    leaky = run(p, backend, {"cell": "rate", "numbers": ones})
    for name in ("second", "d_numbers"):
        del leaky[name]
    assert_same_bits({k: v + 0 for k, v in leaky.items()}, {k: v + 0 for k, v in plain.items()})  # but for -0


# ---- both equations, by PyTorch


def by_torch(p: Problem, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """y, h_n and all gradients of Σ y d_y + Σ h_n d_h_n, step by step and row by row, with the normals given."""
    torch = pytest.importorskip("torch")
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "identity": lambda a: a}[p.activation]

    def leaf(array: Any) -> Any:
        return None if array is None else torch.tensor(np.array(array), requires_grad=array.dtype.kind == "f")

    names = ("x", "h_0", "weight_ih", "weight_hh", "bias")
    of = {name: leaf(getattr(p, name)) for name in names} | {
        name: leaf(options.get(name)) for name in ("numbers", "noise")
    }
    n_directions, n_rows, n_units = p.h_0.shape
    xi = np.zeros((len(p.x), n_rows, n_directions * n_units))
    if of["noise"] is not None:
        for d in range(n_directions):
            columns = slice(d * n_units, (d + 1) * n_units)
            stream = 4 * options["layer"] + 2 * d
            reference.normals(xi[..., columns], options["keys"], stream=stream, first_step=options["first_step"])
    xi, y = torch.tensor(xi), torch.zeros(xi.shape, dtype=torch.float64)
    lengths = np.full(n_rows, len(p.x)) if p.lengths is None else p.lengths
    total, h_n = torch.zeros((), dtype=torch.float64), []
    outputs: dict[tuple[int, int, int], Any] = {}
    for d, b in itertools.product(range(n_directions), range(n_rows)):
        columns, h = slice(d * n_units, (d + 1) * n_units), of["h_0"][d, b]
        steps = range(int(lengths[b]))
        for t in reversed(steps) if p.reverse or d == 1 else steps:
            x = of["weight_ih"][d][int(p.x[t, b])] if p.x.ndim == 2 else of["x"][t, b] @ of["weight_ih"][d]
            a = x if of["bias"] is None else x + of["bias"][d]
            if of["noise"] is not None:
                a = a + of["noise"][d] * xi[t, b, columns]
            r = f(h) if options["cell"] == "potential" else h
            a = a + (r if p.mask is None else torch.tensor(np.array(p.mask[d, b])) * r) @ of["weight_hh"][d]
            if options["cell"] == "elman":
                out = h = f(a)
            elif options["cell"] == "rate":
                out = h = (1 - of["numbers"][d]) * h + of["numbers"][d] * f(a)
            else:
                h = (1 - of["numbers"][d]) * h + of["numbers"][d] * a
                out = f(h)
            outputs[t, b, d] = out
            if p.d_y is not None:
                total = total + out @ torch.tensor(np.array(p.d_y[t, b, columns]))
        h_n.append(h.detach().numpy())
        if p.d_h_n is not None:
            total = total + h @ torch.tensor(np.array(p.d_h_n[d, b]))
    total.backward()
    for (t, b, d), out in outputs.items():
        y[t, b, d * n_units : (d + 1) * n_units] = out.detach()
    result = {"y": y.numpy(), "h_n": np.reshape(h_n, p.h_0.shape)}
    return result | {
        f"d_{name}": leaf.grad.numpy() for name, leaf in of.items() if leaf is not None and leaf.grad is not None
    }


@pytest.mark.parametrize(
    "case", [*PROBLEMS[:3], {**PROBLEMS[3], "B": 4}, *PROBLEMS[4:6], {**PROBLEMS[6], "T": 20}], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_the_reference_is_the_equation(cell: str, case: dict[str, Any]):
    p = make(**case)
    if not (case.get("d_y", True) or case.get("d_h_n", True)):
        pytest.skip("there is no loss")
    options = options_of(p, cell)
    got, expected = run(p, reference, options), by_torch(p, options)
    within = ~np.isnan(got["y"])
    np.testing.assert_allclose(got["y"][within], expected.pop("y")[within], rtol=0, atol=1e-12)
    for name, array in expected.items():
        value = got[name] - p.sums.get(name, 0)
        if name in ("d_numbers", "d_noise"):
            value = (got[name] - 1).sum(axis=1)
        value = np.where(np.isnan(value), 0, value)  # beyond the lengths
        np.testing.assert_allclose(value, array, rtol=0, atol=1e-10 * np.abs(array).max(initial=1), err_msg=name)


# ---- the normals


def test_normals_have_the_same_bits_everywhere(backend: ModuleType, dtype: str):
    for n_units, first_step in ((1, 0), (31, 5), (32, 0), (100, 2**32 - 3), (257, 1)):
        expected = poison((3, len(KEYS), n_units), dtype, "gaps")
        reference.normals(expected, KEYS, stream=2**32 - 1, first_step=first_step)
        got = poison(expected.shape, dtype, "gaps")
        backend.normals(got, KEYS, stream=2**32 - 1, first_step=first_step)
        check_untouched(got)
        assert_same_bits({"z": got + 0}, {"z": expected + 0})


def test_normals_are_independent_and_standard():
    z = np.empty((64, 8, 2000), np.float64)
    elman.backends.get("cython").normals(z, np.arange(8), stream=0)
    n, flat = z.size, z.ravel()
    assert abs(flat.mean()) < 4 / math.sqrt(n)
    assert abs((flat**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((flat**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((flat**4).mean() - 3) < 4 * math.sqrt(96 / n)
    below = np.sort(flat)[:: n // 1000]
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in below])
    assert np.abs(cdf - np.arange(len(below)) * (n // 1000) / n).max() < 2 / math.sqrt(n)  # Kolmogorov and Smirnov
    for axis in range(3):  # neighbours in time, among rows and among units
        a, b = np.moveaxis(z, axis, 0)[:-1].ravel(), np.moveaxis(z, axis, 0)[1:].ravel()
        assert abs((a * b).mean()) < 4 / math.sqrt(a.size)
        assert abs((a**2 * b**2).mean() - 1) < 4 * math.sqrt(8 / a.size)
    first, second = (
        z[..., :1984].reshape(64, 8, -1, 4, 8)[..., ::2, :],
        z[..., :1984].reshape(64, 8, -1, 4, 8)[..., 1::2, :],
    )
    assert abs((first**2 * second**2).mean() - 1) < 4 * math.sqrt(8 / first.size)  # the two of a pair


def test_what_does_not_fit_is_refused(backend: ModuleType):
    if backend is reference:
        pytest.skip("it trusts its callers")
    p = make(T=3, B=2, H=4)
    y, noise, keys = np.zeros((3, 2, 4)), np.ones((1, 4)), np.zeros(2, np.int64)
    layer = p.layer(y)
    for wrong in (
        {"noise": noise},
        {"keys": keys},
        {"noise": noise[:, :3], "keys": keys},
        {"noise": noise, "keys": keys[:1]},
    ):
        with pytest.raises((TypeError, ValueError), match=r"noise|keys"):
            backend.forward(layer._replace(**wrong))
    sums = (p.sums[name].copy() for name in ("d_weight_ih", "d_weight_hh", "d_bias"))
    gradients = Gradients(None, None, y.copy(), *sums, np.zeros((1, 2, 4)), None, d_noise=np.zeros((1, 2, 4)))
    with pytest.raises(TypeError, match="noise"):
        backend.backward(layer, gradients)
    with pytest.raises(ValueError, match="stream, first_step"):
        backend.normals(y, keys, stream=1 << 32)
    with pytest.raises(ValueError, match="stream, first_step"):
        backend.normals(y, keys, stream=0, first_step=(1 << 32) - 2)
    with pytest.raises(TypeError, match="keys"):
        backend.normals(y, keys.astype(np.int32), stream=0)
