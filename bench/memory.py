"""Peak memory of a training step: elman's and PyTorch's for the same model, each in a process of its own.

    python bench/memory.py
    python bench/memory.py --shape 128,64,96,512

Megabytes by which the resident memory of a process grows at most while a model is made and trained for some steps,
after a tiny one has loaded what the libraries load. Needs Linux; PyTorch is left out where it is not installed.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import elman
from elman.benchmark import report
from elman.benchmark.contestants import missing, own, peer
from elman.benchmark.workloads import SETS, Case, Shape, Workload

CONTESTANTS = {name: own.backend(name) for name in ("cython", "numba")}
if "torch" not in missing():
    CONTESTANTS["torch"] = peer("torch")
STEPS = 4


def steps(name: str, shape: Shape) -> None:
    run = CONTESTANTS[name].prepare(Case.of(Workload(shape, "train")), elman.get_num_threads()).run
    for _ in range(STEPS):
        run()


def growth(name: str, shape: Shape) -> float:
    """Of this process, in megabytes."""
    steps(name, Shape(2, 1, 5, 4))
    Path("/proc/self/clear_refs").write_text("5")  # from now on, the most is that of what follows
    before = kilobytes("VmRSS")
    steps(name, shape)
    return (kilobytes("VmHWM") - before) * 1024 / 1e6


def kilobytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=Shape.parse, action="append", metavar="T,B,V,H")
    parser.add_argument("--only", choices=CONTESTANTS, help="measure this one, at the first shape, in this process")
    options = parser.parse_args()
    shapes = options.shape or [work.shape for work in SETS["seq"] if work.what == "train"]
    if options.only:
        print(f"{growth(options.only, shapes[0]):.1f}")
        return
    rows = [["T,B,V,H", *(f"{name}, MB" for name in CONTESTANTS)]]
    for shape in shapes:
        command = [sys.executable, __file__, "--shape", str(shape), "--only"]
        outputs = [subprocess.run([*command, name], capture_output=True, text=True, check=True) for name in CONTESTANTS]
        rows.append([str(shape), *(output.stdout.strip() for output in outputs)])
    print(report.markdown(rows, 1))


if __name__ == "__main__":
    main()
