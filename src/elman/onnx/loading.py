"""Reading networks from ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from elman import backends, check
from elman.convert import from_onnx
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Binary, Categories, Reals
from elman.layer.rnn import RNN
from elman.models.base import network_of
from elman.models.sequence import SequenceModel
from elman.onnx.export import CONFIG, DIGEST
from elman.onnx.own import is_own, load_own
from elman.onnx.tracing import Found, Trace
from elman.storage import atomic, files

_OUTPUTS = {None: Reals, "Softmax": Categories, "LogSoftmax": Categories, "Sigmoid": Binary}
_SIZES = 3, 5  # of axes that may have any: what holds for both is taken to hold for all


def load(path: str | Path, *, backend: str | None = None) -> Any:
    """Read the network of an ONNX file: what `export` wrote, or a graph of another program with RNN nodes.

    A file of `export` becomes the model that it was made of, with weights as they act. In another one there may be RNN
    nodes above one another, with all that moves elements between them, and a readout: a linear map (MatMul, Gemm, Add)
    of all steps or of last states, and softmax, sigmoid or labels. Without a readout it is an `RNN`, with batch_first
    as the graph has it. With one it is a `SequenceModel`: of Tokens where ints are read through OneHot or a table,
    whose product with the first weight is weight_ih; of Categories after softmax, Binary after sigmoid and else Reals.
    Initial states that are the same for all rows and not zero are learn_h_0.

    Parameters
    ----------
    path : str or path
    backend : {"numpy", "numba", "cython"}, optional
        As in `RNN`.

    Returns
    -------
    RNN, SequenceModel or Seq2Seq

    Raises
    ------
    ValueError
        If the file is damaged, or if its graph does anything else: the message names the node, or its attribute.
        Nothing but what moves elements is executed, in memory in proportion to the file, and 2²⁵ numbers besides.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import onnx
    >>> from onnx import helper
    >>> W, R = (onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in
    ...         {"W": (1, 5, 3), "R": (1, 5, 5)}.items())
    >>> node = helper.make_node("RNN", ["x", "W", "R"], ["", "h_n"], activations=["Relu"])
    >>> x, h_n = (helper.make_tensor_value_info(name, 1, shape) for name, shape in
    ...           {"x": ("T", "B", 3), "h_n": (1, "B", 5)}.items())
    >>> graph = helper.make_graph([node], "graph", [x], [h_n], [W, R])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(helper.make_model(graph), f"{folder}/net.onnx")
    ...     load(f"{folder}/net.onnx")
    RNN(3, 5, nonlinearity='relu', bias=False) with 40 parameters
    """
    if backend is not None:
        check.choice(backend, "backend", backends.NAMES)
    path = check.path(path, "path")
    with files.refusing(path, "not a network that elman can read"):
        with atomic.open_to_read(path) as file:
            content = file.read()
        model = _parsed(content)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        metadata = {name: value for name, value in entries.items() if name not in (CONFIG, DIGEST)}
        if is_own(model, entries):
            return load_own(model, entries[CONFIG], metadata, backend)
        found, other = (Trace(model, n).run() for n in _SIZES)
        if not _is_same(found, other):
            check.refuse("its weights must not depend on the sizes of its inputs")
        if found.weight_ho is None:
            return _rnn(found, backend)
        return _sequence_model(found, metadata, backend)


def _parsed(content: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the parser's own
        raise ValueError(f"it is no ONNX file, or damaged: {error}") from error
    _check_kinds(model)
    _check_self_contained(model.graph)
    _fill_shapes(model.graph)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"it is no valid ONNX: {error}") from error
    return model


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)  # what is not finite is refused later, by its name
    return type(one) is type(other) and bool(one == other)


def _check_kinds(model: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in model.graph.node}
    if kinds and not kinds & {"RNN", "Scan", "Loop"}:
        for other in "GRU", "LSTM":
            if other in kinds:
                check.refuse(f"it has {other} nodes, and elman has no {other}")
        branches = (attribute.g for node in model.graph.node for attribute in node.attribute)
        if any(node.op_type == "RNN" for one in [*model.functions, *branches] for node in one.node):
            check.refuse(
                "its RNN nodes must be in the graph itself, not in branches, or in functions, which "
                "onnx.inliner.inline_local_functions resolves"
            )
        check.refuse(
            "it has no RNN node: a program that writes each step as nodes of its own, as torch.onnx.export does with "
            "dynamo=True, has to be told not to: dynamo=False"
        )


def _check_self_contained(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        check.refuse(f"its {check.shown(sparse.values.name)} is sparse, and has to be an initializer as any other")
    in_nodes = (attribute.t for node in graph.node for attribute in node.attribute)
    for one in [*graph.initializer, *in_nodes]:
        if onnx.external_data_helper.uses_external_data(one):
            given = f"its {check.shown(one.name)} is in another file"
            check.refuse(f"{given}: make it one, onnx.save(onnx.load(path), path)")


def _fill_shapes(graph: onnx.GraphProto) -> None:
    """Open sizes where a value has no shape, which ONNX's checker wants: as many as what reads it says."""
    ranks = {one.name: 0 for one in graph.output}  # whose shapes nobody reads
    ranks |= {one.name: len(one.dims) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "RNN":
            ranks |= dict(zip(node.input, (3, 3, 3, 2, 1), strict=False))
    for one in [*graph.input, *graph.output]:
        tensor = one.type.tensor_type
        if one.type.HasField("tensor_type") and not tensor.HasField("shape"):
            if one.name not in ranks:
                check.refuse(f"its input {check.shown(one.name)} has no shape: give it one, whose sizes may be open")
            tensor.shape.SetInParent()
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(ranks[one.name]))


