"""What resets cost: forward and backward with them over the same without, in turn; medians of the ratios.

python bench/resets.py [backend]
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import elman

SIZES = ((100, 32, 32, 64), (128, 16, 128, 256))  # T, B, I, H
DENSITIES = (0.0, 0.01, 0.1)
N = 30


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(backend: str = "cython") -> None:
    """A line for each size and density: milliseconds without resets, and the ratio."""
    for T, B, I, H in SIZES:  # noqa: E741 - the names of docs/design.md
        rng = np.random.default_rng(0)
        rnn = elman.RNN(I, H, seed=0, backend=backend)
        x, d_y = (rng.standard_normal((T, B, n)).astype(np.float32) for n in (I, H))

        def step(resets: np.ndarray | None, rnn: elman.RNN = rnn, x: np.ndarray = x, d_y: np.ndarray = d_y) -> None:
            _, _, pullback = rnn.vjp(x, resets=resets)
            pullback(d_y)

        for density in DENSITIES:
            resets = rng.random((T, B)) < density
            pairs = [(seconds(lambda r=resets: step(r)), seconds(lambda: step(None))) for _ in range(N + 3)][3:]
            ratio, plain = statistics.median(a / b for a, b in pairs), statistics.median(b for _, b in pairs)
            print(f"T, B, I, H = {T}, {B}, {I}, {H}, density {density:4.0%}: {1e3 * plain:6.2f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
