/* Products out = init + left right, made of tiles. */
#ifndef ELMAN_GEMM_H
#define ELMAN_GEMM_H

#include "plan.h"

/* A right operand right (depth, columns), its columns divided into panels of nearly equal width. PACKED: panel after
 * panel, each (depth, width * VL) with zeros beyond the columns; DIRECT: the array itself. Products are made with its
 * panels [from, to). Far: what a thread reads of it lies beyond the second-level cache. */
typedef struct {
    const real *data;
    size_t depth, columns, panels, from, to;
    int mode, is_far;
} matrix;

/* Columns [column, column + columns), in `width` vectors. */
typedef struct {
    size_t column, columns, width;
} panel;

INLINE panel panels_between(const matrix *right, size_t from, size_t to) {
    size_t vectors = ceil_div(right->columns, VL);
    size_t begin = part(vectors, right->panels, from), end = part(vectors, right->panels, to);
    return (panel){begin * VL, smaller(end * VL, right->columns) - begin * VL, end - begin};
}

INLINE panel panel_of(const matrix *right, size_t p) { return panels_between(right, p, p + 1); }

/* A matrix for products of at most `rows` rows at a time, of which `parts` threads make equal numbers of panels;
 * `place` then gives it memory. */
static matrix matrix_for(size_t depth, size_t columns, size_t rows, size_t parts, int mode) {
    const division each = cheapest_division(depth, share_of(columns, parts), smaller(rows, MAX_ROWS), MAX_WIDTH);
    const size_t panels = each.panels * parts;
    const int is_far = mode == PACKED && cycles_from_afar(depth * share_of(columns, parts) * sizeof(real)) > 0;
    return (matrix){.depth = depth, .columns = columns, .panels = panels, .to = panels, .mode = mode, .is_far = is_far};
}

INLINE size_t scratch_size(const matrix *right) {
    return right->mode == DIRECT ? 0 : right->depth * ceil_div(right->columns, VL) * VL;
}

/* Let right be the array itself, or a copy to be packed at the beginning of `scratch`; returns the rest of it. */
static real *place(matrix *right, const real *array, real *scratch) {
    right->data = right->mode == DIRECT ? array : scratch;
    return scratch + scratch_size(right);
}

/* Copy `columns` reals into `width` vectors, zeros behind them. */
INLINE void copy_row(real *to, const real *from, size_t columns, size_t width) {
    for (size_t v = 0; v < width; v++) store(to + v * VL, load_upto(from + v * VL, smaller(columns - v * VL, VL)));
}

/* to[i * width + j] = source[j * stride + i] for i < depth, j < columns; zeros beyond the columns. A cache line of each
 * column at a time: with some strides, columns push each other's lines out of the cache before these are read to the
 * end. */
static void transpose(real *to, size_t width, const real *source, size_t stride, size_t depth, size_t columns) {
    const size_t line = 64 / sizeof(real);
    for (size_t begin = 0; begin < depth; begin += line) {
        const size_t end = smaller(begin + line, depth), quads = begin + (end - begin) / 4 * 4;
        size_t j = 0;
        for (; j + 4 <= columns; j += 4) {
            for (size_t i = begin; i < quads; i += 4)
                transpose_quads(to + i * width + j, width, source + j * stride + i, stride);
            for (size_t k = j; k < j + 4; k++)
                for (size_t i = quads; i < end; i++) to[i * width + k] = source[k * stride + i];
        }
        for (; j < columns; j++)
            for (size_t i = begin; i < end; i++) to[i * width + j] = source[j * stride + i];
    }
    for (size_t i = 0; columns < width && i < depth; i++)
        memset(to + i * width + columns, 0, (width - columns) * sizeof(real));
}

/* Pack rows [k, k + depth) of panel p from source: source[i * stride + column] for row k + i or, transposed,
 * source[column * stride + i]. */
static void pack(const matrix *right, size_t p, size_t k, size_t depth, const real *source, size_t stride,
                 int transposed) {
    const panel c = panel_of(right, p);
    const size_t width = c.width * VL;
    real *to = (real *)right->data + c.column * right->depth + k * width;
    if (transposed)
        transpose(to, width, source + c.column * stride, stride, depth, c.columns);
    else
        for (size_t i = 0; i < depth; i++) copy_row(to + i * width, source + i * stride + c.column, c.columns, c.width);
}

/* What happens to a tile right after it was stored, in place: out[0..rows) at columns [column, column + columns). */
typedef struct epilogue {
    void (*apply)(const struct epilogue *, size_t row, size_t rows, size_t column, size_t columns, real *const *out);
    /* of a gradient (activations.h), rows as out's; mask may be NULL */
    const real *const *y, *const *d_y, *const *mask;
    const real *const *soon; /* of a gradient: as a tile's */
    size_t n_soon;
    /* for cells but Elman's: their numbers, and rows of the states before, of what they keep of the step, of what they
     * carry past the product, and of their numbers' gradients (or NULL) */
    const real *numbers;
    const real *const *before;
    real *const *second, *const *carry, *const *d_numbers;
} epilogue;

#define PANELS 16 /* of a product, between looks at whether to stop: with a depth of 10,000 some milliseconds */

/* out[r] = init[r] + left[r] right for n <= MAX_ROWS rows, then the epilogue, if any. */
static void gemm(const matrix *right, size_t n, const real *const *left, const real *const *init, real *const *out,
                 const epilogue *e) {
    if (n == 0) return; /* as all rows have ended */
    for (size_t p = right->from; p < right->to; p++) {
        if (p % PANELS == PANELS - 1 && elman_stopped()) return;
        const panel c = panel_of(right, p);
        const panel next = right->is_far ? panel_of(right, p + 1 < right->to ? p + 1 : right->from) : c;
        operands o = {.depth = right->depth, .right_stride = right->columns, .column = c.column, .columns = c.columns};
        o.right = right->data + (right->mode == PACKED ? c.column * right->depth : c.column);
        size_t tiles = ceil_div(n, TALLEST_OF(right->mode, c.width));
        o.ahead_step = right->is_far ? ceil_div(next.width * VL, tiles) : 0;
        for (size_t i = 0; i < tiles; i++) {
            size_t row = part(n, tiles, i), rows = part(n, tiles, i + 1) - row;
            o.left = left + row, o.init = init + row, o.out = out + row;
            if (e) o.soon = e->soon + row * e->n_soon, o.n_soon = e->n_soon;
            o.ahead = right->data + (next.column + i * o.ahead_step) * right->depth;
            for (size_t r = 0; !TILES_ASK && o.n_soon && r < rows; r++)
                ask_for(o.soon + r * o.n_soon, o.n_soon, c.column, c.columns);
            TILES[right->mode][c.width - 1][rows - 1](&o);
            if (e) e->apply(e, row, rows, c.column, c.columns, out + row);
        }
    }
}

#endif
