"""Bad input: an error that names the argument and says what was expected, nothing changed, and no crash."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import elman
from elman import check
from elman.backends.reference import ACTIVATIONS

T, B, I, H = 5, 2, 3, 4  # noqa: E741 - the names of docs/design.md
X, X_T, D_Y = np.ones((T, B, I)), np.ones((B, I)), np.ones((T, B, H))
INTEGERS = np.ones((T, B, I), dtype=int)
LISTED = [X[:, 0], X[:2, 1]]


class Unwilling:
    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("not today")


CONSTRUCTOR = [
    ((0, H), {}, "input_size must be a positive int, got 0"),
    ((-3, H), {}, "input_size must be a positive int, got -3"),
    ((True, H), {}, "input_size must be a positive int, got True"),
    ((I, 2.0), {}, "hidden_size must be a positive int, got 2.0"),
    ((I, "5"), {}, "hidden_size must be a positive int, got '5'"),
    ((I, None), {}, "hidden_size must be a positive int, got None"),
    ((I, H), {"num_layers": 0}, "num_layers must be a positive int, got 0"),
    ((I, H), {"nonlinearity": "tan"}, f"nonlinearity must be one of {', '.join(map(repr, ACTIVATIONS))}, got 'tan'"),
    ((I, H), {"nonlinearity": np.tanh}, "nonlinearity must be one of"),
    ((I, H), {"bias": 1}, "bias must be True or False, got 1"),
    ((I, H), {"batch_first": "no"}, "batch_first must be True or False, got 'no'"),
    ((I, H), {"bidirectional": None}, "bidirectional must be True or False, got None"),
    ((I, H), {"dropout": 1.5}, "dropout must be a number from 0 to 1, got 1.5"),
    ((I, H), {"dropout": -0.1}, "dropout must be a number from 0 to 1, got -0.1"),
    ((I, H), {"dropout": float("nan")}, "dropout must be a number from 0 to 1, got nan"),
    ((I, H), {"dropout": True}, "dropout must be a number from 0 to 1, got True"),
    ((I, H), {"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
    ((I, H), {"dtype": np.longdouble}, "dtype must be 'float32' or 'float64'"),
    ((I, H), {"dtype": ">f4"}, "dtype must be 'float32' or 'float64'"),
    ((I, H), {"dtype": int}, "dtype must be 'float32' or 'float64'"),
    ((I, H), {"dtype": None}, "dtype must be 'float32' or 'float64', got None"),
    ((I, H), {"seed": -1}, "seed must not be negative, got -1"),
    ((I, H), {"seed": 0.5}, "seed must be None, an int or a numpy.random.Generator, got 0.5"),
    ((I, H), {"seed": np.random.RandomState(0)}, "seed must be None, an int or a numpy.random.Generator"),
    (
        (I, H),
        {"initialization": "zero"},
        "initialization must be one of 'uniform', 'orthogonal', 'identity', got 'zero'",
    ),
    ((I, H), {"recurrent_dropout": 1}, "recurrent_dropout must be a number from 0 to 1, exclusive, got 1"),
    ((I, H), {"recurrent_dropout": "0"}, "recurrent_dropout must be a number from 0 to 1, exclusive, got '0'"),
    ((I, H), {"spectral_radius": 0}, "spectral_radius must be a finite number above 0, got 0"),
    ((I, H), {"spectral_radius": float("inf")}, "spectral_radius must be a finite number above 0, got inf"),
    ((I, H), {"backend": "fortran"}, "backend must be one of 'numpy', 'numba', 'cython', got 'fortran'"),
    ((I, H), {"backend": 1}, "backend must be one of"),
]
TOO_FAR = [
    ({"leak": 1e-300}, "leak must be at least 1.2e-38 in float32, got 1e-300: choose a larger one or dtype='float64'"),
    ({"leak": [np.array([0.5, 1e-39, 1, 1])]}, "leak must be at least 1.2e-38 in float32, got 1e-39"),
    ({"leak": 5e-324, "dtype": "float64"}, "leak must be at least 2.2e-308 in float64, got 5e-324: choose a larger"),
    ({"noise": 1e39}, "noise must be so small that noise·√(2/leak) is finite in float32, got 1e+39: choose a smaller"),
    ({"noise": 1e30, "leak": 1e-30}, "noise must be so small that noise·√(2/leak) is finite in float32, got 1e+30"),
    (
        {"noise": np.array([0, 1e200, 1, 0]), "leak": 1e-300, "dtype": "float64"},
        "noise must be so small that noise·√(2/leak) is finite in float64, got 1e+200: choose a smaller one",
    ),
]


@pytest.mark.parametrize(("args", "options", "message"), CONSTRUCTOR)
def test_constructor(args: tuple[Any, ...], options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        elman.RNN(*args, **options)


@pytest.mark.parametrize(("options", "message"), [*TOO_FAR, ({"input_noise": 1e39}, "input_noise must be so small")])
def test_what_a_dtype_has_no_room_for(options: dict[str, Any], message: str):
    data = elman.Features(I), elman.Reals(1)
    for make in (partial(elman.RNN, I, H), partial(elman.SequenceModel, *data, hidden_size=H)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            make(**options)
    if "input_noise" not in options:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            elman.Seq2Seq(elman.Tokens(2), elman.Categories(2), hidden_size=H, **options)


def test_what_a_dtype_has_just_room_for():
    for dtype in ("float32", "float64"):
        least = float(np.finfo(dtype).tiny)
        y, _, pullback = elman.RNN(I, H, leak=least, noise=1.0, dtype=dtype, seed=0).vjp(X)
        assert np.isfinite(y).all()
        assert np.isfinite(pullback(y)[2]["weight_hh_l0"]).all()


WRONG_KIND = [  # of real array: (value of the wrong kind in the place of X, what the message says that came)
    (INTEGERS, "got int64"),
    (INTEGERS.tolist(), "got int64"),
    (X.astype(bool), "got bool"),
    (X.astype(np.float16), "got float16"),
    (X.astype(np.longdouble), f"got {np.dtype(np.longdouble)}"),
    (X.astype(complex), "got complex128"),
    (X.astype(object), "got object"),
    ("text", "got <U4"),
    (None, "got object"),
    ({}, "got object"),
    (Unwilling(), "not today"),
    (np.ma.masked_greater(X, 0), "without a mask"),
]

X_SHAPE = "x must have shape (T, B, 3) or (T, 3), got "
CALLS = [
    *[((value,), {}, f"x must .*{re.escape(got)}") for value, got in WRONG_KIND],
    ((X[..., :2],), {}, re.escape(X_SHAPE + "(5, 2, 2)")),
    ((X[0, 0],), {}, re.escape(X_SHAPE + "(3,)")),
    ((X[None],), {}, re.escape(X_SHAPE + "(1, 5, 2, 3)")),
    ((1.0,), {}, re.escape(X_SHAPE + "()")),
    (([],), {}, re.escape(X_SHAPE + "(0,)")),
    ((X[:0],), {}, re.escape("x must not have an empty axis, got shape (0, 2, 3)")),
    ((X[:, :0],), {}, re.escape("x must not have an empty axis, got shape (5, 0, 3)")),
    ((X[:0, 0],), {}, re.escape("x must not have an empty axis, got shape (0, 3)")),
    (([[[1.0, 2.0, 3.0]], [[1.0]]],), {}, "x must be an array, got .*inhomogeneous"),
    (([X[:, 0], X],), {}, re.escape("x[1] must have shape (T, 3), got (5, 2, 3)")),
    (([X[:, 0], X[:, 0, :2]],), {}, re.escape("x[1] must have shape (T, 3), got (5, 2)")),
    (([X[:, 0], INTEGERS[:, 0]],), {}, re.escape("x[1] must hold float32 or float64, got int64")),
    ((LISTED,), {"lengths": [5, 2]}, "lengths must be None where x is a list"),
    ((X[:, 0],), {"lengths": [5]}, "lengths must be None where x is unbatched"),
    ((X, np.ones((B, H))), {}, re.escape("h_0 must have shape (1, 2, 4), got (2, 4)")),
    ((X, np.ones((1, B, H + 1))), {}, re.escape("h_0 must have shape (1, 2, 4), got (1, 2, 5)")),
    ((X[:, 0], np.ones((1, 1, H))), {}, re.escape("h_0 must have shape (1, 4), got (1, 1, 4)")),
    ((LISTED, np.ones((1, 3, H))), {}, re.escape("h_0 must have shape (1, 2, 4), got (1, 3, 4)")),
    ((X, np.ones((1, B, H), dtype=int)), {}, "h_0 must hold float32 or float64, got int64"),
    ((X,), {"lengths": [5, 6]}, re.escape("lengths must be from 0 to T = 5, got 6 at [1]")),
    ((X,), {"lengths": [-1, 6]}, re.escape("lengths must be from 0 to T = 5, got -1 at [0]")),
    ((X,), {"lengths": np.array([1, 2**64 - 1], dtype=np.uint64)}, f"lengths must be .*, got {2**64 - 1}"),
    ((X,), {"lengths": [5]}, re.escape("lengths must have shape (2,), got (1,)")),
    ((X,), {"lengths": [[5, 5]]}, re.escape("lengths must have shape (2,), got (1, 2)")),
    ((X,), {"lengths": 5}, re.escape("lengths must have shape (2,), got ()")),
    ((X,), {"lengths": [5.0, 2.0]}, "lengths must hold integers, got float64"),
    ((X,), {"lengths": [True, False]}, "lengths must hold integers, got bool"),
    ((X,), {"lengths": "52"}, "lengths must hold integers"),
    ((X,), {"lengths": [1, [2]]}, "lengths must be an array"),
]


def fails(call: Callable[..., Any], *args: Any, message: str, **options: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call(*args, **options)


@pytest.mark.parametrize(("args", "options", "message"), CALLS)
def test_call(args: tuple[Any, ...], options: dict[str, Any], message: str):
    rnn = elman.RNN(I, H, seed=0, backend="numpy")
    state = rnn.state_dict()
    for call in (rnn, rnn.vjp, rnn.last_state):
        fails(call, *args, **options, message=message)
    assert all(np.array_equal(array, state[name]) for name, array in rnn.parameters().items())


def test_batch_first_is_in_the_message():
    rnn = elman.RNN(I, H, batch_first=True, backend="numpy")
    fails(rnn, X[..., :2], message=re.escape("x must have shape (B, T, 3) or (T, 3), got (5, 2, 2)"))
    fails(rnn, X, lengths=[3, 3, 3, 3, 3, 9], message=re.escape("lengths must have shape (5,), got (6,)"))
    fails(rnn, X, lengths=[0, 1, 2, 2, 3], message=re.escape("lengths must be from 0 to T = 2, got 3 at [4]"))


PULLBACKS = [
    (X, (D_Y[..., :2],), {}, re.escape("d_y must have shape (5, 2, 4), got (5, 2, 2)")),
    (X, (D_Y[0],), {}, re.escape("d_y must have shape (5, 2, 4), got (2, 4)")),
    (X, (1.0,), {}, re.escape("d_y must have shape (5, 2, 4), got ()")),
    (X, (D_Y.astype(int),), {}, "d_y must hold float32 or float64, got int64"),
    (X, (D_Y, D_Y), {}, re.escape("d_h_n must have shape (1, 2, 4), got (5, 2, 4)")),
    (X, (D_Y,), {"input_grad": 0}, "input_grad must be True or False, got 0"),
    (X[:, 0], (D_Y,), {}, re.escape("d_y must have shape (5, 4), got (5, 2, 4)")),
    (X[:, 0], (D_Y[:, 0], D_Y[:1]), {}, re.escape("d_h_n must have shape (1, 4), got (1, 2, 4)")),
    (LISTED, (D_Y,), {}, "d_y must be a list of 2 arrays, got an array of float64"),
    (LISTED, ([D_Y[:, 0]],), {}, "d_y must be a list of 2 arrays, got 1"),
    (LISTED, ([D_Y[:, 0], D_Y[:, 1]],), {}, re.escape("d_y[1] must have shape (2, 4), got (5, 4)")),
]


@pytest.mark.parametrize(("x", "args", "options", "message"), PULLBACKS)
def test_pullback(x: Any, args: tuple[Any, ...], options: dict[str, Any], message: str):
    _, _, pullback = elman.RNN(I, H, backend="numpy").vjp(x)
    fails(pullback, *args, **options, message=message)


STEPS = [
    *[((value[0] if isinstance(value, np.ndarray) else value,), f"x_t must .*{got}") for value, got in WRONG_KIND[2:]],
    ((X,), re.escape("x_t must have shape (B, 3) or (3,), got (5, 2, 3)")),
    ((X_T[:0],), re.escape("x_t must not have an empty axis, got shape (0, 3)")),
    ((X_T, np.ones((B, H))), re.escape("h must have shape (1, 2, 4), got (2, 4)")),
    ((X_T, np.ones((1, 3, H))), re.escape("h must have shape (1, 2, 4), got (1, 3, 4)")),
    ((X_T[0], np.ones((1, 1, H))), re.escape("h must have shape (1, 4), got (1, 1, 4)")),
    ((X_T, np.ones((1, B, H), dtype=int)), "h must hold float32 or float64, got int64"),
]


@pytest.mark.parametrize(("args", "message"), STEPS)
def test_step(args: tuple[Any, ...], message: str):
    fails(elman.RNN(I, H, backend="numpy").step, *args, message=message)


def test_step_needs_one_direction():
    fails(elman.RNN(I, H, bidirectional=True).step, X_T, message="step is not possible with bidirectional=True")


STATES = [
    ({"bias_l0": None}, r"state must have the keys .*; missing \['bias_l0'\], unexpected \[\]"),
    ({"bias_hh_l0": np.ones(H)}, r"state must have the keys .*; missing \[\], unexpected \['bias_hh_l0'\]"),
    (
        {"bias_l0": None, "bias_ih_l0": np.ones(H), "extra": 1.0, 7: 8},
        r"state must have the keys .*; missing \['bias_hh_l0'\], unexpected \['extra', 7\]",
    ),
    ({"weight_hh_l0": np.ones((H, I))}, re.escape("weight_hh_l0 must have shape (4, 4), got (4, 3)")),
    ({"weight_ih_l0": np.ones((I, H))}, re.escape("weight_ih_l0 must have shape (4, 3), got (3, 4)")),
    ({"weight_ih_l0": np.ones((H, I), dtype=int)}, "weight_ih_l0 must hold float32 or float64, got int64"),
    ({"weight_hh_l0": np.ones((H, H), dtype=complex)}, "weight_hh_l0 must hold float32 or float64, got complex128"),
    ({"bias_l0": Unwilling()}, "bias_l0 must be an array, got .*not today"),
    (
        {"bias_l0": None, "bias_ih_l0": np.ones(H), "bias_hh_l0": np.ones(1)},
        re.escape("bias_hh_l0 must have shape (4,), got (1,)"),
    ),
]


@pytest.mark.parametrize(("changes", "message"), STATES)
def test_load_state_dict(changes: dict[Any, Any], message: str):
    rnn = elman.RNN(I, H, seed=0)
    before = rnn.state_dict()
    state = elman.RNN(I, H, seed=1).state_dict() | changes
    fails(rnn.load_state_dict, {key: value for key, value in state.items() if value is not None}, message=message)
    assert all(np.array_equal(array, before[name]) for name, array in rnn.parameters().items())


def test_load_state_dict_that_overflows():
    rnn = elman.RNN(I, H, seed=0)
    state = rnn.state_dict()
    with pytest.raises(ValueError, match=r"^bias_l0 as float32 must be finite, got inf at \[0\]$"):
        rnn.load_state_dict(state | {"weight_ih_l0": state["weight_ih_l0"] + 1, "bias_l0": np.full(H, 1e300)})
    assert all(np.array_equal(array, state[name]) for name, array in rnn.parameters().items())
    fails(rnn.load_state_dict, [1, 2], message="state must be a dict")


TOKENS = [
    (np.array([[0, 1], [2, 7]]), "tokens must hold tokens from 0 to 6, got 7 at [1, 1]"),
    (np.array([[0, 9], [-2, 7]])[:, ::-1], "tokens must hold tokens from 0 to 6, got 9 at [0, 0]"),
    (np.array([[-1, 1]], dtype=np.int8), "tokens must hold tokens from 0 to 6, got -1 at [0, 0]"),
    (np.array([[1, 2**64 - 3]], dtype=np.uint64), f"tokens must hold tokens from 0 to 6, got {2**64 - 3} at [0, 1]"),
    ([[1.0, 2.0]], "tokens must hold integers, got float64 of shape (1, 2)"),
    ([[True]], "tokens must hold integers, got bool of shape (1, 1)"),
    ([1, 2], "tokens must have shape (T, B), got (2,)"),
    (np.zeros((0, 2), dtype=int), "tokens must not have an empty axis, got shape (0, 2)"),
]


@pytest.mark.parametrize(("value", "message"), TOKENS)
def test_tokens(value: Any, message: str):
    fails(check.tokens, value, "tokens", 7, ("T", "B"), message=re.escape(message) + "$")


def test_good_tokens():
    for dtype in (np.int8, np.uint64, np.int64, ">i4"):
        tokens = check.tokens(np.array([[0, 6], [3, 2]], dtype=dtype)[::-1], "tokens", 7, ("T", "B"))
        assert tokens.dtype == np.int64
        assert tokens.tolist() == [[3, 2], [0, 6]]


# The model. Its tokens are from 0 to 6, its categories from 0 to 4.

TX, TY = np.arange(T * B).reshape(T, B) % 7, np.arange(T * B).reshape(T, B) % 5
STATE = np.ones((1, B, H), np.float32)
ADAM = elman.Adam(0.1)


def make_model(**options: Any) -> elman.SequenceModel:
    defaults = {"inputs": elman.Tokens(7), "outputs": elman.Categories(5), "hidden_size": H}
    return elman.SequenceModel(**defaults | {"seed": 0, "backend": "numpy"} | options)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


KINDS = [
    (elman.Tokens, 0, "n must be a positive int, got 0"),
    (elman.Tokens, 2.0, "n must be a positive int, got 2.0"),
    (elman.Categories, -1, "n must be a positive int, got -1"),
    (elman.Categories, None, "n must be a positive int, got None"),
]


@pytest.mark.parametrize(("kind", "n", "message"), KINDS)
def test_kinds(kind: Callable[[Any], Any], n: Any, message: str):
    fails(kind, n, message=message)


MODEL = [
    ({"inputs": 7}, "inputs must be elman.Tokens, elman.Features or elman.Columns, got 7"),
    ({"inputs": elman.Tokens}, "inputs must be elman.Tokens, elman.Features or elman.Columns, got <class"),
    (
        {"outputs": elman.Tokens(7)},
        "outputs must be elman.Categories, elman.Binary, elman.Reals or elman.Labels, got Tokens(7)",
    ),
    (
        {"pattern": "some-to-some"},
        "pattern must be one of 'many-to-many', 'many-to-one', 'one-to-one', 'one-to-many', got",
    ),
    ({"pattern": None}, "pattern must be one of 'many-to-many', 'many-to-one', 'one-to-one', 'one-to-many', got None"),
    ({"hidden_size": 0}, "hidden_size must be a positive int, got 0"),
    ({"hidden_size": 4.0}, "hidden_size must be a positive int, got 4.0"),
    ({"num_layers": True}, "num_layers must be a positive int, got True"),
    ({"nonlinearity": "tan"}, "nonlinearity must be one of"),
    ({"bidirectional": 1}, "bidirectional must be True or False, got 1"),
    ({"dropout": 2}, "dropout must be a number from 0 to 1, got 2"),
    ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
    ({"seed": -1}, "seed must not be negative, got -1"),
    ({"seed": "0"}, "seed must be None, an int or a numpy.random.Generator, got '0'"),
    ({"backend": "fortran"}, "backend must be one of 'numpy', 'numba', 'cython', got 'fortran'"),
    ({"backend": ""}, "backend must be one of 'numpy', 'numba', 'cython', got ''"),
    ({"backend": 0}, "backend must be one of 'numpy', 'numba', 'cython', got 0"),
]


@pytest.mark.parametrize(("options", "message"), MODEL)
def test_model(options: dict[str, Any], message: str):
    for kind in (elman.SequenceModel, elman.reference.SequenceModel):
        defaults = {"inputs": elman.Tokens(7), "outputs": elman.Categories(5), "hidden_size": H}
        fails(kind, message=re.escape(message), **defaults | options)


BATCHES = [  # what `train_step`, `loss` and `loss_and_grads` refuse
    ({"x": TX.astype(float)}, "x must hold integers, got float64 of shape (5, 2)"),
    ({"x": TX.astype(bool)}, "x must hold integers, got bool of shape (5, 2)"),
    ({"x": TX.astype(object)}, "x must hold integers, got object of shape (5, 2)"),
    ({"x": "text"}, "x must hold integers, got <U4 of shape ()"),
    ({"x": None}, "x must hold integers, got object of shape ()"),
    ({"x": Unwilling()}, "x must be an array, got "),
    ({"x": [[0, 1], [2]]}, "x must be an array, got [[0, 1], [2]]"),
    ({"x": TX[0]}, "x must have shape (T, B), got (2,)"),
    ({"x": TX[None]}, "x must have shape (T, B), got (1, 5, 2)"),
    ({"x": TX[:0]}, "x must not have an empty axis, got shape (0, 2)"),
    ({"x": TX[:, :0]}, "x must not have an empty axis, got shape (5, 0)"),
    ({"x": [[]]}, "x must not have an empty axis, got shape (1, 0)"),
    ({"x": TX + 1}, "x must hold tokens from 0 to 6, got 7 at [3, 0]"),
    ({"x": TX - 1}, "x must hold tokens from 0 to 6, got -1 at [0, 0]"),
    ({"x": TX - 1, "lengths": [0, 5]}, "x must hold tokens from 0 to 6, got -1 at [3, 1]"),
    ({"x": TX.astype(np.uint64) + 2**63}, f"x must hold tokens from 0 to 6, got {2**63} at [0, 0]"),
    ({"y": TY.astype(float)}, "y must hold integers, got float64 of shape (5, 2)"),
    ({"y": None}, "y must hold integers, got object of shape ()"),
    ({"y": TY[:, 0]}, "y must have shape (5, 2), got (5,)"),
    ({"y": TY[1:]}, "y must have shape (5, 2), got (4, 2)"),
    ({"y": TY + 1}, "y must hold -1 (no target) or categories from 0 to 4, got 5 at [2, 0]"),
    ({"y": TY - 2}, "y must hold -1 (no target) or categories from 0 to 4, got -2 at [0, 0]"),
    ({"y": TY - 100}, "y must hold -1 (no target) or categories from 0 to 4, got -100 at [0, 0]"),
    ({"y": np.full((T, B), -1)}, "y must hold at least one target"),
    ({"lengths": [0, 0]}, "y must hold at least one target"),
    ({"y": np.where(TY < 2, TY, -1), "lengths": [0, 0]}, "y must hold at least one target"),
    ({"lengths": [5, 6]}, "lengths must be from 0 to T = 5, got 6 at [1]"),
    ({"x": TX - 1, "lengths": [5, 6]}, "lengths must be from 0 to T = 5, got 6 at [1]"),
    ({"lengths": [5]}, "lengths must have shape (2,), got (1,)"),
    ({"lengths": [5.0, 2.0]}, "lengths must hold integers, got float64 of shape (2,)"),
    ({"state": STATE.tolist()}, "state is updated in place and must be an array of float32, got [[["),
    (
        {"state": STATE.astype(float)},
        "state is updated in place and must be an array of float32, got an array of float64",
    ),
    ({"state": STATE.astype(">f4")}, "state is updated in place and must be an array of float32, got an array of >f4"),
    ({"state": STATE[0]}, "state must have shape (1, 2, 4), got (2, 4)"),
    ({"state": STATE[:, :1]}, "state must have shape (1, 2, 4), got (1, 1, 4)"),
    ({"state": read_only(STATE)}, "state is updated in place and must be writeable, got a read-only array"),
]
UPDATES = [  # what only `train_step` has
    ({"optimizer": None}, "optimizer must be one of elman's, such as elman.Adam(1e-3), got None"),
    ({"optimizer": "adam"}, "optimizer must be one of elman's, such as elman.Adam(1e-3), got 'adam': elman.Adam(lr)"),
    ({"optimizer": "AdaBoost"}, "optimizer must be one of elman's, such as elman.Adam(1e-3), got 'AdaBoost'"),
    (
        {"optimizer": elman.SGD},
        "optimizer must be one of elman's, such as elman.Adam(1e-3), got <class 'elman...timizers.SGD'>: elman.SGD(lr)",
    ),
    ({"clip_norm": 0}, "clip_norm must be a number above 0, got 0"),
    ({"clip_norm": -1.0}, "clip_norm must be a number above 0, got -1.0"),
    ({"clip_norm": float("nan")}, "clip_norm must be a number above 0, got nan"),
    ({"clip_norm": "1"}, "clip_norm must be a number above 0, got '1'"),
    ({"clip_norm": True}, "clip_norm must be a number above 0, got True"),
    ({"clip_value": 0.0}, "clip_value must be a number above 0, got 0.0"),
    ({"clip_value": [1]}, "clip_value must be a number above 0, got [1]"),
]


@pytest.mark.parametrize(("changes", "message"), BATCHES + UPDATES)
def test_train_step(changes: dict[str, Any], message: str):
    model, optimizer, state = make_model(), elman.Adam(0.1), STATE.copy()
    before = model.state_dict()
    arguments = {"x": TX, "y": TY, "optimizer": optimizer, "state": state} | changes
    fails(model.train_step, **arguments, message=re.escape(message))
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
    assert np.array_equal(state, STATE)
    assert optimizer.steps == 0


@pytest.mark.parametrize(("changes", "message"), BATCHES)
def test_loss(changes: dict[str, Any], message: str):
    state = STATE.copy()
    arguments = {"x": TX, "y": TY, "state": state} | changes
    fails(make_model().loss, **arguments, message=re.escape(message))
    fails(make_model().loss_and_grads, **arguments, message=re.escape(message))
    assert np.array_equal(state, STATE)


def test_state_needs_one_direction():
    model, state = make_model(bidirectional=True), np.ones((2, B, H), np.float32)
    message = "state must be None with bidirectional=True: that direction begins at the end"
    fails(model.loss, TX, TY, state=state, message=message)
    fails(model.loss_and_grads, TX, TY, state=state, message=message)
    fails(model.train_step, TX, TY, optimizer=ADAM, state=state, message=message)
    assert ADAM.steps == 0


GENERATE = [
    (([],), {}, "start must not have an empty axis, got shape (0,)"),
    ((7,), {}, "start must hold tokens from 0 to 6, got 7 at []"),
    ((TX[None],), {}, "start must have shape (N, T), got (1, 5, 2)"),
    (([[0, 1], [7]],), {}, "start[1] must hold tokens from 0 to 6, got 7 at [0]"),
    (([0],), {"n_samples": 0}, "n_samples must be a positive int, got 0"),
    (([[0]],), {"batch_size": 0}, "batch_size must be a positive int, got 0"),
    (("abc",), {}, "start must hold integers, got <U3 of shape ()"),
    (([0.0, 1.0],), {}, "start must hold integers, got float64 of shape (2,)"),
    (([0, 7],), {}, "start must hold tokens from 0 to 6, got 7 at [1]"),
    (([-1, 7],), {}, "start must hold tokens from 0 to 6, got -1 at [0]"),
    (([0], -1), {}, "length must be an int of at least 0, got -1"),
    (([0], 3.0), {}, "length must be an int of at least 0, got 3.0"),
    (([0], True), {}, "length must be an int of at least 0, got True"),
    (([0], None), {}, "length must be an int of at least 0, got None"),
    (([0],), {"temperature": -0.5}, "temperature must be a finite number of at least 0, got -0.5"),
    (([0],), {"temperature": float("inf")}, "temperature must be a finite number of at least 0, got inf"),
    (([0],), {"temperature": float("nan")}, "temperature must be a finite number of at least 0, got nan"),
    (([0],), {"temperature": "hot"}, "temperature must be a finite number of at least 0, got 'hot'"),
    (([0],), {"seed": -1}, "seed must not be negative, got -1"),
    (([0],), {"seed": 1.5}, "seed must be None, an int or a numpy.random.Generator, got 1.5"),
]


@pytest.mark.parametrize(("args", "options", "message"), GENERATE)
def test_generate(args: tuple[Any, ...], options: dict[str, Any], message: str):
    model = make_model(outputs=elman.Categories(7))
    fails(model.generate, *args, *[5][: 2 - len(args)], **options, message=re.escape(message))


def test_generate_needs_one_direction_and_outputs_that_are_inputs():
    message = "generate is not possible with bidirectional=True: that direction begins at the end"
    fails(make_model(outputs=elman.Categories(7), bidirectional=True).generate, [0], 3, message=message)
    message = re.escape("generate needs outputs that are inputs, got Categories(5) and Tokens(7)")
    fails(make_model().generate, [0], 3, message=message)


DATA = "must be (X, Y), (X, Y, weights) or (X, Y, weights, resets)"
SEQUENCES = "must be a list of sequences or an array (N, T), got"
FITS = [
    ({"X": 3}, f"X {SEQUENCES} 3"),
    ({"X": None}, f"X {SEQUENCES} None"),
    ({"X": "text"}, f"X {SEQUENCES} 'text'"),
    ({"X": {0: [1]}}, f"X {SEQUENCES} {{0: [1]}}"),
    ({"X": iter([[0]])}, f"X {SEQUENCES} <list_"),
    ({"X": [0, 1, 2]}, f"X {SEQUENCES} [0, 1, 2]"),
    ({"X": TX[0]}, f"X {SEQUENCES} an array of int64 and shape (2,)"),
    ({"X": np.array(3)}, f"X {SEQUENCES} an array of int64 and shape ()"),
    ({"X": []}, "X must hold at least one sequence"),
    ({"X": TX[:0]}, "X must hold at least one sequence"),
    ({"X": [[]]}, "X[0] must not have an empty axis, got shape (0,)"),
    ({"X": [[0, 1], []]}, "X[1] must not have an empty axis, got shape (0,)"),
    ({"X": [[0, 1], 3]}, "X[1] must have shape (T,), got ()"),
    ({"X": TX[None]}, "X must have shape (N, T), got (1, 5, 2)"),
    ({"X": [[0, 1], [[2], [3, 4]]]}, "X[1] must be an array, got [[2], [3, 4]]"),
    ({"X": [Unwilling()]}, "X[0] must be an array, got "),
    ({"X": [np.ma.masked_greater(X[:, 0], 0)]}, "X[0] must be an array without a mask, got "),
    ({"X": ["text"]}, f"X {SEQUENCES} ['text']"),
    ({"X": [[0, 1], "text"]}, "X[1] must hold integers, got <U4 of shape ()"),
    ({"X": TX.T.astype(float)}, "X must hold integers, got float64 of shape (2, 5)"),
    ({"X": TX.T + 1}, "X must hold tokens from 0 to 6, got 7 at [0, 3]"),
    ({"X": [TX[:, 0], TX[:, 1] - 2]}, "X[1] must hold tokens from 0 to 6, got -1 at [0]"),
    ({"Y": TY.T + 1}, "Y must hold -1 (no target) or categories from 0 to 4, got 5 at [0, 2]"),
    ({"Y": list(TY.T - 2)}, "Y[0] must hold -1 (no target) or categories from 0 to 4, got -2 at [0]"),
    ({"Y": TY.T[:1]}, "Y must have as many sequences as X, 2, got 1"),
    ({"Y": TY.T[:, 1:]}, "Y[0] must have as many steps as X[0], 5, got 4"),
    ({"Y": np.full((B, T), -1)}, "Y must hold at least one target"),
    ({"epochs": 0}, "epochs must be a positive int, got 0"),
    ({"epochs": 1.5}, "epochs must be a positive int, got 1.5"),
    ({"batch_size": -4}, "batch_size must be a positive int, got -4"),
    ({"batch_size": None}, "batch_size must be a positive int, got None"),
    ({"accumulate": 0}, "accumulate must be a positive int, got 0"),
    ({"average": 1}, "average must be a number from 0 to 1, exclusive, got 1"),
    (
        {"validation_data": TX.T},
        f"validation_data {DATA}, got an array of int64 and shape (2, 5)",
    ),
    ({"validation_data": (TX.T,)}, f"validation_data {DATA}, got 1 items"),
    ({"validation_data": (TX.T, None)}, f"validation_data[1] {SEQUENCES} None"),
    ({"validation_data": (TX.T + 1, TY.T)}, "validation_data[0] must hold tokens from 0 to 6, got 7 at [0, 3]"),
    ({"validation_data": (TX.T, TY)}, "validation_data[1] must have as many sequences as validation_data[0], 2, got 5"),
    ({"validation_data": (TX.T, np.full((B, T), -1))}, "validation_data[1] must hold at least one target"),
    ({"shuffle": 1}, "shuffle must be True or False, got 1"),
    ({"progress": "yes"}, "progress must be True or False, got 'yes'"),
    *UPDATES[1:],
]


@pytest.mark.parametrize(("changes", "message"), FITS)
def test_fit(changes: dict[str, Any], message: str):
    model, optimizer = make_model(), elman.Adam(0.1)
    before = model.state_dict()
    arguments = {"X": TX.T, "Y": TY.T, "optimizer": optimizer, "progress": False} | changes
    fails(model.fit, **arguments, message=re.escape(message))
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
    assert optimizer.steps == 0


MODEL_STATES = [
    ({"weight_ho": np.ones((4, 5))}, "weight_ho must have shape (5, 4), got (4, 5)"),
    ({"bias_o": np.ones(5, dtype=int)}, "bias_o must hold float32 or float64, got int64 of shape (5,)"),
    ({"extra": np.ones(5)}, "state must have the keys "),
]


@pytest.mark.parametrize(("changes", "message"), MODEL_STATES)
def test_load_state_dict_of_a_model(changes: dict[str, Any], message: str):
    model = make_model()
    before = model.state_dict()
    fails(model.load_state_dict, make_model(seed=1).state_dict() | changes, message=re.escape(message))
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())


SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4) | st.sampled_from(
    [(T, B, I), (T, I), (0, I), (1, B, H), (1, H), (T, B, H), (T, H), (B,)]
)
ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(),
    st.dictionaries(st.text(), st.integers()),
    st.recursive(st.floats(width=32) | st.integers(), lambda inner: st.lists(inner, max_size=4), max_leaves=12),
    npst.arrays(st.one_of(npst.scalar_dtypes(), st.sampled_from(["f4,i2", "float32", "int64"])), SHAPES),
    npst.arrays(object, SHAPES, elements=st.none() | st.integers() | st.floats() | st.text()),
    st.lists(npst.arrays(st.sampled_from(["float32", ">f8", "int32"]), SHAPES), max_size=3),
)
INTEGER_ARRAYS = npst.arrays(
    st.sampled_from(["int64", "uint8", ">i2", "uint64"]), SHAPES, elements=st.integers(0, 9), fill=st.integers(0, 4)
)


@contextlib.contextmanager
def works_or_names(pattern: str) -> Iterator[None]:
    try:
        with np.errstate(all="ignore"):
            yield
    except (TypeError, ValueError) as error:
        if not re.match(pattern, str(error)):
            raise


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_anything_works_or_is_refused(one: Any, two: Any, three: Any):
    rnn = elman.RNN(I, H, seed=0, backend="numpy")
    before = rnn.state_dict()
    for args in [(one, two, three), (one,), (X, two), (X, None, three)]:
        with works_or_names(r"(x(\[\d+\])?|h_0|lengths) must "):
            y, h_n = rnn(*args)
            assert h_n.dtype == np.float32
            assert (y[0] if isinstance(y, list) else y).shape[-1] == H
    with works_or_names("(x_t|h) must "):
        assert rnn.step(one, two)[1].shape[-1] == H
    for x in (X, X[:, 0], LISTED):
        _, _, pullback = rnn.vjp(x)
        with works_or_names(r"(d_y(\[\d+\])?|d_h_n) must "):
            assert pullback(one, two)[1].dtype == np.float32
    for state in (one, before | {"weight_ih_l0": one, "bias_l0": two}):
        with works_or_names("(state|weight_ih_l0|bias_l0) must "):
            rnn.load_state_dict(state)
            rnn.load_state_dict(before)
    assert all(np.array_equal(array, before[name]) for name, array in rnn.parameters().items())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(*[ANYTHING | INTEGER_ARRAYS] * 4)
def test_a_model_works_or_refuses(one: Any, two: Any, three: Any, four: Any):
    model = make_model(num_layers=2)
    before = model.state_dict()
    for batch in [{"x": one, "y": two}, {"x": TX, "y": two, "lengths": three}, {"x": one, "y": one, "state": four}]:
        with works_or_names("(x|y|lengths|state) (must|is) "):
            loss, gradients = model.loss_and_grads(**batch)
            assert loss > 0
            assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    with works_or_names(r"(X|Y|validation_data(\[[01]\])?)(\[\d+\])? must "):
        history = model.fit(one, two, validation_data=(two, one), optimizer=elman.SGD(0), epochs=1, progress=False)
        assert history["val_loss"][0] > 0
    drawing = make_model(outputs=elman.Categories(7))
    with works_or_names(r"(start(\[\d+\])?|length|temperature|seed) must "):
        drawing.generate(one, 3)
        drawing.generate([0], 3, temperature=three, seed=four)
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())


# Other patterns, kinds of inputs and outputs


def make_kind(outputs: Any = None, pattern: str = "many-to-many", **options: Any) -> elman.SequenceModel:
    """From features (T, B, 3)."""
    return make_model(
        **{"inputs": elman.Features(I), "outputs": outputs or elman.Reals(2), "pattern": pattern} | options
    )


REALS, LABELS = np.ones((T, B, 2)), np.ones((T, B, 2), dtype=bool)
X_ROW, Y_ROW = X_T, np.ones((B, 2))


def with_value(array: np.ndarray, where: Any, value: float) -> np.ndarray:
    changed = array.astype(float)
    changed[where] = value
    return changed


NEW_KINDS = [
    (lambda: elman.Features(0), "n must be a positive int, got 0"),
    (lambda: elman.Binary(0), "n must be a positive int, got 0"),
    (lambda: elman.Reals("2"), "n must be a positive int, got '2'"),
    (lambda: elman.Categories(3, class_weights=[1, 2]), "class_weights must have shape (3,), got (2,)"),
    (
        lambda: elman.Categories(2, class_weights=[1, -2]),
        "class_weights must be finite and at least 0, got -2.0 at [1]",
    ),
    (lambda: elman.Categories(2, class_weights=[1, np.nan]), "class_weights must be finite and at least 0, got nan"),
    (lambda: elman.Categories(2, class_weights=[1, 0]), "class_weights must be above 0, got [1.0, 0.0]"),
    (lambda: elman.Categories(2, class_weights="ab"), "class_weights must be numbers or 'balanced', got 'ab'"),
    (lambda: elman.Binary(2, class_weights=[1, 2]), "class_weights must be None for n = 2 labels"),
    (
        lambda: make_kind(elman.Categories(5), "one-to-many", bidirectional=True),
        "pattern='one-to-many' is not possible with bidirectional=True: outputs are fed back",
    ),
    (
        lambda: make_model(outputs=elman.Categories(8), pattern="one-to-many"),
        "pattern='one-to-many' with tokens needs outputs that are inputs, got Categories(8) and Tokens(7)",
    ),
    (lambda: make_model(outputs=elman.Reals(), pattern="one-to-many"), "pattern='one-to-many' with tokens needs"),
    (
        lambda: elman.Seq2Seq(elman.Tokens(3), elman.Reals(3), hidden_size=4),
        "outputs must be elman.Categories, got Reals(3)",
    ),
    (
        lambda: elman.Seq2Seq(3, elman.Categories(3), hidden_size=4),
        "inputs must be elman.Tokens, elman.Features or elman.Columns, got 3",
    ),
    (lambda: elman.schedules.Cosine(warmup=-1), "warmup must be a finite number of at least 0, got -1"),
    (lambda: elman.schedules.Cosine(final="x"), "final must be a finite number of at least 0, got 'x'"),
    (lambda: elman.schedules.Step(0), "every must be a number above 0, got 0"),
    (lambda: elman.EarlyStopping(3), "monitor must be a str, got 3"),
    (lambda: elman.EarlyStopping(patience=0), "patience must be a positive int, got 0"),
    (lambda: elman.EarlyStopping(min_delta=-1), "min_delta must be a finite number of at least 0, got -1"),
    (lambda: elman.EarlyStopping(mode="least"), "mode must be one of 'auto', 'min', 'max', got 'least'"),
    (lambda: elman.EarlyStopping(restore_best=1), "restore_best must be True or False, got 1"),
]


@pytest.mark.parametrize(("call", "message"), NEW_KINDS)
def test_new_kinds(call: Callable[[], Any], message: str):
    fails(call, message=re.escape(message))


STEP_ARGUMENTS: list[tuple[Any, str, dict[str, Any], str]] = [
    *[(None, "many-to-many", {"x": value}, f"x must .*{re.escape(got)}") for value, got in WRONG_KIND],
    (None, "many-to-many", {"x": X[..., :2]}, re.escape("x must have shape (T, B, 3), got (5, 2, 2)")),
    (
        None,
        "many-to-many",
        {"x": with_value(X, (1, 0, 2), np.nan)},
        re.escape("x must be finite, got nan at [1, 0, 2]"),
    ),
    (
        None,
        "many-to-many",
        {"x": with_value(X, (4, 1, 0), -np.inf)},
        re.escape("x must be finite, got -inf at [4, 1, 0]"),
    ),
    (None, "many-to-many", {"y": REALS[..., :1]}, re.escape("y must have shape (5, 2, 2), got (5, 2, 1)")),
    (None, "many-to-many", {"y": REALS[..., 0]}, re.escape("y must have shape (5, 2, 2), got (5, 2)")),
    (None, "many-to-many", {"y": REALS > 0}, "y must hold float32, float64 or integers, got bool"),
    (None, "many-to-many", {"y": REALS.astype(complex)}, "y must hold .*, got complex128"),
    (None, "many-to-many", {"y": REALS.astype(np.float16)}, "y must hold .*, got float16"),
    (None, "many-to-many", {"y": "text"}, "y must hold .*, got <U4"),
    (
        None,
        "many-to-many",
        {"y": with_value(REALS, (3, 1, 0), np.inf)},
        re.escape("y must be finite, got inf at [3, 1, 0]"),
    ),
    (
        elman.Binary(2),
        "many-to-many",
        {"y": with_value(LABELS, (0, 1, 1), 1.5)},
        re.escape("y must hold values from 0 to 1, got 1.5 at [0, 1, 1]"),
    ),
    (
        elman.Binary(2),
        "many-to-many",
        {"y": LABELS - 2},
        re.escape("y must hold values from 0 to 1, got -1.0 at [0, 0, 0]"),
    ),
    (
        elman.Binary(2),
        "many-to-many",
        {"y": with_value(LABELS, (0, 0, 0), np.nan)},
        re.escape("y must be finite, got nan at [0, 0, 0]"),
    ),
    (
        elman.Binary(2),
        "many-to-many",
        {"y": LABELS.astype(object)},
        "y must hold bool, integers, float32 or float64, got object",
    ),
    (elman.Categories(5), "many-to-many", {"y": REALS}, "y must hold integers, got float64"),
    (None, "many-to-many", {"weights": [1, 2, 3]}, re.escape("weights must have shape (2,) or (5, 2), got (3,)")),
    (
        None,
        "many-to-many",
        {"weights": -np.ones(B)},
        re.escape("weights must be finite and at least 0, got -1.0 at [0]"),
    ),
    (
        None,
        "many-to-many",
        {"weights": [1, np.nan]},
        re.escape("weights must be finite and at least 0, got nan at [1]"),
    ),
    (None, "many-to-many", {"weights": [0, 0]}, "y must hold at least one target whose weight is not zero"),
    (None, "many-to-many", {"weights": "ab"}, "weights must hold numbers, got <U2"),
    (None, "many-to-many", {"weights": None, "lengths": [0, 0]}, "y must hold at least one target"),
    (None, "many-to-one", {"y": REALS}, re.escape("y must have shape (2, 2), got (5, 2, 2)")),
    (
        None,
        "many-to-one",
        {"y": Y_ROW, "lengths": [0, 5]},
        re.escape("lengths must be at least 1 where a row has a target, got 0 at [0]"),
    ),
    (
        None,
        "many-to-one",
        {"y": Y_ROW, "weights": np.ones((T, B))},
        re.escape("weights must have shape (2,) or (1, 2), got (5, 2)"),
    ),
    (elman.Categories(5), "many-to-one", {"y": [-1, -1]}, "y must hold at least one target"),
    (
        elman.Categories(5),
        "many-to-one",
        {"y": [0, 5]},
        re.escape("y must hold -1 (no target) or categories from 0 to 4, got 5 at [1]"),
    ),
    (None, "one-to-one", {"y": Y_ROW}, re.escape("x must have shape (B, 3) or (1, B, 3), got (5, 2, 3)")),
    (None, "one-to-one", {"x": X_ROW, "y": Y_ROW[:1]}, re.escape("y must have shape (2, 2) or (1, 2, 2), got (1, 2)")),
    (
        None,
        "one-to-one",
        {"x": X_ROW, "y": Y_ROW, "state": STATE.copy()},
        "state must be None with pattern='one-to-one'",
    ),
    (None, "one-to-many", {}, re.escape("x must have shape (B, 3) or (1, B, 3), got (5, 2, 3)")),
    (None, "one-to-many", {"x": X_ROW, "y": 3.0}, "y must have an axis of time that is not empty, got shape ()"),
    (None, "one-to-many", {"x": X_ROW, "y": REALS[:, :1]}, re.escape("y must have shape (5, 2, 2), got (5, 1, 2)")),
    (None, "one-to-many", {"x": X_ROW, "state": STATE.copy()}, "state must be None with pattern='one-to-many'"),
    (
        elman.Categories(5),
        "one-to-many",
        {"x": X_ROW, "y": [[1, 2], [-1, 2], [1, -1]]},
        re.escape("y must not have a target after a -1, as each is the next step's input, got -1 at [1, 0]"),
    ),
]


@pytest.mark.parametrize(("outputs", "pattern", "changes", "message"), STEP_ARGUMENTS)
def test_step_level_of_other_patterns(outputs: Any, pattern: str, changes: dict[str, Any], message: str):
    model, optimizer = make_kind(outputs, pattern), elman.Adam(0.1)
    before = model.state_dict()
    with np.errstate(all="ignore"):
        arguments = {"x": X, "y": REALS} | changes
        fails(model.train_step, **arguments, optimizer=optimizer, message=message)
        fails(model.loss, **arguments, message=message)
        fails(model.loss_and_grads, **arguments, message=message)
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
    assert optimizer.steps == 0


def test_what_lies_beyond_the_lengths_may_be_anything():
    x, y = with_value(X, (4, 1, 0), np.nan), with_value(REALS, (3, 1, 0), np.inf)
    loss = make_kind().loss(X, REALS, lengths=[5, 2])
    assert make_kind().loss(x, y, lengths=[5, 2]) == loss


X_LISTED, Y_LISTED = [X[:, 0], X[:3, 1]], [REALS[:, 0], REALS[:3, 1]]
MORE_FITS: list[tuple[str, dict[str, Any], str]] = [
    ("many-to-many", {"X": [X[:, 0], X[:0, 1]]}, "X[1] must not have an empty axis, got shape (0, 3)"),
    ("many-to-many", {"X": [X[:, 0], X[:3, 1, :2]]}, "X[1] must have shape (T, 3), got (3, 2)"),
    ("many-to-many", {"X": [X[:, 0], INTEGERS[:3, 1]]}, "X[1] must hold float32 or float64, got int64"),
    ("many-to-many", {"X": [X[:, 0], with_value(X[:3, 1], (2, 1), np.nan)]}, "X[1] must be finite, got nan at [2, 1]"),
    ("many-to-many", {"X": with_value(X, (1, 0, 2), np.nan).swapaxes(0, 1)}, "X must be finite, got nan at [0, 1, 2]"),
    ("many-to-many", {"X": []}, "X must hold at least one sequence"),
    ("many-to-many", {"Y": []}, "Y must hold at least one sequence"),
    ("many-to-many", {"Y": Y_LISTED[:1]}, "Y must have as many sequences as X, 2, got 1"),
    ("many-to-many", {"Y": [REALS[:, 0], REALS[:4, 1]]}, "Y[1] must have as many steps as X[1], 3, got 4"),
    (
        "many-to-many",
        {"Y": [REALS[:, 0], with_value(REALS[:3, 1], (0, 1), np.nan)]},
        "Y[1] must be finite, got nan at [0, 1]",
    ),
    ("many-to-many", {"Y": [REALS[:, 0], None]}, "Y[1] must hold float32, float64 or integers, got object"),
    ("many-to-many", {"weights": [1]}, "weights must have as many sequences as X, 2, got 1"),
    ("many-to-many", {"weights": [1, -1]}, "weights must be finite and at least 0, got -1.0 at [1]"),
    ("many-to-many", {"weights": [np.ones(5), np.ones(4)]}, "weights[1] must have shape (3,), got (4,)"),
    ("many-to-many", {"weights": [0, 0]}, "Y must hold at least one target whose weight is not zero"),
    ("many-to-many", {"weights": 3}, "weights must be a list of sequences or an array (N, T), got 3"),
    ("many-to-many", {"tbptt": 5}, "tbptt must be a pair, got 5"),
    ("many-to-many", {"tbptt": (0, 5)}, "tbptt[0] must be a positive int, got 0"),
    ("many-to-many", {"tbptt": (5, 2.0)}, "tbptt[1] must be a positive int, got 2.0"),
    ("many-to-many", {"tbptt": (5, 4)}, "tbptt must be (k1, k2) with k2 at least k1, got (5, 4)"),
    ("many-to-many", {"schedule": 3}, "schedule must be a function, got 3"),
    ("many-to-many", {"schedule": "cosine"}, "schedule must be a function, got 'cosine': elman.schedules.Cosine()"),
    (
        "many-to-many",
        {"schedule": elman.schedules.Step},
        "schedule must be a function, got <class 'elman.schedules.Step'>: ",
    ),
    ("many-to-many", {"schedule": lambda *_: -1.0}, "what schedule returns must be a finite number of at least 0, got"),
    ("many-to-many", {"callbacks": 3}, "callbacks must be a list of callbacks, got 3"),
    (
        "many-to-many",
        {"schedule": elman.ReduceOnPlateau()},
        "schedule must be a function, got ReduceOnPlate..., mode='auto'): callbacks=[elman.ReduceOnPlateau(…)]",
    ),
    (
        "many-to-many",
        {"callbacks": [elman.schedules.Cosine()]},
        "callbacks[0] must be an elman.Callback or a function, got Cosine(warmup=0.0, final=0.0): schedule=elman.sch",
    ),
    ("many-to-many", {"callbacks": [3]}, "callbacks[0] must be an elman.Callback or a function, got 3"),
    ("many-to-many", {"callbacks": [elman.EarlyStopping]}, "callbacks[0] must be an elman.Callback or a function"),
    ("many-to-many", {"callbacks": [elman.EarlyStopping()]}, "monitor='val_loss' needs validation_data=, which fit"),
    ("many-to-many", {"callbacks": [elman.EarlyStopping("loss_")]}, "monitor must be one of 'loss', got 'loss_'"),
    ("many-to-many", {"checkpoint": 3}, "checkpoint must be a str or a path, got 3"),
    ("many-to-many", {"checkpoint_every": 3}, "checkpoint must be a path where there is checkpoint_every or resume"),
    ("many-to-many", {"resume": True}, "checkpoint must be a path where there is checkpoint_every or resume"),
    ("many-to-many", {"checkpoint": "x", "checkpoint_every": 0}, "checkpoint_every must be a positive int, got 0"),
    ("many-to-many", {"checkpoint": "x", "resume": 1}, "resume must be True or False, got 1"),
    (
        "many-to-many",
        {"validation_data": (X_LISTED, Y_LISTED, [1])},
        "validation_data[2] must have as many sequences as validation_data[0]",
    ),
    ("many-to-one", {"Y": Y_LISTED}, "Y must be an array, got"),
    ("many-to-one", {"Y": Y_ROW[:1]}, "Y must have as many sequences as X, 2, got 1"),
    ("many-to-one", {"Y": Y_ROW, "weights": np.ones((2, 5))}, "weights must have shape (2,), got (2, 5)"),
    ("many-to-one", {"Y": Y_ROW, "tbptt": (2, 2)}, "tbptt needs a target for each step, got pattern='many-to-one'"),
    ("one-to-one", {"Y": Y_ROW}, "X must be an array, got"),
    ("one-to-one", {"X": X[0], "Y": Y_ROW[0]}, "Y must have shape (N, 2), got (2,)"),
    ("one-to-many", {"X": X[0], "Y": REALS}, "Y must have as many sequences as X, 2, got 5"),
]


@pytest.mark.parametrize(("pattern", "changes", "message"), MORE_FITS)
def test_fit_of_other_patterns(pattern: str, changes: dict[str, Any], message: str):
    model, optimizer = make_kind(None, pattern), elman.Adam(0.1)
    before = model.state_dict()
    arguments = {"X": X_LISTED, "Y": Y_LISTED, "optimizer": optimizer, "progress": False} | changes
    fails(model.fit, **arguments, message=re.escape(message))
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
    assert optimizer.steps == 0
    assert optimizer.lr == 0.1


def test_truncation_and_streams_need_one_direction():
    model = make_kind(bidirectional=True)
    message = "is not possible with bidirectional=True: that direction begins at the end"
    fails(model.fit, X_LISTED, Y_LISTED, tbptt=(2, 2), message=f"tbptt {message}")
    fails(model.stream, message=f"stream {message}")
    fails(make_kind(None, "one-to-many").stream, message="stream needs inputs at each step, got pattern='one-to-many'")


def test_streams():
    stream = make_kind().stream()
    fails(stream.predict, X, message=re.escape("x must have shape (T, 3), got (5, 2, 3)"))
    fails(stream.predict, with_value(X[:, 0], (1, 1), np.nan), message=re.escape("x must be finite, got nan at [1, 1]"))
    fails(stream.predict_proba, X[:, 0], message="predict_proba needs outputs that are Categories or Binary")
    assert not stream.state.any()
    fails(make_kind().stream(2).predict, X[:, :1], message=re.escape("x must have shape (T, 2, 3), got (5, 1, 3)"))
    fails(make_kind().stream, 0, message="batch_size must be a positive int, got 0")
    for rows, message in (
        (2, "rows must be from 0 to 1, got 2 to 2"),
        ([True], re.escape("rows must have shape (2,), got (1,)")),
        ([0.5], "rows must hold integers, got float64"),
    ):
        fails(make_kind().stream(2).reset, rows, message=message)


def test_predictions():
    model = make_kind()
    for method in (model.predict, make_kind(elman.Binary(2)).predict_proba):
        fails(method, 3, message="X must be a list of sequences")
        fails(method, X_LISTED, batch_size=0, message="batch_size must be a positive int, got 0")
        fails(method, [X[:, 0, :2]], message=re.escape("X[0] must have shape (T, 3), got (5, 2)"))
    fails(model.predict_proba, X_LISTED, message="predict_proba needs outputs that are Categories or Binary")
    fails(make_kind(None, "one-to-many").predict, X[0], message="pattern='one-to-many' has no inputs to predict from")
    fails(model.evaluate, X_LISTED, Y_LISTED[:1], message="Y must have as many sequences as X, 2, got 1")
    fails(model.evaluate, X_LISTED, Y_LISTED, batch_size="3", message="batch_size must be a positive int, got '3'")


MORE_GENERATION = [
    ({"top_k": 0}, "top_k must be a positive int, got 0"),
    ({"top_k": 1.5}, "top_k must be a positive int, got 1.5"),
    ({"top_p": 0}, "top_p must be a number above 0, up to 1, got 0"),
    ({"top_p": 1.1}, "top_p must be a number above 0, up to 1, got 1.1"),
    ({"end": 5}, "end must be an int from 0 to 4, got 5"),
    ({"end": 0.0}, "end must be an int from 0 to 4, got 0.0"),
    ({"start": X}, "start must have shape (N, 3) or (N, 1, 3), got (5, 2, 3)"),
    ({"start": [1, 2, 3]}, "start must hold float32 or float64, got int64"),
    ({"start": np.array([1, 2, np.nan])}, "start must be finite, got nan at [2]"),
]


@pytest.mark.parametrize(("changes", "message"), MORE_GENERATION)
def test_generation_from_features(changes: dict[str, Any], message: str):
    arguments = {"start": X[0, 0], "length": 3} | changes
    fails(make_kind(elman.Categories(5), "one-to-many").generate, **arguments, message=re.escape(message))


def test_generation_that_goes_on_with_a_series():
    model = elman.SequenceModel(elman.Features(3), elman.Reals(3), hidden_size=4)
    for message, start in {
        "start must have shape (T, 3), got (3,)": np.ones(3),
        "start must have shape (T, 3), got (5, 2)": np.ones((5, 2)),
        "start must not have an empty axis, got shape (0, 3)": np.ones((0, 3)),
        "start must be finite, got nan at [1, 2]": np.array([[1, 1, 1], [1, 1, np.nan]]),
    }.items():
        fails(model.generate, start, 3, message=re.escape(message))


def test_generation_that_makes_no_sense():
    message = re.escape("top_k, top_p and end must be None for outputs that are Reals(2)")
    for options in ({"top_k": 1}, {"top_p": 0.5}, {"end": 0}):
        fails(make_kind(None, "one-to-many").generate, X[0, 0], 3, **options, message=message)
    fails(make_kind().generate, X[0, 0], 3, message="generate needs outputs that are inputs, got Reals")
    one = elman.SequenceModel(elman.Features(3), elman.Reals(1), hidden_size=4)
    message = re.escape(
        "generate needs outputs that are inputs, got Reals(1) and Features(3): forecast feeds them back"
    )
    fails(one.generate, np.ones((5, 3)), 3, message=message)


@pytest.mark.parametrize("weights", [[1, 1], [[1, 1], [1]]])
def test_weights_beside_a_target_that_is_no_sequence(weights: Any):
    model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=H, seed=0)
    given: dict[str, Any] = {"X": [[0, 1], [2]], "Y": [[0, 1], 2], "weights": weights}
    fails(model.fit, **given, message=re.escape("Y[1] must have shape (T,), got ()"))


S2S_FITS = [
    ({"X": [[0, 1], []]}, "X[1] must not have an empty axis, got shape (0,)"),
    ({"X": [[0, 1], [3]]}, "X[1] must hold tokens from 0 to 2, got 3 at [0]"),
    ({"Y": [[0, 1]]}, "Y must have as many sequences as X, 2, got 1"),
    ({"Y": [[0, 1], [4]]}, "Y[1] must hold tokens from 0 to 3, got 4 at [0]"),
    ({"Y": [[0, 1], [-1]]}, "Y[1] must hold tokens from 0 to 3, got -1 at [0]"),
    ({"Y": [[0, 1], [[1]]]}, "Y[1] must have shape (T,), got (1, 1)"),
    ({"Y": [[0, 1], [0.5]]}, "Y[1] must hold integers, got float64"),
    ({"Y": [0, 1]}, "Y must be a list of sequences"),
    ({"Y": []}, "Y must hold at least one sequence"),
    ({"validation_data": 3}, "validation_data must be a pair, got 3"),
    ({"validation_data": ([[0]], [[5]])}, "validation_data[1][0] must hold tokens from 0 to 3, got 5 at [0]"),
    ({"epochs": 0}, "epochs must be a positive int, got 0"),
    ({"clip_norm": -1}, "clip_norm must be a number above 0, got -1"),
]


@pytest.mark.parametrize(("changes", "message"), S2S_FITS)
def test_fit_of_seq2seq(changes: dict[str, Any], message: str):
    model, optimizer = elman.Seq2Seq(elman.Tokens(3), elman.Categories(4), hidden_size=H, seed=0), elman.Adam(0.1)
    before = model.state_dict()
    arguments = {"X": [[0, 1], [2]], "Y": [[3], []], "optimizer": optimizer, "progress": False} | changes
    fails(model.fit, **arguments, message=re.escape(message))
    assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
    assert optimizer.steps == 0
    for options, text in (
        ({"beam": 0}, "beam must be a positive int, got 0"),
        ({"max_length": -1}, "max_length must be an int of at least 0, got -1"),
        ({"batch_size": 0.5}, "batch_size must be a positive int, got 0.5"),
    ):
        fails(model.predict, [[0]], **options, message=text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(*[ANYTHING | npst.arrays(st.sampled_from(["float32", "float64"]), SHAPES)] * 3)
def test_other_patterns_work_or_refuse(one: Any, two: Any, three: Any):
    for pattern in ("many-to-many", "many-to-one", "one-to-one", "one-to-many"):
        for outputs in (elman.Reals(2), elman.Binary(), elman.Categories(3)):
            model = make_kind(outputs, pattern)
            before = model.state_dict()
            x = X if pattern.startswith("many") else X_ROW
            for batch in ({"x": one, "y": two, "weights": three}, {"x": x, "y": one, "weights": two, "lengths": three}):
                with works_or_names("(x|y|lengths|weights) (must|is) "):
                    assert np.isfinite(model.loss(**batch))
            with works_or_names(r"(X|Y|weights)(\[\d+\])? must "):
                history = model.fit(one, two, weights=three, optimizer=elman.SGD(0), epochs=1, progress=False)
                assert np.isfinite(history["loss"][0])
            if pattern != "one-to-many":
                with works_or_names(r"X(\[\d+\])? must "):
                    model.predict(one)
            assert all(np.array_equal(array, before[name]) for name, array in model.parameters().items())
