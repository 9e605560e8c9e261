/* The activations: f(a), and f' as a function of y = f(a), applied to a tile while it is in the first-level cache. */
#ifndef ELMAN_ACTIVATIONS_H
#define ELMAN_ACTIVATIONS_H

#include "elman.h"
#include "gemm.h"
#include "vecmath.h"

INLINE vec relu_(vec a) { return choose(a < set1(0), set1(0), a); } /* NaN stays */
INLINE vec identity_(vec a) { return a; }

INLINE vec d_tanh(vec y) { return fma_(-y, y, set1(1)); }
INLINE vec d_relu(vec y) { return choose(y > set1(0), set1(1), set1(0)); }
INLINE vec d_sigmoid(vec y) { return y * (set1(1) - y); }
INLINE vec d_identity(vec y) { return (void)y, set1(1); }

/* An activation's two epilogues: out = f(out), and out = (d_y + mask out) f'(y). */
#define DEFINE_ACTIVATION(name)                                                                            \
    static void apply_##name(const epilogue *e, size_t row, size_t rows, size_t column, size_t columns,    \
                             real *const *out) {                                                           \
        (void)e, (void)row;                                                                                \
        for (size_t r = 0; r < rows; r++)                                                                  \
            for (size_t j = 0; j < columns; j += VL) {                                                     \
                real *p = out[r] + column + j;                                                             \
                size_t n = smaller(columns - j, VL);                                                       \
                store_upto(p, name##_(load_upto(p, n)), n);                                                \
            }                                                                                              \
    }                                                                                                      \
    static void gradient_##name(const epilogue *e, size_t row, size_t rows, size_t column, size_t columns, \
                                real *const *out) {                                                        \
        for (size_t r = 0; r < rows; r++)                                                                  \
            for (size_t j = column; j < column + columns; j += VL) {                                       \
                size_t n = smaller(column + columns - j, VL);                                              \
                const real *y = e->y[row + r] + j, *d_y = e->d_y[row + r] + j;                             \
                __builtin_prefetch(y + e->next_y);                                                         \
                __builtin_prefetch(d_y + e->next_d_y);                                                     \
                __builtin_prefetch(out[r] + j + e->next_out);                                              \
                vec d = load_upto(out[r] + j, n);                                                          \
                if (e->mask) d = load_upto(e->mask[row + r] + j, n) * d;                                   \
                d = load_upto(d_y, n) + d;                                                                 \
                store_upto(out[r] + j, d * d_##name(load_upto(y, n)), n);                                  \
            }                                                                                              \
    }

#define ACTIVATIONS(F) F(tanh) F(relu) F(sigmoid) F(identity)

ACTIVATIONS(DEFINE_ACTIVATION)

typedef void epilogue_fn(const epilogue *, size_t row, size_t rows, size_t column, size_t columns, real *const *out);

#define PAIR(name) static const void *const name##_pair[] = {(const void *)apply_##name, (const void *)gradient_##name};
#define NAMED_PAIR(name) {#name, name##_pair},
ACTIVATIONS(PAIR)
static const elman_named ACTIVATION_LIST[] = {ACTIVATIONS(NAMED_PAIR){NULL, NULL}};

INLINE epilogue_fn *apply_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[0]; }
INLINE epilogue_fn *gradient_of(const elman_layer *l) { return (epilogue_fn *)l->epilogues[1]; }

#endif
