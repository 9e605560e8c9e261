"""ONNX graphs of RNN nodes, drawn at random, and what ONNX Runtime makes of them."""

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "identity": "Affine"}


class Case(NamedTuple):
    """A stack of RNN nodes with its inputs, all of them time-major."""

    layers: list[dict[str, Any]]  # W, R and, where there are some, B
    nonlinearity: str
    direction: str
    inputs: dict[str, Any]  # x, and perhaps lengths and h_0
    layout: int
    outputs: tuple[str, ...]  # of "y" and "h_n"

    @property
    def n_directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1


def drawn(seed: int, *, lengths: bool | None = None, layout: int | None = None) -> Case:
    """Sizes from 1 on, every option now and then."""
    rng = np.random.default_rng(seed)
    n_steps, n_rows, n_inputs, n_units = rng.choice([1, 2, 3, 5, 8], 4)
    n_layers, direction = rng.integers(1, 4), rng.choice(["forward", "reverse", "bidirectional"])
    D = 2 if direction == "bidirectional" else 1

    def uniform(*shape: int) -> Any:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    layers = []
    for k in range(n_layers):
        n = n_inputs if k == 0 else D * n_units
        scale = np.float32(1 / np.sqrt(n_units))
        one = {"W": uniform(D, n_units, n) * scale, "R": uniform(D, n_units, n_units) * scale}
        layers.append(one | ({"B": uniform(D, 2 * n_units)} if rng.random() < 0.7 else {}))
    inputs = {"x": uniform(n_steps, n_rows, n_inputs)}
    if rng.random() < 0.5 if lengths is None else lengths:
        inputs["lengths"] = rng.integers(0, n_steps + 1, n_rows).astype(np.int32)
    if rng.random() < 0.5:
        inputs["h_0"] = uniform(n_layers * D, n_rows, n_units)
    outputs = [("y", "h_n"), ("y",), ("h_n",)][rng.integers(3)]
    layout = int(rng.integers(2)) if layout is None else layout
    return Case(layers, str(rng.choice(list(ACTIVATIONS))), str(direction), inputs, layout, outputs)


