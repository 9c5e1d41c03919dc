/* compact.c - compaction, seen from the loop: what is worth it, and how new segments take the place of old ones.
 *
 *     compact_maybe() -> clean_run() in the pool -> compact_swap() on the loop -> clean_place() in the pool -> over
 *
 * Sealed segments are cleaned up to the last stable offset, and only what the last checkpoint knows to be durable: recovery tells a torn tail by offsets that
 * do not follow one another, and compaction makes such. Meanwhile no segment of the partition is removed. In compact_swap() readers get the new segments, whose
 * files are still called .swap; they stay open until they have their names. A crash at any moment leaves either all the old ones or a
 * .swap that is complete (folder.c).
 *
 * One compaction runs in a shard at a time: it has compaction_bytes of memory.
 */
#include "log_int.h"

#define AGAIN_MS 600000                /* after one that failed */
#define LOOK_MS 10000                  /* since when what was seen to be free counts */

/* The offset before which may be cleaned, once a checkpoint has noted what is before it. */
static int64_t compact_limit(const struct part *p, int64_t now_ms)
{
    const struct part_log *g = p->log;
    int64_t limit = MIN(seg_last(p)->base, p->stable);
    for (uint32_t i = 0; i + 1 < g->segs_n && p->conf.min_compaction_lag_ms > 0; i++) {
        const struct seg *s = &g->segs[i];
        if (s->end > p->cleaned && s->max_offset >= 0 && s->max_ms > now_ms - p->conf.min_compaction_lag_ms)
            return MIN(limit, s->base);
    }
    return limit;
}

/* Whole segments before the limit; how many. */
static uint32_t compact_sources(const struct part *p, int64_t limit, uint64_t *clean, uint64_t *dirty, int64_t *oldest_ms)
{
    uint32_t n = 0;
    *clean = *dirty = 0;
    *oldest_ms = INT64_MAX;
    for (; n + 1 < p->log->segs_n && p->log->segs[n].end <= limit; n++) {
        const struct seg *s = &p->log->segs[n];
        if (s->end <= p->cleaned) {
            *clean += s->bytes;
            continue;
        }
        *dirty += s->bytes;
        if (s->max_offset >= 0)
            *oldest_ms = MIN(*oldest_ms, s->max_ms);
    }
    return n;
}

static struct clean *clean_new(struct part *p, uint32_t n, int64_t now_ms)
{
    const struct part_log *g = p->log;
    const struct producers *ps = &g->producers;
    struct clean *c = mem_new(MEM_PART, sizeof *c);
    *c = (struct clean){.part = p, .dirty = p->cleaned, .limit = g->segs[n - 1].end, .now_ms = now_ms, .delete_retention_ms = p->conf.delete_retention_ms,
                        .map_bytes = p->shard->store->conf.compaction_bytes, .segment_bytes = p->conf.segment_bytes, .interval_bytes = p->conf.index_interval_bytes};
    c->sources = mem_new(MEM_PART, n * sizeof *c->sources);
    for (uint32_t i = 0; i < n; i++) {
        struct seg *s = &g->segs[i];
        if (seg_open(p, s, false) != OK) {
            clean_free(c);
            return NULL;
        }
        c->sources[c->sources_n++] = (struct clean_source){segfile_ref(s->file), s->base, s->end, s->bytes};
    }
    if (ps->aborted_n) {
        c->aborted = mem_new(MEM_PART, ps->aborted_n * sizeof *c->aborted);
        memcpy(c->aborted, ps->aborted, ps->aborted_n * sizeof *c->aborted);
        c->aborted_n = ps->aborted_n;
    }
    c->lasts = mem_new(MEM_PART, (ps->n + 1) * sizeof *c->lasts);
    for (uint32_t i = 0; i < ps->cap; i++)
        if (ps->slots[i] && ps->slots[i]->sent_n)
            c->lasts[c->lasts_n++] = (struct clean_last){ps->slots[i]->id, ps->slots[i]->sent[ps->slots[i]->sent_n - 1].last_offset};
    return c;
}

static void compact_over(struct clean *c)
{
    struct part *p = c->part;
    struct log_shard *s = p->shard;
    p->compacting = false;
    s->cleaning = NULL;
    if (s->clean_waits && s->state == SHARD_RUNS) /* at once, and not at the next look: there may be many */
        timer_set(s->loop, &s->housekeeping_timer, 1);
    s->clean_waits = false;
    clean_free(c);
    part_unpin(p);
    shard_job_over(s);
}

/* New segments have their names. */
static void placed(struct work *w)
{
    struct clean *c = CONTAINER_OF(w, struct clean, work);
    struct part *p = c->part;
    if (c->err != OK && !p->gone) {
        log_error("log", "%s: compaction: %s: %s; the next start completes it", p->name, c->what, err_text(c->err));
        p->shard->cleaning = NULL;
        clean_free(c); /* compacting stays set: nothing of this partition is removed or cleaned in this life */
        struct log_shard *s = p->shard;
        part_unpin(p);
        shard_job_over(s);
        return;
    }
    for (uint32_t i = 0; i < c->outs_n && !p->gone; i++) {
        struct seg *s = seg_by_base(p, c->outs[i].seg.base);
        if (s)
            s->swapping = false;
    }
    if (!p->gone) {
        counter_add(&p->shard->counters.compacted_segments, c->sources_n);
        p->cleaned = MAX(p->cleaned, c->map_end);
        p->shard->changed = true;
    }
    compact_over(c);
}

