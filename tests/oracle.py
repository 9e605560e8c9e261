"""The textbook in scalar float64 loops: slow, obvious, and sharing nothing with the package it judges.

Each row of the batch is a sequence of its own, and each number is computed where its equation says so. Indices: ``t``
over time, ``b`` over rows, ``d`` over directions, ``i`` over inputs, ``j`` and ``k`` over hidden units, ``o`` over
outputs. NumPy only holds the arrays. Weights are stored transposed: ``weight_hh[d, k, j]`` leads from k to j.
"""

import math
from collections.abc import Callable

import numpy as np

NAN = math.nan  # what nobody may look at


def _logistic(a: float) -> float:
    return 1 / (1 + math.exp(-a))


# name -> (f(a), f'(a)): derivatives by the pre-activation, unlike the package's, which are functions of the output
ACTIVATIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "tanh": (math.tanh, lambda a: 1 / math.cosh(a) ** 2),
    "relu": (lambda a: a if a > 0 else 0.0, lambda a: 1.0 if a > 0 else 0.0),
    "sigmoid": (_logistic, lambda a: _logistic(a) * _logistic(-a)),
    "identity": (lambda a: a, lambda _: 1.0),
    "softplus": (lambda a: math.log1p(math.exp(a)) if a < 0 else a + math.log1p(math.exp(-a)), _logistic),
    "retanh": (lambda a: math.tanh(a) if a > 0 else 0.0, lambda a: 1 / math.cosh(a) ** 2 if a > 0 else 0.0),
    "power": (lambda a: a * a if a > 0 else 0.0, lambda a: 2 * a if a > 0 else 0.0),
}


def _order(b: int, n_steps: int, lengths, *, backwards: bool) -> list[int]:
    """The time steps of row b, in the order in which a direction visits them."""
    steps = list(range(n_steps if lengths is None else int(lengths[b])))
    return steps[::-1] if backwards else steps


def _one_hot(x, n_inputs: int):
    """Tokens (T, B) as vectors (T, B, I); reals as they are."""
    if x.ndim == 3:
        return x
    vectors = np.zeros((*x.shape, n_inputs))
    for t, b in np.ndindex(x.shape):
        if 0 <= x[t, b] < n_inputs:  # beyond a row's length stands anything
            vectors[t, b, x[t, b]] = 1
    return vectors


def _pre_activation(x_t, h, weight_ih, weight_hh, bias, mask) -> list[float]:
    """a = U x + W (m * h) + b, for one row at one step."""
    n_inputs, n_units = weight_ih.shape
    a = [0.0 if bias is None else float(bias[j]) for j in range(n_units)]
    for j in range(n_units):
        for i in range(n_inputs):
            a[j] += weight_ih[i, j] * x_t[i]
        for k in range(n_units):
            a[j] += weight_hh[k, j] * (1.0 if mask is None else mask[k]) * h[k]
    return a


def forward(x, h_0, weight_ih, weight_hh, bias, *, activation, lengths=None, mask=None, reverse=False):
    """Returns y (T, B, D·H), NaN beyond the lengths, and h_n (D, B, H)."""
    f, _ = ACTIVATIONS[activation]
    n_directions, n_rows, n_units = h_0.shape
    x = _one_hot(x, weight_ih.shape[1])
    y = np.full((len(x), n_rows, n_directions * n_units), NAN)
    h_n = np.full((n_directions, n_rows, n_units), NAN)
    for d in range(n_directions):
        for b in range(n_rows):
            h = [float(value) for value in h_0[d, b]]
            for t in _order(b, len(x), lengths, backwards=reverse or d == 1):
                m = None if mask is None else mask[d, b]
                a = _pre_activation(x[t, b], h, weight_ih[d], weight_hh[d], None if bias is None else bias[d], m)
                h = [f(a_j) for a_j in a]
                y[t, b, d * n_units : (d + 1) * n_units] = h
            h_n[d, b] = h
    return y, h_n


