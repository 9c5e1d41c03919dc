/* ctl_int.h - what the files of the control store share. Nobody else includes it. README.md has the model. */
#ifndef CTL_INT_H
#define CTL_INT_H

#include "ctl.h"

/* ---- engines ------------------------------------------------------------------------------------------------------ */

struct ctl_engine {
    void (*submit)(struct ctl *c, struct ctl_call *call);
    struct ctl_watch *(*watch_start)(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx);
    void (*watch_resume)(struct ctl_watch *w);
    void (*watch_progress)(struct ctl_watch *w);
    void (*watch_stop)(struct ctl_watch *w);
    void (*status)(const struct ctl *c, struct ctl_status *out);
    void (*close)(struct ctl *c, void (*done)(void *ctx), void *ctx);
};
/* The first member of every engine's store. */
struct ctl {
    const struct ctl_engine *engine;
    struct ctl_counters counters;
};
/* The first member of every engine's watch. */
struct ctl_watch {
    struct ctl *store;
};

/* Makes to the list of all that is on from, which is empty then. */
static inline void list_take(struct list *from, struct list *to)
{
    list_init(to);
    LIST_FOREACH(it, from) {
        list_del(it);
        list_push(to, it);
    }
}

/* ---- ranges -------------------------------------------------------------------------------------------------------- */

static inline int key_cmp(struct slice a, struct slice b)
{
    int c = memcmp(a.p ? a.p : "", b.p ? b.p : "", MIN(a.n, b.n));
    return c ? c : (a.n > b.n) - (a.n < b.n);
}
static inline bool end_is_open(struct slice end) { return end.n == 1 && end.p[0] == '\0'; }
/* Whether k is in the range of key and end. */
static inline bool range_has(struct slice key, struct slice end, struct slice k)
{
    if (end.n == 0) return slice_eq(key, k);
    return key_cmp(k, key) >= 0 && (end_is_open(end) || key_cmp(k, end) < 0);
}

/* ---- kv: a version of a key (kv.c) ----------------------------------------------------------------------------------------- */

#define ID_SHIFT 20                  /* an id: revision << ID_SHIFT | number within the transaction */
#define KV_LOW ((1u << ID_SHIFT) - 1)
enum kv_flag {
    KV_DEAD = 1,                 /* a deletion: no value */
    KV_SMALL = 2,                /* its value is behind its key */
    KV_LEASED = 4,               /* it has a struct kv_leased */
    KV_POOLED = 8,               /* it is in a chunk */
    KV_INDEXED = 16,             /* it is the present one of its key */
    KV_USED = 32,                /* its value was asked for since the clock's hand was here */
};
struct value;
/* Counted, immutable but for what is marked. One tree holds it at most. */
struct kv {
    struct kv *kid[2];           /* tree: smaller, greater keys */
    struct value *value;         /* NULL: it is small, or on disk only. Changes */
    int64_t id;                  /* mod revision << ID_SHIFT | number: its row in history */
    uint64_t create_slot;        /* create revision << ID_SHIFT | slot in its chunk */
    uint64_t version_flags;      /* version << ID_SHIFT | flags. These change */
    uint32_t refs;               /* the loop's only */
    uint32_t size;               /* tree: keys from here down */
    uint32_t key_n, value_n;
    char bytes[];                /* key, small value, struct kv_leased (aligned) */
};
/* What a version with a lease has beside that. */
struct kv_leased {
    struct list link;            /* on its lease's list, while it is in the index */
    struct kv *kv;
    int64_t id;                  /* the lease */
};
/* The bytes of a value that is not small. */
struct value {
    struct kv *of;               /* NULL: a job has just read it */
    struct list link;            /* on kv_pool.values, while its kv is in the index */
    char bytes[];
};
static inline bool kv_is(const struct kv *k, enum kv_flag f) { return k->version_flags & f; }
static inline struct slice kv_key(const struct kv *k) { return slice_of(k->bytes, k->key_n); }
static inline int64_t kv_mod(const struct kv *k) { return k->id >> ID_SHIFT; }
static inline int64_t kv_create(const struct kv *k) { return (int64_t)(k->create_slot >> ID_SHIFT); }
static inline int64_t kv_version(const struct kv *k) { return (int64_t)(k->version_flags >> ID_SHIFT); }
static inline void kv_born(struct kv *k, int64_t create, int64_t version) /* once, when it was made */
{
    k->create_slot |= (uint64_t)create << ID_SHIFT;
    k->version_flags |= (uint64_t)version << ID_SHIFT;
}
/* Its value is on disk only. */
static inline bool kv_is_cold(const struct kv *k) { return !kv_is(k, KV_SMALL) && !k->value; }
static inline struct slice kv_value(const struct kv *k) /* of one that is not cold */
{
    if (kv_is(k, KV_SMALL)) return slice_of(k->bytes + k->key_n, k->value_n);
    MUST(k->value);
    return slice_of(k->value->bytes, k->value_n);
}
struct kv_leased *kv_leased(const struct kv *k); /* NULL: it has no lease */
static inline int64_t kv_lease(const struct kv *k) { return kv_is(k, KV_LEASED) ? kv_leased(k)->id : 0; }

