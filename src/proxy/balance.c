/* balance.c - choosing an endpoint.
 *
 * cluster_pick() chooses a group, then one endpoint of its live list by the policy's algorithm. What comes out must be usable: not
 * shunned, not tried by this request, and, where endpoints can be ejected, not down since the list was built. If it is not,
 * the algorithm goes on a few steps; if nothing turns up, all live endpoints are looked at and the least bad one is taken.
 *
 * Least request with weights draws two candidates in proportion to weight and compares requests in flight per weight. Comparing
 * without adding one for the new request matters: in an idle cluster both are 0, the first draw stands, and shares are exactly
 * the weights; under load the comparison equalises requests in flight per weight.
 *
 * Round robin walks the live list in rounds. Each visit adds the endpoint's weight to what it is owed, and it serves when that
 * reaches the largest weight. So each is served at even distances, equal weights cost one step per choice, and no choice costs
 * more than one round.
 *
 * Peak EWMA (as in Finagle): the mean latency jumps to each new peak and decays with time, also while nothing is sent there;
 * cost is latency times requests in flight and this one. A new endpoint gets one request, and no second before the first is answered.
 */
#include "cluster.h"

#include <math.h>

#define DRAWS_MAX 4                 /* random draws before all are looked at */
#define EWMA_PENALTY_NS 1e15        /* cost of an endpoint that has its first request and no answer yet */

/* ---- random numbers -------------------------------------------------------------------------------------------------- */

/* 0 to n - 1 from 32 random bits. */
static inline uint32_t below(uint32_t random, uint32_t n) { return (uint32_t)((uint64_t)random * n >> 32); }

