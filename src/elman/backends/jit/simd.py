"""Vectors of reals in Numba: the LLVM type <n x float> or <n x double>, and what the kernels do with it.

It is csrc/simd.h in Python. `Lanes` describes a vector (dtype, bytes, whether multiply-adds are fused) and is a *type*:
the kernels take it as their first argument `v`, which costs nothing at run time, and are compiled once for each. Memory
is an address, an int. `+ - * / & | ^`, unary `-` and `< >` work on whole vectors, a number standing for a vector of it.

No operation carries fast-math flags, so LLVM neither fuses nor reorders them: the bits are those of the C kernels.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin, lower_cast, models, register_model, type_callable

Address = int  # what annotations of kernels call the types that Numba infers
Vec = Any

INT64 = ir.IntType(64)
BOOL = ir.IntType(1)
_REAL: dict[str, Any] = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_INTEGER = {"float32": ir.IntType(32), "float64": ir.IntType(64)}
_MANTISSA_BITS = {"float32": 23, "float64": 52}
_SIZE = {"float32": 4, "float64": 8}


class Lanes(types.Opaque):
    """What a vector is: the type of the kernels' first argument, `v`."""

    def __init__(self, real: str, width: int, fused: bool) -> None:
        self.real, self.width, self.fused = real, width, fused  # "float32" or "float64", bytes, multiply-adds
        super().__init__(name=f"Lanes({real}, {width}, {fused})")

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
        """A vector that holds the value in all lanes."""
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


def emit_prefetch(builder: Any, address: Any, *, is_written: bool = False) -> None:
    """Bring the cache line at an address near, to be read or to be written."""
    purpose, keep, data = (ir.IntType(32)(n) for n in (int(is_written), 3, 1))
    pointer = emit_pointer(builder, ir.IntType(8), address)
    emit_call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, purpose, keep, data])


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
        """The first elements only, by a mask: powers of two, as in C, were not faster here."""
        with builder.if_else(self.is_whole, likely=True) as (whole, part):
            with whole:
                emit_store(builder, self.lanes, address, vector)
            with part:
                emit_store_masked(builder, self.lanes, address, vector, self.mask)


def _suffix(lanes: Lanes) -> str:
    return f"v{lanes.n}f{8 * lanes.size}"


@lower_cast(types.Number, Vector)
def _everywhere(context: Any, builder: Any, kind: Any, vector: Vector, number: Any) -> Any:
    """A number stands for a vector of it."""
    lanes = vector.lanes
    return emit_splat(builder, lanes.ir_vector, context.cast(builder, number, kind, getattr(types, lanes.real)))


def _lanes_of(kinds: Any) -> Lanes | None:
    """Those of the first type that has any."""
    found = (kind if isinstance(kind, Lanes) else getattr(kind, "lanes", None) for kind in kinds)
    return next(filter(None, found), None)


# ---- operators


def _operator(function: Callable[..., Any], result: Callable[[Lanes], Any], emit: Callable[..., Any]) -> None:
    """Let `function` work on two vectors, or a vector and a number."""

    @type_callable(function)
    def type_it(context: Any) -> Any:  # noqa: ARG001 - Numba calls it by that name
        def typer(a: Any, b: Any) -> Any:
            lanes, are_known = _lanes_of((a, b)), all(isinstance(kind, _TAKEN[Vector]) for kind in (a, b))
            return result(lanes) if lanes and are_known else None

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = Vector(_lanes_of(sig.args))
        a, b = (context.cast(builder, arg, kind, vector) for kind, arg in zip(sig.args, args, strict=True))
        return emit(builder, vector.lanes, a, b)

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


class Real:
    """In an annotation: a number of the dtype."""


class Site(NamedTuple):
    """Where a kernel calls an intrinsic, while that kernel is compiled."""

    context: Any  # Numba's
    builder: Any  # LLVM's, of the instructions so far
    kinds: tuple[Any, ...]  # the arguments' types

    @property
    def lanes(self) -> Any:
        """Those of the arguments."""
        return _lanes_of(self.kinds)

    def everywhere(self, number: Any, kind: Any) -> Any:
        """A vector of a number of some type."""
        return self.context.cast(self.builder, number, kind, Vector(self.lanes))


