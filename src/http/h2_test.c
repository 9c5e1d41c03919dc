/* h2_test.c - HTTP/2 on the simulator: both ends against each other, and each against frames made by hand that a well-behaved
 * peer would not send. `near` is the loop of the server's end, `far` that of the client's. An owner of a request behaves as the path
 * says; a raw peer collects what it reads, and its frames can be counted.
 */
#include "h2.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define PORT 23000
#define BIG (1u << 20)

/* ---- the world -------------------------------------------------------------------------------------------------------- */

struct request { /* one that a server's owner got */
    struct http_req *r;
    struct own *own;
    struct buf body;
    struct buf line, fields; /* method, path, query; "name: value\n" */
    struct h1_field trailers[8];
    int trailers_n;
    struct buf trailer;
    char path[64];
    size_t left;  /* of a drip */
    uint32_t calls, drains;
    bool end, aborted, over, answered;
    enum err err;
    enum h1_framing framing;
    bool upgrade, te_trailers, expect;
};
struct own { /* an http_srv with its owner */
    struct http_srv srv;
    uint32_t refusals;
    uint16_t status;
    char label[40];
    bool released;
};
struct raw { /* a peer that sends any bytes */
    struct stream s;
    struct buf got;
    bool connected, eof, failed, released;
};
struct use { /* an http_cli with its owner */
    struct http_cli cli;
    uint32_t connects, ended;
    enum err end_err;
    bool released;
};
struct call { /* one that a client's owner made */
    struct http_call k;
    struct use *u;
    struct buf body, fields, trailer;
    uint32_t interims, drains;
    uint16_t status;
    enum h1_framing framing;
    bool answered, end, failed, over, unsent, pause;
    bool open; /* its end is not sent when it drains */
    enum err err;
    size_t left; /* still to be sent */
};

static struct {
    struct loop *near, *far;
    struct head_out out;
    struct http_srv_conf sconf;
    struct http_cli_conf cconf;
    struct listener ln;
    struct own *own;   /* the last accepted */
    struct raw *raw;   /* the last accepted by a raw server */
    struct own *owns[16];
    struct raw *raws[64];
    struct use *uses[16];
    struct request **requests;
    struct call **calls;
    int owns_n, raws_n, uses_n, requests_n, requests_cap, calls_n, calls_cap, fd;
    struct request *last;
} W;

#define OPEN SIZE_MAX /* of a call: more will be sent by hand */
static char filler[BIG];

static struct pieces one(struct iovec *v, const void *p, size_t n)
{
    *v = (struct iovec){(void *)(uintptr_t)p, n};
    return (struct pieces){v, n ? 1 : 0, n};
}

static void collect(struct buf *b, struct pieces body)
{
    size_t sum = 0;
    for (int i = 0; i < body.n; i++) {
        assert_true(body.v[i].iov_len > 0);
        sum += body.v[i].iov_len;
        buf_add(b, body.v[i].iov_base, body.v[i].iov_len);
    }
    assert_true(sum == body.bytes);
}

static void fields_add(struct buf *b, const struct h1_field *f, int n)
{
    for (int i = 0; i < n; i++)
        buf_printf(b, SLICE_FMT ": " SLICE_FMT "\n", SLICE_ARG(f[i].name), SLICE_ARG(f[i].value));
}

static bool has(const struct buf *b, const char *what) { return b->p && strstr(b->p, what) != NULL; }

/* ---- the owner of an http_srv --------------------------------------------------------------------------------------------- */

static struct own *own_of(struct http_srv *c) { return CONTAINER_OF(c, struct own, srv); }
static bool path_is(const struct request *q, const char *p) { return strncmp(q->path, p, strlen(p)) == 0; }

static size_t answer(struct request *q, const char *line, enum h1_framing framing, uint64_t length, const void *p, size_t n, bool end)
{
    struct iovec v;
    head_clear(&W.out);
    head_lit(&W.out, "HTTP/1.1 ");
    head_slice(&W.out, slice_cstr(line));
    head_lit(&W.out, "\r\nX-Test: yes\r\nConnection: keep-alive\r\n");
    q->answered = true;
    q->over |= end;
    return http_req_answer(q->r, &W.out, framing, length, one(&v, p, n), end);
}

static void drip(struct request *q)
{
    struct iovec v;
    while (q->left) {
        size_t n = MIN(q->left, 16000), at = BIG - q->left;
        q->left -= n;
        if (http_req_send(q->r, one(&v, filler + at % (BIG - 16000), n)))
            return;
    }
    q->over = true;
    http_req_end(q->r, SLICE("X-Sum: 9\r\nContent-Length: 3\r\n"));
}

static void request_end(struct request *q)
{
    q->end = true;
    if (path_is(q, "/echo")) {
        if (q->trailer.n) {
            answer(q, "200 OK", H1_CHUNKED, 0, q->body.p, q->body.n, false);
            q->over = true;
            http_req_end(q->r, SLICE("X-Echo: yes\r\n"));
        } else
            answer(q, "200 OK", H1_LENGTH, q->body.n, q->body.p, q->body.n, true);
    }
    if (path_is(q, "/stream")) {
        q->over = true;
        http_req_end(q->r, SLICE("Grpc-Status: 0\r\n"));
    }
}

static void request_begin(struct request *q)
{
    struct own *o = q->own;
    uint64_t n = 0;
    const char *digits = q->path[0] ? strchr(q->path + 1, '/') : NULL;
    if (digits && (path_is(q, "/size") || path_is(q, "/drip")))
        assert_int_equal(slice_u64(slice_cstr(digits + 1), BIG, &n), OK);
    if (q->upgrade && path_is(q, "/tunnel")) {
        head_clear(&W.out);
        head_lit(&W.out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: abc\r\n");
        http_req_answer(q->r, &W.out, H1_TUNNEL, 0, (struct pieces){0}, false);
    } else if (path_is(q, "/stream"))
        answer(q, "200 OK", H1_CHUNKED, 0, "", 0, false);
    else if (path_is(q, "/size"))
        answer(q, "200 OK", H1_LENGTH, n, filler, n, true);
    else if (path_is(q, "/drip")) {
        answer(q, "200 OK", H1_CHUNKED, 0, "", 0, false);
        q->left = n;
        drip(q);
    } else if (path_is(q, "/early"))
        answer(q, "403 Forbidden", H1_LENGTH, 5, "early", 5, true);
    else if (path_is(q, "/none"))
        answer(q, "204 No Content", H1_NO_BODY, 0, "", 0, true);
    else if (path_is(q, "/trailers-only")) {
        head_clear(&W.out);
        head_lit(&W.out, "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 7\r\n");
        q->over = true;
        http_req_answer(q->r, &W.out, H1_CHUNKED, 0, (struct pieces){0}, true);
    } else if (path_is(q, "/interim")) {
        head_clear(&W.out);
        head_lit(&W.out, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n");
        http_req_interim(q->r, &W.out);
        answer(q, "200 OK", H1_LENGTH, 2, "ok", 2, true);
    } else if (path_is(q, "/cut")) {
        answer(q, "200 OK", H1_LENGTH, 100, "half", 4, false);
        q->over = true;
        http_req_cut(q->r);
    } else if (path_is(q, "/drop")) {
        q->over = true;
        http_req_cut(q->r);
    } else if (path_is(q, "/close"))
        http_srv_close(&o->srv);
    else if (path_is(q, "/last")) {
        http_srv_last(&o->srv);
        answer(q, "200 OK", H1_LENGTH, 4, "last", 4, true);
    } else if (path_is(q, "/pause"))
        http_req_reading(q->r, false);
    else if (path_is(q, "/discard")) {
        http_req_last(q->r);
        answer(q, "200 OK", H1_CHUNKED, 0, "x", 1, false);
    }
}

static void request_body(struct request *q, struct pieces body, bool end)
{
    assert_false(q->over || q->end);
    q->calls++;
    collect(&q->body, body);
    if (end) {
        q->trailers_n = http_req_trailers(q->r, q->trailers, COUNT_OF(q->trailers));
        fields_add(&q->trailer, q->trailers, q->trailers_n);
    }
    if ((path_is(q, "/stream") || path_is(q, "/tunnel")) && q->answered + q->upgrade && body.n && http_req_send(q->r, body))
        http_req_reading(q->r, false);
    if (end && path_is(q, "/tunnel")) {
        q->over = true;
        http_req_end(q->r, SLICE(""));
    }
    if (end && !q->over)
        request_end(q);
}

static void own_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct request *q = mem_new(MEM_SIM, sizeof *q);
    if (W.requests_n == W.requests_cap) {
        W.requests_cap = W.requests_cap ? W.requests_cap * 2 : 64;
        W.requests = mem_grow(MEM_SIM, W.requests, (size_t)W.requests_cap * sizeof *W.requests);
    }
    W.last = W.requests[W.requests_n++] = q;
    q->r = r;
    q->own = own_of(c);
    r->owner = q;
    assert_true(http_req_is_h2(r) && r->c == c && h->major == 2 && h->minor == 1 && h->keep_alive);
    buf_printf(&q->line, SLICE_FMT " " SLICE_FMT " ?" SLICE_FMT " host=" SLICE_FMT " port=%u authority=" SLICE_FMT, SLICE_ARG(h->method), SLICE_ARG(h->path),
               SLICE_ARG(h->query), SLICE_ARG(h->host), h->port, SLICE_ARG(h->authority));
    fields_add(&q->fields, h->fields, h->n);
    snprintf(q->path, sizeof q->path, SLICE_FMT, SLICE_ARG(h->path));
    q->framing = h->framing;
    q->upgrade = h->upgrade;
    q->te_trailers = h->te_trailers;
    q->expect = h->expect_continue;
    for (int i = 0; i < h->n; i++)
        if (h->fields[i].id)
            assert_true(h->known[h->fields[i].id] > 0);
    bool tunnel = h->upgrade || h->method_id == H1_CONNECT;
    request_begin(q);
    if (q->own->srv.h2 == NULL || q->over || path_is(q, "/close"))
        return;
    if (tunnel)
        assert_true(end && body.bytes == 0);
    else
        request_body(q, body, end);
}

static void own_body(struct http_req *r, struct pieces body, bool end) { request_body(r->owner, body, end); }

static void own_drained(struct http_req *r)
{
    struct request *q = r->owner;
    assert_false(q->over);
    q->drains++;
    if (path_is(q, "/drip"))
        drip(q);
    else
        http_req_reading(r, true);
}

static void own_aborted(struct http_req *r, enum err e)
{
    struct request *q = r->owner;
    assert_false(q->over);
    q->over = q->aborted = true;
    q->err = e;
}

static void own_refused(struct http_srv *c, uint16_t status, const char *label)
{
    struct own *o = own_of(c);
    o->refusals++;
    o->status = status;
    snprintf(o->label, sizeof o->label, "%s", label);
}

static void own_released(struct http_srv *c) { own_of(c)->released = true; }
static const struct http_srv_ops own_ops = {.request = own_request, .body = own_body, .drained = own_drained, .aborted = own_aborted, .refused = own_refused, .released = own_released};

static void own_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct own *o = mem_new(MEM_SIM, sizeof *o);
    W.own = W.owns[W.owns_n++] = o;
    http_srv_open(&o->srv, W.near, &W.sconf, &own_ops, fd, NULL);
}

