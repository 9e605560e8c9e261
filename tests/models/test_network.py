"""What is behind models: windows of a batch, what a plan says of a run, what pickles hold."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman
from elman.data.outputs import Targets
from elman.data.sequences import Batch, Windows
from elman.layer.parameters import Parameters
from elman.models import generation
from elman.models.base import network_of
from elman.training.plan import Plan

OUTPUTS = elman.Categories(4, class_weights=[1, 2, 3, 4])


def batch(rng: np.random.Generator, lengths: Any, weights: Any) -> Batch:
    x, y = rng.integers(0, 4, (23, 3)), rng.integers(-1, 4, (23, 3))
    return Batch(x, lengths, Targets.of(OUTPUTS, y, lengths, weights, np.dtype("float64")))


@pytest.mark.parametrize("lengths", [None, np.array([23, 0, 9])])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tbptt", [(5, 5), (4, 7), (3, 99), (23, 23), (99, 99)])
def test_windows(tbptt: tuple[int, int], weighted: bool, lengths: Any, rng: np.random.Generator):
    """Each target is in one of them, with its weight, behind no more than k2 steps."""
    whole = batch(rng, lengths, rng.random((23, 3)) if weighted else None)
    windows, (k1, k2) = Windows(tbptt, OUTPUTS), tbptt
    parts = [windows.window(whole, i) for i in range(windows.count(len(whole.x)))]
    start, before = 0, 0.0
    for i, (part, is_first, n_done) in enumerate(parts):
        end = min((i + 1) * k1, 23)
        assert len(part.x) <= k2
        np.testing.assert_array_equal(part.x, whole.x[end - len(part.x) : end] if len(part.x) < k2 else part.x)
        np.testing.assert_array_equal(part.x, whole.x[start : start + len(part.x)])
        np.testing.assert_array_equal(part.targets.y, whole.targets.y[i * k1 : end])
        assert is_first == (start == 0)
        assert windows.weight_before(whole, i) == pytest.approx(before)
        rows = np.full(3, True) if lengths is None else lengths > start
        np.testing.assert_array_equal(windows.rows(whole, i), rows)
        before += part.targets.total
        assert n_done is not None
        start += n_done
    assert before == pytest.approx(whole.targets.total)


def test_one_window(rng: np.random.Generator):
    whole = batch(rng, None, None)
    assert Windows().count(len(whole.x)) == 1
    assert Windows().window(whole, 0) == (whole, True, None)


def plan(**given: Any) -> Plan:
    names = {
        "comm": None,
        "accumulate": 1,
        "average": None,
        "metrics": None,
        "optimizer": None,
        "clip_norm": None,
        "clip_value": None,
        "epochs": 3,
        "batch_size": 4,
        "schedule": None,
        "scheduled_sampling": None,
    }
    names |= {
        "steps_per_epoch": None,
        "shuffle": True,
        "callbacks": (),
        "progress": False,
        "checkpoint": None,
        "checkpoint_every": None,
        "trainable": None,
        "validation_split": None,
    }
    own = {name: given.pop(name) for name in ("tbptt", "memory") if name in given}
    return Plan.of(names | {"resume": False} | given, Parameters([], np.dtype("f4")), metrics=["accuracy"], **own)


def test_a_plan_and_what_a_checkpoint_compares(tmp_path: Path):
    own = plan(tbptt=(3, 5), clip_norm=2, schedule=elman.schedules.Cosine())
    assert repr(own.descent.optimizer) == repr(elman.Adam(1e-3))
    assert own.settings() == {
        "batch_size": 4,
        "accumulate": None,
        "average": None,
        "metrics": None,
        "shards": None,
        "steps_per_epoch": None,
        "optimizer": repr(elman.Adam(1e-3)),
        **own.described_schedules(3),
        "clip_norm": 2.0,
        "clip_value": None,
        "tbptt": (3, 5),
        "activation_l2": 0.0,
        "activation_l1": None,
        "weight_l1": None,
        "weight_l2": None,
        "trainable": None,
        "shuffle": True,
        "validation_split": None,
        "callbacks that keep a state": None,
    }
    first, other = own.described_schedules(3), own.described_schedules(4)
    assert first["schedule"] != other["schedule"]
    assert first["scheduled_sampling"] is other["scheduled_sampling"] is None
    by_function = plan(scheduled_sampling=elman.schedules.Cosine()).described_schedules(3)
    assert by_function["scheduled_sampling"] == first["schedule"]
    assert plan(scheduled_sampling=0.25).settings()["scheduled_sampling"] == 0.25
    assert plan(memory=7).settings() == plan(memory=7e6).settings()  # no bit depends on it
    path = tmp_path / "run.safetensors"
    assert plan(checkpoint=str(path)).checkpoint == path
    assert not path.exists()
    with pytest.raises(ValueError, match=r"^memory must be None where there is tbptt"):
        plan(tbptt=(3, 5), memory=3)


MODELS = [
    lambda: elman.SequenceModel(elman.Tokens(3), elman.Reals(), hidden_size=4, learn_h_0=True, num_layers=2, seed=0),
    lambda: elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=4, bidirectional=True, seed=0),
]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_layers_of_a_copy_work_on_its_parameters(make: Any, duplicate: Any):
    model = duplicate(make())
    network = network_of(model)
    for name, array in model.parameters().items():
        assert np.shares_memory(array, network.parameters.flat), name
    for rnn in network.rnns:
        assert all(np.shares_memory(array, network.parameters.flat) for array in rnn.parameters().values())
    names = ("rnn", "encoder", "decoder")
    assert [*network.rnns] == [getattr(model, name) for name in names if hasattr(model, name)]


def test_what_a_pickle_holds():
    """Names as in pickles of 0.1, which are read (tests/test_attributes.py); nothing that can be made again."""
    model = MODELS[0]()
    private = {name for name in model.__getstate__() if name.startswith("_")}
    assert private == {"_parameters", "_shuffle_rng", "_seed"}
    assert {name for name in model.rnn.__getstate__() if name.startswith("_")} == {"_parameters", "_dropout_rng"}


@pytest.mark.skipif(np.__version__ < "2", reason="its arrays are NumPy 2's, which NumPy 1 does not read")
def test_layers_of_an_old_pickle_work_on_its_parameters():
    old = pickle.loads((Path(__file__).parent.parent / "data" / "objects-0.1.pickle").read_bytes())
    for name in ("tokens", "weighted", "reals", "binary", "seq2seq"):
        network = network_of(old[name])
        for rnn in network.rnns:
            assert all(np.shares_memory(array, network.parameters.flat) for array in rnn.parameters().values())


def test_a_prompt_is_copied():
    """Another thread may change the caller's tokens while kernels read them."""
    model = elman.SequenceModel(elman.Tokens(4), elman.Categories(4), hidden_size=3, seed=0)
    prompt = np.array([0, 1, 2])
    assert not np.shares_memory(generation._first_inputs(network_of(model), prompt), prompt)
