/* adaptive.c - how many requests a service handles at once before they queue there: a limit that finds itself.
 *
 * A gradient controller, of the family of Netflix's Gradient2 and Envoy's. Time is cut into windows. At the end of one, with
 * base = latency without queueing, sample = mean latency in the window:
 *
 *     gradient = base * (1 + buffer) / sample, within 0.5 and 1
 *     limit    = gradient * limit + sqrt(limit), within min and max
 *
 * The root is the queue that is allowed: it lets the limit grow while latency stays flat, and at balance leaves a queue that is small
 * beside the limit. A limit that was not in use proves nothing, so it doesn't move then.
 *
 * base is the hard part: a service that has become slower looks like a queue. So it falls with any better window, follows slowly
 * while the limit is not in use, and every PROBE_WINDOWS busy windows it is measured: half the limit for one window, in which the
 * queue drains, and one more, which is the measure.
 *
 *     GRADIENT_STEADY --PROBE_WINDOWS busy windows--> GRADIENT_DRAIN --> GRADIENT_MEASURE --base := sample--> GRADIENT_STEADY
 *
 * Samples come from all workers into cluster_shared.adaptive; whoever first sees that a window has ended moves its end on by
 * compare-and-swap and does the step alone. A sample that arrives between reading the sum and reading the count is off by one in a
 * mean of many.
 */
#include "cluster.h"

#include <math.h>

#define SAMPLES_MIN 10          /* fewer: the window goes on */
#define PROBE_WINDOWS 50
#define LIMIT_START 20          /* before anything is known */
#define GRADIENT_MIN 0.5
#define BASE_FALL 0.5           /* how far base follows a better window: one lucky mean is not yet the truth */
#define BASE_DRIFT 0.05         /* and a worse one while the limit is not in use */
#define INTERVAL_MS 100
#define BUFFER_PCT 25
#define LIMIT_MAX 1000000u

static uint32_t limit_min(const struct adaptive_policy *p) { return p->min ? MIN(p->min, LIMIT_MAX) : 1; }
static uint32_t limit_max(const struct adaptive_policy *p) { return MAX(limit_min(p), p->max ? MIN(p->max, LIMIT_MAX) : LIMIT_MAX); }

static float limit_within(const struct adaptive_policy *p, double limit)
{
    return (float)MIN(MAX(limit, (double)limit_min(p)), (double)limit_max(p));
}

/* ---- the controller ------------------------------------------------------------------------------------------------------ */

static uint32_t gradient_allows(const struct gradient *g, const struct adaptive_policy *p)
{
    return (uint32_t)limit_within(p, g->phase == GRADIENT_STEADY ? g->limit : g->limit / 2);
}

static void base_follow(struct gradient *g, uint64_t sample_ns, bool busy)
{
    double base = (double)g->base_ns, sample = (double)sample_ns;
    if (g->base_ns == 0)
        base = sample;
    else if (sample < base)
        base += (sample - base) * BASE_FALL;
    else if (!busy)
        base += (sample - base) * BASE_DRIFT;
    g->base_ns = MAX(1u, (uint64_t)base);
}

uint32_t gradient_step(struct gradient *g, const struct adaptive_policy *p, uint64_t sample_ns, bool busy)
{
    sample_ns = MAX(sample_ns, 1u);
    if (g->phase == GRADIENT_DRAIN) {
        g->phase = GRADIENT_MEASURE;
        return gradient_allows(g, p);
    }
    if (g->phase == GRADIENT_MEASURE) {
        g->base_ns = sample_ns;
        g->phase = GRADIENT_STEADY;
        g->windows = 0;
        return gradient_allows(g, p);
    }
    base_follow(g, sample_ns, busy);
    if (busy) {
        double allowed = (double)g->base_ns * (100 + (p->buffer_pct ? p->buffer_pct : BUFFER_PCT)) / 100;
        double gradient = MIN(1.0, MAX(GRADIENT_MIN, allowed / (double)sample_ns));
        g->limit = limit_within(p, gradient * (double)g->limit + sqrt((double)g->limit));
        if (++g->windows >= PROBE_WINDOWS)
            g->phase = GRADIENT_DRAIN;
    }
    return gradient_allows(g, p);
}

