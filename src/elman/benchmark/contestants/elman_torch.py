"""The program with `torch.nn.RNN`, with `elman.torch.RNN` instead: what autograd and PyTorch's weights cost."""

from elman.benchmark.contestants import torch as with_torch
from elman.benchmark.program import Program
from elman.benchmark.workloads import Case


def prepare(case: Case, n_threads: int) -> Program:
    import elman
    import elman.torch

    elman.set_num_threads(n_threads)
    return with_torch.program(case, n_threads, elman.torch.RNN)
