/* cgroup_test.c - whose groups are whose: those that somebody holds stay, also when their PID says nothing here; what a dead sup left is removed.
 *
 * What groups do to replicas is looked at in sup_test.c. Only root makes groups without being given them, and namespaces of PIDs.
 */
#include "sup_int.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Begins as a sup does, by removing what nobody has, and ends. */
static void other_sup(void)
{
    struct cgroup_root r;
    struct buf why = {0};
    cgroup_root_init(&r, "other", &why);
    cgroup_root_fini(&r);
    buf_free(&why);
}

/* fn in another process, in another PID namespace or here; its status, or -1. */
static int elsewhere(bool pid_namespace, void (*fn)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        pid_t there = pid_namespace && unshare(CLONE_NEWPID) < 0 ? -1 : fork();
        if (there == 0) {
            fn();
            _exit(0);
        }
        _exit(there < 0 || waitpid(there, &status, 0) < 0 || status != 0);
    }
    return pid < 0 || waitpid(pid, &status, 0) < 0 ? -1 : status;
}

static int count_dirs(const struct cgroup_root *r)
{
    int n = 0;
    for (int i = 0; i < CG_COUNT; i++)
        n += r->dir[i] && access(r->dir[i], F_OK) == 0;
    return n;
}

/* A sup in a PID namespace of its own does not see ours by its PID. The groups are ours all the same, as long as there is no replica in them, too. */
static void test_held(void **state)
{
    struct cgroup_root ours;
    struct buf why = {0};
    if (geteuid() != 0)
        skip();
    cgroup_root_init(&ours, "held", &why);
    buf_free(&why);
    int made = count_dirs(&ours), here = elsewhere(false, other_sup), left = count_dirs(&ours), there = elsewhere(true, other_sup), left_there = count_dirs(&ours);
    cgroup_root_fini(&ours);
    assert_int_equal(here, 0);
    assert_int_equal(left, made);
    assert_int_equal(there, 0);
    assert_int_equal(left_there, made);
}

static int dead_groups[2]; /* a pipe */

/* Leaves its groups behind, as a sup that is killed does, and says which. */
static void dies(void)
{
    struct cgroup_root r;
    struct buf why = {0};
    cgroup_root_init(&r, "dead", &why);
    for (int i = 0; i < CG_COUNT; i++)
        if (r.dir[i])
            dprintf(dead_groups[1], "%s\n", r.dir[i]);
}

static void test_left(void **state)
{
    char path[512];
    int left = 0;
    if (geteuid() != 0)
        skip();
    assert_int_equal(pipe(dead_groups), 0);
    assert_int_equal(elsewhere(false, dies), 0);
    close(dead_groups[1]);
    other_sup();
    FILE *f = fdopen(dead_groups[0], "r");
    assert_non_null(f);
    while (fgets(path, sizeof path, f)) {
        path[strcspn(path, "\n")] = 0;
        left += access(path, F_OK) == 0;
    }
    fclose(f);
    assert_int_equal(left, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_held), cmocka_unit_test(test_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
