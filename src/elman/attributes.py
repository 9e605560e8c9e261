"""Public attributes that are checked when they are set.

Values lie in the instance as ever, so pickles, copies, `vars` and the time that reading takes are those of any object.
A time step reads a dozen of them, and CPython is quickest where no descriptor has their names and nobody has asked for
the instance's `__dict__`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from elman import check

Check = Callable[[Any, str], Any]  # of a value and its name, to the value as it is kept
Checks = dict[str, Check]


class Checked:
    """What refuses to be set to anything that its constructor would refuse."""

    _settable: ClassVar[Checks] = {}
    _fixed: ClassVar[frozenset[str]] = frozenset()  # once they have been set

    def __setattr__(self, name: str, value: Any) -> None:
        accepted = self._settable.get(name)
        if accepted is not None:
            value = accepted(value, name)
        elif name in self._fixed and hasattr(self, name):
            owner = type(self).__name__
            raise AttributeError(f"{name} of {owner} is fixed once it is made: make another {owner}")
        super().__setattr__(name, value)


class Settings(Checked):
    """What is made of settings, which can be changed at any time; its repr shows them."""

    _no_settings: ClassVar[frozenset[str]] = frozenset()  # what may be set, too, but says where it stands

    def __repr__(self) -> str:
        return settings_text(self, self._no_settings)


def settings_of(thing: Settings) -> dict[str, Any]:
    """By name."""
    return {name: getattr(thing, name) for name in thing._settable if name not in thing._no_settings}


def accepted_settings(thing: Settings, values: dict[str, Any], name: str) -> dict[str, Any]:
    """Such as `settings_of` returns, checked as if they were set."""
    check.same_names(values, settings_of(thing), name)
    return {key: thing._settable[key](value, f"{key} of {name}") for key, value in values.items()}


def settings_text(thing: object, hidden: Iterable[str] = ()) -> str:
    """A repr: the class and its public attributes, those of a subclass among them."""
    public = {name: value for name, value in vars(thing).items() if not name.startswith("_") and name not in hidden}
    return f"{type(thing).__name__}({', '.join(f'{name}={value!r}' for name, value in public.items())})"


def as_made(thing: Any, kind: type, value_of: Callable[[str], Any]) -> str:
    """A repr: the call of the class that makes such a thing, but for what is as by default, and its parameters."""
    arguments = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name != "seed" and (text := _in_short(value_of(name))) != repr(parameter.default):
            is_first = parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
            arguments.append(text if is_first else f"{name}={text}")
    n_parameters = sum(array.size for array in thing.parameters().values())
    return f"{type(thing).__name__}({', '.join(arguments)}) with {n_parameters} parameters"


def _in_short(value: Any) -> str:
    """Its repr; of arrays, what they are."""
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, tuple) and any(isinstance(one, np.ndarray) for one in value):
        return f"({', '.join(map(_in_short, value))})"
    return repr(value)


def optional(accepted: Check) -> Check:
    """None, or what the check takes."""
    return lambda value, name: None if value is None else accepted(value, name)


def one_of(names: Iterable[str]) -> Check:
    return lambda value, name: check.choice(value, name, names)
