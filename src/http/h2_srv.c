/* h2_srv.c - the server's end of an HTTP/2 connection: requests as streams.
 *
 *     stream   begin() --> judge() --head--> request() ... body() ... --> answered: over
 *                  '--> refused: RST_STREAM, or an answer of its own          '--> aborted(): over
 *
 *     connection   open --h2_srv_last()--> going (GOAWAY with the highest id; after a PING came back, with the last one)
 *                     '--> broken, idle for too long, or all done: leaving (FIN, what still comes is thrown away) --> closed
 *
 * A request is over for its owner when its answer is complete, whatever else the client sends. That is thrown away for a while,
 * because some clients take a reset for an error though the answer came first; then RST_STREAM(NO_ERROR) asks them to stop (RFC 9113
 * section 8.1). One timer serves the connection: it looks at what is due, and sets itself again. A stream's own
 * timer runs only while something is waited for: a body that does not come, or an answer that does not go.
 */
#include "h2_int.h"

#define GOAWAY_MS 1000 /* that a client has to send back the PING behind the first GOAWAY */

struct h2_req {
    struct h2_stream st;
    struct http_req pub;
    uint8_t method;             /* enum h1_method */
    bool answering;
    bool tunnel_asked;
    bool lingering;             /* answered; the rest of it is thrown away until the stream's timer ends it */
};

struct h2_srv {
    struct h2_conn c;
    struct http_srv *srv;
    struct timer timer;
    uint64_t since_ms;          /* the connection has been without requests, or was opened */
    uint64_t going_ms;          /* the first GOAWAY was sent */
    const char *why;            /* label, when we end the connection for a reason of our own */
    uint64_t wrote_ms;          /* when it last was seen that the client takes what we write */
    size_t unsent;              /* what waited then */
    uint64_t resets_from_ms;    /* the period in which resets are counted */
    uint32_t resets;
    bool busy;                  /* there were requests when a turn last ended */
    bool greeted;               /* the client's SETTINGS came */
    bool going, gone;           /* the first GOAWAY was sent; the last one */
    int32_t last_id;            /* that the last one names: nothing behind it is handed on */
};

static struct h2_srv *srv_of(struct h2_conn *c) { return CONTAINER_OF(c, struct h2_srv, c); }
static struct h2_req *req_of(struct h2_stream *st) { return CONTAINER_OF(st, struct h2_req, st); }
static const struct http_srv_conf *conf_of(const struct h2_srv *v) { return v->srv->conf; }
/* Adds one to a counter of the worker's, where it has them. */
#define COUNT(v, field)                                      \
    do {                                                     \
        if (conf_of(v)->count)                               \
            counter_inc(&conf_of(v)->count->field);          \
    } while (0)
static void refused(struct h2_srv *v, uint16_t status, const char *label) { v->srv->ops->refused(v->srv, status, label); }

/* ---- the end -------------------------------------------------------------------------------------------------------------- */

/* All requests that the owner knows end here. */
static void abort_all(struct h2_srv *v, enum err e)
{
    for (struct h2_stream *st; !v->c.closed && (st = h2_conn_open_stream(&v->c));) {
        bool known = st->known;
        h2_stream_over(st);
        if (known)
            v->srv->ops->aborted(&req_of(st)->pub, e);
    }
}

/* Closes so that what was written arrives: FIN, and what still comes is thrown away, for a while. */
static void leave(struct h2_srv *v)
{
    if (v->c.closed || v->c.leaving)
        return;
    h2_conn_write(&v->c); /* a GOAWAY that waits */
    v->c.leaving = true;
    list_del(&v->c.turn.link);
    if (v->c.s->eof_seen && !v->c.s->out_bytes) {
        h2_conn_close(&v->c);
        return;
    }
    stream_shut(v->c.s);
    if (!v->c.s->reading)
        stream_reading(v->c.s, true);
    timer_set(v->c.s->loop, &v->timer, conf_of(v)->h1.linger_ms);
}

static void srv_broken(struct h2_conn *c, enum err e)
{
    struct h2_srv *v = srv_of(c);
    if (v->c.leaving)
        return;
    if (v->why || c->ng_error == NGHTTP2_ENHANCE_YOUR_CALM)
        COUNT(v, h2_calm);
    if (e == ERR_SYNTAX)
        refused(v, 400, v->why ? v->why : c->ng_error == NGHTTP2_ENHANCE_YOUR_CALM ? "h2_flood" : "h2_connection");
    abort_all(v, e);
    leave(v);
}

