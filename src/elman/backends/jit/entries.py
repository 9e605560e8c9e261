"""What Python calls, for addresses: of tables of tiles, and of functions as C calls them (csrc/elman.h).

Python calls no kernel itself: the door of `native.pyx` does, for all kernels, once it has these addresses.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from elman.backends.jit import optimizers, readout, recurrence
from elman.backends.jit.options import entry, pass_entry, tile_entry
from elman.backends.jit.simd import Address, Lanes, Site, emitted
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


@emitted
def _address(at: Site, v: Lanes, name: types.Literal) -> Address:
    return emit_address(at.context, at.builder, v, types.Dispatcher(FUNCTIONS[name]))


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
