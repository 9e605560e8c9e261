/* All kernels for one dtype and one instruction set: compiled once for each (CMakeLists.txt), ELMAN_TABLE naming the
 * table. Everything but that table is static, so that no function of one set can be linked into another. */
#include "optimizers.h"
#include "readout.h"
#include "recurrence.h"

static void transpose_matrix(size_t m, size_t n, const void *source, void *target) {
    transpose(target, m, source, n, n, m);
}

const elman_kernels ELMAN_TABLE = {
    .forward = forward,
    .backward = backward,
    .plan = plan,
    .readout = readout,
    .readout_loss = readout_loss,
    .clip_norm = clip_norm,
    .transpose = transpose_matrix,
    .sgd = sgd,
    .adagrad = adagrad,
    .adam = adam,
};
