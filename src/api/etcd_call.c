/* etcd_call.c - connections and calls of the etcd API: gRPC over HTTP/2.
 *
 *     unary    request() body().. --message whole--> handler --> ctl --> etcd_answer(): head, frame, trailers: over
 *     stream   request(): head goes out at once; each message --> handler; etcd_stream_send()..; etcd_stream_end() or etcd_fail(): trailers
 *     both     aborted(), the deadline, etcd_fail(): over for the client. A question that ctl has keeps the call's memory until it is answered
 *
 * An answer that its client does not take at once keeps its call until it has: so what waits can be counted, and bounded. A stream whose client
 * is slow takes no further messages. What is no gRPC: GET /health and /version, as etcd has them (etcd_api.c).
 */
#include "etcd_int.h"

#define KEEP_BYTES 65536u         /* capacity of buffers that is kept */
#define ANSWER_AHEAD 65536u       /* bytes of an answer that may wait for the client while its call is over */
#define ARENA_BYTES 4096u
#define POOL_CALLS 256u           /* whose memory is kept for the next ones */
#define POOL_REST_MS 1000         /* what was in the pool for so long all the time is too much */

static uint32_t limit(const struct etcd_call *call, enum etcd_limit l) { return call->api->limit[l]; }

/* ---- memory of calls, kept for the next ones --------------------------------------------------------------------------- */

static void pool_cut(struct etcd_api *a, uint32_t n)
{
    for (; n > 0; n--) {
        struct etcd_call *call = CONTAINER_OF(a->pool.prev, struct etcd_call, link); /* the one that has rested longest */
        list_del(&call->link);
        a->pool_n--;
        arena_fini(&call->mem);
        buf_free(&call->in);
        mem_free(call);
    }
}

static void pool_look(struct timer *t)
{
    struct etcd_api *a = CONTAINER_OF(t, struct etcd_api, pool_rest);
    pool_cut(a, a->pool_least);
    a->pool_least = a->pool_n;
    a->pool_looked = a->pool_n > 0;
    if (a->pool_looked)
        timer_set(a->loop, t, POOL_REST_MS);
}

void etcd_pool_init(struct etcd_api *a)
{
    list_init(&a->pool);
    timer_init(&a->pool_rest, pool_look);
}

void etcd_pool_fini(struct etcd_api *a)
{
    timer_clear(&a->pool_rest);
    pool_cut(a, a->pool_n);
}

