/* How large this machine's caches are. */
#include "elman.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#else
#include <stdio.h>
#endif

/* As this machine says, or, where it says nothing, as is common. */
static size_t machine_caches[3] = {32 << 10, 1 << 20, 8 << 20}, caches[3];

size_t elman_cache_size(int level) { return caches[level - 1]; }

void elman_set_cache_size(int level, size_t bytes) { caches[level - 1] = bytes ? bytes : machine_caches[level - 1]; }

/* A leaf for each cache (Intel's manual, volume 2, CPUID, leaf 4; AMD's has the same at 0x8000001d), ... */
#if defined(__x86_64__) || defined(__i386__)
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
