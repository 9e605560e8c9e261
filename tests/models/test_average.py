"""`fit(average=)`: a running mean of the parameters, which the model has whenever it is not being trained."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from ..compare import assert_same_bits
from .ranks import on_ranks
from .test_ranks import Stop, StopsAt, X, Y, ended, make, make_pairs

KEPT = 0.8
GIVEN: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False, "average": KEPT}


class Watches(elman.Callback):
    def __init__(self) -> None:
        self.trained, self.at_epochs = list[Any](), list[Any]()

    def on_step(self, training: Any) -> None:
        self.trained.append(training.flat.astype(np.float64))

    def on_epoch(self, training: Any) -> None:
        self.at_epochs.append(training.flat.copy())

    def average(self, n: int | None = None) -> Any:
        """Of the first n updates."""
        trained = self.trained[:n]
        weights = KEPT ** np.arange(len(trained))[::-1]
        return weights @ np.array(trained) / weights.sum()


def flat(model: Any) -> Any:
    return model._network.parameters.flat


@pytest.mark.parametrize("backend", ["numpy", "cython", "numba"])
@pytest.mark.parametrize("make_model", [make, make_pairs])
def test_it_is_a_mean_of_what_is_trained(backend: str, make_model: Any):
    model, plain = (make_model(backend=backend, dtype="float64") for _ in range(2))
    watches = Watches()
    history = model.fit(X, X, **GIVEN, callbacks=[watches])
    unchanged = plain.fit(X, X, **GIVEN | {"average": None})
    assert history == unchanged
    np.testing.assert_array_equal(watches.trained[-1], flat(plain))
    np.testing.assert_allclose(flat(model), watches.average(), rtol=1e-12, atol=1e-14)
    for i, array in enumerate(watches.at_epochs):
        np.testing.assert_allclose(array, watches.average(3 * (i + 1)), rtol=1e-12, atol=1e-14)
    assert abs(watches.trained[-1] - flat(model)).max() > 1e-3


def test_the_model_is_evaluated_with_it_and_stopped_by_it():
    class Sees(Watches):
        def on_epoch(self, training: Any) -> None:
            super().on_epoch(training)
            assert training.model.evaluate(X, Y, batch_size=8)["loss"] == training.history["val_loss"][-1]

    model, watches = make(), Sees()
    stopping = elman.EarlyStopping("val_loss", mode="max", patience=2)  # the first epoch is the best, that is
    history = model.fit(X, Y, **GIVEN, validation_data=(X, Y), callbacks=[watches, stopping])
    plain = make().fit(X, Y, **GIVEN | {"average": None}, validation_data=(X, Y))
    assert history["loss"] == plain["loss"]
    assert history["val_loss"] != plain["val_loss"]
    assert np.argmax(history["val_loss"]) == 0
    np.testing.assert_array_equal(flat(model), watches.at_epochs[0])


def test_some_that_are_not_trained_stay():
    model = make()
    before = model.state_dict()
    model.fit(X, Y, **GIVEN, trainable=["bias_o"])
    assert (before.pop("bias_o") != model.parameters()["bias_o"]).all()
    assert_same_bits(before, {name: model.parameters()[name] for name in before})


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("steps", [1, 3, 4, 8, 11])
def test_a_run_goes_on(tmp_path: Path, steps: int, error: type[BaseException]):
    given = GIVEN | {"tbptt": (3, 5), "epochs": 2, "validation_data": (X, Y)}
    whole, cut, later = (make(dropout=0.3, num_layers=2) for _ in range(3))
    expected = ended(whole, whole.fit(X, Y, **given, callbacks=[elman.EarlyStopping(patience=9)]))
    path = tmp_path / "run.safetensors"
    given |= {"checkpoint": path, "checkpoint_every": 1}
    watches = Watches()
    callbacks = [elman.EarlyStopping(patience=9), watches, StopsAt(steps, error)]
    with pytest.raises(error):
        cut.fit(X, Y, **given, callbacks=callbacks)
    np.testing.assert_allclose(flat(cut), watches.average(), rtol=1e-5, atol=1e-6)
    if steps > 1:
        np.testing.assert_allclose(flat(elman.load(path)), watches.average(steps - 1), rtol=1e-5, atol=1e-6)
    for other in (None, 0.9) if steps > 1 else ():
        with pytest.raises(ValueError, match=f"is of another run: average is {other} here, it was 0.8 there"):
            later.fit(X, Y, **given | {"average": other}, resume=True, callbacks=[elman.EarlyStopping(patience=9)])
    assert ended(later, later.fit(X, Y, **given, resume=True, callbacks=[elman.EarlyStopping(patience=9)])) == expected
    assert_same_bits(elman.load(path).parameters(), later.parameters())


@pytest.mark.parametrize("name", ["on_step", "on_epoch"])
def test_what_ends_a_training_leaves_the_average(name: str):
    def fail(_: Any, __: Any) -> None:
        raise Stop

    watches, model = Watches(), make()
    with pytest.raises(Stop):
        model.fit(X, Y, **GIVEN, callbacks=[watches, type("Fails", (elman.Callback,), {name: fail})()])
    np.testing.assert_allclose(flat(model), watches.average(), rtol=1e-5, atol=1e-6)


def test_ranks_and_batches_that_are_added_up():
    def run(comm: Any, **more: Any) -> Any:
        model = make()
        return ended(model, model.fit(X, Y, **GIVEN | more, comm=comm))

    def stops(comm: Any) -> Any:
        return run(comm, validation_data=(X, Y), callbacks=[elman.EarlyStopping(patience=1)])

    expected, *_ = on_ranks(1, stops)
    assert on_ranks(3, stops) == [expected] * 3
    assert on_ranks(2, lambda comm: run(comm, shards=4)) == [run(None, accumulate=4, batch_size=2)] * 2


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, "0.9", np.nan])
def test_what_is_no_share(value: Any):
    model = make()
    before = model.state_dict()
    with pytest.raises(
        (TypeError, ValueError), match=r"average must be a number (above 0|from 0 to 1, exclusive), got"
    ):
        model.fit(X, Y, average=value)
    assert_same_bits(model.parameters(), before)


def test_an_evaluation_that_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is saved then is what is trained, and the average, each in its place."""
    given = GIVEN | {"validation_data": (X, Y)}
    whole, cut, later = make(), make(), make()
    expected, evaluate, n = ended(whole, whole.fit(X, Y, **given)), cut._network.evaluate, iter(range(9))

    def interrupted(*arguments: Any) -> Any:
        if next(n) == 1:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    given |= {"checkpoint": tmp_path / "run"}
    monkeypatch.setattr(cut._network, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, **given)
    assert_same_bits(elman.load(tmp_path / "run").parameters(), cut.parameters())
    assert ended(later, later.fit(X, Y, **given, resume=True)) == expected


