"""ONNX graphs with their RNN nodes on elman's kernels, all other nodes as ONNX's reference computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx.backend.base import Backend as OnnxBackend
from onnx.backend.base import BackendRep
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from elman import check
from elman.onnx.operator import Operator, Weights, attributes_of, shown


class Backend(OnnxBackend):  # type: ignore[misc]
    """A backend in ONNX's own form, `onnx.backend.base.Backend`, for graphs with RNN nodes: of any kind besides.

    RNN nodes are computed by elman, wherever they stand, in both layouts and all directions, with lengths and initial
    states; other nodes by `onnx.reference`, which is slow. Nodes that elman has not, such as those with `clip`, are
    refused. All methods are of the class.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> node = helper.make_node("RNN", ["X", "W", "R"], ["Y", "Y_h"], hidden_size=5)
    >>> X, W, R = (np.ones(shape, np.float32) for shape in ((7, 4, 3), (1, 5, 3), (1, 5, 5)))
    >>> Y, Y_h = Backend.run_node(node, [X, W, R])
    >>> Y.shape, Y_h.shape
    ((7, 1, 4, 5), (1, 4, 5))
    """

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` takes the model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (ValueError, RuntimeError, NotImplementedError, onnx.checker.ValidationError):
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:  # noqa: ARG003
        """A model that can be run many times: `prepare(model).run(inputs)`.

        Raises
        ------
        ValueError
            If an RNN node is one that elman has not, or the device is not "CPU".
        onnx.checker.ValidationError
            If the model is no valid one.
        """
        cls._check_device(device)
        onnx.checker.check_model(model)
        return Prepared(_Evaluator(model))

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Outputs of a single node, of the newest opset or `opset_version`. Raises as `prepare` does."""
        cls._check_device(device)
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        values = [[onnx.ValueInfoProto(name=name) for name in names if name] for names in (node.input, node.output)]
        graph = onnx.helper.make_graph([node], "node", *values)
        return Prepared(_Evaluator(graph, opsets={node.domain: version})).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU.

        Examples
        --------
        >>> Backend.supports_device("CPU"), Backend.supports_device("CUDA:1")
        (True, False)
        """
        return isinstance(device, str) and device.split(":")[0] == "CPU"

    @classmethod
    def _check_device(cls, device: str) -> None:
        if not cls.supports_device(device):
            check.refuse(f"device must be 'CPU', got {check.shown(device)}")


class Prepared(BackendRep):  # type: ignore[misc]
    """What `Backend.prepare` returns."""

    def __init__(self, evaluator: ReferenceEvaluator) -> None:
        self._evaluator = evaluator

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:  # noqa: ARG002
        """The outputs, for inputs as a dict by name, or in their order, or a single one."""
        if not isinstance(inputs, Mapping):
            arrays = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            names = [name for name in self._evaluator.input_names if name not in self._evaluator.rt_inits_]
            check.same_count(len(arrays), len(names), "inputs", "inputs of the graph")
            inputs = dict(zip(names, arrays, strict=True))
        return tuple(self._evaluator.run(None, inputs))


class _Evaluator(ReferenceEvaluator):  # type: ignore[misc]
    """A class of its own, as functions and subgraphs are evaluated by the class of what they are in."""

    def __init__(self, proto: Any, **options: Any) -> None:
        super().__init__(proto, **options | {"new_ops": [RNN]})


class RNN(OpRun):  # type: ignore[misc]
    """The operator, under whose name the evaluator looks for it."""

    op_domain = ""

    def __init__(self, node: onnx.NodeProto, run_params: dict[str, Any]) -> None:
        super().__init__(node, run_params)
        if not self.has_linked_attribute:  # else a function's caller gives some
            Operator.of(attributes_of(node), shown(node))

    def _run(
        self,
        X: NDArray[Any],
        W: NDArray[Any],
        R: NDArray[Any],
        B: NDArray[Any] | None = None,
        sequence_lens: NDArray[Any] | None = None,
        initial_h: NDArray[Any] | None = None,
        **attributes: Any,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        who = shown(self.onnx_node)
        operator, weights = Operator.of(attributes, who), Weights(W, R, B)
        operator.check_weights(weights, who)
        check.choice(X.dtype.name, f"the type of X of {who}", [R.dtype.name])
        rnn = operator.network([weights], batch_first=operator.batch_first)
        if initial_h is not None and operator.batch_first:
            initial_h = initial_h.swapaxes(0, 1)
        y, h_n = rnn(X, initial_h, sequence_lens)
        y = y.reshape(*y.shape[:2], operator.n_directions, rnn.hidden_size)
        return (y, h_n.swapaxes(0, 1)) if operator.batch_first else (y.swapaxes(1, 2), h_n)