# Of which types an argument may be, by its annotation, if that is not the type
_TAKEN: dict[Any, Any] = {
    Any: types.Type,
    int: types.Integer,  # a float would be cut off without a word
    float: types.Number,
    Real: types.Number,
    Vector: (Vector, types.Number),
}


def _type_of(hint: Any, lanes: Lanes | None, otherwise: Any) -> Any:
    """The type that an annotation stands for, or `otherwise`; None where it takes lanes and there are none."""
    if hint in (Real, Vector, Mask):
        return lanes and (getattr(types, lanes.real) if hint is Real else hint(lanes))
    return {int: types.int64, float: types.float64, bool: types.boolean, None: types.void}.get(hint, otherwise)


def emitted(function: Any = None, *, result: Any = None) -> Any:
    """An intrinsic: where a kernel calls it, what `function` emits at that `Site` is what the call becomes.

    Annotations say what it takes and returns; `result` says the latter, of the arguments' types, where they cannot. A
    number is converted to a float, a Real or a Vector of it, but only an int is taken for an int. The function gets
    values in IR; what has none (v, a structure's class, a jitted function) as its type, a literal as what it is.
    """
    if function is None:
        return functools.partial(emitted, result=result)
    signature = inspect.signature(function, eval_str=True)
    hints = [parameter.annotation for parameter in signature.parameters.values()][1:]
    hint = signature.return_annotation

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function
        prefer_literal = types.Literal in hints

        def generic(self, given: Any, _: Any) -> Any:
            lanes = _lanes_of(given)
            if len(given) != len(hints) or not all(
                isinstance(kind, _TAKEN.get(hint, hint)) for hint, kind in zip(hints, given, strict=True)
            ):
                return None
            kinds = [_type_of(hint, lanes, kind) for hint, kind in zip(hints, given, strict=True)]
            returned = result(*kinds) if result else _type_of(hint, lanes, hint)
            return None if None in (returned, *kinds) else returned(*kinds)

    infer_global(function, types.Function(Template))

    @lower_builtin(function, types.VarArg(types.Any))
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = function(Site(context, builder, sig.args), *map(_as_known, sig.args, args))
        return context.get_dummy_value() if value is None else value

    return function


def _as_known(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Literal):
        return kind.literal_value
    return kind if isinstance(kind, types.Dummy) else value


# ---- vectors


@emitted
def reals(_: Site, v: Lanes) -> int:
    """VL, the number of reals in a vector."""
    return INT64(v.n)


@emitted
def size_of_real(_: Site, v: Lanes) -> int:
    """Bytes of a real."""
    return INT64(v.size)


@emitted
def width_of(_: Site, v: Lanes) -> int:
    """Bytes of a vector."""
    return INT64(v.width)


@emitted
def real(_: Site, v: Lanes, x: Real) -> Real:  # noqa: ARG001
    """A number, rounded to the dtype of reals."""
    return x


@emitted
def splat(at: Site, v: Lanes, x: Real) -> Vector:
    """A vector of equal elements."""
    return emit_splat(at.builder, v.ir_vector, x)


@emitted
def per_dtype(at: Site, v: Lanes, pair: Any) -> Vector:
    """Of a pair of numbers that for the dtype, (float32, float64), in every element."""
    which = int(v.real == "float64")
    return at.everywhere(at.builder.extract_value(pair, which), at.kinds[1][which])


@emitted
def polynomial(at: Site, x: Vector, square: Vector, pair: Any) -> Vector:
    """With the coefficients for the dtype of a pair of tuples, that of the highest power first.

    By Horner's rule in x², for even and odd powers each.
    """
    which = int(at.lanes.real == "float64")
    numbers = cgutils.unpack_tuple(at.builder, at.builder.extract_value(pair, which))
    odd, even, *others = map(at.everywhere, numbers, at.kinds[2][which])
    for c in others:
        odd, even = even, emit_fma(at.builder, at.lanes, odd, square, c)
    return emit_fma(at.builder, at.lanes, odd, x, even)


