"""The wall: what the compiled backends say about an array that a kernel must not get.

Where arrays become pointers, `native.pyx` (Call) holds every array against the others and what contract.py says of it:
dtype, extents, strides, alignment, lengths and tokens, in integer comparisons. What a user passes has been refused
before, in better words; what is refused here is a mistake in elman, or a direct call of a backend. Nothing has been
written then.
"""

from __future__ import annotations

from typing import Any, NoReturn

# What can be wrong, in the order in which it is looked at (`Call.fault`)
NO_ARRAY, DTYPE, SHAPE, STRIDES, ALIGNMENT, READ_ONLY, VALUES = range(1, 8)

_EXPECTED = {
    NO_ARRAY: "an array",
    DTYPE: "int64 for tokens and lengths, bool for resets, one dtype for all others, float32 or float64, in the "
    "machine's byte order",
    SHAPE: "extents that fit the other arrays'",
    STRIDES: "unit stride on the last axis, and beyond that what contract.py says",
    ALIGNMENT: "a multiple of the item size as its address and its strides",
    READ_ONLY: "an array that can be written to",
    VALUES: "lengths from 0 to T, tokens and targets within the table",
}


def refuse(name: str, fault: int, array: Any) -> NoReturn:
    """Raise the error for an argument of the kernel contract."""
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", type(array).__name__)
    strides = getattr(array, "strides", None)
    error = TypeError if fault in (NO_ARRAY, DTYPE) else ValueError
    raise error(f"{name}: expected {_EXPECTED[fault]}; got {dtype} of shape {shape} and strides {strides}")
