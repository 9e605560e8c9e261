"""The command `elman`: train a character model on a text, let it write, and say what elman runs with.

The computing is done in `elman.text`; here are options, the terminal and files. What a user gets wrong is one line on
standard error and exit status 2; Ctrl-C is exit status 130.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

import elman
from elman import backends, text

_MODEL_FILE = "elman-model.safetensors"
_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


class _Group(click.Group):
    """A group that reports errors as this module says. A command may return an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"Error: {' '.join(error.format_message().split())}", err=True)
            status = 2
        except click.Abort:  # what click makes of KeyboardInterrupt
            status = 130
        sys.exit(status)


class _Finite(click.FloatRange):
    """A range that holds neither NaN nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return float(number)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_running = _options(
    click.option(
        "--backend", type=click.Choice(backends.NAMES), show_default="see `elman info`", help="What computes."
    ),
    click.option("--threads", type=click.IntRange(min=1), show_default="one for each core", help="How many threads."),
)
_writing = _options(
    click.option("--length", type=click.IntRange(min=0), default=500, help="Characters to write."),
    click.option(
        "--temperature",
        type=_Finite(min=0),
        default=0.7,
        help="Less writes what is likelier; 0 always the likeliest.",
    ),
)
_sizes = _options(
    click.option("--hidden-size", type=click.IntRange(min=1), default=256, help="Units of a layer."),
    click.option("--layers", type=click.IntRange(min=1), default=2, help="Layers."),
    click.option(
        "--dropout",
        type=_Finite(min=0, max=1, max_open=True),
        default=0.0,
        help="Part of a layer's outputs that the next one does not get in training.",
    ),
    click.option("--steps", type=click.IntRange(min=1), default=5500, help="Updates."),
    click.option("--batch-size", type=click.IntRange(min=1), default=32, help="Streams of text."),
    click.option(
        "--sequence-length",
        type=click.IntRange(min=1),
        default=32,
        help="Characters of a stream in each step.",
    ),
    click.option("--lr", type=_Finite(min=0, min_open=True), default=0.003, help="Learning rate."),
)


@click.group(cls=_Group, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(elman.__version__, message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Vanilla recurrent networks on a CPU."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


class _Training(NamedTuple):
    """The options that say how to train."""

    steps: int
    batch_size: int
    sequence_length: int
    lr: float


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_sizes
@_running
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(_MODEL_FILE),
    help="The model's file, *.safetensors, or a folder for it. The loss curve, a PNG, goes beside it.",
)
@_writing
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train(
    file: Path | None,
    hidden_size: int,
    layers: int,
    dropout: float,
    steps: int,
    batch_size: int,
    sequence_length: int,
    lr: float,
    backend: str | None,
    threads: int | None,
    seed: int,
    output: Path,
    length: int,
    temperature: float,
    quiet: bool,
) -> int:
    """Train a character model on FILE, then let it write.

    FILE is UTF-8 text. Without it the model learns the Python documentation topics, which takes about half a minute on
    two cores. A tenth of the text is held out to measure by. Ctrl-C stops early and keeps the model.
    """
    with _reported():
        target = _model_path(output)
        _prepare(backend, threads)
        corpus = _corpus(file)
        n_tokens = len(corpus.vocabulary)
        model = elman.SequenceModel(
            inputs=elman.Tokens(n_tokens),
            outputs=elman.Categories(n_tokens),
            hidden_size=hidden_size,
            num_layers=layers,
            dropout=dropout,
            seed=seed,
            backend=backend,
        )
        model.metadata["vocabulary"] = corpus.vocabulary.to_json()
        if not quiet:
            _introduce(corpus, model)
        records, is_complete = _run(model, corpus, _Training(steps, batch_size, sequence_length, lr), quiet=quiet)
        if records:
            model.save(target)
    if not is_complete:
        kept = f"the model is in {target}" if records else "there is no model yet"
        click.echo(f"Stopped after {len(records)} of {steps} steps: {kept}.", err=True)
        return 130
    with _reported():
        _report(model, corpus, records, target)
    click.echo(f"\nA sample (temperature {temperature:g}):\n")
    click.echo(_written(model, corpus.vocabulary, "", length, temperature, seed))
    return 0


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="Text to begin with; it is written, too.")
@_writing
@click.option("--seed", type=click.IntRange(min=0), help="For the same text again.")
@_running
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
    with _reported():
        _prepare(backend, threads)
        loaded = elman.load(model, backend=backend)
        vocabulary = _vocabulary_of(loaded, model)
        written = _written(loaded, vocabulary, prompt, length, temperature, seed)
    # A pipe or a file gets the text and nothing else; on a terminal the next prompt must not stand right behind it.
    click.echo(written, nl=sys.stdout.isatty())


@main.command()
def info() -> None:
    """Print versions, backends, instruction set and threads."""
    with _reported():
        elman.show_config()


@contextlib.contextmanager
def _reported(subject: object = None) -> Iterator[None]:
    """Make what is wrong with a user's files, options or environment an error message, about `subject` if given."""
    try:
        yield
    except BrokenPipeError:
        raise  # click ends the program quietly
    except OSError as error:
        message = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        raise click.ClickException(message) from error
    except MemoryError as error:
        raise click.ClickException(f"not enough memory for these sizes. {error}") from error
    except (ValueError, ImportError, FloatingPointError) as error:
        raise click.ClickException(str(error) if subject is None else f"{subject}: {error}") from error


