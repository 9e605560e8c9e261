"""What a model of sequences is about: kinds of input and output, and a pattern, one of the four shapes of a task."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from elman import check
from elman.data.columns import Columns
from elman.data.inputs import Features, Input, Tokens
from elman.data.outputs import Categories, Output
from elman.typing import Int, Real


class Pattern(NamedTuple):
    """What has one item for each sequence instead of one for each step."""

    one_input: bool
    one_output: bool

    @property
    def name(self) -> str:
        """The one that a user knows it by."""
        return f"{'one' if self.one_input else 'many'}-to-{'one' if self.one_output else 'many'}"


_ALL = Pattern(False, False), Pattern(False, True), Pattern(True, True), Pattern(True, False)
PATTERNS = {pattern.name: pattern for pattern in _ALL}


class Kinds(NamedTuple):
    """What goes in, what comes out, in which pattern, and the dtype of what is computed."""

    inputs: Input
    outputs: Output
    pattern: Pattern
    dtype: np.dtype[Any]

    @property
    def feeds_back(self) -> bool:
        """Whether outputs are the inputs of the step after them, also in training: "one-to-many"."""
        return self.pattern.one_input and not self.pattern.one_output

    @property
    def input_size(self) -> int:
        """The I of the layers: features have what is fed back beside them."""
        is_beside = self.feeds_back and isinstance(self.inputs, Features)
        return self.inputs.width + (self.outputs.n if is_beside else 0)

    def check_feedback(self) -> None:
        """Refuse to feed back what cannot be an input."""
        if self.feeds_back and not self.outputs.may_feed:
            check.refuse(f"pattern='one-to-many' needs outputs that are the next step's inputs, got {self.outputs}")
        if self.feeds_back and isinstance(self.inputs, Columns):
            check.refuse(f"pattern='one-to-many' needs inputs that are Tokens or Features, got {self.inputs}")
        if self.outputs.is_of_sequences and (self.pattern.one_input or self.pattern.one_output):
            check.refuse(f"pattern must be 'many-to-many' with {self.outputs}, got {self.pattern.name!r}")
        is_token = isinstance(self.outputs, Categories) and self.outputs.n <= self.inputs.n
        if self.feeds_back and isinstance(self.inputs, Tokens) and not is_token:
            check.refuse(
                f"pattern='one-to-many' with tokens needs outputs that are inputs, got {self.outputs} and {self.inputs}"
            )
        if self.feeds_back and isinstance(self.inputs, Tokens):
            self.check_labels("pattern='one-to-many'")

    def check_labels(self, what: str) -> None:
        """Refuse categories with other labels than the tokens that they become, or share vectors with."""
        one, other = self.inputs.labels, self.outputs.labels
        one = one[: len(other)] if isinstance(one, tuple) and isinstance(other, tuple) else one
        if one != other:
            check.refuse(f"{what} needs outputs with the labels of the inputs, got {self.outputs} and {self.inputs}")

    def taught(self, x: Real | Int, y: Real | Int) -> Real | Int:
        """Teacher forcing: the first input x (1, B, ·), then the target of the step before (T, B, ·).

        What is fed back at a step without target does not matter, as no target comes after it. Where nothing is fed
        back, x is returned.
        """
        if not self.feeds_back:
            return x
        if isinstance(self.inputs, Tokens):
            return np.concatenate([x, y[:-1].clip(0, self.outputs.n - 1)])
        taught = np.zeros((*y.shape[:2], self.input_size), self.dtype)
        taught[0, :, : self.inputs.n] = x[0]
        self.outputs.feed(y[:-1], taught[1:, :, self.inputs.n :])
        return taught
