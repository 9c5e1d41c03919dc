/* disk.c - whole files, read and replaced. Both block: on a loop they belong to work_submit(), or to its start. */
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