def _model_path(output: Path) -> Path:
    """The file to write, in a folder where a file can be written: better to know now than after the training."""
    target = output / _MODEL_FILE if output.is_dir() else output
    if target.suffix != ".safetensors":
        raise click.ClickException(f"--output must be a folder or end in .safetensors, got {output}")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise click.ClickException(f"{target.parent}: {error.strerror}") from error
    return target


def _prepare(backend: str | None, threads: int | None) -> None:
    """Choose the number of threads, and load the backend: what is wrong with it is reported before anything is done."""
    if threads is not None:
        elman.set_num_threads(threads)
    backends.resolve(backend)


def _corpus(file: Path | None) -> text.Corpus:
    if file is None:
        return text.Corpus.of(text.topics_text())
    content = text.read_text(file)
    with _reported(file):
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


def _run(
    model: elman.SequenceModel, corpus: text.Corpus, training: _Training, *, quiet: bool
) -> tuple[list[text.Progress], bool]:
    """Train under a progress bar: the records, and whether it came to its end (or to Ctrl-C)."""
    from tqdm import tqdm

    records: list[text.Progress] = []
    layout = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
    columns = shutil.get_terminal_size().columns  # tqdm shows nothing where a terminal claims to have no size
    with tqdm(total=training.steps, bar_format=layout, ncols=columns, nrows=24, disable=quiet) as bar:
        held_out = ""
        try:
            for record in text.train(model, corpus.train, corpus.held_out, **training._asdict()):
                records.append(record)
                if record.validation_loss is not None:
                    held_out = f", validation {record.validation_loss:.3f}"
                speed = f"{record.tokens_per_second / 1000:,.0f}k tokens/s"
                bar.set_postfix_str(f"loss {record.loss:.3f}{held_out}, {speed}", refresh=False)
                bar.update()
        except KeyboardInterrupt:
            return records, False
    return records, True


def _report(model: elman.SequenceModel, corpus: text.Corpus, records: list[text.Progress], target: Path) -> None:
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
    loss_curve(curve, records, bigram=bigram)
    click.echo(f"Loss curve: {curve}")


def _vocabulary_of(model: elman.SequenceModel, path: Path) -> text.Vocabulary:
    if "vocabulary" not in model.metadata:
        raise click.ClickException(f"{path}: no model of text, as it has no vocabulary")
    with _reported(path):
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
    with _reported("--prompt"):
        tokens = vocabulary.encode(prompt or vocabulary.start)
    new = model.generate(tokens, length, temperature=temperature, seed=seed)
    return (prompt + vocabulary.decode(new)).encode("utf-8", "replace")
