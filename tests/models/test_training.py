"""The loop of `fit`: history, callbacks, schedules, checkpoints, and runs that are cut off and go on."""

import copy
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import elman
from elman import schedules
from elman.models.base import network_of
from elman.training import Training

from ..compare import assert_same_bits

V, H = 5, 8
SEQUENCES = [np.random.default_rng(i).integers(0, V, 2 + i % 9) for i in range(20)]
HELD_OUT = (SEQUENCES[:4], SEQUENCES[:4])


def make_model(**options: Any) -> elman.SequenceModel:
    options = {"hidden_size": H, "num_layers": 2, "dropout": 0.2, "seed": 0} | options
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), **options)


def fit(model: elman.SequenceModel, **options: Any) -> elman.History:
    options = {"epochs": 3, "batch_size": 4, "optimizer": elman.Adam(0.01), "progress": False} | options
    return model.fit(SEQUENCES, [np.roll(x, -1) for x in SEQUENCES], **options)


# History and callbacks


def test_what_a_schedule_returns_is_checked():
    model = make_model()
    before = model.state_dict()
    for value in ("x", None, -1.0, np.nan):
        with pytest.raises((TypeError, ValueError), match="what schedule returns must be a finite number"):
            fit(model, schedule=lambda *_, value=value: value)
    assert_same_bits(model.parameters(), before)


@pytest.mark.parametrize("n", [3, 7, 10, 19])
def test_the_progress_bar_ends_where_it_should(n: int, monkeypatch: pytest.MonkeyPatch):
    """Sums of fractions may be too large by a rounding error, of which tqdm warns when it is shown."""
    import tqdm

    class Bar(tqdm.tqdm):
        def update(self, n: float = 1) -> bool | None:
            shown = super().update(n)
            assert 0 <= self.n <= self.total
            return shown

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    x = [np.arange(4) % V] * n
    make_model().fit(x, x, epochs=6, batch_size=1, tbptt=(3, 3))


def test_the_progress_bar_moves_with_each_update(monkeypatch: pytest.MonkeyPatch):
    import tqdm

    seen = []

    class Bar(tqdm.tqdm):
        def update(self, n: float = 1) -> bool | None:
            shown = super().update(n)
            seen.append(self.n)
            return shown

    monkeypatch.setattr("tqdm.tqdm", Bar)
    x = np.arange(24).reshape(2, 12) % V
    for tbptt, parts in ((None, 2), ((3, 3), 8)):  # of an epoch of two batches
        seen.clear()
        make_model().fit(x, np.roll(x, -1, axis=1), epochs=2, batch_size=1, tbptt=tbptt)
        np.testing.assert_allclose(sorted(set(np.round(seen, 9))), np.arange(1, 2 * parts + 1) / parts)


def test_history_is_a_dict_of_lists_with_a_plot(tmp_path: Path):
    history = fit(make_model(), validation_data=HELD_OUT)
    assert list(history) == ["loss", "val_loss", "val_accuracy"]
    assert all(len(values) == 3 for values in history.values())
    figure = history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes()[1:4] == b"PNG"
    drawn = [line.get_label() for axes in figure.axes for line in axes.lines]
    assert drawn == ["loss", "val_loss", "val_accuracy"]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), history["val_loss"])
    assert len(fit(make_model()).plot().axes) == 1
    more = elman.History(loss=[1.0], val_loss=[1.0], val_f1=[0.5], val_perplexity=[30.0], val_rmse=[9.0])
    panels = [[line.get_label() for line in axes.lines] for axes in more.plot().axes]
    assert panels == [["loss", "val_loss"], ["val_perplexity", "val_rmse"], ["val_f1"]]


def test_the_last_validation_is_an_evaluation():
    model = make_model()
    history = fit(model, validation_data=(*HELD_OUT, [1, 2, 0.5, 0]))
    found = model.evaluate(*HELD_OUT, weights=[1, 2, 0.5, 0])
    assert {"val_loss": history["val_loss"][-1], "val_accuracy": history["val_accuracy"][-1]} == {
        f"val_{name}": pytest.approx(value, rel=1e-6) for name, value in found.items()
    }


