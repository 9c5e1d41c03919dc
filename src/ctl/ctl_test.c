/* ctl_test.c - the control store on the kernel's disk: the common scenarios, each in a new folder, and what needs real files and threads. */
#include "ctl_world_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct kernel {
    struct world w;
    char dir[64];                /* the store's parent */
    bool closed;
};

static bool kernel_run(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    for (uint64_t until = mono_ns() + ms * 1000000; !done(ctx);) {
        if (mono_ns() > until) return false;
        loop_turn(w->loop, 20);
    }
    return true;
}

static struct ctl_own_conf kernel_conf(const struct kernel *k, char dir[96])
{
    struct ctl_own_conf conf;
    ctl_own_conf_default(&conf);
    snprintf(dir, 96, "%s/ctl", k->dir);
    conf.dir = dir;
    return conf;
}

static void kernel_open(struct kernel *k)
{
    char dir[96];
    struct ctl_own_conf conf = kernel_conf(k, dir);
    struct buf why = {0};
    enum err e = ctl_own_open(&conf, k->w.loop, &k->w.ctl, &why);
    if (e != OK) fail_msg("%s", why.p);
    buf_free(&why);
}

static void kernel_closed(void *ctx) { ((struct kernel *)ctx)->closed = true; }
static bool kernel_is_closed(void *ctx) { return ((struct kernel *)ctx)->closed; }

static void kernel_close(struct kernel *k)
{
    k->closed = false;
    ctl_close(k->w.ctl, kernel_closed, k);
    assert_true(kernel_run(&k->w, kernel_is_closed, k, 10000));
    k->w.ctl = NULL;
}

static int setup(void **state)
{
    struct kernel *k = mem_new(MEM_MISC, sizeof *k);
    snprintf(k->dir, sizeof k->dir, "/dev/shm/weir_ctl_test_XXXXXX"); /* how long a disk takes to sync is not what is asked here */
    if (!mkdtemp(k->dir)) {
        snprintf(k->dir, sizeof k->dir, "/tmp/weir_ctl_test_XXXXXX");
        assert_non_null(mkdtemp(k->dir));
    }
    k->w.loop = loop_new("ctl_test");
    k->w.run = kernel_run;
    kernel_open(k);
    *state = k;
    return 0;
}

static void remove_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    if (folder) assert_int_equal(disk_list(path, remove_each, path), OK);
    assert_int_equal(folder ? disk_remove_dir(path) : disk_remove(path), OK);
}

static int teardown(void **state)
{
    struct kernel *k = *state;
    if (k->w.ctl) kernel_close(k);
    loop_free(k->w.loop);
    assert_int_equal(disk_list(k->dir, remove_each, k->dir), OK);
    assert_int_equal(disk_remove_dir(k->dir), OK);
    mem_free(k);
    assert_int_equal(mem_bytes(MEM_CTL), 0);
    return 0;
}

/* ---- what stays ---- */

static void test_reopen(void **state)
{
    struct kernel *k = *state;
    struct world *w = &k->w;
    struct answer a;
    int64_t r1 = put(w, "a", "1");
    int64_t r2 = put(w, "a", "2");
    put(w, "gone", "1");
    assert_int_equal(do_op(w, &a, op_delete("gone", "")), CTL_OK);
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = 5, .ttl_s = 50}}), CTL_OK);
    answer_fini(&a);
    struct ctl_op op = op_put("leased", "x");
    op.put.lease = 5;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_COMPACT, .compact = r2}), CTL_OK);
    answer_fini(&a);
    struct ctl_status before, after;
    ctl_status(w->ctl, &before);
    kernel_close(k);
    kernel_open(k);
    ctl_status(w->ctl, &after);
    assert_true(after.revision == before.revision && after.compact_revision == r2 && after.keys == 2 && after.leases == 1);
    assert_int_equal(do_op(w, &a, op_get("a")), CTL_OK);
    const struct ctl_kv *kv = &a.call.result.range.kvs[0];
    assert_true(kv->create_revision == r1 && kv->mod_revision == r2 && kv->version == 2 && slice_is(kv->value, "2"));
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_LEASE_INFO, .lease = {.id = 5, .keys = true}}), CTL_OK);
    assert_true(a.call.result.lease.granted_s == 50 && a.call.result.lease.ttl_s >= 48 && a.call.result.lease.keys_n == 1);
    answer_fini(&a);
    /* A watch goes on where it was before. */
    struct seen s = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){.key = SLICE("a"), .end = SLICE("z"), .revision = r2, .prev_kv = true});
    seen_wait(w, &s, 4);
    put(w, "b", "new");
    seen_wait(w, &s, 5);
    assert_string_equal(s.text.p, "+a=2 +gone=1 -gone(1) +leased=x |+b=new |");
    seen_stop(&s);
}

