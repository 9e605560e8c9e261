"""What kinds of input and output have in common: settings, some of which `fit` may learn from its data."""

from __future__ import annotations

import contextlib
import copy
import reprlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

import numpy as np

from elman import check
from elman.attributes import Checked
from elman.data.scaler import Scaler, fitted, scaled

_LARGE = 1e3  # the size of targets: Adam moves a bias by about lr in an update, so that 1e-3 takes a million of them
_MOST_SHOWN = 10  # of the items of a setting


class Kind(Checked):
    """One of n things at each step, or n of them. Equal ones have the same settings."""

    _fixed = frozenset(("n",))
    _learnable: ClassVar[frozenset[str]] = frozenset(("scaler",))  # the settings that the data of `fit` may say
    n: int
    labels: Any = None  # what stands in the place of integers: see Named
    scaler: Scaler | None = None  # of real numbers

    def __init__(self, n: int) -> None:
        self.n = check.size(n, "n")

    def _put_scaler(self, scaler: Any) -> None:
        """One that a constructor is given, perhaps none."""
        if scaler is not None:
            if check.kind(scaler, "scaler", (Scaler,)).mean is not None:
                check.shape(scaler.mean.shape, "mean of scaler", ((self.n,),))
            self._put(scaler=copy.copy(scaler))

    def _put(self, **values: Any) -> None:
        """In the place of what is so by default: attributes that others cannot set."""
        self.__dict__.update(values)

    def settings(self) -> dict[str, Any]:
        """The arguments besides n that are not as by default."""
        each = {name: getattr(self, name) for name in self._fixed if name != "n"}
        each = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in each.items()}
        defaults = {name: getattr(type(self), name) for name in each}
        return {k: value for k, value in sorted(each.items()) if value is not None and value != defaults[k]}

    def __repr__(self) -> str:
        own = (f"{name}={_shown(value)}" for name, value in self.settings().items())
        return f"{type(self).__name__}({', '.join([str(self.n), *own])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self._in_full() == other._in_full()

    def __hash__(self) -> int:
        return hash(self._in_full())

    def _in_full(self) -> str:
        return f"{type(self).__name__}({self.n}, {self.settings()!r})"

    def named(self, codes: Any) -> Any:
        """Numbers as the labels that they stand for, if there are some."""
        return codes

    def check_known(self) -> None:
        """Refuse what labels are needed for where they are not known yet."""

    # What `fit` learns

    @property
    def waits_for(self) -> str | None:
        """The setting that the data of `fit` have yet to say, as it was given; None where all are known."""
        return None if self.scaler is None or self.scaler.mean is not None else "scaler=Scaler()"

    def one_s_own(self) -> Self:
        """Itself or, if it will change, a copy."""
        return copy.copy(self) if self.waits_for else self

    @property
    def learned(self) -> dict[str, Any]:
        """The settings that data may say, as they are, by name; not those that are as by default."""
        return {name: value for name, value in vars(self).items() if name in self._learnable}

    def put_learned(self, values: dict[str, Any]) -> None:
        """What is known now, or not any more: such as `learned` returns, or a part of it."""
        self._put(**values)

    def learned_from(self, parts: Iterable[Any]) -> dict[str, Any]:
        """What the steps of a data set, (N,) or (N, n) at a time, say of the setting that it waits for."""
        return {"scaler": fitted(parts, self.n)}

    # What a scaler does

    def as_read(self, given: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """What data, or each of a list, become first for a model of this dtype: no digit goes before scaling."""
        if self.scaler is None:
            return dtype
        each = given if isinstance(given, (list, tuple)) else [given]
        are_single = all(getattr(one, "dtype", None) == np.float32 for one in each)
        return np.dtype(np.float32 if are_single else np.float64)

    def scaled(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """Inputs or targets (..., n), as they have been read, as layers and losses take them."""
        return values if self.scaler is None else scaled(self.scaler, values, dtype)


@contextlib.contextmanager
def as_before_if_untrained(network: Any, *kinds: Kind) -> Iterator[None]:
    """Forget what kinds learn in here if there is an error, or Ctrl-C, before a network has been trained with it."""
    before = [(kind, kind.learned) for kind in kinds if kind.waits_for]  # the others stay as they are, in a pickle, too
    parameters: Any = network.parameters.flat.copy() if before else None
    try:
        yield
    except BaseException:
        if before and np.array_equal(network.parameters.flat, parameters, equal_nan=True):
            for kind, values in before:
                kind.put_learned(values)
        raise


def learn(data: Any, inputs: Kind, outputs: Kind) -> None:
    """Let kinds learn what they wait for from what is trained on: what is held out is no part of the data."""
    for kind in (inputs, outputs):
        if kind.waits_for and not hasattr(data, "input_steps"):
            check.refuse(f"X must be data with {kind.waits_for}, which all of it says, got a function")
    if inputs.waits_for:
        inputs.put_learned(inputs.learned_from(data.input_steps()))
    if outputs.waits_for:
        outputs.put_learned(outputs.learned_from(data.target_steps()))


def _shown(value: Any) -> str:
    """Its repr; of more labels than one wants to see, of the first ones."""
    return repr(value) if not isinstance(value, (list, tuple)) or len(value) <= _MOST_SHOWN else reprlib.repr(value)


def take_over(kind: Kind, other: Kind) -> None:
    """What another one has learned, which was like this one."""
    if kind.waits_for:
        kind.put_learned(other.learned)


def warn_of_large(data: Any, outputs: Any) -> None:
    """Say so where targets, the first million of them, are far beyond what outputs soon come to."""
    if not outputs.needs_unit_size or not hasattr(data, "target_steps"):
        return
    squares = np.square(next(data.target_steps()), dtype=np.float64)
    there = ~np.isnan(squares)
    sizes = np.sqrt(squares.sum(axis=0, where=there) / np.maximum(there.sum(axis=0), 1))
    if (size := sizes.max()) > _LARGE:
        warnings.warn(
            f"targets are of size {size:.3g} (root mean square): training takes long to get there, if it does not "
            f"diverge. outputs=elman.Reals({outputs.n}, scaler=elman.Scaler()) scales them, and predictions back; "
            "in elman.sklearn it is scale=True",
            UserWarning,
            stacklevel=3,
        )
