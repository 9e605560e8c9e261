"""The operator RNN of ONNX in ONNX Runtime."""

from typing import Any

import numpy as np

from elman.benchmark.program import Program, Unsupported, only_one_layer
from elman.benchmark.workloads import Case
from elman.typing import Real


def prepare(case: Case, n_threads: int) -> Program:
    import onnxruntime
    from onnx import TensorProto, helper

    work = case.work
    only_one_layer("the adapter for ONNX Runtime", case)
    if work.what != "forward" or work.dtype != "float32":
        raise Unsupported("ONNX Runtime's RNN is forward only, in float32")
    n_units = work.shape.n_units

    def constant(name: str, array: Real) -> Any:
        return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True)

    bias = np.concatenate([case.parameters["bias_l0"], np.zeros(n_units, np.float32)])
    weights = {"W": case.parameters["weight_ih_l0"], "R": case.parameters["weight_hh_l0"], "B": bias}
    functions = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine"}
    if work.nonlinearity not in functions:
        raise Unsupported(f"the adapter for ONNX Runtime has no {work.nonlinearity}")
    f = functions[work.nonlinearity]
    attributes = {"activation_alpha": [1.0], "activation_beta": [0.0]} if f == "Affine" else {}
    node = helper.make_node("RNN", ["x", *weights], ["y", "h_n"], hidden_size=n_units, activations=[f], **attributes)
    graph = helper.make_graph(
        [node],
        "rnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "h_n")],
        [constant(name, np.ascontiguousarray(array[None])) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Program(lambda: session.run(None, {"x": case.x}), lambda found: {"y": found[0][:, 0], "h_n": found[1]})
