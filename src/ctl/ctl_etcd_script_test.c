/* ctl_etcd_script_test.c - the engine of a cluster and members that do what a test tells them, in the simulator.
 *
 * The members are two that know etcd's protocol, and share one history: revision n has 1 + n % 3 puts of "w/a", "w/b", "w/c", and every watch sees all of them, from its
 * start on, in fragments when that is wanted. What is to be shown here is told to them: to hold answers back, to have another leader, to end a call with this status or
 * that, to be behind, to be full. So each test is one place where engine and cluster can misunderstand each other, and fails without the line of code that it is about.
 *
 * Then lives in which owners call back: from inside done(), events() and ended() they submit, start and stop watches (also the one that is being told), and close the store,
 * while terms change, connections break and members are slow. SIM_SEEDS says how many lives, ETCD_SEED runs one. Under AddressSanitizer this is what finds that
 * something is used after somebody who was told of it has ended it.
 */
#include "etcd_played_test.h"
#include "repeat_test.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMBERS 2
#define WATCHES_MAX 600
#define OK_TRAILERS "grpc-status: 0\r\n"
#define CLUSTER 7
#define RESTS_BYTES_MAX 20000 /* watches_bytes_max */

enum ask { ASK_STATUS, ASK_RANGE, ASK_PUT, ASK_KEEP, ASK_WATCH, ASK_OTHER, ASKS };

/* A watch that a member knows. */
struct known {
    struct question *q;              /* its stream; NULL: free */
    int64_t id, at;                  /* all up to that revision was sent */
    bool confirmed;
};
struct member {
    uint64_t id;
    int64_t behind;                  /* revisions that it does not know yet */
    bool blind;                      /* it knows no leader */
    bool deaf;                       /* it does not answer reads */
};

static struct {
    struct loop *loop;
    struct ctl *ctl;
    struct played played;
    struct member members[MEMBERS];
    struct known known[WATCHES_MAX];
    /* What the members are told: */
    uint64_t term, leader;
    int64_t revision;
    const char *version, *alarm;
    bool hold[ASKS];                 /* no answer */
    const char *trailers[ASKS];      /* this instead of an answer */
    uint16_t http[ASKS];             /* this status instead of 200 */
    bool stray;                      /* keys are told that nobody asked for */
    bool unreadable;                 /* puts are answered with bytes that are no message */
    bool fragments;
    /* What they have seen: */
    uint32_t asked[ASKS], progress_asked;
    int64_t start_revision;          /* of the last create_request */
    bool closing, closed;
    uint64_t random;
} W;

static uint32_t chance(uint32_t n) { return test_chance(&W.random, n); }
static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }

/* ---- the members: answers ---- */

static struct member *member_of(const struct question *q) { return &W.members[q->member]; }

/* Watches end with their stream. */
static void on_over(struct question *q)
{
    for (size_t i = 0; i < WATCHES_MAX; i++)
        if (W.known[i].q == q) W.known[i].q = NULL;
}

/* m NULL: no message. */
static void answer(struct question *q, const ProtobufCMessage *m, const char *trailers)
{
    struct buf b = {0};
    uint16_t status = W.http[q->ask] ? W.http[q->ask] : 200;
    if (m) etcd_write_frame(m, &b);
    if (m && W.unreadable && q->ask == ASK_PUT) memset(b.p + GRPC_FRAME_HEAD, 0xff, b.n - GRPC_FRAME_HEAD);
    played_answer(q, status, buf_slice(&b), trailers);
    buf_free(&b);
}

static void say(struct question *q, const ProtobufCMessage *m)
{
    struct buf b = {0};
    etcd_write_frame(m, &b);
    played_say(q, buf_slice(&b));
    buf_free(&b);
}

static Etcd__ResponseHeader *header(struct question *q, Etcd__ResponseHeader *h)
{
    etcd__response_header__init(h);
    h->cluster_id = CLUSTER;
    h->member_id = member_of(q)->id;
    h->raft_term = W.term;
    h->revision = W.revision - member_of(q)->behind;
    return h;
}

static void status_answer(struct question *q)
{
    Etcd__StatusResponse m = ETCD__STATUS_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    char version[16], alarm[64], *errors[] = {alarm};
    snprintf(version, sizeof version, "%s", W.version);
    snprintf(alarm, sizeof alarm, "%s", W.alarm ? W.alarm : "");
    m.header = header(q, &h);
    m.version = version;
    m.leader = member_of(q)->blind ? 0 : W.leader;
    m.errors = errors;
    m.n_errors = W.alarm ? 1 : 0;
    answer(q, &m.base, OK_TRAILERS);
}

static void changes_send(void);

static void put_answer(struct question *q)
{
    Etcd__PutResponse m = ETCD__PUT_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    W.revision++;
    m.header = header(q, &h);
    answer(q, &m.base, OK_TRAILERS);
    changes_send();
}

static void range_answer(struct question *q)
{
    Etcd__RangeResponse m = ETCD__RANGE_RESPONSE__INIT;
    Etcd__KeyValue kv = ETCD__KEY_VALUE__INIT, *kvs[] = {&kv};
    Etcd__ResponseHeader h;
    m.header = header(q, &h);
    kv.key = etcd_data(W.stray ? SLICE("w") : SLICE("w/a"));
    kv.value = etcd_data(SLICE("some value"));
    kv.mod_revision = W.revision;
    m.kvs = kvs;
    m.n_kvs = m.count = 1;
    answer(q, &m.base, OK_TRAILERS);
}

