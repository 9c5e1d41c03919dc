/* sim_disk.c - the simulated disk: whole files in memory, by path.
 *
 * A replaced file is the old or the new, never a mixture; a file that fails to be written keeps its bytes. An open
 * descriptor follows its file through renames and unlinking, as in Unix. sim_disk_fail() makes the next operations fail.
 * Descriptor 2 is the real standard error, so that logs of a test are seen.
 */
#include "sim_int.h"

#include <errno.h>
#include <unistd.h>

#define SIM_MTIME_NS 1767225600000000000ULL /* every file is from 2026-01-01 */

struct sim_disk_file {
    struct buf bytes;
    struct sim_disk_file *next;   /* on sim.files_all */
};

void sim_disk_fail(uint32_t n, int errno_value)
{
    sim.disk_fails = n;
    sim.disk_errno = errno_value;
}

/* 0, or the -errno that the next operation was told to fail with. */
static int disk_fault(uint64_t op)
{
    sim_note(30, op, sim.disk_fails);
    if (sim.disk_fails == 0) return 0;
    sim.disk_fails--;
    return -sim.disk_errno;
}

static struct sim_disk_file *disk_new(const char *path)
{
    struct sim_disk_file *f = mem_new(MEM_SIM, sizeof *f);
    f->next = sim.files_all;
    sim.files_all = f;
    table_put(&sim.files, slice_cstr(path), f);
    return f;
}

static struct sim_disk_file *disk_find(const char *path)
{
    return table_get(&sim.files, slice_cstr(path));
}

const struct buf *sim_file(const char *path)
{
    struct sim_disk_file *f = disk_find(path);
    return f ? &f->bytes : NULL;
}

int sys_file_read(const char *path, struct buf *out, size_t max)
{
    int r = disk_fault(0);
    if (r < 0) return r;
    struct sim_disk_file *f = disk_find(path);
    if (!f) return -ENOENT;
    if (f->bytes.n > max) return -EFBIG;
    buf_clear(out);
    buf_add(out, f->bytes.p, f->bytes.n);
    return 0;
}

int sys_file_replace(const char *path, const void *p, size_t n, int mode)
{
    int r = disk_fault(1);
    if (r < 0) return r;
    buf_add(&disk_new(path)->bytes, p, n);
    return 0;
}

int sys_file_append_open(const char *path, int mode)
{
    int r = disk_fault(2);
    if (r < 0) return r;
    struct sim_disk_file *f = disk_find(path);
    struct sim_obj *o = sim_obj_new(SIM_FILE);
    o->file = f ? f : disk_new(path);
    return o->fd;
}

ssize_t sys_file_write(int fd, const void *p, size_t n)
{
    if (fd < SIM_FD_BASE) {
        ssize_t r = write(fd, p, n);
        return r < 0 ? -errno : r;
    }
    int r = disk_fault(3);
    if (r < 0) return r;
    buf_add(&sim_obj_get(fd, SIM_FILE)->file->bytes, p, n);
    return (ssize_t)n;
}

bool sys_file_ready(int fd) { return true; }

bool sys_file_is(int fd, const char *path) { return true; }

int sys_rename(const char *from, const char *to)
{
    int r = disk_fault(4);
    if (r < 0) return r;
    struct sim_disk_file *f = table_del(&sim.files, slice_cstr(from));
    if (!f) return -ENOENT;
    table_put(&sim.files, slice_cstr(to), f);
    return 0;
}

int sys_unlink(const char *path)
{
    int r = disk_fault(5);
    if (r < 0) return r;
    return table_del(&sim.files, slice_cstr(path)) ? 0 : -ENOENT;
}

int64_t sys_file_size(int fd)
{
    return (int64_t)sim_obj_get(fd, SIM_FILE)->file->bytes.n;
}

int sys_file_open(const char *path, uint64_t *mtime_ns)
{
    int r = disk_fault(6);
    if (r < 0) return r;
    struct sim_disk_file *f = disk_find(path);
    if (!f) return -ENOENT;
    struct sim_obj *o = sim_obj_new(SIM_FILE);
    o->file = f;
    *mtime_ns = SIM_MTIME_NS;
    return o->fd;
}

/* A path that is the beginning of a file's, up to a slash, is a folder. There are no links. */
static bool disk_folder(struct slice path)
{
    for (struct table_slot *t = NULL; (t = table_next(&sim.files, t));) {
        struct slice key = slice_of(t->key, t->key_n);
        if (key.n > path.n && slice_starts(key, path) && (path.p[path.n - 1] == '/' || key.p[path.n] == '/'))
            return true;
    }
    return false;
}

int sys_file_open_in(const char *root, const char *path, struct file_found *out)
{
    int r = disk_fault(8);
    if (r < 0)
        return r;
    struct buf whole = {0};
    buf_adds(&whole, root);
    if (strcmp(path, ".") != 0)
        buf_printf(&whole, "/%s", path);
    struct sim_disk_file *f = disk_find(whole.p);
    if (f) {
        struct sim_obj *o = sim_obj_new(SIM_FILE);
        o->file = f;
        *out = (struct file_found){.fd = o->fd, .bytes = f->bytes.n, .mtime_ns = SIM_MTIME_NS, .inode = hash_slice(buf_slice(&whole))};
    } else if (disk_folder(buf_slice(&whole))) {
        *out = (struct file_found){.fd = -1, .folder = true, .mtime_ns = SIM_MTIME_NS};
    } else {
        r = -ENOENT;
    }
    buf_free(&whole);
    return r;
}

ssize_t sys_file_pread(int fd, void *p, size_t n, uint64_t offset)
{
    int r = disk_fault(7);
    if (r < 0) return r;
    const struct buf *b = &sim_obj_get(fd, SIM_FILE)->file->bytes;
    if (offset >= b->n) return 0;
    n = MIN(n, b->n - offset);
    memcpy(p, b->p + offset, n);
    return (ssize_t)n;
}

void sim_disk_fini(void)
{
    for (struct sim_disk_file *f = sim.files_all, *next; f; f = next) {
        next = f->next;
        buf_free(&f->bytes);
        mem_free(f);
    }
    table_fini(&sim.files);
}