def _rnn(found: Found, backend: str | None) -> RNN:
    if found.n_tokens is not None:
        check.refuse("it reads tokens and has no readout: elman's layers read features")
    if found.h_0 is not None:
        check.refuse("initial_h of its RNN nodes must be zeros, or an input: a layer has no states of its own")
    return found.operator.network(found.layers, batch_first=found.batch_first, backend=backend)


def _sequence_model(found: Found, metadata: dict[str, str], backend: str | None) -> SequenceModel:
    first, bias = found.layers[0], found.bias_o
    assert found.weight_ho is not None
    if found.table is not None:  # exact for one-hot rows
        first = first._replace(W=(first.W.astype(np.float64) @ found.table.T).astype(first.W.dtype))
    if first.B is None:  # a model's layers always have biases
        first = first._replace(B=np.zeros((len(first.R), 2 * first.R.shape[2])))
    layers = [first, *found.layers[1:]]
    model = SequenceModel(
        Features(first.W.shape[2]) if found.n_tokens is None else Tokens(found.n_tokens),
        _OUTPUTS[found.link](len(found.weight_ho)),
        pattern=_pattern(found),
        hidden_size=first.R.shape[2],
        num_layers=len(layers),
        nonlinearity=found.operator.nonlinearity,
        bidirectional=found.operator.direction == "bidirectional",
        reverse=found.operator.direction == "reverse",
        learn_h_0=found.h_0 is not None,
        dtype=first.R.dtype,
        seed=0,
        backend=backend,
    )
    network_of(model).seed = None  # nobody asked for the one above
    bias = np.zeros(len(found.weight_ho)) if bias is None else bias
    state = from_onnx(layers) | {"weight_ho": found.weight_ho, "bias_o": bias}
    model.load_state_dict(state | ({} if found.h_0 is None else {"h_0": found.h_0}))
    model.metadata = metadata
    return model


def _pattern(found: Found) -> str:
    if found.one_input and not found.one_output:
        check.refuse("its output must be of one step where its input is")
    return f"{'one' if found.one_input else 'many'}-to-{'one' if found.one_output else 'many'}"
