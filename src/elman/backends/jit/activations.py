"""The activations: f(a), and f' as a function of y = f(a), applied to a tile while it is in the first-level cache.

Each is a pair of C functions that `gemm` enters by their addresses, compiled for itself: passes know no activation, and
a user's own (elman.activation) costs the compilation of two small functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from elman.backends.jit.gemm import EPILOGUE
from elman.backends.jit.options import entry, kernel, uncached_entry
from elman.backends.jit.simd import (
    INT64,
    Address,
    Vec,
    choose,
    fma,
    load_real,
    load_upto,
    real,
    reals,
    size_of_real,
    splat,
    store_real,
    store_upto,
)
from elman.backends.jit.structs import INTS, _StructType, emit_c_function, ints, prefetch, smaller
from elman.backends.jit.vecmath import sigmoid, tanh


@kernel
def relu(v: Any, a: Vec) -> Vec:  # noqa: ARG001
    return choose(a < 0.0, 0.0, a)  # NaN stays


@kernel
def identity(v: Any, a: Vec) -> Vec:  # noqa: ARG001
    return a


@kernel
def d_tanh(v: Any, y: Vec) -> Vec:  # noqa: ARG001
    return fma(-y, y, 1.0)


@kernel
def d_relu(v: Any, y: Vec) -> Vec:
    return choose(y > 0.0, splat(v, 1.0), 0.0)


@kernel
def d_sigmoid(v: Any, y: Vec) -> Vec:  # noqa: ARG001
    return y * (1.0 - y)


@kernel
def d_identity(v: Any, y: Vec) -> Vec:  # noqa: ARG001
    return splat(v, 1.0)


PAIRS = {
    "tanh": (tanh, d_tanh),
    "relu": (relu, d_relu),
    "sigmoid": (sigmoid, d_sigmoid),
    "identity": (identity, d_identity),
}


@kernel
def apply(v: Any, f: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any) -> None:  # noqa: ARG001
    """out = f(out): an epilogue (gemm.py)."""
    for r in range(rows):
        p = out[r] + column * size_of_real(v)
        for j in range(0, columns, reals(v)):
            n, q = smaller(columns - j, reals(v)), p + j * size_of_real(v)
            store_upto(q, f(v, load_upto(v, q, n)), n)


@kernel
def gradient(v: Any, df: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any) -> None:
    """out = (d_y + mask out) f'(y)."""
    for r in range(rows):
        for j in range(column, column + columns, reals(v)):
            n, offset = smaller(column + columns - j, reals(v)), j * size_of_real(v)
            p, y, d_y = out[r] + offset, e.y[row + r] + offset, e.d_y[row + r] + offset
            prefetch(y + e.next_y)
            prefetch(d_y + e.next_d_y)
            prefetch(p + e.next_out)
            d = load_upto(v, p, n)
            if e.mask:
                d = load_upto(v, ints(e.mask)[row + r] + offset, n) * d
            d = load_upto(v, d_y, n) + d
            store_upto(p, d * df(v, load_upto(v, y, n)), n)


def _table(builder: Any, functions: list[Any]) -> Any:
    """The address of a constant list of functions' addresses."""
    kind = ir.ArrayType(ir.IntType(8).as_pointer(), len(functions))
    table = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("functions"))
    table.linkage, table.global_constant = "internal", True
    table.initializer = ir.Constant(kind, [function.bitcast(kind.element) for function in functions])
    return builder.ptrtoint(table, INT64)


_ARGUMENTS = [_StructType(EPILOGUE), types.int64, types.int64, types.int64, types.int64, INTS]


def _epilogues(context: Any, builder: Any, v: Any, pairs: Any) -> Any:
    """The table [apply, gradient], each made of an epilogue and the type of the function that it applies."""
    functions = [emit_c_function(context, builder, types.Dispatcher(e), [v, f], _ARGUMENTS) for e, f in pairs]
    return _table(builder, functions)


@intrinsic(prefer_literal=True)
def _built_in(typingctx: Any, v: Any, name: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        f, df = (types.Dispatcher(function) for function in PAIRS[sig.args[1].literal_value])
        return _epilogues(context, builder, sig.args[0], ((apply, f), (gradient, df)))

    return types.int64(v, name), emit


@entry
def built_in(v: Any, name: str) -> Address:
    """The address of the epilogues [apply, gradient] of an activation; its name is a literal type."""
    return _built_in(v, name)


# ---- a user's own (elman.activation): scalar functions, in float64


@kernel
def apply_own(v: Any, f: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any) -> None:  # noqa: ARG001
    for r in range(rows):
        for j in range(column, column + columns):
            p = out[r] + j * size_of_real(v)
            store_real(v, p, f(np.float64(load_real(v, p))))


@kernel
def gradient_own(v: Any, df: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any) -> None:
    for r in range(rows):
        for j in range(column, column + columns):
            offset = j * size_of_real(v)
            d = load_real(v, out[r] + offset)
            if e.mask:
                d = load_real(v, ints(e.mask)[row + r] + offset) * d
            d = load_real(v, e.d_y[row + r] + offset) + d
            slope = real(v, df(np.float64(load_real(v, e.y[row + r] + offset))))
            store_real(v, out[r] + offset, d * slope)


@intrinsic
def _own(typingctx: Any, v: Any, f: Any, df: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return _epilogues(context, builder, sig.args[0], ((apply_own, sig.args[1]), (gradient_own, sig.args[2])))

    return types.int64(v, f, df), emit


@uncached_entry
def own(v: Any, f: Any, df: Any) -> Address:
    """The address of the epilogues of a user's two functions, jitted; their types are their own."""
    return _own(v, f, df)
