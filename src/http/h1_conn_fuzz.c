/* h1_conn_fuzz.c - any bytes, cut in any way, to either end of an HTTP/1.x connection, on the simulator. The input:
 *
 *     byte 0   's' a server's end, 'c' a client's end with a request outstanding; anything else: by its lowest bit
 *     byte 1   how the owner behaves (bits below)
 *     byte 2   seed of the simulated network
 *     then     blocks: one byte n; n 0 is a pause, 255 ends the peer's sending, else the next n bytes are sent together
 *
 * What must hold, whatever comes: callbacks come in their order (request, body*, end | aborted; response, body*, end | failed);
 * pieces add up; a body with a length is delivered with that length; never more than a bounded amount is kept; after the end
 * everything is released, no timer is left, no byte is held.
 */
#include "http_int.h"
#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LATE = 1, EARLY = 2, CHUNKED = 4, SLOW_PEER = 8, SPLIT = 16, PAUSING = 32, UPLOAD = 64, BIG_ANSWER = 128 };
#define KEPT_MAX (3 * 65536u)
#define BIG 200000u

static struct {
    struct loop *near, *far;
    struct head_out out;
    struct h1_srv_conf conf;
    struct listener ln;
    struct h1_srv srv;
    struct h1_cli cli;
    struct stream peer;
    struct timer later;
    uint8_t manner;
    bool server, accepted, released, peer_open, peer_released;
    bool open;     /* an exchange is */
    bool whole;    /* its request (server) or answer (client) was read to its end */
    bool over;     /* client: ended, failed, or found at rest */
    uint64_t left; /* of a body with a length */
    bool counted;  /* left means something */
} W;

static char filler[BIG];
static volatile uint64_t touched;

/* ---- invariants ---------------------------------------------------------------------------------------------------------- */

static void check_body(struct pieces body, bool end)
{
    size_t sum = 0;
    MUST(body.n >= 0 && body.n <= PIECES_MAX);
    for (int i = 0; i < body.n; i++) {
        MUST(body.v[i].iov_len > 0);
        sum += body.v[i].iov_len;
        touched = hash_bytes(body.v[i].iov_base, body.v[i].iov_len); /* AddressSanitizer sees a piece that is not ours */
    }
    MUST(sum == body.bytes);
    if (W.counted) {
        MUST(sum <= W.left);
        W.left -= sum;
        MUST(end == (W.left == 0));
    }
}

static void check_kept(void) { MUST(mem_bytes(MEM_CONN) <= KEPT_MAX + HEAD_OUT_BYTES + sizeof(struct h1_chunked)); }

/* ---- the owner of the server's end ------------------------------------------------------------------------------------------ */

static void answer(void)
{
    struct iovec v = {filler, W.manner & BIG_ANSWER ? BIG : 3};
    MUST(W.open);
    head_clear(&W.out);
    head_status(&W.out, 200, SLICE(""));
    W.open = false;
    enum h1_framing framing = W.manner & CHUNKED ? H1_CHUNKED : H1_LENGTH;
    if (W.manner & PAUSING) {
        h1_srv_answer(&W.srv, &W.out, framing, v.iov_len, (struct pieces){0}, false);
        h1_srv_send(&W.srv, (struct pieces){&v, 1, v.iov_len});
        h1_srv_end(&W.srv, SLICE("X: y\r\n"));
    } else
        h1_srv_answer(&W.srv, &W.out, framing, v.iov_len, (struct pieces){&v, 1, v.iov_len}, true);
}

static void answer_later(struct timer *t)
{
    if (W.open && !W.released)
        answer();
}

static void request_whole(void)
{
    W.whole = true;
    if (W.manner & LATE)
        timer_set(W.near, &W.later, 3);
    else
        answer();
}

static void srv_request(struct h1_srv *c, const struct h1_head *h, struct pieces body, bool end)
{
    MUST(!W.open);
    W.open = true;
    W.whole = false;
    W.counted = h->framing == H1_LENGTH;
    W.left = h->length;
    MUST(h->framing != H1_NO_BODY || end);
    check_body(body, end);
    if (W.manner & UPLOAD) {
        head_clear(&W.out);
        head_status(&W.out, 100, SLICE(""));
        h1_srv_interim(c, &W.out);
    }
    if (W.manner & EARLY)
        answer();
    else if (end)
        request_whole();
    else if (W.manner & PAUSING)
        h1_srv_reading(c, false);
    if (W.open && W.manner & PAUSING)
        timer_set(W.near, &W.later, W.manner & LATE ? 5 : 1);
}

static void srv_body(struct h1_srv *c, struct pieces body, bool end)
{
    MUST(W.open && !W.whole);
    check_body(body, end);
    if (end)
        request_whole();
}

static void srv_drained(struct h1_srv *c) {}

static void srv_aborted(struct h1_srv *c, enum err e)
{
    MUST(W.open);
    W.open = false;
}

