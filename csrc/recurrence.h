/* A layer over a sequence: forward, and back-propagation through time.
 *
 * Both passes divide the batch into shards, each of which runs through all time steps by itself (directions and rows
 * are independent, so nothing waits for another thread). Where there are fewer rows than would keep the threads busy, a
 * shard's threads share the columns of H and meet after each step. Backward, the terms of a block of some steps are
 * added to the parameters' gradients by whoever has time while the shards are at the next block, or, where threads
 * meet, before it; d_x comes last.
 */
#ifndef ELMAN_RECURRENCE_H
#define ELMAN_RECURRENCE_H

#include "activations.h"
#include "dropout.h"
#include "noise.h"
#include "pool.h"
#include "rows.h"

typedef struct {
    const elman_layer *layer;
    extent extent;
    size_t shards, parts;
    int is_backward;
    matrix ih[2], hh[2]; /* forward: the weights; backward: their transposes, ih[0] for both directions, (D * H, I) */
    const real *zeros;   /* as many as the widest row */
    real *start, *reset; /* (D, B, H): f of the initial states, and of those that resets go back to, where the cell's
                          * outputs are not its states; or NULL */
    real *masked;        /* forward: (parts, D, B, H), rows' states times their masks; backward: (D, B, H), what dropout
                          * leaves of d_y, or what reaches the state of a reset */
    drawing drawing;
    size_t *come;      /* (D, shards), a cache line each: to the meetings of a shard's threads */
    outer_sum sums[4]; /* backward: the parameters' gradients, ... */
    extent summed;     /* ... over these steps */
    size_t n_sums, sum_tasks;
} pass;

static pass pass_over(const elman_layer *l, size_t threads) {
    const sharing s = best_sharing(l, threads);
    pass p = {.layer = l, .extent = {l->T, l->B, l->lengths, 0, l->T}, .shards = s.shards, .parts = s.parts};
    p.drawing = drawing_of(l->dropout, l->key, 4 * (size_t)l->layer);
    return p;
}

/* Rows first, first + stride, ... of the batch, in direction d, and one thread's panels of its matrices. */
typedef struct {
    size_t d, first, stride, count, part;
    matrix ih, hh;
    panel own;   /* its columns of H: of states */
    panel input; /* and of what the inputs make of pre-activations, which are others */
    size_t *come, met;
} shard;

static matrix share(const matrix *whole, size_t part, size_t parts) {
    matrix own = *whole;
    own.from = whole->panels / parts * part, own.to = whole->panels / parts * (part + 1);
    return own;
}

static shard shard_of(const pass *p, size_t i) {
    const size_t d = i / (p->shards * p->parts), n = i / p->parts % p->shards, B = p->extent.B;
    shard s = {.d = d, .part = i % p->parts, .come = p->come + i / p->parts * (64 / sizeof(size_t))};
    if (p->extent.lengths) { /* dealt like cards, since rows in the order of their lengths are common */
        s.first = n, s.stride = p->shards, s.count = (B - n + p->shards - 1) / p->shards;
    } else {
        s.first = part(B, p->shards, n), s.stride = 1, s.count = part(B, p->shards, n + 1) - s.first;
    }
    s.hh = share(&p->hh[d], s.part, p->parts);
    s.own = panels_between(&s.hh, s.hh.from, s.hh.to);
    if (p->is_backward) return s;
    s.ih = share(&p->ih[d], s.part, p->parts);
    s.input = p->layer->has_tokens ? s.own : panels_between(&s.ih, s.ih.from, s.ih.to);
    return s;
}

/* Wait until all parts of a shard have come here; whether the call is stopped and the shard is to be left. */
INLINE int meet(const pass *p, shard *s) { return p->parts > 1 && elman_meet(s->come, s->met += p->parts); }

/* Of p->come, in reals. */
static size_t come_size(const pass *p) { return p->parts > 1 ? p->layer->D * p->shards * 64 / sizeof(real) : 0; }

/* Run a task for every shard's every part. */
static void run_shards(pass *p, elman_task *task, size_t threads) {
    const size_t shards = p->layer->D * p->shards, parts = p->parts;
    if (parts > 1) {
        memset(p->come, 0, shards * 64);
        if (elman_run_team(task, p, shards * parts)) return;
        p->parts = 1; /* the other threads are not to be had now */
    }
    elman_run(task, p, shards, threads);
    p->parts = parts;
}

