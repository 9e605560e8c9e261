"""What models do, on checked batches: layers, a readout with its loss, and their gradients.

`Network` is what all of them have, `SequenceNetwork` what is behind `SequenceModel`. Shapes: states of layers
(L·D, B, H); what the readout sees (T, B, D·H), or (1, B, D·H) where there is one output for each sequence.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from elman import check
from elman.backends.activations import Activation
from elman.backends.contract import Layer, Readout, Update
from elman.backends.reference import CELLS
from elman.data import checks
from elman.data.columns import Columns
from elman.data.inputs import Input, Tokens
from elman.data.kinds import Kinds
from elman.data.metrics import Measured, Metrics
from elman.data.outputs import Output, Targets, finite_outputs, penalize
from elman.data.sequences import Batch, DataSet, Sequences, Window
from elman.layer import constraints
from elman.layer.constraints import Factors, ReadoutConstraints
from elman.layer.initial import draw_uniform
from elman.layer.parameters import Entry, Parameters
from elman.layer.resets import Resets
from elman.layer.rnn import RNN, mode_of, move_to, stack_of
from elman.layer.stack import Drawn, Mode, Stack, Tape, Weights, add_by_states, outputs_of, states_of
from elman.lengths import n_within
from elman.models import configuration, recomputation, scheduled
from elman.models.reading import ByToken, LaidOut, Reading
from elman.storage import files
from elman.training.plan import Descent, Penalties
from elman.typing import Bool, Int, Real

_NEVER = -1e30  # what the softmax makes 0 of, in float32, too, divided by a temperature of 1e-8 as well


class Kept(NamedTuple):
    """What a pickle holds of a network. The rest is made of it, of its RNNs, and of what the model is about."""

    parameters: Parameters
    shuffle_rng: np.random.Generator
    seed: str | None

    @classmethod
    def drawn(
        cls,
        entries: list[Entry],
        rnn: RNN,
        inputs: Input,
        n_outputs: int,
        rng: np.random.Generator,
        seed: str | None,
    ) -> Kept:
        """That of a new network: these entries, which its layers fill, the inputs', and a readout of the RNN's states.

        An embedding that is not among the entries is weight_ho.
        """
        n_units = stack_of(rnn).architecture.n_outputs
        check.addressable(8 * n_outputs * n_units, n=n_outputs, hidden_size=rnn.hidden_size)
        readout = Entry(("weight_ho",), (n_outputs, n_units)), Entry(("bias_o",), (n_outputs,))
        parameters = Parameters([*entries, *readout], rnn.dtype)
        named = parameters.named()
        draw_uniform(list(named.values())[-2:], n_units, rng)
        for name, tokens in inputs.embedded.items():
            table = named.get(name, named["weight_ho"])
            if tokens.embedding is not None:
                with np.errstate(over="ignore"):
                    table[...] = tokens.embedding
                check.finite(table, f"embedding as {rnn.dtype}")
            elif name in named:
                table[...] = rng.standard_normal((tokens.n, tokens.width))
        return cls(parameters, np.random.default_rng(rng.integers(1 << 63)), seed)


class Network:
    """Layers and a readout, o = weight_ho h + bias_o, with its loss, on one buffer of parameters."""

    kind: ClassVar[str]  # the name of the model's class, in files
    metrics: Sequence[str]  # what `evaluate` can measure besides the loss: by default the first one
    rnns: Sequence[RNN]  # the layers, with the settings that hold at present; the last one feeds the readout
    stack: Stack  # that one's
    inputs: Input
    predicted: Output  # what the readout computes
    written: Output  # what users are told of that
    parameters: Parameters  # those of the layers, and at the end weight_ho (O, K) and bias_o (O,)
    gradients: Parameters  # room for those of an update
    factors: Factors  # what makes of parameters those that act, none where they are the same
    learns_h_0: bool  # whether all rows begin with the parameter h_0 (L·D, H)
    shuffle_rng: np.random.Generator  # what the order of a data set is drawn with
    seed: str | None  # what was asked for when the parameters were drawn, if it is known

    def __init__(
        self, rnns: Sequence[RNN], inputs: Input, predicted: Output, kept: Kept, *, is_tied: bool = False
    ) -> None:
        """is_tied: whether the embedding of the inputs is weight_ho."""
        self.rnns, self.inputs, self.predicted, self.factors, self.is_tied = rnns, inputs, predicted, {}, is_tied
        self.parameters, self.shuffle_rng, self.seed = kept
        self.gradients = self.zeros()
        # The buffer ends with h_0, if it is learned, weight_ho and bias_o
        self._h_0, self._weight_ho = (len(self.parameters.arrays) - i for i in (3, 2))
        self.learns_h_0 = self.parameters.entries[self._h_0].names == ("h_0",)
        n = sum(stack_of(rnn).architecture.n_entries for rnn in rnns)  # embeddings follow the layers
        self.is_laid_out = inputs.is_laid_out  # once, as each step asks for it
        self._embeddings = [self._weight_ho] if is_tied else [*range(n, n + len(inputs.embedded))]
        self.stack = stack_of(rnns[-1])

    def mode(self) -> Mode:
        """How a call that begins now computes, in the layers that feed the readout."""
        return mode_of(self.rnns[-1])

    def weights_fed(self, mode: Mode) -> Sequence[Weights]:  # noqa: ARG002
        """Those of the layers, by token, which read what is fed back."""
        return self.stack.weights_now()

    def zeros(self) -> Parameters:
        """Room for a gradient of all parameters."""
        return Parameters(self.parameters.entries, self.parameters.flat.dtype)

    def generators(self) -> list[np.random.Generator]:
        """All that is random in training: the order of the data, then each dropout."""
        return [self.shuffle_rng, *(stack_of(rnn).rng for rnn in self.rnns)]

    @property
    def is_noisy(self) -> bool:
        """Whether there is noise in training."""
        return any(stack_of(rnn).dynamics.is_noisy for rnn in self.rnns)

    def draw_noise_seed(self) -> int:
        """What the noise of a training run depends on besides epochs and rows, and scheduled sampling."""
        return int(stack_of(self.rnns[0]).rng.integers(1 << 63))

    def fed_back(self, batch: Any, probability: float) -> Any:
        """A batch that has keys, with predictions instead of targets fed back at some steps: see scheduled.py."""
        raise NotImplementedError

    def initial_state(self, n_rows: int) -> Real:
        """Fresh states (L·D, B, H) of the first RNN, before the first step."""
        first = np.zeros(stack_of(self.rnns[0]).architecture.state_shape(n_rows), self.parameters.flat.dtype)
        if self.learns_h_0:
            first += self.parameters.named()["h_0"][:, None]
        return first

    def trains_h_0(self, gradients: Parameters) -> bool:
        """Whether its gradient is among those that are wanted."""
        return self.learns_h_0 and gradients.arrays[self._h_0] is not None

    def add_by_h_0(self, gradients: Parameters, d_first: Real) -> None:
        """Add its gradient to them, if it is wanted, given that by the states (L·D, B, H) that rows begin with."""
        if self.trains_h_0(gradients):
            with np.errstate(all="ignore"):  # the update says if they are not finite
                gradients.named()["h_0"] += d_first.sum(axis=1, dtype=np.float64)

    # Inputs

    def tables(self, parameters: Parameters | None) -> list[Any]:
        """The embeddings (d, n) among such parameters, or gradients, None where one is not wanted, or none is."""
        arrays = [None if parameters is None else parameters.arrays[i] for i in self._embeddings]
        return [None if array is None else array[0] for array in arrays]

    def reading(self, mode: Mode, x: Any, gradients: Parameters | None = None) -> Reading:
        """How layers read inputs that are among x (T, B, ·); and where gradients go, if these are wanted."""
        arrays = [] if gradients is None else gradients.arrays
        if not self.is_laid_out:
            return Reading(arrays)
        if not isinstance(self.inputs, Tokens):
            return self.laid_out(gradients)
        (table,), (d_table,) = self.tables(self.parameters), self.tables(gradients)
        return ByToken(x, table, stack_of(self.rnns[0]).weights_now(), mode, arrays, d_table)

    def laid_out(self, gradients: Parameters | None) -> Reading:
        """The same, as reals (T, B, I), of tokens with an embedding, too."""
        arrays = [] if gradients is None else gradients.arrays
        return LaidOut(self.inputs, self.tables(self.parameters), arrays, self.tables(gradients))

    def trains_inputs(self, gradients: Parameters) -> bool:
        """Whether an embedding's gradient is wanted."""
        return any(table is not None for table in self.tables(gradients))

    @property
    def n_read(self) -> int:
        """How many reals of a row and step are made for layers to read, with the gradient by them."""
        return 2 * self.inputs.width if isinstance(self.inputs, Columns) else 0

    # The readout

    def outputs(self, backend: ModuleType, h: Real, lengths: Int | None = None) -> Real:
        """Fresh outputs (T, B, O) of states h (T, B, K), all finite within the lengths."""
        o = self.raw_outputs(backend, h)
        finite_outputs(o, lengths=lengths)
        return o

    def raw_outputs(self, backend: ModuleType, h: Real) -> Real:
        """The same, whatever they are."""
        o = np.empty((*h.shape[:2], self.predicted.n_units), h.dtype)
        backend.readout(Readout(h, *self.readout_now(), o))
        return o

    def predict_of(self, backend: ModuleType, h: Real) -> Real | Int:
        """What is predicted from states h (T, B, K); anything where outputs are not finite."""
        return self.predicted.predict(self.raw_outputs(backend, h))

    def loss_of(
        self, backend: ModuleType, h: Real, targets: Targets, d_h: Real | None = None, into: Parameters | None = None
    ) -> float:
        """The mean loss of states h (T, B, K); d_h is written, and the readout's gradients are added `into` some."""
        d_weight, d_bias = (None, None) if into is None else self.readout_of(into)
        weight, bias = self.readout_now()
        outputs, (y, lengths, weights, total) = self.predicted, targets
        total = total * outputs.n if outputs.is_mean else total
        with self.stack.workspace.lease(1, h.shape[0], h.shape[1], outputs.n_units) as (o,):
            gradients = {"d_h": d_h, "d_weight": d_weight, "d_bias": d_bias}
            own: Any = {"lengths": lengths, "weights": weights, **gradients}
            given = Readout(h, weight, bias, o, y, outputs.kernel, 1 / total, **own)
            if outputs.is_in_kernels:
                return float(backend.readout_loss(given)) / total
            with np.errstate(all="ignore"):  # beyond the lengths there is anything
                backend.readout(given)
            loss, d_o = targets.differentiated(outputs, o)
            if any(one is not None for one in gradients.values()):
                backend.readout_loss(given._replace(target=d_o, loss="linear", weights=None))
            return loss / total

    def readout_of(self, parameters: Parameters) -> Any:
        """weight_ho (K, O), k-major, and bias_o (O,) among such parameters, or gradients, None if it is not wanted."""
        weight, bias = parameters.arrays[self._weight_ho :]
        return None if weight is None else weight[0], None if bias is None else bias[0]

    def readout_now(self) -> tuple[Real, Real]:
        """Those of the parameters, the weight as it acts."""
        weight, bias = self.readout_of(self.parameters)
        if self.written.labels is not None:
            self.written.check_known()
            bias = self._of_labels(bias)
        factor = self.factors.get(self._weight_ho)
        return weight if factor is None else factor.effective(weight[None])[0], bias

    def update(self, loss: float, descent: Descent) -> None:
        """One step along `gradients`, or an error, and nothing changed."""
        descent.update(self.mode().backend, loss, self.parameters.flat, self.gradients.flat)

    def add_to_average(self, average: Real, rate: float) -> None:
        """Average (n,) ← average + rate · (parameters − average)."""
        mode_of(self.rnns[-1]).backend.update(Update("average", average, self.parameters.flat, (), (rate,)))

    def effective_weights(self) -> dict[str, Real]:
        """Copies of the parameters, weights as they act, by name as users see them."""
        weights = constraints.named(self.factors, self.parameters)
        return weights | {"bias_o": self._of_labels(weights["bias_o"])}

    def _of_labels(self, bias: Real) -> Real:
        """The readout's bias with which the probability of what has no label, and all gradients by it, are 0."""
        nameless = self.written.nameless
        if nameless is None:
            return bias
        bias = bias.copy()
        bias[nameless] = _NEVER
        return bias

    def chain(self, tangent: Parameters) -> None:
        """Make of gradients by weights that act those by the parameters, or of tangents of these those of what acts."""
        constraints.chain(self.factors, tangent.arrays, self.parameters.arrays)

    def n_penalized(self, batch: Any) -> int:
        """How many steps of a batch, in a window those with targets, the penalties on activations are a mean over."""
        raise NotImplementedError

    def activation_scales(self, penalties: Penalties, batch: Any) -> tuple[float, float] | None:
        """What makes Σ |h| and Σ h² l1 and l2 times their mean."""
        l1, l2, *_ = penalties
        if not (l1 or l2):
            return None
        n = self.n_penalized(batch) * stack_of(self.rnns[-1]).architecture.n_outputs
        return l1 / n, l2 / n

    def penalize_weights(self, penalties: Penalties, gradients: Parameters) -> float:
        """The penalties on the weights as they act, biases apart; their gradients are added."""
        *_, l1, l2 = penalties
        if not (l1 or l2):
            return 0.0
        total, into = 0.0, gradients.named()
        weights = self.effective_weights() if self.factors else self.parameters.named()
        with np.errstate(all="ignore"):  # the update says if they are not finite
            for name, weight in weights.items():
                if "weight" in name:
                    total += l1 * float(np.abs(weight).sum(dtype=np.float64))
                    total += l2 * float(np.square(weight, dtype=np.float64).sum())
                    if name in into:
                        into[name] += l1 * np.sign(weight) + 2 * l2 * weight
        return total

    # Files

    def config(self) -> dict[str, Any]:
        """What, besides the parameters, makes this model: arguments of its class, as JSON has them."""
        raise NotImplementedError

    def own_config(self) -> dict[str, Any]:
        """What of it no layer says: files without it are as they ever were."""
        return {"learn_h_0": True} if self.learns_h_0 else {}

    def check_saveable(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The configuration, or an error where a file cannot hold the model."""
        check.text_mapping(metadata, "metadata")
        nonlinearity = self.rnns[-1].nonlinearity
        if isinstance(nonlinearity, Activation):
            check.refuse(f"nonlinearity {nonlinearity} cannot be saved: a model file holds no functions")
        if callable(self.predicted.loss):
            check.refuse(f"loss {check.shown(self.predicted.loss)} cannot be saved: a model file holds no functions")
        return self.config()

    def content(self, metadata: Mapping[str, str], run: files.Checkpoint | None = None) -> tuple[bytes, memoryview]:
        """What a file holds of the model, in pieces, with how far a training has come."""
        config, parameters = self.check_saveable(metadata), self.parameters.named()
        for name, array in parameters.items():  # what is in the file that is there may be better
            finite_outputs(array, f"{name} to be saved")
        return files.pieces(files.Saved(self.kind, parameters, config, dict(metadata), run))


class SequenceNetwork(Network):
    """What is behind `SequenceModel`: an RNN, which works on the network's parameters, and its readout."""

    kind = "SequenceModel"
    kinds: Kinds

    def __init__(
        self, kinds: Kinds, rnn: RNN, kept: Kept, *, readout: ReadoutConstraints, is_tied: bool = False
    ) -> None:
        move_to(kept.parameters, rnn)
        super().__init__([rnn], kinds.inputs, kinds.outputs, kept, is_tied=is_tied)
        self.readout = readout
        self.kinds, self.metrics = kinds, kinds.outputs.metrics
        self.written = kinds.outputs
        of_readout = readout.factor(constraints.of_rnn(rnn), self.stack.architecture, rnn.dtype)
        self.factors = self.stack.factors | ({} if of_readout is None else {self._weight_ho: of_readout})

    def weights_fed(self, mode: Mode) -> Sequence[Weights]:
        return self.reading(mode, np.arange(self.inputs.n)).weights or self.stack.weights_now()

    def resets(self, at: Bool | None) -> Resets | None:
        """Those before steps (T, B), to the states that all rows begin with."""
        return None if at is None else Resets(at, self.initial_state(at.shape[1]))

    def states(
        self,
        mode: Mode,
        x: Real | Int,
        lengths: Int | None,
        h_0: Real,
        y: Real,
        drawn: Drawn | None = None,
        resets: Bool | None = None,
    ) -> tuple[Real, Real]:
        """What the readout sees, without dropout, which may be y (T, B, D·H), that is written; and the last states."""
        h_n, reading = np.empty_like(h_0), self.reading(mode, x)
        own: dict[str, Any] = {"drawn": drawn, "resets": self.resets(resets), "weights": reading.weights}
        self.stack.evaluate(mode, reading.of(x), h_0, h_n, y, lengths, **own)
        return self.last_outputs(mode, h_n)[0] if self.kinds.pattern.one_output else y, h_n

    def noise(self, keys: Int | None) -> Drawn | None:
        """What noise without dropout is drawn from, given the rows' keys."""
        return Drawn(keys=keys) if keys is not None and self.stack.dynamics.is_noisy else None

    def loss(self, batch: Batch, h_0: Real) -> tuple[float, Real]:
        """The mean loss, without dropout and penalties, and the last states."""
        mode = self.mode()
        with self.stack.lease(*batch.x.shape[:2]) as (y,):
            h, h_n = self.states(mode, batch.x, batch.lengths, h_0, y, self.noise(batch.keys), batch.resets)
            return self.loss_of(mode.backend, h, batch.targets), h_n

    def predictions(
        self, data: DataSet, batch_size: int, function: Callable[[Real], Any], keys: Int | None = None
    ) -> Any:
        """function(outputs (T, B, O)) for each sequence of a data set, in its form; keys (N,) are for noise."""
        pattern, mode = self.kinds.pattern, self.mode()
        results: Any = [None] * len(data.lengths)
        with data.each(lambda rows: (*data.inputs_of(rows), data.resets_of(rows)), batch_size) as batches:
            for rows, (x, lengths, resets) in batches:
                with self.stack.lease(*x.shape[:2]) as (y,):
                    drawn = None if keys is None else self.noise(keys[rows])
                    h, _ = self.states(mode, x, lengths, self.initial_state(len(rows)), y, drawn, resets)
                    o = self.outputs(mode.backend, h, None if pattern.one_output else lengths)
                values = function(o).swapaxes(0, 1)  # (B, T, ·), or (B, 1, ·)
                if pattern.one_output or data.is_array:
                    values = values[:, 0] if pattern.one_output else values
                    if isinstance(results, list):
                        results = np.empty((len(results), *values.shape[1:]), values.dtype)
                    results[rows] = values
                else:
                    for b, row in enumerate(rows):
                        results[row] = values[b, : data.lengths[row]].copy()
        return results

    def evaluate(self, data: Sequences, batch_size: int, metrics: Metrics, keys: Int | None = None) -> dict[str, float]:
        """The loss of a data set and metrics of its outputs, by name; keys (N,) are for noise."""
        losses, totals, mode, outputs = list[float](), list[float](), self.mode(), self.kinds.outputs
        measured = Measured(metrics, outputs.tally(), outputs.named, are_weighted=data.weights is not None)
        with data.each(data.weighted, batch_size) as batches:
            for rows, (batch, weights) in batches:
                targets = batch.targets
                if targets.total == 0:
                    continue
                with self.stack.lease(*batch.x.shape[:2]) as (y,):
                    drawn = None if keys is None else self.noise(keys[rows])
                    h_0 = self.initial_state(len(rows))
                    h, _ = self.states(mode, batch.x, batch.lengths, h_0, y, drawn, batch.resets)
                    losses.append(self.loss_of(mode.backend, h, targets))
                    predicted = outputs.predict(self.outputs(mode.backend, h, targets.lengths))
                totals.append(targets.total)
                counts = targets.counts(outputs)
                own_weights = np.ones(counts.sum()) if weights is None else weights[counts]
                measured.add(*outputs.scored(targets, predicted, own_weights))
        checks.any_weight(sum(totals), data.y_name, data.weights is not None)
        return measured.values(float(np.average(losses, weights=totals)))

    # Gradients

    def gradients_of(self, window: Window, state: Real | None, descent: Descent, /) -> tuple[float, Real | None]:
        """One update's mean loss, and the states that the next window begins with; `gradients` are written.

        `state` is what the window before has left, if there is one. Nothing else changes but what is drawn.
        """
        batch, into = window.batch, descent.wanted(self.gradients)
        into.flat.fill(0)
        h_0 = self.initial_state(batch.x.shape[1]) if state is None or window.is_first else state
        if batch.targets.total > 0:
            return self.backpropagate(window, h_0, into, descent.memory, descent.penalties)
        h_n = np.empty_like(h_0)
        mode = self.mode()
        reading = self.reading(mode, batch.x)
        own: dict[str, Any] = {"drawn": self._drawn(mode, batch), "resets": self.resets(batch.resets)}
        own |= {"lengths": batch.lengths, "weights": reading.weights}
        with self.stack.forward(mode, reading.of(batch.x), h_0, h_n, **own) as tape:
            return 0.0, _state_after(window.n_done or 0, h_n, tape)

    def fed_back(self, batch: Batch, probability: float) -> Batch:
        assert batch.keys is not None
        y, h, inputs, mode = batch.targets.y, self.initial_state(batch.x.shape[1]), self.kinds.inputs, self.mode()
        reading = self.reading(mode, batch.x)
        own = reading.of(batch.x), batch.lengths, h, self.predict_of, reading.weights
        found = self.kinds.outputs.scaled(scheduled.predictions(self.stack, mode, *own), y.dtype)  # as targets are
        is_own = scheduled.is_fed_back(batch.keys, len(y), probability).reshape(*y.shape[:2], *y.shape[2:] and (1,))
        first = batch.x[:1] if isinstance(inputs, Tokens) else batch.x[:1, :, : inputs.n]
        return batch._replace(x=self.kinds.taught(first, np.where(is_own, found, y)))

    def n_penalized(self, batch: Batch) -> int:
        over = (batch.x, batch.lengths) if self.kinds.pattern.one_output else batch.targets[:2]
        return n_within(*over)

    def _drawn(self, mode: Mode, batch: Batch) -> Drawn | None:
        """What a batch's own noise is drawn from, and dropout with it; None where the batch has none of its own."""
        if batch.keys is None:
            return None
        drawn = self.stack.draw(mode, batch.x.shape[1], batch.keys)
        return None if drawn is None else drawn._replace(first_step=batch.first_step)

    def backpropagate(
        self,
        window: Window,
        h_0: Real,
        gradients: Parameters,
        memory: float | None = None,
        penalties: Penalties = Penalties(),  # noqa: B008 - it cannot change
    ) -> tuple[float, Real]:
        """The mean loss, and the states that the next window begins with; the loss's gradients are added.

        memory: how many steps (an int) or bytes (a float) to keep the states of at a time, None for all steps.
        """
        batch, is_first, n_done = window
        mode = self.mode()
        scales = self.activation_scales(penalties, batch)
        resets, d_h_reset = self.resets(batch.resets), None
        n = len(batch.x)
        if memory is not None:
            n_reals = self.predicted.n_reals + self.n_read
            cost = recomputation.Cost.of(self.stack, mode, batch.x, n_reals, has_resets=resets is not None)
            (n,) = recomputation.segment_lengths([cost], memory)
        if resets is not None and self.trains_h_0(gradients):
            d_h_reset = np.zeros_like(h_0)
        reading = self.reading(mode, batch.x, gradients)
        given: dict[str, Any] = {"scales": scales, "n_done": n_done, "d_h_reset": d_h_reset, "reading": reading}
        differentiate = functools.partial(self.differentiate, gradients=gradients, **given)
        of_last = functools.partial(self.loss_of_last, mode, batch, gradients=gradients)
        own = self.stack, mode, batch, h_0, resets, of_last if self.kinds.pattern.one_output else None
        loss, h_n, d_h_0 = recomputation.differentiated(differentiate, n, *own, reading=reading)
        reading.end()
        for d_first in (d_h_0 if is_first else None, d_h_reset):
            if d_first is not None:
                self.add_by_h_0(gradients, d_first)
        loss += self.penalize_weights(penalties, gradients)
        self.chain(gradients)
        return loss, h_n

    def differentiate(
        self,
        mode: Mode,
        batch: Batch,
        h_0: Real,
        *,
        gradients: Parameters,
        reading: Reading,
        scales: tuple[float, float] | None = None,
        d_h_n: Real | None = None,
        drawn: Drawn | None = None,
        loss: float = 0.0,
        n_done: int | None = None,
        d_h_reset: Real | None = None,
        direction: int | None = None,
    ) -> tuple[float, Real, Real]:
        """A stretch of steps on one tape: its loss, added to `loss`, the states behind it, and the gradient by h_0.

        The gradients by the parameters are added to `gradients`, those of layers where `reading` says. scales: of Σ |h|
        and Σ h² in the loss, h being what the last layer puts out; d_h_n: by the last states, what comes back from the
        steps behind, None at the end; drawn: what dropout and noise are drawn from, None to draw that; n_done: after
        how many steps the states are those to be returned, None for all; d_h_reset (L, B, H): the gradient by the
        states of resets is added to it; direction: the one of two to go back through, the second one after the first.
        """
        h_n, d_h_0, one_output = np.empty_like(h_0), np.empty_like(h_0), self.kinds.pattern.one_output
        x, arrays = reading.of(batch.x), reading.arrays
        d_x, resets = reading.room(x), self.resets(batch.resets)
        lowest = 0 if self.trains_h_0(gradients) or d_x is not None else self.stack.lowest_of(arrays)
        goes_back = lowest < len(self.stack.weights)
        own: dict[str, Any] = {"drawn": drawn, "resets": resets, "weights": reading.weights}
        with self.stack.forward(mode, x, h_0, h_n, lengths=batch.lengths, **own) as tape:
            h, d_y, targets = tape.layers[-1].y, tape.d_y, batch.targets
            assert d_y is not None
            if one_output:
                if d_h_n is None:
                    last, d_h_n = self.loss_of_last(mode, batch, h_n, gradients)
                    loss += last
                d_h, lengths = d_y, batch.lengths
                if scales:
                    d_y[...] = 0
            else:
                d_h, lengths = d_y, targets.lengths
                if n_skipped := len(h) - len(targets.y):  # steps without a target
                    d_y[:n_skipped] = 0
                    h, d_h = h[n_skipped:], d_h[n_skipped:]
                of_readout = None if direction == 1 else gradients  # which have it from the other direction
                loss += self.loss_of(mode.backend, h, targets, d_h if goes_back else None, of_readout)
            if scales:
                loss += penalize(h, lengths, scales, d_h if goes_back else None)
            d_last = d_y if scales or not one_output else None
            self.stack.backward(tape, d_last, d_h_n, d_h_0, d_x, arrays, d_h_reset, lowest, direction)
            reading.add(batch.x, d_x)
            return loss, h_n if n_done is None else _state_after(n_done, h_n, tape), d_h_0

    def loss_of_last(self, mode: Mode, batch: Batch, h_n: Real, gradients: Parameters) -> tuple[float, Real]:
        """The mean loss of the last states (L·D, B, H), and its gradient by them; the readout's is added."""
        h, layer = self.last_outputs(mode, h_n)
        d_h = np.empty_like(h)
        loss = self.loss_of(mode.backend, h, batch.targets, d_h, gradients)
        return loss, self.by_last(mode, layer, d_h, h_n)

    def by_last(self, mode: Mode, layer: Layer | None, d_h: Real, h_n: Real) -> Real:
        """The gradient by the last states (L·D, B, H) from that by `last_outputs`, (1, B, D·H)."""
        d_h_n = np.zeros_like(h_n)
        own = d_h_n[-self.stack.architecture.n_directions :]
        if layer is not None:
            add_by_states(own, mode, layer, d_h)
        else:
            own[...] = d_h.reshape(-1, *own.shape[::2]).swapaxes(0, 1)
        return d_h_n

    def last_outputs(self, mode: Mode, h_n: Real) -> tuple[Real, Layer | None]:
        """What the last layer makes of its final states (L·D, B, H), (1, B, D·H), and what computes it, if it is f."""
        last = h_n[-self.stack.architecture.n_directions :]
        if CELLS[self.stack.dynamics.cell].state_is_second:
            layer = outputs_of(mode, last)
            return layer.y, layer
        return np.ascontiguousarray(last.swapaxes(0, 1)).reshape(1, h_n.shape[1], -1), None

    def config(self) -> dict[str, Any]:
        """Arguments of `SequenceModel`, as JSON has them."""
        config = configuration.described(self.kinds.inputs, self.kinds.outputs, self.rnns[0], self.kinds.pattern)
        own = self.own_config() | ({"tied": True} if self.is_tied else {})
        return config | own | constraints.described(self.readout)


def entries_of(inputs: Input) -> list[Entry]:
    """What a model's buffer has of the inputs' embeddings, behind its layers."""
    return [Entry((name,), (tokens.n, tokens.width)) for name, tokens in inputs.embedded.items()]


def generator_of(seed: Any) -> tuple[np.random.Generator, str | None]:
    """What draws the parameters of a model, and what it was made of, in words; None where nobody asked for it."""
    rng = check.generator(seed)
    if seed is None:
        return rng, None
    if seed is not rng and seed < 1 << 256:  # Python does not print one of 4,300 digits
        return rng, str(int(seed))
    state = json.dumps(rng.bit_generator.state, default=np.ndarray.tolist)
    return rng, f"a generator at {hashlib.sha256(state.encode()).hexdigest()[:12]}"


def _state_after(n: int, h_n: Real, tape: Tape) -> Real:
    """The states (L, B, H) after n steps of a pass; anything for sequences that have ended before."""
    if n == 0:
        return np.concatenate([layer.h_0 for layer in tape.layers])
    if n >= len(tape.layers[0].y):
        return h_n
    return np.array([states_of(layer)[n - 1] for layer in tape.layers])
