/* retention.c - the front of the log goes: by age, by size, by request; and segments are sealed by time.
 *
 * Size is looked at with each look, age less often, as in Kafka: who writes records with old timestamps finds them for a while.
 *
 * The start of the log moves first, and is noted durably: by a request (DeleteRecords) before its answer, by retention in the pool. Segments that lie wholly
 * before the durable start follow: renamed at once, removed after file.delete.delay.ms in the pool. So whichever of those names a power loss brings
 * back, in whatever order they were lost, recovery knows that they are nobody's. The last segment is never removed: when all of it has expired it is sealed
 * first.
 *
 *     log_start moves --segments lie before it--> note in the pool --durable--> they are renamed --delay--> removed
 *                                                      '--it can't be written--> the oldest one alone, if all names of the folder are durable
 */
#include "log_int.h"

/* How many segments lie wholly before offset; the last one never does. */
static uint32_t segs_before(const struct part *p, int64_t offset)
{
    const struct part_log *g = p->log;
    uint32_t n = 0;
    while (n + 1 < g->segs_n && g->segs[n + 1].base <= offset) n++;
    return n;
}

static void segs_leave(struct part *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) seg_remove_later(p, p->log->segs[i].base);
    counter_add(&p->shard->counters.deleted_segments, n);
    seg_drop(p, 0, n);
}

/* The start can't be noted, for want of room perhaps, which a removal makes. One segment alone leaves no hole when it comes back, if none that
 * was removed before can be missing then: all names of the folder are durable, also of the segment that is the first now. Nor may an older one be there
 * still: what is behind it would be missing. */
static void oldest_leaves(struct part *p)
{
    if (p->compacting || p->left_over || segs_before(p, p->log_start) == 0)
        return;
    if (p->names_made == p->names_synced)
        segs_leave(p, 1);
    sync_force(p); /* housekeeping comes again */
    part_moved(p);
}

static void start_noted(struct part *p, const struct part_note *note, enum err e)
{
    p->start_noting = false;
    if (e == OK)
        p->start_noted = MAX(p->start_noted, note->log_start);
    if (p->gone || p->offline || p->shard->state != SHARD_RUNS) /* the next start removes them, or the renewal */
        return;
    if (e == OK) {
        part_start_move(p, p->log_start);
        return;
    }
    if (e != ERR_NOSPACE) /* that is said elsewhere */
        log_warn("log", "%s: where the log begins can't be noted: %s; its oldest segments go one at a time", p->name, err_text(e));
    oldest_leaves(p);
}

static void start_note(struct part *p)
{
    if (p->start_noting || p->offline || p->shard->state != SHARD_RUNS)
        return;
    if (p->born) { /* its folder comes first; housekeeping comes again */
        sync_force(p);
        return;
    }
    p->start_noting = true;
    part_note_submit(p, true, start_noted);
}

/* While segments are being compacted they stay until the next look. What is known of aborted transactions and of damage is wanted as long as the records
 * before the start may be there again. */
void part_start_move(struct part *p, int64_t log_start)
{
    p->log_start = MAX(p->log_start, log_start);
    DMUST(p->start_noted <= p->log_start);
    if (!p->compacting) {
        segs_leave(p, segs_before(p, p->start_noted));
        if (segs_before(p, p->log_start))
            start_note(p);
    }
    producers_cut(&p->log->producers, p->start_noted);
    if (p->start_noted == p->log_start)
        damages_cut(p);
    p->cleaned = MAX(p->cleaned, p->log_start);
    p->shard->changed = true;
    part_moved(p); /* what is visible may have ended in a segment that is gone */
}

static bool seg_expired(const struct part *p, const struct seg *s, int64_t now_ms)
{
    int64_t newest = s->max_offset >= 0 ? s->max_ms : s->made_ms;
    return p->shard->by_age && p->conf.retention_ms >= 0 && now_ms - newest > p->conf.retention_ms;
}

