/* http_cli.c - a connection that we opened, in whichever version its peer speaks.
 *
 *     connect --> [TLS handshake --> ALPN] --> HTTP/1 (h1_cli.c), one call at a time
 *                                          '-> HTTP/2 (h2_cli.c), many
 *
 * The version is given, or HTTP_UNKNOWN until ALPN has decided: until then there is no room for calls. The
 * stream lies in the h1_cli; HTTP/2 puts its own ops on it.
 */
#include "h2.h"

#define WINDOW_BYTES (256u << 10)
#define CONN_WINDOW_BYTES (1u << 20)
#define STREAMS_MAX 1000
#define POUR_BYTES_MIN 98304 /* below, one or two reads do it with less to set up */

static struct http_cli *cli_of(struct h1_cli *c) { return CONTAINER_OF(c, struct http_cli, h1); }

void http_cli_conf_default(struct http_cli_conf *c)
{
    *c = (struct http_cli_conf){.window_bytes = WINDOW_BYTES, .conn_window_bytes = CONN_WINDOW_BYTES, .streams_max = STREAMS_MAX};
}

/* ---- what HTTP/1 tells ------------------------------------------------------------------------------------------------ */

/* The call is over. k->c stays for the callback that is about to come: trailers are asked for there. */
static struct http_call *call_take(struct http_cli *c)
{
    struct http_call *k = c->call;
    c->call = NULL;
    return k;
}

static void end(struct http_cli *c, enum err e)
{
    if (c->ending || c->h1.state == CLI_CLOSED)
        return;
    c->ending = true;
    c->ops->ended(c, e);
}

static void h1_connected(struct h1_cli *h)
{
    struct http_cli *c = cli_of(h);
    if (c->version == HTTP_UNKNOWN) {
        c->version = slice_is(stream_tls_alpn(&h->s), "h2") ? HTTP_2 : HTTP_1;
        c->waits = false;
        if (c->version == HTTP_2)
            h2_cli_start(c);
    }
    c->ops->connected(c);
}

static void h1_interim(struct h1_cli *h, const struct h1_head *head) { cli_of(h)->ops->interim(cli_of(h)->call, head); }

static void h1_response(struct h1_cli *h, const struct h1_head *head, struct pieces body, bool over)
{
    struct http_cli *c = cli_of(h);
    struct http_call *k = over ? call_take(c) : c->call;
    k->answer_begun = true;
    k->sent |= h->sent; /* an upgrade was declined: nothing more of the request goes out */
    c->ops->response(k, head, body, over);
}

static void h1_body(struct h1_cli *h, struct pieces body, bool over)
{
    struct http_cli *c = cli_of(h);
    c->ops->body(over ? call_take(c) : c->call, body, over);
}

static void h1_drained(struct h1_cli *h)
{
    if (cli_of(h)->call)
        cli_of(h)->ops->drained(cli_of(h)->call);
}

static void h1_failed(struct h1_cli *h, enum err e)
{
    struct http_cli *c = cli_of(h);
    struct http_call *k = call_take(c);
    if (k) {
        k->unsent = !h->connected;
        k->answer_begun = h->answer_begun;
        k->stale = h->connected && !h->answer_begun && h->exchanges > 1 && stream_unheard(&h->s, h->sent_before);
        c->ops->failed(k, e);
    }
    end(c, e);
}

static void h1_idle_end(struct h1_cli *h) { end(cli_of(h), ERR_CLOSED); }
static void h1_released(struct h1_cli *h) { cli_of(h)->ops->released(cli_of(h)); }

static const struct h1_cli_ops h1_ops = {.connected = h1_connected,
                                         .interim = h1_interim,
                                         .response = h1_response,
                                         .body = h1_body,
                                         .drained = h1_drained,
                                         .failed = h1_failed,
                                         .idle_end = h1_idle_end,
                                         .released = h1_released};

/* ---- the connection ------------------------------------------------------------------------------------------------------- */

