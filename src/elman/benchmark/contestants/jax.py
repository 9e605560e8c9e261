"""`lax.scan` under `jit`, the input product in one piece before it."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from elman.benchmark.program import (
    Program,
    Unsupported,
    by_steps,
    losses,
    only_one_layer,
    only_passes,
    only_possible_steps,
)
from elman.benchmark.workloads import LEARNING_RATE, Arrays, Case

ENVIRONMENT = {"JAX_PLATFORMS": "cpu"}


def prepare(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - in the environment
    import jax
    from jax import numpy as jnp

    work = case.work
    jax.config.update("jax_enable_x64", work.dtype == "float64")
    functions = {
        "tanh": jnp.tanh,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "identity": lambda a: a,
        "softplus": jax.nn.softplus,
        "retanh": lambda a: jax.nn.relu(jnp.tanh(a)),
        "power": lambda a: jnp.square(jax.nn.relu(a)),
    }
    if work.nonlinearity not in functions:
        raise Unsupported(f"the adapter for JAX has no {work.nonlinearity}")
    f = functions[work.nonlinearity]
    if work.what == "train-rates":
        return _of_rates(case, f)
    only_passes("JAX", case)
    only_possible_steps(case)

    def direction(parameters: Any, x: Any, h_0: Any, suffix: str) -> Any:
        weight_hh, is_reverse = parameters[f"weight_hh{suffix}"].T, suffix.endswith("_reverse")
        driven = x @ parameters[f"weight_ih{suffix}"].T + parameters[f"bias{suffix}"]

        def step(h: Any, a: Any) -> Any:
            h = f(a + h @ weight_hh)
            return h, h

        return jax.lax.scan(step, h_0, driven, reverse=is_reverse)

    def layers(parameters: Any, x: Any, h_0: Any) -> Any:
        states: list[Any] = []
        directions = ("", "_reverse")[: work.architecture.n_directions]
        for k in range(work.num_layers):
            ends = [direction(parameters, x, h_0[len(states) + i], f"_l{k}{end}") for i, end in enumerate(directions)]
            states += [h_n for h_n, _ in ends]
            x = jnp.concatenate([y for _, y in ends], axis=-1)
        return x, jnp.stack(states)

    h_0 = jnp.zeros((work.architecture.n_states, work.shape.n_rows, work.shape.n_units), work.dtype)
    parameters, x, d_y = jax.tree.map(jnp.asarray, (case.parameters, case.x, case.d_y))

    def gradients(parameters: Any, x: Any, d_y: Any) -> Any:
        (y, h_n), pullback = jax.vjp(lambda own, inputs: layers(own, inputs, h_0), parameters, x)
        d_parameters, d_x = pullback((d_y, jnp.zeros_like(h_n)))
        return {"y": y, "h_n": h_n, **d_parameters, **({"d_x": d_x} if work.what == "both-dx" else {})}

    def forward(parameters: Any, x: Any) -> Any:
        y, h_n = layers(parameters, x, h_0)
        return {"y": y, "h_n": h_n}

    compiled, compiled_forward = jax.jit(gradients), jax.jit(forward)

    def both() -> Any:
        return jax.block_until_ready(compiled(parameters, x, d_y))

    def arrays(found: Any) -> Arrays:
        return {name: np.asarray(array) for name, array in found.items()}

    if work.has_gradients:
        return Program(both, arrays)
    beside = {"gradient": both} if work.is_single else {}
    if work.what == "forward":
        return Program(lambda: jax.block_until_ready(compiled_forward(parameters, x)), arrays, beside)
    one, chunks = functools.partial(jax.jit(layers), parameters), [*x[:, None]]
    return Program(
        lambda: jax.block_until_ready(by_steps(one, chunks, h_0)),
        lambda found: {"y": np.concatenate(found[0]), "h_n": np.asarray(found[1])},
        beside,
    )


def _of_rates(case: Case, f: Callable[[Any], Any]) -> Program:
    """A training step of leaky, noisy units: noise is drawn in one piece before the scan, and Adam written out."""
    import jax
    from jax import numpy as jnp

    only_one_layer("JAX's scan", case)
    work, leak = case.work, case.work.leak
    x, target = jnp.asarray(case.x), jnp.asarray(case.target)[..., None]

    def loss(parameters: Any, key: Any) -> Any:
        weight_hh = parameters["weight_hh_l0"].T
        driven = x @ parameters["weight_ih_l0"].T + parameters["bias_l0"]
        if work.noise:
            driven += work.noise * (2 / leak) ** 0.5 * jax.random.normal(key, driven.shape, driven.dtype)

        def step(h: Any, a: Any) -> Any:
            h = (1 - leak) * h + leak * f(a + h @ weight_hh)
            return h, h

        _, y = jax.lax.scan(step, jnp.zeros_like(driven[0]), driven)
        o = jax.nn.log_softmax(y @ parameters["weight_ho"].T + parameters["bias_o"])
        return -jnp.take_along_axis(o, target, axis=-1).mean()

    def update(key: Any, n: Any, parameters: Any, m: Any, v: Any) -> Any:
        key, drawn = jax.random.split(key)
        found, gradients = jax.value_and_grad(loss)(parameters, drawn)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - LEARNING_RATE[work.what] * (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.999**n)) + 1e-8)

        return found, (key, n + 1, jax.tree.map(moved, parameters, m, v), m, v)

    parameters = jax.tree.map(jnp.asarray, case.parameters)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state, compiled = (jax.random.key(0), jnp.asarray(1), parameters, zeros, zeros), jax.jit(update)

    def run() -> float:
        nonlocal state
        found, state = jax.block_until_ready(compiled(*state))
        return float(found)

    return Program(run, losses(run))
