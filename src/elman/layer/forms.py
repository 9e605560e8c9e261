"""TODO"""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import check
from elman.typing import Real


def real_sequences(value: Any, name: str, dtype: np.dtype[Any], *shapes: check.Shape) -> list[Real]:
    """One array for each of the shapes, whose first axes may be empty."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of {len(shapes)} arrays, got {check.shown(value)}")
    if len(value) != len(shapes):
        raise ValueError(f"{name} must be a list of {len(shapes)} arrays, got {len(value)}")
    return [
        check.real_array(item, f"{name}[{i}]", dtype, shape, allow_empty=True)
        for i, (item, shape) in enumerate(zip(value, shapes, strict=True))
    ]
