/* tls_sim_test.c - TLS in the simulator: the common scenarios with seeds of split reads and short writes, and a soak of resets.
 * What OpenSSL draws by chance does not come from the seed, so histories differ in bytes, and by a few in lengths. */
#include "repeat_test.h"
#include "sim.h"
#include "tls_scenarios.h"

const size_t world_transfer_bytes = 2000000;
bool world_alerts = true;
const uint32_t world_many = 200;

static uint64_t world_seed = 1;

static struct sim_conf conf_of_seed(uint64_t seed)
{
    return (struct sim_conf){.seed = seed, .latency_us_min = 20, .latency_us_max = 400, .split_pct = 15, .short_write_pct = 15};
}

void world_start(void)
{
    struct sim_conf conf = conf_of_seed(world_seed++);
    if (world_alerts) conf.short_write_pct = 0;
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

/* Under resets every connection completes or fails at both ends; what was delivered is right; nothing is left. */
static void test_soak(void **state)
{
    static struct duo d;
    uint32_t failed = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct sim_conf conf = conf_of_seed(seed);
        conf.reset_ppm = 20000;
        conf.split_pct = seed % 2 ? 60 : 10;
        conf.socket_bytes = seed % 5 ? 0 : 3000;
        sim_start(&conf);
        memset(&d, 0, sizeof d);
        d.server_ctx = tls_server_plainly;
        d.client_ctx = tls_client_plainly;
        d.server_name = d.verify_name = "a.example";
        d.client.want = 100 * (seed % 900);
        d.server.want = 70000 * (seed % 4);
        d.client.shut_after = d.server.shut_after = true;
        d.client.close_in = d.server.close_in = seed % 3 ? CLOSE_NOWHERE : CLOSE_IN_FAILED;
        struct loop *l = loop_new("test");
        duo_open(&d, l);
        if (!sim_run(duo_settled, &d, 600000) && !d.client.failed) fail_msg("seed %llu does not come to its end", (unsigned long long)seed);
        if (d.client.bad || d.server.bad) fail_msg("seed %llu: wrong bytes", (unsigned long long)seed);
        if (d.client.failed || d.server.failed) failed++;
        else if (!d.client.truncated && !d.server.truncated) assert_true(d.client.got == d.server.want && d.server.got == d.client.want);
        duo_close(&d);
        loop_free(l);
        world_stop();
    }
    assert_in_range(failed, 10, 140);
}

/* ---- session ticket keys in the course of a day ---- */

#define HOUR_MS 3600000u
#define KEY_BYTES 88 /* see tls_tickets.c */

struct keyring {
    struct tls_tickets *keys;
    struct timer timer;
    struct loop *loop;
};

/* As an engine does it. */
static void keyring_turn(struct timer *t)
{
    struct keyring *k = CONTAINER_OF(t, struct keyring, timer);
    timer_set(k->loop, t, tls_tickets_refresh(k->keys, wall_ns() / 1000000, 6 * HOUR_MS));
}

/* Which of the keys that are accepted this one is; -1: none. Times are left out. */
static int place_of(struct tls_tickets *keys, const char *key)
{
    struct buf b = {0};
    int at = -1;
    tls_tickets_export(keys, &b);
    for (size_t i = 0; 8 + (i + 1) * KEY_BYTES <= b.n; i++)
        if (memcmp(b.p + 8 + i * KEY_BYTES + 8, key, KEY_BYTES - 8) == 0) at = (int)i;
    buf_free(&b);
    return at;
}

static bool never(void *ctx) { return false; }

