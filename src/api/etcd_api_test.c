/* etcd_api_test.c - the etcd API between a real HTTP/2 client on the simulator and a control store that the test plays.
 *
 * ctl_submit() and the functions of watches are the test's own: what was asked is looked at, and answered when the test says so. Real clients and
 * the real store meet in tests/etcd.
 */
#include "etcd_int.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define PORT 22379
#define CALLS 64

/* ---- the store, played ---------------------------------------------------------------------------------------------------- */

struct ctl {
    struct ctl_status status;
    struct ctl_call *calls[CALLS];   /* asked, not answered */
    int calls_n;
    struct ctl_watch *watches[CALLS];/* that are there */
    int watches_n;
    bool no_more;                    /* ctl_watch_start() is NULL */
};
struct ctl_watch {
    struct ctl_watch_conf conf;
    const struct ctl_watch_ops *ops;
    void *ctx;
    uint32_t resumed, progress;
};

void ctl_submit(struct ctl *c, struct ctl_call *call)
{
    assert_true(c->calls_n < CALLS);
    c->calls[c->calls_n++] = call;
}

void ctl_status(const struct ctl *c, struct ctl_status *out) { *out = c->status; }

struct ctl_watch *ctl_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx)
{
    if (c->no_more)
        return NULL;
    struct ctl_watch *w = mem_new(MEM_SIM, sizeof *w);
    w->conf = *conf;
    w->conf.key = slice_of(mem_strndup(MEM_SIM, conf->key.p, conf->key.n), conf->key.n);
    w->conf.end = slice_of(mem_strndup(MEM_SIM, conf->end.n ? conf->end.p : "", conf->end.n), conf->end.n);
    w->ops = ops;
    w->ctx = ctx;
    c->watches[c->watches_n++] = w;
    return w;
}

/* As the store has it. */
struct slice ctl_prefix_end(struct slice prefix, char *out)
{
    while (prefix.n && (unsigned char)prefix.p[prefix.n - 1] == 0xff)
        prefix.n--;
    if (!prefix.n)
        return SLICE("\0");
    memcpy(out, prefix.p, prefix.n);
    out[prefix.n - 1] = (char)(out[prefix.n - 1] + 1);
    return slice_of(out, prefix.n);
}

void ctl_watch_resume(struct ctl_watch *w) { w->resumed++; }
void ctl_watch_progress(struct ctl_watch *w) { w->progress++; }

/* ---- the world --------------------------------------------------------------------------------------------------------------- */

struct ask { /* a call as its client sees it */
    struct http_call k;
    struct buf body, trailer;
    size_t read;                     /* of body, by next() */
    uint16_t http;
    int status;                      /* grpc-status; -1: none yet */
    char message[160];
    bool over, failed;
};

static struct {
    struct loop *loop, *far;
    struct ctl ctl;
    struct etcd_api *api;
    struct http_cli cli, *at;        /* at: who asks, &cli as a rule */
    struct http_cli_conf conf;
    struct head_out out;
    struct ask *asks[CALLS];
    int asks_n, fd;
    bool released;
    struct arena mem;                /* of what responses became */
} W;

void ctl_watch_stop(struct ctl_watch *w)
{
    int i = 0;
    while (W.ctl.watches[i] != w)
        assert_true(++i < W.ctl.watches_n);
    W.ctl.watches[i] = W.ctl.watches[--W.ctl.watches_n];
    union {
        const char *from;
        void *to;
    } key = {.from = w->conf.key.p}, end = {.from = w->conf.end.p};
    mem_free(key.to);
    mem_free(end.to);
    mem_free(w);
}

static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }

static void lines_note(struct ask *x, const struct h1_field *f, int n)
{
    uint64_t status;
    for (int i = 0; i < n; i++)
        if (slice_ieq(f[i].name, SLICE("grpc-status")) && slice_u64(f[i].value, GRPC_STATUS_COUNT - 1, &status) == OK)
            x->status = (int)status;
        else if (slice_ieq(f[i].name, SLICE("grpc-message")))
            x->message[grpc_message_read(f[i].value, x->message, sizeof x->message - 1)] = 0;
}

static void collect(struct ask *x, struct pieces body, bool end)
{
    struct h1_field f[8];
    for (int i = 0; i < body.n; i++)
        buf_add(&x->body, body.v[i].iov_base, body.v[i].iov_len);
    x->over |= end;
    if (end)
        lines_note(x, f, http_call_trailers(&x->k, f, COUNT_OF(f)));
}

static struct ask *ask_of(struct http_call *k) { return CONTAINER_OF(k, struct ask, k); }
static void on_connected(struct http_cli *c) { assert_int_equal(c->version, HTTP_2); }
static void on_interim(struct http_call *k, const struct h1_head *h) {}
static void on_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    ask_of(k)->http = h->status;
    lines_note(ask_of(k), h->fields, h->n);
    collect(ask_of(k), body, end);
}
static void on_body(struct http_call *k, struct pieces body, bool end) { collect(ask_of(k), body, end); }
static void on_drained(struct http_call *k) {}
static void on_failed(struct http_call *k, enum err e) { ask_of(k)->failed = ask_of(k)->over = true; }
static void on_ended(struct http_cli *c, enum err e) { http_cli_close(c); }
static void on_released(struct http_cli *c) { W.released = true; }
static const struct http_cli_ops cli_ops = {on_connected, on_interim, on_response, on_body, on_drained, on_failed, on_ended, on_released};

static int start(void **state)
{
    struct sim_conf sc = {.seed = 1, .latency_us_min = 20, .latency_us_max = 200};
    memset(&W, 0, sizeof W);
    sim_start(&sc);
    W.loop = loop_new("store");
    W.far = loop_new("client");
    W.ctl.status.revision = 40;
    struct etcd_api_conf conf = {.cluster_id = 7, .member_id = 9, .name = "weir", .client_url = "http://127.0.0.1:2379"};
    struct addr a = addr_ip4(0x7f000001, PORT);
    W.fd = sim_listen(0, &a);
    W.api = etcd_api_new(W.loop, &W.ctl, &conf);
    etcd_api_listen(W.api, W.fd);
    head_out_init(&W.out);
    http_cli_conf_default(&W.conf);
    W.conf.limits = &h1_limits_default;
    W.conf.out = &W.out;
    W.conf.streams_max = CALLS;
    arena_init(&W.mem, MEM_SIM, 4096);
    http_cli_connect(&W.cli, W.far, &W.conf, &cli_ops, -1, &a, HTTP_2, NULL);
    W.at = &W.cli;
    return 0;
}

static void free_api(void)
{
    etcd_api_free(W.api);
    W.api = NULL;
}

/* Nothing may be left: no watch, no question, no socket, no memory. */
static int stop(void **state)
{
    http_cli_close(&W.cli);
    if (W.api)
        free_api();
    pass(20);
    assert_int_equal(W.ctl.watches_n, 0);
    for (int i = 0; i < W.ctl.calls_n; i++) {
        W.ctl.calls[i]->error = CTL_STOPPED;
        W.ctl.calls[i]->done(W.ctl.calls[i]);
    }
    for (int i = 0; i < W.asks_n; i++) {
        buf_free(&W.asks[i]->body);
        buf_free(&W.asks[i]->trailer);
        mem_free(W.asks[i]);
    }
    assert_true(W.released);
    socket_close(W.fd);
    head_out_fini(&W.out);
    arena_fini(&W.mem);
    loop_free(W.loop);
    loop_free(W.far);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_API), 0);
    return 0;
}

