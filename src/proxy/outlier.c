/* outlier.c - endpoints that fail more than their peers are left out for a while (passive health).
 *
 * The rules are those that Envoy documents for outlier detection, and Istio's DestinationRule names:
 *
 *   consecutive 5xx, gateway errors, local-origin failures: counted with each result, across all workers; at the threshold the
 *   endpoint is ejected at once. A success sets them back; a 500 sets back the gateway errors.
 *   success rate, failure percentage: counted over an interval, judged by the sweep at its end.
 *
 * Local-origin failures (no connection, time-out, reset) count as gateway errors and 5xx too, unless split_local keeps them apart;
 * then they have their own counter and no part in rates.
 *
 * An ejection lasts base * (how often in a row), at most max, and a random part of jitter more. Never more than max_ejection_pct of
 * the endpoints are out at once, but always one may be. When it ends the endpoint is used again; at the end of each
 * interval that finds it in use, the multiplier falls by one.
 *
 * Two workers that eject different endpoints at the same moment may each find the cap exceeded by the other, and both take their
 * ejection back: the next failure tries again.
 */
#include "cluster.h"

#include <math.h>

/* Envoy's defaults, for what a policy leaves 0. */
#define INTERVAL_MS 10000u
#define BASE_EJECTION_MS 30000u
#define MAX_EJECTION_MS 300000u
#define SUCCESS_RATE_MIN_HOSTS 5u
#define SUCCESS_RATE_VOLUME 100u
#define FAILURE_PCT_MIN_HOSTS 5u
#define FAILURE_PCT_VOLUME 50u

static uint32_t or_default(uint32_t v, uint32_t fallback) { return v ? v : fallback; }

/* ---- ejecting ------------------------------------------------------------------------------------------------------------ */

static uint64_t ejected_until(const struct lb_host *h) { return __atomic_load_n(&h->health->ejected_until_ms, __ATOMIC_RELAXED); }

static uint32_t ejected_n(const struct cluster *c, uint64_t now_ms)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < c->members_n; k++)
        n += ejected_until(c->members[k].host) > now_ms;
    return n;
}

static uint64_t ejection_ms(const struct outlier_policy *p, uint32_t times, uint64_t random)
{
    uint64_t base = or_default(p->base_ejection_ms, BASE_EJECTION_MS);
    uint64_t max = MAX(base, (uint64_t)or_default(p->max_ejection_ms, MAX_EJECTION_MS));
    uint64_t jitter = p->jitter_ms ? (uint64_t)((unsigned __int128)random * (p->jitter_ms + 1ull) >> 64) : 0;
    return MIN(base * times, max) + jitter;
}

/* At the end of an ejection: late answers have counted on meanwhile. */
static void counters_reset(struct endpoint_health *eh)
{
    __atomic_store_n(&eh->consecutive_5xx, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&eh->consecutive_gateway, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&eh->consecutive_local, 0, __ATOMIC_RELAXED);
}

