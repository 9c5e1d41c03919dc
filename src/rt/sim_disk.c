/* sim_disk.c - the simulated disk: files and folders in memory, twice: as the page cache has them, and as the disk has them.
 *
 *     open() -> sim_obj.file -> struct sim_node:  bytes      what reads see and writes change
 *                                                 changes    writes and truncations that no sync has covered, oldest first
 *                                                 disk       the content without them: what power loss leaves for certain
 *     a path -> sim.root -> names -> ... -> node  names      what is found now
 *                                                 names_disk what is found after power loss; sim.name_changes lies between
 *
 * This file is the system calls on the cache, with faults asked for by tests in front of each (sim_disk_enter()); sim_power.c is what
 * syncs carry over to the disk and what crashes leave of it.
 *
 * Folders are what disk_make_dir() made. Before it is called for the first time in a world, file_replace() and logs make the folders of their
 * path, durably: most tests don't care for folders, those of a room that makes its own do. There are no links. Descriptor 2 is the real
 * standard error, so that logs of a test are seen.
 */
#include "sim_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SIM_MTIME_NS 1767225600000000000ULL /* every file is from 2026-01-01 */
#define SIM_DISK_BYTES (1ULL << 40)         /* of a disk without sim_disk_bytes_max() */

/* ---- nodes and paths ---- */

static struct sim_node *node_new(bool folder)
{
    struct sim_node *f = mem_new(MEM_SIM, sizeof *f);
    f->folder = folder;
    f->inode = ++sim.inodes;
    f->next = sim.nodes;
    sim.nodes = f;
    return f;
}

void sim_node_free(struct sim_node *f)
{
    for (uint32_t i = 0; i < f->changes_n; i++)
        mem_free(f->changes[i].bytes);
    mem_free(f->changes);
    buf_free(&f->bytes);
    buf_free(&f->disk);
    table_fini(&f->names);
    table_fini(&f->names_disk);
    mem_free(f);
}

static struct sim_node *disk_root(void)
{
    if (!sim.root)
        sim.root = node_new(true);
    return sim.root;
}

/* The next element of *path that is neither empty nor "."; empty at its end. */
static struct slice path_step(struct slice *path)
{
    struct slice name = {0};
    while (path->n && (name.n == 0 || slice_is(name, ".")))
        name = slice_cut(*path, '/', path);
    return slice_is(name, ".") ? (struct slice){0} : name;
}

/* Where a name is or may be made. */
struct sim_place {
    struct sim_node *folder; /* NULL: there is no such folder */
    struct slice name;       /* of the path that was asked for; empty: the root itself */
    struct sim_node *node;   /* NULL: free */
};

static struct sim_place place_of(const char *path)
{
    struct slice left = slice_cstr(path);
    struct sim_place at = {.folder = disk_root(), .node = disk_root()};
    for (struct slice name; (name = path_step(&left)).n;) {
        at.folder = at.node && at.node->folder ? at.node : NULL;
        at.node = at.folder ? table_get(&at.folder->names, name) : NULL;
        at.name = name;
    }
    return at;
}

static struct sim_node *disk_find(const char *path) { return place_of(path).node; }

static struct sim_node *file_new(struct sim_place at)
{
    struct sim_node *f = node_new(false);
    table_put(&at.folder->names, at.name, f);
    f->linked = true;
    sim_name_changed((struct sim_name_change){.what = SIM_NAME_ADDED, .folder = at.folder, .node = f}, at.name, (struct slice){0});
    return f;
}

/* The folders above a file, in worlds that don't make their own. */
static void parents_make(const char *path)
{
    struct slice left = slice_cstr(path);
    struct sim_node *at = disk_root();
    for (struct slice name = path_step(&left), next; !sim.folders_made && (next = path_step(&left)).n; name = next) {
        struct sim_node *below = table_get(&at->names, name);
        if (!below) {
            below = node_new(true);
            below->linked = true;
            table_put(&at->names, name, below);
            table_put(&at->names_disk, name, below);
        }
        at = below;
        if (!at->folder)
            return;
    }
}

const struct buf *sim_file(const char *path)
{
    struct sim_node *f = disk_find(path);
    return f && !f->folder ? &f->bytes : NULL;
}

/* ---- faults that tests ask for ---- */

void sim_disk_fail(uint32_t n, int errno_value)
{
    sim.disk_fails = n;
    sim.disk_errno = errno_value;
}

