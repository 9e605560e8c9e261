"""One time step as a function of the state before it, in NumPy, and its derivative."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class TimeStep(NamedTuple):
    """That of a layer of one direction, without noise and dropout, for states h (N, H) and inputs x (N or 1, I)."""

    weight_ih: Real  # (I, H)
    weight_hh: Real  # (H, H)
    bias: Any  # (H,), or 0
    leak: Real  # (H,)
    is_potential: bool
    nonlinearity: str | Activation

    @classmethod
    def of(cls, stack: Stack, nonlinearity: str | Activation, dtype: Any) -> TimeStep:
        """Of the first layer as it is now, computed in a dtype of its own."""
        weight_ih, weight_hh, bias = stack.weights_now()[0]
        numbers = next((of_layer.numbers for of_layer in stack.dynamics_now()), None)
        leak = np.ones(stack.architecture.hidden_size) if numbers is None else numbers[0]
        weights = weight_ih[0].astype(dtype), weight_hh[0].astype(dtype), 0 if bias is None else bias[0].astype(dtype)
        return cls(*weights, leak.astype(dtype), stack.dynamics.cell == "potential", nonlinearity)

    def __call__(self, h: Real, x: Real) -> Real:
        """The states after it, (N, H)."""
        f, _ = functions_of(self.nonlinearity)
        new = self._activity(f(h), x) if self.is_potential else f(self._activity(h, x))
        after: Real = (1 - self.leak) * h + self.leak * new
        return after

    def jacobian(self, h: Real, x: Real) -> Real:
        """∂h′/∂h, (N, H to, H from)."""
        f, derivative = functions_of(self.nonlinearity)
        weight = self.leak[:, None] * self.weight_hh.T
        if self.is_potential:
            found: Real = weight * derivative(f(h))[:, None, :]
        else:
            found = derivative(f(self._activity(h, x)))[:, :, None] * weight
        diagonal = np.einsum("nii->ni", found)  # a view
        diagonal += 1 - self.leak
        return found

    def _activity(self, y: Real, x: Real) -> Real:
        activity: Real = x @ self.weight_ih + y @ self.weight_hh + self.bias
        return activity
