"""A model of sequences: a kind of input, the layer, a readout with its loss; and how it is trained and used.

Here arguments are checked, and described. What is computed of them is in network.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elman import check
from elman.attributes import as_made
from elman.backends.activations import Activation
from elman.data import checks
from elman.data.batches import batch_of
from elman.data.columns import Columns
from elman.data.inputs import Features, Tokens
from elman.data.kinds import PATTERNS, Kinds
from elman.data.learned import as_before_if_untrained, learn, warn_of_large
from elman.data.metrics import Metric, Metrics
from elman.data.named import learn_labels
from elman.data.outputs import Binary, Categories, Labels, Output, Reals
from elman.data.sequences import DataSet, Sequences, Window
from elman.data.windows import Windows
from elman.layer.constraints import ReadoutConstraints, of_rnn, unwritable
from elman.layer.dynamics import row_keys
from elman.layer.parameters import Parameters
from elman.layer.resets import check_forward
from elman.layer.rnn import RNN, stack_of
from elman.models import forecasting, generation
from elman.models.base import Model
from elman.models.curvature import gauss_newton_product, vector_of
from elman.models.diagnostics import GradientNorms, gradient_norms
from elman.models.network import Kept, SequenceNetwork, entries_of, generator_of
from elman.models.recomputation import memory_of
from elman.models.streaming import Stream
from elman.training.callbacks import Callback, Function, History
from elman.training.fit import divided, fit
from elman.training.optimizers import Optimizer
from elman.training.plan import Descent, Penalties, Plan, Schedule, Trained
from elman.training.ranks import joined
from elman.training.streamed import data_of
from elman.typing import Real

_NO_STATE = "that direction begins at the end"  # why states cannot be carried over
_NAMES = "X", "Y", "weights", "resets"


class SequenceModel(Model):
    """A recurrent network with a readout: o[t] = weight_ho h[t] + bias_o, and a loss between o and the targets.

    Parameters
    ----------
    inputs : Tokens, Features or Columns
        What goes in. `Tokens` may have an embedding, which `Columns` have for each that has one.
    outputs : Categories, Binary, Reals or Labels
        What comes out, with its loss.
    pattern : {"many-to-many", "many-to-one", "one-to-one", "one-to-many"}
        "many-to-many" has a target for every step. "many-to-one" has one for each sequence, read from its own last
        state (with both directions, from the last one of each). "one-to-one" is the same for a single step.
        "one-to-many" begins with one input and goes on with its own outputs: as the next token, or, if inputs are
        features, in further columns of the input (categories one-hot) beside features of zero. It is trained with the
        targets in the place of its outputs (teacher forcing).
    hidden_size, num_layers, nonlinearity, bidirectional, reverse, dropout, recurrent_dropout
        Those of `RNN`.
    leak, noise, form, learn_leak, input_noise
        Likewise. There is noise in training, and where a `noise_seed` is given. The readout sees outputs, f(v) with
        form="potential", and what goes from one call to the next are states, v. In `fit`, a row's noise depends on the
        run, the epoch, and the row's place in the data set alone. `input_noise` needs features.
    signs, excitatory, mask_hh, mask_ih
        Likewise. The weights of the readout have no signs of units.
    mask_ho : bools (O, D·H), optional
        Which elements of weight_ho there are. The others act as 0.
    readout_from : "excitatory", optional
        Let the readout see only the units that have the sign +1.
    tied : bool
        Whether weight_ho is the embedding of the inputs as well: of `Tokens`, for as many `Categories`, with an
        embedding_dim of D·H (Press & Wolf, 2017). It is there once, as "weight_ho", and begins like one, or with the
        embedding that is given.
    initialization, spectral_radius, dtype, seed, backend
        Those of `RNN`.
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
    nats for categories and labels, and the mean over the n labels or numbers of a step. Where `Reals` have a `Scaler`,
    it is that of scaled numbers, and so are gradients.

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

    _fixed = frozenset(("inputs", "outputs", "pattern", "learn_h_0", "mask_ho", "readout_from", "tied", "rnn"))

    def __init__(
        self,
        inputs: Tokens | Features | Columns,
        outputs: Output,
        *,
        pattern: str = "many-to-many",
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bidirectional: bool = False,
        reverse: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        initialization: str = "uniform",
        spectral_radius: float | None = None,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        input_noise: float = 0.0,
        signs: Any = None,
        excitatory: float | None = None,
        mask_hh: Any = None,
        mask_ih: Any = None,
        mask_ho: Any = None,
        readout_from: str | None = None,
        tied: bool = False,
        learn_h_0: bool = False,
        dtype: Any = "float32",
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        given = check.kind(inputs, "inputs", (Tokens, Features, Columns))
        given.check_addressable()
        self.inputs = inputs = given.one_s_own()
        self.outputs = outputs = check.kind(outputs, "outputs", (Categories, Binary, Reals, Labels)).one_s_own()
        self.pattern = check.choice(pattern, "pattern", PATTERNS)
        rng, asked = generator_of(seed)
        kinds = Kinds(inputs, outputs, PATTERNS[pattern], check.real_dtype(dtype))
        self.rnn = RNN(
            kinds.input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            bidirectional=bidirectional,
            reverse=reverse,
            initialization=initialization,
            spectral_radius=spectral_radius,
            leak=leak,
            noise=noise,
            form=form,
            learn_leak=learn_leak,
            input_noise=input_noise,
            signs=signs,
            excitatory=excitatory,
            mask_hh=mask_hh,
            mask_ih=mask_ih,
            dtype=dtype,
            seed=rng,
            backend=self._default_backend if backend is None else backend,
        )
        if self.rnn.input_noise > 0 and not isinstance(inputs, Features):
            kind = type(inputs).__name__.lower()
            check.refuse(f"input_noise must be 0 where inputs are {kind}, got {input_noise}")
        architecture = stack_of(self.rnn).architecture
        if kinds.feeds_back and architecture.runs_back:
            check.refuse(f"pattern='one-to-many' is not possible with {architecture.runs_back}: outputs are fed back")
        kinds.check_feedback()
        self.learn_h_0 = check.flag(learn_h_0, "learn_h_0")
        below = of_rnn(self.rnn), architecture
        self.mask_ho, self.readout_from = ReadoutConstraints.of(mask_ho, readout_from, outputs.n_units, *below)
        self.tied = check.flag(tied, "tied")
        if self.tied:
            self._check_tied(kinds, architecture.n_outputs)
        h_0 = architecture.initial_entries(is_learned=self.learn_h_0)
        entries = [*architecture.entries(), *([] if self.tied else entries_of(inputs)), *h_0]
        kept = Kept.drawn(entries, self.rnn, given, outputs.n_units, rng, asked)
        self._network: SequenceNetwork = self._network_on(kept)
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
        activation_l1: float = 0.0,
        activation_l2: float = 0.0,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        memory: int | str | None = None,
        trainable: Iterable[str] | None = None,
        noise_seed: Any = None,
        resets: Any = None,
    ) -> float:
        """One update of the parameters: forward, back-propagation through time, clipping, the optimizer's step.

        Parameters
        ----------
        x : integers (T, B), or array (T, B, n)
            Inputs: tokens or their labels, features or columns. Where the pattern has one for each sequence: (B,) or
            (B, n), or with T = 1.
        y : integers (T, B), or array (T, B, n); or (B,), (B, n)
            Targets, one for each step or, as the pattern says, for each sequence: categories, where −1 marks a missing
            one, and None among those with labels; or n labels (bool, integers or reals from 0 to 1), or n numbers, NaN
            where `Reals` take that for missing. An axis of 1 may be left out. What "one-to-many" feeds back must not be
            missing before the last target.
        optimizer : Optimizer
            The same one in each step.
        clip_norm : float, optional
            The gradient is scaled down to this Euclidean norm, over all parameters (Pascanu et al., 2013).
        clip_value : float, optional
            After that, each of its values is limited to ± this.
        state : array (L·D, B, H), optional
            The states before the first step, zeros by default; updated in place to those after the last step, so that
            the next call goes on from there (truncated back-propagation). Where row b begins another sequence, set
            ``state[:, b] = 0`` before, or give `resets`. Needs the forward direction alone, inputs at each step, and no
            `learn_h_0`, as gradients do not go back to h_0 from there; `fit` with `tbptt` takes care of that.
        lengths : integers (B,), optional
            As in `RNN`: row b has so many steps. Where it has one target all the same, at least 1.
        weights : numbers (B,) or (T, B), optional
            What each row, or each step, counts in the loss and its mean. With 0, a target does not matter and may be
            anything, NaN too, unless "one-to-many" feeds it back before one that counts.
        activation_l1, activation_l2 : float
            λ₁ and λ₂ of penalties on large outputs of the last layer, h, or f(v) with form="potential": λ₁ times the
            mean of their absolute values and λ₂ times that of their squares are added to the loss (Merity et al.,
            2017), the mean being over its units and all steps, within the lengths, whether or not they have a target.
        weight_l1, weight_l2 : float
            λ₁ and λ₂ of penalties on large weights, as they act, the readout's among them, but neither biases nor
            embeddings that are not tied: λ₁ times the sum of their absolute values and λ₂ times that of their squares.
        memory : str or int, optional
            For long sequences: states are computed twice, and kept for so many steps at a time, or for as many as need
            less than, say, "200MB". The gradients are the same to the last bit (with a leak, or on NumPy, to rounding),
            the loss to rounding, as it is a sum of parts. Not with `reverse`, and with `bidirectional` in one layer
            only, whose states are computed three times, or, where each sequence has one target, four; there, noise of
            units whose leaks are learned is refused.
        trainable : list of str, optional
            The names of parameters to change, or patterns such as "bias_*"; by default all. The others stay as they
            are, weight decay or not; there is no work for their gradients, which are no part of the norm either.
        noise_seed : int or integers (B,), optional
            As in `RNN`: what the noise of a layer that has some is drawn with, instead of the layer's own generator.
        resets : bool (T, B), optional
            As in `RNN`: where sequences begin anew, from zeros or, with `learn_h_0`, from that parameter, which each of
            them has a part of the gradient for. Needs the forward direction alone and inputs at each step. With one
            target for each sequence, that is about what follows the last reset.

        Returns
        -------
        float
            The mean loss, before the update, with the penalties.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or the gradient is not finite. In both cases parameters and state are left as they were.
        """
        network, penalties = self._network, Penalties.of(locals())
        descent = Descent.of(optimizer, clip_norm, clip_value, Trained.of(trainable, network.parameters))
        gradients = descent.wanted(network.gradients)
        gradients.flat.fill(0)
        loss, h_n = self._differentiated(
            gradients, x, y, lengths, weights, state, penalties, memory, noise_seed, resets
        )
        network.update(loss, descent)
        if state is not None:
            state[...] = h_n
        return loss

    def loss(
        self,
        x: Any,
        y: Any,
        *,
        state: Real | None = None,
        lengths: Any = None,
        weights: Any = None,
        noise_seed: Any = None,
        resets: Any = None,
    ) -> float:
        """The mean loss, without dropout and penalties, and without noise unless there is a `noise_seed`.

        Arguments and errors are those of `train_step`.

        `state` is updated in place here, too.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> model.loss([[0], [1], [2]], [[1], [2], [0]]) < 2
        True
        """
        self._check_resets(resets)
        batch = batch_of(x, y, lengths, weights, self._network.kinds, resets)
        batch = batch._replace(keys=row_keys(noise_seed, batch.x.shape[1]))
        loss, h_n = self._network.loss(batch, self._state_before(batch.x.shape[1], state))
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
        activation_l1: float = 0.0,
        activation_l2: float = 0.0,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        memory: int | str | None = None,
        noise_seed: Any = None,
        resets: Any = None,
    ) -> tuple[float, dict[str, Real]]:
        """The mean loss, as `train_step` has it, and its gradients: a dict named and shaped like `parameters()`.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> loss, gradients = model.loss_and_grads([[0], [1], [2]], [[1], [2], [0]])
        >>> gradients["weight_ho"].shape
        (3, 16)
        """
        penalties, gradients = Penalties.of(locals()), self._network.zeros()
        loss, h_n = self._differentiated(
            gradients, x, y, lengths, weights, state, penalties, memory, noise_seed, resets
        )
        if state is not None:
            state[...] = h_n
        return loss, gradients.named()

    def gradient_norms(self, x: Any, y: Any, *, lengths: Any = None, weights: Any = None) -> GradientNorms:
        """How large the gradient of the loss is by the states of each step, and how many units hardly pass it on.

        Arguments are those of `loss`. `elman.plot.gradient_flow` draws the result.

        Returns
        -------
        norms : array (L, T)
            For each layer the Euclidean norm of ∂loss/∂h[t], or ∂loss/∂v[t] with form="potential", over all rows and
            units. Where it falls towards the first steps, gradients vanish on their way back.
        saturated : array (L,)
            The part of what the nonlinearity returns in a layer where its slope is under 2 % of the steepest for values
            from 0 to 1.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), pattern="many-to-one", hidden_size=16, seed=0)
        >>> norms, saturated = model.gradient_norms([[0], [1], [2], [1]], [1])
        >>> bool(norms[0, 0] < norms[0, -1])
        True
        """
        return gradient_norms(self._network, batch_of(x, y, lengths, weights, self._network.kinds))

    def gauss_newton_product(
        self, x: Any, y: Any, v: Mapping[str, Any], *, lengths: Any = None, weights: Any = None
    ) -> dict[str, Real]:
        """The Gauss–Newton matrix of the mean loss times a vector: curvature, for second-order methods.

        G = Jᵀ H J, J being the derivative of the outputs o by the parameters and H that of the loss by o, twice: the
        Hessian without the curvature of the network itself, and never negative (Schraudolph, 2002; Martens, 2010).

        Parameters
        ----------
        x, y, lengths, weights
            Those of `loss`. There is neither dropout nor noise, and no penalty.
        v : dict
            Arrays named and shaped like `parameters()`; those that are missing are zeros.

        Returns
        -------
        dict
            G v, named and shaped like `parameters()`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.

        Notes
        -----
        It takes about as long as two updates: a pass forward, its tangent (`RNN.jvp`), and a pass back.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> loss, gradients = model.loss_and_grads([[0], [1], [2]], [[1], [2], [0]])
        >>> product = model.gauss_newton_product([[0], [1], [2]], [[1], [2], [0]], gradients)
        >>> sum(float((gradients[name] * product[name]).sum()) for name in product) > 0
        True
        """
        network = self._network
        if not self.outputs.is_in_kernels:
            check.refuse(
                f"gauss_newton_product needs a loss with a second derivative that is known, got {self.outputs}"
            )
        batch = batch_of(x, y, lengths, weights, network.kinds)
        return gauss_newton_product(network, batch, vector_of(network, v)).named()

    def generate(
        self,
        start: Any,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        end: Any = None,
        seed: int | np.random.Generator | None = None,
        n_samples: int | None = None,
        batch_size: int = 128,
    ) -> Any:
        """Go on from a beginning: each output is drawn from what the model makes of all before it, and fed back.

        Parameters
        ----------
        start : int, integers (n,), or array (T, I) or (I,)
            A token, or several to begin with (a prompt), or their labels; the first T steps of a series of features; or
            the features that a "one-to-many" model starts from. Or many of these: a list of integers (n_i,) or labels,
            each of them a list, or a str of characters, or of arrays (T_i, I); or one array with an axis N before.
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
            A category, or its label, that ends the sequence where it is drawn; it is not returned.
        seed : None, int or numpy.random.Generator
            Numbers are drawn for 64 steps at a time, so that a generator may go on by some more than there are outputs.
            Of many sequences, each draws from a generator of its own, number i of
            ``np.random.default_rng(seed).spawn(N)``: what comes of it does not depend on the others.
        n_samples : int, optional
            How many times to go on with each sequence.
        batch_size : int
            How many of many sequences side by side: they are all computed in one loop, and what comes of them is the
            same.

        Returns
        -------
        integers (length,), or for labels and numbers an array (length, n)
            The new outputs, or their labels; `start` is not among them. Less than `length` if `end` was drawn. With
            `n_samples` an axis S stands before, and for many sequences an axis N before that; with `end` these are
            lists.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, if outputs are not what the next step's input can be (categories for as many
            tokens, any kind of output for as many features), or if the model is bidirectional or reverse.
        FloatingPointError
            If the outputs are not finite.

        Examples
        --------
        >>> model = SequenceModel(Features(2), Reals(2), hidden_size=8, seed=0)  # targets: the next steps' values
        >>> model.generate(np.ones((10, 2)), 5).shape  # ten steps that are known, then a forecast of five
        (5, 2)
        """
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "end": end, "seed": seed}
        options |= {"n_samples": n_samples, "batch_size": batch_size}
        return generation.generate(self._network, start, length, **options)

    # Data-set level: the first axis is the sequence

    def forecast(
        self,
        history: Any,
        steps: int,
        future: Any = None,
        *,
        n_samples: int | None = None,
        seed: int | np.random.Generator | None = None,
        batch_size: int = 128,
    ) -> Real:
        """How series go on: outputs are fed back as inputs, beside what is known of the future.

        The model's outputs, ``Reals(n)``, have to be the next values of the first n columns of its inputs,
        ``Features(n + E)``: it was fitted to ``Y[t] = X[t + 1, :n]``. The other E columns are exogenous.

        Parameters
        ----------
        history : list of arrays (T_i, n + E), or one array (N, T, n + E)
            The series so far, each of at least one step, as `predict` takes them.
        steps : int
            How many steps to forecast.
        future : array (N, steps, E) or (N, steps − 1, E)
            The exogenous columns of the steps that are forecast, as rows of X would have them; only if there are some.
            The last of `steps` rows is not looked at, as nothing is predicted from it.
        n_samples : int, optional
            Instead of one path, draw so many, each value from the distribution that the path has led to; needs `Reals`
            with a distribution.
        seed : None, int or numpy.random.Generator
            What paths are drawn with. Series i draws from number i of ``np.random.default_rng(seed).spawn(N)``, so that
            its paths do not depend on the other series.
        batch_size : int
            How many series side by side.

        Returns
        -------
        array (N, steps, n)
            What is fed back is what is predicted: of a distribution the mean; of quantiles the median, or what is
            nearest to it, and all of them are returned, (N, steps, n, Q). With `n_samples`, paths (N, S, steps, n).
            Where outputs have a `Scaler`, in the units of the targets, float64.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if the model is no such one.
        FloatingPointError
            If a forecast is not finite.

        Examples
        --------
        >>> model = SequenceModel(Features(3), Reals(1, distribution="normal"), hidden_size=8, seed=0)
        >>> history = [np.ones((10, 3)), np.ones((7, 3))]  # a series and two columns that are known ahead
        >>> future = np.ones((2, 4, 2))
        >>> model.forecast(history, 4, future).shape
        (2, 4, 1)
        >>> model.forecast(history, 4, future, n_samples=100, seed=0).shape
        (2, 100, 4, 1)
        """
        options = {"n_samples": n_samples, "seed": seed, "batch_size": batch_size}
        return forecasting.forecast(self._network, history, steps, future, **options)

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
        tbptt: tuple[int, int] | None = None,
        memory: int | str | None = None,
        activation_l1: float = 0.0,
        activation_l2: float = 0.0,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        weights: Any = None,
        trainable: Iterable[str] | None = None,
        resets: Any = None,
        validation_data: tuple[Any, ...] | Windows | None = None,
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
        """Train on a data set, `epochs` times over.

        Parameters
        ----------
        X : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Sequences of tokens, of features or of columns; (N,) or (N, n) where the pattern has one input for each.
            Tokens with labels are these, in lists, tuples or arrays; a str is a sequence of characters. Batches gather
            sequences of about equal length, so that the cost follows the sum of the lengths. Memory maps, h5py, zarr
            and Arrow columns are read a batch at a time, one ahead in a thread, and what is wrong in a row is named
            when it is met. Features, and targets that are no categories, may be bool, float16 or integers of up to 16
            bits as well: a batch at a time becomes what the model computes with. Or `elman.Windows`, which have their
            own `Y`. Or a function without arguments that returns the batches of an epoch, any iterator of (X, Y),
            (X, Y, weights) or (X, Y, weights, resets), weights perhaps None; `Y`, `weights` and `resets` are not given
            then. It runs in a thread of its own, a batch ahead, so it must leave the model alone.
        Y : list of integers (T_i,) or arrays (T_i, n); or one array (N, T) or (N, T, n)
            Targets; (N,) or (N, n) where the pattern has one for each sequence. As in `train_step` otherwise, with
            labels as in X.
        epochs : int
            How often to go through the data.
        batch_size : int
            How many sequences to an update, the last one of an epoch perhaps less.
        accumulate : int
            How many batches to an update, the gradients of which are computed in turn, in the memory of one, and added
            up: the same, but for rounding, as of one batch of ``accumulate * batch_size`` sequences, weights and all,
            and with `tbptt` of each window. Where X is a function, each batch that it returns is taken in so many
            parts. With `comm`, `shards` are that.
        average : float, optional
            Between 0 and 1, such as 0.999: go on with a running mean of the parameters besides (Polyak & Juditsky,
            1992), in which those after update i of t count in proportion to ``average**(t - i)``, so that it is one
            from the first update on, as are Adam's. The model has it while it is evaluated and in callbacks'
            `on_epoch`, in the file of a `checkpoint`, and after `fit`; updates, "loss" in the history, and a run that
            goes on from a checkpoint, are about what it is a mean of.
        steps_per_epoch : int, optional
            Where X is a function: how many batches to take for an epoch, which may be without end; by default all. A
            schedule needs it.
        optimizer : Optimizer, optional
            ``Adam(1e-3)`` by default.
        schedule : function (done, epochs) -> float, optional
            What the optimizer's lr is multiplied by when so many epochs are done, such as `elman.schedules.Cosine`. It
            depends on nothing but these two numbers.
        scheduled_sampling : float or function, optional
            With pattern="one-to-many": as in `Seq2Seq.fit`, with which probability a step reads what the model predicts
            for the step before instead of its target: the likeliest category, labels 0 and 1, or the numbers. Not with
            `tbptt`.
        clip_norm, clip_value
            As in `train_step`.
        tbptt : (k1, k2), optional
            Truncated back-propagation through time: an update after every k1 steps, from the loss of these, with
            gradients that go back k2 steps, at least k1. States are carried on. Needs the forward direction alone and
            a target for each step.
        memory : str or int, optional
            As in `train_step`.
        activation_l1, activation_l2, weight_l1, weight_l2 : float
            As in `train_step`. The penalties are part of "loss" in the history, but not of "val_loss".
        weights : numbers (N,), or like Y without its last axis, optional
            As in `train_step`.
        trainable : list of str, optional
            As in `train_step`: ``["weight_ho", "bias_*"]`` trains these, and nothing else.
        resets : list of bool (T_i,), or one array (N, T), optional
            As in `train_step`.
        validation_data : (X, Y), (X, Y, weights) or (X, Y, weights, resets); or Windows, optional
            Data to `evaluate` the model on after each epoch; weights may be None.
        validation_split : float, optional
            Instead: this part of the data, from 0 to 1, the last sequences as they are given, which are not trained on.
            Where they are sorted, shuffle them before. Of `Windows` that overlap, the first ones that are held out
            share steps with the last ones that are not.
        metrics : list of str and functions, or dict from names to functions, optional
            What to measure on that, as in `evaluate`: "val_f1", say, in the history.
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
            `checkpoint_every`, `memory` and those of the `callbacks` that keep no state may be others, as may the
            model's backend and metadata, and the number of threads. Everything else must be what it was, or nothing is
            changed and an error says what differs: the other arguments (data by their sizes and a hash of up to a
            million values, a schedule by a thousand of its values), and the model's configuration and seed, if it was
            given one. A run that a callback has stopped is over. A function X is asked again for all batches that
            were done, which are compared by their hashes and left out.
        comm : communicator of mpi4py, optional
            Processes that train the model together, each of which makes this call: ``MPI.COMM_WORLD``, and
            ``mpiexec -n 4 python train.py``. Needs ``pip install 'elman[mpi]'``. All begin and end with the parameters
            of rank 0, and the bits of a run are the same for any number of ranks. Rank 0 alone evaluates, calls the
            callbacks, shows progress, reads and writes the checkpoint, from which a run goes on with any number of
            ranks; what callbacks change of parameters and optimizer, and `stop`, goes to the others. An error in one
            rank ends all.
        shards : int
            With `comm`: how many parts of a batch gradients are taken of, then added up in an order of their own; the
            most ranks that there may be. Another number gives other bits.

        Returns
        -------
        History
            A dict of lists, with a value for each epoch: "loss", the mean in training, and with validation data
            "val_loss" and what else `evaluate` has: "val_accuracy", for real numbers "val_r2", or the `metrics`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.

        Warns
        -----
        UserWarning
            If targets that have no `Scaler` are beyond a thousand, which training would hardly get to.

        Examples
        --------
        >>> import elman
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> X, Y = [[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]
        >>> history = model.fit(X, Y, epochs=20, optimizer=elman.Adam(0.01), progress=False)
        >>> history["loss"][-1] < history["loss"][0]
        True
        """
        given = locals()  # all arguments, by name
        with joined(given) as (own, ranks), as_before_if_untrained(self._network, self.inputs, self.outputs):
            self._check_sampling(scheduled_sampling, tbptt)
            most = self._memory(memory)
            windows = None if tbptt is None else self._truncation(tbptt)
            known = self._network.metrics
            plan = Plan.of(own, self._network.parameters, metrics=known, tbptt=windows, memory=most)
            self._learn_labels(own["X"], own["Y"], plan.validation_split)
            data, held_out = data_of(own, _NAMES, self._data), self._held_out(own["validation_data"])
            data, held_out = divided(data, held_out, plan, ranks)
            learn(data, self.inputs, self.outputs)
            if ranks is None or ranks.is_root:
                warn_of_large(data, self.outputs)
            return fit(self, self._network, data, held_out, plan, ranks)

    def predict(self, X: Any, *, batch_size: int = 128, noise_seed: Any = None, resets: Any = None) -> Any:
        """The likeliest labels, or the numbers, for a data set X, with its `resets`, as `fit` takes it.

        Of a distribution, that is the mean. Where outputs have a `Scaler`, numbers are float64, in the units of the
        targets.

        With a `noise_seed`, an int or integers (N,), there is noise as in training, if the layer has some.

        Returns
        -------
        For a target per step, an item for each sequence: (T_i,) categories, or (T_i, n) labels 0 and 1 or numbers; in
        a list, or in one array if X is an array. For one per sequence, an array (N,) of categories, or (N, n). With Q
        quantiles, (T_i, n, Q) or (N, n, Q). Of `Labels`, a list of (U_i,), the labels of each sequence. Categories with
        labels are these: arrays of str, int or bool, or of objects where labels are of several types.

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
        if not self.outputs.is_of_sequences:
            return self._predictions(X, batch_size, self.outputs.answers, noise_seed, resets)
        found = self._predictions(X, batch_size, self.outputs.predict, noise_seed, resets)
        return [self.outputs.named(row[row >= 0]) for row in found]

    def predict_proba(self, X: Any, *, batch_size: int = 128, noise_seed: Any = None, resets: Any = None) -> Any:
        """The probability of each category, or of each label being 1: (T_i, n) for each sequence, or (N, n)."""
        self.outputs.probabilities(np.zeros((1, self.outputs.n_units)))  # refuses what has none
        return self._predictions(X, batch_size, self.outputs.probabilities, noise_seed, resets)

    def predict_interval(
        self, X: Any, *, coverage: float = 0.9, batch_size: int = 128, noise_seed: Any = None, resets: Any = None
    ) -> Any:
        """Between which numbers a target lies with a probability, and with the same beyond either: of each number.

        Needs outputs that are `Reals` with a distribution, or with the two quantiles that `coverage` asks for: 0.05 and
        0.95 for 0.9. For all distributions but "normal" it needs SciPy.

        Parameters
        ----------
        X, batch_size, noise_seed, resets
            As in `predict`.
        coverage : float
            The probability, between 0 and 1.

        Returns
        -------
        (T_i, n, 2) for each sequence, or (N, n, 2), in the form of `predict`: the lower and the upper end.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if outputs say nothing of an interval.
        ImportError
            If there is no SciPy.

        Examples
        --------
        >>> model = SequenceModel(Features(2), Reals(1, distribution="normal"), hidden_size=8, seed=0)
        >>> lower, upper = model.predict_interval(np.zeros((1, 5, 2)), coverage=0.5)[0, -1, 0]
        >>> bool(lower < model.predict(np.zeros((1, 5, 2)))[0, -1, 0] < upper)
        True
        """
        coverage = check.number(coverage, "coverage", "a number between 0 and 1", lambda value: 0 < value < 1)
        interval = functools.partial(self.outputs.interval, ends=((1 - coverage) / 2, (1 + coverage) / 2))
        interval(np.zeros((1, self.outputs.n_units)))  # refuses what has none
        return self._predictions(X, batch_size, interval, noise_seed, resets)

    def predict_distribution(
        self, X: Any, *, batch_size: int = 128, noise_seed: Any = None, resets: Any = None
    ) -> dict[str, Any]:
        """The parameters of each number's distribution, by the names that `Reals` gives them: "mean", "scale", ….

        Arguments and errors are those of `predict`, and a ValueError if outputs are no distribution. Values have its
        form, too: (T_i, n) for each sequence, or (N, n).

        Examples
        --------
        >>> model = SequenceModel(Features(2), Reals(1, distribution="student_t"), hidden_size=8, seed=0)
        >>> {name: value.shape for name, value in model.predict_distribution(np.zeros((3, 5, 2))).items()}
        {'mean': (3, 5, 1), 'scale': (3, 5, 1), 'df': (3, 5, 1)}
        """
        _, names = self.outputs.parameters(np.zeros((1, self.outputs.n_units)))  # refuses what has none
        found = self._predictions(X, batch_size, lambda o: self.outputs.parameters(o)[0], noise_seed, resets)
        if isinstance(found, np.ndarray):
            return {name: found[..., i] for i, name in enumerate(names)}
        return {name: [each[..., i] for each in found] for i, name in enumerate(names)}

    def evaluate(
        self,
        X: Any,
        Y: Any = None,
        *,
        weights: Any = None,
        batch_size: int = 128,
        noise_seed: Any = None,
        resets: Any = None,
        metrics: Iterable[Metric] | Mapping[str, Callable[..., Any]] | None = None,
    ) -> dict[str, float]:
        """How good the model is on a data set, given as to `fit`.

        Parameters
        ----------
        X, Y, weights, resets
            As in `fit`.
        batch_size, noise_seed
            As in `predict`.
        metrics : list of str and functions, or dict from names to functions, optional
            What to measure besides the loss; Notes say what there is. A function is called with all targets that count
            and what is predicted for them, (N,) or (N, n), for quantiles (N, Q) or (N, n, Q), in any order, and
            returns a number: those of `sklearn.metrics` will do. `Labels` are lists, and what has labels is these. If
            there are weights, it gets them as ``sample_weight=``, or ``weights=``, which it needs to have then.

        Returns
        -------
        dict
            "loss", without dropout, and what is asked for; by default the first one of its kind in Notes.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it, and the metrics that these outputs have.
        FloatingPointError
            As in `predict`.

        Notes
        -----
        All are weighted as the loss is, without class weights, and leave missing targets out. Names are
        scikit-learn's, and so are values.

        - Categories and labels 0 and 1, which are taken for 1 from 0.5 on: "accuracy"; "balanced_accuracy", that of
          each category, the mean over those that there are; "f1", the harmonic mean of precision and recall of each
          category that is there or predicted, the mean of these (macro), for labels that of 1. Of n labels, each is the
          mean.
        - Categories: "perplexity" and "bits_per_token", exp(loss) and loss / log 2, with class weights if there are
          some.
        - Numbers: "r2", the part of their variance that is explained; "mean_squared_error",
          "root_mean_squared_error", "mean_absolute_error", the default if that is the loss.
        - Quantiles: "mean_pinball_loss"; "coverage", the part of the targets from the lowest one to the highest.
        - `Labels`: "label_error", the edit distance from what is predicted, divided by the number of labels.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> sorted(model.evaluate([[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]))
        ['accuracy', 'loss']
        >>> found = model.evaluate([[0, 1, 2, 0]], [[1, 2, 0, 1]], metrics=["f1", "perplexity"])
        >>> sorted(found)
        ['f1', 'loss', 'perplexity']
        """
        chosen = Metrics.of(metrics, self._network.metrics)
        data = self._data(X, Y, weights, resets)
        keys = row_keys(noise_seed, len(data.lengths))
        chosen.check_data(data)
        return self._network.evaluate(data, check.positive_int(batch_size, "batch_size"), chosen, keys)

    def stream(self, batch_size: int | None = None, *, noise_seed: Any = None) -> Stream:
        """Predictions for sequences that come in bit by bit: the same, bit for bit, as for the whole.

        Parameters
        ----------
        batch_size : int, optional
            How many sequences side by side; without it, one, whose chunks have no axis B.
        noise_seed : int or integers (B,), optional
            For noise as in training, if the layer has some.

        Examples
        --------
        >>> model = SequenceModel(Tokens(3), Categories(3), hidden_size=16, seed=0)
        >>> stream = model.stream()
        >>> [*stream.predict([0, 1]), *stream.predict([2])] == model.predict([[0, 1, 2]])[0].tolist()
        True
        """
        self._check_forward("stream is not possible")
        if self.outputs.is_of_sequences:
            check.refuse(f"stream is not possible with {self.outputs}, which are those of a whole sequence")
        if self._network.kinds.pattern.one_input:
            check.refuse(f"stream needs inputs at each step, got pattern={self.pattern!r}")
        if batch_size is not None:
            batch_size = check.size(batch_size, "batch_size")
            architecture = self._network.stack.architecture
            n_bytes = 8 * math.prod(architecture.state_shape(batch_size))
            check.addressable(n_bytes, batch_size=batch_size, hidden_size=architecture.hidden_size)
        return Stream(self, batch_size, row_keys(noise_seed, batch_size or 1))

    def __repr__(self) -> str:
        return as_made(self, SequenceModel, self._value_of)

    def __setstate__(self, state: dict[str, Any]) -> None:
        mask_ho = unwritable(state.get("mask_ho"))  # which those of 0.1 have not
        usual = {"readout_from": None, "tied": False}
        super().__setstate__({**usual, **state, "mask_ho": mask_ho})

    def _network_on(self, kept: Kept) -> SequenceNetwork:
        kinds = Kinds(self.inputs, self.outputs, PATTERNS[self.pattern], self.rnn.dtype)
        readout = ReadoutConstraints(self.mask_ho, self.readout_from)
        return SequenceNetwork(kinds, self.rnn, kept, readout=readout, is_tied=self.tied)

    def _check_tied(self, kinds: Kinds, n_units: int) -> None:
        """Refuse an embedding that the readout cannot have as its weight."""
        inputs, outputs = self.inputs, self.outputs
        fits = isinstance(inputs, Tokens) and isinstance(outputs, Categories) and outputs.n == inputs.n
        if not fits or inputs.embedding_dim != n_units:
            expected = f"Tokens with embedding_dim={n_units}, as the readout sees so many units, and as many Categories"
            check.refuse(f"tied=True needs {expected}, got {inputs} and {outputs}")
        kinds.check_labels("tied=True")
        if self.mask_ho is not None or self.readout_from is not None:
            check.refuse("mask_ho and readout_from must be None with tied=True, where weight_ho is the embedding")

    def _learn_labels(self, X: Any, Y: Any, held_out: float | None) -> None:
        """Let tokens and categories that wait for labels have those of the data, all but the part that is held out."""
        if isinstance(X, Windows):
            X, Y = self._of_windows(X, Y, _NAMES)
        kinds = self._network.kinds
        may_feed = kinds.feeds_back or (self.inputs.n == self.outputs.n and not kinds.pattern.one_output)
        learn_labels(X, Y, *kinds[:3], held_out, are_one=may_feed or self.tied)

    # Checks that depend on the model

    def _differentiated(
        self,
        into: Parameters,
        x: Any,
        y: Any,
        lengths: Any,
        weights: Any,
        state: Any,
        penalties: Penalties,
        memory: Any,
        noise_seed: Any,
        resets: Any,
    ) -> tuple[float, Real]:
        """The mean loss of a batch, and its last states; the loss's gradients are added."""
        most = self._memory(memory)
        self._check_resets(resets)
        batch = batch_of(x, y, lengths, weights, self._network.kinds, resets)
        batch = batch._replace(keys=row_keys(noise_seed, batch.x.shape[1]))
        h_0 = self._state_before(batch.x.shape[1], state)
        return self._network.backpropagate(Window(batch), h_0, into, most, penalties)

    def _state_before(self, n_rows: int, state: Real | None) -> Real:
        """The states (L·D, B, H) before the first step."""
        first = self._network.initial_state(n_rows)
        if state is None:
            return first
        if self.learn_h_0:
            check.refuse("state must be None with learn_h_0=True, which is about the states that all begin with")
        self._check_forward("state must be None")
        if self._network.kinds.pattern.one_input:
            check.refuse(f"state must be None with pattern={self.pattern!r}, whose input comes first")
        return _updatable(state, "state", first.dtype, first.shape)

    def _data(self, X: Any, Y: Any = None, weights: Any = None, resets: Any = None, **options: Any) -> Sequences:
        """A data set, as `Sequences` takes it."""
        names = options.get("names", _NAMES)
        self._check_resets(resets, names[3])
        if isinstance(X, Windows):
            X, Y = self._of_windows(X, Y, names)
        return Sequences(X, Y, weights, resets, kinds=self._network.kinds, **options)

    def _held_out(self, given: Any) -> Sequences | None:
        """The data set of `validation_data`."""
        if given is None:
            return None
        name = "validation_data"
        data = self._data(*_two_to_four(given, name), names=[f"{name}[{i}]" for i in range(4)])
        checks.any_weight(float(data.has_target()), data.y_name, data.weights is not None)  # before anything is trained
        return data

    def _of_windows(self, windows: Windows, Y: Any, names: Sequence[str]) -> tuple[Any, Any]:
        """Their X and Y."""
        if Y is not None:
            given = check.shown(Y)
            raise TypeError(f"{names[1]} must be None where {names[0]} is Windows, which have targets, got {given}")
        if self._network.kinds.pattern.one_input:
            check.refuse(f"{names[0]} must be one input for each sequence with pattern={self.pattern!r}, got {windows}")
        return windows.inputs_for(self._network.kinds), windows.targets_for(self._network.kinds)

    def _check_resets(self, resets: Any, name: str = "resets") -> None:
        """Refuse them where sequences cannot begin anew."""
        if resets is None:
            return
        check_forward(self._network.stack.architecture.runs_back, name)
        if self._network.kinds.pattern.one_input:
            check.refuse(f"{name} must be None with pattern={self.pattern!r}, whose input comes first")

    def _check_forward(self, what: str) -> None:
        """Refuse what states have to be carried over for."""
        if runs_back := self._network.stack.architecture.runs_back:
            check.refuse(f"{what} with {runs_back}: {_NO_STATE}")

    def _check_aligned(self, name: str) -> None:
        """Refuse what goes through sequences in parts where their labels need all steps at once."""
        if self.outputs.is_of_sequences:
            check.refuse(f"{name} must be None with {self.outputs}, whose loss needs all steps at once")

    def _memory(self, memory: Any) -> float | None:
        if memory is not None:
            self._check_aligned("memory")
        return memory_of(memory, "memory", self.rnn)

    def _check_sampling(self, scheduled_sampling: Any, tbptt: Any) -> None:
        """Refuse it where nothing is fed back, or where predictions would need what another window ends with."""
        if scheduled_sampling is not None and not self._network.kinds.feeds_back:
            check.refuse(f"scheduled_sampling needs pattern='one-to-many', which feeds back, got {self.pattern!r}")
        if scheduled_sampling is not None and tbptt is not None:
            check.refuse("scheduled_sampling must be None where there is tbptt")

    def _truncation(self, tbptt: Any) -> tuple[int, int]:
        k1, k2 = check.pair(tbptt, "tbptt")
        k1, k2 = check.positive_int(k1, "tbptt[0]"), check.positive_int(k2, "tbptt[1]")
        if k2 < k1:
            check.refuse(f"tbptt must be (k1, k2) with k2 at least k1, got ({k1}, {k2}): steps would be left out")
        self._check_aligned("tbptt")
        self._check_forward("tbptt is not possible")
        if self._network.kinds.pattern.one_output:
            check.refuse(f"tbptt needs a target for each step, got pattern={self.pattern!r}")
        return k1, k2

    def _predictions(
        self, X: Any, batch_size: Any, function: Callable[[Real], Any], noise_seed: Any, resets: Any
    ) -> Any:
        """function(outputs) for each sequence of a data set."""
        inputs, _, pattern, dtype = self._network.kinds
        if self._network.kinds.feeds_back:
            check.refuse(f"pattern={self.pattern!r} has no inputs to predict from at each step: use generate")
        self._check_resets(resets)
        X = self._of_windows(X, None, _NAMES)[0] if isinstance(X, Windows) else X
        data = DataSet(X, inputs, pattern, dtype, "X", resets)
        keys = row_keys(noise_seed, len(data.lengths))
        return self._network.predictions(data, check.positive_int(batch_size, "batch_size"), function, keys)


def _two_to_four(value: Any, name: str) -> Sequence[Any]:
    """X, Y and, if they are given, weights and resets; or windows alone."""
    expected = "(X, Y), (X, Y, weights) or (X, Y, weights, resets)"
    if isinstance(value, Windows) or (isinstance(value, (tuple, list)) and [*map(type, value)] == [Windows]):
        return (value,) if isinstance(value, Windows) else value
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be {expected}, got {check.shown(value)}")
    if not 2 <= len(value) <= 4:
        raise ValueError(f"{name} must be {expected}, got {len(value)} items")
    return value


def _updatable(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Real:
    """The values of an array that the caller will write to: as C-contiguous memory, the array's own if possible."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"{name} is updated in place and must be an array of {dtype}, got {check.shown(value)}")
    check.shape(value.shape, name, (shape,))
    if not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must be writeable, got a read-only array")
    flags = value.flags  # asarray: of a subclass, a memory map say, the plain array
    return np.asarray(value) if flags.c_contiguous and flags.aligned else np.array(value, order="C")
