/* sim_gate_test.c - between nodes, in every seed: clients of node a, replicas on node b behind its gate, and some on a itself.
 *
 *   - requests cross unharmed, and are heard once; what other proxies say about a request passes, and is not said twice;
 *   - a replica that has gone, a gate that is gone or leaves: another one answers, whatever the method;
 *   - a wire that is cut without a word, a gate that takes connections and says nothing: in seconds another one answers, and nothing hangs;
 *   - certificates that are not of the CA, or not for the node, carry nothing; who has none is nobody;
 *   - bytes: the end of each direction passes, a replica that has gone is made up for by another.
 *
 * proxy_gate_sim has the rest of the request path.
 */
#include "sim_world_test.h"
#include "other_node_test.h"

#define TCP_PORT 9000 /* of a's Gateway, for bytes */

static struct other_node O;
static struct live_endpoint on_b[HOSTS_MAX], on_a[HOSTS_MAX];
static struct kv svc_label = {"app", "svc", 3};
static struct kvs svc_labels = {&svc_label, 1};

/* ---- the two nodes --------------------------------------------------------------------------------------------------- */

/* The hosts of local are replicas of a, those of remote are said to be replicas of b. */
static void plan_a(uint32_t local, uint32_t remote)
{
    struct live_endpoint eps[HOSTS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < T.hosts_n; i++)
        if (local & 1u << i)
            eps[n++] = on_a[i];
        else if (remote & 1u << i)
            eps[n++] = on_b[i];
    struct plan *old = T.plan;
    T.plan = plan_compile(T.memory, T.objects, eps, n, NULL, 0);
    proxy_plan(T.proxies[0], plan_ref(T.plan));
    plan_unref(old);
}

/* What b has. */
static void plan_b(uint32_t mask)
{
    struct live_endpoint eps[HOSTS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < T.hosts_n; i++)
        if (mask & 1u << i)
            eps[n++] = on_a[i];
    other_plan(&O, T.objects, eps, n);
}

static void node_a(const struct testcert *cert, const struct testcert *ca)
{
    struct plan_node n = node_conf("a", cert, ca);
    plan_memory_node(T.memory, &n);
}

static void start(uint64_t seed, const struct sim_conf *f, uint32_t hosts, const char *more)
{
    static char names[HOSTS_MAX][16];
    world_start(seed, f, hosts, more);
    for (uint32_t i = 0; i < hosts; i++) {
        (void)snprintf(names[i], sizeof names[i], "svc-%u", i);
        on_a[i] = (struct live_endpoint){.replica_id = i + 1ull, .ns = "default", .deployment = "svc", .name = names[i], .labels = &svc_labels};
    }
    other_remote(on_b, on_a, hosts);
    node_a(node_certs.a, node_certs.ca);
    other_start(&O, T.objects, on_a, hosts);
    plan_a(0, (1u << hosts) - 1);
}

/* Before world_stop(), which looks at what is left: a's connections end first. */
static void stop(void)
{
    for (uint32_t i = 0; i < T.clients_n; i++)
        client_end(T.clients[i]);
    pass(50);
    assert_int_equal(counter_read(&O.proxy->c.requests_now), 0);
    for (uint32_t s = 0; s < O.proxy->eps_n; s++)
        if (O.proxy->eps[s])
            assert_int_equal(O.proxy->eps[s]->lb.in_flight, 0);
    other_stop(&O);
}

static struct deed quick(const struct visit *v)
{
    struct deed d = {.delay_ms = (uint32_t)chance(8), .bytes = (uint32_t)chance(3) * 30000 + 10};
    if (chance(4) == 0)
        d.rest_ms = 1 + (uint32_t)chance(8);
    return d;
}

static void clients(uint32_t n, uint32_t requests)
{
    for (uint32_t i = 0; i < n; i++) {
        struct client *c = client_start(i % 2 ? HTTP_2 : HTTP_1, requests);
        c->parallel = i % 2 ? 3 : 1;
        c->gap_ms = i % 3 ? 8 : 0;
        if (i % 3 == 2) {
            c->method = H1_POST;
            c->body_bytes = 20000;
            c->slow_ms = i % 2 ? 6 : 0;
        }
        client_go(c);
    }
}

static void assert_all_once(void)
{
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->state != ASK_ANSWERED || a->status != 200 || a->visits != 1)
            fail_msg("request %u: state %d, status %u, %u visits", i, a->state, a->status, a->visits);
    }
}

static void one_request(uint16_t status)
{
    uint32_t visits = T.visits_n;
    struct client *c = client_start(HTTP_1, 1);
    client_go(c);
    run_all(20000);
    assert_int_equal(T.asks[T.asks_n - 1].status, status);
    assert_int_equal(T.visits_n - visits, status == 200);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static void crossing(uint64_t seed)
{
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 1500, .split_pct = (uint32_t)(seed % 3) * 20, .short_write_pct = (uint32_t)(seed % 2) * 30};
    start(seed, &f, 3, seed & 1 ? ROUTE("") POLICY("connectionPool: { http: HTTP2 }") : ROUTE(""));
    T.hosts_h2 = seed & 1;
    T.script = quick;
    clients(6, 12);
    run_all(60000);
    assert_all_once();
    assert_int_equal(counter_read(&O.proxy->c.node_requests), T.asks_n);
    assert_int_equal(counter_read(&O.proxy->c.node_refused), 0);
    assert_int_equal(counter_read(&T.proxies[0]->c.retries), 0);
    assert_in_range(counter_read(&T.proxies[0]->c.up_node_connections), 1, 3); /* one for each replica, whatever the clients have */
    stop();
}
static void test_crossing(void **state) { each_seed(test_repeats(12), crossing); }

