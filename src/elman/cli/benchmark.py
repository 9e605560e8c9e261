"""`elman bench`: speed on this machine. What is measured, and how, is in `elman.benchmark`, imported when it runs."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import elman
from elman import backends
from elman.backends.reference import ACTIVATIONS
from elman.cli.common import Finite, options, reported

if TYPE_CHECKING:
    from elman.benchmark.contestants import Contestant
    from elman.benchmark.workloads import Shape, Workload

_SETS = ("quick", "table", "seq", "deepbench")  # of elman.benchmark.workloads, which only a run needs
_WHAT = ("forward", "both", "both-dx", "train", "train-sgd")
_PEERS = ("torch", "jax", "keras", "onnxruntime", "numpy-script")


def _shapes(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[Shape, ...]:
    from elman.benchmark.workloads import Shape

    try:
        return tuple(map(Shape.parse, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


workload_options = options(
    click.option("--set", "set_name", type=click.Choice(_SETS), help="A set of workloads.  [default: quick]"),
    click.option(
        "--shape",
        "shapes",
        metavar="T,B,I,H",
        callback=_shapes,
        multiple=True,
        help="Time steps, batch, inputs (or different tokens), hidden units. Can be given again.",
    ),
    click.option("--what", type=click.Choice(_WHAT), help="What to compute, if not what the set says."),
    click.option("--nonlinearity", type=click.Choice(tuple(ACTIVATIONS))),
    click.option("--layers", type=click.IntRange(min=1)),
    click.option("--bidirectional", is_flag=True, show_default=False),
    click.option("--dtype", type=click.Choice(["float32", "float64"])),
)


@click.command()
@workload_options
@click.option(
    "--backend",
    "backend_names",
    type=click.Choice(backends.NAMES),
    multiple=True,
    help="Can be given again.  [default: the compiled ones that are installed]",
)
@click.option(
    "--peer",
    "peer_names",
    type=click.Choice((*_PEERS, "none")),
    multiple=True,
    help="What to compare with; can be given again.  [default: all that are installed]",
)
@click.option("--threads", type=click.IntRange(min=1), show_default="one for each core", help="For all, the same.")
@click.option("--budget", type=Finite(min=0), default=3.0, help="Seconds of timing for each workload.")
@click.option(
    "--explain",
    "explained",
    metavar="T,B,I,H",
    callback=_shapes,
    multiple=True,
    help="Measure nothing: say how the kernels divide the work of this shape. Can be given again.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a PNG.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def bench(
    set_name: str | None,
    shapes: tuple[Shape, ...],
    what: str | None,
    nonlinearity: str | None,
    layers: int | None,
    bidirectional: bool,
    dtype: str | None,
    backend_names: tuple[str, ...],
    peer_names: tuple[str, ...],
    threads: int | None,
    budget: float,
    explained: tuple[Shape, ...],
    json_file: Path | None,
    plot_file: Path | None,
    quiet: bool,
) -> int:
    """Measure the speed of backends and of other frameworks that are installed, on this machine.

    All take turns in one process, each with its result checked first. The report is Markdown: medians with quartiles,
    how many times as long others take, and the share of the least time that the machine allows: its peak in matrix
    products, or reading the recurrent weights from cache in each time step. The exit status is 1 if a result is wrong.
    """
    from elman.benchmark import report
    from elman.benchmark.contestants import backend
    from elman.benchmark.machine import Machine
    from elman.benchmark.peers import environment
    from elman.benchmark.workloads import Workload

    changes: dict[str, Any] = {
        "what": what,
        "nonlinearity": nonlinearity,
        "num_layers": layers,
        "bidirectional": bidirectional or None,
        "dtype": dtype,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if explained:
        return _explain([Workload(shape, **changes) for shape in explained], threads)
    workloads = _workloads(set_name, shapes, changes)
    for file in filter(None, (json_file, plot_file)):
        _check_folder(file)
    if plot_file is not None:
        with reported("--plot needs matplotlib: pip install 'elman[plot]'"):
            import matplotlib.figure  # noqa: F401
    with reported():
        n_threads = threads or elman.get_num_threads()
        os.environ |= environment(n_threads)
        names = backend_names or tuple(name for name in ("cython", "numba") if name in backends.available())
        for name in names:
            backends.get(name)
        peers, absent = _peers(peer_names)
        packages = [package for contestant in (*map(backend, names), *peers) for package in contestant.packages]
        machine = Machine.measured(
            n_threads=n_threads, dtype=workloads[0].dtype, packages=tuple(dict.fromkeys(packages))
        )
        click.echo(report.machine_text(machine) + "\n")
        measurements = _measure(workloads, [*map(backend, names), *peers], n_threads, budget, quiet=quiet)
        click.echo(report.table(measurements, machine, names))
        remarks = [*report.remarks(measurements), *(f"{name} is not installed: {remedy}" for name, remedy in absent)]
        click.echo("".join(f"\n- {remark}" for remark in remarks))
        if json_file is not None:
            report.write_json(json_file, measurements, machine)
        if plot_file is not None:
            report.plot(plot_file, measurements, machine, names)
    return int(any(result.is_wrong for m in measurements for result in m.results.values()))


def _workloads(set_name: str | None, shapes: tuple[Shape, ...], changes: dict[str, Any]) -> list[Workload]:
    """Those of the set and those of the shapes, with what the options change about them."""
    from elman.benchmark.workloads import SETS, Workload

    if set_name is None and not shapes:
        set_name = "quick"
    chosen = [*(SETS[set_name] if set_name else ()), *map(Workload, shapes)]
    return list(dict.fromkeys(dataclasses.replace(work, **changes) for work in chosen))


def _explain(workloads: list[Workload], threads: int | None) -> int:
    from elman.benchmark.explain import explain

    with reported():
        if threads:
            elman.set_num_threads(threads)
        click.echo("\n\n".join(map(explain, workloads)))
    return 0


def _peers(names: tuple[str, ...]) -> tuple[list[Contestant], list[tuple[str, str]]]:
    """The chosen peers that are installed, and what installs those that are not."""
    from elman.benchmark.peers import PEERS, missing

    if "none" in names and len(names) > 1:
        raise click.UsageError(f"--peer none goes with no other --peer, got {', '.join(names)}")
    wanted = tuple(PEERS) if not names else () if "none" in names else names
    absent = {name: remedy for name, remedy in missing().items() if name in wanted}
    return [PEERS[name] for name in wanted if name not in absent], list(absent.items())


def _check_folder(file: Path) -> None:
    """Better to know now than after the measurements."""
    if not file.absolute().parent.is_dir():
        raise click.ClickException(f"{file.parent}: No such folder")


def _measure(
    workloads: list[Workload], contestants: list[Contestant], n_threads: int, budget: float, *, quiet: bool
) -> list[Any]:
    """All measurements, under a progress bar."""
    from tqdm import tqdm

    from elman.benchmark.measure import measure

    layout = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
    columns = shutil.get_terminal_size().columns  # tqdm shows nothing where a terminal claims to have no size
    measurements = []
    with tqdm(total=len(workloads), bar_format=layout, ncols=columns, nrows=24, disable=quiet) as bar:
        for work in workloads:
            measurements.append(
                measure(work, contestants, n_threads=n_threads, budget=budget, advance=bar.set_postfix_str)
            )
            bar.update()
    return measurements
