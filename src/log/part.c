/* part.c - a partition's life: opened, begun by its first batch, loaded when it is used, deleted.
 *
 *                    part_load(), in the pool; part_attach(), on the loop
 *         nothing on disk |  described by a clean stop |  anything else
 *                EMPTY    |          SHELVED           |  (recovered) LOADED
 *                  '- first append -> LOADED <- first use -'
 *
 * What is recovered in the pool belongs meanwhile to a shard that has no loop and lives as long as the recovery (a loader), so that the same code
 * serves both; part_attach() hands it over.
 *
 * A checkpoint's description is enough to answer for offsets, so ten thousand idle partitions cost one file read at start. High and stable are
 * computed in one place, part_moved(); whoever watches is told at the end of the turn. A partition that is deleted stays in memory
 * until the works that refer to it (pins) are over.
 */
#include "log_int.h"

#include <pthread.h>
#include <stdio.h>

#define NOTE_MAGIC 0x574c4e50u

void part_conf_default(struct part_conf *c)
{
    *c = (struct part_conf){.segment_bytes = 1u << 30,
                            .index_interval_bytes = 4096,
                            .max_message_bytes = 1048588,
                            .segment_ms = 604800000,
                            .retention_ms = 604800000,
                            .retention_bytes = -1,
                            .delete_retention_ms = 86400000,
                            .max_compaction_lag_ms = INT64_MAX,
                            .file_delete_delay_ms = 60000,
                            .producer_expiration_ms = 86400000,
                            .min_cleanable_ratio = 0.5,
                            .cleanup_delete = true};
}

/* Within what the formats can hold. */
static struct part_conf conf_sane(const struct part_conf *c)
{
    struct part_conf r = *c;
    r.segment_bytes = MIN(MAX(r.segment_bytes, 1024u), SEG_BYTES_MAX);
    r.index_interval_bytes = MAX(r.index_interval_bytes, 1u);
    return r;
}

void part_conf_set(struct part *p, const struct part_conf *conf) { p->conf = conf_sane(conf); }

int64_t part_now(const struct part *p) { return (int64_t)(wall_ns() / 1000000); }

/* ---- partition.state ---- */

struct part_note part_note_of(const struct part *p)
{
    return (struct part_note){.instance = p->instance, .log_start = p->log_start, .cut = p->cut, .sparse = p->sparse};
}

static const char *note_path(const char *folder, char out[LOG_PATH_MAX])
{
    int n = snprintf(out, LOG_PATH_MAX, "%s/partition.state", folder);
    MUST(n > 0 && n < LOG_PATH_MAX);
    return out;
}

bool part_note_read(const char *folder, struct part_note *note)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    struct fields f;
    bool ok = file_read(note_path(folder, path), &b, 4096) == OK && fields_open(buf_slice(&b), NOTE_MAGIC, &f);
    if (ok) {
        note->instance = take64(&f);
        note->log_start = (int64_t)take64(&f);
        note->cut = (int64_t)take64(&f);
        note->sparse = take16(&f);
        ok = !f.bad && note->log_start >= 0 && note->cut >= -1 && note->log_start <= OFFSET_MAX && note->cut <= OFFSET_MAX;
    }
    buf_free(&b);
    return ok;
}

/* What only ever grows is kept from the note that is there, if it is of the same partition. True: as has changed. */
static bool note_merge(const char *folder, struct part_note *as)
{
    struct part_note was, before = *as;
    if (!part_note_read(folder, &was) || was.instance != as->instance)
        return false;
    as->log_start = MAX(as->log_start, was.log_start);
    as->cut = as->cut < 0 ? was.cut : as->cut;
    as->sparse |= was.sparse;
    return as->log_start != before.log_start || as->cut != before.cut || as->sparse != before.sparse;
}

