/* api.c - the admin interface as a whole: its two listeners, the table of endpoints, and what handlers share.
 *
 * The Unix socket is guarded by its file's permissions (0600, in a folder of 0700) and answers everything. The read-only
 * port answers only what is harmless to show to anyone on this machine.
 */
#include "api_int.h"

#include <stdio.h>
#include <time.h>

/* ---- endpoints -------------------------------------------------------------------------------------------------------- */

enum port { PUBLIC, ADMIN };
enum view { LOCAL, SYNCED };
static const struct endpoint {
    const char *path;
    enum h1_method method;
    enum port port;
    enum view view;
    void (*fn)(struct api_conn *);
} endpoints[] = {
#define X(method, path, port, view, fn, help) {path, H1_##method, port, view, fn},
#include "endpoints.def"
#undef X
};

static bool path_is(const char *path, const char *asked)
{
    size_t n = strlen(path);
    if (path[n - 1] != '*')
        return strcmp(path, asked) == 0;
    return strncmp(path, asked, n - 1) == 0 && asked[n - 1];
}

static void dispatch_unknown(struct api_conn *c)
{
    if (c->admin)
        api_error(c, 404, "see docs/cli.md and src/api/README.md for the endpoints", "there is no endpoint %s", c->req.path);
    else
        api_error(c, 404, "this port has /metrics, /healthz, /readyz and /version; all else is on the node's Unix socket (use weir)",
                  "there is no endpoint %s on this port", c->req.path);
}

static void call(const struct endpoint *e, struct api_conn *c)
{
    if (c->api->suspended && !c->api->ops->run(c->api->ctx))
        api_error(c, 503, "try again", "another engine is taking over");
    else
        e->fn(c);
}

/* A request that waits for the objects. */
struct waiting {
    struct node_sync sync;
    const struct endpoint *e;
    struct api_conn *c; /* NULL: gone */
};

static void waiting_left(struct api_conn *c) { ((struct waiting *)c->hold)->c = NULL; }

static void synced(struct node_sync *s)
{
    struct waiting *w = CONTAINER_OF(s, struct waiting, sync);
    struct api_conn *c = w->c;
    const struct endpoint *e = w->e;
    mem_free(w);
    if (!c)
        return;
    c->hold = NULL;
    c->detach = NULL;
    call(e, c);
}

static void call_synced(const struct endpoint *e, struct api_conn *c)
{
    struct api *a = c->api;
    struct waiting *w = mem_new(MEM_API, sizeof *w);
    *w = (struct waiting){.sync.done = synced, .e = e, .c = c};
    api_conn_hold(c, w, waiting_left);
    a->ops->sync(a->ctx, &w->sync);
}

void api_dispatch(struct api_conn *c)
{
    const struct api *a = c->api;
    for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
        const struct endpoint *e = &endpoints[i];
        if ((e->port == ADMIN && !c->admin) || !path_is(e->path, c->req.path))
            continue;
        if (e->method == c->req.method && e->view == SYNCED && a->ops->shared && a->ops->shared(a->ctx))
            call_synced(e, c);
        else if (e->method == c->req.method)
            call(e, c);
        else
            api_error_allow(c, e->method == H1_GET ? "GET, HEAD" : "POST");
        return;
    }
    dispatch_unknown(c);
}

/* ---- shared by handlers ----------------------------------------------------------------------------------------------- */

json_t *api_body_object(struct api_conn *c)
{
    json_error_t err;
    json_t *o = json_loadb(c->req.body.p ? c->req.body.p : "", c->req.body.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &err);
    if (json_is_object(o))
        return o;
    if (o)
        api_error(c, 400, "send a JSON object", "the body is not a JSON object");
    else
        api_error(c, 400, "send a JSON object", "the body is not JSON: line %d, column %d: %s", err.line, err.column, err.text);
    json_decref(o);
    return NULL;
}

const char *api_json_str(const json_t *o, const char *key, const char *absent)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : absent;
}

