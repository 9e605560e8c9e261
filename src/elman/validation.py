"""The only module that raises about user input.

Every function takes a value and the name of its argument and returns the value as the rest of the package wants it, or
raises: a TypeError where the kind of value is wrong, a ValueError where the kind is right and the value is not. The
message names the argument and says what was expected and what came.
"""

from __future__ import annotations

import importlib.util
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from elman.typing import Int, Real

Shape = tuple[int | str, ...]  # a string names an axis of any length

T = TypeVar("T")

_FLOAT64 = np.dtype(np.float64)
_INT64 = np.dtype(np.int64)


def refuse(message: str) -> NoReturn:
    """For what no single value is to blame for: a call that makes no sense as a whole."""
    raise ValueError(message)


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


def positive_int(value: Any, name: str) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a positive int, got {_shown(value)}")
    if value < 1:
        raise ValueError(f"{name} must be a positive int, got {value}")
    return int(value)


def positive_int_in_text(text: str, name: str) -> int:
    try:
        return positive_int(int(text), name)
    except ValueError:
        raise ValueError(f"{name} must be a positive int, got {_shown(text)}") from None


def probability(value: Any, name: str) -> float:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number from 0 to 1, got {_shown(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value}")
    return float(value)


def instance(value: Any, name: str, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be an instance of {kind.__module__}.{kind.__name__}, got {_shown(value)}")
    return value


def non_negative_int(value: Any, name: str) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int of at least 0, got {_shown(value)}")
    if value < 0:
        raise ValueError(f"{name} must be an int of at least 0, got {value}")
    return int(value)


def non_negative(value: Any, name: str) -> float:
    return _number(value, name, "a finite number of at least 0", lambda x: 0 <= x < np.inf)


def positive(value: Any, name: str) -> float:
    return _number(value, name, "a number above 0", lambda x: x > 0)


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


def path(value: Any, name: str) -> Path:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, got {_shown(value)}")
    return Path(value)


def text_mapping(value: Any, name: str) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise TypeError(f"{name} must be a dict from str to str, got {_shown(value)}")


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
    import numba

    try:
        compiled = numba.njit(function)
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
    if seed is not None and (not isinstance(seed, (int, np.integer)) or isinstance(seed, bool)):
        raise TypeError(f"{name} must be None, an int or a numpy.random.Generator, got {_shown(seed)}")
    if seed is not None and seed < 0:
        raise ValueError(f"{name} must not be negative, got {seed}")
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
    return np.array(array, dtype=dtype, order="C")


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
        wrong &= _active(len(array), lengths(row_lengths, array.shape[1], len(array)))
    for where in np.argwhere(wrong)[:1].tolist():
        raise ValueError(f"{name} must hold tokens from 0 to {n_tokens - 1}, got {given[tuple(where)]} at {where}")
    return array


def lengths(value: Any, n_rows: int, n_steps: int) -> Int:
    """C-contiguous int64 (B,) with values from 0 to T."""
    given = _as_array(value, "lengths")
    array = _as_int64(given, "lengths")
    _check_shape(array.shape, "lengths", ((n_rows,),))
    for b in np.flatnonzero((array < 0) | (array > n_steps))[:1]:
        raise ValueError(f"lengths must be from 0 to T = {n_steps}, got {given[b]} at [{b}]")
    return np.ascontiguousarray(array)


def state(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Real]:
    """A state dict with exactly the keys of `shapes`, as fresh float64 arrays of those shapes."""
    if not isinstance(value, Mapping):
        raise TypeError(f"state must be a dict from names to arrays, got {_shown(value)}")
    missing = [key for key in shapes if key not in value]
    unexpected = [key for key in value if key not in shapes]
    if missing or unexpected:
        raise ValueError(f"state must have the keys {list(shapes)}; missing {missing}, unexpected {unexpected}")
    return {key: real_array(value[key], key, _FLOAT64, shape).copy() for key, shape in shapes.items()}


def targets(value: Any, name: str, n: int, shape: tuple[int, ...], lengths: Int | None) -> tuple[Int, int]:
    """An int64 array (T, B), within the lengths from -1 (no target) to n - 1, and how many targets it has."""
    array = _as_int64(_as_array(value, name), name)
    _check_shape(array.shape, name, (shape,))
    active = array if lengths is None else array[_active(len(array), lengths)]
    least, most = (active.min(), active.max()) if active.size else (-1, -1)
    if least < -1 or most >= n:
        raise ValueError(f"{name} must hold -1 (no target) or categories from 0 to {n - 1}, got {least} to {most}")
    count = active.size if least >= 0 else int(np.count_nonzero(active >= 0))
    if count == 0:
        raise ValueError(f"{name} must hold at least one target")
    return array, count


def token_sequences(value: Any, name: str, least: int, n: int) -> list[Int]:
    """Integer sequences (T_i,), at least one and none of them empty, with values from `least` to n - 1."""
    is_listed = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if not is_listed or any(map(np.isscalar, value[:1])):
        raise TypeError(f"{name} must be a list of sequences or an array (N, T), got {_shown(value)}")
    if len(value) == 0:
        raise ValueError(f"{name} must hold at least one sequence")
    sequences = []
    for i, item in enumerate(value):
        sequence = _as_int64(_as_array(item, f"{name}[{i}]"), f"{name}[{i}]")
        _check_shape(sequence.shape, f"{name}[{i}]", (("T",),))
        if sequence.min() < least or sequence.max() >= n:
            raise ValueError(
                f"{name}[{i}] must hold integers from {least} to {n - 1}, got {sequence.min()} to {sequence.max()}"
            )
        sequences.append(sequence)
    return sequences


def same_lengths(x: Sequence[Int], y: Sequence[Int], x_name: str, y_name: str) -> None:
    if len(x) != len(y):
        raise ValueError(f"{y_name} must have as many sequences as {x_name}, {len(x)}, got {len(y)}")
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        if len(a) != len(b):
            raise ValueError(f"{y_name}[{i}] must have as many steps as {x_name}[{i}], {len(a)}, got {len(b)}")


def any_target(counts: Int, name: str) -> None:
    if not counts.any():
        raise ValueError(f"{name} must hold at least one target")


def updatable(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Real:
    """The values of an array that the caller will write to: as C-contiguous memory, the array's own if possible."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"{name} is updated in place and must be an array of {dtype}, got {_shown(value)}")
    _check_shape(value.shape, name, (shape,))
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must be writeable, got a read-only array")
    return real_array(value, name, dtype, shape, contiguous=True)


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
    if value.keys() != parameters.keys() or any(
        memory.shape != array.shape or memory.dtype != array.dtype
        for name, array in parameters.items()
        for memory in value[name]
    ):
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


def _number(value: Any, name: str, expected: str, fits: Callable[[Any], bool]) -> float:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"{name} must be {expected}, got {_shown(value)}")
    if not fits(value):
        raise ValueError(f"{name} must be {expected}, got {value}")
    return float(value)


def _active(n_steps: int, lengths: Int) -> NDArray[np.bool_]:
    """Which of the steps (T, B) are within the rows' lengths."""
    mask: NDArray[np.bool_] = np.arange(n_steps)[:, None] < lengths
    return mask


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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return reprlib.repr(value)
