"""No array reaches a kernel that does not fit the layer: each function of the contract, called as a mistake would."""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from elman import backends
from elman.backends import contract

from ..cases import POISON, bits, check_untouched, make, make_readout, poison

COMPILED = [name for name in backends.available() if name != "numpy"]
Call = tuple[str, dict[str, Any], dict[str, Any]]  # function, arrays, other arguments


@pytest.fixture(params=COMPILED)
def walled(request: pytest.FixtureRequest) -> Any:
    return backends.get(request.param)


def time_calls(dtype: str, *, tokens: bool) -> Iterator[Call]:
    p = make(T=4, B=3, I=5, H=6, D=2, dtype=dtype, lengths="ragged", mask=True, tokens=tokens)
    options = {"activation": "tanh"}
    common = {name: getattr(p, name) for name in ("x", "h_0", "weight_ih", "weight_hh", "lengths", "mask")}
    y = p.forward(backends.get("numpy"))["y"]
    out = {"y": poison(y.shape, dtype), "h_n": poison(p.h_0.shape, dtype), "dropped": poison(y.shape, dtype)}
    drawing = {"dropout": 0.25, "key": (1 << 64) - 1, "layer": 3, "first_step": 7}
    yield "forward", {**common, "bias": p.bias, **out}, options | drawing
    gradients = {name: poison(array.shape, dtype) for name, array in p.sums.items()}
    out = {"delta": poison(y.shape, dtype), "d_h_0": poison(p.h_0.shape, dtype), **gradients}
    out["d_x"] = None if tokens else poison(p.x.shape, dtype)
    yield "backward", {**common, "y": y, "d_y": p.d_y, "d_h_n": p.d_h_n, **out}, options | drawing
    one = make(T=4, B=3, I=5, H=6, dtype=dtype, tokens=tokens)
    common = {name: getattr(one, name) for name in ("x", "h_0", "weight_ih", "weight_hh")}
    common |= {"resets": np.ones((4, 3), bool), "h_reset": one.h_0.copy()}
    y = one.forward(backends.get("numpy"))["y"]
    yield "forward", {**common, "y": poison(y.shape, dtype)}, options
    gradients = {name: poison(array.shape, dtype) for name, array in one.sums.items()}
    out = {"delta": poison(y.shape, dtype), "d_h_0": poison(one.h_0.shape, dtype), **gradients}
    out["d_h_reset"] = poison(one.h_0.shape, dtype)
    yield "backward", {**common, "y": y, **out}, options
    weights = {name: getattr(p, name)[0] for name in ("weight_ih", "weight_hh", "bias")}
    x = np.array([0, 4, 2]) if tokens else np.ascontiguousarray(p.x[0])
    x = x if tokens else np.nan_to_num(x)
    yield "step", {"x": x, "h": p.h_0[0], **weights, "h_next": poison(p.h_0[0].shape, dtype)}, options


def readout_calls(dtype: str) -> Iterator[Call]:
    for loss in ("cross_entropy", "binary_cross_entropy", "squared_error"):
        r = make_readout(T=4, B=3, K=5, O=6, dtype=dtype, loss=loss, lengths="ragged", weights="steps")
        shape = (*r.h.shape[:2], r.weight.shape[1])
        arrays = {name: getattr(r, name) for name in ("h", "weight", "bias", "target", "lengths", "weights")}
        out = {"o": poison(shape, dtype), "d_h": poison(r.h.shape, dtype)}
        out |= {name: poison(array.shape, dtype) for name, array in r.sums.items()}
        yield "readout_loss", {**arrays, **out}, {"loss": loss, "scale": 1.0}
    h = np.nan_to_num(r.h)
    yield "readout", {"h": h, "weight": r.weight, "bias": r.bias, "o": poison(shape, dtype)}, {}