/* Where the loop's kvs are, and which values stay in memory. */
#define KV_CLASSES 64                /* sizes of slots: up to 504 bytes; what is larger has a block of its own */
struct kv_class {
    struct list chunks;          /* those with a free slot */
    size_t bytes;                /* of all its chunks */
};
struct kv_pool {
    struct kv_class classes[KV_CLASSES]; /* by size of slots, in eights */
    struct list values;          /* of the index, in the order in which the clock's hand comes by */
    size_t values_bytes;         /* on that list */
    size_t values_max;           /* up to so many stay, though nobody holds them */
    size_t small_max;            /* bytes of a value that is kept with its key */
};
void kv_pool_init(struct kv_pool *p, size_t small_max, size_t values_max);
void kv_pool_fini(struct kv_pool *p);        /* when all its kvs are gone */
/* On the loop, while no answer refers to a value: forgets values until there are few enough. True: there is more to be forgotten than was looked at, next turn. */
bool kv_pool_trim(struct kv_pool *p);
void kv_pool_rest(struct kv_pool *p);        /* the same, all at once: and what nobody asked for since the hand was there last */
/* p NULL: from any thread, and with its value, however long. id and kv_born() are the caller's. */
struct kv *kv_new(struct kv_pool *p, struct slice key, struct slice value, int64_t lease);
struct kv *kv_new_dead(struct kv_pool *p, struct slice key); /* a deletion */
struct kv *kv_new_cold(struct kv_pool *p, struct slice key, uint64_t value_n, int64_t lease);
static inline struct kv *kv_ref(struct kv *k) { k->refs++; return k; }
void kv_unref(struct kv *k); /* NULL-safe */
static inline size_t kv_bytes(const struct kv *k) { return sizeof *k + k->key_n + k->value_n; }
void kv_show(const struct kv *k, struct ctl_kv *out);     /* of one that is not cold */
void kv_show_key(const struct kv *k, struct ctl_kv *out); /* without its value */
void kv_enter(struct kv_pool *p, struct kv *k);           /* into the index */
void kv_leave(struct kv_pool *p, struct kv *k);
struct value *value_new(struct slice bytes);              /* on any thread */
void kv_warm(struct kv_pool *p, struct kv *k, struct value *v); /* takes v, which was read for k */

/* ---- the ordered tree (tree.c) --------------------------------------------------------------------------------------------- */

struct tree {
    struct kv *root;
};
struct kv *tree_get(const struct tree *t, struct slice key);
struct kv *tree_put(struct tree *t, struct kv *k);            /* the one of that key that it replaces, or NULL. References are the caller's */
struct kv *tree_del(struct tree *t, struct slice key);        /* the one taken out, or NULL */
static inline uint64_t tree_size(const struct tree *t) { return t->root ? t->root->size : 0; }
uint64_t tree_rank(const struct tree *t, struct slice key);   /* keys that are smaller */
uint64_t tree_count(const struct tree *t, struct slice key, struct slice end);
#define TREE_DEPTH_MAX 256 /* of a treap of 2^32 keys it is some 100 */
struct tree_iter {
    struct kv *path[TREE_DEPTH_MAX]; /* those whose turn is still to come */
    uint32_t n;
};
void tree_seek(struct tree_iter *it, const struct tree *t, struct slice from); /* the first at or behind it is what tree_next() returns */
struct kv *tree_next(struct tree_iter *it);                   /* NULL at the end. No changes meanwhile */
static inline struct kv *tree_peek(const struct tree_iter *it) { return it->n ? it->path[it->n - 1] : NULL; }
void tree_free(struct tree *t);                               /* and unrefs all */

