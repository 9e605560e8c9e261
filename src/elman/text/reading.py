"""Texts as they are read: decoded a block at a time, and kept as numbers in no more memory than is to spare.

A number is a character's code point, a byte, or the place of a word among all that there are, in order of appearance.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from elman import check
from elman.data.rows import give_back
from elman.text.encoded import Numbers
from elman.text.vocabulary import AnyVocabulary, Bytes, Vocabulary, Words, code_points
from elman.typing import Int

IN_MEMORY = 1 << 22  # tokens of a text; a longer one is read from a file
_BLOCK = 1 << 22  # bytes that are read at a time
_MARKS = {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
_STANDARD_INPUT = "standard input"
_CODE_UNITS: dict[str, Any] = {"latin-1": np.uint8, "utf-16-le": np.uint16, "utf-32-le": np.uint32}

Told = Callable[[int], None]  # how many bytes have been read


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The text of a file, line ends as "\\n" and without a byte order mark.

    Raises
    ------
    OSError
        If there is no such file, or it is a directory or not readable.
    ValueError
        If it is not in that encoding, or not text; the message names the line.
    """
    with Path(path).open("rb") as file:
        return "".join(_decoded(file, str(path), encoding))


def _decoded(file: BinaryIO, name: str, encoding: str, told: Told = lambda _: None) -> Iterator[str]:
    """The text of a file, in blocks."""
    canonical = codecs.lookup(encoding).name
    decoder = codecs.getincrementaldecoder("utf-8-sig" if canonical == "utf-8" else canonical)()
    universal, n_read, line = io.IncrementalNewlineDecoder(decoder, translate=True), 0, 1
    while True:
        block = file.read(_BLOCK)
        if n_read == 0 and canonical in _MARKS and not block.startswith(_MARKS[canonical]):
            both = f"{canonical}-le and {canonical}-be"
            check.refuse(
                f"{name} must begin with a byte order mark to be read as {canonical}; without one there are {both}"
            )
        n_read += len(block)
        try:
            piece = universal.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(canonical, "ignore")
            line += len(re.findall(r"\r\n?|\n", before))
            at = n_read - len(error.object) + error.start
            check.refuse(_wrong_encoding(name, canonical, error.object, error.start, at, line))
        if "\0" in piece:
            check.refuse(_no_text(name, piece, line))
        yield piece
        if not block:
            return
        line += piece.count("\n")
        told(n_read)


def _wrong_encoding(name: str, encoding: str, content: bytes, start: int, at: int, line: int) -> str:
    if encoding != "utf-8":
        guess = "UTF-8"
    elif content.startswith(_MARKS["utf-16"]):
        guess = "UTF-16"
    elif 3 * content.count(b"\0") > len(content):
        guess = _without_mark(content.index(b"\0"))
    else:
        guess = "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in content) else "ISO-8859-1"
    wrong = f"byte 0x{content[start]:02x} at position {at}, in line {line}"
    cure = f"if it is {guess}, {_converted(name, guess)} converts it; or say which encoding it has"
    return f"{name} is not {encoding.upper()} text: {wrong}; {cure}"


def _no_text(name: str, piece: str, line: int) -> str:
    """What has NUL characters: text in UTF-16, if they are about every other one."""
    at = piece.index("\0")
    where = f"{name} has a NUL character in line {line + piece.count(chr(10), 0, at)}, as text has none"
    if 3 * piece.count("\0") < len(piece):
        return f"{where}; what is no text can be read as bytes"
    guess = _without_mark(at)
    return f"{where}; if it is {guess}, {_converted(name, guess)} converts it"


def _without_mark(at: int) -> str:
    """Which UTF-16 has its first NUL there."""
    return "UTF-16LE" if at % 2 else "UTF-16BE"