/* Another number from the last one (splitmix64's mixing). */
static inline uint64_t random_next(uint64_t r)
{
    r += 0x9e3779b97f4a7c15u;
    r = (r ^ (r >> 30)) * 0xbf58476d1ce4e5b9u;
    r = (r ^ (r >> 27)) * 0x94d049bb133111ebu;
    return r ^ (r >> 31);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* Column i of the table is chosen with 1/n and split at cut[i]: i itself below, other[i] above. odds are weights scaled so that
 * their mean is the sum: a column is full at weight_sum. */
void alias_build(struct lb_group *g)
{
    uint32_t n = g->live_n, small = 0, large = n; /* stack: small ones from the front, large ones from the back */
    for (uint32_t i = 0; i < n; i++) {
        g->odds[i] = (uint64_t)g->weights[i] * n;
        g->other[i] = i;
        if (g->odds[i] < g->weight_sum)
            g->stack[small++] = i;
        else
            g->stack[--large] = i;
    }
    while (small > 0 && large < n) {
        uint32_t s = g->stack[--small], l = g->stack[large];
        g->cut[s] = (uint32_t)(((unsigned __int128)g->odds[s] << 32) / g->weight_sum);
        g->other[s] = l;
        g->odds[l] -= g->weight_sum - g->odds[s];
        if (g->odds[l] < g->weight_sum) {
            large++;
            g->stack[small++] = l;
        }
    }
    while (small > 0)
        g->cut[g->stack[--small]] = UINT32_MAX;
    for (; large < n; large++)
        g->cut[g->stack[large]] = UINT32_MAX;
}

/* An index into live in proportion to weight. */
static inline uint32_t draw(const struct lb_group *g, uint64_t random)
{
    uint32_t i = below((uint32_t)random, g->live_n);
    return g->equal || (uint32_t)(random >> 32) <= g->cut[i] ? i : g->other[i];
}

/* ---- what is usable ------------------------------------------------------------------------------------------------------- */

static bool tried(const struct lb_request *rq, uint64_t id)
{
    for (uint32_t i = 0; i < rq->tried_n; i++)
        if (rq->tried[i] == id)
            return true;
    return false;
}

static inline bool usable(const struct cluster *c, const struct lb_group *g, const struct lb_request *rq, const struct lb_host *h)
{
    return h->shun_until_ms <= rq->now_ms && !(rq->tried_n && tried(rq, h->id)) && !(c->checked && !g->panic && host_down(h, rq->now_ms));
}

/* Lower is better: what is wrong with it, then how far it is, then requests in flight. */
static uint64_t badness(const struct cluster *c, uint32_t group, const struct lb_request *rq, const struct lb_host *h)
{
    bool down = c->checked && !c->groups[group].panic && host_down(h, rq->now_ms);
    uint64_t bad = (down ? 4u : 0u) + (tried(rq, h->id) ? 2u : 0u) + (h->shun_until_ms > rq->now_ms ? 1u : 0u);
    return bad << 60 | (uint64_t)MIN(group, 0xfffffu) << 32 | h->in_flight;
}

/* Looks at all, from a random place. */
static struct lb_host *pick_last(struct cluster *c, const struct lb_request *rq)
{
    struct lb_host *best = NULL;
    uint64_t best_badness = UINT64_MAX;
    for (uint32_t i = 0; i < c->groups_n; i++) {
        const struct lb_group *g = &c->groups[i];
        uint32_t from = g->live_n ? below((uint32_t)rq->random, g->live_n) : 0;
        for (uint32_t k = 0; k < g->live_n; k++) {
            uint32_t at = from + k < g->live_n ? from + k : from + k - g->live_n;
            uint64_t b = badness(c, i, rq, g->live[at]);
            if (b < best_badness) {
                best = g->live[at];
                best_badness = b;
            }
        }
    }
    if (best && best_badness >> 60)
        counter_inc(&c->count->picks_last);
    return best;
}

/* ---- two choices ------------------------------------------------------------------------------------------------------------- */

/* Two different places of n > 1. */
static inline void two_places(uint64_t random, uint32_t n, uint32_t *i, uint32_t *j)
{
    *i = below((uint32_t)random, n);
    *j = below((uint32_t)(random >> 32), n - 1);
    *j += *j >= *i;
}

/* The same by weight; they are equal when one weight outweighs all others. */
static void two_draws(const struct lb_group *g, uint64_t random, uint32_t *i, uint32_t *j)
{
    *i = draw(g, random);
    for (int k = 0; k < DRAWS_MAX; k++) {
        random = random_next(random);
        *j = draw(g, random);
        if (*j != *i)
            return;
    }
}

static inline void two_candidates(const struct lb_group *g, uint64_t random, uint32_t *i, uint32_t *j)
{
    if (g->equal)
        two_places(random, g->live_n, i, j);
    else
        two_draws(g, random, i, j);
}

/* Fewer requests in flight for its weight. */
static inline bool lighter(const struct lb_group *g, uint32_t i, uint32_t j)
{
    uint64_t a = g->live[i]->in_flight, b = g->live[j]->in_flight;
    return g->equal ? a < b : a * g->weights[j] < b * g->weights[i];
}

static struct lb_host *better_usable(struct cluster *c, const struct lb_group *g, const struct lb_request *rq, struct lb_host *best, struct lb_host *second)
{
    return LIKELY(usable(c, g, rq, best)) ? best : usable(c, g, rq, second) ? second : NULL;
}

static struct lb_host *pick_least(struct cluster *c, const struct lb_group *g, const struct lb_request *rq)
{
    uint32_t i, j;
    if (g->live_n == 1)
        return usable(c, g, rq, g->live[0]) ? g->live[0] : NULL;
    two_candidates(g, rq->random, &i, &j);
    return lighter(g, j, i) ? better_usable(c, g, rq, g->live[j], g->live[i]) : better_usable(c, g, rq, g->live[i], g->live[j]);
}

/* ---- peak EWMA ------------------------------------------------------------------------------------------------------------------ */

/* e^-x for x >= 0; the series is good to 1e-6 where it is used, and that is nearly always. */
static inline double decay(uint64_t from_ns, uint64_t now_ns)
{
    double x = now_ns > from_ns ? (double)(now_ns - from_ns) / EWMA_TAU_NS : 0;
    return x < 0.05 ? 1 - x * (1 - x * (0.5 - x / 6)) : exp(-x);
}

void host_latency(struct lb_host *h, uint64_t rtt_ns, uint64_t now_ns)
{
    double rtt = (double)rtt_ns;
    double kept = h->ewma_at_ns ? decay(h->ewma_at_ns, now_ns) : 0;
    h->ewma_ns = rtt > h->ewma_ns ? rtt : h->ewma_ns * kept + rtt * (1 - kept);
    h->ewma_at_ns = MAX(now_ns, 1u);
}

double host_cost(const struct lb_host *h, double scale, uint64_t now_ns)
{
    double load = h->in_flight * scale;
    if (UNLIKELY(h->ewma_at_ns == 0))
        return h->in_flight ? EWMA_PENALTY_NS + load : 0;
    return h->ewma_ns * decay(h->ewma_at_ns, now_ns) * (load + 1);
}

static double cost_at(const struct lb_group *g, uint32_t i, uint64_t now_ns)
{
    double scale = g->equal ? 1 : (double)g->weight_sum / ((double)g->live_n * g->weights[i]);
    return host_cost(g->live[i], scale, now_ns);
}

static struct lb_host *pick_ewma(struct cluster *c, const struct lb_group *g, const struct lb_request *rq)
{
    uint32_t i, j;
    if (g->live_n == 1)
        return usable(c, g, rq, g->live[0]) ? g->live[0] : NULL;
    two_candidates(g, rq->random, &i, &j);
    if (cost_at(g, j, rq->now_ns) < cost_at(g, i, rq->now_ns))
        return better_usable(c, g, rq, g->live[j], g->live[i]);
    return better_usable(c, g, rq, g->live[i], g->live[j]);
}

/* ---- random, full scan, round robin ---------------------------------------------------------------------------------------------- */

static struct lb_host *pick_random(struct cluster *c, const struct lb_group *g, const struct lb_request *rq)
{
    uint64_t random = rq->random;
    for (int k = 0; k < DRAWS_MAX; k++, random = random_next(random)) {
        struct lb_host *h = g->live[draw(g, random)];
        if (LIKELY(usable(c, g, rq, h)))
            return h;
    }
    return NULL;
}

/* The first of the least loaded, from a random place: ties follow the weights in an idle cluster. */
static struct lb_host *pick_full(struct cluster *c, const struct lb_group *g, const struct lb_request *rq)
{
    uint32_t best = UINT32_MAX, at = draw(g, rq->random);
    for (uint32_t k = 0; k < g->live_n; k++) {
        if ((best == UINT32_MAX || lighter(g, at, best)) && usable(c, g, rq, g->live[at]))
            best = at;
        at = at + 1 < g->live_n ? at + 1 : 0;
    }
    return best == UINT32_MAX ? NULL : g->live[best];
}

static struct lb_host *turn_next(struct cluster *c, struct lb_group *g)
{
    for (;;) {
        uint32_t at = g->turn;
        g->turn = at + 1 < g->live_n ? at + 1 : 0;
        if (g->equal)
            return g->live[at];
        uint32_t *deficit = &c->members[g->member[at]].deficit;
        *deficit += g->weights[at];
        if (*deficit >= g->weight_max) {
            *deficit -= g->weight_max;
            return g->live[at];
        }
    }
}

static struct lb_host *pick_turn(struct cluster *c, struct lb_group *g, const struct lb_request *rq)
{
    for (uint32_t k = 0; k < g->live_n; k++) {
        struct lb_host *h = turn_next(c, g);
        if (LIKELY(usable(c, g, rq, h)))
            return h;
    }
    return NULL;
}

/* ---- by hash ------------------------------------------------------------------------------------------------------------------------ */

/* Bounded load (Mirrokni, Thorup, Zadimoghaddam): nobody may hold more than pct of its fair share of what is in flight, this request
 * included, rounded up. The shares add up to more than there is, so somebody always has room. */
static bool has_room(const struct cluster *c, const struct lb_group *g, const struct lb_member *m)
{
    uint32_t pct = c->policy->lb.bounded_load_pct;
    if (pct == 0)
        return true;
    uint64_t in_flight = (uint64_t)c->in_flight + 1;
    if (c->groups_n > 1)
        in_flight = (in_flight * g->load + c->load_sum - 1) / c->load_sum;
    unsigned __int128 fair = (unsigned __int128)in_flight * MAX(pct, 100u) * m->weight * LB_WEIGHT_UNIT;
    unsigned __int128 whole = (unsigned __int128)g->weight_sum * 100;
    return m->host->in_flight < (uint64_t)((fair + whole - 1) / whole);
}

/* Walks the table from the request's place to the first member that is up, usable and has room. */
static struct lb_host *pick_hashed(struct cluster *c, struct lb_group *g, const struct lb_request *rq)
{
    uint64_t hash = rq->hashed ? rq->hash : rq->random;
    uint32_t n = g->maglev ? g->maglev_n : g->ring_n, seen = UINT32_MAX;
    uint32_t at = g->maglev ? (uint32_t)((unsigned __int128)hash * n >> 64) : ring_at(g, hash);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = g->maglev ? g->maglev[at] : g->ring[at].member;
        const struct lb_member *m = &c->members[g->first + i];
        if (i != seen && (g->panic || m->state == LB_UP) && usable(c, g, rq, m->host) && has_room(c, g, m)) {
            if (k)
                counter_inc(&c->count->picks_moved);
            return m->host;
        }
        seen = i;
        at = at + 1 < n ? at + 1 : 0;
    }
    return NULL;
}

