/* Elementary functions on vectors, each within 2 ULP (`elman accuracy` measures it), NaN in, NaN out.
 *
 * All stand on e^y = 2^n (1 + p): n = round(y / ln 2), r = y - n ln 2 in [-ln2/2, ln2/2], p = expm1(r) by the
 * polynomial r + r² (1/2 + c₁ r + c₂ r² ...), whose coefficients are minimax for the relative error: 2^-27.4 (float),
 * 2^-59.4 (double).
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

/* *scale = 2^n and the returned p with e^y = scale (1 + p). */
INLINE vec exp_parts(vec y, vec *scale) {
    vec shifted = fma_(y, set1(LOG2_E), set1(ROUNDER));
    vec n = shifted - set1(ROUNDER);
    vec r = fma_(n, set1(-LN2_LOW), fma_(n, set1(-LN2_HIGH), y));
    vec q = set1(EXPM1[0]);
    for (size_t i = 1; i < sizeof EXPM1 / sizeof *EXPM1; i++) q = fma_(q, r, set1(EXPM1[i]));
    *scale = (vec)(((ivec)shifted << MANTISSA_BITS) + (ivec)set1(1));
    return fma_(r * r, q, r);
}

/* e^y for y <= 0. */
INLINE vec exp_negative(vec y) {
    vec scale, limit = set1(EXP_UNDERFLOW);
    vec p = exp_parts(choose(y < limit, limit, y), &scale);
    return scale * (set1(1) + p); /* not scale + scale * p: that product may be subnormal where the sum is not */
}

/* With t = e^{2|x|} - 1: tanh |x| = q = t / (t + 2). For small t that quotient would add the errors of three roundings;
 * the equal t/2 - t/2 q adds the error of one, those of q being scaled down. (For tiny x, n = 0 and t = p: exact.) */
INLINE vec tanh_(vec x) {
    ivec sign = (ivec)x & (ivec)set1(PER_DTYPE(-0.0f, -0.0));
    vec a = (vec)((ivec)x ^ sign), scale, limit = set1(TANH_ONE);
    a = choose(a > limit, limit, a);
    vec p = exp_parts(a + a, &scale);
    vec t = fma_(scale, p, scale - set1(1));
    vec q = t / (t + set1(2)), half = t * set1(PER_DTYPE(0.5f, 0.5));
    return (vec)((ivec)choose(t < set1(1), fma_(-half, q, half), q) | sign);
}

/* With e = e^{-|x|}: 1 / (1 + e) for x >= 0; q = e / (1 + e) for x < 0, for small e as e - e q as in tanh. */
INLINE vec sigmoid_(vec x) {
    vec e = exp_negative((vec)((ivec)x | (ivec)set1(PER_DTYPE(-0.0f, -0.0))));
    vec q = choose(x < set1(0), e, set1(1)) / (set1(1) + e);
    ivec small = (x < set1(0)) & (e < set1(PER_DTYPE(0.5f, 0.5)));
    return choose(small, fma_(-e, q, e), q);
}

#endif
