/* rt_power_test.c - the simulated disk: what power loss and the end of a process leave, faults, full and slow disks.
 *
 * The model is checked from both sides: what rt.h promises holds for every seed, and what it does not promise does happen for some.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rt_int.h"
#include "sim.h"

#include <errno.h>

static void start(uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};
    sim_start(&conf);
}

static void stop(void)
{
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_SIM), 0);
}

static int open_file(const char *path)
{
    int fd;
    uint64_t bytes;
    assert_int_equal(disk_open(path, true, &fd, &bytes), OK);
    return fd;
}

/* n times the byte c. */
static enum err fill(int fd, uint64_t offset, size_t n, char c, uint64_t *written)
{
    static char bytes[65536];
    MUST(n <= sizeof bytes);
    memset(bytes, c, n);
    struct iovec iov = {bytes, n};
    return disk_write_at(fd, offset, &iov, 1, written);
}

static void put(int fd, uint64_t offset, size_t n, char c)
{
    uint64_t written;
    assert_int_equal(fill(fd, offset, n, c, &written), OK);
}

static bool all_are(const char *p, size_t n, char c)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != c)
            return false;
    return true;
}

/* ---- bytes ---- */

/* What was synced is there, whatever happens; of what was not, all sorts of things happen. */
static void test_unsynced(void **state)
{
    uint32_t none = 0, whole = 0, grown_empty = 0, torn = 0, reordered = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        start(seed);
        int fd = open_file("/f");
        assert_int_equal(disk_sync_dir("/"), OK);
        put(fd, 0, 5000, 'a');
        assert_int_equal(disk_sync(fd), OK);
        put(fd, 5000, 5000, 'b');
        put(fd, 10000, 5000, 'c');
        sim_power_loss();
        sim_restart();
        const struct buf *b = sim_file("/f");
        assert_non_null(b);
        assert_true(b->n >= 5000 && b->n <= 15000 && all_are(b->p, 5000, 'a'));
        bool has_b = false, lacks_b = false, has_c = false;
        for (size_t i = 5000; i < b->n; i++) {
            char may = i < 10000 ? 'b' : 'c';
            assert_true(b->p[i] == may || b->p[i] == 0);
            has_b |= b->p[i] == 'b';
            has_c |= b->p[i] == 'c';
            lacks_b |= i < 10000 && b->p[i] == 0;
        }
        none += b->n == 5000;
        whole += b->n == 15000 && !lacks_b && all_are(b->p + 10000, 5000, 'c');
        grown_empty += b->n > 5000 && !has_b && !has_c;
        torn += has_b && lacks_b;
        reordered += has_c && lacks_b;
        stop();
    }
    assert_true(none >= 10 && whole >= 10 && grown_empty >= 3 && torn >= 10 && reordered >= 10);
}

/* Writes that share a sector, one after another: the sector is as after one of them. */
static void test_versions(void **state)
{
    uint32_t seen[4] = {0};
    for (uint64_t seed = 1; seed <= 200; seed++) {
        start(seed);
        int fd = open_file("/f");
        put(fd, 0, 512, '0');
        assert_int_equal(disk_sync(fd), OK);
        assert_int_equal(disk_sync_dir("/"), OK);
        put(fd, 100, 100, '1');
        put(fd, 150, 100, '2');
        put(fd, 120, 300, '3');
        sim_power_loss();
        sim_restart();
        const char *p = sim_file("/f")->p;
        char top = p[160];
        assert_true(top >= '0' && top <= '3' && all_are(p, 100, '0') && all_are(p + 420, 92, '0'));
        assert_int_equal(p[110], top == '0' ? '0' : '1');
        assert_int_equal(p[400], top == '3' ? '3' : '0');
        assert_int_equal(p[230], top < '2' ? '0' : top);
        seen[top - '0']++;
        stop();
    }
    for (int i = 0; i < 4; i++)
        assert_true(seen[i] > 3);
}

/* A truncation that was not synced: the old end, or the new one, and nothing of what was written later into space that was still the old
 * file's. What lies in front of the cut is untouched. */
