/* Elementary functions on vectors, each within 2 ULP (`elman accuracy` measures it; tanh in double, around 0.2, within
 * 2.2), NaN in, NaN out.
 *
 * All stand on e^y = 2^n (1 + p): n = round(y / ln 2), r = y - n ln 2 in [-ln2/2, ln2/2], p = expm1(r) by the
 * polynomial r + r² (1/2 + c₁ r + c₂ r² ...), whose coefficients are minimax for the relative error: 2^-27.4 (float),
 * 2^-59.4 (double). log1p(e) has one of its own, minimax likewise: 2^-27.5, 2^-58.5.
 */
#ifndef ELMAN_VECMATH_H
#define ELMAN_VECMATH_H

#include "simd.h"

#define MANTISSA_BITS PER_DTYPE(23, 52)
#define ROUNDER PER_DTYPE(0x1.8p23f, 0x1.8p52)          /* adding it rounds to the nearest integer */
#define LN2_HIGH PER_DTYPE(0x1.63p-1f, 0x1.62e42feep-1) /* few bits: n * LN2_HIGH is exact */
#define LN2_LOW PER_DTYPE(-0x1.bd0106p-13f, 0x1.a39ef35793c76p-33)
#define LOG2_E PER_DTYPE(0x1.715476p0f, 0x1.71547652b82fep0)
#define EXP_UNDERFLOW PER_DTYPE(-88.02f, -709.08) /* there 2^n becomes 0 and so does e^y */
#define TANH_ONE PER_DTYPE(9.02f, 19.07)          /* from here on tanh rounds to 1 */

static const real EXPM1[] = {
#ifdef ELMAN_DOUBLE
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
#else
    0.0001491075938f, 0.001392766091f, 0.00834108178f, 0.04166653681f, 0.1666664068f, 0.5f,
#endif
};

/* (log1p(e) - 2s) / s³ as a polynomial in s², s = e / (2 + e). */
static const real LOG1P[] = {
#ifdef ELMAN_DOUBLE
    0.17009779345427741330, 0.083449596641070583891, 0.12104947499713463475, 0.13301121067442345926,
    0.15386548414999428136, 0.18181744478101374593,  0.22222223953671616461, 0.28571428548117650748,
    0.40000000000155118181, 0.66666666666666309702,
#else
    0.2801200971f,
    0.2800179915f,
    0.4002152778f,
    0.6666641627f,
#endif
};

/* unit (c₀ z^(n-1) + c₁ z^(n-2) + ...) for z = unit x and a unit of 1 or 2. Even and odd powers are two chains, half as
 * long as one. */
INLINE vec polynomial(vec x, const real *c, const int n, const real unit) {
    const vec square = x * x;
    vec q[2] = {set1(0), set1(0)};
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) {
        const vec scaled = set1(c[i] * (unit == 1 ? 1 : (real)(1 << (n - i))));
        q[i % 2] = i < 2 ? scaled : fma_(q[i % 2], square, scaled);
    }
    return fma_(q[n % 2], x, q[(n - 1) % 2]);
}
#define POLYNOMIAL(x, c, unit) polynomial(x, c, sizeof(c) / sizeof *(c), unit)

/* (e^{r unit} - 1) / unit for a unit of 1 or 2. */
INLINE vec expm1_(vec r, const real unit) { return fma_(r * r, POLYNOMIAL(r, EXPM1, unit), r); }

/* 2^n, given n + ROUNDER. */
INLINE vec power_of_two(vec shifted) { return (vec)(((ivec)shifted << MANTISSA_BITS) + (ivec)set1(1)); }

/* r, and n + ROUNDER, for y <= 0. */
INLINE vec reduced(vec y, vec *shifted) {
    y = max_(set1(EXP_UNDERFLOW), y);
    *shifted = fma_(y, set1(LOG2_E), set1(ROUNDER));
    const vec n = *shifted - set1(ROUNDER);
    return fma_(n, set1(-LN2_LOW), fma_(n, set1(-LN2_HIGH), y));
}

