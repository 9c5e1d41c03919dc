/* disk_scenarios.c - files written at offsets, and folders, as every back end must show them. What crashes leave: rt_power_test.c. */
#include "rt_scenarios.h"

#include <stdio.h>

#define PIECES 2500 /* more than one system call takes */

static struct iovec piece_of(const char *text) { return (struct iovec){(void *)(uintptr_t)text, strlen(text)}; }

static void write_text(int fd, uint64_t offset, const char *text)
{
    struct iovec piece = piece_of(text);
    uint64_t written;
    assert_int_equal(disk_write_at(fd, offset, &piece, 1, &written), OK);
    assert_int_equal(written, strlen(text));
}

static void check_text(int fd, uint64_t offset, const char *text, size_t n)
{
    char got[64];
    assert_true(n <= sizeof got);
    assert_int_equal(file_read_at(fd, offset, got, n), OK);
    assert_memory_equal(got, text, n);
}

static uint64_t size_of(const char *path)
{
    int fd;
    uint64_t bytes;
    assert_int_equal(disk_open(path, false, &fd, &bytes), OK);
    file_close(fd);
    return bytes;
}

static void test_open(void **state)
{
    world_start();
    char path[256], below[300];
    int fd = -7;
    uint64_t bytes = 77;
    world_path("file", path);
    assert_int_equal(disk_open(path, false, &fd, &bytes), ERR_NOTFOUND);
    assert_true(fd == -7 && bytes == 77); /* untouched */
    assert_int_equal(disk_open(path, true, &fd, &bytes), OK);
    assert_int_equal(bytes, 0);
    write_text(fd, 0, "hello");
    file_close(fd);
    assert_int_equal(disk_open(path, true, &fd, &bytes), OK);
    assert_int_equal(bytes, 5);
    check_text(fd, 0, "hello", 5);
    file_close(fd);
    (void)snprintf(below, sizeof below, "%s/below", path);
    assert_int_not_equal(disk_open(below, true, &fd, &bytes), OK);
    (void)snprintf(below, sizeof below, "%s.none/below", path);
    assert_int_equal(disk_make_dir(world_path("folder", path)), OK);
    assert_int_equal(disk_open(below, true, &fd, &bytes), ERR_NOTFOUND);
    assert_int_equal(disk_open(path, false, &fd, &bytes), ERR_INVALID);
    assert_int_equal(disk_remove_dir(path), OK);
    assert_int_equal(disk_remove(world_path("file", path)), OK);
    world_stop();
}

static void test_write(void **state)
{
    world_start();
    char path[256], back[8];
    int fd;
    uint64_t bytes, written;
    assert_int_equal(disk_open(world_path("file", path), true, &fd, &bytes), OK);
    struct iovec three[] = {piece_of("one"), piece_of(""), piece_of("two"), piece_of("")};
    assert_int_equal(disk_write_at(fd, 4, three, 4, &written), OK);
    assert_int_equal(written, 6);
    check_text(fd, 0, "\0\0\0\0onetwo", 10);
    assert_int_equal(disk_write_at(fd, 0, three, 0, &written), OK);
    assert_int_equal(written, 0);
    write_text(fd, 7, "T");
    check_text(fd, 4, "oneTwo", 6);
    assert_int_equal(file_read_at(fd, 8, back, 3), ERR_IO); /* the file is shorter */
    assert_int_equal(disk_sync(fd), OK);
    disk_sync_start(fd, 0, 10);
    disk_hint_read(fd, 0, 10);
    assert_true(disk_in_memory(fd, 0, 10));
    assert_true(disk_in_memory(fd, 10, 0));
    file_close(fd);
    assert_int_equal(disk_remove(path), OK);
    world_stop();
}

