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

/* Of elman_layer's resets. */
INLINE int is_reset(const elman_rows *resets, size_t t, size_t b) {
    return resets->data &&
           ((const uint8_t *)resets->data)[(ptrdiff_t)t * resets->t_stride + (ptrdiff_t)b * resets->b_stride];
}

INLINE elman_rows columns_from(elman_rows rows, size_t column) {
    rows.data = (real *)rows.data + column;
    return rows;
}

/* What a pass goes over: rows b with their lengths, and of their steps, in a direction's own order, [from, to). */
typedef struct {
    size_t T, B;
    const int64_t *lengths;
    size_t from, to;
} extent;

INLINE size_t time_of(const extent *e, size_t step, int backwards) { return backwards ? e->T - 1 - step : step; }
INLINE size_t length_of(const extent *e, size_t b) { return e->lengths ? (size_t)e->lengths[b] : e->T; }

/* Ask for a row that will be needed soon: hardware does not foresee steps that descend. */
INLINE void prefetch_row(const real *row, size_t columns) {
    for (size_t j = 0; j < columns; j += 64 / sizeof(real)) __builtin_prefetch(row + j);
}

/* out = one + other, either of them NULL for zeros. */
static void add_row(real *out, const real *one, const real *other, size_t columns) {
    for (size_t j = 0; j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        vec sum = one ? load_upto(one + j, n) : set1(0);
        store_upto(out + j, other ? sum + load_upto(other + j, n) : sum, n);
    }
}

static void multiply_row(real *out, const real *one, const real *other, size_t columns) {
    for (size_t j = 0; j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        store_upto(out + j, load_upto(one + j, n) * load_upto(other + j, n), n);
    }
}

/* For each (t, b) a row of `width` values: that of `rows`, or with shift = -1 or 1 that of the step before or after it,
 * `start`[b] where there is none, and `reset`[b] where there is a reset; times mask[b] if there is a mask. */
typedef struct {
    elman_rows rows, resets;
    int shift;
    const real *start, *reset, *mask; /* (B, width) */
    size_t width;
    int has_tokens; /* rows are one-hot, given as tokens */
} source;

INLINE const real *row_of(const source *s, const extent *e, size_t t, size_t b) {
    if (is_reset(&s->resets, t, b)) return s->reset + b * s->width;
    if (s->shift < 0 && t == 0) return s->start + b * s->width;
    if (s->shift > 0 && t + 1 == length_of(e, b)) return s->start + b * s->width;
    return at(&s->rows, t + (size_t)(ptrdiff_t)s->shift, b);
}

/* The gradient of a matrix: d_weight (left.width, columns) += sum over (t, b) of left(t, b)^T delta(t, b); d_bias
 * likewise; either may be NULL. Steps descend, in the direction's own order, and rows ascend: one chain for each
 * element, which a run over earlier steps continues. */
typedef struct {
    const extent *extent;
    int backwards;
    source left;
    elman_rows delta;
    real *d_weight, *d_bias;
    size_t columns;
    matrix shape;                   /* the panels of columns */
    size_t row_parts, column_parts; /* tasks: blocks of d_weight */
} outer_sum;

#define DEPTH 128      /* terms summed while a panel of delta stays in the first-level cache */
#define STRIP 24       /* rows of left that are packed side by side: whole tiles of every height but 5 */
#define LEAST_PANELS 6 /* to read packed rows, for packing them to be worth it */
#define MASKED_ROWS 96 /* of d_weight in a task where left is masked */

INLINE size_t outer_sum_tasks(const outer_sum *s) { return s->row_parts * s->column_parts; }

/* Blocks wide rather than tall, as they read whole stretches of delta; at least one for each thread. */
static void plan_outer_sum(outer_sum *s, size_t threads) {
    const size_t rows = s->left.width, least = rows > 16 ? threads : 1;
    s->shape =
        (matrix){.columns = s->columns, .panels = cheapest_division(DEPTH, s->columns, rows, MAX_NARROW_WIDTH).panels};
    if (s->left.has_tokens) {
        s->row_parts = 1, s->column_parts = smaller(s->shape.panels, threads);
        return;
    }
    s->column_parts = ceil_div(s->shape.panels, larger(1, 512 / (MAX_NARROW_WIDTH * VL)));
    /* of d_weight, which should stay in the second-level cache from one run of terms to the next */
    const size_t block_bytes = elman_cache_size(2) / 2, block_columns = ceil_div(s->columns, s->column_parts);
    s->row_parts = larger(least, ceil_div(rows * block_columns * sizeof(real), block_bytes));
    if (s->left.mask) s->row_parts = larger(s->row_parts, ceil_div(rows, MASKED_ROWS));
    s->row_parts = smaller(s->row_parts, rows);
}

/* A task's terms, gathered until there are enough for a run of the micro-kernel. */
typedef struct {
    const outer_sum *sum;
    size_t begin, end;              /* rows of d_weight */
    size_t first_panel, last_panel; /* its columns; last exclusive */
    size_t n;
    const real *left[DEPTH], *delta[DEPTH];
    real masked[DEPTH * MASKED_ROWS]; /* rows of left times their masks */
} terms;

