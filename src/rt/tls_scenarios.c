/* tls_scenarios.c - TLS on streams, as every back end must show it.
 *
 * A client and a server on one loop talk through the listener of a duo. Where the path itself matters (bytes one by one, a
 * damaged or a missing byte), a middleman stands between them. */
#include "tls_scenarios.h"
#include "framer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>

#define RUN_MS 60000 /* emulated machines are slow */
#define HEARD_MAX 4096
#define QUEUE_BYTES 262144 /* a side stops writing above this much queued */

/* ---- sides ---- */

static char pattern(uint64_t at)
{
    return (char)(at * 7 + (at >> 8) * 13 + (at >> 16));
}

static struct side *side_of(struct stream *s) { return CONTAINER_OF(s, struct side, s); }

static bool side_alive(const struct side *e) { return e->open && !e->s.closed && !e->s.failed_told; }

static void side_pump(struct side *e)
{
    static char bytes[50000];
    while (side_alive(e) && e->sent < e->want && e->s.out_bytes < QUEUE_BYTES) {
        size_t n = MIN(sizeof bytes, e->want - e->sent);
        for (size_t i = 0; i < n; i++) bytes[i] = pattern(e->sent + i);
        struct iovec iov[4] = {{bytes, n / 9}, {bytes + n / 9, 0}, {bytes + n / 9, n / 9}, {bytes + 2 * (n / 9), n - 2 * (n / 9)}};
        size_t queued = stream_write(&e->s, iov, 4);
        assert_int_equal(queued, e->s.out_bytes);
        e->sent += n;
        if (e->s.fail) return;
    }
    if (side_alive(e) && e->sent == e->want && e->shut_after) stream_shut(&e->s);
}

static void side_begin(struct side *e)
{
    e->open = true;
    if (e->deaf) stream_reading(&e->s, false);
    if (e->say) (void)stream_write_slice(&e->s, slice_cstr(e->say));
    side_pump(e);
}

static void side_learn(struct side *e)
{
    struct slice alpn = stream_tls_alpn(&e->s), name = stream_tls_server_name(&e->s);
    snprintf(e->version, sizeof e->version, "%s", stream_tls_version(&e->s));
    snprintf(e->cipher, sizeof e->cipher, "%s", stream_tls_cipher(&e->s));
    snprintf(e->alpn, sizeof e->alpn, SLICE_FMT, SLICE_ARG(alpn));
    snprintf(e->name, sizeof e->name, SLICE_FMT, SLICE_ARG(name));
    e->resumed = stream_tls_resumed(&e->s);
    struct arena a;
    arena_init(&a, MEM_TLS, 4096);
    struct tls_cert_info peer;
    if (stream_tls_peer(&e->s, &a, &peer) == OK && peer.sans_n) snprintf(e->peer, sizeof e->peer, SLICE_FMT, SLICE_ARG(peer.sans[0].text));
    arena_fini(&a);
}

static void side_connected(struct stream *s)
{
    struct side *e = side_of(s);
    assert_true(!e->connected && !e->failed && !s->tls_handshake);
    e->connected = true;
    if (s->tls) side_learn(e);
    if (e->close_in == CLOSE_IN_CONNECTED) stream_close(s);
    else side_pump(e);
}

static void side_data(struct stream *s, char *p, size_t n)
{
    struct side *e = side_of(s);
    assert_true(s->reading && !s->closed && !e->eof && (!e->failed || e->answer_plain));
    assert_true(n > 0 && n <= STREAM_READ_BYTES);
    memset(p - STREAM_HEADROOM, 0x55, STREAM_HEADROOM);
    e->data_calls++;
    if (e->heard.n < HEARD_MAX) buf_add(&e->heard, p, MIN(n, HEARD_MAX - e->heard.n));
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(e->got + i)) e->bad = true;
    e->got += n;
    if (e->echo) (void)stream_write_slice(s, slice_of(p, n));
    if (e->pause_ms) {
        stream_reading(s, false);
        timer_set(s->loop, &e->pause, e->pause_ms);
    }
    if (e->close_in == CLOSE_IN_DATA) stream_close(s);
}

static void side_eof(struct stream *s)
{
    struct side *e = side_of(s);
    assert_true(!e->eof && !s->closed && s->reading);
    e->eof = true;
    e->truncated = s->truncated;
    if (e->echo) stream_shut(s);
    if (e->close_in == CLOSE_IN_EOF) stream_close(s);
}

static void side_drained(struct stream *s)
{
    struct side *e = side_of(s);
    assert_true(!s->closed && s->out_bytes == 0 && !s->tls_handshake);
    e->drains++;
    if (!s->shut_wanted) side_pump(e);
}

static void side_failed(struct stream *s, enum err why)
{
    struct side *e = side_of(s);
    assert_true(!e->failed && !s->closed);
    e->failed = true;
    e->why = why;
    snprintf(e->error, sizeof e->error, "%s", stream_tls_error(s));
    assert_int_equal(why == ERR_TLS, e->error[0] != 0);
    if (e->answer_plain && s->tls_plain_http) {
        stream_tls_drop(s);
        stream_write_slice(s, SLICE("HTTP/1.1 400 Bad Request\r\n\r\n"));
        stream_shut(s);
    } else if (e->close_in == CLOSE_IN_FAILED) {
        stream_close(s);
    }
}

static void side_released(struct stream *s)
{
    struct side *e = side_of(s);
    assert_true(s->closed && !e->released && !s->tls);
    e->released = true;
    timer_clear(&e->pause);
}

static const struct stream_ops side_ops = {side_connected, side_data, side_eof, side_drained, side_failed, side_released};

static void side_unpause(struct timer *t)
{
    struct side *e = CONTAINER_OF(t, struct side, pause);
    if (!e->s.closed) stream_reading(&e->s, true);
}

/* ---- the middleman ---- */

static void middle_pass(struct task *t)
{
    struct duo *d = CONTAINER_OF(t, struct duo, middle.task);
    size_t n = MIN(d->middle.step, d->middle.to_up.n - d->middle.up_at);
    char *p = d->middle.to_up.p + d->middle.up_at;
    if (n && d->middle.spoil_at >= d->middle.up_at && d->middle.spoil_at < d->middle.up_at + n && d->middle.spoil_at)
        d->middle.to_up.p[d->middle.spoil_at] ^= 0x40;
    if (n && !d->middle.up.closed && !d->middle.up.failed_told) (void)stream_write_slice(&d->middle.up, slice_of(p, n));
    d->middle.up_at += n;
    n = MIN(d->middle.step, d->middle.to_down.n - d->middle.down_at);
    if (n && !d->middle.down.closed && !d->middle.down.failed_told && !d->middle.down.shut_wanted)
        (void)stream_write_slice(&d->middle.down, slice_of(d->middle.to_down.p + d->middle.down_at, n));
    d->middle.down_at += n;
    if (d->middle.cut_down && d->middle.down_at == d->middle.to_down.n) stream_shut(&d->middle.down);
    if (d->middle.up_at < d->middle.to_up.n || d->middle.down_at < d->middle.to_down.n) loop_defer(d->l, t);
}

static void middle_none(struct stream *s) {}
static void middle_failed(struct stream *s, enum err e) { stream_close(s); }

static void down_data(struct stream *s, char *p, size_t n)
{
    struct duo *d = CONTAINER_OF(s, struct duo, middle.down);
    buf_add(&d->middle.to_up, p, n);
    loop_defer(d->l, &d->middle.task);
}

static void up_data(struct stream *s, char *p, size_t n)
{
    struct duo *d = CONTAINER_OF(s, struct duo, middle.up);
    buf_add(&d->middle.to_down, p, n);
    loop_defer(d->l, &d->middle.task);
}

static const struct stream_ops down_ops = {middle_none, down_data, middle_none, middle_none, middle_failed, middle_none};
static const struct stream_ops up_ops = {middle_none, up_data, middle_none, middle_none, middle_failed, middle_none};

static void middle_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct duo *d = CONTAINER_OF(ln, struct duo, middle_ln);
    d->middle.open = true;
    stream_adopt(&d->middle.down, d->l, &down_ops, fd);
    stream_connect(&d->middle.up, d->l, &up_ops, -1, &d->at);
}

