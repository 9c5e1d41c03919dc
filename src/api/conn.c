/* conn.c - one connection of the admin interface: HTTP/1.0 and 1.1, one request at a time.
 *
 *     bytes -> in -> head (copied to the arena) -> body (Content-Length) -> api_dispatch() -> answer -> next request
 *
 * Pipelined requests wait in `in` until the answer before them is queued. A connection reads on only while there is
 * something to do with the bytes: it stops when its reader is slow (OUT_BYTES) or when a handler is busy and a
 * full head's worth is waiting. Each state has one deadline, and a second timer watches a reader that takes nothing.
 * Chunked request bodies are refused (411): tools know the length of what they send. It does not do TLS, upgrades, ranges or
 * compression.
 *
 * Life: api_conn_new() -> ... -> api_conn_close() marks it dead and detaches it from the api; its memory goes in the
 * stream's released(), at the end of the turn, which touches nothing but the connection.
 */
#include "api_int.h"

#include <stdio.h>
#include <time.h>

#define LINGER_MS 2000    /* after the last answer, for the peer to read it and close */
#define STEADY_BYTES 4096 /* capacity of `in` that is kept between requests */

static void conn_process(struct api_conn *c);

static uint32_t limit(const struct api_conn *c, enum api_limit l) { return c->api->limit[l]; }

void api_limit_hit(struct api *a, enum api_limit l) { counter_inc(&a->limit_hits[l]); }

/* ---- closing ------------------------------------------------------------------------------------------------------- */

/* The handler that holds c lets go of it. */
static void conn_detach(struct api_conn *c)
{
    void (*detach)(struct api_conn *) = c->detach;
    c->detach = NULL;
    if (detach)
        detach(c);
    timer_clear(&c->poll);
    list_del(&c->follow);
}

void api_conn_close(struct api_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    conn_detach(c);
    timer_clear(&c->timer);
    timer_clear(&c->write_timer);
    list_del(&c->link);
    if (c->admin)
        c->api->admin_n--;
    else
        c->api->public_n--;
    c->api = NULL;
    stream_close(&c->stream);
}

static void conn_released(struct stream *s)
{
    struct api_conn *c = CONTAINER_OF(s, struct api_conn, stream);
    buf_free(&c->in);
    arena_fini(&c->mem);
    mem_free(c);
}

/* The peer gets a FIN behind the answer and time to read it: closing with unread bytes would reset the connection and
 * destroy the answer on its way (RFC 9112 section 9.6). */
