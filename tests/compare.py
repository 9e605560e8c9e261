"""How far a kernel may be from the truth, and comparisons that raise AssertionError where it is further.

The truth is the NumPy reference in float64 on the very same inputs. In float64 a kernel agrees with it to 1e-12 of the
largest entry. In float32 the bounds follow from how roundings add up. They are in u, the unit roundoff (half of eps),
and rest on roundings being as good as independent with mean 0, so that n of them add up like √n (Higham & Mary 2019):

- A chain of K multiply-adds errs by λ √K u Σ|terms| (theorem 2.4; surely by K u Σ|terms|).
- Errors e[k] of the states enter the next pre-activation j as Σ_k mask[k] weight_hh[k, j] e[k], and f' <= s, 1 but for
  "power": a step multiplies them by g = s · max mask · max_j √Σ_k weight_hh[k, j]² at most, and those of T steps add up
  to √(1 + g² + ... + g^(2T-2)) times that of one. Likewise those of delta, backwards in time.
- N terms with such an error each add λ √N of it to their sum.
"""

from types import ModuleType

import numpy as np

from elman.backends import reference

from .cases import Problem, Readout, bits

LAMBDA = 4
ELEMENTARY = 6  # error of f, f' and the losses' terms, relative to their scale: 2 ULP are up to 4 u, NumPy takes 3 ULP

Arrays = dict[str, np.ndarray]
Bounds = dict[str, float]


def assert_close(got: Arrays, expected: Arrays, bounds: Bounds | None = None) -> None:
    """Equal names, shapes and places of NaN; differences within the bounds, by default 1e-12 of the largest entry."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        bound = 1e-12 * _largest(value) if bounds is None else bounds[name]
        assert got[name].shape == value.shape, name
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, equal_nan=True, err_msg=name)


def assert_same_bits(got: Arrays, expected: Arrays) -> None:
    """Equal to the last bit, the sign of zero and the pattern of NaN included."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(bits(got[name]), bits(value), err_msg=name)


def check_forward(backend: ModuleType, p: Problem) -> None:
    exact = p.astype("float64").forward(reference)
    assert_close(p.forward(backend), exact, _in_u(forward_bounds(p, exact), p.dtype))


def check_backward(backend: ModuleType, p: Problem) -> None:
    y = p.forward(reference)["y"]
    exact = p.astype("float64").backward(reference, y.astype("float64"))
    assert_close(p.backward(backend, y), exact, _in_u(backward_bounds(p, y, exact), p.dtype))


def check_readout(backend: ModuleType, r: Readout) -> None:
    exact = {"o": r.astype("float64").outputs(reference)}
    assert_close({"o": r.outputs(backend)}, exact, _in_u({"o": _output_error(r)}, r.dtype))


def check_readout_loss(backend: ModuleType, r: Readout) -> None:
    exact = r.astype("float64").run(reference)
    bounds = _in_u(readout_bounds(r, exact), r.dtype)
    assert_close(r.run(backend), exact, bounds)
    assert_close({"total": np.array(r.loss_only(backend))}, {"total": exact["total"]}, bounds)


def forward_bounds(p: Problem, exact: Arrays) -> Bounds:
    n_inputs, n_units = p.weight_ih.shape[1:]
    y = max(_largest(exact["y"]), _largest(p.h_0))
    driven = _largest(p.weight_ih) if p.x.ndim == 2 else max(_largest(np.abs(p.x) @ np.abs(w)) for w in p.weight_ih)
    magnitude = driven + _largest(p.bias) + _mask(p) * y * _abs_sum(p.weight_hh, axis=-2)
    slope = _steepest(p, exact["y"])
    one_step = slope * _chain(n_inputs + n_units + 1, magnitude) + ELEMENTARY * y
    bound = one_step * _growth(p, len(p.x), slope, axis=-2)
    dropped = {"dropped": (bound + y) * _kept(p)} if p.drawing else {}
    return dict.fromkeys(("y", "h_n"), bound) | dropped