/* ---- the owner of an http_cli ------------------------------------------------------------------------------------------------ */

static struct use *use_of(struct http_cli *c) { return CONTAINER_OF(c, struct use, cli); }
static struct call *call_of(struct http_call *k) { return CONTAINER_OF(k, struct call, k); }
static void use_connected(struct http_cli *c) { use_of(c)->connects++; }
static void use_interim(struct http_call *k, const struct h1_head *h) { call_of(k)->interims += h->status < 200; }

static void use_body(struct http_call *k, struct pieces body, bool end)
{
    struct call *x = call_of(k);
    assert_false(x->over);
    collect(&x->body, body);
    if (!end)
        return;
    struct h1_field f[8];
    int n = http_call_trailers(k, f, COUNT_OF(f));
    assert_true(n >= 0);
    fields_add(&x->trailer, f, n);
    x->end = x->over = true;
}

static void use_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    struct call *x = call_of(k);
    assert_false(x->answered || x->over);
    assert_true(h->major == 2 && k->answer_begun);
    x->answered = true;
    x->status = h->status;
    x->framing = h->framing;
    fields_add(&x->fields, h->fields, h->n);
    if (x->pause)
        http_call_reading(k, false);
    use_body(k, body, end);
}

static void use_drained(struct http_call *k)
{
    struct call *x = call_of(k);
    struct iovec v;
    assert_false(x->over);
    x->drains++;
    while (x->left) {
        size_t n = MIN(x->left, 20000);
        x->left -= n;
        if (http_call_send(k, one(&v, filler, n)))
            return;
    }
    if (!k->sent && !x->open)
        http_call_end(k, SLICE("X-Client: done\r\n"));
}

static void use_failed(struct http_call *k, enum err e)
{
    struct call *x = call_of(k);
    assert_false(x->over);
    x->failed = x->over = true;
    x->unsent = k->unsent;
    x->err = e;
}

static void use_ended(struct http_cli *c, enum err e)
{
    struct use *u = use_of(c);
    assert_int_equal(http_cli_calls(c), 0);
    assert_int_equal(http_cli_room(c), 0);
    u->ended++;
    u->end_err = e;
    http_cli_close(c);
}

static void use_released(struct http_cli *c) { use_of(c)->released = true; }
static const struct http_cli_ops use_ops = {.connected = use_connected, .interim = use_interim, .response = use_response, .body = use_body, .drained = use_drained, .failed = use_failed, .ended = use_ended, .released = use_released};

static struct use *use_open(void)
{
    struct use *u = mem_new(MEM_SIM, sizeof *u);
    W.uses[W.uses_n++] = u;
    struct addr a = addr_ip4(0x7f000001, PORT);
    http_cli_connect(&u->cli, W.far, &W.cconf, &use_ops, -1, &a, HTTP_2, NULL);
    return u;
}

/* A request for "METHOD path" with further lines; body is sent with it, left afterwards as it drains. */
static struct call *call_make(struct use *u, const char *what, const char *lines, enum h1_framing framing, const void *p, size_t n, size_t left)
{
    struct call *x = mem_new(MEM_SIM, sizeof *x);
    if (W.calls_n == W.calls_cap) {
        W.calls_cap = W.calls_cap ? W.calls_cap * 2 : 64;
        W.calls = mem_grow(MEM_SIM, W.calls, (size_t)W.calls_cap * sizeof *W.calls);
    }
    W.calls[W.calls_n++] = x;
    x->u = u;
    struct buf head = {0};
    struct iovec v;
    buf_printf(&head, "%s HTTP/1.1\r\nHost: x.example:81\r\nConnection: keep-alive\r\n%s\r\n", what, lines);
    enum h1_method m = strncmp(what, "HEAD", 4) == 0 ? H1_HEAD : strncmp(what, "CONNECT", 7) == 0 ? H1_CONNECT : H1_GET;
    bool whole = framing == H1_NO_BODY || (framing != H1_TUNNEL && left == 0);
    x->open = framing == H1_TUNNEL || left == OPEN;
    x->left = x->open ? 0 : left;
    size_t queued = http_cli_request(&u->cli, &x->k, m, buf_slice(&head), framing, one(&v, p, n), whole);
    memset(head.p, '!', head.n); /* nothing may point there any more */
    buf_free(&head);
    if (left && !queued && !x->open)
        use_drained(&x->k);
    return x;
}

static struct call *get(struct use *u, const char *path)
{
    char what[128];
    snprintf(what, sizeof what, "GET %s", path);
    return call_make(u, what, "", H1_NO_BODY, "", 0, 0);
}

/* ---- raw peers -------------------------------------------------------------------------------------------------------------- */

static struct raw *raw_of(struct stream *s) { return CONTAINER_OF(s, struct raw, s); }
static void raw_connected(struct stream *s) { raw_of(s)->connected = true; }
static void raw_data(struct stream *s, char *p, size_t n) { buf_add(&raw_of(s)->got, p, n); }
static void raw_eof(struct stream *s) { raw_of(s)->eof = true; }
static void raw_drained(struct stream *s) {}
static void raw_failed(struct stream *s, enum err e) { raw_of(s)->failed = true; }
static void raw_released(struct stream *s) { raw_of(s)->released = true; }
static const struct stream_ops raw_ops = {raw_connected, raw_data, raw_eof, raw_drained, raw_failed, raw_released};

static void raw_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct raw *r = mem_new(MEM_SIM, sizeof *r);
    W.raw = W.raws[W.raws_n++] = r;
    stream_adopt(&r->s, W.near, &raw_ops, fd);
}

static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }
static bool over(const struct raw *r) { return r->eof || r->failed; }

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, CALM };