static void gather(terms *g, size_t t, size_t row) {
    const outer_sum *s = g->sum;
    const size_t rows = g->end - g->begin;
    const real *left = row_of(&s->left, s->extent, t, row) + g->begin;
    if (s->left.mask) {
        real *masked = g->masked + g->n * rows;
        multiply_row(masked, left, s->left.mask + row * s->left.width + g->begin, rows);
        left = masked;
    }
    g->delta[g->n] = at(&s->delta, t, row);
    g->left[g->n++] = left;
}

/* d_bias += the sum over n packed rows of a panel. */
static void add_bias_terms(real *d_bias, panel c, const real *packed, size_t n) {
    for (size_t v = 0; v < c.width; v++) {
        size_t columns = smaller(c.columns - v * VL, VL);
        vec sum = load_upto(d_bias + v * VL, columns);
        for (size_t k = 0; k < n; k++) sum += load(packed + (k * c.width + v) * VL);
        store_upto(d_bias + v * VL, sum, columns);
    }
}

#define AHEAD 16 /* rows that are copied are asked for so many before: they lie apart */

/* Gather a task's columns of left in strips, [strip][term][STRIP], so that tiles read on and on. */
static void pack_strips(const terms *g, real *strips) {
    const size_t rows = g->end - g->begin;
    for (size_t k = 0; k < g->n; k++) {
        if (k + AHEAD < g->n) prefetch_row(g->left[k + AHEAD], rows);
        for (size_t i = 0; i < rows; i += STRIP)
            add_row(strips + i * DEPTH + k * STRIP, g->left[k] + i, NULL, smaller(rows - i, STRIP));
    }
}

/* `strips`: left's rows in them, or NULL to read it in place, as one. */
static void add_panel_terms(const terms *g, const real *strips, panel c) {
    const outer_sum *s = g->sum;
    const real *left[DEPTH];
    real packed[DEPTH * MAX_NARROW_WIDTH * VECTOR_BYTES / sizeof(real)] __attribute__((aligned(64)));
    for (size_t k = 0; k < g->n; k++) {
        if (k + AHEAD < g->n) prefetch_row(g->delta[k + AHEAD] + c.column, c.columns);
        copy_row(packed + k * c.width * VL, g->delta[k] + c.column, c.columns, c.width);
        left[k] = strips ? strips + k * STRIP : g->left[k];
    }
    operands o = {.left = left, .right = packed, .depth = g->n, .column = c.column, .columns = c.columns};
    const size_t rows = g->end - g->begin, strip = strips ? STRIP : rows;
    real *out[MAX_HEIGHT];
    o.init = (const real *const *)out, o.out = out;
    for (size_t begin = 0; s->d_weight && begin < rows; begin += strip) {
        const size_t own = smaller(rows - begin, strip), tiles = ceil_div(own, TALLEST(c.width));
        for (size_t i = 0; i < tiles; i++) {
            const size_t first = part(own, tiles, i), height = part(own, tiles, i + 1) - first;
            o.first = (strips ? begin * DEPTH : 0) + first;
            for (size_t r = 0; r < height; r++) {
                out[r] = s->d_weight + (g->begin + begin + first + r) * s->columns;
                prefetch_row(out[r] + height * s->columns + c.column, c.columns); /* the next tile's */
            }
            TILES[COLUMNS][c.width - 1][height - 1](&o);
        }
    }
    if (s->d_bias && g->begin == 0) add_bias_terms(s->d_bias + c.column, c, packed, g->n);
}

static void add_terms(terms *g) {
    const size_t rows = ceil_div(g->end - g->begin, STRIP) * STRIP;
    const int is_worth = g->last_panel - g->first_panel >= LEAST_PANELS;
    real *strips = is_worth ? elman_lease(rows * DEPTH * sizeof(real)) : NULL; /* without memory: in place */
    if (strips) pack_strips(g, strips);
    for (size_t p = g->first_panel; p < g->last_panel; p++) add_panel_terms(g, strips, panel_of(&g->sum->shape, p));
    if (strips) elman_return(strips);
    g->n = 0;
}

/* A token is a one-hot row: its term is one row of d_weight. */
static void add_token_term(const outer_sum *s, size_t column, size_t columns, size_t t, size_t row) {
    const real *delta = at(&s->delta, t, row) + column;
    real *d_weight = s->d_weight + (size_t)token_at(&s->left.rows, t, row) * s->columns + column;
    add_row(d_weight, d_weight, delta, columns);
}

static void outer_sum_task(const outer_sum *s, size_t task) {
    const size_t i = task / s->column_parts, j = task % s->column_parts, panels = s->shape.panels;
    terms g;
    g.sum = s, g.n = 0;
    g.begin = part(s->left.width, s->row_parts, i), g.end = part(s->left.width, s->row_parts, i + 1);
    g.first_panel = part(panels, s->column_parts, j), g.last_panel = part(panels, s->column_parts, j + 1);
    const panel own = panels_between(&s->shape, g.first_panel, g.last_panel);
    for (size_t step = s->extent->to; step-- > s->extent->from;) {
        const size_t t = time_of(s->extent, step, s->backwards);
        for (size_t row = 0; row < s->extent->B; row++) {
            if (t >= length_of(s->extent, row)) continue;
            if (s->left.has_tokens) {
                add_token_term(s, own.column, own.columns, t, row);
                continue;
            }
            gather(&g, t, row);
            if (g.n == DEPTH) add_terms(&g);
        }
    }
    if (g.n) add_terms(&g);
}

#endif