/* ---- the members: watches ---- */

static void response_send(struct known *k, int64_t revision, int from, int to, bool fragment)
{
    static const char *const keys[] = {"w/a", "w/b", "w/c"};
    Etcd__WatchResponse m = ETCD__WATCH_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    Etcd__KeyValue kv[3];
    Etcd__Event ev[3], *events[3];
    m.header = header(k->q, &h);
    m.watch_id = k->id;
    m.fragment = fragment;
    m.events = events;
    m.n_events = (size_t)(to - from);
    for (int i = from; i < to; i++) {
        etcd__key_value__init(&kv[i]);
        etcd__event__init(&ev[i]);
        kv[i].key = etcd_data(W.stray ? SLICE("w") : slice_cstr(keys[i]));
        kv[i].value = etcd_data(SLICE("a value of some length, so that what is kept of it can be too much"));
        kv[i].mod_revision = revision;
        ev[i].kv = &kv[i];
        events[i - from] = &ev[i];
    }
    say(k->q, &m.base);
}

static void known_send(struct known *k)
{
    while (k->q && k->confirmed && k->at < W.revision - member_of(k->q)->behind) {
        int64_t revision = ++k->at;
        int n = 1 + (int)(revision % 3), half = W.fragments ? n / 2 : 0;
        if (half) response_send(k, revision, 0, half, true);
        response_send(k, revision, half, n, false);
    }
}

/* Tells every watch what is new. */
static void changes_send(void)
{
    for (size_t i = 0; i < WATCHES_MAX; i++) known_send(&W.known[i]);
}

static void watch_say(struct question *q, int64_t id, bool created, bool canceled, int64_t compact)
{
    Etcd__WatchResponse m = ETCD__WATCH_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    char reason[] = "etcdserver: watch of no keys";
    m.header = header(q, &h);
    m.watch_id = id;
    m.created = created;
    m.canceled = canceled;
    if (canceled) m.cancel_reason = reason;
    m.compact_revision = compact;
    say(q, &m.base);
}

static void known_confirm(struct known *k)
{
    k->confirmed = true;
    watch_say(k->q, k->id, true, false, 0);
    known_send(k);
}

/* Those that were held back. */
static void watches_confirm(void)
{
    W.hold[ASK_WATCH] = false;
    for (size_t i = 0; i < WATCHES_MAX; i++)
        if (W.known[i].q && !W.known[i].confirmed) known_confirm(&W.known[i]);
}

static struct known *known_find(const struct question *q, int64_t id)
{
    for (size_t i = 0; i < WATCHES_MAX; i++)
        if (W.known[i].q == q && (!q || W.known[i].id == id)) return &W.known[i];
    return NULL;
}

static void watch_create(struct question *q, const Etcd__WatchCreateRequest *m)
{
    W.start_revision = m->start_revision;
    if (m->range_end.len > 1 && key_cmp(etcd_slice(m->key), etcd_slice(m->range_end)) >= 0) {
        watch_say(q, -1, true, true, 0);
        return;
    }
    struct known *k = known_find(NULL, 0);
    assert_non_null(k);
    *k = (struct known){.q = q, .id = m->watch_id, .at = m->start_revision ? m->start_revision - 1 : W.revision};
    if (!W.hold[ASK_WATCH]) known_confirm(k);
}

static void watch_asked(struct question *q, const Etcd__WatchRequest *m)
{
    if (m->request_union_case == ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST) {
        watch_create(q, m->create_request);
    } else if (m->request_union_case == ETCD__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST) {
        struct known *k = known_find(q, m->cancel_request->watch_id);
        if (!k) return;
        if (!k->confirmed) watch_say(q, k->id, true, false, 0); /* in the order of the requests */
        k->q = NULL;
        watch_say(q, m->cancel_request->watch_id, false, true, 0);
    } else {
        W.progress_asked++;
        watch_say(q, -1, false, false, 0);
    }
}

static void keep_asked(struct question *q, const Etcd__LeaseKeepAliveRequest *asked)
{
    Etcd__LeaseKeepAliveResponse m = ETCD__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    m.header = header(q, &h);
    m.id = asked->id;
    m.ttl = 10;
    if (!W.hold[ASK_KEEP]) say(q, &m.base);
}

/* ---- the members: requests ---- */

static enum ask ask_of(const char *path)
{
    static const char *const words[ASKS] = {"/Status", "KV/Range", "/Put", "KeepAlive", "/Watch", "/"};
    for (enum ask a = 0; a < ASKS; a++)
        if (strstr(path, words[a])) return a;
    return ASK_OTHER;
}

static bool is_stream(const struct question *q) { return q->ask == ASK_KEEP || q->ask == ASK_WATCH; }

static void frames_take(struct question *q)
{
    struct slice bytes = buf_slice(&q->body), frame;
    struct arena a;
    ProtobufCMessage *m;
    if (!bytes.n) return;
    bytes = slice_of(bytes.p + q->at, bytes.n - q->at);
    arena_init(&a, MEM_SIM, 1024);
    while (grpc_frame_next(&bytes, UINT32_MAX, &frame) == OK) {
        q->at = q->body.n - bytes.n;
        assert_int_equal(etcd_read(q->ask == ASK_WATCH ? &etcd__watch_request__descriptor : &etcd__lease_keep_alive_request__descriptor, &a, frame, &m), OK);
        if (q->ask == ASK_WATCH) watch_asked(q, (const Etcd__WatchRequest *)(void *)m);
        else keep_asked(q, (const Etcd__LeaseKeepAliveRequest *)(void *)m);
    }
    arena_fini(&a);
}