/* Replicas end, b knows, and a is told later: nobody notices. */
static void gone(uint64_t seed)
{
    start(seed, NULL, 3, ROUTE(""));
    T.script = quick;
    clients(6, 30);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t k = round % 3, left = O.left;
        sim_run(all_over, NULL, 4 + chance(10));
        plan_b(7u & ~(1u << k));
        for (int i = 0; i < 2000 && O.left == left; i++)
            pass(1);
        assert_true(O.left > left); /* what was under way is over: now it may end */
        host_kill(k);
        pass(5 + chance(10));
        plan_a(0, 7u & ~(1u << k));
        pass(2);
        host_live(k);
        plan_b(7);
        pass(chance(4));
        plan_a(0, 7);
    }
    run_all(60000);
    assert_all_once();
    assert_true(counter_read(&O.proxy->c.node_refused) > 0);
    stop();
}
static void test_gone(void **state) { each_seed(test_repeats(10), gone); }

/* Nobody else has one: the client is told, and told by a. */
static void gone_last(uint64_t seed)
{
    start(seed, NULL, 1, ROUTE(""));
    plan_b(0);
    struct client *c = client_start(HTTP_1, 2);
    c->method = H1_POST;
    c->body_bytes = 100;
    client_go(c);
    run_all(20000);
    assert_int_equal(count_status(503), 2);
    assert_int_equal(T.visits_n, 0);
    assert_true(counter_read(&T.proxies[0]->c.retries) > 0);
    stop();
}
static void test_gone_last(void **state) { each_seed(2, gone_last); }

/* A replica that dies with what it has: what is idempotent goes on elsewhere, what is not is never heard twice. */
static void killed(uint64_t seed)
{
    start(seed, NULL, 4, ROUTE(""));
    T.script = quick;
    clients(8, 20);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t k = round % 4;
        sim_run(all_over, NULL, 3 + chance(12));
        host_kill(k);
        pass(chance(20));
        host_live(k);
    }
    run_all(60000);
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        if (a->method == H1_GET && (a->state == ASK_LOST || (a->state == ASK_ANSWERED && a->status != 200)))
            fail_msg("GET %u: state %d, status %u, %u visits", i, a->state, a->status, a->visits);
        if (a->method == H1_POST && a->visits > 1)
            fail_msg("POST %u was heard %u times", i, a->visits);
        if (a->method == H1_POST && a->state == ASK_ANSWERED && a->status != 200 && a->status != 502)
            fail_msg("POST %u: status %u", i, a->status);
    }
    stop();
}
static void test_killed(void **state) { each_seed(test_repeats(10), killed); }

static void on_drained(void *ctx) { *(bool *)ctx = true; }

/* b stops in order: what it has is answered, everything else by a's own replicas. */
static void leaves(uint64_t seed)
{
    bool drained = false;
    start(seed, NULL, 4, ROUTE(""));
    plan_a(3, 12);
    T.script = quick;
    clients(6, 30);
    sim_run(all_over, NULL, 10 + chance(20));
    proxy_drain(O.proxy, 5000, on_drained, &drained);
    for (uint32_t i = 0; i < O.plan->listeners_n; i++)
        if (O.plan->listeners[i].node)
            proxy_unlisten(O.proxy, O.plan->listeners[i].token);
    run_all(60000);
    assert_all_once();
    assert_true(drained);
    stop();
}
static void test_leaves(void **state) { each_seed(test_repeats(8), leaves); }

/* b dies. */
static void dies(uint64_t seed)
{
    start(seed, NULL, 4, ROUTE("") POLICY("outlierDetection: { consecutiveLocalOriginFailures: 3, splitExternalLocalOriginErrors: true, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 100 }"));
    plan_a(3, 12);
    T.script = quick;
    clients(6, 40);
    for (uint32_t i = 0; i < T.clients_n; i++)
        T.clients[i]->gap_ms = 200; /* long enough for some attempts there */
    sim_run(all_over, NULL, 10 + chance(20));
    struct addr g = other_gate();
    sim_kill_addr(&g);
    run_all(60000);
    for (uint32_t i = 0; i < T.asks_n; i++)
        if (T.asks[i].method == H1_GET && T.asks[i].state != ASK_CUT && (T.asks[i].state != ASK_ANSWERED || T.asks[i].status != 200))
            fail_msg("GET %u: state %d, status %u", i, T.asks[i].state, T.asks[i].status);
    assert_int_equal(ejected_now(), 2); /* both that are behind the gate */
    stop();
}
static void test_dies(void **state) { each_seed(test_repeats(8), dies); }

/* The wire to b is cut, without a word to either side: what waits for b goes elsewhere, both sides forget each other, and when it is back they find each
 * other again. */
static void half_open(uint64_t seed)
{
    struct addr g = other_gate();
    start(seed, NULL, 3, ROUTE(""));
    plan_a(1, 6);
    T.script = quick;
    for (uint32_t i = 0; i < 4; i++)
        client_go(client_start(i % 2 ? HTTP_2 : HTTP_1, 20));
    sim_run(all_over, NULL, 3 + chance(12));
    uint64_t cut_ms = sim_now_ms();
    sim_partition(&g, true);
    run_all(60000);
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        bool late = a->over_ms > MAX(a->at_ms, cut_ms) + NODE_SILENT_MS * 4 / 3 + 2000 * 2 + 100; /* and two connects that come to nothing */
        if ((a->state != ASK_ANSWERED && a->state != ASK_CUT) || a->status != 200 || late)
            fail_msg("request %u: state %d, status %u, %llu ms", i, a->state, a->status, (unsigned long long)(a->over_ms - a->at_ms));
    }
    pass(6000);
    assert_int_equal(O.proxy->downs_n, 0);
    assert_int_equal(counter_read(&O.proxy->c.requests_now), 0);
    sim_partition(&g, false);
    plan_a(0, 6);
    pass(1000);
    one_request(200);
    stop();
}
static void test_half_open(void **state) { each_seed(test_repeats(8), half_open); }