def backward(
    x, h_0, weight_ih, weight_hh, bias, d_y, d_h_n, *, activation, lengths=None, mask=None, reverse=False
) -> dict[str, np.ndarray]:
    """Back-propagation through time, the forward pass done again on the way. d_y and d_h_n may be None for zeros.

    Returns delta, d_h_0, d_x (NaN beyond the lengths) and the parameters' gradients, summed from zero.
    """
    f, df = ACTIVATIONS[activation]
    n_directions, n_rows, n_units = h_0.shape
    n_inputs = weight_ih.shape[1]
    x = _one_hot(x, n_inputs)
    delta = np.full((len(x), n_rows, n_directions * n_units), NAN)
    d_x = np.full(x.shape, NAN)
    d_h_0 = np.zeros(h_0.shape)
    d_weight_ih, d_weight_hh = np.zeros(weight_ih.shape), np.zeros(weight_hh.shape)
    d_bias = np.zeros((n_directions, n_units))
    for b in range(n_rows):
        for t in _order(b, len(x), lengths, backwards=False):
            d_x[t, b] = 0
    for d in range(n_directions):
        for b in range(n_rows):
            m = [1.0] * n_units if mask is None else mask[d, b]
            order = _order(b, len(x), lengths, backwards=reverse or d == 1)

            states, pre_activations = [list(h_0[d, b])], []  # states[s] is the one before the s-th visited step
            for t in order:
                bias_d = None if bias is None else bias[d]
                a = _pre_activation(x[t, b], states[-1], weight_ih[d], weight_hh[d], bias_d, m)
                pre_activations.append(a)
                states.append([f(a_j) for a_j in a])

            d_h = [0.0 if d_h_n is None else float(d_h_n[d, b, j]) for j in range(n_units)]
            for s in reversed(range(len(order))):
                t, h, a = order[s], states[s], pre_activations[s]
                d_a = [0.0] * n_units
                for j in range(n_units):
                    d_output = 0.0 if d_y is None else d_y[t, b, d * n_units + j]
                    d_a[j] = (d_output + d_h[j]) * df(a[j])
                    delta[t, b, d * n_units + j] = d_a[j]
                d_h = [0.0] * n_units
                for j in range(n_units):
                    d_bias[d, j] += d_a[j]
                    for k in range(n_units):
                        d_h[k] += m[k] * weight_hh[d, k, j] * d_a[j]
                        d_weight_hh[d, k, j] += m[k] * h[k] * d_a[j]
                    for i in range(n_inputs):
                        d_x[t, b, i] += weight_ih[d, i, j] * d_a[j]
                        d_weight_ih[d, i, j] += x[t, b, i] * d_a[j]
            d_h_0[d, b] = d_h
    return {
        "delta": delta,
        "d_weight_ih": d_weight_ih,
        "d_weight_hh": d_weight_hh,
        "d_bias": d_bias,
        "d_h_0": d_h_0,
        "d_x": d_x,
    }


def readout(h, weight, bias):
    """o = V h + c at every step; weight (K, O) leads from k to o."""
    n_steps, n_rows, n_units = h.shape
    outputs = np.zeros((n_steps, n_rows, weight.shape[1]))
    for t, b, o in np.ndindex(outputs.shape):
        outputs[t, b, o] = 0.0 if bias is None else bias[o]
        for k in range(n_units):
            outputs[t, b, o] += h[t, b, k] * weight[k, o]
    return outputs


def _cross_entropy(outputs: list[float], target: int) -> tuple[float, list[float]]:
    if target < 0:
        return 0.0, [0.0] * len(outputs)
    total = sum(math.exp(value) for value in outputs)
    p = [math.exp(value) / total for value in outputs]
    return -math.log(p[target]), [p_o - (o == target) for o, p_o in enumerate(p)]


def _binary_cross_entropy(outputs: list[float], target: list[float]) -> tuple[float, list[float]]:
    p = [_logistic(value) for value in outputs]
    losses = [-(goal * math.log(p_o) + (1 - goal) * math.log(1 - p_o)) for goal, p_o in zip(target, p, strict=True)]
    return sum(losses), [p_o - goal for goal, p_o in zip(target, p, strict=True)]


