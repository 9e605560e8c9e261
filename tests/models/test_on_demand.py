"""Data that are read when a batch needs them: the same runs as with arrays in memory, messages that name the row."""

import os
import re
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data import rows, sequences
from elman.data.order import Groups, Shuffled

from ..compare import assert_same_bits

N, T, V = 70, 9, 5


class OnDisk:
    """What arrays on disk have in common (zarr, h5py): slices are read, and other indices refused."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.dtype, self.n_read = array, array.shape, array.dtype, 0

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> np.ndarray:
        assert isinstance(index, slice)
        found = self._array[index].copy()
        self.n_read += len(found)
        return found


def mapped(array: np.ndarray, folder: Path) -> np.ndarray:
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def mapped_list(array: np.ndarray, folder: Path) -> list[np.ndarray]:
    return [mapped(row, folder) for row in array]


def on_disk(array: np.ndarray, folder: Path) -> OnDisk:  # noqa: ARG001
    return OnDisk(array)


def small(array: np.ndarray, folder: Path) -> np.ndarray:  # noqa: ARG001
    return array


def hdf5(array: np.ndarray, folder: Path) -> Any:
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / f"{len(list(folder.iterdir()))}.h5", "w")
    return file.create_dataset("data", data=array)


def chunked(array: np.ndarray, folder: Path) -> Any:
    zarr = pytest.importorskip("zarr")
    return zarr.array(array, chunks=(7, *array.shape[1:]), store=str(folder / f"{len(list(folder.iterdir()))}.zarr"))


WAYS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "memmap": mapped,
    "list of memmaps": mapped_list,
    "on disk": on_disk,
    "small integers": small,
    "h5py": hdf5,
    "zarr": chunked,
}


def model(inputs: Any = None, outputs: Any = None, **options: Any) -> elman.SequenceModel:
    inputs, outputs = inputs or elman.Tokens(V), outputs or elman.Categories(V)
    return elman.SequenceModel(inputs, outputs, hidden_size=6, seed=0, **options)


def tokens(seed: int, *shape: int, least: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(least, V, shape).astype(np.int8)


def run(made: elman.SequenceModel, X: Any, Y: Any, **options: Any) -> dict[str, Any]:
    """What a training and all that comes after it give."""
    history = made.fit(X, Y, epochs=2, batch_size=8, progress=False, **options)
    scores = made.evaluate(X, Y, batch_size=8, weights=options.get("weights"))
    return {"history": dict(history), **scores, "predicted": [row.tolist() for row in made.predict(X)]}


@pytest.mark.parametrize("way", WAYS)
def test_runs_are_those_of_arrays_in_memory(way: str, tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, T)
    expected = run(model(), x.astype(np.int64), y.astype(np.int64))
    assert run(model(), WAYS[way](x, tmp_path), WAYS[way](y, tmp_path)) == expected


@pytest.mark.parametrize("way", ["memmap", "on disk", "h5py"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "options"),
    [
        (elman.Features(3), elman.Reals(2), {}),
        (elman.Features(1), elman.Binary(), {"pattern": "many-to-one"}),
        (elman.Tokens(V), elman.Categories(V), {"pattern": "one-to-one"}),
        (elman.Tokens(V), elman.Categories(V), {"pattern": "one-to-many"}),
        (elman.Features(3), elman.Categories(V), {"pattern": "one-to-many"}),
    ],
    ids=str,
)
def test_all_kinds_and_patterns(way: str, inputs: Any, outputs: Any, options: dict[str, Any], tmp_path: Path):
    rng = np.random.default_rng(0)
    pattern = options.get("pattern", "many-to-many")
    x_shape = (N,) if pattern.startswith("one") else (N, T)
    y_shape = (N,) if pattern.endswith("one") else (N, T)
    x = tokens(0, *x_shape) if isinstance(inputs, elman.Tokens) else rng.normal(size=(*x_shape, inputs.n))
    y = tokens(1, *y_shape)
    if not isinstance(outputs, elman.Categories):
        y = rng.integers(0, 2, (*y_shape, outputs.n)).astype(np.uint8)
    results = []
    for given in ((x, y), (WAYS[way](x, tmp_path), WAYS[way](y, tmp_path))):
        made = model(inputs, outputs, **options)
        history = made.fit(*given, epochs=2, batch_size=8, progress=False)
        results.append((dict(history), made.evaluate(*given)))
    assert results[0] == results[1]


SMALL = ["bool", "float16", "int8", "uint8", ">i2", "uint16"]


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("way", ["memmap", "list of memmaps", "h5py", "small integers"])
def test_small_dtypes_are_the_reals_that_they_stand_for(way: str, dtype: str, tmp_path: Path):
    rng, n = np.random.default_rng(0), 20
    least, most = (0, 2) if dtype == "bool" else (0, 60) if "u" in dtype else (-60, 60)
    x, y = (rng.integers(least, most, (n, T, columns)).astype(dtype) for columns in (3, 2))
    labels, weights = rng.integers(0, 2, (n, T, 2)).astype(dtype), rng.integers(0, 3, (n, T)).astype(dtype)
    options = {"dtype": "float64", "backend": "numpy"} if dtype == "float16" else {}
    for own_y, outputs in ((y, elman.Reals(2)), (labels, elman.Binary(2))):
        results = []
        for give in (lambda array, _: array.astype(np.float32), WAYS[way]):
            X, Y, own_weights = (give(array, tmp_path) for array in (x, own_y, weights))
            results.append(run(model(elman.Features(3), outputs, **options), X, Y, weights=own_weights))
        assert results[0] == results[1]


def test_small_dtypes_are_never_there_as_reals_in_whole():
    x = np.random.default_rng(0).integers(0, 255, (2000, 50, 40)).astype(np.uint8)
    made = model(elman.Features(40), elman.Reals(1), pattern="many-to-one")
    given = {"epochs": 1, "batch_size": 8, "progress": False}
    made.fit(x[:8], x[:8, 0, 0], **given)  # what is imported, and kept
    tracemalloc.start()
    try:
        made.fit(x, x[:, 0, 0], **given)
        made.evaluate(x, x[:, 0, 0], batch_size=8)
        made.predict(x, batch_size=8)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * 4 * (1 << 22)  # a block as float32, and some more
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, complex, object])
def test_what_float32_does_not_hold_is_refused(dtype: Any, tmp_path: Path):
    made, x = model(elman.Features(2), elman.Reals(1)), np.ones((N, T, 2), dtype)
    for X in (x, [*x], *([mapped(x, tmp_path)] if dtype is not object else [])):
        with pytest.raises(TypeError, match=rf"^X(\[0\])? must hold float32 or float64, got {np.dtype(dtype)}"):
            made.fit(X, np.ones((N, T)), progress=False)


def test_weights_resets_and_validation_data(tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, T, least=-1)
    rng = np.random.default_rng(2)
    weights, resets = rng.random((N, T)).astype(np.float16), rng.random((N, T)) < 0.2
    results = []
    for way in (small, mapped, on_disk):
        parts = [way(part, tmp_path) for part in (x, y, weights, resets)]
        options = {"weights": parts[2], "resets": parts[3], "validation_data": tuple(parts)}
        results.append(dict(model().fit(*parts[:2], **options, epochs=2, batch_size=8, progress=False)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("way", ["memmap", "list of memmaps", "on disk"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_what_is_wrong_is_named_by_its_row(way: str, shuffle: bool, tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, T)
    x[37, 4] = V
    with pytest.raises(ValueError, match=rf"^X\[37\] must hold tokens from 0 to {V - 1}, got {V} at \[4\]"):
        model().fit(WAYS[way](x, tmp_path), WAYS[way](y, tmp_path), shuffle=shuffle, epochs=1, progress=False)
    y[12, 0] = -2
    with pytest.raises(ValueError, match=r"^Y\[12\] must hold -1 \(no target\) or categories"):
        model().evaluate(WAYS[way](np.minimum(x, V - 1), tmp_path), WAYS[way](y, tmp_path))
    rows = np.random.default_rng(0).normal(size=(N, T, 3))
    rows[41, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"^X\[41\] must be finite, got nan at \[2, 1\]"):
        model(elman.Features(3)).predict(WAYS[way](rows, tmp_path))


def test_the_first_row_tells_what_is_wrong_with_all(tmp_path: Path):
    made, x = model(), mapped(np.zeros((N, T)), tmp_path)
    before = made.state_dict()
    with pytest.raises(TypeError, match=r"^X(\[0\])? must hold integers, got float64"):
        made.fit(x, x, progress=False)
    with pytest.raises(ValueError, match=r"^Y\[0\] must have as many steps as X\[0\], 9, got 8"):
        made.fit(mapped(tokens(0, N, T), tmp_path), mapped(tokens(0, N, T - 1), tmp_path), progress=False)
    with pytest.raises(ValueError, match=r"^Y must have as many sequences as X, 70, got 69"):
        made.fit(mapped(tokens(0, N, T), tmp_path), mapped(tokens(0, N - 1, T), tmp_path), progress=False)
    assert all(np.array_equal(value, before[name]) for name, value in made.state_dict().items())


def test_batches_without_a_target_are_left_out(tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, T)
    y[8:24] = -1
    made = model()
    history = made.fit(mapped(x, tmp_path), mapped(y, tmp_path), epochs=1, batch_size=8, shuffle=False, progress=False)
    rest = np.r_[0:8, 24:N]
    other = model()
    assert history == other.fit(x[rest], y[rest], epochs=1, batch_size=8, shuffle=False, progress=False)
    assert made.evaluate(mapped(x, tmp_path), mapped(y, tmp_path)) == pytest.approx(other.evaluate(x[rest], y[rest]))
    nothing = mapped(np.full_like(y, -1), tmp_path)
    with pytest.raises(ValueError, match=r"^Y must hold at least one target"):
        made.evaluate(x, nothing)
    with pytest.raises(ValueError, match=r"^Y must hold at least one target in each epoch"):
        made.fit(x, nothing, epochs=1, progress=False)
    before = made.state_dict()
    with pytest.raises(ValueError, match=r"^validation_data\[1\] must hold at least one target"):
        made.fit(x, y, validation_data=(x, nothing), epochs=1, progress=False)
    y_without_end = mapped(np.concatenate([y[:50], np.full_like(y[50:], -1)]), tmp_path)
    with pytest.raises(ValueError, match=r"^validation_split must leave a target for each part, got 0.2 of 70"):
        made.fit(x, y_without_end, validation_split=0.2, epochs=1, progress=False)
    assert_same_bits(made.state_dict(), before)  # refused before anything is trained
    given = {"epochs": 1, "batch_size": 8, "progress": False}
    assert model().fit(x, y, **given) == model().fit(mapped(x, tmp_path), y, **given)


class Stop(Exception):
    pass


class StopAt(elman.Callback):
    def __init__(self, steps: int, error: type[BaseException] = Stop) -> None:
        self.steps, self.error = steps, error

    def on_step(self, training: Any) -> None:
        if training.steps == self.steps:
            raise self.error


class Noting(OnDisk):
    """What also says who reads."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.threads = set[str]()

    def __getitem__(self, index: Any) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        return super().__getitem__(index)


