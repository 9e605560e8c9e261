"""Every backend is the reference's equal: the same functions, parameters, activations and losses."""

import importlib
import inspect
from types import FunctionType

import numpy as np
import pytest

import elman.backends
from elman.backends import reference
from elman.training import optimizers

from ..cases import make, make_readout
from ..compare import check_backward, check_forward, check_readout_loss

_ALL = {name: value for name, value in vars(reference).items() if isinstance(value, FunctionType)}
FUNCTIONS = [name for name, value in _ALL.items() if name[0] != "_" and value.__module__ == reference.__name__]


def _parameters(function) -> list[tuple]:
    """Names, kinds and defaults: what a call depends on."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_reference_has_the_functions_of_the_design():
    names = "forward backward step readout readout_loss generate clip_norm update normals recurrent_mask"
    assert set(FUNCTIONS) == set(names.split())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", elman.backends.available())
def test_signatures_are_the_reference_s(backend: str, name: str):
    assert _parameters(getattr(elman.backends.get(backend), name)) == _parameters(getattr(reference, name))


def test_the_native_backend_is_there():
    native = importlib.import_module("elman.backends.native")  # an installation without it is broken: no skip
    assert "cython" in elman.backends.available()
    assert elman.backends.get("cython") is native


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_backend_has_every_activation(backend, dtype, activation):
    p = make(activation=activation, dtype=dtype)
    check_forward(backend, p)
    check_backward(backend, p)
    h_next = np.full_like(p.h_0[0], np.nan)
    backend.step(p.x[0], p.h_0[0], p.weight_ih[0], p.weight_hh[0], p.bias[0], h_next, activation=activation)
    np.testing.assert_allclose(
        h_next, p.times(0, 1).forward(reference)["h_n"][0], rtol=0, atol=64 * np.finfo(dtype).eps
    )


def test_some_optimizer_has_each_rule():
    others = {"average"}  # of parameters: fit(average=)
    assert {getattr(optimizers, name)._rule for name in optimizers.__all__} | others == set(reference.UPDATES)


@pytest.mark.parametrize("name", optimizers.__all__)
def test_every_backend_has_every_optimizer_s_rule(backend, dtype, name):
    results = []
    for one in (backend, reference):
        rng, optimizer = np.random.default_rng(0), getattr(optimizers, name)(lr=0.1)
        parameters, *gradients = rng.normal(size=(4, 37)).astype(dtype)
        for gradient in gradients:
            optimizers.apply(optimizer, one, {"flat": parameters}, {"flat": gradient})
        results.append(parameters)
    np.testing.assert_allclose(*results, rtol=0, atol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("loss", reference.LOSSES)
def test_every_backend_has_every_loss(backend, dtype, loss):
    check_readout_loss(backend, make_readout(loss=loss, dtype=dtype))