static struct ask *ask_bytes(const char *path, const char *more, struct slice body, bool end)
{
    struct ask *x = W.asks[W.asks_n++] = mem_new(MEM_SIM, sizeof *x);
    struct buf head = {0}, b = {0};
    x->status = -1;
    buf_printf(&head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nTE: trailers\r\n%s\r\n", path, more);
    buf_add_slice(&b, body);
    struct iovec v = {b.p, b.n};
    http_cli_request(W.at, &x->k, H1_POST, buf_slice(&head), H1_CHUNKED, (struct pieces){&v, b.n ? 1 : 0, b.n}, end);
    buf_free(&head);
    buf_free(&b);
    pass(5);
    return x;
}

static struct ask *ask(const char *path, const ProtobufCMessage *m)
{
    struct buf b = {0};
    etcd_write_frame(m, &b);
    struct ask *x = ask_bytes(path, "", buf_slice(&b), true);
    buf_free(&b);
    return x;
}

static void say(struct ask *x, const ProtobufCMessage *m)
{
    struct buf b = {0};
    etcd_write_frame(m, &b);
    struct iovec v = {b.p, b.n};
    http_call_send(&x->k, (struct pieces){&v, 1, b.n});
    buf_free(&b);
    pass(5);
}

/* The next message of the answer, or NULL. */
static void *next(struct ask *x, const ProtobufCMessageDescriptor *d)
{
    struct slice rest = slice_of(x->body.p + x->read, x->body.n - x->read), msg;
    ProtobufCMessage *m;
    if (x->body.n == x->read || grpc_frame_next(&rest, UINT32_MAX, &msg) != OK)
        return NULL;
    assert_int_equal(etcd_read_max(d, &W.mem, msg, SIZE_MAX / 2, &m), OK);
    x->read = x->body.n - rest.n;
    return m;
}

static void *answer_of(struct ask *x, const ProtobufCMessageDescriptor *d)
{
    assert_true(x->over);
    assert_int_equal(x->http, 200);
    assert_int_equal(x->status, 0);
    void *m = next(x, d);
    assert_non_null(m);
    assert_int_equal(x->body.n, x->read);
    return m;
}

static void refused(struct ask *x, int status, const char *message)
{
    assert_true(x->over);
    assert_false(x->failed);
    assert_int_equal(x->status, status);
    assert_string_equal(x->message, message);
    assert_int_equal(x->body.n, 0);
}

static struct ctl_call *asked(enum ctl_kind kind)
{
    assert_true(W.ctl.calls_n > 0);
    assert_int_equal(W.ctl.calls[0]->op.kind, kind);
    return W.ctl.calls[0];
}

static void done(enum ctl_error e)
{
    struct ctl_call *c = W.ctl.calls[0];
    memmove(&W.ctl.calls[0], &W.ctl.calls[1], sizeof W.ctl.calls - sizeof W.ctl.calls[0]);
    W.ctl.calls_n--;
    c->error = e;
    c->revision = ++W.ctl.status.revision;
    c->done(c);
    pass(5);
}

/* ---- unary calls ----------------------------------------------------------------------------------------------------------- */

static struct ask *put(const char *key)
{
    Etcd__PutRequest m = ETCD__PUT_REQUEST__INIT;
    m.key = etcd_data(slice_cstr(key));
    m.value = etcd_data(SLICE("v\0w"));
    m.lease = -5;
    m.prev_kv = true;
    return ask("/etcdserverpb.KV/Put", &m.base);
}

static void test_put(void **state)
{
    struct ask *x = put("k");
    struct ctl_call *c = asked(CTL_PUT);
    assert_true(slice_is(c->op.put.key, "k") && slice_eq(c->op.put.value, SLICE("v\0w")));
    assert_true(c->op.put.lease == -5 && c->op.put.prev_kv && !c->op.put.ignore_value && !c->op.put.ignore_lease);
    assert_false(x->over);
    c->result.put = (struct ctl_put_result){true, {.key = SLICE("k"), .value = SLICE("old"), .create_revision = 3, .mod_revision = 30, .version = 2, .lease = 8}};
    done(CTL_OK);
    Etcd__PutResponse *r = answer_of(x, &etcd__put_response__descriptor);
    assert_true(r->header->cluster_id == 7 && r->header->member_id == 9 && r->header->raft_term == 1);
    assert_int_equal(r->header->revision, 41);
    assert_true(slice_is(etcd_slice(r->prev_kv->value), "old"));
    assert_true(r->prev_kv->create_revision == 3 && r->prev_kv->mod_revision == 30 && r->prev_kv->version == 2 && r->prev_kv->lease == 8);
}

/* What many calls at once needed is kept while there are calls, and given back when there are none. */
static void test_memory_of_calls(void **state)
{
#ifdef WEIR_DEBUG_ARENA /* an arena gives everything back when it is reset */
    enum { MANY = 20, EACH = 1 };
#else
    enum { MANY = 20, EACH = 2 };
#endif
    pass(20); /* until the connection is there */
    uint64_t before = mem_count(MEM_API);
    for (int i = 0; i < MANY; i++)
        put("k");
    for (int i = 0; i < MANY; i++)
        done(CTL_OK);
    uint64_t kept = mem_count(MEM_API);
    assert_true(kept >= before + EACH * MANY);
    pass(900);
    assert_int_equal(mem_count(MEM_API), kept);
    put("k"); /* one of them is needed, the others are not */
    pass(2000);
    done(CTL_OK);
    assert_true(mem_count(MEM_API) > before && mem_count(MEM_API) < before + MANY);
    pass(3000);
    assert_int_equal(mem_count(MEM_API), before);
}

static void test_range(void **state)
{
    Etcd__RangeRequest m = ETCD__RANGE_REQUEST__INIT;
    m.key = etcd_data(SLICE("a"));
    m.range_end = etcd_data(SLICE("\0"));
    m.limit = 2;
    m.revision = 5;
    m.sort_order = ETCD__RANGE_REQUEST__SORT_ORDER__DESCEND;
    m.sort_target = ETCD__RANGE_REQUEST__SORT_TARGET__MOD;
    m.serializable = m.keys_only = m.count_only = true;
    m.min_mod_revision = 1;
    m.max_mod_revision = 2;
    m.min_create_revision = 3;
    m.max_create_revision = 4;
    struct ask *x = ask("/etcdserverpb.KV/Range", &m.base);
    struct ctl_range *q = &asked(CTL_RANGE)->op.range;
    assert_true(slice_is(q->key, "a") && slice_eq(q->end, SLICE("\0")) && q->limit == 2 && q->revision == 5);
    assert_true(q->order == CTL_SORT_DESCEND && q->target == CTL_SORT_MOD && q->serializable && q->keys_only && q->count_only);
    assert_true(q->min_mod_revision == 1 && q->max_mod_revision == 2 && q->min_create_revision == 3 && q->max_create_revision == 4);
    struct ctl_kv kvs[] = {{.key = SLICE("a")}, {.key = SLICE("b"), .value = SLICE("")}};
    W.ctl.calls[0]->result.range = (struct ctl_range_result){kvs, 2, true, 17};
    done(CTL_OK);
    Etcd__RangeResponse *r = answer_of(x, &etcd__range_response__descriptor);
    assert_true(r->n_kvs == 2 && r->more && r->count == 17 && slice_is(etcd_slice(r->kvs[1]->key), "b"));
    m.sort_target = 5;
    refused(ask("/etcdserverpb.KV/Range", &m.base), GRPC_INVALID_ARGUMENT, "etcdserver: invalid sort option");
    m.sort_target = 0;
    m.sort_order = -1;
    refused(ask("/etcdserverpb.KV/Range", &m.base), GRPC_INVALID_ARGUMENT, "etcdserver: invalid sort option");
    assert_int_equal(W.ctl.calls_n, 0);
}

static void test_txn(void **state)
{
    Etcd__Compare c1 = ETCD__COMPARE__INIT, c2 = ETCD__COMPARE__INIT, *compares[] = {&c1, &c2};
    Etcd__RequestOp o1 = ETCD__REQUEST_OP__INIT, o2 = ETCD__REQUEST_OP__INIT, o3 = ETCD__REQUEST_OP__INIT, *then[] = {&o1, &o2}, *inner_then[] = {&o3};
    Etcd__DeleteRangeRequest del = ETCD__DELETE_RANGE_REQUEST__INIT;
    Etcd__RangeRequest get = ETCD__RANGE_REQUEST__INIT;
    Etcd__TxnRequest m = ETCD__TXN_REQUEST__INIT, inner = ETCD__TXN_REQUEST__INIT;
    c1.key = c2.key = del.key = get.key = etcd_data(SLICE("k"));
    c1.target = ETCD__COMPARE__COMPARE_TARGET__LEASE;
    c1.result = ETCD__COMPARE__COMPARE_RESULT__NOT_EQUAL;
    c1.target_union_case = ETCD__COMPARE__TARGET_UNION_LEASE;
    c1.lease = 11;
    c2.target = ETCD__COMPARE__COMPARE_TARGET__MOD; /* but a version is given: as if there were none */
    c2.target_union_case = ETCD__COMPARE__TARGET_UNION_VERSION;
    c2.version = 3;
    o1.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    o1.request_delete_range = &del;
    o2.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_TXN;
    o2.request_txn = &inner;
    o3.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
    o3.request_range = &get;
    inner.success = inner_then;
    inner.n_success = 1;
    m.compare = compares;
    m.n_compare = m.n_success = 2;
    m.success = then;
    struct ask *x = ask("/etcdserverpb.KV/Txn", &m.base);
    struct ctl_txn *t = &asked(CTL_TXN)->op.txn;
    assert_true(t->compares_n == 2 && t->then_n == 2 && t->else_n == 0);
    assert_true(t->compares[0].target == CTL_TARGET_LEASE && t->compares[0].result == CTL_NOT_EQUAL && t->compares[0].number == 11);
    assert_true(t->compares[1].target == CTL_TARGET_MOD && t->compares[1].number == 0);
    assert_true(t->then_ops[0].kind == CTL_DELETE && t->then_ops[1].kind == CTL_TXN && t->then_ops[1].txn.then_ops[0].kind == CTL_RANGE);
    struct ctl_kv gone = {.key = SLICE("k"), .version = 4};
    struct ctl_op_result innermost = {.kind = CTL_RANGE, .range = {.count = 3}};
    struct ctl_op_result both[] = {{.kind = CTL_DELETE, .del = {1, &gone, 1}}, {.kind = CTL_TXN, .txn = {true, &innermost, 1}}};
    W.ctl.calls[0]->result.txn = (struct ctl_txn_result){true, both, 2};
    done(CTL_OK);
    Etcd__TxnResponse *r = answer_of(x, &etcd__txn_response__descriptor);
    assert_true(r->succeeded && r->n_responses == 2);
    assert_int_equal(r->responses[0]->response_delete_range->prev_kvs[0]->version, 4);
    assert_int_equal(r->responses[0]->response_delete_range->header->revision, 41);
    assert_int_equal(r->responses[0]->response_delete_range->header->cluster_id, 0);
    assert_int_equal(r->responses[1]->response_txn->responses[0]->response_range->count, 3);
    assert_int_equal(r->responses[1]->response_txn->responses[0]->response_range->header->revision, 41);
    assert_int_equal(r->responses[1]->response_txn->header->revision, 0); /* as etcd's */
    x = ask("/etcdserverpb.KV/Txn", &m.base); /* the range comes before the change */
    struct ctl_op_result range_first[] = {{.kind = CTL_TXN, .txn = {true, &innermost, 1}}, {.kind = CTL_PUT}, {.kind = CTL_DELETE}};
    asked(CTL_TXN)->result.txn = (struct ctl_txn_result){true, range_first, 3};
    done(CTL_OK);
    r = answer_of(x, &etcd__txn_response__descriptor);
    assert_int_equal(r->header->revision, 42);
    assert_int_equal(r->responses[0]->response_txn->responses[0]->response_range->header->revision, 41);
    assert_int_equal(r->responses[1]->response_put->header->revision, 42);
    assert_int_equal(r->responses[2]->response_delete_range->header->revision, 42);
    c1.target = 9;
    refused(ask("/etcdserverpb.KV/Txn", &m.base), GRPC_INVALID_ARGUMENT, "etcdserver: invalid argument");
    c1.target = 0;
    o3.request_case = ETCD__REQUEST_OP__REQUEST__NOT_SET;
    refused(ask("/etcdserverpb.KV/Txn", &m.base), GRPC_INVALID_ARGUMENT, "etcdserver: key not found");
}

static void test_refused(void **state)
{
    struct ask *x = put("");
    asked(CTL_PUT);
    done(CTL_EMPTY_KEY);
    refused(x, GRPC_INVALID_ARGUMENT, "etcdserver: key is not provided");
    x = put("a");
    done(CTL_COMPACTED);
    refused(x, GRPC_OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted");
    Etcd__AuthenticateRequest m = ETCD__AUTHENTICATE_REQUEST__INIT;
    refused(ask("/etcdserverpb.Auth/Authenticate", &m.base), GRPC_FAILED_PRECONDITION, "etcdserver: authentication is not enabled");
    refused(ask("/etcdserverpb.Auth/UserAdd", &m.base), GRPC_UNIMPLEMENTED, "weir: etcdserverpb.Auth.UserAdd is not served: identities are the node's, not the store's");
    refused(ask("/etcdserverpb.KV/Nothing", &m.base), GRPC_UNIMPLEMENTED, "unknown method Nothing for service etcdserverpb.KV");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\1\0\0\0\0"), true), GRPC_UNIMPLEMENTED, "grpc: compressed messages are not taken");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\2\0\0\0\0"), true), GRPC_INTERNAL, "grpc: the bytes are not a message");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE(""), true), GRPC_INTERNAL, "grpc: the bytes are not a message");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\0\0\0\0\0\0\0"), true), GRPC_INTERNAL, "grpc: the bytes are not a message");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\0\1\xff"), true), GRPC_INTERNAL, "grpc: the bytes are not a message");
    refused(ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\x7f\0\0\0"), false), GRPC_RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (2130706432 vs. 2097152)");
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_MESSAGE_BYTES]), 1);
    struct buf b = {0};
    buf_adds(&b, "x");
    size_t at = grpc_frame_begin(&b);
    for (int i = 0; i < 1000000; i++)
        buf_add(&b, "\x0a\0", 2);
    grpc_frame_end(&b, at);
    x = ask_bytes("/etcdserverpb.KV/Txn", "", slice_of(b.p + 1, b.n - 1), true);
    pass(500);
    refused(x, GRPC_INVALID_ARGUMENT, "etcdserver: request is too large"); /* it would become too much */
    buf_free(&b);
    assert_int_equal(W.ctl.calls_n, 0);
    assert_int_equal(W.api->in_bytes, 0);
}

