"""`elman bench` and `elman accuracy`. What is measured, and how, is in `elman.benchmark`, imported when they run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import elman
from elman import backends
from elman.backends.reference import ACTIVATIONS
from elman.benchmark import contestants
from elman.benchmark.program import Contestant
from elman.benchmark.workloads import SETS, WHAT, Shape, Workload
from elman.cli.common import LAYERS, THREADS, Finite, Int, progress_bar, reported
from elman.storage import atomic

if TYPE_CHECKING:
    from elman.benchmark.measure import Measurement

_LAYOUT = "{elapsed}"  # behind a progress bar


def _shapes(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[Shape, ...]:
    try:
        return tuple(map(Shape.parse, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


_backend_option = click.option(
    "--backend",
    "backend_names",
    type=click.Choice(backends.NAMES),
    multiple=True,
    help="Can be given again.  [default: the compiled ones that are installed]",
)
_threads_option = click.option("--threads", type=THREADS, show_default="one for each core", help="For all, the same.")
_quiet_option = click.option("--quiet", is_flag=True, help="No progress on standard error; the results stay.")


@click.command()
@click.option("--set", "set_name", type=click.Choice(tuple(SETS)), help="A set of workloads.  [default: quick]")
@click.option(
    "--shape",
    "shapes",
    metavar="T,B,I,H",
    callback=_shapes,
    multiple=True,
    help="Time steps, batch, inputs (or different tokens), hidden units. Can be given again.",
)
@click.option("--what", type=click.Choice(tuple(WHAT)), help="What to compute, if not what the set says.")
@click.option("--nonlinearity", type=click.Choice(tuple(ACTIVATIONS)), help="Instead of the set's.")
@click.option("--layers", "num_layers", type=LAYERS, help="Instead of the set's, or one.")
@click.option("--bidirectional", is_flag=True, show_default=False, help="Both directions.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Instead of float32.")
@click.option("--models", type=LAYERS, help="How many for fit-many, instead of the set's.")
@_backend_option
@click.option(
    "--peer",
    "peer_names",
    type=click.Choice((*contestants.PEERS, "none")),
    multiple=True,
    help="What to compare with; can be given again.  [default: all that are installed]",
)
@_threads_option
@click.option("--budget", type=Finite(min=0), show_default="3", help="Seconds of timing for each workload.")
@click.option(
    "--explain",
    "explained",
    metavar="T,B,I,H",
    callback=_shapes,
    multiple=True,
    help="Measure nothing: say how the kernels divide the work of this shape. Can be given again.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers.")
@click.option(
    "--compare",
    "old_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measure the same as this file of --json, and say what has become slower.",
)
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a PNG.")
@_quiet_option
def bench(
    set_name: str | None,
    shapes: tuple[Shape, ...],
    backend_names: tuple[str, ...],
    peer_names: tuple[str, ...],
    threads: int | None,
    budget: float | None,
    explained: tuple[Shape, ...],
    json_file: Path | None,
    old_file: Path | None,
    plot_file: Path | None,
    quiet: bool,
    **changes: Any,
) -> int:
    """Measure the speed of backends and of other frameworks that are installed, on this machine.

    All take turns in one process, each with its result checked first. The report is Markdown: medians with quartiles,
    how many times as long others take, and the share of the roofline: the multiply-adds that all threads do in
    registers, or reading the recurrent weights from cache in each time step.

    With --compare, workloads, budget, threads, backends and peers are those of the file where no option says otherwise.
    Slower is what took 5 % longer in nine of ten rounds than in nine of ten rounds then, relative to multiply-adds in
    the same round, and again when it is measured a second time. Between two machines nothing is called slower.

    The exit status is 1 if a result is wrong or something has become slower.
    """
    from elman.benchmark import compare, report
    from elman.benchmark.contestants.own import backend
    from elman.benchmark.machine import Machine

    changes = {name: value for name, value in changes.items() if value}
    if explained:
        others = {"--set": set_name, "--shape": shapes, "--json": json_file, "--compare": old_file, "--plot": plot_file}
        if given := [option for option, value in others.items() if value]:
            raise click.UsageError(f"--explain measures nothing, so it goes without {', '.join(given)}")
        return _explain([Workload(shape, **changes) for shape in explained], threads)
    _check_files(json_file, plot_file)
    with reported():
        earlier = None if old_file is None else compare.read(old_file)
        if earlier is not None:
            backend_names = backend_names or earlier.timed(backends.NAMES)
            threads, budget = threads or earlier.machine.n_threads, earlier.budget if budget is None else budget
        n_threads, budget = threads or elman.get_num_threads(), 3.0 if budget is None else budget
        workloads = _workloads(set_name, shapes, changes, list(earlier.measurements) if earlier else SETS["quick"])
        names = _backend_names(backend_names)
        peers, absent = _peers(peer_names, earlier.timed(contestants.PEERS) if earlier else tuple(contestants.PEERS))
        os.environ |= contestants.environment(n_threads, [one.name for one in peers])
        if earlier is not None:
            earlier.check_common(workloads, names)
        chosen = [*map(backend, names), *peers]
        packages = tuple(dict.fromkeys(package for contestant in chosen for package in contestant.packages))
        machine = Machine.measured(n_threads=n_threads, dtype=workloads[0].dtype, packages=packages)
        click.echo(report.machine_text(machine) + "\n")
        how = {"contestants": chosen, "n_threads": n_threads, "budget": budget}
        measurements = _measured(workloads, how, quiet=quiet)
        slower = [] if earlier is None else compare.slower(earlier, measurements, machine)
        again = {m.work: m for m in _measured(slower, how, quiet=quiet)}
        measurements = [again.get(m.work, m) for m in measurements]
        click.echo(report.table(measurements, machine, names))
        remarks = [*report.remarks(measurements), *(f"{name} is not installed: {remedy}" for name, remedy in absent)]
        click.echo("".join(f"\n- {remark}" for remark in remarks))
        if earlier is not None:
            click.echo("\n" + compare.table(earlier, measurements, machine))
            slower = compare.slower(earlier, measurements, machine)
        if json_file is not None:
            report.write_json(json_file, measurements, machine, budget)
        if plot_file is not None:
            report.plot(plot_file, measurements, machine, names)
    return int(bool(slower) or any(result.is_wrong for m in measurements for result in m.results.values()))


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    """Find out now, and not after the measurements, whether they can be written."""
    with reported():
        for option, file in {"--json": json_file, "--plot": plot_file}.items():
            if file is not None:
                atomic.check_place(file, option)
    if plot_file is not None:
        with reported("--plot needs matplotlib: pip install 'elman[plot]'"):
            import matplotlib.figure  # noqa: F401


def _measured(workloads: list[Workload], how: dict[str, Any], *, quiet: bool) -> list[Measurement]:
    """One measurement after the other, under a progress bar."""
    from elman.benchmark.measure import measure

    measurements = []
    with progress_bar(len(workloads), _LAYOUT, quiet=quiet or not workloads) as bar:
        for work in workloads:
            measurements.append(measure(work, **how, advance=bar.set_postfix_str))
            bar.update()
    return measurements


def _backend_names(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Those chosen, or the compiled ones that are installed, each loaded, so that errors come first."""
    names = chosen or tuple(name for name in ("cython", "numba") if name in backends.available())
    for name in names:
        backends.get(name)
    return tuple(dict.fromkeys(names))


