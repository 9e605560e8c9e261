"""ONNX's operator RNN in elman's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray
from onnx import NodeProto, helper

from elman import check
from elman.convert import from_onnx
from elman.layer.rnn import RNN

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "identity": "Affine"}
_NONLINEARITIES = {activation.lower(): name for name, activation in ACTIVATIONS.items()}
_DIRECTIONS = ("forward", "reverse", "bidirectional")
_ATTRIBUTES = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout")
_DTYPES = ("float32", "float64")


class Weights(NamedTuple):
    """Inputs of a node: W (D, H, I), R (D, H, H) and B (D, 2·H) or None."""

    W: NDArray[Any]
    R: NDArray[Any]
    B: NDArray[Any] | None


class Operator(NamedTuple):
    """What the attributes of a node say."""

    nonlinearity: str
    direction: str
    hidden_size: int | None
    batch_first: bool  # layout 1

    @classmethod
    def of(cls, attributes: Mapping[str, Any], who: str) -> Operator:
        """From values by name, None where they are not given; a ValueError names what elman has not."""
        given = {name: value for name, value in attributes.items() if value is not None}
        for name in given:
            check.choice(name, f"the name of each attribute of {who}", _ATTRIBUTES)
        if "clip" in given:
            check.refuse(f"clip of {who} must not be there, got {given['clip']}: elman does not clip pre-activations")
        direction = check.choice(_text(given.get("direction", "forward")), f"direction of {who}", _DIRECTIONS)
        layout = check.below(given.get("layout", 0), f"layout of {who}", 2)
        return cls(_nonlinearity(given, direction, who), direction, given.get("hidden_size"), layout == 1)

    @property
    def n_directions(self) -> int:
        return _n_directions(self.direction)

    def check_weights(self, weights: Weights, who: str) -> None:
        """Refuse shapes and types that contradict the attributes or each other."""
        n, hidden_size = self.n_directions, weights.R.shape[-1] if weights.R.ndim else 0
        if self.hidden_size is not None:
            check.same_count(self.hidden_size, hidden_size, f"hidden_size of {who}", "columns of R")
        shapes: dict[str, check.Shape] = {"W": (n, hidden_size, "I"), "R": (n, hidden_size, hidden_size)}
        for name, shape in (shapes | {"B": (n, 2 * hidden_size)}).items():
            array = getattr(weights, name)
            if array is not None:
                check.choice(array.dtype.name, f"the type of {name} of {who}", _DTYPES)
                check.choice(array.dtype.name, f"the type of {name} of {who}", [weights.R.dtype.name])
                check.shape(array.shape, f"{name} of {who}", [shape])

    def network(self, layers: Sequence[Weights], **options: Any) -> RNN:
        """Layers with these weights, which have been checked, above one another."""
        first = layers[0]
        rnn = RNN(
            first.W.shape[2],
            first.R.shape[2],
            len(layers),
            self.nonlinearity,
            bias=any(layer.B is not None for layer in layers),
            bidirectional=self.direction == "bidirectional",
            reverse=self.direction == "reverse",
            dtype=first.R.dtype,
            seed=0,
            **options,
        )
        rnn.load_state_dict(from_onnx(layers))
        return rnn


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def shown(node: NodeProto) -> str:
    """A node in a message."""
    return f"its {node.op_type} node {check.shown(node.name or ', '.join(node.output))}"


def _n_directions(direction: str) -> int:
    return 2 if direction == "bidirectional" else 1


def _nonlinearity(given: Mapping[str, Any], direction: str, who: str) -> str:
    n_directions = _n_directions(direction)
    names = [_text(name).lower() for name in given.get("activations", ["tanh"] * n_directions)][:n_directions]
    check.same_count(len(names), n_directions, f"activations of {who}", "directions")
    if len({*names}) > 1:
        check.refuse(f"activations of {who} must be the same in both directions, got {names}: elman has one for all")
    if names[0] not in _NONLINEARITIES:
        known = check.listed(ACTIVATIONS.values())
        check.refuse(f"activations of {who} must be one of {known}, got {check.shown(names[0].capitalize())}")
    if names[0] == "affine":
        for name, neutral in ("activation_alpha", 1), ("activation_beta", 0):
            wrong = [value for value in given.get(name, ()) if value != neutral]
            if wrong:
                check.refuse(f"{name} of {who} must be {neutral} for Affine, elman's identity, got {wrong[0]}")
        if len(given.get("activation_alpha", ())) < n_directions:  # ONNX has no default, and others take 0
            check.refuse(f"activation_alpha of {who} must be there for Affine, 1 for each direction")
    return _NONLINEARITIES[names[0]]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
