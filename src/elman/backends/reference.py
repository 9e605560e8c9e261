"""The kernel contract, in NumPy: one line per equation of Goodfellow, Bengio & Courville, *Deep Learning* (2016), 10.2.

Every backend module exports the functions of this one with the same signatures (tests/kernels/test_contract.py compares
them); this module says what they compute. They take arrays that a public call has already checked (contract.py has
their shapes), write into arrays that the caller owns, and return nothing unless said otherwise.

Weights are k-major (transposed), so ``weight_hh[d, k, j]`` leads from unit k to unit j. ``y[t]`` is the state *after*
step t: with the book's numbering ``h[0] = h_0`` and ``h[t + 1] = y[t]``.

Unequal lengths: row b takes part in the steps ``t < lengths[b]``; what lies beyond is neither read nor written. A
reversed direction runs each row from its own last step to its first. A range of time steps is a slice of the arrays.
Where ``resets[t, b]`` is true, row b's state before step t is ``h_reset[b]``, as if a sequence began there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from elman.backends.activations import Activation
from elman.backends.contract import Generation, Gradients, Layer, Readout, Update
from elman.typing import Int, Real


def _sigmoid(a: Real) -> Real:
    e = np.exp(-np.abs(a))  # never overflows
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


Function = Callable[[Real], Real]

takes_activations = True  # a user's own (elman.activation), besides those of the table

# name -> (f(a), f'(a) as a function of y = f(a))
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "relu": (lambda a: np.maximum(a, 0), lambda y: (~(y <= 0)).astype(y.dtype)),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "identity": (lambda a: a, np.ones_like),
    "softplus": (lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))), lambda y: -np.expm1(-y)),
    "retanh": (lambda a: np.maximum(np.tanh(a), 0), lambda y: np.where(y <= 0, 0, 1 - y * y)),
    "power": (lambda a: np.square(np.maximum(a, 0)), lambda y: 2 * np.sqrt(y)),
}


def _functions_of(activation: str | Activation) -> tuple[Function, Function]:
    return ACTIVATIONS[activation] if isinstance(activation, str) else (activation.apply, activation.derivative)


def _gradient_of(activation: str | Activation) -> Callable[[Any, Real], Real]:
    """d f'(a) of d and y = f(a). Where a rectified unit is at 0, nothing goes back, be d infinite."""
    _, df = _functions_of(activation)
    if activation in ("relu", "retanh", "power"):
        return lambda d, y: np.where(y <= 0, 0, d) * df(y)
    return lambda d, y: d * df(y)


class Step(NamedTuple):
    """What a cell knows of a step besides a, for some rows: (rows, H), and its own numbers (H,)."""

    before: Real  # the state before
    numbers: Any
    y: Any = None  # backward, what it has put out
    second: Any = None  # and what it has kept


class Cell(NamedTuple):
    """A cell's output y, which the product with weight_hh reads, and its state, which goes from step to step.

    They are one but where `state_is_second`: what the cell keeps of a step besides y is its state then, and y is f of
    it.
    """

    output: Callable[[Real, Function, Step], tuple[Real, Any]]  # from a, with f: y, and what it keeps
    # From the gradients by y and, past y, by the state, with that of f: those by a, by the state before where it
    # reaches the state past a, and by the numbers
    delta: Callable[[Any, Real, Callable[[Any, Real], Real], Step], tuple[Real, Any, Any]]
    state_is_second: bool = False


def _elman_output(a: Real, f: Function, _: Step) -> tuple[Real, Any]:
    return f(a), None


def _elman_delta(d_y: Real, d_h: Real, df: Any, s: Step) -> tuple[Real, Any, Any]:
    return df(d_h + d_y, s.y), -0.0, None  # -0.0 is what no sum can tell, be it of -0.0


def _rate_output(a: Real, f: Function, s: Step) -> tuple[Real, Any]:
    """Yang et al. (2019), equation 7; the number is the leak."""
    rate = f(a)
    return (1 - s.numbers) * s.before + s.numbers * rate, rate


def _rate_delta(d_y: Real, d_h: Real, df: Any, s: Step) -> tuple[Real, Any, Any]:
    d_h = d_h + d_y
    return s.numbers * df(d_h, s.second), (1 - s.numbers) * d_h, d_h * (s.second - s.before)


def _potential_output(a: Real, f: Function, s: Step) -> tuple[Real, Any]:
    """Song et al. (2016), equation 1; the number is the leak."""
    v = (1 - s.numbers) * s.before + s.numbers * a
    return f(v), v