static void frame_add(struct buf *b, int type, int flags, uint32_t id, const void *p, size_t n)
{
    uint8_t h[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, (uint8_t)type, (uint8_t)flags, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    buf_add(b, h, 9);
    buf_add(b, p, n);
}

static void hpack_string(struct buf *b, const char *p, size_t n)
{
    if (n < 127)
        buf_addc(b, (char)n);
    else {
        buf_addc(b, 127);
        size_t rest = n - 127;
        for (; rest >= 128; rest >>= 7)
            buf_addc(b, (char)(rest % 128 + 128));
        buf_addc(b, (char)rest);
    }
    buf_add(b, p, n);
}

/* Literals without indexing; lines are "name\tvalue\n"; "\\0", "\\r" stand for the bytes. */
static void hpack_lines(struct buf *b, const char *lines)
{
    for (const char *p = lines, *eol; (eol = strchr(p, '\n')); p = eol + 1) {
        const char *tab = memchr(p, '\t', (size_t)(eol - p));
        struct buf value = {0};
        for (const char *q = tab + 1; q < eol; q++)
            buf_addc(&value, *q == '^' ? '\0' : *q == '~' ? '\r' : *q);
        buf_addc(b, 0);
        hpack_string(b, p, (size_t)(tab - p));
        hpack_string(b, value.p ? value.p : "", value.n);
        buf_free(&value);
    }
}

static void headers_add(struct buf *b, int flags, uint32_t id, const char *lines)
{
    struct buf block = {0};
    hpack_lines(&block, lines);
    frame_add(b, HEADERS, flags, id, block.p, block.n);
    buf_free(&block);
}

#define GET_LINES(path) ":method\tGET\n:scheme\thttp\n:path\t" path "\n:authority\tx.example\n"
#define POST_LINES(path) ":method\tPOST\n:scheme\thttp\n:path\t" path "\n:authority\tx.example\n"

static void raw_buf(struct raw *r, struct buf *b)
{
    stream_write_slice(&r->s, buf_slice(b));
    buf_free(b);
}

static void raw_frame(struct raw *r, int type, int flags, uint32_t id, const void *p, size_t n)
{
    struct buf b = {0};
    frame_add(&b, type, flags, id, p, n);
    raw_buf(r, &b);
}

static void raw_headers(struct raw *r, int flags, uint32_t id, const char *lines)
{
    struct buf b = {0};
    headers_add(&b, flags, id, lines);
    raw_buf(r, &b);
}

static void raw_greet(struct raw *r)
{
    struct buf b = {0};
    buf_adds(&b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame_add(&b, SETTINGS, 0, 0, "", 0);
    raw_buf(r, &b);
}

static struct raw *raw_open(bool greet)
{
    struct raw *r = mem_new(MEM_SIM, sizeof *r);
    W.raws[W.raws_n++] = r;
    struct addr a = addr_ip4(0x7f000001, PORT);
    stream_connect(&r->s, W.far, &raw_ops, -1, &a);
    pass(5);
    assert_true(r->connected);
    if (greet)
        raw_greet(r);
    pass(3);
    return r;
}

struct frame {
    int type, flags;
    uint32_t id;
    const uint8_t *p;
    size_t n;
};

/* The next frame at *at; skips the client's magic. */
static bool frame_next(const struct raw *r, size_t *at, struct frame *f)
{
    if (*at == 0 && r->got.n >= 24 && memcmp(r->got.p, "PRI ", 4) == 0)
        *at = 24;
    if (*at + 9 > r->got.n)
        return false;
    const uint8_t *h = (const uint8_t *)r->got.p + *at;
    *f = (struct frame){h[3], h[4], (uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8], h + 9, (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2]};
    *at += 9 + f->n;
    return *at <= r->got.n;
}

/* How many frames of a type, on a stream (-1: any) came; *last is the last. */
static uint32_t frames(const struct raw *r, int type, int64_t id, struct frame *last)
{
    struct frame f;
    uint32_t n = 0;
    for (size_t at = 0; frame_next(r, &at, &f);)
        if (f.type == type && (id < 0 || f.id == id)) {
            n++;
            if (last)
                *last = f;
        }
    return n;
}

static int64_t code_at(const uint8_t *p) { return (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static int64_t rst_code(const struct raw *r, uint32_t id)
{
    struct frame f;
    return frames(r, RST_STREAM, id, &f) ? code_at(f.p) : -1;
}

static int64_t goaway_code(const struct raw *r)
{
    struct frame f;
    return frames(r, GOAWAY, 0, &f) ? code_at(f.p + 4) : -1;
}

static size_t data_bytes(const struct raw *r, uint32_t id)
{
    struct frame f;
    size_t n = 0;
    for (size_t at = 0; frame_next(r, &at, &f);)
        if (f.type == DATA && f.id == id)
            n += f.n;
    return n;
}

/* Whether the stream was ended, and not reset. */
static bool ended(const struct raw *r, uint32_t id)
{
    struct frame f;
    for (size_t at = 0; frame_next(r, &at, &f);)
        if (f.id == id && (f.type == DATA || f.type == HEADERS) && f.flags & END_STREAM)
            return true;
    return false;
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------------- */

static void world_start(uint64_t seed, const struct sim_conf *faults, bool raw_server)
{
    struct sim_conf sc = faults ? *faults : (struct sim_conf){.latency_us_min = 20, .latency_us_max = 300};
    sc.seed = seed;
    memset(&W, 0, sizeof W);
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)('a' + i * 7 % 26);
    sim_start(&sc);
    W.near = loop_new("near");
    W.far = loop_new("far");
    head_out_init(&W.out);
    http_srv_conf_default(&W.sconf);
    W.sconf.h1.limits = &h1_limits_default;
    W.sconf.h1.out = &W.out;
    http_cli_conf_default(&W.cconf);
    W.cconf.limits = &h1_limits_default;
    W.cconf.out = &W.out;
    struct addr a = addr_ip4(0x7f000001, PORT);
    W.fd = sim_listen(0, &a);
    listener_start(&W.ln, W.near, W.fd, false, raw_server ? raw_accepted : own_accepted);
}

static void plain_start(void) { world_start(1, NULL, false); }

/* A raw server, and our client connected to it with its SETTINGS exchanged. */
static struct use *raw_server_start(const void *settings, size_t n)
{
    world_start(1, NULL, true);
    struct use *u = use_open();
    pass(5);
    raw_frame(W.raw, SETTINGS, 0, 0, settings, n);
    pass(5);
    assert_int_equal(u->connects, 1);
    return u;
}

static void requests_free(void)
{
    for (int i = 0; i < W.requests_n; i++) {
        buf_free(&W.requests[i]->body);
        buf_free(&W.requests[i]->line);
        buf_free(&W.requests[i]->fields);
        buf_free(&W.requests[i]->trailer);
        mem_free(W.requests[i]);
    }
    for (int i = 0; i < W.calls_n; i++) {
        assert_true(W.calls[i]->over);
        buf_free(&W.calls[i]->body);
        buf_free(&W.calls[i]->fields);
        buf_free(&W.calls[i]->trailer);
        mem_free(W.calls[i]);
    }
    mem_free(W.requests);
    mem_free(W.calls);
}

/* Closes all; nothing may be left behind: no socket, no byte of memory. */
static void world_stop(void)
{
    for (int i = 0; i < W.owns_n; i++)
        http_srv_close(&W.owns[i]->srv);
    for (int i = 0; i < W.uses_n; i++)
        if (!W.uses[i]->released)
            http_cli_close(&W.uses[i]->cli);
    for (int i = 0; i < W.raws_n; i++)
        stream_close(&W.raws[i]->s);
    pass(10);
    for (int i = 0; i < W.owns_n; i++) {
        assert_true(W.owns[i]->released);
        mem_free(W.owns[i]);
    }
    for (int i = 0; i < W.uses_n; i++) {
        assert_true(W.uses[i]->released);
        mem_free(W.uses[i]);
    }
    for (int i = 0; i < W.raws_n; i++) {
        assert_true(W.raws[i]->released);
        buf_free(&W.raws[i]->got);
        mem_free(W.raws[i]);
    }
    requests_free();
    listener_stop(&W.ln);
    socket_close(W.fd);
    head_out_fini(&W.out);
    loop_free(W.near);
    loop_free(W.far);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CONN), 0);
    assert_int_equal(mem_bytes(MEM_BUF), 0);
}

/* ---- heads ------------------------------------------------------------------------------------------------------------------------ */

static void test_head(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    raw_headers(r, END_STREAM | END_HEADERS, 1,
                ":method\tPUT\n:scheme\thttps\n:authority\tX.example:8080\n:path\t/a/b?c=d?e\ncookie\ta=1\nx-one\tv w\ncookie\tb=2\nte\ttrailers\ncookie\tc=3\n"
                "expect\t100-continue\nx-empty\t\n");
    pass(5);
    assert_int_equal(W.requests_n, 1);
    assert_string_equal(W.last->line.p, "PUT /a/b ?c=d?e host=X.example port=8080 authority=X.example:8080");
    assert_string_equal(W.last->fields.p, "cookie: a=1; b=2; c=3\nx-one: v w\nte: trailers\nexpect: 100-continue\nx-empty: \nhost: X.example:8080\n");
    assert_true(W.last->te_trailers && W.last->expect && W.last->end);
    assert_int_equal(W.last->framing, H1_NO_BODY);
    raw_headers(r, END_STREAM | END_HEADERS, 3, ":method\tOPTIONS\n:scheme\thttp\n:path\t*\nhost\ty\n");
    pass(5);
    assert_string_equal(W.last->line.p, "OPTIONS * ? host=y port=0 authority=y");
    raw_headers(r, END_STREAM | END_HEADERS, 5, ":method\tGET\n:scheme\thttp\n:path\t/\n:authority\ty\nhost\tY\n");
    pass(5);
    assert_string_equal(W.last->fields.p, "host: Y\n");
    raw_headers(r, END_HEADERS, 7, ":method\tCONNECT\n:authority\tz:443\n");
    pass(5);
    assert_string_equal(W.last->line.p, "CONNECT  ? host=z port=443 authority=z:443");
    raw_headers(r, END_HEADERS, 9, ":method\tCONNECT\n:protocol\twebsocket\n:scheme\thttp\n:path\t/chat\n:authority\ty\nsec-websocket-version\t13\n");
    pass(5);
    assert_string_equal(W.last->line.p, "GET /chat ? host=y port=0 authority=y");
    assert_true(W.last->upgrade && has(&W.last->fields, "upgrade: websocket\n"));
    assert_int_equal(W.requests_n, 5);
    assert_int_equal(W.own->refusals, 0);
    world_stop();
}

/* A head and its body that come together are one call; so are a head, its body and its trailers. */
static void test_gather(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct buf b = {0};
    headers_add(&b, END_HEADERS, 1, POST_LINES("/echo"));
    frame_add(&b, DATA, 0, 1, "hello ", 6);
    frame_add(&b, DATA, PADDED, 1, "\3world\0\0\0", 9);
    frame_add(&b, DATA, END_STREAM, 1, "!", 1);
    headers_add(&b, END_HEADERS, 3, POST_LINES("/echo") "content-length\t5\n");
    frame_add(&b, DATA, 0, 3, "third", 5);
    headers_add(&b, END_HEADERS | END_STREAM, 3, "x-sum\t1\ncontent-length\t7\n");
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.requests_n, 2);
    assert_int_equal(W.requests[0]->calls, 1);
    assert_string_equal(W.requests[0]->body.p, "hello world!");
    assert_int_equal(W.requests[0]->framing, H1_CHUNKED);
    assert_int_equal(W.requests[1]->calls, 1);
    assert_string_equal(W.requests[1]->body.p, "third");
    assert_string_equal(W.requests[1]->trailer.p, "x-sum: 1\n");
    assert_true(ended(r, 1) && ended(r, 3));
    assert_int_equal(data_bytes(r, 1), 12);
    assert_int_equal(frames(r, RST_STREAM, -1, NULL), 0);
    world_stop();
}

static void test_malformed(void **state)
{
    static const struct {
        const char *lines, *label;
    } bad[] = {
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nX-Upper\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx y\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx:y\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n\tvalue\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ta~b\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ta^b\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\t lead\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ttrail \n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/~X: y\n:authority\tx\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/a b\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\t/a#b\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\ta\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\t*\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\thttp://y/\n:authority\tx\n", "target"},
        {":method\tG T\n:scheme\thttp\n:path\t/\n:authority\tx\n", "method"},
        {":method\tGET HTTP/1.1\n:scheme\thttp\n:path\t/\n:authority\tx\n", "method"},
        {":method\tGET\n:scheme\tftp\n:path\t/\n:authority\tx\n", "h2_scheme"},
        {":method\tGET\n:scheme\thttp\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":scheme\thttp\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\nx\ty\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:status\t200\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:other\t200\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:protocol\twebsocket\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nhost\ty\n", "h2_authority"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tu@x\n", "host"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx:99999\n", "host"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n", "host_missing"},
        {":method\tGET\n:scheme\thttp\n:path\t/\nhost\tx\nhost\tx\n", "host_duplicate"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nconnection\tclose\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nkeep-alive\t5\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nproxy-connection\tx\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ntransfer-encoding\tchunked\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nupgrade\th2c\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nte\tgzip\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t1\n", "h2_content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t+0\n", "content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t0, 0\n", "content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t0\ncontent-length\t0\n", "content_length_duplicate"},
        {":method\tCONNECT\n:authority\tx\n", "target"},
        {":method\tCONNECT\n:authority\tx:1\n:scheme\thttp\n:path\t/\n", "h2_pseudo_field"},
    };
    plain_start();
    struct raw *r = raw_open(true);
    uint32_t id = 1;
    for (size_t i = 0; i < COUNT_OF(bad); i++, id += 2) {
        raw_headers(r, END_STREAM | END_HEADERS, id, bad[i].lines);
        pass(3);
        assert_int_equal(W.own->refusals, i + 1);
        assert_string_equal(W.own->label, bad[i].label);
        assert_int_equal(W.own->status, 400);
        assert_int_equal(rst_code(r, id), PROTOCOL_ERROR);
    }
    assert_int_equal(W.requests_n, 0);
    raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/size/3"));
    pass(3);
    assert_true(ended(r, id) && !over(r)); /* the connection is none the worse */
    assert_int_equal(goaway_code(r), -1);
    world_stop();
}

static void test_bodies_malformed(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo") "content-length\t5\n"); /* too long */
    raw_frame(r, DATA, 0, 1, "sixsix", 6);
    pass(3);
    assert_int_equal(rst_code(r, 1), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 3, POST_LINES("/echo") "content-length\t5\n"); /* too short */
    raw_frame(r, DATA, END_STREAM, 3, "four", 4);
    pass(3);
    assert_int_equal(rst_code(r, 3), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 5, POST_LINES("/echo")); /* trailers that don't end it */
    raw_headers(r, END_HEADERS, 5, "x\ty\n");
    pass(3);
    assert_int_equal(rst_code(r, 5), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 7, POST_LINES("/echo")); /* a pseudo field in trailers */
    raw_headers(r, END_HEADERS | END_STREAM, 7, ":path\t/\n");
    pass(3);
    assert_int_equal(rst_code(r, 7), PROTOCOL_ERROR);
    for (int i = 0; i < W.requests_n; i++) {
        assert_true(W.requests[i]->aborted && !W.requests[i]->end);
        assert_int_equal(W.requests[i]->err, ERR_SYNTAX);
    }
    assert_int_equal((uint32_t)W.requests_n + W.own->refusals, 4);
    assert_false(over(r));
    world_stop();
}

static void test_head_limits(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct frame f;
    struct buf b = {0}, block = {0}, lines = {0};
    buf_adds(&lines, ":method\tGET\n:scheme\thttp\n:authority\tx\n:path\t/");
    for (int i = 0; i < 8300; i++)
        buf_addc(&lines, 'p');
    buf_addc(&lines, '\n');
    headers_add(&b, END_STREAM | END_HEADERS, 1, lines.p);
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.own->status, 414);
    assert_true(ended(r, 1));
    /* too many fields, on a request that is not ended: answered, and told to stop */
    buf_clear(&lines);
    buf_adds(&lines, POST_LINES("/"));
    for (int i = 0; i < 101; i++)
        buf_printf(&lines, "x-%d\ty\n", i);
    b = (struct buf){0};
    headers_add(&b, END_HEADERS, 3, lines.p);
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.own->status, 431);
    assert_true(ended(r, 3));
    assert_int_equal(rst_code(r, 3), NO_ERROR);
    /* larger than a head may be, over CONTINUATION */
    buf_clear(&lines);
    buf_adds(&lines, GET_LINES("/"));
    for (int i = 0; i < 70; i++) {
        buf_printf(&lines, "x-%d\t", i);
        for (int k = 0; k < 1000; k++)
            buf_addc(&lines, 'v');
        buf_addc(&lines, '\n');
    }
    hpack_lines(&block, lines.p);
    b = (struct buf){0};
    for (size_t at = 0; at < block.n; at += 16000) {
        size_t n = MIN(block.n - at, 16000);
        frame_add(&b, at ? CONTINUATION : HEADERS, (at ? 0 : END_STREAM) | (at + n == block.n ? END_HEADERS : 0), 5, block.p + at, n);
    }
    raw_buf(r, &b);
    pass(20);
    assert_int_equal(W.own->status, 431);
    assert_int_equal(W.own->refusals, 3);
    assert_true(ended(r, 5));
    /* a bomb: one field of 4 KB in the table, named again and again by one byte */
    b = (struct buf){0};
    buf_clear(&block);
    hpack_lines(&block, GET_LINES("/"));
    buf_addc(&block, 0x40);
    hpack_string(&block, "x", 1);
    hpack_string(&block, filler, 4000);
    for (int i = 0; i < 8000; i++)
        buf_addc(&block, (char)(0x80 | 62));
    frame_add(&b, HEADERS, END_STREAM | END_HEADERS, 7, block.p, block.n);
    raw_buf(r, &b);
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    assert_true(over(r));
    assert_int_equal(W.requests_n, 0);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    buf_free(&block);
    buf_free(&lines);
    world_stop();
}

