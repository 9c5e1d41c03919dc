/* spawn.c - replicas, seen from the parent: starting them, asking their inits, noticing their end.
 *
 *     STARTING --(error pipe closes, empty: exec succeeded)--> RUNNING --(init reaped)--> EXITED --(forget)--> freed
 *         |                                                        \
 *         +--(text in the error pipe, or 10 s)--> started(err)      +--(forgotten while running)--> killed, then freed
 *
 * STARTING in detail: clone; the init sets itself up and says INIT_PREPARED with its listener; sup attaches sk_lookup to
 * the namespace and answers INIT_GO; the workload's process says INIT_HELLO, which carries its PID as the kernel
 * translates it; then exec closes the error pipe.
 *
 * A replica that is still STARTING when the engine dies is ended: the next engine would know nothing of it. One that runs
 * is kept and handed on. What it writes stays in its pipes, whose read ends are kept here until it is forgotten.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- clone ----------------------------------------------------------------------------------------------------------- */

pid_t spawn_init(const struct init_args *a)
{
    unsigned long flags = SIGCHLD;
    if (a->sb.namespaces)
        flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | (a->sb.host_network ? 0 : CLONE_NEWNET);
    /* The system call and not the library's function: that wants a new stack. This process has one thread, so the copy has
     * no lock that somebody else holds. */
    long pid = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (pid < 0)
        return -errno;
    if (pid == 0)
        init_main(a);
    return (pid_t)pid;
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

struct replica *replica_find(struct sup *s, uint64_t id)
{
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        if (r->id == id && !r->forgotten)
            return r;
    }
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void replica_free(struct sup *s, struct replica *r)
{
    MUST(r->init_pid == 0);
    listeners_drop_ns(s, r->id);
    source_close(s, &r->ctl);
    source_close(s, &r->errs);
    close_fd(&r->link_fd);
    close_fd(&r->listen_fd);
    close_fd(&r->out_fd);
    close_fd(&r->err_fd);
    cgroup_remove(&r->cgroup);
    LIST_FOREACH (it, &r->asks)
        mem_free(CONTAINER_OF(it, struct ask, link));
    if (r->state == REPLICA_STARTING)
        s->starting_n--;
    list_del(&r->link);
    s->replicas_n--;
    buf_free(&r->err_text);
    mem_free(r->argv);
    mem_free(r->envp);
    mem_free(r->mounts);
    mem_free(r->spec);
    mem_free(r);
}

/* ---- telling the engine ---------------------------------------------------------------------------------------------- */

static void tell_failed(struct sup *s, uint64_t id, enum err e, const char *text)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    sup_put_u32(&b, (uint32_t)e);
    sup_put_str(&b, text);
    sup_tell(s, SUP_STARTED, &b, NULL, 0);
    buf_free(&b);
}

/* The fields of struct sup_replica; the descriptors' order is that of the flags. */
static void put_replica(struct buf *b, const struct replica *r, int fds[3], int *fds_n)
{
    *fds_n = 0;
    sup_put_str(b, r->label);
    sup_put_u32(b, (uint32_t)r->pid);
    sup_put_u32(b, r->state == REPLICA_EXITED);
    sup_put_u32(b, (uint32_t)r->status);
    sup_put_u32(b, r->oom_killed);
    sup_put_u64(b, r->started_wall_ns);
    fds[(*fds_n)++] = r->out_fd;
    fds[(*fds_n)++] = r->err_fd;
    if (r->listen_fd >= 0)
        fds[(*fds_n)++] = r->listen_fd;
}

static void tell_started(struct sup *s, struct replica *r)
{
    struct buf b = {0};
    int fds[3], n;
    sup_put_u64(&b, r->id);
    sup_put_u32(&b, ERR_OK);
    sup_put_str(&b, "");
    put_replica(&b, r, fds, &n);
    sup_tell(s, SUP_STARTED, &b, fds, n);
    buf_free(&b);
}

static void tell_exited(struct sup *s, const struct replica *r)
{
    struct buf b = {0};
    sup_put_u64(&b, r->id);
    sup_put_u32(&b, (uint32_t)r->status);
    sup_put_u32(&b, r->oom_killed);
    sup_tell(s, SUP_EXITED, &b, NULL, 0);
    buf_free(&b);
}

