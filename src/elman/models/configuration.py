"""What, besides its parameters, makes a model: arguments of its class, as JSON in a file has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from elman import check
from elman.data.columns import Columns
from elman.data.inputs import Features, Input, Tokens
from elman.data.kinds import PATTERNS, Kinds, Pattern
from elman.data.learned import Kind
from elman.data.outputs import Binary, Categories, Labels, Output, Reals
from elman.data.scaler import Scaler, known
from elman.layer import constraints
from elman.layer.architecture import Architecture
from elman.layer.dynamics import USUAL
from elman.layer.rnn import RNN

INPUTS = {"Tokens": Tokens, "Features": Features, "Columns": Columns}  # by the names that they have in files
OUTPUTS = {"Categories": Categories, "Binary": Binary, "Reals": Reals, "Labels": Labels}


def described(inputs: Input, outputs: Output, rnn: RNN, pattern: Pattern | None = None) -> dict[str, Any]:
    """A configuration; one without a pattern is of a model that has no other."""
    return {
        "inputs": _of_kind(inputs),
        "outputs": _of_kind(outputs),
        **({} if pattern is None else {"pattern": pattern.name}),
        **of_layers(rnn),
    }


def _of_kind(kind: Kind) -> dict[str, Any]:
    kind.check_known()
    if isinstance(kind, Columns):
        return {"kind": "Columns", "parts": [_of_kind(part) for part in kind.parts]}
    settings = {name: _in_json(value) for name, value in kind.settings().items()}
    return {"kind": type(kind).__name__, "n": kind.n, **settings}


def _in_json(value: Any) -> Any:
    """A tuple, NaN, a scaler by what makes it again, and a function, which is in no file, by its name."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Scaler):
        return dict(zip(("mean", "scale"), map(np.ndarray.tolist, known(value)), strict=True))
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def of_layers(rnn: RNN) -> dict[str, Any]:
    """What models and layers alone have in common."""
    return {
        "hidden_size": rnn.hidden_size,
        "num_layers": rnn.num_layers,
        "nonlinearity": rnn.nonlinearity,
        "bidirectional": rnn.bidirectional,
        **({"reverse": True} if rnn.reverse else {}),
        "dropout": rnn.dropout,
        "recurrent_dropout": rnn.recurrent_dropout,
        "dtype": rnn.dtype.name,
        **{name: value for name, usual in USUAL.items() if (value := getattr(rnn, name)) != usual},
        **constraints.described(constraints.of_rnn(rnn)),
    }


def arguments(kind: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What a configuration says, as arguments of that class, and how many parameters it stands for.

    What is wrong is an error of any kind. Nothing is allocated.
    """
    is_sequence_model = kind == "SequenceModel"
    inputs = _kind_of("inputs", config["inputs"], INPUTS)
    of_outputs = OUTPUTS if is_sequence_model else {"Categories": Categories}
    outputs = _kind_of("outputs", config["outputs"], of_outputs)
    hidden_size, num_layers = (check.positive_int(config[name], name) for name in ("hidden_size", "num_layers"))
    bidirectional = check.flag(config["bidirectional"], "bidirectional")
    more = {"learn_leak": check.flag(config.get("learn_leak", False), "learn_leak")}
    learns_h_0 = check.flag(config.get("learn_h_0", False), "learn_h_0")
    is_tied = check.flag(config.get("tied", False), "tied")
    n_embedded = 0 if is_tied else sum(part.n * part.width for part in inputs.embedded.values())
    if is_sequence_model:
        pattern = PATTERNS[check.choice(config["pattern"], "pattern", PATTERNS)]
        input_size = Kinds(inputs, outputs, pattern, check.real_dtype(config["dtype"])).input_size
        first = Architecture(input_size, hidden_size, num_layers, bidirectional, **more)
        n = first.n_parameters + outputs.n_units * (first.n_outputs + 1)
    else:
        first = Architecture(inputs.width, hidden_size, num_layers, bidirectional, **more)
        decoder = Architecture(outputs.n + 1, first.n_outputs, num_layers, **more)
        n = first.n_parameters + decoder.n_parameters + (outputs.n + 1) * (decoder.n_outputs + 1)
    n += n_embedded + learns_h_0 * first.n_states * hidden_size
    masks = {name: constraints.from_json(value, name) for name, value in config.items() if name.startswith("mask")}
    return {**config, **masks, "inputs": inputs, "outputs": outputs}, n


def _kind_of(name: str, given: Mapping[str, Any], kinds: Mapping[str, Any]) -> Any:
    """An input or output, which is described by its kind and its arguments."""
    described = dict(given)
    if described.get("missing") == "NaN":
        described["missing"] = math.nan
    if "scaler" in described:
        described["scaler"] = Scaler(**described["scaler"])
    kind = kinds[check.choice(described.pop("kind"), f"the kind of its {name}", kinds)]
    if kind is Columns:
        parts, of_part = described.pop("parts"), {"Tokens": Tokens, "Features": Features}
        return Columns(*(_kind_of(name, part, of_part) for part in parts), **described)
    return kind(**described)
