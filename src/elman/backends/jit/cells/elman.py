"""The Elman cell: h = f(a)."""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec


@kernel
def state(v: Any, e: Any, row: int, j: int, n: int, f: Vec) -> Vec:  # noqa: ARG001
    return f


@kernel
def delta(v: Any, e: Any, row: int, j: int, n: int, d_h: Vec, h: Vec, of_vector: Any, df: Any) -> Vec:  # noqa: ARG001
    return d_h * of_vector(v, df, h, n)
