/* rt_sim_test.c - rt in the simulator: the common scenarios with seeds, the faults that only it can make, determinism. */
#include "rt_scenarios.h"
#include "sim.h"

#include <errno.h>
#include <stdio.h>

const size_t world_transfer_bytes = 3000000;

static uint64_t world_seed = 1;

static struct sim_conf conf_of(uint64_t seed)
{
    return (struct sim_conf){.seed = seed, .latency_us_min = 20, .latency_us_max = 400, .split_pct = 15, .short_write_pct = 15};
}

void world_start(void)
{
    struct sim_conf conf = conf_of(world_seed++);
    sim_start(&conf);
}

void world_stop(void)
{
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_SIM), 0);
}

bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    return sim_run(done, ctx, ms);
}

const char *world_path(const char *name, char out[256])
{
    snprintf(out, 256, "/%s", name);
    return out;
}

/* ---- faults ---- */

#define PAIRS 6
static struct pair pairs[PAIRS];

static bool pairs_finished(void *ctx)
{
    for (int i = 0; i < PAIRS; i++)
        if (!pair_finished(&pairs[i])) return false;
    return true;
}

static struct loop *pairs_start(struct sim_conf conf, struct loop **clients)
{
    sim_start(&conf);
    struct loop *l = loop_new("servers");
    *clients = loop_new("clients");
    memset(pairs, 0, sizeof pairs);
    for (int i = 0; i < PAIRS; i++) {
        pairs[i].client.l = *clients;
        pairs[i].client.want = 5000 * (uint64_t)(i * i * i);
        pairs[i].server.want = 100000;
        pairs[i].client.shut_after = pairs[i].server.shut_after = true;
        pairs[i].server.pause_ms = i % 2;
        pair_open(&pairs[i], l);
    }
    return l;
}

static uint64_t pairs_end(struct loop *l, struct loop *clients)
{
    for (int i = 0; i < PAIRS; i++) pair_close(&pairs[i]);
    loop_free(clients);
    loop_free(l);
    uint64_t trace = sim_trace();
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM) + mem_bytes(MEM_LOOP), 0);
    return trace;
}

/* Under resets and refusals every connection either completes or fails at both ends, and what was delivered is right. */
static uint64_t soak(uint64_t seed, uint32_t *failed)
{
    struct sim_conf conf = conf_of(seed);
    conf.reset_ppm = seed % 2 ? 20000 : 0;
    conf.refuse_pct = seed % 3 ? 10 : 0;
    conf.socket_bytes = seed % 5 ? 0 : 1000;
    struct loop *clients, *l = pairs_start(conf, &clients);
    if (!sim_run(pairs_finished, NULL, 600000)) fail_msg("seed %llu does not come to its end", (unsigned long long)seed);
    for (int i = 0; i < PAIRS; i++) {
        const struct end *c = &pairs[i].client, *s = &pairs[i].server;
        if (c->bad || s->bad) fail_msg("seed %llu: wrong bytes", (unsigned long long)seed);
        if (c->failed || s->failed) (*failed)++;
        else assert_true(c->got == s->want && s->got == c->want && c->eof && s->eof);
        if (c->failed) assert_true(c->why == ERR_RESET || c->why == ERR_CLOSED || (c->why == ERR_REFUSED && !c->connected));
    }
    return pairs_end(l, clients);
}

static void test_soak(void **state)
{
    uint32_t failed = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) soak(seed, &failed);
    assert_in_range(failed, 10, 60 * PAIRS / 2); /* faults did happen, and not everywhere */
}

static void test_determinism(void **state)
{
    uint32_t failed = 0;
    uint64_t a = soak(7, &failed), b = soak(7, &failed), c = soak(8, &failed);
    assert_true(a == b);
    assert_true(a != c);
}

/* ---- relays under faults ---- */

#define BRIDGES 5
static struct bridge bridges[BRIDGES];

/* Nobody waits any more: joined ends know, and those never joined were refused or broke. */
static bool bridges_over(void *ctx)
{
    for (int i = 0; i < BRIDGES; i++) {
        struct bridge *b = &bridges[i];
        if (!bridge_over(b) && !b->client.failed && !(b->owner_failed && !b->ready)) return false;
    }
    return true;
}

