"""Text for a character model: where it comes from, its alphabet, what is held out of it, a baseline, the training."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.models.sequence import SequenceModel
from elman.storage import atomic, files
from elman.training import checkpoint
from elman.training.optimizers import Adam
from elman.typing import Int, Real

_LEAST = 1000  # characters of a text: below, neither what is held out nor a bigram means anything
_PIECES = 20  # of held-out text
_MAX_HELD_OUT = 100_000  # characters: enough for three digits, and quick to go through
_COPY = 50  # characters in a row that make a copy
_ALPHAS = np.logspace(-4, 1, 51)  # to choose the bigram's smoothing from
_BITS = 1 / math.log(2)  # in a nat


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
        return cls(vocabulary, vocabulary.encode(train), np.stack([*map(vocabulary.encode, held_out)]), n_copies)


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


def batches(tokens: Int, batch_size: int, n_steps: int, first: int = 0) -> Iterator[tuple[Int, Int]]:
    """Endless inputs and targets (T, B) from a text (n,): B readers, evenly spread, who go round and round.

    Row b of a batch continues row b of the one before, so a state can be carried over. The first one is number `first`.

    Examples
    --------
    >>> x, y = next(batches(np.arange(10), batch_size=2, n_steps=3))
    >>> x.T
    array([[0, 1, 2],
           [5, 6, 7]])
    >>> y.T
    array([[1, 2, 3],
           [6, 7, 8]])
    """
    n = len(tokens)
    positions = np.arange(n_steps + 1)[:, None] + np.arange(batch_size) * n // batch_size
    positions += first * n_steps
    while True:
        window = tokens[positions % n]
        yield window[:-1], window[1:]
        positions += n_steps


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
    state = _zero_state(model, len(held_out))
    x, y = held_out[:, :-1].T, held_out[:, 1:].T
    total = 0.0
    for t in range(0, len(x), n_steps):
        total += model.loss(x[t : t + n_steps], y[t : t + n_steps], state=state) * len(x[t : t + n_steps])
    return total / len(x) * _BITS


class Progress(NamedTuple):
    """Where a training stands after a step. Losses are in bits per character."""

    step: int  # counted from 1
    loss: float  # of the step's own batch, before its update
    validation_loss: float | None  # where it was measured
    tokens_per_second: float  # in training so far; the measuring is not counted


class Training:
    """Training on a text by truncated back-propagation through time, with Adam: an iterator over records of its steps.

    The learning rate falls from `lr` to 0 in half a cosine, after rising to it in the first twentieth of the steps.

    Parameters
    ----------
    model : SequenceModel
        From tokens to categories of the same number.
    tokens : integers (n,)
        The text.
    held_out : integers (pieces, length)
        Text to measure the validation loss on, ten times in all.

    Attributes
    ----------
    records : list of Progress
        Those of all steps so far.

    Raises
    ------
    FloatingPointError
        If the loss or its gradient is not finite.

    Examples
    --------
    >>> import elman
    >>> corpus = Corpus.of(topics_text()[:5000])
    >>> n = len(corpus.vocabulary)
    >>> model = SequenceModel(elman.Tokens(n), elman.Categories(n), hidden_size=32, seed=0)
    >>> sizes = {"steps": 50, "batch_size": 8, "sequence_length": 16}
    >>> records = list(Training(model, corpus.train, corpus.held_out, lr=0.01, **sizes))
    >>> records[-1].validation_loss < records[0].loss
    True
    """

    def __init__(
        self,
        model: SequenceModel,
        tokens: Int,
        held_out: Int,
        *,
        steps: int,
        batch_size: int,
        sequence_length: int,
        lr: float,
        clip_norm: float = 1.0,
    ) -> None:
        self.model, self.records = model, list[Progress]()
        self._tokens, self._held_out = tokens, held_out
        self._settings: dict[str, Any] = {
            "steps": steps,
            "batch_size": batch_size,
            "sequence_length": sequence_length,
            "lr": lr,
            "clip_norm": clip_norm,
        }
        self._about = {
            **self._settings,
            "seed": model._seed,
            "the alphabet": model.metadata.get("vocabulary"),
            "the text": checkpoint.fingerprint(tokens[None], is_sampled=False),
            "what is held out of it": checkpoint.fingerprint(held_out, is_sampled=False),
        }
        self._optimizer = Adam(lr)
        self._state = _zero_state(model, batch_size)
        self._seconds = 0.0

    def __iter__(self) -> Iterator[Progress]:
        steps, batch_size, sequence_length, lr, clip_norm = self._settings.values()
        every, first = math.ceil(steps / 10), len(self.records)
        readers = batches(self._tokens, batch_size, sequence_length, first)
        for step, (x, y) in zip(range(first + 1, steps + 1), readers, strict=False):
            self._optimizer.lr = lr * _schedule((step - 1) / steps)
            start = time.perf_counter()
            loss = self.model.train_step(x, y, optimizer=self._optimizer, clip_norm=clip_norm, state=self._state)
            self._seconds += time.perf_counter() - start
            is_due = step % every == 0 or step == steps
            validation_loss = model_bits(self.model, self._held_out) if is_due else None
            self.records.append(Progress(step, loss * _BITS, validation_loss, step * x.size / self._seconds))
            yield self.records[-1]

    def save(self, path: Path) -> None:
        """Write the model with all that `restore` needs: the old file or the whole new one."""
        losses, measured, speeds = zip(*(record[1:] for record in self.records), strict=True)
        record = {
            "run": self._about,
            "optimizer_steps": self._optimizer.steps,
            "seconds": self._seconds,
            "generators": [generator.bit_generator.state for generator in self.model._generators()],
        }
        arrays = {"state": self._state, "losses": np.array(losses), "speeds": np.array(speeds)}
        arrays["validation_losses"] = np.array(measured, dtype=float)  # NaN for None
        arrays |= {f"optimizer.{i}": array for i, array in enumerate(self._optimizer._memories["flat"])}
        atomic.write(path, *self.model._content(files.Progress(record, arrays)))

    def _run_of(self, record: dict[str, Any]) -> Any:
        """What a checkpoint says of its run. Those without a digest say less: that is taken to be as it is here."""
        found = record.get("settings")
        if not isinstance(found, dict):
            return record.get("run")
        same = self._about if found.pop("text", None) == zlib.crc32(self._tokens.tobytes()) else {"the text": "another"}
        return {**self._about, **same, **found}

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote, bit for bit; a ValueError if it was of another training."""
        model = self.model
        parameters, record, arrays = checkpoint.read(path, model)
        checkpoint.same_run(self._run_of(record), self._about, str(path))
        with checkpoint.refusing(path):
            seconds = check.non_negative(record["seconds"], "its seconds")
            n_steps = check.below(record["optimizer_steps"], "its optimizer_steps", self._settings["steps"] + 1)
            generators = checkpoint.read_generators(record, model)
            memories = checkpoint.read_memories(record, arrays, self._optimizer, model)
            state = checkpoint.read_array(arrays, "state", model.rnn.dtype, self._state.shape)
            losses, speeds, measured = (
                checkpoint.read_array(arrays, name, np.dtype(float), (n_steps,))
                for name in ("losses", "speeds", "validation_losses")
            )
            held_out = measured[~np.isnan(measured)]
            for name, array in (
                ("state", state),
                ("losses", losses),
                ("speeds", speeds),
                ("validation_losses", held_out),
            ):
                check.finite(array, f"its training:{name}")
            own = [f"optimizer.{i}" for i in range(len(memories))]
            check.same_names(arrays, ["state", "losses", "speeds", "validation_losses", *own], "its training")
            model.load_state_dict(parameters)  # all of them or an error: from here on there is none
        checkpoint.take_over(generators, model)
        self._optimizer.steps, self._seconds, self._state = n_steps, seconds, state
        self._optimizer._memories = {"flat": memories}
        validations = [None if math.isnan(value) else value for value in measured.tolist()]
        rows = zip(losses.tolist(), validations, speeds.tolist(), strict=True)
        self.records = [Progress(step, *row) for step, row in enumerate(rows, start=1)]


def _schedule(done: float) -> float:
    """The learning rate, as part of the highest, after this part of the steps."""
    return min(1.0, (done + 0.001) / 0.05) * (1 + math.cos(math.pi * done)) / 2


def _zero_state(model: SequenceModel, n_rows: int) -> Real:
    return np.zeros((model.rnn.num_layers, n_rows, model.rnn.hidden_size), model.rnn.dtype)


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
