"""Whole programs of PyTorch users, as they are and accelerated, on generated data: the same losses, in less time.

    python tests/bridges/programs.py [SECONDS FOR EACH]

prints a table of both times. `test_torch_bridge.py` compares the losses.
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, nll_loss, one_hot
from torch.nn.utils.rnn import pack_padded_sequence

import elman.torch

Program = Iterator[float]  # its losses, one for each update
Change = Callable[[nn.Module], object]  # of a model: nothing, or `elman.torch.accelerate`


class WordModel(nn.Module):
    def __init__(self, n_words: int = 200, n_units: int = 128) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(n_words, n_units)
        self.rnn = nn.RNN(n_units, n_units, num_layers=2, dropout=0.2)
        self.decoder = nn.Linear(n_units, n_words)
        self.decoder.weight = self.encoder.weight

    def forward(self, words: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(self.drop(self.encoder(words)), h)
        return self.decoder(self.drop(y)), h


def words(change: Change) -> Program:
    """A language model: truncated back-propagation, the whole model saved and read again every few updates."""
    text = torch.randint(200, (20, 5000)).cumsum(1).remainder(200)
    model, h = WordModel(), torch.zeros(2, 20, 128)
    change(model)
    for i, begin in enumerate(range(0, 4900, 35)):
        part = text[:, begin : begin + 36].t()
        model.zero_grad()
        outputs, h = model(part[:-1], h.detach())
        loss = cross_entropy(outputs.flatten(0, 1), part[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-1.0)
        yield float(loss.detach())
        if i % 5 == 4:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            model = torch.load(file, weights_only=False)
            change(model)


def names(change: Change) -> Program:
    """A classifier of names, one at a time: a letter is a one-hot row, the language is known at the last."""
    letters = torch.rand(18, 57).softmax(1) ** 2
    model = nn.ModuleDict({"rnn": nn.RNN(57, 128), "out": nn.Linear(128, 18)})
    change(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.15)
    while True:
        language = torch.randint(18, (1,))
        name = one_hot(torch.multinomial(letters[language[0]], int(torch.randint(4, 12, ())), True), 57).float()
        _, h = model["rnn"](name[:, None])
        loss = nll_loss(model["out"](h[0]).log_softmax(1), language)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def characters(change: Change) -> Program:
    """A character model that a loop feeds one character per call."""
    text = torch.randint(60, (10_000,)).cumsum(0).remainder(60)
    model = nn.ModuleDict({"encoder": nn.Embedding(60, 100), "rnn": nn.RNN(100, 100, 2), "out": nn.Linear(100, 60)})
    change(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    while True:
        begin, h, loss = int(torch.randint(9_900, ())), torch.zeros(2, 1, 100), torch.zeros(())
        optimizer.zero_grad()
        for i in range(begin, begin + 25):
            y, h = model["rnn"](model["encoder"](text[i].view(1, 1)), h)
            loss = loss + cross_entropy(model["out"](y.view(1, -1)), text[i + 1].view(1))
        loss.backward()
        optimizer.step()
        yield float(loss.detach()) / 25


def flip_flops(change: Change) -> Program:
    """A network that remembers three bits, and the Jacobians of its last state, a batch of them at a time."""
    model = nn.ModuleDict({"rnn": nn.RNN(3, 64, batch_first=True), "out": nn.Linear(64, 3)})
    change(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    while True:
        x = (torch.rand(32, 64, 3) < 0.1) * torch.randint(0, 2, (32, 64, 3)).mul(2.0).sub(1)
        steps = torch.where(x != 0, torch.arange(64)[:, None], 0).cummax(1).values
        loss = mse_loss(model["out"](model["rnn"](x)[0]), x.gather(1, steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        h_0 = torch.zeros(1, 4, 64, requires_grad=True)
        _, h = model["rnn"](torch.zeros(4, 1, 3), h_0)
        rows = torch.eye(64)[:, None, None].expand(64, 1, 4, 64)
        (jacobians,) = torch.autograd.grad(h, h_0, rows, is_grads_batched=True)
        yield float(loss.detach()) + float(jacobians.detach()[:, 0].transpose(0, 1).norm(dim=(1, 2)).mean())


def sentiment(change: Change) -> Program:
    """Packed sentences of all lengths, in both directions, with dropout."""
    model = nn.ModuleDict(
        {
            "encoder": nn.Embedding(1000, 64),
            "rnn": nn.RNN(64, 64, 2, batch_first=True, bidirectional=True, dropout=0.5),
            "drop": nn.Dropout(0.5),
            "out": nn.Linear(256, 2),
        }
    )
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    while True:
        lengths = torch.randint(5, 60, (32,))
        sentences, labels = torch.randint(1000, (32, 60)), torch.randint(2, (32,))
        sentences[labels == 1] //= 2
        packed = pack_padded_sequence(model["encoder"](sentences), lengths, batch_first=True, enforce_sorted=False)
        _, h = model["rnn"](packed)
        loss = cross_entropy(model["out"](model["drop"](h.transpose(0, 1).flatten(1))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def critic(change: Change) -> Program:
    """A Wasserstein critic of waves: its gradient by its input is to have length 1, so it is differentiated, too."""
    model = nn.ModuleDict({"rnn": nn.RNN(2, 64), "out": nn.Linear(64, 1)})
    change(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.5, 0.9))

    def judge(waves: Tensor) -> Tensor:
        return model["out"](model["rnn"](waves)[0][-1])

    while True:
        phases = torch.linspace(0, 6 * math.pi, 50)[:, None, None] + 6 * torch.rand(1, 32, 2)
        real, fake = phases.sin(), torch.randn(50, 32, 2)
        share = torch.rand(1, 32, 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
        penalty = (slope.transpose(0, 1).flatten(1).norm(dim=1) - 1).square().mean()
        loss = judge(fake).mean() - judge(real).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


PROGRAMS = [words, names, characters, flip_flops, sentiment, critic]


def losses(program: Callable[[Change], Program], change: Change, n: int) -> list[float]:
    torch.manual_seed(0)
    return [loss for loss, _ in zip(program(change), range(n), strict=False)]


def measure(program: Callable[[Change], Program], seconds: float) -> tuple[float, float]:
    """Milliseconds of an update, plain and accelerated: medians of updates that take turns."""
    torch.manual_seed(0)
    runs = [program(change) for change in (lambda _: None, elman.torch.accelerate)]
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    for i in itertools.count():
        if time.perf_counter() > end:
            break
        for k in (i % 2, 1 - i % 2):
            begin = time.perf_counter()
            if next(runs[k], None) is None:  # words end
                runs[k] = program((lambda _: None, elman.torch.accelerate)[k])
            else:
                times[k].append(1e3 * (time.perf_counter() - begin))
    plain, accelerated = map(statistics.median, times)
    return plain, accelerated


def main(seconds: float = 10) -> None:
    print("| program | torch.nn.RNN, ms | accelerated, ms | times as fast |\n|---|---:|---:|---:|")
    for program in PROGRAMS:
        plain, accelerated = measure(program, seconds)
        print(f"| {program.__name__} | {plain:.2f} | {accelerated:.2f} | {plain / accelerated:.2f}× |", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
