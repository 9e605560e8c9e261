"""Measurements as a text to read (tables in Markdown), as JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from elman.backends import NAMES
from elman.benchmark.machine import Machine
from elman.benchmark.measure import Measurement, Result
from elman.benchmark.workloads import WHAT, Workload

FORMAT = "elman bench 1"  # of the JSON
_MB = 1 << 20
_QUIET = 0.1  # cores: what other programs may use before it is mentioned


def machine_text(machine: Machine) -> str:
    """The machine, in some lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    speeds = [f"{machine.bandwidth(size):.0f} GB/s from {size / _MB:g} MiB" for size in (_MB // 16, _MB, 64 * _MB)]
    return (
        f"{machine.cpu}, {machine.n_cores} cores, {machine.instruction_set}; {machine.n_threads} threads "
        f"(NumPy's matrix product: {machine.blas_threads}).\n"
        f"Peak {machine.peak:.0f} GFLOP/s (multiply-adds in registers); NumPy's matrix product at 2048 "
        f"{machine.product:.0f} GFLOP/s; reads {', '.join(speeds)}.\n"
        f"Versions: {versions}."
    )


def table(measurements: Sequence[Measurement], machine: Machine, backends: Sequence[str]) -> str:
    """A Markdown table for each kind of workload: a line for each shape and backend, ratios over all other contestants.

    A ratio is how many times as long the other takes.
    """
    parts = []
    for title, group in _grouped(measurements).items():
        timed = [name for m in group for name, result in m.results.items() if name not in backends and result.times]
        # what was timed beside a backend goes into one column for all of them
        others = list(dict.fromkeys(name.partition(" ")[2] if name.split()[0] in backends else name for name in timed))
        is_small = all(measurement.work.is_single for measurement in group)  # where speed is not a matter of FLOP/s
        sizes = "T,B,I,H,O" if group[0].work.n_labels else "T,B,I,H"
        head = [sizes, "backend", f"{'µs' if is_small else 'ms'} (quartiles)", *(f"over {name}" for name in others)]
        speeds = [] if is_small else ["GFLOP/s", "of roofline"]
        lines = [_line(m, m.results[name], others, None if is_small else machine) for m in group for name in backends]
        parts.append(f"{title}\n\n{markdown([head + speeds, *lines])}")
    return "\n\n".join(parts)


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    """What disturbed the measurement, and what was not timed: wrong results one by one, what one cannot do once."""
    lines: dict[str, None] = {}  # without repetitions, in order
    for measurement in measurements:
        if (measurement.others or 0) > _QUIET:
            used = f"{measurement.others:.1f} cores were busy with other programs during {label(measurement.work)}"
            lines[f"NOT QUIET: {used}. Threads that wait for each other lose most: do not trust its ratios."] = None
        for result in measurement.results.values():
            if result.is_wrong:
                lines[f"WRONG: {result.contestant} at {measurement.work.sizes}: {result.problem}"] = None
            elif result.problem:
                lines[f"{result.contestant} left out: {result.problem}."] = None
    return list(lines)


def as_json(measurements: Sequence[Measurement], machine: Machine, budget: float = 0.0) -> dict[str, Any]:
    """All numbers; times in seconds, one for each round.

    Examples
    --------
    >>> machine = Machine("a cpu", 2, "avx2", 2, "2", {}, 100.0, 80.0, {1024: 50.0})
    >>> list(as_json([], machine))
    ['format', 'budget', 'machine', 'measurements']
    """
    entries = []
    for measurement in measurements:
        work = {**asdict(measurement.work), "shape": list(measurement.work.shape)}
        results = [asdict(one) | _speeds(measurement.work, one, machine) for one in measurement.results.values()]
        more = {"flops": measurement.work.flops, "others": measurement.others, "yardstick": measurement.yardstick}
        entries.append({**work, **more, "results": results})
    return {"format": FORMAT, "budget": budget, "machine": asdict(machine), "measurements": entries}


def write_json(path: Path, measurements: Sequence[Measurement], machine: Machine, budget: float) -> None:
    path.write_text(json.dumps(as_json(measurements, machine, budget), indent=1) + "\n", encoding="utf-8")


def plot(path: Path, measurements: Sequence[Measurement], machine: Machine, backends: Sequence[str]) -> None:
    """Write a PNG. Needs matplotlib.

    Where workloads differ in one size only, times over that size; otherwise how many times as long others take, and
    speeds beside their roofline.
    """
    from matplotlib.figure import Figure

    size = _varied_size(measurements)
    if size is not None:
        figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
        _draw_times(figure.subplots(), measurements, size, backends[0])
    else:
        figure = Figure(figsize=(13, 1.5 + 0.45 * max(6, len(measurements))), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_ratios(left, measurements, backends[0], backends)
        _draw_speeds(right, measurements, machine, backends)
    figure.savefig(path, format="png")


def _varied_size(measurements: Sequence[Measurement]) -> int | None:
    """Which of T, B, I, H (0 to 3) is all that these workloads differ in; None if there is no such size."""
    works = [measurement.work for measurement in measurements]
    if len(works) < 3 or len({replace(work, shape=works[0].shape) for work in works}) > 1:
        return None
    varied = [i for i, sizes in enumerate(zip(*(work.shape for work in works), strict=True)) if len(set(sizes)) > 1]
    return varied[0] if len(varied) == 1 else None


def _draw_times(axes: Any, measurements: Sequence[Measurement], size: int, backend: str) -> None:
    """A line for each contestant; on those of the others, how many times as long they take."""
    measurements = sorted(measurements, key=lambda measurement: measurement.work.shape[size])
    for name in dict.fromkeys(name for m in measurements for name in m.results):
        timed = [m for m in measurements if m.results.get(name, Result(name)).times]
        sizes = [m.work.shape[size] for m in timed]
        times = [1e3 * m.results[name].quartiles[1] for m in timed]
        axes.plot(sizes, times, "o-", label=f"elman ({name})" if name in NAMES else name)
        for x, y, measurement in zip(sizes, times, timed, strict=True):
            own = measurement.results[backend]
            if name not in NAMES and own.times:
                label = f"{measurement.results[name].ratio_to(own):.1f}×"
                axes.annotate(label, (x, y), xytext=(0, 8), textcoords="offset points", ha="center")
    work = measurements[0].work
    fixed = [f"{name} = {n}" for i, (name, n) in enumerate(zip("TBIH", work.shape, strict=True)) if i != size]
    axes.set(xscale="log", yscale="log", ylabel=f"ms per {'call' if work.is_model else 'pass'}")
    axes.set_xlabel(("time steps T", "batch B", "inputs I", "hidden units H")[size] + f"   ({', '.join(fixed)})")
    axes.set_xticks(sizes := [m.work.shape[size] for m in measurements], map(str, sizes))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_ratios(axes: Any, measurements: Sequence[Measurement], backend: str, backends: Sequence[str]) -> None:
    others = list(dict.fromkeys(name for m in measurements for name in m.results if name not in backends))
    height = 0.8 / max(1, len(others))
    for i, other in enumerate(others):
        places, ratios = [], []
        for place, measurement in enumerate(measurements):
            own, theirs = measurement.results[backend], measurement.results.get(other)
            if own.times and theirs is not None and theirs.times:
                places.append(place + (i - (len(others) - 1) / 2) * height)
                ratios.append(theirs.ratio_to(own))
        # to the left where it is faster
        axes.barh(places, [ratio - 1 for ratio in ratios], height, left=1, label=other)
    axes.axvline(1, color="black", lw=1)
    axes.set(xscale="log", xlabel=f"time over that of elman ({backend})")
    axes.set_yticks(range(len(measurements)), [label(measurement.work) for measurement in measurements])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3, which="both")
    if others:
        _legend_above(axes, len(others))


def _draw_speeds(axes: Any, measurements: Sequence[Measurement], machine: Machine, backends: Sequence[str]) -> None:
    places = range(len(measurements))
    rooflines = [m.work.flops / machine.roofline(m.work) / 1e9 for m in measurements]
    axes.barh(places, rooflines, 0.8, color="lightgray", label="roofline")
    for backend in backends:
        timed = [(place, m) for place, m in enumerate(measurements) if m.results[backend].times]
        if timed:
            speeds = [m.work.flops / m.results[backend].quartiles[1] / 1e9 for _, m in timed]
            axes.plot(speeds, [place for place, _ in timed], "o", label=f"elman ({backend})")
    axes.set(xlabel="GFLOP/s")
    axes.set_yticks(places, [])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    _legend_above(axes, 1 + len(backends))


def _legend_above(axes: Any, n_columns: int) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=n_columns, frameon=False)


def label(work: Workload) -> str:
    """The sizes of a workload, and what is computed if that is not a pass forward and backward."""
    return work.sizes + ("" if work.what == "both" else f" {work.what}")


def _grouped(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by what was computed, in words."""
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        work = measurement.work
        extras = [f"{work.num_layers} layers"] * (work.num_layers > 1) + ["bidirectional"] * work.bidirectional
        extras += [f"dropout {work.dropout:g}"] * (work.dropout > 0) + [f"{work.models} models"] * (work.models > 1)
        extras += [f"leak {work.leak:g}"] * (work.leak < 1)
        extras += [f"noise {work.noise:g} (none where results are compared)"] * (work.noise > 0)
        title = ", ".join([f"**{WHAT[work.what]}**", work.nonlinearity, work.dtype, *extras])
        groups.setdefault(title, []).append(measurement)
    return groups


def _line(measurement: Measurement, own: Result, others: list[str], machine: Machine | None) -> list[str]:
    """Cells of a table; without a machine, times in microseconds, and no speeds."""
    head, n_speeds = [measurement.work.sizes, own.contestant], 2 if machine else 0
    if not own.times:
        return [*head, "WRONG" if own.is_wrong else "-", *[""] * (len(others) + n_speeds)]
    lower, median, upper = (_significant((1e3 if machine else 1e6) * seconds) for seconds in own.quartiles)
    ratios = []
    for name in others:
        theirs = measurement.results.get(f"{own.contestant} {name}") or measurement.results.get(name) or Result(name)
        ratios.append(f"{theirs.ratio_to(own):.2f}×" if theirs.times else "WRONG" if theirs.is_wrong else "-")
    speeds = _speeds(measurement.work, own, machine) if machine else {}
    shown = [f"{speeds['gflops']:.0f}", f"{speeds['share']:.0%}"] if speeds else []
    return [*head, f"{median} ({lower}–{upper})", *ratios, *shown]


def _speeds(work: Workload, result: Result, machine: Machine) -> dict[str, float]:
    if not result.times:
        return {}
    median = result.quartiles[1]
    return {"median": median, "gflops": work.flops / median / 1e9, "share": machine.roofline(work) / median}


def _significant(value: float) -> str:
    """Three digits that count: 0.0123, 1.23, 12.3, 123, 1234."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Seconds to read.

    Examples
    --------
    >>> duration(12.34e-6), duration(0.0321), duration(1.5)
    ('12.3 µs', '32.1 ms', '1.50 s')
    """
    scale, unit = (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
    return f"{_significant(scale * seconds)} {unit}"


def markdown(rows: list[list[str]], n_texts: int = 2) -> str:
    """A table whose first row is its head; all columns behind the first n are numbers.

    Examples
    --------
    >>> print(markdown([["shape", "ms"], ["7,5", "0.1"]], n_texts=1))
    | shape |  ms |
    | ----- | --: |
    | 7,5   | 0.1 |
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if i < n_texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = zip(row, widths, strict=True)
        lines.append(" | ".join(c.ljust(n) if i < n_texts else c.rjust(n) for i, (c, n) in enumerate(cells)))
    return "\n".join(f"| {line} |" for line in lines)
