/* Dropout. Which units are kept is drawn (philox.h): unit u has word u % 4 of those for the counter (u / 4, row, step,
 * stream). What is dropped becomes -0.0, which nothing that is kept is: backward knows by it. */
#ifndef ELMAN_DROPOUT_H
#define ELMAN_DROPOUT_H

#include "philox.h"
#include "rows.h"

typedef struct {
    uint64_t key;
    uint32_t least;  /* what a unit's word has to be for it to be kept, ... */
    int is_all;      /* ... unless all are dropped, ... */
    int is_none;     /* ... or none: then rows are copied */
    real factor;     /* of what is kept */
    uint32_t stream; /* of direction 0 */
} drawing;

static drawing drawing_of(double p, uint64_t key, size_t stream) {
    const uint64_t least = (uint64_t)(p * 0x1p32 + 0x1p52 - 0x1p52); /* rounded, by the sum */
    return (drawing){key, (uint32_t)least, least >> 32 != 0, p == 0, (real)(1 / (1 - p)), (uint32_t)stream};
}

/* For DRAWN units of n rows b, 0 to 3 of the first of so many counters and so on, whether they are kept: -1 or 0. Even
 * lanes come before odd ones, as `evens` and `odds` leave them. The rounds' keys do not depend on the row, nor do two
 * of the rounds and a half: the compiler takes them out of the loop. */
static void draw(const drawing *d, size_t n, const size_t *b, size_t counter, size_t step, size_t stream,
                 int32_t (*kept)[DRAWN]) {
    const uint64_t key = d->key;
    const uint32_t least = d->least;
    for (size_t k = 0; k < n; k++) {
        wide words[4][VECTORS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
            uint64_t order[COUNTERS];
            for (size_t i = 0; i < COUNTERS; i++) order[i] = v * COUNTERS + i / 2 + i % 2 * (COUNTERS / 2);
            memcpy(&words[0][v], order, sizeof order);
            words[0][v] += counter, words[1][v] = (wide){0} + b[k];
            words[2][v] = (wide){0} + step, words[3][v] = (wide){0} + stream;
        }
        philox(key, words);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
            const halves one = evens((halves)words[0][v], (halves)words[1][v]);
            const halves other = evens((halves)words[2][v], (halves)words[3][v]);
            const halves first = evens(one, other) >= least, second = odds(one, other) >= least;
            memcpy(kept[k] + 4 * COUNTERS * v, &first, sizeof first);
            memcpy(kept[k] + 4 * COUNTERS * v + 2 * COUNTERS, &second, sizeof second);
        }
    }
}

#define DROPPED set1((real) - 0.0)

/* out = row, NULL for ones, times the factor where units are kept; what is not kept is -0.0, whatever it was. */
INLINE void keep(real *out, const real *row, const int32_t *kept, real factor, size_t n, int is_whole) {
    for (size_t j = 0; j < n; j += VL) {
        const size_t own = is_whole ? VL : smaller(n - j, VL);
        int32_t narrow __attribute__((vector_size(4 * VECTOR_BYTES / sizeof(real))));
        memcpy(&narrow, kept + j, sizeof narrow);
        const vec value = (row ? load_upto(row + j, own) : set1(1)) * factor + set1(0);
        store_upto(out + j, choose(__builtin_convertvector(narrow, ivec), value, DROPPED), own);
    }
}

/* out = row times the factor where units were kept, by what is left of them; what was dropped is 0, whatever it was. */
INLINE void keep_again(real *out, const real *row, const real *left, real factor, size_t n) {
    for (size_t j = 0; j < n; j += VL) {
        const size_t own = smaller(n - j, VL);
        const ivec is_dropped = (ivec)load_upto(left + j, own) == (ivec)DROPPED;
        store_upto(out + j, choose(is_dropped, set1(0), load_upto(row + j, own) * factor), own);
    }
}

#define DRAWN_ROWS 16 /* at a time: what is read and written comes meanwhile, and two loops are faster than one */

/* out = what dropout leaves of n rows (NULL: of ones) of a step: of a direction's units [column, column + columns). */
static void drop_rows(const drawing *d, size_t n, const size_t *b, size_t step, size_t direction, size_t column,
                      size_t columns, const real *const *rows, real *const *out) {
    if (rows && d->is_none) {
        for (size_t k = 0; k < n; k++) memcpy(out[k] + column, rows[k] + column, columns * sizeof(real));
        return;
    }
    int32_t kept[DRAWN_ROWS][DRAWN];
    for (size_t k = 0; d->is_all && k < n; k++)
        for (size_t j = 0; j < columns; j += VL) store_upto(out[k] + column + j, DROPPED, smaller(columns - j, VL));
    for (size_t first = column / 4 * 4, end = column + columns; !d->is_all && first < end; first += DRAWN) {
        const size_t j = larger(first, column), some = smaller(first + DRAWN, end) - j;
        for (size_t k = 0; k < n; k++) {
            if (k % DRAWN_ROWS == 0) {
                for (size_t i = k; i < smaller(n, k + DRAWN_ROWS); i++) {
                    if (rows) prefetch_row(rows[i] + j, some);
                    prefetch_row(out[i] + j, some);
                }
                draw(d, smaller(n - k, DRAWN_ROWS), b + k, first / 4, step, d->stream + 2 * direction, kept);
            }
            const int32_t *own = kept[k % DRAWN_ROWS] + j - first;
            const real *row = rows ? rows[k] + j : NULL;
            if (some % VL == 0)
                keep(out[k] + j, row, own, d->factor, some, 1);
            else
                keep(out[k] + j, row, own, d->factor, some, 0);
        }
    }
}

/* What multiplies the recurrent input: mask (D, B, H). */
static void recurrent_mask(size_t D, size_t B, size_t H, double p, uint64_t key, size_t layer, void *mask) {
    const drawing drawn = drawing_of(p, key, 4 * layer + 1);
    for (size_t d = 0; d < D; d++)
        for (size_t b = 0; b < B; b++) {
            real *const row = (real *)mask + (d * B + b) * H;
            drop_rows(&drawn, 1, &b, 0, d, 0, H, NULL, &row);
        }
}

#endif
