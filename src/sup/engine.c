/* engine.c - the engine's process: starting it without privileges, handing over what exists, starting it again.
 *
 * The engine is this same binary, executed anew: the program text is shared in memory, and nothing of sup's state gets
 * into the process that talks to the world. It has no capabilities and can't gain any. When it dies it is started again,
 * the first time at once, then after 100 ms doubling to 5 s; one that lived for 10 s starts the count anew. The new one
 * is told of every listener and every replica, then SUP_READY.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the title ------------------------------------------------------------------------------------------------------- */

/* The start and the end of the memory that ps takes a command line from: fields 48 and 49 of /proc/self/stat. */
static bool arguments_area(char **start, char **end)
{
    static char *area[2]; /* this process's, and the same in every clone of it */
    char text[2048];
    if (!area[0]) {
        int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[n > 0 ? n : 0] = 0;
        char *p = strrchr(text, ')'); /* field 2, the name, may hold anything */
        for (int field = 2; p && field < 48; field++)
            p = strchr(p + 1, ' ');
        unsigned long from = 0, to = 0;
        if (!p || sscanf(p, " %lu %lu", &from, &to) != 2 || from == 0 || to <= from)
            return false;
        area[0] = (char *)(uintptr_t)from;
        area[1] = (char *)(uintptr_t)to;
    }
    *start = area[0];
    *end = area[1];
    return true;
}

void process_title(const char *title)
{
    char *start, *end;
    if (!arguments_area(&start, &end))
        return;
    size_t room = (size_t)(end - start), n = MIN(strlen(title), room - 1);
    memset(start, 0, room);
    memcpy(start, title, n);
}

/* ---- the child ------------------------------------------------------------------------------------------------------- */

/* True when walking to path needs a right that root has only by capability: a folder of another user, closed to others. */
static bool is_closed_to_us(const char *path)
{
    char p[4096];
    snprintf(p, sizeof p, "%s/", path ? path : "");
    for (char *slash = strchr(p + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        struct stat st;
        *slash = 0;
        bool known = stat(p, &st) == 0;
        *slash = '/';
        if (!known)
            return false;
        mode_t bit = st.st_uid == geteuid() ? S_IXUSR : st.st_gid == getegid() ? S_IXGRP : S_IXOTH;
        if (!(st.st_mode & bit))
            return true;
    }
    return false;
}

/* The engine works on files only as their owner may. One exception: run with sudo below somebody's closed home folder it
 * could not even reach its own data directory, so there it keeps the one right to do that. */
static uint64_t engine_caps(const struct sup *s)
{
    char cwd[4096];
    bool closed = is_closed_to_us(s->data_dir) || (getcwd(cwd, sizeof cwd) && is_closed_to_us(cwd));
    return closed ? 1ull << CAP_DAC_OVERRIDE : 0;
}

static char **engine_env(int fd)
{
    size_t n = 0, out = 0;
    while (environ[n])
        n++;
    char **env = mem_new(MEM_SUP, (n + 2) * sizeof *env), *own = mem_new(MEM_SUP, 64);
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], SUP_FD_ENV "=", sizeof SUP_FD_ENV) != 0)
            env[out++] = environ[i];
    snprintf(own, 64, SUP_FD_ENV "=%d", fd);
    env[out] = own;
    return env;
}

static _Noreturn void engine_exec(const struct sup *s, int fd)
{
    uint64_t keep = engine_caps(s);
    char **env = engine_env(fd);
    (void)setpgid(0, 0); /* Ctrl-C in the terminal is for sup: it tells the engine to drain */
    signals_reset();
    (void)fcntl(fd, F_SETFD, 0);
    if (caps_keep(keep) < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        log_error("sup", "cannot drop the engine's privileges: %s", strerror(errno));
        _exit(1);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    struct pollfd p = {s->self_pidfd, POLLIN, 0};
    if (poll(&p, 1, 0) != 0)
        _exit(1);
    execve("/proc/self/exe", s->engine_argv, env);
    log_error("sup", "cannot execute the engine: /proc/self/exe: %s", strerror(errno));
    _exit(1);
}

/* ---- the parent ------------------------------------------------------------------------------------------------------ */

static void tell_ready(struct sup *s)
{
    struct buf b = {0};
    sup_put_u32(&b, (uint32_t)s->caps.net);
    sup_put_u32(&b, s->caps.namespaces);
    sup_put_u32(&b, s->caps.user_namespace);
    sup_put_u32(&b, (uint32_t)s->caps.cgroup);
    sup_put_u32(&b, s->caps.seccomp);
    sup_put_str(&b, s->caps.why);
    sup_put_u32(&b, s->engine - 1);
    sup_tell(s, SUP_READY, &b, NULL, 0);
    buf_free(&b);
}

static void schedule_restart(struct sup *s, uint64_t lived_ms)
{
    if (lived_ms >= SUP_BACKOFF_RESET_MS)
        s->backoff_ms = 0;
    s->restart_at_ms = sup_now_ms() + s->backoff_ms;
    s->backoff_ms = s->backoff_ms == 0 ? SUP_BACKOFF_MS_MIN : MIN(s->backoff_ms * 2, SUP_BACKOFF_MS_MAX);
}

void engine_start(struct sup *s)
{
    int pair[2];
    pid_t pid = -1;
    s->restart_at_ms = 0;
    s->engine_start_ms = sup_now_ms();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0) {
        pid = fork();
        if (pid == 0)
            engine_exec(s, pair[1]);
        close(pair[1]);
        if (pid < 0)
            close(pair[0]);
    }
    if (pid < 0) {
        log_error("sup", "cannot start the engine: %s", strerror(errno));
        schedule_restart(s, 0);
        return;
    }
    s->engine_pid = pid;
    s->engine++;
    sup_chan_init(&s->chan, pair[0]);
    sup_watch_engine(s);
    replicas_adopt(s);
    listeners_adopt(s); /* those inside a replica's namespace come after it */
    tell_ready(s);
}

void engine_kill(struct sup *s)
{
    if (s->engine_pid)
        (void)kill(s->engine_pid, SIGKILL);
}

static void log_end(const struct sup *s, int status)
{
    if (WIFSIGNALED(status))
        log_error("sup", "the engine (pid %d) was ended by signal %d (%s)", (int)s->engine_pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        log_error("sup", "the engine (pid %d) ended with status %d", (int)s->engine_pid, WEXITSTATUS(status));
}

bool engine_reaped(struct sup *s, pid_t pid, int status)
{
    if (pid != s->engine_pid)
        return false;
    sup_read_engine(s); /* what it said before it ended */
    if (s->phase != SUP_ENDING)
        log_end(s, status);
    s->engine_pid = 0;
    source_close(s, &s->chan_src);
    s->chan.fd = -1; /* was the source's */
    sup_chan_fini(&s->chan);
    if (s->phase == SUP_ENDING)
        return true;
    replicas_engine_gone(s);
    if (s->phase == SUP_STOPPING)
        sup_end(s, 1, true); /* nobody is there to drain any more */
    else if (s->engine == 1 && WIFEXITED(status) && WEXITSTATUS(status) == SUP_EXIT_CONFIG)
        sup_end(s, 2, true);
    else
        schedule_restart(s, sup_now_ms() - s->engine_start_ms);
    return true;
}
