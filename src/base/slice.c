/* slice.c - borrowed bytes: comparing, cutting, reading numbers, hashing.
 *
 * The hash folds 16 bytes per step with one 64x64 -> 128 bit multiplication, whose halves are xored: every input bit reaches
 * every output bit after two such steps. It is not a cryptographic hash, but it is seeded once per process, so a peer that
 * picks keys cannot know beforehand which of them collide.
 */
#include "base.h"

bool slice_ieq(struct slice a, struct slice b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
            return false;
    return true;
}

bool slice_starts(struct slice s, struct slice prefix)
{
    return s.n >= prefix.n && slice_eq(slice_of(s.p, prefix.n), prefix);
}

bool slice_ends(struct slice s, struct slice suffix)
{
    return suffix.n == 0 || (s.n >= suffix.n && slice_eq(slice_of(s.p + (s.n - suffix.n), suffix.n), suffix));
}

bool slice_iends(struct slice s, struct slice suffix)
{
    return suffix.n == 0 || (s.n >= suffix.n && slice_ieq(slice_of(s.p + (s.n - suffix.n), suffix.n), suffix));
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

struct slice slice_trim(struct slice s)
{
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

ptrdiff_t slice_find(struct slice s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

struct slice slice_cut(struct slice s, char c, struct slice *rest)
{
    ptrdiff_t i = slice_find(s, c);
    if (i < 0) {
        *rest = s.n ? slice_of(s.p + s.n, 0) : s;
        return s;
    }
    *rest = slice_of(s.p + i + 1, s.n - (size_t)i - 1);
    return slice_of(s.p, (size_t)i);
}

enum err slice_u64(struct slice s, uint64_t max, uint64_t *out)
{
    if (s.n == 0)
        return ERR_SYNTAX;
    uint64_t v = 0;
    bool over = false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';
        if (digit > 9)
            return ERR_SYNTAX; /* also behind an overflow: what is not a number is malformed, however long */
        over = over || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v);
    }
    if (over || v > max)
        return ERR_LIMIT;
    *out = v;
    return OK;
}

/* ---- hash ---------------------------------------------------------------------------------------------------- */

/* Odd constants with about half their bits set: the fractional parts of the square roots of 2, 3 and 5. */
#define HASH_K0 0x6a09e667f3bcc909u
#define HASH_K1 0xbb67ae8584caa73bu
#define HASH_K2 0x3c6ef372fe94f82bu

static uint64_t hash_seed_now = HASH_K0; /* set before threads start, read-only afterwards */

void hash_seed(uint64_t seed)
{
    hash_seed_now = seed ^ HASH_K0;
}

static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t load64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t hash_bytes(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t h = hash_seed_now, a = 0, b = 0;
    size_t left = n;
    for (; left > 16; p += 16, left -= 16)
        h = hash_fold(load64(p) ^ HASH_K1, load64(p + 8) ^ h);
    /* The last 1 to 16 bytes as two words that may overlap; n, folded in below, tells such inputs apart. */
    if (left >= 8) {
        a = load64(p);
        b = load64(p + left - 8);
    } else if (left >= 4) {
        a = load32(p);
        b = load32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left / 2] << 8 | p[left - 1];
    }
    h = hash_fold(a ^ HASH_K1, b ^ h);
    return hash_fold(h ^ HASH_K2, n ^ HASH_K1);
}

uint64_t hash_slice(struct slice s)
{
    return hash_bytes(s.p, s.n);
}
