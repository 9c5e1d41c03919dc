/* balance_test.c - unit tests of choosing: what each algorithm promises, and what it costs.
 *
 * What is statistical is checked within bounds of five standard deviations or more; what is exact is checked exactly.
 */
#include "balance_world.h"
#include "repeat_test.h"

/* ---- distribution --------------------------------------------------------------------------------------------------------- */

static const enum lb_kind all_kinds[] = {LB_LEAST_REQUEST, LB_ROUND_ROBIN, LB_RANDOM, LB_PEAK_EWMA, LB_RING_HASH, LB_MAGLEV, LB_LEAST_REQUEST_FULL};

static void answer_all(struct world *w)
{
    for (uint32_t i = 0; i < w->pc.eps_n; i++)
        host_latency(&w->hosts[i], 1000000, w->now_ms * 1000000);
}

/* How even an idle cluster's choices are. */
static double tolerance_of(enum lb_kind k)
{
    return k == LB_RING_HASH ? 0.35 : k == LB_ROUND_ROBIN ? 0.0001 : 0.05;
}

static void test_equal_shares(void **state)
{
    static uint32_t counts[HOSTS];
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(10, all_kinds[k]);
        sync(w);
        answer_all(w);
        tally(w, 100000, counts);
        for (uint32_t i = 0; i < 10; i++)
            assert_share(counts[i], 100000, 0.1, tolerance_of(all_kinds[k]));
        world_free(w);
    }
}

static void test_weighted_shares(void **state)
{
    static uint32_t counts[HOSTS];
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(4, all_kinds[k]);
        for (uint32_t i = 0; i < 4; i++)
            w->eps[i].weight = i + 1;
        sync(w);
        answer_all(w);
        tally(w, 100000, counts);
        for (uint32_t i = 0; i < 4; i++)
            assert_share(counts[i], 100000, (i + 1) / 10.0, tolerance_of(all_kinds[k]));
        world_free(w);
    }
}

/* Weights far apart: the alias table is exact, and nothing overflows. */
static void test_extreme_weights(void **state)
{
    static uint32_t counts[HOSTS];
    static const enum lb_kind kinds[] = {LB_LEAST_REQUEST, LB_ROUND_ROBIN, LB_RANDOM, LB_MAGLEV, LB_RING_HASH};
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        struct world *w = world_new(3, kinds[k]);
        w->eps[0].weight = UINT32_MAX;
        w->eps[1].weight = LB_WEIGHT_MAX;
        w->eps[2].weight = 0;
        sync(w);
        tally(w, 20000, counts);
        assert_share(counts[0], 20000, 0.5, kinds[k] == LB_RING_HASH ? 0.35 : 0.05);
        assert_true(counts[2] <= 200);
        world_free(w);
    }
}

/* Under load, requests in flight follow the weights. */
static void test_least_request_in_flight(void **state)
{
    static const enum lb_kind kinds[] = {LB_LEAST_REQUEST, LB_LEAST_REQUEST_FULL};
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        struct world *w = world_new(5, kinds[k]);
        for (uint32_t i = 0; i < 5; i++)
            w->eps[i].weight = i + 1;
        sync(w);
        for (uint32_t n = 0; n < 15000; n++)
            cluster_begin(w->c, &w->hosts[pick(w)]);
        for (uint32_t i = 0; i < 5; i++)
            assert_share(w->hosts[i].in_flight, 15000, (i + 1) / 15.0, 0.02);
        world_free(w);
    }
}

/* Two choices: after n requests that stay, the fullest is within a few of the mean, far from what chance alone gives. */
static void test_two_choices(void **state)
{
    struct world *w = world_new(100, LB_LEAST_REQUEST);
    sync(w);
    assert_true(w->c->plain);
    uint32_t most = 0;
    for (uint32_t n = 0; n < 100000; n++)
        cluster_begin(w->c, &w->hosts[pick(w)]);
    for (uint32_t i = 0; i < 100; i++)
        most = MAX(most, w->hosts[i].in_flight);
    assert_in_range(most, 1000, 1005);
    world_free(w);
    w = world_new(2, LB_LEAST_REQUEST); /* the two are always different */
    sync(w);
    cluster_begin(w->c, &w->hosts[0]);
    for (uint32_t n = 0; n < 100; n++)
        assert_int_equal(pick(w), 1);
    world_free(w);
    w = world_new(10, LB_LEAST_REQUEST_FULL);
    sync(w);
    for (uint32_t n = 0; n < 1000; n++)
        cluster_begin(w->c, &w->hosts[pick(w)]);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(w->hosts[i].in_flight, 100);
    world_free(w);
}

