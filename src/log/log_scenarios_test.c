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

/* ---- segments, indexes, time ---- */

static struct part_conf small_conf(void)
{
    struct part_conf c;
    part_conf_default(&c);
    c.segment_bytes = 4096;
    c.index_interval_bytes = 200;
    c.file_delete_delay_ms = 0;
    return c;
}

/* n batches of two records each, a second apart from ms on. */
static void fill(struct part *p, int n, int64_t ms)
{
    for (int i = 0; i < n; i++) send_offset(p, (struct what){.n = 2, .acks = 1, .ms = ms + i * 1000, .value_bytes = 40});
}

static void read_everywhere(struct part *p, int64_t start)
{
    int64_t end = part_end(p);
    for (int64_t at = start; at < end; at++) {
        struct got *g = fetch(p, at, PART_HIGH, at % 7 ? 1000000 : 300);
        if (g->error != KAFKA_NONE || g->first > at || g->first < at - 1 || g->next != end)
            fail_msg("from %lld: error %d, %lld to %lld", (long long)at, g->error, (long long)g->first, (long long)g->next);
    }
}

static void test_roll(void **state)
{
    struct part_conf c = small_conf();
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    fill(p, 200, 1000000);
    assert_true(p->log->segs_n > 4);
    for (uint32_t i = 0; i < p->log->segs_n; i++) assert_true(p->log->segs[i].bytes <= c.segment_bytes);
    read_everywhere(p, 0);
    int64_t offset, ms;
    for (int i = 0; i < 200; i += 7) {
        assert_int_equal(part_find_time(p, 1000000 + i * 1000 + 1, PART_HIGH, &offset, &ms), KAFKA_NONE);
        assert_int_equal(offset, 2 * i + 1);
        assert_int_equal(ms, 1000000 + i * 1000 + 1);
        assert_int_equal(part_find_time(p, 1000000 + i * 1000 - 500, PART_HIGH, &offset, &ms), KAFKA_NONE);
        assert_int_equal(offset, 2 * i);
    }
    assert_int_equal(part_find_time(p, 2000000, PART_HIGH, &offset, &ms), KAFKA_NONE);
    assert_int_equal(offset, -1);
    assert_int_equal(ms, -1);
    assert_int_equal(part_find_newest(p, &offset, &ms), KAFKA_NONE);
    assert_int_equal(offset, 399);
    assert_int_equal(ms, 1000000 + 199 * 1000 + 1);
    node_restart();
    p = part_get("t-0", &c);
    assert_int_equal(part_find_time(p, 1000000 + 30 * 1000, PART_HIGH, &offset, &ms), KAFKA_NONE);
    assert_int_equal(offset, 60);
    read_everywhere(p, 0);
    fill(p, 30, 5000000);
    read_everywhere(p, 0);
    node_stop();
    world_stop();
}

/* By the records' timestamps, and a batch that is larger than a segment. */
static void test_roll_time(void **state)
{
    struct part_conf c = small_conf();
    c.segment_ms = 5000;
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    send_offset(p, (struct what){.ms = 1000000, .acks = 1});
    send_offset(p, (struct what){.ms = 1004000, .acks = 1});
    assert_int_equal(p->log->segs_n, 1);
    send_offset(p, (struct what){.ms = 1006000, .acks = 1});
    assert_int_equal(p->log->segs_n, 2);
    assert_int_equal(send_error(p, (struct what){.value_bytes = 5000, .acks = 1}), KAFKA_RECORD_LIST_TOO_LARGE);
    assert_int_equal(part_end(p), 3);
    node_stop();
    world_stop();
}

static const char *seg_file(int64_t base, const char *ext, char out[LOG_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "t-0/%020lld%s", (long long)base, ext);
    return node_path(name, out);
}

/* Indexes that are gone, short, or somebody else's are noticed and made anew. */
static void test_index_loss(void **state)
{
    struct part_conf c = small_conf();
    struct index first = {0};
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    fill(p, 100, 1000000);
    for (int round = 0; round < 5; round++) {
        char path[LOG_PATH_MAX];
        int64_t last = seg_last(p)->base, middle = p->log->segs[2].base;
        node_stop();
        struct buf bytes = {0};
        assert_int_equal(file_read(seg_file(middle, EXT_INDEX, path), &bytes, 1 << 20), OK);
        assert_true(bytes.n > 16);
        switch (round) {
        case 0: assert_int_equal(disk_remove(path), OK); break;
        case 1: bytes.n -= 3; assert_int_equal(file_replace(path, bytes.p, bytes.n, 0600), OK); break;
        case 2: memset(bytes.p, 0x11, bytes.n); assert_int_equal(file_replace(path, bytes.p, bytes.n, 0600), OK); break;
        case 3: for (size_t i = 0; i < bytes.n; i += 8) bytes.p[i + 7] = (char)(bytes.p[i + 7] + 1); assert_int_equal(file_replace(path, bytes.p, bytes.n, 0600), OK); break;
        case 4: assert_int_equal(disk_remove(seg_file(last, EXT_INDEX, path)), OK); assert_int_equal(disk_remove(seg_file(middle, EXT_TIME, path)), OK); break;
        }
        node_start();
        p = part_get("t-0", &c);
        int64_t offset, ms;
        read_everywhere(p, 0);
        assert_int_equal(part_find_time(p, 1000000 + 70 * 1000, PART_HIGH, &offset, &ms), KAFKA_NONE);
        assert_int_equal(offset, 140);
        assert_false(p->offline);
        buf_free(&bytes);
    }
    index_fini(&first);
    node_stop();
    world_stop();
}

/* ---- the front goes ---- */

static void test_delete_before(void **state)
{
    struct part_conf c = small_conf();
    int64_t start;
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    assert_int_equal(part_delete_before(p, 0, &start), KAFKA_NONE);
    assert_int_equal(part_delete_before(p, 1, &start), KAFKA_OFFSET_OUT_OF_RANGE);
    fill(p, 100, 1000000);
    send_offset(p, (struct what){.acks = -1}); /* segments go when those that stay are durable */
    uint32_t segs = p->log->segs_n;
    assert_int_equal(part_delete_before(p, 151, &start), KAFKA_NONE);
    assert_int_equal(start, 151);
    assert_true(p->log->segs_n < segs);
    assert_int_equal(fetch(p, 150, PART_HIGH, 1000)->error, KAFKA_OFFSET_OUT_OF_RANGE);
    read_everywhere(p, 151);
    int64_t offset, ms;
    assert_int_equal(part_find_time(p, 0, PART_HIGH, &offset, &ms), KAFKA_NONE);
    assert_int_equal(offset, 151);
    node_restart();
    p = part_get("t-0", &c);
    struct part_offsets o;
    part_offsets(p, &o);
    assert_int_equal(o.log_start, 151);
    assert_int_equal(part_delete_before(p, -1, &start), KAFKA_NONE);
    assert_int_equal(start, 201);
    assert_int_equal(p->log->segs_n, 1);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 201);
    node_restart();
    p = part_get("t-0", &c);
    read_everywhere(p, 201);
    assert_int_equal(fetch(p, 201, PART_HIGH, 1000)->records, 1);
    node_stop();
    world_stop();
}

