"""A model of sequences: a kind of input, the layer, a readout with its loss; and how it is trained and used."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.backends.activations import Activation
from elman.backends.contract import Readout
from elman.data import checks
from elman.data.inputs import Features, Input, Tokens
from elman.data.outputs import Binary, Categories, Output, Reals, penalize, total_weight, with_class_weights
from elman.data.patterns import PATTERNS
from elman.data.sequences import Batch, Inputs, Sequences
from elman.layer.parameters import Entry, Parameters
from elman.layer.rnn import RNN, mode_of, move_to, stack_of
from elman.layer.stack import Mode, Tape
from elman.layer.workspace import Lease
from elman.lengths import clipped, within
from elman.models import recomputation
from elman.models.base import Model
from elman.models.diagnostics import GradientNorms, gradient_norms
from elman.models.streaming import Stream
from elman.storage import files
from elman.training import loop
from elman.training.callbacks import Callback, Function, History
from elman.training.optimizers import Optimizer
from elman.training.plan import Descent, Plan, Schedule
from elman.typing import Int, Real

INPUTS = {"Tokens": Tokens, "Features": Features}  # kinds by the names that they have in files
OUTPUTS = {"Categories": Categories, "Binary": Binary, "Reals": Reals}
_NO_STATE = "that direction begins at the end"  # why states cannot be carried over


class SequenceModel(Model):
    """A recurrent network with a readout: o[t] = weight_ho h[t] + bias_o, and a loss between o and the targets.

    Parameters
    ----------
    inputs : Tokens or Features
        What goes in.
    outputs : Categories, Binary or Reals
        What comes out, with its loss.
    pattern : {"many-to-many", "many-to-one", "one-to-one", "one-to-many"}
        "many-to-many" has a target for every step. "many-to-one" has one for each sequence, read from its own last
        state (with both directions, from the last one of each). "one-to-one" is the same for a single step.
        "one-to-many" begins with one input and goes on with its own outputs: as the next token, or, if inputs are
        features, in further columns of the input (categories one-hot) beside features of zero. It is trained with the
        targets in the place of its outputs (teacher forcing).
    hidden_size, num_layers, nonlinearity, bidirectional, dropout, recurrent_dropout
        Those of `RNN`.
    initialization, spectral_radius, dtype, seed, backend
        Likewise.
    learn_h_0 : bool
        Whether the states before the first step, h_0 (L·D, H), are parameters like the others, the same for all
        sequences and zeros at first; otherwise they stay zeros.

    Attributes
    ----------
    rnn : RNN
        Fixed, as inputs, outputs, pattern and learn_h_0 are; what `RNN` lets be set, such as dropout, may be set here.
    metadata : dict from str to str
        Free text that is saved along, such as a vocabulary.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names it.

    Notes
    -----
    The loss of a model is the mean over the steps that have a target, Σ weight · loss / Σ weight; that of a step is in
    nats for categories and labels, and the mean over the n labels or numbers of a step.

    Examples
    --------
    A model that learns to count to three:

    >>> import numpy as np
    >>> import elman
    >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
    >>> count = np.arange(61) % 3
    >>> x, y = count[:-1, None], count[1:, None]  # 60 steps of one sequence
    >>> optimizer = elman.Adam(lr=0.01)
    >>> for _ in range(50):
    ...     loss = model.train_step(x, y, optimizer=optimizer, clip_norm=1.0)
    >>> model.generate([0, 1], 6, temperature=0).tolist()
    [2, 0, 1, 2, 0, 1]
    """

    _file_kind = "SequenceModel"
    _fixed = frozenset(("inputs", "outputs", "pattern", "learn_h_0", "rnn"))

    def __init__(
        self,
        inputs: Tokens | Features,
        outputs: Output,
        *,
        pattern: str = "many-to-many",
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        initialization: str = "uniform",
        spectral_radius: float | None = None,
        learn_h_0: bool = False,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        self.inputs = check.kind(inputs, "inputs", (Tokens, Features))
        self.outputs = check.kind(outputs, "outputs", (Categories, Binary, Reals))
        self._predicted, self._metric = self.outputs, self.outputs.metric
        self.pattern = check.choice(pattern, "pattern", PATTERNS)
        self._traits = PATTERNS[self.pattern]
        self._feeds_back = self._traits == (True, False)
        rng = self._seeded_generator(seed)
        self.rnn = RNN(
            input_size(self.inputs, self.outputs, pattern),
            hidden_size,
            num_layers,
            nonlinearity,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            bidirectional=bidirectional,
            initialization=initialization,
            spectral_radius=spectral_radius,
            dtype=dtype,
            seed=rng,
            backend=self._default_backend if backend is None else backend,
        )
        if self._feeds_back:
            self._check_feedback()
        check.addressable(
            8 * outputs.n * stack_of(self.rnn).architecture.n_outputs, n=outputs.n, hidden_size=self.rnn.hidden_size
        )
        readout = self._readout_entries(outputs.n, stack_of(self.rnn).architecture.n_outputs)
        self.learn_h_0 = check.flag(learn_h_0, "learn_h_0")
        n_states = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
        first = [Entry(("h_0",), (n_states, self.rnn.hidden_size))] if self.learn_h_0 else []
        self._parameters = Parameters([*stack_of(self.rnn).architecture.entries(), *first, *readout], self.rnn.dtype)
        move_to(self._parameters, self.rnn)
        self._draw_readout(rng)
        self._shuffle_rng = np.random.default_rng(rng.integers(1 << 63))
        self._gradient_buffer = self._zeros()
        self.metadata = {}

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
        weights: Any = None,
        activation_l2: float = 0.0,
        memory: int | str | None = None,
    ) -> float:
        """One update of the parameters: forward, back-propagation through time, clipping, the optimizer's step.

        Parameters
        ----------
        x : integers (T, B), or array (T, B, n)
            Inputs, tokens or features. Where the pattern has one for each sequence: (B,) or (B, n), or with T = 1.
        y : integers (T, B), or array (T, B, n); or (B,), (B, n)
            Targets, one for each step or, as the pattern says, for each sequence: categories, where −1 marks a missing
            one; or n labels (bool, integers or reals from 0 to 1), or n numbers. An axis of 1 may be left out. What
            "one-to-many" feeds back must not be missing before the last target.
        optimizer : Optimizer
            The same one in each step.
        clip_norm : float, optional
            The gradient is scaled down to this Euclidean norm, over all parameters (Pascanu et al., 2013).
        clip_value : float, optional
            After that, each of its values is limited to ± this.
        state : array (L·D, B, H), optional
            The states before the first step, zeros by default; updated in place to those after the last step, so that
            the next call goes on from there (truncated back-propagation). Where row b begins another sequence, set
            ``state[:, b] = 0`` before. Needs one direction, inputs at each step, and no `learn_h_0`, as gradients do
            not go back to h_0 from there; `fit` with `tbptt` takes care of that.
        lengths : integers (B,), optional
            As in `RNN`: row b has so many steps. Where it has one target all the same, at least 1.
        weights : numbers (B,) or (T, B), optional
            What each row, or each step, counts in the loss and its mean. With 0, a target does not matter and may be
            anything, NaN too, unless "one-to-many" feeds it back before one that counts.
        activation_l2 : float
            λ of a penalty on large states, λ · mean h², that is added to the loss (Merity et al., 2017): the mean over
            the last layer's units and all steps, within the lengths, whether or not they have a target.
        memory : str or int, optional
            For long sequences: states are computed twice, and kept for so many steps at a time, or for as many as need
            less than, say, "200MB". The gradients are the same to the last bit, unless there is dropout, which is drawn
            otherwise. Needs one direction.

        Returns
        -------
        float
            The mean loss, before the update, with the penalty of `activation_l2`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or the gradient is not finite. In both cases parameters and state are left as they were.
        """
        descent = Descent.of(optimizer, clip_norm, clip_value)
        l2 = check.non_negative(activation_l2, "activation_l2")
        most = self._memory(memory)
        batch = self._batch(x, y, lengths, weights)
        h_0 = self._initial_state(batch.x.shape[1], state)
        gradients = self._gradient_buffer
        gradients.flat.fill(0)
        mode = mode_of(self.rnn)
        loss, h_n = self._gradients(mode, batch, h_0, gradients, most, l2)
        self._update(loss, descent)
        if state is not None:
            state[...] = h_n
        return loss

    def loss(self, x: Any, y: Any, *, state: Real | None = None, lengths: Any = None, weights: Any = None) -> float:
        """The mean loss, without dropout and penalties. Arguments and errors are those of `train_step`.

        `state` is updated in place here, too.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> model.loss([[0], [1], [2]], [[1], [2], [0]]) < 2
        True
        """
        batch = self._batch(x, y, lengths, weights)
        h_0 = self._initial_state(batch.x.shape[1], state)
        mode = mode_of(self.rnn)
        h, h_n, lease = self._states(mode, batch.x, batch.lengths, h_0)
        loss = self._readout_loss(mode.backend, h, batch.y, batch.total, self._target_lengths(batch), batch.weights)
        lease.release()
        if state is not None:
            state[...] = h_n
        return loss

    def loss_and_grads(
        self,
        x: Any,
        y: Any,
        *,
        state: Real | None = None,
        lengths: Any = None,
        weights: Any = None,
        activation_l2: float = 0.0,
        memory: int | str | None = None,
    ) -> tuple[float, dict[str, Real]]:
        """The mean loss, as `train_step` has it, and its gradients: a dict named and shaped like `parameters()`.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> loss, gradients = model.loss_and_grads([[0], [1], [2]], [[1], [2], [0]])
        >>> gradients["weight_ho"].shape
        (3, 16)
        """
        l2 = check.non_negative(activation_l2, "activation_l2")
        most = self._memory(memory)
        batch = self._batch(x, y, lengths, weights)
        h_0 = self._initial_state(batch.x.shape[1], state)
        gradients = self._zeros()
        loss, h_n = self._gradients(mode_of(self.rnn), batch, h_0, gradients, most, l2)
        if state is not None:
            state[...] = h_n
        return loss, gradients.named()

    def gradient_norms(self, x: Any, y: Any, *, lengths: Any = None, weights: Any = None) -> GradientNorms:
        """How large the gradient of the loss is by the states of each step, and how many units hardly pass it on.

        Arguments are those of `loss`. `elman.plot.gradient_flow` draws the result.

        Returns
        -------
        norms : array (L, T)
            For each layer the Euclidean norm of ∂loss/∂h[t], over all rows and units. Where it falls towards the first
            steps, gradients vanish on their way back.
        saturated : array (L,)
            The part of a layer's states where the slope of the nonlinearity is under 2 % of its steepest.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), pattern="many-to-one", hidden_size=16, seed=0)
        >>> norms, saturated = model.gradient_norms([[0], [1], [2], [1]], [1])
        >>> bool(norms[0, 0] < norms[0, -1])
        True
        """
        batch = self._batch(x, y, lengths, weights)
        h_0 = self._initial_state(batch.x.shape[1], None)
        return gradient_norms(self, mode_of(self.rnn), batch, h_0)

    def generate(
        self,
        start: Any,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        end: int | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> Any:
        """Go on from a beginning: each output is drawn from what the model makes of all before it, and fed back.

        Parameters
        ----------
        start : int, integers (n,), or array (T, I) or (I,)
            A token, or several to begin with (a prompt); the first T steps of a series of features; or the features
            that a "one-to-many" model starts from.
        length : int
            How many outputs to draw.
        temperature : float
            Divides the outputs before the softmax or sigmoid: below 1 the likely becomes likelier; with 0 it is always
            the likeliest. Real numbers are taken as they are, whatever the temperature.
        top_k : int, optional
            Draw from the k likeliest categories only.
        top_p : float, optional
            Draw from the fewest categories that have at least this probability together (after `top_k`).
        end : int, optional
            A category that ends the sequence where it is drawn; it is not returned.
        seed : None, int or numpy.random.Generator

        Returns
        -------
        integers (length,), or for labels and numbers an array (length, n)
            The new outputs; `start` is not among them. Less than `length` if `end` was drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, if outputs are not what the next step's input can be (categories for as many
            tokens, any kind of output for as many features), or if the model is bidirectional.
        FloatingPointError
            If the outputs are not finite.

        Examples
        --------
        >>> model = SequenceModel(Features(2), Reals(2), hidden_size=8, seed=0)  # targets: the next steps' values
        >>> model.generate(np.ones((10, 2)), 5).shape  # ten steps that are known, then a forecast of five
        (5, 2)
        """
        first = self._generation_start(start)
        length = check.size_of_at_least(length, "length", 0)
        temperature = check.non_negative(temperature, "temperature")
        if not isinstance(self.outputs, Categories) and not top_k is top_p is end is None:
            check.refuse(f"top_k, top_p and end must be None for outputs that are {self.outputs}")
        top_k = None if top_k is None else check.positive_int(top_k, "top_k")
        top_p = None if top_p is None else check.positive_probability(top_p, "top_p")
        end = None if end is None else check.below(end, "end", self.outputs.n)
        rng = check.generator(seed)
        drawn: list[Any] = []
        for o in self._outputs_one_by_one(first, length, drawn):
            item = self.outputs.draw(o, rng, temperature, top_k, top_p)
            if end is not None and item == end:
                break
            drawn.append(item)
        if isinstance(self.outputs, Categories):
            return np.array(drawn, dtype=np.int64)
        dtype = np.int64 if isinstance(self.outputs, Binary) else self.rnn.dtype
        return np.array(drawn, dtype).reshape(-1, self.outputs.n)

    # Data-set level: the first axis is the sequence

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
        tbptt: tuple[int, int] | None = None,
        memory: int | str | None = None,
        activation_l2: float = 0.0,
        weights: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        shuffle: bool = True,
        callbacks: Iterable[Callback | Function] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Train on a data set.

        Parameters
        ----------
        X : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Sequences of tokens or features; (N,) or (N, n) where the pattern has one input for each. Batches gather
            sequences of about equal length, so that the cost follows the sum of the lengths.
        Y : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Targets; (N,) or (N, n) where the pattern has one for each sequence. As in `train_step` otherwise.
        epochs : int
            How often to go through the data.
        batch_size : int
            How many sequences to an update, the last one of an epoch perhaps less.
        optimizer : Optimizer, optional
            ``Adam(1e-3)`` by default.
        schedule : function (done, epochs) -> float, optional
            What the optimizer's lr is multiplied by when so many epochs are done, such as `elman.schedules.Cosine`. It
            depends on nothing but these two numbers.
        clip_norm, clip_value
            As in `train_step`.
        tbptt : (k1, k2), optional
            Truncated back-propagation through time: an update after every k1 steps, from the loss of these, with
            gradients that go back k2 steps, at least k1. States are carried on. Needs one direction and a target for
            each step.
        memory : str or int, optional
            As in `train_step`.
        activation_l2 : float
            As in `train_step`. The penalty is part of "loss" in the history, but not of "val_loss".
        weights : numbers (N,), or like Y without its last axis, optional
            As in `train_step`.
        validation_data : (X, Y) or (X, Y, weights), optional
            Data to `evaluate` the model on after each epoch.
        shuffle : bool
            Whether to go through the data in an order of its own each time, drawn from the model's seed.
        callbacks : iterable of Callback or functions
            Called after each epoch; see `elman.Callback`.
        progress : bool
            Whether to show a progress bar.
        checkpoint : str or path, optional
            A file that holds the model and all that training needs to go on, written after each epoch, and when Ctrl-C
            stops it. It appears whole or not at all, and `elman.load` reads it, too.
        checkpoint_every : int, optional
            Write it after so many updates as well.
        resume : bool
            Go on from `checkpoint`, if there is one, as if nothing had happened, bit for bit: model, optimizer and
            callbacks become what they were. `epochs` may be any number that is not below the epochs begun; `progress`,
            `checkpoint_every` and those of the `callbacks` that keep no state may be others, as may the model's backend
            and metadata, and the number of threads. Everything else must be what it was, or nothing is changed and an
            error says what differs: the other arguments (data by their sizes and a hash of up to a million values, a
            schedule by a thousand of its values), and the model's configuration and seed, if it was given one. Without
            dropout, `memory` may differ, too. A run that a callback has stopped is over.

        Returns
        -------
        History
            A dict of lists, with a value for each epoch: "loss", the mean in training, and with validation data
            "val_loss" and "val_accuracy" (for real numbers "val_r2").

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.

        Examples
        --------
        >>> import elman
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> X, Y = [[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]
        >>> history = model.fit(X, Y, epochs=20, optimizer=elman.Adam(0.01), progress=False)
        >>> history["loss"][-1] < history["loss"][0]
        True
        """
        if tbptt is not None:
            tbptt = self._truncation(tbptt)
            if memory is not None:
                check.refuse("memory must be None where there is tbptt, which keeps no more than its steps")
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
        l2 = check.non_negative(activation_l2, "activation_l2")
        descent = plan.descent._replace(tbptt=tbptt, memory=self._memory(memory), activation_l2=l2)
        held_out = None if validation_data is None else self._validation_data(validation_data)
        return loop.fit(self, self._data(X, Y, weights), held_out, plan._replace(descent=descent))

    def predict(self, X: Any, *, batch_size: int = 128) -> Any:
        """The likeliest labels, or the numbers, for a data set X as `fit` takes it.

        Returns
        -------
        For a target per step, an item for each sequence: (T_i,) categories, or (T_i, n) labels 0 and 1 or numbers; in
        a list, or in one array if X is an array. For one per sequence, an array (N,) of categories, or (N, n).

        Raises
        ------
        FloatingPointError
            If the outputs are not finite, as parameters are not, or far too large.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(4), pattern="many-to-one", hidden_size=16, seed=0)
        >>> model.predict([[0, 1, 2, 0], [1, 2]]).shape
        (2,)
        """
        return self._mapped(X, batch_size, self.outputs.predict)

    def predict_proba(self, X: Any, *, batch_size: int = 128) -> Any:
        """The probability of each category, or of each label being 1: (T_i, n) for each sequence, or (N, n)."""
        self.outputs.probabilities(np.zeros((1, self.outputs.n)))  # refuses what has none
        return self._mapped(X, batch_size, self.outputs.probabilities)

    def evaluate(self, X: Any, Y: Any, *, weights: Any = None, batch_size: int = 128) -> dict[str, float]:
        """How good the model is on a data set, given as to `fit`.

        Returns
        -------
        dict
            "loss", without dropout, and "accuracy", the weighted part of targets that are predicted right (labels above
            0.5 are taken for 1), or for real numbers "r2", the part of their variance that is explained.

        Raises
        ------
        FloatingPointError
            As in `predict`.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> sorted(model.evaluate([[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]))
        ['accuracy', 'loss']
        """
        return self._evaluate(self._data(X, Y, weights), check.positive_int(batch_size, "batch_size"))

    def stream(self, batch_size: int | None = None) -> Stream:
        """Predictions for sequences that come in bit by bit: the same, bit for bit, as for the whole.

        Parameters
        ----------
        batch_size : int, optional
            How many sequences side by side; without it, one, whose chunks have no axis B.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> stream = model.stream()
        >>> [*stream.predict([0, 1]), *stream.predict([2])] == model.predict([[0, 1, 2]])[0].tolist()
        True
        """
        if self.rnn.bidirectional:
            check.refuse(f"stream is not possible with bidirectional=True: {_NO_STATE}")
        if self._traits.one_input:
            check.refuse(f"stream needs inputs at each step, got pattern={self.pattern!r}")
        if batch_size is not None:
            batch_size, rnn = check.size(batch_size, "batch_size"), self.rnn
            of_row = 8 * rnn.num_layers * rnn.hidden_size
            check.addressable(of_row * batch_size, batch_size=batch_size, hidden_size=rnn.hidden_size)
        return Stream(self, batch_size)

    def _config(self) -> dict[str, Any]:
        rnn = self.rnn
        return {
            "inputs": {"kind": type(self.inputs).__name__, "n": self.inputs.n},
            "outputs": output_config(self.outputs),
            "pattern": self.pattern,
            "hidden_size": rnn.hidden_size,
            "num_layers": rnn.num_layers,
            "nonlinearity": rnn.nonlinearity,
            "bidirectional": rnn.bidirectional,
            "dropout": rnn.dropout,
            "recurrent_dropout": rnn.recurrent_dropout,
            "dtype": rnn.dtype.name,
            **({"learn_h_0": True} if self.learn_h_0 else {}),  # files without it are as they ever were
        }

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(SequenceModel).parameters.items():
            if name != "seed":
                value = getattr(self if name in ("inputs", "outputs", "pattern", "learn_h_0") else self.rnn, name)
                value = value.name if name == "dtype" else value
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                    shown.append(repr(value))
                elif value != parameter.default:
                    shown.append(f"{name}={value!r}")
        n_parameters = sum(array.size for array in self.parameters().values())
        return f"{type(self).__name__}({', '.join(shown)}) with {n_parameters} parameters"

    # Validation of what comes in

    def _check_feedback(self) -> None:
        if self.rnn.bidirectional:
            check.refuse("pattern='one-to-many' is not possible with bidirectional=True: outputs are fed back")
        is_token = isinstance(self.outputs, Categories) and self.outputs.n <= self.inputs.n
        if isinstance(self.inputs, Tokens) and not is_token:
            check.refuse(
                f"pattern='one-to-many' with tokens needs outputs that are inputs, got {self.outputs} and {self.inputs}"
            )

    def _batch(self, x: Any, y: Any, lengths: Any, weights: Any) -> Batch:
        """A step's arguments as the network takes them."""
        pattern, dtype = self._traits, self.rnn.dtype
        if pattern.one_input:
            x = self.inputs.array(x, "x", dtype, ("B",), (1, "B"))
            x = x if x.ndim == (2 if isinstance(self.inputs, Tokens) else 3) else x[None]
        else:
            x = self.inputs.array(x, "x", dtype, ("T", "B"), row_lengths=lengths)
        n_steps, n_rows = x.shape[:2]
        if self._feeds_back:
            n_steps = checks.n_steps(y, "y")
        if lengths is not None:
            lengths = check.lengths(lengths, n_rows, n_steps)
        if pattern.one_output:
            shapes = [(n_rows,), (1, n_rows)] if pattern.one_input else [(n_rows,)]
            read = self._read((1, n_rows), None, weights)
            y = self.outputs.targets(y, "y", dtype, *shapes, read=read)
            y = y.reshape((1, n_rows) if isinstance(self.outputs, Categories) else (1, n_rows, self.outputs.n))
            if lengths is not None and not lengths.all():
                has_target = self.outputs.has_target(y)
                checks.no_empty_rows(lengths, (has_target if read is None else has_target & read.counts())[0])
        else:
            read = self._read((n_steps, n_rows), lengths, weights)
            y = self.outputs.targets(y, "y", dtype, (n_steps, n_rows), read=read)
        if self._feeds_back:
            if isinstance(self.outputs, Categories):
                checks.no_gaps(y, "y", read)
            x = self._taught(x, y)
        return self._weighed(_own(x), _own(y), lengths, weights)

    def _read(self, shape: tuple[int, int], lengths: Int | None, weights: Any) -> checks.Read | None:
        """Which targets (T, B) are looked at, None for all."""
        if lengths is None and weights is None:
            return None

        def counts() -> NDArray[np.bool_]:
            own = np.ones(shape, dtype=bool) if lengths is None else within(shape[0], lengths)
            if weights is None:
                return own
            return own & (checks.weights(weights, "weights", self.rnn.dtype, shape[1:], shape) > 0)

        return checks.Read(counts, self._feeds_back)

    def _weighed(self, x: Real | Int, y: Real | Int, lengths: Int | None, weights: Any) -> Batch:
        if weights is not None:
            weights = checks.weights(weights, "weights", self.rnn.dtype, (y.shape[1],), y.shape[:2])
            weights = np.broadcast_to(weights, y.shape[:2])
        if self.outputs.class_weights is not None:
            weights = with_class_weights(self.outputs, y, weights, self.rnn.dtype)
        total = total_weight(self.outputs, y, weights, None if self._traits.one_output else lengths)
        checks.any_weight(total, "y", weights is not None)
        return Batch(x, y, lengths, weights, total)

    def _initial_state(self, n_rows: int, state: Real | None) -> Real:
        """The states (L·D, B, H) before the first step."""
        shape = (self.rnn.num_layers * (2 if self.rnn.bidirectional else 1), n_rows, self.rnn.hidden_size)
        if state is None:
            first = np.zeros(shape, self.rnn.dtype)
            if self.learn_h_0:
                first += self.parameters()["h_0"][:, None]
            return first
        if self.learn_h_0:
            check.refuse("state must be None with learn_h_0=True, which is about the states that all begin with")
        if self.rnn.bidirectional:
            check.refuse(f"state must be None with bidirectional=True: {_NO_STATE}")
        if self._traits.one_input:
            check.refuse(f"state must be None with pattern={self.pattern!r}, whose input comes first")
        return _updatable(state, "state", self.rnn.dtype, shape)

    def _generation_start(self, start: Any) -> Real | Int:
        """What `generate` begins with, as input (T, 1, ·) of the layer."""
        if self.rnn.bidirectional:
            check.refuse("generate is not possible with bidirectional=True: that direction begins at the end")
        if self._feeds_back and isinstance(self.inputs, Features):
            first = np.zeros((1, 1, self.rnn.input_size), self.rnn.dtype)
            first[0, 0, : self.inputs.n] = self.inputs.array(start, "start", self.rnn.dtype, ())
            return first
        if not self._feeds_back:
            is_input = isinstance(self.inputs, Features) or isinstance(self.outputs, Categories)
            if self._traits != (False, False) or not is_input or self.outputs.n != self.inputs.n:
                check.refuse(f"generate needs outputs that are inputs, got {self.outputs} and {self.inputs}")
        shapes = [("T",)] if isinstance(self.inputs, Features) else [(), ("n",)]
        steps: Real | Int = np.atleast_1d(self.inputs.array(start, "start", self.rnn.dtype, *shapes))
        return steps[:, None]

    def _truncation(self, tbptt: Any) -> tuple[int, int]:
        k1, k2 = check.pair(tbptt, "tbptt")
        k1, k2 = check.positive_int(k1, "tbptt[0]"), check.positive_int(k2, "tbptt[1]")
        if k2 < k1:
            check.refuse(f"tbptt must be (k1, k2) with k2 at least k1, got ({k1}, {k2}): steps would be left out")
        if self.rnn.bidirectional:
            check.refuse(f"tbptt is not possible with bidirectional=True: {_NO_STATE}")
        if self._traits.one_output:
            check.refuse(f"tbptt needs a target for each step, got pattern={self.pattern!r}")
        return k1, k2

    @classmethod
    def _from_file(cls, config: dict[str, Any], state: dict[str, Real], backend: str | None) -> SequenceModel:
        """The model that `_config` described. What is wrong is an error of any kind."""
        inputs, outputs = kind_in_file(config, "inputs", INPUTS), kind_in_file(config, "outputs", OUTPUTS)
        check.choice(config["pattern"], "pattern", PATTERNS)
        layers, width = files.stack_size(input_size(inputs, outputs, config["pattern"]), **config)
        is_learned = check.flag(config.get("learn_h_0", False), "learn_h_0")
        files.check_size(state, layers + outputs.n * (width + 1) + is_learned * config["num_layers"] * width)
        model = cls(inputs, outputs, backend=backend, seed=0, **config)
        model._seed = None  # nobody asked for the one above
        model.load_state_dict(state)
        return model

    def _memory(self, memory: Any) -> float | None:
        """Time steps (an int), bytes (a float), or no limit."""
        if memory is not None and self.rnn.bidirectional:
            check.refuse(f"memory must be None with bidirectional=True: {_NO_STATE}")
        return recomputation.memory_limit(memory, "memory")

    def _data(self, X: Any, Y: Any, weights: Any, names: tuple[str, str, str] = ("X", "Y", "weights")) -> Sequences:
        return Sequences(
            X,
            Y,
            weights,
            inputs=self.inputs,
            outputs=self.outputs,
            pattern=self._traits,
            dtype=self.rnn.dtype,
            names=names,
        )

    def _validation_data(self, value: Any) -> Sequences:
        name = "validation_data"
        X, Y, weights = _pair_or_triple(value, name)
        return self._data(X, Y, weights, names=(f"{name}[0]", f"{name}[1]", f"{name}[2]"))

    # From here on nothing is validated

    def _layers(self) -> list[RNN]:
        return [self.rnn]

    def _ready(self, data: Sequences, rows: Int) -> Batch:
        """Some of a data set's sequences as the network takes them."""
        batch = data.batch(rows)
        return batch._replace(x=self._taught(batch.x, batch.y)) if self._feeds_back else batch

    def _taught(self, x: Real | Int, y: Real | Int) -> Real | Int:
        """Teacher forcing: the first input x (1, B, ·), then the target of the step before (T, B, ·).

        What is fed back at a step without target does not matter, as no target comes after it.
        """
        n_steps, n_rows = y.shape[:2]
        if isinstance(self.inputs, Tokens):
            return np.concatenate([x, y[:-1].clip(0, self.outputs.n - 1)])
        taught = np.zeros((n_steps, n_rows, self.rnn.input_size), self.rnn.dtype)
        taught[0, :, : self.inputs.n] = x[0]
        self.outputs.feed(y[:-1], taught[1:, :, self.inputs.n :])
        return taught

    def _target_lengths(self, batch: Batch) -> Int | None:
        """How many targets each row has, None for all T."""
        if self._traits.one_output or batch.lengths is None:
            return None
        n_skipped = len(batch.x) - len(batch.y)
        return (batch.lengths - n_skipped).clip(0) if n_skipped else batch.lengths

    def _last(self, h_n: Real) -> Real:
        """The last layer's final states, of all directions: (1, B, D·H) of (L·D, B, H)."""
        if not self.rnn.bidirectional:
            return h_n[-1:]
        return np.ascontiguousarray(h_n[-2:].swapaxes(0, 1)).reshape(1, h_n.shape[1], -1)

    def _states(self, mode: Mode, x: Real | Int, lengths: Int | None, h_0: Real) -> tuple[Real, Real, Lease]:
        """What the readout sees (T, B, D·H), or with one output (1, B, D·H); the last states; what holds their memory.

        Without dropout.
        """
        h_n = np.empty_like(h_0)
        lease = stack_of(self.rnn).lease(*x.shape[:2])
        stack_of(self.rnn).evaluate(mode, x, h_0, h_n, lease.arrays[0], lengths)
        return self._last(h_n) if self._traits.one_output else lease.arrays[0], h_n, lease

    def _differentiate(
        self, mode: Mode, batch: Batch, h_0: Real, gradients: Parameters, l2: float, *, is_first: bool = True
    ) -> tuple[float, Real, Tape]:
        """The mean loss and the states after the last step; the loss's gradients are added to `gradients`.

        Where there are fewer targets than inputs, they are those of the last steps. Where sequences do not begin here,
        `h_0` is no parameter.
        """
        rnn, d_y, d_h_n, scale = self.rnn, None, None, self._penalty_scale(batch, l2)
        h_n, d_h_0 = np.empty_like(h_0), np.empty_like(h_0)
        stack = stack_of(rnn)
        tape = stack.forward(mode, batch.x, h_0, h_n, lengths=batch.lengths)
        if self._traits.one_output:
            loss, d_h_n = self._loss_of_last(mode, batch, h_n, gradients)
            if l2:
                h, d_y = tape.outputs[-1], np.zeros((*batch.x.shape[:2], stack.architecture.n_outputs), rnn.dtype)
                loss += penalize(h, batch.lengths, scale, d_y)
        else:
            lease = stack.lease(*batch.x.shape[:2])
            h, d_y = tape.outputs[-1], lease.arrays[0]
            d_h, n_skipped = d_y, len(batch.x) - len(batch.y)
            if n_skipped:
                d_y[:n_skipped] = 0
                h, d_h = h[n_skipped:], d_h[n_skipped:]
            lengths = self._target_lengths(batch)
            loss = self._readout_loss(mode.backend, h, batch.y, batch.total, lengths, batch.weights, d_h, gradients)
            if l2:
                loss += penalize(h, lengths, scale, d_h)
        stack.backward(tape, d_y, d_h_n, d_h_0, None, gradients)
        if is_first:
            self._learn_h_0(d_h_0, gradients)
        return loss, h_n, tape

    def _penalty_scale(self, batch: Batch, l2: float) -> float:
        """What makes Σ h² l2 times the mean: over all steps, in a window over those with targets."""
        if not l2:
            return 0.0
        one = self._traits.one_output
        lengths = batch.lengths if one else self._target_lengths(batch)
        n_steps = len(batch.x if one else batch.y) * batch.x.shape[1] if lengths is None else int(lengths.sum())
        return l2 / (n_steps * stack_of(self.rnn).architecture.n_outputs)

    def _learn_h_0(self, d_h_0: Real, gradients: Parameters) -> None:
        """The gradient by h_0 (L·D, H), with which all rows begin: the sum of theirs, (L·D, B, H)."""
        if self.learn_h_0:
            with np.errstate(all="ignore"):  # the update says if they are not finite
                gradients.named()["h_0"] += d_h_0.sum(axis=1, dtype=np.float64)

    def _loss_of_last(self, mode: Mode, batch: Batch, h_n: Real, gradients: Parameters) -> tuple[float, Real]:
        """The mean loss of the last states (L·D, B, H), and its gradient by them; the readout's is added."""
        h, d_h_n, n_directions = (
            self._last(h_n),
            np.zeros_like(h_n),
            stack_of(self.rnn).architecture.n_outputs // self.rnn.hidden_size,
        )
        d_h = np.empty_like(h)
        loss = self._readout_loss(mode.backend, h, batch.y, batch.total, None, batch.weights, d_h, gradients)
        d_h_n[-n_directions:] = d_h.reshape(-1, n_directions, self.rnn.hidden_size).swapaxes(0, 1)
        return loss, d_h_n

    def _gradients(
        self, mode: Mode, batch: Batch, h_0: Real, gradients: Parameters, memory: float | None, l2: float
    ) -> tuple[float, Real]:
        """The mean loss and the last states, as `_differentiate` has them, in so many steps or bytes at a time."""
        if memory is not None:
            n = recomputation.segment_length(self, batch, memory)
            if n < len(batch.x):
                return recomputation.differentiate(self, mode, batch, h_0, gradients, n, l2)
        loss, h_n, _ = self._differentiate(mode, batch, h_0, gradients, l2)
        return loss, h_n

    def _n_windows(self, batch: Batch, descent: Descent) -> int:
        """How many updates a batch leads to."""
        return 1 if descent.tbptt is None else -(-len(batch.x) // descent.tbptt[0])

    def _gradients_of(
        self, batch: Batch, descent: Descent, window: int, state: Real | None
    ) -> tuple[float, float, Real | None]:
        """One update's mean loss, the weight of its targets, and the state that the next window begins with.

        The gradients are in the buffer of the model, which is otherwise as it was.
        """
        gradients, mode = self._gradient_buffer, mode_of(self.rnn)
        gradients.flat.fill(0)
        if descent.tbptt is None:
            h_0 = self._initial_state(batch.x.shape[1], None)
            loss, _ = self._gradients(mode, batch, h_0, gradients, descent.memory, descent.activation_l2)
            return loss, batch.total, None
        k1, _ = descent.tbptt
        start, next_start = (_first_step(descent.tbptt, i) for i in (window, window + 1))
        batch = self._window(batch, start, window * k1, (window + 1) * k1)
        h_0 = self._initial_state(batch.x.shape[1], None) if state is None or start == 0 else state
        if batch.total > 0:
            l2 = descent.activation_l2
            loss, h_n, tape = self._differentiate(mode, batch, h_0, gradients, l2, is_first=start == 0)
        else:
            loss, h_n = 0.0, np.empty_like(h_0)
            tape = stack_of(self.rnn).forward(mode, batch.x, h_0, h_n, lengths=batch.lengths)
        return loss, batch.total, _state_after(next_start - start, h_0, h_n, tape)

    def _rows_of(self, batch: Batch, descent: Descent, window: int) -> NDArray[np.bool_]:
        """Which rows (B,) have steps in a window."""
        assert descent.tbptt is not None  # else there are no windows
        lengths = np.full(batch.x.shape[1], len(batch.x)) if batch.lengths is None else batch.lengths
        return np.asarray(lengths > _first_step(descent.tbptt, window))

    def _weight_before(self, batch: Batch, descent: Descent, window: int) -> float:
        """That of the targets of the windows before this one."""
        assert descent.tbptt is not None  # else there are no windows
        return self._window(batch, 0, 0, window * descent.tbptt[0]).total

    def _window(self, batch: Batch, start: int, first_target: int, end: int) -> Batch:
        """The steps from `start` to `end`, with the targets from `first_target` on."""
        x, y = batch.x[start:end], batch.y[first_target:end]
        weights = None if batch.weights is None else batch.weights[first_target:end]
        lengths = clipped(batch.lengths, start, len(x))
        part = Batch(x, y, lengths, weights, 0.0)
        return part._replace(total=total_weight(self.outputs, y, weights, self._target_lengths(part)))

    def _mapped(self, X: Any, batch_size: int, function: Any) -> Any:
        """function(outputs) for each sequence of a data set."""
        if self._feeds_back:
            check.refuse(f"pattern={self.pattern!r} has no inputs to predict from at each step: use generate")
        pattern, mode = self._traits, mode_of(self.rnn)
        data = Inputs(X, self.inputs, pattern, self.rnn.dtype, "X")
        results: Any = [None] * len(data.lengths)
        for rows in data.groups(check.positive_int(batch_size, "batch_size")):
            x, lengths = data.inputs_of(rows)
            h, _, lease = self._states(mode, x, lengths, self._initial_state(len(rows), None))
            o = self._readout(mode.backend, h, None if pattern.one_output else lengths)
            values = function(o).swapaxes(0, 1)  # (B, T, ·), or (B, 1, ·)
            lease.release()
            if pattern.one_output or data.is_array:
                values = values[:, 0] if pattern.one_output else values
                if isinstance(results, list):
                    results = np.empty((len(results), *values.shape[1:]), values.dtype)
                results[rows] = values
            else:
                for b, row in enumerate(rows):
                    results[row] = values[b, : data.lengths[row]].copy()
        return results

    def _evaluate(self, data: Sequences, batch_size: int) -> dict[str, float]:
        """`evaluate`, of validated data."""
        mode = mode_of(self.rnn)
        losses, totals, kept = [], [], []
        for rows in data.groups(batch_size):
            batch = self._ready(data, rows)
            h, _, lease = self._states(mode, batch.x, batch.lengths, self._initial_state(len(rows), None))
            lengths = self._target_lengths(batch)
            losses.append(self._readout_loss(mode.backend, h, batch.y, batch.total, lengths, batch.weights))
            totals.append(batch.total)
            counts = self.outputs.has_target(batch.y)
            if lengths is not None:
                counts = counts & within(len(batch.y), lengths)
            weights = data.user_weights(rows, batch.y)
            if weights is not None:
                counts = counts & (weights > 0)  # the others' targets are anything, and may overflow
            predicted = self.outputs.predict(self._readout(mode.backend, h, lengths))
            lease.release()
            kept.append(
                (batch.y[counts], predicted[counts], np.ones(counts.sum()) if weights is None else weights[counts])
            )
        y, predicted, weights = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        loss = float(np.average(losses, weights=totals))
        return {"loss": loss, self.outputs.metric: self.outputs.score(y, predicted, weights)}

    def _outputs_one_by_one(self, first: Real | Int, length: int, drawn: list[Any]) -> Iterator[Real]:
        """Outputs (n,) after `first` (T, 1, ·), and then after each of what the caller has added to `drawn`."""
        mode, rnn = mode_of(self.rnn), self.rnn
        h = self._initial_state(1, None)
        h_next, o = np.empty_like(h), np.empty((1, 1, self.outputs.n), rnn.dtype)
        with stack_of(rnn).lease(len(first), 1) as (y,):
            stack_of(rnn).evaluate(mode, first, h, h_next, y)
        x_t = np.zeros_like(first[0])
        n_given = self.inputs.n if self._feeds_back else 0  # features beside what is fed back
        for i in range(length):
            if i and x_t.ndim == 1:
                x_t[0] = drawn[-1]
            elif i:
                self.outputs.feed(np.asarray(drawn[-1]), x_t[0, n_given:])
            if i:
                stack_of(rnn).step(mode.backend, mode.activation, x_t, h, h_next)
            h, h_next = h_next, h
            mode.backend.readout(Readout(h[-1:], *self._readout_arrays(self._parameters), o))
            yield o[0, 0]


def _own(array: Real | Int) -> Real | Int:
    """Tokens and categories as a copy, which kernels index with: another thread may change a caller's meanwhile."""
    return array.copy() if array.dtype.kind == "i" else array


def _first_step(tbptt: tuple[int, int], window: int) -> int:
    """Where a window begins: k2 steps before it ends, or with the sequences."""
    k1, k2 = tbptt
    return max(0, (window + 1) * k1 - k2)


def _state_after(n: int, h_0: Real, h_n: Real, tape: Tape) -> Real:
    """The states (L, B, H) after n steps of a pass; anything for sequences that have ended before."""
    if n == 0:
        return h_0
    if n >= len(tape.outputs[0]):
        return h_n
    return np.array([y[n - 1] for y in tape.outputs])


def input_size(inputs: Input, outputs: Output, pattern: str) -> int:
    """The I of the layer: features have what is fed back beside them."""
    return inputs.n + (outputs.n if pattern == "one-to-many" and isinstance(inputs, Features) else 0)


def kind_in_file(config: dict[str, Any], name: str, kinds: Mapping[str, Any]) -> Any:
    """Take an input or output out of a configuration that describes it by its kind and its arguments."""
    described = dict(config.pop(name))
    return kinds[check.choice(described.pop("kind"), f"the kind of its {name}", kinds)](**described)


def output_config(outputs: Output) -> dict[str, Any]:
    given = outputs.class_weights
    described = {} if given is None else {"class_weights": given.tolist()}
    return {"kind": type(outputs).__name__, "n": outputs.n, **described}


def _pair_or_triple(value: Any, name: str) -> tuple[Any, Any, Any]:
    """The third is None if it is not given."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be (X, Y) or (X, Y, weights), got {check.shown(value)}")
    if len(value) not in (2, 3):
        raise ValueError(f"{name} must be (X, Y) or (X, Y, weights), got {len(value)} items")
    return value[0], value[1], value[2] if len(value) == 3 else None


def _updatable(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Real:
    """The values of an array that the caller will write to: as C-contiguous memory, the array's own if possible."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"{name} is updated in place and must be an array of {dtype}, got {check.shown(value)}")
    check.shape(value.shape, name, (shape,))
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must be writeable, got a read-only array")
    flags = value.flags  # asarray: of a subclass, a memory map say, the plain array
    return np.asarray(value) if flags.c_contiguous and flags.aligned else np.array(value, order="C")
