"""The only module that raises about user input.

Every function takes a value and the name of its argument and returns the value as the rest of the package wants it, or
raises: a TypeError where the kind of value is wrong, a ValueError where the kind is right and the value is not. The
message names the argument and says what was expected and what came.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import pickle
import re
import reprlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from elman.interrupts import postponed
from elman.typing import Int, Real

Shape = tuple[int | str, ...]  # a string names an axis of any length

T = TypeVar("T")

_SETTINGS = reprlib.Repr()  # in messages about what differs: most lists are shown whole
_SETTINGS.maxlist, _SETTINGS.maxlevel = 50, 3

_FLOAT64 = np.dtype(np.float64)
_INT64 = np.dtype(np.int64)
_INT64_MAX = 2**63 - 1  # of every int: what a float holds without overflow, and what int64 holds
_SIZE_MAX = 2**31 - 1  # of an axis
MOST_LAYERS = 2**16 - 1  # each of them is some Python objects
_BYTES_MAX = 2**63 - 1  # of an array, for NumPy
MOST_THREADS = 1024  # of the pool in C


def refuse(message: str) -> NoReturn:
    """For what no single value is to blame for: a call that makes no sense as a whole."""
    raise ValueError(message)


def fixed(name: str, owner: str) -> NoReturn:
    raise AttributeError(f"{name} of {owner} is fixed once it is made: make another {owner}")


def choice(value: Any, name: str, names: Iterable[str]) -> str:
    names = tuple(names)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {_listed(names)}, got {_shown(value)}")
    if value not in names:
        raise ValueError(f"{name} must be one of {_listed(names)}, got {_shown(value)}")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {_shown(value)}")
    return bool(value)


def positive_int(value: Any, name: str, most: int = _INT64_MAX) -> int:
    return _int(value, name, "a positive int", 1, most)


def size(value: Any, name: str) -> int:
    """The length of an axis."""
    return positive_int(value, name, _SIZE_MAX)


def number_of_layers(value: Any, name: str) -> int:
    return positive_int(value, name, MOST_LAYERS)


def number_of_threads(value: Any, name: str) -> int:
    expected = f"an int from 1 to {MOST_THREADS}"
    if not _is_int(value):
        raise TypeError(f"{name} must be {expected}, got {_shown(value)}")
    if not 1 <= value <= MOST_THREADS:
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}")
    return int(value)


def number_of_threads_in_text(text: str, name: str) -> int:
    number = int_in_text(text)
    if number is None or not 1 <= number <= MOST_THREADS:
        raise ValueError(f"{name} must be an int from 1 to {MOST_THREADS}, got {_shown(text)}")
    return number


def size_in_text(text: str, name: str) -> int:
    number = int_in_text(text)
    if number is None or not 1 <= number <= _SIZE_MAX:
        raise ValueError(f"{name} must be a positive int below 2**31, got {_shown(text)}")
    return number


def int_in_text(text: str) -> int | None:
    """The int that decimal digits stand for, spaces around them; None for anything else, also for 20 digits or more.

    `int` takes digits of any script and underscores, too, and raises where there are very many of them.
    """
    match = re.fullmatch(r"\s*0*([0-9]{1,19})\s*", text)
    return int(match[1]) if match else None


def addressable(n_bytes: int, **sizes: int) -> None:
    """Sizes whose product is more than memory can have addresses for; whether there is so much, NumPy says."""
    if n_bytes > _BYTES_MAX:
        shown = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{shown} must be smaller together: they stand for an array of {n_bytes} bytes")


def probability(value: Any, name: str) -> float:
    return _number(value, name, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def below_one(value: Any, name: str) -> float:
    return _number(value, name, "a number from 0 to 1, exclusive", lambda x: 0 <= x < 1)


def instance(value: Any, name: str, kind: type[T]) -> T:
    if not isinstance(value, kind):
        where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        raise TypeError(f"{name} must be an instance of {where}{kind.__name__}, got {_shown(value)}")
    return value


def kind(value: Any, name: str, kinds: tuple[type[Any], ...]) -> Any:
    """An instance of one of our classes."""
    if not isinstance(value, kinds):
        *most, last = (f"elman.{kind.__name__}" for kind in kinds)
        expected = f"{', '.join(most)} or {last}" if most else last
        raise TypeError(f"{name} must be {expected}, got {_shown(value)}")
    return value


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {_shown(value)}")
    return value


def function(value: Any, name: str) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {_shown(value)}")


def functions(value: Any, name: str, kind: type[Any]) -> list[Any]:
    """A list of functions, or of instances of the class."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of callbacks, got {_shown(value)}")
    items = list(value)
    for i, item in enumerate(items):
        if not isinstance(item, kind) and (isinstance(item, type) or not callable(item)):
            raise TypeError(f"{name}[{i}] must be an elman.Callback or a function, got {_shown(item)}")
    return items