static void pool_put(struct etcd_api *a, struct etcd_call *call)
{
    list_push_front(&a->pool, &call->link);
    a->pool_n++;
    if (a->pool_looked)
        return;
    a->pool_looked = true;
    a->pool_least = 0;
    timer_set(a->loop, &a->pool_rest, POOL_REST_MS);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static void in_less(struct etcd_call *call, size_t bytes)
{
    call->api->in_bytes -= bytes;
    call->asker->in_bytes -= bytes;
}

static void in_clear(struct etcd_call *call)
{
    in_less(call, call->in.n);
    if (call->in.cap > KEEP_BYTES)
        buf_free(&call->in);
    buf_clear(&call->in);
}

static void out_note(struct etcd_call *call, size_t waiting)
{
    call->api->out_bytes += waiting - call->out_bytes;
    call->asker->out_bytes += waiting - call->out_bytes;
    call->out_bytes = waiting;
}

static void on_deadline(struct timer *t);

static struct etcd_call *call_new(struct etcd_conn *conn, struct http_req *r, const struct etcd_method *method)
{
    struct etcd_api *a = conn->api;
    struct etcd_call *call;
    if (list_empty(&a->pool)) {
        call = mem_new(MEM_API, sizeof *call);
        arena_init(&call->mem, MEM_API, ARENA_BYTES);
        list_init(&call->link);
        timer_init(&call->deadline, on_deadline);
    } else {
        call = CONTAINER_OF(a->pool.next, struct etcd_call, link);
        list_del(&call->link);
        a->pool_n--;
        a->pool_least = MIN(a->pool_least, a->pool_n);
    }
    call->api = a;
    call->conn = conn;
    call->asker = conn->asker;
    call->asker->calls_n++;
    call->r = r;
    call->method = method;
    call->timed = call->in_end = call->handled = call->begun = call->held = call->finishing = call->reading_off = false;
    r->owner = call;
    list_push(&conn->calls, &call->link);
    a->calls_n++;
    if (method->kind == ETCD_UNARY)
        a->asked_n++;
    return call;
}

/* Nobody refers to it: neither client nor ctl. */
static void call_free(struct etcd_call *call)
{
    struct etcd_api *a = call->api;
    MUST(!call->r && !call->asked && !call->watches);
    in_clear(call);
    a->calls_n--;
    call->asker->calls_n--;
    etcd_asker_rest(a, call->asker);
    if (a->freed || a->pool_n >= POOL_CALLS) {
        arena_fini(&call->mem);
        buf_free(&call->in);
        mem_free(call);
    } else {
        arena_reset(&call->mem);
        pool_put(a, call);
    }
    etcd_api_reap(a);
}

/* It is over for its client. */
static void call_over(struct etcd_call *call)
{
    if (!call->r)
        return;
    if (call->method->kind == ETCD_UNARY)
        call->api->asked_n--;
    etcd_watches_free(call);
    out_note(call, 0);
    timer_clear(&call->deadline);
    list_del(&call->link);
    call->r->owner = NULL;
    call->r = NULL;
    call->conn = NULL;
    if (!call->asked && !call->taking)
        call_free(call);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

static struct pieces piece(struct iovec *v, struct slice s)
{
    union {
        const char *from;
        void *to;
    } p = {.from = s.p};
    *v = (struct iovec){p.to, s.n};
    return (struct pieces){v, s.n ? 1 : 0, s.n};
}

static void head_begin(struct etcd_api *a)
{
    head_clear(&a->head);
    head_status(&a->head, 200, SLICE(""));
    head_field(&a->head, SLICE("content-type"), SLICE("application/grpc"));
}

static struct slice status_lines(struct etcd_api *a, enum grpc_status status, const char *text)
{
    buf_clear(&a->text);
    buf_printf(&a->text, "grpc-status: %d\r\n", (int)status);
    if (text[0]) {
        buf_adds(&a->text, "grpc-message: ");
        grpc_message_add(&a->text, slice_cstr(text));
        buf_adds(&a->text, "\r\n");
    }
    return buf_slice(&a->text);
}

static void out_trim(struct etcd_api *a)
{
    if (a->out.cap > KEEP_BYTES * 4)
        buf_free(&a->out);
}

void etcd_fail(struct etcd_call *call, enum grpc_status status, const char *text)
{
    struct etcd_api *a = call->api;
    struct http_req *r = call->r;
    if (!r)
        return;
    counter_inc(&a->requests);
    counter_inc(&a->failures);
    struct slice lines = status_lines(a, status, text);
    if (call->begun) {
        http_req_end(r, lines);
    } else {
        head_begin(a);
        head_slice(&a->head, lines);
        http_req_answer(r, &a->head, H1_NO_BODY, 0, (struct pieces){0}, true);
    }
    call_over(call);
}

void etcd_fail_ctl(struct etcd_call *call)
{
    etcd_fail(call, (enum grpc_status)ctl_error_grpc(call->ctl.error), ctl_error_text(call->ctl.error));
}

static void answer_end(struct etcd_call *call)
{
    http_req_end(call->r, SLICE("grpc-status: 0\r\n"));
    call_over(call);
}

void etcd_answer(struct etcd_call *call, const ProtobufCMessage *m)
{
    struct etcd_api *a = call->api;
    struct iovec v;
    if (!call->r)
        return;
    size_t bytes = etcd_bytes(m);
    if (bytes > limit(call, ETCD_LIMIT_ANSWER_BYTES)) {
        etcd_limit_hit(a, ETCD_LIMIT_ANSWER_BYTES);
        etcd_fail(call, GRPC_RESOURCE_EXHAUSTED, "weir: the answer is too large, ask for less at a time");
        return;
    }
    if (etcd_share_full(a, ETCD_LIMIT_OUT_BYTES, a->out_bytes, call->asker->out_bytes, bytes)) {
        etcd_fail(call, GRPC_RESOURCE_EXHAUSTED, ctl_error_text(CTL_TOO_MANY_REQUESTS));
        return;
    }
    counter_inc(&a->requests);
    buf_clear(&a->out);
    etcd_write_frame(m, &a->out);
    head_begin(a);
    call->begun = true;
    size_t waiting = http_req_answer(call->r, &a->head, H1_CHUNKED, 0, piece(&v, buf_slice(&a->out)), false);
    out_trim(a);
    if (!call->r) /* it was its last straw */
        return;
    if (waiting > ANSWER_AHEAD) {
        timer_clear(&call->deadline);
        call->finishing = true;
        out_note(call, waiting);
    } else {
        answer_end(call);
    }
}

void etcd_stream_send(struct etcd_call *call, const ProtobufCMessage *m)
{
    struct etcd_api *a = call->api;
    struct iovec v;
    if (!call->r)
        return;
    buf_clear(&a->out);
    etcd_write_frame(m, &a->out);
    size_t waiting = http_req_send(call->r, piece(&v, buf_slice(&a->out)));
    out_trim(a);
    if (!call->r)
        return;
    if (waiting > limit(call, ETCD_LIMIT_STREAM_BYTES) && !etcd_stream_full(call))
        etcd_limit_hit(a, ETCD_LIMIT_STREAM_BYTES);
    out_note(call, waiting);
}

void etcd_stream_end(struct etcd_call *call)
{
    if (!call->r)
        return;
    counter_inc(&call->api->requests);
    answer_end(call);
}

static void on_deadline(struct timer *t)
{
    struct etcd_call *call = CONTAINER_OF(t, struct etcd_call, deadline);
    if (!call->timed) {
        etcd_limit_hit(call->api, ETCD_LIMIT_BODY_MS);
        etcd_fail(call, GRPC_UNAVAILABLE, ctl_error_text(CTL_UNKNOWN));
    } else {
        etcd_fail(call, GRPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    }
}

/* ---- asking ctl -------------------------------------------------------------------------------------------------------------- */

static void on_done(struct ctl_call *c)
{
    struct etcd_call *call = CONTAINER_OF(c, struct etcd_call, ctl);
    call->asked = false;
    if (call->r)
        call->done(call);
    else if (!call->taking)
        call_free(call);
}

void etcd_ask(struct etcd_call *call, void (*done)(struct etcd_call *call))
{
    call->asked = true;
    call->done = done;
    call->ctl.done = on_done;
    ctl_submit(call->api->ctl, &call->ctl);
}

Etcd__ResponseHeader *etcd_header(struct etcd_call *call, int64_t revision)
{
    Etcd__ResponseHeader *h = arena_alloc(&call->mem, sizeof *h);
    etcd__response_header__init(h);
    h->cluster_id = call->api->conf.cluster_id;
    h->member_id = call->api->conf.member_id;
    h->revision = revision;
    h->raft_term = 1;
    return h;
}

int64_t etcd_revision(const struct etcd_api *a)
{
    struct ctl_status s;
    ctl_status(a->ctl, &s);
    return s.revision;
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------ */

/* What is wrong with the bytes of a message, or with the frame around it. */
static void refuse(struct etcd_call *call, enum err e, size_t bytes)
{
    char text[96];
    switch (e) {
    case ERR_LIMIT:
        etcd_limit_hit(call->api, ETCD_LIMIT_MESSAGE_BYTES);
        buf_clear(&call->api->out);
        buf_printf(&call->api->out, "grpc: received message larger than max (%zu vs. %u)", bytes, limit(call, ETCD_LIMIT_MESSAGE_BYTES));
        memcpy(text, call->api->out.p, MIN(call->api->out.n + 1, sizeof text - 1));
        text[sizeof text - 1] = 0;
        etcd_fail(call, GRPC_RESOURCE_EXHAUSTED, text);
        return;
    case ERR_UNSUPPORTED: etcd_fail(call, GRPC_UNIMPLEMENTED, "grpc: compressed messages are not taken"); return;
    default: etcd_fail(call, GRPC_INTERNAL, "grpc: the bytes are not a message"); return;
    }
}

/* One message to its handler. */
static void message_handle(struct etcd_call *call, struct slice msg)
{
    ProtobufCMessage *m = NULL;
    enum err e = call->method->request ? etcd_read(call->method->request, &call->mem, msg, &m) : OK;
    if (e == ERR_LIMIT)
        etcd_fail(call, GRPC_INVALID_ARGUMENT, ctl_error_text(CTL_REQUEST_TOO_LARGE));
    else if (e)
        refuse(call, e, msg.n);
    else
        call->method->handle(call, m);
}

/* Looks at the bytes of a unary call so far; those of the last piece may not be in call->in. */
static void unary_look(struct etcd_call *call, struct slice bytes)
{
    struct slice msg;
    enum err e = grpc_frame_next(&bytes, limit(call, ETCD_LIMIT_MESSAGE_BYTES), &msg);
    if (e && e != ERR_AGAIN) {
        refuse(call, e, msg.n);
    } else if (e == OK && bytes.n) {
        refuse(call, ERR_SYNTAX, 0); /* a second message */
    } else if (call->in_end) {
        if (e) {
            refuse(call, ERR_SYNTAX, 0);
            return;
        }
        call->handled = true;
        if (!call->timed)
            timer_clear(&call->deadline);
        call->taking = true;
        message_handle(call, msg);
        call->taking = false;
        in_clear(call);
        if (!call->r && !call->asked)
            call_free(call);
    }
}

static bool in_add(struct etcd_call *call, struct pieces body)
{
    struct etcd_api *a = call->api;
    if (etcd_share_full(a, ETCD_LIMIT_IN_BYTES, a->in_bytes, call->asker->in_bytes, body.bytes)) {
        etcd_fail(call, GRPC_RESOURCE_EXHAUSTED, ctl_error_text(CTL_TOO_MANY_REQUESTS));
        return false;
    }
    for (int i = 0; i < body.n; i++)
        buf_add(&call->in, body.v[i].iov_base, body.v[i].iov_len);
    a->in_bytes += body.bytes;
    call->asker->in_bytes += body.bytes;
    return true;
}

static void unary_body(struct etcd_call *call, struct pieces body, bool end)
{
    call->in_end = end;
    if (call->handled || call->finishing)
        return;
    if (end && !call->in.n && body.n <= 1) /* as it is as a rule: nothing is copied */
        unary_look(call, body.n ? slice_of(body.v[0].iov_base, body.v[0].iov_len) : SLICE(""));
    else if (in_add(call, body))
        unary_look(call, buf_slice(&call->in));
}

/* A message is taken off call->in and handled; false when there is none. */
static bool stream_take(struct etcd_call *call, size_t *at)
{
    struct slice rest = slice_of(call->in.p + *at, call->in.n - *at), msg;
    enum err e = grpc_frame_next(&rest, limit(call, ETCD_LIMIT_MESSAGE_BYTES), &msg);
    if (e == ERR_AGAIN)
        return false;
    if (e) {
        refuse(call, e, msg.n);
        return false;
    }
    *at = call->in.n - rest.n;
    arena_reset(&call->mem);
    message_handle(call, msg);
    return true;
}

void etcd_stream_next(struct etcd_call *call)
{
    if (call->taking)
        return;
    size_t at = 0;
    bool more = true;
    call->taking = true;
    while (call->r && !call->held && !etcd_stream_full(call) && more)
        more = call->in.n > at && stream_take(call, &at);
    if (call->r && call->in_end && !more && !call->held && !call->watches) /* watches go on without their client's word */
        etcd_stream_end(call);
    call->taking = false;
    if (at) {
        memmove(call->in.p, call->in.p + at, call->in.n - at);
        call->in.n -= at;
        in_less(call, at);
    }
    if (!call->r) {
        if (!call->asked)
            call_free(call);
        return;
    }
    bool off = call->held || etcd_stream_full(call);
    if (off != call->reading_off && !call->in_end)
        http_req_reading(call->r, !off);
    call->reading_off = off;
}

static void stream_body(struct etcd_call *call, struct pieces body, bool end)
{
    call->in_end = end;
    if (in_add(call, body))
        etcd_stream_next(call);
}

/* ---- what http tells -------------------------------------------------------------------------------------------------------------- */

static void call_begin(struct etcd_call *call, const struct h1_head *h)
{
    const struct h1_field *f = h1_find(h, SLICE("grpc-timeout"));
    uint64_t ms;
    if (f && grpc_timeout_parse(f->value, &ms) == OK) {
        call->timed = true;
        timer_set(call->api->loop, &call->deadline, MIN(ms, (uint64_t)UINT32_MAX));
    } else if (call->method->kind == ETCD_UNARY) {
        timer_set(call->api->loop, &call->deadline, limit(call, ETCD_LIMIT_BODY_MS));
    }
    if (call->method->kind == ETCD_UNARY)
        return;
    head_begin(call->api);
    call->begun = true;
    http_req_answer(call->r, &call->api->head, H1_CHUNKED, 0, (struct pieces){0}, false);
}

/* It becomes no call: its status is the whole answer. */
static void request_refuse(struct etcd_api *a, struct http_req *r, enum grpc_status status, const char *text)
{
    counter_inc(&a->requests);
    counter_inc(&a->failures);
    struct slice lines = status_lines(a, status, text);
    head_begin(a);
    head_slice(&a->head, lines);
    http_req_answer(r, &a->head, H1_NO_BODY, 0, (struct pieces){0}, true);
}

/* A method that nobody serves. */
static void method_refuse(struct etcd_api *a, struct http_req *r, const struct h1_head *h, const struct etcd_method *m)
{
    struct buf text = {0};
    if (m) {
        buf_printf(&text, "weir: %s.%s is not served: %s", m->service, m->name, m->why);
    } else {
        struct slice path = h->path, name, service;
        (void)slice_cut(path, '/', &path);
        service = slice_cut(path, '/', &name);
        buf_printf(&text, "unknown method " SLICE_FMT " for service " SLICE_FMT, SLICE_ARG(name), SLICE_ARG(service));
    }
    request_refuse(a, r, GRPC_UNIMPLEMENTED, text.p);
    buf_free(&text);
}

static void on_body(struct http_req *r, struct pieces body, bool end)
{
    struct etcd_call *call = r->owner;
    if (!call)
        return; /* it was refused */
    if (call->method->kind == ETCD_UNARY)
        unary_body(call, body, end);
    else
        stream_body(call, body, end);
}

static void on_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct etcd_conn *conn = CONTAINER_OF(c, struct etcd_conn, srv);
    struct etcd_api *a = conn->api;
    const struct h1_field *type = h1_get(h, H1_CONTENT_TYPE);
    r->owner = NULL;
    if (!http_req_is_h2(r) || h->method_id != H1_POST || !type || !slice_starts(type->value, SLICE("application/grpc"))) {
        etcd_plain(a, r, h);
        return;
    }
    const struct etcd_method *m = table_get(&a->methods, h->path);
    if (!m || m->why) {
        method_refuse(a, r, h, m);
        return;
    }
    if (etcd_share_full(a, ETCD_LIMIT_CALLS_ALL, a->calls_n, conn->asker->calls_n, 1)) {
        request_refuse(a, r, GRPC_RESOURCE_EXHAUSTED, ctl_error_text(CTL_TOO_MANY_REQUESTS));
        return;
    }
    struct etcd_call *call = call_new(conn, r, m);
    call_begin(call, h);
    if (call->r && (body.bytes || end))
        on_body(r, body, end);
}

static void on_drained(struct http_req *r)
{
    struct etcd_call *call = r->owner;
    if (!call)
        return;
    if (call->finishing) {
        answer_end(call);
        return;
    }
    out_note(call, 0);
    call->taking = true; /* what follows may end it */
    etcd_watches_drained(call);
    call->taking = false;
    if (call->r)
        etcd_stream_next(call);
    else if (!call->asked)
        call_free(call);
}

static void on_aborted(struct http_req *r, enum err e)
{
    if (e == ERR_TIMEOUT && r->owner)
        etcd_limit_hit(((struct etcd_call *)r->owner)->api, ETCD_LIMIT_STALL_MS);
    if (r->owner)
        call_over(r->owner);
}

static void on_refused(struct http_srv *c, uint16_t status, const char *label)
{
    struct etcd_conn *conn = CONTAINER_OF(c, struct etcd_conn, srv);
    if (strcmp(label, "h2_streams") == 0)
        etcd_limit_hit(conn->api, ETCD_LIMIT_CALLS);
}

static void on_released(struct http_srv *c)
{
    struct etcd_conn *conn = CONTAINER_OF(c, struct etcd_conn, srv);
    struct etcd_api *a = conn->api;
    list_del(&conn->link);
    a->conns_n--;
    conn->asker->conns_n--;
    etcd_asker_rest(a, conn->asker);
    mem_free(conn);
    etcd_api_reap(a);
}

const struct http_srv_ops etcd_srv_ops = {
    .request = on_request, .body = on_body, .drained = on_drained, .aborted = on_aborted, .refused = on_refused, .released = on_released};

void etcd_conn_close(struct etcd_conn *conn)
{
    while (!list_empty(&conn->calls))
        call_over(CONTAINER_OF(conn->calls.next, struct etcd_call, link));
    http_srv_close(&conn->srv);
}
