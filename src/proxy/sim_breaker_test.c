/* sim_breaker_test.c - circuit breakers, as the hosts behind them count: never more connections, requests or waiting requests at once than
 * the policy allows; who is let in is answered, who is not hears so at once; and nothing that is allowed lies idle while others wait.
 */
#include "sim_world_test.h"

/* All segments take equally long: what the proxy ends before it begins the next is seen in that order. */
static const struct sim_conf even = {.latency_us_min = 200, .latency_us_max = 200};

static struct {
    uint32_t delay_ms, fail_pct, silent_pct;
} B;

static struct deed script(const struct visit *v)
{
    struct deed d = {.delay_ms = 1 + (uint32_t)chance(B.delay_ms), .bytes = 100};
    uint64_t n = chance(100);
    d.kind = n < B.fail_pct ? DEED_RESET : n < B.fail_pct + B.silent_pct ? DEED_SILENT : DEED_ANSWER;
    return d;
}

static void start(uint64_t seed, uint32_t hosts, const char *route, const char *fmt, ...) PRINTF_LIKE(4, 5);
static void start(uint64_t seed, uint32_t hosts, const char *route, const char *fmt, ...)
{
    char spec[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(spec, sizeof spec, fmt, ap);
    va_end(ap);
    struct buf b = {0};
    memset(&B, 0, sizeof B);
    B.delay_ms = 10;
    buf_printf(&b, "%s" POLICY("%s"), route, spec);
    buf_addc(&b, 0);
    world_start(seed, &even, hosts, b.p);
    buf_free(&b);
    T.script = script;
    T.hosts_notice = true;
}

static void load(uint32_t clients, uint32_t requests, enum h1_method method)
{
    for (uint32_t i = 0; i < clients; i++) {
        struct client *c = client_start(i % 4 == 3 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 4 == 3 ? 4 : 1;
        c->method = method;
        c->gap_ms = i % 3;
        client_go(c);
    }
}

static void assert_answered(uint16_t but)
{
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state != ASK_ANSWERED || (a->status != 200 && a->status != but))
            fail_msg("request %u: state %d, status %u after %llu ms", i, a->state, a->status, (unsigned long long)(a->over_ms - a->at_ms));
        if (a->status == 503 && but == 503)
            assert_true(a->visit == NO_VISIT);
    }
}

/* Whoever balances, however many endpoints: all requests are answered over so few connections, and without long waiting. */
static void connections(uint64_t seed)
{
    static const char *const balancers[] = {"LeastRequest", "RoundRobin", "Random", "PeakEWMA", "RingHash, hash: { header: x-id }"};
    uint32_t most = 1 + (uint32_t)(seed % 6), hosts = 1 + (uint32_t)(seed / 6 % 6);
    bool h2 = seed % 4 == 3;
    start(seed, hosts, ROUTE(""), "loadBalancer: { algorithm: %s }, connectionPool: { maxConnections: %u%s%s }", balancers[seed % COUNT_OF(balancers)], most,
          h2 ? ", http: HTTP2, maxConcurrentStreams: 2" : "", seed % 5 == 4 ? ", maxRequestsPerConnection: 3" : "");
    T.hosts_h2 = h2;
    B.fail_pct = seed % 7 == 6 ? 5 : 0;
    load(16, 20, H1_GET);
    run_all(600000);
    if (T.connections_max > most)
        fail_msg("%u connections at once, %u may be", T.connections_max, most);
    assert_int_equal(T.connections_max, most); /* there was work for all of them */
    assert_answered(B.fail_pct ? 502 : 200);
    uint64_t longest = 0;
    for (uint32_t i = 0; i < T.asks_n; i++)
        longest = MAX(longest, T.asks[i].over_ms - T.asks[i].at_ms);
    /* 28 at once, 6 ms each on the average: nobody waits much longer than for all that were before it */
    if (longest > 2000 / most + 500)
        fail_msg("a request took %llu ms with %u connections", (unsigned long long)longest, most);
}
static void test_connections(void **state) { each_seed(test_repeats(60), connections); }

/* Hosts come and go under it. */
static void connections_churn(uint64_t seed)
{
    uint32_t most = 2 + (uint32_t)(seed % 4);
    start(seed, 4, ROUTE("retries: { attempts: 10, retryOn: \"reset,connect-failure\", backoff: 1ms }, "), "connectionPool: { maxConnections: %u }", most);
    load(12, 25, H1_GET);
    for (int round = 0; round < 10; round++) {
        uint32_t victim = (uint32_t)chance(4);
        sim_run(all_over, NULL, 5 + chance(20));
        world_plan(15u & ~(1u << victim));
        sim_run(all_over, NULL, chance(30));
        if (chance(2)) {
            host_kill(victim);
            host_live(victim);
        }
        world_plan(15);
    }
    run_all(600000);
    if (T.connections_max > most)
        fail_msg("%u connections at once, %u may be", T.connections_max, most);
    assert_answered(200);
}
static void test_connections_churn(void **state) { each_seed(test_repeats(30), connections_churn); }

static uint64_t hedged;

