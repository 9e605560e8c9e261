"""Who is measured: the form that contestants have, and elman's own backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import elman
from elman.benchmark.workloads import CLIP_NORM, LEARNING_RATE, N_CHECKED_STEPS, Arrays, Case


class Unsupported(Exception):
    """Raised by a contestant that cannot compute a case; the message says what it lacks."""


class Program(NamedTuple):
    """A case, ready to be computed again and again."""

    run: Callable[[], Any]  # what is timed: returns when the results are there
    results: Callable[[Any], Arrays]  # from what `run` returned to arrays; names and shapes are those of elman


class Contestant(NamedTuple):
    """A backend of elman, or a peer."""

    name: str
    packages: tuple[str, ...]  # that it imports, under the names that `pip install` knows
    prepare: Callable[[Case, int], Program]  # the second argument is the number of threads


def losses(run: Callable[[], Any]) -> Callable[[Any], Arrays]:
    """The `results` of a training step: the loss of the first step, and of some more."""
    return lambda first: {"losses": np.array([float(first), *(float(run()) for _ in range(N_CHECKED_STEPS - 1))])}


def backend(name: str) -> Contestant:
    """A backend of elman as a contestant.

    Examples
    --------
    >>> from elman.benchmark.workloads import Shape, Workload
    >>> case = Case.of(Workload(Shape(7, 5, 3, 11)))
    >>> program = backend("numpy").prepare(case, 1)
    >>> case.complaint(program.results(program.run())) is None
    True
    """

    def prepare(case: Case, n_threads: int) -> Program:
        elman.set_num_threads(n_threads)
        return elman_program(case, name)

    return Contestant(name, ("numpy", "numba") if name == "numba" else ("numpy",), prepare)


def elman_program(case: Case, backend: str, dtype: str | None = None) -> Program:
    """The case through elman's public API, in the case's dtype or another one."""
    options = {**case.work.options, "backend": backend, "dtype": dtype or case.work.dtype}
    if case.work.is_training:
        return _training(case, options)
    rnn = elman.RNN(case.work.shape.n_inputs, case.work.shape.n_units, **options)
    rnn.load_state_dict(case.parameters)
    x, d_y = case.x.astype(rnn.dtype), None if case.d_y is None else case.d_y.astype(rnn.dtype)
    if case.work.what == "forward":
        return Program(lambda: rnn(x), lambda found: {"y": found[0], "h_n": found[1]})

    has_d_x = case.work.what == "both-dx"

    def run() -> Arrays:
        y, h_n, pullback = rnn.vjp(x)
        d_x, _, gradients = pullback(d_y, input_grad=has_d_x)
        return {"y": y, "h_n": h_n, **gradients, **({"d_x": d_x} if has_d_x else {})}

    return Program(run, lambda found: found)


def _training(case: Case, options: dict[str, Any]) -> Program:
    n_tokens, what = case.work.shape.n_inputs, case.work.what
    model = elman.SequenceModel(
        elman.Tokens(n_tokens), elman.Categories(n_tokens), hidden_size=case.work.shape.n_units, **options
    )
    for name, array in model.parameters().items():
        array[...] = case.parameters[name]
    optimizer = (elman.Adam if what == "train" else elman.SGD)(LEARNING_RATE[what])
    clip_norm = CLIP_NORM if what == "train" else None

    def run() -> float:
        return model.train_step(case.x, case.target, optimizer=optimizer, clip_norm=clip_norm)

    return Program(run, losses(run))
