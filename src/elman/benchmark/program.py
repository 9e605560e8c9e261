"""The form that contestants have: from a case and a number of threads to a program that can be run again and again."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from elman.benchmark.workloads import N_CHECKED_STEPS, Arrays, Case


class Unsupported(Exception):
    """Raised by a contestant that cannot compute a case; the message says what it lacks."""


class Program(NamedTuple):
    """A case, ready to be computed again and again."""

    run: Callable[[], Any]  # what is timed: returns when the results are there
    results: Callable[[Any], Arrays]  # from what `run` returned to arrays; names and shapes are those of elman
    beside: Mapping[str, Callable[[], Any]] = MappingProxyType({})  # what else of it is timed in the same rounds


class Contestant(NamedTuple):
    """A backend of elman, or a peer."""

    name: str
    packages: tuple[str, ...]  # that it imports, under the names that `pip install` knows
    prepare: Callable[[Case, int], Program]  # the second argument is the number of threads


def losses(run: Callable[[], Any]) -> Callable[[Any], Arrays]:
    """The `results` of a training step: the loss of the first step, and of some more."""
    return lambda first: {"losses": np.array([float(first), *(float(run()) for _ in range(N_CHECKED_STEPS - 1))])}


def by_steps(step: Callable[[Any, Any], tuple[Any, Any]], x: Iterable[Any], h: Any) -> tuple[list[Any], Any]:
    """The outputs of one call after the other, each with the state that the one before leaves; and the last state."""
    outputs = []
    for x_t in x:
        y_t, h = step(x_t, h)
        outputs.append(y_t)
    return outputs, h


def only_plain_units(name: str, case: Case) -> None:
    if case.work.what == "train-rates" or case.work.leak < 1 or case.work.noise:
        raise Unsupported(f"the adapter for {name} has no leaky, noisy units for {case.work.what!r}")


def only_passes(name: str, case: Case) -> None:
    only_plain_units(name, case)
    if case.work.is_model:
        raise Unsupported(f"the adapter for {name} has no models for {case.work.what!r}")


def only_one_layer(name: str, case: Case) -> None:
    if case.work.num_layers > 1 or case.work.bidirectional:
        raise Unsupported(f"one layer in one direction is what {name} is asked for")


def only_possible_steps(case: Case) -> None:
    if case.work.bidirectional and case.work.what in ("step", "stream", "generate"):
        raise Unsupported("steps one by one have one direction")