static void assert_newest(struct part *p, int64_t offset, int64_t ms)
{
    int64_t o, at;
    assert_int_equal(part_find_newest(p, &o, &at), KAFKA_NONE);
    assert_int_equal(o, offset);
    assert_int_equal(at, ms);
}

/* The record with the greatest timestamp is one of those that are left, also where the newest of a segment, or a part of its batch, is deleted. */
static void test_newest_left(void **state)
{
    static const int64_t times[] = {9000, 100, 7000, 500, 600};
    struct part_conf c = small_conf();
    int64_t start;
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (size_t i = 0; i < COUNT_OF(times); i++) /* offsets 3 * i, three records each */
        send_offset(p, (struct what){.n = 3, .acks = -1, .ms = times[i]});
    assert_int_equal(p->log->segs_n, 1);
    assert_newest(p, 2, 9002);
    assert_int_equal(part_delete_before(p, 2, &start), KAFKA_NONE);
    assert_newest(p, 2, 9002);
    assert_int_equal(part_delete_before(p, 4, &start), KAFKA_NONE);
    assert_newest(p, 8, 7002);
    send_offset(p, (struct what){.acks = -1, .ms = 8000}); /* what comes is looked at, too */
    assert_newest(p, 15, 8000);
    assert_int_equal(part_delete_before(p, 8, &start), KAFKA_NONE);
    assert_newest(p, 15, 8000);
    assert_int_equal(part_delete_before(p, 16, &start), KAFKA_NONE);
    assert_newest(p, -1, -1);
    send_offset(p, (struct what){.n = 3, .acks = -1, .ms = 50});
    assert_newest(p, 18, 52);
    for (int i = 0; p->log->segs_n < 3; i++)
        send_offset(p, (struct what){.n = 2, .acks = -1, .ms = 60 - i, .value_bytes = 40}); /* later segments, all older than the first */
    assert_newest(p, 20, 61);
    assert_int_equal(part_delete_before(p, 20, &start), KAFKA_NONE);
    assert_newest(p, 20, 61);
    assert_int_equal(part_delete_before(p, 22, &start), KAFKA_NONE);
    assert_newest(p, 22, 60);
    node_restart();
    p = part_get("t-0", &c);
    assert_newest(p, 22, 60);
    int64_t end = part_end(p);
    send_offset(p, (struct what){.n = 3, .acks = -1, .ms = 20000, .falling = true});
    send_offset(p, (struct what){.acks = -1, .ms = 19999});
    assert_newest(p, end, 20000);
    assert_int_equal(part_delete_before(p, end + 2, &start), KAFKA_NONE);
    assert_newest(p, end + 3, 19999); /* the rest of the batch has 19998 */
    node_stop();
    world_stop();
}

static bool retained(void *ctx) { return ((struct part *)ctx)->log->segs_n <= 3; }
static bool emptied(void *ctx)
{
    struct part *p = ctx;
    return p->log_start == p->end;
}

static void test_retention(void **state)
{
    struct part_conf c = small_conf();
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.age_look_ms = 0;
    node.conf.housekeeping_ms = 20;
    node_start();
    c.retention_bytes = 9000;
    c.retention_ms = -1;
    struct part *p = part_get("t-0", &c);
    fill(p, 200, 1000000);
    node_wait(retained, p);
    assert_true(part_bytes(p) >= 9000 && part_bytes(p) < 9000 + 4096 + 1);
    read_everywhere(p, p->log_start);
    assert_true(log_shard_counters(node.shard)->deleted_segments > 3);
    c.retention_bytes = -1;
    c.retention_ms = 100000; /* all of it is from 1970 */
    part_conf_set(p, &c);
    node_wait(emptied, p);
    assert_int_equal(part_end(p), 400);
    assert_int_equal(fetch(p, 400, PART_HIGH, 1000)->error, KAFKA_NONE);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 400);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Records from long ago stay until ages are looked at, which size does not wait for. */
static void test_retention_by_age_waits(void **state)
{
    struct part_conf c = small_conf();
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.housekeeping_ms = 10;
    node.conf.age_look_ms = 600;
    node_start();
    c.retention_bytes = 9000;
    c.retention_ms = 100000;
    struct part *p = part_get("t-0", &c);
    fill(p, 200, 1000000); /* from 1970 */
    node_wait(retained, p);
    assert_true(part_bytes(p) > 0);
    node_wait(emptied, p);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* What was read before it was deleted can still be sent. */
static void test_delete_while_reading(void **state)
{
    struct part_conf c = small_conf();
    struct arena a;
    world_start();
    node_start();
    arena_init(&a, MEM_ARENA, 4096);
    struct part *p = part_get("t-0", &c);
    fill(p, 100, 1000000);
    struct part_read r = {.offset = 0, .bytes_max = 4096, .until = PART_HIGH};
    part_read(p, &r, &a);
    assert_non_null(r.file);
    int64_t start;
    assert_int_equal(part_delete_before(p, 200, &start), KAFKA_NONE);
    part_delete(p);
    node_idle(50);
    char bytes[KAFKA_BATCH_HEADER];
    struct kafka_batch b;
    assert_int_equal(file_read_at(segfile_fd(r.file), r.pos, bytes, sizeof bytes), OK);
    assert_true(batch_head(bytes, &b));
    assert_int_equal(b.base_offset, 0);
    segfile_unref(r.file);
    p = part_get("t-0", &c); /* a new one of the same name */
    assert_int_equal(part_end(p), 0);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 0);
    node_restart();
    p = part_get("t-0", &c);
    assert_int_equal(part_end(p), 1);
    arena_fini(&a);
    node_stop();
    world_stop();
}

static bool all_durable(void *ctx)
{
    LIST_FOREACH(it, &node.shard->parts)
        if (part_dirty(CONTAINER_OF(it, struct part, all)))
            return false;
    return true;
}

