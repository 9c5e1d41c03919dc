/* h2_conn_fuzz.c - any frames, cut in any way, to either end of an HTTP/2 connection, on the simulator. The input:
 *
 *     byte 0   's' a server's end, 'c' a client's end with calls outstanding; anything else: by its lowest bit
 *     byte 1   how the owner behaves (bits below); turned by one bit from one request to the next
 *     byte 2   seed of the simulated network
 *     then     blocks by their first byte: 0 a pause, 1 a long pause, 255 the end of the peer's sending;
 *              254 a frame: type, flags, stream, n, n bytes of payload;
 *              253 a head: flags, stream, which of heads[], n, n bytes of HPACK behind it; else that many raw bytes
 *
 * What must hold, whatever comes: callbacks come in their order (request, body*, end | aborted; response, body*, end | failed), and none after
 * the last; pieces add up; a body with a length is delivered with that length; a head that is handed on can be written as HTTP/1 and is read
 * back as what it was, field by field; what is kept is bounded; after the end everything is released, no timer is left, no byte is held.
 */
#include "h2.h"
#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LATE = 1, EARLY = 2, CHUNKED = 4, SLOW_PEER = 8, SPLIT = 16, PAUSING = 32, CUTTING = 64, BIG_ANSWER = 128 };
#define STREAMS_MAX 8
#define WINDOW_BYTES 20000u
#define CONN_WINDOW_BYTES 40000u
#define KEPT_MAX (6u << 20) /* what the limits of h2.c add up to, for one connection, and the free lists of its thread */
#define BIG 100000u
#define EXCHANGES_MAX 512
#define CALLS 3

struct exchange { /* of either end */
    struct http_req *r;
    struct http_call k;
    uint64_t left;    /* of a body with a length */
    uint64_t to_send;
    uint8_t manner;
    bool counted, whole, answered, over, tunnel;
};

static struct {
    struct loop *near, *far;
    struct head_out out;
    struct http_srv_conf sconf;
    struct http_cli_conf cconf;
    struct listener ln;
    struct http_srv srv;
    struct http_cli cli;
    struct stream peer;
    struct timer later;
    struct exchange xs[EXCHANGES_MAX];
    int xs_n;
    uint8_t manner;
    bool server, accepted, released, gone /* our end was closed by its owner */, peer_open, peer_released, closed;
} W;

static char filler[BIG];
static volatile uint64_t touched;

/* ---- invariants ---------------------------------------------------------------------------------------------------------- */

static void check_body(struct exchange *x, struct pieces body, bool end)
{
    size_t sum = 0;
    MUST(!x->over && !x->whole && !W.gone);
    MUST(body.n >= 0 && body.n <= PIECES_MAX);
    for (int i = 0; i < body.n; i++) {
        MUST(body.v[i].iov_len > 0);
        sum += body.v[i].iov_len;
        touched = hash_bytes(body.v[i].iov_base, body.v[i].iov_len); /* AddressSanitizer sees a piece that is not ours */
    }
    MUST(sum == body.bytes);
    if (x->counted) {
        MUST(sum <= x->left);
        x->left -= sum;
        MUST(!end || x->left == 0);
    }
    x->whole = end;
}

