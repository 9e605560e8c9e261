"""Never two runs mixed: what a run that goes on may differ in, and what not."""

import inspect
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman import schedules
from elman.data.rows import Listed, Table
from elman.models.base import network_of
from elman.training import Training

from ..compare import assert_same_bits
from .test_training import Stop, StopAt

V = 5
X = [np.random.default_rng(i).integers(0, V, 2 + i % 9) for i in range(20)]
Y = [np.roll(x, -1) for x in X]
OTHER = [*X[:7], (X[7] + 1) % V, *X[8:]]  # of the same sizes
WEIGHTS = np.linspace(0.5, 1.5, 20)
RESETS = [np.random.default_rng(i).random(len(x)) < 0.3 for i, x in enumerate(X)]


class Counts(elman.Callback):
    """Keeps a state, and changes what it likes of the optimizer."""

    def __init__(self, *, every: int = 4, fails: bool = False) -> None:
        self.every = every
        self.fails = fails
        self.n, self._seen = 0, np.zeros(3)

    def on_step(self, training: Training) -> None:
        self.n += 1
        self._seen += self.n
        if self.n % self.every == 0:
            training.optimizer.lr *= 0.5

    def state(self) -> dict[str, Any]:
        return {"n": np.int64(self.n), "seen": self._seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]
        if self.fails and self.n:
            raise ZeroDivisionError
        self._seen = state["seen"]


def make_model(**options: Any) -> elman.SequenceModel:
    options = {"hidden_size": 4, "num_layers": 2, "dropout": 0.2, "seed": 0} | options
    return elman.SequenceModel(elman.Tokens(V), elman.Categories(V), **options)


def given(path: Path | None = None) -> dict[str, Any]:
    """The arguments of the run that everything here is about."""
    return {
        "X": X, "Y": Y, "epochs": 3, "batch_size": 4, "accumulate": 1, "average": None, "metrics": None,
        "optimizer": elman.SGD(0.1, momentum=0.9),
        "schedule": schedules.Cosine(warmup=1), "clip_norm": 1.0, "clip_value": None, "tbptt": None, "memory": None,
        "activation_l1": 0.0, "activation_l2": 0.0, "weight_l1": 0.0, "weight_l2": 0.0,
        "weights": WEIGHTS, "resets": None, "trainable": None, "validation_data": (X[:4], Y[:4]), "shuffle": True,
        "callbacks": [elman.EarlyStopping(patience=9)], "progress": False, "checkpoint": path,
        "checkpoint_every": None, "resume": False,
    }  # fmt: skip


def begin(path: Path, steps: int = 7, **options: Any) -> dict[str, Any]:
    """A run that is cut off after so many steps, and the arguments to go on with it."""
    arguments = given(path) | options
    with pytest.raises(Stop):
        make_model().fit(
            **{**arguments, "checkpoint_every": 1, "callbacks": [*arguments["callbacks"], StopAt(steps + 1)]}
        )
    return arguments | {"optimizer": elman.SGD(0.1, momentum=0.9), "resume": True, "callbacks": anew(arguments)}


def anew(arguments: dict[str, Any]) -> list[Any]:
    return [elman.EarlyStopping(patience=9) for _ in arguments["callbacks"]]


def state_of(model: Any, optimizer: Any) -> list[Any]:
    parameters = [array.tobytes() for array in model.parameters().values()]
    return [
        *parameters,
        *(g.bit_generator.state for g in network_of(model).generators()),
        repr(optimizer),
        getattr(optimizer, "steps", 0),
    ]


