"""Rows of unequal length side by side: which steps are a row's own, and what a stretch of steps has of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman.typing import Int


def within(n_steps: int, lengths: Int) -> NDArray[np.bool_]:
    """Which of the steps (T, B) are within the rows' lengths (B,)."""
    mask: NDArray[np.bool_] = np.arange(n_steps)[:, None] < lengths
    return mask


def clipped(lengths: Int | None, start: int, n_steps: int) -> Int | None:
    """How many of the n steps from `start` on are within the lengths (B,); None, for all, if there are no lengths."""
    return None if lengths is None else (lengths - start).clip(0, n_steps)


def n_within(steps: NDArray[Any], lengths: Int | None) -> int:
    """How many of the steps (T, B, ·) there are within the lengths (B,)."""
    return steps.shape[0] * steps.shape[1] if lengths is None else int(lengths.sum())
