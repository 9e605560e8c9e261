"""Gradients by parameters that are not wanted: each of them may be None, and the others keep their bits."""

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import elman.backends
from elman.backends import reference
from elman.backends.contract import Gradients, Readout

from ..cases import active_steps, make, make_readout
from ..compare import assert_same_bits
from .test_leaks import CELLS, options_of, run

CASES = [
    {"T": 1, "B": 1, "I": 1, "H": 1},
    {"T": 6, "B": 5, "I": 4, "H": 37, "D": 2, "lengths": "ragged", "mask": True},
    {"T": 5, "B": 9, "I": 6, "H": 33, "reverse": True, "lengths": "ragged"},
    {"T": 4, "B": 100, "I": 5, "H": 16, "tokens": True, "activation": "relu"},
    {"T": 50, "B": 3, "I": 2, "H": 130, "mask": True, "input_grad": False},
    {"T": 3, "B": 2, "I": 3, "H": 5, "lengths": "zero"},
]
SUMS = "d_weight_ih", "d_weight_hh", "d_bias"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_each_by_itself(backend: ModuleType, dtype: str, cell: str, case: dict[str, Any]):
    p = make(**case, dtype=dtype)
    options = options_of(p, cell)
    every = run(p, backend, options)
    for wanted in itertools.chain.from_iterable(itertools.combinations(SUMS, n) for n in range(3)):
        got = run(p.replace(sums={name: p.sums[name] for name in wanted}), backend, options)
        assert_same_bits(got, {name: array for name, array in every.items() if name not in SUMS or name in wanted})


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "squared_error"])
@pytest.mark.parametrize("size", [1, 37])
def test_each_of_a_readout_by_itself(backend: ModuleType, dtype: str, loss: str, size: int):
    sizes = {"T": size, "B": 3, "K": size, "O": 2 * size} if size > 1 else {"T": 1, "B": 1, "K": 1, "O": 1}
    r = make_readout(**sizes, loss=loss, lengths="ragged", weights="steps", dtype=dtype)
    every = r.run(backend)
    for n in range(1, 3):
        for wanted in itertools.combinations(("d_h", "d_weight", "d_bias"), n):
            out = {"o": np.zeros_like(every["o"]), "d_h": np.zeros_like(every["d_h"])}
            out |= {name: array.copy() for name, array in r.sums.items()}
            out = {name: array for name, array in out.items() if name == "o" or name in wanted}
            total = backend.readout_loss(Readout(**r.given(), **out))
            assert total == every["total"]
            for name, array in out.items():
                is_seen = active_steps(r.lengths, *array.shape[:2]) if name in ("o", "d_h") else slice(None)
                np.testing.assert_array_equal(array[is_seen], every[name][is_seen], err_msg=f"{name} of {wanted}")


def test_threads_that_share_columns():
    p, backend = make(T=40, B=1, I=3, H=512, dtype="float32"), elman.backends.get("cython")
    every, before = run(p, backend, {"cell": "elman"}), elman.get_num_threads()
    try:
        elman.set_num_threads(4)
        got = run(p.replace(sums={"d_bias": p.sums["d_bias"]}), backend, {"cell": "elman"})
    finally:
        elman.set_num_threads(before)
    assert_same_bits(got, {name: array for name, array in every.items() if not name.startswith("d_weight")})


def test_an_array_that_does_not_fit_is_refused_all_the_same(backend: ModuleType):
    if backend is reference:
        pytest.skip("it trusts its callers")
    p = make(T=3, B=2, H=4)
    y = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match="d_weight_hh"):
        backend.backward(p.layer(y), Gradients(None, None, y, None, np.ones((1, 4, 3)), None, p.h_0.copy(), None))
