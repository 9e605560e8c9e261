"""Many models at once, in processes and in this one, against `fit` for one after the other."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import elman
from elman import threads as number_of_threads
from elman.training import Training

from ..compare import assert_same_bits

X = [np.random.default_rng(i).integers(0, 5, 2 + i % 9) for i in range(20)]
Y = [np.roll(x, -1) for x in X]
OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "clip_norm": 0.5, "validation_data": (X[:4], Y[:4])}


def make_models() -> list[Any]:
    """Of unequal kinds and sizes, two of which draw what dropout leaves out."""
    kinds: list[Any] = [elman.Tokens(5), elman.Categories(5)]
    return [
        elman.SequenceModel(*kinds, hidden_size=8, num_layers=2, dropout=0.2, seed=0),
        elman.SequenceModel(*kinds, hidden_size=9, bidirectional=True, recurrent_dropout=0.1, seed=1),
        elman.Seq2Seq(*kinds, hidden_size=7, dtype="float64", seed=2),
    ]


def make_optimizers() -> list[Any]:
    return [elman.Adam(0.01), elman.SGD(0.1, momentum=0.9), elman.AdamW(0.02)]


def everything(model: Any, optimizer: Any) -> dict[str, np.ndarray]:
    memories = {f"memory {i}": array for i, array in enumerate(optimizer._memories.get("flat", []))}
    numbers = {"steps": np.array(optimizer.steps), "lr": np.array(optimizer.lr)}
    return {**model.parameters(), **memories, **numbers}


def halve(training: Training) -> None:
    training.optimizer.lr /= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bits_as_one_after_the_other(workers: int):
    models, optimizers = make_models(), make_optimizers()
    alone, alone_optimizers = make_models(), make_optimizers()
    pairs = list(zip(alone, alone_optimizers, strict=True))
    arrays = [model.parameters() for model in models]
    with elman.use_backend("numpy"):  # which workers must hear of: others round otherwise
        options: dict[str, Any] = {
            **OPTIONS,
            "schedule": elman.schedules.Cosine(),
            "callbacks": [elman.EarlyStopping(patience=1)],
        }
        expected = [model.fit(X, Y, optimizer=optimizer, progress=False, **options) for model, optimizer in pairs]
        assert elman.fit_many(models, X, Y, optimizers=optimizers, workers=workers, **options) == expected
        for model, own, optimizer, pair in zip(models, arrays, optimizers, pairs, strict=True):
            assert_same_bits(everything(model, optimizer), everything(*pair))
            assert_same_bits(own, pair[0].parameters())  # the arrays are those of before
        again = [model.fit(X, Y, optimizer=optimizer, progress=False) for model, optimizer in pairs]
        options = {"optimizers": optimizers, "workers": workers, "progress": False}
        assert elman.fit_many(models, X, Y, **options) == again, "what is random goes on as well"


def test_without_optimizers_and_on_one_thread(threads: Any):
    threads(1)
    models, alone = make_models()[:2], make_models()[:2]
    histories = elman.fit_many(models, X, Y, epochs=1, progress=False)
    assert histories == [model.fit(X, Y, epochs=1, progress=False) for model in alone]
    for model, other in zip(models, alone, strict=True):
        assert_same_bits(model.parameters(), other.parameters())


def test_large_data_and_what_only_this_process_knows():
    """Above a megabyte, joblib hands arrays on as files that are read-only."""
    data = np.random.default_rng(0).normal(size=(2, 100, 50, 30))

    def make() -> list[Any]:
        kinds: list[Any] = [elman.Features(30), elman.Reals(30)]
        return [elman.SequenceModel(*kinds, hidden_size=4, dtype="float64", seed=seed) for seed in range(2)]

    options: dict[str, Any] = {"epochs": 2, "schedule": lambda epoch, epochs: 1 - epoch / epochs, "progress": False}
    alone, models = make(), make()
    assert elman.fit_many(models, *data, workers=2, **options) == elman.fit_many(alone, *data, workers=1, **options)
    for model, other in zip(models, alone, strict=True):
        assert_same_bits(model.parameters(), other.parameters())


def test_on_a_cluster(cluster: str, tmp_path: Path):
    """Two processes: all as in this one, and an error that harms nothing."""

    def note(training: Training) -> None:  # noqa: ARG001
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.2)

    alone, models = make_models(), make_models()
    wrong = elman.SequenceModel(elman.Tokens(4), elman.Categories(5), hidden_size=4, seed=0)
    with joblib.parallel_config(cluster, n_jobs=-1), elman.use_backend("numpy"):
        expected = elman.fit_many(alone, X, Y, workers=1, **OPTIONS)
        with pytest.raises(ValueError, match=r"^models\[1\]: X\[0\] must hold tokens from 0 to 3"):
            elman.fit_many([make_models()[0], wrong], X, Y, progress=False)
        assert elman.fit_many(models, X, Y, callbacks=[note], **OPTIONS) == expected
    for model, other in zip(models, alone, strict=True):
        assert_same_bits(model.parameters(), other.parameters())
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert len(pids) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [None, 2])
def test_workers_share_the_threads(workers: int | None, threads: Any, monkeypatch: pytest.MonkeyPatch):
    """In threads of this process, which the surroundings ask for."""
    bounds: list[int] = []
    monkeypatch.setattr(number_of_threads, "bound_threads", bounds.append)
    threads(5)
    with joblib.parallel_config("threading", n_jobs=2):
        elman.fit_many(make_models(), X, Y, workers=workers, epochs=1, progress=False)
    assert sorted(bounds) == [0, 0, 0, 2, 2, 2]


def test_windows_have_their_targets_with_them():
    series = elman.Windows(np.sin(np.arange(40.0)), 8, horizon=1)
    alone, *models = (elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=3, seed=0) for _ in range(3))
    alone.fit(series, progress=False)
    elman.fit_many(models, series, progress=False)
    for model in models:
        assert_same_bits(model.parameters(), alone.parameters())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_diverges_stops_alone(workers: int):
    def make() -> tuple[list[Any], list[Any]]:
        models = [
            elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=4, nonlinearity="identity", seed=seed)
            for seed in range(3)
        ]
        return models, [elman.SGD(0.01), elman.SGD(1e18), elman.SGD(0.02)]

    data = np.random.default_rng(0).normal(size=(2, 8, 6, 1))
    models, optimizers = make()
    with pytest.warns(RuntimeWarning, match=r"^models\[1\]: step \d+: the loss is"):
        histories = elman.fit_many(models, *data, optimizers=optimizers, epochs=20, batch_size=8, workers=workers)
    for i, (model, optimizer) in enumerate(zip(*make(), strict=True)):
        if i == 1:
            with pytest.raises(FloatingPointError):
                model.fit(*data, optimizer=optimizer, epochs=20, batch_size=8, progress=False)
            assert len(histories[i]["loss"]) == optimizer.steps < 20
        else:
            assert histories[i] == model.fit(*data, optimizer=optimizer, epochs=20, batch_size=8, progress=False)
        assert_same_bits(everything(models[i], optimizers[i]), everything(model, optimizer))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_model_and_leaves_what_was_done(workers: int):
    """The second model has fewer tokens than the data."""
    models = [elman.SequenceModel(elman.Tokens(n), elman.Categories(5), hidden_size=4, seed=n) for n in (5, 4)]
    before = [model.state_dict() for model in models]
    with pytest.raises(ValueError, match=r"^models\[1\]: X\[0\] must hold tokens from 0 to 3"):
        elman.fit_many(models, X, Y, workers=workers, progress=False)
    assert_same_bits(models[1].parameters(), before[1])
    if workers == 1:
        assert np.any(models[0].parameters()["bias_o"] != before[0]["bias_o"])


def test_a_worker_that_dies_leaves_none_behind_that_is_broken():
    def die(training: Training) -> None:  # noqa: ARG001
        os._exit(1)

    models = make_models()
    with pytest.raises(RuntimeError, match=r"terminated\. This could be caused by .* excessive memory"):
        elman.fit_many(models, X, Y, workers=2, callbacks=[die], epochs=1, progress=False)
    for model, other in zip(models, make_models(), strict=True):
        assert_same_bits(model.parameters(), other.parameters())
    assert len(elman.fit_many(models, X, Y, workers=2, epochs=1, progress=False)) == 3


def test_one_thread_needs_no_joblib(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "joblib")
    monkeypatch.setattr(number_of_threads, "get_num_threads", lambda: 1)
    elman.fit_many(make_models()[:2], X, Y, epochs=1, progress=False)
    assert "joblib" not in sys.modules


def test_joblib_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"joblib, unless workers=1: pip install 'elman\[many\]'"):
        elman.fit_many(make_models(), X, Y, workers=2, progress=False)
    assert len(elman.fit_many(make_models(), X, Y, workers=1, epochs=1, progress=False)) == 3


class Collects(elman.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_epoch(self, training: Training) -> None:
        self.losses.append(training.loss)
        assert len(self.losses) == training.epoch


def test_each_model_has_callbacks_of_its_own():
    collects = Collects()
    elman.fit_many(make_models(), X, Y, epochs=2, workers=1, callbacks=[collects, halve], progress=False)
    assert not collects.losses


def test_bad_input():
    models = make_models()
    adam = elman.Adam(0.01)
    holds_a_lock = functools.partial(print, threading.Lock())
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (models[0], {}, TypeError, "models must be a list"),
        ([], {}, ValueError, "models must hold at least one, got 0"),
        ([models[0], elman.RNN(2, 3)], {}, TypeError, r"models\[1\] must be elman.SequenceModel or elman.Seq2Seq"),
        ([models[0], models[0]], {}, ValueError, r"models must be distinct, got the same object at \[1\]"),
        (models, {"optimizers": [adam]}, ValueError, "optimizers must hold one for each of the 3 models, got 1"),
        (models, {"optimizers": [adam] * 3}, ValueError, r"optimizers must be distinct, got the same object at \[1\]"),
        (models, {"optimizers": [adam, 1, 2]}, TypeError, r"optimizers\[1\] must be elman.Optimizer"),
        (models, {"workers": 0}, ValueError, "workers must be a positive int, got 0"),
        (models, {"progress": 1}, TypeError, "progress must be True or False"),
        (models, {"callbacks": 1}, TypeError, "callbacks must be a list"),
        (models, {"checkpoint": "x"}, TypeError, "fit_many got an unexpected argument 'checkpoint'"),
        (models, {"optimizer": adam}, TypeError, "fit_many got an unexpected argument 'optimizer'"),
        (models, {"tbptt": (2, 2)}, TypeError, "fit_many got an unexpected argument 'tbptt'"),  # of Seq2Seq
        (models, {"epochs": 0}, ValueError, r"models\[0\]: epochs must be a positive int, got 0"),
        (models, {"workers": 2, "schedule": holds_a_lock}, TypeError, "schedule must be picklable, .*: cannot pickle"),
        (models, {"workers": 2, "callbacks": [holds_a_lock]}, TypeError, "callbacks must be picklable"),
    ]
    for given, options, error, message in cases:
        with pytest.raises(error, match=message):
            elman.fit_many(given, X, Y, **{"workers": 1, "progress": False, **options})


SCRIPT = """
import signal, sys, time
import elman

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored, which a child inherits

class Waits(elman.Callback):
    def __init__(self, seconds):
        self.seconds = seconds

    def on_start(self, training):
        print("waiting\\n", end="", flush=True)  # in one piece
        time.sleep(self.seconds)

models = [elman.SequenceModel(elman.Tokens(2), elman.Categories(2), hidden_size=4, seed=i) for i in range(3)]
elman.fit_many(models, [[0, 1]], [[1, 0]], workers=2, progress=False, callbacks=[Waits(float(sys.argv[1]))])
"""


def test_a_script_needs_no_guard(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, "0"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "waiting\n" * 3, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("send", ["kill", "killpg"])
def test_ctrl_c_ends_the_workers(send: str, tmp_path: Path):
    """The pipe of what they print closes only when all of them are gone. A terminal sends it to them as well."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, script, "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["waiting\n"] * 2
            getattr(os, send)(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    # A worker and joblib's tracker, to which a terminal sends the signal as well, may both have removed a file.
    lines = [line for line in err.splitlines() if "resource_tracker" not in line or "FileNotFoundError" not in line]
    assert [line for line in lines if "warnings.warn" not in line][-1] == "KeyboardInterrupt"
    assert "leaked" not in err
    assert process.returncode != 0