def distinct(value: Any, name: str, kinds: tuple[type[Any], ...], n: int | None = None) -> list[Any]:
    """A list of instances, none of them twice: n of them, or at least one."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list, got {_shown(value)}")
    items = list(value)
    if not items if n is None else len(items) != n:
        raise ValueError(
            f"{name} must hold {'at least one' if n is None else f'one for each of the {n} models'}, got {len(items)}"
        )
    for i, item in enumerate(items):
        kind(item, f"{name}[{i}]", kinds)
        if any(item is other for other in items[:i]):
            raise ValueError(f"{name} must be distinct, got the same object at [{i}] as before")
    return items


def options(given: Iterable[str], names: Iterable[str], function: str) -> None:
    """Keyword arguments that are handed on."""
    names = set(names)
    for name in given:
        if name not in names:
            raise TypeError(f"{function} got an unexpected argument {name!r}; it takes {_listed(sorted(names))}")


def pickled(value: Any, name: str) -> bytes:
    """What goes to another process."""
    try:
        return pickle.dumps(value)
    except Exception as error:  # PicklingError, AttributeError, TypeError, or whatever a stranger's class raises
        raise TypeError(
            f"{name} must be picklable, as it goes to other processes (with workers=1 it need not be): {error}"
        ) from error


def storable(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    """What JSON and safetensors can hold."""
    expected = "numbers, strings, lists of them, and arrays of numbers by name"
    for key in [*values, *arrays]:
        if not isinstance(key, str) or not key.isprintable():
            raise TypeError(f"{name} must be a dict of {expected}, got {_shown(key)} as a name")
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.itemsize > 8:
            raise TypeError(f"{name} must be a dict of {expected}, got {_shown(array)} as {key!r}")
    try:
        json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name} must be a dict of {expected}: {error}") from error


def is_same(found: Any, expected: Any) -> bool:
    """In JSON, where 1, 1.0 and true are not."""
    try:
        return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
    except RecursionError:  # nothing of ours is nested so deeply
        return False


def same_run(found: Any, expected: Mapping[str, Any], path: str) -> None:
    """A run can only go on as what it was."""
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not say which run it is of, but {_shown(found)}")
    for name in [*expected, *found]:
        here, there = expected.get(name), found.get(name)
        if not is_same(here, there):
            raise ValueError(
                f"{path} is of another run: {_described(name)} is {_described(here)} here, it was {_described(there)} "
                "there. Go on with what was given there, or begin anew with another file."
            )


def same_config(found: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """A file's configuration must be that of the model made of it: no entry is missing, and none without effect."""
    same_names(found, made, "its configuration")
    for name, value in found.items():
        if not is_same(value, made[name]):
            raise ValueError(f"{name} of its configuration must be {_shown(made[name])}, got {_shown(value)}")


def enough_epochs(epochs: int, n_begun: int, path: str) -> None:
    if epochs < n_begun:
        raise ValueError(f"epochs must be at least {n_begun}, as the run in {path} has begun so many, got {epochs}")


def generator_state(found: Mapping[str, Any], given: Any, name: str) -> None:
    """The state of a generator that was given one."""
    if not is_same(found, given) or found["state"]["inc"] % 2 == 0 or found["has_uint32"] not in (0, 1):
        raise ValueError(f"{name} must be where {found['bit_generator']} can be, got {_shown(given)}")


def same_names(found: Iterable[str], expected: Iterable[str], name: str) -> None:
    found, expected = sorted(found), sorted(expected)
    if found != expected:
        raise ValueError(f"{name} must have the names {_shown(expected)}, got {_shown(found)}")


def memory(value: Any, name: str) -> int | float | None:
    """None; a positive int, of time steps; or a string such as "200MB", as a float of bytes."""
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9.]+) *([kMG]?)B", value)
        with contextlib.suppress(ValueError):
            if match:
                return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    elif _is_int(value):
        return positive_int(value, name)
    else:
        raise TypeError(f"{name} must be None, a number of steps or a string like '200MB', got {_shown(value)}")
    raise ValueError(f"{name} must be None, a number of steps or a string like '200MB', got {_shown(value)}")


def enough_memory(given: float, least: float) -> None:
    if given < least:
        raise ValueError(f"memory must be at least '{least / 1e6:.3g}MB' for this batch, got '{given / 1e6:.3g}MB'")


