"""`torch.nn.RNN` and `torch.nn.RNNCell`, computed by elman's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from elman import check
from elman.layer.architecture import Architecture
from elman.torch.function import rnn
from elman.torch.passes import Options


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
        own = self._parameters  # without what is parametrized; faster than attributes
        weights = [own[name] if name in own else getattr(self, name) for name in self._flat_weights_names]
        _check_weights(weights)
        x, batch_sizes = (input.data, input.batch_sizes) if isinstance(input, PackedSequence) else (input, None)
        if not self._takes(x, hx, batch_sizes, weights):
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]  # raises, or has nothing to compute
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


# A step through the kernels takes twice as long as one of PyTorch's own cell (docs/drop-in/torch.md).
RNNCell = torch.nn.RNNCell


def runs_here(parameter: Tensor) -> bool:
    return parameter.is_cpu and (parameter.dtype is torch.float32 or parameter.dtype is torch.float64)


def _check_weights(weights: Sequence[Tensor]) -> None:
    for weight in weights:
        if not runs_here(weight) or weight.dtype != weights[0].dtype:
            check.refuse(
                f"elman.torch.RNN must have all weights on the CPU, in float32 or float64, got {weight.dtype} on "
                f"{weight.device}: move the layer with .to('cpu', torch.float32), or let it be a torch.nn.RNN"
            )
