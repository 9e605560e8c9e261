/* The micro-kernel: out = init + left right for a tile of out.
 *
 * A tile is `rows` x `width` vectors of out in registers. Its accumulators start from init and run over k ascending,
 * one multiply-add for each k: every element of a product is one chain, however rows and columns are blocked, so that
 * it never depends on which rows stand together or on the number of threads (docs/design.md, numerics).
 *
 * Rows of left, init and out are arrays of pointers: rows of a batch, of several time steps, or those still running at
 * one.
 */
#ifndef ELMAN_TILE_H
#define ELMAN_TILE_H

#include "simd.h"

#define MAX_WIDTH 8
#define MAX_NARROW_WIDTH 4 /* in mode COLUMNS */
#define MAX_HEIGHT 8

/* Tallest tile for a width: rows * width accumulators, the shorter side's numbers of one k, each in a vector of its
 * own, and one of the other side's fit the registers. */
#if REGISTERS == 32
#define TALLEST(width) \
    ((width) <= 3 ? 8 : (width) == 4 ? 6 : (width) == 5 ? 5 : (width) == 6 ? 4 : (width) == 7 ? 3 : 2)
#else
#define TALLEST(width) \
    ((width) == 1 ? 8 : (width) == 2 ? 6 : (width) == 3 ? 4 : (width) == 4 ? 3 : (width) <= 6 ? 2 : 1)
#endif

/* Of a mode; DIRECT, for few rows, has low tiles alone: the others would make wheels larger, and such calls no faster.
 */
#define MAX_DIRECT_HEIGHT 4
#define TALLEST_OF(mode, width) \
    ((mode) == DIRECT && TALLEST(width) > MAX_DIRECT_HEIGHT ? MAX_DIRECT_HEIGHT : TALLEST(width))

/* How a tile reads its operands. */
enum {
    PACKED,  /* left[row][k]; right in a packed panel */
    DIRECT,  /* left[row][k]; right in place: rows of the given stride, the last vector in part */
    COLUMNS, /* left[k][first + row], left transposed; right in a packed panel */
    MODES
};

typedef struct {
    const real *const *left, *const *init;
    real *const *out;
    const real *right;
    size_t depth, right_stride,
        first;              /* number of k; reals between two k of right; COLUMNS: the tile's first column of left */
    size_t column, columns; /* the tile's columns of init and out */
    const real *ahead;      /* PACKED: what is needed next, of which a line is asked for with each k, so many reals */
    size_t ahead_step;      /* after the one before: hardware looks no further than to the end of a page */
    /* PACKED: rows that the next product needs at these columns, n_soon for each of out. It writes the first one. */
    const real *const *soon;
    size_t n_soon;
} operands;

/* Whether tiles ask for rows themselves, between stretches of k, or who calls them does, all at once: less code, where
 * vectors are so short that the time goes into arithmetic. */
#define TILES_ASK (VECTOR_BYTES > 16)

/* Ask for some columns of rows, the first of which is to be written. Not unrolled, as there are many tiles. */
INLINE void ask_for(const real *const *rows, size_t n, size_t column, size_t columns) {
    const size_t each = 64 / sizeof(real);
#pragma GCC unroll 1
    for (size_t j = 0; j < columns; j += each) __builtin_prefetch(rows[0] + column + j, 1);
#pragma GCC unroll 1
    for (size_t i = 1; i < n; i++)
#pragma GCC unroll 1
        for (size_t j = 0; j < columns; j += each) __builtin_prefetch(rows[i] + column + j);
}

/* *p in all places, and sum + a b. Where a tile needs all of sixteen registers, Clang moves sums from one to another
 * and to memory, and takes twice as long (bench/tiles.sh), unless it is told that the first is a load, and that a
 * multiply-add leaves its sum where it was. */
