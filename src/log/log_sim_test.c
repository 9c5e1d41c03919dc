/* log_sim_test.c - the log in the simulator: the common scenarios, and faults of the disk. */
#include "log_scenarios.h"
#include "sim.h"

static uint64_t seed = 1;

void world_start(void)
{
    struct sim_conf conf = {.seed = seed++};
    sim_start(&conf);
}

void world_stop(void)
{
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_PART), 0);
    assert_int_equal(mem_bytes(MEM_SIM), 0);
}

const char *world_dir(void) { return "/log"; }

bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms) { return sim_run(done, ctx, ms); }

int main(void)
{
    return _cmocka_run_group_tests("log_sim", log_scenarios, log_scenarios_n, NULL, NULL);
}