def _potential_delta(d_y: Real, d_v: Real, df: Any, s: Step) -> tuple[Real, Any, Any]:
    d_v = d_v + df(d_y, s.y)
    return s.numbers * d_v, (1 - s.numbers) * d_v, d_v * ((s.second - s.before) / s.numbers)


CELLS: dict[str, Cell] = {
    "elman": Cell(_elman_output, _elman_delta),
    "rate": Cell(_rate_output, _rate_delta),
    "potential": Cell(_potential_output, _potential_delta, state_is_second=True),
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


def _linear(o: Real, target: Real) -> tuple[Any, Real]:
    """Of which the gradient is the target: that of a loss that no kernel knows is taken back by this one."""
    return (o * target).sum(axis=-1, dtype=float), target


# name -> (the loss of each row, its gradient by o); rows of outputs o (N, O), rows of targets
LOSSES: dict[str, Callable[[Real, Any], tuple[Real, Real]]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
    "linear": _linear,
}


def _columns_of(layer: Layer, d: int) -> tuple[slice, Real]:
    """A direction's columns of y, and what goes from step to step in them: its states, (T, B, H)."""
    n_units = layer.weight_hh.shape[-1]
    columns = slice(d * n_units, (d + 1) * n_units)
    if CELLS[layer.cell].state_is_second:
        assert layer.second is not None
        return columns, layer.second[..., columns]
    return columns, layer.y[..., columns]


def _outputs_of(layer: Layer, states: Real) -> Real:
    """(B, H): what the product with weight_hh reads of states that no step has left."""
    f, _ = _functions_of(layer.activation)
    return f(states) if CELLS[layer.cell].state_is_second else states


def _steps(layer: Layer, d: int) -> Iterator[tuple[int, Int, Real, Real]]:
    """One direction's steps, in the order it runs them.

    (t, the rows b that take part, what they put out before the step, their states before it)
    """
    n_steps, n_rows, backwards = len(layer.x), len(layer.h_0[d]), layer.reverse or d == 1
    lengths = np.full(n_rows, n_steps) if layer.lengths is None else layer.lengths
    (columns, states), start = _columns_of(layer, d), _outputs_of(layer, layer.h_0[d])
    for t in range(n_steps - 1, -1, -1) if backwards else range(n_steps):
        rows = np.flatnonzero(t < lengths)
        is_first = np.reshape(t == (lengths[rows] - 1 if backwards else 0), (-1, 1))
        before = min(t + 1, n_steps - 1) if backwards else max(t - 1, 0)
        outputs = np.where(is_first, start[rows], layer.y[before, rows, columns])
        own_states = np.where(is_first, layer.h_0[d, rows], states[before, rows])
        if layer.resets is not None and layer.h_reset is not None:
            is_reset, h_reset = layer.resets[t, rows, None], layer.h_reset[d, rows]
            outputs = np.where(is_reset, _outputs_of(layer, h_reset), outputs)
            own_states = np.where(is_reset, h_reset, own_states)
        yield t, rows, outputs, own_states


def _philox(key: Any, *counter: Any) -> Any:
    """Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): for each counter of four words, (..., 4) words of 32 bits."""
    low = np.uint64((1 << 32) - 1)
    key = np.atleast_1d(np.asarray(key, np.uint64))
    key_0, key_1 = key & low, key >> np.uint64(32)
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


# Of the highest power first: -2 log(1 + t) / t; and of the quarter turns g that an angle is from the nearest one, the
# sine / g and the cosine, by g². Minimax: relative errors of 2·10⁻⁷, 3·10⁻⁹ and 3·10⁻⁸
_MINUS_TWO_LOG = (
    *(0.2021379664, -0.3244516081, 0.3450165783, -0.3980033107, 0.4993981827),
    *(-0.6667011788, 1.000007302, -1.999999891),
)
_SINE = -0.004601657891, 0.07968003277, -0.6459634602, 1.570796322
_COSINE = -0.0203985818, 0.2535949467, -1.233696662, 0.9999999674


def _horner(x: Any, coefficients: tuple[float, ...]) -> Any:
    y = np.float32(coefficients[0])
    for c in coefficients[1:]:
        y = y * x + np.float32(c)
    return y


def _radius(words: Any) -> Any:
    """The root of -2 log u, u = word / 2^32 rounded to a float above 0, by 2^e (1 + t) with √½ <= 1 + t < √2."""
    root_of_half = np.int32(0x3F3504F3)  # as bits
    u = (words >> np.uint32(1) | np.uint32(1)).astype(np.float32) * np.float32(2**-31)
    over = u.view(np.int32) - root_of_half
    e = (over >> np.int32(23)).astype(np.float32)
    t = ((over & np.int32(0x7FFFFF)) + root_of_half).view(np.float32) - np.float32(1)
    return np.sqrt(t * _horner(t, _MINUS_TWO_LOG) - e * np.float32(1.386294361))


def _cosine_and_sine(words: Any) -> tuple[Any, Any]:
    """Of word / 2^32 turns."""
    quarter = (words + np.uint32(1 << 29)) >> np.uint32(30)
    g = (words - (quarter << np.uint32(30))).view(np.int32).astype(np.float32) * np.float32(2**-30)
    s, c = g * _horner(g * g, _SINE), _horner(g * g, _COSINE)
    first, second = np.where(quarter % 2, s, c), np.where(quarter % 2, c, s)
    return np.where((quarter + np.uint32(1)) & np.uint32(2), -first, first), np.where(quarter >= 2, -second, second)


def _normals(n: int, keys: Any, t: int, stream: int) -> Any:
    """Standard normals of n units of some rows, (rows, n): float32, whatever the dtype of what they are added to.

    Unit u has word u % 32 // 8 of the counter (8 (u // 32) + u % 8, 2^32 - 1, t, stream) with the row's key. The first
    and third word of a counter are radii, the others angles (Box & Muller 1958).
    """
    n_blocks = -(-n // 32)
    words = _philox(keys.view(np.uint64)[:, None], np.arange(8 * n_blocks), (1 << 32) - 1, t, stream).astype(np.uint32)
    (cosine, sine), r = _cosine_and_sine(words[..., 1::2]), _radius(words[..., ::2])
    normals = np.stack([r * cosine, r * sine], axis=-1).reshape(len(keys), n_blocks, 8, 4)
    return normals.swapaxes(2, 3).reshape(len(keys), 32 * n_blocks)[:, :n]


def normals(out: Real, keys: Int, *, stream: int, first_step: int = 0) -> None:
    """Write the standard normals that noise is made of: out (T, B, N), those of units 0 to N - 1.

    keys: int64 (B,), whose 64 bits are a key each. The streams of layer k's direction d are 4 k + 2 d.
    """
    for t in range(len(out)):
        out[t] = _normals(out.shape[-1], keys, first_step + t, stream)


def recurrent_mask(mask: Real, *, p: float, key: int, layer: int = 0) -> None:
    """Write what multiplies the recurrent input in recurrent dropout: mask (D, B, H), for Layer.mask.

    A unit is dropped with probability p, in all steps; what is kept is 1 / (1 - p). 0 <= key < 2**64, and `layer` is
    the layer's number.
    """
    for d in range(len(mask)):
        rows, stream = np.arange(mask.shape[1]), 2 * (2 * layer + d) + 1
        mask[d] = _drop(np.ones_like(mask[d]), p, key, rows=rows, t=0, stream=stream)


def _noise(layer: Layer, d: int, t: int, rows: Int) -> Any:
    """The standard normals of a step."""
    assert layer.keys is not None
    return _normals(layer.h_0.shape[-1], layer.keys[rows], layer.first_step + t, 4 * layer.layer + 2 * d)


def forward(layer: Layer) -> None:
    """Run one layer over a whole sequence, both directions at once (equations 10.8 and 10.9).

    Writes y, h_n (h_0 where the length is zero), `second`, what the cell keeps, and what dropout leaves of y.
    """
    x, h_0, weight_ih, weight_hh, bias, y, h_n, activation, _, mask, *_ = layer
    (f, _), cell = _functions_of(activation), CELLS[layer.cell]
    for d in range(len(weight_hh)):
        (columns, states), numbers = _columns_of(layer, d), None if layer.numbers is None else layer.numbers[d]
        if h_n is not None:
            h_n[d] = h_0[d]
        for t, rows, h, before in _steps(layer, d):
            x_t = x[t, rows]
            a = weight_ih[d][x_t] if x.ndim == 2 else x_t @ weight_ih[d]  # a token selects a row: a one-hot product
            a = a + (0 if bias is None else bias[d])
            if layer.noise is not None:
                a = a + layer.noise[d] * _noise(layer, d, t, rows)
            a = a + (h if mask is None else mask[d, rows] * h) @ weight_hh[d]
            y[t, rows, columns], kept = cell.output(a, f, Step(before, numbers))
            if layer.second is not None:
                layer.second[t, rows, columns] = kept
            if h_n is not None:
                h_n[d, rows] = states[t, rows]
            if layer.dropped is not None:
                t_drawn, stream = layer.first_step + t, 2 * (2 * layer.layer + d)
                left = _drop(y[t, rows, columns], layer.dropout, layer.key, rows=rows, t=t_drawn, stream=stream)
                layer.dropped[t, rows, columns] = left


def backward(layer: Layer, gradients: Gradients) -> None:
    """Back-propagate through time (equations 10.18 to 10.28) from d_y and d_h_n.

    With dropout, d_y is the gradient by what that leaves of y; the units that are -0.0 there are dropped from it.
    y and `second` are as `forward` wrote them; h_n is not looked at. Writes delta, the gradient of the pre-activations,
    d_h_0 and d_x; *adds to* d_weight_ih, d_weight_hh and d_bias, as far as they are wanted: steps descending, rows
    ascending; and, for each row by itself, to d_numbers, by the cell's numbers, d_noise, by what multiplies the
    normals, which are drawn again, and d_h_reset, which has what d_h_0 would have if sequences began at the resets.
    `carry` is scratch of other backends.
    """
    x, _, weight_ih, weight_hh, _, y, _, activation, lengths, mask, *_ = layer
    d_y, d_h_n, delta, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_x, *_ = gradients
    df, cell = _gradient_of(activation), CELLS[layer.cell]
    if d_x is not None:
        d_x[slice(None) if lengths is None else np.arange(len(x))[:, None] < lengths] = 0
    for d in range(len(weight_hh)):
        (columns, _), numbers = _columns_of(layer, d), None if layer.numbers is None else layer.numbers[d]
        # What reaches each row's output from the later steps by the product, and its state past that
        d_h, d_state = np.zeros_like(d_h_0[d]), d_h_0[d]
        d_state[:] = 0 if d_h_n is None else d_h_n[d]
        for t, rows, h, before in reversed(list(_steps(layer, d))):
            m: Any = 1 if mask is None else mask[d, rows]
            d_out: Any = 0 if d_y is None else d_y[t, rows, columns]
            if d_y is not None and layer.dropout > 0:
                assert layer.dropped is not None
                left = layer.dropped[t, rows, columns]
                kept = ~((left == 0) & np.signbit(left))
                d_out = np.where(kept, d_out, 0) * _factor(d_out, layer.dropout)
            kept = None if layer.second is None else layer.second[t, rows, columns]
            own = Step(before, numbers, y[t, rows, columns], kept)
            d_a, d_state[rows], d_numbers = cell.delta(d_h[rows] + d_out, d_state[rows], df, own)
            delta[t, rows, columns] = d_a
            d_h[rows] = m * (d_a @ weight_hh[d].T)
            if gradients.d_numbers is not None:
                gradients.d_numbers[d, rows] += d_numbers
            if gradients.d_noise is not None:
                gradients.d_noise[d, rows] += d_a * _noise(layer, d, t, rows)
            if d_weight_hh is not None:
                d_weight_hh[d] += (m * h).T @ d_a
            if d_weight_ih is not None and x.ndim == 2:
                np.add.at(d_weight_ih[d], x[t, rows], d_a)
            elif d_weight_ih is not None:
                d_weight_ih[d] += x[t, rows].T @ d_a
            if d_bias is not None:
                d_bias[d] += d_a.sum(axis=0)
            if d_x is not None:
                d_x[t, rows] += d_a @ weight_ih[d].T
            if layer.resets is not None and layer.h_reset is not None:  # nothing goes back from here
                resets = rows[layer.resets[t, rows]]
                if gradients.d_h_reset is not None:
                    d_before = d_state + _by_states(layer, d_h, layer.h_reset[d])
                    gradients.d_h_reset[d, resets] += d_before[resets]
                d_h[resets] = d_state[resets] = 0
        begins = slice(None) if layer.resets is None else ~layer.resets[0]
        d_state[begins] += _by_states(layer, d_h[begins], layer.h_0[d][begins])


def _by_states(layer: Layer, d_outputs: Real, states: Real) -> Real:
    """From the gradient by `_outputs_of` states that by the states."""
    if not CELLS[layer.cell].state_is_second:
        return d_outputs
    return np.asarray(_gradient_of(layer.activation)(d_outputs, _outputs_of(layer, states)))


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
    "squared_error", and for "linear" the gradient by o. A step of weight 0 has no target. Without d_h, d_weight and
    d_bias only the loss is computed, and o is scratch. Otherwise o receives the gradient by the outputs, and of the
    three, what is there: d_h is written, d_weight and d_bias are *added to* as in `backward`.
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
    if any(one is not None for one in (d_h, d_weight, d_bias)):
        d_o = (d_o * scale).astype(o.dtype, copy=False)
        o[active] = d_o.reshape(o[active].shape)
        if d_h is not None:
            d_h[active] = (d_o @ weight.T).reshape(h[active].shape)
        if d_weight is not None:
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


_LEAST = 1e-6  # of what is positive: that of data/losses.py, which reads units in the same way


def _number(units: Real, g: Generation) -> Real:
    """What is predicted, of units (n, k)."""
    if g.law == "quantiles":
        return np.sort(units, axis=1)[:, g.rank]
    return _LEAST + np.logaddexp(0, units[:, 0]) if g.law == "counts" else units[:, 0]


def _draw_numbers(units: Real, uniforms: Real, g: Generation) -> Real:
    """From the normal distribution (Box & Muller, 1958), or Student's (Bailey, 1994, equation 3)."""
    if g.law not in ("normal", "student_t"):
        return _number(units, g)
    radius = -2 * np.log1p(-uniforms[0::2])  # its square
    if g.law == "student_t":
        df = 2 + _LEAST + np.logaddexp(0, units[:, 2])
        radius = df * np.expm1(radius / df)
    scale = _LEAST + np.logaddexp(0, units[:, 1])
    return np.asarray(units[:, 0] + scale * np.sqrt(radius) * np.cos(2 * np.pi * uniforms[1::2]))


def _item(o: Real, uniforms: Real | None, g: Generation) -> Any:
    """What comes of a row's outputs (O,): a category, or n labels or numbers."""
    if g.readout.loss == "cross_entropy":
        return int(o.argmax()) if uniforms is None else _draw_category(o, uniforms, g)
    if g.readout.loss == "binary_cross_entropy":
        return np.asarray(o > 0, o.dtype) if uniforms is None else _draw_labels(o, uniforms, g)
    units = o.reshape(g.drawn.shape[2], -1).astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(_number(units, g) if uniforms is None else _draw_numbers(units, uniforms, g), o.dtype)


def _feed(item: Any, i: int, b: int, g: Generation) -> None:
    """Make of what was drawn at step i row b's next input."""
    x = g.layers[0].x[0]
    if x.ndim == 1:
        x[b] = item
        return
    fed = np.arange(g.readout.o.shape[2]) == item if isinstance(item, int) else item
    if g.affine is not None:
        fed = fed * g.affine[0] + g.affine[1]
    beside = np.zeros(x.shape[1] - len(fed)) if g.beside is None else g.beside[i, b]
    x[b] = np.concatenate([beside, fed] if g.beside is None else [fed, beside])


def generate(g: Generation) -> Int:
    """Run all layers and the readout, draw from its outputs and feed that to the first layer, again and again.

    Returns how many outputs each row has (B,) before the `end`, or before outputs or numbers that are not finite, of
    categories and labels the largest output; those are in `readout.o` then. The layers' y are left as the last step's
    states of each row; x, which is written, ends with what is drawn: the token, or the numbers, or a 1 for the
    category, beside what there is beside it.
    """
    layers, o = g.layers, g.readout.o[0]
    going, done = np.ones(len(o), np.int64), np.zeros(len(o), np.int64)
    for i in range(len(g.drawn)):
        for layer in layers:
            forward(layer)
        readout(g.readout)
        for b in np.flatnonzero(going):
            if g.outputs is not None:
                g.outputs[i, b] = o[b]
            going[b] = _goes_on(i, int(b), g)
        done += going
        if not going.any():
            break
        lengths = None if going.all() else going
        layers = [layer._replace(h_0=_columns_of(layer, 0)[1].copy(), lengths=lengths) for layer in layers]
    return done


def _goes_on(i: int, b: int, g: Generation) -> bool:
    """Draw what follows in row b; whether it goes on after it."""
    o = g.readout.o[0, b]
    are_numbers = g.readout.loss not in ("cross_entropy", "binary_cross_entropy")
    if not np.isfinite(o if are_numbers else o.max()).all():
        return False
    item = _item(o, None if g.uniforms is None else g.uniforms[i, b], g)
    g.drawn[i, b] = item
    if are_numbers and not np.isfinite(item).all():
        return False
    _feed(item, i, b, g)
    return g.end is None or item != g.end


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


def _average(mean: Real, values: Real, memories: Sequence[Real], rate: float) -> None:  # noqa: ARG001
    """An exponential mean of parameters, which stand in the place of a gradient."""
    mean += rate * (values - mean)


# name -> (parameters, gradient, memories, *numbers)
UPDATES: dict[str, Callable[..., None]] = {"sgd": _sgd, "adagrad": _adagrad, "adam": _adam, "average": _average}