/* What was handed on, written as HTTP/1, must be the same message to its parser: or two readers would see two things. */
static void check_head(const struct h1_head *h, bool request)
{
    struct buf b = {0};
    struct h1_head back;
    size_t used;
    enum h1_error error;
    static const struct h1_limits wide = {.head_bytes_max = 1u << 20, .target_bytes_max = 1u << 20, .fields_max = H1_FIELDS_MAX};
    if (request)
        buf_printf(&b, SLICE_FMT " " SLICE_FMT " HTTP/1.1\r\n", SLICE_ARG(h->method), SLICE_ARG(h->target));
    else
        buf_printf(&b, "HTTP/1.1 %u \r\n", h->status);
    for (int i = 0; i < h->n; i++)
        buf_printf(&b, SLICE_FMT ": " SLICE_FMT "\r\n", SLICE_ARG(h->fields[i].name), SLICE_ARG(h->fields[i].value));
    buf_adds(&b, "\r\n");
    enum h1_result r = request ? h1_parse_request(b.p, b.n, &wide, &back, &used, &error) : h1_parse_response(b.p, b.n, &wide, H1_GET, &back, &used, &error);
    MUST(r == H1_DONE && used == b.n && back.n == h->n);
    for (int i = 0; i < h->n; i++)
        MUST(slice_eq(back.fields[i].name, h->fields[i].name) && slice_eq(back.fields[i].value, h->fields[i].value) && back.fields[i].id == h->fields[i].id);
    MUST(h->framing != H1_LENGTH || (back.framing == H1_LENGTH && back.length == h->length));
    if (request)
        MUST(slice_eq(back.path, h->path) && slice_eq(back.query, h->query) && slice_eq(back.host, h->host) && back.port == h->port && back.method_id == h->method_id);
    buf_free(&b);
}

static void check_trailers(const struct h1_field *f, int n)
{
    for (int i = 0; i < n; i++)
        MUST(h1_is_token(f[i].name) && !memchr(f[i].value.p, '\n', f[i].value.n) && !memchr(f[i].value.p, '\r', f[i].value.n));
}

static void check_kept(void) { MUST(mem_bytes(MEM_CONN) <= KEPT_MAX); }

static struct exchange *exchange_new(void)
{
    MUST(W.xs_n < EXCHANGES_MAX);
    struct exchange *x = &W.xs[W.xs_n++];
    unsigned turn = (unsigned)W.xs_n % 8;
    x->manner = (uint8_t)(W.manner << turn | W.manner >> (8 - turn));
    return x;
}

/* ---- the owner of the server's end ------------------------------------------------------------------------------------------ */

static void send_more(struct exchange *x)
{
    while (!x->over && x->to_send) {
        size_t n = MIN(x->to_send, 30000u);
        struct iovec v = {filler, n};
        x->to_send -= n;
        if (http_req_send(x->r, (struct pieces){&v, 1, n}))
            return;
    }
    if (x->over)
        return;
    x->over = true;
    http_req_end(x->r, x->manner & CHUNKED ? SLICE("X: y\r\n") : SLICE(""));
}

static void answer(struct exchange *x)
{
    struct iovec v = {filler, x->manner & BIG_ANSWER ? BIG : 3};
    if (x->answered || x->over)
        return;
    x->answered = true;
    head_clear(&W.out);
    if (x->tunnel) {
        head_lit(&W.out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n");
        http_req_answer(x->r, &W.out, H1_TUNNEL, 0, (struct pieces){0}, false);
        return;
    }
    head_status(&W.out, 200, SLICE(""));
    enum h1_framing framing = x->manner & CHUNKED ? H1_CHUNKED : H1_LENGTH;
    if (x->manner & PAUSING) {
        http_req_answer(x->r, &W.out, framing, v.iov_len, (struct pieces){0}, false);
        x->to_send = v.iov_len;
        send_more(x);
    } else {
        x->over = true;
        http_req_answer(x->r, &W.out, framing, v.iov_len, (struct pieces){&v, 1, v.iov_len}, true);
    }
}

static void srv_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct exchange *x = exchange_new();
    x->r = r;
    r->owner = x;
    x->counted = h->framing == H1_LENGTH;
    x->left = h->length;
    x->tunnel = h->upgrade;
    check_head(h, true);
    check_body(x, body, end && !h->upgrade);
    if (x->manner & CUTTING && x->manner & EARLY) {
        x->over = true;
        http_req_cut(r);
        return;
    }
    if (x->manner & CUTTING && x->manner & LATE && W.xs_n == 3) {
        W.gone = true;
        http_srv_close(c);
        return;
    }
    if (x->manner & CUTTING) {
        head_clear(&W.out);
        head_status(&W.out, 103, SLICE(""));
        http_req_interim(r, &W.out);
    }
    if (x->manner & PAUSING && !end)
        http_req_reading(r, false);
    if (x->manner & EARLY || (end && !(x->manner & LATE)))
        answer(x);
}

