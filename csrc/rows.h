/* Rows over time, the sums over them that are parameter gradients, and what the passes share. */
#ifndef ELMAN_ROWS_H
#define ELMAN_ROWS_H

#include "elman.h"
#include "gemm.h"
#include "pool.h"

INLINE real *at(const elman_rows *rows, size_t t, size_t b) {
    return (real *)rows->data + (ptrdiff_t)t * rows->t_stride + (ptrdiff_t)b * rows->b_stride;
}

INLINE int64_t token_at(const elman_rows *rows, size_t t, size_t b) {
    return ((const int64_t *)rows->data)[(ptrdiff_t)t * rows->t_stride + (ptrdiff_t)b * rows->b_stride];
}

INLINE elman_rows columns_from(elman_rows rows, size_t column) {
    rows.data = (real *)rows.data + column;
    return rows;
}

/* Steps and rows that a pass goes over: t < length of b. */
typedef struct {
    size_t T, B;
    const int64_t *lengths;
} extent;

INLINE size_t length_of(const extent *e, size_t b) { return e->lengths ? (size_t)e->lengths[b] : e->T; }

/* A thread costs about a microsecond to call in; a million operations are about ten. */
INLINE int threads_for(double operations) {
    double threads = 1 + operations / 1e6;
    return threads < elman_get_num_threads() ? (int)threads : elman_get_num_threads();
}

/* out = a + b, either of them NULL for zeros. */
static void add_row(real *out, const real *a, const real *b, size_t columns) {
    for (size_t j = 0; j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        vec sum = a ? load_upto(a + j, n) : set1(0);
        store_upto(out + j, b ? sum + load_upto(b + j, n) : sum, n);
    }
}

static void multiply_row(real *out, const real *a, const real *b, size_t columns) {
    for (size_t j = 0; j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        store_upto(out + j, load_upto(a + j, n) * load_upto(b + j, n), n);
    }
}

/* For each (t, b) a row of `width` values: that of `rows`, or with shift = -1 or 1 that of the step before or after it, and
 * `start`[b] where there is none; times mask[b] if there is a mask. */
typedef struct {
    elman_rows rows;
    int shift;
    const real *start, *mask; /* (B, width) */
    size_t width;
    int has_tokens; /* rows are one-hot, given as tokens */
} source;

INLINE const real *row_of(const source *s, const extent *e, size_t t, size_t b) {
    if (s->shift < 0 && t == 0) return s->start + b * s->width;
    if (s->shift > 0 && t + 1 == length_of(e, b)) return s->start + b * s->width;
    return at(&s->rows, t + (size_t)(ptrdiff_t)s->shift, b);
}

/* The gradient of a matrix: d_weight (a.width, columns) += sum over (t, b) of a(t, b)^T delta(t, b); d_bias likewise,
 * unless NULL. Steps descend, rows ascend: one chain for each element, which a pass over earlier steps continues. */
typedef struct {
    extent extent;
    source a;
    elman_rows delta;
    real *d_weight, *d_bias;
    size_t columns;
    size_t panels, chunks; /* tasks: panels of columns x chunks of rows of d_weight */
} outer_sum;

#define DEPTH 128   /* terms summed while a panel of delta stays in the first-level cache */
#define CHUNK 96    /* rows of d_weight in a task: what packing the panel costs is then below 2 % */

static void plan_outer_sum(outer_sum *s, int threads) {
    s->chunks = s->a.has_tokens ? 1 : ceil_div(s->a.width, CHUNK);
    s->panels = panels_for(s->columns, s->a.width, MAX_NARROW_WIDTH);
    if (!s->a.has_tokens && threads > 1 && s->chunks * s->panels % 2) s->chunks++;
}

/* Terms of a task, gathered until there are enough for a run of the micro-kernel. */
typedef struct {
    const outer_sum *sum;
    panel columns;
    size_t begin, end; /* rows of d_weight */
    size_t n;
    const real *a[DEPTH];
    real b[DEPTH * MAX_NARROW_WIDTH * VECTOR_BYTES / sizeof(real)] __attribute__((aligned(64)));
    real masked[DEPTH * CHUNK]; /* rows of a times their masks, from `begin` on */
} terms;

static void gather(terms *g, size_t t, size_t row) {
    const outer_sum *s = g->sum;
    const size_t width = g->columns.width * VL, chunk = g->end - g->begin;
    real *b = g->b + g->n * width;
    memcpy(b, at(&s->delta, t, row) + g->columns.column, g->columns.columns * sizeof(real));
    memset(b + g->columns.columns, 0, (width - g->columns.columns) * sizeof(real));
    const real *a = row_of(&s->a, &s->extent, t, row) + g->begin;
    if (s->a.mask) {
        real *masked = g->masked + g->n * chunk;
        multiply_row(masked, a, s->a.mask + row * s->a.width + g->begin, chunk);
        a = masked;
    }
    g->a[g->n++] = a;
}

static void add_bias_terms(real *d_bias, const terms *g) {
    for (size_t v = 0; v < g->columns.width; v++) {
        size_t columns = smaller(g->columns.columns - v * VL, VL);
        vec sum = load_upto(d_bias + v * VL, columns);
        for (size_t k = 0; k < g->n; k++) sum += load(g->b + (k * g->columns.width + v) * VL);
        store_upto(d_bias + v * VL, sum, columns);
    }
}

static void add_terms(terms *g) {
    const outer_sum *s = g->sum;
    const panel c = g->columns;
    operands o = {.a = g->a, .b = g->b, .depth = g->n, .column = c.column, .columns = c.columns};
    const size_t rows = g->end - g->begin, tiles = ceil_div(rows, TALLEST(c.width));
    real *out[MAX_HEIGHT];
    o.init = (const real *const *)out, o.out = out;
    for (size_t i = 0; i < tiles; i++) {
        size_t height = part(rows, tiles, i + 1) - part(rows, tiles, i);
        o.first = part(rows, tiles, i);
        for (size_t r = 0; r < height; r++) out[r] = s->d_weight + (g->begin + o.first + r) * s->columns;
        TILES[COLUMNS][c.width - 1][height - 1](&o);
    }
    if (s->d_bias && g->begin == 0) add_bias_terms(s->d_bias + c.column, g);
    g->n = 0;
}

/* A token is a one-hot row: its term is one row of d_weight. */
static void add_token_term(const outer_sum *s, panel c, size_t t, size_t row) {
    const real *delta = at(&s->delta, t, row) + c.column;
    real *d_weight = s->d_weight + (size_t)token_at(&s->a.rows, t, row) * s->columns + c.column;
    add_row(d_weight, d_weight, delta, c.columns);
    if (s->d_bias) add_row(s->d_bias + c.column, s->d_bias + c.column, delta, c.columns);
}

static void outer_sum_task(const outer_sum *s, size_t task) {
    const matrix shape = {.columns = s->columns, .panels = s->panels};
    const panel c = panel_of(&shape, task % s->panels);
    const size_t chunk = task / s->panels;
    terms g;
    g.sum = s, g.columns = c, g.n = 0;
    g.begin = part(s->a.width, s->chunks, chunk), g.end = part(s->a.width, s->chunks, chunk + 1);
    for (size_t t = s->extent.T; t-- > 0;)
        for (size_t row = 0; row < s->extent.B; row++) {
            if (t >= length_of(&s->extent, row)) continue;
            if (s->a.has_tokens) {
                add_token_term(s, c, t, row);
                continue;
            }
            gather(&g, t, row);
            if (g.n == DEPTH) add_terms(&g);
        }
    if (g.n) add_terms(&g);
}

#endif
