/* ctl.h - the control store: revisioned keys, transactions, leases and watches, with the semantics of etcd v3.
 *
 * All that a system of nodes agrees on lives in one store. What a key has (create_revision, mod_revision, version, lease), how revisions count,
 * what a transaction compares and when an error is which one are etcd's (its API reference and the packages mvcc and lease); engines differ in where
 * the data is: in this process's own folder (ctl_own_open()), or in an etcd cluster (ctl_etcd_open()).
 *
 * Model: a store belongs to one loop. What is asked is a struct ctl_call, which the caller owns and fills in; it and all bytes that it refers to stay
 * untouched from ctl_submit() until its done(), which comes exactly once, from the loop and never from inside ctl_submit(). The answer and everything
 * it refers to belong to the store and are there only until done() returns. Calls that are under way at once may take effect in any order; a call that was
 * submitted after another one's done() sees what that one did.
 *
 * Keys are bytes, ordered as memcmp() does. A range is a key and an end: end empty, that key alone; end "\0", all keys from key on; else key <= k < end.
 */
#ifndef CTL_H
#define CTL_H

#include "rt.h"

/* ---- errors ---------------------------------------------------------------------------------------------------- */

enum ctl_error {
#define X(name, grpc, text) CTL_##name,
#include "ctl_errors.def"
#undef X
    CTL_ERROR_COUNT
};
/* etcd's own text ("etcdserver: mvcc: required revision has been compacted"), which its clients compare; never NULL. */
const char *ctl_error_text(enum ctl_error e);
/* The status code of gRPC that goes with it. */
uint32_t ctl_error_grpc(enum ctl_error e);

/* ---- keys and ranges --------------------------------------------------------------------------------------------- */

struct ctl_kv {
    struct slice key, value;     /* value: empty where keys_only was asked for, and of a deleted key */
    int64_t create_revision;     /* of the transaction that made the key since it was last deleted; 0 of a deleted key */
    int64_t mod_revision;        /* of the last transaction that changed it */
    int64_t version;             /* 1 when made, one more with each put; 0 of a deleted key */
    int64_t lease;               /* 0: none */
};
/* The end of the range of all keys that begin with prefix, into out (room for prefix.n bytes, at least 1). An empty prefix: use key "\0" with it. */
struct slice ctl_prefix_end(struct slice prefix, char *out);

enum ctl_sort_order { CTL_SORT_NONE, CTL_SORT_ASCEND, CTL_SORT_DESCEND };                    /* as RangeRequest.SortOrder */
enum ctl_sort_target { CTL_SORT_KEY, CTL_SORT_VERSION, CTL_SORT_CREATE, CTL_SORT_MOD, CTL_SORT_VALUE }; /* as RangeRequest.SortTarget */

struct ctl_range {
    struct slice key, end;
    int64_t limit;               /* of keys in the answer; 0: none */
    int64_t revision;            /* the state after that one; 0: now */
    enum ctl_sort_order order;   /* none: by key, unless target says otherwise: then ascending. Equal ones by key, ascending */
    enum ctl_sort_target target;
    bool serializable;           /* may be answered by one node of a cluster, from what it knows */
    bool keys_only, count_only;
    int64_t min_mod_revision, max_mod_revision, min_create_revision, max_create_revision; /* 0: no bound */
};
struct ctl_range_result {
    struct ctl_kv *kvs;
    size_t n;
    bool more;                   /* limit left keys out */
    int64_t count;               /* keys in the range, whatever limit and the bounds left out */
};

struct ctl_put {
    struct slice key, value;
    int64_t lease;               /* 0: detaches the key from whichever it had */
    bool prev_kv;                /* answer what was there */
    bool ignore_value, ignore_lease; /* keep what the key has; it has to be there */
};
struct ctl_put_result {
    bool has_prev;
    struct ctl_kv prev;
};

struct ctl_delete {
    struct slice key, end;
    bool prev_kv;
};
struct ctl_delete_result {
    int64_t deleted;
    struct ctl_kv *prev;         /* only with prev_kv */
    size_t prev_n;
};