static enum err note_fill(const char *path, const struct part_note *note)
{
    struct buf b = {0};
    int fd;
    uint64_t bytes;
    add32(&b, NOTE_MAGIC);
    add64(&b, note->instance);
    add64(&b, (uint64_t)note->log_start);
    add64(&b, (uint64_t)note->cut);
    add16(&b, note->sparse);
    add_crc(&b);
    enum err e = file_fill(path, &b);
    buf_free(&b);
    if (e == OK)
        e = disk_open(path, false, &fd, &bytes);
    if (e == OK) {
        e = disk_sync(fd);
        file_close(fd);
    }
    return e;
}

/* Notes are written on the loop (DeleteRecords) and in the pool (sync rounds, failed syncs, retention), where one may come late that was made early:
 * none takes anything back. Nor does one that comes when its partition was deleted take the place of the note of another partition, which by now has that
 * name and that folder. notes_lock is innermost, and nobody who holds it writes or syncs: a note that another one has overtaken meanwhile is made again. */
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

enum err part_note_write(const struct part *p, const struct part_note *note)
{
    char folder[LOG_PATH_MAX], path[LOG_PATH_MAX], tmp[LOG_PATH_MAX];
    struct part_note as = *note;
    uint64_t unique;
    enum err e;
    random_bytes(&unique, sizeof unique);
    part_path(p, NULL, folder);
    int n = snprintf(tmp, sizeof tmp, "%s/partition.%016llx.tmp", folder, (unsigned long long)unique);
    MUST(n > 0 && n < LOG_PATH_MAX);
    (void)note_merge(folder, &as);
    for (bool overtaken = true; overtaken;) {
        e = note_fill(tmp, &as);
        pthread_mutex_lock(&notes_lock);
        e = p->gone ? ERR_NOTFOUND : e;
        overtaken = e == OK && note_merge(folder, &as);
        if (e == OK && !overtaken)
            e = disk_rename(tmp, note_path(folder, path));
        pthread_mutex_unlock(&notes_lock);
    }
    if (e == OK)
        return disk_sync_dir(folder);
    if (disk_remove(tmp) != OK)
        log_debug("log", "%s is left for the next start to remove", tmp);
    return e;
}

struct note_job {
    struct work work;
    struct part *part;                 /* pinned */
    struct part_note note;
    void (*done)(struct part *p, const struct part_note *note, enum err e);
    enum err err;
};

static void note_run(struct work *w)
{
    struct note_job *j = CONTAINER_OF(w, struct note_job, work);
    j->err = part_note_write(j->part, &j->note);
}

static void note_done(struct work *w)
{
    struct note_job *j = CONTAINER_OF(w, struct note_job, work);
    struct part *p = j->part;
    struct log_shard *s = p->shard;
    j->done(p, &j->note, j->err);
    mem_free(j);
    part_unpin(p);
    shard_job_over(s);
}

void part_note_submit(struct part *p, bool slow, void (*done)(struct part *p, const struct part_note *note, enum err e))
{
    struct note_job *j = mem_new(MEM_PART, sizeof *j);
    *j = (struct note_job){.work = {.run = note_run, .done = note_done, .slow = slow}, .part = p, .note = part_note_of(p), .done = done};
    p->pins++;
    p->shard->jobs++;
    work_submit(p->shard->loop, &j->work);
}

/* ---- making and freeing ---- */

struct part_log *part_log_new(struct part *p)
{
    struct part_log *g = mem_new(MEM_PART, sizeof *g);
    g->snapshot = g->snapshot_before = g->snapshot_durable = -1;
    g->held.offset = -1;
    g->next_ms = -1;
    producers_init(&g->producers);
    list_init(&g->pending);
    list_init(&g->waits);
    list_init(&g->dups);
    list_init(&g->flushes);
    places_forget(g);
    p->log = g;
    return g;
}

static void files_close(struct part *p)
{
    for (uint32_t i = 0; i < p->log->segs_n; i++) seg_close(p, &p->log->segs[i]);
}