/* ---- time ----------------------------------------------------------------------------------------------------------------------- */

/* When the connection ends if nothing happens until then; 0: never. */
static uint64_t due_ms(const struct h2_srv *v)
{
    const struct h2_conn *c = &v->c;
    const struct h1_srv_conf *t = &conf_of(v)->h1;
    uint64_t due = UINT64_MAX;
    if (!v->greeted)
        due = v->since_ms + t->head_timeout_ms;
    else if (c->streams_n == 0 && !c->s->out_bytes)
        due = v->since_ms + t->idle_timeout_ms;
    if (c->in_section)
        due = MIN(due, c->section_since_ms + t->head_timeout_ms);
    if (c->s->out_bytes)
        due = MIN(due, v->wrote_ms + t->body_timeout_ms);
    if (v->going && !v->gone)
        due = MIN(due, v->going_ms + GOAWAY_MS);
    return due;
}

static void goaway_last(struct h2_srv *v)
{
    if (v->gone)
        return;
    v->gone = true;
    v->last_id = nghttp2_session_get_last_proc_stream_id(v->c.ng);
    (void)nghttp2_submit_goaway(v->c.ng, NGHTTP2_FLAG_NONE, v->last_id, NGHTTP2_NO_ERROR, NULL, 0);
    h2_later(&v->c);
}

/* Sets the timer for what is due; it may be early, never late. */
static void time_again(struct h2_srv *v)
{
    uint64_t due = due_ms(v), now = loop_now_ms(v->c.s->loop);
    if (due == UINT64_MAX)
        due = now + conf_of(v)->h1.idle_timeout_ms;
    if (!timer_is_set(&v->timer) || v->timer.due_ms > due)
        timer_set(v->c.s->loop, &v->timer, due > now ? due - now : 1);
}

static void overdue(struct h2_srv *v)
{
    struct h2_conn *c = &v->c;
    if (v->going && !v->gone && v->going_ms + GOAWAY_MS <= loop_now_ms(c->s->loop)) {
        goaway_last(v); /* the client does not answer PING */
        return;
    }
    if (c->in_section || !v->greeted)
        refused(v, 408, "slow_head");
    if (c->closed)
        return;
    bool stuck = c->s->out_bytes > 0;
    abort_all(v, ERR_TIMEOUT);
    if (c->closed)
        return;
    if (stuck) {
        h2_conn_close(c);
        return;
    }
    h2_conn_terminate(c, NGHTTP2_NO_ERROR);
    leave(v);
}

static void srv_timer(struct timer *t)
{
    struct h2_srv *v = CONTAINER_OF(t, struct h2_srv, timer);
    struct h2_conn *c = &v->c;
    if (c->closed)
        return;
    if (v->c.leaving) {
        h2_conn_close(c);
        return;
    }
    if (c->s->out_bytes && c->s->out_bytes < v->unsent)
        v->wrote_ms = loop_now_ms(c->s->loop);
    v->unsent = c->s->out_bytes;
    if (due_ms(v) <= loop_now_ms(c->s->loop))
        overdue(v);
    if (!c->closed && !v->c.leaving)
        time_again(v);
}

/* Whether st waits for its client: for more of the request, until the answer began, or for room to send the answer. */
static bool waiting(const struct h2_stream *st)
{
    if (st->out.bytes)
        return true;
    return st->known && !st->in_end && !st->paused && !st->discard && !st->tunnel && !st->out_open && !req_of((struct h2_stream *)(uintptr_t)st)->tunnel_asked;
}

static void watch(struct h2_stream *st)
{
    struct h2_srv *v = srv_of(st->c);
    if (timer_is_set(&st->stall) || st->closed || req_of(st)->lingering || !waiting(st))
        return;
    st->active_ms = loop_now_ms(st->c->s->loop);
    timer_set(st->c->s->loop, &st->stall, conf_of(v)->h1.body_timeout_ms);
}

