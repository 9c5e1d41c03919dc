/* log_sim_test.c - the log in the simulator: the common scenarios, and faults of the disk. */
#include "log_scenarios.h"
#include "sim.h"

#include <errno.h>
#include <stdio.h>

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

/* ---- crashes ---- */

#define LOG0 "/log/t-0/00000000000000000000.log"

/* The process ends without a word, or the power fails; the next one has the disk as it is then. */
static void node_crash(bool power)
{
    if (power)
        sim_power_loss();
    else
        sim_process_crash();
    node_stop();
    sim_restart();
}

static void send_some(struct part *p, int n, int8_t acks)
{
    for (int i = 0; i < n; i++) send_offset(p, (struct what){.n = 1 + i % 3, .acks = acks});
}

/* After a crash: exactly the whole batches in front of byte `cut` (or of the one that has it flipped) are there, and it goes on behind them. */
static void check_whole(const char *what, uint64_t at, const uint64_t *ends, const int64_t *offsets, int n)
{
    struct part *p = part_get("t-0", NULL);
    int whole = 0;
    while (whole < n && ends[whole] <= at) whole++;
    int64_t want = whole ? offsets[whole - 1] : 0;
    if (part_end(p) != want)
        fail_msg("%s at %llu: ends at %lld, not %lld", what, (unsigned long long)at, (long long)part_end(p), (long long)want);
    struct got *g = fetch(p, 0, PART_END, 100000);
    assert_int_equal(g->error, KAFKA_NONE);
    assert_int_equal(g->batches, whole);
    assert_false(p->offline);
    assert_int_equal(p->epoch, 1);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), want);
    assert_int_equal(fetch(p, 0, PART_HIGH, 100000)->next, want + 1);
}

static void test_torn_tail(void **state)
{
    enum { N = 5 };
    uint64_t ends[N], total = 1;
    int64_t offsets[N];
    for (int flip = 0; flip < 2; flip++) {
        for (uint64_t at = 0; at < total; at++) {
            if (flip && at % 61 >= 12 && at % 61 < 16)
                continue; /* perhaps a leader epoch: nothing would notice */
            world_start();
            node_start();
            struct part *p = part_get("t-0", NULL);
            for (int i = 0; i < N; i++) {
                send_offset(p, (struct what){.n = 1 + i % 3, .acks = 1, .ms = 1000000 + i});
                ends[i] = p->bytes;
                offsets[i] = p->end;
            }
            total = p->bytes;
            node_crash(false);
            bool in_epoch = false;
            for (int i = 0; i < N; i++) in_epoch |= flip && at >= (i ? ends[i - 1] : 0) + 12 && at < (i ? ends[i - 1] : 0) + 16;
            assert_true(flip ? sim_file_flip(LOG0, at) : sim_file_cut(LOG0, at));
            node_start();
            assert_false(log_store_was_clean(node.store));
            if (!in_epoch)
                check_whole(flip ? "flip" : "cut", at, ends, offsets, N);
            node_stop();
            world_stop();
        }
    }
}

/* What acks -1 was answered for is there after power loss; the rest perhaps, but no half of a batch, and nothing else. */
static void test_power_loss(void **state)
{
    for (int i = 0; i < 200; i++) {
        world_start();
        node_start();
        struct part_conf c;
        part_conf_default(&c);
        c.segment_bytes = 1024 + 100 * (uint32_t)(i % 5);
        struct part *p = part_get("t-0", &c);
        send_some(p, i % 7, 1);
        send_some(p, i % 11, -1);
        int64_t durable = i % 11 ? part_end(p) : 0;
        send_some(p, i % 13, 1);
        int64_t end = part_end(p);
        node_crash(true);
        node_start();
        p = part_get("t-0", &c);
        if (part_end(p) < durable || part_end(p) > end)
            fail_msg("round %d: ends at %lld, %lld was durable, %lld written", i, (long long)part_end(p), (long long)durable, (long long)end);
        assert_true(part_high_now(p) <= part_end(p));
        assert_false(p->offline);
        run_wait_flushed(p);
        assert_true(p->log_start == 0 || durable == 0); /* the name of the first segment may be lost where nothing was durable: it begins with the next one */
        int64_t next = fetch(p, p->log_start, PART_HIGH, 100000)->next;
        assert_int_equal(next < 0 ? p->log_start : next, part_end(p));
        assert_int_equal(p->epoch, part_end(p) || p->state == PART_LOADED || end ? 1 : p->epoch);
        send_offset(p, (struct what){.acks = -1});
        node_stop();
        world_stop();
    }
}

/* ---- damage ---- */

