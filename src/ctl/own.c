/* own.c - the engine of one node: opening and closing, what comes in, what is answered.
 *
 * A call waits in one of four lists: reads (answered at the end of the turn), past (reads of history, by a job), changes (by a commit), keeps (of a lease that a commit may end). Nothing is answered from
 * inside ctl_submit(): all happens in own_turn_run(), at the end of a turn in which something came, or when a job is done (jobs.c).
 */
#include "ctl_int.h"

#define HOUSEKEEPING_MIN_MS 1000
#define HISTORY_SLACK 1000 /* revisions beyond history_revisions that are compacted together */

void own_turn(struct own *o) { loop_defer(o->loop, &o->task); }

void own_done(struct own *o, struct ctl_call *call)
{
    MUST(o->waiting > 0);
    o->waiting--;
    struct past *past = call->priv; /* the answer refers to it, and the call may be gone afterwards */
    counter_inc(&o->ctl.counters.calls);
    if (call->error != CTL_OK) {
        counter_inc(&o->ctl.counters.calls_failed);
        if (call->error == CTL_UNKNOWN) counter_inc(&o->ctl.counters.calls_unknown);
        if (!call->why[0]) call->why = ctl_error_text(call->error);
    }
    call->done(call);
    past_free(o, past);
}

void own_over(struct own *o, struct ctl_call *call, enum ctl_error e, const char *why)
{
    call->error = e;
    call->why = why;
    list_del(&call->link);
    list_push(&o->over, &call->link);
    own_turn(o);
}

static bool own_writes(const struct own *o) { return !o->broken && !o->corrupt; }

void own_submit(struct ctl *c, struct ctl_call *call)
{
    struct own *o = (struct own *)c;
    bool writes = op_writes(&call->op);
    bool full = o->waiting >= o->conf.calls_max && !call->exempt;
    o->waiting++;
    enum ctl_error e = o->closing ? CTL_STOPPED : full ? CTL_TOO_MANY_REQUESTS : call_check(call, o->conf.txn_ops_max, o->conf.request_bytes_max);
    if (e == CTL_OK && writes && !own_writes(o)) {
        own_over(o, call, o->corrupt ? CTL_CORRUPT : CTL_DISK_FAILED, o->why);
        return;
    }
    if (e == CTL_TOO_MANY_REQUESTS) counter_inc(&c->counters.calls_refused);
    if (e != CTL_OK) {
        own_over(o, call, e, ctl_error_text(e));
        return;
    }
    list_push(past_want(o, call) ? &o->past : writes ? &o->changes : &o->reads, &call->link);
    own_turn(o);
}

static void own_read(struct own *o, struct ctl_call *call)
{
    if (past_want(o, call)) { /* what was the present when it came is not any more */
        list_push(&o->past, &call->link);
        return;
    }
    if (call->op.kind == CTL_LEASE_KEEP && lease_is_going(o, call->op.lease.id)) {
        list_push(&o->keeps, &call->link);
        return;
    }
    if (eval_read(o, call, &o->arena)) {
        own_done(o, call);
    } else {
        MUST(past_want(o, call));
        list_push(&o->past, &call->link);
    }
    arena_reset(&o->arena);
}

/* Answers of a batch refer to values: none is forgotten while one is under way. */
void values_trim(struct own *o)
{
    if (o->holds == 0 && kv_pool_trim(&o->pool)) own_turn(o);
}

static void own_turn_run(struct task *t)
{
    struct own *o = CONTAINER_OF(t, struct own, task);
    struct list now;
    list_take(&o->over, &now); /* what their done() submits is for the next turn */
    while (!list_empty(&now)) {
        struct list *first = now.next;
        list_del(first);
        own_done(o, CONTAINER_OF(first, struct ctl_call, link));
    }
    list_take(&o->reads, &now);
    while (!list_empty(&now)) {
        struct list *first = now.next;
        list_del(first);
        own_read(o, CONTAINER_OF(first, struct ctl_call, link));
    }
    watches_turn(o);
    if (o->job.kind != JOB_COMMIT) values_trim(o);
    jobs_turn(o);
}