/* The segments' files are closed, and the shard's numbers no longer count them. */
void part_log_free(struct part *p)
{
    struct part_log *g = p->log;
    if (!g)
        return;
    mem_free(g->segs);
    index_fini(&g->index);
    producers_fini(&g->producers);
    mem_free(g->damages);
    mem_free(g);
    p->log = NULL;
}

/* What it adds to (sign 1) or takes from (-1) its shard's numbers. */
static void part_count(const struct part *p, uint64_t sign)
{
    struct log_counters *c = &p->shard->counters;
    counter_add(&c->partitions, sign);
    counter_add(&c->offline, p->offline ? sign : 0);
    counter_add(&c->bytes, p->bytes * sign);
    counter_add(&c->segments, sign * (p->log ? p->log->segs_n : p->shelved_segs));
}

void part_free(struct part *p)
{
    if (p->shard)
        part_count(p, -(uint64_t)1);
    if (p->log)
        files_close(p);
    part_log_free(p);
    list_del(&p->all);
    list_del(&p->write_link);
    list_del(&p->wait_link);
    list_del(&p->force_link);
    list_del(&p->moved_link);
    while (!list_empty(&p->watches)) list_del(p->watches.next);
    mem_free(p->epochs);
    mem_free(p->grave);
    mem_free(p->name);
    p->magic = 0;
    mem_free(p);
}

static struct part *part_new(const char *name, const struct part_conf *conf)
{
    struct part *p = mem_new(MEM_PART, sizeof *p);
    p->magic = PART_MAGIC;
    p->name = mem_strdup(MEM_PART, name);
    p->conf = conf_sane(conf);
    p->oldest_ms = -1;
    p->active = -1;
    p->cut = -1;
    list_init(&p->write_link);
    list_init(&p->wait_link);
    list_init(&p->force_link);
    list_init(&p->moved_link);
    list_init(&p->watches);
    list_init(&p->all);
    return p;
}

/* The epoch of this life begins at offset. One that had no record yet gives way. */
static void epoch_begin(struct part *p, int32_t epoch, int64_t offset)
{
    while (p->epochs_n && p->epochs[p->epochs_n - 1].offset >= offset) p->epochs_n--;
    if (p->epochs_n == EPOCHS_MAX)
        memmove(p->epochs, p->epochs + 1, --p->epochs_n * sizeof *p->epochs);
    p->epochs = mem_grow(MEM_PART, p->epochs, (p->epochs_n + 1) * sizeof *p->epochs);
    p->epochs[p->epochs_n++] = (struct epoch_start){epoch, offset};
    p->epoch = epoch;
}

/* ---- opening ---- */

static bool name_ok(const char *name)
{
    struct slice s = slice_cstr(name);
    return s.n > 0 && s.n <= PART_NAME_MAX && slice_find(s, '/') < 0 && s.p[0] != '.' && !slice_ends(s, SLICE(EXT_DELETED)) &&
           !slice_ends(s, SLICE(".checkpoint")) && !slice_ends(s, SLICE(".lock")) && !slice_ends(s, SLICE(".state")) && !slice_ends(s, SLICE(".tmp"));
}

static void part_shelve(struct part *p, struct stored *st)
{
    p->state = PART_SHELVED;
    p->instance = st->instance;
    p->log_start = p->start_noted = st->log_start;
    p->durable = p->noted = p->written = p->end = p->high = st->durable;
    p->stable = MIN(st->stable, st->durable);
    p->cleaned = st->cleaned;
    p->sparse = st->sparse;
    p->oldest_ms = st->oldest_ms;
    p->bytes = st->bytes;
    p->active = st->active;
    p->active_bytes = st->active_bytes;
    p->shelved_segs = st->segs_n;
    p->epochs = st->epochs;
    p->epochs_n = st->epochs_n;
    st->epochs = NULL;
    p->epoch = p->epochs[p->epochs_n - 1].epoch;
}

