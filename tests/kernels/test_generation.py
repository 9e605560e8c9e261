"""Generation: many steps in one call of a kernel, each of which reads what the one before has drawn."""

from typing import Any

import numpy as np
import pytest

from elman.backends import reference
from elman.backends.contract import LAWS, Generation, Layer, Readout

LOSSES = ["cross_entropy", "binary_cross_entropy", "squared_error"]


def made(
    loss: str = LOSSES[0],
    n_steps: int = 20,
    n_layers: int = 2,
    h: int = 7,
    o: int = 5,
    b: int = 1,
    dtype: Any = "f4",
    **given: Any,
) -> Generation:
    """With inputs that are tokens, or with `beside` features which have two others beside what is fed back."""
    rng = np.random.default_rng(n_layers + h + o)
    beside, uniforms, nonlinearity = given.pop("beside", False), given.pop("uniforms", None), given.pop("f", "tanh")

    law, width, is_category = given.get("law"), given.pop("n", o), loss == LOSSES[0]

    def real(*shape: int) -> np.ndarray:
        return rng.uniform(-1.5, 1.5, shape).astype(dtype)

    is_token = is_category and not beside
    x: Any = np.full((1, b), o - 1) if is_token else real(1, b, width + 2 * beside)
    layers, n_inputs, below = [], o if is_token else x.shape[2], x
    for _ in range(n_layers):
        weights = real(1, n_inputs, h), real(1, h, h), real(1, h)
        layers.append(Layer(below, real(1, b, h), *weights, np.full((1, b, h), np.nan, dtype), None, nonlinearity))
        n_inputs, below = h, layers[-1].y
    readout = Readout(below, real(h, o), real(o), np.full((1, b, o), np.nan, dtype), loss=loss)
    drawn = np.full((n_steps, b), -7) if is_category else np.full((n_steps, b, width), np.nan, dtype)
    if uniforms is False:
        uniforms = None
    elif uniforms is None and given.get("temperature") != 0 and (loss != LOSSES[2] or law):
        uniforms = rng.random((n_steps, b, 1 if is_category else width * (2 if law else 1)))
    if given.pop("known", False):
        given["beside"], given["outputs"] = real(n_steps, b, 2), np.full((n_steps, b, o), np.nan, dtype)
        given["affine"] = real(2, width)
    return Generation(layers, readout, drawn, uniforms, **given)


NUMBERS: list[dict[str, Any]] = [
    {"loss": LOSSES[2], "beside": True, "known": True, "n": 2, "o": 2 * k, "b": 5, "law": law, "rank": rank}
    for law, k, rank in [("value", 1, 0), ("quantiles", 4, 2), ("normal", 2, 0), ("student_t", 3, 0), ("counts", 1, 0)]
]
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
    *({"loss": loss, "b": b, "beside": True} for loss in LOSSES for b in (2, 9)),
    *({"b": b, "end": 2, "n_steps": 100} for b in (1, 2, 33)),
    *({**numbers, "uniforms": u} for numbers in NUMBERS for u in (None, False)),
    *({"loss": loss, "b": 3, "beside": True, "known": True, "n": 5} for loss in LOSSES[:2]),
    {"b": 64, "o": 100, "h": 5, "n_steps": 5, "n_layers": 1, "top_k": 9},  # draws that are divided among threads
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_backends_draw_the_same(backend: Any, dtype: str, case: dict[str, Any]):
    expected, found = made(dtype=dtype, **case), made(dtype=dtype, **case)
    np.testing.assert_array_equal(backend.generate(found), reference.generate(expected))
    tolerance = {"rtol": 0, "atol": 2e4 * np.finfo(dtype).eps * np.abs(expected.readout.o).max()}
    if case.get("loss") == LOSSES[2]:  # errors are fed back
        np.testing.assert_allclose(found.drawn, expected.drawn, **tolerance)
    else:
        np.testing.assert_array_equal(found.drawn, expected.drawn)
    if found.outputs is not None:
        np.testing.assert_allclose(found.outputs, expected.outputs, **tolerance)
    np.testing.assert_allclose(found.readout.o, expected.readout.o, **tolerance)
    for one, other in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(one.y, other.y, **tolerance)
        assert np.array_equal(one.h_0, other.h_0)  # left as they were: a caller may begin there again
    np.testing.assert_allclose(found.layers[0].x, expected.layers[0].x, **tolerance)


def of_row(g: Generation, b: int) -> Generation:
    """The same of one row alone."""

    def own(array: Any, axis: int = 1) -> Any:
        return None if array is None else np.ascontiguousarray(np.take(array, [b], axis))

    layers, below = [], own(g.layers[0].x)
    for layer in g.layers:
        layers.append(layer._replace(x=below, h_0=own(layer.h_0), y=own(layer.y)))
        below = layers[-1].y
    readout = g.readout._replace(h=below, o=own(g.readout.o))
    arrays = {name: own(getattr(g, name)) for name in ("drawn", "uniforms", "outputs", "beside")}
    return g._replace(layers=layers, readout=readout, **arrays)