/* A byte of what was durable is wrong: what is around it is served, nothing is cut, and deleting up to behind it makes it write again. */
static void test_damage(void **state)
{
    for (uint64_t byte = 0; byte < 2; byte++) {
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        uint64_t third = 0;
        for (int i = 0; i < 10; i++) {
            if (i == 3)
                third = p->bytes;
            send_offset(p, (struct what){.n = 2, .acks = -1});
        }
        node_stop(); /* the checkpoint knows all of it to be durable */
        node_start();
        p = part_get("t-0", NULL);
        send_offset(p, (struct what){.n = 2, .acks = -1}); /* the last segment is longer than was noted: it will be walked */
        node_crash(false);
        assert_true(sim_file_flip(LOG0, third + (byte ? 8 : 16))); /* length, magic */
        node_start();
        p = part_get("t-0", NULL);
        assert_int_equal(part_end(p), 22);
        assert_true(p->offline);
        assert_int_equal(send_error(p, (struct what){.acks = 1}), KAFKA_KAFKA_STORAGE_ERROR);
        struct got *g = fetch(p, 0, PART_HIGH, 100000);
        assert_int_equal(g->next, 6);
        assert_int_equal(g->error, KAFKA_KAFKA_STORAGE_ERROR);
        assert_int_equal(fetch(p, 7, PART_HIGH, 100000)->error, KAFKA_KAFKA_STORAGE_ERROR);
        run_wait_flushed(p);
        g = fetch(p, 8, PART_HIGH, 100000);
        assert_int_equal(g->error, KAFKA_NONE);
        assert_int_equal(g->first, 8);
        assert_int_equal(g->next, 22);
        int64_t start;
        assert_int_equal(part_delete_before(p, 8, &start), KAFKA_NONE);
        assert_false(p->offline);
        assert_int_equal(send_offset(p, (struct what){.acks = -1}), 22);
        node_stop();
        world_stop();
    }
}

static void send_from(struct part *p, int16_t epoch, int32_t first, int32_t n)
{
    for (int32_t i = first; i < first + n; i++) send_offset(p, (struct what){.producer_id = 5, .epoch = epoch, .sequence = i, .acks = -1});
}

/* A snapshot of records that were lost, and have since been followed by others at the same offsets: it is not taken, though it be there again. */
static void test_stale_snapshot(void **state)
{
    static const char path[] = "/log/t-0/00000000000000000010.snapshot";
    struct buf old = {0};
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_from(p, 0, 0, 5);
    uint64_t five = p->bytes;
    send_from(p, 0, 5, 5);
    assert_int_equal(seg_roll(p), OK);
    snapshot_save(p);
    node_idle(100);
    buf_add(&old, sim_file(path)->p, sim_file(path)->n);
    node_crash(false);
    assert_true(sim_file_cut(LOG0, five));
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(part_end(p), 5);
    assert_null(sim_file(path));
    send_from(p, 1, 0, 8);
    node_crash(false);
    assert_int_equal(file_replace(path, old.p, old.n, 0600), OK);
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(part_end(p), 13);
    assert_int_equal(send_offset(p, (struct what){.producer_id = 5, .epoch = 1, .sequence = 3, .acks = -1}), 8); /* one of the last five */
    buf_free(&old);
    node_stop();
    world_stop();
}

/* Very many damaged places: the last that can be remembered reaches to the end. Nothing wrong is served. */
static void test_damages_limit(void **state)
{
    uint64_t at[60];
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    for (int i = 0; i < 60; i++) {
        at[i] = p->bytes;
        send_offset(p, (struct what){.acks = -1});
    }
    node_restart();
    p = part_get("t-0", NULL);
    send_offset(p, (struct what){.acks = -1});
    node_crash(false);
    for (int i = 1; i < 60; i += 2) assert_true(sim_file_flip(LOG0, at[i] + 16));
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(p->log->damages_n, DAMAGES_MAX);
    assert_true(p->offline);
    run_wait_flushed(p);
    for (int64_t o = 0; o <= 60; o++) {
        struct got *g = fetch(p, o, PART_HIGH, 100000);
        bool sound = o % 2 == 0 && o < 2 * DAMAGES_MAX;
        assert_int_equal(g->error, KAFKA_KAFKA_STORAGE_ERROR);
        if (g->batches != (sound ? 1u : 0u))
            fail_msg("offset %lld: %u batches", (long long)o, g->batches);
    }
    int64_t start;
    assert_int_equal(part_delete_before(p, -1, &start), KAFKA_NONE);
    assert_false(p->offline);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 61);
    node_stop();
    world_stop();
}

/* What is not in memory is said to be cold, but not what was just written. */
static void test_cold(void **state)
{
    struct arena a;
    world_start();
    node_start();
    arena_init(&a, MEM_ARENA, 1024);
    struct part_conf c;
    part_conf_default(&c);
    c.segment_bytes = 2000;
    struct part *p = part_get("t-0", &c);
    send_some(p, 60, -1);
    sim_disk_cold(100);
    struct part_read r = {.offset = 0, .bytes_max = 1000, .until = PART_HIGH};
    part_read(p, &r, &a);
    assert_true(r.bytes && r.cold);
    segfile_unref(r.file);
    assert_int_equal(log_shard_counters(node.shard)->cold_reads, 1);
    r = (struct part_read){.offset = part_end(p) - 1, .bytes_max = 1000, .until = PART_HIGH};
    part_read(p, &r, &a);
    assert_true(r.bytes && !r.cold);
    segfile_unref(r.file);
    arena_fini(&a);
    node_stop();
    world_stop();
}

