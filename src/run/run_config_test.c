/* run_config_test.c - ConfigMaps and Secrets: restarts of what has them in its environment, and their files, in the world of run_world_test.h. Files of
 * volumes are real ones.
 */
#include "run_world_test.h"

#include <sys/stat.h>
#include <unistd.h>

#define SECRET(value) "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { k: \"" value "\" }\n---\n"
#define CONFIG(data) "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { " data " }\n---\n"
#define DEP(name, annotations, probes, env, volumes, mounts)                                                                                         \
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: " name ", annotations: { " annotations " } }\nspec:\n  replicas: 2\n"                  \
    "  progressDeadlineSeconds: 20\n  selector: { matchLabels: { a: " name " } }\n  template:\n    metadata: { labels: { a: " name " } }\n"          \
    "    spec: { volumes: [ " volumes " ], containers: [ { name: main, command: [ ok ], " probes " env: [ " env " ], volumeMounts: [ " mounts " ] } ] }\n---\n"
#define OF_SECRET "{ name: S, valueFrom: { secretKeyRef: { name: s, key: k } } }"
#define OF_CONFIG "{ name: C, valueFrom: { configMapKeyRef: { name: c, key: k } } }"
#define PROBE "readinessProbe: { exec: { command: [ ready ] }, periodSeconds: 1 },"

static void want_text(const char *text)
{
    struct objset *set = objset_new(), *old = W.set;
    struct diags d = {0};
    objset_read(set, "t.yaml", "/srv", slice_cstr(text), "default", false, &d);
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            print_message("%s: %s\n", d.items[i].where, d.items[i].reason);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    run_want(W.run, set);
    W.set = set;
    set_free_later(old);
}

/* What one workload says. */
struct one { const char *name; uint64_t revision; bool complete; };
static void one_see(void *ctx, const struct workload_status *w)
{
    struct one *o = ctx;
    if (strcmp(w->name, o->name) == 0) {
        o->revision = w->revision;
        o->complete = w->complete;
    }
}
static struct one one(const char *name)
{
    struct one o = {.name = name};
    run_status(W.run, one_see, &o);
    return o;
}

static uint32_t incomplete_max;
static void incomplete_count(void *ctx, const struct workload_status *w) { *(uint32_t *)ctx += !w->complete; }
static bool all_complete(void *ctx)
{
    uint32_t n = 0;
    (void)ctx;
    run_status(W.run, incomplete_count, &n);
    incomplete_max = MAX(incomplete_max, n);
    return n == 0;
}

static bool never_and_count(void *ctx)
{
    (void)all_complete(ctx);
    return false;
}

#define USERS(config, secret)                                                                                                                        \
    CONFIG("k: " config) SECRET(secret) DEP("a", "", PROBE, OF_SECRET, "", "") DEP("b", "", PROBE, OF_SECRET, "", "")                                \
        DEP("never", "weir.dev/restart-on-config: \"false\"", "", OF_SECRET, "", "") DEP("plain", "", "", OF_CONFIG, "", "")                         \
            DEP("auto", "reloader.stakater.com/auto: \"true\"", "", OF_CONFIG, "", "")                                                               \
                DEP("named", "configmap.reloader.stakater.com/reload: \"x, c\"", "", "{ name: A, value: b }", "", "")

static void test_who_is_restarted(void **state)
{
    (void)state;
    world_start(50);
    want_text(USERS("x", "one"));
    assert_true(sim_run(all_complete, NULL, 20000));
    incomplete_max = 0;
    want_text(USERS("x", "two")); /* the Secret alone */
    (void)sim_run(never_and_count, NULL, 20000);
    assert_true(all_complete(NULL));
    assert_true(one("a").revision == 2 && one("b").revision == 2);
    assert_true(one("never").revision == 1 && one("plain").revision == 1 && one("auto").revision == 1 && one("named").revision == 1);
    assert_int_equal(incomplete_max, 1); /* never two at once */
    want_text(USERS("z", "two"));        /* the ConfigMap alone */
    pass_ms(20000);
    assert_true(one("auto").revision == 2 && one("named").revision == 2 && one("plain").revision == 1 && one("a").revision == 2);
    want_text(USERS("z", "two")); /* nothing */
    pass_ms(20000);
    assert_true(one("auto").revision == 2 && one("a").revision == 2);
    world_stop();
}