def row_indices(value: Any, name: str, n_rows: int) -> Any:
    """Indices from 0 to n_rows - 1, or bool (n_rows,)."""
    array = np.atleast_1d(_as_array(value, name))
    if array.dtype == bool:
        _check_shape(array.shape, name, ((n_rows,),))
        return array
    array = _as_int64(array, name)
    if array.size and not (array.min() >= 0 and array.max() < n_rows):
        raise ValueError(f"{name} must be from 0 to {n_rows - 1}, got {array.min()} to {array.max()}")
    return array


def at_least(value: Any, name: str, least: int, most: int = _INT64_MAX) -> int:
    return _int(value, name, f"an int of at least {least}", least, most)


def size_of_at_least(value: Any, name: str, least: int) -> int:
    return at_least(value, name, least, _SIZE_MAX)


def best_so_far(value: Any, name: str) -> None:
    """The largest of some numbers, which may be none."""
    if not isinstance(value, float) or not value < np.inf:
        raise ValueError(f"{name} must be a number, got {_shown(value)}")


def count(value: Any, name: str) -> int:
    """Of something that may go on: far from what an int64 can hold."""
    return at_least(value, name, 0, (1 << 53) - 1)


def non_negative_int(value: Any, name: str) -> int:
    return at_least(value, name, 0)


def non_negative(value: Any, name: str) -> float:
    return _number(value, name, "a finite number of at least 0", lambda x: 0 <= x < np.inf)


def finite_number(value: Any, name: str) -> float:
    return _number(value, name, "a finite number", lambda x: -np.inf < x < np.inf)


def positive(value: Any, name: str) -> float:
    return _number(value, name, "a number above 0", lambda x: x > 0)


def finite_positive(value: Any, name: str) -> float:
    return _number(value, name, "a finite number above 0", lambda x: 0 < x < np.inf)


def positive_probability(value: Any, name: str) -> float:
    return _number(value, name, "a number above 0, up to 1", lambda x: 0 < x <= 1)


def below(value: Any, name: str, n: int) -> int:
    if not _is_int(value):
        raise TypeError(f"{name} must be an int from 0 to {n - 1}, got {_shown(value)}")
    if not 0 <= value < n:
        raise ValueError(f"{name} must be an int from 0 to {n - 1}, got {_shown(value)}")
    return int(value)


def decay_rates(value: Any, name: str) -> tuple[float, float]:
    first, second = pair(value, name)
    expected = "a number from 0 to 1, exclusive"
    return (
        _number(first, f"{name}[0]", expected, lambda x: 0 <= x < 1),
        _number(second, f"{name}[1]", expected, lambda x: 0 <= x < 1),
    )


