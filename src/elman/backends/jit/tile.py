"""The micro-kernel: a tile of rows x vectors, its sums in registers, emitted as LLVM IR for every size.

It is `tile` of csrc/tile.h. Accumulators start from `init` and run over k ascending, one multiply-add for each k; in
the IR they are the loop's phi nodes, so LLVM has no choice but to keep them in registers. Each is a C function

    void tile(left, init, out, right, depth, step, column, columns, ahead, ahead_step, soon, n_soon)

all 12 arguments being 64-bit: lists of the rows' addresses, the address of right, the number of k; the bytes from one k
of right to the next (PACKED, DIRECT) or the tile's first column of left (COLUMNS); the tile's columns of init and out;
PACKED: the address of what is needed next, of which a line is asked for with each k, so many bytes after the last one;
and a list of n_soon rows, none or at least 2, for each of out, the first of which the next product writes and the
others reads, at these columns.

`python -m elman.backends.jit.tile HEIGHT WIDTH` prints the IR of one.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir

from elman.backends.jit import simd
from elman.backends.jit.simd import INT64, Lanes, Site, emitted

MAX_WIDTH = 8
MAX_NARROW_WIDTH = 4  # in mode COLUMNS
MAX_HEIGHT = 8
PACKED, DIRECT, COLUMNS = range(3)  # left[row][k] and right in a panel; in place; left[k][first + row]

_OPERANDS = "left", "init", "out", "right", "depth", "step", "column", "columns"
_ARGUMENTS = (*_OPERANDS, "ahead", "ahead_step", "soon", "n_soon")
TILE_TYPE = ir.FunctionType(ir.VoidType(), [INT64] * len(_ARGUMENTS))

# Tallest tile for a width: accumulators, the shorter side's numbers of one k and one of the other side's fit 32
# registers, or 16.
_TALLEST_OF_32 = (8, 8, 8, 6, 5, 4, 3, 2)
_TALLEST_OF_16 = (8, 6, 4, 3, 2, 2, 1, 1)


def tallest_tiles(lanes: Lanes) -> tuple[int, ...]:
    """By width - 1; in all modes, as no wheel carries them: C's DIRECT has lower ones."""
    has_32_registers = lanes.width == 64 or (lanes.width == 16 and lanes.fused)  # AVX-512, NEON
    return _TALLEST_OF_32 if has_32_registers else _TALLEST_OF_16


def reads_panels(lanes: Lanes, mode: int) -> bool:
    """Where masks are free, a tile that reads right in place reads panels as fast: half to compile."""
    return mode == PACKED or (mode == DIRECT and lanes.masks_are_free)


