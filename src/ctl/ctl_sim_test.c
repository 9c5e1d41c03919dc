/* ctl_sim_test.c - the control store in the simulator: the common scenarios, chosen faults, and whole lives against a model.
 *
 * A life is random calls in groups, some with a crash of the process or of the power in front of one of the disk's next changes, some with a write or a sync that fails. The
 * model is a list of all events, from which any state is computed anew. After each start the store must hold what was answered, and of what was under way
 * a beginning, whole revisions; watches must have been told every event once, in order. SIM_SEEDS says how many lives.
 */
#include "ctl_world_test.h"
#include "repeat_test.h"
#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool sim_world_run(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms) { return sim_run(done, ctx, ms); }

static bool store_closed;
static void store_gone(void *ctx) { store_closed = true; }
static bool store_is_gone(void *ctx) { return store_closed; }

static void store_close(struct world *w)
{
    store_closed = false;
    ctl_close(w->ctl, store_gone, NULL);
    assert_true(sim_run(store_is_gone, NULL, 60000));
    w->ctl = NULL;
}

static struct ctl_own_conf store_conf(void)
{
    struct ctl_own_conf conf;
    ctl_own_conf_default(&conf);
    conf.dir = "/ctl";
    conf.history_ms = 0;
    return conf;
}

static void store_open(struct world *w, const struct ctl_own_conf *conf)
{
    struct buf why = {0};
    if (ctl_own_open(conf, w->loop, &w->ctl, &why) != OK) fail_msg("%s", why.p);
    buf_free(&why);
}

static struct world the_world;

static void world_start(uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};
    sim_start(&conf);
    sim_quiet();
    the_world = (struct world){.loop = loop_new("ctl"), .run = sim_world_run};
}

static void world_stop(void)
{
    if (the_world.ctl) store_close(&the_world);
    loop_free(the_world.loop);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
}

static int setup(void **state)
{
    world_start(1);
    struct ctl_own_conf conf = store_conf();
    store_open(&the_world, &conf);
    *state = &the_world;
    return 0;
}

/* No value stays in memory but those that somebody holds. */
static void conf_cold(struct ctl_own_conf *conf)
{
    conf->value_small_max = 0;
    conf->values_bytes_max = 0;
}

static int setup_cold(void **state)
{
    world_start(2);
    struct ctl_own_conf conf = store_conf();
    conf_cold(&conf);
    conf.recent_bytes_max = 1;
    store_open(&the_world, &conf);
    *state = &the_world;
    return 0;
}

static int teardown(void **state)
{
    world_stop();
    return 0;
}

static void expect(struct world *w, struct ctl_op op, enum ctl_error want)
{
    struct answer a;
    assert_int_equal(do_op(w, &a, op), want);
    answer_fini(&a);
}

static void exempt_done(struct ctl_call *call) { call->done = NULL; }
static bool exempt_over(void *ctx) { return !((struct ctl_call *)ctx)->done; }

/* A call of the node's own. */
static void expect_exempt(struct world *w, struct ctl_op op, enum ctl_error want)
{
    struct ctl_call call = {.op = op, .exempt = true, .done = exempt_done};
    ctl_submit(w->ctl, &call);
    assert_true(w->run(w, exempt_over, &call, 60000));
    assert_int_equal(call.error, want);
}

static void value_is(struct world *w, const char *key, const char *want)
{
    struct answer a;
    assert_string_equal(get(w, &a, (struct ctl_range){.key = slice_cstr(key)}), want);
    answer_fini(&a);
}

static bool never(void *ctx) { return false; }

/* ---- faults ---- */

static void test_disk_full(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t r = put(w, "a", "1");
    (void)put(w, "a", "2");
    char *large = mem_new(MEM_MISC, 400000); /* more than there is room for ahead of the WAL */
    struct ctl_op op = {.kind = CTL_PUT, .put = {.key = SLICE("b"), .value = slice_of(large, 400000)}};
    sim_disk_bytes_max(sim_file("/ctl/ctl.db")->n + sim_file("/ctl/ctl.db-wal")->n + 20000);
    struct seen s = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){.key = SLICE("a"), .end = SLICE("z")});
    assert_int_equal(do_op(w, &a, op), CTL_DISK_FULL);
    assert_non_null(strstr(a.call.why, "ctl.db-wal"));
    assert_non_null(strstr(a.call.why, "no space"));
    answer_fini(&a);
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    assert_true(st.revision == r + 1 && st.trouble == CTL_DISK_FULL && st.keys == 1);
    value_is(w, "a", "a=2");
    value_is(w, "b", "");
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .revision = r}), "a=1");
    answer_fini(&a);
    sim_disk_bytes_max(0);
    assert_int_equal(put(w, "c", "3"), r + 2);
    ctl_status(w->ctl, &st);
    assert_int_equal(st.trouble, CTL_OK);
    seen_wait(w, &s, 1);
    assert_string_equal(s.text.p, "+c=3 |"); /* what failed was not told */
    seen_stop(&s);
    mem_free(large);
}

static void test_write_fails(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t r = put(w, "a", "1");
    sim_disk_fail_next(SIM_DISK_WRITE, 0, EIO);
    assert_int_equal(do_op(w, &a, op_put("a", "2")), CTL_UNKNOWN);
    assert_non_null(strstr(a.call.why, "write /ctl/ctl.db-wal"));
    answer_fini(&a);
    value_is(w, "a", "a=1");
    assert_int_equal(put(w, "a", "3"), r + 1);
    struct ctl_own_conf conf = store_conf();
    store_close(w);
    store_open(w, &conf);
    value_is(w, "a", "a=3");
}

static void test_sync_fails(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t r = put(w, "a", "1");
    (void)put(w, "a", "2");
    sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
    assert_int_equal(do_op(w, &a, op_put("a", "3")), CTL_UNKNOWN);
    assert_non_null(strstr(a.call.why, "could not sync /ctl/ctl.db-wal"));
    answer_fini(&a);
    /* Nothing is written any more; all is read. */
    assert_int_equal(do_op(w, &a, op_put("a", "4")), CTL_DISK_FAILED);
    assert_non_null(strstr(a.call.why, "until the store is opened again"));
    answer_fini(&a);
    value_is(w, "a", "a=2");
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .revision = r}), "a=1");
    answer_fini(&a);
    struct ctl_own_conf conf = store_conf();
    store_close(w);
    store_open(w, &conf);
    put(w, "a", "5");
    value_is(w, "a", "a=5");
}

