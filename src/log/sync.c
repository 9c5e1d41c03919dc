/* sync.c - sync rounds: many partitions made durable at once, and those who wait for it answered.
 *
 *     idle --somebody waits--> round in the pool --> answers, in order --> idle, or the next round at once
 *
 * A shard has one round on its way. In it are all partitions with somebody who waits, and a few that shall be durable for another reason
 * (a checkpoint, a stop, a descriptor). First every file is told to be written back, then all are synced, by several threads (work_spread()): so the
 * device gets all of it at once, the file system commits its journal for many together, and the device's flushes are merged: a hundred files
 * take a few times as long as one. Folders with new names follow. What had been written
 * when the round began is durable when it ends; what came meanwhile is in the next one.
 *
 * A sync that fails says that bytes may be gone which the kernel will never write again. Asking again would get a success that means
 * nothing. So: the partition takes no more records, all who wait get an error, what was not visible is taken out of sight, and where the
 * log ended for readers is noted, beside the log and in the checkpoint: at the next start what is behind that is cut off, and what is before
 * it and not known to be durable is written once more (part_rewrite()), which makes its next sync mean something.
 */
#include "log_int.h"

bool part_dirty(const struct part *p)
{
    return p->state == PART_LOADED && !p->suspect && (p->durable < p->written || p->names_made != p->names_synced || p->born);
}

void sync_want(struct part *p)
{
    if (list_empty(&p->wait_link))
        list_push(&p->shard->waits, &p->wait_link);
    shard_end(p->shard);
}

void sync_force(struct part *p)
{
    if (p->renewing)
        return;
    if (list_empty(&p->force_link))
        list_push(&p->shard->forces, &p->force_link);
    shard_end(p->shard);
}

void sync_cut(struct part *p, struct seg *s)
{
    s->cut_late = p->rounding;
    if (s->durable < s->bytes)
        return;
    if (s->bytes == 0)
        s->emptied = true;
    else
        s->durable--;
    p->names_made++;
    sync_force(p);
}

void part_flush(struct part *p, struct part_flush *f)
{
    list_init(&f->link);
    if (p->gone || p->suspect || p->renewing || p->shard->state != SHARD_RUNS) {
        flush_finish(p->shard, f, p->gone ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_KAFKA_STORAGE_ERROR);
        return;
    }
    f->until = p->end;
    if (p->state != PART_LOADED || p->durable >= p->end) {
        flush_finish(p->shard, f, KAFKA_NONE);
        return;
    }
    list_push(&p->log->flushes, &f->link);
    sync_want(p);
}

/* ---- answers ---- */

void sync_settle(struct part *p)
{
    struct part_log *g = p->log;
    while (!list_empty(&g->waits)) {
        struct append *a = CONTAINER_OF(g->waits.next, struct append, link);
        if (kafka_batch_last_offset(&a->batch) >= p->durable)
            break;
        append_finish(p->shard, a, KAFKA_NONE);
    }
    LIST_FOREACH(it, &g->dups) {
        struct append *a = CONTAINER_OF(it, struct append, link);
        if ((int64_t)a->pos <= (a->acks == -1 ? p->durable : p->written))
            append_finish(p->shard, a, KAFKA_NONE);
    }
    LIST_FOREACH(it, &g->flushes) {
        struct part_flush *f = CONTAINER_OF(it, struct part_flush, link);
        if (f->until <= p->durable)
            flush_finish(p->shard, f, KAFKA_NONE);
    }
}

static void cut_noted(struct part *p, const struct part_note *note, enum err e)
{
    if (e != OK && !p->gone)
        log_error("log", "%s: what has to be cut off at the next start can't be noted: %s", p->name, err_text(e));
}

/* The log in memory ends at end; its files stay as they are until the next start, or until it is renewed. */
static void view_cut(struct part *p, struct spot end)
{
    struct part_log *g = p->log;
    if (!seg_by_base(p, end.seg)) { /* it lay before the start of the log, as all that may have been answered */
        MUST(end.seg < g->segs[0].base);
        end = (struct spot){MAX(end.offset, g->segs[0].base), g->segs[0].base, 0};
    }
    uint32_t i = (uint32_t)(seg_by_base(p, end.seg) - g->segs);
    bool dropped = i + 1 < g->segs_n;
    seg_drop(p, i + 1, g->segs_n - i - 1);
    struct seg *s = &g->segs[i];
    p->bytes -= s->bytes - end.pos;
    counter_add(&p->shard->counters.bytes, -(s->bytes - end.pos));
    s->bytes = end.pos;
    s->durable = MIN(s->durable, s->bytes);
    s->end = p->written = p->end = end.offset;
    if (dropped && !index_load(p, s, &g->index) && index_rebuild(p, s, &g->index, false) != OK)
        index_clear(&g->index);
    while (g->index.n && g->index.entries[g->index.n - 1].pos >= s->bytes) g->index.n--;
    while (g->index.times_n && s->base + g->index.times[g->index.times_n - 1].rel >= s->end) g->index.times_n--;
}

