/* The speed of each tile, as a share of the multiply-adds that the processor can do: bench/tiles.sh. */
#include <stdio.h>
#include <time.h>

#include "plan.h"

/* For the parts of the cost model that are not asked. */
int elman_get_num_threads(void) { return 1; }
size_t elman_cache_size(int level) { return (size_t)level << 20; }

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum { DEPTH = 64, CALLS = 400, TRIES = 60 };
static real left_rows[MAX_HEIGHT][DEPTH], left_columns[DEPTH][MAX_HEIGHT], out_rows[MAX_HEIGHT][MAX_WIDTH * 16];
static real panel[DEPTH * MAX_WIDTH * 16];

static volatile real sink;

/* Seconds of a multiply-add of vectors, where nothing but their number limits it. */
static double least(void) {
    double best = 1;
    vec acc[12], factor = set1((real)0.5);
    for (int try = 0; try < TRIES; try++) {
        for (int i = 0; i < 12; i++) acc[i] = set1((real)i);
        double begin = seconds();
        for (int n = 0; n < 20000; n++) {
#pragma GCC unroll 12
            for (int i = 0; i < 12; i++) acc[i] = fma_(acc[i], factor, factor);
#pragma GCC unroll 12
            for (int i = 0; i < 12; i++) KEEP(acc[i]);
        }
        double taken = (seconds() - begin) / (12 * 20000);
        for (int i = 0; i < 12; i++) store(out_rows[0], acc[i]), sink = out_rows[0][0];
        if (taken < best) best = taken;
    }
    return best;
}

static double share(int mode, size_t width, size_t height, double each) {
    const real *left[DEPTH];
    real *out[MAX_HEIGHT];
    for (size_t i = 0; i < DEPTH; i++) left[i] = mode == COLUMNS ? left_columns[i] : left_rows[i % MAX_HEIGHT];
    for (size_t i = 0; i < MAX_HEIGHT; i++) out[i] = out_rows[i];
    operands o = {.left = left,
                  .init = (const real *const *)out,
                  .out = out,
                  .right = panel,
                  .depth = DEPTH,
                  .right_stride = width * VL,
                  .columns = width * VL};
    tile_fn *tile = TILES[mode][width - 1][height - 1];
    double best = 1;
    for (int try = 0; try < TRIES; try++) {
        double begin = seconds();
        for (int i = 0; i < CALLS; i++) tile(&o);
        double taken = (seconds() - begin) / (CALLS * DEPTH * (double)(width * height));
        if (taken < best) best = taken;
    }
    return each / best;
}

int main(void) {
    const char *const modes[] = {"packed", "direct", "columns"};
    double each = least();
    printf("%.1f GFLOP/s\n", 2e-9 * (double)VL / each);
    for (int mode = PACKED; mode < MODES; mode++) {
        printf("%s: %% of that by width (across) and height; model\n", modes[mode]);
        for (size_t height = 1; height <= MAX_HEIGHT; height++) {
            printf("%zu ", height);
            for (size_t width = 1; width <= (mode == COLUMNS ? MAX_NARROW_WIDTH : MAX_WIDTH); width++) {
                double model = (double)(width * height * DEPTH) / 2 / tile_cycles(DEPTH, width, height, 1);
                if (height <= TALLEST(width))
                    printf("  %3.0f %3.0f", 100 * share(mode, width, height, each), 100 * model);
                else
                    printf("         ");
            }
            printf("\n");
        }
    }
}
