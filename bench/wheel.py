"""The kernels of one wheel beside those of another, on each instruction set: what a compiler costs.

    pip wheel --no-deps -w here . && python bench/wheel.py here/elman-*.whl dist/elman-*-manylinux*_x86_64.whl

The environment has what elman needs, and no elman that is installed in place; the machine has nothing else to do.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

SHAPES = ((50, 32, 64, 128), (100, 1, 16, 64), (20, 64, 256, 256), (100, 32, 32, 64))  # T, B, inputs, H
SHAPES += ((50, 8, 64, 100), (50, 1, 64, 104), (1, 8, 64, 128))  # AVX2 with all its registers; weights read in place
DTYPES = "float32", "float64"
ALTERNATIONS, RUNS = 3, 30


def times(folder: str) -> dict[str, float]:
    """The best of some runs of forward and backward on one thread, in ms, with what is installed in a folder."""
    import numpy as np

    import elman
    from elman.backends import native

    if not native.__file__.startswith(folder):
        sys.exit(f"{native.__file__} hides the wheel: pip uninstall elman")
    elman.use_backend("cython")
    elman.set_num_threads(1)
    best = {}
    for name in native.instruction_sets():
        native.use_instruction_set(name)
        for (n_steps, batch_size, input_size, hidden_size), dtype in itertools.product(SHAPES, DTYPES):
            rnn = elman.RNN(input_size, hidden_size, seed=0, dtype=dtype)
            x = np.random.default_rng(0).standard_normal((n_steps, batch_size, input_size), dtype)
            runs = []
            for _ in range(RUNS):
                begin = time.perf_counter()
                y, _, pullback = rnn.vjp(x)
                pullback(y, input_grad=False)
                runs.append(time.perf_counter() - begin)
            shape = f"{n_steps},{batch_size},{input_size},{hidden_size}"
            best[f"{name:9} {dtype} {shape:14}"] = 1e3 * min(runs)
    return best


def times_with(folder: str) -> dict[str, float]:
    command, environment = (sys.executable, __file__, "--times", folder), {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main(*wheels: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        folders = [f"{work}/{i}" for i in range(2)]
        for wheel, folder in zip(wheels, folders, strict=True):
            install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel)
            subprocess.run(install, check=True)
        rounds = [[times_with(folder) for folder in folders] for _ in range(ALTERNATIONS)]
    print(f"{'':9} {'':7} {'T,B,inputs,H':14} {'first':>8} {'second':>8}  speed of the second, the first's being 1")
    for case in rounds[0][0]:
        first, second = (min(round[side][case] for round in rounds) for side in (0, 1))
        print(f"{case} {first:8.3f} {second:8.3f}  {first / second:.2f}  (ms)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--times"]:
        print(json.dumps(times(sys.argv[2])))
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)