static void test_read_fails(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t r = put(w, "a", "1");
    put(w, "a", "2");
    struct ctl_own_conf conf = store_conf();
    store_close(w); /* so that nothing is in SQLite's memory */
    store_open(w, &conf);
    for (int i = 0; i < 400; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        put(w, key, "0123456789012345678901234567890123456789");
    }
    value_is(w, "a", "a=2");
    sim_disk_fail_next(SIM_DISK_READ, 0, EIO);
    enum ctl_error e = do_op(w, &a, (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("a"), .revision = r}});
    assert_true(e == CTL_OK || (e == CTL_DISK_FAILED && strstr(a.call.why, "could not read")));
    answer_fini(&a);
    sim_disk_fail_next(SIM_DISK_READ, 0, 0);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .revision = r}), "a=1");
    answer_fini(&a);
}

/* Zeroes ahead of the WAL take nothing away from what is to be written when the disk fills up, and are written once for many commits. */
static void test_zeroes_ahead(void **state)
{
    struct world *w = *state;
    int64_t r = put(w, "a", "1");
    size_t wal = sim_file("/ctl/ctl.db-wal")->n;
    assert_true(wal > 256u << 10);
    for (int i = 0; i < 20; i++) assert_int_equal(put(w, "a", "2"), r + 1 + i);
    assert_int_equal(sim_file("/ctl/ctl.db-wal")->n, wal);
    sim_disk_bytes_max(sim_file("/ctl/ctl.db")->n + wal + 20000);
    enum ctl_error e = CTL_OK;
    for (int i = 0; e == CTL_OK && i < 100; i++) {
        struct answer a;
        e = do_op(w, &a, op_put("a", "3"));
        answer_fini(&a);
    }
    assert_int_equal(e, CTL_DISK_FULL);
    size_t full = sim_file("/ctl/ctl.db-wal")->n;
    assert_true(full > wal && full <= wal + 20000);
    value_is(w, "a", "a=3");
    sim_disk_bytes_max(0);
    put(w, "a", "4");
    assert_true(sim_file("/ctl/ctl.db-wal")->n > full + (200u << 10));
}

/* Who keeps a lease alive that is being revoked is told what became of it, not what is about to become of it. */
static void test_keep_while_revoked(void **state)
{
    struct world *w = *state;
    struct answer revoke, keep;
    struct ctl_op keep_op = {.kind = CTL_LEASE_KEEP, .lease = {.id = 7}}, revoke_op = {.kind = CTL_LEASE_REVOKE, .lease = {.id = 7}};
    expect(w, (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = 7, .ttl_s = 100}}, CTL_OK);
    sim_disk_slow(10, 10);
    for (int fails = 1; fails >= 0; fails--) {
        if (fails) sim_disk_fail_next(SIM_DISK_WRITE, 0, ENOSPC);
        ask(w, &revoke, revoke_op);
        (void)sim_run(never, NULL, 1);
        ask(w, &keep, keep_op);
        (void)sim_run(never, NULL, 1);
        assert_false(keep.over && !revoke.over);
        answer_wait(w, &keep);
        assert_true(revoke.over);
        assert_int_equal(revoke.call.error, fails ? CTL_DISK_FULL : CTL_OK);
        assert_int_equal(keep.call.error, CTL_OK);
        assert_int_equal(keep.call.result.lease.ttl_s, fails ? 100 : 0);
        answer_fini(&revoke);
        answer_fini(&keep);
    }
    sim_disk_slow(0, 0);
}

/* One whose time is over, and that can't be revoked, is neither gone nor kept alive. */
static void test_keep_expired(void **state)
{
    struct world *w = *state;
    struct ctl_op keep_op = {.kind = CTL_LEASE_KEEP, .lease = {.id = 7}};
    expect(w, (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = 7, .ttl_s = 5}}, CTL_OK);
    sim_disk_fail_next(SIM_DISK_WRITE, 0, ENOSPC);
    (void)sim_run(never, NULL, 5500);
    expect(w, keep_op, CTL_DISK_FULL);
    (void)sim_run(never, NULL, 2000);
    struct answer a;
    assert_int_equal(do_op(w, &a, keep_op), CTL_OK);
    assert_int_equal(a.call.result.lease.ttl_s, 0);
    answer_fini(&a);
}

/* ---- values that are not in memory ---- */

static uint64_t values_read(const struct world *w) { return counter_read(&ctl_counters(w->ctl)->values_read); }

/* Each way in which a value is needed. */
static void test_cold_values(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t first = put(w, "a", "1");
    put(w, "b", "2");
    put(w, "c", "");
    uint64_t read = values_read(w);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z")}), "a=1 b=2 c=");
    answer_fini(&a);
    assert_int_equal(values_read(w), read + 2); /* none of what is empty */
    read = values_read(w);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z"), .keys_only = true}), "a= b= c=");
    answer_fini(&a);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z"), .target = CTL_SORT_MOD, .limit = 1, .keys_only = true}), "a= more");
    answer_fini(&a);
    (void)put(w, "c", "3");
    assert_int_equal(values_read(w), read);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z"), .target = CTL_SORT_VALUE, .order = CTL_SORT_DESCEND, .keys_only = true}),
                        "c= b= a=");
    answer_fini(&a);
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .revision = first}), "a=1");
    answer_fini(&a);
    struct ctl_op op = op_put("a", "4");
    op.put.prev_kv = true;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(slice_is(a.call.result.put.prev.value, "1"));
    answer_fini(&a);
    op = op_put("a", "");
    op.put.ignore_value = true;
    expect(w, op, CTL_OK);
    value_is(w, "a", "a=4");
    op = op_delete("b", "d");
    op.del.prev_kv = true;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(a.call.result.del.prev_n == 2 && slice_is(a.call.result.del.prev[1].value, "3"));
    answer_fini(&a);
}

/* A transaction that compares values, deletes, and then looks at what its limit lets it see. */
static void test_cold_txn(void **state)
{
    struct world *w = *state;
    struct answer a;
    put(w, "a", "1");
    put(w, "b", "2");
    put(w, "c", "3");
    struct ctl_compare compare = {.key = SLICE("a"), .target = CTL_TARGET_VALUE, .value = SLICE("1")};
    struct ctl_op ops[] = {op_delete("a", ""), {.kind = CTL_RANGE, .range = {.key = SLICE("a"), .end = SLICE("z"), .limit = 1}}, op_put("d", "4")};
    struct ctl_op txn = {.kind = CTL_TXN, .txn = {.compares = &compare, .compares_n = 1, .then_ops = ops, .then_n = 3, .else_ops = ops + 1, .else_n = 2}};
    assert_int_equal(do_op(w, &a, txn), CTL_OK);
    const struct ctl_range_result *r = &a.call.result.txn.ops[1].range;
    assert_true(a.call.result.txn.succeeded && r->n == 1 && r->count == 2 && slice_is(r->kvs[0].value, "2"));
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, txn), CTL_OK);
    r = &a.call.result.txn.ops[0].range;
    assert_true(!a.call.result.txn.succeeded && r->n == 1 && r->count == 3 && slice_is(r->kvs[0].value, "2"));
    answer_fini(&a);
}

