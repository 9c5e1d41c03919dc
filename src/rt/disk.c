/* disk.c - whole files, read and replaced; files opened for pours, anywhere or below one folder. All block: on a loop they belong to work_submit(), or to its start. */
#include "rt_int.h"

#include <errno.h>

enum err file_read(const char *path, struct buf *out, size_t max)
{
    int r = sys_file_read(path, out, max);
    if (r == -EFBIG) return ERR_LIMIT;
    return r < 0 ? err_from_errno(-r) : OK;
}

enum err file_replace(const char *path, const void *p, size_t n, int mode)
{
    int r = sys_file_replace(path, p, n, mode);
    return r < 0 ? err_from_errno(-r) : OK;
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