/* Deadlines: the client's, and ours for a request that does not come. What the store says later is nobody's. */
static void test_deadlines(void **state)
{
    struct ask *x = ask_bytes("/etcdserverpb.KV/Put", "grpc-timeout: 200m\r\n", SLICE("\0\0\0\0\0"), true);
    asked(CTL_PUT);
    pass(100);
    assert_false(x->over);
    pass(200);
    refused(x, GRPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    assert_false(etcd_api_busy(W.api));
    done(CTL_OK);
    x = ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\0\3"), false);
    pass(20000);
    assert_false(x->over);
    pass(20000);
    refused(x, GRPC_UNAVAILABLE, "etcdserver: request timed out");
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_BODY_MS]), 1);
}

/* The client leaves while the store has its question; and so does the whole API. */
static void test_leaving(void **state)
{
    struct ask *x = put("a");
    http_call_cancel(&x->k);
    pass(10);
    assert_false(etcd_api_busy(W.api));
    assert_int_equal(W.api->calls_n, 1);
    done(CTL_OK);
    assert_int_equal(W.api->calls_n, 0);
    put("b");
    put("c");
    assert_true(etcd_api_busy(W.api));
    free_api();
    pass(10);
    assert_int_equal(W.ctl.calls_n, 2); /* stop() answers them */
}

/* A large answer to a client that does not read: it is counted until it is taken, and the next one is refused when that is too much. */
static void test_slow_answers(void **state)
{
    char *big = mem_new(MEM_SIM, 1 << 20);
    struct ctl_kv kv = {.key = SLICE("k"), .value = slice_of(big, 1 << 20)};
    Etcd__RangeRequest m = ETCD__RANGE_REQUEST__INIT;
    struct ask *x[3];
    W.api->limit[ETCD_LIMIT_OUT_BYTES] = 2200000; /* of which one may have half */
    for (int i = 0; i < 3; i++) {
        x[i] = ask("/etcdserverpb.KV/Range", &m.base);
        http_call_reading(&x[i]->k, false);
        W.ctl.calls[0]->result.range = (struct ctl_range_result){&kv, 1, false, 1};
        done(CTL_OK);
        if (i == 0)
            assert_true(W.api->out_bytes > 500000);
    }
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_OUT_BYTES]), 2);
    for (int i = 0; i < 3; i++)
        if (!x[i]->over)
            http_call_reading(&x[i]->k, true);
    pass(500);
    refused(x[1], GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
    Etcd__RangeResponse *r = answer_of(x[0], &etcd__range_response__descriptor);
    assert_int_equal(r->kvs[0]->value.len, 1 << 20);
    assert_int_equal(W.api->out_bytes, 0);
    W.api->limit[ETCD_LIMIT_ANSWER_BYTES] = 1000;
    x[0] = ask("/etcdserverpb.KV/Range", &m.base);
    W.ctl.calls[0]->result.range = (struct ctl_range_result){&kv, 1, false, 1};
    done(CTL_OK);
    refused(x[0], GRPC_RESOURCE_EXHAUSTED, "weir: the answer is too large, ask for less at a time");
    mem_free(big);
}

/* ---- leases ------------------------------------------------------------------------------------------------------------------- */

/* What hangs on a lease is asked for before something is done with it. */
static void lease_keys(const char *key)
{
    struct slice keys[] = {slice_cstr(key)};
    assert_true(asked(CTL_LEASE_INFO)->op.lease.keys);
    W.ctl.calls[0]->result.lease = (struct ctl_lease_result){.ttl_s = key ? 5 : -1, .keys = keys, .keys_n = key != NULL};
    done(CTL_OK);
}

