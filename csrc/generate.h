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

#define DRAW_SCRATCH(n) ((n) * (sizeof(double) + sizeof(candidate))) /* bytes */
#define DRAW_OPERATIONS 800 /* that a thread does in the 15 ns that a draw takes for each output: an exponential */

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

static double softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }

/* The quantile of that rank: units may cross. */
static double ranked(const real *o, size_t n, size_t rank) {
    size_t i = 0;
    for (size_t before; i < n; i++) {
        before = 0;
        for (size_t j = 0; j < n; j++) before += o[j] < o[i] || (o[j] == o[i] && j < i);
        if (before == rank) break;
    }
    return (double)o[i];
}

/* A number that its k units say, drawn with two uniform numbers, or without them the one that is predicted. The laws
 * read units as DISTRIBUTIONS of src/elman/data/losses.py does, LEAST being its _LEAST. */
static double number_of(const elman_generation *g, const real *o, size_t k, const double *uniforms) {
    const double LEAST = 1e-6, TURN = 6.283185307179586;
    if (g->law == ELMAN_QUANTILES) return ranked(o, k, g->rank);
    if (g->law == ELMAN_COUNTS) return LEAST + softplus((double)o[0]);
    if (g->law == ELMAN_VALUE || !uniforms) return (double)o[0];
    double radius = -2 * log1p(-uniforms[0]); /* Box & Muller (1958), and for t Bailey (1994), (3): its square */
    if (g->law == ELMAN_STUDENT_T) {
        const double df = 2 + LEAST + softplus((double)o[2]);
        radius = df * expm1(radius / df);
    }
    return (double)o[0] + (LEAST + softplus((double)o[1])) * sqrt(radius) * cos(TURN * uniforms[1]);
}

/* Make of what was drawn, or of a category, row b's next inputs: `beside` is behind it, or there are zeros before it.
 */
static void feed(const elman_generation *g, size_t i, size_t b, const real *drawn, size_t category) {
    const elman_layer *first = g->layers;
    const size_t n = g->n_fed, others = first->I - n;
    const real *factor = g->affine;
    real *x = at(&first->x, 0, b);
    if (g->beside) {
        memcpy(x + n, (const real *)g->beside + (i * first->B + b) * others, others * sizeof(real));
    } else {
        memset(x, 0, others * sizeof(real));
        x += others;
    }
    for (size_t j = 0; j < n; j++) {
        const real value = drawn ? drawn[j] : (real)(j == category);
        x[j] = factor ? value * factor[j] + factor[n + j] : value;
    }
}

/* Which output is the largest; n where there is a NaN, or it is not finite. */
static size_t largest(const real *o, size_t n) {
    size_t best = 0;
    for (size_t j = 0; j < n; j++) {
        if (o[j] != o[j]) return n;
        if (o[j] > o[best]) best = j;
    }
    return isinf(o[best]) ? n : best;
}

/* Write what outputs o of row b give as output i, and as its next inputs; 1, or 0 at the end, or where o is not
 * finite. */
static int draw_and_feed_category(const elman_generation *g, size_t i, size_t b, const real *o, double *p) {
    const elman_layer *first = g->layers;
    const size_t n = g->readout->O, place = i * first->B + b;
    size_t best = largest(o, n);
    if (best == n) return 0;
    if (g->uniforms) best = draw_category(g, o, (double)o[best], g->uniforms[place], p);
    ((int64_t *)g->drawn)[place] = (int64_t)best;
    if (first->has_tokens)
        ((int64_t *)first->x.data)[(ptrdiff_t)b * first->x.b_stride] = (int64_t)best;
    else
        feed(g, i, b, NULL, best);
    return (int64_t)best != g->end;
}

