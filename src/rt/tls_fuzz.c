/* tls_fuzz.c - any bytes, cut in any way, to either end of a TLS handshake, on the simulator. The input:
 *
 *     byte 0   's' to a server, 'c' to a client; anything else: by its lowest bit
 *     byte 1   seed of the simulated network
 *     then     blocks: one byte n; n 0 is a pause, 255 ends the sending, else the next n bytes are sent together
 *
 * What must hold, whatever comes: the handshake does not complete (nobody here knows a key); the end is told once, with a
 * text when it is TLS's fault; what is kept is bounded; afterwards everything is released and no byte is held, and OpenSSL's queue of
 * errors is empty.
 */
#include "sim.h"
#include "tls_int.h"
#include "tls_testcert.h"

#include <openssl/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define RUN_MS 2000

static struct tls_ctx *server, *client;
static struct {
    struct loop *near, *far;
    struct listener ln;
    struct stream s, peer; /* who speaks TLS; who sends the input */
    bool as_server, accepted, completed, told, dropped;
    uint32_t released;
} W;

/* ---- the end that speaks TLS ---- */

static void tls_connected(struct stream *s) { W.completed = true; }
static void tls_none(struct stream *s) {}
static void tls_eof(struct stream *s) { MUST(W.dropped); }
static void tls_data(struct stream *s, char *p, size_t n) { MUST(W.dropped && n > 0); }

static void tls_failed(struct stream *s, enum err e)
{
    MUST(!W.told || W.dropped);
    W.told = true;
    MUST((e == ERR_TLS) == (stream_tls_error(s)[0] != 0) || W.dropped);
    if (!s->tls_plain_http || W.dropped) return;
    W.dropped = true;
    stream_tls_drop(s);
    stream_write_slice(s, SLICE("HTTP/1.1 400 Bad Request\r\n\r\n"));
    stream_shut(s);
}

static void released(struct stream *s) { W.released++; }
static const struct stream_ops tls_ops = {tls_connected, tls_data, tls_eof, tls_none, tls_failed, released};

/* ---- the end that sends the input ---- */

static void peer_data(struct stream *s, char *p, size_t n) {}
static void peer_failed(struct stream *s, enum err e) {}
static const struct stream_ops peer_ops = {tls_none, peer_data, tls_none, tls_none, peer_failed, released};

static void accepted(struct listener *ln, int fd, const struct addr *from)
{
    W.accepted = true;
    stream_adopt(W.as_server ? &W.s : &W.peer, ln->loop, W.as_server ? &tls_ops : &peer_ops, fd);
    if (W.as_server) stream_tls_accept(&W.s, server, (struct slice){0});
}

static void send_blocks(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t block = p[i++];
        if (block == 255) {
            stream_shut(&W.peer);
            return;
        }
        block = MIN(block, n - i);
        if (block == 0) sim_run(NULL, NULL, 5);
        else stream_write_slice(&W.peer, slice_of((const char *)p + i, block));
        i += block;
    }
}

static void contexts_make(void)
{
    if (server) return;
    struct testcert *c = testcert_new(NULL, &(struct testcert_conf){.name = "a", .sans = "DNS:a.example,DNS:*.b.example"});
    struct testcert *other = testcert_new(NULL, &(struct testcert_conf){.name = "c", .sans = "DNS:c.example"});
    struct tls_cert_conf certs[] = {{slice_cstr(c->chain_pem), slice_cstr(c->key_pem), SLICE("staple")},
                                    {slice_cstr(other->chain_pem), slice_cstr(other->key_pem), {0}}};
    struct slice alpn[] = {SLICE("h2"), SLICE("http/1.1")};
    struct tls_server_conf conf = {.certs = certs, .certs_n = 2, .client_auth = TLS_CLIENT_OPTIONAL, .client_ca_pem = slice_cstr(c->cert_pem),
                                   .alpn = alpn, .alpn_n = 2, .tickets = tls_tickets_new(0)};
    struct buf why = {0};
    struct tls_ctx *one;
    MUST(tls_server_new(&conf, &one, &why) == OK);
    tls_tickets_unref(conf.tickets);
    struct tls_host hosts[] = {{SLICE("a.example"), one}, {SLICE("*.b.example"), one}, {SLICE("c.example"), one}};
    MUST(tls_hosts_new(hosts, COUNT_OF(hosts), &server, &why) == OK);
    tls_ctx_unref(one);
    MUST(tls_client_new(&(struct tls_client_conf){.ca_pem = slice_cstr(c->cert_pem)}, &client, &why) == OK);
    testcert_free(c);
    testcert_free(other);
}

static void talk(const uint8_t *data, size_t n)
{
    struct addr at = addr_ip4(0x7f000001, 443);
    int fd;
    MUST(listen_socket(&at, 4, false, &fd) == OK);
    listener_start(&W.ln, W.as_server ? W.near : W.far, fd, false, accepted);
    if (W.as_server) {
        stream_connect(&W.peer, W.far, &peer_ops, -1, &at);
    } else {
        stream_connect(&W.s, W.near, &tls_ops, -1, &at);
        stream_tls_connect(&W.s, client, (struct tls_peer_name){SLICE("a.example"), SLICE("a.example")}, NULL);
    }
    sim_run(NULL, NULL, 20);
    MUST(W.accepted);
    send_blocks(data, n);
    sim_run(NULL, NULL, RUN_MS);
    MUST(!W.completed);
    MUST(W.s.out_bytes <= TLS_OUT_BYTES);
    MUST(ERR_peek_error() == 0);
    stream_close(&W.s);
    stream_close(&W.peer);
    listener_stop(&W.ln);
    socket_close(fd);
    sim_run(NULL, NULL, 5);
    MUST(W.released == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2) return 0;
    contexts_make();
    memset(&W, 0, sizeof W);
    W.as_server = data[0] == 's' || (data[0] != 'c' && !(data[0] & 1));
    uint64_t held = mem_bytes(MEM_TLS);
    struct sim_conf conf = {.seed = data[1], .latency_us_min = 20, .latency_us_max = 200, .split_pct = data[1] & 1 ? 30 : 0};
    sim_start(&conf);
    W.near = loop_new("near");
    W.far = loop_new("far");
    talk(data + 2, n - 2);
    loop_free(W.near);
    loop_free(W.far);
    MUST(sim_sockets_open() == 0);
    sim_stop();
    MUST(mem_bytes(MEM_TLS) == held);
    return 0;
}