def _squared_error(outputs: list[float], target: list[float]) -> tuple[float, list[float]]:
    errors = [output - goal for goal, output in zip(target, outputs, strict=True)]
    return sum(error**2 for error in errors), [2 * error for error in errors]


def _linear(outputs: list[float], target: list[float]) -> tuple[float, list[float]]:
    return sum(output * slope for slope, output in zip(target, outputs, strict=True)), list(target)


LOSSES = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
    "linear": _linear,
}


def readout_loss(h, weight, bias, target, *, loss, scale, lengths=None, weights=None) -> dict[str, np.ndarray]:
    """The summed loss, and `scale` times its gradients, those by the outputs (o) and h being NaN beyond the lengths."""
    n_steps, n_rows, n_units = h.shape
    n_outputs = weight.shape[1]
    outputs = readout(h, weight, bias)
    total = 0.0
    d_o = np.full((n_steps, n_rows, n_outputs), NAN)
    d_h = np.full(h.shape, NAN)
    d_weight, d_bias = np.zeros(weight.shape), np.zeros(n_outputs)
    for b in range(n_rows):
        for t in _order(b, n_steps, lengths, backwards=False):
            w = 1.0 if weights is None else float(weights[t, b])
            value, gradient = LOSSES[loss](list(outputs[t, b]), target[t, b]) if w else (0.0, [0.0] * n_outputs)
            total += w * value
            d_h[t, b] = 0
            for o in range(n_outputs):
                d_o[t, b, o] = scale * w * gradient[o]
                d_bias[o] += d_o[t, b, o]
                for k in range(n_units):
                    d_h[t, b, k] += weight[k, o] * d_o[t, b, o]
                    d_weight[k, o] += h[t, b, k] * d_o[t, b, o]
    return {"total": np.float64(total), "o": d_o, "d_h": d_h, "d_weight": d_weight, "d_bias": d_bias}


def clip_norm(gradient, *, max_norm):
    """Returns the clipped gradient and the norm before."""
    norm = math.sqrt(sum(g * g for g in gradient))
    return [g * max_norm / norm if norm > max_norm else g for g in gradient], norm


def sgd(parameters, gradient, velocity, *, lr, momentum):
    """Returns parameters and velocity; the latter may be None."""
    if velocity is None:
        return [p - lr * g for p, g in zip(parameters, gradient, strict=True)], None
    velocity = [momentum * v + g for v, g in zip(velocity, gradient, strict=True)]
    return [p - lr * v for p, v in zip(parameters, velocity, strict=True)], velocity


def adagrad(parameters, gradient, square_sum, *, lr, eps):
    """Returns parameters and square_sum."""
    square_sum = [s + g * g for s, g in zip(square_sum, gradient, strict=True)]
    scaled = [g / (math.sqrt(s) + eps) for g, s in zip(gradient, square_sum, strict=True)]
    return [p - lr * g for p, g in zip(parameters, scaled, strict=True)], square_sum


def average(mean, values, _, *, rate):
    """Returns the mean, and nothing that is remembered besides."""
    return [(1 - rate) * m + rate * v for m, v in zip(mean, values, strict=True)], None


def adam(parameters, gradient, mean, square, *, lr, beta1, beta2, eps, weight_decay, step):
    """Returns parameters, mean and square."""
    mean = [beta1 * m + (1 - beta1) * g for m, g in zip(mean, gradient, strict=True)]
    square = [beta2 * s + (1 - beta2) * g * g for s, g in zip(square, gradient, strict=True)]
    updated = []
    for p, m, s in zip(parameters, mean, square, strict=True):
        m_hat, s_hat = m / (1 - beta1**step), s / (1 - beta2**step)
        updated.append(p - lr * weight_decay * p - lr * m_hat / (math.sqrt(s_hat) + eps))
    return updated, mean, square
