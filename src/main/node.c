/* node.c - the way to the running node: its data folder, its lock, and requests whose failures are said here. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the data folder ---------------------------------------------------------------------------------------------------- */

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The nearest .weir in this folder or one above. */
static char *find_upwards(void)
{
    char at[PATH_MAX];
    if (!getcwd(at, sizeof at))
        return NULL;
    for (;;) {
        struct buf b = {0};
        buf_printf(&b, "%s/.weir", strcmp(at, "/") == 0 ? "" : at);
        if (is_dir(b.p))
            return buf_take(&b, NULL);
        buf_free(&b);
        char *slash = strrchr(at, '/');
        if (!slash || !at[1])
            return NULL;
        slash[slash == at] = 0;
    }
}

int node_data(const struct args *a, char **dir)
{
    char path[PATH_MAX];
    const char *named = args_str(a, "data", cli_env("WEIR_DATA"));
    *dir = NULL;
    if (!named) {
        *dir = find_upwards();
        if (*dir)
            return EXIT_OK;
        return cli_fail(EXIT_NO_NODE, a->cmd->name, "start a node with weir up FILE, or name its data folder with --data or WEIR_DATA",
                        "no node is running: there is no .weir in this folder or above");
    }
    if (!realpath(named, path))
        return cli_fail(EXIT_NO_NODE, a->cmd->name, "start a node with weir up FILE --data DIR", "no node is running: data folder %s: %s", named,
                        strerror(errno));
    *dir = mem_strdup(MEM_MISC, path);
    return EXIT_OK;
}

