"""A leaky rate, h = (1 - leak) h[t-1] + leak f(a), which keeps f(a): csrc/cells/rate.h."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, add_upto, fma, load_upto, size_of_real, store_upto
from elman.backends.jit.structs import ints


@kernel
def output(v: Any, e: Any, row: int, j: int, n: int, a: Vec, of_vector: Any, f: Any) -> Vec:
    offset = j * size_of_real(v)
    leak, rate = load_upto(v, e.numbers + offset, n), of_vector(v, f, a, n)
    store_upto(e.second[row] + offset, rate, n)
    return fma(leak, rate, (1.0 - leak) * load_upto(v, e.before[row] + offset, n))


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_gradient: Any, df: Any) -> Vec:  # noqa: ARG001
    offset = j * size_of_real(v)
    leak, rate = load_upto(v, e.numbers + offset, n), load_upto(v, e.second[row] + offset, n)
    d_h = d_h + load_upto(v, e.carry[row] + offset, n)
    store_upto(e.carry[row] + offset, (1.0 - leak) * d_h, n)
    if e.d_numbers:
        add_upto(v, ints(e.d_numbers)[row] + offset, d_h * (rate - load_upto(v, e.before[row] + offset, n)), n)
    return leak * of_gradient(v, df, d_h, rate, n)
