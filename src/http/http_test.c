/* http_test.c - h1_srv and h1_cli on the simulator: against raw bytes that a well-behaved peer would not send, and against each
 * other. `near` is the loop of the connection under test, `far` that of its peer. A raw peer collects what it reads; its
 * reading can be switched off, to be a slow reader.
 */
#include "http_check.h"
#include "http_int.h"
#include "sim.h"
#include "tls_testcert.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define PORT 8080
#define BIG (1u << 20)

/* ---- the world -------------------------------------------------------------------------------------------------------- */

enum manner { ECHO, EARLY, BY_HAND, SIZED, STREAM_ECHO, TUNNEL, PAUSE };

struct own { /* an h1_srv with its owner */
    struct h1_srv srv;
    enum manner manner;
    uint32_t requests, ends, aborts, refusals, drains;
    enum err abort_err;
    uint16_t refused;
    char label[32];
    struct buf body, trailer;
    bool released;
};
struct raw { /* a peer that sends any bytes */
    struct stream s;
    struct buf got;
    bool connected, eof, failed, released;
};
struct use { /* an h1_cli with its owner */
    struct h1_cli cli;
    uint32_t interims, answers, ends, failures, idle_ends;
    enum err fail_err;
    uint16_t status;
    bool answer_begun, released;
    struct buf body, trailer;
};

static struct {
    struct loop *near, *far;
    struct head_out out, far_out;
    struct h1_srv_conf conf;
    struct listener ln;
    enum manner manner;
    struct own *own; /* the last one accepted */
    struct raw *raw; /* the last one accepted by raw_listen() */
    struct tls_ctx *raw_tls; /* what a raw peer accepts with; NULL: in clear */
    int accepted;
    struct own *owns[64];
    struct raw *raws[64];
    struct use *uses[64];
    int owns_n, raws_n, uses_n, fd;
} W;

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

/* ---- the owner of an h1_srv --------------------------------------------------------------------------------------------- */

static struct own *own_of(struct h1_srv *c) { return CONTAINER_OF(c, struct own, srv); }

static void answer(struct own *o, const char *p, size_t n, enum h1_framing framing)
{
    struct iovec v;
    head_clear(&W.out);
    head_status(&W.out, 200, SLICE(""));
    h1_srv_answer(&o->srv, &W.out, framing, n, one(&v, p, n), true);
}

static void own_end(struct own *o)
{
    o->ends++;
    if (o->manner == ECHO)
        answer(o, o->body.p, o->body.n, H1_LENGTH);
    if (o->manner == STREAM_ECHO || o->manner == TUNNEL)
        h1_srv_end(&o->srv, SLICE(""));
}

static void own_request(struct h1_srv *c, const struct h1_head *h, struct pieces body, bool end)
{
    struct own *o = own_of(c);
    o->requests++;
    buf_clear(&o->body);
    collect(&o->body, body);
    uint64_t n;
    struct iovec v;
    if (o->manner == PAUSE)
        h1_srv_reading(c, false);
    if (o->manner == EARLY) {
        answer(o, "early", 5, H1_LENGTH);
        return;
    }
    if (o->manner == SIZED) { /* "/<bytes>" */
        assert_int_equal(slice_u64(slice_of(h->path.p + 1, h->path.n - 1), BIG, &n), OK);
        answer(o, filler, n, H1_LENGTH);
        return;
    }
    if (o->manner == TUNNEL) {
        head_clear(&W.out);
        head_status(&W.out, h->method_id == H1_CONNECT ? 200 : 101, SLICE(""));
        h1_srv_answer(c, &W.out, H1_TUNNEL, 0, (struct pieces){0}, false);
        return;
    }
    if (o->manner == STREAM_ECHO) {
        head_clear(&W.out);
        head_status(&W.out, 200, SLICE(""));
        size_t queued = h1_srv_answer(&o->srv, &W.out, H1_CHUNKED, 0, body.n ? body : one(&v, "", 0), false);
        if (queued)
            h1_srv_reading(c, false);
    }
    if (end)
        own_end(o);
}

static void own_body(struct h1_srv *c, struct pieces body, bool end)
{
    struct own *o = own_of(c);
    collect(&o->body, body);
    if ((o->manner == STREAM_ECHO || o->manner == TUNNEL) && body.n && h1_srv_send(c, body) > 0)
        h1_srv_reading(c, false);
    if (end && h1_srv_trailers(c))
        buf_add(&o->trailer, h1_srv_trailers(c)->trailer, h1_srv_trailers(c)->trailer_n);
    if (end)
        own_end(o);
}

static void own_drained(struct h1_srv *c)
{
    own_of(c)->drains++;
    h1_srv_reading(c, true);
}

static void own_aborted(struct h1_srv *c, enum err e)
{
    own_of(c)->aborts++;
    own_of(c)->abort_err = e;
}

static void own_refused(struct h1_srv *c, uint16_t status, const char *label)
{
    struct own *o = own_of(c);
    o->refusals++;
    o->refused = status;
    memcpy(o->label, label, MIN(strlen(label) + 1, sizeof o->label));
}

static void own_released(struct h1_srv *c) { own_of(c)->released = true; }

static const struct h1_srv_ops own_ops = {own_request, own_body, own_drained, own_aborted, own_refused, .released = own_released};

static void own_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct own *o = mem_new(MEM_SIM, sizeof *o);
    o->manner = W.manner;
    W.own = W.owns[W.owns_n++] = o;
    h1_srv_open(&o->srv, W.near, &W.conf, &own_ops, fd);
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
    stream_adopt(&r->s, W.far, &raw_ops, fd);
    if (W.raw_tls)
        stream_tls_accept(&r->s, W.raw_tls, SLICE(""));
    W.accepted++;
}

static void raw_send(struct raw *r, const char *text) { stream_write_slice(&r->s, slice_cstr(text)); }
static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }
static bool raw_over(void *ctx) { return ((struct raw *)ctx)->eof || ((struct raw *)ctx)->failed; }