def pair(value: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a pair, got {_shown(value)}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair, got {len(value)} items")
    return value[0], value[1]


def pair_or_triple(value: Any, name: str) -> tuple[Any, Any, Any]:
    """The third is None if it is not given."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be (X, Y) or (X, Y, weights), got {_shown(value)}")
    if len(value) not in (2, 3):
        raise ValueError(f"{name} must be (X, Y) or (X, Y, weights), got {len(value)} items")
    return value[0], value[1], value[2] if len(value) == 3 else None


def path(value: Any, name: str) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be a str or a path, got {_shown(value)}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name} must be a path without NUL characters, got {_shown(value)}")
    return Path(value)


def text_mapping(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise TypeError(f"{name} must be a dict from str to str, got {_shown(value)}")
    return value


def runs_activations(backend: ModuleType, nonlinearity: Any) -> None:
    if not getattr(backend, "takes_activations", False):
        raise ValueError(
            f"nonlinearity {nonlinearity} cannot run on the backend 'cython', only on 'numba' and 'numpy': "
            "choose one by backend= or elman.use_backend()"
        )


def derivative_pair(f: Any, df: Any) -> None:
    """f(a) and df(y), y = f(a): checked as `elman.activation` says."""
    grid = [-8 + 16 * (i + 0.4142) / 400 for i in range(400)]  # off the places where kinks usually are
    outputs = _floats(f, "f", grid)
    slopes = _floats(df, "df", outputs)
    step = 1e-6
    upper, lower = _floats(f, "f", [a + step for a in grid]), _floats(f, "f", [a - step for a in grid])
    measured = [(b - a) / (2 * step) for a, b in zip(lower, upper, strict=True)]
    wrong = [i for i, (d, m) in enumerate(zip(slopes, measured, strict=True)) if abs(d - m) > 1e-4 * max(1, abs(m))]
    if len(wrong) > 4:
        i = wrong[0]
        raise ValueError(
            f"df must be the derivative of f as a function of y = f(a): for a = {grid[i]:.4g}, y = {outputs[i]:.6g} "
            f"it gives {slopes[i]:.6g}, where differences of f give {measured[i]:.6g}"
        )
    if importlib.util.find_spec("numba") is not None:
        _compiles(f, "f")
        _compiles(df, "df")


def _floats(function: Any, name: str, values: Sequence[float]) -> list[float]:
    """A user's function of each value: real and finite."""
    if not callable(function):
        raise TypeError(f"{name} must be a function of one float, got {_shown(function)}")
    results = []
    for x in values:
        try:
            y = function(x)
        except Exception as error:
            raise TypeError(f"{name} must be a function of one float, but {name}({x:.4g}) raised {error!r}") from error
        if not isinstance(y, (int, float, np.integer, np.floating)) or isinstance(y, bool):
            raise TypeError(f"{name} must return a float, got {_shown(y)} from {name}({x:.4g})")
        if not np.isfinite(y):
            raise ValueError(f"{name} must be finite from -8 to 8, got {y} from {name}({x:.4g})")
        results.append(float(y))
    return results


def _compiles(function: Any, name: str) -> None:
    with postponed():
        import numba

    try:
        compiled = numba.njit(function)
        with postponed():
            compiled.compile((numba.types.float64,))
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
        raise TypeError(f"{name} must be a function that Numba can compile: {reason}") from error


def real_dtype(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """One of NumPy's own two dtype objects, so that `array.dtype is dtype` holds for nearly every array."""
    if not isinstance(value, (str, type, np.dtype)):
        raise TypeError(f"{name} must be 'float32' or 'float64', got {_shown(value)}")
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        if value in (known.name, known.type) or (isinstance(value, np.dtype) and value == known):
            return known
    raise ValueError(f"{name} must be 'float32' or 'float64', got {_shown(value)}")


def generator(seed: Any, name: str = "seed") -> np.random.Generator:
    """None (fresh entropy), a non-negative int, or a Generator, which is used as it is."""
    if isinstance(seed, np.random.Generator):
        return seed
    if seed is not None and not _is_int(seed):
        raise TypeError(f"{name} must be None, an int or a numpy.random.Generator, got {_shown(seed)}")
    if seed is not None and seed < 0:
        raise ValueError(f"{name} must not be negative, got {_shown(seed)}")
    return np.random.default_rng(seed)


def real_array(
    value: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, contiguous: bool = False, allow_empty: bool = False
) -> Real:
    """An aligned array of `dtype` and of one of the `shapes`; the value itself where that is possible.

    Either real width is taken for the other; integers are not taken for reals. Without `contiguous`, only the last
    axis needs unit stride. Without `allow_empty`, no axis may be empty.
    """
    array = value if type(value) is np.ndarray else _as_array(value, name)
    if array.dtype is not dtype and (array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8)):
        raise TypeError(f"{name} must hold float32 or float64, got {array.dtype} of shape {array.shape}")
    _check_shape(array.shape, name, shapes, allow_empty=allow_empty)
    flags = array.flags
    fits = flags.c_contiguous if contiguous else array.strides[-1] == array.itemsize
    if fits and flags.aligned and array.dtype == dtype:  # never equal to a byte-swapped one
        return array
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        return np.array(array, dtype=dtype, order="C")


def state_array(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Real:
    with np.errstate(over="ignore"):
        array = real_array(value, name, dtype, shape)
    finite(array, name)
    return array


def real_sequences(value: Any, name: str, dtype: np.dtype[Any], *shapes: Shape) -> list[Real]:
    """One array for each of the shapes, whose first axes may be empty."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of {len(shapes)} arrays, got {_shown(value)}")
    if len(value) != len(shapes):
        raise ValueError(f"{name} must be a list of {len(shapes)} arrays, got {len(value)}")
    return [
        real_array(item, f"{name}[{i}]", dtype, shape, allow_empty=True)
        for i, (item, shape) in enumerate(zip(value, shapes, strict=True))
    ]


def is_list_of_arrays(value: Any) -> bool:
    """A list of sequences, as opposed to one array written as a list of (lists of) numbers."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and getattr(value[0], "ndim", 0) > 0


def tokens(value: Any, name: str, n_tokens: int, *shapes: Shape, row_lengths: Any = None) -> Int:
    """An aligned int64 array of one of the `shapes` with values from 0 to n_tokens - 1; any strides.

    In a (T, B) with `row_lengths`, as `lengths` takes them, what lies beyond may have any value.
    """
    given = value if type(value) is np.ndarray else _as_array(value, name)
    array = _as_int64(given, name)
    _check_shape(array.shape, name, shapes)
    if array.view(np.uint64).max() < n_tokens:  # read as unsigned, a negative one is too large as well: one pass
        return array
    wrong = array.view(np.uint64) >= n_tokens
    if row_lengths is not None:
        wrong &= active(len(array), lengths(row_lengths, array.shape[1], len(array)))
    for where in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{name} must hold tokens from 0 to {n_tokens - 1}, got {given[tuple(where)]} at {where}")
    return array


def lengths(value: Any, n_rows: int, n_steps: int) -> Int:
    """C-contiguous int64 (B,) with values from 0 to T: a copy, which nobody changes behind a pullback's back."""
    given = _as_array(value, "lengths")
    array = _as_int64(given, "lengths")
    _check_shape(array.shape, "lengths", ((n_rows,),))
    for b in np.flatnonzero((array < 0) | (array > n_steps))[:1]:
        raise ValueError(f"lengths must be from 0 to T = {n_steps}, got {given[b]} at [{b}]")
    return array.copy()


def n_steps(value: Any, name: str) -> int:
    """The T of an array (T, ...)."""
    array = _as_array(value, name)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} must have an axis of time that is not empty, got shape {array.shape}")
    return len(array)


def active(n_steps: int, lengths: Int) -> NDArray[np.bool_]:
    """Which of the steps (T, B) are within the rows' lengths."""
    mask: NDArray[np.bool_] = np.arange(n_steps)[:, None] < lengths
    return mask


def state(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Real]:
    """A state dict with exactly the keys of `shapes`, as fresh, finite float64 arrays of those shapes."""
    if not isinstance(value, Mapping):
        raise TypeError(f"state must be a dict from names to arrays, got {_shown(value)}")
    missing = [key for key in shapes if key not in value]
    unexpected = [key for key in value if key not in shapes]
    if missing or unexpected:
        raise ValueError(f"state must have the keys {list(shapes)}; missing {missing}, unexpected {unexpected}")
    arrays = {key: real_array(value[key], key, _FLOAT64, shape).copy() for key, shape in shapes.items()}
    for key, array in arrays.items():
        finite(array, key)
    return arrays


class Read(NamedTuple):
    """Which targets are looked at: those that count and, where they are fed back, all before them."""

    counts: Callable[[], NDArray[np.bool_]]  # within the lengths, of weight above 0; asked only about wrong targets
    is_fed_back: bool = False
    time_axis: int = 0

    @property
    def note(self) -> str:
        return " where it is fed back before a target that counts" if self.is_fed_back else ""

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """For targets of this shape, which may have another axis behind that of `counts`."""
        counts = self.counts()
        mask = _or_later(counts, self.time_axis) if self.is_fed_back else counts
        return mask.reshape(shape if mask.size == math.prod(shape) else (*shape[:-1], 1))


def _or_later(marks: NDArray[np.bool_], axis: int = 0) -> NDArray[np.bool_]:
    """Which steps are marked or have one that is after them."""
    return np.flip(np.logical_or.accumulate(np.flip(marks, axis), axis=axis), axis)


def categories(value: Any, name: str, n: int, shapes: Sequence[Shape], read: Read | None = None) -> Int:
    """An int64 array of one of the shapes, from -1 (no target) to n - 1; where it is not looked at, -1 for others."""
    given = value if type(value) is np.ndarray else _as_array(value, name)
    array = _as_int64(given, name)
    _check_shape(array.shape, name, shapes)
    if (array + 1).view(np.uint64).max() <= n:  # as in `tokens`
        return array
    wrong = (array < -1) | (array >= n)
    for where in _looked_at(wrong, read):
        raise ValueError(
            f"{name} must hold -1 (no target) or categories from 0 to {n - 1}{_note(read)}, "
            f"got {given[where]} at {list(where)}"
        )
    return np.where(wrong, -1, array)


def numbers(
    value: Any,
    name: str,
    dtype: np.dtype[Any],
    n: int,
    shapes: Sequence[Shape],
    read: Read | None = None,
    *,
    kinds: str,
    most: float = np.inf,
) -> Real:
    """Targets (..., n) of `dtype`, `...` being one of the shapes, or (...) for n = 1; finite, or from 0 to `most`.

    `kinds` are those of the dtypes that are taken. Where it is not looked at, what is none of these becomes 0.
    """
    array = value if type(value) is np.ndarray else _as_array(value, name)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.dtype == np.float16:
        expected = "bool, integers, float32 or float64" if "b" in kinds else "float32, float64 or integers"
        raise TypeError(f"{name} must hold {expected}, got {array.dtype} of shape {array.shape}")
    _check_shape(array.shape, name, [(*shape, n) for shape in shapes] + (list(shapes) if n == 1 else []))
    if not any(_is_like(array.shape, (*shape, n)) for shape in shapes):
        array = array[..., None]
    fits = array.dtype == dtype and array.strides[-1] == array.itemsize and array.flags.aligned
    with np.errstate(all="ignore"):  # where it is not looked at there is anything
        array = array if fits else np.array(array, dtype=dtype, order="C")
        is_bounded = most < np.inf
        if _is_finite(array) and (not is_bounded or (array.min() >= 0 and array.max() <= most)):
            return array
        wrong = ~np.isfinite(array)
        for where in _looked_at(wrong, read):
            raise ValueError(f"{name} must be finite{_note(read)}, got {array[where]} at {list(where)}")
        if is_bounded:
            wrong |= ~((array >= 0) & (array <= most))
        for where in _looked_at(wrong, read):
            expected = f"values from 0 to {most:g}{_note(read)}"
            raise ValueError(f"{name} must hold {expected}, got {array[where]} at {list(where)}")
    array = array.copy()
    array[wrong] = 0
    return array


def _looked_at(wrong: NDArray[np.bool_], read: Read | None) -> Iterator[tuple[int, ...]]:
    """The first place of a wrong target that is looked at, if there is one."""
    if read is not None and wrong.any():
        wrong = wrong & read.mask(wrong.shape)
    yield from map(tuple, np.argwhere(wrong)[:1].tolist())


def _note(read: Read | None) -> str:
    return "" if read is None else read.note


def finite(array: Real, name: str, row_lengths: Int | None = None) -> None:
    """No NaN and no infinity in an array (T, B, ·) within the lengths, or in one of any shape without lengths."""
    if _is_finite(array):
        return
    wrong = ~np.isfinite(array)
    if row_lengths is not None:
        wrong &= active(len(array), row_lengths)[..., None]
    for where in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{name} must be finite, got {array[tuple(where)]} at {where}")


def _is_finite(array: Real) -> bool:
    """Whether all is finite, for sure: a sum that overflows is none of those."""
    with np.errstate(all="ignore"):
        total = array.sum()  # shows NaN and infinity: one pass, and no array of the same size
    return bool(np.isfinite(total))


def squares(array: Real, name: str) -> None:
    """Sums of squares, which may be too large for their dtype."""
    for where in np.argwhere(~(array >= 0))[:1].tolist():
        raise ValueError(f"{name} must be at least 0, got {array[tuple(where)]} at {where}")


def weights(value: Any, name: str, dtype: np.dtype[Any], *shapes: Shape) -> Real:
    """Finite numbers of at least 0, as a fresh array of `dtype`."""
    array = value if type(value) is np.ndarray else _as_array(value, name)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype} of shape {array.shape}")
    _check_shape(array.shape, name, shapes)
    with np.errstate(over="ignore"):
        array = np.array(array, dtype=dtype, order="C")
    if not (array.min() >= 0 and np.isfinite(array.max())):
        for where in np.argwhere(~((array >= 0) & (array < np.inf)))[:1].tolist():
            raise ValueError(f"{name} must be finite and at least 0, got {array[tuple(where)]} at {where}")
    return array