def test_batches_are_read_one_ahead_in_a_thread_that_ends():
    x, before = tokens(0, N, T), threading.active_count()
    for error in (Stop, KeyboardInterrupt):
        source, n_read = Noting(x), list[int]()

        class Watches(StopAt):
            def on_step(self, training: Any, source: Noting = source, into: list[int] = n_read) -> None:
                expected = 1 + 8 * (training.steps + 1)  # the first row, which tells what they are, and a batch ahead
                for _ in range(1000):
                    time.sleep(0.01)
                    if source.n_read >= expected:
                        break
                into.append(source.n_read - expected)
                super().on_step(training)

        with pytest.raises(error):
            model().fit(source, x, batch_size=8, shuffle=False, progress=False, callbacks=[Watches(4, error)])
        assert threading.active_count() == before
        assert n_read == [0] * 4
        assert source.threads == {threading.current_thread().name, "elman-batches_0"}
    source = Noting(x)
    for method in (model().predict, lambda X: model().evaluate(X, x)):
        source.threads.clear()
        method(source)
        assert "elman-batches_0" in source.threads
        assert threading.active_count() == before
    source = Noting(np.where(np.arange(N)[:, None] == 37, V, x))
    for method in (model().predict, lambda X: model().evaluate(X, x, batch_size=8)):
        with pytest.raises(ValueError, match=rf"^X\[37\] must hold tokens from 0 to {V - 1}, got {V} at \[0\]"):
            method(source)
        assert threading.active_count() == before


