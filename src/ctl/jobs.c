/* jobs.c - the one job that has the database: which comes next, and what follows when it is done.
 *
 *     jobs_turn() -> job_choose() -> a commit: the waiting changes are evaluated -> pool: db_*() -> job_done() -> ... -> jobs_turn()
 *
 * Commits and the others take turns, so neither starves; the others are reads of the past, history for watches, and what keeps the database small.
 */
#include "ctl_int.h"

#include <stdio.h>

#define REST_MS 1000 /* after upkeep that failed */
#define RELEASE_BYTES (256u << 10) /* of commits and values read, before their memory is worth giving back */
#define RELEASE_MS 1000 /* without either: then it is */

static void job_run(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    struct own *o = CONTAINER_OF(j, struct own, job);
    switch (j->kind) {
    case JOB_COMMIT: db_commit(o, j); break;
    case JOB_PAST: db_past(o, j); break;
    case JOB_SLICE: db_slice(o, j); break;
    case JOB_CLEAN: db_clean(o, j); break;
    case JOB_VACUUM: db_vacuum(o, j); break;
    case JOB_CHECKPOINT: db_checkpoint(o, j); break;
    case JOB_SAMPLE: db_sample(o, j); break;
    case JOB_RELEASE:
        db_release(o);
        mem_trim();
        break;
    case JOB_CLOSE: db_close(o->db); break;
    case JOB_NONE: MUST(false);
    }
}

static void job_start(struct own *o, enum job_kind kind)
{
    struct job *j = &o->job;
    j->kind = kind;
    j->error = CTL_OK;
    j->why[0] = '\0';
    j->began_ns = mono_ns();
    work_submit(o->loop, &j->work);
}

/* ---- commits ---- */

static void calls_answer(struct own *o, struct list *calls)
{
    while (!list_empty(calls)) {
        struct ctl_call *call = CONTAINER_OF(calls->next, struct ctl_call, link);
        list_del(&call->link);
        own_done(o, call);
    }
}

/* Whether the batch holds something to be committed. */
static bool batch_changes(const struct own *o)
{
    const struct batch *b = &o->batch;
    return b->changes.n || b->compact != o->compact || !list_empty(&b->granted) || !list_empty(&b->revoked);
}

/* Evaluates what waits. A call that needs something from disk goes and gets it; one that needs this batch behind it ends the batch. */
static void batch_fill(struct own *o)
{
    struct batch *b = &o->batch;
    while (!list_empty(&o->changes) && b->calls_n < BATCH_CALLS_MAX && b->bytes < BATCH_BYTES_MAX) {
        struct ctl_call *call = CONTAINER_OF(o->changes.next, struct ctl_call, link);
        if (!eval_change(o, call)) {
            if (!past_want(o, call)) return;
            list_del(&call->link);
            list_push(&o->past, &call->link);
            own_turn(o); /* this may have been the last thing to be looked at */
            continue;
        }
        list_del(&call->link);
        list_push(&b->calls, &call->link);
        b->calls_n++;
    }
}

/* False: nothing is to be committed. What only looked (comparisons that failed, deletions of nothing) is answered at once. */
static bool commit_start(struct own *o)
{
    if (o->broken || o->corrupt) { /* also for those that came before it was known */
        while (!list_empty(&o->changes))
            own_over(o, CONTAINER_OF(o->changes.next, struct ctl_call, link), o->corrupt ? CTL_CORRUPT : CTL_DISK_FAILED, o->why);
        return false;
    }
    while (!list_empty(&o->changes)) {
        batch_fill(o);
        if (batch_changes(o)) {
            job_start(o, JOB_COMMIT);
            return true;
        }
        struct list calls;
        list_take(&o->batch.calls, &calls);
        calls_answer(o, &calls);
        batch_reset(o);
    }
    return false;
}

static void trouble_ends(struct own *o)
{
    if (o->trouble == CTL_OK || o->broken || o->corrupt) return;
    log_info("ctl", "the control store takes changes again");
    o->trouble = CTL_OK;
    o->why[0] = '\0';
}

static void trouble_begins(struct own *o, const struct job *j)
{
    if (o->trouble != j->error) log_error("ctl", "%s", j->why);
    o->trouble = j->error;
    snprintf(o->why, sizeof o->why, "%s", j->why);
}

static void commit_count(struct own *o, const struct job *j)
{
    struct ctl_counters *c = &o->ctl.counters;
    uint64_t us = (mono_ns() - j->began_ns) / 1000;
    size_t i = 0;
    while (i + 1 < COUNT_OF(c->commit_us) && us > 1ull << i) i++;
    counter_inc(&c->commit_us[i]);
    counter_inc(&c->commits);
    counter_add(&c->commit_calls, o->batch.calls_n);
}

/* A burst leaves memory behind that is free, in the database's cache and between what stays, and values and events that nobody may ask for. When it is quiet the system has it back: a store of
 * a hundred thousand keys that were written in a second is as small as one that was just opened. */
