"""What commands share: how they report errors, kinds of options, options that several have."""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

import elman
from elman import backends, check, threads

SECONDS = 10  # between lines about progress


class Failure(click.ClickException):
    """What went wrong with nothing wrong in what was asked for."""


class Group(click.Group):
    """A group that reports errors as this package says. A command may return an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"Error: {' '.join(error.format_message().split())}", err=True)
            status = 1 if isinstance(error, Failure) else 2
        except click.Abort:  # what click makes of KeyboardInterrupt
            status = 130
        sys.exit(status)


class Finite(click.FloatRange):
    """A range that holds neither NaN nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return float(number)


class Int(click.IntRange):
    """A range of ints below 2**31, which need not stand in the help."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = int(super().convert(value, param, ctx))
        if number >= 2**31:
            self.fail(f"{value} is not below 2**31.", param, ctx)
        return number


THREADS = click.IntRange(1, threads.MOST_THREADS)
LAYERS = click.IntRange(1, check.MOST_LAYERS)


def options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


running = options(
    click.option(
        "--backend", type=click.Choice(backends.NAMES), show_default="see `elman info`", help="What computes."
    ),
    click.option("--threads", type=THREADS, show_default="one for each core", help="How many threads."),
)


@contextlib.contextmanager
def reported(subject: object = None) -> Iterator[None]:
    """Make what is wrong with a user's files, options or environment an error message, about `subject` if given."""
    try:
        yield
    except BrokenPipeError:
        raise  # click ends the program quietly
    except OSError as error:
        message = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        kind = Failure if error.errno in (errno.ENOSPC, errno.EIO) else click.ClickException
        raise kind(message) from error
    except MemoryError as error:
        raise click.ClickException(f"not enough memory for these sizes. {error}") from error
    except FloatingPointError as error:
        raise Failure(str(error) if subject is None else f"{subject}: {error}") from error
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error) if subject is None else f"{subject}: {error}") from error


def progress_bar(total: int, layout: str, *, quiet: bool) -> Any:
    """A tqdm; or, where standard error is no terminal, what writes a line there every ten seconds, and at the end."""
    if not (quiet or sys.stderr.isatty()):
        return _Lines(total)
    from tqdm import tqdm

    columns = shutil.get_terminal_size().columns  # tqdm shows nothing where a terminal claims to have no size
    layout = f"{{percentage:3.0f}}%|{{bar}}| {layout}{{postfix}}"
    return tqdm(total=total, bar_format=layout, ncols=columns, nrows=24, disable=quiet)


class _Lines:
    """As much of a tqdm as commands need."""

    def __init__(self, total: int) -> None:
        self.n = self.initial = 0
        self._total, self._file, self._start = total, sys.stderr, time.monotonic()
        self._next, self._said, self._postfix = self._start + SECONDS, -1, ""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        if self.n != self._said:
            self._say()

    def set_postfix_str(self, postfix: str, refresh: bool = True) -> None:  # noqa: ARG002
        self._postfix = f", {postfix}" if postfix else ""

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS
            self._say()

    def _say(self) -> None:
        self._said, done = self.n, self.n - self.initial
        seconds = int((time.monotonic() - self._start) / done * (self._total - self.n)) if done else 0
        left = f", {seconds // 60:02d}:{seconds % 60:02d} left" if done or self.n == self._total else ""
        click.echo(f"{self.n}/{self._total}{left}{self._postfix}", file=self._file)


def prepare(backend: str | None, threads: int | None) -> None:
    """Choose the number of threads, and load the backend: what is wrong with it is reported before anything is done."""
    if threads is not None:
        elman.set_num_threads(threads)
    backends.resolve(backend)
