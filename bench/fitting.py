"""What helps where a training does not fit, and what it costs: `python bench/fitting.py [T]`, each way in a process.

64 sequences of T tokens, by default 4000, in batches of 32, and 128 hidden units. Megabytes by which resident memory
grows at most, after a tiny run has loaded what is loaded; seconds of processor time, of all threads. Needs Linux.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import elman
from elman.benchmark import report

N, V, H = 64, 64, 128
WAYS: dict[str, dict[str, Any]] = {
    "fit": {},
    'fit, dtype="float64"': {"dtype": "float64"},
    "fit, batch_size=8": {"batch_size": 8},
    "fit, batch_size=8, accumulate=4": {"batch_size": 8, "accumulate": 4},
    "fit, batch_size=1": {"batch_size": 1},
    'fit, memory="80MB"': {"memory": "80MB"},
    'fit, memory="20MB"': {"memory": "20MB"},
    "fit, tbptt=(400, 400)": {"tbptt": (400, 400)},
    "evaluate": {},
    "evaluate, batch_size=8": {"batch_size": 8},
    "rnn(x), all states": {},
    "rnn.last_state(x)": {},
}


def run(name: str, n_steps: int, *, batch_size: int = 32, **given: Any) -> None:
    options = {name: given.pop(name) for name in ("accumulate", "memory", "tbptt") if name in given}
    X = np.random.default_rng(0).integers(0, V, (N, n_steps)).astype(np.uint8)
    model = elman.SequenceModel(elman.Tokens(V), elman.Categories(V), hidden_size=H, seed=0, **given)
    if name.startswith("fit"):
        model.fit(X, X, epochs=1, batch_size=batch_size, progress=False, **options)
    elif name.startswith("evaluate"):
        model.evaluate(X, X, batch_size=batch_size)
    else:
        x = np.eye(V, dtype="float32")[X[:batch_size].T]
        model.rnn(x) if "all" in name else model.rnn.last_state(x)


def growth(name: str, n_steps: int) -> tuple[float, float]:
    """Of this process, in megabytes, and seconds."""
    run(name, 8)
    Path("/proc/self/clear_refs").write_text("5")  # from now on, the most is that of what follows
    before, start = kilobytes("VmRSS"), time.process_time()
    run(name, n_steps, **WAYS[name])
    return (kilobytes("VmHWM") - before) * 1024 / 1e6, time.process_time() - start


def kilobytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main() -> None:
    n_steps = sys.argv[1] if sys.argv[1:] else "4000"
    if sys.argv[2:]:
        print(*growth(sys.argv[2], int(n_steps)))
        return
    rows: list[list[Any]] = [["way", "MB", "s"]]
    for name in WAYS:
        command = [sys.executable, __file__, n_steps, name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append([name, *(f"{float(number):.3g}" for number in output.split())])
    print(report.markdown(rows, 1))


if __name__ == "__main__":
    main()
