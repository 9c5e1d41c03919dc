/* replay.c - producers and transactions of a partition that is being opened: the newest snapshot, and what the log says behind it.
 *
 * Only headers are read, and markers. A snapshot beyond the log's end speaks of what was lost and is removed, as are those older than the
 * one that is used.
 */
#include "log_int.h"

#include <stdio.h>

static enum err replay_batch(struct part *p, struct walk *w, const struct seg *s)
{
    char control[CONTROL_BYTES_MAX];
    struct spot at = {w->b.base_offset, s->base, (uint32_t)w->pos};
    if (w->b.producer_id < 0)
        return OK;
    if (w->b.attributes & KAFKA_BATCH_CONTROL) {
        struct kafka_batch b;
        if (w->b.bytes > sizeof control)
            return OK; /* no marker is as long */
        enum err e = file_read_at(w->fd, w->pos, control, w->b.bytes);
        if (e != OK)
            return e;
        if (kafka_batch_parse(slice_of(control, w->b.bytes), &b) == KAFKA_NONE)
            producer_note(&p->log->producers, &b, at, part_now(p), false);
        return OK;
    }
    producer_note(&p->log->producers, &w->b, at, part_now(p), false);
    return OK;
}

enum err part_replay(struct part *p, int64_t from)
{
    for (uint32_t i = (uint32_t)(seg_find(p, from) - p->log->segs); i < p->log->segs_n; i++) {
        struct seg *s = &p->log->segs[i];
        enum err e = seg_open(p, s, false);
        if (e != OK)
            return e;
        struct walk w;
        walk_init(&w, s->file->fd, index_floor(p, s, from), s->bytes, p->shard->window);
        for (enum walked got; (got = walk_next(&w)) != WALK_END;) {
            if (got == WALK_IO)
                return w.err;
            if (got == WALK_BAD && !walk_search(&w, w.pos + 1, from))
                break; /* the rest of it is damaged, and that has been said */
            if (kafka_batch_last_offset(&w.b) >= from) /* the first may hold the start of the log within */
                e = replay_batch(p, &w, s);
            if (e != OK)
                return e;
        }
    }
    return OK;
}

/* Whether the batch with offset, which was once appended, is still there. What can't be read is not known to be gone. */
static enum err batch_there(struct part *p, int64_t offset, bool *there)
{
    struct seg *s = seg_find(p, offset);
    struct walk w;
    enum walked got;
    enum err e = seg_open(p, s, false);
    if (e != OK)
        return e;
    walk_init(&w, s->file->fd, index_floor(p, s, offset), s->bytes, p->shard->window);
    while ((got = walk_next(&w)) == WALK_BATCH && kafka_batch_last_offset(&w.b) < offset) {}
    *there = got == WALK_BAD || (got == WALK_BATCH && w.b.base_offset <= offset);
    return got == WALK_IO ? w.err : OK;
}

/* A snapshot may be older than a compaction that took the last of an aborted transaction away, its marker. Of such a one readers must not be told: they would wait
 * for the marker, and take for aborted what the producer wrote since. */
static enum err aborted_check(struct part *p)
{
    struct producers *ps = &p->log->producers;
    uint32_t n = 0;
    for (uint32_t i = 0; p->sparse && i < ps->aborted_n; i++) {
        bool there;
        enum err e = batch_there(p, ps->aborted[i].last, &there);
        if (e != OK)
            return e;
        if (there)
            ps->aborted[n++] = ps->aborted[i];
    }
    if (p->sparse)
        ps->aborted_n = n;
    return OK;
}

static const char *snapshot_path(const struct part *p, int64_t offset, char out[LOG_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "%020lld" EXT_SNAPSHOT, (long long)offset);
    return part_path(p, name, out);
}

/* Where the last epoch that is known and not newer ends. */
static int64_t epoch_known_end(const struct part *p, int32_t epoch)
{
    uint32_t i = p->epochs_n;
    while (i && p->epochs[i - 1].epoch > epoch) i--;
    return i == 0 ? -1 : i < p->epochs_n ? p->epochs[i].offset : p->end;
}

static bool snapshot_load(struct part *p, int64_t offset)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    enum err e = file_read(snapshot_path(p, offset, path), &b, CHECKPOINT_BYTES_MAX);
    int32_t epoch;
    bool ok = e == OK && snapshot_read(&p->log->producers, buf_slice(&b), offset, &epoch);
    if (!ok)
        log_warn("log", "%s is damaged; producers are read from the log", path);
    buf_free(&b);
    if (!ok)
        return false;
    if (epoch_known_end(p, epoch) >= offset)
        return true;
    producers_fini(&p->log->producers); /* of a log that was lost from there on; what is there now is another */
    return false;
}

enum err producers_load(struct part *p, const struct recovery *r)
{
    char path[LOG_PATH_MAX];
    struct part_log *g = p->log;
    int64_t from = p->log_start;
    for (uint32_t i = r->snapshots_n; i-- > 0;) {
        int64_t offset = r->snapshots[i];
        if (g->snapshot < 0 && offset <= p->written && offset >= from && snapshot_load(p, offset)) {
            g->snapshot = g->snapshot_durable = offset;
            continue;
        }
        p->names_made++; /* what is removed may not come back behind what is appended */
        if (disk_remove(snapshot_path(p, offset, path)) != OK)
            log_warn("log", "%s is no longer needed and can't be removed", path);
    }
    if (g->snapshot >= 0)
        from = g->snapshot;
    producers_cut(&g->producers, p->log_start);
    enum err e = aborted_check(p);
    if (e == OK && from < p->written)
        e = part_replay(p, from);
    producers_visible(&g->producers, INT64_MAX);
    producers_cut(&g->producers, p->log_start);
    return e;
}
