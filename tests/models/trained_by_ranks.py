"""What mpiexec runs for test_mpi.py: python -m tests.models.trained_by_ranks WHAT FOLDER."""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI

from .test_ranks import CASES, X, Y, ended, make

comm = MPI.COMM_WORLD
what, folder = sys.argv[1], Path(sys.argv[2])


def trained(name: str, model: Any, *data: Any, **given: Any) -> None:
    history = model.fit(*data, **{"epochs": 2, "batch_size": 8, "progress": False, **given}, comm=comm)
    ends = comm.allgather(hashlib.sha256(repr(ended(model, history)).encode()).hexdigest())
    assert len(set(ends)) == 1, name
    if comm.rank == 0:
        print(name, ends[0], flush=True)


def slowly(training: Any) -> None:
    print("epoch", training.epoch, flush=True)
    time.sleep(0.2)


def dies(training: Any) -> None:
    if training.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)


if what == "cases":
    for name, (make_model, options, data, given) in CASES.items():
        trained(name, make_model(**options), *data, **given)
elif what == "dies":
    trained(what, make(), X, Y, epochs=10**6, callbacks=[dies])
elif what == "fails":
    trained(what, make(), X, Y if comm.rank == 0 else [[9] * len(x) for x in X])
else:
    callbacks = [slowly] if what == "slow" else []
    options: dict[str, Any] = {"epochs": 20, "checkpoint": folder / "run", "resume": True, "callbacks": callbacks}
    trained("run", make(recurrent_dropout=0.2), X, Y, **options)