/* What nobody waits for is synced when its descriptor is wanted; in a second turn all others follow. */
static void want_all_durable(void)
{
    LIST_FOREACH(it, &node.shard->parts) sync_force(CONTAINER_OF(it, struct part, all));
    node_wait(all_durable, NULL);
}

/* No more descriptors than were granted, whatever is read and written. */
static void test_files(void **state)
{
    enum { PARTS = 30 };
    struct part_conf c = small_conf();
    struct part *p[PARTS];
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.files_max = 8;
    node_start();
    for (int i = 0; i < PARTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t-%d", i);
        p[i] = part_get(name, &c);
    }
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < PARTS; i++) fill(p[i], 10, 1000000);
        for (int i = 0; i < PARTS; i++) {
            assert_int_equal(fetch(p[i], 0, PART_HIGH, 1000)->next, 20 * (round + 1));
        }
        want_all_durable();
        fetch(p[0], 0, PART_HIGH, 1000);
        fetch(p[1], 0, PART_HIGH, 1000);
        assert_in_range(log_shard_counters(node.shard)->files_open, 1, 8);
    }
    assert_true(log_shard_counters(node.shard)->files_closed > 0);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Thousands of idle partitions: described by one file, nothing of them is read at a clean start, and they cost little. */
static void test_idle_parts(void **state)
{
    enum { PARTS = 2000 };
    world_start();
    node_start();
    uint64_t before = mem_bytes(MEM_PART);
    char name[16];
    for (int i = 0; i < PARTS; i++) {
        snprintf(name, sizeof name, "idle-%d", i);
        part_get(name, NULL);
    }
    assert_true((mem_bytes(MEM_PART) - before) / PARTS < 700);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "t-%d", i);
        send_offset(part_get(name, NULL), (struct what){.acks = 1});
    }
    node_restart();
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "t-%d", i);
        struct part *p = part_get(name, NULL);
        assert_int_equal(p->state, PART_SHELVED);
        assert_int_equal(part_end(p), 1);
    }
    assert_int_equal(log_shard_counters(node.shard)->files_open, 0);
    node_restart(); /* nobody opened the idle ones, and the others were not touched: still known */
    assert_int_equal(part_end(part_get("t-7", NULL)), 1);
    assert_int_equal(fetch(part_get("t-8", NULL), 0, PART_HIGH, 1000)->records, 1);
    node_stop();
    world_stop();
}

/* ---- producers ---- */

static enum kafka_error seq(struct part *p, int16_t epoch, int32_t sequence, int32_t n, int64_t *offset)
{
    struct sent *s = send_wait(p, (struct what){.producer_id = 7, .epoch = epoch, .sequence = sequence, .n = n, .acks = 1});
    enum kafka_error e = s->a.error;
    *offset = s->a.base_offset;
    sent_free(s);
    return e;
}

static const struct {
    int16_t epoch;
    int32_t sequence, n;
    enum kafka_error error;
    int64_t offset;
} sequences[] = {
    {0, 5, 1, KAFKA_NONE, 0},                               /* not known: any sequence (KIP-360) */
    {0, 7, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER, -1},      /* a gap */
    {0, 6, 3, KAFKA_NONE, 1},
    {0, 6, 3, KAFKA_NONE, 1},                               /* the same again */
    {0, 6, 2, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER, -1},      /* the same begin, another length */
    {0, 5, 1, KAFKA_NONE, 0},                               /* the one before */
    {0, 9, 1, KAFKA_NONE, 4},
    {0, 10, 1, KAFKA_NONE, 5},
    {0, 11, 1, KAFKA_NONE, 6},
    {0, 12, 1, KAFKA_NONE, 7},
    {0, 5, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER, -1},      /* forgotten: not one of the last five */
    {0, 9, 1, KAFKA_NONE, 4},
    {1, 1, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER, -1},      /* a new epoch begins at 0 */
    {1, 0, 1, KAFKA_NONE, 8},
    {0, 13, 1, KAFKA_INVALID_PRODUCER_EPOCH, -1},
    {1, 0, 1, KAFKA_NONE, 8},
    {1, 1, 1, KAFKA_NONE, 9},
    {1, -2, 1, KAFKA_INVALID_RECORD, -1},
};

static void test_sequences(void **state)
{
    int64_t offset;
    for (int restart = 0; restart < 2; restart++) {
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        for (size_t i = 0; i < COUNT_OF(sequences); i++) {
            enum kafka_error e = seq(p, sequences[i].epoch, sequences[i].sequence, sequences[i].n, &offset);
            if (e != sequences[i].error || offset != sequences[i].offset)
                fail_msg("line %zu, restarts %d: %s at %lld", i, restart, kafka_error_name(e), (long long)offset);
            if (restart) {
                node_restart();
                p = part_get("t-0", NULL);
            }
        }
        node_stop();
        world_stop();
    }
}

