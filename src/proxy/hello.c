/* hello.c - what a connection begins with, where that has to be found out before anything else.
 *
 *     [PROXY header] -> [ClientHello: server name] -> down_speaks(): HTTP, or bytes
 *                                              '-> TLS handshake of a listener whose bytes go on in clear -> down_speaks()
 *
 *     the gate: TLS handshake -> ALPN h2: HTTP
 *                             '-> ALPN of bytes: PROXY header -> down_speaks()
 *
 * Only listeners that ask for it come here: those with PROXY headers, those where some names are passed through, those that speak
 * no HTTP. All of it has to arrive within the time for a request's head.
 */
#include "proxy_int.h"
#include "proxy_protocol.h"
#include "tls_hello.h"

struct hello {
    struct down *d;
    struct timer timer;
    struct buf in;          /* what came so far and is not enough */
    bool proxy_header;      /* still to come */
    bool tls;               /* a ClientHello is to be looked at */
    bool handshake;         /* TLS ends here, and what is in it is passed on */
    struct slice sni;       /* with handshake: kept by the stream */
};

static struct down *down_of(struct stream *s) { return CONTAINER_OF(CONTAINER_OF(s, struct http_srv, h1.s), struct down, srv); }

static void hello_free(struct down *d)
{
    struct hello *o = d->hello;
    timer_clear(&o->timer);
    buf_free(&o->in);
    mem_free(o);
    d->hello = NULL;
}

void hello_stop(struct down *d)
{
    timer_clear(&d->hello->timer);
    stream_close(http_srv_stream(&d->srv));
}

static void hello_fail(struct down *d, const char *label)
{
    counter_inc(&d->p->c.hello_failed);
    refusal_count(d->p, label);
    hello_stop(d);
}

static void hello_late(struct timer *t) { hello_fail(CONTAINER_OF(t, struct hello, timer)->d, "slow_hello"); }

static bool addr_from(const struct pp_addr *a, struct addr *out)
{
    if (a->family != PP_IP4 && a->family != PP_IP6)
        return false;
    *out = (struct addr){.port = a->port, .family = a->family == PP_IP4 ? ADDR_IP4 : ADDR_IP6};
    memcpy(out->ip, a->ip, sizeof out->ip);
    return true;
}

static void ends_from(struct down *d, const struct pp_header *h)
{
    struct addr peer;
    if (addr_from(&h->src, &peer)) {
        down_peer(d, &peer);
        (void)addr_from(&h->dst, &d->local);
    }
}

/* Whether this name's bytes go on as they are. */
static bool passed(const struct down *d, struct slice sni)
{
    const struct plan *plan = door_hold(d->door)->plan;
    const struct plan_listener *ln = d->door->token ? plan_listener_find(plan, d->door->token) : NULL;
    return !d->door->token || (ln && plan_tls_passed(plan, ln, sni));
}

/* It is known what is spoken. rest: bytes behind what was taken here; they lie in o->in or in the loop's buffer. */
static void hello_over(struct down *d, struct slice sni, bool pass, struct slice rest)
{
    struct buf in = d->hello->in;
    d->hello->in = (struct buf){0};
    hello_free(d);
    down_speaks(d, sni, pass, rest);
    buf_free(&in);
}

/* TLS that ends here takes one read of what came ahead of it. No client has sent more, as it waits for our part of the handshake. False: refused. */
static bool ahead_fits(struct down *d, struct slice rest)
{
    if (rest.n <= STREAM_READ_BYTES)
        return true;
    hello_fail(d, "hello_too_long");
    return false;
}

static void client_hello(struct down *d, struct slice rest)
{
    struct tls_hello h;
    enum hello_error error;
    const struct plan *plan = door_hold(d->door)->plan;
    const struct plan_listener *ln = d->door->token ? plan_listener_find(plan, d->door->token) : NULL;
    switch (tls_hello_parse(rest.p, rest.n, &h, &error)) {
    case HELLO_MORE:
        return;
    case HELLO_BAD:
        hello_fail(d, hello_error_label(error));
        return;
    case HELLO_NOT_TLS:
        if (ln && ln->protocol == LISTEN_HTTPS && ln->tls) {
            if (ahead_fits(d, rest))
                hello_over(d, SLICE(""), false, rest); /* plain HTTP is answered there */
        } else if (d->door->token)
            hello_fail(d, "not_tls");
        else
            hello_over(d, SLICE(""), true, rest); /* a workload's: whatever it is, it goes to the service */
        return;
    case HELLO_DONE:
        break;
    }
    bool pass = passed(d, tls_hello_host(&h));
    if (!pass && !ahead_fits(d, rest))
        return;
    if (pass || !ln || ln->protocol == LISTEN_HTTP || ln->protocol == LISTEN_HTTPS) {
        hello_over(d, tls_hello_host(&h), pass, rest);
        return;
    }
    if (!ln->tls) {
        hello_fail(d, "unknown_server_name");
        return;
    }
    d->hello->handshake = true;
    struct buf in = d->hello->in;
    d->hello->in = (struct buf){0};
    stream_tls_accept(http_srv_stream(&d->srv), ln->tls, rest);
    buf_free(&in);
}