/* What was there before an event is read from history when it is not in memory; nothing is told twice or left out. */
static void test_cold_watch(void **state)
{
    struct world *w = *state;
    put(w, "a", "1");
    put(w, "b", "2");
    struct seen s = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){.key = SLICE("a"), .end = SLICE("z"), .prev_kv = true});
    put(w, "n", "0");
    put(w, "a", "3");
    expect(w, op_delete("b", ""), CTL_OK);
    put(w, "a", "4");
    seen_wait(w, &s, 4);
    assert_string_equal(s.text.p, "+n=0 |+a=3(1) |-b(2) |+a=4(3) |");
    seen_stop(&s);
}

struct overwriter {
    struct world *w;
    struct ctl_call call;
    int times;
    bool enough;
};
static void overwritten(struct ctl_call *call)
{
    struct overwriter *o = CONTAINER_OF(call, struct overwriter, call);
    assert_int_equal(call->error, CTL_OK);
    o->times++;
    if (!o->enough && o->times < 100) ctl_submit(o->w->ctl, call);
}

static bool two_overwritten(void *ctx) { return ((struct overwriter *)ctx)->times >= 2; }

/* Who reads values that are replaced and forgotten faster than they are read comes to his answer. */
static void test_cold_overwritten(void **state)
{
    enum { KEYS_N = 2500 };
    struct overwriter o = {.w = *state};
    struct arena arena;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, KEYS_N * sizeof *ops);
    for (size_t i = 0; i < KEYS_N; i++) ops[i] = op_put(arena_printf(&arena, "k%05zu", i), "value");
    o.call = (struct ctl_call){.op = {.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = KEYS_N}}, .exempt = true, .done = overwritten};
    ctl_submit(o.w->ctl, &o.call);
    assert_true(sim_run(two_overwritten, &o, 60000));
    struct answer a;
    ask(o.w, &a, (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l")}});
    answer_wait(o.w, &a);
    assert_true(a.call.error == CTL_OK && a.call.result.range.n == KEYS_N && o.times < 50);
    answer_fini(&a);
    o.enough = true;
    int before = o.times;
    while (o.times == before) (void)sim_run(never, NULL, 1);
    arena_fini(&arena);
}

/* A disk that can't be read is said to whom it concerns; the next one is asked again. */
static void test_cold_unreadable(void **state)
{
    struct world *w = *state;
    struct ctl_own_conf conf = store_conf();
    conf_cold(&conf);
    char value[9001]; /* some pages of its own, which opening has no need to read */
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        put(w, key, value);
    }
    store_close(w);
    store_open(w, &conf);
    struct answer a;
    struct ctl_op all = {.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l")}};
    sim_disk_fail_next(SIM_DISK_READ, 0, EIO);
    assert_int_equal(do_op(w, &a, all), CTL_DISK_FAILED);
    assert_non_null(strstr(a.call.why, "could not read /ctl/ctl.db"));
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, all), CTL_OK);
    assert_int_equal(a.call.result.range.n, 20);
    answer_fini(&a);
    put(w, "k1", "2");
}

static const struct CMUnitTest cold_tests[] = {
    cmocka_unit_test(test_cold_values), cmocka_unit_test(test_cold_txn), cmocka_unit_test(test_cold_watch), cmocka_unit_test(test_cold_overwritten),
    cmocka_unit_test(test_cold_unreadable),
};

/* ---- limits ---- */

static bool is_below_quota(void *ctx)
{
    struct ctl_status st;
    ctl_status(((struct world *)ctx)->ctl, &st);
    return !st.nospace && st.bytes < 700000;
}

static void test_quota(void **state)
{
    struct world *w = *state;
    struct ctl_own_conf conf = store_conf();
    conf.quota_bytes = 4u << 20;
    store_close(w);
    store_open(w, &conf);
    char value[50000];
    memset(value, 'v', sizeof value);
    struct ctl_op op = {.kind = CTL_PUT, .put = {.key = SLICE("a"), .value = slice_of(value, sizeof value)}};
    struct answer a;
    int puts = 0;
    enum ctl_error e;
    while ((e = do_op(w, &a, op)) == CTL_OK && puts < 1000) {
        answer_fini(&a);
        puts++;
    }
    answer_fini(&a);
    assert_int_equal(e, CTL_NOSPACE);
    assert_true(puts > 60 && puts < 100);
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    assert_true(st.nospace && st.bytes_used >= conf.quota_bytes);
    struct ctl_op in_txn[] = {op, op_delete("b", "")};
    expect(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.else_ops = in_txn, .else_n = 1, .then_ops = in_txn + 1, .then_n = 1}}, CTL_NOSPACE);
    expect(w, (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.ttl_s = 10}}, CTL_NOSPACE);
    expect_exempt(w, op_put("node", "1"), CTL_OK); /* who fills the store does not stop the node */
    expect(w, op_delete("a", ""), CTL_OK);
    ctl_status(w->ctl, &st);
    expect(w, (struct ctl_op){.kind = CTL_COMPACT, .compact = st.revision}, CTL_OK);
    assert_true(sim_run(is_below_quota, w, 60000)); /* history goes, and its space is given back */
    put(w, "a", "small");
    const struct buf *file = sim_file("/ctl/ctl.db");
    assert_true(file && file->n < 3u << 20);
}

static void test_limits(void **state)
{
    struct world *w = *state;
    struct ctl_own_conf conf = store_conf();
    conf.calls_max = 3;
    conf.watches_max = 2;
    conf.leases_max = 2;
    conf.request_bytes_max = 10000;
    store_close(w);
    store_open(w, &conf);
    struct answer a[5];
    for (size_t i = 0; i < 5; i++) ask(w, &a[i], op_put("a", "1"));
    for (size_t i = 0; i < 5; i++) {
        answer_wait(w, &a[i]);
        assert_int_equal(a[i].call.error, i < 3 ? CTL_OK : CTL_TOO_MANY_REQUESTS);
        answer_fini(&a[i]);
    }
    assert_int_equal(counter_read(&ctl_counters(w->ctl)->calls_refused), 2);
    struct seen s[2] = {{0}, {0}};
    for (size_t i = 0; i < 2; i++) seen_start(w, &s[i], &(struct ctl_watch_conf){.key = SLICE("a")});
    assert_null(ctl_watch_start(w->ctl, &(struct ctl_watch_conf){.key = SLICE("a")}, NULL, NULL));
    for (size_t i = 0; i < 2; i++) seen_stop(&s[i]);
    struct ctl_op grant = {.kind = CTL_LEASE_GRANT, .lease = {.ttl_s = 1000}};
    for (int i = 0; i < 3; i++) expect(w, grant, i < 2 ? CTL_OK : CTL_TOO_MANY_REQUESTS);
    expect_exempt(w, grant, CTL_OK);
    char value[10000] = "";
    expect(w, (struct ctl_op){.kind = CTL_PUT, .put = {.key = SLICE("a"), .value = slice_of(value, sizeof value)}}, CTL_REQUEST_TOO_LARGE);
    /* Nesting is bounded by the operations that are left: 128 levels of one. */
    struct ctl_op nest[130] = {{.kind = CTL_RANGE, .range = {.key = SLICE("a")}}};
    for (size_t i = 1; i < COUNT_OF(nest); i++) nest[i] = (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = &nest[i - 1], .then_n = 1}};
    expect(w, nest[128], CTL_OK);
    expect(w, nest[129], CTL_TOO_MANY_OPS);
    struct ctl_op wide[64], wider[64], widest = {.kind = CTL_TXN, .txn = {.then_ops = wider, .then_n = 62}};
    for (size_t i = 0; i < 64; i++) {
        wide[i] = nest[0];
        wider[i] = (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = wide, .then_n = 64, .else_ops = wide, .else_n = 64}};
    }
    expect(w, widest, CTL_OK); /* 7,999 operations in all */
    widest.txn.then_n = 64;
    expect(w, widest, CTL_TOO_MANY_OPS);
    expect_exempt(w, widest, CTL_OK);
    expect_exempt(w, (struct ctl_op){.kind = CTL_PUT, .put = {.key = SLICE("a"), .value = slice_of(value, sizeof value)}}, CTL_OK);
}

