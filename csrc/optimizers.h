/* Updates of a model's parameters, all in one flat array: element-wise, so that blocks may run in any order. */
#ifndef ELMAN_OPTIMIZERS_H
#define ELMAN_OPTIMIZERS_H

#include <math.h>

#include "elman.h"
#include "gemm.h"
#include "pool.h"

#define BLOCK 8192 /* values of a task, some microseconds */

typedef struct {
    size_t n;
    real *parameters, *state, *square;
    const real *gradient;
    real lr, rate, decay, correction, beta1, beta2, eps; /* those that the update uses */
} update;

/* Run `task` over blocks: what a value costs does not matter much, memory decides. */
static void run_blocks(elman_task *task, void *context, size_t n) {
    elman_run(task, context, ceil_div(n, BLOCK), 1 + (int)smaller(n / (4 * BLOCK), 255));
}

/* for each vector of block i, its first value being j, of which `count` are in the array */
#define FOR_BLOCK(n) \
    for (size_t j = i * BLOCK, count; j < smaller((i + 1) * BLOCK, n) && (count = smaller(n - j, VL)); j += VL)

static void sgd_block(void *context, size_t i) {
    const update *u = context;
    FOR_BLOCK(u->n) {
        vec step = load_upto(u->gradient + j, count);
        if (u->state) {
            step = fma_(set1(u->beta1), load_upto(u->state + j, count), step);
            store_upto(u->state + j, step, count);
        }
        store_upto(u->parameters + j, fma_(set1(-u->lr), step, load_upto(u->parameters + j, count)), count);
    }
}

static void adagrad_block(void *context, size_t i) {
    const update *u = context;
    FOR_BLOCK(u->n) {
        vec g = load_upto(u->gradient + j, count), s = fma_(g, g, load_upto(u->square + j, count));
        store_upto(u->square + j, s, count);
        store_upto(u->parameters + j, load_upto(u->parameters + j, count) - set1(u->lr) * g / (sqrt_(s) + set1(u->eps)),
                   count);
    }
}

static void adam_block(void *context, size_t i) {
    const update *u = context;
    FOR_BLOCK(u->n) {
        vec g = load_upto(u->gradient + j, count);
        vec m = fma_(set1(u->beta1), load_upto(u->state + j, count), set1(1 - u->beta1) * g);
        vec v = fma_(set1(u->beta2), load_upto(u->square + j, count), set1(1 - u->beta2) * g * g);
        vec step = set1(u->rate) * m / (sqrt_(v / set1(u->correction)) + set1(u->eps));
        store_upto(u->state + j, m, count);
        store_upto(u->square + j, v, count);
        store_upto(u->parameters + j, load_upto(u->parameters + j, count) * set1(u->decay) - step, count);
    }
}

static void sgd(size_t n, void *parameters, const void *gradient, void *velocity, double lr, double momentum) {
    update u = {.n = n,
                .parameters = parameters,
                .gradient = gradient,
                .state = velocity,
                .lr = (real)lr,
                .beta1 = (real)momentum};
    run_blocks(sgd_block, &u, n);
}

static void adagrad(size_t n, void *parameters, const void *gradient, void *square_sum, double lr, double eps) {
    update u = {
        .n = n, .parameters = parameters, .gradient = gradient, .square = square_sum, .lr = (real)lr, .eps = (real)eps};
    run_blocks(adagrad_block, &u, n);
}

static void adam(size_t n, void *parameters, const void *gradient, void *mean, void *square, double lr, double beta1,
                 double beta2, double eps, double weight_decay, int64_t step) {
    update u = {.n = n,
                .parameters = parameters,
                .gradient = gradient,
                .state = mean,
                .square = square,
                .beta1 = (real)beta1,
                .beta2 = (real)beta2,
                .eps = (real)eps};
    u.rate = (real)(lr / (1 - pow(beta1, (double)step)));
    u.correction = (real)(1 - pow(beta2, (double)step));
    u.decay = (real)(1 - lr * weight_decay);
    run_blocks(adam_block, &u, n);
}

typedef struct {
    size_t n;
    real *values;
    double *squares; /* of each block */
    real factor;
} scaling;

/* In double, by eight sums that every instruction set adds alike. */
static void square_block(void *context, size_t i) {
    const scaling *s = context;
    const real *p = s->values + i * BLOCK;
    size_t n = smaller(s->n - i * BLOCK, BLOCK), j = 0;
    double part[8] = {0};
    for (; j + 8 <= n; j += 8)
        for (size_t k = 0; k < 8; k++) part[k] += (double)p[j + k] * (double)p[j + k];
    for (; j < n; j++) part[0] += (double)p[j] * (double)p[j];
    s->squares[i] = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static void scale_block(void *context, size_t i) {
    const scaling *s = context;
    FOR_BLOCK(s->n) store_upto(s->values + j, load_upto(s->values + j, count) * set1(s->factor), count);
}

static int clip_norm(size_t n, void *gradient, double max_norm, double *norm) {
    const size_t blocks = ceil_div(n, BLOCK);
    scaling s = {.n = n, .values = gradient, .squares = elman_lease(blocks * sizeof(double))};
    if (!s.squares) return ELMAN_NO_MEMORY;
    run_blocks(square_block, &s, n);
    double total = 0;
    for (size_t i = 0; i < blocks; i++) total += s.squares[i];
    elman_return(s.squares);
    *norm = sqrt(total);
    s.factor = (real)(max_norm / *norm);
    if (*norm > max_norm && *norm < INFINITY) run_blocks(scale_block, &s, n);
    return 0;
}

#endif
