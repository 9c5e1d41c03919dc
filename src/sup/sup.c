/* sup.c - the parent's main loop: signals, the engine's requests, the end.
 *
 *     SERVING --(SIGTERM, SIGINT, SIGHUP)--> STOPPING --(sup_shutdown, second signal, 60 s, engine dies)--> ENDING --> return
 *        \                                                                                                    ^
 *         +----------------(sup_shutdown; the first engine exits with SUP_EXIT_CONFIG)------------------------+
 *
 * One thread around epoll, one event per turn: a handler may free any source without looking at others. Nothing here
 * blocks but the wait itself and what the kernel does for a clone. Children are found by SIGCHLD through signalfd.
 *
 * In ENDING every init is killed, which takes its whole PID namespace along; when all are reaped, the cgroups are removed
 * and sup_main() returns. Should sup itself be killed, the kernel does the same by the inits' and the engine's
 * PR_SET_PDEATHSIG; only empty cgroups stay behind, and the next sup removes them.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t sup_now_ms(void) { return mono_ns() / 1000000; }

/* ---- sources --------------------------------------------------------------------------------------------------------- */

void source_open(struct sup *s, struct source *src, int fd, void (*fn)(struct sup *, struct source *))
{
    src->fd = fd;
    src->fn = fn;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = src};
    MUST(epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) == 0);
}

void source_close(struct sup *s, struct source *src)
{
    if (src->fd < 0)
        return;
    (void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, src->fd, NULL);
    close(src->fd);
    src->fd = -1;
}

void source_writable(struct sup *s, struct source *src, bool on)
{
    struct epoll_event ev = {.events = EPOLLIN | (on ? EPOLLOUT : 0u), .data.ptr = src};
    if (src->fd >= 0)
        (void)epoll_ctl(s->epoll, EPOLL_CTL_MOD, src->fd, &ev);
}

/* ---- to the engine --------------------------------------------------------------------------------------------------- */

void sup_tell_to(struct sup *s, struct sup_engine *e, uint32_t type, const struct buf *payload, const int *fds, int n)
{
    if (e->src.fd < 0 || !e->greeted)
        return;
    enum err er = sup_chan_send(&e->chan, type, payload, fds, n);
    if (er == ERR_LIMIT) {
        log_error("sup", "the engine does not read its messages: more than %u MiB wait; it is ended", SUP_QUEUE_BYTES_MAX >> 20);
        engine_kill(e);
    }
    source_writable(s, &e->src, !list_empty(&e->chan.out)); /* ERR_CLOSED: SIGCHLD tells */
}

void sup_tell(struct sup *s, uint32_t type, const struct buf *payload, const int *fds, int n)
{
    if (s->charge)
        sup_tell_to(s, s->charge, type, payload, fds, n);
}

/* ---- from the engine ------------------------------------------------------------------------------------------------- */

static void on_exec(struct sup *s, struct sup_reader *r)
{
    uint64_t id = sup_get_u64(r), token = sup_get_u64(r);
    uint32_t timeout_ms = sup_get_u32(r);
    const char **argv = sup_get_strv(r);
    if (argv && sup_get_end(r))
        exec_start(s, id, token, argv, timeout_ms);
    mem_free(argv);
}

static void on_listen(struct sup *s, struct sup_reader *r)
{
    uint64_t token = sup_get_u64(r);
    struct addr a = sup_get_addr(r);
    uint64_t ns_id = sup_get_u64(r);
    uint32_t n = sup_get_u32(r);
    enum listen_kind kind = sup_get_u32(r) ? LISTEN_DGRAM : LISTEN_STREAM;
    if (sup_get_end(r))
        listener_request(s, token, &a, ns_id, n > SUP_FDS_MAX ? SUP_FDS_MAX + 1 : (int)n, kind);
}

/* Requests of two numbers and no more. */
static void on_numbers(struct sup *s, struct sup_engine *e, uint32_t type, struct sup_reader *r)
{
    uint64_t id = sup_get_u64(r), token = type == SUP_SOCKETS ? sup_get_u64(r) : 0;
    uint32_t value = type == SUP_SIGNAL || type == SUP_SOCKETS ? sup_get_u32(r) : 0;
    if (!sup_get_end(r))
        return;
    switch (type) {
    case SUP_UNLISTEN: listener_drop(s, id); break;
    case SUP_SIGNAL: replica_signal(s, id, value > 64 ? 0 : (int)value); break;
    case SUP_SOCKETS: replica_sockets(s, e, id, token, (int)MIN(value, (uint32_t)SUP_FDS_MAX)); break;
    default: replica_forget(s, id); break;
    }
}

