/* objstore_test.c - objects in the control store, on the simulator: what is written where, history and its bounds, the way back, conflicts, what others
 * have put there, a full disk.
 */
#include "objstore.h"
#include "seal.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct {
    struct loop *loop;
    struct ctl *ctl;
    struct objstore *s;
    struct keyring *keys;
    bool over, closed;
    int calls, fail_at; /* the one that fails, and all behind it; 0: none */
    struct objstore *other;             /* reads before each step of this call: */
    const struct ctl_call *watched;
    struct objstore_read reads[40];
    int reads_n;
} W;

static void other_over(struct objstore_read *r) {}

/* Between objstore and the store. */
#undef ctl_submit
void ctl_submit(struct ctl *c, struct ctl_call *call);
void wire_submit(struct ctl *c, struct ctl_call *call)
{
    static struct ctl_op on_no_lease = {.kind = CTL_PUT, .put = {.key = SLICE("x"), .lease = 77}};
    if (call == W.watched && W.reads_n < 40) {
        struct objstore_read *r = &W.reads[W.reads_n++];
        *r = (struct objstore_read){.done = other_over};
        objstore_read(W.other, r);
    }
    if (W.fail_at && ++W.calls >= W.fail_at)
        call->op = on_no_lease; /* there is none */
    ctl_submit(c, call);
}

static bool is_over(void *ctx) { return W.over; }
static bool is_closed(void *ctx) { return W.closed; }
static void closed(void *ctx) { W.closed = true; }

static void until_over(void)
{
    assert_true(sim_run(is_over, NULL, 60000));
    W.over = false;
}

static void store_open(const struct objstore_conf *conf)
{
    struct ctl_own_conf cc;
    struct buf why = {0};
    ctl_own_conf_default(&cc);
    cc.dir = "/ctl";
    cc.history_ms = 0;
    if (ctl_own_open(&cc, W.loop, &W.ctl, &why) != OK)
        fail_msg("%s", why.p);
    W.s = objstore_new(conf);
    objstore_on(W.s, W.ctl);
}

static void store_close(void)
{
    W.closed = false;
    objstore_on(W.s, NULL);
    ctl_close(W.ctl, closed, NULL);
    assert_true(sim_run(is_closed, NULL, 60000));
    objstore_free(W.s);
}

static struct objstore_conf conf_of(uint32_t revisions, uint64_t bytes)
{
    struct objstore_conf conf;
    objstore_conf_default(&conf);
    conf.revisions_max = revisions ? revisions : conf.revisions_max;
    conf.history_bytes_max = bytes ? bytes : conf.history_bytes_max;
    conf.keys = W.keys;
    return conf;
}

static int setup(void **state)
{
    struct sim_conf sc = {.seed = 1};
    struct buf why = {0};
    memset(&W, 0, sizeof W);
    sim_start(&sc);
    sim_quiet();
    W.loop = loop_new("control");
    assert_int_equal(keyring_read(SLICE("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), &W.keys, &why), OK);
    struct objstore_conf conf = conf_of(0, 0);
    store_open(&conf);
    return 0;
}

static int teardown(void **state)
{
    store_close();
    keyring_free(W.keys);
    loop_free(W.loop);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_MANIFEST), 0);
    return 0;
}

/* ---- asking ---- */

/* ConfigMaps by "name=value name=value", and a Secret by "!name=value". */
static struct objset *set_of(const char *text)
{
    struct objset *s = objset_new();
    struct buf yaml = {0};
    struct diags d = {0};
    struct slice rest = slice_cstr(text), value;
    while (rest.n) {
        struct slice name = slice_cut(slice_cut(rest, ' ', &rest), '=', &value);
        bool secret = name.p[0] == '!';
        buf_printf(&yaml, "apiVersion: v1\nkind: %s\nmetadata: { name: " SLICE_FMT " }\n%s: { v: \"" SLICE_FMT "\" }\n---\n", secret ? "Secret" : "ConfigMap",
                   (int)name.n - secret, name.p + secret, secret ? "stringData" : "data", SLICE_ARG(value));
    }
    objset_read(s, "t.yaml", "/srv", buf_slice(&yaml), "default", false, &d);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    buf_free(&yaml);
    return s;
}

static void text_of(const struct objset *s, struct buf *out)
{
    buf_clear(out);
    buf_reserve(out, 1);
    out->p[0] = 0;
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        buf_printf(out, "%s%s%s=%s", out->n ? " " : "", o->kind == OBJ_SECRET ? "!" : "", o->name, o->data.n ? o->data.items[0].value : "");
    }
}

