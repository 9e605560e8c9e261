"""From a module's call to the kernels and back: what `RNN` and `LeakyRNN` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from elman import check
from elman.layer.architecture import Architecture
from elman.layer.resets import check_forward
from elman.torch.duals import forward_mode
from elman.torch.function import rnn
from elman.torch.passes import Call, Options
from elman.torch.plain import plain

Dynamics = tuple[Sequence[Tensor], Sequence[Tensor], Tensor | None]  # leaks, noises and seeds of a `Call`
_NO_DYNAMICS: Dynamics = (), (), None
_KINDS = {(torch.float32, True), (torch.float64, True)}  # of weights: dtype, and whether on the CPU


class Home(str):
    """Where the class is; what asks an instance, as `torch.fx` does to tell a leaf of a graph, is told PyTorch's."""

    def __get__(self, module: Any, _: Any) -> str:
        return self if module is None else torch.nn.RNN.__module__

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a pickle of a class it must be a str and nothing else."""
        return str, (str(self),)


class Recurrent(torch.nn.RNNBase):
    """Layers that elman's kernels compute, with the parameters of PyTorch's."""

    def _weights(self) -> list[Tensor]:
        """Of all layers and directions, as `_flat_weights_names` has them, checked."""
        own = self._parameters  # without what is parametrized; faster than attributes
        weights = [own[name] if name in own else getattr(self, name) for name in self._flat_weights_names]
        _check_weights(type(self).__name__, weights)
        return weights

    def _run_any(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None,
        weights: list[Tensor],
        dynamics: Dynamics = _NO_DYNAMICS,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Results in the form of the input, which `_takes` has found to fit."""
        if resets is not None:
            self._check_resets(resets, input)
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, weights, dynamics)
        if input.dim() == 3:
            return self._run(input, hx, weights, None, dynamics, resets)
        batch_axis = 0 if self.batch_first else 1
        states, begins = (
            None if hx is None else hx.unsqueeze(1),
            None if resets is None else resets.unsqueeze(batch_axis),
        )
        y, h_n = self._run(input.unsqueeze(batch_axis), states, weights, None, dynamics, begins)
        return y.squeeze(batch_axis), h_n.squeeze(1)

    def _run_packed(
        self, packed: PackedSequence, hx: Tensor | None, weights: list[Tensor], dynamics: Dynamics
    ) -> tuple[PackedSequence, Tensor]:
        x, batch_sizes, order, inverse = packed
        if hx is None:
            hx = weights[0].new_zeros(self._architecture().state_shape(int(batch_sizes[0])))
        leaks, noises, seeds = dynamics
        if seeds is not None and order is not None:
            dynamics = leaks, noises, seeds.index_select(0, order)
        y, h_n = self._run(x, self.permute_hidden(hx, order), weights, batch_sizes, dynamics)
        return PackedSequence(y, batch_sizes, order, inverse), self.permute_hidden(h_n, inverse)

    def _check_resets(self, resets: Any, input: Tensor | PackedSequence) -> None:
        if isinstance(input, PackedSequence):
            check.refuse("resets must be None where the input is a PackedSequence: give it padded")
        check_forward("bidirectional=True" if self.bidirectional else None)
        if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
            came = f"a tensor of {resets.dtype}" if isinstance(resets, Tensor) else check.shown(resets)
            raise TypeError(f"resets must be a tensor of torch.bool, got {came}: compare, as in done == 1")
        if resets.shape != input.shape[:-1] or not resets.is_cpu:
            shape = tuple(input.shape[:-1])
            raise ValueError(
                f"resets must have shape {shape}, on the CPU, got {tuple(resets.shape)} on {resets.device}"
            )

    def _run(
        self,
        x: Tensor,
        hx: Tensor | None,
        weights: list[Tensor],
        batch_sizes: Tensor | None,
        dynamics: Dynamics,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        dtype = weights[0].dtype
        is_compiling = torch.compiler.is_compiling()  # which asks no such questions
        if self.batch_first and not is_compiling and x.is_inference() and not torch.is_inference_mode_enabled():
            x = x.clone()  # as PyTorch does then: it has to be saved
        if x.dtype != dtype or (hx is not None and hx.dtype != dtype):  # autocast
            x, hx = x.to(dtype), None if hx is None else hx.to(dtype)
        return self._compute(Call(x, hx, weights, batch_sizes, self._draw_masks(x), *dynamics, resets, self._options()))

    def _compute(self, call: Call) -> tuple[Tensor, Tensor]:
        if not is_for_pytorch():
            return rnn(call)
        found = forward_mode(call)
        return plain(call) if found is None else found

    def _takes(self, x: Tensor, hx: Tensor | None, batch_sizes: Tensor | None, weights: Sequence[Tensor]) -> bool:
        """Whether there is something to compute, and nothing for PyTorch to refuse."""
        n_axes = x.dim()
        if n_axes != 2 and (n_axes != 3 or batch_sizes is not None):
            return False
        if x.shape[-1] != self.input_size or 0 in x.shape or not _fits(x, weights[0].dtype):
            return False
        n_weights = self.num_layers * (1 + self.bidirectional) * (4 if self.bias else 2)
        if len(weights) != n_weights or weights[1].shape[0] != self.hidden_size:  # attributes that have been set
            return False
        if hx is None:
            return True
        n_rows = 1 if n_axes == 2 else x.shape[0 if self.batch_first else 1]
        shape: tuple[int, ...] = self._architecture().state_shape(
            n_rows if batch_sizes is None else int(batch_sizes[0])
        )
        if n_axes == 2 and batch_sizes is None:
            shape = shape[::2]
        return bool(hx.shape == shape and _fits(hx, weights[0].dtype))

    def _options(self) -> Options:
        raise NotImplementedError

    def _architecture(self) -> Architecture:
        return Architecture(self.input_size, self.hidden_size, self.num_layers, self.bidirectional, self.bias)

    def _drops(self) -> bool:
        """Whether there is dropout now."""
        return bool(self.training and self.dropout and self.num_layers > 1)

    def _draw_masks(self, x: Tensor) -> Sequence[Tensor]:
        """What dropout multiplies outputs by: the draws of `torch.nn.RNN`, which go over (T, B, D·H) or packed data."""
        if not self._drops():
            return ()
        shape = x.shape[:-1]
        is_batch_major = self.batch_first and x.dim() == 3
        columns = self._architecture().n_outputs
        masks = []
        for _ in range(self.num_layers - 1):
            mask = x.new_empty(*(reversed(shape) if is_batch_major else shape), columns)
            if self.dropout < 1:
                mask.bernoulli_(1 - self.dropout).div_(1 - self.dropout)
            else:
                mask.zero_()
            masks.append(mask.transpose(0, 1) if is_batch_major else mask)
        return masks


def runs_here(parameter: Tensor) -> bool:
    """Whether the kernels can compute with it."""
    return (parameter.dtype, parameter.is_cpu) in _KINDS


def _fits(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether PyTorch takes it beside weights of a dtype: autocast casts the narrower reals."""
    narrow = (torch.float32, torch.bfloat16, torch.float16)
    return tensor.is_cpu and (tensor.dtype == dtype or (tensor.dtype in narrow and torch.is_autocast_enabled("cpu")))


def is_for_pytorch() -> bool:
    """Whether PyTorch's own operations are wanted: for a transformation without a kernel, or in another language."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return bool(torch.onnx.is_in_onnx_export())
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def _check_weights(kind: str, weights: Sequence[Tensor]) -> None:
    kinds = {(weight.dtype, weight.is_cpu) for weight in weights}
    if len(kinds) > 1 or not kinds <= _KINDS:
        weight = next(weight for weight in weights if not runs_here(weight) or weight.dtype != weights[0].dtype)
        check.refuse(
            f"elman.torch.{kind} must have all weights on the CPU, in float32 or float64, got {weight.dtype} on "
            f"{weight.device}: move the layer with .to('cpu', torch.float32)"
            + (", or elman.torch.restore(model)" if kind == "RNN" else "")
        )
