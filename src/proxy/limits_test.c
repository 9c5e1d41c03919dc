/* limits_test.c - unit tests of what is kept away from endpoints: outliers, breakers, shedding, back-off, the adaptive limit; alone, and
 * by several threads on the same shared counts.
 */
#include "balance_world.h"

/* ---- outliers -------------------------------------------------------------------------------------------------------------------------- */

static struct world *outlier_world(uint32_t n)
{
    struct world *w = world_new(n, LB_LEAST_REQUEST);
    w->policy.outlier = (struct outlier_policy){.on = true, .consecutive_5xx = 5, .interval_ms = 10000, .base_ejection_ms = 30000, .max_ejection_ms = 100000, .max_ejection_pct = 50};
    sync(w);
    return w;
}

static void test_consecutive(void **state)
{
    struct world *w = outlier_world(10);
    results(w, 0, OUTCOME_5XX, 4);
    results(w, 0, OUTCOME_OK, 1);
    results(w, 0, OUTCOME_5XX, 4);
    assert_int_equal(w->ejected[0], 0);
    results(w, 0, OUTCOME_GATEWAY_ERROR, 1); /* is a 5xx too */
    assert_int_equal(w->ejected[0], 1);
    assert_int_equal(w->why, EJECTION_CONSECUTIVE_5XX);
    assert_int_equal(w->for_ms, 30000);
    assert_int_equal(w->own.ejected, 1);
    assert_int_equal(w->c->count->ejections[EJECTION_CONSECUTIVE_5XX], 1);
    results(w, 0, OUTCOME_5XX, 20); /* late answers don't prolong it */
    assert_int_equal(w->ejected[0], 1);
    results(w, 1, OUTCOME_LOCAL, 5); /* no answer is a 5xx as well */
    assert_int_equal(w->ejected[1], 1);
    assert_int_equal(distinct(w, 2000), 8);
    w->now_ms += 29999;
    assert_int_equal(distinct(w, 2000), 8);
    w->now_ms += 1;
    assert_int_equal(distinct(w, 2000), 10);
    assert_int_equal(w->unejected[0], 1);
    assert_int_equal(w->own.ejected, 0);
    assert_int_equal(w->c->count->unejections, 2);
    world_free(w);
}

/* Back from an ejection it begins anew; and nobody need have looked meanwhile. */
static void test_after_ejection(void **state)
{
    struct world *w = outlier_world(10);
    results(w, 0, OUTCOME_5XX, 9); /* four of them late */
    w->now_ms += 30000;
    pick(w);
    results(w, 0, OUTCOME_5XX, 4);
    assert_int_equal(w->ejected[0], 1);
    results(w, 0, OUTCOME_5XX, 1);
    assert_int_equal(w->ejected[0], 2);
    w->now_ms += 60000; /* no request, no sweep, then only failures of those still in flight */
    results(w, 0, OUTCOME_5XX, 10);
    assert_int_equal(w->unejected[0], 2);
    assert_int_equal(w->ejected[0], 3);
    world_free(w);
}

static void test_gateway_errors(void **state)
{
    struct world *w = outlier_world(10);
    w->policy.outlier.consecutive_5xx = 0;
    w->policy.outlier.consecutive_gateway = 3;
    sync(w);
    results(w, 0, OUTCOME_5XX, 50);
    results(w, 0, OUTCOME_GATEWAY_ERROR, 2);
    results(w, 0, OUTCOME_5XX, 1); /* a 500 is an answer of the service itself */
    results(w, 0, OUTCOME_GATEWAY_ERROR, 2);
    assert_int_equal(w->ejected[0], 0);
    results(w, 0, OUTCOME_LOCAL, 1);
    assert_int_equal(w->ejected[0], 1);
    assert_string_equal(ejection_label(w->why), "consecutive_gateway_failure");
    assert_int_equal(outcome_of(200), OUTCOME_OK);
    assert_int_equal(outcome_of(499), OUTCOME_OK);
    assert_int_equal(outcome_of(500), OUTCOME_5XX);
    assert_int_equal(outcome_of(503), OUTCOME_GATEWAY_ERROR);
    assert_int_equal(outcome_of(505), OUTCOME_5XX);
    world_free(w);
}

