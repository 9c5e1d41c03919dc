/* init.c - the first process of a replica: PID 1 of its namespaces.
 *
 * It is a child of sup by clone(), without an exec, and runs nothing but this file. Its life:
 *
 *     clone -> bound to sup's life -> cgroup -> host name, loopback, listener -> mounts -> INIT_PREPARED
 *           -> INIT_GO from sup -> fork --+-- the workload: INIT_HELLO, sandbox, exec
 *                                         +-- init: serves sup's questions, reaps orphans, until the workload ends
 *           -> INIT_EXIT with the workload's wait status -> exit
 *
 * When PID 1 exits the kernel kills whatever is left in its PID namespace, and sup's wait for it returns only after that:
 * then all processes of the replica are gone. The exact status travels in INIT_EXIT, since an exit code cannot hold a
 * signal; when init was killed itself (SIGKILL from sup, or out of memory) its own status counts.
 *
 * If sup dies the kernel sends SIGKILL to init (PR_SET_PDEATHSIG). A death before that was asked for is seen in sup's
 * pidfd. Sockets for probes and proxied connections are made here too, since a socket belongs to the network namespace
 * of the process that made it; so sup itself never changes its namespaces.
 *
 * Where namespaces are not permitted (SUP_NET_HOST) the same process stands between as a child subreaper: orphans become
 * its children, and it kills all of them, found through /proc, when the workload or sup ends.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the descriptors are put before all others are closed. */
enum { FD_CTL = 3, FD_ERR, FD_OUT, FD_ERR_OUT, FD_PIDFD, FD_SIGNALS, FD_FIRST_FREE };

/* The listener's port: above what outgoing connections use, so that nobody is in its way nor it in anybody's. */
#define LISTENER_PORT_FIRST 64999
#define LISTENER_PORT_LAST 65099
#define LOOPBACK 0x7f000001u

struct init {
    const struct init_args *args;
    pid_t workload;  /* 0: reaped, or not started yet */
    int32_t status;  /* its wait status, once reaped */
    int early[2];    /* sockets on sandbox.early_port, by enum listen_kind, until INIT_LISTEN asks for them; -1 */
};

/* ---- failure --------------------------------------------------------------------------------------------------------- */

static _Noreturn void give_up(enum err e, const char *text)
{
    char line[SUP_TEXT_MAX + 1];
    line[0] = (char)e;
    int n = snprintf(line + 1, sizeof line - 1, "%s", text);
    (void)!write(FD_ERR, line, (size_t)MIN(n + 1, SUP_TEXT_MAX));
    _exit(125);
}

static _Noreturn void give_up_errno(const char *what)
{
    int e = errno;
    char text[SUP_TEXT_MAX];
    snprintf(text, sizeof text, "%s: %s", what, strerror(e));
    give_up(err_from_errno(e), text);
}

/* ---- set-up ---------------------------------------------------------------------------------------------------------- */

/* Puts the wanted descriptors at their places and closes all others: those of sup and of other replicas. */
static void arrange_fds(const struct init_args *a)
{
    int from[] = {a->ctl, a->err, a->out, a->err_out, a->sup_pidfd}, high[COUNT_OF(from)];
    for (size_t i = 0; i < COUNT_OF(from); i++)
        high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 64);
    for (size_t i = 0; i < COUNT_OF(from); i++)
        if (high[i] < 0 || dup3(high[i], FD_CTL + (int)i, O_CLOEXEC) < 0)
            _exit(125); /* nobody can be told */
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            give_up_errno("cannot open /dev/null");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    int sfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int moved = sfd < 0 ? -1 : fcntl(sfd, F_DUPFD_CLOEXEC, 64);
    if (moved < 0 || dup3(moved, FD_SIGNALS, O_CLOEXEC) < 0)
        give_up_errno("signalfd");
    fds_close_from(FD_FIRST_FREE);
}

/* From here on this process does not outlive sup. */
static void bind_to_sup(const struct init_args *a)
{
    sigset_t all;
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    /* Without a PID namespace there is work to do at the end; then the loop below watches the pidfd. */
    if (a->sb.namespaces)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    struct pollfd p = {a->sup_pidfd, POLLIN, 0};
    if (poll(&p, 1, 0) != 0)
        _exit(125);
}

/* A second address, 127.0.0.2, because resolvers that are asked for what is configured here (AI_ADDRCONFIG) do not count
 * 127.0.0.1: with that alone they find no service by name. Where aliases are not permitted, only such callers notice. */
