/* h1_srv.c - the server's end of an HTTP/1.x connection.
 *
 *     HEAD --request()--> BODY --body(end)--> WAIT --answered--> HEAD ... or LINGER -> CLOSED
 *          \--request(end)----------------------^
 *
 * state follows what is READ; answering/answered follow what is WRITTEN. The exchange is over when the request is read
 * (WAIT) and answered; then the next head is parsed, from in[] when bytes were read ahead (pipelining). An answer that is
 * complete before the request's body is read ends the connection: LINGER sends FIN and throws away what still comes, for a
 * bounded time and number of bytes, so that the answer is not lost to a reset (RFC 9112 section 9.6).
 *
 * A next request is not begun before the answer to the last one is in the kernel (unsent()): a client that sends a pipeline
 * and reads nothing costs one answer, not all of them.
 *
 * consuming is set while consume() is on the stack: an answer given inside request() then only leaves a mark, and consume()
 * goes on in its loop, so that a pipeline of any length needs no recursion.
 */
#include "http_int.h"

#define LINGER_BYTES_MAX (1u << 20) /* thrown away at most while lingering */
#define AHEAD_BYTES_MAX 65536u      /* read ahead at most while an exchange is open; then reading stops */

static void consume(struct h1_srv *c, const char *p, size_t n);
static void turnover(struct h1_srv *c, bool more);
static void linger(struct h1_srv *c, bool more);
static void next_head(struct h1_srv *c);

static struct h1_srv *srv_of(struct stream *s) { return CONTAINER_OF(s, struct h1_srv, s); }
static bool exchange_open(const struct h1_srv *c) { return c->state == SRV_BODY || c->state == SRV_WAIT; }
static bool unsent(const struct h1_srv *c) { return c->s.out_bytes > 0; }
/* The next head has to wait until the last answer is in the kernel. */
static bool blocked(const struct h1_srv *c) { return c->state == SRV_HEAD && unsent(c); }
static bool tunnel(const struct h1_srv *c) { return c->answer == H1_TUNNEL && c->answering; }
/* What the client is given time for is to read: its request has come, or is not read now, or is a tunnel, which may be silent. */
static bool reader_timed(const struct h1_srv *c) { return c->state != SRV_BODY || c->paused || tunnel(c); }

/* ---- refusals --------------------------------------------------------------------------------------------------- */

void h1_srv_refuse(struct h1_srv *c, uint16_t status, const char *label, const char *text)
{
    struct head_out *o = c->conf->out;
    c->ops->refused(c, status, label);
    head_clear(o);
    head_status(o, status, SLICE(""));
    head_lit(o, "Content-Type: text/plain\r\nConnection: close\r\nContent-Length: ");
    head_u64(o, strlen(text) + 7);
    head_lit(o, "\r\n\r\nweir: ");
    head_slice(o, slice_cstr(text));
    head_lit(o, "\n");
    stream_write_slice(&c->s, slice_of(o->p, o->n));
    linger(c, true);
}

/* The body of an open exchange can't be read on. */
static void abort_exchange(struct h1_srv *c, enum err e)
{
    bool answering = c->answering;
    c->state = SRV_LINGER; /* the owner may not write any more */
    c->ops->aborted(c, e);
    if (e == ERR_TIMEOUT && !answering)
        h1_srv_refuse(c, 408, "slow_body", "the request's body stopped coming; send it without pauses of this length");
    else if (e == ERR_SYNTAX && !answering)
        h1_srv_refuse(c, 400, "bad_chunk", "the request's chunked body is malformed (RFC 9112 section 7.1)");
    else
        h1_srv_close(c);
}

/* ---- timers ----------------------------------------------------------------------------------------------------- */

/* The client has to read some of what is queued before the time is over. */
static void unsent_timer(struct h1_srv *c)
{
    c->unsent_before = c->s.out_bytes;
    timer_set(c->s.loop, &c->timer, c->conf->body_timeout_ms);
}