static void test_local_errors_apart(void **state)
{
    struct world *w = outlier_world(10);
    w->policy.outlier.split_local = true;
    sync(w);
    results(w, 0, OUTCOME_LOCAL, 50);
    assert_int_equal(w->ejected[0], 0); /* consecutive_local is off */
    w->policy.outlier.consecutive_local = 3;
    sync(w);
    results(w, 1, OUTCOME_LOCAL, 2);
    results(w, 1, OUTCOME_5XX, 1); /* any answer: it was reached */
    results(w, 1, OUTCOME_LOCAL, 2);
    assert_int_equal(w->ejected[1], 0);
    results(w, 1, OUTCOME_LOCAL, 1);
    assert_int_equal(w->why, EJECTION_CONSECUTIVE_LOCAL);
    world_free(w);
}

/* An endpoint that left before the policy asked for outliers has no counters of its own: what it still answers is written nowhere. */
static void test_nobodys_counters(void **state)
{
    struct world *w = outlier_world(10);
    struct endpoint_health nobody = {.refs = 1, .nobody = true}, as_before = nobody;
    struct lb_host gone = {.id = 77, .health = &nobody};
    for (int i = 0; i < 50; i++) {
        outlier_result(w->c, &gone, OUTCOME_5XX, w->now_ms, 0);
        outlier_result(w->c, &gone, OUTCOME_LOCAL, w->now_ms, 0);
        outlier_result(w->c, &gone, OUTCOME_OK, w->now_ms, 0);
    }
    assert_memory_equal(&nobody, &as_before, sizeof nobody);
    world_free(w);
}

/* Twice, three times, four times the base, at most max; an interval in use takes one off. */
static void test_ejection_grows(void **state)
{
    static const uint64_t expected[] = {30000, 60000, 90000, 100000, 100000};
    struct world *w = outlier_world(10);
    for (size_t k = 0; k < COUNT_OF(expected); k++) {
        results(w, 0, OUTCOME_5XX, 5);
        assert_int_equal(w->ejected[0], k + 1);
        assert_int_equal(w->for_ms, expected[k]);
        w->now_ms += expected[k];
        pick(w); /* it is back */
    }
    assert_int_equal(w->health[0].ejections, 3); /* what is beyond the longest need not be forgiven */
    cluster_sweep(w->c, w->now_ms, 0); /* begins the first interval */
    for (uint32_t k = 0; k < 1; k++) {
        w->now_ms += 10000;
        cluster_sweep(w->c, w->now_ms, 0);
        cluster_sweep(w->c, w->now_ms, 0); /* another worker: this interval is done */
    }
    assert_int_equal(w->health[0].ejections, 2);
    results(w, 0, OUTCOME_5XX, 5);
    assert_int_equal(w->for_ms, 90000);
    world_free(w);
}

static void test_ejection_cap(void **state)
{
    struct world *w = outlier_world(10);
    w->policy.outlier.max_ejection_pct = 30;
    sync(w);
    for (uint32_t i = 0; i < 10; i++)
        results(w, i, OUTCOME_5XX, 7);
    assert_int_equal(w->own.ejected, 3);
    assert_true(w->c->count->ejections_over > 0);
    assert_int_equal(w->health[5].ejected_until_ms, 0);
    world_free(w);
    w = outlier_world(4);
    w->policy.outlier.max_ejection_pct = 10; /* one may always be */
    sync(w);
    for (uint32_t i = 0; i < 4; i++)
        results(w, i, OUTCOME_5XX, 7);
    assert_int_equal(w->own.ejected, 1);
    w->policy.outlier.max_ejection_pct = 0; /* none */
    w->now_ms += DAY_MS;
    sync(w);
    results(w, 0, OUTCOME_5XX, 50);
    assert_int_equal(w->ejected[0], 1);
    world_free(w);
}