static void stalled(struct timer *t)
{
    struct h2_stream *st = CONTAINER_OF(t, struct h2_stream, stall);
    struct h2_srv *v = srv_of(st->c);
    uint64_t now = loop_now_ms(st->c->s->loop), limit = conf_of(v)->h1.body_timeout_ms;
    if (st->c->closed)
        return;
    if (req_of(st)->lingering) {
        h2_stream_reset(st, NGHTTP2_NO_ERROR);
        return;
    }
    if (!waiting(st))
        return;
    if (st->active_ms + limit > now) {
        timer_set(st->c->s->loop, &st->stall, st->active_ms + limit - now);
        return;
    }
    bool told = !st->over && st->known;
    h2_stream_reset(st, NGHTTP2_CANCEL);
    h2_stream_over(st);
    if (told)
        v->srv->ops->aborted(&req_of(st)->pub, ERR_TIMEOUT);
}

/* ---- heads --------------------------------------------------------------------------------------------------------------------------- */

static struct h2_stream *srv_begin(struct h2_conn *c, int32_t id)
{
    struct h2_srv *v = srv_of(c);
    struct h2_req *r = h2_get(sizeof *r);
    if (!r)
        return NULL;
    h2_stream_init(&r->st, c, id, stalled);
    r->pub = (struct http_req){.c = v->srv, .h2 = r};
    r->answering = r->tunnel_asked = r->lingering = false;
    r->method = H1_M_OTHER;
    return &r->st;
}

/* A request with a head that is too large is answered here: the client can do something about it. */
static void answer_refusal(struct h2_stream *st, uint16_t status, const char *text)
{
    char digits[4] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    struct h2_nva a;
    h2_nva_init(&a, false);
    h2_nva_put(&a, SLICE(":status"), slice_of(digits, 3));
    h2_nva_put(&a, SLICE("content-type"), SLICE("text/plain"));
    nghttp2_data_provider prd = h2_provider(st);
    if (nghttp2_submit_response(st->c->ng, st->id, a.v, (size_t)a.n, &prd))
        return;
    struct iovec v[3] = {{(void *)(uintptr_t) "weir: ", 6}, {(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t) "\n", 1}};
    st->out_open = true;
    h2_stream_send(st, (struct pieces){v, 3, strlen(text) + 7}, true);
}

static bool srv_judge(struct h2_stream *st, struct h2_block *b, bool end)
{
    struct h2_srv *v = srv_of(st->c);
    struct h2_fields *f = &b->f;
    if (v->gone && st->id > v->last_id) { /* it came before the last GOAWAY went out: the client will take it for not processed, and may send it elsewhere */
        h2_stream_reset(st, NGHTTP2_REFUSED_STREAM);
        h2_stream_over(st);
        return false;
    }
    if (h2_request_finish(f, end)) {
        struct h2_req *r = req_of(st);
        r->method = (uint8_t)f->h.method_id;
        r->tunnel_asked = st->held = f->h.upgrade || f->h.method_id == H1_CONNECT;
        st->in_counted = f->h.framing == H1_LENGTH;
        st->in_left = f->h.length;
        st->head_done = true;
        return true;
    }
    refused(v, f->status, f->label);
    if (st->c->closed)
        return false;
    if (f->status == 400)
        h2_stream_reset(st, NGHTTP2_PROTOCOL_ERROR);
    else
        answer_refusal(st, f->status, f->text);
    h2_stream_over(st);
    return false;
}

static void srv_head(struct h2_stream *st, const struct h1_head *h, struct pieces body, bool end)
{
    struct h2_srv *v = srv_of(st->c);
    struct h2_req *r = req_of(st);
    st->known = true;
    COUNT(v, h2_requests);
    v->srv->ops->request(v->srv, &r->pub, h, body, end || r->tunnel_asked);
    if (!st->c->closed && !end)
        watch(st);
}

static void srv_body(struct h2_stream *st, struct pieces body, bool end) { srv_of(st->c)->srv->ops->body(&req_of(st)->pub, body, end); }
static void srv_drained(struct h2_stream *st) { srv_of(st->c)->srv->ops->drained(&req_of(st)->pub); }

static void srv_failed(struct h2_stream *st, enum err e)
{
    struct h2_srv *v = srv_of(st->c);
    h2_stream_over(st);
    v->srv->ops->aborted(&req_of(st)->pub, e);
}

/* ---- frames ---------------------------------------------------------------------------------------------------------------------------- */

