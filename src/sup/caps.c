/* caps.c - finding out what this machine permits, by doing it.
 *
 * Asking for a version or a capability number says little: containers, security modules and sysctls forbid what kernels
 * can do. So each mechanism is tried for real at start, with the very code that replicas use: an init that sets itself up
 * and ends, a lookup program attached to a namespace made for it, a filter installed in a child. What fails is named in
 * sup_caps.why, with the reason, and everything else goes on.
 *
 *     root                          namespaces, BPF, cgroups
 *     another user                  the same by way of a user namespace that maps only this user: no BPF, rarely cgroups
 *     no namespaces permitted       SUP_NET_HOST: processes of their own session, on the host's network
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

bool caps_no_namespaces;

static bool has_capability(int cap)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];
    return syscall(SYS_capget, &h, d) == 0 && (d[cap / 32].effective >> (cap % 32) & 1);
}

/* Runs fn(arg, text) in a child; true when it returned 0. */
static bool try_in_child(int (*fn)(void *arg, char *text), void *arg, char text[SUP_TEXT_MAX])
{
    int pipe_fds[2], status = 0;
    snprintf(text, SUP_TEXT_MAX, "cannot fork");
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        char said[SUP_TEXT_MAX] = "";
        int r = fn(arg, said);
        if (r < 0)
            (void)!write(pipe_fds[1], said, strlen(said));
        _exit(r < 0 ? 1 : 0);
    }
    close(pipe_fds[1]);
    ssize_t n = pid > 0 ? read(pipe_fds[0], text, SUP_TEXT_MAX - 1) : -1;
    close(pipe_fds[0]);
    if (pid > 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    bool good = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (n >= 0)
        text[n] = 0;
    if (!good && n <= 0)
        snprintf(text, SUP_TEXT_MAX, "the trial ended with status %d", status);
    return good;
}

static int say(char *text, const char *what)
{
    int e = errno;
    snprintf(text, SUP_TEXT_MAX, "%s: %s", what, strerror(e));
    return -e;
}

/* ---- the user namespace ---------------------------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int e = errno;
    close(fd);
    errno = e;
    return n < 0 ? -1 : 0;
}

/* Enters a user namespace in which this user is itself and nobody else exists: files keep their owner's name. */
static int enter_user_namespace(void *arg, char *text)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER) < 0)
        return say(text, "user namespaces are not permitted");
    if (write_text("/proc/self/setgroups", "deny") < 0)
        return say(text, "/proc/self/setgroups");
    snprintf(map, sizeof map, "%u %u 1", (unsigned)uid, (unsigned)uid);
    if (write_text("/proc/self/uid_map", map) < 0)
        return say(text, "/proc/self/uid_map");
    snprintf(map, sizeof map, "%u %u 1", (unsigned)gid, (unsigned)gid);
    return write_text("/proc/self/gid_map", map) < 0 ? say(text, "/proc/self/gid_map") : 0;
}

/* ---- trials ---------------------------------------------------------------------------------------------------------- */

/* A whole init, up to the point where it would run a workload. */
static bool try_namespaces(struct sup *s, char text[SUP_TEXT_MAX])
{
    static const char *const nothing[] = {"probe", NULL};
    struct cgroup none = {0};
    struct init_args a = {.filter = &s->filter, .cgroup = &none, .sup_pidfd = s->self_pidfd, .probe = true};
    a.sb = (struct sandbox){.name = "weir-probe", .argv = nothing, .cwd = "/", .data_dir = s->data_dir, .namespaces = true, .listener = true};
    int errs[2], status = 0;
    if (pipe2(errs, O_CLOEXEC) < 0)
        return false;
    a.ctl = a.err = a.out = a.err_out = errs[1];
    pid_t pid = spawn_init(&a);
    close(errs[1]);
    ssize_t n = 0;
    if (pid < 0)
        snprintf(text, SUP_TEXT_MAX, "clone: %s", strerror(-pid));
    else
        n = read(errs[0], text, SUP_TEXT_MAX - 1);
    close(errs[0]);
    if (pid > 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    if (pid > 0 && n > 0) {
        text[n] = 0;
        memmove(text, text + 1, (size_t)n); /* the first byte is the enum err */
    } else if (pid > 0 && status != 0) {
        snprintf(text, SUP_TEXT_MAX, "the trial ended with status %d", status);
    }
    return pid > 0 && n == 0 && status == 0;
}

static int try_lookup(void *arg, char *text)
{
    if (unshare(CLONE_NEWNET) < 0)
        return say(text, "network namespaces are not permitted");
    int ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    return ns < 0 ? say(text, "/proc/self/ns/net") : lookup_attach(ns, -1, text);
}

static int try_seccomp(void *arg, char *text)
{
    const struct seccomp_filter *f = arg;
    struct sock_fprog prog = {.len = f->n, .filter = f->insns};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
        return say(text, "seccomp filters are not permitted");
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

static void probe_namespaces(struct sup *s, struct buf *why)
{
    char text[SUP_TEXT_MAX] = "";
    if (caps_no_namespaces) {
        buf_adds(why, "no isolation: switched off; ");
        return;
    }
    if (!has_capability(CAP_SYS_ADMIN)) {
        if (!try_in_child(enter_user_namespace, NULL, text) || enter_user_namespace(NULL, text) < 0) {
            buf_printf(why, "no isolation: not root, and %s; ", text);
            return;
        }
        s->caps.user_namespace = true;
        buf_adds(why, "not root: workloads run in a user namespace, as this user only; ");
    }
    s->caps.namespaces = try_namespaces(s, text);
    if (!s->caps.namespaces)
        buf_printf(why, "no isolation: %s; ", text);
}

static void probe_net(struct sup *s, struct buf *why)
{
    char text[SUP_TEXT_MAX];
    s->caps.net = SUP_NET_HOST;
    if (!s->caps.namespaces)
        return;
    s->caps.net = SUP_NET_LOOKUP;
    if (s->caps.user_namespace) {
        s->caps.net = SUP_NET_LISTEN;
        buf_adds(why, "BPF needs root: one listener per service address and port instead; ");
    } else if (!try_in_child(try_lookup, NULL, text)) {
        s->caps.net = SUP_NET_LISTEN;
        buf_printf(why, "%s: one listener per service address and port instead; ", text);
    }
}

void caps_probe(struct sup *s)
{
    struct buf why = {0};
    char text[SUP_TEXT_MAX];
    cgroup_root_init(&s->cgroups, s->name, &why);
    s->caps.cgroup = s->cgroups.version;
    s->caps.seccomp = seccomp_build(&s->filter, &why);
    if (s->caps.seccomp && !try_in_child(try_seccomp, &s->filter, text)) {
        s->caps.seccomp = false;
        seccomp_free(&s->filter);
        buf_printf(&why, "no seccomp filter: %s; ", text);
    }
    probe_namespaces(s, &why);
    probe_net(s, &why);
    struct slice all = buf_slice(&why);
    while (all.n && (all.p[all.n - 1] == ' ' || all.p[all.n - 1] == ';'))
        all.n--;
    snprintf(s->caps.why, sizeof s->caps.why, SLICE_FMT, SLICE_ARG(all.n ? all : SLICE("")));
    buf_free(&why);
}
