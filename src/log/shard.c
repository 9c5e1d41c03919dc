/* shard.c - one loop's part of the log: the end of a turn, timers, checkpoints, removals, free space, the stop.
 *
 * At the end of a turn in which something happened: what was appended is written, a sync round begins if somebody waits, finished appends
 * are answered, watches are told. In this order the device works while answers are written.
 *
 *     RUNS --log_shard_stop()--> SYNCS --all is durable, no work is on its way--> NOTES --checkpoint written--> STOPPED
 *
 * Removals take time (a large file's blocks are given back one by one), so they happen in the pool, after their delay; what
 * waits when the shard stops is removed then.
 */
#include "log_int.h"

#include <stdio.h>

#define SHARD_OF(w, member) CONTAINER_OF(w, struct log_shard, member)

struct removal {
    struct list link;
    struct work work;
    struct log_shard *shard;
    uint64_t due_ms;
    bool folder;
    enum err err;
    char *path;                        /* owned */
};

void shard_end(struct log_shard *s)
{
    if (s->loop) /* a loader has none */
        loop_defer(s->loop, &s->end);
}

static void stop_on(struct log_shard *s);

void shard_job_over(struct log_shard *s)
{
    MUST(s->jobs > 0);
    s->jobs--;
    if (s->state != SHARD_RUNS)
        shard_end(s);
}

/* ---- the end of a turn ---- */

static void list_take(struct list *from, struct list *to)
{
    list_init(to);
    while (!list_empty(from)) {
        struct list *e = from->next;
        list_del(e);
        list_push(to, e);
    }
}

void shard_finished(struct log_shard *s)
{
    struct list batch;
    list_take(&s->finished, &batch);
    while (!list_empty(&batch)) {
        struct append *a = CONTAINER_OF(batch.next, struct append, link);
        list_del(&a->link);
        a->done(a);
    }
    list_take(&s->flushed, &batch);
    while (!list_empty(&batch)) {
        struct part_flush *f = CONTAINER_OF(batch.next, struct part_flush, link);
        list_del(&f->link);
        f->done(f, (enum kafka_error)f->until);
    }
}

static void watches_tell(struct part *p)
{
    struct list batch;
    list_take(&p->watches, &batch);
    while (!list_empty(&batch)) {
        struct part_watch *w = CONTAINER_OF(batch.next, struct part_watch, link);
        list_del(&w->link);
        w->fn(w);
    }
}

static void moved_tell(struct log_shard *s)
{
    struct list batch;
    list_take(&s->moved, &batch);
    while (!list_empty(&batch)) {
        struct part *p = CONTAINER_OF(batch.next, struct part, moved_link);
        list_del(&p->moved_link);
        p->pins++;
        watches_tell(p);
        part_unpin(p);
    }
}

static void space_arm(struct log_shard *s)
{
    if ((s->space_due || s->full) && !s->space_busy && !timer_is_set(&s->space_timer) && s->state == SHARD_RUNS)
        timer_set(s->loop, &s->space_timer, SPACE_MS);
}

/* All that was forced is durable? */
static void checkpoint_step(struct log_shard *s)
{
    if (s->checkpoint_wanted && list_empty(&s->forces) && !s->round.busy)
        shard_checkpoint_go(s);
}

static void end_run(struct task *t)
{
    struct log_shard *s = SHARD_OF(t, end);
    parts_write(s);
    checkpoint_step(s); /* where somebody always waits, the next round begins with the end of the last */
    sync_start(s);
    shard_finished(s);
    moved_tell(s);
    space_arm(s);
    if (s->unnoted >= CHECKPOINT_AFTER_BYTES && !s->checkpoint_wanted && !s->checkpoint_busy && s->state == SHARD_RUNS)
        shard_checkpoint(s);
    checkpoint_step(s);
    if (s->state != SHARD_RUNS)
        stop_on(s);
}

/* ---- free space ---- */

void shard_full(struct log_shard *s, uint64_t free_bytes)
{
    if (s->full)
        return;
    s->full = true;
    counter_set(&s->counters.disk_full, 1);
    if (!__atomic_exchange_n(&s->store->full, true, __ATOMIC_RELAXED))
        log_error("log", "%s: the disk is full (%llu MiB are free, %llu are kept in reserve): records are refused, reading goes on. Free space, or shorten retention",
                  s->store->dir, (unsigned long long)(free_bytes >> 20), (unsigned long long)(s->store->conf.reserve_bytes >> 20));
    space_arm(s);
}