static void test_in_use(void **state)
{
    struct kernel *k = *state;
    char dir[96];
    struct ctl_own_conf conf = kernel_conf(k, dir);
    struct buf why = {0};
    struct ctl *other;
    assert_int_equal(ctl_own_open(&conf, k->w.loop, &other, &why), ERR_INUSE);
    assert_non_null(strstr(why.p, "in use"));
    buf_free(&why);
}

static void test_damaged(void **state)
{
    struct kernel *k = *state;
    put(&k->w, "a", "1");
    kernel_close(k);
    char dir[96], path[128];
    struct ctl_own_conf conf = kernel_conf(k, dir);
    snprintf(path, sizeof path, "%s/ctl.db", dir);
    struct buf content = {0}, why = {0};
    assert_int_equal(file_read(path, &content, 1 << 20), OK);
    memset(content.p + 4096, 'x', 4096); /* a page of the schema's neighbours */
    memset(content.p + 100, 'x', 3000);
    assert_int_equal(file_replace(path, content.p, content.n, 0600), OK);
    assert_int_equal(ctl_own_open(&conf, k->w.loop, &k->w.ctl, &why), ERR_INVALID);
    assert_non_null(strstr(why.p, "ctl.db"));
    buf_clear(&why);
    assert_int_equal(file_replace(path, "not a database, but long enough to be looked at", 47, 0600), OK);
    assert_int_equal(ctl_own_open(&conf, k->w.loop, &k->w.ctl, &why), ERR_INVALID);
    buf_free(&content);
    buf_free(&why);
    k->w.ctl = NULL;
}

/* ---- many ---- */

struct many {
    struct world *w;
    struct ctl_call *calls;
    size_t n, over;
    char (*keys)[32];
};

static struct many *many_now;

static void many_done(struct ctl_call *call)
{
    assert_int_equal(call->error, CTL_OK);
    many_now->over++;
}

static bool many_over(void *ctx) { return ((struct many *)ctx)->over == ((struct many *)ctx)->n; }

static void many_puts(struct world *w, size_t from, size_t n, struct slice value)
{
    struct many m = {.w = w, .n = n};
    m.calls = mem_new(MEM_MISC, n * sizeof *m.calls);
    m.keys = mem_new(MEM_MISC, n * sizeof *m.keys);
    many_now = &m;
    for (size_t i = 0; i < n; i++) {
        snprintf(m.keys[i], sizeof m.keys[i], "/registry/pods/%08zu", from + i);
        m.calls[i] = (struct ctl_call){.op = {.kind = CTL_PUT, .put = {.key = slice_cstr(m.keys[i]), .value = value}}, .done = many_done};
        ctl_submit(w->ctl, &m.calls[i]);
    }
    assert_true(kernel_run(w, many_over, &m, 30000));
    mem_free(m.calls);
    mem_free(m.keys);
}

static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size = 0, resident = 0;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
    fclose(f);
    return (uint64_t)resident * 4096;
}

struct memory_bound {
    uint64_t bytes;
};
static bool is_small(void *ctx) { return resident_bytes() < ((struct memory_bound *)ctx)->bytes; }

static size_t all_read_n;
static void all_read(struct ctl_call *call)
{
    assert_int_equal(call->error, CTL_OK);
    all_read_n += call->result.range.n;
}

/* A hundred thousand keys: 12 MB (24 with those of malloc and SQLite for the process), and the same with larger values; commits are shared by the calls that wait; reopened, all is there. */
static void many_keys(struct kernel *k, size_t value_n)
{
    static const char bytes[256];
    uint64_t before = resident_bytes();
    for (size_t i = 0; i < 100000; i += 5000) many_puts(&k->w, i, 5000, slice_of(bytes, value_n));
    const struct ctl_counters *c = ctl_counters(k->w.ctl);
    assert_int_equal(counter_read(&c->commit_calls), 100000);
    assert_true(counter_read(&c->commits) < 200);
    struct ctl_status st;
    ctl_status(k->w.ctl, &st);
    assert_int_equal(st.keys, 100000);
    struct memory_bound b = {.bytes = SANITIZED ? UINT64_MAX : before + (24u << 20)}; /* a sanitizer has memory of its own */
    assert_true(k->w.run(&k->w, is_small, &b, 10000)); /* when the burst is over, what it left behind is given back */
    print_message("100,000 keys: the process grew by %.1f MB\n", (double)(resident_bytes() - before) / 1e6);
    kernel_close(k);
    kernel_open(k);
    ctl_status(k->w.ctl, &st);
    assert_int_equal(st.keys, 100000);
    print_message("100,000 keys: %.1f MB in the store\n", (double)mem_bytes(MEM_CTL) / 1e6);
    assert_true(SANITIZED || mem_bytes(MEM_CTL) < 13u << 20);
    struct answer a;
    assert_int_equal(do_op(&k->w, &a, op_get("/registry/pods/00077777")), CTL_OK);
    assert_true(a.call.result.range.n == 1 && slice_eq(a.call.result.range.kvs[0].value, slice_of(bytes, value_n)));
    answer_fini(&a);
}

