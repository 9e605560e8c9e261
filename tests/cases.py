"""Problems for the kernel contract: arrays of every shape, dtype and layout, laid out so that mistakes show.

Whatever a kernel must not read (rows beyond their length, gaps between strides) holds poison: NaN with a bit pattern of
its own, or a token far outside any table. Whatever it writes starts as poison inside a larger poisoned buffer, and the
methods that run a kernel check afterwards that the surroundings still are.
"""

import dataclasses
import itertools
import random
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

import numpy as np

from elman.backends import contract
from elman.backends.contract import Gradients, Layer

POISON = {
    np.dtype("float32"): np.uint32(0x7FC0_0BAD).view(np.float32),
    np.dtype("float64"): np.uint64(0x7FF8_0000_0000_0BAD).view(np.float64),
    np.dtype("int64"): np.int64(1 << 40),
}
GUARD = 7  # elements around each buffer: odd, so that no array starts on a vector's boundary
LAYOUTS = ("time_major", "batch_major", "gaps", "flipped")


def bits(array: np.ndarray) -> np.ndarray:
    """The array's elements as integers, for comparisons to the last bit (and of NaN)."""
    array = np.ascontiguousarray(array)
    return array.view(f"i{array.itemsize}")


def poison(shape: tuple[int, ...], dtype: Any, layout: str = "time_major") -> np.ndarray:
    """Poison of this shape within a larger buffer, its (T, B) leading axes in one of the LAYOUTS."""

    def block(*shape: int) -> np.ndarray:
        buffer = np.full(np.prod(shape, dtype=int) + 2 * GUARD, POISON[np.dtype(dtype)])
        return buffer[GUARD:-GUARD].reshape(shape)

    match layout:
        case "time_major":
            return block(*shape)
        case "batch_major":
            return block(shape[1], shape[0], *shape[2:]).swapaxes(0, 1)
        case "gaps":
            wider = block(2 * shape[0], 3 * shape[1], *(n + 3 for n in shape[2:]))
            return wider[1::2, ::3, ..., *map(slice, shape[2:])]
        case "flipped":
            return block(*shape)[::-1, ::-1]
    raise ValueError(layout)


def place(values: np.ndarray, layout: str = "time_major", *, writeable: bool = False) -> np.ndarray:
    """A copy of values that lies in memory as `poison` does."""
    array = poison(values.shape, values.dtype, layout)
    array[...] = values
    array.flags.writeable = writeable
    return array


def active_steps(lengths: np.ndarray | None, n_steps: int, n_rows: int) -> np.ndarray:
    """Which (t, b) are within a row's length."""
    return np.arange(n_steps)[:, None] < np.broadcast_to(n_steps if lengths is None else lengths, n_rows)


