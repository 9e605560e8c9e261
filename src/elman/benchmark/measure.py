"""Timing: all contestants in turn, round after round, in one process.

What disturbs a machine for a while then disturbs all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from elman.benchmark.machine import busy_seconds
from elman.benchmark.program import Contestant, Program, Unsupported
from elman.benchmark.truth import Truth
from elman.benchmark.workloads import Case, Workload

# Threads of other contestants' pools spin for a while after a call, PyTorch's (OpenMP's) for 8 ms. Nobody is timed
# before they rest.
_REST = 0.01  # seconds
_TURN = 0.01  # seconds: shorter calls are repeated, and the median taken, in each round
_MIN_ROUNDS = 3


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
    results: dict[str, Result]  # by contestant
    others: float | None = None  # how many cores other programs used meanwhile; None where that is not known


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
    truth = Truth(case)
    programs: dict[str, Program] = {}
    results: dict[str, Result] = {}
    for contestant in contestants:
        advance(f"{work.shape}: checking {contestant.name}")
        name = contestant.name
        try:
            programs[name] = contestant.prepare(case, n_threads)
            complaint = truth.complaint(programs[name].results(programs[name].run()))
        except Unsupported as reason:
            results[name] = Result(name, problem=str(reason))
            programs.pop(name, None)
            continue
        if complaint is not None:
            results[name] = Result(name, problem=complaint, is_wrong=True)
            del programs[name]
    advance(f"{work.shape}: timing")
    began = _clocks()
    times = _rounds(programs, budget)
    passed, busy, own = (end - start for end, start in zip(_clocks(), began, strict=True))
    others = None if math.isnan(busy) else max(0.0, (busy - own) / passed)
    results |= {name: Result(name, tuple(times[name])) for name in programs}
    return Measurement(work, {contestant.name: results[contestant.name] for contestant in contestants}, others)


def _clocks() -> tuple[float, float, float]:
    """Seconds passed, of all cores that were busy, and of those with this program."""
    return time.perf_counter(), busy_seconds(), time.process_time()


def _rounds(programs: dict[str, Program], budget: float) -> dict[str, list[float]]:
    """Times by contestant, in an order of its own in each round."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in programs}
    end = time.perf_counter() + budget
    n_rounds = 0
    while programs and (n_rounds < _MIN_ROUNDS or time.perf_counter() < end):
        for name in rng.permutation(list(programs)).tolist():
            times[name].append(_turn(programs[name].run))
        n_rounds += 1
    return times


def _turn(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    time.sleep(_REST)
    first = _timed(run)
    if first >= _TURN:
        return first
    end = time.perf_counter() + _TURN
    times: list[float] = []
    while not times or time.perf_counter() < end:  # without the first, which found the caches cold
        times.append(_timed(run))
    return float(np.median(times))


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
