/* read.c - from offsets to ranges of files, and from times to offsets.
 *
 * A reader gets whole batches: the first holds the offset it asked for, the last ends within bytes_max. Where the range begins is known from
 * where the last reader stopped (hints), or from the index and a short walk over headers. Where it ends is known when it reaches what is visible (the
 * place of the first batch that waits, or of the oldest transaction, is remembered), else from the index and a walk again. Nothing is copied:
 * the reader sends from the file, of which it holds a reference.
 */
#include "log_int.h"

#define WARM_BYTES (8u << 20)          /* the end of the last segment was just written */
#define NONE_MS (-1)

static struct spot read_limit(const struct part *p, enum part_until until)
{
    const struct seg *s = seg_last(p);
    switch (until) {
    case PART_HIGH: return p->log->high;
    case PART_STABLE: return p->log->stable;
    case PART_END: break;
    }
    return (struct spot){p->written, s->base, (uint32_t)s->bytes};
}

static int64_t limit_offset(const struct part *p, enum part_until until)
{
    return until == PART_HIGH ? p->high : until == PART_STABLE ? p->stable : p->written;
}

/* ---- places ---- */

static const struct spot *hint_find(const struct part *p, int64_t offset)
{
    for (uint8_t i = 0; i < HINTS; i++)
        if (p->log->hints[i].offset == offset && p->log->hints[i].offset >= 0)
            return &p->log->hints[i];
    return NULL;
}

static void hint_set(struct part *p, struct spot at)
{
    for (uint8_t i = 0; i < HINTS; i++)
        if (p->log->hints[i].offset == at.offset)
            return;
    p->log->hints[p->log->hint_next] = at;
    p->log->hint_next = (uint8_t)((p->log->hint_next + 1) % HINTS);
}

static const struct damage *damage_at(const struct part *p, const struct seg *s, uint64_t pos)
{
    for (uint8_t i = 0; i < p->log->damages_n; i++) {
        const struct damage *d = &p->log->damages[i];
        if (d->seg == s->base && pos >= d->pos && (pos < d->pos_end || pos == d->pos))
            return d;
    }
    return NULL;
}

/* Bytes that are no batch, where none was known to be missing. */
static const struct damage *damage_found(struct part *p, struct seg *s, struct walk *w, int64_t expect)
{
    struct damage d = {.seg = s->base, .pos = (uint32_t)w->pos, .offset = expect, .pos_end = (uint32_t)s->bytes, .offset_end = s->end};
    if (p->log->damages_n == DAMAGES_MAX)
        return &p->log->damages[DAMAGES_MAX - 1];
    if (w->pos < w->end && walk_search(w, w->pos + 1, expect)) {
        d.pos_end = (uint32_t)w->pos;
        d.offset_end = w->b.base_offset;
    }
    damage_add(p, d);
    return &p->log->damages[p->log->damages_n - 1];
}

/* The batch that holds offset, or the first behind it, before upper: in w. false with *e NONE: there is none in this segment. */
static bool locate(struct part *p, struct seg *s, int64_t offset, uint64_t upper, struct walk *w, enum kafka_error *e)
{
    const struct spot *hint = hint_find(p, offset);
    int64_t expect = s->base;
    uint64_t from = hint && hint->seg == s->base ? hint->pos : index_floor(p, s, offset);
    *e = KAFKA_NONE;
    if (from > upper)
        return false;
    walk_init(w, s->file->fd, from, upper, p->shard->window);
    for (;;) {
        enum walked got = walk_next(w);
        if (got == WALK_END)
            return false;
        if (got == WALK_BATCH && kafka_batch_last_offset(&w->b) >= offset)
            return true;
        if (got == WALK_BATCH) {
            expect = kafka_batch_last_offset(&w->b) + 1;
            continue;
        }
        if (got == WALK_IO) {
            log_error("log", "%s: segment %lld can't be read at byte %llu: %s", p->name, (long long)s->base, (unsigned long long)w->pos, err_text(w->err));
            *e = KAFKA_KAFKA_STORAGE_ERROR;
            return false;
        }
        const struct damage *d = damage_at(p, s, w->pos);
        if (!d)
            d = damage_found(p, s, w, expect);
        if (offset < d->offset_end || d->pos_end <= w->pos) {
            *e = KAFKA_KAFKA_STORAGE_ERROR;
            return false;
        }
        w->next = d->pos_end;
    }
}

