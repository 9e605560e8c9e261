/* The speed of each tile, as a share of the multiply-adds that the processor can do: bench/tiles.sh. */
#include <stdio.h>
#include <time.h>

#include "kernels.c"

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum { STEPS = 64, CALLS = 400, TRIES = 60 };
static real left_rows[MAX_HEIGHT][STEPS], left_columns[STEPS][MAX_HEIGHT], out_rows[MAX_HEIGHT][MAX_WIDTH * 16];
static real right[STEPS * MAX_WIDTH * 16] __attribute__((aligned(64)));

/* Memory that nobody has written to is one page, wherever it lies; caches of level 1 stumble over its many places. */
static void touch(void) {
    memset(left_rows, 0, sizeof left_rows), memset(left_columns, 0, sizeof left_columns);
    memset(out_rows, 0, sizeof out_rows), memset(right, 0, sizeof right);
}

/* Seconds of a multiply-add of vectors, where nothing but their number limits it. */
static double least(void) {
    double best = 1;
    for (int try = 0; try < TRIES; try++) {
        double begin = seconds(), operations = multiply_adds(20000);
        double taken = (seconds() - begin) / operations * 2 * (double)VL;
        if (taken < best) best = taken;
    }
    return best;
}

static double share_of_peak(int mode, size_t width, size_t height, double each) {
    const real *left[STEPS];
    real *out[MAX_HEIGHT];
    for (size_t i = 0; i < STEPS; i++) left[i] = mode == COLUMNS ? left_columns[i] : left_rows[i % MAX_HEIGHT];
    for (size_t i = 0; i < MAX_HEIGHT; i++) out[i] = out_rows[i];
    operands o = {.left = left,
                  .init = (const real *const *)out,
                  .out = out,
                  .right = right,
                  .depth = STEPS,
                  .right_stride = width * VL,
                  .columns = width * VL};
    tile_fn *tile = TILES[mode][width - 1][height - 1];
    double best = 1;
    for (int try = 0; try < TRIES; try++) {
        double begin = seconds();
        for (int i = 0; i < CALLS; i++) tile(&o);
        double taken = (seconds() - begin) / (CALLS * STEPS * (double)(width * height));
        if (taken < best) best = taken;
    }
    return each / best;
}

int main(void) {
    const char *const modes[] = {"packed", "direct", "columns"};
    double each = least();
    touch();
    printf("%.1f GFLOP/s\n", 2e-9 * (double)VL / each);
    for (int mode = PACKED; mode < MODES; mode++) {
        printf("%s: %% of that by width (across) and height; model\n", modes[mode]);
        for (size_t height = 1; height <= MAX_HEIGHT; height++) {
            printf("%zu ", height);
            for (size_t width = 1; width <= (mode == COLUMNS ? MAX_NARROW_WIDTH : MAX_WIDTH); width++) {
                double model = (double)(width * height * STEPS) / 2 / tile_cycles(STEPS, width, height, 1);
                if (height <= TALLEST_OF(mode, width))
                    printf("  %3.0f %3.0f", 100 * share_of_peak(mode, width, height, each), 100 * model);
                else
                    printf("         ");
            }
            printf("\n");
        }
    }
}
