"""The four shapes of a task: what has one item for each step, and what one for each sequence."""

from __future__ import annotations

from typing import NamedTuple


class Pattern(NamedTuple):
    """What has one item for each sequence instead of one for each step."""

    one_input: bool
    one_output: bool


PATTERNS = {
    "many-to-many": Pattern(one_input=False, one_output=False),
    "many-to-one": Pattern(one_input=False, one_output=True),
    "one-to-one": Pattern(one_input=True, one_output=True),
    "one-to-many": Pattern(one_input=True, one_output=False),
}