/* The last border of a batch at or before from + max; *next: the offset of the batch that begins there, -1: not known. */
static uint64_t border(struct part *p, struct seg *s, uint64_t from, uint64_t max, uint64_t upper, struct walk *w, int64_t *next)
{
    *next = -1;
    if (upper - from <= max)
        return upper;
    walk_init(w, s->file->fd, index_floor_pos(p, s, (uint32_t)from, (uint32_t)(from + max)), upper, p->shard->window);
    uint64_t end = w->pos;
    while (walk_next(w) == WALK_BATCH) {
        end = w->pos;
        *next = w->b.base_offset;
        if (w->next > from + max)
            return end;
    }
    return w->pos; /* a damaged batch: up to there */
}

/* ---- reading ---- */

static void read_aborted(const struct part *p, struct part_read *r, struct arena *a, int64_t until)
{
    const struct producers *ps = &p->log->producers;
    int32_t n = 0;
    uint32_t from = aborted_find(ps, r->offset);
    for (int pass = 0; pass < 2; pass++) {
        if (pass && n == 0)
            return;
        if (pass)
            r->aborted = arena_alloc(a, (size_t)n * sizeof *r->aborted);
        n = 0;
        for (uint32_t i = from; i < ps->aborted_n; i++) {
            const struct aborted *ab = &ps->aborted[i];
            if (ab->first < until) {
                if (pass)
                    r->aborted[n] = (struct part_aborted){ab->producer_id, ab->first};
                n++;
            }
            if (ab->open_from >= until)
                break;
        }
    }
    r->aborted_n = n;
}

/* The range in this segment; bytes 0: nothing of it is in this one. */
static void read_segment(struct part *p, struct part_read *r, struct seg *s, struct spot limit, struct arena *a)
{
    struct walk w;
    uint64_t upper = s->base == limit.seg ? limit.pos : s->bytes;
    if (seg_open(p, s, false) != OK) {
        r->error = KAFKA_KAFKA_STORAGE_ERROR;
        return;
    }
    const struct spot *hint = hint_find(p, r->offset);
    if (hint && hint->seg == s->base && hint->pos < upper && upper - hint->pos <= r->bytes_max && p->log->damages_n == 0) {
        w.pos = hint->pos; /* all that is there, from where the last read ended: nothing need be looked at */
        w.b.bytes = 0;
    } else if (!locate(p, s, r->offset, upper, &w, &r->error)) {
        return;
    }
    uint64_t pos = w.pos, first = w.b.bytes, end;
    int64_t next = -1;
    for (uint8_t i = 0; i < p->log->damages_n; i++) /* up to what can't be read */
        if (p->log->damages[i].seg == s->base && p->log->damages[i].pos > pos)
            upper = MIN(upper, p->log->damages[i].pos);
    end = border(p, s, pos, r->bytes_max, upper, &w, &next);
    if (end == pos && r->one_at_least) {
        end = pos + first;
        next = -1;
    }
    if (end == upper && s->base == limit.seg && upper == limit.pos)
        next = limit.offset;
    if (next >= 0)
        hint_set(p, (struct spot){next, s->base, (uint32_t)end});
    r->pos = pos;
    r->bytes = (uint32_t)(end - pos);
    if (r->bytes == 0)
        return;
    r->file = segfile_ref(s->file);
    r->cold = !(s == seg_last(p) && s->bytes - pos <= WARM_BYTES) && !disk_in_memory(s->file->fd, pos, r->bytes);
    counter_add(&p->shard->counters.read_bytes, r->bytes);
    if (r->cold)
        counter_inc(&p->shard->counters.cold_reads);
    if (r->until == PART_STABLE)
        read_aborted(p, r, a, next >= 0 ? next : s->end);
}