static void out_swap(struct part *p, struct clean *c, struct clean_out *o)
{
    struct part_log *g = p->log;
    struct seg *first = seg_by_base(p, o->seg.base);
    MUST(first && first->end == c->sources[o->first].next);
    uint32_t i = (uint32_t)(first - g->segs);
    for (uint32_t k = 0; k < o->n; k++) counter_add(&p->shard->counters.compacted_bytes, g->segs[i + k].bytes);
    seg_drop(p, i + 1, o->n - 1);
    struct seg *s = &g->segs[i];
    seg_close(p, s);
    p->bytes += o->seg.bytes - s->bytes;
    counter_add(&p->shard->counters.bytes, o->seg.bytes - s->bytes);
    *s = o->seg;
    s->durable = s->written_back = s->bytes;
    s->swapping = true;
    seg_adopt(p, s, o->fd);
    o->fd = -1;
}

static void abandon_run(struct work *w) { clean_abandon(CONTAINER_OF(w, struct clean, work)); }
static void abandoned(struct work *w) { compact_over(CONTAINER_OF(w, struct clean, work)); }

static void resubmit(struct clean *c, void (*run)(struct work *), void (*done)(struct work *))
{
    c->work.run = run;
    c->work.done = done;
    work_submit(c->part->shard->loop, &c->work);
}

/* The pool has made them: readers get them. */
static void compact_swap(struct work *w)
{
    struct clean *c = CONTAINER_OF(w, struct clean, work);
    struct part *p = c->part;
    if (c->err == OK && !p->gone && !p->suspect) {
        for (uint32_t i = 0; i < c->outs_n; i++) out_swap(p, c, &c->outs[i]);
        places_forget(p->log);
        if (c->outs_n) /* nothing of aborted transactions is left there */
            producers_cut(&p->log->producers, c->outs[c->outs_n - 1].next);
        part_moved(p);
        resubmit(c, clean_place, placed);
        return;
    }
    if (c->err != OK && c->what && !p->gone) {
        log_error("log", "%s: compaction: %s: %s; it is tried again later", p->name, c->what, err_text(c->err));
        p->compact_after_ms = (int64_t)loop_now_ms(p->shard->loop) + AGAIN_MS;
    }
    if (c->err == OK)
        resubmit(c, abandon_run, abandoned);
    else
        compact_over(c);
}

/* That offsets will have gaps is known before there are any: should the checkpoint be lost, a gap is no torn end. */
static bool compact_noted(struct part *p)
{
    if (p->sparse)
        return true;
    p->sparse = true;
    struct part_note note = part_note_of(p);
    enum err e = part_note_write(p, &note);
    if (e == OK)
        return true;
    p->sparse = false;
    log_error("log", "%s: that offsets will have gaps can't be noted: %s; it is not compacted", p->name, err_text(e));
    return false;
}

/* How many segments to clean; 0: it isn't worth it. */
static uint32_t compact_worth(const struct part *p, int64_t limit, int64_t now_ms)
{
    uint64_t clean, dirty;
    int64_t oldest_ms;
    uint32_t n = compact_sources(p, limit, &clean, &dirty, &oldest_ms);
    bool late = oldest_ms != INT64_MAX && now_ms - oldest_ms > p->conf.max_compaction_lag_ms;
    return dirty == 0 || (!late && (double)dirty < p->conf.min_cleanable_ratio * (double)(clean + dirty)) ? 0 : n;
}

/* The new segments are beside the old ones for a while; what is kept in reserve is not for them. False: not now. */
static bool compact_room(struct part *p, uint32_t n)
{
    struct log_shard *s = p->shard;
    uint64_t reserve = s->store->conf.reserve_bytes, bytes = 0;
    for (uint32_t i = 0; i < n; i++) bytes += p->log->segs[i].bytes;
    if (s->room >= reserve && s->room - reserve >= bytes)
        return true;
    uint64_t now_ms = loop_now_ms(s->loop);
    if (now_ms - s->looked_ms > LOOK_MS) { /* perhaps there is more by now */
        s->space_due = true;
        shard_end(s);
        p->compact_after_ms = (int64_t)now_ms + 2 * SPACE_MS;
        return false;
    }
    p->compact_after_ms = (int64_t)now_ms + AGAIN_MS;
    log_warn("log", "%s: compaction wants room for %llu MiB and %llu are free beside the reserve: it is tried again later. Free space, or give the partition a retention",
             p->name, (unsigned long long)(bytes >> 20), (unsigned long long)(s->room > reserve ? (s->room - reserve) >> 20 : 0));
    return false;
}

void compact_maybe(struct part *p, int64_t now_ms)
{
    struct log_shard *s = p->shard;
    s->clean_waits |= s->cleaning && !p->compacting;
    if (p->compacting || p->start_noting || s->cleaning || s->full || p->log->held.offset >= 0 || p->log->damages_n || s->state != SHARD_RUNS || (int64_t)loop_now_ms(s->loop) < p->compact_after_ms)
        return;
    int64_t limit = compact_limit(p, now_ms);
    uint32_t n = compact_worth(p, MIN(limit, p->noted), now_ms);
    if (n == 0) {
        if (limit > p->noted && compact_worth(p, limit, now_ms))
            shard_checkpoint_soon(s); /* the next look finds it noted */
        return;
    }
    if (!compact_room(p, n))
        return;
    struct clean *c = compact_noted(p) ? clean_new(p, n, now_ms) : NULL;
    if (!c) {
        p->compact_after_ms = (int64_t)loop_now_ms(s->loop) + AGAIN_MS;
        return;
    }
    p->compacting = true;
    p->pins++;
    list_del(&p->all); /* the others have their turn before it has another */
    list_push(&s->parts, &p->all);
    s->cleaning = c;
    s->jobs++;
    c->work.slow = true;
    resubmit(c, clean_run, compact_swap);
}