def class_weights(value: Any, n: int) -> NDArray[np.float64]:
    array = weights(value, "class_weights", _FLOAT64, (n,)).astype(np.float64, copy=False)
    if not array.all():
        raise ValueError(f"class_weights must be above 0, got {array.tolist()}")
    array.flags.writeable = False
    return array


def finite_sum(weights: list[float]) -> float:
    """Of weights times class weights, exact."""
    try:
        return math.fsum(weights)
    except OverflowError:
        raise ValueError("weights, times class_weights, must have a finite sum") from None


def any_weight(total: float, name: str, is_weighted: bool) -> None:
    """Something must count in a mean."""
    if not 0 < total < np.inf:
        condition = " whose weight is not zero" if is_weighted else ""
        raise ValueError(f"{name} must hold at least one target{condition}")


def loss_sums(loss: float, weight: float, is_something_done: bool, name: str) -> None:
    """The weighted sum of losses, and the sum of weights, in an epoch."""
    is_right = weight > 0 and np.isfinite(loss / weight) if is_something_done else loss == weight == 0
    if not is_right:
        raise ValueError(f"{name} must be those of what was trained on in this epoch, got {loss} and {weight}")


def listed(value: Any, name: str) -> Any:
    """One item for each sequence: a list, or an array along its first axis."""
    is_listed = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if not is_listed:
        raise TypeError(f"{name} must be a list of sequences or an array (N, T), got {_shown(value)}")
    if len(value) == 0:
        raise ValueError(f"{name} must hold at least one sequence")
    return value


