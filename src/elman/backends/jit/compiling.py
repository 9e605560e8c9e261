"""A Numba compiler for many small functions that make up a few large ones: LLVM sees each of them once.

Numba makes every function a library of its own: optimised, turned into machine code, linked into each of its callers,
and optimised and turned into machine code there again. For the 70 functions that the passes are made of, that is most
of the time that compiling takes. Here a part's library only holds what Numba made of the function; what Python
wants, the library of a whole, collects its parts, theirs and so on, and is optimised at once.

This uses Numba's compiler pipeline, which may change with its versions; tests/kernels/test_jit.py fails where it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import ir as numba_ir
from numba.core import lowering, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
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
        vectorize = self.level > 1
        if self.level:
            manager, builder = self._codegen._module_pass_manager(
                opt=self.level, loop_vectorize=vectorize, slp_vectorize=vectorize
            )
            manager.run(self._final_module, builder)


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
            untyped_passes.IRProcessing,
            untyped_passes.GenericRewrites,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            typed_passes.AnnotateTypes,
            _PartLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


def whole(name: str, level: int, emit: Callable[[Any, Any], Any]) -> Whole:
    """The code of a C function without arguments, which returns what `emit(context, builder)` emits: an address."""
    context = cpu_target.target_context
    with global_compiler_lock:
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