static void expect_set(const struct objset *s, const char *want)
{
    struct buf b = {0};
    text_of(s, &b);
    assert_string_equal(b.p, want);
    buf_free(&b);
}

static void read_over(struct objstore_read *r) { W.over = true; }
static struct objstore_read read_all(void)
{
    static struct objstore_read r;
    r = (struct objstore_read){.done = read_over};
    objstore_read(W.s, &r);
    assert_false(W.over);
    until_over();
    return r;
}
static void read_fini(struct objstore_read *r)
{
    objset_free(r->set);
    diags_free(&r->diags);
    objstore_op_fini(&r->op);
}

static void expect_stored(const char *want)
{
    struct objstore_read r = read_all();
    assert_int_equal(r.op.error, OK);
    assert_int_equal(r.diags.n, 0);
    expect_set(r.set, want);
    read_fini(&r);
}

static void commit_over(struct objstore_commit *c) { W.over = true; }
static enum err commit(struct objset *from, struct objset *to, const char *what, struct buf *why)
{
    struct objstore_commit c = {.done = commit_over, .from = from, .to = to, .by = "me", .what = what, .replace_unread = true};
    enum err e = objstore_commit(W.s, &c);
    if (e == OK) {
        until_over();
        e = c.op.error;
    }
    if (why && c.op.why.n)
        buf_adds(why, c.op.why.p);
    objstore_op_fini(&c.op);
    return e;
}

/* From one text to another, as an apply does it: what replaces something inherits from it. */
static enum err change(const char *from, const char *to, const char *what)
{
    struct objstore_read r = read_all();
    expect_set(r.set, from);
    struct objset *next = objset_copy(r.set), *given = set_of(to), *named = set_of(to);
    objset_merge(next, given);
    for (size_t i = objset_n(next); i-- > 0;) {
        const struct object *o = objset_at(next, i);
        if (!objset_find(named, o->kind, o->ns, o->name))
            objset_remove(next, o->kind, o->ns, o->name);
    }
    objset_keep_same(next, r.set, true);
    enum err e = commit(r.set, next, what, NULL);
    objset_free(next);
    objset_free(given);
    objset_free(named);
    read_fini(&r);
    return e;
}

static void newest_over(struct objstore_newest *n) { W.over = true; }
static bool newest_here;
static int64_t newest(struct objstore *s, enum err want)
{
    struct objstore_newest n = {.done = newest_over};
    objstore_newest(s, &n);
    until_over();
    assert_int_equal(n.op.error, want);
    assert_true((want != OK) == (n.op.why.n != 0));
    objstore_op_fini(&n.op);
    newest_here = objstore_has(s, &n);
    return n.revision;
}

static void list_over(struct objstore_list *l) { W.over = true; }
static char *history(void)
{
    struct objstore_list l = {.done = list_over};
    objstore_list(W.s, &l);
    until_over();
    assert_int_equal(l.op.error, OK);
    objstore_op_fini(&l.op);
    return buf_take(&l.json, NULL);
}

