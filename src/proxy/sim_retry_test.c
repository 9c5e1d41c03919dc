/* sim_retry_test.c - another attempt: how often, when, of what, and how many at once. In every seed:
 *   - a request is sent at most as often as its route says, and never longer than its timeout;
 *   - what may not be repeated reaches one host once;
 *   - each attempt carries the whole body (the hosts check every byte);
 *   - retries under way never exceed the cluster's limit or budget, as the hosts count them.
 */
#include "sim_world_test.h"

#define SLACK_MS 8 /* for what is on its way, and timers of whole milliseconds */

static struct {
    struct deed (*deed)(const struct visit *v);
    uint32_t again, again_max; /* visits beyond the first of their request, running now; the most so far */
    uint32_t fail_pct;
} R;

static struct deed script(const struct visit *v)
{
    struct deed d = {.delay_ms = 1 + (uint32_t)chance(20), .bytes = 10};
    return R.deed ? R.deed(v) : d;
}

static void start(uint64_t seed, const struct sim_conf *f, uint32_t hosts, const char *more)
{
    memset(&R, 0, sizeof R);
    world_start(seed, f, hosts, more);
    T.script = script;
    T.hosts_h2 = seed & 2;
}

static bool watch(void *ctx)
{
    R.again = 0;
    for (uint32_t i = 0; i < T.visits_n; i++)
        R.again += T.visits[i].nth > 1 && !T.visits[i].over_ms;
    R.again_max = MAX(R.again_max, R.again);
    return all_over(ctx);
}

static void load(uint32_t clients, uint32_t requests, enum h1_method method, uint32_t body_bytes, uint32_t gap_ms)
{
    for (uint32_t i = 0; i < clients; i++) {
        struct client *c = client_start(i % 4 == 3 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 4 == 3 ? 2 : 1;
        c->method = method;
        c->body_bytes = body_bytes;
        c->gap_ms = gap_ms;
        client_go(c);
    }
}

static uint32_t visits_max(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < T.asks_n; i++)
        n = MAX(n, T.asks[i].visits);
    return n;
}

/* refused: a client's own connection to Weir may be refused too; then no host has heard of its request. */
static void assert_answered_unless(bool refused)
{
    for (uint32_t i = 0; i < T.asks_n; i++)
        if (!(refused && T.asks[i].state == ASK_LOST && T.asks[i].visits == 0) && (T.asks[i].state != ASK_ANSWERED || T.asks[i].heads != 1))
            fail_msg("request %u: state %d, %u answers", i, T.asks[i].state, T.asks[i].heads);
}

/* ---- how many at once ------------------------------------------------------------------------------------------------------ */

static void assert_answered(void) { assert_answered_unless(false); }

static struct deed fails(const struct visit *v) { return (struct deed){.status = 503, .delay_ms = 5 + (uint32_t)chance(20), .bytes = 10}; }

/* Everything fails, and everything would be tried again. */
static void budget(uint64_t seed)
{
    uint32_t clients = 20 + (uint32_t)(seed * 11 % 60), pct = 5 + (uint32_t)(seed * 7 % 30), least = (uint32_t)(seed % 5);
    uint32_t active = clients + clients / 4; /* every fourth has two at once */
    bool queue = seed % 3 == 0;              /* most of them wait for a connection */
    struct buf b = {0};
    buf_printf(&b, ROUTE("retries: { attempts: 3, retryOn: \"5xx\", backoff: 2ms }, ") POLICY("connectionPool: { %s }, retryBudget: { percent: %u, minConcurrency: %u }"),
               queue ? "maxConnections: 6" : "maxRequests: 1000000", pct, least);
    buf_addc(&b, 0);
    start(seed, NULL, 4, b.p);
    buf_free(&b);
    R.deed = fails;
    load(clients, 25, H1_GET, 0, 0);
    if (!sim_run(watch, NULL, 600000))
        fail_msg("%u requests are not over", T.open);
    assert_answered();
    uint32_t limit = MAX(active * pct / 100, least);
    if (R.again_max > limit)
        fail_msg("%u retries at once; %u %% of %u requests, or %u, may be", R.again_max, pct, active, least);
    if (limit >= 2)
        assert_true(R.again_max > 0); /* it is used */
    assert_true(counted(&T.proxies[0]->c.retries_over) > 0);
    assert_int_equal(T.visits_n, T.asks_n + counted(&T.proxies[0]->c.retries));
    assert_int_equal(count_status(503), T.asks_n);
}
static void test_budget(void **state) { each_seed(test_repeats(40), budget); }

