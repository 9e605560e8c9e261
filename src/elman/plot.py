"""Pictures of a training and what it led to. Needs matplotlib, which `pip install 'elman[plot]'` brings along."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.storage import atomic
from elman.typing import Int, Real

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("elman.plot needs matplotlib: pip install 'elman[plot]'") from error


def loss_curve(
    path: str | Path, losses: Sequence[float], validation_losses: Mapping[int, float], *, bigram: float | None = None
) -> None:
    """Write a PNG of a character model's losses in bits per character, such as an `elman.text.Recorder` has.

    Parameters
    ----------
    path : str or path
        The file, which is overwritten.
    losses : sequence of float
        The training loss of each step, at least one.
    validation_losses : mapping from int to float
        By the steps, counted from 1, after which they were measured.
    bigram : float, optional
        A bigram model's, which becomes a line to compare with.

    Raises
    ------
    OSError
        If the file cannot be written. What was there is left as it was.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> loss_curve(folder / "loss.png", [6.7, 6.5], {2: 6.4}, bigram=3.5)
    >>> (folder / "loss.png").read_bytes()[1:4]
    b'PNG'
    """
    if bigram is not None:
        bigram = check.non_negative(bigram, "bigram")
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")  # without pyplot: no window system, no global state
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, _smoothed(losses), color="tab:blue", lw=1.2, label="training text")
    if validation_losses:
        measured = sorted(validation_losses.items())
        axes.plot(*zip(*measured, strict=True), "o-", color="tab:orange", label="held-out text")
        axes.annotate(f"{measured[-1][1]:.2f}", measured[-1], xytext=(0, 8), textcoords="offset points", ha="right")
    if bigram is not None:
        axes.axhline(bigram, color="tab:gray", linestyle="--", label=f"bigram model, held-out text ({bigram:.2f})")
    axes.set(xlabel="training step", ylabel="loss in bits per character", title="Character model")
    axes.set_xlim(0, steps[-1])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write it whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    atomic.write(check.path(path, "path"), content.getvalue())


def history_figure(history: Mapping[str, Sequence[float]], falling: tuple[str, ...]) -> Figure:
    """A figure of what `fit` has recorded: losses above; below, what should fall, by its name's end, and what rise."""
    losses = [name for name in history if name.endswith("loss")]
    others = [name for name in history if name.endswith(falling) and name not in losses]
    panels = [losses, others, [name for name in history if name not in losses + others]]
    panels = [panel for panel in panels if panel]
    figure = Figure(figsize=(8, 4 * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        for name in panel:
            axes.plot(np.arange(1, len(history[name]) + 1), history[name], "o-", ms=3, label=name)
        axes.grid(alpha=0.3)
        axes.legend()
    axes.set_xlabel("epoch")
    return figure


def learning_rates_figure(lr: Real, loss: Real, smoothed: Real, steepest: float) -> Figure:
    """A figure of the losses (n,) at learning rates (n,), with the one to begin with."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(lr, loss, color="tab:blue", lw=1, alpha=0.4, label="loss of a batch")
    axes.semilogx(lr, smoothed, color="tab:blue", label="smoothed")
    axes.axvline(steepest, color="tab:gray", linestyle="--", label=f"steepest: {steepest:.2g}")
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def gradient_flow(norms: NDArray[np.floating[Any]], *, path: str | Path | None = None) -> Figure:
    """A figure of the norms that `SequenceModel.gradient_norms` gives, one curve for each layer.

    Parameters
    ----------
    norms : array (L, T)
        The first of the two that it gives.
    path : str or path, optional
        A PNG to write it to.

    Examples
    --------
    >>> import elman
    >>> model = elman.SequenceModel(elman.Tokens(3), elman.Categories(3), hidden_size=8, seed=0)
    >>> norms, saturated = model.gradient_norms([[0], [1], [2]], [[1], [2], [0]])
    >>> gradient_flow(norms)
    <Figure size ...>
    """
    norms = check.as_array(norms, "norms")
    check.shape(norms.shape, "norms", [("L", "T")])
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for k, layer in enumerate(norms):
        axes.semilogy(np.arange(1, len(layer) + 1), layer, label=f"layer {k}")
    axes.set(xlabel="time step t", ylabel="norm of the gradient by h[t]")
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        save_png(figure, path)
    return figure


def backtest_figure(origins: Int, actual: Real, forecasts: Real, errors: Mapping[str, Real]) -> Figure:
    """A figure of forecasts (K, steps) of a series, from its origins (K,); below, errors (steps,) by name."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    series, by_step = figure.subplots(2)
    for i, (origin, came, forecast) in enumerate(zip(origins, actual, forecasts, strict=True)):
        steps, labels = origin + np.arange(len(came)), ("series", "forecasts") if i == 0 else (None, None)
        series.plot(steps, came, color="tab:gray", label=labels[0])
        series.plot(steps, forecast, color="tab:blue", lw=1, alpha=0.7, label=labels[1])
    for name, values in errors.items():
        by_step.plot(np.arange(1, len(values) + 1), values, "o-", ms=3, label=name)
    series.set(xlabel="step of the series")
    by_step.set(xlabel="step of the forecast", ylabel="error")
    by_step.set_ylim(bottom=0)
    for axes in (series, by_step):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def fixed_points_figure(points: Real, is_stable: NDArray[np.bool_], trajectories: Any, n_components: int) -> Figure:
    """The picture of `elman.analysis.FixedPoints`: points (N, H) among trajectories, in principal components."""
    lines = [] if trajectories is None else _lines(trajectories, points.shape[1])
    n_components = check.integers(2, 3)(n_components, "n_components")
    cloud = np.concatenate(lines) if lines else points
    if len(cloud) == 0:
        check.refuse("trajectories must be given where there is no fixed point: there is nothing else to draw")
    project, parts = _principal(cloud, n_components)
    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes: Any = figure.add_subplot(projection="3d" if n_components == 3 else None)
    for line in lines:
        axes.plot(*project(line).T, color="tab:gray", lw=0.6, alpha=0.5)
    kinds = ("stable", is_stable, "tab:blue"), ("not stable", ~is_stable, "white")
    for label, which, color in kinds:
        if np.any(which):
            drawn = {"color": color, "edgecolor": "black", "s": 50, "label": label, "zorder": 3}
            if n_components == 3:
                drawn["depthshade"] = False
            axes.scatter(*project(points[which]).T, **drawn)
            axes.legend()
    for i, part in enumerate(parts):
        axes.set(**{f"{'xyz'[i]}label": f"component {i + 1}: {part:.0%} of the variance"})
    return figure


def _lines(trajectories: Any, n_units: int) -> list[Real]:
    """One array (T, H) for each sequence."""
    dtype, shapes = np.dtype(np.float64), (("T", n_units), ("T", "B", n_units))
    if check.is_list_of_arrays(trajectories):
        named = ((f"trajectories[{i}]", one) for i, one in enumerate(trajectories))
        lines = [check.real_array(one, name, dtype, shapes[0]) for name, one in named]
    else:
        array = check.real_array(trajectories, "trajectories", dtype, *shapes)
        lines = [array] if array.ndim == 2 else [*array.swapaxes(0, 1)]
    for i, line in enumerate(lines):
        check.finite(line, f"trajectories[{i}]")
    return lines


def _principal(cloud: Real, n: int) -> tuple[Any, Real]:
    """The function from states (N, H) to their principal components (N, n), and the parts of variance in these."""
    mean = cloud.mean(axis=0)
    variances, directions = np.linalg.eigh((cloud - mean).T @ (cloud - mean))
    variances, directions = variances[::-1][:n], directions[:, ::-1][:, :n]
    missing = n - directions.shape[1]  # of a network with fewer units
    directions, variances = np.pad(directions, ((0, 0), (0, missing))), np.pad(variances, (0, missing))
    total = max(np.square(cloud - mean).sum(), np.finfo(float).tiny)
    return lambda states: (states - mean) @ directions, variances / total


def _smoothed(values: Sequence[float]) -> NDArray[np.float64]:
    """Each value's mean with those around it, over 1 % of all."""
    half = len(values) // 200
    sums = np.cumsum([0.0, *values])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means