static void test_rotation(void **state)
{
    struct sim_conf conf = {.seed = 7};
    sim_start(&conf);
    struct keyring k = {.loop = loop_new("test"), .keys = tls_tickets_new(wall_ns() / 1000000)};
    struct buf first = {0};
    tls_tickets_export(k.keys, &first);
    const char *key = first.p + 16;
    timer_init(&k.timer, keyring_turn);
    keyring_turn(&k.timer);
    for (int hour = 0; hour < 24; hour++) { /* looked at in the middle of each */
        sim_run(never, NULL, hour ? HOUR_MS : HOUR_MS / 2);
        assert_int_equal(place_of(k.keys, key), hour < 18 ? hour / 6 : -1);
        assert_true(wall_ns() / 1000000 - tls_tickets_rotated_ms(k.keys) <= 6 * HOUR_MS);
    }
    /* A machine that slept for a day: the keys of yesterday are worth nothing. */
    uint64_t now = wall_ns() / 1000000 + 24 * (uint64_t)HOUR_MS;
    buf_clear(&first);
    tls_tickets_export(k.keys, &first);
    key = first.p + 16;
    assert_int_equal(place_of(k.keys, key), 0);
    assert_int_equal(tls_tickets_refresh(k.keys, now, 6 * HOUR_MS), 6 * HOUR_MS);
    assert_int_equal(place_of(k.keys, key), -1);
    assert_int_equal(tls_tickets_rotated_ms(k.keys), now);
    /* Its clock was wrong by a day, and is set back: no key is kept for longer than a period because of that. */
    buf_clear(&first);
    tls_tickets_export(k.keys, &first);
    key = first.p + 16;
    assert_int_equal(tls_tickets_refresh(k.keys, now - HOUR_MS, 6 * HOUR_MS), 6 * HOUR_MS);
    assert_int_equal(place_of(k.keys, key), 0);
    tls_tickets_refresh(k.keys, now - 24 * (uint64_t)HOUR_MS, 6 * HOUR_MS);
    assert_int_equal(place_of(k.keys, key), 1);
    buf_free(&first);
    timer_clear(&k.timer);
    tls_tickets_unref(k.keys);
    loop_free(k.loop);
    sim_stop();
}

/* A kernel that refuses some connections: those go on as they were. */
static void test_kernel_refuses(void **state)
{
    static struct duo d;
    uint64_t taken = 0, refused = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_conf conf = conf_of_seed(seed);
        conf.tls_refuse_pct = 50;
        conf.socket_bytes = seed % 2 ? 0 : 20000;
        sim_start(&conf);
        memset(&d, 0, sizeof d);
        d.server_ctx = tls_server_plainly;
        d.client_ctx = tls_client_plainly;
        d.server_name = d.verify_name = "a.example";
        d.client.want = 5000 * (seed % 7);
        d.server.want = 300000 * (1 + seed % 3); /* more than waits for the handshake */
        d.server.shut_after = true; /* a client that has shut makes the kernel refuse, too */
        struct loop *l = loop_new("test");
        duo_open(&d, l);
        assert_true(sim_run(duo_settled, &d, 600000));
        assert_false(d.client.bad || d.server.bad || d.client.failed || d.server.failed || d.client.truncated || d.server.truncated);
        assert_true(d.client.got == d.server.want && d.server.got == d.client.want);
        taken += counter_read(&loop_tls_counters(l)->kernel);
        refused += counter_read(&loop_tls_counters(l)->kernel_refused);
        duo_close(&d);
        loop_free(l);
        world_stop();
    }
    assert_true(taken > 8 && refused > 8);
}

static const struct CMUnitTest kernel_tests[] = {cmocka_unit_test(test_soak), cmocka_unit_test(test_kernel_refuses)};
static const struct CMUnitTest sim_tests[] = {cmocka_unit_test(test_soak), cmocka_unit_test(test_rotation)};

int main(void)
{
    assert_true(tls_kernel_start());
    tls_certs_make();
    int failed = 0;
    for (uint64_t round = 0; round < MAX(2u, test_repeats(5)); round++) { /* each with seeds of its own */
        world_alerts = round == 0;
        failed += _cmocka_run_group_tests("TLS in the simulator: scenarios", tls_scenario_tests, tls_scenario_tests_n, NULL, NULL);
    }
    failed += cmocka_run_group_tests_name("TLS in the simulator", sim_tests, NULL, NULL);
    tls_kernel_min = tls_kernel_write_min = 0; /* from the first write on */
    for (uint64_t round = 0; round < 2; round++) {
        world_alerts = round == 0;
        failed += _cmocka_run_group_tests("TLS in the simulator: records made by the kernel", tls_scenario_tests, tls_scenario_tests_n, NULL, NULL);
    }
    failed += cmocka_run_group_tests_name("TLS in the simulator, records made by the kernel", kernel_tests, NULL, NULL);
    tls_certs_free();
    return failed;
}