static void test_leases(void **state)
{
    Etcd__LeaseGrantRequest g = ETCD__LEASE_GRANT_REQUEST__INIT;
    g.ttl = 60;
    struct ask *x = ask("/etcdserverpb.Lease/LeaseGrant", &g.base);
    assert_true(asked(CTL_LEASE_GRANT)->op.lease.ttl_s == 60 && W.ctl.calls[0]->op.lease.id == 0);
    W.ctl.calls[0]->result.lease = (struct ctl_lease_result){.id = 1234, .ttl_s = 61};
    done(CTL_OK);
    Etcd__LeaseGrantResponse *r = answer_of(x, &etcd__lease_grant_response__descriptor);
    assert_true(r->id == 1234 && r->ttl == 61);
    Etcd__LeaseTimeToLiveRequest t = ETCD__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    t.id = 5;
    t.keys = true;
    x = ask("/etcdserverpb.Lease/LeaseTimeToLive", &t.base);
    assert_true(asked(CTL_LEASE_INFO)->op.lease.keys);
    struct slice keys[] = {SLICE("a"), SLICE("b")};
    W.ctl.calls[0]->result.lease = (struct ctl_lease_result){.id = 5, .ttl_s = 3, .granted_s = 9, .keys = keys, .keys_n = 2};
    done(CTL_OK);
    Etcd__LeaseTimeToLiveResponse *l = answer_of(x, &etcd__lease_time_to_live_response__descriptor);
    assert_true(l->ttl == 3 && l->grantedttl == 9 && l->n_keys == 2 && slice_is(etcd_slice(l->keys[1]), "b"));
    x = ask("/etcdserverpb.Lease/LeaseTimeToLive", &t.base);
    done(CTL_LEASE_NOT_FOUND); /* as etcd: no error, but -1 */
    l = answer_of(x, &etcd__lease_time_to_live_response__descriptor);
    assert_true(l->ttl == -1 && l->id == 5);
    Etcd__LeaseRevokeRequest v = ETCD__LEASE_REVOKE_REQUEST__INIT;
    x = ask("/etcdserverpb.Lease/LeaseRevoke", &v.base);
    lease_keys(NULL);
    done(CTL_LEASE_NOT_FOUND);
    refused(x, GRPC_NOT_FOUND, "etcdserver: requested lease not found");
    Etcd__LeaseLeasesRequest ls = ETCD__LEASE_LEASES_REQUEST__INIT;
    x = ask("/etcdserverpb.Lease/LeaseLeases", &ls.base);
    int64_t ids[] = {3, 4};
    W.ctl.calls[0]->result.lease = (struct ctl_lease_result){.ids = ids, .ids_n = 2};
    done(CTL_OK);
    Etcd__LeaseLeasesResponse *a = answer_of(x, &etcd__lease_leases_response__descriptor);
    assert_true(a->n_leases == 2 && a->leases[1]->id == 4);
}

/* Questions that come together are put one after the other; the answers come in their order; then the stream ends as its client wants. */
static void test_keep_alive(void **state)
{
    struct buf b = {0};
    for (int64_t id = 1; id <= 3; id++) {
        Etcd__LeaseKeepAliveRequest m = ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;
        m.id = id;
        etcd_write_frame(&m.base, &b);
    }
    struct ask *x = ask_bytes("/etcdserverpb.Lease/LeaseKeepAlive", "", buf_slice(&b), false);
    buf_free(&b);
    assert_int_equal(x->http, 200);
    for (int64_t id = 1; id <= 3; id++) {
        assert_int_equal(W.ctl.calls_n, 1);
        assert_int_equal(asked(CTL_LEASE_KEEP)->op.lease.id, id);
        W.ctl.calls[0]->result.lease = (struct ctl_lease_result){.id = id, .ttl_s = id * 10};
        done(id == 2 ? CTL_LEASE_NOT_FOUND : CTL_OK);
        Etcd__LeaseKeepAliveResponse *r = next(x, &etcd__lease_keep_alive_response__descriptor);
        assert_true(r && r->id == id && r->ttl == (id == 2 ? 0 : id * 10));
    }
    assert_false(x->over);
    http_call_end(&x->k, SLICE(""));
    pass(5);
    assert_true(x->over);
    assert_int_equal(x->status, 0);
}

/* ---- watches ------------------------------------------------------------------------------------------------------------------- */

static struct ask *watch_stream(void) { return ask_bytes("/etcdserverpb.Watch/Watch", "", SLICE(""), false); }

static Etcd__WatchResponse *response(struct ask *x) { return next(x, &etcd__watch_response__descriptor); }

static void create_say(struct ask *x, Etcd__WatchCreateRequest *c)
{
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = c;
    say(x, &m.base);
}

/* Creates one, and takes the response that says so. */
static struct ctl_watch *create(struct ask *x, const char *key, const char *end, int64_t id)
{
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    c.key = etcd_data(slice_cstr(key));
    c.range_end = etcd_data(slice_cstr(end));
    c.watch_id = id;
    create_say(x, &c);
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->created && !r->canceled && r->n_events == 0);
    return W.ctl.watches[W.ctl.watches_n - 1];
}

static void refused_watch(struct ask *x, const char *reason)
{
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->created && r->canceled && r->watch_id == -1);
    assert_string_equal(r->cancel_reason, reason);
}

static bool tell(struct ctl_watch *w, const struct ctl_event *ev, size_t n)
{
    bool more = w->ops->events(w->ctx, ev, n, W.ctl.status.revision);
    pass(5);
    return more;
}

static struct ctl_event event(int64_t revision, struct slice value)
{
    return (struct ctl_event){.type = CTL_EVENT_PUT, .kv = {.key = SLICE("k"), .value = value, .mod_revision = revision, .create_revision = 1, .version = 1}};
}

/* Of two watches one is ended by its client, one by the store. */
static void watches_end(struct ask *x)
{
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    Etcd__WatchCancelRequest cancel = ETCD__WATCH_CANCEL_REQUEST__INIT;
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    m.cancel_request = &cancel;
    cancel.watch_id = 99; /* nobody's: no word */
    say(x, &m.base);
    cancel.watch_id = 5;
    say(x, &m.base);
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->watch_id == 5 && r->canceled && !r->created && r->cancel_reason[0] == 0);
    assert_int_equal(W.ctl.watches_n, 2);
    struct ctl_watch *w = W.ctl.watches[0];
    w->ops->ended(w->ctx, CTL_COMPACTED, 33, "compacted");
    pass(5);
    r = response(x);
    assert_true(r && r->canceled && r->compact_revision == 33);
    assert_string_equal(r->cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    assert_int_equal(W.ctl.watches_n, 1);
    assert_null(response(x));
}

static void test_watch(void **state)
{
    struct ask *x = watch_stream();
    assert_int_equal(x->http, 200); /* the head does not wait for the first response */
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    Etcd__WatchCreateRequest__FilterType f[] = {ETCD__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE};
    c.range_end = etcd_data(SLICE("\0"));
    c.start_revision = 12;
    c.filters = f;
    c.n_filters = 1;
    c.prev_kv = c.progress_notify = true;
    create_say(x, &c);
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->created && r->watch_id == 0 && r->header->revision == 40);
    struct ctl_watch *w = W.ctl.watches[0];
    assert_true(slice_eq(w->conf.key, SLICE("\0")) && slice_eq(w->conf.end, SLICE("\0")) && w->conf.revision == 12); /* no key: all */
    assert_true(w->conf.no_delete && !w->conf.no_put && w->conf.prev_kv && w->conf.progress);

    struct ctl_event ev[] = {event(12, SLICE("one")), event(13, SLICE(""))};
    ev[0].has_prev = true;
    ev[0].prev = (struct ctl_kv){.key = SLICE("k"), .value = SLICE("before")};
    ev[1].type = CTL_EVENT_DELETE;
    assert_true(tell(w, ev, 2));
    r = response(x);
    assert_true(r && r->watch_id == 0 && r->n_events == 2 && !r->fragment && r->header->revision == 40);
    assert_true(r->events[0]->type == ETCD__EVENT__EVENT_TYPE__PUT && slice_is(etcd_slice(r->events[0]->prev_kv->value), "before"));
    assert_true(r->events[1]->type == ETCD__EVENT__EVENT_TYPE__DELETE && r->events[1]->kv->mod_revision == 13 && !r->events[1]->prev_kv);
    assert_true(tell(w, NULL, 0)); /* progress, as it wanted */
    r = response(x);
    assert_true(r && r->watch_id == 0 && r->n_events == 0 && !r->created && !r->canceled && r->header->revision == 40);

    create(x, "a", "", 5);
    create(x, "a", "b", 0);
    assert_int_equal(W.api->watches, 3);
    c.watch_id = 5;
    create_say(x, &c);
    refused_watch(x, "mvcc: duplicate watch ID provided on the WatchStream");
    c.watch_id = 0;
    c.key = etcd_data(SLICE("b"));
    c.range_end = etcd_data(SLICE("b"));
    create_say(x, &c);
    refused_watch(x, "mvcc: watcher range is empty");
    W.api->limit[ETCD_LIMIT_WATCHES] = 3;
    c.range_end = etcd_data(SLICE("c"));
    create_say(x, &c);
    refused_watch(x, "etcdserver: too many requests");
    W.api->limit[ETCD_LIMIT_WATCHES] = 8;
    W.ctl.no_more = true;
    create_say(x, &c);
    refused_watch(x, "etcdserver: too many requests");

    watches_end(x);
    http_call_end(&x->k, SLICE("")); /* it has nothing more to say, but listens */
    pass(5);
    assert_false(x->over);
}

