"""A Numba compiler for many small functions that make up a few large ones: LLVM sees each of them once.

Numba makes every function a library of its own: optimised, turned into machine code, linked into each of its callers,
and optimised and turned into machine code there again. For the 70 functions that the passes are made of, that is most
of the time that compiling takes. Here a part's library only holds what Numba made of the function; an entry's library
collects its parts, theirs and so on, and is optimised as a whole.

This uses Numba's compiler pipeline, which may change with its versions; tests/kernels/test_jit.py fails where it does.
"""

from __future__ import annotations

from typing import Any

from numba.core import ir, lowering, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager, register_pass


class _Library(JITCodeLibrary):
    def _optimize_functions(self, ll_module: Any) -> None:
        """Leaves it to the optimisation of the whole."""
        ll_module.data_layout = self._codegen._data_layout


class _PartLibrary(_Library):
    """Only ever linked into an entry's library."""

    def finalize(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        return self._final_module


class _EntryLibrary(_Library):
    """Numba's own round for counts of references is left out: there are none."""

    level = 3  # of LLVM's optimisation; 0: none

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
        """Leaves out the address of a function that is handed on, which is known by its type.

        Code with an address of this process in it is not kept on disk, unless LLVM finds that nobody reads the address,
        which it does since Numba 0.66.
        """
        if isinstance(ty, types.Dispatcher) and isinstance(inst.value, ir.Global | ir.FreeVar):
            return self.context.get_constant_undef(ty)
        return super().lower_assign(ty, inst)


class _NativeLowering(typed_passes.NativeLowering):
    lowering_class = _Lowering


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(_NativeLowering):
    """To LLVM's language, but no further."""

    _name = "elman_part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        # Numba knows a compiled function by the built-in that Python calls it by, which has to be one of a kind.
        stand_in: Any = [].append
        state.targetctx.insert_user_function(stand_in, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=stand_in)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _EntryLowering(_NativeLowering):
    """To machine code, at the level of LLVM's optimisation that the function asks for (options.entry)."""

    _name = "elman_entry_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _EntryLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.level = state.func_id.func.level_for(state.args[0])
        state.library.enable_object_caching()
        return bool(super().run_pass(state))


def _passes(lowering: Any) -> list[Any]:
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
        lowering,
        typed_passes.NoPythonBackend,
    ):
        passes.add_pass(step, step.__name__)
    passes.finalize()
    return [passes]


class PartCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        return _passes(_PartLowering)


class EntryCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        return _passes(_EntryLowering)