def sequences(value: Any, name: str, check: Callable[[Any, str], T]) -> list[T]:
    """Each of a list of sequences, as `check` returns it."""
    value = listed(value, name)
    if any(map(np.isscalar, value[:1])):
        raise TypeError(f"{name} must be a list of sequences or an array (N, T), got {_shown(value)}")
    return [check(item, f"{name}[{i}]") for i, item in enumerate(value)]


def token_sequence(value: Any, name: str, n: int) -> Int:
    """Tokens (T,) from 0 to n - 1, which may be none."""
    array = _as_int64(_as_array(value, name), name)
    _check_shape(array.shape, name, (("T",),), allow_empty=True)
    return tokens(array, name, n, ("T",)) if array.size else array


def steps(value: Any, name: str) -> tuple[Any, Int | None]:
    """Sequences of features as all their steps below one another, (Σ T_i, features), and the T_i.

    They are an array (n, T, features) or a list of (T_i, features). Anything else comes back as it is, and None.
    """
    if getattr(value, "ndim", 0) == 3:
        array = _as_array(value, name)
        _check_shape(array.shape, name, (("n", "T", "features"),))
        return array.reshape(-1, array.shape[2]), np.full(len(array), array.shape[1])
    if not _holds_sequences(value):
        return value, None
    items = [_as_array(item, f"{name}[{i}]") for i, item in enumerate(value)]
    _check_shape(items[0].shape, f"{name}[0]", (("T", "features"),))
    for i, item in enumerate(items):
        _check_shape(item.shape, f"{name}[{i}]", (("T", items[0].shape[1]),))
    return np.concatenate(items), np.array([len(item) for item in items])


