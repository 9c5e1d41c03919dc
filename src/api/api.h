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
    void (*metrics)(void *ctx, struct buf *out);                                /* node-wide families: build info, engine restarts, memory by tag, log drops */
    const char *(*log_path)(void *ctx, const char *ns, const char *deployment); /* file of captured lines, valid until the next call; NULL: no such workload */
    void (*info)(void *ctx, struct buf *json);                                  /* {"version":...,"pid":...,"network":...,"warnings":[...]} */
};
struct api;
/* unix_path: created with mode 0600; a stale socket is replaced, a live one is ERR_INUSE. http_fd: a listening socket for
 * the read-only port, or -1. */
enum err api_new(struct loop *l, const char *unix_path, int http_fd, const struct node_ops *ops, void *ctx, struct api **out) WARN_UNUSED;
void api_free(struct api *a); /* closes its connections and removes the socket file */
/* New captured line: followers of this workload get it. */
void api_log_line(struct api *a, const char *ns, const char *deployment, struct slice line);

#endif
