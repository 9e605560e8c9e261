"""How states remember, and what noise comes to them: leaky layers, for continuous time in steps of α = dt / τ.

A value for each layer and unit, of which kernels get α and, for noise, σ √(2/α) (`elman.backends.contract`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.typing import Int, Real

FORMS = ("rate", "potential")
USUAL = {"leak": 1.0, "noise": 0.0, "form": "rate", "learn_leak": False, "input_noise": 0.0}  # arguments of `RNN`
Values = float | tuple[Any, ...]  # for all layers, or one for each: a number or H of them
LEAST_LEAK = 1e-35  # of what is learned: far enough above 0 to be divided by in float32
INPUT_STREAM = 1  # of the normals that are added to inputs; layers have even ones

leak_value = check.numbers("a number above 0, up to 1, the time step over the time constant", lambda x: 0 < x <= 1)


class OfLayer(NamedTuple):
    """What the kernels get of a layer's dynamics."""

    cell: str
    numbers: Real | None  # (D, H)
    noise: Real | None  # (D, H)


class Dynamics:
    """The arguments of `RNN` about it, once they are checked."""

    def __init__(self, leak: Values, noise: Values, form: str, is_learned: bool, input_noise: float) -> None:
        self.leak, self.noise, self.form, self.is_learned, self.input_noise = leak, noise, form, is_learned, input_noise
        leaks = {*_all_of(leak)}
        self.cell = "elman" if form == "rate" and not is_learned and leaks == {1} else form
        self.has_noisy_units = any(_all_of(noise))
        self.is_noisy = input_noise > 0 or self.has_noisy_units
        if is_learned and 1 in leaks:
            check.refuse(f"leak must be below 1 where learn_leak=True, got {leak}: its logit is learned")
        if input_noise > 0 and (is_learned or len(leaks) > 1):
            check.refuse("input_noise needs one leak for all units, which is not learned: it is scaled by √(2/leak)")

    @classmethod
    def of(cls, leak: Any, noise: Any, form: Any, learn_leak: Any, input_noise: Any, *sizes: int) -> Dynamics:
        """From the arguments as they are given; sizes: L and H."""
        return cls(
            values(leak, "leak", leak_value, *sizes),
            values(noise, "noise", check.non_negative, *sizes),
            check.choice(form, "form", FORMS),
            check.flag(learn_leak, "learn_leak"),
            check.non_negative(input_noise, "input_noise"),
        )

    def leak_of(self, k: int) -> Any:
        """Layer k's α: a number, or H of them."""
        return _of(self.leak, k)

    def noise_of(self, k: int) -> Any:
        """Layer k's σ: a number, or H of them."""
        return _of(self.noise, k)

    def check_fits(self, dtype: np.dtype[Any], num_layers: int) -> None:
        """Refuse a leak that the dtype's kernels take for 0, and noise of which normals are multiplied by infinity."""
        range_, cure = np.finfo(dtype), " or dtype='float64'" if dtype.itemsize == 4 else ""
        for k in range(num_layers if isinstance(self.leak, tuple) or isinstance(self.noise, tuple) else 1):
            leaks = np.asarray(self.leak_of(k))
            if leaks.min() < range_.tiny:
                expected = f"at least {range_.tiny:.2g} in {dtype}"
                check.refuse(f"leak must be {expected}, got {leaks.min()}: choose a larger one{cure}")
            for name, given in ("noise", self.noise_of(k)), ("input_noise", self.input_noise):
                with np.errstate(over="ignore"):
                    scales = np.atleast_1d(np.asarray(given) * np.sqrt(2 / leaks))
                if scales.max() > range_.max:
                    value = np.broadcast_to(given, scales.shape)[scales.argmax()]
                    expected = f"so small that {name}·√(2/leak) is finite in {dtype}"
                    check.refuse(f"{name} must be {expected}, got {value}: choose a smaller one{cure}")

    def of_layer(self, k: int, dtype: np.dtype[Any], shape: tuple[int, int], logits: Real | None) -> OfLayer:
        """shape: (D, H); logits, of that shape: the parameter, where the leak is learned."""
        leaks = np.broadcast_to(self.leak_of(k), shape) if logits is None else _sigmoid(logits.astype(np.float64))
        sigma, noise = np.float64(self.noise_of(k)), None
        if np.any(sigma > 0):
            noise = (sigma * np.sqrt(2 / leaks)).astype(dtype, order="C")
        return OfLayer(self.cell, None if self.cell == "elman" else leaks.astype(dtype, order="C"), noise)

    def initial_logits(self, k: int) -> NDArray[np.float64]:
        """What a leak that is learned begins with: a number, or (H,)."""
        leak = np.float64(self.leak_of(k))
        logits: NDArray[np.float64] = np.log(leak / (1 - leak))
        return logits

    @property
    def input_scale(self) -> float:
        """What normals are multiplied by before they are added to inputs."""
        return self.input_noise * math.sqrt(2 / next(_all_of(self.leak)))


