"""`torch.nn.RNN` and `torch.nn.RNNCell`, computed by elman's kernels."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from elman.torch.duals import is_forward_mode
from elman.torch.passes import Options
from elman.torch.recurrent import Home, Recurrent, is_for_pytorch, runs_here

# Of a `torch.nn.RNN` without weights and without draws, which is given a state
_EMPTY = (1, 1, 1, "tanh", True, False, 0.0, False, 0, "meta")

# More in a layer and direction, and PyTorch is as fast (docs/drop-in/torch.md)
_WEIGHTS_OF_A_STEP = 40_000


class RNN(Recurrent):
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

    __module__ = Home(__name__)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__.update(torch.nn.RNN(*args, **kwargs).__dict__)  # what PyTorch checks, sets and draws

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        resets: Tensor | None = None,  # by position, too, as an exporter to ONNX gives all that there is
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Outputs and last states, as `torch.nn.RNN` has them.

        Parameters
        ----------
        input : tensor (T, B, I), or (B, T, I) if batch_first; or unbatched (T, I); or a PackedSequence
            In the dtype of the weights; under `torch.autocast` it is brought into that.
        hx : tensor (L·D, B, H), or (L·D, H) if the input is unbatched, optional
            Initial states, zeros by default.
        resets : bool tensor (T, B), or (B, T) if batch_first; or (T,) unbatched, optional
            Where sequences begin anew: before such a step all states become zeros, and no gradient goes back past it.
            `torch.nn.RNN` has no such argument. Needs one direction, and no PackedSequence.

        Returns
        -------
        output : tensor (T, B, D·H), (B, T, D·H) or (T, D·H), or a PackedSequence: in the form of the input
        h_n : tensor in the shape of hx
            Both in the dtype of the weights.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            Those of `torch.nn.RNN`, if an argument does not fit; ValueError if the weights are not on the CPU, all in
            float32 or all in float64; TypeError or ValueError if resets do not fit.

        Examples
        --------
        >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(4, 3), torch.ones(2, 3)])
        >>> output, h_n = RNN(3, 5)(packed)
        >>> output.data.shape, h_n.shape
        (torch.Size([6, 5]), torch.Size([1, 2, 5]))

        >>> rnn, x = RNN(3, 5), torch.ones(7, 3)
        >>> output, h_n = rnn(x, resets=torch.arange(7) == 4)  # another sequence begins at step 4
        >>> bool((output[4:] == rnn(x[4:])[0]).all())
        True
        """
        if resets is None and self._is_slow(input) and not torch.is_autocast_enabled("cpu"):
            # A look at one of them: it is a single step as a rule, so each µs counts
            weight = self._parameters.get("weight_hh_l0")
            if weight is None or runs_here(weight):
                return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        weights = self._weights()
        x, batch_sizes = (input.data, input.batch_sizes) if isinstance(input, PackedSequence) else (input, None)
        # What it does not take, PyTorch refuses, or there is nothing to compute
        is_pytorchs = resets is None and is_for_pytorch() and (not is_forward_mode() or self._drops())
        if is_pytorchs or not self._takes(x, hx, batch_sizes, weights):
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        return self._run_any(input, hx, weights, resets=resets)

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

    def _options(self) -> Options:
        nonlinearity = "relu" if self.mode == "RNN_RELU" else "tanh"
        return Options(self.num_layers, nonlinearity, self.bias, self.bidirectional, self.batch_first)

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


# A single step gains nothing (docs/drop-in/torch.md).
RNNCell = torch.nn.RNNCell