static void back_over(struct objstore_back *b) { W.over = true; }
static void past_text(const struct objstore_past *p, struct buf *out)
{
    text_of(p->set, out);
    for (size_t i = 0; i < p->absent_n; i++)
        buf_printf(out, "%s-%s", out->n ? " " : "", p->absent[i].name);
}
/* "after | before", or the error. */
static void expect_back(int64_t revision, bool itself, const char *want)
{
    struct objstore_back b = {.done = back_over, .revision = revision, .itself = itself};
    struct buf text = {0}, before = {0};
    objstore_back(W.s, &b);
    until_over();
    if (b.op.error) {
        buf_adds(&text, b.op.why.p);
    } else {
        past_text(&b.after, &text);
        past_text(&b.before, &before);
        buf_printf(&text, " | %s", before.p);
        assert_true(!itself || strstr(b.summary, "\"changes\":[{"));
    }
    assert_string_equal(text.p, want);
    buf_free(&text);
    buf_free(&before);
    objstore_back_fini(&b);
}

static void ctl_over(struct ctl_call *call) { W.over = true; }
static void ctl_put(const char *key, const char *value)
{
    struct ctl_call call = {.op = {.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = slice_cstr(value)}}, .done = ctl_over};
    ctl_submit(W.ctl, &call);
    until_over();
    assert_int_equal(call.error, CTL_OK);
}
/* All keys, and in values what looks like `part`, is counted. */
static struct buf keys_text;
static size_t parts;
static const char *part;
static void keys_over(struct ctl_call *call)
{
    buf_clear(&keys_text);
    parts = 0;
    for (size_t i = 0; i < call->result.range.n; i++) {
        struct slice v = call->result.range.kvs[i].value;
        buf_printf(&keys_text, SLICE_FMT "\n", SLICE_ARG(call->result.range.kvs[i].key));
        parts += part && memmem(v.p, v.n, part, strlen(part)) != NULL;
    }
    W.over = true;
}
static const char *keys_now(const char *look_for)
{
    struct ctl_call call = {.op = {.kind = CTL_RANGE, .range = {.key = SLICE("/"), .end = SLICE("0")}}, .done = keys_over};
    part = look_for;
    ctl_submit(W.ctl, &call);
    until_over();
    return keys_text.p;
}

/* ---- the tests ---- */

/* Objects whose stored values are as they were read are shared with what is in force; whatever is different is read. */
static void test_read_again(void **state)
{
    static struct objset *in_force;
    static struct objstore_read r;
    in_force = objset_new();
    assert_int_equal(change("", "a=1 b=1 c=1 !s=x", "apply"), OK);
    for (int round = 0; round < 5; round++) {
        if (round == 2) {
            struct objset *to = objset_copy(in_force), *given = set_of("b=2 d=1"); /* b changed, c deleted, d new */
            assert_true(objset_remove(to, OBJ_CONFIGMAP, "default", "c"));
            objset_merge(to, given);
            assert_int_equal(commit(in_force, to, "apply", NULL), OK);
            objset_free(given);
            objset_free(to);
        } else if (round == 4) { /* what is in force is not what was read */
            objset_free(in_force);
            in_force = set_of("a=9 b=9 d=9 !s=9");
        }
        r = (struct objstore_read){.done = read_over, .base = &in_force};
        objstore_read(W.s, &r);
        until_over();
        assert_int_equal(r.op.error, OK);
        expect_set(r.set, round < 2 ? "a=1 b=1 c=1 !s=x" : "a=1 b=2 d=1 !s=x");
        uint32_t shared = 0;
        for (size_t i = 0; i < objset_n(r.set); i++) {
            const struct object *o = objset_at(r.set, i);
            const struct object *was = objset_find(in_force, o->kind, o->ns, o->name);
            shared += was && was->name == o->name;
        }
        assert_int_equal(shared, ((uint32_t[]){0, 4, 2, 4, 0})[round]);
        objset_free(in_force);
        in_force = r.set;
        r.set = NULL;
        read_fini(&r);
    }
    objset_free(in_force);
}

