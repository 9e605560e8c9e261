"""The same function of tensors by PyTorch's own operations, which know all transformations: slow, and right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elman.torch.passes import Call, normals

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda a: a,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "retanh": lambda a: torch.relu(torch.tanh(a)),
    "power": lambda a: torch.relu(a).square(),
}


def plain(call: Call) -> tuple[Tensor, Tensor]:
    """The outputs and the last states: those of `function.rnn`."""
    options = call.options
    if call.noises or call.resets is not None or not options.are_pytorchs:
        return _loops(call)
    input, hx, weights, batch_sizes, masks, *_ = call
    n_layers, run = options.num_layers, torch._VF.rnn_relu if options.nonlinearity == "relu" else torch._VF.rnn_tanh
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


def padded(call: Call, tensor: Tensor) -> Tensor:
    """What is in the form of the input, over time: (T, B, ·)."""
    if call.batch_sizes is not None:
        is_active = _is_active(call.batch_sizes)
        return tensor.new_zeros(*is_active.shape, tensor.shape[-1]).index_put((is_active,), tensor)
    return tensor.transpose(0, 1) if call.options.batch_first else tensor


def as_input(call: Call, rows: Tensor) -> Tensor:
    """The inverse of `padded`."""
    if call.batch_sizes is not None:
        return rows[_is_active(call.batch_sizes)]
    return rows.transpose(0, 1) if call.options.batch_first else rows


def _is_active(batch_sizes: Tensor) -> Tensor:
    """Which rows of a packed sequence have which steps, (T, B)."""
    return torch.arange(int(batch_sizes[0])) < batch_sizes.unsqueeze(1)


def _loops(call: Call) -> tuple[Tensor, Tensor]:
    """The same of leaky cells, and with noise or resets: a loop over steps for each layer and direction."""
    x, options = padded(call, call.input), call.options
    n_directions, hx = 1 + options.bidirectional, call.hx
    is_active = None if call.batch_sizes is None else _is_active(call.batch_sizes)
    if hx is None:
        hx = x.new_zeros(options.num_layers * n_directions, x.shape[1], call.weights[1].shape[0])
    states = []
    for k in range(options.num_layers):
        loops = [_loop(call, x, hx, k, d, is_active) for d in range(n_directions)]
        x = torch.cat([y for y, _ in loops], dim=2)
        states += [h_n for _, h_n in loops]
        if k < len(call.masks):
            x = x * padded(call, call.masks[k])
    return as_input(call, x), torch.stack(states)


def _loop(call: Call, x: Tensor, hx: Tensor, k: int, d: int, is_active: Tensor | None) -> tuple[Tensor, Tensor]:
    """The outputs (T, B, H) and the last states (B, H) of layer k in direction d."""
    options, n_steps = call.options, len(x)
    i, n, f = k * (1 + options.bidirectional) + d, 4 if options.has_biases else 2, _ACTIVATIONS[options.nonlinearity]
    (weight_ih, weight_hh, *biases), h = call.weights[i * n : (i + 1) * n], hx[i]
    a = x @ weight_ih.T + sum(biases)
    if call.noises:
        a = a + call.noises[k][d] * normals(call.seeds, n_steps, h.shape[-1], 4 * k + 2 * d).to(a.dtype)
    is_potential, ys = options.cell == "potential", [a] * n_steps
    y, resets = f(h) if is_potential else h, _resets(call)
    for t in range(n_steps - 1, -1, -1) if d else range(n_steps):
        if resets is not None:
            h = torch.where(resets[t].unsqueeze(1), torch.zeros_like(h), h)
            y = f(h) if is_potential else h
        new = a[t] + y @ weight_hh.T
        new = new if is_potential else f(new)
        if call.leaks:
            new = (1 - call.leaks[k][d]) * h + call.leaks[k][d] * new
        h = new if is_active is None else torch.where(is_active[t].unsqueeze(1), new, h)
        ys[t] = y = f(h) if is_potential else h
    return torch.stack(ys), h


def _resets(call: Call) -> Tensor | None:
    """(T, B)."""
    return call.resets.T if call.resets is not None and call.options.batch_first else call.resets


def gradients(
    call: Call, is_needed: Sequence[bool], *, d_y: Tensor | None, d_h_n: Tensor | None
) -> list[Tensor | None]:
    """By the leaves, where they are needed, from those by the results.

    They can be differentiated further if gradients are recorded where this is called.
    """
    is_recorded, needed = torch.is_grad_enabled(), list(zip(call.leaves, is_needed, strict=True))
    with torch.enable_grad():
        # Each leaf is one of its own here, as it may depend on another, or be the same
        leaves = [leaf.view_as(leaf) if wanted and leaf is not None else leaf for leaf, wanted in needed]
        own = Call.of(leaves, call.batch_sizes, call.masks, call.seeds, call.resets, call.options)
        pairs = [(y, d) for y, d in zip(plain(own), (d_y, d_h_n), strict=True) if d is not None]
        if not pairs:
            return [None] * len(needed)
        ys, d_ys = zip(*pairs, strict=True)
        by = [leaf for leaf, wanted in zip(own.leaves, is_needed, strict=True) if wanted]
        found = iter(torch.autograd.grad(ys, by, d_ys, create_graph=is_recorded, allow_unused=True))
    return [next(found) if wanted else None for wanted in is_needed]
