/* objstore.h - the system's objects in the control store: reading all of them, changing some together with their history, looking back.
 *
 * Knows keys, transactions and what they mean; what is checked before, and what follows, is engine_objects.c's. One owner, one loop: the store's.
 */
#ifndef OBJSTORE_H
#define OBJSTORE_H

#include "ctl.h"
#include "plan.h"

#define OBJSTORE_REVISIONS_MAX 100 /* of history that are kept */

struct objstore_conf {
    const struct keyring *keys;   /* values of Secrets are sealed with; outlives the objstore; NULL: plain, in tests */
    uint32_t revisions_max;       /* of history; at most OBJSTORE_REVISIONS_MAX, at least 1 */
    uint64_t history_bytes_max;   /* of history: keys and values; the last revision is kept however large it is */
    uint32_t ops_max;             /* of one transaction: an etcd cluster's, less a few. 0: any number, of any size */
    uint32_t ops_bytes_max;       /* ... its keys and values; one operation alone may be more */
};
void objstore_conf_default(struct objstore_conf *conf);

struct objstore;
struct objstore *objstore_new(const struct objstore_conf *conf);
void objstore_free(struct objstore *s);
void objstore_on(struct objstore *s, struct ctl *c); /* the store is open; NULL: it is closed. What was asked has been answered by then */
bool objstore_whole(const struct objstore *s);       /* all that was there could be read last */
int64_t objstore_at(const struct objstore *s);       /* the store's revision that made it; 0: none */
int64_t objstore_revision(const struct objstore *s); /* the system's, as last read or committed; 0: nothing was ever applied */

/* What every question has. The struct is the caller's, zeroed but for what it asks, until done() has been called: once, later. objstore_op_fini() after it. */
struct objstore_op {
    enum err error;               /* OK, or: ERR_NOSPACE, ERR_INUSE (another change came first), ERR_LIMIT, ERR_AGAIN (it is closing), ERR_NOTFOUND, ERR_INVALID, ERR_IO */
    struct buf why;               /* of an error: a sentence */
    struct objstore *store;       /* this one's from here on */
    struct ctl_call call;
    struct redo *redo;            /* of a large change; in mem */
    struct arena mem;
};
void objstore_op_fini(struct objstore_op *op);

/* All objects and the system's revision. */
struct objstore_read {
    struct objstore_op op;
    void (*done)(struct objstore_read *r);
    struct objset *const *base;   /* what is in force: an object of it whose stored value is as it was when the object was read from it is shared, not read again. NULL: all are
                                   * read. *base is looked at when the store has answered */
    struct objset *set;           /* the answer, the caller's; never NULL */
    struct diags diags;           /* what could not be read; error is ERR_INVALID then. The caller's */
    bool none;                    /* no object was ever put here */
    uint32_t tries;               /* this one's */
};
void objstore_read(struct objstore *s, struct objstore_read *r);

/* The system's revision in the store, whoever made it; 0: nothing was ever applied. ERR_INVALID: it is not to be understood. */
struct objstore_newest {
    struct objstore_op op;
    void (*done)(struct objstore_newest *n);
    int64_t revision;             /* the answer */
    int64_t at, since;            /* this one's: what objstore_at() was in the store, and here when it was asked */
};
void objstore_newest(struct objstore *s, struct objstore_newest *n);
/* What was read or committed here last is of that revision, or of one that came behind it. Not when the store is older than it was (restored from a backup). */
bool objstore_has(const struct objstore *s, const struct objstore_newest *n);

/* One transaction, or what amounts to one: what is different in `to`, the history of it, the system's next revision, and less of old history. */
struct objstore_commit {
    struct objstore_op op;
    void (*done)(struct objstore_commit *c);
    const struct objset *from;    /* what the store has; both stay as they are until done() */
    const struct objset *to;
    bool replace_unread;          /* what could not be read goes, too, or is replaced */
    const char *by, *what;        /* for people; copied */
    int64_t revision;             /* the answer: the one it made */
    /* this one's: */
    struct ctl_op *ops;
    size_t n, cap;
    struct ctl_compare head;
    struct buf changes;           /* JSON, the entries of the summary */
    uint64_t bytes;               /* of its history */
    void *next;                   /* struct head, after it */
};
/* OK: done() follows. ERR_NOTFOUND: there is no difference; ERR_INVALID, in op.why: an object can't be written, or not all that is there could be read
 * (and is not to be replaced). */
enum err objstore_commit(struct objstore *s, struct objstore_commit *c) WARN_UNUSED;

/* {"revision":N,"items":[{"revision","time","by","what","changes":[{"kind","namespace","name","change"}],"bytes"}, ...]}, oldest first. */
struct objstore_list {
    struct objstore_op op;
    void (*done)(struct objstore_list *l);
    struct buf json;              /* the answer; the caller's */
};
void objstore_list(struct objstore *s, struct objstore_list *l);

struct objstore_ref {
    enum obj_kind kind;
    const char *ns, *name;
};
struct objstore_past {
    struct objset *set;           /* objects as they were */
    struct objstore_ref *absent;  /* those that were not there; in op.mem */
    size_t absent_n, absent_cap;
};
/* How to get from now to the state after a revision. ERR_NOTFOUND: history does not reach there. */
struct objstore_back {
    struct objstore_op op;
    void (*done)(struct objstore_back *b);
    int64_t revision;             /* asked */
    bool itself;                  /* asked: also what this revision did; it must be kept itself then */
    struct objstore_past after;   /* what has changed since: as it was after the revision */
    struct objstore_past before;  /* with itself: what it changed, as it was before */
    char *summary;                /* with itself: JSON as in objstore_list; in op.mem */
    struct diags diags;           /* what could not be read; error is ERR_INVALID then */
    struct ctl_op ops[2];         /* this one's */
};
void objstore_back(struct objstore *s, struct objstore_back *b);
void objstore_back_fini(struct objstore_back *b);

#endif