static void srv_body(struct http_req *r, struct pieces body, bool end)
{
    struct exchange *x = r->owner;
    struct h1_field f[16];
    check_body(x, body, end);
    if (end) {
        int n = http_req_trailers(r, f, COUNT_OF(f));
        check_trailers(f, MAX(n, 0));
        if (x->answered && x->tunnel) {
            x->over = true;
            http_req_end(r, SLICE(""));
        } else if (!(x->manner & LATE))
            answer(x);
    }
}

static void srv_drained(struct http_req *r)
{
    struct exchange *x = r->owner;
    MUST(!x->over && !W.gone);
    if (x->answered && !x->tunnel)
        send_more(x);
}

static void srv_aborted(struct http_req *r, enum err e)
{
    struct exchange *x = r->owner;
    MUST(!x->over && !W.gone);
    x->over = true;
}

static void srv_refused(struct http_srv *c, uint16_t status, const char *label) { MUST(status >= 400 && status < 600 && label[0]); }
static void srv_released(struct http_srv *c) { W.released = true; }
static const struct http_srv_ops srv_ops = {.request = srv_request, .body = srv_body, .drained = srv_drained, .aborted = srv_aborted, .refused = srv_refused, .released = srv_released};

/* ---- the owner of the client's end ------------------------------------------------------------------------------------------- */

static struct exchange *of_call(struct http_call *k) { return CONTAINER_OF(k, struct exchange, k); }

static void cli_connected(struct http_cli *c) {}

static void cli_interim(struct http_call *k, const struct h1_head *h)
{
    MUST(!of_call(k)->over && !of_call(k)->answered && h->status < 200 && h->status != 101);
    check_head(h, false);
}

static void cli_body(struct http_call *k, struct pieces body, bool end)
{
    struct exchange *x = of_call(k);
    struct h1_field f[16];
    MUST(x->answered);
    check_body(x, body, end);
    if (end)
        check_trailers(f, MAX(http_call_trailers(k, f, COUNT_OF(f)), 0));
    x->over = end;
    if (!end && x->manner & CUTTING && x->manner & LATE) {
        x->over = true;
        http_call_cancel(k);
    }
}

static void cli_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    struct exchange *x = of_call(k);
    MUST(!x->over && !x->answered);
    x->answered = true;
    if (h->framing != H1_TUNNEL)
        check_head(h, false);
    x->counted = h->framing == H1_LENGTH || h->framing == H1_NO_BODY;
    x->left = h->length;
    if (x->manner & PAUSING && !end)
        http_call_reading(k, false);
    cli_body(k, body, end);
}

static void cli_drained(struct http_call *k) { MUST(!of_call(k)->over); }

static void cli_failed(struct http_call *k, enum err e)
{
    MUST(!of_call(k)->over && e != OK);
    of_call(k)->over = true;
}

static void cli_ended(struct http_cli *c, enum err e)
{
    for (int i = 0; i < W.xs_n; i++)
        MUST(W.xs[i].over);
    MUST(!W.closed);
    W.closed = true;
    http_cli_close(c);
}

static void cli_released(struct http_cli *c) { W.released = true; }
static const struct http_cli_ops cli_ops = {.connected = cli_connected, .interim = cli_interim, .response = cli_response, .body = cli_body, .drained = cli_drained, .failed = cli_failed, .ended = cli_ended, .released = cli_released};