enum ctl_compare_result { CTL_EQUAL, CTL_GREATER, CTL_LESS, CTL_NOT_EQUAL };                  /* as Compare.CompareResult */
enum ctl_compare_target { CTL_TARGET_VERSION, CTL_TARGET_CREATE, CTL_TARGET_MOD, CTL_TARGET_VALUE, CTL_TARGET_LEASE }; /* as Compare.CompareTarget */
/* True when all keys of the range are so. No key there: compared as one whose numbers are 0, and never true for the value. */
struct ctl_compare {
    struct slice key, end;
    enum ctl_compare_target target;
    enum ctl_compare_result result; /* the key's one is .. than the given */
    int64_t number;              /* version, revision or lease */
    struct slice value;
};

struct ctl_op;
struct ctl_op_result;
/* All comparisons, also those of nested transactions, are made before anything is changed. No key may be put twice, nor put and deleted. */
struct ctl_txn {
    const struct ctl_compare *compares;
    size_t compares_n;
    const struct ctl_op *then_ops, *else_ops; /* of the kinds CTL_RANGE, CTL_PUT, CTL_DELETE, CTL_TXN; done in order */
    size_t then_n, else_n;
};
struct ctl_txn_result {
    bool succeeded;              /* then_ops were done */
    struct ctl_op_result *ops;   /* of those that were done, in order */
    size_t n;
};

/* ---- leases -------------------------------------------------------------------------------------------------------- */

struct ctl_lease {
    int64_t id;                  /* CTL_LEASE_GRANT: 0: the store chooses */
    int64_t ttl_s;               /* CTL_LEASE_GRANT: wanted */
    bool keys;                   /* CTL_LEASE_INFO: tell the keys, too */
};
struct ctl_lease_result {
    int64_t id;
    int64_t ttl_s;               /* granted: may be more than wanted. KEEP: 0: there is no such lease (any more). INFO: what remains; -1: the same */
    int64_t granted_s;           /* INFO: the TTL it was granted */
    struct slice *keys;          /* INFO: by key */
    size_t keys_n;
    int64_t *ids;                /* LIST: ascending */
    size_t ids_n;
};

/* ---- calls --------------------------------------------------------------------------------------------------------- */

enum ctl_kind {
    CTL_RANGE, CTL_PUT, CTL_DELETE, CTL_TXN,
    CTL_COMPACT,                 /* history before a revision is forgotten; the state after it stays */
    CTL_LEASE_GRANT, CTL_LEASE_REVOKE, CTL_LEASE_KEEP, CTL_LEASE_INFO, CTL_LEASE_LIST,
    CTL_DISARM,                  /* takes back the alarm NOSPACE; it comes again while the store is larger than its quota */
    CTL_KINDS
};
struct ctl_op {
    enum ctl_kind kind;
    union {
        struct ctl_range range;
        struct ctl_put put;
        struct ctl_delete del;
        struct ctl_txn txn;
        struct ctl_lease lease;
        int64_t compact;         /* the revision */
    };
};
struct ctl_op_result {
    enum ctl_kind kind;
    union {
        struct ctl_range_result range;
        struct ctl_put_result put;
        struct ctl_delete_result del;
        struct ctl_txn_result txn;
        struct ctl_lease_result lease;
    };
};

struct ctl_call {
    struct ctl_op op;                    /* the caller's, filled in */
    bool exempt;                         /* the caller's: the node's own, which calls_max, leases_max, txn_ops_max, request_bytes_max and the alarm NOSPACE of an
                                          * engine on this node do not stop; those of a cluster do */
    void (*done)(struct ctl_call *call); /* may submit, and may free the call */
    /* The answer: */
    enum ctl_error error;                /* CTL_OK, or why nothing was done (CTL_UNKNOWN: why it may or may not have been) */
    const char *why;                     /* of an error: a sentence for people, with the file or the peer and the cause */
    int64_t revision;                    /* of the store with this answer; of a call that changed something: the one it made */
    struct ctl_op_result result;         /* valid when error is CTL_OK */
    /* The engine's: */
    struct list link;                    /* on the list it waits on */
    void *priv;                          /* set by ctl_submit(): what the engine keeps for it */
};

