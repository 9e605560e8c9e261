/* The contract of the C kernels: what a caller hands over, and who may touch it.
 *
 * T, B, I, H, O, D: time steps, batch, inputs, hidden units, outputs, directions. Weights are k-major: (D, I, H) and
 * (D, H, H). What each function computes is said, in NumPy, in src/elman/backends/reference.py. The caller owns and has
 * checked every array; the kernels allocate nothing but leased scratch (pool.h), take no locks but the pool's, and
 * write only what stands behind "out" or "added to". Outputs overlap nothing else. All reals are of the table's dtype.
 */
#ifndef ELMAN_H
#define ELMAN_H

#include <stddef.h>
#include <stdint.h>

/* Rows over time: element (t, b, i) is data[t * t_stride + b * b_stride + i]. */
typedef struct {
    void *data;
    ptrdiff_t t_stride, b_stride;
} elman_rows;

enum elman_activation { ELMAN_TANH, ELMAN_RELU, ELMAN_SIGMOID, ELMAN_IDENTITY };
enum elman_loss { ELMAN_CROSS_ENTROPY, ELMAN_BINARY_CROSS_ENTROPY, ELMAN_SQUARED_ERROR };

/* One layer, forward and backward. */
typedef struct {
    size_t T, B, I, H, D;
    int activation;
    int reverse;            /* direction 0 runs backwards in time, as direction 1 always does; needs D = 1 */
    int has_tokens;         /* x holds int64 tokens (T, B, 1) below I instead of reals */
    const int64_t *lengths; /* (B,), each in 0..T, or NULL: T for all */
    elman_rows x;           /* (T, B, I) */
    const void *h_0;        /* (D, B, H) */
    const void *weight_ih;  /* (D, I, H) */
    const void *weight_hh;  /* (D, H, H) */
    const void *bias;       /* (D, H) or NULL */
    const void *mask;       /* (D, B, H), multiplies the recurrent input, or NULL */
    elman_rows y;           /* (T, B, D * H): out of forward, into backward */
    void *h_n;              /* (D, B, H): out of forward, or NULL */
    /* backward only */
    elman_rows d_y;    /* (T, B, D * H); data may be NULL: zeros */
    const void *d_h_n; /* (D, B, H) or NULL: zeros */
    elman_rows delta;  /* (T, B, D * H): out */
    void *d_weight_ih; /* (D, I, H): added to */
    void *d_weight_hh; /* (D, H, H): added to */
    void *d_bias;      /* (D, H): added to, or NULL */
    void *d_h_0;       /* (D, B, H): out */
    elman_rows d_x;    /* (T, B, I): out; data may be NULL: not wanted */
} elman_layer;

/* The readout o = h weight + bias and its loss. */
typedef struct {
    size_t T, B, K, O;
    int loss;
    double scale;           /* of the gradients; the returned sum of the loss is unscaled */
    const int64_t *lengths; /* (B,) or NULL */
    elman_rows h;           /* (T, B, K) */
    const void *weight;     /* (K, O) */
    const void *bias;       /* (O,) or NULL */
    elman_rows target;      /* cross entropy: int64 (T, B, 1), negative: no target; otherwise reals (T, B, O) */
    elman_rows weights;     /* (T, B, 1): of each step's loss, 0: not a target; data may be NULL: all 1 */
    elman_rows o;           /* (T, B, O): out; the outputs, or with a gradient that by the outputs */
    elman_rows d_h;         /* (T, B, K): out; data NULL: the loss alone */
    void *d_weight;         /* (K, O): added to */
    void *d_bias;           /* (O,): added to, or NULL */
} elman_readout;

/* How a pass divides its work (plan.h), for whoever asks. */
typedef struct {
    size_t threads, shards, parts, rows; /* shards of a direction, the parts and the rows of each */
    size_t panels, width, tiles,
        height;                    /* of a part's product with weight_hh: panels, their vectors; tiles, their rows */
    size_t is_packed, block_steps; /* of a backward pass: steps between sums of gradients */
    size_t vector_reals;
    double cycles; /* of a step's products with weight_hh, by the cost model */
} elman_plan;

/* One table for each instruction set and dtype. n: number of values. Where an int is returned: 0, or why not (pool.h):
 * ELMAN_NO_MEMORY, nothing was written; or, but for clip_norm, ELMAN_INTERRUPTED, outputs hold anything. */
typedef struct {
    int (*forward)(const elman_layer *);
    int (*backward)(const elman_layer *);
    /* with that many parts, 0 for the best number; -1 where there are too few threads */
    int (*plan)(const elman_layer *, int is_backward, size_t parts, elman_plan *);
    int (*readout)(const elman_readout *);
    int (*readout_loss)(const elman_readout *, double *loss);
    int (*clip_norm)(size_t n, void *gradient, double max_norm, double *norm);
    /* target (n, m) from source (m, n) */
    void (*transpose)(size_t m, size_t n, const void *source, void *target);
    void (*sgd)(size_t n, void *parameters, const void *gradient, void *velocity, double lr, double momentum);
    void (*adagrad)(size_t n, void *parameters, const void *gradient, void *square_sum, double lr, double eps);
    void (*adam)(size_t n, void *parameters, const void *gradient, void *mean, void *square, double lr, double beta1,
                 double beta2, double eps, double weight_decay, int64_t step);
} elman_kernels;

/* The table for an instruction set by name, with `is_double` for float64; NULL where this machine or build lacks it.
 * elman_best is the name of the best set that it has; elman_sets[] all names of this build, best first, then NULL. */
const elman_kernels *elman_table(const char *instruction_set, int is_double);
const char *elman_best(void);
extern const char *const elman_sets[];

#endif