/* Resets and refusals anywhere, slow readers, one pipe for all: a relay that ends well has moved all, and no byte is wrong. */
static uint64_t relay_soak(uint64_t seed, uint32_t *well, uint32_t *broken)
{
    struct sim_conf conf = conf_of(seed);
    conf.reset_ppm = seed % 2 ? 4000 : 0;
    conf.refuse_pct = seed % 3 ? 5 : 0;
    conf.socket_bytes = seed % 5 ? 0 : 3000;
    sim_start(&conf);
    struct loop *l = loop_new("relays"), *ends = loop_new("ends");
    l->pipes_max = seed % 4;
    memset(bridges, 0, sizeof bridges);
    for (int i = 0; i < BRIDGES; i++) {
        struct bridge *b = &bridges[i];
        b->client.l = ends;
        b->client.want = 3000 * (uint64_t)(i * i * i);
        b->server.want = 400000 / (uint64_t)(i + 1);
        b->client.shut_after = b->server.shut_after = true;
        b->client.pause_ms = i % 2;
        b->idle_ms = 60000;
        bridge_open(b, l);
    }
    if (!sim_run(bridges_over, NULL, 600000)) fail_msg("seed %llu does not come to its end", (unsigned long long)seed);
    for (int i = 0; i < BRIDGES; i++) {
        const struct bridge *b = &bridges[i];
        if (b->client.bad || b->server.bad) fail_msg("seed %llu: wrong bytes", (unsigned long long)seed);
        bool good = b->ended && b->why == OK && !b->client.failed && !b->server.failed;
        if (good) assert_true(b->client.got == b->server.want && b->server.got == b->client.want && b->client.eof && b->server.eof);
        *(good ? well : broken) += 1;
        bridge_close(&bridges[i]);
    }
    assert_int_equal(l->pipes_n, l->pipes_kept);
    loop_free(ends);
    loop_free(l);
    uint64_t trace = sim_trace();
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM) + mem_bytes(MEM_LOOP), 0);
    return trace;
}

static void test_relay_soak(void **state)
{
    uint32_t well = 0, broken = 0;
    for (uint64_t seed = 1; seed <= 80; seed++) relay_soak(seed, &well, &broken);
    assert_in_range(broken, 20, well);
    assert_true(relay_soak(13, &well, &broken) == relay_soak(13, &well, &broken));
}

/* Everything has arrived before the pour begins, so no edge will come: what is behind the poured bytes is found nevertheless. */
static void behind_over(struct pour *p, enum err e)
{
    struct bridge *b = CONTAINER_OF(p, struct bridge, pour);
    b->ended = true;
    b->why = e;
    b->owner_at = p->flow.moved;
}

static bool bridge_is_ready(void *ctx) { return bridges[0].ready; }
static bool owner_has_rest(void *ctx) { return bridges[0].ended && bridges[0].owner_at == bridges[0].client.want; }

static void test_pour_behind(void **state)
{
    static const uint64_t sizes[] = {1, 100, 20000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct sim_conf conf = {.seed = 20 + i, .latency_us_min = 20, .latency_us_max = 400};
        struct bridge *b = &bridges[0];
        sim_start(&conf);
        struct loop *l = loop_new("test");
        memset(b, 0, sizeof *b);
        b->by_hand = true;
        b->client.want = sizes[i] + 30000;
        bridge_open(b, l);
        assert_true(sim_run(bridge_is_ready, NULL, 1000));
        sim_run(NULL, NULL, 100);
        assert_true(b->client.s.out_bytes == 0 && b->owner_at == 0);
        assert_true(pour_start(&b->pour, &b->down, &b->up, sizes[i], behind_over));
        assert_true(sim_run(owner_has_rest, NULL, 1000));
        assert_true(b->why == OK && !b->owner_bad);
        bridge_close(b);
        loop_free(l);
        world_stop();
    }
}

static bool one_finished(void *ctx) { return pair_finished(ctx); }
static bool one_failed(void *ctx) { return ((struct pair *)ctx)->client.failed; }
static bool one_got_some(void *ctx) { return ((struct pair *)ctx)->client.got > 0; }

