"""Which path a layer's passes take through the compiled kernels, and why: the decisions of csrc/plan.h, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import backends
from elman.benchmark.workloads import Workload


def explain(work: Workload) -> str:
    """How forward and backward divide the work of a layer among threads, panels and tiles, as Markdown.

    All layers of a stack after the first have the outputs of the one before as inputs; this is about the first.

    Raises
    ------
    ValueError
        If the C kernels, whose decisions the backend "numba" shares, are not there.

    Examples
    --------
    >>> from elman.benchmark.workloads import Shape
    >>> explain(Workload(Shape(2, 1, 3, 16))).splitlines()[2].partition(",")[0]
    '**forward**: 1 thread'
    """
    native = backends.get("cython")
    first, second, last = map(_bytes, native.cache_sizes())
    caches = f"caches of {first}, {second} and {last}"
    most = native.get_num_threads()
    limit = f"at most {_count(most, 'thread')}"
    lines = [f"{work.shape}, {work.dtype}, {native.instruction_set()}, {caches}, {limit}"]
    for is_backward in (False, True):
        options = {
            "directions": work.architecture.n_directions,
            "dtype": work.dtype,
            "has_tokens": work.has_tokens,
            "is_backward": is_backward,
        }
        best = native.plan(*work.shape, **options)
        others = (native.plan(*work.shape, **options, parts=parts) for parts in range(1, best["threads"] + 1))
        lines += ["", *_pass(work, best, [plan for plan in others if plan], is_backward=is_backward, most=most)]
    return "\n".join([*lines, "", _CYCLES])


_CYCLES = (
    "Cycles are those of the cost model (csrc/plan.h): of the product with weight_hh alone, on a core with two "
    "multiply-adds at a time. Threads that share columns wait for each other, so that has to save a fifth of them."
)


def _bytes(n: int) -> str:
    if n < 1 << 10:
        return f"{n} bytes"
    return f"{n / (1 << 20):.3g} MiB" if n >= 1 << 20 else f"{n >> 10} KiB"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' * (n != 1)}"


def _pass(
    work: Workload, plan: dict[str, Any], candidates: list[dict[str, Any]], *, is_backward: bool, most: int
) -> list[str]:
    n_steps, n_rows, n_inputs, n_units = work.shape
    multiply_adds = 2 * n_units + n_inputs if is_backward else n_units + (1 if work.has_tokens else n_inputs)
    operations = 2 * n_steps * n_rows * work.architecture.n_outputs * multiply_adds
    lines = [f"**{'backward' if is_backward else 'forward'}**: {_threads(plan['threads'], operations, most)}"]
    lines += [f"- {_sharing(work, plan)}", f"- {_product(work, plan, is_backward=is_backward)}"]
    if is_backward:
        lines.append(
            f"- parameters' gradients: summed over {plan['block_steps']} steps at a time, while these are in cache"
        )
    lines += [
        "",
        "| threads for the columns | rows each | vectors × rows of a tile | cycles per step |",
        "|-:|-:|-:|-:|",
    ]
    for candidate in candidates:
        chosen = " (chosen)" if candidate["parts"] == plan["parts"] else ""
        tile = f"{candidate['width']} × {candidate['height']}"
        lines.append(f"| {candidate['parts']}{chosen} | {candidate['rows']} | {tile} | {candidate['cycles']:.0f} |")
    return lines


def _threads(n_threads: int, operations: int, most: int) -> str:
    if most == 1:
        return "1 thread, as there are to be no more"
    if n_threads == 1:
        return f"1 thread, as {operations} operations are not worth a second one"
    return f"{n_threads} threads for {operations:.2g} operations"


def _sharing(work: Workload, plan: dict[str, Any]) -> str:
    shards = f"{_count(plan['shards'] * work.architecture.n_directions, 'shard')} of {_count(plan['rows'], 'row')}"
    if plan["parts"] > 1:
        return (
            f"rows: {shards}; {plan['parts']} threads share the columns of one, "
            "and meet after each step: so much less of weight_hh to read for each"
        )
    return f"rows: {shards}, through all time steps without waiting for each other"


def _product(work: Workload, plan: dict[str, Any], *, is_backward: bool) -> str:
    size = work.shape.n_units**2 * np.dtype(work.dtype).itemsize
    how = "packed once" if plan["is_packed"] else "read in place: too few rows to be worth packing"
    transposed = "transposed and " if is_backward and plan["is_packed"] else ""
    share = " for each thread" if plan["parts"] > 1 else ""
    panels = f"{_count(plan['panels'], 'panel')} of up to {_count(plan['width'], 'vector')}{share}"
    tiles = f"{_count(plan['tiles'], 'tile')} of up to {_count(plan['height'], 'row')}"
    return f"weight_hh: {_bytes(size)}, {transposed}{how}; {panels}, each in {tiles}"
