/* sim_drain_test.c - leaving without loss, in every seed:
 *   - replicas that a plan takes away while requests are on their way: none is lost, and endpoint_left() is told once, when the last is over;
 *   - an engine that leaves while another serves (proxy_leave): what it has accepted it answers, clients of HTTP/1 hear it in an answer or are
 *     closed at rest, those of HTTP/2 by GOAWAY, and in the end it has no connection;
 *   - a gateway that drains (proxy_drain) does so in its time.
 * All memory is back at the end of each world.
 */
#include "sim_world_test.h"

static struct {
    uint32_t slow_ms;
} D;

static struct deed script(const struct visit *v)
{
    struct deed d = {.delay_ms = (uint32_t)chance(D.slow_ms), .bytes = (uint32_t)chance(3) * 20000 + 10};
    if (chance(3) == 0)
        d.rest_ms = 1 + (uint32_t)chance(D.slow_ms);
    return d;
}

static void start(uint64_t seed, const struct sim_conf *f, uint32_t hosts, const char *policy)
{
    struct buf b = {0};
    memset(&D, 0, sizeof D);
    D.slow_ms = 20;
    buf_printf(&b, ROUTE("") POLICY("connectionPool: { http: %s }%s"), seed & 2 ? "HTTP2" : "HTTP1", policy);
    buf_addc(&b, 0);
    world_start(seed, f, hosts, b.p);
    buf_free(&b);
    T.script = script;
    T.hosts_h2 = seed & 2;
}

static void clients(uint32_t n, uint32_t requests, uint32_t gap_ms)
{
    for (uint32_t i = 0; i < n; i++) {
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 2 ? 3 : 1;
        c->gap_ms = i % 3 ? gap_ms : 0;
        if (i % 5 == 4) {
            c->method = H1_POST;
            c->body_bytes = 30000;
            c->slow_ms = 15;
        }
        client_go(c);
    }
}

static void assert_all_answered(void)
{
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state != ASK_ANSWERED || a->status != 200)
            fail_msg("request %u: state %d, status %u, %u visits", i, a->state, a->status, a->visits);
    }
}

/* ---- replicas ---------------------------------------------------------------------------------------------------------------- */

/* One after the other leaves the plan; when all that goes there is over, and not before, it ends. */
static void replicas(uint64_t seed)
{
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 1500, .split_pct = (uint32_t)(seed % 3) * 20, .short_write_pct = (uint32_t)(seed % 2) * 30};
    start(seed, &f, 4, seed & 4 ? ", outlierDetection: {}" : "");
    clients(10, 30, 10);
    for (uint32_t round = 0; round < 8; round++) {
        uint32_t gone = round % 4, left = T.left;
        sim_run(all_over, NULL, 5 + chance(15));
        world_plan(15u & ~(1u << gone));
        for (int i = 0; i < 2000 && T.left == left; i++)
            pass(1);
        assert_int_equal(T.left, left + 1);
        if (!(seed & 2)) /* HTTP/2: its last answers may still be on their way to the proxy's peers, never to the proxy */
            assert_int_equal(T.hosts[gone].running, 0);
        host_kill(gone);
        pass(chance(10));
        host_live(gone);
        world_plan(15);
    }
    run_all(60000);
    assert_all_answered();
    assert_int_equal(T.left, 8);
}
static void test_replicas(void **state) { each_seed(test_repeats(60), replicas); }

/* A worker that never sent a request there lets go of it too. */
static void replicas_unused(uint64_t seed)
{
    start(seed, NULL, 4, "");
    pass(5);
    world_plan(14);
    pass(5);
    assert_int_equal(T.left, 1);
    world_plan(14);
    world_plan(15);
    pass(5);
    assert_int_equal(T.left, 1);
    world_plan(3);
    pass(5);
    assert_int_equal(T.left, 3);
}
static void test_replicas_unused(void **state) { each_seed(2, replicas_unused); }