/* Many pieces: several system calls, and in the simulator short ones. */
static void test_write_pieces(void **state)
{
    world_start();
    char path[256], bytes[PIECES * 3], got[PIECES * 3];
    static struct iovec iov[PIECES];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = pattern(i);
    size_t at = 0;
    for (size_t i = 0; i < PIECES; i++) {
        iov[i] = (struct iovec){bytes + at, i % 4};
        at += i % 4;
    }
    int fd;
    uint64_t size, written;
    assert_int_equal(disk_open(world_path("file", path), true, &fd, &size), OK);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(disk_write_at(fd, at * (uint64_t)round, iov, PIECES, &written), OK);
        assert_int_equal(written, at);
        assert_int_equal(file_read_at(fd, at * (uint64_t)round, got, at), OK);
        assert_memory_equal(got, bytes, at);
    }
    file_close(fd);
    assert_int_equal(size_of(path), at * 5);
    assert_int_equal(disk_remove(path), OK);
    world_stop();
}

static void test_truncate(void **state)
{
    world_start();
    char path[256];
    int fd;
    uint64_t size;
    assert_int_equal(disk_open(world_path("file", path), true, &fd, &size), OK);
    write_text(fd, 0, "0123456789");
    assert_int_equal(disk_truncate(fd, 4), OK);
    assert_int_equal(size_of(path), 4);
    assert_int_equal(disk_truncate(fd, 8), OK);
    check_text(fd, 0, "0123\0\0\0\0", 8);
    enum err e = disk_reserve(fd, 8, 100000);
    assert_true(e == OK || e == ERR_UNSUPPORTED);
    assert_int_equal(size_of(path), 8);
    write_text(fd, 8, "89");
    assert_int_equal(disk_truncate(fd, 0), OK);
    assert_int_equal(disk_sync(fd), OK);
    assert_int_equal(size_of(path), 0);
    file_close(fd);
    assert_int_equal(disk_remove(path), OK);
    assert_int_equal(disk_remove(path), ERR_NOTFOUND);
    world_stop();
}

/* ---- folders ---- */

struct seen {
    int files, folders;
    uint64_t bytes;
    bool b, deep;
    const char *remove; /* a path that is removed from within the listing */
};

static void seen_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    struct seen *s = ctx;
    s->files += !folder;
    s->folders += folder;
    s->bytes += bytes;
    s->b |= strcmp(name, "b") == 0 && !folder;
    s->deep |= strcmp(name, "deep") == 0 && folder;
    assert_true(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    if (s->remove)
        assert_int_equal(disk_remove(s->remove), OK);
    s->remove = NULL;
}

static void make_file(const char *path, const char *text)
{
    int fd;
    uint64_t size;
    assert_int_equal(disk_open(path, true, &fd, &size), OK);
    write_text(fd, 0, text);
    file_close(fd);
}

static void test_folders(void **state)
{
    world_start();
    char top[256], a[300], b[300], deep[300], moved[300];
    world_path("folder", top);
    (void)snprintf(a, sizeof a, "%s/a", top);
    (void)snprintf(b, sizeof b, "%s/b", top);
    (void)snprintf(deep, sizeof deep, "%s/deep", top);
    assert_int_equal(disk_make_dir(deep), ERR_NOTFOUND);
    assert_int_equal(disk_sync_dir(top), ERR_NOTFOUND);
    assert_int_equal(disk_make_dir(top), OK);
    assert_int_equal(disk_make_dir(top), OK);
    assert_int_equal(disk_make_dir(deep), OK);
    make_file(a, "aaaa");
    make_file(b, "bb");
    assert_int_equal(disk_make_dir(a), ERR_EXISTS);
    assert_int_equal(disk_sync_dir(top), OK);
    struct seen s = {0};
    assert_int_equal(disk_list(top, seen_each, &s), OK);
    assert_true(s.files == 2 && s.folders == 1 && s.bytes == 6 && s.b && s.deep);
    assert_int_equal(disk_list(a, seen_each, &s), ERR_INVALID);
    assert_int_equal(disk_rename(a, b), OK);
    assert_int_equal(size_of(b), 4);
    assert_int_equal(disk_rename(a, b), ERR_NOTFOUND);
    (void)snprintf(a, sizeof a, "%s/deep/inside", top);
    make_file(a, "x");
    (void)snprintf(moved, sizeof moved, "%s/moved", top);
    assert_int_equal(disk_remove_dir(deep), ERR_EXISTS);
    assert_int_equal(disk_rename(deep, moved), OK);
    (void)snprintf(a, sizeof a, "%s/moved/inside", top);
    assert_int_equal(size_of(a), 1);
    s = (struct seen){.remove = a};
    assert_int_equal(disk_list(top, seen_each, &s), OK);
    assert_true(s.files == 1 && s.folders == 1 && !s.deep);
    assert_int_equal(disk_remove_dir(moved), OK);
    assert_int_equal(disk_remove(b), OK);
    assert_int_equal(disk_remove_dir(top), OK);
    assert_int_equal(disk_remove_dir(top), ERR_NOTFOUND);
    world_stop();
}

