/* hash_ring.c - hashes that last, and the two tables that turn one into an endpoint.
 *
 * Ring (Karger et al.): each endpoint has points on a circle of 2^32 places, as many as its weight asks for; a request goes to the
 * first point at or behind its hash. Point k of an endpoint depends on nothing but its name and k, so an endpoint that comes or
 * goes moves only its own share, and a changed weight only the difference.
 *
 * Maglev (Eisenbud et al., NSDI 2016): a table of prime size M. Each endpoint has a permutation of all places from two hashes of its
 * name; in turns, weighted, each takes the first place of its permutation that is still free. Lookup is one read; shares are more
 * even than on a ring; a change moves a little more than its share.
 *
 * Both are built over all endpoints of a group, whoever is up: a request whose place belongs to one that is down walks on. So
 * ejections build nothing, and whoever comes back finds its requests again.
 */
#include "cluster.h"

/* Odd constants with about half their bits set: fractional parts of the square roots of 7, 11 and 13. */
#define KEY_K0 0xa54ff53a5f1d36f1u
#define KEY_K1 0x510e527fade682d1u
#define KEY_K2 0x9b05688c2b3e6c1fu

/* ---- hashes --------------------------------------------------------------------------------------------------------- */

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Little-endian, so that all machines agree. */
static inline uint64_t load_le(const char *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

uint64_t hash_key(struct slice s)
{
    uint64_t h = KEY_K0;
    size_t n = s.n;
    for (; s.n > 16; s.p += 16, s.n -= 16)
        h = fold(load_le(s.p, 8) ^ KEY_K1, load_le(s.p + 8, 8) ^ h);
    uint64_t a = s.n ? load_le(s.p, MIN(s.n, 8u)) : 0;
    uint64_t b = s.n > 8 ? load_le(s.p + 8, s.n - 8) : 0;
    h = fold(a ^ KEY_K1, b ^ h);
    return fold(h ^ KEY_K2, n ^ KEY_K1);
}

uint64_t hash_addr(const struct addr *a)
{
    if (a->family == ADDR_UNIX)
        return hash_key(slice_of(a->path, strnlen(a->path, sizeof a->path)));
    return hash_key(slice_of((const char *)a->ip, a->family == ADDR_IP4 ? 4 : 16));
}

uint64_t hash_join(uint64_t a, uint64_t b) { return fold(fold(a ^ KEY_K2, b ^ KEY_K1) ^ KEY_K0, KEY_K2); }

/* ---- what is hashed ---------------------------------------------------------------------------------------------------- */

bool cookie_find(struct slice field, struct slice name, struct slice *value)
{
    while (field.n) {
        struct slice v, pair = slice_trim(slice_cut(field, ';', &field));
        if (slice_find(pair, '=') < 0)
            continue;
        if (!slice_eq(slice_cut(pair, '=', &v), name))
            continue;
        if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
            v = slice_of(v.p + 1, v.n - 2);
        *value = v;
        return true;
    }
    return false;
}

bool query_find(struct slice target, struct slice name, struct slice *value)
{
    struct slice query, rest;
    slice_cut(target, '?', &query);
    query = slice_cut(query, '#', &rest);
    while (query.n) {
        struct slice v, pair = slice_cut(query, '&', &query);
        if (!slice_eq(slice_cut(pair, '=', &v), name))
            continue;
        *value = v;
        return true;
    }
    return false;
}

/* ---- ring ------------------------------------------------------------------------------------------------------------------ */

/* Sorts by hash, a byte at a time from the lowest; stable, so equal hashes stay in the order of members. */
static void points_sort(struct ring_point *p, uint32_t n)
{
    struct ring_point *from = p, *to = mem_new(MEM_PLAN, n * sizeof *to), *scratch = to;
    for (uint32_t shift = 0; shift < 32; shift += 8) {
        uint32_t start[257] = {0};
        for (uint32_t i = 0; i < n; i++)
            start[(from[i].hash >> shift & 0xff) + 1]++;
        for (uint32_t b = 0; b < 256; b++)
            start[b + 1] += start[b];
        for (uint32_t i = 0; i < n; i++)
            to[start[from[i].hash >> shift & 0xff]++] = from[i];
        struct ring_point *swap = from;
        from = to;
        to = swap;
    }
    mem_free(scratch); /* after four passes everything is in p again */
}

static uint64_t weights_sum(const struct lb_group *g, const struct lb_member *members)
{
    uint64_t sum = 0;
    for (uint32_t k = 0; k < g->n; k++)
        sum += members[g->first + k].weight;
    return sum;
}

/* Points for a unit of weight: a power of two, rounded up from what the wanted size gives. So a member that comes, goes or
 * changes its weight seldom changes the points of the others; never in a small ring of equal members, where each has half the
 * least size, whatever their number: between three and four replicas a step of the power would move a third of all keys. */
static double points_per_weight(const struct lb_group *g, uint64_t weights, uint32_t size_min)
{
    uint64_t least = MIN(size_min, RING_SIZE_MAX);
    uint64_t points = MIN((uint64_t)g->n * RING_POINTS_PER_HOST, (uint64_t)RING_POINTS_MAX);
    points = MAX(points, MIN((uint64_t)g->n * ((least + 1) / 2), MAX((uint64_t)RING_POINTS_SMALL, least)));
    points = MAX(points, least);
    double wanted = (double)points / (double)weights, unit = 1;
    while (unit < wanted)
        unit *= 2;
    while (unit / 2 >= wanted)
        unit /= 2;
    return unit;
}

static uint32_t points_of(const struct lb_member *m, double unit) { return MAX(1u, (uint32_t)(m->weight * unit + 0.5)); }

/* Where each of about as many equal parts of the circle as there are points begins, so that a lookup is a step or two. */
static void ring_index(struct lb_group *g, struct arena *a)
{
    g->ring_bits = 1;
    while (g->ring_bits < 24 && 2u << g->ring_bits <= g->ring_n)
        g->ring_bits++;
    g->ring_start = arena_alloc(a, sizeof *g->ring_start << g->ring_bits);
    for (uint32_t part = 0, at = 0; part < 1u << g->ring_bits; part++) {
        while (at < g->ring_n && g->ring[at].hash >> (32 - g->ring_bits) < part)
            at++;
        g->ring_start[part] = at;
    }
}

void ring_build(struct lb_group *g, const struct lb_member *members, uint32_t size_min, struct arena *a)
{
    double unit = points_per_weight(g, weights_sum(g, members), size_min);
    uint64_t n = 0;
    for (uint32_t k = 0; k < g->n; k++)
        n += points_of(&members[g->first + k], unit);
    MUST(n <= UINT32_MAX);
    g->ring = arena_alloc(a, n * sizeof *g->ring);
    g->ring_n = 0;
    for (uint32_t k = 0; k < g->n; k++) {
        const struct lb_member *m = &members[g->first + k];
        uint32_t own = points_of(m, unit);
        for (uint32_t i = 0; i < own; i++)
            g->ring[g->ring_n++] = (struct ring_point){.hash = (uint32_t)(hash_join(m->host->key, i + 1) >> 32), .member = k};
    }
    points_sort(g->ring, g->ring_n);
    ring_index(g, a);
}

uint32_t ring_at(const struct lb_group *g, uint64_t hash)
{
    uint32_t place = (uint32_t)(hash >> 32), at = g->ring_start[place >> (32 - g->ring_bits)];
    while (at < g->ring_n && g->ring[at].hash < place)
        at++;
    return at < g->ring_n ? at : 0;
}

/* ---- Maglev ------------------------------------------------------------------------------------------------------------------ */

static uint32_t prime_from(uint32_t n)
{
    for (n = MAX(n, 3u) | 1u;; n += 2) {
        uint32_t d = 3;
        while (d * d <= n && n % d != 0)
            d += 2;
        if (d * d > n)
            return n;
    }
}

/* Members take places in turns. A member of weight w has its turns in rounds max/w, 2 max/w, ...: a calendar holds, for each
 * round, the list of those that are due, so filling costs M turns whatever the weights are. */
struct maglev_turns {
    uint32_t *round_first; /* by round: member + 1; 0: none */
    uint32_t *next;        /* by member: the next one in the same round */
    uint32_t *taken;       /* by member: turns had */
    uint32_t *at, *skip;   /* by member: its permutation, where it stands and how it goes on */
};

static void turn_enter(struct maglev_turns *t, uint32_t k, uint64_t weight, uint64_t weight_max, uint32_t rounds)
{
    uint64_t round = ((uint64_t)(t->taken[k] + 1) * weight_max + weight - 1) / weight;
    if (round > rounds)
        return;
    t->next[k] = t->round_first[round];
    t->round_first[round] = k + 1;
}

static uint32_t place_take(const uint16_t *table, struct maglev_turns *t, uint32_t k, uint32_t size)
{
    uint32_t at = t->at[k];
    while (table[at] != UINT16_MAX) {
        at += t->skip[k];
        at = at >= size ? at - size : at;
    }
    t->at[k] = at;
    return at;
}

static void maglev_fill(uint16_t *table, uint32_t size, const struct lb_member *members, uint32_t n, struct maglev_turns *t)
{
    uint64_t weight_max = 0;
    for (uint32_t k = 0; k < n; k++)
        weight_max = MAX(weight_max, (uint64_t)members[k].weight);
    for (uint32_t k = n; k-- > 0;) {
        uint64_t key = members[k].host->key;
        t->at[k] = (uint32_t)((unsigned __int128)hash_join(key, 1) * size >> 64);
        t->skip[k] = 1 + (uint32_t)((unsigned __int128)hash_join(key, 2) * (size - 1) >> 64);
        turn_enter(t, k, members[k].weight, weight_max, size);
    }
    memset(table, 0xff, size * sizeof *table);
    uint32_t filled = 0;
    for (uint32_t round = 1; filled < size; round++) {
        MUST(round <= size); /* the heaviest takes one each round */
        for (uint32_t k, due = t->round_first[round]; due && filled < size; filled++) {
            k = due - 1;
            due = t->next[k];
            table[place_take(table, t, k, size)] = (uint16_t)k;
            t->taken[k]++;
            turn_enter(t, k, members[k].weight, weight_max, size);
        }
    }
}

void maglev_build(struct lb_group *g, const struct lb_member *members, uint32_t size, struct arena *a)
{
    MUST(g->n > 0 && g->n <= MAGLEV_HOSTS_MAX);
    size = prime_from(MIN(MAX(size, 2 * g->n), MAGLEV_SIZE_MAX));
    uint32_t n = g->n;
    uint32_t *scratch = mem_new(MEM_PLAN, ((size_t)size + 1 + 4 * (size_t)n) * sizeof *scratch);
    struct maglev_turns t = {.round_first = scratch, .next = scratch + size + 1};
    t.taken = t.next + n;
    t.at = t.taken + n;
    t.skip = t.at + n;
    g->maglev = arena_alloc(a, size * sizeof *g->maglev);
    g->maglev_n = size;
    maglev_fill(g->maglev, size, members + g->first, n, &t);
    mem_free(scratch);
}
