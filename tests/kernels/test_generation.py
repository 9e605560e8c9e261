"""Generation: many steps in one call of a kernel, each of which reads what the one before has drawn."""

from typing import Any

import numpy as np
import pytest

from elman.backends import reference
from elman.backends.contract import Generation, Layer, Readout

LOSSES = ["cross_entropy", "binary_cross_entropy", "squared_error"]


def made(
    loss: str = LOSSES[0], n_steps: int = 20, n_layers: int = 2, h: int = 7, o: int = 5, dtype: Any = "f4", **given: Any
) -> Generation:
    """With inputs that are tokens, or with `beside` features which have two others beside what is fed back."""
    rng = np.random.default_rng(n_layers + h + o)
    beside, uniforms, nonlinearity = given.pop("beside", False), given.pop("uniforms", None), given.pop("f", "tanh")

    def real(*shape: int) -> np.ndarray:
        return rng.uniform(-1.5, 1.5, shape).astype(dtype)

    is_token = loss == LOSSES[0] and not beside
    x: Any = np.array([[o - 1]]) if is_token else real(1, 1, o + 2 * beside)
    layers, n_inputs, below = [], o if is_token else x.shape[2], x
    for _ in range(n_layers):
        weights = real(1, n_inputs, h), real(1, h, h), real(1, h)
        layers.append(Layer(below, real(1, 1, h), *weights, np.full((1, 1, h), np.nan, dtype), None, nonlinearity))
        n_inputs, below = h, layers[-1].y
    readout = Readout(below, real(h, o), real(o), np.full((1, 1, o), np.nan, dtype), loss=loss)
    is_category = loss == LOSSES[0]
    drawn = np.full(n_steps, -7) if is_category else np.full((n_steps, o), np.nan, dtype)
    if uniforms is None and given.get("temperature") != 0 and loss != LOSSES[2]:
        uniforms = rng.random((n_steps, 1 if is_category else o))
    return Generation(layers, readout, drawn, uniforms, **given)