static void question_answer(struct question *q)
{
    Etcd__CompactionResponse m = ETCD__COMPACTION_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    if (W.trailers[q->ask] || W.http[q->ask]) {
        answer(q, NULL, W.trailers[q->ask] ? W.trailers[q->ask] : "");
        return;
    }
    switch (q->ask) {
    case ASK_STATUS: status_answer(q); return;
    case ASK_RANGE: range_answer(q); return;
    case ASK_PUT: put_answer(q); return;
    default:
        m.header = header(q, &h);
        answer(q, &m.base, OK_TRAILERS);
    }
}

/* Those of a kind that were held back. */
static void answers_let(enum ask ask)
{
    W.hold[ask] = false;
    LIST_FOREACH(it, &W.played.questions) {
        struct question *q = CONTAINER_OF(it, struct question, link);
        if (q->ask == ask && !is_stream(q)) question_answer(q);
    }
}

static void on_heard(struct question *q, bool first, bool end)
{
    if (first) q->ask = ask_of(q->path);
    if (first && is_stream(q)) {
        W.asked[q->ask]++;
        played_open(q);
    }
    if (is_stream(q)) {
        frames_take(q);
    } else if (end) {
        W.asked[q->ask]++;
        if (!W.hold[q->ask] && !(member_of(q)->deaf && q->ask == ASK_RANGE)) question_answer(q);
    }
}

/* Streams of one kind end so. */
static void streams_end(enum ask ask, const char *trailers)
{
    LIST_FOREACH(it, &W.played.questions) {
        struct question *q = CONTAINER_OF(it, struct question, link);
        struct http_req *r = q->r;
        if (q->ask != ask) continue;
        question_over(q);
        http_req_end(r, slice_cstr(trailers));
    }
}

/* The connections to a member break. */
static void member_break(int i) { sim_kill_addr(&W.played.members[i].addr); }

/* ---- the world ---- */

static void on_closed(void *ctx)
{
    W.closed = true;
    W.ctl = NULL;
}
static bool is_closed(void *ctx) { return W.closed; }

static void members_start(void)
{
    W.version = "3.5.9";
    W.term = 1;
    W.leader = 9;
    W.revision = 10;
    for (int i = 0; i < MEMBERS; i++) W.members[i].id = 9 + (uint64_t)i;
    W.played.heard = on_heard;
    W.played.over = on_over;
    played_start(&W.played, MEMBERS);
}

static bool serves(void *ctx)
{
    struct ctl_status st;
    ctl_status(W.ctl, &st);
    return st.trouble == CTL_OK;
}

static void world_start(uint64_t seed)
{
    struct sim_conf sim = {.seed = seed, .latency_us_min = 20, .latency_us_max = 500, .split_pct = 10};
    struct ctl_etcd_endpoint at[MEMBERS];
    struct ctl_etcd_conf conf;
    struct buf why = {0};
    memset(&W, 0, sizeof W);
    W.random = seed * 0x9e3779b97f4a7c15u;
    sim_start(&sim);
    sim_quiet();
    W.loop = loop_new("node");
    members_start();
    ctl_etcd_conf_default(&conf);
    for (int i = 0; i < MEMBERS; i++) at[i] = (struct ctl_etcd_endpoint){.addr = W.played.members[i].addr};
    conf.endpoints = at;
    conf.endpoints_n = MEMBERS;
    conf.watch_bytes_max = 3000;
    conf.watches_bytes_max = RESTS_BYTES_MAX;
    assert_int_equal(ctl_etcd_open(&conf, W.loop, &W.ctl, &why), OK);
}

static int world_setup(void **state)
{
    world_start(1);
    assert_true(sim_run(serves, NULL, 5000));
    return 0;
}

static int world_stop(void **state)
{
    if (!W.closing) ctl_close(W.ctl, on_closed, NULL);
    W.closing = true; /* watches that a test has left are stopped when they are told so */
    assert_true(sim_run(is_closed, NULL, 10000));
    played_stop(&W.played);
    loop_free(W.loop);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
    return 0;
}

static bool sim_run_of(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms) { return sim_run(done, ctx, ms); }
static struct world world(void) { return (struct world){.loop = W.loop, .ctl = W.ctl, .run = sim_run_of}; }

/* ---- what a test's own owner sees ---- */

struct told {
    struct ctl_watch *watch;
    size_t events, messages, progress;
    int64_t last;                    /* revision of the last event */
    int64_t revision;                /* of the last message */
    bool rests;                      /* says "no more" */
    bool stops, closes;              /* from inside events() */
    bool ended;
    enum ctl_error error;
};

/* What comes is the history of revision n: that is checked after everything that is done in here. */
static void events_check(struct told *t, const struct ctl_event *events, size_t n)
{
    static const char *const keys[] = {"w/a", "w/b", "w/c"};
    if (!n) return;
    int64_t revision = events[0].kv.mod_revision;
    assert_int_equal(n, 1 + revision % 3);
    if (t->last) assert_int_equal(revision, t->last + 1);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(events[i].kv.mod_revision, revision);
        assert_true(slice_eq(events[i].kv.key, slice_cstr(keys[i])));
        assert_true(events[i].kv.value.n > 20 && events[i].kv.value.p[0] == 'a');
    }
    t->last = revision;
}