INLINE int backwards(const elman_layer *l, size_t d) { return d == 1 || l->reverse; }

/* The rows of direction d's own array (D, B, H). */
INLINE real *state(const elman_layer *l, const void *array, size_t d, size_t b) {
    return (real *)array + (d * l->B + b) * l->H;
}

/* For each step the outputs before it: what the product with weight_hh is of. */
static source outputs_before(const pass *p, size_t d) {
    const elman_layer *l = p->layer;
    return (source){.rows = columns_from(l->y, d * l->H),
                    .shift = backwards(l, d) ? 1 : -1,
                    .start = state(l, p->start ? p->start : l->h_0, d, 0),
                    .resets = l->resets,
                    .reset = p->reset ? p->reset : l->h_reset,
                    .mask = l->mask ? state(l, l->mask, d, 0) : NULL,
                    .width = l->H};
}

/* The states: the outputs, but for some cells. */
static elman_rows states_of(const elman_layer *l, size_t d) {
    return columns_from(l->cell && l->cell->state_is_second ? l->second : l->y, d * l->H);
}

/* For each step the states before it. */
static source states_before(const elman_layer *l, size_t d) {
    return (source){.rows = states_of(l, d),
                    .shift = backwards(l, d) ? 1 : -1,
                    .start = state(l, l->h_0, d, 0),
                    .resets = l->resets,
                    .reset = l->h_reset,
                    .width = l->H};
}

static size_t start_size(const elman_layer *l) {
    return l->cell && l->cell->state_is_second ? (l->resets.data ? 2 : 1) * l->D * l->B * l->H : 0;
}

/* What the first steps, and those of resets, read, in some memory, if that is not the initial states. */
static void set_start(pass *p, real *memory) {
    const elman_layer *l = p->layer;
    const size_t n = l->D * l->B * l->H;
    if (!start_size(l)) return;
    p->start = memcpy(memory, l->h_0, n * sizeof(real));
    if (l->resets.data) p->reset = memcpy(memory + n, l->h_reset, n * sizeof(real));
    plain_apply_of(l)(&(epilogue){0}, 0, 1, 0, start_size(l), &memory);
}

/* The direction's part of an array (D, H) of numbers, NULL where there are none. */
INLINE const real *numbers_of(const elman_layer *l, const void *array, size_t d) {
    return array ? (const real *)array + d * l->H : NULL;
}

/* Add normals times factors to some columns of n rows of a step, of the batch: b. */
static void noise_step(const pass *p, const shard *s, panel columns, size_t t, size_t n, const size_t *b,
                       const real *const *factors, real *const *out) {
    const elman_layer *l = p->layer;
    const size_t step = (size_t)l->first_step + t, stream = 4 * (size_t)l->layer + 2 * s->d;
    add_noise(l->keys, n, b, step, stream, columns.column, columns.columns, factors, out);
}

/* What a cell keeps of a step besides y, NULL for nothing. */
INLINE real *second_of(const elman_layer *l, size_t d, size_t t, size_t b) {
    return l->second.data ? at(&l->second, t, b) + d * l->H : NULL;
}

/* What dropout leaves of a step's rows y, n of the batch: b. */
static void drop_step(const pass *p, const shard *s, size_t step, size_t n, const size_t *b, real *const *y) {
    const elman_layer *l = p->layer;
    const size_t t = time_of(&p->extent, step, backwards(l, s->d));
    const elman_rows rows = columns_from(l->dropped, s->d * l->H);
    real *dropped[MAX_ROWS];
    for (size_t i = 0; i < n; i++) dropped[i] = at(&rows, t, b[i]);
    drop_rows(&p->drawing, n, b, (size_t)l->first_step + t, s->d, s->own.column, s->own.columns, (const real *const *)y,
              dropped);
}

/* Noise for a block's pre-activations y: rows b of the batch, each step's up to its end. */
static void noise_block(const pass *p, const shard *s, size_t begin, size_t end, const size_t *b, const size_t *ends,
                        real *const *y) {
    const elman_layer *l = p->layer;
    const real *factors[MAX_ROWS];
    for (size_t i = 0; i < s->count; i++) factors[i] = numbers_of(l, l->noise, s->d);
    for (size_t i = 0, from = 0; i < end - begin; from = ends[i++]) {
        const size_t t = time_of(&p->extent, begin + i, backwards(l, s->d));
        noise_step(p, s, s->input, t, ends[i] - from, b + from, factors, y + from);
    }
}

