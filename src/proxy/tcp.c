/* tcp.c - bytes between a client and a service: TCPRoute, TLSRoute, service ports that speak no HTTP.
 *
 *     tcp_begin() -> endpoint -> X_SOCKET? -> connecting --connected()--> relay (rt) --done()--> over
 *                       ^                         |
 *                       '--- another endpoint <---'  failed, and nothing of the client's has gone out
 *
 * A session is an exchange of role X_TCP: it chooses its endpoint, waits for sockets, is counted and given up like a request.
 * While it connects the client is not read. Both streams then belong to a relay, which splices what is worth it; where one
 * side is encrypted, bytes are copied here (copy_ops).
 */
#include "proxy_int.h"
#include "proxy_protocol.h"

#define TCP_IDLE_MS 3600000u  /* nothing moves in either direction: as Envoy's idle_timeout */
#define TCP_COUNT_MS 5000     /* how often the bytes of open sessions are counted */
#define TCP_QUEUE_MAX 262144u /* copied bytes that wait for a slow side before the other is not read */

struct tcp {
    struct exchange *x;           /* NULL: the session is over, the streams are going */
    struct down *d;
    struct stream service;
    struct relay relay;
    struct buf early;             /* what the client sent before there was a service */
    struct list link;             /* in proxy.tcps */
    struct series *series;        /* it was opened under; lives as long as the worker */
    uint64_t client_bytes, service_bytes; /* copied */
    uint64_t client_counted, service_counted; /* of all bytes: in the series already */
    uint32_t tries;
    uint32_t idle_ms;
    size_t waiting;               /* copied bytes that waited when the idle time was last looked at */
    uint8_t held;                 /* BREAKER_CONNECTIONS */
    bool service_used;            /* service was given to rt: it is released before the session may go */
    bool client_gone, service_gone; /* released */
    bool relayed, copying;
    bool client_ended, service_ended;
    bool waits;                   /* service is another node's gate, and has not yet said that the replica stands */
    bool again;                   /* another attempt, when the failed one's stream is released */
};

static struct down *down_of(struct stream *s) { return CONTAINER_OF(CONTAINER_OF(s, struct http_srv, h1.s), struct down, srv); }
static struct tcp *tcp_of(struct stream *s) { return CONTAINER_OF(s, struct tcp, service); }
static struct stream *client_of(struct tcp *t) { return http_srv_stream(&t->d->srv); }

static void tcp_free(struct tcp *t)
{
    if (!t->client_gone || (t->service_used && !t->service_gone))
        return;
    struct down *d = t->d;
    d->tcp = NULL;
    buf_free(&t->early);
    mem_free(t);
    down_gone(d);
}

/* What has moved since this was last done; the relay counts what it moves, early bytes were written before. */
static void tcp_count(struct tcp *t)
{
    uint64_t received = t->relay.there.moved + t->client_bytes, sent = t->relay.back.moved + t->service_bytes;
    series_tcp_bytes(t->series, received - t->client_counted, sent - t->service_counted);
    t->client_counted = received;
    t->service_counted = sent;
}

void tcp_sweep(struct proxy *p)
{
    if (list_empty(&p->tcps) || loop_now_ms(p->loop) - p->tcps_counted_ms < TCP_COUNT_MS)
        return;
    p->tcps_counted_ms = loop_now_ms(p->loop);
    LIST_FOREACH(l, &p->tcps)
        tcp_count(CONTAINER_OF(l, struct tcp, link));
}

void tcp_closed(struct exchange *x) { series_tcp_closed(series_tcp(x->p, x->door, x->tcp_rule, x->cluster, x->flag)); }

/* The session is over. reset: its client must see that this was no proper end. */
static void tcp_end(struct tcp *t, enum flag f, bool reset)
{
    struct exchange *x = t->x;
    if (!x)
        return;
    t->x = NULL;
    tcp_count(t);
    list_del(&t->link);
    x->request_bytes = t->client_counted;
    x->response_bytes = t->service_counted;
    breaker_leave(x->us->c, BREAKER_CONNECTIONS, &t->held);
    if (reset)
        stream_reset(client_of(t));
    stream_close(client_of(t));
    if (t->service_used && !t->service_gone)
        stream_close(&t->service);
    exchange_abandon(x, f);
}

