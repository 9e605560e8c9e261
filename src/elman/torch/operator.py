"""The operator `elman::rnn`: what programs see that are traced, in one piece, with its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from elman.torch.passes import Options, backward, forward, kernel_weights

_OPTIONS = "int num_layers, bool relu, bool has_biases, bool bidirectional, bool batch_first"
_INPUTS = "Tensor input, Tensor? hx, Tensor[] weights, Tensor? batch_sizes, Tensor[] masks"


@torch.library.custom_op(
    "elman::rnn", mutates_args=(), device_types="cpu", schema=f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor[])"
)
def _rnn(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The outputs, the last states, and the outputs of the layers but the last, which the derivative needs."""
    layers = kernel_weights(weights, Options(*options))
    outputs, h_n = forward(input, hx, layers, batch_sizes, masks, Options(*options), keep=True)
    return outputs[-1], h_n, outputs[:-1]


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
    layers, all_needed = kernel_weights(weights, Options(*options)), [True] * len(weights)
    return backward(d_y, d_h_n, input, hx, layers, batch_sizes, masks, outputs, Options(*options), True, all_needed)


@_rnn.register_fake
def _rnn_shapes(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    _batch_sizes: Tensor | None,
    _masks: Sequence[Tensor],
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    num_layers, *_, batch_first = options
    architecture = Options(*options).architecture(input.shape[-1], weights[1].shape[0])
    outputs = [input.new_empty(*input.shape[:-1], architecture.n_outputs) for _ in range(num_layers)]
    if hx is not None:
        h_n = torch.empty_like(hx, memory_format=torch.contiguous_format)
    else:
        h_n = input.new_empty(architecture.state_shape(input.shape[0 if batch_first else 1]))
    return outputs[-1], h_n, outputs[:-1]


@_rnn_backward.register_fake
def _rnn_backward_shapes(
    _d_y: Tensor,
    d_h_n: Tensor,
    input: Tensor,
    _hx: Tensor | None,
    weights: Sequence[Tensor],
    *_: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    d_input, d_hx, *d_weights = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (input, d_h_n, *weights)
    )
    return d_input, d_hx, d_weights


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    input, hx, weights, batch_sizes, masks, *options = inputs
    y, _, inner = output
    ctx.save_for_backward(input, hx, batch_sizes, *inner, y, *masks, *weights)
    ctx.n_masks, ctx.options = len(masks), Options(*options)


def _differentiate(ctx: Any, d_y: Tensor, d_h_n: Tensor, _: Any) -> tuple[Any, ...]:
    input, hx, batch_sizes, *others = ctx.saved_tensors
    n_layers = ctx.options.num_layers
    outputs, others = others[:n_layers], others[n_layers:]
    masks, weights = others[: ctx.n_masks], others[ctx.n_masks :]
    d_input, d_hx, d_weights = torch.ops.elman.rnn_backward(
        d_y, d_h_n, input, hx, weights, batch_sizes, masks, outputs, *ctx.options
    )
    return d_input, None if hx is None else d_hx, d_weights, None, [None] * ctx.n_masks, *[None] * len(ctx.options)


def refuse_to_differentiate(*_: Any) -> NoReturn:
    raise RuntimeError(
        "elman.torch.RNN has first derivatives only, so that gradients of gradients cannot be had: "
        "use torch.nn.RNN for them"
    )


_rnn.register_autograd(_differentiate, setup_context=_save)
_rnn_backward.register_autograd(refuse_to_differentiate)