static bool told_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct told *t = ctx;
    t->messages++;
    t->events += n;
    t->progress += !n;
    assert_true(revision >= t->revision);
    t->revision = revision;
    if (t->stops) {
        ctl_watch_stop(t->watch);
        t->watch = NULL;
    }
    if (t->closes) {
        W.closing = true;
        ctl_close(W.ctl, on_closed, NULL);
    }
    events_check(t, events, n);
    return !t->rests;
}
static void told_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct told *t = ctx;
    t->ended = true;
    t->error = error;
    assert_true(why[0] != '\0');
    if (!W.closing) return;
    ctl_watch_stop(t->watch);
    t->watch = NULL;
}
static const struct ctl_watch_ops told_ops = {.events = told_events, .ended = told_ended};

static void told_start(struct told *t)
{
    *t = (struct told){0};
    t->watch = ctl_watch_start(W.ctl, &(struct ctl_watch_conf){.key = SLICE("w/"), .end = SLICE("w0")}, &told_ops, t);
    assert_non_null(t->watch);
}
static bool told_some(void *ctx) { return ((struct told *)ctx)->messages > 0; }
static bool told_all(void *ctx) { return ((struct told *)ctx)->last == W.revision; }
static bool told_progress(void *ctx) { return ((struct told *)ctx)->progress > 0; }
static bool is_live(void *ctx)
{
    const struct remote *r = (struct remote *)W.ctl;
    return rconn_serves(r->conn) && list_empty(&r->watches_creating) && list_empty(&r->watches_new);
}
static bool is_creating(void *ctx) { return !list_empty(&((struct remote *)W.ctl)->watches_creating); }

static void change(int n)
{
    while (n--) {
        W.revision++;
        changes_send();
    }
}

/* A call that is done alone. */
static enum ctl_error did(struct ctl_op op, struct answer *a)
{
    struct world w = world();
    struct answer own;
    enum ctl_error e = do_op(&w, a ? a : &own, op);
    if (!a) answer_fini(&own);
    return e;
}

static struct ctl_op long_get(void)
{
    return (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE("w/"), .end = SLICE("w/a key that is long enough to be seen")}};
}

/* ---- what is told from inside something else ---- */

#define MANY 12

struct caller {
    struct ctl_call call;
    enum ctl_error error;
    int more;                        /* further calls that its done() submits, one after the other */
    bool keeps;                      /* they are keep-alives, else ranges */
    bool over;
};
static void caller_done(struct ctl_call *call)
{
    struct caller *c = CONTAINER_OF(call, struct caller, call);
    c->error = call->error;
    c->over = !c->more;
    if (!c->more--) return;
    *call = (struct ctl_call){.op = c->keeps ? (struct ctl_op){.kind = CTL_LEASE_KEEP, .lease = {.id = 5}} : long_get(), .done = caller_done};
    ctl_submit(W.ctl, call);
}
static bool callers_over(void *ctx)
{
    const struct caller *c = ctx;
    for (int i = 0; i < MANY; i++)
        if (!c[i].over) return false;
    return true;
}
static enum ctl_error first_error[MANY];
static void caller_first_done(struct ctl_call *call)
{
    struct caller *c = CONTAINER_OF(call, struct caller, call);
    assert_true(c->more >= 1);
    first_error[c->call.op.kind == CTL_LEASE_KEEP ? call->op.lease.id - 1 : call->op.put.lease] = call->error;
    caller_done(call);
}

/* A Status with a new term ends calls of the old one, and their owners ask others at once: the Status is used behind that. */
static void test_new_term(void **state)
{
    static struct caller c[MANY];
    memset(c, 0, sizeof c);
    W.hold[ASK_PUT] = true;
    for (int i = 0; i < MANY; i++) {
        struct ctl_op op = op_put("w/a", "x");
        op.put.lease = i;
        c[i] = (struct caller){.call = {.op = op, .done = caller_first_done}, .more = 2};
        ctl_submit(W.ctl, &c[i].call);
    }
    pass(50);
    assert_int_equal(W.asked[ASK_PUT], MANY);
    W.term++;
    W.leader = 10;
    assert_true(sim_run(callers_over, c, 3000));
    for (int i = 0; i < MANY; i++) assert_true(first_error[i] == CTL_UNKNOWN && c[i].error == CTL_OK);
    assert_int_equal(W.asked[ASK_PUT], MANY); /* none twice */
    assert_int_equal(counter_read(&ctl_counters(W.ctl)->connects), 1);
    assert_int_equal(counter_read(&ctl_counters(W.ctl)->calls_unknown), MANY);
}

