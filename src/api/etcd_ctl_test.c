/* etcd_ctl_test.c - Weir's etcd API and the control store's engine for etcd clusters, against each other in the simulator.
 *
 *     node's loop: struct ctl (engine of a cluster) --network with faults--> store's loop: three etcd_api --> struct ctl (SQLite)
 *
 * First the common scenarios; then lives: puts and transactions under resets, kills and cuts of the members, with watches that are fast, slow, filtered and late. What
 * the store itself told a watch of its own is the truth: every other watch must have been told the same, in order, each revision in one message; what was answered must
 * be in it, at its revision, what was refused must not, and nothing may be there twice. SIM_SEEDS says how many lives, ETCD_SEED runs one. Then lives of several clients at once, whose
 * history has to be linearizable (linear_clients_test.h).
 */
#include "ctl_world_test.h"
#include "etcd_int.h"
#include "linear_clients_test.h"
#include "repeat_test.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMBERS 3
#define PORT 23790
#define ALL .key = SLICE("w/"), .end = SLICE("w0")

static struct {
    struct loop *far;                /* the store's */
    struct ctl *own;
    struct member {
        struct etcd_api *api;        /* NULL: down */
        struct addr addr;
        int fd;
        bool cut;
    } members[MEMBERS];
    struct world w;                  /* the node's loop, and the store that leads to the members */
    bool closed;
    bool small;                      /* limits of the API are hit */
    uint64_t random;
} W;

static uint32_t chance(uint32_t n) { return test_chance(&W.random, n); }

static bool never(void *ctx) { return false; }
static bool run(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms) { return sim_run(done, ctx, ms); }
static void closed(void *ctx) { W.closed = true; }
static bool is_closed(void *ctx) { return W.closed; }

/* ---- the world ---- */

static void member_up(int i)
{
    struct member *m = &W.members[i];
    struct etcd_api_conf conf = {.cluster_id = 7, .member_id = 9 + (uint64_t)i, .name = "weir", .client_url = "http://127.0.0.1:2379"};
    if (m->api) return;
    m->addr = addr_ip4(0x7f000001, (uint16_t)(PORT + i));
    m->fd = sim_listen(0, &m->addr);
    m->api = etcd_api_new(W.far, W.own, &conf);
    if (W.small) {
        m->api->limit[ETCD_LIMIT_STREAM_BYTES] = 2000;
        m->api->limit[ETCD_LIMIT_FRAGMENT_BYTES] = 200;
    }
    etcd_api_listen(m->api, m->fd);
}

/* gently: as one that is stopped, else as one that is killed. */
static void member_down(int i, bool gently)
{
    struct member *m = &W.members[i];
    if (!m->api) return;
    if (gently) {
        etcd_api_suspend(m->api);
        sim_run(never, NULL, chance(20));
    }
    etcd_api_free(m->api);
    m->api = NULL;
    sim_kill_addr(&m->addr);
    socket_close(m->fd);
}

static void member_cut(int i, bool cut)
{
    if (W.members[i].cut != cut) sim_partition(&W.members[i].addr, cut);
    W.members[i].cut = cut;
}

static void world_start(const struct sim_conf *conf)
{
    struct ctl_own_conf own;
    struct buf why = {0};
    sim_start(conf);
    sim_quiet();
    W.far = loop_new("store");
    W.w = (struct world){.loop = loop_new("node"), .run = run};
    ctl_own_conf_default(&own);
    own.dir = "/ctl";
    own.history_ms = 0;
    assert_int_equal(ctl_own_open(&own, W.far, &W.own, &why), OK);
    for (int i = 0; i < MEMBERS; i++) member_up(i);
}

static void world_open(uint64_t watch_bytes_max)
{
    struct ctl_etcd_endpoint at[MEMBERS];
    struct ctl_etcd_conf conf;
    struct buf why = {0};
    ctl_etcd_conf_default(&conf);
    for (int i = 0; i < MEMBERS; i++) at[i] = (struct ctl_etcd_endpoint){.addr = W.members[i].addr};
    conf.endpoints = at;
    conf.endpoints_n = MEMBERS;
    conf.watch_bytes_max = watch_bytes_max;
    assert_int_equal(ctl_etcd_open(&conf, W.w.loop, &W.w.ctl, &why), OK);
}

