"""What a graph does with its sequences, found by following numbers through it.

Each element of an input is a number of its own, a *code*, and each node that computes makes new ones. All other nodes
only move elements: where codes arrive says what is read where, whatever nodes brought them there. A *place* is what a
vector of codes belongs to: step t of row b, t·B + b, or the last step of row b in both directions, T·B + b.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from elman import check
from elman.onnx.operator import Operator, Weights, attributes_of, shown

Array = NDArray[Any]
_MOST = 1 << 25  # elements of all arrays of a graph, besides what is in proportion to its file: its sizes may be fixed
_MOVING = {"Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
_MOVING |= {"Transpose", "Unsqueeze"}
_BINARY = {"Add", "Div", "Equal", "Mod", "Mul", "Sub", "Where"}
_PLAIN = _MOVING | _BINARY  # what may be done with what is not followed; it makes no more than `_size_of` says
_PLAIN |= {"Cast", "Constant", "ConstantOfShape", "Neg", "Range", "ReduceProd", "ScatterElements", "Shape"}
_PLAIN |= {"Size", "TopK"}
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE}
_INTS = {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8}
_LINKS = ("Softmax", "LogSoftmax", "Sigmoid")
_KINDS = {
    "Softmax": "Softmax",
    "LogSoftmax": "Softmax",
    "ArgMax": "Softmax",
    "Sigmoid": "Sigmoid",
    "Greater": "Sigmoid",
}


class Found(NamedTuple):
    """What a graph computes."""

    operator: Operator
    layers: list[Weights]
    batch_first: bool
    one_input: bool
    n_tokens: int | None  # None for features
    table: Array | None  # (V, E), what stands for tokens; None for one-hot vectors
    h_0: Array | None  # (L·D, H) of each row
    weight_ho: Array | None  # None without a readout
    bias_o: Array | None
    link: str | None  # what comes after it, "Softmax" or "Sigmoid", also where it leaves only labels
    one_output: bool


class _Vectors(NamedTuple):
    """Codes that one node made: element k of the vector of a place is first + place · width + k."""

    first: int
    n: int
    width: int
    last: Array | None = None  # (B, width), the codes at the end of each row in both directions

    def codes(self, places: Array) -> Array:
        return self.first + places[..., None] * self.width + np.arange(self.width)

    def places(self, codes: Array) -> Array | None:
        """Those of vectors (..., width); None where it is no such vectors."""
        if codes.ndim == 0 or codes.shape[-1] != self.width or not codes.size:
            return None
        place = (codes - self.first) // self.width
        found = place[..., 0]
        if self.last is not None:
            n_rows = len(self.last)
            if np.array_equal(codes, self.last[found % n_rows]):
                return self.n + found % n_rows
        is_one = np.array_equal(codes, self.codes(found)) and found.min() >= 0 and found.max() < self.n
        return found if is_one else None


class Trace:
    """A graph with `n` for each of its sizes that is not fixed."""

    def __init__(self, model: onnx.ModelProto, n: int) -> None:
        self.graph, self.n = model.graph, n
        self.version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.values: dict[str, Any] = {"": None}
        self.codes: dict[str, bool] = {}  # names of what is followed, and whether it stands for reals
        self.next_code = 1
        self.room = _MOST + 4 * model.ByteSize()
        self.inputs: list[tuple[_Vectors, tuple[int, ...], bool]] = []  # with their shapes, and whether they are reals
        self.n_tokens: int | None = None
        self.table: Array | None = None
        self.vectors: _Vectors | None = None  # what the next node has to read
        self.layers: list[Weights] = []
        self.operator: Operator | None = None
        self.lengths: Array | None = None  # (B,), those that the graph is given
        self.read: _Vectors | None = None  # by the first layer
        self.batch_first = self.one_input = False
        self.shape = 0, 0  # T and B
        self.final = np.zeros((0, 0), np.int64)  # codes (B, ·) of the last node, at the end of each row
        self.states: list[Array] = []  # of each layer, codes (D, B, H)
        self.h_0: list[Array] = []
        self.h_0_starts: list[int] = []
        self.weight_ho: Array | None = None
        self.bias_o: Array | None = None
        self.link: str | None = None
        self.beside: list[tuple[str | None, _Vectors, Array]] = []  # logits and labels, with their `final`

    def run(self) -> Found:
        for one in self.graph.initializer:
            self._keep(one.name, numpy_helper.to_array(one))
        self._feed()
        for node in self.graph.node:
            self._compute(node)
        if self.operator is None:
            check.refuse("it has no RNN node")
        return self._found()

    # Values

    def _keep(self, name: str, array: Any) -> None:
        self.values[name] = array
        self.room -= getattr(array, "size", 1)
        if self.room < 0:
            check.refuse("its arrays have too many elements to follow: leave sizes of inputs open where they are fixed")

    def _new(self, n: int, width: int, last: Array | None = None) -> _Vectors:
        vectors = _Vectors(self.next_code, n, width, last)
        self.next_code += n * width
        return vectors

    def _constant(self, name: str, what: str, node: onnx.NodeProto) -> Any:
        if name in self.codes:
            check.refuse(f"{what} of {shown(node)} must be a constant, got what depends on inputs")
        return self.values[name]

    # Inputs

    def _feed(self) -> None:
        """Numbers for the inputs: lengths as they are, codes for all others."""
        given = {one.name: one.type.tensor_type for one in self.graph.input if one.name not in self.values}
        of_lengths, of_states = self._behind(4), self._behind(5)
        shapes = {name: self._shape(name, one, is_state=name in of_states) for name, one in given.items()}
        others = [shape for name, shape in shapes.items() if name not in of_lengths | of_states]
        for name, shape in shapes.items():
            is_real, is_int = given[name].elem_type in _FLOATS, given[name].elem_type in _INTS
            if not is_real and not is_int:
                check.refuse(f"its input {check.shown(name)} must hold floats, doubles or ints")
            if prod(shape) > self.room:
                check.refuse(f"its input {check.shown(name)} has too many elements, {shape}: leave its sizes open")
            if name in of_lengths and len(shape) == 1 and is_int:
                if self.lengths is not None:
                    check.refuse(f"its input {check.shown(name)} must not be there: elman has one input of lengths")
                self.lengths = _lengths(shape[0], next((one for one in others if len(one) > 1), (1, 1)))
                self._keep(name, self.lengths)
                continue
            *lead, width = shape if is_real else (*shape, 1)
            vectors = self._new(prod(lead), width)
            self.inputs.append((vectors, tuple(lead), is_real))
            self._keep(name, vectors.first + np.arange(prod(shape)).reshape(shape))
            self.codes[name] = is_real

    def _shape(self, name: str, tensor: Any, *, is_state: bool) -> tuple[int, ...]:
        shape = [dim.dim_value or self.n for dim in tensor.shape.dim]
        names = (node.input[2 if is_state else 1] for node in self.graph.node if node.op_type == "RNN")
        weight = next((self.values[one] for one in names if one in self.values), None)
        if weight is not None and tensor.elem_type in _FLOATS and shape and not tensor.shape.dim[-1].dim_value:
            shape[-1] = weight.shape[-1]
        return tuple(check.size(size, f"a size of its input {check.shown(name)}") for size in shape)

    def _behind(self, i: int) -> set[str]:
        """Names of all that input i of RNN nodes is made of, but for shapes."""
        found = {node.input[i] for node in self.graph.node if node.op_type == "RNN" and len(node.input) > i}
        for node in reversed(self.graph.node):
            if found.intersection(node.output) and node.op_type not in ("Shape", "Size", "RNN"):
                found.update(node.input)
        return found - {""}

    # Nodes

    def _compute(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            check.refuse(f"{shown(node)} of the domain {check.shown(node.domain)} cannot be kept")
        followed = [name in self.codes for name in node.input]
        if node.op_type == "RNN":
            outputs: Sequence[Array] = self._rnn(node)
            is_real = True
        elif node.op_type in ("Shape", "Size") or not any(followed):
            self._plain(node)
            return
        else:
            is_real = next(self.codes[name] for name in node.input if name in self.codes)
            outputs, is_real = self._moved(node, followed, is_real)
        for name, codes in zip(node.output, outputs, strict=False):
            self._keep(name, codes)
            self.codes[name] = is_real

    def _plain(self, node: onnx.NodeProto) -> None:
        if node.op_type not in _PLAIN:
            check.refuse(f"{shown(node)} cannot be kept: {_advice(node)}")
        for name, array in zip(node.output, self._evaluate(node, [self.values[i] for i in node.input]), strict=False):
            self._keep(name, array)

    def _moved(self, node: onnx.NodeProto, followed: list[bool], is_real: bool) -> tuple[Sequence[Array], bool]:
        """What a node with codes among its inputs makes of them."""
        op, arrays = node.op_type, [self.values[name] for name in node.input]
        is_first = followed[0] and not any(followed[1:])
        if op == "Cast" and attributes_of(node)["to"] in (_FLOATS if is_real else _INTS):
            return arrays, is_real
        is_token = not is_real and self.weight_ho is None  # not a label
        if op in ("OneHot", "Gather") and is_token and followed[1 if op == "Gather" else 0]:
            return [self._embedded(node, arrays)], True
        if op in _MOVING and (all(followed) if op == "Concat" else is_first) and not (op == "Dropout" and arrays[2:]):
            return self._evaluate(node, arrays), is_real
        if op == "Where" and self._is_of_empty_rows(node):
            return [arrays[2]], is_real
        if op == "MatMul" and is_first:
            return [self._read_out(node, arrays[0], arrays[1])], True
        if op == "Gemm" and is_first:
            return [self._gemm(node, *arrays)], True
        if op == "Add" and sum(followed) == 1:
            return [self._biased(node, arrays[followed.index(True)], arrays[followed.index(False)])], True
        if op in _LINKS:
            return [self._linked(node, arrays[0])], True
        if op in ("ArgMax", "Greater") and is_first and is_real:
            return [self._labelled(node, *arrays)], False
        raise ValueError(f"{shown(node)} cannot be kept: {_advice(node)}")

    def _evaluate(self, node: onnx.NodeProto, arrays: Sequence[Any]) -> Sequence[Any]:
        if node.op_type == "Slice" and _is_cut(node, arrays):
            check.refuse(f"{shown(node)} cannot be kept: it cuts at a size that is fixed")
        try:
            fits = _size_of(node, [array for array in arrays if array is not None]) <= self.room
            values = [
                [onnx.ValueInfoProto(name=name) for name in {*names} - {""}] for names in (node.input, node.output)
            ]
            graph = onnx.helper.make_graph([node], "node", *values)
            given = {name: array for name, array in zip(node.input, arrays, strict=True) if name}
            names = [name for name in node.output if name]
            made = ReferenceEvaluator(graph, opsets={"": self.version}).run(names, given) if fits else []
        except Exception as error:  # whatever the reference raises of what is wrong with it
            raise ValueError(f"{shown(node)} cannot be computed: {error}") from error
        if not fits:
            check.refuse(f"{shown(node)} makes an array with too many elements")
        results = iter(made)
        return [next(results) if name else None for name in node.output]

    # The network

    def _embedded(self, node: onnx.NodeProto, arrays: Sequence[Any]) -> Array:
        """Vectors that stand for tokens."""
        data, tokens = (arrays[1], arrays[0]) if node.op_type == "OneHot" else arrays[:2]
        if self.n_tokens is not None:
            check.refuse(f"{shown(node)} must be the only one that reads tokens")
        axis = attributes_of(node).get("axis", -1 if node.op_type == "OneHot" else 0)
        if node.op_type == "OneHot":
            if axis not in (-1, tokens.ndim) or list(arrays[2]) != [0, 1]:
                check.refuse(f"{shown(node)} must have its vectors along the last axis, of 0 and 1")
            self.n_tokens = width = check.size(int(np.asarray(data).item()), f"depth of {shown(node)}")
        else:
            if axis != 0 or data.ndim != 2 or not data.size:
                check.refuse(f"{shown(node)} must take rows of a table of two axes")
            self.table, (self.n_tokens, width) = data, data.shape
        (vectors, lead, _), *others = [one for one in self.inputs if not one[2]]
        if others:
            check.refuse("it must have one input of ints, besides lengths")
        if tokens.size * width > self.room:
            check.refuse(f"{shown(node)} makes an array with too many elements")
        own = self._new(vectors.n, width)
        self.inputs.append((own, lead, True))
        return own.codes(tokens - vectors.first)

    def _rnn(self, node: onnx.NodeProto) -> tuple[Array, Array]:
        """Codes of Y and Y_h."""
        who, inputs = shown(node), [*node.input, *[""] * 6][:6]
        operator = Operator.of(attributes_of(node), who)
        weights = Weights(*(self._constant(inputs[i], name, node) for i, name in ((1, "W"), (2, "R"), (3, "B"))))
        operator.check_weights(weights, who)
        self._check_alike(operator, weights, who)
        if inputs[0] not in self.codes:
            check.refuse(f"X of {who} must depend on inputs, got a constant")
        codes = self.values[inputs[0]]
        if codes.ndim != 3:
            check.refuse(f"X of {who} must have three axes, got {codes.ndim}")
        check.same_count(weights.W.shape[2], codes.shape[2], f"columns of W of {who}", "columns of X")
        places, rows = self._rows(codes.swapaxes(0, 1) if operator.batch_first else codes, who)
        n_steps, n_rows = places.shape
        lengths = self._lengths_of(inputs[4], rows, n_steps, node)
        self.layers.append(weights)
        self._start(inputs[5], rows, operator, node)
        H, D = weights.R.shape[2], operator.n_directions
        vectors = self._new(n_steps * n_rows, D * H)
        steps = vectors.codes(np.arange(vectors.n).reshape(n_steps, n_rows))  # (T, B, D·H)
        ends = {"forward": [lengths - 1], "reverse": [0 * lengths], "bidirectional": [lengths - 1, 0 * lengths]}
        each = [steps[end, np.arange(n_rows), d * H : (d + 1) * H] for d, end in enumerate(ends[operator.direction])]
        if D == 2 and n_steps > 1:
            vectors = vectors._replace(last=np.concatenate(each, axis=-1))
        self.vectors, self.shape = vectors, (n_steps, n_rows)
        self.final = np.concatenate(each, axis=-1)
        self.states.append(np.array(each))
        y, h_n = steps[:, rows].reshape(n_steps, n_rows, D, H).swapaxes(1, 2), self.states[-1][:, rows]
        return (y.transpose(2, 0, 1, 3), h_n.swapaxes(0, 1)) if operator.batch_first else (y, h_n)

    def _check_alike(self, operator: Operator, weights: Weights, who: str) -> None:
        """Refuse a layer that is not like the first one."""
        if self.weight_ho is not None:
            check.refuse(f"{who} must come before the readout")
        if self.operator is None:
            self.operator = operator
            return
        first = self.layers[0].R
        for name in ("nonlinearity", "direction"):
            check.choice(getattr(operator, name), f"{name} of {who}", [getattr(self.operator, name)])
        check.same_count(weights.R.shape[2], first.shape[2], f"hidden_size of {who}", "units of the layer below")
        check.choice(weights.R.dtype.name, f"the type of {who}", [first.dtype.name])

    def _rows(self, codes: Array, who: str) -> tuple[Array, Array]:
        """The places (T, B) of what a layer reads, and which row is where."""
        if self.vectors is not None:
            forms = {(self.batch_first, self.one_input): np.arange(self.vectors.n).reshape(self.shape)}
            vectors = self.vectors
        else:
            vectors, forms = self._first_read(codes, who)
        found = vectors.places(codes)
        for form, places in forms.items():
            if found is None:
                break
            rows = np.searchsorted(places[0], found[0]).clip(0, len(places[0]) - 1)
            is_whole = np.array_equal(np.sort(rows), np.arange(len(places[0])))
            if is_whole and np.array_equal(places[:, rows], found):
                self.batch_first, self.one_input = form
                return found, rows
        raise ValueError(
            f"X of {who} must be what the layer below puts out at each step: elman has one chain of layers"
        )

    def _first_read(self, codes: Array, who: str) -> tuple[_Vectors, dict[tuple[bool, bool], Array]]:
        """What the first layer reads, and its places (T, B) if its axes are T and B, or B and T, or one of them."""
        for vectors, lead, is_real in self.inputs:
            if is_real and vectors.places(codes) is not None and 1 <= len(lead) <= 2:
                self.read = vectors
                places = np.arange(vectors.n).reshape(lead)
                if len(lead) == 2:
                    return vectors, {(False, False): places, (True, False): places.T}
                return vectors, {(False, False): places[:, None], (False, True): places[None]}
        raise ValueError(
            f"X of {who} must be an input or tokens, with nothing computed before: elman has no such layer"
        )

    def _is_of_empty_rows(self, node: onnx.NodeProto) -> bool:
        """Whether it puts initial states (D, B, H) where a length is 0, as elman does: in none of those fed here."""
        made_by = {name: one for one in self.graph.node for name in one.output}
        condition, initial, states = node.input
        equal = made_by.get(condition)
        rnn = made_by.get(states)
        if equal is not None and equal.op_type == "Unsqueeze":
            equal = made_by.get(equal.input[0])
        if equal is None or equal.op_type != "Equal" or rnn is None or rnn.op_type != "RNN" or self.lengths is None:
            return False
        lengths, zero = equal.input
        is_zero = self.values[lengths] is self.lengths and not np.any(self.values[zero])
        is_its_own = [*rnn.input][5:] == [initial] and [*rnn.output][1:] == [states]
        return is_zero and is_its_own and self.values[condition].shape == (1, len(self.lengths), 1)

    def _lengths_of(self, name: str, rows: Array, n_steps: int, node: onnx.NodeProto) -> Array:
        """(B,), in the order of the input's rows."""
        lengths, who = self._constant(name, "sequence_lens", node), f"sequence_lens of {shown(node)}"
        given = self.lengths if self.lengths is not None else np.full(len(rows), n_steps)
        if lengths is None and self.lengths is not None:
            check.refuse(f"{who} must be there, as other layers have it")
        if lengths is not None and not np.array_equal(
            np.asarray(lengths), given[rows] if len(given) == len(rows) else ()
        ):
            check.refuse(f"{who} must be an input, or the number of steps")
        return given

    def _start(self, name: str, rows: Array, operator: Operator, node: onnx.NodeProto) -> None:
        """Take note of initial_h: none, the same for each row, or an input."""
        initial, who = self.values[name], f"initial_h of {shown(node)}"
        if initial is None:
            self.h_0.append(np.zeros((operator.n_directions, self.layers[-1].R.shape[2])))
            return
        if initial.ndim != 3:
            check.refuse(f"{who} must have three axes, got {initial.ndim}")
        initial = initial.swapaxes(0, 1) if operator.batch_first else initial
        shape = operator.n_directions, len(rows), self.layers[-1].R.shape[2]
        check.shape(initial.shape, who, [shape])
        if name not in self.codes:
            if not np.array_equal(initial, np.broadcast_to(initial[:, :1], shape)):
                check.refuse(f"{who} must be the same for all rows, or an input")
            self.h_0.append(initial[:, 0])
            return
        first, expected = int(initial.min()), np.arange(initial.size).reshape(shape)[:, rows]
        others = [one for one, _, _ in self.inputs if one is not self.read]
        is_input = any(one.first <= first and initial.max() < one.first + one.n * one.width for one in others)
        if not is_input or not np.array_equal(initial, first + expected) or self.h_0_starts[-1:] > [first]:
            check.refuse(f"{who} must be an input, of all layers one after the other")
        self.h_0_starts.append(first)

    def _advanced(self, node: onnx.NodeProto, codes: Array, width: int, place: str, *, fits: bool) -> Array:
        """Codes for what a node makes of the vectors of the one before it, if it does and is where it has to be."""
        places = None if self.vectors is None else self.vectors.places(codes)
        if self.vectors is None or places is None or not fits:
            raise ValueError(f"{shown(node)} cannot be kept: it must {place}")
        final, n_places = self.vectors.places(self.final), prod(self.shape) + self.shape[1]
        assert final is not None
        self.vectors = self._new(n_places, width)
        self.final = self.vectors.codes(final)
        return self.vectors.codes(places)

    def _read_out(self, node: onnx.NodeProto, codes: Array, weight: Array) -> Array:
        """A product with weight (K, O)."""
        fits = self.weight_ho is None and weight.ndim == 2 and len(weight) == codes.shape[-1]
        place = "be the one readout, of what the last layer puts out"
        made = self._advanced(node, codes, weight.shape[-1] if fits else 1, place, fits=fits)
        check.choice(weight.dtype.name, f"the type of {shown(node)}", [self.layers[0].R.dtype.name])
        self.weight_ho = weight.T
        return made

    def _gemm(self, node: onnx.NodeProto, codes: Array, weight: Array, bias: Array | None = None) -> Array:
        given = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0} | attributes_of(node)
        if given["transA"] or given["alpha"] != 1 or given["beta"] != 1:
            check.refuse(f"{shown(node)} must have transA 0, alpha 1 and beta 1")
        product = self._read_out(node, codes, weight.T if given["transB"] else weight)
        return product if bias is None else self._biased(node, product, bias)

    def _biased(self, node: onnx.NodeProto, codes: Array, bias: Array) -> Array:
        n = 0 if self.weight_ho is None else len(self.weight_ho)
        fits = n > 0 and self.bias_o is None and not self.beside and self.link is None and prod(bias.shape[:-1]) == 1
        fits = fits and bias.size in (1, n) and bias.ndim <= codes.ndim
        made = self._advanced(node, codes, n, "be the bias of the readout", fits=fits)
        self.bias_o = np.broadcast_to(bias.reshape(-1), (n,))
        return made

    def _linked(self, node: onnx.NodeProto, codes: Array) -> Array:
        n, read, final = 0 if self.weight_ho is None else len(self.weight_ho), self.vectors, self.final
        fits = n > 0 and self.link is None
        if node.op_type == "Sigmoid":
            made = self._each(node, codes, fits=fits)
        else:
            axis = attributes_of(node).get("axis", -1 if self.version >= 13 else 1)
            fits = fits and axis in (-1, codes.ndim - 1)
            made = self._advanced(node, codes, n, "come after the readout, along its last axis", fits=fits)
        assert read is not None
        self.beside.append((None, read, final))
        self.link = node.op_type
        return made

    def _labelled(self, node: onnx.NodeProto, codes: Array, threshold: Array | None = None) -> Array:
        """Labels, of logits or of what came after them: nothing follows them."""
        now = self.link, self.vectors, self.final
        ends = [one for one in [now, *self.beside] if one[1] is not None and one[1].places(codes) is not None]
        link, self.vectors, self.final = ends[0] if ends else now
        given = {"axis": 0, "keepdims": 1, "select_last_index": 0} | attributes_of(node)
        if threshold is None:
            fits = given["axis"] in (-1, codes.ndim - 1) and not given["select_last_index"]
        else:
            fits = link in (None, "Sigmoid") and bool(np.all(threshold == (0 if link is None else 0.5)))
        width = 1 if threshold is None else codes.shape[-1]
        fits = fits and self.weight_ho is not None
        made = self._advanced(node, codes, width, "make labels of what the readout puts out", fits=fits)
        assert self.vectors is not None
        self.beside.append((node.op_type, self.vectors, self.final))
        _, self.vectors, self.final = now
        return made if threshold is not None or given["keepdims"] else made[..., 0]

    def _each(self, node: onnx.NodeProto, codes: Array, *, fits: bool) -> Array:
        """Codes for what a node makes of each element of what the readout puts out, in whatever order it is."""
        read = self.vectors
        is_inside = read is not None and np.all((read.first <= codes) & (codes < read.first + read.n * read.width))
        if read is None or not fits or not is_inside:
            raise ValueError(f"{shown(node)} cannot be kept: it must come after the readout")
        self.vectors = self._new(read.n, read.width)
        step = self.vectors.first - read.first
        self.final = self.final + step
        return codes + step

    # What it comes to

    def _found(self) -> Found:
        assert self.operator is not None
        if self.h_0 and self.h_0_starts:
            check.refuse("initial_h must be an input of all its RNN nodes, or of none")
        forms = {form for name in (one.name for one in self.graph.output) if (form := self._form(name)) is not None}
        links = {_KINDS[link] for link, _ in forms if link is not None}
        if self.weight_ho is not None and (len({is_one for _, is_one in forms}) != 1 or len(links) > 1):
            check.refuse("it must have one output of the readout")
        h_0 = np.concatenate(self.h_0) if any(map(np.any, self.h_0)) else None
        return Found(
            self.operator,
            self.layers,
            self.batch_first,
            self.one_input,
            self.n_tokens,
            self.table,
            h_0,
            self.weight_ho,
            self.bias_o,
            next(iter(links), None),
            {is_one for _, is_one in forms} == {True},
        )

    def _form(self, name: str) -> tuple[str | None, bool] | None:
        """What an output comes after, and whether it has one item for each sequence instead of each step.

        None for states.
        """
        codes, vectors = self.values.get(name), self.vectors
        assert vectors is not None
        if name in self.codes and codes is not None:
            states = [np.concatenate(self.states), *self.states]
            if _is_one_of(codes, [form for one in states for form in (one, one.swapaxes(0, 1))]):
                return None
            for link, made, final in [(self.link, vectors, self.final), *self.beside]:
                is_one = self._is_one(codes, made, final)
                if is_one is not None:
                    return link, is_one
        raise ValueError(
            f"its output {check.shown(name)} must be what the last node computes, in its order: of all steps, "
            "of each sequence's last one, or states"
        )

    def _is_one(self, codes: Array, vectors: _Vectors, final: Array) -> bool | None:
        every = vectors.codes(np.arange(prod(self.shape)).reshape(self.shape))
        by_direction = every.reshape(*self.shape, len(self.states[0]) if self.weight_ho is None else 1, -1)
        if _is_one_of(codes, [form for one in (every, by_direction) for form in (one, one.swapaxes(0, 1))]):
            return self.one_input
        if _is_one_of(codes, [by_direction.swapaxes(1, 2)]):
            return False
        return True if _is_one_of(codes, [final]) else None