static void test_sequence_wrap(void **state)
{
    int64_t offset;
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    assert_int_equal(seq(p, 0, INT32_MAX - 1, 4, &offset), KAFKA_NONE); /* MAX-1, MAX, 0, 1 */
    assert_int_equal(seq(p, 0, 3, 1, &offset), KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(seq(p, 0, 2, 1, &offset), KAFKA_NONE);
    assert_int_equal(offset, 4);
    assert_int_equal(seq(p, 0, INT32_MAX - 1, 4, &offset), KAFKA_NONE);
    assert_int_equal(offset, 0);
    node_stop();
    world_stop();
}

/* Duplicates of what is still on its way: in the same turn, and while it waits for its sync. */
static void test_duplicate_in_flight(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    struct what w = {.producer_id = 9, .acks = -1, .n = 2};
    struct sent *a = batch_send(p, w), *b = batch_send(p, w);
    w.acks = 1;
    struct sent *c = batch_send(p, w);
    sent_wait(c);
    assert_false(a->done);
    assert_false(b->done);
    sent_wait(a);
    sent_wait(b);
    assert_true(a->order < b->order);
    assert_int_equal(b->a.base_offset, 0);
    assert_int_equal(c->a.base_offset, 0);
    assert_int_equal(part_end(p), 2);
    sent_free(a);
    sent_free(b);
    sent_free(c);
    node_stop();
    world_stop();
}

static void note_producer(void *ctx, const struct part_producer *pr) { *(struct part_producer *)ctx = *pr; }

static bool producers_gone(void *ctx)
{
    struct part_producer pr = {.id = -1};
    part_producers(ctx, note_producer, &pr);
    return pr.id == -1;
}

static void test_producer_expiry(void **state)
{
    struct part_conf c = small_conf();
    struct part_producer pr = {.id = -1};
    int64_t offset;
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.housekeeping_ms = 10;
    node_start();
    struct part *p = part_get("t-0", &c);
    assert_int_equal(seq(p, 3, 0, 2, &offset), KAFKA_NONE);
    node_idle(100); /* it has its time */
    part_producers(p, note_producer, &pr);
    assert_int_equal(pr.id, 7);
    assert_int_equal(pr.epoch, 3);
    assert_int_equal(pr.last_sequence, 1);
    assert_int_equal(pr.txn_first_offset, -1);
    c.producer_expiration_ms = 50;
    part_conf_set(p, &c);
    node_wait(producers_gone, p);
    assert_int_equal(seq(p, 3, 11, 1, &offset), KAFKA_NONE); /* it is new again */
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* ---- transactions ---- */

static void test_transactions(void **state)
{
    for (int restart = 0; restart < 2; restart++) {
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        struct what t = {.producer_id = 5, .txn = true, .acks = 1, .n = 2}, plain = {.acks = 1};
        assert_int_equal(send_offset(p, plain), 0);
        t.unchecked = true;
        assert_int_equal(send_error(p, t), KAFKA_INVALID_TXN_STATE);
        t.unchecked = false;
        assert_int_equal(send_offset(p, t), 1);
        assert_true(part_txn_open(p, 5));
        assert_int_equal(send_offset(p, plain), 3);
        assert_int_equal(part_stable_now(p), 1);
        assert_int_equal(part_high_now(p), 4);
        assert_int_equal(fetch(p, 0, PART_STABLE, 100000)->next, 1);
        assert_int_equal(send_error(p, (struct what){.producer_id = 5, .sequence = 2}), KAFKA_INVALID_TXN_STATE);
        if (restart) {
            node_restart();
            p = part_get("t-0", NULL);
            assert_int_equal(part_stable_now(p), 1);
            assert_true(part_txn_open(p, 5));
        }
        assert_int_equal(send_error(p, (struct what){.producer_id = 5, .epoch = 0, .abort = true, .txn = true, .coordinator_epoch = 4, .acks = -1}), KAFKA_NONE);
        assert_false(part_txn_open(p, 5));
        assert_int_equal(part_stable_now(p), 5);
        assert_int_equal(send_error(p, (struct what){.producer_id = 5, .abort = true, .txn = true, .coordinator_epoch = 3}), KAFKA_TRANSACTION_COORDINATOR_FENCED);
        t.sequence = 2;
        assert_int_equal(send_offset(p, t), 5);
        assert_int_equal(send_error(p, (struct what){.producer_id = 5, .commit = true, .txn = true, .coordinator_epoch = 4, .acks = -1}), KAFKA_NONE);
        if (restart) {
            node_restart();
            p = part_get("t-0", NULL);
        }
        struct got *g = fetch(p, 0, PART_STABLE, 100000);
        assert_int_equal(g->next, 8);
        assert_int_equal(g->aborted_n, 1);
        assert_int_equal(g->aborted[0].producer_id, 5);
        assert_int_equal(g->aborted[0].first_offset, 1);
        assert_int_equal(fetch(p, 5, PART_STABLE, 100000)->aborted_n, 0);
        assert_int_equal(fetch(p, 4, PART_STABLE, 100000)->aborted_n, 1); /* the marker is in it */
        assert_int_equal(fetch(p, 0, PART_HIGH, 100000)->aborted_n, 0);
        /* a marker where nothing was written, of a newer epoch: fences, and moves nothing */
        assert_int_equal(send_error(p, (struct what){.producer_id = 6, .epoch = 2, .abort = true, .txn = true, .acks = 1}), KAFKA_NONE);
        assert_int_equal(send_error(p, (struct what){.producer_id = 6, .epoch = 1, .acks = 1}), KAFKA_INVALID_PRODUCER_EPOCH);
        assert_int_equal(part_stable_now(p), 9);
        node_stop();
        world_stop();
    }
}

/* Until the marker is durable the transaction is not decided: stable waits with it. */
static void test_marker_waits(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_offset(p, (struct what){.producer_id = 5, .txn = true, .acks = 1, .n = 3});
    struct sent *m = batch_send(p, (struct what){.producer_id = 5, .commit = true, .txn = true, .acks = -1});
    struct sent *after = batch_send(p, (struct what){.acks = 1});
    assert_int_equal(part_stable_now(p), 0);
    sent_wait(after);
    if (!m->done) {
        assert_int_equal(part_high_now(p), 3);
        assert_int_equal(part_stable_now(p), 0);
    }
    sent_wait(m);
    assert_int_equal(part_stable_now(p), 5);
    sent_free(m);
    sent_free(after);
    node_stop();
    world_stop();
}

/* Many transactions, some aborted, over several segments and with restarts: a reader gets exactly those that overlap its range. */
static void test_aborted_ranges(void **state)
{
    struct part_conf c = small_conf();
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    int32_t sequence[4] = {0};
    int64_t first[4] = {-1, -1, -1, -1}, began[64], ended[64];
    int aborted = 0;
    uint64_t rnd = 12345;
    for (int i = 0; i < 200; i++) {
        rnd = rnd * 6364136223846793005u + 1442695040888963407u;
        uint32_t who = (uint32_t)(rnd >> 33) % 4, what = (uint32_t)(rnd >> 40) % 3;
        if (what < 2) {
            int64_t at = send_offset(p, (struct what){.producer_id = 10 + who, .txn = true, .sequence = sequence[who], .acks = 1, .value_bytes = 30});
            sequence[who]++;
            first[who] = first[who] < 0 ? at : first[who];
        } else {
            bool abort = (rnd >> 50) % 2;
            struct what m = {.producer_id = 10 + who, .txn = true, .abort = abort, .commit = !abort, .acks = 1};
            int64_t at = send_offset(p, m);
            if (abort && first[who] >= 0 && aborted < 64) {
                began[aborted] = first[who];
                ended[aborted++] = at;
            }
            first[who] = -1;
        }
        if (i % 60 == 59) {
            node_restart();
            p = part_get("t-0", &c);
        }
    }
    assert_true(aborted > 10);
    int64_t stable = part_stable_now(p);
    for (int64_t at = 0; at < stable; at += 3) {
        struct arena a;
        arena_init(&a, MEM_ARENA, 4096);
        struct part_read r = {.offset = at, .bytes_max = 400, .until = PART_STABLE, .one_at_least = true};
        part_read(p, &r, &a);
        assert_non_null(r.file);
        struct buf b = {0};
        struct kafka_batch batch;
        int64_t next = at;
        buf_reserve(&b, r.bytes);
        assert_int_equal(file_read_at(segfile_fd(r.file), r.pos, b.p, r.bytes), OK);
        for (size_t k = 0; k < r.bytes; k += batch.bytes) {
            assert_int_equal(kafka_batch_parse(slice_of(b.p + k, r.bytes - k), &batch), KAFKA_NONE);
            next = kafka_batch_last_offset(&batch) + 1;
        }
        int want = 0;
        for (int k = 0; k < aborted; k++) want += began[k] < next && ended[k] >= at;
        assert_int_equal(r.aborted_n, want);
        buf_free(&b);
        segfile_unref(r.file);
        arena_fini(&a);
    }
    node_stop();
    world_stop();
}

static void test_epochs(void **state)
{
    int32_t epoch;
    int64_t end;
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    fill(p, 3, 1000000);
    part_epoch_end(p, 0, &epoch, &end);
    assert_int_equal(epoch, 0);
    assert_int_equal(end, 6);
    assert_int_equal(part_epoch_at(p, 3), 0);
    part_epoch_end(p, 5, &epoch, &end); /* of one that was never here nothing is known */
    assert_int_equal(epoch, -1);
    assert_int_equal(end, -1);
    node_restart();
    p = part_get("t-0", NULL);
    assert_int_equal(p->epoch, 0);
    part_epoch_end(p, -1, &epoch, &end);
    assert_int_equal(epoch, -1);
    assert_int_equal(end, -1);
    node_stop();
    world_stop();
}

/* ---- compaction ---- */

/* SipHash-2-4 of 128 bits: the authors' vectors for 0 and 15 bytes. */
static void test_siphash(void **state)
{
    uint8_t key[16], in[15];
    uint64_t k[2], h[2];
    for (uint8_t i = 0; i < 16; i++) key[i] = i;
    for (uint8_t i = 0; i < 15; i++) in[i] = i;
    memcpy(k, key, 16);
    siphash128(k, (struct slice){0}, h);
    assert_true(h[0] == 0xe6a825ba047f81a3ull && h[1] == 0x930255c71472f66dull);
    siphash128(k, slice_of((const char *)in, 15), h);
    assert_true(h[0] == 0x11a8b03399e99354ull && h[1] == 0xd9c3cf970fec087eull);
}

static struct part_conf compact_conf(void)
{
    struct part_conf c = small_conf();
    c.cleanup_delete = false;
    c.cleanup_compact = true;
    c.min_cleanable_ratio = 0.01;
    c.segment_ms = INT64_MAX / 2;
    return c;
}

static void compact_world(void)
{
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.housekeeping_ms = 20;
    node.conf.checkpoint_ms = 20;
    node.conf.compaction_bytes = 1 << 16;
}

static bool compacted(void *ctx)
{
    struct part *p = ctx;
    return !p->compacting && p->cleaned == seg_last(p)->base;
}

/* Cleaned up to that offset, and no further. */
static int64_t cleaned_want;
static bool cleaned_so_far(void *ctx)
{
    struct part *p = ctx;
    return !p->compacting && p->cleaned >= cleaned_want;
}
static void wait_cleaned(struct part *p, int64_t offset)
{
    cleaned_want = offset;
    node_wait(cleaned_so_far, p);
    node_idle(100);
    assert_int_equal(p->cleaned, offset);
}

enum { KEYS = 10 };
static int32_t values[KEYS]; /* the number of the last value of each key; -1: a tombstone */

static void put(struct part *p, uint32_t k, int32_t v, struct what w)
{
    char key[8], value[16] = "";
    snprintf(key, sizeof key, "key%u", k);
    if (v >= 0)
        snprintf(value, sizeof value, "n%d", v);
    w.key = key;
    w.value = value;
    w.acks = w.acks ? w.acks : 1;
    send_offset(p, w);
    values[k] = v;
}

/* Of what a reader sees, the last value of each key, is what was put last; each is seen at most `most` times. */
static void check_values(struct part *p, int most)
{
    struct got *g = fetch(p, p->log_start, PART_STABLE, 1000);
    assert_int_equal(g->error, KAFKA_NONE);
    assert_true(g->next <= part_end(p));
    for (uint32_t k = 0; k < KEYS; k++) {
        char key[16], want[32];
        const char *last = NULL;
        int n = 0;
        snprintf(key, sizeof key, "key%u=", k);
        for (const char *at = g->text.p; (at = strstr(at, key)); at++) {
            last = at;
            n++;
        }
        snprintf(want, sizeof want, values[k] >= 0 ? "key%u=n%d;" : "key%u=;", k, values[k]);
        if (values[k] == -2 ? last != NULL : !last || strncmp(last, want, strlen(want)) != 0)
            fail_msg("key %u: wanted %s in %s", k, want, g->text.p);
        if (n > most)
            fail_msg("key %u is there %d times", k, n);
    }
}

/* What is worth compacting is not left until the next checkpoint that is due: one is made for it. */
static void test_compact_soon(void **state)
{
    struct part_conf c = compact_conf();
    compact_world();
    node.conf.checkpoint_ms = 3600000;
    node_start();
    struct part *p = part_get("t-0", &c);
    for (int32_t i = 0; i < 300; i++) put(p, (uint32_t)(i % KEYS), i, (struct what){0});
    node_wait(compacted, p);
    check_values(p, 60);
    node_stop();
    world_stop();
}

static void test_compact(void **state)
{
    struct part_conf c = compact_conf();
    for (enum kafka_codec codec = KAFKA_CODEC_NONE; codec < KAFKA_CODECS; codec++) {
        compact_world();
        node_start();
        struct part *p = part_get("t-0", &c);
        for (int32_t i = 0; i < 300; i++) put(p, (uint32_t)(i * 7 % KEYS), i, (struct what){.codec = codec});
        node_wait(compacted, p);
        assert_true(log_shard_counters(node.shard)->compacted_segments > 3);
        assert_int_equal(part_end(p), 300);
        check_values(p, 60); /* the last segment is as it was */
        assert_true(part_bytes(p) < 3 * 4096);
        for (int64_t at = 0; at < 300; at++) {
            struct got *g = fetch(p, at, PART_HIGH, at % 3 ? 200 : 100000);
            assert_int_equal(g->error, KAFKA_NONE);
            assert_int_equal(g->next, 300);
            assert_true(g->first >= at);
        }
        int64_t bytes = (int64_t)part_bytes(p);
        node_restart();
        p = part_get("t-0", &c);
        assert_int_equal(part_bytes(p), bytes);
        check_values(p, 60);
        for (int32_t i = 300; i < 400; i++) put(p, (uint32_t)(i % KEYS), i, (struct what){.codec = codec});
        node_wait(compacted, p);
        check_values(p, 60);
        node_stop();
        node.conf.files_max = 0;
        world_stop();
    }
}

/* Where the newest record of what is left was: compaction puts it elsewhere. */
static void test_compact_newest(void **state)
{
    struct part_conf c = compact_conf();
    int64_t start;
    c.cleanup_delete = true;
    compact_world();
    node_start();
    struct part *p = part_get("t-0", &c);
    send_offset(p, (struct what){.acks = -1, .ms = 9000, .key = "gone"});
    for (int i = 0; i < 10; i++)
        send_offset(p, (struct what){.acks = -1, .ms = 100 + i, .key = "often"});
    send_offset(p, (struct what){.acks = -1, .ms = 7000, .key = "newest"});
    assert_int_equal(part_delete_before(p, 1, &start), KAFKA_NONE);
    assert_newest(p, 11, 7000);
    while (p->log->segs_n < 3)
        send_offset(p, (struct what){.acks = -1, .ms = 200, .key = "often"});
    assert_newest(p, 11, 7000);
    int64_t bytes = (int64_t)part_bytes(p);
    node_wait(compacted, p);
    assert_true((int64_t)part_bytes(p) < bytes);
    assert_newest(p, 11, 7000);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* With memory for few keys: several passes, the same result. */
static void test_compact_passes(void **state)
{
    struct part_conf c = compact_conf();
    compact_world();
    node.conf.compaction_bytes = 24 * 16;
    node_start();
    struct part *p = part_get("t-0", &c);
    for (int32_t i = 0; i < 300; i++) {
        put(p, (uint32_t)(i * 7 % KEYS), i, (struct what){0});
        send_offset(p, (struct what){.acks = 1}); /* keys that come once */
    }
    node_wait(compacted, p);
    assert_true(log_shard_counters(node.shard)->compacted_segments > 10);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, 600);
    for (uint32_t k = 0; k < KEYS; k++) {
        char key[16];
        snprintf(key, sizeof key, "key%u=n%d;", k, values[k]);
        assert_true(values[k] >= 290);
    }
    assert_true(fetch(p, 0, PART_HIGH, 1000)->records < 420);
    assert_true(fetch(p, 0, PART_HIGH, 1000)->records >= 300 + KEYS);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

static void roll_now(struct part *p)
{
    if (seg_last(p)->bytes == 0)
        return;
    assert_int_equal(seg_roll(p), OK);
    part_next(p);
    sync_force(p);
}

/* A tombstone outlives what it deletes by delete.retention.ms, then it goes, too. */
static void test_tombstones(void **state)
{
    struct part_conf c = compact_conf();
    c.delete_retention_ms = 100;
    compact_world();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t k = 0; k < KEYS; k++) put(p, k, (int32_t)k, (struct what){0});
    put(p, 3, -1, (struct what){0});
    put(p, 4, -1, (struct what){0});
    put(p, 4, 44, (struct what){0});
    roll_now(p);
    node_wait(compacted, p);
    check_values(p, 1);
    struct got *g = fetch(p, 0, PART_HIGH, 1000);
    assert_int_equal(g->records, KEYS); /* the tombstone is one of them */
    node_idle(300);
    put(p, 5, 55, (struct what){0});
    roll_now(p);
    node_wait(compacted, p);
    values[3] = -2;
    check_values(p, 1);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->records, KEYS - 1);
    int64_t offset, ms;
    assert_int_equal(part_find_newest(p, &offset, &ms), KAFKA_NONE); /* timestamps are what they were though a horizon stands in a batch */
    assert_true(ms <= part_now(p));
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Aborted records go, their markers later; what is open holds compaction up. */
static void test_compact_transactions(void **state)
{
    struct part_conf c = compact_conf();
    c.delete_retention_ms = 100;
    compact_world();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t k = 0; k < KEYS; k++) put(p, k, (int32_t)k, (struct what){0});
    put(p, 1, 100, (struct what){.producer_id = 8, .txn = true});
    send_error(p, (struct what){.producer_id = 8, .txn = true, .abort = true, .acks = 1});
    values[1] = 1;
    put(p, 2, 200, (struct what){.producer_id = 9, .txn = true});
    send_error(p, (struct what){.producer_id = 9, .txn = true, .commit = true, .acks = 1});
    roll_now(p);
    int64_t open = part_end(p);
    put(p, 4, 400, (struct what){.producer_id = 9, .txn = true, .sequence = 1});
    roll_now(p);
    wait_cleaned(p, open); /* up to the open transaction */
    struct got *g = fetch(p, 0, PART_STABLE, 1000);
    assert_int_equal(g->aborted_n, 0);
    assert_null(strstr(g->text.p, "n100"));
    assert_non_null(strstr(g->text.p, "key1=n1;"));
    assert_non_null(strstr(g->text.p, "key2=n200;"));
    assert_null(strstr(g->text.p, "key2=n2;"));
    send_error(p, (struct what){.producer_id = 9, .txn = true, .commit = true, .acks = 1});
    roll_now(p);
    node_wait(compacted, p);
    check_values(p, 1);
    /* sequences are known to the restarted log without any snapshot */
    node_stop();
    for (int64_t at = 0; at < 40; at++) {
        char path[LOG_PATH_MAX];
        (void)!disk_remove(seg_file(at, EXT_SNAPSHOT, path));
        (void)!disk_remove(node_path("shard-0.checkpoint", path));
    }
    node_start();
    p = part_get("t-0", &c);
    assert_false(part_txn_open(p, 8));
    assert_false(part_txn_open(p, 9));
    run_wait_flushed(p);
    assert_int_equal(part_stable_now(p), part_end(p));
    assert_int_equal(send_error(p, (struct what){.producer_id = 9, .txn = true, .sequence = 7}), KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(send_error(p, (struct what){.producer_id = 8, .txn = true, .sequence = 7}), KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER); /* its last batch is kept, empty */
    check_values(p, 1);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* The marker of an aborted transaction is compacted away behind the newest snapshot, which still tells of the transaction: the next life does not, or readers would wait for the
 * marker, and take what its producer commits later for aborted. */
static void test_compact_aborted(void **state)
{
    struct part_conf c = compact_conf();
    c.delete_retention_ms = 100;
    compact_world();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t k = 0; k < KEYS; k++) put(p, k, (int32_t)k, (struct what){0});
    put(p, 1, 100, (struct what){.producer_id = 8, .txn = true});
    send_error(p, (struct what){.producer_id = 8, .txn = true, .abort = true, .acks = 1});
    roll_now(p);
    snapshot_save(p);
    node_wait(compacted, p); /* its record goes, its marker has a horizon */
    node_restart();
    p = part_get("t-0", &c);
    struct got *g = fetch(p, 0, PART_STABLE, 1000);
    assert_int_equal(g->aborted_n, 1); /* the marker is there */
    node_idle(300);
    put(p, 2, 200, (struct what){.producer_id = 8, .txn = true, .sequence = 1});
    send_error(p, (struct what){.producer_id = 8, .txn = true, .commit = true, .acks = 1});
    put(p, 3, 300, (struct what){.producer_id = 9, .txn = true});
    send_error(p, (struct what){.producer_id = 9, .txn = true, .abort = true, .acks = 1});
    roll_now(p);
    snapshot_save(p);
    node_wait(compacted, p);
    node_restart();
    p = part_get("t-0", &c);
    g = fetch(p, 0, PART_STABLE, 1000);
    assert_non_null(strstr(g->text.p, "key2=n200;"));
    assert_null(strstr(g->text.p, "key3=n300;"));
    assert_int_equal(g->aborted_n, 1); /* the second one, whose marker is there */
    assert_int_equal(g->aborted[0].producer_id, 9);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

static bool is_compacting(void *ctx) { return ((struct part *)ctx)->compacting; }

/* What may happen while segments are being compacted: the partition is deleted, its front is, the node stops. */
static void test_compact_interrupted(void **state)
{
    struct part_conf c = compact_conf();
    for (int how = 0; how < 4; how++) {
        compact_world();
        node_start();
        struct part *p = part_get("t-0", &c);
        for (int32_t i = 0; i < 300; i++) put(p, (uint32_t)(i * 7 % KEYS), i, (struct what){0});
        struct arena a;
        arena_init(&a, MEM_ARENA, 1024);
        struct part_read r = {.offset = 0, .bytes_max = 1000, .until = PART_HIGH};
        part_read(p, &r, &a);
        node_wait(is_compacting, p);
        int64_t start;
        switch (how) {
        case 0: part_delete(p); break;
        case 1: break; /* the stop, at once */
        case 2:
            assert_int_equal(part_delete_before(p, 200, &start), KAFKA_NONE);
            node_wait(compacted, p);
            assert_int_equal(fetch(p, 199, PART_HIGH, 1000)->error, KAFKA_OFFSET_OUT_OF_RANGE);
            assert_int_equal(fetch(p, 200, PART_HIGH, 1000)->next, 300);
            break;
        case 3:
            for (int32_t i = 300; i < 350; i++) put(p, (uint32_t)(i * 7 % KEYS), i, (struct what){0});
            node_wait(compacted, p);
            check_values(p, 60);
            break;
        }
        struct kafka_batch b; /* what was read stays as it was */
        char head[KAFKA_BATCH_HEADER];
        assert_int_equal(file_read_at(segfile_fd(r.file), r.pos, head, sizeof head), OK);
        assert_true(batch_head(head, &b) && b.base_offset <= 0);
        segfile_unref(r.file);
        arena_fini(&a);
        node_restart();
        p = part_get("t-0", &c);
        assert_int_equal(part_end(p), how == 0 ? 0 : how == 3 ? 350 : 300);
        if (how == 1 || how == 3)
            check_values(p, 300);
        node_stop();
        node.conf.files_max = 0;
        world_stop();
    }
}

/* ---- shards ---- */

static struct log_shard *shards[3];

static void shards_open(uint32_t n)
{
    node_start();
    shards[0] = node.shard;
    for (uint32_t i = 1; i < n; i++) shards[i] = log_shard_new(node.store, node.l, i);
}

static void shards_close(uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        bool done = false;
        log_shard_stop(shards[i], note_stopped, &done);
        node_wait(is_stopped, &done);
        log_shard_free(shards[i]);
    }
    node_stop();
}

/* Another number of shards at each start: the partitions are where they are, and are described by whoever had them. */
static void test_shards(void **state)
{
    static const uint32_t counts[] = {2, 3, 1, 2};
    world_start();
    for (size_t life = 0; life < COUNT_OF(counts); life++) {
        shards_open(counts[life]);
        for (uint32_t k = 0; k < 7; k++) {
            char name[16];
            snprintf(name, sizeof name, "t-%u", k);
            struct part *p = part_on(name, shards[(k + life) % counts[life]]);
            assert_int_equal(part_end(p), life);
            assert_int_equal(p->state, life ? PART_SHELVED : PART_EMPTY);
            assert_int_equal(send_offset(p, (struct what){.acks = -1}), life);
            assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, life + 1);
        }
        shards_close(counts[life]);
    }
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    assert_int_equal(file_read(node_path("shard-2.checkpoint", path), &b, 1 << 20), ERR_NOTFOUND); /* it is long out of date */
    world_stop();
}

/* ---- limits ---- */

/* Producers that are silent for longest are forgotten, and counted; one with an open transaction never. */
static void test_producers_limit(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_offset(p, (struct what){.producer_id = 1, .txn = true, .acks = 1});
    for (int64_t id = 2; id <= PRODUCERS_MAX + 10;) {
        struct sent *s[500];
        int n = 0;
        for (; n < 500 && id <= PRODUCERS_MAX + 10; n++) s[n] = batch_send(p, (struct what){.producer_id = id++, .acks = 1});
        sent_wait(s[n - 1]);
        while (n--) sent_free(s[n]);
    }
    uint32_t n = p->log->producers.n;
    uint64_t forgotten = log_shard_counters(node.shard)->producers_forgotten;
    assert_in_range(n, PRODUCERS_MAX / 2, PRODUCERS_MAX);
    assert_true(forgotten >= 10 && n + forgotten == PRODUCERS_MAX + 10);
    assert_true(part_txn_open(p, 1));
    assert_int_equal(send_error(p, (struct what){.producer_id = PRODUCERS_MAX + 10, .sequence = 5}), KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    node_restart();
    p = part_get("t-0", NULL);
    assert_true(part_txn_open(p, 1));
    assert_int_equal(p->log->producers.n, n);
    node_stop();
    world_stop();
}

/* ---- housekeeping of what nobody uses ---- */

static bool started_anew(void *ctx)
{
    struct part *p = ctx;
    return p->log_start == p->end;
}

/* A shelved partition is loaded when something of it may have expired, and only then. */
static void test_shelved_retention(void **state)
{
    struct part_conf c = small_conf();
    c.retention_ms = INT64_MAX / 2;
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.age_look_ms = 0;
    node.conf.housekeeping_ms = 20;
    node_start();
    struct part *p = part_get("t-0", &c);
    fill(p, 20, 1000000);
    node_restart();
    p = part_get("t-0", &c);
    node_idle(100);
    assert_int_equal(p->state, PART_SHELVED);
    c.retention_ms = 1000;
    part_conf_set(p, &c);
    node_wait(started_anew, p);
    assert_int_equal(p->log_start, 40);
    node_restart();
    p = part_get("t-0", &c);
    assert_int_equal(part_end(p), 40);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 40);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* A segment's file stays under another name for file.delete.delay.ms, then it goes; one that waits when the node stops goes then. */
static bool file_gone(void *ctx)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    enum err e = file_read(seg_file(0, EXT_LOG EXT_DELETED, path), &b, 1 << 20);
    buf_free(&b);
    return e == ERR_NOTFOUND;
}

static void test_delete_delay(void **state)
{
    struct part_conf c = small_conf();
    int64_t start;
    world_start();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (int how = 0; how < 2; how++) {
        c.file_delete_delay_ms = how ? 3600000 : 150;
        part_conf_set(p, &c);
        fill(p, 100, 1000000);
        send_offset(p, (struct what){.acks = -1}); /* segments go when those that stay are durable */
        uint64_t began = mono_ns();
        if (how == 0)
            assert_int_equal(part_delete_before(p, 100, &start), KAFKA_NONE);
        assert_true(how || !file_gone(NULL));
        if (how == 0) {
            node_wait(file_gone, NULL);
            assert_true(mono_ns() - began >= 150000000);
        }
    }
    int64_t base = p->log->segs[0].base;
    assert_int_equal(part_delete_before(p, 300, &start), KAFKA_NONE);
    node_stop();
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    assert_int_equal(file_read(seg_file(base, EXT_LOG EXT_DELETED, path), &b, 1 << 20), ERR_NOTFOUND);
    world_stop();
}

/* Compaction lag: what is too young stays as it is; what is too old is taken however little it is. */
static void test_compact_lag(void **state)
{
    struct part_conf c = compact_conf();
    compact_world();
    node_start();
    c.min_compaction_lag_ms = 3600000;
    struct part *p = part_get("t-0", &c);
    for (int32_t i = 0; i < 100; i++) put(p, (uint32_t)i % KEYS, i, (struct what){.ms = 1000000}); /* old */
    roll_now(p);
    int64_t old = part_end(p);
    for (int32_t i = 100; i < 200; i++) put(p, (uint32_t)i % KEYS, i, (struct what){0});
    roll_now(p);
    wait_cleaned(p, old);
    check_values(p, 60);
    c.min_cleanable_ratio = 1.0;
    c.min_compaction_lag_ms = 0;
    c.max_compaction_lag_ms = 10;
    part_conf_set(p, &c);
    node_wait(compacted, p);
    check_values(p, 1);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Timestamps are whatever producers say. */
static void test_timestamps(void **state)
{
    static const int64_t times[] = {INT64_MIN, -1, 1, INT64_MAX, INT64_MIN + 1, 5, INT64_MAX - 1, -7};
    struct part_conf c = compact_conf();
    int64_t offset, ms;
    c.segment_ms = 1000;
    c.segment_bytes = 1024;
    c.delete_retention_ms = INT64_MAX;

    compact_world();
    node_start();
    struct part *p = part_get("t-0", &c);
    for (int round = 0; round < 4; round++)
        for (size_t i = 0; i < COUNT_OF(times); i++)
            send_offset(p, (struct what){.ms = times[i], .acks = 1, .key = "k", .value = i % 3 ? "v" : ""});
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        assert_int_equal(part_find_time(p, times[i], PART_HIGH, &offset, &ms), KAFKA_NONE);
        assert_true(ms >= times[i]);
    }
    assert_int_equal(part_find_newest(p, &offset, &ms), KAFKA_NONE);
    assert_int_equal(ms, INT64_MAX);
    node_idle(200);
    node_restart();
    p = part_get("t-0", &c);
    assert_int_equal(part_end(p), 32);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, 32);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

const struct CMUnitTest log_scenarios[] = {
    cmocka_unit_test(test_append_read),
    cmocka_unit_test(test_acks),
    cmocka_unit_test(test_group_commit),
    cmocka_unit_test(test_watch),
    cmocka_unit_test(test_roll),
    cmocka_unit_test(test_roll_time),
    cmocka_unit_test(test_index_loss),
    cmocka_unit_test(test_delete_before), cmocka_unit_test(test_newest_left),
    cmocka_unit_test(test_retention), cmocka_unit_test(test_retention_by_age_waits),
    cmocka_unit_test(test_delete_while_reading),
    cmocka_unit_test(test_files),
    cmocka_unit_test(test_idle_parts),
    cmocka_unit_test(test_sequences),
    cmocka_unit_test(test_sequence_wrap),
    cmocka_unit_test(test_duplicate_in_flight),
    cmocka_unit_test(test_producer_expiry),
    cmocka_unit_test(test_transactions),
    cmocka_unit_test(test_marker_waits),
    cmocka_unit_test(test_aborted_ranges),
    cmocka_unit_test(test_epochs),
    cmocka_unit_test(test_siphash),
    cmocka_unit_test(test_compact), cmocka_unit_test(test_compact_soon), cmocka_unit_test(test_compact_newest),
    cmocka_unit_test(test_compact_passes),
    cmocka_unit_test(test_tombstones),
    cmocka_unit_test(test_compact_transactions),
    cmocka_unit_test(test_compact_aborted),
    cmocka_unit_test(test_compact_interrupted),
    cmocka_unit_test(test_shards),
    cmocka_unit_test(test_producers_limit),
    cmocka_unit_test(test_shelved_retention),
    cmocka_unit_test(test_delete_delay),
    cmocka_unit_test(test_compact_lag),
    cmocka_unit_test(test_timestamps),
};
const size_t log_scenarios_n = COUNT_OF(log_scenarios);