/* Claims the ejection, then looks whether that makes one too many. */
static void eject(struct cluster *c, struct lb_host *h, enum ejection why, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    struct endpoint_health *eh = h->health;
    outlier_expire(c, h, now_ms);
    uint32_t times = __atomic_load_n(&eh->ejections, __ATOMIC_RELAXED) + 1;
    uint64_t for_ms = ejection_ms(p, times, random), until = now_ms + for_ms, none = 0;
    if (!__atomic_compare_exchange_n(&eh->ejected_until_ms, &none, until, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return; /* it is ejected already, perhaps by another worker just now */
    uint64_t allowed = p->max_ejection_pct ? MAX(1u, (uint64_t)MIN(p->max_ejection_pct, 100u) * c->hosts_n / 100) : 0;
    uint32_t n = ejected_n(c, now_ms);
    if (n > allowed) {
        __atomic_compare_exchange_n(&eh->ejected_until_ms, &until, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
        counter_inc(&c->count->ejections_over);
        return;
    }
    if (ejection_ms(p, times, 0) < or_default(p->max_ejection_ms, MAX_EJECTION_MS)) /* else it grows no more, and would only have to be forgiven */
        __atomic_fetch_add(&eh->ejections, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&c->shared->ejected, n, __ATOMIC_RELAXED);
    c->refresh_at_ms = 0;
    counter_inc(&c->count->ejections[why]);
    if (c->ops->ejected)
        c->ops->ejected(c->ctx, c, h, why, for_ms);
}

void outlier_expire(struct cluster *c, struct lb_host *h, uint64_t now_ms)
{
    uint64_t until = ejected_until(h);
    if (until == 0 || until > now_ms || !__atomic_compare_exchange_n(&h->health->ejected_until_ms, &until, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    counters_reset(h->health);
    __atomic_store_n(&c->shared->ejected, ejected_n(c, now_ms), __ATOMIC_RELAXED);
    counter_inc(&c->count->unejections);
    if (c->ops->unejected)
        c->ops->unejected(c->ctx, c, h);
}

/* ---- results --------------------------------------------------------------------------------------------------------------- */

/* Stores only what changes: an endpoint that is well keeps its cache line shared. */
static void zero(uint32_t *count)
{
    if (__atomic_load_n(count, __ATOMIC_RELAXED))
        __atomic_store_n(count, 0, __ATOMIC_RELAXED);
}

/* One more in a row; true when that reaches the threshold. */
static bool reaches(uint32_t *count, uint32_t threshold)
{
    return threshold && __atomic_add_fetch(count, 1, __ATOMIC_RELAXED) >= threshold;
}

static bool rates_wanted(const struct outlier_policy *p) { return p->success_rate_stdev_permille || p->failure_pct; }

static void answer_count(struct cluster *c, struct lb_host *h, bool gateway, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    struct endpoint_health *eh = h->health;
    if (rates_wanted(p))
        __atomic_fetch_add(&eh->failed, 1, __ATOMIC_RELAXED);
    bool too_many_gateway = gateway && reaches(&eh->consecutive_gateway, p->consecutive_gateway);
    bool too_many = reaches(&eh->consecutive_5xx, p->consecutive_5xx);
    if (!gateway)
        zero(&eh->consecutive_gateway);
    if (too_many_gateway)
        eject(c, h, EJECTION_CONSECUTIVE_GATEWAY, now_ms, random);
    else if (too_many)
        eject(c, h, EJECTION_CONSECUTIVE_5XX, now_ms, random);
}

void outlier_count(struct cluster *c, struct lb_host *h, enum outcome o, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    struct endpoint_health *eh = h->health;
    if (eh->nobody) /* it left before the policy asked for this */
        return;
    if (o == OUTCOME_LOCAL && p->split_local) {
        if (reaches(&eh->consecutive_local, p->consecutive_local))
            eject(c, h, EJECTION_CONSECUTIVE_LOCAL, now_ms, random);
        return;
    }
    zero(&eh->consecutive_local); /* it answered, or nobody looks at this count */
    if (o != OUTCOME_OK) {
        answer_count(c, h, o != OUTCOME_5XX, now_ms, random);
        return;
    }
    zero(&eh->consecutive_5xx);
    zero(&eh->consecutive_gateway);
    if (rates_wanted(p))
        __atomic_fetch_add(&eh->ok, 1, __ATOMIC_RELAXED);
}

/* ---- the sweep --------------------------------------------------------------------------------------------------------------- */

struct rate { struct lb_host *host; uint32_t ok, total; };

/* Takes what was counted since the last sweep; only of endpoints in use. */
static uint32_t rates_take(struct cluster *c, struct rate *rates, uint64_t now_ms)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < c->members_n; k++) {
        struct lb_host *h = c->members[k].host;
        uint32_t ok = __atomic_exchange_n(&h->health->ok, 0, __ATOMIC_RELAXED);
        uint32_t failed = __atomic_exchange_n(&h->health->failed, 0, __ATOMIC_RELAXED);
        if (ejected_until(h) <= now_ms && ok + failed > 0)
            rates[n++] = (struct rate){.host = h, .ok = ok, .total = ok + failed};
    }
    return n;
}

static double rate_pct(const struct rate *r) { return 100.0 * r->ok / r->total; }

/* Ejects those whose success rate is below mean - factor * standard deviation, over endpoints with enough requests. */
static void judge_success(struct cluster *c, const struct rate *rates, uint32_t n, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    uint32_t volume = or_default(p->success_rate_volume, SUCCESS_RATE_VOLUME), hosts = 0;
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].total >= volume) {
            sum += rate_pct(&rates[i]);
            hosts++;
        }
    if (hosts == 0 || hosts < or_default(p->success_rate_min_hosts, SUCCESS_RATE_MIN_HOSTS))
        return;
    double mean = sum / hosts;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].total >= volume)
            squares += (rate_pct(&rates[i]) - mean) * (rate_pct(&rates[i]) - mean);
    double threshold = mean - sqrt(squares / hosts) * p->success_rate_stdev_permille / 1000.0;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].total >= volume && rate_pct(&rates[i]) < threshold)
            eject(c, rates[i].host, EJECTION_SUCCESS_RATE, now_ms, random + i);
}