def test_ctrl_c_while_callbacks_have_the_average(tmp_path: Path):
    def press(training: Any) -> None:
        if training.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    given = GIVEN | {"accumulate": 2, "batch_size": 4}
    whole, cut, later = make(), make(), make()
    expected = ended(whole, whole.fit(X, Y, **given))
    given |= {"checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, **given, callbacks=[press])
    assert ended(later, later.fit(X, Y, **given, resume=True)) == expected


def test_ranks_go_on_and_end_alike(tmp_path: Path):
    given = GIVEN | {"checkpoint": tmp_path / "run", "checkpoint_every": 1}

    def run(comm: Any, steps: int, **more: Any) -> Any:
        model = make()
        with pytest.raises((Stop, RuntimeError)):
            model.fit(X, Y, **given, comm=comm, callbacks=[StopsAt(steps, Stop)], **more)
        return flat(model).tolist()

    on_ranks(1, lambda comm: run(comm, 4))
    one, other = on_ranks(2, lambda comm: run(comm, 6, resume=True))
    assert isinstance(one, list), one
    assert one == other


def test_a_checkpoint_that_has_lost_what_is_trained(tmp_path: Path):
    path = tmp_path / "run"
    make().fit(X, Y, **GIVEN, checkpoint=path)
    path.write_bytes(path.read_bytes().replace(b"trained", b"trainer"))
    with pytest.raises(ValueError, match="no checkpoint that this run can go on from"):
        make().fit(X, Y, **GIVEN, checkpoint=path, resume=True)
