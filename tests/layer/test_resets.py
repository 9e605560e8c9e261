"""Resets of an RNN's call: as many sequences run apart, in every form that a call takes."""

import copy
from typing import Any

import numpy as np
import pytest

import elman
import elman.reference
from elman import RNN

from ..compare import assert_same_bits

T, B, I, H = 9, 4, 3, 6  # noqa: E741 - the names of docs/design.md
KINDS: list[dict[str, Any]] = [
    {},
    {"leak": 0.3},
    {"leak": [0.1, 0.7, 0.2, 0.9, 1.0, 0.5], "form": "potential", "nonlinearity": "softplus"},
]


def made(backend: Any, n_layers: int, kind: dict[str, Any], **others: Any) -> RNN:
    kind = {name: np.array(value) if isinstance(value, list) else value for name, value in kind.items()}
    name = next(name for name in elman.backends.available() if elman.backends.get(name) is backend)
    return RNN(I, H, n_layers, dtype="float64", seed=3, backend=name, **kind | others)


def given(rng: np.random.Generator, n_layers: int) -> dict[str, np.ndarray]:
    resets = rng.random((T, B)) < 0.3
    resets[0, 1], resets[3:5, 2] = True, True
    draws = {"x": (T, B, I), "h_0": (n_layers, B, H), "d_y": (T, B, H), "d_h_n": (n_layers, B, H)}
    return {name: rng.standard_normal(shape) for name, shape in draws.items()} | {"resets": resets}


def apart(rnn: RNN, a: dict[str, Any], lengths: np.ndarray) -> dict[str, Any]:
    """y, h_n and gradients, from calls of one sequence each."""
    n_layers = rnn.num_layers
    out: dict[str, Any] = {"y": np.zeros((T, B, H)), "d_x": np.zeros((T, B, I))}
    out |= {name: np.zeros((n_layers, B, H)) for name in ("h_n", "d_h_0")}
    for b, n in enumerate(lengths.tolist()):
        starts = [int(t) for t in np.flatnonzero(a["resets"][:n, b])]
        starts = starts if starts[:1] == [0] else [0, *starts]
        for start, stop in zip(starts, [*starts[1:], n], strict=True):
            is_first = start == 0 and not (n and a["resets"][0, b])
            if stop == 0:
                out["h_n"][:, b], out["d_h_0"][:, b] = a["h_0"][:, b], a["d_h_n"][:, b]
                continue
            h_0 = a["h_0"][:, b] if is_first else None
            out["y"][start:stop, b], h_n, pullback = rnn.vjp(a["x"][start:stop, b].copy(), h_0)
            d_h_n = a["d_h_n"][:, b] if stop == n else None
            d_x, d_h_0, parameters = pullback(a["d_y"][start:stop, b].copy(), d_h_n)
            out["d_x"][start:stop, b] = d_x
            if stop == n:
                out["h_n"][:, b] = h_n
            if is_first:
                out["d_h_0"][:, b] = d_h_0
            for name, array in parameters.items():
                out[name] = out.get(name, 0) + array
    return out


def together(rnn: RNN, a: dict[str, Any], **more: Any) -> dict[str, Any]:
    y, h_n, pullback = rnn.vjp(a["x"], a["h_0"], resets=a["resets"], **more)
    d_x, d_h_0, parameters = pullback(a["d_y"], a["d_h_n"])
    return {"y": y, "h_n": h_n, "d_x": d_x, "d_h_0": d_h_0, **parameters}


def check_same(got: dict[str, Any], expected: dict[str, Any], *, to_the_bit: bool) -> None:
    per_row = ("y", "h_n", "d_x", "d_h_0") if to_the_bit else ()
    assert_same_bits({name: got[name] + 0 for name in per_row}, {name: expected[name] + 0 for name in per_row})
    for name in got:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("lengths", [None, [9, 0, 7, 1]])