static void store_close(struct ctl *c)
{
    W.closed = false;
    ctl_close(c, closed, NULL);
    assert_true(sim_run(is_closed, NULL, 60000));
}

static void world_stop(void)
{
    store_close(W.w.ctl);
    for (int i = 0; i < MEMBERS; i++) member_down(i, false);
    store_close(W.own);
    sim_run(never, NULL, 100);
    loop_free(W.w.loop);
    loop_free(W.far);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
    assert_int_equal(mem_bytes(MEM_API), 0);
}

/* ---- the scenarios ---- */

static int setup(void **state)
{
    struct sim_conf conf = {.seed = 1, .latency_us_min = 20, .latency_us_max = 200};
    memset(&W, 0, sizeof W);
    world_start(&conf);
    world_open(65536);
    *state = &W.w;
    return 0;
}

static int teardown(void **state)
{
    world_stop();
    return 0;
}

/* ---- lives ---- */

#define WRITERS 4
#define WATCHES 5
#define CALLS_MAX 3000
#define EVENTS_MAX (3 * CALLS_MAX)

enum fate { ASKED, DONE, NOT, UNKNOWN };
struct told {
    int64_t revision;
    uint32_t number;                 /* of the call */
    char key;                        /* its last letter */
};
struct watcher {
    struct ctl_watch *watch;         /* NULL: not started */
    struct told *told;
    uint32_t n;
    int64_t from, last;              /* the first revision that it wants; of its last message */
    uint32_t pause_pct;
    bool paused;
    char only;                       /* one key; 0: all */
};
struct writer {
    struct ctl_call call;
    struct ctl_op ops[3];
    char keys[3][8], value[16];
    uint32_t number;
    bool idle;
};
static struct {
    struct watcher truth, watchers[WATCHES];
    struct writer writers[WRITERS];
    struct { enum fate fate; int64_t revision; } calls[CALLS_MAX];
    uint32_t n, under_way, fates[4];
    bool stop;
} L;

static void writer_go(struct writer *w);

static void writer_done(struct ctl_call *call)
{
    struct writer *w = CONTAINER_OF(call, struct writer, call);
    assert_true(call->error == CTL_OK || call->error == CTL_UNKNOWN || call->error == CTL_UNAVAILABLE);
    enum fate f = call->error == CTL_OK ? DONE : call->error == CTL_UNKNOWN ? UNKNOWN : NOT;
    L.calls[w->number].fate = f;
    L.calls[w->number].revision = call->revision;
    L.fates[f]++;
    L.under_way--;
    w->idle = true;
    if (!L.stop && chance(8)) writer_go(w); /* else with the next step */
}

/* A put, or three of them in one revision. */
static void writer_go(struct writer *w)
{
    w->idle = L.n == CALLS_MAX;
    if (w->idle) return;
    w->number = L.n++;
    L.under_way++;
    snprintf(w->value, sizeof w->value, "%u", w->number);
    for (int i = 0; i < 3; i++) {
        snprintf(w->keys[i], sizeof w->keys[i], "w/%c", 'a' + i);
        w->ops[i] = op_put(w->keys[i], w->value);
    }
    bool all = chance(3) == 0;
    w->call = (struct ctl_call){.op = all ? (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = w->ops, .then_n = 3}} : w->ops[chance(3)], .done = writer_done};
    ctl_submit(W.w.ctl, &w->call);
}

static bool watcher_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct watcher *w = ctx;
    assert_false(w->paused);
    assert_true(revision >= w->last);
    for (size_t i = 0; i < n; i++) {
        const struct ctl_kv *kv = &events[i].kv;
        uint64_t number;
        assert_int_equal(slice_u64(kv->value, CALLS_MAX, &number), OK);
        assert_true(i == 0 ? kv->mod_revision > w->last : kv->mod_revision >= w->last);
        w->last = kv->mod_revision;
        assert_true(w->n < EVENTS_MAX);
        w->told[w->n++] = (struct told){kv->mod_revision, (uint32_t)number, kv->key.p[kv->key.n - 1]};
    }
    w->last = MAX(w->last, revision);
    w->paused = chance(100) < w->pause_pct;
    return !w->paused;
}

static void watcher_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why) { fail_msg("a watch ended: %s", why); }
static const struct ctl_watch_ops watcher_ops = {.events = watcher_events, .ended = watcher_ended};