def emit_tile(module: Any, lanes: Lanes, mode: int, width: int, height: int) -> Any:
    """The function for one size, added to an LLVM module."""
    name = f"tile_{('packed', 'direct', 'columns')[mode]}_{width}_{height}"
    function = ir.Function(module, TILE_TYPE, name)
    function.linkage = "internal"
    for argument, label in zip(function.args, _ARGUMENTS, strict=True):
        argument.name = label
    left, init, out, right, depth, step, column, columns, ahead, ahead_step, soon, n_soon = function.args
    start = function.append_basic_block("start")
    loop = function.append_basic_block("loop")
    end = function.append_basic_block("end")
    builder = ir.IRBuilder(start)
    rows, vectors, size = range(height), range(width), INT64(lanes.size)

    def row_of(rows: Any, r: Any) -> Any:
        return builder.load(simd.emit_pointer(builder, INT64, rows, r), align=8)

    def at(address: Any, v: int) -> Any:
        return builder.add(address, INT64(v * lanes.width)) if v else address

    # the sums' initial values, those of the last vector in part
    rest = simd.Rest(builder, lanes, builder.sub(columns, INT64((width - 1) * lanes.n), "rest"))
    load_rest = rest.load_part if lanes.masks_are_free else rest.load
    offset = builder.mul(column, size)
    sums = []
    for r in rows:
        row = builder.add(row_of(init, INT64(r)), offset)
        whole = [simd.emit_load(builder, lanes, at(row, v)) for v in vectors[:-1]]
        sums.append([*whole, load_rest(builder, at(row, width - 1))])
    left_rows = [row_of(left, INT64(r)) for r in rows] if mode != COLUMNS else []
    first_row = builder.mul(step, size) if mode == COLUMNS else None
    # what goes from one k to the next, and in PACKED from one stretch of k to the next
    begin, before, k_end = [INT64(0), right, *(one for row in sums for one in row)], builder.block, depth
    stretches = None
    if reads_panels(lanes, mode):
        stretches = _Stretches(builder, height, depth, n_soon, begin)
        stretches.emit_asking(builder, width * lanes.width, soon, n_soon, offset)
        begin, before, k_end = stretches.phis, builder.block, stretches.k_end
    builder.branch(loop)

    # for each k
    builder.position_at_end(loop)
    names = ["k", "right_k", *(f"sum_{r}_{v}" for r in rows for v in vectors)]
    phis = [builder.phi(one.type, name) for one, name in zip(begin, names, strict=True)]
    k, right_k, *flat = phis
    accumulators = [flat[r * width : (r + 1) * width] for r in rows]
    left_k = builder.add(row_of(left, k), first_row) if mode == COLUMNS else None
    if reads_panels(lanes, mode):
        simd.emit_prefetch(builder, builder.add(ahead, builder.mul(k, ahead_step)))

    def left_of(r: int) -> Any:
        where = (left_k, INT64(r)) if mode == COLUMNS else (left_rows[r], k)
        number = builder.load(simd.emit_pointer(builder, lanes.ir_real, *where), align=lanes.size)
        return simd.emit_splat(builder, lanes.ir_vector, number)

    def right_of(v: int) -> Any:
        is_part = mode == DIRECT and v == width - 1
        return load_rest(builder, at(right_k, v)) if is_part else simd.emit_load(builder, lanes, at(right_k, v))

    def product(r: int, v: int, left_rk: Any, right_kv: Any) -> Any:
        return simd.emit_fma(builder, lanes, left_rk, right_kv, accumulators[r][v])

    # The shorter side's numbers stay in registers, those of the other are loaded one after the other.
    if height < width:
        kept = [left_of(r) for r in rows]
        by_vector = [[product(r, v, kept[r], right_kv) for r in rows] for v in vectors for right_kv in [right_of(v)]]
        results = [list(row) for row in zip(*by_vector, strict=True)]
    else:
        kept = [right_of(v) for v in vectors]
        results = [[product(r, v, left_rk, kept[v]) for v in vectors] for r in rows for left_rk in [left_of(r)]]
    k_next = builder.add(k, INT64(1))
    right_next = builder.add(right_k, INT64(width * lanes.width) if mode == COLUMNS else step)
    following = [k_next, right_next, *(one for row in results for one in row)]
    for phi, first, next_one in zip(phis, begin, following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next_one, builder.block)
    is_more = builder.icmp_signed("<", k_next, k_end)
    again = builder.cbranch(is_more, loop, stretches.end if stretches else end)
    again.set_metadata("llvm.loop", _not_unrolled(module))
    if stretches:
        stretches.emit_end(builder, following, end)

    builder.position_at_end(end)
    for r in rows:
        row = builder.add(row_of(out, INT64(r)), offset)
        for v in vectors[:-1]:
            simd.emit_store(builder, lanes, at(row, v), results[r][v])
        rest.store(builder, at(row, width - 1), results[r][-1])
    builder.ret_void()
    return function


