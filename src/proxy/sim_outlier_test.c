/* sim_outlier_test.c - endpoints that fail are left out, and come back: the promises of BALANCING.md ("Outliers") in every seed.
 *
 * A look between all steps of the simulation reads the endpoints' own state. What must hold in each moment:
 *   - no more are ejected than the cap allows, and whoever is ejected gets no request, unless the cluster panics;
 *   - an ejection lasts as long as the rule says.
 * And at the end: each request was answered, who never failed was never ejected, who failed was, and all are back once they are well.
 */
#include "sim_world_test.h"

#define SETTLE_MS 40 /* until an ejection is known everywhere and what was on its way has arrived */

enum how { BY_500, BY_503, BY_RESET, BY_RATE };

static struct {
    enum how how;
    uint32_t bad;            /* hosts below this fail */
    uint32_t bad_pct;        /* of their requests */
    bool alternate;          /* or every other one */
    uint32_t allowed;        /* ejected at once */
    uint32_t base_ms, max_ms, jitter_ms;
    uint32_t ejected_max;    /* at once, so far */
    uint32_t panic_pct;
    uint64_t calm_ms;        /* since when the cluster has not panicked */
    struct {
        uint64_t until, since, longest;
        uint32_t times;
    } of[HOSTS_MAX];
} E;

static const struct plan_endpoint *endpoint(uint32_t host)
{
    const struct plan_cluster *pc = &T.plan->clusters[0];
    for (uint32_t k = 0; k < pc->eps_n; k++)
        if (pc->eps[k].replica_id == T.hosts[host].replica_id)
            return &pc->eps[k];
    return NULL;
}

static void ejection_seen(uint32_t i, uint64_t until, uint64_t now)
{
    uint64_t for_ms = until - now;
    E.of[i].times++;
    E.of[i].since = now;
    E.of[i].longest = MAX(E.of[i].longest, for_ms);
    /* base times a whole number, or the longest allowed; the look comes at most a few ms late */
    uint64_t over = for_ms + 3 >= E.max_ms ? for_ms + 3 - E.max_ms : (for_ms + 3) % E.base_ms;
    if (for_ms + 3 < E.base_ms || over > E.jitter_ms + 3)
        fail_msg("host %u is ejected for %llu ms: base %u, at most %u, jitter %u", i, (unsigned long long)for_ms, E.base_ms, E.max_ms, E.jitter_ms);
}

static bool watch(void *ctx)
{
    uint64_t now = loop_now_ms(T.proxy_loop);
    uint32_t n = ejected_now();
    if (n > E.allowed)
        fail_msg("%u of %u are ejected, %u may be", n, T.hosts_n, E.allowed);
    E.ejected_max = MAX(E.ejected_max, n);
    if ((T.hosts_n - n) * 100 < E.panic_pct * T.hosts_n)
        E.calm_ms = now + SETTLE_MS;
    for (uint32_t i = 0; i < T.hosts_n; i++) {
        uint64_t until = __atomic_load_n(&endpoint(i)->health->ejected_until_ms, __ATOMIC_RELAXED);
        if (until > now && until != E.of[i].until) {
            if (E.how != BY_RATE && i >= E.bad)
                fail_msg("host %u never failed and is ejected", i);
            ejection_seen(i, until, now);
        }
        E.of[i].until = until > now ? until : 0;
    }
    return all_over(ctx);
}

static struct deed script(const struct visit *v)
{
    struct deed d = {.delay_ms = (uint32_t)chance(8), .bytes = 10};
    uint64_t now = loop_now_ms(T.proxy_loop);
    if (E.of[v->host].until > now && now - E.of[v->host].since > SETTLE_MS && now > E.calm_ms && E.of[v->host].until - now > SETTLE_MS)
        fail_msg("host %u is ejected and gets a request", v->host);
    if (v->host >= E.bad || (E.alternate ? T.hosts[v->host].visits & 1 : chance(100) >= E.bad_pct))
        return d;
    d.status = E.how == BY_503 ? 503 : 500;
    d.kind = E.how == BY_RESET ? DEED_RESET : DEED_ANSWER;
    return d;
}

