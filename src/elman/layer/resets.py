"""Where rows begin anew: before some of their steps, the state of every layer becomes the initial one."""

from __future__ import annotations

from typing import NamedTuple

from elman import check
from elman.backends.contract import Layer
from elman.typing import Bool, Real


class Resets(NamedTuple):
    """Before which steps, and with which states: of layers in one direction."""

    at: Bool  # (T, B)
    states: Real  # (L, B, H)


def check_forward(runs_back: str | None, name: str = "resets") -> None:
    """Refuse them where a direction begins at the end."""
    if runs_back:
        check.refuse(
            f"{name} must be None with {runs_back}: that direction begins at the end. "
            "Give the pieces between resets as sequences of their own"
        )


def with_resets(layers: list[Layer], resets: Resets | None) -> list[Layer]:
    """The layers of a pass that has them."""
    if resets is None:
        return layers
    at, states = resets
    return [layer._replace(resets=at, h_reset=states[k : k + 1]) for k, layer in enumerate(layers)]


def in_stretch(resets: Resets | None, start: int, stop: int) -> Resets | None:
    """Those of the steps from `start` to `stop`, if there are some."""
    return None if resets is None else resets._replace(at=resets.at[start:stop])
