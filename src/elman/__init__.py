"""elman: the vanilla recurrent network on a CPU, as fast as the machine allows.

The layer is `elman.RNN`. `elman.reference` is the same API computed by plain NumPy, to read and to compare with.
"""

import sys as _sys

from elman import common as _common
from elman import reference as reference
from elman.backends import activations as _activations
from elman.common import *  # noqa: F403
from elman.data import outputs as _outputs
from elman.layer import parameters as _parameters
from elman.layer import rnn as _rnn
from elman.layer.rnn import RNN
from elman.models import diagnostics as _diagnostics
from elman.models import many as _many
from elman.models import seq2seq as _seq2seq
from elman.models import streaming as _streaming
from elman.models.loading import load
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.training import optimizers as _optimizers
from elman.training.optimizers import *  # noqa: F403 - from common, too; but mypy does not follow stars twice

__version__ = "0.1.0"

# Modules under the names by which pickles of 0.1 know them
for _old, _module in {
    "diagnostics": _diagnostics,
    "losses": _outputs,
    "many": _many,
    "nonlinearities": _activations,
    "optimizers": _optimizers,
    "parameters": _parameters,
    "rnn": _rnn,
    "seq2seq": _seq2seq,
    "streaming": _streaming,
}.items():
    _sys.modules[f"elman.{_old}"] = _module

__all__ = ["RNN", "Seq2Seq", "SequenceModel", "load"]
__all__ += _common.__all__
_common.import_on_demand(globals())
