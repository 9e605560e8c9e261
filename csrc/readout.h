/* The readout and its loss: outputs, loss, gradient by the outputs and d_h for one block of rows at a time, while these
 * are in the cache; then the gradient of the weights. */
#ifndef ELMAN_READOUT_H
#define ELMAN_READOUT_H

#include <math.h>

#include "rows.h"
#include "vecmath.h"

/* The first n <= VL elements, the others `pad`. */
INLINE vec load_padded(const real *p, size_t n, real pad) {
    if (n == VL) return load(p);
    real part[VECTOR_BYTES / sizeof(real)];
    for (size_t i = 0; i < VL; i++) part[i] = i < n ? p[i] : pad;
    return load(part);
}

/* Each loss: of one row of outputs o, which with `gradient` becomes scale times the loss's gradient by it. */
typedef double loss_fn(real *o, size_t columns, const void *target, real scale, int gradient);

static double cross_entropy(real *o, size_t columns, const void *target, real scale, int gradient) {
    const int64_t token = *(const int64_t *)target;
    if (token < 0) {
        if (gradient) memset(o, 0, columns * sizeof(real));
        return 0;
    }
    vec most = set1(-INFINITY), total = set1(0);
    for (size_t j = 0; j < columns; j += VL) most = max_(load_padded(o + j, smaller(columns - j, VL), -INFINITY), most);
    real max = most[0];
    for (size_t i = 1; i < VL; i++) max = most[i] > max ? most[i] : max;
    const real at_token = o[token] - max;
    for (size_t j = 0; j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        vec e = exp_negative(load_padded(o + j, n, -INFINITY) - set1(max));
        total += e;
        store_upto(o + j, e, n);
    }
    const real sum_of_exp = sum(total);
    for (size_t j = 0; gradient && j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        store_upto(o + j, load_upto(o + j, n) * set1(scale / sum_of_exp), n);
    }
    if (gradient) o[token] -= scale;
    return log((double)sum_of_exp) - (double)at_token;
}

static double binary_cross_entropy(real *o, size_t columns, const void *target, real scale, int gradient) {
    const real *y = target;
    double loss = 0;
    for (size_t j = 0; j < columns; j++)
        loss += (o[j] > 0 ? (double)o[j] : 0) - (double)o[j] * (double)y[j] + log1p(exp(-fabs((double)o[j])));
    for (size_t j = 0; gradient && j < columns; j += VL) {
        size_t n = smaller(columns - j, VL);
        store_upto(o + j, (sigmoid_(load_upto(o + j, n)) - load_upto(y + j, n)) * set1(scale), n);
    }
    return loss;
}

static double squared_error(real *o, size_t columns, const void *target, real scale, int gradient) {
    const real *y = target;
    double loss = 0;
    for (size_t j = 0; j < columns; j++) {
        real error = o[j] - y[j];
        loss += (double)error * (double)error;
        if (gradient) o[j] = 2 * error * scale;
    }
    return loss;
}

/* Of which the gradient is the target: that of a loss that no kernel knows is taken back by this one. */
static double linear(real *o, size_t columns, const void *target, real scale, int gradient) {
    const real *y = target;
    double loss = 0;
    for (size_t j = 0; j < columns; j++) {
        loss += (double)o[j] * (double)y[j];
        if (gradient) o[j] = y[j] * scale;
    }
    return loss;
}

static loss_fn *const LOSSES[] = {[ELMAN_CROSS_ENTROPY] = cross_entropy,
                                  [ELMAN_BINARY_CROSS_ENTROPY] = binary_cross_entropy,
                                  [ELMAN_SQUARED_ERROR] = squared_error,
                                  [ELMAN_LINEAR] = linear};

typedef struct {
    const elman_readout *readout;
    extent extent;
    matrix weight, transposed; /* (K, O), (O, K) */
    const real *zeros;
    double *losses;   /* of each task, or NULL for the outputs alone */
    int has_gradient; /* by the outputs */
    outer_sum sum;
} readout_pass;

static const void *target_at(const elman_readout *r, size_t t, size_t b) {
    if (r->loss != ELMAN_CROSS_ENTROPY) return at(&r->target, t, b);
    return (const int64_t *)r->target.data + (ptrdiff_t)t * r->target.t_stride + (ptrdiff_t)b * r->target.b_stride;
}

/* The loss of one row of outputs times its weight. A weight of 0 hides whatever the row and its target hold. */
static double weighted_loss(const elman_readout *r, real *o, const void *target, real weight, int gradient) {
    if (weight == 0) {
        if (gradient) memset(o, 0, r->O * sizeof(real));
        return 0;
    }
    return (double)weight * LOSSES[r->loss](o, r->O, target, (real)r->scale * weight, gradient);
}

