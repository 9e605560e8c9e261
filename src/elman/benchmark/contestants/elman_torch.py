"""The program with `torch.nn.RNN`, with `elman.torch.RNN` instead: what autograd and PyTorch's weights cost.

Leaky, noisy units are `elman.torch.LeakyRNN`.
"""

from collections.abc import Callable
from typing import Any

from elman.benchmark.contestants import torch as with_torch
from elman.benchmark.program import Program
from elman.benchmark.workloads import Case


def prepare(case: Case, n_threads: int) -> Program:
    import elman
    import elman.torch

    elman.set_num_threads(n_threads)
    if case.work.what == "train-rates":
        return with_torch.of_rates(case, n_threads, _leaky)
    return with_torch.program(case, n_threads, elman.torch.RNN)


def _leaky(case: Case) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    import torch

    import elman.torch

    work = case.work
    own: dict[str, Any] = {"nonlinearity": work.nonlinearity, "leak": work.leak, "noise": work.noise}
    rnn = elman.torch.LeakyRNN(work.shape.n_inputs, work.shape.n_units, **own, dtype=getattr(torch, work.dtype))
    torch.nn.init.zeros_(rnn.bias_hh_l0.requires_grad_(False))  # two biases would learn at twice the rate of one
    names = {"weight_ih_l0": "weight_ih_l0", "bias_l0": "bias_ih_l0", "weight_hh_l0": "weight_hh_l0"}
    return {name: getattr(rnn, theirs) for name, theirs in names.items()}, lambda x: rnn(x)[0]