/* The end of what was durable is missing: said, offsets are not given out again. */
static void test_missing_end(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    uint64_t fifth = 0;
    for (int i = 0; i < 10; i++) {
        if (i == 5)
            fifth = p->bytes;
        send_offset(p, (struct what){.n = 2, .acks = -1});
    }
    node_stop();
    assert_true(sim_file_cut(LOG0, fifth + 20));
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(part_end(p), 20);
    struct got *g = fetch(p, 0, PART_HIGH, 100000);
    assert_int_equal(g->next, 10);
    assert_true(p->offline);
    assert_int_equal(fetch(p, 12, PART_HIGH, 100000)->error, KAFKA_KAFKA_STORAGE_ERROR);
    int64_t start;
    assert_int_equal(part_delete_before(p, -1, &start), KAFKA_NONE);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 20);
    node_restart();
    p = part_get("t-0", NULL);
    assert_int_equal(fetch(p, 20, PART_HIGH, 100000)->next, 21);
    node_stop();
    world_stop();
}

/* ---- errors of the disk ---- */

static bool room_again(void *ctx) { return log_shard_counters(node.shard)->disk_full == 0; }

static void test_full_disk(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    int n = 0;
    send_offset(p, (struct what){.producer_id = 4, .sequence = n++, .acks = -1});
    sim_disk_bytes_max(30000);
    enum kafka_error e = KAFKA_NONE;
    for (; e == KAFKA_NONE && n < 1000; n++) e = send_error(p, (struct what){.producer_id = 4, .sequence = n, .acks = n % 2 ? -1 : 1, .value_bytes = 500});
    assert_int_equal(e, KAFKA_KAFKA_STORAGE_ERROR);
    n--;
    assert_int_equal(log_shard_counters(node.shard)->disk_full, 1);
    assert_false(p->offline);
    assert_int_equal(part_end(p), n);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, n);
    assert_int_equal(send_error(p, (struct what){.producer_id = 4, .sequence = n, .acks = 1}), KAFKA_KAFKA_STORAGE_ERROR);
    assert_true(log_shard_counters(node.shard)->written_refused >= 2);
    sim_disk_bytes_max(0);
    node_wait(room_again, NULL);
    assert_int_equal(send_offset(p, (struct what){.producer_id = 4, .sequence = n, .acks = -1}), n); /* what failed was not noted as sent */
    node_restart();
    p = part_get("t-0", NULL);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, n + 1);
    node_stop();
    world_stop();
}

/* What one turn appends is written in several parts, and the second finds no room: the first stays. */
static void test_full_within_turn(void **state)
{
    struct sent *s[5];
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_offset(p, (struct what){.producer_id = 4, .acks = -1});
    sim_disk_bytes_max(250000);
    for (int i = 0; i < 5; i++) {
        s[i] = batch_send(p, (struct what){.producer_id = 4, .sequence = i + 1, .acks = i % 2 ? -1 : 1, .value_bytes = 70000});
        assert_int_equal(p->written, i < 1 ? 1 : 3); /* 140,000 bytes with the second; as many with the fourth, which don't fit */
        assert_false(s[i]->done);
    }
    for (int i = 0; i < 5; i++) {
        sent_wait(s[i]);
        assert_int_equal(s[i]->a.error, i < 2 ? KAFKA_NONE : KAFKA_KAFKA_STORAGE_ERROR);
        assert_int_equal(s[i]->a.base_offset, i < 2 ? i + 1 : -1);
        sent_free(s[i]);
    }
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000000)->next, 3);
    sim_disk_bytes_max(0);
    node_wait(room_again, NULL);
    assert_int_equal(send_offset(p, (struct what){.producer_id = 4, .sequence = 3, .acks = -1}), 3);
    node_restart();
    assert_int_equal(fetch(part_get("t-0", NULL), 0, PART_HIGH, 1000000)->next, 4);
    node_stop();
    world_stop();
}

/* A write fails while a sync is on its way, and what it left is cut off. A clean stop leaves nothing of it, whatever the power does then. */
static bool rounding(void *ctx) { return ((struct part *)ctx)->rounding; }
static void test_cut_within_round(void **state)
{
    for (int round = 0; round < 20; round++) {
        uint64_t left, total;
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        send_some(p, 2, -1);
        sim_disk_slow(30, 30);
        struct sent *s = batch_send(p, (struct what){.acks = -1});
        node_wait(rounding, p);
        node_idle(15); /* it has begun in the pool */
        assert_int_equal(disk_space("/", &left, &total), OK);
        sim_disk_bytes_max(total - left + 100);
        assert_int_equal(send_error(p, (struct what){.acks = 1, .value_bytes = 500}), KAFKA_KAFKA_STORAGE_ERROR);
        assert_true(p->rounding);
        sim_disk_bytes_max(0);
        sent_wait(s);
        sent_free(s);
        sim_disk_slow(0, 0);
        uint64_t bytes = p->bytes;
        node_stop();
        sim_power_loss();
        sim_restart();
        assert_int_equal(sim_file(LOG0)->n, bytes);
        node_start();
        p = part_get("t-0", NULL);
        assert_int_equal(p->state, PART_SHELVED);
        assert_int_equal(fetch(p, 0, PART_HIGH, 10000)->next, part_end(p));
        node_stop();
        world_stop();
    }
}