class Recorder(elman.Callback):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_start(self, training: Training) -> None:
        self.calls.append(("start", training.epoch, training.steps))

    def on_step(self, training: Training) -> None:
        self.calls.append(("step", training.epoch, training.steps))
        assert math.isfinite(training.loss)

    def on_epoch(self, training: Training) -> None:
        self.calls.append(("epoch", training.epoch, training.steps))

    def on_end(self, training: Training) -> None:
        self.calls.append(("end", training.epoch, training.steps))


def test_callbacks_are_called_in_order():
    recorder, seen = Recorder(), []
    fit(make_model(), epochs=2, batch_size=10, callbacks=[recorder, lambda training: seen.append(training.history)])
    assert recorder.calls == [
        ("start", 0, 0),
        *[("step", 0, 1), ("step", 0, 2), ("epoch", 1, 2)],
        *[("step", 1, 3), ("step", 1, 4), ("epoch", 2, 4)],
        ("end", 2, 4),
    ]
    assert len(seen) == 2
    assert len(seen[0]["loss"]) == 2


def test_a_callback_may_stop_and_change_the_learning_rate():
    def halve(training: Training) -> None:
        training.optimizer.lr /= 2
        if training.epoch == 2:
            training.stop()

    optimizer = elman.SGD(0.4)
    assert len(fit(make_model(), epochs=9, optimizer=optimizer, callbacks=[halve])["loss"]) == 2


def test_what_a_callback_raises_leaves_the_model_as_a_stop_does(tmp_path: Path):
    class Pruned(Exception):
        pass

    class Ends(elman.Callback):
        def __init__(self, *, raises: bool) -> None:
            self.raises, self.ended = raises, False

        def on_epoch(self, training: Training) -> None:
            if training.epoch == 2:
                training.stop()
                if self.raises:
                    raise Pruned

        def on_end(self, training: Training) -> None:  # noqa: ARG002
            self.ended = True

    models, optimizers = [make_model() for _ in range(2)], [elman.Adam(0.1) for _ in range(2)]
    callbacks = [Ends(raises=raises) for raises in (False, True)]
    options: dict[str, Any] = {"epochs": 5, "batch_size": 10, "schedule": elman.schedules.Cosine()}
    path = tmp_path / "run.safetensors"
    fit(models[0], **options, optimizer=optimizers[0], callbacks=callbacks[:1])
    with pytest.raises(Pruned):
        fit(models[1], **options, optimizer=optimizers[1], callbacks=callbacks[1:], checkpoint=path)
    assert [callback.ended for callback in callbacks] == [True, False]
    assert_same_bits(models[0].parameters(), models[1].parameters())
    assert [optimizer.lr for optimizer in optimizers] == [0.1, 0.1]
    again = [fit(model, **options, optimizer=each) for model, each in zip(models, optimizers, strict=True)]
    assert again[0] == again[1], "the optimizer's memory and what is random, too"
    epochs: list[int] = []
    whole = fit(make_model(), **options, optimizer=elman.Adam(0.1))
    resumed = {"checkpoint": path, "resume": True, "callbacks": [lambda training: epochs.append(training.epoch)]}
    assert fit(make_model(), **options, optimizer=elman.Adam(0.1), **resumed) == whole
    assert epochs == [2, 3, 4, 5], "the file is that of the epoch before"


class EndAt(elman.Callback):
    """Ends a run after that step."""

    def __init__(self, step: int) -> None:
        self.step, self.steps = step, 0

    def on_step(self, training: Training) -> None:
        self.steps = training.steps
        if training.steps == self.step:
            training.stop(now=True)


@pytest.mark.parametrize("options", [{}, {"tbptt": (2, 3)}, {"checkpoint_every": 7}])
@pytest.mark.parametrize("is_function", [False, True])
def test_a_callback_may_end_a_run_at_once(options: dict[str, Any], is_function: bool, tmp_path: Path):
    """In the middle of the second epoch; the file says that the run is over."""
    X = [SEQUENCES[start : start + 4] for start in range(0, 20, 4)]

    def run(model: elman.SequenceModel, **others: Any) -> elman.History:
        given = {"epochs": 9, "batch_size": 4, "progress": False, "checkpoint": tmp_path / "run", **options, **others}
        if is_function:
            return model.fit(lambda: [(x, x) for x in X], **given)
        return model.fit(SEQUENCES, SEQUENCES, **given)

    model, end = make_model(), EndAt(7)
    history = run(model, callbacks=[end], validation_data=HELD_OUT)
    assert end.steps == 7
    assert len(history["loss"]) == len(history["val_loss"]) == (1 if "tbptt" in options else 2)
    again, watch = make_model(), EndAt(0)
    assert run(again, callbacks=[watch], validation_data=HELD_OUT, resume=True) == history
    assert watch.steps == 0
    assert_same_bits(again.parameters(), model.parameters())


