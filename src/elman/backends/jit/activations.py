"""The activations: f(a), and d f'(a) of d and y = f(a), applied to a tile while it is in the first-level cache.

Each is a pair of C functions that `gemm` enters by their addresses, compiled for itself: passes know no activation, and
a user's own (elman.activation) costs the compilation of two small functions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from elman.backends.activations import Activation
from elman.backends.jit.cells import CELLS
from elman.backends.jit.gemm import EPILOGUE
from elman.backends.jit.options import kernel, user_function
from elman.backends.jit.simd import (
    INT64,
    Lanes,
    Vec,
    at_most,
    choose,
    fma,
    load_real,
    load_upto,
    real,
    reals,
    size_of_real,
    square_root,
    store_real,
    store_upto,
)
from elman.backends.jit.structs import INTS, StructType, call_own, emit_c_function, ints, smaller, stack
from elman.backends.jit.vecmath import one_minus_exp, sigmoid, softplus, tanh


@kernel
def relu(v: Any, a: Vec) -> Vec:  # noqa: ARG001
    return choose(a < 0.0, 0.0, a)  # NaN stays


@kernel
def identity(v: Any, a: Vec) -> Vec:  # noqa: ARG001
    return a


@kernel
def retanh(v: Any, a: Vec) -> Vec:
    return relu(v, tanh(v, a))


@kernel
def power(v: Any, a: Vec) -> Vec:
    return relu(v, a) * relu(v, a)


@kernel
def d_relu(v: Any, d: Vec, y: Vec) -> Vec:  # noqa: ARG001
    """Where a unit is at 0, nothing goes back, be it infinite; where it is NaN, all does."""
    return choose(at_most(y, 0.0), 0.0, d)


@kernel
def d_tanh(v: Any, d: Vec, y: Vec) -> Vec:  # noqa: ARG001
    return d * fma(-y, y, 1.0)


@kernel
def d_sigmoid(v: Any, d: Vec, y: Vec) -> Vec:  # noqa: ARG001
    return d * (y * (1.0 - y))


@kernel
def d_identity(v: Any, d: Vec, y: Vec) -> Vec:  # noqa: ARG001
    return d


@kernel
def d_softplus(v: Any, d: Vec, y: Vec) -> Vec:
    return d * one_minus_exp(v, y)


@kernel
def d_retanh(v: Any, d: Vec, y: Vec) -> Vec:
    return d_tanh(v, d_relu(v, d, y), y)


@kernel
def d_power(v: Any, d: Vec, y: Vec) -> Vec:
    return d_relu(v, d, y) * (2.0 * square_root(y))


PAIRS = {
    "tanh": (tanh, d_tanh),
    "relu": (relu, d_relu),
    "sigmoid": (sigmoid, d_sigmoid),
    "identity": (identity, d_identity),
    "softplus": (softplus, d_softplus),
    "retanh": (retanh, d_retanh),
    "power": (power, d_power),
}


# ---- the epilogues of a cell (cells/) with an activation, whose functions `of_vector` and `of_gradient` apply


@kernel
def built_in_vector(v: Any, f: Any, x: Vec, n: int) -> Vec:  # noqa: ARG001
    return f(v, x)


@kernel
def built_in_gradient(v: Any, df: Any, d: Vec, y: Vec, n: int) -> Vec:  # noqa: ARG001
    return df(v, d, y)


@kernel
def own_vector(v: Any, f: Any, x: Vec, n: int) -> Vec:
    """Of a user's own (elman.activation): a scalar function, in float64."""
    memory = stack(64)
    store_upto(memory, x, n)
    for i in range(n):
        p = memory + i * size_of_real(v)
        store_real(v, p, real(v, call_own(f, load_real(v, p))))
    return load_upto(v, memory, n)


@kernel
def own_gradient(v: Any, df: Any, d: Vec, y: Vec, n: int) -> Vec:
    return d * own_vector(v, df, y, n)


@kernel
def apply(
    v: Any, of_vector: Any, output: Any, f: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any
) -> None:
    """out = output(out): an epilogue (gemm.py)."""
    for r in range(rows):
        for j in range(column, column + columns, reals(v)):
            n, p = smaller(column + columns - j, reals(v)), out[r] + j * size_of_real(v)
            store_upto(p, output(v, e, row + r, j, n, load_upto(v, p, n), of_vector, f), n)


@kernel
def gradient(
    v: Any, of_gradient: Any, delta: Any, df: Any, e: Any, row: int, rows: int, column: int, columns: int, out: Any
) -> None:
    """out = delta(d_y + mask out)."""
    for r in range(rows):
        for j in range(column, column + columns, reals(v)):
            n, offset = smaller(column + columns - j, reals(v)), j * size_of_real(v)
            p, y, d_y = out[r] + offset, e.y[row + r] + offset, e.d_y[row + r] + offset
            d = load_upto(v, p, n)
            if e.mask:
                d = load_upto(v, ints(e.mask)[row + r] + offset, n) * d
            d = load_upto(v, d_y, n) + d
            store_upto(p, delta(v, e, row + r, j, n, d, load_upto(v, y, n), of_gradient, df), n)


def _table(builder: Any, functions: list[Any]) -> Any:
    """The address of a constant list of functions' addresses."""
    kind = ir.ArrayType(ir.IntType(8).as_pointer(), len(functions))
    table = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("functions"))
    table.linkage, table.global_constant = "internal", True
    table.initializer = ir.Constant(kind, [function.bitcast(kind.element) for function in functions])
    return builder.ptrtoint(table, INT64)


_ARGUMENTS = [StructType(EPILOGUE), types.int64, types.int64, types.int64, types.int64, INTS]


def functions_of(activation: str | Activation) -> list[tuple[Any, Any]]:
    """Of f, and of its gradient: what applies it to vectors, and itself."""
    if isinstance(activation, Activation):
        return [(own_vector, user_function(activation.f)), (own_gradient, user_function(activation.df))]
    return list(zip((built_in_vector, built_in_gradient), PAIRS[activation], strict=True))


def emit_epilogues(context: Any, builder: Any, v: Lanes, cell: str, functions: list[tuple[Any, Any]]) -> Any:
    """The address of the epilogues [apply, gradient] of a cell with an activation, and behind them of Elman's."""
    table = []
    for name in (cell, "elman"):
        of_cell = CELLS[name].output, CELLS[name].delta
        for epilogue, own, (applied, f) in zip((apply, gradient), of_cell, functions, strict=True):
            kernel, before = types.Dispatcher(epilogue), [v, *map(types.Dispatcher, (applied, own, f))]
            table.append(emit_c_function(context, builder, kernel, before, _ARGUMENTS))
    return _table(builder, table)