/* ---- a gate that takes connections and says nothing ---------------------------------------------------------------------------- */

/* Node b to the eye: its certificate, its HTTP/2; and then nothing more, or not even that. */
struct mute {
    struct listener ln;
    int fd;
    struct tls_ctx *tls;    /* NULL: not a byte of TLS either */
    struct list conns;
    uint32_t taken;
} M;
struct mute_conn {
    struct stream s;
    struct list link;
};
static void mute_secured(struct stream *s)
{
    static const char settings[9] = {0, 0, 0, 4};
    if (slice_is(stream_tls_alpn(s), "h2"))
        stream_write_slice(s, slice_of(settings, sizeof settings));
}
static void mute_data(struct stream *s, char *p, size_t n) {}
static void mute_drained(struct stream *s) {}
static void mute_eof(struct stream *s) { stream_close(s); }
static void mute_failed(struct stream *s, enum err e) { stream_close(s); }
static void mute_released(struct stream *s)
{
    struct mute_conn *c = CONTAINER_OF(s, struct mute_conn, s);
    list_del(&c->link);
    mem_free(c);
}
static const struct stream_ops mute_ops = {.connected = mute_secured, .data = mute_data, .eof = mute_eof, .drained = mute_drained, .failed = mute_failed, .released = mute_released};
static struct addr mute_gate(void) { return addr_ip4(0x0a000003u, OTHER_GATE_PORT); }

static void mute_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct mute_conn *c = mem_new(MEM_SIM, sizeof *c);
    M.taken++;
    list_push(&M.conns, &c->link);
    stream_adopt(&c->s, T.host_loop, &mute_ops, fd);
    if (M.tls)
        stream_tls_accept(&c->s, M.tls, SLICE(""));
}

static void mute_start(bool secure)
{
    struct slice alpn[] = {SLICE("h2"), SLICE(NODE_ALPN_BYTES)};
    struct tls_cert_conf cert = {.chain_pem = slice_cstr(node_certs.b->chain_pem), .key_pem = slice_cstr(node_certs.b->key_pem)};
    struct tls_server_conf conf = {.certs = &cert, .certs_n = 1, .alpn = alpn, .alpn_n = 2};
    struct addr a = mute_gate();
    struct buf why = {0};
    M = (struct mute){.fd = sim_listen(0, &a)};
    list_init(&M.conns);
    if (secure && tls_server_new(&conf, &M.tls, &why) != OK)
        fail_msg("%s", why.p);
    buf_free(&why);
    listener_start(&M.ln, T.host_loop, M.fd, false, mute_accepted);
}

static void mute_stop(void)
{
    LIST_FOREACH(l, &M.conns)
        stream_close(&CONTAINER_OF(l, struct mute_conn, link)->s);
    listener_stop(&M.ln);
    socket_close(M.fd);
    pass(50);
    tls_ctx_unref(M.tls);
}

static void mute(uint64_t seed)
{
    bool secure = seed & 1;
    uint64_t most_ms = secure ? NODE_ASK_MS + NODE_HUNG_MS : 2000; /* until it is given up */
    start(seed, NULL, 2, ROUTE(""));
    mute_start(secure);
    on_b[1].gate = mute_gate();
    plan_a(1, 2);
    client_go(client_start(HTTP_1, 6));
    client_go(client_start(HTTP_2, 6));
    run_all(120000);
    assert_true(M.taken > 0);
    for (uint32_t i = 0; i < T.asks_n; i++)
        if (T.asks[i].status != 200 || T.asks[i].over_ms - T.asks[i].at_ms > most_ms * 2 + 500)
            fail_msg("request %u: state %d, status %u, %llu ms", i, T.asks[i].state, T.asks[i].status, (unsigned long long)(T.asks[i].over_ms - T.asks[i].at_ms));
    assert_int_equal(counter_read(&T.proxies[0]->http.h2_up_hung) > 0, secure);
    plan_a(0, 2); /* what may not be repeated is told, and does not hang */
    struct client *c = client_start(HTTP_1, 1);
    c->method = H1_POST;
    c->body_bytes = 100;
    client_go(c);
    run_all(most_ms * 3 + 500);
    assert_int_equal(T.asks[T.asks_n - 1].status, secure ? 502 : 503);
    mute_stop();
    stop();
}
static void test_mute(void **state) { each_seed(4, mute); }

/* ---- active checks ------------------------------------------------------------------------------------------------------- */

static uint16_t sick;
static uint16_t check(uint32_t host) { return host == sick ? 503 : 200; }

/* A question goes through the gate to the replica that it is about. */
static void checks(uint64_t seed)
{
    start(seed, NULL, 3, ROUTE("") POLICY("healthCheck: { http: { path: /health }, interval: 1s, timeout: 500ms, unhealthyThreshold: 2, healthyThreshold: 1 }"));
    T.check = check;
    sick = 1;
    pass(5000);
    clients(6, 20);
    run_all(60000);
    assert_all_once();
    assert_int_equal(T.hosts[1].visits, 0);
    assert_true(T.hosts[0].visits && T.hosts[2].visits);
    sick = 2;
    pass(5000);
    uint32_t before = T.hosts[2].visits;
    clients(6, 20);
    run_all(60000);
    assert_all_once();
    assert_int_equal(T.hosts[2].visits, before);
    assert_true(T.hosts[1].visits > 0);
    stop();
}
static void test_checks(void **state) { each_seed(2, checks); }

/* ---- fields -------------------------------------------------------------------------------------------------------------- */

static uint32_t fields_of(const struct h1_head *h, struct slice name, struct slice *value)
{
    uint32_t n = 0;
    for (uint16_t i = 0; i < h->n; i++)
        if (slice_ieq(h->fields[i].name, name)) {
            *value = h->fields[i].value;
            n++;
        }
    return n;
}

