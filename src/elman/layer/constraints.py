"""Signs and masks of weights: what kernels get is made of what is learned, element by element.

A weight W that is learned acts as mask ∘ W, and one from units that have signs as mask ∘ |W| · diag(signs): columns, as
users see them, have a sign (Dale's law; Song, Yang & Wang 2016). Computed once for each call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.layer.architecture import Architecture
from elman.layer.parameters import Parameters
from elman.layer.workspace import aligned_zeros
from elman.typing import Bool, Real

Mask = Bool | tuple[Bool | None, ...] | None  # of all layers, or one for each


class Factor(NamedTuple):
    """What an array of the buffer is multiplied by, in its form: (D, from, to), or with axes of 1."""

    values: Real
    is_signed: bool  # then it is its magnitude that is multiplied
    is_there: Any = True  # where the mask, if there is one, is not False; elsewhere a weight may be anything

    def effective(self, weight: Real) -> Real:
        """What acts."""
        into = aligned_zeros(weight.shape, weight.dtype)
        np.multiply(np.abs(weight) if self.is_signed else weight, self.values, out=into, where=self.is_there)
        return into

    def chain(self, tangent: Real, weight: Real) -> None:
        """Multiply by the derivative of what acts by the weight, in place; at 0, the slope of a magnitude is 1."""
        with np.errstate(all="ignore"):  # whoever uses it says if it is not finite
            tangent *= self.values
        if self.is_signed:
            np.negative(tangent, out=tangent, where=weight < 0)
        if self.is_there is not True:
            np.copyto(tangent, 0, where=~self.is_there)


Factors = dict[int, Factor]  # by the number of the array in its buffer


def chain(factors: Factors, tangents: Sequence[Any], arrays: Sequence[Real]) -> None:
    """Multiply arrays that lie like parameters by the derivative of what acts, in place; None are not wanted.

    So gradients by weights that act become those by the parameters, and tangents of these become those of what acts.
    """
    for i, factor in factors.items():
        if tangents[i] is not None:
            factor.chain(tangents[i], arrays[i])


def effective(factors: Factors, arrays: Sequence[Real]) -> list[Real]:
    """The arrays of a buffer as they act: fresh ones where there are factors, the same where there are none."""
    return [factors[i].effective(array) if i in factors else array for i, array in enumerate(arrays)]


def named(factors: Factors, parameters: Parameters, n_entries: int | None = None) -> dict[str, Real]:
    """Such arrays by name, as users see them, all fresh: of all entries, or of the first few."""
    pairs = zip(parameters.entries[:n_entries], effective(factors, parameters.arrays[:n_entries]), strict=True)
    return {name: array[d].T.copy() for entry, array in pairs for d, name in enumerate(entry.names)}


class Constraints(NamedTuple):
    """The arguments of `RNN` about it, once they are checked."""

    signs: NDArray[np.int8] | None = None  # (H,), or (L, H)
    excitatory: float | None = None
    mask_hh: Mask = None  # (H, H)
    mask_ih: Mask = None  # (H, I), of the first layer if it is alone; above, (H, D·H)

    @classmethod
    def of(cls, signs: Any, excitatory: Any, mask_hh: Any, mask_ih: Any, architecture: Architecture) -> Constraints:
        """From the arguments as they are given."""
        n_layers, n_units = architecture.num_layers, architecture.hidden_size
        if signs is not None and excitatory is not None:
            check.refuse("signs must be None where there is excitatory, which says how many units have which")
        return cls(
            None if signs is None else _signs(signs, n_layers, n_units),
            None if excitatory is None else check.probability(excitatory, "excitatory"),
            masks(mask_hh, "mask_hh", [(n_units, n_units)] * n_layers),
            masks(mask_ih, "mask_ih", [(n_units, n) for n in architecture.layer_inputs()]),
        )

    @property
    def have_signs(self) -> bool:
        """Whether units have signs, given or drawn."""
        return self.signs is not None or self.excitatory is not None

    def signs_of(self, k: int, n_units: int) -> NDArray[np.int8] | None:
        """Those of layer k's units, (H,)."""
        if self.excitatory is not None:
            n_excitatory = round(self.excitatory * n_units)
            return np.where(np.arange(n_units) < n_excitatory, 1, -1).astype(np.int8)
        return self.signs[k] if self.signs is not None and self.signs.ndim > 1 else self.signs

    def signs_before(self, k: int, architecture: Architecture) -> NDArray[np.int8] | None:
        """Those of what layer k reads, or with k = L the readout: inputs have none, units below their own (D·H,)."""
        own = None if k == 0 else self.signs_of(k - 1, architecture.hidden_size)
        return None if own is None else np.tile(own, architecture.n_directions)

    def factors(self, architecture: Architecture, dtype: np.dtype[Any]) -> Factors:
        """Those of the layers' arrays."""
        found, n_units = Factors(), architecture.hidden_size
        each = architecture.n_entries // architecture.num_layers
        for k in range(architecture.num_layers):
            first = self.mask_ih if isinstance(self.mask_ih, tuple) or k == 0 else None
            of_ih = factor(_of(first, k), self.signs_before(k, architecture), dtype)
            of_hh = factor(_of(self.mask_hh, k), self.signs_of(k, n_units), dtype)
            found |= {k * each + i: one for i, one in enumerate((of_ih, of_hh)) if one is not None}
        return found