def backward_bounds(p: Problem, y: np.ndarray, exact: Arrays) -> Bounds:
    n_directions, n_rows, n_units = p.h_0.shape
    delta = _largest(exact["delta"])
    d_state = _largest(p.d_y) * _kept(p) + _largest(p.d_h_n) + _mask(p) * delta * _abs_sum(p.weight_hh, axis=-1)
    slope = _steepest(p, y)
    one_step = slope * (_chain(n_units + 1, d_state) + ELEMENTARY * d_state)
    error = one_step * _growth(p, len(p.x) + 1, slope, axis=-1)  # of delta and of d_h_0, which is one product further

    sum_of_delta = _largest(np.nansum(np.abs(exact["delta"]), axis=(0, 1)))

    def gradient(name: str, factor: float) -> float:
        """Of the sum over steps and rows of delta times something no larger than the factor."""
        n_terms = len(p.x) * n_rows
        return _chain(n_terms, _largest(p.sums.get(name)) + factor * (sum_of_delta + error))

    weights, spread = _abs_sum(p.weight_ih, axis=(0, -1)), _root_square_sum(p.weight_ih, axis=(0, -1))
    return {
        "delta": error,
        "d_h_0": error,
        "d_weight_ih": gradient("d_weight_ih", 1 if p.x.ndim == 2 else _largest(p.x)),
        "d_weight_hh": gradient("d_weight_hh", _mask(p) * max(_largest(y), _largest(p.h_0))),
        "d_bias": gradient("d_bias", 1),
        "d_x": _chain(n_directions * n_units, weights * delta) + spread * error,
    }


def readout_bounds(r: Readout, exact: Arrays) -> Bounds:
    """By the outputs' own error: the losses' gradients have slopes of at most 2, the losses those of the gradient."""
    n_steps, n_rows, _ = r.h.shape
    n_outputs = r.weight.shape[1]
    n_terms = n_steps * n_rows * (1 if r.loss == "cross_entropy" else n_outputs)
    scale = 1 + _largest(r.bias) + _largest(r.h) * _abs_sum(r.weight, axis=0)  # of an output, a target, a loss's term
    slope = max(1, _largest(exact["o"]) / r.scale)
    d_o = r.scale * (2 * _output_error(r) + ELEMENTARY * scale)
    sum_of_d_o = _largest(np.nansum(np.abs(exact["o"]), axis=(0, 1)))

    def gradient(name: str, factor: float) -> float:
        return _chain(n_steps * n_rows, _largest(r.sums.get(name)) + factor * (sum_of_d_o + d_o))

    weights = _abs_sum(r.weight, axis=1)
    return {
        "total": n_terms * slope * (_output_error(r) + ELEMENTARY * scale),
        "o": d_o,
        "d_h": _chain(n_outputs, weights * _largest(exact["o"])) + weights * d_o,
        "d_weight": gradient("d_weight", _largest(r.h)),
        "d_bias": gradient("d_bias", 1),
    }


def _output_error(r: Readout) -> float:
    return _chain(len(r.weight) + 1, _largest(np.abs(r.h) @ np.abs(r.weight)) + _largest(r.bias))


def _in_u(bounds: Bounds, dtype: np.dtype) -> Bounds | None:
    """The bounds in float32, the default ones in float64."""
    u = float(np.finfo(dtype).eps) / 2
    return {name: bound * u for name, bound in bounds.items()} if dtype == "float32" else None


def _largest(array: np.ndarray | None) -> float:
    """The largest magnitude; NaN, what nobody may look at, left aside."""
    magnitudes = np.zeros(1) if array is None else np.abs(array)
    return float(magnitudes[~np.isnan(magnitudes)].max(initial=0.0))


def _abs_sum(weight: np.ndarray, axis: int | tuple[int, ...]) -> float:
    return float(np.abs(weight).sum(axis=axis).max())


def _root_square_sum(weight: np.ndarray, axis: int | tuple[int, ...]) -> float:
    return float(np.square(weight, dtype=float).sum(axis=axis).max()) ** 0.5


def _chain(n_terms: int, magnitude: float) -> float:
    return LAMBDA * n_terms**0.5 * magnitude


def _mask(p: Problem) -> float:
    return 1 if p.mask is None else _largest(p.mask)


def _kept(p: Problem) -> float:
    """What dropout multiplies with; the products are rounded."""
    dropout = p.drawing.get("dropout", 0)
    return 2 / (1 - dropout) if 0 < dropout < 1 else 1


def _steepest(p: Problem, y: np.ndarray) -> float:
    return max(1.0, 2 * _largest(y) ** 0.5) if p.activation == "power" else 1.0


def _growth(p: Problem, n_steps: int, slope: float, axis: int) -> float:
    gain = slope * _mask(p) * _root_square_sum(p.weight_hh, axis)
    return sum(gain ** (2 * t) for t in range(n_steps)) ** 0.5
