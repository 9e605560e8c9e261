"""A stack of layers as a function of tensors, and its derivative.

An ordinary call takes `ElmanRNN`, the shortest way to the passes of `passes.py`. What is traced, by `torch.compile` or
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
from elman.torch.passes import Call, Options, backward, forward, kernel_weights

_unsafe_view = torch.ops.aten._unsafe_view.default  # the same memory, and for autograd no view
_ORDINARY = {Tensor, torch.nn.Parameter, type(None)}


def rnn(call: Call) -> tuple[Tensor, Tensor]:
    """The outputs (T, B, D·H), (B, T, D·H) or (N, D·H) in the form of the input, and the last states (L·D, B, H)."""
    leaves = call.leaves
    is_compiling = torch.compiler.is_compiling()  # while it is, the other questions cannot be asked
    if is_compiling or _is_traced(leaves):
        keep = torch.is_grad_enabled() or torch.jit.is_tracing()  # what is traced may be trained later
        y, h_n, _ = operator.rnn(*call[:-1], keep, *call.options)
        return y, h_n
    is_recorded = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    if is_recorded and any(leaf is not None and leaf.requires_grad for leaf in leaves):
        y, h_n = _apply(call, *leaves)
        # Each is a node of its own, so that a hook on what is not used is not called
        return _unsafe_view(y, y.shape), _unsafe_view(h_n, h_n.shape)
    y, h_n, _ = forward(call, kernel_weights(call), keep=False)
    return y, h_n


def _is_traced(tensors: Sequence[Tensor | None]) -> bool:
    """Whether somebody besides autograd wants to know what is computed, or tensors are not just numbers in memory."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or not _ORDINARY.issuperset(map(type, tensors))
    )


class ElmanRNN(torch.autograd.Function):
    """The two passes for autograd.

    What the second needs is saved as tensors, so that PyTorch notices changes of it: that of which PyTorch's own
    layer needs the values, too. Outputs are the user's to change, and copied.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *leaves: Tensor | None) -> tuple[Tensor, Tensor]:
        weights, (_, *is_needed) = kernel_weights(call), ctx.needs_input_grad
        y, h_n, kept = forward(call, weights, keep=True)
        axis = 1 if call.options.batch_first else 0
        n_steps = call.input.shape[axis] if call.batch_sizes is None else len(call.batch_sizes)
        read, unread = _which_are_read(call.options, tuple(is_needed), n_steps > 1)
        ctx.save_for_backward(call.seeds, call.resets, *[leaves[i] for i in read], *kept, *call.masks)
        ctx.unread = [(i, leaf, _version(leaf)) for i in unread if (leaf := leaves[i]) is not None]
        ctx.set_materialize_grads(False)
        ctx.options, ctx.read, ctx.batch_sizes, ctx.n_kept = call.options, read, call.batch_sizes, len(kept)
        ctx.weights = weights if weights.is_worth_keeping(kept) else None
        return y, h_n

    @staticmethod
    def backward(ctx: Any, d_y: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        (seeds, resets, *saved), (_, *is_needed), n_read = ctx.saved_tensors, ctx.needs_input_grad, len(ctx.read)
        leaves: list[Any] = [None] * len(is_needed)
        for i, leaf in zip(ctx.read, saved, strict=False):
            leaves[i] = leaf
        for i, leaf, _ in ctx.unread:
            leaves[i] = leaf
        kept, masks = saved[n_read : n_read + ctx.n_kept], saved[n_read + ctx.n_kept :]
        call = Call.of(leaves, ctx.batch_sizes, masks, seeds, resets, ctx.options)
        if torch.is_grad_enabled() or _is_batched(d_y) or _is_batched(d_h_n):
            _check_unchanged(ctx.unread)
            found = plain.gradients(call, is_needed, d_y=d_y, d_h_n=d_h_n)
        else:
            weights = ctx.weights or kernel_weights(call)
            found = backward(call, weights, kept, is_needed, d_y=d_y, d_h_n=d_h_n)
        return None, *found


def _is_batched(tensor: Tensor | None) -> bool:
    """Whether it is many at once, as for `is_grads_batched` or in `torch.func.vmap`."""
    functorch = torch._C._functorch
    return tensor is not None and (
        functorch.is_legacy_batchedtensor(tensor) or functorch.is_functorch_wrapped_tensor(tensor)
    )


@functools.lru_cache(maxsize=64)
def _which_are_read(options: Options, is_needed: tuple[bool, ...], has_steps: bool) -> tuple[list[int], list[int]]:
    """Of input, hx and the weights, those whose values PyTorch's own layer reads in its backward pass, and the others.

    The others may be changed in place before it. A leaky layer reads all.
    """
    if not options.are_pytorchs:
        return list(range(len(is_needed))), []
    has_d_input, has_d_hx, *has_d_weights = is_needed
    n = 4 if options.has_biases else 2
    n_of_layer = n * (1 + options.bidirectional)
    is_read = [any(has_d_weights[:n_of_layer:n]), any(has_d_weights[1::n])]
    for i in range(len(has_d_weights)):
        first = i - i % n_of_layer  # of the layer's
        from_below = has_d_input or (has_d_hx and first > 0) or any(has_d_weights[:first])
        from_before = has_d_hx or (has_steps and (from_below or any(has_d_weights[first : first + n_of_layer])))
        is_read.append((from_below, from_before, False, False)[i % n])
    return [i for i, read in enumerate(is_read) if read], [i for i, read in enumerate(is_read) if not read]


def _version(leaf: Tensor) -> int | None:
    """Which an inference tensor has not."""
    return None if leaf.is_inference() else leaf._version


def _check_unchanged(unread: Sequence[tuple[int, Tensor, int | None]]) -> None:
    if any(_version(leaf) != version for _, leaf, version in unread):
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation, "
            "after an elman.torch.RNN that gradients of gradients, or many at once, are wanted of: change a copy"
        )


# As ElmanRNN.apply, without its questions about transforms of torch.func, which do not come here.
_apply = super(torch.autograd.Function, ElmanRNN).apply
