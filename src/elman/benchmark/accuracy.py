"""How exact the backends are: activations in units in the last place, and whole passes against float64."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import numpy as np

from elman import backends
from elman.backends.reference import ACTIVATIONS
from elman.benchmark.contestants import own
from elman.benchmark.truth import Truth
from elman.benchmark.workloads import Case, Workload
from elman.typing import Real

FUNCTIONS = ("tanh", "sigmoid", "softplus", "retanh", "power")  # which round
_WIDTH = 16  # units of the layer that values go through
_CHUNK = 1 << 20  # values at once
_FIRST, _BEYOND = 0x00800000, 0x7F800000  # bits of the smallest normal float32, and of infinity


class Worst(NamedTuple):
    """The largest error found, in units in the last place of the exact value, and the argument that has it."""

    ulp: float
    at: float


def activate(backend: ModuleType, values: Real, activation: str) -> Real:
    """f(values) as a backend computes it: one time step of a layer whose weights are the identity.

    values (n,), n a multiple of 16.

    Examples
    --------
    >>> float(activate(backends.get("numpy"), np.zeros(16, np.float32), "sigmoid")[0])
    0.5
    """
    x = values.reshape(-1, _WIDTH)
    h = np.empty_like(x)
    identity, zeros = np.eye(_WIDTH, dtype=x.dtype), np.zeros((_WIDTH, _WIDTH), x.dtype)
    backend.step(x, np.zeros_like(x), identity, zeros, None, h, activation=activation)
    return h.ravel()


def worst_float32(
    backend: ModuleType, activation: str, *, stride: int, advance: Callable[[int], object] = lambda _: None
) -> Worst:
    """The largest error over every stride-th float32 of each sign; `advance` is told how many values are done.

    Results below the smallest normal number are left out, as compiled backends flush those to zero. What no float32 can
    hold must be infinite.

    Examples
    --------
    >>> worst_float32(backends.get("numpy"), "tanh", stride=1_000_003).ulp < 4
    True
    """
    exact = ACTIVATIONS[activation][0]
    worst = Worst(0.0, 0.0)
    for x in _floats(stride):
        with np.errstate(over="ignore", invalid="ignore"):
            y, expected = activate(backend, x, activation), exact(x.astype(np.float64))
            rounded = expected.astype(np.float32)
            errors = np.abs(y - expected) / np.spacing(np.abs(rounded))
        errors = np.where(np.isinf(rounded), np.where(y == rounded, 0, np.inf), errors)
        errors[np.abs(expected) < np.finfo(np.float32).tiny] = 0
        worst = max(worst, Worst(float(errors.max()), float(x[errors.argmax()])))
        advance(x.size)
    return worst


def count_float32(stride: int) -> int:
    """How many values `worst_float32` looks at, but for a few."""
    return 2 * len(range(_FIRST, _BEYOND, stride))


def worst_float64(backend: ModuleType, activation: str) -> Worst | None:
    """The largest error over a sample of float64, against mpmath; None where that is not installed.

    Results below the smallest normal number are left out.

    Examples
    --------
    >>> worst = worst_float64(backends.get("numpy"), "tanh")
    >>> worst is None or worst.ulp < 4
    True
    """
    if importlib.util.find_spec("mpmath") is None:
        return None
    import mpmath
    from mpmath import exp, log1p, tanh

    functions = {
        "tanh": tanh,
        "sigmoid": lambda x: 1 / (1 + exp(-x)),
        "softplus": lambda x: log1p(exp(x)),
        "retanh": lambda x: max(tanh(x), 0),
        "power": lambda x: max(mpmath.mpf(x), 0) ** 2,
    }
    rng = np.random.default_rng(0)
    magnitudes = np.geomspace(1e-300, 700, 1024)
    values = np.concatenate([magnitudes, -magnitudes, *(rng.uniform(-bound, bound, 1024) for bound in (0.1, 1, 20))])
    worst = Worst(0.0, 0.0)
    with mpmath.workprec(200):
        for x, y in zip(values.tolist(), activate(backend, values, activation).tolist(), strict=True):
            exact = functions[activation](x)
            if abs(exact) >= np.finfo(np.float64).tiny:
                worst = max(worst, Worst(float(abs(y - exact) / np.spacing(abs(float(exact)))), x))
    return worst


def deviations(work: Workload, name: str, n_threads: int) -> dict[str, float]:
    """The largest error of each result of a backend, relative to the largest entry of the exact array.

    Examples
    --------
    >>> from elman.benchmark.workloads import Shape
    >>> found = deviations(Workload(Shape(7, 5, 3, 11)), "numpy", 1)
    >>> sorted(found)
    ['bias_l0', 'h_n', 'weight_hh_l0', 'weight_ih_l0', 'y']
    >>> max(found.values()) < 1e-5
    True
    """
    case = Case.of(work)
    program = own.backend(name).prepare(case, n_threads)
    return Truth(case).deviations(program.results(program.run()))


def instruction_sets(name: str) -> Iterator[str]:
    """Switch the compiled backends to each instruction set of this machine in turn; in the end, back."""
    if name == "numpy" or "cython" not in backends.available():
        yield "NumPy's own" if name == "numpy" else backends.get(name).instruction_set()
        return
    native = backends.get("cython")
    before = native.instruction_set()
    try:
        for instruction_set in native.instruction_sets():
            native.use_instruction_set(instruction_set)
            yield instruction_set
    finally:
        native.use_instruction_set(before)


def _floats(stride: int) -> Iterator[Real]:
    """Every stride-th finite normal float32 of each sign, in pieces of a size that `activate` takes."""
    for sign in (0, 1 << 31):
        for start in range(_FIRST, _BEYOND, _CHUNK * stride):
            bits = np.arange(start, min(start + _CHUNK * stride, _BEYOND), stride, dtype=np.uint32) | np.uint32(sign)
            bits = np.pad(bits, (0, -bits.size % _WIDTH), mode="edge")
            yield bits.view(np.float32)
