"""elman: the vanilla recurrent network on a CPU, as fast as the machine allows.

The layer is `elman.RNN`. `elman.reference` is the same API computed by plain NumPy, to read and to compare with.
"""

from elman import reference as reference
from elman import schedules as schedules
from elman import tasks as tasks
from elman.backends import available as available_backends
from elman.backends import use_backend
from elman.config import get_num_threads, set_num_threads, show_config
from elman.data import Features, Tokens
from elman.files import load
from elman.losses import Binary, Categories, Reals
from elman.many import fit_many
from elman.models import SequenceModel
from elman.nonlinearities import activation
from elman.optimizers import SGD, Adagrad, Adam, AdamW
from elman.rnn import RNN
from elman.seq2seq import Seq2Seq
from elman.training import Callback, EarlyStopping, History

__version__ = "0.1.0"

__all__ = [
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
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
