"""Vectors of reals in Numba: the LLVM type <n x float> or <n x double>, and what the kernels do with it.

It is csrc/simd.h in Python. `Lanes` describes a vector (dtype, bytes, whether multiply-adds are fused) and is a *type*:
the kernels take it as their first argument `v`, which costs nothing at run time, and are compiled once for each. Memory
is an address, an int. `+ - * / & | ^`, unary `-` and `< >` work on whole vectors, a number standing for a vector of it.

No operation carries fast-math flags, so LLVM neither fuses nor reorders them: the bits are those of the C kernels.

Everything that emits code is an `@intrinsic` of this module's top level: one made in a closure would be another one in
each process, and nothing that calls it could be kept on disk.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

Address = int  # what annotations of kernels call the types that Numba infers
Vec = Any

INT64 = ir.IntType(64)
BOOL = ir.IntType(1)
_REAL: dict[str, Any] = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_INTEGER = {"float32": ir.IntType(32), "float64": ir.IntType(64)}
_MANTISSA_BITS = {"float32": 23, "float64": 52}
_SIZE = {"float32": 4, "float64": 8}


def _digest() -> str:
    """Of the sources that kernels are compiled from."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


# Numba's cache on disk notices changes of a function's own file only. This, in the type of every kernel's first
# argument, makes it notice changes of the others too.
_SOURCES = _digest()


class Lanes(types.Type):
    """What a vector is: the type of the kernels' first argument, `v`."""

    def __init__(self, real: str, width: int, fused: bool) -> None:
        self.real, self.width, self.fused = real, width, fused  # "float32" or "float64", bytes, multiply-adds
        super().__init__(name=f"Lanes({real}, {width}, {fused}, {_SOURCES})")

    @property
    def size(self) -> int:
        """Bytes of a real."""
        return _SIZE[self.real]

    @property
    def n(self) -> int:
        """Reals in a vector."""
        return self.width // self.size

    @property
    def masks_are_free(self) -> bool:
        """Whether loading a part of a vector costs no more than loading it whole: AVX-512."""
        return self.width == 64

    @property
    def ir_real(self) -> Any:
        """LLVM's type of a real."""
        return _REAL[self.real]

    @property
    def ir_integer(self) -> Any:
        """An integer as wide as a real."""
        return _INTEGER[self.real]

    @property
    def ir_vector(self) -> Any:
        """LLVM's type of a vector."""
        return ir.VectorType(self.ir_real, self.n)

    def ir_constant(self, value: float) -> Any:
        return ir.Constant(self.ir_vector, [value] * self.n)


class Vector(types.Type):
    """A vector of reals."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes.real}, {lanes.width}, {lanes.fused})")


class Mask(types.Type):
    """The outcome of a comparison: true or false for each element."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        super().__init__(name=f"Mask({lanes.real}, {lanes.width})")


register_model(Lanes)(models.OpaqueModel)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.lanes.ir_vector)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(BOOL, mask.lanes.n))


# ---- emitters: called with an IRBuilder, by the intrinsics below and by the micro-kernel (tile.py)


def emit_call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """A call of an LLVM intrinsic or a C function by name."""
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def emit_splat(builder: Any, kind: Any, value: Any) -> Any:
    """A vector of LLVM's type `kind`, the value in every element."""
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), everywhere)


def emit_fma(builder: Any, lanes: Lanes, a: Any, b: Any, c: Any) -> Any:
    """a b + c: one rounding where the instruction set has it, else two, as in C."""
    if not lanes.fused:
        return builder.fadd(builder.fmul(a, b), c)
    return emit_call(builder, f"llvm.fma.{_suffix(lanes)}", lanes.ir_vector, [a, b, c])


def emit_pointer(builder: Any, kind: Any, address: Any, offset: Any = None) -> Any:
    """A pointer to `kind`, `offset` of them after the address."""
    pointer = builder.inttoptr(address, kind.as_pointer())
    return pointer if offset is None else builder.gep(pointer, [offset])


def emit_load(builder: Any, lanes: Lanes, address: Any) -> Any:
    return builder.load(emit_pointer(builder, lanes.ir_vector, address), align=lanes.size)


def emit_store(builder: Any, lanes: Lanes, address: Any, vector: Any) -> None:
    builder.store(vector, emit_pointer(builder, lanes.ir_vector, address), align=lanes.size)