def _workloads(
    set_name: str | None, shapes: tuple[Shape, ...], changes: dict[str, Any], default: list[Workload]
) -> list[Workload]:
    """Those of the set and those of the shapes, or else the default, with what the options change about them."""
    chosen = [*(SETS[set_name] if set_name else ()), *map(Workload, shapes)] or default
    return list(dict.fromkeys(dataclasses.replace(work, **changes) for work in chosen))


def _explain(workloads: list[Workload], threads: int | None) -> int:
    from elman.benchmark.explain import explain

    with reported():
        if threads:
            elman.set_num_threads(threads)
        click.echo("\n\n".join(map(explain, workloads)))
    return 0


def _peers(names: tuple[str, ...], default: tuple[str, ...]) -> tuple[list[Contestant], list[tuple[str, str]]]:
    """The chosen peers; or those by default that are installed, with what installs the others."""
    if "none" in names and len(names) > 1:
        raise click.UsageError(f"--peer none goes with no other --peer, got {', '.join(names)}")
    absent = contestants.missing()
    if missed := [f"--peer {name} is not installed: {absent[name]}" for name in names if name in absent]:
        raise click.UsageError("; ".join(missed))
    wanted = [name for name in names or default if name != "none"]
    return [contestants.peer(name) for name in dict.fromkeys(wanted) if name not in absent], [
        (name, absent[name]) for name in wanted if name in absent
    ]


