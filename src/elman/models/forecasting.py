"""Forecasts of series: outputs are fed back as inputs, beside what is known of the future."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman import check
from elman.data import checks
from elman.data.inputs import Features
from elman.data.kinds import PATTERNS
from elman.data.outputs import Reals
from elman.data.sequences import DataSet
from elman.models.generation import Name, Sample, Uniforms, begin, go_on, named
from elman.models.network import SequenceNetwork
from elman.typing import Real


def forecast(
    network: SequenceNetwork, history: Any, steps: Any, future: Any, *, n_samples: Any, seed: Any, batch_size: Any
) -> Real:
    """What `SequenceModel.forecast` returns, given its arguments."""
    kinds = network.kinds
    _check_kinds(network)
    steps = check.size(steps, "steps")
    outputs: Any = kinds.outputs
    n = 1 if n_samples is None else check.size(n_samples, "n_samples")
    if n_samples is not None and outputs.distribution is None:
        check.refuse(f"n_samples must be None where outputs are no distribution, got {n_samples} for {outputs}")
    rng, batch_size = check.generator(seed), check.positive_int(batch_size, "batch_size")
    data = DataSet(history, kinds.inputs, PATTERNS["many-to-many"], kinds.dtype, "history")
    check.addressable(8 * len(data.lengths) * n * steps * outputs.n_units, steps=steps, n_samples=n)
    beside = _beside(network, future, len(data.lengths), steps)
    rngs = rng.spawn(len(data.lengths)) if n_samples is not None else []
    is_drawn = n_samples is not None and outputs.law != "counts"
    results: Any = None
    with data.each(data.inputs_of, batch_size) as batches:
        for rows, (x, lengths) in batches:
            own_rngs = [rngs[row] for row in rows] if rngs else []
            name = named("forecast of history[{}] at step {}", rows, n)
            own_beside = None if beside is None else np.repeat(beside[:, rows], n, axis=1)
            path = go_on(
                network,
                begin(network, x, lengths).repeated(n),
                steps,
                Uniforms(own_rngs, n, 2 * outputs.n if is_drawn else 0),
                name,
                {"law": outputs.law, "rank": outputs.rank},
                beside=own_beside,
                sample=_counts(outputs, own_rngs, n, name) if n_samples is not None and not is_drawn else None,
                keeps_outputs=n_samples is None,
            )
            found = outputs.unscaled(path.drawn) if path.outputs is None else outputs.predict(path.outputs)
            found = np.moveaxis(found.reshape(steps, len(rows), n, *found.shape[2:]), 0, 2)
            found = found[:, 0] if n_samples is None else found
            results = np.empty((len(data.lengths), *found.shape[1:]), found.dtype) if results is None else results
            results[rows] = found
    return np.asarray(results)


def _counts(outputs: Any, rngs: Sequence[np.random.Generator], n: int, name: Name) -> Sample:
    """What draws them: at each step NumPy, as many for each series as it has paths."""

    def sample(o: Real, step: int) -> Real:
        each = [o[i : i + n] for i in range(0, len(o), n)]
        return np.concatenate(
            [
                outputs.draw_counts(rng, own, name(i * n, step))
                for i, (rng, own) in enumerate(zip(rngs, each, strict=True))
            ]
        )

    return sample


def _check_kinds(network: SequenceNetwork) -> None:
    """Refuse models whose outputs are no next values of their inputs."""
    inputs, outputs, pattern, _ = network.kinds
    if runs_back := network.stack.architecture.runs_back:
        check.refuse(f"forecast is not possible with {runs_back}: that direction begins at the end")
    if pattern.one_input:
        check.refuse(f"forecast needs inputs at each step, got pattern={pattern.name!r}")
    if not (isinstance(inputs, Features) and isinstance(outputs, Reals) and outputs.n <= inputs.n):
        check.refuse(f"forecast needs Features, the first of which are what Reals predict, got {inputs} and {outputs}")


def _beside(network: SequenceNetwork, future: Any, n_rows: int, steps: int) -> Real | None:
    """The columns (steps, N, E) that are known, scaled, for each step that is fed back; the last is not looked at."""
    inputs, outputs, _, dtype = network.kinds
    n = inputs.n - outputs.n
    if not n:
        if future is not None:
            check.refuse(f"future must be None where all inputs are predicted, got {check.shown(future)}")
        return None
    if future is None and steps > 1:
        check.refuse(f"future must be given for the last {n} of the inputs, which are not predicted")
    known = np.zeros((steps, n_rows, inputs.n), inputs.as_read(future, dtype))
    if future is not None:
        shapes = (n_rows, steps, n), (n_rows, steps - 1, n)
        array = checks.widened(future, "future", known.dtype)
        array = check.real_array(array, "future", known.dtype, *shapes, allow_empty=True)
        check.finite(array[:, : steps - 1], "future")
        known[: array.shape[1], :, outputs.n :] = array.swapaxes(0, 1)
    beside: Real = inputs.scaled(known, dtype)[..., outputs.n :]
    return beside