/* ---- floods ---------------------------------------------------------------------------------------------------------------------------- */

static void test_rapid_reset(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 300 && !over(r); i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
        frame_add(&b, RST_STREAM, 0, id, "\0\0\0\10", 4);
        raw_buf(r, &b);
        if (i % 50 == 49)
            pass(2);
    }
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_resets");
    assert_true(over(r) && W.requests_n <= 210);
    for (int i = 0; i < W.requests_n; i++)
        assert_true(W.requests[i]->aborted);
    /* the same by making us reset (CVE-2025-8671): each stream gets an impossible WINDOW_UPDATE */
    r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 300 && !over(r); i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_HEADERS, id, POST_LINES("/never"));
        frame_add(&b, WINDOW_UPDATE, 0, id, "\x7f\xff\xff\xff", 4);
        raw_buf(r, &b);
        if (i % 20 == 19)
            pass(2);
    }
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_resets");
    /* slower than the limit: nothing happens */
    r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 500; i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
        frame_add(&b, RST_STREAM, 0, id, "\0\0\0\10", 4);
        raw_buf(r, &b);
        pass(6);
    }
    assert_int_equal(goaway_code(r), -1);
    world_stop();
}

static void flood(int type, int flags, uint32_t id, const char *p, size_t n, uint32_t times, bool reads)
{
    struct raw *r = raw_open(true);
    if (id)
        raw_headers(r, END_HEADERS, id, POST_LINES("/never"));
    if (!reads)
        stream_reading(&r->s, false);
    for (uint32_t i = 0; i < times && !over(r);) {
        struct buf b = {0};
        for (int k = 0; k < 500 && i < times; k++, i++)
            frame_add(&b, type, flags, id, p, n);
        raw_buf(r, &b);
        pass(1);
        assert_true(mem_bytes(MEM_CONN) < 2 * BIG);
        assert_true(http_srv_stream(&W.own->srv)->out_bytes < 400000);
    }
    pass(100);
    stream_reading(&r->s, true);
    pass(100);
}

