/* mounts.c - the file system that a replica sees.
 *
 * The host's, read-only, without set-uid programs and devices, in a mount namespace of its own; and on top:
 *
 *     the working directory     as it is on the host, writable if it was
 *     /tmp /run /dev/shm        empty, private, in memory (and counted by the memory limit)
 *     /dev                      null zero full random urandom tty, pts; no disks
 *     /proc                     of its own PID namespace; the switches of the whole machine in it are read-only or hidden
 *     /sys                      read-only; of its own network namespace where the kernel allows that
 *     Weir's data directory     an empty, read-only folder
 *     /etc/hosts, resolv.conf   files that the engine keeps up to date
 *     volumes                   folders and files of the data directory, read-only, where the manifest wants them
 *
 * Everything that is to be shown again after its place was covered is opened first (O_PATH) and bound back by its
 * descriptor. Steps that only add convenience may fail (a user namespace does not get everything); steps that protect
 * may not.
 *
 * Kernels before 5.12 have no mount_setattr(); then every mount is made read-only one by one.
 */
#include "sup_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

bool mounts_setattr_absent;

/* What is opened before it is covered. -1: not there. */
struct kept {
    int cwd, program, hosts, resolv;
    int mounts[SUP_MOUNTS_MAX]; /* sources of volumes */
    size_t mounts_n;
    bool cwd_writable;
    char program_path[PATH_MAX];
};

static int fail(char text[SUP_TEXT_MAX], const char *what, const char *where)
{
    int e = errno ? errno : EIO;
    snprintf(text, SUP_TEXT_MAX, "cannot set up the file system: %s %.200s: %s", what, where, strerror(e));
    return -e;
}

/* True when path is dir or below it. */
static bool is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    return strncmp(path, dir, n) == 0 && (path[n] == 0 || path[n] == '/' || n == 1);
}

static bool is_covered(const char *path) { return is_below(path, "/tmp") || is_below(path, "/run") || is_below(path, "/var/run") || is_below(path, "/dev"); }

/* ---- flags of mounts ------------------------------------------------------------------------------------------------- */

/* Adds and removes MS_RDONLY, MS_NOSUID, MS_NODEV at one mount point, keeping its other flags. 0 or -1. */
static int remount(const char *path, unsigned long add, unsigned long remove)
{
    struct statvfs v;
    if (statvfs(path, &v) < 0)
        return -1;
    unsigned long flags = 0;
    flags |= v.f_flag & ST_RDONLY ? MS_RDONLY : 0;
    flags |= v.f_flag & ST_NOSUID ? MS_NOSUID : 0;
    flags |= v.f_flag & ST_NODEV ? MS_NODEV : 0;
    flags |= v.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
    flags |= v.f_flag & ST_NOATIME ? MS_NOATIME : 0;
    flags |= v.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
    flags |= v.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | ((flags | add) & ~remove), NULL);
}

/* "\040" and the like in /proc/self/mountinfo stand for one character. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++)
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    *to = 0;
}

/* Every mount, one by one. One that is covered by another, or in a folder closed to us, can be reached neither by its path
 * nor by the workload (EINVAL: the path is no mount point any more). */
static int protect_each(char text[SUP_TEXT_MAX])
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return fail(text, "reading", "/proc/self/mountinfo");
    char *line = NULL;
    size_t cap = 0;
    int r = 0;
    while (r == 0 && getline(&line, &cap, f) > 0) {
        char *tail = line, *point = NULL;
        for (int i = 0; i < 5; i++)
            point = strsep(&tail, " ");
        if (!point)
            continue;
        unescape(point);
        if (remount(point, MS_RDONLY | MS_NOSUID | MS_NODEV, 0) < 0 && errno != ENOENT && errno != EACCES && errno != EINVAL)
            r = fail(text, "read-only:", point);
    }
    fclose(f);
    return r; /* line is not released: this process becomes the workload's init, or ends */
}

/* The whole tree below / read-only, without set-uid and devices. */
static int protect_all(char text[SUP_TEXT_MAX])
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    if (!mounts_setattr_absent && syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr) == 0)
        return 0;
    if (!mounts_setattr_absent && errno != ENOSYS)
        return fail(text, "read-only:", "/");
    return protect_each(text);
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

