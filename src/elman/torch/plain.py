"""The same function of tensors by PyTorch's own operations, which know all transformations: slow, and right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.torch.passes import Call


def plain(call: Call) -> tuple[Tensor, Tensor]:
    """The outputs and the last states: those of `function.rnn`."""
    (input, hx, weights, batch_sizes, masks, options), n_layers = call, call.options.num_layers
    run = torch._VF.rnn_relu if options.relu else torch._VF.rnn_tanh
    n_directions = 1 + options.bidirectional
    if hx is None:
        n_rows = input.shape[0 if options.batch_first else 1] if batch_sizes is None else int(batch_sizes[0])
        hx = input.new_zeros(n_layers * n_directions, n_rows, weights[1].shape[0])
    n, states = len(weights) // n_layers, []
    for k in range(n_layers):
        h_0, own = hx[k * n_directions : (k + 1) * n_directions], list(weights[k * n : (k + 1) * n])
        settings = options.has_biases, 1, 0.0, False, options.bidirectional
        if batch_sizes is None:
            input, h_n = run(input, h_0, own, *settings, options.batch_first)
        else:
            input, h_n = run(input, batch_sizes, h_0, own, *settings)
        states.append(h_n)
        if k < len(masks):
            input = input * masks[k]
    return input, torch.cat(states)


def gradients(
    call: Call, is_needed: Sequence[bool], *, d_y: Tensor | None, d_h_n: Tensor | None
) -> list[Tensor | None]:
    """By the leaves, where they are needed, from those by the results.

    They can be differentiated further if gradients are recorded where this is called.
    """
    is_recorded, needed = torch.is_grad_enabled(), list(zip(call.leaves, is_needed, strict=True))
    with torch.enable_grad():
        # Each leaf is one of its own here, as it may depend on another, or be the same
        input, hx, *weights = (leaf.view_as(leaf) if wanted and leaf is not None else leaf for leaf, wanted in needed)
        own = call._replace(input=input, hx=hx, weights=weights)
        pairs = [(y, d) for y, d in zip(plain(own), (d_y, d_h_n), strict=True) if d is not None]
        if not pairs:
            return [None] * len(needed)
        ys, d_ys = zip(*pairs, strict=True)
        by = [leaf for leaf, wanted in zip(own.leaves, is_needed, strict=True) if wanted]
        found = iter(torch.autograd.grad(ys, by, d_ys, create_graph=is_recorded, allow_unused=True))
    return [next(found) if wanted else None for wanted in is_needed]
