/* ctl_etcd_peer_test.c - the engine of a cluster and a member that misbehaves, in the simulator.
 *
 * The member says that it is well, and answers everything else with what the seed picks: statuses of HTTP and gRPC, frames that are cut, too long, compressed or
 * doubled, messages of random bytes or with bits turned, answers without what belongs in them, responses of watches in no order, silence, resets. Whatever
 * it does: each call is done exactly once and in time, no change is sent twice after the member may have seen it, a watch is told nothing twice, and nothing is left.
 * SIM_SEEDS says how many lives, ETCD_SEED runs one.
 */
#include "etcd_played_test.h"
#include "repeat_test.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define CALLS 60
#define WATCHES 4

enum ask { ASK_STATUS, ASK_PUT, ASK_STREAM, ASK_OTHER };

static struct {
    struct loop *loop;
    struct ctl *ctl;
    struct played member;
    uint64_t random;
    int64_t revision;
    struct ctl_call calls[CALLS];
    struct ctl_op ops[2];
    bool done[CALLS];
    struct ctl_watch *watches[WATCHES];
    int64_t last[WATCHES];           /* revision of the last event */
    bool ended[WATCHES];
    uint32_t seen[CTL_ERROR_COUNT];
    bool taken[CALLS];               /* a put that the member may have done: it was not refused */
    const char *status;              /* that it answered last */
    char values[CALLS][16];
    bool closing, closed;
} W;

static uint32_t chance(uint32_t n) { return test_chance(&W.random, n); }
static bool never(void *ctx) { return false; }

/* ---- the member: answers ---- */

static void answer_alone(struct question *q, const char *lines)
{
    struct http_req *r = q->r;
    question_over(q);
    played_head(&W.member, 200);
    head_slice(&W.member.out, slice_cstr(lines));
    http_req_answer(r, &W.member.out, H1_NO_BODY, 0, (struct pieces){0}, true);
}

static Etcd__ResponseHeader *header(Etcd__ResponseHeader *h)
{
    etcd__response_header__init(h);
    h->cluster_id = 7;
    h->member_id = 9;
    h->raft_term = 1;
    h->revision = ++W.revision;
    return h;
}

static void answer_status(struct question *q)
{
    Etcd__StatusResponse m = ETCD__STATUS_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    struct buf b = {0};
    char version[] = "3.4.23";
    m.header = header(&h);
    m.version = version;
    m.leader = 9;
    etcd_write_frame(&m.base, &b);
    played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n");
    buf_free(&b);
}

/* A message of the kind that is wanted, or nearly. */
static void message_write(struct question *q, struct buf *b)
{
    Etcd__ResponseHeader h;
    Etcd__KeyValue kv = ETCD__KEY_VALUE__INIT, *kvs[] = {&kv};
    kv.key = etcd_data(SLICE("w/a"));
    kv.mod_revision = 5;
    if (strstr(q->path, "Range") && !strstr(q->path, "Delete")) {
        Etcd__RangeResponse m = ETCD__RANGE_RESPONSE__INIT;
        m.header = chance(2) ? header(&h) : NULL;
        m.kvs = kvs;
        m.n_kvs = m.count = 1;
        etcd_write_frame(&m.base, b);
    } else if (strstr(q->path, "Txn")) {
        Etcd__TxnResponse m = ETCD__TXN_RESPONSE__INIT;
        Etcd__ResponseOp op = ETCD__RESPONSE_OP__INIT, *ops[] = {&op, &op, &op};
        Etcd__PutResponse put = ETCD__PUT_RESPONSE__INIT;
        if (chance(2)) {
            op.response_case = ETCD__RESPONSE_OP__RESPONSE_RESPONSE_PUT;
            op.response_put = &put;
        }
        m.succeeded = chance(2);
        m.responses = ops;
        m.n_responses = chance(4);
        etcd_write_frame(&m.base, b);
    } else {
        Etcd__PutResponse m = ETCD__PUT_RESPONSE__INIT;
        m.header = chance(2) ? header(&h) : NULL;
        etcd_write_frame(&m.base, b);
    }
}

static void noise(struct buf *b, uint32_t n)
{
    while (n--) buf_addc(b, (char)chance(256));
}