void tcp_close(struct down *d) { tcp_end(d->tcp, FLAG_DC, true); }

/* ---- both sides stand ---------------------------------------------------------------------------------------------------- */

static void relay_over(struct relay *r, enum err e)
{
    struct tcp *t = CONTAINER_OF(r, struct tcp, relay);
    tcp_end(t, e == OK ? FLAG_NONE : e == ERR_TIMEOUT ? FLAG_SI : FLAG_UC, e != OK && e != ERR_TIMEOUT);
}

/* Copying, where a side is encrypted. */
static void copy(struct tcp *t, struct stream *from, struct stream *to, char *p, size_t n)
{
    exchange_wait(t->x, t->idle_ms);
    if (stream_write_slice(to, slice_of(p, n)) > TCP_QUEUE_MAX)
        stream_reading(from, false);
}

static void copy_ended(struct tcp *t, struct stream *to, bool *ended)
{
    *ended = true;
    stream_shut(to);
    if (t->client_ended && t->service_ended && !client_of(t)->out_bytes && !t->service.out_bytes)
        tcp_end(t, FLAG_NONE, false);
}

static void copy_drained(struct tcp *t, struct stream *other)
{
    if (t->client_ended && t->service_ended && !client_of(t)->out_bytes && !t->service.out_bytes)
        tcp_end(t, FLAG_NONE, false);
    else
        stream_reading(other, true);
}

/* A slow reader takes from a queue: bytes move, though none is read for a while. As a relay has it. */
static bool copy_moved(struct tcp *t)
{
    size_t waiting = client_of(t)->out_bytes + t->service.out_bytes;
    bool moved = t->copying && waiting && waiting != t->waiting;
    t->waiting = waiting;
    if (moved)
        exchange_wait(t->x, t->idle_ms);
    return moved;
}

/* ---- the client's side ------------------------------------------------------------------------------------------------------ */

static void client_data(struct stream *s, char *p, size_t n)
{
    struct tcp *t = down_of(s)->tcp;
    if (t->copying) {
        t->client_bytes += n;
        copy(t, s, &t->service, p, n);
    } else {
        buf_add(&t->early, p, n); /* at most one read: reading is off until the service stands */
    }
}

static void client_eof(struct stream *s)
{
    struct tcp *t = down_of(s)->tcp;
    if (t->copying)
        copy_ended(t, &t->service, &t->client_ended);
    else
        t->client_ended = true; /* passed on when there is a service */
}

static void client_drained(struct stream *s)
{
    struct tcp *t = down_of(s)->tcp;
    if (t->copying)
        copy_drained(t, &t->service);
}

static void client_failed(struct stream *s, enum err e) { tcp_end(down_of(s)->tcp, FLAG_DC, false); }

static void client_released(struct stream *s)
{
    struct tcp *t = down_of(s)->tcp;
    t->client_gone = true;
    tcp_free(t);
}

static void client_secured(struct stream *s) { (void)s; }

static const struct stream_ops client_ops = {
    .connected = client_secured, .data = client_data, .eof = client_eof, .drained = client_drained, .failed = client_failed, .released = client_released};

/* ---- the service's side ------------------------------------------------------------------------------------------------------- */

/* Bytes pass from here on. */
static void service_stands(struct tcp *t, struct stream *s)
{
    struct exchange *x = t->x;
    struct stream *client = client_of(t);
    timer_clear(&x->timer);
    x->state = X_ANSWER;
    if (UNLIKELY(x->target != NULL)) /* the node that the session came from waits for it */
        stream_write_slice(client, SLICE("\0"));
    if (t->early.n) {
        t->client_bytes += t->early.n;
        stream_write_slice(s, buf_slice(&t->early));
        buf_free(&t->early);
    }
    t->relayed = !t->client_ended && relay_start(&t->relay, client, s, t->idle_ms, relay_over);
    if (t->relayed)
        return;
    t->copying = true;
    exchange_wait(x, t->idle_ms);
    if (t->client_ended)
        stream_shut(s);
    else
        stream_reading(client, true);
}

static void service_connected(struct stream *s)
{
    struct tcp *t = tcp_of(s);
    t->waits = t->x->ep->remote != NULL;
    if (LIKELY(!t->waits))
        service_stands(t, s);
}

