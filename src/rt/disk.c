/* disk.c - whole files, read and replaced; files opened for pours, anywhere or below one folder; files written at offsets, and folders.
 *
 * All block: on a loop they belong to work_submit(), or to its start, but for what a log does in passing: writes into the page cache and reads
 * out of it.
 */
#include "rt_int.h"

#include <errno.h>

static enum err disk_result(int r) { return r < 0 ? err_from_errno(-r) : OK; }

/* ---- whole files ---- */

enum err file_read(const char *path, struct buf *out, size_t max)
{
    int r = sys_file_read(path, out, max);
    if (r == -EFBIG) return ERR_LIMIT;
    return disk_result(r);
}

enum err file_replace(const char *path, const void *p, size_t n, int mode)
{
    return disk_result(sys_file_replace(path, p, n, mode));
}

enum err file_open(const char *path, int *fd, uint64_t *bytes, uint64_t *mtime_ns)
{
    int r = sys_file_open(path, mtime_ns);
    if (r < 0) return r == -EINVAL ? ERR_INVALID : err_from_errno(-r);
    int64_t size = sys_file_size(r);
    if (size < 0) {
        sys_close(r);
        return err_from_errno((int)-size);
    }
    *fd = r;
    *bytes = (uint64_t)size;
    return OK;
}

enum err file_open_in(const char *root, const char *path, struct file_found *out)
{
    int r = sys_file_open_in(root, path, out);
    switch (-r) {
    case 0: return OK;
    case ENOTDIR: case ELOOP: case EXDEV: case ENAMETOOLONG: return ERR_NOTFOUND;
    default: return err_from_errno(-r);
    }
}

void file_close(int fd) { sys_close(fd); }

enum err file_read_at(int fd, uint64_t offset, void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t r = sys_file_pread(fd, (char *)p + at, n - at, offset + at);
        if (r < 0) return err_from_errno((int)-r);
        if (r == 0) return ERR_IO;
        at += (size_t)r;
    }
    return OK;
}

/* ---- files written at offsets ---- */

enum err disk_open(const char *path, bool create, int *fd, uint64_t *bytes)
{
    int r = sys_disk_open(path, create);
    if (r < 0)
        return err_from_errno(-r);
    int64_t size = sys_file_size(r);
    if (size < 0) {
        sys_close(r);
        return err_from_errno((int)-size);
    }
    *fd = r;
    *bytes = (uint64_t)size;
    return OK;
}

/* What a short write left of one piece goes by itself, so that iov need not be copied to be changed. */
enum err disk_write_at(int fd, uint64_t offset, const struct iovec *iov, int n, uint64_t *written)
{
    uint64_t done = 0;
    size_t skip = 0; /* of iov[0]: written already */
    *written = 0;
    while (n > 0) {
        struct iovec rest = {(char *)iov->iov_base + skip, iov->iov_len - skip};
        ssize_t r = skip ? sys_file_pwritev(fd, &rest, 1, offset + done) : sys_file_pwritev(fd, iov, MIN(n, IOV_PER_CALL), offset + done);
        if (r < 0)
            return err_from_errno((int)-r);
        bool stuck = r == 0;
        done += (uint64_t)r;
        *written = done;
        skip += (size_t)r;
        while (n > 0 && skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            n--;
            stuck = false; /* empty pieces are no bytes, and progress */
        }
        if (stuck)
            return ERR_IO;
    }
    return OK;
}

enum err disk_sync(int fd) { return disk_result(sys_file_sync(fd)); }
void disk_sync_start(int fd, uint64_t offset, uint64_t n) { sys_file_sync_start(fd, offset, n); }
enum err disk_truncate(int fd, uint64_t bytes) { return disk_result(sys_file_truncate(fd, bytes)); }
enum err disk_reserve(int fd, uint64_t offset, uint64_t n) { return disk_result(sys_file_reserve(fd, offset, n)); }
void disk_hint_read(int fd, uint64_t offset, uint64_t n) { sys_file_hint(fd, offset, n); }
bool disk_in_memory(int fd, uint64_t offset, uint64_t n) { return n == 0 || sys_file_cached(fd, offset, n); }

enum err disk_lock(const char *path, int *fd)
{
    int r = sys_file_lock(path);
    if (r < 0)
        return r == -EWOULDBLOCK ? ERR_INUSE : err_from_errno(-r);
    *fd = r;
    return OK;
}

/* ---- folders and names ---- */

enum err disk_make_dir(const char *path) { return disk_result(sys_dir_make(path)); }
enum err disk_sync_dir(const char *path) { return disk_result(sys_dir_sync(path)); }
enum err disk_remove(const char *path) { return disk_result(sys_unlink(path)); }
enum err disk_remove_dir(const char *path) { return disk_result(sys_dir_remove(path)); }
enum err disk_rename(const char *from, const char *to) { return disk_result(sys_rename(from, to)); }

enum err disk_list(const char *path, void (*each)(void *ctx, const char *name, bool folder, uint64_t bytes), void *ctx)
{
    return disk_result(sys_dir_list(path, each, ctx));
}

enum err disk_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    return disk_result(sys_disk_space(path, free_bytes, total_bytes));
}
