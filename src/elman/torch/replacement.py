"""Layers of a model replaced in place."""

from __future__ import annotations

import torch

from elman import check
from elman.replaced import Report
from elman.torch.modules import RNN
from elman.torch.recurrent import Recurrent, runs_here

_RECURRENT = (torch.nn.RNNBase, torch.nn.RNNCellBase)
_NAMES = {"RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"}


def accelerate(model: torch.nn.Module) -> Report:
    """Let every `torch.nn.RNN` of a model compute with elman's kernels, from now on.

    Modules become instances of `RNN` where they are: they keep their parameters, hooks and state, and everything in the
    program that refers to them, as an optimizer does to parameters, goes on to do so. A second time changes nothing;
    `restore` undoes it. A layer that is called a step at a time gains nothing: that is left to PyTorch.

    Parameters
    ----------
    model : torch.nn.Module
        Or a single `torch.nn.RNN`.

    Returns
    -------
    Report
        Names of the layers that were replaced, and those of the recurrent layers that were left, with the reason:
        other kinds, subclasses (parametrized layers are some), and what is not on the CPU in float32 or float64.

    Raises
    ------
    TypeError
        If model is not a module.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.RNN(3, 5), "decoder": torch.nn.GRU(3, 5)})
    >>> accelerate(model)
    encoder: replaced
    decoder: left, elman has no GRU
    >>> model["encoder"]
    RNN(3, 5)
    """
    check.instance(model, "model", torch.nn.Module)
    replaced, left, own = [], {}, []
    for name, module in model.named_modules():
        if isinstance(module, Recurrent):
            own.append(name)
        elif isinstance(module, torch.jit.ScriptModule) and module.original_name in _NAMES:
            left[name] = "it is a script: that has to come after accelerate() and restore()"
        elif isinstance(module, _RECURRENT):
            reason = _reason_to_leave(module)
            if reason is None:
                module.__class__ = RNN
                replaced.append(name)
            else:
                left[name] = reason
    return Report(tuple(replaced), left, tuple(own))


def restore(model: torch.nn.Module) -> tuple[str, ...]:
    """Undo `accelerate`: let every `RNN` of a model be a `torch.nn.RNN`, where it is.

    Parameters
    ----------
    model : torch.nn.Module
        Or a single layer. Layers that were made as `elman.torch.RNN` become PyTorch's, too.

    Returns
    -------
    tuple of str
        The names of the layers that were restored, as `model.named_modules()` gives them.

    Raises
    ------
    TypeError
        If model is not a module.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.RNN(3, 5)})
    >>> accelerate(model)
    encoder: replaced
    >>> restore(model)
    ('encoder',)
    >>> type(model["encoder"])
    <class 'torch.nn.modules.rnn.RNN'>
    """
    check.instance(model, "model", torch.nn.Module)
    restored = []
    for name, module in model.named_modules():
        kind = type(module)
        if kind is RNN:
            module.__class__ = torch.nn.RNN
            restored.append(name)
        elif kind.__base__ is RNN and torch.nn.utils.parametrize.is_parametrized(module):  # which made a class for it
            own = {key: value for key, value in vars(kind).items() if isinstance(value, property)}
            module.__class__ = torch.nn.RNN
            torch.nn.utils.parametrize._inject_new_class(module)
            for key, value in own.items():
                setattr(type(module), key, value)
            restored.append(name)
    return tuple(restored)


def _reason_to_leave(module: torch.nn.Module) -> str | None:
    kind = type(module)
    if kind is torch.nn.RNNCell:
        return "a single step gains nothing"
    if torch.nn.utils.parametrize.is_parametrized(module):
        return "it is parametrized: that has to come after accelerate()"
    if isinstance(module, torch.nn.RNN) and kind is not torch.nn.RNN:
        return f"a subclass of torch.nn.RNN, {kind.__qualname__}, may have a forward of its own"
    if kind is not torch.nn.RNN:
        return f"elman has no {kind.__name__}"
    parameters = list(module.parameters())
    if not all(map(runs_here, parameters)):
        return (
            f"elman computes on the CPU in float32 or float64, not in {parameters[0].dtype} on {parameters[0].device}"
        )
    return None
