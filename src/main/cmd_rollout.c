/* cmd_rollout.c - weir rollout restart|status.
 *
 * status reads a stream of JSON objects, one a line, and prints a line for each change; the node ends the stream when all
 * that was asked for is complete.
 */
#include "cli.h"

/* What status has seen. */
struct watching {
    struct buf part;   /* the line that is still arriving */
    size_t incomplete; /* workloads whose last line was not complete: only right when the stream was not followed */
    bool gone;
    bool late;         /* nothing is waited for but rollouts that make no progress */
    bool interrupted;  /* another engine takes over: it is asked again */
};

static void show_line(struct watching *w, struct slice line)
{
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    const char *name = json_string_value(json_object_get(o, "name")), *why = json_string_value(json_object_get(o, "why"));
    if (json_is_true(json_object_get(o, "gone"))) {
        w->gone = true;
    } else if (json_is_integer(json_object_get(o, "late"))) {
        w->late = true;
    } else if (json_is_true(json_object_get(o, "interrupted"))) {
        w->interrupted = true;
    } else if (name && json_is_true(json_object_get(o, "complete"))) {
        printf("%s: rolled out, revision %lld, %lld ready\n", name, (long long)json_integer_value(json_object_get(o, "revision")),
               (long long)json_integer_value(json_object_get(o, "ready")));
    } else if (name) {
        printf("%s: %lld of %lld updated, %lld ready%s%s\n", name, (long long)json_integer_value(json_object_get(o, "updated")),
               (long long)json_integer_value(json_object_get(o, "wanted")), (long long)json_integer_value(json_object_get(o, "ready")), why && *why ? ": " : "",
               why ? why : "");
        w->incomplete++;
    }
    fflush(stdout);
    json_decref(o);
}

static bool take(void *ctx, struct slice data)
{
    struct watching *w = ctx;
    buf_add_slice(&w->part, data);
    char *from = w->part.p, *nl;
    while ((nl = memchr(from, '\n', w->part.n - (size_t)(from - w->part.p)))) {
        show_line(w, slice_of(from, (size_t)(nl - from)));
        from = nl + 1;
    }
    size_t left = w->part.n - (size_t)(from - w->part.p);
    memmove(w->part.p, from, left);
    w->part.n = left;
    return true;
}

static const char *bare_name(const char *text)
{
    const char *slash = strchr(text, '/');
    return slash ? slash + 1 : text;
}

static int status_of(const struct args *a, const char *name, uint32_t timeout_ms)
{
    struct watching w = {0};
    struct buf target = {0}, workload = {0};
    buf_adds(&target, "/v1/rollout/status");
    if (name) {
        buf_printf(&workload, "%s/%s", args_namespace(a), name);
        query_add(&target, "workload", workload.p);
    } else {
        query_add(&target, "namespace", args_namespace(a));
    }
    bool wait = !args_has(a, "no-wait");
    if (wait)
        buf_adds(&target, "&follow=1");
    uint64_t due = timeout_ms ? mono_ns() + timeout_ms * 1000000ull : 0;
    int code;
    do {
        uint64_t now = mono_ns();
        w.interrupted = false;
        code = node_stream(a, target.p, !due ? 0 : due > now ? (uint32_t)((due - now) / 1000000 + 1) : 1,
                           "the rollout was not complete within the time given", take, &w);
    } while (!code && w.interrupted);
    if (!code && w.gone)
        code = cli_fail(EXIT_FAILED, a->cmd->name, NULL, "the workload was deleted meanwhile");
    if (!code && wait && w.late)
        code = cli_fail(EXIT_FAILED, a->cmd->name, "correct what is said above and apply it, or go back with weir rollback; the old replicas go on", "no progress within progressDeadlineSeconds");
    if (!code && !wait && w.incomplete)
        code = EXIT_FAILED;
    buf_free(&w.part);
    buf_free(&target);
    buf_free(&workload);
    return code;
}

static int status(const struct args *a)
{
    uint32_t timeout_ms;
    int code = args_time(a, "timeout", 0, &timeout_ms);
    uint64_t due = timeout_ms ? mono_ns() + timeout_ms * 1000000ull : 0;
    if (!code && a->pos_n == 1)
        return status_of(a, NULL, timeout_ms);
    for (size_t i = 1; i < a->pos_n && !code; i++) {
        uint64_t now = mono_ns();
        code = status_of(a, bare_name(a->pos[i]), !due ? 0 : due > now ? (uint32_t)((due - now) / 1000000 + 1) : 1);
    }
    return code;
}

static int restart_one(const struct args *a, const char *name)
{
    struct buf body = {0};
    struct client_answer answer;
    buf_adds(&body, "{\"namespace\":");
    buf_add_json(&body, slice_cstr(args_namespace(a)));
    buf_adds(&body, ",\"name\":");
    buf_add_json(&body, slice_cstr(name));
    buf_addc(&body, '}');
    int code = node_call(a, "POST", "/v1/rollout/restart", buf_slice(&body), 0, &answer);
    if (!code)
        printf("deployment/%s restarted\n", name);
    buf_free(&answer.body);
    buf_free(&body);
    return code;
}

static int restart_all(const struct args *a)
{
    struct buf target = {0};
    json_t *list, *o;
    size_t i;
    buf_adds(&target, "/v1/workloads");
    query_add(&target, "namespace", args_namespace(a));
    int code = node_get_json(a, target.p, &list);
    json_array_foreach (json_object_get(list, "items"), i, o) {
        int one = restart_one(a, json_string_value(json_object_get(json_object_get(o, "metadata"), "name")));
        code = code ? code : one;
    }
    json_decref(list);
    buf_free(&target);
    return code;
}

static int restart(const struct args *a)
{
    int code = EXIT_OK;
    if (args_has(a, "all") && a->pos_n == 1)
        return restart_all(a);
    if (a->pos_n < 2 || args_has(a, "all"))
        return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "name workloads to restart, or use --all");
    for (size_t i = 1; i < a->pos_n; i++) {
        int one = restart_one(a, bare_name(a->pos[i]));
        code = code ? code : one;
    }
    return code;
}

int cmd_rollout(struct args *a)
{
    if (a->pos_n && strcmp(a->pos[0], "restart") == 0)
        return restart(a);
    if (a->pos_n && strcmp(a->pos[0], "status") == 0)
        return status(a);
    return cli_fail(EXIT_USAGE, a->cmd->name, "use weir rollout restart WORKLOAD or weir rollout status", "%s%s%s",
                    a->pos_n ? "there is no \"rollout " : "what to do is not given", a->pos_n ? a->pos[0] : "", a->pos_n ? "\"" : "");
}
