"""How many threads the compiled backends use."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from types import ModuleType

from elman import check

MOST_THREADS = 1024  # of the pool in C
_number = check.integers(1, MOST_THREADS)
_pool: ModuleType | None = None  # the module with the C thread pool, once loaded: the number of threads lives there
_n_threads: int | None = None  # what set_num_threads() asked for before that


def set_num_threads(n: int) -> None:
    """Let the compiled backends use n threads from the next call on; more than there are cores is legal.

    Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If n is not an int from 1 to 1024.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    >>> set_num_threads(before)
    """
    global _n_threads
    _n_threads = _number(n, "n")
    if _pool is not None:
        _pool.set_num_threads(_n_threads)


def get_num_threads() -> int:
    """The number of threads that compiled backends use.

    At first it is the environment variable ELMAN_NUM_THREADS or, without one, the number of cores that the process may
    use: those of its CPU affinity, but no more than a container's CPU quota, nor than OMP_NUM_THREADS, nor than 1024.
    By OMP_NUM_THREADS joblib, Dask and Ray tell their workers how many of the cores are theirs.

    Raises
    ------
    ValueError
        If ELMAN_NUM_THREADS is not an int from 1 to 1024.
    """
    if _pool is not None:
        return int(_pool.get_num_threads())
    return _n_threads or _default_num_threads()


def bound_threads(n: int) -> None:
    """Let what this thread calls use at most n threads; 0 for no bound but that of `set_num_threads`."""
    if _pool is not None:
        _pool.bound_threads(n)


def attach_pool(module: ModuleType) -> None:
    """Hand the number of threads over to the compiled module, which keeps it from now on."""
    global _pool
    module.set_num_threads(get_num_threads())
    _pool = module


@functools.cache
def _default_num_threads() -> int:
    wanted = os.environ.get("ELMAN_NUM_THREADS")
    if wanted:
        number = check.int_in_text(wanted)
        if number is None or not 1 <= number <= MOST_THREADS:
            check.refuse(f"ELMAN_NUM_THREADS must be an int from 1 to {MOST_THREADS}, got {check.shown(wanted)}")
        return number
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(_cgroup_quota(), _openmp_limit(), MOST_THREADS)
    return max(1, min(n_cores, math.ceil(most)))


def _openmp_limit() -> float:
    """The first number of OMP_NUM_THREADS, which may be a list; what is none does not count, as in OpenMP itself."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return check.int_in_text(first) or math.inf


def _cgroup_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """How many CPUs the control groups of this process leave it; infinite without a limit (or without Linux)."""
    quota = math.inf
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return quota
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue  # version 1 has a tree for each set of controllers, version 2 one tree and no such names
        tree = root / "cpu" if controllers else root
        here = Path(path.lstrip("/"))
        # A group is bound by those above it. In a container the path may be the host's; then only the root is there.
        for group in (tree / here, *(tree / parent for parent in here.parents)):
            quota = min(quota, _quota(group, is_v1=bool(controllers)))
    return quota


def _quota(group: Path, *, is_v1: bool) -> float:
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_v1 else ("cpu.max",)
    try:
        quota, period = " ".join((group / file).read_text() for file in files).split()
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ArithmeticError):
        return math.inf
