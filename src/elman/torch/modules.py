"""`torch.nn.RNN` and `torch.nn.RNNCell`, computed by elman's kernels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from elman import check
from elman.layer.architecture import Architecture
from elman.torch.function import rnn
from elman.torch.passes import Options

# Of a `torch.nn.RNN` without weights and without draws, which is given a state
_EMPTY = (1, 1, 1, "tanh", True, False, 0.0, False, 0, "meta")

# More in a layer and direction, and PyTorch is as fast (docs/drop-in/torch.md)
_WEIGHTS_OF_A_STEP = 40_000
_KINDS = {(torch.float32, True), (torch.float64, True)}  # of weights: dtype, and whether on the CPU


class _Home(str):
    """Where the class is; what asks an instance, as `torch.fx` does to tell a leaf of a graph, is told PyTorch's."""

    def __get__(self, module: Any, _: Any) -> str:
        return self if module is None else torch.nn.RNN.__module__


class RNN(torch.nn.RNNBase):
    """`torch.nn.RNN`, with the passes over a sequence in elman's kernels.

    Parameters, their names, the state dict, initial values, arguments and results of a call, errors and the draws of
    dropout are those of `torch.nn.RNN`. It computes on the CPU in float32 or float64.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype
        Those of `torch.nn.RNN`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        Those of `torch.nn.RNN`; and, in a call, ValueError where the weights are not on the CPU, in float32 or float64.

    Notes
    -----
    It derives from `torch.nn.RNNBase` and not from `torch.nn.RNN`, at whose instances `torch.compile` breaks the graph.

    Examples
    --------
    >>> import torch
    >>> rnn = RNN(3, 5, num_layers=2)
    >>> y, h_n = rnn(torch.ones(7, 4, 3))  # 7 steps of 4 sequences
    >>> y.shape, h_n.shape
    (torch.Size([7, 4, 5]), torch.Size([2, 4, 5]))
    >>> y.sum().backward()
    >>> rnn.weight_hh_l1.grad.shape
    torch.Size([5, 5])
    >>> torch.nn.RNN(3, 5, num_layers=2).load_state_dict(rnn.state_dict())
    <All keys matched successfully>
    """

    __module__ = _Home(__name__)
    nonlinearity: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__.update(torch.nn.RNN(*args, **kwargs).__dict__)  # what PyTorch checks, sets and draws

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Outputs and last states, as `torch.nn.RNN` has them.

        Parameters
        ----------
        input : tensor (T, B, I), or (B, T, I) if batch_first; or unbatched (T, I); or a PackedSequence
        hx : tensor (L·D, B, H), or (L·D, H) if the input is unbatched, optional
            Initial states, zeros by default.

        Returns
        -------
        output : tensor (T, B, D·H) in the form of the input
        h_n : tensor in the shape of hx
        """
        if self._is_slow(input) or _is_for_pytorch():
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        own = self._parameters  # without what is parametrized; faster than attributes
        weights = [own[name] if name in own else getattr(self, name) for name in self._flat_weights_names]
        _check_weights(weights)
        x, batch_sizes = (input.data, input.batch_sizes) if isinstance(input, PackedSequence) else (input, None)
        if not self._takes(x, hx, batch_sizes, weights):  # PyTorch raises, or there is nothing to compute
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, weights)
        if x.dtype != weights[0].dtype:  # autocast
            x = x.to(weights[0].dtype)
        if x.dim() == 3:
            return rnn(x, hx, weights, None, self._draw_masks(x), self._options())
        batch_axis = 0 if self.batch_first else 1
        x, hx = x.unsqueeze(batch_axis), None if hx is None else hx.unsqueeze(1)
        y, h_n = rnn(x, hx, weights, None, self._draw_masks(x), self._options())
        return y.squeeze(batch_axis), h_n.squeeze(1)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """To others it is a `torch.nn.RNN`, which can be read where elman is not."""
        if type(self) is not RNN:
            return super().__reduce_ex__(protocol)
        return torch.nn.RNN, _EMPTY, super().__reduce_ex__(2)[2]  # the state is all there is of it

    def __copy__(self) -> RNN:
        copied = type(self).__new__(type(self))
        copied.__setstate__(torch.nn.RNNBase.__getstate__(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> RNN:
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(torch.nn.RNNBase.__getstate__(self), memo))
        return copied

    def _run_packed(
        self, packed: PackedSequence, hx: Tensor | None, weights: list[Tensor]
    ) -> tuple[PackedSequence, Tensor]:
        x, batch_sizes, order, inverse = packed
        if x.dtype != weights[0].dtype:  # autocast
            x = x.to(weights[0].dtype)
        if hx is None:
            hx = torch.zeros(self._architecture().state_shape(int(batch_sizes[0])), dtype=x.dtype)
        hx = self.permute_hidden(hx, order)
        y, h_n = rnn(x, hx, weights, batch_sizes, self._draw_masks(x), self._options())
        return PackedSequence(y, batch_sizes, order, inverse), self.permute_hidden(h_n, inverse)

    def _takes(self, x: Tensor, hx: Tensor | None, batch_sizes: Tensor | None, weights: Sequence[Tensor]) -> bool:
        """Whether there is something to compute, and nothing for PyTorch to refuse."""
        n_axes = x.dim()
        if n_axes != 2 and (n_axes != 3 or batch_sizes is not None):
            return False
        dtype_fits = x.dtype == weights[0].dtype or torch.is_autocast_enabled("cpu")
        if x.shape[-1] != self.input_size or 0 in x.shape or not dtype_fits or not x.is_cpu:
            return False
        if hx is None:
            return True
        n_rows = 1 if n_axes == 2 else x.shape[0 if self.batch_first else 1]
        shape: tuple[int, ...] = self._architecture().state_shape(
            n_rows if batch_sizes is None else int(batch_sizes[0])
        )
        if n_axes == 2 and batch_sizes is None:
            shape = shape[::2]
        return bool(hx.shape == shape and hx.dtype == weights[0].dtype and hx.is_cpu)

    def _is_slow(self, input: Tensor | PackedSequence) -> bool:
        """Whether the kernels would lose more time on the order of the weights than they gain in these few steps."""
        if torch.compiler.is_compiling():  # for any number of steps
            return False
        if isinstance(input, Tensor):
            shape = input.shape
            n_steps = shape[1] if self.batch_first and len(shape) == 3 else shape[0] if shape else 0
        else:
            n_steps = len(input.batch_sizes) if isinstance(input, PackedSequence) else 0  # then PyTorch refuses it
        n_weights = self.hidden_size * (self.hidden_size + self.input_size)
        return n_steps <= 1 or n_weights > _WEIGHTS_OF_A_STEP * n_steps

    def _options(self) -> Options:
        return Options(self.num_layers, self.mode == "RNN_RELU", self.bias, self.bidirectional, self.batch_first)

    def _architecture(self) -> Architecture:
        return Architecture(self.input_size, self.hidden_size, self.num_layers, self.bidirectional, self.bias)

    def _draw_masks(self, x: Tensor) -> Sequence[Tensor]:
        """What dropout multiplies outputs by: the draws of `torch.nn.RNN`, which go over (T, B, D·H) or packed data."""
        if not self.training or not self.dropout or self.num_layers == 1:
            return ()
        shape = x.shape[:-1]
        is_batch_major = self.batch_first and x.dim() == 3
        columns = self._architecture().n_outputs
        masks = []
        for _ in range(self.num_layers - 1):
            mask = torch.empty(*(reversed(shape) if is_batch_major else shape), columns, dtype=x.dtype)
            if self.dropout < 1:
                mask.bernoulli_(1 - self.dropout).div_(1 - self.dropout)
            else:
                mask.zero_()
            masks.append(mask.transpose(0, 1) if is_batch_major else mask)
        return masks


# A single step gains nothing (docs/drop-in/torch.md).
RNNCell = torch.nn.RNNCell


def runs_here(parameter: Tensor) -> bool:
    return (parameter.dtype, parameter.is_cpu) in _KINDS


def _is_for_pytorch() -> bool:
    """Whether PyTorch's own operations are wanted: for a transformation without a kernel, or in another language."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return bool(torch.onnx.is_in_onnx_export())
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def _check_weights(weights: Sequence[Tensor]) -> None:
    kinds = {(weight.dtype, weight.is_cpu) for weight in weights}
    if len(kinds) > 1 or not kinds <= _KINDS:
        weight = next(weight for weight in weights if not runs_here(weight) or weight.dtype != weights[0].dtype)
        check.refuse(
            f"elman.torch.RNN must have all weights on the CPU, in float32 or float64, got {weight.dtype} on "
            f"{weight.device}: move the layer with .to('cpu', torch.float32), or let it be a torch.nn.RNN"
        )
