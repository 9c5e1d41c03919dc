/* append.c - batches on their way into the log.
 *
 *     part_append(): checked, given offset and place -> pending   (this turn)
 *     part_write():  all pending of a partition in one write      (end of the turn, or when write_soon_bytes have gathered)
 *         acks 0, 1:  done          acks -1: waits -> a sync round -> done (sync.c)
 *         failed:     cut back to the border before, nothing of it is in the log, all of it fails
 *
 * Why not all at the end of the turn: a turn may gather megabytes, which have left the core's cache by then; and one large write takes large pieces of
 * memory for the page cache, which are dear where free memory is given back to a virtual machine's host (docs/performance.md).
 *
 * Which segment a batch goes to is decided when it is appended (next_seg, next_pos), so that a transaction's place is known at once; the
 * segment is made when it is written. done() is never called from here: finished appends go to the shard's list.
 */
#include "log_int.h"

void append_finish(struct log_shard *s, struct append *a, enum kafka_error e)
{
    a->error = e;
    if (e != KAFKA_NONE)
        a->base_offset = -1;
    list_del(&a->link);
    list_push(&s->finished, &a->link);
    shard_end(s);
}

void flush_finish(struct log_shard *s, struct part_flush *f, enum kafka_error e)
{
    f->until = e;
    list_del(&f->link);
    list_push(&s->flushed, &f->link);
    shard_end(s);
}

static enum kafka_error append_refused(struct part *p, const struct append *a)
{
    struct log_shard *s = p->shard;
    if (p->gone)
        return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (a->batch.bytes > p->conf.segment_bytes)
        return KAFKA_RECORD_LIST_TOO_LARGE;
    if (s->state != SHARD_RUNS || p->offline || (s->full && !a->coordinator)) {
        counter_inc(&s->counters.written_refused);
        return KAFKA_KAFKA_STORAGE_ERROR;
    }
    if (!part_use(p))
        return KAFKA_KAFKA_STORAGE_ERROR;
    if (p->state == PART_EMPTY) {
        enum err e = part_begin(p);
        if (e == ERR_NOSPACE)
            shard_full(s, 0);
        else if (e != OK)
            part_offline(p, "its folder can't be made", e);
        if (e != OK)
            return KAFKA_KAFKA_STORAGE_ERROR;
    }
    return p->offline ? KAFKA_KAFKA_STORAGE_ERROR : KAFKA_NONE; /* loading may have found damage */
}

/* Of a producer that is not known any sequence may be the first. But when the partition has just been renewed, what came before this one on the same
 * connection may have failed a moment ago: then it is to be sent again in its order. */
static bool overtakes(const struct part *p, const struct append *a)
{
    return p->renewed_until_ms && loop_now_ms(p->shard->loop) < p->renewed_until_ms && !a->coordinator && a->batch.base_sequence > 0 &&
           !producer_get(&p->log->producers, a->batch.producer_id);
}

/* One that the log has already: it is answered when the original is as safe as is asked for. */
static void append_duplicate(struct part *p, struct append *a, int64_t last)
{
    a->base_offset = last - a->batch.last_offset_delta;
    if (last < (a->acks == -1 ? p->durable : p->written)) {
        append_finish(p->shard, a, KAFKA_NONE);
        return;
    }
    a->pos = (uint64_t)last + 1;
    list_push(&p->log->dups, &a->link);
    if (a->acks == -1)
        sync_want(p);
}