static void test_layout(void **state)
{
    struct objstore_read r = read_all();
    assert_true(r.none && objset_n(r.set) == 0 && objstore_revision(W.s) == 0);
    read_fini(&r);
    assert_int_equal(newest(W.s, OK), 0);
    assert_true(newest_here);
    assert_int_equal(change("", "a=1 !s=hidden", "apply"), OK);
    assert_string_equal(keys_now("hidden"), "/weir/head\n/weir/history/0000000001\n/weir/history/0000000001/ConfigMap/default/a\n/weir/history/0000000001/Secret/default/s\n"
                                            "/weir/objects/ConfigMap/default/a\n/weir/objects/Secret/default/s\n");
    assert_int_equal(parts, 0); /* no value of a Secret is in the store */
    assert_int_equal(change("a=1 !s=hidden", "a=1 !s=other", "apply"), OK);
    (void)keys_now("hidden");
    assert_int_equal(parts, 0); /* nor in history */
    expect_stored("a=1 !s=other");
    expect_back(1, false, "!s=hidden | ");
    assert_int_equal(change("a=1 !s=other", "a=1 !s=other", "apply"), ERR_NOTFOUND); /* no difference, no revision */
    assert_int_equal(objstore_revision(W.s), 2);
    struct objstore_conf conf = conf_of(0, 0);
    struct objstore *elsewhere = objstore_new(&conf); /* another node, which has read nothing */
    objstore_on(elsewhere, W.ctl);
    assert_int_equal(newest(elsewhere, OK), 2);
    assert_true(!newest_here && newest(W.s, OK) == 2 && newest_here);
    int64_t at = objstore_at(W.s);
    assert_true(at > 1 && objstore_at(elsewhere) == 0);
    assert_true(objstore_has(W.s, &(struct objstore_newest){.revision = 1, .at = at - 1, .since = at - 1}));  /* committed here since */
    assert_false(objstore_has(W.s, &(struct objstore_newest){.revision = 1, .at = at - 1, .since = at}));     /* a store that is older than it was */
    assert_false(objstore_has(W.s, &(struct objstore_newest){.revision = 1, .at = at, .since = at}));         /* a large change is being written */
    assert_int_equal(objstore_revision(elsewhere), 0);
    objstore_free(elsewhere);
    store_close();
    store_open(&conf);
    expect_stored("a=1 !s=other");
    assert_int_equal(objstore_revision(W.s), 2);
    buf_free(&keys_text);
}

static void test_history(void **state)
{
    assert_int_equal(change("", "a=1 b=1", "apply"), OK);
    assert_int_equal(change("a=1 b=1", "a=2 b=1 c=1", "apply"), OK);
    assert_int_equal(change("a=2 b=1 c=1", "a=2 c=1", "delete"), OK);
    assert_int_equal(change("a=2 c=1", "a=3 b=9 c=1", "apply"), OK);
    char *h = history();
    assert_non_null(strstr(h, "{\"revision\":4,\"items\":[\n{\"revision\":1,\"time\":\""));
    assert_non_null(strstr(h, "\"by\":\"me\",\"what\":\"delete\",\"changes\":[{\"kind\":\"ConfigMap\",\"namespace\":\"default\",\"name\":\"b\",\"change\":\"deleted\"}],\"bytes\":"));
    assert_non_null(strstr(h, "\"name\":\"a\",\"change\":\"configured\"},{\"kind\":\"ConfigMap\",\"namespace\":\"default\",\"name\":\"c\",\"change\":\"created\"}"));
    mem_free(h);
    expect_back(4, false, " | ");
    expect_back(3, false, "a=2 -b | ");
    expect_back(2, false, "a=2 b=1 | ");
    expect_back(1, false, "a=1 b=1 -c | ");
    expect_back(4, true, " | a=2 -b");
    expect_back(2, true, "a=2 b=1 | a=1 -c");
    expect_back(1, true, "a=1 b=1 -c | -a -b");
    expect_back(5, false, "there is no revision 5 in history: it has 1 to 4");
    expect_back(0, false, "there is no revision 0 in history: it has 1 to 4");
    expect_back(-7, true, "there is no revision -7 in history: it has 1 to 4");
}