REFUSED: dict[str, list[Any]] = {
    "X": [OTHER],
    "Y": [OTHER],
    "batch_size": [5],
    "accumulate": [2],
    "average": [0.99],
    "metrics": [["f1"], {"accuracy": max}],
    "optimizer": [elman.SGD(0.2, momentum=0.9), elman.SGD(0.1, momentum=0.8), elman.SGD(0.1), elman.Adam(0.1), None],
    "schedule": [None, schedules.Cosine(warmup=2), schedules.Step(2), lambda done, n: 1 - done / n],
    "clip_norm": [None, 0.5],
    "clip_value": [1.0],
    "tbptt": [(2, 2)],
    **{name: [0.1] for name in ("activation_l1", "activation_l2", "weight_l1", "weight_l2")},
    "weights": [None, WEIGHTS[::-1], np.ones(20)],
    "resets": [RESETS],
    "trainable": [["weight_*"]],
    "validation_data": [None, (X[:4], X[:4]), (X[:3], Y[:3]), (X[:4], Y[:4], WEIGHTS[:4]),
                        (X[:4], Y[:4], None, RESETS[:4])],
    "shuffle": [False],
    "callbacks": [[], [elman.EarlyStopping(patience=8)], [elman.EarlyStopping(min_delta=0.1, patience=9)], [Counts()],
                  [elman.EarlyStopping(patience=9, mode="max")],
                  [elman.EarlyStopping(patience=9), Counts()]],
    "epochs": [1],  # as the second has begun
}  # fmt: skip
HONOURED: dict[str, list[Any]] = {
    "epochs": [2, 4],
    "progress": [True],
    "memory": [3, "1MB"],
    "checkpoint_every": [None, 2],
    "callbacks": [[print, elman.EarlyStopping(patience=9), StopAt(99)]],  # some more, which keep no state
}
NEITHER = {"checkpoint", "resume"}  # which file, and that a run goes on from it
NEITHER |= {"steps_per_epoch"}  # where X is a function: test_streamed.py
NEITHER |= {"validation_split"}  # instead of validation_data: below
NEITHER |= {"scheduled_sampling"}  # where outputs are fed back: test_scheduled.py
NEITHER |= {"comm", "shards"}  # several processes: test_ranks.py
MAY_DIFFER = [(name, value) for name, values in HONOURED.items() for value in values]
CASES = [(name, value) for name, values in REFUSED.items() for value in values]


def test_each_argument_is_either_refused_or_honoured():
    for method in (elman.SequenceModel.fit, elman.Seq2Seq.fit):
        assert {*inspect.signature(method).parameters} <= {"self", *NEITHER, *REFUSED, *HONOURED}
    for name, value in [*CASES, *MAY_DIFFER]:
        assert name in inspect.signature(elman.SequenceModel.fit).parameters, value
    promise = (inspect.getdoc(elman.SequenceModel.fit) or "").partition("resume : bool")[2]
    for name in HONOURED:
        assert f"`{name}`" in promise


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: str(value).partition(" at 0x")[0][:30])
def test_another_argument_is_another_run(name: str, value: Any, tmp_path: Path):
    path = tmp_path / "run.safetensors"
    arguments = begin(path) | {name: value}
    content, model, optimizer = path.read_bytes(), make_model(), arguments["optimizer"]
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        model.fit(**arguments)
    message = str(caught.value)
    assert name in message
    here, _, there = message.partition(" here, it was ")
    assert name == "epochs" or here.rpartition(" is ")[2] != there.partition(" there. ")[0], "it says what differs"
    assert "{" not in message, "a sentence, and nothing raw"
    assert message.count("\n") == 0
    assert state_of(model, optimizer) == before
    assert path.read_bytes() == content


