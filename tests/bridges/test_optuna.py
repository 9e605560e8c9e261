"""The study of docs/guide/searches.md: on two processes that are killed, and on one that goes on."""

import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "searches.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"^```python\n(import elman\nimport optuna\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1]


def start(program, n_trials):
    """A process of its own, which says on standard error what it has done."""
    Path(program).write_text(re.sub(r"\b24\b", str(n_trials), PROGRAM))
    environment = {**os.environ, "ELMAN_NUM_THREADS": "1"}
    with Path(f"{program}.log").open("w") as log:
        return subprocess.Popen([sys.executable, program], env=environment, stderr=log)


def said(program):
    return {int(n) for n in re.findall(r"Trial (\d+) (?:finished|pruned).*\n", Path(f"{program}.log").read_text())}


def load():
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("study.log"))
    return optuna.load_study(study_name="adding", storage=storage)


def done(study):
    return {trial.number for trial in study.trials if trial.state.is_finished()}


def test_nothing_is_lost_when_processes_die(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = {program: start(program, n_trials=10**6) for program in ("one.py", "other.py")}
    try:
        deadline = time.monotonic() + 120
        while not all(map(said, two)) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in two.values():
            process.kill()
            process.wait()
    one, other = map(said, two)
    before = load()
    n = len(before.trials)
    assert one
    assert other
    assert not one & other
    assert one | other <= done(before)
    assert n - len(done(before)) <= 2
    third = start("third.py", n_trials=n + 3)
    assert third.wait(timeout=120) == 0
    after = load()
    assert said("third.py") == {n, n + 1, n + 2}
    assert done(after) == done(before) | said("third.py")
    objective = runpy.run_path("third.py")["objective"]
    assert objective(optuna.trial.FixedTrial(after.best_params)) == after.best_value, "the same bits, on all threads"