/* A few steps, as many as MAX_ROWS allows: all their inputs' part in one product, then step by step the recurrence. */
static void forward_block(const pass *p, shard *s, size_t begin, size_t end) {
    const elman_layer *l = p->layer;
    const source before = outputs_before(p, s->d), states = states_before(l, s->d);
    const elman_rows y_rows = columns_from(l->y, s->d * l->H);
    const real *bias = l->bias ? (const real *)l->bias + s->d * l->H : p->zeros;
    const real *x[MAX_ROWS], *h[MAX_ROWS], *init[MAX_ROWS];
    real *y[MAX_ROWS], *second[MAX_ROWS];
    const real *own[MAX_ROWS]; /* the states before */
    size_t b[MAX_ROWS], ends[MAX_ROWS], n = 0;
    for (size_t step = begin; step < end; step++) {
        size_t t = time_of(&p->extent, step, backwards(l, s->d));
        for (size_t i = 0; i < s->count; i++) {
            size_t row = s->first + i * s->stride;
            if (t >= length_of(&p->extent, row)) continue;
            b[n] = row, init[n] = bias, y[n] = at(&y_rows, t, row), h[n] = row_of(&before, &p->extent, t, row);
            if (l->cell) own[n] = row_of(&states, &p->extent, t, row), second[n] = second_of(l, s->d, t, row);
            if (l->has_tokens)
                x[n] = (const real *)l->weight_ih + (s->d * l->I + (size_t)token_at(&l->x, t, row)) * l->H;
            else
                x[n] = at(&l->x, t, row);
            n++;
        }
        ends[step - begin] = n;
    }
    if (l->has_tokens)
        for (size_t i = 0, j = s->own.column; i < n; i++) add_row(y[i] + j, x[i] + j, bias + j, s->own.columns);
    else
        gemm(&s->ih, n, x, init, y, NULL);
    if (l->noise) noise_block(p, s, begin, end, b, ends, y);
    if (meet(p, s)) return;
    epilogue activate = {.apply = apply_of(l), .numbers = numbers_of(l, l->numbers, s->d)};
    for (size_t i = 0, from = 0; i < end - begin; from = ends[i++]) {
        if (l->mask)
            for (size_t k = from; k < ends[i]; k++) {
                real *masked = state(l, p->masked, s->part * l->D + s->d, b[k]);
                multiply_row(masked, h[k], state(l, l->mask, s->d, b[k]), l->H);
                h[k] = masked;
            }
        if (p->parts > 1)
            for (size_t k = from; k < ends[i]; k++) prefetch_row(h[k], l->H);
        activate.before = own + from, activate.second = second + from;
        gemm(&s->hh, ends[i] - from, h + from, (const real *const *)y + from, y + from, &activate);
        if (l->dropped.data) drop_step(p, s, begin + i, ends[i] - from, b + from, y + from);
        if (meet(p, s)) return;
    }
}

static void forward_shard(void *context, size_t i) {
    const pass *p = context;
    const elman_layer *l = p->layer;
    shard s = shard_of(p, i);
    const size_t steps = MAX_ROWS / s.count;
    for (size_t begin = 0; begin < l->T; begin += steps) {
        if (begin && elman_stopped()) return;
        forward_block(p, &s, begin, smaller(begin + steps, l->T));
    }
    for (size_t k = 0; l->h_n && s.part == 0 && k < s.count; k++) {
        size_t b = s.first + k * s.stride, length = length_of(&p->extent, b);
        const elman_rows states = states_of(l, s.d);
        const real *last = length ? at(&states, backwards(l, s.d) ? 0 : length - 1, b) : state(l, l->h_0, s.d, b);
        memcpy(state(l, l->h_n, s.d, b), last, l->H * sizeof(real));
    }
}

/* The same row of the step that a backward pass comes to next. */
INLINE const real *step_from(const real *row, const elman_rows *rows, int back) {
    return row + (back ? rows->t_stride : -rows->t_stride);
}

/* One step back: delta = (d_y + mask * (weight_hh delta[next])) f'(y), at a row's last step with d_h_n for the product,
 * or, where the state is not the output, for what the cell carries past it; and before a reset with neither.
 * The product stands alone, so that a pass cut in two, d_h_0 of one being d_h_n of the other, gives the same bits. */