def update_calls(dtype: str) -> Iterator[Call]:
    def arrays(*names: str) -> dict[str, Any]:
        return {name: poison((9,), dtype) for name in names}

    yield "clip_norm", arrays("gradient"), {"max_norm": 1.0}
    yield "update", arrays("parameters", "gradient", "memory_0"), {"rule": "sgd", "numbers": (0.1, 0.9)}
    yield "update", arrays("parameters", "gradient", "memory_0"), {"rule": "adagrad", "numbers": (0.1, 1e-8)}
    numbers = (0.1, 0.9, 0.99, 1e-8, 0.0, 1.0)
    yield "update", arrays("parameters", "gradient", "memory_0", "memory_1"), {"rule": "adam", "numbers": numbers}


def call(backend: Any, name: str, arguments: dict[str, Any]) -> Any:
    """A function of the contract, of arguments by the names of its objects' fields."""
    given = dict(arguments)
    if name in ("step", "clip_norm"):
        return getattr(backend, name)(**given)
    if name in ("forward", "backward"):
        given = {"bias": None, "h_n": None, **given}
    if name == "backward":
        own = [given.pop(field, None) for field in contract.Gradients._fields]
        return backend.backward(contract.Layer(**given), contract.Gradients(*own))
    if name == "update":
        memories = tuple(given.pop(key) for key in ("memory_0", "memory_1", "memory_2") if key in given)
        return backend.update(contract.Update(memories=memories, **given))
    kind = contract.Layer if name == "forward" else contract.Readout
    return getattr(backend, name)(kind(**given))


def all_calls(dtype: str) -> list[Call]:
    by_time = [*time_calls(dtype, tokens=False), *time_calls(dtype, tokens=True)]
    return [*by_time, *readout_calls(dtype), *update_calls(dtype)]