static void limit(uint64_t seed)
{
    uint32_t most = 1 + (uint32_t)(seed % 7);
    struct buf b = {0};
    buf_printf(&b, ROUTE("retries: { attempts: 2, retryOn: \"5xx\", backoff: 2ms }, ") POLICY("connectionPool: { maxRetries: %u }"), most);
    buf_addc(&b, 0);
    start(seed, NULL, 3, b.p);
    buf_free(&b);
    R.deed = fails;
    load(30, 20, H1_GET, 0, 0);
    if (!sim_run(watch, NULL, 600000))
        fail_msg("%u requests are not over", T.open);
    assert_answered();
    if (R.again_max > most || R.again_max < MIN(most, 2))
        fail_msg("%u retries at once, %u may be", R.again_max, most);
    assert_true(counted(&T.proxies[0]->c.retries_over) > 0 && visits_max() <= 3);
}
static void test_limit(void **state) { each_seed(test_repeats(20), limit); }

/* ---- what ------------------------------------------------------------------------------------------------------------------ */

static struct deed resets(const struct visit *v)
{
    struct deed d = {.kind = chance(100) < R.fail_pct ? DEED_RESET : DEED_ANSWER, .delay_ms = (uint32_t)chance(10), .bytes = 10};
    return d;
}

/* A POST that a host has seen is not sent again, unless the route says so; what is idempotent is. */
static void methods(uint64_t seed)
{
    static const struct { const char *route; enum h1_method method; uint32_t most; } cases[] = {
        {ROUTE(""), H1_POST, 1},
        {ROUTE("retries: { attempts: 3, retryOn: \"connect-failure,refused-stream,503\" }, "), H1_POST, 1},
        {ROUTE("retries: { attempts: 3, retryOn: \"reset\", backoff: 1ms }, "), H1_POST, 4},
        {ROUTE(""), H1_PUT, 3},
        {ROUTE(""), H1_GET, 3},
        {ROUTE("retries: { attempts: 0 }, "), H1_GET, 1},
    };
    const typeof(cases[0]) *k = &cases[seed % COUNT_OF(cases)];
    struct sim_conf f = {.latency_us_min = 10, .latency_us_max = 2000, .split_pct = 30, .short_write_pct = 30, .refuse_pct = seed & 1 ? 5 : 0};
    start(seed, &f, 3, k->route);
    R.deed = resets;
    R.fail_pct = 30;
    load(8, 30, k->method, k->method == H1_GET ? 0 : seed & 4 ? 20000 : 0, 5);
    run_all(600000);
    assert_answered_unless(f.refuse_pct > 0);
    if (visits_max() > k->most || (k->most > 1 && visits_max() == 1))
        fail_msg("%s: sent %u times, %u may be", k->route, visits_max(), k->most);
    for (uint32_t i = 0; i < T.visits_n; i++)
        assert_int_equal(T.visits[i].whole ? T.visits[i].body_bytes : 0, T.visits[i].whole ? T.asks[T.visits[i].id].body_bytes : 0);
    if (k->most == 1 && !f.refuse_pct) /* each reset is the client's to know */
        assert_true(count_status(502) > 0);
}
static void test_methods(void **state) { each_seed(test_repeats(48), methods); }

/* In one piece: no kill can cut it in two. */
static struct deed short_answer(const struct visit *v) { return (struct deed){.delay_ms = (uint32_t)chance(10)}; }

