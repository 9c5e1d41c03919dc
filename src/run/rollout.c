/* rollout.c - how many replicas of which revision: scaling, rolling update, Recreate, deadlines.
 *
 * Model: rollout_step() compares what a workload has with what its Deployment wants and makes the moves that the rules of
 * README ("Rollout") allow now. It keeps no plan of its own: it looks at counts only, so it may be called after any
 * change, in any state, any number of times, and a crash of the engine between two calls loses nothing. With
 *
 *     want = replicas (this node's share of them), min = want - maxUnavailable, max = want + maxSurge
 *
 * the moves of a rolling update are, in this order (rules 2 and 3 are those of Kubernetes' deployment controller):
 *
 *     1. too many:       live > max (live > want when no old ones are left): doom the excess
 *     2. old, unproven:  doom old ones that are not available, at most live - min - (new that are not available)
 *     3. old, serving:   doom old ones while available > min
 *     4. new:            make new ones while new < want and total < max; total counts the doomed that still drain
 *
 * It does not start or stop processes: rep_new() leaves a Pending replica to the turn, rep_doom() to replica.c.
 */
#include "run_int.h"

#include <stdio.h>

/* ---- counts ------------------------------------------------------------------------------------------------------- */

void rollout_tally(const struct workload *wl, struct tally *t)
{
    *t = (struct tally){0};
    LIST_FOREACH(it, &wl->replicas) {
        const struct replica *rp = CONTAINER_OF(it, struct replica, link);
        bool is_new = rp->rev == wl->cur;
        t->total++;
        t->old_total += !is_new;
        if (rp->doomed)
            continue;
        t->live++;
        t->new_live += is_new;
        t->old_live += !is_new;
        t->ready += rp->ready;
        t->available += rp->available;
        t->new_ready += is_new && rp->ready;
        t->new_unavailable += is_new && !rp->available;
    }
}

/* This node's part of n, which is of all replicas: rounded down, so that all nodes together have no more. */
static uint64_t rollout_part(const struct workload *wl, uint64_t n)
{
    return wl->share < wl->obj->dep.replicas ? n * wl->share / wl->obj->dep.replicas : n;
}

/* maxSurge: percent of replicas, rounded up (Kubernetes API, RollingUpdateDeployment). */
uint32_t rollout_surge(const struct workload *wl)
{
    const struct deployment *d = &wl->obj->dep;
    uint64_t v = d->max_surge.value > 0 ? (uint64_t)d->max_surge.value : 0;
    uint64_t n = d->max_surge.pct ? (v * d->replicas + 99) / 100 : v;
    if (d->recreate)
        return 0;
    n = rollout_part(wl, n);
    if (n == 0 && rollout_unavailable(wl) == 0)
        n = 1; /* both rounded to 0: no move would be possible */
    return (uint32_t)MIN(n, UINT32_MAX);
}

/* maxUnavailable: percent of replicas, rounded down. */
uint32_t rollout_unavailable(const struct workload *wl)
{
    const struct deployment *d = &wl->obj->dep;
    uint64_t v = d->max_unavailable.value > 0 ? (uint64_t)d->max_unavailable.value : 0;
    uint64_t n = d->max_unavailable.pct ? v * d->replicas / 100 : v;
    return (uint32_t)MIN(rollout_part(wl, n), wl->share);
}

/* ---- the current revision -------------------------------------------------------------------------------------------- */

/* Replicas that were adopted without a record of their template get the current one: the best guess there is. */
static void rollout_bind_unknown(struct workload *wl)
{
    struct buf why = {0};
    LIST_FOREACH(it, &wl->replicas) {
        struct replica *rp = CONTAINER_OF(it, struct replica, link);
        if (!rp->rev->obj) {
            log_warn("run", "%s/%s: its template is not known any more; the current one is used until it is replaced", wl->ns, rp->name);
            if (!revision_set(rp->rev, wl->ns, wl->obj->dir, slice_cstr(wl->obj->json), &why))
                continue;
        }
        rep_bound(rp);
    }
    buf_free(&why);
}