def add_by_logits(into: Real, leak: Any, noise: Any, d_numbers: Real, d_noise: Real | None) -> None:
    """Add the gradient by logit α (D, H), given those of each row by α and by σ √(2/α), (D, B, H)."""
    leaks = np.asarray(leak, np.float64)
    with np.errstate(all="ignore"):  # the update says if they are not finite
        d_leak = d_numbers.sum(axis=1, dtype=np.float64)
        if d_noise is not None:
            d_leak -= d_noise.sum(axis=1, dtype=np.float64) * noise / (2 * leaks)
        into += d_leak * leaks * (1 - leaks)


def values(value: Any, name: str, accepted: Any, num_layers: int, hidden_size: int) -> Values:
    """A number; an array (H,); or a list of one of these for each layer: as numbers and tuples."""
    if hasattr(value, "__array__"):
        array = check.as_array(value, name)
        value = [array] * num_layers if array.ndim > 0 else array.item()
    if not isinstance(value, (list, tuple)):
        return float(accepted(value, name))
    if len(value) != num_layers:
        raise ValueError(
            f"{name} must be a number, an array ({hidden_size},), or a list of one for each of {num_layers} layers, "
            f"got {len(value)} items"
        )
    return tuple(_of_units(one, f"{name}[{k}]", accepted, hidden_size) for k, one in enumerate(value))


def tuples(value: Any) -> Values:
    """Such values out of a pickle, which may have lists."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


def of_both_directions(value: Values) -> Values:
    """Those of layers whose units begin with the states of both directions, side by side."""
    return tuple(2 * one if isinstance(one, tuple) else one for one in value) if isinstance(value, tuple) else value


def _of_units(value: Any, name: str, accepted: Any, hidden_size: int) -> Values:
    if not isinstance(value, (list, tuple, np.ndarray)) or np.ndim(value) == 0:
        return float(accepted(value, name))
    check.shape(np.shape(value), name, ((hidden_size,),))
    return tuple(accepted(one, name) for one in np.asarray(value).tolist())


def _of(value: Values, k: int) -> Any:
    """A layer's own: a number, or H of them."""
    return value[k] if isinstance(value, tuple) else value


def _all_of(value: Values) -> Iterator[float]:
    """All numbers that are given."""
    if not isinstance(value, tuple):
        yield value
        return
    for one in value:
        yield from _all_of(one)


def _sigmoid(logits: Any) -> Any:
    return np.maximum(1 / (1 + np.exp(-np.clip(logits, -700, 700))), LEAST_LEAK)


# Seeds: SplitMix64's function (Steele, Lea & Flood 2014), so that neighbours are as good as any others

_GOLDEN = 0x9E3779B97F4A7C15


def mixed(seed: Any, number: Any) -> NDArray[np.uint64]:
    """64 bits for each pair of a seed and a number, of 64 bits too; arrays are paired element by element."""
    seeds, others = (np.atleast_1d(np.asarray(one, np.uint64)) for one in (seed, number))  # scalars warn of overflow
    z: NDArray[np.uint64] = seeds + np.uint64(_GOLDEN) * (others + np.uint64(1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def keys_of_rows(seed: int, epoch: int, rows: Int) -> Int:
    """What the noise of rows of a data set is drawn with in an epoch of a training run."""
    return mixed(mixed(seed, epoch), rows).view(np.int64)


def row_keys(noise_seed: Any, n_rows: int, name: str = "noise_seed") -> Int | None:
    """What each row's noise is drawn with, (B,): from an int k, which gives row b the seed (k, b), or (B,) ints."""
    if noise_seed is None:
        return None
    if isinstance(noise_seed, (list, tuple)):  # NumPy makes floats of ints from both sides of 2^63
        seeds = np.array([_seed(one, f"{name}[{b}]") for b, one in enumerate(noise_seed)], np.uint64)
    elif check.is_int(noise_seed):
        seeds = np.array(_seed(noise_seed, name), np.uint64)
    else:
        seeds = check.as_array(noise_seed, name)
        if seeds.dtype.kind not in "iu":
            raise TypeError(f"{name} must be an int or integers (B,), got {check.shown(noise_seed)}")
    if seeds.ndim > 0:
        check.shape(seeds.shape, name, ((n_rows,),))
    if seeds.dtype.kind == "i" and seeds.min() < 0:
        raise ValueError(f"{name} must not be negative, got {seeds.min()}")
    keys = mixed(seeds.astype(np.uint64), 0)
    return (keys if seeds.ndim > 0 else mixed(keys, np.arange(n_rows))).view(np.int64)


def _seed(value: Any, name: str) -> int:
    """An int, which may be NumPy's, in an array without axes, too."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return check.integers(0, 2**64 - 1, "an int of at least 0")(value, name)