static struct raw *raw_open(void)
{
    struct raw *r = mem_new(MEM_SIM, sizeof *r);
    W.raws[W.raws_n++] = r;
    struct addr a = addr_ip4(0x7f000001, PORT);
    stream_connect(&r->s, W.far, &raw_ops, -1, &a);
    pass(5);
    assert_true(r->connected);
    return r;
}

static uint32_t count_of(const struct raw *r, const char *what)
{
    uint32_t n = 0;
    size_t len = strlen(what);
    for (size_t i = 0; i + len <= r->got.n; i++)
        n += memcmp(r->got.p + i, what, len) == 0;
    return n;
}
static bool starts(const struct raw *r, const char *what) { return r->got.n >= strlen(what) && memcmp(r->got.p, what, strlen(what)) == 0; }
static bool ends(const struct raw *r, const char *what)
{
    size_t n = strlen(what);
    return r->got.n >= n && memcmp(r->got.p + r->got.n - n, what, n) == 0;
}

/* ---- the owner of an h1_cli ----------------------------------------------------------------------------------------------------- */

static struct use *use_of(struct h1_cli *c) { return CONTAINER_OF(c, struct use, cli); }
static void use_connected(struct h1_cli *c) {}
static void use_interim(struct h1_cli *c, const struct h1_head *h) { use_of(c)->interims++; }

static void use_body(struct h1_cli *c, struct pieces body, bool end)
{
    struct use *u = use_of(c);
    collect(&u->body, body);
    u->ends += end;
    if (end && c->body.framing == H1_CHUNKED)
        buf_add(&u->trailer, h1_cli_trailers(c)->trailer, h1_cli_trailers(c)->trailer_n);
}

static void use_response(struct h1_cli *c, const struct h1_head *h, struct pieces body, bool end)
{
    use_of(c)->answers++;
    use_of(c)->status = h->status;
    use_body(c, body, end);
}

static void use_drained(struct h1_cli *c) {}
static void use_failed(struct h1_cli *c, enum err e)
{
    struct use *u = use_of(c);
    u->failures++;
    u->fail_err = e;
    u->answer_begun = c->answer_begun;
    h1_cli_close(c);
}
static void use_idle_end(struct h1_cli *c)
{
    use_of(c)->idle_ends++;
    h1_cli_close(c);
}
static void use_released(struct h1_cli *c) { use_of(c)->released = true; }
static const struct h1_cli_ops use_ops = {use_connected, use_interim, use_response, use_body, use_drained, use_failed, use_idle_end, use_released};

static struct use *use_open(void)
{
    struct use *u = mem_new(MEM_SIM, sizeof *u);
    W.uses[W.uses_n++] = u;
    struct addr a = addr_ip4(0x7f000001, PORT);
    h1_cli_connect(&u->cli, W.near, &h1_limits_default, &use_ops, -1, &a);
    return u;
}

static void use_get(struct use *u, enum h1_method m) { h1_cli_request(&u->cli, m, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), H1_NO_BODY, (struct pieces){0}, true); }

/* ---- start and stop ------------------------------------------------------------------------------------------------------------- */

static void world_start(uint64_t seed, const struct sim_conf *faults, bool raw_server)
{
    struct sim_conf sc = faults ? *faults : (struct sim_conf){.latency_us_min = 20, .latency_us_max = 300};
    sc.seed = seed;
    enum manner m = W.manner;
    memset(&W, 0, sizeof W);
    W.manner = m;
    memset(filler, 'x', sizeof filler);
    sim_start(&sc);
    W.near = loop_new("near");
    W.far = loop_new("far");
    head_out_init(&W.out);
    W.conf = (struct h1_srv_conf){&h1_limits_default, 10000, 60000, 60000, 2000, &W.out};
    struct addr a = addr_ip4(0x7f000001, PORT);
    W.fd = sim_listen(0, &a);
    listener_start(&W.ln, raw_server ? W.far : W.near, W.fd, false, raw_server ? raw_accepted : own_accepted);
}

static void srv_start(enum manner m)
{
    W.manner = m;
    world_start(1, NULL, false);
}

/* Closes all; nothing may be left behind: no socket, no byte of memory. */
static void world_stop(void)
{
    for (int i = 0; i < W.owns_n; i++)
        h1_srv_close(&W.owns[i]->srv);
    for (int i = 0; i < W.uses_n; i++)
        h1_cli_close(&W.uses[i]->cli);
    for (int i = 0; i < W.raws_n; i++)
        stream_close(&W.raws[i]->s);
    pass(10);
    for (int i = 0; i < W.owns_n; i++) {
        assert_true(W.owns[i]->released);
        assert_false(timer_is_set(&W.owns[i]->srv.timer));
        buf_free(&W.owns[i]->body);
        buf_free(&W.owns[i]->trailer);
        mem_free(W.owns[i]);
    }
    for (int i = 0; i < W.uses_n; i++) {
        assert_true(W.uses[i]->released);
        buf_free(&W.uses[i]->body);
        buf_free(&W.uses[i]->trailer);
        mem_free(W.uses[i]);
    }
    for (int i = 0; i < W.raws_n; i++) {
        assert_true(W.raws[i]->released);
        buf_free(&W.raws[i]->got);
        mem_free(W.raws[i]);
    }
    listener_stop(&W.ln);
    socket_close(W.fd);
    head_out_fini(&W.out);
    loop_free(W.near);
    loop_free(W.far);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CONN), 0);
}

/* ---- the server's end: pipelines and ends ---------------------------------------------------------------------------------------- */

static void test_pipeline(void **state)
{
    struct sim_conf faults = {.latency_us_min = 20, .latency_us_max = 300, .split_pct = 60, .short_write_pct = 40};
    for (uint64_t seed = 1; seed <= 30; seed++) {
        W.manner = ECHO;
        world_start(seed, &faults, false);
        struct raw *r = raw_open();
        struct buf b = {0};
        for (int i = 0; i < 40; i++)
            buf_printf(&b, i % 2 ? "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nn%02d\r\n0\r\n\r\n" : "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nn%02d", i);
        raw_send(r, b.p);
        buf_free(&b);
        pass(200);
        assert_int_equal(count_of(r, "HTTP/1.1 200 OK"), 40);
        const char *at = r->got.p;
        for (int i = 0; i < 40; i++) { /* in order */
            char want[16] = "\r\n\r\nn00";
            want[5] = (char)('0' + i / 10);
            want[6] = (char)('0' + i % 10);
            at = strstr(at, want);
            assert_non_null(at);
        }
        world_stop();
    }
}

