/* api.h - what tools call: the admin interface of a node (HTTP/1.1 over a Unix socket), and /metrics, /healthz, /readyz on
 * 127.0.0.1:7070. Lives on the control loop. It formats and parses; what is done is done by the functions handed in.
 */
#ifndef API_H
#define API_H

#include "proxy.h"
#include "run.h"

/* What the node (main) does for the api. All on the control loop. */
struct node_ops {
    const struct objset *(*objects)(void *ctx);
    /* Merges next into the node's objects, saves and starts converging. dry_run: checks only. Errors are in d. */
    enum err (*apply)(void *ctx, struct objset *next, bool dry_run, struct diags *d);
    enum err (*remove)(void *ctx, enum obj_kind k, const char *ns, const char *name);
    struct run *(*run)(void *ctx);
    const struct plan *(*plan)(void *ctx);
    struct proxy *const *(*workers)(void *ctx, uint32_t *n);
    bool (*ready)(void *ctx, struct buf *why_not);
    void (*down)(void *ctx);
    /* Begins to replace this engine by another binary's (NULL: the file that this one was started from); api_upgraded() follows. */
    enum err (*upgrade)(void *ctx, const char *binary, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not);
    void (*metrics)(void *ctx, struct buf *out);                                /* node-wide families: build info, engine restarts, memory by tag, log drops */
    const char *(*log_path)(void *ctx, const char *ns, const char *deployment); /* file of captured lines, valid until the next call; NULL: no such workload */
    /* What has become of a Topic or KafkaTopic: 1 ready, 0 not yet, -1 refused; the reason is in why. NULL: there is no event log. */
    int (*topic)(void *ctx, const struct object *o, struct buf *why);
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
