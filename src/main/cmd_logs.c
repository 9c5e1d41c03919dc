/* cmd_logs.c - weir logs: captured output of a workload, from the node's file and then live. */
#include "cli.h"

static bool print(void *ctx, struct slice data) { return fwrite(data.p, 1, data.n, stdout) == data.n && fflush(stdout) == 0; }

/* "catalog", "deployment/catalog": the name. NULL: it is of another kind. */
static const char *workload_name(const char *text)
{
    const char *slash = strchr(text, '/');
    if (!slash)
        return text;
    char *kind = mem_strndup(MEM_MISC, text, (size_t)(slash - text));
    const struct view *v = view_find(kind);
    mem_free(kind);
    return v && v->kind == OBJ_DEPLOYMENT ? slash + 1 : NULL;
}

static int check(const struct args *a)
{
    if (args_has(a, "previous"))
        return cli_fail(EXIT_USAGE, a->cmd->name, "leave it out: output of earlier runs is in the same log", "--previous is not supported");
    if (a->pos_n != 1)
        return cli_fail(EXIT_USAGE, a->cmd->name, "list them with weir get workloads", "name one workload");
    if (!workload_name(a->pos[0]))
        return cli_fail(EXIT_USAGE, a->cmd->name, "name a workload", "only workloads have logs, not %s", a->pos[0]);
    return EXIT_OK;
}

int cmd_logs(struct args *a)
{
    uint64_t tail = UINT64_MAX;
    struct buf target = {0}, name = {0};
    struct client_answer answer = {0};
    int code = check(a);
    if (!code)
        code = args_count(a, "tail", UINT32_MAX, &tail);
    if (code)
        return code;
    buf_printf(&name, "%s/%s", args_namespace(a), workload_name(a->pos[0]));
    buf_adds(&target, "/v1/logs");
    query_add(&target, "workload", name.p);
    if (tail != UINT64_MAX)
        buf_printf(&target, "&tail=%llu", (unsigned long long)tail);
    if (args_has(a, "follow")) {
        buf_adds(&target, "&follow=1");
        code = node_stream(a, target.p, 0, print, NULL);
    } else {
        /* Collected first: a pager that pauses must not make the node think that its reader is stuck. */
        code = node_call(a, "GET", target.p, (struct slice){0}, 0, &answer);
        if (!code && answer.body.n)
            print(NULL, buf_slice(&answer.body));
    }
    buf_free(&answer.body);
    buf_free(&target);
    buf_free(&name);
    return code;
}
