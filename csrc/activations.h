/* The activations: f(a), and d f'(a) as a function of d and f(a); and the cells with each of them, applied to a tile
 * while it is in the first-level cache. */
#ifndef ELMAN_ACTIVATIONS_H
#define ELMAN_ACTIVATIONS_H

#include "elman.h"
#include "gemm.h"
#include "vecmath.h"

INLINE vec relu_(vec a) { return choose(a < set1(0), set1(0), a); } /* NaN stays */
INLINE vec identity_(vec a) { return a; }
INLINE vec retanh_(vec a) { return relu_(tanh_(a)); }
INLINE vec power_(vec a) { return relu_(a) * relu_(a); }

/* Where a unit is at 0, nothing goes back, be it infinite; where it is NaN, all does. */
INLINE vec d_relu(vec d, vec y) { return choose(y <= set1(0), set1(0), d); }
INLINE vec d_tanh(vec d, vec y) { return d * fma_(-y, y, set1(1)); }
INLINE vec d_sigmoid(vec d, vec y) { return d * (y * (set1(1) - y)); }
INLINE vec d_identity(vec d, vec y) { return (void)y, d; }
INLINE vec d_softplus(vec d, vec y) { return d * one_minus_exp(y); }
INLINE vec d_retanh(vec d, vec y) { return d_tanh(d_relu(d, y), y); }
INLINE vec d_power(vec d, vec y) { return d_relu(d, y) * (set1(2) * sqrt_(y)); }

#define ACTIVATIONS(F, cell) \
    F(cell, tanh) F(cell, relu) F(cell, sigmoid) F(cell, identity) F(cell, softplus) F(cell, retanh) F(cell, power)

typedef vec function(vec);
typedef vec gradient(vec d, vec y);

/* What a cell is (cells/), in two functions of some elements of a row, n of them from column j on: its output y from a,
 * with f at hand, and from the gradient by y that by a, with that of f. What they need besides is in the epilogue. A
 * cell says whether it has a number of its own for each unit, whether there must be `second` and `carry` (elman.h), and
 * whether `second` is its state: what goes from step to step in y's place, y being f of it. */
#include "cells.h"

/* A cell's two epilogues for an activation: out = output(out), and out = delta(d_y + mask out); behind them Elman's. */
#define DEFINE_EPILOGUES(cell, name)                                                                               \
    static void cell##_apply_##name(const epilogue *e, size_t row, size_t rows, size_t column, size_t columns,     \
                                    real *const *out) {                                                            \
        for (size_t r = 0; r < rows; r++)                                                                          \
            for (size_t j = column; j < column + columns; j += VL) {                                               \
                size_t n = smaller(column + columns - j, VL);                                                      \
                store_upto(out[r] + j, cell##_output(e, row + r, j, n, load_upto(out[r] + j, n), name##_), n);     \
            }                                                                                                      \
    }                                                                                                              \
    static void cell##_gradient_##name(const epilogue *e, size_t row, size_t rows, size_t column, size_t columns,  \
                                       real *const *out) {                                                         \
        for (size_t r = 0; r < rows; r++)                                                                          \
            for (size_t j = column; j < column + columns; j += VL) {                                               \
                size_t n = smaller(column + columns - j, VL);                                                      \
                const real *y = e->y[row + r] + j, *d_y = e->d_y[row + r] + j;                                     \
                vec d = load_upto(out[r] + j, n);                                                                  \
                if (e->mask) d = load_upto(e->mask[row + r] + j, n) * d;                                           \
                d = load_upto(d_y, n) + d;                                                                         \
                store_upto(out[r] + j, cell##_delta(e, row + r, j, n, d, load_upto(y, n), d_##name), n);           \
            }                                                                                                      \
    }                                                                                                              \
    static const void *const cell##_pairs_##name[] = {                                                             \
        (const void *)cell##_apply_##name, (const void *)cell##_gradient_##name, (const void *)elman_apply_##name, \
        (const void *)elman_gradient_##name};
#define NAMED_PAIR(cell, name) {#name, cell##_pairs_##name},
#define DEFINE_CELL(cell)               \
    ACTIVATIONS(DEFINE_EPILOGUES, cell) \
    static const elman_named cell##_pairs[] = {ACTIVATIONS(NAMED_PAIR, cell){NULL, NULL}};
#define NAMED_CELL(cell) \
    {#cell, cell##_pairs, cell##_has_numbers, cell##_has_second, cell##_has_carry, cell##_state_is_second},

CELLS(DEFINE_CELL)
static const elman_cell CELL_LIST[] = {CELLS(NAMED_CELL){NULL, NULL, 0, 0, 0, 0}};

typedef void epilogue_fn(const epilogue *, size_t row, size_t rows, size_t column, size_t columns, real *const *out);

INLINE epilogue_fn *apply_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[0]; }
INLINE epilogue_fn *gradient_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[1]; }
INLINE epilogue_fn *plain_apply_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[2]; }
INLINE epilogue_fn *plain_gradient_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[3]; }

#endif
