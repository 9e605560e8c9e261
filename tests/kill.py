"""Trainings that are killed at random moments, again and again: each must end as if nothing had happened.

    python tests/kill.py SEED KILLS

A scenario is a small training with a checkpoint. It runs in a fork of this process, which is killed (SIGKILL) after a
random time; the next fork resumes, and so on to the end. Then all begins anew, until the scenario has had its share of
the kills. Findings are: a checkpoint that a kill made unreadable or took away; a run that fails, hangs, or ends with
other bits than one that was never killed; files that are left over in the end.

SEED draws the times. Where in a training these fall is up to the machine as well, so a finding is not repeated for
certain, but its folder is kept. "in a save" counts the kills that left a part of a file behind: fewer than those in
saves, since what a save does last, to rename, is not torn. Needs fork, so no Windows.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import elman
from elman import cli, text
from elman.models.base import network_of
from elman.training import Training

HANGS = 60  # seconds without an end, of a run that takes less than one
SLOW = 10  # seconds to load a file of some kilobytes
Result = dict[str, str]  # all that a run ends with, by name: numbers to the last bit
Scenario = Callable[[Path | None], Result]

# The scenarios: functions of a checkpoint to go on from, if it is there, and to write; or of None, to run undisturbed

V, RNG = 5, np.random.default_rng(0)
LENGTHS = RNG.integers(1, 13, 30)
TOKENS = [RNG.integers(0, V, n) for n in LENGTHS]
NEXT = [np.roll(x, -1) for x in TOKENS]
LABELS = np.array([x[0] % 2 for x in TOKENS])
FEATURES = [RNG.standard_normal((n, 3)) for n in LENGTHS]
NUMBERS = [x[:, :2].cumsum(axis=0) for x in FEATURES]
WEIGHTS = [RNG.uniform(0, 2, n) for n in LENGTHS]
with tempfile.TemporaryFile() as _file:
    ON_DISK = np.memmap(_file, np.uint8, "w+", shape=(32, 9, 3))  # forks have it, too
ON_DISK[:] = RNG.integers(0, 3, ON_DISK.shape)


def tagger(**options: Any) -> elman.SequenceModel:
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), hidden_size=8, seed=1, **options)


def fitted(model: Any, X: Any, Y: Any, path: Path | None, *, every: int = 1, **options: Any) -> Result:
    """Eight batches in each epoch."""
    if path is not None:
        options |= {"checkpoint": path, "checkpoint_every": every, "resume": True}
    optimizer = options["optimizer"]
    history = model.fit(X, Y, **{"epochs": 3, "batch_size": 4, "progress": False} | options)
    memories = {f"memory {i}": array.tobytes().hex() for i, array in enumerate(optimizer._memories.get("flat", []))}
    settings = {name: value for name, value in vars(optimizer).items() if name != "_memories"}
    generators = [generator.bit_generator.state for generator in network_of(model).generators()]
    others = {"history": history, "optimizer": settings, "generators": generators}
    return {**bits(model), **memories, **{name: json.dumps(value) for name, value in others.items()}}


def bits(model: Any) -> Result:
    return {name: array.tobytes().hex() for name, array in model.parameters().items()}


def dropout(path: Path | None) -> Result:
    schedule = elman.schedules.Cosine(warmup=0.5)
    model = tagger(num_layers=2, dropout=0.3)
    return fitted(model, TOKENS, NEXT, path, optimizer=elman.Adam(0.02), schedule=schedule)


def tbptt(path: Path | None) -> Result:
    optimizer = elman.SGD(0.1, momentum=0.9)
    return fitted(tagger(num_layers=2), TOKENS, NEXT, path, optimizer=optimizer, tbptt=(3, 5), clip_norm=0.5)


def average(path: Path | None) -> Result:
    """Of what is trained with batches that are added up; the best one is kept."""
    own: dict[str, Any] = {"average": 0.9, "accumulate": 2, "batch_size": 2, "tbptt": (3, 5), "metrics": ["f1"]}
    own |= {"validation_split": 0.2, "callbacks": [elman.EarlyStopping("val_f1", patience=2)]}
    return fitted(tagger(dropout=0.2, num_layers=2), TOKENS, NEXT, path, optimizer=elman.Adam(0.02), **own)


def memory(path: Path | None) -> Result:
    return fitted(tagger(recurrent_dropout=0.2), TOKENS, NEXT, path, optimizer=elman.AdamW(0.02), memory=4)


def early_stopping(path: Path | None) -> Result:
    model = elman.SequenceModel(
        elman.Tokens(V), elman.Binary(1), pattern="many-to-one", bidirectional=True, hidden_size=8, seed=1
    )
    X, Y, held_out = TOKENS[10:], LABELS[10:], (TOKENS[:10], LABELS[:10])
    stopping = elman.EarlyStopping(patience=2, restore_best=True)
    options: dict[str, Any] = {"epochs": 20, "validation_data": held_out, "callbacks": [stopping]}
    result = fitted(model, X, Y, path, optimizer=elman.Adagrad(0.1), **options)
    assert 3 < len(json.loads(result["history"])["loss"]) < 20, "it is to stop, neither at once nor in the end"
    return result


def seq2seq(path: Path | None) -> Result:
    model = elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=8, num_layers=2, dropout=0.2, seed=1)
    return fitted(model, TOKENS, [x[::-2] for x in TOKENS], path, optimizer=elman.Adam(0.02), clip_value=0.1)


class Plateau(elman.Callback):
    """Less of a learning rate whenever the mean loss of four steps is no better than the best before."""

    def __init__(self) -> None:
        self.losses, self.best = np.zeros(4), np.inf

    def on_step(self, training: Training) -> None:
        self.losses[training.steps % 4] = training.loss
        if training.steps % 4 == 0 and self.losses.mean() < self.best:
            self.best = float(self.losses.mean())
        elif training.steps % 4 == 0:
            training.optimizer.lr *= 0.7

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses, "best": self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        self.losses, self.best = state["losses"].copy(), state["best"]


def callback(path: Path | None) -> Result:
    return fitted(tagger(), TOKENS, NEXT, path, optimizer=elman.SGD(0.5), callbacks=[Plateau()])


def weights(path: Path | None) -> Result:
    model = elman.SequenceModel(elman.Features(3), elman.Reals(2), hidden_size=8, seed=1)
    options: dict[str, Any] = {"shuffle": False, "weights": WEIGHTS}
    return fitted(model, FEATURES, NUMBERS, path, every=3, optimizer=elman.Adam(0.02), **options)


def on_disk(path: Path | None) -> Result:
    """Batches that a thread has read when the process is killed."""
    model = elman.SequenceModel(elman.Features(3), elman.Categories(3), hidden_size=8, seed=1)
    return fitted(model, ON_DISK, ON_DISK[..., 0], path, optimizer=elman.Adam(0.02))


def elman_train(path: Path | None) -> Result:
    """The command learns this file."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return elman_train(Path(folder, "run.safetensors"))
    text.training._LEAST_STEPS = 1  # so that there are two epochs, and a step more than asked for
    sizes = "--hidden-size 8 --dropout 0.2 --steps 83 --batch-size 16 --sequence-length 16 --length 0"
    try:
        cli.main(["train", __file__, *sizes.split(), "--output", str(path), "--quiet", "--resume"], "elman")
    except SystemExit as end:
        if end.code:
            raise
    return bits(elman.load(path))


