/* All kernels for one dtype and one instruction set: compiled once for each (CMakeLists.txt), ELMAN_TABLE naming the
 * table. Everything but that table is static, so that no function of one set can be linked into another. */
#include "optimizers.h"
#include "readout.h"
#include "recurrence.h"

static void transpose_matrix(size_t m, size_t n, const void *source, void *target) {
    transpose(target, m, source, n, n, m);
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

const elman_kernels ELMAN_TABLE = {
    .forward = forward_call,
    .backward = backward_call,
    .readout = readout_call,
    .readout_loss = readout_loss_call,
    .clip_norm = clip_norm,
    .update = run_update,
    .plan = plan,
    .transpose = transpose_matrix,
    .cells = CELL_LIST,
    .rules = RULES,
    .vector_bytes = VECTOR_BYTES,
    .is_fused = IS_FUSED,
};