@click.command()
@click.option("--stride", type=Int(min=1), default=1021, help="Look at every so-many-th float32; 1: at all.")
@click.option("--set", "set_name", type=click.Choice(tuple(SETS)), default="quick", help="Shapes of whole passes.")
@_backend_option
@_threads_option
@_quiet_option
def accuracy(stride: int, set_name: str, backend_names: tuple[str, ...], threads: int | None, quiet: bool) -> None:
    """Measure how exact the backends are: activations in ULP, and whole passes against float64.

    float32 is compared with NumPy's float64, float64 with mpmath where that is installed. Errors of passes are the
    largest of each array, relative to its largest entry.
    """
    from elman.benchmark import report
    from elman.benchmark.accuracy import deviations

    with reported():
        names = _backend_names(backend_names)
        rows = _function_errors(names, stride, quiet=quiet)
        extent = "all" if stride == 1 else f"every {stride}th"
        click.echo(f"**Activations**, {extent} of the values of float32 and a sample of those of float64\n")
        if importlib.util.find_spec("mpmath") is None:
            click.echo("float64 needs mpmath: pip install 'elman[bench]'\n")
        click.echo(
            report.markdown([["backend", "instruction set", "function", "dtype", "ULP", "at"], *rows], n_texts=4)
        )
        for work in SETS[set_name]:
            found = {name: deviations(work, name, threads or elman.get_num_threads()) for name in names}
            results = list(next(iter(found.values())))
            click.echo(f"\n**{work.what} at {work.shape}**, {work.nonlinearity}, {work.dtype}\n")
            lines = [[name, *(f"{found[name][result]:.1e}" for result in results)] for name in names]
            click.echo(report.markdown([["backend", *results], *lines], n_texts=1))


def _function_errors(names: tuple[str, ...], stride: int, *, quiet: bool) -> list[list[str]]:
    """Rows of the table of elementary functions, under a progress bar."""
    from elman.benchmark.accuracy import FUNCTIONS, count_float32, instruction_sets, worst_float32, worst_float64

    rows = []
    cases = [(name, one) for name in names for one in instruction_sets(name)]
    with progress_bar(len(cases) * len(FUNCTIONS) * count_float32(stride), _LAYOUT, quiet=quiet) as bar:
        for name in names:
            for instruction_set in instruction_sets(name):
                for function in FUNCTIONS:
                    bar.set_postfix_str(f"{name} {instruction_set} {function}", refresh=False)
                    found = {"float32": worst_float32(backends.get(name), function, stride=stride, advance=bar.update)}
                    exact = worst_float64(backends.get(name), function)
                    if exact is not None:
                        found["float64"] = exact
                    for dtype, worst in found.items():
                        rows.append([name, instruction_set, function, dtype, f"{worst.ulp:.2f}", f"{worst.at:.9g}"])
    return rows