static void on_hello(struct sup *s, struct sup_engine *e, struct sup_reader *r)
{
    uint32_t protocol = sup_get_u32(r);
    const char *version = sup_get_str(r);
    if (version && !r->bad)
        engine_hello(s, e, protocol, version);
    r->n = 0; /* a later protocol may say more */
}

/* What has to do with upgrades; any engine may say it. */
static void on_upgrade(struct sup *s, struct sup_engine *e, struct sup_in *in)
{
    enum err er = in->type == SUP_SERVING || in->type == SUP_UPGRADE ? OK : (enum err)sup_get_u32(&in->r);
    const char *text = in->type == SUP_SERVING || in->type == SUP_UPGRADE ? "" : sup_get_str(&in->r);
    if (!text || in->r.bad)
        return;
    switch (in->type) {
    case SUP_UPGRADE: upgrade_request(s, e, in); break;
    case SUP_PREPARED: upgrade_prepared(s, e, er, text); break;
    case SUP_RELEASED: upgrade_released(s, e, er, text); break;
    default: upgrade_serving(s, e); break;
    }
}

static void on_fence(struct sup *s, struct sup_reader *r)
{
    uint64_t until_ms = sup_get_u64(r);
    uint32_t n = sup_get_u32(r);
    r->bad = r->bad || n > SUP_FENCED_MAX || n > r->n / sizeof(uint64_t);
    if (r->bad)
        return;
    s->fenced = mem_grow(MEM_SUP, s->fenced, (n + 1u) * sizeof *s->fenced);
    s->fenced_n = n;
    s->fence_ms = s->fence_until_ms = n ? until_ms : 0;
    for (uint32_t i = 0; i < n; i++)
        s->fenced[i] = sup_get_u64(r);
}

/* Nobody has said that they may go on. */
static void fence_reached(struct sup *s)
{
    s->fence_ms = 0;
    for (uint32_t i = 0; i < s->fenced_n; i++) {
        struct replica *rp = replica_find(s, s->fenced[i]);
        if (rp)
            log_warn("sup", "replica %llu is killed: it may run on one node only, and the engine has not said in time that it is this one", (unsigned long long)s->fenced[i]);
        if (rp)
            replica_signal(s, s->fenced[i], SIGKILL);
    }
}

/* Too late to begin: an engine that hung may ask with what it believed before. */
bool replica_fenced(const struct sup *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->fenced_n; i++)
        if (s->fenced[i] == id)
            return sup_now_ms() >= s->fence_until_ms;
    return false;
}

static void on_keep(struct sup *s, struct sup_reader *r)
{
    struct slice bytes = sup_get_bytes(r);
    r->bad = r->bad || bytes.n > SUP_KEEP_BYTES_MAX;
    if (!sup_get_end(r))
        return;
    buf_wipe(&s->kept);
    buf_add(&s->kept, bytes.p, bytes.n);
}

/* False when the message is none of ours. */
static bool dispatch(struct sup *s, struct sup_engine *e, struct sup_in *in)
{
    switch (in->type) {
    case SUP_HELLO: on_hello(s, e, &in->r); return !in->r.bad;
    case SUP_UPGRADE:
    case SUP_PREPARED:
    case SUP_RELEASED:
    case SUP_SERVING: on_upgrade(s, e, in); return sup_get_end(&in->r);
    case SUP_SOCKETS: on_numbers(s, e, in->type, &in->r); return sup_get_end(&in->r);
    case SUP_ACK: return sup_get_end(&in->r);
    default: break;
    }
    if (e != s->charge) /* it has let go of all that */
        return true;
    switch (in->type) {
    case SUP_LISTEN: on_listen(s, &in->r); break;
    case SUP_START: replica_start(s, in); return true; /* reads a copy; says itself what is wrong */
    case SUP_EXEC: on_exec(s, &in->r); break;
    case SUP_KEEP: on_keep(s, &in->r); break;
    case SUP_FENCE: on_fence(s, &in->r); break;
    case SUP_UNLISTEN:
    case SUP_SIGNAL:
    case SUP_FORGET: on_numbers(s, e, in->type, &in->r); break;
    case SUP_SHUTDOWN: {
        int status = (int)sup_get_u32(&in->r);
        if (s->phase != SUP_ENDING)
            sup_end(s, status, false);
        break;
    }
    default: return false;
    }
    return sup_get_end(&in->r);
}

