"""Steps that consist of several kinds of input: rows of numbers, as a table has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from elman import check
from elman.check import Shape
from elman.data.inputs import Features, Input, Tokens
from elman.data.scaler import Scaler, fitted, known
from elman.lengths import within
from elman.typing import Int, Real

_MOST = 1 << 24  # tokens that a column may have: float32 holds each integer up to here


class Columns(Input):
    """Tokens and features side by side: each step is a row of numbers, like that of a table.

    Tokens are one column, integers from 0 to n - 1 that are held as numbers; `Features(n)` are n columns. Layers read
    tokens as their embedding, if they have one, and else as n columns one-hot.

    Parameters
    ----------
    *parts : Tokens or Features
        What the columns are, from left to right. Features may have a `Scaler`.

    Attributes
    ----------
    parts : tuple
    n : int
        How many columns there are.
    width : int
        How many inputs layers have for them: d of an embedding, n of other tokens and of features.

    Raises
    ------
    TypeError, ValueError
        If a part is no such kind, or has labels, or more than 2**24 tokens, beyond which float32 does not hold all
        integers.

    Notes
    -----
    Where features go, columns go: X is an array (N, T, C), a list of (T_i, C), or (T, B, C) at the level of steps, with
    the dtypes that features have; where all are tokens, integers of any width as well. The embedding of part i, counted
    from 0, is the model's parameter "embedding_i".

    Examples
    --------
    A day of the week, three measurements, one of a thousand shops:

    >>> inputs = Columns(Tokens(7), Features(3), Tokens(1000, embedding_dim=16))
    >>> inputs.n, inputs.width
    (5, 26)
    """

    _fixed = frozenset(("n", "parts"))
    _learnable = frozenset(("parts", "scaler"))
    is_laid_out = True
    parts: tuple[Tokens | Features, ...] = ()

    def __init__(self, *parts: Tokens | Features) -> None:
        if not parts:
            check.refuse("parts must be at least one, as in Columns(Tokens(7), Features(3)), got none")
        for i, part in enumerate(parts):
            check.kind(part, f"parts[{i}]", (Tokens, Features))
            if isinstance(part, Tokens) and part.n > _MOST:
                raise ValueError(f"parts[{i}] must have at most 2**24 tokens, as float32 counts no further, got {part}")
            if part.labels is not None:
                raise ValueError(f"parts[{i}] must be tokens without labels, as a table holds numbers, got {part}")
        super().__init__(sum(map(_n_columns, parts)))
        self._put_parts(parts)

    def _put_parts(self, parts: tuple[Tokens | Features, ...]) -> None:
        """With a scaler of all columns, where some have one."""
        self._put(parts=parts)
        own = [part.scaler for part in parts]
        if any(scaler is not None and scaler.mean is None for scaler in own):
            self._put(scaler=Scaler())
        elif any(scaler is not None for scaler in own):
            mean, scale = np.zeros(self.n), np.ones(self.n)  # tokens stay what they are
            for part, own_columns, _ in self.places():
                if part.scaler is not None:
                    mean[own_columns], scale[own_columns] = known(part.scaler)
            self._put(scaler=Scaler(mean=mean, scale=scale))

    def __repr__(self) -> str:
        return f"Columns({', '.join(map(repr, self.parts))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and self.parts == other.parts

    __hash__ = Input.__hash__

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    @property
    def embedded(self) -> dict[str, Tokens]:
        return {f"embedding_{i}": part for i, part in enumerate(self.parts) if part.embedded}  # type: ignore[misc]

    def array(self, x: Any, name: str, dtype: np.dtype[Any], *shapes: Shape, row_lengths: Any = None) -> Real:
        given = check.as_array(x, name)
        if given.dtype.kind in "iu" and all(isinstance(part, Tokens) for part in self.parts):
            given = given.astype(dtype)
        array = Features(self.n).array(given, name, self.as_read(given, dtype), *shapes, row_lengths=row_lengths)
        is_read = None if row_lengths is None else within(len(array), check.lengths(row_lengths, *array.shape[1::-1]))
        for part, own, _ in self.places():
            if isinstance(part, Tokens):
                _check_tokens(array[..., own.start], name, own.start, part.n, is_read)
        return array

    def settings(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def one_s_own(self) -> Columns:
        return Columns(*(part.one_s_own() for part in self.parts))

    def learned_from(self, parts: Iterable[Any]) -> dict[str, Any]:
        """Scalers of the features that wait for one."""
        mean, scale = known(fitted(parts, self.n))
        found = [
            Features(part.n, scaler=Scaler(mean=mean[own], scale=scale[own]))
            if isinstance(part, Features) and part.waits_for
            else part
            for part, own, _ in self.places()
        ]
        return Columns(*found).learned

    def laid_out(self, x: Any, tables: Sequence[Any]) -> Any:
        found = self.moved(x, tables)
        for part, own, into in self.places():
            if isinstance(part, Features):
                found[..., into] = x[..., own]
            elif not part.embedded:
                found[..., into] = x[..., own] == np.arange(part.n, dtype=x.dtype)
        return found

    def moved(self, x: Any, tangents: Sequence[Any]) -> Any:
        found = np.zeros((*x.shape[:-1], self.width), x.dtype)
        for (part, own, into), table in zip(self._embedded_places(), tangents, strict=True):
            found[..., into] = part.laid_out(_as_tokens(x[..., own.start]), [table])
        return found

    def add_by_tables(self, d_tables: Sequence[Real | None], x: Any, d_x: Real) -> None:
        for (part, own, into), d_table in zip(self._embedded_places(), d_tables, strict=True):
            part.add_by_tables([d_table], _as_tokens(x[..., own.start]), d_x[..., into])

    def places(self) -> Iterator[tuple[Tokens | Features, slice, slice]]:
        """Each part, with its columns, and the inputs of layers that they become."""
        start, first = 0, 0
        for part in self.parts:
            stop, last = start + _n_columns(part), first + part.width
            yield part, slice(start, stop), slice(first, last)
            start, first = stop, last

    def _embedded_places(self) -> list[tuple[Tokens | Features, slice, slice]]:
        return [place for place in self.places() if place[0].embedded]


def _n_columns(part: Tokens | Features) -> int:
    return part.n if isinstance(part, Features) else 1


def _as_tokens(column: Real) -> Int:
    """(T, B): beyond the lengths, where there may be NaN, any number."""
    with np.errstate(invalid="ignore"):
        return column.astype(np.int64)


def _check_tokens(column: Real, name: str, c: int, n: int, is_read: Any) -> None:
    """Integers from 0 to n - 1, where they are read."""
    with np.errstate(invalid="ignore"):
        wrong = ~((column >= 0) & (column < n) & (column % 1 == 0))
    if is_read is not None:
        wrong &= is_read
    for where in np.argwhere(wrong)[:1].tolist():
        value = column[tuple(where)]
        raise ValueError(f"{name} must hold tokens from 0 to {n - 1} in column {c}, got {value:g} at {[*where, c]}")