/* The offset before which nothing is kept any longer. */
static int64_t retention_start(const struct part *p, int64_t now_ms)
{
    const struct part_log *g = p->log;
    int64_t start = p->log_start;
    uint64_t bytes = p->bytes;
    for (uint32_t i = 0; i < g->segs_n; i++) {
        const struct seg *s = &g->segs[i];
        bool large = p->conf.retention_bytes >= 0 && bytes - s->bytes >= (uint64_t)p->conf.retention_bytes;
        bool last = i + 1 == g->segs_n;
        bool empty = s->bytes == 0; /* compaction may leave such */
        if ((empty && last) || s->end > p->high || s->end > p->stable || !(empty || seg_expired(p, s, now_ms) || (large && !last)))
            break;
        bytes -= s->bytes;
        start = s->end;
    }
    return start;
}

static void seal(struct part *p)
{
    enum err e = seg_roll(p);
    part_next(p);
    if (e == ERR_NOSPACE)
        shard_full(p->shard, 0);
    else if (e != OK)
        part_offline(p, "a segment can't be made", e);
    sync_force(p);
    if (p->log->snapshot_due) {
        p->log->snapshot_due = false;
        snapshot_save(p);
    }
}

static bool due_by_time(const struct part *p, int64_t now_ms)
{
    const struct seg *s = seg_last(p);
    int64_t age = now_ms - s->made_ms;
    bool lag = p->conf.cleanup_compact && age > p->conf.max_compaction_lag_ms;
    return s->bytes > 0 && (age > p->conf.segment_ms || lag);
}

/* A shelved partition is loaded only when something may be due. */
static bool shelved_due(const struct part *p, int64_t now_ms)
{
    if (p->conf.cleanup_delete && p->bytes > 0) {
        if (p->shard->by_age && p->conf.retention_ms >= 0 && p->oldest_ms >= 0 && now_ms - p->oldest_ms > p->conf.retention_ms)
            return true;
        if (p->conf.retention_bytes >= 0 && p->shelved_segs > 1 && p->bytes > (uint64_t)p->conf.retention_bytes)
            return true;
    }
    return p->conf.cleanup_compact && p->shelved_segs > 1 && p->cleaned < p->active;
}

void part_housekeep(struct part *p, int64_t now_ms)
{
    if (p->state == PART_SHELVED && shelved_due(p, now_ms) && !part_use(p))
        return;
    if (p->state != PART_LOADED || p->offline || !list_empty(&p->write_link))
        return;
    producers_expire(&p->log->producers, now_ms - p->conf.producer_expiration_ms);
    if (p->conf.cleanup_delete) {
        int64_t start = retention_start(p, now_ms);
        if (start == p->written && seg_last(p)->bytes > 0)
            seal(p);
        if (start > p->log_start && !p->offline)
            part_start_move(p, start);
    }
    if (p->log->segs_n > 1 && p->log->segs[1].base <= p->log_start)
        part_start_move(p, p->log_start);
    if (due_by_time(p, now_ms) && !p->offline && !p->shard->full)
        seal(p);
    if (p->conf.cleanup_compact && !p->offline)
        compact_maybe(p, now_ms);
}

enum kafka_error part_delete_before(struct part *p, int64_t offset, int64_t *log_start)
{
    if (p->renewing || !part_use(p))
        return KAFKA_KAFKA_STORAGE_ERROR;
    offset = offset == -1 ? p->high : offset;
    *log_start = p->log_start;
    if (offset < 0 || offset > p->high)
        return KAFKA_OFFSET_OUT_OF_RANGE;
    if (offset <= p->start_noted)
        return KAFKA_NONE;
    offset = MAX(offset, p->log_start);
    struct part_note note = part_note_of(p);
    note.log_start = offset;
    enum err e = part_note_write(p, &note);
    if (e == OK && p->born)
        e = disk_sync_dir(p->shard->store->dir); /* nothing in the folder is durable before its own name is */
    if (e == OK)
        p->start_noted = offset;
    /* An error does not say that the old note is still there. So they are deleted in any case: never may the start of the log go forward by
     * itself, at some later start, after it was said to be here. */
    part_start_move(p, offset);
    *log_start = p->log_start;
    part_tell(p);
    if (e != OK)
        log_error("log", "%s: where the log begins can't be noted: %s; deleted records may be there again after a crash", p->name, err_text(e));
    return e == OK ? KAFKA_NONE : KAFKA_KAFKA_STORAGE_ERROR;
}
