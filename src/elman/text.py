"""Text for a model of characters, words or bytes: where it comes from, what is held out, a baseline, the training."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.encoded import Encoded, Numbers
from elman.models.sequence import SequenceModel
from elman.reading import IN_MEMORY, Reader
from elman.reading import read_text as read_text
from elman.schedules import Cosine
from elman.training import Callback, Training, checkpoint
from elman.training.optimizers import Optimizer
from elman.typing import Int, Real
from elman.vocabulary import AnyVocabulary, code_points
from elman.vocabulary import Vocabulary as Vocabulary

_LEAST = 1000  # characters of a text: below, neither what is held out nor a bigram means anything
_PIECES = 20  # of held-out text
_MAX_HELD_OUT = 100_000  # characters: enough for three digits, and quick to go through
_BIGRAM, _PARTS = 1 << 21, 64  # tokens of a text in a file that a bigram model is fitted on, from so many places
_READ_TOGETHER = 1 << 20  # tokens of such a text
_LEAST_TOGETHER = 16  # steps
_ALPHAS = np.logspace(-4, 1, 51)  # to choose the bigram's smoothing from
_BITS = 1 / math.log(2)  # in a nat
_LEAST_STEPS = 1000  # of an epoch, if there are so many: at its end a checkpoint is written, which takes a while


def topics_text() -> str:
    """The documentation topics that Python's `help()` shows: 460,000 characters or, by version, a few more.

    Examples
    --------
    >>> len(topics_text()) > 400_000
    True
    """
    from pydoc_data.topics import topics  # half a megabyte that only training needs

    return "\n\n".join(topics[name] for name in sorted(topics))


class Corpus(NamedTuple):
    """A text as a model is trained on it: its tokens are characters, words or bytes."""

    vocabulary: AnyVocabulary
    train: Int | Encoded  # (n,): an array unless there are millions
    held_out: Int  # (pieces, length)
    n_copies: int  # tokens that are in neither, as they repeat what is held out
    fingerprint: str  # of the whole text: its size and a hash
    validation: str | None = None  # likewise of the text that `held_out` is of, if that is another one

    @classmethod
    def of(cls, text: str) -> Corpus:
        """The characters of a text, split as `split` does.

        Examples
        --------
        >>> Corpus.of(topics_text()).held_out.shape[0]
        20
        """
        reader = Reader("characters")
        return cls._of([_Text(reader.of_text(text), "text", reader.digest)], reader)

    @classmethod
    def read(
        cls,
        path: Path | None,
        unit: str = "characters",
        *,
        encoding: str = "utf-8",
        validation: Path | None = None,
        most_words: int = 10_000,
        told: Callable[[int], None] = lambda _: None,
    ) -> Corpus:
        """The text of a file, of standard input if it is called "-", or `topics_text` for None.

        A text of more than four million tokens stays in a file: in its own, where bytes are tokens, or as numbers in a
        temporary one, which takes 1 byte for each character, 2 where some are beyond U+00FF, 4 where some are beyond
        U+FFFF, and 4 for each word. In memory are 25 MB of a text, and of words each one that is in it.

        Parameters
        ----------
        path : path or None
        unit : {"characters", "words", "bytes"}
            What a token is.
        encoding : str
            Of characters and words.
        validation : path, optional
            The file of another text, which is taken instead of what would be held out.
        most_words : int
            Of words, the most frequent ones are tokens of their own.
        told : function
            Is given now and then how many bytes have been read.

        Raises
        ------
        OSError
            If a file cannot be read, or there is no room for a temporary one.
        ValueError
            If it is not in that encoding, or has less than 1,000 tokens; the message names the line.

        Examples
        --------
        >>> path = getfixture("tmp_path") / "text.txt"
        >>> written = path.write_text("one two three, " * 500)
        >>> Corpus.read(path, "words").vocabulary.words
        [' two', ' three', ',', ' one', 'one', ' ']
        """
        reader = Reader(unit, encoding, told)
        first = reader.of_text(topics_text()) if path is None else reader.of_file(path)
        texts = [_Text(first, f"{path}: text", reader.digest)]
        if validation is not None:
            texts.append(_Text(reader.of_file(validation), f"{validation}: text", reader.digest))
        return cls._of(texts, reader, most_words)

    @classmethod
    def _of(cls, texts: Sequence[_Text], reader: Reader, most_words: int = 0) -> Corpus:
        """What there is to learn from, and maybe what to hold out."""
        vocabulary, table = reader.vocabulary(texts[0].numbers, most_words)
        whole, *others = (Encoded(_long_enough(*text[:2], vocabulary.unit)) for text in texts)
        rest, pieces = _split(whole) if not others else (whole, _pieces(others[0])[0])
        left = rest.without_copies(pieces)
        train = left.looked_up(table)
        is_short = len(train) <= IN_MEMORY
        return cls(
            vocabulary,
            train.read(0, len(train)) if is_short else train,
            table[pieces],
            len(rest) - len(left),
            *(f"{len(text.numbers):,} {vocabulary.unit} (fingerprint {text.digest})" for text in texts),
        )


class _Text(NamedTuple):
    numbers: Numbers
    name: str
    digest: str


def split(text: str) -> tuple[str, list[str]]:
    """Hold a tenth of a text out: 20 pieces of equal length from all over it, each the end of a twentieth.

    Of a long text no more than 100,000 characters are held out. Where the rest repeats them, 50 characters in a row or
    more, it is left out of the training text (the documentation topics contain one another), unless that is most of
    it: of a text that only repeats itself, that is what there is to learn.

    Returns
    -------
    train : str
    held_out : list of str

    Raises
    ------
    ValueError
        If the text has less than 1,000 characters.

    Examples
    --------
    >>> train, held_out = split(topics_text())
    >>> held_out[3] in train
    False
    """
    rest, pieces = _split(Encoded(_long_enough(code_points(text), "text", "characters")))
    rest = rest.without_copies(pieces)

    def text_of(numbers: Numbers) -> str:
        return numbers.astype(np.uint32).tobytes().decode("utf-32-le", "surrogatepass")

    return text_of(rest.numbers(0, len(rest))), [*map(text_of, pieces)]


def _long_enough(numbers: Numbers, name: str, unit: str) -> Numbers:
    if len(numbers) < _LEAST:
        check.refuse(f"{name} must have at least {_LEAST} {unit}, got {len(numbers)}")
    return numbers


def _split(text: Encoded) -> tuple[Encoded, Numbers]:
    """What is left, and what is held out (pieces, length)."""
    pieces, ends = _pieces(text)
    return text.without(ends - pieces.shape[1], ends), pieces


def _pieces(text: Encoded) -> tuple[Numbers, Int]:
    """Pieces (pieces, length) of a text, and where they end."""
    length = min(len(text) // 10, _MAX_HELD_OUT) // _PIECES
    ends = len(text) * np.arange(1, _PIECES + 1) // _PIECES
    return np.stack([text.numbers(end - length, length) for end in ends.tolist()]), ends


def bigram_bits(train: Int | Encoded, held_out: Int, n_tokens: int) -> float:
    """Bits per token of a bigram model: p(b after a) = (count of ab + α) / (count of a + α · n_tokens).

    It is fitted on `train` (n,), of a text in a file on two million tokens from all over it, and judged on `held_out`
    (pieces, length). α is the best for `train` when each pair is predicted from all others (leaving one out), which
    comes close to the best for unseen text.

    Examples
    --------
    >>> abab = np.tile([0, 1], 500)
    >>> bigram_bits(abab, abab[None], n_tokens=2) < 0.01
    True
    """
    if isinstance(train, Encoded):
        train = np.concatenate([train.read(len(train) * i // _PARTS, _BIGRAM // _PARTS) for i in range(_PARTS)])
    pairs, counts = np.unique(train[:-1] * n_tokens + train[1:], return_counts=True)
    firsts = np.bincount(train[:-1], minlength=n_tokens)

    def log_p(pairs: Int, counts: Int, alpha: float, own: int) -> NDArray[np.float64]:
        return np.log2((counts - own + alpha) / (firsts[pairs // n_tokens] - own + alpha * n_tokens))

    alpha = max(_ALPHAS, key=lambda alpha: float(counts @ log_p(pairs, counts, alpha, own=1)))
    new = (held_out[:, :-1] * n_tokens + held_out[:, 1:]).ravel()
    places = np.minimum(np.searchsorted(pairs, new), len(pairs) - 1)
    new_counts = np.where(pairs[places] == new, counts[places], 0)
    return float(-log_p(new, new_counts, alpha, own=0).mean()) + 0.0  # no minus zero for a text of one character


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
    time, and states begin with zeros in each of these parts of an epoch.

    Examples
    --------
    >>> import elman
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
    n_steps, in_part = math.ceil(steps / epochs), math.ceil(steps / epochs)
    if isinstance(tokens, Encoded):
        n_parts = math.ceil(n_steps / max(_READ_TOGETHER // of_step, _LEAST_TOGETHER))
        in_part = math.ceil(n_steps / n_parts)
        n_steps = in_part * n_parts
    cosine = Cosine(warmup=steps / 20 / n_steps)
    shape = n_steps // in_part * batch_size, in_part * sequence_length
    x, y = (_Read(tokens, shape, batch_size, offset) for offset in (0, 1))
    is_there = not isinstance(tokens, Encoded)
    model.fit(
        x[:] if is_there else x,
        y[:] if is_there else y,
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

    def __init__(self, tokens: Int | Encoded, shape: tuple[int, int], n_readers: int, offset: int) -> None:
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
        if isinstance(self._tokens, Encoded):
            return np.stack([self._tokens.read(start, length) for start in starts.tolist()])
        return np.asarray(self._tokens[(starts[:, None] + np.arange(length)) % n])


def _numbers(value: Any, name: str) -> Real:
    """Finite ones (n,), from a checkpoint."""
    numbers = check.real_array(value, name, np.dtype(float), ("n",), contiguous=True, allow_empty=True)
    check.finite(numbers, name)
    return numbers
