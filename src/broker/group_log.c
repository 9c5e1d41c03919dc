/* group_log.c - the records of __consumer_offsets: written in batches, and read again when a partition has been attached.
 *
 *     key    int16 1, OffsetCommitKey      an offset: group, topic, partition     value  int16 4 (or 1), OffsetCommitValue
 *     key    int16 2, GroupMetadataKey     a group                                value  int16 3, GroupMetadataValue
 *
 * as Kafka writes them, so that its tools read them; a value of null is a tombstone. Offsets of a transaction are in transactional batches, and its
 * marker says what becomes of them.
 *
 * Loading takes one partition of a shard at a time: a piece is located on the loop, read in the pool, taken in on the loop. At the end of
 * the log the partition is flushed, since what was found may be in the page cache alone, and only then its groups are there.
 */
#include "consumer_group_int.h"

#include <inttypes.h>

#define KEY_OFFSET 1
#define KEY_GROUP 2
#define VALUE_OFFSET 4
#define VALUE_OFFSET_EXPIRING 1 /* the only version that has the client's own retention */
#define VALUE_GROUP 3
#define LOAD_AGAIN_MS 1

/* ---- batches on their way ------------------------------------------------------------------------------------------------- */

/* Commits come on and on: a line a second is enough. */
static void write_say(struct group_part *gp, enum kafka_error e)
{
    uint64_t now_ms = loop_now_ms(gp->gs->here->loop);
    if (gp->gs->said_ms && now_ms < gp->gs->said_ms + 1000)
        return;
    gp->gs->said_ms = now_ms;
    log_error("broker", "a batch for __consumer_offsets-%d could not be written: %s; groups are told to try again", gp->partition, kafka_error_name(e));
}

static void write_over(struct append *a)
{
    struct group_write *w = CONTAINER_OF(a, struct group_write, append);
    struct group_part *gp = w->gp;
    gp->writes--;
    buf_free(&w->bytes);
    if (a->error) {
        counter_inc(&gp->gs->count.write_failed);
        write_say(gp, a->error);
    }
    w->done(w, a->error);
    group_part_settle(gp);
}

void group_write_begin(struct group_write *w, struct group_part *gp, int64_t producer_id, int16_t producer_epoch)
{
    struct kafka_batch head = kafka_batch_plain;
    w->gp = gp;
    w->now_ms = wall_ms();
    w->bytes = (struct buf){0};
    head.base_timestamp = w->now_ms;
    if (producer_id >= 0) {
        head.producer_id = producer_id;
        head.producer_epoch = producer_epoch;
        head.attributes = KAFKA_BATCH_TRANSACTIONAL;
    }
    kafka_batch_begin(&w->build, &w->bytes, &head);
}

size_t group_write_bytes(const struct group_write *w) { return w->bytes.n; }
void group_write_drop(struct group_write *w) { buf_free(&w->bytes); }

bool group_write_send(struct group_write *w)
{
    struct group_part *gp = w->gp;
    if (w->bytes.n > GROUP_BATCH_MAX || kafka_batch_end(&w->build, KAFKA_CODEC_NONE) != OK) {
        counter_inc(&gp->gs->count.limit_batch);
        group_write_drop(w);
        return false;
    }
    w->append = (struct append){.bytes = w->bytes.p, .acks = -1, .coordinator = true, .transaction_checked = true, .done = write_over};
    list_init(&w->append.link);
    MUST(kafka_batch_parse(buf_slice(&w->bytes), &w->append.batch) == KAFKA_NONE);
    gp->writes++;
    part_append(gp->bp->part, &w->append);
    return true;
}

