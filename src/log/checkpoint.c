/* checkpoint.c - what the log notes of its partitions, so that a start needn't read them.
 *
 * DIR/shard-<index>.checkpoint, written by each shard from time to time and when it stops; DIR/store.checkpoint, written at start
 * and by log_store_close() for partitions that no shard has opened in that life. All of one format (fields.c):
 *
 *     magic "WLCP", generation u64, unclean u32, number of partitions u32, then for each:
 *     name u16+bytes, instance u64, flags u16 (1 all of it durable, 2 compacted), cut i64 (-1), log start i64, durable i64, stable i64, cleaned i64, oldest timestamp i64,
 *     bytes u64, active segment i64, its length u64, segments u32, epochs u16, each: epoch i32, offset i64
 *
 * The number of shards may change between two lives, so all files are merged; for each partition the highest generation wins, and a shard's file over
 * the store's of the same one. What an
 * entry says is trusted only for the folder that it was written for (instance), because a partition of the same name may have been made
 * since; after an unclean stop only durable, log start, cleaned and epochs are used of it.
 *
 * DIR/store.state says whether the last life stopped cleanly: magic "WLST", generation u64, unclean u32, clean u16. It is replaced,
 * durably, before anything else is written.
 */
#include "log_int.h"

#include <stdio.h>

#define CHECKPOINT_MAGIC 0x574c4350u
#define STATE_MAGIC 0x574c5354u
#define CHECKPOINT_COUNT_AT 16         /* where the number of partitions is */
enum { FLAG_CLEAN = 1, FLAG_SPARSE = 2, FLAG_KNOWN = 4 };

void stored_free(struct stored *st)
{
    if (!st)
        return;
    mem_free(st->epochs);
    mem_free(st);
}

/* ---- writing ---- */

void checkpoint_begin(struct buf *out, uint64_t generation, uint32_t unclean)
{
    buf_clear(out);
    add32(out, CHECKPOINT_MAGIC);
    add64(out, generation);
    add32(out, unclean);
    add32(out, 0);
}

void checkpoint_part(struct buf *out, const char *name, const struct stored *st)
{
    size_t n = strlen(name);
    add16(out, (uint16_t)n);
    buf_add(out, name, n);
    add64(out, st->instance);
    add16(out, (uint16_t)((st->clean ? FLAG_CLEAN : 0) | (st->sparse ? FLAG_SPARSE : 0) | (st->known ? FLAG_KNOWN : 0)));
    add64(out, (uint64_t)st->cut);
    add64(out, (uint64_t)st->log_start);
    add64(out, (uint64_t)st->durable);
    add64(out, (uint64_t)st->stable);
    add64(out, (uint64_t)st->cleaned);
    add64(out, (uint64_t)st->oldest_ms);
    add64(out, st->bytes);
    add64(out, (uint64_t)st->active);
    add64(out, st->active_bytes);
    add32(out, st->segs_n);
    add16(out, (uint16_t)st->epochs_n);
    for (uint32_t i = 0; i < st->epochs_n; i++) {
        add32(out, (uint32_t)st->epochs[i].epoch);
        add64(out, (uint64_t)st->epochs[i].offset);
    }
    put32(out->p + CHECKPOINT_COUNT_AT, get32(out->p + CHECKPOINT_COUNT_AT) + 1);
}

void checkpoint_end(struct buf *out) { add_crc(out); }

enum err store_state_write(const struct log_store *l, bool clean)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    add32(&b, STATE_MAGIC);
    add64(&b, l->generation);
    add32(&b, (uint32_t)store_epoch(l));
    add16(&b, clean);
    add_crc(&b);
    enum err e = file_replace(store_path(l, "store.state", path), b.p, b.n, 0600);
    buf_free(&b);
    return e;
}

/* ---- reading ---- */

static bool stored_sane(const struct stored *st)
{
    int64_t before = -1;
    for (uint32_t i = 0; i < st->epochs_n; i++) {
        if (st->epochs[i].epoch < 0 || st->epochs[i].offset < before || (i && st->epochs[i].epoch <= st->epochs[i - 1].epoch))
            return false;
        before = st->epochs[i].offset;
    }
    return st->epochs_n > 0 && st->log_start >= 0 && st->durable >= st->log_start && st->stable >= 0 && st->cleaned >= 0 && st->active >= 0 &&
           st->active <= st->durable && st->cut >= -1 && st->durable <= OFFSET_MAX && st->stable <= OFFSET_MAX && st->cut <= OFFSET_MAX;
}