/* A transaction of the node's own: ten thousand keys put, as many deleted, one beside a range. */
static void test_exempt(void **state)
{
    enum { KEYS = 10000 };
    struct world *w = *state;
    struct arena arena;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, (2 * KEYS + 1) * sizeof *ops);
    for (size_t i = 0; i < KEYS; i++) {
        const char *key = arena_printf(&arena, "k%05zu", i);
        ops[i] = op_put(key, "v");
        ops[KEYS + i] = op_delete(arena_printf(&arena, "d%05zu", i), "");
    }
    ops[2 * KEYS] = op_delete("r", "s");
    struct ctl_op txn = {.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = 2 * KEYS + 1}};
    expect(w, txn, CTL_TOO_MANY_OPS);
    expect_exempt(w, txn, CTL_OK);
    ops[2 * KEYS] = op_delete("k07", "k08");
    expect_exempt(w, txn, CTL_DUPLICATE_KEY);
    ops[2 * KEYS] = op_delete("k07777", "");
    expect_exempt(w, txn, CTL_DUPLICATE_KEY);
    arena_fini(&arena);
}

/* Counts all keys so often behind their deletion in the same transaction, as of revision; the seconds of the processor that it took. */
static double behind_deletion(struct world *w, size_t keys, size_t ranges, int64_t revision, int64_t count)
{
    struct arena arena;
    struct answer a;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, (keys + ranges + 1) * sizeof *ops);
    for (size_t i = 0; i < keys; i++) ops[i] = op_put(arena_printf(&arena, "k%06zu", i), "v");
    expect_exempt(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = keys}}, CTL_OK);
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    ops[0] = op_delete("k", "l");
    for (size_t i = 1; i <= ranges; i++)
        ops[i] = (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l"), .revision = revision ? st.revision : 0, .count_only = true}};
    clock_t from = clock();
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = ranges + 1}}), CTL_OK);
    double seconds = (double)(clock() - from) / CLOCKS_PER_SEC;
    for (size_t i = 1; i <= ranges; i++) assert_int_equal(a.call.result.txn.ops[i].range.count, count);
    answer_fini(&a);
    arena_fini(&arena);
    return seconds;
}

/* What was there before a batch is found as fast as what is there now: a transaction that looks behind its own deletions does not hold up the store. */
static void test_versions_of_a_batch(void **state)
{
    enum { KEYS = 40000, RANGES = 20 };
    double now = behind_deletion(*state, KEYS, RANGES, 0, 0), before = behind_deletion(*state, KEYS, RANGES, 1, KEYS);
    print_message("%d keys counted %d times behind their deletion: %.2f s, as they were before it %.2f s\n", KEYS, RANGES, now, before);
    assert_true(before < 5 * now + 0.2);
}

/* Each operation of a transaction can look at all keys: all together no more than a million times one. */
static void test_keys_of_a_txn(void **state)
{
    enum { KEYS = 20000, MANY = 60, FEW = 50 };
    struct world *w = *state;
    struct arena arena;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, KEYS * sizeof *ops);
    struct ctl_compare compares[MANY];
    for (size_t i = 0; i < KEYS; i++) ops[i] = op_put(arena_printf(&arena, "k%05zu", i), "v");
    expect_exempt(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = KEYS}}, CTL_OK);
    struct ctl_op all = {.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l"), .keys_only = true}};
    for (size_t i = 0; i < MANY; i++) {
        ops[i] = all;
        compares[i] = (struct ctl_compare){.key = SLICE("k"), .end = SLICE("l"), .target = CTL_TARGET_VERSION, .result = CTL_GREATER};
    }
    struct ctl_op reads = {.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = FEW}}, writes = reads;
    expect(w, reads, CTL_OK);
    reads.txn.then_n = MANY;
    expect(w, reads, CTL_TOO_MANY_OPS);
    assert_true(mem_bytes(MEM_CTL) < 64u << 20);
    expect_exempt(w, reads, CTL_OK);
    reads.txn = (struct ctl_txn){.compares = compares, .compares_n = FEW};
    expect(w, reads, CTL_OK);
    reads.txn.compares_n = MANY;
    expect(w, reads, CTL_TOO_MANY_OPS);
    for (size_t i = 0; i < MANY; i++) ops[i].range.limit = 3; /* what is not told is not looked at */
    reads.txn = (struct ctl_txn){.then_ops = ops, .then_n = MANY};
    expect(w, reads, CTL_OK);
    for (size_t i = 0; i < MANY; i++) ops[i].range.count_only = true; /* but what was changed is counted one by one */
    writes.txn.then_n = MANY;
    expect(w, writes, CTL_OK);
    ops[0] = op_delete("k", "l");
    expect(w, writes, CTL_TOO_MANY_OPS);
    writes.txn.then_n = FEW;
    expect(w, writes, CTL_OK);
    arena_fini(&arena);
}

/* A key of a watch may be as long as a message: all watches together keep no more than some MiB of them. */
static void test_long_watches(void **state)
{
    enum { LONG = 1u << 20, MANY = 32 };
    struct world *w = *state;
    struct seen s[MANY] = {{0}};
    char *key = mem_new(MEM_MISC, LONG);
    memset(key, 'k', LONG);
    struct ctl_watch_conf conf = {.key = slice_of(key, LONG)};
    for (int i = 0; i < MANY; i++) seen_start(w, &s[i], &conf);
    assert_null(ctl_watch_start(w->ctl, &conf, NULL, NULL));
    seen_stop(&s[0]);
    seen_start(w, &s[0], &conf);
    assert_null(ctl_watch_start(w->ctl, &conf, NULL, NULL));
    for (int i = 0; i < MANY; i++) seen_stop(&s[i]);
    mem_free(key);
}

