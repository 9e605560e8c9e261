/* The micro-kernel and the products made of it: out = init + a b.
 *
 * A tile is `rows` x `width` vectors of out in registers. Its accumulators start from init and run over k ascending,
 * one multiply-add for each k: every element of a product is one chain, however rows and columns are blocked, so that
 * it never depends on which rows stand together or on the number of threads (DESIGN, numerics).
 *
 * Rows of a, init and out are arrays of pointers: rows of a batch, of several time steps, or those still running at
 * one.
 */
#ifndef ELMAN_GEMM_H
#define ELMAN_GEMM_H

#include <math.h>

#include "simd.h"

#define MAX_WIDTH 8
#define MAX_NARROW_WIDTH 4 /* in mode COLUMNS */
#define MAX_HEIGHT 8
#define MAX_ROWS 96 /* rows that one call of `gemm` may be given; a multiple of every tile height */

/* Tallest tile for a width: rows * width accumulators, `width` vectors of b and a broadcast fit the registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TALLEST(width) \
    ((width) <= 3 ? 8 : (width) == 4 ? 6 : (width) == 5 ? 5 : (width) == 6 ? 4 : (width) == 7 ? 3 : 2)
#else
#define TALLEST(width) ((width) == 1 ? 8 : (width) == 2 ? 6 : (width) == 3 ? 4 : (width) <= 6 ? 2 : 1)
#endif

/* How a tile reads its operands. */
enum {
    PACKED,  /* a[row][k]; b in a packed panel */
    DIRECT,  /* a[row][k]; b in place: rows of the given stride, the last vector in part */
    COLUMNS, /* a[k][first + row], a transposed; b in a packed panel */
    MODES
};

typedef struct {
    const real *const *a, *const *init;
    real *const *out;
    const real *b;
    size_t depth, b_stride, first; /* number of k; reals between two k of b; COLUMNS: the tile's first column of a */
    size_t column, columns;        /* the tile's columns of init and out */
} operands;

INLINE void tile(const size_t height, const size_t width, const int mode, const operands *o) {
    const size_t last = width - 1, rest = o->columns - last * VL; /* reals in the last vector */
    vec acc[MAX_HEIGHT][MAX_WIDTH];
    const real *a[MAX_HEIGHT];
#pragma GCC unroll 8
    for (size_t r = 0; r < height; r++) {
        const real *init = o->init[r] + o->column;
#pragma GCC unroll 8
        for (size_t v = 0; v < last; v++) acc[r][v] = load(init + v * VL);
        acc[r][last] = load_upto(init + last * VL, rest);
        if (mode != COLUMNS) a[r] = o->a[r];
    }
    const real *b = o->b;
    const size_t b_stride = mode == DIRECT ? o->b_stride : width * VL;
    for (size_t k = 0; k < o->depth; k++, b += b_stride) {
        const real *a_k = mode == COLUMNS ? o->a[k] + o->first : NULL;
        vec b_k[MAX_WIDTH];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; v++)
            b_k[v] = mode == DIRECT && v == last ? load_upto(b + v * VL, rest) : load(b + v * VL);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; r++) {
            vec a_rk = set1(mode == COLUMNS ? a_k[r] : a[r][k]);
#pragma GCC unroll 8
            for (size_t v = 0; v < width; v++) acc[r][v] = fma_(a_rk, b_k[v], acc[r][v]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < height; r++) {
        real *out = o->out[r] + o->column;
#pragma GCC unroll 8
        for (size_t v = 0; v < last; v++) store(out + v * VL, acc[r][v]);
        store_upto(out + last * VL, acc[r][last], rest);
    }
}

/* The tiles that exist, by mode, width and height. */
typedef void tile_fn(const operands *);
#define DEFINE_TILE(mode, width, height)                                                      \
    __attribute__((unused)) static void tile_##mode##_##width##_##height(const operands *o) { \
        tile(height, width, mode, o);                                                         \
    }
#define NAME_TILE(mode, width, height) (height) <= TALLEST(width) ? tile_##mode##_##width##_##height : NULL,
#define LOW(DO, mode, width) DO(mode, width, 1) DO(mode, width, 2) DO(mode, width, 3) DO(mode, width, 4)
#define HIGH(DO, mode, width) DO(mode, width, 5) DO(mode, width, 6) DO(mode, width, 7) DO(mode, width, 8)
#define HEIGHTS(DO, mode, width) LOW(DO, mode, width) HIGH(DO, mode, width)
#define DEFINE_WIDTH(mode, width) HEIGHTS(DEFINE_TILE, mode, width)
#define NAME_WIDTH(mode, width) {HEIGHTS(NAME_TILE, mode, width)},
#define NARROW_WIDTHS(DO, mode) DO(mode, 1) DO(mode, 2) DO(mode, 3) DO(mode, 4)
#define WIDTHS(DO, mode) NARROW_WIDTHS(DO, mode) DO(mode, 5) DO(mode, 6) DO(mode, 7) DO(mode, 8)
WIDTHS(DEFINE_WIDTH, PACKED)
WIDTHS(DEFINE_WIDTH, DIRECT)
NARROW_WIDTHS(DEFINE_WIDTH, COLUMNS)
static tile_fn *const TILES[MODES][MAX_WIDTH][MAX_HEIGHT] = {
    {WIDTHS(NAME_WIDTH, PACKED)},
    {WIDTHS(NAME_WIDTH, DIRECT)},
    {NARROW_WIDTHS(NAME_WIDTH, COLUMNS)},
};

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }
INLINE size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

/* Part i of n things in `parts` nearly equal parts: its first thing. */
INLINE size_t part(size_t n, size_t parts, size_t i) { return n / parts * i + smaller(i, n % parts); }

