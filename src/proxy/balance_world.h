/* balance_world.h - what balance_test.c and limits_test.c stand on: one worker's cluster with its plan, made by hand.
 *
 * Chance comes from a seeded generator, so a run repeats exactly.
 */
#ifndef BALANCE_WORLD_H
#define BALANCE_WORLD_H

#include "cluster.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define HOSTS 1200
#define DAY_MS 86400000u

/* ---- a world ----------------------------------------------------------------------------------------------------------- */

struct world {
    struct cluster_policy policy;
    struct plan_cluster pc;
    struct plan_endpoint eps[HOSTS];
    char names[HOSTS][24];
    struct endpoint_health health[HOSTS];
    struct lb_host hosts[HOSTS];
    struct cluster_shared own;
    struct cluster *c;
    const char *locality;
    uint64_t random, now_ms;
    uint32_t asked;                 /* calls of host_of() */
    uint32_t ejected[HOSTS], unejected[HOSTS];
    enum ejection why;
    uint64_t for_ms;
};

static inline uint64_t chance(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline struct lb_host *host_of(void *ctx, const struct plan_endpoint *pe)
{
    struct world *w = ctx;
    w->asked++;
    return &w->hosts[pe->slot];
}

static inline void on_ejected(void *ctx, struct cluster *c, struct lb_host *h, enum ejection why, uint64_t for_ms)
{
    struct world *w = ctx;
    assert_ptr_equal(w->c, c);
    w->ejected[h - w->hosts]++;
    w->why = why;
    w->for_ms = for_ms;
}

static inline void on_unejected(void *ctx, struct cluster *c, struct lb_host *h)
{
    struct world *w = ctx;
    w->unejected[h - w->hosts]++;
}

static const struct cluster_ops ops __attribute__((unused)) = {.ejected = on_ejected, .unejected = on_unejected};

static inline struct world *world_new(uint32_t n, enum lb_kind kind)
{
    struct world *w = mem_new(MEM_MISC, sizeof *w);
    w->policy.lb = (struct lb_policy){.kind = kind, .ring_size_min = 1024, .maglev_size = 65537, .slow_start_min_pct = 10, .slow_start_aggression = 1.0, .panic_pct = 50};
    w->pc = (struct plan_cluster){.eps = w->eps, .eps_n = n, .policy = &w->policy, .shared = &w->own};
    w->random = 42;
    w->now_ms = DAY_MS;
    for (uint32_t i = 0; i < HOSTS; i++) {
        snprintf(w->names[i], sizeof w->names[i], "10.0.%u.%u:8080", i / 256, i % 256);
        w->eps[i] = (struct plan_endpoint){.id = 1000 + i, .slot = i, .weight = 1, .health = &w->health[i], .locality = "", .name = w->names[i]};
    }
    w->c = cluster_new(&ops, w, 0);
    return w;
}

/* A new plan. */
static inline void sync(struct world *w)
{
    w->pc.policy_hash++;
    cluster_sync(w->c, &w->pc, w->locality, host_of, w, w->now_ms);
}

static inline void world_free(struct world *w)
{
    cluster_drop(w->c);
    assert_int_equal(w->own.connections | w->own.pending | w->own.requests | w->own.retries, 0);
    mem_free(w);
}

static inline struct lb_request request(struct world *w)
{
    return (struct lb_request){.random = chance(&w->random), .now_ms = w->now_ms, .now_ns = w->now_ms * 1000000};
}

/* The index chosen for a request without hash; -1: none. */
static inline int pick(struct world *w)
{
    struct lb_request rq = request(w);
    struct lb_host *h = cluster_pick(w->c, &rq);
    return h ? (int)(h - w->hosts) : -1;
}

static inline int pick_hash(struct world *w, uint64_t hash)
{
    struct lb_request rq = request(w);
    rq.hash = hash;
    rq.hashed = true;
    struct lb_host *h = cluster_pick(w->c, &rq);
    return h ? (int)(h - w->hosts) : -1;
}

static inline uint64_t key(uint32_t k) { return hash_key(slice_of((const char *)&k, sizeof k)); }

static inline void tally(struct world *w, uint32_t picks, uint32_t *counts)
{
    memset(counts, 0, HOSTS * sizeof *counts);
    for (uint32_t k = 0; k < picks; k++) {
        int i = pick(w);
        assert_true(i >= 0);
        counts[i]++;
    }
}

/* count of picks is share of them, within a part tolerance of it. */
static inline void assert_share(uint32_t count, uint32_t picks, double share, double tolerance)
{
    double expected = picks * share;
    if (fabs(count - expected) > expected * tolerance)
        fail_msg("%u of %u picks, %.0f expected", count, picks, expected);
}

static inline void assert_near(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("%g, expected %g", got, expected);
}

static inline void eject_until(struct world *w, uint32_t i, uint64_t ms)
{
    w->health[i].ejected_until_ms = ms;
    w->now_ms += 100; /* beyond the refresh period */
}

static inline uint32_t distinct(struct world *w, uint32_t picks)
{
    static uint32_t counts[HOSTS];
    uint32_t n = 0;
    tally(w, picks, counts);
    for (uint32_t i = 0; i < w->pc.eps_n; i++)
        n += counts[i] > 0;
    return n;
}

static inline void results(struct world *w, uint32_t i, enum outcome o, uint32_t n)
{
    for (; n > 0; n--)
        outlier_result(w->c, &w->hosts[i], o, w->now_ms, chance(&w->random));
}

#endif