/* The revision of key: one that replicas have already, or a new one. NULL, and wl->why set, when its manifest cannot be read. */
static struct revision *rollout_revision(struct workload *wl, uint64_t key)
{
    struct revision *rev = revision_find(wl, key);
    rev = rev ? revision_ref(rev) : revision_new(key);
    struct buf why = {0};
    mem_free(wl->why);
    wl->why = NULL;
    if (!rev->obj && !revision_set(rev, wl->ns, wl->obj->dir, slice_cstr(wl->obj->json), &why)) {
        wl->why = buf_take(&why, NULL);
        log_error("run", "%s/%s: the template cannot be used: %s", wl->ns, wl->name, wl->why);
        revision_unref(rev);
        return NULL;
    }
    buf_free(&why);
    return rev;
}

/* Paused and new to this engine: go on with what is there, the youngest revision. */
static void rollout_want_paused(struct workload *wl)
{
    if (wl->cur || list_empty(&wl->replicas))
        return;
    wl->cur = revision_ref(CONTAINER_OF(wl->replicas.prev, struct replica, link)->rev);
    wl->cur->number = wl->revision_n;
    wl->last_key = wl->cur->key;
}

void rollout_want(struct workload *wl)
{
    if (!wl->obj)
        return;
    if (wl->obj->dep.paused) {
        rollout_want_paused(wl);
        rollout_bind_unknown(wl);
        return;
    }
    uint64_t key = revision_key(wl->obj->dep.pod.hash, wl->restart_n);
    if (!wl->cur || wl->cur->key != key) {
        struct revision *rev = rollout_revision(wl, key);
        if (!rev)
            return;
        revision_unref(wl->cur);
        wl->cur = rev;
        if (wl->last_key != key || wl->revision_n == 0)
            wl->revision_n++;
        rev->number = wl->revision_n;
        wl->last_key = key;
        wl->progress_ms = loop_now_ms(wl->run->loop);
        wl->rolling = true;
        wl->complete = wl->late = false;
    }
    rollout_bind_unknown(wl);
}

/* ---- victims ------------------------------------------------------------------------------------------------------------ */

/* Smaller goes first: without a process, not ready, of an old revision, then the youngest. */
static bool victim_before(const struct replica *a, const struct replica *b)
{
    if (a->ready != b->ready)
        return !a->ready;
    if ((a->pid != 0) != (b->pid != 0))
        return a->pid == 0;
    bool a_old = a->rev != a->wl->cur, b_old = b->rev != b->wl->cur;
    if (a_old != b_old)
        return a_old;
    return a->seq > b->seq;
}

enum victim_of { VICTIM_ANY, VICTIM_NEW, VICTIM_OLD, VICTIM_OLD_UNAVAILABLE };

static bool victim_is(const struct replica *rp, enum victim_of of)
{
    bool old = rp->rev != rp->wl->cur;
    if (rp->doomed)
        return false;
    switch (of) {
    case VICTIM_ANY: return true;
    case VICTIM_NEW: return !old;
    case VICTIM_OLD: return old;
    case VICTIM_OLD_UNAVAILABLE: return old && !rp->available;
    }
    return false;
}

/* Dooms up to n; how many it did. */
static uint32_t rollout_doom(struct workload *wl, enum victim_of of, int64_t n)
{
    uint32_t did = 0;
    for (; (int64_t)did < n; did++) {
        struct replica *best = NULL;
        LIST_FOREACH(it, &wl->replicas) {
            struct replica *rp = CONTAINER_OF(it, struct replica, link);
            if (victim_is(rp, of) && (!best || victim_before(rp, best)))
                best = rp;
        }
        if (!best)
            break;
        rep_doom(best);
    }
    if (did)
        wl->progress_ms = loop_now_ms(wl->run->loop);
    return did;
}

static void rollout_make(struct workload *wl, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        (void)rep_new(wl, wl->cur, NULL);
    if (n > 0)
        wl->progress_ms = loop_now_ms(wl->run->loop);
}

/* ---- moves ----------------------------------------------------------------------------------------------------------------- */

