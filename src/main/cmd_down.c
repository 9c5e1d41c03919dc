/* cmd_down.c - weir down: asks the node to stop and waits until it is gone.
 *
 * A node that does not answer yet, because it waits for its control store, is asked by a signal, as Ctrl-C would.
 * Gone means that nobody holds the data folder's lock: sup holds it for life, and sup ends after everything it started.
 */
#include "cli.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#define LOOK_MS 50

static int wait_gone(const struct args *a, const char *dir, uint32_t timeout_ms)
{
    uint64_t due = mono_ns() + timeout_ms * 1000000ull;
    for (;;) {
        int fd, pid;
        if (node_lock(dir, &fd, &pid)) {
            close(fd);
            return EXIT_OK;
        }
        if (mono_ns() >= due)
            return cli_fail(EXIT_TIMEOUT, a->cmd->name, "wait longer with --timeout, or see what is left with weir get replicas",
                            "the node (process %d) is still stopping", pid);
        poll(NULL, 0, LOOK_MS);
    }
}

/* Nobody answers at the socket, and yet the folder is held: not a node that answers too late. */
static bool starting(const char *dir, int *pid)
{
    struct buf path = {0};
    struct client_answer answer = {0};
    buf_printf(&path, "%s/" NODE_SOCKET, dir);
    struct client_call call = {.socket_path = path.p, .method = "GET", .target = "/healthz", .timeout_ms = NODE_CALL_MS};
    bool mute = client_run(&call, &answer) == CLIENT_NO_NODE;
    *pid = mute ? node_holder(dir) : 0;
    buf_free(&answer.body);
    buf_free(&path);
    return *pid > 0;
}

int cmd_down(struct args *a)
{
    int pid;
    struct client_answer answer = {0};
    uint32_t timeout_ms;
    char *dir = NULL;
    int code = args_time(a, "timeout", 120000, &timeout_ms);
    if (!code && a->pos_n)
        code = cli_fail(EXIT_USAGE, a->cmd->name, "to remove single objects, use weir delete", "down takes no arguments");
    if (!code)
        code = node_data(a, &dir);
    if (!code && starting(dir, &pid))
        (void)kill(pid, SIGTERM); /* when it has ended meanwhile, it is gone */
    else if (!code)
        code = node_call(a, "POST", "/v1/down", SLICE("{}"), 0, &answer);
    if (!code)
        code = wait_gone(a, dir, timeout_ms);
    buf_free(&answer.body);
    mem_free(dir);
    return code;
}