/* A right operand b (depth, columns), its columns divided into panels of nearly equal width. PACKED: panel after panel,
 * each (depth, width * VL) with zeros beyond the columns; DIRECT: the array itself. */
typedef struct {
    const real *data;
    size_t depth, columns, panels;
    int mode;
} matrix;

/* Columns [column, column + columns) of panel p, in `width` vectors. */
typedef struct {
    size_t column, columns, width;
} panel;

INLINE panel panel_of(const matrix *b, size_t p) {
    size_t vectors = ceil_div(b->columns, VL);
    size_t begin = part(vectors, b->panels, p), end = part(vectors, b->panels, p + 1);
    return (panel){begin * VL, smaller(end * VL, b->columns) - begin * VL, end - begin};
}

/* The cost model: cycles that a tile takes for each k on a core with two multiply-adds of latency 4 and two loads a
 * cycle, and a second-level cache that brings two vectors in three cycles. */
static double tile_cycles(size_t width, size_t height, int from_second_level) {
    double arithmetic = (double)(width * height) / 2, loads = (double)(width + height) / 2;
    double far_loads = from_second_level ? 1.5 * (double)width : 0, most = arithmetic > loads ? arithmetic : loads;
    return most > far_loads ? (most > 4 ? most : 4) : (far_loads > 4 ? far_loads : 4);
}

/* The cheapest number of panels, each of at most `widest` vectors, for products (rows, depth) (depth, columns). Many
 * rows want narrow panels and tall tiles, a single one the widest. */
static size_t panels_for(size_t depth, size_t columns, size_t rows, size_t widest) {
    const size_t vectors = ceil_div(columns, VL), near = 32768 / VECTOR_BYTES; /* vectors in the first-level cache */
    size_t best = 1;
    double best_cost = INFINITY;
    for (; widest > 0; widest--) {
        size_t panels = ceil_div(vectors, widest), width = ceil_div(vectors, panels),
               tiles = ceil_div(rows, TALLEST(width));
        size_t reused = tiles > 1 ? width : vectors; /* what is read again soonest: the panel, or all of b */
        double height = (double)rows / (double)tiles, rest = height - (double)(size_t)height;
        double cost = tile_cycles(width, (size_t)height, depth * reused > near) * (1 - rest);
        if (rest > 0) cost += tile_cycles(width, (size_t)height + 1, depth * reused > near) * rest;
        cost *= (double)(panels * tiles);
        if (cost < 0.99 * best_cost) best = panels, best_cost = cost;
    }
    return best;
}

/* A matrix for products of at most `rows` rows at a time; `place` then gives it memory. */
static matrix matrix_for(size_t depth, size_t columns, size_t rows, int mode) {
    return (matrix){.depth = depth,
                    .columns = columns,
                    .panels = panels_for(depth, columns, smaller(rows, MAX_ROWS), MAX_WIDTH),
                    .mode = mode};
}

INLINE size_t scratch_size(const matrix *b) { return b->mode == DIRECT ? 0 : b->depth * ceil_div(b->columns, VL) * VL; }

/* Let b be the array itself, or a copy to be packed at the beginning of `scratch`; returns the rest of it. */
static real *place(matrix *b, const real *array, real *scratch) {
    b->data = b->mode == DIRECT ? array : scratch;
    return scratch + scratch_size(b);
}

/* Copy `columns` reals into `width` vectors, zeros behind them. */
INLINE void copy_row(real *to, const real *from, size_t columns, size_t width) {
    for (size_t v = 0; v < width; v++) store(to + v * VL, load_upto(from + v * VL, smaller(columns - v * VL, VL)));
}

/* Pack rows [k, k + depth) of panel p from source: source[i * stride + column] for row k + i or, transposed,
 * source[column * stride + i]. */
static void pack(const matrix *b, size_t p, size_t k, size_t depth, const real *source, size_t stride, int transposed) {
    panel c = panel_of(b, p);
    size_t width = c.width * VL;
    real *to = (real *)b->data + c.column * b->depth + k * width;
    for (size_t i = 0; i < depth; i++, to += width) {
        if (!transposed) {
            copy_row(to, source + i * stride + c.column, c.columns, c.width);
            continue;
        }
        for (size_t j = 0; j < c.columns; j++) to[j] = source[(c.column + j) * stride + i];
        for (size_t j = c.columns; j < width; j++) to[j] = 0;
    }
}

/* What happens to a tile right after it was stored, in place: out[0..rows) at columns [column, column + columns). */
typedef struct epilogue {
    void (*apply)(const struct epilogue *, size_t row, size_t rows, size_t column, size_t columns, real *const *out);
    const real *const *y, *const *d_y,
                              *const *mask; /* of a gradient (activations.h), rows as out's; mask may be NULL */
} epilogue;

/* out[r] = init[r] + a[r] b for n <= MAX_ROWS rows, then the epilogue, if any. */
static void gemm(const matrix *b, size_t n, const real *const *a, const real *const *init, real *const *out,
                 const epilogue *e) {
    for (size_t p = 0; p < b->panels; p++) {
        panel c = panel_of(b, p);
        operands o = {.depth = b->depth, .b_stride = b->columns, .column = c.column, .columns = c.columns};
        o.b = b->data + (b->mode == PACKED ? c.column * b->depth : c.column);
        size_t tiles = ceil_div(n, TALLEST(c.width));
        for (size_t i = 0; i < tiles; i++) {
            size_t row = part(n, tiles, i), rows = part(n, tiles, i + 1) - row;
            o.a = a + row, o.init = init + row, o.out = out + row;
            TILES[b->mode][c.width - 1][rows - 1](&o);
            if (e) e->apply(e, row, rows, c.column, c.columns, out + row);
        }
    }
}

#endif