/* A change behind an engine that has died, and a restart that it had not come to. */
static void test_over_an_engine(void **state)
{
    (void)state;
    world_start(51);
    want_text(USERS("x", "one"));
    assert_true(sim_run(all_complete, NULL, 20000));
    pass_ms(200); /* run.state is written */
    run_free(W.run);
    W.run = NULL;
    (void)sim_run(NULL, NULL, 10);
    run_make();
    for (size_t i = 0; i < W.procs_n; i++) {
        struct proc *p = &W.procs[i];
        struct sup_replica rep = {.id = p->id, .label = p->label, .pid = p->pid, .out_fd = -1, .err_fd = -1, .listen_fd = -1, .started_wall_ns = p->started_wall_ns};
        if (p->there)
            run_on_adopt(W.run, &rep);
    }
    want_text(USERS("x", "two"));
    pass_ms(20000);
    assert_true(one("a").revision == 2 && one("b").revision == 2 && one("plain").revision == 1 && one("never").revision == 1);
    world_stop();
}

/* Who does not come up with a changed Secret keeps the others waiting for its deadline only, and its old replicas go on. */
static void test_one_that_fails(void **state)
{
    (void)state;
    world_start(52);
    want_text(USERS("x", "one"));
    assert_true(sim_run(all_complete, NULL, 20000));
    W.ready_ok = false;
    want_text(USERS("x", "two"));
    pass_ms(10000);
    assert_true(one("a").revision == 2 && one("b").revision == 1);
    pass_ms(40000);
    assert_true(one("a").revision == 2 && !one("a").complete && one("b").revision == 2);
    W.ready_ok = true;
    pass_ms(20000);
    assert_true(all_complete(NULL));
    world_stop();
}

/* ---- files -------------------------------------------------------------------------------------------------------------------------- */

static void volume_path(const char *rest, char out[300])
{
    char *key = NULL;
    LIST_FOREACH(it, &W.run->workloads)
        key = CONTAINER_OF(it, struct workload, link)->cur->text;
    assert_non_null(key);
    assert_in_range(snprintf(out, 300, "%s/volumes/default/app-%s/%s", W.dir, key, rest), 1, 299);
}

static void file_is(const char *rest, const char *want_content)
{
    char path[300], content[100] = "";
    volume_path(rest, path);
    FILE *f = fopen(path, "r");
    if (!want_content) {
        assert_null(f);
        return;
    }
    assert_non_null(f);
    content[fread(content, 1, sizeof content - 1, f)] = 0;
    (void)fclose(f);
    assert_string_equal(content, want_content);
}

#define APP(volumes) DEP("app", "", "", "", volumes, "{ name: v, mountPath: /etc/v }, { name: v, mountPath: /etc/one, subPath: a }")
#define WHOLE "{ name: v, configMap: { name: c } }"

static void test_volumes(void **state)
{
    char link[300], before[100] = "", after[100] = "";
    (void)state;
    world_start(53);
    want_text(CONFIG("a: one, b: two") APP(WHOLE));
    assert_true(sim_run(done_complete, NULL, 20000));
    file_is("v/a", "one");
    file_is("v/b", "two");
    volume_path("v/..data", link);
    assert_true(readlink(link, before, sizeof before - 1) > 0);
    want_text(CONFIG("a: one, b: two") APP(WHOLE));
    assert_true(readlink(link, after, sizeof after - 1) > 0);
    assert_string_equal(before, after); /* nothing was written */
    want_text(CONFIG("a: three, c: four") APP(WHOLE));
    file_is("v/a", "three");
    file_is("v/b", NULL);
    file_is("v/c", "four");
    (void)snprintf(link, sizeof link, "v/%s/a", before);
    file_is(link, NULL); /* the old content is gone */
    assert_int_equal(look().revision, 1);
    want_text(SECRET("x") CONFIG("a: three") APP("{ name: v, projected: { sources: [ { configMap: { name: c, items: [ { key: a, path: sub/dir/a }, { key: a, path: a, mode: 256 } ] } }, { secret: { name: s } } ] } }"));
    assert_true(sim_run(done_complete, NULL, 20000));
    file_is("v/sub/dir/a", "three");
    file_is("v/k", "x");
    pass_ms(100);
    want_text(CONFIG("a: one"));
    assert_true(sim_run(done_gone, NULL, 60000));
    pass_ms(100);
    char path[300];
    (void)snprintf(path, sizeof path, "%s/volumes/default", W.dir);
    assert_int_equal(rmdir(path), 0); /* it is empty */
    (void)snprintf(path, sizeof path, "%s/volumes", W.dir);
    assert_int_equal(rmdir(path), 0);
    world_stop();
}

