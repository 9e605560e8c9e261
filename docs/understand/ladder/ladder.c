/* The recurrence h[t] = tanh(x[t] + h[t-1] W), in six ways. kernels.md tells why,
 * and measure.py by how much. H is a multiple of 64, B of 4. Not a part of elman:
 * csrc/ is the sixth for all sizes, with all that a layer needs.
 *
 * x (T, B, H): what the input contributes; h (T + 1, B, H), h[0] given;
 * w (H, H): to unit j from unit k, w[j][k].
 */
#include <math.h>
#include <stdlib.h>

#include "vecmath.h" /* csrc/: vectors (simd.h) and their tanh */

typedef struct {
    size_t T, B, H;
    const float *x, *w;
    float *h;
} layer;

/* Rows of step t, counted from 0. */
#define X(t, b) (l->x + ((t) * l->B + (b)) * l->H)
#define BEFORE(t, b) (l->h + ((t) * l->B + (b)) * l->H)
#define AFTER(t, b) (l->h + (((t) + 1) * l->B + (b)) * l->H)

/* start naive */
void naive(const layer *l) {
    for (size_t t = 0; t < l->T; t++)
        for (size_t b = 0; b < l->B; b++)
            for (size_t j = 0; j < l->H; j++) {
                float a = X(t, b)[j];
                for (size_t k = 0; k < l->H; k++)
                    a += l->w[j * l->H + k] * BEFORE(t, b)[k];
                AFTER(t, b)[j] = tanhf(a);
            }
}
/* end naive */

static float *transposed(const layer *l) {
    float *w = aligned_alloc(64, l->H * l->H * sizeof *w);
    for (size_t j = 0; j < l->H; j++)
        for (size_t k = 0; k < l->H; k++)
            w[k * l->H + j] = l->w[j * l->H + k];
    return w;
}

/* start k_major */
static void add_up(const layer *l, const float *restrict w, size_t t, size_t b) {
    const float *h = BEFORE(t, b), *x = X(t, b);
    float *restrict a = AFTER(t, b);
    for (size_t j = 0; j < l->H; j++)
        a[j] = x[j];
    for (size_t k = 0; k < l->H; k++)
        for (size_t j = 0; j < l->H; j++)
            a[j] += w[k * l->H + j] * h[k];
}
/* end add_up */

void k_major(const layer *l) {
    float *w = transposed(l); /* w[k][j] */
    for (size_t t = 0; t < l->T; t++)
        for (size_t b = 0; b < l->B; b++) {
            add_up(l, w, t, b);
            for (size_t j = 0; j < l->H; j++)
                AFTER(t, b)[j] = tanhf(AFTER(t, b)[j]);
        }
    free(w);
}
/* end k_major */

/* start vector_tanh */
void vector_tanh(const layer *l) {
    float *w = transposed(l);
    for (size_t t = 0; t < l->T; t++)
        for (size_t b = 0; b < l->B; b++) {
            add_up(l, w, t, b);
            float *a = AFTER(t, b);
            for (size_t j = 0; j < l->H; j += VL)
                store(a + j, tanh_(load(a + j)));
        }
    free(w);
}
/* end vector_tanh */

/* start registers */
#define WIDTH 4 /* vectors */

void registers(const layer *l) {
    float *w = transposed(l);
    for (size_t t = 0; t < l->T; t++)
        for (size_t b = 0; b < l->B; b++)
            for (size_t j = 0; j < l->H; j += WIDTH * VL) {
                const float *h = BEFORE(t, b), *w_j = w + j;
                vec acc[WIDTH];
                for (size_t v = 0; v < WIDTH; v++)
                    acc[v] = load(X(t, b) + j + v * VL);
                for (size_t k = 0; k < l->H; k++)
                    for (size_t v = 0; v < WIDTH; v++)
                        acc[v] =
                            fma_(set1(h[k]), load(w_j + k * l->H + v * VL), acc[v]);
                for (size_t v = 0; v < WIDTH; v++)
                    store(AFTER(t, b) + j + v * VL, tanh_(acc[v]));
            }
    free(w);
}
/* end registers */

/* start tile */
#define HEIGHT 4 /* rows */

INLINE void tile(const layer *l, size_t t, size_t b, size_t j, /* step, row, column */
                 const float *w, size_t stride) {
    vec acc[HEIGHT][WIDTH];
    for (size_t r = 0; r < HEIGHT; r++)
        for (size_t v = 0; v < WIDTH; v++)
            acc[r][v] = load(X(t, b + r) + j + v * VL);
    for (size_t k = 0; k < l->H; k++) {
        vec w_k[WIDTH]; /* read once, used by every row */
        for (size_t v = 0; v < WIDTH; v++)
            w_k[v] = load(w + k * stride + v * VL);
        for (size_t r = 0; r < HEIGHT; r++)
            for (size_t v = 0; v < WIDTH; v++)
                acc[r][v] = fma_(set1(BEFORE(t, b + r)[k]), w_k[v], acc[r][v]);
    }
    for (size_t r = 0; r < HEIGHT; r++)
        for (size_t v = 0; v < WIDTH; v++)
            store(AFTER(t, b + r) + j + v * VL, tanh_(acc[r][v]));
}
/* end tile */

void tiles(const layer *l) {
    float *w = transposed(l);
    for (size_t t = 0; t < l->T; t++)
        for (size_t j = 0; j < l->H; j += WIDTH * VL)
            for (size_t b = 0; b < l->B; b += HEIGHT)
                tile(l, t, b, j, w + j, l->H);
    free(w);
}

/* start panels */
void panels(const layer *l) {
    float *w = aligned_alloc(64, l->H * l->H * sizeof *w), *to = w;
    /* A panel: all k of WIDTH * VL columns */
    for (size_t j = 0; j < l->H; j += WIDTH * VL)
        for (size_t k = 0; k < l->H; k++)
            for (size_t i = j; i < j + WIDTH * VL; i++)
                *to++ = l->w[i * l->H + k];
    for (size_t t = 0; t < l->T; t++)
        for (size_t j = 0; j < l->H; j += WIDTH * VL)
            for (size_t b = 0; b < l->B; b += HEIGHT)
                tile(l, t, b, j, w + j * l->H, WIDTH * VL);
    free(w);
}
/* end panels */
