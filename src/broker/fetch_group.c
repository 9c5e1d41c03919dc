/* fetch_group.c - the part of a fetch that one shard owns: reading what is ready, and waiting until something is.
 *
 *     REST --look--> enough | error ------------------> reply --> REST
 *       ^              | not yet                          ^
 *       |              v                                  | read ahead in the pool: COLD
 *       |           PARKED --watch, enough | finish ------+
 *
 * A partition is on `ready` when it may have something to read, on `idle` when a read found nothing, and alone when it is watched; a watch that is
 * told puts it back on ready. So a look costs what is ready. What moves in one turn is looked at once, by a task of the shard.
 *
 * In sessions partitions stay between two fetches, and stay watched. In other fetches they live in the request's arena: all watches end
 * before the reply.
 */
#include "data.h"

#define COLD_STEP 65536u /* bytes: one page of so many is touched to wait for what is being read ahead */

static void group_try(struct fetch_group *g);

/* ---- parts ------------------------------------------------------------------------------------------------------------ */

static void part_told(struct part_watch *w)
{
    struct fetch_part *fp = CONTAINER_OF(w, struct fetch_part, watch);
    struct fetch_group *g = fp->group;
    if (list_empty(&fp->link))
        list_push(&g->ready, &fp->link);
    if (g->state == FETCH_PARKED && list_empty(&g->stir)) {
        struct sessions *ss = g->owner->sessions;
        list_push(&ss->stirred, &g->stir);
        loop_defer(g->owner->loop, &ss->task);
    }
}

void fetch_part_init(struct fetch_part *fp)
{
    list_init(&fp->link);
    list_init(&fp->watch.link);
    list_init(&fp->absent);
    fp->watch.fn = part_told;
    fp->diverging_epoch = -1;
    fp->sent_high = fp->sent_start = -1;
}

void fetch_part_drop(struct fetch_part *fp)
{
    segfile_unref(fp->read.file);
    fp->read.file = NULL;
    fp->read.bytes = 0;
}

void fetch_part_free(struct fetch_part *fp)
{
    mem_free((char *)(uintptr_t)fp->name.p);
    mem_free(fp);
}

/* The records that the client says it has and this log hasn't: where they part (KIP-595). */
static bool part_diverges(struct fetch_part *fp, struct part *p, int64_t log_start)
{
    if (fp->last_epoch < 0)
        return false;
    int32_t found;
    int64_t end;
    part_epoch_end(p, fp->last_epoch, &found, &end);
    if (found < 0 || fp->offset < log_start) { /* an epoch that is not known, or what is no longer there in any case */
        fp->read.error = KAFKA_OFFSET_OUT_OF_RANGE;
        return false;
    }
    if (found == fp->last_epoch && end >= fp->offset)
        return false;
    fp->diverging_epoch = found;
    fp->diverging_end = end;
    return true;
}

/* Reads a partition into fp->read. */
static void part_look(struct fetch_group *g, struct fetch_part *fp, uint32_t left, bool one_at_least)
{
    struct bpart *bp = shard_part(g->owner, &fp->topic_id, fp->partition);
    fp->read = (struct part_read){.offset = fp->offset,
                                  .bytes_max = MIN(left, (uint32_t)MAX(fp->bytes_max, 0)),
                                  .until = g->until,
                                  .one_at_least = one_at_least,
                                  .error = part_state(bp),
                                  .offsets = {.log_start = -1, .stable = -1, .high = -1, .end = -1, .epoch = -1}};
    fp->bp = bp;
    fp->found = 0;
    fp->diverging_epoch = -1;
    fp->diverging_end = -1;
    if (fp->read.error)
        return;
    if (!g->session && bp->looked == g->owner->sessions->looks) { /* the request has named it before: it would be read as often */
        fp->read.error = KAFKA_INVALID_REQUEST;
        return;
    }
    bp->looked = g->owner->sessions->looks;
    part_offsets(bp->part, &fp->read.offsets);
    fp->read.error = epoch_check(fp->epoch, fp->read.offsets.epoch);
    if (fp->read.error || part_diverges(fp, bp->part, fp->read.offsets.log_start) || fp->read.error)
        return;
    if (left)
        part_read(bp->part, &fp->read, &g->arena);
    fp->found = fp->read.bytes;
}

/* In a session: the client doesn't know yet what became of the partition, though there is nothing to read. */
static bool part_news(const struct fetch_group *g, const struct fetch_part *fp)
{
    return g->session && (fp->read.offsets.high != fp->sent_high || fp->read.offsets.log_start != fp->sent_start);
}

static void part_watch_on(struct fetch_group *g, struct fetch_part *fp)
{
    struct bpart *bp = shard_part(g->owner, &fp->topic_id, fp->partition);
    if (part_state(bp) == KAFKA_NONE && list_empty(&fp->watch.link)) {
        part_watch(bp->part, &fp->watch);
        g->watched = true;
    }
}

/* ---- looking ------------------------------------------------------------------------------------------------------------ */