static void flip(struct buf *b)
{
    for (uint32_t i = chance(4) + 1; i && b->n > GRPC_FRAME_HEAD; i--) b->p[GRPC_FRAME_HEAD + chance((uint32_t)b->n - GRPC_FRAME_HEAD)] ^= (char)(1 << chance(8));
}

static const char *const statuses[] = {
    "grpc-status: 14\r\ngrpc-message: etcdserver: no leader\r\n", "grpc-status: 14\r\ngrpc-message: etcdserver: leader changed\r\n",
    "grpc-status: 14\r\ngrpc-message: etcdserver: request timed out\r\n", "grpc-status: 14\r\ngrpc-message: etcdserver: server stopped\r\n",
    "grpc-status: 16\r\ngrpc-message: etcdserver: invalid auth token\r\n", "grpc-status: 99\r\n", "grpc-status: x\r\n", "", "grpc-status: 4294967295\r\n",
    "grpc-status: 2\r\ngrpc-message: raft proposal dropped\r\n", "grpc-status: 3\r\ngrpc-message: %0d%0a%\r\n", "grpc-status: 12\r\n", "grpc-status: 8\r\n",
    "grpc-status: 11\r\ngrpc-message: etcdserver: mvcc: required revision has been compacted\r\n", "grpc-status: 0\r\n"};

static const char *status_pick(void) { return W.status = statuses[chance(COUNT_OF(statuses))]; }

/* Words that say that nothing was done. */
static bool status_refuses(void)
{
    return W.status == statuses[0] || W.status == statuses[4] || W.status == statuses[9];
}

static void answer_badly(struct question *q)
{
    struct buf b = {0};
    struct http_req *r = q->r;
    W.status = "";
    message_write(q, &b);
    switch (chance(12)) {
    case 0: played_answer(q, (uint16_t)(uint32_t[]){404, 401, 429, 500, 502, 503, 302, 204}[chance(7)], SLICE("no"), ""); break;
    case 1: answer_alone(q, status_pick()); break;
    case 2: played_answer(q, 200, buf_slice(&b), status_pick()); break;
    case 3: played_answer(q, 200, slice_of(b.p, chance((uint32_t)b.n)), "grpc-status: 0\r\n"); break; /* cut */
    case 4: b.p[0] = (char)(chance(2) + 1); played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n"); break;
    case 5: memset(b.p + 1, 0xff, 4); played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n"); break;
    case 6: message_write(q, &b); played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n"); break; /* two */
    case 7: flip(&b); played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n"); break;
    case 8: {
        size_t at = (buf_clear(&b), grpc_frame_begin(&b));
        noise(&b, chance(200));
        grpc_frame_end(&b, at);
        played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n");
        break;
    }
    case 9: question_over(q); http_req_cut(r); break;
    case 10: break; /* never */
    case 11: played_answer(q, 200, buf_slice(&b), "grpc-status: 0\r\n"); break;
    }
    buf_free(&b);
}

/* ---- the member: streams ---- */

static void watch_response(struct buf *b, int64_t id)
{
    Etcd__WatchResponse m = ETCD__WATCH_RESPONSE__INIT;
    Etcd__ResponseHeader h;
    Etcd__KeyValue kv[4];
    Etcd__Event ev[4], *events[4];
    char reason[] = "etcdserver: permission denied";
    m.header = chance(4) ? header(&h) : NULL;
    m.watch_id = chance(6) ? id : (int64_t)chance(8) - 2;
    m.created = chance(3) == 0;
    m.canceled = chance(8) == 0;
    m.fragment = chance(3) == 0;
    if (m.canceled && chance(2)) m.compact_revision = chance(20);
    if (m.canceled && chance(2)) m.cancel_reason = reason;
    m.events = events;
    m.n_events = m.created ? 0 : chance(5);
    int64_t at = W.revision - (int64_t)chance(4);
    for (size_t i = 0; i < m.n_events; i++) {
        etcd__key_value__init(&kv[i]);
        etcd__event__init(&ev[i]);
        events[i] = &ev[i];
        at += chance(20) ? (int64_t)chance(2) : -3;
        kv[i].key = etcd_data(SLICE("w/a"));
        kv[i].mod_revision = at;
        ev[i].kv = chance(30) ? &kv[i] : NULL;
    }
    W.revision = MAX(W.revision, at);
    etcd_write_frame(&m.base, b);
}

