/* os_disk.c - the seam of sys.h on Linux, second part: files written at offsets, and folders. No policy here.
 *
 * Everything is buffered by the kernel's page cache; what makes bytes durable is sys_file_sync(), and names sys_dir_sync().
 */
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESULT(call) ((call) < 0 ? -errno : 0)

bool sys_work_run(struct work *w)
{
    MUST(!sys_threads()); /* which do it */
    return true;
}

/* ---- files ---- */

/* Not to wait for the other end of a FIFO that somebody put there: O_NONBLOCK, which means nothing for regular files. */
int sys_disk_open(const char *path, bool create)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        return -errno;
    struct stat st;
    int r = RESULT(fstat(fd, &st));
    if (r == 0 && !S_ISREG(st.st_mode))
        r = -EINVAL;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

ssize_t sys_file_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    ssize_t r;
    do
        r = n == 1 ? pwrite(fd, iov->iov_base, iov->iov_len, (off_t)offset) : pwritev(fd, iov, n, (off_t)offset);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

int sys_file_sync(int fd) { return RESULT(fdatasync(fd)); }

void sys_file_sync_start(int fd, uint64_t offset, uint64_t n)
{
    (void)sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE); /* a hint: what fails here fails in the sync */
}

int sys_file_truncate(int fd, uint64_t bytes)
{
    int r;
    do
        r = ftruncate(fd, (off_t)bytes);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int sys_file_reserve(int fd, uint64_t offset, uint64_t n)
{
    int r;
    do
        r = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int sys_file_lock(const char *path)
{
    int fd = sys_disk_open(path, true);
    if (fd < 0)
        return fd;
    int r = RESULT(flock(fd, LOCK_EX | LOCK_NB));
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

void sys_file_hint(int fd, uint64_t offset, uint64_t n)
{
    (void)posix_fadvise(fd, (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED);
}

/* EAGAIN is the kernel's "not without waiting" (RWF_NOWAIT, Linux 4.14); any other answer is left to the read itself. */
static bool byte_cached(int fd, uint64_t at)
{
    char c;
    struct iovec one = {&c, 1};
    return preadv2(fd, &one, 1, (off_t)at, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

bool sys_file_cached(int fd, uint64_t offset, uint64_t n)
{
    return byte_cached(fd, offset + n - 1) && byte_cached(fd, offset);
}

/* ---- folders ---- */

int sys_dir_make(const char *path)
{
    if (mkdir(path, 0700) == 0)
        return 0;
    struct stat st;
    int r = -errno;
    return r == -EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : r;
}

int sys_dir_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = RESULT(fsync(fd));
    close(fd);
    return r;
}

int sys_dir_remove(const char *path) { return RESULT(rmdir(path)); }

int sys_dir_list(const char *path, void (*each)(void *ctx, const char *name, bool folder, uint64_t bytes), void *ctx)
{
    DIR *d = opendir(path);
    if (!d)
        return -errno;
    int r = 0;
    for (;;) {
        errno = 0;
        const struct dirent *de = readdir(d);
        if (!de) {
            r = -errno;
            break;
        }
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 || fstatat(dirfd(d), de->d_name, &st, 0) < 0)
            continue; /* it may be gone already */
        each(ctx, de->d_name, S_ISDIR(st.st_mode), S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
    }
    closedir(d);
    return r;
}

int sys_disk_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct statvfs fs;
    if (statvfs(path, &fs) < 0)
        return -errno;
    *free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    return 0;
}
