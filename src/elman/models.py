"""A model: a kind of input, the layer, a readout with its loss; and how it is trained and drawn from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from elman import backends, io, validation
from elman.data import Sequences, Tokens
from elman.losses import Categories
from elman.nonlinearities import Activation
from elman.optimizers import Adam, Optimizer
from elman.parameters import Entry, Parameters, load_state
from elman.rnn import RNN
from elman.typing import Int, Real

Model = TypeVar("Model", bound="SequenceModel")
Kind = TypeVar("Kind")

PATTERNS = ("many-to-many",)
INPUTS = {"Tokens": Tokens}  # kinds by the names that they have in files
OUTPUTS = {"Categories": Categories}


class _Batch(NamedTuple):
    """A validated batch: x, y (T, B), the number of targets, the states before (L·D, B, H)."""

    x: Int
    y: Int
    n_targets: int
    h_0: Real
    lengths: Int | None


class SequenceModel:
    """A recurrent network with a readout: o[t] = weight_ho h[t] + bias_o, and a loss between o and the targets.

    Parameters
    ----------
    inputs : Tokens
        What goes in.
    outputs : Categories
        What comes out.
    pattern : {"many-to-many"}
        A target for every step.
    hidden_size, num_layers, nonlinearity, bidirectional, dropout, dtype, seed, backend
        Those of `RNN`.

    Attributes
    ----------
    rnn : RNN
    metadata : dict from str to str
        Free text that is saved along, such as a vocabulary.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Examples
    --------
    A model that learns to count to three:

    >>> import numpy as np
    >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
    >>> count = np.arange(61) % 3
    >>> x, y = count[:-1, None], count[1:, None]  # 60 steps of one sequence
    >>> optimizer = Adam(lr=0.01)
    >>> for _ in range(50):
    ...     loss = model.train_step(x, y, optimizer=optimizer, clip_norm=1.0)
    >>> model.generate([0, 1], 6, temperature=0).tolist()
    [2, 0, 1, 2, 0, 1]
    """

    _default_backend: ClassVar[str | None] = None  # elman.reference sets it

    def __init__(
        self,
        inputs: Tokens,
        outputs: Categories,
        *,
        pattern: str = "many-to-many",
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        self.inputs = validation.instance(inputs, "inputs", Tokens)
        self.outputs = validation.instance(outputs, "outputs", Categories)
        self.pattern = validation.choice(pattern, "pattern", PATTERNS)
        rng = validation.generator(seed)
        self.rnn = RNN(
            inputs.n,
            hidden_size,
            num_layers,
            nonlinearity,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=rng,
            backend=self._default_backend if backend is None else backend,
        )
        n_states = self.rnn._n_outputs
        readout = [Entry(("weight_ho",), (outputs.n, n_states)), Entry(("bias_o",), (outputs.n,))]
        self._parameters = Parameters([*self.rnn._entries(), *readout], self.rnn.dtype)
        self.rnn._move_to(self._parameters)
        bound = 1 / math.sqrt(n_states)
        for name in ("weight_ho", "bias_o"):
            array = self.parameters()[name]
            array[...] = rng.uniform(-bound, bound, array.shape)
        self._shuffle_rng = np.random.default_rng(rng.integers(1 << 63))
        self._gradient_buffer = self._zeros()  # of train_step
        self.metadata: dict[str, str] = {}

    # Step level: time-major arrays

    def train_step(
        self,
        x: Any,
        y: Any,
        *,
        optimizer: Optimizer,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        state: Real | None = None,
        lengths: Any = None,
    ) -> float:
        """One update of the parameters: forward, back-propagation through time, clipping, the optimizer's step.

        Parameters
        ----------
        x, y : integers (T, B)
            Inputs, and the target of each step; a target of −1 marks a step without one.
        optimizer : Optimizer
            The same one in each step.
        clip_norm : float, optional
            The gradient is scaled down to this Euclidean norm, over all parameters (Pascanu et al., 2013).
        clip_value : float, optional
            After that, each of its values is limited to ± this.
        state : array (L·D, B, H), optional
            The states before the first step, zeros by default; updated in place to those after the last step, so that
            the next call goes on from there (truncated back-propagation). Needs one direction.
        lengths : integers (B,), optional
            As in `RNN`.

        Returns
        -------
        float
            The mean loss over all targets, in nats, before the update.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or the gradient is not finite. In both cases parameters and state are left as they were.
        """
        validation.instance(optimizer, "optimizer", Optimizer)
        max_norm = math.inf if clip_norm is None else validation.positive(clip_norm, "clip_norm")
        max_value = None if clip_value is None else validation.positive(clip_value, "clip_value")
        batch = self._batch(x, y, state, lengths)
        gradients = self._gradient_buffer
        gradients.flat.fill(0)
        backend = self.rnn._resolve()
        loss, h_n = self._differentiate(backend, batch, gradients)
        norm = backend.clip_norm(gradients.flat, max_norm=max_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {optimizer.steps + 1}: the loss is {loss:.6g} and the norm of its gradient {norm:.6g}; "
                f"nothing was updated. A smaller lr (now {optimizer.lr:g}) or clip_norm usually helps."
            )
        if max_value is not None:
            max_value = min(max_value, float(np.finfo(self.rnn.dtype).max))  # more would overflow in a float32
            np.clip(gradients.flat, -max_value, max_value, out=gradients.flat)
        optimizer._apply(backend, {"flat": self._parameters.flat}, {"flat": gradients.flat})
        if state is not None:
            state[...] = h_n
        return loss

    def loss(self, x: Any, y: Any, *, state: Real | None = None, lengths: Any = None) -> float:
        """The mean loss over all targets, without dropout. Arguments and errors are those of `train_step`.

        `state` is updated in place here, too.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> model.loss([[0], [1], [2]], [[1], [2], [0]]) < 2
        True
        """
        batch = self._batch(x, y, state, lengths)
        h_n = np.empty_like(batch.h_0)
        backend = self.rnn._resolve()
        tape = self.rnn._forward(backend, batch.x, batch.h_0, h_n, lengths=batch.lengths, training=False)
        n_steps, n_rows = batch.x.shape
        lease = self.rnn._pool.lease(1, n_steps, n_rows, self.outputs.n)
        weight, bias = self._readout(self._parameters)
        total = backend.readout_loss(
            tape.outputs[-1],
            weight,
            bias,
            batch.y,
            lease.arrays[0],
            d_h=None,
            d_weight=None,
            d_bias=None,
            loss=self.outputs.loss,
            scale=1.0,
            lengths=batch.lengths,
        )
        if state is not None:
            state[...] = h_n
        return float(total) / batch.n_targets

    def loss_and_grads(
        self, x: Any, y: Any, *, state: Real | None = None, lengths: Any = None
    ) -> tuple[float, dict[str, Real]]:
        """The mean loss, as `train_step` has it, and its gradients: a dict named and shaped like `parameters()`.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> loss, gradients = model.loss_and_grads([[0], [1], [2]], [[1], [2], [0]])
        >>> gradients["weight_ho"].shape
        (3, 16)
        """
        batch = self._batch(x, y, state, lengths)
        gradients = self._zeros()
        loss, h_n = self._differentiate(self.rnn._resolve(), batch, gradients)
        if state is not None:
            state[...] = h_n
        return loss, gradients.named()

    def generate(
        self, prompt: Any, length: int, *, temperature: float = 1.0, seed: int | np.random.Generator | None = None
    ) -> Int:
        """New tokens, each drawn from the model's distribution after all before it.

        Parameters
        ----------
        prompt : integers (n,)
            At least one token to begin with.
        length : int
            How many tokens to draw.
        temperature : float
            Divides the outputs: below 1 the likely becomes likelier; 0 always takes the likeliest.
        seed : None, int or numpy.random.Generator

        Returns
        -------
        integers (length,)
            The new tokens; the prompt is not among them.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, if outputs are not the inputs' tokens, or if the model is bidirectional.
        FloatingPointError
            If the outputs are not finite.
        """
        if self.rnn.bidirectional:
            validation.refuse("generate is not possible with bidirectional=True: that direction begins at the end")
        if self.outputs.n != self.inputs.n:
            validation.refuse(f"generate needs outputs that are inputs, got {self.outputs} and {self.inputs}")
        prompt = validation.tokens(prompt, "prompt", self.inputs.n, ("n",))
        length = validation.non_negative_int(length, "length")
        temperature = validation.non_negative(temperature, "temperature")
        rng = validation.generator(seed)
        backend = self.rnn._resolve()
        h = np.zeros((self.rnn.num_layers, 1, self.rnn.hidden_size), self.rnn.dtype)
        h_next = np.empty_like(h)
        self.rnn._forward(backend, prompt[:, None], h, h_next, training=False)
        weight, bias = self._readout(self._parameters)
        o = np.empty((1, 1, self.outputs.n), self.rnn.dtype)
        tokens = np.empty(length, np.int64)
        for i in range(length):
            if i:
                self.rnn._advance(backend, tokens[i - 1 : i], h, h_next)
            h, h_next = h_next, h
            backend.readout(h[-1:], weight, bias, o)
            tokens[i] = self.outputs.choose(o[0, 0], temperature, rng)
        return tokens

    # Data-set level: the first axis is the sequence

    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: Optimizer | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        progress: bool = True,
    ) -> dict[str, list[float]]:
        """Train on a data set, `epochs` times over.

        Parameters
        ----------
        X, Y : lists of integers (T_i,), or integers (N, T)
            Sequences and the targets of their steps. Batches gather sequences of about equal length.
        optimizer : Optimizer, optional
            ``Adam(1e-3)`` by default.
        clip_norm, clip_value
            As in `train_step`.
        validation_data : (X, Y), optional
            Data to measure the loss on after each epoch.
        shuffle : bool
            Whether to go through the data in an order of its own each time, drawn from the model's seed.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        dict of lists
            "loss" and, with validation data, "val_loss": the mean over all targets in each epoch.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> X, Y = [[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]
        >>> history = model.fit(X, Y, epochs=20, optimizer=Adam(0.01), progress=False)
        >>> history["loss"][-1] < history["loss"][0]
        True
        """
        epochs = validation.positive_int(epochs, "epochs")
        batch_size = validation.positive_int(batch_size, "batch_size")
        optimizer = Adam(1e-3) if optimizer is None else optimizer
        data = self._data(X, Y)
        held_out = None
        if validation_data is not None:
            pair = validation.pair(validation_data, "validation_data")
            held_out = self._data(*pair, names=("validation_data[0]", "validation_data[1]"))
        rng = self._shuffle_rng if validation.flag(shuffle, "shuffle") else None
        history: dict[str, list[float]] = {"loss": []} if held_out is None else {"loss": [], "val_loss": []}
        with _progress_bar(epochs, validation.flag(progress, "progress")) as bar:
            for _ in range(epochs):
                losses, counts = [], []
                for batch in data.batches(batch_size, rng):
                    loss = self.train_step(
                        batch.x,
                        batch.y,
                        optimizer=optimizer,
                        clip_norm=clip_norm,
                        clip_value=clip_value,
                        lengths=batch.lengths,
                    )
                    losses.append(loss)
                    counts.append(batch.n_targets)
                history["loss"].append(float(np.average(losses, weights=counts)))
                if held_out is not None:
                    history["val_loss"].append(self._mean_loss(held_out, batch_size))
                bar.set_postfix({name: f"{values[-1]:.4f}" for name, values in history.items()}, refresh=False)
                bar.update()
        return history

    # Parameters and files

    def parameters(self) -> dict[str, Real]:
        """The parameters by name, live and writable: those of `RNN`, weight_ho (O, D·H) and bias_o (O,).

        Examples
        --------
        >>> list(SequenceModel(Tokens(3), Categories(3), hidden_size=16).parameters())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_l0', 'weight_ho', 'bias_o']
        """
        return self._parameters.named()

    def state_dict(self) -> dict[str, Real]:
        """Copies of the parameters by name."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state: Any) -> None:
        """Copy parameters from a dict as `state_dict` returns it: all of them, or an error that names the key."""
        load_state(self.parameters(), state)

    def save(self, path: str | Path) -> None:
        """Write the model to a file in safetensors format: parameters, sizes and `metadata`.

        The file appears whole or not at all. `elman.load` reads it.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If `metadata` is not a dict from str to str.
        """
        if isinstance(self.rnn.nonlinearity, Activation):
            validation.refuse(f"nonlinearity {self.rnn.nonlinearity} cannot be saved: a model file holds no functions")
        io.save(validation.path(path, "path"), self.parameters(), self._config(), self.metadata)

    def _config(self) -> dict[str, Any]:
        """What, besides the parameters, makes this model: keyword arguments of the constructor as JSON has them."""
        rnn = self.rnn
        return {
            "inputs": {"kind": type(self.inputs).__name__, "n": self.inputs.n},
            "outputs": {"kind": type(self.outputs).__name__, "n": self.outputs.n},
            "pattern": self.pattern,
            "hidden_size": rnn.hidden_size,
            "num_layers": rnn.num_layers,
            "nonlinearity": rnn.nonlinearity,
            "bidirectional": rnn.bidirectional,
            "dropout": rnn.dropout,
            "dtype": rnn.dtype.name,
        }

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(SequenceModel).parameters.items():
            if name != "seed":
                value = getattr(self if name in ("inputs", "outputs", "pattern") else self.rnn, name)
                value = value.name if name == "dtype" else value
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                    shown.append(repr(value))
                elif value != parameter.default:
                    shown.append(f"{name}={value!r}")
        n_parameters = sum(array.size for array in self.parameters().values())
        return f"{type(self).__name__}({', '.join(shown)}) with {n_parameters} parameters"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_gradient_buffer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._gradient_buffer = self._zeros()

    # From here on nothing is validated but what comes in

    def _batch(self, x: Any, y: Any, state: Real | None, lengths: Any) -> _Batch:
        x = self.inputs.array(x, lengths)
        if lengths is not None:
            lengths = validation.lengths(lengths, x.shape[1], len(x))
        y, count = self.outputs.targets(y, x.shape, lengths)
        shape = (self.rnn.num_layers * (2 if self.rnn.bidirectional else 1), x.shape[1], self.rnn.hidden_size)
        if state is None:
            h_0 = np.zeros(shape, self.rnn.dtype)
        else:
            if self.rnn.bidirectional:
                validation.refuse("state must be None with bidirectional=True: that direction begins at the end")
            h_0 = validation.updatable(state, "state", self.rnn.dtype, shape)
        return _Batch(x, y, count, h_0, lengths)

    def _zeros(self) -> Parameters:
        """Room for a gradient of all parameters."""
        return Parameters(self._parameters.entries, self.rnn.dtype)

    def _readout(self, parameters: Parameters) -> tuple[Real, Real]:
        """weight_ho (D·H, O), k-major, and bias_o (O,), or their gradients."""
        weight, bias = parameters.arrays[-2:]
        return weight[0], bias[0]

    def _differentiate(self, backend: ModuleType, batch: _Batch, gradients: Parameters) -> tuple[float, Real]:
        """The mean loss and the states after the last step; the loss's gradients are added to `gradients`."""
        rnn = self.rnn
        h_n, d_h_0 = np.empty_like(batch.h_0), np.empty_like(batch.h_0)
        tape = rnn._forward(backend, batch.x, batch.h_0, h_n, lengths=batch.lengths)
        n_steps, n_rows = batch.x.shape
        o = rnn._pool.lease(1, n_steps, n_rows, self.outputs.n)
        d_y = rnn._pool.lease(1, n_steps, n_rows, rnn._n_outputs)
        weight, bias = self._readout(self._parameters)
        d_weight, d_bias = self._readout(gradients)
        total = backend.readout_loss(
            tape.outputs[-1],
            weight,
            bias,
            batch.y,
            o.arrays[0],
            d_h=d_y.arrays[0],
            d_weight=d_weight,
            d_bias=d_bias,
            loss=self.outputs.loss,
            scale=1 / batch.n_targets,
            lengths=batch.lengths,
        )
        rnn._backward(tape, d_y.arrays[0], None, d_h_0, None, rnn._by_layer(gradients))
        return float(total) / batch.n_targets, h_n

    def _data(self, X: Any, Y: Any, names: tuple[str, str] = ("X", "Y")) -> Sequences:
        return Sequences(X, Y, n_inputs=self.inputs.n, n_outputs=self.outputs.n, names=names)

    def _mean_loss(self, data: Sequences, batch_size: int) -> float:
        losses, counts = [], []
        for batch in data.batches(batch_size, None):
            losses.append(self.loss(batch.x, batch.y, lengths=batch.lengths))
            counts.append(batch.n_targets)
        return float(np.average(losses, weights=counts))


def _progress_bar(n_epochs: int, show: bool) -> Any:
    from tqdm import tqdm  # only here: `import elman` does without it

    return tqdm(total=n_epochs, unit="epoch", disable=not show)


def load(path: str | Path, *, backend: str | None = None) -> SequenceModel:
    """Read a model that `SequenceModel.save` wrote.

    Parameters
    ----------
    path : str or path
    backend : {"numpy", "numba", "cython"}, optional
        As in `SequenceModel`.

    Raises
    ------
    ValueError
        If the file is not such a model: truncated, of another kind, or with sizes that contradict each other. Nothing
        in a file is ever executed.
    OSError
        If it cannot be read.
    """
    return load_as(SequenceModel, path, backend)


def load_as(kind: type[Model], path: str | Path, backend: str | None) -> Model:
    """`load` for the class itself or a subclass."""
    if backend is not None:
        validation.choice(backend, "backend", backends.NAMES)  # here, as the file is not to blame for it
    path = validation.path(path, "path")
    with io.refusing(path):
        state, config, metadata = io.load(path)
        inputs = _kind(config.pop("inputs"), "inputs", INPUTS)
        outputs = _kind(config.pop("outputs"), "outputs", OUTPUTS)
        io.check_size(state, inputs.n, outputs.n, **config)
        model = kind(inputs, outputs, backend=backend, seed=0, **config)
        model.load_state_dict(state)
    model.metadata = metadata
    return model


def _kind(description: Any, name: str, kinds: Mapping[str, Callable[[int], Kind]]) -> Kind:
    """An input or output as `_config` describes it."""
    return kinds[validation.choice(description["kind"], f"the kind of its {name}", kinds)](description["n"])
