"""Forward-mode differentiation of PyTorch's: `torch.func.jvp`, `jacfwd` and dual numbers, by the kernels.

Outputs are those of the values, and their tangents what `elman.layer.tangents` makes of the others, of all that
`torch.func.vmap` has beside one another at once. What is differentiated backwards afterwards is done again by PyTorch's
own operations (plain.py), as are transforms within others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from elman.torch.passes import Call, moved
from elman.torch.plain import plain

_functorch = torch._C._functorch
_KINDS = _functorch.TransformType


def is_forward_mode() -> bool:
    """Whether forward mode is all that is on, be it of many tangents at once."""
    if forward_ad._current_level != 0:  # none, or one within another
        return False
    kinds = [one.key() for one in _functorch.get_interpreter_stack() or []]
    return kinds in ([], [_KINDS.Jvp], [_KINDS.Vmap], [_KINDS.Vmap, _KINDS.Jvp])


class _Dual(NamedTuple):
    """A tensor without wrappers, and how it moves."""

    value: Tensor | None
    tangent: Tensor | None = None
    axis: int | None = None  # of the tangent, where vmap has many
    level: int = 0  # of vmap


def forward_mode(call: Call) -> tuple[Tensor, Tensor] | None:
    """The outputs and the last states with their tangents; None for what the kernels do not know, or does not move."""
    if call.masks or call.resets is not None or not is_forward_mode():
        return None
    duals = [_unpacked(leaf) for leaf in call.leaves]
    n_plain = 2 + len(call.weights)  # of leaks and noises there are no tangents
    moving = [dual for dual in duals if dual is not None and dual.tangent is not None]
    if None in duals or not moving or any(dual.tangent is not None for dual in duals[n_plain:] if dual is not None):
        return None
    found = [dual for dual in duals if dual is not None]
    levels = [dual.level for dual in moving if dual.axis is not None]
    with torch._C._DisableFuncTorch():
        n = next(
            (dual.tangent.shape[dual.axis] for dual in moving if dual.axis is not None and dual.tangent is not None), 1
        )
        tangents = [_many(dual, n) for dual in found]
        own = Call.of([dual.value for dual in found], call.batch_sizes, (), call.seeds, None, call.options)
        y, h_n, d_y, d_h_n = _recorded(own, tangents, n) if _is_recorded(own, tangents) else moved(own, tangents, n)
        if not levels:
            d_y, d_h_n = d_y[0], d_h_n[0]
    if levels:
        d_y, d_h_n = (_functorch._add_batch_dim(one, 0, levels[0]) for one in (d_y, d_h_n))
    return forward_ad.make_dual(y, d_y), forward_ad.make_dual(h_n, d_h_n)


def _unpacked(leaf: Tensor | None) -> _Dual | None:
    """None where vmap has many values, or it is the vmap that PyTorch had before, which `torch.autograd` still uses."""
    if leaf is None:
        return _Dual(None)
    value, tangent = forward_ad.unpack_dual(leaf)
    if any(one is not None and _functorch.is_legacy_batchedtensor(one) for one in (value, tangent)):
        return None
    while _functorch.is_functorch_wrapped_tensor(value):
        if _functorch.is_batchedtensor(value):
            return None
        value = _functorch.get_unwrapped(value)
    axis, level = None, 0
    while tangent is not None and _functorch.is_functorch_wrapped_tensor(tangent):
        if _functorch.is_batchedtensor(tangent):
            axis, level = _functorch.maybe_get_bdim(tangent), _functorch.maybe_get_level(tangent)
        tangent = _functorch.get_unwrapped(tangent)
    return _Dual(value, tangent, axis, level)


def _many(dual: _Dual, n: int) -> Tensor | None:
    """The tangents of a tensor, (K, *shape)."""
    tangent = dual.tangent
    if tangent is None:
        return None
    if tangent._is_zerotensor():
        tangent = torch.zeros(tangent.shape, dtype=tangent.dtype)
    return tangent.expand(n, *tangent.shape) if dual.axis is None else tangent.movedim(dual.axis, 0)


def _is_recorded(call: Call, tangents: Sequence[Tensor | None]) -> bool:
    """Whether somebody may go backwards from here."""
    tensors = (*call.leaves, *tangents)
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


class _Moved(torch.autograd.Function):
    """`moved`, which autograd records."""

    @staticmethod
    def forward(ctx: Any, call: Call, n: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.rest, ctx.n = (call.batch_sizes, (), call.seeds, None, call.options), n
        return moved(call, tensors[len(tensors) // 2 :], n)

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor | None) -> tuple[Tensor | None, ...]:
        is_recorded, (_, _, *is_needed) = torch.is_grad_enabled(), ctx.needs_input_grad
        with torch.enable_grad():
            own = [one if one is None else one.view_as(one) for one in ctx.saved_tensors]
            results = _plainly(own[: len(own) // 2], own[len(own) // 2 :], ctx.n, ctx.rest)
            pairs = [
                pair for pair in zip(results, d_results, strict=True) if pair[1] is not None and pair[0].requires_grad
            ]
            by = [one for one, needed in zip(own, is_needed, strict=True) if needed]
            if not pairs:
                return None, None, *[None] * len(own)
            of, d_of = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(of, by, d_of, create_graph=is_recorded, allow_unused=True))
        return None, None, *[next(found) if needed else None for needed in is_needed]


def _plainly(leaves: Sequence[Any], tangents: Sequence[Any], n: int, rest: Any) -> tuple[Tensor, ...]:
    """The results of `moved`, by PyTorch's own operations."""
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        own = [*leaves]
        for i, value in zip(moving, values, strict=True):
            own[i] = value
        return plain(Call.of(own, *rest))

    primals, results = tuple(leaves[i] for i in moving), []
    for k in range(n):
        (y, h_n), (d_y, d_h_n) = torch.func.jvp(run, primals, tuple(tangents[i][k] for i in moving))
        results.append((y, h_n, d_y, d_h_n))
    y, h_n, *_ = results[0]
    return y, h_n, torch.stack([one[2] for one in results]), torch.stack([one[3] for one in results])


_apply = super(torch.autograd.Function, _Moved).apply  # without its questions about transforms


def _recorded(call: Call, tangents: Sequence[Tensor | None], n: int) -> tuple[Tensor, ...]:
    """`moved` as a node for autograd, of tensors that no transform knows: it may be one without rules for these."""
    before = _functorch.get_single_level_autograd_function_allowed()
    _functorch.set_single_level_autograd_function_allowed(True)
    try:
        found: tuple[Tensor, ...] = _apply(call, n, *call.leaves, *tangents)
        return found
    finally:
        _functorch.set_single_level_autograd_function_allowed(before)
