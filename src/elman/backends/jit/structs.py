"""C in Numba: structures and lists of integers at an address, memory on the stack, functions by their address.

A structure is declared once, as a `Struct`; in a kernel `local(PASS)` makes one, and its fields are attributes. All
are 8 bytes: an int (which may be an address), a float, `Ints`; or another structure.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.core.typing.templates import AttributeTemplate
from numba.core.typing.typeof import typeof_impl
from numba.extending import (
    infer_getattr,
    lower_builtin,
    lower_getattr_generic,
    lower_setattr_generic,
    models,
    register_model,
    type_callable,
)

from elman.backends.jit.simd import INT64, Address, Lanes, Site, emit_call, emit_pointer, emit_prefetch, emitted

INT, FLOAT = types.int64, types.float64
BYTE = ir.IntType(8)
NO_MEMORY, RAISED = -1, -3  # what a call returns instead of 0 (csrc/pool.h)
CALL_BYTES = 8  # elman_call of csrc/pool.h, and what fills it up


class Struct:
    """A structure's name and fields, in their order in memory."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.name = name
        self.fields: dict[str, tuple[int, Any]] = {}
        offset = 0
        for field, kind in fields.items():
            self.fields[field] = offset, kind
            offset += kind.size if isinstance(kind, Struct) else 8
        self.size = offset

    @classmethod
    def of_c(cls, name: str, offsets: dict[str, int], **fields: Any) -> Struct:
        """One of csrc/elman.h: all its fields are ints but for these."""
        struct = cls(name)
        struct.fields = {field: (offset, fields.get(field, INT)) for field, offset in offsets.items()}
        return struct


class Pointer:
    """A field that holds the address of a structure."""

    size = 8

    def __init__(self, struct: Struct) -> None:
        self.struct = struct


class StructType(types.Type):
    """A structure at an address: that is its value."""

    def __init__(self, struct: Struct) -> None:
        self.struct = struct
        super().__init__(name=f"Struct({struct.name})")


class StructClass(types.Opaque):
    """A `Struct` itself, as an argument of `local`."""

    def __init__(self, struct: Struct) -> None:
        self.struct = struct
        super().__init__(name=f"StructClass({struct.name})")


class _IntsType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Ints")


INTS = _IntsType()  # int64 in a row at an address, mostly the addresses of rows


@typeof_impl.register(Struct)
def _type_of_struct(struct: Struct, _: Any) -> Any:
    return StructClass(struct)


@register_model(StructType)
@register_model(_IntsType)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, INT64)


register_model(StructClass)(models.OpaqueModel)


def _field(struct: Struct, name: str) -> tuple[int, Any]:
    offset, kind = struct.fields[name]
    return offset, StructType(getattr(kind, "struct", kind)) if isinstance(kind, (Struct, Pointer)) else kind


@infer_getattr
class _StructAttributes(AttributeTemplate):
    key = StructType

    def generic_resolve(self, kind: Any, name: str) -> Any:
        return _field(kind.struct, name)[1] if name in kind.struct.fields else None


@lower_getattr_generic(StructType)
def _get(context: Any, builder: Any, kind: Any, address: Any, name: str) -> Any:
    offset, field = _field(kind.struct, name)
    address = builder.add(address, INT64(offset))
    if isinstance(kind.struct.fields[name][1], Struct):
        return address
    return builder.load(emit_pointer(builder, context.get_value_type(field), address), align=8)