/* The same where the segment is empty then: nothing goes behind the cut whose sync would make it durable, and a whole batch of what failed may come back. */
static void test_cut_to_nothing(void **state)
{
    for (int round = 0; round < 40; round++) {
        uint64_t left, total;
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        assert_int_equal(disk_space("/", &left, &total), OK);
        sim_disk_bytes_max(total - left + 3000);
        struct sent *a = batch_send(p, (struct what){.acks = 1, .value_bytes = 300}), *b = batch_send(p, (struct what){.acks = 1, .value_bytes = 9000});
        sent_wait(a);
        sent_wait(b);
        assert_true(a->a.error == KAFKA_KAFKA_STORAGE_ERROR && b->a.error == KAFKA_KAFKA_STORAGE_ERROR);
        sent_free(a);
        sent_free(b);
        sim_disk_bytes_max(0);
        assert_int_equal(p->bytes, 0);
        if (round % 2)
            node_idle(50);
        node_stop();
        sim_power_loss();
        sim_restart();
        if (sim_file(LOG0))
            assert_int_equal(sim_file(LOG0)->n, 0);
        node_start();
        p = part_get("t-0", NULL);
        assert_int_equal(part_end(p), 0);
        assert_int_equal(fetch(p, 0, PART_HIGH, 10000)->next, -1); /* nothing; and it is loaded */
        assert_int_equal(part_end(p), 0);
        node_stop();
        world_stop();
    }
}

/* Below the reserve nothing is taken but what coordinators write. */
static bool full_now(void *ctx) { return log_shard_counters(node.shard)->disk_full == 1; }
static void test_reserve(void **state)
{
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 1 << 20;
    sim_disk_bytes_max(4 << 20);
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_offset(p, (struct what){.acks = -1, .value_bytes = 900000});
    assert_int_equal(log_shard_counters(node.shard)->disk_full, 0);
    for (int i = 0; i < 3; i++) send_offset(p, (struct what){.acks = -1, .value_bytes = 900000});
    node_wait(full_now, NULL);
    assert_int_equal(send_error(p, (struct what){.acks = 1}), KAFKA_KAFKA_STORAGE_ERROR);
    assert_int_equal(send_error(p, (struct what){.acks = -1, .coordinator = true}), KAFKA_NONE);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, 5);
    sim_disk_bytes_max(100 << 20);
    node_wait(room_again, NULL);
    assert_int_equal(send_error(p, (struct what){.acks = 1}), KAFKA_NONE);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

static void test_write_error(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_some(p, 3, -1);
    int64_t end = part_end(p);
    sim_disk_fail_next(SIM_DISK_WRITE, 0, EIO);
    assert_int_equal(send_error(p, (struct what){.acks = 1}), KAFKA_KAFKA_STORAGE_ERROR);
    assert_int_equal(part_end(p), end);
    assert_true(p->offline);
    assert_int_equal(log_shard_counters(node.shard)->offline, 1);
    assert_int_equal(send_error(p, (struct what){.acks = 1}), KAFKA_KAFKA_STORAGE_ERROR);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, end);
    node_restart();
    p = part_get("t-0", NULL);
    assert_false(p->offline);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, end);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), end);
    node_stop();
    world_stop();
}

/* A sync that failed: what waited for it fails and is never seen, what had been seen stays until the next start, which cuts. */
static void test_sync_error(void **state)
{
    for (int how = 0; how < 3; how++) {
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        struct part *other = part_get("t-1", NULL);
        send_some(p, 3, -1);
        send_some(other, 1, -1);
        int64_t durable = part_end(p);
        send_offset(p, (struct what){.acks = 1});
        sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
        struct sent *a = batch_send(p, (struct what){.acks = -1}), *b = batch_send(p, (struct what){.acks = -1}), *c = batch_send(p, (struct what){.acks = 1});
        sent_wait(a);
        sent_wait(b);
        sent_wait(c);
        assert_int_equal(a->a.error, KAFKA_KAFKA_STORAGE_ERROR);
        assert_int_equal(a->a.base_offset, -1);
        assert_int_equal(b->a.error, KAFKA_KAFKA_STORAGE_ERROR);
        assert_int_equal(c->a.error, KAFKA_NONE); /* it was written; nothing more was promised */
        assert_true(p->offline);
        assert_false(other->offline);
        assert_int_equal(part_high_now(p), durable + 1);
        assert_int_equal(part_end(p), durable + 1);
        assert_int_equal(fetch(p, 0, PART_END, 1000)->next, durable + 1);
        assert_int_equal(send_error(p, (struct what){.acks = -1}), KAFKA_KAFKA_STORAGE_ERROR);
        assert_int_equal(send_error(other, (struct what){.acks = -1}), KAFKA_NONE);
        sent_free(a);
        sent_free(b);
        sent_free(c);
        node_idle(10);
        if (how)
            node_crash(how == 2);
        else
            node_stop();
        node_start();
        p = part_get("t-0", NULL);
        int64_t kept = part_end(p); /* what was shown is written once more, unless the power failed */
        assert_in_range(kept, how == 2 ? durable : durable + 1, durable + 1);
        assert_false(p->offline);
        assert_int_equal(p->epoch, how ? 1 : p->epoch);
        assert_int_equal(send_offset(p, (struct what){.acks = -1}), kept);
        node_crash(true);
        node_start();
        p = part_get("t-0", NULL);
        assert_int_equal(part_end(p), kept + 1); /* it is not cut a second time */
        node_stop();
        world_stop();
    }
}

