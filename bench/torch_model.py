"""Do PyTorch's threads and elman's get in each other's way? A training step of a whole model, and of its parts.

    python bench/torch_model.py

Needs PyTorch. Medians of alternating steps, in milliseconds; both use as many threads as there are cores. If the two
pools fought, the whole would take much longer than the recurrent layer and the rest of the model by themselves.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import elman
import elman.torch

N_TOKENS, N_INPUTS = 90, 32
ROUNDS, STEPS = 15, 10


class Model(nn.Module):
    def __init__(self, n_units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(N_TOKENS, N_INPUTS)
        self.rnn = nn.RNN(N_INPUTS, n_units, batch_first=True)
        self.out = nn.Linear(n_units, N_TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.embedding(x))[0])


def step(model: Model, x: Tensor, outputs: Tensor | None = None) -> Callable[[], None]:
    """A training step; given the recurrent layer's outputs, one without that layer."""
    optimizer = torch.optim.Adam(model.parameters())

    def run() -> None:
        optimizer.zero_grad()
        if outputs is None:
            o = model(x[:, :-1])
        else:
            embedded, o = model.embedding(x[:, :-1]), model.out(outputs)
            embedded.backward(torch.ones_like(embedded))
            for parameter in model.rnn.parameters():
                parameter.grad = torch.zeros_like(parameter)
        nn.functional.cross_entropy(o.flatten(0, 1), x[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def measure(n_steps: int, n_rows: int, n_units: int) -> list[float]:
    """Milliseconds of: the whole with torch.nn.RNN, the whole with elman, the layer alone, the rest alone."""
    x = torch.randint(N_TOKENS, (n_rows, n_steps + 1))
    d_y = torch.randn(n_rows, n_steps, n_units)
    models = [Model(n_units) for _ in range(3)]
    for model in models[1:]:
        elman.torch.accelerate(model)
    embedded = torch.randn(n_rows, n_steps, N_INPUTS, requires_grad=True)
    layer = models[2].rnn
    programs = [
        step(models[0], x),
        step(models[1], x),
        lambda: layer(embedded)[0].backward(d_y),
        step(models[2], x, torch.randn_like(d_y, requires_grad=True)),
    ]
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(ROUNDS):
        for program, own in zip(programs, times, strict=True):
            program()
            start = time.perf_counter()
            for _ in range(STEPS):
                program()
            own.append((time.perf_counter() - start) / STEPS * 1e3)
    return [statistics.median(own[1:]) for own in times]


if __name__ == "__main__":
    torch.set_num_threads(elman.get_num_threads())
    print("| T,B,H | with torch.nn.RNN | accelerated | layer alone | rest alone | whole / parts |")
    print("|---|---|---|---|---|---|")
    for shape in [(100, 1, 64), (100, 8, 64), (64, 16, 128), (50, 32, 256)]:
        theirs, ours, layer, rest = measure(*shape)
        cells = [f"{time:.2f}" for time in (theirs, ours, layer, rest, ours / (layer + rest))]
        print(f"| {','.join(map(str, shape))} | {' | '.join(cells)} |")