static void release_later(struct own *o, size_t bytes)
{
    o->busy_ms = loop_now_ms(o->loop);
    o->unreleased += bytes;
    if (o->unreleased >= RELEASE_BYTES && !o->idle_set) {
        o->idle_set = true;
        timer_set(o->loop, &o->idle, RELEASE_MS);
    }
}

static void idle_look(struct timer *t)
{
    struct own *o = CONTAINER_OF(t, struct own, idle);
    uint64_t quiet_ms = loop_now_ms(o->loop) - o->busy_ms;
    o->idle_set = quiet_ms < RELEASE_MS;
    if (o->idle_set) {
        timer_set(o->loop, t, RELEASE_MS - quiet_ms);
        return;
    }
    o->release = true;
    own_turn(o);
}

static void commit_failed(struct own *o, struct job *j, struct list *calls)
{
    counter_inc(&o->ctl.counters.commits_failed);
    trouble_begins(o, j);
    batch_drop(o);
    LIST_FOREACH(it, calls) {
        struct ctl_call *call = CONTAINER_OF(it, struct ctl_call, link);
        call->error = j->error;
        call->why = j->why;
        call->revision = o->revision;
    }
    calls_answer(o, calls);
    batch_reset(o);
}

/* The alarm: at the quota; it ends when a sixteenth is free again. */
static void quota_look(struct own *o)
{
    uint64_t quota = o->conf.quota_bytes;
    if (!quota) return;
    if (!o->nospace && o->bytes_used >= quota) {
        log_warn("ctl", "the control store in %s holds %llu bytes, its quota is %llu: puts are refused until keys are deleted and history is compacted", o->dir,
                 (unsigned long long)o->bytes_used, (unsigned long long)quota);
        o->nospace = true;
    } else if (o->nospace && o->bytes_used < quota - quota / 16) {
        log_info("ctl", "the control store in %s is below its quota again", o->dir);
        o->nospace = false;
    }
}

static void commit_done(struct own *o, struct job *j)
{
    struct list calls;
    list_take(&o->batch.calls, &calls);
    if (j->error != CTL_OK) {
        commit_failed(o, j, &calls);
        return;
    }
    trouble_ends(o);
    commit_count(o, j);
    release_later(o, o->batch.bytes);
    bool compacts = o->batch.compact != o->compact;
    batch_apply(o);
    if (compacts) o->clean_at = 0;
    calls_answer(o, &calls);
    watches_told(o);
    batch_reset(o);
    own_compact_by_number(o);
}

/* ---- the others ---- */

static void rest(struct own *o)
{
    o->resting = true;
    timer_set(o->loop, &o->retry, REST_MS);
}

static void rested(struct timer *t)
{
    struct own *o = CONTAINER_OF(t, struct own, retry);
    o->resting = false;
    own_turn(o);
}

/* An error of reading or of upkeep. Damage ends the writing; everything else is tried again. */
static void job_failed(struct own *o, struct job *j)
{
    if (j->kind == JOB_COMMIT) return; /* says it itself */
    log_error("ctl", "%s", j->why);
    if (o->broken || o->corrupt) {
        o->trouble = j->error;
        snprintf(o->why, sizeof o->why, "%s", j->why);
    }
    rest(o);
}

/* Whether ranges are still to be read: values alone are quick. */
static bool past_has_ranges(const struct past *p)
{
    for (; p; p = p->next)
        if (p->range && p->count < 0) return true;
    return false;
}

static bool past_is_read(const struct past *p)
{
    for (; p; p = p->next)
        if (p->count < 0) return false;
    return true;
}

static void past_start(struct own *o)
{
    for (size_t n = 0, ranges = 0; n < VALUES_CALLS_MAX && ranges < PAST_CALLS_MAX && !list_empty(&o->past); n++) {
        struct list *first = o->past.next;
        if (past_has_ranges(CONTAINER_OF(first, struct ctl_call, link)->priv)) {
            counter_inc(&o->ctl.counters.past_reads);
            ranges++;
        }
        list_del(first);
        list_push(&o->job.calls, first);
    }
    job_start(o, JOB_PAST);
}

/* Moves what was read for the call to where it belongs. False: the row of a present key is missing. */
static bool values_take(struct own *o, struct past *p)
{
    bool sound = true;
    size_t rounds = 0;
    for (; p; p = p->next) {
        if (p->range || !p->values) continue;
        for (size_t i = 0; i < p->at; i++) {
            struct kv *k = p->kvs[i];
            if (p->values[i]) kv_warm(&o->pool, k, p->values[i]);
            else sound &= !(kv_is(k, KV_INDEXED) && kv_is_cold(k));
            p->values[i] = NULL;
        }
        if (++rounds < VALUES_ROUNDS || p->holds) continue;
        p->holds = true;
        o->holds++;
    }
    return sound;
}

/* A call that was read for goes on; one whose values are not all there yet waits for the next job, before the others. */
static void past_answer(struct own *o, const struct job *j, struct ctl_call *call, struct list *unfinished)
{
    list_del(&call->link);
    if (j->error != CTL_OK || o->closing)
        own_over(o, call, o->closing ? CTL_STOPPED : j->error, o->closing ? ctl_error_text(CTL_STOPPED) : j->why); /* answered before the next job */
    else if (!past_is_read(call->priv)) list_push(unfinished, &call->link);
    else list_push(op_writes(&call->op) ? &o->changes : &o->reads, &call->link);
}

