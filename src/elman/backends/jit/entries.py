"""What Python calls, for addresses: of tables of tiles, and of functions as C calls them (csrc/elman.h).

Python calls no kernel itself: the door of `native.pyx` does, for all kernels, once it has these addresses.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from elman.backends.jit import optimizers, readout, recurrence
from elman.backends.jit.options import entry, pass_entry, tile_entry
from elman.backends.jit.simd import Address
from elman.backends.jit.structs import emit_address
from elman.backends.jit.tile import tile_table

PASSES = {"forward": recurrence.forward, "backward": recurrence.backward}
FUNCTIONS = {  # those of elman_kernels, and the tasks of optimizers' rules
    **PASSES,
    "readout": readout.readout,
    "readout_loss": readout.readout_loss,
    "clip_norm": optimizers.clip_norm,
    **optimizers.RULES,
}


@intrinsic(prefer_literal=True)
def _address(typingctx: Any, v: Any, name: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return emit_address(context, builder, sig.args[0], types.Dispatcher(FUNCTIONS[sig.args[1].literal_value]))

    return types.int64(v, name), emit


@pass_entry
def of_pass(v: Any, name: str) -> Address:
    """The address of one of `PASSES`; names are literal types, here and below."""
    return _address(v, name)


@entry
def of_function(v: Any, name: str) -> Address:
    """That of another one of `FUNCTIONS`."""
    return _address(v, name)


@tile_entry
def of_tiles(v: Any, modes: str) -> Address:
    """That of a table of tiles."""
    return tile_table(v, modes)