static void srv_refused(struct h1_srv *c, uint16_t status, const char *label) { MUST(!W.open && status >= 400 && status < 600 && label[0]); }
static void srv_released(struct h1_srv *c) { W.released = true; }
static const struct h1_srv_ops srv_ops = {srv_request, srv_body, srv_drained, srv_aborted, srv_refused, .released = srv_released};

static void later(struct timer *t)
{
    if (W.server && W.manner & PAUSING && W.open && !W.whole) {
        h1_srv_reading(&W.srv, true);
        return;
    }
    answer_later(t);
}

/* ---- the owner of the client's end ------------------------------------------------------------------------------------------- */

static void cli_connected(struct h1_cli *c) {}
static void cli_interim(struct h1_cli *c, const struct h1_head *h) { MUST(W.open && h->status < 200 && h->status != 101); }

static void cli_body(struct h1_cli *c, struct pieces body, bool end)
{
    MUST(W.open && !W.whole);
    check_body(body, end);
    if (!end)
        return;
    W.whole = true;
    W.open = false;
    if (!h1_cli_reusable(c)) {
        W.over = true;
        h1_cli_close(c);
        return;
    }
}

static void cli_response(struct h1_cli *c, const struct h1_head *h, struct pieces body, bool end)
{
    MUST(W.open && h->status >= 200);
    W.counted = h->framing == H1_LENGTH;
    W.left = h->length;
    MUST(h->framing != H1_NO_BODY || (end && body.bytes == 0));
    cli_body(c, body, end);
}

static void cli_drained(struct h1_cli *c) {}

static void cli_failed(struct h1_cli *c, enum err e)
{
    MUST(W.open && !W.over && !h1_cli_reusable(c));
    W.open = false;
    W.over = true;
    h1_cli_close(c);
}

static void cli_idle_end(struct h1_cli *c)
{
    MUST(!W.open && !W.over);
    W.over = true;
    h1_cli_close(c);
}

static void cli_released(struct h1_cli *c) { W.released = true; }
static const struct h1_cli_ops cli_ops = {cli_connected, cli_interim, cli_response, cli_body, cli_drained, cli_failed, cli_idle_end, cli_released};

static void request(void)
{
    static const enum h1_method methods[] = {H1_GET, H1_HEAD};
    W.open = true;
    W.whole = W.counted = false;
    struct iovec v = {filler, 3};
    if (W.manner & UPLOAD)
        h1_cli_request(&W.cli, H1_POST, SLICE("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"), H1_LENGTH, (struct pieces){&v, 1, 3}, false);
    else
        h1_cli_request(&W.cli, methods[W.manner & 1], SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), H1_NO_BODY, (struct pieces){0}, true);
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
        h1_srv_open(&W.srv, W.near, &W.conf, &srv_ops, fd);
    else {
        stream_adopt(&W.peer, W.far, &peer_ops, fd);
        W.peer_open = true;
    }
}

static bool never(void *ctx) { return false; }

static void send_blocks(const uint8_t *p, const uint8_t *end)
{
    bool shut = false;
    while (p < end && !shut && W.peer_open) {
        size_t block = *p++;
        if (block == 255) {
            stream_shut(&W.peer);
            shut = true;
        } else if (block) {
            block = MIN(block, (size_t)(end - p));
            stream_write_slice(&W.peer, slice_of((const char *)p, block));
            p += block;
        }
        sim_run(never, NULL, block == 0 ? 4 : block % 2);
        check_kept();
        if (!W.server && !W.open && !W.over && h1_cli_reusable(&W.cli))
            request();
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
    W.conf = (struct h1_srv_conf){&h1_limits_default, 1000, 2000, 3000, 500, &W.out};
    timer_init(&W.later, later);
    struct addr a = addr_ip4(0x7f000001, 80);
    int fd = sim_listen(0, &a);
    listener_start(&W.ln, W.server ? W.near : W.far, fd, false, accepted);
    if (W.server)
        stream_connect(&W.peer, W.far, &peer_ops, -1, &a);
    else {
        h1_cli_connect(&W.cli, W.near, &h1_limits_default, &cli_ops, -1, &a);
        request();
    }
    sim_run(never, NULL, 2);
    MUST(W.accepted);
}

static void stop(void)
{
    stream_reading(&W.peer, true);
    if (W.server) {
        sim_run(never, NULL, 30000); /* every timeout there is: the connection ends by itself */
        MUST(W.released && !W.open);
    } else {
        sim_run(never, NULL, 100);
        h1_cli_close(&W.cli);
    }
    MUST(!timer_is_set(&W.srv.timer) || !W.server);
    stream_close(&W.peer);
    timer_clear(&W.later);
    sim_run(never, NULL, 5);
    MUST(W.released && W.peer_released);
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
    if (n < 3)
        return 0;
    start(data);
    if (W.manner & SLOW_PEER)
        stream_reading(&W.peer, false);
    send_blocks(data + 3, data + n);
    stop();
    return 0;
}