def test_what_is_wrong_is_raised_when_it_is_met(tmp_path: Path):
    x = tokens(0, N, T)
    x[37] = V
    before, stop = threading.active_count(), StopAt(4)
    options: dict[str, Any] = {"batch_size": 8, "shuffle": False, "progress": False}
    X, y = mapped(x, tmp_path), tokens(1, N, T)
    with pytest.raises(Stop):  # with the row's batch in the making
        model().fit(X, y, **options, callbacks=[stop])
    with pytest.raises(ValueError, match=r"^X\[37\] must hold tokens"):
        model().fit(X, y, **options, callbacks=[StopAt(5)])
    assert threading.active_count() == before


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C does not come to a process alone")
def test_ctrl_c_while_a_batch_is_read(tmp_path: Path):
    x, before = tokens(0, N, T), threading.active_count()

    class Slow(OnDisk):
        def __getitem__(self, index: Any) -> np.ndarray:
            if self.n_read > 30:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)
            return super().__getitem__(index)

    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}
    path, whole, resumed = tmp_path / "run.safetensors", model(), model()
    with pytest.raises(KeyboardInterrupt):
        model().fit(Slow(x), x, **options, checkpoint=path)
    assert threading.active_count() == before
    assert resumed.fit(OnDisk(x), x, **options, checkpoint=path, resume=True) == whole.fit(x, x, **options)
    assert all(np.array_equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


@pytest.mark.parametrize("way", ["memmap", "h5py"])
def test_callbacks_may_read_what_is_trained_on(way: str, tmp_path: Path):
    x = tokens(0, N, T)
    scores = []
    for given in (x, WAYS[way](x, tmp_path)):
        own: list[Any] = []

        class Evaluates(elman.Callback):
            def on_step(self, training: Any, X: Any = given, into: list[Any] = own) -> None:
                into.append(training.model.evaluate(X, X, batch_size=8))

        options = {"epochs": 2, "batch_size": 8, "progress": False, "validation_data": (given, given)}
        history = model().fit(given, given, **options, callbacks=[Evaluates()])
        scores.append((dict(history), own))
    assert scores[0] == scores[1]


def test_a_run_goes_on_from_windows_without_targets(tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, T)
    y[:8], y[8:16, :3] = -1, -1  # the first batch, and the first window of the second
    X, Y = mapped(x, tmp_path), mapped(y, tmp_path)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "tbptt": (3, 3), "shuffle": False, "progress": False}
    whole, part, resumed = model(), model(), model()
    expected = whole.fit(X, Y, **options)
    options |= {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 1}
    with pytest.raises(Stop):
        part.fit(X, Y, **options, callbacks=[StopAt(2)])
    assert resumed.fit(X, Y, **options, resume=True) == expected
    assert all(np.array_equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


@pytest.mark.parametrize("is_large", [False, True])
def test_a_run_resumes_within_an_epoch(is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sequences, "_MOST_LISTED", 10 if is_large else 1 << 20)
    x, y = mapped(tokens(0, N, T), tmp_path), mapped(tokens(1, N, T), tmp_path)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False}
    whole = model()
    expected = whole.fit(x, y, **options)

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        model().fit(x, y, **options, checkpoint=path, checkpoint_every=1, callbacks=[StopAt(13)])
    resumed = model()
    assert resumed.fit(x, y, **options, checkpoint=path, resume=True) == expected
    assert all(np.array_equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    with pytest.raises(ValueError, match="X is 70 sequences of 630 steps"):
        model().fit(mapped(tokens(5, N, T), tmp_path), y, **options, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="X is 70 sequences of 630 steps"):
        model().fit(np.array(x), y, **options, checkpoint=path, resume=True)


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 65, 1000])
def test_an_order_has_all_numbers(n: int):
    orders = [Shuffled(n, key).at(np.arange(n)) for key in range(4)]
    assert all(sorted(order.tolist()) == list(range(n)) for order in orders)
    if n > 60:
        assert len({tuple(order) for order in orders}) == 4
        correlation = np.corrcoef(np.arange(n), orders[0])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(n)


