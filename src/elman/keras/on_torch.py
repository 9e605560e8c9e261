"""The passes for autograd, on Keras's backend "torch"."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from elman import threads
from elman.keras import passes
from elman.keras.passes import Call, Options

BEGINS_WITH_STATE = False
_ORDINARY = {Tensor, torch.nn.Parameter}


def is_symbolic(x: Tensor) -> bool:
    """Whether Keras only asks for shapes."""
    return bool(x.is_meta)


def runs(call: Call) -> bool:
    """Whether these are numbers in memory, and nobody besides autograd wants to know what is computed with them."""
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if is_traced or torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    given = [tensor for tensor in call if tensor is not None]
    return forward_ad._current_level < 0 and _ORDINARY.issuperset(map(type, given)) and all(t.is_cpu for t in given)


def rnn(call: Call, options: Options) -> tuple[Tensor, Tensor]:
    """Outputs and last states, as `passes.forward` has them."""
    result, h_n = _RNN.apply(options, *call)
    return result, h_n


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: Options, *given: Tensor | None) -> tuple[Tensor, Tensor]:
        with _AsManyThreads():
            found = passes.forward(_arrays(given), options)
        result, h_n, kept = map(torch.from_numpy, found)
        ctx.save_for_backward(*given, result if found[2] is found[0] else kept)  # PyTorch notices changes of results
        ctx.set_materialize_grads(False)
        ctx.options = options
        return result, h_n

    @staticmethod
    def backward(ctx: Any, d_result: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "elman.keras has no gradients of gradients, which create_graph=True asks for: "
                "call elman.keras.restore(model) first"
            )
        *given, kept = ctx.saved_tensors
        call = _arrays(given)
        d_y, d_h = (None if tensor is None else tensor.numpy(force=True) for tensor in (d_result, d_h_n))
        d_x = np.empty(call.x.shape, call.x.dtype) if ctx.needs_input_grad[1] else None
        with _AsManyThreads():
            found = passes.backward(call, ctx.options, kept.numpy(force=True), d_y, d_h, d_x)
        return None, *[None if array is None else torch.from_numpy(array) for array in (d_x, *found)], None, None


def _arrays(given: Any) -> Call:
    return Call(*[None if tensor is None else tensor.numpy(force=True) for tensor in given])


class _AsManyThreads:
    """For as long as a `with` block, kernels take no more threads than PyTorch may use in this one."""

    def __enter__(self) -> None:
        threads.bound_threads(torch.get_num_threads())

    def __exit__(self, *_: object) -> None:
        threads.bound_threads(0)