void part_read(struct part *p, struct part_read *r, struct arena *a)
{
    r->error = KAFKA_NONE;
    r->file = NULL;
    r->pos = 0;
    r->bytes = 0;
    r->cold = false;
    r->aborted = NULL;
    r->aborted_n = 0;
    part_offsets(p, &r->offsets);
    if (r->offset < p->log_start || r->offset > p->end) {
        r->error = KAFKA_OFFSET_OUT_OF_RANGE;
        return;
    }
    if (p->state == PART_EMPTY || r->offset >= limit_offset(p, r->until))
        return;
    if (!part_use(p)) {
        r->error = KAFKA_KAFKA_STORAGE_ERROR;
        return;
    }
    part_offsets(p, &r->offsets); /* loading may have found something */
    struct spot limit = read_limit(p, r->until);
    if (r->offset >= limit.offset)
        return;
    /* what compaction left of a segment may end before the offset: then the next one has it */
    uint32_t i = (uint32_t)(seg_find(p, r->offset) - p->log->segs);
    for (; i < p->log->segs_n && p->log->segs[i].base <= limit.seg && !r->file && r->error == KAFKA_NONE; i++) {
        struct seg *s = &p->log->segs[i];
        read_segment(p, r, s, limit, a);
        if (r->pos || r->bytes)
            return;
    }
}

uint64_t part_readable(const struct part *p, int64_t offset, enum part_until until)
{
    if (p->state == PART_EMPTY || offset >= limit_offset(p, until))
        return 0;
    if (p->state == PART_SHELVED)
        return MAX(p->bytes, 1u);
    struct spot limit = read_limit(p, until);
    offset = MAX(offset, p->log_start);
    const struct spot *hint = hint_find(p, offset);
    struct seg *s = seg_find(p, offset);
    uint64_t from = 0, sum = 0;
    if (hint && hint->seg == s->base)
        from = hint->pos;
    else if (s == seg_last(p))
        from = index_floor((struct part *)p, s, offset); /* in memory */
    for (; s <= seg_last(p); s++) {
        uint64_t upper = s->base == limit.seg ? limit.pos : s->bytes;
        sum += upper > from ? upper - from : 0;
        from = 0;
        if (s->base == limit.seg)
            break;
    }
    return MAX(sum, 1u);
}

/* ---- times ---- */

/* What is wanted of a batch's records: the first that is at least ms late (ms >= 0), or the latest (ms NONE_MS). */
static enum kafka_error record_find(struct part *p, struct walk *w, int64_t ms, int64_t *offset, int64_t *at_ms)
{
    struct buf bytes = {0}, scratch = {0};
    struct kafka_batch b;
    struct slice rest;
    enum kafka_error e = KAFKA_KAFKA_STORAGE_ERROR;
    *offset = *at_ms = -1;
    buf_reserve(&bytes, w->b.bytes);
    if (file_read_at(w->fd, w->pos, bytes.p, w->b.bytes) == OK && kafka_batch_parse(slice_of(bytes.p, w->b.bytes), &b) == KAFKA_NONE && kafka_batch_crc_ok(bytes.p, &b) &&
        kafka_batch_records(&b, KAFKA_INFLATE_BYTES_MAX, &scratch, &rest) == OK) {
        struct kafka_record rec;
        e = KAFKA_NONE;
        bool appended = b.attributes & KAFKA_BATCH_LOG_APPEND;
        while (rest.n && kafka_record_next(&rest, &rec) == OK) {
            int64_t t = appended ? b.max_timestamp : record_ms(&b, &rec);
            if (b.base_offset + rec.offset_delta < p->log_start || rec.offset_delta < 0 || rec.offset_delta > b.last_offset_delta)
                continue;
            if (ms == NONE_MS ? t <= *at_ms : t < ms)
                continue;
            *offset = b.base_offset + rec.offset_delta;
            *at_ms = t;
            if (ms != NONE_MS)
                break;
        }
    }
    buf_free(&bytes);
    buf_free(&scratch);
    return e;
}

