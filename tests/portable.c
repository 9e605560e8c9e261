/* Prints a checksum of every output of the kernels, for problems of all kinds: portable INSTRUCTION_SET. Sets that fuse
 * multiply-adds print the same, but for cross entropy, whose sum over categories depends on the width of vectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string.h>

#include "elman.h"
#include "pool.h"

static const elman_kernels *kernels;
static int is_double;
static uint64_t seed;

static size_t real_size(void) { return is_double ? sizeof(double) : sizeof(float); }

/* n reals in (-scale, scale) */
static void *reals(size_t n, double scale) {
    void *p = malloc(n * real_size() + 1);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double x = ((double)(seed >> 40) / (1 << 23) - 1) * scale;
        if (is_double)
            ((double *)p)[i] = x;
        else
            ((float *)p)[i] = (float)x;
    }
    return p;
}

static int64_t *integers(size_t n, int64_t low, int64_t high) {
    int64_t *p = malloc(n * sizeof *p + 1);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = low + (int64_t)((seed >> 33) % (uint64_t)(high - low));
    }
    return p;
}

static void report(const char *name, const void *reals, size_t n) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n * real_size(); i++) hash = (hash ^ ((const unsigned char *)reals)[i]) * 1099511628211u;
    printf("  %-12s %016llx\n", name, (unsigned long long)hash);
}

typedef struct {
    size_t T, B, I, H, D;
    const char *activation;
    int is_ragged, has_mask, has_tokens, reverse;
} problem;

static const problem PROBLEMS[] = {
    {1, 1, 1, 1, 1, "tanh", 0, 0, 0, 0},       {5, 3, 2, 17, 1, "tanh", 0, 0, 0, 0},
    {7, 9, 30, 65, 2, "sigmoid", 1, 1, 0, 0},  {20, 33, 12, 100, 1, "relu", 0, 1, 0, 1},
    {40, 1, 3, 257, 1, "tanh", 0, 0, 0, 0},    {30, 2, 5, 300, 2, "tanh", 1, 1, 0, 0},
    {12, 100, 50, 31, 1, "tanh", 1, 0, 1, 0},  {9, 5, 65, 130, 2, "identity", 0, 0, 1, 0},
    {300, 4, 8, 16, 1, "sigmoid", 1, 0, 0, 1}, {7, 5, 12, 40, 1, "softplus", 0, 0, 0, 0},
    {7, 5, 12, 40, 1, "retanh", 0, 0, 0, 0},   {7, 5, 12, 40, 1, "power", 0, 0, 0, 0},
};

static const void *find(const elman_named *list, const char *name) {
    while (strcmp(list->name, name)) list++;
    return list->address;
}

static void run_layer(const problem *p) {
    const size_t T = p->T, B = p->B, I = p->I, H = p->H, D = p->D;
    elman_layer l = {.T = T, .B = B, .I = I, .H = H, .D = D, .reverse = p->reverse};
    l.epilogues = find(kernels->cells->activations, p->activation);
    l.has_tokens = p->has_tokens;
    l.lengths = p->is_ragged ? integers(B, 0, (int64_t)T + 1) : NULL;
    l.x = p->has_tokens ? (elman_rows){integers(T * B, 0, (int64_t)I), (ptrdiff_t)B, 1}
                        : (elman_rows){reals(T * B * I, 1), (ptrdiff_t)(B * I), (ptrdiff_t)I};
    l.h_0 = reals(D * B * H, 1), l.bias = reals(D * H, 0.1), l.mask = p->has_mask ? reals(D * B * H, 1) : NULL;
    l.weight_ih = reals(D * I * H, 0.3), l.weight_hh = reals(D * H * H, 0.1);
    void *y = reals(T * B * D * H, 0), *d_y = reals(T * B * D * H, 1), *delta = reals(T * B * D * H, 0);
    const ptrdiff_t t_stride = (ptrdiff_t)(B * D * H), b_stride = (ptrdiff_t)(D * H);
    l.y = (elman_rows){y, t_stride, b_stride}, l.d_y = (elman_rows){d_y, t_stride, b_stride};
    l.delta = (elman_rows){delta, t_stride, b_stride};
    void *dropped = reals(T * B * D * H, 0), *drawn = reals(D * B * H, 0);
    l.dropped = (elman_rows){dropped, t_stride, b_stride};
    l.dropout = T % 2 ? 0.3 : 0, l.key = 0x123456789abcdef0u, l.layer = 2, l.first_step = 50;
    l.h_n = reals(D * B * H, 0), l.d_h_n = reals(D * B * H, 1), l.d_h_0 = reals(D * B * H, 0);
    l.d_weight_ih = reals(D * I * H, 1), l.d_weight_hh = reals(D * H * H, 1), l.d_bias = reals(D * H, 1);
    if (!p->has_tokens) l.d_x = (elman_rows){reals(T * B * I, 0), (ptrdiff_t)(B * I), (ptrdiff_t)I};
    if (kernels->forward(&l) || kernels->backward(&l)) abort();
    kernels->recurrent_mask(D, B, H, 0.3, l.key, 2, drawn);
    report("dropped", dropped, T * B * D * H), report("mask", drawn, D * B * H);
    report("y", y, T * B * D * H), report("h_n", l.h_n, D * B * H), report("delta", delta, T * B * D * H);
    report("d_weight_ih", l.d_weight_ih, D * I * H), report("d_weight_hh", l.d_weight_hh, D * H * H);
    report("d_bias", l.d_bias, D * H), report("d_h_0", l.d_h_0, D * B * H);
    if (l.d_x.data) report("d_x", l.d_x.data, T * B * I);
}