def check_untouched(array: np.ndarray, lengths: np.ndarray | None = None) -> None:
    """An output that came from `poison`: still poison outside the view and, given lengths, beyond them."""
    pattern = bits(POISON[array.dtype][None])
    written = np.count_nonzero(bits(array) != pattern)
    assert np.count_nonzero(bits(array.base) != pattern) == written, "wrote out of bounds"
    if lengths is not None:
        beyond = ~active_steps(lengths, *array.shape[:2])
        assert (bits(array[beyond]) == pattern).all(), "wrote beyond a row's length"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What `forward` and `backward` take, in the contract's shapes, and how to run them."""

    x: np.ndarray
    h_0: np.ndarray
    weight_ih: np.ndarray
    weight_hh: np.ndarray
    bias: np.ndarray | None
    d_y: np.ndarray | None
    d_h_n: np.ndarray | None
    sums: dict[str, np.ndarray]  # what the parameters' gradients hold before `backward` adds to them
    lengths: np.ndarray | None = None
    mask: np.ndarray | None = None
    activation: str = "tanh"
    reverse: bool = False
    layout: str = "time_major"
    input_grad: bool = True
    drawing: dict[str, Any] = dataclasses.field(default_factory=dict)  # the layer's fields for dropout, if there is any

    @property
    def dtype(self) -> np.dtype:
        return self.h_0.dtype

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("activation", "lengths", "mask", "reverse")}

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def map(self, function: Any, *names: str) -> Self:
        """A copy with these arrays (those that are not None) passed through the function."""
        present = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return self.replace(**{name: function(array) for name, array in present.items()})

    def astype(self, dtype: Any) -> Self:
        reals = ("h_0", "weight_ih", "weight_hh", "bias", "d_y", "d_h_n", "mask", *(() if self.x.ndim == 2 else ("x",)))
        cast = self.map(lambda array: array.astype(dtype), *reals)
        return cast.replace(sums={name: array.astype(dtype) for name, array in self.sums.items()})

    def rows(self, which: slice) -> Self:
        """The same problem for a part of the batch."""
        some = self.map(lambda array: array[:, which], "x", "d_y")
        return some.map(lambda array: array[:, which].copy(), "h_0", "d_h_n", "mask").map(
            lambda array: array[which], "lengths"
        )

    def times(self, start: int, stop: int) -> Self:
        """The same problem for a range of time steps."""
        part = self.map(lambda array: array[start:stop], "x", "d_y")
        if self.drawing:
            part = part.replace(drawing=self.drawing | {"first_step": self.drawing.get("first_step", 0) + start})
        return part.map(lambda array: np.clip(array - start, 0, stop - start), "lengths")

    def layer(self, y: np.ndarray, h_n: np.ndarray | None = None, dropped: np.ndarray | None = None) -> Layer:
        options = self.options | self.drawing | {"dropped": dropped}
        return Layer(self.x, self.h_0, self.weight_ih, self.weight_hh, self.bias, y, h_n, **options)

    def forward(self, backend: ModuleType) -> dict[str, np.ndarray]:
        n_directions, n_rows, n_units = self.h_0.shape
        y = poison((len(self.x), n_rows, n_directions * n_units), self.dtype, self.layout)
        h_n = poison(self.h_0.shape, self.dtype)
        out = {"y": y, "h_n": h_n}
        if self.drawing:
            out["dropped"] = poison(y.shape, self.dtype, self.layout)
        backend.forward(self.layer(**out))
        for name, array in out.items():
            check_untouched(array, None if name == "h_n" else self.lengths)
        return out

    def backward(self, backend: ModuleType, y: np.ndarray) -> dict[str, np.ndarray]:
        out = {"delta": poison(y.shape, self.dtype, self.layout)}
        out |= {name: place(array, writeable=True) for name, array in self.sums.items()}
        out["d_h_0"] = poison(self.h_0.shape, self.dtype)
        if self.input_grad and self.x.ndim == 3:
            out["d_x"] = poison(self.x.shape, self.dtype, self.layout)
        outputs = [out.get(name) for name in ("delta", "d_weight_ih", "d_weight_hh", "d_bias", "d_h_0", "d_x")]
        left = {"dropped": place(self.forward(backend)["dropped"], self.layout)} if self.drawing else {}
        backend.backward(self.layer(y, **left), Gradients(self.d_y, self.d_h_n, *outputs))
        for name, array in out.items():
            check_untouched(array, self.lengths if name in ("delta", "d_x") else None)
        return out


def _lengths(kind: str, n_steps: int, n_rows: int, rng: np.random.Generator) -> np.ndarray | None:
    """ "none", "full" (all T), "ragged" (unequal, at least one 0 and one T where B > 1) or "zero" (all 0)."""
    some = rng.integers(0, n_steps + 1, n_rows)
    some[:2] = (0, n_steps) if n_rows > 1 else (n_steps + 1) // 2
    kinds = {"none": None, "full": np.full(n_rows, n_steps), "ragged": rng.permutation(some), "zero": 0 * some}
    return kinds[kind]