static void field_is(const struct h1_head *h, struct slice name, struct slice want)
{
    struct slice v = SLICE("");
    uint32_t n = fields_of(h, name, &v);
    if (n != 1 || !slice_eq(v, want))
        fail_msg("%u fields " SLICE_FMT ", the last one " SLICE_FMT, n, SLICE_ARG(name), SLICE_ARG(v));
}

static uint32_t seen_n;
static bool seen_h2;

/* As from a alone: the client is 127.0.0.1, and what it said of itself is not believed. */
static void seen(const struct h1_head *h)
{
    struct slice v;
    field_is(h, SLICE("x-forwarded-for"), SLICE("192.0.2.9, 127.0.0.1"));
    field_is(h, SLICE("x-forwarded-proto"), SLICE("http"));
    field_is(h, SLICE("x-forwarded-host"), SLICE("x"));
    field_is(h, SLICE("via"), seen_h2 ? SLICE("2 weir") : SLICE("1.1 weir"));
    field_is(h, SLICE("host"), SLICE("x"));
    field_is(h, SLICE("x-request-id"), SLICE("mine"));
    assert_int_equal(fields_of(h, SLICE("traceparent"), &v), 1);
    assert_true(v.n == 55 && slice_starts(v, SLICE("00-0af7651916cd43dd8448eb211c80319c-")) && memcmp(v.p + 36, "b7ad6b7169203331", 16) != 0);
    assert_int_equal(fields_of(h, SLICE("forwarded"), &v), 1);
    assert_int_equal(fields_of(h, SLICE("x-forwarded-client-cert"), &v), 0);
    assert_int_equal(fields_of(h, SLICE("x-hop"), &v), seen_h2); /* HTTP/2 has no Connection that could name it */
    assert_int_equal(fields_of(h, SLICE("x_forwarded_client_cert"), &v) + fields_of(h, SLICE("x_forwarded_for"), &v) + fields_of(h, SLICE("x-forwarded-port"), &v), 0);
    field_is(h, SLICE("x_other"), SLICE("kept"));
    seen_n++;
}

static void fields(uint64_t seed)
{
    start(seed, NULL, 1, ROUTE(""));
    T.seen = seen;
    seen_n = 0;
    seen_h2 = !(seed & 1);
    struct client *c = client_start(seen_h2 ? HTTP_2 : HTTP_1, 2);
    c->fields = "X_Forwarded_Client_Cert: Hash=01\r\nx_forwarded_for: 192.0.2.8\r\nX-Forwarded-Port: 1\r\nX-FORWARDED-CLIENT-CERT: Hash=02\r\nX_Other: kept\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Client-Cert: Hash=00\r\nX-Request-Id: mine\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
                "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    client_go(c);
    run_all(10000);
    assert_all_once();
    assert_int_equal(seen_n, 2);
    T.seen = NULL;
    stop();
}
static void test_fields(void **state) { each_seed(2, fields); }

/* ---- who is a node ----------------------------------------------------------------------------------------------------------- */

/* Nothing of a request reaches b, and a's own replicas go on. */
static void strangers(uint64_t seed)
{
    struct testcert *ca = node_ca("others"), *cert = node_cert(ca, "a"), *wrong = node_cert(node_certs.ca, "c");
    start(seed, NULL, 2, ROUTE(""));
    node_a(cert, node_certs.ca); /* a shows a certificate of somebody else's CA */
    plan_a(0, 3);
    one_request(503);
    node_a(node_certs.a, ca); /* a does not believe b */
    plan_a(0, 3);
    one_request(503);
    plan_a(1, 2);
    one_request(200);
    on_b[0].node = on_b[1].node = "c"; /* whom a means is not who is there */
    node_a(node_certs.a, node_certs.ca);
    plan_a(0, 3);
    one_request(503);
    assert_int_equal(counter_read(&O.proxy->c.node_requests), 0);
    on_b[0].node = on_b[1].node = "b";
    node_a(wrong, node_certs.ca); /* any certificate of the CA is a node's */
    plan_a(0, 3);
    one_request(200);
    stop();
    testcert_free(wrong);
    testcert_free(cert);
    testcert_free(ca);
}
static void test_strangers(void **state) { each_seed(2, strangers); }

static struct deed slow(const struct visit *v) { return (struct deed){.delay_ms = 3000, .bytes = 10}; }

/* New certificates are used without a gap: a's first, then b's. */
static void renewed(uint64_t seed)
{
    struct testcert *a = node_cert(node_certs.ca, "a"), *b = node_cert(node_certs.ca, "b");
    struct plan_node n = node_conf("b", b, node_certs.ca);
    n.listen = other_gate();
    start(seed, NULL, 2, ROUTE(""));
    T.script = quick;
    clients(4, 30);
    sim_run(all_over, NULL, 20);
    node_a(a, node_certs.ca);
    plan_a(0, 3);
    sim_run(all_over, NULL, 20);
    plan_memory_node(O.memory, &n);
    plan_b(3);
    run_all(60000);
    assert_all_once();
    stop();
    testcert_free(a);
    testcert_free(b);
}
static void test_renewed(void **state) { each_seed(4, renewed); }

/* b's gate has another CA: a, which has a certificate of the one before, is shown out of the connection that it has, though there is no handshake any more
 * that it could fail; requests under way are answered. With a certificate of the new one it is back. */
static void distrusted(uint64_t seed)
{
    struct testcert *ca = node_ca("anew"), *a = node_cert(ca, "a"), *b = node_cert(ca, "b");
    struct plan_node n = node_conf("b", b, ca);
    n.listen = other_gate();
    start(seed, NULL, 1, ROUTE(""));
    T.script = slow;
    client_go(client_start(HTTP_1, 1));
    pass(200);
    assert_int_equal(T.visits_n, 1);
    plan_memory_node(O.memory, &n);
    plan_b(1);
    assert_int_equal(counter_read(&O.proxy->c.node_distrusted), 1);
    run_all(20000);
    assert_int_equal(T.asks[0].status, 200);
    one_request(503);
    node_a(a, ca);
    plan_a(0, 1);
    T.script = quick;
    one_request(200);
    stop();
    testcert_free(a);
    testcert_free(b);
    testcert_free(ca);
}
static void test_distrusted(void **state) { each_seed(2, distrusted); }

