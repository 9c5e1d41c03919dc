/* exec.c - commands run inside a replica: exec probes and preStop hooks.
 *
 *     sup --fork--> helper: cgroup, setns into the replica's namespaces --fork--> session leader: sandbox, exec
 *      ^               |  waits, with the time limit; kills the whole session; writes struct exec_result
 *      +-- SIGCHLD ----+
 *
 * setns() into a PID namespace takes effect for children only, hence the second fork. The helper stays outside of the
 * PID namespace; it and its child die with sup. The command gets the workload's environment, user, working directory,
 * capabilities and seccomp filter. If the program can't be run, the reason is its output and the status is 127, as a
 * shell has it. The first SUP_EXEC_OUTPUT_MAX bytes of the output are kept, the rest is read and thrown away.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct exec_result {
    uint32_t err;     /* enum err */
    int32_t status;   /* as wait(2) gives it */
};

struct exec_args {
    const struct replica *r;
    const struct seccomp_filter *filter;
    const char *const *argv;
    uint32_t timeout_ms;
    int out, result, sup_pidfd;
};

enum { FD_OUT = 3, FD_RESULT, FD_SUP, FD_FIRST_FREE };

/* ---- the helper ------------------------------------------------------------------------------------------------------ */

static _Noreturn void finish(enum err e, int32_t status)
{
    struct exec_result res = {(uint32_t)e, status};
    (void)!write(FD_RESULT, &res, sizeof res);
    _exit(0);
}

static _Noreturn void refuse(enum err e, const char *what, const char *reason)
{
    char line[SUP_TEXT_MAX];
    int n = snprintf(line, sizeof line, "%s: %s\n", what, reason);
    (void)!write(FD_OUT, line, (size_t)MIN(n, (int)sizeof line - 1));
    finish(e, 127 << 8);
}

static void enter(const struct exec_args *a)
{
    int r = cgroup_join(&a->r->cgroup);
    if (r < 0)
        refuse(err_from_errno(-r), "cannot enter the replica's cgroup", strerror(-r));
    if (!a->r->sb.namespaces)
        return;
    int pidfd = (int)syscall(SYS_pidfd_open, a->r->init_pid, 0);
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | (a->r->sb.host_network ? 0 : CLONE_NEWNET);
    if (pidfd < 0 || setns(pidfd, flags) < 0) {
        int e = errno;
        refuse(err_from_errno(e), "cannot enter the replica's namespaces", strerror(e));
    }
    close(pidfd);
}

static _Noreturn void run(const struct exec_args *a)
{
    char text[SUP_TEXT_MAX];
    setsid();
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(FD_OUT, 1) < 0 || dup2(FD_OUT, 2) < 0)
        _exit(127);
    (void)sandbox_exec(&a->r->sb, a->filter, a->argv, text);
    (void)!write(1, text, strlen(text));
    _exit(127);
}

static _Noreturn void helper(const struct exec_args *a)
{
    int from[] = {a->out, a->result, a->sup_pidfd}, high[COUNT_OF(from)];
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (size_t i = 0; i < COUNT_OF(from); i++)
        high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 64);
    for (size_t i = 0; i < COUNT_OF(from); i++)
        if (high[i] < 0 || dup3(high[i], FD_OUT + (int)i, O_CLOEXEC) < 0)
            _exit(125);
    fds_close_from(FD_FIRST_FREE);
    struct pollfd p = {FD_SUP, POLLIN, 0};
    if (poll(&p, 1, 0) != 0)
        _exit(125);
    (void)prctl(PR_SET_NAME, "weir: exec", 0, 0, 0);
    enter(a);
    pid_t pid = fork();
    if (pid < 0)
        refuse(ERR_LIMIT, "cannot fork", strerror(errno));
    if (pid == 0)
        run(a);
    int child = (int)syscall(SYS_pidfd_open, pid, 0), status = 0;
    p = (struct pollfd){child, POLLIN, 0};
    bool late = child < 0 || poll(&p, 1, (int)a->timeout_ms) <= 0;
    (void)kill(-pid, SIGKILL); /* its session, also what an ended command has left in it */
    if (late)
        (void)kill(pid, SIGKILL); /* should it not have come to setsid() */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    finish(late ? ERR_TIMEOUT : OK, status);
}

/* ---- the parent ------------------------------------------------------------------------------------------------------ */

