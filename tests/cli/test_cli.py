"""The command line from end to end, in processes of its own where that matters."""

import errno
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import elman
from elman.cli import common, main

SMALL = ["--hidden-size", "32", "--steps", "60", "--batch-size", "8", "--sequence-length", "16", "--length", "80"]


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, in which warnings are errors, too."""
    command = [sys.executable, "-W", "error", "-m", "elman", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=cwd, env={**os.environ, **environment}, timeout=120)


def invoke(*arguments: object, given: bytes | None = None) -> Result:
    """The command in this process, with that on standard input."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=given, prog_name="elman")


def cut_off(monkeypatch: pytest.MonkeyPatch, steps: int, *arguments: object) -> None:
    """The command, which ends with an error after so many steps."""
    on_step = elman.text.Recorder.on_step

    def fails(self: elman.text.Recorder, training: elman.training.Training) -> None:
        on_step(self, training)
        if training.steps == steps:
            raise RuntimeError

    with monkeypatch.context() as context:
        context.setattr(elman.text.Recorder, "on_step", fails)
        assert isinstance(invoke(*arguments).exception, RuntimeError)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "text.txt"
    file.write_text(elman.text.topics_text()[:20_000] + "naïve\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[bytes]]:
    """The folder in which a small model was trained, and how that went."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run("train", corpus, *SMALL, cwd=folder)


@pytest.fixture
def model(trained: tuple[Path, object]) -> Path:
    return trained[0] / "elman-model.safetensors"


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Undo --threads."""
    before = elman.get_num_threads()
    yield
    elman.set_num_threads(before)


# train


def test_train_writes_a_model_and_a_curve_and_nothing_else(trained) -> None:
    folder, done = trained
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(path.name for path in folder.iterdir()) == ["elman-model.png", "elman-model.safetensors"]
    assert (folder / "elman-model.png").read_bytes().startswith(b"\x89PNG\r\n")
    model = elman.load(folder / "elman-model.safetensors")
    assert model.rnn.hidden_size == 32
    assert "é" not in elman.text.Vocabulary.from_json(model.metadata["vocabulary"]).characters


def test_train_reports(trained) -> None:
    _, done = trained
    first, second, third, *rest = done.stdout.decode().splitlines()
    assert first.startswith("Held-out text, bits per character: ")
    assert "bigram model: " in first
    assert second == "Model: elman-model.safetensors"
    assert third == "Loss curve: elman-model.png"
    assert rest[:3] == ["", "A sample (temperature 0.7):", ""]
    assert len("\n".join(rest[3:])) == 80
    progress = done.stderr.decode()
    assert "Text: 20,006 characters" in progress
    assert "SequenceModel(Tokens(" in progress
    assert "60/60, 00:00 left, loss " in progress
    assert ", validation " in progress
    assert "k tokens/s" in progress
    assert "Warning" not in progress


def test_train_beats_the_bigram_model(tmp_path: Path) -> None:
    """On the built-in text, with less than a tenth of the default's work."""
    done = run("train", "--steps", 1000, "--hidden-size", 128, "--output", tmp_path, "--quiet")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    first = done.stdout.decode().splitlines()[0]
    own, bigram = (float(part.split(": ")[1]) for part in first.split("; "))
    assert own < bigram - 0.1  # the text is that of the Python that runs: 1.0 less on 3.11, 0.2 on 3.14
    assert 3.3 < bigram < 3.7


def test_same_seed_same_model_whatever_the_threads(corpus: Path, tmp_path: Path) -> None:
    models = []
    for name, options in {"a": ["--threads", 1], "b": ["--threads", 3], "c": ["--seed", 1]}.items():
        target = tmp_path / f"{name}.safetensors"
        result = invoke("train", corpus, *SMALL, "--layers", 2, "--dropout", 0.1, "--output", target, *options)
        assert result.exit_code == 0, result.output
        models.append(np.concatenate([array.ravel() for array in elman.load(target).parameters().values()]))
    assert (models[0] == models[1]).all()
    assert (models[0] != models[2]).any()
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".png"}


