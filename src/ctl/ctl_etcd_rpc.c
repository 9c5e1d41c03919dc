/* ctl_etcd_rpc.c - gRPC over the client's end of HTTP/2: unary calls and streams on the connection to one member.
 *
 *     rpc_begin() --head, frame--> [rpc_send()] ...
 *     answer: head, frames, trailers (grpc-status)  |  head alone with grpc-status
 *         unary:  all bytes are gathered, over() has the one message
 *         stream: message() for each frame as it comes, over() at the end
 *
 * Source: grpc/doc/PROTOCOL-HTTP2.md. A stream that breaks the framing is reset and ends with an error of its own. Nothing is called from inside rpc_begin(),
 * rpc_send() and rpc_cancel(). What calls mean is their owners' business (ctl_etcd_call.c, ctl_etcd_watch.c).
 */
#include "ctl_etcd_int.h"

#define TRAILERS_MAX 32

static struct rpc *rpc_of(struct http_call *k) { return CONTAINER_OF(k, struct rpc, k); }
static struct rconn *rconn_of(struct http_cli *cli) { return CONTAINER_OF(cli, struct rconn, cli); }

/* Off its connection: its memory may go. */
static void rpc_unhook(struct rpc *p)
{
    if (!p->method->stream) p->conn->r->answer_bytes -= p->in.n;
    list_del(&p->link);
    p->conn = NULL;
}

static void rpc_over(struct rpc *p, struct rpc_end end)
{
    struct rconn *c = p->conn;
    struct buf in = p->in; /* end.message may lie there */
    rpc_unhook(p);
    p->in = (struct buf){0};
    end.conn = c;
    end.http = p->http;
    end.text = p->text;
    p->method->over(p, &end);
    buf_free(&in);
    remote_turn(c->r); /* room for others; and a connection that is left may be free now */
}

/* The answer can't be used: nothing more of it is wanted. */
static void rpc_break(struct rpc *p, enum err e, bool ended)
{
    if (!ended) http_call_cancel(&p->k);
    rpc_over(p, (struct rpc_end){.err = e, .status = -1});
}

static void rpc_end_unary(struct rpc *p)
{
    struct slice bytes = buf_slice(&p->in);
    struct rpc_end end = {.status = p->status};
    if (p->status == 0) end.err = grpc_frame_next(&bytes, UINT32_MAX, &end.message);
    if (end.err == ERR_AGAIN || (end.err == OK && bytes.n)) end.err = ERR_SYNTAX;
    rpc_over(p, end);
}

/* The frames that are whole; what is left of bytes stays. False: p is over. */
static bool rpc_frames(struct rpc *p, struct slice *bytes, bool ended)
{
    struct rconn *c = p->conn;
    uint64_t max = c->r->conf.answer_bytes_max;
    struct slice message;
    enum err e;
    while ((e = grpc_frame_next(bytes, (uint32_t)MIN(max, UINT32_MAX), &message)) == OK) {
        p->method->message(p, message);
        if (p->conn != c) return false; /* canceled */
    }
    if (e == ERR_AGAIN) return true;
    rpc_break(p, e, ended);
    return false;
}


/* A stream's bytes: frames are read where they lie, and only what is not a whole one is kept. False: p is over. */
static bool rpc_stream_bytes(struct rpc *p, struct pieces body, bool ended)
{
    for (int i = 0; i < body.n; i++) {
        struct slice bytes = slice_of(body.v[i].iov_base, body.v[i].iov_len);
        bool kept = p->in.n > 0;
        if (kept) {
            buf_add_slice(&p->in, bytes);
            bytes = buf_slice(&p->in);
        }
        struct slice all = bytes;
        if (!rpc_frames(p, &bytes, ended)) return false;
        if (!kept) {
            if (bytes.n) buf_add_slice(&p->in, bytes);
        } else if (bytes.n != all.n) {
            memmove(p->in.p, bytes.p, bytes.n);
            p->in.n = bytes.n;
            if (p->in.n == 0) buf_free(&p->in); /* one large message is no reason to hold so much for ever */
        }
    }
    return true;
}

static void rpc_bytes(struct rpc *p, struct pieces body, bool ended)
{
    struct remote *r = p->conn->r;
    if (p->method->stream) { /* holds one message that is not whole */
        if (!rpc_stream_bytes(p, body, ended)) return;
    } else if (r->answer_bytes + body.bytes > r->conf.answer_bytes_max) {
        rpc_break(p, ERR_LIMIT, ended);
        return;
    } else {
        for (int i = 0; i < body.n; i++) buf_add(&p->in, body.v[i].iov_base, body.v[i].iov_len);
        r->answer_bytes += body.bytes;
    }
    if (!ended) return;
    if (p->method->stream) rpc_over(p, (struct rpc_end){.status = p->status});
    else rpc_end_unary(p);
}