static void test_truncate(void **state)
{
    uint32_t old = 0, new = 0, cut = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        start(seed);
        int fd = open_file("/f");
        put(fd, 0, 20000, 'a');
        assert_int_equal(disk_sync(fd), OK);
        assert_int_equal(disk_sync_dir("/"), OK);
        assert_int_equal(disk_truncate(fd, 6000), OK);
        put(fd, 6000, 20000, 'b');
        sim_power_loss();
        sim_restart();
        const struct buf *b = sim_file("/f");
        assert_true(b->n >= 6000 && b->n <= 26000 && all_are(b->p, 6000, 'a'));
        if (b->n == 20000 && b->p[19999] == 'a') {
            old++;
            assert_true(all_are(b->p + 8192, 20000 - 8192, 'a'));
        } else {
            for (size_t i = 8192; i < b->n; i++)
                assert_true(b->p[i] == 'b' || b->p[i] == 0);
            cut += b->n == 6000;
            new += b->n == 26000;
        }
        stop();
    }
    assert_true(old > 20 && new > 20 && cut > 5);
}

/* disk_sync_start() makes arrival likelier, and promises nothing. */
static void test_sync_start(void **state)
{
    uint32_t arrived[2] = {0};
    for (uint64_t seed = 1; seed <= 400; seed++) {
        start(seed);
        int fd = open_file("/f");
        put(fd, 0, 512, 'a');
        assert_int_equal(disk_sync(fd), OK);
        assert_int_equal(disk_sync_dir("/"), OK);
        put(fd, 0, 512, 'b');
        if (seed % 2)
            disk_sync_start(fd, 0, 512);
        sim_power_loss();
        sim_restart();
        arrived[seed % 2] += sim_file("/f")->p[0] == 'b';
        stop();
    }
    assert_in_range(arrived[0], 60, 150);
    assert_in_range(arrived[1], 160, 199);
}

/* After a sync that failed, a later one that succeeds proves nothing for what the first should have written. */
static void test_failed_sync(void **state)
{
    uint32_t lost = 0, kept = 0, evicted = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        start(seed);
        int fd = open_file("/f");
        assert_int_equal(disk_sync_dir("/"), OK);
        put(fd, 0, 512, 'a');
        sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
        assert_int_equal(disk_sync(fd), ERR_IO);
        put(fd, 512, 512, 'b');
        assert_int_equal(disk_sync(fd), OK);
        assert_true(sim_file("/f")->p[0] == 'a');
        if (seed % 2)
            sim_power_loss();
        else
            sim_process_crash();
        sim_restart();
        const struct buf *b = sim_file("/f");
        assert_true(b->n == 1024 && all_are(b->p + 512, 512, 'b') && (all_are(b->p, 512, 'a') || all_are(b->p, 512, 0)));
        if (seed % 2)
            *(b->p[0] == 'a' ? &kept : &lost) += 1;
        else
            evicted += b->p[0] == 0;
        stop();
    }
    assert_true(lost > 20 && kept > 20 && evicted > 10);
}

/* ... but what was written anew is sound. */
static void test_failed_sync_rewritten(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        start(seed);
        int fd = open_file("/f");
        assert_int_equal(disk_sync_dir("/"), OK);
        put(fd, 0, 600, 'a');
        sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
        assert_int_equal(disk_sync(fd), ERR_IO);
        put(fd, 0, 600, 'b');
        assert_int_equal(disk_sync(fd), OK);
        sim_power_loss();
        sim_restart();
        assert_true(sim_file("/f")->n == 600 && all_are(sim_file("/f")->p, 600, 'b'));
        stop();
    }
}

/* ---- names ---- */

static bool is_there(const char *path) { return sim_file(path) != NULL; }

static void test_names(void **state)
{
    uint32_t made = 0, removed = 0, moved = 0, below = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        start(seed);
        assert_int_equal(disk_make_dir("/d"), OK);
        file_close(open_file("/d/old"));
        file_close(open_file("/d/gone"));
        int fd = open_file("/d/tmp");
        put(fd, 0, 3, 'n');
        assert_int_equal(disk_sync(fd), OK);
        file_close(fd);
        assert_int_equal(disk_sync_dir("/d"), OK);
        assert_int_equal(disk_sync_dir("/"), OK);
        file_close(open_file("/d/new"));
        assert_int_equal(disk_remove("/d/gone"), OK);
        assert_int_equal(disk_rename("/d/tmp", "/d/old"), OK);
        assert_int_equal(disk_make_dir("/d/e"), OK);
        file_close(open_file("/d/e/f"));
        assert_int_equal(disk_sync_dir("/d/e"), OK);
        sim_power_loss();
        sim_restart();
        assert_true(is_there("/d/old"));
        assert_true(is_there("/d/tmp") == (sim_file("/d/old")->n == 0)); /* moved, or not: never both, never half */
        made += is_there("/d/new");
        removed += !is_there("/d/gone");
        moved += !is_there("/d/tmp");
        below += is_there("/d/e/f");
        stop();
    }
    assert_in_range(made, 50, 150);
    assert_in_range(removed, 50, 150);
    assert_in_range(moved, 50, 150);
    assert_in_range(below, 50, 150);
}