bool node_lock(const char *data_dir, int *fd, int *pid)
{
    struct buf path = {0};
    char text[16] = "";
    buf_printf(&path, "%s/" NODE_LOCK, data_dir);
    *pid = 0;
    *fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    buf_free(&path);
    if (*fd < 0)
        return false;
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    uint64_t number = 0;
    ssize_t n = read(*fd, text, sizeof text - 1);
    if (n > 0 && slice_u64(slice_trim(slice_cut(slice_cstr(text), '\n', &(struct slice){0})), INT_MAX, &number) == OK)
        *pid = (int)number;
    close(*fd);
    *fd = -1;
    return false;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

int node_holder(const char *data_dir)
{
    int fd, pid = 0;
    if (access(data_dir, W_OK) == 0 && node_lock(data_dir, &fd, &pid))
        close(fd);
    return pid;
}

static int say_end(const struct args *a, enum client_end e, const char *dir)
{
    int pid = e == CLIENT_NO_NODE ? node_holder(dir) : 0;
    switch (e) {
    case CLIENT_OK: return EXIT_OK;
    case CLIENT_NO_NODE:
        if (pid)
            return cli_fail(EXIT_NO_NODE, a->cmd->name, "its log says what it waits for: weir.log there, or the terminal that it runs in; weir down ends it",
                            "the node on %s (process %d) is starting and does not answer yet", dir, pid);
        return cli_fail(EXIT_NO_NODE, a->cmd->name, "start one with weir up FILE, or name another data folder with --data", "no node is running on %s", dir);
    case CLIENT_LATE: return cli_fail(EXIT_TIMEOUT, a->cmd->name, "see the node's log", "the node did not answer in time");
    case CLIENT_BROKEN: break;
    }
    return cli_fail(EXIT_FAILED, a->cmd->name, "see whether it is still running with weir get all",
                    "the node ended the connection before its answer was complete");
}

/* Fields that others own, of an answer to apply. */
static void say_conflicts(const json_t *list)
{
    size_t i;
    json_t *x;
    json_array_foreach (list, i, x) {
        const char *kind, *ns, *name, *manager, *field;
        if (json_unpack(x, "{s:s,s:s,s:s,s:s,s:s}", "kind", &kind, "namespace", &ns, "name", &name, "manager", &manager, "field", &field) == 0)
            fprintf(stderr, "weir: conflict: %s %s%s%s %s is owned by %s\n", kind, ns, *ns ? "/" : "", name, field, manager);
    }
}

/* The node's {"error","remedy"}, or whatever else it said. */
static int say_refusal(const struct args *a, const struct client_answer *answer)
{
    json_t *o = json_loadb(answer->body.p ? answer->body.p : "", answer->body.n, 0, NULL);
    const char *error = json_string_value(json_object_get(o, "error")), *remedy = json_string_value(json_object_get(o, "remedy"));
    say_conflicts(json_object_get(o, "conflicts"));
    int code =
        error ? cli_fail(EXIT_FAILED, a->cmd->name, remedy, "%s", error)
              : cli_fail(EXIT_FAILED, a->cmd->name, NULL, "the node answered %u: " SLICE_FMT, answer->status, SLICE_ARG(slice_trim(buf_slice(&answer->body))));
    json_decref(o);
    return code;
}

/* lost: NULL, or set instead of saying that the connection ended. */
static int call_said(const struct args *a, struct client_call *call, uint16_t also, bool *lost, struct client_answer *out)
{
    char *dir;
    struct buf path = {0};
    *out = (struct client_answer){0};
    int code = node_data(a, &dir);
    if (code)
        return code;
    buf_printf(&path, "%s/" NODE_SOCKET, dir);
    call->socket_path = path.p;
    enum client_end end = client_run(call, out);
    if (lost)
        *lost = end == CLIENT_BROKEN;
    if (end == CLIENT_LATE && call->late && out->status == 200)
        code = cli_fail(EXIT_TIMEOUT, a->cmd->name, "it goes on; see weir get replicas", "%s", call->late);
    else
        code = lost && *lost ? EXIT_FAILED : say_end(a, end, dir);
    if (!code && (out->status < 200 || out->status > 299) && out->status != also)
        code = say_refusal(a, out);
    buf_free(&path);
    mem_free(dir);
    return code;
}

int node_call(const struct args *a, const char *method, const char *target, struct slice body, uint16_t also, struct client_answer *out)
{
    struct client_call call = {.method = method, .target = target, .body = body, .timeout_ms = NODE_CALL_MS};
    return call_said(a, &call, also, NULL, out);
}

int node_call_long(const struct args *a, const char *method, const char *target, struct slice body, uint32_t timeout_ms, bool *lost, struct client_answer *out)
{
    struct client_call call = {.method = method, .target = target, .body = body, .timeout_ms = timeout_ms};
    return call_said(a, &call, 0, lost, out);
}

int node_get_json(const struct args *a, const char *target, json_t **out)
{
    struct client_answer answer;
    json_error_t err;
    int code = node_call(a, "GET", target, (struct slice){0}, 0, &answer);
    *out = NULL;
    if (!code) {
        *out = json_loadb(answer.body.p ? answer.body.p : "", answer.body.n, JSON_ALLOW_NUL, &err);
        if (!*out)
            code = cli_fail(EXIT_FAILED, a->cmd->name, "is the node of another version?", "the node's answer is not JSON: %s", err.text);
    }
    buf_free(&answer.body);
    return code;
}

int node_stream(const struct args *a, const char *target, uint32_t timeout_ms, const char *late, bool (*data)(void *, struct slice), void *ctx)
{
    struct client_call call = {.method = "GET", .target = target, .timeout_ms = timeout_ms, .late = late, .data = data, .ctx = ctx};
    struct client_answer answer;
    int code = call_said(a, &call, 0, NULL, &answer);
    buf_free(&answer.body);
    return code;
}

void query_add(struct buf *target, const char *key, const char *value)
{
    buf_printf(target, "%c%s=", memchr(target->p, '?', target->n) ? '&' : '?', key);
    for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-._~/", *p);
        if (plain)
            buf_addc(target, (char)*p);
        else
            buf_printf(target, "%%%02X", *p);
    }
}
