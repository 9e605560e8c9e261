"""The Elman cell: h = f(a)."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec


@kernel
def output(v: Any, e: Any, row: int, j: int, n: int, a: Vec, of_vector: Any, f: Any) -> Vec:  # noqa: ARG001
    return of_vector(v, f, a, n)


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_gradient: Any, df: Any) -> Vec:  # noqa: ARG001
    return of_gradient(v, df, d_h, h, n)