/* The stream of keep-alives ends with an error of etcd's own; the first owner who is told begins another stream: the others are told the same all the same. */
static void test_keeps_refused(void **state)
{
    static struct caller c[MANY];
    memset(c, 0, sizeof c);
    W.hold[ASK_KEEP] = true;
    for (int i = 0; i < MANY; i++) {
        c[i] = (struct caller){.call = {.op = {.kind = CTL_LEASE_KEEP, .lease = {.id = 1 + i}}, .done = caller_first_done}, .more = 1, .keeps = true};
        first_error[i] = CTL_OK;
        ctl_submit(W.ctl, &c[i].call);
    }
    pass(50);
    W.hold[ASK_KEEP] = false;
    streams_end(ASK_KEEP, "grpc-status: 2\r\ngrpc-message: etcdserver: permission denied\r\n");
    assert_true(sim_run(callers_over, c, 3000));
    for (int i = 0; i < MANY; i++) assert_true(first_error[i] == CTL_PERMISSION_DENIED && c[i].error == CTL_OK);
    assert_int_equal(W.asked[ASK_KEEP], 2);
}

/* What was kept for a watch is told while it is being made anew, and its owner stops it in there. */
static void test_stop_while_creating(void **state)
{
    static struct told t;
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    t.rests = true;
    change(3);
    assert_true(sim_run(told_some, &t, 1000));
    pass(50);
    W.hold[ASK_WATCH] = true;
    member_break(0);
    assert_true(sim_run(is_creating, NULL, 5000)); /* the member that is lost was the leader: it is waited for */
    t.stops = true;
    size_t before = t.messages;
    ctl_watch_resume(t.watch);
    pass(50);
    assert_true(t.messages == before + 1 && !t.watch);
    assert_int_equal(((struct remote *)W.ctl)->kept_bytes, 0);
    watches_confirm();
    change(1);
    pass(50);
    assert_int_equal(t.messages, before + 1);
}

/* The owner of a watch closes the store from inside events(), and goes on reading. */
static void test_close_in_events(void **state)
{
    static struct told t;
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    W.fragments = true;
    t.closes = true;
    change(5);
    assert_true(sim_run(is_closed, NULL, 3000));
    assert_true(t.ended && t.error == CTL_STOPPED && t.messages == 1);
}

/* ---- watches ---- */

/* A watch of no keys is nobody's business but ours, also on another connection. */
static void test_no_keys(void **state)
{
    static struct told t;
    t = (struct told){0};
    t.watch = ctl_watch_start(W.ctl, &(struct ctl_watch_conf){.key = SLICE("w/b"), .end = SLICE("w/a")}, &told_ops, &t);
    pass(50);
    member_break(0);
    pass(100);
    assert_true(sim_run(serves, NULL, 5000));
    pass(100);
    change(2);
    assert_int_equal(did(op_get("w/a"), NULL), CTL_OK);
    ctl_watch_progress(t.watch);
    assert_true(sim_run(told_progress, &t, 1000));
    assert_true(!t.ended && t.events == 0 && t.revision == W.revision && W.asked[ASK_WATCH] == 0);
    ctl_watch_stop(t.watch);
}

/* Progress that is wanted of a watch that rests: the member does not know it now, and is not asked again and again. */
static void test_progress_of_rest(void **state)
{
    static struct told rest, live;
    told_start(&rest);
    told_start(&live);
    assert_true(sim_run(is_live, NULL, 1000));
    rest.rests = true;
    for (int i = 0; i < 40; i++) { /* more than is kept */
        change(1);
        pass(2);
    }
    assert_true(sim_run(told_all, &live, 1000));
    ctl_watch_progress(rest.watch);
    uint32_t before = W.progress_asked;
    for (int i = 0; i < 100; i++) {
        change(1);
        pass(10);
    }
    assert_true(W.progress_asked - before <= 2);
    rest.rests = false;
    ctl_watch_resume(rest.watch);
    assert_true(sim_run(told_progress, &rest, 2000));
    assert_true(rest.last == W.revision && live.last == W.revision);
    assert_true(W.progress_asked - before <= 4);
    ctl_watch_stop(rest.watch);
    ctl_watch_stop(live.watch);
}

/* Many watches that rest: what is kept for all of them has its own limit, and none misses anything. */
static void test_many_rests(void **state)
{
    static struct told t[30];
    const struct remote *r = (struct remote *)W.ctl;
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        told_start(&t[i]);
        t[i].rests = true;
    }
    assert_true(sim_run(is_live, NULL, 1000));
    uint64_t most = 0;
    for (int i = 0; i < 30; i++) {
        change(1);
        for (int k = 0; k < 20; k++) {
            pass(1);
            most = MAX(most, r->kept_bytes);
        }
    }
    assert_true(most > RESTS_BYTES_MAX / 2 && most <= RESTS_BYTES_MAX);
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        assert_true(t[i].last < W.revision);
        t[i].rests = false;
        ctl_watch_resume(t[i].watch);
    }
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        assert_true(sim_run(told_all, &t[i], 5000));
        ctl_watch_stop(t[i].watch);
    }
    assert_true(r->kept_bytes == 0 && counter_read(&ctl_counters(W.ctl)->watches_behind) >= COUNT_OF(t) / 2);
}