def make(
    *,
    T: int = 5,
    B: int = 3,
    I: int = 4,  # noqa: E741 - the contract's name
    H: int = 6,
    D: int = 1,
    dtype: Any = "float64",
    activation: str = "tanh",
    lengths: str = "none",
    tokens: bool = False,
    mask: bool = False,
    bias: bool = True,
    reverse: bool = False,
    layout: str = "time_major",
    d_y: bool = True,
    d_h_n: bool = True,
    input_grad: bool = True,
    seed: int = 0,
) -> Problem:
    """A random problem, its inputs read-only; lengths as for `_lengths`."""
    rng = np.random.default_rng([seed, T, B, I, H, D])

    def real(*shape: int, scale: float = 1) -> np.ndarray:
        return place((scale * rng.standard_normal(shape)).astype(dtype))

    n = _lengths(lengths, T, B, rng)
    gain = 0.5 if activation == "power" else 1  # or states explode

    def over_time(values: np.ndarray) -> np.ndarray:
        values[~active_steps(n, T, B)] = POISON[values.dtype]
        return place(values, layout)

    x = rng.integers(0, I, (T, B)) if tokens else rng.standard_normal((T, B, I)).astype(dtype)
    return Problem(
        x=over_time(x),
        h_0=place(rng.uniform(-0.9, 0.9, (D, B, H)).astype(dtype)),
        weight_ih=real(D, I, H, scale=gain * I**-0.5),
        weight_hh=real(D, H, H, scale=0.5 * H**-0.5),  # spectral norm about 1, and nothing symmetric about it
        bias=real(D, H, scale=0.5 * gain) if bias else None,
        d_y=over_time(rng.standard_normal((T, B, D * H)).astype(dtype)) if d_y else None,
        d_h_n=real(D, B, H) if d_h_n else None,
        sums={
            "d_weight_ih": real(D, I, H),
            "d_weight_hh": real(D, H, H),
            **({"d_bias": real(D, H)} if bias else {}),
        },
        lengths=None if n is None else place(n),
        mask=place((rng.integers(0, 2, (D, B, H)) * 1.5).astype(dtype)) if mask else None,
        activation=activation,
        reverse=reverse,
        layout=layout,
        input_grad=input_grad,
    )


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What `readout` and `readout_loss` take, and how to run them."""

    h: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    target: np.ndarray
    sums: dict[str, np.ndarray]
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None
    loss: str = "squared_error"
    scale: float = 0.125
    layout: str = "time_major"

    @property
    def dtype(self) -> np.dtype:
        return self.weight.dtype

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def astype(self, dtype: Any) -> Self:
        def cast(array: Any) -> Any:
            return array.astype(dtype) if isinstance(array, np.ndarray) and array.dtype.kind == "f" else array

        arrays = {name: cast(value) for name, value in vars(self).items()}
        return self.replace(**arrays | {"sums": {name: cast(value) for name, value in self.sums.items()}})

    def rows(self, which: slice) -> Self:
        lengths = None if self.lengths is None else self.lengths[which]
        weights = None if self.weights is None else self.weights[:, which]
        return self.replace(h=self.h[:, which], target=self.target[:, which], lengths=lengths, weights=weights)

    def outputs(self, backend: ModuleType) -> np.ndarray:
        o = poison((*self.h.shape[:2], self.weight.shape[1]), self.dtype, self.layout)
        backend.readout(contract.Readout(self.h, self.weight, self.bias, o))
        check_untouched(o)
        return o

    def run(self, backend: ModuleType) -> dict[str, np.ndarray]:
        """The loss and, after the contract's names, its gradients."""
        out = {
            "o": poison((*self.h.shape[:2], self.weight.shape[1]), self.dtype, self.layout),
            "d_h": poison(self.h.shape, self.dtype, self.layout),
        }
        out |= {name: place(array, writeable=True) for name, array in self.sums.items()}
        total = self._run(backend, **out)
        for name, array in out.items():
            check_untouched(array, self.lengths if name in ("o", "d_h") else None)
        return {"total": np.array(total), **out}

    def loss_only(self, backend: ModuleType) -> float:
        scratch = poison((*self.h.shape[:2], self.weight.shape[1]), self.dtype, self.layout)
        total = self._run(backend, o=scratch)
        check_untouched(scratch)
        return total

    def given(self) -> dict[str, Any]:
        names = ("h", "weight", "bias", "target", "loss", "scale", "lengths", "weights")
        return {name: getattr(self, name) for name in names}

    def _run(self, backend: ModuleType, **outputs: np.ndarray) -> float:
        total = backend.readout_loss(contract.Readout(**self.given(), **outputs))
        assert type(total) is float
        return total


def make_readout(
    *,
    T: int = 4,
    B: int = 3,
    K: int = 5,
    O: int = 6,  # noqa: E741 - the contract's name
    dtype: Any = "float64",
    loss: str = "squared_error",
    lengths: str = "none",
    bias: bool = True,
    weights: str = "none",
    layout: str = "time_major",
    seed: int = 0,
) -> Readout:
    """A random problem as by `make`; a fifth of the tokens of "cross_entropy" are missing.

    weights are "none", "steps" (for each step, a third of them 0, with a target that must not be seen) or "rows".
    """
    rng = np.random.default_rng([seed, T, B, K, O])

    def real(*shape: int, scale: float = 1) -> np.ndarray:
        return place((scale * rng.standard_normal(shape)).astype(dtype))

    n = _lengths(lengths, T, B, rng)

    def over_time(values: np.ndarray) -> np.ndarray:
        values[~active_steps(n, T, B)] = POISON[values.dtype]
        return place(values, layout)

    match loss:
        case "cross_entropy":
            target = np.where(rng.random((T, B)) < 0.2, rng.integers(-3, 0, (T, B)), rng.integers(0, O, (T, B)))
        case "binary_cross_entropy":
            target = rng.random((T, B, O)).round(1).astype(dtype)  # with a few 0 and 1 among them
        case _:
            target = rng.standard_normal((T, B, O)).astype(dtype)
    w = rng.uniform(0.5, 2, (T, B)).astype(dtype)
    if weights == "steps":
        w[rng.random((T, B)) < 0.3] = 0
        target[w == 0] = POISON[target.dtype]
        w = over_time(w)
    elif weights == "rows":
        w = np.broadcast_to(w[0], (T, B))
    return Readout(
        h=over_time(rng.uniform(-1, 1, (T, B, K)).astype(dtype)),
        weight=real(K, O, scale=2 * K**-0.5),
        bias=real(O) if bias else None,
        target=over_time(target),
        sums={"d_weight": real(K, O), **({"d_bias": real(O)} if bias else {})},
        lengths=None if n is None else place(n),
        weights=None if weights == "none" else w,
        loss=loss,
        layout=layout,
    )