void sim_disk_fail_next(enum sim_disk_op op, uint32_t after, int errno_value)
{
    sim.disk_fail_next[op] = (struct sim_disk_fault){.armed = errno_value != 0, .after = after, .errno_value = errno_value};
}

void sim_disk_bytes_max(uint64_t n) { sim.disk_bytes_max = n; }
void sim_disk_cold(uint32_t pct) { sim.disk_cold_pct = pct; }

/* 0, or the -errno that this operation was told to fail with. */
static int disk_enter(enum sim_disk_op op)
{
    if (op == SIM_DISK_CREATE || op == SIM_DISK_WRITE) /* not where a program may hold a lock */
        sim_work_dawdle();
    sim_note(30, op, sim.disk_fails);
    if (op <= SIM_DISK_CHANGES_LAST)
        sim_crash_tick();
    if (sim.disk_off)
        return -EIO;
    struct sim_disk_fault *f = &sim.disk_fail_next[op];
    if (f->armed && f->after-- == 0) {
        f->armed = false;
        return -f->errno_value;
    }
    if (sim.disk_fails == 0)
        return 0;
    sim.disk_fails -= sim.disk_fails == UINT32_MAX ? 0 : 1;
    return -sim.disk_errno;
}

/* ---- descriptors ---- */

static int file_fd(struct sim_node *f)
{
    struct sim_obj *o = sim_obj_new(SIM_FILE);
    o->file = f;
    f->opened++;
    return o->fd;
}

/* NULL: a crash ended the process that had it open. Then disk_enter() refused already; what outlives sim_restart() must not use it. */
static struct sim_node *file_of(int fd)
{
    struct sim_node *f = sim_obj_get(fd, SIM_FILE)->file;
    MUST(f || sim.disk_off);
    return f;
}

void sim_file_closed(struct sim_obj *o)
{
    if (!o->file)
        return;
    o->file->opened--;
    if (o->locks)
        o->file->locked = false;
    o->file = NULL;
}

/* ---- bytes ---- */

static uint64_t node_space(const struct sim_node *f) { return MAX(f->bytes.n, f->reserved); }

static uint64_t disk_used(void)
{
    uint64_t sum = 0;
    for (const struct sim_node *f = sim.nodes; f; f = f->next)
        sum += !f->folder && (f->linked || f->opened) ? node_space(f) : 0;
    return sum;
}

/* How far f may grow, when it wants to reach end. */
static uint64_t disk_room(const struct sim_node *f, uint64_t end)
{
    uint64_t has = node_space(f);
    if (end <= has || sim.disk_bytes_max == 0)
        return end;
    uint64_t used = disk_used();
    return MIN(end, has + (sim.disk_bytes_max > used ? sim.disk_bytes_max - used : 0));
}

static ssize_t node_write(struct sim_node *f, const void *p, size_t n, uint64_t offset)
{
    if (n == 0)
        return 0;
    uint64_t may = disk_room(f, offset + n);
    if (may <= offset)
        return -ENOSPC;
    n = may - offset;
    sim_bytes_put(&f->bytes, offset, p, n);
    sim_changed(f, offset, p, n);
    return (ssize_t)n;
}

int64_t sys_file_size(int fd)
{
    const struct sim_node *f = file_of(fd);
    return f ? (int64_t)f->bytes.n : -EIO;
}

ssize_t sys_file_write(int fd, const void *p, size_t n)
{
    if (fd < SIM_FD_BASE) {
        if (sim.quiet)
            return (ssize_t)n;
        ssize_t r = write(fd, p, n);
        return r < 0 ? -errno : r;
    }
    int r = disk_enter(SIM_DISK_WRITE);
    return r < 0 ? r : node_write(file_of(fd), p, n, file_of(fd)->bytes.n);
}

/* The process is about to end within this write: some of the bytes are in the cache. */
static void write_cut_off(int fd, const struct iovec *iov, uint64_t offset)
{
    struct sim_node *f = sim.crash_ops == 1 ? file_of(fd) : NULL;
    if (f)
        (void)node_write(f, iov->iov_base, sim_between(0, iov->iov_len), offset);
}