@emitted
def fma(at: Site, a: Vector, b: Vector, c: Vector) -> Vector:
    """a b + c."""
    return emit_fma(at.builder, at.lanes, a, b, c)


@emitted
def square_root(at: Site, x: Vector) -> Vector:
    return emit_call(at.builder, f"llvm.sqrt.{_suffix(at.lanes)}", x.type, [x])


@emitted
def choose(at: Site, mask: Mask, yes: Vector, no: Vector) -> Vector:
    """For each element, by the mask, one of two."""
    return at.builder.select(mask, yes, no)


@emitted
def at_most(at: Site, a: Vector, b: Vector) -> Mask:
    """a <= b."""
    return at.builder.fcmp_ordered("<=", a, b)


@emitted
def both(at: Site, a: Mask, b: Mask) -> Mask:
    """Of two masks."""
    return at.builder.and_(a, b)


@emitted
def power_of_two(at: Site, shifted: Vector) -> Vector:
    """2^n, where the lowest bits of `shifted` are the integer n: put where the exponent is."""
    lanes = at.lanes
    integers = ir.VectorType(lanes.ir_integer, lanes.n)
    places = ir.Constant(integers, [_MANTISSA_BITS[lanes.real]] * lanes.n)
    n = at.builder.shl(at.builder.bitcast(shifted, integers), places)
    one = at.builder.bitcast(lanes.ir_constant(1.0), integers)
    return at.builder.bitcast(at.builder.add(n, one), lanes.ir_vector)


@emitted
def total(at: Site, x: Vector) -> Real:
    """The sum of the elements, by halves: each instruction set of one width adds in one order."""
    n = at.lanes.n
    while n > 1:
        n //= 2
        lower, upper = (
            at.builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(ir.IntType(32), n), list(which)))
            for which in (range(n), range(n, 2 * n))
        )
        x = at.builder.fadd(lower, upper)
    return at.builder.extract_element(x, ir.IntType(32)(0))


@emitted
def largest(at: Site, x: Vector) -> Real:
    """The largest element, found from the first to the last: what that means with NaN is as in C."""
    most, *others = (at.builder.extract_element(x, ir.IntType(32)(i)) for i in range(at.lanes.n))
    for other in others:
        most = at.builder.select(at.builder.fcmp_ordered(">", other, most), other, most)
    return most


# ---- memory: p is the address of a real


@emitted
def load(at: Site, v: Lanes, p: Address) -> Vector:
    """A vector from memory."""
    return emit_load(at.builder, v, p)


@emitted
def store(at: Site, p: Address, x: Vector) -> None:
    """A whole vector."""
    emit_store(at.builder, at.lanes, p, x)


@emitted
def load_upto(at: Site, v: Lanes, p: Address, n: int) -> Vector:
    """The first n <= VL elements, the others 0; nothing beyond them is read."""
    return Rest(at.builder, v, n).load(at.builder, p)


@emitted
def store_upto(at: Site, p: Address, x: Vector, n: int) -> None:
    """The first n <= VL elements; nothing beyond them is written."""
    Rest(at.builder, at.lanes, n).store(at.builder, p, x)


@emitted
def add_upto(at: Site, v: Lanes, p: Address, x: Vector, n: int) -> None:
    """To the first n <= VL elements."""
    rest = Rest(at.builder, v, n)
    rest.store(at.builder, p, at.builder.fadd(rest.load(at.builder, p), x))


@emitted
def load_padded(at: Site, v: Lanes, p: Address, n: int, pad: Vector) -> Vector:
    """The first n <= VL elements, the others `pad`."""
    return emit_load_masked(at.builder, v, p, emit_first(at.builder, v, n), pad)


@emitted
def load_real(at: Site, v: Lanes, p: Address) -> Real:
    """One real."""
    return at.builder.load(emit_pointer(at.builder, v.ir_real, p), align=v.size)


@emitted
def store_real(at: Site, v: Lanes, p: Address, x: Real) -> None:
    at.builder.store(x, emit_pointer(at.builder, v.ir_real, p), align=v.size)
