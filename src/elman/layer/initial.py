"""The values that parameters begin with."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from elman import check
from elman.layer.constraints import Factors, draw_balanced, named
from elman.layer.parameters import Parameters
from elman.typing import Real

INITIALIZATIONS = ("uniform", "orthogonal", "identity")  # of weight_hh


def draw_uniform(arrays: Iterable[Real], n_units: int, rng: np.random.Generator) -> None:
    """Fill arrays from ±1/√n: drawn in float64, one array after the other, so that the two dtypes agree."""
    bound = 1 / math.sqrt(n_units)
    for array in arrays:
        array[...] = rng.uniform(-bound, bound, array.shape)


def draw_layers(
    parameters: Parameters,
    factors: Factors,
    rng: np.random.Generator,
    initialization: str,
    spectral_radius: float | None,
) -> None:
    """Fill the parameters of layers as `RNN` describes it; leaks stay."""
    arrays = parameters.named()
    n_units = len(arrays["weight_hh_l0"])
    draw_uniform((array for name, array in arrays.items() if not name.startswith("leak")), n_units, rng)
    for name, array in arrays.items():
        if initialization == "identity" and name.startswith("bias"):
            array[...] = 0
        if not name.startswith("weight_hh"):
            continue
        if initialization == "orthogonal":
            q, r = np.linalg.qr(rng.standard_normal(array.shape))
            array[...] = q * np.sign(np.diag(r))  # with these signs all rotations are equally likely
        elif initialization == "identity":
            array[...] = np.eye(len(array))
    for i, (values, is_signed, _) in factors.items():
        if not is_signed:
            continue
        for weight in parameters.arrays[i]:
            draw_balanced(weight, np.broadcast_to(values[0], weight.shape), n_units)
    if spectral_radius is not None:
        for name, acting in named(factors, parameters).items():
            if name.startswith("weight_hh"):
                _scale_to(arrays[name], acting.astype(np.float64), spectral_radius, name)


def _scale_to(array: Real, weight: Real, spectral_radius: float, name: str) -> None:
    """Scale an array (H, H), which acts as the weight, to what makes that of the weight."""
    radius = float(np.abs(np.linalg.eigvals(weight)).max())
    if radius <= 1e-4 * np.linalg.norm(weight):  # rounding alone makes so much, of some matrices
        reason = "as its units form no cycle, or excitation and inhibition cancel out"
        check.refuse(f"spectral_radius must be None where {name} has no eigenvalue but 0, {reason}")
    array[...] = array.astype(np.float64) * (spectral_radius / radius)