static void space_judge(struct log_shard *s)
{
    s->room = s->space_err == OK ? s->space_free : UINT64_MAX;
    s->looked_ms = loop_now_ms(s->loop);
    if (s->space_err != OK)
        return; /* nothing can be said: a write will tell */
    if (s->space_free < s->store->conf.reserve_bytes) {
        s->space_short = true;
        shard_full(s, s->space_free);
        return;
    }
    bool was_short = s->space_short;
    s->space_short = false;
    if (s->full) {
        s->full = false;
        counter_set(&s->counters.disk_full, 0);
        if (__atomic_exchange_n(&s->store->full, false, __ATOMIC_RELAXED))
            log_info("log", "%s: there is room again (%llu MiB): records are taken", s->store->dir, (unsigned long long)(s->space_free >> 20));
    }
    if (was_short && s->on_room) /* not where writes fail for want of room that is there as far as one can see: that would be tried for ever */
        s->on_room(s->on_room_ctx);
}

static void space_run(struct work *w)
{
    struct log_shard *s = SHARD_OF(w, space);
    uint64_t total;
    s->space_err = disk_space(s->store->dir, &s->space_free, &total);
}

static void space_done(struct work *w)
{
    struct log_shard *s = SHARD_OF(w, space);
    s->space_busy = false;
    space_judge(s);
    space_arm(s);
    shard_job_over(s);
}

static void space_look(struct timer *t)
{
    struct log_shard *s = SHARD_OF(t, space_timer);
    s->space_busy = true;
    s->space_due = false;
    s->jobs++;
    work_submit(s->loop, &s->space);
}

/* ---- removals ---- */

static void removal_run(struct work *w)
{
    struct removal *r = CONTAINER_OF(w, struct removal, work);
    r->err = r->folder ? folder_remove(r->path) : disk_remove(r->path);
}

static void removal_done(struct work *w)
{
    struct removal *r = CONTAINER_OF(w, struct removal, work);
    struct log_shard *s = r->shard;
    if (r->err != OK && r->err != ERR_NOTFOUND)
        log_warn("log", "%s can't be removed: %s; it is tried again at the next start", r->path, err_text(r->err));
    mem_free(r->path);
    mem_free(r);
    shard_job_over(s);
}

static void removals_due(struct log_shard *s, uint64_t now_ms)
{
    while (!list_empty(&s->removals)) {
        struct removal *r = CONTAINER_OF(s->removals.next, struct removal, link);
        if (r->due_ms > now_ms) {
            timer_set(s->loop, &s->removal_timer, r->due_ms - now_ms);
            return;
        }
        list_del(&r->link);
        s->jobs++;
        work_submit(s->loop, &r->work);
    }
}

static void removals_fire(struct timer *t)
{
    struct log_shard *s = SHARD_OF(t, removal_timer);
    removals_due(s, loop_now_ms(s->loop));
}

void shard_remove_later(struct log_shard *s, const char *path, uint64_t in_ms, bool folder)
{
    struct removal *r = mem_new(MEM_PART, sizeof *r);
    *r = (struct removal){.work = {.run = removal_run, .done = removal_done, .slow = true}, .shard = s, .due_ms = loop_now_ms(s->loop) + in_ms, .folder = folder};
    r->path = mem_strdup(MEM_PART, path);
    struct list *after = s->removals.prev;
    while (after != &s->removals && CONTAINER_OF(after, struct removal, link)->due_ms > r->due_ms) after = after->prev;
    list_push_front(after, &r->link);
    if (s->state != SHARD_RUNS)
        removals_due(s, UINT64_MAX);
    else if (s->removals.next == &r->link)
        timer_set(s->loop, &s->removal_timer, in_ms);
}

/* ---- checkpoints ---- */

static const char *checkpoint_path(const struct log_shard *s, char out[LOG_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "shard-%u.checkpoint", s->index);
    return store_path(s->store, name, out);
}

static void checkpoint_run(struct work *w)
{
    struct log_shard *s = SHARD_OF(w, checkpoint);
    char path[LOG_PATH_MAX];
    s->checkpoint_err = file_replace(checkpoint_path(s, path), s->checkpoint_bytes.p, s->checkpoint_bytes.n, 0600);
}

