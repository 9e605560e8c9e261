"""The kernel contract, in NumPy: one line per equation of Goodfellow, Bengio & Courville, *Deep Learning* (2016), 10.2.

Every backend module exports the functions of this one with the same signatures (tests/kernels/test_contract.py compares
them); this module says what they compute. They take arrays that a public call has already checked (contract.py has
their shapes), write into arrays that the caller owns, and return nothing unless said otherwise.

Weights are k-major (transposed), so ``weight_hh[d, k, j]`` leads from unit k to unit j. ``y[t]`` is the state *after*
step t: with the book's numbering ``h[0] = h_0`` and ``h[t + 1] = y[t]``.

Unequal lengths: row b takes part in the steps ``t < lengths[b]``; what lies beyond is neither read nor written. A
reversed direction runs each row from its own last step to its first. A range of time steps is a slice of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from elman.backends.activations import Activation
from elman.backends.contract import Generation, Gradients, Layer, Readout, Update
from elman.typing import Int, Real


def _sigmoid(a: Real) -> Real:
    e = np.exp(-np.abs(a))  # never overflows
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


Function = Callable[[Real], Real]
Numbers = tuple[float, ...]

takes_activations = True  # a user's own (elman.activation), besides those of the table

# name -> (f(a), f'(a) as a function of y = f(a))
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "relu": (lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(y.dtype)),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "identity": (lambda a: a, np.ones_like),
    "softplus": (lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))), lambda y: -np.expm1(-y)),
    "retanh": (lambda a: np.maximum(np.tanh(a), 0), lambda y: np.where(y > 0, 1 - y * y, 0)),
    "power": (lambda a: np.square(np.maximum(a, 0)), lambda y: 2 * np.sqrt(y)),
}


def _functions_of(activation: str | Activation) -> tuple[Function, Function]:
    return ACTIVATIONS[activation] if isinstance(activation, str) else (activation.apply, activation.derivative)


def _elman_state(f: Real, before: Real, numbers: Numbers) -> tuple[Real, Any]:  # noqa: ARG001
    return f, None


def _elman_delta(d_h: Real, h: Real, df: Function, before: Real, second: Any, numbers: Numbers) -> tuple[Real, Any]:  # noqa: ARG001
    return d_h * df(h), -0.0  # which no sum can tell, be it of -0.0


# name -> (the state, and what else the cell keeps of the step, from f(a) and the state before; the gradient by a, and
# by the state before where it reaches the next one past a, from that by the state)
CELLS: dict[str, tuple[Callable[..., tuple[Real, Any]], Callable[..., tuple[Real, Any]]]] = {
    "elman": (_elman_state, _elman_delta),
}


def _cross_entropy(o: Real, target: Int) -> tuple[Any, Real]:
    z = o - o.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    hit = (np.arange(o.shape[-1]) == target[:, None]).astype(o.dtype)
    counts = (target >= 0)[:, None]  # a negative target marks a step without one
    return -np.where(hit > 0, log_p, 0).sum(axis=-1, dtype=float), np.where(counts, np.exp(log_p) - hit, 0)


def _binary_cross_entropy(o: Real, target: Real) -> tuple[Any, Real]:
    loss = np.maximum(o, 0) - o * target + np.log1p(np.exp(-np.abs(o)))
    return loss.sum(axis=-1, dtype=float), _sigmoid(o) - target


def _squared_error(o: Real, target: Real) -> tuple[Any, Real]:
    return ((o - target) ** 2).sum(axis=-1, dtype=float), 2 * (o - target)


# name -> (the loss of each row, its gradient by o); rows of outputs o (N, O), rows of targets
LOSSES: dict[str, Callable[[Real, Any], tuple[Real, Real]]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
}


def _steps(n_steps: int, h_0: Real, y: Real, lengths: Int | None, backwards: bool) -> Iterator[tuple[int, Int, Real]]:
    """One direction's steps, in the order it runs them: (t, the rows b that take part, their states before the step).

    h_0 (B, H); y (T, B, H), the direction's own columns.
    """
    lengths = np.full(len(h_0), n_steps) if lengths is None else lengths
    for t in range(n_steps - 1, -1, -1) if backwards else range(n_steps):
        rows = np.flatnonzero(t < lengths)
        is_first = t == (lengths[rows] - 1 if backwards else 0)
        before = y[min(t + 1, n_steps - 1) if backwards else max(t - 1, 0), rows]
        yield t, rows, np.where(np.reshape(is_first, (-1, 1)), h_0[rows], before)


def _philox(key: int, *counter: Any) -> Any:
    """Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): for each counter of four words, (..., 4) words of 32 bits."""
    low = (1 << 32) - 1
    key_0, key_1 = key & low, key >> 32
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ key_0, right & low, (left >> 32) ^ d ^ key_1, left & low
        key_0, key_1 = key_0 + 0x9E3779B9 & low, key_1 + 0xBB67AE85 & low
    return np.stack([a, b, c, d], axis=-1)


def _drop(values: Real, p: float, key: int, *, rows: Int, t: int, stream: int) -> Real:
    """What dropout leaves of the units of some rows (rows, H): where a unit's word is large, 1 / (1 - p) times it.

    What is dropped is -0.0, which nothing that is kept is; where nothing is to be dropped, all stays as it is.
    """
    if p == 0:
        return values
    words = _philox(key, np.arange((values.shape[-1] + 3) // 4), rows[:, None], t, stream)
    kept = words.reshape(len(rows), 4 * words.shape[1])[:, : values.shape[-1]] >= round(p * 2**32)
    return np.where(kept, np.where(kept, values, 0) * _factor(values, p) + 0, values.dtype.type(-0.0))


def _factor(values: Real, p: float) -> Any:
    """What is kept is multiplied by it."""
    return values.dtype.type(1 / (1 - p) if p < 1 else 0)


def recurrent_mask(mask: Real, *, p: float, key: int, layer: int = 0) -> None:
    """Write what multiplies the recurrent input in recurrent dropout: mask (D, B, H), for Layer.mask.

    A unit is dropped with probability p, in all steps; what is kept is 1 / (1 - p). 0 <= key < 2**64, and `layer` is
    the layer's number.
    """
    for d in range(len(mask)):
        rows, stream = np.arange(mask.shape[1]), 2 * (2 * layer + d) + 1
        mask[d] = _drop(np.ones_like(mask[d]), p, key, rows=rows, t=0, stream=stream)


def forward(layer: Layer) -> None:
    """Run one layer over a whole sequence, both directions at once (equations 10.8 and 10.9).

    Writes y, h_n (h_0 where the length is zero) and what dropout leaves of y.
    """
    x, h_0, weight_ih, weight_hh, bias, y, h_n, activation, lengths, mask, reverse, cell, numbers, second, *_ = layer
    f, _ = _functions_of(activation)
    state, _ = CELLS[cell]
    n_units = weight_hh.shape[-1]
    for d in range(len(weight_hh)):
        columns = slice(d * n_units, (d + 1) * n_units)
        y_d = y[..., columns]
        if h_n is not None:
            h_n[d] = h_0[d]
        for t, rows, h in _steps(len(x), h_0[d], y_d, lengths, backwards=reverse or d == 1):
            x_t = x[t, rows]
            a = weight_ih[d][x_t] if x.ndim == 2 else x_t @ weight_ih[d]  # a token selects a row: a one-hot product
            a = a + (0 if bias is None else bias[d])
            a = a + (h if mask is None else mask[d, rows] * h) @ weight_hh[d]
            y_d[t, rows], kept = state(f(a), h, numbers)
            if h_n is not None:
                h_n[d, rows] = y_d[t, rows]
            if second is not None:
                second[t, rows, columns] = kept
            if layer.dropped is not None:
                t_drawn, stream = layer.first_step + t, 2 * (2 * layer.layer + d)
                left = _drop(y_d[t, rows], layer.dropout, layer.key, rows=rows, t=t_drawn, stream=stream)
                layer.dropped[t, rows, columns] = left


def backward(layer: Layer, gradients: Gradients) -> None:
    """Back-propagate through time (equations 10.18 to 10.28) from d_y and d_h_n.

    With dropout, d_y is the gradient by what that leaves of y; the units that are -0.0 there are dropped from it.
    y is as `forward` wrote it; h_n is not looked at. Writes delta, the gradient of the pre-activations, d_h_0 and d_x;
    *adds to* d_weight_ih, d_weight_hh and d_bias: steps descending, rows ascending.
    """
    x, h_0, weight_ih, weight_hh, _, y, _, activation, lengths, mask, reverse, cell, numbers, second, *_ = layer
    d_y, d_h_n, delta, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_x, _ = gradients
    (_, df), (_, delta_of) = _functions_of(activation), CELLS[cell]
    n_units = weight_hh.shape[-1]
    if d_x is not None:
        d_x[slice(None) if lengths is None else np.arange(len(x))[:, None] < lengths] = 0
    for d in range(len(weight_hh)):
        columns = slice(d * n_units, (d + 1) * n_units)
        d_h = d_h_0[d]  # what reaches each row's state from the later steps; in the end, its initial state
        d_h[:] = 0 if d_h_n is None else d_h_n[d]
        steps = _steps(len(x), h_0[d], y[..., columns], lengths, backwards=reverse or d == 1)
        for t, rows, h in reversed(list(steps)):
            m: Any = 1 if mask is None else mask[d, rows]
            d_out: Any = 0 if d_y is None else d_y[t, rows, columns]
            if d_y is not None and layer.dropout > 0:
                assert layer.dropped is not None
                left = layer.dropped[t, rows, columns]
                kept = ~((left == 0) & np.signbit(left))
                d_out = np.where(kept, d_out, 0) * _factor(d_out, layer.dropout)
            d_state = d_h[rows] + d_out
            kept = None if second is None else second[t, rows, columns]
            d_a, d_before = delta_of(d_state, y[t, rows, columns], df, h, kept, numbers)
            delta[t, rows, columns] = d_a
            d_h[rows] = m * (d_a @ weight_hh[d].T) + d_before
            d_weight_hh[d] += (m * h).T @ d_a
            if x.ndim == 2:
                np.add.at(d_weight_ih[d], x[t, rows], d_a)
            else:
                d_weight_ih[d] += x[t, rows].T @ d_a
            if d_bias is not None:
                d_bias[d] += d_a.sum(axis=0)
            if d_x is not None:
                d_x[t, rows] += d_a @ weight_ih[d].T


def step(
    x: Real | Int,
    h: Real,
    weight_ih: Real,
    weight_hh: Real,
    bias: Real | None,
    h_next: Real,
    *,
    activation: str | Activation,
) -> None:
    """One time step of one direction: x (B, I) or tokens (B,), h (B, H), weight_ih (I, H), weight_hh (H, H), bias (H,).

    Writes h_next (B, H), which must not overlap h.
    """
    f, _ = _functions_of(activation)
    a = weight_ih[x] if x.ndim == 1 else x @ weight_ih
    h_next[:] = f(a + (0 if bias is None else bias) + h @ weight_hh)


def readout(r: Readout) -> None:
    """Outputs before softmax or sigmoid (equation 10.10); writes o. No more than h, weight, bias and o is looked at."""
    np.matmul(r.h, r.weight, out=r.o)
    if r.bias is not None:
        r.o[...] += r.bias


def readout_loss(r: Readout) -> float:
    """The readout, the sum of its loss over all steps (returned), and `scale` times its gradients.

    Targets are categories for "cross_entropy" (softmax), from 0 to 1 for "binary_cross_entropy" (sigmoid), numbers for
    "squared_error". A step of weight 0 has no target. Without d_h and d_weight only the loss is computed, and o is
    scratch. Otherwise o receives the gradient by the outputs, d_h is written, d_weight and d_bias are *added to* as in
    `backward`.
    """
    h, weight, bias, o, target, loss, scale, lengths, weights, d_h, d_weight, d_bias = r
    assert target is not None
    active = slice(None) if lengths is None else np.arange(len(h))[:, None] < lengths
    rows, targets = h[active].reshape(-1, h.shape[-1]), target[active]
    outputs = rows @ weight + (0 if bias is None else bias)
    targets = targets.reshape(-1, *target.shape[2:])
    w = None if weights is None else weights[active].reshape(-1, 1)
    if w is not None:  # a target that is not looked at may be anything
        targets = np.where(w.reshape(-1, *[1] * (targets.ndim - 1)) == 0, 0, targets)
    losses, d_o = LOSSES[loss](outputs, targets)
    if w is not None:
        losses, d_o = np.where(w == 0, 0, losses[:, None]) * w, np.where(w == 0, 0, d_o) * w
    if d_h is not None and d_weight is not None:
        d_o = (d_o * scale).astype(o.dtype, copy=False)
        o[active] = d_o.reshape(o[active].shape)
        d_h[active] = (d_o @ weight.T).reshape(h[active].shape)
        d_weight += rows.T @ d_o
        if d_bias is not None:
            d_bias += d_o.sum(axis=0)
    return float(losses.sum(dtype=float))


def _draw_category(o: Real, uniform: Real, g: Generation) -> int:
    """From the softmax of o (O,) / temperature, cut to its likeliest."""
    with np.errstate(over="ignore"):  # a tiny temperature leaves nothing of what is less likely
        p = np.exp(np.subtract(o, o.max(), dtype=np.float64) / g.temperature)
    by_likeliness = np.argsort(-p, kind="stable")
    if g.top_k is not None:
        p[by_likeliness[g.top_k :]] = 0
    if g.top_p is not None:
        mass = p[by_likeliness].cumsum()
        p[by_likeliness[1 + int(mass.searchsorted(g.top_p * mass[-1])) :]] = 0
    cumulative = p.cumsum()
    drawn = int(cumulative.searchsorted(uniform[0] * cumulative[-1], side="right"))
    return min(drawn, int(np.flatnonzero(p)[-1]))  # rounding may make of a share all there is


def _draw_labels(o: Real, uniform: Real, g: Generation) -> Real:
    with np.errstate(over="ignore"):
        return np.asarray(uniform < _sigmoid(o.astype(np.float64) / g.temperature), o.dtype)


# loss -> (the likeliest of outputs o (O,), what is drawn from them with uniform numbers)
DRAWS: dict[str, tuple[Callable[[Real], Any], Callable[[Real, Real, Generation], Any]]] = {
    "cross_entropy": (lambda o: int(o.argmax()), _draw_category),
    "binary_cross_entropy": (lambda o: np.asarray(o > 0, o.dtype), _draw_labels),
    "squared_error": (lambda o: o, lambda o, *_: o),
}


def generate(g: Generation) -> int:
    """Run all layers and the readout, draw from its outputs and feed that to the first layer, again and again.

    Returns how many outputs came before the `end`, or before outputs whose largest is not finite: those are in
    `readout.o` then. The layers' y are left as the last step's states; x, which is written, ends with what is drawn:
    the token, or in its last O columns the numbers, or a 1 for the category.
    """
    layers, o, x = g.layers, g.readout.o[0, 0], g.layers[0].x
    likeliest, draw = DRAWS[g.readout.loss]
    for i in range(len(g.drawn)):
        for layer in layers:
            forward(layer)
        layers = [layer._replace(h_0=layer.y.copy()) for layer in layers]
        readout(g.readout)
        if not np.isfinite(o.max()):
            return i
        item = likeliest(o) if g.uniforms is None else draw(o, g.uniforms[i], g)
        g.drawn[i] = item
        if x.ndim == 2:
            x[...] = item
        else:
            x[...] = 0
            x[..., -len(o) :] = np.arange(len(o)) == item if isinstance(item, int) else item
        if g.end is not None and item == g.end:
            return i
    return len(g.drawn)


def clip_norm(gradient: Real, *, max_norm: float) -> float:
    """Scale gradient (n,) so that its Euclidean norm is at most max_norm; returns the norm it had.

    A norm that is not finite is returned and the gradient left as it is. Pascanu et al. (2013), algorithm 1.
    """
    norm = float(np.sqrt(np.square(gradient, dtype=np.float64).sum()))
    if max_norm < norm < np.inf:
        gradient *= max_norm / norm
    return norm


def update(u: Update) -> None:
    """Change parameters, and what the rule remembers, by one step along the gradient."""
    UPDATES[u.rule](u.parameters, u.gradient, u.memories, *u.numbers)


def _sgd(parameters: Real, gradient: Real, memories: Sequence[Real], lr: float, momentum: float) -> None:
    """Gradient descent, with classical momentum where there is a velocity."""
    for velocity in memories:
        velocity *= momentum
        velocity += gradient
        gradient = velocity
    parameters -= lr * gradient


def _adagrad(parameters: Real, gradient: Real, memories: Sequence[Real], lr: float, eps: float) -> None:
    """Duchi, Hazan & Singer (2011), with diagonal matrices."""
    (square_sum,) = memories
    square_sum += gradient * gradient
    parameters -= lr * gradient / (np.sqrt(square_sum) + eps)


def _adam(
    parameters: Real,
    gradient: Real,
    memories: Sequence[Real],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: float,
) -> None:
    """Kingma & Ba (2015), algorithm 1, with decoupled weight decay (Loshchilov & Hutter 2019). step counts from 1."""
    mean, square = memories
    mean *= beta1
    mean += (1 - beta1) * gradient
    square *= beta2
    square += (1 - beta2) * gradient * gradient
    parameters *= 1 - lr * weight_decay
    parameters -= lr / (1 - beta1**step) * mean / (np.sqrt(square / (1 - beta2**step)) + eps)


# name -> (parameters, gradient, memories, *numbers)
UPDATES: dict[str, Callable[..., None]] = {"sgd": _sgd, "adagrad": _adagrad, "adam": _adam}