static void test_ejection_jitter(void **state)
{
    struct world *w = outlier_world(100);
    uint64_t least = UINT64_MAX, most = 0;
    w->policy.outlier.jitter_ms = 1000;
    sync(w);
    for (uint32_t i = 0; i < 50; i++) {
        results(w, i, OUTCOME_5XX, 5);
        least = MIN(least, w->for_ms);
        most = MAX(most, w->for_ms);
    }
    assert_true(least >= 30000 && least < 30200);
    assert_true(most <= 31000 && most > 30800);
    world_free(w);
}

static void interval(struct world *w, const uint32_t *failures, uint32_t n, uint32_t volume)
{
    for (uint32_t i = 0; i < n; i++) {
        results(w, i, OUTCOME_OK, volume - failures[i]);
        results(w, i, OUTCOME_5XX, failures[i]);
    }
    w->now_ms += 10000;
    cluster_sweep(w->c, w->now_ms, 0);
}

/* Rates 100, 100, 100, 100, 50: mean 90, deviation sqrt((4 * 10^2 + 40^2) / 5) = 20. With 1.9 the threshold is 52, with 2.1 it is 48. */
static void test_success_rate(void **state)
{
    static const uint32_t failures[] = {0, 0, 0, 0, 50};
    struct world *w = outlier_world(5);
    struct outlier_policy *p = &w->policy.outlier;
    p->consecutive_5xx = 0;
    p->success_rate_stdev_permille = 2100;
    p->success_rate_min_hosts = 5;
    p->success_rate_volume = 100;
    sync(w);
    cluster_sweep(w->c, w->now_ms, 0);
    interval(w, failures, 5, 100);
    assert_int_equal(w->own.ejected, 0);
    p->success_rate_stdev_permille = 1900;
    sync(w);
    interval(w, failures, 5, 99); /* too few requests */
    assert_int_equal(w->own.ejected, 0);
    interval(w, failures, 4, 100); /* too few endpoints */
    assert_int_equal(w->own.ejected, 0);
    interval(w, failures, 5, 100);
    assert_int_equal(w->ejected[4], 1);
    assert_int_equal(w->why, EJECTION_SUCCESS_RATE);
    assert_int_equal(w->own.ejected, 1);
    assert_int_equal(w->health[4].ok + w->health[4].failed, 0); /* an interval begins from nothing */
    world_free(w);
}

static void test_failure_percentage(void **state)
{
    static const uint32_t failures[] = {84, 85, 0, 90, 10};
    struct world *w = outlier_world(5);
    struct outlier_policy *p = &w->policy.outlier;
    p->consecutive_5xx = 0;
    p->failure_pct = 85;
    p->failure_pct_volume = 100;
    sync(w);
    cluster_sweep(w->c, w->now_ms, 0);
    interval(w, failures, 5, 100);
    assert_int_equal(w->ejected[0], 0);
    assert_int_equal(w->ejected[1], 1);
    assert_int_equal(w->ejected[3], 1);
    assert_int_equal(w->why, EJECTION_FAILURE_PERCENTAGE);
    world_free(w);
}

/* ---- breakers -------------------------------------------------------------------------------------------------------------------------- */

