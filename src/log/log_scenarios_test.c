/* log_scenarios_test.c - scenarios of the log that need no faults; they run on the kernel and in the simulator. */
#include "log_scenarios.h"

#include <stdio.h>

/* ---- append and read ---- */

static void test_append_read(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    assert_int_equal(part_end(p), 0);
    assert_int_equal(part_bytes(p), 0);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->batches, 0);
    assert_int_equal(fetch(p, 1, PART_HIGH, 1000)->error, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(send_offset(p, (struct what){.n = 3, .acks = 1}), 0);
    assert_int_equal(send_offset(p, (struct what){.n = 2, .acks = -1}), 3);
    assert_int_equal(send_offset(p, (struct what){.n = 1, .acks = 0, .codec = KAFKA_CODEC_ZSTD}), 5);
    assert_int_equal(part_end(p), 6);
    for (uint32_t max = 1; max < 1000; max += 50) {
        struct got *g = fetch(p, 0, PART_HIGH, max);
        assert_int_equal(g->records, 6);
        assert_int_equal(g->batches, 3);
        assert_int_equal(g->next, 6);
    }
    assert_int_equal(fetch(p, 1, PART_STABLE, 1000)->first, 0); /* the batch that holds it, whole */
    assert_int_equal(fetch(p, 4, PART_END, 1000)->first, 3);
    assert_int_equal(fetch(p, 6, PART_END, 1000)->batches, 0);
    assert_int_equal(fetch(p, 6, PART_END, 1000)->error, KAFKA_NONE);
    assert_int_equal(fetch(p, 7, PART_END, 1000)->error, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(fetch(p, -1, PART_END, 1000)->error, KAFKA_OFFSET_OUT_OF_RANGE);
    node_restart();
    p = part_get("t-0", NULL);
    assert_true(log_store_was_clean(node.store));
    assert_int_equal(p->state, PART_SHELVED);
    assert_int_equal(part_end(p), 6);
    assert_int_equal(part_high_now(p), 6);
    assert_true(part_bytes(p) > 0);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->records, 6);
    assert_int_equal(send_offset(p, (struct what){.n = 1, .acks = -1}), 6);
    node_stop();
    world_stop();
}

/* acks 0 and 1 are answered at the end of the turn, acks -1 after a sync, in order; high waits with them. */
static void test_acks(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    struct sent *s[5];
    int8_t acks[] = {1, -1, 1, -1, 0};
    sent_done = 0;
    for (int i = 0; i < 5; i++) s[i] = batch_send(p, (struct what){.acks = acks[i]});
    assert_int_equal(part_end(p), 5);
    assert_int_equal(part_high_now(p), 0);
    for (int i = 0; i < 5; i++) sent_wait(s[i]);
    assert_int_equal(part_high_now(p), 5);
    assert_true(s[0]->order < s[1]->order && s[1]->order < s[3]->order);
    assert_true(s[2]->order < s[3]->order && s[4]->order < s[3]->order);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(s[i]->a.error, KAFKA_NONE);
        assert_int_equal(s[i]->a.base_offset, i);
        sent_free(s[i]);
    }
    node_stop();
    world_stop();
}

/* Many partitions that wait in one turn are in one round. */
static void test_group_commit(void **state)
{
    enum { PARTS = 20 };
    struct part *p[PARTS];
    struct sent *s[PARTS];
    world_start();
    node_start();
    for (int i = 0; i < PARTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t-%d", i);
        p[i] = part_get(name, NULL);
    }
    for (int round = 0; round < 3; round++) {
        uint64_t before = log_shard_counters(node.shard)->sync_rounds;
        for (int i = 0; i < PARTS; i++) s[i] = batch_send(p[i], (struct what){.acks = -1});
        for (int i = 0; i < PARTS; i++) {
            sent_wait(s[i]);
            assert_int_equal(s[i]->a.error, KAFKA_NONE);
            sent_free(s[i]);
        }
        assert_int_equal(log_shard_counters(node.shard)->sync_rounds - before, 1);
    }
    assert_int_equal(log_shard_counters(node.shard)->synced_files, 3 * PARTS);
    node_stop();
    world_stop();
}

struct watched {
    struct part_watch w;
    int n;
};
static void watch_fn(struct part_watch *w) { CONTAINER_OF(w, struct watched, w)->n++; }
static bool watched(void *ctx) { return ((struct watched *)ctx)->n > 0; }

static void test_watch(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    struct watched w = {.w = {.fn = watch_fn}}, gone = {.w = {.fn = watch_fn}}, off = {.w = {.fn = watch_fn}};
    list_init(&w.w.link);
    list_init(&gone.w.link);
    list_init(&off.w.link);
    part_watch(p, &w.w);
    part_watch(p, &off.w);
    part_unwatch(&off.w);
    part_unwatch(&off.w);
    send_offset(p, (struct what){.acks = 1});
    node_wait(watched, &w);
    send_offset(p, (struct what){.acks = -1});
    assert_int_equal(w.n, 1); /* once */
    part_watch(p, &gone.w);
    struct sent *s = batch_send(p, (struct what){.acks = -1});
    part_delete(p);
    sent_wait(s);
    assert_int_equal(s->a.error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    sent_free(s);
    node_wait(watched, &gone);
    assert_int_equal(off.n, 0);
    node_stop();
    world_stop();
}

const struct CMUnitTest log_scenarios[] = {
    cmocka_unit_test(test_append_read),
    cmocka_unit_test(test_acks),
    cmocka_unit_test(test_group_commit),
    cmocka_unit_test(test_watch),
};
const size_t log_scenarios_n = COUNT_OF(log_scenarios);