static void test_partition(void **state)
{
    struct sim_conf conf = conf_of(3);
    struct loop *clients, *l = pairs_start(conf, &clients);
    struct pair *p = &pairs[4];
    assert_true(sim_run(one_got_some, p, 1000));
    sim_partition(&p->at, true);
    sim_run(NULL, NULL, 5000);
    uint64_t got = p->client.got;
    assert_false(sim_run(one_finished, p, 20000));
    assert_int_equal(p->client.got, got);
    assert_true(pair_finished(&pairs[3])); /* others go on */
    sim_partition(&p->at, false);
    assert_true(sim_run(pairs_finished, NULL, 20000));
    for (int i = 0; i < PAIRS; i++) assert_false(pairs[i].client.bad || pairs[i].client.failed || pairs[i].server.failed);
    pairs_end(l, clients);
}

static void test_connect_timeout(void **state)
{
    struct sim_conf conf = conf_of(4);
    struct loop *clients, *l = pairs_start(conf, &clients);
    sim_partition(&(struct addr){.family = ADDR_IP4, .ip = {127, 0, 0, 1}}, true);
    assert_false(sim_run(one_failed, &pairs[0], 120000));
    assert_true(sim_run(one_failed, &pairs[0], 10000));
    assert_int_equal(pairs[0].client.why, ERR_TIMEOUT);
    assert_false(pairs[0].accepted);
    pairs_end(l, clients);
}

static void pair_reconnect(struct pair *p)
{
    const struct stream_ops *ops = p->client.s.ops;
    struct loop *l = p->client.l;
    void (*unpause)(struct timer *) = p->client.pause.fn;
    p->client = (struct end){.l = l};
    timer_init(&p->client.pause, unpause);
    stream_connect(&p->client.s, l, ops, -1, &p->at);
}

static void test_kill(void **state)
{
    struct sim_conf conf = conf_of(5);
    struct loop *clients, *l = pairs_start(conf, &clients);
    struct pair *p = &pairs[5];
    assert_true(sim_run(one_got_some, p, 1000));
    sim_kill_addr(&p->at);
    assert_true(sim_run(one_failed, p, 1000));
    assert_int_equal(p->client.why, ERR_RESET);
    stream_close(&p->client.s);
    sim_run(NULL, NULL, 10);
    assert_true(p->client.released && p->server.failed);
    pair_reconnect(p);
    assert_true(sim_run(one_failed, p, 1000));
    assert_int_equal(p->client.why, ERR_REFUSED);
    /* ... until it is started again */
    stream_close(&p->client.s);
    sim_run(NULL, NULL, 10);
    int fd;
    assert_int_equal(listen_socket(&p->at, 16, false, &fd), OK);
    pair_reconnect(p);
    sim_run(NULL, NULL, 100);
    assert_true(p->client.connected);
    socket_close(fd);
    pairs_end(l, clients);
}

/* The same address in two namespaces, and a listener that takes what nobody else does. */
struct spot {
    struct listener ln;
    struct stream s;
    struct addr local;
    uint32_t accepted;
};
static void spot_none(struct stream *s) {}
static void spot_data(struct stream *s, char *p, size_t n) {}
static void spot_failed(struct stream *s, enum err e) {}
static const struct stream_ops spot_ops = {spot_none, spot_data, spot_none, spot_none, spot_failed, spot_none};

static void spot_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct spot *x = (struct spot *)ln;
    x->accepted++;
    assert_int_equal(sys_local_addr(fd, &x->local), 0);
    socket_close(fd);
}

static void test_namespaces(void **state)
{
    struct sim_conf conf = conf_of(6);
    sim_start(&conf);
    struct loop *l = loop_new("test");
    struct addr own = addr_ip4(0x7f000001, 80), service = addr_ip4(0x7f800005, 8080);
    struct spot one = {0}, two = {0}, any = {0};
    int fds[3] = {sim_listen(1, &own), sim_listen(2, &own), sim_listen(2, NULL)};
    listener_start(&one.ln, l, fds[0], false, spot_accepted);
    listener_start(&two.ln, l, fds[1], false, spot_accepted);
    listener_start(&any.ln, l, fds[2], false, spot_accepted);
    stream_connect(&two.s, l, &spot_ops, sim_socket(2), &own);
    stream_connect(&any.s, l, &spot_ops, sim_socket(2), &service);
    stream_connect(&one.s, l, &spot_ops, sim_socket(1), &service);
    sim_run(NULL, NULL, 100);
    assert_true(one.accepted == 0 && two.accepted == 1 && any.accepted == 1);
    assert_true(addr_eq(&any.local, &service));
    assert_true(one.s.failed_told);
    stream_close(&one.s);
    stream_close(&two.s);
    stream_close(&any.s);
    listener_stop(&one.ln);
    listener_stop(&two.ln);
    listener_stop(&any.ln);
    for (int i = 0; i < 3; i++) socket_close(fds[i]);
    loop_free(l);
    world_stop();
}