def _converted(name: str, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {'-' if name == _STANDARD_INPUT else shlex.quote(name)} > new.txt"


def name_of(path: Path) -> str:
    """In messages."""
    return _STANDARD_INPUT if str(path) == "-" else str(path)


class Reader:
    """Reads texts in one kind of units; what is in them makes up one vocabulary."""

    def __init__(self, unit: str, encoding: str = "utf-8", told: Told = lambda _: None) -> None:
        self._unit: _Unit = _UNITS[unit]()
        self._encoding, self._told = encoding, told
        self.digest = ""  # of the last text

    def of_text(self, text: str) -> Numbers:
        """A text that is there."""
        return self._collected([text.encode() if isinstance(self._unit, _Bytes) else text])

    def of_file(self, path: Path) -> Numbers:
        """The text of a file, or of standard input if it is called "-"."""
        if str(path) == "-":
            if sys.stdin is None:
                check.refuse("the text must be in a file, or in standard input, which is closed")
            return self._collected(self._blocks(sys.stdin.buffer, name_of(path)))
        if path.is_file() and path.stat().st_size > IN_MEMORY and self._may_stay():
            numbers = self._where_it_is(path)
            if numbers is not None:
                return numbers
        with path.open("rb") as file:
            return self._collected(self._blocks(file, str(path)))

    def vocabulary(self, numbers: Numbers, most: int) -> tuple[AnyVocabulary, Int]:
        """What has been read, and the token of each number; of words, those that are most frequent in these numbers."""
        return self._unit.vocabulary(numbers, most)

    def _may_stay(self) -> bool:
        return isinstance(self._unit, _Bytes) or (
            isinstance(self._unit, _Characters) and codecs.lookup(self._encoding).name in ("utf-8", "ascii")
        )

    def _blocks(self, file: BinaryIO, name: str) -> Iterator[Any]:
        if not isinstance(self._unit, _Bytes):
            yield from _decoded(file, name, self._encoding, self._told)
            return
        n_read = 0
        while block := file.read(_BLOCK):
            n_read += len(block)
            yield block
            self._told(n_read)

    def _collected(self, blocks: Iterable[Any]) -> Numbers:
        digest = _Digest()
        with contextlib.closing(_Store()) as store:
            for block in blocks:
                digest.update(block)
                store.add(self._unit.numbers(block))
            store.add(self._unit.rest())
            self.digest = digest.short()
            return store.numbers()

    def _where_it_is(self, path: Path) -> Numbers | None:
        """A large file whose bytes are numbers already, mapped; None if there are others in it."""
        numbers, digest = np.memmap(path, np.uint8, "r"), _Digest()
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK].tobytes()
            if not self._unit.are_numbers(block):
                return None
            digest.update(block)
            give_back(numbers)
            self._told(start + len(block))
        self.digest = digest.short()
        return numbers


class _Characters:
    def __init__(self) -> None:
        self._are_there = np.zeros(0x110000, bool)
        self._known = b""  # those of ASCII

    def numbers(self, text: str) -> Numbers:
        self._note(text.encode("utf-8", "surrogatepass").translate(None, self._known))
        for encoding, dtype in _CODE_UNITS.items():
            with contextlib.suppress(UnicodeEncodeError):
                found = np.frombuffer(text.encode(encoding, "surrogatepass"), dtype)
                if len(found) == len(text):  # in UTF-16 some take two
                    break
        return found

    def are_numbers(self, block: bytes) -> bool:
        """Whether bytes are characters of ASCII, with line ends as they should be: then they count as seen."""
        new = block.translate(None, self._known)
        if not new.isascii() or b"\r" in new or b"\0" in new:
            return False
        self._note(new)
        return True

    def _note(self, new: bytes) -> None:
        if new:
            self._are_there[code_points(new.decode("utf-8", "surrogatepass"))] = True
            self._known = bytes(np.flatnonzero(self._are_there[:128]).tolist())

    def rest(self) -> Numbers:
        return np.empty(0, np.uint8)

    def vocabulary(self, numbers: Numbers, most: int) -> tuple[AnyVocabulary, Int]:  # noqa: ARG002
        vocabulary = Vocabulary("".join(map(chr, np.flatnonzero(self._are_there).tolist())))
        return vocabulary, vocabulary.table()


