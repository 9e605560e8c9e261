"""Layers in a graph: nodes RNN where that operator has what they do, else a Scan for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman.backends.reference import CELLS
from elman.layer.rnn import RNN, stack_of
from elman.onnx.export_graph import BOOL, Graph, Rows
from elman.onnx.operator import ACTIVATIONS
from elman.typing import Real


class Layers:
    """The layers of an RNN, with weights that act."""

    def __init__(self, graph: Graph, rnn: RNN, owner: str = "") -> None:
        """`owner` comes before the names of constants."""
        stack = stack_of(rnn)
        self.weights, self.dynamics, self.cell = rnn.effective_weights(), stack.dynamics_now(), stack.dynamics.cell
        self.architecture, self._graph, self._owner = stack.architecture, graph, owner
        self._f = str(rnn.nonlinearity)
        self._is_operator = self.cell == "elman" and self._f in ACTIVATIONS and graph.has_rnn

    def run(self, x: str, rows: Rows, h_0: str, *, is_tokens: bool = False) -> tuple[str, list[str]]:
        """From x (T, B, I) or tokens (T, B): y (T, B, D·H), and of each layer the last states (D, B, H).

        h_0: (L·D, B, H), or "" for zeros.
        """
        last = []
        if not self._is_operator and not h_0:
            h_0 = self.first(rows)
        for k in range(self.architecture.num_layers):
            if self._is_operator:
                x, h_n = self._operator(k, x, rows, h_0, is_tokens=is_tokens and k == 0)
            else:
                x, h_n = self._scans(k, x, rows, h_0, is_tokens=is_tokens and k == 0)
            last.append(h_n)
        return x, last

    def first(self, rows: Rows, h_0: Real | None = None) -> str:
        """The states (L·D, B, H) of rows that begin with some (L·D, H), or with zeros."""
        n_states, _, n_units = self.architecture.state_shape(1)
        if h_0 is None:
            return rows.all_alike(f"{self._owner}h_0", np.zeros((n_states, n_units)))
        return rows.all_alike("h_0", h_0)  # a parameter of models, whose name has no owner

    def step(self, body: Graph, x: str, states: Sequence[str], *, is_tokens: bool) -> tuple[str, list[str]]:
        """One step of all layers, in one direction: from x (B, I) or tokens (B,), y (B, H) and the states (B, H)."""
        after = []
        for k, state in enumerate(states):
            a = self._projected(body, x, k, 0, is_tokens=is_tokens and k == 0)
            x, state = self._stepped(body, a, state, k, 0)
            after.append(state)
        return x, after

    def outputs(self, h: str) -> str:
        """What the layers put out where their states are h."""
        return self._activated(self._graph, h) if CELLS[self.cell].state_is_second else h

    def side_by_side(self, h: str) -> str:
        """States (D, B, H) as (B, D·H)."""
        graph, n_outputs = self._graph, self.architecture.n_outputs
        if not self.architecture.bidirectional:
            return graph.add("Squeeze", h, graph.integers(0))
        rows_first = graph.add("Transpose", h, perm=[1, 0, 2])
        return graph.add("Reshape", rows_first, graph.integers(0, n_outputs))

    # The operator

    def _operator(self, k: int, x: str, rows: Rows, h_0: str, *, is_tokens: bool) -> tuple[str, str]:
        graph, sizes, suffix = self._graph, self.architecture, f"_l{k}"
        weight_ih, bias, n = self._of_both("weight_ih", k), self._of_both("bias", k), sizes.n_directions
        if is_tokens:
            x, weight_ih, name = self._rows_of_tokens(x, weight_ih)
        weights = [
            self._constant(name if is_tokens else "weight_ih", suffix, weight_ih),
            self._constant("weight_hh", suffix, self._of_both("weight_hh", k)),
            self._constant("bias", suffix, np.concatenate([bias, np.zeros_like(bias)], axis=1)) if sizes.bias else "",
        ]
        states = h_0 and self._states(h_0, [*range(k * n, (k + 1) * n)])
        attributes: dict[str, Any] = {"hidden_size": sizes.hidden_size, "activations": [ACTIVATIONS[self._f]] * n}
        if self._f == "identity":  # 1 a + 0
            attributes |= {"activation_alpha": [1.0] * n, "activation_beta": [0.0] * n}
        if sizes.runs_back:
            attributes["direction"] = "bidirectional" if sizes.bidirectional else "reverse"
        called = f"{self._owner}y{suffix}_by_direction", f"{self._owner}h_n{suffix}"
        y, h_n = graph.add_many("RNN", (x, *weights, rows.sequence_lens, states), *called, **attributes)
        if rows.lengths and states:  # of a row without steps, ONNX Runtime returns zeros
            h_n = graph.add("Where", rows.is_empty, states, h_n, called=called[1])
        return self._joined(k, y), h_n

    def _joined(self, k: int, y: str) -> str:
        """(T, D, B, H) as (T, B, D·H)."""
        graph, called = self._graph, f"{self._owner}y_l{k}"
        if not self.architecture.bidirectional:
            return graph.add("Squeeze", y, graph.integers(1), called=called)
        rows_first = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        shape = graph.integers(0, 0, self.architecture.n_outputs)  # 0: as it is
        return graph.add("Reshape", rows_first, shape, called=called)

    def _rows_of_tokens(self, tokens: str, weight_ih: Real) -> tuple[str, Real, str]:
        """What the operator reads for tokens (T, B), which it does not take; its weight (D, H, ·), and what that is.

        One-hot rows, or those of the weight itself where they are shorter.
        """
        n_directions, n_units, n = weight_ih.shape
        if n <= n_directions * n_units:
            table, name = self._constant("one_hot", "", np.eye(n)), "weight_ih"
        else:
            table, name = self._constant("weight_ih", "_l0.T", weight_ih.reshape(-1, n).T), "units"
            weight_ih = np.eye(n_directions * n_units).reshape(n_directions, n_units, -1)
        return self._graph.add("Gather", table, tokens, called=f"{self._owner}x_of_tokens"), weight_ih, name

    # A Scan for each direction

    def _scans(self, k: int, x: str, rows: Rows, h_0: str, *, is_tokens: bool) -> tuple[str, str]:
        graph, y, h_n = self._graph, [], []
        for d in range(self.architecture.n_directions):
            state = self._states(h_0, k * self.architecture.n_directions + d)
            projected = self._projected(graph, x, k, d, is_tokens=is_tokens)
            last, outputs = self._scan(k, d, projected, rows, state)
            h_n.append(graph.add("Unsqueeze", last, graph.integers(0)))
            y.append(outputs)
        if len(y) == 1:
            return y[0], h_n[0]
        return graph.add("Concat", *y, axis=2, called=f"{self._owner}y_l{k}"), graph.add("Concat", *h_n, axis=0)

    def _scan(self, k: int, d: int, projected: str, rows: Rows, state: str) -> tuple[str, str]:
        """The last states (B, H) and outputs (T, B, H) of a direction. Past a row's own end it stays where it is."""
        graph, body = self._graph, self._graph.body()
        before = body.input("h_before", graph.real)
        a = body.input("projected_t", graph.real)
        output, after = self._stepped(body, a, before, k, d)
        over_time = [projected]
        if rows.lengths:
            over_time.append(rows.is_within)
            is_within = body.input("is_within_t", BOOL)
            after = body.add("Where", is_within, after, before)
            output = body.add("Where", is_within, output, graph.constant("zero", 0.0))
        body.output(after, graph.real)
        body.output(output, graph.real)
        suffix, is_backwards = _suffix(k, d), int(d == 1 or self.architecture.reverse)
        last, y = graph.add_many(
            "Scan",
            (state, *over_time),
            f"{self._owner}h_n{suffix}",
            f"{self._owner}y{suffix}",
            body=body.proto(f"step{suffix}"),
            num_scan_inputs=len(over_time),
            scan_input_directions=[is_backwards] * len(over_time),
            scan_output_directions=[is_backwards],
        )
        return last, y

    def _projected(self, graph: Graph, x: str, k: int, d: int, *, is_tokens: bool) -> str:
        """weight_ih x + bias (..., H), of x (..., I) or of tokens (...)."""
        weight = self._own("weight_ih", k, d, transposed=True)
        product = graph.add("Gather", weight, x) if is_tokens else graph.add("MatMul", x, weight)
        if not self.architecture.bias:
            return product
        return graph.add("Add", product, self._own("bias", k, d), called="projected")

    def _stepped(self, graph: Graph, projected: str, before: str, k: int, d: int) -> tuple[str, str]:
        """A step of one layer and direction: output and state (B, H), from the state before it."""
        is_potential = CELLS[self.cell].state_is_second
        read = self._activated(graph, before) if is_potential else before
        recurrent = graph.add("MatMul", read, self._own("weight_hh", k, d, transposed=True))
        a = graph.add("Add", projected, recurrent, called="a")
        after = a if is_potential else self._activated(graph, a)
        if self.cell != "elman":
            leaks = self.dynamics[k].numbers
            assert leaks is not None
            leak = self._constant("leak", _suffix(k, d), leaks[d])
            change = graph.add("Mul", leak, graph.add("Sub", after, before))
            after = graph.add("Add", before, change, called="state")
        return (self._activated(graph, after) if is_potential else after), after

    def _activated(self, graph: Graph, a: str) -> str:
        """f of each element."""
        if self._f == "retanh":
            return graph.add("Relu", graph.add("Tanh", a))
        if self._f == "power":
            return graph.add("Mul", *[graph.add("Relu", a)] * 2)
        if self._f == "softplus" and graph.dtype == np.float64:  # for which ONNX Runtime has no Softplus
            small = graph.add("Exp", graph.add("Neg", graph.add("Abs", a)))
            rest = graph.add("Log", graph.add("Add", graph.constant("one", 1.0), small))
            return graph.add("Add", graph.add("Relu", a), rest)
        return graph.add(self._f.capitalize(), a)

    # Constants

    def _own(self, kind: str, k: int, d: int, *, transposed: bool = False) -> str:
        """A direction's own weight, as it acts, or bias."""
        weight = self.weights[f"{kind}{_suffix(k, d)}"]
        return self._constant(kind, _suffix(k, d) + (".T" if transposed else ""), weight.T if transposed else weight)

    def _of_both(self, kind: str, k: int) -> Real:
        """A layer's weights (D, H, ·), or biases (D, H), zeros if there are none."""
        zeros, directions = np.zeros(self.architecture.hidden_size), range(self.architecture.n_directions)
        return np.stack([self.weights.get(f"{kind}{_suffix(k, d)}", zeros) for d in directions])

    def _constant(self, kind: str, suffix: str, value: Any) -> str:
        return self._graph.constant(f"{self._owner}{kind}{suffix}", value)

    def _states(self, h_0: str, which: int | list[int]) -> str:
        """Of states (L·D, B, H) one, (B, H), or some, (n, B, H)."""
        graph = self._graph
        if isinstance(which, int):
            return graph.add("Gather", h_0, graph.integer(which))
        return h_0 if len(which) == self.architecture.n_states else graph.add("Gather", h_0, graph.integers(*which))


def _suffix(k: int, d: int) -> str:
    return f"_l{k}_reverse" if d == 1 else f"_l{k}"
