"""Optimizers: the rule by which gradients change parameters, and what it remembers between steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np

from elman import backends, check
from elman.attributes import Check, Checks, Settings
from elman.backends.contract import Update
from elman.typing import Real

__all__ = ["SGD", "Adagrad", "Adam", "AdamW"]  # the public ones


def _decay_rates(value: Any, name: str) -> tuple[float, float]:
    first, second = check.pair(value, name)
    expected = "a number from 0 to 1, exclusive"
    return (
        check.number(first, f"{name}[0]", expected, lambda x: 0 <= x < 1),
        check.number(second, f"{name}[1]", expected, lambda x: 0 <= x < 1),
    )


class Optimizer(Settings):
    """What all optimizers have: the learning rate `lr`, `steps`, the number of updates so far, and `update`.

    All settings may be changed between updates. An optimizer remembers things about the parameters that it updates, so
    each model needs one of its own.
    """

    _rule: ClassVar[str]  # of the kernel contract
    _possible_n_memories: ClassVar[tuple[int, ...]]  # arrays in the parameters' shape, after an update
    _squares: ClassVar[int | None] = None  # which of them are sums of squares
    _settable: ClassVar[Checks] = {"lr": check.non_negative, "steps": check.non_negative_int}

    _no_settings = frozenset(("steps",))

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.steps = 0
        self._memories: dict[str, list[Real]] = {}

    @property
    def _n_memories(self) -> int:
        """How many it needs with these settings. Those that it needed with others before, it keeps."""
        return self._possible_n_memories[-1]

    def __setstate__(self, state: dict[str, Any]) -> None:
        old = {"_lr": "lr", "_momentum": "momentum"}  # the names in older pickles
        self.__dict__.update({old.get(name, name): value for name, value in state.items()})

    def update(self, parameters: Mapping[str, Real], gradients: Mapping[str, Real]) -> None:
        """Change parameters, in place, by one step along their gradients.

        Parameters
        ----------
        parameters : dict of live arrays, such as `RNN.parameters()`
        gradients : dict of arrays with the same names and shapes, such as a pullback returns

        Raises
        ------
        TypeError, ValueError
            If names, shapes or dtypes differ, or if this optimizer has worked on other parameters before. Then nothing
            is changed.

        Examples
        --------
        >>> import elman
        >>> rnn, optimizer = elman.RNN(3, 5, seed=0), elman.SGD(lr=0.1)
        >>> y, h_n, pullback = rnn.vjp(np.ones((7, 4, 3)))
        >>> d_x, d_h_0, gradients = pullback(y)
        >>> optimizer.update(rnn.parameters(), gradients)
        """
        apply(self, backends.resolve(), *_flattened(parameters, gradients))

    def _numbers(self) -> tuple[float, ...]:
        """What the rule is handed besides arrays (UPDATES of backends/reference.py)."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent, with classical momentum: v ← momentum · v + g, θ ← θ − lr · v.

    Parameters
    ----------
    lr : float
        Learning rate, at least 0.
    momentum : float
        From 0 to 1. The velocity v begins at 0 with the first update that has momentum.

    Examples
    --------
    >>> SGD(lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9)
    """

    _rule = "sgd"
    _possible_n_memories = (0, 1)
    _settable = Optimizer._settable | {"momentum": check.probability}

    def __init__(self, lr: float, momentum: float = 0.0) -> None:
        super().__init__(lr)
        self.momentum = momentum

    @property
    def _n_memories(self) -> int:
        return 1 if self.momentum else 0

    def _numbers(self) -> tuple[float, ...]:
        return self.lr, self.momentum


class Adagrad(Optimizer):
    """Duchi, Hazan & Singer (2011): s ← s + g², θ ← θ − lr · g / (√s + eps).

    Examples
    --------
    >>> Adagrad(lr=0.1).eps
    1e-10
    """

    _rule = "adagrad"
    _possible_n_memories = (1,)
    _squares = 0
    _settable = Optimizer._settable | {"eps": check.non_negative}

    def __init__(self, lr: float, eps: float = 1e-10) -> None:
        super().__init__(lr)
        self.eps = eps

    def _numbers(self) -> tuple[float, ...]:
        return self.lr, self.eps


class Adam(Optimizer):
    """Kingma & Ba (2015), algorithm 1: running means of g and g², corrected for their start at 0.

    Parameters
    ----------
    lr : float
        Learning rate, at least 0.
    betas : (float, float)
        Decay rates of the two means, from 0 to 1 (exclusive).
    eps : float
        Added to the root of the second mean.

    Examples
    --------
    >>> Adam(lr=1e-3).betas
    (0.9, 0.999)
    """

    _rule = "adam"
    _possible_n_memories = (2,)
    _squares = 1
    _settable = Optimizer._settable | {
        "betas": _decay_rates,
        "eps": check.non_negative,
        "weight_decay": check.non_negative,
    }

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(lr)
        self.betas = betas
        self.eps = eps
        self.weight_decay = 0.0

    def _numbers(self) -> tuple[float, ...]:
        return self.lr, *self.betas, self.eps, self.weight_decay, self.steps


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019): θ ← (1 − lr · weight_decay) θ before each step.

    Examples
    --------
    >>> AdamW(lr=1e-3).weight_decay
    0.01
    """

    def __init__(
        self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
    ) -> None:
        super().__init__(lr, betas, eps)
        self.weight_decay = weight_decay


