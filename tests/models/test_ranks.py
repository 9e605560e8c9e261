"""`fit` on several ranks: the same bits for any number of them, and one end for all. Here ranks are threads."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.training.ranks import Sums

from .ranks import Comm, on_ranks

V, N = 5, 21
rng = np.random.default_rng(0)
X = [rng.integers(V, size=n) for n in rng.integers(1, 12, N)]
Y = [np.where(rng.random(len(x)) < 0.2, -1, (x + 1) % V) for x in X]
WEIGHTS = rng.uniform(0.5, 2, N)
FEATURES, LABELS = rng.normal(size=(N, 6, 3)), rng.normal(size=(N, 2))


def make(**options: Any) -> elman.SequenceModel:
    outputs = options.pop("outputs", elman.Categories(V, class_weights=[1, 2, 1, 1, 3]))
    inputs = options.pop("inputs", elman.Tokens(V))
    return elman.SequenceModel(inputs, outputs, hidden_size=7, **{"seed": 0, **options})


def make_regression(**options: Any) -> elman.SequenceModel:
    given = {
        "inputs": elman.Features(3),
        "outputs": elman.Reals(2),
        "pattern": "many-to-one",
        "hidden_size": 5,
        "seed": 0,
        **options,
    }
    return elman.SequenceModel(**given)


def make_pairs(**options: Any) -> elman.Seq2Seq:
    return elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=6, seed=0, **options)


def batches(size: int = 8) -> Any:
    for i in range(0, N, size):
        yield X[i : i + size], Y[i : i + size]


def ended(model: Any, history: Any) -> list[Any]:
    """What must be the same on all ranks: what was learned, and where generators stand."""
    states = [str(generator.bit_generator.state) for generator in model._network.generators()]
    return [dict(history), *(array.tobytes() for array in model.parameters().values()), states]


VALIDATION = {"validation_data": (X, Y), "callbacks": [elman.EarlyStopping(patience=1)]}
CASES: dict[str, tuple[Any, dict[str, Any], tuple[Any, ...], dict[str, Any]]] = {
    "ragged, class weights": (make, {}, (X, Y), {}),
    "dropout, clipped": (
        make,
        {"num_layers": 2, "dropout": 0.3, "recurrent_dropout": 0.2},
        (X, Y),
        {"clip_norm": 0.5, "clip_value": 0.1},
    ),
    "noise, tbptt, penalties, weights": (
        make,
        {"leak": 0.3, "noise": 0.4},
        (X, Y),
        {"tbptt": (3, 5), "weights": WEIGHTS, "activation_l2": 0.1, "weight_l1": 0.01},
    ),
    "both directions, memory, early end": (make, {"bidirectional": True}, (X, Y), {"memory": 3, **VALIDATION}),
    "h_0, some trained": (make, {"learn_h_0": True}, (X, Y), {"trainable": ["h_0", "weight_ho"], "activation_l1": 0.1}),
    "float64, one row": (make_regression, {"dtype": "float64"}, (FEATURES, LABELS), {"batch_size": 1, "epochs": 1}),
    "balanced": (make, {"outputs": elman.Categories(V, class_weights="balanced")}, (X, Y), {}),
    "labels": (
        make,
        {"inputs": elman.Tokens(99, labels="fit"), "outputs": elman.Categories(9, labels="fit")},
        ([[chr(97 + i) for i in x] for x in X], Y),
        {},
    ),
    "scaled": (
        make_regression,
        {"inputs": elman.Features(3, scaler=elman.Scaler()), "outputs": elman.Reals(2, scaler=elman.Scaler())},
        (1e3 + FEATURES, 1e6 * LABELS),
        {"validation_split": 0.2},
    ),
    "missing numbers": (
        make_regression,
        {"outputs": elman.Reals(2, distribution="student_t", missing=np.nan)},
        (FEATURES, np.where(LABELS > 1, np.nan, LABELS)),
        {},
    ),
    "shards": (make_regression, {}, (FEATURES, LABELS), {"shards": 12, "batch_size": N}),
    "a function": (make, {"dropout": 0.3}, (batches,), {"tbptt": (2, 2)}),
    "pairs": (make_pairs, {"bidirectional": True, "recurrent_dropout": 0.2}, (X, X), {"activation_l2": 0.1}),
    "pairs that read predictions": (
        make_pairs,
        {"num_layers": 2, "dropout": 0.2, "noise": 0.1},
        (X, X),
        {"scheduled_sampling": lambda done, epochs: done / epochs},
    ),
    "reference": (make, {"backend": "numpy"}, (X, Y), {"schedule": elman.schedules.Cosine()}),
    "a part held out": (make, {"dropout": 0.3}, (X, Y), {"validation_split": 0.2, "weights": WEIGHTS}),
    "a plateau": (
        make,
        {},
        (X, Y),
        {"schedule": elman.schedules.Cosine(), "callbacks": [elman.ReduceOnPlateau("loss", mode="max", patience=1)]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_for_any_number_of_ranks(case: str):
    make_model, options, data, given = CASES[case]

    def run(comm: Comm) -> Any:
        model = make_model(**options)
        return ended(model, model.fit(*data, **{"epochs": 3, "batch_size": 8, "progress": False, **given}, comm=comm))

    expected, *_ = on_ranks(1, run)
    assert isinstance(expected, list), expected
    for n in (2, 3, 5):
        assert on_ranks(n, run) == [expected] * n


@pytest.mark.parametrize("case", [name for name in CASES if "dropout" not in CASES[name][1] and "pairs" not in name])
def test_gradients_are_those_of_one_process(case: str):
    """But for the order of sums."""
    make_model, options, data, given = CASES[case]
    given = {"epochs": 2, "batch_size": 8, "progress": False, "optimizer": elman.SGD(0.1), **given}
    given.pop("callbacks", None)
    alone = make_model(**options, **({} if "dtype" in options else {"dtype": "float64"}))
    expected = alone.fit(*data, **{key: value for key, value in given.items() if key != "shards"})

    def run(comm: Comm) -> Any:
        model = make_model(**options, **({} if "dtype" in options else {"dtype": "float64"}))
        return model.fit(*data, **given, comm=comm), model

    for history, model in on_ranks(3, run):
        np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-12)
        for name, array in model.parameters().items():
            np.testing.assert_allclose(array, alone.parameters()[name], rtol=1e-9, atol=1e-12)


def test_all_begin_as_rank_0():
    def run(comm: Comm) -> Any:
        model = make(seed=comm.rank, dropout=0.5, num_layers=2)
        return ended(model, model.fit(X, Y, epochs=1, progress=False, comm=comm))

    one, other = on_ranks(2, run)
    assert one == other == on_ranks(1, run)[0]


class Stop(Exception):
    pass


class StopsAt(elman.Callback):
    def __init__(self, steps: int, error: type[BaseException]) -> None:
        self.steps, self.error = steps, error

    def on_step(self, training: Any) -> None:
        if training.steps == self.steps:
            raise self.error


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("steps", range(1, 12, 2))
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path, steps: int, error: type[BaseException]):
    given: dict[str, Any] = {"epochs": 2, "batch_size": 8, "tbptt": (3, 5), "progress": False, "weights": WEIGHTS}
    given |= {"checkpoint": tmp_path / "run", "checkpoint_every": 1}

    def run(comm: Comm, **more: Any) -> Any:
        model = make(recurrent_dropout=0.3, leak=0.5, noise=0.1)
        return ended(model, model.fit(X, Y, **given, **more, comm=comm))

    expected = on_ranks(1, run)[0]
    (tmp_path / "run").unlink()
    stopped, other, third = on_ranks(3, lambda comm: run(comm, callbacks=[StopsAt(steps, error)]))
    assert isinstance(stopped, error)
    for end in other, third:
        assert isinstance(end, KeyboardInterrupt if error is KeyboardInterrupt else RuntimeError)
    assert on_ranks(2, lambda comm: run(comm, resume=True)) == [expected] * 2


def test_a_checkpoint_is_of_runs_with_so_many_shards(tmp_path: Path):
    given: dict[str, Any] = {"checkpoint": tmp_path / "run", "progress": False}
    make().fit(X, Y, epochs=1, **given)
    end, other = on_ranks(2, lambda comm: make().fit(X, Y, epochs=2, resume=True, **given, comm=comm))
    assert isinstance(end, ValueError)
    assert "shards is 8 here, it was None" in str(end)
    assert "training has ended, as rank 0 did, with ValueError" in str(other)


def test_callbacks_are_called_on_rank_0_and_change_all():
    called = []

    def callback(training: Any) -> None:
        called.append(training.epoch)
        training.optimizer.lr /= 2
        for array in training.model.parameters().values():
            array *= 0.5
        if training.epoch == 2:
            training.stop()

    def run(comm: Comm) -> Any:
        model = make()
        return ended(model, model.fit(X, Y, epochs=5, progress=False, callbacks=[callback], comm=comm))

    one, other = on_ranks(2, run)
    assert one == other
    assert called == [1, 2]
    assert len(one[0]["loss"]) == 2


def test_what_callbacks_draw_and_set_is_for_all():
    def callback(training: Any) -> None:
        training.model.train_step(X[0][:, None], X[0][:, None], optimizer=elman.SGD(0.01))  # draws what it drops
        training.optimizer.steps = 0
        training.epochs = 2
        training.model.metadata["epoch"] = str(training.epoch)
        training.history.setdefault("more", []).append(1.0)

    def run(comm: Comm) -> Any:
        model = make(num_layers=2, dropout=0.3)
        history = model.fit(X, Y, epochs=5, progress=False, callbacks=[callback], comm=comm)
        return ended(model, history), model.metadata, len(history["loss"])

    expected = on_ranks(1, run)
    assert expected[0][1:] == ({"epoch": "2"}, 2)
    assert on_ranks(3, run) == expected * 3


class Nameless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [Nameless, TypeError, AttributeError])
def test_errors_of_all_kinds_end_all(error: type[Exception]):
    def callback(training: Any) -> None:
        if error is Nameless:
            raise error
        training.history["more"] = [lambda: 0]  # which cannot be sent

    ends = on_ranks(2, lambda comm: make().fit(X, Y, progress=False, callbacks=[callback], comm=comm))
    assert isinstance(ends[0], (Nameless, TypeError, AttributeError, pickle.PicklingError))
    assert isinstance(ends[1], RuntimeError)


def test_a_callback_on_rank_0_ends_all_at_once():
    class Step3(elman.Callback):
        def on_step(self, training: Any) -> None:
            if training.steps == 3:
                training.stop(now=True)

    def run(comm: Comm) -> Any:
        model = make()
        options = {"batch_size": 2, "tbptt": (1, 1), "callbacks": [Step3()]}
        return ended(model, model.fit(X, Y, epochs=5, progress=False, comm=comm, **options))

    one, other = on_ranks(2, run)
    assert one == other
    assert len(one[0]["loss"]) == 1


def ends(n: int = 2, /, on_rank: int = 1, **given: Any) -> list[Any]:
    """How ranks end of which one is given something else."""

    def run(comm: Comm) -> Any:
        options: dict[str, Any] = {"X": X, "Y": Y, "epochs": 2, "progress": False, "comm": comm}
        return make().fit(**options | (given if comm.rank == on_rank else {}))

    return on_ranks(n, run)


def short() -> Any:
    yield X[:3], Y[:3]


def fails() -> Any:
    yield X[:8], Y[:8]
    raise Stop


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"epochs": 3}, ValueError, "epochs must be the same on all ranks, got 2 on rank 0 and 3 on rank 1"),
        ({"X": [[1]], "Y": [[2]]}, ValueError, "X must be the same on all ranks, got 21 sequences"),
        ({"clip_norm": -1}, ValueError, "clip_norm must be"),
        ({"memory": 3}, ValueError, "memory must be the same on all ranks, got None on rank 0 and 3 on rank 1"),
        ({"weights": [1] * (N - 1) + [-1]}, ValueError, r"weights must be finite and at least 0, got -1.0 at \[20\]"),
    ],
    ids=str,
)
def test_what_is_not_alike_is_an_error_on_all(given: dict[str, Any], error: Any, message: str):
    root, other = ends(**given)
    assert isinstance(root, RuntimeError)
    with pytest.raises(error, match=message):
        raise other


@pytest.mark.parametrize(("function", "error"), [(short, RuntimeError), (fails, Stop)])
def test_batches_of_a_function_that_are_not_alike(function: Any, error: Any):
    def run(comm: Comm) -> Any:
        return make().fit(function if comm.rank == 1 else batches, progress=False, comm=comm)

    one, other = on_ranks(2, run)
    assert isinstance(one, (RuntimeError, ValueError))
    assert isinstance(other, (error, ValueError))


class OnDisk:
    """What slices are read of, so many times."""

    shape, dtype = (16, 4), np.dtype(np.int64)

    def __init__(self, n_reads: float) -> None:
        self.n_reads = n_reads

    def __len__(self) -> int:
        return 16

    def __getitem__(self, rows: Any) -> Any:
        self.n_reads -= 1
        if self.n_reads < 0:
            raise OSError("the disk is gone")
        return np.zeros(self.shape, int)[rows]


@pytest.mark.parametrize("n_reads", [0, 1, 17, 18, 19, 20])
def test_what_one_rank_cannot_read_ends_all(n_reads: int):
    """At the beginning, in the fingerprint, or in a batch."""

    def run(comm: Comm) -> Any:
        X = OnDisk(n_reads if comm.rank == 2 else np.inf)
        return make().fit(X, np.zeros((16, 4), int), epochs=9, batch_size=16, progress=False, comm=comm)

    ends = on_ranks(4, run)
    assert isinstance(ends.pop(2), OSError)
    for end in ends:
        assert isinstance(end, RuntimeError)
        assert str(end) == "training has ended, as rank 2 did, with OSError: the disk is gone"


def test_infinite_losses_end_all():
    def run(comm: Comm) -> Any:
        optimizer = elman.SGD(1e38)
        return make_regression().fit(FEATURES * 1e20, LABELS, optimizer=optimizer, progress=False, comm=comm)

    assert all(isinstance(end, FloatingPointError) for end in on_ranks(3, run))


def test_what_is_no_communicator():
    for comm in (1, "MPI", elman, object()):
        with pytest.raises(TypeError, match="comm must be an intracommunicator of mpi4py, such as"):
            make().fit(X, Y, comm=comm)
    for end in on_ranks(3, lambda comm: make().fit(X, Y, comm=comm, shards=2)):
        assert isinstance(end, ValueError)
        assert str(end) == "comm must have no more ranks than there are shards, 2, got 3"


@pytest.mark.parametrize("shards", [2, 0, None, 1.5, lambda: 0])
def test_shards_are_alike(shards: Any):
    one, other = ends(shards=shards)
    assert str(one) == f"shards must be the same on all ranks, got [8, {shards if isinstance(shards, int) else 0}]"
    assert isinstance(other, (TypeError, ValueError))
    assert on_ranks(2, lambda comm: make().fit(X, Y, epochs=1, progress=False, comm=comm, shards=np.int64(8)))[0][
        "loss"
    ]


def test_callbacks_leave_the_model_as_it_is():
    def callback(training: Any) -> None:
        training.model.rnn.dropout = 0.5

    def run(comm: Comm) -> Any:
        return make(num_layers=2).fit(X, Y, progress=False, callbacks=[callback], comm=comm)

    one, other = on_ranks(2, run)
    assert isinstance(one, RuntimeError)
    assert "callbacks, which rank 0 alone calls, must leave the model as it is, got dropout=0.5" in str(other)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 12])
def test_sums_follow_one_tree(n: int):
    values = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) * 10.0 ** np.arange(n)[:, None] % 7
    expected = Sums()
    for i, value in enumerate(values):
        expected.add(i, value.copy())
    for bounds in itertools.combinations(range(n + 1), 2):
        parts = [range(bounds[0]), range(*bounds), range(bounds[1], n)]
        found = Sums()
        for part in parts:
            own = Sums()
            for i in part:
                own.add(i, values[i].copy())
            for node in own.nodes:
                found.add(node.start, node.array, node.size)
        assert found.total().tobytes() == expected.total().tobytes()
