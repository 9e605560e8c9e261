"""The public names that `elman` and `elman.reference` have in common: all that bind no backend."""

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
from elman.data.windows import Windows
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
    "Tokens",
    "Windows",
    "activation",
    "available_backends",
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
