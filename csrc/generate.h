/* Generation: one step of all layers after the other, each of which reads what was drawn from the outputs before it. */
#ifndef ELMAN_GENERATE_H
#define ELMAN_GENERATE_H

#include <math.h>
#include <stdlib.h>

#include "rows.h"

typedef struct {
    double p;
    size_t unit;
} candidate;

static int likelier_first(const void *one, const void *other) {
    const candidate *a = one, *b = other;
    if (a->p != b->p) return a->p < b->p ? 1 : -1;
    return a->unit < b->unit ? -1 : a->unit > b->unit;
}

/* Leave the likeliest alone: the first top_k of them, and of these the fewest that have top_p of their sum. */
static void cut(const elman_generation *g, size_t n, double *p, candidate *sorted) {
    for (size_t j = 0; j < n; j++) sorted[j] = (candidate){p[j], j};
    qsort(sorted, n, sizeof *sorted, likelier_first);
    const size_t most = smaller(g->top_k, n);
    double total = 0, sum = 0;
    for (size_t i = 0; i < most; i++) total += sorted[i].p;
    size_t kept = 0;
    while (kept < most && sum < g->top_p * total) sum += sorted[kept++].p;
    for (size_t i = kept; i < n; i++) p[sorted[i].unit] = 0;
}

/* A category of the softmax of o / temperature, where its sum passes that share. */
static size_t draw_category(const elman_generation *g, const real *o, double most, double share, double *p) {
    const size_t n = g->readout->O;
    double total = 0, sum = 0;
    for (size_t j = 0; j < n; j++) p[j] = exp(((double)o[j] - most) / g->temperature);
    if (g->top_k < n || g->top_p < 1) cut(g, n, p, (candidate *)(p + n));
    for (size_t j = 0; j < n; j++) total += p[j];
    size_t last = 0; /* that can be drawn: rounding may make of a share all there is */
    for (size_t j = 0; j < n; j++) {
        sum += p[j];
        if (sum > share * total) return j;
        if (p[j] > 0) last = j;
    }
    return last;
}

/* Write what outputs o give as output i, and as the next inputs; 1, or 0 at the end, or where o is not finite. */
static int draw_and_feed(const elman_generation *g, size_t i, double *p) {
    const elman_readout *r = g->readout;
    const elman_layer *first = g->layers;
    const real *o = r->o.data;
    const size_t n = r->O;
    size_t best = 0;
    for (size_t j = 0; j < n; j++) {
        if (o[j] != o[j]) return 0;
        if (o[j] > o[best]) best = j;
    }
    if (isinf(o[best])) return 0;
    if (!first->has_tokens) memset(first->x.data, 0, first->I * sizeof(real));
    real *x = first->has_tokens ? NULL : (real *)first->x.data + first->I - n;
    if (r->loss == ELMAN_CROSS_ENTROPY) {
        if (g->uniforms) best = draw_category(g, o, (double)o[best], g->uniforms[i], p);
        ((int64_t *)g->drawn)[i] = (int64_t)best;
        if (x)
            x[best] = 1;
        else
            *(int64_t *)first->x.data = (int64_t)best;
        return (int64_t)best != g->end;
    }
    real *drawn = (real *)g->drawn + i * n;
    for (size_t j = 0; j < n; j++) {
        if (r->loss != ELMAN_BINARY_CROSS_ENTROPY)
            drawn[j] = o[j];
        else if (!g->uniforms)
            drawn[j] = o[j] > 0;
        else
            drawn[j] = g->uniforms[i * n + j] < 1 / (1 + exp(-(double)o[j] / g->temperature));
    }
    memcpy(x, drawn, n * sizeof(real));
    return 1;
}

static int generate(const elman_kernels *kernels, const elman_generation *g, size_t *done) {
    const size_t n = g->readout->O;
    size_t states = 0;
    for (size_t k = 0; k < g->L; k++) states += g->layers[k].H;
    double *const p =
        elman_lease(n * (sizeof(double) + sizeof(candidate)) + g->L * sizeof(elman_layer) + states * sizeof(real));
    if (!p) return ELMAN_NO_MEMORY;
    elman_layer *const layers = (elman_layer *)((candidate *)(p + n) + n);
    memcpy(layers, g->layers, g->L * sizeof *layers);
    int status = 0;
    for (*done = 0; *done < g->N; ++*done) {
        real *before = (real *)(layers + g->L);
        for (size_t k = 0; k < g->L && !status; before += layers[k++].H) {
            status = kernels->forward(&layers[k]);
            const elman_cell *const cell = layers[k].cell;
            const elman_rows *const states = cell && cell->state_is_second ? &layers[k].second : &layers[k].y;
            layers[k].h_0 = memcpy(before, states->data, layers[k].H * sizeof(real));
        }
        if (!status) status = kernels->readout(g->readout);
        if (status || !draw_and_feed(g, *done, p)) break;
    }
    elman_return(p);
    return status;
}

#endif
