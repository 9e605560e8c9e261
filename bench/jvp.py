"""Forward mode beside a training step's passes and beside PyTorch's and JAX's: medians and ratios, in one process.

    python bench/jvp.py

Needs PyTorch and JAX; all in float32, on as many threads as each takes.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import elman.torch

ROUNDS = 15


def by_torch(kind: Any, rnn: elman.RNN, x: np.ndarray, d_x: np.ndarray) -> Callable[[], Any]:
    """torch.func.jvp of a module along the first tangent."""
    other = kind(rnn.input_size, rnn.hidden_size)
    other.load_state_dict({name: torch.tensor(one) for name, one in rnn.state_dict(pytorch=True).items()})
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    primal, tangent = torch.tensor(x), torch.tensor(d_x[0])
    return lambda: torch.func.jvp(lambda x: other(x)[0], (primal,), (tangent,))[1].numpy()


def by_jax(rnn: elman.RNN, x: np.ndarray, d_x: np.ndarray) -> Callable[[], Any]:
    """jax.jvp of a scan, compiled, along all tangents."""
    own = {name: jnp.array(one) for name, one in rnn.parameters().items()}

    def run(x: Any) -> Any:
        inputs = x @ own["weight_ih_l0"].T + own["bias_l0"]

        def step(h: Any, a: Any) -> Any:
            h = jnp.tanh(a + h @ own["weight_hh_l0"].T)
            return h, h

        return jax.lax.scan(step, jnp.zeros((x.shape[1], rnn.hidden_size)), inputs)[1]

    compiled = jax.jit(jax.vmap(lambda x, d_x: jax.jvp(run, (x,), (d_x,))[1], in_axes=(None, 0)))
    primal, tangents = jnp.array(x), jnp.array(d_x)
    return lambda: compiled(primal, tangents).block_until_ready()


def medians(contestants: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds, each contestant after a rest, as threads of others spin for a while."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            time.sleep(0.01)
            call()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def compare(n_steps: int, n_rows: int, n_inputs: int, n_units: int) -> None:
    """Print a table for one layer."""
    rng, rnn = np.random.default_rng(0), elman.RNN(n_inputs, n_units, seed=0)
    x, d_x = (rng.standard_normal((*k, n_steps, n_rows, n_inputs)).astype(np.float32) for k in ((), (8,)))
    d_y = rng.standard_normal((n_steps, n_rows, n_units)).astype(np.float32)
    d_params = {name: array[None] for name, array in rnn.parameters().items()}
    of_torch, of_jax = by_torch(torch.nn.RNN, rnn, x, d_x), by_jax(rnn, x, d_x[:1])
    for peer in (of_torch(), of_jax()[0]):
        np.testing.assert_allclose(rnn.jvp(x, d_x[:1])[2][0], peer, rtol=0, atol=2e-5 * np.abs(peer).max())
    found = medians(
        {
            "forward": lambda: rnn(x),
            "vjp and pullback": lambda: rnn.vjp(x)[2](d_y),
            "jvp, K = 1": lambda: rnn.jvp(x, d_x[:1]),
            "jvp by all, K = 1": lambda: rnn.jvp(x, d_x[:1], d_params=d_params),
            "torch, K = 1": of_torch,
            "elman.torch, K = 1": by_torch(elman.torch.RNN, rnn, x, d_x),
            "JAX, K = 1": of_jax,
            "jvp, K = 8": lambda: rnn.jvp(x, d_x),
            "JAX, K = 8": by_jax(rnn, x, d_x),
        }
    )
    print(f"T, B, I, H = {n_steps}, {n_rows}, {n_inputs}, {n_units}; {elman.get_num_threads()} threads")
    for name, seconds in found.items():
        print(f"  {name:20s} {1e3 * seconds:8.2f} ms, {seconds / found['jvp, K = 1']:6.2f} of jvp, K = 1")


if __name__ == "__main__":
    compare(100, 32, 32, 64)
    compare(128, 16, 128, 256)
