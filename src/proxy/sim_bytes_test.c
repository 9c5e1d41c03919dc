/* sim_bytes_test.c - connections whose beginning is looked at, and sessions of bytes, on one node: what their clients may do to them, in every seed.
 *
 *   - a ClientHello that comes in parts, with more behind it than any client sends, is refused; one that comes in parts alone is served;
 *   - reasons for refusals are more than any one client has, and each has its counter;
 *   - a session is at rest when no byte moves, and not when its client reads slowly;
 *   - a session that gets no socket into its service's namespace ends in the time that connecting may take.
 *
 * sim_gate_test.c has bytes between nodes.
 */
#include "proxy_protocol.h"
#include "sim_world_test.h"
#include "tls_hello.h"
#include "tls_testcert.h"

#define BYTES_PORT 9000
#define TLS_PORT 9443

static struct testcert *cert;

static struct guest {
    struct stream s;
    struct buf got;
    bool secured, ended, released;
} G;
static void guest_connected(struct stream *s) { G.secured = s->tls != NULL; }
static void guest_data(struct stream *s, char *p, size_t n) { buf_add(&G.got, p, n); }
static void guest_end(struct stream *s) { G.ended = true; }
static void guest_failed(struct stream *s, enum err e) { G.ended = true; }
static void guest_drained(struct stream *s) {}
static void guest_released(struct stream *s) { G.released = true; }
static const struct stream_ops guest_ops = {.connected = guest_connected, .data = guest_data, .eof = guest_end, .drained = guest_drained, .failed = guest_failed, .released = guest_released};
static bool guest_secured(void *ctx) { return G.secured; }
static bool guest_ended(void *ctx) { return G.ended; }
static bool guest_gone(void *ctx) { return G.released; }

static void guest_open(uint16_t port)
{
    struct addr a = addr_ip4(0x7f000001u, port);
    G = (struct guest){0};
    stream_connect(&G.s, T.client_loop, &guest_ops, -1, &a);
}

static void guest_close(void)
{
    stream_close(&G.s);
    assert_true(sim_run(guest_gone, NULL, 1000));
    buf_free(&G.got);
}

/* Gateways for bytes and for TLS that ends there, both to a Service that is named raw. */
static void start_with(uint64_t seed, uint32_t split_pct, size_t socket_bytes, const char *more)
{
    static const uint16_t ports[] = {BYTES_PORT, TLS_PORT};
    const uint32_t latency_us_max = split_pct ? 400 : 200; /* without splits all that is sent at once comes at once */
    struct sim_conf f = {.latency_us_min = 200, .latency_us_max = latency_us_max, .split_pct = split_pct, .socket_bytes = socket_bytes};
    struct buf b = {0};
    buf_adds(&b, ROUTE("") "---\n{ apiVersion: v1, kind: Secret, metadata: { name: cert }, type: Opaque, stringData: { tls.crt: ");
    buf_add_json(&b, slice_cstr(cert->chain_pem));
    buf_adds(&b, ", tls.key: ");
    buf_add_json(&b, slice_cstr(cert->key_pem));
    buf_adds(&b, " } }\n"
                 "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: gx }\nspec: { selector: { istio: ingressgateway }, servers: [\n"
                 "  { port: { number: 9000, name: tcp, protocol: TCP }, hosts: [ \"*\" ] },\n"
                 "  { port: { number: 9443, name: tls, protocol: TLS }, tls: { mode: SIMPLE, credentialName: cert }, hosts: [ \"*\" ] } ] }\n"
                 "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: vb }\n"
                 "spec: { hosts: [ \"*\" ], gateways: [ gx ], tcp: [ { route: [ { destination: { host: raw, port: { number: 90 } } } ] } ] }\n"
                 "---\napiVersion: v1\nkind: Service\nmetadata: { name: raw }\nspec: { selector: { app: svc }, ports: [ { port: 90, targetPort: 9090 } ] }\n");
    buf_adds(&b, more);
    buf_addc(&b, 0);
    world_start(seed, &f, 1, b.p);
    buf_free(&b);
    for (size_t k = 0; k < COUNT_OF(ports); k++) {
        struct addr a = addr_ip4(0x7f000001u, ports[k]);
        int fd = -1;
        assert_int_equal(listen_socket(&a, 64, true, &fd), OK);
        for (uint32_t i = 0; i < T.plan->listeners_n; i++)
            if (T.plan->listeners[i].address.port == ports[k])
                proxy_listen(T.proxies[0], T.plan->listeners[i].token, fd);
    }
}