/* What checkpoint and partition.state say, as far as they agree on which partition they speak of. */
static struct recovery recovery_plan(struct part *p, struct stored *st)
{
    char folder[LOG_PATH_MAX];
    struct part_note note = {.cut = -1};
    struct recovery r = {.cut = -1, .active = -1};
    bool noted = part_note_read(part_path(p, NULL, folder), &note);
    if (noted) {
        p->instance = note.instance;
        p->log_start = note.log_start;
        p->sparse = r.gaps = note.sparse;
        r.cut = note.cut;
    } else {
        random_bytes(&p->instance, sizeof p->instance);
        p->born = true;
    }
    if (!noted || !st->generation || st->instance != note.instance)
        return r;
    p->log_start = MAX(p->log_start, st->log_start);
    p->cleaned = st->cleaned;
    p->epochs = st->epochs;
    p->epochs_n = st->epochs_n;
    st->epochs = NULL;
    r.durable = st->durable;
    p->sparse |= st->sparse;
    r.gaps = p->sparse && !st->known && st->durable <= st->log_start; /* after a life that knew of nothing that is durable */
    if (st->cut >= 0)
        r.cut = r.cut < 0 ? st->cut : MIN(r.cut, st->cut);
    if (st->clean && r.cut < 0) {
        r.active = st->active;
        r.active_bytes = st->active_bytes;
    }
    return r;
}

/* Epochs that the log itself shows are behind what was known: nothing was noted of them. */
static int32_t epoch_last(const struct part *p) { return p->epochs_n ? p->epochs[p->epochs_n - 1].epoch : -1; }

/* Behind the recovery point the log itself shows its epochs, which may be others than those that were noted: a power loss may bring back what an earlier
 * life wrote there. */
static void epochs_forget(struct part *p, int64_t durable)
{
    while (p->epochs_n && p->epochs[p->epochs_n - 1].offset >= durable) p->epochs_n--;
}

static enum err part_reopen(struct part *p, struct stored *st, struct buf *why)
{
    struct recovery r = recovery_plan(p, st);
    int32_t last = epoch_last(p); /* as far as was noted */
    if (r.cut >= 0)
        r.durable = MIN(r.durable, r.cut);
    epochs_forget(p, r.durable);
    part_log_new(p);
    enum err e = part_recover(p, &r, why);
    mem_free(r.snapshots);
    if (e != OK)
        return e;
    p->state = PART_LOADED;
    p->names_made++; /* the end of the last life may have come between making a file and syncing its name: before the next answer all names are synced */
    epoch_begin(p, MAX(store_epoch(p->shard->store), MAX(last, epoch_last(p)) + 1), p->end);
    part_moved(p);
    if (r.cut >= 0) { /* what was to go is cut off: what follows is not to be */
        random_bytes(&p->instance, sizeof p->instance); /* nor what the checkpoint says of this partition */
        struct part_note note = part_note_of(p);
        e = part_rewrite(p);
        if (e == OK)
            e = part_note_write(p, &note);
        if (e != OK)
            buf_printf(why, "%s: what a failed sync left can't be cut off: %s", p->name, err_text(e));
    } else if (p->renewing) { /* where the old one was cut back, that need not be durable */
        e = part_rewrite(p);
        if (e != OK)
            buf_printf(why, "%s: what is there can't be made durable: %s", p->name, err_text(e));
    }
    return e;
}

/* A shard without a loop, for one recovery in the pool. */
static struct log_shard *loader_new(struct log_store *l)
{
    struct log_shard *s = mem_new(MEM_PART, sizeof *s);
    s->store = l;
    struct list *lists[] = {&s->parts, &s->waits, &s->forces, &s->moved, &s->lru};
    for (size_t i = 0; i < COUNT_OF(lists); i++) list_init(lists[i]);
    s->window = mem_new(MEM_PART, WALK_BYTES);
    return s;
}

