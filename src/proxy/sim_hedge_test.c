/* sim_hedge_test.c - hedges: a second attempt beside a slow first one. In every seed:
 *   - the client gets one answer, the first that any host gave, and Weir waits for no slower one;
 *   - the others are given up, and their hosts hear it;
 *   - no hedge begins before its time, there are never more than allowed, and they go elsewhere;
 *   - what may not be repeated is never hedged;
 *   - a hedge may answer though the time of the first try is over;
 *   - the counters say what the hosts have seen.
 */
#include "sim_world_test.h"

#define SLACK_MS 6

static struct {
    uint32_t delay_ms, most, slow_ms, silent_pct, reset_pct;
} H;

static struct deed script(const struct visit *v)
{
    uint64_t n = chance(100);
    struct deed d = {.delay_ms = 1 + (uint32_t)chance(n < 50 ? 5 : H.slow_ms), .bytes = n % 3 ? 50 : 9000};
    d.kind = n < H.reset_pct ? DEED_RESET : n < H.reset_pct + H.silent_pct ? DEED_SILENT : DEED_ANSWER;
    if (n % 3 == 0)
        d.rest_ms = 5; /* its body goes on after it has won */
    return d;
}

static void start(uint64_t seed, const struct sim_conf *f, uint32_t hosts, const char *route)
{
    struct buf b = {0};
    memset(&H, 0, sizeof H);
    H.delay_ms = 10 + (uint32_t)(seed % 30);
    H.most = 1 + (uint32_t)(seed % 3);
    H.slow_ms = 60;
    buf_printf(&b, "%s" POLICY("hedging: { delay: %ums, maxRequests: %u }%s"), route, H.delay_ms, H.most, seed & 2 ? ", connectionPool: { http: HTTP2 }" : "");
    buf_addc(&b, 0);
    world_start(seed, f, hosts, b.p);
    buf_free(&b);
    T.script = script;
    T.hosts_h2 = seed & 2;
    T.hosts_notice = true;
}

static void load(uint32_t clients, uint32_t requests, enum h1_method method, uint32_t body_bytes)
{
    for (uint32_t i = 0; i < clients; i++) {
        struct client *c = client_start(i % 3 == 2 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 3 == 2 ? 4 : 1;
        c->method = method;
        c->body_bytes = body_bytes;
        c->gap_ms = 10;
        client_go(c);
    }
    run_all(600000);
}

/* Each ask with its visits. */
static void judge(bool elsewhere)
{
    uint64_t first[4096], first_at[4096];
    uint32_t where[4096], hedges = 0, won = 0;
    assert_true(T.asks_n <= COUNT_OF(first));
    memset(first, 0xff, sizeof first);
    for (uint32_t i = 0; i < T.visits_n; i++) {
        const struct visit *v = &T.visits[i];
        const struct ask *a = &T.asks[v->id];
        if (v->nth == 1) {
            where[v->id] = v->host;
            first_at[v->id] = v->at_ms;
        } else {
            hedges++;
            if (v->at_ms + 2 < first_at[v->id] + (uint64_t)H.delay_ms * (v->nth - 1))
                fail_msg("hedge %u of request %u came %llu ms after the first; the delay is %u", v->nth - 1, v->id, (unsigned long long)(v->at_ms - first_at[v->id]), H.delay_ms);
            if (elsewhere && v->nth == 2)
                assert_true(v->host != where[v->id]);
        }
        if (v->answered)
            first[v->id] = MIN(first[v->id], v->over_ms);
        if (!v->over_ms || v->over_ms > a->over_ms + SLACK_MS)
            fail_msg("request %u was over, and host %u still at work for it", v->id, v->host);
    }
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state != ASK_ANSWERED || a->heads != 1 || a->status != 200)
            fail_msg("request %u: state %d, %u answers, status %u", i, a->state, a->heads, a->status);
        assert_true(a->visits <= 1 + H.most && a->visit != NO_VISIT && T.visits[a->visit].answered && T.visits[a->visit].id == i);
        won += T.visits[a->visit].nth > 1;
        if (a->over_ms > first[i] + SLACK_MS)
            fail_msg("request %u was answered by a host %llu ms before its client was", i, (unsigned long long)(a->over_ms - first[i]));
    }
    assert_in_range(counted(&T.proxies[0]->c.hedges), hedges, hedges + T.asks_n / 20); /* one may be given up before it has arrived */
    assert_int_equal(counted(&T.proxies[0]->c.hedges_won), won);
    if (!hedges || !won)
        fail_msg("%u hedges, %u of them won", hedges, won);
}