/* Somebody at the gate who is no node, or misbehaves. */
struct guest {
    struct stream s;
    struct buf got;
    bool secured, ended, released;
};
static void guest_connected(struct stream *s) { CONTAINER_OF(s, struct guest, s)->secured = true; }
static void guest_data(struct stream *s, char *p, size_t n) { buf_add(&CONTAINER_OF(s, struct guest, s)->got, p, n); }
static void guest_end(struct stream *s) { CONTAINER_OF(s, struct guest, s)->ended = true; }
static void guest_failed(struct stream *s, enum err e) { CONTAINER_OF(s, struct guest, s)->ended = true; }
static void guest_drained(struct stream *s) {}
static void guest_released(struct stream *s) { CONTAINER_OF(s, struct guest, s)->released = true; }
static const struct stream_ops guest_ops = {.connected = guest_connected, .data = guest_data, .eof = guest_end, .drained = guest_drained, .failed = guest_failed, .released = guest_released};
static bool guest_gone(void *ctx) { return ((struct guest *)ctx)->ended; }
static bool guest_released_now(void *ctx) { return ((struct guest *)ctx)->released; }

static struct tls_ctx *guest_tls(const struct testcert *cert, const char *alpn)
{
    struct tls_cert_conf c = {.chain_pem = slice_cstr(cert ? cert->chain_pem : ""), .key_pem = slice_cstr(cert ? cert->key_pem : "")};
    struct slice protocol = slice_cstr(alpn);
    struct tls_client_conf conf = {.trust = TLS_TRUST_CA, .ca_pem = slice_cstr(node_certs.ca->cert_pem), .cert = cert ? &c : NULL, .alpn = &protocol, .alpn_n = protocol.n ? 1 : 0};
    struct tls_ctx *ctx = NULL;
    struct buf why = {0};
    if (tls_client_new(&conf, &ctx, &why) != OK)
        fail_msg("%s", why.p);
    buf_free(&why);
    return ctx;
}

/* Comes with these, says text, and is shown out: within ms, having heard nothing. */
static void guest(struct tls_ctx *ctx, const char *sni, struct slice text, uint64_t ms)
{
    struct guest *g = mem_new(MEM_SIM, sizeof *g);
    struct addr a = other_gate();
    stream_connect(&g->s, T.client_loop, &guest_ops, -1, &a);
    if (ctx)
        stream_tls_connect(&g->s, ctx, (struct tls_peer_name){slice_cstr(sni), SLICE("")}, NULL);
    stream_write_slice(&g->s, text);
    if (!sim_run(guest_gone, g, ms))
        fail_msg("\"%.20s\" is still there", text.p);
    assert_int_equal(g->got.n, 0);
    stream_close(&g->s);
    assert_true(sim_run(guest_released_now, g, 100));
    buf_free(&g->got);
    mem_free(g);
    if (ctx)
        tls_ctx_unref(ctx);
}

