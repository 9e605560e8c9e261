"""`fit(accumulate=)`: gradients of several batches, one after the other, to an update."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman

from .ranks import on_ranks
from .test_ranks import CASES, WEIGHTS, Stop, StopsAt, X, Y, batches, ended, make


@pytest.mark.parametrize("case", [name for name in CASES if "batch_size" not in CASES[name][3]])
def test_the_bits_of_so_many_shards(case: str):
    make_model, options, data, given = CASES[case]
    given = {"epochs": 2, "progress": False, **given}
    size = {} if callable(data[0]) else {"batch_size": 2}

    def run(**more: Any) -> Any:
        model = make_model(**options)
        history = model.fit(*data, **given, **more)
        return ended(model, {"loss": history["loss"]})  # as what is held out is evaluated in other batches

    assert on_ranks(1, lambda comm: run(batch_size=8, comm=comm, shards=4)) == [run(accumulate=4, **size)]


@pytest.mark.parametrize("options", [{}, {"leak": 0.3, "noise": 0.4}], ids=str)
@pytest.mark.parametrize("given", [{}, {"tbptt": (3, 5)}, {"weight_l2": 0.1, "activation_l1": 0.1}], ids=str)
def test_gradients_are_those_of_one_batch(options: dict[str, Any], given: dict[str, Any]):
    """Of all weights: the mean of the batches' means would be another."""
    given = {"optimizer": elman.SGD(0.1), "epochs": 2, "progress": False, "weights": WEIGHTS, **given}
    one, other = (make(dtype="float64", **options) for _ in range(2))
    history = one.fit(X, Y, batch_size=12, **given)
    found = other.fit(X, Y, batch_size=4, accumulate=3, **given)
    np.testing.assert_allclose(found["loss"], history["loss"], rtol=1e-12)
    for name, array in one.parameters().items():
        np.testing.assert_allclose(other.parameters()[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


def test_an_update_for_so_many_batches():
    steps = []
    make().fit(X, Y, epochs=2, batch_size=4, accumulate=3, progress=False, callbacks=[lambda t: steps.append(t.steps)])
    assert steps == [2, 4]  # of 21 sequences: 12, and 9
    make().fit(lambda: batches(8), epochs=1, accumulate=3, progress=False, callbacks=[lambda t: steps.append(t.steps)])
    assert steps[2:] == [3]  # one for each batch that the function returns


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_run_goes_on(tmp_path: Path, steps: int):
    given: dict[str, Any] = {"epochs": 2, "batch_size": 4, "accumulate": 2, "tbptt": (3, 5), "progress": False}
    options = {"dropout": 0.3, "num_layers": 2, "leak": 0.5, "noise": 0.1}
    whole, cut, later = (make(**options) for _ in range(3))
    expected = ended(whole, whole.fit(X, Y, **given))
    given |= {"checkpoint": tmp_path / "run", "checkpoint_every": 1}
    with pytest.raises(Stop):
        cut.fit(X, Y, **given, callbacks=[StopsAt(steps, Stop)])
    if steps > 1:
        with pytest.raises(ValueError, match="is of another run: accumulate is 3 here, it was 2 there"):
            make(**options).fit(X, Y, **given | {"accumulate": 3}, resume=True)
    assert ended(later, later.fit(X, Y, **given, resume=True)) == expected


@pytest.mark.parametrize("value", [0, 1.5, "2", None, True])
def test_what_is_no_number_of_batches(value: Any):
    with pytest.raises((TypeError, ValueError), match="accumulate must be a positive int"):
        make().fit(X, Y, accumulate=value)


def test_shards_are_that_on_ranks():
    message = re.escape("accumulate must be 1 with comm")
    for end in on_ranks(2, lambda comm: make().fit(X, Y, accumulate=2, comm=comm)):
        assert isinstance(end, (ValueError, RuntimeError))
        assert re.search(message, str(end))
