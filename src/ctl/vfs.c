/* vfs.c - SQLite's files through rt: the same engine on the kernel's disk and on the simulated one.
 *
 * One process and one connection have the file (disk_lock(), locking_mode=EXCLUSIVE), so SQLite's own locks are none here, and the index of its WAL is in its
 * memory (no xShm methods). Writes that follow each other, as the frames of a WAL do, are gathered and written together: what is not written yet is
 * written before anything else happens to the file, at the latest by the sync. A failed operation is noted with its file: SQLite's error codes don't say it.
 *
 * File names are made durable by the first sync after the file was opened.
 *
 * A WAL that grows with each commit has a new size and new blocks to be made durable with each: a sync of it costs twice that of one whose bytes lie where there were bytes before. So
 * zeroes are written ahead of it when it grows (AHEAD_BYTES), and go to disk with the same sync. SQLite, which is not told of them, takes them for the end of the log, as it takes
 * frames of an older round. Space taken by fallocate() would do nothing: what is written there for the first time is news, too.
 */
#include "ctl_int.h"

#include <sqlite3.h>
#include <stdio.h>

#define GATHER_BYTES (64u << 10)
#define AHEAD_BYTES (256u << 10) /* some thirty small commits */
#define SECTOR_BYTES 4096 /* what a write may damage beside itself: nothing (SQLITE_IOCAP_POWERSAFE_OVERWRITE), but pages are this big */

struct vfs_file {
    sqlite3_file base;
    struct disk *disk;
    char *path;
    int fd;
    bool named;                  /* its folder was synced since it was opened */
    bool ahead;                  /* a WAL: zeroes are written ahead of it */
    uint64_t bytes;              /* its size, with what is gathered, without the zeroes */
    uint64_t room;               /* its size on disk, with the zeroes */
    char *gathered;              /* GATHER_BYTES, made with the first write */
    uint64_t gathered_at;        /* where in the file it belongs */
    size_t gathered_n;
};

static int disk_failed(struct disk *d, enum err e, const char *verb, const char *path, int code)
{
    d->err = e;
    d->verb = verb;
    snprintf(d->file, sizeof d->file, "%s", path);
    return e == ERR_NOSPACE ? SQLITE_FULL : e == ERR_NOMEM ? SQLITE_IOERR_NOMEM : code;
}

static enum err folder_sync(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return disk_sync_dir(".");
    char *folder = mem_strndup(MEM_CTL, path, MAX((size_t)(slash - path), 1));
    enum err e = disk_sync_dir(folder);
    mem_free(folder);
    return e;
}

/* ---- files ---- */

/* Without them it is only slower: what is left of a full disk is for others. */
static void zeroes_write(struct vfs_file *f, uint64_t at)
{
    static char zeroes[4096];
    struct iovec iov[AHEAD_BYTES / sizeof zeroes];
    uint64_t written;
    for (size_t i = 0; i < COUNT_OF(iov); i++) iov[i] = (struct iovec){zeroes, sizeof zeroes};
    if (disk_write_at(f->fd, at, iov, COUNT_OF(iov), &written) == OK) f->room = at + AHEAD_BYTES;
    else f->room = disk_truncate(f->fd, at) == OK ? at : at + written;
}

static int file_flush(struct vfs_file *f)
{
    if (f->gathered_n == 0) return SQLITE_OK;
    struct iovec iov = {f->gathered, f->gathered_n};
    uint64_t written;
    uint64_t end = f->gathered_at + f->gathered_n;
    enum err e = disk_write_at(f->fd, f->gathered_at, &iov, 1, &written);
    f->gathered_n = 0; /* of no use any more when it failed: the transaction is rolled back */
    if (e == OK && f->ahead && end > f->room) zeroes_write(f, end);
    if (e == OK) return SQLITE_OK;
    return disk_failed(f->disk, e, "write", f->path, SQLITE_IOERR_WRITE);
}

static int file_shut(sqlite3_file *base)
{
    struct vfs_file *f = (struct vfs_file *)base;
    int rc = file_flush(f);
    file_close(f->fd);
    mem_free(f->gathered);
    mem_free(f->path);
    return rc;
}

static int file_get(sqlite3_file *base, void *p, int n, sqlite3_int64 at)
{
    struct vfs_file *f = (struct vfs_file *)base;
    int rc = file_flush(f);
    if (rc != SQLITE_OK) return rc;
    uint64_t there = (uint64_t)at < f->bytes ? MIN(f->bytes - (uint64_t)at, (uint64_t)n) : 0;
    enum err e = there ? file_read_at(f->fd, (uint64_t)at, p, there) : OK;
    if (e != OK) return disk_failed(f->disk, e, "read", f->path, SQLITE_IOERR_READ);
    if (there == (uint64_t)n) return SQLITE_OK;
    memset((char *)p + there, 0, (size_t)n - there);
    return SQLITE_IOERR_SHORT_READ;
}

static int file_put(sqlite3_file *base, const void *p, int n, sqlite3_int64 at)
{
    struct vfs_file *f = (struct vfs_file *)base;
    bool follows = f->gathered_n && f->gathered_at + f->gathered_n == (uint64_t)at;
    if (!follows || f->gathered_n + (size_t)n > GATHER_BYTES) {
        int rc = file_flush(f);
        if (rc != SQLITE_OK) return rc;
        f->gathered_at = (uint64_t)at;
    }
    MUST((unsigned)n <= GATHER_BYTES);
    if (!f->gathered) f->gathered = mem_new(MEM_CTL, GATHER_BYTES);
    memcpy(f->gathered + f->gathered_n, p, (size_t)n);
    f->gathered_n += (size_t)n;
    f->bytes = MAX(f->bytes, (uint64_t)at + (uint64_t)n);
    return SQLITE_OK;
}