/* A client that sends many requests and reads nothing costs one answer, and what is read ahead; later it gets all of them. */
static void test_pipeline_unread(void **state)
{
    srv_start(SIZED);
    struct raw *r = raw_open();
    stream_reading(&r->s, false);
    struct buf b = {0};
    for (int i = 0; i < 2000; i++)
        buf_adds(&b, "GET /16384 HTTP/1.1\r\nHost: some.long.name.of.a.host.to.fill.it.up\r\n\r\n");
    raw_send(r, b.p);
    pass(5000);
    assert_true(W.own->srv.s.out_bytes > 0 && W.own->srv.s.out_bytes < 32768);
    assert_true(W.own->srv.in_n < 2 * 65536 + 1);
    assert_true(W.own->requests < 20);
    stream_reading(&r->s, true);
    pass(20000);
    assert_int_equal(count_of(r, "HTTP/1.1 200 OK"), 2000);
    assert_int_equal(W.own->refusals + W.own->aborts, 0);
    buf_free(&b);
    world_stop();
}

/* ... and when it never reads, the connection ends, whatever the state. */
static void test_never_reads(void **state)
{
    srv_start(SIZED);
    struct raw *r = raw_open();
    stream_reading(&r->s, false);
    raw_send(r, "GET /900000 HTTP/1.1\r\nHost: x\r\n\r\nGET /900000 HTTP/1.1\r\nHost: x\r\n\r\n");
    pass(59000);
    assert_false(W.own->released);
    pass(3000);
    assert_true(W.own->released);
    world_stop();
    srv_start(STREAM_ECHO); /* its request still comes, but nobody takes the echo */
    r = raw_open();
    stream_reading(&r->s, false);
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    stream_write_slice(&r->s, slice_of(filler, 900000));
    pass(58000);
    assert_true(W.own->srv.paused && W.own->srv.s.out_bytes > 0);
    pass(10000);
    assert_int_equal(W.own->aborts, 1);
    assert_int_equal(W.own->abort_err, ERR_TIMEOUT);
    pass(10000);
    assert_true(W.own->released);
    world_stop();
    srv_start(STREAM_ECHO); /* the request ends while the echo is stuck */
    r = raw_open();
    stream_reading(&r->s, false);
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65600\r\n\r\n");
    stream_write_slice(&r->s, slice_of(filler, 65600));
    pass(70000);
    assert_true(W.own->released);
    world_stop();
}

/* Slow is not stuck: some bytes within each body timeout are enough. */
static void test_slow_reader(void **state)
{
    static const char *const ends_of[] = {"Connection: close\r\n", ""};
    for (int k = 0; k < 4; k++) { /* k & 2: FIN at once */
        srv_start(SIZED);
        struct raw *r = raw_open();
        stream_reading(&r->s, false);
        raw_send(r, "GET /400000 HTTP/1.1\r\nHost: x\r\n");
        raw_send(r, ends_of[k & 1]);
        raw_send(r, "\r\n");
        if (k & 2)
            stream_shut(&r->s);
        for (int i = 0; i < 12 && r->got.n < 400000; i++) {
            pass(50000);
            stream_reading(&r->s, true);
            size_t before = r->got.n;
            for (int ms = 0; ms < 1000 && r->got.n == before; ms++)
                pass(1);
            assert_true(r->got.n > before);
            stream_reading(&r->s, false);
        }
        stream_reading(&r->s, true);
        pass(5000);
        assert_true(r->got.n > 400000);
        assert_int_equal(count_of(r, "Content-Length: 400000"), 1);
        if (k != 1)
            assert_true(r->eof || k == 0);
        world_stop();
    }
}

