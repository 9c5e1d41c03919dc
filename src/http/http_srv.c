/* http_srv.c - a connection that a client opened, in whichever version it speaks.
 *
 *     open --> [TLS handshake --ALPN h2--.] --> HTTP/1 (h1_srv.c) --preface--> HTTP/2 (h2_srv.c)
 *                                        '--------------------------------------^
 *
 * Every connection begins as HTTP/1; the stream lies in its h1_srv. HTTP/2 puts its own ops on that stream. A request of HTTP/1
 * is req, of HTTP/2 a stream's; which of both an http_req is shows r->h2.
 */
#include "h2.h"

#define STREAMS_MAX 256
#define WINDOW_BYTES 65535
#define CONN_WINDOW_BYTES (1u << 20)
#define RESETS_MAX 200
#define RESETS_MS 1000
#define HEAD_TIMEOUT_MS 10000
#define IDLE_TIMEOUT_MS 60000
#define BODY_TIMEOUT_MS 60000
#define LINGER_MS 2000

static struct http_srv *srv_of(struct h1_srv *c) { return CONTAINER_OF(c, struct http_srv, h1); }

void http_srv_conf_default(struct http_srv_conf *c)
{
    *c = (struct http_srv_conf){.h2 = true,
                                .streams_max = STREAMS_MAX,
                                .window_bytes = WINDOW_BYTES,
                                .conn_window_bytes = CONN_WINDOW_BYTES,
                                .resets_max = RESETS_MAX,
                                .resets_ms = RESETS_MS};
    c->h1 = (struct h1_srv_conf){.head_timeout_ms = HEAD_TIMEOUT_MS, .idle_timeout_ms = IDLE_TIMEOUT_MS, .body_timeout_ms = BODY_TIMEOUT_MS, .linger_ms = LINGER_MS, .preface = true};
}

/* ---- what HTTP/1 tells -------------------------------------------------------------------------------------------- */

static void h1_request(struct h1_srv *c, const struct h1_head *h, struct pieces body, bool end)
{
    struct http_srv *s = srv_of(c);
    s->req.owner = NULL;
    s->ops->request(s, &s->req, h, body, end);
}

static void h1_body(struct h1_srv *c, struct pieces body, bool end) { srv_of(c)->ops->body(&srv_of(c)->req, body, end); }
static void h1_drained(struct h1_srv *c) { srv_of(c)->ops->drained(&srv_of(c)->req); }
static void h1_aborted(struct h1_srv *c, enum err e) { srv_of(c)->ops->aborted(&srv_of(c)->req, e); }
static void h1_refused(struct h1_srv *c, uint16_t status, const char *label) { srv_of(c)->ops->refused(srv_of(c), status, label); }
static void h1_released(struct h1_srv *c) { srv_of(c)->ops->released(srv_of(c)); }
static void h1_preface(struct h1_srv *c, const char *p, size_t n) { h2_srv_start(srv_of(c), p, n); }

static void h1_secured(struct h1_srv *c)
{
    struct http_srv *s = srv_of(c);
    if (s->ops->secured)
        s->ops->secured(s);
    if (c->state == SRV_HEAD && slice_is(stream_tls_alpn(&c->s), "h2")) {
        timer_clear(&c->timer);
        h2_srv_start(s, NULL, 0);
    }
}

static const struct h1_srv_ops h1_ops = {.request = h1_request,
                                         .body = h1_body,
                                         .drained = h1_drained,
                                         .aborted = h1_aborted,
                                         .refused = h1_refused,
                                         .preface = h1_preface,
                                         .secured = h1_secured,
                                         .released = h1_released};

/* ---- the connection ----------------------------------------------------------------------------------------------------- */

static void init(struct http_srv *c, const struct http_srv_conf *conf, const struct http_srv_ops *ops, const struct tls_ctx *tls)
{
    c->ops = ops;
    c->conf = conf;
    c->h2 = NULL;
    c->req = (struct http_req){.c = c};
    c->secure = tls != NULL;
}

void http_srv_open(struct http_srv *c, struct loop *l, const struct http_srv_conf *conf, const struct http_srv_ops *ops, int fd, struct tls_ctx *tls)
{
    init(c, conf, ops, tls);
    h1_srv_open(&c->h1, l, &conf->h1, &h1_ops, fd);
    if (tls)
        stream_tls_accept(&c->h1.s, tls, SLICE(""));
}

void http_srv_take(struct http_srv *c, const struct http_srv_conf *conf, const struct http_srv_ops *ops, struct tls_ctx *tls, struct slice early)
{
    init(c, conf, ops, tls);
    h1_srv_take(&c->h1, &conf->h1, &h1_ops);
    if (tls)
        stream_tls_accept(&c->h1.s, tls, early);
    else
        h1_srv_feed(&c->h1, early);
}

void http_srv_refuse(struct http_srv *c, uint16_t status, const char *label, const char *text)
{
    if (c->h2 || c->secure) { /* nothing was asked yet, and there may be no handshake to say it through */
        c->ops->refused(c, status, label);
        http_srv_close(c);
        return;
    }
    h1_srv_refuse(&c->h1, status, label, text);
}

bool http_srv_idle(const struct http_srv *c) { return c->h2 ? h2_srv_idle(c) : h1_srv_idle(&c->h1); }

bool http_srv_can_say_last(const struct http_srv *c) { return c->h2 || !c->h1.answering; }

void http_srv_last(struct http_srv *c)
{
    if (c->h2)
        h2_srv_last(c);
    else if (h1_srv_idle(&c->h1))
        h1_srv_close(&c->h1);
    else
        h1_srv_last(&c->h1);
}

void http_srv_close(struct http_srv *c)
{
    if (c->h2)
        h2_srv_close(c);
    else
        h1_srv_close(&c->h1);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------- */

void http_req_reading(struct http_req *r, bool on)
{
    if (UNLIKELY(r->h2 != NULL))
        h2_req_reading(r, on);
    else
        h1_srv_reading(&r->c->h1, on);
}

int http_req_trailers(struct http_req *r, struct h1_field *fields, int max)
{
    if (r->h2)
        return h2_req_trailers(r, fields, max);
    const struct h1_chunked *ch = h1_srv_trailers(&r->c->h1);
    return ch && ch->trailer_n ? h1_chunked_trailers(ch, fields, max) : 0;
}

void http_req_interim(struct http_req *r, struct head_out *o)
{
    if (r->h2)
        h2_req_interim(r, o);
    else
        h1_srv_interim(&r->c->h1, o);
}

size_t http_req_answer(struct http_req *r, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end)
{
    if (UNLIKELY(r->h2 != NULL))
        return h2_req_answer(r, o, framing, length, body, end);
    return h1_srv_answer(&r->c->h1, o, framing, length, body, end);
}

size_t http_req_send(struct http_req *r, struct pieces body) { return r->h2 ? h2_req_send(r, body) : h1_srv_send(&r->c->h1, body); }

void http_req_end(struct http_req *r, struct slice trailers)
{
    if (r->h2)
        h2_req_end(r, trailers);
    else
        h1_srv_end(&r->c->h1, trailers);
}

void http_req_last(struct http_req *r)
{
    if (r->h2)
        h2_req_last(r);
    else
        h1_srv_last(&r->c->h1);
}

void http_req_cut(struct http_req *r)
{
    if (r->h2)
        h2_req_cut(r);
    else
        h1_srv_close(&r->c->h1);
}

void http_req_refuse(struct http_req *r)
{
    if (r->h2)
        h2_req_refuse(r);
    else
        h1_srv_close(&r->c->h1);
}
