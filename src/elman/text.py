"""Text for a character model: where it comes from, its alphabet, what is held out of it, a baseline, the training."""

from __future__ import annotations

import hashlib
import json
import math
import time
from array import array
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.models.sequence import SequenceModel
from elman.schedules import Cosine
from elman.training import Callback, Training
from elman.training.optimizers import Optimizer
from elman.typing import Int, Real

_LEAST = 1000  # characters of a text: below, neither what is held out nor a bigram means anything
_PIECES = 20  # of held-out text
_MAX_HELD_OUT = 100_000  # characters: enough for three digits, and quick to go through
_COPY = 50  # characters in a row that make a copy
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


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, line ends as "\\n" and without a byte order mark.

    Raises
    ------
    OSError
        If there is no such file, or it is a directory or not readable.
    ValueError
        If it is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        check.refuse(f"{path} is not UTF-8 text: byte 0x{byte:02x} at position {error.start}")


class Vocabulary:
    """The characters of a text, sorted; a character's token is its place among them.

    Parameters
    ----------
    text : str
        Any text that has all the characters.

    Examples
    --------
    >>> vocabulary = Vocabulary("hello world")
    >>> vocabulary
    Vocabulary(' dehlorw')
    >>> vocabulary.encode("hold")
    array([3, 5, 4, 1])
    >>> vocabulary.decode([3, 5, 4, 1])
    'hold'
    """

    def __init__(self, text: str) -> None:
        self.characters = "".join(sorted(set(text)))
        self._code_points = _code_points(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    @property
    def start(self) -> str:
        """What a text is taken to come after that has nothing before it: an empty line, if there are lines."""
        return "\n\n" if "\n" in self.characters else self.characters[0]

    def encode(self, text: str) -> Int:
        """Tokens (n,) of a text of n characters; a ValueError names the characters that are not in the vocabulary."""
        unknown = sorted(set(text) - set(self.characters))
        if unknown:
            shown = ", ".join(map(repr, unknown[:10])) + (", …" if len(unknown) > 10 else "")
            check.refuse(f"not in the vocabulary: {shown}")
        return np.searchsorted(self._code_points, _code_points(text)).astype(np.int64)

    def decode(self, tokens: Sequence[int] | Int) -> str:
        """The text of tokens (n,)."""
        if len(tokens) == 0:
            return ""
        known = check.tokens(tokens, "tokens", len(self), ("n",))
        return "".join(self.characters[token] for token in known)

    def to_json(self) -> str:
        """A string for `SequenceModel.metadata`."""
        return json.dumps(self.characters)

    @classmethod
    def from_json(cls, string: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote; anything else is a ValueError."""
        try:
            characters = json.loads(string)
        except ValueError:
            characters = None
        if not isinstance(characters, str) or characters != "".join(sorted(set(characters))):
            check.refuse("vocabulary must be a JSON string of characters in ascending order")
        return cls(characters)


class Corpus(NamedTuple):
    """A text as a character model is trained on it."""

    vocabulary: Vocabulary
    train: Int  # (n,)
    held_out: Int  # (pieces, length)
    n_copies: int  # characters that are in neither, as they repeat what is held out
    fingerprint: str  # of the whole text: its size and a hash

    @classmethod
    def of(cls, text: str) -> Corpus:
        """Split a text as `split` does.

        Examples
        --------
        >>> Corpus.of(topics_text()).held_out.shape[0]
        20
        """
        vocabulary = Vocabulary(text)
        train, held_out = split(text)
        n_copies = len(text) - len(train) - sum(map(len, held_out))
        pieces = np.stack([*map(vocabulary.encode, held_out)])
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        fingerprint = f"{len(text):,} characters (fingerprint {digest[:12]})"
        return cls(vocabulary, vocabulary.encode(train), pieces, n_copies, fingerprint)


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
    if len(text) < _LEAST:
        check.refuse(f"text must have at least {_LEAST} characters, got {len(text)}")
    length = min(len(text) // 10, _MAX_HELD_OUT) // _PIECES
    ends = [len(text) * (i + 1) // _PIECES for i in range(_PIECES)]
    held_out = [text[end - length : end] for end in ends]
    rest = "".join(text[start : end - length] for start, end in zip([0, *ends], ends, strict=False))
    return _without_copies(rest, held_out), held_out


def _without_copies(text: str, pieces: list[str]) -> str:
    known = {piece[i : i + _COPY] for piece in pieces for i in range(len(piece) - _COPY + 1)}
    rest, before = text, ""
    while rest != before:  # what is left on the two sides of a gap may make up another copy
        before, is_kept = rest, bytearray(b"\1") * len(rest)
        for i in range(len(before) - _COPY + 1):
            if before[i : i + _COPY] in known:
                is_kept[i : i + _COPY] = bytes(_COPY)
        rest = "".join(compress(before, is_kept))
    return rest if 2 * len(rest) >= len(text) else text


def bigram_bits(train: Int, held_out: Int, n_tokens: int) -> float:
    """Bits per character of a bigram model: p(b after a) = (count of ab + α) / (count of a + α · n_tokens).

    It is fitted on `train` (n,) and judged on `held_out` (pieces, length). α is the best for `train` when each pair is
    predicted from all others (leaving one out), which comes close to the best for unseen text.

    Examples
    --------
    >>> abab = np.tile([0, 1], 500)
    >>> bigram_bits(abab, abab[None], n_tokens=2) < 0.01
    True
    """
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
    """Bits per character of a model on `held_out` (pieces, length); it reads each piece from a zero state on."""
    state = np.zeros((model.rnn.num_layers, len(held_out), model.rnn.hidden_size), model.rnn.dtype)
    x, y = held_out[:, :-1].T, held_out[:, 1:].T
    total = 0.0
    for t in range(0, len(x), n_steps):
        total += model.loss(x[t : t + n_steps], y[t : t + n_steps], state=state) * len(x[t : t + n_steps])
    return total / len(x) * _BITS


class Recorder(Callback):
    """What a training on a text comes to, in bits per character: a callback for one call of `train`.

    Parameters
    ----------
    held_out : integers (pieces, length)
        Text to measure the validation loss on, ten times in all.
    steps : int
        How many updates there are to be.

    Attributes
    ----------
    losses : array of float
        The loss of each step's own batch, before its update.
    validation_losses : dict from int to float
        By the steps, counted from 1, after which they were measured.
    seconds : float
        What the steps have taken, without the measuring.
    """

    def __init__(self, held_out: Int, steps: int) -> None:
        self._held_out, self._steps = held_out, steps
        self.losses, self.validation_losses, self.seconds = array("d"), dict[int, float](), 0.0

    def on_start(self, training: Training) -> None:  # noqa: ARG002
        self._since = time.perf_counter()

    def on_step(self, training: Training) -> None:
        step = len(self.losses) + 1
        if step > self._steps:  # nothing is learnt: see `train`
            return
        self.seconds += time.perf_counter() - self._since
        self.losses.append(training.loss * _BITS)
        if self._is_due(step):
            self.validation_losses[step] = model_bits(training.model, self._held_out)
        self._since = time.perf_counter()

    def _is_due(self, step: int) -> bool:
        return step % math.ceil(self._steps / 10) == 0 or step == self._steps

    def state(self) -> dict[str, Any]:
        measured = np.array([*self.validation_losses.values()], dtype=float)
        return {"losses": np.array(self.losses), "validation_losses": measured, "seconds": self.seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        check.same_names(state, self.state(), "the state of a Recorder")
        losses, measured = (_numbers(state[name], name) for name in ("losses", "validation_losses"))
        n_steps = check.below(len(losses), "the number of losses", self._steps + 1)
        due = [step for step in range(1, n_steps + 1) if self._is_due(step)]
        check.same_count(len(measured), len(due), "the number of validation_losses", "steps after which to measure")
        self.seconds = check.non_negative(state["seconds"], "seconds")
        self.losses, self.validation_losses = array("d", losses), dict(zip(due, measured.tolist(), strict=True))


def train(
    model: SequenceModel,
    tokens: Int,
    *,
    steps: int,
    batch_size: int,
    sequence_length: int,
    optimizer: Optimizer,
    clip_norm: float = 1.0,
    **options: Any,
) -> None:
    """Train on a text (n,) by truncated back-propagation through time: `fit`, with other `options` of it.

    For each update, `batch_size` readers, evenly spread, go on by `sequence_length` characters. The learning rate rises
    to the optimizer's in the first twentieth of the steps, and falls to 0 in half a cosine.

    States begin with zeros in each epoch. It has as many steps as go round the text, or 1,000 if that is more, and less
    than twice as many, and all that it reads lies in memory. Where no equal epochs make up `steps`, the last
    one goes on for less than a thousandth of them at a learning rate of 0, so that nothing changes any more.

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
    n_steps = max(math.ceil(len(tokens) / (batch_size * sequence_length)), _LEAST_STEPS)
    epochs = max(1, steps // n_steps)
    n_steps = math.ceil(steps / epochs)
    cosine = Cosine(warmup=steps / 20 / n_steps)
    starts = np.arange(batch_size)[:, None] * len(tokens) // batch_size
    read = tokens[(starts + np.arange(n_steps * sequence_length + 1)) % len(tokens)]
    model.fit(
        read[:, :-1],
        read[:, 1:],
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


def _numbers(value: Any, name: str) -> Real:
    """Finite ones (n,), from a checkpoint."""
    numbers = check.real_array(value, name, np.dtype(float), ("n",), contiguous=True, allow_empty=True)
    check.finite(numbers, name)
    return numbers


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
