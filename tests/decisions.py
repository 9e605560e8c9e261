"""NeuroGym's decisions: `fit` on its trials, prepared ahead, beside a loop in PyTorch with the same batches and noise.

$ pip install neurogym torch elman    # in an environment of its own: NeuroGym pins NumPy
$ python tests/decisions.py

Updates in float64 with Adam; the losses must be the same to 1e-8. Prints what trials and updates take, alone and
together.
"""

import functools
import time
import warnings
from collections.abc import Iterator
from typing import Any

warnings.filterwarnings("ignore")  # of gymnasium and NeuroGym about each other

import neurogym  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import elman  # noqa: E402
from elman import backends  # noqa: E402
from elman.layer.dynamics import keys_of_rows  # noqa: E402

N_UPDATES, T, B, H = 200, 100, 16, 64
ALPHA, SIGMA = 0.2, 0.15


class Notes(elman.Callback):
    """The loss of each update, and what the run draws its noise from."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seed = 0

    def on_step(self, training: Any) -> None:
        self.losses.append(training.loss)
        self.seed = training._noise_seed


def model_of(n_inputs: int, n_outputs: int) -> elman.SequenceModel:
    kinds = elman.Features(n_inputs), elman.Categories(n_outputs)
    options = {"nonlinearity": "softplus", "leak": ALPHA, "noise": SIGMA, "dtype": "float64"}
    return elman.SequenceModel(*kinds, hidden_size=H, seed=0, **options)


def loop(p: dict[str, torch.Tensor], x: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """The outputs, written as users do: leaky rates h, step by step."""
    h, outputs = torch.zeros(x.shape[1], H, dtype=x.dtype), []
    for x_t, xi_t in zip(x, xi, strict=True):
        a = x_t @ p["weight_ih_l0"].T + h @ p["weight_hh_l0"].T + p["bias_l0"] + SIGMA * np.sqrt(2 / ALPHA) * xi_t
        h = (1 - ALPHA) * h + ALPHA * torch.logaddexp(a, torch.zeros_like(a))
        outputs.append(h @ p["weight_ho"].T + p["bias_o"])
    return torch.stack(outputs)


def losses_of_the_loop(first: dict[str, np.ndarray], batches: list[Any], seed: int) -> Iterator[float]:
    p = {name: torch.tensor(array, requires_grad=True) for name, array in first.items()}
    optimizer = torch.optim.Adam(p.values(), lr=1e-3)
    for i, (X, Y) in enumerate(batches):
        xi = np.empty((T, B, H))
        backends.resolve().normals(xi, keys_of_rows(seed, 0, np.arange(i * B, (i + 1) * B)), stream=0)
        x, y = (torch.tensor(np.asarray(array).swapaxes(0, 1)) for array in (X, Y))
        o = loop(p, x.double(), torch.tensor(xi))
        loss = torch.nn.functional.cross_entropy(o.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def seconds(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    settings = {"env_kwargs": {"dt": 20}, "batch_size": B, "seq_len": T, "batch_first": True}
    dataset = neurogym.Dataset("PerceptualDecisionMaking-v0", **settings)
    dataset.seed(0)
    n_inputs, n_outputs, drawn = dataset.env.observation_space.shape[0], int(dataset.env.action_space.n), []

    def trials() -> Iterator[Any]:
        while True:
            X, Y = dataset()
            drawn.append((X.copy(), Y.copy()))
            yield X, Y

    model, notes = model_of(n_inputs, n_outputs), Notes()
    first = model.state_dict()
    options = {"optimizer": elman.Adam(1e-3), "callbacks": [notes], "epochs": 1, "progress": False}
    together = seconds(functools.partial(model.fit, trials, steps_per_epoch=N_UPDATES, **options))
    expected = np.array(list(losses_of_the_loop(first, drawn, notes.seed)))
    difference = float(np.abs(expected - notes.losses).max())
    print(f"{N_UPDATES} updates, loss {expected[0]:.4f} -> {expected[-1]:.4f}, largest difference {difference:.1e}")
    alone = seconds(lambda: [dataset() for _ in range(N_UPDATES)])
    steps = seconds(lambda: model.fit(lambda: drawn, epochs=1, progress=False))
    ms = [1000 * time_of / N_UPDATES for time_of in (alone, steps, together)]
    print("ms: trials alone {:.2f}, updates alone {:.2f}, fit with trials ahead {:.2f}".format(*ms))
    assert len(drawn) == N_UPDATES
    assert difference < 1e-8
    assert expected[-20:].mean() < 0.8 * expected[:20].mean()


if __name__ == "__main__":
    main()