void sync_failed(struct part *p, enum err e)
{
    struct part_log *g = p->log;
    struct spot end = g->held.offset >= 0 ? g->held_end : g->high; /* what a recovery found and has not shown yet stays: the life before may have answered it */
    p->suspect = true;
    p->cut = MAX(end.offset, p->durable);
    part_offline(p, "a sync failed", e);
    part_fail(p, KAFKA_KAFKA_STORAGE_ERROR);
    producers_rollback(&g->producers); /* of this turn */
    view_cut(p, end);
    part_next(p);
    part_moved(p);
    part_note_submit(p, false, cut_noted);
}

/* ---- a round ---- */

static struct sync_round *round_of(struct work *w) { return CONTAINER_OF(w, struct sync_round, work); }

static void part_sync(struct sync_round *r, struct sync_part *sp)
{
    char folder[LOG_PATH_MAX];
    for (uint32_t i = sp->files; sp->err == OK && i < sp->files + sp->files_n; i++) sp->err = disk_sync(r->files[i].file->fd);
    if (sp->err == OK && sp->born)
        sp->err = part_note_write(sp->part, &sp->note);
    else if (sp->err == OK && sp->folder) /* the note's own folder is synced with it */
        sp->err = disk_sync_dir(part_path(sp->part, NULL, folder));
}

static void part_sync_one(void *ctx, uint32_t i)
{
    struct sync_round *r = ctx;
    part_sync(r, &r->parts[i]);
}

static void round_run(struct work *w)
{
    struct sync_round *r = round_of(w);
    bool born = false;
    for (uint32_t i = 0; i < r->files_n; i++)
        if (r->files[i].from < r->files[i].to)
            disk_sync_start(r->files[i].file->fd, r->files[i].from, r->files[i].to - r->files[i].from);
    work_spread(r->parts_n, part_sync_one, r);
    for (uint32_t i = 0; i < r->parts_n; i++) born |= r->parts[i].born;
    enum err e = born ? disk_sync_dir(r->shard->store->dir) : OK;
    for (uint32_t i = 0; e != OK && i < r->parts_n; i++)
        if (r->parts[i].born && r->parts[i].err == OK)
            r->parts[i].err = e;
}

static void round_part_done(struct sync_round *r, struct sync_part *sp)
{
    struct part *p = sp->part;
    p->rounding = false;
    if (!p->gone && sp->err != OK && !p->suspect) {
        sync_failed(p, sp->err);
    } else if (!p->gone && sp->err == OK && !p->suspect) {
        p->durable = MAX(p->durable, sp->end);
        p->gaps = false;
        p->names_synced = sp->names;
        p->born = p->born && !sp->born;
        for (uint32_t i = sp->files; i < sp->files + sp->files_n; i++) {
            struct seg *s = seg_by_base(p, r->files[i].seg);
            if (!s || s->file != r->files[i].file)
                continue;
            s->durable = MAX(s->durable, r->files[i].to);
            s->emptied = false;
            if (s->cut_late)
                sync_cut(p, s);
        }
        sync_settle(p);
        part_moved(p);
        p->shard->changed = true;
    }
    part_unpin(p);
}

static void round_count(struct sync_round *r)
{
    struct log_counters *c = &r->shard->counters;
    uint64_t ns = mono_ns() - r->began_ns;
    uint32_t i = 0;
    while (i + 1 < COUNT_OF(c->sync_rounds_us) && ns / 1000 > 1ull << i) i++;
    counter_inc(&c->sync_rounds);
    counter_add(&c->synced_files, r->files_n);
    counter_add(&c->sync_ns, ns);
    counter_inc(&c->sync_rounds_us[i]);
}

static void round_done(struct work *w)
{
    struct sync_round *r = round_of(w);
    struct log_shard *s = r->shard;
    round_count(r);
    for (uint32_t i = 0; i < r->parts_n; i++) round_part_done(r, &r->parts[i]);
    for (uint32_t i = 0; i < r->files_n; i++) segfile_unref(r->files[i].file);
    r->busy = false;
    segfiles_limit(s); /* what could not be closed before it was durable */
    shard_finished(s);
    shard_end(s);
}

