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

/* out += factors * standard normals for n rows b of a batch, those of `keys`[b]: units [column, column + columns). */
typedef void elman_add_noise(const int64_t *keys, size_t n, const size_t *b, size_t step, size_t stream, size_t column,
                             size_t columns, const void *factors, const void *out);

enum elman_loss { ELMAN_CROSS_ENTROPY, ELMAN_BINARY_CROSS_ENTROPY, ELMAN_SQUARED_ERROR, ELMAN_LINEAR };

/* One layer, forward and backward. */
typedef struct {
    size_t T, B, I, H, D;
    const void *own;               /* that of the table (elman_kernels) */
    const void *const *epilogues;  /* of the cell with its activation (activations.h) */
    const struct elman_cell *cell; /* NULL for Elman's, which looks at nothing but a and y */
    int64_t reverse;               /* direction 0 runs backwards in time, as direction 1 always does; needs D = 1 */
    int64_t has_tokens;            /* x holds int64 tokens (T, B, 1) below I instead of reals */
    const int64_t *lengths;        /* (B,), each in 0..T, or NULL: T for all */
    elman_rows x;                  /* (T, B, I) */
    const void *h_0;               /* (D, B, H) */
    const void *weight_ih;         /* (D, I, H) */
    const void *weight_hh;         /* (D, H, H) */
    const void *bias;              /* (D, H) or NULL */
    const void *mask;              /* (D, B, H), multiplies the recurrent input, or NULL */
    const void *numbers;           /* (D, H): the cell's own, one for each unit, or NULL */
    const void *noise;             /* (D, H): times standard normals (noise.h), it is added to a; or NULL */
    const int64_t *keys;           /* (B,): what each row's are drawn with, or NULL where there is no noise */
    elman_add_noise *add_noise;    /* for kernels made elsewhere */
    elman_rows y;                  /* (T, B, D * H): out of forward, into backward */
    void *h_n;                     /* (D, B, H): out of forward, or NULL */
    elman_rows second;             /* (T, B, D * H), as y: what else the cell keeps of each step; data may be NULL */
    elman_rows dropped;            /* (T, B, D * H): what dropout leaves of y, -0.0 where it drops: out of forward, into
                                    * backward; data may be NULL */
    double dropout;                /* probability that it drops a unit; above 0, d_y is the gradient by `dropped` */
    uint64_t key;                  /* of what is drawn (dropout.h) */
    int64_t layer, first_step;     /* the layer's number; what is added to t: for the places that are drawn for */
    elman_rows resets;             /* (T, B) bytes: not 0 where the state before the step is h_reset; data may be NULL.
                                    * Needs D = 1 and no `reverse` */
    const void *h_reset;           /* (D, B, H), or NULL where there are no resets */
    /* backward only */
    elman_rows d_y;    /* (T, B, D * H); data may be NULL: zeros */
    const void *d_h_n; /* (D, B, H) or NULL: zeros */
    elman_rows delta;  /* (T, B, D * H): out */
    void *d_weight_ih; /* (D, I, H): added to, or NULL */
    void *d_weight_hh; /* (D, H, H): added to, or NULL */
    void *d_bias;      /* (D, H): added to, or NULL */
    void *d_h_0;       /* (D, B, H): out */
    elman_rows d_x;    /* (T, B, I): out; data may be NULL: not wanted */
    void *carry;       /* (D, B, H): scratch for what reaches a state from the next one past the product, or NULL */
    void *d_numbers;   /* (D, B, H): added to, for each row; or NULL */
    void *d_noise;     /* (D, B, H): added to, for each row; or NULL */
    void *d_h_reset;   /* (D, B, H): added to, for each row; or NULL */
} elman_layer;

