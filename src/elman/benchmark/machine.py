"""What this machine is, and what it could do at best."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import elman
from elman import backends
from elman.about import instruction_set
from elman.benchmark.workloads import Workload

_N = 2048  # of the matrices whose product is timed
_ROUNDS = 2_000_000  # of multiply-adds: some milliseconds
_SIZES = [1 << k for k in range(13, 27)]  # 8 KiB to 64 MiB
_BYTES_PER_SAMPLE = 1 << 26  # that each thread reads in one measurement of a bandwidth


@dataclass(frozen=True)
class Machine:
    """A machine as measured, for one dtype."""

    cpu: str
    n_cores: int
    instruction_set: str  # that elman's kernels use
    n_threads: int
    blas_threads: str
    versions: dict[str, str]
    peak: float  # GFLOP/s of multiply-adds in registers: no product is faster
    product: float  # GFLOP/s of NumPy's matrix product
    bandwidths: dict[int, float]  # GB/s by the number of bytes that are read again and again, in ascending order

    @classmethod
    def measured(cls, *, n_threads: int, dtype: str = "float32", packages: tuple[str, ...] = ()) -> Machine:
        """This machine; `packages` are those whose versions are of interest.

        NumPy's own number of threads is set where `threadpoolctl` is installed.
        """
        versions = {"python": platform.python_version(), "elman": elman.__version__}
        for name in ("numpy", *packages):
            versions[name] = _version(name)
        return cls(
            cpu=_cpu_name(),
            n_cores=os.cpu_count() or 1,
            instruction_set=instruction_set(),
            n_threads=n_threads,
            blas_threads=_set_blas_threads(n_threads),
            versions=versions,
            peak=_multiply_add_speed(dtype, n_threads),
            product=_product_speed(dtype),
            bandwidths={n_bytes: _read_speed(n_bytes, n_threads) for n_bytes in _SIZES},
        )

    def bandwidth(self, n_bytes: int) -> float:
        """GB/s at which all threads together read n bytes again and again, each its own part.

        That of the next larger size measured.

        Examples
        --------
        >>> machine = Machine("a cpu", 2, "avx2", 2, "2", {}, 100.0, 80.0, {1024: 400.0, 4096: 50.0})
        >>> machine.bandwidth(1000), machine.bandwidth(1025), machine.bandwidth(10_000)
        (400.0, 50.0, 50.0)
        """
        return self.bandwidths[min((size for size in self.bandwidths if size >= n_bytes), default=max(self.bandwidths))]

    def roofline(self, work: Workload) -> float:
        """Seconds of a workload at the peak, or for reading its `weight_hh` in each step, whichever takes longer.

        Kernels can be faster where they keep a part of `weight_hh` in registers.
        """
        return max(work.flops / self.peak, work.bytes_read / self.bandwidth(work.recurrent_bytes)) / 1e9


def busy_seconds() -> float:
    """CPU time that all programs on this machine have used so far, all cores together; NaN where Linux is not."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return math.nan
    user, nice, system, _idle, _iowait, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _multiply_add_speed(dtype: str, n_threads: int) -> float:
    native = backends.get("cython")
    elman.set_num_threads(n_threads)
    speeds: list[float] = []
    for _ in range(50):
        start = time.perf_counter()
        operations = native.multiply_adds(_ROUNDS, dtype)
        speeds.append(operations / (time.perf_counter() - start) / 1e9)
    return max(speeds)  # the best, as this is what the machine *can* do


def _product_speed(dtype: str) -> float:
    a = np.random.default_rng(0).standard_normal((_N, _N)).astype(dtype)
    out = np.empty_like(a)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        times.append(time.perf_counter() - start)
    return 2 * _N**3 / min(times) / 1e9


def _read_speed(n_bytes: int, n_threads: int) -> float:
    """GB/s of NumPy's maximum of integers, its fastest loop over memory."""

    def read(part: np.ndarray) -> None:
        n_repeats = max(1, _BYTES_PER_SAMPLE // part.nbytes)
        np.maximum.reduce(np.broadcast_to(part, (n_repeats, part.size)), axis=1)  # one row again and again

    parts = [np.zeros(max(1, n_bytes // 4 // n_threads), np.int32) for _ in range(n_threads)]
    n_read = sum(part.nbytes * max(1, _BYTES_PER_SAMPLE // part.nbytes) for part in parts)
    times = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(read, parts))
            times.append(time.perf_counter() - start)
    return n_read / min(times) / 1e9


def _set_blas_threads(n: int) -> str:
    """Let NumPy's matrix products use n threads; says what they use."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return "NumPy's default"  # only set by OPENBLAS_NUM_THREADS and the like, before NumPy is imported
    from threadpoolctl import threadpool_limits

    threadpool_limits(n, user_api="blas")
    return str(n)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):  # TensorFlow's smaller package for CPUs
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return "unknown"
