"""A text as a model is trained on it: where it comes from, what is held out, and a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.text.encoded import Encoded, Numbers
from elman.text.reading import IN_MEMORY, Reader, name_of
from elman.text.vocabulary import AnyVocabulary, code_points
from elman.typing import Int

_LEAST = 1000  # characters of a text: below, neither what is held out nor a bigram means anything
_PIECES = 20  # of held-out text
_MAX_HELD_OUT = 100_000  # characters: enough for three digits, and quick to go through
_BIGRAM, _PARTS = 1 << 21, 64  # tokens of a text in a file that a bigram model is fitted on, from so many places
_ALPHAS = np.logspace(-4, 1, 51)  # to choose the bigram's smoothing from


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
        U+FFFF, and 4 for each word. In memory are a few blocks of a text, and of words each one that is in it.

        Parameters
        ----------
        path : path or None
        unit : {"characters", "words", "bytes"}
            What a token is.
        encoding : str
            Of characters and words.
        validation : path, optional
            The file of another text, of which all or, from all over it, 100,000 tokens are taken instead of what
            would be held out.
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
        texts = [] if path is not None else [_Text(reader.of_text(topics_text()), "text", reader.digest)]
        for file in (path, validation):
            if file is not None:
                texts.append(_Text(reader.of_file(file), f"{name_of(file)}: text", reader.digest))
        return cls._of(texts, reader, most_words)

    @classmethod
    def _of(cls, texts: Sequence[_Text], reader: Reader, most_words: int = 0) -> Corpus:
        """What there is to learn from, and maybe what to hold out."""
        vocabulary, table = reader.vocabulary(texts[0].numbers, most_words)
        whole, *others = (Encoded(_long_enough(*text[:2], vocabulary.unit)) for text in texts)
        rest, pieces = _split(whole) if not others else (whole, _pieces(others[0], 1)[0])
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
    pieces, ends = _pieces(text, 10)
    return text.without(ends - pieces.shape[1], ends), pieces


def _pieces(text: Encoded, part: int) -> tuple[Numbers, Int]:
    """Pieces (pieces, length) that are one in so many of a text, if it is not long, and where they end."""
    length = min(len(text) // part, _MAX_HELD_OUT) // _PIECES
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