static void run_readout(int loss) {
    const size_t T = 6, B = 11, K = 70, O = 37;
    elman_readout r = {.T = T, .B = B, .K = K, .O = O, .loss = loss, .scale = 0.25};
    r.lengths = integers(B, 0, (int64_t)T + 1);
    r.h = (elman_rows){reals(T * B * K, 1), (ptrdiff_t)(B * K), (ptrdiff_t)K};
    r.weight = reals(K * O, 0.2), r.bias = reals(O, 0.2);
    r.target = loss == ELMAN_CROSS_ENTROPY ? (elman_rows){integers(T * B, -1, (int64_t)O), (ptrdiff_t)B, 1}
                                           : (elman_rows){reals(T * B * O, 1), (ptrdiff_t)(B * O), (ptrdiff_t)O};
    r.o = (elman_rows){reals(T * B * O, 0), (ptrdiff_t)(B * O), (ptrdiff_t)O};
    r.d_h = (elman_rows){reals(T * B * K, 0), (ptrdiff_t)(B * K), (ptrdiff_t)K};
    r.d_weight = reals(K * O, 1), r.d_bias = reals(O, 1);
    double sum;
    if (kernels->readout_loss(&r, &sum)) abort();
    report("o", r.o.data, T * B * O), report("d_h", r.d_h.data, T * B * K);
    report("d_weight", r.d_weight, K * O), report("d_bias", r.d_bias, O);
}

static void run_optimizers(void) {
    const size_t n = 12345;
    void *parameters = reals(n, 1), *gradient = reals(n, 1), *state = reals(n, 0.1), *square = reals(n, 0);
    double norm;
    if (kernels->clip_norm(n, gradient, 0.5, &norm)) abort();
    const struct {
        const char *rule;
        void *memories[3];
        double numbers[6];
    } updates[] = {{"sgd", {state}, {0.1, 0.9}},
                   {"adagrad", {square}, {0.1, 1e-8}},
                   {"adam", {state, square}, {0.1, 0.9, 0.999, 1e-8, 0.01, 3}},
                   {"average", {0}, {0.1}}};
    for (int i = 0; i < 4; i++) {
        const elman_update u = {n, parameters, gradient, updates[i].memories, updates[i].numbers};
        const elman_rule *rule = kernels->rules;
        while (strcmp(rule->name, updates[i].rule)) rule++;
        kernels->update(&u, rule->task);
    }
    report("gradient", gradient, n), report("parameters", parameters, n), report("state", state, n);
}

int main(int n_arguments, char **arguments) {
    elman_set_num_threads(3);
    for (is_double = 0; is_double < 2; is_double++) {
        kernels = n_arguments == 2 ? elman_table(arguments[1], is_double) : NULL;
        if (!kernels) {
            fprintf(stderr, "portable INSTRUCTION_SET: one that this machine has\n");
            return 2;
        }
        seed = 1;
        for (size_t i = 0; i < sizeof PROBLEMS / sizeof *PROBLEMS; i++) {
            const problem *p = &PROBLEMS[i];
            printf("%s T=%zu B=%zu I=%zu H=%zu D=%zu\n", is_double ? "float64" : "float32", p->T, p->B, p->I, p->H,
                   p->D);
            run_layer(p);
        }
        for (int loss = ELMAN_CROSS_ENTROPY; loss <= ELMAN_SQUARED_ERROR; loss++) {
            printf("readout with loss %d\n", loss);
            run_readout(loss);
        }
        printf("optimizers\n");
        run_optimizers();
    }
    return 0;
}
