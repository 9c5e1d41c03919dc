/* tls_sim_test.c - TLS in the simulator: the common scenarios with seeds of split reads and short writes, and a soak of resets.
 * What OpenSSL draws by chance does not come from the seed, so histories differ in bytes, and by a few in lengths. */
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

static const struct CMUnitTest sim_tests[] = {cmocka_unit_test(test_soak)};

int main(void)
{
    tls_certs_make();
    int failed = 0;
    for (int round = 0; round < 5; round++) { /* each with seeds of its own */
        world_alerts = round == 0;
        failed += _cmocka_run_group_tests("TLS in the simulator: scenarios", tls_scenario_tests, tls_scenario_tests_n, NULL, NULL);
    }
    failed += cmocka_run_group_tests_name("TLS in the simulator", sim_tests, NULL, NULL);
    tls_certs_free();
    return failed;
}
