"""elman.text: reading, the alphabet, what is held out, the bigram model, and the training without a terminal."""

import itertools
import math
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import elman
from elman import text
from elman.text import Corpus, Recorder, Vocabulary, encoded, reading
from elman.text.vocabulary import Bytes, Words
from elman.training import Training
from elman.typing import Int


@pytest.fixture(scope="module")
def topics() -> str:
    return text.topics_text()


@pytest.fixture(scope="module")
def corpus(topics: str) -> Corpus:
    return Corpus.of(topics[:20_000])


def small_model(corpus: Corpus, **sizes: object) -> elman.SequenceModel:
    n = len(corpus.vocabulary)
    return elman.SequenceModel(elman.Tokens(n), elman.Categories(n), **{"hidden_size": 24, "seed": 0, **sizes})


# Reading


def test_topics(topics: str) -> None:
    assert 400_000 < len(topics) < 700_000
    assert topics.index("assert") < topics.index("The standard type hierarchy")  # sorted by topic
    assert "statement" in topics


def test_read_text_drops_mark_and_carriage_returns(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes("\ufeffeins\r\nzwölf\r\n".encode())
    assert text.read_text(file) == "eins\nzwölf\n"


def test_read_text_refuses_what_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes("zwölf".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"file\.txt is not UTF-8 text: byte 0xf6 at position 2, in line 1; if it is ISO"
    ):
        text.read_text(file)
    assert text.read_text(file, "latin-1") == "zwölf"
    with pytest.raises(FileNotFoundError):
        text.read_text(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        text.read_text(tmp_path)


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        ("a\nb\n“c”".encode("cp1252"), "utf-8", r"byte 0x93 at position 4, in line 3; if it is WINDOWS-1252, iconv -f"),
        (
            "a\nzwölf".encode("utf-16"),
            "utf-8",
            "byte 0xff at position 0, in line 1; if it is UTF-16, iconv -f UTF-16 -t",
        ),
        ("zwölf\n".encode("utf-16-le"), "utf-8", "byte 0xf6 at position 4, in line 1; if it is UTF-16LE, iconv"),
        ("one\n".encode("utf-16-le"), "utf-8", r"NUL character in line 1, .* UTF-16LE, iconv -f UTF-16LE -t UTF-8 "),
        ("one\n".encode("utf-16-be"), "utf-8", "if it is UTF-16BE, iconv"),
        (b"one\ntwo\n\0three", "utf-8", "NUL character in line 3, as text has none; what is no text can be read as"),
        (
            "one".encode("utf-16-le"),
            "utf-16",
            "must begin with a byte order mark to be read as utf-16; .* utf-16-le and",
        ),
        (
            b"one\n\xff",
            "ascii",
            "is not ASCII text: byte 0xff at position 4, in line 2; if it is UTF-8, iconv -f UTF-8 -t",
        ),
        (b"\xe9" * 3, "shift_jis", "is not SHIFT_JIS text: byte 0xe9 at position 2"),
        ("€".encode()[:2], "utf-8", "byte 0xe2 at position 0"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_read_text_names_line_and_cure(
    content: bytes, encoding: str, reason: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if b"\0" not in content:  # which takes some text to be told from UTF-16
        monkeypatch.setattr(reading, "_BLOCK", block)
    file = tmp_path / "my file.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as raised:
        text.read_text(file, encoding)
    assert "'" + str(file) + "' > new.txt" in str(raised.value) or "iconv" not in str(raised.value)


def test_read_text_in_other_encodings(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    for encoding in ("utf-16", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"):
        file.write_bytes("eins\r\nzwölf\r".encode(encoding))
        assert text.read_text(file, encoding) == "eins\nzwölf\n"


NAMES = ["ascii", "line ends", "latin", "dashes", "faces"]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_stays_in_a_file(name: str, topics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is the text that was read as a whole; what takes wider numbers comes in a later block."""
    kept = topics[:30_000].encode("ascii", "ignore").decode()
    given = kept + {"latin": "é", "dashes": "é—", "faces": "é—😀"}.get(name, "") + kept[::-1]
    expected, file = Corpus.of(given), tmp_path / "text.txt"
    file.write_bytes(given.replace("\n", "\r\n" if name == "line ends" else "\n").encode())
    for module, limit, value in (
        (reading, "IN_MEMORY", 5000),
        (text.corpus, "IN_MEMORY", 5000),
        (reading, "_BLOCK", 4000),
    ):
        monkeypatch.setattr(module, limit, value)
    monkeypatch.setattr(encoded, "_BLOCK", 240)
    found = Corpus.read(file)
    assert isinstance(found.train, encoded.Encoded)
    assert repr(found.vocabulary) == repr(expected.vocabulary)
    assert (found.train.read(0, len(found.train)) == expected.train).all()
    assert (found.held_out == expected.held_out).all()
    assert (found.n_copies, found.fingerprint) == (expected.n_copies, expected.fingerprint)
    n = len(expected.train)
    for start in (0, 7, 1234, n - 3, 5 * n + 1):
        assert (found.train.read(start, 2 * n) == expected.train[(start + np.arange(2 * n)) % n]).all()
    numbers = {"ascii": 1, "line ends": 1, "latin": 1, "dashes": 2, "faces": 4}
    assert found.train.numbers(0, 1).itemsize == numbers[name]
    assert [*tmp_path.iterdir()] == [file]


def test_a_fingerprint_is_of_all_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", 100)
    monkeypatch.setattr(reading, "IN_MEMORY", 1000)
    found = set()
    for place in (0, 1000, 2150, 3999):
        (tmp_path / "text.txt").write_text("a" * place + "b" + "a" * (3999 - place))
        found.add(Corpus.read(tmp_path / "text.txt").fingerprint)
    assert len(found) == 4


def test_a_large_text_takes_little_memory(tmp_path: Path) -> None:
    """Of 30 MB, in a file of its own or in a temporary one."""
    program = (
        "import resource, sys; from pathlib import Path; from elman import text\n"
        "c = text.Corpus.read(Path(sys.argv[1])).train\n"
        "isinstance(c, text.encoded.Encoded) and c.read(0, 1 << 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    used = {}
    for name, word, n in (("small", "ab", 1000), ("ascii", "ab", 10**7), ("dashes", "–b", 5 * 10**6)):
        (tmp_path / name).write_text(f"{word}\n" * n, encoding="utf-8")
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        used[name] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert max(used.values()) < used["small"] + 70, used


def test_without_room_for_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading.tempfile, "SpooledTemporaryFile", lambda _: SimpleNamespace(write=full, close=str))
    (tmp_path / "text.txt").write_text("a" * 1000)
    with pytest.raises(OSError, match=r"No space left .*TMPDIR names another folder"):
        Corpus.read(tmp_path / "text.txt")


# Words and bytes


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet=" \na'.é"))
@example("a   b\t’n — ’_’  1,5")
def test_words_are_the_text(given_text: str) -> None:
    words = Words.of_text(given_text)
    assert "".join(words) == given_text
    known = Words(sorted({*words}) or ["a"])
    assert known.decode(known.encode(given_text)) == given_text
    for end in range(len(given_text)):  # as a block may end
        whole = Words.whole(given_text[:end])
        assert Words.of_text(given_text[:whole]) + Words.of_text(given_text[whole:]) == words


def test_words_beyond_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one two two three three three.\n" * 400)
    corpus = Corpus.read(file, "words", most_words=3)
    assert corpus.vocabulary.words == [" three", " two", "one"]
    assert corpus.vocabulary.encode("one two four").tolist() == [3, 2, 0]
    assert set(corpus.train.tolist()) == {0, 1, 2, 3}
    assert corpus.fingerprint.startswith("3,200 words (fingerprint ")
    assert corpus.vocabulary.decode(corpus.vocabulary.encode(" two four")) == " two <unknown>"


def test_any_bytes(tmp_path: Path) -> None:
    file, content = tmp_path / "bytes", np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    file.write_bytes(content)
    corpus = Corpus.read(file, "bytes")
    assert corpus.vocabulary.to_bytes(corpus.train[:200]) == content[:200]
    assert len(corpus.vocabulary) == 256
    assert corpus.vocabulary.decode(corpus.vocabulary.encode("zwölf")) == "zwölf"


@pytest.mark.parametrize(
    ("kind", "string"),
    [(Words, '"abc"'), (Words, "[1]"), (Words, '["a", "a"]'), (Words, "[]"), (Words, '[""]'), (Bytes, "255")],
)
def test_other_vocabularies_refuse_other_json(kind: Any, string: str) -> None:
    with pytest.raises(ValueError, match="vocabulary must be"):
        kind.from_json(string)


def test_other_vocabularies_round_trip() -> None:
    assert Words.from_json(Words(["a", " b"]).to_json()).words == ["a", " b"]
    assert len(Bytes.from_json(Bytes().to_json())) == 256


# The vocabulary


@settings(deadline=None, derandomize=True)
@given(st.text(), st.randoms(use_true_random=False))
def test_vocabulary_round_trip(given_text: str, rng: random.Random) -> None:
    shuffled = "".join(rng.sample(given_text, len(given_text)))
    vocabulary = Vocabulary(given_text)
    tokens = vocabulary.encode(shuffled)
    assert tokens.dtype == np.int64
    assert [vocabulary.characters[token] for token in tokens] == list(shuffled)
    assert vocabulary.decode(tokens) == shuffled
    assert vocabulary.characters == "".join(sorted(set(given_text)))
    assert Vocabulary.from_json(vocabulary.to_json()).characters == vocabulary.characters


def test_vocabulary_names_unknown_characters() -> None:
    vocabulary = Vocabulary("abc")
    with pytest.raises(ValueError, match=r"not in the vocabulary: '\\n', 'é'$"):
        vocabulary.encode("aé\nb")
    with pytest.raises(ValueError, match=r"'j', 'k', 'l', 'm', …$"):
        vocabulary.encode("defghijklmnop")
    with pytest.raises(ValueError, match="tokens must hold tokens from 0 to 2, got 3"):
        vocabulary.decode([0, 3])


@pytest.mark.parametrize("string", ["", "abc", "[1, 2]", '"ba"', '"aa"', "{}", "null", '"a'])
def test_vocabulary_refuses_other_json(string: str) -> None:
    with pytest.raises(ValueError, match="must be a JSON string of characters in ascending order"):
        Vocabulary.from_json(string)


def test_start() -> None:
    assert Vocabulary("ab\nc").start == "\n\n"
    assert Vocabulary("abc").start == "a"


# What is held out


def test_split_keeps_every_character_of_a_text_without_copies() -> None:
    rng = random.Random(0)
    given_text = "".join(rng.choice("abcdefghij ") for _ in range(12_345))
    train, held_out = text.split(given_text)
    assert {len(piece) for piece in held_out} == {12_345 // 10 // 20}
    length = len(held_out[0])
    joined, rest = "", train
    for i in range(20):
        n = 12_345 * (i + 1) // 20 - 12_345 * i // 20 - length
        joined, rest = joined + rest[:n] + held_out[i], rest[n:]
    assert joined == given_text
    assert not rest


def test_split_does_not_leak(topics: str) -> None:
    train, held_out = text.split(topics)
    assert 0.08 * len(topics) < sum(map(len, held_out)) <= len(topics) / 10
    assert len(train) > 0.75 * len(topics)
    windows = {piece[i : i + 50] for piece in held_out for i in range(len(piece) - 49)}
    assert not any(train[i : i + 50] in windows for i in range(len(train) - 49))


def test_split_of_a_text_that_repeats_itself() -> None:
    train, held_out = text.split("hello world " * 500)
    assert len(train) == 12 * 500 - sum(map(len, held_out))


def test_split_of_short_and_long_texts() -> None:
    with pytest.raises(ValueError, match="at least 1000 characters, got 999"):
        text.split("x" * 999)
    assert len(text.split("x" * 1000)[0]) == 900
    numbers = " ".join(map(str, range(300_000)))
    assert sum(map(len, text.split(numbers)[1])) == 100_000


def without_copies(given_text: str, pieces: list[str]) -> str:
    """As it is defined: a slow oracle."""
    known = {piece[i : i + 50] for piece in pieces for i in range(len(piece) - 49)}
    rest, before = given_text, ""
    while rest != before:
        before, is_kept = rest, bytearray(b"\1") * len(rest)
        for i in range(len(before) - 49):
            if before[i : i + 50] in known:
                is_kept[i : i + 50] = bytes(50)
        rest = "".join(itertools.compress(before, is_kept))
    return rest if 2 * len(rest) >= len(given_text) else given_text


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_copies_against_loops(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of held-out text between others, in blocks that copies go beyond, and gaps that make new ones."""
    monkeypatch.setattr(encoded, "_BLOCK", 240)
    n_found = 0
    for seed in range(25):
        rng = random.Random(seed)
        base, given_text, length = "".join(rng.choice("ab") for _ in range(200)), "", rng.randrange(1, 2000)
        while len(given_text) < length:
            start = rng.randrange(150)
            other = "".join(rng.choice("ab") for _ in range(rng.randrange(1, 100)))
            given_text += base[start : start + rng.randrange(1, 120)] if rng.random() < 0.3 else other
        pieces = [base[:100], base[100:]]
        numbers = [np.array([*map(ord, part)], dtype) for part in (given_text, *pieces)]
        found = encoded.Encoded(numbers[0]).without_copies(np.stack(numbers[1:]))
        expected = without_copies(given_text, pieces)
        assert "".join(map(chr, found.numbers(0, len(found)))) == expected
        n_found += len(expected) < len(given_text)
    assert n_found > 10


@pytest.mark.parametrize("block", [24, 48])
def test_copies_wherever_they_begin(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "_BLOCK", block)
    rng = np.random.default_rng(0)
    piece, other = (rng.integers(low, low + 3, 200).astype(np.uint8) for low in (0, 3))
    for start in range(100):
        given_text = np.concatenate([other[:start], piece[60:110], other[start:]])
        found = encoded.Encoded(given_text).without_copies(piece[None])
        assert (found.numbers(0, len(found)) == other).all()
        assert len(encoded.Encoded(np.delete(given_text, start)).without_copies(piece[None])) == 249


def test_copies_of_a_narrower_text() -> None:
    """Numbers are compared, not what is left of them in fewer bytes."""
    pieces = np.arange(60, dtype=np.uint8)[None]
    other = np.concatenate([np.arange(60) + 256, np.arange(60), np.zeros(200, int)]).astype(np.uint16)
    assert len(encoded.Encoded(other).without_copies(pieces)) == 60 + 200


# The bigram model


def bigram_oracle(train: list[int], held_out: list[list[int]], n: int, alpha: float) -> float:
    counts = [[0] * n for _ in range(n)]
    for a, b in itertools.pairwise(train):
        counts[a][b] += 1
    bits = [
        -math.log2((counts[a][b] + alpha) / (sum(counts[a]) + alpha * n))
        for piece in held_out
        for a, b in itertools.pairwise(piece)
    ]
    return sum(bits) / len(bits)


def test_bigram_against_scalar_loops(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out, n = corpus.train[:3000], corpus.held_out[:, :50], len(corpus.vocabulary)
    for alpha in (0.01, 0.5):
        monkeypatch.setattr(text.corpus, "_ALPHAS", [alpha])
        expected = bigram_oracle(train.tolist(), held_out.tolist(), n, alpha)
        assert text.bigram_bits(train, held_out, n) == pytest.approx(expected, rel=1e-12)


def test_bigram_smoothing_is_close_to_the_best(topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.of(topics)
    chosen = text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary))
    alphas, others = text.corpus._ALPHAS, []
    for alpha in alphas:
        monkeypatch.setattr(text.corpus, "_ALPHAS", [alpha])
        others.append(text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary)))
    assert min(others) <= chosen < min(others) + 0.01


# The training


def test_model_bits_is_the_loss_of_one_pass(corpus: Corpus) -> None:
    model = small_model(corpus, dtype="float64", num_layers=2)
    x, y = corpus.held_out[:, :-1].T, corpus.held_out[:, 1:].T
    expected = model.loss(x, y) / math.log(2)
    assert text.model_bits(model, corpus.held_out, n_steps=7) == pytest.approx(expected, rel=1e-12)


class Watch(elman.Callback):
    """What there is after each step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.parameters, self.rates, self.stop_at = list[np.ndarray](), list[float](), stop_at

    def on_step(self, training: Training) -> None:
        self.parameters.append(np.concatenate([array.ravel() for array in training.model.parameters().values()]))
        self.rates.append(training.optimizer.lr)
        if training.steps == self.stop_at:
            raise InterruptedError


def trained(
    model: elman.SequenceModel, corpus: Corpus, steps: int, *others: elman.Callback, **options: Any
) -> Recorder:
    recorder = Recorder(corpus.held_out, steps)
    sizes = {"batch_size": 3, "sequence_length": 5}
    options = {**sizes, "optimizer": elman.Adam(0.01), "callbacks": [recorder, *others]} | options
    text.train(model, corpus.train, steps=steps, **options)
    return recorder


def given_to_fit(tokens: Int, **sizes: int) -> dict[str, Any]:
    given: dict[str, Any] = {}
    model: Any = SimpleNamespace(fit=lambda x, y, **options: given.update(x=x, y=y, **options))
    text.train(model, tokens, optimizer=elman.SGD(0.1), **sizes)
    return given


def test_readers_go_round() -> None:
    given = given_to_fit(np.arange(101), steps=40, batch_size=3, sequence_length=7)
    x, y = given["x"], given["y"]
    assert x.shape == y.shape == (3, 280)
    assert x.dtype == np.int64
    assert (x[:, 1:] == y[:, :-1]).all()
    assert (y == (x + 1) % 101).all()  # at the end of the text they start anew
    assert x[:, 0].tolist() == [0, 33, 67]
    assert given["tbptt"] == (7, 7)
    assert len(given_to_fit(np.arange(5), steps=1, batch_size=2, sequence_length=12)["x"].T) == 12


def test_training_learns_and_is_silent(corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    model = small_model(corpus)
    before = text.model_bits(model, corpus.held_out)
    recorder = trained(model, corpus, 95, batch_size=8, sequence_length=16)
    assert len(recorder.losses) == 95
    assert list(recorder.validation_losses) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]
    assert recorder.losses[0] == pytest.approx(math.log2(len(corpus.vocabulary)), rel=0.1)
    assert recorder.validation_losses[95] == text.model_bits(model, corpus.held_out)
    assert recorder.validation_losses[95] < before - 1
    assert recorder.seconds > 0
    assert capfd.readouterr() == ("", "")


def test_training_carries_the_state_and_depends_on_the_seed_alone(corpus: Corpus) -> None:
    def losses(**options: object) -> list[float]:
        model = small_model(corpus, num_layers=2, **options)
        return list(trained(model, corpus, 4, optimizer=elman.SGD(0.0)).losses)

    assert losses(dropout=0.2) == losses(dropout=0.2) != losses(dropout=0.2, seed=1)
    model, state = small_model(corpus, num_layers=2), np.zeros((2, 3, 24), np.float32)
    given = given_to_fit(corpus.train, steps=4, batch_size=3, sequence_length=5)
    x, y = given["x"].T, given["y"].T
    windows = [slice(t, t + 5) for t in range(0, 20, 5)]
    expected = [model.loss(x[window], y[window], state=state) / math.log(2) for window in windows]
    assert losses() == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate(corpus: Corpus) -> None:
    watch = Watch()
    trained(small_model(corpus, hidden_size=1), corpus, 1000, watch)
    top = int(np.argmax(watch.rates))
    assert 45 < top < 55
    assert watch.rates[top] == pytest.approx(0.01, rel=1e-3)
    assert 0 < watch.rates[0] < 0.001
    assert watch.rates[:top] == sorted(watch.rates[:top])
    assert watch.rates[top:] == sorted(watch.rates[top:], reverse=True)
    assert 0 < watch.rates[-1] < 1e-6


@pytest.mark.parametrize("steps", [1, 999, 1000, 1999, 2000, 5500, 1_000_003])
@pytest.mark.parametrize("n_tokens", [900, 30_000])
def test_epochs(n_tokens: int, steps: int) -> None:
    """As many steps as asked for or, in memory that does not grow with them, less than a thousandth more."""
    given = given_to_fit(np.arange(n_tokens), steps=steps, batch_size=4, sequence_length=5)
    assert given["x"].shape == given["y"].shape
    n_steps, epochs, all_steps = given["x"].shape[1] // 5, given["epochs"], max(n_tokens // 20, 1000)
    assert steps <= epochs * n_steps < steps * 1.001
    assert min(steps, all_steps) <= n_steps < 2 * all_steps
    assert len(np.unique(given["x"])) == n_tokens or steps < n_tokens // 20
    factors = [given["schedule"]((step + 0.5) / n_steps, epochs) for step in range(steps - 1, epochs * n_steps)]
    assert factors[0] > 0
    assert not any(factors[1:])


def test_steps_beyond_those_asked_for_change_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.training, "_LEAST_STEPS", 1)
    part, watch = corpus._replace(train=corpus.train[:100]), Watch()  # 7 steps to go through
    recorder = trained(small_model(corpus), part, 23, watch)
    assert len(watch.rates) == 24
    assert (watch.parameters[22] != watch.parameters[21]).any()
    assert (watch.parameters[23] == watch.parameters[22]).all()
    assert (len(recorder.losses), max(recorder.validation_losses)) == (23, 23)


@pytest.mark.parametrize("step", [3, 11, 23])
def test_a_training_goes_on(corpus: Corpus, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.training, "_LEAST_STEPS", 10)
    part, path = corpus._replace(train=corpus.train[:150]), tmp_path / "run.safetensors"  # 3 epochs of 10 steps
    models = [small_model(corpus, dropout=0.2, num_layers=2) for _ in range(3)]
    expected = trained(models[0], part, 30)
    with pytest.raises(InterruptedError):
        trained(models[1], part, 30, Watch(step), checkpoint=path, checkpoint_every=2)
    found = trained(models[2], part, 30, watch := Watch(), checkpoint=path, resume=True)
    assert len(watch.rates) == 30 - (step - 1) // 2 * 2
    assert (found.losses, found.validation_losses) == (expected.losses, expected.validation_losses)
    for name, array in models[0].parameters().items():
        assert (array == models[2].parameters()[name]).all()


def in_a_file(corpus: Corpus) -> encoded.Encoded:
    n = len(corpus.vocabulary)
    return encoded.Encoded(corpus.train.astype(np.uint8), np.arange(n), (np.array([0, 500]), np.array([200, 2000])))


def test_a_text_in_a_file_is_read_part_by_part(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.training, "_READ_TOGETHER", 300)
    tokens = in_a_file(corpus)
    given = given_to_fit(tokens, steps=59, batch_size=3, sequence_length=5)
    n_parts, length = given["x"].shape[0] // 3, given["x"].shape[1]
    assert (n_parts, length) == (3, 100)
    everything = tokens.read(0, len(tokens))
    for reader in range(3):
        x, y = (np.concatenate(given[name][:][reader::3]) for name in "xy")
        places = reader * len(tokens) // 3 + np.arange(n_parts * length)
        assert (x == everything[places % len(tokens)]).all()
        assert (y == everything[(places + 1) % len(tokens)]).all()
    factors = [given["schedule"]((step + 0.5) / 60, 1) for step in range(60)]
    assert all(factors[:59])
    assert factors[59] == 0


def test_a_training_on_a_file_goes_on(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.training, "_READ_TOGETHER", 300)
    part, path = corpus._replace(train=in_a_file(corpus)), tmp_path / "run.safetensors"
    models = [small_model(corpus) for _ in range(3)]
    expected = trained(models[0], part, 50)
    with pytest.raises(InterruptedError):
        trained(models[1], part, 50, Watch(31), checkpoint=path, checkpoint_every=2)
    found = trained(models[2], part, 50, watch := Watch(), checkpoint=path, resume=True)
    assert len(watch.rates) == 51 - 30
    assert (found.losses, found.validation_losses) == (expected.losses, expected.validation_losses)
    for name, array in models[0].parameters().items():
        assert (array == models[2].parameters()[name]).all()


def worse_from(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let measurements say so."""
    bits = iter([9.0 - i if i < step else 9.0 + i for i in range(100)])
    monkeypatch.setattr(text.training, "model_bits", lambda *_: next(bits))


def test_the_best_model_is_kept(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse_from(3, monkeypatch)
    model, watch, path = small_model(corpus), Watch(), tmp_path / "run.safetensors"
    recorder = trained(model, corpus, 20, watch, checkpoint=path)
    assert (recorder.best_step, len(recorder.losses), recorder.is_over) == (6, 20, True)
    for found in (model, elman.load(path)):
        assert (np.concatenate([array.ravel() for array in found.parameters().values()]) == watch.parameters[5]).all()


def test_patience(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the run, in the middle of the epoch, and for good."""
    worse_from(3, monkeypatch)
    model, watch, path = small_model(corpus), Watch(), tmp_path / "run.safetensors"
    recorder = Recorder(corpus.held_out, 20, patience=2)
    sizes = {"batch_size": 3, "sequence_length": 5, "checkpoint": path, "optimizer": elman.Adam(0.01)}
    text.train(model, corpus.train, steps=20, callbacks=[recorder, watch], **sizes)
    assert (recorder.best_step, len(recorder.losses), recorder.is_over) == (6, 10, True)
    again = Recorder(corpus.held_out, 20, patience=2)
    text.train(small_model(corpus), corpus.train, steps=20, callbacks=[again, Watch(1)], **sizes, resume=True)
    assert (again.losses, again.is_over) == (recorder.losses, True)
    found = np.concatenate([array.ravel() for array in elman.load(path).parameters().values()])
    assert (found == watch.parameters[5]).all()


def test_a_model_that_was_better_before(corpus: Corpus) -> None:
    model = small_model(corpus)
    before, recorder = model.state_dict(), Recorder(corpus.held_out, 10, from_start=True)
    options = {"optimizer": elman.SGD(1e3), "clip_norm": 1e3, "batch_size": 3, "sequence_length": 5}
    text.train(model, corpus.train, steps=10, callbacks=[recorder], **options)
    assert list(recorder.validation_losses) == [*range(11)]
    assert recorder.best_step == 0
    assert all((array == before[name]).all() for name, array in model.state_dict().items())
    state = recorder.state()
    recorder.load_state(state)
    assert recorder.state()["validation_losses"].tolist() == state["validation_losses"].tolist()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"more": 1}, "must have the names"),
        ({"seconds": -1.0}, "seconds must be"),
        ({"seconds": "1"}, "seconds must be"),
        ({"losses": np.array([1.0, np.nan])}, "losses must be finite"),
        ({"losses": np.zeros((1, 2))}, "losses must have"),
        ({"losses": np.zeros(6)}, "the number of losses must be an int from 0 to 5, got 6"),
        ({"validation_losses": np.zeros(1)}, "the number of validation_losses must be 2"),
    ],
    ids=str,
)
def test_a_state_that_no_recorder_has(corpus: Corpus, other: dict[str, Any], reason: str) -> None:
    good: dict[str, Any] = {"losses": np.array([2.0, 1.0]), "validation_losses": np.array([2.5, 1.5]), "seconds": 0.5}
    good["parameters"] = np.zeros(3)
    recorder = Recorder(corpus.held_out, steps=5)
    recorder.load_state(good)
    assert recorder.validation_losses == {1: 2.5, 2: 1.5}
    with pytest.raises((TypeError, ValueError), match=reason):
        recorder.load_state(good | other)
    assert str({**recorder.state()}) == str(good), "it is as it was"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_line_of_a_wrong_byte(tmp_path: Path, end: bytes):
    (tmp_path / "text").write_bytes(end.join([b"one", b"two", b"thr\xe9e"]) * 2)
    with pytest.raises(ValueError, match=r"byte 0xe9 at position .*, in line 3;"):
        text.read_text(tmp_path / "text")