void sup_read_engine(struct sup *s, struct sup_engine *e)
{
    struct sup_in in;
    for (enum err er; e->src.fd >= 0 && (er = sup_chan_recv(&e->chan, &in)) != ERR_AGAIN;) {
        bool good = er == OK && (e->greeted || in.type == SUP_HELLO) && dispatch(s, e, &in);
        if (er == OK)
            sup_in_done(&in);
        if (good)
            continue;
        if (er != ERR_CLOSED && e->src.fd >= 0) /* closed: it is ending, or ought to */
            log_error("sup", "the engine (pid %d) sent a malformed message (type %u); it is ended", (int)e->pid, er == OK ? in.type : 0);
        engine_discard(s, e);
    }
}

void sup_on_engine(struct sup *s, struct source *src)
{
    struct sup_engine *e = CONTAINER_OF(src, struct sup_engine, src);
    enum err er = sup_chan_flush(&e->chan);
    source_writable(s, src, er == ERR_AGAIN);
    sup_read_engine(s, e);
}

/* ---- ending ---------------------------------------------------------------------------------------------------------- */

void sup_end(struct sup *s, int exit_status, bool at_once)
{
    s->phase = SUP_ENDING;
    s->exit_status = exit_status;
    s->deadline_ms = sup_now_ms() + SUP_END_MS_MAX;
    s->restart_at_ms = 0;
    LIST_FOREACH (it, &s->engines) {
        struct sup_engine *e = CONTAINER_OF(it, struct sup_engine, link);
        if (at_once || e != s->charge)
            engine_kill(e);
    }
    LIST_FOREACH (it, &s->execs)
        (void)kill(CONTAINER_OF(it, struct exec, link)->pid, SIGKILL);
    LIST_FOREACH (it, &s->replicas) {
        struct replica *r = CONTAINER_OF(it, struct replica, link);
        if (!r->forgotten)
            replica_forget(s, r->id);
    }
}

static void on_stop_signal(struct sup *s, int signo)
{
    if (s->phase == SUP_RUNNING && s->charge) {
        log_info("sup", "stopping (signal %d); a second one ends all at once", signo);
        s->phase = SUP_STOPPING;
        s->deadline_ms = sup_now_ms() + SUP_STOP_MS_MAX;
        upgrade_stop(s);
    } else if (s->phase == SUP_ENDING) {
        engine_kill(s->charge);
    } else {
        log_warn("sup", "ending all at once (signal %d)", signo);
        sup_end(s, 128 + signo, true);
    }
}

static void reap_children(struct sup *s)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (!engine_reaped(s, pid, status) && !replica_reaped(s, pid, status))
            (void)exec_reaped(s, pid, status);
}

static void on_signals(struct sup *s, struct source *src)
{
    struct signalfd_siginfo si;
    while (read(src->fd, &si, sizeof si) == (ssize_t)sizeof si) {
        if (si.ssi_signo == SIGCHLD)
            reap_children(s);
        else
            on_stop_signal(s, (int)si.ssi_signo);
    }
}

/* ---- the loop -------------------------------------------------------------------------------------------------------- */

/* Milliseconds until something is due; -1: nothing. */
static int next_wait(const struct sup *s, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    if (s->restart_at_ms)
        due = s->restart_at_ms;
    if (s->up.state != UPGRADE_NONE)
        due = MIN(due, s->up.deadline_ms);
    if (s->phase != SUP_RUNNING)
        due = MIN(due, s->deadline_ms);
    if (s->fence_ms)
        due = MIN(due, s->fence_ms);
    if (s->starting_n)
        due = MIN(due, now + 500);
    return due == UINT64_MAX ? -1 : due <= now ? 0 : (int)MIN(due - now, 60000);
}