ssize_t sys_file_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    write_cut_off(fd, iov, offset);
    int r = disk_enter(SIM_DISK_WRITE);
    if (r < 0)
        return r;
    size_t want = iov_bytes(iov, n), done = 0;
    size_t take = want > 1 && sim_chance(sim.conf.short_write_pct, 100) ? sim_between(1, want - 1) : want;
    for (int i = 0; i < n && done < take; i++) {
        ssize_t w = node_write(file_of(fd), iov[i].iov_base, MIN(iov[i].iov_len, take - done), offset + done);
        if (w < 0)
            return done ? (ssize_t)done : w;
        done += (size_t)w;
        if ((size_t)w < iov[i].iov_len)
            break;
    }
    return (ssize_t)done;
}

ssize_t sys_file_pread(int fd, void *p, size_t n, uint64_t offset)
{
    int r = disk_enter(SIM_DISK_READ);
    if (r < 0)
        return r;
    const struct buf *b = &file_of(fd)->bytes;
    if (offset >= b->n)
        return 0;
    n = MIN(n, b->n - offset);
    memcpy(p, b->p + offset, n);
    return (ssize_t)n;
}

int sys_file_sync(int fd)
{
    int r = disk_enter(SIM_DISK_SYNC);
    if (sim.disk_off)
        return r;
    uint64_t over_ns = sim_disk_busy();
    sim_synced(file_of(fd), r, over_ns);
    sim_wait_until(over_ns);
    return sim.disk_off ? -EIO : r;
}

void sys_file_sync_start(int fd, uint64_t offset, uint64_t n)
{
    struct sim_node *f = file_of(fd);
    for (uint32_t i = 0; f && i < f->changes_n; i++) {
        struct sim_change *c = &f->changes[i];
        c->started |= c->at < offset + n && offset < c->at + c->n;
    }
}

int sys_file_truncate(int fd, uint64_t bytes)
{
    int r = disk_enter(SIM_DISK_TRUNCATE);
    if (r < 0)
        return r;
    struct sim_node *f = file_of(fd);
    sim_bytes_cut(&f->bytes, bytes);
    f->reserved = MIN(f->reserved, bytes);
    sim_changed(f, bytes, NULL, 0);
    return 0;
}

int sys_file_reserve(int fd, uint64_t offset, uint64_t n)
{
    int r = disk_enter(SIM_DISK_RESERVE);
    if (r < 0)
        return r;
    struct sim_node *f = file_of(fd);
    if (disk_room(f, offset + n) < offset + n)
        return -ENOSPC;
    f->reserved = MAX(f->reserved, offset + n);
    return 0;
}

void sys_file_hint(int fd, uint64_t offset, uint64_t n) { (void)file_of(fd); }
bool sys_file_cached(int fd, uint64_t offset, uint64_t n) { return !sim_chance(sim.disk_cold_pct, 100); }

/* ---- opening ---- */

static int node_open(struct sim_place at, bool create)
{
    if (at.node)
        return at.node->folder ? -EISDIR : file_fd(at.node);
    return create && at.folder ? file_fd(file_new(at)) : -ENOENT;
}

int sys_disk_open(const char *path, bool create)
{
    int r = disk_enter(create && !disk_find(path) ? SIM_DISK_CREATE : SIM_DISK_OPEN);
    return r < 0 ? r : node_open(place_of(path), create);
}

int sys_file_append_open(const char *path, int mode)
{
    int r = disk_enter(disk_find(path) ? SIM_DISK_OPEN : SIM_DISK_CREATE);
    if (r < 0)
        return r;
    parents_make(path);
    return node_open(place_of(path), true);
}

int sys_file_open(const char *path, uint64_t *mtime_ns)
{
    int r = disk_enter(SIM_DISK_OPEN);
    if (r < 0)
        return r;
    *mtime_ns = SIM_MTIME_NS;
    r = node_open(place_of(path), false);
    return r == -EISDIR ? -EINVAL : r;
}

int sys_file_open_in(const char *root, const char *path, struct file_found *out)
{
    int r = disk_enter(SIM_DISK_OPEN);
    if (r < 0)
        return r;
    struct buf whole = {0};
    buf_printf(&whole, "%s/%s", root, path);
    struct sim_node *f = disk_find(whole.p);
    buf_free(&whole);
    if (!f)
        return -ENOENT;
    *out = (struct file_found){.fd = f->folder ? -1 : file_fd(f), .folder = f->folder, .mtime_ns = SIM_MTIME_NS, .inode = f->inode,
                               .bytes = f->folder ? 0 : f->bytes.n};
    return 0;
}