static void test_breakers(void **state)
{
    struct world *w = world_new(1, LB_LEAST_REQUEST);
    uint8_t held[8] = {0};
    sync(w);
    assert_int_equal(breaker_enter(w->c, BREAKER_REQUESTS, 0, &held[0]), OVERFLOW_NONE); /* no limit: not counted */
    assert_int_equal(held[0] | w->own.requests, 0);
    w->policy.pool = (struct pool_policy){.connections_max = 2, .pending_max = 1, .requests_max = 3, .retries_max = 1};
    sync(w);
    breaker_leave(w->c, BREAKER_REQUESTS, &held[0]); /* entered under the old policy */
    static const struct { enum breaker b; uint32_t max; enum overflow o; const char *label; } limits[] = {
        {BREAKER_CONNECTIONS, 2, OVERFLOW_CONNECTIONS, "connections"}, {BREAKER_PENDING, 1, OVERFLOW_PENDING, "pending"},
        {BREAKER_REQUESTS, 3, OVERFLOW_REQUESTS, "requests"}, {BREAKER_RETRIES, 1, OVERFLOW_RETRIES, "retries"},
    };
    for (size_t k = 0; k < COUNT_OF(limits); k++) {
        for (uint32_t i = 0; i < limits[k].max; i++)
            assert_int_equal(breaker_enter(w->c, limits[k].b, 0, &held[i]), OVERFLOW_NONE);
        enum overflow o = breaker_enter(w->c, limits[k].b, 0, &held[7]);
        assert_int_equal(o, limits[k].o);
        assert_string_equal(overflow_label(o), limits[k].label);
        assert_true(strlen(overflow_text(o)));
        assert_int_equal(held[7], 0);
        assert_int_equal(w->c->count->overflow[o], 1);
        breaker_leave(w->c, limits[k].b, &held[0]);
        breaker_leave(w->c, limits[k].b, &held[0]);
        assert_int_equal(breaker_enter(w->c, limits[k].b, 0, &held[7]), OVERFLOW_NONE);
        breaker_leave(w->c, limits[k].b, &held[7]);
    }
    assert_int_equal(w->own.requests, 2);
    cluster_hold(w->c); /* a request outlives its cluster's plan: all is given back at once, and leaving does no harm */
    struct cluster *c = w->c;
    cluster_drop(c);
    assert_int_equal(w->own.requests | w->own.connections, 0);
    breaker_leave(c, BREAKER_REQUESTS, &held[1]);
    assert_int_equal(breaker_enter(c, BREAKER_REQUESTS, 0, &held[1]), OVERFLOW_NONE);
    struct lb_request rq = request(w);
    assert_null(cluster_pick(c, &rq));
    cluster_release(c);
    assert_int_equal(w->own.requests, 0);
    mem_free(w);
}

static void test_retry_budget(void **state)
{
    struct world *w = world_new(1, LB_LEAST_REQUEST);
    uint8_t held[200] = {0};
    w->policy.pool = (struct pool_policy){.retries_max = 1, .retry_budget = true, .retry_budget_pct = 20, .retry_budget_min = 3};
    sync(w);
    uint32_t n = 0;
    for (; breaker_enter(w->c, BREAKER_RETRIES, 0, &held[n]) == OVERFLOW_NONE; n++)
        assert_true(n < 100);
    assert_int_equal(n, 3); /* the budget's minimum, instead of retries_max */
    for (uint32_t i = 0; i < 75; i++) {
        assert_int_equal(breaker_enter(w->c, BREAKER_REQUESTS, 0, &held[i]), OVERFLOW_NONE);
        assert_int_equal(breaker_enter(w->c, BREAKER_PENDING, 0, &held[i]), OVERFLOW_NONE); /* who waits is counted once */
    }
    for (; breaker_enter(w->c, BREAKER_RETRIES, 0, &held[100 + n]) == OVERFLOW_NONE; n++)
        assert_true(n < 100);
    assert_int_equal(n, 15); /* 20 % of 75 */
    assert_int_equal(w->c->count->overflow[OVERFLOW_RETRY_BUDGET], 2);
    world_free(w);
}

