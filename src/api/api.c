/* api.c - the admin interface as a whole: its two listeners, the table of endpoints, and what handlers share.
 *
 * The Unix socket is guarded by its file's permissions (0600, in a folder of 0700) and answers everything. The read-only
 * port answers only what is harmless to show to anyone on this machine.
 */
#include "api_int.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- endpoints -------------------------------------------------------------------------------------------------------- */

enum port { PUBLIC, ADMIN };
static const struct endpoint {
    const char *path;
    enum h1_method method;
    enum port port;
    void (*fn)(struct api_conn *);
} endpoints[] = {
#define X(method, path, port, fn, help) {path, H1_##method, port, fn},
#include "endpoints.def"
#undef X
};

static void dispatch_unknown(struct api_conn *c)
{
    if (c->admin)
        api_error(c, 404, "see docs/cli.md and src/api/README.md for the endpoints", "there is no endpoint %s", c->req.path);
    else
        api_error(c, 404, "this port has /metrics, /healthz, /readyz and /version; all else is on the node's Unix socket (use weir)",
                  "there is no endpoint %s on this port", c->req.path);
}

void api_dispatch(struct api_conn *c)
{
    for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
        const struct endpoint *e = &endpoints[i];
        if ((e->port == ADMIN && !c->admin) || strcmp(e->path, c->req.path) != 0)
            continue;
        if (e->method == c->req.method)
            e->fn(c);
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

/* Somebody answers at path. A Unix socket outlives its process as a file; only connecting tells. Connecting is immediate
 * here, so this one look does not go through the loop. */
static bool unix_alive(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    memcpy(sun.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool alive = connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0 || errno == EAGAIN;
    close(fd);
    return alive;
}

static enum err unix_listen(const char *path, int *fd)
{
    struct addr a = {.family = ADDR_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof a.path)
        return ERR_LIMIT;
    memcpy(a.path, path, strlen(path) + 1);
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return ERR_EXISTS; /* somebody's file: not ours to remove */
        if (unix_alive(path))
            return ERR_INUSE;
        if (unlink(path) != 0)
            return err_from_errno(errno);
    }
    mode_t before = umask(0177); /* the file is never wider than 0600, not even for a moment */
    enum err e = listen_socket(&a, 128, false, fd);
    umask(before);
    return e;
}

enum err api_new(struct loop *l, const char *unix_path, int http_fd, const struct node_ops *ops, void *ctx, struct api **out)
{
    int fd;
    enum err e = unix_listen(unix_path, &fd);
    if (e)
        return e;
    struct api *a = mem_new(MEM_API, sizeof *a);
    memcpy(a->limit, limit_values, sizeof a->limit);
    a->loop = l;
    a->ops = ops;
    a->ctx = ctx;
    a->admin_fd = fd;
    a->unix_path = mem_strdup(MEM_API, unix_path);
    list_init(&a->conns);
    list_init(&a->followers);
    list_init(&a->recent);
    listener_start(&a->admin, l, fd, false, admin_accepted);
    a->admin.owner = a;
    if (http_fd >= 0) {
        listener_start(&a->public, l, http_fd, false, public_accepted);
        a->public.owner = a;
        a->public_on = true;
    }
    *out = a;
    return OK;
}

void api_free(struct api *a)
{
    if (!a)
        return;
    listener_stop(&a->admin);
    if (a->public_on)
        listener_stop(&a->public);
    LIST_FOREACH (it, &a->conns)
        api_conn_close(CONTAINER_OF(it, struct api_conn, link));
    api_logs_fini(a);
    socket_close(a->admin_fd);
    unlink(a->unix_path);
    mem_free(a->unix_path);
    mem_free(a);
}