static void assert_turns(const uint32_t *weights, uint32_t n, uint64_t seed, const char *expected)
{
    char got[64] = "";
    struct world *w = world_new(n, LB_ROUND_ROBIN);
    cluster_drop(w->c);
    w->c = cluster_new(&ops, w, seed);
    for (uint32_t i = 0; i < n; i++)
        w->eps[i].weight = weights[i];
    sync(w);
    for (size_t k = 0; k < strlen(expected); k++)
        got[k] = (char)('a' + pick(w));
    assert_string_equal(got, expected);
    world_free(w);
}

/* By hand, for 5:1:1: each visit adds the weight, 5 are a turn; b begins with 3.09, c with 1.18. */
static void test_round_robin_sequence(void **state)
{
    assert_turns((const uint32_t[]){1, 1, 1}, 3, 0, "abcabcabc");
    assert_turns((const uint32_t[]){7, 7, 7}, 3, 1, "bcabcabca");
    assert_turns((const uint32_t[]){5, 1, 1}, 3, 0, "aabaaca" "aabaaca" "aabaaca");
    assert_turns((const uint32_t[]){1, 2}, 2, 0, "babbabbab");
    assert_turns((const uint32_t[]){3}, 1, 0, "aaa");
}

/* Smooth: in every cycle of the sum of weights each has its exact share, and never waits longer than two of its distances. */
static void test_round_robin_smooth(void **state)
{
    uint64_t random = 7;
    for (int run = 0; run < 50; run++) {
        struct world *w = world_new(2 + (uint32_t)(chance(&random) % 20), LB_ROUND_ROBIN);
        uint32_t n = w->pc.eps_n, sum = 0, counts[32] = {0}, last[32] = {0};
        for (uint32_t i = 0; i < n; i++)
            sum += w->eps[i].weight = 1 + (uint32_t)(chance(&random) % 10);
        sync(w);
        for (uint32_t k = 1; k <= 10 * sum; k++) {
            int i = pick(w);
            counts[i]++;
            assert_true(k - last[i] <= 2 * sum / w->eps[i].weight + n);
            last[i] = k;
        }
        for (uint32_t i = 0; i < n; i++)
            assert_in_range(counts[i], 10 * w->eps[i].weight - 1, 10 * w->eps[i].weight + 1);
        world_free(w);
    }
}

/* When the heaviest goes, the others share at once as their weights say, whatever they were owed. */
static void test_round_robin_heaviest_goes(void **state)
{
    static uint32_t counts[HOSTS];
    struct world *w = world_new(3, LB_ROUND_ROBIN);
    w->policy.outlier.on = true;
    w->eps[0].weight = 1000;
    w->eps[1].weight = 2;
    sync(w);
    eject_until(w, 0, w->now_ms + DAY_MS);
    tally(w, 30, counts);
    assert_in_range(counts[1], 19, 21);
    assert_in_range(counts[2], 9, 11);
    world_free(w);
}

/* ---- peak EWMA ---------------------------------------------------------------------------------------------------------------- */

static void test_ewma_arithmetic(void **state)
{
    struct lb_host h = {0};
    uint64_t t0 = 5000000000, tau = (uint64_t)EWMA_TAU_NS;
    host_latency(&h, 1000, t0);
    assert_near(h.ewma_ns, 1000, 0.001);
    host_latency(&h, 4000, t0 + 1); /* a peak counts at once */
    assert_near(h.ewma_ns, 4000, 0.001);
    host_latency(&h, 1000, t0 + 1 + tau); /* 4000/e + 1000(1 - 1/e) */
    assert_near(h.ewma_ns, 1000 + 3000 * exp(-1), 0.01);
    h.in_flight = 3;
    assert_near(host_cost(&h, 1, t0 + 1 + tau), h.ewma_ns * 4, 0.01);
    assert_near(host_cost(&h, 0.5, t0 + 1 + tau), h.ewma_ns * 2.5, 0.01);
    assert_near(host_cost(&h, 1, t0 + 1 + 2 * tau), h.ewma_ns * 4 * exp(-1), 0.01);
    /* the series agrees with the function where they meet */
    double near = host_cost(&h, 1, t0 + 1 + tau + tau / 20 - 1000), far = host_cost(&h, 1, t0 + 1 + tau + tau / 20 + 1000);
    assert_near(near, far, far * 1e-5);
    struct lb_host young = {0};
    assert_near(host_cost(&young, 1, t0), 0, 0);
    young.in_flight = 1;
    assert_true(host_cost(&young, 1, t0) > 1e12);
}

