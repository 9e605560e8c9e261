"""`lax.scan` under `jit`, the input product in one piece before it."""

import functools
from typing import Any

import numpy as np

from elman.benchmark.program import Program, Unsupported, by_steps, only_passes, only_possible_steps
from elman.benchmark.workloads import Arrays, Case

ENVIRONMENT = {"JAX_PLATFORMS": "cpu"}


def prepare(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - in the environment
    import jax
    from jax import numpy as jnp

    work = case.work
    only_passes("JAX", case)
    only_possible_steps(case)
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
