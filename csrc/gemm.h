/* The micro-kernel and the products made of it: out = init + a b.
 *
 * A tile is `rows` x `width` vectors of out in registers. Its accumulators start from init and run over k ascending, one
 * multiply-add for each k: every element of a product is one chain, however rows and columns are blocked, so that it never
 * depends on which rows stand together or on the number of threads (DESIGN, numerics).
 *
 * Rows of a, init and out are arrays of pointers: rows of a batch, of several time steps, or those still running at one.
 */
#ifndef ELMAN_GEMM_H
#define ELMAN_GEMM_H

#include "simd.h"

#define MAX_WIDTH 8
#define MAX_NARROW_WIDTH 4 /* in mode COLUMNS */
#define MAX_HEIGHT 8
#define MAX_ROWS 96 /* rows that one call of `gemm` may be given; a multiple of every tile height */

/* Tallest tile for a width: rows * width accumulators, `width` vectors of b and a broadcast fit the registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TALLEST(width) ((width) <= 3 ? 8 : (width) == 4 ? 6 : (width) == 5 ? 5 : (width) == 6 ? 4 : (width) == 7 ? 3 : 2)
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
        for (size_t v = 0; v < width; v++) b_k[v] = mode == DIRECT && v == last ? load_upto(b + v * VL, rest) : load(b + v * VL);
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
#define DEFINE_TILE(mode, width, height) \
    __attribute__((unused)) static void tile_##mode##_##width##_##height(const operands *o) { tile(height, width, mode, o); }
#define NAME_TILE(mode, width, height) (height) <= TALLEST(width) ? tile_##mode##_##width##_##height : NULL,
#define HEIGHTS(DO, mode, width) \
    DO(mode, width, 1) DO(mode, width, 2) DO(mode, width, 3) DO(mode, width, 4) \
    DO(mode, width, 5) DO(mode, width, 6) DO(mode, width, 7) DO(mode, width, 8)
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

/* A right operand b (depth, columns), its columns divided into panels of nearly equal width, at most `widest` vectors. */
typedef struct {
    const real *data; /* DIRECT: the array itself; PACKED: panel after panel, each (depth, width * VL), 0 beyond columns */
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

INLINE size_t packed_size(size_t depth, size_t columns) { return depth * ceil_div(columns, VL) * VL; }

/* Panels, each of at most `widest` vectors, for products of `rows` rows: those whose tiles take the fewest cycles for each
 * k. A tile takes one cycle for two multiply-adds, but four (their latency) where it has less than 8 of them; loads break
 * ties. So panels are narrow for many rows, and up to 8 vectors wide for a single one. */
static size_t panels_for(size_t columns, size_t rows, size_t widest) {
    size_t vectors = ceil_div(columns, VL), best = 0, best_cost = SIZE_MAX;
    for (; widest > 0; widest--) {
        size_t panels = ceil_div(vectors, widest), width = ceil_div(vectors, panels);
        size_t tiles = ceil_div(rows, TALLEST(width)), height = ceil_div(rows, tiles);
        size_t cost = panels * tiles * (8 * larger(width * height, 8) + width + height);
        if (cost < best_cost) best = panels, best_cost = cost;
    }
    return best;
}

/* Pack rows [k, k + depth) of panel p from source: source[i * stride + column] for row k + i or, transposed,
 * source[column * stride + i]. */
static void pack(const matrix *b, size_t p, size_t k, size_t depth, const real *source, size_t stride, int transposed) {
    panel columns = panel_of(b, p);
    size_t width = columns.width * VL;
    real *to = (real *)b->data + columns.column * b->depth + k * width;
    for (size_t i = 0; i < depth; i++, to += width) {
        if (transposed)
            for (size_t j = 0; j < columns.columns; j++) to[j] = source[(columns.column + j) * stride + i];
        else
            memcpy(to, source + i * stride + columns.column, columns.columns * sizeof(real));
        memset(to + columns.columns, 0, (width - columns.columns) * sizeof(real));
    }
}

/* What happens to a tile right after it was stored, in place: out[0..rows) at columns [column, column + columns). */
typedef struct epilogue {
    void (*apply)(const struct epilogue *, size_t row, size_t rows, size_t column, size_t columns, real *const *out);
    const real *const *y, *const *d_y, *const *mask; /* of a gradient (activations.h), rows as out's; mask may be NULL */
} epilogue;

/* out[r] = init[r] + a[r] b for n <= MAX_ROWS rows, then the epilogue, if any. */
static void gemm(const matrix *b, size_t n, const real *const *a, const real *const *init, real *const *out, const epilogue *e) {
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