/* The same of the past, which is read before it is evaluated. */
static void test_past_of_a_txn(void **state)
{
    enum { KEYS = 20000, MANY = 60, FEW = 50 };
    struct world *w = *state;
    struct arena arena;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, KEYS * sizeof *ops);
    for (size_t i = 0; i < KEYS; i++) ops[i] = op_put(arena_printf(&arena, "k%05zu", i), "v");
    expect_exempt(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = KEYS}}, CTL_OK);
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    put(w, "x", "1");
    for (size_t i = 0; i < MANY; i++)
        ops[i] = (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l"), .revision = st.revision, .count_only = i % 2}};
    struct ctl_op txn = {.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = FEW}};
    expect(w, txn, CTL_OK);
    txn.txn.then_n = MANY;
    expect(w, txn, CTL_TOO_MANY_OPS);
    expect_exempt(w, txn, CTL_OK);
    expect(w, ops[0], CTL_OK);
    arena_fini(&arena);
}

static size_t pasts_n, past_bytes;
static void past_told(struct ctl_call *call)
{
    assert_true(call->error == CTL_OK && call->result.range.n == 20);
    past_bytes = MAX(past_bytes, mem_bytes(MEM_CTL));
    pasts_n++;
}
static bool is_told(void *ctx) { return pasts_n == *(const size_t *)ctx; }

/* Many who read much of the past at once: what is read for some is answered before the others' is read. */
static void test_pasts_at_once(void **state)
{
    enum { KEYS = 20, CALLS = 30, LONG = 1u << 20 };
    struct world *w = *state;
    char key[8], *value = mem_new(MEM_MISC, LONG);
    struct ctl_call calls[CALLS];
    struct ctl_status st;
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%02d", i);
        expect(w, (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = slice_of(value, LONG)}}, CTL_OK);
    }
    ctl_status(w->ctl, &st);
    put(w, "x", "1");
    pasts_n = past_bytes = 0;
    for (size_t i = 0; i < CALLS; i++) {
        calls[i] = (struct ctl_call){.op = {.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l"), .revision = st.revision}}, .done = past_told};
        ctl_submit(w->ctl, &calls[i]);
    }
    size_t all = CALLS;
    assert_true(w->run(w, is_told, &all, 60000));
    assert_true(past_bytes < 100u << 20);
    mem_free(value);
}

static size_t revoked_n, revoke_bytes;
static void revoked(struct ctl_call *call)
{
    assert_int_equal(call->error, CTL_OK);
    revoked_n++;
}
static bool is_revoked(void *ctx)
{
    revoke_bytes = MAX(revoke_bytes, mem_bytes(MEM_CTL));
    return revoked_n == *(const size_t *)ctx;
}

/* Thousands of leases that are revoked at once, behind thousands of changes: what each looks at, and keeps for it, is bounded. */
static void test_revoke_behind(void **state)
{
    enum { KEYS = 30000, LEASES = 1000 };
    struct world *w = *state;
    struct arena arena;
    arena_init(&arena, MEM_MISC, 1u << 16);
    struct ctl_op *ops = arena_zalloc(&arena, KEYS * sizeof *ops);
    struct ctl_call *calls = arena_zalloc(&arena, (LEASES + 1) * sizeof *calls);
    for (size_t i = 0; i < KEYS; i++) ops[i] = op_put(arena_printf(&arena, "k%05zu", i), "v");
    expect_exempt(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = KEYS}}, CTL_OK);
    for (int64_t i = 1; i <= LEASES; i++) expect(w, (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = i, .ttl_s = 1000}}, CTL_OK);
    struct ctl_op leased = op_put("x", "1");
    leased.put.lease = 7;
    expect(w, leased, CTL_OK);
    revoked_n = revoke_bytes = 0;
    calls[0] = (struct ctl_call){.op = op_delete("k", "l"), .done = revoked};
    for (size_t i = 1; i <= LEASES; i++) calls[i] = (struct ctl_call){.op = {.kind = CTL_LEASE_REVOKE, .lease = {.id = (int64_t)i}}, .done = revoked};
    for (size_t i = 0; i <= LEASES; i++) ctl_submit(w->ctl, &calls[i]);
    size_t all = LEASES + 1;
    assert_true(w->run(w, is_revoked, &all, 60000));
    assert_true(revoke_bytes < 64u << 20);
    struct answer a;
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z")}), "");
    answer_fini(&a);
    arena_fini(&arena);
}

static bool is_cleaned(void *ctx) { return counter_read(&ctl_counters(((struct world *)ctx)->ctl)->compacted_rows) >= 250; }

static void test_history_by_number(void **state)
{
    struct world *w = *state;
    struct ctl_own_conf conf = store_conf();
    conf.history_revisions = 50;
    store_close(w);
    store_open(w, &conf);
    int64_t r = 0;
    for (int i = 0; i < 400; i++) r = put(w, i % 2 ? "a" : "b", "x");
    assert_true(sim_run(is_cleaned, w, 10000));
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    assert_true(st.compact_revision <= r - 50 && st.compact_revision >= r - 102);
    struct answer a;
    assert_string_equal(get(w, &a, (struct ctl_range){.key = SLICE("a"), .end = SLICE("z"), .revision = st.compact_revision}), "a=x b=x");
    answer_fini(&a);
}

static void test_history_by_age(void **state)
{
    struct world *w = *state;
    struct ctl_own_conf conf = store_conf();
    conf.history_ms = 3600000;
    store_close(w);
    store_open(w, &conf);
    put(w, "a", "1");
    int64_t old = put(w, "a", "2");
    (void)sim_run(never, NULL, 1800000);
    store_close(w); /* when a revision was is not forgotten */
    store_open(w, &conf);
    int64_t young = put(w, "a", "3");
    (void)sim_run(never, NULL, 2500000);
    struct ctl_status st;
    ctl_status(w->ctl, &st);
    assert_true(st.compact_revision >= old && st.compact_revision < young);
}

/* ---- a life against a model ---- */

#define KEYS 8
#define LEASES 4
#define GROUP_MAX 8

struct event {
    int64_t revision, lease;
    int key, value;
    bool dead;
};
struct fact { /* of a key, computed */
    bool there;
    int64_t create, mod, version, lease;
    int value;
};
struct model {
    struct event *events;
    size_t n, cap;
    int64_t revision, compact;
    bool leases[LEASES];         /* id: index + 1 */
    uint64_t random;
};

static uint64_t roll(struct model *m, uint64_t n) /* 0 .. n - 1 */
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (m->random >> 11) % n;
}

