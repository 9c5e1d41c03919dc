/* breaker.c - circuit breakers: how much of a cluster may be in use at once, over all workers.
 *
 * Counts are atomics in cluster_shared. Entering adds one, compares, and takes it back when that was one too many; so the number of
 * those let in never exceeds the limit, whatever the interleaving. A count that is being taken back may refuse another worker
 * at the very edge: a refusal too early by one, never one too late.
 *
 * Requests carry three limits in one addition: requests_max, the adaptive limit, and below these the mark for the request's
 * priority. Retries have retries_max or, where a budget is given, that instead: a share of the requests in flight, those that wait for a connection among them.
 *
 * What this worker has counted is kept in cluster.held as well, so that a cluster that leaves the plan gives all of it back.
 */
#include "cluster.h"

#define BACKOFF_BASE_MS 25u     /* Envoy's defaults */
#define BACKOFF_MAX_TIMES 10u
#define SHED_AT_PCT 80u         /* where a shed policy names no mark */

static uint32_t *shared_count(struct cluster_shared *s, enum breaker b)
{
    switch (b) {
    case BREAKER_CONNECTIONS: return &s->connections;
    case BREAKER_PENDING: return &s->pending;
    case BREAKER_RETRIES: return &s->retries;
    case BREAKER_STARVED: return &s->starved;
    default: return &s->requests;
    }
}

static uint32_t retry_budget(const struct cluster *c)
{
    const struct pool_policy *p = &c->policy->pool;
    uint64_t active = __atomic_load_n(&c->shared->requests, __ATOMIC_RELAXED);
    return (uint32_t)MIN((uint64_t)UINT32_MAX, MAX(active * p->retry_budget_pct / 100, (uint64_t)p->retry_budget_min));
}

/* The mark for a rank: 100 % of the limit for the most important, at_pct for the least, even steps between. */
static uint32_t shed_mark(const struct shed_policy *s, uint32_t rank, uint32_t limit)
{
    uint32_t last = s->levels_n > 1 ? (uint32_t)s->levels_n - 1 : 1;
    uint32_t at_pct = s->at_pct ? MIN(s->at_pct, 100u) : SHED_AT_PCT;
    uint64_t steps = (uint64_t)(100 - at_pct) * MIN(rank, last);
    return (uint32_t)MAX(1u, limit - (limit * steps + 100u * last - 1) / (100u * last));
}

/* Whether the now-th request may go. */
static enum overflow requests_judge(const struct cluster *c, uint32_t now, uint32_t rank)
{
    const struct cluster_policy *p = c->policy;
    uint32_t limit = p->pool.requests_max ? p->pool.requests_max : UINT32_MAX;
    if (now > limit)
        return OVERFLOW_REQUESTS;
    if (c->adaptive) {
        uint32_t adaptive = adaptive_limit(c);
        if (now > adaptive)
            return OVERFLOW_ADAPTIVE;
        limit = MIN(limit, adaptive);
    }
    return rank && limit != UINT32_MAX && now > shed_mark(&p->shed, rank, limit) ? OVERFLOW_SHED : OVERFLOW_NONE;
}

static enum overflow judge(const struct cluster *c, enum breaker b, uint32_t now, uint32_t rank)
{
    const struct pool_policy *p = &c->policy->pool;
    switch (b) {
    case BREAKER_CONNECTIONS: return p->connections_max && now > p->connections_max ? OVERFLOW_CONNECTIONS : OVERFLOW_NONE;
    case BREAKER_PENDING: return p->pending_max && now > p->pending_max ? OVERFLOW_PENDING : OVERFLOW_NONE;
    case BREAKER_RETRIES:
        if (p->retry_budget)
            return now > retry_budget(c) ? OVERFLOW_RETRY_BUDGET : OVERFLOW_NONE;
        return p->retries_max && now > p->retries_max ? OVERFLOW_RETRIES : OVERFLOW_NONE;
    case BREAKER_STARVED: return OVERFLOW_NONE;
    default: return requests_judge(c, now, rank);
    }
}

enum overflow breaker_count(struct cluster *c, enum breaker b, uint32_t rank, uint8_t *held)
{
    MUST(b < BREAKER_COUNT && !(*held & 1u << b));
    uint32_t *count = shared_count(c->shared, b);
    uint32_t now = __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
    enum overflow o = judge(c, b, now, rank);
    if (UNLIKELY(o != OVERFLOW_NONE)) {
        __atomic_fetch_sub(count, 1, __ATOMIC_RELAXED);
        counter_inc(&c->count->overflow[o]);
        return o;
    }
    c->held[b]++;
    *held = (uint8_t)(*held | 1u << b);
    return OVERFLOW_NONE;
}

void breaker_uncount(struct cluster *c, enum breaker b, uint8_t *held)
{
    *held = (uint8_t)(*held & ~(1u << b));
    if (!c->shared)
        return; /* dropped: all was given back then */
    MUST(c->held[b] > 0);
    c->held[b]--;
    __atomic_fetch_sub(shared_count(c->shared, b), 1, __ATOMIC_RELAXED);
}

uint32_t breaker_rank(const struct shed_policy *s, struct slice value)
{
    if (!s->header)
        return 0;
    for (size_t i = 0; i < s->levels_n; i++)
        if (slice_is(value, s->levels[i]))
            return (uint32_t)i;
    return s->levels_n > 1 ? (uint32_t)s->levels_n - 1 : 1;
}

uint32_t retry_backoff_ms(uint32_t retry, uint32_t base_ms, uint32_t max_ms, uint64_t random)
{
    uint64_t base = base_ms ? base_ms : BACKOFF_BASE_MS;
    uint64_t max = max_ms ? max_ms : base * BACKOFF_MAX_TIMES;
    max = MIN(max, (uint64_t)UINT32_MAX);
    base = MIN(base, max);
    uint64_t top = MIN(max, base << MIN(retry, 32u));
    return (uint32_t)(base + (uint64_t)((unsigned __int128)random * (top - base + 1) >> 64));
}

const char *overflow_label(enum overflow o)
{
    static const char *const labels[OVERFLOW_COUNT] = {
        [OVERFLOW_NONE] = "",
#define X(name, label, text) [OVERFLOW_##name] = label,
        OVERFLOW_LIST(X)
#undef X
    };
    return labels[o];
}

const char *overflow_text(enum overflow o)
{
    static const char *const texts[OVERFLOW_COUNT] = {
        [OVERFLOW_NONE] = "",
#define X(name, label, text) [OVERFLOW_##name] = text,
        OVERFLOW_LIST(X)
#undef X
    };
    return texts[o];
}
