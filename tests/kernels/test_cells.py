"""A cell is a file in each language: one that the package does not have is added by its three files alone (looped/)."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.backends import native, reference
from elman.backends.contract import Gradients

from ..cases import Problem, check_untouched, make, place, poison
from ..compare import assert_same_bits

jit = pytest.importorskip("elman.backends.jit.backend", reason="there is no Numba for this Python")
from elman.backends.jit import saved  # noqa: E402
from elman.backends.jit.cells import CELLS  # noqa: E402

HERE, CSRC = Path(__file__).parent / "looped", Path(__file__).parents[2] / "csrc"
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma"],
}
PROBLEMS = [
    {"T": 6, "B": 3, "I": 4, "H": 5},
    {"T": 7, "B": 4, "I": 3, "H": 17, "D": 2, "lengths": "ragged", "mask": True},
    {"T": 5, "B": 9, "I": 6, "H": 33, "reverse": True, "lengths": "ragged", "activation": "sigmoid"},
    {"T": 4, "B": 100, "I": 5, "H": 16, "tokens": True, "layout": "batch_major"},
    {"T": 9, "B": 1, "I": 2, "H": 257, "d_y": False, "bias": False},
]


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"looped_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def built(folder: Path, dtype: str) -> ctypes.CDLL:
    """The kernels with all cells of a folder, listed as in CMakeLists.txt."""
    with (folder / "cells.h").open("w") as file:
        subprocess.run([sys.executable, folder / "cells" / "list.py"], stdout=file, check=True)
    options = f"-std=gnu11 -O1 -shared -fPIC -pthread -ffp-contract=off -fno-math-errno -DELMAN_TABLE=table -o {dtype}"
    options += f" -DELMAN_{'DOUBLE' if dtype == 'float64' else 'FLOAT'} kernels.c pool.c caches.c -lm"
    command = [*os.environ.get("CC", "cc").split(), *FLAGS[native.instruction_set()], *options.split()]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / dtype))


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Backends that have the cell."""
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None or native.instruction_set() not in FLAGS:
        pytest.skip("needs a C compiler that knows this machine")
    folder = tmp_path_factory.mktemp("cells") / "csrc"
    shutil.copytree(CSRC, folder)
    for name in ("looped", "residual"):
        shutil.copy(HERE / f"{name}.h", folder / "cells")
    libraries = {dtype: built(folder, dtype) for dtype in ("float32", "float64")}
    places = {dtype: ctypes.addressof(ctypes.c_char.in_dll(library, "table")) for dtype, library in libraries.items()}
    CELLS["looped"], CELLS["residual"], own = loaded("looped"), loaded("residual"), loaded("reference")
    reference.CELLS["looped"] = own.cell
    reference.CELLS["residual"] = reference.Cell(
        lambda a, f, s: (s.before + f(a), f(a)),
        lambda d_y, d_h, df, s: (df(d_h + d_y, s.second), d_h + d_y, None),
    )
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(saved, "read", lambda _: None)  # what lies on disk may be of another looped.py
    monkeypatch.setattr(saved, "write", lambda *_: None)
    yield {
        "numpy": reference,
        "cython": native.Door(jit.make, is_made=False, places=places),
        "numba": native.Door(jit.make, places=places),
    }
    monkeypatch.undo()
    for name in ("looped", "residual"):
        del CELLS[name], reference.CELLS[name]
    libraries.clear()


def loops_of(p: Problem) -> np.ndarray:
    """The cell's number for each unit."""
    n_directions, _, n_units = p.h_0.shape
    return np.linspace(-0.5, 0.9, n_directions * n_units).reshape(n_directions, n_units).astype(p.dtype)


def run(p: Problem, backend: Any, *, is_residual: bool = False, **options: Any) -> dict[str, np.ndarray]:
    """What both passes write."""
    shape = len(p.x), p.h_0.shape[1], p.h_0.shape[0] * p.h_0.shape[2]
    out = {name: poison(shape, p.dtype, p.layout) for name in ("y", "delta", *["second"] * is_residual)}
    out |= {name: poison(p.h_0.shape, p.dtype) for name in ("h_n", "d_h_0", "carry")}
    out |= {name: place(array, writeable=True) for name, array in p.sums.items()}
    if p.x.ndim == 3:
        out["d_x"] = poison(p.x.shape, p.dtype, p.layout)
    if is_residual:
        options |= {"cell": "residual", "second": out["second"]}
    else:
        options |= {"cell": "looped", "numbers": place(loops_of(p))}
        out["d_numbers"] = place(np.ones_like(p.h_0), writeable=True)
    layer = p.layer(out["y"], out["h_n"])._replace(**options)
    backend.forward(layer)
    names = ("delta", "d_weight_ih", "d_weight_hh", "d_bias", "d_h_0", "d_x", "carry", "d_numbers")
    backend.backward(layer, Gradients(p.d_y, p.d_h_n, *map(out.get, names)))  # type: ignore[arg-type]
    for name in ("y", "second", "delta", "d_x"):
        if name in out:
            check_untouched(out[name], p.lengths)
    del out["carry"]
    return out


