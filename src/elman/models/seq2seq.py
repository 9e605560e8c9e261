"""Sequences to sequences of another length: an encoder whose final state starts a decoder (Sutskever et al., 2014).

Here arguments are checked, and described. What is computed of them is in encoder_decoder.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elman import check
from elman.attributes import as_made
from elman.backends.activations import Activation
from elman.data.columns import Columns
from elman.data.inputs import Features, Tokens
from elman.data.kinds import PATTERNS
from elman.data.learned import as_before_if_untrained, learn
from elman.data.metrics import Metric, Metrics
from elman.data.named import learn_labels
from elman.data.outputs import Categories
from elman.data.sequences import DataSet, Pairs
from elman.data.windows import Windows
from elman.layer.dynamics import of_both_directions
from elman.layer.rnn import RNN, stack_of
from elman.models import generation
from elman.models.base import Model
from elman.models.encoder_decoder import EncoderDecoder, longest
from elman.models.network import Kept, entries_of, generator_of
from elman.models.recomputation import memory_of
from elman.training.callbacks import Callback, Function, History
from elman.training.fit import divided, fit
from elman.training.optimizers import Optimizer
from elman.training.plan import Plan, Schedule
from elman.training.ranks import joined
from elman.training.streamed import data_of
from elman.typing import Int


class Seq2Seq(Model):
    """An encoder, whose final states are the first ones of a decoder, which reads its own outputs.

    What starts and what ends a target is handled inside: it is a further token, n, on the decoder's side. The loss is
    the mean over all tokens of the targets and their ends.

    Parameters
    ----------
    inputs : Tokens, Features or Columns
        What goes in.
    outputs : Categories
        The tokens that come out.
    hidden_size, num_layers, nonlinearity, dropout, recurrent_dropout
        Those of `RNN`, for both parts.
    leak, noise, form, learn_leak
        Likewise; there is noise in training only. The states that the decoder begins with are the encoder's, potentials
        with form="potential".
    initialization, spectral_radius, dtype, seed, backend
        Likewise.
    bidirectional : bool
        Whether the encoder runs in both directions. The decoder then has twice the units, and each of its layers begins
        with the final states of both; a leak or noise (H,) is that of its units in either half.
    learn_h_0 : bool
        Whether the encoder's states before the first step, h_0 (L·D, H), are parameters like the others, the same for
        all sequences and zeros at first; otherwise they stay zeros.

    Attributes
    ----------
    encoder, decoder : RNN
        Fixed, as inputs, outputs and learn_h_0 are; what `RNN` lets be set, such as dropout, may be set in both.
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

    _fixed = frozenset(("inputs", "outputs", "learn_h_0", "encoder", "decoder"))
    _layers = ("encoder", "decoder")

    def __init__(
        self,
        inputs: Tokens | Features | Columns,
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
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        learn_h_0: bool = False,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        given = check.kind(inputs, "inputs", (Tokens, Features, Columns))
        given.check_addressable()
        self.inputs = inputs = given.one_s_own()
        self.outputs = outputs = check.kind(outputs, "outputs", (Categories,)).one_s_own()
        if isinstance(outputs.class_weights, str) or not outputs.is_in_kernels:
            check.refuse(
                f"outputs must have the cross-entropy, and class weights that are numbers or None, got {outputs}"
            )
        rng, asked = generator_of(seed)
        options: dict[str, Any] = {
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "initialization": initialization,
            "spectral_radius": spectral_radius,
            "leak": leak,
            "noise": noise,
            "form": form,
            "learn_leak": learn_leak,
            "dtype": dtype,
            "seed": rng,
            "backend": self._default_backend if backend is None else backend,
        }
        self.encoder = RNN(inputs.width, hidden_size, num_layers, nonlinearity, bidirectional=bidirectional, **options)
        width = stack_of(self.encoder).architecture.n_outputs
        if bidirectional:
            options |= {name: of_both_directions(getattr(self.encoder, name)) for name in ("leak", "noise")}
        self.decoder = RNN(outputs.n + 1, width, num_layers, nonlinearity, **options)
        first, second = (stack_of(rnn).architecture for rnn in (self.encoder, self.decoder))
        self.learn_h_0 = check.flag(learn_h_0, "learn_h_0")
        h_0 = first.initial_entries(is_learned=self.learn_h_0)
        entries = [*first.entries("encoder."), *second.entries("decoder."), *entries_of(inputs), *h_0]
        kept = Kept.drawn(entries, self.decoder, given, outputs.n + 1, rng, asked)
        self._network: EncoderDecoder = self._network_on(kept)
        self.metadata = {}

    def fit(
        self,
        X: Any,
        Y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        accumulate: int = 1,
        average: float | None = None,
        steps_per_epoch: int | None = None,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        scheduled_sampling: float | Schedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        memory: int | str | None = None,
        activation_l1: float = 0.0,
        activation_l2: float = 0.0,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        trainable: Iterable[str] | None = None,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float | None = None,
        metrics: Iterable[Metric] | Mapping[str, Callable[..., Any]] | None = None,
        shuffle: bool = True,
        callbacks: Iterable[Callback | Function] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
        comm: Any = None,
        shards: int = 8,
    ) -> History:
        """Train on a data set, `epochs` times over, with the targets fed to the decoder (teacher forcing).

        Parameters
        ----------
        X : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Sequences of tokens or features, or a function that returns batches (X, Y), as in `SequenceModel.fit`, but
            no `Windows`.
        Y : list of integers (T_i,), or one array (N, T)
            The sequences that they become, without start and end; they may be empty. Labels are as in
            `SequenceModel.fit`.
        epochs, batch_size, accumulate, average, steps_per_epoch, optimizer, schedule, clip_norm, clip_value,
        weight_l1, weight_l2, trainable
            As in `SequenceModel.fit`; ``["decoder.*"]`` leaves the encoder as it is, and h_0, which is no part of it.
        scheduled_sampling : float or function, optional
            With which probability the decoder reads, at each step but the first, the token that it predicts there
            itself instead of the target's (Bengio et al., 2015); or a function of (epochs done, epochs) that returns
            it, such as ``lambda done, epochs: done / epochs``. Predictions are made in a pass before, with targets fed
            to the decoder, and without dropout (as in Mihaylova & Martins, 2019); gradients do not go through them.
            Where the prediction is the end, the target is read. What a sequence draws depends on the run, the epoch,
            and its place in the data set alone. Penalties, and the "loss" of the history, are of what was read.
        memory : str or int, optional
            As in `SequenceModel.train_step`, for encoder and decoder together, or so many steps of each. Bidirectional
            encoders need to have one layer.
        activation_l1, activation_l2 : float
            As in `SequenceModel.train_step`, of what the readout sees: the outputs of the decoder's last layer, at all
            tokens of the targets and their ends. What the encoder puts out is not penalized.
        validation_data, validation_split, shuffle, callbacks, progress, checkpoint, checkpoint_every, resume, comm,
        shards
            Likewise.
        metrics : list of str and functions, or dict from names to functions, optional
            As in `evaluate`, of what is held out.

        Returns
        -------
        History
            "loss" and, with validation data, "val_loss" and "val_exact", or the `metrics`, as `evaluate` has them.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.
        """
        given = locals()  # all arguments, by name
        with joined(given) as (own, ranks), as_before_if_untrained(self._network, self.inputs, self.outputs):
            known, most = self._network.metrics, memory_of(memory, "memory", self.encoder)
            plan = Plan.of(own, self._network.parameters, metrics=known, memory=most)
            kinds = self.inputs, self.outputs, PATTERNS["many-to-many"]
            learn_labels(own["X"], own["Y"], *kinds, plan.validation_split)
            data, held_out, name = data_of(own, ("X", "Y"), self._data), None, "validation_data"
            if own[name] is not None:
                held_out = self._data(*check.pair(own[name], name), names=(f"{name}[0]", f"{name}[1]"))
            data, held_out = divided(data, held_out, plan, ranks)
            learn(data, self.inputs, self.outputs)
            return fit(self, self._network, data, held_out, plan, ranks)

    def predict(self, X: Any, *, beam: int = 1, max_length: int | None = None, batch_size: int = 128) -> list[Any]:
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
            In the order of X, without start and end; or of labels, if outputs have some.

        Raises
        ------
        FloatingPointError
            If outputs are not finite, as parameters are not, or far too large.
        """
        beam = check.positive_int(beam, "beam")
        batch_size = check.positive_int(batch_size, "batch_size")
        found = self._network.decode(*self._read(X, max_length), beam, batch_size)
        return [self.outputs.named(tokens) for tokens in found]

    def generate(
        self,
        X: Any,
        *,
        n_samples: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | np.random.Generator | None = None,
        max_length: int | None = None,
        batch_size: int = 128,
    ) -> list[Any]:
        """Sequences that each of X may become: each token is drawn from what the model makes of all before it.

        Parameters
        ----------
        X : as in `fit`
        n_samples : int, optional
            How many sequences to draw for each of X.
        temperature, top_k, top_p
            As in `SequenceModel.generate`, the end being one of the categories: with ``temperature=0`` the sequences
            are those of `predict`, bit for bit.
        seed : None, int or numpy.random.Generator
            Sequence i draws from number i of ``np.random.default_rng(seed).spawn(N)``: what comes of it does not depend
            on the others, nor on `batch_size`.
        max_length, batch_size
            As in `predict`.

        Returns
        -------
        list of integers (T_i,)
            In the order of X, without start and end; or of labels, if outputs have some. With `n_samples`, a list of so
            many of them for each of X.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            As in `predict`.

        Examples
        --------
        >>> model = Seq2Seq(Tokens(4), Categories(4), hidden_size=16, seed=0)
        >>> samples = model.generate([[0, 1], [2]], n_samples=3, temperature=0.8, top_p=0.9, seed=0)
        >>> len(samples), len(samples[0])
        (2, 3)
        """
        options, data = generation.options_of(temperature, top_k, top_p), self._read(X, max_length)
        n = 1 if n_samples is None else check.size(n_samples, "n_samples")
        batch_size, rng = check.positive_int(batch_size, "batch_size"), check.generator(seed)
        drawn = self._network.generate(*data, n, batch_size, options, rng)
        found = [[self.outputs.named(tokens) for tokens in samples] for samples in drawn]
        return found if n_samples is not None else [tokens for (tokens,) in found]

    def evaluate(
        self,
        X: Any,
        Y: Any,
        *,
        batch_size: int = 128,
        metrics: Iterable[Metric] | Mapping[str, Callable[..., Any]] | None = None,
    ) -> dict[str, float]:
        """How good the model is on a data set, given as to `fit`.

        Parameters
        ----------
        X, Y
            As in `fit`.
        batch_size : int
            As in `predict`.
        metrics : list of str and functions, or dict from names to functions, optional
            What to measure besides the loss: "exact", the default, the part of sequences that `predict` gets right from
            the first token to the end; "perplexity" and "bits_per_token", exp(loss) and loss / log 2; or functions of
            two lists of integers (T_i,), the targets and what `predict` makes of X, that return a number.

        Returns
        -------
        dict
            "loss", with the targets fed to the decoder, and the metrics.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        """
        chosen = Metrics.of(metrics, self._network.metrics)
        return self._network.evaluate(self._data(X, Y), check.positive_int(batch_size, "batch_size"), chosen)

    def __repr__(self) -> str:
        return as_made(self, Seq2Seq, self._value_of)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"learn_h_0": False} | state)  # which those of 0.1 have not

    def _network_on(self, kept: Kept) -> EncoderDecoder:
        return EncoderDecoder(self.inputs, self.outputs, (self.encoder, self.decoder), kept)

    def _read(self, X: Any, max_length: Any) -> tuple[DataSet, Int]:
        """Sequences X, and how many tokens each of them may become."""
        data = DataSet(X, self.inputs, PATTERNS["many-to-many"], self.decoder.dtype, "X")
        if max_length is None:
            return data, longest(data.lengths)
        return data, np.full(len(data.lengths), check.size_of_at_least(max_length, "max_length", 0))

    def _data(self, X: Any, Y: Any, names: Sequence[str] = ("X", "Y"), *, may_be_empty: bool = False) -> Pairs:
        del may_be_empty  # as pairs never are: they have an end to be predicted
        if isinstance(X, Windows):
            expected = f"{names[0]} must be a list of sequences or an array (N, T)"
            raise TypeError(f"{expected}, got {X}, which SequenceModel takes")
        return Pairs(X, Y, self.inputs, self.outputs, self._network.predicted, self.decoder.dtype, names)