static struct stored *entry_read(struct fields *f, struct slice *name)
{
    struct stored *st = mem_new(MEM_PART, sizeof *st);
    *name = take_bytes(f, take16(f));
    st->instance = take64(f);
    uint16_t flags = take16(f);
    st->clean = flags & FLAG_CLEAN;
    st->sparse = flags & FLAG_SPARSE;
    st->known = flags & FLAG_KNOWN;
    st->cut = (int64_t)take64(f);
    st->log_start = (int64_t)take64(f);
    st->durable = (int64_t)take64(f);
    st->stable = (int64_t)take64(f);
    st->cleaned = (int64_t)take64(f);
    st->oldest_ms = (int64_t)take64(f);
    st->bytes = take64(f);
    st->active = (int64_t)take64(f);
    st->active_bytes = take64(f);
    st->segs_n = take32(f);
    st->epochs_n = take16(f);
    if (f->bad || st->epochs_n > EPOCHS_MAX)
        st->epochs_n = 0;
    if (st->epochs_n)
        st->epochs = mem_new(MEM_PART, st->epochs_n * sizeof *st->epochs);
    for (uint32_t i = 0; i < st->epochs_n; i++) {
        st->epochs[i].epoch = (int32_t)take32(f);
        st->epochs[i].offset = (int64_t)take64(f);
    }
    if (!f->bad && stored_sane(st) && name->n > 0 && name->n <= PART_NAME_MAX)
        return st;
    f->bad = true;
    stored_free(st);
    return NULL;
}

static void entry_merge(struct log_store *l, struct slice name, struct stored *st)
{
    struct stored *other = table_get(&l->stored, name);
    if (other && other->generation >= st->generation) {
        stored_free(st);
        return;
    }
    if (other)
        st->folder = other->folder;
    stored_free(table_put(&l->stored, name, st));
}

bool checkpoint_merge(struct log_store *l, struct slice bytes)
{
    struct fields f;
    if (!fields_open(bytes, CHECKPOINT_MAGIC, &f))
        return false;
    uint64_t generation = take64(&f);
    uint32_t unclean = take32(&f), n = take32(&f);
    if (n > STORED_PARTS_MAX)
        return false;
    for (; n && !f.bad; n--) {
        struct slice name;
        struct stored *st = entry_read(&f, &name);
        if (!st)
            break;
        st->generation = generation;
        entry_merge(l, name, st);
    }
    l->generation = MAX(l->generation, generation);
    l->unclean = MAX(l->unclean, unclean);
    return !f.bad && f.n == 0;
}

uint64_t checkpoint_generation(struct slice bytes)
{
    struct fields f;
    return fields_open(bytes, CHECKPOINT_MAGIC, &f) ? take64(&f) : UINT64_MAX;
}

static bool state_read(struct log_store *l, struct slice bytes)
{
    struct fields f;
    if (!fields_open(bytes, STATE_MAGIC, &f))
        return false;
    uint64_t generation = take64(&f);
    uint32_t unclean = take32(&f);
    bool clean = take16(&f) == 1;
    if (f.bad)
        return false;
    l->generation = MAX(l->generation, generation);
    l->unclean = MAX(l->unclean, unclean);
    l->was_clean = clean;
    l->clean_generation = clean ? generation : 0;
    return true;
}

/* ---- the folder ---- */

struct found {
    struct log_store *l;
    struct list gone;                  /* struct gone: folders to be removed */
    struct list checkpoints;           /* struct gone */
    struct list strays;                /* struct gone: halves of files that were to be replaced */
};
struct gone {
    struct list link;
    char name[PART_NAME_MAX + 64];
};

static void found_note(struct list *to, const char *name, bool last)
{
    struct gone *g = mem_new(MEM_PART, sizeof *g);
    snprintf(g->name, sizeof g->name, "%s", name);
    if (last)
        list_push(to, &g->link);
    else
        list_push_front(to, &g->link);
}