/* ---- duos ---- */

static void proxied_data(struct stream *s, char *p, size_t n)
{
    struct side *e = side_of(s);
    struct duo *d = CONTAINER_OF(e, struct duo, server);
    buf_add(&e->heard, p, n);
    if (e->heard.n < d->proxied.n) return;
    s->ops = &side_ops;
    assert_memory_equal(e->heard.p, d->proxied.p, d->proxied.n);
    stream_tls_accept(s, d->server_ctx, slice_of(e->heard.p + d->proxied.n, e->heard.n - d->proxied.n));
    buf_clear(&e->heard);
    side_begin(e);
}
static const struct stream_ops proxied_ops = {side_connected, proxied_data, side_eof, side_drained, side_failed, side_released};

static void duo_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct duo *d = CONTAINER_OF(ln, struct duo, ln);
    assert_false(d->server.open);
    if (d->proxied.n) {
        stream_adopt(&d->server.s, d->l, &proxied_ops, fd);
        d->server.open = true;
        return;
    }
    stream_adopt(&d->server.s, d->l, &side_ops, fd);
    if (d->server_ctx) stream_tls_accept(&d->server.s, d->server_ctx, (struct slice){0});
    side_begin(&d->server);
}

static int listen_here(struct addr *a)
{
    int fd;
    *a = addr_ip4(0x7f000001, 0);
    assert_int_equal(listen_socket(a, 16, false, &fd), OK);
    assert_int_equal(sys_local_addr(fd, a), 0);
    return fd;
}

void duo_open(struct duo *d, struct loop *l)
{
    d->l = l;
    timer_init(&d->client.pause, side_unpause);
    timer_init(&d->server.pause, side_unpause);
    d->listen_fd = listen_here(&d->at);
    listener_start(&d->ln, l, d->listen_fd, false, duo_accepted);
    if (d->middle.on) {
        task_init(&d->middle.task, middle_pass);
        d->middle_fd = listen_here(&d->middle_at);
        listener_start(&d->middle_ln, l, d->middle_fd, false, middle_accepted);
    }
    stream_connect(&d->client.s, l, &side_ops, -1, d->middle.on ? &d->middle_at : &d->at);
    if (d->proxied.n) assert_true(stream_write_slice(&d->client.s, d->proxied) > 0);
    if (d->client_ctx) {
        struct tls_peer_name name = {slice_cstr(d->server_name), slice_cstr(d->verify_name)};
        stream_tls_connect(&d->client.s, d->client_ctx, name, d->slot);
    }
    side_begin(&d->client);
}

void duo_close(struct duo *d)
{
    listener_stop(&d->ln);
    socket_close(d->listen_fd);
    stream_close(&d->client.s);
    if (d->server.open) stream_close(&d->server.s);
    if (d->middle.on) {
        listener_stop(&d->middle_ln);
        socket_close(d->middle_fd);
        list_del(&d->middle.task.link);
    }
    if (d->middle.open) {
        stream_close(&d->middle.up);
        stream_close(&d->middle.down);
    }
    loop_turn(d->l, 0);
    assert_true(d->client.released && (d->server.released || !d->server.open));
    buf_free(&d->client.heard);
    buf_free(&d->server.heard);
    buf_free(&d->middle.to_up);
    buf_free(&d->middle.to_down);
}

static bool side_settled(const struct side *me, const struct side *other)
{
    if (me->failed || me->s.closed) return true;
    if (other->failed || other->s.closed) return me->eof;
    uint64_t due = other->say ? strlen(other->say) : other->want;
    return me->connected && me->sent == me->want && me->s.out_bytes == 0 && me->got == due && (!other->shut_after || me->eof);
}

bool duo_settled(void *ctx)
{
    struct duo *d = ctx;
    return d->server.open && side_settled(&d->client, &d->server) && side_settled(&d->server, &d->client);
}

static bool server_eof(void *ctx) { return ((struct duo *)ctx)->server.eof; }
static bool server_got_all(void *ctx)
{
    struct duo *x = ctx;
    return x->server.got == x->client.want;
}
static bool client_got_all(void *ctx)
{
    struct duo *x = ctx;
    return x->client.got == x->server.want;
}
static bool client_eof(void *ctx) { return ((struct duo *)ctx)->client.eof; }
static bool server_failed(void *ctx) { return ((struct duo *)ctx)->server.failed; }
static bool client_failed(void *ctx) { return ((struct duo *)ctx)->client.failed; }
static bool either_failed(void *ctx) { return client_failed(ctx) || server_failed(ctx); }
static bool both_connected(void *ctx) { return ((struct duo *)ctx)->client.connected && ((struct duo *)ctx)->server.connected; }

/* ---- certificates ---- */

static struct testcert *root, *other_root, *middle_ca, *cert_a, *cert_b, *cert_a_rsa, *cert_chain, *cert_late, *client_cert, *stranger_cert;
struct tls_ctx *tls_server_plainly, *tls_client_plainly;

static struct testcert *make(const struct testcert *issuer, const char *name, const char *sans)
{
    return testcert_new(issuer, &(struct testcert_conf){.name = name, .sans = sans});
}

static struct tls_cert_conf conf_of(const struct testcert *c)
{
    return (struct tls_cert_conf){slice_cstr(c->chain_pem), slice_cstr(c->key_pem), {0}};
}

static struct tls_ctx *server_ctx(struct tls_server_conf conf, const struct testcert *c)
{
    struct tls_cert_conf cert;
    if (c) {
        cert = conf_of(c);
        conf.certs = &cert;
        conf.certs_n = 1;
    }
    struct tls_ctx *ctx;
    struct buf why = {0};
    if (tls_server_new(&conf, &ctx, &why) != OK) fail_msg("%s", why.p);
    buf_free(&why);
    return ctx;
}

static struct tls_ctx *client_ctx(struct tls_client_conf conf)
{
    if (conf.trust == TLS_TRUST_CA && conf.ca_pem.n == 0) conf.ca_pem = slice_cstr(root->cert_pem);
    struct tls_ctx *ctx;
    struct buf why = {0};
    if (tls_client_new(&conf, &ctx, &why) != OK) fail_msg("%s", why.p);
    buf_free(&why);
    return ctx;
}

struct tls_ctx *tls_scenario_server(struct tls_tickets *keys)
{
    return server_ctx((struct tls_server_conf){.tickets = keys}, cert_a);
}

void tls_certs_make(void)
{
    root = testcert_new(NULL, &(struct testcert_conf){.name = "Root", .ca = true});
    other_root = testcert_new(NULL, &(struct testcert_conf){.name = "Other Root", .ca = true});
    middle_ca = testcert_new(root, &(struct testcert_conf){.name = "Intermediate", .ca = true});
    cert_a = make(root, "a", "DNS:a.example,IP:127.0.0.1,URI:spiffe://mesh/ns/shop/sa/a");
    cert_a_rsa = testcert_new(root, &(struct testcert_conf){.name = "a", .sans = "DNS:a.example,IP:127.0.0.1,URI:spiffe://mesh/ns/shop/sa/a", .rsa = true});
    cert_b = make(root, "b", "DNS:*.b.example,DNS:b.example");
    cert_chain = make(middle_ca, "chain", "DNS:chain.example");
    cert_late = testcert_new(root, &(struct testcert_conf){.name = "late", .sans = "DNS:a.example", .from_s = -7200, .to_s = -3600});
    client_cert = make(middle_ca, "client", "URI:spiffe://mesh/ns/shop/sa/web,DNS:web.example");
    stranger_cert = make(other_root, "stranger", "URI:spiffe://mesh/ns/shop/sa/web");
    tls_server_plainly = server_ctx((struct tls_server_conf){0}, cert_a);
    tls_client_plainly = client_ctx((struct tls_client_conf){0});
}

void tls_certs_free(void)
{
    struct testcert *all[] = {root, other_root, middle_ca, cert_a, cert_b, cert_a_rsa, cert_chain, cert_late, client_cert, stranger_cert};
    for (size_t i = 0; i < COUNT_OF(all); i++) testcert_free(all[i]);
    tls_ctx_unref(tls_server_plainly);
    tls_ctx_unref(tls_client_plainly);
    tls_server_plainly = tls_client_plainly = NULL;
}

