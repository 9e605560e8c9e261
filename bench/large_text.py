"""How long the first step on a large text takes, and how much memory: `large_text.py [GB] [--accents]`.

The text is random words; with accents it is not ASCII, and so goes through a temporary file.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import elman
from elman import text

STEPS = 1200  # of which the last ones are of another part of the text


def written(path: Path, n_bytes: float, *, has_accents: bool) -> Path:
    """Words of three to nine letters, in lines."""
    rng = np.random.default_rng(0)
    letters = np.array([*("abcdefghijklmnopqrstuvwxyz" + ("éüñø—" if has_accents else ""))])
    words = np.array(["".join(rng.choice(letters, rng.integers(3, 10))) for _ in range(50_000)])
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < n_bytes:
            lines = words[rng.integers(0, len(words), (10_000, 10))]
            file.write("\n".join(map(" ".join, lines.tolist())) + "\n")
    return path


class Watch(elman.Callback):
    """Notes the first step."""

    def __init__(self) -> None:
        self.begin, self.first = time.perf_counter(), 0.0

    def on_step(self, training: elman.training.Training) -> None:  # noqa: ARG002
        self.first = self.first or time.perf_counter() - self.begin


def measured(path: Path) -> None:
    """In a process of its own: prints seconds to read, seconds to the first step, and the most memory in MB."""
    watch = Watch()
    corpus = text.Corpus.read(path)
    read, n = time.perf_counter() - watch.begin, len(corpus.vocabulary)
    model = elman.SequenceModel(elman.Tokens(n), elman.Categories(n), hidden_size=16, seed=0)
    recorder = text.Recorder(corpus.held_out, STEPS)
    options = {"batch_size": 32, "sequence_length": 32, "optimizer": elman.Adam(0.003), "callbacks": [watch, recorder]}
    text.train(model, corpus.train, steps=STEPS, **options)
    text.bigram_bits(corpus.train, corpus.held_out, n)
    print(read, watch.first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    has_accents = "--accents" in sys.argv
    gigabytes = [float(argument) for argument in sys.argv[1:] if argument != "--accents"] or [1.0]
    with tempfile.TemporaryDirectory() as folder:
        for n_bytes in (1e5, gigabytes[0] * 1e9):
            path = written(Path(folder) / "text.txt", n_bytes, has_accents=has_accents)
            command = [sys.executable, __file__, "--measure", str(path)]
            read, first, memory = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
            print(f"{n_bytes / 1e6:6,.1f} MB: read in {read:5.1f} s, first step after {first:5.1f} s, {memory:4.0f} MB")


if __name__ == "__main__":
    measured(Path(sys.argv[2])) if "--measure" in sys.argv else main()
