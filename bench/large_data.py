"""How long the first step of `fit` takes on a memory map, how much memory two epochs take, and how long they are.

`large_data.py [GB] [--in-turn]`: the other way, batches are read when it is their turn, and not ahead in a thread.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import elman
from elman.data.ahead import Ahead

IN_TURN = "--in-turn" in sys.argv
GB = float(next(iter(set(sys.argv[1:]) - {"--in-turn"}), 10.0))
STEPS, FEATURES, BATCH = 8, 1000, 512  # of a sequence of 8 kB; 10 GB are more of them than an order is listed of
OPTIONS = {"batch_size": BATCH, "optimizer": elman.SGD(1e-6), "progress": False}


class Watch(elman.Callback):
    """Times the first step, and looks at memory."""

    def __init__(self) -> None:
        self.begin, self.first, self.most = time.perf_counter(), 0.0, 0.0

    def on_step(self, training: elman.training.Training) -> None:
        self.first = self.first or time.perf_counter() - self.begin
        if training.steps % 10 == 0:
            self.most = max(self.most, megabytes())


def megabytes() -> float:
    """What the process has in memory at present."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def written(path: Path) -> np.ndarray:
    """Random bytes, as a memory map of sequences of features."""
    n, block = int(GB * 1e9 / (STEPS * FEATURES)), 10_000
    values = np.random.default_rng(0).integers(0, 256, (block, STEPS * FEATURES)).astype(np.uint8)
    with path.open("wb") as file:
        for start in range(0, n, block):
            file.write(values[: n - start].tobytes())
    return np.memmap(path, np.uint8, "r", shape=(n, STEPS, FEATURES))


def main() -> None:
    if IN_TURN:
        Ahead.map = lambda _, function, values: map(function, values)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        X = written(Path(folder) / "features.u8")
        Y = (np.arange(len(X)) % 2).astype(np.uint8)
        options = {"pattern": "many-to-one", "hidden_size": 1, "seed": 0}
        model = elman.SequenceModel(elman.Features(FEATURES), elman.Binary(), **options)
        model.fit(X[:BATCH], Y[:BATCH], epochs=1, **OPTIONS)  # what a training takes of small data, too
        before, watch = megabytes(), Watch()
        model.fit(X, Y, epochs=2, callbacks=[watch], **OPTIONS)
        seconds, n_steps = time.perf_counter() - watch.begin, 2 * -(-len(X) // BATCH)
        print(f"{GB:g} GB, {len(X):,} sequences, two epochs, shuffled, {'in turn' if IN_TURN else 'read ahead'}")
        print(f"to the first step          {watch.first:8.2f} s")
        print(f"most memory, beyond before {watch.most - before:8.0f} MB")
        print(f"a step                     {1e3 * seconds / n_steps:8.1f} ms")


if __name__ == "__main__":
    main()
