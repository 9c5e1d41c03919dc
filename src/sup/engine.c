/* engine.c - engines' processes: starting them without privileges, handing over what exists, starting them again.
 *
 * The engine is this same binary (later that of an upgrade), executed anew through a descriptor that is kept open, so that
 * whatever happens to the file, a restarted engine is the one that ran before. Nothing of sup's state gets into the process
 * that talks to the world. It has no capabilities and can't gain any. It speaks first: the version of its protocol. When the one in charge dies it
 * is started again, the first time at once, then after 100 ms doubling to 5 s; one that lived for 10 s starts the count anew.
 * The one that comes into charge is told of every listener and every replica, then SUP_READY. Upgrades are in upgrade.c.
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

static _Noreturn void engine_exec(const struct sup *s, int exe_fd, int fd, int errs)
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
    fexecve(exe_fd, s->engine_argv, env);
    int e = errno;
    (void)!write(errs, &e, sizeof e);
    _exit(1);
}

/* ---- the parent ------------------------------------------------------------------------------------------------------ */

static void tell_ready(struct sup *s, bool again)
{
    struct buf b = {0};
    bool leaves = s->up.from && s->up.from != s->charge && (s->up.state == UPGRADE_TAKING || s->up.state == UPGRADE_DRAINING);
    sup_put_u32(&b, (uint32_t)s->caps.net);
    sup_put_u32(&b, s->caps.namespaces);
    sup_put_u32(&b, s->caps.user_namespace);
    sup_put_u32(&b, (uint32_t)s->caps.cgroup);
    sup_put_u32(&b, s->caps.seccomp);
    sup_put_str(&b, s->caps.why);
    sup_put_u32(&b, s->restarts);
    sup_put_u32(&b, s->upgrades + (s->up.state == UPGRADE_TAKING && s->charge == s->up.to));
    sup_put_u32(&b, leaves ? (uint32_t)s->up.from->pid : 0);
    sup_put_u32(&b, again);
    sup_tell(s, SUP_READY, &b, NULL, 0);
    buf_free(&b);
}

static void kept_adopt(struct sup *s)
{
    struct buf b = {0};
    if (!s->kept.n)
        return;
    sup_put_bytes(&b, buf_slice(&s->kept));
    sup_tell(s, SUP_ADOPT_KEPT, &b, NULL, 0);
    buf_wipe(&b);
}

void engine_take(struct sup *s, struct sup_engine *e, bool again)
{
    s->charge = e;
    sup_tell(s, SUP_TAKE, NULL, NULL, 0);
    kept_adopt(s);
    replicas_adopt(s);
    listeners_adopt(s); /* those inside a replica's namespace come after it */
    tell_ready(s, again);
}

void engine_hello(struct sup *s, struct sup_engine *e, uint32_t protocol, const char *version)
{
    char wrong[SUP_TEXT_MAX];
    bool good = protocol == SUP_PROTOCOL && !e->greeted;
    if (!good)
        snprintf(wrong, sizeof wrong, "the binary (weir %.40s) speaks version %u of the supervisor's protocol, and the supervisor of this node (weir %s) speaks version %u; "
                 "a supervisor can't be exchanged while its node runs: stop the node with weir down, and start it with the other binary",
                 version, protocol, WEIR_VERSION, SUP_PROTOCOL);
    e->greeted = good;
    if (e == s->charge && good) {
        engine_take(s, e, false);
        if (s->phase == SUP_STOPPING) /* it could not be told when that began */
            sup_tell(s, SUP_STOP, NULL, NULL, 0);
    } else if (e == s->charge) {
        log_error("sup", "%s", wrong);
        engine_discard(s, e);
    } else {
        upgrade_greeted(s, e, good ? NULL : wrong);
    }
}

void engine_restart_later(struct sup *s, uint64_t lived_ms)
{
    if (lived_ms >= SUP_BACKOFF_RESET_MS)
        s->backoff_ms = 0;
    s->restart_at_ms = sup_now_ms() + s->backoff_ms;
    s->backoff_ms = s->backoff_ms == 0 ? SUP_BACKOFF_MS_MIN : MIN(s->backoff_ms * 2, SUP_BACKOFF_MS_MAX);
}

