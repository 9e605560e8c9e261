"""The grammar of refusals: how an argument is checked, and what is said of it.

Every function takes a value and the name of its argument and returns the value as the rest of the package wants it, or
raises: a TypeError where the kind of value is wrong, a ValueError where the kind is right and the value is not. The
message names the argument and says what was expected and what came. A check of one thing lies beside that thing.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from elman.lengths import within
from elman.typing import Bool, Int, Real

Shape = tuple[int | str, ...]  # a string names an axis of any length
T = TypeVar("T")
_INT64 = np.dtype(np.int64)
_FEW = 1 << 12  # reals, of which two passes take less time than `errstate`
_VERY_FEW = 32  # numbers that Python itself goes through in less time than a function of NumPy is called
_READY = 0x101  # C-contiguous and aligned, in the flags of an array: each of them by name takes as long as both
_INT64_MAX = 2**63 - 1  # of every int: what a float holds without overflow, and what int64 holds; of bytes, for NumPy
SIZE_MAX = 2**31 - 1  # of an axis
MOST_LAYERS = 2**16 - 1  # each of them is some Python objects


def refuse(message: str) -> NoReturn:
    """For what no single value is to blame for: a call that makes no sense as a whole."""
    raise ValueError(message)


def is_int(value: Any) -> bool:
    # NumPy's intervals of time are integers to NumPy
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def integers(least: int, most: int = _INT64_MAX, words: str = "") -> Callable[[Any, str], int]:
    """A check that takes ints from `least` to `most`, of Python or NumPy, and returns Python's.

    With `words` for them, `most`, one less than a power of two, is only spoken of to who goes beyond it.
    """
    expected = words or f"an int from {least} to {most}"
    beyond = f"{words} below 2**{most.bit_length()}" if words else expected

    def checked(value: Any, name: str) -> int:
        if not is_int(value):
            raise TypeError(f"{name} must be {expected}, got {shown(value)}")
        if not least <= value <= most:
            raise ValueError(f"{name} must be {beyond if value > most else expected}, got {shown(value)}")
        return int(value)

    return checked


def number(value: Any, name: str, expected: str, fits: Callable[[float], bool]) -> float:
    """A number, of Python or NumPy, that fits what is expected, as Python's float."""
    if type(value) is float and fits(value):  # as five are of each training step
        return value
    if not (is_int(value) or isinstance(value, (float, np.floating))):
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    try:
        found = float(value)
    except OverflowError:  # an int of more than 1024 bits
        found = math.nan
    if not fits(found):
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")
    return found


def numbers(expected: str, fits: Callable[[float], bool]) -> Callable[[Any, str], float]:
    """`number` as a check of value and name alone."""
    return lambda value, name: number(value, name, expected, fits)


positive_int = integers(1, words="a positive int")
size = integers(1, SIZE_MAX, "a positive int")  # the length of an axis
number_of_layers = integers(1, MOST_LAYERS, "a positive int")
non_negative_int = integers(0, words="an int of at least 0")
count = integers(0, 2**53 - 1, "an int of at least 0")  # of what may go on: far from what an int64 can hold

probability = numbers("a number from 0 to 1", lambda x: 0 <= x <= 1)
positive_probability = numbers("a number above 0, up to 1", lambda x: 0 < x <= 1)
below_one = numbers("a number from 0 to 1, exclusive", lambda x: 0 <= x < 1)
positive = numbers("a number above 0", lambda x: x > 0)
finite_positive = numbers("a finite number above 0", lambda x: 0 < x < math.inf)
non_negative = numbers("a finite number of at least 0", lambda x: 0 <= x < math.inf)
finite_number = numbers("a finite number", math.isfinite)


def at_least(value: Any, name: str, least: int, most: int = _INT64_MAX) -> int:
    return integers(least, most, f"an int of at least {least}")(value, name)


def size_of_at_least(value: Any, name: str, least: int) -> int:
    return at_least(value, name, least, SIZE_MAX)


def below(value: Any, name: str, n: int) -> int:
    return integers(0, n - 1)(value, name)


def choice(value: Any, name: str, names: Iterable[str]) -> str:
    names = tuple(names)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed(names)}, got {shown(value)}")
    if value not in names:
        raise ValueError(f"{name} must be one of {listed(names)}, got {shown(value)}")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def int_in_text(given: str) -> int | None:
    """The int that decimal digits stand for, spaces around them; None for anything else, also for 20 digits or more.

    `int` takes digits of any script and underscores, too, and raises where there are very many of them.
    """
    match = re.fullmatch(r"\s*0*([0-9]{1,19})\s*", given)
    return int(match[1]) if match else None


def addressable(n_bytes: int, **sizes: int) -> None:
    """Sizes whose product is more than memory can have addresses for; whether there is so much, NumPy says."""
    if n_bytes > _INT64_MAX:
        product = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{product} must be smaller together: they stand for an array of {n_bytes} bytes")