static void backward_step(const pass *p, shard *s, size_t t) {
    const elman_layer *l = p->layer;
    const elman_rows d_y_rows = columns_from(l->d_y, s->d * l->H), y_rows = columns_from(l->y, s->d * l->H);
    const elman_rows deltas = columns_from(l->delta, s->d * l->H);
    const size_t j = s->own.column, columns = s->own.columns;
    const real *next[MAX_ROWS], *init[MAX_ROWS], *d_y[MAX_ROWS], *y[MAX_ROWS], *mask[MAX_ROWS], *before[MAX_ROWS];
    real *delta[MAX_ROWS], *second[MAX_ROWS], *carry[MAX_ROWS], *d_numbers[MAX_ROWS];
    const source states = states_before(l, s->d);
    epilogue e = {.apply = gradient_of(l), .y = y, .d_y = d_y, .numbers = numbers_of(l, l->numbers, s->d)};
    e.before = before, e.second = second, e.carry = carry, e.d_numbers = l->d_numbers ? d_numbers : NULL;
    const int back = backwards(l, s->d);
    const int drops = l->d_y.data && l->dropout > 0;
    const elman_rows left = columns_from(l->dropped, s->d * l->H);
    const int reads_d_y = l->d_y.data && !drops, reads_second = l->second.data != NULL;
    const real *soon[4 * MAX_ROWS];
    e.soon = soon, e.n_soon = 2 + (size_t)(reads_d_y + reads_second);
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t b = s->first + i * s->stride, length = length_of(&p->extent, b);
        if (t >= length) continue;
        d_y[n] = l->d_y.data ? at(&d_y_rows, t, b) : p->zeros;
        if (drops) {
            real *const masked = state(l, p->masked, s->d, b);
            keep_again(masked + j, d_y[n] + j, at(&left, t, b) + j, p->drawing.factor, columns);
            d_y[n] = masked;
        }
        delta[n] = at(&deltas, t, b);
        y[n] = at(&y_rows, t, b);
        const int is_last = t == (back ? 0 : length - 1), is_end = is_last || is_reset(&l->resets, t + 1, b);
        const real *const d_h_n = is_last && l->d_h_n ? state(l, l->d_h_n, s->d, b) + j : NULL;
        if (l->cell) {
            before[n] = row_of(&states, &p->extent, t, b), second[n] = second_of(l, s->d, t, b);
            carry[n] = l->carry ? state(l, l->carry, s->d, b) : NULL;
            if (is_end && l->carry) add_row(carry[n] + j, p->start ? d_h_n : NULL, NULL, columns);
            if (l->d_numbers) d_numbers[n] = state(l, l->d_numbers, s->d, b);
        }
        if (is_end) {
            add_row(delta[n] + j, p->start ? NULL : d_h_n, NULL, columns);
            e.apply(&e, n, 1, j, columns, delta + n);
        } else {
            const real **own = soon + n * e.n_soon; /* where the rows of the step after this one are */
            *own++ = step_from(delta[n], &l->delta, back), *own++ = step_from(y[n], &l->y, back);
            if (reads_d_y) *own++ = step_from(d_y[n], &l->d_y, back);
            if (reads_second) *own++ = step_from(second[n], &l->second, back);
            next[n] = at(&deltas, back ? t - 1 : t + 1, b);
            mask[n] = l->mask ? state(l, l->mask, s->d, b) : NULL;
            init[n++] = p->zeros;
        }
    }
    e.mask = l->mask ? mask : NULL;
    if (p->parts > 1)
        for (size_t k = 0; k < n; k++) prefetch_row(next[k], l->H);
    gemm(&s->hh, n, next, init, delta, &e);
}

/* To the gradients by what multiplies the noise: a step's delta times its normals, which are drawn again. */
static void noise_gradient(const pass *p, const shard *s, size_t t) {
    const elman_layer *l = p->layer;
    const elman_rows deltas = columns_from(l->delta, s->d * l->H);
    const real *delta[MAX_ROWS];
    real *d_noise[MAX_ROWS];
    size_t b[MAX_ROWS], n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t row = s->first + i * s->stride;
        if (t < length_of(&p->extent, row))
            b[n] = row, delta[n] = at(&deltas, t, row), d_noise[n++] = state(l, l->d_noise, s->d, row);
    }
    noise_step(p, s, s->own, t, n, b, delta, d_noise);
}

/* What reaches the states before n rows' steps with these deltas, rows b of the batch, whose outputs there were
 * `start` (D, B, H): mask * (weight_hh delta), times f' where outputs are not states, and what the cell carries past
 * the product. */