def _holds_sequences(value: Any) -> bool:
    """Whether a list holds more than the rows of one array (n, T)."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = list(value)
    if is_list_of_arrays(value):
        return value[0].ndim > 1 or len({np.shape(item) for item in value}) > 1
    return isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(value[0]) == 2


def same_features(n: int, expected: int, name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must have {expected} features at each step, as in training, got {n}")


def same_outputs(n: int, expected: int, name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must have {expected} outputs for each sequence, as before, got {n}")


def enough_held_out(n: int, name: str) -> None:
    if n < 2:
        raise ValueError(f"{name} must leave at least 2 sequences to validate on, got {n}")


def label_sequences(value: Any, name: str) -> tuple[NDArray[Any], Int]:
    """The labels of all steps one after another, and how many each sequence has."""
    items = sequences(value, name, _as_array)
    for i, item in enumerate(items):
        _check_shape(item.shape, f"{name}[{i}]", (("T",),))
    return np.concatenate(items), np.array([len(item) for item in items])


def labels(array: NDArray[Any], name: str, classes: NDArray[Any]) -> Int:
    """Labels (n,) as indices of sorted classes."""
    codes = np.searchsorted(classes, array).clip(max=len(classes) - 1)
    for i in np.flatnonzero(classes[codes] != array)[:1]:
        raise ValueError(f"{name} must hold classes among {_labels(classes)}, got {array[i]!r}")
    return codes


def same_classes(classes: NDArray[Any], expected: NDArray[Any]) -> None:
    if not np.array_equal(classes, expected):
        raise ValueError(f"classes must be those of before, {_labels(expected)}, got {_labels(classes)}")


def same_count(n: int, expected: int, name: str, expected_name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must be {expected}, as many as {expected_name}, got {n}")


def same_number(n: int, expected: int, name: str, expected_name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must have as many sequences as {expected_name}, {expected}, got {n}")


def same_lengths(lengths: Int, expected: Int, name: str, expected_name: str) -> None:
    same_number(len(lengths), len(expected), name, expected_name)
    for i in np.flatnonzero(lengths != expected)[:1]:
        raise ValueError(
            f"{name}[{i}] must have as many steps as {expected_name}[{i}], {expected[i]}, got {lengths[i]}"
        )


def no_gaps(y: Real | Int, name: str, read: Read | None) -> None:
    """Categories (T, B) that are fed back: a target that counts must not come after a step without one."""
    is_missing = y < 0
    if not is_missing.any():
        return
    has_target = ~is_missing if read is None else ~is_missing & read.counts()
    for where in np.argwhere(is_missing[:-1] & _or_later(has_target)[1:])[:1].tolist():
        raise ValueError(
            f"{name} must not have a target after a -1, as each is the next step's input, got -1 at {where}"
        )


def no_empty_rows(lengths: Int, has_target: NDArray[np.bool_]) -> None:
    for b in np.flatnonzero((lengths == 0) & has_target)[:1]:
        raise ValueError(f"lengths must be at least 1 where a row has a target, got 0 at [{b}]")


def updatable(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Real:
    """The values of an array that the caller will write to: as C-contiguous memory, the array's own if possible."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"{name} is updated in place and must be an array of {dtype}, got {_shown(value)}")
    _check_shape(value.shape, name, (shape,))
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must be writeable, got a read-only array")
    flags = value.flags  # asarray: of a subclass, a memory map say, the plain array
    return np.asarray(value) if flags.c_contiguous and flags.aligned else np.array(value, order="C")