def instance(value: Any, name: str, of: type[T]) -> T:
    if not isinstance(value, of):
        where = "" if of.__module__ == "builtins" else f"{of.__module__}."
        raise TypeError(f"{name} must be an instance of {where}{of.__name__}, got {shown(value)}")
    return value


def kind(value: Any, name: str, kinds: tuple[type[Any], ...]) -> Any:
    """An instance of one of our classes."""
    if not isinstance(value, kinds):
        *most, last = (f"elman.{one.__name__}" for one in kinds)
        expected = f"{', '.join(most)} or {last}" if most else last
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    return value


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {shown(value)}")
    return value


def function(value: Any, name: str) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)}")
    return value


def same_names(found: Iterable[str], expected: Iterable[str], name: str) -> None:
    found, expected = sorted(found), sorted(expected)
    if found != expected:
        raise ValueError(f"{name} must have the names {shown(expected)}, got {shown(found)}")


def some_of(value: Any, name: str, known: Iterable[str]) -> None:
    """A dict with no other names than these."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict from names to arrays, got {shown(value)}")
    known = list(known)
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ValueError(f"{name} must have some of the names {known}, got {unknown} besides")


def pair(value: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a pair, got {shown(value)}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair, got {len(value)} items")
    return value[0], value[1]


def path(value: Any, name: str) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be a str or a path, got {shown(value)}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name} must be a path without NUL characters, got {shown(value)}")
    return Path(value)


def text_mapping(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for entry in value.items() for one in entry):
        raise TypeError(f"{name} must be a dict from str to str, got {shown(value)}")
    return value


def real_dtype(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """One of NumPy's own two dtype objects, so that `array.dtype is dtype` holds for nearly every array."""
    if not isinstance(value, (str, type, np.dtype)):
        raise TypeError(f"{name} must be 'float32' or 'float64', got {shown(value)}")
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        if value in (known.name, known.type) or (isinstance(value, np.dtype) and value == known):
            return known
    raise ValueError(f"{name} must be 'float32' or 'float64', got {shown(value)}")


def generator(seed: Any, name: str = "seed") -> np.random.Generator:
    """None (fresh entropy), a non-negative int, or a Generator, which is used as it is."""
    if isinstance(seed, np.random.Generator):
        return seed
    if seed is not None and not is_int(seed):
        raise TypeError(f"{name} must be None, an int or a numpy.random.Generator, got {shown(seed)}")
    if seed is not None and seed < 0:
        raise ValueError(f"{name} must not be negative, got {shown(seed)}")
    return np.random.default_rng(seed)


def real_array(
    value: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, contiguous: bool = False, allow_empty: bool = False
) -> Real:
    """An aligned array of `dtype` and of one of the `shapes`; the value itself where that is possible.

    Either real width is taken for the other; integers are not taken for reals. Without `contiguous`, only the last
    axis needs unit stride. Without `allow_empty`, no axis may be empty.
    """
    if type(value) is np.ndarray and value.shape in shapes and is_ready(value, dtype):
        return value  # as nearly always
    array = value if type(value) is np.ndarray else as_array(value, name)
    if array.dtype is not dtype and (array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8)):
        raise TypeError(f"{name} must hold float32 or float64, got {array.dtype} of shape {array.shape}")
    shape(array.shape, name, shapes, allow_empty=allow_empty)
    flags = array.flags
    fits = flags.c_contiguous if contiguous else array.strides[-1] == array.itemsize
    if fits and flags.aligned and array.dtype == dtype:  # never equal to a byte-swapped one
        return array
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        return np.array(array, dtype=dtype, order="C")