def test_groups_of_a_large_data_set():
    lengths = np.random.default_rng(0).integers(1, 50, 1003)
    groups = Groups(lengths, 8, 4, key=3)
    assert len(groups) == len([*groups]) == 126
    assert sorted(np.concatenate([*groups]).tolist()) == list(range(1003))
    assert [group.tolist() for group in groups] == [groups[i].tolist() for i in range(126)]
    spread = np.mean([np.ptp(lengths[group]) for group in groups])
    assert spread < np.mean([np.ptp(lengths[group]) for group in Groups(lengths, 8, 1, key=3)])
    far_too_many = np.broadcast_to(np.int64(T), (10**12,))
    assert Groups(far_too_many, 32, 32, key=1)[10**9].max() < 10**12


@pytest.mark.parametrize("part", [np.s_[:], np.s_[3:], np.s_[::2], np.s_[::-1], np.s_[:, 1:, :5]], ids=str)
def test_what_is_asked_for_of_a_large_file(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    x = np.random.default_rng(0).integers(0, 255, (N, 8, 1000)).astype(np.uint8)
    path, order = tmp_path / "x.npy", np.random.default_rng(1).permutation(len(x[part]))
    np.save(path, x)
    monkeypatch.setattr(rows, "_LARGE", 1)
    for near in (rows._NEAR, 1 << 13):
        monkeypatch.setattr(rows, "_NEAR", near)
        source = np.load(path, mmap_mode="r")[part]
        for chosen in (order, np.sort(order), order[:1]):
            np.testing.assert_array_equal(rows.gathered(source, chosen), x[part][chosen])
        starts = order[order < len(order) - 3]
        expected = np.stack([x[part][start : start + 3] for start in starts])
        np.testing.assert_array_equal(rows.stretches_of(source, starts, 3), expected)


def test_a_run_over_more_rows_than_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sequences, "_MOST_LISTED", 10)
    x, seen = tokens(0, N, T), []
    source = OnDisk(x)
    made = model()
    made.fit(source, mapped(x, tmp_path), epochs=1, batch_size=8, progress=False, callbacks=[lambda _: seen.append(1)])
    assert source.n_read == N + 1  # and the first, which tells what they are
    assert made.evaluate(source, x) == pytest.approx(made.evaluate(x, x))
    np.testing.assert_array_equal(made.predict(source), made.predict(x))