static void loopback_up(void)
{
    struct ifreq r = {0}, alias = {0};
    struct sockaddr_in second = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000002)}};
    memcpy(r.ifr_name, "lo", 3);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r) < 0)
        give_up_errno("cannot bring the loopback interface up");
    r.ifr_flags = (short)(r.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &r) < 0)
        give_up_errno("cannot bring the loopback interface up");
    memcpy(alias.ifr_name, "lo:1", 5);
    memcpy(&alias.ifr_addr, &second, sizeof second);
    (void)ioctl(fd, SIOCSIFADDR, &alias);
    close(fd);
}

/* The socket that sk_lookup gives connections to. */
static int open_listener(void)
{
    int fd = -EADDRINUSE;
    for (uint16_t port = LISTENER_PORT_FIRST; fd == -EADDRINUSE && port <= LISTENER_PORT_LAST; port++) {
        struct addr a = addr_ip4(0x7f000001, port);
        fd = listen_one(&a, false);
    }
    if (fd < 0) {
        errno = -fd;
        give_up_errno("cannot listen inside the namespace");
    }
    return fd;
}

static void send_msg(uint32_t op, int32_t value, uint64_t token, const int *fds, int n)
{
    struct init_msg m = {.op = op, .value = value, .token = token};
    (void)packet_send(FD_CTL, &m, sizeof m, fds, n);
}

static void prepare(const struct init_args *a)
{
    char text[SUP_TEXT_MAX];
    int r = cgroup_join(a->cgroup), listener = -1;
    if (r < 0) {
        errno = -r;
        give_up_errno("cannot enter the cgroup");
    }
    if (!a->sb.namespaces) {
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    } else {
        (void)unshare(CLONE_NEWCGROUP); /* after joining: our own group is its root */
        if (sethostname(a->sb.name, strlen(a->sb.name)) < 0)
            give_up_errno("cannot set the host name");
        if (!a->sb.host_network)
            loopback_up();
        if (a->sb.listener)
            listener = open_listener();
        r = mounts_enter(&a->sb, text);
        if (r < 0)
            give_up(err_from_errno(-r), text);
    }
    if (a->probe)
        _exit(0);
    send_msg(INIT_PREPARED, 0, 0, &listener, listener >= 0 ? 1 : 0);
    if (listener >= 0)
        close(listener); /* sup and the engine hold it */
}

static void await_go(void)
{
    struct init_msg m;
    ssize_t n;
    do
        n = packet_recv(FD_CTL, &m, sizeof m, NULL, NULL, NULL);
    while (n > 0 && m.op != INIT_GO && m.op != INIT_SIGNAL);
    if (n <= 0 || m.op == INIT_SIGNAL) /* sup is gone, or has thought better of it */
        _exit(125);
}

/* ---- the workload ---------------------------------------------------------------------------------------------------- */

static _Noreturn void run_workload(const struct init_args *a)
{
    char text[SUP_TEXT_MAX];
    setsid();
    send_msg(INIT_HELLO, 0, 0, NULL, 0);
    if (dup2(FD_OUT, 1) < 0 || dup2(FD_ERR_OUT, 2) < 0)
        give_up_errno("cannot connect the output");
    enum err e = sandbox_exec(&a->sb, a->filter, a->sb.argv, text);
    give_up(e, text);
}

static void start_workload(struct init *in)
{
    pid_t pid = fork();
    if (pid < 0)
        give_up_errno("cannot fork the workload");
    if (pid == 0)
        run_workload(in->args);
    in->workload = pid;
    close(FD_ERR);
    close(FD_OUT);
    close(FD_ERR_OUT);
    (void)!chdir("/");
    /* What is left to do: signals to processes of another user, sockets on low ports. */
    (void)caps_keep(1ull << CAP_KILL | 1ull << CAP_NET_BIND_SERVICE);
}

/* Without a PID namespace: ends all descendants. Orphans are our children, so there is an end to it. */
static void kill_descendants(struct init *in)
{
    if (in->workload)
        (void)kill(-in->workload, SIGKILL);
    for (;;) {
        FILE *f = fopen("/proc/thread-self/children", "re");
        int pid, status, flags = f || in->workload ? 0 : WNOHANG; /* a kernel without that file: the workload's own session only */
        while (f && fscanf(f, "%d", &pid) == 1)
            (void)kill(pid, SIGKILL);
        if (f)
            fclose(f);
        pid_t got = waitpid(-1, &status, flags);
        if (got == 0)
            return;
        if (got < 0 && errno != EINTR)
            return;
        if (got == in->workload && got > 0) {
            in->workload = 0;
            in->status = status;
        }
    }
}