EVERYWHERE = (slice(None),)


def apply(
    optimizer: Optimizer,
    backend: ModuleType,
    parameters: Mapping[str, Real],
    gradients: Mapping[str, Real],
    places: Iterable[slice] = EVERYWHERE,
) -> None:
    """`Optimizer.update` on flat arrays (n,) known to fit, or on some places of each."""
    _check_memories(optimizer._memories or dict.fromkeys(parameters, ()), parameters)
    for name, array in parameters.items():
        memories = optimizer._memories.setdefault(name, [])
        memories += [np.zeros_like(array) for _ in range(optimizer._n_memories - len(memories))]
    optimizer.steps += 1
    numbers = optimizer._numbers()
    for name, array in parameters.items():
        gradient, memories = gradients[name], optimizer._memories[name]
        for own in places:
            remembered = tuple(memory[own] for memory in memories)
            backend.update(Update(optimizer._rule, array[own], gradient[own], remembered, numbers))


def memories_of(optimizer: Optimizer, name: str) -> list[Real]:
    """What it remembers about the parameters of that name: live arrays (n,)."""
    return optimizer._memories.get(name, [])


def checks_of_memories(optimizer: Optimizer, n: int, steps: int) -> list[Check]:
    """Of each of the arrays that it must remember after so many steps, n of which are there."""
    possible = optimizer._possible_n_memories if steps else (0,)
    kinds = range(n if n in possible else possible[-1])
    return [_check_squares if i == optimizer._squares else check.finite for i in kinds]


def go_on(optimizer: Optimizer, name: str, memories: list[Real], steps: int, settings: Mapping[str, Any]) -> None:
    """Stand where another one stood, after so many steps on the parameters of that name."""
    optimizer._memories, optimizer.steps = {name: memories} if memories else {}, steps
    for key, value in settings.items():
        setattr(optimizer, key, value)


def _flattened(parameters: Any, gradients: Any) -> tuple[dict[str, Real], dict[str, Real]]:
    """An optimizer's two dicts of arrays, each array flattened: the parameters as views."""
    for value, name in ((parameters, "parameters"), (gradients, "gradients")):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a dict from names to arrays, got {check.shown(value)}")
    if parameters.keys() != gradients.keys():
        raise ValueError(f"gradients must have the names {list(parameters)}, got {list(gradients)}")
    views, flat = {}, {}
    for key, array in parameters.items():
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            raise TypeError(f"parameters[{key!r}] must be an array of float32 or float64, got {check.shown(array)}")
        if not (array.flags.forc and array.flags.behaved):
            raise ValueError(f"parameters[{key!r}] must be contiguous, aligned and writeable")
        gradient = check.real_array(gradients[key], f"gradients[{key!r}]", array.dtype, array.shape, contiguous=True)
        order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
        views[key] = np.asarray(array).reshape(-1, order=order)
        flat[key] = gradient.reshape(-1, order=order)
    return views, flat


def _check_memories(value: Mapping[str, Sequence[Real]], parameters: Mapping[str, Real]) -> None:
    """An optimizer's memories must be those of the parameters it is now used on."""
    fits = value.keys() == parameters.keys()
    for name, array in parameters.items() if fits else ():
        for memory in value[name]:
            fits = fits and memory.shape == array.shape and memory.dtype == array.dtype
    if not fits:
        raise ValueError(f"optimizer has worked on other parameters ({list(value)}) before: use a new one")


def _check_squares(array: Real, name: str) -> None:
    """Sums of squares, which may be too large for their dtype."""
    for where in np.argwhere(~(array >= 0))[:1].tolist():
        raise ValueError(f"{name} must be at least 0, got {array[tuple(where)]} at {where}")
