"""What the tokens of a text stand for: its characters, its words, or bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.typing import Int

# A word with the space before it, a mark likewise, spaces before the last of several, any other space or line end
_WORD = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]| +(?= )|\s")


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

    unit: ClassVar[str] = "characters"
    unknown: ClassVar[int | None] = None  # the token of all that is not in the vocabulary

    def __init__(self, text: str) -> None:
        self.characters = "".join(sorted(set(text)))
        self._code_points = code_points(self.characters)

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
        return np.searchsorted(self._code_points, code_points(text)).astype(np.int64)

    def decode(self, tokens: Sequence[int] | Int) -> str:
        """The text of tokens (n,)."""
        return "".join(self.characters[token] for token in _known(tokens, self))

    def to_bytes(self, tokens: Sequence[int] | Int) -> bytes:
        """The text of tokens (n,) in UTF-8."""
        return self.decode(tokens).encode("utf-8", "replace")

    def table(self) -> Int:
        """The token of each code point, -1 for those of other characters."""
        found = np.full(0x110000, -1)
        found[self._code_points] = np.arange(len(self))
        return found

    def to_json(self) -> str:
        """A string for `SequenceModel.metadata`."""
        return json.dumps(self.characters)

    @classmethod
    def from_json(cls, string: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote; anything else is a ValueError."""
        characters = _read(string)
        if not isinstance(characters, str) or characters != "".join(sorted(set(characters))):
            check.refuse("vocabulary must be a JSON string of characters in ascending order")
        return cls(characters)


class Words:
    """The words of a text; token 0 stands for all others, and a word's token is its place among them, from 1 on.

    A word has the space before it, and a punctuation mark, a line end or a further space are words, too. So the words
    of a text, one behind the other, are the text.

    Parameters
    ----------
    words : list of str

    Examples
    --------
    >>> Words.of_text("one, two,\\n  three")
    ['one', ',', ' two', ',', '\\n', ' ', ' three']
    >>> vocabulary = Words([",", "one", " two"])
    >>> vocabulary.encode("one, two, three")
    array([2, 1, 3, 1, 0])
    >>> vocabulary.decode([2, 1, 3, 1, 0])
    'one, two, <unknown>'
    """

    unit: ClassVar[str] = "words"
    unknown: ClassVar[int | None] = 0

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*words]
        self._tokens = {word: token for token, word in enumerate(words, 1)}

    def __len__(self) -> int:
        return len(self.words) + 1

    def __repr__(self) -> str:
        return f"Words of {len(self.words)} words"

    @staticmethod
    def of_text(text: str) -> list[str]:
        """The words of a text."""
        return _WORD.findall(text)

    @staticmethod
    def whole(text: str) -> int:
        """How many characters of the beginning of a text have the words that they have whatever comes behind it."""
        at_space = max(text.rfind(" "), 0)
        return max(text.rfind("\n") + 1, len(text[:at_space].rstrip(" ")))

    @property
    def start(self) -> str:
        """As with characters, but one line end, for which each beginning of a line is evidence."""
        return "\n" if "\n" in self._tokens else self.words[0]

    def encode(self, text: str) -> Int:
        """Tokens (n,) of the n words of a text."""
        return np.array([self._tokens.get(word, 0) for word in self.of_text(text)], np.int64)

    def decode(self, tokens: Sequence[int] | Int) -> str:
        """The text of tokens (n,)."""
        return "".join(self.words[token - 1] if token else " <unknown>" for token in _known(tokens, self))

    def to_bytes(self, tokens: Sequence[int] | Int) -> bytes:
        """The text of tokens (n,) in UTF-8."""
        return self.decode(tokens).encode("utf-8", "replace")

    def to_json(self) -> str:
        """A string for `SequenceModel.metadata`."""
        return json.dumps(self.words)

    @classmethod
    def from_json(cls, string: str) -> Words:
        """The vocabulary that `to_json` wrote; anything else is a ValueError."""
        words = _read(string)
        is_list = isinstance(words, list) and bool(words) and all(isinstance(word, str) and word for word in words)
        if not is_list or len(set(words)) < len(words):
            check.refuse("vocabulary must be a JSON list of different words")
        return cls(words)


class Bytes:
    """All 256 bytes, each its own token. Texts are taken in UTF-8.

    Examples
    --------
    >>> Bytes().encode("é")
    array([195, 169])
    >>> Bytes().to_bytes([195, 169]).decode()
    'é'
    """

    unit: ClassVar[str] = "bytes"
    unknown: ClassVar[int | None] = None
    start: ClassVar[str] = "\n\n"  # as with characters

    def __len__(self) -> int:
        return 256

    def __repr__(self) -> str:
        return "Bytes()"

    def encode(self, text: str) -> Int:
        """Tokens (n,) of the n bytes of a text."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.int64)

    def decode(self, tokens: Sequence[int] | Int) -> str:
        """The text of tokens (n,), with a replacement character for what is not UTF-8."""
        return self.to_bytes(tokens).decode("utf-8", "replace")

    def to_bytes(self, tokens: Sequence[int] | Int) -> bytes:
        """The bytes themselves."""
        return bytes(int(token) for token in _known(tokens, self))

    def to_json(self) -> str:
        """A string for `SequenceModel.metadata`."""
        return json.dumps(len(self))

    @classmethod
    def from_json(cls, string: str) -> Bytes:
        """The vocabulary that `to_json` wrote; anything else is a ValueError."""
        if _read(string) != 256:
            check.refuse("vocabulary must be 256 for a model of bytes")
        return cls()


AnyVocabulary = Vocabulary | Words | Bytes
VOCABULARIES: dict[str, type[Vocabulary] | type[Words] | type[Bytes]] = {
    kind.unit: kind for kind in (Vocabulary, Words, Bytes)
}


def code_points(text: str) -> NDArray[np.uint32]:
    """(n,) of a text of n characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _read(string: str) -> Any:
    try:
        return json.loads(string)
    except ValueError:
        return None


def _known(tokens: Sequence[int] | Int, vocabulary: AnyVocabulary) -> Sequence[int] | Int:
    return check.tokens(tokens, "tokens", len(vocabulary), ("n",)) if len(tokens) else []