static void found_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    struct found *f = ctx;
    struct slice s = slice_cstr(name);
    if (!folder) {
        if (slice_ends(s, SLICE(".checkpoint")))
            found_note(&f->checkpoints, name, slice_is(s, "store.checkpoint"));
        else if (slice_ends(s, SLICE(".tmp")) && slice_starts(s, SLICE("s")))
            found_note(&f->strays, name, true);
        return;
    }
    if (slice_ends(s, SLICE(EXT_DELETED))) {
        found_note(&f->gone, name, true);
        return;
    }
    if (s.n > PART_NAME_MAX || table_get(&f->l->stored, s))
        return;
    struct stored *st = mem_new(MEM_PART, sizeof *st);
    st->folder = true;
    table_put(&f->l->stored, s, st);
}

/* Files of one removed partition; what can't be removed now is tried again at the next start. */
struct sweep {
    const char *folder;
    uint32_t failed;
};
static void sweep_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    struct sweep *s = ctx;
    char path[LOG_PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", s->folder, name) >= sizeof path || folder || disk_remove(path) != OK)
        s->failed++;
}

enum err folder_remove(const char *path)
{
    struct sweep s = {.folder = path};
    enum err e = disk_list(path, sweep_each, &s);
    if (e == ERR_NOTFOUND)
        return OK;
    return e == OK ? disk_remove_dir(path) : e;
}

static void gone_remove(struct log_store *l, struct gone *g)
{
    char path[LOG_PATH_MAX];
    enum err e = folder_remove(store_path(l, g->name, path));
    if (e != OK)
        log_warn("log", "%s: a deleted partition can't be removed: %s; remove the folder by hand", path, err_text(e));
    list_del(&g->link);
    mem_free(g);
}

static void stray_remove(struct log_store *l, struct gone *g)
{
    char path[LOG_PATH_MAX];
    if (disk_remove(store_path(l, g->name, path)) != OK)
        log_warn("log", "%s is left over and can't be removed", path);
    list_del(&g->link);
    mem_free(g);
}

static enum err checkpoint_file_read(struct log_store *l, struct gone *g, struct buf *why)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    enum err e = file_read(store_path(l, g->name, path), &b, CHECKPOINT_BYTES_MAX);
    if (e == ERR_NOTFOUND)
        e = OK;
    else if (e != OK)
        buf_printf(why, "%s can't be read: %s", path, err_text(e));
    else if (!checkpoint_merge(l, buf_slice(&b)))
        log_warn("log", "%s is damaged; the partitions that it describes are verified from their beginning", path);
    buf_free(&b);
    list_del(&g->link);
    mem_free(g);
    return e;
}

enum err checkpoints_read(struct log_store *l, struct buf *why)
{
    char path[LOG_PATH_MAX];
    struct found f = {.l = l};
    list_init(&f.gone);
    list_init(&f.checkpoints);
    list_init(&f.strays);
    enum err e = disk_list(l->dir, found_each, &f);
    if (e != OK)
        buf_printf(why, "%s can't be listed: %s", l->dir, err_text(e));
    LIST_FOREACH(it, &f.strays) stray_remove(l, CONTAINER_OF(it, struct gone, link));
    LIST_FOREACH(it, &f.gone) gone_remove(l, CONTAINER_OF(it, struct gone, link));
    LIST_FOREACH(it, &f.checkpoints) {
        struct gone *g = CONTAINER_OF(it, struct gone, link);
        enum err failed = checkpoint_file_read(l, g, why);
        e = e == OK ? failed : e;
    }
    if (e != OK)
        return e;
    struct buf b = {0};
    e = file_read(store_path(l, "store.state", path), &b, 4096);
    if (e == OK && !state_read(l, buf_slice(&b)))
        log_warn("log", "%s is damaged; all partitions are verified", path);
    if (e != OK && e != ERR_NOTFOUND)
        buf_printf(why, "%s can't be read: %s", path, err_text(e));
    buf_free(&b);
    return e == ERR_NOTFOUND ? OK : e;
}
