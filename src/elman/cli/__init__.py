"""The command `elman`: train a character model, let it write, export models, measure speed, say what elman runs with.

Here are options, the terminal and files; other modules compute. What a user gets wrong is one line on standard error
and exit status 2; what fails all the same, such as a training that diverges or a disk that is full, is one line and
exit status 1; Ctrl-C is exit status 130.
"""

from __future__ import annotations

import click

import elman
from elman.cli.benchmark import accuracy, bench
from elman.cli.characters import sample, train
from elman.cli.common import Group, reported
from elman.cli.export import export

_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Group, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(elman.__version__, message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Vanilla recurrent networks on a CPU."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command()
def info() -> None:
    """Print versions, backends, instruction set and threads."""
    with reported():
        elman.show_config()


for _command in (train, sample, export, bench, accuracy):
    main.add_command(_command)
