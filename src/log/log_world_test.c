/* log_world_test.c - the log that tests append to and read from; see log_scenarios.h. */
#include "log_scenarios.h"

#include <stdio.h>
#include <stdlib.h>

struct node node;
uint32_t sent_done;

/* ---- the node ---- */

void node_start(void)
{
    struct buf why = {0};
    if (!node.conf.files_max) {
        log_store_conf_default(&node.conf);
        node.conf.reserve_bytes = 0;
    }
    node.conf.dir = world_dir();
    if (!node.l)
        node.l = loop_new("log");
    enum err e = log_store_open(&node.conf, &node.store, &why);
    if (e != OK)
        fail_msg("store: %s: %.*s", err_text(e), (int)why.n, why.p);
    node.shard = log_shard_new(node.store, node.l, 0);
    buf_free(&why);
}

void note_stopped(void *ctx) { *(bool *)ctx = true; }
bool is_stopped(void *ctx) { return *(bool *)ctx; }

void node_stop(void)
{
    bool done = false;
    log_shard_stop(node.shard, note_stopped, &done);
    node_wait(is_stopped, &done);
    log_shard_free(node.shard);
    log_store_close(node.store);
    loop_free(node.l);
    node.l = NULL;
    node.shard = NULL;
}

void node_restart(void)
{
    node_stop();
    node_start();
}

void node_wait(bool (*done)(void *ctx), void *ctx)
{
    if (!world_run(node.l, done, ctx, 60000))
        fail_msg("nothing comes");
}

static bool never(void *ctx) { return false; }

void node_idle(uint64_t ms)
{
    (void)world_run(node.l, never, NULL, ms);
}

struct part *part_get(const char *name, const struct part_conf *conf)
{
    struct part_conf c;
    struct buf why = {0};
    struct part *p;
    part_conf_default(&c);
    enum err e = part_load(node.store, name, conf ? conf : &c, &p, &why);
    if (e != OK)
        fail_msg("%s: %s: %.*s", name, err_text(e), (int)why.n, why.p ? why.p : "");
    buf_free(&why);
    part_attach(p, node.shard);
    return p;
}

struct part *part_on(const char *name, struct log_shard *s)
{
    struct log_shard *usual = node.shard;
    node.shard = s;
    struct part *p = part_get(name, NULL);
    node.shard = usual;
    return p;
}

const char *node_path(const char *file, char out[LOG_PATH_MAX])
{
    snprintf(out, LOG_PATH_MAX, "%s/%s", world_dir(), file);
    return out;
}

/* ---- appending ---- */

static void append_done(struct append *a)
{
    struct sent *s = CONTAINER_OF(a, struct sent, a);
    assert_false(s->done);
    s->done = true;
    s->order = ++sent_done;
}

static void batch_fill(struct sent *s, const struct what *w)
{
    static uint32_t number;
    struct kafka_batch head = kafka_batch_plain;
    int64_t ms = w->ms ? w->ms : (int64_t)(wall_ns() / 1000000);
    head.base_timestamp = ms;
    if (w->producer_id) {
        head.producer_id = w->producer_id;
        head.producer_epoch = w->epoch;
        head.base_sequence = w->coordinator ? -1 : w->sequence;
    }
    if (w->txn)
        head.attributes |= KAFKA_BATCH_TRANSACTIONAL;
    if (w->commit || w->abort) {
        kafka_batch_marker(&s->bytes, &head, w->commit ? KAFKA_MARKER_COMMIT : KAFKA_MARKER_ABORT, w->coordinator_epoch);
        return;
    }
    struct kafka_batch_builder b;
    kafka_batch_begin(&b, &s->bytes, &head);
    for (int32_t i = 0; i < MAX(w->n, 1); i++) {
        char key[32];
        struct buf value = {0};
        snprintf(key, sizeof key, "k%u", ++number);
        if (w->value)
            buf_adds(&value, w->value);
        else
            buf_printf(&value, "v%u", number);
        while (value.n < w->value_bytes) buf_addc(&value, (char)('a' + (number * 7 + value.n * value.n) % 23));
        bool tombstone = w->value && !w->value[0];
        kafka_batch_add(&b, w->falling ? ms - i : ms + i, slice_cstr(w->key ? w->key : key), tombstone ? (struct slice){0} : buf_slice(&value), NULL, 0);
        buf_free(&value);
    }
    assert_int_equal(kafka_batch_end(&b, w->codec), OK);
}

struct sent *batch_send(struct part *p, struct what w)
{
    struct sent *s = mem_new(MEM_MISC, sizeof *s);
    batch_fill(s, &w);
    s->a = (struct append){.bytes = s->bytes.p, .acks = w.acks, .log_append_time = w.log_append_time, .done = append_done};
    s->a.coordinator = w.coordinator || w.commit || w.abort;
    s->a.transaction_checked = w.txn && !w.unchecked;
    s->a.coordinator_epoch = w.coordinator_epoch;
    assert_int_equal(kafka_batch_parse(buf_slice(&s->bytes), &s->a.batch), KAFKA_NONE);
    part_append(p, &s->a);
    assert_false(s->done);
    return s;
}

