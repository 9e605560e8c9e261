"""Many models at once, side by side in processes: threads of one process would wait for one another's Python."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple

from elman import backends, check, threads
from elman.interrupts import postponed
from elman.models.base import network_of
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.training.callbacks import Callback, History, Training, as_callbacks
from elman.training.optimizers import Adam, Optimizer

_NOT_SHARED = ("self", "X", "Y", "optimizer", "checkpoint", "checkpoint_every", "resume")  # what each model has alone


class _Job(NamedTuple):
    model: Any
    optimizer: Optimizer


class _Done(NamedTuple):
    """A job's model and optimizer as `fit` left them, also where it came to an error."""

    job: _Job
    history: History
    error: Exception | None


_Results = Generator[tuple[int, _Done], None, None]  # with the jobs' numbers


class _Keeper(Callback):
    """Holds on to the history, for when there is an error."""

    history = History()

    def on_start(self, training: Training) -> None:
        self.history = training.history


def fit_many(
    models: Iterable[SequenceModel | Seq2Seq],
    X: Any,
    Y: Any,
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
        As in `SequenceModel.fit`, or `Seq2Seq.fit`.
    optimizers : iterable of Optimizer, optional
        One for each model; by default an ``Adam(1e-3)``.
    workers : int, optional
        How many processes to start, at most one for each model; by default as many as there are threads
        (`get_num_threads`), which they share out. With 1, or with one model, all happens in this process.
    callbacks : iterable of Callback or functions
        As in `fit`. Each model gets copies of its own, so what they gather stays there.
    progress : bool
        Whether to show how many models are done.
    **options
        The other arguments of `fit`, but `checkpoint`, `checkpoint_every` and `resume`.

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
        If an argument does not fit, or if something that workers need cannot be pickled, such as a lambda; the message
        names it.
    RuntimeError
        If a worker ends too early, for lack of memory, say.

    Notes
    -----
    Any other error of a model is raised as it is, with the model's number. In all cases, Ctrl-C among them, workers are
    ended, models that were done are trained, and the others are as they were.

    A worker is a new Python, which imports the main script first (as `multiprocessing` has it with "spawn"). So in a
    script, what starts the training belongs under ``if __name__ == "__main__":``, and functions that are passed on, at
    the top level. Each call takes some tenths of a second to start them.

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
    models = _distinct(models, "models", (SequenceModel, Seq2Seq))
    if optimizers is None:
        optimizers = [Adam(1e-3) for _ in models]
    optimizers = _distinct(optimizers, "optimizers", (Optimizer,), n=len(models))
    n_threads = threads.get_num_threads()
    workers = min(len(models), n_threads if workers is None else check.positive_int(workers, "workers"))
    for model in models:
        _check_options(options, set(inspect.signature(type(model).fit).parameters) - set(_NOT_SHARED), "fit_many")
    arguments = {"X": X, "Y": Y, "callbacks": as_callbacks(callbacks, "callbacks"), **options}
    jobs = [_Job(*pair) for pair in zip(models, optimizers, strict=True)]
    if workers == 1:
        results: _Results = _one_by_one(jobs, arguments)
    else:
        results = _side_by_side(jobs, arguments, workers, max(1, n_threads // workers))
    histories = [History() for _ in jobs]
    with _progress_bar(len(jobs), show=check.flag(progress, "progress")) as bar, contextlib.closing(results):
        for i, done in results:
            if isinstance(done.error, FloatingPointError):
                warnings.warn(f"models[{i}]: {done.error}", RuntimeWarning, stacklevel=2)
            elif done.error is not None:
                done.error.args = (f"models[{i}]: {done.error}", *done.error.args[1:])
                raise done.error
            _take_over(jobs[i], done.job)
            histories[i] = done.history
            bar.update()
    return histories


def _fit(job: _Job, arguments: Mapping[str, Any]) -> _Done:
    kept, error = _Keeper(), None
    own = dict(arguments, callbacks=[kept, *copy.deepcopy(arguments["callbacks"])])
    try:
        job.model.fit(**own, optimizer=job.optimizer, progress=False)
    except Exception as raised:
        error = raised
    return _Done(job, kept.history, error)


def _take_over(job: _Job, trained: _Job) -> None:
    """Bring the caller's model and optimizer to where their copies are."""
    network, other_network = network_of(job.model), network_of(trained.model)
    network.parameters.flat[:] = other_network.parameters.flat
    for generator, other in zip(network.generators(), other_network.generators(), strict=True):
        generator.bit_generator.state = other.bit_generator.state
    vars(job.optimizer).update(vars(trained.optimizer))


def _one_by_one(jobs: list[_Job], arguments: Mapping[str, Any]) -> _Results:
    for i, job in enumerate(jobs):
        yield i, _fit(copy.deepcopy(job), arguments)


def _side_by_side(jobs: list[_Job], arguments: Mapping[str, Any], workers: int, n_threads: int) -> _Results:
    """Jobs in the order in which they are done. Workers get the data once, and then one job after the other."""
    import multiprocessing  # only here: `import elman` does without it
    from multiprocessing.connection import wait

    shared = {name: _pickled(value, name) for name, value in arguments.items()}
    todo = [(i, _pickled(job, f"models[{i}]")) for i, job in enumerate(jobs)][::-1]
    context = multiprocessing.get_context("spawn")  # a fork beside running threads would not be safe
    current: dict[Any, int] = {}  # connections to workers at work, with the number of the job
    processes = []
    try:
        for _ in range(workers):
            connection, its_end = context.Pipe()
            process = context.Process(target=_work, args=(its_end, backends.current(), n_threads), daemon=True)
            process.start()
            its_end.close()
            processes.append(process)
            current[connection] = -1
        for connection in current:
            connection.send(shared)
            current[connection] = _hand_out(connection, todo)
        while current:
            for connection in wait(list(current)):  # type: ignore[assignment]
                yield current.pop(connection), connection.recv()
                if todo:
                    current[connection] = _hand_out(connection, todo)
                else:
                    connection.close()
    except (EOFError, OSError) as error:
        raise RuntimeError(
            "a worker of fit_many has ended too early. Its own message, if there is one, is above. In a script, what "
            'starts the training belongs under `if __name__ == "__main__":`'
        ) from error
    finally:
        with postponed():  # a second Ctrl-C leaves no worker behind
            for process in processes:
                process.terminate()
                process.join()
            for connection in current:
                connection.close()


def _hand_out(connection: Any, todo: list[tuple[int, bytes]]) -> int:
    i, job = todo.pop()
    connection.send_bytes(job)
    return i


def _work(connection: Any, backend: str, n_threads: int) -> None:
    """What a worker does, until nobody listens any more."""
    from tqdm import tqdm

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which would outlive an ended process
    threads.set_num_threads(n_threads)
    backends.use_backend(backend)
    with contextlib.suppress(EOFError, OSError):
        arguments = {name: pickle.loads(value) for name, value in connection.recv().items()}
        while True:
            done = _fit(pickle.loads(connection.recv_bytes()), arguments)
            if done.error is not None:
                done.error.add_note("In a worker:\n" + "".join(traceback.format_exception(done.error)))
            connection.send(done)


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
    """What goes to another process."""
    try:
        return pickle.dumps(value)
    except Exception as error:  # PicklingError, AttributeError, TypeError, or whatever a stranger's class raises
        raise TypeError(
            f"{name} must be picklable, as it goes to other processes (with workers=1 it need not be): {error}"
        ) from error