def test_the_reference_is_the_formula():
    p = make(T=6, B=2, I=3, H=4, d_h_n=False)
    own = loaded("reference")
    reference.CELLS["looped"] = own.cell

    def states(numbers: np.ndarray = loops_of(p), **changes: Any) -> np.ndarray:  # noqa: B008 - there is one p
        q = p.replace(**changes)
        h, result = q.h_0[0], []
        for x_t in q.x:
            a = x_t @ q.weight_ih[0] + h @ q.weight_hh[0] + q.bias[0]
            h = np.tanh(a + numbers[0] * h)
            result.append(h)
        return np.array(result)

    got = run(p, reference)
    np.testing.assert_allclose(got["y"], states(), rtol=1e-12)
    got["d_numbers"] = (got["d_numbers"] - 1).sum(axis=1)
    for name in ("h_0", "weight_ih", "weight_hh", "bias", "x", "numbers"):
        array, step = loops_of(p) if name == "numbers" else getattr(p, name), 1e-6
        direction = np.random.default_rng(0).standard_normal(array.shape)
        ends = [float((states(**{name: array + s * direction}) * p.d_y).sum()) for s in (step, -step)]
        gradient = got[f"d_{name}"] - p.sums.get(f"d_{name}", 0)
        assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6), name


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_both_compiled_backends_have_it(doors: dict[str, Any], dtype: str, case: dict[str, Any]):
    p = make(**case, dtype=dtype)
    got = {name: run(p, doors[name]) for name in ("cython", "numba")}
    exact = run(p.astype("float64"), reference)
    assert_same_bits(got["numba"], got["cython"])
    for name, array in exact.items():
        tolerance = 1e-12 if dtype == "float64" else 1e-5
        largest = np.abs(array[~np.isnan(array)]).max(initial=1)
        np.testing.assert_allclose(got["cython"][name], array, rtol=0, atol=tolerance * largest, err_msg=name)


def test_a_cell_may_have_no_numbers(doors: dict[str, Any]):
    p = make(T=7, B=4, I=3, H=17, D=2, lengths="ragged", mask=True)
    exact = run(p, reference, is_residual=True)
    for name in ("cython", "numba"):
        for key, array in run(p, doors[name], is_residual=True).items():
            np.testing.assert_allclose(
                array, exact[key], rtol=0, atol=1e-12 * np.nanmax(np.abs(exact[key])), err_msg=key
            )


def test_with_an_activation_of_a_user_s_own(doors: dict[str, Any]):
    softsign = elman.activation(lambda a: a / (1 + abs(a)), lambda y: (1 - abs(y)) ** 2)
    p = make(T=4, B=3, H=19)
    exact = run(p, reference, activation=softsign)
    for name in ("cython", "numba"):
        for key, array in run(p, doors[name], activation=softsign).items():
            np.testing.assert_allclose(array, exact[key], rtol=0, atol=1e-12 * np.abs(exact[key]).max(), err_msg=key)


def test_a_cell_gets_what_it_needs(doors: dict[str, Any]):
    p = make(T=4, B=3, H=19)
    y, second = np.zeros((4, 3, 19)), np.zeros((4, 3, 19))
    loops = loops_of(p)
    whole = p.layer(y)._replace(cell="looped", numbers=loops)
    residual, elmans = p.layer(y)._replace(cell="residual", second=second), p.layer(y)
    names = ("d_weight_ih", "d_weight_hh", "d_bias")
    gradients = Gradients(None, None, y.copy(), *(p.sums[name].copy() for name in names), np.zeros((1, 3, 19)), None)
    for name in ("cython", "numba"):
        for wrong in (
            *(whole._replace(**change) for change in ({"numbers": None}, {"second": second}, {"cell": "other"})),
            *(residual._replace(**change) for change in ({"numbers": loops}, {"second": None})),
            *(elmans._replace(**change) for change in ({"numbers": loops}, {"second": second})),
        ):
            with pytest.raises((ValueError, KeyError), match=r"cell: expected|other"):
                doors[name].forward(wrong)
        with pytest.raises(ValueError, match="cell: expected one of the kernels', with its numbers, second and carry"):
            doors[name].backward(whole, gradients)  # without carry
        further = {"carry": np.zeros((1, 3, 19)), "d_numbers": np.zeros((1, 3, 19))}
        with pytest.raises(ValueError, match="cell: expected one of the kernels', with its numbers, second and carry"):
            doors[name].backward(residual, gradients._replace(**further))


def test_all_backends_have_the_same_cells():
    assert (
        {path.stem for path in (CSRC / "cells").glob("*.h")}
        == set(CELLS) - {"looped", "residual"}
        == set(reference.CELLS) - {"looped", "residual"}
    )