static bool is_down(void *ctx) { return sim_is_down(); }

/* A sync fails, and the process is gone before it can act on that. The next one's sync of the same bytes would succeed and mean nothing. */
static void test_sync_error_unheard(void **state)
{
    for (int i = 0; i < 40; i++) {
        world_start();
        node_start();
        struct part *p = part_get("t-0", NULL);
        send_some(p, 3, -1);
        sim_disk_slow(5, 5);
        struct sent *sent[11];
        for (int k = 0; k < 11; k++) sent[k] = batch_send(p, (struct what){.acks = k < 10 ? 1 : -1, .value_bytes = 300});
        sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
        sim_crash_after(3 + (uint32_t)i % 5, false); /* behind the write and the sync that fails: anywhere in the note of that */
        node_wait(is_down, NULL);
        node_stop();
        sim_restart();
        for (int k = 0; k < 11; k++) sent_free(sent[k]);
        sim_disk_slow(0, 0);
        node_start();
        p = part_get("t-0", NULL);
        run_wait_flushed(p);
        int64_t end = part_end(p);
        node_stop();
        node_start();
        p = part_get("t-0", NULL);
        node_crash(true);
        node_start();
        p = part_get("t-0", NULL);
        assert_int_equal(part_end(p), end);
        struct got *g = fetch(p, 0, PART_END, 100000);
        assert_int_equal(g->error, KAFKA_NONE);
        assert_int_equal(g->next, end);
        node_stop();
        world_stop();
    }
}

/* Slow syncs: what comes meanwhile goes together in the next round. */
static void test_slow_sync(void **state)
{
    enum { N = 50 };
    struct sent *s[N];
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_some(p, 1, -1);
    sim_disk_slow(5, 5);
    uint64_t before = log_shard_counters(node.shard)->sync_rounds;
    for (int i = 0; i < N; i++) {
        s[i] = batch_send(p, (struct what){.acks = -1});
        node_idle(1);
    }
    for (int i = 0; i < N; i++) {
        sent_wait(s[i]);
        assert_int_equal(s[i]->a.error, KAFKA_NONE);
        assert_true(i == 0 || s[i]->order > s[i - 1]->order);
    }
    for (int i = 0; i < N; i++) sent_free(s[i]);
    assert_in_range(log_shard_counters(node.shard)->sync_rounds - before, 5, 25);
    sim_disk_slow(0, 0);
    node_stop();
    world_stop();
}