static void tell(struct sup *s, uint64_t id, uint64_t token, enum err e, int32_t status, struct slice output)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    sup_put_u64(&b, token);
    sup_put_u32(&b, (uint32_t)e);
    sup_put_u32(&b, (uint32_t)status);
    sup_put_bytes(&b, output);
    sup_tell(s, SUP_EXEC_DONE, &b, NULL, 0);
    buf_free(&b);
}

static void on_output(struct sup *s, struct source *src)
{
    struct exec *x = CONTAINER_OF(src, struct exec, out);
    char waste[4096];
    size_t room = sizeof x->output - x->output_n;
    ssize_t n = read(src->fd, room ? x->output + x->output_n : waste, room ? room : sizeof waste);
    if (n > 0 && room)
        x->output_n += (size_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        source_close(s, src);
}

static void exec_free(struct sup *s, struct exec *x)
{
    source_close(s, &x->out);
    close(x->result_fd);
    list_del(&x->link);
    s->execs_n--;
    mem_free(x);
}

/* Forks the helper. Takes over nothing: the caller closes the write ends. */
static pid_t launch(struct sup *s, const struct exec_args *a)
{
    /* A clone without the library's handlers, as in spawn.c: the helper runs only this file until exec. */
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        helper(a);
    return pid;
}

void exec_start(struct sup *s, uint64_t id, uint64_t token, const char *const *argv, uint32_t timeout_ms)
{
    struct replica *r = replica_find(s, id);
    if (!r || r->state != REPLICA_RUNNING || r->killed) {
        tell(s, id, token, ERR_NOTFOUND, 0, SLICE("the replica is not running"));
        return;
    }
    if (s->execs_n >= SUP_EXECS_MAX || !argv[0]) {
        tell(s, id, token, argv[0] ? ERR_LIMIT : ERR_INVALID, 0, argv[0] ? SLICE("256 commands are under way already") : SLICE("no program was named"));
        return;
    }
    int out[2] = {-1, -1}, result[2] = {-1, -1};
    pid_t pid = -1;
    if (pipe2(out, O_CLOEXEC) == 0 && pipe2(result, O_CLOEXEC) == 0) {
        (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
        (void)fcntl(result[0], F_SETFL, O_NONBLOCK);
        struct exec_args a = {r, &s->filter, argv, timeout_ms == 0 || timeout_ms > SUP_EXEC_MS_MAX ? SUP_EXEC_MS_MAX : timeout_ms, out[1], result[1],
                              s->self_pidfd};
        pid = launch(s, &a);
    }
    int e = pid < 0 ? errno : 0;
    const int unneeded[] = {out[1], result[1], pid < 0 ? out[0] : -1, pid < 0 ? result[0] : -1};
    for (size_t i = 0; i < COUNT_OF(unneeded); i++)
        if (unneeded[i] >= 0)
            close(unneeded[i]);
    if (pid < 0) {
        tell(s, id, token, err_from_errno(e), 0, slice_cstr(strerror(e)));
        return;
    }
    struct exec *x = mem_new(MEM_SUP, sizeof *x);
    x->id = id;
    x->token = token;
    x->engine = engine_number(s);
    x->pid = pid;
    x->result_fd = result[0];
    list_push(&s->execs, &x->link);
    s->execs_n++;
    source_open(s, &x->out, out[0], on_output);
}

bool exec_reaped(struct sup *s, pid_t pid, int status)
{
    LIST_FOREACH (it, &s->execs) {
        struct exec *x = CONTAINER_OF(it, struct exec, link);
        if (x->pid != pid)
            continue;
        struct exec_result res;
        if (read(x->result_fd, &res, sizeof res) != (ssize_t)sizeof res)
            res = (struct exec_result){ERR_INTERNAL, status}; /* the helper was killed */
        size_t before;
        do { /* what is still in the pipe; a process that it left may hold it open */
            before = x->output_n;
            if (x->out.fd >= 0 && x->output_n < sizeof x->output)
                on_output(s, &x->out);
        } while (x->output_n > before);
        if (x->engine == engine_number(s))
            tell(s, x->id, x->token, res.err < ERR_COUNT ? (enum err)res.err : ERR_INTERNAL, res.status, slice_of(x->output, x->output_n));
        exec_free(s, x);
        return true;
    }
    return false;
}

void execs_free(struct sup *s)
{
    LIST_FOREACH (it, &s->execs) {
        struct exec *x = CONTAINER_OF(it, struct exec, link);
        (void)kill(x->pid, SIGKILL);
        exec_free(s, x);
    }
}
