"""elman.text: reading, the alphabet, what is held out, the bigram model, and the training without a terminal."""

import itertools
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elman
from elman import text
from elman.text import Corpus, Recorder, Vocabulary
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
    monkeypatch.setattr(text, "_LEAST_STEPS", 1)
    part, watch = corpus._replace(train=corpus.train[:100]), Watch()  # 7 steps to go through
    recorder = trained(small_model(corpus), part, 23, watch)
    assert len(watch.rates) == 24
    assert (watch.parameters[22] != watch.parameters[21]).any()
    assert (watch.parameters[23] == watch.parameters[22]).all()
    assert (len(recorder.losses), max(recorder.validation_losses)) == (23, 23)


@pytest.mark.parametrize("step", [3, 11, 23])
def test_a_training_goes_on(corpus: Corpus, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_LEAST_STEPS", 10)
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
