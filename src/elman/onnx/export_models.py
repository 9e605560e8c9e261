"""Whole models in a graph: inputs, layers, readout, outputs; a Loop where outputs become inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from elman.data.columns import Columns
from elman.data.inputs import Features, Input, Tokens
from elman.data.kinds import PATTERNS
from elman.data.outputs import Binary, Categories, Output
from elman.data.scaler import known
from elman.layer.rnn import RNN
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.onnx.export_graph import BOOL, DOUBLE, INT64, Graph, Loop, Rows, Shape
from elman.onnx.export_layers import Layers
from elman.typing import Real


def add_rnn(graph: Graph, rnn: RNN, *, lengths: bool, states: bool) -> None:
    """A layer: from x, the outputs y and the last states."""
    layers, axes = Layers(graph, rnn), ("B", "T") if rnn.batch_first else ("T", "B")
    x = graph.input("x", graph.real, (*axes, rnn.input_size), "inputs")
    x = graph.add("Transpose", x, perm=[1, 0, 2]) if rnn.batch_first else x
    rows, h_0 = _rows(graph, x, lengths=lengths), _h_0(graph, layers) if states else ""
    y, last = layers.run(x, rows, h_0)
    y = graph.add("Transpose", y, perm=[1, 0, 2]) if rnn.batch_first else y
    shape = *axes, layers.architecture.n_outputs
    graph.output(y, graph.real, shape, "y", "the last layer's outputs after each step, zero past a row's length")
    _h_n(graph, layers, last)


def add_sequence_model(
    graph: Graph, model: SequenceModel, outputs: Sequence[str], *, lengths: bool, states: bool
) -> None:
    """From x or tokens, what the readout makes of them; with states, the first ones go in and the last come out."""
    layers, weights, pattern = Layers(graph, model.rnn), model.effective_weights(), PATTERNS[model.pattern]
    axes = ("B",) if pattern.one_input else ("T", "B")
    x = _x(graph, model.inputs, axes)
    is_generated = pattern.one_input and not pattern.one_output
    x = x if is_generated else _read(graph, graph, model, x)
    x = graph.add("Unsqueeze", x, graph.integers(0), called="first_step") if pattern.one_input else x
    rows = _rows(graph, x, lengths=lengths)
    h_0 = _h_0(graph, layers) if states else layers.first(rows, weights["h_0"]) if model.learn_h_0 else ""
    if is_generated:
        o = _generated(graph, layers, model, x, h_0 or layers.first(rows))
    else:
        h, last = layers.run(x, rows, h_0, is_tokens=_are_tokens(model.inputs))
        h = layers.outputs(layers.side_by_side(last[-1])) if pattern.one_output else h
        o = _readout(graph, graph, h, weights)
    _outputs(graph, model.outputs, o, ("B",) if pattern.one_output else ("T", "B"), outputs)
    if states:
        _h_n(graph, layers, last)


def add_seq2seq(graph: Graph, model: Seq2Seq, *, lengths: bool) -> None:
    """From x or tokens, the tokens that `Seq2Seq.predict` finds by greedy search, and how many there are."""
    encoder, decoder = Layers(graph, model.encoder, "encoder."), Layers(graph, model.decoder, "decoder.")
    x = _read(graph, graph, model, _x(graph, model.inputs, ("T", "B")))
    rows = _rows(graph, x, lengths=lengths)
    h_0 = encoder.first(rows, model.parameters()["h_0"]) if model.learn_h_0 else ""
    _, last = encoder.run(x, rows, h_0, is_tokens=_are_tokens(model.inputs))
    edge, never = graph.constant("edge", np.int64(model.outputs.n)), graph.constant("never", np.bool_(False))
    n_x = rows.lengths or graph.add("Expand", rows.n_steps, rows.n_rows)
    limits = graph.add("Add", graph.add("Mul", n_x, graph.integer(2)), graph.integer(10), called="limits")
    loop = Loop(graph)
    token = loop.carried("token", INT64, graph.add("Expand", edge, rows.n_rows, called="first_token"))
    is_over = loop.carried("is_over", BOOL, graph.add("Expand", never, rows.n_rows, called="nothing_is_over"))
    h = [loop.carried(f"h_l{k}", graph.real, encoder.side_by_side(one)) for k, one in enumerate(last)]
    body = loop.body
    outputs, h = decoder.step(body, token, h, is_tokens=True)
    likeliest = body.add("ArgMax", _readout(graph, body, outputs, model.effective_weights()), axis=-1, keepdims=0)
    token = body.add("Where", is_over, edge, likeliest, called="next_token")
    is_end = body.add("Equal", token, edge)
    is_full = body.add("LessOrEqual", limits, body.add("Add", loop.i, graph.integer(1)))
    is_over = body.add("Or", is_over, body.add("Or", is_end, is_full), called="is_over_next")
    goes_on = body.add("ReduceMax", body.add("Cast", body.add("Not", is_over), to=INT64), keepdims=0)
    most = graph.add("ReduceMax", limits, keepdims=0, called="most_tokens")
    y = loop.end(most, [token, is_over, *h], token, INT64, body.add("Cast", goes_on, to=BOOL))
    y = graph.output(y, INT64, ("T_y", "B"), "y", f"the tokens that are written; from the end on {model.outputs.n}")
    is_token = graph.add("Cast", graph.add("Not", graph.add("Equal", y, edge)), to=INT64)
    n_y = graph.add("ReduceSum", is_token, graph.integers(0), keepdims=0)
    graph.output(n_y, INT64, ("B",), "y_lengths", "how many tokens each row has before the end")


def _generated(graph: Graph, layers: Layers, model: SequenceModel, x: str, h_0: str) -> str:
    """Outputs (length, B, O) of what goes on from x (1, B, ·) with its own likeliest outputs, or numbers."""
    length = graph.input("length", INT64, (), "how many steps to make")
    inputs, outputs, n_fed = model.inputs, model.outputs, model.rnn.input_size - model.inputs.width
    is_tokens, loop = isinstance(inputs, Tokens), Loop(graph)
    x = graph.add("Squeeze", x, graph.integers(0))
    if not is_tokens:  # beside which is room for what is fed back
        x = graph.add("Pad", x, graph.integers(0, 0, 0, n_fed), called="first_input")
    body, read = loop.body, loop.carried("read", INT64 if is_tokens else graph.real, x)
    n_layers = layers.architecture.num_layers
    h = [loop.carried(f"h_l{k}", graph.real, graph.add("Gather", h_0, graph.integer(k))) for k in range(n_layers)]
    y, h = layers.step(body, _read(graph, body, model, read), h, is_tokens=_are_tokens(inputs))
    o = _readout(graph, body, y, model.effective_weights())
    fed = _labels(graph, body, outputs, o)
    if not is_tokens:
        if isinstance(outputs, Categories):
            fed = body.add("Gather", graph.constant("one_hot", np.eye(outputs.n)), fed)
        elif isinstance(outputs, Binary):
            fed = body.add("Cast", fed, to=graph.real)
        fed = body.add("Pad", fed, graph.integers(0, inputs.n, 0, 0), called="next_input")
    return loop.end(length, [fed, *h], o, graph.real)


# What goes in


def _x(graph: Graph, inputs: Input, axes: tuple[str, ...]) -> str:
    if isinstance(inputs, Tokens):
        return graph.input("tokens", INT64, axes, f"integers from 0 to {inputs.n - 1}")
    meaning = "columns" if isinstance(inputs, Columns) else "features"
    x = graph.input("x", graph.real, (*axes, inputs.n), meaning)
    if inputs.scaler is None:
        return x
    mean, scale = (graph.double(*pair) for pair in zip(("x_mean", "x_scale"), known(inputs.scaler), strict=True))
    x = graph.add("Sub", graph.add("Cast", x, to=DOUBLE), mean)
    return graph.add("Cast", graph.add("Div", x, scale), to=graph.real, called="x_scaled")


def _are_tokens(inputs: Input) -> bool:
    """Whether that is what layers read."""
    return isinstance(inputs, Tokens) and not inputs.embedded


def _read(graph: Graph, within: Graph, model: SequenceModel | Seq2Seq, x: str) -> str:
    """What layers read of inputs (..., ·), in this graph or within a body."""
    weights, inputs = model.parameters(), model.inputs
    if not isinstance(inputs, Columns):
        name = "embedding" if "embedding" in weights else "weight_ho"  # which is tied
        return within.add("Gather", graph.constant(name, weights[name]), x) if inputs.embedded else x
    parts = []
    for i, (part, own, _) in enumerate(inputs.places()):
        if isinstance(part, Features):
            parts.append(within.add("Gather", x, graph.integers(*range(own.start, own.stop)), axis=-1))
            continue
        name = f"embedding_{i}" if part.embedded else f"one_hot_of_{part.n}"
        table = graph.constant(name, weights[name] if part.embedded else np.eye(part.n))
        column = within.add("Gather", x, graph.integer(own.start), axis=-1)
        parts.append(within.add("Gather", table, within.add("Cast", column, to=INT64)))
    return within.add("Concat", *parts, axis=-1)


def _rows(graph: Graph, x: str, *, lengths: bool) -> Rows:
    meaning = "how many steps each row has, from 0 to T"
    return Rows(graph, x, graph.input("lengths", INT64, ("B",), meaning) if lengths else "")


def _h_0(graph: Graph, layers: Layers) -> str:
    n_states, _, n_units = layers.architecture.state_shape(1)
    return graph.input("h_0", graph.real, (n_states, "B", n_units), "states before the first step, of all layers")


# What comes out


def _h_n(graph: Graph, layers: Layers, last: Sequence[str]) -> None:
    """The last states (D, B, H) of each layer as one."""
    n_states, _, n_units = layers.architecture.state_shape(1)
    h_n = last[0] if len(last) == 1 else graph.add("Concat", *last, axis=0)
    graph.output(h_n, graph.real, (n_states, "B", n_units), "h_n", "states after each row's last step, of all layers")


def _readout(graph: Graph, within: Graph, h: str, weights: Mapping[str, Real]) -> str:
    """weight_ho h + bias_o of h (..., K), in this graph or within a body."""
    product = within.add("MatMul", h, graph.constant("weight_ho.T", weights["weight_ho"].T))
    return within.add("Add", product, graph.constant("bias_o", weights["bias_o"]), called="o")


def _labels(graph: Graph, within: Graph, outputs: Output, o: str) -> str:
    """What `predict` returns for o (..., O)."""
    if isinstance(outputs, Categories):
        return within.add("ArgMax", o, axis=-1, keepdims=0)
    if isinstance(outputs, Binary):
        return within.add("Cast", within.add("Greater", o, graph.constant("zero", 0.0)), to=INT64)
    return o


def _unscaled(graph: Graph, kind: Output, o: str) -> tuple[str, int]:
    """Numbers, or quantiles, in the units of the targets, and the type that they have then."""
    if kind.scaler is None or getattr(kind, "distribution", None):
        return o, graph.real
    each = kind.n_units // kind.n  # units for a number
    own = zip(("y_mean", "y_scale"), known(kind.scaler), strict=True)
    mean, scale = (graph.double(name, np.repeat(array, each)) for name, array in own)
    return graph.add("Add", graph.add("Mul", graph.add("Cast", o, to=DOUBLE), scale), mean), DOUBLE


def _outputs(graph: Graph, kind: Output, o: str, axes: tuple[str, ...], wanted: Sequence[str]) -> None:
    """Those that are wanted of `names_of_outputs`."""
    each: Shape = (*axes, kind.n_units)
    meanings = {
        "y": "numbers",
        "units": "what the readout gives",
        "logits": "what the readout gives",
        "probabilities": "of each category, or of a 1",
    }
    for name in wanted:
        if name == "labels":
            is_category = isinstance(kind, Categories)
            meaning = "the likeliest category" if is_category else "1 where that is likelier than 0"
            graph.output(_labels(graph, graph, kind, o), INT64, axes if is_category else each, name, meaning)
        elif name == "probabilities":
            is_category = isinstance(kind, Categories)
            p = graph.add("Softmax", o, axis=-1) if is_category else graph.add("Sigmoid", o)
            graph.output(p, graph.real, each, name, meanings[name])
        else:
            unscaled, real = _unscaled(graph, kind, o)
            o = graph.output(unscaled, real, each, name, meanings[name])