static enum err part_recovered(struct part *p, struct log_store *l, struct stored *st, struct buf *why)
{
    struct log_shard *loader = p->shard = loader_new(l);
    enum err e = part_reopen(p, st, why);
    if (p->log)
        files_close(p);
    list_del(&p->force_link);
    list_del(&p->moved_link);
    p->truncated = loader->counters.truncated_bytes;
    p->shard = NULL;
    mem_free(loader->window);
    mem_free(loader);
    return e;
}

enum err part_load(struct log_store *l, const char *name, const struct part_conf *conf, struct part **out, struct buf *why)
{
    if (!name_ok(name)) {
        buf_printf(why, "\"%s\" is no name for a partition", name);
        return ERR_INVALID;
    }
    struct stored *st = table_get(&l->stored, slice_cstr(name));
    struct part *p = part_new(name, conf);
    enum err e = OK;
    if (!st || !st->folder)
        epoch_begin(p, store_epoch(l), 0);
    else if (st->generation && st->clean && st->generation == l->clean_generation)
        part_shelve(p, st);
    else
        e = part_recovered(p, l, st, why);
    if (e != OK) {
        part_free(p);
        return e;
    }
    if (st)
        st->folder = false; /* from now on a shard describes it */
    *out = p;
    return OK;
}

void part_attach(struct part *p, struct log_shard *s)
{
    MUST(p->magic == PART_MAGIC && !p->shard);
    p->shard = s;
    list_push(&s->parts, &p->all);
    part_count(p, 1);
    counter_add(&s->counters.truncated_bytes, p->truncated);
    if (p->state != PART_EMPTY)
        s->changed = true;
    if (part_dirty(p))
        sync_force(p);
}

/* SHELVED to LOADED. */
static enum err part_unshelve(struct part *p, struct buf *why)
{
    struct recovery r = {.durable = p->durable, .cut = -1, .active = p->active, .active_bytes = p->active_bytes};
    uint64_t bytes = p->bytes;
    part_count(p, -(uint64_t)1);
    part_log_new(p);
    p->bytes = 0;
    struct log_counters counted = p->shard->counters;
    enum err e = part_recover(p, &r, why);
    mem_free(r.snapshots);
    /* what recovery counted as it went along is counted as a whole */
    counter_set(&p->shard->counters.bytes, counted.bytes);
    counter_set(&p->shard->counters.segments, counted.segments);
    counter_set(&p->shard->counters.offline, counted.offline);
    if (e == OK) {
        p->state = PART_LOADED;
    } else {
        files_close(p);
        part_log_free(p);
        p->bytes = bytes;
    }
    part_count(p, 1);
    part_moved(p);
    return e;
}

bool part_use(struct part *p)
{
    if (p->state != PART_SHELVED)
        return true;
    struct buf why = {0};
    enum err e = part_unshelve(p, &why);
    if (e != OK)
        log_error("log", "%s can't be opened: %.*s; it answers with KAFKA_STORAGE_ERROR", p->name, (int)why.n, why.n ? why.p : "");
    buf_free(&why);
    return e == OK;
}

enum err part_begin(struct part *p)
{
    char path[LOG_PATH_MAX];
    enum err e = disk_make_dir(part_path(p, NULL, path));
    if (e != OK)
        return e;
    if (!p->log)
        part_log_new(p);
    e = seg_open(p, seg_add(p, p->end), true);
    if (e != OK) {
        seg_drop(p, 0, 1);
        return e;
    }
    random_bytes(&p->instance, sizeof p->instance);
    p->born = true;
    p->names_made++;
    p->state = PART_LOADED;
    part_next(p);
    return OK;
}

/* ---- what is visible ---- */

void part_tell(struct part *p)
{
    if (list_empty(&p->moved_link)) {
        list_push(&p->shard->moved, &p->moved_link);
        shard_end(p->shard);
    }
}

void part_next(struct part *p)
{
    const struct seg *s = seg_last(p);
    p->log->next_seg = s->base;
    p->log->next_pos = (uint32_t)s->bytes;
    p->log->next_ms = s->bytes ? s->first_ms : -1;
}

