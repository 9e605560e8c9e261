"""`elman train` and `elman sample`: character models. The computing is done in `elman.text`."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from pathlib import Path
from typing import Any

import click

import elman
from elman import backends, text
from elman.cli.common import LAYERS, Finite, Int, options, prepare, progress_bar, reported, running
from elman.storage import atomic
from elman.training import checkpoint
from elman.training.callbacks import Callback, Training

_MODEL_FILE = "elman-model.safetensors"
_MOST_STEPS = 1000  # from one save to the next: so many take far longer than a save, however small the model is
_writing = options(
    click.option("--length", type=Int(min=0), default=500, help="Characters to write."),
    click.option(
        "--temperature",
        type=Finite(min=0),
        default=0.7,
        help="Less writes what is likelier; 0 always the likeliest.",
    ),
)
_sizes = options(
    click.option("--hidden-size", type=Int(min=1), default=256, help="Units of a layer."),
    click.option("--layers", type=LAYERS, default=2, help="Layers."),
    click.option(
        "--dropout",
        type=Finite(min=0, max=1, max_open=True),
        default=0.0,
        help="Part of a layer's outputs that the next one does not get in training.",
    ),
    click.option("--steps", type=Int(min=1), default=5500, help="Updates."),
    click.option("--batch-size", type=Int(min=1), default=32, help="Streams of text."),
    click.option(
        "--sequence-length",
        type=Int(min=1),
        default=32,
        help="Characters of a stream in each step.",
    ),
    click.option("--lr", type=Finite(min=0, min_open=True), default=0.003, help="Learning rate."),
)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_sizes
@running
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(_MODEL_FILE),
    help="The model's file, *.safetensors, or a folder for it. The loss curve, a PNG, goes beside it.",
)
@click.option(
    "--resume", is_flag=True, help="Go on from the model's file, if a training with the same options came as far."
)
@_writing
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train(
    file: Path | None,
    backend: str | None,
    threads: int | None,
    output: Path,
    resume: bool,
    length: int,
    temperature: float,
    quiet: bool,
    **settings: Any,
) -> int:
    """Train a character model on FILE, then let it write.

    FILE is UTF-8 text. Without it the model learns the Python documentation topics, which takes about half a minute on
    two cores. A tenth of the text is held out to measure by. Ctrl-C stops early and keeps the model.

    From time to time, and on Ctrl-C, the model's file is written with all that is needed to go on: the same command
    with --resume then ends with the same model, to the last bit.
    """
    with reported():
        target = _model_path(output)
        prepare(backend, threads)
        corpus = _corpus(file)
        n_tokens = len(corpus.vocabulary)
        model = elman.SequenceModel(
            inputs=elman.Tokens(n_tokens),
            outputs=elman.Categories(n_tokens),
            hidden_size=settings["hidden_size"],
            num_layers=settings["layers"],
            dropout=settings["dropout"],
            seed=settings["seed"],
            backend=backend,
        )
        shown = {f"--{name.replace('_', '-')}": str(value) for name, value in sorted(settings.items())}
        model.metadata = {"text": corpus.fingerprint, **shown, "vocabulary": corpus.vocabulary.to_json()}
        if not quiet:
            _introduce(corpus, model)
        if resume and target.exists():
            _check_same(target, model.metadata)
        recorder = _train(model, corpus, settings, checkpoint=target, resume=resume, quiet=quiet)
        n_done, steps = len(recorder.losses), settings["steps"]
        if n_done < steps:
            kept = f"the model is in {target}; --resume goes on from there"
            click.echo(f"Stopped after {n_done} of {steps} steps: {kept}.", err=True)
            return 130
        _report(model, corpus, recorder, target)
        click.echo(f"\nA sample (temperature {temperature:g}):\n")
        click.echo(_written(model, corpus.vocabulary, "", length, temperature, settings["seed"]))
    return 0


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="Text to begin with; it is written, too.")
@_writing
@click.option("--seed", type=click.IntRange(min=0), help="For the same text again.")
@running
def sample(
    model: Path,
    prompt: str,
    length: int,
    temperature: float,
    seed: int | None,
    backend: str | None,
    threads: int | None,
) -> None:
    """Let MODEL write a text to standard output.

    MODEL is a file that `elman train` wrote.
    """
    with reported():
        prepare(backend, threads)
        loaded = elman.load(model, backend=backend)
        vocabulary = _vocabulary_of(loaded, model)
        written = _written(loaded, vocabulary, prompt, length, temperature, seed)
    # A pipe or a file gets the text and nothing else; on a terminal the next prompt must not stand right behind it.
    click.echo(written, nl=sys.stdout.isatty())


def _model_path(output: Path) -> Path:
    """The file to write, where a file can be written: better to know now than after the training."""
    target = output / _MODEL_FILE if output.is_dir() else output
    if target.suffix != ".safetensors":
        raise click.ClickException(f"--output must be a folder or end in .safetensors, got {output}")
    for written in (target, target.with_suffix(".png")):
        atomic.check_place(written, "--output")
    return target


def _corpus(file: Path | None) -> text.Corpus:
    if file is None:
        return text.Corpus.of(text.topics_text())
    content = text.read_text(file)
    with reported(file):
        return text.Corpus.of(content)


def _introduce(corpus: text.Corpus, model: elman.SequenceModel) -> None:
    n_held_out = corpus.held_out.size
    copies = f"; {corpus.n_copies:,} more that repeat these left out" if corpus.n_copies else ""
    click.echo(
        f"Text: {len(corpus.train) + n_held_out + corpus.n_copies:,} characters, {len(corpus.vocabulary)} different; "
        f"{n_held_out:,} held out{copies}.",
        err=True,
    )
    backend = model.rnn.backend or backends.current()
    click.echo(f"{model}; backend {backend}, {elman.get_num_threads()} threads.", err=True)


def _check_same(target: Path, metadata: dict[str, str]) -> None:
    """Refuse to go on with other options than the training in the file began with. (`fit` would, in its own words.)"""
    found = elman.load(target).metadata
    if found.keys() != metadata.keys():
        raise click.ClickException(f"{target} is not of this version's elman train: begin anew, without --resume")
    checkpoint.same_run(found, metadata, str(target))


class _Shown(Callback):
    """A recorder's numbers at a progress bar of updates."""

    def __init__(self, bar: Any, recorder: text.Recorder, tokens_per_step: int) -> None:
        self._bar, self._recorder, self._tokens_per_step = bar, recorder, tokens_per_step

    def on_start(self, training: Training) -> None:  # noqa: ARG002
        self._bar.initial = self._bar.n = len(self._recorder.losses)

    def on_step(self, training: Training) -> None:  # noqa: ARG002
        losses, measured = self._recorder.losses, [*self._recorder.validation_losses.values()]
        held_out = f", validation {measured[-1]:.3f}" if measured else ""
        speed = f"{len(losses) * self._tokens_per_step / self._recorder.seconds / 1000:,.0f}k tokens/s"
        self._bar.set_postfix_str(f"loss {losses[-1]:.3f}{held_out}, {speed}", refresh=False)
        self._bar.update(len(losses) - self._bar.n)


