/* memory.c - how much memory a replica uses, as the kernel accounts it.
 *
 * A replica in a control group of its own (its path has a component that begins with "weir-"): the working set, which is
 * what the group is charged for without the file pages that the kernel may drop at any time (usage - inactive_file, as
 * Kubernetes' `kubectl top` shows it). Else: the resident set of its first process. All of it is read from /proc and
 * /sys/fs/cgroup, which answer from memory.
 */
#include "api_int.h"

#include <stdio.h>
#include <unistd.h>

#define PROC_BYTES_MAX 65536

/* The number behind "name " at the beginning of a line of text; 0 when absent. */
static uint64_t stat_value(struct slice text, const char *name)
{
    while (text.n) {
        uint64_t v = 0;
        struct slice value, line = slice_cut(text, '\n', &text);
        if (slice_is(slice_cut(line, ' ', &value), name) && slice_u64(slice_trim(value), UINT64_MAX, &v) == OK)
            return v;
    }
    return 0;
}

static uint64_t number_in(const char *path)
{
    struct buf b = {0};
    uint64_t v = 0;
    struct slice rest;
    if (file_read(path, &b, PROC_BYTES_MAX) != OK || slice_u64(slice_cut(buf_slice(&b), '\n', &rest), UINT64_MAX, &v) != OK)
        v = 0;
    buf_free(&b);
    return v;
}

static uint64_t group_memory(struct slice group, bool v1)
{
    char path[1024];
    struct buf stat = {0};
    const char *root = v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
    snprintf(path, sizeof path, "%s" SLICE_FMT "/%s", root, SLICE_ARG(group), v1 ? "memory.usage_in_bytes" : "memory.current");
    uint64_t used = number_in(path), cached = 0;
    snprintf(path, sizeof path, "%s" SLICE_FMT "/memory.stat", root, SLICE_ARG(group));
    if (used && file_read(path, &stat, PROC_BYTES_MAX) == OK)
        cached = stat_value(buf_slice(&stat), v1 ? "total_inactive_file" : "inactive_file");
    buf_free(&stat);
    return used > cached ? used - cached : 0;
}

/* Lines of /proc/PID/cgroup are "ID:CONTROLLERS:PATH"; v2 is "0::PATH". */
static bool memory_group(struct slice line, struct slice *path, bool *v1)
{
    struct slice rest, controllers;
    slice_cut(line, ':', &rest);
    controllers = slice_cut(rest, ':', path);
    *v1 = slice_is(controllers, "memory");
    return (*v1 || !controllers.n) && memmem(path->p, path->n, "/weir-", 6);
}

static uint64_t resident(int32_t pid)
{
    char path[64];
    struct buf b = {0};
    struct slice rest;
    uint64_t pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    if (file_read(path, &b, PROC_BYTES_MAX) == OK) {
        slice_cut(buf_slice(&b), ' ', &rest);
        if (slice_u64(slice_cut(rest, ' ', &rest), UINT64_MAX / 65536, &pages) != OK)
            pages = 0;
    }
    buf_free(&b);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t api_replica_memory(int32_t pid)
{
    char path[64];
    struct buf b = {0};
    uint64_t bytes = 0;
    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    if (file_read(path, &b, PROC_BYTES_MAX) == OK)
        for (struct slice rest = buf_slice(&b); rest.n && !bytes;) {
            struct slice group;
            bool v1;
            if (memory_group(slice_cut(rest, '\n', &rest), &group, &v1))
                bytes = group_memory(group, v1);
        }
    buf_free(&b);
    return bytes ? bytes : resident(pid);
}
