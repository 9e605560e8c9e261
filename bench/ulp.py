"""The error of tanh and sigmoid in units in the last place, over float32 values with a given stride.

    python bench/ulp.py             # every 64th value: some seconds
    python bench/ulp.py --stride 1  # all 2^32: some minutes

Values go through a time step of a layer whose weights are the identity. Results below the smallest normal number are
left out, since the kernels flush those to zero.
"""

import argparse

import numpy as np

from elman.backends import native

CHUNK = 1 << 20


def through_layer(values: np.ndarray, activation: str) -> np.ndarray:
    """f(value) as the kernels compute it: B rows of 16 units."""
    x, n = values.reshape(-1, 16), 16
    y = np.empty_like(x)
    identity, zeros = np.eye(n, dtype=x.dtype), np.zeros((n, n), x.dtype)
    native.step(x, np.zeros_like(x), identity, zeros, None, y, activation=activation)
    return y.ravel()


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def worst(activation: str, exact, stride: int) -> tuple[float, float]:
    """The largest error in ULP, and where."""
    most, where = 0.0, 0.0
    for sign in (0, 1 << 31):
        for start in range(0x00800000, 0x7F800000, CHUNK * stride):
            bits = np.arange(start, min(start + CHUNK * stride, 0x7F800000), stride, dtype=np.uint32) | np.uint32(sign)
            x = bits[: len(bits) // 16 * 16].view(np.float32)
            y, expected = through_layer(x, activation), exact(x.astype(np.float64))
            normal = np.abs(expected) >= np.finfo(np.float32).tiny
            errors = np.where(normal, np.abs(y - expected) / np.spacing(np.abs(expected).astype(np.float32)), 0)
            if errors.max() > most:
                most, where = float(errors.max()), float(x[errors.argmax()])
    return most, where


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=64)
    stride = parser.parse_args().stride
    for name in native.instruction_sets():
        native.use_instruction_set(name)
        for activation, exact in (("tanh", np.tanh), ("sigmoid", sigmoid)):
            error, x = worst(activation, exact, stride)
            print(f"{name:9} {activation:8} {error:.2f} ULP at {x:.9g}")