def _train(
    model: elman.SequenceModel, corpus: text.Corpus, settings: dict[str, Any], *, quiet: bool, **options: Any
) -> text.Recorder:
    """Train under a progress bar, to the end or to Ctrl-C."""
    sizes = {name: settings[name] for name in ("steps", "batch_size", "sequence_length")}
    steps, *of_step = sizes.values()
    recorder, said = text.Recorder(corpus.held_out, steps), io.StringIO()
    with progress_bar(steps, "{n_fmt}/{total_fmt}, {remaining} left", quiet=quiet) as bar:
        options["callbacks"] = [recorder, _Shown(bar, recorder, math.prod(of_step))]
        options["checkpoint_every"] = min(math.ceil(steps / 10), _MOST_STEPS)
        try:
            with contextlib.redirect_stderr(said):  # when `fit` has saved, it speaks of resume=True
                text.train(model, corpus.train, optimizer=elman.Adam(settings["lr"]), **sizes, **options)
        except KeyboardInterrupt:
            if not said.getvalue():  # pressed twice
                raise
    return recorder


def _report(model: elman.SequenceModel, corpus: text.Corpus, recorder: text.Recorder, target: Path) -> None:
    """Say how good the model is and where things are, and draw the curve if matplotlib is there."""
    own = text.model_bits(model, corpus.held_out)
    bigram = text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary))
    click.echo(f"Held-out text, bits per character: {own:.3f}; bigram model: {bigram:.3f}")
    click.echo(f"Model: {target}")
    try:
        from elman.plot import loss_curve
    except ImportError:
        click.echo("Loss curve: not drawn, as there is no matplotlib: pip install 'elman[plot]'")
        return
    curve = target.with_suffix(".png")
    loss_curve(curve, recorder.losses, recorder.validation_losses, bigram=bigram)
    click.echo(f"Loss curve: {curve}")


def _vocabulary_of(model: elman.SequenceModel, path: Path) -> text.Vocabulary:
    if "vocabulary" not in model.metadata:
        raise click.ClickException(f"{path}: no model of text, as it has no vocabulary")
    with reported(path):
        vocabulary = text.Vocabulary.from_json(model.metadata["vocabulary"])
    if not len(vocabulary) == model.inputs.n == model.outputs.n:
        raise click.ClickException(f"{path}: its vocabulary has {len(vocabulary)} characters, its model is {model}")
    return vocabulary


def _written(
    model: elman.SequenceModel,
    vocabulary: text.Vocabulary,
    prompt: str,
    length: int,
    temperature: float,
    seed: int | None,
) -> bytes:
    """The prompt and what the model writes behind it, in UTF-8 whatever the terminal's encoding is."""
    with reported("--prompt"):
        tokens = vocabulary.encode(prompt or vocabulary.start)
    new = model.generate(tokens, length, temperature=temperature, seed=seed)
    return (prompt + vocabulary.decode(new)).encode("utf-8", "replace")