static void facts_at(const struct model *m, int64_t revision, struct fact f[KEYS])
{
    memset(f, 0, KEYS * sizeof *f);
    for (size_t i = 0; i < m->n && m->events[i].revision <= revision; i++) {
        const struct event *e = &m->events[i];
        struct fact *k = &f[e->key];
        if (e->dead) {
            *k = (struct fact){0};
            continue;
        }
        k->create = k->there ? k->create : e->revision;
        k->version++;
        k->mod = e->revision;
        k->lease = e->lease;
        k->value = e->value;
        k->there = true;
    }
}

static void event_add(struct model *m, struct event e)
{
    ARRAY_GROW(MEM_MISC, m->events, m->n, m->cap);
    m->events[m->n++] = e;
}

/* A call of a group, with what it holds and what is expected of it. */
struct step {
    struct answer answer;
    struct ctl_op ops[4];
    struct ctl_compare compare;
    char text[6][16];
    size_t texts;
    bool succeeds;               /* TXN */
    enum ctl_error error;
    int64_t revision, count;     /* of changes */
    bool changes;
};

static struct slice step_text(struct step *s, const char *fmt, int n)
{
    MUST(s->texts < COUNT_OF(s->text));
    char *p = s->text[s->texts++];
    snprintf(p, sizeof s->text[0], fmt[0] == 'k' ? "k%d" : "v%d", n);
    return slice_cstr(p);
}

static int64_t model_delete(struct model *m, int from, int to, int64_t revision)
{
    struct fact f[KEYS];
    int64_t n = 0;
    facts_at(m, INT64_MAX, f);
    for (int k = from; k < to; k++)
        if (f[k].there) {
            event_add(m, (struct event){.revision = revision, .key = k, .dead = true});
            n++;
        }
    return n;
}

static void step_put(struct model *m, struct step *s, struct ctl_op *op, int key, int64_t revision)
{
    int value = (int)roll(m, 1000);
    struct fact f[KEYS];
    facts_at(m, INT64_MAX, f);
    *op = (struct ctl_op){.kind = CTL_PUT, .put = {.key = step_text(s, "k", key)}};
    op->put.ignore_value = roll(m, 10) == 0;
    op->put.prev_kv = roll(m, 2);
    if (op->put.ignore_value) value = f[key].value;
    else op->put.value = step_text(s, "v", value);
    op->put.lease = roll(m, 4) == 0 ? (int64_t)roll(m, LEASES) + 1 : 0;
    bool alone = op != s->ops; /* then etcd looks at the lease first, in a transaction at the key */
    if (op->put.lease && !m->leases[op->put.lease - 1]) s->error = CTL_LEASE_NOT_FOUND;
    if (op->put.ignore_value && !f[key].there && !(alone && s->error)) s->error = CTL_KEY_NOT_FOUND;
    if (s->error == CTL_OK) event_add(m, (struct event){.revision = revision, .key = key, .value = value, .lease = op->put.lease});
}

static struct ctl_op step_delete(struct model *m, struct step *s, int from, int to)
{
    struct ctl_op op = {.kind = CTL_DELETE, .del = {.key = step_text(s, "k", from)}};
    if (to > from + 1) op.del.end = step_text(s, "k", to);
    op.del.prev_kv = roll(m, 2);
    return op;
}

static struct ctl_op step_txn(struct model *m, struct step *s)
{
    struct fact f[KEYS];
    facts_at(m, INT64_MAX, f);
    int key = (int)roll(m, KEYS), other = (key + 1 + (int)roll(m, KEYS - 1)) % KEYS;
    bool right = roll(m, 3) > 0;
    s->compare = (struct ctl_compare){.key = step_text(s, "k", key), .target = CTL_TARGET_MOD, .result = right ? CTL_EQUAL : CTL_LESS, .number = f[key].mod};
    s->succeeds = right;
    struct ctl_op txn = {.kind = CTL_TXN, .txn = {.compares = &s->compare, .compares_n = 1, .then_ops = s->ops, .else_ops = s->ops + 2}};
    s->ops[2] = (struct ctl_op){.kind = CTL_RANGE, .range = {.key = s->compare.key}};
    txn.txn.else_n = 1;
    txn.txn.then_n = 2;
    if (!right) {
        s->ops[0] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = s->compare.key, .value = SLICE("never")}};
        s->ops[1] = s->ops[2];
        return txn;
    }
    size_t before = m->n;
    step_put(m, s, &s->ops[0], key, m->revision + 1);
    s->ops[1] = step_delete(m, s, other, other + 1);
    if (s->error == CTL_OK) (void)model_delete(m, other, other + 1, m->revision + 1);
    else m->n = before;
    return txn;
}

static struct ctl_op step_lease(struct model *m, struct step *s, bool grant)
{
    int64_t id = (int64_t)roll(m, LEASES) + 1;
    bool *there = &m->leases[id - 1];
    if (grant) {
        if (*there) s->error = CTL_LEASE_EXISTS;
        *there = true;
        return (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = id, .ttl_s = 100000000}};
    }
    if (!*there) s->error = CTL_LEASE_NOT_FOUND;
    *there = false;
    struct fact f[KEYS];
    facts_at(m, INT64_MAX, f);
    for (int k = 0; k < KEYS; k++)
        if (f[k].there && f[k].lease == id) event_add(m, (struct event){.revision = m->revision + 1, .key = k, .dead = true});
    return (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = id}};
}

static struct ctl_op step_compact(struct model *m, struct step *s)
{
    int64_t to = m->compact + (int64_t)roll(m, (uint64_t)(m->revision - m->compact) + 2);
    if (to <= m->compact) s->error = CTL_COMPACTED;
    else if (to > m->revision) s->error = CTL_FUTURE_REVISION;
    else m->compact = to;
    return (struct ctl_op){.kind = CTL_COMPACT, .compact = to};
}