/* ---- compaction by age and by number ---- */

static void own_compacted(struct ctl_call *call) { CONTAINER_OF(call, struct own, compact_call)->compact_asked = false; }

static void own_compact(struct own *o, int64_t to)
{
    if (o->compact_asked || to <= o->compact || o->closing || !own_writes(o)) return;
    o->compact_asked = true;
    o->compact_call.done = own_compacted;
    o->compact_call.op = (struct ctl_op){.kind = CTL_COMPACT, .compact = to};
    ctl_submit(&o->ctl, &o->compact_call);
}

void own_compact_by_number(struct own *o)
{
    int64_t keep = o->conf.history_revisions;
    if (keep && o->revision - o->compact > keep + MIN(keep, HISTORY_SLACK)) own_compact(o, o->revision - keep);
}

static uint64_t housekeeping_ms(const struct own *o) { return MAX(o->conf.history_ms / 10, HOUSEKEEPING_MIN_MS); }

/* Notes when this revision was, and compacts to the newest of those noted history_ms ago. The wall clock, since it is written down: who sets it forward
 * compacts earlier. */
static void own_housekeeping(struct timer *t)
{
    struct own *o = CONTAINER_OF(t, struct own, housekeeping);
    int64_t wall_s = (int64_t)(wall_ns() / 1000000000), old_s = wall_s - (int64_t)(o->conf.history_ms / 1000), to = 0;
    for (size_t i = 0; i < o->samples_n; i++)
        if (o->samples[i].wall_s <= old_s) to = MAX(to, o->samples[i].revision);
    if (o->samples_n == 0 || o->samples[o->samples_n - 1].revision < o->revision) { /* when it was first seen is what counts */
        if (o->samples_n == SAMPLES_MAX) memmove(o->samples, o->samples + 1, --o->samples_n * sizeof *o->samples);
        o->samples[o->samples_n++] = (struct sample){o->revision, wall_s};
        o->sampling = true;
    }
    own_compact(o, to);
    timer_set(o->loop, t, housekeeping_ms(o));
    own_turn(o);
}

/* ---- status ---- */

static void own_status(const struct ctl *c, struct ctl_status *out)
{
    const struct own *o = (const struct own *)c;
    *out = (struct ctl_status){.revision = o->revision, .compact_revision = o->compact, .bytes = o->bytes, .bytes_used = o->bytes_used,
                               .keys = tree_size(&o->index), .leases = o->leases.n, .watches = o->watches_n, .nospace = o->nospace,
                               .trouble = o->trouble, .why = o->why};
}

/* ---- opening and closing ---- */

void ctl_own_conf_default(struct ctl_own_conf *conf)
{
    *conf = (struct ctl_own_conf){
        .dir = "ctl", .quota_bytes = 256u << 20, .history_revisions = 0, .history_ms = 24ull * 3600 * 1000, .lease_ttl_min_s = 1, .progress_ms = 600000,
        .calls_max = 10000, .watches_max = 100000, .leases_max = 250000, .request_bytes_max = 1536u << 10, .txn_ops_max = 128, .recent_bytes_max = 4u << 20,
        .values_bytes_max = 4u << 20, .value_small_max = 32};
}

static void own_free(struct own *o)
{
    timer_clear(&o->retry);
    timer_clear(&o->idle);
    timer_clear(&o->progress);
    timer_clear(&o->housekeeping);
    list_del(&o->task.link);
    for (struct table_slot *s = NULL; (s = table_next(&o->leases, s));) {
        struct lease *l = s->value;
        timer_clear(&l->timer);
        LIST_FOREACH(it, &l->keys) list_del(it);
        mem_free(l);
    }
    table_fini(&o->leases);
    watches_fini(o);
    tree_free(&o->index);
    kv_pool_fini(&o->pool);
    arena_fini(&o->batch.arena);
    arena_fini(&o->arena);
    if (o->lock_fd >= 0) file_close(o->lock_fd);
    mem_free(o->dir);
    mem_free(o->path);
    mem_free(o);
}