@pytest.mark.parametrize("case", [case for case in CASES if case.get("b", 1) > 1], ids=str)
def test_a_row_does_not_depend_on_the_others(compiled: Any, dtype: str, case: dict[str, Any]):
    alone = [of_row(made(dtype=dtype, **case), b) for b in range(case["b"])]
    g = made(dtype=dtype, **case)
    done = compiled.generate(g)
    for b, one in enumerate(alone):
        np.testing.assert_array_equal(compiled.generate(one), done[b : b + 1])
        np.testing.assert_array_equal(one.drawn[:, 0], g.drawn[:, b])
        np.testing.assert_array_equal(one.layers[-1].y[:, 0], g.layers[-1].y[:, b])
        if g.outputs is not None:
            np.testing.assert_array_equal(one.outputs[:, 0], g.outputs[:, b])


@pytest.mark.parametrize("law", ["normal", "student_t"])
def test_what_is_drawn_has_its_distribution(backend: Any, law: str):
    """Its quantiles are those of the distribution, whose units are these."""
    stats = pytest.importorskip("scipy.stats")
    units = [0.3, 0.7, -1.0][: LAWS[law]]
    uniforms = np.random.default_rng(0).random((4000, 3, 2))
    g = made(LOSSES[2], n_steps=4000, b=3, n=1, o=len(units), law=law, uniforms=uniforms, dtype="f8")
    g.readout.weight[...], g.readout.bias[...] = 0, units
    assert (backend.generate(g) == 4000).all()
    scale, df = 1e-6 + np.logaddexp(0, 0.7), 2 + 1e-6 + np.logaddexp(0, -1.0)
    distribution = stats.norm(0.3, scale) if law == "normal" else stats.t(df, 0.3, scale)
    assert stats.kstest(g.drawn.ravel(), distribution.cdf).pvalue > 1e-3


def test_what_comes_after_is_not_written(backend: Any):
    g = made(n_steps=200, end=2)
    (n,) = backend.generate(g)
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


def test_it_stops_at_numbers_that_are_not_finite(backend: Any):
    g = made(LOSSES[2], b=2, n=1, o=2, law="normal", uniforms=np.full((20, 2, 2), 0.01))
    g.readout.weight[...], g.readout.bias[...] = 0, [3.3e38, 3e38]
    g.uniforms[:, 1] = 0.01, 0.5  # below the mean
    with np.errstate(all="ignore"):
        assert backend.generate(g).tolist() == [0, 20]


@pytest.mark.parametrize("least", [-np.inf, -1e9])
def test_what_has_no_probability_is_never_drawn(backend: Any, least: float):
    for uniform, bias, drawn in (
        (0.0, [least, 0, 1, least, least], 1),
        (1 - 2**-53, [least, 1, 0, least, least], 2),  # of which rounding may make all there is
    ):
        g = made(n_steps=1, uniforms=np.full((1, 1, 1), uniform))
        g.readout.weight[...] = 0
        g.readout.bias[...] = bias
        assert backend.generate(g) == 1
        assert g.drawn.tolist() == [[drawn]]


@pytest.mark.parametrize("b", [1, 5])
def test_one_call_is_as_good_as_many(backend: Any, b: int):
    whole, part = made(n_steps=30, b=b), made(n_steps=30, b=b)
    assert (backend.generate(whole) == 30).all()
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
        ("drawn", lambda g: g._replace(drawn=np.full((20, 2), -7))),
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


WRONG_NUMBERS = [
    ("drawn", {"law": "student_t"}),  # two units are too few
    ("drawn", {"law": "quantiles", "rank": 2}),
    ("drawn", {"drawn": np.full((20, 5, 3), np.nan, "f4")}),  # of which each has one and a third
    ("outputs", {"outputs": np.zeros((20, 5, 3), "f4")}),
    ("beside", {"beside": np.zeros((20, 5, 1), "f4")}),
    ("beside", {"beside": np.zeros((19, 5, 2), "f4")}),
    ("affine", {"affine": np.zeros((1, 2), "f4")}),
    ("uniforms", {"uniforms": np.zeros((20, 5, 2))}),  # two for each number
    ("rank", {"rank": -1}),
]


@pytest.mark.parametrize(("name", "changes"), WRONG_NUMBERS, ids=str)
def test_the_wall_of_numbers(compiled: Any, name: str, changes: dict[str, Any]):
    g = made(LOSSES[2], beside=True, known=True, n=2, o=4, b=5, law="normal")
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        compiled.generate(g._replace(**changes))
    assert np.isnan(g.drawn).all()


@pytest.mark.parametrize("name", ["y", "second"])
def test_rows_have_no_gaps(compiled: Any, name: str):
    g = made(b=3)
    wide = np.zeros((1, 3, 9), "f4")[..., :7]
    layer = g.layers[0]._replace(y=wide) if name == "y" else None
    if layer is None:
        numbers = np.ones((1, 7), "f4")
        layer = g.layers[0]._replace(cell="rate", numbers=numbers, second=wide)
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        compiled.generate(g._replace(layers=[layer, g.layers[1]._replace(x=layer.y)]))


def test_tokens_are_as_many_as_there_may_be(compiled: Any):
    g = made(o=6)
    first = g.layers[0]
    few = first._replace(x=np.array([[0]]), weight_ih=first.weight_ih[:, :5].copy())  # of which 5 is none
    with pytest.raises(ValueError, match=r"^x: expected"):
        compiled.generate(g._replace(layers=[few, *g.layers[1:]]))