/* Requests in flight, with whatever Weir sends besides: hedges and retries. */
static void requests(uint64_t seed)
{
    uint32_t most = 2 + (uint32_t)(seed % 9);
    bool hedges = seed & 1;
    start(seed, 3, ROUTE("retries: { attempts: 2, retryOn: \"reset\", backoff: 1ms }, "), "connectionPool: { maxRequests: %u%s }%s", most, seed & 2 ? ", http: HTTP2" : "",
          hedges ? ", hedging: { delay: 8ms, maxRequests: 2 }" : "");
    T.hosts_h2 = seed & 2;
    B.delay_ms = 30;
    B.fail_pct = seed % 3 ? 0 : 10;
    load(12, 25, H1_GET);
    run_all(600000);
    if (T.running_max > most)
        fail_msg("%u requests at once, %u may be", T.running_max, most);
    assert_int_equal(T.running_max, most);
    uint32_t refused = 0;
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        assert_true(a->state == ASK_ANSWERED && (a->status == 200 || a->status == 502 || a->status == 503));
        if (a->status == 503 && a->over_ms - a->at_ms > 3)
            fail_msg("request %u was refused after %llu ms", i, (unsigned long long)(a->over_ms - a->at_ms));
        assert_true(a->status != 502 || B.fail_pct);
        refused += a->status == 503;
    }
    assert_true(refused > 0 && count_status(200) > 0);
    hedged += counted(&T.proxies[0]->c.hedges);
}
static void test_requests(void **state)
{
    hedged = 0;
    each_seed(test_repeats(40), requests);
    assert_true(hedged > 0);
}

/* So many are at work, so many wait, the others hear 503 at once. */
static void pending(uint64_t seed)
{
    uint32_t work = 1 + (uint32_t)(seed % 4), wait = 1 + (uint32_t)(seed * 5 % 11), clients = work + wait + 1 + (uint32_t)(seed % 6);
    start(seed, 1 + (uint32_t)(seed % 3), ROUTE(""), "connectionPool: { maxConnections: %u, maxPendingRequests: %u }", work, wait);
    B.delay_ms = 1;
    B.silent_pct = 100;
    bool burst = seed & 1;
    for (uint32_t i = 0; i < clients; i++) {
        client_go(client_start(HTTP_1, 1));
        pass(burst ? 0 : 20);
    }
    pass(60); /* sockets come, connections are made */
    /* while the first connections are made, those who wait for them count as waiting too */
    uint32_t refused = count_status(503);
    assert_in_range(T.running, burst ? MIN(work, wait) : work, work);
    assert_in_range(refused, clients - work - wait, burst ? clients - wait : clients - work - wait);
    assert_int_equal(T.open, clients - refused);
    for (uint32_t h = 0; h < T.hosts_n; h++) /* who was at work fails: who waited gets their places */
        host_kill(h), host_live(h);
    B.silent_pct = 0;
    run_all(10000);
    assert_answered(503);
    assert_true(T.connections_max <= work);
}
static void test_pending(void **state) { each_seed(test_repeats(30), pending); }

/* All are at work for ever: who waits gives up when an answer would be late, with or without a timeout of the route. */
static void gives_up(uint64_t seed)
{
    bool timed = seed & 1;
    start(seed, 2, timed ? ROUTE("timeout: 700ms, ") : ROUTE(""), "connectionPool: { maxConnections: 1, connectTimeout: %s }", seed & 2 ? "4ms" : "1s");
    B.silent_pct = 100;
    for (uint32_t i = 0; i < 5; i++)
        client_go(client_start(HTTP_1, 1));
    run_all(130000);
    assert_int_equal(T.connections_max, 1);
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        uint64_t took = a->over_ms - a->at_ms;
        assert_true(a->state == ASK_ANSWERED && a->visit == NO_VISIT && a->status == 504);
        if (timed ? took < 700 || took > 720 : took > 121000)
            fail_msg("request %u gave up after %llu ms", i, (unsigned long long)took);
    }
}
static void test_gives_up(void **state) { each_seed(test_repeats(8), gives_up); }

/* A mirror that waits as the last of all goes with its parent, which waits in front: the others' turn comes to its end. */
static void mirror_waits(uint64_t seed)
{
    const uint32_t most = 100;
    start(seed, 1, ROUTE("mirror: { host: svc, port: { number: 80 } }, "), "connectionPool: { maxConnections: 1, maxPendingRequests: %u }", most);
    B.silent_pct = 100;
    client_go(client_start(HTTP_1, 1));
    pass(100);
    struct client *c = client_start(HTTP_1, 1);
    c->method = H1_POST;
    c->body_bytes = 1000;
    c->slow_ms = 2000;
    client_go(c);
    pass(100);
    client_go(client_start(HTTP_1, 1));
    pass(100);
    struct upstream *us = NULL;
    struct exchange *parent = NULL, *mirror = NULL;
    for (uint32_t s = 0; s < T.proxies[0]->upstreams_n && !us; s++)
        us = T.proxies[0]->upstreams[s];
    LIST_FOREACH(l, &us->waiting) {
        struct exchange *x = CONTAINER_OF(l, struct exchange, pending);
        if (!x->request_end)
            *(x->role == X_MIRROR ? &mirror : &parent) = x;
    }
    assert_true(parent && mirror && us->c->shared->pending < most);
    list_del(&parent->pending);
    list_push_front(&us->waiting, &parent->pending);
    list_del(&mirror->pending);
    list_push(&us->waiting, &mirror->pending);
    uint32_t others = most + 1 - us->c->shared->pending; /* of other workers: one too many, until the first gives up */
    us->c->shared->pending += others;
    pass(30);
    us->c->shared->pending -= others;
    assert_int_equal(count_status(503), 1);
    assert_false(list_empty(&us->waiting));
    B.silent_pct = 0;
    host_kill(0);
    host_live(0);
    run_all(10000);
    assert_answered(503);
    pass(5000); /* mirrors too */
}
static void test_mirror_waits(void **state) { each_seed(4, mirror_waits); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections), cmocka_unit_test(test_connections_churn), cmocka_unit_test(test_requests), cmocka_unit_test(test_pending), cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_mirror_waits),
    };
    log_start(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