enum kafka_error group_write_error(enum kafka_error e)
{
    switch (e) {
    case KAFKA_NONE:
    case KAFKA_INVALID_PRODUCER_EPOCH: return e;
    case KAFKA_KAFKA_STORAGE_ERROR: /* clients look for the coordinator again, and find it when the broker has been started again */
    case KAFKA_NOT_LEADER_OR_FOLLOWER:
    case KAFKA_UNKNOWN_TOPIC_OR_PARTITION: return KAFKA_NOT_COORDINATOR;
    default: return KAFKA_UNKNOWN_SERVER_ERROR;
    }
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static void add(struct group_write *w, bool tombstone)
{
    struct groups *gs = w->gp->gs;
    kafka_batch_add(&w->build, w->now_ms, buf_slice(&gs->key), tombstone ? (struct slice){NULL, 0} : buf_slice(&gs->value), NULL, 0);
}

static void key_offset(struct groups *gs, struct slice group, struct slice topic, int32_t partition)
{
    struct kafka_writer w;
    buf_clear(&gs->key);
    kafka_writer_init(&w, &gs->key);
    kafka_write_int16(&w, KEY_OFFSET);
    kafka_offset_commit_key_write(&w, KEY_OFFSET, &(struct kafka_offset_commit_key){.group = group, .topic = topic, .partition = partition});
    kafka_writer_fini(&w);
}

static void key_group(struct groups *gs, struct slice group)
{
    struct kafka_writer w;
    buf_clear(&gs->key);
    kafka_writer_init(&w, &gs->key);
    kafka_write_int16(&w, KEY_GROUP);
    kafka_group_metadata_key_write(&w, KEY_GROUP, &(struct kafka_group_metadata_key){.group = group});
    kafka_writer_fini(&w);
}

void group_write_offset(struct group_write *gw, struct slice group, struct slice topic, int32_t partition, const struct offset_value *v)
{
    struct groups *gs = gw->gp->gs;
    int16_t version = v->expire_ms >= 0 ? VALUE_OFFSET_EXPIRING : VALUE_OFFSET;
    struct kafka_offset_commit_value value;
    struct kafka_writer w;
    key_offset(gs, group, topic, partition);
    kafka_offset_commit_value_init(&value);
    value.offset = v->offset;
    value.leader_epoch = v->leader_epoch;
    value.metadata = v->metadata;
    value.commit_timestamp = v->commit_ms;
    value.expire_timestamp = v->expire_ms;
    value.topic_id = v->topic_id;
    buf_clear(&gs->value);
    kafka_writer_init(&w, &gs->value);
    kafka_write_int16(&w, version);
    kafka_offset_commit_value_write(&w, version, &value);
    kafka_writer_fini(&w);
    add(gw, false);
}

static void value_members(const struct group *g, bool next, struct kafka_group_metadata_value_member_metadata *to)
{
    LIST_FOREACH (it, &g->in_order) {
        const struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        kafka_group_metadata_value_member_metadata_init(to);
        struct slice assignment = next ? m->next : m->assignment;
        to->member_id = m->id;
        to->group_instance_id = m->instance;
        to->client_id = m->client_id;
        to->client_host = m->client_host;
        to->rebalance_timeout = m->rebalance_ms;
        to->session_timeout = m->session_ms;
        to->subscription = g->protocol.p ? gmember_metadata(m, g->protocol) : SLICE("");
        to->assignment = assignment.p ? assignment : SLICE("");
        to++;
    }
}

void group_write_group(struct group_write *gw, const struct group *g, bool next)
{
    struct groups *gs = gw->gp->gs;
    struct kafka_group_metadata_value value;
    struct kafka_writer w;
    key_group(gs, g->id);
    kafka_group_metadata_value_init(&value);
    value.protocol_type = g->protocol_type.p ? g->protocol_type : SLICE("");
    value.generation = g->generation;
    value.protocol = g->protocol;
    value.leader = g->leader && g->protocol.p ? g->leader->id : (struct slice){NULL, 0};
    value.current_state_timestamp = g->state_ms;
    value.members_n = (int32_t)g->members.n;
    value.members = mem_new(MEM_BROKER, MAX(g->members.n, 1) * sizeof *value.members);
    value_members(g, next, value.members);
    buf_clear(&gs->value);
    kafka_writer_init(&w, &gs->value);
    kafka_write_int16(&w, VALUE_GROUP);
    kafka_group_metadata_value_write(&w, VALUE_GROUP, &value);
    kafka_writer_fini(&w);
    mem_free(value.members);
    add(gw, false);
    if (gs->value.cap > GROUP_METADATA_MAX)
        buf_free(&gs->value); /* a large group's; others need little */
}

static void now_done(struct group_write *w, enum kafka_error e)
{
    (void)e; /* logged; the next record of the group says it anew */
    mem_free(w);
}

void group_write_now(struct group *g)
{
    struct group_write *w = mem_new(MEM_BROKER, sizeof *w);
    w->done = now_done;
    group_write_begin(w, g->gp, -1, -1);
    group_write_group(w, g, false);
    g->on_disk = true;
    if (!group_write_send(w))
        mem_free(w);
}

/* ---- tombstones ----------------------------------------------------------------------------------------------------------------- */

struct group_tombs {
    struct group_write *w;   /* the batch that is being filled; NULL: none */
    struct group_part *gp;
    uint32_t out;            /* batches under way, and one until _end() */
    enum kafka_error error;  /* the first that failed */
    void (*done)(void *ctx, enum kafka_error e);
    void *ctx;
};
struct tombs_write {
    struct group_write w;
    struct group_tombs *t;
};

static void tombs_unref(struct group_tombs *t)
{
    if (--t->out)
        return;
    if (t->done)
        t->done(t->ctx, t->error);
    mem_free(t);
}

static void tombs_done(struct group_write *w, enum kafka_error e)
{
    struct tombs_write *tw = CONTAINER_OF(w, struct tombs_write, w);
    struct group_tombs *t = tw->t;
    if (e && !t->error)
        t->error = e;
    mem_free(tw);
    tombs_unref(t);
}

struct group_tombs *group_tombs_begin(struct group_part *gp, void (*done)(void *ctx, enum kafka_error e), void *ctx)
{
    struct group_tombs *t = mem_new(MEM_BROKER, sizeof *t);
    *t = (struct group_tombs){.gp = gp, .out = 1, .done = done, .ctx = ctx};
    return t;
}

static void tombs_send(struct group_tombs *t)
{
    struct group_write *w = t->w;
    if (!w)
        return;
    t->w = NULL;
    t->out++;
    if (!group_write_send(w))
        tombs_done(w, KAFKA_RECORD_LIST_TOO_LARGE); /* cannot be: keys are short */
}

/* The key is in the scratch. */
static void tombs_add(struct group_tombs *t)
{
    if (!t->w) {
        struct tombs_write *tw = mem_new(MEM_BROKER, sizeof *tw);
        tw->t = t;
        tw->w.done = tombs_done;
        t->w = &tw->w;
        group_write_begin(t->w, t->gp, -1, -1);
    }
    add(t->w, true);
    if (group_write_bytes(t->w) >= GROUP_TOMBS_BYTES)
        tombs_send(t);
}

void group_tombs_offset(struct group_tombs *t, struct slice group, struct slice topic, int32_t partition)
{
    key_offset(t->gp->gs, group, topic, partition);
    tombs_add(t);
}

void group_tombs_group(struct group_tombs *t, struct slice group)
{
    key_group(t->gp->gs, group);
    tombs_add(t);
}

void group_tombs_numbered(struct group_tombs *t, int16_t number, struct slice group)
{
    struct kafka_writer w;
    buf_clear(&t->gp->gs->key);
    kafka_writer_init(&w, &t->gp->gs->key);
    kafka_write_int16(&w, number);
    kafka_write_string(&w, group, false);
    kafka_writer_fini(&w);
    tombs_add(t);
}

void group_tombs_whole(struct group_tombs *t, const struct group *g)
{
    if (g->consumer)
        consumers_tombs(t, g);
    else
        group_tombs_group(t, g->id);
}

void group_tombs_end(struct group_tombs *t)
{
    tombs_send(t);
    tombs_unref(t);
}

/* ---- reading again: records -------------------------------------------------------------------------------------------------------- */

static bool take_offset(struct group_part *gp, struct kafka_reader *key, int16_t version, struct slice value, const struct kafka_batch *b, int64_t at, struct arena *a)
{
    struct kafka_offset_commit_key k;
    struct kafka_offset_commit_value v;
    if (kafka_offset_commit_key_read(key, version, a, &k) != OK)
        return false;
    struct group *g = group_find(gp, k.group);
    if (!value.p) {
        struct goffset *o = g ? group_offset(g, k.topic, k.partition) : NULL;
        if (o)
            group_offset_forget(g, o);
        return true;
    }
    struct kafka_reader rd;
    kafka_reader_init(&rd, value);
    int16_t value_version = kafka_read_int16(&rd);
    if (rd.err || value_version < 0 || value_version > VALUE_OFFSET || kafka_offset_commit_value_read(&rd, value_version, a, &v) != OK)
        return false;
    if (!g && !(g = group_make(gp, k.group)))
        return false;
    struct offset_value ov = {.offset = v.offset, .leader_epoch = v.leader_epoch, .metadata = v.metadata, .commit_ms = v.commit_timestamp,
                              .expire_ms = v.expire_timestamp, .at = at, .topic_id = v.topic_id};
    if (b->attributes & KAFKA_BATCH_TRANSACTIONAL)
        group_offset_pend(g, k.topic, k.partition, &ov, b->producer_id);
    else
        group_offset_set(g, k.topic, k.partition, &ov);
    return true;
}

static void members_forget(struct group *g)
{
    while (!list_empty(&g->in_order))
        gmember_remove(CONTAINER_OF(g->in_order.next, struct gmember, link));
}

static void take_member(struct group *g, const struct kafka_group_metadata_value *v, const struct kafka_group_metadata_value_member_metadata *in)
{
    if (group_member(g, in->member_id) || group_static(g, in->group_instance_id))
        return;
    struct kafka_join_group_req_join_group_request_protocol p = {.name = v->protocol, .metadata = in->subscription};
    struct gmember_conf c = {.id = in->member_id, .instance = in->group_instance_id, .client_id = in->client_id, .client_host = in->client_host,
                             .protocol_type = v->protocol_type, .session_ms = MAX(in->session_timeout, 0), .protocols = {&p, 1}};
    c.rebalance_ms = in->rebalance_timeout >= 0 ? in->rebalance_timeout : c.session_ms;
    struct gmember *m = gmember_add(g, &c);
    m->assignment = slice_own(in->assignment);
    if (v->leader.p && slice_eq(v->leader, m->id))
        g->leader = m;
}

void group_classic_forget(struct group *g)
{
    members_forget(g);
    slice_drop(&g->protocol_type);
    slice_drop(&g->protocol);
    g->generation = 0;
    g->state = GROUP_EMPTY;
    g->on_disk = false;
}

static bool take_group(struct group_part *gp, struct kafka_reader *key, struct slice value, struct arena *a)
{
    struct kafka_group_metadata_key k;
    struct kafka_group_metadata_value v;
    if (kafka_group_metadata_key_read(key, KEY_GROUP, a, &k) != OK)
        return false;
    struct group *g = group_find(gp, k.group);
    if (!value.p) { /* offsets that it still has are those of a transaction, or were committed again */
        if (g && !g->consumer)
            group_classic_forget(g);
        return true;
    }
    struct kafka_reader rd;
    kafka_reader_init(&rd, value);
    int16_t version = kafka_read_int16(&rd);
    if (rd.err || version < 0 || version > VALUE_OFFSET || kafka_group_metadata_value_read(&rd, version, a, &v) != OK || (v.members_n > 0 && !v.protocol.p))
        return false;
    if (!g && !(g = group_make(gp, k.group)))
        return false;
    if (g->consumer)
        consumers_free(g);
    members_forget(g);
    slice_drop(&g->protocol);
    slice_drop(&g->protocol_type);
    g->generation = v.generation;
    g->protocol_type = v.protocol_type.n ? slice_own(v.protocol_type) : (struct slice){NULL, 0};
    g->protocol = slice_own(v.protocol);
    for (int32_t i = 0; i < v.members_n; i++)
        take_member(g, &v, &v.members[i]);
    g->state = g->members.n ? GROUP_STABLE : GROUP_EMPTY;
    g->state_ms = v.current_state_timestamp >= 0 ? v.current_state_timestamp : wall_ms();
    g->on_disk = true;
    return true;
}

bool group_take_record(struct group_part *gp, const struct kafka_record *rec, const struct kafka_batch *b, struct arena *a)
{
    struct kafka_reader key;
    kafka_reader_init(&key, rec->key);
    int16_t version = kafka_read_int16(&key);
    if (key.err)
        return false;
    if (version == 0 || version == KEY_OFFSET)
        return take_offset(gp, &key, version, rec->value, b, b->base_offset + rec->offset_delta, a);
    return version == KEY_GROUP ? take_group(gp, &key, rec->value, a) : consumers_take_record(gp, version, &key, rec->value, a);
}

static void take_batch(struct group_part *gp, const struct kafka_batch *b)
{
    struct groups *gs = gp->gs;
    enum kafka_marker marker;
    int32_t epoch;
    if (b->attributes & KAFKA_BATCH_CONTROL) {
        if (kafka_batch_marker_read(b, &marker, &epoch))
            group_txn_end(gp, b->producer_id, marker == KAFKA_MARKER_COMMIT);
        return;
    }
    struct buf scratch = {0};
    struct slice rest;
    struct kafka_record rec;
    struct arena a;
    arena_init(&a, MEM_BROKER, 4096);
    bool sound = kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &scratch, &rest) == OK;
    for (int32_t i = 0; sound && i < b->count; i++) {
        sound = kafka_record_next(&rest, &rec) == OK;
        if (!sound)
            break;
        counter_inc(&gs->count.load_records);
        if (!group_take_record(gp, &rec, b, &a))
            counter_inc(&gs->count.load_skipped);
        arena_reset(&a);
    }
    if (!sound)
        counter_inc(&gs->count.load_skipped);
    arena_fini(&a);
    buf_free(&scratch);
}