/* ---- running ---- */

static struct duo d;
static uint64_t held_before;

static struct loop *begin(void)
{
    world_start();
    memset(&d, 0, sizeof d);
    d.server_ctx = tls_server_plainly;
    d.client_ctx = tls_client_plainly;
    d.server_name = d.verify_name = "a.example";
    held_before = mem_bytes(MEM_TLS);
    return loop_new("test");
}

static void end(struct loop *l)
{
    loop_free(l);
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM), 0);
    assert_int_equal(mem_bytes(MEM_LOOP), 0);
    assert_int_equal(mem_bytes(MEM_TLS), held_before);
}

/* One connection with these settings; d tells what came of it. */
static void talk(struct tls_ctx *server, struct tls_ctx *client, const char *server_name, const char *verify_name, struct tls_session_slot *slot)
{
    struct loop *l = begin();
    d.server_ctx = server;
    d.client_ctx = client;
    d.server_name = server_name;
    d.verify_name = verify_name;
    d.slot = slot;
    d.client.say = "a question";
    d.server.say = "an answer";
    d.client.shut_after = d.server.shut_after = true;
    d.client.close_in = d.server.close_in = CLOSE_IN_FAILED;
    duo_open(&d, l);
    assert_true(world_run(l, duo_settled, &d, RUN_MS));
    duo_close(&d);
    end(l);
}

static void assert_good(void)
{
    if (d.client.failed || d.server.failed) fail_msg("client: %s; server: %s", d.client.error, d.server.error);
    assert_true(d.client.connected && d.server.connected && d.client.eof && d.server.eof);
    assert_false(d.client.truncated || d.server.truncated);
    assert_int_equal(d.client.got, 9);
    assert_int_equal(d.server.got, 10);
}

#define assert_says(text, part) do { if (!strstr((text), (part))) fail_msg("\"%s\" does not say \"%s\"", (text), (part)); } while (0)

/* What the peer said in an alert before it closed. */
#define assert_heard(text, part) do { if (world_alerts) assert_says(text, part); } while (0)

static void check_drop(struct tls_ctx *a, struct tls_ctx *b)
{
    tls_ctx_unref(a);
    tls_ctx_unref(b);
}

/* ---- the handshake ---- */

static void test_handshake(void **state)
{
    static const struct { enum tls_version v; const char *version, *cipher; } cases[] = {
        {TLS_VERSION_1_2, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"}, {TLS_VERSION_1_3, "TLSv1.3", "TLS_AES_128_GCM_SHA256"}};
    struct slice alpn[] = {SLICE("h2"), SLICE("http/1.1")};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_ctx *s = server_ctx((struct tls_server_conf){.alpn = alpn, .alpn_n = 2}, cert_a);
        struct tls_ctx *c = client_ctx((struct tls_client_conf){.min = cases[i].v, .max = cases[i].v, .alpn = &alpn[i], .alpn_n = 1});
        talk(s, c, "A.Example", "a.example", NULL);
        assert_good();
        assert_string_equal(d.client.version, cases[i].version);
        assert_string_equal(d.server.version, cases[i].version);
        assert_string_equal(d.server.cipher, cases[i].cipher);
        assert_true(slice_is(alpn[i], d.client.alpn) && slice_is(alpn[i], d.server.alpn));
        assert_string_equal(d.server.name, "a.example");
        assert_string_equal(d.client.peer, "a.example");
        assert_false(d.client.resumed || d.server.resumed);
        assert_int_equal(d.server.drains + d.client.drains > 0, true); /* both wrote before the handshake was over */
        check_drop(s, c);
    }
}

static void test_versions(void **state)
{
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.min = TLS_VERSION_1_3}, cert_a);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.max = TLS_VERSION_1_2});
    talk(s, c, "a.example", "a.example", NULL);
    assert_true(d.client.failed && d.server.failed && !d.server.connected);
    assert_heard(d.client.error, "no TLS version in common");
    assert_says(d.server.error, "no TLS version in common");
    check_drop(s, c);
}

static void test_ciphers(void **state)
{
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.max = TLS_VERSION_1_2, .ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"}, cert_a);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"});
    talk(s, c, "a.example", "a.example", NULL);
    assert_says(d.server.error, "no cipher in common");
    tls_ctx_unref(c);
    talk(s, tls_client_plainly, "a.example", "a.example", NULL);
    assert_good();
    assert_string_equal(d.client.cipher, "ECDHE-ECDSA-AES256-GCM-SHA384");
    tls_ctx_unref(s);
}

static void test_alpn_none(void **state)
{
    struct slice h2 = SLICE("h2"), old = SLICE("http/0.9");
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.alpn = &h2, .alpn_n = 1}, cert_a);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.alpn = &old, .alpn_n = 1});
    talk(s, c, "a.example", "a.example", NULL);
    assert_says(d.server.error, "application protocol");
    assert_heard(d.client.error, "no application protocol");
    talk(s, tls_client_plainly, "a.example", "a.example", NULL); /* one that offers none */
    assert_good();
    assert_string_equal(d.server.alpn, "");
    check_drop(s, c);
}

/* ---- names ---- */

static void test_sni(void **state)
{
    struct tls_cert_conf certs[] = {conf_of(cert_b), conf_of(cert_a), conf_of(cert_chain), conf_of(cert_a_rsa)};
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.certs = certs, .certs_n = 4}, NULL);
    assert_int_equal(s->sites_n, 3); /* both of a are one choice */
    static const char *const good[] = {"a.example", "b.example", "X.b.example", "chain.example"};
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        talk(s, tls_client_plainly, good[i], good[i], NULL);
        assert_good();
    }
    talk(s, tls_client_plainly, "deep.x.b.example", "deep.x.b.example", NULL); /* the default's, whose wildcard is for one label */
    assert_says(d.client.error, "for *.b.example, b.example, not for deep.x.b.example");
    talk(s, tls_client_plainly, "", "b.example", NULL);
    assert_good();
    assert_string_equal(d.server.name, "");
    struct tls_ctx *rsa = client_ctx((struct tls_client_conf){.max = TLS_VERSION_1_2, .ciphers = "ECDHE-RSA-AES128-GCM-SHA256"});
    talk(s, rsa, "a.example", "a.example", NULL);
    assert_good();
    check_drop(s, rsa);
}

static void test_hosts(void **state)
{
    struct tls_server_conf strict = {.client_auth = TLS_CLIENT_REQUIRED, .client_ca_pem = slice_cstr(root->cert_pem), .min = TLS_VERSION_1_3};
    struct tls_ctx *a = server_ctx((struct tls_server_conf){.max = TLS_VERSION_1_2}, cert_a), *b = server_ctx(strict, cert_b), *set;
    struct tls_host hosts[] = {{SLICE("a.example"), a}, {SLICE("*.b.example"), b}, {SLICE("*"), a}};
    struct buf why = {0};
    assert_int_equal(tls_hosts_new(hosts, 2, &set, &why), OK);
    struct tls_cert_conf cert = conf_of(client_cert);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.cert = &cert});
    talk(set, c, "a.example", "a.example", NULL);
    assert_good();
    assert_string_equal(d.server.version, "TLSv1.2");
    assert_string_equal(d.server.peer, "");
    talk(set, c, "x.b.example", "x.b.example", NULL);
    assert_good();
    assert_string_equal(d.server.version, "TLSv1.3");
    assert_string_equal(d.server.peer, "spiffe://mesh/ns/shop/sa/web");
    talk(set, tls_client_plainly, "x.b.example", "x.b.example", NULL);
    assert_says(d.server.error, "no certificate was sent by the client");
    talk(set, c, "nobody.example", "", NULL);
    assert_says(d.server.error, "nobody serves the name nobody.example");
    assert_heard(d.client.error, "unrecognized name");
    talk(set, c, "", "", NULL);
    assert_says(d.server.error, "sent no server name");
    tls_ctx_unref(set);
    assert_int_equal(tls_hosts_new(hosts, 3, &set, &why), OK);
    talk(set, c, "nobody.example", "", NULL);
    assert_good();
    tls_ctx_unref(set);
    hosts[2].pattern = SLICE("A.EXAMPLE");
    assert_int_equal(tls_hosts_new(hosts, 3, &set, &why), ERR_EXISTS);
    assert_says(why.p, "\"A.EXAMPLE\" is there twice");
    buf_free(&why);
    check_drop(a, b);
    tls_ctx_unref(c);
}