def is_ready(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether an array is as kernels take it, and not empty; a few that they take are converted all the same."""
    return array.dtype is dtype and array.flags.num & _READY == _READY and array.size > 0


def is_list_of_arrays(value: Any) -> bool:
    """A list of sequences, as opposed to one array written as a list of (lists of) numbers."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and getattr(value[0], "ndim", 0) > 0


def tokens(value: Any, name: str, n_tokens: int, *shapes: Shape, row_lengths: Any = None) -> Int:
    """An aligned int64 array of one of the `shapes` with values from 0 to n_tokens - 1; any strides.

    In a (T, B) with `row_lengths`, as `lengths` takes them, what lies beyond may have any value.
    """
    given = value if type(value) is np.ndarray else as_array(value, name)
    array = as_int64(given, name)
    shape(array.shape, name, shapes)
    if array.size <= _VERY_FEW:
        values = array.ravel().tolist()
        if min(values) >= 0 and max(values) < n_tokens:
            return array
    elif array.view(np.uint64).max() < n_tokens:  # read as unsigned, a negative one is too large as well: one pass
        return array
    wrong = array.view(np.uint64) >= n_tokens
    if row_lengths is not None:
        wrong &= within(len(array), lengths(row_lengths, array.shape[1], len(array)))
    for where in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{name} must hold tokens from 0 to {n_tokens - 1}, got {given[tuple(where)]} at {where}")
    return array


def lengths(value: Any, n_rows: int, n_steps: int) -> Int:
    """C-contiguous int64 (B,) with values from 0 to T: a copy, which nobody changes behind a pullback's back."""
    given = as_array(value, "lengths")
    array = as_int64(given, "lengths")
    shape(array.shape, "lengths", ((n_rows,),))
    for b in np.flatnonzero((array < 0) | (array > n_steps))[:1]:
        raise ValueError(f"lengths must be from 0 to T = {n_steps}, got {given[b]} at [{b}]")
    return array.copy()


def finite(array: Real, name: str, row_lengths: Int | None = None) -> None:
    """No NaN and no infinity in an array (T, B, ·) within the lengths, or in one of any shape without lengths."""
    if is_finite(array):
        return
    wrong = ~np.isfinite(array)
    if row_lengths is not None:
        wrong &= within(len(array), row_lengths)[..., None]
    for where in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{name} must be finite, got {array[tuple(where)]} at {where}")


def is_finite(array: Real) -> bool:
    """Whether all is finite, for sure: a sum that overflows is none of those."""
    if array.size <= _VERY_FEW:
        return all(map(math.isfinite, array.ravel().tolist()))
    if array.size <= _FEW:
        return bool(np.isfinite(array).all())
    with np.errstate(all="ignore"):
        total = array.sum()  # shows NaN and infinity: one pass, and no array of the same size
    return bool(np.isfinite(total))


def same_count(n: int, expected: int, name: str, expected_name: str) -> None:
    if n != expected:
        raise ValueError(f"{name} must be {expected}, as many as {expected_name}, got {n}")


def as_array(value: Any, name: str, dtype: Any = None) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        cure = "fill it, and say which steps count by weights, lengths or missing=np.nan"
        raise TypeError(f"{name} must be an array without a mask, got {shown(value)}: {cure}")
    try:
        return np.asarray(value, dtype=dtype)
    except Exception as error:  # whatever a stranger's __array__ raises, or NumPy about a ragged list
        as_refused = ValueError if isinstance(error, ValueError) else TypeError
        raise as_refused(f"{name} must be an array, got {shown(value)}: {error}") from error


def as_int64(array: NDArray[Any], name: str) -> Int:
    if array.dtype is _INT64 and array.flags.aligned:
        return array
    if array.dtype.kind not in ("iu" if array.size else "iuf"):  # NumPy makes reals of an empty list
        cure = ": tokens and categories may be str if they have labels" if array.dtype.kind in "UT" else ""
        raise TypeError(f"{name} must hold integers, got {array.dtype} of shape {array.shape}{cure}")
    if array.dtype.kind == "u" and array.itemsize == 8:
        array = np.minimum(array, np.uint64(_INT64_MAX))  # or it would wrap, to -1 perhaps, which stands for no target
    return np.array(array, dtype=_INT64)


def booleans(value: Any, name: str, *shapes: Shape, allow_empty: bool = False) -> Bool:
    """Of one of the shapes: a copy, which nobody changes behind a pullback's back."""
    array = as_array(value, name)
    if array.dtype != bool and array.size:  # NumPy makes reals of an empty list
        raise TypeError(f"{name} must hold bool, got {array.dtype} of shape {array.shape}: compare, as in x != 0")
    shape(array.shape, name, shapes, allow_empty=allow_empty)
    return np.array(array, dtype=bool)


def shape(found: tuple[int, ...], name: str, expected: Sequence[Shape], *, allow_empty: bool = False) -> None:
    for pattern in expected:
        if found == pattern or is_like(found, pattern):
            break
    else:
        raise ValueError(f"{name} must have shape {' or '.join(map(_shape_text, expected))}, got {found}")
    if 0 in found and not allow_empty:
        raise ValueError(f"{name} must not have an empty axis, got shape {found}")


def is_like(found: tuple[int, ...], pattern: Shape) -> bool:
    if len(found) != len(pattern):
        return False
    for n, m in zip(found, pattern, strict=True):  # noqa: SIM110 - a generator would take a tenth of a time step
        if n != m and type(m) is not str:
            return False
    return True


def _shape_text(pattern: Shape) -> str:
    return f"({', '.join(map(str, pattern))}{',' if len(pattern) == 1 else ''})"


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def cure(value: Any, calls: Iterable[str]) -> str:
    """What ends a message where a class of ours, or its name in any case, was given for such a call of it."""
    name = value.__name__ if isinstance(value, type) else value
    for call in calls:
        if isinstance(name, str) and name.lower() == call.partition("(")[0].rpartition(".")[2].lower():
            return f": {call}"
    return ""


def shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, (np.integer, np.floating)):
        return str(value)  # not np.float32(…)
    if isinstance(value, int) and value.bit_length() > 256:  # Python does not even print one of 4300 digits
        return f"an int of {value.bit_length()} bits"
    return reprlib.repr(value)