static _Noreturn void finish(struct init *in)
{
    if (!in->args->sb.namespaces)
        kill_descendants(in);
    send_msg(INIT_EXIT, in->status, 0, NULL, 0);
    _exit(WIFEXITED(in->status) ? WEXITSTATUS(in->status) : 128 + WTERMSIG(in->status));
}

/* ---- sup's questions ------------------------------------------------------------------------------------------------- */

static void make_sockets(int n, uint64_t token)
{
    int fds[SUP_FDS_MAX], made = 0, one = 1;
    while (made < MIN(n, SUP_FDS_MAX)) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            break;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fds[made++] = fd;
    }
    send_msg(INIT_SOCKETS_MADE, made, token, fds, made);
    while (made > 0)
        close(fds[--made]);
}

/* What can't be bound is said when it is asked for. */
static void open_early(struct init *in)
{
    const struct sandbox *sb = &in->args->sb;
    struct addr a = addr_ip4(LOOPBACK, sb->early_port);
    if (!sb->early_port || !sb->namespaces || sb->host_network)
        return;
    in->early[LISTEN_STREAM] = listen_one(&a, false);
    in->early[LISTEN_DGRAM] = listen_dgram(&a);
}

static int take_early(struct init *in, const struct addr *a, enum listen_kind kind)
{
    int fd = in->early[kind];
    if (fd < 0 || addr_ip4_host(a) != LOOPBACK || a->port != in->args->sb.early_port)
        return -1;
    in->early[kind] = -1;
    return fd;
}

static void make_listener(struct init *in, const struct addr *a, uint64_t token, enum listen_kind kind)
{
    int fd = take_early(in, a, kind);
    if (fd < 0)
        fd = kind == LISTEN_DGRAM ? listen_dgram(a) : listen_one(a, false);
    send_msg(INIT_LISTENING, fd < 0 ? -fd : 0, token, &fd, fd < 0 ? 0 : 1);
    if (fd >= 0)
        close(fd);
}

static void serve(struct init *in)
{
    struct init_msg m;
    ssize_t n = packet_recv(FD_CTL, &m, sizeof m, NULL, NULL, NULL);
    if (n != (ssize_t)sizeof m) { /* sup is gone, or has let go of us */
        in->status = SIGKILL;
        finish(in);
    }
    switch (m.op) {
    case INIT_SIGNAL:
        if (m.value == SIGKILL && !in->args->sb.namespaces) {
            in->status = SIGKILL;
            finish(in);
        }
        if (in->workload)
            (void)kill(in->workload, m.value);
        break;
    case INIT_SOCKETS: make_sockets(m.value, m.token); break;
    case INIT_LISTEN: make_listener(in, &m.addr, m.token, m.value == LISTEN_DGRAM ? LISTEN_DGRAM : LISTEN_STREAM); break;
    default: break;
    }
}

static void reap(struct init *in)
{
    struct signalfd_siginfo si;
    int status;
    (void)!read(FD_SIGNALS, &si, sizeof si);
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == in->workload) {
            in->workload = 0;
            in->status = status;
            finish(in);
        }
}

void init_main(const struct init_args *a)
{
    struct init in = {.args = a, .early = {-1, -1}};
    bind_to_sup(a);
    arrange_fds(a);
    setsid();
    (void)prctl(PR_SET_NAME, "weir: init", 0, 0, 0);
    process_title("weir: init");
    prepare(a);
    /* Our memory is a copy of sup's, other replicas' environments included: not to be looked at through /proc/1. In a user
     * namespace this would lock sup out as well; there, as here, our capabilities are more than the workload's, which the
     * kernel takes for a reason to refuse it. */
    if (a->sb.namespaces && !a->sb.user_namespace)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    open_early(&in);
    await_go();
    start_workload(&in);
    for (;;) {
        struct pollfd p[3] = {{FD_SIGNALS, POLLIN, 0}, {FD_CTL, POLLIN, 0}, {FD_PIDFD, POLLIN, 0}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[0].revents)
            reap(&in);
        if (p[1].revents)
            serve(&in);
        if (p[2].revents) {
            in.status = SIGKILL;
            finish(&in);
        }
    }
}