static void test_progress(void **state)
{
    struct ask *x = watch_stream();
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    Etcd__WatchProgressRequest p = ETCD__WATCH_PROGRESS_REQUEST__INIT;
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    m.progress_request = &p;
    say(x, &m.base); /* no watches: at once */
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->watch_id == -1 && r->header->revision == 40);
    struct ctl_watch *w1 = create(x, "a", "", 0), *w2 = create(x, "b", "", 0);
    say(x, &m.base);
    assert_true(w1->progress == 1 && w2->progress == 1);
    say(x, &m.base); /* while the first is under way */
    assert_int_equal(w1->progress, 1);
    w1->ops->events(w1->ctx, NULL, 0, 50);
    pass(5);
    assert_null(response(x));
    w2->ops->events(w2->ctx, NULL, 0, 48);
    pass(5);
    r = response(x);
    assert_true(r && r->watch_id == -1 && r->header->revision == 48); /* that both know */
    assert_true(w1->progress == 2 && w2->progress == 2);
    w1->ops->events(w1->ctx, NULL, 0, 60);
    w2->ops->ended(w2->ctx, CTL_COMPACTED, 3, ""); /* one is no more: the other's word counts */
    pass(5);
    bool told = false;
    while ((r = response(x)))
        told |= r->watch_id == -1 && r->header->revision == 60;
    assert_true(told);
}

static void test_fragments(void **state)
{
    struct ask *x = watch_stream();
    static char bytes[1000];
    struct ctl_event ev[6];
    for (int i = 0; i < 6; i++)
        ev[i] = event(i < 4 ? 50 : 51, slice_of(bytes, sizeof bytes));
    W.api->limit[ETCD_LIMIT_FRAGMENT_BYTES] = 2500;
    struct ctl_watch *w = create(x, "k", "", 0);
    tell(w, ev, 6); /* not allowed: only where a revision ends */
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->n_events == 4 && !r->fragment);
    r = response(x);
    assert_true(r && r->n_events == 2 && !r->fragment);
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    c.key = etcd_data(SLICE("k"));
    c.fragment = true;
    create_say(x, &c);
    (void)response(x);
    tell(W.ctl.watches[1], ev, 6);
    r = response(x);
    assert_true(r && r->n_events == 2 && r->fragment);
    r = response(x);
    assert_true(r && r->n_events == 2 && !r->fragment); /* and revision 50 is complete */
    r = response(x);
    assert_true(r && r->n_events == 2 && !r->fragment);
    assert_null(response(x));
}

/* A client that does not read: one watch rests, the other is put off, and both go on where they were. Requests wait, too. */
static void test_slow_watcher(void **state)
{
    static char bytes[100000];
    struct ask *x = watch_stream();
    struct ctl_watch *w1 = create(x, "k", "", 0);
    create(x, "k", "", 0);
    http_call_reading(&x->k, false);
    struct ctl_event ev = event(50, slice_of(bytes, sizeof bytes));
    int told = 0;
    while (tell(w1, &ev, 1)) {
        told++;
        ev.kv.mod_revision++;
        assert_true(told < 50);
    }
    assert_true(W.api->out_bytes > W.api->limit[ETCD_LIMIT_STREAM_BYTES]);
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_STREAM_BYTES]), 1);
    size_t full = W.api->out_bytes;
    ev.kv.mod_revision = 70;
    struct ctl_watch *w2 = W.ctl.watches[1];
    w2->ops->events(w2->ctx, &ev, 1, 80);
    assert_int_equal(W.ctl.watches_n, 1); /* put off */
    assert_int_equal(W.api->out_bytes, full);
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    create_say(x, &c);
    assert_int_equal(W.ctl.watches_n, 1); /* not read */
    http_call_reading(&x->k, true);
    pass(100);
    assert_int_equal(W.api->out_bytes, 0);
    assert_int_equal(w1->resumed, 1);
    assert_int_equal(W.ctl.watches_n, 3);
    assert_int_equal(W.ctl.watches[1]->conf.revision, 70);
    int64_t revision = 50;
    for (int i = 0; i <= told; i++) {
        Etcd__WatchResponse *r = response(x);
        assert_true(r && r->n_events == 1 && r->events[0]->kv->mod_revision == revision++);
    }
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->created && r->watch_id == 2);
    assert_null(response(x));
}