static void calls_make(void)
{
    struct iovec v = {filler, 3};
    while (!W.closed && W.xs_n < EXCHANGES_MAX && http_cli_calls(&W.cli) < CALLS && http_cli_room(&W.cli)) {
        struct exchange *x = exchange_new();
        if (x->manner & BIG_ANSWER) {
            http_cli_request(&W.cli, &x->k, H1_POST, SLICE("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_CHUNKED, (struct pieces){&v, 1, 3}, false);
            if (x->manner & CHUNKED && !x->over)
                http_call_end(&x->k, SLICE("X: y\r\n"));
        } else if (x->manner & EARLY)
            http_cli_request(&W.cli, &x->k, H1_GET, SLICE("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"), H1_TUNNEL, (struct pieces){0}, false);
        else
            http_cli_request(&W.cli, &x->k, x->manner & 1 ? H1_HEAD : H1_GET, x->manner & 1 ? SLICE("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n") : SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), H1_NO_BODY, (struct pieces){0}, true);
    }
}

/* ---- a little later ------------------------------------------------------------------------------------------------------------------ */

static void later(struct timer *t)
{
    for (int i = 0; i < W.xs_n && !W.gone && !W.closed; i++) {
        struct exchange *x = &W.xs[i];
        if (x->over)
            continue;
        if (!W.server)
            http_call_reading(&x->k, true);
        else if (x->manner & PAUSING && !x->whole)
            http_req_reading(x->r, true);
        else
            answer(x);
    }
}

/* ---- the peer -------------------------------------------------------------------------------------------------------------------- */

static void peer_connected(struct stream *s) { W.peer_open = true; }
static void peer_data(struct stream *s, char *p, size_t n) {}
static void peer_nothing(struct stream *s) {}
static void peer_failed(struct stream *s, enum err e) { W.peer_open = false; }
static void peer_released(struct stream *s) { W.peer_released = true; }
static const struct stream_ops peer_ops = {peer_connected, peer_data, peer_nothing, peer_nothing, peer_failed, peer_released};

static void accepted(struct listener *ln, int fd, const struct addr *peer)
{
    W.accepted = true;
    if (W.server)
        http_srv_open(&W.srv, W.near, &W.sconf, &srv_ops, fd, NULL);
    else {
        stream_adopt(&W.peer, W.far, &peer_ops, fd);
        W.peer_open = true;
    }
}

static bool never(void *ctx) { return false; }

/* Whole field sections in HPACK, by static index and literals: what random bytes would take long to find. */
#define AUTHORITY "\x01\x01x"
static const struct slice heads[] = {
    {"\x82\x86\x84" AUTHORITY, 6},                                                             /* GET / */
    {"\x83\x86\x84" AUTHORITY, 6},                                                             /* POST / */
    {"\x83\x86\x84" AUTHORITY "\x0f\x0d\x01" "5", 10},                                         /* and content-length: 5 */
    {"\x02\x07" "CONNECT" "\x00\x09" ":protocol" "\x09" "websocket" "\x86\x84" AUTHORITY, 35}, /* RFC 8441 */
    {"\x88", 1},                                                                               /* :status 200 */
    {"\x08\x03" "103", 5},
    {"\x88\x0f\x0d\x01" "5", 5},
    {"\x40\x01" "x" "\x01" "y", 5},                                                            /* trailers, into the table */
    {"\xbe", 1},                                                                               /* out of it */
    {"\x0f\x11\x03" "c=d" "\x0f\x11\x03" "e=f", 12},                                           /* crumbs */
    {"", 0},
};

static void frame_write(uint8_t type, uint8_t flags, uint8_t id, struct slice a, struct slice b)
{
    size_t n = a.n + b.n;
    char head[9] = {(char)(n >> 16), (char)(n >> 8), (char)n, (char)type, (char)flags, 0, 0, 0, (char)id};
    struct iovec v[3] = {{head, sizeof head}, {(void *)(uintptr_t)a.p, a.n}, {(void *)(uintptr_t)b.p, b.n}};
    stream_write(&W.peer, v, 3);
}

static struct slice take(const uint8_t **pp, const uint8_t *end, size_t n)
{
    struct slice s = slice_of((const char *)*pp, MIN(n, (size_t)(end - *pp)));
    *pp += s.n;
    return s;
}

/* One block; false: the peer sends no more. */
static bool block(const uint8_t **pp, const uint8_t *end)
{
    uint8_t kind = *(*pp)++;
    const uint8_t *p = *pp;
    if (kind == 255) {
        stream_shut(&W.peer);
        return false;
    }
    if (kind == 254 || kind == 253) {
        if (end - p < 4)
            return false;
        *pp += 4;
        struct slice rest = take(pp, end, p[3]);
        if (kind == 254)
            frame_write(p[0], p[1], p[2], rest, SLICE(""));
        else
            frame_write(1, p[0], p[1], heads[p[2] % COUNT_OF(heads)], rest);
        return true;
    }
    if (kind > 1)
        stream_write_slice(&W.peer, take(pp, end, kind));
    return true;
}

static void send_blocks(const uint8_t *p, const uint8_t *end)
{
    bool open = true;
    while (p < end && open && W.peer_open) {
        uint8_t kind = *p;
        open = block(&p, end);
        if (kind <= 1 || kind % 8 == 7)
            sim_run(never, NULL, kind == 1 ? 400 : kind == 0 ? 4 : 1);
        check_kept();
        if (!W.server)
            calls_make();
        if (W.xs_n > EXCHANGES_MAX - 64) /* a bound of ours */
            return;
        if (kind == 0)
            timer_set(W.near, &W.later, 2);
    }
}

/* ---- one run ------------------------------------------------------------------------------------------------------------------------ */

static void start(const uint8_t *data)
{
    memset(&W, 0, sizeof W);
    W.server = data[0] == 's' || (data[0] != 'c' && data[0] & 1);
    W.manner = data[1];
    struct sim_conf sc = {.seed = data[2], .latency_us_min = 5, .latency_us_max = 200, .socket_bytes = 16384};
    if (W.manner & SPLIT)
        sc.split_pct = sc.short_write_pct = 50;
    sim_start(&sc);
    W.near = loop_new("near");
    W.far = loop_new("far");
    head_out_init(&W.out);
    http_srv_conf_default(&W.sconf);
    W.sconf.h1 = (struct h1_srv_conf){&h1_limits_default, 1000, 2000, 3000, 500, &W.out, true};
    W.sconf.streams_max = STREAMS_MAX;
    W.sconf.window_bytes = WINDOW_BYTES;
    W.sconf.conn_window_bytes = CONN_WINDOW_BYTES;
    W.sconf.resets_max = 20;
    http_cli_conf_default(&W.cconf);
    W.cconf.limits = &h1_limits_default;
    W.cconf.out = &W.out;
    timer_init(&W.later, later);
    struct addr a = addr_ip4(0x7f000001, 80);
    int fd = sim_listen(0, &a);
    listener_start(&W.ln, W.server ? W.near : W.far, fd, false, accepted);
    if (W.server)
        stream_connect(&W.peer, W.far, &peer_ops, -1, &a);
    else {
        http_cli_connect(&W.cli, W.near, &W.cconf, &cli_ops, -1, &a, HTTP_2, NULL);
        calls_make();
    }
    sim_run(never, NULL, 2);
    MUST(W.accepted);
    if (W.server)
        stream_write_slice(&W.peer, SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    frame_write(4, 0, 0, SLICE("\0\3\0\0\0\144\0\10\0\0\0\1"), SLICE("")); /* 100 streams, and extended CONNECT */
}

static void stop(void)
{
    stream_reading(&W.peer, true);
    timer_set(W.near, &W.later, 1);
    if (W.server)
        sim_run(never, NULL, 60000); /* every timeout there is: the connection ends by itself, or with its peer */
    else {
        sim_run(never, NULL, 100);
        if (!W.closed) {
            W.closed = true;
            http_cli_close(&W.cli);
        }
    }
    stream_close(&W.peer);
    timer_clear(&W.later);
    sim_run(never, NULL, 4000);
    MUST(W.released && W.peer_released);
    for (int i = 0; i < W.xs_n; i++)
        MUST(W.xs[i].over || W.gone);
    int fd = W.ln.fd;
    listener_stop(&W.ln);
    socket_close(fd);
    head_out_fini(&W.out);
    loop_free(W.near);
    loop_free(W.far);
    MUST(sim_sockets_open() == 0);
    sim_stop();
    MUST(mem_bytes(MEM_CONN) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 3 || n > 8192)
        return 0;
    start(data);
    if (W.manner & SLOW_PEER)
        stream_reading(&W.peer, false);
    send_blocks(data + 3, data + n);
    stop();
    return 0;
}