static void watcher_start(struct watcher *w, struct ctl *c, int64_t from)
{
    char key[8];
    struct ctl_watch_conf conf = {ALL, .revision = from, .prev_kv = chance(2), .progress = chance(2)};
    if (w->only) {
        snprintf(key, sizeof key, "w/%c", w->only);
        conf.key = slice_cstr(key);
        conf.end = SLICE("");
    }
    w->from = from;
    w->told = mem_new(MEM_SIM, EVENTS_MAX * sizeof *w->told);
    w->watch = ctl_watch_start(c, &conf, &watcher_ops, w);
    assert_non_null(w->watch);
}

/* The truth as this watch should have been told it: compared from its beginning. done: it is all there. */
static bool watcher_is_true(const struct watcher *w)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < L.truth.n; i++) {
        const struct told *t = &L.truth.told[i];
        if (t->revision < w->from || (w->only && t->key != w->only)) continue;
        if (k == w->n) return false;
        const struct told *g = &w->told[k++];
        if (g->revision != t->revision || g->number != t->number || g->key != t->key)
            fail_msg("told %c=%u at %lld instead of %c=%u at %lld", g->key, g->number, (long long)g->revision, t->key, t->number, (long long)t->revision);
    }
    assert_int_equal(k, w->n);
    return true;
}

static bool life_over(void *ctx) { return L.under_way == 0; }

static bool watches_over(void *ctx)
{
    for (int i = 0; i < WATCHES; i++) {
        struct watcher *w = &L.watchers[i];
        if (w->paused) {
            w->paused = false;
            ctl_watch_resume(w->watch);
        }
        w->pause_pct = MIN(w->pause_pct, 20);
        if (w->watch && !watcher_is_true(w)) return false;
    }
    return true;
}

/* One of the members goes, comes, or is cut off; or nothing happens. */
static void members_step(uint32_t what)
{
    int i = (int)chance(MEMBERS);
    switch (what) {
    case 0: member_down(i, false); break;
    case 1: member_down(i, true); break;
    case 2: member_up(i); break;
    case 3: if (W.members[i].api) member_cut(i, true); break;
    case 4: member_cut(i, false); break;
    }
}

static void members_heal(void)
{
    sim_conf_set(&(struct sim_conf){.latency_us_min = 20, .latency_us_max = 200});
    for (int i = 0; i < MEMBERS; i++) {
        member_cut(i, false);
        member_up(i);
    }
}

static void life_step(void)
{
    for (int k = 0; k < WRITERS; k++)
        if (L.writers[k].idle) writer_go(&L.writers[k]);
    uint32_t what = chance(8);
    members_step(what);
    switch (what) {
    case 5: case 6: {
        struct watcher *w = &L.watchers[chance(WATCHES)];
        if (!w->paused) break;
        w->paused = false;
        ctl_watch_resume(w->watch);
        break;
    }
    case 7: {
        struct watcher *w = &L.watchers[WATCHES - 1];
        if (!w->watch && L.truth.last > 2) watcher_start(w, W.w.ctl, 2 + chance((uint32_t)L.truth.last)); /* of the past, or to come */
        else if (w->watch) ctl_watch_progress(w->watch);
        break;
    }
    }
    sim_run(never, NULL, chance(4) ? chance(60) : chance(4000));
}

/* What calls were told, and what the store did. */
static void life_check(void)
{
    uint32_t *times = mem_new(MEM_SIM, (CALLS_MAX + 1) * sizeof *times);
    int64_t *at = mem_new(MEM_SIM, (CALLS_MAX + 1) * sizeof *at);
    for (uint32_t i = 0; i < L.truth.n; i++) {
        const struct told *t = &L.truth.told[i];
        if (at[t->number] != t->revision) times[t->number]++; /* the events of a transaction count once */
        at[t->number] = t->revision;
    }
    for (uint32_t i = 0; i < L.n; i++) {
        assert_true(times[i] <= 1);
        if (L.calls[i].fate == DONE) assert_true(times[i] == 1 && at[i] == L.calls[i].revision);
        if (L.calls[i].fate == NOT) assert_int_equal(times[i], 0);
    }
    mem_free(times);
    mem_free(at);
}

static void watcher_fini(struct watcher *w)
{
    if (w->watch) ctl_watch_stop(w->watch);
    mem_free(w->told);
}