static struct spot part_high(const struct part *p)
{
    const struct part_log *g = p->log;
    if (g->held.offset >= 0)
        return g->held;
    if (!list_empty(&g->waits)) {
        const struct append *a = CONTAINER_OF(g->waits.next, struct append, link);
        return (struct spot){a->base_offset, seg_find(p, a->base_offset)->base, (uint32_t)a->pos};
    }
    const struct seg *s = seg_last(p);
    return (struct spot){p->written, s->base, (uint32_t)s->bytes};
}

void part_moved(struct part *p)
{
    struct part_log *g = p->log;
    if (!g || g->segs_n == 0)
        return;
    if (g->held.offset >= 0 && p->durable >= g->held_end.offset)
        g->held.offset = -1;
    struct spot high = part_high(p), stable = high, first;
    producers_visible(&g->producers, high.offset);
    if (producers_unstable(&g->producers, &first) && first.offset < high.offset)
        stable = first;
    g->high = high;
    g->stable = stable;
    /* records were deleted behind what may be shown again after a recovery: nothing is visible, from the start on */
    int64_t high_offset = MAX(high.offset, p->log_start), stable_offset = MAX(stable.offset, p->log_start);
    if (high_offset == p->high && stable_offset == p->stable)
        return;
    p->high = high_offset;
    p->stable = stable_offset;
    part_tell(p);
}

void part_offsets(const struct part *p, struct part_offsets *out)
{
    *out = (struct part_offsets){.log_start = p->log_start, .stable = MAX(p->stable, p->log_start), .high = p->high, .end = p->end, .epoch = p->epoch, .offline = p->offline, .failed = p->failed};
}

uint64_t part_bytes(const struct part *p) { return p->bytes; }
const char *part_name(const struct part *p) { return p->name; }
void *part_owner(const struct part *p) { return p->owner; }
void part_owner_set(struct part *p, void *owner) { p->owner = owner; }

void part_watch(struct part *p, struct part_watch *w)
{
    list_del(&w->link);
    list_push(&p->watches, &w->link);
}

void part_unwatch(struct part_watch *w) { list_del(&w->link); }

/* The epoch in which the start of the log lies: of those before it nothing is left. */
static uint32_t epoch_first(const struct part *p)
{
    uint32_t i = 0;
    while (i + 1 < p->epochs_n && p->epochs[i + 1].offset <= p->log_start) i++;
    return i;
}

void part_epoch_end(const struct part *p, int32_t epoch, int32_t *found, int64_t *end_offset)
{
    uint32_t first = epoch_first(p), i = p->epochs_n;
    *found = -1;
    *end_offset = -1;
    if (epoch < 0 || i == 0 || epoch > p->epochs[i - 1].epoch)
        return;
    if (epoch < p->epochs[first].epoch) {
        *found = epoch;
        *end_offset = MAX(p->epochs[first].offset, p->log_start);
        return;
    }
    while (p->epochs[i - 1].epoch > epoch) i--;
    *found = p->epochs[i - 1].epoch;
    *end_offset = i < p->epochs_n ? p->epochs[i].offset : p->end;
}

int32_t part_epoch_at(const struct part *p, int64_t offset)
{
    for (uint32_t i = p->epochs_n; i-- > 0;)
        if (p->epochs[i].offset <= offset)
            return p->epochs[i].epoch;
    return -1;
}

/* ---- faults ---- */

void part_refuse(struct part *p)
{
    if (p->offline || p->gone)
        return;
    p->offline = true;
    p->shard->changed = true;
    counter_add(&p->shard->counters.offline, 1);
    part_tell(p);
}