/* To the engine that asked, if it is still there: one that has handed over goes on asking. */
static void tell_sockets(struct sup *s, struct sup_engine *e, uint64_t id, uint64_t token, const int *fds, int n)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    sup_put_u64(&b, token);
    if (e)
        sup_tell_to(s, e, SUP_SOCKETS_MADE, &b, fds, n);
    buf_free(&b);
}

/* ---- questions to inits ---------------------------------------------------------------------------------------------- */

static bool ctl_send(struct replica *r, uint32_t op, uint64_t token, int32_t value, const struct addr *a)
{
    struct init_msg m = {.op = op, .value = value, .token = token};
    if (a)
        m.addr = *a;
    return r->ctl.fd >= 0 && packet_send(r->ctl.fd, &m, sizeof m, NULL, 0) == (ssize_t)sizeof m;
}

bool replica_ask(struct replica *r, uint32_t engine, uint32_t op, uint64_t token, int32_t value, const struct addr *a)
{
    if (r->state != REPLICA_RUNNING || r->killed || r->asks_n >= SUP_ASKS_MAX || !ctl_send(r, op, token, value, a))
        return false;
    struct ask *q = mem_new(MEM_SUP, sizeof *q);
    q->op = op;
    q->token = token;
    q->engine = engine;
    list_push(&r->asks, &q->link);
    r->asks_n++;
    return true;
}

/* The question that an answer belongs to: inits answer in order. Its engine, or 0 when there is none. */
static uint32_t ask_take(struct replica *r, uint32_t op, uint64_t token)
{
    if (list_empty(&r->asks))
        return 0;
    struct ask *q = CONTAINER_OF(r->asks.next, struct ask, link);
    if (q->op != op || q->token != token)
        return 0;
    uint32_t engine = q->engine;
    list_del(&q->link);
    mem_free(q);
    r->asks_n--;
    return engine;
}

/* The init is gone: nobody will answer any more. */
static void asks_fail(struct sup *s, struct replica *r)
{
    while (!list_empty(&r->asks)) {
        struct ask q = *CONTAINER_OF(r->asks.next, struct ask, link);
        (void)ask_take(r, q.op, q.token);
        if (q.op == INIT_LISTEN)
            listener_answer(s, r, q.token, q.engine, ESRCH, -1);
        else
            tell_sockets(s, engine_find(s, q.engine), r->id, q.token, NULL, 0);
    }
}

void replica_sockets(struct sup *s, struct sup_engine *asker, uint64_t id, uint64_t token, int n)
{
    struct replica *r = replica_find(s, id);
    if (!r || n < 1 || !replica_ask(r, asker->number, INIT_SOCKETS, token, MIN(n, SUP_FDS_MAX), NULL))
        tell_sockets(s, asker, id, token, NULL, 0);
}

/* ---- the end of a replica -------------------------------------------------------------------------------------------- */

void replica_kill(struct sup *s, struct replica *r)
{
    if (r->init_pid == 0)
        return;
    if (r->sb.namespaces || !ctl_send(r, INIT_SIGNAL, 0, SIGKILL, NULL))
        (void)kill(r->init_pid, SIGKILL); /* PID 1: the kernel ends all the others with it */
}

void replica_signal(struct sup *s, uint64_t id, int signo)
{
    struct replica *r = replica_find(s, id);
    if (!r || signo < 1 || signo > 64)
        return;
    if (signo == SIGKILL)
        replica_kill(s, r);
    else if (r->state == REPLICA_RUNNING)
        (void)ctl_send(r, INIT_SIGNAL, 0, signo, NULL);
}

void replica_forget(struct sup *s, uint64_t id)
{
    struct replica *r = replica_find(s, id);
    if (!r)
        return;
    r->forgotten = true;
    if (r->state == REPLICA_EXITED) {
        replica_free(s, r);
        return;
    }
    r->killed = true;
    replica_kill(s, r);
}

/* A start that did not come off. The init is killed and freed when it has been reaped. */
static void start_failed(struct sup *s, struct replica *r, enum err e, const char *text)
{
    if (!r->killed)
        tell_failed(s, r->id, e, text);
    r->killed = r->forgotten = true;
    source_close(s, &r->errs);
    replica_kill(s, r);
}

/* ---- messages from the init ------------------------------------------------------------------------------------------ */