/* ---- the engine of one node --------------------------------------------------------------------------------------------- */

#define BATCH_CALLS_MAX 4096
#define BATCH_BYTES_MAX (4u << 20)
#define REVISION_CHANGES_MAX ((1u << 20) - 1)
#define TXN_TOTAL_MAX 8192           /* operations of a transaction, those of nested ones and of all branches included */
#define TXN_KEYS_MAX (1u << 20)      /* keys that the comparisons and ranges of a transaction look at, all together */
#define TXN_PAST_BYTES_MAX (128u << 20) /* that its ranges of the past read, all together */
#define PAST_BYTES (32u << 20)       /* of ranges of the past that one job reads, and the rest of the last one */
#define SLICE_ROWS 2000
#define SLICE_BYTES (1u << 20)
#define PAST_CALLS_MAX 64            /* calls whose reads of the past are done by one job */
#define VALUES_CALLS_MAX 1024        /* calls whose values are read by one job */
#define VALUES_MAX 2000              /* values, and their bytes, that one job reads */
#define VALUES_BYTES (1u << 20)
#define VALUES_ROUNDS 3              /* so often values that a call waits for may be forgotten, or replaced, before it comes to use them */
#define CHECKPOINT_PAGES 2000        /* of the WAL, from which on it is copied into the database */
#define VACUUM_PAGES 500             /* given back by one job */
#define FREE_PAGES_KEPT 512          /* free pages that stay in the file for what comes */
#define WATCH_EVENTS_MAX 1000        /* in one message of a watch that is behind, and the rest of the last revision */
#define WATCHES_BYTES_MAX (32u << 20) /* of keys and ends of ranges, of all watches */
#define LEASE_TTL_MAX_S 9000000000ll
#define REVOKE_BEHIND_MAX 1024       /* changes of a batch that a lease is revoked behind: each is looked at for whether it hangs on the lease */

static inline int64_t id_of(int64_t revision, uint32_t sub) { return (revision << ID_SHIFT) | sub; }

struct change {
    struct kv *now, *prev;       /* prev: what was there, or NULL. Both counted */
};
struct changes {
    struct change *v;
    size_t n, cap;
};
void changes_add(struct changes *c, struct kv *now, struct kv *prev); /* takes both references */
void changes_fini(struct changes *c);

enum lease_state { LEASE_GRANTING, LEASE_LIVE, LEASE_REVOKING };
struct lease {
    struct own *own;
    int64_t id, ttl_s;           /* granted */
    uint64_t due_ms;             /* loop time at which it expires */
    struct list keys;            /* kv_leased.link of the index's */
    struct list link;            /* on batch.granted or batch.revoked */
    struct timer timer;
    struct ctl_call revoke;      /* the store's own, when it has expired */
    enum lease_state state;
    bool expired;                /* revoke is under way, or to be tried again */
    bool asked;                  /* revoke was submitted and is not done */
};

/* What is evaluated, committed and answered together. */
struct batch {
    struct list calls;           /* answered in this order */
    struct changes changes;      /* in order */
    struct tree over;            /* the latest of each changed key, counted once more; dead ones hide the index's */
    struct list granted, revoked;/* leases */
    struct arena arena;          /* the answers */
    int64_t revision;            /* after the last of its calls */
    int64_t compact;             /* compact revision; that of the store when none of its calls compacts */
    size_t bytes, calls_n;
};

/* What a call needs from disk: a range of the past, or values of present keys that are not in memory. */
struct past {
    struct past *next;           /* of the same call */
    const struct ctl_range *range; /* NULL: values */
    struct kv **kvs;             /* counted. RANGE: by key; else those whose values are wanted, which are held by that */
    size_t n, cap;
    int64_t count;               /* RANGE: keys in the range at that revision; else 0. Negative: still to be read */
    struct value **values;       /* as kvs: what was read; NULL: no such row. Each is moved to its kv */
    size_t at;                   /* values that were read so far */
    bool holds;                  /* own.holds counts it */
    bool much;                   /* RANGE: not all of it was read, since its transaction would have too much */
};