/* The store is closed at each moment of coming to a member: nothing is left, and who waits is told. */
static void test_close_while_connecting(void **state)
{
    static struct caller c[MANY];
    world_stop(NULL);
    for (uint64_t us = 0; us < 4000; us += 50) {
        world_start(2 + us);
        memset(c, 0, sizeof c);
        for (int i = 0; i < MANY; i++) {
            c[i] = (struct caller){.call = {.op = i % 2 ? op_get("w/a") : op_put("w/a", "x"), .done = caller_done}};
            ctl_submit(W.ctl, &c[i].call);
        }
        sim_conf_set(&(struct sim_conf){.latency_us_min = 100 + (uint32_t)us, .latency_us_max = 100 + (uint32_t)us});
        pass(2);
        if (us % 100) W.hold[ASK_PUT] = true;
        W.closing = true;
        ctl_close(W.ctl, on_closed, NULL);
        assert_true(sim_run(callers_over, c, 3000));
        for (int i = 0; i < MANY; i++) assert_true(c[i].error == CTL_OK || c[i].error == CTL_STOPPED || (i % 2 == 0 && c[i].error == CTL_UNKNOWN));
        world_stop(NULL);
    }
    world_setup(NULL);
}

/* A member that speaks of a watch before it has confirmed it: what came then was not taken, so it has to come again. */
static void test_unconfirmed(void **state)
{
    static struct told t;
    W.hold[ASK_WATCH] = true;
    told_start(&t);
    pass(50);
    struct known *k = &W.known[0];
    assert_true(k->q && !k->confirmed);
    W.revision++;
    k->at = W.revision;
    response_send(k, k->at, 0, 1 + (int)(k->at % 3), false);
    watches_confirm();
    change(2);
    assert_true(sim_run(told_all, &t, 5000));
    assert_int_equal(t.last, 13);
    assert_int_equal(t.messages, 3);
    ctl_watch_stop(t.watch);
}

/* Keys that were not asked for: who asked cuts off what he knows that his keys begin with. */
static void test_stray_keys(void **state)
{
    static struct told t;
    W.stray = true;
    assert_int_not_equal(did(op_get("w/a"), NULL), CTL_OK);
    struct ctl_op op = {.kind = CTL_RANGE, .range = {.key = SLICE("w/"), .end = SLICE("w0")}};
    assert_int_not_equal(did(op, NULL), CTL_OK);
    W.stray = false;
    assert_int_equal(did(op, NULL), CTL_OK);
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    struct known *k = &W.known[0];
    W.stray = true;
    W.revision++;
    k->at = W.revision;
    response_send(k, k->at, 0, 1 + (int)(k->at % 3), false);
    W.stray = false;
    pass(50);
    change(2);
    assert_true(sim_run(told_all, &t, 5000));
    assert_int_equal(t.last, 13);
    assert_int_equal(t.messages, 3);
    ctl_watch_stop(t.watch);
}

/* Revisions out of order across two responses, the first of which is not whole. */
static void test_order_of_fragments(void **state)
{
    static struct told t;
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    struct known *k = &W.known[0];
    W.revision = 14;
    response_send(k, 13, 0, 1, true);
    response_send(k, 11, 0, 3, false);
    k->at = 13;
    known_send(k);
    assert_true(sim_run(told_all, &t, 5000));
    assert_int_equal(t.messages, 4);
    ctl_watch_stop(t.watch);
}

/* The next member does not know yet what the last one told: nothing twice, nothing left out, and no progress that is not true. */
static void test_member_behind(void **state)
{
    static struct told t;
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    change(10);
    assert_true(sim_run(told_all, &t, 1000));
    W.members[1].behind = 6;
    member_break(0);
    pass(20);
    assert_true(sim_run(is_live, NULL, 5000));
    assert_true(((struct remote *)W.ctl)->conn->at->addr.port == PLAYED_PORT + 1);
    assert_int_equal(W.start_revision, 21);
    ctl_watch_progress(t.watch);
    change(3);
    pass(1000);
    assert_true(t.last == 20 && W.progress_asked <= 12);
    for (; W.members[1].behind; W.members[1].behind--) {
        changes_send();
        pass(5);
    }
    changes_send();
    assert_true(sim_run(told_all, &t, 1000));
    ctl_watch_progress(t.watch);
    t.progress = 0;
    assert_true(sim_run(told_progress, &t, 1000));
    assert_int_equal(t.revision, 23);
    struct answer a;
    assert_int_equal(did(op_get("w/a"), &a), CTL_OK);
    answer_fini(&a);
    ctl_watch_stop(t.watch);
}

/* ---- fates ---- */

/* etcd refuses most of what is over its quota, but what it finds to be so only when it applies it, it does, and answers with the same error. */
static void test_nospace(void **state)
{
    struct answer a;
    W.trailers[ASK_PUT] = "grpc-status: 8\r\ngrpc-message: etcdserver: mvcc: database space exceeded\r\n";
    assert_int_equal(did(op_put("w/a", "x"), &a), CTL_UNKNOWN);
    assert_non_null(strstr(a.call.why, "database space exceeded"));
    answer_fini(&a);
    W.alarm = "memberID:9 alarm:NOSPACE ";
    pass(1100);
    assert_int_equal(did(op_put("w/a", "x"), NULL), CTL_NOSPACE);
    W.alarm = NULL;
    pass(1100);
    assert_int_equal(did(op_put("w/a", "x"), NULL), CTL_UNKNOWN);
}