/* ---- reading again: pieces ------------------------------------------------------------------------------------------------------------ */

static void load_next(struct group_part *gp);

/* The next partition of this shard, if there is one. */
static void load_leave(struct group_part *gp, enum group_part_state state)
{
    struct groups *gs = gp->gs;
    bool reading = gs->loading.next == &gp->link; /* the first one is being read, the others wait */
    gp->state = state;
    list_del(&gp->link);
    if (reading && !gs->stopping && !list_empty(&gs->loading))
        load_next(CONTAINER_OF(gs->loading.next, struct group_part, link));
}

static void load_fail(struct group_part *gp, const char *what)
{
    log_error("broker", "__consumer_offsets-%d could not be read at offset %" PRId64 ": %s; its groups are not served until the broker is started again",
              gp->partition, gp->load_next, what);
    load_leave(gp, GROUP_PART_FAILED);
}

static void load_over(struct group_part *gp)
{
    struct groups *gs = gp->gs;
    counter_inc(&gs->count.loads);
    uint64_t took = loop_now_ms(gs->here->loop) - gp->load_begun_ms;
    if (gp->groups.n)
        log_info("broker", "__consumer_offsets-%d: %zu groups in %" PRIu64 " ms", gp->partition, gp->groups.n, took);
    load_leave(gp, GROUP_PART_ACTIVE);
    group_part_drop_stale(gp);
    for (struct table_slot *s = NULL; (s = table_next(&gp->groups, s));)
        group_wake_members(s->value);
}

