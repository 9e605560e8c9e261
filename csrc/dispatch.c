/* What this machine is: which instruction sets of this build it runs, and how large its caches are. */
#include <stdio.h>
#include <string.h>

#include "elman.h"

#if defined(ELMAN_X86)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
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

/* ---- caches */

/* As this machine says, or, where it says nothing, as is common. */
static size_t machine_caches[3] = {32 << 10, 1 << 20, 8 << 20}, caches[3];

size_t elman_cache_size(int level) { return caches[level - 1]; }

void elman_set_cache_size(int level, size_t bytes) { caches[level - 1] = bytes ? bytes : machine_caches[level - 1]; }

/* A leaf for each cache (Intel's manual, volume 2, CPUID, leaf 4; AMD's has the same at 0x8000001d), ... */
#if defined(ELMAN_X86)
static size_t size_of_cache(int level) {
    unsigned eax, ebx, ecx, edx;
    for (unsigned leaf = 0x4; leaf; leaf = leaf == 0x4 ? 0x8000001d : 0)
        for (unsigned i = 0; i < 8 && __get_cpuid_count(leaf, i, &eax, &ebx, &ecx, &edx) && (eax & 31); i++) {
            const int holds_data = (eax & 31) != 2;
            if (!holds_data || (eax >> 5 & 7) != (unsigned)level) continue;
            return ((size_t)(ebx >> 22) + 1) * ((ebx >> 12 & 1023) + 1) * ((ebx & 4095) + 1) * ((size_t)ecx + 1);
        }
    return 0;
}
#elif defined(__APPLE__)
static size_t size_of_cache(int level) {
    const char *const names[] = {"hw.perflevel0.l1dcachesize", "hw.perflevel0.l2cachesize", "hw.l3cachesize"};
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    return sysctlbyname(names[level - 1], &bytes, &size, NULL, 0) ? 0 : (size_t)bytes;
}
#else /* a file for each cache: Documentation/ABI/testing/sysfs-devices-system-cpu of Linux */
static int read_word(char *word, const char *name, int i) {
    char path[64];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, name);
    FILE *file = fopen(path, "r");
    const int found = file && fscanf(file, "%15s", word) == 1;
    if (file) fclose(file);
    return found;
}

static size_t size_of_cache(int level) {
    char word[16];
    for (int i = 0; i < 8 && read_word(word, "level", i); i++) {
        size_t kilobytes;
        if (word[0] != '0' + level || !read_word(word, "type", i) || word[0] == 'I') continue;
        return read_word(word, "size", i) && sscanf(word, "%zuK", &kilobytes) == 1 ? kilobytes << 10 : 0;
    }
    return 0;
}
#endif

__attribute__((constructor)) static void read_caches(void) {
    for (int level = 1; level <= 3; level++) {
        const size_t bytes = size_of_cache(level);
        if (bytes >= 4096) machine_caches[level - 1] = bytes;
        elman_set_cache_size(level, 0);
    }
}