enum job_kind { JOB_NONE, JOB_COMMIT, JOB_PAST, JOB_SLICE, JOB_CLEAN, JOB_VACUUM, JOB_CHECKPOINT, JOB_SAMPLE, JOB_RELEASE, JOB_CLOSE };
struct db;
/* What the pool has: one at a time. */
struct job {
    struct work work;
    enum job_kind kind;
    uint64_t began_ns;
    enum ctl_error error;
    char why[320];
    /* Of the kinds: */
    struct list calls;           /* PAST */
    size_t values, values_bytes; /* PAST: that it has read */
    size_t past_bytes;           /* PAST: of the keys and values of ranges */
    int64_t from, to, compact;   /* SLICE: first revision, and the last it has read; CLEAN: id it goes on from, and got to */
    bool want_prev;              /* SLICE */
    struct changes slice;        /* SLICE */
    uint64_t rows;               /* CLEAN: removed */
    bool over;                   /* CLEAN: all of it */
    int64_t wall_s, revision, forget; /* SAMPLE */
};

struct span;                     /* watch.c: the watches on one range */
struct span_tree {
    struct span *root;
};
struct sample {
    int64_t revision, wall_s;
};
#define SAMPLES_MAX 16

struct own {
    struct ctl ctl;
    struct loop *loop;
    struct ctl_own_conf conf;
    char *dir, *path;            /* the folder, the database */
    int lock_fd;
    struct db *db;               /* the job's; the loop's while none runs */
    uint64_t bytes, bytes_used, wal_pages, free_pages; /* as the last job left them */

    struct kv_pool pool;
    struct tree index;           /* present keys, counted */
    struct table leases;         /* 8 bytes of id -> struct lease */
    int64_t revision, compact;
    int64_t cleaned;             /* the compact revision up to which rows are gone */
    int64_t clean_at;            /* id behind which cleaning goes on */

    struct list reads, past, changes; /* calls that wait */
    struct list keeps;           /* CTL_LEASE_KEEP of leases that may be gone in a moment */
    size_t waiting;              /* how many */
    size_t holds;                /* calls for which no value is forgotten, since it happened to them too often */
    struct list over;            /* calls whose answer is ready: their done() follows */
    struct batch batch;
    struct arena arena;          /* the answer that is being given */
    struct job job;
    enum job_kind ran;           /* the last one */
    uint32_t turn;               /* which of the others is asked first, next time */
    struct task task;            /* the end of a turn in which something came */
    struct timer retry;          /* maintenance that failed */
    bool resting;                /* until retry */
    bool vacuum;                 /* pages are to be given back */
    bool checkpoint;             /* the WAL is to be copied into the database, however short it is */
    bool sampling;               /* a sample is to be written */
    struct timer idle;           /* idle_set: looks whether it is quiet, and there is something to give back */
    bool idle_set;
    uint64_t busy_ms;            /* loop time of the last commit, or read of values */
    size_t unreleased;           /* bytes of those since memory was given back */
    bool release;                /* it is to be */

    struct table spans;          /* key -> struct span of watches on that key alone */
    struct span_tree ranges;
    struct list watches_behind, watches_paused, watches_ended; /* ended: to be told so */
    struct list watches_due;     /* synced, an empty message is wanted */
    struct list watches_touched; /* events of this commit hit them */
    struct list watches_progress;/* those that want progress */
    struct list watches_all;
    uint64_t watches_n;
    size_t watches_bytes;        /* of their keys */
    struct ctl_watch_own *calling; /* the one whose callback runs */
    bool calling_gone;           /* it was stopped there */
    struct change *recent;       /* ring of events */
    size_t recent_at, recent_n, recent_cap;
    uint64_t recent_bytes;
    int64_t recent_from;         /* the first revision of which all events are in the ring */
    struct timer progress, housekeeping;
    struct sample samples[SAMPLES_MAX];
    size_t samples_n;
    struct ctl_call compact_call;
    bool compact_asked;

