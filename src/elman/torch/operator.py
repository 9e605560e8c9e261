"""The operator `elman::rnn`: what programs see that are traced, in one piece, with its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.torch import plain
from elman.torch.passes import Call, Options, backward, forward, kernel_weights

_OPTIONS = "int num_layers, bool relu, bool has_biases, bool bidirectional, bool batch_first"
_INPUTS = "Tensor input, Tensor? hx, Tensor[] weights, Tensor? batch_sizes, Tensor[] masks"


@torch.library.custom_op(
    "elman::rnn",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_INPUTS}, bool keep, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn(*flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs, the last states, and what the derivative needs, if that is to be kept: the outputs of all layers."""
    call, keep = _unflattened(flat)
    return forward(call, kernel_weights(call), keep=keep)


def _unflattened(flat: Sequence[Any]) -> tuple[Call, Any]:
    """What is computed, from an operator's arguments, and what stands before the options there."""
    input, hx, weights, batch_sizes, masks, other, *options = flat
    return Call(input, hx, weights, batch_sizes, masks, Options(*options)), other


@torch.library.custom_op(
    "elman::rnn_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor d_y, Tensor d_h_n, {_INPUTS}, Tensor[] outputs, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn_backward(d_y: Tensor, d_h_n: Tensor, *flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    call, outputs = _unflattened(flat)
    found = backward(call, kernel_weights(call), outputs, [True] * len(call.leaves), d_y=d_y, d_h_n=d_h_n)
    d_input, d_hx, *d_weights = [one for one in found if one is not None]
    return d_input, d_hx, d_weights


@_rnn.register_fake
def _rnn_shapes(*flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    (call, keep), hx = _unflattened(flat), flat[1]
    architecture = call.options.architecture(call.input.shape[-1], call.weights[1].shape[0])
    n = 1 + call.options.num_layers if keep else 1
    y, *outputs = [_empty(call, architecture.n_outputs) for _ in range(n)]
    if hx is not None:
        h_n = torch.empty_like(hx, memory_format=torch.contiguous_format)
    else:
        h_n = y.new_empty(architecture.state_shape(call.input.shape[0 if call.options.batch_first else 1]))
    return y, h_n, outputs


@_rnn_backward.register_fake
def _rnn_backward_shapes(_d_y: Tensor, d_h_n: Tensor, *flat: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    call, _ = _unflattened(flat)
    d_hx, *d_weights = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (d_h_n, *call.weights))
    return _empty(call, call.input.shape[-1]), d_hx, d_weights


def _empty(call: Call, n_columns: int) -> Tensor:
    """As passes.py makes it."""
    input = call.input
    if not call.options.batch_first or call.batch_sizes is not None:
        return input.new_empty(*input.shape[:-1], n_columns)
    n_rows, n_steps, _ = input.shape
    return input.new_empty(n_steps, n_rows, n_columns).transpose(0, 1)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    call, _ = _unflattened(inputs)
    ctx.save_for_backward(call.batch_sizes, *output[2], *call.masks, *call.leaves)
    ctx.n_masks, ctx.options = len(call.masks), call.options


def _differentiate(ctx: Any, d_y: Tensor, d_h_n: Tensor, _: Any) -> tuple[Any, ...]:
    batch_sizes, *others = ctx.saved_tensors
    outputs, others = others[: ctx.options.num_layers], others[ctx.options.num_layers :]
    masks, (input, hx, *weights) = others[: ctx.n_masks], others[ctx.n_masks :]
    call = Call(input, hx, weights, batch_sizes, masks, ctx.options)
    if torch.is_grad_enabled():  # create_graph
        is_needed = [leaf is not None and leaf.requires_grad for leaf in call.leaves]
        d_input, d_hx, *d_weights = plain.gradients(call, is_needed, d_y=d_y, d_h_n=d_h_n)
    else:
        d_input, d_hx, d_weights = torch.ops.elman.rnn_backward(d_y, d_h_n, *call[:5], outputs, *call.options)
    no_options = [None] * (1 + len(call.options))
    return d_input, None if hx is None else d_hx, d_weights, None, [None] * ctx.n_masks, *no_options


_rnn.register_autograd(_differentiate, setup_context=_save)
rnn = torch.ops.elman.rnn