/* A folder whose own name is not synced goes with all that is in it; then nothing does. */
static void test_names_synced(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        start(seed);
        assert_int_equal(disk_make_dir("/a"), OK);
        assert_int_equal(disk_make_dir("/b"), OK);
        file_close(open_file("/a/x"));
        file_close(open_file("/b/y"));
        assert_int_equal(disk_rename("/a/x", "/b/x"), OK);
        assert_int_equal(disk_rename("/b/x", "/b/z"), OK);
        assert_int_equal(disk_sync_dir("/b"), OK);
        assert_int_equal(disk_sync_dir("/"), OK);
        assert_int_equal(disk_rename("/a", "/c"), OK);
        assert_int_equal(disk_rename("/c", "/d"), OK);
        sim_power_loss();
        sim_restart();
        assert_true(is_there("/b/y") && is_there("/b/z") && !is_there("/b/x") && !is_there("/a/x"));
        int names = 0;
        static const char *const may[] = {"/a", "/c", "/d"};
        for (size_t i = 0; i < COUNT_OF(may); i++)
            names += disk_sync_dir(may[i]) == OK;
        assert_int_equal(names, 1);
        stop();
    }
}

/* At whatever step of it the power fails or the process ends: the old content or the new; and the new once it has returned. */
static void test_replace(void **state)
{
    uint32_t old = 0, new = 0, steps = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        start(seed);
        assert_int_equal(file_replace("/d/f", "old", 3, 0600), OK);
        sim_crash_after((uint32_t)(seed % 10), seed % 20 < 10);
        enum err e = file_replace("/d/f", "brand new", 9, 0600);
        assert_true((e == OK) == !sim_is_down());
        steps += e != OK;
        if (e == OK)
            sim_power_loss();
        sim_restart();
        const struct buf *b = sim_file("/d/f");
        assert_non_null(b);
        bool is_new = slice_is(buf_slice(b), "brand new");
        assert_true(is_new || slice_is(buf_slice(b), "old"));
        assert_true(e != OK || is_new);
        *(is_new ? &new : &old) += 1;
        stop();
    }
    assert_int_equal(steps, 100); /* it changes the disk five times */
    assert_true(old > 20 && new > 20);
}

/* ---- the end of a process ---- */

static void test_process_crash(void **state)
{
    start(1);
    int fd = open_file("/f"), lock, again;
    put(fd, 0, 100, 'a');
    assert_int_equal(disk_lock("/lock", &lock), OK);
    sim_process_crash();
    assert_true(sim_is_down());
    uint64_t written, bytes;
    char c;
    assert_int_equal(fill(fd, 100, 1, 'b', &written), ERR_IO);
    assert_int_equal(disk_sync(fd), ERR_IO);
    assert_int_equal(file_read_at(fd, 0, &c, 1), ERR_IO);
    assert_int_equal(disk_open("/f", false, &again, &bytes), ERR_IO);
    assert_int_equal(disk_remove("/f"), ERR_IO);
    assert_int_equal(file_replace("/g", "x", 1, 0600), ERR_IO);
    file_close(fd); /* the ended process's objects are taken down */
    sim_restart();
    assert_int_equal(disk_open("/f", false, &fd, &bytes), OK);
    assert_int_equal(bytes, 100);
    assert_int_equal(disk_lock("/lock", &again), OK);
    assert_false(is_there("/g"));
    file_close(again);
    file_close(fd);
    stop();
}