/* Hedges, retries and requests that wait for a connection are under way too when their replica leaves. */
static void replicas_policies(uint64_t seed)
{
    start(seed, NULL, 3, seed & 1 ? ", hedging: { delay: 5ms, maxRequests: 2 }" : ", retryBudget: { percent: 50 }, outlierDetection: {}");
    clients(10, 20, 5);
    for (uint32_t round = 0; round < 10; round++) {
        sim_run(all_over, NULL, 2 + chance(10));
        world_plan((uint32_t)(1 + chance(7))); /* any of the three, at least one */
    }
    world_plan(7);
    run_all(60000);
    assert_all_answered();
    assert_true(T.left > 0);
}
static void test_replicas_policies(void **state) { each_seed(test_repeats(40), replicas_policies); }

/* ---- an engine leaves -------------------------------------------------------------------------------------------------------- */

static void on_drained(void *ctx) { *(bool *)ctx = true; }

/* In life both engines have the same listening socket; here each has its own, so the one that nobody accepts from any more is closed. */
static void leave(void)
{
    proxy_leave(T.proxies[0], 30000, on_drained, &T.drained[0]);
    proxy_unlisten(T.proxies[0], T.plan->listeners[0].token);
}

static bool drained(void *ctx) { return all_over(NULL) && T.drained[0]; }

/* What was not answered was not accepted: no host has seen it, and it was not the connection's first request. */
static void assert_none_lost(void)
{
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state == ASK_ANSWERED && a->status == 200)
            continue;
        if (a->state != ASK_LOST || a->visits)
            fail_msg("request %u: state %d, status %u, %u visits", i, a->state, a->status, a->visits);
    }
}

static void leaves(uint64_t seed)
{
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 1000, .split_pct = (uint32_t)(seed % 3) * 20, .short_write_pct = (uint32_t)(seed % 2) * 30};
    start(seed, &f, 3, "");
    D.slow_ms = 60;
    clients(12, 40, 30);
    for (uint32_t i = 0; i < 4; i++) { /* these rest for longer than a leaving engine waits */
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, 4);
        c->parallel = 1;
        c->gap_ms = 9000;
        client_go(c);
    }
    for (uint32_t i = 0; i < 2; i++) { /* and these would never end by themselves */
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, 500);
        c->parallel = 1;
        c->gap_ms = 40;
        client_go(c);
    }
    pass(20 + chance(200));
    struct proxy *next = proxy_more();
    uint64_t before = counted(&T.proxies[0]->c.connections_total), t0 = sim_now_ms();
    leave();
    while (!T.drained[0] && sim_now_ms() - t0 < 40000)
        sim_run(drained, NULL, 50);
    assert_true(T.drained[0]);
    if (sim_now_ms() - t0 > PROXY_REST_MS + 3000)
        fail_msg("it took %llu ms to leave", (unsigned long long)(sim_now_ms() - t0));
    assert_int_equal(T.proxies[0]->downs_n, 0);
    assert_in_range(counted(&T.proxies[0]->c.connections_total), before, before + 18); /* those in its backlog; no others */
    run_all(120000);
    assert_none_lost();
    assert_true(counted(&next->c.connections_total) > 0);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < T.asks_n; i++)
        lost += T.asks[i].state == ASK_LOST;
    assert_in_range(lost, 0, 4); /* met its connection's end at rest (RFC 9112 section 9.5), or was not accepted yet */
}
static void test_leaves(void **state) { each_seed(test_repeats(60), leaves); }