static void test_ewma_choice(void **state)
{
    struct world *w = world_new(3, LB_PEAK_EWMA);
    sync(w);
    uint32_t counts[3] = {0};
    static const uint64_t rtt_ns[] = {1000000, 1000000, 50000000};
    for (uint32_t k = 0; k < 3; k++) {
        int i = pick(w);
        cluster_begin(w->c, &w->hosts[i]);
        counts[i]++;
    }
    for (uint32_t i = 0; i < 3; i++)
        assert_true(counts[i] <= 2); /* nobody piles up before the first answers */
    for (uint32_t i = 0; i < 3; i++)
        for (; counts[i]; counts[i]--)
            cluster_end(w->c, &w->hosts[i]);
    answer_all(w);
    for (uint32_t k = 0; k < 10000; k++) {
        int i = pick(w);
        counts[i]++;
        w->now_ms++;
        host_latency(&w->hosts[i], rtt_ns[i], w->now_ms * 1000000);
    }
    assert_in_range(counts[2], 1, 200); /* alone it would be 3333; its mean decays, so it is asked now and then */
    assert_in_range(counts[0], 4500, 5500);
    world_free(w);
}

static void test_ewma_new_host(void **state)
{
    struct world *w = world_new(10, LB_PEAK_EWMA);
    sync(w);
    answer_all(w);
    w->hosts[9] = (struct lb_host){.id = w->eps[9].id, .health = &w->health[9]};
    uint32_t first = 0;
    for (uint32_t k = 0; k < 1000; k++) {
        int i = pick(w);
        if (i == 9) {
            first++;
            cluster_begin(w->c, &w->hosts[9]);
        }
    }
    assert_int_equal(first, 1); /* one request, no second before it is answered */
    world_free(w);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------------------------ */

static void test_hash_is_stable(void **state)
{
    hash_seed(12345);
    uint64_t a = hash_key(SLICE("catalog-7f9c"));
    hash_seed(54321);
    assert_true(a == hash_key(SLICE("catalog-7f9c")));
    /* written down: a change would move every request of every user when Weir is upgraded */
    assert_true(hash_key(SLICE("")) == 0x8df1cbae83785974u);
    assert_true(hash_key(SLICE("a")) == 0x7883d39ce62f66ccu);
    assert_true(hash_key(SLICE("0123456789abcdefghijklmnopqrstuvwxyz")) == 0x2fadb7bcb5f2f33fu);
    char bytes[40] = {0};
    for (size_t n = 1; n < sizeof bytes; n++) /* each length and each byte counts */
        assert_true(hash_key(slice_of(bytes, n)) != hash_key(slice_of(bytes, n - 1)));
    struct addr x = addr_ip4(0x0a000001, 80), y = addr_ip4(0x0a000001, 81), z = addr_ip4(0x0a000002, 80);
    assert_true(hash_addr(&x) == hash_addr(&y));
    assert_true(hash_addr(&x) != hash_addr(&z));
    assert_true(hash_join(1, 2) != hash_join(2, 1));
}

static void test_find_cookie_and_query(void **state)
{
    static const struct { const char *field, *value; } cookies[] = {
        {"sid=abc", "abc"}, {"a=1; sid=abc; b=2", "abc"}, {"xsid=no;sid=\"q\"", "q"}, {"sid=", ""}, {"sid=a=b", "a=b"}, {" ; ;sid=x", "x"},
        {"xsid=1", NULL}, {"", NULL}, {"sid", NULL}, {"Sid=1", NULL},
    };
    static const struct { const char *target, *value; } queries[] = {
        {"/p?id=7", "7"}, {"/p?a=1&id=7&b", "7"}, {"/p?id", ""}, {"/p?id=a%20b#x", "a%20b"}, {"/p?xid=1", NULL}, {"/p", NULL}, {"/id=7", NULL}, {"/p?", NULL},
    };
    struct slice v;
    for (size_t i = 0; i < COUNT_OF(cookies); i++) {
        assert_int_equal(cookie_find(slice_cstr(cookies[i].field), SLICE("sid"), &v), cookies[i].value != NULL);
        assert_true(!cookies[i].value || slice_is(v, cookies[i].value));
    }
    for (size_t i = 0; i < COUNT_OF(queries); i++) {
        assert_int_equal(query_find(slice_cstr(queries[i].target), SLICE("id"), &v), queries[i].value != NULL);
        assert_true(!queries[i].value || slice_is(v, queries[i].value));
    }
}

#define KEYS 20000
static const enum lb_kind hash_kinds[] = {LB_RING_HASH, LB_MAGLEV};

static void places(struct world *w, int *at)
{
    for (uint32_t k = 0; k < KEYS; k++)
        at[k] = pick_hash(w, key(k));
}

/* Keys whose place changed although neither place is `except`. */
static uint32_t moved(const int *before, const int *after, int except)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < KEYS; k++)
        n += before[k] != after[k] && before[k] != except && after[k] != except;
    return n;
}