    bool nospace, broken, corrupt;
    enum ctl_error trouble;
    char why[320];
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* check.c: what is wrong with a call by itself. */
enum ctl_error call_check(const struct ctl_call *call, uint32_t txn_ops_max, uint32_t request_bytes_max);
bool op_writes(const struct ctl_op *op);     /* may change something */
bool op_puts(const struct ctl_op *op);       /* holds a put, in either branch */
uint64_t call_looks(const struct ctl_call *call); /* a transaction's operations and comparisons, of all branches */

/* eval.c */
/* Answers a call that changes nothing, from the index. False: it wants values that are on disk (past_want()). */
bool eval_read(struct own *o, struct ctl_call *call, struct arena *a);
/* False: it can't be evaluated in this batch. Else its answer is ready, for when the batch is committed. */
bool eval_change(struct own *o, struct ctl_call *call);
void batch_init(struct batch *b);
void batch_reset(struct own *o);
void batch_apply(struct own *o);             /* committed: into index and leases */
void batch_drop(struct own *o);              /* failed */
/* Makes call->priv the list of what it has to read from disk. False: nothing. */
bool past_want(const struct own *o, struct ctl_call *call);
void past_free(struct own *o, struct past *p); /* and those behind it; NULL-safe */
/* k is put into the overlay as the new version of its key, made by that revision; takes the reference. */
void batch_change(struct own *o, struct kv *k, int64_t revision);
void index_enter(struct own *o, struct kv *k); /* it was put into the index: is on its lease's list, too */
struct kv *batch_get(const struct own *o, struct slice key); /* as the batch sees it; NULL: no such key */

/* lease.c */
struct lease *lease_find(const struct own *o, int64_t id); /* also one that is granted or revoked by the batch */
struct lease *lease_add(struct own *o, int64_t id, int64_t ttl_s, enum lease_state state);
void lease_start(struct lease *l);           /* its time begins */
void lease_stays(struct lease *l);           /* it was not revoked after all */
void lease_free(struct lease *l);
bool lease_is_going(const struct own *o, int64_t id);    /* a commit decides whether it is still there */
void keeps_again(struct own *o);             /* one has decided */
bool lease_eval(struct own *o, struct ctl_call *call);   /* grant, revoke; as eval_change() */
void lease_read(struct own *o, struct ctl_call *call, struct arena *a); /* keep, info, list */

/* watch.c */
void watches_init(struct own *o);
void watches_told(struct own *o);                /* o->batch.changes are visible now */
void watches_turn(struct own *o);                /* those that are behind go on as far as memory reaches */
bool watches_slice(struct own *o, struct job *j);/* whether history is to be read for them, and what */
void watches_sliced(struct own *o, struct job *j);
void recent_rest(struct own *o);                 /* most of the newest events go: it is quiet */
void watches_end(struct own *o, enum ctl_error e, const char *why);
void watches_fini(struct own *o);
struct ctl_watch *own_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx);
void own_watch_resume(struct ctl_watch *w);
void own_watch_progress(struct ctl_watch *w);
void own_watch_stop(struct ctl_watch *w);

/* jobs.c */
void jobs_turn(struct own *o);               /* begins the next job, if one is wanted and none runs */
void job_init(struct own *o);
void own_turn(struct own *o);                /* own.c: wants the end of this turn */
void own_submit(struct ctl *c, struct ctl_call *call);
void own_over(struct own *o, struct ctl_call *call, enum ctl_error e, const char *why); /* its answer is this; done() follows at the end of the turn */
void own_done(struct own *o, struct ctl_call *call); /* its answer is filled in: calls done() now */
void own_gone(struct own *o);                /* closed */
void own_compact_by_number(struct own *o);
void values_trim(struct own *o);             /* while no batch is under way */

/* db.c: SQLite. All but db_memory() are for the job, or while none runs; block. error and why: as in struct job. */
enum err db_open(struct own *o, struct buf *why) WARN_UNUSED; /* and reads all into index and leases */
void db_close(struct db *db);
void db_commit(struct own *o, struct job *j);
void db_past(struct own *o, struct job *j);  /* values: as many as one job may read */
void db_row_missing(struct own *o, struct job *j); /* on the loop, of the job that is done: the database is damaged */
void db_slice(struct own *o, struct job *j);
void db_clean(struct own *o, struct job *j);
void db_vacuum(struct own *o, struct job *j);
void db_checkpoint(struct own *o, struct job *j);
void db_release(struct own *o);              /* memory that SQLite keeps for speed */
void db_sample(struct own *o, struct job *j);
void db_sizes(struct own *o);                /* o->bytes and the like, on the loop */

/* vfs.c: SQLite's files through rt. */
struct disk {
    enum err err;                /* the last operation that failed; OK: none since disk_clear() */
    const char *verb;            /* "write" */
    char file[256];
    bool sync_failed;            /* ever */
};
struct sqlite3_vfs;
struct sqlite3_vfs *vfs_new(struct disk *d, const char *name); /* registered; name and d outlive it */
void vfs_free(struct sqlite3_vfs *v);

#endif
