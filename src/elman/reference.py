"""The public API of elman on NumPy: to read, to compare with, and to migrate from by changing one import.

>>> from elman import reference as elman
>>> elman.RNN(3, 5)
RNN(3, 5) with 45 parameters

Every name of `elman` is here. Those that compute are subclasses whose backend is "numpy" unless they are given one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elman import common as _common
from elman.common import *  # noqa: F403
from elman.layer.rnn import RNN as _RNN
from elman.models.loading import load_as
from elman.models.seq2seq import Seq2Seq as _Seq2Seq
from elman.models.sequence import SequenceModel as _SequenceModel

__all__ = ["RNN", "Seq2Seq", "SequenceModel", "load"]
__all__ += _common.__all__
_common.import_on_demand(globals())


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