@pytest.mark.parametrize("stride", [None, 1, 4])
@pytest.mark.parametrize("way", ["memmap", "on disk", "small integers"])
def test_windows_are_those_cut_by_hand(way: str, stride: int | None, tmp_path: Path):
    series = tokens(3, 203)
    starts = np.arange(0, 203 - T, stride or T)
    cut = np.stack([series[s : s + T] for s in starts]), np.stack([series[s + 1 : s + T + 1] for s in starts])
    windows = elman.Windows(WAYS[way](series, tmp_path), T, stride=stride)
    assert len(windows) == len(starts)
    made, by_hand = model(), model()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}
    assert made.fit(windows, validation_data=windows, **options) == by_hand.fit(*cut, validation_data=cut, **options)
    assert made.evaluate(windows) == by_hand.evaluate(*cut)
    np.testing.assert_array_equal(made.predict(windows), by_hand.predict(cut[0]))


def test_windows_of_features_with_targets_of_their_own():
    rng = np.random.default_rng(0)
    series, targets = rng.normal(size=(100, 3)), rng.normal(size=100)
    made = model(elman.Features(3), elman.Reals(), pattern="many-to-one")
    starts = np.arange(0, 100 - T - 2 + 1, 5)
    x, y = np.stack([series[s : s + T] for s in starts]), targets[starts + T - 1 + 2]
    windows = elman.Windows(series, T, stride=5, targets=targets, horizon=2)
    assert made.evaluate(windows) == made.evaluate(x, y)
    one_column = model(elman.Features(1), elman.Reals())
    windows = elman.Windows(targets, T, horizon=0)
    assert one_column.predict(windows).shape == (100 // T, T, 1)


def test_windows_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^series must have at least length \+ horizon = 10 steps, got 9"):
        elman.Windows(np.arange(9), 9)
    with pytest.raises(ValueError, match=r"^targets must have as many steps as series, 9, got 8"):
        elman.Windows(np.arange(9), 2, targets=np.arange(8))
    with pytest.raises(ValueError, match=r"^series must have shape \(S,\) or \(S, n\), got \(2, 3, 4\)"):
        elman.Windows(np.zeros((2, 3, 4)), 1)
    windows = elman.Windows(np.arange(9) % V, 3)
    with pytest.raises(TypeError, match=r"^Y must be None where X is Windows"):
        model().fit(windows, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"^X must be one input for each sequence with pattern='one-to-one'"):
        model(pattern="one-to-one").fit(windows)
    with pytest.raises(ValueError, match=r"^X must be one input for each sequence with pattern='one-to-one'"):
        model(pattern="one-to-one").predict(windows)
    with pytest.raises(TypeError, match=r"^X must be a list .* got Windows of 3 steps, 2 of them, which SequenceModel"):
        elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=2).fit(windows)