@lower_setattr_generic(StructType)
def _set(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    (kind, given), (address, value) = sig.args, args
    offset, field = _field(kind.struct, name)
    value = context.cast(builder, value, given, field)
    builder.store(value, emit_pointer(builder, value.type, builder.add(address, INT64(offset))), align=8)


@type_callable(operator.getitem)
def _type_getitem(context: Any) -> Any:  # noqa: ARG001
    return lambda ints, i: INT if isinstance(ints, _IntsType) and isinstance(i, types.Integer) else None


@lower_builtin(operator.getitem, _IntsType, types.Integer)
def _getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
    return builder.load(emit_pointer(builder, INT64, *args), align=8)


@type_callable(operator.setitem)
def _type_setitem(context: Any) -> Any:  # noqa: ARG001
    return lambda ints, i, _: types.void if isinstance(ints, _IntsType) and isinstance(i, types.Integer) else None


@lower_builtin(operator.setitem, _IntsType, types.Integer, types.Any)
def _setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ints, i, value = args
    builder.store(context.cast(builder, value, sig.args[2], INT), emit_pointer(builder, INT64, ints, i), align=8)
    return context.get_dummy_value()


@emitted
def ints(_: Site, address: Address) -> INTS:
    """The integers at an address."""
    return address


@emitted
def byte(at: Site, address: Address) -> int:
    """The byte at an address."""
    return at.builder.zext(at.builder.load(emit_pointer(at.builder, BYTE, address), align=1), INT64)


@emitted(result=lambda place, n: place)  # noqa: ARG005
def after(at: Site, place: Any, n: int) -> Any:
    """What stands n integers, or n structures, behind `place`."""
    size = at.kinds[0].struct.size if isinstance(at.kinds[0], StructType) else 8
    return at.builder.add(place, at.builder.mul(n, INT64(size)))


@emitted(result=lambda struct: StructType(struct.struct))
def local(at: Site, struct: StructClass) -> Any:
    """A structure of zeros, which lives until the function that asks for it returns."""
    memory, size = _allocate(at.builder, struct.struct.size), INT64(struct.struct.size)
    cgutils.memset(at.builder, emit_pointer(at.builder, BYTE, memory), size, 0)
    return memory


@emitted
def stack(at: Site, size: types.Literal) -> Address:
    """The address of some memory, 64-byte aligned, which lives until the function that asks for it returns."""
    return _allocate(at.builder, size)


def _allocate(builder: Any, size: int) -> Any:
    with builder.goto_entry_block():  # where LLVM lets an allocation last for the whole function, even in a loop
        memory = builder.alloca(ir.ArrayType(BYTE, size))
    memory.align = 64
    return builder.ptrtoint(memory, INT64)


@emitted
def copy(at: Site, to: Any, source: Any, size: int) -> None:
    """memcpy."""
    to, source = (emit_pointer(at.builder, BYTE, address) for address in (to, source))
    cgutils.raw_memcpy(at.builder, to, source, size, 1)


@emitted
def clear(at: Site, to: Address, size: int) -> None:
    """memset to 0."""
    cgutils.memset(at.builder, emit_pointer(at.builder, BYTE, to), size, 0)


@emitted
def prefetch(at: Site, p: Address) -> None:
    """Bring the cache line at an address near."""
    emit_prefetch(at.builder, p)


@emitted
def smaller(at: Site, a: int, b: int) -> int:
    """Of two integers. (Numba's own min and max would be functions to compile, for each pair of types.)"""
    return at.builder.select(at.builder.icmp_signed("<", a, b), a, b)


@emitted
def larger(at: Site, a: int, b: int) -> int:
    return at.builder.select(at.builder.icmp_signed(">", a, b), a, b)


@emitted
def truncated(at: Site, x: float) -> int:
    return at.builder.fptosi(x, INT64)


@emitted
def load_double(at: Site, p: Address) -> float:
    return at.builder.load(emit_pointer(at.builder, ir.DoubleType(), p), align=8)


@emitted
def store_double(at: Site, p: Address, x: float) -> None:
    at.builder.store(x, emit_pointer(at.builder, ir.DoubleType(), p), align=8)


# ---- functions by their address


@emitted
def call(at: Site, function: Address, arguments: Any) -> None:
    """Call the C function at an address with a tuple of ints, addresses or structures."""
    values = cgutils.unpack_tuple(at.builder, arguments)
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    at.builder.call(at.builder.inttoptr(function, kind.as_pointer()), values)


def emit_c_function(
    context: Any, builder: Any, function: Any, before: list[Any], kinds: list[Any], *, has_status: bool = False
) -> Any:
    """A C function of the arguments `kinds`, which returns nothing or a status: calls a kernel.

    `before` are types that the kernel takes before them.
    """
    signature = (*before, *kinds)
    function.dispatcher.compile(signature)
    compiled = function.dispatcher.overloads[signature]
    context.add_linking_libs([compiled.library])
    result = ir.IntType(32) if has_status else ir.VoidType()
    c_type = ir.FunctionType(result, [context.get_value_type(kind) for kind in kinds])
    name = f"c_{compiled.fndesc.mangled_name}"
    wrapper = cgutils.get_or_insert_function(builder.module, c_type, name)
    if wrapper.is_declaration:
        wrapper.linkage = "internal"
        inside = ir.IRBuilder(wrapper.append_basic_block())
        values = [context.get_dummy_value() for _ in before] + list(wrapper.args)
        value = context.call_internal(inside, compiled.fndesc, compiled.signature, values)
        if has_status:
            inside.ret(inside.trunc(value, result))
        else:
            inside.ret_void()
    return wrapper


def emit_address(context: Any, builder: Any, v: Any, kernel: Any) -> Any:
    """The address of a jitted function as C calls it: its annotations, but for v, say with what."""
    function, hints = types.Dispatcher(kernel), kernel.py_func.__annotations__
    kinds = [_c_kind(function, hint) for name, hint in hints.items() if name not in ("v", "return")]
    wrapper = emit_c_function(context, builder, function, [v], kinds, has_status=hints["return"] == "int")
    return builder.ptrtoint(wrapper, INT64)


def _c_kind(function: Any, hint: str) -> Any:
    struct = function.dispatcher.py_func.__globals__.get(hint)
    return StructType(struct) if isinstance(struct, Struct) else FLOAT if hint == "float" else INT


@emitted
def call_own(at: Site, function: types.Dispatcher, x: float) -> float:
    """A user's function, compiled, of x. Where it raises, the call that this is a part of is stopped."""
    compiled = function.dispatcher.overloads[FLOAT,]
    at.context.add_linking_libs([compiled.library])
    status, y = cpu_target.target_context.call_internal_no_propagate(
        at.builder, compiled.fndesc, compiled.signature, [x]
    )
    with cgutils.if_unlikely(at.builder, status.is_error):
        emit_call(at.builder, "elman_stop", ir.VoidType(), [ir.IntType(32)(RAISED)])
    return at.context.cast(at.builder, y, compiled.signature.return_type, FLOAT)


@emitted
def run(at: Site, v: Lanes, task: types.Dispatcher, argument: Any, n: int, threads: int) -> None:
    """task(v, argument, i) for i in 0..n-1, by the pool: elman_run of csrc/pool.h."""
    function = _address_of_task(at, v, task)
    emit_call(at.builder, "elman_run", ir.VoidType(), [function, argument, n, threads])


@emitted
def run_team(at: Site, v: Lanes, task: types.Dispatcher, argument: Any, n: int) -> bool:
    """The same for tasks that `meet`, all at the same time; False where so many threads are not to be had."""
    function = _address_of_task(at, v, task)
    done = emit_call(at.builder, "elman_run_team", ir.IntType(32), [function, argument, n])
    return at.builder.icmp_signed("!=", done, done.type(0))


def _address_of_task(at: Site, v: Lanes, task: types.Dispatcher) -> Any:
    function = emit_c_function(at.context, at.builder, task, [v], [at.kinds[2], INT])
    return at.builder.ptrtoint(function, INT64)


# The pool's other functions, and the sizes of the machine's caches
cache_size = types.ExternalFunction("elman_cache_size", types.int64(types.int32))
thread_limit = types.ExternalFunction("elman_get_num_threads", types.int32())
meet = types.ExternalFunction("elman_meet", types.int32(types.int64, types.int64))
stopped = types.ExternalFunction("elman_stopped", types.int32())
begin_call = types.ExternalFunction("elman_begin", types.void(types.int64))
end_call = types.ExternalFunction("elman_end", types.int32(types.int64))
lease = types.ExternalFunction("elman_lease", types.int64(types.int64))
give_back = types.ExternalFunction("elman_return", types.void(types.int64))
