"""The public names that `elman` and `elman.reference` have in common: all that bind no backend."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from elman import convert as convert
from elman import schedules as schedules
from elman import tasks as tasks
from elman.about import show_config
from elman.analysis import fixed_points
from elman.backends import available as available_backends
from elman.backends import use_backend
from elman.backends.activations import activation
from elman.data.columns import Columns
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Binary, Categories, Labels, Reals
from elman.data.scaler import Scaler
from elman.data.windows import Windows
from elman.models.backtesting import backtest
from elman.models.many import fit_many
from elman.threads import get_num_threads, set_num_threads
from elman.training import optimizers as _optimizers
from elman.training.callbacks import Callback, EarlyStopping, History, ReduceOnPlateau
from elman.training.optimizers import *  # noqa: F403 - its __all__, so that a new one is named once

__all__ = [
    "Binary",
    "Callback",
    "Categories",
    "Columns",
    "EarlyStopping",
    "Features",
    "History",
    "Labels",
    "Reals",
    "ReduceOnPlateau",
    "Scaler",
    "Tokens",
    "Windows",
    "activation",
    "available_backends",
    "backtest",
    "convert",
    "fit_many",
    "fixed_points",
    "get_num_threads",
    "schedules",
    "set_num_threads",
    "show_config",
    "tasks",
    "use_backend",
]
__all__ += _optimizers.__all__

# Imported when they are first asked for: they need other packages, or not every program needs them
_ON_DEMAND = {"keras", "onnx", "plot", "sklearn", "text", "torch"}
if TYPE_CHECKING:
    from elman import keras as keras
    from elman import onnx as onnx
    from elman import plot as plot
    from elman import sklearn as sklearn
    from elman import text as text
    from elman import torch as torch

    __all__ += ["keras", "onnx", "plot", "sklearn", "text", "torch"]


def import_on_demand(module: dict[str, Any]) -> None:
    """Let a module, given by its `globals()`, have `elman.plot` and others before they are imported.

    What cannot be imported is an AttributeError with the reason, so that `hasattr` and `help` go on. For a type checker
    there are the imports above: a `__getattr__` that it sees would make a type of any misspelt name.
    """

    def __getattr__(name: str) -> Any:
        problem = f"module {module['__name__']!r} has no attribute {name!r}"
        if name in _ON_DEMAND:
            try:
                return import_module(f"elman.{name}")
            except ImportError as error:
                problem += f": {error}"
        raise AttributeError(problem)

    def __dir__() -> list[str]:
        return sorted(_ON_DEMAND.union(module))

    module.update(__getattr__=__getattr__, __dir__=__dir__)