/* After a crash what a checkpoint described and nobody touched is not walked: it may be damaged and nobody notices until it is read. */
static void test_untouched(void **state)
{
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.checkpoint_ms = 50;
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_some(p, 10, 1);
    int64_t end = part_end(p);
    assert_true(p->durable < end);
    node_idle(500);
    assert_int_equal(p->durable, end); /* the checkpoint has made it durable */
    assert_int_equal(p->noted, end);
    node_crash(true);
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(part_end(p), end);
    assert_int_equal(fetch(p, 0, PART_HIGH, 1000)->next, end);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

static void test_epoch_rises(void **state)
{
    int32_t epoch;
    int64_t end, start, ends[4];
    world_start();
    node_start();
    for (int i = 0; i < 4; i++) {
        struct part *p = part_get("t-0", NULL);
        assert_int_equal(p->epoch, i);
        send_some(p, 2, -1);
        ends[i] = part_end(p);
        node_crash(true);
        node_start();
    }
    struct part *p = part_get("t-0", NULL), *fresh = part_get("t-1", NULL);
    assert_int_equal(p->epoch, 4);
    assert_int_equal(fresh->epoch, 4);
    for (int i = 0; i < 4; i++) {
        part_epoch_end(p, i, &epoch, &end);
        assert_int_equal(epoch, i);
        assert_int_equal(end, ends[i]);
        assert_int_equal(part_epoch_at(p, ends[i] - 1), i);
        assert_int_equal(part_epoch_at(p, ends[i]), i + 1);
    }
    /* those whose records are deleted ended where the log begins now */
    run_wait_flushed(p);
    assert_int_equal(part_delete_before(p, ends[1] + 1, &start), KAFKA_NONE);
    for (int i = 0; i < 2; i++) {
        part_epoch_end(p, i, &epoch, &end);
        assert_int_equal(epoch, i);
        assert_int_equal(end, start);
    }
    part_epoch_end(p, 2, &epoch, &end);
    assert_int_equal(epoch, 2);
    assert_int_equal(end, ends[2]);
    node_stop();
    world_stop();
}

/* An epoch that left nothing behind: a reader who stands at the start, and learned it then, has lost nothing, and must not be told so. */
static void test_epoch_forgotten(void **state)
{
    int32_t epoch;
    int64_t end;
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    assert_int_equal(p->epoch, 0);
    node_crash(true);
    node_start();
    p = part_get("t-0", NULL);
    assert_true(p->epoch > 0);
    send_some(p, 2, -1);
    part_epoch_end(p, 0, &epoch, &end);
    assert_int_equal(epoch, 0);
    assert_int_equal(end, 0);
    part_epoch_end(p, -1, &epoch, &end);
    assert_int_equal(epoch, -1);
    assert_int_equal(end, -1);
    node_stop();
    world_stop();
}

/* Behind the recovery point the epochs are those of the batches that are there, whatever a later life, whose records are gone, has noted. No epoch is used twice. */
static void test_epoch_of_the_log(void **state)
{
    int32_t epoch;
    int64_t end;
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    assert_int_equal(send_offset(p, (struct what){.acks = -1}), 0);
    assert_int_equal(send_offset(p, (struct what){.acks = 1}), 1);
    p->epochs = mem_grow(MEM_PART, p->epochs, 2 * sizeof *p->epochs);
    p->epochs[p->epochs_n++] = (struct epoch_start){5, 1};
    shard_checkpoint_go(node.shard);
    node_idle(100);
    assert_int_equal(p->durable, 1);
    node_crash(false);
    node_start();
    p = part_get("t-0", NULL);
    assert_int_equal(p->end, 2);
    part_epoch_end(p, 0, &epoch, &end);
    assert_int_equal(epoch, 0);
    assert_int_equal(end, 2);
    assert_int_equal(p->epoch, 6);
    node_stop();
    world_stop();
}

/* ---- crashes within a compaction ---- */

/* key=value pairs, the last one of each key: what a compacted topic stands for. */
static void state_of(struct part *p, char out[10][24])
{
    memset(out, 0, 10 * 24);
    struct got *g = fetch(p, p->log_start, PART_END, 100000);
    assert_int_equal(g->error, KAFKA_NONE);
    for (const char *at = g->text.p; *at; at = strchr(at, ';') + 1) {
        const char *end = strchr(at, ';');
        assert_true(at[0] == 'k' && at[1] >= '0' && at[1] <= '9' && end - at < 24);
        memcpy(out[at[1] - '0'], at, (size_t)(end - at));
        out[at[1] - '0'][end - at] = 0;
    }
}

static bool compaction_over(void *ctx)
{
    struct part *p = ctx;
    return sim_is_down() || (!p->compacting && p->cleaned == seg_last(p)->base);
}

static struct part_conf compact_conf(void)
{
    struct part_conf c;
    part_conf_default(&c);
    c.segment_bytes = 1100;
    c.index_interval_bytes = 100;
    c.file_delete_delay_ms = 0;
    c.delete_retention_ms = 0;
    c.segment_ms = INT64_MAX / 2;
    c.cleanup_compact = true;
    c.cleanup_delete = false;
    return c;
}

/* False: the compaction ended before the n-th change. */
static bool crash_in_compaction(uint32_t n, bool power)
{
    static uint32_t serial;
    char before[10][24], after[10][24], key[8], value[16];
    struct part_conf c = compact_conf();
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.checkpoint_ms = 20;
    node.conf.housekeeping_ms = 1000;
    node.conf.compaction_bytes = 1 << 16;
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "k%u", i % 7);
        snprintf(value, sizeof value, "v%u", ++serial);
        send_offset(p, (struct what){.key = key, .value = i % 7 == 3 && i > 50 ? "" : value, .acks = -1});
    }
    node_idle(200); /* a checkpoint */
    assert_int_equal(p->noted, part_end(p));
    state_of(p, before);
    int64_t end = part_end(p);
    sim_crash_after(n, power);
    node_wait(compaction_over, p);
    bool crashed = sim_is_down();
    sim_crash_after(0, false);
    if (!crashed)
        sim_process_crash();
    node_stop();
    sim_restart();
    node_start();
    p = part_get("t-0", &c);
    if (part_end(p) != end || p->offline)
        fail_msg("crash %u: ends at %lld, not %lld", n, (long long)part_end(p), (long long)end);
    state_of(p, after);
    after[3][2] = before[3][2] = '='; /* a tombstone may be gone by then */
    if (strlen(after[3]) <= 3)
        memset(after[3], 0, sizeof after[3]), memset(before[3], 0, sizeof before[3]);
    if (memcmp(before, after, sizeof before) != 0)
        fail_msg("crash %u: another state", n);
    assert_int_equal(send_offset(p, (struct what){.key = "k1", .acks = -1}), end);
    node_restart(); /* and nothing is left that a next start would stumble over */
    p = part_get("t-0", &c);
    assert_int_equal(part_end(p), end + 1);
    state_of(p, after);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
    return crashed;
}