/* The first record of this segment that is visible, not deleted, and at least ms late. */
static enum kafka_error time_in_segment(struct part *p, struct seg *s, int64_t ms, struct spot limit, int64_t *offset, int64_t *at_ms)
{
    struct walk w;
    uint32_t pos;
    if (seg_open(p, s, false) != OK)
        return KAFKA_KAFKA_STORAGE_ERROR;
    index_times_floor(p, s, ms, &pos);
    uint64_t upper = s->base == limit.seg ? limit.pos : s->bytes;
    if (pos >= upper)
        return KAFKA_NONE; /* what is late enough is not visible */
    walk_init(&w, s->file->fd, pos, upper, p->shard->window);
    for (;;) {
        enum walked got = walk_next(&w);
        if (got == WALK_END)
            return KAFKA_NONE;
        const struct damage *d = got == WALK_BAD ? damage_at(p, s, w.pos) : NULL;
        if (got != WALK_BATCH && (!d || d->pos_end <= w.pos))
            return KAFKA_KAFKA_STORAGE_ERROR;
        if (d) {
            w.next = d->pos_end;
            continue;
        }
        if (w.b.max_timestamp < ms || kafka_batch_last_offset(&w.b) < p->log_start || w.b.count == 0)
            continue;
        enum kafka_error e = record_find(p, &w, ms, offset, at_ms);
        if (e != KAFKA_NONE || *offset >= 0)
            return e;
    }
}

enum kafka_error part_find_time(struct part *p, int64_t ms, enum part_until until, int64_t *offset, int64_t *at_ms)
{
    *offset = *at_ms = -1;
    if (p->state == PART_EMPTY || p->log_start >= limit_offset(p, until))
        return KAFKA_NONE;
    if (!part_use(p))
        return KAFKA_KAFKA_STORAGE_ERROR;
    struct spot limit = read_limit(p, until);
    for (uint32_t i = (uint32_t)(seg_find(p, p->log_start) - p->log->segs); i < p->log->segs_n; i++) {
        struct seg *s = &p->log->segs[i];
        if (s->base > limit.seg)
            break;
        if (s->max_offset >= 0 && s->max_ms < ms)
            continue;
        enum kafka_error e = time_in_segment(p, s, ms, limit, offset, at_ms);
        if (e != KAFKA_NONE || *offset >= 0)
            return e;
    }
    return KAFKA_NONE;
}

/* From where the last look ended; at first from the start of the log. */
static enum kafka_error newest_begin(struct part *p, struct seg *s, uint64_t upper)
{
    struct newest *n = &p->log->newest;
    struct walk w;
    enum kafka_error e = KAFKA_NONE;
    if (n->start == p->log_start && n->seg == s->base)
        return KAFKA_NONE;
    uint64_t next = locate(p, s, p->log_start, upper, &w, &e) ? w.pos : upper;
    if (!e)
        *n = (struct newest){.start = p->log_start, .seg = s->base, .next = next, .ms = NONE_MS};
    return e;
}

/* What is left of a segment whose newest batch was deleted, in whole or in part: only its batches tell, up to what is visible. */
static enum kafka_error newest_left(struct part *p, struct seg *s)
{
    struct newest *n = &p->log->newest;
    struct walk w;
    int64_t offset, ms;
    uint64_t upper = s->base == p->log->high.seg ? p->log->high.pos : s->bytes;
    enum kafka_error e = newest_begin(p, s, upper);
    if (e || n->next >= upper)
        return e;
    walk_init(&w, s->file->fd, n->next, upper, p->shard->window);
    for (enum walked got; (got = walk_next(&w)) != WALK_END; n->next = w.next) {
        const struct damage *d = got == WALK_BAD ? damage_at(p, s, w.pos) : NULL;
        if (got != WALK_BATCH && (!d || d->pos_end <= w.pos))
            return KAFKA_KAFKA_STORAGE_ERROR;
        if (d) {
            w.next = d->pos_end;
            continue;
        }
        ms = w.b.max_timestamp;
        if (w.b.base_offset < p->log_start && (e = record_find(p, &w, NONE_MS, &offset, &ms)) != KAFKA_NONE)
            return e;
        if (w.b.count && ms > n->ms) {
            n->ms = ms;
            n->pos = w.pos;
        }
    }
    return KAFKA_NONE;
}

