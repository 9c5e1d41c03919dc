/* sandbox.c - what a process gives up before it becomes somebody else's program.
 *
 * Order matters: credentials first (they need capabilities), then the capabilities themselves, then no_new_privs, which
 * makes it final, then the seccomp filter, which may forbid what came before, then exec.
 *
 * The filter permits by default and refuses, with EPERM, what a service has no business with and what has been a way out
 * of sandboxes: mounts, namespaces, modules, BPF, io_uring, tracing of other processes, key rings, the clock, and sockets
 * of families that network namespaces do not confine (vsock among them). clone3 says ENOSYS, since a filter cannot see
 * its flags; C libraries then use clone, whose flags it can see. Only the machine's native system calls pass: programs
 * for another word size fail.
 *
 * Of the capabilities CAP_NET_BIND_SERVICE remains, so that a workload may listen on port 80 of its own loopback.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- seccomp --------------------------------------------------------------------------------------------------------- */

/* Refused whatever the arguments. Names that this libseccomp does not know are left out. */
static const char *const refused[] = {
    /* file systems */
    "mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "statmount", "listmount", "swapon", "swapoff", "quotactl", "quotactl_fd", "open_by_handle_at", "name_to_handle_at",
    "chroot", "fanotify_init", "lookup_dcookie",
    /* the machine */
    "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "query_module",
    "get_kernel_syms", "acct", "settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex", "stime",
    "iopl", "ioperm", "syslog", "sethostname", "setdomainname", "nfsservctl", "vhangup", "uselib", "ustat", "sysfs", "_sysctl", "modify_ldt",
    "vm86", "vm86old",
    /* other processes and the kernel's insides */
    "bpf", "perf_event_open", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "setns",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl", "migrate_pages", "move_pages",
    "mbind", "set_mempolicy", "set_mempolicy_home_node",
};

static const uint32_t namespace_flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWTIME};

/* Address families that are of use to a service, and confined by its network namespace. */
static bool family_permitted(unsigned family) { return family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK; }

static int refuse(scmp_filter_ctx ctx, const char *name)
{
    int nr = seccomp_syscall_resolve_name(name);
    return nr == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
}

static int refuse_flags(scmp_filter_ctx ctx)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < COUNT_OF(namespace_flags); i++) {
        uint32_t f = namespace_flags[i];
        if (f != CLONE_NEWTIME) /* in clone() the bits of CSIGNAL are in its place */
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, f, f));
        if (r == 0)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unshare), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, f, f));
    }
    return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) : r;
}

static int refuse_families(scmp_filter_ctx ctx)
{
    int r = 0;
    for (unsigned family = 1; r == 0 && family <= AF_NETLINK; family++)
        if (!family_permitted(family))
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, family));
    return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, AF_NETLINK)) : r;
}

/* Pushing characters into a terminal's input; and personalities other than Linux's own and the question (0xffffffff). The
 * permitted ones are the low 32 bits 0, UNAME26 and ADDR_NO_RANDOMIZE: a rule is needed for every other bit. */
static int refuse_arguments(scmp_filter_ctx ctx)
{
    int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, 0x5412 /* TIOCSTI */));
    if (r == 0)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, 0x541C /* TIOCLINUX */));
    const uint32_t permitted = UNAME26 | ADDR_NO_RANDOMIZE;
    for (int bit = 0; r == 0 && bit < 31; bit++) {
        uint32_t m = 1u << bit;
        /* the question has bit 31 set as well, so "bit set and bit 31 clear" is what is refused */
        if (!(m & permitted))
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, m | 0x80000000u, m));
    }
    return r;
}