def test_train_on_another_backend(corpus: Path, tmp_path: Path) -> None:
    result = invoke("train", corpus, *SMALL, "--backend", "numpy", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "backend numpy" in result.stderr
    assert elman.load(tmp_path / "elman-model.safetensors").rnn.backend is None


def test_train_for_steps_that_equal_epochs_do_not_make_up(tmp_path: Path) -> None:
    """Two epochs of 1,002 steps, the last of which changes nothing."""
    file = tmp_path / "text.txt"
    file.write_text("abcd" * 250)
    sizes = ["--hidden-size", 2, "--layers", 1, "--steps", 2003, "--batch-size", 1, "--sequence-length", 1]
    done = invoke("train", file, *sizes, "--length", 8, "--output", tmp_path)
    assert done.exit_code == 0, done.output
    assert "2003/2003, " in done.stderr
    assert "2004" not in done.stderr
    again = invoke("train", file, *sizes, "--length", 8, "--output", tmp_path, "--resume")
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert "2003/2003, " in again.stderr


def test_train_without_matplotlib(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "elman.plot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(elman, "plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what makes an import fail
    result = invoke("train", corpus, *SMALL, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "pip install 'elman[plot]'" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["elman-model.safetensors"]


def test_train_on_one_character(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a" * 1000)
    result = invoke("train", file, *SMALL, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "bits per character: 0.000; bigram model: 0.000" in result.stdout


def test_train_that_diverges_is_one_line(corpus: Path, tmp_path: Path) -> None:
    result = invoke("train", corpus, *SMALL, "--lr", "1e39", "--output", tmp_path, "--quiet")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: step ")
    assert result.stderr.endswith("A smaller lr (now 5e+38) or clip_norm usually helps. Nothing was written.\n")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_train_that_diverges_late_keeps_the_best_model(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step, watched = elman.text.Recorder.on_step, list[dict[str, np.ndarray]]()

    def ruined(self: elman.text.Recorder, training: elman.training.Training) -> None:
        on_step(self, training)
        if training.steps == 30:
            watched.append({name: array.copy() for name, array in training.model.parameters().items()})
        if training.steps == 33:
            training.flat[:] = np.nan

    monkeypatch.setattr(elman.text.Recorder, "on_step", ruined)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    target = tmp_path / "elman-model.safetensors"
    assert result.stderr.endswith(f"The model of step 30, the best one, is in {target}.\n")
    for name, array in elman.load(target).parameters().items():
        assert (array == watched[0][name]).all()
    assert invoke("sample", target, "--length", 5).exit_code == 0
    monkeypatch.setattr(elman.text.Recorder, "on_step", on_step)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--resume", "--steps", 61)
    assert result.exit_code == 0, result.output
    assert elman.load(target).metadata["steps before"] == "30"


def test_train_that_diverges_between_measurements(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step = elman.text.Recorder.on_step

    def ruined(self: elman.text.Recorder, training: elman.training.Training) -> None:
        on_step(self, training)
        if training.steps == 5:
            training.flat[:] = np.nan

    monkeypatch.setattr(elman.text.Recorder, "on_step", ruined)
    monkeypatch.setattr("elman.cli.characters._MOST_STEPS", 3)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet")
    target = tmp_path / "elman-model.safetensors"
    assert result.stderr.endswith(f"The model of step 3, not measured yet, is in {target}.\n")
    assert target.exists()


def test_a_disk_that_is_full_is_a_failure(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(elman.text, "train", full)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet")
    assert (result.exit_code, result.stderr) == (1, "Error: somewhere: No space left on device\n")


def test_a_model_that_is_there(corpus: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.safetensors"
    options = ["train", corpus, *SMALL, "--quiet", "--output", target]
    first = invoke(*options, "--overwrite")  # or is not there yet
    assert first.exit_code == 0, first.output
    content = target.read_bytes()
    refused = invoke(*options)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.endswith(f"got {target}, which is there: --resume goes on with it, --overwrite replaces it\n")
    both = invoke(*options, "--resume", "--overwrite")
    assert (both.exit_code, both.stdout) == (2, "")
    assert target.read_bytes() == content
    assert invoke(*options, "--overwrite", "--seed", 1).exit_code == 0
    assert target.read_bytes() != content


def test_a_finished_model_trains_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a part of that which was cut off, and once more; never to something worse."""
    target, whole = tmp_path / "run.safetensors", tmp_path / "whole.safetensors"
    options = ["train", corpus, *SMALL, "--quiet"]
    assert invoke(*options, "--output", target).exit_code == 0
    whole.write_bytes(target.read_bytes())
    less = invoke(*options, "--output", target, "--resume", "--steps", 50)
    assert less.exit_code == 2
    assert "--steps is 50 here, it was 60 there" in less.stderr
    more = ["--resume", "--steps", 100]
    expected = invoke(*options, "--output", whole, *more)
    assert expected.exit_code == 0, expected.output
    assert elman.load(whole).metadata["steps before"] == "60"
    cut_off(monkeypatch, 13, *options, "--output", target, *more)
    done = invoke(*options, "--output", target, *more)
    assert done.output.replace("run.", "whole.") == expected.output
    for name, array in elman.load(target).parameters().items():
        assert (array == elman.load(whole).parameters()[name]).all()
    again = [invoke(*options, "--output", target, "--resume", "--steps", n).stdout.split() for n in (100, 120)]
    assert float(again[1][5].rstrip(";")) <= float(again[0][5].rstrip(";"))


def test_patience(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = [9.0, 8.0, *np.arange(10.0, 99.0)]
    monkeypatch.setattr(elman.text.training, "model_bits", lambda *_: bits.pop(0))
    result = invoke("train", corpus, *SMALL, "--patience", 3, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"Model: {tmp_path / 'elman-model.safetensors'} (of step 12, the best of 30)\n" in result.stdout
    again = invoke("train", corpus, *SMALL, "--patience", 3, "--output", tmp_path, "--resume")
    assert "(of step 12, the best of 30)\n" in again.stdout
    bits[:] = [8.0, *np.arange(10.0, 99.0)]
    on = invoke("train", corpus, *SMALL, "--patience", 3, "--output", tmp_path, "--resume", "--steps", 130)
    assert "(as it was: none of the steps from 31 to 60 made it better)\n" in on.stdout
    found = elman.load(tmp_path / "elman-model.safetensors").metadata
    assert (found["steps before"], found["finished"]) == ("30", "30")


def test_another_text_to_measure_by(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Ω" + elman.text.topics_text()[100_000:110_000], encoding="utf-8")
    result = invoke("train", corpus, *SMALL, "--val-text", other, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Text: 20,006 characters, " in result.stderr
    assert "; measured by 10,000 of another" in result.stderr
    assert result.stdout.startswith("The text of --val-text, bits per character: ")
    model = elman.load(tmp_path / "elman-model.safetensors")
    assert "Ω" in model.metadata["vocabulary"].encode().decode("unicode_escape")
    assert model.metadata["--val-text"].startswith("10,001 characters (fingerprint ")
    other.write_text("short")
    short = invoke("train", corpus, *SMALL, "--val-text", other, "--output", tmp_path, "--overwrite")
    assert (short.exit_code, short.stderr) == (2, f"Error: {other}: text must have at least 1000 characters, got 5\n")


@pytest.mark.parametrize(("unit", "bits"), [("words", 0.1), ("bytes", 2)])
def test_other_units(unit: str, bits: float, tmp_path: Path) -> None:
    content = ("The cat — it's black — sat down.\n  The dog ran off, twice!\n" * 100).encode()
    sizes = ["--hidden-size", 32, "--lr", 0.02, "--steps", 200, "--sequence-length", 16, "--length", 40]
    result = invoke("train", "-", "--unit", unit, *sizes, "--output", tmp_path, given=content)
    assert result.exit_code == 0, result.output
    assert float(result.stdout.split(f"bits per {unit[:-1]}: ")[1][:5]) < bits
    written = run("sample", tmp_path / "elman-model.safetensors", "--prompt", "The cat ", "--length", 60, "--top-k", 1)
    assert (written.returncode, written.stderr) == (0, b"")
    if unit == "bytes":
        assert written.stdout.startswith(b"The cat ")
        assert len(written.stdout) == 8 + 60
    else:
        assert (content * 2).startswith(written.stdout)
        assert len(written.stdout) > 200


def test_words_that_are_not_known_are_never_written(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(" ".join(f"one two w{i}" for i in range(2000)))
    options = ["--unit", "words", "--vocabulary", 2, "--hidden-size", 8, "--lr", 0.02, "--steps", 60, "--length", 30]
    result = invoke("train", file, *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    written = invoke("sample", tmp_path / "elman-model.safetensors", "--prompt", "three", "--length", 30)
    assert set(written.stdout.removeprefix("three").split()) == {"one", "two"}
    greedy = [
        invoke("sample", tmp_path / "elman-model.safetensors", "--temperature", 0, "--length", 9, "--backend", backend)
        for backend in ("numpy", "cython")
    ]
    assert (greedy[0].exit_code, greedy[0].stdout) == (0, greedy[1].stdout)


def test_encodings(tmp_path: Path) -> None:
    file = tmp_path / "my text.txt"
    for encoding, given in (("latin-1", "ISO-8859-1"), ("UTF-16", "UTF-16"), ("utf-16-le", "UTF-16LE")):
        file.write_bytes(("zwölf Boxkämpfer\n" * 100).encode(encoding))
        refused = invoke("train", file, *SMALL, "--output", tmp_path, "--overwrite")
        assert refused.exit_code == 2
        assert f"iconv -f {given} -t UTF-8 '{file}' > new.txt converts it" in refused.stderr
        options = [*SMALL, "--steps", 2, "--encoding", encoding, "--overwrite"]
        result = invoke("train", file, *options, "--output", tmp_path)
        assert result.exit_code == 0, result.output
        assert "Text: 1,700 characters, a vocabulary of 16;" in result.stderr


def test_lines_where_there_is_no_terminal(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elman.cli.common.SECONDS", 0)
    monkeypatch.setattr("elman.cli.characters.SECONDS", 0)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path)
    lines = result.stderr.splitlines()
    assert lines[0] == "Read 0 MB of a text."
    assert [line.split("/")[0] for line in lines[3:]] == [str(i) for i in range(1, 61)]
    assert "\r" not in result.stderr


def test_before_the_first_step_nobody_knows_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar(5500, "", quiet=False):
        pass
    assert capsys.readouterr().err == "0/5500\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("quiet", [False, True])
def test_interrupted_training_keeps_the_model(corpus: Path, tmp_path: Path, quiet: bool) -> None:
    # Where tests run in the background, SIGINT may be ignored, which a child inherits.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from elman.cli import main; from elman.text import Recorder\n"
        "on_step = Recorder.on_step\n"
        "def watched(self, training):\n"
        "    on_step(self, training)\n"
        "    if training.steps == 20: print('running', flush=True)\n"
        "Recorder.on_step = watched\n"
        "main(prog_name='elman')"
    )
    arguments = ["train", str(corpus), "--steps", "1000000", "--hidden-size", "32", *(["--quiet"] if quiet else [])]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == b""
    last = stderr.decode().splitlines()[-1]
    assert last.startswith("Stopped after ")
    kept = "the model is in elman-model.safetensors; --resume goes on from there"
    assert last.endswith(f" of 1000000 steps: {kept}.")
    assert b"Traceback" not in stderr
    assert b"resume=True" not in stderr, "these are not a shell's words"
    assert [path.name for path in tmp_path.iterdir()] == ["elman-model.safetensors"]
    assert invoke("sample", tmp_path / "elman-model.safetensors", "--length", 5).exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_was_cut_off_goes_on_bit_for_bit(
    corpus: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from elman.cli import main; from elman.text import Recorder\n"
        "step, on_step = int(sys.argv.pop()), Recorder.on_step\n"
        "def watched(self, training):\n"
        "    if training.steps == step:\n"
        "        print('waiting', flush=True)\n"
        "        sys.stdin.readline()\n"
        "    on_step(self, training)\n"
        "Recorder.on_step = watched\n"
        "main(prog_name='elman')"
    )
    options = [*("train", corpus, "--steps", 300, "--hidden-size", 20, "--dropout", 0.2), "--quiet"]
    whole, target = tmp_path / "whole.safetensors", tmp_path / "run.safetensors"
    expected = invoke(*options, "--output", whole)
    assert expected.exit_code == 0
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    for step in (45, 130):  # the second goes on from the first, or from its last validation
        arguments = [*map(str, options), "--output", str(target), "--resume", str(step)]
        with subprocess.Popen([sys.executable, "-c", program, *arguments], **pipes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waiting\n"
            process.send_signal(number)
            process.communicate(b"\n", timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert invoke("sample", target, "--length", 3).exit_code == 0
    steps, on_step = list[int](), elman.text.Recorder.on_step
    monkeypatch.setattr(elman.text.Recorder, "on_step", lambda self, run: (steps.append(run.steps), on_step(self, run)))
    done = invoke(*options, "--output", target, "--resume")
    assert done.exit_code == 0, done.output
    assert done.output.replace("run.", "whole.") == expected.output
    for name, array in elman.load(target).parameters().items():
        assert (array == elman.load(whole).parameters()[name]).all()
    again = invoke(*options, "--output", target, "--resume")
    assert (again.exit_code, again.output) == (0, done.output), "what has ended has ended"
    n_saved = 130 if number == signal.SIGINT else 120  # on Ctrl-C, and after each tenth
    assert steps == list(range(n_saved + 1, 301))


def test_ctrl_c_twice_does_not_say_that_anything_was_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(elman.text.Recorder, "on_step", interrupted)
    result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet")
    assert (result.exit_code, result.output.strip()) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_the_last_step_says_so(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the model is not the best one yet; a warning of a step is handed on, what `fit` says is not."""
    bits, handler = [9.0, *np.arange(10.0, 99.0)], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(elman.text.training, "model_bits", lambda *_: bits.pop(0))
    on_step = elman.text.Recorder.on_step

    def interrupted(self: elman.text.Recorder, training: elman.training.Training) -> None:
        on_step(self, training)
        if training.steps == 3:
            print("a word", file=sys.stderr)
        if training.steps == 60:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as context:
            context.setattr(elman.text.Recorder, "on_step", interrupted)
            result = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet")
    finally:
        signal.signal(signal.SIGINT, handler)
    target = tmp_path / "elman-model.safetensors"
    kept = f"the model is in {target}; --resume goes on from there."
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == f"a word\nStopped after 60 of 60 steps: {kept}\n"
    assert "finished" not in elman.load(target).metadata
    done = invoke("train", corpus, *SMALL, "--output", tmp_path, "--quiet", "--resume")
    assert "(of step 6, the best of 60)" in done.stdout
    assert elman.load(target).metadata["finished"] == "60"


def test_resume_with_other_options_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a training that was cut off after 7 steps of 60."""
    target = tmp_path / "run.safetensors"
    cut_off(monkeypatch, 7, "train", corpus, *SMALL, "--output", target)
    content = target.read_bytes()
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    for file, options, reason in (
        (corpus, ["--lr", 0.1], "--lr is 0.1 here, it was 0.003 there"),
        (corpus, ["--steps", 61], "--steps is 61 here, it was 60 there"),
        (corpus, ["--batch-size", 9], "--batch-size is 9 here, it was 8 there"),
        (corpus, ["--sequence-length", 17], "--sequence-length is 17 here, it was 16 there"),
        (corpus, ["--hidden-size", 33], "--hidden-size is 33 here, it was 32 there"),
        (corpus, ["--layers", 1], "--layers is 1 here, it was 2 there"),
        (corpus, ["--dropout", 0.1], "--dropout is 0.1 here, it was 0.0 there"),
        (corpus, ["--seed", 1], "--seed is 1 here, it was 0 there"),
        (other, [], "text is 20,006 characters (fingerprint "),
    ):
        result = invoke("train", file, *SMALL, *options, "--output", target, "--resume", "--quiet")
        assert result.exit_code == 2
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
        assert target.read_bytes() == content
    result = invoke("train", corpus, *SMALL, "--output", target, "--resume", "--quiet", "--threads", 1, "--length", 9)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["settings", "run"])
def test_files_of_earlier_versions(name: str, tmp_path: Path) -> None:
    """Trainings on this text that stopped after 50 of 60 steps; files without a digest, and with one."""
    file, old = tmp_path / "text.txt", Path(__file__).parents[1] / "data" / f"train-0.1-{name}.safetensors"
    file.write_text("One two three four five six seven eight nine ten.\n" * 40)
    written = invoke("sample", old, "--prompt", "One", "--length", 20, "--temperature", 0)
    assert written.exit_code == 0
    assert "fine" in written.stdout
    assert elman.load(old).rnn.hidden_size == 8
    target = tmp_path / "run.safetensors"
    target.write_bytes(old.read_bytes())
    sizes = ["--hidden-size", 8, "--layers", 1, "--steps", 60, "--batch-size", 4, "--sequence-length", 16, "--lr", 0.02]
    result = invoke("train", file, *sizes, "--output", target, "--resume", "--quiet")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {target} is not of this version's elman train: begin anew")
    assert target.read_bytes() == old.read_bytes()
    X, Y = [[0, 1]], [[1, 0]]
    with pytest.raises(ValueError, match=f"{target} is no checkpoint that this run can go on from"):
        elman.load(target).fit(X, Y, optimizer=elman.Adam(0.02), checkpoint=target, resume=True, progress=False)
    assert invoke("train", file, *sizes, "--output", target, "--quiet", "--overwrite").exit_code == 0


# sample


def test_sample_writes_the_text_and_nothing_else(model: Path) -> None:
    done = run("sample", model, "--prompt", "The naïve ", "--length", 60, "--seed", 3)
    assert done.returncode == 0
    assert done.stderr == b""
    text = done.stdout.decode("utf-8")
    assert text.startswith("The naïve ")
    assert len(text) == 10 + 60


def test_sample_is_utf_8_whatever_the_terminal_says(model: Path) -> None:
    done = run("sample", model, "--prompt", "naïve", "--length", 0, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "naïve".encode())


def test_sample_depends_on_the_seed(model: Path) -> None:
    texts = [invoke("sample", model, "--seed", seed).stdout for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 500
    greedy = [invoke("sample", model, "--temperature", 0, "--seed", seed).stdout for seed in (3, 4)]
    assert greedy[0] == greedy[1]


def test_sample_of_what_is_likely(model: Path) -> None:
    greedy = invoke("sample", model, "--temperature", 0).stdout
    assert invoke("sample", model, "--top-k", 1).stdout == greedy
    assert invoke("sample", model, "--top-p", 1e-9).stdout == greedy
    assert invoke("sample", model, "--top-k", 5, "--top-p", 0.9, "--seed", 0).stdout != greedy


def test_sample_does_not_depend_on_backend_or_threads(model: Path) -> None:
    options = ["--seed", 3, "--temperature", 0.5]
    expected = invoke("sample", model, *options).stdout
    assert invoke("sample", model, *options, "--threads", 1).stdout == expected
    assert invoke("sample", model, *options, "--backend", "numpy", "--length", 20).stdout == expected[:20]


# What is wrong is one line, and exit status 2


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with things that are not what they should be."""
    (tmp_path / "latin1.txt").write_bytes("zwölf ".encode("latin-1") * 1000)
    (tmp_path / "short.txt").write_text("Hello, world!\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "nul.txt").write_bytes(b"line\nl\0ne\n" * 1000)
    (tmp_path / "text.txt").write_bytes(b"a b c\n" * 150)
    (tmp_path / "text.safetensors").write_text("not a model " * 100)
    (tmp_path / "folder.safetensors").mkdir()
    elman.SequenceModel(elman.Tokens(5), elman.Categories(5), hidden_size=4).save(tmp_path / "mute.safetensors")
    odd = elman.SequenceModel(elman.Tokens(5), elman.Categories(5), hidden_size=4)
    odd.metadata["vocabulary"] = '"abc"'
    odd.save(tmp_path / "odd.safetensors")
    odd.metadata["vocabulary"] = "[1, 2, 3, 4, 5]"
    odd.save(tmp_path / "list.safetensors")
    odd.metadata["--unit"] = "letters"
    odd.save(tmp_path / "unit.safetensors")
    return tmp_path


ERRORS = {
    "train {}/none.txt": "none.txt: No such file or directory",
    "train {}": "Is a directory",
    "train {}/latin1.txt": "latin1.txt is not UTF-8 text: byte 0xf6 at position 2",
    "train {}/short.txt": "short.txt: text must have at least 1000 characters, got 14",
    "train {}/empty.txt": "at least 1000 characters, got 0",
    "train {}/one.txt {}/two.txt": "unexpected extra argument",
    "train --output {}/none/model.safetensors": "none/model.safetensors: No such file or directory",
    "train --output {}/model.bin": "--output must be a folder or end in .safetensors",
    "train --output {}/short.txt/model.safetensors": "Not a directory",
    "train {}/nul.txt": "nul.txt has a NUL character in line 2, as text has none; what is no text can be read as bytes",
    "train {}/text.txt --encoding nonsense": "'--encoding': 'nonsense' is not an encoding that Python knows",
    "train {}/text.txt --encoding undefined": "'--encoding': 'undefined' is not an encoding that Python knows",
    "train {}/text.txt --encoding hex": "'--encoding': 'hex' is not an encoding",
    "train {}/text.txt --encoding utf-8 --unit bytes": "--encoding is of characters and words",
    "train {}/text.txt --encoding utf-16": "must begin with a byte order mark to be read as utf-16",
    "train {}/text.txt --val-text {}/none.txt": "none.txt: No such file or directory",
    "train {}/text.txt --unit words": "text.txt: text must have at least 1000 words, got 600",
    "train --unit letters": "'--unit'",
    "train --vocabulary 0": "'--vocabulary'",
    "train --patience 0": "'--patience'",
    "train --top-k 0": "'--top-k'",
    "train --top-p 1.1": "'--top-p'",
    "sample {}/unit.safetensors": "--unit must be one of 'characters', 'words', 'bytes', got 'letters'",
    "train --steps 0": "'--steps'",
    "train --steps many": "'--steps'",
    "train --hidden-size -1": "'--hidden-size'",
    "train --hidden-size 100000000": "not enough memory for these sizes",
    "train --layers 0": "'--layers'",
    "train --dropout 1": "'--dropout'",
    "train --lr nan": "'--lr'",
    "train --lr inf": "'--lr'",
    "train --lr 0": "'--lr'",
    "train --seed -1": "'--seed'",
    "train --threads 0": "'--threads'",
    "train --backend fortran": "'--backend'",
    "train --nonsense": "--nonsense",
    "nonsense": "nonsense",
    "sample": "MODEL",
    "sample {}/none.safetensors": "none.safetensors: No such file or directory",
    "sample {}/folder.safetensors": "Is a directory",
    "sample {}/text.safetensors": "text.safetensors is not an elman model",
    "sample {}/empty.txt": "empty.txt is not an elman model",
    "sample {}/mute.safetensors": "mute.safetensors: no model of text, as it has no vocabulary",
    "sample {}/odd.safetensors": "its vocabulary has 3 characters",
    "sample {}/list.safetensors": "list.safetensors: vocabulary must be a JSON string",
    "sample {}/none.safetensors --temperature -1": "'--temperature'",
    "sample {}/none.safetensors --length -1": "'--length'",
}


@pytest.mark.parametrize("command", ERRORS)
def test_errors(command: str, files: Path) -> None:
    before = sorted(files.rglob("*"))
    result = invoke(*command.replace("{}", str(files)).split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert ERRORS[command] in result.stderr
    assert sorted(files.rglob("*")) == before


def test_errors_about_standard_input() -> None:
    short, wrong = (invoke("train", "-", given=given).stderr for given in (b"a", "zwölf".encode("latin-1")))
    assert short == "Error: standard input: text must have at least 1000 characters, got 1\n"
    assert wrong.startswith("Error: standard input is not UTF-8 text")
    assert "iconv -f ISO-8859-1 -t UTF-8 - > new.txt" in wrong


def test_error_about_the_prompt(model: Path) -> None:
    unknown = invoke("sample", model, "--prompt", "日本")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert unknown.stderr == "Error: --prompt: not in the vocabulary: '日', '本'\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
def test_what_stands_at_the_output(corpus: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "folder" / "mine.safetensors", tmp_path / "link.safetensors"
    target.parent.mkdir()
    link.symlink_to(target)
    result = invoke("train", corpus, *SMALL, "--steps", 2, "--output", link, "--quiet")
    assert result.exit_code == 0, result.output
    assert link.is_symlink()
    assert elman.load(target).metadata
    for name in ("pipe.safetensors", "pipe.png"):  # the model, or the curve beside it
        os.mkfifo(tmp_path / name)
        result = invoke("train", corpus, *SMALL, "--steps", 10**6, "--output", tmp_path / "pipe.safetensors")
        assert result.exit_code == 2
        assert f"Error: --output must be a regular file, or none yet, got a pipe: {tmp_path / name}\n" == result.stderr
        (tmp_path / name).unlink()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that even root cannot write to")
def test_output_that_cannot_be_written_is_found_before_training() -> None:
    result = invoke("train", "--steps", 1_000_000, "--output", "/proc/model.safetensors")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: /proc/model.safetensors: ")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("ELMAN_BACKEND=fortran", "ELMAN_BACKEND must be one of"),
        ("ELMAN_NUM_THREADS=many", "ELMAN_NUM_THREADS must be an int from 1 to 1024"),
        ("ELMAN_ISA=mmx", "ELMAN_ISA: expected one of"),
    ],
)
def test_errors_in_the_environment(variable: str, message: str, tmp_path: Path) -> None:
    told = run("info", **dict([variable.split("=")]))
    assert (told.returncode, told.stdout) == (2, b"")
    assert message in told.stderr.decode()
    done = run("train", cwd=tmp_path, **dict([variable.split("=")]))
    assert (done.returncode, done.stdout) == (2, b"")
    stderr = done.stderr.decode()
    assert stderr.startswith("Error: ")
    assert stderr.count("\n") == 1
    assert message in stderr
    assert list(tmp_path.iterdir()) == []


def test_errors_in_a_process_of_its_own(files: Path) -> None:
    """What the command's own main() does, and no traceback from anywhere else."""
    done = run("sample", files / "text.safetensors")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"Error: ")
    assert done.stderr.count(b"\n") == 1


# The rest


def test_info() -> None:
    result = invoke("info")
    assert result.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith("default"))
    assert shown["elman"] == elman.__version__
    assert "numpy" in shown["backends"]
    assert int(shown["threads"]) == elman.get_num_threads()


def test_help() -> None:
    for command in ([], ["--help"], ["train", "--help"], ["sample", "-h"]):
        result = invoke(*command)
        assert result.exit_code == 0
        assert "Usage: elman" in result.stdout
    assert invoke("--version").stdout == f"elman {elman.__version__}\n"


def test_console_script() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="elman")
    assert script.load() is main


@pytest.mark.parametrize("statement", ["import elman", "import elman.cli"])
def test_imports_little(statement: str) -> None:
    heavy = {"click", "matplotlib", "numba", "pydoc_data", "safetensors", "torch", "tqdm"}
    heavy -= {"click"} if "cli" in statement else set()
    program = f"{statement}; import sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split() == []


def test_smoothing_of_the_curve() -> None:
    pytest.importorskip("matplotlib")
    from elman import plot

    values = np.random.default_rng(0).normal(size=1000)
    expected = [values[max(0, i - 5) : i + 6].mean() for i in range(1000)]
    np.testing.assert_allclose(plot._smoothed(values), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plot._smoothed(values[:3]), values[:3], rtol=0, atol=1e-12)