class _Ids(dict[str, int]):
    def __missing__(self, word: str) -> int:
        self[word] = found = len(self)
        return found


class _Words:
    def __init__(self) -> None:
        self._ids, self._left = _Ids(), ""

    def numbers(self, text: str) -> Numbers:
        text = self._left + text
        end = Words.whole(text)
        self._left = text[end:]
        return self._of_words(text[:end])

    def rest(self) -> Numbers:
        left, self._left = self._left, ""
        return self._of_words(left)

    def are_numbers(self, block: bytes) -> bool:  # noqa: ARG002
        return False

    def vocabulary(self, numbers: Numbers, most: int) -> tuple[AnyVocabulary, Int]:
        counts = np.zeros(len(self._ids), np.int64)
        for start in range(0, len(numbers), _BLOCK):
            counts += np.bincount(numbers[start : start + _BLOCK], minlength=len(counts))
            give_back(numbers)
        kept = np.argsort(-counts, kind="stable")[: min(most, np.count_nonzero(counts))]
        table, words = np.zeros(len(counts), np.int64), [*self._ids]
        table[kept] = np.arange(1, len(kept) + 1)
        return Words([words[i] for i in kept]), table

    def _of_words(self, text: str) -> Numbers:
        words = Words.of_text(text)
        return np.fromiter(map(self._ids.__getitem__, words), np.int32, len(words))


class _Bytes:
    def numbers(self, block: bytes) -> Numbers:
        return np.frombuffer(block, np.uint8)

    def rest(self) -> Numbers:
        return np.empty(0, np.uint8)

    def are_numbers(self, block: bytes) -> bool:  # noqa: ARG002
        return True

    def vocabulary(self, numbers: Numbers, most: int) -> tuple[AnyVocabulary, Int]:  # noqa: ARG002
        return Bytes(), np.arange(256)


_Unit = _Characters | _Words | _Bytes
_UNITS: dict[str, type[_Unit]] = {"characters": _Characters, "words": _Words, "bytes": _Bytes}


class _Store:
    """Numbers one behind the other, in memory or a temporary file, that has no name or is gone with the process."""

    def __init__(self) -> None:
        self._dtype: np.dtype[Any] = np.dtype(np.uint8)
        self._file, self._n = self._new_file(), 0

    def add(self, numbers: Numbers) -> None:
        if numbers.itemsize > self._dtype.itemsize and len(numbers):
            self._widen(numbers.dtype)
        self._write(numbers.astype(self._dtype, copy=False).data)
        self._n += len(numbers)

    def numbers(self) -> Numbers:
        self._file.seek(0)
        if self._n <= IN_MEMORY:
            return np.frombuffer(self._file.read(), self._dtype)
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r")  # which keeps the file, when it is closed

    def close(self) -> None:
        self._file.close()

    def _widen(self, dtype: np.dtype[Any]) -> None:
        narrow, self._file = self._file, self._new_file()
        narrow.seek(0)
        with narrow:
            while block := narrow.read(_BLOCK):
                self._write(np.frombuffer(block, self._dtype).astype(dtype).data)
        self._dtype = dtype

    def _write(self, content: memoryview) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            where = f"{tempfile.gettempdir()}, where the text is kept as numbers (TMPDIR names another folder)"
            raise OSError(error.errno, os.strerror(error.errno or 0), where) from error

    @staticmethod
    def _new_file() -> Any:
        return tempfile.SpooledTemporaryFile(IN_MEMORY)  # of so many bytes, for tokens that are of one


class _Digest:
    """Of all of a text."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, block: bytes | str) -> None:
        self._hash.update(block.encode("utf-8", "surrogatepass") if isinstance(block, str) else block)

    def short(self) -> str:
        return self._hash.hexdigest()[:12]
