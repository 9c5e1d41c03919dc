/* repeat_test.h - how often tests repeat what chance varies, and chance itself.
 *
 * Sanitizers make each repetition many times slower, and look for other things than what only many of them show: builds with debug
 * checks do an eighth. SIM_SEEDS in the environment says the number outright, in any build.
 */
#ifndef REPEAT_TEST_H
#define REPEAT_TEST_H

#include "base.h"

#include <stdlib.h>

#ifdef WEIR_DEBUG
#define REPEAT_PART 8u
#else
#define REPEAT_PART 1u
#endif

static inline uint64_t test_repeats(uint64_t usual)
{
    const char *s = getenv("SIM_SEEDS");
    uint64_t n;
    if (s && slice_u64(slice_cstr(s), 1000000, &n) == OK)
        return n;
    return (usual + REPEAT_PART - 1) / REPEAT_PART;
}

/* Fewer than any build does by itself: what is counted over all of them may not have come yet. */
static inline bool test_few(uint64_t n, uint64_t usual) { return n < (usual + 7) / 8; }

/* A number below n. state is a test's own, and begins with its seed: one seed, one history. */
static inline uint32_t test_chance(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

#endif
