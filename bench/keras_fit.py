"""Milliseconds of a training step of `keras.Model.fit`, with Keras's SimpleRNN and accelerated, in turns.

$ KERAS_BACKEND=torch python bench/keras_fit.py
$ KERAS_BACKEND=jax python bench/keras_fit.py 50,32,8,64 10,1,4,8    # shapes T,B,I,H
"""

import statistics
import sys
import time

import keras
import numpy as np

import elman.keras

SHAPES = ["50,32,8,64", "10,1,4,8", "100,64,64,256"]
N_ROUNDS, N_STEPS = 5, 30


def model(n_inputs: int, n_units: int) -> keras.Model:
    layers = [keras.Input((None, n_inputs)), keras.layers.SimpleRNN(n_units), keras.layers.Dense(1)]
    made = keras.Sequential(layers)
    made.compile("adam", "mse")
    return made


def milliseconds(made: keras.Model, x: np.ndarray, y: np.ndarray, n_rows: int) -> float:
    begin = time.perf_counter()
    made.fit(x, y, batch_size=n_rows, verbose=0)
    return 1e3 * (time.perf_counter() - begin) / N_STEPS


def main() -> None:
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, medians of {N_ROUNDS} rounds of {N_STEPS} steps")
    print(
        "T,B,I,H | keras, ms | accelerated, ms | ratio, median and quartiles of the rounds | ratio of the best rounds"
    )
    rng = np.random.default_rng(0)
    for shape in sys.argv[1:] or SHAPES:
        n_steps, n_rows, n_inputs, n_units = map(int, shape.split(","))
        x = rng.normal(size=(N_STEPS * n_rows, n_steps, n_inputs)).astype("float32")
        y = x.sum(axis=(1, 2))[:, None]
        models = model(n_inputs, n_units), model(n_inputs, n_units)
        elman.keras.accelerate(models[1])
        times = []
        for k in range(-1, N_ROUNDS):  # the first one compiles; each begins with the other one
            order = models if k % 2 else models[::-1]
            found = [milliseconds(made, x, y, n_rows) for made in order]
            times.append(found if k % 2 else found[::-1])
        theirs, ours = zip(*times[1:], strict=True)
        low, middle, high = statistics.quantiles((a / b for a, b in times[1:]), n=4)
        medians = f"{statistics.median(theirs):.2f} | {statistics.median(ours):.2f}"
        print(
            f"{shape} | {medians} | {middle:.2f} ({low:.2f} to {high:.2f}) | {min(theirs) / min(ours):.2f}", flush=True
        )
    print(elman.keras.kernel_calls())


if __name__ == "__main__":
    main()
