"""Processes that train one model together: what they tell each other, and sums that do not depend on their number.

A batch is cut into shards, and a rank has some neighbouring ones. Sums over shards follow one binary tree, whoever
computes its nodes: so the bits of a run are the same for any number of ranks.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.interrupts import postponed
from elman.typing import Real

_METHODS = "Get_rank", "Get_size", "Allgather", "Allgatherv", "Alltoallv", "allgather", "bcast"
_ROOTS_ALONE = {"validation_data": None, "metrics": None, "callbacks": (), "progress": False}
_ROOTS_ALONE |= {"checkpoint": None, "checkpoint_every": None, "resume": False}
_MOST_NUMBERS = 3  # that a shard has in an exchange
_ABOUT = "end", "settings", "run", "batch", "window", "losses", "states", "parameters", "callbacks"
_number_of_parts = check.integers(1, 2**16 - 1, "a positive int")  # of a batch, each of which takes some memory
_LEAVES = 0.0  # in the place of what an exchange is about


@contextlib.contextmanager
def joined(given: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Ranks | None]]:
    """The arguments of `fit` as they are for this process, and the ranks that it is one of; None without `comm`.

    An error in one process ends all.
    """
    if given["comm"] is None:
        check.positive_int(given["shards"], "shards")
        n_parts = _number_of_parts(given["accumulate"], "accumulate")
        yield given, None if n_parts == 1 else Ranks(_Alone(), n_parts)
        return
    ranks = None
    try:
        with postponed():
            ranks = Ranks(given["comm"], given["shards"])
        if given["accumulate"] != 1:
            check.refuse(
                "accumulate must be 1 with comm, whose ranks go through their shards in turn: give a larger batch_size "
                f"and more shards; got {check.shown(given['accumulate'])}"
            )
        own = {} if ranks.is_root else _ROOTS_ALONE
        yield {**given, **own, "shards": ranks.n_shards}, ranks
        ranks.end()
    except BaseException as error:
        if ranks is not None:
            ranks.leave(error)
        raise


class Ranks:
    """A communicator of mpi4py, and the shards of each rank.

    Every exchange begins with what it is about and whether a rank leaves with an error, so that none waits in vain.
    """

    def __init__(self, comm: Any, shards: Any) -> None:
        if not _is_communicator(comm):
            raise TypeError(
                f"comm must be an intracommunicator of mpi4py, such as MPI.COMM_WORLD, got {check.shown(comm)}"
            )
        self._comm, self.rank, n_ranks = comm, comm.Get_rank(), comm.Get_size()
        of_ranks = comm.allgather(int(shards) if check.is_int(shards) else 0)  # so that what is wrong is so on all
        check.positive_int(shards, "shards")
        if len(set(of_ranks)) > 1:
            raise ValueError(f"shards must be the same on all ranks, got {of_ranks}")
        self.n_shards = n_shards = of_ranks[0]
        if n_ranks > n_shards:
            raise ValueError(f"comm must have no more ranks than there are shards, {n_shards}, got {n_ranks}")
        bounds = [rank * n_shards // n_ranks for rank in range(n_ranks + 1)]
        self._shards = [range(*pair) for pair in itertools.pairwise(bounds)]
        self.own = self._shards[self.rank]
        self._is_told, self._has_ended = False, False  # of an error; well

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return bool(self.rank == 0)

    def gathered(self, what: str, values: Sequence[Sequence[float]] = ()) -> NDArray[np.float64]:
        """Up to three numbers of each shard, (shards, 3), given those of the own ones."""
        with postponed():
            return self._gathered(what, values)

    def shared(self, what: str, value: Any) -> Any:
        """What rank 0 gives."""
        if len(self._shards) == 1:
            return value
        pickled = pickle.dumps(value) if self.is_root else b""  # or an error, before others wait for it
        with postponed():
            self._gathered(what)
            pickled = self._comm.bcast(pickled)
        return value if self.is_root else pickle.loads(pickled)

    def listed(self, what: str, values: Sequence[Any]) -> list[Any]:
        """An item of each shard, given those of the own ones."""
        with postponed():
            self._gathered(what)
            return [item for items in self._comm.allgather(values) for item in items]

    def summed(self, losses: Sequence[float], sums: Sums) -> tuple[NDArray[np.float64], Real]:
        """The loss of each shard, and the sum of all shards' gradients, which is each rank's for a part of it.

        A rank sends the others what it has of their parts, (ranks − 1) / ranks of a gradient for each node of the
        tree, and its own part of the sum.
        """
        of_own, n_ranks = [[loss] for loss in losses], len(self._shards)
        if n_ranks == 1:
            return self.gathered("losses", of_own)[:, 0], sums.total()
        total, nodes = np.empty_like(sums.nodes[0].array), [*itertools.chain(*map(_nodes, self._shards))]
        bounds = [len(total) * rank // n_ranks for rank in range(n_ranks + 1)]
        sizes, counts = np.diff(bounds), np.array([len(_nodes(shards)) for shards in self._shards])
        sent = np.concatenate([node.array[slice(*pair)] for pair in itertools.pairwise(bounds) for node in sums.nodes])
        received = np.empty((len(nodes), sizes[self.rank]), sent.dtype)
        part = Sums()
        with postponed():  # with nothing in it that may fail in one rank alone
            found = self._gathered("losses", of_own)[:, 0]
            flat = received.reshape(-1)
            self._comm.Alltoallv([sent, sizes * len(sums.nodes)], [flat, counts * sizes[self.rank]])
            for (start, size), array in zip(nodes, received, strict=True):
                part.add(start, array, size)
            self._comm.Allgatherv(part.total(), [total, sizes])
        return found, total

    def end(self) -> None:
        """Be sure that none has an error any more."""
        with postponed():
            self._gathered("end")
            self._has_ended = True

    def leave(self, error: BaseException) -> None:
        """Tell the others of an error, unless they know; and wait until rank 0 has saved what it saves then."""
        if self._has_ended:
            return
        with postponed():
            if not self._is_told:
                with contextlib.suppress(RuntimeError):
                    self._exchanged(_LEAVES, (), error)
            self._comm.allgather(None)

    def _gathered(self, what: str, values: Sequence[Sequence[float]] = ()) -> NDArray[np.float64]:
        return self._exchanged(1.0 + _ABOUT.index(what), values)

    def _exchanged(
        self, about: float, values: Sequence[Sequence[float]], error: BaseException | None = None
    ) -> NDArray[np.float64]:
        most = max(map(len, self._shards))
        sent, received = np.zeros(1 + most * _MOST_NUMBERS), np.empty((len(self._shards), 1 + most * _MOST_NUMBERS))
        sent[0] = about
        for place, numbers in zip(sent[1:].reshape(most, _MOST_NUMBERS), values, strict=False):
            place[: len(numbers)] = numbers
        self._comm.Allgather(sent, received)
        leaving = np.flatnonzero(received[:, 0] == _LEAVES).tolist()
        if leaving:
            self._is_told = True
            told = None if error is None else (isinstance(error, KeyboardInterrupt), _text(error))
            is_interrupt, text = self._comm.bcast(told, root=leaving[0])
            if error is None and is_interrupt:
                raise KeyboardInterrupt
            raise RuntimeError(f"training has ended, as rank {leaving[0]} did, with {text}")
        if (received[:, 0] != about).any():
            self._is_told = True
            raise RuntimeError("comm must have the same calls, and as many batches, on all ranks: they have come apart")
        by_rank = received[:, 1:].reshape(len(self._shards), most, _MOST_NUMBERS)
        return np.concatenate([own[: len(shards)] for own, shards in zip(by_rank, self._shards, strict=True)])


def _is_communicator(value: Any) -> bool:
    if not all(callable(getattr(value, name, None)) for name in _METHODS):
        return False
    try:
        return not value.Is_inter()
    except Exception:  # of mpi4py, where it is none any more
        return False


def _text(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # of a stranger's class
        return name


class _Alone:
    """The communicator of one process, which has all shards."""

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def Is_inter(self) -> bool:
        return False

    def Allgather(self, sent: Real, received: Real) -> None:
        received[0] = sent

    def allgather(self, value: Any) -> list[Any]:
        return [value]

    def bcast(self, value: Any, root: int = 0) -> Any:  # noqa: ARG002
        return value

    Allgatherv = Alltoallv = allgather  # never called


class _Node:
    def __init__(self, start: int, size: int, array: Real) -> None:
        self.start, self.size, self.array = start, size, array


class Sums:
    """Sums over neighbouring shards: nodes of the binary tree over all of them, as large as possible."""

    def __init__(self) -> None:
        self.nodes: list[_Node] = []

    def add(self, start: int, array: Real, size: int = 1) -> None:
        """That of the shards behind those that are there; the array is taken over."""
        self.nodes.append(_Node(start, size, array))
        while len(self.nodes) > 1 and _are_siblings(*self.nodes[-2:]):
            self._merge()

    def total(self) -> Real:
        """Of all: where their number is no power of two, the last ones are added up first."""
        while len(self.nodes) > 1:
            self._merge()
        return self.nodes[0].array

    def _merge(self) -> None:
        last = self.nodes.pop()
        with np.errstate(all="ignore"):  # the update says if they are not finite
            self.nodes[-1].array += last.array
        self.nodes[-1].size += last.size


def _are_siblings(one: _Node, other: _Node) -> bool:
    return one.size == other.size and one.start % (2 * one.size) == 0


def _nodes(shards: range) -> list[tuple[int, int]]:
    """Start and size of each node that `Sums` has of such shards."""
    sums = Sums()
    for shard in shards:
        sums.add(shard, np.zeros(0))
    return [(node.start, node.size) for node in sums.nodes]
