"""Ranks that are threads of one process: a communicator with what `fit` asks of mpi4py's."""

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class Comm:
    """One rank's side; `world` is what all have in common: a barrier, and a place for what each sends."""

    def __init__(self, rank: int, world: tuple[threading.Barrier, list[Any]]) -> None:
        self.rank, (self._barrier, self._sent) = rank, world

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self._sent)

    def Is_inter(self) -> bool:
        return False

    def allgather(self, value: Any) -> list[Any]:
        self._sent[self.rank] = pickle.dumps(value)
        self._barrier.wait(30)
        received = [pickle.loads(sent) for sent in self._sent]
        self._barrier.wait(30)
        return received

    def bcast(self, value: Any, root: int = 0) -> Any:
        return self.allgather(value if self.rank == root else None)[root]

    def Allgather(self, sent: Any, received: Any) -> None:
        received[...] = self.allgather(sent)

    def Allgatherv(self, sent: Any, received: Any) -> None:
        array, counts = received
        parts = self.allgather(sent)
        assert [*map(len, parts)] == [*counts]
        array[...] = np.concatenate(parts)

    def Alltoallv(self, sent: Any, received: Any) -> None:
        (own, own_counts), (array, counts) = sent, received
        parts = [part[self.rank] for part in self.allgather(np.split(own, np.cumsum(own_counts)[:-1]))]
        assert [*map(len, parts)] == [*counts]
        array[...] = np.concatenate(parts)


def on_ranks(n: int, function: Callable[[Comm], Any]) -> list[Any]:
    """What a function returns on each rank, or the error that it ends with there."""
    world = threading.Barrier(n), [None] * n
    results: list[Any] = [None] * n

    def run(rank: int) -> None:
        try:
            results[rank] = function(Comm(rank, world))
        except BaseException as error:  # a KeyboardInterrupt as well
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
