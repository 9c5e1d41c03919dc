/* db.c - the database: what the store keeps, as statements of SQLite.
 *
 *     history(id, key, created, version, lease, value, deleted)   one row for each change; id = revision << 20 | number within the revision
 *     history_key(key [, id])                                     SQLite keeps the rowid with each entry: versions of a key in order
 *     leases(id, ttl_s)
 *     samples(revision, wall_s)                                   when a revision was, for compaction by age
 *     meta(name, value)                                           compact, cleaned: the compact revision; the one up to which rows are gone
 *
 * The revision itself is that of the last row, which compaction never takes. Everything here runs as a job (jobs.c), or while none runs.
 */
#include "ctl_int.h"

#include <sqlite3.h>
#include <stdio.h>

#define FORMAT 1
#define RENEW_BYTES (256u << 10) /* of the WAL at a time */
#define APPLICATION_ID 0x57656972 /* "Weir" */

enum statement {
    ST_BEGIN, ST_COMMIT, ST_ROLLBACK, ST_ROW, ST_META, ST_LEASE, ST_UNLEASE, ST_SAMPLE, ST_FORGET, ST_KEYS, ST_KEYS_TO, ST_BY_ID, ST_VALUE, ST_SLICE, ST_PREV,
    ST_WINDOW, ST_CLEAN, ST_VACUUM, ST_PAGES, ST_FREE, STATEMENTS
};
#define COLUMNS "id, key, created, version, lease, value, deleted"
static const char *const statement_texts[STATEMENTS] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_ROW] = ("INSERT INTO history(" COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
    [ST_META] = "INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)",
    [ST_LEASE] = "INSERT OR REPLACE INTO leases(id, ttl_s) VALUES(?1, ?2)",
    [ST_UNLEASE] = "DELETE FROM leases WHERE id = ?1",
    [ST_SAMPLE] = "INSERT OR IGNORE INTO samples(revision, wall_s) VALUES(?1, ?2)",
    [ST_FORGET] = "DELETE FROM samples WHERE revision < ?1",
    [ST_KEYS] = "SELECT max(id) FROM history WHERE key >= ?1 AND id < ?2 GROUP BY key ORDER BY key",
    [ST_KEYS_TO] = "SELECT max(id) FROM history WHERE key >= ?1 AND key < ?3 AND id < ?2 GROUP BY key ORDER BY key",
    [ST_BY_ID] = ("SELECT " COLUMNS " FROM history WHERE id = ?1"),
    [ST_VALUE] = "SELECT value FROM history WHERE id = ?1",
    [ST_SLICE] = ("SELECT " COLUMNS " FROM history WHERE id >= ?1 AND id < ?2 ORDER BY id"),
    [ST_PREV] = ("SELECT " COLUMNS " FROM history WHERE key = ?1 AND id < ?2 ORDER BY id DESC LIMIT 1"),
    [ST_WINDOW] = "SELECT id FROM history WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3",
    /* What another row of the same key, still before the compact revision's end, has replaced; and deletions before the compact revision. */
    [ST_CLEAN] = ("DELETE FROM history WHERE id > ?1 AND id <= ?2 AND ((deleted AND id < ?3) OR EXISTS(SELECT 1 FROM history AS newer WHERE "
                 "newer.key = history.key AND newer.id > history.id AND newer.id < ?4))"),
    [ST_VACUUM] = "PRAGMA incremental_vacuum(500)",
    [ST_PAGES] = "PRAGMA page_count",
    [ST_FREE] = "PRAGMA freelist_count",
};
_Static_assert(VACUUM_PAGES == 500, "as ST_VACUUM says");

static const char schema[] = "CREATE TABLE history(id INTEGER PRIMARY KEY, key BLOB NOT NULL, created INTEGER NOT NULL, version INTEGER NOT NULL, "
                             "lease INTEGER NOT NULL, value BLOB, deleted INTEGER NOT NULL);"
                             "CREATE INDEX history_key ON history(key);"
                             "CREATE TABLE leases(id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL);"
                             "CREATE TABLE samples(revision INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL);"
                             "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;";
/* In this order: those of the file before it has tables, the journal last. */
static const char settings[] = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA temp_store=MEMORY;"
                               "PRAGMA cache_size=-4096; PRAGMA trusted_schema=OFF; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                               "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=16777216;";