static int bind_fd(int fd, const char *target)
{
    char from[64];
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    return mount(from, target, NULL, MS_BIND | MS_REC, NULL);
}

/* Makes the folders above path, and path itself: a folder, or an empty file. Only our own tmpfs are writable here. */
static void make_path(const char *path, bool dir)
{
    char p[PATH_MAX];
    snprintf(p, sizeof p, "%s", path);
    for (char *s = strchr(p + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = 0;
        (void)mkdir(p, 0755);
        *s = '/';
    }
    if (dir) {
        (void)mkdir(p, 0755);
        return;
    }
    int fd = open(p, O_CREAT | O_WRONLY | O_CLOEXEC | O_EXCL, 0644);
    if (fd >= 0)
        close(fd);
}

static int tmpfs(const char *path, unsigned long flags, const char *options, char text[SUP_TEXT_MAX])
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode)) /* not there, or a link into one that we cover anyway */
        return 0;
    return mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | flags, options) < 0 ? fail(text, "tmpfs on", path) : 0;
}

/* ---- /dev ------------------------------------------------------------------------------------------------------------ */

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};

static int dev_link(const char *target, const char *path) { return symlink(target, path) < 0 && errno != EEXIST ? -1 : 0; }

static int mount_dev(const int *fds, char text[SUP_TEXT_MAX])
{
    if (mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k") < 0)
        return fail(text, "tmpfs on", "/dev");
    for (size_t i = 0; i < COUNT_OF(devices); i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/%s", devices[i]);
        if (fds[i] < 0)
            continue;
        make_path(path, false);
        if (bind_fd(fds[i], path) < 0 || remount(path, MS_NOSUID | MS_NOEXEC, MS_NODEV | MS_RDONLY) < 0)
            return fail(text, "binding", path);
    }
    (void)mkdir("/dev/shm", 01777);
    (void)mkdir("/dev/pts", 0755);
    (void)dev_link("/proc/self/fd", "/dev/fd");
    (void)dev_link("/proc/self/fd/0", "/dev/stdin");
    (void)dev_link("/proc/self/fd/1", "/dev/stdout");
    (void)dev_link("/proc/self/fd/2", "/dev/stderr");
    (void)dev_link("pts/ptmx", "/dev/ptmx");
    (void)mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
    if (mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777") < 0)
        return fail(text, "tmpfs on", "/dev/shm");
    return remount("/dev", MS_RDONLY | MS_NOSUID | MS_NOEXEC, 0) < 0 ? fail(text, "read-only:", "/dev") : 0;
}

/* ---- /proc and /sys -------------------------------------------------------------------------------------------------- */

/* A process of uid 0 may write many of these by their mode alone, without any capability. */
static const char *const proc_readonly[] = {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"};
static const char *const proc_hidden[] = {"/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats"};
static const char *const proc_emptied[] = {"/proc/acpi", "/proc/scsi", "/proc/asound"};

static int mount_proc(char text[SUP_TEXT_MAX])
{
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
        /* Where parts of /proc are hidden from us (in a container), a user namespace gets no new one. The host's stays, and
         * it is read-only as a whole. */
        return errno == EPERM ? 0 : fail(text, "proc on", "/proc");
    }
    for (size_t i = 0; i < COUNT_OF(proc_readonly); i++) {
        const char *p = proc_readonly[i];
        if (access(p, F_OK) == 0 && (mount(p, p, NULL, MS_BIND | MS_REC, NULL) < 0 || remount(p, MS_RDONLY, 0) < 0))
            return fail(text, "read-only:", p);
    }
    for (size_t i = 0; i < COUNT_OF(proc_hidden); i++)
        if (access(proc_hidden[i], F_OK) == 0 && mount("/dev/null", proc_hidden[i], NULL, MS_BIND, NULL) < 0)
            return fail(text, "hiding", proc_hidden[i]);
    for (size_t i = 0; i < COUNT_OF(proc_emptied); i++)
        if (access(proc_emptied[i], F_OK) == 0 && tmpfs(proc_emptied[i], MS_RDONLY, "size=0", text) < 0)
            return -EIO;
    return 0;
}

/* With a network namespace of its own a replica may have a /sys that shows only that; otherwise the host's, read-only. */
static void mount_sys(const struct sandbox *sb)
{
    if (!sb->host_network)
        (void)mount("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* ---- the working directory and the program --------------------------------------------------------------------------- */

static void keep_open(const struct sandbox *sb, struct kept *k)
{
    struct statvfs v;
    k->cwd = open(sb->cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);
    k->cwd_writable = k->cwd >= 0 && fstatvfs(k->cwd, &v) == 0 && !(v.f_flag & ST_RDONLY);
    k->hosts = sb->hosts_path ? open(sb->hosts_path, O_PATH | O_CLOEXEC) : -1;
    k->resolv = sb->resolv_path ? open(sb->resolv_path, O_PATH | O_CLOEXEC) : -1;
    for (; sb->mounts && sb->mounts[2 * k->mounts_n] && k->mounts_n < SUP_MOUNTS_MAX; k->mounts_n++)
        k->mounts[k->mounts_n] = open(sb->mounts[2 * k->mounts_n], O_PATH | O_CLOEXEC);
    k->program = -1;
    char joined[PATH_MAX];
    const char *name = sb->argv[0] ? sb->argv[0] : "";
    int n = snprintf(joined, sizeof joined, name[0] == '/' ? "%s%s" : "%s/%s", name[0] == '/' ? "" : sb->cwd, name);
    if (!strchr(name, '/') || n < 0 || (size_t)n >= sizeof joined)
        return;
    /* The path as the workload will use it matters, so links in it are left alone when the file itself is not covered. */
    if (realpath(joined, k->program_path) && is_covered(k->program_path) && !is_below(k->program_path, sb->cwd))
        k->program = open(k->program_path, O_PATH | O_CLOEXEC);
}

/* Shows the working directory at its place again. The root is never writable, nor are the kernel's own trees. */
static int show_cwd(const struct sandbox *sb, const struct kept *k, char text[SUP_TEXT_MAX])
{
    bool plain = strcmp(sb->cwd, "/") == 0 || is_below(sb->cwd, "/proc") || is_below(sb->cwd, "/sys") || is_below(sb->cwd, "/dev");
    if (k->cwd < 0 || plain)
        return 0; /* missing: the workload's chdir() says so */
    make_path(sb->cwd, true);
    if (bind_fd(k->cwd, sb->cwd) < 0)
        return fail(text, "binding", sb->cwd);
    return k->cwd_writable && remount(sb->cwd, 0, MS_RDONLY) < 0 ? fail(text, "making writable", sb->cwd) : 0;
}

static int show_program(const struct kept *k, char text[SUP_TEXT_MAX])
{
    if (k->program < 0)
        return 0;
    make_path(k->program_path, false);
    return bind_fd(k->program, k->program_path) < 0 ? fail(text, "binding", k->program_path) : 0;
}

/* Weir's own files: keys, state, the admin socket, other workloads' output. */
static int hide_data(const struct sandbox *sb, unsigned long flags, char text[SUP_TEXT_MAX])
{
    struct stat st;
    if (!sb->data_dir || stat(sb->data_dir, &st) < 0)
        return 0; /* not there, or covered already */
    return mount("tmpfs", sb->data_dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | flags, "mode=755,size=64k") < 0 ? fail(text, "hiding", sb->data_dir) : 0;
}

static int show_work(const struct sandbox *sb, const struct kept *k, char text[SUP_TEXT_MAX])
{
    /* A working directory inside of the data directory is shown through the lid; otherwise the lid is put on last. */
    bool inside = sb->data_dir && is_below(sb->cwd, sb->data_dir);
    int r = inside ? hide_data(sb, 0, text) : 0;
    r = r < 0 ? r : show_cwd(sb, k, text);
    r = r < 0 ? r : show_program(k, text);
    if (r == 0 && inside && remount(sb->data_dir, MS_RDONLY, 0) < 0)
        r = fail(text, "read-only:", sb->data_dir);
    return r < 0 || inside ? r : hide_data(sb, MS_RDONLY, text);
}

/* ---- /etc ------------------------------------------------------------------------------------------------------------ */

/* One entry of a folder that is shadowed: a link to it, but what the working directory is in keeps its path. */
static void shadow_entry(const char *old, const char *dir, const char *name, const char *cwd)
{
    char from[PATH_MAX], to[PATH_MAX];
    int n = snprintf(from, sizeof from, "%s/%s", old, name), m = snprintf(to, sizeof to, "%s/%s", dir, name);
    if (n < 0 || m < 0 || (size_t)n >= sizeof from || (size_t)m >= sizeof to)
        return;
    if (!is_below(cwd, to))
        (void)symlink(from, to);
    else if (mkdir(to, 0755) == 0)
        (void)mount(from, to, NULL, MS_BIND | MS_REC, NULL);
}

/* A folder in place of dir that can be added to: links to everything in the old one, which moves to `old`. */
static int shadow(const char *dir, const char *old, const char *cwd, char text[SUP_TEXT_MAX])
{
    (void)mkdir(old, 0755);
    if (access(old, X_OK) < 0 || mount(dir, old, NULL, MS_BIND | MS_REC, NULL) < 0)
        return fail(text, "binding", old);
    if (mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m") < 0)
        return fail(text, "tmpfs on", dir);
    DIR *d = opendir(old);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            shadow_entry(old, dir, e->d_name, cwd);
    if (d)
        closedir(d);
    return 0;
}

/* For the rare machine without /etc/hosts or with a link to nowhere in its place. */
static int shadow_etc(char text[SUP_TEXT_MAX]) { return shadow("/etc", "/run/weir-etc", "", text); }

/* Shows file fd as path. *shadowed: /etc is ours to write already. */
static int show_etc(int fd, const char *path, bool *shadowed, char text[SUP_TEXT_MAX])
{
    if (fd < 0)
        return 0;
    char target[PATH_MAX];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n > 0 && access(path, F_OK) < 0) { /* a link into a place that is empty now, as systemd-resolved's: make its end */
        target[n] = 0;
        char joined[PATH_MAX + 8];
        const char *below = target;
        while (strncmp(below, "../", 3) == 0)
            below += 3;
        snprintf(joined, sizeof joined, "%s%s", below[0] == '/' ? "" : below == target ? "/etc/" : "/", below);
        if (is_covered(joined))
            make_path(joined, false);
    }
    if (access(path, F_OK) < 0) {
        if (!*shadowed && shadow_etc(text) < 0)
            return -EIO;
        *shadowed = true;
        (void)unlink(path);
        make_path(path, false);
    }
    if (bind_fd(fd, path) < 0 || remount(path, MS_RDONLY | MS_NOSUID | MS_NODEV, 0) < 0)
        return fail(text, "binding", path);
    return 0;
}

/* ---- volumes --------------------------------------------------------------------------------------------------------- */

/* The nearest folder above path that is there. */
static void nearest(const char *path, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s", path);
    do {
        char *slash = strrchr(out, '/');
        *(slash == out ? slash + 1 : slash) = 0;
    } while (out[1] && access(out, F_OK) < 0);
}

static int refuse(char text[SUP_TEXT_MAX], const char *path, const char *why)
{
    snprintf(text, SUP_TEXT_MAX, "mountPath %.200s is not there, and %s", path, why);
    return -ENOENT;
}

/* Makes the place for volume i, where there is none: in our own tmpfs, else in a shadow of the nearest folder. shadowed[i]: that folder, or "". */
static int make_place(const struct sandbox *sb, size_t i, bool dir, char (*shadowed)[PATH_MAX], char text[SUP_TEXT_MAX])
{
    const char *path = sb->mounts[2 * i + 1];
    char above[PATH_MAX], old[64];
    shadowed[i][0] = 0;
    if (access(path, F_OK) == 0)
        return 0;
    if (sb->cwd[1] && is_below(path, sb->cwd))
        return refuse(text, path, "nothing is made in the working directory; make it there");
    nearest(path, above);
    bool ours = is_covered(above);
    for (size_t k = 0; k < i && !ours; k++)
        ours = strcmp(shadowed[k], above) == 0 || (shadowed[k][0] && is_below(above, shadowed[k]) && access(above, W_OK) == 0);
    if (!ours && !above[1])
        return refuse(text, path, "nothing is made in /; choose a path in a folder that is there, such as /etc or /run");
    if (!ours) {
        snprintf(old, sizeof old, "/run/weir-shadow-%zu", i);
        int r = shadow(above, old, sb->cwd, text);
        if (r < 0)
            return r;
        snprintf(shadowed[i], PATH_MAX, "%s", above);
    }
    make_path(path, dir);
    return 0;
}

static int show_mount(const struct sandbox *sb, const struct kept *k, size_t i, char (*shadowed)[PATH_MAX], char text[SUP_TEXT_MAX])
{
    const char *path = sb->mounts[2 * i + 1];
    struct stat st;
    if (k->mounts[i] < 0 || fstat(k->mounts[i], &st) < 0) {
        snprintf(text, SUP_TEXT_MAX, "the volume for mountPath %.200s has no such file: see subPath", path);
        return -ENOENT;
    }
    int r = make_place(sb, i, S_ISDIR(st.st_mode), shadowed, text);
    if (r < 0)
        return r;
    if (bind_fd(k->mounts[i], path) < 0 || remount(path, MS_RDONLY | MS_NOSUID | MS_NODEV, 0) < 0)
        return fail(text, "mounting a volume on", path);
    return 0;
}

static int show_mounts(const struct sandbox *sb, const struct kept *k, char text[SUP_TEXT_MAX])
{
    static char shadowed[SUP_MOUNTS_MAX][PATH_MAX]; /* init has one thread */
    int r = 0;
    for (size_t i = 0; i < k->mounts_n && r == 0; i++)
        r = show_mount(sb, k, i, shadowed, text);
    for (size_t i = 0; i < k->mounts_n && r == 0; i++)
        if (shadowed[i][0] && remount(shadowed[i], MS_RDONLY, 0) < 0)
            r = fail(text, "read-only:", shadowed[i]);
    return r;
}

/* Values of Secrets are encrypted where they rest; the files that workloads read must not undo that. */
void mounts_volumes(const char *data_dir)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/volumes", data_dir);
    if (geteuid() != 0 || n < 0 || (size_t)n >= sizeof path || (mkdir(path, 0700) < 0 && errno != EEXIST))
        return;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) /* mounts of the host go on to appear here */
        return;
    if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, SUP_VOLUMES_OPTIONS) < 0)
        log_warn("sup", "files of volumes are on disk, not in memory: %s", strerror(errno));
}