def test_early_stopping():
    """Losses that are given: the best one is the third, and two epochs later it is over."""
    values = [1.0, 0.9, 0.5, 0.7, 0.45, 0.3]
    model, kept = make_model(), []

    class Given(elman.Callback):
        def on_epoch(self, training: Training) -> None:
            training.history["loss"][-1] = values[training.epoch - 1]
            kept.append(model.state_dict())

    stopping = elman.EarlyStopping("loss", patience=2, min_delta=0.1)
    for _ in range(2):  # it may be used again
        kept.clear()
        assert fit(model, epochs=6, callbacks=[Given(), stopping])["loss"] == values[:5]
        assert_same_bits(model.parameters(), kept[2])
    plain = elman.EarlyStopping("loss", patience=2, min_delta=0.1, restore_best=False)
    fit(model, epochs=6, callbacks=[Given(), plain])
    assert_same_bits(model.parameters(), kept[-1])
    for mode, n_epochs in {"auto": 5, "min": 5, "max": 3}.items():
        values = [2.0, 1.0, 0.5, 0.5, 0.5, 0.5]
        stopping = elman.EarlyStopping("loss", patience=2, mode=mode)
        assert fit(model, epochs=6, callbacks=[Given(), stopping])["loss"] == values[:n_epochs]
    for name, n_epochs in {"rmse": 5, "poisson_deviance": 5, "mcc": 3}.items():
        stopping, seen = elman.EarlyStopping(f"val_{name}", patience=2), iter([2.0, 1.0, 0.5, 0.5, 0.5, 0.5])
        own = {name: lambda *_, seen=seen: next(seen)}
        history = fit(model, epochs=6, callbacks=[stopping], validation_data=HELD_OUT, metrics=own)
        assert len(history["loss"]) == n_epochs
    rising = elman.EarlyStopping("val_accuracy", patience=1)
    history = fit(model, epochs=50, callbacks=[rising], validation_data=HELD_OUT)["val_accuracy"]
    assert all(a < b for a, b in itertools.pairwise(history[:-1]))
    assert model.evaluate(*HELD_OUT)["accuracy"] == max(history)


def test_reduce_on_plateau():
    """Of losses that are given, lr epoch by epoch; a schedule's factor comes on top."""
    values, seen = [1.0, 0.9, 0.95, 0.92, 0.91, 0.91, 0.91, 0.5], []

    class Given(elman.Callback):
        def on_step(self, training: Training) -> None:
            seen.append(training.optimizer.lr)

        def on_epoch(self, training: Training) -> None:
            training.history["loss"][-1] = values[training.epoch - 1]

    plateau = elman.ReduceOnPlateau("loss", factor=0.25, patience=2, min_lr=0.03)
    expected = np.array([0.4] * 4 + [0.1] * 2 + [0.03] * 2)
    for schedule, factors in ((None, 1.0), (lambda done, _: 0.5 ** int(done), 0.5 ** np.arange(8))):
        for _ in range(2):  # it may be used again
            seen.clear()
            optimizer = elman.SGD(0.4)
            options = {"callbacks": [Given(), plateau], "schedule": schedule, "batch_size": 1000}
            fit(make_model(), epochs=8, optimizer=optimizer, **options)
            np.testing.assert_allclose(seen, expected * factors, rtol=1e-12)
            assert optimizer.lr == 0.4
    with pytest.raises(ValueError, match=r"^monitor='val_loss' needs validation_data="):
        fit(make_model(), epochs=1, callbacks=[elman.ReduceOnPlateau()])


# Schedules


def test_schedules():
    cosine = schedules.Cosine(warmup=2, final=0.1)
    assert [cosine(done, 12) for done in (0, 1, 2)] == [0, 0.5, 1]
    assert cosine(7, 12) == pytest.approx(0.55)
    assert cosine(12, 12) == pytest.approx(0.1)
    step = schedules.Step(3, factor=0.5, warmup=1)
    assert [step(done, 9) for done in (0.5, 1, 3.9, 4, 7)] == [0.5, 1, 1, 0.5, 0.25]
    assert schedules.Constant()(3, 4) == 1


