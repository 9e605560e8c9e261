"""The same function of tensors by PyTorch's own operations, which know all transformations: slow, and right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.torch.passes import Options


def plain(
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    options: Options,
) -> tuple[Tensor, Tensor]:
    """The outputs and the last states: arguments and results are those of `function.rnn`."""
    run = torch._VF.rnn_relu if options.relu else torch._VF.rnn_tanh
    n_directions, n_layers = 1 + options.bidirectional, options.num_layers
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
    d_y: Tensor | None,
    d_h_n: Tensor | None,
    input: Tensor,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    masks: Sequence[Tensor],
    options: Options,
    is_needed: Sequence[bool],
) -> list[Tensor | None]:
    """By input, hx and the weights, where they are needed, from those by the results.

    They can be differentiated further if gradients are recorded where this is called.
    """
    leaves, is_recorded = (input, hx, *weights), torch.is_grad_enabled()
    needed = [leaf for leaf, needed in zip(leaves, is_needed, strict=True) if needed]
    with torch.enable_grad():
        results = plain(input, hx, weights, batch_sizes, masks, options)
        pairs = [pair for pair in zip(results, (d_y, d_h_n), strict=True) if pair[1] is not None]
        ys, d_ys = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(ys, needed, d_ys, create_graph=is_recorded, allow_unused=True))
    return [next(found) if needed else None for needed in is_needed]
