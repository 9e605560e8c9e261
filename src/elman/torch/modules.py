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
from elman.torch.passes import Call, Options

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
    dropout are those of `torch.nn.RNN`. It computes on the CPU in float32 or float64. A single step, and a few of a
    large layer, are PyTorch's own, as they gain nothing.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int, 1 by default
    nonlinearity : {"tanh", "relu"}
    bias : bool, True by default
    batch_first, bidirectional : bool, False by default
    dropout : float, 0 by default
        Probability, in training, with which an output is zeroed on its way to the next layer.
    device, dtype : optional
        As everywhere in PyTorch.

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
            In the dtype of the weights; under `torch.autocast` it is brought into that.
        hx : tensor (L·D, B, H), or (L·D, H) if the input is unbatched, optional
            Initial states, zeros by default.

        Returns
        -------
        output : tensor (T, B, D·H), (B, T, D·H) or (T, D·H), or a PackedSequence: in the form of the input
        h_n : tensor in the shape of hx
            Both in the dtype of the weights.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            Those of `torch.nn.RNN`, if an argument does not fit; ValueError if the weights are not on the CPU, all in
            float32 or all in float64.

        Examples
        --------
        >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(4, 3), torch.ones(2, 3)])
        >>> output, h_n = RNN(3, 5)(packed)
        >>> output.data.shape, h_n.shape
        (torch.Size([6, 5]), torch.Size([1, 2, 5]))
        """
        own = self._parameters  # without what is parametrized; faster than attributes
        if self._is_slow(input) and not torch.is_autocast_enabled("cpu"):
            weight = own.get("weight_hh_l0")  # a look at one of them: it is a single step as a rule, so each µs counts
            if weight is None or runs_here(weight):
                return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        weights = [own[name] if name in own else getattr(self, name) for name in self._flat_weights_names]
        _check_weights(weights)
        x, batch_sizes = (input.data, input.batch_sizes) if isinstance(input, PackedSequence) else (input, None)
        # What it does not take, PyTorch refuses, or there is nothing to compute
        if _is_for_pytorch() or not self._takes(x, hx, batch_sizes, weights):
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, weights)
        if x.dim() == 3:
            return self._run(x, hx, weights, None)
        batch_axis = 0 if self.batch_first else 1
        y, h_n = self._run(x.unsqueeze(batch_axis), None if hx is None else hx.unsqueeze(1), weights, None)
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
        if torch.nn.utils.parametrize.is_parametrized(self):  # as PyTorch does it then
            copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        else:
            copied.__setstate__(copy.deepcopy(torch.nn.RNNBase.__getstate__(self), memo))
        return copied

    def _run_packed(
        self, packed: PackedSequence, hx: Tensor | None, weights: list[Tensor]
    ) -> tuple[PackedSequence, Tensor]:
        x, batch_sizes, order, inverse = packed
        if hx is None:
            hx = weights[0].new_zeros(self._architecture().state_shape(int(batch_sizes[0])))
        y, h_n = self._run(x, self.permute_hidden(hx, order), weights, batch_sizes)
        return PackedSequence(y, batch_sizes, order, inverse), self.permute_hidden(h_n, inverse)

    def _run(
        self, x: Tensor, hx: Tensor | None, weights: list[Tensor], batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        dtype = weights[0].dtype
        if self.batch_first and x.is_inference() and not torch.is_inference_mode_enabled():
            x = x.clone()  # as PyTorch does then: it has to be saved
        if x.dtype != dtype or (hx is not None and hx.dtype != dtype):  # autocast
            x, hx = x.to(dtype), None if hx is None else hx.to(dtype)
        return rnn(Call(x, hx, weights, batch_sizes, self._draw_masks(x), self._options()))

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

    def _is_slow(self, input: Tensor | PackedSequence) -> bool:
        """Whether the kernels would lose more time on the order of the weights than they gain in these few steps."""
        if torch.compiler.is_compiling():  # for any number of steps
            return False
        if isinstance(input, Tensor):
            shape = input.shape
            n_steps = shape[1] if self.batch_first and len(shape) == 3 else shape[0] if shape else 0
        else:
            n_steps = len(input.batch_sizes) if isinstance(input, PackedSequence) else 0  # then PyTorch refuses it
        if n_steps <= 1:
            return True
        n_weights: int = self.hidden_size * (self.hidden_size + self.input_size)
        return n_weights > _WEIGHTS_OF_A_STEP * n_steps

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
            mask = x.new_empty(*(reversed(shape) if is_batch_major else shape), columns)
            if self.dropout < 1:
                mask.bernoulli_(1 - self.dropout).div_(1 - self.dropout)
            else:
                mask.zero_()
            masks.append(mask.transpose(0, 1) if is_batch_major else mask)
        return masks


# A single step gains nothing (docs/drop-in/torch.md).
RNNCell = torch.nn.RNNCell


def runs_here(parameter: Tensor) -> bool:
    """Whether the kernels can compute with it."""
    return (parameter.dtype, parameter.is_cpu) in _KINDS


def _fits(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether PyTorch takes it beside weights of a dtype: autocast casts the narrower reals."""
    narrow = (torch.float32, torch.bfloat16, torch.float16)
    return tensor.is_cpu and (tensor.dtype == dtype or (tensor.dtype in narrow and torch.is_autocast_enabled("cpu")))


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
            f"{weight.device}: move the layer with .to('cpu', torch.float32), or elman.torch.restore(model)"
        )