/* A stream was reset, by the client or because of it: too many in a period, and all our work is for nothing (CVE-2023-44487,
 * CVE-2025-8671). */
static void count_reset(struct h2_srv *v)
{
    const struct http_srv_conf *conf = conf_of(v);
    uint64_t now = loop_now_ms(v->c.s->loop);
    if (now - v->resets_from_ms >= conf->resets_ms) {
        v->resets_from_ms = now;
        v->resets = 0;
    }
    if (++v->resets != conf->resets_max + 1)
        return;
    v->why = "h2_resets";
    h2_conn_terminate(&v->c, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void srv_unknown(struct h2_conn *c) { refused(srv_of(c), 400, "h2_content_length"); }

static void srv_closing(struct h2_stream *st, uint32_t code)
{
    if (st->over)
        return;
    if (st->known)
        h2_stream_fail(st, ERR_CLOSED);
    else
        h2_stream_over(st);
}

static void srv_frame(struct h2_conn *c, const nghttp2_frame *f)
{
    struct h2_srv *v = srv_of(c);
    if (f->hd.type == NGHTTP2_RST_STREAM) {
        COUNT(v, h2_resets);
        count_reset(v);
    } else if (f->hd.type == NGHTTP2_SETTINGS)
        v->greeted = true;
    else if (f->hd.type == NGHTTP2_PING && f->hd.flags & NGHTTP2_FLAG_ACK && v->going)
        goaway_last(v);
}

/* Ours is complete and the client's is not. */
static void linger(struct h2_stream *st)
{
    if (st->in_end || st->closed || !st->over)
        return;
    req_of(st)->lingering = true;
    timer_set(st->c->s->loop, &st->stall, conf_of(srv_of(st->c))->h1.linger_ms);
}

static void srv_sent(struct h2_conn *c, const nghttp2_frame *f)
{
    struct h2_srv *v = srv_of(c);
    static const uint8_t opaque[8] = "weir-bye";
    if (f->hd.type == NGHTTP2_GOAWAY && v->going && !v->gone) /* not before: nghttp2 lets PING overtake, and its answer is to say that the GOAWAY has come */
        (void)nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, opaque);
    if (f->hd.type == NGHTTP2_RST_STREAM && f->rst_stream.error_code != NGHTTP2_NO_ERROR && f->rst_stream.error_code != NGHTTP2_CANCEL) {
        COUNT(v, h2_resets_ours);
        count_reset(v);
    }
    if (!(f->hd.flags & NGHTTP2_FLAG_END_STREAM) || (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA))
        return;
    struct h2_stream *st = nghttp2_session_get_stream_user_data(c->ng, f->hd.stream_id);
    if (!st)
        return;
    st->out_done = true;
    linger(st);
}

static void srv_unsent(struct h2_conn *c, const nghttp2_frame *f)
{
    if (f->hd.type == NGHTTP2_HEADERS) /* too large for a frame: nobody can take it */
        (void)nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
}

static void srv_invalid(struct h2_conn *c, const nghttp2_frame *f, int why)
{
    if (why == NGHTTP2_ERR_REFUSED_STREAM)
        refused(srv_of(c), 503, "h2_streams");
}

static void srv_turned(struct h2_conn *c)
{
    struct h2_srv *v = srv_of(c);
    if (v->c.leaving)
        return;
    if (c->s->out_bytes && !v->unsent) {
        v->wrote_ms = loop_now_ms(c->s->loop);
        v->unsent = c->s->out_bytes;
    } else if (!c->s->out_bytes)
        v->unsent = 0;
    if (v->busy && !c->streams_n)
        v->since_ms = loop_now_ms(c->s->loop);
    v->busy = c->streams_n > 0;
    if (c->in_section || v->unsent || v->going)
        time_again(v);
}

static const struct h2_role srv_role = {.begin = srv_begin,
                                        .judge = srv_judge,
                                        .head = srv_head,
                                        .body = srv_body,
                                        .drained = srv_drained,
                                        .failed = srv_failed,
                                        .unknown = srv_unknown,
                                        .closing = srv_closing,
                                        .frame = srv_frame,
                                        .sent = srv_sent,
                                        .unsent = srv_unsent,
                                        .invalid = srv_invalid,
                                        .turned = srv_turned,
                                        .broken = srv_broken};

/* ---- the stream of rt -------------------------------------------------------------------------------------------------------------------- */

static struct h2_srv *of_stream(struct stream *s) { return CONTAINER_OF(s, struct http_srv, h1.s)->h2; }

static void srv_data(struct stream *s, char *p, size_t n)
{
    struct h2_srv *v = of_stream(s);
    if (!v->c.leaving && !v->c.closed)
        h2_conn_data(&v->c, p, n);
}

/* The client closed its direction, which HTTP/2 does not use half: it is gone. */
static void srv_eof(struct stream *s)
{
    struct h2_srv *v = of_stream(s);
    if (v->c.leaving && s->out_bytes)
        return; /* drained() or the timer ends it */
    abort_all(v, ERR_CLOSED);
    h2_conn_close(&v->c);
}

static void srv_stream_drained(struct stream *s)
{
    struct h2_srv *v = of_stream(s);
    v->unsent = 0;
    if (v->c.leaving && s->eof_seen)
        h2_conn_close(&v->c);
    else if (!v->c.leaving)
        h2_conn_drained(&v->c);
}

static void srv_stream_failed(struct stream *s, enum err e)
{
    struct h2_srv *v = of_stream(s);
    abort_all(v, e == ERR_TIMEOUT ? ERR_CLOSED : e);
    h2_conn_close(&v->c);
}

static void srv_released(struct stream *s)
{
    struct http_srv *srv = CONTAINER_OF(s, struct http_srv, h1.s);
    timer_clear(&srv->h2->timer);
    h2_conn_fini(&srv->h2->c);
    mem_free(srv->h2);
    srv->h2 = NULL;
    srv->ops->released(srv);
}

static const struct stream_ops srv_stream_ops = {.data = srv_data, .eof = srv_eof, .drained = srv_stream_drained, .failed = srv_stream_failed, .released = srv_released};

void h2_srv_start(struct http_srv *srv, const char *p, size_t n)
{
    const struct http_srv_conf *conf = srv->conf;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, conf->streams_max},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, conf->window_bytes},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, conf->h1.limits->head_bytes_max},
                                               {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    struct h2_srv *v = mem_new(MEM_CONN, sizeof *v);
    struct stream *s = &srv->h1.s;
    v->srv = srv;
    srv->h2 = v;
    s->ops = &srv_stream_ops;
    COUNT(v, h2_connections);
    v->since_ms = v->resets_from_ms = loop_now_ms(s->loop);
    timer_init(&v->timer, srv_timer);
    MUST(h2_conn_init(&v->c, s, &srv_role, true, conf->h1.limits, settings, COUNT_OF(settings), conf->conn_window_bytes));
    time_again(v);
    if (n)
        h2_conn_data(&v->c, p, n);
}