/* ---- trust ---- */

static void test_server_trust(void **state)
{
    struct tls_ctx *other = client_ctx((struct tls_client_conf){.ca_pem = slice_cstr(other_root->cert_pem)});
    talk(tls_server_plainly, other, "a.example", "a.example", NULL);
    assert_int_equal(d.client.why, ERR_TLS);
    assert_says(d.client.error, "the certificate of the peer is not trusted: unable to get local issuer certificate");
    assert_heard(d.server.error, "unknown CA");
    tls_ctx_unref(other);
    struct tls_ctx *insecure = client_ctx((struct tls_client_conf){.trust = TLS_TRUST_ALL});
    talk(tls_server_plainly, insecure, "", "", NULL);
    assert_good();
    tls_ctx_unref(insecure);
    talk(tls_server_plainly, tls_client_plainly, "a.example", "c.example", NULL);
    assert_says(d.client.error, "not for c.example");
    talk(tls_server_plainly, tls_client_plainly, "127.0.0.1", "127.0.0.1", NULL);
    assert_good();
    talk(tls_server_plainly, tls_client_plainly, "", "127.0.0.2", NULL);
    assert_says(d.client.error, "not for 127.0.0.2");
    struct tls_ctx *late = server_ctx((struct tls_server_conf){.any_time = true}, cert_late);
    talk(late, tls_client_plainly, "a.example", "a.example", NULL);
    assert_says(d.client.error, "certificate has expired");
    tls_ctx_unref(late);
    struct tls_ctx *system = client_ctx((struct tls_client_conf){.trust = TLS_TRUST_SYSTEM});
    talk(tls_server_plainly, system, "a.example", "a.example", NULL);
    assert_says(d.client.error, "not trusted");
    tls_ctx_unref(system);
}

static void test_server_sans(void **state)
{
    static const struct { struct tls_san san; bool good; } cases[] = {
        {{TLS_SAN_URI, SLICE("spiffe://mesh/ns/shop/sa/a")}, true}, {{TLS_SAN_ANY, SLICE("spiffe://mesh/ns/shop/sa/a")}, true},
        {{TLS_SAN_DNS, SLICE("A.example")}, true}, {{TLS_SAN_IP, SLICE("127.0.0.1")}, true}, {{TLS_SAN_ANY, SLICE("127.0.0.1")}, true},
        {{TLS_SAN_DNS, SLICE("spiffe://mesh/ns/shop/sa/a")}, false}, {{TLS_SAN_URI, SLICE("spiffe://mesh/ns/shop/sa/A")}, false},
        {{TLS_SAN_ANY, SLICE("example")}, false}, {{TLS_SAN_EMAIL, SLICE("a.example")}, false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_ctx *c = client_ctx((struct tls_client_conf){.sans = &cases[i].san, .sans_n = 1});
        talk(tls_server_plainly, c, "whatever.example", "", NULL);
        if (cases[i].good) assert_good();
        else assert_says(d.client.error, "none of the names that are allowed");
        tls_ctx_unref(c);
    }
}

static void test_client_certs(void **state)
{
    struct tls_cert_conf mine = conf_of(client_cert), strange = conf_of(stranger_cert);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.cert = &mine});
    struct tls_ctx *stranger = client_ctx((struct tls_client_conf){.cert = &strange});
    for (int v = TLS_VERSION_1_2; v <= TLS_VERSION_1_3; v++) {
        struct tls_server_conf conf = {.client_auth = TLS_CLIENT_REQUIRED, .client_ca_pem = slice_cstr(root->cert_pem), .max = (enum tls_version)v};
        struct tls_ctx *s = server_ctx(conf, cert_a);
        talk(s, c, "a.example", "a.example", NULL);
        assert_good();
        assert_string_equal(d.server.peer, "spiffe://mesh/ns/shop/sa/web");
        talk(s, tls_client_plainly, "a.example", "a.example", NULL);
        assert_true(d.server.failed && !d.server.connected && d.server.got == 0);
        assert_says(d.server.error, "no certificate was sent by the client");
        talk(s, stranger, "a.example", "a.example", NULL);
        assert_says(d.server.error, "the certificate of the peer is not trusted: unable to get local issuer certificate");
        assert_int_equal(d.server.got, 0);
        tls_ctx_unref(s);
        conf.client_auth = TLS_CLIENT_OPTIONAL;
        s = server_ctx(conf, cert_a);
        talk(s, tls_client_plainly, "a.example", "a.example", NULL);
        assert_good();
        talk(s, stranger, "a.example", "a.example", NULL);
        assert_says(d.server.error, "not trusted");
        tls_ctx_unref(s);
        struct tls_san sans[2] = {{TLS_SAN_URI, SLICE("spiffe://mesh/ns/shop/sa/cron")}, {TLS_SAN_URI, SLICE("spiffe://mesh/ns/shop/sa/web")}};
        conf.client_sans = sans;
        conf.client_sans_n = 1;
        s = server_ctx(conf, cert_a);
        talk(s, c, "a.example", "a.example", NULL);
        assert_says(d.server.error, "for spiffe://mesh/ns/shop/sa/web, web.example, none of the names that are allowed");
        tls_ctx_unref(s);
        conf.client_sans_n = 2;
        s = server_ctx(conf, cert_a);
        talk(s, c, "a.example", "a.example", NULL);
        assert_good();
        tls_ctx_unref(s);
    }
    check_drop(c, stranger);
}

static void test_cert_info(void **state)
{
    struct loop *l = begin();
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    struct arena a;
    arena_init(&a, MEM_TLS, 4096);
    struct tls_cert_info info, own;
    assert_int_equal(stream_tls_peer(&d.server.s, &a, &info), ERR_NOTFOUND);
    assert_int_equal(stream_tls_peer(&d.client.s, &a, &info), OK);
    assert_int_equal(stream_tls_own(&d.server.s, &a, &own), OK);
    assert_true(slice_is(info.subject, "CN=a,O=Weir Tests") && slice_is(info.issuer, "CN=Root,O=Weir Tests"));
    assert_int_equal(info.sha256.n, 64);
    assert_true(slice_eq(info.sha256, own.sha256) && slice_eq(info.pem_url, own.pem_url));
    assert_true(slice_starts(info.pem_url, SLICE("-----BEGIN%20CERTIFICATE-----%0A")));
    assert_int_equal(info.sans_n, 3);
    assert_true(info.sans[0].kind == TLS_SAN_DNS && info.sans[1].kind == TLS_SAN_IP && info.sans[2].kind == TLS_SAN_URI);
    assert_true(slice_is(info.sans[1].text, "127.0.0.1") && slice_is(info.sans[2].text, "spiffe://mesh/ns/shop/sa/a"));
    assert_int_equal(info.expires_s, tls_ctx_expires_s(tls_server_plainly));
    arena_fini(&a);
    duo_close(&d);
    end(l);
}

static void test_ocsp(void **state)
{
    struct tls_cert_conf certs[] = {conf_of(cert_b), conf_of(cert_a)};
    certs[1].ocsp = SLICE("not looked at by the server");
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.certs = certs, .certs_n = 2}, NULL), *c = client_ctx((struct tls_client_conf){0});
    SSL_CTX_set_tlsext_status_type(c->ssl, TLSEXT_STATUSTYPE_ocsp);
    for (int i = 0; i < 2; i++) {
        struct loop *l = begin();
        d.server_ctx = s;
        d.client_ctx = c;
        d.server_name = d.verify_name = i ? "b.example" : "a.example";
        duo_open(&d, l);
        assert_true(world_run(l, both_connected, &d, RUN_MS));
        const unsigned char *p = NULL;
        long n = SSL_get_tlsext_status_ocsp_resp(d.client.s.tls->ssl, &p);
        assert_int_equal(n, i ? -1 : (long)certs[1].ocsp.n);
        if (i == 0) assert_memory_equal(p, certs[1].ocsp.p, certs[1].ocsp.n);
        duo_close(&d);
        end(l);
    }
    check_drop(s, c);
}