static void gradient_before(const pass *p, const shard *s, size_t n, const size_t *b, const real *const *delta,
                            const real *start, real *const *out) {
    const elman_layer *l = p->layer;
    const size_t j = s->own.column, columns = s->own.columns;
    const real *init[MAX_ROWS];
    for (size_t i = 0; i < n; i++) init[i] = p->zeros;
    gemm(&s->hh, n, delta, init, out, NULL);
    for (size_t i = 0; i < n; i++) {
        real *row = out[i] + j;
        if (l->mask) multiply_row(row, row, state(l, l->mask, s->d, b[i]) + j, columns);
        if (start) {
            const real *const y = state(l, start, s->d, b[i]) + j, *const zeros = p->zeros;
            plain_gradient_of(l)(&(epilogue){.y = &y, .d_y = &zeros}, 0, 1, 0, columns, &row);
        }
        if (l->carry) add_row(row, row, state(l, l->carry, s->d, b[i]) + j, columns);
    }
}

/* What reaches the initial states: for a row of no steps d_h_n, and nothing where the first one is a reset. */
static void initial_gradient(const pass *p, const shard *s) {
    const elman_layer *l = p->layer;
    const elman_rows deltas = columns_from(l->delta, s->d * l->H);
    const real *first[MAX_ROWS];
    real *d_h_0[MAX_ROWS];
    size_t b[MAX_ROWS], n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t row = s->first + i * s->stride, length = length_of(&p->extent, row), j = s->own.column;
        b[n] = row, d_h_0[n] = state(l, l->d_h_0, s->d, row);
        if (length == 0 || is_reset(&l->resets, 0, row)) {
            const real *const d_h_n = length == 0 && l->d_h_n ? state(l, l->d_h_n, s->d, row) + j : NULL;
            add_row(d_h_0[n] + j, d_h_n, NULL, s->own.columns);
        } else {
            first[n++] = at(&deltas, backwards(l, s->d) ? length - 1 : 0, row);
        }
    }
    gradient_before(p, s, n, b, first, p->start, d_h_0);
}

/* To the gradients by the states that a step's resets go back to. */
static void reset_gradient(const pass *p, const shard *s, size_t t) {
    const elman_layer *l = p->layer;
    const elman_rows deltas = columns_from(l->delta, s->d * l->H);
    const real *delta[MAX_ROWS];
    real *out[MAX_ROWS];
    size_t b[MAX_ROWS], n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t row = s->first + i * s->stride;
        if (t < length_of(&p->extent, row) && is_reset(&l->resets, t, row))
            b[n] = row, delta[n] = at(&deltas, t, row), out[n++] = state(l, p->masked, s->d, row);
    }
    gradient_before(p, s, n, b, delta, p->reset, out);
    for (size_t i = 0; i < n; i++) {
        real *const d_h_reset = state(l, l->d_h_reset, s->d, b[i]) + s->own.column;
        add_row(d_h_reset, d_h_reset, out[i] + s->own.column, s->own.columns);
    }
}

static void backward_shard(void *context, size_t i) {
    const pass *p = context;
    const elman_layer *l = p->layer;
    shard s = shard_of(p, i);
    const size_t steps = MAX_ROWS / s.count; /* as many as forward in a block: so often it looks whether to stop */
    for (size_t step = p->extent.to; step-- > p->extent.from;) {
        if (step % steps == 0 && elman_stopped()) return;
        const size_t t = time_of(&p->extent, step, backwards(l, s.d));
        backward_step(p, &s, t);
        if (l->d_noise) noise_gradient(p, &s, t);
        if (meet(p, &s)) return;
        if (l->d_h_reset) reset_gradient(p, &s, t);
    }
    if (p->extent.from == 0) initial_gradient(p, &s);
}

/* d_x for MAX_ROWS places of (T, B): one chain over the units of both directions. */
static void input_gradient(void *context, size_t task) {
    const pass *p = context;
    const elman_layer *l = p->layer;
    const real *delta[MAX_ROWS], *init[MAX_ROWS];
    real *d_x[MAX_ROWS];
    size_t n = 0, end = smaller((task + 1) * MAX_ROWS, l->T * l->B);
    for (size_t i = task * MAX_ROWS; i < end; i++) {
        size_t t = i / l->B, b = i % l->B;
        if (t >= length_of(&p->extent, b)) continue;
        delta[n] = at(&l->delta, t, b), d_x[n] = at(&l->d_x, t, b), init[n++] = p->zeros;
    }
    gemm(&p->ih[0], n, delta, init, d_x, NULL);
}

