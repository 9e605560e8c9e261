/* Noise: standard normals, made of Philox's words (philox.h) by Box & Muller (1958). Unit u of a row has word
 * u % 32 / 8 of the counter (8 (u / 32) + u % 8, 2^32 - 1, step, stream), with the row's own key. Of a counter's words,
 * the first and the third make radii and the others angles; both normals of a pair are used.
 *
 * All is in float, whatever the dtype, by sums, products and roots that round each by itself: the bits are the same on
 * every instruction set, and NumPy's (backends/reference.py). Each normal is right to 10^-6 of itself, and below 6.6.
 */
#ifndef ELMAN_NOISE_H
#define ELMAN_NOISE_H

#include "philox.h"
#include "rows.h"

#define NORMALS (DRAWN < 32 ? 32 : DRAWN) /* of a row at a time: whole blocks of 32 */

INLINE floats horner(floats x, const float *coefficients, size_t n) {
    floats y = (floats){0} + coefficients[0];
#pragma GCC unroll 8
    for (size_t i = 1; i < n; i++) y = y * x + coefficients[i];
    return y;
}

/* sqrt(-2 log u) of u = w / 2^32 rounded, above 0 and at most 1: u = 2^e (1 + t) with 1 + t between the roots of 1/2
 * and 2, and a polynomial for -2 log(1 + t) / t. */
static const float MINUS_TWO_LOG[] = {0.2021379664f, -0.3244516081f, 0.3450165783f, -0.3980033107f,
                                      0.4993981827f, -0.6667011788f, 1.000007302f,  -1.999999891f};
#define ROOT_OF_HALF 0x3f3504f3 /* as bits of a float */

INLINE floats radius(halves w) {
    const floats u = __builtin_convertvector((signed_halves)(w >> 1 | 1), floats) * 0x1p-31f;
    const signed_halves over = (signed_halves)u - ROOT_OF_HALF;
    const floats e = __builtin_convertvector(over >> 23, floats);
    const floats t = (floats)((over & 0x7fffff) + ROOT_OF_HALF) - 1.0f;
    return sqrt_floats(t * horner(t, MINUS_TWO_LOG, 8) - e * 1.386294361f);
}

/* Cosine and sine of w 2^-32 of a turn: of the distance to the nearest quarter, g quarters, and swapped and with signs
 * by which of them that is. */
static const float SINE[] = {-0.004601657891f, 0.07968003277f, -0.6459634602f, 1.570796322f};
static const float COSINE[] = {-0.0203985818f, 0.2535949467f, -1.233696662f, 0.9999999674f};

INLINE void cosine_and_sine(halves w, floats *cosine, floats *sine) {
    const halves quarter = (w + (1u << 29)) >> 30;
    const floats g = __builtin_convertvector((signed_halves)(w - (quarter << 30)), floats) * 0x1p-30f, square = g * g;
    const halves s = (halves)(g * horner(square, SINE, 4)), c = (halves)horner(square, COSINE, 4);
    const halves swap = -(quarter & 1) & (s ^ c);
    *cosine = (floats)((c ^ swap) ^ ((quarter + 1) & 2) << 30);
    *sine = (floats)((s ^ swap) ^ (quarter & 2) << 30);
}

/* NORMALS of a row, those of units 4 * counter and so on. */
static void draw_normals(uint64_t key, size_t counter, size_t step, size_t stream, float *out) {
    for (size_t first = 0; first < NORMALS / 4; first += VECTORS * COUNTERS) {
        wide words[4][VECTORS];
        for (size_t v = 0; v < VECTORS; v++) { /* `evens` puts two lanes of one beside two of the other */
            uint64_t order[COUNTERS];
            for (size_t i = 0; i < COUNTERS; i++) order[i] = i / 2 * 4 + 2 * v + i % 2;
            memcpy(&words[0][v], order, sizeof order);
            words[0][v] += counter + first, words[1][v] = (wide){0} + 0xffffffffu;
            words[2][v] = (wide){0} + step, words[3][v] = (wide){0} + stream;
        }
        philox(key, words);
        floats normal[4];
        for (size_t i = 0; i < 4; i += 2) {
            const floats r = radius(evens((halves)words[i][0], (halves)words[i][1]));
            cosine_and_sine(evens((halves)words[i + 1][0], (halves)words[i + 1][1]), &normal[i], &normal[i + 1]);
            normal[i] *= r, normal[i + 1] *= r;
        }
        for (size_t i = 0; i < 4; i++) /* four counters' at a time stand side by side, whatever the vector */
            for (size_t c = 0; c < VECTORS * COUNTERS; c += 4)
                memcpy(out + (first + c) / 8 * 32 + 8 * i + (first + c) % 8, (char *)&normal[i] + 4 * c, 16);
    }
}

#define NORMAL_ROWS 16 /* at a time: what is stored by halves has arrived when it is loaded whole */

/* out += factors * normals for n rows of a step, those of keys[b]: units [column, column + columns). */
static void add_noise(const int64_t *keys, size_t n, const size_t *b, size_t step, size_t stream, size_t column,
                      size_t columns, const void *of_factors, const void *of_out) {
    const real *const *factors = of_factors; /* a row for each */
    real *const *out = of_out;
    float normals[NORMAL_ROWS][NORMALS];
    for (size_t first = column / 32 * 32, end = column + columns; first < end; first += NORMALS) {
        const size_t j = larger(first, column), some = smaller(first + NORMALS, end) - j;
        for (size_t k = 0; k < n; k++) {
            if (k % NORMAL_ROWS == 0)
                for (size_t i = k; i < smaller(n, k + NORMAL_ROWS); i++)
                    draw_normals((uint64_t)keys[b[i]], first / 4, step, stream, normals[i - k]);
            const float *own = normals[k % NORMAL_ROWS] + j - first;
            for (size_t i = 0; i < some; i += VL) {
                const size_t whole = smaller(some - i, VL);
                narrow z;
                memcpy(&z, own + i, sizeof z);
                add_upto(out[k] + j + i, load_upto(factors[k] + j + i, whole) * __builtin_convertvector(z, vec), whole);
            }
        }
    }
}

typedef struct {
    const elman_rows *out;
    const int64_t *keys;
    const real *ones;
    size_t B, N, step, stream;
} drawn_normals;

static void normals_of_step(void *context, size_t t) {
    const drawn_normals *c = context;
    for (size_t b = 0; b < c->B && (b % NORMAL_ROWS || !elman_stopped()); b++) {
        real *const out = at(c->out, t, b);
        memset(out, 0, c->N * sizeof(real));
        add_noise(c->keys, 1, &b, c->step + t, c->stream, 0, c->N, &c->ones, &out);
    }
}

/* out (T, B, N) = the normals of units 0 to N - 1. */
static int normals(size_t T, size_t B, size_t N, const elman_rows *out, const int64_t *keys, size_t step,
                   size_t stream) {
    real *ones = elman_lease(N * sizeof(real));
    if (!ones) return ELMAN_NO_MEMORY;
    for (size_t j = 0; j < N; j++) ones[j] = 1;
    drawn_normals c = {out, keys, ones, B, N, step, stream};
    elman_run(normals_of_step, &c, T, T * B * N < 1 << 14 ? 1 : (size_t)elman_get_num_threads());
    elman_return(ones);
    return 0;
}

#endif