static void test_suspend(void **state)
{
    struct ask *x = watch_stream(), *y = put("k");
    create(x, "a", "", 0);
    etcd_api_suspend(W.api);
    pass(5);
    assert_true(x->over);
    assert_int_equal(x->status, GRPC_UNAVAILABLE); /* so that the client comes again */
    assert_string_equal(x->message, "etcdserver: server stopped");
    assert_int_equal(W.ctl.watches_n, 0);
    assert_true(etcd_api_busy(W.api) && !y->over);
    W.ctl.calls[0]->result.put.has_prev = false;
    done(CTL_OK);
    (void)answer_of(y, &etcd__put_response__descriptor);
    assert_false(etcd_api_busy(W.api));
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------- */

static void test_node(void **state)
{
    Etcd__StatusRequest s = ETCD__STATUS_REQUEST__INIT;
    W.ctl.status.bytes = 4096;
    W.ctl.status.bytes_used = 1000;
    W.ctl.status.nospace = true;
    Etcd__StatusResponse *r = answer_of(ask("/etcdserverpb.Maintenance/Status", &s.base), &etcd__status_response__descriptor);
    assert_true(r->dbsize == 4096 && r->dbsizeinuse == 1000 && r->leader == 9 && r->n_errors == 1);
    assert_string_equal(r->errors[0], "memberID:9 alarm:NOSPACE ");
    Etcd__AlarmRequest a = ETCD__ALARM_REQUEST__INIT;
    Etcd__AlarmResponse *al = answer_of(ask("/etcdserverpb.Maintenance/Alarm", &a.base), &etcd__alarm_response__descriptor);
    assert_true(al->n_alarms == 1 && al->alarms[0]->memberid == 9 && al->alarms[0]->alarm == ETCD__ALARM_TYPE__NOSPACE);
    a.action = ETCD__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    a.memberid = 9;
    a.alarm = ETCD__ALARM_TYPE__NOSPACE;
    struct ask *x = ask("/etcdserverpb.Maintenance/Alarm", &a.base);
    asked(CTL_DISARM);
    done(CTL_OK);
    al = answer_of(x, &etcd__alarm_response__descriptor);
    assert_int_equal(al->n_alarms, 1);
    Etcd__MemberListRequest m = ETCD__MEMBER_LIST_REQUEST__INIT;
    Etcd__MemberListResponse *ml = answer_of(ask("/etcdserverpb.Cluster/MemberList", &m.base), &etcd__member_list_response__descriptor);
    assert_true(ml->n_members == 1 && ml->members[0]->id == 9);
    assert_string_equal(ml->members[0]->clienturls[0], "http://127.0.0.1:2379");
    x = ask("/grpc.health.v1.Health/Check", &m.base);
    assert_true(x->over && x->status == 0 && x->body.n == 7);
    assert_memory_equal(x->body.p, "\0\0\0\0\2\x08\1", 7);
    struct buf text = {0};
    etcd_api_metrics(W.api, &text);
    assert_non_null(strstr(text.p, "weir_etcd_requests_total 5\n"));
    assert_non_null(strstr(text.p, "weir_etcd_limit_hits_total{limit=\"in_bytes\"} 0\n"));
    buf_free(&text);
}

/* Connections that are one too many, and requests that are none of gRPC. */
static void test_pages_and_limits(void **state)
{
    struct ask *x = W.asks[W.asks_n++] = mem_new(MEM_SIM, sizeof *x);
    http_cli_request(&W.cli, &x->k, H1_GET, SLICE("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), H1_NO_BODY, (struct pieces){0}, true);
    pass(5);
    assert_true(x->over && x->http == 200);
    assert_string_equal(x->body.p, "{\"health\":\"true\"}\n");
    x = W.asks[W.asks_n++] = mem_new(MEM_SIM, sizeof *x);
    http_cli_request(&W.cli, &x->k, H1_GET, SLICE("GET /v3/kv/range HTTP/1.1\r\nHost: x\r\n\r\n"), H1_NO_BODY, (struct pieces){0}, true);
    pass(5);
    assert_true(x->over && x->http == 404);
    W.api->limit[ETCD_LIMIT_IN_BYTES] = 20;
    x = ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\0\xff..............................."), false);
    refused(x, GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
    assert_int_equal(W.api->in_bytes, 0);
    W.api->limit[ETCD_LIMIT_CONNS] = 1;
    struct http_cli other = {0};
    struct addr a = addr_ip4(0x7f000001, PORT);
    W.released = false;
    http_cli_connect(&other, W.far, &W.conf, &cli_ops, -1, &a, HTTP_2, NULL);
    pass(10);
    assert_true(W.released); /* it was closed */
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_CONNS]), 1);
    W.released = false;
}

/* ---- what all share -------------------------------------------------------------------------------------------------------------- */

static void workload_accepted(struct listener *ln, int fd, const struct addr *peer) { etcd_api_accept(W.api, fd, SLICE("User:shop/web")); }

/* Whether the connection is kept. */
static bool client_kept(struct http_cli *c, uint16_t port)
{
    struct addr a = addr_ip4(0x7f000001, port);
    W.released = false;
    http_cli_connect(c, W.far, &W.conf, &cli_ops, -1, &a, HTTP_2, NULL);
    pass(10);
    return !W.released;
}

static void shared_calls(void)
{
    W.api->limit[ETCD_LIMIT_CALLS_ALL] = 16;
    for (int i = 0; i < 8; i++)
        put("k");
    refused(put("k"), GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
    http_call_cancel(&W.asks[W.asks_n - 2]->k); /* the store has it still */
    pass(5);
    refused(ask_bytes("/etcdserverpb.Watch/Watch", "", SLICE(""), true), GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
}

static void share_of_calls(void)
{
    for (int i = 0; i < 2; i++)
        assert_false(put("k")->over);
    refused(put("k"), GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_CALLS_ALL]), 3);
    while (W.ctl.calls_n)
        done(CTL_OK);
    assert_int_equal(W.api->calls_n, 0);
}

static void watches_until(int n)
{
    struct ask *x = watch_stream();
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    c.key = etcd_data(SLICE("0123456789"));
    for (int i = 0; i < n; i++) {
        create_say(x, &c);
        Etcd__WatchResponse *r = response(x);
        assert_true(r && r->created && !r->canceled);
    }
    create_say(x, &c);
    refused_watch(x, "etcdserver: too many requests");
}

static void bytes_until(int n)
{
    struct ask *x = ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\xff\xff"), false);
    struct iovec v = {"0123456789", 10};
    for (int i = 0; i < n; i++) {
        http_call_send(&x->k, (struct pieces){&v, 1, 10});
        pass(5);
        assert_false(x->over);
    }
    http_call_send(&x->k, (struct pieces){&v, 1, 10});
    pass(5);
    refused(x, GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests");
}

/* An answer of so many bytes to who does not read, and whether he gets it. */
static bool answered(size_t bytes, struct ask **out)
{
    char *big = mem_new(MEM_SIM, bytes);
    struct ctl_kv kv = {.key = SLICE("k"), .value = slice_of(big, bytes)};
    Etcd__RangeRequest m = ETCD__RANGE_REQUEST__INIT;
    uint64_t hits = counter_read(&W.api->limit_hits[ETCD_LIMIT_OUT_BYTES]);
    struct ask *x = *out = ask("/etcdserverpb.KV/Range", &m.base);
    http_call_reading(&x->k, false);
    W.ctl.calls[0]->result.range = (struct ctl_range_result){&kv, 1, false, 1};
    done(CTL_OK);
    mem_free(big);
    return counter_read(&W.api->limit_hits[ETCD_LIMIT_OUT_BYTES]) == hits;
}

static void shared_answers(struct http_cli *workload)
{
    struct ask *x[4];
    assert_true(answered(1 << 20, &x[0]));
    pass(200); /* what the client takes unread */
    assert_true(W.api->out_bytes > 500000);
    W.api->limit[ETCD_LIMIT_OUT_BYTES] = (uint32_t)W.api->out_bytes * 2;
    assert_false(answered(1000, &x[1]));
    W.at = workload;
    assert_true(answered(1000, &x[2]));
    assert_false(answered(1 << 18, &x[3]));
    for (int i = 0; i < 4; i++)
        if (!x[i]->over)
            http_call_reading(&x[i]->k, true);
    pass(500);
    assert_true(x[0]->over && x[0]->status == 0 && x[2]->over && x[2]->status == 0);
    assert_int_equal(W.api->out_bytes, 0);
}

/* The host takes half of everything, and a workload has its eighth nevertheless. */
static void test_shares(void **state)
{
    struct addr inside = addr_ip4(0x7f000001, PORT + 1);
    struct listener door = {0};
    static struct http_cli host[8], workload[3];
    int fd = sim_listen(0, &inside);
    memset(host, 0, sizeof host);
    memset(workload, 0, sizeof workload);
    listener_start(&door, W.loop, fd, false, workload_accepted);
    W.api->limit[ETCD_LIMIT_CONNS] = 16; /* half is 8, a share 2; W.cli is one */
    pass(10);
    for (int i = 0; i < 8; i++)
        assert_int_equal(client_kept(&host[i], PORT), i < 7);
    for (int i = 0; i < 3; i++)
        assert_int_equal(client_kept(&workload[i], PORT + 1), i < 2);
    assert_int_equal(counter_read(&W.api->limit_hits[ETCD_LIMIT_CONNS]), 2);
    assert_int_equal(W.api->conns_n, 10);

    shared_calls();
    W.at = &workload[0];
    share_of_calls();
    W.api->limit[ETCD_LIMIT_CALLS_ALL] = 1000;

    for (int bytes = 0; bytes < 2; bytes++) { /* ten of each watch, the first twenty too */
        W.api->limit[ETCD_LIMIT_WATCHES] = bytes ? 1000 : 16;
        W.api->limit[ETCD_LIMIT_WATCHES_BYTES] = bytes ? 360 : 1000;
        W.at = &W.cli;
        watches_until(8);
        W.at = &workload[bytes];
        watches_until(2);
    }
    W.at = &W.cli;
    W.api->limit[ETCD_LIMIT_IN_BYTES] = 240;
    struct ask *x = ask_bytes("/etcdserverpb.KV/Put", "", SLICE("\0\0\0\xff\xff.........."), false);
    for (int i = 0; i < 9; i++)
        http_call_send(&x->k, (struct pieces){&(struct iovec){"0123456789", 10}, 1, 10});
    bytes_until(1);
    W.at = &workload[1];
    bytes_until(2);
    W.api->limit[ETCD_LIMIT_IN_BYTES] = 10000;
    W.at = &W.cli;
    shared_answers(&workload[1]);

    for (int i = 0; i < 8; i++)
        http_cli_close(&host[i]);
    for (int i = 0; i < 3; i++)
        http_cli_close(&workload[i]);
    pass(10);
    assert_int_equal(W.api->conns_n, 1);
    assert_int_equal(W.api->askers.n, 1);
    listener_stop(&door);
    socket_close(fd);
    W.released = false;
}

/* ---- who may do what ----------------------------------------------------------------------------------------------------------- */

#define PREFIXES 14
#define DEEP 5

/* Every text of a, b and c, up to DEEP letters: what etcd_may() says of a range has to be what is so of each of its keys. Prefixes and the ends of ranges have no c, so every
 * keyspace has a key in the range that belongs to none within it, if there is one at all. */
static struct {
    char text[400][DEEP + 1];
    int n;
} U;

static void universe_add(const char *head, int left)
{
    if (head[0])
        memcpy(U.text[U.n++], head, strlen(head) + 1);
    for (char c = 'a'; c <= 'c' && left; c++) {
        char longer[DEEP + 1];
        size_t n = strlen(head);
        memcpy(longer, head, n);
        longer[n] = c;
        longer[n + 1] = 0;
        universe_add(longer, left - 1);
    }
}

static unsigned key_may(const char *const prefixes[], const unsigned may[], uint32_t set, const char *key)
{
    size_t longest = 0;
    unsigned is = ETCD_MAY_READ | ETCD_MAY_WRITE;
    for (int i = 0; i < PREFIXES; i++)
        if (set >> i & 1 && strlen(prefixes[i]) > longest && slice_starts(slice_cstr(key), slice_cstr(prefixes[i]))) {
            longest = strlen(prefixes[i]);
            is = may[i];
        }
    return is;
}

static unsigned range_may(const char *const prefixes[], const unsigned may[], uint32_t set, const char *key, const char *end)
{
    unsigned is = ETCD_MAY_READ | ETCD_MAY_WRITE;
    for (int i = 0; i < U.n; i++)
        if (!end[0] ? strcmp(U.text[i], key) == 0 : strcmp(U.text[i], key) >= 0 && (end[0] == '~' || strcmp(U.text[i], end) < 0))
            is &= key_may(prefixes, may, set, U.text[i]);
    return is;
}

static void keyspaces_set(const char *const prefixes[], const unsigned may[], uint32_t set)
{
    struct etcd_keyspace all[PREFIXES];
    struct etcd_acl acls[PREFIXES][3];
    size_t n = 0;
    for (int i = 0; i < PREFIXES; i++) {
        acls[i][0] = (struct etcd_acl){SLICE("User:other"), ETCD_MAY_READ | ETCD_MAY_WRITE};
        acls[i][1] = (struct etcd_acl){SLICE("User:me"), may[i] & ETCD_MAY_READ};
        acls[i][2] = (struct etcd_acl){i % 2 ? SLICE("User:me") : SLICE("User:*"), may[i] & ETCD_MAY_WRITE};
        if (set >> i & 1)
            all[n++] = (struct etcd_keyspace){slice_cstr(prefixes[i]), acls[i], 3};
    }
    etcd_api_keyspaces(W.api, all, n);
}

static void test_ranges_permitted(void **state)
{
    static const char *const prefixes[PREFIXES] = {"a", "b", "aa", "ab", "ba", "bb", "aaa", "aab", "aba", "abb", "baa", "bab", "aaaa", "abab"};
    struct etcd_conn *me = mem_new(MEM_API, sizeof *me);
    uint64_t seen[2][2] = {{0}}, chance = 88172645463325252u;
    me->api = W.api;
    me->principal = SLICE("User:me");
    U.n = 0;
    universe_add("", DEEP);
    for (int i = 0; i < 3000; i++) {
        unsigned may[PREFIXES];
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        uint32_t set = (uint32_t)(chance >> 40) & (uint32_t)(chance >> 20) & ((1u << PREFIXES) - 1);
        for (int k = 0; k < PREFIXES; k++) /* two of three permit all, so that not every range is forbidden */
            may[k] = (chance >> (3 * k)) % 3 ? 3u : (unsigned)(chance >> (3 * k + 8)) & 3u;
        keyspaces_set(prefixes, may, set);
        const char *key = prefixes[(chance >> 33) % PREFIXES], *ends[] = {"", "~", prefixes[(chance >> 45) % PREFIXES], prefixes[(chance >> 52) % PREFIXES]};
        for (size_t k = 0; k < COUNT_OF(ends); k++) {
            struct slice end = ends[k][0] == '~' ? SLICE("\0") : slice_cstr(ends[k]);
            unsigned is = range_may(prefixes, may, set, key, ends[k]);
            for (unsigned want = ETCD_MAY_READ; want <= ETCD_MAY_WRITE; want++) {
                bool told = etcd_may(me, slice_cstr(key), end, want);
                if (told != ((is & want) == want))
                    fail_msg("set %x: [%s, %s) is %s", set, key, ends[k], told ? "permitted" : "forbidden");
                seen[k > 0][told]++;
            }
        }
    }
    assert_true(seen[0][0] > 100 && seen[0][1] > 100 && seen[1][0] > 100 && seen[1][1] > 100);
    mem_free(me);
}

/* The node's own keys. */
static void test_reserved(void **state)
{
    static const struct {
        const char *key, *end;
        bool meets;
    } cases[] = {{"/weir/", "", true}, {"/weir/nodes/a", "", true}, {"/weir", "", false}, {"/weir0", "", false}, {"/weir", "/weir/", false}, {"/weir", "/weir/0", true},
                 {"/weir/z", "/weir0", true}, {"/weir0", "/z", false}, {"", "", false}, {"a", "~", false}, {"/", "~", true}, {"/a", "/b", false}, {"/w", "/x", true}, {"/x", "/a", false}};
    struct etcd_conn *conn = mem_new(MEM_API, sizeof *conn);
    conn->api = W.api;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice key = slice_cstr(cases[i].key), end = cases[i].end[0] == '~' ? SLICE("\0") : slice_cstr(cases[i].end);
        for (int host = 0; host < 2; host++) {
            conn->host = host;
            assert_int_equal(etcd_may(conn, key, end, ETCD_MAY_WRITE), !cases[i].meets);
            assert_int_equal(etcd_may(conn, key, end, ETCD_MAY_READ), !cases[i].meets || host);
            assert_int_equal(etcd_may(conn, key, end, ETCD_MAY_READ | ETCD_MAY_WRITE), !cases[i].meets);
        }
    }
    mem_free(conn);
}

/* Where requests go is the host's to say, and that of workloads whom a keyspace below /services/ names. */
static void test_services(void **state)
{
    static const struct etcd_acl me[] = {{{"User:me", 7}, ETCD_MAY_READ | ETCD_MAY_WRITE}}, all[] = {{{"User:*", 6}, ETCD_MAY_READ | ETCD_MAY_WRITE}};
    const struct etcd_keyspace wide[] = {{SLICE("/"), all, 1}}, narrow[] = {{SLICE("/"), all, 1}, {SLICE("/services/shop/legacy/"), me, 1}}, whole[] = {{SLICE("/services/"), all, 1}};
    static const struct {
        const char *key, *end;
        bool narrow, whole; /* whether User:me may write them with these keyspaces; without any, and with wide ones, nobody */
    } cases[] = {
        {"/services/shop/legacy/a", "", true, true},  {"/services/shop/legacy/", "/services/shop/legacy0", true, true}, {"/services/shop/web/a", "", false, true},
        {"/services/", "/services0", false, true},    {"/services/shop/legacy/", "/services/shop/z", false, true},       {"/services/shop/", "/services/shop0", false, true},
        {"/services/shop/legacy/", "~", false, false}, {"/servicer", "/services/shop/legacy/b", false, false},           {"/a", "~", false, false},
    };
    struct etcd_conn *conn = mem_new(MEM_SIM, sizeof *conn + 8);
    conn->api = W.api;
    conn->principal = SLICE("User:me");
    for (int k = 0; k < 4; k++) {
        etcd_api_keyspaces(W.api, k == 1 ? wide : k == 2 ? narrow : whole, k == 2 ? 2 : k > 0);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            struct slice key = slice_cstr(cases[i].key), end = cases[i].end[0] == '~' ? SLICE("\0") : slice_cstr(cases[i].end);
            bool may = k == 2 ? cases[i].narrow : k == 3 && cases[i].whole;
            conn->host = false;
            if (etcd_may(conn, key, end, ETCD_MAY_WRITE) != may)
                fail_msg("keyspaces %d, %s %s: %s", k, cases[i].key, cases[i].end, may ? "may not" : "may");
        }
        assert_true(etcd_may(conn, SLICE("/services/shop/legacy/a"), SLICE(""), ETCD_MAY_READ));
        assert_true(etcd_may(conn, SLICE("/service"), SLICE("/services/"), ETCD_MAY_WRITE));
        conn->host = true;
        assert_true(etcd_may(conn, SLICE("/services/shop/legacy/a"), SLICE(""), ETCD_MAY_WRITE));
    }
    conn->principal = SLICE("User:other");
    conn->host = false;
    etcd_api_keyspaces(W.api, narrow, 2);
    assert_false(etcd_may(conn, SLICE("/services/shop/legacy/a"), SLICE(""), ETCD_MAY_WRITE));
    mem_free(conn);
}