/* The gate could not connect, or speaks out of turn: nothing of the client's has been sent. */
static void service_declined(struct tcp *t)
{
    t->waits = false;
    stream_close(&t->service);
    tcp_failed(t->x);
}

static void service_data(struct stream *s, char *p, size_t n)
{
    struct tcp *t = tcp_of(s);
    if (UNLIKELY(t->waits)) {
        if (*p) {
            service_declined(t);
            return;
        }
        t->waits = false;
        service_stands(t, s);
        p++;
        if (--n == 0)
            return;
    }
    t->service_bytes += n;
    copy(t, s, client_of(t), p, n);
}

static void service_eof(struct stream *s)
{
    struct tcp *t = tcp_of(s);
    if (UNLIKELY(t->waits))
        service_declined(t);
    else
        copy_ended(t, client_of(t), &t->service_ended);
}

static void service_drained(struct stream *s)
{
    struct tcp *t = tcp_of(s);
    if (t->copying)
        copy_drained(t, client_of(t));
}

static void service_failed(struct stream *s, enum err e)
{
    struct tcp *t = tcp_of(s);
    if (t->x->state == X_ANSWER) {
        tcp_end(t, FLAG_UC, true);
        return;
    }
    stream_close(s);
    tcp_failed(t->x);
}

static void service_released(struct stream *s)
{
    struct tcp *t = tcp_of(s);
    if (t->x && !t->copying && !t->relayed && t->again) { /* the last attempt's stream is gone: another one may use its place */
        t->service_used = t->again = false;
        exchange_dispatch(t->x);
        return;
    }
    t->service_gone = true;
    tcp_free(t);
}

static const struct stream_ops service_ops = {.connected = service_connected,
                                              .data = service_data,
                                              .eof = service_eof,
                                              .drained = service_drained,
                                              .failed = service_failed,
                                              .released = service_released};

/* ---- choosing and connecting ---------------------------------------------------------------------------------------------------- */

/* What the policy wants on a new connection before the client's bytes. */
static void service_secure(struct tcp *t)
{
    struct exchange *x = t->x;
    const struct upstream_tls *tls = &x->cluster->policy->tls;
    service_keepalive(&t->service, &x->cluster->policy->pool);
    uint8_t version = x->cluster->policy->pool.proxy_protocol;
    char header[PP_V2_BYTES_MAX];
    if (version)
        stream_write_slice(&t->service, proxy_header(x, version, header));
    if (tls->ctx) {
        struct slice sni = slice_cstr(tls->sni ? tls->sni : "");
        stream_tls_connect(&t->service, tls->ctx, (struct tls_peer_name){sni, tls->sans_n || tls->insecure ? SLICE("") : sni}, &x->ep->sessions);
    }
}

/* To another node's gate: who the client is goes first, inside TLS. */
static void node_secure(struct tcp *t)
{
    struct exchange *x = t->x;
    struct http_tls tls = remote_tls(x->ep, x->ep->remote->bytes, &x->ep->sessions);
    char header[PP_V2_BYTES_MAX];
    counter_inc(&x->p->c.up_node_connections);
    stream_silence(&t->service, NODE_SILENT_MS);
    stream_tls_connect(&t->service, tls.ctx, tls.name, tls.sessions);
    stream_write_slice(&t->service, proxy_header(x, 2, header));
}

void tcp_socket(struct exchange *x)
{
    struct tcp *t = x->down->tcp;
    uint32_t ms = x->cluster->policy->pool.connect_timeout_ms;
    int fd;
    exchange_wait(x, ms ? ms : x->p->conf.connect_timeout_ms);
    if (!socket_take(x, &fd))
        return;
    x->state = X_SENT;
    t->service_used = true;
    t->waits = false;
    memset(&t->service, 0, sizeof t->service);
    stream_connect(&t->service, x->p->loop, &service_ops, fd, &x->ep->address);
    if (UNLIKELY(x->ep->remote != NULL))
        node_secure(t);
    else
        service_secure(t);
}