static void load_flushed(struct part_flush *f, enum kafka_error e)
{
    struct group_part *gp = CONTAINER_OF(f, struct group_part, flush);
    gp->writes--;
    if (gp->state != GROUP_PART_LOADING || gp->gs->stopping) {
        group_part_settle(gp);
        return;
    }
    if (e)
        load_fail(gp, kafka_error_name(e));
    else
        load_over(gp);
}

static void piece_drop(struct group_part *gp)
{
    segfile_unref(gp->load_file);
    gp->load_file = NULL;
    mem_free(gp->load_bytes);
    gp->load_bytes = NULL;
}

static bool piece_take(struct group_part *gp)
{
    struct slice rest = slice_of(gp->load_bytes, gp->load_n);
    struct kafka_batch b;
    while (rest.n) {
        if (kafka_batch_parse(rest, &b) || b.bytes > rest.n)
            return false;
        if (kafka_batch_last_offset(&b) >= gp->load_next) {
            take_batch(gp, &b);
            gp->load_next = kafka_batch_last_offset(&b) + 1;
        }
        rest.p += b.bytes;
        rest.n -= b.bytes;
    }
    return true;
}

static void piece_read(struct work *w)
{
    struct group_part *gp = CONTAINER_OF(w, struct group_part, work);
    gp->load_err = file_read_at(segfile_fd(gp->load_file), gp->load_pos, gp->load_bytes, gp->load_n);
}