/* Everything of the namespace is there, nothing runs in it yet: attach the lookup, then let the workload go. */
static void on_prepared(struct sup *s, struct replica *r, int *listener)
{
    char text[SUP_TEXT_MAX], path[64];
    if (r->state != REPLICA_STARTING || r->listen_fd >= 0)
        return;
    if (*listener >= 0) {
        r->listen_fd = *listener;
        *listener = -1;
        snprintf(path, sizeof path, "/proc/%d/ns/net", (int)r->init_pid);
        int ns = open(path, O_RDONLY | O_CLOEXEC);
        r->link_fd = ns < 0 ? -errno : lookup_attach(ns, r->listen_fd, text);
        if (ns < 0)
            snprintf(text, sizeof text, "cannot open %s: %s", path, strerror(-r->link_fd));
        else
            close(ns);
        if (r->link_fd < 0) {
            int e = -r->link_fd;
            r->link_fd = -1;
            start_failed(s, r, err_from_errno(e), text);
            return;
        }
    }
    (void)ctl_send(r, INIT_GO, 0, 0, NULL);
}

static void on_ctl_msg(struct sup *s, struct replica *r, const struct init_msg *m, int *fds, int n, pid_t sender)
{
    int none = -1, *first = n > 0 ? &fds[0] : &none;
    uint32_t engine;
    switch (m->op) {
    case INIT_PREPARED: on_prepared(s, r, first); break;
    case INIT_HELLO:
        if (r->pid == 0)
            r->pid = (int32_t)sender;
        break;
    case INIT_EXIT:
        r->status = m->value;
        r->status_known = true;
        break;
    case INIT_SOCKETS_MADE:
        engine = ask_take(r, INIT_SOCKETS, m->token);
        tell_sockets(s, engine_find(s, engine), r->id, m->token, fds, n);
        break;
    case INIT_LISTENING:
        engine = ask_take(r, INIT_LISTEN, m->token);
        if (engine) {
            listener_answer(s, r, m->token, engine, m->value ? m->value : EIO, *first);
            *first = -1;
        }
        break;
    default: break;
    }
}

/* Reads what the init has sent; closes the source at its end. */
static void ctl_drain(struct sup *s, struct replica *r)
{
    while (r->ctl.fd >= 0) {
        struct init_msg m;
        int fds[SUP_FDS_MAX], n = 0;
        pid_t sender;
        ssize_t got = packet_recv(r->ctl.fd, &m, sizeof m, fds, &n, &sender);
        if (got == (ssize_t)sizeof m)
            on_ctl_msg(s, r, &m, fds, n, sender);
        for (int i = 0; i < n; i++)
            close_fd(&fds[i]);
        if (got == -EAGAIN)
            return;
        if (got <= 0)
            source_close(s, &r->ctl);
    }
}

static void on_ctl(struct sup *s, struct source *src) { ctl_drain(s, CONTAINER_OF(src, struct replica, ctl)); }

/* ---- starting -------------------------------------------------------------------------------------------------------- */

static void started(struct sup *s, struct replica *r)
{
    ctl_drain(s, r); /* INIT_HELLO was sent before the exec that closed the pipe */
    source_close(s, &r->errs);
    if (r->killed || r->init_pid == 0)
        return;
    r->state = REPLICA_RUNNING;
    s->starting_n--;
    tell_started(s, r);
}

/* The error pipe: text when the start fails, its end when there was an exec, or when the init died. */
static void on_errs(struct sup *s, struct source *src)
{
    struct replica *r = CONTAINER_OF(src, struct replica, errs);
    char chunk[SUP_TEXT_MAX];
    ssize_t n = read(src->fd, chunk, sizeof chunk);
    if (n > 0 && r->err_text.n < 2 * SUP_TEXT_MAX)
        buf_add(&r->err_text, chunk, (size_t)n);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    if (r->err_text.n > 1) {
        uint8_t e = (uint8_t)r->err_text.p[0];
        start_failed(s, r, e > ERR_OK && e < ERR_COUNT ? (enum err)e : ERR_INTERNAL, r->err_text.p + 1);
        return;
    }
    ctl_drain(s, r);
    if (r->pid)
        started(s, r);
    else
        source_close(s, src); /* the init died without a word: replica_reaped() tells */
}

