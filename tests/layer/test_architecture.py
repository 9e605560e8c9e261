"""What an Architecture says of layers is what they have; leases go back to their workspace, once."""

import dataclasses
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elman
from elman.layer.architecture import Architecture
from elman.layer.rnn import stack_of
from elman.layer.workspace import Workspace
from elman.lengths import clipped, within


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), list(itertools.product((1, 2, 3), (False, True), (False, True)))
)
def test_it_says_what_an_rnn_has(num_layers: int, bidirectional: bool, bias: bool):
    rnn = elman.RNN(3, 5, num_layers, bidirectional=bidirectional, bias=bias, seed=0)
    architecture = Architecture(3, 5, num_layers, bidirectional, bias)
    assert stack_of(rnn).architecture == architecture
    y, h_n = rnn(np.zeros((7, 4, 3)))
    assert (y.shape[-1], h_n.shape) == (architecture.n_outputs, architecture.state_shape(4))
    assert architecture.n_parameters == sum(array.size for array in rnn.parameters().values())
    names = [name for entry in architecture.entries("part.") for name in entry.names]
    assert names == [f"part.{name}" for name in rnn.parameters()]
    assert architecture.n_entries == len(architecture.entries())


def test_it_is_frozen_and_needs_no_memory():
    enormous = Architecture(1, 2**31 - 1, 2**62)
    assert enormous.n_parameters > 2**122
    with pytest.raises(dataclasses.FrozenInstanceError):
        enormous.hidden_size = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^input_size=1, hidden_size=2147483647, num_layers=\d+ must be smaller"):
        enormous.check_addressable()


def test_lengths():
    lengths = np.array([0, 2, 5])
    assert within(5, lengths).sum(axis=0).tolist() == lengths.tolist()
    assert within(5, lengths)[:, 1].tolist() == [True, True, False, False, False]
    assert clipped(lengths, 1, 3).tolist() == [0, 1, 3]
    assert clipped(None, 1, 3) is None


def test_leases():
    workspace = Workspace(np.dtype("float32"))
    with workspace.lease(2, 3, 4, 5) as (first, _):
        with workspace.lease(2, 3, 4, 5) as (other, _):
            assert not np.shares_memory(first, other)
        with pytest.raises(ZeroDivisionError), workspace.lease(2, 3, 4, 5) as (again, _):
            raise ZeroDivisionError
        assert again is other
    lease = workspace.lease(2, 3, 4, 5)
    kept = lease.arrays
    lease.release()
    lease.release()
    assert lease.arrays == []
    del lease
    one, other_one = workspace.lease(2, 3, 4, 5), workspace.lease(2, 3, 4, 5)
    assert one.arrays is kept
    assert not np.shares_memory(one.arrays[0], other_one.arrays[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: elman.RNN(3, 5),
        lambda: elman.SequenceModel(elman.Tokens(3), elman.Reals(), hidden_size=5),
        lambda: elman.Seq2Seq(elman.Tokens(3), elman.Categories(3), hidden_size=5),
    ],
)
def test_memory_goes_at_once(make: Callable[[], Any]):
    """By counting references alone: nothing refers back to a layer, or a model."""
    gc.disable()
    try:
        thing = make()
        gone = weakref.ref(thing)
        del thing
        assert gone() is None
    finally:
        gc.enable()