/* The crash may come within a write: a part of it is there. */
static void test_crash_in_write(void **state)
{
    uint32_t parts = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        start(seed);
        int fd = open_file("/f");
        put(fd, 0, 100, 'a');
        sim_crash_after(2, false);
        assert_int_equal(disk_truncate(fd, 50), OK);
        uint64_t written;
        assert_int_equal(fill(fd, 50, 1000, 'b', &written), ERR_IO);
        assert_int_equal(written, 0);
        sim_restart();
        uint64_t n = sim_file("/f")->n;
        assert_in_range(n, 50, 1050);
        parts += n > 50 && n < 1050;
        stop();
    }
    assert_true(parts > 30);
}

/* ---- faults ---- */

static void test_faults(void **state)
{
    start(1);
    int fd = open_file("/f"), other;
    uint64_t written, bytes;
    char c;
    sim_disk_fail_next(SIM_DISK_WRITE, 1, EIO);
    sim_disk_fail_next(SIM_DISK_READ, 0, EIO);
    sim_disk_fail_next(SIM_DISK_OPEN, 0, EMFILE);
    put(fd, 0, 10, 'a');
    assert_int_equal(fill(fd, 10, 10, 'b', &written), ERR_IO);
    put(fd, 10, 10, 'b');
    assert_int_equal(file_read_at(fd, 0, &c, 1), ERR_IO);
    assert_int_equal(file_read_at(fd, 0, &c, 1), OK);
    assert_int_equal(disk_open("/f", true, &other, &bytes), ERR_LIMIT);
    sim_disk_fail_next(SIM_DISK_CREATE, 0, ENOSPC);
    assert_int_equal(disk_open("/g", true, &other, &bytes), ERR_NOSPACE);
    assert_false(is_there("/g"));
    sim_disk_fail_next(SIM_DISK_RENAME, 0, EACCES);
    assert_int_equal(disk_rename("/f", "/g"), ERR_PERM);
    sim_disk_fail(UINT32_MAX, EROFS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(disk_make_dir("/d"), ERR_PERM);
    sim_disk_fail(0, 0);
    assert_int_equal(disk_make_dir("/d"), OK);
    sim_disk_cold(100);
    assert_false(disk_in_memory(fd, 0, 1));
    sim_disk_cold(0);
    assert_true(disk_in_memory(fd, 0, 1));
    assert_true(sim_file_flip("/f", 3));
    assert_true(sim_file("/f")->p[3] != 'a');
    assert_false(sim_file_flip("/f", 20));
    assert_true(sim_file_cut("/f", 5));
    assert_int_equal(sim_file("/f")->n, 5);
    assert_false(sim_file_cut("/none", 5));
    file_close(fd);
    stop();
}

/* A full disk takes what fits. What was reserved is there for its file, and for no other. */
static void test_full(void **state)
{
    start(1);
    sim_disk_bytes_max(10000);
    uint64_t written, free_bytes, total;
    int a = open_file("/a"), b = open_file("/b");
    put(a, 0, 4000, 'a');
    enum err e = disk_reserve(b, 0, 3000);
    assert_int_equal(e, OK);
    assert_int_equal(disk_reserve(b, 0, 7000), ERR_NOSPACE);
    assert_int_equal(disk_space("/", &free_bytes, &total), OK);
    assert_true(free_bytes == 3000 && total == 10000);
    assert_int_equal(fill(a, 4000, 5000, 'b', &written), ERR_NOSPACE);
    assert_int_equal(written, 3000);
    assert_int_equal(sim_file("/a")->n, 7000);
    put(a, 0, 7000, 'c');
    put(b, 0, 3000, 'd');
    assert_int_equal(fill(b, 3000, 1, 'd', &written), ERR_NOSPACE);
    assert_int_equal(file_replace("/c", "x", 1, 0600), ERR_NOSPACE);
    assert_false(is_there("/c"));
    assert_int_equal(disk_remove("/a"), OK);
    assert_int_equal(fill(b, 3000, 1, 'd', &written), ERR_NOSPACE); /* it is still open */
    file_close(a);
    put(b, 3000, 7000, 'd');
    assert_int_equal(disk_truncate(b, 0), OK);
    assert_int_equal(disk_space("/", &free_bytes, &total), OK);
    assert_int_equal(free_bytes, 10000);
    file_close(b);
    stop();
}

/* ---- a slow disk ---- */

struct job {
    struct work w;
    int fd;
    enum err e;
    uint64_t done_ms; /* 0: not yet */
};
static void job_run(struct work *w) { ((struct job *)w)->e = disk_sync(((struct job *)w)->fd); }
static void job_done(struct work *w) { ((struct job *)w)->done_ms = sim_now_ms(); }
static bool jobs_are_done(void *ctx) { return ((struct job *)ctx)[0].done_ms && ((struct job *)ctx)[1].done_ms; }

static uint32_t ticks;
static struct loop *tick_loop;
static void tick(struct timer *t)
{
    ticks++;
    timer_set(tick_loop, t, 1);
}

/* The works take their time, each its own, and the other loop goes on. */
static void test_slow(void **state)
{
    start(3);
    struct loop *l = loop_new("disk");
    tick_loop = loop_new("other");
    struct timer t;
    timer_init(&t, tick);
    ticks = 0;
    timer_set(tick_loop, &t, 1);
    sim_disk_slow(20, 40);
    struct job jobs[2] = {{.w = {.run = job_run, .done = job_done}}, {.w = {.run = job_run, .done = job_done}}};
    uint64_t began = sim_now_ms();
    for (int i = 0; i < 2; i++) {
        jobs[i].fd = open_file(i ? "/a" : "/b");
        work_submit(l, &jobs[i].w);
    }
    assert_true(sim_run(jobs_are_done, jobs, 1000));
    for (int i = 0; i < 2; i++) {
        assert_in_range(jobs[i].done_ms - began, 20, 41);
        assert_int_equal(jobs[i].e, OK);
        file_close(jobs[i].fd);
    }
    assert_in_range(ticks, 15, 50);
    began = sim_now_ms();
    assert_int_equal(disk_sync_dir("/"), OK); /* on the loop: time passes for all */
    assert_in_range(sim_now_ms() - began, 20, 41);
    timer_clear(&t);
    loop_free(tick_loop);
    loop_free(l);
    stop();
}

/* What is written while a sync is under way is not covered by it; and before it is over nothing is. */
static void test_slow_cover(void **state)
{
    uint32_t early_lost = 0, late_lost = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        start(seed);
        struct loop *l = loop_new("disk");
        struct job jobs[2] = {{.w = {.run = job_run, .done = job_done}}, {.done_ms = 1}};
        sim_disk_slow(20, 20);
        jobs[0].fd = open_file("/f");
        assert_int_equal(disk_sync_dir("/"), OK);
        put(jobs[0].fd, 0, 512, 'a');
        work_submit(l, &jobs[0].w);
        sim_run(NULL, NULL, 10);
        put(jobs[0].fd, 512, 512, 'b');
        if (seed % 2)
            assert_true(sim_run(jobs_are_done, jobs, 1000));
        sim_power_loss();
        if (seed % 2 == 0)
            assert_true(sim_run(jobs_are_done, jobs, 1000));
        sim_restart();
        const struct buf *b = sim_file("/f");
        assert_true(seed % 2 == 0 || (b->n >= 512 && all_are(b->p, 512, 'a')));
        early_lost += b->n < 512 || b->p[0] != 'a';
        late_lost += seed % 2 && (b->n < 1024 || b->p[512] != 'b');
        loop_free(l);
        stop();
    }
    assert_true(early_lost > 10 && late_lost > 10);
}

/* ---- chance ---- */

static uint64_t history(uint64_t seed)
{
    start(seed);
    uint64_t sum = 0;
    int fd = open_file("/f");
    assert_int_equal(disk_sync_dir("/"), OK);
    for (uint32_t i = 0; i < 10000; i++) {
        put(fd, (i * 977) % 60000, 600, (char)i);
        if (i % 1000 == 999 && !sim_is_down()) {
            sim_power_loss();
            sim_restart();
            sum = sum * 31 + hash_slice(buf_slice(sim_file("/f")));
            fd = open_file("/f");
        }
    }
    file_close(fd);
    sum ^= sim_trace();
    stop();
    return sum;
}

static void test_determinism(void **state)
{
    assert_true(history(5) == history(5));
    assert_true(history(5) != history(6));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsynced),      cmocka_unit_test(test_versions),       cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_sync_start),    cmocka_unit_test(test_failed_sync),    cmocka_unit_test(test_failed_sync_rewritten),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_names_synced),   cmocka_unit_test(test_replace),
        cmocka_unit_test(test_process_crash), cmocka_unit_test(test_crash_in_write), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_full),          cmocka_unit_test(test_slow),           cmocka_unit_test(test_slow_cover),
        cmocka_unit_test(test_determinism),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