/* Reads the START message into r; false when it is not well-formed. The order of the fields: README.md. */
static bool spec_read(struct sup *s, struct replica *r, struct sup_reader *in, struct cgroup_limits *lim)
{
    r->spec = mem_new(MEM_SUP, in->n + 1);
    memcpy(r->spec, in->p, in->n);
    struct sup_reader rd = {r->spec, in->n, false};
    r->id = sup_get_u64(&rd);
    r->sb.name = sup_get_str(&rd);
    r->label = sup_get_str(&rd);
    r->argv = sup_get_strv(&rd);
    r->envp = sup_get_strv(&rd);
    r->sb.cwd = sup_get_str(&rd);
    r->sb.hosts_path = sup_get_str(&rd);
    r->sb.resolv_path = sup_get_str(&rd);
    r->mounts = sup_get_strv(&rd);
    r->sb.uid = (int64_t)sup_get_u64(&rd);
    r->sb.gid = (int64_t)sup_get_u64(&rd);
    lim->cpu_milli_max = sup_get_u32(&rd);
    lim->cpu_milli_share = sup_get_u32(&rd);
    lim->memory_bytes_max = sup_get_u64(&rd);
    lim->pids_max = sup_get_u32(&rd);
    r->sb.host_network = sup_get_u32(&rd) != 0;
    r->sb.early_port = (uint16_t)sup_get_u32(&rd);
    r->sb.argv = r->argv;
    r->sb.envp = r->envp;
    r->sb.mounts = r->mounts;
    r->sb.data_dir = s->data_dir;
    r->sb.namespaces = s->caps.namespaces;
    r->sb.user_namespace = s->caps.user_namespace;
    r->sb.listener = s->caps.net == SUP_NET_LOOKUP && !r->sb.host_network;
    return sup_get_end(&rd);
}

