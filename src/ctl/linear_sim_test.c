/* linear_sim_test.c - many clients at once on a store that is killed again and again: what they saw has to be linearizable.
 *
 * A life is that of linear_clients_test.h. Meanwhile processes are killed, the power fails, writes and syncs fail. A call whose answer came from a process that is dead is
 * open, too. SIM_SEEDS says how many lives, LINEAR_SEED runs one.
 */
#include "linear_clients_test.h"
#include "repeat_test.h"
#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- a life ------------------------------------------------------------------------------------------------------------------------ */

static void life_open(struct life *l)
{
    struct ctl_own_conf conf;
    struct buf why = {0};
    ctl_own_conf_default(&conf);
    conf.dir = "/ctl";
    conf.lease_ttl_min_s = 1;
    conf.history_revisions = 60; /* it compacts now and then */
    if (l->cold) {
        conf.value_small_max = 0;
        conf.values_bytes_max = 0;
    }
    while (ctl_own_open(&conf, l->loop, &l->ctl, &why) != OK) {
        assert_true(sim_is_down());
        sim_restart();
    }
    l->reopen = false;
    buf_free(&why);
}

static void closed(void *ctx) { ((struct life *)ctx)->ctl = NULL; }
static bool is_closed(void *ctx) { return !((struct life *)ctx)->ctl; }

static void life_close(struct life *l)
{
    ctl_close(l->ctl, closed, l);
    assert_true(sim_run(is_closed, l, 60000));
}

static bool has_trouble(void *ctx)
{
    const struct life *l = ctx;
    return l->reopen || sim_is_down() || l->calls >= CALLS;
}

/* What will go wrong next, in so many of the disk's changes. */
static void trouble_make(struct life *l)
{
    uint32_t after = roll(l, 40);
    switch (roll(l, 5)) {
    case 0: sim_disk_fail_next(SIM_DISK_WRITE, after, roll(l, 2) ? EIO : ENOSPC); break;
    case 1: sim_disk_fail_next(SIM_DISK_SYNC, after / 4, EIO); break;
    default: sim_crash_after(after + 1, roll(l, 2));
    }
}

/* At the end everything is read once more: what was acknowledged has to be there. */
static void life_read_all(struct life *l)
{
    for (uint32_t i = 0; life_read(l, i); i++) assert_true(sim_run(life_is_quiet, l, 60000));
}

static bool error_refuses(enum ctl_error e) { return e == CTL_DISK_FULL || e == CTL_DISK_FAILED || e == CTL_STOPPED; }
static void life_answered(struct life *l, enum ctl_error e)
{
    if (sim_is_down() || e == CTL_UNKNOWN || e == CTL_DISK_FAILED) l->reopen = true;
}

static void life_begin(struct life *l, uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};
    sim_start(&conf);
    sim_quiet();
    if (seed % 2) sim_disk_slow(1, 8);
    static const uint32_t rests_ms[] = {80, 5, 30, 80, 2};
    *l = (struct life){.loop = loop_new("ctl"), .random = seed * 0x9e3779b97f4a7c15ull + 1, .rest_ms = rests_ms[seed % COUNT_OF(rests_ms)], .dead = sim_is_down,
                       .refused = error_refuses, .answered = life_answered, .cold = seed % 4 < 2};
    life_start(l);
    life_open(l);
}

static void life_live(struct life *l, uint64_t seed)
{
    life_begin(l, seed);
    while (l->calls < CALLS) {
        trouble_make(l);
        assert_true(sim_run(has_trouble, l, 600000));
        sim_crash_after(0, false);
        sim_disk_fail_next(SIM_DISK_WRITE, 0, 0);
        sim_disk_fail_next(SIM_DISK_SYNC, 0, 0);
        if (!l->reopen && !sim_is_down()) continue;
        l->reopen = true;
        l->crashes++;
        life_close(l);
        if (sim_is_down()) sim_restart();
        life_open(l);
    }
    l->over = true;
    assert_true(sim_run(life_is_quiet, l, 60000));
    if (l->reopen) { /* the last answers were of a store that is in trouble */
        life_close(l);
        if (sim_is_down()) sim_restart();
        life_open(l);
    }
    life_read_all(l);
    life_close(l);
}

static void life_end(struct life *l)
{
    life_fini(l);
    loop_free(l->loop);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
}

static struct life life;

static void test_lives(void **state)
{
    const char *one = getenv("LINEAR_SEED");
    uint64_t from = one ? strtoull(one, NULL, 10) : 1, n = one ? from : test_repeats(200);
    struct lives all = {0};
    for (uint64_t seed = from; seed <= n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed);
        life_live(&life, seed);
        life_judge(&life, seed, one, &all);
        life_end(&life);
    }
    fprintf(stderr, "%llu operations, %llu of unknown result, %llu crashes and failures\n", (unsigned long long)all.ops, (unsigned long long)all.open, (unsigned long long)all.crashes);
    assert_true(one || test_few(n, 200) || (all.ops > n * CALLS / 2 && all.open > n && all.crashes > n * 2));
}

/* A store that would give one old value, forget one write or do one twice: the check notices nearly all of that. */
static void test_lies(void **state)
{
    int told = 0, lies = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        life_live(&life, seed);
        for (size_t i = 0; i < life.h.n; i += 7) {
            struct lin_op *op = &life.h.ops[i], was = *op;
            struct buf why = {0};
            if (op->answered == LIN_OPEN || op->result == LIN_UNTOLD) continue;
            op->result = op->what == LIN_READ || op->what == LIN_WRITE ? op->result + 1 : !op->result;
            lies++;
            told += lin_check(&life.h, &why) == LIN_NO;
            *op = was;
            buf_free(&why);
        }
        life_end(&life);
    }
    fprintf(stderr, "%d of %d lies\n", told, lies);
    assert_true(lies > 100 && told * 10 > lies * 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lies), cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