def emit_first(builder: Any, lanes: Lanes, n: Any) -> Any:
    """The mask of the first n elements."""
    kind = ir.VectorType(lanes.ir_integer, lanes.n)
    numbers = ir.Constant(kind, list(range(lanes.n)))
    n = builder.trunc(n, lanes.ir_integer) if lanes.size == 4 else n
    return builder.icmp_unsigned("<", numbers, emit_splat(builder, kind, n))


def emit_load_masked(builder: Any, lanes: Lanes, address: Any, mask: Any, otherwise: Any = None) -> Any:
    pointer = emit_pointer(builder, lanes.ir_vector, address)
    otherwise = lanes.ir_constant(0.0) if otherwise is None else otherwise
    args = [pointer, ir.IntType(32)(lanes.size), mask, otherwise]
    return emit_call(builder, f"llvm.masked.load.{_suffix(lanes)}.p0", lanes.ir_vector, args)


def emit_store_masked(builder: Any, lanes: Lanes, address: Any, vector: Any, mask: Any) -> None:
    args = [vector, emit_pointer(builder, lanes.ir_vector, address), ir.IntType(32)(lanes.size), mask]
    emit_call(builder, f"llvm.masked.store.{_suffix(lanes)}.p0", ir.VoidType(), args)


class Rest:
    """The first n <= VL elements of a vector: loads them, with 0 for the others, and stores them, and no more."""

    def __init__(self, builder: Any, lanes: Lanes, n: Any) -> None:
        self.lanes, self.mask = lanes, emit_first(builder, lanes, n)
        self.is_whole = builder.icmp_signed("==", n, INT64(lanes.n))

    def load_part(self, builder: Any, address: Any) -> Any:
        """Without a branch for a whole vector."""
        return emit_load_masked(builder, self.lanes, address, self.mask)

    def load(self, builder: Any, address: Any) -> Any:
        with builder.if_else(self.is_whole, likely=True) as (whole, part):
            with whole:
                all_of_it, from_whole = emit_load(builder, self.lanes, address), builder.block
            with part:
                some_of_it = self.load_part(builder, address)
                from_part = builder.block
        vector = builder.phi(self.lanes.ir_vector)
        vector.add_incoming(all_of_it, from_whole)
        vector.add_incoming(some_of_it, from_part)
        return vector

    def store(self, builder: Any, address: Any, vector: Any) -> None:
        """The first elements only."""
        with builder.if_else(self.is_whole, likely=True) as (whole, part):
            with whole:
                emit_store(builder, self.lanes, address, vector)
            with part:
                emit_store_masked(builder, self.lanes, address, vector, self.mask)


def _suffix(lanes: Lanes) -> str:
    return f"v{lanes.n}f{8 * lanes.size}"


def _as_vector(context: Any, builder: Any, lanes: Lanes, kind: Any, value: Any) -> Any:
    """A vector as it is; a number in every element."""
    if isinstance(kind, Vector):
        return value
    return emit_splat(builder, lanes.ir_vector, context.cast(builder, value, kind, getattr(types, lanes.real)))


def _lanes_of(*kinds: Any) -> Lanes | None:
    """Those of the vectors among the types; None if there is none, or if anything else is not a number."""
    vectors = [kind.lanes for kind in kinds if isinstance(kind, Vector)]
    others = [kind for kind in kinds if not isinstance(kind, (Vector, types.Number, types.IntegerLiteral))]
    return vectors[0] if vectors and not others else None


# ---- operators


def _operator(function: Callable[..., Any], result: Callable[[Lanes], Any], emit: Callable[..., Any]) -> None:
    """Let `function` work on two vectors, or a vector and a number."""

    @type_callable(function)
    def type_it(context: Any) -> Any:  # noqa: ARG001 - Numba calls it by that name
        def typer(a: Any, b: Any) -> Any:
            lanes = _lanes_of(a, b)
            return None if lanes is None else result(lanes)

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = _lanes_of(*sig.args)
        assert lanes is not None
        a, b = (_as_vector(context, builder, lanes, kind, arg) for kind, arg in zip(sig.args, args, strict=True))
        return emit(builder, lanes, a, b)

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *kinds)(lower)


