/* linear_etcd_test.c - many clients at once on a cluster of three etcd-servers that are killed and stopped: what they saw has to be linearizable.
 *
 * A life is that of linear_clients_test.h, on keys of its own; its store is connected with a member by chance. While it lasts one member after the other, by chance and often
 * the one that leads or serves, is killed and started again, or stopped for a while. What this finds is what the engine makes of all that: a change that is told as failed and
 * was made, one that is sent twice, a read that is answered from the past. ETCD_LIVES says how many lives, LINEAR_SEED is the first one's.
 */
#include "etcd_world_test.h"
#include "linear_clients_test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define LIVES 3
#define LIFE_MS 60000          /* the longest */

static struct cluster three;
static struct life life;

/* Of what a call may be told without having been made. */
static bool error_refuses(enum ctl_error e) { return e == CTL_UNAVAILABLE; }

static bool life_is_done(void *ctx)
{
    const struct life *l = ctx;
    return l->calls >= CALLS && life_is_quiet(ctx);
}

static bool wait(struct life *l, uint64_t ms) { return kernel_run(&three.w, life_is_done, l, ms); }

static void store_open(struct life *l)
{
    struct ctl_etcd_endpoint at[MEMBERS_MAX];
    struct ctl_etcd_conf conf = cluster_conf(&three, (int)roll(l, MEMBERS_MAX), at);
    cluster_open(&three, &conf);
    l->ctl = three.w.ctl;
}

/* No keys, and no leases of the life before. */
static void store_wipe(void)
{
    cluster_wipe(&three);
    for (int64_t id = 1; id <= LEASES; id++) {
        struct answer a;
        enum ctl_error e;
        while ((e = do_op(&three.w, &a, (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = id}})) != CTL_OK && e != CTL_LEASE_NOT_FOUND) answer_fini(&a);
        answer_fini(&a);
    }
}

/* One thing that goes wrong, and is well again. */
static void trouble(struct life *l)
{
    int leads = roll(l, 2) ? cluster_leader(&three) : -1, victim = leads >= 0 ? leads : (int)roll(l, MEMBERS_MAX);
    bool kills = roll(l, 3) > 0;
    l->crashes++;
    member_signal(&three, victim, kills ? SIGKILL : SIGSTOP);
    (void)wait(l, 300 + roll(l, kills ? 1500 : 2500));
    if (kills) member_start(&three, victim);
    else member_signal(&three, victim, SIGCONT);
    (void)wait(l, 200 + roll(l, 800));
}

static void life_live(struct life *l, uint64_t seed)
{
    static const uint32_t rests_ms[] = {150, 60, 250};
    store_wipe();
    cluster_close(&three);
    *l = (struct life){.loop = three.w.loop, .random = seed * 0x9e3779b97f4a7c15ull + 1, .rest_ms = rests_ms[seed % COUNT_OF(rests_ms)], .refused = error_refuses};
    store_open(l);
    life_start(l);
    uint64_t until_ms = loop_now_ms(l->loop) + LIFE_MS;
    while (!wait(l, roll(l, 500))) {
        trouble(l);
        assert_true(loop_now_ms(l->loop) < until_ms);
    }
    l->over = true;
    for (uint32_t i = 0; life_read(l, i); i++) assert_true(kernel_run(&three.w, life_is_quiet, l, 10000));
}

static void test_lives(void **state)
{
    const char *text = getenv("ETCD_LIVES"), *first = getenv("LINEAR_SEED");
    uint64_t from = first ? strtoull(first, NULL, 10) : 1, n = text ? strtoull(text, NULL, 10) : LIVES;
    struct lives all = {0};
    for (uint64_t seed = from; seed < from + n; seed++) {
        life_live(&life, seed);
        life_judge(&life, seed, true, &all);
        life_fini(&life);
    }
    print_message("%llu operations, %llu of unknown result, %llu members killed or stopped\n", (unsigned long long)all.ops, (unsigned long long)all.open, (unsigned long long)all.crashes);
    assert_true(all.ops > n * CALLS / 2 && all.crashes >= n);
}

static int start(void **state)
{
    struct ctl_etcd_endpoint at[MEMBERS_MAX];
    cluster_init(&three, MEMBERS_MAX);
    cluster_start(&three);
    struct ctl_etcd_conf conf = cluster_conf(&three, 0, at);
    cluster_open(&three, &conf);
    return 0;
}

static int stop(void **state)
{
    cluster_fini(&three);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests_name("linear_etcd", tests, start, stop);
}
