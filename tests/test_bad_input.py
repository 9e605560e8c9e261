"""Bad input: an error that names the argument and says what was expected, nothing changed, and no crash."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import elman
from elman import validation

T, B, I, H = 5, 2, 3, 4  # noqa: E741 - the names of DESIGN.md
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
    ((I, H), {"nonlinearity": "tan"}, "nonlinearity must be one of 'tanh', 'relu', 'sigmoid', 'identity', got 'tan'"),
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
    ((I, H), {"backend": "fortran"}, "backend must be one of 'numpy', 'numba', 'cython', got 'fortran'"),
    ((I, H), {"backend": 1}, "backend must be one of"),
]


@pytest.mark.parametrize(("args", "options", "message"), CONSTRUCTOR)
def test_constructor(args: tuple[Any, ...], options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        elman.RNN(*args, **options)


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
    with pytest.raises(RuntimeWarning, match="overflow"):
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
    fails(validation.tokens, value, "tokens", 7, ("T", "B"), message=re.escape(message) + "$")


def test_good_tokens():
    for dtype in (np.int8, np.uint64, np.int64, ">i4"):
        tokens = validation.tokens(np.array([[0, 6], [3, 2]], dtype=dtype)[::-1], "tokens", 7, ("T", "B"))
        assert tokens.dtype == np.int64
        assert tokens.tolist() == [[3, 2], [0, 6]]


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
    npst.arrays(st.one_of(npst.scalar_dtypes(), st.sampled_from(["object", "f4,i2", "float32", "int64"])), SHAPES),
    st.lists(npst.arrays(st.sampled_from(["float32", ">f8", "int32"]), SHAPES), max_size=3),
)


@contextlib.contextmanager
def works_or_names(pattern: str) -> Iterator[None]:
    try:
        with np.errstate(all="ignore"):
            yield
    except (TypeError, ValueError) as error:
        if not re.match(pattern, str(error)):
            raise


@settings(max_examples=300, deadline=None)
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