static const struct etcd_acl shop_acls[] = {{{"User:shop/till", 14}, ETCD_MAY_READ | ETCD_MAY_WRITE}, {{"User:shop/web", 13}, ETCD_MAY_READ}};
static const struct etcd_keyspace shop_keys[] = {{{"s/", 2}, shop_acls, 2}};

/* From now on the client is that workload. */
static void become(const char *principal)
{
    struct etcd_conn *conn = CONTAINER_OF(W.api->conns.next, struct etcd_conn, link);
    conn->host = false;
    conn->principal = slice_cstr(principal);
}

static struct ask *range(const char *key, const char *end)
{
    Etcd__RangeRequest m = ETCD__RANGE_REQUEST__INIT;
    m.key = etcd_data(slice_cstr(key));
    m.range_end = etcd_data(slice_cstr(end));
    return ask("/etcdserverpb.KV/Range", &m.base);
}

static struct ask *txn(Etcd__Compare *compare, Etcd__RequestOp *then, Etcd__RequestOp *other)
{
    Etcd__TxnRequest m = ETCD__TXN_REQUEST__INIT;
    m.compare = &compare;
    m.n_compare = compare != NULL;
    m.success = &then;
    m.n_success = then != NULL;
    m.failure = &other;
    m.n_failure = other != NULL;
    return ask("/etcdserverpb.KV/Txn", &m.base);
}