/* Least important first: 100 requests may be, marks at 100, 90 and 80. */
static void test_shedding(void **state)
{
    static char *levels[] = {"critical", "default", "batch"};
    struct world *w = world_new(1, LB_LEAST_REQUEST);
    w->policy.pool.requests_max = 100;
    w->policy.shed = (struct shed_policy){.header = "x-priority", .levels = levels, .levels_n = 3, .at_pct = 80};
    sync(w);
    uint32_t ranks[3];
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(ranks[i] = breaker_rank(&w->policy.shed, slice_cstr(levels[i])), i);
    assert_int_equal(breaker_rank(&w->policy.shed, SLICE("")), 2);
    uint8_t held[200] = {0};
    uint32_t n = 0;
    static const uint32_t marks[] = {80, 90, 100};
    static const enum overflow reasons[] = {OVERFLOW_SHED, OVERFLOW_SHED, OVERFLOW_REQUESTS};
    for (uint32_t i = 0; i < 3; i++) {
        enum overflow o;
        while ((o = breaker_enter(w->c, BREAKER_REQUESTS, ranks[2 - i], &held[n])) == OVERFLOW_NONE)
            n++;
        assert_int_equal(n, marks[i]);
        assert_int_equal(o, reasons[i]);
    }
    w->policy.shed.levels_n = 1;
    assert_int_equal(breaker_rank(&w->policy.shed, SLICE("critical")), 0);
    assert_int_equal(breaker_rank(&w->policy.shed, SLICE("other")), 1);
    w->policy.shed.header = NULL;
    assert_int_equal(breaker_rank(&w->policy.shed, SLICE("other")), 0);
    world_free(w);
}

static void test_backoff(void **state)
{
    uint64_t random = 3;
    static const struct { uint32_t retry, base, max, least, most; } rows[] = {
        {1, 25, 250, 25, 50}, {2, 25, 250, 25, 100}, {3, 25, 250, 25, 200}, {4, 25, 250, 25, 250}, {1000, 25, 250, 25, 250},
        {2, 0, 0, 25, 100}, {9, 0, 0, 25, 250}, {1, 500, 100, 100, 100}, {40, 1, UINT32_MAX, 1, UINT32_MAX},
    };
    for (size_t r = 0; r < COUNT_OF(rows); r++) {
        uint32_t least = UINT32_MAX, most = 0;
        for (int k = 0; k < 5000; k++) {
            uint32_t ms = retry_backoff_ms(rows[r].retry, rows[r].base, rows[r].max, chance(&random));
            assert_true(ms >= rows[r].least && ms <= rows[r].most);
            least = MIN(least, ms);
            most = MAX(most, ms);
        }
        uint32_t width = rows[r].most - rows[r].least;
        assert_true(least - rows[r].least <= width / 20 && rows[r].most - most <= width / 20); /* the whole range is used */
    }
}

/* ---- several workers ---------------------------------------------------------------------------------------------------------------------- */

#define WORKERS 4
#define LIMIT 3u

struct crew {
    struct cluster_policy policy;
    struct cluster_shared shared;
    struct plan_cluster pc;
    struct plan_endpoint eps[8];
    struct endpoint_health health[8];
    uint32_t inside, most;     /* requests let in now, and at most */
};
struct hand {
    struct crew *crew;
    struct lb_host hosts[8];
    uint64_t random;
    uint64_t admitted, refused, events;
};

static struct lb_host *hand_host(void *ctx, const struct plan_endpoint *pe) { return &((struct hand *)ctx)->hosts[pe->slot]; }