static int file_cut(sqlite3_file *base, sqlite3_int64 bytes)
{
    struct vfs_file *f = (struct vfs_file *)base;
    int rc = file_flush(f);
    if (rc != SQLITE_OK) return rc;
    enum err e = disk_truncate(f->fd, (uint64_t)bytes);
    if (e != OK) return disk_failed(f->disk, e, "truncate", f->path, SQLITE_IOERR_TRUNCATE);
    f->bytes = f->room = (uint64_t)bytes;
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct vfs_file *f = (struct vfs_file *)base;
    int rc = file_flush(f);
    if (rc != SQLITE_OK) return rc;
    enum err e = disk_sync(f->fd);
    if (e == OK && !f->named) e = folder_sync(f->path);
    if (e != OK) {
        f->disk->sync_failed = true;
        (void)disk_failed(f->disk, e, "sync", f->path, 0);
        return SQLITE_IOERR_FSYNC;
    }
    f->named = true;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *bytes)
{
    *bytes = (sqlite3_int64)((struct vfs_file *)base)->bytes;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *base, int level) { return SQLITE_OK; }
static int file_reserved(sqlite3_file *base, int *out) { *out = 0; return SQLITE_OK; }
static int file_control(sqlite3_file *base, int op, void *arg) { return SQLITE_NOTFOUND; }
static int file_sector(sqlite3_file *base) { return SECTOR_BYTES; }
static int file_traits(sqlite3_file *base) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

static const sqlite3_io_methods file_methods = {
    .iVersion = 1, .xClose = file_shut, .xRead = file_get, .xWrite = file_put, .xTruncate = file_cut, .xSync = file_sync, .xFileSize = file_size,
    .xLock = file_lock, .xUnlock = file_lock, .xCheckReservedLock = file_reserved, .xFileControl = file_control, .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

/* ---- the file system ---- */

static int fs_open(sqlite3_vfs *v, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    struct vfs_file *f = (struct vfs_file *)base;
    struct disk *d = v->pAppData;
    memset(f, 0, sizeof *f);
    if (!name) return SQLITE_CANTOPEN; /* a temporary file: temp_store keeps them in memory */
    enum err e = disk_open(name, flags & SQLITE_OPEN_CREATE, &f->fd, &f->bytes);
    if (e != OK) return disk_failed(d, e, "open", name, SQLITE_CANTOPEN);
    f->disk = d;
    f->ahead = flags & SQLITE_OPEN_WAL;
    f->room = f->bytes;
    f->path = mem_strdup(MEM_CTL, name);
    f->base.pMethods = &file_methods;
    if (out_flags) *out_flags = flags;
    return SQLITE_OK;
}

static int fs_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
    enum err e = disk_remove(name);
    if (e == ERR_NOTFOUND) return SQLITE_IOERR_DELETE_NOENT;
    if (e != OK) return disk_failed(v->pAppData, e, "remove", name, SQLITE_IOERR_DELETE);
    if (sync_dir && (e = folder_sync(name)) != OK) {
        ((struct disk *)v->pAppData)->sync_failed = true;
        (void)disk_failed(v->pAppData, e, "sync the folder of", name, 0);
        return SQLITE_IOERR_DIR_FSYNC;
    }
    return SQLITE_OK;
}

/* An empty file is as good as none: so SQLite's own file system has it. */
static int fs_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    int fd;
    uint64_t bytes = 0;
    enum err e = disk_open(name, false, &fd, &bytes);
    *out = e == OK && (bytes > 0 || flags != SQLITE_ACCESS_EXISTS);
    if (e == OK) file_close(fd);
    if (e != OK && e != ERR_NOTFOUND) return disk_failed(v->pAppData, e, "open", name, SQLITE_IOERR_ACCESS);
    return SQLITE_OK;
}

static int fs_full_name(sqlite3_vfs *v, const char *name, int n, char *out)
{
    return snprintf(out, (size_t)n, "%s", name) < n ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int fs_random(sqlite3_vfs *v, int n, char *out)
{
    random_bytes(out, (size_t)n);
    return n;
}

static int fs_sleep(sqlite3_vfs *v, int us) { return 0; }

static int fs_time(sqlite3_vfs *v, double *days)
{
    *days = (double)wall_ns() / 86400e9 + 2440587.5; /* of the Julian calendar */
    return SQLITE_OK;
}

static int fs_last_error(sqlite3_vfs *v, int n, char *out) { return 0; }

sqlite3_vfs *vfs_new(struct disk *d, const char *name)
{
    sqlite3_vfs *v = mem_new(MEM_CTL, sizeof *v);
    *v = (sqlite3_vfs){.iVersion = 1, .szOsFile = sizeof(struct vfs_file), .mxPathname = 4096, .zName = name, .pAppData = d, .xOpen = fs_open,
                       .xDelete = fs_delete, .xAccess = fs_access, .xFullPathname = fs_full_name, .xRandomness = fs_random, .xSleep = fs_sleep,
                       .xCurrentTime = fs_time, .xGetLastError = fs_last_error};
    MUST(sqlite3_vfs_register(v, 0) == SQLITE_OK);
    return v;
}

void vfs_free(sqlite3_vfs *v)
{
    (void)sqlite3_vfs_unregister(v);
    mem_free(v);
}