static void test_permitted(void **state)
{
    etcd_api_keyspaces(W.api, shop_keys, 1);
    refused(put("s/a"), GRPC_PERMISSION_DENIED, ETCD_DENIED); /* the host is not named */
    become("User:shop/web");
    refused(put("s/a"), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    struct ask *x = range("r", "t"); /* some of the keyspace, some of nobody's */
    asked(CTL_RANGE);
    done(CTL_OK);
    assert_true(x->over && x->status == 0);
    refused(range("/", "t"), GRPC_PERMISSION_DENIED, ETCD_DENIED); /* the node's own among them */
    become("User:shop/spy");
    refused(range("r", "t"), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    Etcd__DeleteRangeRequest d = ETCD__DELETE_RANGE_REQUEST__INIT;
    d.key = etcd_data(SLICE("a"));
    d.range_end = etcd_data(SLICE("z"));
    refused(ask("/etcdserverpb.KV/DeleteRange", &d.base), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    /* A transaction: each comparison, and each branch. */
    Etcd__Compare free_key = ETCD__COMPARE__INIT, bound_key = ETCD__COMPARE__INIT;
    free_key.key = etcd_data(SLICE("a"));
    bound_key.key = etcd_data(SLICE("s/a"));
    Etcd__RequestOp free_op = ETCD__REQUEST_OP__INIT, bound_op = ETCD__REQUEST_OP__INIT;
    Etcd__RangeRequest free_range = ETCD__RANGE_REQUEST__INIT, bound_range = ETCD__RANGE_REQUEST__INIT;
    free_range.key = etcd_data(SLICE("a"));
    bound_range.key = etcd_data(SLICE("s/b"));
    free_op.request_case = bound_op.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
    free_op.request_range = &free_range;
    bound_op.request_range = &bound_range;
    refused(txn(&bound_key, &free_op, NULL), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    refused(txn(&free_key, &bound_op, NULL), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    refused(txn(&free_key, &free_op, &bound_op), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    Etcd__TxnRequest inner = ETCD__TXN_REQUEST__INIT;
    Etcd__RequestOp nested = ETCD__REQUEST_OP__INIT, *inside[] = {&bound_op};
    inner.failure = inside;
    inner.n_failure = 1;
    nested.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_TXN;
    nested.request_txn = &inner;
    refused(txn(&free_key, &nested, NULL), GRPC_PERMISSION_DENIED, ETCD_DENIED);
    assert_int_equal(W.ctl.calls_n, 0);
    txn(&free_key, &free_op, NULL);
    asked(CTL_TXN);
    done(CTL_OK);
    assert_int_equal(counter_read(&W.api->denied), 9);
}

static void test_permitted_leases(void **state)
{
    Etcd__LeaseRevokeRequest v = ETCD__LEASE_REVOKE_REQUEST__INIT;
    Etcd__LeaseTimeToLiveRequest t = ETCD__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    Etcd__LeaseKeepAliveRequest k = ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;
    t.keys = true;
    v.id = 3;
    struct ask *x = ask("/etcdserverpb.Lease/LeaseRevoke", &v.base);
    lease_keys("/weir/nodes/a"); /* the node's own, also for the host */
    refused(x, GRPC_PERMISSION_DENIED, ETCD_DENIED);
    etcd_api_keyspaces(W.api, shop_keys, 1);
    become("User:shop/web");
    x = ask("/etcdserverpb.Lease/LeaseRevoke", &v.base);
    lease_keys("s/a");
    refused(x, GRPC_PERMISSION_DENIED, ETCD_DENIED);
    x = put("mine"); /* with a lease: it would hang a key on another one's */
    lease_keys("s/a");
    refused(x, GRPC_PERMISSION_DENIED, ETCD_DENIED);
    x = ask("/etcdserverpb.Lease/LeaseKeepAlive", &k.base); /* as with etcd; but not the node's own */
    lease_keys("s/a");
    asked(CTL_LEASE_KEEP);
    done(CTL_OK);
    x = ask("/etcdserverpb.Lease/LeaseKeepAlive", &k.base);
    lease_keys("/weir/nodes/a");
    assert_true(x->over && x->status == GRPC_PERMISSION_DENIED);
    become("User:shop/spy");
    x = ask("/etcdserverpb.Lease/LeaseTimeToLive", &t.base);
    lease_keys("s/a");
    refused(x, GRPC_PERMISSION_DENIED, ETCD_DENIED);
    become("User:shop/till");
    x = ask("/etcdserverpb.Lease/LeaseRevoke", &v.base);
    lease_keys("s/a");
    assert_int_equal(asked(CTL_LEASE_REVOKE)->op.lease.id, 3);
    done(CTL_OK);
    assert_true(x->over && x->status == 0);
    x = put("mine");
    lease_keys("s/a");
    assert_true(slice_is(asked(CTL_PUT)->op.put.key, "mine") && W.ctl.calls[0]->op.put.lease == -5);
    done(CTL_OK);
    assert_true(x->over && x->status == 0);
}

/* A transaction of more leases than the store takes operations is refused before each of them is compared with the others, and asked for. */
static void test_many_leases(void **state)
{
    enum { MANY = 60000 };
    Etcd__PutRequest *puts = mem_new(MEM_SIM, MANY * sizeof *puts);
    Etcd__RequestOp *ops = mem_new(MEM_SIM, MANY * sizeof *ops), **all = mem_new(MEM_SIM, MANY * sizeof *all);
    Etcd__TxnRequest m = ETCD__TXN_REQUEST__INIT;
    for (int i = 0; i < MANY; i++) {
        etcd__put_request__init(&puts[i]);
        etcd__request_op__init(&ops[i]);
        puts[i].key = etcd_data(SLICE("k"));
        puts[i].lease = i + 1;
        ops[i].request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_PUT;
        ops[i].request_put = &puts[i];
        all[i] = &ops[i];
    }
    m.success = all;
    etcd_api_keyspaces(W.api, shop_keys, 1);
    m.n_success = MANY;
    struct ask *x = ask("/etcdserverpb.KV/Txn", &m.base);
    pass(500);
    refused(x, GRPC_INVALID_ARGUMENT, "etcdserver: too many operations in txn request");
    assert_int_equal(W.ctl.calls_n, 0);
    m.n_success = 3;
    x = ask("/etcdserverpb.KV/Txn", &m.base);
    for (int i = 0; i < 3; i++)
        lease_keys(NULL);
    asked(CTL_TXN);
    done(CTL_TOO_MANY_OPS);
    mem_free(puts);
    mem_free(ops);
    mem_free(all);
}

/* What is about the whole store: the host's, and that of workloads whom all keyspaces let. */
static void test_permitted_whole(void **state)
{
    Etcd__CompactionRequest c = ETCD__COMPACTION_REQUEST__INIT;
    Etcd__LeaseLeasesRequest l = ETCD__LEASE_LEASES_REQUEST__INIT;
    Etcd__AlarmRequest a = ETCD__ALARM_REQUEST__INIT;
    static const struct {
        const char *who; /* NULL: the host */
        bool keyspaces, reads, writes;
    } cases[] = {{NULL, true, true, true}, {"User:shop/spy", false, true, true}, {"User:shop/spy", true, false, false}, {"User:shop/web", true, true, false}, {"User:shop/till", true, true, true}};
    c.revision = 3;
    a.action = ETCD__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    a.alarm = ETCD__ALARM_TYPE__NOSPACE;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct {
            const char *path;
            const ProtobufCMessage *m;
            enum ctl_kind kind;
            bool may;
        } asks[] = {{"/etcdserverpb.KV/Compact", &c.base, CTL_COMPACT, cases[i].writes},
                    {"/etcdserverpb.Lease/LeaseLeases", &l.base, CTL_LEASE_LIST, cases[i].reads},
                    {"/etcdserverpb.Maintenance/Alarm", &a.base, CTL_DISARM, cases[i].writes}};
        etcd_api_keyspaces(W.api, shop_keys, cases[i].keyspaces);
        if (cases[i].who)
            become(cases[i].who);
        for (size_t k = 0; k < COUNT_OF(asks); k++) {
            struct ask *x = ask(asks[k].path, asks[k].m);
            if (!asks[k].may) {
                refused(x, GRPC_PERMISSION_DENIED, ETCD_DENIED);
                continue;
            }
            asked(asks[k].kind);
            done(CTL_OK);
            assert_true(x->over && x->status == 0);
        }
    }
    assert_int_equal(W.ctl.calls_n, 0);
}

static void test_permitted_watches(void **state)
{
    struct ask *x = watch_stream();
    create(x, "s/a", "", 0);
    create(x, "a", "", 0);
    etcd_api_keyspaces(W.api, shop_keys, 1); /* the host is not named: what it watches ends, its other watch goes on */
    pass(5);
    Etcd__WatchResponse *r = response(x);
    assert_true(r && r->canceled && !r->created && r->watch_id == 0);
    assert_string_equal(r->cancel_reason, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    assert_int_equal(W.ctl.watches_n, 1);
    assert_true(slice_is(W.ctl.watches[0]->conf.key, "a"));
    Etcd__WatchCreateRequest c = ETCD__WATCH_CREATE_REQUEST__INIT;
    c.key = etcd_data(SLICE("r"));
    c.range_end = etcd_data(SLICE("t"));
    create_say(x, &c);
    refused_watch(x, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    etcd_api_keyspaces(W.api, NULL, 0);
    create_say(x, &c);
    r = response(x);
    assert_true(r && r->created && !r->canceled);
    assert_false(x->over);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {T(test_put), T(test_memory_of_calls), T(test_range), T(test_txn), T(test_refused), T(test_deadlines), T(test_leaving), T(test_slow_answers),
                                       T(test_leases), T(test_keep_alive), T(test_watch), T(test_progress), T(test_fragments), T(test_slow_watcher),
                                       T(test_suspend), T(test_node), T(test_pages_and_limits), T(test_shares),
                                       T(test_ranges_permitted), T(test_reserved), T(test_services), T(test_permitted), T(test_permitted_leases), T(test_many_leases), T(test_permitted_whole), T(test_permitted_watches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