/* Somebody between us and the member answers in its place: only what says that the request was not taken is taken for that. */
static void test_http_statuses(void **state)
{
    static const struct { uint16_t status; enum ctl_error put, get; } cases[] = {
        {404, CTL_UNSUPPORTED, CTL_UNSUPPORTED}, {401, CTL_PERMISSION_DENIED, CTL_PERMISSION_DENIED}, {302, CTL_UNSUPPORTED, CTL_UNSUPPORTED},
        {500, CTL_UNKNOWN, CTL_UNSUPPORTED}, {206, CTL_UNKNOWN, CTL_UNSUPPORTED}, {504, CTL_UNKNOWN, CTL_UNAVAILABLE}, {408, CTL_UNKNOWN, CTL_UNAVAILABLE}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        W.http[ASK_PUT] = W.http[ASK_RANGE] = cases[i].status;
        assert_int_equal(did(op_put("w/a", "x"), NULL), cases[i].put);
        assert_int_equal(did(op_get("w/a"), NULL), cases[i].get);
    }
}

/* An answer too large to be sent is one to something that was done. */
static void test_unsendable(void **state)
{
    W.trailers[ASK_PUT] = W.trailers[ASK_RANGE] = "grpc-status: 8\r\ngrpc-message: grpc: trying to send message larger than max (3 vs. 2)\r\n";
    assert_int_equal(did(op_put("w/a", "x"), NULL), CTL_UNKNOWN);
    assert_int_equal(did(op_get("w/a"), NULL), CTL_REQUEST_TOO_LARGE);
}

/* An error tells the store's revision, too; an answer that can't be read has none of its own. */
static void test_error_revision(void **state)
{
    static struct caller c[MANY];
    struct ctl_status st;
    memset(c, 0, sizeof c);
    W.unreadable = true;
    for (int i = 0; i < MANY; i++) {
        c[i] = (struct caller){.call = {.op = op_put("w/a", "x"), .done = caller_done}};
        ctl_submit(W.ctl, &c[i].call);
    }
    assert_true(sim_run(callers_over, c, 3000));
    ctl_status(W.ctl, &st);
    assert_true(c[0].error == CTL_UNKNOWN && c[0].call.revision == 10 && st.revision == 10);
}

/* A read on its way to a member that has lost its leader goes to the next one with the rest, and does not wait for the first. */
static void test_read_of_leaderless(void **state)
{
    struct world w = world();
    struct answer a;
    W.members[0].deaf = W.members[0].blind = true;
    W.leader = W.members[1].id;
    uint64_t from_ms = sim_now_ms();
    ask(&w, &a, op_get("w/a"));
    answer_wait(&w, &a);
    assert_int_equal(a.call.error, CTL_OK);
    assert_true(W.asked[ASK_RANGE] == 2 && sim_now_ms() - from_ms < 4000); /* a pulse, and leaderless_ms */
    answer_fini(&a);
}

/* A member that wants us to leave: who calls then does not wait for the next pulse. */
static void test_goaway(void **state)
{
    static struct told t;
    told_start(&t);
    assert_true(sim_run(is_live, NULL, 1000));
    pass(200);
    W.leader = W.members[1].id;
    for (int i = 0; i < W.played.conns_n; i++) http_srv_last(&W.played.conns[i]->srv);
    pass(20);
    uint64_t from_ms = sim_now_ms();
    assert_int_equal(did(op_put("w/a", "x"), NULL), CTL_OK);
    assert_true(sim_now_ms() - from_ms < 100);
    assert_true(sim_run(told_all, &t, 1000));
    assert_int_equal(((struct remote *)W.ctl)->conn->at->addr.port, PLAYED_PORT + 1);
    ctl_watch_stop(t.watch);
}

/* ---- owners that call back ---- */

#define CALLS_MAX 400
#define OWNERS 6

static struct {
    struct ctl_call calls[CALLS_MAX];
    bool done[CALLS_MAX];
    int n, over;
    struct told watches[OWNERS];
    bool from[OWNERS];               /* its first event is not known */
    int depth;                       /* chances left to do something from inside a callback */
    bool may_close;
} L;

static void act(int self);

static void life_done(struct ctl_call *call)
{
    ptrdiff_t i = call - L.calls;
    assert_false(L.done[i]);
    L.done[i] = true;
    L.over++;
    act(-1);
    if (call->error != CTL_OK) assert_true(call->why[0] != '\0');
    if (call->error == CTL_OK && call->op.kind == CTL_RANGE) assert_true(slice_is(call->result.range.kvs[0].value, "some value"));
}

static void life_submit(void)
{
    static const struct ctl_op keep = {.kind = CTL_LEASE_KEEP, .lease = {.id = 3}};
    if (L.n == CALLS_MAX) return;
    struct ctl_call *call = &L.calls[L.n++];
    *call = (struct ctl_call){.op = chance(3) == 0 ? op_put("w/a", "x") : chance(2) ? op_get("w/a") : keep, .done = life_done};
    ctl_submit(W.ctl, call);
}

static bool life_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct told *t = ctx;
    struct told was = *t;
    assert_true(revision >= t->revision);
    t->revision = revision;
    if (n) t->last = events[0].kv.mod_revision;
    act((int)(t - L.watches));
    events_check(&was, events, n);
    return chance(4) != 0;
}

static void watch_drop(int i)
{
    if (L.watches[i].watch) ctl_watch_stop(L.watches[i].watch);
    L.watches[i] = (struct told){0};
}

static void life_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct told *t = ctx;
    assert_true(!t->ended && why[0] != '\0');
    t->ended = true;
    act((int)(t - L.watches));
    assert_true(why[0] != '\0');
    if (t->watch && t->ended) watch_drop((int)(t - L.watches));
}
static const struct ctl_watch_ops life_ops = {.events = life_events, .ended = life_ended};