def _bitwise(name: str) -> Callable[..., Any]:
    """On the vectors' bits."""

    def emit(builder: Any, lanes: Lanes, a: Any, b: Any) -> Any:
        integers = ir.VectorType(lanes.ir_integer, lanes.n)
        both = getattr(builder, name)(builder.bitcast(a, integers), builder.bitcast(b, integers))
        return builder.bitcast(both, lanes.ir_vector)

    return emit


_operator(operator.add, Vector, lambda builder, _, a, b: builder.fadd(a, b))
_operator(operator.sub, Vector, lambda builder, _, a, b: builder.fsub(a, b))
_operator(operator.mul, Vector, lambda builder, _, a, b: builder.fmul(a, b))
_operator(operator.truediv, Vector, lambda builder, _, a, b: builder.fdiv(a, b))
_operator(operator.lt, Mask, lambda builder, _, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.gt, Mask, lambda builder, _, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.and_, Vector, _bitwise("and_"))
_operator(operator.or_, Vector, _bitwise("or_"))
_operator(operator.xor, Vector, _bitwise("xor"))


@type_callable(operator.neg)
def _type_neg(context: Any) -> Any:  # noqa: ARG001
    return lambda a: a if isinstance(a, Vector) else None


@lower_builtin(operator.neg, Vector)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
    return builder.fneg(args[0])


# ---- intrinsics


@intrinsic
def reals(typingctx: Any, v: Any) -> Any:  # noqa: ARG001
    """VL, the number of reals in a vector."""
    return types.int64(v), lambda context, builder, sig, args: INT64(sig.args[0].n)  # noqa: ARG005


@intrinsic
def size_of_real(typingctx: Any, v: Any) -> Any:  # noqa: ARG001
    """Bytes of a real."""
    return types.int64(v), lambda context, builder, sig, args: INT64(sig.args[0].size)  # noqa: ARG005


@intrinsic
def width_of(typingctx: Any, v: Any) -> Any:  # noqa: ARG001
    """Bytes of a vector."""
    return types.int64(v), lambda context, builder, sig, args: INT64(sig.args[0].width)  # noqa: ARG005


@intrinsic
def real(typingctx: Any, v: Any, x: Any) -> Any:  # noqa: ARG001
    """A number, rounded to the dtype of reals."""
    sig = getattr(types, v.real)(v, x)
    return sig, lambda context, builder, sig, args: context.cast(builder, args[1], sig.args[1], sig.return_type)


@intrinsic
def splat(typingctx: Any, v: Any, x: Any) -> Any:  # noqa: ARG001
    """A vector of equal elements."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as_vector(context, builder, sig.args[0], sig.args[1], args[1])

    return Vector(v)(v, x), emit


@intrinsic
def per_dtype(typingctx: Any, v: Any, pair: Any) -> Any:  # noqa: ARG001
    """Of a pair of numbers that for the dtype, (float32, float64), in every element."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        which = 1 if sig.args[0].real == "float64" else 0
        number = builder.extract_value(args[1], which)
        return _as_vector(context, builder, sig.args[0], sig.args[1][which], number)

    return Vector(v)(v, pair), emit


@intrinsic
def polynomial(typingctx: Any, x: Any, pair: Any) -> Any:  # noqa: ARG001
    """By Horner's rule, with the coefficients for the dtype of a pair of tuples; that of the highest power first."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes, which = sig.args[0].lanes, int(sig.args[0].lanes.real == "float64")
        numbers = cgutils.unpack_tuple(builder, builder.extract_value(args[1], which))
        kinds = sig.args[1][which]
        first, *others = (_as_vector(context, builder, lanes, kind, c) for kind, c in zip(kinds, numbers, strict=True))
        for c in others:
            first = emit_fma(builder, lanes, first, args[0], c)
        return first

    return x(x, pair), emit


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """a b + c."""
    lanes = _lanes_of(a, b, c)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = _lanes_of(*sig.args)
        assert lanes is not None
        pairs = zip(sig.args, args, strict=True)
        return emit_fma(builder, lanes, *(_as_vector(context, builder, lanes, kind, arg) for kind, arg in pairs))

    return Vector(lanes)(a, b, c), emit


@intrinsic
def square_root(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        lanes = sig.args[0].lanes
        return emit_call(builder, f"llvm.sqrt.{_suffix(lanes)}", lanes.ir_vector, [args[0]])

    return x(x), emit


@intrinsic
def choose(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:  # noqa: ARG001
    """For each element, by the mask, one of two."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0].lanes
        yes = _as_vector(context, builder, lanes, sig.args[1], args[1])
        return builder.select(args[0], yes, _as_vector(context, builder, lanes, sig.args[2], args[2]))

    return Vector(mask.lanes)(mask, yes, no), emit