class ReadoutConstraints(NamedTuple):
    """The arguments of a model about weight_ho, once they are checked."""

    mask_ho: Bool | None = None  # (O, D·H)
    readout_from: str | None = None

    @classmethod
    def of(
        cls, mask_ho: Any, readout_from: Any, n_outputs: int, layers: Constraints, architecture: Architecture
    ) -> ReadoutConstraints:
        """From the arguments as they are given, and the layers below."""
        if readout_from is not None:
            if readout_from != "excitatory":
                given = f"readout_from must be None or 'excitatory', got {check.shown(readout_from)}"
                raise (ValueError if isinstance(readout_from, str) else TypeError)(f"{given}: for others give mask_ho")
            signs = layers.signs_before(architecture.num_layers, architecture)
            if signs is None or signs.max() < 0:
                check.refuse("readout_from='excitatory' needs units with the sign +1: give signs or excitatory")
        shape = n_outputs, architecture.n_outputs
        return cls(None if mask_ho is None else _mask(mask_ho, "mask_ho", shape), readout_from)

    def factor(self, layers: Constraints, architecture: Architecture, dtype: np.dtype[Any]) -> Factor | None:
        """What weight_ho is multiplied by."""
        signs = None if self.readout_from is None else layers.signs_before(architecture.num_layers, architecture)
        if signs is None:
            return factor(self.mask_ho, None, dtype)
        return factor(np.logical_and(True if self.mask_ho is None else self.mask_ho, signs[None] > 0), None, dtype)


def of_rnn(rnn: Any) -> Constraints:
    """What an RNN has been made with."""
    return Constraints(*(getattr(rnn, name) for name in NAMES))


NAMES = Constraints._fields  # arguments of `RNN`


def factor(mask: Bool | None, signs: NDArray[np.int8] | None, dtype: np.dtype[Any]) -> Factor | None:
    """From a mask (to, from) and the signs (from,)."""
    if mask is None and signs is None:
        return None
    is_there: Any = True if mask is None else np.ascontiguousarray(mask.T[None])
    values = np.ones((1, 1, 1), dtype) if mask is None else is_there.astype(dtype)
    return Factor(values if signs is None else values * signs.astype(dtype)[:, None], signs is not None, is_there)