/* ---- resumption ---- */

static void check_resumption(enum tls_version v)
{
    struct tls_tickets *keys = tls_tickets_new(1000), *copy;
    struct tls_ctx *s = server_ctx((struct tls_server_conf){.tickets = keys, .max = v}, cert_a);
    struct tls_ctx *again = server_ctx((struct tls_server_conf){.tickets = keys, .max = v}, cert_a); /* after a change of plan */
    struct tls_session_slot slot = {0};
    talk(s, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_true(!d.server.resumed && slot.session);
    talk(again, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_true(d.server.resumed);
    assert_true(d.client.resumed);
    assert_non_null(slot.session);
    tls_tickets_rotate(keys, 2000);
    tls_tickets_rotate(keys, 3000);
    assert_int_equal(tls_tickets_rotated_ms(keys), 3000);
    talk(s, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_true(d.server.resumed && d.client.resumed);
    tls_tickets_rotate(keys, 4000); /* the ticket was renewed meanwhile */
    talk(s, tls_client_plainly, "a.example", "a.example", &slot);
    assert_true(d.server.resumed);
    struct buf bytes = {0};
    tls_tickets_export(keys, &bytes);
    assert_int_equal(tls_tickets_import(buf_slice(&bytes), &copy), OK);
    assert_int_equal(tls_tickets_import(slice_of(bytes.p, bytes.n - 1), &copy), ERR_SYNTAX);
    assert_int_equal(tls_tickets_import(SLICE("weirtkt1"), &copy), ERR_SYNTAX);
    assert_int_equal(tls_tickets_rotated_ms(copy), 4000);
    buf_free(&bytes);
    struct tls_ctx *next = server_ctx((struct tls_server_conf){.tickets = copy, .max = v}, cert_a); /* another process */
    talk(next, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_true(d.server.resumed);
    for (int i = 0; i < 3; i++) tls_tickets_rotate(copy, 5000);
    talk(next, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_false(d.server.resumed || d.client.resumed);
    tls_session_slot_fini(&slot);
    check_drop(s, again);
    tls_ctx_unref(next);
    tls_tickets_unref(keys);
    tls_tickets_unref(copy);
}

static void test_resumption(void **state)
{
    check_resumption(TLS_VERSION_1_2);
    check_resumption(TLS_VERSION_1_3);
}

/* A session of one policy opens nothing under another; of the same policy it keeps the client's certificate. */
static void test_resumption_policy(void **state)
{
    struct tls_tickets *keys = tls_tickets_new(0);
    struct tls_server_conf strict = {.tickets = keys, .client_auth = TLS_CLIENT_REQUIRED, .client_ca_pem = slice_cstr(root->cert_pem)};
    struct tls_ctx *open = server_ctx((struct tls_server_conf){.tickets = keys}, cert_a), *closed = server_ctx(strict, cert_a);
    struct tls_cert_conf mine = conf_of(client_cert);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.cert = &mine});
    struct tls_session_slot slot = {0};
    talk(open, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    talk(closed, tls_client_plainly, "a.example", "a.example", &slot);
    assert_says(d.server.error, "no certificate was sent by the client");
    tls_session_slot_fini(&slot);
    talk(closed, c, "a.example", "a.example", &slot);
    assert_good();
    talk(closed, c, "a.example", "a.example", &slot);
    assert_good();
    assert_true(d.server.resumed);
    assert_string_equal(d.server.peer, "spiffe://mesh/ns/shop/sa/web");
    tls_session_slot_fini(&slot);
    talk(tls_server_plainly, c, "a.example", "a.example", &slot); /* no tickets there */
    assert_good();
    assert_null(slot.session);
    check_drop(open, closed);
    tls_ctx_unref(c);
    tls_tickets_unref(keys);
}

/* A client that believes another CA, comes as somebody else or means another name resumes nothing of what it began before: a resumed server is not verified. */
static void test_resumption_terms(void **state)
{
    struct tls_tickets *keys = tls_tickets_new(0);
    struct tls_server_conf asks = {.tickets = keys, .client_auth = TLS_CLIENT_OPTIONAL, .client_ca_pem = slice_cstr(root->cert_pem)};
    struct tls_ctx *s = server_ctx(asks, cert_a), *all = client_ctx((struct tls_client_conf){.trust = TLS_TRUST_ALL});
    struct tls_cert_conf mine = conf_of(client_cert);
    struct tls_ctx *c = client_ctx((struct tls_client_conf){.cert = &mine}), *same = client_ctx((struct tls_client_conf){.cert = &mine});
    struct tls_session_slot slot = {0};
    talk(s, all, "a.example", "", &slot);
    assert_good();
    talk(s, all, "a.example", "", &slot);
    assert_good();
    assert_true(d.client.resumed);
    talk(s, tls_client_plainly, "a.example", "not.example", &slot); /* it would have believed whomever it believed before */
    assert_true(d.client.failed && !d.client.resumed);
    tls_session_slot_fini(&slot);
    talk(s, tls_client_plainly, "a.example", "a.example", &slot);
    assert_good();
    assert_non_null(slot.session);
    talk(s, c, "a.example", "a.example", &slot); /* it has a certificate now, and shows it */
    assert_good();
    assert_false(d.client.resumed);
    assert_string_equal(d.server.peer, "spiffe://mesh/ns/shop/sa/web");
    talk(s, same, "a.example", "a.example", &slot); /* another context on the same terms, as after a change of plan */
    assert_good();
    assert_true(d.client.resumed);
    tls_session_slot_fini(&slot);
    check_drop(s, all);
    tls_ctx_unref(c);
    tls_ctx_unref(same);
    tls_tickets_unref(keys);
}

/* ---- data ---- */

static void transfer(struct tls_ctx *server, uint64_t up, uint64_t down, uint32_t up_pause_ms, uint32_t down_pause_ms)
{
    struct loop *l = begin();
    d.server_ctx = server;
    d.client.want = up;
    d.server.want = down;
    d.client.shut_after = d.server.shut_after = true;
    d.server.pause_ms = up_pause_ms;
    d.client.pause_ms = down_pause_ms;
    duo_open(&d, l);
    assert_true(world_run(l, duo_settled, &d, 4 * RUN_MS));
    assert_false(d.client.bad || d.server.bad || d.client.failed || d.server.failed || d.client.truncated || d.server.truncated);
    assert_true(d.client.got == down && d.server.got == up && d.client.eof && d.server.eof);
    duo_close(&d);
    end(l);
}

static void test_transfer(void **state)
{
    struct tls_ctx *old = server_ctx((struct tls_server_conf){.max = TLS_VERSION_1_2}, cert_a);
    transfer(tls_server_plainly, world_transfer_bytes, world_transfer_bytes, 0, 0);
    transfer(old, world_transfer_bytes / 4, world_transfer_bytes, 0, 0);
    transfer(tls_server_plainly, 1, 0, 0, 0);
    transfer(tls_server_plainly, 16384, 16385, 0, 0);
    transfer(tls_server_plainly, 65536, 65537, 0, 0);
    tls_ctx_unref(old);
}

static void test_slow_reader(void **state)
{
    transfer(tls_server_plainly, world_transfer_bytes / 3, 10, 2, 0);
    assert_true(d.client.drains > 0);
    transfer(tls_server_plainly, 0, world_transfer_bytes / 3, 0, 2);
    assert_true(d.server.drains > 0);
}

static void test_half_close(void **state)
{
    struct loop *l = begin();
    d.client.want = 100000;
    d.client.shut_after = d.server.echo = true;
    duo_open(&d, l);
    assert_true(world_run(l, client_eof, &d, RUN_MS));
    assert_true(d.server.eof && d.client.got == 100000 && !d.client.bad && !d.client.truncated);
    duo_close(&d);
    end(l);
}

/* Bytes that arrive one by one are the same as others. */
static void test_bytewise(void **state)
{
    static const size_t steps[] = {1, 7, 4096, 1000000};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct loop *l = begin();
        d.middle.on = true;
        d.middle.step = steps[i];
        d.client.want = d.server.want = i == 0 ? 3000 : 200000;
        duo_open(&d, l);
        assert_true(world_run(l, duo_settled, &d, RUN_MS));
        assert_false(d.client.bad || d.server.bad || d.client.failed || d.server.failed);
        duo_close(&d);
        end(l);
    }
}

static void test_damaged(void **state)
{
    static const size_t places[] = {30, 700, 60000, 150000}; /* within ClientHello, its Finished, data */
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        struct loop *l = begin();
        d.middle.on = true;
        d.middle.step = 5000;
        d.middle.spoil_at = places[i];
        d.client.close_in = CLOSE_IN_FAILED;
        d.client.want = 200000;
        duo_open(&d, l);
        assert_true(world_run(l, i < 2 ? either_failed : server_failed, &d, RUN_MS));
        assert_true(d.server.why == ERR_TLS || (d.client.why == ERR_TLS && !d.server.connected));
        assert_true(!d.server.bad && d.server.got < 200000);
        if (i >= 2) assert_says(d.server.error, "a record was damaged");
        duo_close(&d);
        end(l);
    }
}

static void test_truncated(void **state)
{
    for (int polite = 0; polite < 2; polite++) {
        struct loop *l = begin();
        d.client.want = 50000;
        d.server.echo = true;
        duo_open(&d, l);
        assert_true(world_run(l, server_got_all, &d, RUN_MS));
        if (polite) stream_shut(&d.client.s);
        else assert_int_equal(sys_shutdown_write(d.client.s.fd), 0);
        assert_true(world_run(l, server_eof, &d, RUN_MS));
        assert_true(d.server.got == 50000 && !d.server.bad);
        assert_int_equal(d.server.truncated, !polite);
        assert_int_equal(counter_read(&loop_tls_counters(l)->truncated), polite ? 0 : 1);
        assert_true(world_run(l, client_eof, &d, RUN_MS));
        assert_true(d.client.got == 50000 && !d.client.truncated);
        duo_close(&d);
        end(l);
    }
}

/* Closing says close_notify, too. */
static void test_close_notifies(void **state)
{
    struct loop *l = begin();
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    stream_close(&d.server.s);
    assert_true(world_run(l, client_eof, &d, RUN_MS));
    if (world_alerts) assert_false(d.client.truncated); /* what the kernel does not take at once is lost, as with any close */
    duo_close(&d);
    end(l);
}

static void test_closed_in_handshake(void **state)
{
    struct loop *l = begin();
    d.client_ctx = NULL;
    d.client.say = "\x16\x03\x01\x01";
    d.client.shut_after = true;
    duo_open(&d, l);
    assert_true(world_run(l, server_failed, &d, RUN_MS));
    assert_says(d.server.error, "closed the connection within the handshake");
    duo_close(&d);
    end(l);
}

static void test_reset(void **state)
{
    struct loop *l = begin();
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    stream_reset(&d.server.s);
    assert_true(world_run(l, client_failed, &d, RUN_MS));
    assert_int_equal(d.client.why, ERR_RESET);
    duo_close(&d);
    end(l);
}

/* Who does not read still completes the handshake, and gets nothing before reading is on. */
static void test_deaf(void **state)
{
    struct loop *l = begin();
    d.server.deaf = d.client.deaf = true;
    d.client.say = "a question";
    d.server.say = "an answer";
    d.client.shut_after = d.server.shut_after = true;
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    for (int i = 0; i < 20; i++) loop_turn(l, 1);
    assert_true(d.client.got == 0 && d.server.got == 0 && !d.client.eof && !d.server.eof);
    stream_reading(&d.client.s, true);
    stream_reading(&d.server.s, true);
    assert_true(world_run(l, duo_settled, &d, RUN_MS));
    assert_good();
    duo_close(&d);
    end(l);
}

static void test_close_in_callbacks(void **state)
{
    for (int where = CLOSE_IN_CONNECTED; where <= CLOSE_IN_FAILED; where++)
        for (int who = 0; who < 2; who++) {
            struct loop *l = begin();
            struct side *me = who ? &d.server : &d.client, *other = who ? &d.client : &d.server;
            me->close_in = where;
            me->want = other->want = 300000;
            me->shut_after = other->shut_after = true;
            if (where == CLOSE_IN_FAILED) other->close_in = CLOSE_IN_DATA;
            duo_open(&d, l);
            assert_true(world_run(l, duo_settled, &d, RUN_MS));
            assert_true(me->s.closed || other->s.closed);
            assert_false(d.client.bad || d.server.bad);
            duo_close(&d);
            end(l);
        }
}

/* ---- who is no TLS client ---- */

static void test_garbage(void **state)
{
    static const char *const texts[] = {"hello?", "\x16\x03\x01\xff\xff\x01\x02\x03", "\x80\x10\x01\x03", "\x16\x03\x01\x01\x05\x09\x01\x01\x01\x01", "SSH-2.0-x\r\n"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct loop *l = begin();
        d.client_ctx = NULL;
        d.client.say = texts[i];
        d.client.shut_after = true;
        duo_open(&d, l);
        assert_true(world_run(l, server_failed, &d, RUN_MS));
        assert_int_equal(d.server.why, ERR_TLS);
        /* in the simulator a read may end within "SSH", and the beginning of that could be a method */
        assert_true(!d.server.s.tls_plain_http || (texts[i][0] == 'S' && !sys_threads()));
        duo_close(&d);
        end(l);
    }
}

static void test_plain_http(void **state)
{
    for (int answer = 0; answer < 2; answer++) {
        struct loop *l = begin();
        d.client_ctx = NULL;
        d.client.say = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        d.server.answer_plain = answer;
        d.server.close_in = answer ? CLOSE_IN_EOF : CLOSE_IN_FAILED;
        duo_open(&d, l);
        assert_true(world_run(l, answer ? client_eof : server_failed, &d, RUN_MS));
        assert_says(d.server.error, "the client speaks plain HTTP");
        assert_int_equal(counter_read(&loop_tls_counters(l)->plain_http), 1);
        if (answer) {
            assert_true(slice_starts(buf_slice(&d.client.heard), SLICE("HTTP/1.1 400 ")));
            stream_shut(&d.client.s);
            assert_true(world_run(l, server_eof, &d, RUN_MS));
            assert_true(slice_is(buf_slice(&d.server.heard), d.client.say));
        }
        duo_close(&d);
        end(l);
    }
}

/* A server that speaks no TLS. */
static void test_plain_server(void **state)
{
    struct loop *l = begin();
    d.server_ctx = NULL;
    d.server.say = "HTTP/1.1 400 Bad Request\r\n\r\n";
    duo_open(&d, l);
    assert_true(world_run(l, client_failed, &d, RUN_MS));
    assert_says(d.client.error, "the peer does not speak TLS");
    duo_close(&d);
    end(l);
}

/* ---- limits ---- */

static void test_handshake_limit(void **state)
{
    struct loop *l = begin();
    d.client_ctx = NULL;
    duo_open(&d, l);
    static char record[5 + 16384];
    for (int i = 0; i < 9 && !d.server.failed; i++) { /* one ClientHello of 131,300 bytes, in nine records */
        memcpy(record, "\x16\x03\x01\x40\x00\x01\x02\x00\xe4\x03\x03", i ? 5 : 11);
        (void)stream_write_slice(&d.client.s, slice_of(record, sizeof record));
    }
    assert_true(world_run(l, server_failed, &d, RUN_MS));
    assert_says(d.server.error, "handshake is too long");
    assert_int_equal(counter_read(&loop_tls_counters(l)->limits), 1);
    duo_close(&d);
    end(l);
}

/* Key updates that want answers, from somebody who takes none. */
static void test_control_limit(void **state)
{
    uint64_t write_min = tls_kernel_write_min;
    tls_kernel_write_min = UINT64_MAX; /* a connection that the kernel sends for ends with the first of them */
    struct loop *l = begin();
    d.client.deaf = true;
    d.server.want = 300000000; /* more than the kernel takes, whatever its buffers */
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    for (int i = 0; i < 200 && d.server.s.out_bytes == 0; i++) world_run(l, server_failed, &d, 5);
    assert_true(d.server.s.out_bytes > 0);
    for (int i = 0; i < 4 * TLS_CONTROL_MAX && !d.server.failed; i++) {
        assert_int_equal(SSL_key_update(d.client.s.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        (void)stream_write_slice(&d.client.s, SLICE("x"));
        world_run(l, server_failed, &d, 5);
    }
    assert_true(d.server.failed);
    assert_says(d.server.error, "key updates");
    assert_int_equal(counter_read(&loop_tls_counters(l)->limits), 1);
    duo_close(&d);
    end(l);
    tls_kernel_write_min = write_min;
}

static void test_no_memory(void **state)
{
    struct loop *l = begin();
    duo_open(&d, l);
    mem_fail_nth(1);
    assert_int_equal(stream_write_slice(&d.client.s, SLICE("kept until the handshake is over")), 0);
    mem_fail_nth(0);
    assert_false(d.client.failed);
    assert_true(world_run(l, client_failed, &d, RUN_MS));
    assert_int_equal(d.client.why, ERR_NOMEM);
    duo_close(&d);
    end(l);
}

/* ---- ways in and out ---- */

static void test_after_proxy_header(void **state)
{
    for (int split = 0; split < 2; split++) {
        struct loop *l = begin();
        d.proxied = SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        d.middle.on = true;
        d.middle.step = split ? 3 : 100000;
        d.client.say = "a question";
        d.server.say = "an answer";
        d.client.shut_after = d.server.shut_after = false;
        duo_open(&d, l);
        assert_true(world_run(l, duo_settled, &d, RUN_MS));
        assert_true(!d.client.failed && !d.server.failed && d.client.got == 9 && d.server.got == 10);
        duo_close(&d);
        end(l);
    }
}

/* Files are poured into TLS, by copying or by the kernel; relays and pours from TLS are refused. */
static uint32_t poured;
static void pour_over(struct pour *p, enum err e)
{
    assert_int_equal(e, OK);
    poured++;
}

static void test_pour_file(void **state)
{
    static char bytes[700001];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(i);
    struct loop *l = begin();
    char path[64];
    snprintf(path, sizeof path, "/tmp/weir-tls-pour-%016llx", (unsigned long long)loop_random(l));
    assert_int_equal(file_replace(path, bytes, sizeof bytes, 0600), OK);
    int file;
    uint64_t n, mtime_ns;
    assert_int_equal(file_open(path, &file, &n, &mtime_ns), OK);
    assert_int_equal(n, sizeof bytes);
    d.client.pause_ms = 1;
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    static struct pour pour;
    static struct relay relay;
    poured = 0;
    assert_false(relay_start(&relay, &d.server.s, &d.client.s, 0, NULL));
    assert_true(pour_file_start(&pour, file, 0, &d.server.s, n, pour_over));
    d.server.want = n; /* what the client is to get */
    assert_true(world_run(l, client_got_all, &d, RUN_MS));
    assert_true(!d.client.bad && !d.client.failed && poured == 1);
    assert_int_equal(counter_read(&loop_tls_counters(l)->kernel) > 0, tls_kernel_on());
    file_close(file);
    assert_int_equal(sys_unlink(path), 0);
    duo_close(&d);
    end(l);
}

/* ---- records that the kernel makes ---- */

static char kernel_path[64];

/* A file with the first n bytes of the pattern, and a duo that stands. */
static int kernel_begin(struct loop *l, uint64_t n)
{
    char *bytes = mem_new(MEM_TLS, n);
    for (uint64_t i = 0; i < n; i++) bytes[i] = pattern(i);
    snprintf(kernel_path, sizeof kernel_path, "/tmp/weir-tls-kernel-%016llx", (unsigned long long)loop_random(l));
    assert_int_equal(file_replace(kernel_path, bytes, n, 0600), OK);
    mem_free(bytes);
    int file;
    uint64_t mtime_ns;
    assert_int_equal(file_open(kernel_path, &file, &n, &mtime_ns), OK);
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    return file;
}

static void kernel_end(struct loop *l, int file)
{
    file_close(file);
    assert_int_equal(sys_unlink(kernel_path), 0);
    duo_close(&d);
    end(l);
}

static uint64_t kernel_connections(struct loop *l) { return counter_read(&loop_tls_counters(l)->kernel); }

static void pour_shuts(struct pour *p, enum err e)
{
    pour_over(p, e);
    stream_shut(&d.server.s);
}

/* What was sent before, the file, what is sent behind it, and the end: all of it arrives, in order, however slowly the client reads. */
static void test_kernel_file(void **state)
{
    static const struct { uint32_t n, pause_ms; } ways[] = {{65536, 0}, {300000, 1}, {1000003, 0}, {2000000, 2}};
    static struct pour pour;
    if (!tls_kernel_on()) skip();
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        struct loop *l = begin();
        d.client.pause_ms = ways[i].pause_ms;
        int file = kernel_begin(l, ways[i].n);
        char head[1000];
        for (size_t k = 0; k < sizeof head; k++) head[k] = pattern(k);
        (void)stream_write_more(&d.server.s, &(struct iovec){head, sizeof head}, 1);
        assert_true(pour_file_start(&pour, file, sizeof head, &d.server.s, ways[i].n - sizeof head, pour_shuts));
        d.server.want = d.server.sent = ways[i].n; /* the client is to get it, and drained() has nothing to add */
        assert_true(world_run(l, client_eof, &d, RUN_MS));
        assert_true(d.client.got == ways[i].n && !d.client.bad && !d.client.failed && !d.client.truncated && !d.server.failed);
        assert_true(ways[i].n - sizeof head < TLS_KERNEL_MIN || kernel_connections(l) > 0);
        kernel_end(l, file);
    }
}

static void spring_none(struct stream *s) {}
static void spring_failed(struct stream *s, enum err e) {}
static void spring_data(struct stream *s, char *p, size_t n) { fail(); }
static const struct stream_ops spring_ops = {spring_none, spring_data, spring_none, spring_none, spring_failed, spring_none};

/* A body goes on from another connection without coming to user space; afterwards the connection is used as before. */
static void test_kernel_pour(void **state)
{
    static const uint64_t sizes[] = {1, 65535, 65536, 900001};
    static struct pour pour;
    static char bytes[1000000];
    if (!tls_kernel_on()) skip();
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(i);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct loop *l = begin();
        struct stream spring, drain;
        int fds[2];
        duo_open(&d, l);
        assert_true(world_run(l, both_connected, &d, RUN_MS));
        assert_int_equal(socket_pair(fds), OK);
        stream_adopt(&spring, l, &spring_ops, fds[0]);
        stream_adopt(&drain, l, &spring_ops, fds[1]);
        (void)stream_write_slice(&spring, slice_of(bytes, sizes[i]));
        poured = 0;
        bool pours = pour_start(&pour, &drain, &d.server.s, sizes[i], pour_over);
        assert_true(pours == (sizes[i] >= tls_kernel_min));
        if (!pours) {
            stream_reading(&drain, false);
            (void)stream_write_slice(&d.server.s, slice_of(bytes, sizes[i]));
        }
        d.server.want = d.server.sent = sizes[i];
        assert_true(world_run(l, client_got_all, &d, RUN_MS));
        (void)stream_write_slice(&d.server.s, slice_of(bytes + sizes[i], 5));
        d.client.want = 300; /* and back */
        side_pump(&d.client);
        d.server.want = d.server.sent += 5;
        assert_true(world_run(l, client_got_all, &d, RUN_MS) && world_run(l, server_got_all, &d, RUN_MS));
        assert_true(!d.client.bad && !d.server.bad && poured == pours && (kernel_connections(l) > 0) >= pours);
        stream_close(&spring);
        stream_close(&drain);
        duo_close(&d);
        end(l);
    }
}

/* The kernel can't change its key: who asks for a new one gets all that was sent, and an end. Asked before, OpenSSL goes on sending. */
static void test_kernel_key_update(void **state)
{
    static struct pour pour;
    if (!tls_kernel_on()) skip();
    uint64_t write_min = tls_kernel_write_min;
    tls_kernel_write_min = UINT64_MAX; /* the client is to ask, so OpenSSL sends for it */
    for (int early = 0; early < 2; early++) {
        struct loop *l = begin();
        int file = kernel_begin(l, 500000);
        for (int round = 0; round < 2; round++) {
            if (round == early) {
                assert_true(pour_file_start(&pour, file, 0, &d.server.s, 500000, pour_over));
                d.server.want = d.server.sent = 500000;
                assert_true(world_run(l, client_got_all, &d, RUN_MS));
                assert_int_equal(kernel_connections(l), !early);
            } else {
                assert_int_equal(SSL_key_update(d.client.s.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
                d.client.want = 100;
                side_pump(&d.client);
                assert_true(world_run(l, early ? server_got_all : server_failed, &d, RUN_MS)); /* what came in a later read is lost */
            }
        }
        if (!early) {
            assert_true(world_run(l, server_failed, &d, RUN_MS) && world_run(l, client_eof, &d, RUN_MS));
            assert_says(d.server.error, "new key");
            assert_false(d.client.truncated);
            assert_int_equal(counter_read(&loop_tls_counters(l)->kernel_outdated), 1);
        }
        assert_true(!d.client.bad && !d.client.failed && d.server.failed == !early);
        kernel_end(l, file);
    }
    tls_kernel_write_min = write_min;
}

/* Frames that go straight into the owner's memory; what is behind them in a record does not get lost, with reading off either. */
static void test_frames(void **state)
{
    static const uint64_t ways[][2] = {{0, 0}, {1, 0}, {0, 1}, {2, 3}};
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        struct loop *l = begin();
        struct framer f = {0};
        duo_open(&d, l);
        assert_true(world_run(l, both_connected, &d, RUN_MS));
        framer_init(&f, &d.server.s, pattern);
        f.pauses = ways[i][0];
        f.chains = ways[i][1];
        d.client.want = 2000000;
        d.client.shut_after = true;
        side_pump(&d.client);
        assert_true(world_run(l, server_eof, &d, RUN_MS));
        assert_true(!f.bad && f.fills > 10 && !d.server.truncated);
        assert_int_equal(f.at + (f.mem ? f.mem_n - stream_into_left(&d.server.s) : 0), d.client.want);
        duo_close(&d);
        framer_fini(&f);
        end(l);
    }
}

static void test_counters(void **state)
{
    struct loop *l = begin();
    duo_open(&d, l);
    assert_true(world_run(l, both_connected, &d, RUN_MS));
    const struct tls_counters *c = loop_tls_counters(l);
    assert_true(counter_read(&c->accepted) == 1 && counter_read(&c->connected) == 1 && counter_read(&c->resumed) == 0);
    assert_int_equal(counter_read(&c->failed), 0);
    duo_close(&d);
    end(l);
}

#define AT_ONCE 50
static bool many_settled(void *ctx)
{
    struct duo *all = ctx;
    for (int i = 0; i < AT_ONCE; i++)
        if (!duo_settled(&all[i])) return false;
    return true;
}

/* Many at the same time, their records interleaved in the loop's buffers. */
static void test_many(void **state)
{
    static struct duo all[AT_ONCE];
    struct loop *l = begin();
    for (uint32_t round = 0; round < world_many / AT_ONCE; round++) {
        memset(all, 0, sizeof all);
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            all[i].server_ctx = tls_server_plainly;
            all[i].client_ctx = tls_client_plainly;
            all[i].server_name = "a.example";
            all[i].client.want = 40000 * (i % 3);
            all[i].server.want = 30000 * (i % 4);
            all[i].client.shut_after = all[i].server.shut_after = true;
            all[i].client.close_in = i % 5 == 4 ? CLOSE_IN_DATA : CLOSE_NOWHERE;
            duo_open(&all[i], l);
        }
        assert_true(world_run(l, many_settled, all, RUN_MS));
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            assert_false(all[i].client.bad || all[i].server.bad);
            duo_close(&all[i]);
        }
    }
    end(l);
}

/* ---- building contexts ---- */

static void check_refused(struct tls_server_conf conf, struct slice chain, struct slice key, const char *says)
{
    struct tls_cert_conf cert = {chain, key, {0}};
    if (chain.n || key.n) {
        conf.certs = &cert;
        conf.certs_n = 1;
    }
    struct tls_ctx *ctx = NULL;
    struct buf why = {0};
    assert_int_equal(tls_server_new(&conf, &ctx, &why), ERR_INVALID);
    assert_null(ctx);
    assert_says(why.p, says);
    buf_free(&why);
    assert_int_equal(ERR_peek_error(), 0);
}

static char *pem_encrypted(const struct testcert *c)
{
    BIO *b = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(b, c->key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL), 1);
    char *p;
    long n = BIO_get_mem_data(b, &p);
    char *text = mem_strndup(MEM_MISC, p, (size_t)n);
    BIO_free(b);
    return text;
}

