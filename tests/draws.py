"""What the fuzzer (fuzz.py) draws: sizes, numbers, the ways in which arrays lie in memory, and what can be wrong."""

import contextlib
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)  # odd, and at and around the widths of vectors
GUARD, POISON = 64, 0x7F  # bytes around each array: huge as a real, as a token and as a length
OTHER = {"f4": "f8", "f8": "f4", "i8": "i4"}  # dtypes that are converted
NUMBERS = (0, -1, 1.5, math.nan, math.inf, -math.inf, "3", None, True, 2**31, 2**63, 2**64, -(2**63), 1e308, 1e-310)
SMALL = (0, -1, 1.5, math.nan, "3", None, True, 2**63, 2**64)  # where a large number that is legal means much memory
BOUNDED = {"hidden_size", "input_size", "n", ""}  # arguments for which it does; those without a name, too
ENDLESS = {"epochs", "length", "max_length", "max_iterations", "num_layers"}  # where it means much time
STRANGE = (None, "text", object(), [], {}, (), math.nan, np.array(None), np.zeros((0,)), [[1.0], [1.0, 2.0]], 1 + 2j)
WAYS = ("gaps", "reversed", "fortran", "swapped", "unaligned", "strange strides")  # to lie in memory
READ_ONLY = (
    "rows",
    "record",
    "field",
    "other bytes",
    "other width",
    "subclass",
    "broadcast",
    "read-only",
    "file",
    "list",
)


def content_of(memory: np.ndarray, view: np.ndarray | None) -> np.ndarray:
    """What memory holds, but for a view that calls may write to."""
    if view is None:
        return memory.copy()
    now = view.copy()
    view[...] = 0
    content = memory.copy()
    view[...] = now
    return content


class Odd(np.ndarray):
    """A subclass."""