/* clang-format off */
/* The names of its fields, for whoever fills it in. */
#define ELMAN_LAYER_FIELDS(F) \
    F(T) F(B) F(I) F(H) F(D) F(own) F(epilogues) F(cell) F(reverse) F(has_tokens) F(lengths) F(x) F(h_0) F(weight_ih) \
    F(weight_hh) F(bias) F(mask) F(numbers) F(noise) F(keys) F(add_noise) F(y) F(h_n) F(second) F(dropped) F(dropout) \
    F(key) F(layer) F(first_step) F(resets) F(h_reset) F(d_y) F(d_h_n) F(delta) F(d_weight_ih) F(d_weight_hh) \
    F(d_bias) F(d_h_0) F(d_x) F(carry) F(d_numbers) F(d_noise) F(d_h_reset)
/* clang-format on */

/* The readout o = h weight + bias and its loss. */
typedef struct {
    size_t T, B, K, O;
    const void *own;
    int64_t loss;           /* enum elman_loss */
    double scale;           /* of the gradients; the returned sum of the loss is unscaled */
    const int64_t *lengths; /* (B,) or NULL */
    elman_rows h;           /* (T, B, K) */
    const void *weight;     /* (K, O) */
    const void *bias;       /* (O,) or NULL */
    elman_rows target;      /* cross entropy: int64 (T, B, 1), negative: no target; otherwise reals (T, B, O) */
    elman_rows weights;     /* (T, B, 1): of each step's loss, 0: not a target; data may be NULL: all 1 */
    elman_rows o;           /* (T, B, O): out; the outputs, or with a gradient that by the outputs */
    elman_rows d_h;         /* (T, B, K): out; data may be NULL */
    void *d_weight;         /* (K, O): added to, or NULL */
    void *d_bias;           /* (O,): added to, or NULL */
} elman_readout;

/* clang-format off */
#define ELMAN_READOUT_FIELDS(F) \
    F(T) F(B) F(K) F(O) F(own) F(loss) F(scale) F(lengths) F(h) F(weight) F(bias) F(target) F(weights) F(o) F(d_h) \
    F(d_weight) F(d_bias)
/* clang-format on */

/* How a number is read from its units, where outputs are numbers: the first one; that of a rank; the mean, or what is
 * drawn, of a distribution. */
enum elman_law { ELMAN_VALUE, ELMAN_QUANTILES, ELMAN_NORMAL, ELMAN_STUDENT_T, ELMAN_COUNTS };

/* Steps of B rows in one direction, one after the other. A row that has ended is not looked at any more. */
typedef struct {
    size_t L, N;                  /* layers, and how many steps at most */
    const elman_layer *layers;    /* of one step each, from the states before the first one; those above the first read
                                   * the y of the layer below. The first one's x is written: what is drawn is fed to it.
                                   * y and `second` have no gaps between rows */
    const elman_readout *readout; /* of the last layer's y; its loss says what outputs are */
    void *drawn;                  /* categories, int64 (N, B), or reals (N, B, n_fed): out */
    void *outputs;                /* reals (N, B, O): out, or NULL */
    const void *beside;           /* reals (N, B, I - n_fed): the columns of x behind what is drawn at that step; or
                                   * NULL: x ends with what is drawn, the others being zeros */
    const void *affine;           /* reals (2, n_fed): what is drawn is fed times the first, plus the second; or NULL */
    const double *uniforms;       /* (N, B, n_uniforms): what is drawn with, each from 0 to 1, exclusive: one for a
                                   * category, one for each label, two for each number; NULL: the likeliest */
    double temperature, top_p;    /* top_k and top_p: from how few of the categories, O and 1 for all */
    size_t top_k;
    int64_t end;                    /* the category that is the last one, negative for none */
    int64_t law;                    /* enum elman_law */
    size_t rank, n_fed, n_uniforms; /* rank: of the quantile. n_fed: columns of x, O for categories */
} elman_generation;

/* One step of an optimizer, element by element. */
typedef struct {
    size_t n; /* values */
    void *parameters;
    const void *gradient;
    void *const *memories; /* what the rule keeps from step to step: n values each, then NULL */
    const double *numbers; /* the rule's own: UPDATES of src/elman/backends/reference.py */
} elman_update;

#define ELMAN_UPDATE_FIELDS(F) F(n) F(parameters) F(gradient) F(memories) F(numbers)

