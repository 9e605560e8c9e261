"""What is divided how, and among how many threads: csrc/plan.h, where the reasons stand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import reals, size_of_real, width_of
from elman.backends.jit.structs import cache_size, larger, smaller, thread_limit, truncated
from elman.backends.jit.tile import DIRECT, MAX_WIDTH, PACKED, tallest

MAX_ROWS = 96  # of one product; a multiple of every tile height

MEETING = 500.0  # cycles, and for each cache line of states that another thread made:
EXCHANGE = 8.0
WORTH = 0.8  # parts have to be: they wait for each other


class Division(NamedTuple):
    """Of a right operand into panels, and the cycles that a product then takes."""

    panels: int
    cycles: float


class Sharing(NamedTuple):
    """A direction's rows are divided into shards, a shard's columns into parts; cycles of a step."""

    shards: int
    parts: int
    cycles: float


@kernel
def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


@kernel
def part(n: int, parts: int, i: int) -> int:
    """Part i of n things in `parts` nearly equal parts: its first thing."""
    return n // parts * i + smaller(i, n % parts)


@kernel
def tile_cycles(depth: int, width: int, height: int, is_near: bool) -> float:
    """A tile starts with a call and ends with its stores."""
    arithmetic, loads = 0.5 * (width * height), 0.5 * (width + height)
    far_loads, exposed = (0.0, 0.0) if is_near else (1.5 * width, 0.1 * width)
    near = arithmetic if arithmetic > loads else loads
    far = far_loads if far_loads > 4.0 else 4.0
    return ((near if near > far else far) + exposed) * depth + 20.0 + width * height


@kernel
def cycles_from_afar(v: Any, n_bytes: int) -> float:
    """Of a vector of a matrix of so many bytes."""
    if n_bytes > cache_size(3):
        return width_of(v) / 8.0
    return 1.3 if n_bytes > cache_size(2) // 4 * 3 else 0.0


@kernel
def panel_cycles(v: Any, depth: int, vectors: int, width: int, rows: int) -> float:
    """Of a panel's tiles, for rows (rows, depth) times a matrix of so many vectors."""
    tiles = ceil_div(rows, tallest(v, width))
    height, taller = rows // tiles, rows % tiles  # that many tiles are one row taller
    is_near = depth * (width if tiles > 1 else vectors) * width_of(v) <= cache_size(1)
    cycles = tile_cycles(depth, width, height, is_near) * (tiles - taller)
    if taller:
        cycles += tile_cycles(depth, width, height + 1, is_near) * taller
    return cycles + cycles_from_afar(v, depth * vectors * width_of(v)) * (width * depth)


@kernel
def cheapest_division(v: Any, depth: int, columns: int, rows: int, widest: int) -> Division:
    """Into panels of at most `widest` vectors, for products (rows, depth) (depth, columns)."""
    vectors = ceil_div(columns, reals(v))
    best, best_cycles = 1, np.inf
    widest = smaller(widest, vectors)  # wider ones would be the same
    while widest > 0:
        panels = ceil_div(vectors, widest)
        width, wider = vectors // panels, vectors % panels  # that many panels are one vector wider
        cycles = panel_cycles(v, depth, vectors, width, rows) * (panels - wider)
        if wider:
            cycles += panel_cycles(v, depth, vectors, width + 1, rows) * wider
        if cycles < 0.99 * best_cycles:
            best, best_cycles = panels, cycles
        widest -= 1
    return Division(best, best_cycles)


@kernel
def share_of(v: Any, columns: int, parts: int) -> int:
    """The columns of a product that one of `parts` threads makes."""
    return columns if parts == 1 else ceil_div(ceil_div(columns, reals(v)), parts) * reals(v)


@kernel
def threads_for(operations: float) -> int:
    threads = 1 + operations / 4e6
    return truncated(threads) if threads < thread_limit() else thread_limit()


@kernel
def mode_for(rows: int) -> int:
    return PACKED if rows > 8 else DIRECT


@kernel
def sharing_with(v: Any, layer: Any, threads: int, parts: int) -> Sharing:
    """The best with that many parts, or .parts = 0 if there are not enough threads."""
    each = ceil_div(threads, layer.D) if parts == 1 else larger(threads // (layer.D * parts), 1)
    shards = smaller(layer.B, each * ceil_div(layer.B, each * MAX_ROWS))
    rows, tasks = ceil_div(layer.B, shards), layer.D * shards * parts
    cycles = cheapest_division(v, layer.H, share_of(v, layer.H, parts), rows, MAX_WIDTH).cycles
    if parts == 1:
        return Sharing(shards, 1, cycles * ceil_div(tasks, threads))
    if tasks > threads or parts * reals(v) > layer.H:
        return Sharing(0, 0, 0.0)
    lines = rows * layer.H * size_of_real(v) / 64
    return Sharing(shards, parts, cycles + MEETING + EXCHANGE * lines)


@kernel
def best_sharing(v: Any, layer: Any, threads: int) -> Sharing:
    best = sharing_with(v, layer, threads, 1)
    for parts in range(2, threads // layer.D + 1):
        s = sharing_with(v, layer, threads, parts)
        if s.parts and s.cycles < (WORTH if best.parts == 1 else 1.0) * best.cycles:
            best = s
    return best