static void checkpoint_done(struct work *w)
{
    struct log_shard *s = SHARD_OF(w, checkpoint);
    char path[LOG_PATH_MAX];
    s->checkpoint_busy = false;
    buf_free(&s->checkpoint_bytes);
    if (s->checkpoint_err == OK) {
        LIST_FOREACH(it, &s->parts)
        {
            struct part *p = CONTAINER_OF(it, struct part, all);
            p->noted = p->noting;
        }
    } else {
        s->changed = true;
        log_warn("log", "%s can't be written: %s; after a crash more has to be verified", checkpoint_path(s, path), err_text(s->checkpoint_err));
    }
    if (s->state == SHARD_NOTES) {
        if (s->checkpoint_err != OK)
            __atomic_add_fetch(&s->store->failed, 1, __ATOMIC_RELAXED);
        s->state = SHARD_STOPPED;
    }
    shard_job_over(s);
}

/* All that was forced is durable: it is noted. */
void shard_checkpoint_go(struct log_shard *s)
{
    if (s->checkpoint_busy)
        return;
    s->checkpoint_wanted = s->changed = false;
    s->unnoted = 0;
    checkpoint_begin(&s->checkpoint_bytes, s->store->generation, (uint32_t)store_epoch(s->store));
    LIST_FOREACH(it, &s->parts)
    {
        struct part *p = CONTAINER_OF(it, struct part, all);
        struct stored st;
        p->noting = p->durable;
        if (p->state == PART_EMPTY)
            continue;
        part_describe(p, &st);
        checkpoint_part(&s->checkpoint_bytes, p->name, &st);
    }
    checkpoint_end(&s->checkpoint_bytes);
    s->checkpoint_busy = true;
    s->jobs++;
    work_submit(s->loop, &s->checkpoint);
}

void shard_checkpoint(struct log_shard *s)
{
    LIST_FOREACH(it, &s->parts)
    {
        struct part *p = CONTAINER_OF(it, struct part, all);
        if (part_dirty(p))
            sync_force(p);
        if (p->state == PART_LOADED && !p->offline && p->log->since_snapshot >= SNAPSHOT_BYTES && list_empty(&p->write_link))
            snapshot_save(p);
    }
    s->checkpoint_wanted = true;
    shard_end(s);
}

static void checkpoint_fire(struct timer *t)
{
    struct log_shard *s = SHARD_OF(t, checkpoint_timer);
    if (s->changed)
        shard_checkpoint(s);
    timer_set(s->loop, t, s->store->conf.checkpoint_ms);
}

#define CHECKPOINT_SOON_MS 500

void shard_checkpoint_soon(struct log_shard *s)
{
    if (s->changed && !s->checkpoint_wanted && !s->checkpoint_busy && s->checkpoint_timer.due_ms > loop_now_ms(s->loop) + CHECKPOINT_SOON_MS)
        timer_set(s->loop, &s->checkpoint_timer, CHECKPOINT_SOON_MS);
}

/* ---- housekeeping: some partitions a turn, so that many are no pause ---- */

#define HOUSEKEPT_A_TURN 256
#define AGE_FIRST_MS 30000u            /* after the start, as in Kafka */

static void housekeeping_fire(struct timer *t)
{
    struct log_shard *s = SHARD_OF(t, housekeeping_timer);
    int64_t now_ms = (int64_t)(wall_ns() / 1000000);
    if (!s->housekept) {
        s->housekept = s->parts.next;
        s->by_age = loop_now_ms(s->loop) >= s->age_due_ms;
        if (s->by_age)
            s->age_due_ms = loop_now_ms(s->loop) + s->store->conf.age_look_ms;
    }
    for (uint32_t n = 0; n < HOUSEKEPT_A_TURN && s->housekept != &s->parts; n++) {
        struct part *p = CONTAINER_OF(s->housekept, struct part, all);
        s->housekept = p->all.next;
        part_housekeep(p, now_ms);
    }
    bool over = s->housekept == &s->parts;
    if (over)
        s->housekept = NULL;
    timer_set(s->loop, t, over ? s->store->conf.housekeeping_ms : 1);
}

/* ---- life ---- */

