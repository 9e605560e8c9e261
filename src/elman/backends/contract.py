"""The objects of the kernel contract: what a backend's functions are handed, in the words of csrc/elman.h.

``T, B, I, H, O, D``: time steps, batch, inputs, hidden units, outputs, directions (1 or 2), and K the units that a
readout sees. All reals have one dtype, float32 or float64; tokens and lengths are int64. No array that is written may
overlap another one. What is computed, `elman.backends.reference` says.

An array's annotation names its extents, ``DH`` being D·H, and says what else is expected of it, which `native.pyx`
holds it against before it becomes a pointer: nothing for a C-contiguous array; "rows" for one over time, with any
strides on T and B and unit stride on the last axis; "steps" for any strides; "out" where it is written or added to;
"forward" where backward does not look at it; "tokens" where it may also be integers without the last axis, of any
strides; "integers" and "booleans" where it holds no reals. None is taken where its type has it.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman.backends.activations import Activation
from elman.typing import Bool, Int, Real

LOSSES = ("cross_entropy", "binary_cross_entropy", "squared_error", "linear")  # enum elman_loss
# enum elman_law: how a number is read from its units, of which there are so many at least
LAWS = {"value": 1, "quantiles": 1, "normal": 2, "student_t": 3, "counts": 1}


class Layer(NamedTuple):
    """One layer over a sequence, both directions."""

    x: Annotated[Real | Int, "T B I rows tokens"]  # tokens are below I
    h_0: Annotated[Real, "D B H"]
    weight_ih: Annotated[Real, "D I H"]
    weight_hh: Annotated[Real, "D H H"]
    bias: Annotated[Real | None, "D H"]
    y: Annotated[Real, "T B DH rows out"]  # of forward; backward reads it. Direction d in columns d·H to (d + 1)·H
    h_n: Annotated[Real | None, "D B H out forward"]  # each row's state after its own last step
    activation: str | Activation
    lengths: Annotated[Int | None, "B integers"] = None  # each from 0 to T; None for T
    mask: Annotated[Real | None, "D B H"] = None  # multiplies the recurrent input
    reverse: bool = False  # whether direction 0 runs backwards in time, as direction 1 always does; needs D = 1
    cell: str = "elman"
    numbers: Annotated[Real | None, "D H"] = None  # the cell's own, one for each unit
    second: Annotated[Real | None, "T B DH rows out"] = None  # what else the cell keeps of each step; as y
    noise: Annotated[Real | None, "D H"] = None  # times standard normals, it is added to the pre-activations
    keys: Annotated[Int | None, "B integers"] = None  # what the normals of each row are drawn with, as 64 bits
    dropped: Annotated[Real | None, "T B DH rows out"] = None  # as y: what dropout leaves of it, -0.0 where it drops
    dropout: float = (
        0.0  # with which probability it drops a unit; above 0, d_y is the gradient by `dropped`, a copy at 0
    )
    key: int = 0  # of what is drawn; below 2^64
    layer: int = 0  # in the stack, below 2^30: layers draw each their own
    first_step: int = 0  # of a longer sequence, which draws the same; first_step + T is at most 2^32
    resets: Annotated[Bool | None, "T B steps booleans"] = None  # where the state before a step is h_reset; needs D = 1
    h_reset: Annotated[Real | None, "D B H"] = None  # there if and only if resets are


class Gradients(NamedTuple):
    """What `backward` goes from, and what it writes."""

    d_y: Annotated[Real | None, "T B DH rows"]  # None for zeros
    d_h_n: Annotated[Real | None, "D B H"]  # None for zeros
    delta: Annotated[Real, "T B DH rows out"]  # by the pre-activations
    d_weight_ih: Annotated[Real | None, "D I H out"]  # added to; None, as for the next two, where it is not wanted
    d_weight_hh: Annotated[Real | None, "D H H out"]  # added to
    d_bias: Annotated[Real | None, "D H out"]  # added to
    d_h_0: Annotated[Real, "D B H out"]
    d_x: Annotated[Real | None, "T B I rows out"]  # needs real x
    carry: Annotated[Real | None, "D B H out"] = None  # scratch of cells whose states reach the next one directly
    d_numbers: Annotated[Real | None, "D B H out"] = None  # added to, for each row by itself
    d_noise: Annotated[Real | None, "D B H out"] = None  # the same
    d_h_reset: Annotated[Real | None, "D B H out"] = None  # the same


class Readout(NamedTuple):
    """The readout o = h weight + bias and, for `readout_loss`, its loss and gradients."""

    h: Annotated[Real, "T B K rows"]
    weight: Annotated[Real, "K O"]
    bias: Annotated[Real | None, "O"]
    o: Annotated[Real, "T B O rows out"]  # the outputs; with gradients, that by the outputs; otherwise scratch
    target: Annotated[Real | Int | None, "T B O rows tokens"] = None  # categories, a negative one for none
    loss: str = ""
    scale: float = 1.0  # of the gradients; the returned sum of the loss is unscaled
    lengths: Annotated[Int | None, "B integers"] = None
    weights: Annotated[Real | None, "T B steps"] = None  # of each step's loss, 0: no target; None for 1
    d_h: Annotated[Real | None, "T B K rows out"] = None  # with all three None, the loss alone
    d_weight: Annotated[Real | None, "K O out"] = None  # added to
    d_bias: Annotated[Real | None, "O out"] = None  # added to


class Generation(NamedTuple):
    """Steps of B rows (T = D = 1) one after the other, each of which reads what the one before has drawn.

    A number is drawn from O / n units, as its law says: the value of the first; the quantile of a rank, whose units may
    cross; or the mean of a distribution or, with uniforms, a number from it. From "counts" nothing is drawn but means.
    """

    layers: Sequence[Layer]  # from the states before the first step; those above the first read the y of the one below
    readout: Readout  # of the last layer's y; its loss says what outputs are
    drawn: Real | Int  # written: categories, int64 (N, B), or reals (N, B, n)
    uniforms: NDArray[np.float64] | None = None  # (N, B, U) in [0, 1), U = 1, n labels or 2 n. None: the likeliest
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    end: int | None = None  # the category that is the last one
    law: str = "value"
    rank: int = 0
    outputs: Real | None = None  # written: (N, B, O), those that numbers were drawn from
    beside: Real | None = None  # (N, B, I - n): the columns of x behind what is drawn. None: zeros before it
    affine: Real | None = None  # (2, n): what is drawn is fed times the first, plus the second


class Update(NamedTuple):
    """One step of an optimizer, all arrays (n,)."""

    rule: str
    parameters: Real  # changed
    gradient: Real
    memories: tuple[Real, ...]  # what the rule keeps from step to step: changed
    numbers: tuple[float, ...]  # the rule's own, in its order