/* The filter as instructions, so that a starting replica only has to hand them to the kernel. */
static bool filter_export(scmp_filter_ctx ctx, struct seccomp_filter *f)
{
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    struct stat st;
    bool good = fd >= 0 && seccomp_export_bpf(ctx, fd) == 0 && fstat(fd, &st) == 0 && st.st_size > 0 &&
                (size_t)st.st_size / sizeof(struct sock_filter) <= BPF_MAXINSNS;
    if (good) {
        f->insns = mem_new(MEM_SUP, (size_t)st.st_size);
        f->n = (uint16_t)((size_t)st.st_size / sizeof(struct sock_filter));
        good = pread(fd, f->insns, (size_t)st.st_size, 0) == st.st_size;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

bool seccomp_build(struct seccomp_filter *f, struct buf *why)
{
    *f = (struct seccomp_filter){0};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int r = ctx ? 0 : -ENOMEM;
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
    for (size_t i = 0; r == 0 && i < COUNT_OF(refused); i++)
        r = refuse(ctx, refused[i]);
    r = r ? r : refuse_flags(ctx);
    r = r ? r : refuse_families(ctx);
    r = r ? r : refuse_arguments(ctx);
    if (r == 0 && !filter_export(ctx, f))
        r = -EIO;
    if (ctx)
        seccomp_release(ctx);
    if (r < 0) {
        buf_printf(why, "no seccomp filter: libseccomp: %s; ", strerror(-r));
        seccomp_free(f);
    }
    return r == 0;
}

void seccomp_free(struct seccomp_filter *f)
{
    mem_free(f->insns);
    *f = (struct seccomp_filter){0};
}

/* ---- capabilities and credentials ------------------------------------------------------------------------------------ */

int caps_keep(uint64_t keep)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];
    if (syscall(SYS_capget, &h, d) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) /* a change of the user has emptied the effective set: the bounding set needs CAP_SETPCAP in it */
        d[i].effective = d[i].permitted;
    h.pid = 0;
    if (syscall(SYS_capset, &h, d) < 0)
        return -errno;
    for (int cap = 0; cap <= 63; cap++) /* ends at the kernel's last; without CAP_SETPCAP the set stays, and no_new_privs guards */
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            break;
    for (int i = 0; i < 2; i++) {
        uint32_t mask = (uint32_t)(keep >> (32 * i));
        d[i].permitted &= mask;
        d[i].effective = d[i].inheritable = d[i].permitted;
    }
    return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

/* 0, or -errno with text. Afterwards only CAP_NET_BIND_SERVICE is left, as far as it was there. */
static int credentials(const struct sandbox *sb, char text[SUP_TEXT_MAX])
{
    const uint64_t keep = 1ull << CAP_NET_BIND_SERVICE;
    bool change = (sb->gid >= 0 && sb->gid != getegid()) || (sb->uid >= 0 && sb->uid != geteuid());
    (void)prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0); /* the permitted set survives the change of the user */
    if (change && sb->user_namespace) {
        snprintf(text, SUP_TEXT_MAX, "cannot run as uid %lld, gid %lld: without root only Weir's own user (uid %u) is possible", (long long)sb->uid,
                 (long long)sb->gid, (unsigned)geteuid());
        return -EPERM;
    }
    gid_t gid = sb->gid >= 0 ? (gid_t)sb->gid : getegid();
    uid_t uid = sb->uid >= 0 ? (uid_t)sb->uid : geteuid();
    if (change && (setgroups(1, &gid) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)) {
        int e = errno;
        snprintf(text, SUP_TEXT_MAX, "cannot run as uid %u, gid %u: %s", (unsigned)uid, (unsigned)gid, strerror(e));
        return -e;
    }
    int r = caps_keep(keep);
    if (r < 0) {
        snprintf(text, SUP_TEXT_MAX, "cannot drop capabilities: %s", strerror(-r));
        return r;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0); /* refused when it is not there */
    return 0;
}

void signals_reset(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int i = 1; i <= 64; i++)
        (void)sigaction(i, &dfl, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

void fds_close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0u, 0) == 0)
        return;
    struct rlimit lim; /* kernels before 5.9 */
    int max = getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < 1u << 20 ? (int)lim.rlim_cur : 1 << 20;
    for (int fd = first; fd < max; fd++)
        close(fd);
}

