"""The operator `elman::rnn`: what programs see that are traced, in one piece, with its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.torch import passes, plain
from elman.torch.passes import Call, Options, backward, forward, kernel_weights

_OPTIONS = "int num_layers, str nonlinearity, bool has_biases, bool bidirectional, bool batch_first, str cell"
_INPUTS = (
    "Tensor input, Tensor? hx, Tensor[] weights, Tensor? batch_sizes, Tensor[] masks, "
    "Tensor[] leaks, Tensor[] noises, Tensor? seeds, Tensor? resets"
)
_N_INPUTS = len(Call._fields) - 1  # all but the options


@torch.library.custom_op(
    "elman::rnn",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_INPUTS}, bool keep, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn(*flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs, the last states, and what the derivative needs, if that is to be kept."""
    call, keep = _unflattened(flat)
    return forward(call, kernel_weights(call), keep=keep)


def _unflattened(flat: Sequence[Any]) -> tuple[Call, Any]:
    """What is computed, from an operator's arguments, and what stands before the options there."""
    return Call._make((*flat[:_N_INPUTS], Options(*flat[_N_INPUTS + 1 :]))), flat[_N_INPUTS]


@torch.library.custom_op(
    "elman::rnn_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor d_y, Tensor d_h_n, {_INPUTS}, Tensor[] kept, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn_backward(d_y: Tensor, d_h_n: Tensor, *flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    call, kept = _unflattened(flat)
    found = backward(call, kernel_weights(call), kept, [True] * len(call.leaves), d_y=d_y, d_h_n=d_h_n)
    d_input, d_hx, *d_others = [one for one in found if one is not None]
    return d_input, d_hx, d_others


@_rnn.register_fake
def _rnn_shapes(*flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    (call, keep), hx = _unflattened(flat), flat[1]
    architecture = call.options.architecture(call.input.shape[-1], call.weights[1].shape[0])
    n = 1 + call.options.num_layers + len(call.leaks) if keep else 1
    y, *kept = [_empty(call, architecture.n_outputs) for _ in range(n)]
    if hx is not None:
        h_n = torch.empty_like(hx, memory_format=torch.contiguous_format)
    else:
        h_n = y.new_empty(architecture.state_shape(call.input.shape[0 if call.options.batch_first else 1]))
    return y, h_n, kept


@_rnn_backward.register_fake
def _rnn_backward_shapes(_d_y: Tensor, d_h_n: Tensor, *flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    call, _ = _unflattened(flat)
    likes = d_h_n, *call.leaves[2:]
    d_hx, *d_others = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in likes if t is not None)
    return _empty(call, call.input.shape[-1]), d_hx, d_others


def _empty(call: Call, n_columns: int) -> Tensor:
    """As passes.py makes it."""
    input = call.input
    if not call.options.batch_first or call.batch_sizes is not None:
        return input.new_empty(*input.shape[:-1], n_columns)
    n_rows, n_steps, _ = input.shape
    return input.new_empty(n_steps, n_rows, n_columns).transpose(0, 1)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    (call, _), kept = _unflattened(inputs), output[2]
    ctx.save_for_backward(call.batch_sizes, call.seeds, call.resets, *kept, *call.masks, *call.leaves)
    ctx.n_kept, ctx.n_masks, ctx.options = len(kept), len(call.masks), call.options


def _differentiate(ctx: Any, d_y: Tensor, d_h_n: Tensor, _: Any) -> tuple[Any, ...]:
    batch_sizes, seeds, resets, *others = ctx.saved_tensors
    kept, others = others[: ctx.n_kept], others[ctx.n_kept :]
    masks, leaves = others[: ctx.n_masks], others[ctx.n_masks :]
    call = Call.of(leaves, batch_sizes, masks, seeds, resets, ctx.options)
    if torch.is_grad_enabled():  # create_graph
        is_needed = [leaf is not None and leaf.requires_grad for leaf in call.leaves]
        d_input, d_hx, *d_others = plain.gradients(call, is_needed, d_y=d_y, d_h_n=d_h_n)
    else:
        d_input, d_hx, d_others = torch.ops.elman.rnn_backward(d_y, d_h_n, *call[:-1], kept, *call.options)
    d_leaves, no_masks = [d_input, None if call.hx is None else d_hx, *d_others], [None] * ctx.n_masks
    return *Call.of(d_leaves, None, no_masks, None, None, ctx.options)[:-1], *[None] * (1 + len(ctx.options))


_rnn.register_autograd(_differentiate, setup_context=_save)
rnn = torch.ops.elman.rnn


@torch.library.custom_op(
    "elman::normals",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor seeds, Tensor steps, int n_columns, int stream) -> Tensor",
)
def normals(seeds: Tensor, steps: Tensor, n_columns: int, stream: int) -> Tensor:
    """Those of passes.py. steps is any tensor (T,): where programs are traced, a number would be a constant."""
    return passes.normals(seeds, len(steps), n_columns, stream)


@normals.register_fake
def _normals_shape(seeds: Tensor, steps: Tensor, n_columns: int, _stream: int) -> Tensor:
    return seeds.new_empty((steps.shape[0], seeds.shape[0], n_columns), dtype=torch.float64)