static void test_history_is_bounded(void **state)
{
    struct objstore_conf conf = conf_of(3, 0);
    store_close();
    store_open(&conf);
    char from[32] = "", to[32];
    for (int i = 1; i <= 6; i++) {
        snprintf(to, sizeof to, "a=%d b=0", i);
        assert_int_equal(change(from, to, "apply"), OK);
        memcpy(from, to, sizeof from);
    }
    assert_string_equal(keys_now(NULL), "/weir/head\n/weir/history/0000000004\n/weir/history/0000000004/ConfigMap/default/a\n/weir/history/0000000005\n/weir/history/0000000005/ConfigMap/default/a\n"
                                        "/weir/history/0000000006\n/weir/history/0000000006/ConfigMap/default/a\n/weir/objects/ConfigMap/default/a\n/weir/objects/ConfigMap/default/b\n");
    expect_back(3, false, "a=3 | ");
    expect_back(3, true, "there is no revision 3 in history: it has 4 to 6");
    expect_back(2, false, "there is no revision 2 in history: it has 4 to 6");
    conf = conf_of(0, 900); /* fewer bytes: room for about one */
    store_close();
    store_open(&conf);
    assert_int_equal(change("a=6 b=0", "a=7 b=0", "apply"), OK);
    expect_back(7, true, " | a=6");
    expect_back(4, false, "there is no revision 4 in history: it has 7 to 7");
    buf_free(&keys_text);
}

static void test_conflict(void **state)
{
    assert_int_equal(change("", "a=1", "apply"), OK);
    struct objstore_read r = read_all();
    ctl_put("/weir/head", "{\"revision\":1,\"history\":[]}"); /* another node */
    struct objset *next = set_of("a=2");
    struct buf why = {0};
    assert_int_equal(commit(r.set, next, "apply", &why), ERR_INUSE);
    assert_string_equal(why.p, "another change came first");
    buf_free(&why);
    expect_stored("a=1"); /* read again, all is well */
    assert_int_equal(commit(r.set, next, "apply", &why), OK);
    expect_stored("a=2");
    expect_back(1, false, "a=1 | ");
    objset_free(next);
    read_fini(&r);
}

/* What others wrote there, or another version, is an error with its place; the manifests can be started with all the same. */
static void test_unread(void **state)
{
    assert_int_equal(change("", "a=1", "apply"), OK);
    ctl_put("/weir/objects/ConfigMap/default/b", "{\"apiVersion\":");
    ctl_put("/weir/objects/Thing/default/c", "{}");
    struct objstore_read r = read_all();
    assert_int_equal(r.op.error, ERR_INVALID);
    assert_int_equal(r.diags.errors, 2);
    assert_non_null(strstr(r.diags.items[0].reason, "it is no JSON"));
    assert_string_equal(r.diags.items[1].file, "Thing/default/c");
    struct objset *next = set_of("a=1 b=2");
    objset_keep_same(next, r.set, true);
    assert_int_equal(commit(r.set, next, "up", NULL), OK);
    expect_stored("a=1 b=2");
    objset_free(next);
    read_fini(&r);
    ctl_put("/weir/head", "[]");
    r = read_all();
    assert_int_equal(r.op.error, ERR_INVALID);
    assert_string_equal(r.diags.items[0].file, "/weir/head");
    read_fini(&r);
    static const char *const heads[] = {"{\"revision\":0}", "{\"revision\":3,\"history\":[[1,5],[3,5]]}", "{\"revision\":3,\"history\":[[3,-1]]}", "{\"revision\":2,\"history\":[[0,1],[1,1],[2,1]]}", "{\"revision\":99999999999}"};
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        ctl_put("/weir/head", heads[i]);
        assert_int_equal(newest(W.s, ERR_INVALID), 0);
        r = read_all();
        assert_int_equal(r.op.error, ERR_INVALID);
        read_fini(&r);
    }
}