static void first_wins(uint64_t seed)
{
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 500, .split_pct = seed % 2 ? 20 : 0};
    start(seed, &f, 3, ROUTE(""));
    load(8, 25, seed % 4 == 1 ? H1_PUT : H1_GET, seed % 4 == 1 ? 5000 : 0);
    pass(20);
    judge(true);
}
static void test_first_wins(void **state) { each_seed(test_repeats(40), first_wins); }

/* The first host never answers, or breaks off: the hedge is the answer. Nobody has to wait for a timeout. */
static void silent(uint64_t seed)
{
    start(seed, NULL, 4, ROUTE("retries: { attempts: 8, retryOn: \"reset\", backoff: 1ms }, "));
    H.most = 3;
    H.silent_pct = 15;
    H.reset_pct = seed & 1 ? 15 : 0;
    load(8, 25, H1_GET, 0);
    uint32_t slow = 0;
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state == ASK_ANSWERED && a->heads == 1 && a->status == 504)
            slow++; /* all its attempts met silence */
        else if (a->state != ASK_ANSWERED || a->heads != 1 || a->status != 200)
            fail_msg("request %u: state %d, %u answers, status %u", i, a->state, a->heads, a->status);
    }
    assert_in_range(slow, 0, T.asks_n / 20);
    pass(20);
    for (uint32_t i = 0; i < T.visits_n; i++)
        if (!T.visits[i].over_ms)
            fail_msg("host %u is still at work for request %u", T.visits[i].host, T.visits[i].id);
}
static void test_silent(void **state) { each_seed(test_repeats(30), silent); }

/* Without a retry policy a POST reaches one host once, however slow: with a body, without one, over a new connection or a kept one. */
static void not_repeated(uint64_t seed)
{
    start(seed, NULL, 3, ROUTE(""));
    load(8, 15, H1_POST, seed % 3 == 0 ? 0 : seed % 3 == 1 ? 100 : 30000);
    for (uint32_t i = 0; i < T.asks_n; i++)
        assert_true(T.asks[i].state == ASK_ANSWERED && T.asks[i].status == 200 && T.asks[i].visits == 1);
    assert_int_equal(counted(&T.proxies[0]->c.hedges), 0);
}
static void test_not_repeated(void **state) { each_seed(test_repeats(24), not_repeated); }

static struct deed script_late(const struct visit *v)
{
    return (struct deed){.kind = v->nth == 1 ? DEED_SILENT : DEED_ANSWER, .delay_ms = 75, .bytes = 50};
}

/* The time of the first try is over, and it may not be repeated: its hedge has a time of its own, and is waited for. */
static void outlives(uint64_t seed)
{
    start(seed, NULL, 3, ROUTE("retries: { attempts: 1, perTryTimeout: 80ms, retryOn: connect-failure }, "));
    T.script = script_late;
    load(4, 10, H1_POST, seed % 3 == 0 ? 0 : 100);
    for (uint32_t i = 0; i < T.asks_n; i++)
        if (T.asks[i].state != ASK_ANSWERED || T.asks[i].heads != 1 || T.asks[i].status != 200)
            fail_msg("request %u: state %d, %u answers, status %u", i, T.asks[i].state, T.asks[i].heads, T.asks[i].status);
    pass(20);
    assert_int_equal(counted(&T.proxies[0]->c.requests_now), 0);
}
static void test_outlives(void **state) { each_seed(test_repeats(20), outlives); }

/* Clients that leave take their hedges with them. */
static void left(uint64_t seed)
{
    start(seed, NULL, 3, ROUTE(""));
    H.silent_pct = 60;
    for (uint32_t i = 0; i < 10; i++) {
        struct client *c = client_start(HTTP_2, 4);
        c->once = true;
        client_go(c);
    }
    sim_run(all_over, NULL, H.delay_ms * 2 + 15);
    assert_true(counted(&T.proxies[0]->c.hedges) > 0);
    for (uint32_t i = 0; i < T.clients_n; i++)
        client_end(T.clients[i]);
    pass(20);
    assert_int_equal(T.running, 0);
    assert_int_equal(counted(&T.proxies[0]->c.requests_now), 0);
}
static void test_left(void **state) { each_seed(test_repeats(20), left); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_wins), cmocka_unit_test(test_silent), cmocka_unit_test(test_not_repeated), cmocka_unit_test(test_outlives),
                                       cmocka_unit_test(test_left)};
    log_start(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