CASES: list[dict[str, Any]] = [
    *({"loss": loss} for loss in LOSSES),
    *({"loss": loss, "beside": True, "n_layers": 1} for loss in LOSSES),
    *({"loss": loss, "temperature": 0, "beside": True} for loss in LOSSES[:2]),
    {"temperature": 0},
    *({"temperature": t} for t in (0.3, 5.0, 1e300, 1e-300)),
    *({"loss": LOSSES[1], "temperature": t} for t in (0.3, 1e300, 1e-300)),
    *({"top_k": k, "o": 40} for k in (1, 3, 40, 1000)),
    *({"top_p": p, "o": 40} for p in (1e-9, 0.4, 1.0)),
    {"top_k": 9, "top_p": 0.7, "o": 40, "temperature": 2.0},
    *({"end": end, "n_steps": 200} for end in range(5)),
    *({"loss": loss, "n_layers": 1, "h": 1, "o": 1, "n_steps": 1} for loss in LOSSES),
    *({"loss": loss, "n_layers": 4, "h": 100, "o": 3, "f": "sigmoid"} for loss in LOSSES),
    {"n_layers": 2, "h": 33, "o": 17, "f": "relu"},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_backends_draw_the_same(backend: Any, dtype: str, case: dict[str, Any]):
    expected, found = made(dtype=dtype, **case), made(dtype=dtype, **case)
    n, m = reference.generate(expected), backend.generate(found)
    assert n == m
    tolerance = {"rtol": 0, "atol": 2e4 * np.finfo(dtype).eps * np.abs(expected.readout.o).max()}
    if case.get("loss") == LOSSES[2]:  # errors are fed back
        np.testing.assert_allclose(found.drawn[:n], expected.drawn[:n], **tolerance)
    else:
        assert np.array_equal(found.drawn[:n], expected.drawn[:n])
    np.testing.assert_allclose(found.readout.o, expected.readout.o, **tolerance)
    for one, other in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(one.y, other.y, **tolerance)
        assert np.array_equal(one.h_0, other.h_0)  # left as they were: a caller may begin there again
    np.testing.assert_allclose(found.layers[0].x, expected.layers[0].x, **tolerance)


def test_what_comes_after_is_not_written(backend: Any):
    g = made(n_steps=200, end=2)
    n = backend.generate(g)
    assert 0 < n < 199
    assert 2 not in g.drawn[:n]
    assert (g.drawn[n + 1 :] == -7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_stops_at_outputs_that_are_not_finite(backend: Any, loss: str, value: float):
    g = made(loss, beside=True)
    g.readout.bias[1] = value
    assert backend.generate(g) == 0
    assert not np.isfinite(g.readout.o).all()
    g = made(loss, n_steps=9, beside=True, f="identity")
    g.readout.weight[...] = 1e30 * np.sign(g.readout.weight)  # fed back, the numbers overflow after some steps
    if loss == LOSSES[2]:
        with np.errstate(all="ignore"):
            assert 0 < backend.generate(g) < 9


@pytest.mark.parametrize("least", [-np.inf, -1e9])
def test_what_has_no_probability_is_never_drawn(backend: Any, least: float):
    for uniform, bias, drawn in (
        (0.0, [least, 0, 1, least, least], 1),
        (1 - 2**-53, [least, 1, 0, least, least], 2),  # of which rounding may make all there is
    ):
        g = made(n_steps=1, uniforms=np.full((1, 1), uniform))
        g.readout.weight[...] = 0
        g.readout.bias[...] = bias
        assert backend.generate(g) == 1
        assert g.drawn.tolist() == [drawn]


def test_one_call_is_as_good_as_many(backend: Any):
    whole, part = made(n_steps=30), made(n_steps=30)
    assert backend.generate(whole) == 30
    for start in range(0, 30, 7):
        stop = min(start + 7, 30)
        backend.generate(part._replace(drawn=part.drawn[start:stop], uniforms=part.uniforms[start:stop]))
        for layer in part.layers:
            layer.h_0[...] = layer.y
    assert np.array_equal(part.drawn, whole.drawn)


def replaced(g: Generation, k: int, **fields: Any) -> Generation:
    layers = list(g.layers)
    layers[k] = layers[k]._replace(**fields)
    return g._replace(layers=layers)


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("layers", lambda g: g._replace(layers=[])),
        ("x", lambda g: replaced(g, 0, x=read_only(g.layers[0].x))),
        ("x", lambda g: replaced(g, 0, x=np.array([[5]]))),
        ("x", lambda g: replaced(g, 1, x=g.layers[1].x.copy())),  # not what the layer below writes
        ("x", lambda g: replaced(g, 0, x=np.array([[0], [1]]), y=np.zeros((2, 1, 7), "f4"))),
        ("x", lambda g: replaced(g, 0, lengths=np.array([1]))),
        ("layers", lambda g: replaced(g, 0, dropout=0.5, dropped=np.zeros((1, 1, 7), "f4"))),
        ("weight_hh", lambda g: replaced(g, 1, weight_hh=np.zeros((1, 7, 6), "f4"))),
        ("h_0", lambda g: replaced(g, 1, h_0=np.zeros((1, 1, 7), "f8"))),
        ("h", lambda g: g._replace(readout=g.readout._replace(h=g.readout.h.copy()))),
        ("o", lambda g: g._replace(readout=g.readout._replace(o=read_only(g.readout.o)))),
        ("o", lambda g: g._replace(readout=g.readout._replace(o=np.zeros((1, 1, 4), "f4")))),
        ("x", lambda g: g._replace(readout=g.readout._replace(loss="squared_error"))),  # numbers are no tokens
        ("drawn", lambda g: g._replace(drawn=read_only(g.drawn))),
        ("drawn", lambda g: g._replace(drawn=g.drawn[::2])),
        ("drawn", lambda g: g._replace(drawn=g.drawn.astype("f4"))),
        ("uniforms", lambda g: g._replace(uniforms=g.uniforms[:-1])),
        ("uniforms", lambda g: g._replace(uniforms=g.uniforms.astype("f4"))),
        ("top_k", lambda g: g._replace(top_k=-1)),
    ],
)
def test_the_wall(compiled: Any, name: str, wrong: Any):
    g = wrong(made())
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        compiled.generate(g)
    assert (g.drawn == -7).all()


def test_tokens_are_as_many_as_there_may_be(compiled: Any):
    g = made(o=6)
    first = g.layers[0]
    few = first._replace(x=np.array([[0]]), weight_ih=first.weight_ih[:, :5].copy())  # of which 5 is none
    with pytest.raises(ValueError, match=r"^x: expected"):
        compiled.generate(g._replace(layers=[few, *g.layers[1:]]))