static void sum_task(void *context, size_t i) {
    const outer_sum *s = ((const pass *)context)->sums;
    for (; i >= outer_sum_tasks(s); s++) i -= outer_sum_tasks(s);
    outer_sum_task(s, i);
}

/* The shards over a block of steps, and behind them, for who is done with these, the sums over the block before it. */
static void shard_or_sum(void *context, size_t i) {
    const pass *p = context;
    const size_t shards = p->layer->D * p->shards;
    if (i < shards)
        backward_shard(context, i);
    else
        sum_task(context, i - shards);
}

static void plan_sums(pass *p, size_t threads) {
    const elman_layer *l = p->layer;
    for (size_t d = 0; d < l->D; d++) {
        const elman_rows delta = columns_from(l->delta, d * l->H);
        outer_sum hh = {.extent = &p->summed, .backwards = backwards(l, d), .delta = delta, .columns = l->H};
        outer_sum ih = hh;
        hh.left = outputs_before(p, d);
        hh.d_bias = l->d_bias ? (real *)l->d_bias + d * l->H : NULL;
        if (l->d_weight_hh)
            hh.d_weight = (real *)l->d_weight_hh + d * l->H * l->H;
        else
            hh.left.width = 1, hh.left.mask = NULL; /* the bias needs one task, and no column of h */
        ih.left = (source){.rows = l->x, .width = l->I, .has_tokens = l->has_tokens};
        if (l->d_weight_ih) ih.d_weight = (real *)l->d_weight_ih + d * l->I * l->H;
        if (hh.d_weight || hh.d_bias) p->sums[p->n_sums++] = hh;
        if (ih.d_weight) p->sums[p->n_sums++] = ih;
    }
    for (size_t i = 0; i < p->n_sums; i++) {
        plan_outer_sum(&p->sums[i], threads);
        p->sum_tasks += outer_sum_tasks(&p->sums[i]);
    }
}

/* Packing: one task for each panel of every matrix. */
static void pack_hh(void *context, size_t i) {
    const pass *p = context;
    const elman_layer *l = p->layer;
    size_t d = i / p->hh[0].panels;
    pack(&p->hh[d], i % p->hh[0].panels, 0, l->H, (const real *)l->weight_hh + d * l->H * l->H, l->H, p->is_backward);
}

static void pack_ih(void *context, size_t i) {
    const pass *p = context;
    const elman_layer *l = p->layer;
    const real *weight = l->weight_ih;
    if (p->is_backward)
        for (size_t d = 0; d < l->D; d++) pack(&p->ih[0], i, d * l->H, l->H, weight + d * l->I * l->H, l->H, 1);
    else
        pack(&p->ih[i / p->ih[0].panels], i % p->ih[0].panels, 0, l->I, weight + i / p->ih[0].panels * l->I * l->H,
             l->H, 0);
}

static int forward(const elman_layer *l) {
    const size_t rows = l->T * l->B;
    const size_t threads = forward_threads(l);
    pass p = pass_over(l, threads);
    const size_t shard_rows = ceil_div(l->B, p.shards);
    const matrix hh = matrix_for(l->H, l->H, shard_rows, p.parts, mode_for(rows));
    const matrix ih = matrix_for(l->I, l->H, shard_rows * l->T, p.parts, l->has_tokens ? DIRECT : mode_for(rows));
    const size_t masked = l->mask ? p.parts * l->D * l->B * l->H : 0;
    const size_t matrices = l->D * (scratch_size(&hh) + scratch_size(&ih));
    const size_t size = matrices + l->H + start_size(l) + masked + come_size(&p);
    real *const scratch = elman_lease(size * sizeof(real)), *free = scratch + come_size(&p);
    if (!scratch) return ELMAN_NO_MEMORY;
    p.come = (size_t *)scratch;
    for (size_t d = 0; d < l->D; d++) {
        p.hh[d] = hh, p.ih[d] = ih;
        free = place(&p.hh[d], (const real *)l->weight_hh + d * l->H * l->H, free);
        free = place(&p.ih[d], (const real *)l->weight_ih + d * l->I * l->H, free);
    }
    p.zeros = memset(free, 0, l->H * sizeof(real));
    p.masked = free + l->H;
    set_start(&p, p.masked + masked);
    if (hh.mode == PACKED) elman_run(pack_hh, &p, l->D * hh.panels, threads);
    if (ih.mode == PACKED) elman_run(pack_ih, &p, l->D * ih.panels, threads);
    run_shards(&p, forward_shard, threads);
    elman_return(scratch);
    return 0;
}

