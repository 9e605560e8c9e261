/* Which instruction sets this build has, and the best that this machine runs. */
#include <string.h>

#include "elman.h"

#define LAYER_FIELD(field) {#field, offsetof(elman_layer, field)},
#define READOUT_FIELD(field) {#field, offsetof(elman_readout, field)},
#define UPDATE_FIELD(field) {#field, offsetof(elman_update, field)},
const elman_field elman_layer_fields[] = {ELMAN_LAYER_FIELDS(LAYER_FIELD){NULL, 0}};
const elman_field elman_readout_fields[] = {ELMAN_READOUT_FIELDS(READOUT_FIELD){NULL, 0}};
const elman_field elman_update_fields[] = {ELMAN_UPDATE_FIELDS(UPDATE_FIELD){NULL, 0}};

/* A set of this build: where it comes in the order, and what it needs of the machine. */
#ifdef ELMAN_X86
#define HAS(feature) __builtin_cpu_supports(feature)
#define SETS(F)                                                                                      \
    F(avx512, HAS("avx512f") && HAS("avx512vl") && HAS("avx512dq") && HAS("avx512bw") && HAS("fma")) \
    F(avx2, HAS("avx2") && HAS("fma"))                                                               \
    F(baseline, 1)
#else
#define SETS(F) F(baseline, 1)
#endif

#define DECLARE(set, runs) extern const elman_kernels elman_##set##_float, elman_##set##_double;
#define NAME(set, runs) #set,
#define TABLE(set, runs) \
    if (!strcmp(name, #set)) return !(runs) ? NULL : is_double ? &elman_##set##_double : &elman_##set##_float;
SETS(DECLARE)
const char *const elman_sets[] = {SETS(NAME) NULL};

const elman_kernels *elman_table(const char *name, int is_double) {
#ifdef ELMAN_X86
    __builtin_cpu_init();
#endif
    SETS(TABLE)
    return NULL;
}

const char *elman_best(void) {
    const char *const *set = elman_sets;
    while (!elman_table(*set, 0)) set++;
    return *set;
}
