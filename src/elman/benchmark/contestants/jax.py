"""`lax.scan` under `jit`, the input product in one piece before it."""

from typing import Any

import numpy as np

from elman.benchmark.program import Program, Unsupported, only_passes
from elman.benchmark.workloads import Case

ENVIRONMENT = {"JAX_PLATFORMS": "cpu"}


def prepare(case: Case, n_threads: int) -> Program:  # noqa: ARG001 - in the environment
    import jax
    from jax import numpy as jnp

    work = case.work
    only_passes("JAX", case)
    jax.config.update("jax_enable_x64", work.dtype == "float64")
    functions = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "identity": lambda a: a}
    if work.nonlinearity not in functions:
        raise Unsupported(f"the adapter for JAX has no {work.nonlinearity}")
    f = functions[work.nonlinearity]

    def direction(parameters: Any, x: Any, suffix: str) -> Any:
        weight_hh, is_reverse = parameters[f"weight_hh{suffix}"].T, suffix.endswith("_reverse")
        driven = x @ parameters[f"weight_ih{suffix}"].T + parameters[f"bias{suffix}"]

        def step(h: Any, a: Any) -> Any:
            h = f(a + h @ weight_hh)
            return h, h

        h_0 = jnp.zeros((x.shape[1], work.shape.n_units), x.dtype)
        return jax.lax.scan(step, h_0, driven, reverse=is_reverse)

    def layers(parameters: Any, x: Any) -> Any:
        states, directions = [], ("", "_reverse")[: work.architecture.n_directions]
        for k in range(work.num_layers):
            ends = [direction(parameters, x, f"_l{k}{end}") for end in directions]
            states += [h_n for h_n, _ in ends]
            x = jnp.concatenate([y for _, y in ends], axis=-1)
        return x, jnp.stack(states)

    def gradients(parameters: Any, x: Any, d_y: Any) -> Any:
        (y, h_n), pullback = jax.vjp(layers, parameters, x)
        d_parameters, d_x = pullback((d_y, jnp.zeros_like(h_n)))
        return {"y": y, "h_n": h_n, **d_parameters, **({"d_x": d_x} if work.what == "both-dx" else {})}

    def forward(parameters: Any, x: Any, _: Any) -> Any:
        y, h_n = layers(parameters, x)
        return {"y": y, "h_n": h_n}

    compiled = jax.jit(forward if work.what == "forward" else gradients)
    arguments = jax.tree.map(jnp.asarray, (case.parameters, case.x, case.d_y))
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda found: {name: np.asarray(array) for name, array in found.items()},
    )