static void keep_response(struct buf *b)
{
    Etcd__LeaseKeepAliveResponse m = ETCD__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    m.id = chance(4);
    m.ttl = (int64_t)chance(5) - 2;
    etcd_write_frame(&m.base, b);
}

static void stream_say(struct question *q)
{
    struct buf b = {0};
    struct http_req *r = q->r;
    for (uint32_t i = chance(4); i; i--) {
        if (strstr(q->path, "Watch")) watch_response(&b, 1 + chance(6));
        else keep_response(&b);
    }
    if (b.n && chance(30) == 0) flip(&b);
    if (chance(40) == 0) noise(&b, 7);
    if (chance(40) == 0) {
        question_over(q);
        http_req_end(r, slice_cstr(statuses[chance(COUNT_OF(statuses))]));
    } else if (chance(60) == 0) {
        question_over(q);
        http_req_cut(r);
    } else if (b.n) {
        played_say(q, buf_slice(&b));
    }
    buf_free(&b);
}

static void streams_say(void)
{
    LIST_FOREACH(it, &W.member.questions) {
        struct question *q = CONTAINER_OF(it, struct question, link);
        if (q->ask == ASK_STREAM) stream_say(q);
    }
}

/* ---- the member: requests ---- */

/* The whole put is here: it was not here before, or was refused then. */
static void put_answer(struct question *q)
{
    const char *at = q->body.n ? memmem(q->body.p, q->body.n, "put-", 4) : NULL;
    uint64_t i;
    assert_non_null(at);
    assert_int_equal(slice_u64(slice_of(at + 4, 2), CALLS - 1, &i), OK);
    assert_false(W.taken[i]);
    answer_badly(q);
    W.taken[i] = !status_refuses();
}

static enum ask ask_of(const char *path)
{
    if (strstr(path, "/Watch") || strstr(path, "KeepAlive")) return ASK_STREAM;
    return strstr(path, "/Put") ? ASK_PUT : strstr(path, "Status") ? ASK_STATUS : ASK_OTHER;
}

static void on_heard(struct question *q, bool first, bool end)
{
    if (first) q->ask = ask_of(q->path);
    if (q->ask == ASK_PUT) {
        if (end) put_answer(q);
    } else if (!first) {
        return; /* what more there is does not matter */
    } else if (q->ask == ASK_STATUS && chance(200)) {
        answer_status(q);
    } else if (q->ask != ASK_STREAM || chance(10) == 0) {
        answer_badly(q);
    } else {
        played_open(q);
    }
}

/* ---- its client ---- */

static void on_done(struct ctl_call *call)
{
    ptrdiff_t i = call - W.calls;
    assert_false(W.done[i]);
    W.done[i] = true;
    W.seen[call->error]++;
    if (call->error != CTL_OK) assert_true(call->why[0] != '\0');
    if (call->error == CTL_OK && call->op.kind == CTL_TXN) assert_int_equal(call->result.txn.n, call->result.txn.succeeded ? 2 : 0);
}

static bool on_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    int64_t *last = ctx;
    for (size_t i = 0; i < n; i++) {
        assert_true(events[i].kv.mod_revision > *last && events[i].kv.mod_revision == events[0].kv.mod_revision);
        assert_true(events[i].kv.key.n > 0);
    }
    if (n) *last = events[0].kv.mod_revision;
    return chance(4) != 0;
}
static void on_watch_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    ptrdiff_t i = (int64_t *)ctx - W.last;
    assert_false(W.ended[i]);
    assert_true(why[0] != '\0');
    W.ended[i] = true;
    if (!W.closing) return;
    ctl_watch_stop(W.watches[i]);
    W.watches[i] = NULL;
}
static const struct ctl_watch_ops watch_ops = {.events = on_events, .ended = on_watch_ended};

static struct ctl_op op_by_chance(int i)
{
    switch (chance(6)) {
    case 0: snprintf(W.values[i], sizeof W.values[i], "put-%02d", i); return op_put("w/a", W.values[i]);
    case 1: return op_get("w/a");
    case 2: return (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = W.ops, .then_n = 2}};
    case 3: return (struct ctl_op){.kind = CTL_LEASE_KEEP, .lease = {.id = chance(3)}};
    case 4: return (struct ctl_op){.kind = CTL_LEASE_INFO, .lease = {.id = 1, .keys = true}};
    default: return (struct ctl_op){.kind = CTL_DISARM};
    }
}