bool api_query_workload(struct api_conn *c, const char **ns, const char **name)
{
    char *w = api_query(c, "workload");
    if (!w || !*w)
        return false;
    char *slash = strchr(w, '/');
    *ns = slash ? w : "default";
    *name = slash ? slash + 1 : w;
    if (slash)
        *slash = 0;
    return true;
}

void api_add_diags(struct buf *out, const struct diags *d)
{
    buf_addc(out, '[');
    for (size_t i = 0; i < d->n; i++) {
        const struct diag *g = &d->items[i];
        buf_printf(out, "%s{\"level\":\"%s\",\"file\":", i ? "," : "", g->level == DIAG_ERROR ? "error" : "warning");
        buf_add_json(out, slice_cstr(g->file));
        buf_printf(out, ",\"line\":%u,\"column\":%u,\"where\":", g->line, g->column);
        buf_add_json(out, slice_cstr(g->where));
        buf_adds(out, ",\"reason\":");
        buf_add_json(out, slice_cstr(g->reason));
        buf_adds(out, ",\"remedy\":");
        buf_add_json(out, slice_cstr(g->remedy));
        buf_addc(out, '}');
    }
    buf_addc(out, ']');
}

char *api_time_text(char out[32], uint64_t wall)
{
    time_t t = (time_t)(wall / 1000000000u);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return out;
}

static const uint32_t limit_values[API_LIMIT_COUNT] = {
#define X(name, label, value, help) value,
#include "limits.def"
#undef X
};

/* ---- listeners -------------------------------------------------------------------------------------------------------- */

static void admin_accepted(struct listener *ln, int fd, const struct addr *peer) { api_conn_new(ln->owner, fd, true); }
static void public_accepted(struct listener *ln, int fd, const struct addr *peer) { api_conn_new(ln->owner, fd, false); }

static void listeners_start(struct api *a)
{
    if (a->unix_fd >= 0)
        listener_start(&a->admin, a->loop, a->unix_fd, false, admin_accepted);
    if (a->http_fd >= 0)
        listener_start(&a->public, a->loop, a->http_fd, false, public_accepted);
    a->admin.owner = a->public.owner = a;
}

static void listeners_stop(struct api *a)
{
    listener_stop(&a->admin);
    listener_stop(&a->public);
}

struct api *api_new(struct loop *l, int unix_fd, int http_fd, const struct node_ops *ops, void *ctx)
{
    struct api *a = mem_new(MEM_API, sizeof *a);
    memcpy(a->limit, limit_values, sizeof a->limit);
    a->loop = l;
    a->ops = ops;
    a->ctx = ctx;
    a->unix_fd = unix_fd;
    a->http_fd = http_fd;
    list_init(&a->conns);
    list_init(&a->followers);
    list_init(&a->recent);
    listeners_start(a);
    return a;
}

void api_free(struct api *a)
{
    if (!a)
        return;
    listeners_stop(a);
    LIST_FOREACH (it, &a->conns)
        api_conn_close(CONTAINER_OF(it, struct api_conn, link));
    api_logs_fini(a);
    mem_free(a);
}

/* ---- a hand-over ------------------------------------------------------------------------------------------------------ */

void api_suspend(struct api *a)
{
    a->suspended = true;
    listeners_stop(a);
    LIST_FOREACH (it, &a->conns)
        api_conn_last(CONTAINER_OF(it, struct api_conn, link));
}

void api_resume(struct api *a)
{
    if (!a->suspended)
        return;
    a->suspended = false;
    listeners_start(a);
}

uint32_t api_busy(const struct api *a)
{
    uint32_t n = 0;
    LIST_FOREACH (it, &a->conns) {
        const struct api_conn *c = CONTAINER_OF(it, struct api_conn, link);
        n += c != a->upgrader && (c->state != CONN_CLOSING || c->stream.out_bytes > 0);
    }
    return n;
}