static void test_compaction_crashes(void **state)
{
    uint32_t n = 1;
    while (crash_in_compaction(n, false) && crash_in_compaction(n, true)) n++;
    assert_true(n > 20);
    for (uint32_t again = 1; again < n; again++) crash_in_compaction(again, true); /* with other luck */
}

static bool compacted(void *ctx)
{
    struct part *p = ctx;
    return !p->compacting && p->cleaned == seg_last(p)->base;
}

/* Without room for the new segments beside the old ones there is no compaction; with room again there is, by itself. */
static void test_compaction_room(void **state)
{
    struct part_conf c = compact_conf();
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 3000;
    node.conf.checkpoint_ms = 20;
    node.conf.housekeeping_ms = 5000; /* what is free is looked at before */
    node.conf.compaction_bytes = 1 << 16;
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t i = 0; i < 60; i++) send_offset(p, (struct what){.key = "k", .acks = -1});
    uint64_t bytes = part_bytes(p), sealed = bytes - seg_last(p)->bytes;
    sim_disk_bytes_max(bytes + 3000 + 3000); /* the reserve, other files; not the sealed segments once more */
    assert_true(sealed > 3000);
    node_idle(30000);
    assert_int_equal(p->cleaned, 0);
    assert_int_equal(part_bytes(p), bytes);
    assert_int_equal(log_shard_counters(node.shard)->disk_full, 0);
    sim_disk_bytes_max(0);
    node_idle(700000);
    assert_true(compacted(p));
    assert_true(part_bytes(p) < bytes / 2);
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Damage in a segment: it is not compacted, and stays as it is. */
static void test_compaction_damage(void **state)
{
    struct part_conf c = compact_conf();
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.checkpoint_ms = 20;
    node.conf.housekeeping_ms = 1000;
    node.conf.compaction_bytes = 1 << 16;
    node_start();
    struct part *p = part_get("t-0", &c);
    for (uint32_t i = 0; i < 60; i++) send_offset(p, (struct what){.key = "k", .acks = -1});
    uint64_t bytes = part_bytes(p);
    node_idle(200);
    assert_true(sim_file_flip(LOG0, 70));
    node_idle(3000);
    assert_int_equal(part_bytes(p), bytes);
    assert_int_equal(p->cleaned, 0);
    assert_false(p->compacting);
    assert_null(sim_file("/log/t-0/00000000000000000000.cleaned"));
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* ---- the start of the log ---- */

#define RETAINED 40                    /* batches of one record, a dozen segments */

static void retained_start(struct part_conf *c)
{
    part_conf_default(c);
    c->segment_bytes = 1024;
    c->index_interval_bytes = 100;
    c->file_delete_delay_ms = 3600000;
    c->retention_ms = -1;
    world_start();
    log_store_conf_default(&node.conf);
    node.conf.reserve_bytes = 0;
    node.conf.housekeeping_ms = 20;
    node_start();
}

static void retained_stop(void)
{
    node_stop();
    node.conf.files_max = 0;
    world_stop();
}

/* Where it begins does not matter here: from there on nothing is missing. */
static void check_no_hole(struct part *p)
{
    struct got *g = fetch(p, p->log_start, PART_END, 1000000);
    assert_int_equal(g->error, KAFKA_NONE);
    assert_int_equal(g->next, RETAINED);
    if (g->first != p->log_start || g->records != g->next - g->first)
        fail_msg("from %lld on: %u records, %lld to %lld", (long long)p->log_start, g->records, (long long)g->first, (long long)g->next - 1);
}

static bool one_left(void *ctx) { return sim_is_down() || ((struct part *)ctx)->log->segs_n == 1; }

/* False: the segments were gone before the n-th change. */
static bool crash_in_removal(uint32_t n)
{
    struct part_conf c;
    retained_start(&c);
    struct part *p = part_get("t-0", &c);
    for (int i = 0; i < RETAINED; i++) send_offset(p, (struct what){.acks = -1, .value_bytes = 150});
    assert_true(p->log->segs_n > 6);
    c.retention_bytes = 0;
    part_conf_set(p, &c);
    sim_crash_after(n, true);
    node_wait(one_left, p);
    bool down = sim_is_down();
    sim_crash_after(0, false);
    node_crash(true);
    node_start();
    c.retention_bytes = -1;
    p = part_get("t-0", &c);
    check_no_hole(p);
    retained_stop();
    return down;
}

/* All but the last segment expire at once; the power fails in front of any change of the disk, and behind them. */
static void test_removal_crashes(void **state)
{
    for (int round = 0; round < 10; round++)
        for (uint32_t n = 1; crash_in_removal(n); n++) {}
}

/* No room for the note of a new start: the segments go all the same, one at a time, and nothing of it is noted before there is room. */
static void test_removal_on_full_disk(void **state)
{
    for (int round = 0; round < 20; round++) {
        struct part_conf c;
        retained_start(&c);
        struct part *p = part_get("t-0", &c);
        for (int i = 0; i < RETAINED; i++) send_offset(p, (struct what){.acks = -1, .value_bytes = 150});
        uint32_t segs = p->log->segs_n;
        sim_disk_bytes_max(1);
        sim_disk_slow(0, round % 2 ? 100 : 0); /* several looks, perhaps, before a removal is durable */
        c.retention_bytes = 0;
        part_conf_set(p, &c);
        node_idle(1 + (uint64_t)round * 10);
        assert_int_equal(p->start_noted, 0);
        assert_false(p->offline);
        assert_true(p->log->segs_n >= segs - (uint32_t)round / 2 - 1);
        if (round % 2) {
            node_crash(true);
            sim_disk_bytes_max(0);
            sim_disk_slow(0, 0);
            node_start();
            p = part_get("t-0", &c);
            check_no_hole(p);
        } else {
            node_wait(one_left, p);
            assert_int_equal(p->start_noted, 0);
            sim_disk_bytes_max(0);
            node_wait(room_again, NULL);
        }
        assert_int_equal(send_offset(p, (struct what){.acks = -1, .value_bytes = 800}), RETAINED);
        node_wait(one_left, p);
        assert_int_equal(p->start_noted, p->log_start);
        retained_stop();
    }
}

static bool some_left(void *ctx) { return ((struct part *)ctx)->start_noted > 0; }

/* A segment before the durable start could not be removed. As long as the one behind it is there, a start knows where it ends: so none goes without a note. */
static void test_left_over(void **state)
{
    struct part_conf c;
    retained_start(&c);
    struct part *p = part_get("t-0", &c);
    for (int i = 0; i < RETAINED; i++) send_offset(p, (struct what){.acks = -1, .value_bytes = 150});
    c.retention_bytes = (int64_t)(part_bytes(p) / 2);
    part_conf_set(p, &c);
    sim_disk_fail_next(SIM_DISK_RENAME, 6, EIO); /* behind the note's own and those of the first segment, the second's .log */
    node_wait(some_left, p);
    assert_true(p->left_over);
    run_wait_flushed(p);
    node_idle(100);
    uint32_t segs = p->log->segs_n;
    assert_true(segs > 2);
    sim_disk_bytes_max(1);
    c.retention_bytes = 0;
    part_conf_set(p, &c);
    node_idle(500);
    assert_int_equal(p->log->segs_n, segs);
    node_crash(false);
    sim_disk_bytes_max(0);
    node_start();
    p = part_get("t-0", &c);
    check_no_hole(p);
    assert_false(p->left_over);
    node_wait(one_left, p);
    retained_stop();
}

/* A note that is written when its partition was deleted, and another one has the name: that one's stays. */
static void test_late_note(void **state)
{
    world_start();
    node_start();
    struct part *p = part_get("t-0", NULL);
    send_some(p, 10, -1);
    p->pins++; /* as the work that writes it */
    struct part_note note = part_note_of(p), found;
    note.log_start = 15;
    part_delete(p);
    struct part *other = part_get("t-0", NULL);
    assert_int_equal(send_offset(other, (struct what){.acks = -1}), 0);
    assert_int_equal(part_note_write(p, &note), ERR_NOTFOUND);
    assert_true(part_note_read("/log/t-0", &found));
    assert_true(found.instance == other->instance && found.log_start == 0);
    part_unpin(p);
    node_crash(false);
    node_start();
    assert_int_equal(fetch(part_get("t-0", NULL), 0, PART_END, 1000)->next, 1);
    node_stop();
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torn_tail),   cmocka_unit_test(test_power_loss),  cmocka_unit_test(test_damage),    cmocka_unit_test(test_missing_end),
        cmocka_unit_test(test_full_disk),   cmocka_unit_test(test_full_within_turn), cmocka_unit_test(test_cut_within_round), cmocka_unit_test(test_cut_to_nothing), cmocka_unit_test(test_reserve),     cmocka_unit_test(test_write_error), cmocka_unit_test(test_sync_error),
        cmocka_unit_test(test_sync_error_unheard), cmocka_unit_test(test_damages_limit), cmocka_unit_test(test_cold), cmocka_unit_test(test_stale_snapshot),
        cmocka_unit_test(test_slow_sync),   cmocka_unit_test(test_untouched),   cmocka_unit_test(test_epoch_rises),
        cmocka_unit_test(test_epoch_forgotten),
        cmocka_unit_test(test_compaction_crashes), cmocka_unit_test(test_compaction_damage), cmocka_unit_test(test_compaction_room),
        cmocka_unit_test(test_removal_crashes), cmocka_unit_test(test_removal_on_full_disk), cmocka_unit_test(test_left_over), cmocka_unit_test(test_late_note),
        cmocka_unit_test(test_epoch_of_the_log),
    };
    int failed = _cmocka_run_group_tests("log_sim", log_scenarios, log_scenarios_n, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