/* ---- all together ---------------------------------------------------------------------------------------------------- */

static int cover(const struct sandbox *sb, char text[SUP_TEXT_MAX])
{
    int dev[COUNT_OF(devices)];
    for (size_t i = 0; i < COUNT_OF(devices); i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/%s", devices[i]);
        dev[i] = open(path, O_PATH | O_CLOEXEC);
    }
    int r = tmpfs("/tmp", 0, "mode=1777", text);
    r = r < 0 ? r : tmpfs("/run", 0, "mode=755", text);
    r = r < 0 ? r : tmpfs("/var/run", 0, "mode=755", text);
    r = r < 0 ? r : mount_dev(dev, text);
    r = r < 0 ? r : mount_proc(text);
    for (size_t i = 0; i < COUNT_OF(devices); i++)
        if (dev[i] >= 0)
            close(dev[i]);
    if (r == 0)
        mount_sys(sb);
    return r;
}

int mounts_enter(const struct sandbox *sb, char text[SUP_TEXT_MAX])
{
    /* Nothing that is mounted here is seen outside, and nothing from outside appears here. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return fail(text, "private:", "/");
    struct kept k = {.mounts_n = 0};
    keep_open(sb, &k);
    int r = protect_all(text);
    r = r < 0 ? r : cover(sb, text);
    r = r < 0 ? r : show_work(sb, &k, text);
    bool shadowed = false;
    r = r < 0 ? r : show_etc(k.hosts, "/etc/hosts", &shadowed, text);
    r = r < 0 ? r : show_etc(k.resolv, "/etc/resolv.conf", &shadowed, text);
    if (r == 0 && shadowed && remount("/etc", MS_RDONLY, 0) < 0)
        r = fail(text, "read-only:", "/etc");
    r = r < 0 ? r : show_mounts(sb, &k, text);
    for (size_t i = 0; i < k.mounts_n; i++)
        if (k.mounts[i] >= 0)
            close(k.mounts[i]);
    const int fds[] = {k.cwd, k.program, k.hosts, k.resolv};
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return r;
}
