"""Learning-rate schedules: functions of how many epochs are done, and of how many there are, that return a factor.

`fit` multiplies the optimizer's lr by it. Any function of these two numbers will do.

>>> import elman
>>> schedule = elman.schedules.Cosine(warmup=1)
>>> [round(schedule(done, 5), 3) for done in (0.5, 1, 3, 5)]
[0.5, 1.0, 0.5, 0.0]
"""

from __future__ import annotations

import math
from typing import ClassVar

from elman import check
from elman.attributes import Checks, Settings


class Constant(Settings):
    """Always the same, after rising from 0 in the first `warmup` epochs.

    >>> Constant(warmup=2)(1, 10)
    0.5
    """

    _settable: ClassVar[Checks] = {"warmup": check.non_negative}

    def __init__(self, *, warmup: float = 0.0) -> None:
        self.warmup = warmup

    def __call__(self, done: float, epochs: float) -> float:
        done, epochs = check.non_negative(done, "done"), check.non_negative(epochs, "epochs")
        if done < self.warmup:
            return done / self.warmup
        return self._after_warmup(done - self.warmup, epochs - self.warmup)

    def _after_warmup(self, done: float, epochs: float) -> float:  # noqa: ARG002
        return 1.0


class Cosine(Constant):
    """From 1 down to `final` in half a cosine (Loshchilov & Hutter, 2017), after the warm-up of `Constant`.

    >>> Cosine(final=0.1)(10, 10)
    0.1
    >>> Cosine(warmup=2)
    Cosine(warmup=2.0, final=0.0)
    """

    _settable = Constant._settable | {"final": check.non_negative}

    def __init__(self, *, warmup: float = 0.0, final: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.final = final

    def _after_warmup(self, done: float, epochs: float) -> float:
        part = min(1.0, done / epochs) if epochs > 0 else 1.0
        return self.final + (1 - self.final) * ((1 + math.cos(math.pi * part)) / 2)


class Step(Constant):
    """Times `factor` after every so many epochs, after the warm-up of `Constant`.

    >>> [Step(every=10)(done, 30) for done in (9.9, 10)]
    [1.0, 0.1]
    """

    _settable = Constant._settable | {"every": check.positive, "factor": check.non_negative}

    def __init__(self, every: float, *, factor: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.every = every
        self.factor = factor

    def _after_warmup(self, done: float, epochs: float) -> float:  # noqa: ARG002
        try:
            return float(self.factor ** (done // self.every))
        except OverflowError:  # of a factor above 1; an lr that it is multiplied by is then refused
            return math.inf