void part_offline(struct part *p, const char *what, enum err e)
{
    bool news = !p->failed && !p->gone;
    if (!p->offline && !p->gone)
        log_error("log", "%s: %s: %s; it takes no more records. Look at the device's health and at the kernel's log; it is tried again by and by", p->name, what, err_text(e));
    p->failed = true;
    part_refuse(p);
    if (news && p->shard->on_failure)
        p->shard->on_failure(p->shard->on_failure_ctx, p);
}

static void appends_fail(struct part *p, struct list *from, enum kafka_error e)
{
    LIST_FOREACH(it, from) append_finish(p->shard, CONTAINER_OF(it, struct append, link), e);
}

void part_fail(struct part *p, enum kafka_error e)
{
    if (!p->log)
        return;
    appends_fail(p, &p->log->waits, e);
    appends_fail(p, &p->log->dups, e);
    appends_fail(p, &p->log->pending, e);
    p->log->pending_bytes = 0;
    LIST_FOREACH(it, &p->log->flushes) flush_finish(p->shard, CONTAINER_OF(it, struct part_flush, link), e);
    list_del(&p->write_link);
    list_del(&p->wait_link);
}

/* ---- deletion ---- */

/* It is its shard's no more; what waits fails. */
static void part_leave(struct part *p, enum kafka_error e)
{
    struct log_shard *s = p->shard;
    pthread_mutex_lock(&notes_lock); /* none of its notes comes later */
    p->gone = true;
    pthread_mutex_unlock(&notes_lock);
    part_fail(p, e);
    list_del(&p->force_link);
    if (s->housekept == &p->all)
        s->housekept = p->all.next;
    list_del(&p->all);
}

