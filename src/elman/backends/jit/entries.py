"""What is compiled as a whole: tables of tiles, and functions as C calls them (csrc/elman.h).

Python calls no kernel itself: the door of `native.pyx` does, once it has these addresses.
"""

from __future__ import annotations

from typing import Any

from elman.backends.jit import optimizers, readout, recurrence
from elman.backends.jit.activations import emit_epilogues, functions_of
from elman.backends.jit.compiling import whole
from elman.backends.jit.simd import Lanes
from elman.backends.jit.structs import emit_address
from elman.backends.jit.tile import emit_table

FUNCTIONS = {  # those of elman_kernels, and the tasks of optimizers' rules
    "forward": recurrence.forward,
    "backward": recurrence.backward,
    "readout": readout.readout,
    "readout_loss": readout.readout_loss,
    "clip_norm": optimizers.clip_norm,
    **{("update", name): rule for name, rule in optimizers.RULES.items()},
}


def compiled(name: str, v: Lanes, what: Any) -> Any:
    """The library (compiling.py) of a function that returns the address of what a `native.Door` asks for."""
    if what in ("own", "gradients"):
        return whole(name, _tile_level(v), lambda _, builder: emit_table(builder, v, what))
    if what in FUNCTIONS:
        # A pass calls tiles and epilogues and does little itself: level 3 would take half as long again.
        level = 1 if what in ("forward", "backward") else 3
        return whole(name, level, lambda context, builder: emit_address(context, builder, v, FUNCTIONS[what]))
    cell, functions = what[0], functions_of(what[1])
    return whole(name, 3, lambda context, builder: emit_epilogues(context, builder, v, cell, functions))


def _tile_level(v: Lanes) -> int:
    """A tile is emitted as it should be; but without free masks its loop has a branch, of which level 3 makes two."""
    return 0 if v.masks_are_free else 3