/* Nothing of the client's has been sent, so another endpoint may do. */
void tcp_failed(struct exchange *x)
{
    struct tcp *t = x->down->tcp;
    struct proxy *p = x->p;
    if (x->ep) {
        counter_inc(&p->c.up_connect_failures);
        counter_inc(&x->us->c->count->connect_failures);
        x->ep->lb.shun_until_ms = loop_now_ms(p->loop) + SHUN_MS;
        outlier_result(x->us->c, &x->ep->lb, OUTCOME_LOCAL, loop_now_ms(p->loop), loop_random(p->loop));
    }
    if (!x->ep || x->target || x->tries + 1u >= p->conf.tries_max) {
        if (x->target)
            counter_inc(&p->c.node_refused);
        tcp_end(t, x->ep ? FLAG_UF : FLAG_UH, true);
        return;
    }
    x->tried[x->tries++ % TRIED_MAX] = x->ep->lb.id;
    counter_inc(&p->c.retries);
    counter_inc(&x->us->c->count->retries);
    attempt_drop(x);
    x->state = X_PAUSE;
    if (t->service_used)
        t->again = true; /* when its stream is released */
    else
        exchange_dispatch(x);
}

void tcp_timer(struct exchange *x)
{
    struct tcp *t = x->down->tcp;
    if (x->state == X_ANSWER) {
        if (!copy_moved(t))
            tcp_end(t, FLAG_SI, false);
        return;
    }
    counter_inc(&x->p->c.timeouts_connect);
    if (x->state == X_SENT)
        stream_close(&t->service);
    tcp_failed(x);
}

static const struct plan_cluster *pick(struct proxy *p, const struct plan_tcp_rule *r)
{
    uint64_t at = r->weight_sum ? loop_random(p->loop) % r->weight_sum : 0;
    for (uint32_t i = 0; r->weight_sum && i < r->backends_n; i++) {
        if (at < r->backends[i].weight)
            return r->backends[i].cluster;
        at -= r->backends[i].weight;
    }
    return NULL;
}

/* r NULL: no rule; c NULL: no cluster; target: see exchange. */
static void tcp_open(struct down *d, const struct plan_tcp_rule *r, const struct plan_cluster *c, const struct plan_target *target, struct slice early)
{
    struct proxy *p = d->p;
    if (c && (c->policy->tls.mode == TLS_SIMPLE || c->policy->tls.mode == TLS_MUTUAL) && !c->policy->tls.ctx)
        c = NULL; /* no usable certificates: nothing is sent in clear */
    struct upstream *us = c ? upstream_of(p, c) : NULL;
    struct tcp *t = mem_new(MEM_CONN, sizeof *t);
    struct stream *s = http_srv_stream(&d->srv);
    t->d = d;
    d->tcp = t;
    s->ops = &client_ops;
    counter_inc(&p->c.tcp_sessions);
    t->series = series_tcp(p, d->door, r, c, us ? FLAG_NONE : FLAG_NR);
    series_tcp_opened(t->series);
    if (!us) {
        counter_inc(d->node ? &p->c.node_refused : &p->c.tcp_unrouted);
        series_tcp_closed(t->series);
        stream_reset(s);
        return;
    }
    list_push(&p->tcps, &t->link);
    struct exchange *x = t->x = exchange_new(p, d->door);
    x->role = X_TCP;
    counter_add(&p->c.requests_now, (uint64_t)-1); /* it is no request */
    x->down = d;
    list_push(&d->xs, &x->in_down);
    x->tcp_rule = r;
    x->target = target;
    x->cluster = c;
    x->us = upstream_hold(us);
    t->idle_ms = c->policy->pool.tcp_idle_timeout_ms ? c->policy->pool.tcp_idle_timeout_ms : TCP_IDLE_MS;
    if (breaker_enter(x->us->c, BREAKER_CONNECTIONS, 0, &t->held) != OVERFLOW_NONE) {
        tcp_end(t, FLAG_UO, true);
        return;
    }
    if (early.n)
        buf_add(&t->early, early.p, early.n);
    stream_reading(s, false);
    exchange_dispatch(x);
}

void tcp_begin(struct down *d, const struct plan_tcp_rule *r, struct slice early) { tcp_open(d, r, r ? pick(d->p, r) : NULL, NULL, early); }

void tcp_begin_target(struct down *d, const struct plan_target *t, struct slice early) { tcp_open(d, NULL, t ? t->backend.cluster : NULL, t, early); }
