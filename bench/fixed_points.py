"""The fixed points of a network that has learned three bits, beside two searches written in PyTorch, all in float64.

    OMP_NUM_THREADS=1 python bench/fixed_points.py
    python bench/fixed_points.py --shape 256,1024 --rounds 1

Seconds, as medians over rounds in one process, and how many distinct points were found, stable ones in brackets. The
first search in PyTorch is the same method with Jacobians of vmap(jacrev); the second is Adam on the sum of all q, with
the number of updates and the tolerance (1e-12) that are usual for it. Both are timed without the eigenvalues and the
merging that `elman.fixed_points` does in its time; elman does these for all, to count. Needs PyTorch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import elman
from elman import tasks

SHAPES = [(64, 256), (64, 1024), (256, 256)]  # hidden units, starts
ADAM_UPDATES = 5000


def trained(n_units: int) -> tuple[elman.RNN, np.ndarray]:
    """A layer, and states that it visits."""
    X, Y = tasks.flip_flop(512, n_steps=60, seed=0)
    model = elman.SequenceModel(elman.Features(3), elman.Reals(3), hidden_size=n_units, leak=0.5, seed=0)
    options: dict[str, Any] = {"schedule": elman.schedules.Cosine(), "clip_norm": 1.0, "progress": False}
    model.fit(X, Y, epochs=60, batch_size=64, optimizer=elman.Adam(5e-3 * (64 / n_units) ** 0.5), **options)
    return model.rnn, model.rnn(X[:64].swapaxes(0, 1))[0].astype(np.float64)


def step_of(rnn: elman.RNN) -> Callable[[Tensor], Tensor]:
    p = {name: torch.tensor(array, dtype=torch.float64) for name, array in rnn.parameters().items()}
    weight, bias, leak = p["weight_hh_l0"], p["bias_l0"], rnn.leak
    return lambda h: (1 - leak) * h + leak * torch.tanh(h @ weight.T + bias)


@torch.no_grad()
def levenberg_marquardt(step: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-20) -> Tensor:
    """As `elman.fixed_points`."""
    h, damping = start.clone(), torch.ones(len(start), dtype=start.dtype)
    jacobian_of, identity = torch.vmap(torch.func.jacrev(step)), torch.eye(start.shape[1], dtype=start.dtype)
    moving = torch.arange(len(start))
    for _ in range(500):
        if len(moving) == 0:
            break
        own = h[moving]
        r, jacobian = step(own) - own, jacobian_of(own) - identity
        gradient, normal = (r[:, None] @ jacobian)[:, 0], jacobian.mT @ jacobian
        q, traces = r.square().sum(1) / 2, normal.diagonal(dim1=1, dim2=2).sum(1)
        shift = damping[moving] * (2 * q).sqrt() + torch.finfo(h.dtype).eps * traces
        move = -torch.linalg.solve(normal + shift[:, None, None] * identity, gradient)
        after = own + move
        q_after = (step(after) - after).square().sum(1) / 2
        gain, promised = q - q_after, (move * (shift[:, None] * move - gradient)).sum(1) / 2
        damping[moving] *= torch.where(gain > 0.75 * promised, 0.25, torch.where(gain > 0.25 * promised, 1.0, 4.0))
        h[moving] = torch.where((gain > 0)[:, None], after, own)
        moving = moving[(q_after > tolerance) & (move.norm(dim=1) > 1e-10 * (1 + own.norm(dim=1)))]
    return h


def adam(step: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-12) -> Tensor:
    h = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([h], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ADAM_UPDATES)
    for _ in range(ADAM_UPDATES):
        optimizer.zero_grad()
        q = (step(h) - h).square().sum(1) / 2
        if q.max() <= tolerance:
            break
        q.sum().backward()
        optimizer.step()
        schedule.step()
    return h.detach()


def measure(n_units: int, n_starts: int, rounds: int) -> list[str]:
    rnn, states = trained(n_units)
    rng = np.random.default_rng(0)
    start = rng.choice(states.reshape(-1, n_units), n_starts) + 0.2 * rng.standard_normal((n_starts, n_units))
    step, x = step_of(rnn), np.zeros(3)
    searches: list[Callable[[], Any]] = [
        lambda: elman.fixed_points(rnn, x, start),
        lambda: levenberg_marquardt(step, torch.tensor(start)),
        lambda: adam(step, torch.tensor(start)),
    ]
    times: list[list[float]] = [[] for _ in searches]
    ends: list[Any] = [None] * len(searches)
    for _ in range(rounds):
        for i, search in enumerate(searches):
            begin = time.perf_counter()
            ends[i] = search()
            times[i].append(time.perf_counter() - begin)
    counted = [ends[0]]
    for end, tolerance in zip(ends[1:], (1e-20, 1e-12), strict=True):
        counted.append(elman.fixed_points(rnn, x, end.numpy(), tolerance=tolerance, max_iterations=1))
    cells = [f"{statistics.median(own):.2f}" for own in times]
    found = [f"{len(points)} ({points.is_stable.sum()})" for points in counted]
    return [f"{n_units}, {n_starts}", *(part for pair in zip(cells, found, strict=True) for part in pair)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", metavar="H,N", help="hidden units and starts")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shapes = [tuple(map(int, shape.split(","))) for shape in options.shape or []] or SHAPES
    print("| H, starts | elman, s | points | PyTorch, the same | points | PyTorch, Adam | points |")
    print("|---|---|---|---|---|---|---|")
    for n_units, n_starts in shapes:
        print(f"| {' | '.join(measure(n_units, n_starts, options.rounds))} |", flush=True)


if __name__ == "__main__":
    main()