class _Stretches:
    """A loop around that over k: as many stretches of it as there are rows whose successors are asked for, or one.

    Asking for all of them at once would hold the tile up.
    """

    def __init__(self, builder: Any, height: int, depth: Any, n_soon: Any, begin: list[Any]) -> None:
        blocks = "stretch", "ready", "stretched"
        self._head, self._ready, self.end = (builder.append_basic_block(name) for name in blocks)
        is_deep = builder.icmp_signed(">=", depth, INT64(height))  # each of them has a k
        self._asks = builder.and_(is_deep, builder.icmp_signed("!=", n_soon, INT64(0)))
        count, before = builder.select(self._asks, INT64(height), INT64(1)), builder.block
        builder.branch(self._head)
        builder.position_at_end(self._head)
        self._i, self.phis = builder.phi(INT64), [builder.phi(one.type) for one in begin]
        for phi, first in zip((self._i, *self.phis), (INT64(0), *begin), strict=True):
            phi.add_incoming(first, before)
        self._next = builder.add(self._i, INT64(1))
        self._is_more = builder.icmp_signed("<", self._next, count)
        own_end = builder.mul(builder.udiv(depth, INT64(height)), self._next)
        self.k_end = builder.select(self._is_more, own_end, depth)

    def emit_asking(self, builder: Any, n_bytes: int, soon: Any, n_soon: Any, offset: Any) -> None:
        """Ask for the successors of row i: the first one is to be written. The builder goes on behind that."""
        first, others = (builder.append_basic_block(name) for name in ("first", "others"))
        entry = builder.mul(self._i, n_soon)

        def ask(a: Any, *, is_written: bool) -> None:
            row = builder.load(simd.emit_pointer(builder, INT64, soon, builder.add(entry, a)), align=8)
            for line in range(0, n_bytes, 64):
                simd.emit_prefetch(builder, builder.add(row, builder.add(offset, INT64(line))), is_written=is_written)

        builder.cbranch(self._asks, first, self._ready)
        builder.position_at_end(first)
        ask(INT64(0), is_written=True)
        builder.branch(others)
        builder.position_at_end(others)
        a = builder.phi(INT64)
        ask(a, is_written=False)
        a_next = builder.add(a, INT64(1))
        a.add_incoming(INT64(1), first)
        a.add_incoming(a_next, others)
        builder.cbranch(builder.icmp_signed("<", a_next, n_soon), others, self._ready)
        builder.position_at_end(self._ready)

    def emit_end(self, builder: Any, following: list[Any], end: Any) -> None:
        """To the next stretch, or to the end."""
        builder.position_at_end(self.end)
        for phi, one in zip((self._i, *self.phis), (self._next, *following), strict=True):
            phi.add_incoming(one, self.end)
        builder.cbranch(self._is_more, self._head, end)


def _emit_tiles(module: Any, lanes: Lanes, mode: int) -> list[Any]:
    """A mode's tiles, [width - 1][height - 1], null where there is none."""
    entries = []
    for width in range(1, MAX_WIDTH + 1):
        tallest = tallest_tiles(lanes)[width - 1] if mode != COLUMNS or width <= MAX_NARROW_WIDTH else 0
        entries += [emit_tile(module, lanes, mode, width, height) for height in range(1, tallest + 1)]
        entries += [ir.Constant(TILE_TYPE.as_pointer(), None)] * (MAX_HEIGHT - tallest)
    return entries


def _not_unrolled(module: Any) -> Any:
    """Tells LLVM to leave a loop as it is: a second copy of the body made no tile faster and took time to compile."""
    name = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([name, name])
    loop.operands = (loop, name)  # by refering to itself it is no other loop's
    return loop


def _emit_table(module: Any, tables: list[list[Any]]) -> Any:
    """A constant list of addresses, table after table."""
    entries = [entry for table in tables for entry in table]
    kind = ir.ArrayType(TILE_TYPE.as_pointer(), len(entries))
    table = ir.GlobalVariable(module, kind, "tiles")
    table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, entries)
    return table


def emit_table(builder: Any, lanes: Lanes, what: str) -> Any:
    """The address of the tiles' addresses, [width - 1][height - 1], 0 where there is none.

    For "own" there are two such tables, [PACKED, DIRECT]; for "gradients", as backward passes need it, [COLUMNS].
    """
    module = builder.module
    if what == "gradients":
        return builder.ptrtoint(_emit_table(module, [_emit_tiles(module, lanes, COLUMNS)]), INT64)
    direct = _emit_tiles(module, lanes, DIRECT)
    packed = direct if reads_panels(lanes, DIRECT) else _emit_tiles(module, lanes, PACKED)
    return builder.ptrtoint(_emit_table(module, [packed, direct]), INT64)


@emitted
def tallest(at: Site, v: Lanes, width: int) -> int:
    """The tallest tile of a width, in rows."""
    module, kind = at.builder.module, ir.ArrayType(INT64, MAX_WIDTH)
    table = ir.GlobalVariable(module, kind, module.get_unique_name("tallest"))
    table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, [*tallest_tiles(v)])
    return at.builder.load(at.builder.gep(table, [INT64(0), at.builder.sub(width, INT64(1))]))


def print_ir(height: int, width: int) -> None:
    """The IR of one tile, for AVX-512 and float32, as LLVM gets it."""
    module = ir.Module("tile")
    emit_tile(module, Lanes("float32", 64, fused=True), PACKED, width, height)
    print(module)


if __name__ == "__main__":
    print_ir(*map(int, sys.argv[1:]))