/* grpc-status and grpc-message, from the head or the trailers. */
static void rpc_fields(struct rpc *p, const struct h1_field *f, int n)
{
    uint64_t status;
    for (int i = 0; i < n; i++)
        if (slice_ieq(f[i].name, SLICE("grpc-status")) && slice_u64(f[i].value, INT32_MAX, &status) == OK) {
            p->status = (int32_t)status;
        } else if (slice_ieq(f[i].name, SLICE("grpc-message"))) {
            p->text[grpc_message_read(f[i].value, p->text, sizeof p->text - 1)] = '\0';
            text_clean(p->text);
        }
}

static void rpc_heard(struct rpc *p) { p->conn->heard_ms = loop_now_ms(p->conn->r->loop); }

static void on_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    struct rpc *p = rpc_of(k);
    rpc_heard(p);
    p->http = h->status;
    rpc_fields(p, h->fields, h->n);
    if (h->status != 200) {
        rpc_break(p, ERR_SYNTAX, end);
        return;
    }
    if (end) {
        struct h1_field f[TRAILERS_MAX];
        rpc_fields(p, f, http_call_trailers(k, f, TRAILERS_MAX));
    }
    rpc_bytes(p, body, end);
}

static void on_body(struct http_call *k, struct pieces body, bool end)
{
    struct rpc *p = rpc_of(k);
    struct h1_field f[TRAILERS_MAX];
    rpc_heard(p);
    if (end) rpc_fields(p, f, http_call_trailers(k, f, TRAILERS_MAX));
    rpc_bytes(p, body, end);
}

static void on_failed(struct http_call *k, enum err e)
{
    struct rpc *p = rpc_of(k);
    rpc_over(p, (struct rpc_end){.err = e, .unsent = k->unsent, .status = -1});
}

static void on_interim(struct http_call *k, const struct h1_head *h) { rpc_heard(rpc_of(k)); }
static void on_drained(struct http_call *k) {}
static void on_connected(struct http_cli *cli) { rconn_connected(rconn_of(cli)); }
static void on_ended(struct http_cli *cli, enum err e) { rconn_lost(rconn_of(cli), e); }
static void on_released(struct http_cli *cli) { rconn_released(rconn_of(cli)); }

const struct http_cli_ops rpc_cli_ops = {.connected = on_connected,
                                         .interim = on_interim,
                                         .response = on_response,
                                         .body = on_body,
                                         .drained = on_drained,
                                         .failed = on_failed,
                                         .ended = on_ended,
                                         .released = on_released};

/* ---- for owners ---- */

static void head_write(struct buf *b, const struct rconn *c, const struct rpc_method *method, uint64_t timeout_ms)
{
    buf_clear(b);
    buf_printf(b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/grpc\r\nTE: trailers\r\nUser-Agent: weir\r\n", method->path, c->at->authority);
    if (timeout_ms) buf_printf(b, "grpc-timeout: %llum\r\n", (unsigned long long)MIN(timeout_ms, 99999999));
    if (!method->plain) buf_adds(b, "hasleader: true\r\n"); /* etcd's rpctypes: refuse it, or end the stream, when this member has no leader */
    if (c->r->token) buf_printf(b, "token: %s\r\n", c->r->token);
    buf_adds(b, "\r\n");
}

static struct slice body_write(struct remote *r, const ProtobufCMessage *m)
{
    buf_clear(&r->body);
    if (m) etcd_write_frame(m, &r->body);
    return buf_slice(&r->body);
}

void rpc_begin(struct rconn *c, struct rpc *p, const struct rpc_method *method, const ProtobufCMessage *m, uint64_t timeout_ms)
{
    struct remote *r = c->r;
    MUST(!rpc_on(p));
    p->conn = c;
    p->method = method;
    p->in = (struct buf){0};
    p->http = 0;
    p->status = -1;
    p->text[0] = '\0';
    list_push(&c->rpcs, &p->link);
    head_write(&r->head, c, method, timeout_ms);
    struct slice body = body_write(r, m);
    struct iovec v = {r->body.p, body.n};
    http_cli_request(&c->cli, &p->k, H1_POST, buf_slice(&r->head), H1_CHUNKED, (struct pieces){&v, body.n ? 1 : 0, body.n}, !method->stream);
}

void rpc_send(struct rpc *p, const ProtobufCMessage *m)
{
    struct remote *r = p->conn->r;
    struct slice body = body_write(r, m);
    struct iovec v = {r->body.p, body.n};
    http_call_send(&p->k, (struct pieces){&v, 1, body.n});
}

void rpc_cancel(struct rpc *p)
{
    if (!rpc_on(p)) return;
    struct remote *r = p->conn->r;
    http_call_cancel(&p->k);
    rpc_unhook(p);
    buf_free(&p->in);
    remote_turn(r);
}