static void guests(uint64_t seed)
{
    static const char h2[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    start(seed, NULL, 1, ROUTE(""));
    const struct plan_target *t = NULL;
    const char *name = "";
    for (struct table_slot *s = NULL; (s = table_next(&O.plan->targets, s));) {
        name = s->key;
        t = s->value;
    }
    assert_non_null(t);
    char sni[TLS_NAME_MAX + 1];
    (void)snprintf(sni, sizeof sni, "%.*s", 100, name);
    guest(NULL, "", SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 5000);
    guest(NULL, "", SLICE(""), 15000); /* says nothing: as long as a head may take */
    guest(guest_tls(NULL, "h2"), sni, SLICE(h2), 5000);
    guest(guest_tls(NULL, NODE_ALPN_BYTES), sni, SLICE("x"), 5000);
    guest(guest_tls(node_certs.a, "http/1.1"), sni, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 5000);
    guest(guest_tls(node_certs.a, ""), sni, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 5000);
    guest(guest_tls(node_certs.a, NODE_ALPN_BYTES), sni, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 5000); /* no PROXY header */
    guest(guest_tls(node_certs.a, NODE_ALPN_BYTES), sni, SLICE("\r\n\r\n\0\r\nQUIT\n"), 15000);           /* half of one */
    guest(guest_tls(node_certs.a, NODE_ALPN_BYTES), "nobody.80.0.weir.internal", SLICE("PROXY UNKNOWN\r\n"), 5000);
    assert_int_equal(T.visits_n, 0);
    assert_true(counter_read(&O.proxy->c.hello_failed) >= 6);
    one_request(200);
    stop();
}
static void test_guests(void **state) { each_seed(2, guests); }

/* A crowd in front of b's Gateway keeps other nodes not out, and a crowd of nodes keeps not out who comes to the Gateway. */
#define CROWD 4u
static void crowd(uint64_t seed)
{
    struct addr gate = other_gate(), front = addr_ip4(0x0a000002u, 8080);
    struct guest *all[CROWD], *one = mem_new(MEM_SIM, sizeof *one);
    start(seed, NULL, 1, ROUTE(""));
    one_request(200);
    O.proxy->conf.connections_max = CROWD - 1;
    int fd = sim_listen(0, &front);
    for (uint32_t i = 0; i < O.plan->listeners_n; i++)
        if (O.plan->listeners[i].address.port == 8080)
            proxy_listen(O.proxy, O.plan->listeners[i].token, fd);
    for (uint32_t i = 0; i < CROWD; i++) {
        all[i] = mem_new(MEM_SIM, sizeof *all[i]);
        stream_connect(&all[i]->s, T.client_loop, &guest_ops, -1, seed & 1 ? &front : &gate);
    }
    pass(100);
    const uint64_t over = seed & 1 ? 1 : 2; /* at the gate is a's own as well */
    assert_int_equal(counter_read(&O.proxy->c.connections_over), over);
    stream_connect(&one->s, T.client_loop, &guest_ops, -1, seed & 1 ? &gate : &front);
    stream_write_slice(&one->s, SLICE("GET / HTTP/1.1\r\nHost: x\r\nX-Id: 0\r\nConnection: close\r\n\r\n"));
    pass(500);
    assert_int_equal(slice_starts(buf_slice(&one->got), SLICE("HTTP/1.1 200 ")), !(seed & 1));
    if (seed & 1)
        one_request(200);
    assert_int_equal(counter_read(&O.proxy->c.connections_over), over);
    stream_close(&one->s);
    for (uint32_t i = 0; i < CROWD; i++)
        stream_close(&all[i]->s);
    pass(3000);
    for (uint32_t i = 0; i < CROWD; i++) {
        buf_free(&all[i]->got);
        mem_free(all[i]);
    }
    buf_free(&one->got);
    mem_free(one);
    stop();
}
static void test_crowd(void **state) { each_seed(2, crowd); }

/* A WebSocket is an upgrade for the client and the host, and an extended CONNECT between the nodes (RFC 8441). */
static void tunnel(uint64_t seed)
{
    start(seed, NULL, 1, ROUTE(""));
    T.hosts_tunnel = true;
    struct guest *g = mem_new(MEM_SIM, sizeof *g);
    struct addr a = addr_ip4(0x7f000001u, 8080);
    stream_connect(&g->s, T.client_loop, &guest_ops, -1, &a);
    stream_write_slice(&g->s, SLICE("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"));
    pass(100);
    assert_true(slice_starts(buf_slice(&g->got), SLICE("HTTP/1.1 101 ")) && slice_ends(buf_slice(&g->got), SLICE("\r\n\r\n")));
    buf_addc(&g->got, 0);
    assert_non_null(strcasestr(g->got.p, "\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")); /* for this client's key: RFC 6455 section 1.3 */
    buf_clear(&g->got);
    stream_write_slice(&g->s, SLICE("one"));
    pass(50);
    stream_write_slice(&g->s, SLICE("two"));
    pass(50);
    assert_true(slice_is(buf_slice(&g->got), "onetwo") && !g->ended);
    stream_shut(&g->s);
    assert_true(sim_run(guest_gone, g, 1000));
    stream_close(&g->s);
    assert_true(sim_run(guest_released_now, g, 100));
    buf_free(&g->got);
    mem_free(g);
    stop();
}
static void test_tunnel(void **state) { each_seed(4, tunnel); }

/* ---- bytes -------------------------------------------------------------------------------------------------------------------------- */

#define BYTES                                                                                                                                \
    "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: gx }\n"                                                     \
    "spec: { selector: { istio: ingressgateway }, servers: [ { port: { number: 9000, name: tcp, protocol: TCP }, hosts: [ \"*\" ] } ] }\n"     \
    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: vb }\n"                                                \
    "spec: { hosts: [ \"*\" ], gateways: [ gx ], tcp: [ { route: [ { destination: { host: raw, port: { number: 90 } } } ] } ] }\n"            \
    "---\napiVersion: v1\nkind: Service\nmetadata: { name: raw }\nspec: { selector: { app: svc }, ports: [ { port: 90, targetPort: 9090 } ] }\n"

/* A host that says who its client is, by the PROXY header that it got, then sends back what it gets and "bye" after the end. */
struct echo {
    struct stream s;
    struct list link;
};
struct echo_host {
    struct listener ln;
    int fd;
    uint32_t taken;
};
static struct echo_host echo_hosts[HOSTS_MAX];
static struct list echoes;
static void echo_data(struct stream *s, char *p, size_t n) { stream_write_slice(s, slice_of(p, n)); }
static void echo_eof(struct stream *s)
{
    stream_write_slice(s, SLICE("bye"));
    stream_shut(s);
}
static void echo_drained(struct stream *s) {}
static void echo_failed(struct stream *s, enum err e) { stream_close(s); }
static void echo_connected(struct stream *s) {}
static void echo_released(struct stream *s)
{
    struct echo *e = CONTAINER_OF(s, struct echo, s);
    list_del(&e->link);
    mem_free(e);
}
static const struct stream_ops echo_ops = {.connected = echo_connected, .data = echo_data, .eof = echo_eof, .drained = echo_drained, .failed = echo_failed, .released = echo_released};

static void echo_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct echo *e = mem_new(MEM_SIM, sizeof *e);
    ((struct echo_host *)ln->owner)->taken++;
    list_push(&echoes, &e->link);
    stream_adopt(&e->s, T.host_loop, &echo_ops, fd);
}

static void echo_start(uint32_t i)
{
    struct addr a = addr_ip4(0x7f000001u, 9090);
    struct echo_host *h = &echo_hosts[i];
    *h = (struct echo_host){.fd = sim_listen(T.hosts[i].replica_id, &a)};
    h->ln.owner = h;
    listener_start(&h->ln, T.host_loop, h->fd, false, echo_accepted);
}

static void echo_stop(uint32_t i)
{
    listener_stop(&echo_hosts[i].ln);
    socket_close(echo_hosts[i].fd);
}

static void bytes_start(uint64_t seed, uint32_t hosts, const char *more)
{
    struct sim_conf f = {.latency_us_min = 20, .latency_us_max = 1500, .split_pct = (uint32_t)(seed % 3) * 20, .short_write_pct = (uint32_t)(seed % 2) * 30};
    struct buf b = {0};
    buf_printf(&b, ROUTE("") BYTES "%s", more);
    buf_addc(&b, 0);
    start(seed, &f, hosts, b.p);
    buf_free(&b);
    list_init(&echoes);
    for (uint32_t i = 0; i < hosts; i++)
        echo_start(i);
    struct addr a = addr_ip4(0x7f000001u, TCP_PORT);
    int fd = -1;
    assert_int_equal(listen_socket(&a, 64, true, &fd), OK);
    for (uint32_t i = 0; i < T.plan->listeners_n; i++)
        if (T.plan->listeners[i].address.port == TCP_PORT)
            proxy_listen(T.proxies[0], T.plan->listeners[i].token, fd);
}

static void bytes_stop(uint32_t hosts)
{
    LIST_FOREACH(l, &echoes)
        stream_close(&CONTAINER_OF(l, struct echo, link)->s);
    for (uint32_t i = 0; i < hosts; i++)
        echo_stop(i);
    pass(50);
    assert_true(list_empty(&echoes));
    stop();
}

/* Sends n bytes and its end; what comes back. */
static struct guest *session(size_t n, bool shut)
{
    static char text[200000];
    struct guest *g = mem_new(MEM_SIM, sizeof *g);
    struct addr a = addr_ip4(0x7f000001u, TCP_PORT);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(i * 7 + (i >> 8));
    stream_connect(&g->s, T.client_loop, &guest_ops, -1, &a);
    stream_write_slice(&g->s, slice_of(text, n));
    if (shut)
        stream_shut(&g->s);
    return g;
}

static void session_check(struct guest *g, size_t n, const char *before)
{
    size_t at = strlen(before);
    if (g->got.n != at + n + 3 || memcmp(g->got.p, before, at) != 0 || memcmp(g->got.p + at + n, "bye", 3) != 0)
        fail_msg("%zu bytes for %zu: %.80s", g->got.n, n, g->got.p ? g->got.p : "");
    for (size_t i = 0; i < n; i++)
        if (g->got.p[at + i] != (char)(i * 7 + (i >> 8)))
            fail_msg("byte %zu is wrong", i);
}

static void session_end(struct guest *g)
{
    stream_close(&g->s);
    assert_true(sim_run(guest_released_now, g, 1000));
    buf_free(&g->got);
    mem_free(g);
}

/* The client ends its direction, the service goes on, and ends its own. */
static void bytes(uint64_t seed)
{
    size_t n = seed % 4 == 0 ? 0 : seed % 4 == 1 ? 200000 : 1000;
    bytes_start(seed, 2, "");
    struct guest *g = session(n, true), *h = session(500, true);
    assert_true(sim_run(guest_gone, g, 20000) && sim_run(guest_gone, h, 20000));
    session_check(g, n, "");
    session_check(h, 500, "");
    session_end(g);
    session_end(h);
    assert_int_equal(counter_read(&O.proxy->c.node_sessions), 2);
    assert_int_equal(counter_read(&T.proxies[0]->c.retries), 0);
    bytes_stop(2);
}
static void test_bytes(void **state) { each_seed(test_repeats(12), bytes); }

/* Who the client is, crosses with its bytes. */
static void bytes_client(uint64_t seed)
{
    bytes_start(seed, 1, "---\napiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: pp }\nspec: { targetRefs: [ { name: raw } ], connectionPool: { proxyProtocol: V1 } }\n");
    struct guest *g = session(10, true);
    assert_true(sim_run(guest_gone, g, 20000));
    assert_true(g->got.n > 30 && slice_starts(buf_slice(&g->got), SLICE("PROXY TCP4 127.0.0.1 127.0.0.1 ")));
    session_end(g);
    bytes_stop(1);
}
static void test_bytes_client(void **state) { each_seed(2, bytes_client); }

/* A replica that is not there any more, or takes no connection: another one, and no byte is lost. With the last one the connection is reset. */
static void bytes_gone(uint64_t seed)
{
    bytes_start(seed, 2, "");
    if (seed & 1)
        plan_b(2);
    else
        echo_stop(0);
    for (int i = 0; i < 8; i++) {
        struct guest *g = session(2000, true);
        assert_true(sim_run(guest_gone, g, 20000));
        session_check(g, 2000, "");
        session_end(g);
    }
    assert_int_equal(echo_hosts[1].taken, 8);
    assert_true(counter_read(&O.proxy->c.node_refused) > 0);
    plan_b(0);
    struct guest *g = session(10, false);
    assert_true(sim_run(guest_gone, g, 20000));
    assert_int_equal(g->got.n, 0);
    session_end(g);
    if (!(seed & 1))
        echo_start(0);
    bytes_stop(2);
}
static void test_bytes_gone(void **state) { each_seed(test_repeats(4), bytes_gone); }

/* ---- services of the node itself ---------------------------------------------------------------------------------------------------- */

#define LINE "log 0 kafka 9092 - User:default/svc"

static bool echo_service(void *ctx, struct slice line, int *fd)
{
    int fds[2];
    assert_ptr_equal(ctx, &O);
    if (!slice_is(line, LINE))
        return false;
    assert_int_equal(socket_pair(fds), OK);
    echo_accepted(&echo_hosts[0].ln, fds[1], NULL);
    *fd = fds[0];
    return true;
}

/* A client of a whose connection is handed over to b with that line: as main does with what comes to its doors. */
static struct guest *linked(const char *node, const char *line, size_t n)
{
    static char text[200000];
    struct guest *g = mem_new(MEM_SIM, sizeof *g);
    int fds[2];
    assert_int_equal(socket_pair(fds), OK);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(i * 7 + (i >> 8));
    stream_adopt(&g->s, T.client_loop, &guest_ops, fds[0]);
    stream_write_slice(&g->s, slice_of(text, n));
    stream_shut(&g->s);
    proxy_link(T.proxies[0], fds[1], &(struct proxy_link){.node = node, .gate = other_gate(), .line = slice_cstr(line)});
    return g;
}

/* Bytes cross to what the line names and back, each direction with its end; a line that b does not know, a node that is another, a gate that is gone: closed. */
static void links(uint64_t seed)
{
    size_t n = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 200000 : 1000;
    bytes_start(seed, 1, "");
    O.service = echo_service;
    struct guest *g = linked("b", LINE, n), *h = linked("b", LINE, 500);
    assert_true(sim_run(guest_gone, g, 20000) && sim_run(guest_gone, h, 20000));
    session_check(g, n, "");
    session_check(h, 500, "");
    session_end(g);
    session_end(h);
    assert_int_equal(counter_read(&O.proxy->c.links_taken), 2);
    assert_int_equal(counter_read(&T.proxies[0]->c.links_failed), 0);
    g = linked("b", "log of nobody", 10);
    h = linked("c", LINE, 10);
    assert_true(sim_run(guest_gone, g, 20000) && sim_run(guest_gone, h, 20000));
    assert_true(g->got.n == 0 && h->got.n == 0);
    session_end(g);
    session_end(h);
    assert_int_equal(counter_read(&T.proxies[0]->c.links_failed), 2);
    assert_int_equal(counter_read(&O.proxy->c.node_refused), 1);
    assert_int_equal(counter_read(&O.proxy->c.links_taken), 2);
    bytes_stop(1);
}
static void test_links(void **state) { each_seed(test_repeats(12), links); }

/* The wire is cut, without a word: a's client is closed in seconds, be it of the node's service or of a replica, and b lets go of what it had made for
 * them. A gate that says nothing behind its handshake: closed when a link would have to stand. */
static void links_cut(uint64_t seed)
{
    struct addr g = other_gate();
    bytes_start(seed, 1, "");
    O.service = echo_service;
    struct guest *k = mem_new(MEM_SIM, sizeof *k), *h = session(10, false);
    struct proxy_link to = {.node = "b", .gate = g, .line = SLICE(LINE)};
    int fds[2];
    assert_int_equal(socket_pair(fds), OK);
    stream_adopt(&k->s, T.client_loop, &guest_ops, fds[0]);
    proxy_link(T.proxies[0], fds[1], &to);
    stream_write_slice(&k->s, SLICE("hello"));
    pass(10000); /* at rest for longer than a peer may be silent */
    assert_true(slice_is(buf_slice(&k->got), "hello") && h->got.n == 10 && !k->ended && !h->ended);
    sim_partition(&g, true);
    uint64_t cut_ms = sim_now_ms();
    assert_true(sim_run(guest_gone, k, 6000) && sim_run(guest_gone, h, 6000));
    assert_true(sim_now_ms() - cut_ms <= NODE_SILENT_MS * 4 / 3 + 100);
    session_end(k);
    session_end(h);
    pass(2000);
    assert_int_equal(T.proxies[0]->links_n, 0);
    assert_int_equal(O.proxy->downs_n, 0);
    assert_true(list_empty(&echoes)); /* nor is it left to the services */
    sim_partition(&g, false);
    mute_start(true);
    to.gate = mute_gate();
    k = mem_new(MEM_SIM, sizeof *k);
    assert_int_equal(socket_pair(fds), OK);
    stream_adopt(&k->s, T.client_loop, &guest_ops, fds[0]);
    proxy_link(T.proxies[0], fds[1], &to);
    assert_true(sim_run(guest_gone, k, 5500));
    session_end(k);
    mute_stop();
    bytes_stop(1);
}
static void test_links_cut(void **state) { each_seed(4, links_cut); }

/* Whoever drains ends what other nodes have here, so that it is not waited for; whoever leaves ends its own clients' too. */
static void links_leave(uint64_t seed)
{
    bytes_start(seed, 1, "");
    O.service = echo_service;
    struct guest *g = mem_new(MEM_SIM, sizeof *g);
    int fds[2];
    bool drained = false;
    assert_int_equal(socket_pair(fds), OK);
    stream_adopt(&g->s, T.client_loop, &guest_ops, fds[0]);
    proxy_link(T.proxies[0], fds[1], &(struct proxy_link){.node = "b", .gate = other_gate(), .line = SLICE(LINE)});
    stream_write_slice(&g->s, SLICE("hello"));
    pass(200);
    assert_true(slice_is(buf_slice(&g->got), "hello") && !g->ended);
    if (seed & 1)
        proxy_drain(O.proxy, 60000, on_drained, &drained);
    else
        proxy_leave(T.proxies[0], 60000, on_drained, &drained);
    assert_true(sim_run(guest_gone, g, 1000));
    session_end(g);
    pass(50);
    assert_true(drained);
    assert_int_equal(T.proxies[0]->links_n, 0);
    bytes_stop(1);
}
static void test_links_leave(void **state) { each_seed(4, links_leave); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crossing), cmocka_unit_test(test_gone), cmocka_unit_test(test_gone_last), cmocka_unit_test(test_killed), cmocka_unit_test(test_leaves), cmocka_unit_test(test_dies), cmocka_unit_test(test_half_open), cmocka_unit_test(test_mute),
        cmocka_unit_test(test_checks), cmocka_unit_test(test_fields), cmocka_unit_test(test_strangers), cmocka_unit_test(test_renewed), cmocka_unit_test(test_distrusted), cmocka_unit_test(test_guests), cmocka_unit_test(test_crowd), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_tunnel), cmocka_unit_test(test_bytes_client), cmocka_unit_test(test_bytes_gone), cmocka_unit_test(test_links), cmocka_unit_test(test_links_leave), cmocka_unit_test(test_links_cut),
    };
    world_secure = true;
    node_certs_make();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    node_certs_free();
    return failed;
}
