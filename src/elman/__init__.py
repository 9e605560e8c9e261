"""elman: the vanilla recurrent network on a CPU, as fast as the machine allows.

The layer is `elman.RNN`. `elman.reference` is the same API computed by plain NumPy, to read and to compare with.
"""

import sys as _sys

from elman import reference as reference
from elman import schedules as schedules
from elman import tasks as tasks
from elman.about import show_config
from elman.backends import activations as _activations
from elman.backends import available as available_backends
from elman.backends import use_backend
from elman.backends.activations import activation
from elman.data import outputs as _outputs
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Binary, Categories, Reals
from elman.layer import parameters as _parameters
from elman.layer import rnn as _rnn
from elman.layer.rnn import RNN
from elman.models import diagnostics as _diagnostics
from elman.models import seq2seq as _seq2seq
from elman.models import streaming as _streaming
from elman.models.loading import load
from elman.models.many import fit_many
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.threads import get_num_threads, set_num_threads
from elman.training import optimizers as _optimizers
from elman.training.callbacks import Callback, EarlyStopping, History
from elman.training.optimizers import *  # noqa: F403 - its __all__, so that a new one is named once

__version__ = "0.1.0"

# Modules under the names by which pickles of 0.1 know them
for _old, _module in {
    "diagnostics": _diagnostics,
    "losses": _outputs,
    "nonlinearities": _activations,
    "optimizers": _optimizers,
    "parameters": _parameters,
    "rnn": _rnn,
    "seq2seq": _seq2seq,
    "streaming": _streaming,
}.items():
    _sys.modules[f"elman.{_old}"] = _module

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
