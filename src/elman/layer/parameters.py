"""A model's parameters: one flat buffer, the arrays in it that the kernels take, and the views that users see.

Weights lie k-major: ``weight_hh`` is stored as ``array[d, k, j]``, from unit k to unit j of direction d, which is the
transpose of what a user sees under its name. One flat buffer makes clipping and the optimizer one call each.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.layer.workspace import aligned_size, aligned_zeros
from elman.typing import Real

_FLOAT64 = np.dtype(np.float64)


class Entry(NamedTuple):
    """One array of the buffer: the names of its parts (one per direction) and the shape of each as users see it."""

    names: tuple[str, ...]
    shape: tuple[int, ...]


class Parameters:
    """Arrays in one flat buffer, all zero at first; gradients and an optimizer's memories have the same form.

    `flat` (n,) is all there is, with zeros between the arrays, each of which starts on a multiple of 64 bytes.
    `arrays` has one C-contiguous view per entry: (number of names, *the user's shape reversed). Of gradients that are
    `only` wanted in part, an array is None where nobody wants it.
    """

    __slots__ = ("_origin", "arrays", "entries", "flat")

    arrays: list[Any]

    def __init__(self, entries: Sequence[Entry], dtype: np.dtype[Any], values: Real | None = None) -> None:
        self.entries = tuple(entries)
        self._origin: tuple[Parameters, int] | None = None
        size, places = layout(self.entries, dtype)
        self.flat = aligned_zeros((size,), dtype)
        if values is not None:
            self.flat[:] = values
        self.arrays = [self.flat[place].reshape(shape) for place, shape in places]

    def named(self, n_entries: int | None = None) -> dict[str, Real]:
        """Live, writable views in the user's shapes: of all entries, or of the first few."""
        pairs = [pair for pair in zip(self.entries[:n_entries], self.arrays, strict=False) if pair[1] is not None]
        return {name: array[d].T for entry, array in pairs for d, name in enumerate(entry.names)}

    def only(self, names: Container[str]) -> Parameters:
        """The same buffer, with None for each array of which no part has one of the names."""
        part = self.part(0, self.entries)
        pairs = zip(self.entries, self.arrays, strict=True)
        part.arrays = [array if any(name in names for name in entry.names) else None for entry, array in pairs]
        return part

    def places(self, names: Container[str]) -> list[slice]:
        """Where in `flat` the arrays with these names lie."""
        found: list[slice] = []
        for entry, (place, shape) in zip(self.entries, layout(self.entries, self.flat.dtype)[1], strict=True):
            starts = range(place.start, place.stop, prod(shape[1:]))
            named = zip(entry.names, starts, strict=True)
            found += [slice(start, start + starts.step) for name, start in named if name in names]
        return found

    def part(self, first: int, entries: Sequence[Entry]) -> Parameters:
        """The arrays from number `first` on, under names of their own; `flat` is that of the whole."""
        part = Parameters.__new__(Parameters)
        part.entries, part.flat, part._origin = tuple(entries), self.flat, (self, first)
        part.arrays = self.arrays[first : first + len(part.entries)]
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is not None:
            whole, first = self._origin
            return whole.part, (first, self.entries)
        return Parameters, (self.entries, np.dtype(self.flat.dtype.name), self.flat)  # views are made again


@functools.cache
def layout(entries: tuple[Entry, ...], dtype: np.dtype[Any]) -> tuple[int, list[tuple[slice, tuple[int, ...]]]]:
    """The buffer's size, and where in it each array is. Kept, as every backward pass makes a buffer for gradients."""
    shapes = [(len(names), *shape[::-1]) for names, shape in entries]
    starts = [0, *accumulate(aligned_size(prod(shape), dtype) for shape in shapes)]
    return starts[-1], [(slice(i, i + prod(s)), s) for i, s in zip(starts, shapes, strict=False)]


def load_state(parameters: Mapping[str, Real], state: Any) -> None:
    """Copy a state dict into live arrays: all of it, or nothing and an error.

    Where the state has PyTorch's two names for a bias instead of ours, their sum is taken.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, array in parameters.items():
        halves = _pytorch_biases(name)
        is_split = isinstance(state, Mapping) and name not in state and any(half in state for half in halves)
        shapes.update(dict.fromkeys(halves if is_split else (name,), array.shape))
    values = _checked_state(state, shapes)
    new = []  # converted before anything is changed, as that may fail as well
    for name, array in parameters.items():
        names = [part for part in (name, *_pytorch_biases(name)) if part in values]
        parts = [values[part] for part in names]
        with np.errstate(over="ignore"):
            new.append((parts[0] if len(parts) == 1 else parts[0] + parts[1]).astype(array.dtype))  # -0.0 stays
        check.finite(new[-1], f"{' + '.join(names)} as {array.dtype}")
    for array, value in zip(parameters.values(), new, strict=True):
        array[...] = value


def to_pytorch(parameters: Mapping[str, Real]) -> dict[str, Real]:
    """Copies under the names of torch.nn.RNN: the first of its two biases is ours, the second zero."""
    state = {}
    for name, array in parameters.items():
        first, *rest = _pytorch_biases(name) or (name,)
        state[first] = array.copy()
        state.update({second: np.zeros_like(array) for second in rest})
    return state


def _pytorch_biases(name: str) -> tuple[str, ...]:
    if not name.startswith("bias_l"):
        return ()
    return f"bias_ih{name[4:]}", f"bias_hh{name[4:]}"


def _checked_state(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Real]:
    """A state dict with exactly the keys of `shapes`, as fresh, finite float64 arrays of those shapes."""
    if not isinstance(value, Mapping):
        raise TypeError(f"state must be a dict from names to arrays, got {check.shown(value)}")
    missing = [key for key in shapes if key not in value]
    unexpected = [key for key in value if key not in shapes]
    if missing or unexpected:
        raise ValueError(f"state must have the keys {list(shapes)}; missing {missing}, unexpected {unexpected}")
    arrays = {key: check.real_array(value[key], key, _FLOAT64, shape).copy() for key, shape in shapes.items()}
    for key, array in arrays.items():
        check.finite(array, key)
    return arrays
