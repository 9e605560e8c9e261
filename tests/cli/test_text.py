"""elman.text: reading, the alphabet, what is held out, the bigram model, and the training without a terminal."""

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elman
from elman import text
from elman.text import Corpus, Vocabulary


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
    with pytest.raises(ValueError, match=r"file\.txt is not UTF-8 text: byte 0xf6 at position 2"):
        text.read_text(file)
    with pytest.raises(FileNotFoundError):
        text.read_text(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        text.read_text(tmp_path)


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


# Batches


def test_batches_are_streams() -> None:
    tokens = np.arange(101)
    stream = text.batches(tokens, batch_size=3, n_steps=7)
    taken = [next(stream) for _ in range(40)]
    for x, y in taken:
        assert x.shape == y.shape == (7, 3)
        assert x.dtype == np.int64
    xs, ys = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
    assert (xs[1:] == ys[:-1]).all()  # each row goes on from batch to batch
    assert (ys == (xs + 1) % 101).all()  # and starts anew at the end of the text
    assert xs[0].tolist() == [0, 33, 67]


def test_batches_longer_than_the_text() -> None:
    x, y = next(text.batches(np.arange(5), batch_size=2, n_steps=12))
    assert (y == (x + 1) % 5).all()


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
        monkeypatch.setattr(text, "_ALPHAS", [alpha])
        expected = bigram_oracle(train.tolist(), held_out.tolist(), n, alpha)
        assert text.bigram_bits(train, held_out, n) == pytest.approx(expected, rel=1e-12)


def test_bigram_smoothing_is_close_to_the_best(topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.of(topics)
    chosen = text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary))
    alphas, others = text._ALPHAS, []
    for alpha in alphas:
        monkeypatch.setattr(text, "_ALPHAS", [alpha])
        others.append(text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary)))
    assert min(others) <= chosen < min(others) + 0.005


# The training


def test_model_bits_is_the_loss_of_one_pass(corpus: Corpus) -> None:
    model = small_model(corpus, dtype="float64", num_layers=2)
    x, y = corpus.held_out[:, :-1].T, corpus.held_out[:, 1:].T
    expected = model.loss(x, y) / math.log(2)
    assert text.model_bits(model, corpus.held_out, n_steps=7) == pytest.approx(expected, rel=1e-12)


def test_training_learns_and_is_silent(corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    model = small_model(corpus)
    before = text.model_bits(model, corpus.held_out)
    sizes = {"steps": 95, "batch_size": 8, "sequence_length": 16}
    records = list(text.Training(model, corpus.train, corpus.held_out, lr=0.01, **sizes))
    assert [record.step for record in records] == list(range(1, 96))
    measured = [record for record in records if record.validation_loss is not None]
    assert [record.step for record in measured] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]
    assert records[0].loss == pytest.approx(math.log2(len(corpus.vocabulary)), rel=0.1)
    assert measured[-1].validation_loss == text.model_bits(model, corpus.held_out)
    assert measured[-1].validation_loss < before - 1
    assert min(record.tokens_per_second for record in records) > 0
    assert capfd.readouterr() == ("", "")


def test_training_carries_the_state_and_depends_on_the_seed_alone(corpus: Corpus) -> None:
    def losses(**options: object) -> list[float]:
        model = small_model(corpus, num_layers=2, dropout=0.2, **options)
        sizes = {"steps": 4, "batch_size": 3, "sequence_length": 5}
        return [record.loss for record in text.Training(model, corpus.train, corpus.held_out, lr=0.0, **sizes)]

    assert losses() == losses()
    assert losses() != losses(seed=1)
    model = small_model(corpus, num_layers=2)
    state = np.zeros((2, 3, 24), np.float32)
    expected = [
        model.loss(x, y, state=state) / math.log(2)
        for _, (x, y) in zip(range(4), text.batches(corpus.train, 3, 5), strict=False)
    ]
    model = small_model(corpus, num_layers=2)
    sizes = {"steps": 4, "batch_size": 3, "sequence_length": 5}
    records = list(text.Training(model, corpus.train, corpus.held_out, lr=0.0, **sizes))
    assert [record.loss for record in records] == pytest.approx(expected, rel=1e-6)


def test_schedule() -> None:
    rates = [text._schedule(step / 1000) for step in range(1000)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < 0.1
    assert 45 < top < 55
    assert rates[top] > 0.99
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-4