/* The name becomes a host name and a folder's name. NULL when all is well. */
static const char *spec_wrong(const struct replica *r)
{
    const char *name = r->sb.name;
    if (!name || !name[0] || strlen(name) > SUP_NAME_MAX || name[0] == '.' || name[0] == '-')
        return "the name must have 1 to 63 characters and begin with a letter or digit";
    for (const char *p = name; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-' || *p == '.'))
            return "the name may hold only a-z, 0-9, - and .";
    if (!r->label || strlen(r->label) > SUP_LABEL_MAX)
        return "the label is missing or longer than 1 KiB";
    if (!r->argv[0])
        return "no program was named";
    if (!r->sb.cwd || r->sb.cwd[0] != '/')
        return "the working directory is not an absolute path";
    size_t mounts = 0;
    for (; r->mounts && r->mounts[mounts]; mounts++)
        if (r->mounts[mounts][0] != '/')
            return "a mount is not an absolute path";
    if (mounts % 2 || mounts > 2 * SUP_MOUNTS_MAX)
        return "mounts must come in pairs, 32 at most";
    if (mounts && !r->sb.namespaces)
        return "volumes need mount namespaces, which are not permitted here";
    return NULL;
}

/* Pipes, sockets, clone. Closes the child's ends. 0 or -errno. */
static int launch(struct sup *s, struct replica *r)
{
    int ctl[2] = {-1, -1}, errs[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, one = 1;
    struct init_args a = {.sb = r->sb, .filter = &s->filter, .cgroup = &r->cgroup, .sup_pidfd = s->self_pidfd};
    int r0 = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ctl);
    if (r0 < 0 || pipe2(errs, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) {
        r0 = -errno;
    } else {
        (void)fcntl(ctl[0], F_SETFL, O_NONBLOCK);
        (void)setsockopt(ctl[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
        (void)fcntl(errs[0], F_SETFL, O_NONBLOCK);
        (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
        (void)fcntl(err[0], F_SETFL, O_NONBLOCK);
        a.ctl = ctl[1];
        a.err = errs[1];
        a.out = out[1];
        a.err_out = err[1];
        r0 = spawn_init(&a);
    }
    close_fd(&ctl[1]);
    close_fd(&errs[1]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    if (r0 < 0) {
        close_fd(&ctl[0]);
        close_fd(&errs[0]);
        close_fd(&out[0]);
        close_fd(&err[0]);
        return r0;
    }
    r->init_pid = r0;
    r->out_fd = out[0];
    r->err_fd = err[0];
    source_open(s, &r->ctl, ctl[0], on_ctl);
    source_open(s, &r->errs, errs[0], on_errs);
    return 0;
}

void replica_start(struct sup *s, struct sup_in *in)
{
    char text[SUP_TEXT_MAX];
    struct cgroup_limits lim = {0};
    struct replica *r = mem_new(MEM_SUP, sizeof *r);
    *r = (struct replica){.state = REPLICA_STARTING, .ctl = {.fd = -1}, .errs = {.fd = -1}, .out_fd = -1, .err_fd = -1, .listen_fd = -1, .link_fd = -1};
    list_init(&r->asks);
    bool good = spec_read(s, r, &in->r, &lim);
    const char *wrong = good ? spec_wrong(r) : "the message is malformed";
    enum err e = wrong ? ERR_INVALID : OK;
    if (!wrong && replica_find(s, r->id)) {
        e = ERR_EXISTS;
        wrong = "a replica of this id exists";
    } else if (!wrong && replica_fenced(s, r->id)) {
        e = ERR_TIMEOUT;
        wrong = "it may run on one node only, and the time in which it is this one is over";
    } else if (!wrong && s->replicas_n >= SUP_REPLICAS_MAX) {
        e = ERR_LIMIT;
        wrong = "there are as many replicas as a node can hold (4096)";
    }
    list_push(&s->replicas, &r->link);
    s->replicas_n++;
    s->starting_n++;
    if (!wrong) {
        e = cgroup_make(&s->cgroups, r->sb.name, &lim, &r->cgroup, text);
        wrong = e == OK ? NULL : text;
    }
    r->started_wall_ns = wall_ns();
    r->deadline_ms = sup_now_ms() + SUP_START_MS_MAX;
    int r0 = wrong ? 0 : launch(s, r);
    if (r0 < 0) {
        e = err_from_errno(-r0);
        snprintf(text, sizeof text, "cannot start a process: %s", strerror(-r0));
        wrong = text;
    }
    if (wrong) {
        tell_failed(s, r->id, e, wrong);
        replica_free(s, r);
    }
}

/* ---- what happens to replicas ---------------------------------------------------------------------------------------- */

bool replica_reaped(struct sup *s, pid_t pid, int status)
{
    struct replica *r = NULL;
    LIST_FOREACH (it, &s->replicas) {
        struct replica *x = CONTAINER_OF(it, struct replica, link);
        if (x->init_pid == pid)
            r = x;
    }
    if (!r)
        return false;
    if (r->state == REPLICA_STARTING && r->errs.fd >= 0) /* it may have started, or said why not, and ended since */
        for (int i = 0; i < 4 && r->errs.fd >= 0; i++)
            on_errs(s, &r->errs);
    ctl_drain(s, r);
    r->init_pid = 0;
    asks_fail(s, r);
    if (!r->status_known)
        r->status = status;
    r->oom_killed = cgroup_oom_killed(&s->cgroups, &r->cgroup);
    if (r->state == REPLICA_STARTING && !r->killed) {
        tell_failed(s, r->id, ERR_INTERNAL, r->oom_killed ? "out of memory before the workload began: its memory limit is too small"
                                                          : "its first process ended during the set-up");
        r->forgotten = true;
    }
    if (r->forgotten) {
        replica_free(s, r);
        return true;
    }
    r->state = REPLICA_EXITED;
    source_close(s, &r->ctl);
    cgroup_rmdir(&r->cgroup);
    if (s->phase != SUP_ENDING)
        tell_exited(s, r);
    return true;
}

void replica_deadlines(struct sup *s, uint64_t now_ms)
{
    if (s->starting_n == 0)
        return;
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        if (r->state == REPLICA_STARTING && !r->killed && now_ms >= r->deadline_ms)
            start_failed(s, r, ERR_TIMEOUT, "setting up its namespaces and file system took longer than 10 s");
    }
}

void replicas_engine_gone(struct sup *s)
{
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        if (r->state != REPLICA_STARTING)
            continue;
        r->killed = r->forgotten = true;
        replica_kill(s, r);
    }
}

void replicas_adopt(struct sup *s)
{
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        if (r->state == REPLICA_STARTING || r->forgotten)
            continue;
        struct buf b = {0};
        int fds[3], n;
        sup_put_u64(&b, r->id);
        put_replica(&b, r, fds, &n);
        sup_tell(s, SUP_ADOPT_REPLICA, &b, fds, n);
        buf_free(&b);
    }
}

void replicas_free(struct sup *s)
{
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        r->init_pid = 0;
        replica_free(s, r);
    }
}