/* A world with faults by chance. */
static void world_begin(uint64_t seed)
{
    memset(&W, 0, sizeof W);
    W.random = seed * 0x9e3779b97f4a7c15u;
    W.small = chance(2);
    struct sim_conf conf = {.seed = seed, .latency_us_min = 20, .latency_us_max = 1 + chance(3) * 3000, .split_pct = chance(2) * 20, .short_write_pct = chance(2) * 20,
                            .reset_ppm = chance(3) * 300, .refuse_pct = chance(2) * 10};
    conf.latency_us_max = MAX(conf.latency_us_max, conf.latency_us_min);
    world_start(&conf);
}

static void life(uint64_t seed)
{
    memset(&L, 0, sizeof L);
    world_begin(seed);
    world_open(chance(2) ? 65536 : 2000);
    watcher_start(&L.truth, W.own, 1);
    L.watchers[1].pause_pct = 100;
    L.watchers[2].pause_pct = 30;
    L.watchers[3].only = 'b';
    for (int i = 0; i < WATCHES - 1; i++) watcher_start(&L.watchers[i], W.w.ctl, i % 2 ? 1 : 2);
    for (int i = 0; i < WRITERS; i++) writer_go(&L.writers[i]);
    for (uint32_t steps = 10 + chance(30); steps; steps--) life_step();
    L.stop = true;
    members_heal();
    assert_true(sim_run(life_over, NULL, 60000));
    sim_run(never, NULL, 2000); /* what was under way when its caller gave up may still arrive */
    life_check();
    assert_true(sim_run(watches_over, NULL, 120000));
    watcher_fini(&L.truth);
    for (int i = 0; i < WATCHES; i++) watcher_fini(&L.watchers[i]);
    world_stop();
}

static void test_lives(void **state)
{
    const char *one = getenv("ETCD_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : test_repeats(60);
    uint64_t done_n = 0, unknown_n = 0, not_n = 0;
    for (uint64_t seed = first; seed < first + n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed);
        life(seed);
        done_n += L.fates[DONE];
        unknown_n += L.fates[UNKNOWN];
        not_n += L.fates[NOT];
    }
    fprintf(stderr, "\r%llu lives: %llu calls done, %llu of unknown fate, %llu not done\n", (unsigned long long)n, (unsigned long long)done_n,
            (unsigned long long)unknown_n, (unsigned long long)not_n);
    if (n >= 60) assert_true(done_n > 1000 && unknown_n > 50 && not_n > 10);
}

/* ---- several clients at once ---- */

static struct life clients;

static bool error_refuses(enum ctl_error e) { return e == CTL_UNAVAILABLE; }
static bool clients_done(void *ctx) { return clients.calls >= CALLS && life_is_quiet(&clients); }

static void linear_life(uint64_t seed)
{
    static const uint32_t rests_ms[] = {60, 400, 10, 1500};
    world_begin(seed);
    world_open(65536);
    clients = (struct life){.loop = W.w.loop, .ctl = W.w.ctl, .random = seed * 0x9e3779b97f4a7c15u + 1, .rest_ms = rests_ms[seed % COUNT_OF(rests_ms)], .refused = error_refuses};
    life_start(&clients);
    for (int steps = 0; !sim_run(clients_done, NULL, chance(4) ? chance(200) : chance(4000)); steps++) {
        assert_true(steps < 5000);
        members_step(chance(8));
    }
    clients.over = true;
    members_heal();
    for (uint32_t i = 0; life_read(&clients, i); i++) assert_true(sim_run(life_is_quiet, &clients, 20000));
}

static void test_linear_lives(void **state)
{
    const char *one = getenv("LINEAR_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : test_repeats(60);
    struct lives all = {0};
    for (uint64_t seed = first; seed < first + n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed);
        linear_life(seed);
        life_judge(&clients, seed, one, &all);
        life_fini(&clients);
        world_stop();
    }
    fprintf(stderr, "\r%llu operations, %llu of unknown result\n", (unsigned long long)all.ops, (unsigned long long)all.open);
    assert_true(test_few(n, 60) || (all.ops > n * CALLS / 2 && all.open > n));
}

/* With an argument: only the tests whose names fit. */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (; n < ctl_scenarios_n; n++) {
        tests[n] = ctl_scenarios[n];
        tests[n].setup_func = setup;
        tests[n].teardown_func = teardown;
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_lives);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_linear_lives);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("etcd_ctl", tests, n, NULL, NULL);
}