def test_what_is_wrong_in_a_series_is_named_by_its_place():
    for series, targets, pattern, place, at in (
        (np.array([0, 1, 2, 3, 7, 0, 0, 0]), None, "many-to-many", "X[1] = series[3:6]", "[1]"),
        (np.zeros(8, int), np.array([0, 1, 2, 3, 4, 7, 0, 0]), "many-to-many", "Y[1] = targets[4:7]", "[1]"),
        (np.zeros(8, int), np.array([0, 1, 2, 3, 4, 0, 7, 0]), "many-to-one", "Y[1] = targets[6]", "[]"),
    ):
        windows = elman.Windows(series, 3, targets=targets)
        for given, name in (((windows,), ""), ((np.zeros((2, 3), int),) * 2, "validation_data")):
            held_out = (windows,) if name else None
            what = place.replace("X", "validation_data[0]").replace("Y", "validation_data[1]") if name else place
            expected = f"{re.escape(what)} must hold .*, got 7 at {re.escape(at)}"
            if pattern == "many-to-one" and name:
                given = (given[0], given[1][:, 0])
            with pytest.raises(ValueError, match=f"^{expected}"):
                model(pattern=pattern).fit(*given, validation_data=held_out, progress=False)


def test_windows_as_validation_data():
    windows, options = elman.Windows(tokens(3, 203), T), {"epochs": 2, "progress": False}
    for given in ((windows,), [windows], (windows, None)):
        histories = [model().fit(windows, validation_data=each, **options) for each in (windows, given)]
        assert histories[0] == histories[1]
    with pytest.raises(ValueError, match=r"^validation_data must be \(X, Y\), .*, got 1 items"):
        model().fit(windows, validation_data=(tokens(0, N, T),), **options)


def test_arrow_columns():
    pa = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, V, n).astype(np.int16) for n in rng.integers(1, 9, N)]
    column = pa.chunked_array([pa.array(part, pa.list_(pa.int16())) for part in (rows[:30], rows[30:])])
    results = [run(model(), given, given) for given in ([row.astype(np.int64) for row in rows], column)]
    assert results[0] == results[1]
    labels = pa.array(tokens(1, N))
    of_rows = model(pattern="many-to-one")
    assert of_rows.evaluate(column, labels) == of_rows.evaluate(rows, tokens(1, N))
    with pytest.raises(ValueError, match=r"^X must have a sequence in each row, got 1 nulls"):
        model().predict(pa.array([[1], None, [2]]))
    with pytest.raises(ValueError, match=r"^X\[1\] must have a value at each step, got 1 nulls"):
        model().predict(pa.array([[1], [None, 2]]))


def test_arrow_columns_of_features():
    pa = pytest.importorskip("pyarrow")
    X = np.random.default_rng(0).normal(size=(9, 4, 2)).astype(np.float32)
    made = elman.SequenceModel(elman.Features(2), elman.Reals(2), hidden_size=5, seed=0)
    expected = made.predict(X)
    for inner in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        found = made.predict(pa.array(X.tolist(), pa.list_(inner)))
        np.testing.assert_array_equal(np.stack(found), expected)
    ragged = pa.array([[[1.0, 2.0]], [[1.0], [1.0, 2.0]]], pa.list_(pa.list_(pa.float32())))
    with pytest.raises(ValueError, match=r"^X\[1\] must have as many numbers at each step, got 1 and 2"):
        made.predict(ragged)


def test_sequences_to_sequences(tmp_path: Path):
    x, y = tokens(0, N, T), tokens(1, N, 4)
    results = []
    for way in (small, mapped, on_disk):
        made = elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=6, seed=0)
        X, Y = way(x, tmp_path), way(y, tmp_path)
        history = made.fit(X, Y, epochs=2, batch_size=8, progress=False)
        results.append((dict(history), made.evaluate(X, Y), [one.tolist() for one in made.predict(X)]))
    assert results[0] == results[1] == results[2]


def test_an_unsigned_number_beyond_all_is_no_missing_target():
    Y = np.full((3, 4), 2**64 - 1, np.uint64)
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0)
    with pytest.raises(ValueError, match=r"Y must hold -1 \(no target\) or categories from 0 to 2"):
        model.fit(np.zeros((3, 4), int), Y, progress=False)


class Sliced:
    """Rows whose slices have others than they should."""

    shape, dtype = (10, T), np.dtype(np.int64)

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def __len__(self) -> int:
        return 10

    def __getitem__(self, rows: slice) -> Any:
        return np.zeros((rows.stop - rows.start + self.extra, T), int)


@pytest.mark.parametrize("extra", [-1, 1])
def test_slices_of_other_sizes(extra: int):
    with pytest.raises(ValueError, match=rf"^\[0:1\] of a Sliced must have shape \(1, {T}\), as its own shape says"):
        model().predict(Sliced(extra))
    model().predict(Sliced(0))