static void hand_step(struct hand *me, struct cluster *c, uint64_t now_ms)
{
    struct crew *crew = me->crew;
    uint8_t held = 0;
    struct lb_request rq = {.random = chance(&me->random), .now_ms = now_ms, .now_ns = now_ms * 1000000};
    if (breaker_enter(c, BREAKER_REQUESTS, 0, &held) != OVERFLOW_NONE) {
        me->refused++;
        return;
    }
    uint32_t inside = __atomic_add_fetch(&crew->inside, 1, __ATOMIC_SEQ_CST);
    uint32_t most = __atomic_load_n(&crew->most, __ATOMIC_RELAXED);
    while (inside > most && !__atomic_compare_exchange_n(&crew->most, &most, inside, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    struct lb_host *h = cluster_pick(c, &rq);
    if (h) {
        cluster_begin(c, h);
        outlier_result(c, h, chance(&me->random) % 3 ? OUTCOME_5XX : OUTCOME_OK, now_ms, chance(&me->random));
        adaptive_sample(c, 1000000 + chance(&me->random) % 1000, now_ms);
        cluster_end(c, h);
    }
    me->admitted++;
    __atomic_sub_fetch(&crew->inside, 1, __ATOMIC_SEQ_CST);
    breaker_leave(c, BREAKER_REQUESTS, &held);
}

static void hand_run(void *arg)
{
    struct hand *me = arg;
    struct cluster *c = cluster_new(NULL, NULL, me->random);
    cluster_sync(c, &me->crew->pc, "", hand_host, me, 1000);
    for (uint64_t k = 0; k < 40000; k++) {
        hand_step(me, c, 1000 + k / 20);
        if (k % 100 == 0)
            cluster_sweep(c, 1000 + k / 20, k);
    }
    for (int e = 0; e < EJECTION_COUNT; e++)
        me->events += c->count->ejections[e];
    cluster_drop(c);
}

static void test_workers(void **state)
{
    struct crew *crew = mem_new(MEM_MISC, sizeof *crew);
    struct hand *hands = mem_new(MEM_MISC, WORKERS * sizeof *hands);
    struct thread *threads[WORKERS];
    crew->policy.lb.panic_pct = 50;
    crew->policy.pool.requests_max = LIMIT;
    crew->policy.adaptive = (struct adaptive_policy){.on = true, .min = LIMIT, .max = 100, .interval_ms = 10};
    crew->policy.outlier = (struct outlier_policy){.on = true, .consecutive_5xx = 4, .interval_ms = 50, .base_ejection_ms = 20, .max_ejection_pct = 40,
                                                   .success_rate_stdev_permille = 1900, .success_rate_volume = 5};
    crew->pc = (struct plan_cluster){.eps = crew->eps, .eps_n = 8, .policy = &crew->policy, .policy_hash = 1, .shared = &crew->shared};
    for (uint32_t i = 0; i < 8; i++)
        crew->eps[i] = (struct plan_endpoint){.id = i + 1, .slot = i, .weight = 1, .health = &crew->health[i], .locality = "", .name = ""};
    uint64_t admitted = 0, ejections = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        hands[i] = (struct hand){.crew = crew, .random = i};
        threads[i] = thread_start("hand", hand_run, &hands[i]);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        thread_join(threads[i]);
        admitted += hands[i].admitted;
        ejections += hands[i].events;
    }
    assert_true(admitted > 1000 && ejections > 0);
    assert_in_range(crew->most, 1, LIMIT);
    assert_int_equal(crew->shared.requests | crew->inside, 0);
    assert_true(crew->shared.limit >= LIMIT && crew->shared.limit <= 100);
    mem_free(hands);
    mem_free(crew);
}

/* One place, and workers that do nothing but want it: whoever looked before counting would let two in. */
static void place_run(void *arg)
{
    struct hand *me = arg;
    struct cluster *c = cluster_new(NULL, NULL, 0);
    cluster_sync(c, &me->crew->pc, "", hand_host, me, 1000);
    for (uint64_t k = 0; k < 300000; k++) {
        uint8_t held = 0;
        if (breaker_enter(c, BREAKER_CONNECTIONS, 0, &held) != OVERFLOW_NONE)
            continue;
        uint32_t inside = __atomic_add_fetch(&me->crew->inside, 1, __ATOMIC_SEQ_CST);
        if (inside > 1)
            __atomic_store_n(&me->crew->most, inside, __ATOMIC_RELAXED);
        me->admitted++;
        __atomic_sub_fetch(&me->crew->inside, 1, __ATOMIC_SEQ_CST);
        breaker_leave(c, BREAKER_CONNECTIONS, &held);
    }
    cluster_drop(c);
}

static void test_one_place(void **state)
{
    struct crew *crew = mem_new(MEM_MISC, sizeof *crew);
    struct hand *hands = mem_new(MEM_MISC, WORKERS * sizeof *hands);
    struct thread *threads[WORKERS];
    crew->policy.pool.connections_max = 1;
    crew->pc = (struct plan_cluster){.eps = crew->eps, .policy = &crew->policy, .policy_hash = 1, .shared = &crew->shared};
    for (uint32_t i = 0; i < WORKERS; i++) {
        hands[i].crew = crew;
        threads[i] = thread_start("place", place_run, &hands[i]);
    }
    uint64_t admitted = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        thread_join(threads[i]);
        admitted += hands[i].admitted;
    }
    assert_true(admitted > 1000);
    assert_int_equal(crew->most, 0);
    assert_int_equal(crew->shared.connections, 0);
    mem_free(hands);
    mem_free(crew);
}

