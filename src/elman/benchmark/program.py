"""The form that contestants have: from a case and a number of threads to a program that can be run again and again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from elman.benchmark.workloads import N_CHECKED_STEPS, Arrays, Case


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


def only_passes(name: str, case: Case) -> None:
    if case.work.is_training:
        raise Unsupported(f"training steps are compared with PyTorch's and with a script, not with {name}'s")


def only_one_layer(name: str, case: Case) -> None:
    if case.work.num_layers > 1 or case.work.bidirectional:
        raise Unsupported(f"one layer in one direction is what {name} is asked for")