static void conn_linger(struct api_conn *c)
{
    c->state = CONN_CLOSING;
    buf_clear(&c->in);
    stream_shut(&c->stream);
    if (c->eof && c->stream.out_bytes == 0)
        api_conn_close(c);
    else
        timer_set(c->api->loop, &c->timer, LINGER_MS);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static void conn_write(struct api_conn *c, const struct iovec *iov, int n)
{
    size_t queued = stream_write(&c->stream, iov, n);
    /* A follower may pause for as long as it likes (a pager): what waits for it is bounded by dropping lines. */
    if (queued && c->state != CONN_STREAM && !timer_is_set(&c->write_timer)) {
        c->write_left = queued;
        timer_set(c->api->loop, &c->write_timer, limit(c, API_LIMIT_WRITE_MS));
    }
}

static void conn_write_slice(struct api_conn *c, struct slice s)
{
    struct iovec iov = {(void *)(uintptr_t)s.p, s.n};
    conn_write(c, &iov, 1);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7). */
static void date_add(struct buf *out)
{
    time_t t = (time_t)(wall_ns() / 1000000000u);
    struct tm tm;
    char text[64];
    gmtime_r(&t, &tm);
    size_t n = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    buf_add(out, text, n);
}

static void head_add(struct buf *out, struct api_conn *c, uint16_t status, const char *type)
{
    buf_printf(out, "HTTP/1.1 %u %s\r\nDate: ", status, h1_reason(status));
    date_add(out);
    buf_printf(out, "\r\nContent-Type: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n", type);
    if (!c->keep_alive)
        buf_adds(out, "Connection: close\r\n");
    else if (c->req.http10)
        buf_adds(out, "Connection: keep-alive\r\n");
}

/* The answer is queued: back to waiting for a request. The caller's conn_process() loop, or this call, goes on. */
static void conn_next(struct api_conn *c)
{
    c->detach = NULL;
    c->hold = NULL;
    counter_inc(&c->api->requests);
    if (!c->keep_alive) {
        conn_linger(c);
        return;
    }
    c->state = CONN_HEAD;
    c->in_parsed = 0;
    arena_reset(&c->mem);
    c->req = (struct request){0};
    if (!c->in.n && c->in.cap > STEADY_BYTES)
        buf_free(&c->in);
    conn_process(c);
}

static void answer_with(struct api_conn *c, uint16_t status, const char *type, const char *extra, struct slice body)
{
    MUST(c->state == CONN_HEAD || c->state == CONN_BODY || c->state == CONN_BUSY);
    struct buf head = {0};
    if (status >= 500)
        counter_inc(&c->api->failures);
    head_add(&head, c, status, type);
    buf_printf(&head, "%sContent-Length: %zu\r\n\r\n", extra, body.n);
    struct iovec iov[2] = {{head.p, head.n}, {(void *)(uintptr_t)body.p, body.n}};
    conn_write(c, iov, body.n && !c->req.head_only ? 2 : 1);
    buf_free(&head);
    conn_next(c);
}

void api_answer(struct api_conn *c, uint16_t status, const char *type, struct slice body) { answer_with(c, status, type, "", body); }

void api_answer_json(struct api_conn *c, uint16_t status, const struct buf *json) { answer_with(c, status, "application/json", "", buf_slice(json)); }

static void error_with(struct api_conn *c, uint16_t status, const char *extra, const char *remedy, const char *error)
{
    struct buf b = {0};
    buf_adds(&b, "{\"error\":");
    buf_add_json(&b, slice_cstr(error));
    buf_adds(&b, ",\"remedy\":");
    buf_add_json(&b, slice_cstr(remedy));
    buf_adds(&b, "}\n");
    answer_with(c, status, "application/json", extra, buf_slice(&b));
    buf_free(&b);
}

void api_error(struct api_conn *c, uint16_t status, const char *remedy, const char *fmt, ...)
{
    struct buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    error_with(c, status, "", remedy, text.p ? text.p : "");
    buf_free(&text);
}

void api_error_allow(struct api_conn *c, const char *allow)
{
    char extra[64], text[128];
    snprintf(extra, sizeof extra, "Allow: %s\r\n", allow);
    snprintf(text, sizeof text, "use one of: %s", allow);
    error_with(c, 405, extra, text, "this endpoint does not have that method");
}

/* A refusal after which the rest of what the peer sends has no meaning. */
static void conn_refuse(struct api_conn *c, uint16_t status, const char *remedy, const char *error)
{
    c->keep_alive = false;
    error_with(c, status, "", remedy, error);
}

void api_conn_hold(struct api_conn *c, void *hold, void (*detach)(struct api_conn *c))
{
    c->state = CONN_BUSY;
    c->hold = hold;
    c->detach = detach;
    timer_clear(&c->timer);
}

/* ---- chunked answers -------------------------------------------------------------------------------------------------- */

bool api_stream_begin(struct api_conn *c, const char *type)
{
    struct buf head = {0};
    if (c->req.http10)
        c->keep_alive = false; /* the end of the connection is the end of the body */
    head_add(&head, c, 200, type);
    buf_adds(&head, c->req.http10 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
    conn_write_slice(c, buf_slice(&head));
    buf_free(&head);
    if (c->req.head_only) {
        conn_next(c);
        return false;
    }
    c->state = CONN_STREAM;
    timer_clear(&c->timer);
    return true;
}

void api_stream_chunk(struct api_conn *c, struct slice data)
{
    MUST(c->state == CONN_STREAM);
    if (!data.n)
        return; /* an empty chunk would end the body */
    if (c->req.http10) {
        conn_write_slice(c, data);
        return;
    }
    char size[H1_CHUNK_HEAD_MAX];
    struct iovec iov[3] = {{size, h1_chunk_head(size, data.n)}, {(void *)(uintptr_t)data.p, data.n}, {(void *)(uintptr_t) "\r\n", 2}};
    conn_write(c, iov, 3);
}

void api_stream_end(struct api_conn *c)
{
    MUST(c->state == CONN_STREAM);
    conn_detach(c);
    if (!c->req.http10)
        conn_write_slice(c, SLICE("0\r\n\r\n"));
    conn_next(c);
}

void api_conn_last(struct api_conn *c)
{
    c->keep_alive = false;
    if (c->state == CONN_HEAD && !c->in.n && c->asked) {
        api_conn_close(c);
    } else if (c->state == CONN_STREAM) {
        if (timer_is_set(&c->poll)) /* of JSON lines; a log just ends */
            api_stream_chunk(c, SLICE("{\"interrupted\":true}\n"));
        api_stream_end(c);
    }
}

void api_stream_follow(struct api_conn *c, void (*look)(struct timer *t), uint32_t ms)
{
    c->poll.fn = look;
    timer_set(c->api->loop, &c->poll, ms);
    if (c->eof)
        api_stream_end(c);
    else if (c->api->suspended)
        api_conn_last(c);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch = ascii_lower(ch);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Percent-decoding of a query value, '+' meaning a space; a malformed or NUL escape stays as it is. */
static char *query_decode(struct arena *mem, struct slice s)
{
    char *out = arena_alloc(mem, s.n + 1), *w = out;
    for (size_t i = 0; i < s.n; i++) {
        int hi, lo;
        if (s.p[i] == '%' && i + 2 < s.n && (hi = hex_digit(s.p[i + 1])) >= 0 && (lo = hex_digit(s.p[i + 2])) >= 0 && hi + lo) {
            *w++ = (char)(hi * 16 + lo);
            i += 2;
        } else {
            *w++ = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    *w = 0;
    return out;
}

char *api_query(struct api_conn *c, const char *name)
{
    struct slice rest = slice_cstr(c->req.query);
    while (rest.n) {
        struct slice value, pair = slice_cut(rest, '&', &rest);
        struct slice key = slice_cut(pair, '=', &value);
        if (slice_is(key, name))
            return query_decode(&c->mem, value);
    }
    return NULL;
}

bool api_query_flag(struct api_conn *c, const char *name)
{
    const char *v = api_query(c, name);
    return v && strcmp(v, "0") != 0 && strcmp(v, "false") != 0;
}

/* Takes n bytes off the front of `in`. */
static void in_consume(struct api_conn *c, size_t n)
{
    memmove(c->in.p, c->in.p + n, c->in.n - n);
    c->in.n -= n;
    c->in.p[c->in.n] = 0;
}

/* The head's slices point into `in`, which moves: what is needed later is copied. */
static void request_take(struct api_conn *c, const struct h1_head *h)
{
    c->req.head_only = h->method_id == H1_HEAD;
    c->req.method = c->req.head_only ? H1_GET : h->method_id;
    c->req.http10 = h->minor == 0;
    c->req.path = (char *)(uintptr_t)arena_slice(&c->mem, h->path).p;
    c->req.query = (char *)(uintptr_t)arena_slice(&c->mem, h->query).p;
    c->keep_alive = h->keep_alive && !c->api->suspended;
    c->body_bytes = h->framing == H1_LENGTH ? (size_t)h->length : 0;
}

/* True: the head is accepted and its body is awaited. Else it is answered. */
static bool request_accept(struct api_conn *c, const struct h1_head *h)
{
    if (h->framing == H1_CHUNKED) {
        conn_refuse(c, 411, "send the body with Content-Length", "chunked request bodies are not accepted here");
        return false;
    }
    if (h->framing == H1_LENGTH && h->length > limit(c, API_LIMIT_BODY_BYTES)) {
        api_limit_hit(c->api, API_LIMIT_BODY_BYTES);
        conn_refuse(c, 413, "send fewer manifests at once: at most 8 MiB", "the body is too large");
        return false;
    }
    return true;
}

enum step { STEP_WAIT, STEP_AGAIN };

static enum step step_head(struct api_conn *c)
{
    const struct h1_limits limits = {limit(c, API_LIMIT_HEAD_BYTES), 8192, 100};
    struct h1_head h;
    size_t used = 0;
    enum h1_error error = H1_OK;
    /* A head that comes byte by byte is looked at again when a line is complete, not for every byte. */
    size_t fresh = c->in_parsed;
    if (c->in.n <= limit(c, API_LIMIT_HEAD_BYTES) && !memchr(c->in.p + fresh, '\n', c->in.n - fresh)) {
        c->in_parsed = c->in.n;
        return STEP_WAIT;
    }
    c->in_parsed = c->in.n;
    enum h1_result r = h1_parse_request(c->in.p, c->in.n, &limits, &h, &used, &error);
    if (r == H1_MORE)
        return STEP_WAIT;
    if (r == H1_BAD) {
        counter_inc(&c->api->malformed);
        if (h1_error_status(error) == 431)
            api_limit_hit(c->api, API_LIMIT_HEAD_BYTES);
        conn_refuse(c, h1_error_status(error), "send a well-formed HTTP/1.1 request", h1_error_text(error));
        return STEP_WAIT;
    }
    request_take(c, &h);
    if (!request_accept(c, &h))
        return STEP_WAIT;
    bool wants_continue = h.expect_continue && c->in.n - used < c->body_bytes;
    in_consume(c, used);
    if (wants_continue)
        conn_write_slice(c, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
    c->state = CONN_BODY;
    timer_set(c->api->loop, &c->timer, limit(c, API_LIMIT_BODY_MS));
    return STEP_AGAIN;
}

static enum step step_body(struct api_conn *c)
{
    if (c->in.n < c->body_bytes)
        return STEP_WAIT;
    c->req.body = arena_slice(&c->mem, slice_of(c->in.p, c->body_bytes));
    if (c->body_bytes)
        in_consume(c, c->body_bytes);
    timer_clear(&c->timer);
    api_dispatch(c);
    return STEP_AGAIN;
}

/* Reading goes on while the bytes have somewhere to go. */
static void conn_flow(struct api_conn *c)
{
    bool on = true;
    if (c->state == CONN_HEAD || c->state == CONN_BODY)
        on = c->stream.out_bytes < limit(c, API_LIMIT_OUT_BYTES);
    else if (c->state == CONN_BUSY || c->state == CONN_STREAM)
        on = c->in.n <= limit(c, API_LIMIT_HEAD_BYTES);
    if (!c->eof)
        stream_reading(&c->stream, on);
}

/* What is complete is answered, in order; then the deadline of what is awaited is set. */
static void conn_process(struct api_conn *c)
{
    if (c->in_process)
        return;
    c->in_process = true;
    enum step step = STEP_AGAIN;
    while (step == STEP_AGAIN && !c->dead && c->stream.out_bytes < limit(c, API_LIMIT_OUT_BYTES)) {
        if (c->state == CONN_HEAD && c->in.n)
            step = step_head(c);
        else if (c->state == CONN_BODY)
            step = step_body(c);
        else
            step = STEP_WAIT;
    }
    c->in_process = false;
    if (c->dead)
        return;
    if (c->state == CONN_HEAD && !timer_is_set(&c->timer))
        timer_set(c->api->loop, &c->timer, c->in.n ? limit(c, API_LIMIT_HEAD_MS) : limit(c, API_LIMIT_IDLE_MS));
    bool slow = c->stream.out_bytes >= limit(c, API_LIMIT_OUT_BYTES);
    if (slow && c->state == CONN_HEAD)
        timer_clear(&c->timer); /* what is awaited is the reader: write_timer judges it */
    if (c->eof && !slow && (c->state == CONN_HEAD || c->state == CONN_BODY))
        conn_linger(c); /* no more bytes will complete it */
    if (!c->dead)
        conn_flow(c);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

static void conn_data(struct stream *s, char *p, size_t n)
{
    struct api_conn *c = CONTAINER_OF(s, struct api_conn, stream);
    if (c->dead || c->state == CONN_CLOSING)
        return;
    bool first = c->state == CONN_HEAD && !c->in.n;
    c->asked = true;
    buf_add(&c->in, p, n);
    if (first)
        timer_set(c->api->loop, &c->timer, limit(c, API_LIMIT_HEAD_MS));
    else if (c->state == CONN_BODY)
        timer_set(c->api->loop, &c->timer, limit(c, API_LIMIT_BODY_MS));
    conn_process(c);
}

static void conn_eof(struct stream *s)
{
    struct api_conn *c = CONTAINER_OF(s, struct api_conn, stream);
    if (c->dead)
        return;
    c->eof = true;
    if (c->state == CONN_STREAM)
        api_stream_end(c); /* nobody follows any more */
    else if (c->state == CONN_CLOSING && c->stream.out_bytes == 0)
        api_conn_close(c);
    else
        conn_process(c);
}

static void conn_drained(struct stream *s)
{
    struct api_conn *c = CONTAINER_OF(s, struct api_conn, stream);
    if (c->dead)
        return;
    timer_clear(&c->write_timer);
    if (c->state == CONN_CLOSING && c->eof)
        api_conn_close(c);
    else
        conn_process(c);
}

static void conn_failed(struct stream *s, enum err e) { api_conn_close(CONTAINER_OF(s, struct api_conn, stream)); }

static void conn_late(struct timer *t)
{
    struct api_conn *c = CONTAINER_OF(t, struct api_conn, timer);
    if (c->state == CONN_HEAD && c->in.n) {
        api_limit_hit(c->api, API_LIMIT_HEAD_MS);
        conn_refuse(c, 408, "send the whole request at once", "the request head did not arrive in time");
    } else if (c->state == CONN_BODY) {
        api_limit_hit(c->api, API_LIMIT_BODY_MS);
        conn_refuse(c, 408, "send the whole request at once", "the request body made no progress in time");
    } else {
        if (c->state == CONN_HEAD)
            api_limit_hit(c->api, API_LIMIT_IDLE_MS);
        api_conn_close(c);
    }
}

/* drained() clears the timer; until then a reader must take something in each period. */
static void conn_write_late(struct timer *t)
{
    struct api_conn *c = CONTAINER_OF(t, struct api_conn, write_timer);
    if (c->stream.out_bytes < c->write_left) {
        c->write_left = c->stream.out_bytes;
        timer_set(c->api->loop, t, limit(c, API_LIMIT_WRITE_MS));
        return;
    }
    api_limit_hit(c->api, API_LIMIT_WRITE_MS);
    api_conn_close(c);
}

static const struct stream_ops conn_ops = {
    .data = conn_data,
    .eof = conn_eof,
    .drained = conn_drained,
    .failed = conn_failed,
    .released = conn_released,
};

void api_conn_new(struct api *a, int fd, bool admin)
{
    uint32_t *n = admin ? &a->admin_n : &a->public_n;
    enum api_limit conns = admin ? API_LIMIT_ADMIN_CONNS : API_LIMIT_PUBLIC_CONNS;
    if (*n >= a->limit[conns]) {
        api_limit_hit(a, conns);
        socket_close(fd);
        return;
    }
    struct api_conn *c = mem_try(MEM_API, sizeof *c);
    if (!c) {
        socket_close(fd);
        return;
    }
    ++*n;
    c->api = a;
    c->admin = admin;
    c->keep_alive = true;
    arena_init(&c->mem, MEM_API, 4096);
    timer_init(&c->timer, conn_late);
    timer_init(&c->write_timer, conn_write_late);
    timer_init(&c->poll, NULL); /* rollout.c gives it its function */
    list_init(&c->follow);
    list_push(&a->conns, &c->link);
    stream_adopt(&c->stream, a->loop, &conn_ops, fd);
    timer_set(a->loop, &c->timer, limit(c, API_LIMIT_IDLE_MS));
}