static struct ctl_op step_range(struct model *m, struct step *s)
{
    struct ctl_op op = {.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l")}};
    s->changes = false;
    if (roll(m, 2)) op.range.revision = m->compact + (int64_t)roll(m, (uint64_t)(m->revision - m->compact) + 1);
    if (roll(m, 3) == 0) op.range.limit = 1 + (int64_t)roll(m, KEYS);
    if (roll(m, 3) == 0) op.range.order = CTL_SORT_DESCEND;
    return op;
}

/* Thinks of something to do, does it to the model, and submits it. */
static void step_start(struct world *w, struct model *m, struct step *s)
{
    *s = (struct step){.changes = true};
    size_t before = m->n;
    struct ctl_op op;
    uint64_t what = roll(m, 100);
    if (what < 45) step_put(m, s, &op, (int)roll(m, KEYS), m->revision + 1);
    else if (what < 60) {
        int from = (int)roll(m, KEYS), to = from + 1 + (int)roll(m, roll(m, 3) ? 1 : KEYS - (uint64_t)from);
        op = step_delete(m, s, from, to);
        s->count = model_delete(m, from, to, m->revision + 1);
    } else if (what < 75) op = step_txn(m, s);
    else if (what < 82) op = step_lease(m, s, what < 79);
    else if (what < 84) op = step_compact(m, s);
    else op = step_range(m, s);
    if (m->n > before) m->revision++;
    s->revision = m->revision;
    ask(w, &s->answer, op);
}

static void kv_check(const struct ctl_kv *kv, const struct fact *f, int key)
{
    char k[16], v[16];
    snprintf(k, sizeof k, "k%d", key);
    snprintf(v, sizeof v, "v%d", f->value);
    assert_true(slice_is(kv->key, k) && slice_is(kv->value, v));
    assert_true(kv->create_revision == f->create && kv->mod_revision == f->mod && kv->version == f->version && kv->lease == f->lease);
}

static void range_check(const struct model *m, const struct ctl_call *call)
{
    const struct ctl_range *want = &call->op.range;
    const struct ctl_range_result *r = &call->result.range;
    struct fact f[KEYS];
    facts_at(m, want->revision ? want->revision : call->revision, f);
    size_t at = 0;
    int64_t count = 0;
    for (int i = 0; i < KEYS; i++) {
        int key = want->order == CTL_SORT_DESCEND ? KEYS - 1 - i : i;
        if (!f[key].there) continue;
        count++;
        if (want->limit && count > want->limit) continue;
        assert_true(at < r->n);
        kv_check(&r->kvs[at++], &f[key], key);
    }
    assert_true(at == r->n && count == r->count && r->more == (want->limit && count > want->limit));
}

/* False: an error that is the disk's. */
static bool step_check(const struct model *m, struct step *s)
{
    struct ctl_call *call = &s->answer.call;
    enum ctl_error e = call->error;
    if (e == CTL_UNKNOWN || e == CTL_DISK_FAILED || e == CTL_DISK_FULL) {
        assert_true(call->why[0] != '\0');
        return false;
    }
    if (call->op.kind == CTL_RANGE) {
        int64_t at = call->op.range.revision;
        if ((e == CTL_COMPACTED && at && at < m->compact) || (e == CTL_FUTURE_REVISION && at > call->revision)) return true;
        assert_int_equal(e, CTL_OK);
        range_check(m, call);
        return true;
    }
    assert_int_equal(e, s->error);
    if (e != CTL_OK) return true;
    assert_int_equal(call->revision, s->revision);
    if (call->op.kind == CTL_DELETE) assert_int_equal(call->result.del.deleted, s->count);
    if (call->op.kind == CTL_TXN) assert_int_equal(call->result.txn.succeeded, s->succeeds);
    return true;
}

/* ---- watches of a life ---- */

struct life;
struct spy {
    struct life *life;
    struct ctl_watch *watch;
    int from, to;                /* keys */
    int64_t next;                /* the first revision that was not told */
    bool prev, paused;
};
struct life {
    struct world *w;
    struct model m;
    bool cold;                   /* values are on disk only: what is asked at once is not done in order */
    struct spy spies[4];
    int64_t answered;            /* revision: up to there all must stay */
    int64_t compact_answered;
};

static bool spy_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct spy *y = ctx;
    const struct model *m = &y->life->m;
    size_t at = 0;
    for (size_t i = 0; i < m->n && m->events[i].revision <= revision; i++) {
        const struct event *e = &m->events[i];
        if (e->revision < y->next || e->key < y->from || e->key >= y->to) continue;
        struct fact f[KEYS], before[KEYS];
        facts_at(m, e->revision, f);
        facts_at(m, e->revision - 1, before);
        assert_true(at < n); /* none left out */
        const struct ctl_event *is = &events[at++];
        assert_true(is->kv.mod_revision == e->revision && is->type == (e->dead ? CTL_EVENT_DELETE : CTL_EVENT_PUT));
        if (!e->dead) kv_check(&is->kv, &f[e->key], e->key);
        if (is->has_prev) kv_check(&is->prev, &before[e->key], e->key);
    }
    assert_int_equal(at, n); /* none twice, none that is not */
    assert_true(revision >= y->next - 1);
    y->next = revision + 1;
    y->paused = loop_random(y->life->w->loop) % 4 == 0;
    return !y->paused;
}

static void spy_start(struct spy *y);

static void spy_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct spy *y = ctx;
    ctl_watch_stop(y->watch);
    y->watch = NULL;
    if (error == CTL_STOPPED) return;
    assert_int_equal(error, CTL_COMPACTED);
    assert_true(y->next < compact_revision);
    y->next = compact_revision;
    spy_start(y);
}

static const struct ctl_watch_ops spy_ops = {.events = spy_events, .ended = spy_ended};

static void spy_start(struct spy *y)
{
    char key[16], end[16];
    snprintf(key, sizeof key, "k%d", y->from);
    snprintf(end, sizeof end, "k%d", y->to);
    struct ctl_watch_conf conf = {.key = slice_cstr(key), .end = slice_cstr(y->to == y->from + 1 ? "" : end), .revision = y->next, .prev_kv = y->prev};
    y->paused = false;
    y->watch = ctl_watch_start(y->life->w->ctl, &conf, &spy_ops, y);
    assert_non_null(y->watch);
}

static void spies_resume(struct life *life)
{
    for (size_t i = 0; i < COUNT_OF(life->spies); i++) {
        struct spy *y = &life->spies[i];
        if (!y->paused || !y->watch) continue;
        y->paused = false;
        ctl_watch_resume(y->watch);
    }
}

static bool spies_know(void *ctx)
{
    struct life *life = ctx;
    bool all = true;
    for (size_t i = 0; i < COUNT_OF(life->spies); i++) {
        struct spy *y = &life->spies[i];
        if (y->next > life->m.revision) continue;
        all = false;
        if (!y->watch) continue;
        if (y->paused) {
            y->paused = false;
            ctl_watch_resume(y->watch);
        }
        ctl_watch_progress(y->watch);
    }
    return all;
}

/* ---- restarts of a life ---- */

static void leases_adopt(struct life *life)
{
    struct answer a;
    assert_int_equal(do_op(life->w, &a, (struct ctl_op){.kind = CTL_LEASE_LIST}), CTL_OK);
    memset(life->m.leases, 0, sizeof life->m.leases);
    for (size_t i = 0; i < a.call.result.lease.ids_n; i++) life->m.leases[a.call.result.lease.ids[i] - 1] = true;
    answer_fini(&a);
    struct fact f[KEYS];
    facts_at(&life->m, INT64_MAX, f);
    for (int k = 0; k < KEYS; k++) assert_true(!f[k].lease || life->m.leases[f[k].lease - 1]);
}