static bool all_done(void *ctx)
{
    for (int i = 0; i < CALLS; i++)
        if (!W.done[i]) return false;
    return true;
}
static void on_closed(void *ctx) { W.closed = true; }
static bool is_closed(void *ctx) { return W.closed; }

/* ---- lives ---- */

static void life_start(uint64_t seed)
{
    struct sim_conf sim = {.seed = seed, .latency_us_min = 20, .latency_us_max = 500, .split_pct = 10};
    struct ctl_etcd_conf conf;
    struct buf why = {0};
    memset(&W, 0, sizeof W);
    W.random = seed * 0x9e3779b97f4a7c15u;
    W.revision = 10;
    sim_start(&sim);
    sim_quiet();
    W.loop = loop_new("node");
    W.member.heard = on_heard;
    played_start(&W.member, 1);
    ctl_etcd_conf_default(&conf);
    conf.endpoints = &(struct ctl_etcd_endpoint){.addr = W.member.members[0].addr};
    conf.endpoints_n = 1;
    conf.answer_bytes_max = 30000;
    conf.request_bytes_max = 10000;
    conf.watch_bytes_max = 3000;
    conf.user = chance(2) ? "me" : NULL;
    W.ops[0] = op_put("w/a", "1");
    W.ops[1] = op_put("w/b", "1");
    assert_int_equal(ctl_etcd_open(&conf, W.loop, &W.ctl, &why), OK);
}

static void life_stop(void)
{
    W.closing = true;
    for (int i = 0; i < WATCHES; i++)
        if (W.watches[i] && (W.ended[i] || chance(2))) { /* the others when they are told of it */
            ctl_watch_stop(W.watches[i]);
            W.watches[i] = NULL;
        }
    ctl_close(W.ctl, on_closed, NULL);
    assert_true(sim_run(is_closed, NULL, 10000));
    played_stop(&W.member);
    loop_free(W.loop);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
}

static void life(uint64_t seed)
{
    life_start(seed);
    for (int i = 0; i < CALLS; i++) {
        W.calls[i] = (struct ctl_call){.op = op_by_chance(i), .done = on_done};
        ctl_submit(W.ctl, &W.calls[i]);
        int k = (int)chance(2 * WATCHES);
        if (k < WATCHES && !W.watches[k])
            W.watches[k] = ctl_watch_start(W.ctl, &(struct ctl_watch_conf){.key = SLICE("w/"), .end = SLICE("w0")}, &watch_ops, &W.last[k]);
        else if (k < WATCHES && chance(3))
            ctl_watch_resume(W.watches[k]);
        else if (k < WATCHES && chance(2))
            ctl_watch_progress(W.watches[k]);
        else if (k < WATCHES) {
            ctl_watch_stop(W.watches[k]);
            W.watches[k] = NULL;
            W.last[k] = 0;
            W.ended[k] = false;
        }
        sim_run(never, NULL, chance(100));
        streams_say();
    }
    assert_true(sim_run(all_done, NULL, 6000)); /* request_ms, and a little */
    if (chance(2)) sim_run(never, NULL, chance(3000));
    life_stop();
}

static void test_lives(void **state)
{
    const char *one = getenv("ETCD_SEED"), *many = getenv("SIM_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : many ? strtoull(many, NULL, 10) : 100;
    uint32_t seen[CTL_ERROR_COUNT] = {0}, kinds = 0;
    for (uint64_t seed = first; seed < first + n; seed++) {
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed);
        life(seed);
        for (int e = 0; e < CTL_ERROR_COUNT; e++) seen[e] += W.seen[e];
    }
    fprintf(stderr, "\n");
    for (int e = 0; e < CTL_ERROR_COUNT; e++) kinds += seen[e] > 0;
    if (n >= 100) assert_true(kinds >= 8 && seen[CTL_OK] && seen[CTL_UNKNOWN] && seen[CTL_UNSUPPORTED]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests_name("ctl_etcd_peer", tests, NULL, NULL);
}
