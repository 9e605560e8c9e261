"""How a model is trained on a text, and what is recorded of that."""

from __future__ import annotations

import math
import time
from array import array
from typing import Any

import numpy as np

from elman import check
from elman.models.sequence import SequenceModel
from elman.schedules import Cosine
from elman.text.encoded import Encoded
from elman.training import Callback, Training, checkpoint
from elman.training.optimizers import Optimizer
from elman.typing import Int, Real

_READ_TOGETHER = 1 << 20  # tokens of a text in a file
_LEAST_TOGETHER = 16  # steps
_BITS = 1 / math.log(2)  # in a nat
_LEAST_STEPS = 1000  # of an epoch, if there are so many: at its end a checkpoint is written, which takes a while


def model_bits(model: SequenceModel, held_out: Int, n_steps: int = 128) -> float:
    """Bits per token of a model on `held_out` (pieces, length); it reads each piece from a zero state on."""
    state = np.zeros((model.rnn.num_layers, len(held_out), model.rnn.hidden_size), model.rnn.dtype)
    x, y = held_out[:, :-1].T, held_out[:, 1:].T
    total = 0.0
    for t in range(0, len(x), n_steps):
        total += model.loss(x[t : t + n_steps], y[t : t + n_steps], state=state) * len(x[t : t + n_steps])
    return total / len(x) * _BITS


class Recorder(Callback):
    """What a training on a text comes to, in bits per token, and its best model: a callback for one call of `train`.

    At the end of the run, and where `patience` ends it, the model gets the parameters that were best on the held-out
    text.

    Parameters
    ----------
    held_out : integers (pieces, length)
        Text to measure the validation loss on, ten times in all.
    steps : int
        How many updates there are to be.
    patience : int, optional
        After how many measurements in a row that were no better to end the run.
    from_start : bool
        Whether to measure before the first step, too, as a model that has been trained before may be the best.

    Attributes
    ----------
    losses : array of float
        The loss of each step's own batch, before its update.
    validation_losses : dict from int to float
        By the steps, counted from 1, after which they were measured.
    seconds : float
        What the steps have taken, without the measuring.
    """

    def __init__(self, held_out: Int, steps: int, *, patience: int | None = None, from_start: bool = False) -> None:
        self._held_out, self._steps, self._from_start = held_out, steps, from_start
        self._patience = math.inf if patience is None else check.positive_int(patience, "patience")
        self.losses, self.validation_losses, self.seconds = array("d"), dict[int, float](), 0.0
        self._parameters: Real = np.zeros(0)  # the best ones

    @property
    def best_step(self) -> int | None:
        """After which of them the model was best; None if nothing has been measured yet."""
        return min(self.validation_losses, key=lambda step: self.validation_losses[step], default=None)

    @property
    def is_over(self) -> bool:
        """Whether the run is: after all steps, or those that `patience` left."""
        best = self.best_step
        n_worse = 0 if best is None else sum(step > best for step in self.validation_losses)
        return len(self.losses) == self._steps or n_worse >= self._patience

    def on_start(self, training: Training) -> None:
        self._training = training
        if self._from_start and not self.validation_losses:
            self._measure()
        self._since = time.perf_counter()

    def on_step(self, training: Training) -> None:
        step = len(self.losses) + 1
        if step > self._steps:  # nothing is learnt: see `train`
            return
        self.seconds += time.perf_counter() - self._since
        self.losses.append(training.loss * _BITS)
        if self._is_due(step):
            self._measure()
            if step < self._steps and self.is_over:
                training.stop(now=True)
        self._since = time.perf_counter()

    def on_epoch(self, training: Training) -> None:  # noqa: ARG002
        if self.is_over:
            self.restore()

    def restore(self) -> None:
        """Give the model the best parameters that have been measured, if any."""
        if self._parameters.size:
            self._training.flat[:] = self._parameters

    def _measure(self) -> None:
        step = len(self.losses)
        self.validation_losses[step] = model_bits(self._training.model, self._held_out)
        if self.best_step == step:
            self._parameters = self._training.flat.copy()

    def _is_due(self, step: int) -> bool:
        return step % math.ceil(self._steps / 10) == 0 or step == self._steps

    def state(self) -> dict[str, Any]:
        measured = np.array([*self.validation_losses.values()], dtype=float)
        numbers = {"losses": np.array(self.losses), "validation_losses": measured, "seconds": self.seconds}
        return {**numbers, "parameters": self._parameters}

    def load_state(self, state: dict[str, Any]) -> None:
        check.same_names(state, self.state(), "the state of a Recorder")
        losses, measured = (_numbers(state[name], name) for name in ("losses", "validation_losses"))
        n_steps = check.below(len(losses), "the number of losses", self._steps + 1)
        due = [step for step in range(not self._from_start, n_steps + 1) if not step or self._is_due(step)]
        check.same_count(len(measured), len(due), "the number of validation_losses", "steps after which to measure")
        self.seconds = check.non_negative(state["seconds"], "seconds")
        self.losses, self.validation_losses = array("d", losses), dict(zip(due, measured.tolist(), strict=True))
        self._parameters = state["parameters"]

    def _check_state(self, state: dict[str, Any], parameters: Real) -> None:
        check.same_names(state, self.state(), "its state of a Recorder")
        if state["parameters"].size or len(state["validation_losses"]):
            check.finite(
                checkpoint.read_array(state, "parameters", parameters.dtype, parameters.shape), "its parameters"
            )