def model_of(case: Case, *, layout: int | None = None, any_size: bool = True) -> onnx.ModelProto:
    """Its graph, in this layout or its own; y is (T, B, D·H), or (B, T, D·H), and h_n (L·D, B, H) in either."""
    layout, D, H = case.layout if layout is None else layout, case.n_directions, case.layers[0]["R"].shape[2]
    nodes, constants, x, last = [], [numpy_helper.from_array(np.int64([0, 0, D * H]), "shape")], "x", []
    for k, layer in enumerate(case.layers):
        constants += [numpy_helper.from_array(array, f"{name}{k}") for name, array in layer.items()]
        h_0 = ""
        if "h_0" in case.inputs:
            constants.append(numpy_helper.from_array(np.arange(k * D, (k + 1) * D), f"which{k}"))
            nodes.append(helper.make_node("Gather", ["h_0", f"which{k}"], [f"h_0_{k}"]))
            h_0 = f"h_0_{k}"
            if layout:
                nodes.append(helper.make_node("Transpose", [h_0], [f"{h_0}_first"], perm=[1, 0, 2]))
                h_0 += "_first"
        names = [
            x,
            f"W{k}",
            f"R{k}",
            f"B{k}" if "B" in layer else "",
            "lengths" if "lengths" in case.inputs else "",
            h_0,
        ]
        options = {"activations": [ACTIVATIONS[case.nonlinearity]] * D, "direction": case.direction, "layout": layout}
        if case.nonlinearity == "identity":
            options |= {"activation_alpha": [1.0] * D, "activation_beta": [0.0] * D}
        nodes.append(helper.make_node("RNN", names, [f"Y{k}", f"Y_h{k}"], name=f"rnn{k}", hidden_size=H, **options))
        order = [0, 1, 2, 3] if layout else [0, 2, 1, 3]
        nodes.append(helper.make_node("Transpose", [f"Y{k}"], [f"rows{k}"], perm=order))
        x = "y" if k == len(case.layers) - 1 else f"x{k + 1}"
        nodes.append(helper.make_node("Reshape", [f"rows{k}", "shape"], [x]))
        last.append(f"Y_h{k}")
        if layout:
            nodes.append(helper.make_node("Transpose", [last[-1]], [f"last{k}"], perm=[1, 0, 2]))
            last[-1] = f"last{k}"
    nodes.append(helper.make_node("Concat", last, ["h_n"], axis=0))
    sizes = {name: [*array.shape] for name, array in given(case, layout).items()}
    if any_size:
        axes = {"x": ("B", "T") if layout else ("T", "B"), "lengths": ("B",), "h_0": (None, "B")}
        sizes = {
            name: [a or n for a, n in zip([*axes[name], None, None], size, strict=False)]
            for name, size in sizes.items()
        }
    kinds = {"x": TensorProto.FLOAT, "lengths": TensorProto.INT32, "h_0": TensorProto.FLOAT}
    values = [helper.make_tensor_value_info(name, kinds[name], size) for name, size in sizes.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in case.outputs]
    graph = helper.make_graph(nodes, "graph", values, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def given(case: Case, layout: int | None = None) -> dict[str, Any]:
    """Inputs of the graph."""
    layout = case.layout if layout is None else layout
    return case.inputs | ({"x": case.inputs["x"].swapaxes(0, 1)} if layout else {})


def within(kind: str) -> onnx.ModelProto:
    """A model with an RNN node in a function or in a branch of an If."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 5, 3), "R": (1, 5, 5)}
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    node = helper.make_node("RNN", ["X", "W", "R"], ["", "Y_h"], hidden_size=5)
    X = helper.make_tensor_value_info("X", 1, (7, 4, 3))
    Y_h, result = (helper.make_tensor_value_info(name, 1, (1, 4, 5)) for name in ("Y_h", "result"))
    opsets, functions = [helper.make_opsetid("", 22)], []
    if kind == "function":
        functions = [helper.make_function("own", "Layer", ["X", "W", "R"], ["Y_h"], [node], opsets)]
        opsets = [*opsets, helper.make_opsetid("own", 1)]
        nodes = [helper.make_node("Layer", ["X", "W", "R"], ["result"], domain="own")]
    else:
        branch = helper.make_graph([node], "branch", [], [Y_h])
        weights.append(numpy_helper.from_array(np.array(True), "condition"))
        nodes = [helper.make_node("If", ["condition"], ["result"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "graph", [X], [result], weights)
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def by_onnxruntime(case: Case) -> dict[str, Any]:
    """Outputs, time-major; ONNX Runtime has layout 0 alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model_of(case, layout=0).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(case.outputs, session.run(list(case.outputs), given(case, 0)), strict=True))


def by_loops(X: Any, W: Any, R: Any, B: Any, h_0: Any, direction: str) -> tuple[Any, Any]:
    """Y and Y_h of a node with tanh in layout 0, step by step."""
    Y, Y_h = np.zeros((len(X), *h_0.shape), X.dtype), h_0.copy()
    for d in range(len(W)):
        bias = np.add(*np.split(B[d], 2))
        for t in reversed(range(len(X))) if d == 1 or direction == "reverse" else range(len(X)):
            Y[t, d] = Y_h[d] = np.tanh(X[t] @ W[d].T + Y_h[d] @ R[d].T + bias)
    return Y, Y_h


def own_end(case: Case, h_n: Any) -> Any:
    """h_n, but for rows without steps, of which ONNX does not say what it is: ONNX Runtime has zeros there."""
    lengths = case.inputs.get("lengths", np.ones(1))
    return np.where((lengths == 0)[:, None], 0, h_n)
