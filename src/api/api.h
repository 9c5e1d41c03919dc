/* api.h - what tools call: the admin interface of a node (HTTP/1.1 over a Unix socket), and /metrics, /healthz, /readyz on
 * 127.0.0.1:7070. Lives on the control loop. It formats and parses; what is done is done by the functions handed in.
 */
#ifndef API_H
#define API_H

#include "merge.h"
#include "proxy.h"
#include "run.h"

/* A change of what is wanted: all of it or nothing, in the control store before it is in force. The caller's until done(), zeroed but for what it asks. */
enum node_change_kind { CHANGE_APPLY, CHANGE_DELETE, CHANGE_ROLLBACK };
struct node_ref {
    enum obj_kind kind;
    const char *ns, *name;
};
struct node_change {
    enum node_change_kind kind;
    struct objset *next;          /* APPLY: the objects, without errors; emptied, the caller's */
    const struct merge_conf *merge; /* APPLY: by whom, and what of others; NULL: as it is */
    const struct node_ref *refs;  /* DELETE: what goes; ROLLBACK: these alone go back, with none all do */
    size_t refs_n;
    int64_t revision;             /* ROLLBACK: the one whose objects are wanted. Then, of all: the system's that the change made; 0: it made none */
    bool dry_run;                 /* checked only */
    bool sides;                   /* changes: with each object before and after */
    const struct keyring *keys;   /* sides: digests of values of Secrets are made with it */
    const char *by, *what;        /* for history: who; in a word or two, NULL: by kind */
    void (*done)(struct node_change *c); /* once, never from inside node_ops.change() */
    /* The answer: */
    struct diags diags;           /* errors: nothing was done, error is ERR_INVALID; may have been filled with warnings before. The caller's */
    struct merge_conflicts conflicts; /* any: nothing was done, error is ERR_INUSE. The caller's */
    enum err error;               /* else: what is not about manifests: ERR_NOSPACE, ERR_AGAIN, ERR_INUSE (another node's change came first), ERR_NOTFOUND, .. */
    struct buf why;               /* of that: a sentence. The caller's */
    struct buf changes;           /* what became of each object: JSON, with commas between. The caller's */
    size_t missing;               /* of refs: not there */
    struct list link;             /* the node's */
};
/* Adds an object to changes, which was old (NULL: not there) and becomes o; and in a word: "deleted", "not found". */
void node_change_object(struct node_change *c, const struct object *old, const struct object *o);
void node_change_note(struct node_change *c, enum obj_kind k, const char *ns, const char *name, const char *change);

/* A question about the past. */
struct node_history {
    int64_t revision;             /* 0: all that are kept */
    void (*done)(struct node_history *h); /* once, perhaps from inside node_ops.history() */
    enum err error;               /* ERR_NOTFOUND: there is no such revision in history */
    struct buf why, json;         /* json: all: {"revision":N,"items":[...]}; one: its entry there. The caller's */
    struct objset *before, *after; /* one: holds the objects that it changed, as they were; all objects after it. The caller's; may be NULL */
};

/* Who asks about the objects is to see what was done through other nodes before. The caller's until done(). */
struct node_sync {
    void (*done)(struct node_sync *s); /* once, perhaps from inside node_ops.sync() */
};

/* What happened, to which object. */
struct node_event {
    uint64_t seq;                 /* the order in which things happened; again, when it did again */
    const char *ns, *kind, *name; /* ns "": of the node itself */
    const char *reason, *message;
    bool warning;                 /* else Normal */
    uint32_t count;
    uint64_t first_ns, last_ns;   /* wall clock */
    struct slice json;            /* as a core v1 Event */
};

/* What the node (main) does for the api. All on the control loop. */
struct node_ops {
    const struct objset *(*objects)(void *ctx);
    void (*change)(void *ctx, struct node_change *c);
    void (*history)(void *ctx, struct node_history *h);
    /* Calls each() for what happened behind seq `after`, in order; what it is given is valid during the call. */
    void (*events)(void *ctx, uint64_t after, void (*each)(void *x, const struct node_event *e), void *x);
    struct run *(*run)(void *ctx);
    const struct plan *(*plan)(void *ctx);
    struct proxy *const *(*workers)(void *ctx, uint32_t *n);
    bool (*ready)(void *ctx, struct buf *why_not);
    /* Whether the socket of a Gateway's listener at this address is open; else *why says why not ("": not yet), until the next turn. NULL: as the plan wants. */
    bool (*listens)(void *ctx, const struct addr *at, const char **why);
    void (*down)(void *ctx);
    /* Begins to replace this engine by another binary's (NULL: the file that this one was started from); api_upgraded() follows. */
    enum err (*upgrade)(void *ctx, const char *binary, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not);
    void (*metrics)(void *ctx, struct buf *out);                                /* node-wide families: build info, engine restarts, memory by tag, log drops */
    const char *(*log_path)(void *ctx, const char *ns, const char *deployment); /* file of captured lines, valid until the next call; NULL: no such workload */
    /* What has become of a Topic or KafkaTopic: 1 ready, 0 not yet, -1 refused; the reason is in why. NULL: there is no event log. */
    int (*topic)(void *ctx, const struct object *o, struct buf *why);
    const struct keyring *(*keys)(void *ctx);                                   /* what Secrets are sealed with; never NULL */
    int (*keyspace)(void *ctx, struct buf *why);                                /* the same of Keyspaces; NULL: there is no control store */
    void (*log_top)(void *ctx, struct buf *json);                               /* what the event log does: broker_top(); {}: there is none now. NULL: there never is */
    void (*nodes)(void *ctx, struct buf *json);                                 /* a List of Nodes, as Kubernetes has them; {} when there is nothing to tell */
    /* Several nodes share the objects. The rest of this group is asked only then; NULL: never. */
    bool (*shared)(void *ctx);
    /* Done when the objects in force are as new as those that the store had at the call; also when the store can't tell, or this node does not get them within a second. */
    void (*sync)(void *ctx, struct node_sync *s);
    /* Calls each() for every Deployment of every other node, as that node has told it; what it is given is valid during the call. */
    void (*elsewhere)(void *ctx, void (*each)(void *x, const char *node, const struct workload_status *w), void *x);
    /* Replicas for which there is no node, and why; 0 and a reason: it has not been decided yet; 0 and "": each has one. */
    uint32_t (*unplaced)(void *ctx, const struct object *dep, const char **why);
    const char *(*name)(void *ctx);                                             /* of this node */
    void (*info)(void *ctx, struct buf *json);                                  /* {"version":...,"pid":...,"network":...,"warnings":[...]} */
};
struct api;
/* Listening sockets, the caller's, or -1: of the node's own Unix socket, and of the read-only port. */
struct api *api_new(struct loop *l, int unix_fd, int http_fd, const struct node_ops *ops, void *ctx);
void api_free(struct api *a); /* closes its connections */
/* Accepts nothing more; who follows something is told to come again, and each connection ends with its answer. */
void api_suspend(struct api *a);
void api_resume(struct api *a);
/* Connections on which an answer is still to be given or taken, but for one that waits for the end of an upgrade. */
uint32_t api_busy(const struct api *a);
/* The upgrade that node_ops.upgrade() began is over: new_pid is the new engine's, or e and text say why there is none. */
void api_upgraded(struct api *a, enum err e, const char *text, int32_t new_pid);
/* New captured line: followers of this workload get it. */
void api_log_line(struct api *a, const char *ns, const char *deployment, struct slice line);

#endif
