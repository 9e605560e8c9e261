"""Many models at once, side by side in processes: threads of one process would wait for one another's Python."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from elman import backends, check, threads
from elman.data.learned import take_over
from elman.interrupts import postponed
from elman.models.base import network_of
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.training.callbacks import Callback, History, Training, as_callbacks
from elman.training.optimizers import Adam, Optimizer

_OF_ONE = {"self", "X", "Y", "optimizer", "checkpoint", "checkpoint_every", "resume"}  # what each model has alone
_OF_ONE |= {"comm", "shards"}  # what one has on many processes


class _Job(NamedTuple):
    model: Any
    optimizer: Optimizer


class _Done(NamedTuple):
    """What `fit` has left of the i-th job, and what ended it before its last epoch, if something did."""

    i: int
    job: _Job
    history: History
    stopped_by: str


_Results = Generator[_Done, None, None]  # in the order in which they are done


class _Keeper(Callback):
    """Holds on to the history, for when there is an error."""

    def __init__(self) -> None:
        self.history = History()

    def on_start(self, training: Training) -> None:
        self.history = training.history


def fit_many(
    models: Iterable[SequenceModel | Seq2Seq],
    X: Any,
    Y: Any = None,
    *,
    optimizers: Iterable[Optimizer] | None = None,
    workers: int | None = None,
    callbacks: Iterable[Any] = (),
    progress: bool = True,
    **options: Any,
) -> list[History]:
    """Train independent models on the same data side by side: other seeds, sizes, learning rates.

    Models, optimizers and histories end as ``model.fit(X, Y, optimizer=optimizer, **options)`` for one after the other
    would leave them, bit for bit.

    Parameters
    ----------
    models : iterable of SequenceModel or Seq2Seq
        They are trained in place.
    X, Y
        As in `SequenceModel.fit`, or `Seq2Seq.fit`, but no function.
    optimizers : iterable of Optimizer, optional
        One for each model; by default an ``Adam(1e-3)``.
    workers : int, optional
        How many processes to use, at most one for each model; by default as many as there are threads
        (`get_num_threads`), which they share out or, within a ``joblib.parallel_config`` of more than one, as many as
        that says. Dask uses all that it has in any case. With 1, or with one model, all happens in this process.
    callbacks : iterable of Callback or functions
        As in `fit`. Each model gets copies of its own, so what they gather stays there.
    progress : bool
        Whether to show how many models are done.
    **options
        The other arguments of `fit`, but `checkpoint`, `checkpoint_every`, `resume`, `comm` and `shards`.

    Returns
    -------
    list of History
        In the order of the models.

    Warns
    -----
    RuntimeWarning
        If the loss of a model or its gradient is not finite: it stops there, and its history has the epochs until
        then. The others go on.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or if something that workers need cannot be pickled, such as a lock; the message
        names it.
    ImportError
        If there are to be workers and there is no joblib, which ``pip install 'elman[many]'`` brings.
    RuntimeError
        If a worker ends too early, for lack of memory, say. Dask and Ray have errors of their own.

    Notes
    -----
    Any other error of a model is raised as it is, with the model's number. In all cases, Ctrl-C among them, workers are
    ended, models that were done are trained, and the others are as they were.

    Workers are joblib's or, within ``joblib.parallel_config(backend="dask")`` or ``"ray"``, a cluster's, which stay,
    whatever happens. From Ray all models come at the end, or none after an error. Data go to each worker once (with
    Ray, once for each model), and what the main script defines along with them, lambdas as well.

    joblib's workers need no ``if __name__ == "__main__":`` in the script. It takes some tenths of a second to start
    them, and keeps them for later calls until they have been idle for five minutes. If this process is killed, without
    a chance to end them, they are left behind.

    Examples
    --------
    >>> import elman
    >>> def make(seed):
    ...     return elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=16, seed=seed)
    >>> X, Y = [[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]
    >>> models, optimizers = [make(seed) for seed in (0, 1, 2)], [elman.Adam(lr) for lr in (0.01, 0.02, 0.04)]
    >>> histories = elman.fit_many(models, X, Y, optimizers=optimizers, workers=1, epochs=20, progress=False)
    >>> [history["loss"][-1] < history["loss"][0] for history in histories]
    [True, True, True]
    """
    if callable(X):
        raise TypeError("X must be data, got a function of batches, which one model would take from another")
    models = _distinct(models, "models", (SequenceModel, Seq2Seq))
    if optimizers is None:
        optimizers = [Adam(1e-3) for _ in models]
    optimizers = _distinct(optimizers, "optimizers", (Optimizer,), n=len(models))
    workers = workers if workers is None else check.positive_int(workers, "workers")
    for model in models:
        _check_options(options, set(inspect.signature(type(model).fit).parameters) - _OF_ONE, "fit_many")
    arguments = {"X": X, "Y": Y, "callbacks": as_callbacks(callbacks, "callbacks"), **options}
    jobs = [_Job(*pair) for pair in zip(models, optimizers, strict=True)]
    is_alone = workers == 1 or len(jobs) == 1 or (workers is None and _default_workers() == 1)
    results = _one_by_one(jobs, arguments) if is_alone else _side_by_side(jobs, arguments, workers)
    histories = [History() for _ in jobs]
    with _progress_bar(len(jobs), show=check.flag(progress, "progress")) as bar, contextlib.closing(results):
        for i, trained, histories[i], stopped_by in results:
            if stopped_by:
                warnings.warn(f"models[{i}]: {stopped_by}", RuntimeWarning, stacklevel=2)
            with postponed():  # a model is taken over whole, or not at all
                _take_over(jobs[i], trained)
            bar.update()
    return histories


def _fit(i: int, job: _Job, arguments: Mapping[str, Any]) -> _Done:
    kept, stopped_by = _Keeper(), ""
    own = dict(arguments, callbacks=[kept, *copy.deepcopy(arguments["callbacks"])])
    try:
        job.model.fit(**own, optimizer=job.optimizer, progress=False)
    except FloatingPointError as error:
        stopped_by = str(error)
    except Exception as error:
        error.args = (f"models[{i}]: {error}", *error.args[1:])
        raise
    return _Done(i, job, kept.history, stopped_by)


def _take_over(job: _Job, trained: _Job) -> None:
    """Bring the caller's model and optimizer to where their copies are."""
    network, other_network = network_of(job.model), network_of(trained.model)
    network.parameters.flat[:] = other_network.parameters.flat
    for generator, other in zip(network.generators(), other_network.generators(), strict=True):
        generator.bit_generator.state = other.bit_generator.state
    take_over(job.model.inputs, trained.model.inputs)
    take_over(job.model.outputs, trained.model.outputs)
    vars(job.optimizer).update(vars(trained.optimizer))


def _one_by_one(jobs: list[_Job], arguments: Mapping[str, Any]) -> _Results:
    for i, job in enumerate(jobs):
        yield _fit(i, copy.deepcopy(job), arguments)


def _default_workers() -> int:
    """What joblib has been told of, if that is more than one; the number of threads."""
    n_threads = threads.get_num_threads()
    if n_threads == 1 and "joblib" not in sys.modules:  # then nobody has told it of anything
        return 1
    n_jobs: int = _joblib().effective_n_jobs(None)
    return n_jobs if n_jobs > 1 else n_threads


def _side_by_side(jobs: list[_Job], arguments: Mapping[str, Any], workers: int | None) -> _Results:
    """By joblib: in its own processes, or in those of the cluster that it has been told of."""
    joblib = _joblib()
    if workers is None:
        workers = _default_workers()
    workers = min(len(jobs), joblib.effective_n_jobs(workers))  # of Dask it is all, whatever it is asked
    how = backends.current(), max(1, threads.get_num_threads() // workers)
    # Arrays of bytes: large ones go to each worker once, as files in memory, or as Dask scatters them.
    common = {name: np.frombuffer(_pickled(value, name), np.uint8) for name, value in arguments.items()}
    pickled = [_pickled(job, f"models[{i}]") for i, job in enumerate(jobs)]
    here, _ = joblib.parallel.get_active_backend()
    comes_singly = getattr(here, "supports_return_generator", False)  # from Ray all comes at the end
    return_as = "generator_unordered" if comes_singly else "list"
    parallel = joblib.Parallel(n_jobs=workers, batch_size=1, return_as=return_as)
    results = iter(parallel(joblib.delayed(_work)(i, job, *how, **common) for i, job in enumerate(pickled)))
    try:
        for done in results:  # noqa: UP028 (`yield from` would close them before the lines below)
            yield done
    finally:
        with postponed(), warnings.catch_warnings():  # a second Ctrl-C leaves no worker behind
            warnings.simplefilter("ignore")  # joblib's, of results that nobody waits for any more
            if comes_singly:
                results.close()


def _work(i: int, job: bytes, backend: str, n_threads: int, /, **common: Any) -> _Done:
    """What a worker does for a model. Nothing of it stays in the process, which others use as well."""
    unpickled = pickle.loads(job)
    for rnn in network_of(unpickled.model).rnns:
        rnn.backend = rnn.backend or backend
        backends.get(rnn.backend)  # with the threads, which can be bound from then on
    threads.bound_threads(n_threads)
    try:
        return _fit(i, unpickled, {name: pickle.loads(value) for name, value in common.items()})
    finally:
        threads.bound_threads(0)


def _joblib() -> Any:
    try:
        import cloudpickle  # noqa: F401
        import joblib  # only here: `import elman` does without it
    except ImportError as error:
        raise ImportError("fit_many needs joblib, unless workers=1: pip install 'elman[many]'") from error
    return joblib


def _progress_bar(n: int, *, show: bool) -> Any:
    from tqdm import tqdm  # only here: `import elman` does without it

    return tqdm(total=n, unit="model", disable=not show)


def _distinct(value: Any, name: str, kinds: tuple[type[Any], ...], n: int | None = None) -> list[Any]:
    """A list of instances, none of them twice: n of them, or at least one."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list, got {check.shown(value)}")
    items = list(value)
    if not items if n is None else len(items) != n:
        raise ValueError(
            f"{name} must hold {'at least one' if n is None else f'one for each of the {n} models'}, got {len(items)}"
        )
    for i, item in enumerate(items):
        check.kind(item, f"{name}[{i}]", kinds)
        if any(item is other for other in items[:i]):
            raise ValueError(f"{name} must be distinct, got the same object at [{i}] as before")
    return items


def _check_options(given: Iterable[str], names: Iterable[str], function: str) -> None:
    """Keyword arguments that are handed on."""
    names = set(names)
    for name in given:
        if name not in names:
            raise TypeError(f"{function} got an unexpected argument {name!r}; it takes {check.listed(sorted(names))}")


def _pickled(value: Any, name: str) -> bytes:
    """What goes to another process, with what the main script defines, which is not imported there."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # PicklingError, AttributeError, TypeError, or whatever a stranger's class raises
        raise TypeError(
            f"{name} must be picklable, as it goes to other processes (with workers=1 it need not be): {error}"
        ) from error
