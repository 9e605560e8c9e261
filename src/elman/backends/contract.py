"""The objects of the kernel contract: what a backend's functions are handed, in the words of csrc/elman.h.

``T, B, I, H, O, D``: time steps, batch, inputs, hidden units, outputs, directions (1 or 2). Arrays over time are
(T, B, ·) with any strides on T and B and unit stride on the last axis; tokens (T, B) and weights of steps have any
strides; everything else is C-contiguous. All reals have one dtype, float32 or float64; tokens and lengths are int64.
No array that is written may overlap another one. What is computed, `elman.backends.reference` says.
"""

from __future__ import annotations

from typing import NamedTuple

from elman.backends.activations import Activation
from elman.typing import Int, Real


class Layer(NamedTuple):
    """One layer over a sequence, both directions."""

    x: Real | Int  # (T, B, I), or tokens (T, B) below I
    h_0: Real  # (D, B, H)
    weight_ih: Real  # (D, I, H)
    weight_hh: Real  # (D, H, H)
    bias: Real | None  # (D, H); None for none
    y: Real  # (T, B, D·H): out of forward, into backward; direction d in columns d·H to (d + 1)·H
    h_n: Real | None  # (D, B, H): out of forward, each row's state after its own last step; backward needs none
    activation: str | Activation
    lengths: Int | None = None  # (B,), each from 0 to T; None for T
    mask: Real | None = None  # (D, B, H), multiplies the recurrent input; None for none
    reverse: bool = False  # whether direction 0 runs backwards in time, as direction 1 always does; needs D = 1


class Gradients(NamedTuple):
    """What `backward` goes from, and what it writes."""

    d_y: Real | None  # (T, B, D·H); None for zeros
    d_h_n: Real | None  # (D, B, H); None for zeros
    delta: Real  # (T, B, D·H): out
    d_weight_ih: Real  # (D, I, H): added to
    d_weight_hh: Real  # (D, H, H): added to
    d_bias: Real | None  # (D, H): added to, unless None
    d_h_0: Real  # (D, B, H): out
    d_x: Real | None  # (T, B, I): out, unless None; needs real x


class Readout(NamedTuple):
    """The readout o = h weight + bias and, for `readout_loss`, its loss and gradients."""

    h: Real  # (T, B, K)
    weight: Real  # (K, O)
    bias: Real | None  # (O,); None for none
    o: Real  # (T, B, O): out; with gradients, that by the outputs
    target: Real | Int | None = None  # (T, B) categories, a negative one for none; otherwise (T, B, O)
    loss: str = ""
    scale: float = 1.0  # of the gradients; the returned sum of the loss is unscaled
    lengths: Int | None = None  # (B,)
    weights: Real | None = None  # (T, B), of each step's loss, 0: no target; None for 1
    d_h: Real | None = None  # (T, B, K): out; None for the loss alone
    d_weight: Real | None = None  # (K, O): added to
    d_bias: Real | None = None  # (O,): added to, unless None


class Update(NamedTuple):
    """One step of an optimizer. All arrays are (n,)."""

    rule: str
    parameters: Real  # changed
    gradient: Real
    memories: tuple[Real, ...]  # what the rule keeps from step to step: changed
    numbers: tuple[float, ...]  # the rule's own, in its order
