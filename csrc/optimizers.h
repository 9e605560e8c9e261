/* Updates of a model's parameters, all in one flat array: element-wise, so that blocks may run in any order. */
#ifndef ELMAN_OPTIMIZERS_H
#define ELMAN_OPTIMIZERS_H

#include <math.h>

#include "elman.h"
#include "gemm.h"
#include "pool.h"

#define BLOCK 8192 /* values of a task, some microseconds */

/* Run `task` over blocks: what a value costs does not matter much, memory decides. */
static void run_blocks(elman_task *task, void *context, size_t n) {
    elman_run(task, context, ceil_div(n, BLOCK), 1 + (int)smaller(n / (4 * BLOCK), 255));
}

/* for each vector of block i, its first value being j, of which `count` are in the array */
#define FOR_BLOCK(n) \
    for (size_t j = i * BLOCK, count; j < smaller((i + 1) * BLOCK, n) && (count = smaller(n - j, VL)); j += VL)

static void sgd_block(void *context, size_t i) {
    const elman_update *u = context;
    const real lr = (real)u->numbers[0], momentum = (real)u->numbers[1], *gradient = u->gradient;
    real *parameters = u->parameters, *velocity = u->memories[0];
    FOR_BLOCK(u->n) {
        vec step = load_upto(gradient + j, count);
        if (velocity) {
            step = fma_(set1(momentum), load_upto(velocity + j, count), step);
            store_upto(velocity + j, step, count);
        }
        store_upto(parameters + j, fma_(set1(-lr), step, load_upto(parameters + j, count)), count);
    }
}

static void adagrad_block(void *context, size_t i) {
    const elman_update *u = context;
    const real lr = (real)u->numbers[0], eps = (real)u->numbers[1], *gradient = u->gradient;
    real *parameters = u->parameters, *square_sum = u->memories[0];
    FOR_BLOCK(u->n) {
        vec g = load_upto(gradient + j, count), s = fma_(g, g, load_upto(square_sum + j, count));
        store_upto(square_sum + j, s, count);
        store_upto(parameters + j, load_upto(parameters + j, count) - set1(lr) * g / (sqrt_(s) + set1(eps)), count);
    }
}

static void adam_block(void *context, size_t i) {
    const elman_update *u = context;
    const double lr = u->numbers[0], step = u->numbers[5];
    const real beta1 = (real)u->numbers[1], beta2 = (real)u->numbers[2], eps = (real)u->numbers[3];
    const real rest1 = (real)(1 - u->numbers[1]), rest2 = (real)(1 - u->numbers[2]); /* of what is not rounded */
    const real rate = (real)(lr / (1 - pow(u->numbers[1], step)));
    const real root = (real)(1 / sqrt(1 - pow(u->numbers[2], step))); /* not a division for each value */
    const real decay = (real)(1 - lr * u->numbers[4]), *gradient = u->gradient;
    real *parameters = u->parameters, *mean = u->memories[0], *square = u->memories[1];
    FOR_BLOCK(u->n) {
        vec g = load_upto(gradient + j, count);
        vec m = fma_(set1(beta1), load_upto(mean + j, count), set1(rest1) * g);
        vec v = fma_(set1(beta2), load_upto(square + j, count), set1(rest2) * g * g);
        vec change = set1(rate) * m / fma_(sqrt_(v), set1(root), set1(eps));
        store_upto(mean + j, m, count);
        store_upto(square + j, v, count);
        store_upto(parameters + j, load_upto(parameters + j, count) * set1(decay) - change, count);
    }
}

/* An exponential mean of parameters, which stand in the place of a gradient. */
static void average_block(void *context, size_t i) {
    const elman_update *u = context;
    const real rate = (real)u->numbers[0], *values = u->gradient;
    real *mean = u->parameters;
    FOR_BLOCK(u->n) {
        vec m = load_upto(mean + j, count);
        store_upto(mean + j, fma_(set1(rate), load_upto(values + j, count) - m, m), count);
    }
}

static const elman_rule RULES[] = {{"sgd", (const void *)sgd_block, 0, 1, 2},
                                   {"adagrad", (const void *)adagrad_block, 1, 1, 2},
                                   {"adam", (const void *)adam_block, 2, 2, 6},
                                   {"average", (const void *)average_block, 0, 0, 1},
                                   {NULL, NULL, 0, 0, 0}};

static void run_update(const elman_update *u, const void *task) { run_blocks((elman_task *)task, (void *)u, u->n); }

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