static void life_open(struct life *life)
{
    struct ctl_own_conf conf = store_conf();
    conf.recent_bytes_max = 2000; /* watches often need the disk */
    if (life->cold) conf_cold(&conf);
    struct buf why = {0};
    while (ctl_own_open(&conf, life->w->loop, &life->w->ctl, &why) != OK) {
        assert_true(sim_is_down()); /* the next crash came while opening */
        sim_restart();
    }
    buf_free(&why);
}

/* What the store has now is the truth, if it may be. */
static void life_begin(struct life *life)
{
    struct model *m = &life->m;
    struct ctl_status st;
    ctl_status(life->w->ctl, &st);
    assert_true(st.revision >= life->answered && st.revision <= m->revision);
    assert_true(st.compact_revision >= life->compact_answered && st.compact_revision <= m->compact);
    while (m->n && m->events[m->n - 1].revision > st.revision) m->n--;
    m->revision = st.revision;
    m->compact = st.compact_revision;
    for (size_t i = 0; i < COUNT_OF(life->spies); i++) {
        assert_true(life->spies[i].next <= st.revision + 1); /* nobody was told what is not there */
        spy_start(&life->spies[i]);
    }
    struct answer a;
    enum ctl_error e = do_op(life->w, &a, (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("k"), .end = SLICE("l")}});
    assert_int_equal(e, CTL_OK);
    range_check(m, &a.call);
    answer_fini(&a);
    leases_adopt(life);
}

static void life_restart(struct life *life)
{
    store_close(life->w);
    sim_crash_after(0, false);
    sim_disk_fail_next(SIM_DISK_WRITE, 0, 0);
    sim_disk_fail_next(SIM_DISK_SYNC, 0, 0);
    if (sim_is_down()) sim_restart();
    if (roll(&life->m, 4) == 0) sim_crash_after(1 + (uint32_t)roll(&life->m, 12), roll(&life->m, 2));
    life_open(life);
    sim_crash_after(0, false);
    if (sim_is_down()) { /* in the last step of it */
        life_restart(life);
        return;
    }
    life_begin(life);
}

/* A group of calls; some with trouble to come. False: the store is to be opened again. */
static bool life_group(struct life *life, bool trouble)
{
    struct model *m = &life->m;
    static struct step steps[GROUP_MAX];
    size_t n = life->cold ? 1 : 1 + roll(m, GROUP_MAX);
    if (trouble) {
        uint32_t after = (uint32_t)roll(m, 12);
        switch (roll(m, 4)) {
        case 0: /* one call: of a group that needs two commits the second would succeed, which the model doesn't know */
            n = 1;
            sim_disk_fail_next(SIM_DISK_WRITE, after % 3, roll(m, 2) ? EIO : ENOSPC);
            break;
        case 1: sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO); break;
        default: sim_crash_after(after + 1, roll(m, 2));
        }
    }
    for (size_t i = 0; i < n; i++) step_start(life->w, m, &steps[i]);
    spies_resume(life);
    bool fine = true;
    int64_t answered = life->answered, compact = life->compact_answered;
    for (size_t i = 0; i < n; i++) {
        answer_wait(life->w, &steps[i].answer);
        struct ctl_call *call = &steps[i].answer.call;
        bool ok = fine && step_check(m, &steps[i]); /* behind one that the disk failed the model knows nothing */
        fine = ok;
        if (ok && steps[i].changes && call->error == CTL_OK) answered = MAX(answered, call->revision);
        if (ok && call->op.kind == CTL_COMPACT && call->error == CTL_OK) compact = MAX(compact, call->op.compact);
        answer_fini(&steps[i].answer);
    }
    sim_disk_fail_next(SIM_DISK_WRITE, 0, 0);
    life->answered = answered;
    life->compact_answered = compact;
    return fine && !sim_is_down();
}

static void life_live(uint64_t seed)
{
    world_start(seed);
    if (seed % 3 == 0) sim_disk_slow(1, 20);
    struct life life = {.w = &the_world, .cold = seed % 2, .m = {.revision = 1, .random = seed * 0x9e3779b97f4a7c15ull + 1}, .answered = 1};
    static const int ranges[][2] = {{0, KEYS}, {2, 5}, {3, 4}, {0, KEYS}};
    for (size_t i = 0; i < COUNT_OF(life.spies); i++)
        life.spies[i] = (struct spy){.life = &life, .from = ranges[i][0], .to = ranges[i][1], .next = 1, .prev = i == 3};
    life_open(&life);
    life_begin(&life);
    for (int i = 0; i < 40; i++) {
        bool trouble = roll(&life.m, 5) == 0;
        if (!life_group(&life, trouble) || (trouble && roll(&life.m, 2)) || roll(&life.m, 30) == 0) life_restart(&life);
    }
    life_restart(&life);
    assert_true(sim_run(spies_know, &life, 60000));
    store_close(life.w);
    mem_free(life.m.events);
    world_stop();
}

static void test_lives(void **state)
{
    const char *one = getenv("CTL_SEED");
    uint64_t n = test_repeats(100);
    if (one) {
        life_live(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed); /* says which, when one fails */
        life_live(seed);
    }
    fprintf(stderr, "\n");
}

static const struct CMUnitTest own_tests[] = {
    cmocka_unit_test(test_disk_full), cmocka_unit_test(test_write_fails), cmocka_unit_test(test_sync_fails), cmocka_unit_test(test_read_fails),
    cmocka_unit_test(test_zeroes_ahead), cmocka_unit_test(test_keep_while_revoked), cmocka_unit_test(test_keep_expired),
    cmocka_unit_test(test_quota), cmocka_unit_test(test_limits), cmocka_unit_test(test_exempt), cmocka_unit_test(test_versions_of_a_batch), cmocka_unit_test(test_keys_of_a_txn), cmocka_unit_test(test_long_watches), cmocka_unit_test(test_revoke_behind), cmocka_unit_test(test_past_of_a_txn), cmocka_unit_test(test_pasts_at_once), cmocka_unit_test(test_history_by_number), cmocka_unit_test(test_history_by_age),
};

int main(void)
{
    struct CMUnitTest tests[128];
    size_t n = 0;
    for (size_t i = 0; i < ctl_scenarios_n; i++) tests[n++] = ctl_scenarios[i];
    for (size_t i = 0; i < COUNT_OF(own_tests); i++) tests[n++] = own_tests[i];
    size_t warm = n;
    for (size_t i = 0; i < ctl_scenarios_n; i++) tests[n++] = ctl_scenarios[i];
    for (size_t i = 0; i < COUNT_OF(cold_tests); i++) tests[n++] = cold_tests[i];
    MUST(n < COUNT_OF(tests));
    for (size_t i = 0; i < n; i++) {
        tests[i].setup_func = i < warm ? setup : setup_cold;
        tests[i].teardown_func = teardown;
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_lives);
    return _cmocka_run_group_tests("ctl_sim", tests, n, NULL, NULL);
}