/* Another node has put what this one can't read. What is here is older than that, and must not be taken for what a change begins with. */
static void test_partial(void **state)
{
    assert_int_equal(change("", "a=1", "apply"), OK);
    struct objstore_read r = read_all(), later;
    ctl_put("/weir/objects/ConfigMap/default/a", "{\"apiVersion\":");
    ctl_put("/weir/head", "{\"revision\":2,\"history\":[]}");
    later = read_all();
    assert_int_equal(later.op.error, ERR_INVALID);
    read_fini(&later);
    struct objset *next = set_of("a=1 b=2");
    struct objstore_commit c = {.done = commit_over, .from = r.set, .to = next, .by = "me", .what = "apply"};
    assert_int_equal(objstore_commit(W.s, &c), ERR_INVALID);
    assert_string_equal(c.op.why.p, "nothing can be changed here while what the control store has can't be read: ConfigMap/default/a; the node's log says why");
    objstore_op_fini(&c.op);
    assert_string_equal(keys_now(NULL), "/weir/head\n/weir/history/0000000001\n/weir/history/0000000001/ConfigMap/default/a\n/weir/objects/ConfigMap/default/a\n");
    struct objset *given = set_of("a=7");
    objset_merge(next, given);
    assert_int_equal(commit(r.set, next, "up", NULL), OK); /* what replaces all of it does not build on it */
    expect_stored("a=7 b=2");
    objset_free(given);
    objset_free(next);
    read_fini(&r);
    buf_free(&keys_text);
}

/* Nothing changes when it can't be written. */
static void test_disk_full(void **state)
{
    assert_int_equal(change("", "a=1", "apply"), OK);
    static char large[400100]; /* more than there is room for ahead of the store's WAL */
    memset(large, 'x', sizeof large - 1);
    memcpy(large, "a=", 2);
    sim_disk_bytes_max(sim_file("/ctl/ctl.db")->n + sim_file("/ctl/ctl.db-wal")->n + 20000);
    struct objstore_read r = read_all();
    struct objset *next = set_of(large);
    struct buf why = {0};
    assert_int_equal(commit(r.set, next, "apply", &why), ERR_NOSPACE);
    assert_non_null(strstr(why.p, "no space"));
    expect_stored("a=1");
    assert_int_equal(objstore_revision(W.s), 1);
    sim_disk_bytes_max(0);
    assert_int_equal(commit(r.set, next, "apply", NULL), OK);
    expect_stored(large);
    buf_free(&why);
    objset_free(next);
    read_fini(&r);
}

/* ---- large changes ---- */

#define LARGE_OLD "a=1 b=1 c=1 d=1 e=1 f=1"
#define LARGE_NEW "a=2 b=2 c=2 d=2 g=2 h=2 i=2"

static void large_begin(void)
{
    struct objstore_conf conf = conf_of(0, 0);
    conf.ops_max = 3;
    conf.ops_bytes_max = 100000;
    objstore_free(W.s);
    W.s = objstore_new(&conf);
    objstore_on(W.s, W.ctl);
    W.fail_at = W.calls = 0;
}

static bool redo_left(void) { return strstr(keys_now(NULL), "/weir/redo/") != NULL; }

static void test_large(void **state)
{
    large_begin();
    assert_int_equal(change("", LARGE_OLD " !s=hidden", "apply"), OK);
    assert_false(redo_left());
    expect_stored(LARGE_OLD " !s=hidden");
    assert_int_equal(change(LARGE_OLD " !s=hidden", LARGE_NEW, "apply"), OK);
    expect_stored(LARGE_NEW);
    expect_back(1, false, "a=1 b=1 c=1 d=1 e=1 f=1 !s=hidden -g -h -i | ");
    expect_back(2, true, " | a=1 b=1 c=1 d=1 e=1 f=1 !s=hidden -g -h -i");
    assert_int_equal(change(LARGE_NEW, "a=2", "delete"), OK); /* this store's head is the right one */
    assert_false(redo_left());
    assert_int_equal(objstore_revision(W.s), 3);
    buf_free(&keys_text);
}