struct db {
    sqlite3 *sql;
    sqlite3_stmt *st[STATEMENTS];
    struct sqlite3_vfs *vfs;
    struct disk disk;
    char vfs_name[32];
    uint64_t pages, free_pages, wal_pages; /* after the last job */
    bool corrupt;
};

/* ---- statements ---- */

static int exec(struct db *db, enum statement st) /* one that gives no rows that matter; its parameters are bound */
{
    int rc;
    while ((rc = sqlite3_step(db->st[st])) == SQLITE_ROW) {}
    (void)sqlite3_reset(db->st[st]);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void bind_slice(sqlite3_stmt *s, int i, struct slice b)
{
    (void)sqlite3_bind_blob64(s, i, b.p ? b.p : "", b.n, SQLITE_STATIC);
}

static struct slice column_slice(sqlite3_stmt *s, int i)
{
    const char *p = sqlite3_column_blob(s, i);
    return slice_of(p, (size_t)sqlite3_column_bytes(s, i));
}

static int exec_numbers(struct db *db, enum statement st, int64_t a, int64_t b, int params)
{
    (void)sqlite3_bind_int64(db->st[st], 1, a);
    if (params > 1) (void)sqlite3_bind_int64(db->st[st], 2, b);
    return exec(db, st);
}

static int meta_put(struct db *db, const char *name, int64_t value)
{
    (void)sqlite3_bind_text(db->st[ST_META], 1, name, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(db->st[ST_META], 2, value);
    return exec(db, ST_META);
}

/* The row that s stands on. */
static struct kv *row_kv(sqlite3_stmt *s)
{
    bool dead = sqlite3_column_int(s, 6) != 0;
    struct kv *k = dead ? kv_new_dead(NULL, column_slice(s, 1)) : kv_new(NULL, column_slice(s, 1), column_slice(s, 5), sqlite3_column_int64(s, 4));
    k->id = sqlite3_column_int64(s, 0);
    kv_born(k, sqlite3_column_int64(s, 2), sqlite3_column_int64(s, 3));
    return k;
}

/* ---- what went wrong ---- */

/* A sentence with file and cause. */
static void say(struct db *db, int rc, struct buf *out)
{
    const struct disk *d = &db->disk;
    if (d->sync_failed)
        buf_printf(out, "the control store could not sync %s (%s): what the disk holds is not certain, so nothing is written until the store is opened again; "
                   "look at the disk, then restart", d->file, err_text(d->err));
    else if (d->err != OK) buf_printf(out, "the control store could not %s %s: %s", d->verb, d->file, err_text(d->err));
    else if (db->corrupt) buf_printf(out, "the control store's database is damaged (%s): restore it, or stop and remove its folder", sqlite3_errstr(rc));
    else buf_printf(out, "the control store's database failed: %s (SQLite %d)", db->sql ? sqlite3_errmsg(db->sql) : sqlite3_errstr(rc), rc);
}

static void job_begin(struct db *db)
{
    db->disk.err = OK;
    db->disk.verb = "";
}

/* rc ended the job. in_doubt: what it wrote may be on the disk nevertheless. */
static void job_fail(struct db *db, struct job *j, int rc, bool in_doubt)
{
    int primary = rc & 0xff;
    db->corrupt |= primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
    struct buf why = {0};
    say(db, rc, &why);
    snprintf(j->why, sizeof j->why, "%s", why.p);
    buf_free(&why);
    if (db->corrupt) j->error = CTL_CORRUPT;
    else if (primary == SQLITE_FULL || db->disk.err == ERR_NOSPACE) j->error = CTL_DISK_FULL;
    else j->error = CTL_DISK_FAILED;
    if (in_doubt && j->error == CTL_DISK_FAILED) j->error = CTL_UNKNOWN;
    struct disk d = db->disk; /* a rollback may fail, too, for the same reason */
    if (db->sql && !sqlite3_get_autocommit(db->sql)) (void)exec(db, ST_ROLLBACK);
    bool sync_failed = db->disk.sync_failed;
    db->disk = d;
    db->disk.sync_failed = sync_failed;
}

static uint64_t number_of(struct db *db, enum statement st)
{
    uint64_t n = sqlite3_step(db->st[st]) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(db->st[st], 0) : 0;
    (void)sqlite3_reset(db->st[st]);
    return n;
}

static void measure(struct db *db)
{
    db->pages = number_of(db, ST_PAGES);
    db->free_pages = number_of(db, ST_FREE);
}

void db_sizes(struct own *o)
{
    const struct db *db = o->db;
    o->bytes = (db->pages + db->wal_pages) * 4096;
    o->bytes_used = (db->pages - MIN(db->free_pages, db->pages)) * 4096;
    o->free_pages = db->free_pages;
    o->wal_pages = db->wal_pages;
    o->broken = db->disk.sync_failed;
    o->corrupt = db->corrupt;
}

/* ---- jobs ---- */

static int row_put(struct db *db, const struct kv *k)
{
    sqlite3_stmt *s = db->st[ST_ROW];
    bool dead = kv_is(k, KV_DEAD);
    (void)sqlite3_bind_int64(s, 1, k->id);
    bind_slice(s, 2, kv_key(k));
    (void)sqlite3_bind_int64(s, 3, kv_create(k));
    (void)sqlite3_bind_int64(s, 4, kv_version(k));
    (void)sqlite3_bind_int64(s, 5, kv_lease(k));
    if (dead) (void)sqlite3_bind_null(s, 6);
    else bind_slice(s, 6, kv_value(k));
    (void)sqlite3_bind_int(s, 7, dead);
    return exec(db, ST_ROW);
}

static int rows_put(struct own *o, struct db *db)
{
    const struct batch *b = &o->batch;
    int rc = exec(db, ST_BEGIN);
    for (size_t i = 0; rc == SQLITE_OK && i < b->changes.n; i++) rc = row_put(db, b->changes.v[i].now);
    for (struct list *it = b->granted.next; rc == SQLITE_OK && it != &b->granted; it = it->next) {
        const struct lease *l = CONTAINER_OF(it, struct lease, link);
        rc = exec_numbers(db, ST_LEASE, l->id, l->ttl_s, 2);
    }
    for (struct list *it = b->revoked.next; rc == SQLITE_OK && it != &b->revoked; it = it->next)
        rc = exec_numbers(db, ST_UNLEASE, CONTAINER_OF(it, struct lease, link)->id, 0, 1);
    if (rc == SQLITE_OK && b->compact != o->compact) rc = meta_put(db, "compact", b->compact);
    return rc;
}

void db_commit(struct own *o, struct job *j)
{
    struct db *db = o->db;
    job_begin(db);
    int rc = rows_put(o, db);
    bool committing = rc == SQLITE_OK;
    if (committing) rc = exec(db, ST_COMMIT);
    if (rc != SQLITE_OK) job_fail(db, j, rc, committing);
    else measure(db);
}

static void past_add(struct past *p, struct kv *k)
{
    ARRAY_GROW(MEM_CTL, p->kvs, p->n, p->cap);
    p->kvs[p->n++] = k;
}

/* Which of its keys a read wants to have, not only counted. */
static bool past_wants(const struct past *p)
{
    const struct ctl_range *r = p->range;
    bool plain = r->order != CTL_SORT_DESCEND && r->target == CTL_SORT_KEY && !r->min_mod_revision && !r->max_mod_revision && !r->min_create_revision &&
                 !r->max_create_revision;
    return !r->count_only && !(plain && r->limit > 0 && p->n > (uint64_t)r->limit);
}

/* Counts the row, and takes it when it is wanted. */
static int past_row(struct db *db, struct past *p, int64_t id)
{
    sqlite3_stmt *s = db->st[ST_BY_ID];
    (void)sqlite3_bind_int64(s, 1, id);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW && sqlite3_column_int(s, 6) == 0) {
        p->count++;
        if (past_wants(p)) past_add(p, row_kv(s));
    }
    (void)sqlite3_reset(s);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

/* What the ranges of one call may still read. */
struct past_left {
    uint64_t keys, bytes;
};

/* Counts one more that was read, the last of p's when it was taken (there were n before). */
static void past_count(struct past *p, size_t n, struct past_left *left, struct job *j)
{
    size_t bytes = p->n > n ? kv_bytes(p->kvs[n]) : 0;
    j->past_bytes += bytes;
    left->keys -= MIN(left->keys, 1u);
    left->bytes -= MIN(left->bytes, bytes);
    p->much = !left->keys || !left->bytes;
}

static int past_read(struct db *db, struct past *p, struct past_left *left, struct job *j)
{
    const struct ctl_range *r = p->range;
    struct buf after = {0}; /* the next possible key: the end of the range of one */
    bool open = end_is_open(r->end);
    sqlite3_stmt *s = db->st[open ? ST_KEYS : ST_KEYS_TO];
    bind_slice(s, 1, r->key);
    (void)sqlite3_bind_int64(s, 2, id_of(r->revision + 1, 0));
    if (!open && r->end.n) bind_slice(s, 3, r->end);
    if (!open && !r->end.n) {
        buf_add_slice(&after, r->key);
        buf_addc(&after, '\0');
        bind_slice(s, 3, buf_slice(&after));
    }
    p->count = 0;
    int rc, inner = SQLITE_OK;
    p->much = !left->keys || !left->bytes;
    while (inner == SQLITE_OK && !p->much && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        size_t n = p->n;
        inner = past_row(db, p, sqlite3_column_int64(s, 0));
        past_count(p, n, left, j);
    }
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    buf_free(&after);
    if (inner != SQLITE_OK || p->much) return inner;
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Values, in the order of the keys, until there are enough for one job. */
static int values_read(struct db *db, struct past *p, struct job *j)
{
    int rc = SQLITE_OK;
    if (!p->values) p->values = mem_new(MEM_CTL, p->n * sizeof(struct value *));
    for (; rc == SQLITE_OK && p->at < p->n && j->values < VALUES_MAX && j->values_bytes < VALUES_BYTES; p->at++) {
        sqlite3_stmt *s = db->st[ST_VALUE];
        (void)sqlite3_bind_int64(s, 1, p->kvs[p->at]->id);
        rc = sqlite3_step(s);
        bool there = rc == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == p->kvs[p->at]->value_n;
        if (there) p->values[p->at] = value_new(column_slice(s, 0));
        if (rc == SQLITE_ROW || rc == SQLITE_DONE) rc = SQLITE_OK; /* none: the key has another value meanwhile, and history was compacted */
        (void)sqlite3_reset(s);
        j->values++;
        j->values_bytes += p->kvs[p->at]->value_n;
    }
    if (p->at == p->n) p->count = 0;
    return rc;
}

/* What is left of one call waits for the next job when this one holds enough. */
static int past_call(struct db *db, const struct ctl_call *call, struct job *j)
{
    bool bound = call->op.kind == CTL_TXN && !call->exempt;
    struct past_left left = {bound ? TXN_KEYS_MAX : UINT64_MAX, bound ? TXN_PAST_BYTES_MAX : UINT64_MAX};
    int rc = SQLITE_OK;
    for (struct past *p = call->priv; rc == SQLITE_OK && p; p = p->next) {
        if (p->count >= 0) continue;
        if (!p->range) rc = values_read(db, p, j);
        else if (bound || j->past_bytes < PAST_BYTES) rc = past_read(db, p, &left, j);
    }
    return rc;
}

void db_past(struct own *o, struct job *j)
{
    struct db *db = o->db;
    job_begin(db);
    int rc = SQLITE_OK;
    j->values = j->values_bytes = j->past_bytes = 0;
    for (struct list *it = j->calls.next; rc == SQLITE_OK && it != &j->calls; it = it->next)
        if (j->past_bytes < PAST_BYTES) rc = past_call(db, CONTAINER_OF(it, struct ctl_call, link), j);
    if (rc != SQLITE_OK) job_fail(db, j, rc, false);
}

void db_row_missing(struct own *o, struct job *j)
{
    job_fail(o->db, j, SQLITE_CORRUPT, false);
    db_sizes(o);
}

static int prev_read(struct db *db, const struct kv *k, int64_t id, struct kv **out)
{
    sqlite3_stmt *s = db->st[ST_PREV];
    bind_slice(s, 1, kv_key(k));
    (void)sqlite3_bind_int64(s, 2, id);
    int rc = sqlite3_step(s);
    *out = rc == SQLITE_ROW ? row_kv(s) : NULL;
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    if (*out && kv_is(*out, KV_DEAD)) {
        kv_unref(*out);
        *out = NULL;
    }
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Rows from j->from on, until there are enough and a revision ends; j->to becomes the last revision that was read whole. */
void db_slice(struct own *o, struct job *j)
{
    struct db *db = o->db;
    job_begin(db);
    sqlite3_stmt *s = db->st[ST_SLICE];
    (void)sqlite3_bind_int64(s, 1, id_of(j->from, 0));
    (void)sqlite3_bind_int64(s, 2, id_of(j->to + 1, 0));
    size_t bytes = 0;
    int64_t last = 0;
    int rc, inner = SQLITE_OK;
    while (inner == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(s, 0);
        if ((j->slice.n >= SLICE_ROWS || bytes >= SLICE_BYTES) && id >> ID_SHIFT != last) {
            j->to = last;
            rc = SQLITE_DONE;
            break;
        }
        last = id >> ID_SHIFT;
        struct kv *k = row_kv(s), *prev = NULL;
        if (j->want_prev) inner = prev_read(db, k, id, &prev);
        changes_add(&j->slice, k, prev);
        bytes += kv_bytes(k);
    }
    (void)sqlite3_reset(s);
    if (inner != SQLITE_OK) rc = inner;
    if (rc != SQLITE_DONE) job_fail(db, j, rc, false);
}

static int clean(struct db *db, struct job *j)
{
    int64_t end = id_of(j->compact + 1, 0);
    sqlite3_stmt *s = db->st[ST_WINDOW];
    (void)sqlite3_bind_int64(s, 1, j->from);
    (void)sqlite3_bind_int64(s, 2, end);
    (void)sqlite3_bind_int64(s, 3, SLICE_ROWS - 1);
    int rc = sqlite3_step(s);
    j->to = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : end - 1;
    j->over = rc == SQLITE_DONE;
    (void)sqlite3_reset(s);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return rc;
    rc = exec(db, ST_BEGIN);
    s = db->st[ST_CLEAN];
    (void)sqlite3_bind_int64(s, 1, j->from);
    (void)sqlite3_bind_int64(s, 2, j->to);
    (void)sqlite3_bind_int64(s, 3, id_of(j->compact, 0));
    (void)sqlite3_bind_int64(s, 4, end);
    if (rc == SQLITE_OK) rc = exec(db, ST_CLEAN);
    if (rc == SQLITE_OK) j->rows = (uint64_t)sqlite3_changes64(db->sql);
    if (rc == SQLITE_OK && j->over) rc = meta_put(db, "cleaned", j->compact);
    return rc == SQLITE_OK ? exec(db, ST_COMMIT) : rc;
}

void db_clean(struct own *o, struct job *j)
{
    job_begin(o->db);
    j->rows = 0;
    int rc = clean(o->db, j);
    if (rc != SQLITE_OK) job_fail(o->db, j, rc, false);
    else measure(o->db);
}

void db_vacuum(struct own *o, struct job *j)
{
    job_begin(o->db);
    int rc = exec(o->db, ST_VACUUM);
    if (rc != SQLITE_OK) job_fail(o->db, j, rc, false);
    else measure(o->db);
}

void db_release(struct own *o) { (void)sqlite3_db_release_memory(o->db->sql); }

void db_checkpoint(struct own *o, struct job *j)
{
    struct db *db = o->db;
    job_begin(db);
    int frames = 0, copied = 0;
    int rc = sqlite3_wal_checkpoint_v2(db->sql, NULL, j->over ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
    if (rc != SQLITE_OK) job_fail(db, j, rc, false);
    else db->wal_pages = (uint64_t)MAX(frames - copied, 0);
}

void db_sample(struct own *o, struct job *j)
{
    struct db *db = o->db;
    job_begin(db);
    int rc = exec(db, ST_BEGIN);
    if (rc == SQLITE_OK) rc = exec_numbers(db, ST_SAMPLE, j->revision, j->wall_s, 2);
    if (rc == SQLITE_OK) rc = exec_numbers(db, ST_FORGET, j->forget, 0, 1);
    if (rc == SQLITE_OK) rc = exec(db, ST_COMMIT);
    if (rc != SQLITE_OK) job_fail(db, j, rc, false);
    else measure(db);
}

/* ---- opening ---- */

static int wal_grown(void *ctx, sqlite3 *sql, const char *name, int pages)
{
    ((struct db *)ctx)->wal_pages = (uint64_t)MAX(pages, 0);
    return SQLITE_OK;
}

static int each_row(struct db *db, const char *text, void (*row)(struct own *o, sqlite3_stmt *s), struct own *o)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->sql, text, -1, &s, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        row(o, s);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(s);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void meta_row(struct own *o, sqlite3_stmt *s)
{
    struct slice name = column_slice(s, 0);
    if (slice_is(name, "compact")) o->compact = sqlite3_column_int64(s, 1);
    if (slice_is(name, "cleaned")) o->cleaned = sqlite3_column_int64(s, 1);
}

static void revision_row(struct own *o, sqlite3_stmt *s) { o->revision = MAX(1, sqlite3_column_int64(s, 0) >> ID_SHIFT); }

static void lease_row(struct own *o, sqlite3_stmt *s)
{
    (void)lease_add(o, sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1), LEASE_LIVE);
}

static void sample_row(struct own *o, sqlite3_stmt *s)
{
    if (o->samples_n < SAMPLES_MAX)
        o->samples[o->samples_n++] = (struct sample){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1)};
}

/* The columns: id, key, created, version, lease, the value's length, and the value if it is small. */
static void key_row(struct own *o, sqlite3_stmt *s)
{
    struct slice key = column_slice(s, 1);
    int64_t lease = sqlite3_column_int64(s, 4);
    size_t n = (size_t)sqlite3_column_int64(s, 5);
    bool small = n <= o->pool.small_max;
    struct kv *k = small ? kv_new(&o->pool, key, column_slice(s, 6), lease) : kv_new_cold(&o->pool, key, n, lease);
    k->id = sqlite3_column_int64(s, 0);
    kv_born(k, sqlite3_column_int64(s, 2), sqlite3_column_int64(s, 3));
    MUST(!tree_put(&o->index, k));
    index_enter(o, k);
}

/* Every key's last version, by way of the index of keys, without the values that are not small: their pages are not read. A deletion has none. */
static int keys_read(struct own *o, struct db *db)
{
    struct buf text = {0};
    buf_printf(&text, "SELECT h.id, h.key, h.created, h.version, h.lease, length(h.value), CASE WHEN length(h.value) <= %zu THEN h.value END "
               "FROM (SELECT max(id) AS last FROM history GROUP BY key) AS k CROSS JOIN history AS h ON h.id = k.last WHERE h.value IS NOT NULL", o->pool.small_max);
    int rc = each_row(db, text.p, key_row, o);
    buf_free(&text);
    return rc;
}

static int all_read(struct own *o, struct db *db)
{
    int rc = each_row(db, "SELECT name, value FROM meta", meta_row, o);
    if (rc == SQLITE_OK) rc = each_row(db, "SELECT max(id) FROM history", revision_row, o);
    if (rc == SQLITE_OK) rc = each_row(db, "SELECT id, ttl_s FROM leases", lease_row, o);
    if (rc == SQLITE_OK) rc = each_row(db, "SELECT revision, wall_s FROM samples ORDER BY revision LIMIT 16", sample_row, o);
    return rc == SQLITE_OK ? keys_read(o, db) : rc;
}

static int number(struct db *db, const char *text, int64_t *out)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->sql, text, -1, &s, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        *out = sqlite3_column_int64(s, 0);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(s);
    return rc;
}

static int tables_make(struct db *db)
{
    struct buf text = {0};
    buf_printf(&text, "BEGIN; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;", schema, APPLICATION_ID, FORMAT);
    int rc = sqlite3_exec(db->sql, text.p, NULL, NULL, NULL);
    buf_free(&text);
    return rc;
}

static enum err wal_copy(int fd, uint64_t bytes)
{
    char *p = mem_new(MEM_CTL, RENEW_BYTES);
    enum err e = OK;
    for (uint64_t at = 0, n, written; e == OK && at < bytes; at += n) {
        n = MIN(bytes - at, RENEW_BYTES);
        e = file_read_at(fd, at, p, n);
        struct iovec iov = {p, n};
        if (e == OK) e = disk_write_at(fd, at, &iov, 1, &written);
    }
    mem_free(p);
    return e == OK ? disk_sync(fd) : e;
}

/* Writes the WAL that is there once more, the same bytes, and syncs it: the life before may have met a failed sync, after which the kernel takes for clean what
 * never arrived. A later sync would then succeed without these bytes, their pages would go into the database, and a power loss would bring back a WAL that
 * ends earlier: replayed over newer pages, it would damage the database. */
static int wal_renew(struct own *o, struct db *db)
{
    struct buf path = {0};
    int fd;
    uint64_t bytes;
    buf_printf(&path, "%s-wal", o->path);
    enum err e = disk_open(path.p, false, &fd, &bytes);
    if (e == OK) {
        e = wal_copy(fd, bytes);
        file_close(fd);
        if (e == OK) e = disk_sync_dir(o->dir);
    } else if (e == ERR_NOTFOUND) e = OK;
    if (e != OK) {
        db->disk.err = e;
        db->disk.verb = "renew";
        snprintf(db->disk.file, sizeof db->disk.file, "%s", path.p);
    }
    buf_free(&path);
    return e == OK ? SQLITE_OK : SQLITE_IOERR;
}

/* Opens, makes the tables if there are none, and brings what the WAL holds into the database. *foreign: the file is another program's or another
 * version's. */
static int file_begin(struct own *o, struct db *db, bool *foreign)
{
    int64_t application = 0, format = 0, tables = 0;
    int rc = wal_renew(o, db);
    if (rc == SQLITE_OK) rc = sqlite3_open_v2(o->path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, db->vfs_name);
    if (rc == SQLITE_OK) (void)sqlite3_extended_result_codes(db->sql, 1);
    if (rc == SQLITE_OK) rc = sqlite3_exec(db->sql, settings, NULL, NULL, NULL);
    if (rc == SQLITE_OK) rc = number(db, "PRAGMA application_id", &application);
    if (rc == SQLITE_OK) rc = number(db, "PRAGMA user_version", &format);
    if (rc == SQLITE_OK) rc = number(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (rc != SQLITE_OK) return rc;
    *foreign = tables && (application != APPLICATION_ID || format != FORMAT);
    if (*foreign) return SQLITE_OK;
    if (!tables) rc = tables_make(db);
    if (rc == SQLITE_OK) rc = sqlite3_wal_checkpoint_v2(db->sql, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    for (int i = 0; rc == SQLITE_OK && i < STATEMENTS; i++)
        rc = sqlite3_prepare_v3(db->sql, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &db->st[i], NULL);
    return rc;
}

enum err db_open(struct own *o, struct buf *why)
{
    struct db *db = mem_new(MEM_CTL, sizeof *db);
    bool foreign = false;
    snprintf(db->vfs_name, sizeof db->vfs_name, "weir-%p", (void *)db);
    db->vfs = vfs_new(&db->disk, db->vfs_name);
    int rc = file_begin(o, db, &foreign);
    if (rc == SQLITE_OK && !foreign) rc = all_read(o, db);
    if (rc == SQLITE_OK && !foreign) {
        (void)sqlite3_wal_hook(db->sql, wal_grown, db);
        measure(db);
        o->db = db;
        db_sizes(o);
        return OK;
    }
    int primary = rc & 0xff;
    db->corrupt = primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
    if (foreign) buf_printf(why, "%s was not written by this version of Weir: use the version that did, or another folder", o->path);
    else {
        buf_printf(why, "%s: ", o->path);
        say(db, rc, why);
    }
    enum err e = foreign || db->corrupt ? ERR_INVALID : db->disk.err != OK ? db->disk.err : ERR_IO;
    db_close(db);
    return e;
}

void db_close(struct db *db)
{
    for (int i = 0; i < STATEMENTS; i++) (void)sqlite3_finalize(db->st[i]);
    /* After a failed sync the WAL stays as it is, for the next start to renew. */
    if (db->disk.sync_failed) (void)sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    MUST(sqlite3_close(db->sql) == SQLITE_OK);
    vfs_free(db->vfs);
    mem_free(db);
}