static void load(uint32_t clients, uint32_t requests)
{
    for (uint32_t i = 0; i < clients; i++) {
        struct client *c = client_start(i % 4 == 3 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 4 == 3 ? 3 : 1;
        c->gap_ms = 10;
        client_go(c);
    }
    if (!sim_run(watch, NULL, 120000))
        fail_msg("%u requests are not over", T.open);
}

static void start(uint64_t seed, enum how how, uint32_t hosts, uint32_t bad, uint32_t bad_pct, uint32_t eject_pct, uint32_t panic_pct, const char *rules)
{
    struct buf b = {0};
    memset(&E, 0, sizeof E);
    E.how = how;
    E.bad = bad;
    E.bad_pct = bad_pct;
    E.allowed = MAX(1u, hosts * eject_pct / 100);
    E.panic_pct = panic_pct;
    E.base_ms = 1000;
    E.max_ms = 2500;
    E.jitter_ms = seed % 3 ? 0 : 300;
    buf_printf(&b, ROUTE("%s") POLICY("loadBalancer: { algorithm: %s, panicPercent: %u }, outlierDetection: { interval: 1s, baseEjectionTime: 1s, maxEjectionTime: 2500ms, "
                                      "maxEjectionJitter: %ums, maxEjectionPercent: %u, %s }"),
               how == BY_RESET ? "" : "retries: { attempts: 0 }, ", seed & 1 ? "RoundRobin" : "LeastRequest", panic_pct, E.jitter_ms, eject_pct, rules);
    buf_addc(&b, 0);
    world_start(seed, NULL, hosts, b.p);
    buf_free(&b);
    T.script = script;
    T.hosts_h2 = seed & 2;
}

/* All are well from now on: when the longest ejection is over nobody is out, and everybody is asked. */
static void recover(void)
{
    uint32_t visits[HOSTS_MAX];
    E.bad_pct = 0;
    sim_run(watch, NULL, 0);
    pass(E.max_ms + E.jitter_ms + 1100);
    assert_int_equal(ejected_now(), 0);
    for (uint32_t i = 0; i < T.hosts_n; i++)
        visits[i] = T.hosts[i].visits;
    uint32_t from = T.asks_n;
    load(6, 40);
    for (uint32_t i = from; i < T.asks_n; i++)
        assert_true(T.asks[i].state == ASK_ANSWERED && T.asks[i].status == 200);
    for (uint32_t i = 0; i < T.hosts_n; i++)
        if (T.hosts[i].visits == visits[i])
            fail_msg("host %u is well and not asked again", i);
}

/* No request is lost because of an ejection: each has its host's answer, and only hosts that fail give bad ones. */
static void judge_answers(void)
{
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state != ASK_ANSWERED)
            fail_msg("request %u was not answered (%d)", i, a->state);
        if (a->visit == NO_VISIT && !(E.how == BY_RESET && a->status == 502))
            fail_msg("request %u: Weir answered %u itself", i, a->status);
        if (a->visit != NO_VISIT && a->status != 200)
            assert_true(T.visits[a->visit].host < E.bad);
    }
}

static void consecutive(uint64_t seed, enum how how, const char *rules)
{
    static const uint32_t shares[] = {10, 34, 50, 100};
    uint32_t hosts = 3 + (uint32_t)(seed * 7 % 8), bad = 1 + (uint32_t)(seed % (hosts - 1));
    start(seed, how, hosts, bad, 100, shares[seed % 4], 50, rules);
    bool resets = how == BY_RESET; /* who has reset a connection is asked again only after SHUN_MS: that takes longer, and may come in turns */
    load(10, resets ? 350 : 120);
    judge_answers();
    assert_in_range(E.ejected_max, resets ? 1 : MIN(bad, E.allowed), MIN(bad, E.allowed));
    for (uint32_t i = 0; i < bad && E.allowed >= bad; i++)
        if (!E.of[i].times)
            fail_msg("host %u fails always and was never ejected", i);
    if (bad <= E.allowed || !resets)
        assert_int_equal(counted(&cluster_now()->count->ejections_over) > 0, bad > E.allowed);
    recover();
}

static void by_500(uint64_t seed) { consecutive(seed, BY_500, "consecutive5xxErrors: 3"); }
static void by_503(uint64_t seed) { consecutive(seed, BY_503, "consecutive5xxErrors: 0, consecutiveGatewayErrors: 3"); }
static void by_reset(uint64_t seed) { consecutive(seed, BY_RESET, seed & 1 ? "consecutive5xxErrors: 3" : "consecutive5xxErrors: 0, consecutiveLocalErrors: 3, splitLocalErrors: true"); }
static void test_500(void **state) { each_seed(test_repeats(30), by_500); }
static void test_503(void **state) { each_seed(test_repeats(30), by_503); }
static void test_reset(void **state) { each_seed(test_repeats(30), by_reset); }

/* Answers of a kind that a rule does not count eject nobody. */
static void not_counted(uint64_t seed)
{
    bool gateway = seed & 1;
    start(seed, gateway ? BY_500 : BY_503, 5, 2, 100, 100, 50,
          gateway ? "consecutive5xxErrors: 0, consecutiveGatewayErrors: 3" : "consecutive5xxErrors: 0, consecutiveLocalErrors: 3, splitLocalErrors: true");
    load(8, 300);
    judge_answers();
    assert_int_equal(E.ejected_max, 0);
}
/* Whoever is well has its turn, from its first request on. */
static void turns(uint64_t seed)
{
    uint32_t hosts = 2 + (uint32_t)(seed % 12), least = UINT32_MAX, most = 0;
    start(seed | 1, BY_500, hosts, 0, 0, 50, 50, "consecutive5xxErrors: 3");
    load(6, 10 * hosts);
    for (uint32_t i = 0; i < hosts; i++) {
        least = MIN(least, T.hosts[i].visits);
        most = MAX(most, T.hosts[i].visits);
    }
    if (most - least > 1)
        fail_msg("of %u hosts one was asked %u times and another %u", hosts, most, least);
}
static void test_turns(void **state) { each_seed(test_repeats(24), turns); }