static void test_hash_disruption(void **state)
{
    static int before[KEYS], after[KEYS];
    for (size_t t = 0; t < COUNT_OF(hash_kinds); t++) {
        struct world *w = world_new(50, hash_kinds[t]);
        sync(w);
        places(w, before);
        places(w, after);
        assert_memory_equal(before, after, sizeof before); /* the same request, the same endpoint */
        w->pc.eps_n = 49;
        sync(w);
        places(w, after);
        uint32_t allowed = hash_kinds[t] == LB_RING_HASH ? 0 : KEYS * 3 / 100;
        assert_in_range(moved(before, after, 49), 0, allowed);
        w->pc.eps_n = 50;
        w->eps[7].weight = 2;
        sync(w);
        places(w, after);
        assert_in_range(moved(before, after, 7), 0, allowed);
        world_free(w);
    }
}

/* The replicas of most services are few. */
static void test_ring_few(void **state)
{
    static int before[KEYS], after[KEYS];
    for (uint32_t n = 2; n <= 20; n++) {
        struct world *w = world_new(n, LB_RING_HASH);
        w->policy.lb.ring_size_min = n % 2 ? 1024 : 0;
        sync(w);
        places(w, before);
        w->pc.eps_n = n - 1;
        sync(w);
        places(w, after);
        assert_int_equal(moved(before, after, (int)n - 1), 0);
        world_free(w);
    }
}

/* Whoever is down loses its requests to many others; nobody else's move, and all come back. */
static void test_hash_down(void **state)
{
    static int before[KEYS], after[KEYS];
    for (size_t t = 0; t < COUNT_OF(hash_kinds); t++) {
        struct world *w = world_new(50, hash_kinds[t]);
        w->policy.outlier.on = true;
        sync(w);
        places(w, before);
        uint32_t lost = 0, to[50] = {0}, heirs = 0;
        eject_until(w, 3, w->now_ms + 1000);
        places(w, after);
        assert_int_equal(moved(before, after, 3), 0);
        for (uint32_t k = 0; k < KEYS; k++) {
            assert_int_not_equal(after[k], 3);
            lost += before[k] == 3;
            to[after[k]] += before[k] == 3;
        }
        for (uint32_t i = 0; i < 50; i++) {
            heirs += to[i] > 0;
            assert_true(to[i] <= lost / 4);
        }
        assert_true(heirs >= 25);
        w->now_ms += 2000;
        places(w, after);
        assert_memory_equal(before, after, sizeof before);
        assert_int_equal(w->c->count->tables, 1);
        world_free(w);
    }
}

static void test_hash_many_hosts(void **state)
{
    static uint32_t counts[HOSTS];
    for (size_t t = 0; t < COUNT_OF(hash_kinds); t++) {
        struct world *w = world_new(HOSTS, hash_kinds[t]);
        w->policy.lb.maglev_size = 1000; /* neither prime nor large enough: taken as the next prime above twice the endpoints */
        sync(w);
        tally(w, 100000, counts);
        for (uint32_t i = 0; i < HOSTS; i++)
            assert_true(counts[i] > 0);
        if (hash_kinds[t] == LB_MAGLEV)
            assert_int_equal(w->c->whole.maglev_n, 2411);
        world_free(w);
    }
}

/* One hot key: without a bound all go to one, with it nobody exceeds its part, and requests come back when there is room. */
static void test_bounded_load(void **state)
{
    for (size_t t = 0; t < COUNT_OF(hash_kinds); t++) {
        struct world *w = world_new(10, hash_kinds[t]);
        w->policy.lb.bounded_load_pct = 125;
        w->eps[4].weight = 3;
        sync(w);
        int home = pick_hash(w, 99), queue[1000];
        uint64_t random = 5;
        for (uint32_t n = 0; n < 1000; n++) {
            uint32_t hot = chance(&random) % 4 ? 99 : (uint32_t)chance(&random);
            queue[n] = pick_hash(w, hot);
            cluster_begin(w->c, &w->hosts[queue[n]]);
            for (uint32_t i = 0; i < 10; i++)
                assert_true(w->hosts[i].in_flight <= ceil(1.25 * (n + 1) * w->eps[i].weight / 12.0 - 1e-9));
        }
        assert_true(w->c->count->picks_moved > 0);
        assert_int_equal(w->c->count->picks_last, 0);
        for (uint32_t n = 0; n < 1000; n++)
            cluster_end(w->c, &w->hosts[queue[n]]);
        assert_int_equal(pick_hash(w, 99), home);
        world_free(w);
    }
}

static void test_find_by_key(void **state)
{
    for (int checked = 0; checked < 2; checked++) {
        struct world *w = world_new(5, LB_LEAST_REQUEST);
        w->policy.outlier.on = checked;
        w->policy.lb.panic_pct = 0;
        sync(w);
        for (uint32_t i = 0; i < 5; i++)
            assert_ptr_equal(cluster_find(w->c, w->hosts[i].key, w->now_ms), &w->hosts[i]);
        assert_null(cluster_find(w->c, 1, w->now_ms));
        w->hosts[2].shun_until_ms = w->now_ms + 1;
        assert_null(cluster_find(w->c, w->hosts[2].key, w->now_ms));
        assert_non_null(cluster_find(w->c, w->hosts[2].key, w->now_ms + 1));
        w->health[1].ejected_until_ms = w->now_ms + 10;
        assert_int_equal(cluster_find(w->c, w->hosts[1].key, w->now_ms) == NULL, checked);
        world_free(w);
    }
}

