"""The examples of the README run, and print what it says they print."""

import re
from pathlib import Path

import pytest

import elman

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
    assert len(EXAMPLES) == 2


def test_the_model_learns(run_example):
    names, printed = run_example(0)
    (comment,) = re.findall(r"temperature=0\).tolist\(\)\)\)  # (.*)", EXAMPLES[0])
    assert printed == comment + "\n"
    assert isinstance(names["model"], elman.SequenceModel)


def test_the_layer_runs(run_example):
    names, _ = run_example(1)
    shapes = re.findall(r"\b([a-z]+(?:_n)?) (\(\d, \d, \d\))", EXAMPLES[1].split("7 steps of 4 sequences: ")[1])
    assert {name: str(names[name].shape) for name, _ in shapes} == dict(shapes)
    assert len(shapes) == 2
    assert names["gradients"].keys() == names["rnn"].parameters().keys()