static void test_floods(void **state)
{
    plain_start();
    flood(DATA, 0, 1, "", 0, 1200000, true); /* empty DATA (CVE-2019-9518) */
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    flood(PING, 0, 0, "12345678", 8, 700000, true);
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    flood(SETTINGS, 0, 0, "\0\1\0\0\20\0", 6, 700000, true);
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    struct raw *r = raw_open(true); /* more of them in one read than are acknowledged */
    struct buf b = {0};
    for (int i = 0; i < 3000; i++)
        frame_add(&b, PING, 0, 0, "12345678", 8);
    raw_buf(r, &b);
    pass(100);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    flood(PING, 0, 0, "12345678", 8, 100000, false); /* acknowledgements that nobody reads (CVE-2019-9512) */
    world_stop();
}

static void test_continuation_flood(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct buf b = {0}, block = {0};
    hpack_lines(&block, GET_LINES("/"));
    frame_add(&b, HEADERS, END_STREAM, 1, block.p, block.n);
    for (int i = 0; i < 1000; i++)
        frame_add(&b, CONTINUATION, 0, 1, "", 0);
    raw_buf(r, &b);
    pass(20);
    assert_true(over(r));
    assert_int_equal(W.requests_n, 0);
    assert_int_equal(W.own->refusals, 1);
    buf_free(&block);
    world_stop();
}

static void test_streams_max(void **state)
{
    plain_start();
    W.sconf.streams_max = 4;
    struct raw *r = raw_open(true);
    for (uint32_t id = 1; id < 20; id += 2) /* before our SETTINGS are acknowledged */
        raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
    pass(5);
    assert_int_equal(W.requests_n, 4);
    assert_int_equal(rst_code(r, 9), REFUSED_STREAM);
    assert_int_equal(frames(r, RST_STREAM, -1, NULL), 6);
    assert_int_equal(W.own->refusals, 6);
    assert_string_equal(W.own->label, "h2_streams");
    raw_frame(r, SETTINGS, ACK, 0, "", 0);
    raw_headers(r, END_STREAM | END_HEADERS, 21, GET_LINES("/never")); /* and afterwards it is an error */
    pass(10);
    assert_int_equal(goaway_code(r), PROTOCOL_ERROR);
    for (int i = 0; i < 4; i++)
        assert_true(W.requests[i]->aborted);
    world_stop();
}