static void srv_timer(struct timer *t)
{
    struct h1_srv *c = CONTAINER_OF(t, struct h1_srv, timer);
    bool writing = unsent(c) && reader_timed(c);
    if (writing && c->s.out_bytes < c->unsent_before) {
        unsent_timer(c);
        return;
    }
    switch ((enum h1_srv_state)c->state) {
    case SRV_HEAD:
        if (c->s.tls_handshake) { /* there is nobody yet to whom a word could be said */
            c->ops->refused(c, 408, "slow_head");
            h1_srv_close(c);
        } else if (writing || (c->in_n == 0 && !c->first))
            h1_srv_close(c); /* an idle kept connection: RFC 9112 section 9.5, close without a word */
        else
            h1_srv_refuse(c, 408, "slow_head", "the request's head did not arrive in time");
        return;
    case SRV_BODY:
        abort_exchange(c, ERR_TIMEOUT);
        return;
    case SRV_WAIT: /* the client does not read its answer */
        abort_exchange(c, ERR_TIMEOUT);
        return;
    case SRV_LINGER:
        h1_srv_close(c);
        return;
    case SRV_CLOSED:
        return;
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static void request_begin(struct h1_srv *c, const struct h1_head *h)
{
    c->minor = h->minor;
    c->head_request = h->method_id == H1_HEAD;
    c->connect_request = h->method_id == H1_CONNECT;
    c->keep_alive = h->keep_alive && c->keep_alive;
    c->answering = c->answered = false;
    c->first = false;
    body_begin(&c->body, h);
    c->state = c->body.left || c->body.chunked ? SRV_BODY : SRV_WAIT;
}

/* Parses one head at p and hands the request on. Returns bytes used; 0: no more can be done with these bytes. */
static size_t take_head(struct h1_srv *c, const char *p, size_t n)
{
    struct h1_head h;
    size_t used, body_used = 0;
    enum h1_error error;
    if (p == c->in && n == c->in_n && c->scan && !h1_head_end(p, n, &c->scan)) {
        if (n > c->conf->limits->head_bytes_max)
            h1_srv_refuse(c, 431, "head_too_large", "the request's head is larger than this gateway takes");
        return 0;
    }
    switch (h1_parse_request(p, n, c->conf->limits, &h, &used, &error)) {
    case H1_MORE:
        if (!c->scan) {
            c->scan = 1;
            timer_set(c->s.loop, &c->timer, c->conf->head_timeout_ms);
        }
        return 0;
    case H1_BAD:
        h1_srv_refuse(c, h1_error_status(error), h1_error_label(error), h1_error_text(error));
        return 0;
    case H1_DONE:
        break;
    }
    c->scan = 0;
    timer_clear(&c->timer);
    request_begin(c, &h);
    struct iovec v[PIECES_MAX];
    struct pieces body = {v, 0, 0};
    bool end = c->state == SRV_WAIT;
    if (c->state == SRV_BODY) {
        if (n > used && !body_take(&c->body, p + used, n - used, &body_used, v, &body, &end)) {
            h1_srv_refuse(c, 400, "bad_chunk", "the request's chunked body is malformed (RFC 9112 section 7.1)");
            return 0;
        }
        if (end)
            c->state = SRV_WAIT;
        else
            timer_set(c->s.loop, &c->timer, c->conf->body_timeout_ms);
    }
    c->ops->request(c, &h, body, end);
    return used + body_used;
}

static size_t take_body(struct h1_srv *c, const char *p, size_t n)
{
    struct iovec v[PIECES_MAX];
    struct pieces body;
    size_t used;
    bool end;
    if (!body_take(&c->body, p, n, &used, v, &body, &end)) {
        abort_exchange(c, ERR_SYNTAX);
        return 0;
    }
    if (end) {
        c->state = SRV_WAIT;
        if (c->paused) { /* nothing of it is left to be held back, and that the client leaves is to be seen */
            c->paused = false;
            stream_reading(&c->s, true);
        }
        if (unsent(c))
            unsent_timer(c);
        else
            timer_clear(&c->timer);
    } else if (!c->paused && !tunnel(c)) /* how long a tunnel may be silent is the owner's to say */
        timer_set(c->s.loop, &c->timer, c->conf->body_timeout_ms);
    if (body.bytes || end)
        c->ops->body(c, body, end);
    return used;
}

/* Stops reading when as much was read ahead as may be; turnover() or drained() goes on. */
static void ahead_limit(struct h1_srv *c)
{
    if ((c->state == SRV_WAIT || blocked(c)) && c->in_n >= AHEAD_BYTES_MAX)
        stream_reading(&c->s, false);
}

/* Uses p[n], which may lie in in[]; what can't be used yet is kept there. */
static void consume(struct h1_srv *c, const char *p, size_t n)
{
    c->consuming = true;
    while (n) {
        size_t used = 0;
        if (c->state == SRV_WAIT && c->answered)
            turnover(c, true);
        if (c->state == SRV_HEAD && !blocked(c))
            used = take_head(c, p, n);
        else if (c->state == SRV_BODY)
            used = take_body(c, p, n);
        if (!used)
            break;
        p += used;
        n -= used;
    }
    c->consuming = false;
    if (c->state == SRV_WAIT && c->answered)
        turnover(c, n > 0);
    if (c->state == SRV_LINGER || c->state == SRV_CLOSED) {
        if (c->state == SRV_CLOSED || c->in)
            ahead_free(&c->in, &c->in_n, &c->in_cap);
        return;
    }
    ahead_keep(&c->in, &c->in_n, &c->in_cap, p, n);
    if (c->in_n && c->state == SRV_HEAD && c->scan == 0 && !blocked(c))
        loop_defer(c->s.loop, &c->resume); /* turnover() came after the loop: a next request waits in in[] */
    ahead_limit(c);
}

/* The client has ended its direction of a tunnel. What was read ahead of that goes first. */
static void tunnel_ended(struct h1_srv *c)
{
    if (c->in_n)
        consume(c, c->in, c->in_n);
    if (c->state != SRV_BODY)
        return;
    c->state = SRV_WAIT;
    c->ops->body(c, (struct pieces){0}, true);
}

static void srv_resume(struct task *t)
{
    struct h1_srv *c = CONTAINER_OF(t, struct h1_srv, resume);
    if (c->in_n && (c->state == SRV_HEAD || (c->state == SRV_BODY && !c->paused)))
        consume(c, c->in, c->in_n);
    if (!c->s.eof_seen || !list_empty(&c->resume.link) || (tunnel(c) && c->paused))
        return;
    if (c->state == SRV_BODY && tunnel(c))
        tunnel_ended(c);
    else if (c->state == SRV_BODY) /* nothing follows what was read ahead */
        abort_exchange(c, ERR_CLOSED);
    else if (c->state == SRV_HEAD && !blocked(c))
        h1_srv_close(c);
}

/* The first bytes are those of HTTP/2's preface (RFC 9113 section 3.4): no HTTP/1 method is PRI. */
static bool is_preface(const struct h1_srv *c, const char *p, size_t n) { return c->first && c->conf->preface && n >= 4 && memcmp(p, "PRI ", 4) == 0; }

static void srv_data(struct stream *s, char *p, size_t n)
{
    struct h1_srv *c = srv_of(s);
    if (UNLIKELY(c->first) && c->state == SRV_HEAD && !c->in_n && is_preface(c, p, n)) {
        timer_clear(&c->timer);
        c->ops->preface(c, p, n);
        return;
    }
    if (c->state == SRV_LINGER) {
        c->lingered += (uint32_t)n;
        if (c->lingered > LINGER_BYTES_MAX) {
            if (unsent(c))
                stream_reading(s, false); /* drained() or the timer ends it */
            else
                h1_srv_close(c);
        }
        return;
    }
    if (LIKELY(!c->in_n)) {
        consume(c, p, n);
        return;
    }
    ahead_keep(&c->in, &c->in_n, &c->in_cap, p, n);
    if (c->state == SRV_WAIT || blocked(c)) {
        ahead_limit(c);
        return;
    }
    if (UNLIKELY(is_preface(c, c->in, c->in_n))) { /* it came in bits */
        timer_clear(&c->timer);
        c->ops->preface(c, c->in, c->in_n);
        ahead_free(&c->in, &c->in_n, &c->in_cap);
        return;
    }
    consume(c, c->in, c->in_n);
}

static void srv_connected(struct stream *s)
{
    struct h1_srv *c = srv_of(s);
    if (c->ops->secured)
        c->ops->secured(c);
}

static void srv_eof(struct stream *s)
{
    struct h1_srv *c = srv_of(s);
    bool resuming = !list_empty(&c->resume.link);
    if (c->state == SRV_WAIT && c->conf->eof_leaves && c->answer != H1_TUNNEL) {
        abort_exchange(c, ERR_CLOSED);
    } else if (c->state == SRV_WAIT) { /* it may have closed its sending side only: it still gets its answers */
        if (!c->in_n)
            c->keep_alive = false;
    } else if (c->state == SRV_BODY && tunnel(c))
        tunnel_ended(c);
    else if (c->state == SRV_BODY)
        abort_exchange(c, ERR_CLOSED);
    else if (!unsent(c) && !(c->state == SRV_HEAD && resuming)) /* else drained() or srv_resume() ends it */
        h1_srv_close(c);
}

static void srv_failed(struct stream *s, enum err e)
{
    struct h1_srv *c = srv_of(s);
    if (UNLIKELY(s->tls_plain_http) && c->state == SRV_HEAD) { /* what was sent is neither read nor served: it was meant to be secret, or for another port */
        stream_tls_drop(s);
        h1_srv_refuse(c, 400, "plain_http", "this port speaks HTTPS and the request came in clear; ask with https://");
        return;
    }
    if (exchange_open(c)) {
        c->state = SRV_LINGER;
        c->ops->aborted(c, e);
    }
    h1_srv_close(c);
}

static void srv_drained(struct stream *s)
{
    struct h1_srv *c = srv_of(s);
    if (exchange_open(c)) {
        if (reader_timed(c))
            timer_clear(&c->timer);
        c->ops->drained(c);
    } else if (c->state == SRV_LINGER) {
        if (s->eof_seen || c->lingered > LINGER_BYTES_MAX)
            h1_srv_close(c);
        else
            timer_set(s->loop, &c->timer, c->conf->linger_ms);
    } else if (c->state == SRV_HEAD)
        next_head(c);
}

static void srv_released(struct stream *s)
{
    struct h1_srv *c = srv_of(s);
    ahead_free(&c->in, &c->in_n, &c->in_cap);
    body_fini(&c->body);
    c->ops->released(c);
}

static const struct stream_ops srv_stream_ops = {
    .connected = srv_connected, .data = srv_data, .eof = srv_eof, .drained = srv_drained, .failed = srv_failed, .released = srv_released};

/* ---- writing -------------------------------------------------------------------------------------------------------- */

/* The exchange is over: the next one, or the end. more: bytes behind the request were read already. */
static void turnover(struct h1_srv *c, bool more)
{
    if (!c->keep_alive || (c->s.eof_seen && !more)) {
        linger(c, more);
        return;
    }
    c->state = SRV_HEAD;
    c->answering = c->answered = c->paused = false;
    c->scan = 0;
    if (unsent(c))
        unsent_timer(c); /* until drained() */
    else
        next_head(c);
}

/* All that was answered is in the kernel: a next request may come, or lies in in[] already. */
static void next_head(struct h1_srv *c)
{
    timer_set(c->s.loop, &c->timer, c->conf->idle_timeout_ms);
    if (!c->s.reading)
        stream_reading(&c->s, true);
    if (c->consuming)
        return;
    if (c->in_n)
        loop_defer(c->s.loop, &c->resume);
    else if (!c->keep_alive || c->s.eof_seen)
        linger(c, false);
}

/* Closes so that what was written arrives: at once when nothing of the client's is unread, else after its FIN. more: the client
 * sent, or may be sending, what will not be looked at. */
static void linger(struct h1_srv *c, bool more)
{
    bool all_read = c->s.eof_seen || (!more && !c->s.readable);
    if (all_read && !unsent(c)) {
        h1_srv_close(c);
        return;
    }
    c->state = SRV_LINGER;
    ahead_free(&c->in, &c->in_n, &c->in_cap);
    stream_shut(&c->s);
    if (!c->s.reading)
        stream_reading(&c->s, true);
    if (unsent(c))
        unsent_timer(c); /* until drained() */
    else
        timer_set(c->s.loop, &c->timer, c->conf->linger_ms);
}

static void answer_done(struct h1_srv *c)
{
    c->answered = true;
    if (c->state == SRV_BODY) { /* also a tunnel: with the service's direction all of it ends */
        c->keep_alive = false;
        linger(c, true);
    } else if (!c->consuming)
        turnover(c, c->in_n > 0);
}

static size_t written(struct h1_srv *c, size_t queued)
{
    if (queued && reader_timed(c) && !timer_is_set(&c->timer))
        unsent_timer(c); /* until drained() */
    return queued;
}

void h1_srv_interim(struct h1_srv *c, struct head_out *o)
{
    if (c->minor == 0 || c->answering || !exchange_open(c) || o->over)
        return;
    head_tail(o);
    head_lit(o, "\r\n");
    written(c, stream_write_slice(&c->s, slice_of(o->p, o->n)));
}

/* From now on both directions carry bytes of another protocol (RFC 9110 sections 7.8 and 9.3.6). What the client sent behind its
 * request lies in in[]. */
static void tunnel_begin(struct h1_srv *c, struct head_out *o)
{
    head_tail(o);
    if (!c->connect_request)
        head_lit(o, "Connection: upgrade\r\n");
    head_lit(o, "\r\n");
    MUST(!o->over);
    c->keep_alive = false;
    c->state = SRV_BODY;
    c->body.framing = H1_TUNNEL;
    timer_clear(&c->timer);
    if ((c->in_n || c->s.eof_seen) && !c->consuming)
        loop_defer(c->s.loop, &c->resume);
}

size_t h1_srv_answer(struct h1_srv *c, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end)
{
    MUST(exchange_open(c) && !c->answering && !o->over);
    c->answering = true;
    c->answer = (uint8_t)framing;
    if (framing == H1_TUNNEL) {
        tunnel_begin(c, o);
        return written(c, body_write(&c->s, slice_of(o->p, o->n), body, H1_TUNNEL, end, SLICE("")));
    }
    if (UNLIKELY(c->connect_request))
        c->keep_alive = false; /* what its client has sent on is no request */
    if (end && c->state == SRV_BODY)
        c->keep_alive = false; /* the rest of the request will not be read: RFC 9112 section 9.6 */
    head_tail(o);
    if (framing == H1_LENGTH) {
        head_lit(o, "Content-Length: ");
        head_u64(o, length);
        head_lit(o, "\r\n");
    } else if (framing != H1_NO_BODY) {
        c->answer = c->minor ? H1_CHUNKED : H1_UNTIL_CLOSE;
        if (c->minor)
            head_lit(o, "Transfer-Encoding: chunked\r\n");
        else
            c->keep_alive = false;
    }
    if (!c->keep_alive)
        head_lit(o, "Connection: close\r\n");
    else if (c->minor == 0)
        head_lit(o, "Connection: keep-alive\r\n");
    head_lit(o, "\r\n");
    if (c->head_request || framing == H1_NO_BODY) {
        c->answer = H1_NO_BODY;
        body = (struct pieces){0};
    }
    MUST(!o->over);
    size_t queued = written(c, body_write(&c->s, slice_of(o->p, o->n), body, (enum h1_framing)c->answer, end, SLICE("")));
    if (end)
        answer_done(c);
    return queued;
}

size_t h1_srv_send(struct h1_srv *c, struct pieces body)
{
    MUST(exchange_open(c) && c->answering && !c->answered);
    if (c->answer == H1_NO_BODY)
        return c->s.out_bytes;
    return written(c, body_write(&c->s, SLICE(""), body, (enum h1_framing)c->answer, false, SLICE("")));
}

void h1_srv_end(struct h1_srv *c, struct slice trailers)
{
    MUST(exchange_open(c) && c->answering && !c->answered);
    written(c, body_write(&c->s, SLICE(""), (struct pieces){0}, (enum h1_framing)c->answer, true, trailers));
    answer_done(c);
}

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static void srv_init(struct h1_srv *c, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops)
{
    c->ops = ops;
    c->conf = conf;
    c->state = SRV_HEAD;
    c->keep_alive = c->first = true;
    timer_init(&c->timer, srv_timer);
    task_init(&c->resume, srv_resume);
}

void h1_srv_open(struct h1_srv *c, struct loop *l, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops, int fd)
{
    srv_init(c, conf, ops);
    stream_adopt(&c->s, l, &srv_stream_ops, fd);
    timer_set(l, &c->timer, conf->head_timeout_ms);
}

void h1_srv_take(struct h1_srv *c, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops)
{
    srv_init(c, conf, ops);
    c->s.ops = &srv_stream_ops;
    timer_set(c->s.loop, &c->timer, conf->head_timeout_ms);
}

void h1_srv_feed(struct h1_srv *c, struct slice early)
{
    if (early.n)
        srv_data(&c->s, (char *)(uintptr_t)early.p, early.n);
}

void h1_srv_reading(struct h1_srv *c, bool on)
{
    if (c->state != SRV_BODY || c->paused == !on)
        return;
    c->paused = !on;
    stream_reading(&c->s, on);
    if (on) {
        if (!tunnel(c))
            timer_set(c->s.loop, &c->timer, c->conf->body_timeout_ms);
        if (c->in_n || c->s.eof_seen)
            loop_defer(c->s.loop, &c->resume);
    } else if (!unsent(c))
        timer_clear(&c->timer); /* it is not the client who is slow */
    else if (!tunnel(c) || !timer_is_set(&c->timer)) /* a tunnel's is that of its reading already */
        unsent_timer(c);
}

const struct h1_chunked *h1_srv_trailers(const struct h1_srv *c) { return c->body.chunked; }

void h1_srv_last(struct h1_srv *c) { c->keep_alive = false; }

bool h1_srv_idle(const struct h1_srv *c) { return c->state == SRV_HEAD && c->in_n == 0 && !unsent(c); }

void h1_srv_close(struct h1_srv *c)
{
    if (c->state == SRV_CLOSED)
        return;
    bool cut = c->answering && c->answer == H1_UNTIL_CLOSE && (!c->answered || unsent(c));
    c->state = SRV_CLOSED;
    timer_clear(&c->timer);
    list_del(&c->resume.link);
    if (cut)
        stream_reset(&c->s); /* a FIN would look like the end of the body */
    else
        stream_close(&c->s);
}
