"""What became slower since an earlier `elman bench --json`, beyond noise.

Machines lend their cores out and change their clocks, so times are taken relative to a yardstick: multiply-adds in
registers, on one thread, timed in the same round. Code that elman's backends share with one another is no yardstick: it
may be what became slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elman import backends, check
from elman.backends.reference import ACTIVATIONS
from elman.benchmark.machine import Machine
from elman.benchmark.measure import Measurement, Result
from elman.benchmark.report import FORMAT, duration, label, markdown
from elman.benchmark.workloads import WHAT, Shape, Workload

Times = Sequence[float]  # in seconds, one for each round

MARGIN = 0.05  # relative: what is less is nobody's concern, however little noise there is


class Earlier(NamedTuple):
    """What a file of `elman bench --json` holds."""

    path: Path
    machine: Machine
    budget: float
    measurements: dict[Workload, Measurement]

    def timed(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those contestants that were."""
        return tuple(name for name in names if any(self.was_timed(work, name) for work in self.measurements))

    def was_timed(self, work: Workload, name: str) -> bool:
        """Whether a contestant was, on a workload."""
        return work in self.measurements and bool(self.measurements[work].results.get(name, Result(name)).times)

    def check_common(self, workloads: Sequence[Workload], names: Sequence[str]) -> None:
        """Raise a ValueError if there is nothing to compare."""
        if not any(self.was_timed(work, name) for work in workloads for name in names):
            check.refuse(f"{self.path} has no times of {', '.join(names)} for any of these workloads")


def read(path: Path) -> Earlier:
    """What `elman bench --json` has written.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, of another version, or of another program.
    """
    expected = f"{path} must be a file of `elman bench --json`, of format {FORMAT!r}"
    try:
        found = json.loads(path.read_bytes())
        version = found.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{expected}, but is another one or damaged: {error}") from error
    if version != FORMAT:
        raise ValueError(f"{expected}, got {version!r}")
    try:
        machine = found["machine"]
        check.positive_int(machine["n_threads"], "n_threads")
        machine["bandwidths"] = {int(size): speed for size, speed in machine["bandwidths"].items()}
        measurements = {m.work: m for m in map(_measurement, found["measurements"])}
        str(machine["versions"]["elman"])
        return Earlier(path, Machine(**machine), check.non_negative(found["budget"], "budget"), measurements)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _measurement(entry: dict[str, Any]) -> Measurement:
    # an older file has no field that came later: then, all was as the default says
    options = {field.name: entry.get(field.name, field.default) for field in fields(Workload)}
    work = Workload(**{**options, "shape": Shape.parse(",".join(map(str, entry["shape"])))})
    choices: dict[str, Iterable[str]] = {"what": WHAT, "nonlinearity": ACTIVATIONS, "dtype": ("float32", "float64")}
    for name, names in choices.items():
        check.choice(options[name], name, names)
    for name in ("num_layers", "models"):
        check.number_of_layers(options[name], name)
    check.flag(work.bidirectional, "bidirectional")
    check.below_one(work.dropout, "dropout")
    check.positive_probability(work.leak, "leak")
    check.non_negative(work.noise, "noise")
    check.size(work.n_labels or 1, "n_labels")
    results = {one["contestant"]: Result(one["contestant"], _times(one["times"])) for one in entry["results"]}
    yardstick = _times(entry["yardstick"])
    if any(len(result.times) not in (0, len(yardstick)) for result in results.values()):
        raise ValueError("there must be a time of the yardstick for each round")
    return Measurement(work, results, yardstick=yardstick)


def _times(given: list[float]) -> tuple[float, ...]:
    return tuple(check.finite_positive(time, "times") for time in given)


class Change(NamedTuple):
    """How a backend's time of a workload has changed."""

    old: float  # seconds, medians
    new: float
    ratio: float  # new / old, as medians relative to the yardstick
    limits: tuple[float, float]  # between them, the ratio may be noise

    @classmethod
    def of(cls, old: Times, new: Times, yardsticks: tuple[Times, Times]) -> Change:
        """Slower is what took longer, by 5 % at least, in nine of ten rounds than in nine of ten rounds before.

        Examples
        --------
        >>> Change.of([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], ([1.0] * 3, [1.0] * 3)).verdict
        'slower'
        >>> Change.of([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], ([1.0] * 3, [1.25] * 3)).verdict  # all is slower
        'same'
        """
        before, after = np.divide(old, yardsticks[0]), np.divide(new, yardsticks[1])
        (low, high), (new_low, new_high) = (np.quantile(times, (0.1, 0.9)) for times in (before, after))
        ratio = float(np.median(after) / np.median(before))
        limits = ratio * float(low / new_high) / (1 + MARGIN), ratio * float(high / new_low) * (1 + MARGIN)
        return cls(float(np.median(old)), float(np.median(new)), ratio, limits)

    @property
    def verdict(self) -> str:
        """Slower, faster or the same."""
        return "slower" if self.ratio > self.limits[1] else "faster" if self.ratio < self.limits[0] else "same"


def changes(earlier: Earlier, measurements: Sequence[Measurement]) -> dict[tuple[Workload, str], Change]:
    """By workload and backend, for all that was timed both times."""
    found = {}
    for new in measurements:
        for name, result in new.results.items():
            if name in backends.NAMES and result.times and earlier.was_timed(new.work, name):
                old = earlier.measurements[new.work]
                yardsticks = old.yardstick, new.yardstick
                found[new.work, name] = Change.of(old.results[name].times, result.times, yardsticks)
    return found


def slower(earlier: Earlier, measurements: Sequence[Measurement], machine: Machine) -> list[Workload]:
    """What has become slower on some backend; on another machine, nothing."""
    if is_other(earlier.machine, machine):
        return []
    found = changes(earlier, measurements).items()
    return list(dict.fromkeys(work for (work, _), change in found if change.verdict == "slower"))


def is_other(one: Machine, other: Machine) -> bool:
    """Whether times of the two say nothing about what has become of the code."""
    names = ("cpu", "n_cores", "instruction_set", "n_threads")
    return any(getattr(one, name) != getattr(other, name) for name in names)


def table(earlier: Earlier, measurements: Sequence[Measurement], machine: Machine) -> str:
    """Old and new times, their ratio and what that means."""
    was, has_verdicts = earlier.machine, not is_other(earlier.machine, machine)
    text = f"**Beside {earlier.path.name}**, of elman {was.versions['elman']}; ratios relative to multiply-adds\n\n"
    if not has_verdicts:
        text += (
            f"ANOTHER MACHINE: {was.cpu}, {was.n_cores} cores, {was.instruction_set}, {was.n_threads} threads. What is "
            "slower here or there says nothing about the code, so there are no verdicts.\n\n"
        )
    lines = [["workload", "backend", "old", "new", "ratio", "noise", "verdict"]]
    for (work, name), change in changes(earlier, measurements).items():
        times = duration(change.old), duration(change.new), f"{change.ratio:.2f}×"
        noise = "{:.2f}–{:.2f}×".format(*change.limits)
        lines.append([label(work), name, *times, noise, change.verdict if has_verdicts else "-"])
    return text + markdown(lines)
