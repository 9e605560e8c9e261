"""How long the first step of `fit` takes on a memory map, and how much memory two epochs take: `large_data.py [GB]`."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import elman

GB, STEPS, BLOCK = float(sys.argv[1]) if sys.argv[1:] else 10.0, 1000, 10_000
N_TOKENS = 64


class Watch(elman.Callback):
    """Times the first step, and looks at memory."""

    def __init__(self) -> None:
        self.first, self.most = 0.0, 0.0

    def on_start(self, training: elman.training.Training) -> None:  # noqa: ARG002
        self.begin = time.perf_counter()

    def on_step(self, training: elman.training.Training) -> None:
        self.first = self.first or time.perf_counter() - self.begin
        if training.steps % 100 == 0:
            self.most = max(self.most, megabytes())


def megabytes() -> float:
    """What the process has in memory at present."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def written(path: Path) -> np.ndarray:
    """Random tokens, as a memory map."""
    n = int(GB * 1e9 / STEPS)
    block = np.random.default_rng(0).integers(0, N_TOKENS, (BLOCK, STEPS)).astype(np.uint8)
    with path.open("wb") as file:
        for start in range(0, n, BLOCK):
            file.write(block[: n - start].tobytes())
    return np.memmap(path, np.uint8, "r", shape=(n, STEPS))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        X = written(Path(folder) / "tokens.u8")
        Y = (X[:, 0] % 2).copy()
        options = {"pattern": "many-to-one", "hidden_size": 1, "seed": 0}
        model = elman.SequenceModel(elman.Tokens(N_TOKENS), elman.Categories(2), **options)
        model.fit(
            X[:512], Y[:512], epochs=1, batch_size=512, progress=False
        )  # what a training takes of small data, too
        before, watch, start = megabytes(), Watch(), time.perf_counter()
        model.fit(X, Y, epochs=2, batch_size=512, progress=False, callbacks=[watch])
        print(f"{GB:g} GB, {len(X):,} sequences of {STEPS} steps, two epochs, shuffled")
        print(f"to the first step          {watch.first:8.2f} s")
        print(f"most memory, beyond before {watch.most - before:8.0f} MB")
        print(f"in all                     {time.perf_counter() - start:8.0f} s")


if __name__ == "__main__":
    main()
