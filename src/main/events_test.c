/* events_test.c - events on the simulator: counted, combined, bounded, written now and then, known to the next engine, forgotten after an hour. */
#include "events.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct {
    struct loop *loop;
    struct ctl *ctl;
    struct events *ev;
    bool closed, over;
    struct buf text;
    size_t ops_max; /* of a transaction of events; 0: the store takes none */
} W;

/* Between events and the store. */
#undef ctl_submit
void ctl_submit(struct ctl *c, struct ctl_call *call);
void wire_submit(struct ctl *c, struct ctl_call *call)
{
    size_t n = call->op.kind == CTL_TXN ? call->op.txn.then_n : 1;
    if (n <= W.ops_max) {
        ctl_submit(c, call);
        return;
    }
    call->op = (struct ctl_op){.kind = CTL_TXN}; /* which fails, for it is on a lease that is not there */
    static struct ctl_op on_no_lease = {.kind = CTL_PUT, .put = {.key = SLICE("x"), .lease = 77}};
    call->op.txn.then_ops = &on_no_lease;
    call->op.txn.then_n = 1;
    ctl_submit(c, call);
}

static bool never(void *ctx) { return false; }
static bool is_closed(void *ctx) { return W.closed; }
static bool is_over(void *ctx) { return W.over; }
static bool is_written(void *ctx) { return !events_busy(W.ev); }
static void closed(void *ctx) { W.closed = true; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }

static void begin(void)
{
    struct ctl_own_conf conf;
    struct buf why = {0};
    ctl_own_conf_default(&conf);
    conf.dir = "/ctl";
    if (ctl_own_open(&conf, W.loop, &W.ctl, &why) != OK)
        fail_msg("%s", why.p);
    W.ev = events_new(W.loop, "node");
    events_on(W.ev, W.ctl);
}

/* written: as an engine that makes way; else as one that is killed. */
static void end(bool written)
{
    W.closed = false;
    if (written) {
        events_write(W.ev);
        assert_true(sim_run(is_written, NULL, 10000));
    }
    ctl_close(W.ctl, closed, NULL);
    assert_true(sim_run(is_closed, NULL, 60000));
    events_on(W.ev, NULL);
    events_free(W.ev);
}

static int setup(void **state)
{
    struct sim_conf sc = {.seed = 1};
    memset(&W, 0, sizeof W);
    W.ops_max = SIZE_MAX;
    sim_start(&sc);
    sim_quiet();
    W.loop = loop_new("control");
    begin();
    return 0;
}

static int teardown(void **state)
{
    end(true);
    loop_free(W.loop);
    sim_stop();
    buf_free(&W.text);
    assert_int_equal(mem_bytes(MEM_API), 0);
    return 0;
}

static void happen(const char *name, const char *reason, const char *message)
{
    events_add(W.ev, &(struct node_event){.ns = "shop", .kind = "Pod", .name = name, .reason = reason, .message = message, .warning = strcmp(reason, "Started") != 0});
}

static void note(void *ctx, const struct node_event *e) { buf_printf(&W.text, "%s%s %s %u%s", W.text.n ? "; " : "", e->name, e->message, e->count, e->warning ? "!" : ""); }
static const char *all(uint64_t after)
{
    buf_clear(&W.text);
    buf_reserve(&W.text, 1);
    W.text.p[0] = 0;
    events_each(W.ev, after, note, NULL);
    return W.text.p;
}

static uint64_t last_seq;
static void seq_of(void *ctx, const struct node_event *e) { last_seq = e->seq; }

static int64_t store_revision(void)
{
    struct ctl_status s;
    ctl_status(W.ctl, &s);
    return s.revision;
}

static size_t stored_n;
static void counted(struct ctl_call *call)
{
    stored_n = call->result.range.n;
    W.over = true;
}
static size_t stored(void)
{
    struct ctl_call call = {.op = {.kind = CTL_RANGE, .range = {.key = SLICE("/weir/events/"), .end = SLICE("/weir/events0")}}, .done = counted};
    W.over = false;
    ctl_submit(W.ctl, &call);
    assert_true(sim_run(is_over, NULL, 10000));
    return stored_n;
}

