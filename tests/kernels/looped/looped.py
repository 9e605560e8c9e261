"""A cell whose units each have a loop of their own besides, h = f(a + w h[t-1]): looped.h."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, add_upto, fma, load_upto, size_of_real, store_upto
from elman.backends.jit.structs import ints


@kernel
def output(v: Any, e: Any, row: int, j: int, n: int, a: Vec, of_vector: Any, f: Any) -> Vec:
    offset = j * size_of_real(v)
    return of_vector(v, f, fma(load_upto(v, e.numbers + offset, n), load_upto(v, e.before[row] + offset, n), a), n)


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_gradient: Any, df: Any) -> Vec:
    offset = j * size_of_real(v)
    d_a = of_gradient(v, df, d_h + load_upto(v, e.carry[row] + offset, n), h, n)
    store_upto(e.carry[row] + offset, load_upto(v, e.numbers + offset, n) * d_a, n)
    if e.d_numbers:
        add_upto(v, ints(e.d_numbers)[row] + offset, d_a * load_upto(v, e.before[row] + offset, n), n)
    return d_a