static void on_time(struct sup *s, uint64_t now)
{
    replica_deadlines(s, now);
    if (s->fence_ms && now >= s->fence_ms)
        fence_reached(s);
    if (s->restart_at_ms && now >= s->restart_at_ms && s->phase == SUP_RUNNING)
        engine_start(s);
    upgrade_deadline(s, now);
    if (s->phase == SUP_STOPPING && now >= s->deadline_ms) {
        log_error("sup", "the engine has not finished within %d s of the stop signal; ending all at once", SUP_STOP_MS_MAX / 1000);
        sup_end(s, 1, true);
    }
}

static bool is_done(const struct sup *s) { return s->phase == SUP_ENDING && list_empty(&s->engines) && s->replicas_n == 0 && s->execs_n == 0; }

static void run(struct sup *s)
{
    bool patient = true; /* the engine still has time to exit by itself */
    while (!is_done(s)) {
        uint64_t now = sup_now_ms();
        on_time(s, now);
        if (is_done(s))
            break;
        if (s->phase == SUP_ENDING && now >= s->deadline_ms) {
            if (!patient)
                break; /* a process that even SIGKILL does not end: the kernel holds it */
            patient = false;
            LIST_FOREACH (it, &s->engines)
                engine_kill(CONTAINER_OF(it, struct sup_engine, link));
            s->deadline_ms = now + 1000;
        }
        struct epoll_event ev;
        if (epoll_wait(s->epoll, &ev, 1, next_wait(s, now)) == 1) {
            struct source *src = ev.data.ptr;
            src->fn(s, src);
        }
    }
}

/* ---- beginning and end ----------------------------------------------------------------------------------------------- */

static void copy_conf(struct sup *s, const struct sup_conf *conf)
{
    size_t n = 0;
    while (conf->engine_argv[n])
        n++;
    s->engine_argv = mem_new(MEM_SUP, (n + 1) * sizeof *s->engine_argv);
    for (size_t i = 0; i < n; i++)
        s->engine_argv[i] = mem_strdup(MEM_SUP, conf->engine_argv[i]);
    s->data_dir = mem_strdup(MEM_SUP, conf->data_dir);
    s->name = mem_strdup(MEM_SUP, conf->name ? conf->name : "node");
}

/* Signals that this process takes from a descriptor. SIGHUP stays ignored under nohup. */
static int open_signals(void)
{
    sigset_t set;
    struct sigaction hup, ign = {.sa_handler = SIG_IGN};
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    (void)sigaction(SIGPIPE, &ign, NULL);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_descriptor_limit(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
}

static bool sup_open(struct sup *s)
{
    (void)prctl(PR_SET_NAME, "weir: sup", 0, 0, 0);
    process_title("weir: sup");
    raise_descriptor_limit();
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->exe_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    s->self_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    int signals = open_signals();
    if (s->epoll < 0 || s->exe_fd < 0 || s->self_pidfd < 0 || signals < 0) {
        log_error("sup", "cannot begin: %s%s", strerror(errno), errno == ENOSYS ? " (a kernel of version 5.3 or later is needed)" : "");
        return false;
    }
    source_open(s, &s->signals, signals, on_signals);
    mounts_volumes(s->data_dir);
    return true;
}

static void sup_close(struct sup *s)
{
    execs_free(s);
    replicas_free(s);
    listeners_free(s);
    engines_free(s);
    upgrade_free(s);
    close(s->exe_fd);
    source_close(s, &s->signals);
    cgroup_root_fini(&s->cgroups);
    seccomp_free(&s->filter);
    close(s->self_pidfd);
    close(s->epoll);
    for (char **a = s->engine_argv; *a; a++)
        mem_free(*a);
    mem_free(s->fenced);
    buf_wipe(&s->kept);
    mem_free(s->engine_argv);
    mem_free(s->data_dir);
    mem_free(s->name);
}

int sup_main(const struct sup_conf *conf)
{
    struct sup s = {.signals = {.fd = -1}, .epoll = -1, .self_pidfd = -1, .exe_fd = -1, .up = {.exe_fd = -1}};
    list_init(&s.engines);
    list_init(&s.replicas);
    list_init(&s.listeners);
    list_init(&s.execs);
    copy_conf(&s, conf);
    if (!sup_open(&s))
        return 1;
    caps_probe(&s);
    engine_start(&s);
    run(&s);
    sup_close(&s);
    return s.exit_status;
}
