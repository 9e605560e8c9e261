"""`elman train` and `elman sample`: models of text. The computing is done in `elman.text`."""

from __future__ import annotations

import codecs
import contextlib
import io
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

import elman
from elman import backends, check, text
from elman.cli.common import LAYERS, SECONDS, Failure, Finite, Int, options, prepare, progress_bar, reported, running
from elman.storage import atomic
from elman.text.vocabulary import VOCABULARIES, AnyVocabulary, Bytes
from elman.training import checkpoint
from elman.training.callbacks import Callback, Training

_MODEL_FILE = "elman-model.safetensors"
_EARLIER, _FINISHED = "steps before", "finished"  # in a file's metadata: of trainings before, and of one that is over
_MOST_STEPS = 1000  # from one save to the next, so that little is lost however long the training is
_writing = options(
    click.option("--length", type=Int(min=0), default=500, help="Characters to write, or words or bytes."),
    click.option(
        "--temperature",
        type=Finite(min=0),
        default=0.7,
        help="Less writes what is likelier; 0 always the likeliest.",
    ),
    click.option("--top-k", type=Int(min=1), help="Write only what is among the so many likeliest."),
    click.option(
        "--top-p",
        type=Finite(min=0, min_open=True, max=1),
        help="Write only what is among the fewest that have so much probability together.",
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
        help="Characters of a stream in each step, or words or bytes.",
    ),
    click.option("--lr", type=Finite(min=0, min_open=True), default=0.003, help="Learning rate."),
)


_texts = options(
    click.option(
        "--unit",
        type=click.Choice([*VOCABULARIES]),
        default="characters",
        help="What the model reads and writes one of at a time.",
    ),
    click.option(
        "--vocabulary",
        type=Int(min=1),
        default=10_000,
        help="How many words it knows, with --unit words: the most frequent ones.",
    ),
    click.option("--encoding", callback=lambda *given: _encoding(*given), show_default="utf-8", help="Of the texts."),
    click.option(
        "--val-text",
        type=click.Path(path_type=Path),
        help="Another text to measure by, or 100,000 tokens from all over it, in place of what is held out.",
    ),
    click.option(
        "--patience",
        type=Int(min=1),
        help="Stop after so many measurements in a row, of the ten of a training, that are no better.",
    ),
)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_texts
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
    "--resume",
    is_flag=True,
    help="Go on from the model's file, if there is one, with the options it began with; more --steps train a finished "
    "model on.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model that is there.")
@_writing
@click.option(
    "--quiet",
    is_flag=True,
    help="Nothing on standard error but errors: no sizes of text and model, no progress. What the model has come to, "
    "where it is and a sample are written all the same.",
)
def train(
    file: Path | None,
    backend: str | None,
    threads: int | None,
    output: Path,
    resume: bool,
    overwrite: bool,
    encoding: str | None,
    val_text: Path | None,
    quiet: bool,
    **settings: Any,
) -> int:
    """Train a model of text on FILE, then let it write.

    FILE is a text, "-" standard input. Without it the model learns the Python documentation topics, which takes about
    half a minute on two free cores with AVX-512, and longer with AVX2. A tenth of the text, but no more than 100,000
    characters, is held out to measure by, ten times in all; the model that was best then is kept. A text of more than
    four million characters that is not ASCII is kept as numbers in a temporary file, of 1 to 4 bytes for each. Ctrl-C
    stops early and keeps the latest model.

    From time to time, and on Ctrl-C, the model's file is written with all that is needed to go on: the same command
    with --resume then ends with the same model, to the last bit.
    """
    with reported():
        target = _model_path(output)
        _check_new(target, resume=resume, overwrite=overwrite)
        prepare(backend, threads)
        writing = {name: settings.pop(name) for name in ("length", "temperature", "top_k", "top_p")}
        corpus = _corpus(file, val_text, encoding, settings, quiet=quiet)
        run = _run(target, corpus, backend, settings, resume=resume)
        if not quiet:
            _introduce(corpus, run.model)
        recorder, is_interrupted = _train(run, corpus, settings, target, quiet=quiet)
        n_done, steps = len(recorder.losses) + run.earlier, settings["steps"]
        if is_interrupted:
            kept = f"the model is in {target}; --resume goes on from there"
            click.echo(f"Stopped after {n_done} of {steps} steps: {kept}.", err=True)
            return 130
        _report(run, corpus, recorder, target, steps)
        click.echo(f"\nA sample (temperature {writing['temperature']:g}):\n")
        click.echo(_written(run.model, corpus.vocabulary, "", settings["seed"], writing))
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
    seed: int | None,
    backend: str | None,
    threads: int | None,
    **writing: Any,
) -> None:
    """Let MODEL write a text to standard output.

    MODEL is a file that `elman train` wrote. A model of words writes the spaces that belong to them, and never a word
    that it does not know; in the prompt, such words are read as one and the same.
    """
    with reported():
        prepare(backend, threads)
        loaded = elman.load(model, backend=backend)
        vocabulary = _vocabulary_of(loaded, model)
        written = _written(loaded, vocabulary, prompt, seed, writing)
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