#if defined(__clang__) && defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
INLINE vec broadcast(const real *p) {
    vec v;
    __asm__(PER_DTYPE("vbroadcastss", "vbroadcastsd") " %1, %0" : "=x"(v) : "m"(*p));
    return v;
}
INLINE vec add_product(vec a, vec b, vec sum) {
    __asm__(PER_DTYPE("vfmadd231ps", "vfmadd231pd") " %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}
#else
INLINE vec broadcast(const real *p) { return set1(*p); }
INLINE vec add_product(vec a, vec b, vec sum) { return fma_(a, b, sum); }
#endif

INLINE void tile(const size_t height, const size_t width, const int mode, const operands *o) {
    const size_t last = width - 1, rest = o->columns - last * VL; /* reals in the last vector */
    vec acc[MAX_HEIGHT][MAX_WIDTH];
    const real *left[MAX_HEIGHT];
#pragma GCC unroll 8
    for (size_t r = 0; r < height; r++) {
        const real *init = o->init[r] + o->column;
#pragma GCC unroll 8
        for (size_t v = 0; v < last; v++) acc[r][v] = load(init + v * VL);
        acc[r][last] = load_upto(init + last * VL, rest);
        if (mode != COLUMNS) left[r] = o->left[r];
    }
    const real *right = o->right;
    const size_t right_stride = mode == DIRECT ? o->right_stride : width * VL;
    /* Stretches of k, one for each row whose successors are asked for: all at once would hold the loop up. */
    const int asks = TILES_ASK && mode == PACKED && height > 1 && o->n_soon;
    const size_t stretches = asks ? height : 1;
#pragma GCC unroll 1
    for (size_t i = 0, k = 0; i < stretches; i++) {
        const size_t end = i + 1 < stretches ? o->depth / height * (i + 1) : o->depth;
        if (asks) ask_for(o->soon + i * o->n_soon, o->n_soon, o->column, o->columns);
        for (; k < end; k++, right += right_stride) {
            if (mode == PACKED) __builtin_prefetch(o->ahead + k * o->ahead_step);
            const real *left_k = mode == COLUMNS ? o->left[k] + o->first : NULL;
            vec kept[MAX_WIDTH]; /* of the shorter side; those of the other are loaded one after the other */
            if (height < width) {
#pragma GCC unroll 8
                for (size_t r = 0; r < height; r++) kept[r] = broadcast(mode == COLUMNS ? left_k + r : left[r] + k);
#pragma GCC unroll 8
                for (size_t r = 0; r < height; r++) KEEP(kept[r]);
#pragma GCC unroll 8
                for (size_t v = 0; v < width; v++) {
                    vec right_kv = mode == DIRECT && v == last ? load_upto(right + v * VL, rest) : load(right + v * VL);
                    if (height > 1) KEEP(right_kv);
#pragma GCC unroll 8
                    for (size_t r = 0; r < height; r++) acc[r][v] = add_product(kept[r], right_kv, acc[r][v]);
                }
                continue;
            }
#pragma GCC unroll 8
            for (size_t v = 0; v < width; v++)
                kept[v] = mode == DIRECT && v == last ? load_upto(right + v * VL, rest) : load(right + v * VL);
#pragma GCC unroll 8
            for (size_t v = 0; height > 1 && v < width; v++) KEEP(kept[v]);
#pragma GCC unroll 8
            for (size_t r = 0; r < height; r++) {
                vec left_rk = broadcast(mode == COLUMNS ? left_k + r : left[r] + k);
#pragma GCC unroll 8
                for (size_t v = 0; v < width; v++) acc[r][v] = add_product(left_rk, kept[v], acc[r][v]);
            }
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

/* Windows' convention would have each tile save ten of sixteen vector registers. */
#if defined(_WIN32) && defined(__x86_64__)
#define TILE __attribute__((sysv_abi)) void
#else
#define TILE void
#endif

/* The tiles that exist, by mode, width and height. */
typedef TILE tile_fn(const operands *);
#define DEFINE_TILE(mode, width, height)                                                      \
    __attribute__((unused)) static TILE tile_##mode##_##width##_##height(const operands *o) { \
        tile(height, width, mode, o);                                                         \
    }
#define NAME_TILE(mode, width, height) (height) <= TALLEST_OF(mode, width) ? tile_##mode##_##width##_##height : NULL,
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

#endif