/* ---- slow start -------------------------------------------------------------------------------------------------------------------- */

/* Share of the newer of two endpoints, some time after it came. */
static double young_share(struct world *w, uint64_t after_ms)
{
    static uint32_t counts[HOSTS];
    w->now_ms = w->eps[1].since_ms + after_ms;
    tally(w, 20000, counts);
    return counts[1] / 20000.0;
}

static void test_slow_start(void **state)
{
    static const enum lb_kind kinds[] = {LB_ROUND_ROBIN, LB_LEAST_REQUEST};
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        struct world *w = world_new(2, kinds[k]);
        w->policy.lb.slow_start_ms = 60000;
        w->eps[1].since_ms = w->now_ms;
        sync(w);
        /* weight max(10 %, time / window); share weight / (1 + weight) */
        assert_near(young_share(w, 0), 0.1 / 1.1, 0.01);
        assert_near(young_share(w, 15000), 0.25 / 1.25, 0.015);
        assert_near(young_share(w, 30000), 0.5 / 1.5, 0.015);
        assert_false(w->c->plain);
        assert_near(young_share(w, 60000), 0.5, 0.015);
        assert_int_equal(w->c->plain, kinds[k] == LB_LEAST_REQUEST); /* over: nothing is refreshed any more */
        assert_true(w->c->refresh_at_ms == UINT64_MAX);
        w->policy.lb.slow_start_aggression = 2.0; /* sqrt(0.25) */
        sync(w);
        w->eps[1].since_ms = w->now_ms;
        sync(w);
        assert_near(young_share(w, 15000), 0.5 / 1.5, 0.015);
        world_free(w);
    }
}

/* ---- health and panic ----------------------------------------------------------------------------------------------------------------- */

static void test_panic(void **state)
{
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(10, all_kinds[k]);
        w->policy.outlier.on = true;
        sync(w);
        answer_all(w);
        assert_int_equal(distinct(w, 3000), 10);
        for (uint32_t i = 0; i < 5; i++)
            eject_until(w, i, w->now_ms + DAY_MS);
        assert_int_equal(distinct(w, 3000), 5); /* half is not below half */
        assert_false(cluster_in_panic(w->c));
        assert_int_equal(w->c->count->picks_panic, 0);
        eject_until(w, 5, w->now_ms + DAY_MS);
        assert_int_equal(distinct(w, 3000), 10);
        assert_true(cluster_in_panic(w->c));
        assert_int_equal(w->c->count->picks_panic, 3000);
        assert_int_equal(w->c->count->hosts_up, 4);
        assert_int_equal(w->c->count->hosts_ejected, 6);
        world_free(w);
    }
}

static void test_nobody(void **state)
{
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(0, all_kinds[k]);
        w->policy.outlier.on = true;
        w->policy.lb.panic_pct = 0;
        sync(w);
        assert_int_equal(pick(w), -1);
        assert_int_equal(cluster_none(w->c, w->now_ms), LB_NONE_EMPTY);
        w->pc.eps_n = 3;
        sync(w);
        for (uint32_t i = 0; i < 3; i++)
            eject_until(w, i, w->now_ms + 1000);
        assert_int_equal(pick(w), -1);
        assert_int_equal(cluster_none(w->c, w->now_ms), LB_NONE_EJECTED);
        w->health[1].ejected_until_ms = 0;
        w->health[1].unhealthy = 1;
        assert_int_equal(pick(w), -1);
        assert_int_equal(cluster_none(w->c, w->now_ms), LB_NONE_UNHEALTHY);
        assert_true(strlen(lb_none_text(LB_NONE_EJECTED)) && strlen(lb_none_text(LB_NONE_EMPTY)));
        assert_int_equal(w->c->count->picks_none, 3);
        w->now_ms += 2000; /* the other two come back by themselves */
        assert_int_not_equal(pick(w), 1);
        assert_int_equal(w->unejected[0], 1);
        world_free(w);
    }
}

static void test_unchecked(void **state)
{
    struct world *w = world_new(4, LB_ROUND_ROBIN);
    w->policy.health.kind = HEALTH_HTTP;
    for (uint32_t i = 0; i < 4; i++)
        w->health[i].unchecked = 1;
    sync(w);
    assert_int_equal(distinct(w, 100), 4); /* nobody was checked yet: nobody is refused */
    w->health[2].unchecked = 0;
    w->policy.lb.panic_pct = 0;
    w->now_ms += 100;
    assert_int_equal(distinct(w, 100), 1);
    w->health[2].unhealthy = 1;
    w->now_ms += 100;
    assert_int_equal(distinct(w, 100), 3);
    world_free(w);
}

