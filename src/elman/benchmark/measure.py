"""Timing: all contestants in turn, round after round, in one process.

What disturbs a machine for a while then disturbs all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import elman
from elman import backends
from elman.benchmark.machine import busy_seconds
from elman.benchmark.program import Contestant, Program, Unsupported
from elman.benchmark.truth import Truth
from elman.benchmark.workloads import Case, Workload

# Threads of other contestants' pools spin for a while after a call, PyTorch's (OpenMP's) for 8 ms. Nobody is timed
# before they rest.
_REST = 0.01  # seconds
_WARM = 0.003  # seconds of calls before those that are timed: caches are cold after the rest, and clocks slow
_TURN = 0.01  # seconds: shorter calls are repeated, and the median taken, in each round
_SAMPLE = 1e-4  # seconds: shorter calls are timed several at once, as asking for the time takes some 0.1 µs
_MIN_ROUNDS = 3
_YARDSTICK = "multiply-adds"
_OPERATIONS = 1e6  # of the yardstick, whatever the instruction set: some microseconds


@dataclass(frozen=True)
class Result:
    """One contestant's times in seconds, one for each round; empty with the reason why where it was not timed."""

    contestant: str
    times: tuple[float, ...] = ()
    problem: str | None = None
    is_wrong: bool = False  # the problem is a wrong result, not something missing

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile, in seconds."""
        lower, median, upper = np.quantile(self.times, (0.25, 0.5, 0.75)).tolist()
        return lower, median, upper

    def ratio_to(self, other: Result) -> float:
        """How many times as long as the other's a call takes: the median over rounds.

        Examples
        --------
        >>> Result("a", (1.0, 2.0, 6.0)).ratio_to(Result("b", (1.0, 1.0, 2.0)))
        2.0
        """
        return float(np.median(np.divide(self.times, other.times)))


@dataclass(frozen=True)
class Measurement:
    """What all contestants did on one workload."""

    work: Workload
    results: dict[str, Result]  # by contestant, and by "contestant label" what else of it was timed beside
    others: float | None = None  # how many cores other programs used meanwhile; None where that is not known
    yardstick: tuple[float, ...] = ()  # seconds of multiply-adds in registers on one thread, one for each round


def measure(
    work: Workload,
    contestants: Sequence[Contestant],
    *,
    n_threads: int,
    budget: float,
    advance: Callable[[str], object] = lambda _: None,
) -> Measurement:
    """Check every contestant against the exact results, then time those that are right.

    Parameters
    ----------
    budget : float
        Seconds of timing for all of them; there are at least three rounds.
    advance : function
        Is told what is going on.

    Examples
    --------
    >>> from elman.benchmark.contestants.own import backend
    >>> from elman.benchmark.workloads import Shape
    >>> work = Workload(Shape(7, 5, 3, 11))
    >>> measurement = measure(work, [backend("numpy")], n_threads=1, budget=0.01)
    >>> len(measurement.results["numpy"].times) >= 3
    True
    """
    case = Case.of(work)
    # generators differ: what all compute alike is the case without noise
    quiet = replace(case, work=replace(work, noise=0.0))
    truth = Truth(quiet)
    programs: dict[str, Program] = {}
    results: dict[str, Result] = {}
    for contestant in contestants:
        advance(f"{work.shape}: checking {contestant.name}")
        name = contestant.name
        try:
            programs[name] = contestant.prepare(quiet, n_threads)
            complaint = truth.complaint(programs[name].results(programs[name].run()))
            if work.noise:
                programs[name] = contestant.prepare(case, n_threads)
                programs[name].run()  # so that what draws is compiled
        except Unsupported as reason:
            results[name] = Result(name, problem=str(reason))
            programs.pop(name, None)
            continue
        if complaint is not None:
            results[name] = Result(name, problem=complaint, is_wrong=True)
            del programs[name]
            continue
        for label, run in programs[name].beside.items():
            programs[f"{name} {label}"] = Program(run, programs[name].results)
    advance(f"{work.shape}: timing")
    began = _clocks()
    runs = {name: program.run for name, program in programs.items()}
    times = _rounds({**runs, _YARDSTICK: _yardstick(work.dtype, n_threads)} if runs else {}, budget)
    passed, busy, own = (end - start for end, start in zip(_clocks(), began, strict=True))
    others = None if math.isnan(busy) else max(0.0, (busy - own) / passed)
    results |= {name: Result(name, tuple(times[name])) for name in programs}
    yardstick = tuple(times.get(_YARDSTICK, ()))
    names = [c.name for c in contestants]
    return Measurement(work, {name: results[name] for name in dict.fromkeys([*names, *programs])}, others, yardstick)


def _yardstick(dtype: str, n_threads: int) -> Callable[[], object]:
    native, rounds = backends.get("cython"), yardstick_rounds(dtype)

    def run() -> None:
        elman.set_num_threads(1)
        native.multiply_adds(rounds, dtype)
        elman.set_num_threads(n_threads)

    return run


def yardstick_rounds(dtype: str) -> int:
    """How many rounds of multiply-adds on one thread are the yardstick's operations."""
    of_all_threads = float(backends.get("cython").multiply_adds(1, dtype))
    return round(_OPERATIONS * elman.get_num_threads() / of_all_threads)


def _clocks() -> tuple[float, float, float]:
    """Seconds passed, of all cores that were busy, and of those with this program."""
    return time.perf_counter(), busy_seconds(), time.process_time()


def _rounds(runs: dict[str, Callable[[], object]], budget: float) -> dict[str, list[float]]:
    """Times by contestant, in an order of its own in each round."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + budget
    n_rounds = 0
    while runs and (n_rounds < _MIN_ROUNDS or time.perf_counter() < end):
        for name in rng.permutation(list(runs)).tolist():
            times[name].append(_turn(runs[name]))
        n_rounds += 1
    return times


def _turn(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    time.sleep(_REST)
    first = _timed(run)
    if first >= _TURN:
        return first
    n_calls, start = 0, time.perf_counter()
    while n_calls == 0 or time.perf_counter() < start + _WARM:
        run()
        n_calls += 1
    n_calls = max(1, round(_SAMPLE * n_calls / (time.perf_counter() - start)))
    end = time.perf_counter() + _TURN
    times: list[float] = []
    while not times or time.perf_counter() < end:
        times.append(_timed(run, n_calls))
    return float(np.median(times))


def _timed(run: Callable[[], object], n_calls: int = 1) -> float:
    """Seconds for each of n calls."""
    start = time.perf_counter()
    for _ in range(n_calls):
        run()
    return (time.perf_counter() - start) / n_calls
