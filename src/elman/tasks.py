"""Generators of the field's classic problems, each with what a model gets that has learned nothing about time.

Every function returns X, Y as `SequenceModel.fit` takes them, drawn from a seed. `BASELINES` has the mean loss, in nats
or as a squared error, of the best answer that does not look at the input.

>>> X, Y = adding(1000, n_steps=50, seed=0)
>>> X.shape, Y.shape
((1000, 50, 2), (1000, 1))
>>> round(BASELINES["adding"], 3)
0.167
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elman import check
from elman.typing import Int, Real

Seed = int | np.random.Generator | None

BASELINES = {
    "adding": 1 / 6,  # the variance of the sum of two numbers that are uniform in [0, 1]
    "parity": math.log(2),
    "temporal_order": math.log(4),
    "sines": 0.5,  # the variance of a sine
    "flip_flop": 1.0,  # the variance of -1 and 1, as often
}


def copy_baseline(n_symbols: int, n_copied: int, delay: int) -> float:
    """Of `copy`: blanks are easy, and one of n_symbols is right at each of the last n_copied steps."""
    n_symbols, n_copied = check.size(n_symbols, "n_symbols"), check.size(n_copied, "n_copied")
    delay = check.size_of_at_least(delay, "delay", 0)
    return n_copied * math.log(n_symbols) / (2 * n_copied + delay)


def adding(n: int, *, n_steps: int = 50, seed: Seed = None) -> tuple[Real, Real]:
    """The sum of the two of many numbers that are marked (Hochreiter & Schmidhuber, 1997); many-to-one, real numbers.

    Returns
    -------
    X : array (n, T, 2)
        Numbers uniform in [0, 1], and marks: one in the first half and one in the second.
    Y : array (n, 1)
    """
    n, n_steps = check.size(n, "n"), check.size_of_at_least(n_steps, "n_steps", 2)
    check.addressable(16 * n * n_steps, n=n, n_steps=n_steps)
    rng = check.generator(seed)
    X, rows = np.zeros((n, n_steps, 2)), np.arange(n)
    X[..., 0] = rng.random((n, n_steps))
    for first, end in ((0, n_steps // 2), (n_steps // 2, n_steps)):
        X[rows, rng.integers(first, end, n), 1] = 1
    return X, X.prod(axis=2).sum(axis=1, keepdims=True)


def copy(n: int, *, n_symbols: int = 8, n_copied: int = 10, delay: int = 20, seed: Seed = None) -> tuple[Int, Int]:
    """Say again what was said before a pause (Hochreiter & Schmidhuber, 1997); many-to-many, tokens to categories.

    Returns
    -------
    X, Y : integers (n, 2 · n_copied + delay)
        Symbols from 0 to n_symbols - 1, a blank (n_symbols), and a mark (n_symbols + 1) where Y, blank before, repeats
        the symbols of the beginning. So a model has n_symbols + 2 tokens and n_symbols + 1 categories.
    """
    n, n_symbols = check.size(n, "n"), check.size(n_symbols, "n_symbols")
    n_copied, delay = check.size(n_copied, "n_copied"), check.size(delay, "delay")
    check.addressable(16 * n * (2 * n_copied + delay), n=n, n_copied=n_copied, delay=delay)
    symbols = check.generator(seed).integers(0, n_symbols, (n, n_copied))
    X, Y = np.full((2, n, 2 * n_copied + delay), n_symbols)
    X[:, :n_copied] = Y[:, -n_copied:] = symbols
    X[:, n_copied + delay - 1] = n_symbols + 1
    return X, Y


def parity(n: int, *, min_steps: int = 3, max_steps: int = 12, seed: Seed = None) -> tuple[list[Int], Int]:
    """Is the number of ones odd? Many-to-one, two tokens to one label, lists of unequal lengths.

    Returns
    -------
    X : list of integers (T_i,)
    Y : integers (n, 1)
    """
    n, min_steps = check.size(n, "n"), check.size(min_steps, "min_steps")
    max_steps = check.size_of_at_least(max_steps, "max_steps", min_steps)
    rng = check.generator(seed)
    X = [rng.integers(0, 2, n_steps) for n_steps in rng.integers(min_steps, max_steps + 1, n)]
    return X, np.array([[x.sum() % 2] for x in X])


def temporal_order(n: int, *, n_steps: int = 50, seed: Seed = None) -> tuple[Int, Int]:
    """In which order did two rare symbols come (Hochreiter & Schmidhuber, 1997)? Many-to-one, 6 tokens, 4 categories.

    Returns
    -------
    X : integers (n, T)
        Distractors from 2 to 5, among them a 0 or 1 in the second tenth and another one in the middle, tenth 6.
    Y : integers (n,)
        Twice the first of these plus the second.
    """
    n, n_steps = check.size(n, "n"), check.size_of_at_least(n_steps, "n_steps", 10)
    check.addressable(8 * n * n_steps, n=n, n_steps=n_steps)
    rng = check.generator(seed)
    X, rows = rng.integers(2, 6, (n, n_steps)), np.arange(n)
    first, second = rng.integers(0, 2, (2, n))
    X[rows, rng.integers(n_steps // 10, 2 * n_steps // 10, n)] = first
    X[rows, rng.integers(n_steps // 2, 6 * n_steps // 10, n)] = second
    return X, 2 * first + second


# The graph of Reber (1967): from each state, the symbols and where they lead; -1 is the end
_SYMBOLS = "BTPSXVE"
_REBER = ({"B": 1}, {"T": 2, "P": 3}, {"S": 2, "X": 4}, {"T": 3, "V": 5}, {"X": 3, "S": 6}, {"P": 4, "V": 6}, {"E": -1})


def embedded_reber(n: int, *, seed: Seed = None) -> tuple[list[Int], list[Int]]:
    """Which symbols may come next (Hochreiter & Schmidhuber, 1997)? Many-to-many, 7 tokens to 7 labels.

    A string of Reber's grammar between two equal symbols, T or P: the one at the end can only be foreseen by who
    remembers the one at the beginning.

    Returns
    -------
    X : list of integers (T_i,)
        Symbols of "BTPSXVE" by their places.
    Y : list of integers (T_i, 7)
        1 for each symbol that may come next.
    """
    n, rng = check.size(n, "n"), check.generator(seed)
    pairs = [_reber_string(rng) for _ in range(n)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _reber_string(rng: np.random.Generator) -> tuple[Int, Int]:
    """An embedded string without its last symbol, and what may follow each of the others."""
    outer = "TP"[rng.integers(2)]
    symbols, may_follow, state = ["B", outer], ["TP", "B"], 0
    while state >= 0:
        choices = list(_REBER[state])
        symbol = choices[rng.integers(len(choices))]
        state = _REBER[state][symbol]
        symbols.append(symbol)
        may_follow.append("".join(_REBER[state]) if state >= 0 else outer)
    symbols.append(outer)
    may_follow.append("E")
    y = [[int(symbol in follow) for symbol in _SYMBOLS] for follow in may_follow]
    return np.array([_SYMBOLS.index(symbol) for symbol in symbols]), np.array(y)


def sines(n: int, *, n_steps: int = 50, noise: float = 0.1, seed: Seed = None) -> tuple[Real, Real]:
    """The next value of a sine of random period and phase, seen through noise; many-to-many, real numbers.

    Returns
    -------
    X : array (n, T, 1)
        With normal noise of this standard deviation.
    Y : array (n, T, 1)
        One step ahead, without noise.
    """
    n, n_steps = check.size(n, "n"), check.size(n_steps, "n_steps")
    check.addressable(8 * n * (n_steps + 1), n=n, n_steps=n_steps)
    noise = check.non_negative(noise, "noise")
    rng = check.generator(seed)
    period, phase = rng.uniform(8, 32, (n, 1)), rng.uniform(0, 1, (n, 1))
    clean: Any = np.sin(2 * np.pi * (np.arange(n_steps + 1) / period + phase))[..., None]
    return clean[:, :-1] + noise * rng.standard_normal((n, n_steps, 1)), clean[:, 1:]


def flip_flop(
    n: int, *, n_bits: int = 3, n_steps: int = 50, probability: float = 0.2, seed: Seed = None
) -> tuple[Real, Real]:
    """The last pulse that came in on each of some lines (Sussillo & Barak, 2013); many-to-many, real numbers.

    Returns
    -------
    X : array (n, T, n_bits)
        Pulses, -1 or 1, with this probability in a step, and one on each line in the first; otherwise 0.
    Y : array (n, T, n_bits)
        Each line's last pulse.
    """
    n, n_bits, n_steps = check.size(n, "n"), check.size(n_bits, "n_bits"), check.size(n_steps, "n_steps")
    check.addressable(16 * n * n_bits * n_steps, n=n, n_bits=n_bits, n_steps=n_steps)
    probability, rng = check.probability(probability, "probability"), check.generator(seed)
    signs, is_pulse = 2.0 * rng.integers(0, 2, (n, n_steps, n_bits)) - 1, rng.random((n, n_steps, n_bits)) < probability
    is_pulse[:, 0] = True
    steps = np.arange(n_steps)[:, None]
    last = np.maximum.accumulate(np.where(is_pulse, steps, 0), axis=1)
    return np.where(is_pulse, signs, 0.0), np.take_along_axis(signs, last, axis=1)