@pytest.mark.parametrize(
    "schedule", [schedules.Cosine(warmup=1), schedules.Step(1, factor=0.5), lambda done, n: done / n]
)
def test_the_schedule_multiplies_the_learning_rate(schedule: Any):
    rates, optimizer = [], elman.Adam(0.01)

    class Rates(elman.Callback):
        def on_step(self, training: Training) -> None:
            rates.append(training.optimizer.lr)

    fit(make_model(), epochs=2, batch_size=10, optimizer=optimizer, schedule=schedule, callbacks=[Rates()])
    assert rates == [pytest.approx(0.01 * schedule(done, 2)) for done in (0.25, 0.75, 1.25, 1.75)]
    assert optimizer.lr == 0.01


# Checkpoints


class Stop(Exception):
    pass


class StopAt(elman.Callback):
    """Cut a run off after a step, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Training) -> None:
        if training.steps == self.step:
            raise Stop


def everything(model: elman.SequenceModel, optimizer: Any) -> dict[str, np.ndarray]:
    memories = {f"memory {i}": array for i, array in enumerate(optimizer._memories["flat"])}
    return copy.deepcopy({**model.parameters(), **memories, "steps": np.array(optimizer.steps)})


OPTIONS = [
    {"optimizer": elman.Adam, "schedule": schedules.Cosine(warmup=0.5)},
    {"optimizer": lambda lr: elman.SGD(lr, momentum=0.9), "clip_norm": 0.1},
    {"optimizer": elman.AdamW, "tbptt": (2, 3)},
    {"optimizer": elman.Adagrad, "tbptt": (2, 5), "validation_data": HELD_OUT, "stopping": True},
    {"optimizer": elman.Adam, "shuffle": False, "validation_data": HELD_OUT, "stopping": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("checkpoint_every", [None, 1, 3])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(
    options: dict[str, Any], checkpoint_every: int | None, tmp_path: Path
):
    make_optimizer = options["optimizer"]
    given = {key: value for key, value in options.items() if key not in ("optimizer", "stopping")}

    def callbacks() -> list[elman.Callback]:
        return [elman.EarlyStopping(patience=2)] if "stopping" in options else []

    whole, optimizer = make_model(), make_optimizer(0.02)
    history = fit(whole, optimizer=optimizer, callbacks=callbacks(), **given)
    n_steps = optimizer.steps
    path = tmp_path / "run.safetensors"
    given |= {"checkpoint": path, "checkpoint_every": checkpoint_every}
    for step in (1, 4, 5, 7, 11, n_steps - 2):  # each one goes on from where the last one left its checkpoint
        assert step < n_steps
        with pytest.raises(Stop):
            fit(
                make_model(seed=None if path.exists() else 0),
                optimizer=make_optimizer(0.02),
                callbacks=[*callbacks(), StopAt(step)],
                resume=True,
                **given,
            )
    model, optimizer_2 = make_model(seed=None if path.exists() else 0), make_optimizer(0.02)
    went_on = fit(model, optimizer=optimizer_2, callbacks=[*callbacks(), StopAt(-1)], resume=True, **given)
    assert went_on == history
    assert_same_bits(everything(model, optimizer_2), everything(whole, optimizer))
    assert fit(model, optimizer=optimizer_2, schedule=given.get("schedule")) == fit(
        whole, optimizer=optimizer, schedule=given.get("schedule")
    ), "what is random goes on as well"


def test_a_checkpoint_is_a_model_and_a_finished_run_stays_finished(tmp_path: Path):
    model, path = make_model(), tmp_path / "run.safetensors"
    model.metadata = {"some": "text"}
    history = fit(model, checkpoint=path)
    loaded = elman.load(path)
    assert_same_bits(loaded.parameters(), model.parameters())
    assert loaded.metadata == {"some": "text"}
    other, recorder = make_model(), Recorder()
    path_2 = tmp_path / "other.safetensors"
    fit(other, checkpoint=path_2, callbacks=[Recorder()])
    assert fit(loaded, checkpoint=path, resume=True) == history
    assert_same_bits(loaded.parameters(), model.parameters())
    again = fit(loaded, checkpoint=path, resume=True, epochs=4)
    assert again["loss"][:3] == history["loss"]
    assert len(again["loss"]) == 4
    fit(make_model(), checkpoint=path_2, resume=True, callbacks=[recorder])
    assert recorder.calls == [("start", 3, 15), ("end", 3, 15)]


def tamper(path: Path, name: str, array: Any) -> None:
    """One of the arrays of a checkpoint replaced, added, or with None taken out."""
    with safe_open(path, framework="np") as file:
        header, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array if isinstance(array, np.ndarray) else np.full_like(arrays[name], array)
    save_file(arrays, path, header)


def tamper_record(path: Path, name: str, value: Any) -> None:
    """A part of the record replaced, or with ... taken out."""
    with safe_open(path, framework="np") as file:
        header, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    record = json.loads(header["training"]) | {name: value}
    header["training"] = json.dumps({key: value for key, value in record.items() if value is not ...})
    save_file(arrays, path, header)


class RaiseAt(elman.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, training: Training) -> None:
        if training.steps == self.step:
            raise ValueError("stop here")


WRONG_ARRAYS = [
    ("training:state", np.zeros((2, 1, 8), "f4")),  # for a batch of 4: used to be read, and written, out of bounds
    ("training:state", np.zeros((2, 5, 8), "f4")),
    ("training:state", np.zeros((1, 4, 8), "f4")),
    ("training:state", np.zeros((2, 4, 7), "f4")),
    ("training:state", np.zeros((2, 4, 8), "f8")),
    ("training:state", None),
    ("training:optimizer.0", np.zeros(3, "f4")),
    ("training:optimizer.1", None),
    ("training:optimizer.1", np.nan),  # all of it
    ("training:optimizer.2", np.zeros(3, "f4")),
    ("training:callback.0.parameters", np.zeros(1, "f4")),
]
WRONG_RECORDS = [
    ("window", 4), ("window", -1), ("window", 10**30), ("window", None), ("batch", 5), ("batch", -1), ("epoch", 2),
    ("epoch", 1.0), ("steps", -1), ("optimizer_steps", -3), ("optimizer_steps", 0), ("lr", -1), ("lr", "x"),
    ("sums", [1]), ("sums", ["a", 1]), ("sums", [1, -1]), ("is_stopped", 0), ("generators", []), ("generators", [1, 2]),
    ("history", {"loss": []}), ("history", [1]), ("callbacks", []), ("callbacks", [{"best": "x", "waited": 0}]),
    ("callbacks", [{"best": 0.0, "waited": -1}]), ("settings", ...), ("sums", [1, 0]), ("lr", ...),
]  # fmt: skip


@pytest.mark.parametrize("change", [*WRONG_ARRAYS, *WRONG_RECORDS], ids=lambda change: change[0])
def test_a_checkpoint_is_checked_before_anything_is_changed(tmp_path: Path, change: Any):
    path = tmp_path / "run.safetensors"
    options: dict[str, Any] = {"tbptt": (2, 2), "checkpoint": path, "validation_data": HELD_OUT, "epochs": 3}
    with pytest.raises(ValueError, match="stop here"):
        fit(make_model(), **options, callbacks=[elman.EarlyStopping(patience=9), RaiseAt(26)], checkpoint_every=1)
    with safe_open(path, framework="np") as file:
        record = json.loads(file.metadata()["training"])
    assert record["epoch"] == 1
    assert record["window"] > 0, "this is about the states that a window begins with"
    (tamper if change[0].startswith("training:") else tamper_record)(path, *change)
    model, optimizer = make_model(seed=5), elman.Adam(0.01)
    before, generators = model.state_dict(), [g.bit_generator.state for g in network_of(model).generators()]
    with pytest.raises(ValueError, match=re.escape(str(path))):
        fit(
            model, **options, optimizer=optimizer, callbacks=[elman.EarlyStopping(patience=9), RaiseAt(-1)], resume=True
        )
    assert_same_bits(model.parameters(), before)
    assert [g.bit_generator.state for g in network_of(model).generators()] == generators
    assert optimizer.steps == 0
    assert optimizer.lr == 0.01


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np, elman
class Waits(elman.Callback):
    def on_step(self, training):
        if training.steps == int(sys.argv[2]):
            print("waiting", flush=True)
            sys.stdin.readline()
x = [np.random.default_rng(i).integers(0, 5, 2 + i % 9) for i in range(20)]
model = elman.SequenceModel(elman.Tokens(5), elman.Categories(5), hidden_size=8, dropout=0.2, num_layers=2, seed=0)
history = model.fit(
    x, x, epochs=6, batch_size=4, progress=False, callbacks=[Waits()],
    checkpoint=sys.argv[1], checkpoint_every=1, resume=True,
)
model.save(sys.argv[1] + ".whole")
print("done", history["loss"])
"""