/* Steps after which their share of the parameters' gradients is summed: y, delta and x of two such blocks are in the
 * second-level cache, and one has enough terms for one run of the micro-kernel, or for four where gradients and weights
 * fit no cache, and come from memory each time. */
static size_t block_steps(const elman_layer *l) {
    const size_t bytes = 2 * l->B * (3 * l->D * l->H + l->I) * sizeof(real);
    const size_t matrices = l->D * l->H * (2 * l->H + l->I) * sizeof(real);
    const size_t terms = matrices > elman_cache_size(3) ? 4 * DEPTH : DEPTH;
    return larger(larger(elman_cache_size(2) / bytes, ceil_div(terms, l->B)), 1);
}

static int backward(const elman_layer *l) {
    const size_t rows = l->T * l->B, widest = larger(l->H, l->I);
    const size_t threads = backward_threads(l);
    const int wants_d_x = l->d_x.data != NULL;
    pass p = pass_over(l, threads);
    p.is_backward = 1;
    const matrix hh = matrix_for(l->H, l->H, ceil_div(l->B, p.shards), p.parts, PACKED);
    p.ih[0] = matrix_for(l->D * l->H, l->I, rows, 1, wants_d_x ? PACKED : DIRECT);
    const size_t masked = l->dropout > 0 || l->d_h_reset ? l->D * l->B * l->H : 0;
    const size_t matrices = l->D * scratch_size(&hh) + scratch_size(&p.ih[0]);
    const size_t size = matrices + widest + start_size(l) + masked + come_size(&p);
    real *const scratch = elman_lease(size * sizeof(real));
    if (!scratch) return ELMAN_NO_MEMORY;
    p.come = (size_t *)scratch;
    real *free = place(&p.ih[0], NULL, scratch + come_size(&p));
    for (size_t d = 0; d < l->D; d++) p.hh[d] = hh, free = place(&p.hh[d], NULL, free);
    p.zeros = memset(free, 0, widest * sizeof(real));
    p.masked = free + widest;
    set_start(&p, p.masked + masked);
    plan_sums(&p, threads);
    elman_run(pack_hh, &p, l->D * hh.panels, threads);
    if (wants_d_x) elman_run(pack_ih, &p, p.ih[0].panels, threads);
    const size_t block = block_steps(l);
    for (size_t to = l->T; to > 0 && !elman_stopped(); to = p.extent.from) {
        p.extent.to = to, p.extent.from = to - smaller(block, to);
        if (p.parts > 1)
            run_shards(&p, backward_shard, threads);
        else
            elman_run(shard_or_sum, &p, l->D * p.shards + (to < l->T ? p.sum_tasks : 0), threads);
        p.summed = p.extent;
        if (p.parts > 1 || p.extent.from == 0) elman_run(sum_task, &p, p.sum_tasks, threads);
    }
    if (wants_d_x) elman_run(input_gradient, &p, ceil_div(rows, MAX_ROWS), threads);
    elman_return(scratch);
    return 0;
}

static int plan(const elman_layer *l, int is_backward, size_t parts, elman_plan *out) {
    const size_t threads = is_backward ? backward_threads(l) : forward_threads(l);
    const sharing s = parts ? sharing_with(l, threads, parts) : best_sharing(l, threads);
    if (!s.parts) return -1;
    const size_t rows = ceil_div(l->B, s.shards);
    const matrix hh = matrix_for(l->H, l->H, rows, s.parts, is_backward ? PACKED : mode_for(l->T * l->B));
    const size_t width = panel_of(&hh, 0).width, tiles = ceil_div(rows, TALLEST_OF(hh.mode, width));
    *out = (elman_plan){.threads = threads,
                        .shards = s.shards,
                        .parts = s.parts,
                        .rows = rows,
                        .panels = hh.panels / s.parts,
                        .width = width,
                        .tiles = tiles,
                        .height = ceil_div(rows, tiles),
                        .is_packed = hh.mode == PACKED,
                        .block_steps = block_steps(l),
                        .vector_reals = VL,
                        .cycles = s.cycles};
    return 0;
}

#endif
