/* store.c - the data folder: its lock, its generation, and what the last life left.
 *
 *     log_store_open(): lock -> list -> checkpoints merged -> store.state says "not clean", durably -> shards may begin
 *                       store.checkpoint keeps what shards have not yet described themselves
 *     log_store_close(): (all shards have stopped) -> entries of what nobody opened -> store.state says "clean"
 *
 * The generation counts lives. A partition's entry is trusted as a description of what is on disk only when it is of the generation that
 * store.state says stopped cleanly. The table of entries is not changed while shards exist; each entry is touched by the one loop that
 * owns the partition of that name.
 */
#include "log_int.h"

#include <pthread.h>
#include <stdio.h>

void log_store_conf_default(struct log_store_conf *c)
{
    *c = (struct log_store_conf){.reserve_bytes = 256u << 20,
                                 .files_max = 4096,
                                 .checkpoint_ms = 60000,
                                 .housekeeping_ms = 5000,
                                 .age_look_ms = 300000, /* log.retention.check.interval.ms */
                                 .compaction_bytes = 64u << 20,
                                 .write_soon_bytes = 128u << 10};
}

const char *store_path(const struct log_store *l, const char *name, char out[LOG_PATH_MAX])
{
    int n = snprintf(out, LOG_PATH_MAX, "%s/%s", l->dir, name);
    MUST(n > 0 && n < LOG_PATH_MAX);
    return out;
}

static void store_free(struct log_store *l)
{
    for (struct table_slot *s = NULL; (s = table_next(&l->stored, s));) stored_free(s->value);
    table_fini(&l->stored);
    if (l->lock >= 0)
        file_close(l->lock);
    mem_free(l->dir);
    mem_free(l);
}

/* The data folder, and its name: nothing in it is durable before that. */
static enum err store_make(const struct log_store *l)
{
    char parent[LOG_PATH_MAX];
    size_t n = strlen(l->dir);
    while (n > 1 && l->dir[n - 1] == '/') n--;
    while (n > 0 && l->dir[n - 1] != '/') n--;
    snprintf(parent, sizeof parent, "%.*s", (int)MAX(n, 1), n ? l->dir : ".");
    enum err e = disk_make_dir(l->dir);
    return e == OK ? disk_sync_dir(parent) : e;
}

static enum err store_lock(struct log_store *l, struct buf *why)
{
    char path[LOG_PATH_MAX];
    enum err e = store_make(l);
    if (e != OK) {
        buf_printf(why, "%s can't be made: %s", l->dir, err_text(e));
        return e;
    }
    e = disk_lock(store_path(l, "store.lock", path), &l->lock);
    if (e == OK)
        return OK;
    l->lock = -1;
    if (e == ERR_INUSE)
        buf_printf(why, "%s is in use by another process; only one may write there", l->dir);
    else
        buf_printf(why, "%s can't be locked: %s", path, err_text(e));
    return e;
}

/* Some partition has to be recovered though the stop was clean: a sync of it had failed, say. It gets a new epoch, too. */
static bool store_recovers(const struct log_store *l)
{
    for (struct table_slot *s = NULL; (s = table_next(&l->stored, s));) {
        const struct stored *st = s->value;
        if (st->folder && !(st->generation && st->clean && st->generation == l->clean_generation))
            return true;
    }
    return false;
}

int32_t store_epoch(const struct log_store *l) { return (int32_t)__atomic_load_n(&l->unclean, __ATOMIC_RELAXED); }

/* Nobody who holds the lock takes another one; only works in the pool take it. */
static pthread_mutex_t epochs_lock = PTHREAD_MUTEX_INITIALIZER;

enum err store_epoch_next(struct log_store *l)
{
    pthread_mutex_lock(&epochs_lock);
    __atomic_add_fetch(&l->unclean, 1, __ATOMIC_RELAXED);
    enum err e = store_state_write(l, false);
    pthread_mutex_unlock(&epochs_lock);
    return e;
}