/* ---- for the owner ---------------------------------------------------------------------------------------------------------------------- */

bool h2_srv_idle(const struct http_srv *srv) { return srv->h2->c.streams_n == 0 && !srv->h2->c.in_section && !srv->h2->c.s->out_bytes; }

void h2_srv_last(struct http_srv *srv)
{
    struct h2_srv *v = srv->h2;
    struct h2_conn *c = &v->c;
    if (c->closed || v->going || v->c.leaving)
        return;
    v->going = true; /* also at rest: a request may be on its way to us, and not every client sends it again */
    v->going_ms = loop_now_ms(c->s->loop);
    (void)nghttp2_submit_shutdown_notice(c->ng); /* srv_sent() has the PING */
    h2_later(c);
}

void h2_srv_close(struct http_srv *srv)
{
    struct h2_srv *v = srv->h2;
    timer_clear(&v->timer);
    h2_conn_close(&v->c);
}

void h2_req_reading(struct http_req *r, bool on)
{
    h2_stream_reading(&r->h2->st, on);
    if (on && !r->h2->st.c->closed)
        watch(&r->h2->st);
}

int h2_req_trailers(struct http_req *r, struct h1_field *fields, int max) { return h2_stream_trailers(&r->h2->st, fields, max); }

static bool open_for(const struct h2_stream *st) { return !st->over && !st->closed && !st->c->closed; }

