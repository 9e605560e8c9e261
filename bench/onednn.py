"""elman beside oneDNN's own RNN primitive, which no Python package gives access to.

    pip install onednn-devel-cpu-gomp==2023.2.0           # oneDNN 3.2 on OpenMP; or, in another environment,
    pip install onednn-devel==2026.1.0                    # oneDNN 3.13 on SYCL, on Intel's OpenCL for CPUs
    python bench/onednn.py                                # the table's shapes
    python bench/onednn.py --what forward --shape 100,32,32,64 --wait-policy passive

oneDNN always computes the gradient of the input. With --what both, elman does not, as in the other tables; with
--what both-dx, the default, it does: the same work. A C++ compiler is needed.
"""

import argparse
import ctypes
import functools
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np

import elman
from elman.benchmark import report
from elman.benchmark.contestants import environment
from elman.benchmark.contestants.own import backend
from elman.benchmark.machine import Machine
from elman.benchmark.measure import measure
from elman.benchmark.program import Contestant, Program, Unsupported
from elman.benchmark.workloads import SETS, Case, Shape, Workload

PACKAGES = "onednn-devel-cpu-gomp", "onednn-devel"


def installed_package() -> str:
    """That of the library in this Python environment."""
    found = [name for name in PACKAGES if any(importlib.metadata.distributions(name=name))]
    if len(found) != 1:
        sys.exit(f"one of {' and '.join(PACKAGES)} has to be installed, found {found}")
    return found[0]


@functools.cache
def library() -> ctypes.CDLL:
    """onednn.cpp, compiled against the library in this Python environment."""
    lib, include = Path(sys.prefix, "lib"), Path(sys.prefix, "include")
    if Path(lib, "libintelocl.so").exists():  # SYCL does not ask it on processors that are not Intel's
        os.environ.setdefault("OCL_ICD_FILENAMES", str(lib / "libintelocl.so"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "onednn.so")
        source = Path(__file__).with_name("onednn.cpp")
        options = ["-std=c++17", "-O2", "-shared", "-fPIC", f"-I{include}", f"-L{lib}"]
        options += [f"-Wl,-rpath,{lib}", "-Wl,--disable-new-dtags"]  # for what libdnnl.so itself needs, too
        subprocess.run([os.environ.get("CXX", "c++"), *options, source, "-ldnnl", "-o", target], check=True)
        loaded = ctypes.CDLL(str(target))
    loaded.onednn_new.restype = ctypes.c_void_p
    loaded.onednn_error.restype = ctypes.c_char_p
    return loaded


def prepare(case: Case, _: int) -> Program:
    """The number of threads is OpenMP's, OMP_NUM_THREADS, or SYCL's, DPCPP_CPU_NUM_CUS."""
    work = case.work
    if work.is_model or work.dtype != "float32" or work.num_layers > 1 or work.bidirectional:
        raise Unsupported("onednn.cpp runs one layer, in one direction, in float32")
    dnnl, has_backward = library(), work.what != "forward"
    p = case.parameters
    inputs = [case.x, p["weight_ih_l0"], p["weight_hh_l0"], p["bias_l0"], case.d_y]
    inputs = [np.ascontiguousarray(array) for array in inputs]
    network = dnnl.onednn_new(*work.shape, work.nonlinearity == "relu", has_backward, *map(_pointer, inputs))
    if not network:
        raise Unsupported(f"oneDNN has no such primitive: {dnnl.onednn_error().decode()}")
    handle = ctypes.c_void_p(network)

    def results(_: object) -> dict[str, np.ndarray]:
        n_steps, n_rows, n_inputs, n_units = work.shape
        shapes = {
            "y": (n_steps, n_rows, n_units),
            "h_n": (1, n_rows, n_units),
            "d_x": (n_steps, n_rows, n_inputs),
            "weight_ih_l0": (n_units, n_inputs),
            "weight_hh_l0": (n_units, n_units),
            "bias_l0": (n_units,),
        }
        arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        dnnl.onednn_results(handle, *map(_pointer, arrays.values()))
        wanted = {"forward": ("y", "h_n"), "both": set(arrays) - {"d_x"}, "both-dx": arrays}[work.what]
        return {name: array for name, array in arrays.items() if name in wanted}

    def run() -> None:
        dnnl.onednn_run(handle)

    weakref.finalize(run, dnnl.onednn_delete, handle)
    return Program(run, results)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=Shape.parse, action="append", metavar="T,B,I,H")
    parser.add_argument("--what", choices=["forward", "both", "both-dx"], default="both-dx")
    parser.add_argument("--nonlinearity", choices=["tanh", "relu"], default="tanh")
    parser.add_argument("--backend", choices=["cython", "numba"], action="append")
    parser.add_argument("--threads", type=int, default=elman.get_num_threads())
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each shape")
    parser.add_argument("--wait-policy", choices=["active", "passive"], help="OMP_WAIT_POLICY; OpenMP's own default")
    options = parser.parse_args()

    os.environ |= environment(options.threads) | {"DPCPP_CPU_NUM_CUS": str(options.threads)}
    if options.wait_policy:
        os.environ["OMP_WAIT_POLICY"] = options.wait_policy
    backends = options.backend or ["cython", "numba"]
    package = installed_package()
    contestants = [*map(backend, backends), Contestant("onednn", (package,), prepare)]
    machine = Machine.measured(n_threads=options.threads, packages=(package,))
    print(report.machine_text(machine), f"OpenMP's wait policy: {options.wait_policy or 'default'}.\n", flush=True)
    shapes = options.shape or [work.shape for work in SETS["table"]]
    works = [Workload(shape, options.what, options.nonlinearity) for shape in shapes]
    done = [measure(work, contestants, n_threads=options.threads, budget=options.budget) for work in works]
    print(report.table(done, machine, backends))
    print(*report.remarks(done), sep="\n")


if __name__ == "__main__":
    main()
