"""Reading what `elman.onnx.export` wrote: the model that a file's configuration says, with the file's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from elman import check
from elman.layer import constraints
from elman.layer.architecture import Architecture
from elman.layer.rnn import RNN
from elman.models import configuration
from elman.models.base import network_of
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.onnx.export import CONFIG, DIGEST, digest

_KINDS = {"RNN": RNN, "SequenceModel": SequenceModel, "Seq2Seq": Seq2Seq}
_SIZES = "input_size", "hidden_size", "num_layers"


def is_own(model: onnx.ModelProto, entries: Mapping[str, str]) -> bool:
    """Whether `export` wrote the graph and its configuration, and both are as they were."""
    return CONFIG in entries and entries.get(DIGEST) == digest(model.graph, entries[CONFIG])


def load_own(model: onnx.ModelProto, config_text: str, metadata: dict[str, str], backend: str | None) -> Any:
    """The model. What is wrong is an error of any kind."""
    config = check.instance(json.loads(config_text), CONFIG, dict)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    kind = check.choice(config.get("kind"), f"kind of its {CONFIG}", _KINDS)
    arguments, n = _arguments(kind, {name: value for name, value in config.items() if name != "kind"})
    n_held = sum(array.size for array in constants.values())
    if n > n_held:
        check.refuse(f"its {CONFIG} stands for {n} parameters, of which it holds at most {n_held}")
    made: Any = _KINDS[kind](**arguments, backend=backend, seed=0)
    made.load_state_dict({name: _parameter(name, one.shape, constants) for name, one in made.parameters().items()})
    if not isinstance(made, RNN):
        network_of(made).seed = None  # nobody asked for the one above
        made.metadata = metadata
    return made


def _arguments(kind: str, config: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Those of the class, and how many parameters they stand for. Nothing is allocated."""
    if kind != "RNN":
        return configuration.arguments(kind, config)
    masks = {name: constraints.from_json(value, name) for name, value in config.items() if name.startswith("mask")}
    n_inputs, n_units, n_layers = (check.positive_int(config[name], name) for name in _SIZES)
    flags = {name: check.flag(config.get(name, False), name) for name in ("bidirectional", "bias", "learn_leak")}
    return config | masks, Architecture(n_inputs, n_units, n_layers, **flags).n_parameters


def _parameter(name: str, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What a graph's constants say of a parameter, in one of the forms that `export` gives them."""
    both, d = name.removesuffix("_reverse"), int(name.endswith("_reverse"))
    own = next((constants[one] for one in (name, both) if one in constants), None)
    if own is None:
        whole = constants.get(f"{name}.T", constants.get(f"{both}.T"))
        if whole is None:
            check.refuse(f"it has no constant {name}")
        own = whole.T
        if len(own) > shape[0]:  # rows of tokens: of both directions
            own = own[d * shape[0] : (d + 1) * shape[0]]
    elif own.ndim > len(shape):  # of a node RNN, or h_0 of all rows
        own = own[:, 0] if both == "h_0" else own[d]
        own = np.add(*np.split(own, 2)) if own.size == 2 * shape[0] and len(shape) == 1 else own
    if "leak_l" in name:  # the rate itself, of which the parameter is the logit
        rate = own.astype(np.float64).clip(1e-37, 1 - 1e-16)
        own = np.log(rate) - np.log1p(-rate)
    check.shape(own.shape, f"its constant {name}", [shape])
    return own
