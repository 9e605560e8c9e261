"""The derivative of one time step by the state before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.backends.activations import Activation
from elman.backends.reference import ACTIVATIONS
from elman.layer.stack import Stack
from elman.typing import Real


def functions_of(nonlinearity: str | Activation) -> Any:
    """f(a), and f' as a function of y = f(a), in NumPy."""
    if isinstance(nonlinearity, Activation):
        return nonlinearity.apply, nonlinearity.derivative
    return ACTIVATIONS[nonlinearity]


def jacobians(stack: Stack, nonlinearity: str | Activation, h: Real, x: Real) -> Real:
    """∂h′/∂h (N, H, H) of the first layer's one direction, for states h (N, H) and inputs x (N, I)."""
    ((weight_ih,), (weight_hh,), bias), (f, derivative) = stack.weights_now()[0], functions_of(nonlinearity)
    leak, weight = np.ones(len(weight_hh), h.dtype), weight_hh.T  # (H to, H from)
    for of_layer in stack.dynamics_now():
        leak = leak if of_layer.numbers is None else of_layer.numbers[0]
    if stack.dynamics.cell == "potential":
        found: Real = leak[:, None] * weight * derivative(f(h))[:, None, :]
    else:
        a = x @ weight_ih + h @ weight_hh
        slopes = derivative(f(a if bias is None else a + bias[0]))
        found = (leak * slopes)[:, :, None] * weight
    diagonal = np.einsum("nii->ni", found)  # a view
    diagonal += 1 - leak
    return found