static void test_counted(void **state)
{
    happen("a", "Started", "started");
    happen("a", "Exited", "exit status 1");
    happen("a", "Started", "started");
    happen("b", "Started", "started");
    assert_string_equal(all(0), "a exit status 1 1!; a started 2; b started 1");
    events_each(W.ev, 0, seq_of, NULL);
    happen("a", "Exited", "exit status 1");
    assert_string_equal(all(last_seq), "a exit status 1 2!"); /* what happened again is told again */
}

static void json_seen(void *ctx, const struct node_event *e)
{
    buf_clear(&W.text);
    buf_add_slice(&W.text, e->json);
}

static void test_json(void **state)
{
    happen("a\"b", "Failed", "no \"such\" file\xff");
    events_each(W.ev, 0, json_seen, NULL);
    assert_non_null(strstr(W.text.p, "{\"apiVersion\":\"v1\",\"kind\":\"Event\",\"metadata\":{\"name\":\"a\\\"b."));
    assert_non_null(strstr(W.text.p, "\"involvedObject\":{\"kind\":\"Pod\",\"namespace\":\"shop\",\"name\":\"a\\\"b\"},\"reason\":\"Failed\",\"message\":\"no \\\"such\\\" file?\",\"type\":\"Warning\",\"count\":1,"));
    assert_non_null(strstr(W.text.p, "\"source\":{\"component\":\"weir\",\"host\":\"node\"}"));
}

/* What is different each time does not push out everything else. */
static void test_similar(void **state)
{
    char text[32];
    happen("quiet", "Started", "started");
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "at %d", i);
        happen("noisy", "Unhealthy", text);
    }
    assert_non_null(strstr(all(0), "quiet started 1; noisy at 0 1!; noisy at 1 1!"));
    assert_non_null(strstr(all(0), "noisy at 8 1!; noisy at 99 91!"));
}

static void test_bounded(void **state)
{
    char name[32];
    for (int i = 0; i < EVENTS_MAX + 50; i++) {
        snprintf(name, sizeof name, "n%d", i);
        happen(name, "Started", "started");
        if (i == EVENTS_MAX - 1)
            pass(EVENTS_WRITE_MS + 1000);
    }
    assert_non_null(strstr(all(0), "n50 started 1; n51 "));
    assert_null(strstr(all(0), "n49 started"));
    pass(EVENTS_WRITE_MS + 1000);
    assert_int_equal(stored(), EVENTS_MAX);
}

static void test_written(void **state)
{
    int64_t before = store_revision();
    for (int i = 0; i < 30; i++) { /* a replica that crashes all the time */
        happen("a", "Exited", "exit status 1");
        pass(1000);
    }
    assert_int_equal(store_revision() - before, 1);
    for (int i = 0; i < 570; i++) {
        happen("a", "Exited", "exit status 1");
        pass(1000);
    }
    assert_in_range(store_revision() - before, 2, 3); /* in ten minutes */
    happen("b", "Started", "started");
    end(true);
    begin();
    pass(1000);
    assert_string_equal(all(0), "a exit status 1 600!; b started 1");
    happen("a", "Exited", "exit status 1");
    assert_string_equal(all(0), "b started 1; a exit status 1 601!"); /* it is the same one */
    pass(EVENTS_WRITE_MS + 1000);
    end(false);
    begin();
    happen("c", "Started", "started"); /* before what was is read */
    pass(1000);
    assert_string_equal(all(0), "b started 1; a exit status 1 601!; c started 1");
}

static void test_forgotten(void **state)
{
    happen("a", "Started", "started");
    pass(EVENTS_KEPT_MS / 2);
    happen("b", "Started", "started");
    pass(EVENTS_KEPT_MS / 2 + 120000);
    assert_string_equal(all(0), "b started 1");
    assert_int_equal(stored(), 1);
    pass(EVENTS_KEPT_MS);
    assert_string_equal(all(0), "");
    assert_int_equal(stored(), 0);
}

/* As many as there may be, all written and all gone again, by a store that takes no larger transactions than an etcd cluster; and it is away for a while. */
static void test_many(void **state)
{
    char name[32];
    W.ops_max = 128;
    for (int i = 0; i < EVENTS_MAX; i++) {
        snprintf(name, sizeof name, "n%d", i);
        happen(name, "Started", "started");
    }
    pass(EVENTS_WRITE_MS + 1000);
    assert_int_equal(stored(), EVENTS_MAX);
    pass(EVENTS_KEPT_MS - EVENTS_WRITE_MS - 60000);
    W.ops_max = 0; /* takes nothing */
    pass(3 * 60000);
    assert_string_equal(all(0), "");
    assert_int_equal(stored(), EVENTS_MAX);
    W.ops_max = 128;
    pass(2 * 60000);
    assert_int_equal(stored(), 0);
    W.ops_max = SIZE_MAX;
}