void http_cli_connect(struct http_cli *c, struct loop *l, const struct http_cli_conf *conf, const struct http_cli_ops *ops, int fd, const struct addr *a, enum http_version version, const struct http_tls *tls)
{
    c->ops = ops;
    c->conf = conf;
    c->h2 = NULL;
    c->call = NULL;
    c->ending = false;
    c->version = (uint8_t)(version == HTTP_UNKNOWN && !tls ? HTTP_1 : version);
    c->waits = c->version == HTTP_UNKNOWN;
    h1_cli_connect(&c->h1, l, conf->limits, &h1_ops, fd, a);
    if (c->ahead.n)
        stream_write_slice(&c->h1.s, c->ahead);
    if (tls)
        stream_tls_connect(&c->h1.s, tls->ctx, tls->name, tls->sessions);
    if (c->version == HTTP_2)
        h2_cli_start(c); /* what is asked waits in the stream for the connection */
}

uint32_t http_cli_room(const struct http_cli *c)
{
    if (c->ending)
        return 0;
    if (c->h2)
        return h2_cli_room(c);
    if (!c->h1.connected)
        return c->call || c->waits ? 0 : 1;
    return !c->call && h1_cli_reusable(&c->h1) ? 1 : 0;
}

uint32_t http_cli_calls(const struct http_cli *c) { return c->h2 ? h2_cli_calls(c) : c->call ? 1 : 0; }

uint32_t http_cli_streams_told(const struct http_cli *c) { return c->h2 ? h2_cli_streams_told(c) : 0; }

void http_cli_rest(struct http_cli *c) { h1_cli_reading(&c->h1, true); }

void http_cli_close(struct http_cli *c)
{
    c->ending = true;
    if (c->h2) {
        h2_cli_close(c);
        return;
    }
    h1_cli_close(&c->h1);
    struct http_call *k = call_take(c);
    if (k)
        c->ops->failed(k, ERR_CLOSED);
}

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

size_t http_cli_request(struct http_cli *c, struct http_call *k, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end_now)
{
    *k = (struct http_call){.c = c, .sent = end_now};
    if (UNLIKELY(c->h2 != NULL))
        return h2_cli_request(c, k, method, head, framing, body, end_now);
    MUST(c->version != HTTP_UNKNOWN);
    c->call = k;
    return h1_cli_request(&c->h1, method, head, framing, body, end_now);
}

size_t http_call_send(struct http_call *k, struct pieces body) { return k->h2 ? h2_call_send(k, body) : h1_cli_send(&k->c->h1, body); }
size_t http_call_queued(const struct http_call *k) { return k->h2 ? h2_call_queued(k) : k->c->h1.s.out_bytes; }

void http_call_end(struct http_call *k, struct slice trailers)
{
    k->sent = true;
    if (k->h2)
        h2_call_end(k, trailers);
    else
        h1_cli_end(&k->c->h1, trailers);
}

void http_call_reading(struct http_call *k, bool on)
{
    if (k->h2)
        h2_call_reading(k, on);
    else
        h1_cli_reading(&k->c->h1, on);
}

int http_call_trailers(struct http_call *k, struct h1_field *fields, int max)
{
    if (k->h2)
        return h2_call_trailers(k, fields, max);
    const struct h1_chunked *ch = h1_cli_trailers(&k->c->h1);
    return ch && ch->trailer_n ? h1_chunked_trailers(ch, fields, max) : 0;
}

bool http_call_pour(struct http_call *k, struct http_req *r, struct pour *p, void (*done)(struct pour *p, enum err e))
{
    if (k->h2 || r->h2)
        return false;
    struct h1_cli *up = &k->c->h1;
    struct h1_srv *down = &r->c->h1;
    if (up->body.framing != H1_LENGTH || up->body.left < POUR_BYTES_MIN || up->state != CLI_BODY || down->answer != H1_LENGTH || down->head_request || down->s.out_bytes)
        return false;
    return pour_start(p, &up->s, &down->s, up->body.left, done);
}

void http_call_poured(struct http_call *k)
{
    MUST(k->c->call == k);
    h1_cli_poured(&k->c->h1);
    call_take(k->c);
}

void http_call_cancel(struct http_call *k)
{
    struct http_cli *c = k->c;
    if (k->h2) {
        h2_call_cancel(k);
        return;
    }
    MUST(c->call == k);
    call_take(c);
    c->ending = true; /* the rest of the answer would come: nothing else may be asked on it */
}