/* Hosts die while a body comes: the next one gets it from the beginning. Above what is kept, it is sent once. */
static void bodies(uint64_t seed)
{
    bool large = seed % 4 == 3;
    uint32_t bytes = large ? 150000 : 1000 + (uint32_t)(seed * 7919 % 60000);
    struct sim_conf f = {.latency_us_min = 10, .latency_us_max = 3000, .split_pct = 40, .short_write_pct = 40};
    start(seed, &f, 4, ROUTE("retries: { attempts: 14, retryOn: \"reset,connect-failure\", backoff: 1ms }, "));
    R.deed = short_answer;
    for (int i = 0; i < 10; i++) {
        struct client *c = client_start(i % 3 == 2 ? HTTP_2 : HTTP_1, 12);
        c->parallel = i % 3 == 2 ? 2 : 1;
        c->method = H1_PUT;
        c->body_bytes = bytes;
        c->slow_ms = 6;
        client_go(c);
    }
    for (uint32_t round = 0; round < 12; round++) {
        sim_run(all_over, NULL, 3 + chance(12));
        uint32_t victim = (uint32_t)chance(4);
        host_kill(victim);
        sim_run(all_over, NULL, chance(20));
        host_live(victim);
    }
    run_all(600000);
    assert_answered();
    uint32_t again = 0;
    for (uint32_t i = 0; i < T.asks_n; i++) {
        again += T.asks[i].visits > 1;
        if (T.asks[i].status != 200)
            assert_true(large && T.asks[i].status == 502);
    }
    for (uint32_t i = 0; i < T.visits_n; i++)
        assert_true(!T.visits[i].whole || T.visits[i].body_bytes == bytes);
    assert_true(again > 0 || large);
}
static void test_bodies(void **state) { each_seed(test_repeats(40), bodies); }

/* ---- when ------------------------------------------------------------------------------------------------------------------ */

static struct deed slow(const struct visit *v)
{
    uint64_t kind = chance(10);
    if (kind < 4)
        return (struct deed){.kind = DEED_SILENT};
    return (struct deed){.delay_ms = (uint32_t)chance(kind < 7 ? 120 : 20), .bytes = 10};
}

/* perTryTimeout ends an attempt, timeout the request: never later, and the host is told. */
static void timeouts(uint64_t seed)
{
    uint32_t each = 30 + (uint32_t)(seed % 40), all = 90 + (uint32_t)(seed * 13 % 150), attempts = 1 + (uint32_t)(seed % 4);
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 600};
    struct buf b = {0};
    buf_printf(&b, ROUTE("timeout: %ums, retries: { attempts: %u, perTryTimeout: %ums, retryOn: \"5xx,reset\", backoff: 5ms }, "), all, attempts, each);
    buf_addc(&b, 0);
    start(seed, &f, 3, b.p);
    buf_free(&b);
    R.deed = slow;
    T.hosts_notice = true;
    load(10, 20, seed & 4 ? H1_PUT : H1_GET, seed & 4 ? 3000 : 0, 10);
    run_all(600000);
    assert_answered();
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        uint64_t took = a->over_ms - a->at_ms;
        if (took > all + SLACK_MS)
            fail_msg("request %u took %llu ms, its timeout is %u", i, (unsigned long long)took, all);
        assert_true(a->visits <= attempts + 1);
        if (a->status == 504 && took + SLACK_MS < all && a->visits <= attempts)
            fail_msg("request %u was given up after %llu ms and %u attempts", i, (unsigned long long)took, a->visits);
        if (a->status != 200)
            assert_int_equal(a->status, 504);
    }
    pass(20);
    for (uint32_t i = 0; i < T.visits_n; i++) {
        const struct visit *v = &T.visits[i];
        if (!v->over_ms || v->over_ms - v->at_ms > each + SLACK_MS)
            fail_msg("an attempt had %llu ms, %u may be", (unsigned long long)(v->over_ms - v->at_ms), each);
    }
    assert_true(count_status(200) > 0 && visits_max() > 1);
}
static void test_timeouts(void **state) { each_seed(test_repeats(30), timeouts); }

static struct deed patient(const struct visit *v) { return (struct deed){.delay_ms = 80000, .bytes = 2000, .rest_ms = 70000}; }
static struct deed thoughtful(const struct visit *v) { return (struct deed){.delay_ms = 80000, .bytes = 2000}; }