/* ---- exec ------------------------------------------------------------------------------------------------------------ */

/* Runs path; returns why it could not. */
static enum err exec_path(const char *path, const struct sandbox *sb, const char *const *argv, char text[SUP_TEXT_MAX])
{
    execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)sb->envp);
    int e = errno;
    const char *reason = strerror(e);
    if (e == ENOENT && access(path, F_OK) == 0)
        reason = "the interpreter in its first line, or its loader, does not exist";
    else if (e == ENOEXEC)
        reason = "not a program for this machine, and without a #! line";
    else if (e == EACCES)
        reason = "permission denied; is it executable, and may this user enter its folder?";
    else if (e == E2BIG)
        reason = "arguments and environment are too large";
    snprintf(text, SUP_TEXT_MAX, "cannot run %.160s: %s", path, reason);
    return err_from_errno(e);
}

static const char *path_of(const struct sandbox *sb)
{
    for (size_t i = 0; sb->envp && sb->envp[i]; i++)
        if (strncmp(sb->envp[i], "PATH=", 5) == 0)
            return sb->envp[i] + 5;
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* The first executable file of that name in the folders of PATH. */
static enum err exec_search(const struct sandbox *sb, const char *const *argv, char text[SUP_TEXT_MAX])
{
    struct slice rest = slice_cstr(path_of(sb));
    bool denied = false;
    while (rest.n) {
        struct slice dir = slice_cut(rest, ':', &rest);
        char path[4096];
        struct stat st;
        int n = snprintf(path, sizeof path, SLICE_FMT "/%s", SLICE_ARG(dir.n ? dir : SLICE(".")), argv[0]);
        if (n < 0 || (size_t)n >= sizeof path || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (access(path, X_OK) == 0)
            return exec_path(path, sb, argv, text);
        denied = true;
    }
    snprintf(text, SUP_TEXT_MAX, "cannot run %.100s: %s PATH (%.300s)", argv[0], denied ? "not executable in" : "not found in", path_of(sb));
    return denied ? ERR_PERM : ERR_NOTFOUND;
}

static void limits_raise(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
}

enum err sandbox_exec(const struct sandbox *sb, const struct seccomp_filter *f, const char *const *argv, char text[SUP_TEXT_MAX])
{
    umask(022);
    limits_raise();
    int entered = chdir(sb->cwd), e = errno;
    /* Until exec this memory is a copy of sup's, other replicas' environments included. Without more capabilities than the
     * workload it must not be readable through /proc to what runs in the namespace already; exec makes it so again. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    int r = credentials(sb, text);
    if (r < 0)
        return err_from_errno(-r);
    /* Root without capabilities may not walk through the closed home of another user, and still work in a folder below
     * it; a user that was asked for by number must be able to enter by itself. */
    if (entered < 0 || (sb->uid >= 0 && chdir(sb->cwd) < 0)) {
        e = entered < 0 ? e : errno;
        snprintf(text, SUP_TEXT_MAX, "cannot enter the working directory %.300s: %s", sb->cwd, strerror(e));
        return err_from_errno(e);
    }
    signals_reset();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* the parent is an init or an exec helper; a change of the user has cleared it */
    struct sock_fprog prog = {.len = f->n, .filter = f->insns};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || (f->insns && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)) {
        e = errno;
        snprintf(text, SUP_TEXT_MAX, "cannot install the seccomp filter: %s", strerror(e));
        return err_from_errno(e);
    }
    if (!argv[0] || !argv[0][0]) {
        snprintf(text, SUP_TEXT_MAX, "no program was named");
        return ERR_INVALID;
    }
    return strchr(argv[0], '/') ? exec_path(argv[0], sb, argv, text) : exec_search(sb, argv, text);
}