/* The same of labels or numbers. */
static int draw_and_feed_numbers(const elman_generation *g, size_t i, size_t b, const real *o) {
    const elman_readout *r = g->readout;
    const size_t n = g->n_fed, k = r->O / n, place = i * r->B + b;
    const double *uniforms = g->uniforms ? g->uniforms + place * g->n_uniforms : NULL;
    real *drawn = (real *)g->drawn + place * n;
    if (largest(o, r->O) == r->O) return 0;
    for (size_t j = 0; j < r->O; j++)
        if (r->loss != ELMAN_BINARY_CROSS_ENTROPY && !isfinite(o[j])) return 0;
    for (size_t j = 0; j < n; j++) {
        if (r->loss != ELMAN_BINARY_CROSS_ENTROPY)
            drawn[j] = (real)number_of(g, o + j * k, k, uniforms ? uniforms + 2 * j : NULL);
        else if (!uniforms)
            drawn[j] = o[j] > 0;
        else
            drawn[j] = uniforms[j] < 1 / (1 + exp(-(double)o[j] / g->temperature));
        if (!isfinite(drawn[j])) return 0;
    }
    feed(g, i, b, drawn, 0);
    return 1;
}

typedef struct {
    const elman_generation *g;
    size_t step, rows;     /* of a task */
    double *p;             /* scratch of each task: O probabilities, and as many candidates */
    int64_t *going, *done; /* (B,): whether a row goes on, and how many steps it has made */
} draw_pass;

/* Of the rows that go on, `rows` of them from the task's first one, one step. */
static void draw_rows(void *context, size_t task) {
    const draw_pass *s = context;
    const elman_readout *r = s->g->readout;
    double *const p = s->p + task * DRAW_SCRATCH(r->O) / sizeof(double);
    for (size_t b = task * s->rows; b < smaller((task + 1) * s->rows, r->B); b++) {
        if (!s->going[b]) continue;
        const real *o = at(&r->o, 0, b);
        if (s->g->outputs) memcpy((real *)s->g->outputs + (s->step * r->B + b) * r->O, o, r->O * sizeof(real));
        s->going[b] = r->loss == ELMAN_CROSS_ENTROPY ? draw_and_feed_category(s->g, s->step, b, o, p)
                                                     : draw_and_feed_numbers(s->g, s->step, b, o);
        s->done[b] += s->going[b];
    }
}

static int generate(const elman_kernels *kernels, const elman_generation *g, int64_t *done) {
    const size_t n = g->readout->O, B = g->readout->B;
    const size_t threads = threads_for(DRAW_OPERATIONS * (double)B * (double)n);
    draw_pass s = {.g = g, .rows = ceil_div(B, threads), .done = done};
    const size_t tasks = ceil_div(B, s.rows);
    size_t states = 0;
    for (size_t k = 0; k < g->L; k++) states += B * g->layers[k].H;
    s.p =
        elman_lease(tasks * DRAW_SCRATCH(n) + g->L * sizeof(elman_layer) + B * sizeof(int64_t) + states * sizeof(real));
    if (!s.p) return ELMAN_NO_MEMORY;
    elman_layer *const layers = (elman_layer *)((char *)s.p + tasks * DRAW_SCRATCH(n));
    s.going = (int64_t *)(layers + g->L);
    memcpy(layers, g->layers, g->L * sizeof *layers);
    for (size_t b = 0; b < B; b++) s.going[b] = 1, done[b] = 0;
    size_t n_going = B;
    int status = 0;
    for (; s.step < g->N && n_going && !status; s.step++) {
        real *before = (real *)(s.going + B);
        for (size_t k = 0; k < g->L && !status; before += B * layers[k++].H) {
            status = kernels->forward(&layers[k]);
            const elman_cell *const cell = layers[k].cell;
            const elman_rows *const states = cell && cell->state_is_second ? &layers[k].second : &layers[k].y;
            layers[k].h_0 = memcpy(before, states->data, B * layers[k].H * sizeof(real));
        }
        if (!status) status = kernels->readout(g->readout);
        if (status) break;
        elman_run(draw_rows, &s, tasks, threads);
        n_going = 0;
        for (size_t b = 0; b < B; b++) n_going += (size_t)s.going[b];
        for (size_t k = 0; k < g->L && n_going < B; k++) layers[k].lengths = s.going; /* the others have no step */
    }
    elman_return(s.p);
    return status;
}

#endif