def start(path: Path, *, wait_at: int = 0) -> subprocess.Popen[str]:
    """The program in a process of its own; returned when it waits at this step, for a line to go on."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(wait_at)], text=True, **pipes)
    if wait_at:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
    return process


def result(path: Path) -> str:
    with start(path) as process:
        return process.communicate(timeout=120)[0].splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_after_kill_minus_nine(tmp_path: Path):
    """Killed in a step, and somewhere after one: there is an old checkpoint or a new one, and the end is the same."""
    whole, path = tmp_path / "whole", tmp_path / "run"
    expected = result(whole)
    for step, goes_on in ((1, False), (2, True), (12, False), (20, True), (25, False)):
        with start(path, wait_at=step) as process:
            if goes_on:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        assert not path.exists() or elman.load(path) is not None
    assert result(path) == expected
    assert_same_bits(elman.load(f"{path}.whole").parameters(), elman.load(f"{whole}.whole").parameters())


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_saves_and_says_so(tmp_path: Path):
    whole, path = tmp_path / "whole", tmp_path / "run"
    expected = result(whole)
    with start(path, wait_at=8) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate("\n", timeout=60)
    assert "done" not in out
    assert re.search(rf"Stopped after 8 steps. {path} holds all; fit with resume=True goes on from there.", err)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert result(path) == expected
    assert sorted(os.listdir(tmp_path)) == ["run", "run.whole", "whole", "whole.whole"]


def test_the_handler_of_ctrl_c_is_put_back(tmp_path: Path):
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        seen: list[Any] = []
        options = {"epochs": 1, "callbacks": [lambda _: seen.append(signal.getsignal(signal.SIGINT))]}
        fit(make_model(), checkpoint=tmp_path / "run", **options)
        fit(make_model(), **options)
        assert signal.default_int_handler not in seen, "no update is torn, with a checkpoint or without"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)


# The same in all backends, and again


@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one", "one-to-one", "one-to-many"])
@pytest.mark.parametrize("outputs", [elman.Categories(3), elman.Binary(2), elman.Reals(2)], ids=str)
def test_training_curves_of_all_backends_agree(outputs: Any, pattern: str, rng: np.random.Generator):
    lengths = rng.integers(1, 9, 30)
    one_in, one_out = pattern.startswith("one"), pattern.endswith("one")
    X: Any = rng.standard_normal((30, 4)) if one_in else [rng.standard_normal((n, 4)) for n in lengths]
    shape = () if isinstance(outputs, elman.Categories) else (2,)
    Y: Any = [rng.integers(0, 2, (n, *shape)) for n in lengths]
    Y = np.array([y[0] for y in Y]) if one_out else Y
    curves = []
    for backend in elman.available_backends():
        model = elman.SequenceModel(
            elman.Features(4), outputs, pattern=pattern, hidden_size=7, num_layers=2, dropout=0.1, dtype="float64",
            seed=2, backend=backend,
        )  # fmt: skip
        options = {"epochs": 8, "batch_size": 5, "optimizer": elman.Adam(0.02), "clip_norm": 1.0, "progress": False}
        curves.append(model.fit(X, Y, **options, validation_data=(X, Y)))
    assert curves[0]["loss"][-1] < curves[0]["loss"][0]
    for curve in curves[1:]:
        for name, values in curve.items():
            np.testing.assert_allclose(values, curves[0][name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tbptt", [None, (3, 4)])
def test_one_seed_makes_everything_the_same(tbptt: Any, threads: Any):
    results = []
    for n_threads in (1, 2, 5):
        threads(n_threads)
        model = make_model(hidden_size=40)
        results.append((fit(model, tbptt=tbptt), model.state_dict()))
    for history, parameters in results[1:]:
        assert history == results[0][0]
        assert_same_bits(parameters, results[0][1])
