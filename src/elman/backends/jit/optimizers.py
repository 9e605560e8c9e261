"""Updates of a model's parameters, and clipping: csrc/optimizers.h, where the reasons stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.backends import native
from elman.backends.jit.options import kernel
from elman.backends.jit.plan import ceil_div
from elman.backends.jit.simd import (
    Address,
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
from elman.backends.jit.structs import (
    FLOAT,
    INT,
    INTS,
    NO_MEMORY,
    Struct,
    give_back,
    lease,
    load_double,
    local,
    run,
    smaller,
    store_double,
)

BLOCK = 8192  # values of a task, some microseconds

UPDATE = Struct.of_c("update", native.OFFSETS["update"], memories=INTS)  # elman_update of csrc/elman.h


@kernel
def number(u: Any, i: int) -> float:
    return load_double(u.numbers + 8 * i)


@kernel
def sgd_block(v: Any, u: UPDATE, i: int) -> None:
    lr, momentum, velocity = splat(v, -real(v, number(u, 0))), splat(v, real(v, number(u, 1))), u.memories[0]
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        step = load_upto(v, u.gradient + k, n)
        if velocity:
            step = fma(momentum, load_upto(v, velocity + k, n), step)
            store_upto(velocity + k, step, n)
        store_upto(u.parameters + k, fma(lr, step, load_upto(v, u.parameters + k, n)), n)


@kernel
def adagrad_block(v: Any, u: UPDATE, i: int) -> None:
    lr, eps, square_sum = splat(v, real(v, number(u, 0))), splat(v, real(v, number(u, 1))), u.memories[0]
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        g = load_upto(v, u.gradient + k, n)
        s = fma(g, g, load_upto(v, square_sum + k, n))
        store_upto(square_sum + k, s, n)
        store_upto(u.parameters + k, load_upto(v, u.parameters + k, n) - lr * g / (square_root(s) + eps), n)


@kernel
def adam_block(v: Any, u: UPDATE, i: int) -> None:
    lr, steps, eps = number(u, 0), number(u, 5), splat(v, real(v, number(u, 3)))
    beta1, beta2 = splat(v, real(v, number(u, 1))), splat(v, real(v, number(u, 2)))
    rest1, rest2 = splat(v, real(v, 1 - number(u, 1))), splat(v, real(v, 1 - number(u, 2)))
    rate = splat(v, real(v, lr / (1 - number(u, 1) ** steps)))
    root = splat(v, real(v, 1 / np.sqrt(1 - number(u, 2) ** steps)))
    decay, mean, square = splat(v, real(v, 1 - lr * number(u, 4))), u.memories[0], u.memories[1]
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        g = load_upto(v, u.gradient + k, n)
        m = fma(beta1, load_upto(v, mean + k, n), rest1 * g)
        s = fma(beta2, load_upto(v, square + k, n), rest2 * g * g)
        step = rate * m / fma(square_root(s), root, eps)
        store_upto(mean + k, m, n)
        store_upto(square + k, s, n)
        store_upto(u.parameters + k, load_upto(v, u.parameters + k, n) * decay - step, n)


@kernel
def average_block(v: Any, u: UPDATE, i: int) -> None:
    rate = splat(v, real(v, number(u, 0)))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, u.n), reals(v)):
        n, k = smaller(u.n - j, reals(v)), j * size_of_real(v)
        mean = load_upto(v, u.parameters + k, n)
        store_upto(u.parameters + k, fma(rate, load_upto(v, u.gradient + k, n) - mean, mean), n)


RULES = {"sgd": sgd_block, "adagrad": adagrad_block, "adam": adam_block, "average": average_block}


# ---- clipping

SCALING = Struct("scaling", n=INT, values=INT, squares=INT, factor=FLOAT)


@kernel
def run_blocks(v: Any, task: Any, s: Any) -> None:
    """What a value costs does not matter much, memory decides."""
    run(v, task, s, ceil_div(s.n, BLOCK), 1 + smaller(s.n // (4 * BLOCK), 255))


@kernel
def square_block(v: Any, s: Any, i: int) -> None:
    """In double, by eight sums that every instruction set adds alike; `squares` holds one double for each block."""
    size, begin = size_of_real(v), i * BLOCK
    n = smaller(s.n - begin, BLOCK)
    p, whole = s.values + begin * size, n // 8 * 8
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
    store_double(s.squares + 8 * i, ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)))


@kernel
def scale_block(v: Any, s: Any, i: int) -> None:
    factor = splat(v, real(v, s.factor))
    for j in range(i * BLOCK, smaller((i + 1) * BLOCK, s.n), reals(v)):
        n, p = smaller(s.n - j, reals(v)), s.values + j * size_of_real(v)
        store_upto(p, load_upto(v, p, n) * factor, n)


@kernel
def clip_norm(v: Any, n: int, gradient: Address, max_norm: float, norm: Address) -> int:
    s, blocks = local(SCALING), ceil_div(n, BLOCK)
    s.n, s.values, s.squares = n, gradient, lease(8 * blocks)
    if not s.squares:
        return NO_MEMORY
    run_blocks(v, square_block, s)
    total = 0.0
    for i in range(blocks):
        total += load_double(s.squares + 8 * i)
    give_back(s.squares)
    found = np.sqrt(total)
    store_double(norm, found)
    s.factor = max_norm / found
    if max_norm < found < np.inf:
        run_blocks(v, scale_block, s)
    return 0