/* The end of a client's sending does not take its answers away. */
static void test_half_close(void **state)
{
    for (int manner = 0; manner < 2; manner++) {
        srv_start(manner ? SIZED : ECHO);
        struct raw *r = raw_open();
        raw_send(r, "GET /10 HTTP/1.1\r\nHost: x\r\n\r\nGET /10 HTTP/1.1\r\nHost: x\r\n\r\nGET /10 HTTP/1.1\r\nHost: x\r\n\r\n");
        stream_shut(&r->s);
        pass(100);
        assert_int_equal(count_of(r, "HTTP/1.1 200 OK"), 3);
        assert_true(r->eof);
        world_stop();
    }
    srv_start(BY_HAND); /* answers later, with two more waiting */
    struct raw *r = raw_open();
    raw_send(r, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT");
    stream_shut(&r->s);
    for (uint32_t i = 1; i <= 3; i++) {
        pass(50);
        assert_int_equal(W.own->requests, i);
        answer(W.own, "abc", 3, H1_LENGTH);
    }
    pass(50);
    assert_int_equal(count_of(r, "HTTP/1.1 200 OK"), 3);
    assert_true(r->eof && W.own->released);
    world_stop();
    srv_start(ECHO); /* inside a body: it can't become whole */
    r = raw_open();
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    stream_shut(&r->s);
    pass(50);
    assert_int_equal(W.own->abort_err, ERR_CLOSED);
    assert_true(W.own->released && r->got.n == 0);
    world_stop();
}

static void test_early_answer(void **state)
{
    srv_start(EARLY);
    struct raw *r = raw_open();
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n");
    stream_write_slice(&r->s, slice_of(filler, 200000));
    pass(500);
    assert_true(ends(r, "early") && r->eof && !r->failed);
    assert_int_equal(count_of(r, "Connection: close\r\n"), 1); /* the rest of the body will not be read */
    pass(3000);
    assert_true(W.own->released);
    world_stop();
    srv_start(EARLY); /* more than is thrown away */
    r = raw_open();
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n");
    for (int i = 0; i < 3; i++)
        stream_write_slice(&r->s, slice_of(filler, BIG));
    pass(1500);
    assert_true(W.own->released);
    world_stop();
    srv_start(EARLY); /* the whole request is there: nothing to announce, the next one is served */
    r = raw_open();
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    pass(100);
    assert_int_equal(count_of(r, "HTTP/1.1 200 OK"), 2);
    assert_int_equal(count_of(r, "Connection: close\r\n"), 0);
    world_stop();
}

/* ---- the server's end: framing of answers -------------------------------------------------------------------------------------------- */

static void test_framing(void **state)
{
    static const struct { const char *request; enum h1_framing framing; uint16_t status; const char *answer; bool close; } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H1_LENGTH, 200, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H1_CHUNKED, 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H1_UNTIL_CLOSE, 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", H1_LENGTH, 200, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", H1_LENGTH, 200, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", H1_CHUNKED, 200, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", true},
        {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", H1_LENGTH, 200, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false},
        {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", H1_NO_BODY, 200, "HTTP/1.1 200 OK\r\n\r\n", false},
        {"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", H1_NO_BODY, 200, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H1_NO_BODY, 204, "HTTP/1.1 204 No Content\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H1_NO_BODY, 304, "HTTP/1.1 304 Not Modified\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", H1_NO_BODY, 204, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", true},
    };
    srv_start(BY_HAND);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct raw *r = raw_open();
        struct iovec v;
        raw_send(r, cases[i].request);
        pass(5);
        head_clear(&W.out);
        head_status(&W.out, 199, SLICE("Interim"));
        h1_srv_interim(&W.own->srv, &W.out);
        head_clear(&W.out);
        head_status(&W.out, cases[i].status, SLICE(""));
        h1_srv_answer(&W.own->srv, &W.out, cases[i].framing, 3, one(&v, "abc", 3), true);
        pass(5);
        bool modern = strstr(cases[i].request, "HTTP/1.1") != NULL; /* an interim answer is not for HTTP/1.0 */
        assert_int_equal(count_of(r, "HTTP/1.1 199 Interim\r\n\r\n"), modern);
        size_t skip = modern ? strlen("HTTP/1.1 199 Interim\r\n\r\n") : 0;
        assert_string_equal(r->got.p + skip, cases[i].answer);
        assert_int_equal(r->eof, cases[i].close);
        assert_false(r->failed);
    }
    world_stop();
}

/* An answer that is cut off is seen to be cut off, in every framing. */
static void test_cut(void **state)
{
    static const char *const requests[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        srv_start(BY_HAND);
        struct raw *r = raw_open();
        struct iovec v;
        raw_send(r, requests[i]);
        pass(5);
        head_clear(&W.out);
        head_status(&W.out, 200, SLICE(""));
        h1_srv_answer(&W.own->srv, &W.out, H1_CHUNKED, 0, one(&v, "abc", 3), false);
        pass(5);
        h1_srv_close(&W.own->srv);
        pass(5);
        assert_int_equal(r->eof, i == 0);
        assert_int_equal(r->failed, i == 1); /* only a reset tells HTTP/1.0 */
        assert_int_equal(count_of(r, "0\r\n\r\n"), 0);
        world_stop();
    }
}

/* So is one that ends by the end of the connection, when its client is let go because it does not read. */
static void test_cut_unread(void **state)
{
    for (int whole = 0; whole < 2; whole++) { /* whole: the owner has said all of it, and some waits still */
        srv_start(BY_HAND);
        struct raw *r = raw_open();
        struct iovec v;
        stream_reading(&r->s, false);
        raw_send(r, "GET / HTTP/1.0\r\n\r\n");
        pass(5);
        head_clear(&W.out);
        head_status(&W.out, 200, SLICE(""));
        assert_true(h1_srv_answer(&W.own->srv, &W.out, H1_CHUNKED, 0, one(&v, filler, BIG), whole) > 0);
        pass(62000);
        assert_true(W.own->released && W.own->aborts == !whole);
        stream_reading(&r->s, true);
        pass(100);
        assert_true(r->got.n < BIG && r->failed && !r->eof);
        world_stop();
    }
    srv_start(BY_HAND); /* one that reads in time sees an ordinary end */
    struct raw *r = raw_open();
    struct iovec v;
    raw_send(r, "GET / HTTP/1.0\r\n\r\n");
    pass(5);
    head_clear(&W.out);
    head_status(&W.out, 200, SLICE(""));
    h1_srv_answer(&W.own->srv, &W.out, H1_CHUNKED, 0, one(&v, filler, BIG), true);
    pass(5000);
    assert_true(r->got.n > BIG && r->eof && !r->failed);
    world_stop();
}