/* e^y for y <= 0. */
INLINE vec exp_negative(vec y) {
    vec shifted;
    const vec r = reduced(y, &shifted);
    /* not scale + scale * p: that product may be subnormal where the sum is not */
    return power_of_two(shifted) * (set1(1) + expm1_(r, 1));
}

/* 1 - e^-y for y >= 0. Where y is small n is 0, and what is left is the polynomial. */
INLINE vec one_minus_exp(vec y) {
    vec shifted;
    const vec r = reduced(-y, &shifted), scale = power_of_two(shifted);
    return fma_(-scale, expm1_(r, 1), set1(1) - scale);
}

/* With t = (e^{2|x|} - 1) / 2: tanh |x| = q = t / (t + 1). For small t that quotient would add the errors of three
 * roundings; the equal t - t q adds the error of one, those of q being scaled down, and takes along what rounding t
 * left of it. (For tiny x, n = 0 and t is that of the polynomial: exact.) */
INLINE vec tanh_(vec x) {
    const ivec sign = (ivec)x & (ivec)set1(PER_DTYPE(-0.0f, -0.0));
    const vec a = min_(set1(TANH_ONE), (vec)((ivec)x ^ sign)), half = set1(PER_DTYPE(0.5f, 0.5));
    const vec shifted = fma_(a, set1(2 * LOG2_E), set1(ROUNDER)), n = shifted - set1(ROUNDER);
    /* in float, one constant for ln 2 lacks a twentieth of the result's last bit at most */
    const vec exact = fma_(n, set1(-LN2_HIGH / 2), a), low = set1(-LN2_LOW / 2);
    const vec r = sizeof(real) == 4 ? fma_(n, set1(-(LN2_HIGH + LN2_LOW) / 2), a) : fma_(n, low, exact);
    const vec p = expm1_(r, 2), scale = power_of_two(shifted), base = fma_(scale, half, -half);
    const vec t = fma_(scale, p, base), left = fma_(scale, p, base - t), q = t / (t + set1(1));
    return (vec)((ivec)choose(t < half, t + fma_(-t, q, left), q) | sign);
}

/* With e = e^{-|x|}: 1 / (1 + e) for x >= 0; q = e / (1 + e) for x < 0, for small e as e - e q as in tanh. */
INLINE vec sigmoid_(vec x) {
    vec e = exp_negative((vec)((ivec)x | (ivec)set1(PER_DTYPE(-0.0f, -0.0))));
    vec q = choose(x < set1(0), e, set1(1)) / (set1(1) + e);
    ivec small = (x < set1(0)) & (e < set1(PER_DTYPE(0.5f, 0.5)));
    return choose(small, fma_(-e, q, e), q);
}

/* log(1 + e^x) = max(x, 0) + log1p(e), e = e^{-|x|}. With s = e / (2 + e), log1p(e) = 2 artanh s = 2s + s R, where
 * R = 2/3 s² + 2/5 s⁴ + ..., or e - s (e - R), as 2s = e - s e: what is taken from e is less than half of the result,
 * and the smaller e is the less, and so are the errors of its roundings. What rounding e left of it counts as
 * left / (1 + e), for which left (1 - e / 2) is near enough; what rounding log1p(e) lost of it is added to x. */
INLINE vec softplus_(vec x) {
    vec shifted;
    const vec r = reduced((vec)((ivec)x | (ivec)set1(PER_DTYPE(-0.0f, -0.0))), &shifted);
    const vec p = expm1_(r, 1), scale = power_of_two(shifted), sum = set1(1) + p;
    const vec e = scale * sum, left = scale * (p - (sum - set1(1)));
    const vec s = e / (set1(2) + e), square = s * s, less = fma_(-square, POLYNOMIAL(square, LOG1P, 1), e);
    const vec rest = fma_(-s, less, fma_(left * set1(PER_DTYPE(-0.5f, -0.5)), e, left));
    const vec log1p = e + rest, lost = rest - (log1p - e);
    return (max_(set1(0), x) + lost) + log1p;
}

#endif
