"""The values that parameters begin with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from elman.typing import Real

INITIALIZATIONS = ("uniform", "orthogonal", "identity")  # of weight_hh


def draw_uniform(arrays: Iterable[Real], n_units: int, rng: np.random.Generator) -> None:
    """Fill arrays from ±1/√n: drawn in float64, one array after the other, so that the two dtypes agree."""
    bound = 1 / math.sqrt(n_units)
    for array in arrays:
        array[...] = rng.uniform(-bound, bound, array.shape)


def draw_layers(
    parameters: Mapping[str, Real], rng: np.random.Generator, initialization: str, spectral_radius: float | None
) -> None:
    """Fill the parameters of layers, by name and in the user's shapes, as `RNN` describes it; leaks stay."""
    drawn = (array for name, array in parameters.items() if not name.startswith("leak"))
    draw_uniform(drawn, len(parameters["weight_hh_l0"]), rng)
    for name, array in parameters.items():
        if initialization == "identity" and name.startswith("bias"):
            array[...] = 0
        if not name.startswith("weight_hh"):
            continue
        if initialization == "orthogonal":
            q, r = np.linalg.qr(rng.standard_normal(array.shape))
            array[...] = q * np.sign(np.diag(r))  # with these signs all rotations are equally likely
        elif initialization == "identity":
            array[...] = np.eye(len(array))
        if spectral_radius is not None:
            weight = array.astype(np.float64)
            array[...] = weight * (spectral_radius / np.abs(np.linalg.eigvals(weight)).max())
