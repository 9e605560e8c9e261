"""A leaky potential, v = (1 - leak) v[t-1] + leak a, the state, which it keeps; y = f(v): csrc/cells/potential.h."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, add_upto, fma, load_upto, size_of_real, store_upto
from elman.backends.jit.structs import ints


@kernel
def output(v: Any, e: Any, row: int, j: int, n: int, a: Vec, of_vector: Any, f: Any) -> Vec:
    offset = j * size_of_real(v)
    leak = load_upto(v, e.numbers + offset, n)
    potential = fma(leak, a, (1.0 - leak) * load_upto(v, e.before[row] + offset, n))
    store_upto(e.second[row] + offset, potential, n)
    return of_vector(v, f, potential, n)


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_y: Vec, y: Vec, of_gradient: Any, df: Any) -> Vec:
    offset = j * size_of_real(v)
    leak, potential = load_upto(v, e.numbers + offset, n), load_upto(v, e.second[row] + offset, n)
    d_v = of_gradient(v, df, d_y, y, n) + load_upto(v, e.carry[row] + offset, n)
    store_upto(e.carry[row] + offset, (1.0 - leak) * d_v, n)
    if e.d_numbers:
        change = potential - load_upto(v, e.before[row] + offset, n)
        add_upto(v, ints(e.d_numbers)[row] + offset, d_v * (change / leak), n)
    return leak * d_v
