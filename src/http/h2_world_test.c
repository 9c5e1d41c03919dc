/* h2_world_test.c - the owners, the raw peers, the beginning and the end of the tests of HTTP/2. See h2_world_test.h. */
#include "h2_world_test.h"

struct world W;
char filler[BIG];

struct pieces one(struct iovec *v, const void *p, size_t n)
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

bool has(const struct buf *b, const char *what) { return b->p && strstr(b->p, what) != NULL; }

/* ---- the owner of an http_srv --------------------------------------------------------------------------------------------- */

static struct own *own_of(struct http_srv *c) { return CONTAINER_OF(c, struct own, srv); }
bool path_is(const struct request *q, const char *p) { return strncmp(q->path, p, strlen(p)) == 0; }

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
    } else if (path_is(q, "/stream") || path_is(q, "/chat"))
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
    } else if (path_is(q, "/refuse")) {
        q->over = true;
        http_req_refuse(q->r);
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
    if (path_is(q, "/chat")) /* as /stream, but never asks its peer to wait */
        (void)http_req_send(q->r, body);
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

void use_drained(struct http_call *k)
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
const struct http_cli_ops use_ops = {.connected = use_connected, .interim = use_interim, .response = use_response, .body = use_body, .drained = use_drained, .failed = use_failed, .ended = use_ended, .released = use_released};

struct use *use_open(void)
{
    struct use *u = mem_new(MEM_SIM, sizeof *u);
    W.uses[W.uses_n++] = u;
    struct addr a = addr_ip4(0x7f000001, PORT);
    http_cli_connect(&u->cli, W.far, &W.cconf, &use_ops, -1, &a, HTTP_2, NULL);
    return u;
}

struct call *call_make(struct use *u, const char *what, const char *lines, enum h1_framing framing, const void *p, size_t n, size_t left)
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

struct call *get(struct use *u, const char *path)
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

bool never(void *ctx) { return false; }
void pass(uint64_t ms) { sim_run(never, NULL, ms); }
bool over(const struct raw *r) { return r->eof || r->failed; }

void frame_add(struct buf *b, int type, int flags, uint32_t id, const void *p, size_t n)
{
    uint8_t h[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, (uint8_t)type, (uint8_t)flags, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    buf_add(b, h, 9);
    buf_add(b, p, n);
}

void hpack_string(struct buf *b, const char *p, size_t n)
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

void hpack_lines(struct buf *b, const char *lines)
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

void headers_add(struct buf *b, int flags, uint32_t id, const char *lines)
{
    struct buf block = {0};
    hpack_lines(&block, lines);
    frame_add(b, HEADERS, flags, id, block.p, block.n);
    buf_free(&block);
}

void raw_buf(struct raw *r, struct buf *b)
{
    stream_write_slice(&r->s, buf_slice(b));
    buf_free(b);
}

void raw_frame(struct raw *r, int type, int flags, uint32_t id, const void *p, size_t n)
{
    struct buf b = {0};
    frame_add(&b, type, flags, id, p, n);
    raw_buf(r, &b);
}

void raw_headers(struct raw *r, int flags, uint32_t id, const char *lines)
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

struct raw *raw_open(bool greet)
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

uint32_t frames(const struct raw *r, int type, int64_t id, struct frame *last)
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

int64_t code_at(const uint8_t *p) { return (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

int64_t rst_code(const struct raw *r, uint32_t id)
{
    struct frame f;
    return frames(r, RST_STREAM, id, &f) ? code_at(f.p) : -1;
}

int64_t goaway_code(const struct raw *r)
{
    struct frame f;
    return frames(r, GOAWAY, 0, &f) ? code_at(f.p + 4) : -1;
}

size_t data_bytes(const struct raw *r, uint32_t id)
{
    struct frame f;
    size_t n = 0;
    for (size_t at = 0; frame_next(r, &at, &f);)
        if (f.type == DATA && f.id == id)
            n += f.n;
    return n;
}

bool ended(const struct raw *r, uint32_t id)
{
    struct frame f;
    for (size_t at = 0; frame_next(r, &at, &f);)
        if (f.id == id && (f.type == DATA || f.type == HEADERS) && f.flags & END_STREAM)
            return true;
    return false;
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------------- */

void world_start(uint64_t seed, const struct sim_conf *faults, bool raw_server)
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

void plain_start(void) { world_start(1, NULL, false); }

struct use *raw_server_start(const void *settings, size_t n)
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

void world_stop(void)
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