static void start(uint64_t seed, uint32_t split_pct) { start_with(seed, split_pct, 1 << 20, ""); }

static struct tls_ctx *believing(void)
{
    struct tls_client_conf conf = {.trust = TLS_TRUST_ALL};
    struct tls_ctx *ctx = NULL;
    struct buf why = {0};
    assert_int_equal(tls_client_new(&conf, &ctx, &why), OK);
    buf_free(&why);
    return ctx;
}

/* ---- what comes ahead of a handshake --------------------------------------------------------------------------------------- */

/* A ClientHello without extensions: TLS 1.2, one cipher. */
static const char hello_bytes[] = "\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03" "0123456789abcdef0123456789abcdef" "\x00\x00\x02\xc0\x2b\x01\x00";

static void hello_long(uint64_t seed)
{
    static char rest[STREAM_READ_BYTES];
    static const size_t firsts[] = {1, 5, sizeof hello_bytes - 2};
    size_t first = firsts[seed % COUNT_OF(firsts)], left = sizeof hello_bytes - 1 - first;
    start(seed, 0);
    memcpy(rest, hello_bytes + first, left);
    guest_open(TLS_PORT);
    stream_write_slice(&G.s, slice_of(hello_bytes, first));
    pass(10);
    stream_write_slice(&G.s, slice_of(rest, sizeof rest)); /* comes with one read, and what was there already is more than that */
    assert_true(sim_run(guest_ended, NULL, 1000));
    assert_int_equal(G.got.n, 0);
    assert_int_equal(counter_read(&T.proxies[0]->c.hello_failed), 1);
    guest_close();
}
static void test_hello_long(void **state) { each_seed(6, hello_long); }

static void hello_split(uint64_t seed)
{
    start(seed, 90);
    struct tls_ctx *ctx = believing();
    guest_open(TLS_PORT);
    stream_tls_connect(&G.s, ctx, (struct tls_peer_name){SLICE("x"), SLICE("")}, NULL);
    assert_true(sim_run(guest_secured, NULL, 5000));
    assert_int_equal(counter_read(&T.proxies[0]->c.hello_failed), 0);
    guest_close();
    tls_ctx_unref(ctx);
}
static void test_hello_split(void **state)
{
    world_secure = true;
    each_seed(6, hello_split);
    world_secure = false;
}

/* Each reason for which clients can be refused, over whatever doors a worker has, is counted by itself; and one too many would end nothing. */
static void refusals(uint64_t seed)
{
    static const char *const named[] = {
        "slow_head", "slow_body", "bad_chunk", "head_too_large", "plain_http", "h2_field_name", "h2_field_value", "h2_pseudo_field", "h2_connection_field", "h2_scheme", "h2_authority",
        "h2_content_length", "h2_flood", "h2_connection", "h2_resets", "h2_streams", "too_many_connections", "dot_segments", "slow_hello", "hello_too_long", "not_tls", "unknown_server_name",
        "no_alpn", "hello_failed",
    };
    static char more[200][8];
    struct buf b = {0};
    start(seed, 0);
    struct proxy *p = T.proxies[0];
    for (int e = 1; e < H1_ERROR_COUNT; e++)
        refusal_count(p, h1_error_label((enum h1_error)e));
    for (int e = 1; e < PP_ERROR_COUNT; e++)
        refusal_count(p, pp_error_label((enum pp_error)e));
    for (int e = 1; e < HELLO_ERROR_COUNT; e++)
        refusal_count(p, hello_error_label((enum hello_error)e));
    for (size_t i = 0; i < COUNT_OF(named); i++)
        refusal_count(p, named[i]);
    proxy_metrics(&p, 1, &b);
    assert_non_null(strstr(b.p, "weir_requests_refused_total{reason=\"hello_failed\"} 1\n"));
    assert_null(strstr(b.p, "weir_requests_refused_total{reason=\"other\"}"));
    for (size_t i = 0; i < COUNT_OF(more); i++) {
        (void)snprintf(more[i], sizeof more[i], "more%03zu", i);
        refusal_count(p, more[i]);
    }
    buf_clear(&b);
    proxy_metrics(&p, 1, &b);
    assert_non_null(strstr(b.p, "weir_requests_refused_total{reason=\"more000\"} 1\n"));
    assert_null(strstr(b.p, "more199"));
    assert_non_null(strstr(b.p, "weir_requests_refused_total{reason=\"other\"} "));
    buf_free(&b);
}
static void test_refusals(void **state) { each_seed(1, refusals); }

