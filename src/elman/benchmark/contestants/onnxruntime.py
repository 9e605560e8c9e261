"""The operator RNN of ONNX in ONNX Runtime: forward, or a step at a time, with a readout behind it for a stream."""

from typing import Any

import numpy as np

from elman.benchmark.program import Program, Unsupported, by_steps, only_plain_units
from elman.benchmark.workloads import Arrays, Case
from elman.typing import Real

_FUNCTIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine", "softplus": "Softplus"}


def prepare(case: Case, n_threads: int) -> Program:
    import onnxruntime

    work = case.work
    only_plain_units("ONNX Runtime", case)
    if work.what not in ("forward", "step", "stream") or work.dtype != "float32" or work.bidirectional:
        raise Unsupported("ONNX Runtime's RNN is forward only; the adapter has one direction, in float32")
    if work.nonlinearity not in _FUNCTIONS:
        raise Unsupported(f"the adapter for ONNX Runtime has no {work.nonlinearity}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(_graph(case), options, providers=["CPUExecutionProvider"])
    layers = range(work.num_layers) if work.what != "forward" else ()  # whose states are zeros if not given

    def run(x: Real, h: list[Real]) -> Any:
        y, *h = session.run(None, {"x": x, **{f"h_0_{k}": h[k] for k in layers}})
        return y, h

    def outputs(found: tuple[list[Real], list[Real]]) -> Arrays:
        y = np.concatenate(found[0])
        return {"y": y if work.is_model else y[:, 0], "h_n": np.concatenate(found[1])}

    zeros = [np.zeros((1, work.shape.n_rows, work.shape.n_units), np.float32) for _ in layers]
    x = np.eye(work.shape.n_inputs, dtype=np.float32)[case.x] if work.is_model else case.x
    chunks = [x] if work.what == "forward" else [*x[:, None]]
    return Program(lambda: by_steps(run, chunks, zeros), outputs)


def _graph(case: Case) -> bytes:
    """The model: from x (T, B, I) and states h_0_k (1, B, H) to outputs (T, 1, B, H) or labels (T, B), and states."""
    from onnx import TensorProto, helper, numpy_helper

    work, p = case.work, case.parameters
    n_units, f = work.shape.n_units, _FUNCTIONS[work.nonlinearity]
    attributes = {"activation_alpha": [1.0], "activation_beta": [0.0]} if f == "Affine" else {}
    has_states = work.what != "forward"
    nodes, constants, y = [], {"axis": np.array([1])}, "x"
    for k in range(work.num_layers):
        bias = np.concatenate([p[f"bias_l{k}"], np.zeros(n_units, np.float32)])
        constants |= {f"W{k}": p[f"weight_ih_l{k}"][None], f"R{k}": p[f"weight_hh_l{k}"][None], f"B{k}": bias[None]}
        reads, writes = [y, f"W{k}", f"R{k}", f"B{k}"], [f"y_d_{k}", f"h_n_{k}"]
        reads += ["", f"h_0_{k}"] if has_states else []
        nodes.append(helper.make_node("RNN", reads, writes, hidden_size=n_units, activations=[f], **attributes))
        y = f"y_d_{k}"  # with an axis of directions, which no other operator wants
        if k < work.num_layers - 1 or work.is_model:
            nodes.append(helper.make_node("Squeeze", [y, "axis"], [y := f"y_{k}"]))
    if work.is_model:
        constants |= {"V": p["weight_ho"].T, "c": p["bias_o"]}
        nodes.append(helper.make_node("MatMul", [y, "V"], ["product"]))
        nodes.append(helper.make_node("Add", ["product", "c"], ["o"]))
        nodes.append(helper.make_node("ArgMax", ["o"], [y := "label"], axis=-1, keepdims=0))
    real, integer = TensorProto.FLOAT, TensorProto.INT64

    def values(names: list[str], kind: int = real, shape: tuple[Any, ...] | None = None) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, shape) for name in names]

    layers = range(work.num_layers)
    inputs = values(["x"], shape=(None, *work.shape[1:3])) + values([f"h_0_{k}" for k in layers if has_states])
    outputs = values([y], integer if work.is_model else real) + values([f"h_n_{k}" for k in layers])
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "rnn", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())
