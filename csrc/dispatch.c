/* Which instruction sets this build has, and the best that this machine runs. */
#include <string.h>

#include "elman.h"

#ifdef ELMAN_X86
#include <cpuid.h>
#endif

#define LAYER_FIELD(field) {#field, offsetof(elman_layer, field)},
#define READOUT_FIELD(field) {#field, offsetof(elman_readout, field)},
#define UPDATE_FIELD(field) {#field, offsetof(elman_update, field)},
const elman_field elman_layer_fields[] = {ELMAN_LAYER_FIELDS(LAYER_FIELD){NULL, 0}};
const elman_field elman_readout_fields[] = {ELMAN_READOUT_FIELDS(READOUT_FIELD){NULL, 0}};
const elman_field elman_update_fields[] = {ELMAN_UPDATE_FIELDS(UPDATE_FIELD){NULL, 0}};

/* A set of this build: where it comes in the order, and what it needs of the machine. */
#ifdef ELMAN_X86
#define SETS(F)                  \
    F(avx512, runs_vectors(512)) \
    F(avx2, runs_vectors(256))   \
    F(baseline, 1)

enum { OS_SAVES = 1 << 27, FMA = 1 << 12, AVX2 = 1 << 5 };
#define AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F, DQ, BW and VL */

static int has_all(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

/* Asked of the processor itself: __builtin_cpu_supports says no to everything where a linker brings none of what GCC
 * initialises it with, as Zig's does. The system must save the registers, too, when it switches threads (Intel's
 * manual, volume 1, 14.3 and 15.2); macOS does so for those of 512 bits from a thread's first use of one, and says so
 * then. */
static int runs_vectors(int bits) {
    unsigned eax, ebx, ecx, edx, saved, upper;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has_all(ecx, OS_SAVES | FMA)) return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
#ifdef __APPLE__
    saved |= 0xe0;
#endif
    return bits == 512 ? has_all(ebx, AVX512) && has_all(saved, 0xe6) : has_all(ebx, AVX2) && has_all(saved, 0x6);
}
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
    SETS(TABLE)
    return NULL;
}

const char *elman_best(void) {
    const char *const *set = elman_sets;
    while (!elman_table(*set, 0)) set++;
    return *set;
}
