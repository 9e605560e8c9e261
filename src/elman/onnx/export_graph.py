"""A graph that is being put together: nodes, constants, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from elman.data.outputs import finite_outputs

BOOL, INT32, INT64, DOUBLE = TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.DOUBLE
Shape = tuple[int | str, ...]  # a string names an axis of any length


class Value(NamedTuple):
    """An input or output of a graph."""

    name: str
    kind: int  # the type of its elements
    shape: Shape | None
    meaning: str

    def proto(self) -> Any:
        """It, as ONNX has it; its meaning is told with shape and type."""
        words = ""
        if self.shape is not None and self.meaning:
            shape = f"({', '.join(map(str, self.shape))}{',' * (len(self.shape) == 1)})"
            words = f"{shape} {helper.tensor_dtype_to_np_dtype(self.kind).name}: {self.meaning}"
        return helper.make_tensor_value_info(self.name, self.kind, self.shape, words)


class Graph:
    """Nodes in the order in which they run. Values are known by their names, which are those of the nodes, too."""

    def __init__(self, dtype: np.dtype[Any], *, scan: bool = False, around: Graph | None = None) -> None:
        self.dtype, self.real = dtype, helper.np_dtype_to_tensor_dtype(dtype)
        self.has_rnn = dtype == np.float32 and not scan  # ONNX Runtime has that operator for float32 alone
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {} if around is None else around.constants  # which bodies see
        self._taken: set[str] = set() if around is None else around._taken

    def body(self) -> Graph:
        """A graph for an attribute of a node of this one, whose values it sees."""
        return Graph(self.dtype, around=self)

    def input(self, name: str, kind: int, shape: Shape | None = None, meaning: str = "") -> str:
        self.inputs.append(Value(self._free(name), kind, shape, meaning))
        return self.inputs[-1].name

    def output(self, source: str, kind: int, shape: Shape | None = None, name: str = "", meaning: str = "") -> str:
        """Let a value come out; under another name, it has that from now on."""
        if any(one.name == source for one in self.outputs) or not any(source in node.output for node in self.nodes):
            name = self.add("Identity", source, called=name or source)  # what comes out, or in, keeps its name
        elif name:
            name = self._free(name)
            for node in self.nodes:
                node.name = name if node.name == source else node.name
                for names in (node.input, node.output):
                    names[:] = [name if one == source else one for one in names]
        self.outputs.append(Value(name or source, kind, shape, meaning))
        return self.outputs[-1].name

    def add(self, operator: str, *inputs: str, called: str = "", **attributes: Any) -> str:
        """A node with one result, whose name is returned: what it is `called`, or one like it."""
        return self.add_many(operator, inputs, called or operator.lower(), **attributes)[0]

    def add_many(self, operator: str, inputs: tuple[str, ...], *called: str, **attributes: Any) -> list[str]:
        """A node with several results."""
        results = [*map(self._free, called)]
        self.nodes.append(helper.make_node(operator, inputs, results, name=results[0], **attributes))
        return results

    def constant(self, name: str, values: Any) -> str:
        """Reals, in the graph's dtype, or integers or booleans. What has this name already stays what it is."""
        if name not in self.constants:
            array = np.asarray(values)
            if array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    array = array.astype(self.dtype)
                finite_outputs(array, f"{name} to be exported")
            self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
            self._taken.add(name)
        return name

    def double(self, name: str, values: Any) -> str:
        """Reals in float64, whatever the graph's dtype."""
        self.constants.setdefault(name, numpy_helper.from_array(np.array(values, np.float64), name))
        self._taken.add(name)
        return name

    def integers(self, *values: int) -> str:
        """A constant, int64 (n,)."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """A constant, int64 ()."""
        return self.constant(f"integer_{value}", np.int64(value))

    def proto(self, name: str) -> Any:
        """It, as ONNX has it."""
        ends = ([one.proto() for one in values] for values in (self.inputs, self.outputs))
        return helper.make_graph(self.nodes, name, *ends)

    def _free(self, wanted: str) -> str:
        """A name like this, which nothing has here, around or within."""
        name, n = wanted, 1
        while name in self._taken:
            name, n = f"{wanted}_{n}", n + 1
        self._taken.add(name)
        return name


class Rows:
    """What is known of a batch x (T, B, ·) in a graph: how many rows there are, and how long they are."""

    def __init__(self, graph: Graph, x: str, lengths: str = "") -> None:
        self.lengths, self._graph, self._x = lengths, graph, x

    @cached_property
    def n_steps(self) -> str:
        """T, int64 ()."""
        return self._graph.add("Gather", self._shape, self._graph.integer(0), called="T")

    @cached_property
    def n_rows(self) -> str:
        """B, int64 (1,)."""
        return self._graph.add("Gather", self._shape, self._graph.integers(1), called="B")

    @cached_property
    def sequence_lens(self) -> str:
        """The lengths as the operator RNN wants them, int32 (B,)."""
        return self.lengths and self._graph.add("Cast", self.lengths, called="sequence_lens", to=INT32)

    @cached_property
    def is_empty(self) -> str:
        """Where a length is 0, bool (1, B, 1)."""
        is_zero = self._graph.add("Equal", self.lengths, self._graph.integer(0))
        return self._graph.add("Unsqueeze", is_zero, self._graph.integers(0, 2), called="is_empty")

    @cached_property
    def is_within(self) -> str:
        """Which steps are within the lengths, bool (T, B, 1)."""
        graph = self._graph
        steps = graph.add("Range", graph.integer(0), self.n_steps, graph.integer(1), called="steps")
        is_less = graph.add("Less", graph.add("Unsqueeze", steps, graph.integers(1)), self.lengths)
        return graph.add("Unsqueeze", is_less, graph.integers(2), called="is_within")

    def all_alike(self, name: str, value: NDArray[Any]) -> str:
        """A constant (N, H), the same for all rows, as (N, B, H)."""
        graph, one = self._graph, self._graph.integers(1)
        shape = graph.add("Concat", one, self.n_rows, one, axis=0, called=f"shape_of_{name}")
        return graph.add("Expand", graph.constant(name, value[:, None]), shape, called=f"{name}_of_rows")

    @cached_property
    def _shape(self) -> str:
        return self._graph.add("Shape", self._x, called="shape")


class Loop:
    """A node Loop that is being put together: what is carried from each turn to the next, and written in each."""

    def __init__(self, graph: Graph) -> None:
        self.body, self._graph = graph.body(), graph
        self.i = self.body.input("i", INT64, ())
        self._condition = self.body.input("condition", BOOL, ())
        self._first: list[str] = []

    def carried(self, name: str, kind: int, first: str) -> str:
        """What a turn finds, the `first` one in the graph around."""
        self._first.append(first)
        return self.body.input(name, kind)

    def end(self, most: str, after: Sequence[str], written: str, kind: int, goes_on: str = "") -> str:
        """What all turns have written, (n, ...), given how many there are at `most` and what each leaves to the next.

        Without `goes_on`, bool (), there are so many.
        """
        kinds = [one.kind for one in self.body.inputs[2:]]
        self.body.output(goes_on or self._condition, BOOL)
        for one, kind_of_one in zip([*after, written], [*kinds, kind], strict=True):
            self.body.output(one, kind_of_one)
        called = *(f"{one}_last" for one in after), written
        return self._graph.add_many("Loop", (most, "", *self._first), *called, body=self.body.proto("turn"))[-1]
