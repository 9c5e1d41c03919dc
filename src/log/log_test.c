/* log_test.c - the log on the kernel: the common scenarios in a temporary folder, and what needs a real file system. */
#include "log_scenarios.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[64];

static void remove_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    char path[LOG_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    assert_int_equal(folder ? folder_remove(path) : disk_remove(path), OK);
}

void world_start(void)
{
    /* in memory where that is to be had: hundreds of syncs, and how long a disk takes for them is not what is asked here */
    snprintf(dir, sizeof dir, "/dev/shm/weir_log_test_XXXXXX");
    if (mkdtemp(dir))
        return;
    snprintf(dir, sizeof dir, "/tmp/weir_log_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
}

void world_stop(void)
{
    char path[LOG_PATH_MAX];
    snprintf(path, sizeof path, "%s/log", dir);
    assert_int_equal(disk_list(path, remove_each, path), OK);
    assert_int_equal(disk_remove_dir(path), OK);
    assert_int_equal(disk_remove_dir(dir), OK);
    assert_int_equal(mem_bytes(MEM_PART), 0);
}

const char *world_dir(void)
{
    static char path[80];
    snprintf(path, sizeof path, "%s/log", dir);
    return path;
}

bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    uint64_t end = mono_ns() + ms * 1000000;
    while (!done(ctx)) {
        if (mono_ns() > end)
            return false;
        loop_turn(l, 5);
    }
    return true;
}

int main(void)
{
    return _cmocka_run_group_tests("log", log_scenarios, log_scenarios_n, NULL, NULL);
}
