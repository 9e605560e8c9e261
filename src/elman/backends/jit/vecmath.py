"""Elementary functions on vectors, each within 2 ULP, NaN in, NaN out: csrc/vecmath.h, where the reasons stand.

All stand on e^y = 2^n (1 + p): n = round(y / ln 2), r = y - n ln 2 in [-ln2/2, ln2/2], p = expm1(r) by a polynomial.
Constants are pairs, for float32 and for float64.
"""

from __future__ import annotations

from typing import Any

from elman.backends.jit.options import kernel
from elman.backends.jit.simd import Vec, both, choose, fma, per_dtype, polynomial, power_of_two, size_of_real

_hex = float.fromhex

ROUNDER = _hex("0x1.8p23"), _hex("0x1.8p52")  # adding it rounds to the nearest integer
MINUS_LN2_HIGH = _hex("-0x1.63p-1"), _hex("-0x1.62e42feep-1")  # few bits: the product with n is exact
MINUS_LN2_LOW = _hex("0x1.bd0106p-13"), _hex("-0x1.a39ef35793c76p-33")
MINUS_HALF_LN2 = _hex("-0x1.62e43p-2")  # for float32; for float64:
MINUS_HALF_LN2_HIGH, MINUS_HALF_LN2_LOW = _hex("-0x1.62e42feep-2"), _hex("-0x1.a39ef35793c76p-34")
LOG2_E = _hex("0x1.715476p0"), _hex("0x1.71547652b82fep0")
TWICE_LOG2_E = _hex("0x1.715476p1"), _hex("0x1.71547652b82fep1")
EXP_UNDERFLOW = -88.02, -709.08  # there 2^n becomes 0 and so does e^y
TANH_ONE = 9.02, 19.07  # from here on tanh rounds to 1

# p = r + r² (1/2 + ...): the coefficients of the bracket, minimax for the relative error
EXPM1 = (
    (0.0001491075938, 0.001392766091, 0.00834108178, 0.04166653681, 0.1666664068, 0.5),
    (
        2.1363788259780735172e-9,
        2.5116660635141595866e-8,
        2.7555861023975068448e-7,
        2.7557221171887746107e-6,
        0.000024801588896609497488,
        0.00019841269910442575271,
        0.0013888888888165430132,
        0.008333333333311274068,
        0.041666666666667774725,
        0.16666666666666690973,
        0.5,
    ),
)


# the same for (e^{2r} - 1) / 2
HALF_EXPM1_TWICE = tuple(tuple(c * 2.0 ** (len(cs) - i) for i, c in enumerate(cs)) for cs in EXPM1)

# (log1p(e) - 2s) / s³ as a polynomial in s², s = e / (2 + e)
LOG1P = (
    (0.2801200971, 0.2800179915, 0.4002152778, 0.6666641627),
    (
        0.17009779345427741330,
        0.083449596641070583891,
        0.12104947499713463475,
        0.13301121067442345926,
        0.15386548414999428136,
        0.18181744478101374593,
        0.22222223953671616461,
        0.28571428548117650748,
        0.40000000000155118181,
        0.66666666666666309702,
    ),
)


@kernel
def expm1(r: Vec, coefficients: Any) -> Vec:
    square = r * r
    return fma(square, polynomial(r, square, coefficients), r)


@kernel
def reduced(v: Any, y: Vec) -> tuple[Vec, Vec]:
    """n + ROUNDER, and r, for y <= 0."""
    limit = per_dtype(v, EXP_UNDERFLOW)
    y = choose(y < limit, limit, y)
    shifted = fma(y, per_dtype(v, LOG2_E), per_dtype(v, ROUNDER))
    n = shifted - per_dtype(v, ROUNDER)
    return shifted, fma(n, per_dtype(v, MINUS_LN2_LOW), fma(n, per_dtype(v, MINUS_LN2_HIGH), y))


@kernel
def exp_negative(v: Any, y: Vec) -> Vec:
    """e^y for y <= 0."""
    shifted, r = reduced(v, y)
    # not scale + scale * p: that product may be subnormal where the sum is not
    return power_of_two(shifted) * (1.0 + expm1(r, EXPM1))


@kernel
def one_minus_exp(v: Any, y: Vec) -> Vec:
    """1 - e^-y for y >= 0. Where y is small n is 0, and what is left is the polynomial."""
    shifted, r = reduced(v, -y)
    scale = power_of_two(shifted)
    return fma(-scale, expm1(r, EXPM1), 1.0 - scale)


@kernel
def tanh(v: Any, x: Vec) -> Vec:
    """With t = (e^{2|x|} - 1) / 2: tanh |x| = q = t / (t + 1), for small t as t - t q with what rounding left of t."""
    sign, limit = x & -0.0, per_dtype(v, TANH_ONE)
    a = x ^ sign
    a = choose(a > limit, limit, a)
    shifted = fma(a, per_dtype(v, TWICE_LOG2_E), per_dtype(v, ROUNDER))
    n = shifted - per_dtype(v, ROUNDER)
    if size_of_real(v) == 4:
        r = fma(n, MINUS_HALF_LN2, a)
    else:
        r = fma(n, MINUS_HALF_LN2_LOW, fma(n, MINUS_HALF_LN2_HIGH, a))
    p, scale = expm1(r, HALF_EXPM1_TWICE), power_of_two(shifted)
    base = fma(scale, 0.5, -0.5)
    t = fma(scale, p, base)
    left, q = fma(scale, p, base - t), t / (t + 1.0)
    return choose(t < 0.5, t + fma(-t, q, left), q) | sign


@kernel
def sigmoid(v: Any, x: Vec) -> Vec:
    """With e = e^{-|x|}: 1 / (1 + e) for x >= 0; q = e / (1 + e) for x < 0, for small e as e - e q."""
    e = exp_negative(v, x | -0.0)
    q = choose(x < 0.0, e, 1.0) / (1.0 + e)
    return choose(both(x < 0.0, e < 0.5), fma(-e, q, e), q)


@kernel
def softplus(v: Any, x: Vec) -> Vec:
    """max(x, 0) + log1p(e), e = e^{-|x|}: log1p(e) = e - s (e - R), s = e / (2 + e)."""
    shifted, r = reduced(v, x | -0.0)
    p, scale = expm1(r, EXPM1), power_of_two(shifted)
    total = 1.0 + p
    e, left = scale * total, scale * (p - (total - 1.0))
    s = e / (2.0 + e)
    square = s * s
    less = fma(-square, polynomial(square, square * square, LOG1P), e)
    rest = fma(-s, less, fma(left * -0.5, e, left))
    log1p = e + rest
    lost = rest - (log1p - e)
    return (choose(x < 0.0, 0.0, x) + lost) + log1p