/* Connections at rest: HTTP/2 hears GOAWAY and is closed, HTTP/1 is closed after PROXY_REST_MS; nobody who asks in time is refused. */
static void rests(uint64_t seed)
{
    start(seed, NULL, 2, "");
    for (uint32_t i = 0; i < 8; i++) {
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, 2);
        c->parallel = 1;
        c->once = true;
        c->gap_ms = 1;
        client_go(c);
    }
    while (T.open > 8)
        pass(1);
    for (uint32_t i = 0; i < T.clients_n; i++)
        timer_clear(&T.clients[i]->next); /* they rest, with one request left */
    pass(100);
    uint64_t t0 = sim_now_ms();
    proxy_more();
    leave();
    pass(1000 + chance(2000));
    for (uint32_t i = 0; i < 4; i++)
        timer_set(T.client_loop, &T.clients[i]->next, 0); /* these ask once more, in time */
    D.slow_ms = 300;
    for (uint32_t i = 4; i < 6; i++) /* and these so late that their answers are under way when the others are closed */
        timer_set(T.client_loop, &T.clients[i]->next, t0 + PROXY_REST_MS - 10 - sim_now_ms());
    while (!T.drained[0] && sim_now_ms() - t0 < 40000)
        pass(10);
    assert_true(sim_now_ms() - t0 <= PROXY_REST_MS + 3000);
    pass(100); /* the last connection's end is on its way to its client */
    for (uint32_t i = 0; i < T.clients_n; i++) {
        assert_int_equal(T.clients[i]->connections, 1);
        assert_false(T.clients[i]->open);
    }
    assert_true(T.asks_n >= 8 + 3); /* HTTP/1's; those of HTTP/2 had been told to ask elsewhere */
    assert_none_lost();
}
static void test_rests(void **state) { each_seed(test_repeats(20), rests); }

/* ---- a gateway drains ---------------------------------------------------------------------------------------------------------- */

static void drains(uint64_t seed)
{
    bool late = seed % 3 == 0; /* some answers take longer than it may */
    start(seed, NULL, 3, "");
    D.slow_ms = late ? 4000 : 100;
    clients(12, 3, 5);
    for (uint32_t i = 0; i < T.clients_n; i++)
        T.clients[i]->once = true;
    pass(10 + chance(60));
    uint64_t t0 = sim_now_ms();
    proxy_drain(T.proxies[0], 1500, on_drained, &T.drained[0]);
    while (!T.drained[0] && sim_now_ms() - t0 < 10000)
        pass(10);
    assert_true(T.drained[0] && sim_now_ms() - t0 <= 1520);
    assert_int_equal(T.proxies[0]->outside_n, 0);
    pass(20);
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state == ASK_ANSWERED ? a->status != 200 : !late && (a->state != ASK_LOST || a->visits))
            fail_msg("request %u: state %d, status %u, %u visits", i, a->state, a->status, a->visits);
    }
}
/* Who is answered while it drains, or an engine leaves, hears that it was the last, and is not waited for. */
static void told(uint64_t seed)
{
    start(seed, NULL, 2, "");
    D.slow_ms = 200;
    for (uint32_t i = 0; i < 8; i++) {
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, 2);
        c->parallel = 1;
        c->once = true;
        client_go(c);
        c->gap_ms = 100000; /* between the two */
    }
    pass(3);
    uint64_t t0 = sim_now_ms();
    if (seed & 1)
        leave();
    else
        proxy_drain(T.proxies[0], 5000, on_drained, &T.drained[0]);
    while (!T.drained[0] && sim_now_ms() - t0 < 10000)
        pass(1);
    if (sim_now_ms() - t0 > 450)
        fail_msg("it took %llu ms", (unsigned long long)(sim_now_ms() - t0));
    pass(5); /* its last bytes are on their way */
    assert_int_equal(T.asks_n, 8);
    assert_all_answered();
}
static void test_told(void **state) { each_seed(test_repeats(20), told); }
static void test_drains(void **state) { each_seed(test_repeats(40), drains); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replicas), cmocka_unit_test(test_replicas_unused),
        cmocka_unit_test(test_replicas_policies), cmocka_unit_test(test_leaves), cmocka_unit_test(test_rests), cmocka_unit_test(test_drains), cmocka_unit_test(test_told),
    };
    log_start(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
