/* cmd_logs.c - weir logs: captured output of a workload, from the node's file and then live. */
#include "cli.h"

#include <poll.h>
#include <unistd.h>

#define ENDING_MS 300  /* between the end of a stream and the end of its node */
#define LOOK_MS 20
#define MARK_BYTES 512 /* of a line: with its time and source it is one of a kind */

/* What is followed: the beginning of the last whole line that was shown, where a stream that was cut is taken up again. */
struct following {
    char mark[MARK_BYTES + 1], now[MARK_BYTES + 1];
    size_t now_n;
};

static bool print(struct slice data) { return fwrite(data.p, 1, data.n, stdout) == data.n && fflush(stdout) == 0; }

static bool follow(void *ctx, struct slice data)
{
    struct following *f = ctx;
    for (size_t i = 0; i < data.n; i++) {
        if (data.p[i] == '\n') {
            f->now[f->now_n] = 0;
            memcpy(f->mark, f->now, f->now_n + 1);
            f->now_n = 0;
        } else if (f->now_n < MARK_BYTES) {
            f->now[f->now_n++] = data.p[i];
        }
    }
    return print(data);
}

/* A stream ends with the node, or when another engine takes over, which then has the rest. */
static bool node_ended(const char *dir)
{
    int fd, pid;
    for (int i = 0; i < ENDING_MS / LOOK_MS; i++) {
        if (node_lock(dir, &fd, &pid)) {
            close(fd);
            return true;
        }
        poll(NULL, 0, LOOK_MS);
    }
    return false;
}

static int follow_all(const struct args *a, const char *target)
{
    struct following *f = mem_new(MEM_MISC, sizeof *f);
    char *dir;
    int code = node_data(a, &dir);
    bool more = code == EXIT_OK;
    while (more) {
        struct buf again = {0};
        buf_adds(&again, target);
        if (f->mark[0])
            query_add(&again, "after", f->mark);
        f->now_n = 0;
        code = node_stream(a, again.p, 0, NULL, follow, f);
        buf_free(&again);
        more = code == EXIT_OK && !ferror(stdout) && !node_ended(dir);
    }
    mem_free(dir);
    mem_free(f);
    return code;
}

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
        code = follow_all(a, target.p);
    } else {
        /* Collected first: a pager that pauses must not make the node think that its reader is stuck. */
        code = node_call(a, "GET", target.p, (struct slice){0}, 0, &answer);
        if (!code && answer.body.n)
            print(buf_slice(&answer.body));
    }
    buf_free(&answer.body);
    buf_free(&target);
    buf_free(&name);
    return code;
}