static void report(struct fetch_group *g, struct fetch_part *fp)
{
    fp->reported = NULL;
    if (g->last)
        g->last->reported = fp;
    else
        g->first = fp;
    g->last = fp;
}

/* Reads what is ready. What has nothing goes to idle; what gave something goes to the end of ready, so that it is others' turn next. */
static void collect(struct fetch_group *g)
{
    struct list rest, gave;
    list_init(&rest);
    list_init(&gave);
    g->first = g->last = NULL;
    g->bytes = 0;
    g->urgent = false;
    g->owner->sessions->looks++;
    LIST_FOREACH(it, &g->ready) {
        struct fetch_part *fp = CONTAINER_OF(it, struct fetch_part, link);
        uint32_t left = g->bytes >= (int64_t)g->bytes_max ? 0 : g->bytes_max - (uint32_t)g->bytes;
        if (left == 0 && g->session && fp->sent_high >= 0)
            continue; /* the next answer's */
        part_look(g, fp, left, g->bytes == 0);
        bool told = fp->read.error || fp->diverging_epoch >= 0;
        g->bytes += fp->read.bytes;
        g->urgent = g->urgent || told;
        if (fp->read.bytes || told || part_news(g, fp) || left == 0)
            report(g, fp);
        list_del(&fp->link);
        list_push(fp->read.bytes ? &gave : fp->read.error || fp == g->last ? &rest : &g->idle, &fp->link);
    }
    LIST_FOREACH(it, &rest) {
        list_del(it);
        list_push(&g->ready, it);
    }
    LIST_FOREACH(it, &gave) {
        list_del(it);
        list_push(&g->ready, it);
    }
}

/* Could a look bring enough now? Asks no disk. */
static bool worth_it(struct fetch_group *g)
{
    int64_t bytes = 0;
    LIST_FOREACH(it, &g->ready) {
        struct fetch_part *fp = CONTAINER_OF(it, struct fetch_part, link);
        struct bpart *bp = shard_part(g->owner, &fp->topic_id, fp->partition);
        struct part_offsets o;
        if (part_state(bp))
            return true;
        part_offsets(bp->part, &o);
        if (o.offline || o.log_start > fp->offset || o.end < fp->offset)
            return true;
        uint64_t n = part_readable(bp->part, fp->offset, g->until);
        bytes += (int64_t)MIN(MAX(n, fp->found), (uint64_t)MAX(fp->bytes_max, 1));
        if (bytes >= g->enough)
            return true;
    }
    return false;
}

static void watch_all(struct fetch_group *g, struct list *parts, bool keep)
{
    LIST_FOREACH(it, parts) {
        struct fetch_part *fp = CONTAINER_OF(it, struct fetch_part, link);
        if (!keep)
            list_del(&fp->link);
        part_watch_on(g, fp);
    }
}

static void park(struct fetch_group *g)
{
    g->state = FETCH_PARKED;
    watch_all(g, &g->idle, false);
    watch_all(g, &g->ready, true);
}

/* ---- replies -------------------------------------------------------------------------------------------------------------- */

static void reply(struct fetch_group *g)
{
    g->state = FETCH_REST;
    g->up.fn = fetch_replied;
    call_now(g->owner, g->home, &g->up);
}

/* On a pool thread: what will be sent comes into memory, so that the loop doesn't wait for the disk. A failed read is left to the one who sends. */
static void cold_run(struct work *w)
{
    struct fetch_group *g = CONTAINER_OF(w, struct fetch_group, cold);
    for (struct fetch_part *fp = g->first; fp; fp = fp->reported) {
        const struct part_read *rd = &fp->read;
        char byte;
        if (!rd->cold || !rd->bytes)
            continue;
        disk_hint_read(segfile_fd(rd->file), rd->pos, rd->bytes);
        for (uint64_t at = rd->pos; at < rd->pos + rd->bytes; at += COLD_STEP)
            if (file_read_at(segfile_fd(rd->file), at, &byte, 1) != OK)
                return;
        if (file_read_at(segfile_fd(rd->file), rd->pos + rd->bytes - 1, &byte, 1) != OK)
            return;
    }
}

static void cold_done(struct work *w) { reply(CONTAINER_OF(w, struct fetch_group, cold)); }

/* A look's end: what is idle is watched in sessions, nothing is watched in others. */
static void settle(struct fetch_group *g)
{
    list_del(&g->stir);
    if (g->session)
        watch_all(g, &g->idle, false);
    else if (g->watched)
        for (struct fetch_part *fp = g->changed; fp; fp = fp->next) {
            part_unwatch(&fp->watch);
            if (list_empty(&fp->link))
                list_push(&g->idle, &fp->link); /* there may be another look */
        }
    bool cold = false;
    for (struct fetch_part *fp = g->first; fp; fp = fp->reported) {
        if (!fp->read.bytes)
            continue;
        counter_add(&bpart_live(fp->bp)->out_bytes, fp->read.bytes);
        cold = cold || fp->read.cold;
    }
    if (!cold) {
        reply(g);
        return;
    }
    counter_inc(&g->owner->sessions->cold);
    g->state = FETCH_COLD;
    g->cold = (struct work){.run = cold_run, .done = cold_done};
    work_submit(g->owner->loop, &g->cold);
}

