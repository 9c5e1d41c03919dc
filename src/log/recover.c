/* recover.c - a partition is made whole from what is on disk.
 *
 *     sealed, before the recovery point     taken as it is; its index is checked when it is used
 *     unchanged since the last checkpoint   the same: the last segment is as long as it was noted, and all of that was durable
 *     the segment of the recovery point,    walked: headers up to the recovery point, from there every batch whole, with CRC and with the very
 *     and those behind it                   offset that follows from the one before
 *
 * Behind the recovery point the first batch that is not right is the torn end: the log ends there, bytes and segments behind it are removed.
 * Before it everything was on disk once, so whatever is not right there is damage: nothing is cut. The next sound batch is searched,
 * the region between is noted (reads in it fail), the partition is offline, and the remedy is said in the log. What recovery found behind the
 * recovery point is written once more, and is shown to readers when it is on the disk.
 */
#include "log_int.h"

struct scan {
    struct part *p;
    struct recovery *r;
    struct walk w;
    struct buf *why;
    uint32_t i;                        /* the segment's index */
    int64_t expect;                    /* the offset that follows */
    bool torn;                         /* the log ends here */
};

void damage_add(struct part *p, struct damage d)
{
    struct part_log *g = p->log;
    char path[LOG_PATH_MAX];
    if (g->damages_n == DAMAGES_MAX) { /* from the last one on nothing is read */
        g->damages[DAMAGES_MAX - 1].pos_end = UINT32_MAX;
        g->damages[DAMAGES_MAX - 1].offset_end = MAX(d.offset_end, g->damages[DAMAGES_MAX - 1].offset_end);
        return;
    }
    if (!g->damages)
        g->damages = mem_new(MEM_PART, DAMAGES_MAX * sizeof *g->damages);
    g->damages[g->damages_n++] = d;
    log_error("log", "%s is damaged from byte %u to %u: offsets %lld to %lld were on disk and can't be read. What is before and behind is served. Restore the file, or "
              "delete the records before offset %lld (kafka-delete-records) to go on without them",
              seg_path(p, d.seg, EXT_LOG, path), d.pos, d.pos_end, (long long)d.offset, (long long)d.offset_end - 1, (long long)d.offset_end);
    part_refuse(p);
}

/* ---- one segment ---- */

static void epoch_seen(struct part *p, const struct kafka_batch *b)
{
    int32_t last = p->epochs_n ? p->epochs[p->epochs_n - 1].epoch : -1;
    if (b->leader_epoch <= last || b->leader_epoch > EPOCH_MAX)
        return; /* it is not in the batch's CRC */
    if (p->epochs_n == EPOCHS_MAX)
        memmove(p->epochs, p->epochs + 1, --p->epochs_n * sizeof *p->epochs);
    p->epochs = mem_grow(MEM_PART, p->epochs, (p->epochs_n + 1) * sizeof *p->epochs);
    p->epochs[p->epochs_n++] = (struct epoch_start){b->leader_epoch, b->base_offset};
}

/* Is the batch of the walk what has to follow? Behind the recovery point: exactly that, and whole. */
static bool batch_follows(struct scan *s)
{
    const struct kafka_batch *b = &s->w.b;
    int64_t last = kafka_batch_last_offset(b);
    if (b->base_offset < s->expect || last - s->p->log->segs[s->i].base > INT32_MAX)
        return false;
    if (last < s->r->durable)
        return true;
    if (s->r->cut >= 0 && last >= s->r->cut)
        return false;
    return (b->base_offset == s->expect || s->expect < s->r->durable || s->r->gaps) && walk_crc_ok(&s->w);
}

/* Something is wrong at the walk's position. */
static void fault(struct scan *s)
{
    struct seg *g = &s->p->log->segs[s->i];
    int64_t next = s->i + 1 < s->p->log->segs_n ? s->p->log->segs[s->i + 1].base : INT64_MAX;
    if (s->expect >= s->r->durable) {
        s->torn = true;
        return;
    }
    struct damage d = {.seg = g->base, .pos = (uint32_t)s->w.pos, .offset = s->expect};
    uint64_t from = s->w.pos + 1;
    if (s->w.pos < s->w.end && walk_search(&s->w, from, s->expect) && s->w.b.base_offset < next) {
        d.pos_end = (uint32_t)s->w.pos;
        d.offset_end = s->w.b.base_offset;
        s->w.next = s->w.pos; /* it is looked at as any other */
    } else {
        d.pos_end = (uint32_t)g->bytes;
        d.offset_end = MIN(next, s->r->durable);
        s->w.next = s->w.end;
    }
    s->expect = d.offset_end;
    damage_add(s->p, d);
}

