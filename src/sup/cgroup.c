/* cgroup.c - limits on processor time, memory and processes, by control groups of version 1 or 2.
 *
 *     <mount of the controller>/<our own group>/weir-NAME-PID/REPLICA
 *
 * Version 1 has one tree per controller, each at its own mount and with its own path of ours; a controller that is not
 * mounted or not writable is left out by itself. Version 2 has one tree, and a group may hand controllers to its children
 * only when no process is in it (the kernel's "no internal processes" rule, cgroup-v2.rst), unless it is the root. So on
 * version 2 we try, from our own group upwards, to make weir-NAME-PID; in our own group that works when it was delegated
 * to us alone, by moving ourselves into the leaf weir-NAME-PID/sup first.
 *
 * The PID in the name says whose a group is: groups of PIDs that are no more are removed at start. A sup in another PID namespace
 * is not seen by its PID, and has no process in its root as long as it has no replica: it holds a lock on it, and what is locked
 * is left alone. A group is removed when its last process has been reaped. Nothing here waits.
 */
#include "sup_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1u << 20) /* of /proc/self/mountinfo; longer ones are cut */
#define MAKE_TRIES 16        /* of a group that others remove as it is made */
static const char *const names[CG_COUNT] = {"cpu", "memory", "pids"};

/* ---- small files ----------------------------------------------------------------------------------------------------- */

static bool read_file(const char *path, struct buf *out, size_t max)
{
    buf_clear(out);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char chunk[4096];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0 && out->n < max)
        buf_add(out, chunk, (size_t)n);
    close(fd);
    return n >= 0;
}

/* 0 or -errno. */
static int write_file(const char *dir, const char *file, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    int r = n < 0 ? -errno : 0;
    close(fd);
    return r;
}

static char *path_join(const char *a, const char *b)
{
    struct buf p = {0};
    buf_adds(&p, a);
    while (p.n > 1 && p.p[p.n - 1] == '/')
        p.p[--p.n] = 0;
    if (b[0] && strcmp(b, "/") != 0) {
        if (b[0] != '/')
            buf_addc(&p, '/');
        buf_adds(&p, b);
    }
    return buf_take(&p, NULL);
}

/* ---- where we are ---------------------------------------------------------------------------------------------------- */

/* True when the comma-separated list holds word. */
static bool list_has(struct slice list, const char *word)
{
    while (list.n) {
        struct slice rest;
        struct slice item = slice_cut(list, ',', &rest);
        if (slice_is(item, word))
            return true;
        list = rest;
    }
    return false;
}

/* Our path in the hierarchy of controller (NULL: version 2), from the text of /proc/self/cgroup: "ID:CONTROLLERS:PATH". */
static char *own_path(struct slice text, const char *controller)
{
    while (text.n) {
        struct slice rest, line = slice_cut(text, '\n', &rest);
        text = rest;
        struct slice controllers, path;
        slice_cut(line, ':', &controllers);
        controllers = slice_cut(controllers, ':', &path);
        if (controller ? list_has(controllers, controller) : controllers.n == 0)
            return mem_strndup(MEM_SUP, path.p, path.n);
    }
    return NULL;
}

/* The directory of our own group in the hierarchy of controller (NULL: version 2), from mountinfo (proc(5)): the fields
 * are ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE SUPER-OPTIONS. NULL when it is not mounted. */
static char *own_dir(struct slice mounts, struct slice cgroups, const char *controller)
{
    char *own = own_path(cgroups, controller), *found = NULL;
    while (own && mounts.n && !found) {
        struct slice rest, line = slice_cut(mounts, '\n', &rest), f[5], tail = line;
        mounts = rest;
        for (size_t i = 0; i < 5; i++)
            f[i] = slice_cut(tail, ' ', &tail);
        char *sep = tail.n ? memmem(tail.p, tail.n, " - ", 3) : NULL;
        if (!sep)
            continue;
        tail = slice_of(sep + 3, tail.n - (size_t)(sep + 3 - tail.p));
        struct slice type = slice_cut(tail, ' ', &tail), super;
        slice_cut(tail, ' ', &super);
        if (controller ? !(slice_is(type, "cgroup") && list_has(super, controller)) : !slice_is(type, "cgroup2"))
            continue;
        /* The mount may show only a part of the tree (a container's): our path is below that part. */
        struct slice below = slice_cstr(own);
        if (!slice_is(f[3], "/") && slice_starts(below, f[3]))
            below = slice_of(below.p + f[3].n, below.n - f[3].n);
        char *point = mem_strndup(MEM_SUP, f[4].p, f[4].n), *rel = mem_strndup(MEM_SUP, below.p, below.n);
        found = path_join(point, rel);
        mem_free(point);
        mem_free(rel);
    }
    mem_free(own);
    return found;
}