/* A file without a name stays until it is closed. */
static void test_removed_open(void **state)
{
    world_start();
    char path[256];
    int fd;
    uint64_t size;
    assert_int_equal(disk_open(world_path("file", path), true, &fd, &size), OK);
    write_text(fd, 0, "still");
    assert_int_equal(disk_remove(path), OK);
    check_text(fd, 0, "still", 5);
    write_text(fd, 5, "here");
    check_text(fd, 0, "stillhere", 9);
    file_close(fd);
    world_stop();
}

static void test_lock(void **state)
{
    world_start();
    char path[256];
    int fd, twice = -7;
    assert_int_equal(disk_lock(world_path("lock", path), &fd), OK);
    assert_int_equal(disk_lock(path, &twice), ERR_INUSE);
    assert_int_equal(twice, -7);
    file_close(fd);
    assert_int_equal(disk_lock(path, &fd), OK);
    file_close(fd);
    assert_int_equal(disk_remove(path), OK);
    world_stop();
}

static void test_space(void **state)
{
    world_start();
    char path[256];
    uint64_t free_bytes = 0, total_bytes = 0;
    assert_int_equal(disk_space(world_path("", path), &free_bytes, &total_bytes), OK);
    assert_true(free_bytes > 0 && free_bytes <= total_bytes);
    assert_int_equal(disk_space(world_path("nowhere", path), &free_bytes, &total_bytes), ERR_NOTFOUND);
    world_stop();
}

/* ---- syncs in works ---- */

struct sync_job {
    struct work w;
    int fd;
    enum err e;
    bool done;
};
static void sync_run(struct work *w) { ((struct sync_job *)w)->e = disk_sync(((struct sync_job *)w)->fd); }
static void sync_done(struct work *w) { ((struct sync_job *)w)->done = true; }
static bool sync_is_done(void *ctx) { return ((struct sync_job *)ctx)->done; }

static void test_sync_in_work(void **state)
{
    world_start();
    char path[256];
    struct sync_job job = {.w = {.run = sync_run, .done = sync_done}, .e = ERR_INTERNAL};
    struct loop *l = loop_new("test");
    uint64_t size;
    assert_int_equal(disk_open(world_path("file", path), true, &job.fd, &size), OK);
    write_text(job.fd, 0, "bytes");
    work_submit(l, &job.w);
    assert_true(world_run(l, sync_is_done, &job, 5000));
    assert_int_equal(job.e, OK);
    file_close(job.fd);
    assert_int_equal(disk_remove(path), OK);
    loop_free(l);
    world_stop();
}

const struct CMUnitTest disk_tests[] = {
    cmocka_unit_test(test_open),    cmocka_unit_test(test_write),        cmocka_unit_test(test_write_pieces),
    cmocka_unit_test(test_truncate), cmocka_unit_test(test_folders),     cmocka_unit_test(test_removed_open),
    cmocka_unit_test(test_lock),    cmocka_unit_test(test_space),        cmocka_unit_test(test_sync_in_work),
};
const size_t disk_tests_n = COUNT_OF(disk_tests);