def pairwise(factors: dict[str, tuple]) -> list[dict[str, Any]]:
    """A few choices of one value per factor, such that any two values of two factors meet at least once (greedy)."""
    everything = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    candidates = random.Random(0).sample(everything, min(600, len(everything)))
    named = [[f"{key}={value}" for key, value in choice.items()] for choice in candidates]
    pairs = [set(itertools.combinations(names, 2)) for names in named]
    missing, chosen = set().union(*pairs), []
    while missing:
        best = max(range(len(candidates)), key=lambda i: len(pairs[i] & missing))
        chosen.append(candidates[best])
        missing -= pairs[best]
    return chosen


# T, B, I, H (or T, B, K, O): single steps, rows and units; off, at and just past the widths of vectors and blocks
SIZES = (
    (1, 1, 1, 1), (1, 5, 3, 17), (4, 1, 17, 65), (7, 2, 1, 2), (6, 3, 3, 15), (5, 4, 17, 16), (8, 5, 1, 17),
    (3, 6, 65, 30), (6, 7, 17, 33), (5, 8, 3, 64), (4, 9, 65, 65), (3, 13, 17, 100), (2, 33, 3, 130), (9, 13, 1, 1),
    (2, 1, 65, 130), (40, 2, 3, 16), (11, 33, 17, 15), (3, 3, 1, 100), (150, 1, 3, 33), (33, 33, 3, 2),
    (2, 100, 17, 5), (3, 2, 5, 257), (2, 7, 130, 9),
)  # fmt: skip

_OPTIONS = pairwise(
    {
        "activation": ("tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"),
        "lengths": ("none", "full", "ragged"),
        "layout": LAYOUTS,
        "direction": ({}, {"reverse": True}, {"D": 2}),
        "input": ({}, {"input_grad": False}, {"tokens": True}),
        "mask": (False, True),
        "bias": (True, False),
        "gradients": ({}, {"d_y": False}, {"d_h_n": False}),
    }
)

_READOUT_OPTIONS = pairwise(
    {
        "loss": ("cross_entropy", "binary_cross_entropy", "squared_error"),
        "lengths": ("none", "full", "ragged"),
        "layout": LAYOUTS,
        "bias": (True, False),
        "weights": ("none", "steps", "rows"),
    }
)


def _combine(keys: str, options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All options three times, each time with other sizes."""
    cases = []
    for i, choice in enumerate(3 * options):
        case = dict(zip(keys, SIZES[(i + i // len(options)) % len(SIZES)], strict=True))
        for key, value in choice.items():
            case |= value if isinstance(value, dict) else {key: value}
        cases.append(case)
    return cases


CASES = [
    *_combine("TBIH", _OPTIONS),
    {"T": 3, "B": 100, "I": 17, "H": 33, "D": 2, "lengths": "ragged"},
    {"T": 4, "B": 2, "I": 100, "H": 257, "mask": True},
    {"T": 3, "B": 47, "I": 3, "H": 509},  # two runs of terms; panels enough for strips (csrc/rows.h)
    {"lengths": "zero", "D": 2},
]
READOUT_CASES = [*_combine("TBKO", _READOUT_OPTIONS), {"lengths": "zero", "loss": "cross_entropy"}]


def name(case: dict[str, Any]) -> str:
    """A test id: sizes, choices, and the flags that are set or missing."""
    sizes = "x".join(str(case[key]) for key in "TBIHKO" if key in case)
    choices = [value for value in case.values() if isinstance(value, str)]
    flags = [key for key in ("tokens", "mask", "reverse") if case.get(key)]
    missing = [f"no_{key}" for key in ("bias", "d_y", "d_h_n", "input_grad") if not case.get(key, True)]
    return "-".join([sizes, *(["D2"] if "D" in case else []), *choices, *flags, *missing])
