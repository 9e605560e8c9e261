"""elman's own backends as contestants."""

from typing import Any

import elman
from elman.benchmark.program import Contestant, Program, losses
from elman.benchmark.workloads import CLIP_NORM, LEARNING_RATE, Arrays, Case


def backend(name: str) -> Contestant:
    """A backend of elman as a contestant.

    Examples
    --------
    >>> from elman.benchmark.workloads import Shape, Workload
    >>> case = Case.of(Workload(Shape(7, 5, 3, 11)))
    >>> program = backend("numpy").prepare(case, 1)
    >>> sorted(program.results(program.run()))
    ['bias_l0', 'h_n', 'weight_hh_l0', 'weight_ih_l0', 'y']
    """

    def prepare(case: Case, n_threads: int) -> Program:
        elman.set_num_threads(n_threads)
        return program(case, name)

    return Contestant(name, ("numpy", "numba") if name == "numba" else ("numpy",), prepare)


def program(case: Case, name: str, dtype: str | None = None) -> Program:
    """The case through elman's public API, in the case's dtype or another one."""
    options = {**case.work.options, "backend": name, "dtype": dtype or case.work.dtype}
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
    kinds = elman.Tokens(n_tokens), elman.Categories(n_tokens)
    model = elman.SequenceModel(*kinds, hidden_size=case.work.shape.n_units, **options)
    for name, array in model.parameters().items():
        array[...] = case.parameters[name]
    optimizer = (elman.Adam if what == "train" else elman.SGD)(LEARNING_RATE[what])
    clip_norm = CLIP_NORM if what == "train" else None

    def run() -> float:
        return model.train_step(case.x, case.target, optimizer=optimizer, clip_norm=clip_norm)

    return Program(run, losses(run))
