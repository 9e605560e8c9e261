/* How work is divided, and among how many threads: a cost model, its constants measured on Zen 5. No decision here
 * changes a result, each element being one chain of multiply-adds.
 */
#ifndef ELMAN_PLAN_H
#define ELMAN_PLAN_H

#include <math.h>

#include "elman.h"
#include "pool.h"
#include "tile.h"

#define MAX_ROWS 96 /* of one product; a multiple of every tile height */

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }
INLINE size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

/* Part i of n things in `parts` nearly equal parts: its first thing. */
INLINE size_t part(size_t n, size_t parts, size_t i) { return n / parts * i + smaller(i, n % parts); }

/* The cost model: cycles on a core with two multiply-adds of latency 4 and two loads a cycle. What a tile reads of b
 * comes from the second-level cache at two vectors in three cycles, which is hidden behind the arithmetic all but a
 * tenth of a cycle; what lies further away is not brought in time. */
INLINE double cycles_from_afar(size_t bytes) { /* of a vector of a matrix of so many bytes */
    if (bytes > elman_cache_size(3)) return VECTOR_BYTES / 8.0;
    return bytes > elman_cache_size(2) / 4 * 3 ? 1.3 : 0;
}

/* A tile starts with a call and ends with its stores. */
static double tile_cycles(size_t depth, size_t width, size_t height, int is_near) {
    double arithmetic = (double)(width * height) / 2, loads = (double)(width + height) / 2;
    double far_loads = is_near ? 0 : 1.5 * (double)width, exposed = is_near ? 0 : 0.1 * (double)width;
    double most = arithmetic > loads ? arithmetic : loads;
    double each_k = most > far_loads ? (most > 4 ? most : 4) : (far_loads > 4 ? far_loads : 4);
    return (each_k + exposed) * (double)depth + 20 + (double)(width * height);
}

typedef struct {
    size_t panels;
    double cycles; /* of a product */
} division;

/* Of a panel's tiles, for rows (rows, depth) times a matrix b of so many vectors; of mode DIRECT, too, where they are
 * lower, but where a call takes longer than its tiles. */
static double panel_cycles(size_t depth, size_t vectors, size_t width, size_t rows) {
    const size_t tiles = ceil_div(rows, TALLEST(width)), height = rows / tiles, taller = rows % tiles;
    const size_t reused = tiles > 1 ? width : vectors; /* what is read again soonest: the panel, or all of b */
    const int is_near = depth * reused * VECTOR_BYTES <= elman_cache_size(1);
    double cycles = tile_cycles(depth, width, height, is_near) * (double)(tiles - taller);
    if (taller) cycles += tile_cycles(depth, width, height + 1, is_near) * (double)taller;
    return cycles + cycles_from_afar(depth * vectors * VECTOR_BYTES) * (double)(width * depth);
}

/* The cheapest division into panels, each of at most `widest` vectors, for products (rows, depth) (depth, columns) of
 * the same b again and again. Many rows want narrow panels and tall tiles, a single one the widest. */
static division cheapest_division(size_t depth, size_t columns, size_t rows, size_t widest) {
    const size_t vectors = ceil_div(columns, VL);
    division best = {1, INFINITY};
    for (widest = smaller(widest, vectors); widest > 0; widest--) { /* wider ones would be the same */
        const size_t panels = ceil_div(vectors, widest), width = vectors / panels, wider = vectors % panels;
        double cycles = panel_cycles(depth, vectors, width, rows) * (double)(panels - wider);
        if (wider) cycles += panel_cycles(depth, vectors, width + 1, rows) * (double)wider;
        if (cycles < 0.99 * best.cycles) best = (division){panels, cycles};
    }
    return best;
}

/* The columns of a product that one of `parts` threads makes. */
INLINE size_t share_of(size_t columns, size_t parts) {
    return parts == 1 ? columns : ceil_div(ceil_div(columns, VL), parts) * VL;
}

/* Four million operations take some forty microseconds, as much as to wake a thread that sleeps. */
static size_t threads_for(double operations) {
    double threads = 1 + operations / 4e6;
    return threads < elman_get_num_threads() ? (size_t)threads : (size_t)elman_get_num_threads();
}

/* Packing costs as much as some rows of a product. */
INLINE int mode_for(size_t rows) { return rows > 8 ? PACKED : DIRECT; }

/* How the rows and columns of h[t] are divided among threads: a direction's rows into shards, which need nothing of
 * each other, and a shard's columns into parts, whose threads meet after each step. */
typedef struct {
    size_t shards, parts;
    double cycles; /* of a step */
} sharing;

/* Cycles: for a meeting, and for each cache line of states that another thread made. */
#define MEETING 500
#define EXCHANGE 8

/* The best sharing with that many parts, or .parts = 0 if there are not enough threads. */
static sharing sharing_with(const elman_layer *l, size_t threads, size_t parts) {
    /* shards of a direction: for each thread one, or at most one where they meet */
    const size_t each = parts == 1 ? ceil_div(threads, l->D) : larger(threads / (l->D * parts), 1);
    const size_t shards = smaller(l->B, each * ceil_div(l->B, each * MAX_ROWS)), rows = ceil_div(l->B, shards);
    const size_t tasks = l->D * shards * parts;
    const division product = cheapest_division(l->H, share_of(l->H, parts), rows, MAX_WIDTH);
    if (parts == 1) return (sharing){shards, 1, product.cycles * (double)ceil_div(tasks, threads)};
    if (tasks > threads || parts * VL > l->H) return (sharing){0};
    double lines = (double)(rows * l->H * sizeof(real)) / 64;
    return (sharing){shards, parts, product.cycles + MEETING + EXCHANGE * lines};
}

/* Parts wait for each other, so they have to be worth it: no machine is quite one program's alone. */
#define WORTH 0.8

static sharing best_sharing(const elman_layer *l, size_t threads) {
    sharing best = sharing_with(l, threads, 1);
    for (size_t parts = 2; parts * l->D <= threads; parts++) {
        sharing s = sharing_with(l, threads, parts);
        if (s.parts && s.cycles < (best.parts == 1 ? WORTH : 1) * best.cycles) best = s;
    }
    return best;
}

static size_t forward_threads(const elman_layer *l) {
    return threads_for(2.0 * (double)(l->T * l->B * l->D * l->H) * (double)(l->H + (l->has_tokens ? 1 : l->I)));
}

static size_t backward_threads(const elman_layer *l) {
    return threads_for(2.0 * (double)(l->T * l->B * l->D * l->H) * (double)(2 * l->H + l->I));
}

#endif
