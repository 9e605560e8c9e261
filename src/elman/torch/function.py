"""A stack of layers as a function of tensors, and its derivative.

There are three ways in, all to the passes of `passes.py`. An ordinary call takes `_Function`, the shortest. What is
traced, by `torch.compile` or `torch.export`, takes the operator `elman::rnn` (operator.py), whose dispatch costs some
tens of microseconds more. What `torch.func` transforms takes `_Transformed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from elman.torch.operator import refuse_to_differentiate
from elman.torch.passes import Options, backward, forward, kernel_weights

_ORDINARY = {Tensor, torch.nn.Parameter, type(None)}


def rnn(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    options: Options,
) -> tuple[Tensor, Tensor]:
    """The outputs (T, B, D·H), (B, T, D·H) or (N, D·H) in the form of the input, and the last states (L·D, B, H).

    masks, in the form of the outputs, are what dropout multiplies those of each layer but the last by; none without
    dropout. hx None is zeros.
    """
    tensors = (input, hx, *weights)
    is_compiling = torch.compiler.is_compiling()  # while it is, the other questions cannot be asked
    if not is_compiling and torch._C._are_functorch_transforms_active():
        y, h_n, *_ = _Transformed.apply(input, hx, batch_sizes, options, len(masks), *masks, *weights)
        return y, h_n
    if is_compiling or _is_traced(tensors):
        y, h_n, _ = torch.ops.elman.rnn(input, hx, weights, batch_sizes, masks, *options)
        return y, h_n
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _apply(input, hx, batch_sizes, masks, options, *weights)  # type: ignore[no-any-return]
    layers = kernel_weights(weights, options)
    outputs, h_n = forward(input, hx, layers, batch_sizes, masks, options, keep=False)
    return outputs[-1], h_n


def _is_traced(tensors: Sequence[Tensor | None]) -> bool:
    """Whether somebody besides autograd wants to know what is computed, or tensors are not just numbers in memory."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or not _ORDINARY.issuperset(map(type, tensors))
    )


class _Function(torch.autograd.Function):
    """The two passes for autograd. What the second needs is saved as tensors, so that PyTorch notices changes of it."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        hx: Tensor | None,
        batch_sizes: Tensor | None,
        masks: Sequence[Tensor],
        options: Options,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        layers = kernel_weights(weights, options)
        outputs, h_n = forward(input, hx, layers, batch_sizes, masks, options, keep=True)
        ctx.save_for_backward(input, hx, batch_sizes, *outputs, *masks, *weights)
        ctx.set_materialize_grads(False)
        ctx.options = options
        ctx.layers = layers if layers.is_worth_keeping(outputs) else None
        return outputs[-1], h_n

    @staticmethod
    def backward(ctx: Any, d_y: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        input, hx, batch_sizes, *others = ctx.saved_tensors
        options, n_layers = ctx.options, ctx.options.num_layers
        has_d_input, has_d_hx, _, _, _, *has_d_weights = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True
            n_masks = len(others) - n_layers - len(has_d_weights)
            d_input, d_hx, *d_weights = _Gradient.apply(d_y, d_h_n, input, hx, batch_sizes, options, n_masks, *others)
            return d_input, d_hx if has_d_hx else None, None, None, None, *d_weights
        outputs, others = others[:n_layers], others[n_layers:]
        masks, weights = others[: -len(has_d_weights)], others[-len(has_d_weights) :]
        layers = ctx.layers or kernel_weights(weights, options)
        d_input, d_hx, d_weights = backward(
            d_y, d_h_n, input, hx, layers, batch_sizes, masks, outputs, options, has_d_input, has_d_weights
        )
        return d_input, d_hx if has_d_hx else None, None, None, None, *d_weights


# As _Function.apply, without its questions about transforms of torch.func, which `rnn` has asked.
_apply = super(torch.autograd.Function, _Function).apply


class _Transformed(torch.autograd.Function):
    """The same in the form that `torch.func` takes, which is slower."""

    @staticmethod
    def forward(
        input: Tensor,
        hx: Tensor | None,
        batch_sizes: Tensor | None,
        options: Options,
        n_masks: int,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        masks, weights = others[:n_masks], others[n_masks:]
        outputs, h_n = forward(input, hx, kernel_weights(weights, options), batch_sizes, masks, options, keep=True)
        return outputs[-1], h_n, *outputs[:-1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        input, hx, batch_sizes, ctx.options, ctx.n_masks, *others = inputs
        y, _, *inner = output
        ctx.mark_non_differentiable(*inner)
        ctx.save_for_backward(input, hx, batch_sizes, *inner, y, *others)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_h_n: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        input, hx, batch_sizes, *others = ctx.saved_tensors
        d_input, d_hx, *d_weights = _Gradient.apply(
            d_y, d_h_n, input, hx, batch_sizes, ctx.options, ctx.n_masks, *others
        )
        no_gradients = [None] * (3 + ctx.n_masks)
        return d_input, None if hx is None else d_hx, *no_gradients, *d_weights


class _Gradient(torch.autograd.Function):
    """The backward pass, where somebody may want to differentiate it."""

    @staticmethod
    def forward(
        d_y: Tensor | None,
        d_h_n: Tensor | None,
        input: Tensor,
        hx: Tensor | None,
        batch_sizes: Tensor | None,
        options: Options,
        n_masks: int,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        outputs, others = others[: options.num_layers], others[options.num_layers :]
        masks, weights = others[:n_masks], others[n_masks:]
        layers, all_needed = kernel_weights(weights, options), [True] * len(weights)
        d_input, d_hx, d_weights = backward(
            d_y, d_h_n, input, hx, layers, batch_sizes, masks, outputs, options, True, all_needed
        )
        return d_input, d_hx, *d_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:  # noqa: ARG004
        refuse_to_differentiate()