/* An endpoint ejected by another worker is avoided at once, before the next refresh. */
static void test_down_between_refreshes(void **state)
{
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(8, all_kinds[k]);
        w->policy.outlier.on = true;
        sync(w);
        answer_all(w);
        pick(w);
        w->health[5].ejected_until_ms = w->now_ms + 50;
        for (uint32_t n = 0; n < 1000; n++)
            assert_int_not_equal(pick(w), 5);
        world_free(w);
    }
}

static void test_tried_and_shunned(void **state)
{
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        struct world *w = world_new(4, all_kinds[k]);
        sync(w);
        answer_all(w);
        uint64_t ids[4] = {w->eps[0].id, w->eps[1].id, w->eps[2].id, w->eps[3].id};
        for (uint32_t n = 0; n < 500; n++) {
            struct lb_request rq = request(w);
            rq.tried = ids;
            rq.tried_n = 3;
            assert_ptr_equal(cluster_pick(w->c, &rq), &w->hosts[3]);
            rq.tried_n = 4;
            assert_non_null(cluster_pick(w->c, &rq));
        }
        assert_true(w->c->count->picks_last >= 500);
        w->hosts[0].shun_until_ms = w->hosts[1].shun_until_ms = w->now_ms + 1;
        for (uint32_t n = 0; n < 500; n++)
            assert_true(pick(w) >= 2);
        struct lb_request rq = request(w); /* shunned is better than tried */
        rq.tried = ids + 1;
        rq.tried_n = 3;
        assert_ptr_equal(cluster_pick(w->c, &rq), &w->hosts[0]);
        world_free(w);
    }
}

/* ---- locality ----------------------------------------------------------------------------------------------------------------------- */

/* Two levels of 100 endpoints; so many of the first are up. */
static struct world *two_levels(uint32_t up)
{
    struct world *w = world_new(200, LB_LEAST_REQUEST);
    w->policy.outlier.on = true;
    w->locality = "eu/a/1";
    for (uint32_t i = 0; i < 200; i++)
        w->eps[i].locality = i < 100 ? "eu/a/1" : "eu/b/1";
    for (uint32_t i = up; i < 100; i++)
        w->health[i].ejected_until_ms = w->now_ms + DAY_MS;
    sync(w);
    return w;
}

/* The table in Envoy's documentation of priority levels: healthy in the first level -> its share of the traffic. */
static void test_locality_overprovisioning(void **state)
{
    static const struct { uint32_t up, share; } rows[] = {{100, 100}, {72, 100}, {71, 99}, {50, 70}, {25, 35}, {0, 0}};
    static uint32_t counts[HOSTS];
    for (size_t r = 0; r < COUNT_OF(rows); r++) {
        struct world *w = two_levels(rows[r].up);
        uint32_t first = 0;
        tally(w, 20000, counts);
        for (uint32_t i = 0; i < 100; i++)
            first += counts[i];
        assert_int_equal(w->c->groups[0].load, rows[r].share);
        assert_near(first / 20000.0, rows[r].share / 100.0, 0.02);
        for (uint32_t i = rows[r].up; i < 100; i++)
            assert_int_equal(counts[i], 0);
        world_free(w);
    }
}

/* Both levels ill: scores 35 and 35 are scaled to 50 and 50, and both panic; then by numbers of endpoints. */
static void test_locality_panic(void **state)
{
    struct world *w = two_levels(25);
    for (uint32_t i = 125; i < 200; i++)
        w->health[i].ejected_until_ms = w->now_ms + DAY_MS;
    sync(w);
    assert_true(w->c->groups[0].panic && w->c->groups[1].panic);
    assert_int_equal(w->c->groups[0].load, w->c->groups[1].load);
    assert_int_equal(distinct(w, 20000), 200);
    w->policy.lb.panic_pct = 20; /* 25 % are enough: no panic, the load is split */
    sync(w);
    assert_false(cluster_in_panic(w->c));
    assert_int_equal(w->c->groups[0].load, 50);
    assert_int_equal(distinct(w, 20000), 50);
    world_free(w);
}