/* ---- the choice --------------------------------------------------------------------------------------------------------------------- */

/* A group in proportion to load. Hashed requests always find the same one, as long as loads stay. */
static struct lb_group *group_choose(struct cluster *c, const struct lb_request *rq)
{
    bool by_hash = rq->hashed && (c->kind == LB_RING_HASH || c->kind == LB_MAGLEV);
    uint64_t x = random_next((by_hash ? rq->hash : rq->random) ^ 0x5851f42d4c957f2du);
    uint32_t at = below((uint32_t)(x >> 32), c->load_sum);
    for (uint32_t i = 0; i < c->groups_n; i++) {
        if (at < c->groups[i].load)
            return &c->groups[i];
        at -= c->groups[i].load;
    }
    return NULL;
}

static struct lb_host *pick_in(struct cluster *c, struct lb_group *g, const struct lb_request *rq)
{
    switch (c->kind) {
    case LB_ROUND_ROBIN: return pick_turn(c, g, rq);
    case LB_RANDOM: return pick_random(c, g, rq);
    case LB_PEAK_EWMA: return pick_ewma(c, g, rq);
    case LB_RING_HASH:
    case LB_MAGLEV: return pick_hashed(c, g, rq);
    case LB_LEAST_REQUEST_FULL: return pick_full(c, g, rq);
    default: return pick_least(c, g, rq);
    }
}