SCENARIOS = [dropout, tbptt, average, memory, early_stopping, seq2seq, callback, weights, on_disk, elman_train]

# Killing them


class Finding(Exception):
    """Something that must not happen."""


class Campaign:
    """One scenario, and what was done to it."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path) -> None:
        self.scenario, self.folder = scenario, folder / scenario.__name__
        self.path = self.folder / "checkpoint" / "run.safetensors"  # alone in its folder
        self.rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
        self.runs = self.kills = self.in_saves = 0

    def run(self, n_kills: int) -> None:
        """A run without a checkpoint; one with it that is not killed, and says how long it takes; then the others."""
        self.make_folder()
        self.fork(None, HANGS)
        self.expected, start = self.result(), time.monotonic()
        self.run_once(0)
        self.seconds = time.monotonic() - start
        while self.kills < n_kills:
            self.run_once(n_kills)

    def run_once(self, n_kills: int) -> None:
        """From nothing to the end, killed on the way as long as there are kills left."""
        self.make_folder()
        is_done = False
        while not is_done:
            is_done = self.fork(self.path, self.rng.uniform(0, self.seconds) if self.kills < n_kills else HANGS)
        result = self.result()
        different = [name for name in self.expected if result.get(name) != self.expected[name]]
        if different:
            raise Finding(f"other bits than without kills: {', '.join(different)}")
        names = sorted(os.listdir(self.path.parent))
        if names != [self.path.name]:
            raise Finding(f"{', '.join(names)} in the end, and not {self.path.name} alone")
        self.runs += 1

    def fork(self, path: Path | None, seconds: float) -> bool:
        """Begin, or go on from the checkpoint: True at the end, False if that was killed, after so many seconds."""
        before, was_there = parts(self.path), self.path.exists()
        child = multiprocessing.get_context("fork").Process(target=self.work, args=(path,))
        child.start()
        child.join(seconds)
        child.kill()
        child.join()
        if child.exitcode == 0:
            return True
        if child.exitcode != -signal.SIGKILL:
            raise Finding(f"a run ended with exit status {child.exitcode}\n{(self.folder / 'log').read_text()}")
        if seconds == HANGS:
            raise Finding(f"a run did not end within {HANGS} seconds")
        self.kills += 1
        self.in_saves += bool(parts(self.path) - before)
        check_checkpoint(self.path, was_there)
        return False

    def work(self, path: Path | None) -> None:
        """What the child does."""
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        (self.folder / "result").write_text(json.dumps(self.scenario(path)))

    def result(self) -> Result:
        result: Result = json.loads((self.folder / "result").read_text())
        return result

    def make_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.path.parent.mkdir(parents=True)


def parts(path: Path) -> set[Path]:
    """What saves that were cut off have left."""
    return set(path.parent.glob(".*.part"))


def check_checkpoint(path: Path, was_there: bool) -> None:
    """After a kill: the old one or the new one, whole."""
    if not path.exists():
        if was_there:
            raise Finding("the checkpoint is gone")
        return
    start = time.monotonic()
    try:
        elman.load(path)
    except Exception as error:
        raise Finding(f"the checkpoint does not load\n{traceback.format_exc()}") from error
    if time.monotonic() - start > SLOW:
        raise Finding(f"the checkpoint took more than {SLOW} seconds to load")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("kills", type=int, help="in all scenarios together")
    options = parser.parse_args()
    elman.use_backend("cython")
    tqdm.set_lock(threading.RLock())  # its own is shared by forks, and stays locked where one of them is killed
    sys.modules["elman.plot"] = None  # type: ignore[assignment] # the loss curve takes longer than its training
    folder, row, totals = Path(tempfile.mkdtemp(prefix="elman-kill-")), "{:16}{:>7}{:>7}{:>11}{:>9}", []
    print(row.format("scenario", "runs", "kills", "in a save", "seconds"))
    for i, scenario in enumerate(SCENARIOS):
        campaign, start = Campaign(scenario, options.seed, folder), time.monotonic()
        try:
            campaign.run((options.kills + i) // len(SCENARIOS))
            shutil.rmtree(campaign.folder)
        except Finding as finding:
            where = f"seed {options.seed}, after {campaign.kills} kills, in {campaign.folder}"
            print(f"finding: {scenario.__name__}, {where}: {finding}")
        totals.append([campaign.runs, campaign.kills, campaign.in_saves, time.monotonic() - start])
        print(row.format(scenario.__name__, *totals[-1][:3], f"{totals[-1][3]:.1f}"), flush=True)
    *counts, seconds = map(sum, zip(*totals, strict=True))
    print(row.format("all", *counts, f"{seconds:.1f}"))
    if any(folder.iterdir()):  # what is kept of findings
        return 1
    folder.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