/* ---- removing -------------------------------------------------------------------------------------------------------- */

/* Removes dir and the groups in it. Only empty groups can be removed, so this can harm nobody. */
static void remove_tree(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        char *sub = path_join(dir, e->d_name);
        (void)rmdir(sub);
        mem_free(sub);
    }
    if (d)
        closedir(d);
    (void)rmdir(dir);
}

/* Somebody has a lock on it. */
static bool is_held(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return held;
}

/* Makes dir, and locks it for as long as the descriptor is open. The descriptor or -errno. */
static int make_held(const char *dir)
{
    for (int i = 0; i < MAKE_TRIES; i++) {
        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
            return -errno;
        struct stat ours, there;
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && (flock(fd, LOCK_SH | LOCK_NB) < 0 || fstat(fd, &ours) < 0 || stat(dir, &there) < 0 || ours.st_ino != there.st_ino)) {
            close(fd); /* it was removed before it was locked */
            fd = -1;
        }
        if (fd >= 0)
            return fd;
    }
    return -EBUSY;
}

/* Removes weir-*-PID below parent where no process PID exists, here or elsewhere. */
static void remove_stale(const char *parent)
{
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *dash = strrchr(e->d_name, '-');
        if (e->d_type != DT_DIR || strncmp(e->d_name, "weir-", 5) != 0 || !dash)
            continue;
        uint64_t pid;
        if (slice_u64(slice_cstr(dash + 1), INT32_MAX, &pid) != OK || pid == 0)
            continue;
        if (kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        char *dir = path_join(parent, e->d_name);
        if (!is_held(dir))
            remove_tree(dir);
        mem_free(dir);
    }
    if (d)
        closedir(d);
}

/* ---- the root -------------------------------------------------------------------------------------------------------- */

static void v1_init(struct cgroup_root *r, struct slice mounts, struct slice cgroups, const char *leaf, struct buf *why)
{
    for (int i = 0; i < CG_COUNT; i++) {
        char *own = own_dir(mounts, cgroups, names[i]);
        if (!own) {
            buf_printf(why, "no limits on %s: the cgroup controller is not mounted; ", names[i]);
            continue;
        }
        remove_stale(own);
        r->dir[i] = path_join(own, leaf);
        r->held[i] = make_held(r->dir[i]);
        if (r->held[i] < 0) {
            buf_printf(why, "no limits on %s: cannot make %s: %s; ", names[i], r->dir[i], strerror(-r->held[i]));
            mem_free(r->dir[i]);
            r->dir[i] = NULL;
        } else {
            r->version = 1;
        }
        mem_free(own);
    }
}

/* True when the space-separated words of DIR/file contain word. */
static bool file_has_word(const char *dir, const char *file, const char *word)
{
    struct buf text = {0};
    char *path = path_join(dir, file);
    bool found = false;
    if (read_file(path, &text, 65536)) {
        struct slice s = slice_trim(buf_slice(&text));
        while (s.n && !found) {
            struct slice rest;
            struct slice w = slice_cut(s, ' ', &rest);
            if (w.n && w.p[w.n - 1] == '\n')
                w.n--;
            found = slice_is(w, word);
            s = rest;
        }
    }
    mem_free(path);
    buf_free(&text);
    return found;
}

/* True when we are the only process in the group dir. */
static bool only_us(const char *dir)
{
    struct buf text = {0};
    char *path = path_join(dir, "cgroup.procs");
    char mine[32];
    snprintf(mine, sizeof mine, "%d\n", (int)getpid());
    bool r = read_file(path, &text, 4096) && slice_is(buf_slice(&text), mine);
    mem_free(path);
    buf_free(&text);
    return r;
}

/* Hands cpu, memory and pids from dir to its children; how many of them a child now has. */
static int v2_enable(const char *dir)
{
    static const char *const plus[CG_COUNT] = {"+cpu", "+memory", "+pids"};
    int n = 0;
    for (int i = 0; i < CG_COUNT; i++)
        if (file_has_word(dir, "cgroup.subtree_control", names[i]) || write_file(dir, "cgroup.subtree_control", plus[i]) == 0)
            n++;
    return n;
}