def unlike(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Another shape, with values that are tokens and lengths whatever the layer."""
    return np.zeros(shape, array.dtype)


def wrong_extents(array: np.ndarray) -> Iterator[np.ndarray]:
    for axis, n in enumerate(array.shape):
        for other in (n - 1, n + 1, 0):
            yield unlike(array, (*array.shape[:axis], other, *array.shape[axis + 1 :]))
    yield unlike(array, array.shape[1:])
    yield unlike(array, (1, *array.shape))


def wrong_dtypes(array: np.ndarray) -> Iterator[np.ndarray]:
    others = "bhilHILfdFDOSmMe?" if array.dtype.kind in "fb" else "bhiHILfdFDOSmMe?"
    for kind in others:
        if np.dtype(kind) != array.dtype:
            yield np.zeros(array.shape, kind)
    if array.itemsize > 1:
        yield array.astype(array.dtype.newbyteorder())
    yield np.zeros(array.shape, [("a", array.dtype)])


def wrong_places(array: np.ndarray) -> Iterator[np.ndarray]:
    """A last axis of another stride, an address and a stride that are no multiples of the item size."""
    size = array.itemsize
    yield np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
    yield np.zeros(array.shape, array.dtype)[..., ::-1]
    memory = np.zeros(array.nbytes + 1, np.uint8)
    yield memory[1:].view(array.dtype).reshape(array.shape)
    odd = np.zeros(array.shape, [("pad", "u1"), ("value", array.dtype)])["value"]
    assert odd.strides[-1] == size + 1
    yield odd


OUTPUTS = {
    "h_n",
    "dropped",
    "delta",
    "d_weight_ih",
    "d_weight_hh",
    "d_bias",
    "d_h_0",
    "d_h_reset",
    "d_x",
    "h_next",
    "o",
    "d_h",
    "d_weight",
}
WRITTEN = OUTPUTS | {"parameters", "memory_0", "memory_1"}
OPTIONAL = {"bias", "h_n", "d_y", "d_h_n", "d_weight_ih", "d_weight_hh", "d_bias", "d_x", "lengths", "mask", "weights"}
OPTIONAL |= {"d_h_reset", "d_h", "d_weight"}
ANY_STRIDE = {"target": ("cross_entropy",), "weights": ("cross_entropy", "binary_cross_entropy", "squared_error")}


def has_any_stride(name: str, array: np.ndarray, options: dict[str, Any]) -> bool:
    """(T, B) arrays, which may have any strides but odd ones."""
    return options.get("loss") in ANY_STRIDE.get(name, ()) or (name == "x" and array.ndim == 2 and array.dtype == "i8")


def is_another_table(name: str, argument: str, array: np.ndarray, other: np.ndarray, x: Any) -> bool:
    """Of tokens, forward: I is the table's to say."""
    if argument != "weight_ih" or name == "backward" or x.dtype != "i8":
        return False
    return other.dtype == array.dtype and other.shape == (*array.shape[:-2], array.shape[-2] + 1, array.shape[-1])


def check_refused(
    backend: Any, name: str, arrays: dict[str, Any], changes: dict[str, Any], options: dict[str, Any]
) -> None:
    """An error in the words of the wall, and nothing written to what began as poison."""
    with pytest.raises((TypeError, ValueError), match=": expected"):
        call(backend, name, arrays | changes | options)
    for key in OUTPUTS & arrays.keys() - changes.keys():
        if arrays[key] is not None:
            check_untouched(arrays[key])
            assert (bits(arrays[key]) == bits(POISON[arrays[key].dtype][None])).all(), f"{key} was written to"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_extent_dtype_stride_and_address(walled: Any, dtype: str):
    n_refused = 0
    for name, arrays, options in all_calls(dtype):
        for argument, array in arrays.items():
            if array is None:
                continue
            wrong = [*wrong_extents(array), *wrong_dtypes(array)]
            if len(arrays) == 1:  # clip_norm: any extent and any real will do
                wrong = [np.zeros(9, "i8"), np.zeros(9, "f2"), unlike(array, (3, 3)), unlike(array, (0,))]
            places = [] if array.dtype == bool else list(wrong_places(array))  # bytes may lie anywhere
            wrong += places[2:] if has_any_stride(argument, array, options) else places
            for other in wrong:
                if not is_another_table(name, argument, array, other, arrays.get("x")):
                    check_refused(walled, name, arrays, {argument: other}, options)
                    n_refused += 1
    assert n_refused > 2000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_array_or_cannot_be_written_to(walled: Any, dtype: str):
    for name, arrays, options in all_calls(dtype):
        for argument, array in arrays.items():
            if array is None:
                continue
            for other in [3, "x", object(), *([] if argument in OPTIONAL else [None])]:
                with pytest.raises((TypeError, ValueError, AttributeError)):
                    call(walled, name, arrays | {argument: other} | options)
            fixed = array.view()
            fixed.flags.writeable = False
            if argument in WRITTEN or (name, argument) in {("forward", "y"), ("clip_norm", "gradient")}:
                check_refused(walled, name, arrays, {argument: fixed}, options)


def test_what_only_claims_to_be_an_array(walled: Any):
    class Claims:
        __class__ = np.ndarray  # type: ignore[assignment]

    array = np.ones(4, np.float32)
    for claims in (Claims(), weakref.proxy(array)):
        with pytest.raises(TypeError, match="gradient: expected an array"):
            walled.clip_norm(claims, max_norm=1.0)
    assert walled.clip_norm(array.view(np.memmap), max_norm=9.0) == 2.0


def test_memories_that_only_the_call_knows(walled: Any):
    class Made:
        def __iter__(self) -> Iterator[np.ndarray]:
            return (np.zeros(10**6, np.float32) for _ in range(2))

    parameters, gradient = np.ones((2, 10**6), np.float32)
    walled.update(contract.Update("adam", parameters, gradient, Made(), (0.5, 0.9, 0.999, 1e-8, 0.0, 1.0)))
    np.testing.assert_allclose(parameters, 0.5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lengths_tokens_and_targets(walled: Any, dtype: str):
    for name, arrays, options in all_calls(dtype):
        for value in (-1, 5, 1 << 40, -(1 << 62)):
            if "lengths" in arrays:
                lengths = arrays["lengths"].copy()
                lengths[-1] = value
                check_refused(walled, name, arrays, {"lengths": lengths}, options)
            if arrays.get("x") is not None and arrays["x"].dtype == "i8":
                x = arrays["x"].copy()
                x.flat[0 if "lengths" not in arrays else int(arrays["lengths"].argmax())] = value
                check_refused(walled, name, arrays, {"x": x}, options)
            if options.get("loss") == "cross_entropy" and value > 0:
                target, weights = arrays["target"].copy(), np.ones(arrays["target"].shape, dtype)
                target[0, int(arrays["lengths"].argmax())] = value + 1
                check_refused(walled, name, arrays, {"target": target, "weights": weights}, options)
                check_refused(walled, name, arrays, {"target": target, "weights": None}, options)


@pytest.mark.parametrize("name", ["forward", "backward"])
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("dropout", [-0.1, 1.5, np.nan, np.inf, -np.inf]),
        ("key", [-1, 1 << 64]),
        ("layer", [-1, 1 << 30, 1 << 63, 1 << 64]),
        ("first_step", [-1, (1 << 32) - 3, 1 << 63, 1 << 64]),
    ],
)
def test_what_dropout_draws_for(walled: Any, name: str, field: str, values: list[Any]):
    for called, arrays, options in time_calls("float32", tokens=False):
        if called == name:
            for value in values:
                check_refused(walled, name, arrays, {}, options | {field: value})