/* ":status", and the lines below the status line. */
static struct slice head_begin(struct h2_nva *a, struct head_out *o, bool no_copy, bool tunnel)
{
    struct slice text = slice_of(o->p, o->n), line = slice_cut(text, '\n', &text);
    h2_nva_init(a, no_copy);
    h2_nva_put(a, SLICE(":status"), tunnel ? SLICE("200") : slice_of(line.p + 9, 3)); /* "HTTP/1.1 200 ..." */
    return text;
}

void h2_req_interim(struct http_req *r, struct head_out *o)
{
    struct h2_stream *st = &r->h2->st;
    struct h2_nva a;
    if (!open_for(st) || st->out_open || o->over)
        return;
    h2_nva_lines(&a, head_begin(&a, o, h2_direct(st->c), false));
    if (!a.over && !(a.v[0].valuelen == 3 && memcmp(a.v[0].value, "101", 3) == 0))
        (void)nghttp2_submit_headers(st->c->ng, NGHTTP2_FLAG_NONE, st->id, NULL, a.v, (size_t)a.n, NULL);
    h2_flush(st->c);
}

/* The answer is complete: the request is over; so is a tunnel, of which the client may still send. */
static void answered(struct h2_stream *st)
{
    h2_stream_over(st);
    if (st->out_done) /* END_STREAM went with the head already */
        linger(st);
    if (st->out.bytes)
        watch(st);
}

size_t h2_req_answer(struct http_req *r, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end)
{
    struct h2_stream *st = &r->h2->st;
    struct h2_conn *c = st->c;
    if (!open_for(st))
        return 0;
    MUST(!r->h2->answering && !o->over);
    r->h2->answering = true;
    bool tunnel = framing == H1_TUNNEL && r->h2->tunnel_asked;
    bool bodiless = framing == H1_NO_BODY || r->h2->method == H1_HEAD;
    struct h2_nva a;
    h2_nva_lines(&a, head_begin(&a, o, h2_direct(c), tunnel));
    if (framing == H1_LENGTH)
        h2_nva_length(&a, length);
    if (UNLIKELY(a.over)) { /* more fields than a head may have: as good as no answer */
        h2_stream_reset(st, NGHTTP2_INTERNAL_ERROR);
        h2_stream_fail(st, ERR_LIMIT);
        return 0;
    }
    if (tunnel) {
        st->tunnel = true;
        st->held = false;
        if (st->in.bytes || st->in_end)
            h2_stream_note(st, H2_NOTE_RESUME);
    }
    st->out_open = true;
    bool whole = bodiless || (end && !body.bytes);
    nghttp2_data_provider prd = h2_provider(st);
    if (end) /* before END_STREAM leaves: srv_sent() looks at it */
        st->over = st->discard = true;
    if (nghttp2_submit_response(c->ng, st->id, a.v, (size_t)a.n, whole ? NULL : &prd))
        h2_stream_reset(st, NGHTTP2_INTERNAL_ERROR);
    size_t queued = 0;
    if (whole) {
        st->out_end = true;
        h2_flush(c);
    } else
        queued = h2_stream_send(st, body, end);
    if (end)
        answered(st);
    else if (queued)
        watch(st);
    return queued;
}

size_t h2_req_send(struct http_req *r, struct pieces body)
{
    struct h2_stream *st = &r->h2->st;
    size_t queued = open_for(st) ? h2_stream_send(st, body, false) : 0;
    if (queued)
        watch(st);
    return queued;
}

void h2_req_end(struct http_req *r, struct slice trailers)
{
    struct h2_stream *st = &r->h2->st;
    if (!open_for(st))
        return;
    st->over = st->discard = true;
    h2_stream_end(st, st->tunnel ? SLICE("") : trailers);
    answered(st);
}

void h2_req_last(struct http_req *r)
{
    struct h2_stream *st = &r->h2->st;
    st->discard = true;
}

static void req_reset(struct http_req *r, uint32_t code)
{
    struct h2_stream *st = &r->h2->st;
    if (!open_for(st))
        return;
    h2_stream_reset(st, code);
    h2_stream_over(st);
    h2_flush(st->c);
}

void h2_req_cut(struct http_req *r) { req_reset(r, r->h2->answering ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL); }
void h2_req_refuse(struct http_req *r) { req_reset(r, r->h2->answering ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_REFUSED_STREAM); }