static void rollout_rolling(struct workload *wl, const struct deployment *d)
{
    struct tally t;
    int64_t want = wl->share, max = want + rollout_surge(wl), min = want - (int64_t)rollout_unavailable(wl);
    rollout_tally(wl, &t);
    rollout_doom(wl, VICTIM_ANY, (int64_t)t.live - (t.old_live && !d->paused ? max : want));
    rollout_tally(wl, &t);
    if (!d->paused) {
        rollout_doom(wl, VICTIM_NEW, (int64_t)t.new_live - want);
        rollout_tally(wl, &t);
        rollout_doom(wl, VICTIM_OLD_UNAVAILABLE, (int64_t)t.live - min - t.new_unavailable);
        rollout_tally(wl, &t);
        rollout_doom(wl, VICTIM_OLD, (int64_t)t.available - min);
        rollout_tally(wl, &t);
    }
    int64_t missing = want - (d->paused ? t.live : t.new_live);
    rollout_make(wl, MIN(missing, max - t.total));
}

static void rollout_recreate(struct workload *wl)
{
    struct tally t;
    rollout_doom(wl, VICTIM_OLD, INT64_MAX);
    rollout_tally(wl, &t);
    rollout_doom(wl, VICTIM_NEW, (int64_t)t.new_live - wl->share);
    rollout_tally(wl, &t);
    if (t.old_total == 0)
        rollout_make(wl, (int64_t)wl->share - t.new_live);
}

/* ---- time --------------------------------------------------------------------------------------------------------------------- */

/* Brings `available` up to date; when the next replica becomes available (loop ms), 0: none waits. */
static uint64_t rollout_mature(struct workload *wl, uint32_t min_ready_s)
{
    uint64_t now = loop_now_ms(wl->run->loop), next = 0;
    LIST_FOREACH(it, &wl->replicas) {
        struct replica *rp = CONTAINER_OF(it, struct replica, link);
        if (!rp->ready || rp->available)
            continue;
        uint64_t due = rp->ready_ms + (uint64_t)min_ready_s * 1000;
        if (due <= now) {
            rp->available = true;
            wl->progress_ms = now;
        } else if (!next || due < next) {
            next = due;
        }
    }
    return next;
}

static void workload_event(const struct workload *wl, bool warning, const char *reason, const char *message)
{
    struct run *r = wl->run;
    if (r->ops.event)
        r->ops.event(r->ctx, &(struct run_event){wl->ns, wl->name, NULL, warning, reason, message});
}

static void rollout_clock(struct workload *wl, const struct deployment *d, uint64_t next)
{
    struct tally t;
    uint64_t now = loop_now_ms(wl->run->loop);
    rollout_tally(wl, &t);
    bool complete = wl->cur && t.total == wl->share && t.new_live == wl->share && t.available == wl->share;
    if (complete && !wl->complete) {
        char text[64];
        (void)snprintf(text, sizeof text, "revision %llu is rolled out", (unsigned long long)wl->cur->number);
        workload_event(wl, false, "RolledOut", text);
        log_info("run", "%s/%s: revision %llu is rolled out, %u of %u replicas ready", wl->ns, wl->name,
                 (unsigned long long)wl->cur->number, t.ready, wl->share);
    }
    wl->complete = complete;
    if (complete || d->paused)
        wl->rolling = wl->late = false;
    if (wl->rolling && d->progress_deadline_s) {
        uint64_t due = wl->progress_ms + (uint64_t)d->progress_deadline_s * 1000;
        if (due <= now && !wl->late) {
            workload_event(wl, true, "ProgressDeadlineExceeded", "the rollout makes no progress; the old replicas go on");
            log_warn("run", "%s/%s: the rollout made no progress for %u s; the old replicas go on", wl->ns, wl->name, d->progress_deadline_s);
        }
        wl->late = due <= now;
        if (due > now && (!next || due < next))
            next = due;
    }
    if (next)
        timer_set(wl->run->loop, &wl->timer, next - now);
    else
        timer_clear(&wl->timer);
}

void rollout_step(struct workload *wl)
{
    if (!wl->obj) {
        rollout_doom(wl, VICTIM_ANY, INT64_MAX);
        timer_clear(&wl->timer);
        return;
    }
    const struct deployment *d = &wl->obj->dep;
    uint64_t next = rollout_mature(wl, d->min_ready_s);
    if (wl->cur) {
        if (d->recreate && !d->paused)
            rollout_recreate(wl);
        else
            rollout_rolling(wl, d);
    }
    rollout_clock(wl, d, next);
}