static bool round_file(struct sync_round *r, struct part *p, struct seg *s)
{
    if (seg_open(p, s, false) != OK)
        return false;
    ARRAY_GROW(MEM_PART, r->files, r->files_n, r->files_cap);
    r->files[r->files_n++] = (struct sync_file){p, segfile_ref(s->file), s->base, s->durable, s->bytes};
    s->written_back = s->bytes;
    s->cut_late = false;
    return true;
}

static void round_part(struct sync_round *r, struct part *p)
{
    list_del(&p->wait_link);
    list_del(&p->force_link);
    if (!part_dirty(p)) {
        if (p->log)
            sync_settle(p);
        return;
    }
    struct sync_part sp = {.part = p, .end = p->written, .files = r->files_n, .names = p->names_made, .born = p->born};
    sp.folder = p->names_made != p->names_synced;
    sp.note = part_note_of(p);
    for (uint32_t i = p->log->segs_n; i-- > 0;) {
        struct seg *s = &p->log->segs[i];
        bool whole = s->durable == s->bytes && !s->emptied;
        if (whole && s->base < p->durable)
            break;
        if (whole)
            continue;
        if (!round_file(r, p, s)) {
            sp.err = ERR_IO;
            break;
        }
    }
    sp.files_n = r->files_n - sp.files;
    ARRAY_GROW(MEM_PART, r->parts, r->parts_n, r->parts_cap);
    r->parts[r->parts_n++] = sp;
    p->rounding = true;
    p->pins++;
}

/* How many that nobody waits for go into this round: few where others wait, or will soon, for each makes the round longer. */
static uint32_t forced_allowed(const struct log_shard *s)
{
    if (s->state != SHARD_RUNS)
        return SYNC_FORCED_STOP;
    return s->waited_ms && loop_now_ms(s->loop) - s->waited_ms < SYNC_QUIET_MS ? SYNC_FORCED_FEW : SYNC_FORCED_MAX;
}

void sync_start(struct log_shard *s)
{
    struct sync_round *r = &s->round;
    if (r->busy || (list_empty(&s->waits) && list_empty(&s->forces)))
        return;
    r->files_n = r->parts_n = 0;
    if (!list_empty(&s->waits))
        s->waited_ms = loop_now_ms(s->loop);
    while (!list_empty(&s->waits)) round_part(r, CONTAINER_OF(s->waits.next, struct part, wait_link));
    uint32_t forced_max = forced_allowed(s);
    for (uint32_t n = 0; n < forced_max && !list_empty(&s->forces);) {
        uint32_t before = r->parts_n;
        round_part(r, CONTAINER_OF(s->forces.next, struct part, force_link));
        n += r->parts_n - before;
    }
    if (r->parts_n == 0)
        return;
    r->busy = true;
    r->shard = s;
    r->began_ns = mono_ns();
    r->work.run = round_run;
    r->work.done = round_done;
    work_submit(s->loop, &r->work);
}

/* ---- early write-back, of what nobody waits for ---- */

static void back_run(struct work *w)
{
    struct write_back *b = CONTAINER_OF(w, struct write_back, work);
    for (uint32_t i = 0; i < b->now_n; i++) disk_sync_start(b->now[i].file->fd, b->now[i].from, b->now[i].n);
}

static void back_submit(struct log_shard *s)
{
    struct write_back *b = &s->back;
    memcpy(b->now, b->todo, b->todo_n * sizeof b->todo[0]);
    b->now_n = b->todo_n;
    b->todo_n = 0;
    b->busy = true;
    s->jobs++;
    work_submit(s->loop, &b->work);
}

static void back_done(struct work *w)
{
    struct write_back *b = CONTAINER_OF(w, struct write_back, work);
    struct log_shard *s = CONTAINER_OF(b, struct log_shard, back);
    for (uint32_t i = 0; i < b->now_n; i++) segfile_unref(b->now[i].file);
    b->busy = false;
    if (b->todo_n)
        back_submit(s);
    shard_job_over(s);
}

void write_back(struct part *p, struct seg *s)
{
    struct write_back *b = &p->shard->back;
    if (b->todo_n == WRITE_BACK_FILES)
        return; /* with the next bytes, then */
    b->todo[b->todo_n].file = segfile_ref(s->file);
    b->todo[b->todo_n].from = s->written_back;
    b->todo[b->todo_n++].n = s->bytes - s->written_back;
    s->written_back = s->bytes;
    if (b->busy)
        return; /* the pool reads the work; it is submitted again when it is done */
    b->work.run = back_run;
    b->work.done = back_done;
    back_submit(p->shard);
}