def _is_one_of(codes: Array, forms: Sequence[Array]) -> bool:
    """But for axes of 1."""
    return any(np.array_equal(codes.squeeze(), form.squeeze()) for form in forms)


def _size_of(node: onnx.NodeProto, arrays: Sequence[Any]) -> int:
    """At most so many elements a node makes."""
    if node.op_type == "ConstantOfShape":
        return prod(int(size) for size in arrays[0])
    if node.op_type == "Range":
        start, limit, step = (array.item() for array in arrays)
        return int(max(0, ceil((limit - start) / step)))
    if node.op_type == "Expand":
        return prod(np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1])))
    if node.op_type == "Gather":
        axis = attributes_of(node).get("axis", 0)
        return int(arrays[0].size // max(1, arrays[0].shape[axis]) * arrays[1].size)
    if node.op_type in _BINARY:
        return prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return sum(int(array.size) for array in arrays)


def _is_cut(node: onnx.NodeProto, arrays: Sequence[Any]) -> bool:
    """Whether a Slice goes beyond what is there, but not to the end of whatever there is."""
    ends = arrays[2] if len(arrays) > 2 else attributes_of(node)["ends"]
    return any(max(arrays[0].shape) < end < (1 << 31) - 1 for end in ends)


def _lengths(n_rows: int, shape: tuple[int, ...]) -> Array:
    """Of so many rows of an input (T, B, ·) or (B, T, ·): in no order, above 1 where T is, first one below T."""
    n_steps = shape[0] if shape[1] == n_rows else shape[1]
    return 2 + (np.arange(n_rows) + n_steps - 3) % (n_steps - 1) if n_steps > 1 else np.ones(n_rows, np.int64)


def _advice(node: onnx.NodeProto) -> str:
    if node.op_type in ("GRU", "LSTM"):
        return f"elman has no {node.op_type}"
    return "elman has layers, a readout, and softmax or sigmoid"