static void test_refused(void **state)
{
    world_start();
    struct tls_server_conf none = {0};
    struct slice chain = slice_cstr(cert_a->chain_pem), key = slice_cstr(cert_a->key_pem);
    check_refused(none, chain, slice_cstr(cert_b->key_pem), "the certificate for a.example, 127.0.0.1, spiffe://mesh/ns/shop/sa/a cannot be used: its private key belongs to another");
    check_refused(none, slice_cstr(cert_late->chain_pem), slice_cstr(cert_late->key_pem), "it has expired");
    check_refused(none, SLICE("nonsense"), key, "no certificate in PEM form");
    check_refused(none, slice_of(chain.p, chain.n / 2), key, "cannot be used: ");
    check_refused(none, chain, (struct slice){0}, "its private key cannot be read: it is empty");
    check_refused(none, chain, slice_of(key.p, key.n / 2), "its private key cannot be read: ");
    char *secret = pem_encrypted(cert_a);
    check_refused(none, chain, slice_cstr(secret), "its private key cannot be read: it is encrypted");
    mem_free(secret);
    check_refused(none, (struct slice){0}, (struct slice){0}, "needs a certificate");
    check_refused((struct tls_server_conf){.ciphers = "NO-SUCH-CIPHER"}, chain, key, "list of ciphers");
    check_refused((struct tls_server_conf){.ciphersuites = "NO-SUCH-SUITE"}, chain, key, "list of cipher suites");
    check_refused((struct tls_server_conf){.min = TLS_VERSION_1_3, .max = TLS_VERSION_1_2}, chain, key, "above the highest");
    check_refused((struct tls_server_conf){.client_auth = TLS_CLIENT_REQUIRED}, chain, key, "the CA for client certificates cannot be used: it is empty");
    world_stop();
}