/* Where it goes: behind the last, or into a new segment (KIP-32 and earlier: by size, by age of its first record, when its index is full). */
static struct spot append_place(struct part *p, struct append *a)
{
    struct part_log *g = p->log;
    const struct kafka_batch *b = &a->batch;
    bool roll = (uint64_t)g->next_pos + b->bytes > p->conf.segment_bytes || p->end + b->last_offset_delta - g->next_seg > INT32_MAX;
    roll = roll || (g->next_ms >= 0 && b->max_timestamp > g->next_ms && b->max_timestamp - g->next_ms > p->conf.segment_ms);
    roll = roll || (g->index.n == INDEX_ENTRIES_MAX && g->next_seg == seg_last(p)->base);
    if (roll && g->next_pos > 0) {
        g->next_seg = p->end;
        g->next_pos = 0;
    }
    if (g->next_pos == 0)
        g->next_ms = b->max_timestamp;
    struct spot at = {p->end, g->next_seg, g->next_pos};
    a->pos = g->next_pos;
    g->next_pos += b->bytes;
    return at;
}

static void append_stamp(struct part *p, struct append *a, int64_t now_ms)
{
    kafka_batch_place(a->bytes, p->end, p->epoch);
    a->batch.base_offset = a->base_offset = p->end;
    a->batch.leader_epoch = p->epoch;
    if (!a->log_append_time)
        return;
    a->append_ms = now_ms;
    kafka_batch_stamp(a->bytes, now_ms);
    a->batch.max_timestamp = now_ms;
    a->batch.attributes |= KAFKA_BATCH_LOG_APPEND;
    a->batch.crc = get32(a->bytes + 17);
}

static void part_write(struct part *p);

void part_append(struct part *p, struct append *a)
{
    MUST(p->magic == PART_MAGIC && a->batch.bytes >= KAFKA_BATCH_HEADER);
    int64_t dup_last = -1, now_ms = part_now(p);
    list_init(&a->link);
    a->base_offset = a->append_ms = -1;
    enum kafka_error e = append_refused(p, a);
    a->log_start = p->log_start;
    if (e == KAFKA_NONE && a->batch.producer_id >= 0 && overtakes(p, a))
        e = KAFKA_KAFKA_STORAGE_ERROR;
    if (e == KAFKA_NONE && a->batch.producer_id >= 0)
        e = producer_check(&p->log->producers, a, &dup_last);
    if (e != KAFKA_NONE) {
        append_finish(p->shard, a, e);
        return;
    }
    if (dup_last >= 0) {
        append_duplicate(p, a, dup_last);
        return;
    }
    append_stamp(p, a, now_ms);
    struct spot at = append_place(p, a);
    if (a->batch.producer_id >= 0)
        producer_note(&p->log->producers, &a->batch, at, now_ms, true);
    p->end += (int64_t)a->batch.last_offset_delta + 1;
    list_push(&p->log->pending, &a->link);
    p->log->pending_bytes += a->batch.bytes;
    if (list_empty(&p->write_link))
        list_push(&p->shard->writes, &p->write_link);
    if (p->log->pending_bytes >= p->shard->store->conf.write_soon_bytes)
        part_write(p);
    shard_end(p->shard);
}

/* ---- writing ---- */

/* It is in the file. */
static void append_written(struct part *p, struct append *a)
{
    struct part_log *g = p->log;
    struct seg *s = seg_last(p);
    const struct kafka_batch *b = &a->batch;
    if (s->bytes == 0) {
        s->first_ms = b->max_timestamp;
        s->made_ms = part_now(p);
    }
    index_add(&g->index, s, b, (uint32_t)s->bytes, p->conf.index_interval_bytes);
    s->bytes += b->bytes;
    p->bytes += b->bytes;
    p->written = b->base_offset + b->last_offset_delta + 1;
    s->end = p->written;
    g->since_snapshot += b->bytes;
    counter_inc(&p->shard->counters.appended_batches);
    p->shard->unnoted += b->bytes;
    counter_add(&p->shard->counters.appended_bytes, b->bytes);
    counter_add(&p->shard->counters.bytes, b->bytes);
    list_del(&a->link);
    g->pending_bytes -= b->bytes;
    if (a->acks == -1)
        list_push(&g->waits, &a->link);
    else
        append_finish(p->shard, a, KAFKA_NONE);
}

