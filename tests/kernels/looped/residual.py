"""A cell without numbers of its own: h = h[t-1] + f(a), which keeps f(a) for its derivative."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, load_upto, size_of_real, store_upto


@kernel
def output(v: Any, e: Any, row: int, j: int, n: int, a: Vec, of_vector: Any, f: Any) -> Vec:
    offset = j * size_of_real(v)
    value = of_vector(v, f, a, n)
    store_upto(e.second[row] + offset, value, n)
    return load_upto(v, e.before[row] + offset, n) + value


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_gradient: Any, df: Any) -> Vec:  # noqa: ARG001
    offset = j * size_of_real(v)
    d_h = d_h + load_upto(v, e.carry[row] + offset, n)
    store_upto(e.carry[row] + offset, d_h, n)
    return of_gradient(v, df, d_h, load_upto(v, e.second[row] + offset, n), n)