class Draw:
    """All that is random about a case, and what has to be known to judge its results."""

    def __init__(self, seed: int, number: int, directory: Path) -> None:
        self.rng, self.directory = np.random.default_rng([seed, number]), directory
        self.is_wild = self.is_huge = False  # whether NaN, infinity or huge numbers went in; whether these last ones
        self.slack = 0.0  # how far numbers may be apart in the end, besides roundings
        self.looseness = 1.0  # what bounds of roundings are multiplied by
        self.least: tuple[float, ...] = (1e-40, 1e-310)  # which kernels flush to zero
        self.is_tiny = False  # whether such numbers went in: times infinity they are infinite, or NaN
        self.kept: list[tuple[Any, Any, Any]] = []  # memory that calls must not change, what it holds, but for a view
        self.n_files = 0
        self.dtype = self.pick("f4", "f8")

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def size(self, most: int = 65) -> int:
        """1 often, then rather small than large."""
        sizes = [n for n in SIZES if n <= most]
        return 1 if self.chance(0.3) else sizes[int(len(sizes) * self.rng.random() ** 1.5)]

    def sizes(self) -> tuple[int, int, int, int]:
        """T, B, I and H, so that a call takes milliseconds; seldom, as much as several threads share."""
        T, B, I, H = self.size(), self.size(), self.size(), self.size()  # noqa: E741 - the contract's names
        T = self.pick(129, 130) if self.chance(0.05) else T
        if self.chance(0.04):  # columns that threads share, in teams
            B, H, T = self.pick(1, 2, 3), self.pick(129, 257), self.pick(17, 65)
        most = 5e7 if self.chance(0.05) or H > 65 else 2e6
        while most < T * B * H * (I + H):
            T, B, I = -(-T // 2), -(-B // 2), -(-I // 2)  # noqa: E741
        return T, B, I, H

    def real(self, *shape: int) -> np.ndarray:
        values = self.rng.standard_normal(shape).astype(self.dtype)
        some = self.rng.random(shape) < 0.3
        if self.chance(0.1):
            values[some] = number = self.pick(0.0, -0.0, *self.least)
            self.is_tiny |= number > 0
        elif self.chance(0.03) and some.any():
            self.put(values, some, math.nan, math.inf, -math.inf, np.finfo(self.dtype).max, 1e30)
        return values

    def put(self, values: np.ndarray, where: Any, *wild: float) -> None:
        with np.errstate(all="ignore"):
            values[where] = number = self.pick(*wild)
        self.is_wild = True
        self.is_huge |= math.isfinite(number)

    def integers(self, n: int, *shape: int, least: int = 0) -> np.ndarray:
        return self.rng.integers(least, n, shape)

    def lengths(self, n_steps: int, n_rows: int, least: int = 0) -> Any:
        if self.chance(0.5):
            return None
        return self.lay(self.pick(self.integers(n_steps + 1, n_rows, least=least), np.full(n_rows, n_steps)))

    # How arrays lie in memory

    def lay(self, values: Any, *, updatable: bool = False) -> Any:
        """The values as an array that lies in guarded memory in some way."""
        values = np.asarray(values)
        way = "plain" if self.chance(0.4) else self.pick(*WAYS, *(() if updatable else READ_ONLY))
        if way == "list" and values.size < 500:
            return values.tolist()
        if way == "file" and values.size:
            return self._in_a_file(values)
        if way == "broadcast" and values.ndim:
            axis = self.rng.integers(values.ndim)
            few = self._placed("plain", values.take([0], axis) if values.shape[axis] else values)
            return np.broadcast_to(few, values.shape)
        array = self._placed(way, values)
        if updatable:
            self.kept[-1] = (self.kept[-1][0], None, array)
            self.keep(-1)
        if way == "read-only":
            array.flags.writeable = False
        return array

    def _placed(self, way: str, values: np.ndarray) -> np.ndarray:
        shape, dtype, array = values.shape, values.dtype, None
        match way:
            case "gaps":
                wide = self._block([2 * n + 1 for n in shape], dtype)
                array = wide[tuple(slice(1, 2 * n + 1, 2) for n in shape)]
            case "rows" if shape:
                wide = self._block([*(2 * n + 1 for n in shape[:-1]), shape[-1] + 3], dtype)
                array = wide[(*(slice(1, 2 * n + 1, 2) for n in shape[:-1]), slice(shape[-1]))]
            case "reversed":
                array = self._block(shape, dtype)[(slice(None, None, -1),) * len(shape)]
            case "fortran":
                array = self._block(shape[::-1], dtype).T
            case "swapped" if len(shape) > 1:
                array = self._block((shape[1], shape[0], *shape[2:]), dtype).swapaxes(0, 1)
            case "unaligned":
                array = self._block(shape, dtype, start=1)
            case "record":
                array = self._block(shape, [("before", "u1"), ("value", dtype)])["value"]
            case "field" if shape and shape[-1]:
                array = self._block(shape[:-1], [("value", dtype, shape[-1:]), ("behind", dtype)])["value"]
            case "bytes":
                array = self._block(shape, dtype.newbyteorder())
            case "width":
                array = self._block(shape, OTHER.get(dtype.str[1:], dtype))
            case "subclass":
                array = self._block(shape, dtype).view(self.pick(Odd, np.ma.MaskedArray))
            case "strange strides":
                array = self._block(shape, dtype)
                strides = [
                    self.pick(0, -1, 3, 2**40) if n == 1 else s for n, s in zip(shape, array.strides, strict=True)
                ]
                array = np.lib.stride_tricks.as_strided(array, shape, strides)
        array = self._block(shape, dtype) if array is None else array
        with np.errstate(all="ignore"):
            array[...] = values
        self.keep(-1)
        return array

    def _block(self, shape: Any, dtype: Any, start: int = 0) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * GUARD, POISON, np.uint8)
        self.kept.append((memory, None, None))
        return memory[GUARD + start :][:size].view(dtype).reshape(shape)

    def keep(self, first: int = 0) -> None:
        """From here on memory is to hold what it holds now: the blocks from number `first` on."""
        self.kept[first:] = [(memory, content_of(memory, view), view) for memory, _, view in self.kept[first:]]

    def _in_a_file(self, values: np.ndarray) -> np.ndarray:
        start, path = self.pick(0, 1, 8), self.file()
        path.write_bytes(bytes(start) + values.tobytes())
        return np.memmap(path, values.dtype, self.pick("r", "c"), start, values.shape)

    def file(self) -> Path:
        self.n_files += 1
        return self.directory / f"{self.n_files}.bin"

    def mapped(self, array: np.ndarray) -> np.ndarray:
        """In a file that is mapped to memory."""
        if not array.size:
            return array
        path = self.file()
        with path.open("wb") as file:
            np.save(file, array)
        return np.load(path, mmap_mode=self.pick("r", "c"))

    def change(self, array: Any, *values: Any) -> None:
        """Overwrite an array, if that is possible."""
        if isinstance(array, np.ndarray) and array.flags.writeable:
            with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
                array[...] = self.pick(*values)
            self.keep()

    # What is wrong

    def spoil(self, value: Any, name: str) -> Any:
        """Something in its place that is wrong, or at least strange."""
        if self.chance(0.1):
            self.is_wild = self.is_huge = True
            return self.pick(*(() if name == "seed" else STRANGE), "strange")
        match value:
            case np.ndarray():
                return self._spoil_array(value)
            case bool():
                return self.pick(0, 1, "yes", None, np.bool_(not value))
            case int() | float():
                return self._spoil_number(name)
            case str():
                return self.pick("", "tan", value.upper(), 3, b"x", "1e9GB", "0B", "9" * 400 + "MB")
            case dict() if value:
                key = self.pick(*value)
                rest = {k: v for k, v in value.items() if k != key}
                return rest if self.chance(0.3) else {**rest, self.pick(key, "other"): self.spoil(value[key], name)}
            case list() | tuple() if value:
                i = int(self.rng.integers(len(value)))
                items = [*value[:i], *([] if self.chance(0.3) else [self.spoil(value[i], name)]), *value[i + 1 :]]
                return type(value)(items) if type(value) in (list, tuple) else items
        return self.pick(*STRANGE)

    def _spoil_number(self, name: str) -> Any:
        numbers = SMALL if name in BOUNDED else NUMBERS
        number = self.pick(*(n for n in numbers if name not in ENDLESS or not isinstance(n, int) or n < 2))
        if name == "seed" and number is None:
            return 2**64  # None is another one each time
        self.is_wild = self.is_huge = True  # a learning rate, say
        return number

    def _spoil_array(self, value: np.ndarray) -> Any:
        axis = int(self.rng.integers(value.ndim)) if value.ndim else None
        way = self.pick("less", "more", "axis", "no axis", "dtype", "value", "value", "empty")
        if way == "dtype":
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                return np.asarray(value).astype(
                    self.pick("f2", "g", "c8", "?", "O", "U8", "i1", "i8", "u8", "f8", "f4")
                )
        if way == "axis" or axis is None:
            return value[..., None] if self.chance(0.5) else value[None]
        if way == "no axis":
            return value.take(0, axis) if value.shape[axis] else value[0:0]
        if way == "value":
            return self._with_wrong_value(np.array(value))
        n = {"less": value.shape[axis] - 1, "more": value.shape[axis] + 1, "empty": 0}[way]
        return value.take(range(max(n, 0)), axis, mode="clip") if value.size else value

    def _with_wrong_value(self, array: np.ndarray) -> np.ndarray:
        """One place with a value that it should not have."""
        if not array.size:
            return array
        place = tuple(int(self.rng.integers(n)) for n in array.shape)
        if array.dtype.kind == "f":
            self.put(array, place, math.nan, math.inf, -math.inf, 1e30, 1e300)
            return array
        most = int(array.max()) if array.dtype.kind in "iu" else 0
        with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
            array[place] = self.pick(-1, -2, most + 1, 127, 2**31, 2**40, 2**63 - 1)
        return array
