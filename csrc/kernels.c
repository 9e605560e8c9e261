/* All kernels for one dtype and one instruction set: compiled once for each (CMakeLists.txt), ELMAN_TABLE naming the
 * table. Everything but that table is static, so that no function of one set can be linked into another. */
#include "generate.h"
#include "noise.h"
#include "optimizers.h"
#include "readout.h"
#include "recurrence.h"

static void transpose_matrix(size_t m, size_t n, const void *source, void *target) {
    transpose(target, m, source, n, n, m);
}

/* What a processor can do at best: multiply-adds in registers, enough of them under way to hide their latency. */
#define UNDER_WAY (REGISTERS - 4)

static void multiply_add_task(void *context, size_t task) {
    vec acc[UNDER_WAY], factor = set1((real)0.5), total = set1((real)task);
#pragma GCC unroll 32
    for (size_t i = 0; i < UNDER_WAY; i++) acc[i] = set1((real)i);
    for (size_t n = *(const size_t *)context; n > 0; n--) {
#pragma GCC unroll 32
        for (size_t i = 0; i < UNDER_WAY; i++) {
            acc[i] = fma_(acc[i], factor, factor);
            KEEP(acc[i]);
        }
    }
#pragma GCC unroll 32
    for (size_t i = 0; i < UNDER_WAY; i++) total += acc[i];
    volatile real result = sum(total); /* so that it has to be computed */
    (void)result;
}

static double multiply_adds(size_t rounds) {
    const size_t threads = (size_t)elman_get_num_threads();
    elman_run(multiply_add_task, &rounds, threads, threads);
    return 2.0 * VL * UNDER_WAY * (double)rounds * (double)threads;
}

/* What runs long can be stopped; an update cannot, as it would be torn. */
#define STOPPABLE(function, parameters, ...)      \
    static int function##_call parameters {       \
        elman_call call;                          \
        elman_begin(&call);                       \
        const int status = function(__VA_ARGS__); \
        const int reason = elman_end(&call);      \
        return status ? status : reason;          \
    }
STOPPABLE(forward, (const elman_layer *l), l)
STOPPABLE(backward, (const elman_layer *l), l)
STOPPABLE(readout, (const elman_readout *r), r)
STOPPABLE(readout_loss, (const elman_readout *r, double *loss), r, loss)
STOPPABLE(normals,
          (size_t T, size_t B, size_t N, const elman_rows *out, const int64_t *keys, size_t step, size_t stream), T, B,
          N, out, keys, step, stream)

const elman_kernels ELMAN_TABLE = {
    .forward = forward_call,
    .backward = backward_call,
    .readout = readout_call,
    .readout_loss = readout_loss_call,
    .clip_norm = clip_norm,
    .update = run_update,
    .recurrent_mask = recurrent_mask,
    .normals = normals_call,
    .add_noise = add_noise,
    .generate = generate,
    .plan = plan,
    .transpose = transpose_matrix,
    .multiply_adds = multiply_adds,
    .cells = CELL_LIST,
    .rules = RULES,
    .vector_bytes = VECTOR_BYTES,
    .is_fused = IS_FUSED,
};
