"""Dropout: what is drawn (Philox4x32-10), by every backend the same, and what backward makes of it."""

import itertools

import numpy as np
import pytest

from elman.backends import native, reference

from ..cases import LAYOUTS, Problem, active_steps, check_untouched, make, place, poison
from ..compare import assert_same_bits, check_backward, check_forward

LOW = (1 << 32) - 1
KEY = 0xFEDC_BA98_7654_3210
DRAWING = {"dropout": 0.2, "key": KEY, "layer": 3, "first_step": 1000}
PROBABILITIES = [0, 0.2, 0.5, 1]


def philox(key: int, counter: list[int]) -> list[int]:
    """The paper's algorithm on one counter."""
    keys, words = [key & LOW, key >> 32], list(counter)
    for _ in range(10):
        left, right = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [(right >> 32) ^ words[1] ^ keys[0], right & LOW, (left >> 32) ^ words[3] ^ keys[1], left & LOW]
        keys = [(keys[0] + 0x9E3779B9) & LOW, (keys[1] + 0xBB67AE85) & LOW]
    return words


def is_kept(p: float, key: int, unit: int, row: int, step: int, stream: int) -> bool:
    return philox(key, [unit // 4, row, step, stream])[unit % 4] >= round(p * 2**32)


def kept_of(p: Problem) -> np.ndarray:
    """Of each (t, b, unit), both directions side by side, whether it is kept."""
    n_directions, n_rows, n_units = p.h_0.shape
    kept = np.zeros((len(p.x), n_rows, n_directions * n_units), bool)
    first_step, layer = p.drawing["first_step"], p.drawing["layer"]
    for t, b, i in np.ndindex(kept.shape):
        d, unit = divmod(i, n_units)
        kept[t, b, i] = is_kept(p.drawing["dropout"], p.drawing["key"], unit, b, first_step + t, 2 * (2 * layer + d))
    return kept


def left_of(p: Problem, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    dropout = p.drawing["dropout"]
    factor = p.dtype.type(0 if dropout == 1 else 1 / (1 - dropout))
    if dropout == 0:
        return values
    return np.where(kept, values * factor + 0, p.dtype.type(-0.0))


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # of Random123, tests/kat_vectors
        (0, 4 * [0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((1 << 64) - 1, 4 * [LOW], "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x299F31D0A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(key: int, counter: list[int], words: str):
    found = reference._philox(key, *(np.array([word]) for word in counter))
    assert " ".join(f"{word:08x}" for word in found[0]) == words
    assert " ".join(f"{word:08x}" for word in philox(key, counter)) == words


@pytest.mark.parametrize("dropout", PROBABILITIES)
@pytest.mark.parametrize("n_units", [1, 3, 5, 63, 100])
def test_what_is_left(backend, dtype, n_units, dropout):
    p = make(T=4, B=3, H=n_units, D=2, dtype=dtype, lengths="ragged").replace(drawing=DRAWING | {"dropout": dropout})
    out, active = p.forward(backend), active_steps(p.lengths, 4, 3)
    expected = left_of(p, out["y"], kept_of(p))
    assert_same_bits({"dropped": out["dropped"][active]}, {"dropped": expected[active]})
    plain = p.replace(drawing={}).forward(backend)
    assert_same_bits({key: out[key] for key in plain}, plain)


@pytest.mark.parametrize(
    "drawing",
    [
        {"key": 0, "layer": 0, "first_step": 0},
        {"key": LOW, "layer": (1 << 30) - 1},
        {"key": LOW << 32, "first_step": LOW - 4},
        {"dropout": 2.0**-33},  # half of a word: rounded to even, 0
        {"dropout": 3 * 2.0**-33},  # to 2
        {"dropout": 1 - 2.0**-40},  # to 2^32: all, though not for sure
    ],
)
def test_extremes(backend, dtype, drawing):
    p = make(T=5, B=2, H=21, D=2, dtype=dtype).replace(drawing=DRAWING | drawing)
    out = p.forward(backend)
    assert_same_bits({"dropped": out["dropped"]}, {"dropped": left_of(p, out["y"], kept_of(p))})


def test_what_is_dropped_may_be_anything(backend, dtype):
    p = make(T=2, B=4, H=40, dtype=dtype, activation="identity").replace(drawing=DRAWING)
    x = p.x.copy()
    x[0] = np.array([np.nan, np.inf, -np.inf, -1])[:, None]
    with np.errstate(invalid="ignore"):
        p = p.replace(x=x, weight_ih=np.abs(p.weight_ih))
        out = p.forward(backend)
        every = p.replace(drawing=DRAWING | {"dropout": 1}).forward(backend)["dropped"]
    dropped = {"some": out["dropped"][~kept_of(p)], "all": every}
    assert_same_bits(dropped, {key: np.full_like(array, -0.0) for key, array in dropped.items()})


def test_without_dropout_it_is_a_copy(backend, dtype):
    p = make(T=2, B=4, H=40, dtype=dtype, activation="relu").replace(drawing=DRAWING | {"dropout": 0})
    x = p.x.copy()
    x[0] = np.array([np.nan, np.inf, -np.inf, -1])[:, None]
    with np.errstate(invalid="ignore"):
        out = p.replace(x=x, weight_ih=np.abs(p.weight_ih)).forward(backend)
    assert_same_bits({"y": out["dropped"]}, {"y": out["y"]})


def test_what_is_kept_is_never_what_stands_for_dropped(backend, dtype):
    p = make(T=2, B=4, H=40, dtype=dtype, activation="identity").replace(drawing=DRAWING)
    p = p.replace(weight_ih=-0.0 * p.weight_ih, weight_hh=-0.0 * p.weight_hh, bias=-np.zeros_like(p.bias))
    out, kept = p.forward(backend), kept_of(p)
    assert not np.signbit(out["dropped"][kept]).any()
    delta = p.replace(d_h_n=None).backward(backend, out["y"])["delta"]
    assert ((delta[1] != 0) == kept[1]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "case",
    [
        {"T": 6, "B": 3, "H": 17, "lengths": "ragged", "activation": "sigmoid"},
        {"T": 5, "B": 9, "H": 33, "D": 2, "mask": True},
        {"T": 4, "B": 20, "H": 64, "reverse": True, "tokens": True, "d_h_n": False},
        {"T": 3, "B": 100, "H": 5, "D": 2, "lengths": "ragged", "d_y": False},
        {"T": 9, "B": 1, "H": 257, "bias": False},
    ],
    ids=str,
)
def test_both_passes(backend, dtype, layout, case):
    p = make(**case, dtype=dtype, layout=layout).replace(drawing=DRAWING)
    check_forward(backend, p)
    check_backward(backend, p)


@pytest.mark.parametrize("dropout", PROBABILITIES[1:])
def test_gradients_are_central_differences(backend, dropout):
    p = make(T=4, B=3, I=2, H=7, D=2, lengths="ragged").replace(drawing=DRAWING | {"dropout": dropout})
    active = active_steps(p.lengths, 4, 3)

    def loss(**changed: np.ndarray) -> float:
        out = p.replace(**changed).forward(backend)
        return float((out["dropped"] * p.d_y)[active].sum() + (out["h_n"] * p.d_h_n).sum())

    got = p.backward(backend, p.forward(backend)["y"])
    for key in ("h_0", "weight_ih", "weight_hh", "bias", "x"):
        array = np.nan_to_num(getattr(p, key))
        direction = np.random.default_rng(0).standard_normal(array.shape)
        ends = [loss(**{key: array + step * direction}) for step in (1e-6, -1e-6)]
        gradient = np.nan_to_num(got[f"d_{key}"]) - p.sums.get(f"d_{key}", 0)
        assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9), key


CASES = [
    {"T": 6, "B": 13, "I": 17, "H": 63, "D": 2, "lengths": "ragged"},
    {"T": 20, "B": 64, "I": 30, "H": 128},
    {"T": 40, "B": 1, "I": 3, "H": 257},  # threads share columns
    {"T": 30, "B": 2, "I": 5, "H": 300, "D": 2, "mask": True, "lengths": "ragged"},
]


def run(p: Problem, backend) -> dict[str, np.ndarray]:
    out = p.forward(backend)
    return out | p.backward(backend, out["y"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_do_not_matter(backend, dtype, threads, case):
    if backend is reference:
        pytest.skip("has no threads")
    p = make(**case, dtype=dtype).replace(drawing=DRAWING)
    threads(1)
    one = run(p, backend)
    for n in (2, 7, 16):
        threads(n)
        assert_same_bits(run(p, backend), one)
    threads(2)
    assert_same_bits(run(p, native), one)


@pytest.mark.parametrize("reverse", [False, True], ids=["ahead", "reverse"])
def test_a_stretch_draws_what_the_whole_does(backend, dtype, reverse):
    if backend is reference:
        pytest.skip("bits are promised for compiled backends only")
    p = make(T=23, B=7, I=5, H=17, lengths="ragged", reverse=reverse, dtype=dtype).replace(drawing=DRAWING)
    whole, h, parts = p.forward(backend), p.h_0, []
    segments = list(itertools.pairwise([0, 1, 9, 22, 23]))
    for start, stop in reversed(segments) if reverse else segments:
        out = p.times(start, stop).replace(h_0=h).forward(backend)
        h, parts = out["h_n"], [out, *parts] if reverse else [*parts, out]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in ("y", "dropped")}
    assert_same_bits(joined | {"h_n": h}, whole)


def test_backward_in_stretches_is_the_whole(backend, dtype):
    if backend is reference:
        pytest.skip("bits are promised for compiled backends only")
    p = make(T=23, B=7, I=5, H=17, lengths="ragged", dtype=dtype).replace(drawing=DRAWING)
    y = p.forward(backend)["y"]
    whole = p.backward(backend, y)
    late = p.times(9, 23).replace(h_0=p.times(0, 9).forward(backend)["h_n"])
    late_out = late.backward(backend, y[9:])
    sums = {key: late_out[key] for key in p.sums}
    out = p.times(0, 9).replace(d_h_n=late_out["d_h_0"], sums=sums).backward(backend, y[:9])
    for key in ("delta", "d_x"):
        out[key] = np.concatenate([out[key], late_out[key]])
    assert_same_bits(out, whole)


@pytest.mark.parametrize("dropout", PROBABILITIES)
@pytest.mark.parametrize("n_units", [1, 3, 5, 63, 100])
def test_recurrent_mask(backend, dtype, n_units, dropout):
    mask = poison((2, 3, n_units), dtype)
    backend.recurrent_mask(mask, p=dropout, key=KEY, layer=3)
    check_untouched(mask)
    kept = [is_kept(dropout, KEY, unit, b, 0, 2 * (6 + d) + 1) for d, b, unit in np.ndindex(mask.shape)]
    factor = 0 if dropout == 1 else 1 / (1 - dropout)
    expected = np.where(np.reshape(kept, mask.shape), np.dtype(dtype).type(factor), np.dtype(dtype).type(-0.0))
    assert_same_bits({"mask": mask}, {"mask": expected})


def test_as_many_are_dropped_as_it_says(backend):
    mask = place(np.zeros((1, 100, 1000)), writeable=True)
    for dropout in (0.1, 0.5, 0.9):
        backend.recurrent_mask(mask, p=dropout, key=7)
        assert np.count_nonzero(mask == 0) / mask.size == pytest.approx(dropout, abs=0.005)  # five standard deviations