struct sup_engine *engine_launch(struct sup *s, int exe_fd)
{
    int pair[2] = {-1, -1}, errs[2] = {-1, -1};
    pid_t pid = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0 && pipe2(errs, O_CLOEXEC | O_NONBLOCK) == 0) {
        pid = fork();
        if (pid == 0)
            engine_exec(s, exe_fd, pair[1], errs[1]);
    }
    int e = errno;
    const int unneeded[] = {pair[1], errs[1], pid < 0 ? pair[0] : -1, pid < 0 ? errs[0] : -1};
    for (size_t i = 0; i < COUNT_OF(unneeded); i++)
        if (unneeded[i] >= 0)
            close(unneeded[i]);
    errno = e;
    if (pid < 0)
        return NULL;
    struct sup_engine *eng = mem_new(MEM_SUP, sizeof *eng);
    *eng = (struct sup_engine){.pid = pid, .number = ++s->engines_n, .exec_fd = errs[0], .start_ms = sup_now_ms(), .src = {.fd = -1}};
    sup_chan_init(&eng->chan, pair[0]);
    source_open(s, &eng->src, pair[0], sup_on_engine);
    list_push(&s->engines, &eng->link);
    return eng;
}

void engine_start(struct sup *s)
{
    s->restart_at_ms = 0;
    s->restarts += s->engines_n > 0;
    s->charge = engine_launch(s, s->exe_fd);
    if (!s->charge) {
        log_error("sup", "cannot start the engine: %s", strerror(errno));
        engine_restart_later(s, 0);
    }
}

struct sup_engine *engine_find(struct sup *s, uint32_t number)
{
    LIST_FOREACH (it, &s->engines) {
        struct sup_engine *e = CONTAINER_OF(it, struct sup_engine, link);
        if (e->number == number && number)
            return e;
    }
    return NULL;
}

void engine_kill(struct sup_engine *e)
{
    if (e)
        (void)kill(e->pid, SIGKILL);
}

void engine_discard(struct sup *s, struct sup_engine *e)
{
    engine_kill(e);
    if (e)
        source_close(s, &e->src);
}

static void engine_free(struct sup *s, struct sup_engine *e)
{
    source_close(s, &e->src);
    e->chan.fd = -1; /* was the source's */
    sup_chan_fini(&e->chan);
    close(e->exec_fd);
    list_del(&e->link);
    mem_free(e);
}

void engines_free(struct sup *s)
{
    LIST_FOREACH (it, &s->engines)
        engine_free(s, CONTAINER_OF(it, struct sup_engine, link));
}

bool engine_end_text(const struct sup_engine *e, int status, char text[SUP_TEXT_MAX])
{
    int number;
    bool ran = read(e->exec_fd, &number, sizeof number) != (ssize_t)sizeof number;
    if (!ran)
        snprintf(text, SUP_TEXT_MAX, "can't be executed: %s", strerror(number));
    else if (WIFSIGNALED(status))
        snprintf(text, SUP_TEXT_MAX, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, SUP_TEXT_MAX, "ended with status %d", WEXITSTATUS(status));
    return ran;
}

/* What follows when the engine in charge has ended. */
static void charge_ended(struct sup *s, const struct sup_engine *e, int status)
{
    char text[SUP_TEXT_MAX];
    (void)engine_end_text(e, status, text);
    log_error("sup", "the engine (pid %d) %s", (int)e->pid, text);
    replicas_engine_gone(s);
    if (s->phase == SUP_STOPPING)
        sup_end(s, 1, true); /* nobody is there to drain any more */
    else if (e->number == 1 && WIFEXITED(status) && WEXITSTATUS(status) == SUP_EXIT_CONFIG)
        sup_end(s, 2, true);
    else
        engine_restart_later(s, sup_now_ms() - e->start_ms);
}

bool engine_reaped(struct sup *s, pid_t pid, int status)
{
    struct sup_engine *e = NULL;
    LIST_FOREACH (it, &s->engines)
        if (CONTAINER_OF(it, struct sup_engine, link)->pid == pid)
            e = CONTAINER_OF(it, struct sup_engine, link);
    if (!e)
        return false;
    sup_read_engine(s, e); /* what it said before it ended */
    source_close(s, &e->src);
    bool was_charge = s->charge == e;
    if (was_charge)
        s->charge = NULL;
    list_del(&e->link);
    if (s->phase != SUP_ENDING && !upgrade_reaped(s, e, was_charge, status) && was_charge)
        charge_ended(s, e, status);
    engine_free(s, e);
    return true;
}