/* The wall clock is set back and forth; timers don't care. */
static bool has_fired;
static void fired(struct timer *t) { has_fired = true; }
static bool fired_yet(void *ctx) { return has_fired; }

static void test_clock(void **state)
{
    struct sim_conf conf = conf_of(11);
    sim_start(&conf);
    struct loop *l = loop_new("test");
    struct timer t;
    has_fired = false;
    timer_init(&t, fired);
    timer_set(l, &t, 100);
    uint64_t wall = wall_ns(), mono = mono_ns();
    sim_clock_jump(-3600000);
    assert_int_equal(wall - wall_ns(), 3600000000000);
    sim_clock_jump(3600000);
    sim_clock_jump(86400000);
    assert_int_equal(wall_ns() - wall, 86400000000000);
    assert_int_equal(mono_ns(), mono);
    assert_true(sim_run(fired_yet, NULL, 200));
    assert_in_range(mono_ns() - mono, 100000000, 102000000);
    loop_free(l);
    world_stop();
}

/* ---- disk ---- */

static void test_disk(void **state)
{
    struct sim_conf conf = conf_of(9);
    sim_start(&conf);
    struct buf b = {0};
    assert_int_equal(file_read("/a", &b, 10), ERR_NOTFOUND);
    assert_int_equal(file_replace("/a", "old", 3, 0600), OK);
    sim_disk_fail(1, ENOSPC);
    assert_int_equal(file_replace("/a", "new", 3, 0600), ERR_NOSPACE);
    assert_true(slice_is(buf_slice(sim_file("/a")), "old"));
    assert_int_equal(file_replace("/a", "new", 3, 0600), OK);
    assert_int_equal(file_read("/a", &b, 10), OK);
    assert_true(slice_is(buf_slice(&b), "new"));
    assert_int_equal(file_read("/a", &b, 2), ERR_LIMIT);
    sim_disk_fail(1, EIO);
    assert_int_equal(file_read("/a", &b, 10), ERR_IO);
    assert_int_equal(sys_unlink("/a"), 0);
    assert_null(sim_file("/a"));
    buf_free(&b);
    world_stop();
}

static void test_log_file(void **state)
{
    struct sim_conf conf = conf_of(10);
    sim_start(&conf);
    sim_disk_fail(1, EACCES); /* it cannot be opened at first */
    struct log_file *f = log_file_open("/log", 20);
    assert_true(log_file_put(f, "first line", 10));
    sim_disk_fail(1, ENOSPC);
    log_file_put(f, "lost", 4);
    assert_int_equal(log_file_dropped(f), 1);
    assert_true(log_file_put(f, "second", 6));
    assert_true(log_file_put(f, "third", 5));
    assert_true(slice_is(buf_slice(sim_file("/log.1")), "first line\nsecond\n"));
    assert_true(slice_is(buf_slice(sim_file("/log")), "third\n"));
    log_file_close(f);
    world_stop();
}

static const struct CMUnitTest sim_tests[] = {
    cmocka_unit_test(test_soak), cmocka_unit_test(test_relay_soak), cmocka_unit_test(test_pour_behind), cmocka_unit_test(test_determinism), cmocka_unit_test(test_partition), cmocka_unit_test(test_connect_timeout),
    cmocka_unit_test(test_kill), cmocka_unit_test(test_namespaces), cmocka_unit_test(test_clock), cmocka_unit_test(test_disk), cmocka_unit_test(test_log_file),
};

int main(void)
{
    int failed = 0;
    for (int round = 0; round < 3; round++) /* each with seeds of its own */
        failed += _cmocka_run_group_tests("rt in the simulator: scenarios", scenario_tests, scenario_tests_n, NULL, NULL) +
                  _cmocka_run_group_tests("rt in the simulator: relays", relay_tests, relay_tests_n, NULL, NULL) +
                  _cmocka_run_group_tests("rt in the simulator: disk", disk_tests, disk_tests_n, NULL, NULL) +
                  _cmocka_run_group_tests("rt in the simulator: frames", into_tests, into_tests_n, NULL, NULL);
    return failed + cmocka_run_group_tests_name("rt in the simulator", sim_tests, NULL, NULL);
}