static void judge_failures(struct cluster *c, const struct rate *rates, uint32_t n, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    uint32_t volume = or_default(p->failure_pct_volume, FAILURE_PCT_VOLUME), hosts = 0;
    for (uint32_t i = 0; i < n; i++)
        hosts += rates[i].total >= volume;
    if (hosts < or_default(p->failure_pct_min_hosts, FAILURE_PCT_MIN_HOSTS))
        return;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].total >= volume && 100.0 - rate_pct(&rates[i]) >= p->failure_pct)
            eject(c, rates[i].host, EJECTION_FAILURE_PERCENTAGE, now_ms, random + i);
}

/* An endpoint that is in use at the end of an interval has one ejection less behind it. */
static void ejections_forgive(struct cluster *c, uint64_t now_ms)
{
    for (uint32_t k = 0; k < c->members_n; k++) {
        struct lb_host *h = c->members[k].host;
        uint32_t times = __atomic_load_n(&h->health->ejections, __ATOMIC_RELAXED);
        if (ejected_until(h) != 0)
            outlier_expire(c, h, now_ms);
        else if (times > 0)
            __atomic_compare_exchange_n(&h->health->ejections, &times, times - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
}

static void outlier_sweep(struct cluster *c, uint64_t now_ms, uint64_t random)
{
    const struct outlier_policy *p = &c->policy->outlier;
    ejections_forgive(c, now_ms);
    if (!rates_wanted(p) || c->members_n == 0)
        return;
    struct rate *rates = mem_new(MEM_PLAN, c->members_n * sizeof *rates);
    uint32_t n = rates_take(c, rates, now_ms);
    if (p->success_rate_stdev_permille)
        judge_success(c, rates, n, now_ms, random);
    if (p->failure_pct)
        judge_failures(c, rates, n, now_ms, random);
    mem_free(rates);
}

void cluster_sweep(struct cluster *c, uint64_t now_ms, uint64_t random)
{
    if (now_ms >= c->refresh_at_ms)
        cluster_refresh(c, now_ms);
    if (!c->outlier)
        return;
    uint64_t *slot = &c->shared->adaptive[SHARED_SWEEP_AT], due = __atomic_load_n(slot, __ATOMIC_RELAXED);
    uint64_t interval = or_default(c->policy->outlier.interval_ms, INTERVAL_MS);
    if (now_ms < due || !__atomic_compare_exchange_n(slot, &due, now_ms + interval, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    if (due != 0) /* the first one only begins the first interval */
        outlier_sweep(c, now_ms, random);
}

const char *ejection_label(enum ejection e)
{
    static const char *const labels[EJECTION_COUNT] = {
#define X(name, label) [EJECTION_##name] = label,
        EJECTION_LIST(X)
#undef X
    };
    return labels[e];
}
