"""What `accelerate` says of a model, whatever framework it is of."""

from __future__ import annotations

from typing import NamedTuple


class Report(NamedTuple):
    """What `accelerate` did, by the names that layers have in the model; that of the model itself may be empty.

    Attributes
    ----------
    replaced : tuple of str
    left : dict from str to str
        The other recurrent layers, with the reason why they were left.
    own : tuple of str
        Those that were elman's before.

    Examples
    --------
    >>> Report(("encoder",), {"decoder": "elman has no GRU"})
    encoder: replaced
    decoder: left, elman has no GRU
    """

    replaced: tuple[str, ...]
    left: dict[str, str]
    own: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [f"{_shown(name)}: replaced" for name in self.replaced]
        lines += [f"{_shown(name)}: elman's before" for name in self.own]
        lines += [f"{_shown(name)}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent layers"


def _shown(name: str) -> str:
    return name or "the model"
