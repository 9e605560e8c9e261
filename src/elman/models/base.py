"""What all models are: parameters in one buffer, a readout at the end, updates, and a file."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from elman import check
from elman.attributes import Checked, Checks
from elman.backends.activations import Activation
from elman.backends.contract import Readout
from elman.data.outputs import Output, finite_outputs
from elman.layer.parameters import Entry, Parameters, load_state
from elman.layer.rnn import RNN, mode_of, stack_of
from elman.storage import atomic, files
from elman.training import optimizers
from elman.training.plan import Descent
from elman.typing import Int, Real


class Model(Checked):
    """What `SequenceModel` and `Seq2Seq` have in common.

    The buffer of parameters ends with the readout's, weight_ho (O, K) and bias_o (O,). What lies before belongs to
    layers, which subclasses own.
    """

    _default_backend: ClassVar[str | None] = None  # elman.reference sets it
    _settable: ClassVar[Checks] = {"metadata": check.text_mapping}
    _file_kind: ClassVar[str]  # the name of the public class, in files
    outputs: Output
    _predicted: Output  # what the readout computes
    _metric: str  # what `evaluate` measures besides the loss
    metadata: dict[str, str]
    _parameters: Parameters
    _gradient_buffer: Parameters  # of updates
    _shuffle_rng: np.random.Generator
    _seed: str | None = None  # what was asked for, if it is known

    # What a subclass says

    def _layers(self) -> list[RNN]:
        """The last one feeds the readout."""
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        """What, besides the parameters, makes this model: keyword arguments of the constructor as JSON has them."""
        raise NotImplementedError

    # Parameters and files

    def parameters(self) -> dict[str, Real]:
        """The parameters by name, live and writable: those of the layers, weight_ho (O, K) and bias_o (O,).

        K is the number of units that the readout sees, twice the hidden size where they run in both directions.

        Examples
        --------
        >>> import elman
        >>> list(elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=16).parameters())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_l0', 'weight_ho', 'bias_o']
        """
        return self._parameters.named()

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
            If the nonlinearity is a function of your own, or if encoder and decoder have been set to differ: a file
            cannot hold that. Or if what is at the path is no regular file, such as a pipe.
        FloatingPointError
            If a parameter is not finite, which `load` would refuse.
        """
        atomic.write(check.path(path, "path"), *self._content())

    def _content(self, progress: files.Progress | None = None) -> tuple[bytes, memoryview]:
        """What a file holds of this model, in pieces, with how far a training has come."""
        config = self._check_saveable()
        for name, array in self.parameters().items():  # what is in the file that is there may be better
            finite_outputs(array, f"{name} to be saved")
        return files.pieces(files.Saved(self._file_kind, self.parameters(), config, self.metadata, progress))

    def _check_saveable(self) -> dict[str, Any]:
        """The configuration, or an error where a file cannot hold the model."""
        check.text_mapping(self.metadata, "metadata")
        nonlinearity = self._layers()[-1].nonlinearity
        if isinstance(nonlinearity, Activation):
            check.refuse(f"nonlinearity {nonlinearity} cannot be saved: a model file holds no functions")
        return self._config()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_gradient_buffer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._gradient_buffer = self._zeros()

    def _zeros(self) -> Parameters:
        """Room for a gradient of all parameters."""
        return Parameters(self._parameters.entries, self._layers()[-1].dtype)

    def _seeded_generator(self, seed: Any) -> np.random.Generator:
        """What draws the parameters; `_seed` says what it was made of."""
        rng = check.generator(seed)
        if seed is None:
            self._seed = None
        elif seed is not rng and seed < 1 << 256:  # Python does not print one of 4,300 digits
            self._seed = str(int(seed))
        else:
            state = json.dumps(rng.bit_generator.state, default=np.ndarray.tolist)
            self._seed = f"a generator at {hashlib.sha256(state.encode()).hexdigest()[:12]}"
        return rng

    def _generators(self) -> list[np.random.Generator]:
        """All that is random in training."""
        return [self._shuffle_rng, *(stack_of(layer).rng for layer in self._layers())]

    # The readout

    @staticmethod
    def _readout_entries(n_outputs: int, n_units: int) -> list[Entry]:
        return [Entry(("weight_ho",), (n_outputs, n_units)), Entry(("bias_o",), (n_outputs,))]

    def _draw_readout(self, rng: np.random.Generator) -> None:
        bound = 1 / math.sqrt(stack_of(self._layers()[-1]).architecture.n_outputs)
        for name in ("weight_ho", "bias_o"):
            array = self.parameters()[name]
            array[...] = rng.uniform(-bound, bound, array.shape)

    def _readout_arrays(self, parameters: Parameters) -> tuple[Real, Real]:
        """weight_ho (K, O), k-major, and bias_o (O,), or their gradients."""
        weight, bias = parameters.arrays[-2:]
        return weight[0], bias[0]

    def _readout(self, backend: ModuleType, h: Real, lengths: Int | None = None) -> Real:
        """Fresh outputs (T, B, O) of states h (T, B, K), all finite within the lengths."""
        o = np.empty((*h.shape[:2], self._predicted.n), h.dtype)
        backend.readout(Readout(h, *self._readout_arrays(self._parameters), o))
        finite_outputs(o, lengths=lengths)
        return o

    def _readout_loss(
        self,
        backend: ModuleType,
        h: Real,
        y: Real | Int,
        total: float,
        lengths: Int | None,
        weights: Real | None,
        d_h: Real | None = None,
        gradients: Parameters | None = None,
    ) -> float:
        """The mean loss of states h (T, B, K); with d_h, which is written, its gradients are added to `gradients`."""
        weight, bias = self._readout_arrays(self._parameters)
        d_weight, d_bias = (None, None) if gradients is None else self._readout_arrays(gradients)
        if self._predicted.is_mean:
            total *= self._predicted.n
        workspace, kind = stack_of(self._layers()[-1]).workspace, self._predicted.loss
        with workspace.lease(1, h.shape[0], h.shape[1], self._predicted.n) as (o,):
            readout = Readout(h, weight, bias, o, y, kind, 1 / total, lengths, weights, d_h, d_weight, d_bias)
            return float(backend.readout_loss(readout)) / total

    # Updates

    def _update(self, loss: float, descent: Descent) -> None:
        """One step along the gradients in the buffer, or an error, and nothing changed."""
        backend, gradients, optimizer = (
            mode_of(self._layers()[-1]).backend,
            self._gradient_buffer.flat,
            descent.optimizer,
        )
        norm = float(backend.clip_norm(gradients, max_norm=descent.max_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {optimizer.steps + 1}: the loss is {loss:.6g} and the norm of its gradient {norm:.6g}; "
                f"nothing was updated. A smaller lr (now {optimizer.lr:g}) or clip_norm usually helps."
            )
        if descent.max_value is not None:
            # more would overflow in a float32
            max_value = min(descent.max_value, float(np.finfo(gradients.dtype).max))
            np.clip(gradients, -max_value, max_value, out=gradients)
        optimizers.apply(optimizer, backend, {"flat": self._parameters.flat}, {"flat": gradients})