static bool is_forgotten(void *ctx) { return mem_bytes(MEM_CTL) < 15u << 20; }

/* Who reads all leaves nothing behind: values that are over the limit are forgotten though nobody asks for anything any more. */
static void test_many_read(void **state)
{
    struct kernel *k = *state;
    static const char bytes[256];
    for (size_t i = 0; i < 100000; i += 5000) many_puts(&k->w, i, 5000, slice_of(bytes, sizeof bytes));
    struct ctl_call call = {.op = {.kind = CTL_RANGE, .range = {.key = SLICE("/"), .end = SLICE("0")}}, .done = all_read};
    uint64_t most = 0;
    for (all_read_n = 0; all_read_n < 2 * 100000;) {
        size_t before = all_read_n;
        ctl_submit(k->w.ctl, &call);
        while (all_read_n == before) {
            loop_turn(k->w.loop, 20);
            most = MAX(most, mem_bytes(MEM_CTL));
        }
    }
    assert_true(most > 25u << 20); /* or this shows nothing */
    assert_true(k->w.run(&k->w, is_forgotten, k, 500)); /* before it is quiet for long */
}

static void test_many(void **state) { many_keys(*state, 28); }
static void test_many_large(void **state) { many_keys(*state, 256); }

/* Thousands of watches: each is told of its own key, and only of that. */
static void test_many_watches(void **state)
{
    struct kernel *k = *state;
    enum { N = 5000 };
    struct seen *s = mem_new(MEM_MISC, N * sizeof *s);
    char key[32], end[32];
    for (size_t i = 0; i < N; i++) {
        snprintf(key, sizeof key, "/registry/pods/%08zu", i);
        snprintf(end, sizeof end, "/registry/pods/%08zu", i + 3);
        s[i].quiet = true;
        struct ctl_watch_conf conf = {.key = slice_cstr(key), .end = slice_cstr(i % 2 ? end : "")};
        seen_start(&k->w, &s[i], &conf);
    }
    many_puts(&k->w, 0, N, SLICE("v"));
    for (size_t i = 0; i < N; i++) {
        size_t want = i % 2 ? MIN(3u, N - i) : 1;
        seen_wait(&k->w, &s[i], want);
        assert_int_equal(s[i].events, want);
    }
    for (size_t i = 0; i < N; i++) seen_stop(&s[i]);
    mem_free(s);
}

/* Calls that wait when the store closes end, each once. */
static size_t stopped_n;
static void stopped(struct ctl_call *call)
{
    assert_true(call->error == CTL_STOPPED || call->error == CTL_OK);
    stopped_n++;
}

static void test_close(void **state)
{
    struct kernel *k = *state;
    struct ctl_call calls[20];
    struct seen s = {0};
    stopped_n = 0;
    seen_start(&k->w, &s, &(struct ctl_watch_conf){.key = SLICE("a")});
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        calls[i] = (struct ctl_call){.op = i % 2 ? op_put("a", "1") : op_get("a"), .done = stopped};
        ctl_submit(k->w.ctl, &calls[i]);
        if (i == 10) loop_turn(k->w.loop, 0);
    }
    k->closed = false;
    ctl_close(k->w.ctl, kernel_closed, k);
    seen_wait(&k->w, &s, 1000);
    assert_true(s.ended && s.error == CTL_STOPPED);
    seen_stop(&s);
    assert_true(kernel_run(&k->w, kernel_is_closed, k, 10000));
    assert_int_equal(stopped_n, COUNT_OF(calls));
    k->w.ctl = NULL;
}

static const struct CMUnitTest own_tests[] = {
    cmocka_unit_test(test_reopen), cmocka_unit_test(test_in_use), cmocka_unit_test(test_damaged), cmocka_unit_test(test_many),
    cmocka_unit_test(test_many_large), cmocka_unit_test(test_many_read),
    cmocka_unit_test(test_many_watches), cmocka_unit_test(test_close),
};

int main(void)
{
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t i = 0; i < ctl_scenarios_n; i++) tests[n++] = ctl_scenarios[i];
    for (size_t i = 0; i < COUNT_OF(own_tests); i++) tests[n++] = own_tests[i];
    for (size_t i = 0; i < n; i++) {
        tests[i].setup_func = setup;
        tests[i].teardown_func = teardown;
    }
    return _cmocka_run_group_tests("ctl", tests, n, NULL, NULL);
}
