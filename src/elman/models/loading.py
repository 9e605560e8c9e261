"""Reading models of any kind from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elman import backends, check
from elman.models import configuration
from elman.models.base import network_of
from elman.models.seq2seq import Seq2Seq
from elman.models.sequence import SequenceModel
from elman.storage import files

KINDS = {"SequenceModel": SequenceModel, "Seq2Seq": Seq2Seq}


def load(path: str | Path, *, backend: str | None = None) -> Any:
    """Read a model that its method `save` wrote, or the model in a checkpoint of `fit`.

    Parameters
    ----------
    path : str or path
    backend : {"numpy", "numba", "cython"}, optional
        As in `SequenceModel`.

    Returns
    -------
    SequenceModel or Seq2Seq

    Raises
    ------
    ValueError
        If the file is not such a model: damaged, of another kind, with sizes that contradict each other or with
        parameters that are not finite. Nothing in a file is ever executed.
    OSError
        If it cannot be read.
    """
    return load_as(KINDS, path, backend)


def load_as(kinds: Mapping[str, type[Any]], path: str | Path, backend: str | None) -> Any:
    """`load` into these classes."""
    if backend is not None:
        check.choice(backend, "backend", backends.NAMES)  # here, as the file is not to blame for it
    path = check.path(path, "path")
    with files.refusing(path):
        saved = files.load(path, kinds)
        model = _made(kinds[saved.kind], saved, backend)
        _check_config(files.flat(saved.config), files.flat(files.as_read(network_of(model).config())))
    model.metadata = saved.metadata
    return model


def _made(kind: type[Any], saved: files.Saved, backend: str | None) -> Any:
    """The model that a file describes. What is wrong is an error of any kind."""
    arguments, n_parameters = configuration.arguments(saved.kind, saved.config)
    files.check_size(saved.parameters, n_parameters)
    model = kind(**arguments, backend=backend, seed=0)
    network_of(model).seed = None  # nobody asked for the one above
    model.load_state_dict(saved.parameters)
    return model


def _check_config(found: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """A file's configuration must be that of the model made of it: no entry is missing, and none without effect."""
    check.same_names(found, made, "its configuration")
    for name, value in found.items():
        if not files.is_same(value, made[name]):
            raise ValueError(f"{name} of its configuration must be {check.shown(made[name])}, got {check.shown(value)}")
