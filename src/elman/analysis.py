"""What a network has learned, seen as a dynamical system: its fixed points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman import check
from elman.layer.jacobian import TimeStep
from elman.layer.rnn import RNN, stack_of
from elman.typing import Int, Real

_FLOAT64 = np.dtype(np.float64)
_MEMORY = 64_000_000  # bytes of matrices (H, H) at once
_MATRICES = 4  # of a state: Jacobian, normal equations, and what NumPy copies of these
_REST = 1e-10  # how short, relative to a state, the last move is where q falls no further
_SHOWN = 30  # rows of a table
NOT_FIXED, OUTLIER = -1, -2  # instead of a point


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints:
    """What `fixed_points` returns: N points, stable ones first, then by how many directions lead away.

    Attributes
    ----------
    states : float64 array (N, H)
        The points: states v for form="potential".
    inputs : float64 array (N, I)
        Under which they are fixed.
    q : float64 array (N,)
        Half the squared distance that a step moves them by, which with a leak α is α² times as much as without.
    eigenvalues : complex array (N, H)
        Of each point's Jacobian, the largest in magnitude first.
    point_of_start : integers (S,)
        For each start, which point it led to, as an index from 0 to N − 1; −1 where q stayed above the tolerance, −2
        where the point is an outlier.
    q_of_start : float64 array (S,)
        For each start, what q was in the end: infinite or NaN where there is no step from the start to a finite state.
    """

    states: Real
    inputs: Real
    q: Real
    eigenvalues: NDArray[np.complex128]
    point_of_start: Int
    q_of_start: Real

    @property
    def is_stable(self) -> NDArray[np.bool_]:
        """Whether all eigenvalues are below 1 in magnitude, (N,). On a line attractor one is 1, but for rounding."""
        stable: NDArray[np.bool_] = self.n_unstable == 0
        return stable

    @property
    def n_unstable(self) -> Int:
        """How many eigenvalues are not below 1 in magnitude, (N,)."""
        return _n_unstable(self.eigenvalues)

    @property
    def n_starts(self) -> Int:
        """How many starts led to each point, (N,)."""
        return np.bincount(self.point_of_start[self.point_of_start >= 0], minlength=len(self)).astype(np.int64)

    def plot(self, trajectories: Any = None, *, n_components: int = 2, path: str | Path | None = None) -> Any:
        """A matplotlib figure of the points, in principal components: of trajectories, if there are any, or their own.

        Needs ``pip install 'elman[plot]'``.

        Parameters
        ----------
        trajectories : array (T, B, H), (T, H) or list of arrays (T_i, H), optional
            States, which become a line for each sequence.
        n_components : {2, 3}
        path : str or path, optional
            A PNG to write it to.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or if there is nothing to draw.

        Examples
        --------
        >>> rnn = RNN(1, 8, seed=0)
        >>> y, _ = rnn(np.random.default_rng(0).normal(size=(50, 4, 1)))
        >>> fixed_points(rnn, np.zeros(1), y).plot(y)
        <Figure size ...>
        """
        from elman.plot import fixed_points_figure, save_png

        figure = fixed_points_figure(self.states, self.is_stable, trajectories, n_components)
        if path is not None:
            save_png(figure, path)
        return figure

    def __len__(self) -> int:
        return len(self.states)

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        n_starts, lost = len(self.point_of_start), self.q_of_start[self.point_of_start == NOT_FIXED]
        yield f"{_counted(len(self), 'fixed point')} from {_counted(n_starts, 'start')}, {self.is_stable.sum()} stable"
        if len(self) > 0:
            yield "point  starts        q  largest |eigenvalue|  not below 1"
        columns = self.n_starts, self.q, np.abs(self.eigenvalues[:, :1]).ravel(), self.n_unstable
        for i, (n, q, largest, n_unstable) in enumerate(zip(*columns, strict=True)):
            if i == _SHOWN and len(self) > _SHOWN + 1:
                yield f"and {len(self) - _SHOWN} more"
                break
            yield f"{i:5}{n:8}{q:9.0e}{largest:22.4f}{n_unstable:13}"
        if len(lost) > 0:
            least = np.where(np.isnan(lost), np.inf, lost).min()
            yield f"{_counted(len(lost), 'start')} led to no fixed point: q is {least:.0e} or more"
        n_outliers = np.sum(self.point_of_start == OUTLIER)
        if n_outliers > 0:
            yield f"{_counted(n_outliers, 'start')} led to outliers"


def fixed_points(
    rnn: RNN,
    x: Any,
    start: Any,
    *,
    n: int | None = None,
    noise: float = 0.0,
    seed: int | np.random.Generator | None = None,
    tolerance: float = 1e-20,
    max_iterations: int = 500,
    unique_tolerance: float = 1e-3,
    outlier_scale: float | None = 10.0,
) -> FixedPoints:
    """States that a time step leaves where they are, under an input that does not change (Sussillo & Barak, 2013).

    From each start, the method of Levenberg and Marquardt goes to a minimum of q(h) = ½ ‖F(h, x) − h‖², where F is the
    step, without noise and dropout. All is computed in float64 and NumPy, whatever the layer's dtype and backend.

    Parameters
    ----------
    rnn : RNN
        A layer, such as that of a model, ``model.rnn``.
    x : array (I,), or (..., I) like start
        The input: one for all, or one for each start.
    start : array (H,), (N, H) or (T, B, H), or list of arrays (T_i, H)
        States to start from, best those that the network visits: outputs of a call, or v for form="potential".
    n : int, optional
        How many of the starts to draw at random, each once if there are enough of them. All by default.
    noise : float
        The standard deviation of normal noise that is added to starts.
    seed : None, int or numpy.random.Generator
        What `n` and `noise` are drawn with.
    tolerance : float
        A search ends, and its point counts as fixed, at this q. With a larger one, such as 1e-6, points
        may be slow: the state moves, but little, as along what is nearly a line attractor. With a leak below 1e-6, all
        points are as slow as that: take a smaller one.
    max_iterations : int
        Steps after which a start is given up.
    unique_tolerance : float
        Points that are this near to one another, under the same input, are one: that with the least q.
    outlier_scale : float, optional
        Points further than this from the starts' mean are left out, measured in the starts' mean distance from there.
        None keeps all.

    Returns
    -------
    FixedPoints
        With a table as its repr, and a `plot`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or if the layer has several layers or directions: their states depend on more than
        the step before.

    Notes
    -----
    The step is h + δ with (JᵀJ + λ 1) δ = −Jᵀ r, where r = F(h, x) − h, J is its derivative, and λ is proportional to
    ‖r‖: it converges quadratically even where J is singular at the solution, as on line attractors, and to a point of
    those that is near (Fan & Yuan, 2005). Minima of q that are not fixed points do not become any.

    Examples
    --------
    >>> rnn = RNN(1, 1, bias=False)
    >>> rnn.load_state_dict({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.full((1, 1), 2.0)})
    >>> found = fixed_points(rnn, np.zeros(1), np.linspace(-1, 1, 9)[:, None])  # of h = tanh(2 h)
    >>> found.is_stable
    array([ True,  True, False])
    >>> np.sort(found.states[:, 0].round(4) + 0.0)
    array([-0.9575,  0.    ,  0.9575])
    """
    _check_layer(rnn)
    tolerance = check.finite_positive(tolerance, "tolerance")
    max_iterations = check.positive_int(max_iterations, "max_iterations")
    unique_tolerance = check.non_negative(unique_tolerance, "unique_tolerance")
    outlier_scale = np.inf if outlier_scale is None else check.finite_positive(outlier_scale, "outlier_scale")
    start, x = _starts(rnn, x, start, n, noise, seed)
    step = TimeStep.of(stack_of(rnn), rnn.nonlinearity, _FLOAT64)
    with np.errstate(all="ignore"):  # where a start is too far out, q is not finite
        h = _settled(step, start, x, tolerance, max_iterations)
        q = _speed(step(h, x) - h)
        label = np.where(q <= tolerance, 0, NOT_FIXED)
        label[(label == 0) & _is_far(h, start, outlier_scale)] = OUTLIER
    chosen, point_of_start = _unique(h, x, q, label, unique_tolerance)
    states, inputs = h[chosen], x[chosen]
    eigenvalues = _eigenvalues(step, states, inputs)
    is_point = point_of_start >= 0
    order = np.lexsort([-np.bincount(point_of_start[is_point]), _n_unstable(eigenvalues)])
    point_of_start[is_point] = np.argsort(order)[point_of_start[is_point]]
    return FixedPoints(states[order], inputs[order], q[chosen][order], eigenvalues[order], point_of_start, q)


def _check_layer(rnn: Any) -> None:
    if not isinstance(rnn, RNN):
        raise TypeError(f"rnn must be elman.RNN, such as a model's model.rnn, got {check.shown(rnn)}")
    if rnn.num_layers > 1 or rnn.bidirectional:
        given = f"num_layers={rnn.num_layers}, bidirectional={rnn.bidirectional}"
        check.refuse(f"fixed_points needs one layer and one direction, got {given}: use one layer's weights")


def _starts(rnn: RNN, x: Any, start: Any, n: Any, noise: Any, seed: Any) -> tuple[Real, Real]:
    """States (S, H) and their inputs (S, I), which may be a view."""
    n_units, n_inputs = rnn.hidden_size, rnn.input_size
    if check.is_list_of_arrays(start):
        named = ((f"start[{i}]", one) for i, one in enumerate(start))
        start = np.concatenate([check.real_array(one, name, _FLOAT64, ("T", n_units)) for name, one in named])
    start = check.real_array(start, "start", _FLOAT64, ("N", n_units), (n_units,), ("T", "B", n_units))
    x = check.real_array(x, "x", _FLOAT64, (n_inputs,), (*start.shape[:-1], n_inputs))
    check.finite(start, "start")
    check.finite(x, "x")
    n = None if n is None else check.size(n, "n")
    noise, rng = check.non_negative(noise, "noise"), check.generator(seed)
    x = np.broadcast_to(x, (*start.shape[:-1], n_inputs)).reshape(-1, n_inputs)
    start = start.reshape(-1, n_units)
    if n is not None:
        check.addressable(8 * n * max(n_units, n_inputs), n=n, hidden_size=n_units)
        drawn = rng.choice(len(start), n, replace=n > len(start))
        start, x = start[drawn], x[drawn]
    return start + noise * rng.standard_normal(start.shape) if noise else start, x


def _speed(r: Real) -> Real:
    """q of each row."""
    q: Real = np.einsum("nj,nj->n", r, r) / 2
    return q


def _chunks(n: int, n_units: int) -> Iterator[slice]:
    """Of n rows, so many at once that their matrices (H, H) fit in memory."""
    n_rows = max(1, _MEMORY // (_MATRICES * 8 * n_units * n_units))
    return (slice(first, first + n_rows) for first in range(0, n, n_rows))


def _settled(step: TimeStep, start: Real, x: Real, tolerance: float, max_iterations: int) -> Real:
    """Where the starts come to rest; those that have are not looked at any more."""
    h, damping = start.copy(), np.ones(len(start))
    q = _speed(step(h, x) - h)
    moving = np.flatnonzero(np.isfinite(q) & (q > tolerance))
    for _ in range(max_iterations):
        if len(moving) == 0:
            break
        rests = np.zeros(len(moving), bool)
        for part in _chunks(len(moving), h.shape[1]):
            rows = moving[part]
            h[rows], damping[rows], rests[part] = _moved(step, h[rows], x[rows], damping[rows], tolerance)
        moving = moving[~rests]
    return h


def _moved(step: TimeStep, h: Real, x: Real, damping: Real, tolerance: float) -> tuple[Real, Real, Any]:
    """States after a step of Levenberg and Marquardt, where q falls; the damping of the next one; who is at rest."""
    r, jacobian = step(h, x) - h, step.jacobian(h, x)
    q = _speed(r)
    np.einsum("nii->ni", jacobian)[...] -= 1
    gradient, normal = (r[:, None] @ jacobian)[:, 0], jacobian.swapaxes(1, 2) @ jacobian
    diagonal = np.einsum("nii->ni", normal)  # a view
    # The second part is below what rounding does to the normal equations; with it they are never singular
    shift = damping * np.sqrt(2 * q) + np.finfo(float).eps * diagonal.sum(axis=1) + np.finfo(float).tiny
    diagonal += shift[:, None]
    move = -np.linalg.solve(normal, gradient[..., None])[..., 0]
    after = h + move
    q_after = _speed(step(after, x) - after)
    gain = q - q_after
    promised = np.einsum("nj,nj->n", move, shift[:, None] * move - gradient) / 2  # if the step were linear
    damping = np.select([gain > 0.75 * promised, ~(gain > 0.25 * promised)], [damping / 4, damping * 4], damping)
    rests = (q_after <= tolerance) | (np.linalg.norm(move, axis=1) <= _REST * (1 + np.linalg.norm(h, axis=1)))
    return np.where((gain > 0)[:, None], after, h), damping, rests


def _is_far(h: Real, start: Real, scale: float) -> NDArray[np.bool_]:
    """Whether states are outliers, beside the starts. If these are all one, nothing is."""
    center = start.mean(axis=0)
    spread = np.linalg.norm(start - center, axis=1).mean()
    if spread == 0 or scale == np.inf:
        return np.zeros(len(h), bool)
    is_far: NDArray[np.bool_] = np.linalg.norm(h - center, axis=1) > scale * spread
    return is_far


def _unique(h: Real, x: Real, q: Real, label: Int, tolerance: float) -> tuple[Int, Int]:
    """The rows of distinct points, those with the least q, and for all rows which of them they are, or their label."""
    _, under = np.unique(x, axis=0, return_inverse=True)
    under, label = under.ravel(), label.copy()
    chosen: list[Any] = []
    left = np.flatnonzero(label == 0)
    left = left[np.argsort(q[left], kind="stable")]
    while len(left) > 0:
        first = left[0]
        is_same = (np.linalg.norm(h[left] - h[first], axis=1) <= tolerance) & (under[left] == under[first])
        label[left[is_same]] = len(chosen)
        chosen.append(first)
        left = left[~is_same]
    return np.array(chosen, np.int64), label


def _n_unstable(eigenvalues: NDArray[np.complex128]) -> Int:
    count: Int = np.sum(np.abs(eigenvalues) >= 1, axis=1, dtype=np.int64)
    return count


def _eigenvalues(step: TimeStep, h: Real, x: Real) -> NDArray[np.complex128]:
    found = np.empty(h.shape, np.complex128)
    for part in _chunks(*h.shape):
        values = np.linalg.eigvals(step.jacobian(h[part], x[part]))
        found[part] = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1)
    return found


def _counted(n: Any, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