/* Tries to make our root below parent. own: parent is the group that we are in. */
static bool v2_try(struct cgroup_root *r, const char *parent, const char *leaf, bool own)
{
    char *dir = path_join(parent, leaf), *sup = path_join(dir, "sup");
    int held = make_held(dir);
    bool good = held >= 0;
    if (good && own && only_us(parent) && (mkdir(sup, 0755) == 0 || errno == EEXIST))
        (void)write_file(sup, "cgroup.procs", "0");
    good = good && v2_enable(parent) > 0 && v2_enable(dir) > 0;
    for (int i = 0; good && i < CG_COUNT; i++)
        if (file_has_word(dir, "cgroup.subtree_control", names[i])) {
            r->dir[i] = mem_strdup(MEM_SUP, dir);
            r->held[i] = fcntl(held, F_DUPFD_CLOEXEC, 0);
        }
    if (good)
        r->version = 2;
    else
        remove_tree(dir);
    if (held >= 0)
        close(held);
    mem_free(sup);
    mem_free(dir);
    return good;
}

static void v2_init(struct cgroup_root *r, struct slice mounts, struct slice cgroups, const char *leaf, struct buf *why)
{
    char *own = own_dir(mounts, cgroups, NULL);
    if (!own) {
        buf_adds(why, "no limits on cpu, memory and processes: no cgroup controllers are mounted; ");
        return;
    }
    char *dir = mem_strdup(MEM_SUP, own);
    for (bool first = true; !r->version; first = false) {
        remove_stale(dir);
        if (v2_try(r, dir, leaf, first))
            break;
        char *slash = strrchr(dir, '/');
        if (!slash || slash == dir)
            break;
        *slash = 0;
        char *procs = path_join(dir, "cgroup.procs");
        bool in_tree = access(procs, F_OK) == 0;
        mem_free(procs);
        if (!in_tree)
            break;
    }
    if (!r->version)
        buf_printf(why, "no limits on cpu, memory and processes: the controllers of %s are not delegated to this user; ", own);
    for (int i = 0; r->version && i < CG_COUNT; i++)
        if (!r->dir[i])
            buf_printf(why, "no limits on %s: the controller is not delegated; ", names[i]);
    mem_free(dir);
    mem_free(own);
}

void cgroup_root_init(struct cgroup_root *r, const char *name, struct buf *why)
{
    *r = (struct cgroup_root){0};
    struct buf mounts = {0}, cgroups = {0};
    char leaf[128];
    snprintf(leaf, sizeof leaf, "weir-%.63s-%d", name, (int)getpid());
    if (!read_file("/proc/self/mountinfo", &mounts, FILE_MAX) || !read_file("/proc/self/cgroup", &cgroups, FILE_MAX)) {
        buf_adds(why, "no limits on cpu, memory and processes: /proc/self/cgroup cannot be read; ");
    } else {
        /* A hybrid machine has both; the controllers are where version 1 has mounted them. */
        char *v1 = own_dir(buf_slice(&mounts), buf_slice(&cgroups), "memory");
        if (v1)
            v1_init(r, buf_slice(&mounts), buf_slice(&cgroups), leaf, why);
        else
            v2_init(r, buf_slice(&mounts), buf_slice(&cgroups), leaf, why);
        mem_free(v1);
    }
    buf_free(&mounts);
    buf_free(&cgroups);
}

void cgroup_root_fini(struct cgroup_root *r)
{
    for (int i = 0; i < CG_COUNT; i++) {
        if (!r->dir[i])
            continue;
        if (r->version == 2) { /* out of the leaf "sup", so that it can be removed; refused when the parent hands on controllers */
            char *parent = mem_strdup(MEM_SUP, r->dir[i]);
            *strrchr(parent, '/') = 0;
            (void)write_file(r->dir[i], "cgroup.subtree_control", "-cpu -memory -pids");
            (void)write_file(parent, "cgroup.procs", "0");
            mem_free(parent);
        }
        remove_tree(r->dir[i]);
        mem_free(r->dir[i]);
        if (r->held[i] >= 0)
            close(r->held[i]);
    }
    *r = (struct cgroup_root){0};
}

/* ---- a replica's groups ---------------------------------------------------------------------------------------------- */

static int set_number(const char *dir, const char *file, uint64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return write_file(dir, file, text);
}

/* cpu.shares of version 1: 1024 is one core's worth (the scale that Kubernetes uses). */
static uint64_t shares_of(uint32_t milli)
{
    uint64_t shares = (uint64_t)milli * 1024 / 1000;
    return shares < 2 ? 2 : shares > 262144 ? 262144 : shares;
}

/* cpu.cfs_quota_us for a period of 100 ms; the kernel's least is 1 ms. */
static uint64_t quota_of(uint32_t milli) { return MAX((uint64_t)milli * 100, 1000); }