/* MAX_ROWS places of (T, B). */
static void readout_rows(void *context, size_t task) {
    const readout_pass *p = context;
    const elman_readout *r = p->readout;
    const real *h[MAX_ROWS], *init[MAX_ROWS];
    real *o[MAX_ROWS], *d_h[MAX_ROWS];
    const void *target[MAX_ROWS];
    real weight[MAX_ROWS];
    const int gradient = p->has_gradient;
    size_t n = 0, end = smaller((task + 1) * MAX_ROWS, r->T * r->B);
    for (size_t i = task * MAX_ROWS; i < end; i++) {
        size_t t = i / r->B, b = i % r->B;
        if (t >= length_of(&p->extent, b)) continue;
        h[n] = at(&r->h, t, b), o[n] = at(&r->o, t, b), init[n] = r->bias ? r->bias : p->zeros;
        if (p->losses) target[n] = target_at(r, t, b), weight[n] = r->weights.data ? *at(&r->weights, t, b) : 1;
        if (r->d_h.data) d_h[n] = at(&r->d_h, t, b);
        n++;
    }
    gemm(&p->weight, n, h, init, o, NULL);
    if (!p->losses) return;
    double loss = 0;
    for (size_t i = 0; i < n; i++) loss += weighted_loss(r, o[i], target[i], weight[i], gradient), init[i] = p->zeros;
    p->losses[task] = loss;
    if (r->d_h.data) gemm(&p->transposed, n, (const real *const *)o, init, d_h, NULL);
}

static void pack_weight(void *context, size_t i) {
    const readout_pass *p = context;
    pack(&p->weight, i, 0, p->readout->K, p->readout->weight, p->readout->O, 0);
}

static void pack_transposed(void *context, size_t i) {
    const readout_pass *p = context;
    pack(&p->transposed, i, 0, p->readout->O, p->readout->weight, p->readout->O, 1);
}

static void readout_gradient(void *context, size_t i) { outer_sum_task(&((const readout_pass *)context)->sum, i); }

/* Without a place for the loss, the outputs alone. */
static int run_readout(const elman_readout *r, double *loss) {
    const size_t rows = r->T * r->B, tasks = ceil_div(rows, MAX_ROWS), widest = larger(r->K, r->O);
    const int goes_back = loss && r->d_h.data, sums = loss && (r->d_weight || r->d_bias);
    const double products = 1 + goes_back + sums;
    const size_t threads = threads_for(2.0 * (double)rows * (double)r->K * (double)r->O * products);
    readout_pass p = {.readout = r, .extent = {r->T, r->B, r->lengths, 0, r->T}, .has_gradient = goes_back || sums};
    p.weight = matrix_for(r->K, r->O, rows, 1, mode_for(rows));
    p.transposed = matrix_for(r->O, r->K, rows, 1, goes_back ? PACKED : DIRECT);
    const size_t reals = scratch_size(&p.weight) + scratch_size(&p.transposed) + ceil_div(widest, VL) * VL;
    real *const scratch = elman_lease(reals * sizeof(real) + tasks * sizeof(double));
    if (!scratch) return ELMAN_NO_MEMORY;
    real *const zeros = place(&p.transposed, NULL, place(&p.weight, r->weight, scratch));
    p.zeros = memset(zeros, 0, widest * sizeof(real));
    p.losses = loss ? (double *)(scratch + reals) : NULL;
    if (p.weight.mode == PACKED) elman_run(pack_weight, &p, p.weight.panels, threads);
    if (goes_back) elman_run(pack_transposed, &p, p.transposed.panels, threads);
    elman_run(readout_rows, &p, tasks, threads);
    if (loss) *loss = 0;
    for (size_t i = 0; loss && i < tasks; i++) *loss += p.losses[i];
    if (sums) { /* width 1: the bias needs one task, and no column of h */
        const source h = {.rows = r->h, .width = r->d_weight ? r->K : 1};
        p.sum = (outer_sum){.extent = &p.extent, .left = h, .delta = r->o, .columns = r->O};
        p.sum.d_weight = r->d_weight, p.sum.d_bias = r->d_bias;
        plan_outer_sum(&p.sum, threads);
        elman_run(readout_gradient, &p, outer_sum_tasks(&p.sum), threads);
    }
    elman_return(scratch);
    return 0;
}

static int readout(const elman_readout *r) { return run_readout(r, NULL); }
static int readout_loss(const elman_readout *r, double *loss) { return run_readout(r, loss); }

#endif