/* ---- sessions -------------------------------------------------------------------------------------------------------------------- */

static void no_sockets(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n) {}
static void no_left(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id) {}
static const struct proxy_ops deaf = {no_sockets, no_left};

static void no_socket(uint64_t seed)
{
    start(seed, 0);
    T.proxies[0]->ops = &deaf;
    guest_open(BYTES_PORT);
    stream_write_slice(&G.s, SLICE("hello"));
    uint64_t t0 = sim_now_ms(), most = (uint64_t)T.proxies[0]->conf.connect_timeout_ms * T.proxies[0]->conf.tries_max;
    assert_true(sim_run(guest_ended, NULL, most + 1000));
    assert_true(sim_now_ms() - t0 >= T.proxies[0]->conf.connect_timeout_ms);
    assert_int_equal(counter_read(&T.proxies[0]->c.timeouts_connect), T.proxies[0]->conf.tries_max);
    guest_close();
}
static void test_no_socket(void **state) { each_seed(2, no_socket); }

/* A service that says much at once and nothing more. */
#define SAID_BYTES 300000u
static struct said {
    struct listener ln;
    struct stream s;
    bool gone;
} S;
static void said_data(struct stream *s, char *p, size_t n) {}
static void said_nothing(struct stream *s) {}
static void said_failed(struct stream *s, enum err e) {}
static void said_released(struct stream *s) { S.gone = true; }
static const struct stream_ops said_ops = {.connected = said_nothing, .data = said_data, .eof = said_nothing, .drained = said_nothing, .failed = said_failed, .released = said_released};
static bool said_gone(void *ctx) { return S.gone; }

static void said_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    static char bytes[SAID_BYTES];
    stream_adopt(&S.s, T.host_loop, &said_ops, fd);
    stream_write_slice(&S.s, slice_of(bytes, sizeof bytes));
}

/* Its client takes some of it in each idle time, and gets all of it; one that takes nothing is let go. Through TLS, where bytes are copied. */
static void slow_reader(uint64_t seed)
{
    struct addr at = addr_ip4(0x7f000001u, 9090);
    start_with(seed, 0, 4096, "---\napiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: idle }\nspec: { targetRefs: [ { name: raw } ], connectionPool: { tcpIdleTimeout: 2s } }\n");
    S = (struct said){0};
    int fd = sim_listen(T.hosts[0].replica_id, &at);
    listener_start(&S.ln, T.host_loop, fd, false, said_accepted);
    struct tls_ctx *ctx = believing();
    guest_open(TLS_PORT);
    stream_tls_connect(&G.s, ctx, (struct tls_peer_name){SLICE("x"), SLICE("")}, NULL);
    assert_true(sim_run(guest_secured, NULL, 5000));
    stream_reading(&G.s, false);
    for (int i = 0; i < 12; i++) {
        pass(1500);
        size_t before = G.got.n;
        stream_reading(&G.s, true);
        for (int ms = 0; ms < 100 && G.got.n == before; ms++)
            pass(1);
        stream_reading(&G.s, false);
        assert_true(G.got.n > before && G.got.n < SAID_BYTES && !G.ended);
    }
    pass(10000); /* the idle time, and once more for what it had taken */
    assert_true(list_empty(&T.proxies[0]->tcps));
    guest_close();
    stream_close(&S.s);
    assert_true(sim_run(said_gone, NULL, 1000));
    listener_stop(&S.ln);
    socket_close(fd);
    tls_ctx_unref(ctx);
}
static void test_slow_reader(void **state)
{
    world_secure = true;
    each_seed(2, slow_reader);
    world_secure = false;
}

/* A test's name as argument: only that one. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hello_long), cmocka_unit_test(test_hello_split), cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_socket), cmocka_unit_test(test_slow_reader)};
    cert = testcert_new(NULL, &(struct testcert_conf){.name = "x", .sans = "DNS:x", .from_s = -3600 * 24 * 365ll * 60, .to_s = 3600 * 24 * 365ll * 100});
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    testcert_free(cert);
    return failed;
}