struct ctl;
/* Takes effect as described at the top. After ctl_close(): error CTL_STOPPED. */
void ctl_submit(struct ctl *c, struct ctl_call *call);

/* ---- watches ------------------------------------------------------------------------------------------------------- */

enum ctl_event_type { CTL_EVENT_PUT, CTL_EVENT_DELETE }; /* as Event.EventType */
struct ctl_event {
    enum ctl_event_type type;
    bool has_prev;               /* only with prev_kv, and unless it was compacted away */
    struct ctl_kv kv;            /* of a deletion: key and mod_revision only */
    struct ctl_kv prev;
};
struct ctl_watch_conf {
    struct slice key, end;       /* copied */
    int64_t revision;            /* the first one whose events are wanted, may be one to come; 0: the next */
    bool no_put, no_delete;      /* events that are not wanted */
    bool prev_kv;
    bool progress;               /* an empty message now and then when there are no events: so far you know everything */
};
struct ctl_watch;
/* None is called from inside a function of this header. They may stop the watch and start others. */
struct ctl_watch_ops {
    /* Events in the order of their revisions, those of one revision never apart, none twice, none left out; they are the store's until this returns.
     * n 0: progress. revision: the store's; every event up to it has been told. False: no more until ctl_watch_resume(): nothing is kept for the
     * watch meanwhile, it goes on from history. */
    bool (*events)(void *ctx, const struct ctl_event *events, size_t n, int64_t revision);
    /* The watch has ended; ctl_watch_stop() is still to be called. CTL_COMPACTED: what was to come next is no longer there; compact_revision: the
     * first one that a new watch may ask for. */
    void (*ended)(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why);
};
/* NULL: there are too many (the limit of the engine's configuration), or their keys too long, or the store is closed. An end that is not empty and not behind key
 * names no keys. */
struct ctl_watch *ctl_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx);
void ctl_watch_resume(struct ctl_watch *w);
/* An empty message (n 0) as soon as all events up to now are told. */
void ctl_watch_progress(struct ctl_watch *w);
void ctl_watch_stop(struct ctl_watch *w); /* nothing is called any more; also within its own callbacks */

/* ---- the store ------------------------------------------------------------------------------------------------------ */

/* Now, as the engine knows it. */
struct ctl_status {
    int64_t revision, compact_revision; /* of a cluster: the newest that an answer told */
    uint64_t bytes, bytes_used;  /* of the files; of them in use. Of a cluster: of the member that is asked */
    uint64_t keys, leases;       /* of a cluster: 0, they are not counted here */
    uint64_t watches;
    bool nospace;                /* the alarm: over the quota */
    enum ctl_error trouble;      /* CTL_OK, or the error with which calls that change something end for now (of a cluster: all calls) */
    const char *why;             /* of trouble; "" */
};
void ctl_status(const struct ctl *c, struct ctl_status *out);

/* Written by the store's loop, read by any thread. */
struct ctl_counters {
    counter calls, calls_failed;
    counter calls_refused;       /* of failed: too many were waiting */
    counter commits, commits_failed;
    counter commit_calls;        /* calls in all commits: how many share one */
    counter commit_us[24];       /* commits that took up to 2^i microseconds, each in the first that fits */
    counter events, events_past; /* told to watches; of them read from history on disk */
    counter watches_behind;      /* how often a watch had to go on from history */
    counter leases_expired;
    counter compacted_rows;
    counter past_reads;          /* ranges at a revision that is not the present one */
    counter values_read;         /* values of present keys that were not in memory */
    counter calls_unknown;       /* of failed: CTL_UNKNOWN */
    /* Of a cluster: */
    counter connects, connects_failed; /* connections to members that served; attempts that did not come so far */
    counter calls_again;         /* calls that were sent once more, or later, because nothing had been done */
    counter watches_again;       /* watches that were made anew on another connection, or after a rest */
};
const struct ctl_counters *ctl_counters(const struct ctl *c);

/* No more calls: those that wait end with CTL_STOPPED, a commit under way comes to its end. All watches are ended (CTL_STOPPED). Then done(), and the
 * store is gone; watches must have been stopped by then. */
