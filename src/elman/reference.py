"""The public API of elman on NumPy: to read, to compare with, and to migrate from by changing one import.

>>> from elman import reference as elman
>>> elman.RNN(3, 5)
RNN(3, 5) with 45 parameters

Every name of `elman` is here. Those that compute are subclasses whose backend is "numpy" unless they are given one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elman import schedules as schedules
from elman import tasks as tasks
from elman.about import show_config
from elman.backends import available as available_backends
from elman.backends import use_backend
from elman.backends.activations import activation
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Binary, Categories, Reals
from elman.layer.rnn import RNN as _RNN
from elman.models.loading import load_as
from elman.models.many import fit_many
from elman.models.seq2seq import Seq2Seq as _Seq2Seq
from elman.models.sequence import SequenceModel as _SequenceModel
from elman.threads import get_num_threads, set_num_threads
from elman.training import optimizers as _optimizers
from elman.training.callbacks import Callback, EarlyStopping, History
from elman.training.optimizers import *  # noqa: F403 - its __all__, so that a new one is named once

__all__ = [
    "RNN",
    "Binary",
    "Callback",
    "Categories",
    "EarlyStopping",
    "Features",
    "History",
    "Reals",
    "Seq2Seq",
    "SequenceModel",
    "Tokens",
    "activation",
    "available_backends",
    "fit_many",
    "get_num_threads",
    "load",
    "schedules",
    "set_num_threads",
    "show_config",
    "tasks",
    "use_backend",
]
__all__ += _optimizers.__all__


class RNN(_RNN):
    __doc__ = _RNN.__doc__
    _default_backend = "numpy"


class SequenceModel(_SequenceModel):
    __doc__ = _SequenceModel.__doc__
    _default_backend = "numpy"


class Seq2Seq(_Seq2Seq):
    __doc__ = _Seq2Seq.__doc__
    _default_backend = "numpy"


def load(path: str | Path, *, backend: str | None = None) -> Any:
    """Read a model, like `elman.load`, to run on NumPy unless it is given another backend."""
    return load_as({"SequenceModel": SequenceModel, "Seq2Seq": Seq2Seq}, path, backend)
