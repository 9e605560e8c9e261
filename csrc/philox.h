/* Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): what is random here
 * depends on a key and on a place, whatever the thread. */
#ifndef ELMAN_PHILOX_H
#define ELMAN_PHILOX_H

#include "simd.h"

#define COUNTERS (VECTOR_BYTES / sizeof(uint64_t)) /* in a vector */
#define VECTORS 2                                  /* of them at a time: more of the rounds are under way */
#define DRAWN (4 * COUNTERS * VECTORS)             /* words of one go */

/* The four words of each counter, in place: the lower half of a lane, the upper one is not looked at. */
INLINE void philox(uint64_t key, wide (*words)[VECTORS]) {
#pragma GCC unroll 10
    for (uint32_t i = 0; i < 10; i++)
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
            const wide left = multiply_halves(words[0][v], (wide){0} + 0xD2511F53u);
            const wide right = multiply_halves(words[2][v], (wide){0} + 0xCD9E8D57u);
            words[0][v] = (words[1][v] ^ ((uint32_t)key + i * 0x9E3779B9u)) ^ right >> 32, words[1][v] = right;
            words[2][v] = (words[3][v] ^ ((uint32_t)(key >> 32) + i * 0xBB67AE85u)) ^ left >> 32, words[3][v] = left;
        }
}

#endif