static void put(const char *key, const char *value)
{
    struct ctl_call call = {.op = {.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = slice_cstr(value)}}, .done = counted};
    W.over = false;
    ctl_submit(W.ctl, &call);
    assert_true(sim_run(is_over, NULL, 10000));
}

/* Others may have written there. */
static void test_nonsense(void **state)
{
    put("/weir/events/a", "");
    put("/weir/events/b", "[]");
    put("/weir/events/c", "{\"involvedObject\":7,\"count\":-1}");
    put("/weir/events/d", "{\"involvedObject\":{\"kind\":\"Pod\",\"name\":\"x\"},\"reason\":\"R\",\"count\":1,\"weir.dev/stored\":{\"id\":\"0123456789abcdef0\",\"first_ns\":1,\"last_ns\":1}}");
    put("/weir/events/e", "{\"involvedObject\":{\"kind\":\"Pod\",\"name\":\"x\"},\"reason\":\"R\",\"count\":1,\"weir.dev/stored\":{\"id\":\"0123456789abcdef\",\"first_ns\":1,\"last_ns\":0}}");
    end(true);
    begin();
    pass(1000);
    assert_string_equal(all(0), "");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
/* What another node writes into the store that both have. */
static void store_put(const char *key, const char *host, const char *message, int count)
{
    struct buf value = {0};
    buf_printf(&value, "{\"kind\":\"Event\",\"involvedObject\":{\"kind\":\"Pod\",\"namespace\":\"shop\",\"name\":\"theirs\"},\"reason\":\"Started\",\"message\":\"%s\",\"type\":\"Normal\",\"count\":%d,"
                       "\"source\":{\"host\":\"%s\"},\"weir.dev/stored\":{\"id\":\"00000000000000ab\",\"first_ns\":1,\"last_ns\":2}}", message, count, host);
    struct ctl_call call = {.op = {.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = buf_slice(&value)}}, .done = counted};
    W.over = false;
    ctl_submit(W.ctl, &call);
    assert_true(sim_run(is_over, NULL, 10000));
    buf_free(&value);
    pass(100);
}

#define THEIRS "/weir/events/shop/theirs.00000000000000ab"

/* Nodes that share a store show each other's events, write and count their own, and let go of those of the dead. */
static void test_shared(void **state)
{
    end(true);
    begin();
    events_share(W.ev);
    events_on(W.ev, W.ctl);
    store_put(THEIRS, "other", "up", 1);
    happen("mine", "Started", "started");
    assert_string_equal(all(0), "theirs up 1; mine started 1");
    events_each(W.ev, 0, seq_of, NULL);
    store_put(THEIRS, "other", "up", 2); /* again: it is told again, as the other node says */
    assert_string_equal(all(last_seq), "theirs up 2");
    happen("theirs", "Started", "up"); /* is this node's own */
    assert_string_equal(all(last_seq), "theirs up 1"); /* both say it: it is shown once */
    pass(2 * EVENTS_WRITE_MS);
    assert_int_equal(stored(), 3);
    events_each(W.ev, 0, json_seen, NULL);
    assert_non_null(strstr(W.text.p, "\"host\":\"node\""));
    end(true);
    begin(); /* another engine alone takes all of them to be its own */
    assert_int_equal(stored(), 3);
    end(true);
    begin();
    events_share(W.ev);
    events_on(W.ev, W.ctl);
    pass(1000);
    assert_string_equal(all(0), "mine started 1; theirs up 1");
    pass(EVENTS_KEPT_MS - 600000);
    store_put(THEIRS, "other", "up", 3);
    pass(1200000); /* this node's are over, the other's is not */
    assert_string_equal(all(0), "theirs up 3");
    assert_int_equal(stored(), 1);
    pass(EVENTS_KEPT_MS); /* nobody says anything about it any more */
    assert_string_equal(all(0), "");
    assert_int_equal(stored(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_counted), T(test_json), T(test_similar), T(test_bounded), T(test_written), T(test_forgotten), T(test_many), T(test_nonsense), T(test_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
