"""What a training step takes on several ranks of MPI, and what one sends: `mpiexec -n 2 python bench/ranks.py`.

Arguments are shapes T,B,V,H. A single rank says beside it what one process takes without `comm`, on one thread and all.
"""

import statistics
import sys
import time

import numpy as np
from mpi4py import MPI

import elman
from elman.training.ranks import Ranks, Sums

SHAPES = ["50,64,65,64", "50,64,65,128", "50,64,65,256", "50,64,65,512", "50,64,65,1024"]
STEPS, EPOCHS = 5, 7
THREADS = elman.get_num_threads()
comm = MPI.COMM_WORLD


def milliseconds(model: elman.SequenceModel, X: np.ndarray, batch_size: int, comm: MPI.Comm | None) -> float:
    """The median over epochs of a step's."""
    ends = [time.perf_counter()]
    given = {"epochs": EPOCHS, "batch_size": batch_size, "progress": False, "comm": comm}
    model.fit(X, X, callbacks=[lambda _: ends.append(time.perf_counter())], **given)
    return 1000 * statistics.median(np.diff(ends)[1:]) / STEPS if len(ends) > 1 else 0.0


def exchange(n: int) -> tuple[float, float]:
    """Of gradients (n,): milliseconds, and what a rank sends, in MB."""
    ranks, took = Ranks(comm, 8), []
    for _ in range(20):
        sums = Sums()
        for shard in ranks.own:
            sums.add(shard, np.ones(n, np.float32))
        comm.Barrier()
        start = time.perf_counter()
        ranks.summed([0.0] * len(ranks.own), sums)
        took.append(time.perf_counter() - start)
    return 1000 * statistics.median(took), 4e-6 * n * (comm.size - 1) / comm.size * (len(sums.nodes) + 1)


for shape in sys.argv[1:] or SHAPES:
    n_steps, batch_size, n_tokens, n_units = map(int, shape.split(","))
    X = np.random.default_rng(0).integers(n_tokens, size=(STEPS * batch_size, n_steps))
    model = elman.SequenceModel(elman.Tokens(n_tokens), elman.Categories(n_tokens), hidden_size=n_units, seed=0)
    elman.set_num_threads(1)
    on_ranks = milliseconds(model, X, batch_size, comm)
    took, sent = exchange(sum(array.size for array in model.parameters().values()))
    alone = ""
    if comm.size == 1:
        one, both = [(elman.set_num_threads(n), milliseconds(model, X, batch_size, None))[1] for n in (1, THREADS)]
        alone = f"; without comm {one:.2f} on one thread, {both:.2f} on {THREADS}"
    if comm.rank == 0:
        print(
            f"{shape:18} {comm.size} ranks {on_ranks:8.2f} ms a step, {took:.2f} for {sent:.2f} MB{alone}", flush=True
        )
