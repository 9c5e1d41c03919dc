/* cmd_upgrade.c - weir upgrade: another binary's engine takes over from the running one.
 *
 * The request is held by the engine that is in charge until the other one serves, or has failed. Then this command asks the new
 * one, over the same socket, whether the former one has ended. Should the running engine die meanwhile, the answer is lost with
 * it; then the count of upgrades tells how it went.
 */
#include "cli.h"

#include <limits.h>
#include <poll.h>
#include <stdlib.h>

#define LOOK_MS 50
#define SLACK_MS 40000 /* beyond --timeout: for letting go of the workloads and taking them over, which sup bounds */

struct standing {
    int64_t pid, upgrades, leaving;
};

/* What the engine says of itself now; false while none answers. */
static bool look(const char *dir, struct standing *s)
{
    struct buf path = {0};
    struct client_answer answer = {0};
    buf_printf(&path, "%s/" NODE_SOCKET, dir);
    struct client_call call = {.socket_path = path.p, .method = "GET", .target = "/v1/info", .timeout_ms = 5000};
    bool good = client_run(&call, &answer) == CLIENT_OK && answer.status == 200;
    json_t *o = good ? json_loadb(answer.body.p, answer.body.n, 0, NULL) : NULL;
    *s = (struct standing){json_integer_value(json_object_get(o, "pid")), json_integer_value(json_object_get(o, "engine_upgrades")),
                           json_integer_value(json_object_get(o, "leaving_pid"))};
    good = o != NULL;
    json_decref(o);
    buf_free(&answer.body);
    buf_free(&path);
    return good;
}

static int wait_left(const struct args *a, const char *dir, uint32_t drain_ms)
{
    uint64_t due = mono_ns() + (drain_ms + SLACK_MS) * 1000000ull;
    struct standing s = {0};
    for (bool said = false; mono_ns() < due; poll(NULL, 0, LOOK_MS)) {
        bool known = look(dir, &s);
        if (known && !s.leaving) {
            printf("process %lld serves; the former engine has ended\n", (long long)s.pid);
            return EXIT_OK;
        }
        if (known && !said) {
            printf("process %lld serves; process %lld is finishing its requests\n", (long long)s.pid, (long long)s.leaving);
            fflush(stdout);
            said = true;
        }
    }
    return cli_fail(EXIT_TIMEOUT, a->cmd->name, "see the node's log", "the new engine serves, but the former one has not ended");
}

/* The engine that held the request is gone. */
static int wait_lost(const struct args *a, const char *dir, const struct standing *before, uint32_t ready_ms)
{
    uint64_t due = mono_ns() + (ready_ms + SLACK_MS) * 1000000ull;
    struct standing s = {0};
    while (!look(dir, &s) || s.pid == before->pid) {
        if (mono_ns() >= due)
            return cli_fail(EXIT_FAILED, a->cmd->name, "see the node's log", "the engine ended during the upgrade, and none answers");
        poll(NULL, 0, LOOK_MS);
    }
    if (s.upgrades > before->upgrades)
        return EXIT_OK;
    return cli_fail(EXIT_FAILED, a->cmd->name, "see the node's log", "the engine ended during the upgrade and was restarted as it was");
}

static int body_of(const struct args *a, uint32_t ready_ms, uint32_t drain_ms, struct buf *body)
{
    const char *binary = args_str(a, "binary", NULL);
    char path[PATH_MAX];
    buf_printf(body, "{\"ready_ms\":%u,\"drain_ms\":%u", ready_ms, drain_ms);
    if (binary && !realpath(binary, path))
        return cli_fail(EXIT_USAGE, a->cmd->name, "give the path of a weir binary", "--binary %s can't be found", binary);
    if (binary) {
        buf_adds(body, ",\"binary\":");
        buf_add_json(body, slice_cstr(path));
    }
    buf_addc(body, '}');
    return EXIT_OK;
}

static int upgrade(const struct args *a, const char *dir, uint32_t ready_ms, uint32_t drain_ms)
{
    struct standing before = {0};
    struct client_answer answer = {0};
    struct buf body = {0};
    bool lost = false;
    int code = body_of(a, ready_ms, drain_ms, &body);
    if (!code)
        (void)look(dir, &before);
    if (!code)
        code = node_call_long(a, "POST", "/v1/upgrade", buf_slice(&body), ready_ms + SLACK_MS, &lost, &answer);
    if (lost)
        code = wait_lost(a, dir, &before, ready_ms);
    if (!code && !args_has(a, "no-wait"))
        code = wait_left(a, dir, drain_ms);
    buf_free(&answer.body);
    buf_free(&body);
    return code;
}

int cmd_upgrade(struct args *a)
{
    uint32_t ready_ms, drain_ms;
    char *dir = NULL;
    int code = args_time(a, "timeout", 30000, &ready_ms);
    if (!code)
        code = args_time(a, "drain-timeout", 60000, &drain_ms);
    if (!code && a->pos_n)
        code = cli_fail(EXIT_USAGE, a->cmd->name, "name the binary with --binary", "upgrade takes no arguments");
    if (!code)
        code = node_data(a, &dir);
    if (!code)
        code = upgrade(a, dir, ready_ms, drain_ms);
    mem_free(dir);
    return code;
}