/* ---- shared by all workers --------------------------------------------------------------------------------------------------- */

static uint64_t at(const struct cluster *c, int place) { return __atomic_load_n(&c->shared->adaptive[place], __ATOMIC_RELAXED); }
static void put(struct cluster *c, int place, uint64_t v) { __atomic_store_n(&c->shared->adaptive[place], v, __ATOMIC_RELAXED); }

/* limit as a float in the upper half, windows and phase in the lower. */
static struct gradient gradient_load(const struct cluster *c)
{
    uint64_t state = at(c, ADAPTIVE_STATE);
    uint32_t bits = (uint32_t)(state >> 32);
    struct gradient g = {.windows = (uint16_t)(state >> 8), .phase = (uint8_t)state, .base_ns = at(c, ADAPTIVE_BASE_NS)};
    memcpy(&g.limit, &bits, sizeof bits);
    if (state == 0)
        g.limit = limit_within(&c->policy->adaptive, LIMIT_START);
    return g;
}

static void gradient_store(struct cluster *c, const struct gradient *g)
{
    uint32_t bits;
    memcpy(&bits, &g->limit, sizeof bits);
    put(c, ADAPTIVE_STATE, (uint64_t)bits << 32 | (uint64_t)g->windows << 8 | g->phase);
    put(c, ADAPTIVE_BASE_NS, g->base_ns);
}

uint32_t adaptive_limit(const struct cluster *c)
{
    const struct adaptive_policy *p = &c->policy->adaptive;
    uint32_t limit = __atomic_load_n(&c->shared->limit, __ATOMIC_RELAXED);
    return limit ? MIN(MAX(limit, limit_min(p)), limit_max(p)) : (uint32_t)limit_within(p, LIMIT_START);
}

static void window_close(struct cluster *c)
{
    uint32_t n = (uint32_t)at(c, ADAPTIVE_SAMPLES);
    if (n < SAMPLES_MIN)
        return;
    uint64_t samples = __atomic_exchange_n(&c->shared->adaptive[ADAPTIVE_SAMPLES], 0, __ATOMIC_RELAXED);
    uint64_t sum = __atomic_exchange_n(&c->shared->adaptive[ADAPTIVE_SUM_NS], 0, __ATOMIC_RELAXED);
    uint32_t busy = (uint32_t)(samples >> 32);
    n = (uint32_t)samples;
    struct gradient g = gradient_load(c);
    uint32_t limit = gradient_step(&g, &c->policy->adaptive, sum / MAX(n, 1u), busy > n / 2);
    gradient_store(c, &g);
    if (limit != __atomic_exchange_n(&c->shared->limit, limit, __ATOMIC_RELAXED))
        counter_inc(&c->count->limit_changes);
}

void adaptive_count(struct cluster *c, uint64_t rtt_ns, uint64_t now_ms)
{
    uint64_t busy = (uint64_t)__atomic_load_n(&c->shared->requests, __ATOMIC_RELAXED) * 2 >= adaptive_limit(c);
    __atomic_fetch_add(&c->shared->adaptive[ADAPTIVE_SUM_NS], rtt_ns, __ATOMIC_RELAXED);
    __atomic_fetch_add(&c->shared->adaptive[ADAPTIVE_SAMPLES], 1 | busy << 32, __ATOMIC_RELAXED);
    uint64_t end = at(c, ADAPTIVE_WINDOW_END);
    if (LIKELY(now_ms < end))
        return;
    uint64_t interval = c->policy->adaptive.interval_ms ? c->policy->adaptive.interval_ms : INTERVAL_MS;
    if (__atomic_compare_exchange_n(&c->shared->adaptive[ADAPTIVE_WINDOW_END], &end, now_ms + interval, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED) && end != 0)
        window_close(c);
}