static void group_try(struct fetch_group *g)
{
    collect(g);
    if (g->urgent || g->bytes >= g->enough) {
        settle(g);
        return;
    }
    fetch_group_drop(g);
    park(g);
}

/* The task of the shard: the groups in which something moved. */
static void stirred_run(struct task *t)
{
    struct sessions *ss = CONTAINER_OF(t, struct sessions, task);
    struct list now;
    list_init(&now);
    while (!list_empty(&ss->stirred)) { /* what is stirred meanwhile has its turn in the next */
        struct list *it = ss->stirred.next;
        list_del(it);
        list_push(&now, it);
    }
    while (!list_empty(&now)) {
        struct fetch_group *g = CONTAINER_OF(now.next, struct fetch_group, stir);
        list_del(&g->stir);
        MUST(g->state == FETCH_PARKED);
        if (worth_it(g))
            group_try(g);
        else
            park(g);
    }
}

/* ---- calls from home -------------------------------------------------------------------------------------------------------- */

void fetch_group_init(struct fetch_group *g, struct shard *home, struct shard *owner)
{
    *g = (struct fetch_group){.home = home, .owner = owner};
    list_init(&g->down.link);
    list_init(&g->finish.link);
    list_init(&g->up.link);
    list_init(&g->ack.link);
    list_init(&g->link);
    list_init(&g->ready);
    list_init(&g->idle);
    list_init(&g->stir);
    arena_init(&g->arena, MEM_KAFKA, 4096);
}

void fetch_group_change(struct fetch_group *g, struct fetch_part *fp)
{
    if (fp->listed)
        return;
    fp->listed = true;
    fp->next = NULL;
    if (g->changed)
        *g->changed_last = fp;
    else
        g->changed = fp;
    g->changed_last = &fp->next;
}

void fetch_group_forget(struct fetch_group *g, struct fetch_part *fp)
{
    MUST(g->session && !fp->leaves);
    fp->leaves = true;
    if (fp->listed)
        return; /* it goes when its change is looked at */
    fp->listed = true;
    fp->next = g->forgotten;
    g->forgotten = fp;
}

static void part_leave(struct fetch_part *fp)
{
    part_unwatch(&fp->watch);
    list_del(&fp->link);
    fetch_part_free(fp);
}

static void forget(struct fetch_group *g)
{
    while (g->forgotten) {
        struct fetch_part *fp = g->forgotten;
        g->forgotten = fp->next;
        part_leave(fp);
    }
}

/* In sessions the list of what has changed is used up; otherwise it is the list of all, which settle() wants. */
static void take_changes(struct fetch_group *g)
{
    for (struct fetch_part *fp = g->changed, *next; fp; fp = next) {
        next = fp->next;
        if (!fp->listed)
            break; /* a second look of a fetch without session */
        if (fp->leaves) {
            part_leave(fp);
            continue;
        }
        fp->listed = false;
        part_unwatch(&fp->watch);
        list_del(&fp->link);
        if (fp->first)
            list_push_front(&g->ready, &fp->link);
        else
            list_push(&g->ready, &fp->link);
        fp->first = false;
    }
    if (g->session)
        g->changed = NULL;
}

void fetch_group_look(struct shard *here, struct call *c)
{
    struct fetch_group *g = CONTAINER_OF(c, struct fetch_group, down);
    MUST(g->owner == here && g->state == FETCH_REST);
    forget(g);
    take_changes(g);
    group_try(g);
}

void fetch_group_finish(struct shard *here, struct call *c)
{
    struct fetch_group *g = CONTAINER_OF(c, struct fetch_group, finish);
    if (g->state == FETCH_PARKED) {
        g->enough = 0;
        collect(g);
        settle(g);
    }
    g->ack.fn = fetch_acknowledged;
    call_now(here, g->home, &g->ack);
}

void fetch_group_close(struct shard *here, struct call *c)
{
    struct fetch_group *g = CONTAINER_OF(c, struct fetch_group, down);
    MUST(g->state == FETCH_REST && g->owner == here);
    forget(g);
    take_changes(g);
    MUST(list_empty(&g->ready) && list_empty(&g->idle));
    list_del(&g->stir);
    arena_fini(&g->arena);
    mem_free(g);
}

void fetch_group_drop(struct fetch_group *g)
{
    for (struct fetch_part *fp = g->first; fp; fp = fp->reported)
        fetch_part_drop(fp);
    g->first = g->last = NULL;
    g->bytes = 0;
    arena_reset(&g->arena);
}

void fetch_stirred_init(struct sessions *ss)
{
    list_init(&ss->stirred);
    task_init(&ss->task, stirred_run);
}