/* 0s is no limit, neither until the head of an answer nor for a pause inside it; a perTryTimeout stands above the usual limit. */
static void untimed(uint64_t seed)
{
    bool none = seed & 1;
    start(seed, NULL, 2, none ? ROUTE("timeout: 0s, ") : ROUTE("retries: { attempts: 2, perTryTimeout: 90s, retryOn: 5xx }, "));
    R.deed = none ? patient : thoughtful;
    load(4, 2, H1_GET, 0, 20);
    run_all(1000000);
    assert_answered();
    assert_int_equal(count_status(200), T.asks_n);
    assert_int_equal(visits_max(), 1);
    for (uint32_t i = 0; i < T.asks_n; i++)
        assert_true(T.asks[i].state == ASK_ANSWERED && T.asks[i].got == 2000);
}
static void test_untimed(void **state) { each_seed(test_repeats(8), untimed); }

static struct deed late(const struct visit *v) { return (struct deed){.delay_ms = 60 + (uint32_t)chance(80), .bytes = 10}; }

/* The time for connecting is not the time for an answer, on new connections and kept ones, of either version. */
static void slower_than_connecting(uint64_t seed)
{
    start(seed, NULL, 2, seed & 2 ? ROUTE("") POLICY("connectionPool: { http: HTTP2, connectTimeout: 30ms }") : ROUTE("") POLICY("connectionPool: { connectTimeout: 30ms }"));
    R.deed = late;
    load(6, 8, seed & 1 ? H1_POST : H1_GET, seed & 1 ? 2000 : 0, 20);
    run_all(60000);
    assert_answered();
    assert_int_equal(count_status(200), T.asks_n);
    assert_int_equal(visits_max(), 1);
    assert_int_equal(counted(&T.proxies[0]->c.timeouts_connect), 0);
}
static void test_slower_than_connecting(void **state) { each_seed(test_repeats(8), slower_than_connecting); }

/* Between two attempts: at least the base, at most base * 2^n and ten times the base, and never all alike. */
static void backoff(uint64_t seed)
{
    uint32_t base = 10 + (uint32_t)(seed % 30);
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 200};
    struct buf b = {0};
    buf_printf(&b, ROUTE("retries: { attempts: 5, retryOn: \"5xx\", backoff: %ums }, "), base);
    buf_addc(&b, 0);
    start(seed, &f, 3, b.p);
    buf_free(&b);
    R.deed = fails;
    load(6, 8, H1_GET, 0, 20);
    run_all(600000);
    uint64_t shortest[8], longest[8] = {0}, ended[64 * 8] = {0};
    memset(shortest, 0xff, sizeof shortest);
    assert_true(T.asks_n <= COUNT_OF(ended));
    for (uint32_t i = 0; i < T.visits_n; i++) {
        const struct visit *v = &T.visits[i];
        uint64_t gap = v->at_ms - ended[v->id];
        ended[v->id] = v->over_ms;
        if (v->nth == 1)
            continue;
        uint64_t top = MIN((uint64_t)base << (v->nth - 1), 10ull * base);
        if (gap + 2 < base || gap > top + SLACK_MS)
            fail_msg("attempt %u came %llu ms after the one before; base %u, at most %llu", v->nth, (unsigned long long)gap, base, (unsigned long long)top);
        shortest[v->nth] = MIN(shortest[v->nth], gap);
        longest[v->nth] = MAX(longest[v->nth], gap);
    }
    assert_int_equal(visits_max(), 6);
    for (uint32_t n = 3; n <= 6; n++)
        if (longest[n] - shortest[n] < base)
            fail_msg("attempt %u: all came after %llu to %llu ms", n, (unsigned long long)shortest[n], (unsigned long long)longest[n]);
}
static void test_backoff(void **state) { each_seed(test_repeats(20), backoff); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget), cmocka_unit_test(test_limit),    cmocka_unit_test(test_methods),
        cmocka_unit_test(test_bodies), cmocka_unit_test(test_timeouts), cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_slower_than_connecting), cmocka_unit_test(test_untimed),
    };
    log_start(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