/* Something that has a name, such as a pair of epilogues: the last one of a list has none. */
typedef struct {
    const char *name;
    const void *address;
} elman_named;

/* How a pass divides its work (plan.h), for whoever asks. */
typedef struct {
    size_t threads, shards, parts, rows; /* shards of a direction, the parts and the rows of each */
    size_t panels, width, tiles,
        height;                    /* of a part's product with weight_hh: panels, their vectors; tiles, their rows */
    size_t is_packed, block_steps; /* of a backward pass: steps between sums of gradients */
    size_t vector_reals;
    double cycles; /* of a step's products with weight_hh, by the cost model */
} elman_plan;

/* A cell: its epilogues with each activation, and what it needs of a layer. The last of a list has no name. */
typedef struct elman_cell {
    const char *name;
    const elman_named *activations;
    size_t has_numbers, has_second, has_carry;
    size_t state_is_second; /* what goes from step to step is `second`, and h_0 and h_n of its kind; y is f of it */
} elman_cell;

/* How an optimizer updates block i of an elman_update (an elman_task, pool.h), and what it takes. The last of a list
 * has no name. */
typedef struct {
    const char *name;
    const void *task;
    size_t least_memories, most_memories, numbers;
} elman_rule;

/* One table for each instruction set and dtype. n: number of values. Where an int is returned: 0, or why not (pool.h):
 * ELMAN_NO_MEMORY, nothing was written; or, but for clip_norm, ELMAN_INTERRUPTED, outputs hold anything. */
typedef struct elman_kernels {
    int (*forward)(const elman_layer *);
    int (*backward)(const elman_layer *);
    int (*readout)(const elman_readout *);
    int (*readout_loss)(const elman_readout *, double *loss);
    int (*clip_norm)(size_t n, void *gradient, double max_norm, double *norm);
    void (*update)(const elman_update *, const void *task);
    /* mask (D, B, H): what multiplies the recurrent input (elman_layer) */
    void (*recurrent_mask)(size_t D, size_t B, size_t H, double p, uint64_t key, size_t layer, void *mask);
    /* out (T, B, N): standard normals, those that row b of the `keys` (B,) has at steps from `step` on */
    int (*normals)(size_t T, size_t B, size_t N, const elman_rows *out, const int64_t *keys, size_t step,
                   size_t stream);
    elman_add_noise *add_noise;
    /* by `forward` and `readout` of these kernels; done (B,): how many steps before the end, or before outputs that are
     * not finite */
    int (*generate)(const struct elman_kernels *, const elman_generation *, int64_t *done);
    /* with that many parts, 0 for the best number; -1 where there are too few threads */
    int (*plan)(const elman_layer *, int is_backward, size_t parts, elman_plan *);
    /* target (n, m) from source (m, n) */
    void (*transpose)(size_t m, size_t n, const void *source, void *target);
    /* keep all threads at multiply-adds, for `rounds` of them; returns how many operations these were, all together */
    double (*multiply_adds)(size_t rounds);
    const elman_cell *cells;
    const elman_rule *rules;
    size_t vector_bytes, is_fused; /* whether a multiply-add rounds once */
    const void *own;               /* what its functions want to find in a layer or readout */
} elman_kernels;

/* The table for an instruction set by name, with `is_double` for float64; NULL where this machine or build lacks it.
 * elman_best is the name of the best set that it has; elman_sets[] all names of this build, best first, then NULL. */
const elman_kernels *elman_table(const char *instruction_set, int is_double);
const char *elman_best(void);
extern const char *const elman_sets[];

/* Bytes of a core's data cache of level 1 or 2, or of the last one, level 3; as this machine says, until told otherwise
 * (0: the machine's own again). What is divided how depends on them, no result does. */
size_t elman_cache_size(int level);
void elman_set_cache_size(int level, size_t bytes);

/* Where the fields of the structures are. */
typedef struct {
    const char *name;
    size_t offset;
} elman_field;
extern const elman_field elman_layer_fields[], elman_readout_fields[], elman_update_fields[];

#endif