static int limit_cpu(int version, const char *dir, const struct cgroup_limits *lim)
{
    int r = 0;
    if (version == 1) {
        if (lim->cpu_milli_max) {
            r = set_number(dir, "cpu.cfs_period_us", 100000);
            r = r < 0 ? r : set_number(dir, "cpu.cfs_quota_us", quota_of(lim->cpu_milli_max));
        }
        return r < 0 || !lim->cpu_milli_share ? r : set_number(dir, "cpu.shares", shares_of(lim->cpu_milli_share));
    }
    if (lim->cpu_milli_max) {
        char text[64];
        snprintf(text, sizeof text, "%llu 100000", (unsigned long long)quota_of(lim->cpu_milli_max));
        r = write_file(dir, "cpu.max", text);
    }
    if (r == 0 && lim->cpu_milli_share) /* shares 2..262144 onto weights 1..10000, as the Kubernetes documentation maps them */
        r = set_number(dir, "cpu.weight", 1 + (shares_of(lim->cpu_milli_share) - 2) * 9999 / 262142);
    return r;
}

static int limit_memory(int version, const char *dir, const struct cgroup_limits *lim)
{
    if (!lim->memory_bytes_max)
        return 0;
    int r = set_number(dir, version == 1 ? "memory.limit_in_bytes" : "memory.max", lim->memory_bytes_max);
    /* Swap would make the limit a slow-down instead of a limit; without swap accounting the files are missing. */
    if (version == 1)
        (void)set_number(dir, "memory.memsw.limit_in_bytes", lim->memory_bytes_max);
    else
        (void)set_number(dir, "memory.swap.max", 0);
    return r;
}

/* The init takes one place. */
static int limit_pids(const char *dir, const struct cgroup_limits *lim)
{
    return set_number(dir, "pids.max", (lim->pids_max ? lim->pids_max : SUP_PIDS_DEFAULT) + 1ull);
}

enum err cgroup_make(const struct cgroup_root *r, const char *replica, const struct cgroup_limits *lim, struct cgroup *out, char text[SUP_TEXT_MAX])
{
    *out = (struct cgroup){0};
    for (int i = 0; i < CG_COUNT; i++) {
        if (!r->dir[i])
            continue;
        out->dir[i] = path_join(r->dir[i], replica);
        int e = mkdir(out->dir[i], 0755) == 0 || errno == EEXIST ? 0 : -errno;
        if (e == 0 && i == CG_CPU)
            e = limit_cpu(r->version, out->dir[i], lim);
        if (e == 0 && i == CG_MEMORY)
            e = limit_memory(r->version, out->dir[i], lim);
        if (e == 0 && i == CG_PIDS)
            e = limit_pids(out->dir[i], lim);
        if (e < 0) {
            snprintf(text, SUP_TEXT_MAX, "cannot set the %s limit in %s: %s", names[i], out->dir[i], strerror(-e));
            cgroup_remove(out);
            return err_from_errno(-e);
        }
    }
    return OK;
}

int cgroup_join(const struct cgroup *g)
{
    for (int i = 0; i < CG_COUNT; i++) {
        int r = g->dir[i] ? write_file(g->dir[i], "cgroup.procs", "0") : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* Version 1 counts in memory.oom_control, version 2 in memory.events; both have a line "oom_kill N". */
bool cgroup_oom_killed(const struct cgroup_root *r, const struct cgroup *g)
{
    if (!g->dir[CG_MEMORY])
        return false;
    struct buf text = {0};
    char *path = path_join(g->dir[CG_MEMORY], r->version == 1 ? "memory.oom_control" : "memory.events");
    bool killed = false;
    if (read_file(path, &text, 65536)) {
        for (struct slice s = buf_slice(&text), rest; s.n; s = rest) {
            struct slice value, line = slice_cut(s, '\n', &rest);
            if (slice_is(slice_cut(line, ' ', &value), "oom_kill"))
                killed = !slice_is(value, "0");
        }
    }
    mem_free(path);
    buf_free(&text);
    return killed;
}

void cgroup_rmdir(const struct cgroup *g)
{
    for (int i = 0; i < CG_COUNT; i++)
        if (g->dir[i])
            (void)rmdir(g->dir[i]);
}

void cgroup_remove(struct cgroup *g)
{
    cgroup_rmdir(g);
    for (int i = 0; i < CG_COUNT; i++) {
        mem_free(g->dir[i]);
        g->dir[i] = NULL;
    }
}
