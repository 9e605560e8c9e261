"""Leaky, noisy layers for PyTorch programs: `elman.RNN`'s leak and noise in a module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from elman import check
from elman.backends.reference import ACTIVATIONS
from elman.layer import dynamics
from elman.layer.dynamics import INPUT_STREAM, USUAL
from elman.torch import operator
from elman.torch.passes import Call, Options, normals
from elman.torch.plain import as_input
from elman.torch.recurrent import Dynamics, Home, Recurrent, is_for_pytorch


class LeakyRNN(Recurrent):
    """Layers whose states change by a part α in each step, with noise: those of `elman.RNN`, which has the equations.

    The module is used as a `torch.nn.RNN` is, and has its parameters. It computes on the CPU in float32 or float64.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int, 1 by default
    nonlinearity : {"tanh", "relu", "sigmoid", "identity", "softplus", "retanh", "power"}
    bias : bool, True by default
    batch_first : bool, False by default
    dropout : float, 0 by default
        Probability, in training, with which an output is zeroed on its way to the next layer.
    bidirectional : bool, False by default
    device, dtype : optional
        As everywhere in PyTorch.
    leak, noise, form, learn_leak, input_noise
        As in `elman.RNN`: α, σ, "rate" or "potential", whether the logit of α is a parameter, leak_l{k} (H,), and
        σ of the inputs.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If an argument is not what it should be; and, in a call, ValueError where the weights are not on the CPU, in
        float32 or float64.

    Notes
    -----
    There is noise in training mode, and in any mode where a call is given a generator. What is drawn are seeds, one for
    each row, `torch.randint(2**63 - 1, (B,), generator=generator)`: with these as `noise_seed`, `elman.RNN` has the
    same noise. `torch.compile` breaks the graph where a call is given a generator.

    A state dict has the weights and what is learned, but neither leak, noise nor form. Gradients of gradients, forward
    mode and `torch.func` are computed by a loop over steps, which is slow.

    Examples
    --------
    >>> import torch
    >>> rnn = LeakyRNN(3, 5, nonlinearity="softplus", leak=0.2, noise=0.1)
    >>> y, h_n = rnn(torch.ones(7, 4, 3))  # 7 steps of 4 sequences
    >>> y.shape, h_n.shape
    (torch.Size([7, 4, 5]), torch.Size([1, 4, 5]))
    >>> y.sum().backward()
    >>> rnn
    LeakyRNN(3, 5, nonlinearity='softplus', leak=0.2, noise=0.1)
    """

    __module__ = Home(__name__)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        input_noise: float = 0.0,
    ) -> None:
        sizes = check.number_of_layers(num_layers, "num_layers"), check.size(hidden_size, "hidden_size")
        own_dynamics = dynamics.Dynamics.of(leak, noise, form, learn_leak, input_noise, *sizes)
        check.choice(nonlinearity, "nonlinearity", ACTIVATIONS)
        settings = bias, batch_first, dropout, bidirectional, 0, device, dtype
        super().__init__("RNN_TANH", check.size(input_size, "input_size"), hidden_size, num_layers, *settings)
        is_double = self.weight_hh_l0.dtype == torch.float64
        own_dynamics.check_fits(np.dtype(np.float64 if is_double else np.float32), num_layers)
        self._nonlinearity, self._dynamics = nonlinearity, own_dynamics
        if learn_leak:
            for names in self._names_of_leaks():
                for name in names:
                    self.register_parameter(name, torch.nn.Parameter(self.weight_hh_l0.new_empty(hidden_size)))
            self._reset_leaks()

    # Fixed, as those of `elman.RNN` are

    @property
    def nonlinearity(self) -> str:
        """The function f."""
        return self._nonlinearity

    @property
    def leak(self) -> Any:
        """α, as it was given; what has been learned are the parameters leak_l{k}."""
        return self._dynamics.leak

    @property
    def noise(self) -> Any:
        """σ, as it was given."""
        return self._dynamics.noise

    @property
    def form(self) -> str:
        """What is leaky: "rate" or "potential"."""
        return self._dynamics.form

    @property
    def learn_leak(self) -> bool:
        """Whether α is learned."""
        return self._dynamics.is_learned

    @property
    def input_noise(self) -> float:
        """σ of the inputs."""
        return self._dynamics.input_noise

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        generator: torch.Generator | None = None,
        resets: Tensor | None = None,  # by position, too, as an exporter to ONNX gives all that there is
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Outputs and last states.

        Parameters
        ----------
        input, hx
            As `torch.nn.RNN` takes them: (T, B, I), (B, T, I), (T, I) or a PackedSequence; and (L·D, B, H) or (L·D, H).
        generator : torch.Generator, optional
            What seeds of the noise are drawn with, by default PyTorch's own; with one there is noise in `eval`, too.
        resets : bool tensor (T, B), or (B, T) if batch_first; or (T,) unbatched, optional
            Where sequences begin anew, as in `elman.RNN`: before such a step all states become zeros, and no gradient
            goes back past it. Noise goes on. Needs one direction, and no PackedSequence.

        Returns
        -------
        output : tensor (T, B, D·H), (B, T, D·H) or (T, D·H), or a PackedSequence: in the form of the input
        h_n : tensor in the shape of hx
            Potentials, if the form is "potential".

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If an argument does not fit: those of `torch.nn.RNN`.

        Examples
        --------
        >>> rnn = LeakyRNN(3, 5, leak=0.2, noise=0.1).eval()
        >>> x, seeded = torch.ones(7, 4, 3), lambda: torch.Generator().manual_seed(1)
        >>> bool((rnn(x)[0] == rnn(x)[0]).all()), bool((rnn(x)[0] == rnn(x, generator=seeded())[0]).any())
        (True, False)
        >>> bool((rnn(x, generator=seeded())[0] == rnn(x, generator=seeded())[0]).all())
        True
        """
        if generator is not None:
            check.instance(generator, "generator", torch.Generator)
        weights = self._weights()
        x, batch_sizes = (input.data, input.batch_sizes) if isinstance(input, PackedSequence) else (input, None)
        if not self._takes(x, hx, batch_sizes, weights):  # PyTorch refuses it, unless there are no rows
            return torch.nn.RNN.forward(self, input, hx)  # type: ignore[no-any-return]
        seeds = None
        if self._dynamics.is_noisy and (self.training or generator is not None):
            n_rows = x.shape[0 if self.batch_first else 1] if x.dim() == 3 else 1
            n_rows = n_rows if batch_sizes is None else int(batch_sizes[0])
            own = {} if generator is None else {"generator": generator}  # which Dynamo does not take, be it None
            seeds = torch.randint(2**63 - 1, (n_rows,), device="cpu", **own)
        return self._run_any(input, hx, weights, self._dynamics_now(weights[0].dtype, seeds), resets)

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.RNN` does, and let leaks that are learned begin anew."""
        bound = self.hidden_size**-0.5
        for name in self._flat_weights_names:
            torch.nn.init.uniform_(getattr(self, name), -bound, bound)
        if "leak_l0" in self._parameters:  # not yet, when PyTorch calls this as the module is made
            self._reset_leaks()

    def extra_repr(self) -> str:
        """The arguments that are not as usual."""
        usual = {"nonlinearity": "tanh", **USUAL}
        own = [f"{name}={value!r}" for name in usual if (value := getattr(self, name)) != usual[name]]
        return ", ".join([super().extra_repr(), *own])

    def _names_of_leaks(self) -> list[list[str]]:
        """Of each layer, those of its directions."""
        suffixes = ["", "_reverse"][: 1 + self.bidirectional]
        return [[f"leak_l{k}{suffix}" for suffix in suffixes] for k in range(self.num_layers)]

    def _reset_leaks(self) -> None:
        with torch.no_grad():
            for k, names in enumerate(self._names_of_leaks()):
                for name in names:
                    getattr(self, name).copy_(torch.as_tensor(self._dynamics.initial_logits(k)))

    def _options(self) -> Options:
        settings = self.num_layers, self.nonlinearity, self.bias, self.bidirectional, self.batch_first
        return Options(*settings, self._dynamics.cell)

    def _dynamics_now(self, dtype: torch.dtype, seeds: Tensor | None) -> Dynamics:
        if self._dynamics.cell == "elman" and seeds is None:
            return (), (), None
        leaks, noises = [], []
        for k, names in enumerate(self._names_of_leaks()):
            leak, sigma = self._dynamics.leak_of(k), torch.tensor(self._dynamics.noise_of(k), dtype=torch.float64)
            if self.learn_leak:
                logits = torch.stack([getattr(self, name) for name in names])
                alpha = torch.sigmoid(logits.double()).clamp_min(dynamics.LEAST_LEAK)
            else:
                alpha = torch.tensor(leak, dtype=torch.float64).expand(len(names), self.hidden_size)
            leaks.append(alpha.to(dtype))
            noises.append((sigma * (2 / alpha).sqrt()).to(dtype))
        has_noise = seeds is not None and self._dynamics.has_noisy_units
        return leaks if self._dynamics.cell != "elman" else (), noises if has_noise else (), seeds

    def _compute(self, call: Call) -> tuple[Tensor, Tensor]:
        is_plain = is_for_pytorch()
        if call.seeds is not None and self.input_noise > 0:
            steps = call.batch_sizes
            if steps is None:
                steps = torch.empty(call.input.shape[1 if self.batch_first else 0])
            own = self.input_size, INPUT_STREAM
            drawn = normals(call.seeds, len(steps), *own) if is_plain else operator.normals(call.seeds, steps, *own)
            noise = self._dynamics.input_scale * as_input(call, drawn.to(call.input.dtype))
            call = call._replace(input=call.input + noise)
        return super()._compute(call)