/* What lies behind the first border at or behind the recovery point is shown when it is durable. */
static void hold(struct scan *s, uint64_t pos)
{
    struct part_log *g = s->p->log;
    if (g->held.offset < 0 && s->expect >= s->r->durable)
        g->held = (struct spot){s->expect, g->segs[s->i].base, (uint32_t)pos};
}

static void batch_take(struct scan *s)
{
    struct part *p = s->p;
    struct seg *g = &p->log->segs[s->i];
    if (s->w.pos == 0)
        g->first_ms = s->w.b.max_timestamp;
    index_add(&p->log->index, g, &s->w.b, (uint32_t)s->w.pos, p->conf.index_interval_bytes);
    epoch_seen(p, &s->w.b);
    s->expect = kafka_batch_last_offset(&s->w.b) + 1;
    if (s->expect <= s->r->durable)
        g->durable = s->w.next;
    hold(s, s->w.next);
}

static enum err seg_scan(struct scan *s)
{
    struct part *p = s->p;
    struct seg *g = &p->log->segs[s->i];
    enum err e = seg_open(p, g, false);
    if (e != OK) {
        buf_printf(s->why, "segment %lld can't be opened: %s", (long long)g->base, err_text(e));
        return e;
    }
    index_clear(&p->log->index);
    g->max_ms = g->max_offset = -1;
    g->durable = 0;
    s->expect = MAX(s->expect, g->base);
    if (p->log->held.offset == s->expect)
        p->log->held.offset = -1; /* at the end of the segment before, which may go first */
    hold(s, 0);
    for (walk_init(&s->w, g->file->fd, 0, g->bytes, p->shard->window); !s->torn;) {
        enum walked got = walk_next(&s->w);
        if (got == WALK_END)
            break;
        bool follows = got == WALK_BATCH && batch_follows(s);
        if (follows)
            batch_take(s);
        else if (s->w.err == OK)
            fault(s);
        if (s->w.err != OK) { /* nothing is cut off because a read failed */
            buf_printf(s->why, "segment %lld can't be read at byte %llu: %s", (long long)g->base, (unsigned long long)s->w.pos, err_text(s->w.err));
            return s->w.err;
        }
    }
    g->end = s->expect;
    return OK;
}

/* The torn end: bytes of this segment behind the walk, and all segments behind it, go. */
static enum err tail_cut(struct scan *s, uint64_t bytes)
{
    struct part *p = s->p;
    struct seg *g = &p->log->segs[s->i];
    uint64_t cut = g->bytes - bytes;
    char folder[LOG_PATH_MAX];
    enum err e = cut ? disk_truncate(g->file->fd, bytes) : OK;
    p->bytes -= cut;
    counter_add(&p->shard->counters.bytes, -cut);
    g->bytes = bytes;
    g->durable = g->written_back = MIN(g->durable, bytes);
    g->emptied = cut && !bytes;
    if (cut && g->durable == bytes && bytes) /* the cut is to be synced, too: the next batch may begin a new segment */
        g->durable--;
    uint32_t later = p->log->segs_n - s->i - 1;
    for (uint32_t k = s->i + 1; k < p->log->segs_n; k++) { /* one that stays would be taken for what follows */
        enum err removed = seg_files_remove(p, p->log->segs[k].base);
        cut += p->log->segs[k].bytes;
        e = e ? e : removed;
    }
    seg_drop(p, s->i + 1, later);
    if (e == OK && later)
        e = disk_sync_dir(part_path(p, NULL, folder));
    if (e != OK)
        buf_printf(s->why, "what is behind offset %lld can't be cut off: %s", (long long)s->expect, err_text(e));
    counter_add(&p->shard->counters.truncated_bytes, cut);
    if (cut || later)
        log_warn("log", "%s: %llu bytes behind offset %lld were not written completely and are cut off", p->name, (unsigned long long)cut, (long long)s->expect);
    return e;
}

/* ---- the partition ---- */

/* Segments that end before the recovery point are taken as they are; returns the first that isn't. */
static uint32_t sealed_take(struct part *p, const struct recovery *r)
{
    struct part_log *g = p->log;
    uint32_t i = 0;
    for (; i + 1 < g->segs_n && g->segs[i + 1].base <= r->durable; i++) seg_times(p, &g->segs[i]);
    return i;
}

static bool unchanged(const struct part *p, const struct recovery *r)
{
    return r->active >= 0 && r->cut < 0 && seg_last(p)->base == r->active && seg_last(p)->bytes == r->active_bytes;
}

static enum err last_take(struct part *p, const struct recovery *r, struct buf *why)
{
    struct seg *s = seg_last(p);
    s->end = r->durable;
    enum err e = OK;
    if (!index_load(p, s, &p->log->index) && s->bytes)
        e = index_rebuild(p, s, &p->log->index, false);
    if (e != OK)
        buf_printf(why, "segment %lld can't be read: %s", (long long)s->base, err_text(e));
    char head[KAFKA_BATCH_HEADER];
    struct kafka_batch b;
    if (e == OK && s->bytes >= sizeof head && seg_open(p, s, false) == OK && file_read_at(s->file->fd, 0, head, sizeof head) == OK && batch_head(head, &b))
        s->first_ms = b.max_timestamp;
    return e;
}

