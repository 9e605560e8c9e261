"""Updates of a model's parameters, and clipping: csrc/optimizers.h, where the reasons stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.backends.jit.options import kernel
from elman.backends.jit.plan import ceil_div
from elman.backends.jit.simd import (
    fma,
    load_real,
    load_upto,
    real,
    reals,
    size_of_real,
    splat,
    square_root,
    store_upto,
)
from elman.backends.jit.structs import FLOAT, INT, Struct, give_back, lease, load_double, run, smaller, store_double

BLOCK = 8192  # values of a task, some microseconds

# Addresses of n values each, and the numbers that the update uses
UPDATE = Struct(
    "update",
    n=INT,
    parameters=INT,
    gradient=INT,
    state=INT,
    square=INT,
    lr=FLOAT,
    rate=FLOAT,
    decay=FLOAT,
    correction=FLOAT,
    beta1=FLOAT,
    beta2=FLOAT,
    eps=FLOAT,
)


@kernel
def run_blocks(v: Any, task: Any, u: Any) -> None:
    """What a value costs does not matter much, memory decides."""
    run(v, task, u, ceil_div(u.n, BLOCK), 1 + smaller(u.n // (4 * BLOCK), 255))


@kernel
def sgd_block(v: Any, u: Any, i: int) -> None:
    lr, momentum = splat(v, -real(v, u.lr)), splat(v, real(v, u.beta1))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        step = load_upto(v, u.gradient + k, n)
        if u.state:
            step = fma(momentum, load_upto(v, u.state + k, n), step)
            store_upto(u.state + k, step, n)
        store_upto(u.parameters + k, fma(lr, step, load_upto(v, u.parameters + k, n)), n)


@kernel
def adagrad_block(v: Any, u: Any, i: int) -> None:
    lr, eps = splat(v, real(v, u.lr)), splat(v, real(v, u.eps))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        g = load_upto(v, u.gradient + k, n)
        s = fma(g, g, load_upto(v, u.square + k, n))
        store_upto(u.square + k, s, n)
        store_upto(u.parameters + k, load_upto(v, u.parameters + k, n) - lr * g / (square_root(s) + eps), n)


@kernel
def adam_block(v: Any, u: Any, i: int) -> None:
    beta1, beta2 = real(v, u.beta1), real(v, u.beta2)
    one = real(v, 1.0)
    rate, correction = splat(v, real(v, u.rate)), splat(v, real(v, u.correction))
    decay, eps = splat(v, real(v, u.decay)), splat(v, real(v, u.eps))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        g = load_upto(v, u.gradient + k, n)
        m = fma(splat(v, beta1), load_upto(v, u.state + k, n), splat(v, one - beta1) * g)
        s = fma(splat(v, beta2), load_upto(v, u.square + k, n), splat(v, one - beta2) * g * g)
        step = rate * m / (square_root(s / correction) + eps)
        store_upto(u.state + k, m, n)
        store_upto(u.square + k, s, n)
        store_upto(u.parameters + k, load_upto(v, u.parameters + k, n) * decay - step, n)


@kernel
def square_block(v: Any, u: Any, i: int) -> None:
    """In double, by eight sums that every instruction set adds alike; `square` holds one double for each block."""
    size, begin = size_of_real(v), i * BLOCK
    n = smaller(u.n - begin, BLOCK)
    p, whole = u.parameters + begin * size, n // 8 * 8
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    for j in range(0, whole, 8):
        q = p + j * size
        s0 += np.float64(load_real(v, q)) * np.float64(load_real(v, q))
        s1 += np.float64(load_real(v, q + size)) * np.float64(load_real(v, q + size))
        s2 += np.float64(load_real(v, q + 2 * size)) * np.float64(load_real(v, q + 2 * size))
        s3 += np.float64(load_real(v, q + 3 * size)) * np.float64(load_real(v, q + 3 * size))
        s4 += np.float64(load_real(v, q + 4 * size)) * np.float64(load_real(v, q + 4 * size))
        s5 += np.float64(load_real(v, q + 5 * size)) * np.float64(load_real(v, q + 5 * size))
        s6 += np.float64(load_real(v, q + 6 * size)) * np.float64(load_real(v, q + 6 * size))
        s7 += np.float64(load_real(v, q + 7 * size)) * np.float64(load_real(v, q + 7 * size))
    for j in range(whole, n):
        s0 += np.float64(load_real(v, p + j * size)) * np.float64(load_real(v, p + j * size))
    store_double(u.square + 8 * i, ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)))


@kernel
def scale_block(v: Any, u: Any, i: int) -> None:
    factor = splat(v, real(v, u.rate))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, p = smaller(u.n - j, reals(v)), u.parameters + j * size_of_real(v)
        store_upto(p, load_upto(v, p, n) * factor, n)


@kernel
def clip_pass(v: Any, u: Any, max_norm: float) -> float:
    """The norm of the values at `parameters`, or -1 if there is no memory for scratch."""
    blocks = ceil_div(u.n, BLOCK)
    u.square = lease(8 * blocks)
    if not u.square:
        return -1.0
    run_blocks(v, square_block, u)
    total = 0.0
    for i in range(blocks):
        total += load_double(u.square + 8 * i)
    give_back(u.square)
    norm = np.sqrt(total)
    u.rate = max_norm / norm
    if max_norm < norm < np.inf:
        run_blocks(v, scale_block, u)
    return norm