static void piece_came(struct work *w)
{
    struct group_part *gp = CONTAINER_OF(w, struct group_part, work);
    int64_t before = gp->load_next;
    gp->working = false;
    if (gp->state != GROUP_PART_LOADING || gp->gs->stopping) {
        struct shard *here = gp->gs->here;
        piece_drop(gp);
        group_part_settle(gp);
        shard_rested(here);
        return;
    }
    enum err e = gp->load_err;
    bool sound = !e && piece_take(gp) && gp->load_next > before;
    piece_drop(gp);
    if (sound)
        load_next(gp);
    else
        load_fail(gp, e ? err_text(e) : "what is there are no batches");
}

/* Up to the end, with what is appended meanwhile: markers of transactions that are being ended. */
static void load_next(struct group_part *gp)
{
    struct loop *l = gp->gs->here->loop;
    struct part_read rd = {.offset = gp->load_next, .bytes_max = GROUP_LOAD_BYTES, .until = PART_END, .one_at_least = true};
    struct part_offsets now;
    struct arena a;
    if (gp->load_begun_ms == 0)
        gp->load_begun_ms = loop_now_ms(l);
    part_offsets(gp->bp->part, &now);
    gp->load_next = MAX(gp->load_next, now.log_start);
    if (gp->load_next >= now.end) {
        gp->writes++;
        gp->flush.done = load_flushed;
        part_flush(gp->bp->part, &gp->flush);
        return;
    }
    rd.offset = gp->load_next;
    arena_init(&a, MEM_BROKER, 256);
    part_read(gp->bp->part, &rd, &a);
    arena_fini(&a);
    if (rd.error) {
        load_fail(gp, kafka_error_name(rd.error));
        return;
    }
    if (rd.bytes == 0) {
        timer_set(l, &gp->load_again, LOAD_AGAIN_MS);
        return;
    }
    gp->load_file = rd.file;
    gp->load_pos = rd.pos;
    gp->load_n = rd.bytes;
    gp->load_bytes = mem_new(MEM_BROKER, rd.bytes);
    gp->work = (struct work){.run = piece_read, .done = piece_came};
    gp->working = true;
    work_submit(l, &gp->work);
}

/* The end of the log is not in the file yet. */
static void load_again_fn(struct timer *t) { load_next(CONTAINER_OF(t, struct group_part, load_again)); }

void group_load_begin(struct group_part *gp)
{
    struct groups *gs = gp->gs;
    bool first = list_empty(&gs->loading);
    timer_init(&gp->load_again, load_again_fn);
    list_push(&gs->loading, &gp->link);
    if (first)
        load_next(gp);
}

void group_load_stop(struct group_part *gp)
{
    timer_clear(&gp->load_again);
    if (gp->state == GROUP_PART_LOADING)
        load_leave(gp, GROUP_PART_GONE);
}