/* The segment's newest batch, of which records have not been deleted: true, in w. */
static bool newest_whole(struct part *p, struct seg *s, struct walk *w, enum kafka_error *e)
{
    int64_t last = MIN(s->max_offset, p->high - 1); /* of a batch that is not yet visible: the last one before */
    *e = KAFKA_NONE;
    return last >= p->log_start && locate(p, s, last, s->bytes, w, e) && w->b.base_offset >= p->log_start;
}

/* The latest record of a segment, of those that are visible and not deleted; -1, -1: there is none. */
static enum kafka_error newest_in(struct part *p, struct seg *s, int64_t *offset, int64_t *at_ms)
{
    const struct newest *n = &p->log->newest;
    struct walk w;
    enum kafka_error e;
    *offset = *at_ms = -1;
    if (seg_open(p, s, false) != OK)
        return KAFKA_KAFKA_STORAGE_ERROR;
    if (!newest_whole(p, s, &w, &e)) {
        if (e || s->base >= p->log_start || (e = newest_left(p, s)) != KAFKA_NONE || n->ms == NONE_MS)
            return e;
        walk_init(&w, s->file->fd, n->pos, s->bytes, p->shard->window);
        if (walk_next(&w) != WALK_BATCH)
            return KAFKA_KAFKA_STORAGE_ERROR;
    }
    return record_find(p, &w, NONE_MS, offset, at_ms);
}

enum kafka_error part_find_newest(struct part *p, int64_t *offset, int64_t *at_ms)
{
    *offset = *at_ms = -1;
    if (p->state == PART_EMPTY || p->log_start >= p->high)
        return KAFKA_NONE;
    if (!part_use(p))
        return KAFKA_KAFKA_STORAGE_ERROR;
    struct seg *first = seg_find(p, p->log_start), *end = p->log->segs + p->log->segs_n, *best = NULL;
    for (struct seg *s = first + 1; s < end && s->base <= p->log->high.seg; s++)
        if (s->max_offset >= p->log_start && (!best || s->max_ms > best->max_ms))
            best = s;
    if (first->max_offset >= 0 && (!best || first->max_ms >= best->max_ms)) { /* what is left of it may be older all the same */
        enum kafka_error e = newest_in(p, first, offset, at_ms);
        if (e || (*offset >= 0 && (!best || *at_ms >= best->max_ms)))
            return e;
    }
    return best ? newest_in(p, best, offset, at_ms) : KAFKA_NONE;
}

/* ---- producers ---- */

void part_producers(struct part *p, void (*each)(void *ctx, const struct part_producer *pr), void *ctx)
{
    if (p->state == PART_EMPTY || !part_use(p))
        return;
    const struct producers *ps = &p->log->producers;
    for (uint32_t i = 0; i < ps->cap; i++) {
        const struct producer *pr = ps->slots[i];
        if (!pr)
            continue;
        struct part_producer out = {.id = pr->id, .last_ms = pr->last_ms, .txn_first_offset = pr->txn_first, .epoch = pr->epoch, .coordinator_epoch = pr->coordinator_epoch};
        out.last_sequence = pr->sent_n ? pr->sent[pr->sent_n - 1].last_sequence : -1;
        each(ctx, &out);
    }
}

bool part_txn_open(struct part *p, int64_t producer_id)
{
    if (p->state == PART_EMPTY || !part_use(p))
        return false;
    const struct producer *pr = producer_get(&p->log->producers, producer_id);
    return pr && pr->txn_first >= 0;
}
