/* One vector of reals: what the kernels know of an instruction set.
 *
 * The dtype comes from ELMAN_DOUBLE, the instruction set from the compiler's own macros. Arithmetic (+ - * / < &) is
 * that of GCC's and Clang's vector types; only what these lack stands here. Nothing is contracted or reassociated by
 * the compiler (-ffp-contract=off), so each `fma_` below is one rounding where the set has it and two where not.
 */
#ifndef ELMAN_SIMD_H
#define ELMAN_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifdef ELMAN_DOUBLE
typedef double real;
typedef int64_t int_r; /* an integer as wide as a real */
#define PER_DTYPE(f32, f64) f64
#else
typedef float real;
typedef int32_t int_r;
#define PER_DTYPE(f32, f64) f32
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define X86(op) PER_DTYPE(_mm512_##op##_ps, _mm512_##op##_pd)
#define WIDE(op) _mm512_##op
#define INTEGERS __m512i
#define FLOATS __m512
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define X86(op) PER_DTYPE(_mm256_##op##_ps, _mm256_##op##_pd)
#define WIDE(op) _mm256_##op
#define INTEGERS __m256i
#define FLOATS __m256
#else
#define VECTOR_BYTES 16
#define X86(op) PER_DTYPE(_mm_##op##_ps, _mm_##op##_pd)
#define WIDE(op) _mm_##op
#define INTEGERS __m128i
#define FLOATS __m128
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
#define REGISTERS 32 /* of vectors */
#else
#define REGISTERS 16
#endif

#if defined(__FMA__) || defined(__aarch64__)
#define IS_FUSED 1 /* a multiply-add rounds once */
#else
#define IS_FUSED 0
#endif

#define INLINE static inline __attribute__((always_inline))
#define VL ((size_t)(VECTOR_BYTES / sizeof(real))) /* reals in a vector */

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef int_r ivec __attribute__((vector_size(VECTOR_BYTES)));

/* Unsigned integers of 64 bits, their halves, and floats as many as these: what random numbers are made of. */
typedef uint64_t wide __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t halves __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t signed_halves __attribute__((vector_size(VECTOR_BYTES)));
typedef float floats __attribute__((vector_size(VECTOR_BYTES)));
typedef float narrow
    __attribute__((vector_size(VECTOR_BYTES * sizeof(float) / sizeof(real)))); /* as many as in a vec */

/* Let a value stay in its register: GCC would load it again for each of two or three uses. */
#if defined(__AVX512F__)
#define KEEP(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__) || defined(__i386__)
#define KEEP(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define KEEP(v) __asm__("" : "+w"(v))
#endif

typedef real quad __attribute__((vector_size(4 * sizeof(real))));
typedef int_r iquad __attribute__((vector_size(4 * sizeof(real))));

#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (iquad){i, j, k, l})
#endif

/* to[i * to_stride + j] = from[j * stride + i] for i, j < 4. */
INLINE void transpose_quads(real *to, size_t to_stride, const real *from, size_t stride) {
    quad r[4];
    for (size_t j = 0; j < 4; j++) memcpy(&r[j], from + j * stride, sizeof(quad));
    const quad a = SHUFFLE(r[0], r[1], 0, 4, 1, 5), b = SHUFFLE(r[0], r[1], 2, 6, 3, 7);
    const quad c = SHUFFLE(r[2], r[3], 0, 4, 1, 5), d = SHUFFLE(r[2], r[3], 2, 6, 3, 7);
    r[0] = SHUFFLE(a, c, 0, 1, 4, 5), r[1] = SHUFFLE(a, c, 2, 3, 6, 7);
    r[2] = SHUFFLE(b, d, 0, 1, 4, 5), r[3] = SHUFFLE(b, d, 2, 3, 6, 7);
    for (size_t i = 0; i < 4; i++) memcpy(to + i * to_stride, &r[i], sizeof(quad));
}

INLINE vec load(const real *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(real *p, vec v) { memcpy(p, &v, sizeof v); }

#if defined(__aarch64__)
INLINE vec set1(real s) { return (vec)PER_DTYPE(vdupq_n_f32, vdupq_n_f64)(s); }
INLINE vec fma_(vec a, vec b, vec c) { return (vec)PER_DTYPE(vfmaq_f32, vfmaq_f64)(c, a, b); }
INLINE vec sqrt_(vec a) { return (vec)PER_DTYPE(vsqrtq_f32, vsqrtq_f64)(a); }
INLINE floats sqrt_floats(floats a) { return (floats)vsqrtq_f32((float32x4_t)a); }
INLINE wide multiply_halves(wide a, wide b) {
    return (wide)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}
INLINE halves evens(halves a, halves b) { return (halves)vuzp1q_u32((uint32x4_t)a, (uint32x4_t)b); }
INLINE halves odds(halves a, halves b) { return (halves)vuzp2q_u32((uint32x4_t)a, (uint32x4_t)b); }
#else
INLINE vec set1(real s) { return (vec)X86(set1)(s); }
#if defined(__FMA__)
INLINE vec fma_(vec a, vec b, vec c) { return (vec)X86(fmadd)(a, b, c); }
#else
INLINE vec fma_(vec a, vec b, vec c) { return a * b + c; }
#endif
INLINE vec sqrt_(vec a) { return (vec)X86(sqrt)(a); }
INLINE floats sqrt_floats(floats a) { return (floats)WIDE(sqrt_ps)((FLOATS)a); }
/* The product of the lower halves; of each four of a's and of b's, the even ones or the odd ones. */
INLINE wide multiply_halves(wide a, wide b) { return (wide)WIDE(mul_epu32)((INTEGERS)a, (INTEGERS)b); }
INLINE halves evens(halves a, halves b) { return (halves)WIDE(shuffle_ps)((FLOATS)a, (FLOATS)b, 0x88); }
INLINE halves odds(halves a, halves b) { return (halves)WIDE(shuffle_ps)((FLOATS)a, (FLOATS)b, 0xdd); }
#endif

/* The first n <= VL elements, the others 0; nothing beyond them is read or written. */
#if defined(__AVX512F__)
INLINE PER_DTYPE(__mmask16, __mmask8) first(size_t n) { return (PER_DTYPE(__mmask16, __mmask8))((1u << n) - 1); }
INLINE vec load_part(const real *p, size_t n) { return (vec)X86(maskz_loadu)(first(n), p); }
INLINE void store_part(real *p, vec v, size_t n) { X86(mask_storeu)(p, first(n), v); }
#elif defined(__AVX2__)
static const int_r FIRST[2 * VECTOR_BYTES / sizeof(int_r)] = {[0 ... VECTOR_BYTES / sizeof(int_r) - 1] = -1};
INLINE __m256i first(size_t n) { return _mm256_loadu_si256((const __m256i *)(FIRST + VL - n)); }
INLINE vec load_part(const real *p, size_t n) { return (vec)X86(maskload)(p, first(n)); }
#else
INLINE vec load_part(const real *p, size_t n) {
    real part[VECTOR_BYTES / sizeof(real)] = {0};
    for (size_t i = 0; i < n; i++) part[i] = p[i];
    return load(part);
}
#endif

/* The first n <= VL elements, in powers of two: on AMD's processors, a store by a mask is some forty operations. */
#if !defined(__AVX512F__)
INLINE void store_part(real *p, vec v, size_t n) {
    real part[VECTOR_BYTES / sizeof(real)];
    store(part, v);
#pragma GCC unroll 4
    for (size_t size = VL; size > 0; size /= 2)
        if (n & size) memcpy(p + (n & ~(2 * size - 1)), part + (n & ~(2 * size - 1)), size * sizeof(real));
}
#endif

/* The same where n is often VL: a whole vector goes the short way, since what was stored by a mask, even a full one,
 * has to reach the cache before it can be loaded again. */
INLINE vec load_upto(const real *p, size_t n) { return n == VL ? load(p) : load_part(p, n); }
INLINE void store_upto(real *p, vec v, size_t n) {
    if (n == VL)
        store(p, v);
    else
        store_part(p, v, n);
}

INLINE void add_upto(real *p, vec v, size_t n) { store_upto(p, load_upto(p, n) + v, n); }

/* Element-wise choice by a comparison's mask of zeros and ones. */
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* The smaller and the larger; where one of them is NaN, b or NaN. */
#if defined(__aarch64__)
INLINE vec min_(vec a, vec b) { return (vec)PER_DTYPE(vminq_f32, vminq_f64)(a, b); }
INLINE vec max_(vec a, vec b) { return (vec)PER_DTYPE(vmaxq_f32, vmaxq_f64)(a, b); }
#else
INLINE vec min_(vec a, vec b) { return (vec)X86(min)(a, b); }
INLINE vec max_(vec a, vec b) { return (vec)X86(max)(a, b); }
#endif

/* Sums and maxima over a vector go by halves, so that every instruction set of one width adds in one order. */
INLINE real sum(vec v) {
    real part[VECTOR_BYTES / sizeof(real)];
    store(part, v);
    for (size_t half = VL / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}

#endif