/* An engine that died between two steps, a disk that was full, a power failure that kept names and not what is in files: the next look mends it. */
static void test_volumes_torn(void **state)
{
    char path[300], data[40] = "", torn[60];
    (void)state;
    world_start(55);
    want_text(CONFIG("a: one, b: two") APP(WHOLE));
    assert_true(sim_run(done_complete, NULL, 20000));
    volume_path("v/b", path);
    assert_int_equal(unlink(path), 0); /* `..data` was exchanged, the link not made */
    volume_path("v/gone", path);
    assert_int_equal(symlink("..data/gone", path), 0); /* and one not removed */
    volume_path("v/..older", path);
    assert_int_equal(mkdir(path, 0755), 0);
    want_text(CONFIG("a: one, b: two") APP(WHOLE));
    file_is("v/a", "one");
    file_is("v/b", "two");
    volume_path("v/gone", path);
    assert_int_equal(readlink(path, data, sizeof data - 1), -1);
    volume_path("v/..older", path);
    assert_int_equal(rmdir(path), -1);
    volume_path("v/..data", path);
    assert_true(readlink(path, data, sizeof data - 1) > 0);
    (void)snprintf(torn, sizeof torn, "v/%s/a", data);
    volume_path(torn, path);
    assert_int_equal(truncate(path, 0), 0);
    want_text(CONFIG("a: one, b: two") APP(WHOLE));
    file_is("v/a", "one");
    volume_path("v/..data_tmp", path);
    assert_int_equal(symlink("nowhere", path), 0);
    want_text(CONFIG("a: three") APP(WHOLE));
    file_is("v/a", "three");
    file_is("v/b", NULL);
    want_text(CONFIG("a: three"));
    assert_true(sim_run(done_gone, NULL, 60000));
    pass_ms(100);
    (void)snprintf(path, sizeof path, "%s/volumes/default", W.dir);
    assert_int_equal(rmdir(path), 0);
    (void)snprintf(path, sizeof path, "%s/volumes", W.dir);
    assert_int_equal(rmdir(path), 0);
    world_stop();
}

/* What is missing keeps a replica from starting, and leaves those that run as they are. */
static void test_volumes_missing(void **state)
{
    (void)state;
    world_start(54);
    want_text(APP(WHOLE));
    pass_ms(100);
    assert_string_equal(look().phase, "BackOff");
    assert_non_null(strstr(look().rwhy, "there is no ConfigMap c in the namespace default"));
    want_text(CONFIG("a: one") APP(WHOLE));
    assert_true(sim_run(done_complete, NULL, 20000));
    file_is("v/a", "one");
    want_text(APP(WHOLE));
    pass_ms(100);
    file_is("v/a", "one");
    assert_true(look().complete);
    want_text(APP("{ name: v, configMap: { name: c, optional: true } }"));
    assert_true(sim_run(done_complete, NULL, 20000));
    file_is("v/a", NULL);
    want_text(CONFIG("a: one"));
    assert_true(sim_run(done_gone, NULL, 60000));
    pass_ms(100);
    char path[300];
    (void)snprintf(path, sizeof path, "%s/volumes/default", W.dir);
    (void)rmdir(path);
    (void)snprintf(path, sizeof path, "%s/volumes", W.dir);
    (void)rmdir(path);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_restarted), cmocka_unit_test(test_over_an_engine), cmocka_unit_test(test_one_that_fails),
        cmocka_unit_test(test_volumes),          cmocka_unit_test(test_volumes_missing),
        cmocka_unit_test(test_volumes_torn),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    clean_up();
    return failed;
}