/* ---- adaptive concurrency ------------------------------------------------------------------------------------------------------------------- */

static void test_gradient_steps(void **state)
{
    struct adaptive_policy p = {.on = true, .min = 5, .max = 200, .buffer_pct = 25};
    struct gradient g = {.limit = 100};
    assert_int_equal(gradient_step(&g, &p, 1000, true), 110);   /* latency at its base: 100 + sqrt(100) */
    assert_int_equal(gradient_step(&g, &p, 1000, false), 110);  /* not in use: proves nothing */
    g.limit = 100;
    assert_int_equal(gradient_step(&g, &p, 2500, true), 60);    /* 1250 / 2500 = 0.5: 50 + 10 */
    g.limit = 100;
    assert_int_equal(gradient_step(&g, &p, 100000, true), 60);  /* never less than half at once */
    g.limit = 195;
    assert_int_equal(gradient_step(&g, &p, 1000, true), 200);
    g.limit = 5;
    assert_int_equal(gradient_step(&g, &p, 100000, true), 5);
    g = (struct gradient){.limit = 100, .base_ns = 1000, .windows = 49};
    assert_int_equal(gradient_step(&g, &p, 1250, true), 55);    /* due: half of 110 while the queue drains */
    assert_int_equal(g.phase, GRADIENT_DRAIN);
    assert_int_equal(gradient_step(&g, &p, 9000, true), 55);
    assert_int_equal(gradient_step(&g, &p, 2000, true), 110);
    assert_int_equal(g.base_ns, 2000);
    assert_int_equal(g.phase, GRADIENT_STEADY);
}

/* A service with so many servers, first come first served, and more clients than it can bear. Times in ns. */
struct model {
    struct world *w;
    uint32_t servers;
    uint64_t service_ns;       /* mean; each takes half to one and a half of it */
    uint64_t free_at[128];     /* by server */
    uint64_t done_at[512], begun_at[512]; /* by request in flight */
    uint8_t held[512];
    uint64_t now, arrivals_ns;
    uint64_t answered, refused, latency_ns, limits, ticks;
};

static void model_finish(struct model *s)
{
    for (uint32_t i = 0; i < COUNT_OF(s->done_at); i++) {
        if (s->done_at[i] == 0 || s->done_at[i] > s->now)
            continue;
        uint64_t rtt = s->done_at[i] - s->begun_at[i];
        adaptive_sample(s->w->c, rtt, s->now / 1000000);
        breaker_leave(s->w->c, BREAKER_REQUESTS, &s->held[i]);
        s->done_at[i] = 0;
        s->answered++;
        s->latency_ns += rtt;
    }
}

static void model_arrive(struct model *s)
{
    uint32_t slot = 0, first = 0;
    while (slot < COUNT_OF(s->done_at) && s->done_at[slot])
        slot++;
    assert_true(slot < COUNT_OF(s->done_at));
    if (breaker_enter(s->w->c, BREAKER_REQUESTS, 0, &s->held[slot]) != OVERFLOW_NONE) {
        s->refused++;
        return;
    }
    for (uint32_t k = 1; k < s->servers; k++)
        if (s->free_at[k] < s->free_at[first])
            first = k;
    uint64_t takes = s->service_ns / 2 + chance(&s->w->random) % s->service_ns;
    s->begun_at[slot] = s->now;
    s->done_at[slot] = s->free_at[first] = MAX(s->now, s->free_at[first]) + takes;
}