/* Connection errors, as RFC 9113 names them. */
static void test_violations(void **state)
{
    static const struct {
        int type, flags;
        uint32_t id;
        const char *p;
        size_t n;
        int64_t code;
    } bad[] = {
        {DATA, 0, 0, "x", 1, PROTOCOL_ERROR},              /* 6.1 */
        {DATA, 0, 99, "x", 1, PROTOCOL_ERROR},             /* 5.1: idle */
        {DATA, PADDED, 1, "\5x", 2, PROTOCOL_ERROR},       /* 6.1: padding longer than the frame */
        {HEADERS, END_HEADERS, 0, "", 0, PROTOCOL_ERROR},  /* 6.2 */
        {HEADERS, END_HEADERS, 2, "", 0, PROTOCOL_ERROR},  /* 5.1.1: even */
        {RST_STREAM, 0, 0, "\0\0\0\0", 4, PROTOCOL_ERROR}, /* 6.4 */
        {RST_STREAM, 0, 99, "\0\0\0\0", 4, PROTOCOL_ERROR},
        {RST_STREAM, 0, 1, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {SETTINGS, 0, 1, "", 0, PROTOCOL_ERROR}, /* 6.5 */
        {SETTINGS, 0, 0, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {SETTINGS, ACK, 0, "\0\1\0\0\0\0", 6, FRAME_SIZE_ERROR},
        {SETTINGS, 0, 0, "\0\2\0\0\0\2", 6, PROTOCOL_ERROR},     /* ENABLE_PUSH 2 */
        {SETTINGS, 0, 0, "\0\4\x80\0\0\0", 6, FLOW_CONTROL_ERROR}, /* INITIAL_WINDOW_SIZE */
        {SETTINGS, 0, 0, "\0\5\0\0\0\1", 6, PROTOCOL_ERROR},     /* MAX_FRAME_SIZE */
        {PUSH_PROMISE, END_HEADERS, 1, "\0\0\0\2", 4, PROTOCOL_ERROR}, /* 8.4 */
        {PING, 0, 0, "1234567", 7, FRAME_SIZE_ERROR},  /* 6.7 */
        {PING, 0, 1, "12345678", 8, PROTOCOL_ERROR},
        {GOAWAY, 0, 1, "\0\0\0\0\0\0\0\0", 8, PROTOCOL_ERROR}, /* 6.8 */
        {WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, PROTOCOL_ERROR}, /* 6.9 */
        {WINDOW_UPDATE, 0, 0, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff", 4, FLOW_CONTROL_ERROR},
        {CONTINUATION, END_HEADERS, 1, "", 0, PROTOCOL_ERROR}, /* 6.10 */
        {HEADERS, END_HEADERS, 3, "\x80", 1, COMPRESSION_ERROR}, /* index 0 */
        {HEADERS, END_HEADERS, 3, "\xff\xff\xff\xff", 4, COMPRESSION_ERROR},
    };
    plain_start();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct raw *r = raw_open(true);
        raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
        pass(3);
        raw_frame(r, bad[i].type, bad[i].flags, bad[i].id, bad[i].p, bad[i].n);
        pass(20);
        assert_int_equal(goaway_code(r), bad[i].code);
        assert_true(over(r));
        assert_true(W.last->aborted);
        assert_int_equal(W.own->refusals, 1);
        stream_close(&r->s);
        pass(2300);
        assert_true(W.own->released);
        W.owns_n--;
        mem_free(W.own);
    }
    struct raw *r = raw_open(false); /* 3.4: no preface */
    stream_write_slice(&r->s, SLICE("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"));
    pass(20);
    assert_true(over(r));
    r = raw_open(true); /* 4.2: a frame that is too large */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
    raw_frame(r, DATA, 0, 1, filler, 16385);
    pass(20);
    assert_int_equal(goaway_code(r), FRAME_SIZE_ERROR);
    world_stop();
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------------ */

static void times_short(void)
{
    plain_start();
    W.sconf.h1.head_timeout_ms = 1000;
    W.sconf.h1.idle_timeout_ms = 3000;
    W.sconf.h1.body_timeout_ms = 2000;
    W.sconf.h1.linger_ms = 500;
}

static void test_times(void **state)
{
    times_short();
    struct raw *r = raw_open(false); /* the preface, and no SETTINGS */
    stream_write_slice(&r->s, SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    pass(800);
    assert_false(over(r));
    pass(400);
    assert_true(over(r));
    assert_string_equal(W.own->label, "slow_head");
    r = raw_open(true); /* idle */
    pass(2800);
    assert_false(over(r));
    pass(500);
    assert_true(over(r));
    assert_int_equal(goaway_code(r), NO_ERROR);
    assert_int_equal(W.own->refusals, 0);
    r = raw_open(true); /* HEADERS without their end */
    struct buf block = {0};
    hpack_lines(&block, GET_LINES("/"));
    raw_frame(r, HEADERS, END_STREAM, 1, block.p, block.n);
    pass(900);
    assert_false(over(r));
    pass(400);
    assert_true(over(r));
    assert_string_equal(W.own->label, "slow_head");
    buf_free(&block);
    r = raw_open(true); /* a body that stops coming: the stream ends, not the connection */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo"));
    for (int i = 0; i < 5; i++) {
        raw_frame(r, DATA, 0, 1, "x", 1);
        pass(1500);
    }
    assert_false(W.last->aborted);
    pass(1000);
    assert_true(W.last->aborted && W.last->err == ERR_TIMEOUT);
    assert_int_equal(rst_code(r, 1), CANCEL);
    assert_false(over(r));
    raw_headers(r, END_HEADERS, 3, POST_LINES("/stream")); /* once answered, both sides may take their time */
    pass(2900);
    assert_false(W.last->aborted);
    raw_frame(r, RST_STREAM, 0, 3, "\0\0\0\10", 4);
    pass(5);
    assert_true(W.last->aborted && W.last->err == ERR_CLOSED);
    world_stop();
}

/* A client that gives no window, or does not read. */
static void test_slow_reader(void **state)
{
    times_short();
    struct raw *r = raw_open(true);
    raw_headers(r, END_STREAM | END_HEADERS, 1, GET_LINES("/size/200000")); /* 65,535 go */
    pass(50);
    assert_int_equal(data_bytes(r, 1), 65535);
    raw_frame(r, WINDOW_UPDATE, 0, 0, "\0\1\0\0", 4);
    raw_frame(r, WINDOW_UPDATE, 0, 1, "\0\0\1\0", 4);
    pass(1900);
    assert_int_equal(data_bytes(r, 1), 65535 + 256);
    assert_int_equal(rst_code(r, 1), -1);
    pass(2300);
    assert_int_equal(rst_code(r, 1), CANCEL);
    raw_headers(r, END_STREAM | END_HEADERS, 3, GET_LINES("/drip/200000"));
    pass(2500);
    assert_true(W.last->aborted && W.last->err == ERR_TIMEOUT);
    assert_false(over(r));
    /* and one that takes nothing from its socket */
    r = raw_open(true);
    raw_frame(r, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    raw_frame(r, WINDOW_UPDATE, 0, 0, "\x70\0\0\0", 4);
    pass(5);
    stream_reading(&r->s, false);
    for (uint32_t id = 1; id < 20; id += 2)
        raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/drip/900000"));
    pass(1000);
    assert_true(http_srv_stream(&W.own->srv)->out_bytes < 200000);
    assert_true(mem_bytes(MEM_CONN) < 800000);
    assert_false(W.own->released);
    pass(3000);
    assert_true(W.own->released);
    W.owns_n--;
    mem_free(W.own);
    world_stop();
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------------------ */

static void test_going(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct frame f;
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo"));
    pass(5);
    assert_false(http_srv_idle(&W.own->srv));
    http_srv_last(&W.own->srv);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    assert_int_equal(code_at(f.p), 0x7fffffff);
    raw_headers(r, END_STREAM | END_HEADERS, 3, GET_LINES("/size/3")); /* was on its way */
    pass(5);
    assert_true(ended(r, 3));
    assert_int_equal(frames(r, PING, 0, &f), 1);
    raw_frame(r, PING, ACK, 0, f.p, 8);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 3);
    raw_headers(r, END_STREAM | END_HEADERS, 5, GET_LINES("/size/3")); /* too late */
    raw_frame(r, DATA, END_STREAM, 1, "body", 4);
    pass(5);
    assert_true(ended(r, 1) && !ended(r, 5));
    assert_true(r->eof);
    assert_int_equal(W.requests_n, 2);
    stream_close(&r->s);
    pass(5);
    assert_true(W.own->released);
    W.owns_n--;
    mem_free(W.own);
    r = raw_open(true); /* who does not answer PING */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
    pass(5);
    http_srv_last(&W.own->srv);
    pass(1100);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 1);
    assert_false(r->eof);
    r = raw_open(true); /* idle: at once */
    assert_true(http_srv_idle(&W.own->srv));
    http_srv_last(&W.own->srv);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    assert_int_equal(code_at(f.p), 0);
    assert_true(r->eof);
    world_stop();
}

/* Whatever an owner does inside a callback. */
static void test_inside(void **state)
{
    static const char *const paths[] = {"/cut", "/drop", "/early", "/last", "/none", "/discard", "/close"};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        for (int kind = 0; kind < 3; kind++) {
            plain_start();
            struct raw *r = raw_open(true);
            struct buf b = {0}, lines = {0};
            buf_printf(&lines, ":method\tPOST\n:scheme\thttp\n:path\t%s\n:authority\tx\n", paths[i]);
            headers_add(&b, END_HEADERS | (kind == 0 ? END_STREAM : 0), 1, lines.p);
            if (kind)
                frame_add(&b, DATA, kind == 1 ? END_STREAM : 0, 1, "body", 4);
            headers_add(&b, END_HEADERS | END_STREAM, 3, GET_LINES("/size/10"));
            if (kind == 2)
                frame_add(&b, DATA, END_STREAM, 1, "more", 4);
            headers_add(&b, END_HEADERS | END_STREAM, 5, GET_LINES("/size/10"));
            raw_buf(r, &b);
            buf_free(&lines);
            pass(20);
            assert_int_equal(ended(r, 5), i < 6);
            if (i == 6)
                assert_true(over(r) && W.requests_n == 1);
            else if (i < 2)
                assert_true(rst_code(r, 1) > 0);
            else if (kind == 2 && i != 5)
                assert_true(ended(r, 1) && rst_code(r, 1) <= 0);
            world_stop();
        }
}

/* ---- both ends ------------------------------------------------------------------------------------------------------------------------------ */

static bool all_over(void *ctx)
{
    for (int i = 0; i < W.calls_n; i++)
        if (!W.calls[i]->over)
            return false;
    return true;
}

static void test_kinds(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct call *a = get(u, "/size/100"); /* before it is connected */
    struct call *b = call_make(u, "HEAD /size/100", "", H1_NO_BODY, "", 0, 0);
    struct call *c = get(u, "/none"), *d = get(u, "/trailers-only"), *e = get(u, "/interim"), *f = get(u, "/cut"), *g = get(u, "/drop");
    struct call *h = call_make(u, "POST /echo?q=1", "TE: gzip, trailers\r\nX-A: b\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\n", H1_LENGTH, "abc", 3, 0);
    struct call *i = call_make(u, "POST /echo", "", H1_CHUNKED, "abc", 3, 300000);
    struct call *j = call_make(u, "POST /stream", "", H1_CHUNKED, "abc", 3, 300000);
    struct call *k = call_make(u, "POST /early", "", H1_CHUNKED, "abc", 3, 1000000);
    struct call *l = get(u, "/drip/300000");
    assert_true(sim_run(all_over, NULL, 5000));
    assert_int_equal(a->body.n, 100);
    assert_int_equal(a->framing, H1_LENGTH);
    assert_true(has(&a->fields, "x-test: yes\n") && !has(&a->fields, "connection"));
    assert_int_equal(b->status, 200);
    assert_true(b->end && b->body.n == 0 && has(&b->fields, "content-length: 100\n"));
    assert_int_equal(c->status, 204);
    assert_true(c->end && c->framing == H1_NO_BODY);
    assert_true(d->end && has(&d->fields, "grpc-status: 7\n"));
    assert_int_equal(e->interims, 1);
    assert_string_equal(e->body.p, "ok");
    assert_true(f->failed && !f->end && f->err == ERR_RESET && !f->unsent);
    assert_int_equal(f->k.reset_code, INTERNAL_ERROR);
    assert_true(g->failed && !g->answered && g->k.reset_code == CANCEL);
    assert_string_equal(h->body.p, "abc");
    assert_int_equal(i->body.n, 300003);
    assert_string_equal(i->trailer.p, "x-echo: yes\n");
    assert_int_equal(j->body.n, 300003);
    assert_string_equal(j->trailer.p, "grpc-status: 0\n");
    assert_int_equal(k->status, 403);
    assert_string_equal(k->body.p, "early");
    assert_true(k->end && !k->failed);
    assert_int_equal(l->body.n, 300000);
    assert_string_equal(l->trailer.p, "x-sum: 9\n");
    for (int n = 0; n < W.requests_n; n++) {
        struct request *q = W.requests[n];
        assert_false(has(&q->fields, "transfer-encoding") || has(&q->fields, "connection"));
        assert_true(has(&q->fields, "host: x.example:81\n"));
        if (has(&q->line, "q=1"))
            assert_true(q->te_trailers && q->framing == H1_LENGTH && has(&q->fields, "content-length: 3\n") && has(&q->fields, "x-a: b\n"));
    }
    assert_int_equal(u->ended, 0);
    assert_int_equal(http_cli_calls(&u->cli), 0);
    assert_int_equal(http_cli_room(&u->cli), 256);
    world_stop();
}

/* Under split reads, short writes and small sockets nothing is lost or mixed up. */
static void test_faults(void **state)
{
    static const char *const what[] = {"POST /echo", "POST /stream", "GET /drip/70000", "GET /size/1", "GET /size/200000", "POST /early", "GET /cut"};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct sim_conf faults = {.latency_us_min = 10, .latency_us_max = 900, .split_pct = (uint32_t)(seed % 3) * 30, .short_write_pct = (uint32_t)(seed % 2) * 50, .socket_bytes = seed % 4 == 1 ? 4096 : 0};
        world_start(seed, &faults, false);
        struct use *u = use_open();
        for (int i = 0; i < 60; i++) {
            const char *w = what[(seed + (uint64_t)i * 5) % COUNT_OF(what)];
            bool post = w[0] == 'P';
            struct call *x = call_make(u, w, "", post ? H1_CHUNKED : H1_NO_BODY, filler, post ? (size_t)i * 37 : 0, post && i % 3 ? 10000 * (size_t)(i % 7) : 0);
            if (i % 11 == 10) {
                http_call_cancel(&x->k);
                x->over = true;
            }
            pass(i % 3);
        }
        assert_true(sim_run(all_over, NULL, 60000));
        for (int i = 0; i < W.calls_n; i++) {
            struct call *x = W.calls[i];
            const char *w = what[(seed + (uint64_t)i * 5) % COUNT_OF(what)];
            if (i % 11 == 10)
                continue;
            assert_int_equal(x->failed, strstr(w, "/cut") != NULL);
            size_t sent = w[0] == 'P' ? (size_t)i * 37 + (i % 3 ? 10000 * (size_t)(i % 7) : 0) : 0;
            if (strstr(w, "echo") || strstr(w, "stream"))
                assert_int_equal(x->body.n, sent);
            if (strstr(w, "200000"))
                assert_true(x->body.n == 200000 && memcmp(x->body.p, filler, 200000) == 0);
        }
        world_stop();
    }
}

static void test_many(void **state)
{
    plain_start();
    struct use *u = use_open();
    for (int i = 0; i < 10000; i++) {
        struct call *x = get(u, "/size/10");
        for (int k = 0; k < 20 && !x->over; k++)
            pass(1);
        assert_true(x->end && x->body.n == 10);
    }
    size_t before = mem_bytes(MEM_CONN);
    for (int i = 0; i < 256; i++) {
        assert_true(http_cli_room(&u->cli) > 0);
        call_make(u, "POST /echo", "", H1_CHUNKED, filler, 100, 20000);
    }
    assert_int_equal(http_cli_room(&u->cli), 0);
    assert_true(sim_run(all_over, NULL, 10000));
    for (int i = 10000; i < W.calls_n; i++)
        assert_true(W.calls[i]->end && W.calls[i]->body.n == 20100);
    pass(10);
    assert_true(mem_bytes(MEM_CONN) < before + 4 * BIG);
    world_stop();
}

/* One stream whose owner does not read: it stops, the others go on, and what is kept is bounded. */
static void test_paused(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct call *p = call_make(u, "POST /pause", "", H1_CHUNKED, filler, 1000, 500000);
    pass(50);
    struct request *q = W.last;
    assert_true(q->body.n + 65535 >= 500000 - p->left - 20000);
    size_t kept = q->body.n;
    for (int i = 0; i < 20; i++) {
        struct call *x = call_make(u, "POST /echo", "", H1_CHUNKED, filler, 1000, 100000);
        assert_true(sim_run(all_over, NULL, 100) || x->end);
        assert_int_equal(x->body.n, 101000);
    }
    assert_int_equal(q->body.n, kept);
    http_req_reading(q->r, true);
    pass(100);
    assert_int_equal(q->body.n, 501000);
    assert_true(q->end && q->calls > 1);
    http_req_cut(q->r);
    q->over = true;
    pass(10);
    assert_true(p->failed);
    /* forty of them: no more than twice the connection's window is kept */
    for (int i = 0; i < 60; i++)
        call_make(u, "POST /pause", "", H1_CHUNKED, filler, 1000, 100000);
    pass(200);
    assert_true(mem_bytes(MEM_CONN) < 8 * BIG);
    for (int i = 0; i < W.requests_n; i++)
        if (!W.requests[i]->over && path_is(W.requests[i], "/pause"))
            http_req_reading(W.requests[i]->r, true);
    pass(200);
    for (int i = 0; i < W.requests_n; i++)
        if (path_is(W.requests[i], "/pause"))
            assert_true(W.requests[i]->end);
    world_stop();
}

/* The client's owner does not read; the answer is complete and the server gone before it does. */
static void test_paused_answer(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct iovec v;
    struct call *x = call_make(u, "POST /stream", "", H1_CHUNKED, "", 0, OPEN), *y;
    x->pause = true;
    pass(20);
    assert_true(x->answered && x->body.n == 0);
    http_call_send(&x->k, one(&v, filler, 1000));
    http_call_end(&x->k, SLICE(""));
    pass(20);
    assert_true(!x->end && x->body.n == 0);
    y = get(u, "/close");
    pass(20);
    assert_true(y->failed && !y->unsent && u->ended == 0);
    http_call_reading(&x->k, true);
    pass(20);
    assert_true(x->end && x->body.n == 1000);
    assert_string_equal(x->trailer.p, "grpc-status: 0\n");
    assert_int_equal(u->ended, 1);
    world_stop();
}

static void test_tunnels(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct iovec v;
    const char *lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    struct call *x = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0); /* before SETTINGS */
    struct call *z = call_make(u, "GET /early", lines, H1_TUNNEL, "", 0, 0);
    pass(20);
    assert_int_equal(x->status, 101);
    assert_int_equal(x->framing, H1_TUNNEL);
    assert_true(has(&x->fields, "upgrade: websocket\n") && has(&x->fields, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n"));
    assert_true(z->end && z->status == 403);
    struct call *y = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0);
    pass(20);
    assert_int_equal(y->status, 101);
    http_call_send(&x->k, one(&v, "ping", 4));
    http_call_send(&y->k, one(&v, filler, 200000));
    pass(50);
    assert_string_equal(x->body.p, "ping");
    assert_int_equal(y->body.n, 200000);
    assert_false(x->over || y->over);
    http_call_end(&x->k, SLICE(""));
    pass(20);
    assert_true(x->end);
    http_call_cancel(&y->k);
    y->over = true;
    pass(20);
    for (int i = 0; i < W.requests_n; i++)
        assert_true(W.requests[i]->over);
    world_stop();
    /* a peer that knows no extended CONNECT */
    u = raw_server_start("", 0);
    x = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0);
    pass(5);
    assert_true(x->failed && x->unsent && x->err == ERR_UNSUPPORTED);
    assert_int_equal(http_cli_calls(&u->cli), 0);
    /* plain CONNECT needs none */
    x = call_make(u, "CONNECT h:1", "", H1_TUNNEL, "", 0, 0);
    pass(5);
    raw_headers(W.raw, END_HEADERS, 1, ":status\t200\n");
    raw_frame(W.raw, DATA, 0, 1, "abc", 3);
    pass(5);
    assert_true(x->answered && x->framing == H1_TUNNEL && x->body.n == 3);
    world_stop();
}

/* Many that send at once over a narrow pipe share it. */
static void test_fair(void **state)
{
    struct sim_conf narrow = {.latency_us_min = 500, .latency_us_max = 1000, .socket_bytes = 20000};
    world_start(1, &narrow, false);
    W.cconf.window_bytes = 4 * BIG;
    W.cconf.conn_window_bytes = 16 * BIG;
    struct use *u = use_open();
    for (int i = 0; i < 6; i++)
        get(u, "/drip/1000000");
    pass(60);
    size_t least = SIZE_MAX, most = 0;
    for (int i = 0; i < 6; i++) {
        least = MIN(least, W.calls[i]->body.n);
        most = MAX(most, W.calls[i]->body.n);
    }
    assert_true(most > 50000 && least * 2 + 50000 > most);
    assert_true(sim_run(all_over, NULL, 60000));
    for (int i = 0; i < 6; i++)
        assert_int_equal(W.calls[i]->body.n, 1000000);
    world_stop();
}

/* ---- our client against a server made by hand -------------------------------------------------------------------------------------------- */

static void test_cli_answers(void **state)
{
    static const struct {
        const char *lines;
        int flags;
        uint16_t status; /* 0: refused */
    } answers[] = {
        {":status\t200\n", END_STREAM, 200},
        {":status\t200\ncontent-length\t0\n", END_STREAM, 200},
        {":status\t304\ncontent-length\t7\n", END_STREAM, 304},
        {":status\t200\ncontent-length\t7\n", END_STREAM, 0},
        {":status\t101\n", END_STREAM, 0},
        {":status\t20\n", END_STREAM, 0},
        {":status\t2000\n", END_STREAM, 0},
        {":status\t20x\n", END_STREAM, 0},
        {"x\ty\n", END_STREAM, 0},
        {":status\t200\n:status\t200\n", END_STREAM, 0},
        {":status\t200\n:path\t/\n", END_STREAM, 0},
        {":status\t100\n", END_STREAM, 0},
        {":status\t200\nconnection\tclose\n", END_STREAM, 0},
        {":status\t200\ntransfer-encoding\tchunked\n", END_STREAM, 0},
        {":status\t200\nBig\tx\n", END_STREAM, 0},
        {":status\t200\nx\ta~b\n", END_STREAM, 0},
        {":status\t200\ncontent-length\t1\ncontent-length\t1\n", 0, 0},
    };
    struct use *u = raw_server_start("", 0);
    for (uint32_t i = 0; i < COUNT_OF(answers); i++) {
        struct call *x = get(u, "/");
        pass(3);
        raw_headers(W.raw, answers[i].flags | END_HEADERS, 1 + 2 * i, answers[i].lines);
        pass(3);
        assert_true(x->over);
        assert_int_equal(x->status, answers[i].status);
        if (!answers[i].status) {
            assert_true(x->failed && x->err == ERR_SYNTAX && !x->unsent);
            assert_int_equal(rst_code(W.raw, 1 + 2 * i), PROTOCOL_ERROR);
        }
    }
    assert_int_equal(u->ended, 0);
    uint32_t id = 1 + 2 * COUNT_OF(answers);
    struct call *x = call_make(u, "HEAD /", "", H1_NO_BODY, "", 0, 0); /* a body where none may be */
    pass(3);
    raw_headers(W.raw, END_HEADERS, id, ":status\t200\ncontent-length\t3\n");
    raw_frame(W.raw, DATA, END_STREAM, id, "abc", 3);
    pass(3);
    assert_true(x->failed && x->err == ERR_SYNTAX);
    id += 2;
    x = get(u, "/"); /* interim answers without end */
    pass(3);
    for (int i = 0; i < 3000 && !x->over; i++) {
        raw_headers(W.raw, END_HEADERS, id, ":status\t103\nx\ty\n");
        if (i % 100 == 0)
            pass(1);
    }
    pass(5);
    assert_true(x->failed && x->err == ERR_SYNTAX && x->interims > 100);
    world_stop();
}

static void test_cli_resets(void **state)
{
    struct use *u = raw_server_start("\0\3\0\0\0\12", 6); /* ten streams */
    assert_int_equal(http_cli_room(&u->cli), 10);
    struct call *x[8];
    for (int i = 0; i < 8; i++)
        x[i] = get(u, "/");
    assert_int_equal(http_cli_room(&u->cli), 2);
    pass(5);
    raw_frame(W.raw, RST_STREAM, 0, 1, "\0\0\0\7", 4);  /* REFUSED_STREAM */
    raw_frame(W.raw, RST_STREAM, 0, 3, "\0\0\0\15", 4); /* HTTP_1_1_REQUIRED */
    pass(5);
    assert_true(x[0]->failed && x[0]->unsent && x[0]->k.reset_code == REFUSED_STREAM);
    assert_true(x[1]->failed && !x[1]->unsent && x[1]->k.reset_code == 13);
    assert_int_equal(http_cli_calls(&u->cli), 6);
    raw_frame(W.raw, GOAWAY, 0, 0, "\0\0\0\13\0\0\0\0", 8); /* 11 is the last: 13 and 15 were not looked at */
    pass(5);
    assert_int_equal(http_cli_room(&u->cli), 0);
    assert_true(x[6]->failed && x[6]->unsent && x[7]->failed && x[7]->unsent && !x[5]->over);
    assert_int_equal(u->ended, 0);
    for (uint32_t i = 2; i < 6; i++)
        raw_headers(W.raw, END_STREAM | END_HEADERS, 1 + 2 * i, ":status\t200\n");
    pass(5);
    for (int i = 2; i < 6; i++)
        assert_true(x[i]->end);
    assert_int_equal(u->ended, 1);
    assert_true(u->released);
    world_stop();
    /* the server leaves */
    u = raw_server_start("", 0);
    x[0] = get(u, "/");
    pass(5);
    stream_close(&W.raw->s);
    pass(5);
    assert_true(x[0]->failed && !x[0]->unsent && u->ended == 1);
    world_stop();
    /* nobody there */
    world_start(1, NULL, true);
    struct addr none = addr_ip4(0x7f000001, PORT + 1);
    u = mem_new(MEM_SIM, sizeof *u);
    W.uses[W.uses_n++] = u;
    http_cli_connect(&u->cli, W.far, &W.cconf, &use_ops, -1, &none, HTTP_2, NULL);
    x[0] = get(u, "/");
    pass(20);
    assert_true(x[0]->failed && x[0]->unsent && x[0]->err == ERR_REFUSED && u->ended == 1);
    world_stop();
    /* closed by its owner, with calls */
    u = raw_server_start("", 0);
    x[0] = get(u, "/");
    x[1] = call_make(u, "POST /", "", H1_CHUNKED, filler, 100, 200000);
    pass(2);
    http_cli_close(&u->cli);
    assert_true(x[0]->failed && x[1]->failed && x[0]->err == ERR_CLOSED);
    pass(5);
    assert_true(u->released && u->ended == 0);
    world_stop();
}

/* What goes over the wire of a request. */
static void test_cli_flow(void **state)
{
    struct use *u = raw_server_start("\0\4\0\0\0\144", 6); /* windows of 100 bytes */
    struct call *x = call_make(u, "POST /", "", H1_CHUNKED, filler, 300, 1000);
    pass(5);
    assert_int_equal(data_bytes(W.raw, 1), 100);
    assert_int_equal(x->drains, 0);
    raw_frame(W.raw, WINDOW_UPDATE, 0, 1, "\0\0\0\310", 4);
    pass(5);
    assert_int_equal(data_bytes(W.raw, 1), 300);
    assert_int_equal(x->drains, 1);
    raw_frame(W.raw, SETTINGS, 0, 0, "\0\4\0\0\100\0", 6); /* a wider one, for all */
    pass(5);
    assert_true(data_bytes(W.raw, 1) == 1300 && x->k.sent && ended(W.raw, 1));
    raw_headers(W.raw, END_HEADERS, 1, ":status\t200\n");
    x->pause = true;
    for (int i = 0; i < 40; i++)
        raw_frame(W.raw, DATA, 0, 1, filler, 10000);
    pass(20);
    assert_int_equal(rst_code(W.raw, 1), FLOW_CONTROL_ERROR); /* 400,000 where 262,144 were allowed */
    assert_true(x->failed && u->ended == 0);
    world_stop();
}

/* A test's name as argument: only that one. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),        cmocka_unit_test(test_gather),      cmocka_unit_test(test_malformed),   cmocka_unit_test(test_bodies_malformed),
        cmocka_unit_test(test_head_limits), cmocka_unit_test(test_rapid_reset), cmocka_unit_test(test_floods),      cmocka_unit_test(test_continuation_flood),
        cmocka_unit_test(test_streams_max), cmocka_unit_test(test_violations),  cmocka_unit_test(test_times),       cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_going),       cmocka_unit_test(test_inside),      cmocka_unit_test(test_kinds),       cmocka_unit_test(test_faults),
        cmocka_unit_test(test_many),        cmocka_unit_test(test_paused),      cmocka_unit_test(test_paused_answer), cmocka_unit_test(test_tunnels),
        cmocka_unit_test(test_fair),        cmocka_unit_test(test_cli_answers), cmocka_unit_test(test_cli_resets),  cmocka_unit_test(test_cli_flow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