/* Before anything is appended the mark of a clean stop is taken away, and the new generation is on disk. */
static enum err store_begin(struct log_store *l, struct buf *why)
{
    if ((!l->was_clean && l->generation > 0) || store_recovers(l))
        l->unclean++;
    l->generation++;
    enum err e = store_state_write(l, false);
    if (e == OK)
        e = store_note(l, false);
    if (e != OK)
        buf_printf(why, "what %s holds can't be noted: %s", l->dir, err_text(e));
    return e;
}

enum err log_store_open(const struct log_store_conf *conf, struct log_store **out, struct buf *why)
{
    size_t n = strlen(conf->dir);
    if (n == 0 || n > LOG_PATH_MAX - PART_NAME_MAX - 128) {
        buf_printf(why, "%s: the name of a data folder has up to %d bytes", conf->dir, LOG_PATH_MAX - PART_NAME_MAX - 128);
        return ERR_INVALID;
    }
    struct log_store *l = mem_new(MEM_PART, sizeof *l);
    l->conf = *conf;
    l->dir = mem_strdup(MEM_PART, conf->dir);
    l->conf.dir = l->dir;
    l->lock = -1;
    enum err e = store_lock(l, why);
    if (e == OK)
        e = checkpoints_read(l, why);
    if (e == OK)
        e = store_begin(l, why);
    if (e != OK) {
        store_free(l);
        return e;
    }
    *out = l;
    return OK;
}

bool log_store_was_clean(const struct log_store *l) { return l->was_clean; }

/* Partitions that are on disk and that no shard has opened keep their entries: a shard's next checkpoint speaks only of its own. When the
 * store closes, one that the last stop had not left clean is not made clean by this one. */
enum err store_note(const struct log_store *l, bool closing)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    checkpoint_begin(&b, l->generation, l->unclean);
    for (struct table_slot *s = NULL; (s = table_next(&l->stored, s));) {
        struct stored as = *(const struct stored *)s->value;
        if (!as.folder || as.generation == 0 || as.epochs_n == 0)
            continue;
        as.clean = as.clean && (!closing || as.generation == l->clean_generation);
        checkpoint_part(&b, s->key, &as);
    }
    checkpoint_end(&b);
    enum err e = file_replace(store_path(l, "store.checkpoint", path), b.p, b.n, 0600);
    buf_free(&b);
    return e;
}

struct stale {
    struct log_store *l;
    struct buf names;                  /* each with its NUL */
};
static void stale_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    struct stale *st = ctx;
    struct slice s = slice_cstr(name);
    if (!folder && slice_starts(s, SLICE("shard-")) && slice_ends(s, SLICE(".checkpoint")))
        buf_add(&st->names, name, s.n + 1);
}

/* Checkpoints of shards that this life had not: their partitions have been noted by others. */
static void store_tidy(struct log_store *l)
{
    char path[LOG_PATH_MAX];
    struct stale st = {.l = l};
    if (disk_list(l->dir, stale_each, &st) != OK)
        buf_clear(&st.names);
    for (size_t at = 0; at < st.names.n; at += strlen(st.names.p + at) + 1) {
        struct buf b = {0};
        const char *name = st.names.p + at;
        bool stale = file_read(store_path(l, name, path), &b, CHECKPOINT_BYTES_MAX) == OK && checkpoint_generation(buf_slice(&b)) < l->generation;
        buf_free(&b);
        if (stale && disk_remove(path) != OK)
            log_warn("log", "%s is no longer needed and can't be removed", path);
    }
    buf_free(&st.names);
}

void log_store_close(struct log_store *l)
{
    if (!l)
        return;
    enum err e = l->failed ? ERR_IO : store_note(l, true);
    if (e == OK) {
        store_tidy(l);
        e = store_state_write(l, true);
    }
    if (e != OK)
        log_error("log", "%s: the stop can't be noted as clean: %s; the next start verifies what was written last", l->dir, err_text(e));
    store_free(l);
}