def train(
    model: SequenceModel,
    tokens: Int | Encoded,
    *,
    steps: int,
    batch_size: int,
    sequence_length: int,
    optimizer: Optimizer,
    clip_norm: float = 1.0,
    **options: Any,
) -> None:
    """Train on a text (n,) by truncated back-propagation through time: `fit`, with other `options` of it.

    For each update, `batch_size` readers, evenly spread, go on by `sequence_length` tokens. The learning rate rises
    to the optimizer's in the first twentieth of the steps, and falls to 0 in half a cosine.

    States begin with zeros in each epoch. It has as many steps as go round the text, or 1,000 if that is more, and less
    than twice as many. Where no equal epochs make up `steps`, the last one goes on for less than a thousandth of them
    at a learning rate of 0, so that nothing changes any more. Of a text in a file, about a million tokens are read at a
    time, and states begin with zeros in each of these parts of an epoch; then the last one goes on for less than one
    step for each part.

    Examples
    --------
    >>> import elman
    >>> from elman.text import Corpus, topics_text
    >>> corpus = Corpus.of(topics_text()[:5000])
    >>> n = len(corpus.vocabulary)
    >>> model = SequenceModel(elman.Tokens(n), elman.Categories(n), hidden_size=32, seed=0)
    >>> recorder = Recorder(corpus.held_out, steps=50)
    >>> options = {"batch_size": 8, "sequence_length": 16, "optimizer": elman.Adam(0.01), "callbacks": [recorder]}
    >>> train(model, corpus.train, steps=50, **options)
    >>> recorder.validation_losses[50] < recorder.losses[0]
    True
    """
    of_step = batch_size * sequence_length
    n_steps = max(math.ceil(len(tokens) / of_step), _LEAST_STEPS)
    epochs = max(1, steps // n_steps)
    n_steps = in_part = math.ceil(steps / epochs)
    if isinstance(tokens, Encoded):
        n_parts = math.ceil(n_steps / max(_READ_TOGETHER // of_step, _LEAST_TOGETHER))
        in_part = math.ceil(n_steps / n_parts)
        n_steps = in_part * n_parts
    cosine = Cosine(warmup=steps / 20 / n_steps)
    x: Any
    y: Any
    if isinstance(tokens, Encoded):
        shape = n_steps // in_part * batch_size, in_part * sequence_length
        x, y = (_Read(tokens, shape, batch_size, offset) for offset in (0, 1))
    else:
        starts = np.arange(batch_size) * len(tokens) // batch_size
        read = tokens.take(starts[:, None] + np.arange(n_steps * sequence_length + 1), mode="wrap")
        x, y = read[:, :-1], read[:, 1:]
    model.fit(
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=lambda done, _: cosine(done, steps / n_steps),
        clip_norm=clip_norm,
        tbptt=(sequence_length, sequence_length),
        shuffle=False,
        progress=False,
        **options,
    )


class _Read:
    """What readers read, part by part (parts of all of them, length), as an array that is read when it is needed."""

    dtype = np.dtype(np.int64)

    def __init__(self, tokens: Encoded, shape: tuple[int, int], n_readers: int, offset: int) -> None:
        self._tokens, self.shape, self._n_readers, self._offset = tokens, shape, n_readers, offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: Any) -> Int:
        return self.rows_at(np.atleast_1d(range(len(self))[i]))

    def rows_at(self, rows: Int) -> Int:
        """Some of them, as a fresh array."""
        length, n = self.shape[1], len(self._tokens)
        part, reader = np.divmod(rows, self._n_readers)
        starts = reader * n // self._n_readers + part * length + self._offset
        return np.stack([self._tokens.read(start, length) for start in starts.tolist()])


def _numbers(value: Any, name: str) -> Real:
    """Finite ones (n,), from a checkpoint."""
    numbers = check.real_array(value, name, np.dtype(float), ("n",), contiguous=True, allow_empty=True)
    check.finite(numbers, name)
    return numbers