/* The first pending appends that go to one segment, in one write. */
static enum err run_write(struct part *p)
{
    struct part_log *g = p->log;
    struct log_shard *sh = p->shard;
    const struct append *first = CONTAINER_OF(g->pending.next, struct append, link);
    enum err e = first->pos == 0 && seg_last(p)->bytes > 0 ? seg_roll(p) : OK;
    if (e == OK)
        e = seg_open(p, seg_last(p), false);
    if (e != OK)
        return e;
    struct seg *s = seg_last(p);
    int n = 0;
    for (const struct list *it = g->pending.next; it != &g->pending && n < WRITE_IOV; it = it->next) {
        const struct append *a = CONTAINER_OF((struct list *)it, struct append, link);
        if (n > 0 && a->pos == 0)
            break;
        sh->iov[n++] = (struct iovec){a->bytes, a->batch.bytes};
    }
    uint64_t written;
    e = disk_write_at(s->file->fd, s->bytes, sh->iov, n, &written);
    if (e != OK) {
        enum err cut = disk_truncate(s->file->fd, s->bytes);
        sync_cut(p, s);
        if (cut != OK)
            part_offline(p, "a write that failed can't be taken back", cut);
        return e;
    }
    while (n--) append_written(p, CONTAINER_OF(g->pending.next, struct append, link));
    if (s->bytes - s->written_back >= WRITE_BACK_BYTES)
        write_back(p, s);
    return OK;
}

/* Those who wait for what did not come. */
static void waiting_fail(struct part *p, int64_t from)
{
    LIST_FOREACH(it, &p->log->dups) {
        struct append *a = CONTAINER_OF(it, struct append, link);
        if ((int64_t)a->pos > from)
            append_finish(p->shard, a, KAFKA_KAFKA_STORAGE_ERROR);
    }
    LIST_FOREACH(it, &p->log->flushes) {
        struct part_flush *f = CONTAINER_OF(it, struct part_flush, link);
        if (f->until > from)
            flush_finish(p->shard, f, KAFKA_KAFKA_STORAGE_ERROR);
    }
}

/* What was written of this turn stays; the rest never was. */
static void write_failed(struct part *p, enum err e, int64_t began)
{
    struct part_log *g = p->log;
    struct log_shard *s = p->shard;
    LIST_FOREACH(it, &g->pending) {
        counter_inc(&s->counters.written_refused);
        append_finish(s, CONTAINER_OF(it, struct append, link), KAFKA_KAFKA_STORAGE_ERROR);
    }
    g->pending_bytes = 0;
    waiting_fail(p, p->written);
    p->end = p->written;
    part_next(p);
    producers_rollback(&g->producers);
    enum err again = began < p->written ? part_replay(p, began) : OK;
    if (e == ERR_NOSPACE)
        shard_full(s, 0);
    else
        part_offline(p, "a write failed", e);
    if (again != OK)
        part_offline(p, "what was written can't be read again", again);
}

static void part_write(struct part *p)
{
    struct part_log *g = p->log;
    list_del(&p->write_link);
    p->shard->space_due = true;
    int64_t began = p->written;
    enum err e = OK;
    while (e == OK && !list_empty(&g->pending)) e = run_write(p);
    if (e == OK)
        producers_commit(&g->producers);
    else
        write_failed(p, e, began);
    counter_add(&p->shard->counters.producers_forgotten, g->producers.forgotten);
    g->producers.forgotten = 0;
    g->index_dirty = p->shard->changed = true;
    if (g->snapshot_due) { /* a segment was sealed */
        g->snapshot_due = false;
        sync_force(p);
        snapshot_save(p);
    }
    if (!list_empty(&g->waits))
        sync_want(p);
    if (!list_empty(&g->dups))
        sync_settle(p);
    part_moved(p);
}

void parts_write(struct log_shard *s)
{
    while (!list_empty(&s->writes)) part_write(CONTAINER_OF(s->writes.next, struct part, write_link));
}