def draw_balanced(weight: Real, values: Real, n_units: int) -> None:
    """Scale the magnitudes of a weight (from, to), in place, so that what comes to a unit by either sign is balanced.

    values: those of its factor, (from, to). To each unit, excitation and inhibition are equal in sum, which leaves no
    eigenvalue outside the circle of the random part (Rajan & Abbott 2006); the radius of that becomes the 1/√3 of
    weights that are uniform in ±1/√H. A unit that is reached by one sign alone gets 1/√3 as sum of magnitudes.
    """
    size = np.abs(weight.astype(np.float64)) * np.abs(values)
    positive, negative = (np.where(s * values > 0, size, 0).sum(axis=0) for s in (1, -1))
    both = (positive > 0) & (negative > 0)
    with np.errstate(all="ignore"):
        scales = np.where(both & (values < 0), positive / negative, 1.0)
        squares = np.square(size * scales).sum(axis=0)
        # The variance is the mean square without the squared mean, of which those that there are have 3/4: magnitudes
        # are uniform from 0.
        variances = squares * (1 - 3 / 4 * (size > 0).mean(axis=0))
        of_both = np.sqrt(len(weight) / n_units / 3 / variances)
        scales *= np.where(both, of_both, 1 / (math.sqrt(3) * size.sum(axis=0)))
    weight *= np.where(np.isfinite(scales), scales, 1)


# Arguments


def masks(value: Any, name: str, shapes: Sequence[tuple[int, int]]) -> Mask:
    """Booleans of the first shape, or a list of one or None for each layer; copies that nobody can write to."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        return _mask(value, name, shapes[0])
    if len(value) != len(shapes):
        raise ValueError(f"{name} must be an array or a list of one for each of {len(shapes)} layers, got {len(value)}")
    pairs = zip(value, shapes, strict=True)
    return tuple(None if one is None else _mask(one, f"{name}[{k}]", own) for k, (one, own) in enumerate(pairs))


def _mask(value: Any, name: str, shape: tuple[int, int]) -> Bool:
    own: Bool = unwritable(check.booleans(value, name, shape))
    return own


def _signs(value: Any, n_layers: int, n_units: int) -> NDArray[np.int8]:
    array = check.as_array(value, "signs")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"signs must be ±1 for each unit, ({n_units},) or (L, {n_units}), got {check.shown(value)}")
    check.shape(array.shape, "signs", ((n_units,), (n_layers, n_units)))
    wrong = array[np.abs(array) != 1]
    if wrong.size:
        raise ValueError(f"signs must be +1 or -1 for each unit, got {wrong[0]}")
    own: NDArray[np.int8] = unwritable(array.astype(np.int8))
    return own


def unwritable(value: Any) -> Any:
    """Copies of arrays that nobody can write to, as what they say has been made use of."""
    if isinstance(value, tuple):
        return tuple(map(unwritable, value))
    if not isinstance(value, np.ndarray):
        return value
    own = np.array(value, order="C")
    own.setflags(write=False)
    return own


def _of(mask: Mask, k: int) -> Bool | None:
    return mask[k] if isinstance(mask, tuple) else mask


# In files


def described(arguments: Constraints | ReadoutConstraints) -> dict[str, Any]:
    """By name, as JSON has them; those that are None are left out."""
    return {name: _as_json(value) for name, value in arguments._asdict().items() if value is not None}


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [None if one is None else _as_json(one) for one in value]
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return {"shape": list(value.shape), "bits": np.packbits(value).tobytes().hex()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def from_json(value: Any, name: str) -> Any:
    """The argument of this name that it stands for. What is wrong is an error of any kind."""
    if isinstance(value, list) and name.startswith("mask"):
        return [None if one is None else from_json(one, name) for one in value]
    if not isinstance(value, Mapping):
        return value
    check.same_names(value, ("shape", "bits"), name)
    rows, columns = check.pair(value["shape"], f"the shape of {name}")
    n = check.size(rows, "rows") * check.size(columns, "columns")
    packed = np.frombuffer(bytes.fromhex(check.text(value["bits"], f"the bits of {name}")), np.uint8)
    check.same_count(len(packed), -(-n // 8), f"the bytes of {name}", "those of its shape")
    return np.unpackbits(packed, count=n).astype(bool).reshape(rows, columns)