static struct lb_host *pick_slow(struct cluster *c, const struct lb_request *rq)
{
    struct lb_group *g = c->groups_n == 1 ? c->groups : c->load_sum ? group_choose(c, rq) : NULL;
    if (!g || g->live_n == 0) {
        counter_inc(&c->count->picks_none);
        return NULL;
    }
    if (UNLIKELY(g->panic))
        counter_inc(&c->count->picks_panic);
    struct lb_host *h = pick_in(c, g, rq);
    return LIKELY(h != NULL) ? h : pick_last(c, rq);
}

struct lb_host *cluster_pick(struct cluster *c, const struct lb_request *rq)
{
    if (UNLIKELY(rq->now_ms >= c->refresh_at_ms))
        cluster_refresh(c, rq->now_ms);
    const struct lb_group *g = c->groups;
    if (LIKELY(c->plain && g->live_n > 0)) {
        uint32_t i, j;
        if (g->live_n == 1)
            return g->live[0];
        two_places(rq->random, g->live_n, &i, &j);
        struct lb_host *a = g->live[i], *b = g->live[j];
        struct lb_host *best = b->in_flight < a->in_flight ? b : a;
        if (LIKELY(best->shun_until_ms <= rq->now_ms && !rq->tried_n))
            return best;
    }
    return pick_slow(c, rq);
}
