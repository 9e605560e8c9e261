"""The examples of the README run, and print what it says they print."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder; returns its variables and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(index: int) -> tuple[dict, str]:
        names: dict = {}
        exec(compile(EXAMPLES[index], f"README example {index}", "exec"), names)
        return names, capsys.readouterr().out

    return run


def test_there_are_no_other_examples():
    assert len(EXAMPLES) == 5


def test_the_layer_learns(run_example):
    names, printed = run_example(0)
    assert np.square(names["error"]).mean() < 0.05
    assert printed.startswith("mean squared error: 0.0")


def test_the_model_learns(run_example):
    names, printed = run_example(1)
    assert names["loss"] < 0.1
    assert "the quick brown fox jumps over the lazy dog. "[10:] in printed


def test_the_parity_is_learned(run_example):
    names, printed = run_example(2)
    assert len(names["history"]["loss"]) == 80
    assert re.fullmatch(r"{'loss': 0\.00.*, 'accuracy': 1\.0}\n\[\[1\]\]\n", printed)


def test_the_reference_by_one_import(run_example):
    assert run_example(3)[1] == "RNN(3, 5) with 45 parameters\n"


def test_bad_input_is_named(run_example):
    (message,) = re.findall(r"print\(error\)  # (.*)", EXAMPLES[4])
    assert run_example(4)[1] == message + "\n"