/* Goes on with all that has come. True: nothing is to be kept. */
static void hello_go(struct down *d, struct slice all)
{
    struct hello *o = d->hello;
    if (o->proxy_header) {
        struct pp_header h;
        size_t used;
        enum pp_error error;
        switch (pp_parse(all.p, all.n, &h, &used, &error)) {
        case PP_MORE:
            return;
        case PP_BAD:
            hello_fail(d, pp_error_label(error));
            return;
        case PP_DONE:
            break;
        }
        if (!h.local)
            ends_from(d, &h);
        else if (d->node)
            d->peer_addr = (struct addr){0}; /* the other node is nobody's client */
        o->proxy_header = false;
        all = slice_of(all.p + used, all.n - used);
        if (o->tls) { /* the ClientHello is looked at from its first byte */
            struct buf in = {0};
            buf_add(&in, all.p, all.n);
            buf_free(&o->in);
            o->in = in;
            all = buf_slice(&o->in);
        }
    }
    if (o->tls)
        client_hello(d, all);
    else
        hello_over(d, SLICE(""), false, all);
}

static void hello_data(struct stream *s, char *p, size_t n)
{
    struct down *d = down_of(s);
    struct hello *o = d->hello;
    if (o->handshake) { /* before connected() there is none */
        buf_add(&o->in, p, n);
        return;
    }
    buf_add(&o->in, p, n);
    hello_go(d, buf_slice(&o->in));
}

/* The first DNS name in the other node's certificate. */
static char *node_name(struct stream *s)
{
    struct arena a;
    struct tls_cert_info info;
    char *name = NULL;
    arena_init(&a, MEM_CONN, 4096);
    enum err e = stream_tls_peer(s, &a, &info);
    for (size_t i = 0; e == OK && i < info.sans_n && !name; i++)
        if (info.sans[i].kind == TLS_SAN_DNS)
            name = mem_strndup(MEM_CONN, info.sans[i].text.p, info.sans[i].text.n);
    arena_fini(&a);
    return name ? name : mem_strdup(MEM_CONN, "unknown");
}

/* It is another node: what does it speak? */
static void gate_secured(struct down *d)
{
    struct stream *s = http_srv_stream(&d->srv);
    struct slice alpn = stream_tls_alpn(s);
    d->peer_node = node_name(s);
    if (slice_is(alpn, NODE_ALPN_BYTES)) {
        d->hello->handshake = false;
        d->hello->proxy_header = true;
    } else if (slice_is(alpn, "h2")) {
        hello_free(d);
        d->peer_addr = (struct addr){0}; /* the other node is nobody's client */
        http_srv_take(&d->srv, &d->p->gate_conf, &down_ops, NULL, SLICE(""));
    } else
        hello_fail(d, "no_alpn");
}

static void hello_secured(struct stream *s)
{
    struct down *d = down_of(s);
    if (UNLIKELY(d->node))
        gate_secured(d);
    else
        hello_over(d, stream_tls_server_name(s), false, SLICE(""));
}

static void hello_eof(struct stream *s) { hello_stop(down_of(s)); }
static void hello_failed(struct stream *s, enum err e) { hello_fail(down_of(s), "hello_failed"); }
static void hello_drained(struct stream *s) { (void)s; }

static void hello_released(struct stream *s)
{
    struct down *d = down_of(s);
    hello_free(d);
    down_gone(d);
}

static const struct stream_ops hello_ops = {
    .connected = hello_secured, .data = hello_data, .eof = hello_eof, .drained = hello_drained, .failed = hello_failed, .released = hello_released};

void hello_start(struct down *d, int fd, bool proxy_protocol, bool tls)
{
    struct proxy *p = d->p;
    stream_adopt(http_srv_stream(&d->srv), p->loop, &hello_ops, fd);
    if (!proxy_protocol && !tls) {
        down_speaks(d, SLICE(""), false, SLICE(""));
        return;
    }
    struct hello *o = d->hello = mem_new(MEM_CONN, sizeof *o);
    o->d = d;
    o->proxy_header = proxy_protocol;
    o->tls = tls;
    timer_init(&o->timer, hello_late);
    timer_set(p->loop, &o->timer, p->conf.head_timeout_ms);
}

void hello_gate(struct down *d, int fd, struct tls_ctx *tls)
{
    struct proxy *p = d->p;
    struct stream *s = http_srv_stream(&d->srv);
    stream_adopt(s, p->loop, &hello_ops, fd);
    stream_silence(s, NODE_SILENT_MS);
    struct hello *o = d->hello = mem_new(MEM_CONN, sizeof *o);
    o->d = d;
    o->handshake = true;
    timer_init(&o->timer, hello_late);
    timer_set(p->loop, &o->timer, p->conf.head_timeout_ms);
    if (!tls) { /* no usable certificate */
        hello_fail(d, "unknown_server_name");
        return;
    }
    if (down_over(d)) { /* who is told so goes elsewhere; a status would be taken for the service's */
        counter_inc(&p->c.connections_over);
        hello_stop(d);
        return;
    }
    stream_tls_accept(s, tls, SLICE(""));
}