int sys_file_lock(const char *path)
{
    int fd = sys_disk_open(path, true);
    if (fd < 0)
        return fd;
    struct sim_obj *o = sim_obj_get(fd, SIM_FILE);
    if (o->file->locked) {
        sys_close(fd);
        return -EWOULDBLOCK;
    }
    o->locks = o->file->locked = true;
    return fd;
}

/* ---- whole files ---- */

int sys_file_read(const char *path, struct buf *out, size_t max)
{
    int r = disk_enter(SIM_DISK_READ);
    if (r < 0)
        return r;
    struct sim_node *f = disk_find(path);
    if (!f || f->folder)
        return f ? -EISDIR : -ENOENT;
    if (f->bytes.n > max)
        return -EFBIG;
    buf_clear(out);
    buf_add(out, f->bytes.p, f->bytes.n);
    return 0;
}

static int replace_fill(const char *tmp, const void *p, size_t n)
{
    int fd = sys_disk_open(tmp, true);
    if (fd < 0)
        return fd;
    int r = disk_enter(SIM_DISK_WRITE);
    if (r == 0 && n) {
        ssize_t w = node_write(file_of(fd), p, n, 0);
        r = w < 0 ? (int)w : (size_t)w < n ? -ENOSPC : 0;
    }
    if (r == 0)
        r = sys_file_sync(fd);
    sys_close(fd);
    return r;
}

/* The same steps as on the kernel, so that a fault or a crash comes between any two. */
int sys_file_replace(const char *path, const void *p, size_t n, int mode)
{
    parents_make(path);
    struct buf tmp = {0}, folder = {0};
    const char *slash = strrchr(path, '/');
    buf_add(&folder, path, slash ? (size_t)(slash - path) : 0);
    buf_printf(&tmp, "%s.%016llx.tmp", path, (unsigned long long)sim_random());
    int r = replace_fill(tmp.p, p, n);
    if (r == 0)
        r = sys_rename(tmp.p, path);
    if (r == 0)
        r = sys_dir_sync(folder.p ? folder.p : "");
    else if (disk_find(tmp.p) && !sim.disk_off)
        (void)sys_unlink(tmp.p);
    buf_free(&tmp);
    buf_free(&folder);
    return r;
}

bool sys_file_ready(int fd) { return true; }
bool sys_file_is(int fd, const char *path) { return true; }

/* ---- names ---- */

static void name_remove(struct sim_place at)
{
    (void)table_del(&at.folder->names, at.name);
    at.node->linked = false;
    sim_name_changed((struct sim_name_change){.what = SIM_NAME_REMOVED, .folder = at.folder, .node = at.node}, at.name, (struct slice){0});
}

int sys_unlink(const char *path)
{
    int r = disk_enter(SIM_DISK_REMOVE);
    if (r < 0)
        return r;
    struct sim_place at = place_of(path);
    if (!at.node || at.node->folder)
        return at.node ? -EISDIR : -ENOENT;
    name_remove(at);
    return 0;
}

/* What is at the place where a name shall go. */
static int rename_over(const struct sim_node *node, const struct sim_node *old)
{
    if (old->folder != node->folder)
        return old->folder ? -EISDIR : -ENOTDIR;
    return old->folder && old->names.n ? -ENOTEMPTY : 0;
}

int sys_rename(const char *from, const char *to)
{
    int r = disk_enter(SIM_DISK_RENAME);
    if (r < 0)
        return r;
    struct sim_place a = place_of(from), b = place_of(to);
    if (!a.node || !b.folder || !a.name.n)
        return -ENOENT;
    if (a.node == b.node)
        return 0;
    r = b.node ? rename_over(a.node, b.node) : 0;
    if (r < 0)
        return r;
    if (b.node)
        b.node->linked = false;
    table_put(&b.folder->names, b.name, a.node);
    (void)table_del(&a.folder->names, a.name);
    sim_name_changed((struct sim_name_change){.what = SIM_NAME_MOVED, .folder = a.folder, .to = b.folder, .node = a.node}, a.name, b.name);
    return 0;
}