/* A head of exactly what a builder may put gets its framing and leaves; one byte more is over. */
static void test_head_out_edge(void **state)
{
    srv_start(BY_HAND);
    struct raw *r = raw_open();
    raw_send(r, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    pass(5);
    head_clear(&W.out);
    head_status(&W.out, 200, SLICE(""));
    head_lit(&W.out, "X: ");
    while (W.out.n < HEAD_OUT_BYTES - HEAD_OUT_TAIL - 2)
        head_lit(&W.out, "y");
    head_lit(&W.out, "\r\n");
    assert_false(W.out.over);
    struct iovec v;
    h1_srv_answer(&W.own->srv, &W.out, H1_LENGTH, UINT64_MAX, one(&v, "abc", 3), false);
    pass(50);
    assert_true(ends(r, "y\r\nContent-Length: 18446744073709551615\r\nConnection: close\r\n\r\nabc"));
    head_clear(&W.out);
    for (int i = 0; i < HEAD_OUT_BYTES - HEAD_OUT_TAIL; i++)
        head_lit(&W.out, "y");
    assert_false(W.out.over);
    head_lit(&W.out, "y");
    assert_true(W.out.over);
    world_stop();
}

/* ---- the server's end: limits --------------------------------------------------------------------------------------------------------- */

static void test_head_limits(void **state)
{
    for (int over = 0; over < 2; over++)
        for (int dribble = 0; dribble < 2; dribble++) {
            srv_start(ECHO);
            struct raw *r = raw_open();
            struct buf b = {0};
            buf_adds(&b, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ");
            while (b.n < h1_limits_default.head_bytes_max - 4 + (size_t)over)
                buf_addc(&b, 'y');
            buf_adds(&b, "\r\n\r\n");
            for (size_t i = 0; i < b.n; i += dribble ? 1000 : b.n) {
                stream_write_slice(&r->s, slice_of(b.p + i, MIN(b.n - i, dribble ? 1000 : b.n)));
                pass(dribble);
            }
            pass(50);
            assert_true(starts(r, over ? "HTTP/1.1 431 " : "HTTP/1.1 200 "));
            assert_int_equal(W.own->refusals, over);
            assert_int_equal(W.own->requests, !over);
            buf_free(&b);
            world_stop();
        }
}

static void test_times(void **state)
{
    srv_start(ECHO);
    struct raw *r = raw_open(); /* never a byte */
    uint64_t t0 = sim_now_ms();
    sim_run(raw_over, r, 100000);
    assert_true(starts(r, "HTTP/1.1 408 ") && sim_now_ms() - t0 >= 9990 && sim_now_ms() - t0 < 11000);
    r = raw_open(); /* at rest after an answer: closed without a word */
    raw_send(r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    t0 = sim_now_ms();
    sim_run(raw_over, r, 100000);
    assert_int_equal(count_of(r, "HTTP/1.1"), 1);
    assert_true(sim_now_ms() - t0 >= 59990);
    r = raw_open(); /* a head byte by byte: the time runs from its first byte */
    t0 = sim_now_ms();
    for (int i = 0; i < 20; i++) {
        raw_send(r, i == 0 ? "GET / HTTP/1.1\r\nHost: x\r\nX: " : "y");
        pass(1000);
    }
    assert_true(starts(r, "HTTP/1.1 408 "));
    r = raw_open(); /* a body byte by byte is slow, and allowed */
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n");
    for (int i = 0; i < 4; i++) {
        pass(50000);
        raw_send(r, "z");
    }
    pass(50);
    assert_true(starts(r, "HTTP/1.1 200 ") && ends(r, "zzzz"));
    r = raw_open(); /* a body that stops */
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab");
    pass(61000);
    assert_true(starts(r, "HTTP/1.1 408 "));
    assert_int_equal(W.own->aborts, 1);
    r = raw_open(); /* a body that breaks, later than its head */
    raw_send(r, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab");
    pass(10);
    raw_send(r, "cdXX5\r\n");
    pass(3000);
    assert_true(starts(r, "HTTP/1.1 400 ") && W.own->released);
    assert_int_equal(W.own->abort_err, ERR_SYNTAX);
    world_stop();
}

static void test_last(void **state)
{
    srv_start(SIZED);
    struct raw *r = raw_open();
    stream_reading(&r->s, false);
    raw_send(r, "GET /300000 HTTP/1.1\r\nHost: x\r\n\r\n");
    pass(100);
    assert_false(h1_srv_idle(&W.own->srv)); /* answered, but not yet in the kernel */
    h1_srv_last(&W.own->srv);
    pass(100);
    stream_reading(&r->s, true);
    pass(1000);
    assert_true(r->got.n > 300000 && r->eof);
    world_stop();
    srv_start(SIZED);
    r = raw_open();
    raw_send(r, "GET /3 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP");
    pass(100);
    assert_false(h1_srv_idle(&W.own->srv)); /* a next head has begun */
    h1_srv_last(&W.own->srv);
    raw_send(r, "/1.1\r\nHost: x\r\n\r\n");
    pass(100);
    assert_int_equal(count_of(r, "HTTP/1.1 200"), 2);
    assert_true(ends(r, "Connection: close\r\n\r\nxxx") && r->eof);
    world_stop();
}

/* An upgrade and a CONNECT: bytes both ways, those sent ahead among them. What the head says is the method's own. */
static void test_tunnel(void **state)
{
    static const struct { const char *request, *head; } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n"},
        {"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
    };
    srv_start(TUNNEL);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf want = {0};
        struct raw *r = raw_open();
        raw_send(r, cases[i].request);
        raw_send(r, "ahead");
        pass(20);
        raw_send(r, ", behind");
        stream_shut(&r->s);
        pass(20);
        buf_adds(&want, cases[i].head);
        buf_adds(&want, "ahead, behind");
        assert_true(slice_eq(buf_slice(&r->got), buf_slice(&want)));
        assert_true(r->eof && W.own->ends == 1 && !W.own->aborts);
        buf_free(&want);
    }
    world_stop();
}

static void tunnel_by_hand(void)
{
    head_clear(&W.out);
    head_status(&W.out, 101, SLICE(""));
    h1_srv_answer(&W.own->srv, &W.out, H1_TUNNEL, 0, (struct pieces){0}, false);
}

static struct raw *tunnel_unread(void)
{
    struct iovec v;
    srv_start(BY_HAND);
    struct raw *r = raw_open();
    raw_send(r, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n");
    pass(20);
    tunnel_by_hand();
    pass(20);
    stream_reading(&r->s, false);
    assert_true(h1_srv_send(&W.own->srv, one(&v, filler, BIG)) > 0);
    return r;
}

/* A tunnel may be silent, but who is sent something has to read it, some bytes within each body timeout. */
static void test_tunnel_unread(void **state)
{
    struct raw *r = tunnel_unread();
    pass(59000);
    assert_false(W.own->released);
    pass(3000);
    assert_true(W.own->released && W.own->aborts == 1 && W.own->abort_err == ERR_TIMEOUT);
    world_stop();
    r = tunnel_unread(); /* slowly */
    for (int i = 0; i < 4; i++) {
        pass(50000);
        size_t before = r->got.n;
        stream_reading(&r->s, true);
        for (int ms = 0; ms < 1000 && r->got.n == before; ms++)
            pass(1);
        stream_reading(&r->s, false);
        assert_true(r->got.n > before);
    }
    assert_true(W.own->srv.s.out_bytes > 0 && W.own->aborts == 0);
    world_stop();
    r = tunnel_unread(); /* what it sent could not be passed on either, for a while; then both go on, and it rests */
    h1_srv_reading(&W.own->srv, false);
    pass(1000);
    h1_srv_reading(&W.own->srv, true);
    stream_reading(&r->s, true);
    pass(5000);
    assert_true(r->got.n > BIG && W.own->srv.s.out_bytes == 0);
    pass(1000000);
    assert_true(W.own->aborts == 0 && !W.own->released);
    world_stop();
}

/* What a client has sent ahead of its end is not lost, though the tunnel is agreed to after both have come. */
static void test_tunnel_ahead(void **state)
{
    srv_start(BY_HAND);
    struct raw *r = raw_open();
    raw_send(r, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\nahead");
    stream_shut(&r->s);
    pass(20);
    assert_true(W.own->requests == 1 && W.own->ends == 1);
    tunnel_by_hand();
    pass(20);
    assert_true(slice_is(buf_slice(&W.own->body), "ahead") && W.own->ends == 2 && W.own->aborts == 0);
    h1_srv_end(&W.own->srv, SLICE(""));
    pass(20);
    assert_true(r->eof && W.own->released);
    world_stop();
}

/* The owner held the body back, but all of it was in one read: that the client leaves afterwards is seen. */
static void test_left_paused(void **state)
{
    srv_start(PAUSE);
    W.conf.eof_leaves = true;
    struct raw *r = raw_open();
    struct buf b = {0};
    buf_adds(&b, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 2 * PIECES_MAX; i++)
        buf_adds(&b, "1\r\na\r\n");
    buf_adds(&b, "0\r\n\r\n");
    raw_send(r, b.p);
    pass(20);
    assert_true(W.own->body.n == 2 * PIECES_MAX && W.own->ends == 1);
    stream_shut(&r->s);
    pass(20);
    assert_true(W.own->aborts == 1 && W.own->abort_err == ERR_CLOSED);
    buf_free(&b);
    world_stop();
}

/* ---- the client's end ------------------------------------------------------------------------------------------------------------------ */

static void test_cli_answers(void **state)
{
    enum end { REUSE, NO_REUSE, FAIL_CLOSED, FAIL_SYNTAX, FAIL_ANY, OPEN };
    static const struct { const char *answer; enum h1_method method; bool fin; enum end end; const char *body; } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", H1_GET, false, REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", H1_GET, true, NO_REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", H1_GET, false, NO_REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", H1_GET, false, NO_REUSE, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", H1_GET, false, NO_REUSE, "abc"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", H1_GET, false, NO_REUSE, "abc"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", H1_GET, false, REUSE, "abc"},
        {"HTTP/1.0 200 OK\r\n\r\nabc", H1_GET, true, NO_REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n", H1_GET, false, REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n0\r\n\r\n", H1_GET, false, NO_REUSE, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", H1_GET, true, FAIL_CLOSED, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", H1_GET, false, FAIL_SYNTAX, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", H1_GET, false, FAIL_SYNTAX, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", H1_GET, false, FAIL_SYNTAX, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", H1_GET, false, FAIL_SYNTAX, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", H1_GET, true, FAIL_CLOSED, "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", H1_GET, false, OPEN, "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Le", H1_GET, true, FAIL_CLOSED, ""},
        {"", H1_GET, true, FAIL_CLOSED, ""},
        {"SSH-2.0-OpenSSH_9\r\n", H1_GET, false, FAIL_SYNTAX, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", H1_HEAD, false, REUSE, ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1_HEAD, false, REUSE, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", H1_HEAD, false, NO_REUSE, ""},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", H1_GET, false, REUSE, ""},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", H1_GET, false, REUSE, ""},
        {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", H1_GET, false, NO_REUSE, ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", H1_GET, false, REUSE, "a"},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", H1_GET, false, FAIL_SYNTAX, ""},
        {"HTTP/1.1 100 Continue\r\n\r\n", H1_GET, true, FAIL_CLOSED, ""},
        {"HTTP/1.1 100 Continue\r\n\r\n", H1_GET, false, OPEN, ""},
    };
    struct sim_conf faults = {.latency_us_min = 20, .latency_us_max = 300, .split_pct = 80};
    for (int round = 0; round < 2; round++) {
        world_start(3, round ? &faults : NULL, true);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            struct use *u = use_open();
            use_get(u, cases[i].method);
            pass(20);
            raw_send(W.raw, cases[i].answer);
            if (cases[i].fin)
                stream_shut(&W.raw->s);
            pass(20);
            bool good = cases[i].end == REUSE || cases[i].end == NO_REUSE;
            assert_int_equal(u->ends, good);
            assert_int_equal(u->failures, !good && cases[i].end != OPEN);
            if (cases[i].end == FAIL_CLOSED)
                assert_int_equal(u->fail_err, ERR_CLOSED);
            if (cases[i].end == FAIL_SYNTAX)
                assert_int_equal(u->fail_err, ERR_SYNTAX);
            assert_int_equal(h1_cli_reusable(&u->cli), cases[i].end == REUSE);
            if (cases[i].body)
                assert_string_equal(u->body.p ? u->body.p : "", cases[i].body);
            if (cases[i].end == REUSE) { /* carry another, then hear it speak out of turn */
                use_get(u, H1_GET);
                pass(20);
                raw_send(W.raw, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                pass(20);
                assert_int_equal(u->ends, 2);
                assert_true(h1_cli_reusable(&u->cli));
                raw_send(W.raw, "HTTP/1.1 408 Request Timeout\r\n\r\n");
                pass(20);
                assert_int_equal(u->idle_ends, 1);
            }
        }
        world_stop();
    }
}

/* What agrees to a tunnel: 101 to an upgrade, 2xx to CONNECT. Whatever the other one takes is an ordinary answer, or none. */
static void test_cli_tunnel(void **state)
{
    static const struct { const char *answer; enum h1_method method; uint32_t failures; enum h1_framing framing; const char *body; } cases[] = {
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: y\r\n\r\nbytes", H1_GET, 0, H1_TUNNEL, "bytes"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", H1_GET, 0, H1_LENGTH, "no"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nbytes", H1_CONNECT, 0, H1_TUNNEL, "bytes"}, /* RFC 9110 section 9.3.6: the length is ignored */
        {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", H1_CONNECT, 0, H1_LENGTH, "no"},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: y\r\n\r\nbytes", H1_CONNECT, 1, H1_NO_BODY, ""},
    };
    world_start(1, NULL, true);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct use *u = use_open();
        h1_cli_request(&u->cli, cases[i].method, SLICE("HEAD\r\n\r\n"), H1_TUNNEL, (struct pieces){0}, false);
        pass(20);
        raw_send(W.raw, cases[i].answer);
        pass(20);
        assert_int_equal(u->failures, cases[i].failures);
        assert_string_equal(u->body.p ? u->body.p : "", cases[i].body);
        if (cases[i].failures)
            continue;
        assert_int_equal(u->cli.body.framing, cases[i].framing);
        assert_int_equal(u->ends, cases[i].framing != H1_TUNNEL);
        if (cases[i].framing == H1_TUNNEL) {
            struct iovec v;
            h1_cli_send(&u->cli, one(&v, "up", 2));
            pass(20);
            assert_true(ends(W.raw, "\r\n\r\nup"));
        }
    }
    world_stop();
}

static void call_told(struct http_call *k, const struct h1_head *h, struct pieces body, bool end) {}
static void call_body(struct http_call *k, struct pieces body, bool end) {}
static void call_drained(struct http_call *k) {}
static void call_failed(struct http_call *k, enum err e) {}
static void call_connected(struct http_cli *c) {}
static void call_ended(struct http_cli *c, enum err e) {}
static bool call_released;
static void call_gone(struct http_cli *c) { call_released = true; }

/* A tunnel that is declined: the rest of the request, which would be the tunnel's bytes, is not to be sent. */
static void test_call_declined(void **state)
{
    static const struct http_cli_ops ops = {
        .connected = call_connected, .response = call_told, .body = call_body, .drained = call_drained, .failed = call_failed, .ended = call_ended, .released = call_gone};
    world_start(1, NULL, true);
    struct http_cli_conf conf;
    struct http_cli c = {0};
    struct http_call k;
    struct addr a = addr_ip4(0x7f000001, PORT);
    http_cli_conf_default(&conf);
    conf.limits = &h1_limits_default;
    conf.out = &W.out;
    http_cli_connect(&c, W.near, &conf, &ops, -1, &a, HTTP_1, NULL);
    http_cli_request(&c, &k, H1_GET, SLICE("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n"), H1_TUNNEL, (struct pieces){0}, false);
    pass(20);
    assert_false(k.sent);
    raw_send(W.raw, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    pass(20);
    assert_true(k.answer_begun && k.sent);
    call_released = false;
    http_cli_close(&c);
    pass(5);
    assert_true(call_released);
    world_stop();
}

/* TLS that ends without close_notify: what was to end with it is not known to be whole (RFC 9112 section 9.8). */
static void test_cli_truncated(void **state)
{
    for (int truncated = 0; truncated < 2; truncated++) {
        world_start(1, NULL, true);
        struct use *u = use_open();
        use_get(u, H1_GET);
        pass(20);
        raw_send(W.raw, "HTTP/1.1 200 OK\r\n\r\nabc");
        pass(20);
        u->cli.s.truncated = truncated; /* as rt sets it, before eof() */
        stream_shut(&W.raw->s);
        pass(20);
        assert_int_equal(u->ends, !truncated);
        assert_int_equal(u->failures, truncated);
        assert_true(!truncated || u->fail_err == ERR_CLOSED);
        world_stop();
    }
}

/* ---- checks ----------------------------------------------------------------------------------------------------------------------- */

static struct tls_session_slot check_slot;
static uint32_t checks_done;

/* As a checker that goes away with a plan in the turn in which it got its verdict. */
static void check_done(void *owner, bool ok, const char *text)
{
    assert_true(ok);
    assert_non_null(check_slot.session); /* the server's tickets came before */
    tls_session_slot_fini(&check_slot);
    checks_done++;
}

/* A ticket that comes behind the verdict, and before the connection is closed at the end of that turn: the slot may be gone. */
static void test_check_slot(void **state)
{
    struct sim_conf sc = {.latency_us_min = 100, .latency_us_max = 100, .socket_bytes = BIG};
    world_start(1, &sc, true);
    struct testcert *cert = testcert_new(NULL, &(struct testcert_conf){.name = "a.example", .sans = "DNS:a.example"});
    struct tls_cert_conf cc = {slice_cstr(cert->chain_pem), slice_cstr(cert->key_pem), {0}};
    struct tls_tickets *keys = tls_tickets_new(0);
    struct tls_ctx *client;
    struct buf why = {0};
    assert_int_equal(tls_server_new(&(struct tls_server_conf){.certs = &cc, .certs_n = 1, .tickets = keys}, &W.raw_tls, &why), OK);
    assert_int_equal(tls_client_new(&(struct tls_client_conf){.trust = TLS_TRUST_ALL}, &client, &why), OK);
    struct http_tls tls = {client, {SLICE("a.example"), SLICE("a.example")}, &check_slot};
    struct addr a = addr_ip4(0x7f000001, PORT);
    struct http_check_conf conf = {.kind = HTTP_CHECK_GET, .authority = SLICE("a.example"), .agent = SLICE("test"), .status_min = 200, .status_max = 299, .version = HTTP_1, .tls = &tls};
    checks_done = 0;
    (void)http_check_start(W.near, -1, &a, &conf, check_done, NULL);
    pass(20);
    raw_send(W.raw, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
    stream_write_slice(&W.raw->s, slice_of(filler, 150000));
    testcert_ticket(&W.raw->s);
    stream_write_slice(&W.raw->s, slice_of(filler, 50000));
    pass(20);
    assert_int_equal(checks_done, 1);
    assert_null(check_slot.session);
    tls_ctx_unref(W.raw_tls);
    tls_ctx_unref(client);
    tls_tickets_unref(keys);
    testcert_free(cert);
    world_stop();
}

/* An answer that comes before the request was sent whole is taken, and the connection is not used again. */
static void test_cli_early(void **state)
{
    world_start(1, NULL, true);
    struct use *u = use_open();
    struct iovec v;
    h1_cli_request(&u->cli, H1_POST, SLICE("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"), H1_LENGTH, one(&v, "abc", 3), false);
    pass(20);
    raw_send(W.raw, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    pass(20);
    assert_int_equal(u->ends, 1);
    assert_int_equal(u->status, 413);
    assert_false(h1_cli_reusable(&u->cli));
    u = use_open(); /* before a byte of the request: it is queued while the connection is made */
    use_get(u, H1_GET);
    pass(20);
    assert_int_equal(count_of(W.raw, "GET / HTTP/1.1"), 1);
    stream_reset(&W.raw->s);
    pass(20);
    assert_int_equal(u->failures, 1);
    assert_false(u->answer_begun);
    world_stop();
}

static void test_cli_floods(void **state)
{
    world_start(1, NULL, true);
    struct use *u = use_open(); /* interim answers without end */
    use_get(u, H1_GET);
    pass(20);
    for (int i = 0; i < 4000; i++)
        raw_send(W.raw, "HTTP/1.1 100 Continue\r\n\r\n");
    pass(100);
    assert_int_equal(u->fail_err, ERR_SYNTAX);
    assert_true(u->failures == 1 && u->interims > 1000 && u->interims * 25 <= 65536);
    u = use_open(); /* a head without end */
    use_get(u, H1_GET);
    pass(20);
    raw_send(W.raw, "HTTP/1.1 200 OK\r\nX: ");
    for (int i = 0; i < 3; i++)
        stream_write_slice(&W.raw->s, slice_of(filler, 65536));
    pass(100);
    assert_int_equal(u->fail_err, ERR_SYNTAX);
    assert_int_equal(u->cli.in_n, 0);
    u = use_open(); /* trailers without end */
    use_get(u, H1_GET);
    pass(20);
    raw_send(W.raw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    for (int i = 0; i < 2000; i++)
        raw_send(W.raw, "X-Trailer: y\r\n");
    pass(100);
    assert_int_equal(u->fail_err, ERR_SYNTAX);
    u = use_open(); /* a chunk extension without end */
    use_get(u, H1_GET);
    pass(20);
    raw_send(W.raw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    for (int i = 0; i < 2000; i++)
        raw_send(W.raw, "ext=ension;");
    pass(100);
    assert_int_equal(u->fail_err, ERR_SYNTAX);
    world_stop();
}

/* ---- both ends ----------------------------------------------------------------------------------------------------------------------------- */

struct upload {
    size_t sent, total, piece;
};

/* Sends a body of total bytes in pieces, chunked or with its length, and reads the echo. */
static void exchange_once(struct use *u, size_t total, size_t piece, bool chunked, bool trailers)
{
    struct buf head = {0};
    buf_adds(&head, "POST / HTTP/1.1\r\nHost: x\r\n");
    if (chunked)
        buf_adds(&head, "Transfer-Encoding: chunked\r\n\r\n");
    else
        buf_printf(&head, "Content-Length: %zu\r\n\r\n", total);
    uint32_t ends_before = u->ends;
    buf_clear(&u->body);
    struct iovec v;
    size_t sent = MIN(piece, total);
    bool whole = sent == total && !trailers;
    h1_cli_request(&u->cli, H1_POST, buf_slice(&head), chunked ? H1_CHUNKED : H1_LENGTH, one(&v, filler, sent), whole);
    buf_free(&head);
    while (sent < total) {
        pass(1);
        size_t n = MIN(piece, total - sent);
        if (u->cli.s.out_bytes < 65536) {
            h1_cli_send(&u->cli, one(&v, filler + sent, n));
            sent += n;
        }
    }
    if (!whole)
        h1_cli_end(&u->cli, trailers && chunked ? SLICE("X-Sum: 7\r\n") : SLICE(""));
    for (int i = 0; i < 2000 && u->ends == ends_before && !u->failures; i++)
        pass(1);
    assert_int_equal(u->failures, 0);
    assert_int_equal(u->ends, ends_before + 1);
    assert_int_equal(u->body.n, total);
    assert_true(total == 0 || memcmp(u->body.p, filler, total) == 0);
    assert_true(h1_cli_reusable(&u->cli));
}

static void test_both(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 65535, 65536, 65537, 131072, 300001};
    static const enum manner manners[] = {ECHO, STREAM_ECHO};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct sim_conf faults = {.latency_us_min = 10, .latency_us_max = 500, .split_pct = (uint32_t)(seed % 3) * 30, .short_write_pct = (uint32_t)(seed % 2) * 50, .socket_bytes = seed == 5 ? 4096 : 0};
        W.manner = manners[seed % 2];
        world_start(seed, &faults, false);
        for (size_t i = 0; i < sizeof filler; i++)
            filler[i] = (char)('a' + i * 7 % 26);
        struct use *u = use_open();
        for (size_t i = 0; i < COUNT_OF(sizes); i++)
            for (int kind = 0; kind < 3; kind++)
                exchange_once(u, sizes[i], kind == 1 ? 4000 : 65536, kind > 0, kind == 2);
        assert_true(u->cli.exchanges == COUNT_OF(sizes) * 3);
        world_stop();
    }
}

/* A test's name as argument: only that one. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),     cmocka_unit_test(test_pipeline_unread), cmocka_unit_test(test_never_reads),   cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_half_close),   cmocka_unit_test(test_early_answer),    cmocka_unit_test(test_framing),       cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_unread),   cmocka_unit_test(test_tunnel_unread),   cmocka_unit_test(test_tunnel_ahead),  cmocka_unit_test(test_left_paused),
        cmocka_unit_test(test_head_out_edge), cmocka_unit_test(test_head_limits),    cmocka_unit_test(test_times),         cmocka_unit_test(test_last),
        cmocka_unit_test(test_tunnel),       cmocka_unit_test(test_cli_tunnel),
        cmocka_unit_test(test_cli_answers),  cmocka_unit_test(test_call_declined), cmocka_unit_test(test_cli_truncated), cmocka_unit_test(test_check_slot), cmocka_unit_test(test_cli_early),       cmocka_unit_test(test_cli_floods),    cmocka_unit_test(test_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