@intrinsic
def both(typingctx: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
    """Of two masks."""
    return a(a, b), lambda context, builder, sig, args: builder.and_(*args)  # noqa: ARG005


@intrinsic
def power_of_two(typingctx: Any, shifted: Any) -> Any:  # noqa: ARG001
    """2^n, where the lowest bits of `shifted` are the integer n: put where the exponent is."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        lanes = sig.args[0].lanes
        integers = ir.VectorType(lanes.ir_integer, lanes.n)
        places = ir.Constant(integers, [_MANTISSA_BITS[lanes.real]] * lanes.n)
        n = builder.shl(builder.bitcast(args[0], integers), places)
        one = builder.bitcast(lanes.ir_constant(1.0), integers)
        return builder.bitcast(builder.add(n, one), lanes.ir_vector)

    return shifted(shifted), emit


@intrinsic
def total(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """The sum of the elements, by halves: each instruction set of one width adds in one order."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        (part,), n = args, sig.args[0].lanes.n
        while n > 1:
            n //= 2
            lower, upper = (
                builder.shuffle_vector(part, part, ir.Constant(ir.VectorType(ir.IntType(32), n), list(which)))
                for which in (range(n), range(n, 2 * n))
            )
            part = builder.fadd(lower, upper)
        return builder.extract_element(part, ir.IntType(32)(0))

    return getattr(types, x.lanes.real)(x), emit


@intrinsic
def largest(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """The largest element, found from the first to the last: what that means with NaN is as in C."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        most, *others = (builder.extract_element(args[0], ir.IntType(32)(i)) for i in range(sig.args[0].lanes.n))
        for other in others:
            most = builder.select(builder.fcmp_ordered(">", other, most), other, most)
        return most

    return getattr(types, x.lanes.real)(x), emit


# ---- memory: p is the address of a real


@intrinsic
def load(typingctx: Any, v: Any, p: Any) -> Any:  # noqa: ARG001
    """A vector from memory."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return emit_load(builder, sig.args[0], args[1])

    return Vector(v)(v, p), emit


@intrinsic
def store(typingctx: Any, p: Any, x: Any) -> Any:  # noqa: ARG001
    """A whole vector."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emit_store(builder, sig.args[1].lanes, *args)
        return context.get_dummy_value()

    return types.void(p, x), emit


@intrinsic
def load_upto(typingctx: Any, v: Any, p: Any, n: Any) -> Any:  # noqa: ARG001
    """The first n <= VL elements, the others 0; nothing beyond them is read."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return Rest(builder, sig.args[0], args[2]).load(builder, args[1])

    return Vector(v)(v, p, types.int64), emit


@intrinsic
def store_upto(typingctx: Any, p: Any, x: Any, n: Any) -> Any:  # noqa: ARG001
    """The first n <= VL elements; nothing beyond them is written."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        Rest(builder, sig.args[1].lanes, args[2]).store(builder, args[0], args[1])
        return context.get_dummy_value()

    return types.void(p, x, types.int64), emit


@intrinsic
def load_padded(typingctx: Any, v: Any, p: Any, n: Any, pad: Any) -> Any:  # noqa: ARG001
    """The first n <= VL elements, the others `pad`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0]
        mask = emit_first(builder, lanes, args[2])
        return emit_load_masked(
            builder, lanes, args[1], mask, _as_vector(context, builder, lanes, sig.args[3], args[3])
        )

    return Vector(v)(v, p, types.int64, pad), emit


@intrinsic
def load_real(typingctx: Any, v: Any, p: Any) -> Any:  # noqa: ARG001
    """One real."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.load(emit_pointer(builder, sig.args[0].ir_real, args[1]), align=sig.args[0].size)

    return getattr(types, v.real)(v, p), emit


@intrinsic
def store_real(typingctx: Any, v: Any, p: Any, x: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = context.cast(builder, args[2], sig.args[2], getattr(types, sig.args[0].real))
        builder.store(x, emit_pointer(builder, sig.args[0].ir_real, args[1]), align=sig.args[0].size)
        return context.get_dummy_value()

    return types.void(v, p, x), emit
