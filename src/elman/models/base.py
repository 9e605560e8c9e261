"""What users know of all models: parameters and a file. What models do is in their network."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, ClassVar

from elman import check
from elman.attributes import Checked, Checks
from elman.layer.parameters import load_state
from elman.layer.rnn import RNN
from elman.models.network import Kept, Network
from elman.storage import atomic
from elman.training.rates import LearningRates, find_lr
from elman.typing import Real


class Model(Checked):
    """What `SequenceModel` and `Seq2Seq` have in common."""

    _default_backend: ClassVar[str | None] = None  # elman.reference sets it
    _settable: ClassVar[Checks] = {"metadata": check.text_mapping}
    _layers: ClassVar[tuple[str, ...]] = ("rnn",)  # the attributes that these are
    _network: Network
    metadata: dict[str, str]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_LAYERS:
            places = " and ".join(f"model.{layer}.{name}" for layer in self._layers)
            raise AttributeError(f"{name} is an attribute of layers, not of {type(self).__name__}: set {places}")
        super().__setattr__(name, value)

    def parameters(self) -> dict[str, Real]:
        """The parameters by name, live and writable: those of the layers, weight_ho (O, K) and bias_o (O,).

        K is the number of units that the readout sees, twice the hidden size where they run in both directions. Before
        weight_ho there are the embedding of `Tokens`, if they have one, or those of `Columns`, and a learned h_0.

        Examples
        --------
        >>> import elman
        >>> list(elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=16).parameters())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_l0', 'weight_ho', 'bias_o']
        """
        return self._network.parameters.named()

    def find_lr(
        self, X: Any, Y: Any = None, *, lr: tuple[float, float] = (1e-5, 1.0), steps: int = 100, **options: Any
    ) -> LearningRates:
        """The loss of a short training in which the learning rate rises from update to update (Smith, 2017).

        A copy is trained: the model and the optimizer stay as they are.

        Parameters
        ----------
        X, Y, **options
            As for `fit`, such as `batch_size`, `optimizer`, `clip_norm`, `weights`; neither epochs, a schedule,
            validation data, callbacks, a checkpoint nor several processes. A function X is called.
        lr : (float, float)
            The rates of the first and the last update; between them each is the one before times the same factor.
        steps : int
            How many updates, from 2 to 100,000. There are less if the loss rises far, or is not finite.

        Returns
        -------
        LearningRates
            Arrays `lr`, `loss` and `smoothed` (n,); `steepest`, the rate at which the smoothed loss falls fastest, to
            begin with; `plot(path)`. Where the curve is flat, as that of a task that takes long to begin to be learned,
            there is nothing to be read from it.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the first loss, or its gradient, is not finite.

        Examples
        --------
        >>> import elman
        >>> import numpy as np
        >>> X = [np.arange(i, i + 20) % 3 for i in range(300)]
        >>> model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=16, seed=0)
        >>> found = model.find_lr(X, [np.roll(x, -1) for x in X])
        >>> 1e-3 < found.steepest < 1e-1
        True
        """
        return find_lr(self, X, Y, lr, steps, options)

    def summary(self) -> str:
        """A table, to be printed: the arrays of each layer and direction with their shapes, and how many numbers.

        Examples
        --------
        >>> import elman
        >>> model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=16)
        >>> print(model.summary())
        SequenceModel(Tokens(3), Categories(3), hidden_size=16) with 371 parameters
        <BLANKLINE>
        layer    arrays                                             parameters
        layer 0  weight_ih (16, 3), weight_hh (16, 16), bias (16,)         320
        readout  weight_ho (3, 16), bias_o (3,)                             51
        total    float32, 1,484 bytes                                      371
        """
        rows: dict[str, list[tuple[str, Real]]] = {}
        for name, array in self.parameters().items():
            layer, short = _place_of(name)
            rows.setdefault(layer, []).append((short, array))
        counts = {layer: sum(array.size for _, array in arrays) for layer, arrays in rows.items()}
        total, dtype = sum(counts.values()), self._network.parameters.flat.dtype
        table = [("layer", "arrays", "parameters")]
        table += [
            (layer, ", ".join(f"{name} {array.shape}" for name, array in arrays), f"{counts[layer]:,}")
            for layer, arrays in rows.items()
        ]
        table.append(("total", f"{dtype}, {total * dtype.itemsize:,} bytes", f"{total:,}"))
        first, second, third = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [f"{one:{first}}  {two:{second}}  {three:>{third}}" for one, two, three in table]
        return "\n".join([repr(self), "", *lines])

    def effective_weights(self) -> dict[str, Real]:
        """Copies of the parameters by name, weights as they act: see `RNN.effective_weights`.

        Examples
        --------
        >>> import elman
        >>> options = {"hidden_size": 5, "excitatory": 0.8, "readout_from": "excitatory"}
        >>> model = elman.SequenceModel(elman.Features(3), elman.Reals(1), seed=0, **options)
        >>> (model.effective_weights()["weight_ho"] != 0).tolist()
        [[True, True, True, True, False]]
        """
        return self._network.effective_weights()

    def state_dict(self) -> dict[str, Real]:
        """Copies of the parameters by name."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state: Any) -> None:
        """Copy parameters from a dict as `state_dict` returns it: all of them, or an error that names the key.

        Values must be finite.
        """
        load_state(self.parameters(), state)

    def save(self, path: str | Path) -> None:
        """Write the model to a file in safetensors format: parameters, sizes and `metadata`.

        The file appears whole or not at all, and after an error what was there is as it was. Links are followed; a file
        that is replaced keeps its mode and owner. `elman.load` reads it.

        Raises
        ------
        OSError
            If the file cannot be written: it names path and cause.
        TypeError
            If `metadata` is not a dict from str to str.
        ValueError
            If the nonlinearity or the loss is a function of your own, or if encoder and decoder have been set to
            differ: a file cannot hold that. Or if what is at the path is no regular file, such as a pipe.
        FloatingPointError
            If a parameter is not finite, which `load` would refuse.
        """
        atomic.write(check.path(path, "path"), *self._network.content(self.metadata))

    def _value_of(self, argument: str) -> Any:
        """What the constructor would be given for the model as it is now."""
        value = getattr(self if argument in self._fixed else self._network.rnns[0], argument)
        return value.name if argument == "dtype" else value

    def __getstate__(self) -> dict[str, Any]:
        kept = {f"_{name}": getattr(self._network, name) for name in Kept._fields}
        return {key: value for key, value in self.__dict__.items() if key != "_network"} | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = Kept(state["_parameters"], state["_shuffle_rng"], state.get("_seed"))
        self.__dict__.update({key: value for key, value in state.items() if key not in _OF_THE_NETWORK})
        self._network = self._network_on(kept)

    def _network_on(self, kept: Kept) -> Network:
        """What is behind a model whose attributes are there, such as one that is being unpickled."""
        raise NotImplementedError


def _place_of(name: str) -> tuple[str, str]:
    """A layer, with its direction, and what the array is called there; or what else there is."""
    match = re.fullmatch(r"(?:(\w+)\.)?(\w+)_l(\d+)(_reverse)?", name)
    if match is None:
        return "first states" if name == "h_0" else "inputs" if name.startswith("embedding") else "readout", name
    owner, short, number, is_reverse = match.groups()
    return f"{owner + ' ' if owner else ''}layer {number}{', reverse' if is_reverse else ''}", short


_OF_LAYERS = frozenset(inspect.signature(RNN).parameters)
_OF_THE_NETWORK = {f"_{name}" for name in Kept._fields}  # in a pickle
_OF_THE_NETWORK |= {"_predicted", "_metric", "_traits", "_feeds_back"}  # and in those of 0.1


def network_of(model: Model) -> Network:
    """What is behind a model, for calls whose arguments have been checked."""
    return model._network