static void past_done(struct own *o, struct job *j)
{
    struct list unfinished;
    bool sound = true;
    list_init(&unfinished);
    counter_add(&o->ctl.counters.values_read, j->values);
    if (j->values) release_later(o, j->values_bytes);
    LIST_FOREACH(it, &j->calls) sound &= j->error != CTL_OK || values_take(o, CONTAINER_OF(it, struct ctl_call, link)->priv);
    if (!sound) {
        db_row_missing(o, j);
        job_failed(o, j);
    }
    while (!list_empty(&j->calls)) past_answer(o, j, CONTAINER_OF(j->calls.next, struct ctl_call, link), &unfinished);
    while (!list_empty(&unfinished)) {
        struct list *last = unfinished.prev;
        list_del(last);
        list_push_front(&o->past, last);
    }
}

static void clean_done(struct own *o, struct job *j)
{
    counter_add(&o->ctl.counters.compacted_rows, j->rows);
    if (j->compact != o->compact) return; /* compacted further meanwhile: begins again */
    o->clean_at = j->to;
    if (!j->over) return;
    o->cleaned = j->compact;
    o->vacuum = true;
}

/* The file becomes smaller with the checkpoint. */
static void vacuum_done(struct own *o, const struct job *j)
{
    o->vacuum = o->free_pages > FREE_PAGES_KEPT && o->free_pages < j->rows;
    o->checkpoint = !o->vacuum;
}

static void job_done(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    struct own *o = CONTAINER_OF(j, struct own, job);
    enum job_kind kind = j->kind;
    if (kind == JOB_CLOSE) {
        own_gone(o);
        return;
    }
    db_sizes(o);
    if (j->error != CTL_OK) job_failed(o, j);
    o->ran = kind;
    switch (kind) {
    case JOB_COMMIT: commit_done(o, j); break;
    case JOB_PAST: past_done(o, j); break;
    case JOB_SLICE: watches_sliced(o, j); break;
    case JOB_CLEAN: if (j->error == CTL_OK) clean_done(o, j); break;
    case JOB_VACUUM: if (j->error == CTL_OK) vacuum_done(o, j); break;
    default: break;
    }
    j->kind = JOB_NONE;
    quota_look(o);
    own_turn(o);
}

void job_init(struct own *o)
{
    o->job.work.run = job_run;
    o->job.work.done = job_done;
    list_init(&o->job.calls);
    timer_init(&o->retry, rested);
    timer_init(&o->idle, idle_look);
}

/* What keeps the database small. False: nothing to do. */
static bool upkeep_start(struct own *o)
{
    struct job *j = &o->job;
    if (o->resting || o->broken || o->corrupt) return false;
    if (o->wal_pages >= CHECKPOINT_PAGES || o->checkpoint) {
        j->over = o->checkpoint; /* the file is made shorter, too */
        o->checkpoint = false;
        job_start(o, JOB_CHECKPOINT);
    } else if (o->sampling) {
        o->sampling = false;
        const struct sample *last = &o->samples[o->samples_n - 1];
        j->wall_s = last->wall_s;
        j->revision = last->revision;
        j->forget = o->samples[0].revision;
        job_start(o, JOB_SAMPLE);
    } else if (o->cleaned < o->compact) {
        j->from = o->clean_at;
        j->compact = o->compact;
        job_start(o, JOB_CLEAN);
    } else if (o->release) {
        o->release = false;
        o->unreleased = 0;
        recent_rest(o);
        if (o->holds == 0) kv_pool_rest(&o->pool);
        job_start(o, JOB_RELEASE);
    } else if (o->vacuum) {
        j->rows = o->free_pages;
        job_start(o, JOB_VACUUM);
    } else {
        return false;
    }
    return true;
}

static bool pasts_start(struct own *o)
{
    if (list_empty(&o->past)) return false;
    past_start(o);
    return true;
}

static bool slice_start(struct own *o)
{
    if (o->resting || !watches_slice(o, &o->job)) return false;
    job_start(o, JOB_SLICE);
    return true;
}

/* These take turns, too: readers that never rest must not keep the WAL from being copied. */
static bool others_start(struct own *o)
{
    static bool (*const starts[])(struct own *o) = {pasts_start, slice_start, upkeep_start};
    for (uint32_t i = 0; i < COUNT_OF(starts); i++)
        if (starts[o->turn++ % COUNT_OF(starts)](o)) return true;
    return false;
}

void jobs_turn(struct own *o)
{
    if (o->job.kind != JOB_NONE) return;
    if (o->closing) {
        if (list_empty(&o->over) && list_empty(&o->watches_ended)) job_start(o, JOB_CLOSE);
        return;
    }
    bool started = o->ran != JOB_COMMIT && commit_start(o);
    if (!started) started = others_start(o);
    if (!started) (void)commit_start(o);
}
