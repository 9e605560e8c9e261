/* Which instruction sets this build has, and the best that this machine runs. */
#include <string.h>

#include "elman.h"

#define LAYER_FIELD(field) {#field, offsetof(elman_layer, field)},
#define READOUT_FIELD(field) {#field, offsetof(elman_readout, field)},
#define UPDATE_FIELD(field) {#field, offsetof(elman_update, field)},
const elman_field elman_layer_fields[] = {ELMAN_LAYER_FIELDS(LAYER_FIELD){NULL, 0}};
const elman_field elman_readout_fields[] = {ELMAN_READOUT_FIELDS(READOUT_FIELD){NULL, 0}};
const elman_field elman_update_fields[] = {ELMAN_UPDATE_FIELDS(UPDATE_FIELD){NULL, 0}};

#define DECLARE(set) extern const elman_kernels elman_##set##_float, elman_##set##_double;
DECLARE(baseline)
#ifdef ELMAN_X86
DECLARE(avx2)
DECLARE(avx512)
#endif

#ifdef ELMAN_X86
const char *const elman_sets[] = {"avx512", "avx2", "baseline", NULL};
#else
const char *const elman_sets[] = {"baseline", NULL};
#endif

static int runs(const char *set) {
#ifdef ELMAN_X86
    __builtin_cpu_init();
    if (!strcmp(set, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(set, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("fma");
#endif
    return !strcmp(set, "baseline");
}

const char *elman_best(void) {
    const char *const *set = elman_sets;
    while (!runs(*set)) set++;
    return *set;
}

const elman_kernels *elman_table(const char *set, int is_double) {
    if (!runs(set)) return NULL;
#ifdef ELMAN_X86
    if (!strcmp(set, "avx512")) return is_double ? &elman_avx512_double : &elman_avx512_float;
    if (!strcmp(set, "avx2")) return is_double ? &elman_avx2_double : &elman_avx2_float;
#endif
    return is_double ? &elman_baseline_double : &elman_baseline_float;
}