/* Failures with successes between them are not in a row. */
static void alternating(uint64_t seed)
{
    start(seed, seed & 4 ? BY_500 : BY_503, 4, 4, 100, 100, 50, "consecutive5xxErrors: 8, consecutiveGatewayErrors: 8");
    E.alternate = true;
    load(8, 100);
    judge_answers();
    assert_int_equal(E.ejected_max, 0);
    assert_in_range(count_status(200), 300, 500);
}
static void test_alternating(void **state) { each_seed(test_repeats(10), alternating); }
static void test_not_counted(void **state) { each_seed(test_repeats(10), not_counted); }

/* Each time in a row lasts longer, up to the longest; time in use takes one back. */
static void grows(uint64_t seed)
{
    start(seed, BY_500, 4, 1, 100, 50, 50, "consecutive5xxErrors: 2");
    for (int round = 0; round < 8; round++)
        load(4, 250);
    if (E.of[0].times < 3 || E.of[0].longest + 5 < E.max_ms)
        fail_msg("ejected %u times, at most for %llu ms", E.of[0].times, (unsigned long long)E.of[0].longest);
    recover();
    pass(5000); /* enough intervals in use: all is forgiven */
    E.bad_pct = 100;
    E.of[0].longest = 0;
    load(4, 30);
    assert_true(E.of[0].longest && E.of[0].longest <= E.base_ms + E.jitter_ms);
}
static void test_grows(void **state) { each_seed(test_repeats(15), grows); }

static void by_rate(uint64_t seed)
{
    bool deviation = seed & 1;
    start(seed, BY_RATE, 10, 1, 60, 30, 50,
          deviation ? "consecutive5xxErrors: 0, successRate: { minHosts: 5, requestVolume: 10, standardDeviations: 1.9 }"
                    : "consecutive5xxErrors: 0, failurePercentage: { threshold: 40, minHosts: 5, requestVolume: 10 }");
    load(24, 350);
    judge_answers();
    for (uint32_t i = 0; i < T.hosts_n; i++)
        if ((E.of[i].times > 0) != (i < E.bad))
            fail_msg("host %u was ejected %u times", i, E.of[i].times);
    assert_true(counted(&cluster_now()->count->ejections[deviation ? EJECTION_SUCCESS_RATE : EJECTION_FAILURE_PERCENTAGE]) > 0);
    recover();
}
static void test_rates(void **state) { each_seed(test_repeats(20), by_rate); }

/* Too few hosts with enough requests: rates judge nobody. */
static void too_few(uint64_t seed)
{
    start(seed, BY_RATE, 4, 1, 100, 100, 50,
          seed & 1 ? "consecutive5xxErrors: 0, successRate: { minHosts: 5, requestVolume: 10 }" : "consecutive5xxErrors: 0, failurePercentage: { threshold: 40, minHosts: 5, requestVolume: 10 }");
    load(10, 350);
    judge_answers();
    assert_int_equal(E.ejected_max, 0);
}
static void test_too_few(void **state) { each_seed(test_repeats(8), too_few); }

/* Everybody fails: in panic all are asked as if nobody were ejected, and without panic Weir answers for them. */
static void panic(uint64_t seed)
{
    bool panics = seed & 1;
    uint32_t hosts = 2 + (uint32_t)seed % 5;
    start(seed, BY_500, hosts, hosts, 100, 100, panics ? 50 : 0, "consecutive5xxErrors: 3");
    load(8, 80);
    assert_int_equal(E.ejected_max, hosts);
    uint32_t own = 0;
    for (uint32_t i = 0; i < T.asks_n; i++) {
        assert_true(T.asks[i].state == ASK_ANSWERED);
        own += T.asks[i].visit == NO_VISIT;
    }
    assert_int_equal(own, count_status(503));
    assert_int_equal(own > 0, !panics);
    recover();
}
static void test_panic(void **state) { each_seed(test_repeats(20), panic); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_500),   cmocka_unit_test(test_503),     cmocka_unit_test(test_reset), cmocka_unit_test(test_not_counted), cmocka_unit_test(test_grows),
        cmocka_unit_test(test_rates), cmocka_unit_test(test_too_few), cmocka_unit_test(test_panic), cmocka_unit_test(test_alternating), cmocka_unit_test(test_turns),
    };
    log_start(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