def test_pieces_run_apart(backend: Any, rng: np.random.Generator, kind: Any, n_layers: int, lengths: Any):
    rnn, a = made(backend, n_layers, kind), given(rng, n_layers)
    n = np.full(B, T) if lengths is None else np.array(lengths)
    got, expected = together(rnn, a, lengths=lengths), apart(rnn, a, n)
    check_same(got, expected, to_the_bit=backend is not elman.backends.reference)
    y, h_n = rnn(a["x"], a["h_0"], lengths, resets=a["resets"])
    last = rnn.last_state(a["x"], a["h_0"], lengths, resets=a["resets"])
    assert_same_bits({"y": y, "h_n": h_n, "last": last}, {"y": got["y"], "h_n": got["h_n"], "last": got["h_n"]})


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_form_of_a_call(backend: Any, rng: np.random.Generator, kind: Any):
    rnn, a = made(backend, 2, kind), given(rng, 2)
    expected, n = together(rnn, a, lengths=[9, 0, 7, 1]), [9, 0, 7, 1]
    rnn.batch_first = True
    swapped = {name: a[name].swapaxes(0, 1).copy() for name in ("x", "d_y", "resets")}
    got = together(rnn, a | swapped, lengths=n)
    check_same(got | {name: got[name].swapaxes(0, 1) for name in ("y", "d_x")}, expected, to_the_bit=True)
    listed = {name: [a[name][:k, b] for b, k in enumerate(n)] for name in ("x", "d_y", "resets")}
    got = together(rnn, a | listed)
    for name in ("y", "d_x"):
        padded = np.zeros_like(expected[name])
        for b, k in enumerate(n):
            padded[:k, b] = got[name][b]
        got[name] = padded
    check_same(got, expected, to_the_bit=True)
    single = {name: a[name][:, 0] for name in ("x", "d_y", "resets", "h_0", "d_h_n")}
    got = together(rnn, single)
    for name in ("y", "d_x", "h_n", "d_h_0"):
        np.testing.assert_allclose(got[name], expected[name][:, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_none_at_all_all_and_the_smallest(backend: Any, rng: np.random.Generator, kind: Any):
    rnn, a = made(backend, 2, kind), given(rng, 2)
    plain = together(rnn, a | {"resets": None})
    assert_same_bits(together(rnn, a | {"resets": np.zeros((T, B), bool)}), plain)
    everywhere = a | {"resets": np.ones((T, B), bool)}
    check_same(together(rnn, everywhere), apart(rnn, everywhere, np.full(B, T)), to_the_bit=False)
    one = RNN(1, 1, dtype="float64", seed=0, backend=rnn.backend)
    y, h_n = one(np.ones((1, 1, 1)), np.ones((1, 1, 1)), resets=[[True]])
    assert y == h_n == one(np.ones((1, 1, 1)))[0]


def test_last_states_of_many_stretches(backend: Any, rng: np.random.Generator):
    rnn = made(backend, 2, {"leak": 0.3, "form": "potential"})
    x, resets = rng.standard_normal((200, B, I)), rng.random((200, B)) < 0.01
    resets[64, 0] = True
    np.testing.assert_array_equal(rnn.last_state(x, resets=resets), rnn(x, resets=resets)[1])


def test_noise_goes_on_and_dropout_too(backend: Any, rng: np.random.Generator):
    """What is drawn for a place is what is drawn without resets."""
    a, seed, at_all = given(rng, 2), {"noise_seed": 7}, np.ones((T, B), bool)
    for n_layers, options, own in (
        (1, {"leak": 1.0, "noise": 0.2, "nonlinearity": "identity"}, seed),
        (2, {"dropout": 0.5, "recurrent_dropout": 0.3}, {}),
    ):
        rnn = made(backend, n_layers, options)
        for name, array in rnn.parameters().items():
            if name.startswith("weight_hh"):  # so that steps know nothing of one another
                array[...] = 0
        y, _, pullback = copy.deepcopy(rnn).vjp(a["x"], resets=at_all, **own)
        whole, _, pullback_of_whole = copy.deepcopy(rnn).vjp(a["x"], **own)
        plain = made(backend, n_layers, {})
        plain.load_state_dict(rnn.state_dict())
        assert not np.isclose(y, plain(a["x"])[0]).all(axis=(1, 2)).any(), "something is drawn at each step"
        np.testing.assert_array_equal(y, whole)
        np.testing.assert_array_equal(pullback(a["d_y"])[0], pullback_of_whole(a["d_y"])[0])


def test_a_pullback_has_a_copy(backend: Any, rng: np.random.Generator):
    rnn, a = made(backend, 1, {}), given(rng, 1)
    expected = together(rnn, a)
    _, _, pullback = rnn.vjp(a["x"], a["h_0"], resets=a["resets"])
    a["resets"][:] = ~a["resets"]
    np.testing.assert_array_equal(pullback(a["d_y"], a["d_h_n"])[0], expected["d_x"])


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (
            np.ones((T, B), int),
            TypeError,
            r"resets must hold bool, got int64 of shape \(9, 4\): compare, as in x != 0",
        ),
        (np.ones((B, T), bool), ValueError, r"resets must have shape \(9, 4\), got \(4, 9\)"),
        (np.ones(T, bool), ValueError, r"resets must have shape \(9, 4\), got \(9,\)"),
        (True, ValueError, r"resets must have shape \(9, 4\), got \(\)"),
        ("yes", TypeError, "resets must hold bool, got <U3"),
    ],
)
def test_what_is_no_reset_is_refused(resets: Any, error: type[Exception], message: str):
    for function in (RNN(I, H), RNN(I, H).vjp, RNN(I, H).last_state):
        with pytest.raises(error, match=message):
            function(np.ones((T, B, I)), resets=resets)


def test_lists_and_directions_are_refused():
    x = [np.ones((4, I)), np.ones((2, I))]
    with pytest.raises(ValueError, match=r"resets\[1\] must have shape \(2,\), got \(4,\)"):
        RNN(I, H)(x, resets=[np.ones(4, bool), np.ones(4, bool)])
    with pytest.raises(ValueError, match="resets must be a list of 2 arrays, got 1"):
        RNN(I, H)(x, resets=[np.ones(4, bool)])
    with pytest.raises(TypeError, match="resets must be a list of 2 arrays, got"):
        RNN(I, H)(x, resets=np.ones((2, 4), bool))
    with pytest.raises(ValueError, match=r"resets must be None with bidirectional=True.*pieces between resets"):
        RNN(I, H, bidirectional=True)(np.ones((T, B, I)), resets=np.ones((T, B), bool))


def test_the_reference_has_them_too(rng: np.random.Generator):
    a = given(rng, 1)
    ours, reference = RNN(I, H, seed=1, dtype="float64"), elman.reference.RNN(I, H, seed=1, dtype="float64")
    check_same(together(ours, a), together(reference, a), to_the_bit=False)
