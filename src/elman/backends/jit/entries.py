"""What Python calls, for addresses: of tables of tiles, and of the functions of elman_kernels (csrc/elman.h).

Python calls no kernel itself: the door of `native.pyx` does, for all kernels, once it has these addresses.
"""

from __future__ import annotations

from typing import Any

from elman.backends.jit import optimizers, recurrence
from elman.backends.jit import readout as _readout
from elman.backends.jit.options import entry, pass_entry, tile_entry
from elman.backends.jit.simd import Address
from elman.backends.jit.structs import c_function
from elman.backends.jit.tile import column_tile_table, tile_table

_forward, _backward = recurrence.forward, recurrence.backward
_outputs, _loss, _clip_norm = _readout.readout, _readout.readout_loss, optimizers.clip_norm


@tile_entry
def tiles(v: Any) -> Address:
    return tile_table(v)


@tile_entry
def column_tiles(v: Any) -> Address:
    return column_tile_table(v)


@pass_entry
def forward(v: Any) -> Address:
    return c_function(v, _forward)


@pass_entry
def backward(v: Any) -> Address:
    return c_function(v, _backward)


@entry
def readout(v: Any) -> Address:
    return c_function(v, _outputs)


@entry
def readout_loss(v: Any) -> Address:
    return c_function(v, _loss)


@entry
def clip_norm(v: Any) -> Address:
    return c_function(v, _clip_norm)