int sys_dir_make(const char *path)
{
    int r = disk_enter(SIM_DISK_MAKE_DIR);
    if (r < 0)
        return r;
    sim.folders_made = true;
    struct sim_place at = place_of(path);
    if (at.node)
        return at.node->folder ? 0 : -EEXIST;
    if (!at.folder)
        return -ENOENT;
    struct sim_node *f = node_new(true);
    f->linked = true;
    table_put(&at.folder->names, at.name, f);
    sim_name_changed((struct sim_name_change){.what = SIM_NAME_ADDED, .folder = at.folder, .node = f}, at.name, (struct slice){0});
    return 0;
}

int sys_dir_remove(const char *path)
{
    int r = disk_enter(SIM_DISK_REMOVE);
    if (r < 0)
        return r;
    struct sim_place at = place_of(path);
    if (!at.node || !at.name.n || !at.node->folder)
        return at.node && at.name.n ? -ENOTDIR : -ENOENT;
    if (at.node->names.n)
        return -ENOTEMPTY;
    name_remove(at);
    return 0;
}

int sys_dir_sync(const char *path)
{
    int r = disk_enter(SIM_DISK_SYNC_DIR);
    if (r < 0)
        return r;
    struct sim_node *f = disk_find(path);
    if (!f || !f->folder)
        return f ? -ENOTDIR : -ENOENT;
    uint64_t over_ns = sim_disk_busy();
    sim_names_synced(f, over_ns);
    sim_wait_until(over_ns);
    return sim.disk_off ? -EIO : 0;
}

/* ---- listing ---- */

struct listed {
    char *name;
    bool folder;
    uint64_t bytes;
};

static int listed_order(const void *a, const void *b) { return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name); }

/* A copy, in an order that only the seed decides: a table's order is another in every process. */
static struct listed *listed_of(const struct sim_node *f, uint32_t *n_out)
{
    struct listed *all = NULL;
    uint32_t n = 0, cap = 0;
    for (struct table_slot *t = NULL; (t = table_next(&f->names, t));) {
        const struct sim_node *e = t->value;
        ARRAY_GROW(MEM_SIM, all, n, cap);
        all[n++] = (struct listed){mem_strndup(MEM_SIM, t->key, t->key_n), e->folder, e->folder ? 0 : e->bytes.n};
    }
    if (n)
        qsort(all, n, sizeof *all, listed_order);
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(sim_random() % i);
        struct listed keep = all[i - 1];
        all[i - 1] = all[j];
        all[j] = keep;
    }
    *n_out = n;
    return all;
}

int sys_dir_list(const char *path, void (*each)(void *ctx, const char *name, bool folder, uint64_t bytes), void *ctx)
{
    int r = disk_enter(SIM_DISK_LIST);
    if (r < 0)
        return r;
    struct sim_node *f = disk_find(path);
    if (!f || !f->folder)
        return f ? -ENOTDIR : -ENOENT;
    uint32_t n;
    struct listed *all = listed_of(f, &n);
    for (uint32_t i = 0; i < n; i++) {
        each(ctx, all[i].name, all[i].folder, all[i].bytes);
        mem_free(all[i].name);
    }
    mem_free(all);
    return 0;
}

int sys_disk_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    if (!disk_find(path))
        return sim.disk_off ? -EIO : -ENOENT;
    uint64_t used = disk_used();
    *total_bytes = sim.disk_bytes_max ? sim.disk_bytes_max : SIM_DISK_BYTES;
    *free_bytes = *total_bytes > used ? *total_bytes - used : 0;
    return 0;
}

/* ---- damage ---- */

bool sim_file_flip(const char *path, uint64_t offset)
{
    struct sim_node *f = disk_find(path);
    if (!f || f->folder || offset >= f->bytes.n)
        return false;
    char bit = (char)(1 << sim_between(0, 7));
    f->bytes.p[offset] ^= bit;
    if (offset < f->disk.n)
        f->disk.p[offset] ^= bit;
    return true;
}

bool sim_file_cut(const char *path, uint64_t bytes)
{
    struct sim_node *f = disk_find(path);
    if (!f || f->folder)
        return false;
    sim_bytes_cut(&f->bytes, MIN(bytes, f->bytes.n));
    sim_settle(f);
    return true;
}

void sim_disk_fini(void)
{
    for (struct sim_node *f = sim.nodes, *next; f; f = next) {
        next = f->next;
        sim_node_free(f);
    }
    sim_names_forget();
    mem_free(sim.name_changes);
}