/* Records that were durable are missing at the end: offsets go on behind them, in a segment of its own. */
static enum err end_missing(struct scan *s)
{
    struct part *p = s->p;
    if (s->expect < s->r->durable) {
        const struct seg *g = seg_last(p);
        damage_add(p, (struct damage){.seg = g->base, .pos = (uint32_t)g->bytes, .pos_end = (uint32_t)g->bytes, .offset = s->expect, .offset_end = s->r->durable});
        s->expect = s->r->durable;
    }
    const struct damage *d = p->log->damages_n ? &p->log->damages[p->log->damages_n - 1] : NULL;
    if (!d || d->offset_end < s->expect || d->seg != seg_last(p)->base || seg_last(p)->base >= s->expect)
        return OK;
    index_seal(&p->log->index, seg_last(p));
    seg_last(p)->end = s->expect;
    enum err e = index_save(p, &p->log->index, seg_last(p)->base);
    index_clear(&p->log->index);
    if (e == OK)
        e = seg_open(p, seg_add(p, s->expect), true);
    p->names_made++;
    if (e != OK)
        buf_printf(s->why, "a segment behind the damage can't be made: %s", err_text(e));
    return e;
}

static enum err part_scan(struct part *p, struct recovery *r, struct buf *why)
{
    struct scan s = {.p = p, .r = r, .why = why};
    enum err e = OK;
    for (s.i = sealed_take(p, r); e == OK; s.i++) {
        if (p->log->segs[s.i].base > s.expect && s.i > 0 && s.expect >= r->durable && !r->gaps) {
            s.i--; /* what was between is not there: the log ends with the segment before */
            e = tail_cut(&s, p->log->segs[s.i].bytes);
            break;
        }
        e = seg_scan(&s);
        if (e == OK && s.torn)
            e = tail_cut(&s, s.w.pos);
        if (s.torn || e != OK || s.i + 1 == p->log->segs_n)
            break;
        index_seal(&p->log->index, &p->log->segs[s.i]);
        e = index_save(p, &p->log->index, p->log->segs[s.i].base);
    }
    if (e == OK)
        e = end_missing(&s);
    p->written = p->end = seg_last(p)->end = MAX(s.expect, seg_last(p)->base);
    p->durable = MIN(r->durable, p->written);
    p->gaps = r->gaps;
    p->log->held_end = (struct spot){p->written, seg_last(p)->base, (uint32_t)seg_last(p)->bytes};
    if (p->durable == p->written)
        p->log->held.offset = -1;
    return e;
}

/* The folder is there and no segment is: its first batch never came, or somebody removed them. */
static enum err nothing_there(struct part *p, const struct recovery *r, struct buf *why)
{
    int64_t base = MAX(r->durable, p->log_start);
    enum err e = seg_open(p, seg_add(p, base), true);
    if (e != OK)
        buf_printf(why, "a segment can't be made: %s", err_text(e));
    p->names_made++;
    p->written = p->end = p->durable = base;
    if (r->durable > p->log_start)
        log_error("log", "%s: all segments are missing: offsets %lld to %lld were on disk. It goes on behind them; restore the files, if there is a copy, while it is stopped",
                  p->name, (long long)p->log_start, (long long)r->durable - 1);
    p->log_start = base;
    return e;
}

/* Segments wholly before the start of the log: they were on their way out, and what comes behind them need not follow them. */
static void expired_drop(struct part *p)
{
    struct part_log *g = p->log;
    uint32_t n = 0;
    while (n + 1 < g->segs_n && g->segs[n + 1].base <= p->log_start) p->left_over |= seg_files_remove(p, g->segs[n++].base) != OK;
    seg_drop(p, 0, n);
    p->names_made += n > 0;
}

/* Records were deleted up to an offset that was given to nobody as durable, and the records are gone: it goes on behind them, so that the
 * start of the log, which is durable, stays where it is, and no offset is used twice. */
static enum err start_anew(struct part *p, struct buf *why)
{
    struct part_log *g = p->log;
    enum err e = OK;
    for (uint32_t i = 0; i < g->segs_n; i++) {
        enum err removed = seg_files_remove(p, g->segs[i].base);
        e = e ? e : removed;
    }
    seg_drop(p, 0, g->segs_n);
    index_clear(&g->index);
    g->damages_n = 0;
    g->held.offset = -1;
    if (e == OK)
        e = seg_open(p, seg_add(p, p->log_start), true);
    if (e != OK)
        buf_printf(why, "a segment can't be made in place of those that are gone: %s", err_text(e));
    p->names_made++;
    p->written = p->end = p->durable = p->log_start;
    return e;
}