/* Something that an owner may do at any time. self: the watch that is being told; -1: none. */
static void act(int self)
{
    int i = chance(4) == 0 && self >= 0 ? self : (int)chance(OWNERS);
    struct told *t = &L.watches[i];
    if (L.depth-- <= 0 || W.closing) return;
    switch (chance(9)) {
    case 0: case 1: case 2: life_submit(); return;
    case 3: case 4:
        if (!t->watch) t->watch = ctl_watch_start(W.ctl, &(struct ctl_watch_conf){.key = SLICE("w/"), .end = chance(5) ? SLICE("w0") : SLICE("v")}, &life_ops, t);
        return;
    case 5: if (t->watch) ctl_watch_resume(t->watch); return;
    case 6: if (t->watch) ctl_watch_progress(t->watch); return;
    case 7: watch_drop(i); return;
    default:
        if (!L.may_close || chance(30)) return;
        W.closing = true;
        ctl_close(W.ctl, on_closed, NULL);
    }
}

/* Something that goes wrong, or changes, at the members. */
static void upset(void)
{
    switch (chance(14)) {
    case 0: W.term++; W.leader = 9 + chance(MEMBERS); return;
    case 1: W.leader = 0; return;
    case 2: member_break((int)chance(MEMBERS)); return;
    case 3: W.hold[ASK_PUT] = !W.hold[ASK_PUT]; if (!W.hold[ASK_PUT]) answers_let(ASK_PUT); return;
    case 4: W.hold[ASK_RANGE] = !W.hold[ASK_RANGE]; if (!W.hold[ASK_RANGE]) answers_let(ASK_RANGE); return;
    case 5: W.hold[ASK_KEEP] = !W.hold[ASK_KEEP]; return;
    case 6: if (W.hold[ASK_WATCH]) watches_confirm(); else W.hold[ASK_WATCH] = true; return;
    case 7: streams_end(ASK_KEEP, chance(2) ? "grpc-status: 7\r\ngrpc-message: etcdserver: permission denied\r\n" : "grpc-status: 14\r\ngrpc-message: etcdserver: no leader\r\n"); return;
    case 8: streams_end(ASK_WATCH, "grpc-status: 14\r\ngrpc-message: etcdserver: no leader\r\n"); return;
    case 9: W.fragments = !W.fragments; return;
    case 10: {
        struct known *k = &W.known[chance(OWNERS)];
        if (!k->q || !k->confirmed) return;
        watch_say(k->q, k->id, false, true, chance(2) ? W.revision : 0);
        k->q = NULL;
        return;
    }
    case 11: if (W.played.conns_n) { struct played_conn *c = W.played.conns[W.played.conns_n - 1]; if (c->open) http_srv_last(&c->srv); } return;
    default: W.leader = 9 + chance(MEMBERS); change((int)chance(4)); return;
    }
}

static bool life_over(void *ctx) { return L.over == L.n; }

static void life(uint64_t seed)
{
    world_start(seed);
    memset(&L, 0, sizeof L);
    L.may_close = chance(2);
    for (int i = 0; i < 120 && !W.closing; i++) {
        L.depth = 1 + (int)chance(12);
        act(-1);
        if (chance(3) == 0) upset();
        pass(chance(10) ? chance(30) : chance(1500));
    }
    if (!W.closing) {
        L.depth = 0;
        if (W.leader == 0) W.leader = 9;
        for (enum ask a = ASK_STATUS; a < ASKS; a++) answers_let(a);
        watches_confirm();
        if (chance(2)) assert_true(sim_run(life_over, NULL, 8000));
        for (int i = 0; i < OWNERS; i++)
            if (chance(2)) watch_drop(i);
        W.closing = true;
        ctl_close(W.ctl, on_closed, NULL);
    }
    for (int i = 0; i < OWNERS; i++)
        if (L.watches[i].ended) watch_drop(i);
    world_stop(NULL);
    assert_int_equal(L.over, L.n);
    for (int i = 0; i < OWNERS; i++) assert_null(L.watches[i].watch);
}

static void test_lives(void **state)
{
    const char *one = getenv("ETCD_SEED"), *many = getenv("SIM_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : many ? strtoull(many, NULL, 10) : 300, calls = 0;
    for (uint64_t seed = first; seed < first + n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed);
        life(seed);
        calls += (uint64_t)L.n;
    }
    fprintf(stderr, "%llu calls\n", (unsigned long long)calls);
    assert_true(one || calls > 20 * n);
}

/* With an argument: only the tests whose names fit. */
int main(int argc, char **argv)
{
#define T(test) cmocka_unit_test_setup_teardown(test, world_setup, world_stop)
    const struct CMUnitTest tests[] = {
        T(test_new_term), T(test_keeps_refused), T(test_stop_while_creating), T(test_close_in_events), T(test_no_keys), T(test_progress_of_rest), T(test_many_rests), T(test_close_while_connecting), T(test_unconfirmed),
        T(test_order_of_fragments), T(test_stray_keys), T(test_member_behind), T(test_nospace), T(test_http_statuses), T(test_unsendable), T(test_error_revision), T(test_goaway), T(test_read_of_leaderless),
        cmocka_unit_test(test_lives),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("ctl_etcd_script", tests, NULL, NULL);
}