void ctl_close(struct ctl *c, void (*done)(void *ctx), void *ctx);

/* ---- the engine of one node: SQLite in a folder --------------------------------------------------------------------------- */

struct ctl_own_conf {
    const char *dir;             /* made when it is not there; its parent exists */
    uint64_t quota_bytes;        /* of bytes_used; at it the alarm NOSPACE: nothing but deleting, revoking and compacting. 0: none */
    int64_t history_revisions;   /* what is further back is compacted; 0: no bound */
    uint64_t history_ms;         /* what is older is compacted; 0: no bound. Looked at ten times in that time */
    int64_t lease_ttl_min_s;     /* shorter ones are made so long */
    uint64_t progress_ms;        /* between messages of progress */
    uint32_t calls_max;          /* waiting calls; more end with CTL_TOO_MANY_REQUESTS */
    uint32_t watches_max;
    uint32_t leases_max;         /* more are not granted: CTL_TOO_MANY_REQUESTS */
    uint32_t request_bytes_max;  /* of a call; more: CTL_REQUEST_TOO_LARGE */
    uint32_t txn_ops_max;        /* as etcd's --max-txn-ops */
    uint64_t recent_bytes_max;   /* memory for the events that watches may fall behind by, before they go on from the disk */
    uint64_t values_bytes_max;   /* memory for the values of present keys; others are read from disk when they are asked for */
    uint32_t value_small_max;    /* bytes of a value that stays in memory with its key */
};
void ctl_own_conf_default(struct ctl_own_conf *conf);
/* Reads the folder; blocks. ERR_INUSE: another process has it; ERR_INVALID: the files are not ours, or damaged; why says which and what to do. */
enum err ctl_own_open(const struct ctl_own_conf *conf, struct loop *loop, struct ctl **out, struct buf *why) WARN_UNUSED;

/* ---- the engine of a cluster: etcd ------------------------------------------------------------------------------------------ */

struct ctl_etcd_endpoint {
    struct addr addr;            /* where it is: names are resolved by the caller */
    const char *host;            /* what it is called: the name that its certificate has to be for. NULL: its address */
};
struct ctl_etcd_conf {
    const struct ctl_etcd_endpoint *endpoints; /* of members; the first is asked first */
    size_t endpoints_n;
    bool tls;
    const char *ca_file;         /* PEM; NULL: the system's */
    const char *cert_file, *key_file; /* PEM, shown to members that ask; NULL: none */
    const char *user, *password; /* NULL: none */
    uint32_t dial_ms;            /* until a connection stands and its member has said that it serves */
    uint32_t request_ms;         /* from ctl_submit() to done(), at most */
    uint32_t pulse_ms;           /* between two questions whether the member is there and has a leader */
    uint32_t silence_ms;         /* without a byte after such a question: it is not there */
    uint32_t leaderless_ms;      /* without a leader: another member is tried */
    uint32_t backoff_min_ms, backoff_max_ms; /* between attempts, when each member has been tried once */
    uint32_t calls_max;          /* waiting or asked; more end with CTL_TOO_MANY_REQUESTS */
    uint32_t sent_max;           /* asked at once */
    uint32_t watches_max;
    uint32_t request_bytes_max;  /* of a call, as etcd's --max-request-bytes; more: CTL_REQUEST_TOO_LARGE */
    uint32_t txn_ops_max;        /* as etcd's --max-txn-ops */
    uint64_t answer_bytes_max;   /* that answers under way hold together, and that the events of one revision may have; at least three times request_bytes_max */
    uint64_t watch_bytes_max;    /* that are kept for one watch whose owner said "no more" (or one response); then it is made anew when he goes on */
    uint64_t watches_bytes_max;  /* the same, for all together */
};
void ctl_etcd_conf_default(struct ctl_etcd_conf *conf);
/* Reads the files and begins to connect: calls wait for that, as long as request_ms. All that conf refers to is copied. ERR_INVALID: why says what is
 * wrong with it. Limits beside those of conf: README.md. */
enum err ctl_etcd_open(const struct ctl_etcd_conf *conf, struct loop *loop, struct ctl **out, struct buf *why) WARN_UNUSED;

#endif
