"""Sequences to sequences of another length: an encoder whose final state starts a decoder (Sutskever et al., 2014)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.backends.activations import Activation
from elman.data import checks
from elman.data.inputs import Features, Tokens
from elman.data.outputs import Categories, finite_outputs, total_weight, with_class_weights
from elman.data.patterns import PATTERNS
from elman.data.sequences import Inputs, Rows, lengths_of, side_by_side
from elman.layer.parameters import Parameters
from elman.layer.rnn import RNN, mode_of, move_to, stack_of
from elman.layer.stack import Mode
from elman.models.base import Model
from elman.models.sequence import INPUTS, kind_in_file, output_config
from elman.storage import files
from elman.training import loop
from elman.training.callbacks import Callback, Function, History
from elman.training.optimizers import Optimizer
from elman.training.plan import Descent, Plan, Schedule
from elman.typing import Int, Real


class _Batch(NamedTuple):
    """Inputs (T_x, B, ·) and, with the start before and the end behind, targets (T_y + 1, B)."""

    x: Real | Int
    x_lengths: Int | None
    y_in: Int
    y_out: Int
    y_lengths: Int | None
    weights: Real | None
    total: float


class _Pairs(Inputs):
    """A data set of sequences X and the sequences Y that they become."""

    def __init__(
        self, X: Any, Y: Any, inputs: Tokens | Features, n: int, dtype: np.dtype[Any], names: tuple[str, str]
    ) -> None:
        super().__init__(X, inputs, PATTERNS["many-to-many"], dtype, names[0])
        self.y = checks.sequences(Y, names[1], lambda item, name: checks.token_sequence(item, name, n))
        checks.same_number(len(self.y), len(self.x), names[1], names[0])
        self.y_lengths = lengths_of(self.y)
        self.costs = self.lengths + self.y_lengths

    def parts(self) -> dict[str, Rows | None]:
        return {"X": self.x, "Y": self.y}


class Seq2Seq(Model):
    """An encoder, whose final states are the first ones of a decoder, which reads its own outputs.

    What starts and what ends a target is handled inside: it is a further token, n, on the decoder's side. The loss is
    the mean over all tokens of the targets and their ends.

    Parameters
    ----------
    inputs : Tokens or Features
        What goes in.
    outputs : Categories
        The tokens that come out.
    hidden_size, num_layers, nonlinearity, dropout, recurrent_dropout
        Those of `RNN`, for both parts.
    initialization, spectral_radius, dtype, seed, backend
        Likewise.
    bidirectional : bool
        Whether the encoder runs in both directions. The decoder then has twice the units, and each of its layers begins
        with the final states of both.

    Attributes
    ----------
    encoder, decoder : RNN
        Fixed, as inputs and outputs are; what `RNN` lets be set, such as dropout, may be set in both.
    metadata : dict from str to str
        Free text that is saved along, such as a vocabulary.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Examples
    --------
    A model that learns to write a token twice:

    >>> import elman
    >>> model = Seq2Seq(Tokens(4), Categories(4), hidden_size=16, seed=0)
    >>> X = [[0], [1], [2], [3]]
    >>> Y = [[0, 0], [1, 1], [2, 2], [3, 3]]
    >>> history = model.fit(X, Y, epochs=60, optimizer=elman.Adam(0.02), progress=False)
    >>> [tokens.tolist() for tokens in model.predict([[2], [0]])]
    [[2, 2], [0, 0]]
    """

    _file_kind = "Seq2Seq"
    _fixed = frozenset(("inputs", "outputs", "encoder", "decoder"))
    _metric = "exact"

    def __init__(
        self,
        inputs: Tokens | Features,
        outputs: Categories,
        *,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        initialization: str = "uniform",
        spectral_radius: float | None = None,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        self.inputs = check.kind(inputs, "inputs", (Tokens, Features))
        self.outputs = check.kind(outputs, "outputs", (Categories,))
        given = outputs.class_weights
        n = outputs.n + 1
        self._predicted = Categories(n, class_weights=None if given is None else [*given, 1.0])
        rng = self._seeded_generator(seed)
        options: dict[str, Any] = {
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "initialization": initialization,
            "spectral_radius": spectral_radius,
            "dtype": dtype,
            "seed": rng,
            "backend": self._default_backend if backend is None else backend,
        }
        self.encoder = RNN(inputs.n, hidden_size, num_layers, nonlinearity, bidirectional=bidirectional, **options)
        self.decoder = RNN(n, stack_of(self.encoder).architecture.n_outputs, num_layers, nonlinearity, **options)
        encoder, decoder = (stack_of(layer).architecture for layer in self._layers())
        entries = [*encoder.entries("encoder."), *decoder.entries("decoder.")]
        readout = self._readout_entries(n, decoder.n_outputs)
        self._parameters = Parameters([*entries, *readout], self.decoder.dtype)
        for layer, part in zip(self._layers(), self._parts(self._parameters), strict=True):
            move_to(part, layer)
        self._draw_readout(rng)
        self._shuffle_rng = np.random.default_rng(rng.integers(1 << 63))
        self._gradient_buffer = self._zeros()
        self.metadata = {}

    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        callbacks: Iterable[Callback | Function] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Train on a data set, `epochs` times over, with the targets fed to the decoder (teacher forcing).

        Parameters
        ----------
        X : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Sequences of tokens or features.
        Y : list of integers (T_i,), or one array (N, T)
            The sequences that they become, without start and end; they may be empty.
        epochs, batch_size, optimizer, schedule, clip_norm, clip_value
            As in `SequenceModel.fit`.
        validation_data, shuffle, callbacks, progress, checkpoint, checkpoint_every, resume
            Likewise.

        Returns
        -------
        History
            "loss" and, with validation data, "val_loss" and "val_exact", as `evaluate` has them.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.
        """
        held_out = None
        if validation_data is not None:
            pair, name = check.pair(validation_data, "validation_data"), "validation_data"
            held_out = self._data(*pair, names=(f"{name}[0]", f"{name}[1]"))
        plan = Plan.of(
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            clip_norm=clip_norm,
            clip_value=clip_value,
            schedule=schedule,
            shuffle=shuffle,
            callbacks=callbacks,
            progress=progress,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
        )
        return loop.fit(self, self._data(X, Y), held_out, plan)

    def predict(self, X: Any, *, beam: int = 1, max_length: int | None = None, batch_size: int = 128) -> list[Int]:
        """The sequence that each of X becomes.

        Parameters
        ----------
        X : as in `fit`
        beam : int
            How many beginnings to follow at a time; of the ends that they come to, that whose tokens have the highest
            mean log-probability is taken. With 1 the likeliest token is always taken (greedy search).
        max_length : int, optional
            Where to stop if there is no end; by default after twice as many tokens as there are steps in X, and 10.
        batch_size : int
            How many sequences to go through at a time, which makes no difference to the result.

        Returns
        -------
        list of integers (T_i,)
            In the order of X, without start and end.

        Raises
        ------
        FloatingPointError
            If outputs are not finite, as parameters are not, or far too large.
        """
        beam = check.positive_int(beam, "beam")
        batch_size = check.positive_int(batch_size, "batch_size")
        data = Inputs(X, self.inputs, PATTERNS["many-to-many"], self.decoder.dtype, "X")
        limits = 2 * data.lengths + 10
        if max_length is not None:
            limits[:] = check.size_of_at_least(max_length, "max_length", 0)
        return self._decode(data, beam, limits, batch_size)

    def evaluate(self, X: Any, Y: Any, *, batch_size: int = 128) -> dict[str, float]:
        """How good the model is on a data set, given as to `fit`.

        Returns
        -------
        dict
            "loss", with the targets fed to the decoder, and "exact", the part of sequences that `predict` gets right
            from the first token to the end.
        """
        return self._evaluate(self._data(X, Y), check.positive_int(batch_size, "batch_size"))

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(Seq2Seq).parameters.items():
            if name != "seed":
                value = getattr(self if name in ("inputs", "outputs") else self.encoder, name)
                value = value.name if name == "dtype" else value
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                    shown.append(repr(value))
                elif value != parameter.default:
                    shown.append(f"{name}={value!r}")
        n_parameters = sum(array.size for array in self.parameters().values())
        return f"{type(self).__name__}({', '.join(shown)}) with {n_parameters} parameters"

    def _config(self) -> dict[str, Any]:
        layer = self.encoder
        for name in ("nonlinearity", "dropout", "recurrent_dropout"):
            one, other = getattr(layer, name), getattr(self.decoder, name)
            if one != other:
                check.refuse(f"{name} must be the same in encoder and decoder to be saved, got {one} and {other}")
        return {
            "inputs": {"kind": type(self.inputs).__name__, "n": self.inputs.n},
            "outputs": output_config(self.outputs),
            "hidden_size": layer.hidden_size,
            "num_layers": layer.num_layers,
            "nonlinearity": layer.nonlinearity,
            "bidirectional": layer.bidirectional,
            "dropout": layer.dropout,
            "recurrent_dropout": layer.recurrent_dropout,
            "dtype": layer.dtype.name,
        }

    @classmethod
    def _from_file(cls, config: dict[str, Any], state: dict[str, Real], backend: str | None) -> Seq2Seq:
        inputs = kind_in_file(config, "inputs", INPUTS)
        outputs = kind_in_file(config, "outputs", {"Categories": Categories})
        encoder, width = files.stack_size(inputs.n, **config)
        decoder, _ = files.stack_size(outputs.n + 1, **config | {"hidden_size": width, "bidirectional": False})
        files.check_size(state, encoder + decoder + (outputs.n + 1) * (width + 1))
        model = cls(inputs, outputs, backend=backend, seed=0, **config)
        model._seed = None  # nobody asked for the one above
        model.load_state_dict(state)
        return model

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for layer, part in zip(self._layers(), self._parts(self._parameters), strict=True):
            move_to(part, layer)

    # From here on nothing is validated but data sets

    def _data(self, X: Any, Y: Any, names: tuple[str, str] = ("X", "Y")) -> _Pairs:
        return _Pairs(X, Y, self.inputs, self.outputs.n, self.decoder.dtype, names)

    def _layers(self) -> list[RNN]:
        return [self.encoder, self.decoder]

    def _parts(self, parameters: Parameters) -> list[Parameters]:
        """The encoder's and the decoder's, under their own names."""
        first, second = (stack_of(layer).architecture.entries() for layer in self._layers())
        return [parameters.part(0, first), parameters.part(len(first), second)]

    def _ready(self, data: _Pairs, rows: Int) -> _Batch:
        x, x_lengths = data.inputs_of(rows)
        edge, n_rows = self.outputs.n, len(rows)
        y = side_by_side(data.y, rows)
        y_in = np.concatenate([np.full((1, n_rows), edge), y])
        y_out = np.concatenate([y, np.zeros((1, n_rows), np.int64)])
        y_out[data.y_lengths[rows], np.arange(n_rows)] = edge
        y_lengths = data.y_lengths[rows] + 1
        weights = with_class_weights(self._predicted, y_out, None, self.decoder.dtype)
        total = total_weight(self._predicted, y_out, weights, y_lengths)
        return _Batch(x, x_lengths, y_in, y_out, y_lengths, weights, total)

    def _n_windows(self, batch: _Batch, descent: Descent) -> int:  # noqa: ARG002
        return 1

    def _gradients_of(
        self,
        batch: _Batch,
        descent: Descent,  # noqa: ARG002
        window: int,  # noqa: ARG002
        state: Real | None,  # noqa: ARG002
    ) -> tuple[float, float, None]:
        self._gradient_buffer.flat.fill(0)
        loss = self._differentiate(mode_of(self.decoder).backend, batch, self._gradient_buffer)
        return loss, batch.total, None

    def _differentiate(self, backend: ModuleType, batch: _Batch, gradients: Parameters) -> float:
        """The mean loss, whose gradients are added to `gradients`."""
        encoder, decoder = self._layers()
        own = self._parts(gradients)
        zeros = self._zero_state(batch.x.shape[1])
        h_x = np.empty_like(zeros)
        encoded = stack_of(encoder).forward(self._mode(encoder, backend), batch.x, zeros, h_x, lengths=batch.x_lengths)
        h_0 = self._handed_over(h_x)
        h_n, d_h_0, d_zeros = np.empty_like(h_0), np.empty_like(h_0), np.empty_like(zeros)
        decoded = stack_of(decoder).forward(self._mode(decoder, backend), batch.y_in, h_0, h_n, lengths=batch.y_lengths)
        lease = stack_of(decoder).lease(*batch.y_in.shape)
        h, d_h = decoded.outputs[-1], lease.arrays[0]
        loss = self._readout_loss(backend, h, batch.y_out, batch.total, batch.y_lengths, batch.weights, d_h, gradients)
        stack_of(decoder).backward(decoded, d_h, None, d_h_0, None, own[1])
        stack_of(encoder).backward(encoded, None, self._handed_back(d_h_0), d_zeros, None, own[0])
        return loss

    def _zero_state(self, n_rows: int) -> Real:
        """Before the encoder's first step: (L·D, B, H)."""
        return np.zeros(stack_of(self.encoder).architecture.state_shape(n_rows), self.encoder.dtype)

    def _mode(self, layer: RNN, backend: ModuleType) -> Mode:
        return mode_of(layer)._replace(backend=backend)

    def _handed_over(self, h_x: Real) -> Real:
        """The decoder's first states (L, B, D·H): for each layer the encoder's last ones (L·D, B, H), side by side."""
        n_rows = h_x.shape[1]
        by_layer = h_x.reshape(self.encoder.num_layers, -1, n_rows, self.encoder.hidden_size)
        return np.ascontiguousarray(by_layer.swapaxes(1, 2)).reshape(self.encoder.num_layers, n_rows, -1)

    def _handed_back(self, d_h_0: Real) -> Real:
        """Its derivative, transposed."""
        n_layers, n_rows, _ = d_h_0.shape
        by_direction = d_h_0.reshape(n_layers, n_rows, -1, self.encoder.hidden_size)
        return np.ascontiguousarray(by_direction.swapaxes(1, 2)).reshape(-1, n_rows, self.encoder.hidden_size)

    def _encoded(self, backend: ModuleType, x: Real | Int, lengths: Int | None) -> Real:
        """The decoder's first states (L, B, D·H)."""
        zeros = self._zero_state(x.shape[1])
        h_x = np.empty_like(zeros)
        stack = stack_of(self.encoder)
        with stack.lease(*x.shape[:2]) as (y,):
            stack.evaluate(self._mode(self.encoder, backend), x, zeros, h_x, y, lengths)
        return self._handed_over(h_x)

    def _evaluate(self, data: _Pairs, batch_size: int) -> dict[str, float]:
        backend, losses, totals = mode_of(self.decoder).backend, [], []
        for rows in data.groups(batch_size):
            batch = self._ready(data, rows)
            h_0 = self._encoded(backend, batch.x, batch.x_lengths)
            h_n = np.empty_like(h_0)
            stack = stack_of(self.decoder)
            with stack.lease(*batch.y_in.shape) as (h,):
                stack.evaluate(self._mode(self.decoder, backend), batch.y_in, h_0, h_n, h, batch.y_lengths)
                losses.append(self._readout_loss(backend, h, batch.y_out, batch.total, batch.y_lengths, batch.weights))
            totals.append(batch.total)
        finite_outputs(losses, "loss")
        # No prediction of more tokens than there are can be right: one beyond them tells.
        predicted = self._decode(data, 1, data.y_lengths + 1, batch_size)
        exact = [np.array_equal(one, other) for one, other in zip(predicted, data.y, strict=True)]
        return {"loss": float(np.average(losses, weights=totals)), "exact": float(np.mean(exact))}

    # Search

    def _decode(self, data: Inputs, beam: int, limits: Int, batch_size: int) -> list[Int]:
        backend = mode_of(self.decoder).backend
        results: list[Any] = [None] * len(data.lengths)
        for rows in data.groups(batch_size):
            h = self._encoded(backend, *data.inputs_of(rows))
            for row, tokens in zip(rows, self._search(backend, h, beam, limits[rows]), strict=True):
                results[row] = np.array(tokens, dtype=np.int64)
        return results

    def _search(self, backend: ModuleType, h: Real, beam: int, limits: Int) -> list[list[int]]:
        """The best sequence for each row of first states h (L, B, D·H), by beam search."""
        edge = self.outputs.n
        searches = [_Search(beam, edge, int(limit)) for limit in limits]
        active = [search for search in searches if search.limit > 0]
        h = np.ascontiguousarray(h[:, limits > 0])
        while active:
            tokens = np.array([beginning[-1] for search in active for beginning in search.beginnings])
            h_next = np.empty_like(h)
            stack_of(self.decoder).step(backend, self.decoder.nonlinearity, tokens, h, h_next)
            log_p = _log_softmax(self._readout(backend, h_next[-1:])[0])
            kept, start = [], 0  # which states the beginnings of the next step come from
            for search in active:
                stop = start + len(search.beginnings)
                kept += [start + parent for parent in search.extend(log_p[start:stop])]
                start = stop
            active = [search for search in active if search.beginnings]
            h = h_next if kept == list(range(start)) else np.ascontiguousarray(h_next[:, kept])
        return [search.best() for search in searches]