/* The store goes away at each step: for whoever reads then, all of it was done or nothing. */
static void test_large_torn(void **state)
{
    int before = 0, after = 0;
    for (int at = 1; at <= 20; at++) {
        large_begin();
        struct objstore_read r = read_all();
        struct objset *empty = set_of("a=0"), *old = set_of(LARGE_OLD), *next = set_of(LARGE_NEW);
        enum err e = commit(r.set, empty, "up", NULL); /* from whatever it was */
        assert_true(e == OK || e == ERR_NOTFOUND);
        assert_int_equal(commit(empty, old, "up", NULL), OK);
        int64_t revision = objstore_revision(W.s);
        W.calls = 0;
        W.fail_at = at;
        e = commit(old, next, "apply", NULL);
        large_begin(); /* another node, or this one's next engine */
        expect_stored(e == OK ? LARGE_NEW : LARGE_OLD);
        before += e != OK;
        after += e == OK;
        assert_int_equal(objstore_revision(W.s), revision + (e == OK));
        if (e == OK)
            expect_back(revision, false, LARGE_OLD " -g -h -i | ");
        assert_int_equal(change(e == OK ? LARGE_NEW : LARGE_OLD, "a=5 b=5 c=5 d=5", "apply"), OK);
        assert_false(redo_left()); /* also what was never decided */
        objset_free(empty);
        objset_free(old);
        objset_free(next);
        read_fini(&r);
    }
    assert_true(before >= 6 && after >= 6); /* parts and the decision; carrying them out */
    buf_free(&keys_text);
}

/* Others read while it is written, and help; or have changed something meanwhile. */
static void test_large_and_others(void **state)
{
    struct objstore_conf conf = conf_of(0, 0);
    struct objstore *other = objstore_new(&conf);
    objstore_on(other, W.ctl);
    large_begin();
    struct objset *none = set_of(""), *old = set_of(LARGE_OLD), *next = set_of(LARGE_NEW);
    assert_int_equal(commit(none, old, "up", NULL), OK);
    struct objstore_commit c = {.done = commit_over, .from = old, .to = next, .by = "me", .what = "apply"};
    W.other = other;
    W.watched = &c.op.call;
    assert_int_equal(objstore_commit(W.s, &c), OK);
    until_over();
    W.watched = NULL;
    (void)sim_run(is_over, NULL, 2000);
    assert_int_equal(c.op.error, OK);
    objstore_op_fini(&c.op);
    int olds = 0, news = 0;
    for (int i = 0; i < W.reads_n; i++) {
        struct buf text = {0};
        assert_int_equal(W.reads[i].op.error, OK);
        text_of(W.reads[i].set, &text);
        olds += strcmp(text.p, LARGE_OLD) == 0;
        news += strcmp(text.p, LARGE_NEW) == 0;
        buf_free(&text);
        read_fini(&W.reads[i]);
    }
    assert_int_equal(olds + news, W.reads_n); /* nobody has seen a part */
    assert_true(olds && news);
    expect_stored(LARGE_NEW);
    assert_false(redo_left());
    ctl_put("/weir/head", "{\"revision\":2,\"history\":[]}");
    struct buf why = {0};
    assert_int_equal(commit(next, old, "apply", &why), ERR_INUSE);
    assert_string_equal(why.p, "another change came first");
    assert_false(redo_left());
    ctl_put("/weir/head", "{\"revision\":3,\"history\":[],\"redo\":{\"id\":\"0123456789abcdef\",\"parts\":2}}"); /* whose parts are nowhere */
    struct objstore_read r = read_all();
    assert_int_equal(r.op.error, ERR_AGAIN);
    read_fini(&r);
    buf_free(&why);
    objset_free(none);
    objset_free(old);
    objset_free(next);
    objstore_free(other);
    buf_free(&keys_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_again, setup, teardown), cmocka_unit_test_setup_teardown(test_layout, setup, teardown),   cmocka_unit_test_setup_teardown(test_history, setup, teardown),
        cmocka_unit_test_setup_teardown(test_history_is_bounded, setup, teardown), cmocka_unit_test_setup_teardown(test_conflict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unread, setup, teardown),   cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_partial, setup, teardown),  cmocka_unit_test_setup_teardown(test_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_torn, setup, teardown), cmocka_unit_test_setup_teardown(test_large_and_others, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
