"""The examples run, and learn: with fewer epochs than a user's run has, so that they need seconds.

Where ONNX Runtime is installed, it predicts what their models do.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PACKAGES = ["faker", "matplotlib", "music21", "num2words", "sklearn", "statsmodels"]
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder, with other values of its constants; returns its variables."""
    if MISSING:
        pytest.skip(f"pip install '.[examples]' for {', '.join(MISSING)}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(name: str, **constants: int) -> dict[str, Any]:
        path = EXAMPLES / f"{name}.py"
        source = path.read_text(encoding="utf-8")
        for constant, value in constants.items():
            source, n = re.subn(rf"^{constant} = \d+", f"{constant} = {value}", source, flags=re.MULTILINE)
            assert n == 1, f"{path} must have one line that begins with {constant} = and a number"
        variables: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, path, "exec"), variables)
        assert (tmp_path / f"{name}.png").read_bytes()[1:4] == b"PNG"
        assert f"The plot is in {name}.png\n" in capsys.readouterr().out
        variables["plt"].close("all")
        if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
            from .bridges.onnx_models import check_models_among

            assert check_models_among(variables, tmp_path) > 0 or name == "pytorch"
        return variables

    return run


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_begins_with_a_title(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80
    assert lines[0] == '"""'
    assert lines[2] == "=" * len(lines[1])


def test_decision(run_example):
    example = run_example("decision", EPOCHS=8)
    assert example["curve"][0] < 0.2
    assert example["curve"][-1] > 0.8


def test_dale(run_example):
    example = run_example("dale", EPOCHS=8)
    assert min(example["right"]) > 0.85


def test_char_rnn(run_example):
    example = run_example("char_rnn", EPOCHS=2)
    (_, _, classic), (_, _, batched) = example["classic"], example["batched"]
    assert classic[-1] < 3.4  # the text differs between versions of Python
    assert batched[-1] < 2.8


def test_sentiment(run_example):
    example = run_example("sentiment", EPOCHS=8)
    assert 0.7 < example["bag_accuracy"] < 0.8
    assert example["accuracy"] >= 0.97
    np.testing.assert_allclose(example["toy"].predict_proba(example["words"])[:, 0], [1, 0, 1], atol=0.01)


def test_digits(run_example):
    assert run_example("digits", EPOCHS=20)["accuracy"] >= 0.96


def test_forecast(run_example):
    example = run_example("forecast", EPOCHS=60)
    persistence, ar, ours = (np.mean((ahead - example["truth"]) ** 2) for ahead in example["forecasts"].values())
    assert ours < 1.05 * ar < persistence


def test_co2(run_example):
    example = run_example("co2", EPOCHS=8)
    names = "seasonal naive", "autoregression", "networks"
    seasonal, ar, ours = (example["backtest"](example["methods"][name]).mae for name in names)
    assert (ours[:12] < 1.3 * ar[:12]).all()
    assert (2 * ours < seasonal).all()
    inside = (example["lower"] < example["actual"]) & (example["actual"] < example["upper"])
    assert 0.5 < inside.mean() < 0.95


def test_tagging(run_example):
    example = run_example("tagging", EPOCHS=8)
    left_to_right, both = (scores[-1] for scores in example["f1"])
    assert both >= 0.97
    assert left_to_right < 0.9
    known, new = ({name for pair in example[part] for name in _names(*pair)} for part in ("train", "test"))
    assert len(new) > 500
    assert not known & new


def _names(words: Sequence[str], tags: Sequence[str]) -> set[str]:
    text = " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
    return set(re.findall(r"\S+/B-\w+(?: \S+/I-\w+)*", text))


def test_music(run_example, tmp_path):
    example = run_example("music", EPOCHS=6)
    assert example["bits"] < 4.6 < example["by_frequency"]
    assert (tmp_path / "music.mid").read_bytes()[:4] == b"MThd"


def test_translate(run_example):
    exact = run_example("translate", EPOCHS=8)["exact"]
    assert exact[1] >= 0.8
    assert exact[4] >= exact[1] - 0.01


def test_pytorch(run_example):
    pytest.importorskip("torch")
    example = run_example("pytorch", STEPS=30)
    assert example["difference"] < 1e-4
    assert example["losses"][-1] < 0.9 * example["losses"][0]


def test_episodes(run_example):
    rewards = run_example("episodes", UPDATES=300)["rewards"]
    assert np.mean(rewards[:20]) < 0.4
    assert np.mean(rewards[-20:]) > 0.9


def test_memory(run_example):
    example = run_example("memory", EPOCHS=4)
    tanh, relu = (model.evaluate(*example["held_out"])["loss"] for model in example["models"].values())
    assert tanh > 0.1
    assert relu < 0.02


def test_flipflop(run_example):
    example = run_example("flipflop", EPOCHS=100)
    assert example["right"] > 0.98
    points, rnn = example["points"], example["model"].rnn
    assert points.is_stable.sum() == 8
    assert points.is_stable[:8].all()
    corners = np.array(list(np.ndindex(2, 2, 2))) * 2 - 1
    distances = np.linalg.norm(example["corners"][:, None] - corners, axis=2)
    assert sorted(distances.argmin(axis=1)) == list(range(8))
    assert distances.min(axis=1).max() < 0.4
    away = 1e-3 * np.random.default_rng(0).normal(size=64)
    _, ends = rnn(np.zeros((200, len(points), 3)), (points.states + away)[None].astype(np.float32))
    is_near = np.linalg.norm(ends[0] - points.states, axis=1) < 1e-3  # stable ones attract, others do not
    np.testing.assert_array_equal(is_near, points.is_stable)