class _Search:
    """Beam search for one sequence: the likeliest beginnings, and the sequences that came to an end.

    Beginnings are lists of tokens that the start stands before. A sequence that ends takes its place in the beam with
    it, so that poor ends cannot crowd out a good beginning; it is over when there are none left, or at the limit.
    """

    def __init__(self, beam: int, edge: int, limit: int) -> None:
        self.beam, self.edge, self.limit = beam, edge, limit
        self.beginnings: list[list[int]] = [[edge]]
        self.scores: NDArray[np.float64] = np.zeros(1)  # sums of log-probabilities
        self.ended: list[tuple[float, list[int]]] = []  # with the mean over their tokens and the end

    def extend(self, log_p: NDArray[np.float64]) -> list[int]:
        """Go on by one token, given the log-probabilities (beginnings, tokens); which of them each one comes from."""
        scores = (self.scores[:, None] + log_p).ravel()
        n = log_p.shape[1]
        parents, beginnings, kept = [], [], []
        for i in np.argsort(-scores, kind="stable")[: self.beam - len(self.ended)].tolist():
            parent, token = divmod(i, n)
            tokens = self.beginnings[parent]
            if token == self.edge:
                self.ended.append((scores[i] / len(tokens), tokens[1:]))
            elif len(tokens) == self.limit:
                self.ended.append((scores[i] / len(tokens), [*tokens[1:], token]))
            else:
                parents.append(parent)
                beginnings.append([*tokens, token])
                kept.append(scores[i])
        self.beginnings, self.scores = beginnings, np.array(kept)
        return parents

    def best(self) -> list[int]:
        return max(self.ended, key=lambda item: item[0])[1] if self.ended else []


def _log_softmax(o: Real) -> NDArray[np.float64]:
    z = o.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return z
