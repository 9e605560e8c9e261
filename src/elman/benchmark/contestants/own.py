"""elman's own backends as contestants."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import elman
from elman.benchmark import workloads
from elman.benchmark.program import Contestant, Program, by_steps, losses, only_possible_steps
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
    work = case.work
    only_possible_steps(case)
    dropout = {"dropout": work.dropout, "recurrent_dropout": work.dropout}
    dynamics = {"leak": work.leak, "noise": work.noise}
    options = {**work.options, **dropout, **dynamics, "backend": name, "dtype": dtype or work.dtype}
    if work.is_model:
        return _OF_MODELS[work.what](case, options)
    rnn = elman.RNN(work.shape.n_inputs, work.shape.n_units, **options)
    rnn.load_state_dict(case.parameters)
    x, d_y = case.x.astype(rnn.dtype), None if case.d_y is None else case.d_y.astype(rnn.dtype)
    if work.what == "forward":
        return Program(lambda: rnn(x), lambda found: {"y": found[0], "h_n": found[1]})
    if work.what == "step":
        return Program(lambda: by_steps(rnn.step, x, None), lambda found: {"y": np.stack(found[0]), "h_n": found[1]})

    has_d_x = work.what == "both-dx"

    def run() -> Arrays:
        y, h_n, pullback = rnn.vjp(x)
        d_x, _, gradients = pullback(d_y, input_grad=has_d_x)
        return {"y": y, "h_n": h_n, **gradients, **({"d_x": d_x} if has_d_x else {})}

    return Program(run, lambda found: found)


def _model(case: Case, options: dict[str, Any], seed: int = 0) -> elman.SequenceModel:
    """A model with the parameters of the case; the seed is that of its dropout and noise."""
    model = elman.SequenceModel(*case.work.kinds, hidden_size=case.work.shape.n_units, seed=seed, **options)
    for name, array in model.parameters().items():
        array[...] = case.parameters[name]
    return model


def _training(case: Case, options: dict[str, Any]) -> Program:
    work, run = case.work, _update(case, options)
    without: dict[str, dict[str, float]] = {}
    if work.dropout:
        without["dropout"] = {"dropout": 0.0, "recurrent_dropout": 0.0}
    if work.noise:
        without["noise"] = {"noise": 0.0}
    if work.leak < 1:
        without["leak and noise" if work.noise else "leak"] = {"leak": 1.0, "noise": 0.0}
    beside = {f"without {name}": _update(case, options | changes) for name, changes in without.items()}
    return Program(run, losses(run), beside)


def _update(case: Case, options: dict[str, Any]) -> Callable[[], float]:
    """A training step, from which its loss comes."""
    model, what = _model(case, options), case.work.what
    optimizer = (elman.SGD if what == "train-sgd" else elman.Adam)(LEARNING_RATE[what])
    clip_norm = CLIP_NORM if what == "train" else None
    return lambda: model.train_step(case.x, case.target, optimizer=optimizer, clip_norm=clip_norm)


def _loss(case: Case, options: dict[str, Any]) -> Program:
    model = _model(case, options)
    run = functools.partial(model.loss, case.x, case.target)
    return Program(run, losses(run))


def _stream(case: Case, options: dict[str, Any]) -> Program:
    stream = _model(case, options).stream(case.work.shape.n_rows)
    chunks = [*case.x[:, None]]
    return Program(
        lambda: [stream.predict(chunk) for chunk in chunks],
        lambda found: {"y": np.concatenate(found), "h_n": stream.state.copy()},
    )


def _generate(case: Case, options: dict[str, Any]) -> Program:
    model, starts, length = _model(case, options), case.x[0].tolist(), case.work.shape.n_steps
    return Program(
        lambda: [model.generate(start, length, seed=0) for start in starts], lambda found: {"y": np.stack(found)}
    )


def _many(case: Case, options: dict[str, Any]) -> Program:
    models = [_model(case, options, seed) for seed in range(case.work.models)]
    optimizers = [elman.Adam(LEARNING_RATE["fit-many"]) for _ in models]
    settings: dict[str, Any] = {
        "epochs": workloads.N_EPOCHS,
        "batch_size": case.work.shape.n_rows,
        "shuffle": False,
        "progress": False,
    }
    assert case.target is not None
    run = functools.partial(elman.fit_many, models, case.x.T, case.target.T, optimizers=optimizers, **settings)
    n_threads = elman.get_num_threads()

    def on_one_core() -> None:
        elman.set_num_threads(1)
        try:
            run(workers=1)
        finally:
            elman.set_num_threads(n_threads)

    beside = {"on one core": on_one_core} if n_threads > 1 else {}
    return Program(run, lambda found: {"losses": np.array([history["loss"][0] for history in found[:1]])}, beside)


_OF_MODELS = {
    "train": _training,
    "train-sgd": _training,
    "train-rates": _training,
    "loss": _loss,
    "stream": _stream,
    "generate": _generate,
    "fit-many": _many,
}