const struct CMUnitTest tls_scenario_tests[] = {
    cmocka_unit_test(test_handshake), cmocka_unit_test(test_versions), cmocka_unit_test(test_ciphers), cmocka_unit_test(test_alpn_none),
    cmocka_unit_test(test_sni), cmocka_unit_test(test_hosts), cmocka_unit_test(test_server_trust), cmocka_unit_test(test_server_sans),
    cmocka_unit_test(test_client_certs), cmocka_unit_test(test_cert_info), cmocka_unit_test(test_ocsp), cmocka_unit_test(test_resumption),
    cmocka_unit_test(test_resumption_policy), cmocka_unit_test(test_resumption_terms), cmocka_unit_test(test_transfer), cmocka_unit_test(test_slow_reader),
    cmocka_unit_test(test_half_close), cmocka_unit_test(test_bytewise), cmocka_unit_test(test_damaged), cmocka_unit_test(test_truncated),
    cmocka_unit_test(test_close_notifies), cmocka_unit_test(test_closed_in_handshake), cmocka_unit_test(test_reset),
    cmocka_unit_test(test_deaf), cmocka_unit_test(test_close_in_callbacks), cmocka_unit_test(test_garbage), cmocka_unit_test(test_plain_http),
    cmocka_unit_test(test_plain_server), cmocka_unit_test(test_handshake_limit), cmocka_unit_test(test_control_limit),
    cmocka_unit_test(test_no_memory), cmocka_unit_test(test_after_proxy_header), cmocka_unit_test(test_pour_file), cmocka_unit_test(test_kernel_file), cmocka_unit_test(test_kernel_pour), cmocka_unit_test(test_kernel_key_update),
    cmocka_unit_test(test_frames), cmocka_unit_test(test_counters), cmocka_unit_test(test_many),
    cmocka_unit_test(test_refused),
};
const size_t tls_scenario_tests_n = COUNT_OF(tls_scenario_tests);