def update(parameters: Any, gradients: Any) -> tuple[dict[str, Real], dict[str, Real]]:
    """An optimizer's two dicts of arrays, each array flattened: the parameters as views."""
    for value, name in ((parameters, "parameters"), (gradients, "gradients")):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a dict from names to arrays, got {_shown(value)}")
    if parameters.keys() != gradients.keys():
        raise ValueError(f"gradients must have the names {list(parameters)}, got {list(gradients)}")
    views, flat = {}, {}
    for key, array in parameters.items():
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            raise TypeError(f"parameters[{key!r}] must be an array of float32 or float64, got {_shown(array)}")
        if not (array.flags.forc and array.flags.behaved):
            raise ValueError(f"parameters[{key!r}] must be contiguous, aligned and writeable")
        gradient = real_array(gradients[key], f"gradients[{key!r}]", array.dtype, array.shape, contiguous=True)
        order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
        views[key] = np.asarray(array).reshape(-1, order=order)
        flat[key] = gradient.reshape(-1, order=order)
    return views, flat


def memories(value: Mapping[str, Sequence[Real]], parameters: Mapping[str, Real]) -> None:
    """An optimizer's memories must be those of the parameters it is now used on."""
    fits = value.keys() == parameters.keys()
    for name, array in parameters.items() if fits else ():
        for memory in value[name]:
            fits = fits and memory.shape == array.shape and memory.dtype == array.dtype
    if not fits:
        raise ValueError(f"optimizer has worked on other parameters ({list(value)}) before: use a new one")


def _as_array(value: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever a stranger's __array__ raises, or NumPy about a ragged list
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} must be an array, got {_shown(value)}: {error}") from error


def _as_int64(array: NDArray[Any], name: str) -> Int:
    if array.dtype is _INT64 and array.flags.aligned:
        return array
    if array.dtype.kind not in ("iu" if array.size else "iuf"):  # NumPy makes reals of an empty list
        raise TypeError(f"{name} must hold integers, got {array.dtype} of shape {array.shape}")
    return np.array(array, dtype=_INT64)  # a uint64 beyond int64 wraps to a negative number, which is out of any range


def _is_int(value: Any) -> bool:
    # NumPy's intervals of time are integers to NumPy
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def _int(value: Any, name: str, expected: str, least: int, most: int) -> int:
    """An int from `least` on; `most`, one less than a power of two, is only spoken of to who goes beyond it."""
    if not _is_int(value):
        raise TypeError(f"{name} must be {expected}, got {_shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be {expected} below 2**{most.bit_length()}, got {_shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}")
    return int(value)


def _number(value: Any, name: str, expected: str, fits: Callable[[float], bool]) -> float:
    if not (_is_int(value) or isinstance(value, (float, np.floating))):
        raise TypeError(f"{name} must be {expected}, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int of more than 1024 bits
        number = math.nan
    if not fits(number):
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}")
    return number


def _check_shape(shape: tuple[int, ...], name: str, expected: Sequence[Shape], *, allow_empty: bool = False) -> None:
    for pattern in expected:
        if shape == pattern or _is_like(shape, pattern):
            break
    else:
        raise ValueError(f"{name} must have shape {' or '.join(map(_shape_text, expected))}, got {shape}")
    if 0 in shape and not allow_empty:
        raise ValueError(f"{name} must not have an empty axis, got shape {shape}")


def _is_like(shape: tuple[int, ...], pattern: Shape) -> bool:
    if len(shape) != len(pattern):
        return False
    for n, m in zip(shape, pattern, strict=True):  # noqa: SIM110 - a generator would take a tenth of a time step
        if n != m and type(m) is not str:
            return False
    return True


def _shape_text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _labels(classes: NDArray[Any]) -> str:
    return reprlib.repr(classes.tolist())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _described(value: Any) -> str:
    """A setting: as it is, where that is a line that is not too long."""
    if not isinstance(value, str):
        return _SETTINGS.repr(value)
    text = value if value.isprintable() else ascii(value)
    return text if len(text) < 500 else f"{text[:400]}… (CRC {zlib.crc32(text.encode()):08x} of {len(text)} characters)"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, (np.integer, np.floating)):
        return str(value)  # not np.float32(…)
    if isinstance(value, int) and value.bit_length() > 256:  # Python does not even print one of 4300 digits
        return f"an int of {value.bit_length()} bits"
    return reprlib.repr(value)
