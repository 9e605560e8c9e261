"""The operator `elman::rnn`: what programs see that are traced, in one piece, with its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.torch import plain
from elman.torch.passes import Options, backward, forward, kernel_weights

_OPTIONS = "int num_layers, bool relu, bool has_biases, bool bidirectional, bool batch_first"
_INPUTS = "Tensor input, Tensor? hx, Tensor[] weights, Tensor? batch_sizes, Tensor[] masks"


@torch.library.custom_op(
    "elman::rnn",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_INPUTS}, bool keep, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    keep: bool,
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs, the last states, and what the derivative needs, if that is to be kept: the outputs of all layers."""
    layers = kernel_weights(weights, Options(*options))
    return forward(input, hx, layers, batch_sizes, masks, Options(*options), keep=keep)


@torch.library.custom_op(
    "elman::rnn_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor d_y, Tensor d_h_n, {_INPUTS}, Tensor[] outputs, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])",
)
def _rnn_backward(
    d_y: Tensor,
    d_h_n: Tensor,
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    layers, is_needed = kernel_weights(weights, Options(*options)), [True] * (2 + len(weights))
    found = backward(d_y, d_h_n, input, hx, layers, batch_sizes, masks, outputs, Options(*options), is_needed)
    d_input, d_hx, *d_weights = [one for one in found if one is not None]
    return d_input, d_hx, d_weights


@_rnn.register_fake
def _rnn_shapes(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    _masks: Sequence[Tensor],
    keep: bool,
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    num_layers, *_, batch_first = options
    architecture = Options(*options).architecture(input.shape[-1], weights[1].shape[0])
    is_batch_major = batch_first and batch_sizes is None
    n = 1 + num_layers if keep else 1
    y, *outputs = [_empty(input, architecture.n_outputs, is_batch_major) for _ in range(n)]
    if hx is not None:
        h_n = torch.empty_like(hx, memory_format=torch.contiguous_format)
    else:
        h_n = input.new_empty(architecture.state_shape(input.shape[0 if batch_first else 1]))
    return y, h_n, outputs


@_rnn_backward.register_fake
def _rnn_backward_shapes(
    _d_y: Tensor,
    d_h_n: Tensor,
    input: Tensor,
    _hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    *others: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    d_input = _empty(input, input.shape[-1], others[-1] and batch_sizes is None)
    d_hx, *d_weights = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (d_h_n, *weights))
    return d_input, d_hx, d_weights


def _empty(input: Tensor, n_columns: int, is_batch_major: bool) -> Tensor:
    """As `passes.TensorForm` makes it."""
    if not is_batch_major:
        return input.new_empty(*input.shape[:-1], n_columns)
    n_rows, n_steps, _ = input.shape
    return input.new_empty(n_steps, n_rows, n_columns).transpose(0, 1)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    input, hx, weights, batch_sizes, masks, _, *options = inputs
    ctx.save_for_backward(input, hx, batch_sizes, *output[2], *masks, *weights)
    ctx.n_masks, ctx.options = len(masks), Options(*options)


def _differentiate(ctx: Any, d_y: Tensor, d_h_n: Tensor, _: Any) -> tuple[Any, ...]:
    input, hx, batch_sizes, *others = ctx.saved_tensors
    options, n_layers = ctx.options, ctx.options.num_layers
    outputs, others = others[:n_layers], others[n_layers:]
    masks, weights = others[: ctx.n_masks], others[ctx.n_masks :]
    if torch.is_grad_enabled():  # create_graph
        is_needed = [leaf is not None and leaf.requires_grad for leaf in (input, hx, *weights)]
        found = plain.gradients(d_y, d_h_n, input, hx, weights, batch_sizes, masks, options, is_needed)
        d_input, d_hx, *d_weights = found
    else:
        d_input, d_hx, d_weights = torch.ops.elman.rnn_backward(
            d_y, d_h_n, input, hx, weights, batch_sizes, masks, outputs, *options
        )
    no_options = [None] * (1 + len(options))
    return d_input, None if hx is None else d_hx, d_weights, None, [None] * ctx.n_masks, *no_options


_rnn.register_autograd(_differentiate, setup_context=_save)
rnn = torch.ops.elman.rnn