@pytest.mark.parametrize(("name", "value"), MAY_DIFFER, ids=lambda value: str(value)[:30])
def test_what_may_differ(name: str, value: Any, tmp_path: Path):
    own = {"schedule": None} if name == "epochs" else {}  # on which a schedule depends
    arguments = begin(tmp_path / "run.safetensors", **own) | {name: value}
    whole = given() | own | {"epochs": arguments["epochs"]}
    model, expected = make_model(), make_model()
    history = model.fit(**arguments)
    assert history == expected.fit(**whole)
    assert len(history["loss"]) == arguments["epochs"]
    assert_same_bits(model.parameters(), expected.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initialization": "orthogonal"}, "initialization is orthogonal here, it was uniform there"),
        ({"spectral_radius": 0.5}, "spectral_radius is 0.5 here, it was None there"),
        ({"seed": 1}, "seed is 1 here, it was 0 there"),
        ({"seed": np.random.default_rng(0)}, r"seed is a generator at \w+ here, it was 0 there"),
        ({"hidden_size": 5}, "hidden_size is 5 here, it was 4 there"),
        ({"dropout": 0.3}, "dropout is 0.3 here, it was 0.2 there"),
        ({"dtype": "float64"}, "dtype is float64 here, it was float32 there"),
        ({"learn_h_0": True}, "learn_h_0 is True here, it was None there"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_another_model_is_another_run(options: dict[str, Any], message: str, tmp_path: Path):
    arguments, model = begin(tmp_path / "run.safetensors"), make_model(**options)
    before = state_of(model, arguments["optimizer"])
    with pytest.raises(ValueError, match=message):
        model.fit(**arguments)
    assert state_of(model, arguments["optimizer"]) == before


def test_class_weights_are_part_of_the_run(tmp_path: Path):
    arguments = begin(tmp_path / "run.safetensors")
    outputs = elman.Categories(V, class_weights=[1, 2, 3, 4, 5])
    model = elman.SequenceModel(elman.Tokens(V), outputs, hidden_size=4, num_layers=2, dropout=0.2, seed=0)
    with pytest.raises(ValueError, match=r"outputs.class_weights is \[1.0, 2.0, 3.0, 4.0, 5.0\] here, it was None"):
        model.fit(**arguments)
    model.fit(**given(tmp_path / "run.safetensors"))
    with pytest.raises(ValueError, match=r"outputs.class_weights is None here, it was \[1.0, 2.0, 3.0, 4.0, 5.0\]"):
        make_model().fit(**arguments)


def test_a_run_without_a_seed_is_none_with_one(tmp_path: Path):
    arguments = given(tmp_path / "run.safetensors")
    make_model(seed=None).fit(**arguments)
    arguments |= {"resume": True, "callbacks": anew(arguments), "epochs": 4, "schedule": None}
    with pytest.raises(ValueError, match="seed is 0 here, it was None there"):
        make_model().fit(**arguments)
    arguments |= {"schedule": given()["schedule"]}
    make_model(seed=None).fit(**arguments)


@pytest.mark.parametrize("model", ["no seed", "loaded", "trained"])
def test_models_that_nobody_gave_another_seed(model: str, tmp_path: Path):
    """One without a seed, the one in the file, and the one that was being trained, as in a notebook."""
    path = tmp_path / "run.safetensors"
    expected, arguments = make_model(), begin(path)
    history = expected.fit(**given())
    one = make_model(seed=None) if model == "no seed" else elman.load(path)
    if model == "trained":
        one, cut_off = make_model(), given(path) | {"checkpoint_every": 1, "optimizer": arguments["optimizer"]}
        with pytest.raises(Stop):
            one.fit(**cut_off | {"callbacks": [*cut_off["callbacks"], StopAt(8)]})
    assert one.fit(**arguments) == history
    assert_same_bits(one.parameters(), expected.parameters())
    with pytest.raises(ValueError, match="seed is 1 here, it was 0 there"):
        make_model(seed=1).fit(**arguments)


def test_a_part_that_is_held_out(tmp_path: Path):
    whole, options = make_model(), {"validation_data": None, "validation_split": 0.25, "clip_norm": None}
    history = whole.fit(**given() | options)
    arguments, model = begin(tmp_path / "run.safetensors", **options), make_model()
    for other in ({"validation_split": 0.3}, {"validation_split": None, "callbacks": []}, {"X": OTHER}):
        with pytest.raises(ValueError, match=f"is of another run: {next(iter(other))} is"):
            make_model().fit(**arguments | other)
    assert model.fit(**arguments) == history
    assert_same_bits(model.parameters(), whole.parameters())


@pytest.mark.parametrize("schedule", [None, schedules.Cosine(warmup=1)])
def test_a_learning_rate_that_has_been_reduced_goes_on(schedule: Any, tmp_path: Path):
    def reduced() -> dict[str, Any]:
        return {"callbacks": [elman.ReduceOnPlateau("loss", factor=0.3, patience=1, mode="max")], "schedule": schedule}

    expected, model = make_model(), make_model()
    arguments = begin(tmp_path / "run.safetensors", 12, **reduced())  # of 15
    plain = make_model().fit(**given() | {"callbacks": [], "schedule": schedule})
    history = expected.fit(**given() | reduced())
    assert history["loss"][:2] == plain["loss"][:2]  # the first epoch is better than none
    assert history["loss"][2] != plain["loss"][2]
    assert model.fit(**arguments | reduced()) == history
    assert_same_bits(model.parameters(), expected.parameters())


class Own(schedules.Constant):
    """A user's, with a setting that nobody knows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def _after_warmup(self, done: float, epochs: float) -> float:  # noqa: ARG002
        return self._factor


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda done, _: 1.0 if done < 0.88 * 3 else 0.01, lambda done, _: 1.0 if done < 0.92 * 3 else 0.01),
        (Own(1.0), Own(0.9)),
    ],
)
def test_schedules_that_differ_in_a_few_places(before: Any, after: Any, tmp_path: Path):
    arguments = begin(tmp_path / "run.safetensors", schedule=before)
    with pytest.raises(ValueError, match=r"schedule is .* here, it was .* there"):
        make_model().fit(**arguments | {"schedule": after})
    make_model().fit(**arguments)


def test_an_optimizer_of_one_s_own_with_another_setting(tmp_path: Path):
    class Mine(elman.SGD):
        def __init__(self, power: int) -> None:
            super().__init__(0.1)
            self.power = power

    arguments = given(tmp_path / "run.safetensors")
    make_model().fit(**arguments | {"optimizer": Mine(1)})
    arguments |= {"resume": True, "callbacks": anew(arguments)}
    with pytest.raises(ValueError, match=r"optimizer is Mine\(lr=0.1, momentum=0.0, power=2\) here"):
        make_model().fit(**arguments | {"optimizer": Mine(2)})


@pytest.mark.parametrize("options", [{}, {"dropout": 0.0}, {"recurrent_dropout": 0.3}], ids=str)
def test_memory_may_differ_as_no_bit_depends_on_it(options: dict[str, float], tmp_path: Path):
    path = tmp_path / "run.safetensors"
    make_model(**options).fit(**given(path) | {"epochs": 2, "memory": 3, "schedule": None})
    model, whole = make_model(**options), make_model(**options)
    model.fit(**given(path) | {"memory": "1MB", "resume": True, "schedule": None})
    whole.fit(**given() | {"schedule": None})
    assert_same_bits(model.parameters(), whole.parameters())


def test_a_relative_path_is_that_of_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    make_model().fit(**given(Path("run")) | {"callbacks": [lambda _: os.chdir(tmp_path / "elsewhere")]})
    assert elman.load(tmp_path / "run")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_another_kind_of_model(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    arguments = begin(path)
    model = elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=4, num_layers=2, dropout=0.2, seed=0)
    with pytest.raises(ValueError, match=f"^{path} is no checkpoint that this run can go on from: its format must be"):
        model.fit(X, Y, checkpoint=path, resume=True, progress=False)
    del arguments


@pytest.mark.parametrize("is_same", [True, False])
def test_schedules_that_are_functions(is_same: bool, tmp_path: Path):
    arguments = begin(tmp_path / "run.safetensors", schedule=lambda done, n: 1 - done / n)
    arguments["schedule"] = lambda done, n: 1 - done / n if is_same else 1 - 0.9 * done / n
    if is_same:
        expected = make_model()
        assert make_model().fit(**arguments) == expected.fit(**given() | {"schedule": arguments["schedule"]})
    else:
        with pytest.raises(ValueError, match=r"schedule is a function with factors .* here, it was a function with"):
            make_model().fit(**arguments)


@pytest.mark.parametrize("schedule", [None, schedules.Step(1)])
def test_what_callbacks_change_goes_on_and_ends_with_the_run(schedule: Any, tmp_path: Path):
    path = tmp_path / "run.safetensors"
    options = {"callbacks": [Counts()], "schedule": schedule}
    whole, expected = make_model(), given() | options | {"callbacks": [Counts()]}
    history = whole.fit(**expected)
    begin(path, **options)
    model, counts, optimizer = make_model(), Counts(), elman.SGD(0.1, momentum=0.9)
    arguments = given(path) | options | {"optimizer": optimizer, "resume": True, "callbacks": [counts]}
    assert model.fit(**arguments) == history
    assert_same_bits(model.parameters(), whole.parameters())
    assert counts.n == 15
    assert (counts._seen == expected["callbacks"][0]._seen).all()
    assert repr(optimizer) == repr(expected["optimizer"]) == "SGD(lr=0.1, momentum=0.9)"


def test_a_callback_that_refuses_its_state(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    begin(path, callbacks=[Counts(), Counts(every=5)])
    model, optimizer, callbacks = make_model(), elman.SGD(0.1, momentum=0.9), [Counts(), Counts(fails=True)]
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=f"Counts does not take its state in {path}: ZeroDivisionError"):
        model.fit(**given(path) | {"optimizer": optimizer, "resume": True, "callbacks": callbacks})
    assert state_of(model, optimizer) == before
    assert callbacks[0].n == 0
    assert not callbacks[0]._seen.any()


class Holds(elman.Callback):
    def __init__(self, value: Any) -> None:
        self.value = value

    def state(self) -> Any:
        return self.value


UNFIT = [
    {"a": {1, 2}}, {"a": print}, ["a"], {"a": np.array([None])}, {"a": 1j}, None, {1: 2}, {"\ud800": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", UNFIT, ids=ascii)
def test_a_state_that_no_file_can_hold_is_found_before_the_first_update(value: Any, tmp_path: Path):
    model, optimizer = make_model(), elman.SGD(0.1)
    before = state_of(model, optimizer)
    with pytest.raises(TypeError, match=r"state\(\) of Holds"):
        model.fit(**given(tmp_path / "run") | {"callbacks": [Holds(value)], "optimizer": optimizer})
    assert state_of(model, optimizer) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", ["metadata", "on_start"])
def test_what_goes_wrong_before_the_first_step_leaves_the_optimizer_as_it_was(error: str, tmp_path: Path):
    arguments = begin(tmp_path / "run.safetensors")
    model, optimizer, callbacks = make_model(), arguments["optimizer"], arguments["callbacks"]
    if error == "metadata":
        model.metadata["number"] = 1  # type: ignore[assignment]
    else:
        callbacks = [*callbacks, RaisesFirst()]
    with pytest.raises(TypeError, match=r"metadata|at first"):
        model.fit(**arguments | {"callbacks": callbacks})
    assert repr(optimizer) == "SGD(lr=0.1, momentum=0.9)"
    model.metadata = {}
    expected = make_model()
    assert model.fit(**arguments) == expected.fit(**given())
    assert_same_bits(model.parameters(), expected.parameters())


class RaisesFirst(elman.Callback):
    def on_start(self, training: Training) -> None:
        raise TypeError(f"at first, at an lr of {training.optimizer.lr}")


def test_states_come_back_as_they_were(tmp_path: Path):
    class Every(Holds):
        def load_state(self, state: dict[str, Any]) -> None:
            self.value = state

    value = {"a": np.array(3.5), "b": np.zeros((0, 2), "i2"), "c": np.array([[True], [False]]), "d": [1, "x", None]}
    make_model().fit(**given(tmp_path / "run") | {"callbacks": [Every(value)]})
    every = Every({})
    make_model().fit(**given(tmp_path / "run") | {"callbacks": [every], "resume": True})
    assert every.value.keys() == value.keys()
    for name, expected in value.items():
        found = every.value[name]
        assert np.array_equal(found, expected) and np.shape(found) == np.shape(expected)  # noqa: PT018
        assert not isinstance(expected, np.ndarray) or found.dtype == expected.dtype


def test_a_sequence_to_sequence_run(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    options = {"epochs": 2, "batch_size": 6, "checkpoint": path, "progress": False}

    def make() -> elman.Seq2Seq:
        return elman.Seq2Seq(elman.Tokens(V), elman.Categories(V), hidden_size=4, seed=0)

    make().fit(X, Y, **options)
    options |= {"resume": True, "epochs": 3}
    for data in ((OTHER, Y), (X, OTHER)):
        with pytest.raises(ValueError, match=r"(X|Y) is 20 sequences of 113 steps in all .* here, it was 20 sequences"):
            make().fit(*data, **options)
    model, whole = make(), make()
    assert model.fit(X, Y, **options) == whole.fit(X, Y, epochs=3, batch_size=6, progress=False)
    assert_same_bits(model.parameters(), whole.parameters())


# Data


def test_fingerprints_are_of_values_and_not_of_how_they_are_given(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    x = np.random.default_rng(0).integers(0, V, (8, 5))
    options = {"epochs": 1, "batch_size": 4, "checkpoint": path, "progress": False}
    make_model().fit(x, x, **options)
    make_model().fit(list(x.astype(np.uint8)), x.tolist(), **options, resume=True)
    make_model().fit(np.asfortranarray(x), x[::-1][::-1], **options, resume=True)
    with pytest.raises(ValueError, match="X is 8 sequences of 40 steps"):
        make_model().fit(x[::-1], x, **options, resume=True)


def itself(rows: Any, name: str, which: Any) -> Any:  # noqa: ARG001
    return rows


@pytest.mark.parametrize("is_array", [True, False])
def test_the_fingerprint_of_much_data_is_of_a_sample(is_array: bool):
    from elman.training.checkpoint import fingerprint

    rows: Any = np.random.default_rng(0).normal(size=(5000, 100, 8))
    rows = rows if is_array else [row[: 50 + i % 50] for i, row in enumerate(rows)]
    given = Table(rows, "X", itself, dtype=float) if is_array else Listed(rows, "X", itself, dtype=float)
    found = fingerprint(given)
    assert fingerprint(given) == found
    for row in rows[1000:2000]:
        row[...] += 1
    assert fingerprint(given) != found


def test_the_fingerprint_of_few_long_sequences():
    from elman.training.checkpoint import fingerprint

    rows = [np.random.default_rng(i).integers(0, V, 1_000_000) for i in range(3)]
    given = Listed(rows, "X", itself, dtype=np.int64)
    found = fingerprint(given)
    rows[1][500_000:501_000] += 1
    assert fingerprint(given) != found


# What was written before files had digests

OLD = Path(__file__).parents[1] / "data" / "checkpoint-0.1.safetensors"


class Keeps(elman.Callback):
    def __init__(self) -> None:
        self.n = 0

    def state(self) -> dict[str, Any]:
        return {"n": self.n}

    def load_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def old_run(path: Path | None, **options: Any) -> dict[str, Any]:
    """How the checkpoint came about, by a run with Python's equivalent of these that stopped in its second epoch."""
    return {
        "X": X, "Y": Y, "epochs": 3, "batch_size": 4, "optimizer": elman.Adam(0.01), "tbptt": (2, 2), "clip_norm": 1.0,
        "validation_data": (X[:4], X[:4]), "callbacks": [print, elman.EarlyStopping(patience=9), Keeps()],
        "progress": False, "checkpoint": path, "resume": path is not None,
    } | options  # fmt: skip


def test_an_old_checkpoint_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, options = tmp_path / "run.safetensors", {"hidden_size": 3, "dropout": 0.0}
    path.write_bytes(OLD.with_name("checkpoint-0.1-no-dropout.safetensors").read_bytes())
    assert elman.load(path).rnn.hidden_size == 3
    keeps, model, whole = Keeps(), make_model(**options), make_model(**options)
    history = model.fit(**old_run(path, callbacks=[print, elman.EarlyStopping(patience=9), keeps]))
    expected = whole.fit(**old_run(None))
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4)  # bits of the machine that wrote it
    assert keeps.n == 25
    make_model(**options).fit(**old_run(path))  # in its new form
    capsys.readouterr()


def test_an_old_checkpoint_with_dropout_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Dropout was drawn otherwise: from where it stopped, the run is what it always is from there."""
    losses = []
    for i in range(2):
        path = tmp_path / f"{i}.safetensors"
        path.write_bytes(OLD.read_bytes())
        keeps = Keeps()
        callbacks = [print, elman.EarlyStopping(patience=9), keeps]
        losses.append(make_model(hidden_size=3).fit(**old_run(path, callbacks=callbacks))["loss"])
        assert keeps.n == 25
    assert losses[0] == losses[1]
    assert losses[0][0] == 1.6636378314882494  # of the epoch that was over
    assert losses[0][0] > losses[0][1] > losses[0][2]
    capsys.readouterr()


def test_an_old_checkpoint_says_nothing_of_its_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for epochs in (2, 3, 5):
        path = tmp_path / f"{epochs}.safetensors"
        path.write_bytes(OLD.read_bytes())
        for schedule in (schedules.Step(2), schedules.Step(2)):  # in its old form, and in its new one
            history = make_model(hidden_size=3).fit(**old_run(path, epochs=epochs, schedule=schedule))
            assert len(history["loss"]) == epochs
    capsys.readouterr()


def test_an_old_checkpoint_of_one_input_each(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(OLD.with_name("checkpoint-0.1-one-to-many.safetensors").read_bytes())
    model = elman.SequenceModel(elman.Tokens(V), elman.Categories(V), pattern="one-to-many", hidden_size=3, seed=0)
    rows = [np.random.default_rng(i).integers(0, V, 2 + i % 9) for i in range(20)]
    first, rest = np.array([row[0] for row in rows]), [row[1:] for row in rows]
    options = {"epochs": 3, "batch_size": 4, "callbacks": [elman.Callback()], "progress": False}
    with pytest.raises(ValueError, match="X is 20 sequences"):
        model.fit(first, [*rest[:-1], rest[-1][1:]], checkpoint=path, resume=True, **options)
    history = model.fit(first, rest, checkpoint=path, resume=True, **options)
    assert len(history["loss"]) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 5}, {"optimizer": elman.Adam(0.02)}, {"optimizer": elman.SGD(0.01)}, {"tbptt": (2, 3)},
        {"clip_norm": None}, {"X": X[1:], "Y": Y[1:]}, {"validation_data": None}, {"callbacks": [print]}, {"epochs": 1},
        {"optimizer": elman.Adam(0.01, betas=(0.8, 0.999))},
    ],
    ids=str,
)  # fmt: skip
def test_what_an_old_checkpoint_says_of_its_run(options: dict[str, Any], tmp_path: Path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(OLD.read_bytes())
    with pytest.raises(ValueError, match=re.escape(str(path))):
        make_model(hidden_size=3).fit(**old_run(path, **options))
    assert path.read_bytes() == OLD.read_bytes()