static char *path_in(const char *dir, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    return buf_take(&b, NULL);
}

static void own_close(struct ctl *c, void (*done)(void *ctx), void *ctx)
{
    struct own *o = (struct own *)c;
    MUST(!o->closing);
    o->closing = true;
    o->closed = done;
    o->closed_ctx = ctx;
    struct list *waits[] = {&o->reads, &o->past, &o->changes, &o->keeps};
    for (size_t i = 0; i < COUNT_OF(waits); i++)
        while (!list_empty(waits[i])) own_over(o, CONTAINER_OF(waits[i]->next, struct ctl_call, link), CTL_STOPPED, ctl_error_text(CTL_STOPPED));
    watches_end(o, CTL_STOPPED, ctl_error_text(CTL_STOPPED));
    own_turn(o);
}

void own_gone(struct own *o)
{
    void (*closed)(void *ctx) = o->closed;
    void *ctx = o->closed_ctx;
    own_free(o);
    closed(ctx);
}

static const struct ctl_engine own_engine = {
    .submit = own_submit, .watch_start = own_watch_start, .watch_resume = own_watch_resume, .watch_progress = own_watch_progress,
    .watch_stop = own_watch_stop, .status = own_status, .close = own_close,
};

static void own_lists_init(struct own *o)
{
    list_init(&o->reads);
    list_init(&o->past);
    list_init(&o->changes);
    list_init(&o->keeps);
    list_init(&o->over);
    batch_init(&o->batch);
    arena_init(&o->arena, MEM_CTL, 16384);
    task_init(&o->task, own_turn_run);
    timer_init(&o->housekeeping, own_housekeeping);
    watches_init(o);
    job_init(o);
}

/* After the folder has been read: time begins. */
static void own_begin(struct own *o)
{
    batch_reset(o);
    o->recent_from = o->revision + 1;
    for (struct table_slot *s = NULL; (s = table_next(&o->leases, s));) lease_start(s->value);
    o->nospace = o->conf.quota_bytes && o->bytes_used >= o->conf.quota_bytes;
    if (o->conf.history_ms) timer_set(o->loop, &o->housekeeping, housekeeping_ms(o));
    if (o->conf.progress_ms) timer_set(o->loop, &o->progress, o->conf.progress_ms);
    own_compact_by_number(o);
    own_turn(o);
}

/* Makes the folder, and its name durable. */
static enum err folder_make(const char *dir)
{
    enum err e = disk_make_dir(dir);
    const char *slash = strrchr(dir, '/');
    if (e != OK || !slash) return e == OK ? disk_sync_dir(".") : e;
    char *parent = mem_strndup(MEM_CTL, dir, MAX((size_t)(slash - dir), 1));
    e = disk_sync_dir(parent);
    mem_free(parent);
    return e;
}

enum err ctl_own_open(const struct ctl_own_conf *conf, struct loop *loop, struct ctl **out, struct buf *why)
{
    struct own *o = mem_new(MEM_CTL, sizeof *o);
    o->ctl.engine = &own_engine;
    o->conf = *conf;
    o->loop = loop;
    o->lock_fd = -1;
    o->revision = 1; /* as etcd's: the first change makes 2 */
    o->dir = mem_strdup(MEM_CTL, conf->dir);
    o->conf.dir = o->dir;
    o->path = path_in(o->dir, "ctl.db");
    kv_pool_init(&o->pool, conf->value_small_max, conf->values_bytes_max);
    own_lists_init(o);
    char *lock = path_in(o->dir, "ctl.lock");
    enum err e = folder_make(o->dir);
    if (e == OK) e = disk_lock(lock, &o->lock_fd);
    if (e == ERR_INUSE) buf_printf(why, "the control store in %s is in use by another process", o->dir);
    else if (e != OK) buf_printf(why, "the folder of the control store, %s, can't be used: %s", o->dir, err_text(e));
    else e = db_open(o, why);
    mem_free(lock);
    if (e != OK) {
        own_free(o);
        return e;
    }
    own_begin(o);
    *out = &o->ctl;
    return OK;
}