def _check_new(target: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise click.ClickException("--resume goes on with the model that --overwrite replaces: give one of them")
    if target.exists() and not (resume or overwrite):
        ways = "--resume goes on with it, --overwrite replaces it"
        raise click.ClickException(f"--output must be a new file, got {target}, which is there: {ways}")


def _encoding(context: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """One that Python decodes text with."""
    if value is None:
        return None
    try:
        "".encode(value)  # which refuses what is known and not of text
    except (LookupError, UnicodeError) as error:  # "undefined" refuses all
        raise click.BadParameter(f"{value!r} is not an encoding that Python knows.", param=param) from error
    return codecs.lookup(value).name


def _corpus(
    file: Path | None, val_text: Path | None, encoding: str | None, settings: dict[str, Any], *, quiet: bool
) -> text.Corpus:
    if settings["unit"] == "bytes" and encoding is not None:
        raise click.ClickException("--encoding is of characters and words: with --unit bytes, texts are not decoded")
    said = time.monotonic()

    def told(n_bytes: int) -> None:
        nonlocal said
        if not quiet and time.monotonic() - said > SECONDS:
            said = time.monotonic()
            click.echo(f"Read {n_bytes // 10**6:,} MB of a text.", err=True)

    given = {"encoding": encoding or "utf-8", "validation": val_text, "most_words": settings["vocabulary"]}
    return text.Corpus.read(file, settings["unit"], **given, told=told)


def _introduce(corpus: text.Corpus, model: elman.SequenceModel) -> None:
    unit, n_held_out = corpus.vocabulary.unit, corpus.held_out.size
    copies = f"; {corpus.n_copies:,} more that repeat these left out" if corpus.n_copies else ""
    if corpus.validation is None:
        n, measured = len(corpus.train) + n_held_out + corpus.n_copies, f"{n_held_out:,} held out"
    else:
        n, measured = len(corpus.train) + corpus.n_copies, f"measured by {n_held_out:,} of another"
    click.echo(f"Text: {n:,} {unit}, a vocabulary of {len(corpus.vocabulary):,}; {measured}{copies}.", err=True)
    backend = model.rnn.backend or backends.current()
    click.echo(f"{model}; backend {backend}, {elman.get_num_threads()} threads.", err=True)


class _Run(NamedTuple):
    """A training, or what has been added to one that had ended."""

    model: elman.SequenceModel
    earlier: int  # steps of trainings before
    goes_on: bool  # from a checkpoint


def _run(target: Path, corpus: text.Corpus, backend: str | None, settings: dict[str, Any], *, resume: bool) -> _Run:
    """What is to be done, if that is not another training than the one in the file."""
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
    texts = {"text": corpus.fingerprint, "--val-text": str(corpus.validation)}
    model.metadata = {**texts, **shown, _EARLIER: "0", "vocabulary": corpus.vocabulary.to_json()}
    if not (resume and target.exists()):
        return _Run(model, 0, goes_on=False)
    before = elman.load(target)
    found = before.metadata
    n_done = check.int_in_text(found.pop(_FINISHED, ""))  # fewer than it was to have, where --patience ended it
    steps = check.int_in_text(found.get("--steps", ""))
    trains_on = n_done is not None and steps is not None and settings["steps"] > steps
    expected = {**model.metadata, **({"--steps": found["--steps"]} if trains_on else {})}
    if found.keys() != expected.keys():
        raise click.ClickException(f"{target} is not of this version's elman train: begin anew, without --resume")
    earlier = check.int_in_text(found[_EARLIER]) or 0
    checkpoint.same_run(found, {**expected, _EARLIER: found[_EARLIER]}, str(target))
    if trains_on:
        model.load_state_dict(before.state_dict())
        earlier += n_done or 0
    model.metadata[_EARLIER] = str(earlier)
    return _Run(model, earlier, goes_on=not trains_on)


class _Shown(Callback):
    """A recorder's numbers beside a progress bar of updates; and in the file it says when the run is over."""

    def __init__(self, bar: Any, recorder: text.Recorder, tokens_per_step: int, target: Path) -> None:
        self._bar, self._recorder, self._tokens_per_step = bar, recorder, tokens_per_step
        self._target, self._file = target, _version(target)
        self.in_file: int | None = None  # the step whose model the file has, if it has one of this run
        self._stderr, self.said = sys.stderr, io.StringIO()  # which is taken for it in a training

    def on_start(self, training: Training) -> None:  # noqa: ARG002
        self._bar.initial = self._bar.n = self._step = len(self._recorder.losses)
        self.in_file = self._step or None  # it goes on from there

    def look(self) -> None:
        """See whether the file was written after the last step."""
        before, self._file = self._file, _version(self._target)
        self.in_file = self.in_file if self._file == before else self._step

    def tell(self) -> None:
        """Hand on what was said."""
        if self.said.tell():
            click.echo(self.said.getvalue(), self._stderr, nl=False)
            self.said.truncate(self.said.seek(0))

    def on_step(self, training: Training) -> None:  # noqa: ARG002
        self.look()
        self.tell()
        losses, measured = self._recorder.losses, [*self._recorder.validation_losses.values()]
        self._step = len(losses)
        held_out = f", validation {measured[-1]:.3f}" if measured else ""
        speed = f"{len(losses) * self._tokens_per_step / self._recorder.seconds / 1000:,.0f}k tokens/s"
        self._bar.set_postfix_str(f"loss {losses[-1]:.3f}{held_out}, {speed}", refresh=False)
        self._bar.update(len(losses) - self._bar.n)

    def on_epoch(self, training: Training) -> None:
        if self._recorder.is_over:
            training.model.metadata[_FINISHED] = str(len(self._recorder.losses))


def _version(file: Path) -> tuple[int, int] | None:
    """What is another one whenever a file has been written."""
    found = file.stat() if file.exists() else None
    return found and (found.st_ino, found.st_mtime_ns)


def _train(
    run: _Run, corpus: text.Corpus, settings: dict[str, Any], target: Path, *, quiet: bool
) -> tuple[text.Recorder, bool]:
    """Train under a progress bar, to the end or to Ctrl-C; and whether it was that."""
    sizes = {name: settings[name] for name in ("steps", "batch_size", "sequence_length")}
    sizes["steps"] -= run.earlier
    steps, *of_step = sizes.values()
    recorder = text.Recorder(corpus.held_out, steps, patience=settings["patience"], from_start=run.earlier > 0)
    options: dict[str, Any] = {"checkpoint": target, "resume": run.goes_on}
    options |= sizes | {"checkpoint_every": min(math.ceil(steps / 10), _MOST_STEPS)}
    with progress_bar(steps, "{n_fmt}/{total_fmt}, {remaining} left", quiet=quiet) as bar:
        shown = _Shown(bar, recorder, math.prod(of_step), target)
        try:
            with contextlib.redirect_stderr(shown.said):  # when `fit` has saved, it speaks of resume=True
                optimizer = elman.Adam(settings["lr"])
                text.train(run.model, corpus.train, optimizer=optimizer, callbacks=[recorder, shown], **options)
        except KeyboardInterrupt:
            shown.look()
            if shown.in_file != len(recorder.losses):  # pressed twice
                raise
            return recorder, True
        except FloatingPointError as error:
            raise Failure(f"{error} {_kept(run, recorder, shown, target)}") from error
        shown.tell()
    return recorder, False


def _kept(run: _Run, recorder: text.Recorder, shown: _Shown, target: Path) -> str:
    """Keep the best model of a training that has come to nothing, if it was measured."""
    if recorder.best_step is not None:
        recorder.restore()
        run.model.metadata[_FINISHED] = str(recorder.best_step)  # so that more steps train it on
        run.model.save(target)
        return f"The model of step {recorder.best_step + run.earlier}, the best one, is in {target}."
    shown.look()
    step = shown.in_file
    return "Nothing was written." if step is None else f"The model of step {step}, not measured yet, is in {target}."


def _report(run: _Run, corpus: text.Corpus, recorder: text.Recorder, target: Path, steps: int) -> None:
    """Say how good the model is and where things are, and draw the curve if matplotlib is there."""
    own = text.model_bits(run.model, corpus.held_out)
    bigram = text.bigram_bits(corpus.train, corpus.held_out, len(corpus.vocabulary))
    which = "Held-out text" if corpus.validation is None else "The text of --val-text"
    click.echo(f"{which}, bits per {corpus.vocabulary.unit[:-1]}: {own:.3f}; bigram model: {bigram:.3f}")
    best, done = ((step or 0) + run.earlier for step in (recorder.best_step, len(recorder.losses)))
    of_step = "" if best == done == steps else f" (of step {best}, the best of {done})"
    if recorder.best_step == 0:
        of_step = f" (as it was: none of the steps from {best + 1} to {done} made it better)"
    click.echo(f"Model: {target}{of_step}")
    try:
        from elman.plot import loss_curve
    except ImportError:
        click.echo("Loss curve: not drawn, as there is no matplotlib: pip install 'elman[plot]'")
        return
    curve = target.with_suffix(".png")
    loss_curve(curve, recorder.losses, recorder.validation_losses, bigram=bigram)
    click.echo(f"Loss curve: {curve}")


def _vocabulary_of(model: elman.SequenceModel, path: Path) -> AnyVocabulary:
    if "vocabulary" not in model.metadata:
        raise click.ClickException(f"{path}: no model of text, as it has no vocabulary")
    unit = model.metadata.get("--unit", "characters")
    with reported(path):
        kind = VOCABULARIES[check.choice(unit, "--unit", VOCABULARIES)]
        vocabulary = kind.from_json(model.metadata["vocabulary"])
    if not len(vocabulary) == model.inputs.n == model.outputs.n:
        raise click.ClickException(f"{path}: its vocabulary has {len(vocabulary)} {unit}, its model is {model}")
    return vocabulary


def _written(
    model: elman.SequenceModel, vocabulary: AnyVocabulary, prompt: str, seed: int | None, writing: dict[str, Any]
) -> bytes:
    """The prompt and what the model writes behind it, in UTF-8 whatever the terminal's encoding is."""
    if vocabulary.unknown is not None:
        model.parameters()["bias_o"][vocabulary.unknown] = -np.inf  # it is never written
        prompt = prompt.removesuffix(" ")  # the next word brings one
    with reported("--prompt"):
        tokens = vocabulary.encode(prompt or vocabulary.start)
    options = {name: value for name, value in writing.items() if name != "length"}
    new = model.generate(tokens, writing["length"], **options, seed=seed)
    errors = "surrogateescape" if isinstance(vocabulary, Bytes) else "replace"  # bytes of a prompt that are no UTF-8
    return prompt.encode("utf-8", errors) + vocabulary.to_bytes(new)
