"""A Numba compiler for many small functions that make up a few large ones: LLVM sees each of them once.

Numba makes every function a library of its own: optimised, turned into machine code, linked into each of its callers,
and optimised and turned into machine code there again. For the 70 functions that the passes are made of, that is most
of the time that compiling takes. Here a part's library only holds what Numba made of the function; what Python
wants, the library of a whole, collects its parts, theirs and so on, and is optimised at once.

This uses Numba's compiler pipeline, which may change with its versions; tests/kernels/test_jit.py fails where it does.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import ir as numba_ir
from numba.core import lowering, typed_passes, types, untyped_passes
from numba.core.callconv import CPUCallConv
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target


class _Library(JITCodeLibrary):
    def _optimize_functions(self, ll_module: Any) -> None:
        """Leaves it to the optimisation of the whole."""
        ll_module.data_layout = self._codegen._data_layout


class _PartLibrary(_Library):
    """Only ever linked into a whole."""

    def finalize(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        return self._final_module


class Whole(_Library):
    """One C function without arguments, and what that needs.

    Numba's own round for counts of references is left out: there are none.
    """

    level = 3  # of LLVM's optimisation; 0: none

    @property
    def code(self) -> bytes:
        """Of the machine: a file of objects."""
        return bytes(self._get_compiled_object())

    @property
    def address(self) -> int:
        """Of the function, in this process."""
        return int(self.get_pointer_to_function(self.name))

    def add_linking_library(self, library: Any) -> None:
        if library not in self._linking_libraries:
            super().add_linking_library(library)
            if isinstance(library, _PartLibrary):
                for further in library._linking_libraries:
                    self.add_linking_library(further)

    def _optimize_final_module(self) -> None:
        if self.level:
            options = llvm.create_pipeline_tuning_options(self.level)
            options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = self.level > 1
            builder = llvm.create_pass_builder(self._codegen._tm, options)
            builder.getModulePassManager().run(self._final_module, builder)


class _Direct(CPUCallConv):
    """How kernels call each other: for a value, where Numba's functions return a status that each call looks at.

    A call of one of Numba's ends here, for want of its status.
    """

    def get_function_type(self, restype: Any, argtypes: Any) -> Any:
        arguments = self._get_arg_packer(argtypes).argument_types
        return ir.FunctionType(self.get_return_type(restype).pointee, list(arguments))

    def get_arguments(self, func: Any) -> Any:
        return func.args

    def decorate_function(self, fn: Any, args: Any, fe_argtypes: Any, noalias: bool = False) -> None:
        """Arguments need no names."""

    def return_value(self, builder: Any, retval: Any) -> None:
        builder.ret(retval)

    def return_user_exc(self, builder: Any, *_: Any, **options: Any) -> None:  # noqa: ARG002
        """Of a range whose step is 0, which no kernel has."""
        builder.unreachable()

    def call_function(self, builder: Any, callee: Any, resty: Any, argtys: Any, args: Any) -> Any:
        value = builder.call(callee, self._get_arg_packer(argtys).as_arguments(builder, args))
        return None, self.context.get_returned_value(builder, resty, value)


class _Context(CPUContext):
    @classmethod
    def like(cls, context: Any) -> Any:
        own = copy.copy(context)
        own.__class__ = cls
        return own

    @property
    def call_conv(self) -> Any:
        return _Direct(self)

    def call_internal(self, builder: Any, fndesc: Any, sig: Any, args: Any) -> Any:
        return self.call_internal_no_propagate(builder, fndesc, sig, args)[1]

    def insert_user_function(self, func: Any, fndesc: Any, libs: Any = ()) -> None:
        def call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return context.call_internal(builder, fndesc, sig, args)

        call.libs = tuple(libs)  # type: ignore[attr-defined]
        self._defns[func].append(call, fndesc.argtypes)


class _Lowering(lowering.Lower):
    def lower_assign(self, ty: Any, inst: Any) -> Any:
        """Leaves out the address of a function that is handed on, which its type tells: no other process has it."""
        if isinstance(ty, types.Dispatcher) and isinstance(inst.value, numba_ir.Global | numba_ir.FreeVar):
            return self.context.get_constant_undef(ty)
        return super().lower_assign(ty, inst)


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(typed_passes.NativeLowering):
    """To LLVM's language, but no further."""

    _name = "elman_part_lowering"
    lowering_class = _Lowering

    def run_pass(self, state: Any) -> bool:
        state.targetctx = _Context.like(state.targetctx)
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        # Numba knows a compiled function by the built-in that Python calls it by, which has to be one of a kind.
        stand_in: Any = [].append
        state.targetctx.insert_user_function(stand_in, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=stand_in)
        return True


class PartCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        """Numba's, without those for what no kernel contains: closures, `with`, raise, parallel loops, ..."""
        passes = PassManager("elman")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            typed_passes.NopythonTypeInference,
            _PartLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


_found: dict[Any, Any] = {}  # what calls are: by function and types of arguments, and attributes: by type and name


def _remembered(resolve: Any) -> Any:
    def remembered(kind: Any, what: Any, keywords: Any = None) -> Any:
        key = kind, what if isinstance(what, str) else tuple(what), tuple(keywords.items()) if keywords else None
        if _found.get(key) is None:
            _found[key] = resolve(kind, what) if keywords is None else resolve(kind, what, keywords)
        return _found[key]

    return remembered


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Numba without what it does again and again.

    It looks for new extensions, and it tries all that it knows of to find out what a call or an attribute is of some
    types, of which nine in ten have come before.
    """
    typing, target = cpu_target.typing_context, cpu_target.target_context
    target.refresh()
    changes = [(context, "refresh", lambda: None) for context in (typing, target)]
    for name in ("resolve_function_type", "resolve_getattr"):
        changes.append((typing, name, _remembered(getattr(typing, name))))
    for context, name, function in changes:
        setattr(context, name, function)
    try:
        yield
    finally:
        for context, name, _ in changes:
            delattr(context, name)


def whole(name: str, level: int, emit: Callable[[Any, Any], Any]) -> Whole:
    """The code of a C function without arguments, which returns what `emit(context, builder)` emits: an address."""
    context = _Context.like(cpu_target.target_context)
    with global_compiler_lock, _quick():
        library = Whole(context.codegen(), name)
        library.level = level
        library.enable_object_caching()
        module = library.create_ir_module(name)
        function = ir.Function(module, ir.FunctionType(ir.IntType(64), []), name)
        builder = ir.IRBuilder(function.append_basic_block())
        with context.push_code_library(library):
            builder.ret(emit(context, builder))
        library.add_ir_module(module)
        library.finalize()
    return library