def test_recurrent_masks(walled: Any):
    mask, given = poison((2, 3, 5), "float32"), {"p": 0.5, "key": 1, "layer": 0}
    for field, values in (("p", [-0.1, 1.5, np.nan]), ("key", [-1, 1 << 64]), ("layer", [-1, 1 << 30])):
        for value in values:
            with pytest.raises(ValueError, match=": expected"):
                walled.recurrent_mask(mask, **given | {field: value})
    assert (bits(mask) == bits(POISON[mask.dtype][None])).all()
    fixed = mask.view()
    fixed.flags.writeable = False
    for other in (None, mask[0], np.zeros(mask.shape, int), mask[:, :, ::2], np.zeros((3, 3, 5), "f4"), fixed):
        with pytest.raises((TypeError, ValueError), match="mask: expected"):
            walled.recurrent_mask(other, **given)


def test_both_directions_have_no_reverse(walled: Any):
    for name, arrays, options in time_calls("float32", tokens=False):
        if name != "step":
            check_refused(walled, name, arrays, {}, options | {"reverse": True})
            three = {
                key: np.zeros((3, *array.shape[1:]), array.dtype)
                for key, array in arrays.items()
                if key in ("h_0", "weight_ih", "weight_hh", "bias", "h_n", "mask")
            }
            check_refused(walled, name, arrays, three, options)


def test_strides_of_axes_of_one_lead_nowhere(walled: Any):
    """NumPy leaves anything there, so nothing may depend on it."""
    p = make(T=1, B=1, I=1, H=1, dtype="float32")
    absurd = p.map(lambda a: np.lib.stride_tricks.as_strided(a, strides=(13,) * a.ndim), "x", "h_0", "weight_ih", "d_y")
    y = absurd.forward(walled)["y"]
    np.testing.assert_array_equal(y, p.forward(walled)["y"])
    for name, array in absurd.backward(walled, y).items():
        np.testing.assert_array_equal(array, p.backward(walled, y)[name])


def test_updates_have_all_that_their_rule_takes(walled: Any):
    for rule, n, numbers in (("adagrad", 0, 2), ("adagrad", 1, 1), ("adam", 1, 6), ("adam", 3, 6), ("other", 1, 2)):
        memories = {f"memory_{i}": np.zeros(9) for i in range(n)}
        given = {"rule": rule, "parameters": np.zeros(9), "gradient": np.zeros(9), "numbers": (0.1,) * numbers}
        with pytest.raises(ValueError, match="update: expected a rule with its memories and numbers"):
            call(walled, "update", given | memories)
