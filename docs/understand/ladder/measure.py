"""Measure what each stage of ladder.c gains, and elman itself behind them.

Prints the table of kernels.md, which keeps it in table.txt; half a minute.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import elman
from elman.backends import contract, native

HERE = Path(__file__).parent
STAGES = {
    "naive": "the loops of the formula",
    "k_major": "weights transposed: the compiler finds vectors",
    "vector_tanh": "tanh on vectors",
    "registers": "sums stay in registers",
    "tiles": "tiles of 4 rows by 4 vectors",
    "panels": "weights packed into panels",
}
SHAPES = [(100, 32, 128), (100, 32, 512)]  # T, B, H
ROUNDS = 15


class Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in "TBH"),
        *((name, ctypes.c_void_p) for name in "xwh"),
    ]


def compiled(folder: str) -> ctypes.CDLL:
    library = Path(folder) / "ladder.so"
    flags = [
        "-std=gnu17",
        "-O3",
        "-march=native",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
    ]
    include = f"-I{HERE.parents[2] / 'csrc'}"
    command = [
        os.environ.get("CC", "cc"),
        *flags,
        include,
        HERE / "ladder.c",
        "-o",
        library,
    ]
    subprocess.run([*command, "-lm"], check=True)
    return ctypes.CDLL(str(library))


def best_times(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The shortest of each call's times, in seconds. They take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(ROUNDS):
        for name, call in calls.items():
            for _ in range(4 if name != "naive" else i < 4):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def measure(
    library: ctypes.CDLL, n_steps: int, n_rows: int, n_units: int
) -> dict[str, float]:
    """GFLOP/s of every stage, and of elman."""
    rng = np.random.default_rng(0)
    w = rng.uniform(-1, 1, (n_units, n_units)).astype("f") / n_units**0.5
    x = rng.normal(size=(n_steps, n_rows, n_units)).astype("f")
    h = {name: np.zeros((n_steps + 1, n_rows, n_units), "f") for name in STAGES}
    layers = {
        name: Layer(n_steps, n_rows, n_units, *(a.ctypes.data for a in (x, w, h[name])))
        for name in STAGES
    }
    calls = {
        name: lambda name=name: getattr(library, name)(ctypes.byref(layers[name]))
        for name in STAGES
    }

    # elman adds the input itself: here tokens that contribute nothing
    tokens, zeros = (
        np.zeros((n_steps, n_rows), np.int64),
        np.zeros((1, 1, n_units), "f"),
    )
    h_0, h_n, y = (
        np.zeros((1, n_rows, n_units), "f"),
        np.empty((1, n_rows, n_units), "f"),
        np.empty_like(x),
    )
    weight = np.ascontiguousarray(w.T)[None]
    layer = contract.Layer(tokens, h_0, zeros, weight, None, y, h_n, "tanh")
    calls["elman"] = lambda: native.forward(layer)
    times = best_times(calls)
    for name in STAGES:
        np.testing.assert_allclose(h[name], h["naive"], atol=1e-5)
    flops = 2 * n_steps * n_rows * n_units**2
    return {name: flops / seconds / 1e9 for name, seconds in times.items()}


def main() -> None:
    elman.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(folder)
        results = [measure(library, *shape) for shape in SHAPES]
    print("| stage |", *(f"GFLOP/s, H = {shape[2]} | gain |" for shape in SHAPES))
    print("|---|" + "---:|---:|" * len(SHAPES))
    names = {**STAGES, "elman": "elman, on one thread"}
    before = ""
    for i, (name, text) in enumerate(names.items(), 1):
        gains = [f"{r[name] / r[before]:.2g}×" if before else "" for r in results]
        cells = [f"{r[name]:.3g} | {g} |" for r, g in zip(results, gains, strict=True)]
        print(f"| {f'{i}. ' if name in STAGES else ''}{text} |", *cells)
        before = name


if __name__ == "__main__":
    main()