/* The segment's bytes from `from` on, as they are. */
static enum err seg_rewrite(struct part *p, struct seg *s, uint64_t from)
{
    enum err e = seg_open(p, s, false);
    for (uint64_t at = from, n, written; e == OK && at < s->bytes; at += n) {
        n = MIN(s->bytes - at, WALK_BYTES);
        struct iovec iov = {p->shard->window, n};
        e = file_read_at(s->file->fd, at, p->shard->window, n);
        if (e == OK)
            e = disk_write_at(s->file->fd, at, &iov, 1, &written);
    }
    return e;
}

/* The last life may have met a failed sync and ended before it could note that. The kernel then takes pages for clean that are not on the disk,
 * tells the error to nobody else, and a sync succeeds. So what is behind the recovery point is written once more before it is synced: not all
 * of it if that is much, because what a shard appends is synced and noted every CHECKPOINT_AFTER_BYTES. */
static void tail_rewrite(struct part *p)
{
    uint64_t left = CHECKPOINT_AFTER_BYTES;
    enum err e = OK;
    for (uint32_t i = p->log->segs_n; e == OK && i-- > 0 && left;) {
        struct seg *s = &p->log->segs[i];
        if (s->durable == s->bytes)
            continue;
        uint64_t from = MAX(s->durable, s->bytes - MIN(s->bytes, left));
        e = seg_rewrite(p, s, from);
        left -= MIN(left, s->bytes - from);
    }
    if (e != OK)
        part_offline(p, "what was written last can't be written once more, and nobody knows whether it is on the disk", e);
}

/* After a sync that failed: the same, of all that is not known to be durable, and synced here. */
enum err part_rewrite(struct part *p)
{
    struct part_log *g = p->log;
    char folder[LOG_PATH_MAX];
    for (uint32_t i = 0; i < g->segs_n; i++) {
        struct seg *s = &g->segs[i];
        enum err e = s->durable < s->bytes || i + 1 == g->segs_n ? seg_rewrite(p, s, s->durable) : OK;
        if (e == OK && s->file)
            e = disk_sync(s->file->fd);
        if (e != OK)
            return e;
        s->durable = s->written_back = s->bytes;
        s->emptied = false;
    }
    enum err e = disk_sync_dir(part_path(p, NULL, folder));
    if (e != OK)
        return e;
    p->names_synced = p->names_made;
    p->durable = p->written;
    g->held.offset = -1;
    part_moved(p);
    return OK;
}

enum err part_recover(struct part *p, struct recovery *r, struct buf *why)
{
    enum err e = part_list(p, r, why);
    if (e != OK)
        return e;
    p->start_noted = p->log_start; /* it comes from the disk */
    expired_drop(p);
    if (p->log->segs_n == 0)
        e = nothing_there(p, r, why);
    else if (unchanged(p, r)) {
        sealed_take(p, r);
        e = last_take(p, r, why);
        p->written = p->end = p->durable = r->durable;
    } else {
        if (r->durable <= p->log_start) /* it is the start, rather, and what was deleted need not have been durable */
            r->durable = p->log->segs[0].base;
        e = part_scan(p, r, why);
        if (e == OK && r->cut < 0)
            tail_rewrite(p);
        p->names_made++; /* the life before may have ended before it synced the folder */
    }
    if (e == OK && p->log_start > p->written)
        e = start_anew(p, why);
    if (e != OK)
        return e;
    p->log_start = MAX(p->log_start, p->log->segs[0].base);
    p->noted = MIN(r->durable, p->durable);
    p->cleaned = MIN(p->cleaned, p->written);
    e = producers_load(p, r);
    if (e != OK)
        buf_printf(why, "its producers can't be read from the log: %s", err_text(e));
    part_next(p);
    if (part_dirty(p) || p->born)
        sync_force(p);
    return e;
}

/* Damage before the start of the log is nobody's concern any more; without any the partition writes again. */
void damages_cut(struct part *p)
{
    struct part_log *g = p->log;
    uint8_t kept = 0;
    if (g->damages_n == 0)
        return;
    for (uint8_t i = 0; i < g->damages_n; i++)
        if (g->damages[i].offset_end > p->log_start)
            g->damages[kept++] = g->damages[i];
    g->damages_n = kept;
    if (kept || !p->offline || p->suspect || p->failed)
        return;
    p->offline = false;
    counter_add(&p->shard->counters.offline, -(uint64_t)1);
    log_info("log", "%s: the records before offset %lld were deleted, and with them all that was damaged: it takes records again", p->name, (long long)p->log_start);
}
