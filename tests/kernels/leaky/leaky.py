"""A cell that remembers: h = (1 - alpha) h[t-1] + alpha f(a), which keeps f(a) for its derivative."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, fma, load_upto, real, size_of_real, splat, store_upto
from elman.backends.jit.structs import load_double


@kernel
def state(v: Any, e: Any, row: int, j: int, n: int, f: Vec) -> Vec:
    alpha, offset = real(v, load_double(e.numbers)), j * size_of_real(v)
    store_upto(e.second[row] + offset, f, n)
    return fma(splat(v, alpha), f, splat(v, real(v, 1.0) - alpha) * load_upto(v, e.before[row] + offset, n))


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_vector: Any, df: Any) -> Vec:  # noqa: ARG001
    alpha, offset = real(v, load_double(e.numbers)), j * size_of_real(v)
    d_h = d_h + load_upto(v, e.carry[row] + offset, n)
    store_upto(e.carry[row] + offset, splat(v, real(v, 1.0) - alpha) * d_h, n)
    return splat(v, alpha) * d_h * of_vector(v, df, load_upto(v, e.second[row] + offset, n), n)