void part_delete(struct part *p)
{
    MUST(p->magic == PART_MAGIC && !p->gone && !p->renewing);
    struct log_shard *s = p->shard;
    part_leave(p, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    if (p->state != PART_EMPTY) {
        char from[LOG_PATH_MAX], name[PART_NAME_MAX + 64], to[LOG_PATH_MAX];
        uint64_t unique;
        random_bytes(&unique, sizeof unique);
        snprintf(name, sizeof name, "%.200s.%016llx" EXT_DELETED, p->name, (unsigned long long)unique);
        enum err e = disk_rename(part_path(p, NULL, from), store_path(s->store, name, to));
        if (e == OK)
            p->grave = mem_strdup(MEM_PART, to);
        else
            log_error("log", "%s can't be removed: %s; remove it by hand before the next start, or the partition is there again", from, err_text(e));
        s->changed = true;
    }
    part_tell(p);
}

/* ---- a partition of which the disk failed ---- */

#define RENEWED_MS 30000

struct part_renewal {
    struct part *old;
    struct part *made;                 /* NULL: not yet, or it failed */
    struct log_store *store;
    struct part_conf conf;
    struct stored known;               /* what a checkpoint would say of the old one */
    struct part_note note;             /* of the old one */
    bool note_due;                     /* its start is not durable yet: a recovery removes what is before */
    enum err lost;                     /* not OK: it failed when it may have written and synced already */
    char name[PART_NAME_MAX + 1];
};

static bool part_rests(const struct part *p)
{
    const struct part_log *g = p->log;
    if (p->pins || p->rounding || p->compacting || !list_empty(&p->write_link) || !list_empty(&p->wait_link) || !list_empty(&p->force_link))
        return false;
    return !g || (list_empty(&g->pending) && list_empty(&g->waits) && list_empty(&g->dups) && list_empty(&g->flushes));
}

struct part_renewal *part_renew_begin(struct part *p, const struct part_conf *conf)
{
    MUST(p->magic == PART_MAGIC && !p->gone && !p->renewing);
    if (!p->failed || p->state == PART_SHELVED || p->shard->state != SHARD_RUNS || !part_rests(p))
        return NULL;
    struct part_renewal *r = mem_new(MEM_PART, sizeof *r);
    r->old = p;
    r->store = p->shard->store;
    r->conf = *conf;
    snprintf(r->name, sizeof r->name, "%s", p->name);
    part_describe(p, &r->known);
    r->known.generation = r->store->generation;
    r->known.epochs = NULL;
    r->note = part_note_of(p);
    r->note_due = p->start_noted < p->log_start;
    if (p->epochs_n) { /* the old one keeps its own */
        r->known.epochs = mem_new(MEM_PART, p->epochs_n * sizeof *p->epochs);
        memcpy(r->known.epochs, p->epochs, p->epochs_n * sizeof *p->epochs);
    }
    p->renewing = true;
    return r;
}

static void nothing_each(void *ctx, const char *name, bool folder, uint64_t bytes) { (void)ctx, (void)name, (void)folder, (void)bytes; }

enum err part_renew_run(struct part_renewal *r, struct buf *why)
{
    char folder[LOG_PATH_MAX];
    struct part *p = part_new(r->name, &r->conf);
    enum err e = disk_list(store_path(r->store, r->name, folder), nothing_each, NULL);
    bool there = e != ERR_NOTFOUND;
    if (e == OK || !there) /* records that were seen under the old one may be gone */
        e = store_epoch_next(r->store);
    if (e == OK && there && r->note_due)
        e = part_note_write(r->old, &r->note);
    if (e == OK && !there) {
        epoch_begin(p, store_epoch(r->store), 0);
    } else if (e == OK) {
        p->renewing = true;
        e = part_recovered(p, r->store, &r->known, why);
        p->renewing = false;
    } else {
        buf_printf(why, "%s: %s", folder, err_text(e));
    }
    if (e == OK && p->failed) {
        buf_printf(why, "%s: what was written last can't be written once more", folder);
        e = ERR_IO;
    }
    if (e == OK)
        r->made = p;
    else
        part_free(p);
    r->lost = there ? e : OK;
    return e;
}

struct part *part_renew_end(struct part_renewal *r)
{
    struct part *old = r->old, *made = r->made;
    old->renewing = false;
    if (made) {
        made->renewed_until_ms = loop_now_ms(old->shard->loop) + RENEWED_MS;
        made->noted = MIN(made->noted, old->noted); /* no checkpoint that is written has what the renewal started from */
        part_leave(old, KAFKA_KAFKA_STORAGE_ERROR);
        old->shard->changed = true;
        part_tell(old);
    } else if (r->lost != OK && old->state == PART_LOADED && !old->suspect) {
        sync_failed(old, r->lost); /* the failed sync may have been the renewal's, of the same files: the old one's next would report success for bytes that are gone */
    }
    mem_free(r->known.epochs);
    mem_free(r);
    return made;
}

void part_reap(struct part *p)
{
    if (!p->gone || p->pins || !list_empty(&p->moved_link))
        return;
    if (p->grave)
        shard_remove_later(p->shard, p->grave, 0, true);
    part_free(p);
}

void part_unpin(struct part *p)
{
    MUST(p->pins > 0);
    p->pins--;
    part_reap(p);
}

/* ---- for the checkpoint ---- */

void part_describe(const struct part *p, struct stored *st)
{
    *st = (struct stored){.instance = p->instance, .log_start = p->log_start, .durable = MAX(p->durable, p->log_start), .stable = p->stable, .cleaned = p->cleaned,
                          .oldest_ms = p->oldest_ms, .bytes = p->bytes, .active = p->active, .active_bytes = p->active_bytes, .segs_n = p->shelved_segs,
                          .cut = p->cut, .sparse = p->sparse, .known = !p->gaps, .epochs = p->epochs, .epochs_n = p->epochs_n};
    st->clean = !p->offline && p->durable == p->written;
    if (p->state != PART_LOADED)
        return;
    const struct seg *last = seg_last(p);
    st->clean = st->clean && last->base <= st->durable;
    st->oldest_ms = p->log->segs[0].max_ms;
    st->active = st->clean ? last->base : 0;
    st->active_bytes = st->clean ? last->bytes : 0;
    st->segs_n = p->log->segs_n;
}