/* Seconds of offered load, in tenths of a millisecond; counts only the second half. */
static void model_run(struct model *s, uint32_t seconds, double per_second)
{
    double owed = 0;
    uint64_t end = s->now + seconds * 1000000000ull, half = s->now + seconds * 500000000ull;
    for (bool counting = false; s->now < end; s->now += 100000) {
        if (!counting && s->now >= half) {
            counting = true;
            s->answered = s->refused = s->latency_ns = s->limits = s->ticks = 0;
        }
        model_finish(s);
        for (owed += per_second / 10000 * 2 * (double)(chance(&s->w->random) >> 11) / 9007199254740992.0; owed >= 1; owed--)
            model_arrive(s);
        s->limits += adaptive_limit(s->w->c);
        s->ticks++;
    }
}

/* The limit found, and that it costs neither throughput nor latency. */
static void assert_found(const struct model *s, uint32_t seconds, uint32_t least, uint32_t most)
{
    double limit = (double)s->limits / (double)s->ticks;
    double capacity = s->servers * 1e9 / (double)s->service_ns * seconds / 2;
    double latency = (double)s->latency_ns / (double)s->answered / (double)s->service_ns;
    print_message("    %u servers, %u ms: limit %.1f, %.0f %% of capacity, latency %.2f times the service's\n", s->servers, (uint32_t)(s->service_ns / 1000000), limit,
                  100 * (double)s->answered / capacity, latency);
    assert_true(limit >= least && limit <= most);
    assert_true((double)s->answered >= capacity * 0.9);
    assert_true(latency < 2.2);
}

static void test_adaptive_finds_capacity(void **state)
{
    struct world *w = world_new(1, LB_LEAST_REQUEST);
    w->policy.adaptive = (struct adaptive_policy){.on = true, .min = 2, .max = 400, .interval_ms = 100, .buffer_pct = 25};
    sync(w);
    struct model *s = mem_new(MEM_MISC, sizeof *s);
    *s = (struct model){.w = w, .servers = 16, .service_ns = 10000000, .now = 1000000000};
    model_run(s, 40, 4000); /* capacity is 1,600 */
    assert_found(s, 40, 16, 40);
    assert_true(w->c->count->overflow[OVERFLOW_ADAPTIVE] > 0);
    s->servers = 4; /* down */
    model_run(s, 60, 4000);
    assert_found(s, 60, 4, 16);
    s->servers = 64; /* up */
    model_run(s, 60, 12000);
    assert_found(s, 60, 60, 150);
    s->service_ns = 30000000; /* slower, not fuller: the base follows by measuring */
    model_run(s, 120, 6000);
    assert_found(s, 120, 60, 150);
    uint64_t refused = s->refused; /* calm: what is below capacity passes untouched */
    model_run(s, 20, 500);
    assert_true(s->refused == 0 && refused > 0);
    s->now += 10000000000;
    model_finish(s);
    mem_free(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consecutive), cmocka_unit_test(test_after_ejection), cmocka_unit_test(test_gateway_errors), cmocka_unit_test(test_local_errors_apart), cmocka_unit_test(test_nobodys_counters),
        cmocka_unit_test(test_ejection_grows), cmocka_unit_test(test_ejection_cap), cmocka_unit_test(test_ejection_jitter),
        cmocka_unit_test(test_success_rate), cmocka_unit_test(test_failure_percentage), cmocka_unit_test(test_breakers),
        cmocka_unit_test(test_retry_budget), cmocka_unit_test(test_shedding), cmocka_unit_test(test_backoff), cmocka_unit_test(test_workers), cmocka_unit_test(test_one_place),
        cmocka_unit_test(test_gradient_steps), cmocka_unit_test(test_adaptive_finds_capacity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