static bool sent_is_done(void *ctx) { return ((struct sent *)ctx)->done; }

void sent_wait(struct sent *s) { node_wait(sent_is_done, s); }

struct sent *send_wait(struct part *p, struct what w)
{
    struct sent *s = batch_send(p, w);
    sent_wait(s);
    return s;
}

void sent_free(struct sent *s)
{
    assert_true(s->done);
    buf_free(&s->bytes);
    mem_free(s);
}

enum kafka_error send_error(struct part *p, struct what w)
{
    struct sent *s = send_wait(p, w);
    enum kafka_error e = s->a.error;
    sent_free(s);
    return e;
}

int64_t send_offset(struct part *p, struct what w)
{
    struct sent *s = send_wait(p, w);
    int64_t offset = s->a.base_offset;
    if (s->a.error != KAFKA_NONE)
        fail_msg("append: %s", kafka_error_name(s->a.error));
    sent_free(s);
    return offset;
}

/* ---- reading ---- */

static void got_batch(struct got *g, const char *bytes, const struct kafka_batch *b)
{
    struct buf scratch = {0};
    struct slice rest;
    struct kafka_record r;
    assert_true(kafka_batch_crc_ok(bytes, b));
    if (g->next >= 0 && b->base_offset < g->next)
        fail_msg("offset %lld behind %lld", (long long)b->base_offset, (long long)g->next - 1);
    if (g->batches++ == 0)
        g->first = b->base_offset;
    g->next = kafka_batch_last_offset(b) + 1;
    assert_int_equal(kafka_batch_records(b, 1u << 26, &scratch, &rest), OK);
    while (rest.n && !(b->attributes & KAFKA_BATCH_CONTROL)) {
        assert_int_equal(kafka_record_next(&rest, &r), OK);
        g->records++;
        if (g->text.n < 4096)
            buf_printf(&g->text, SLICE_FMT "=" SLICE_FMT ";", SLICE_ARG(r.key), (int)MIN(r.value.n, 16u), r.value.p ? r.value.p : "");
    }
    buf_free(&scratch);
}

static void got_range(struct got *g, const struct part_read *r)
{
    struct buf b = {0};
    buf_reserve(&b, r->bytes);
    assert_int_equal(file_read_at(segfile_fd(r->file), r->pos, b.p, r->bytes), OK);
    for (size_t at = 0; at < r->bytes;) {
        struct kafka_batch batch;
        if (kafka_batch_parse(slice_of(b.p + at, r->bytes - at), &batch) != KAFKA_NONE)
            fail_msg("no whole batch at byte %zu of %u", at, r->bytes);
        got_batch(g, b.p + at, &batch);
        at += batch.bytes;
    }
    buf_free(&b);
}

struct got *fetch(struct part *p, int64_t from, enum part_until until, uint32_t bytes_max)
{
    static struct got got;
    struct arena a;
    buf_free(&got.text);
    got = (struct got){.first = -1, .next = -1};
    arena_init(&a, MEM_ARENA, 4096);
    for (int64_t at = from;;) {
        struct part_read r = {.offset = at, .bytes_max = bytes_max, .until = until, .one_at_least = true};
        part_read(p, &r, &a);
        got.error = r.error;
        if (!r.file) {
            assert_int_equal(r.bytes, 0);
            break;
        }
        assert_true(part_readable(p, at, until) > 0);
        got_range(&got, &r);
        assert_true(got.next > at);
        for (int32_t i = 0; i < r.aborted_n && got.aborted_n < (int32_t)COUNT_OF(got.aborted); i++) got.aborted[got.aborted_n++] = r.aborted[i];
        segfile_unref(r.file);
        at = got.next;
    }
    arena_fini(&a);
    if (!got.text.p)
        buf_adds(&got.text, "");
    return &got;
}

int64_t part_end(struct part *p)
{
    struct part_offsets o;
    part_offsets(p, &o);
    return o.end;
}

int64_t part_high_now(struct part *p)
{
    struct part_offsets o;
    part_offsets(p, &o);
    return o.high;
}

int64_t part_stable_now(struct part *p)
{
    struct part_offsets o;
    part_offsets(p, &o);
    return o.stable;
}

struct flushed {
    struct part_flush f;
    bool done;
};
static void flush_done(struct part_flush *f, enum kafka_error e)
{
    assert_int_equal(e, KAFKA_NONE);
    CONTAINER_OF(f, struct flushed, f)->done = true;
}

void run_wait_flushed(struct part *p)
{
    struct flushed f = {.f = {.done = flush_done}};
    part_flush(p, &f.f);
    node_wait(is_stopped, &f.done);
}
