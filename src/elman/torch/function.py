"""A stack of layers as a function of tensors, and its derivative.

An ordinary call takes `_Function`, the shortest way to the passes of `passes.py`. What is traced, by `torch.compile` or
`torch.export`, takes the operator `elman::rnn` (operator.py), whose dispatch costs some tens of microseconds more. For
what the kernels do not know, derivatives of derivatives and many at once, PyTorch's own operations do all again
(plain.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.torch import operator, plain
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
    if is_compiling or _is_traced(tensors):
        keep = torch.is_grad_enabled() or torch.jit.is_tracing()  # what is traced may be trained later
        y, h_n, _ = operator.rnn(input, hx, weights, batch_sizes, masks, keep, *options)
        return y, h_n
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _apply(input, hx, batch_sizes, masks, options, *weights)  # type: ignore[no-any-return]
    layers = kernel_weights(weights, options)
    y, h_n, _ = forward(input, hx, layers, batch_sizes, masks, options, keep=False)
    return y, h_n


def _is_traced(tensors: Sequence[Tensor | None]) -> bool:
    """Whether somebody besides autograd wants to know what is computed, or tensors are not just numbers in memory."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or not _ORDINARY.issuperset(map(type, tensors))
    )


class _Function(torch.autograd.Function):
    """The two passes for autograd.

    What the second needs is saved as tensors, so that PyTorch notices changes of it: that of which PyTorch's own
    layer needs the values, too. Outputs are the user's to change, and copied.
    """

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
        y, h_n, outputs = forward(input, hx, layers, batch_sizes, masks, options, keep=True)
        n_steps = len(batch_sizes) if batch_sizes is not None else input.shape[1 if options.batch_first else 0]
        leaves, (read, unread) = (input, hx, *weights), _read(options, ctx.needs_input_grad, n_steps > 1)
        ctx.save_for_backward(batch_sizes, *[leaves[i] for i in read], *outputs, *masks)
        ctx.unread = [(i, leaf, leaf._version) for i in unread if (leaf := leaves[i]) is not None]
        ctx.set_materialize_grads(False)
        ctx.options, ctx.read = options, read
        ctx.layers = layers if layers.is_worth_keeping(outputs) else None
        return y, h_n

    @staticmethod
    def backward(ctx: Any, d_y: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        batch_sizes, *saved = ctx.saved_tensors
        options, n_layers, needs_grad = ctx.options, ctx.options.num_layers, ctx.needs_input_grad
        read, n_leaves = ctx.read, len(needs_grad) - 3
        leaves: list[Any] = [None] * n_leaves
        for i, leaf in zip(read, saved, strict=False):
            leaves[i] = leaf
        for i, leaf, _ in ctx.unread:
            leaves[i] = leaf
        (input, hx, *weights), n = leaves, len(read) + n_layers
        outputs, masks = saved[len(read) : n], saved[n:]
        is_needed = needs_grad[:2] + needs_grad[5:]
        if torch.is_grad_enabled() or _is_batched(d_y) or _is_batched(d_h_n):
            _check_unchanged(ctx.unread)
            found = plain.gradients(d_y, d_h_n, input, hx, weights, batch_sizes, masks, options, is_needed)
        else:
            layers = ctx.layers or kernel_weights(weights, options)
            found = backward(d_y, d_h_n, input, hx, layers, batch_sizes, masks, outputs, options, is_needed)
        return found[0], found[1], None, None, None, *found[2:]


def _is_batched(tensor: Tensor | None) -> bool:
    """Whether it is many at once, as for `is_grads_batched` or in `torch.func.vmap`."""
    functorch = torch._C._functorch
    return tensor is not None and (
        functorch.is_legacy_batchedtensor(tensor) or functorch.is_functorch_wrapped_tensor(tensor)
    )


@functools.lru_cache(maxsize=64)
def _read(options: Options, needs_grad: tuple[bool, ...], has_steps: bool) -> tuple[list[int], list[int]]:
    """Of input, hx and the weights, those whose values PyTorch's own layer reads in its backward pass, and the others.

    The others may be changed in place before it.
    """
    has_d_input, has_d_hx, _, _, _, *has_d_weights = needs_grad
    n = 4 if options.has_biases else 2
    n_of_layer = n * (1 + options.bidirectional)
    is_read = [any(has_d_weights[:n_of_layer:n]), any(has_d_weights[1::n])]
    for i in range(len(has_d_weights)):
        first = i - i % n_of_layer  # of the layer's
        from_below = has_d_input or (has_d_hx and first > 0) or any(has_d_weights[:first])
        from_before = has_d_hx or (has_steps and (from_below or any(has_d_weights[first : first + n_of_layer])))
        is_read.append((from_below, from_before, False, False)[i % n])
    return [i for i, read in enumerate(is_read) if read], [i for i, read in enumerate(is_read) if not read]


def _check_unchanged(unread: Sequence[tuple[int, Tensor, int]]) -> None:
    if any(leaf._version != version for _, leaf, version in unread):
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation, "
            "after an elman.torch.RNN that gradients of gradients are wanted of: change a copy"
        )


# As _Function.apply, without its questions about transforms of torch.func, which do not come here.
_apply = super(torch.autograd.Function, _Function).apply