static void test_locality_order(void **state)
{
    static const char *const where[] = {"eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "asia/a/1"};
    static const struct locality_failover failover = {"eu", "us"};
    struct world *w = world_new(5, LB_ROUND_ROBIN);
    struct lb_policy *lb = &w->policy.lb;
    w->policy.outlier.on = true;
    lb->failover = (struct locality_failover *)&failover;
    lb->failover_n = 1;
    w->locality = "eu/a/1";
    for (uint32_t i = 0; i < 5; i++)
        w->eps[i].locality = where[i];
    sync(w);
    assert_int_equal(w->c->groups_n, 5);
    for (uint32_t i = 0; i < 5; i++) { /* one after the other dies */
        assert_int_equal(distinct(w, 100), 1);
        assert_int_equal(pick(w), i);
        eject_until(w, i, w->now_ms + DAY_MS);
    }
    world_free(w);
    w = world_new(5, LB_ROUND_ROBIN); /* nobody is known to be up, and no failover was asked for: no priorities, as in Istio */
    w->locality = "eu/a/1";
    for (uint32_t i = 0; i < 5; i++)
        w->eps[i].locality = where[i];
    sync(w);
    assert_int_equal(w->c->groups_n, 1);
    w->policy.outlier.on = true;
    sync(w);
    assert_int_equal(w->c->groups_n, 4); /* us and asia alike */
    w->policy.lb.locality_off = true;
    sync(w);
    assert_int_equal(w->c->groups_n, 1);
    world_free(w);
}

static void test_locality_retry_goes_on(void **state)
{
    struct world *w = two_levels(100);
    w->pc.eps_n = 101;
    w->eps[0].locality = "eu/a/1";
    for (uint32_t i = 1; i < 101; i++)
        w->eps[i].locality = "eu/b/1";
    sync(w);
    assert_int_equal(pick(w), 0);
    struct lb_request rq = request(w);
    rq.tried = &w->eps[0].id;
    rq.tried_n = 1;
    assert_true(cluster_pick(w->c, &rq) != &w->hosts[0]); /* better farther away than the same once more */
    world_free(w);
}

static void test_locality_distribute(void **state)
{
    static struct locality_weight weights[] = {{"us/*", "us/*", 100}, {"eu/a/*", "eu/a/*", 80}, {"eu/a/*", "eu/b", 20}};
    static uint32_t counts[HOSTS];
    struct world *w = world_new(30, LB_LEAST_REQUEST);
    w->policy.outlier.on = true;
    w->policy.lb.distribute = weights;
    w->policy.lb.distribute_n = 3;
    w->locality = "eu/a/1";
    for (uint32_t i = 0; i < 30; i++)
        w->eps[i].locality = i < 10 ? "eu/a/1" : i < 20 ? "eu/b/7" : "us/a/1";
    sync(w);
    tally(w, 50000, counts);
    for (uint32_t i = 0; i < 30; i++)
        assert_share(counts[i], 50000, i < 10 ? 0.08 : i < 20 ? 0.02 : 0, 0.15);
    for (uint32_t i = 0; i < 5; i++) /* half of a: it carries 70 % of its share: 56 to 20 */
        eject_until(w, i, w->now_ms + DAY_MS);
    uint32_t a = 0;
    tally(w, 50000, counts);
    for (uint32_t i = 0; i < 10; i++)
        a += counts[i];
    assert_near(a / 50000.0, 56.0 / 76.0, 0.02);
    w->locality = "asia"; /* no entry speaks of this node */
    sync(w);
    assert_int_equal(distinct(w, 20000), 25);
    world_free(w);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------------------- */

static void test_sync(void **state)
{
    uint64_t before = mem_bytes(MEM_PLAN);
    struct world *w = world_new(20, LB_MAGLEV);
    sync(w);
    assert_int_equal(w->asked, 20);
    struct plan_cluster again = w->pc; /* the next plan, nothing changed */
    cluster_sync(w->c, &again, NULL, host_of, w, w->now_ms);
    assert_int_equal(w->asked, 20);
    assert_ptr_equal(w->c->pc, &again);
    assert_int_equal(w->c->count->tables, 1);
    w->pc.eps_n = 19;
    sync(w);
    assert_int_equal(w->asked, 39);
    assert_int_equal(w->c->count->hosts, 19);
    struct cluster_shared other = {0};
    again.shared = &other;
    assert_false(cluster_is(w->c, &again)); /* its slot was given away */
    w->policy.lb.kind = LB_LEAST_REQUEST;
    sync(w);
    assert_true(w->c->plain && !w->c->members); /* equals, never down: only an array */
    world_free(w);
    cluster_drop(NULL);
    assert_int_equal(mem_bytes(MEM_PLAN), before);
}

/* Every kind, sync, health and locality mixed at random: the choice is always in the plan, and usable when anybody is. */
static void test_random_histories(void **state)
{
    static const char *const where[] = {"eu/a/1", "eu/a/2", "eu/b/1", "us/a/1"};
    uint64_t random = 99;
    struct world *w = world_new(1, LB_LEAST_REQUEST);
    for (uint32_t step = 0; step < 3000; step++) {
        uint64_t r = chance(&random);
        if (step % 10 == 0) {
            w->policy.lb.kind = all_kinds[r % COUNT_OF(all_kinds)];
            w->policy.lb.maglev_size = 251;
            w->policy.lb.panic_pct = r >> 8 & 1 ? 50 : 0;
            w->policy.lb.slow_start_ms = r >> 9 & 1 ? 1000 : 0;
            w->policy.lb.bounded_load_pct = r >> 10 & 1 ? 125 : 0;
            w->policy.outlier = (struct outlier_policy){.on = r >> 11 & 1, .consecutive_5xx = 2, .max_ejection_pct = 60, .base_ejection_ms = 30};
            w->locality = r >> 12 & 1 ? "eu/a/1" : "";
            w->pc.eps_n = (uint32_t)(r >> 16) % 12;
            for (uint32_t i = 0; i < w->pc.eps_n; i++) {
                w->eps[i].weight = 1 + (uint32_t)(chance(&random) % (r >> 13 & 1 ? 5 : 1));
                w->eps[i].locality = where[chance(&random) % 4];
                w->eps[i].since_ms = w->now_ms - chance(&random) % 2000;
            }
            sync(w);
        }
        int i = step & 1 ? pick(w) : pick_hash(w, r);
        assert_true(i < (int)w->pc.eps_n);
        assert_true(i >= 0 || w->pc.eps_n == 0 || (w->policy.outlier.on && w->policy.lb.panic_pct == 0));
        if (i >= 0) {
            assert_true(!w->c->checked || cluster_in_panic(w->c) || !host_down(&w->hosts[i], w->now_ms));
            results(w, (uint32_t)i, r >> 20 & 1 ? OUTCOME_5XX : OUTCOME_OK, 1);
            host_latency(&w->hosts[i], r % 1000000, w->now_ms * 1000000);
        }
        w->now_ms += r >> 24 & 15;
        cluster_sweep(w->c, w->now_ms, r);
    }
    world_free(w);
}

/* ---- cost --------------------------------------------------------------------------------------------------------------------------------------- */

static double ns_per_pick(struct world *w)
{
    enum { PICKS = 200000 / REPEAT_PART };
    uint64_t begin = mono_ns(), sum = 0;
    for (uint32_t k = 0; k < PICKS; k++) {
        uint64_t now_ms = w->now_ms + k / 100; /* refreshes are part of the cost */
        struct lb_request rq = {.random = chance(&w->random), .now_ms = now_ms, .now_ns = now_ms * 1000000};
        rq.hash = rq.random;
        rq.hashed = true;
        sum += cluster_pick(w->c, &rq)->id;
    }
    assert_true(sum > 0);
    return (double)(mono_ns() - begin) / PICKS;
}

/* Not a test of speed, which depends on the machine: a figure to look at. */
static void test_cost(void **state)
{
    static const char *const names[] = {"least request", "round robin", "random", "peak EWMA", "ring hash", "Maglev", "least request, all"};
    for (size_t k = 0; k < COUNT_OF(all_kinds); k++) {
        double ns[4];
        for (uint32_t v = 0; v < 4; v++) {
            struct world *w = world_new(v & 1 ? 1000 : 10, all_kinds[k]);
            for (uint32_t i = 0; v >= 2 && i < HOSTS; i++)
                w->eps[i].weight = 1 + i % 7;
            w->policy.outlier.on = v >= 2;
            sync(w);
            answer_all(w);
            ns[v] = ns_per_pick(w);
            world_free(w);
        }
        print_message("    ns per pick, 10 and 1,000 endpoints: %-20s %5.1f %7.1f   weighted, with outliers %5.1f %7.1f\n", names[k], ns[0], ns[1], ns[2], ns[3]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_shares), cmocka_unit_test(test_weighted_shares), cmocka_unit_test(test_extreme_weights),
        cmocka_unit_test(test_least_request_in_flight), cmocka_unit_test(test_two_choices), cmocka_unit_test(test_round_robin_sequence),
        cmocka_unit_test(test_round_robin_smooth), cmocka_unit_test(test_round_robin_heaviest_goes), cmocka_unit_test(test_ewma_arithmetic), cmocka_unit_test(test_ewma_choice),
        cmocka_unit_test(test_ewma_new_host), cmocka_unit_test(test_hash_is_stable), cmocka_unit_test(test_find_cookie_and_query),
        cmocka_unit_test(test_hash_disruption), cmocka_unit_test(test_ring_few), cmocka_unit_test(test_hash_down), cmocka_unit_test(test_hash_many_hosts),
        cmocka_unit_test(test_bounded_load), cmocka_unit_test(test_find_by_key), cmocka_unit_test(test_slow_start), cmocka_unit_test(test_panic),
        cmocka_unit_test(test_nobody), cmocka_unit_test(test_unchecked), cmocka_unit_test(test_down_between_refreshes),
        cmocka_unit_test(test_tried_and_shunned), cmocka_unit_test(test_locality_overprovisioning), cmocka_unit_test(test_locality_panic),
        cmocka_unit_test(test_locality_order), cmocka_unit_test(test_locality_retry_goes_on), cmocka_unit_test(test_locality_distribute),
        cmocka_unit_test(test_sync), cmocka_unit_test(test_random_histories), cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