struct log_shard *log_shard_new(struct log_store *l, struct loop *loop, uint32_t index)
{
    struct log_shard *s = mem_new(MEM_PART, sizeof *s);
    s->store = l;
    s->loop = loop;
    s->index = index;
    struct list *lists[] = {&s->parts, &s->writes, &s->waits, &s->forces, &s->moved, &s->finished, &s->flushed, &s->lru, &s->removals};
    for (size_t i = 0; i < COUNT_OF(lists); i++) list_init(lists[i]);
    task_init(&s->end, end_run);
    timer_init(&s->checkpoint_timer, checkpoint_fire);
    timer_init(&s->housekeeping_timer, housekeeping_fire);
    timer_init(&s->space_timer, space_look);
    timer_init(&s->removal_timer, removals_fire);
    s->checkpoint = (struct work){.run = checkpoint_run, .done = checkpoint_done};
    s->space = (struct work){.run = space_run, .done = space_done};
    s->iov = mem_new(MEM_PART, WRITE_IOV * sizeof *s->iov);
    s->window = mem_new(MEM_PART, WALK_BYTES);
    timer_set(loop, &s->checkpoint_timer, l->conf.checkpoint_ms);
    timer_set(loop, &s->housekeeping_timer, l->conf.housekeeping_ms);
    s->age_due_ms = loop_now_ms(loop) + MIN(l->conf.age_look_ms, AGE_FIRST_MS);
    __atomic_add_fetch(&l->shards, 1, __ATOMIC_RELAXED);
    uint64_t total;
    s->space_err = disk_space(l->dir, &s->space_free, &total);
    space_judge(s);
    return s;
}

void log_shard_on_failure(struct log_shard *s, void (*fn)(void *ctx, struct part *p), void *ctx)
{
    s->on_failure = fn;
    s->on_failure_ctx = ctx;
}

void log_shard_on_room(struct log_shard *s, void (*fn)(void *ctx), void *ctx)
{
    s->on_room = fn;
    s->on_room_ctx = ctx;
}

const struct log_counters *log_shard_counters(const struct log_shard *s) { return &s->counters; }

/* What a clean start wants beside the log itself. */
static void parts_settle(struct log_shard *s)
{
    LIST_FOREACH(it, &s->parts)
    {
        struct part *p = CONTAINER_OF(it, struct part, all);
        if (p->state != PART_LOADED || p->offline)
            continue;
        if (p->log->index_dirty) {
            index_seal(&p->log->index, seg_last(p));
            if (index_save(p, &p->log->index, seg_last(p)->base) != OK)
                log_warn("log", "%s: the index can't be written; the next start makes it anew", p->name);
            p->log->index_dirty = false;
        }
        snapshot_save(p);
    }
}

/* The next step of a stop, when nothing is on its way. */
static void stop_on(struct log_shard *s)
{
    if (s->round.busy || s->jobs || !list_empty(&s->writes) || !list_empty(&s->waits) || !list_empty(&s->forces) || !list_empty(&s->finished) ||
        !list_empty(&s->moved))
        return;
    if (s->state == SHARD_SYNCS) {
        s->state = SHARD_NOTES;
        s->checkpoint_wanted = true;
        parts_settle(s);
        if (s->jobs == 0)
            shard_end(s);
        return;
    }
    if (s->state != SHARD_STOPPED) {
        if (!s->checkpoint_busy)
            shard_checkpoint_go(s);
        return;
    }
    void (*stopped)(void *) = s->stopped;
    if (!stopped)
        return;
    s->stopped = NULL;
    LIST_FOREACH(it, &s->parts)
    {
        struct part *p = CONTAINER_OF(it, struct part, all);
        for (uint32_t i = 0; p->log && i < p->log->segs_n; i++) seg_close(p, &p->log->segs[i]);
    }
    stopped(s->stopped_ctx);
}

void log_shard_stop(struct log_shard *s, void (*done)(void *ctx), void *ctx)
{
    MUST(s->state == SHARD_RUNS);
    s->state = SHARD_SYNCS;
    s->stopped = done;
    s->stopped_ctx = ctx;
    timer_clear(&s->checkpoint_timer);
    timer_clear(&s->housekeeping_timer);
    timer_clear(&s->space_timer);
    timer_clear(&s->removal_timer);
    if (s->cleaning)
        __atomic_store_n(&s->cleaning->stop, true, __ATOMIC_RELAXED);
    removals_due(s, UINT64_MAX);
    parts_write(s);
    LIST_FOREACH(it, &s->parts)
    {
        struct part *p = CONTAINER_OF(it, struct part, all);
        if (part_dirty(p))
            sync_force(p);
    }
    shard_end(s);
}

void log_shard_free(struct log_shard *s)
{
    if (!s)
        return;
    MUST(s->state == SHARD_STOPPED && !s->stopped && s->jobs == 0);
    LIST_FOREACH(it, &s->parts) part_free(CONTAINER_OF(it, struct part, all));
    list_del(&s->end.link);
    __atomic_sub_fetch(&s->store->shards, 1, __ATOMIC_RELAXED);
    mem_free(s->round.files);
    mem_free(s->round.parts);
    mem_free(s->iov);
    mem_free(s->window);
    mem_free(s);
}
