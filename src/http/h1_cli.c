/* h1_cli.c - the client's end of an HTTP/1.x connection: one exchange at a time, at rest between.
 *
 *     IDLE --h1_cli_request()--> HEAD --response()--> BODY --body(end)--> IDLE
 *
 * A connection that breaks inside an exchange is told through failed(), with answer_begun saying whether a byte of the
 * answer had come, for the owner who decides about another attempt. Bytes that come at rest, or behind the end of an
 * answer, belong to no request: the connection is not used again (response splitting, RFC 9112 section 11.1).
 */
#include "http_int.h"

static struct h1_cli *cli_of(struct stream *s) { return CONTAINER_OF(s, struct h1_cli, s); }
static bool exchange_open(const struct h1_cli *c) { return c->state == CLI_HEAD || c->state == CLI_BODY; }

static void fail(struct h1_cli *c, enum err e)
{
    if (exchange_open(c)) {
        c->state = CLI_IDLE;
        c->keep_alive = false;
        c->ops->failed(c, e);
    } else if (c->state == CLI_IDLE) {
        c->keep_alive = false;
        c->ops->idle_end(c);
    }
}

/* Keep-Alive: timeout=N tells when the peer will close a connection at rest; a hint (RFC 2068 section 19.7.1). */
static uint32_t keep_alive_hint(const struct h1_head *h)
{
    const struct h1_field *f = h1_get(h, H1_KEEP_ALIVE);
    if (!f)
        return 0;
    struct slice rest = f->value;
    while (rest.n) {
        struct slice item = slice_trim(slice_cut(rest, ',', &rest));
        uint64_t s;
        if (slice_starts(item, SLICE("timeout=")) && slice_u64(slice_of(item.p + 8, item.n - 8), 86400, &s) == OK)
            return (uint32_t)s;
    }
    return 0;
}

static void response_begin(struct h1_cli *c, const struct h1_head *h)
{
    c->keep_alive = h->keep_alive && h->framing != H1_UNTIL_CLOSE && h->framing != H1_TUNNEL;
    c->keep_alive_s = keep_alive_hint(h);
    body_begin(&c->body, h);
    c->state = CLI_BODY;
}

/* What follows an answer's end must be nothing. */
static void rest(struct h1_cli *c, size_t left_over)
{
    c->state = CLI_IDLE;
    if (left_over || !c->sent)
        c->keep_alive = false;
}

/* Takes one head and what follows of its body. Returns bytes used; 0: stop. */
static size_t take_head(struct h1_cli *c, const char *p, size_t n)
{
    struct h1_head h;
    size_t used, body_used = 0;
    enum h1_error error;
    c->answer_begun = true;
    if (p == c->in && n == c->in_n && c->scan && !h1_head_end(p, n, &c->scan) && n <= c->limits->head_bytes_max)
        return 0;
    switch (h1_parse_response(p, n, c->limits, (enum h1_method)c->method, &h, &used, &error)) {
    case H1_MORE:
        c->scan = 1;
        if (n > c->limits->head_bytes_max)
            fail(c, ERR_SYNTAX);
        return 0;
    case H1_BAD:
        fail(c, ERR_SYNTAX);
        return 0;
    case H1_DONE:
        break;
    }
    c->scan = 0;
    if (UNLIKELY(c->sending == H1_TUNNEL) && (c->method == H1_CONNECT ? h.status / 100 == 2 : h.status == 101)) {
        h.framing = H1_TUNNEL;
    } else if (h.status < 200) {
        c->interim_bytes += (uint32_t)used;
        if (h.status == 101 || c->interim_bytes > c->limits->head_bytes_max) /* none was asked for; a flood has no end */
            fail(c, ERR_SYNTAX);
        else
            c->ops->interim(c, &h);
        return exchange_open(c) ? used : 0;
    }
    if (c->sending == H1_TUNNEL && h.framing != H1_TUNNEL)
        c->sent = true; /* the upgrade was declined: an ordinary answer */
    response_begin(c, &h);
    struct iovec v[PIECES_MAX];
    struct pieces body;
    bool end;
    if (!body_take(&c->body, p + used, n - used, &body_used, v, &body, &end)) {
        c->state = CLI_HEAD;
        fail(c, ERR_SYNTAX);
        return 0;
    }
    if (end)
        rest(c, n - used - body_used);
    c->ops->response(c, &h, body, end);
    return used + body_used;
}

static size_t take_body(struct h1_cli *c, const char *p, size_t n)
{
    struct iovec v[PIECES_MAX];
    struct pieces body;
    size_t used;
    bool end;
    if (!body_take(&c->body, p, n, &used, v, &body, &end)) {
        fail(c, ERR_SYNTAX);
        return 0;
    }
    if (end)
        rest(c, n - used);
    if (body.bytes || end)
        c->ops->body(c, body, end);
    return used;
}

static void cli_data(struct stream *s, char *data, size_t n)
{
    struct h1_cli *c = cli_of(s);
    const char *p = data;
    if (UNLIKELY(!exchange_open(c))) {
        fail(c, ERR_SYNTAX);
        return;
    }
    if (c->in_n) {
        ahead_keep(&c->in, &c->in_n, &c->in_cap, p, n);
        p = c->in;
        n = c->in_n;
    }
    while (n && exchange_open(c)) {
        size_t used = c->state == CLI_HEAD ? take_head(c, p, n) : take_body(c, p, n);
        if (!used)
            break;
        p += used;
        n -= used;
    }
    if (exchange_open(c))
        ahead_keep(&c->in, &c->in_n, &c->in_cap, p, n);
    else if (c->in)
        ahead_free(&c->in, &c->in_n, &c->in_cap);
}

static void cli_eof(struct stream *s)
{
    struct h1_cli *c = cli_of(s);
    bool whole = c->body.framing == H1_TUNNEL || (c->body.framing == H1_UNTIL_CLOSE && !s->truncated); /* of TLS without close_notify nobody knows: RFC 9112 section 9.8 */
    if (c->state == CLI_BODY && whole) {
        rest(c, 0);
        c->keep_alive = false;
        c->ops->body(c, (struct pieces){0}, true);
        return;
    }
    fail(c, ERR_CLOSED);
}

static void cli_connected(struct stream *s)
{
    struct h1_cli *c = cli_of(s);
    c->connected = true;
    c->ops->connected(c);
}

static void cli_failed(struct stream *s, enum err e)
{
    struct h1_cli *c = cli_of(s);
    if (!c->connected && c->state == CLI_IDLE) { /* a connect without a request yet */
        c->keep_alive = false;
        c->ops->failed(c, e);
        return;
    }
    fail(c, e);
}

static void cli_drained(struct stream *s)
{
    struct h1_cli *c = cli_of(s);
    if (exchange_open(c))
        c->ops->drained(c);
}

static void cli_released(struct stream *s)
{
    struct h1_cli *c = cli_of(s);
    ahead_free(&c->in, &c->in_n, &c->in_cap);
    body_fini(&c->body);
    c->ops->released(c);
}

static const struct stream_ops cli_stream_ops = {
    .connected = cli_connected, .data = cli_data, .eof = cli_eof, .drained = cli_drained, .failed = cli_failed, .released = cli_released};

void h1_cli_connect(struct h1_cli *c, struct loop *l, const struct h1_limits *limits, const struct h1_cli_ops *ops, int fd, const struct addr *a)
{
    c->ops = ops;
    c->limits = limits;
    c->state = CLI_IDLE;
    c->keep_alive = true;
    stream_connect(&c->s, l, &cli_stream_ops, fd, a);
}

size_t h1_cli_request(struct h1_cli *c, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end)
{
    MUST(c->state == CLI_IDLE && c->keep_alive);
    c->state = CLI_HEAD;
    c->method = (uint8_t)method;
    c->sending = (uint8_t)framing;
    c->answer_begun = false;
    c->sent = end;
    c->scan = 0;
    c->interim_bytes = 0;
    c->exchanges++;
    c->sent_before = c->s.sent;
    return body_write(&c->s, head, body, framing, end, SLICE(""));
}

size_t h1_cli_send(struct h1_cli *c, struct pieces body)
{
    MUST(exchange_open(c) && !c->sent);
    return body_write(&c->s, SLICE(""), body, (enum h1_framing)c->sending, false, SLICE(""));
}

void h1_cli_end(struct h1_cli *c, struct slice trailers)
{
    MUST(exchange_open(c) && !c->sent);
    c->sent = true;
    if (c->sending == H1_TUNNEL)
        stream_shut(&c->s);
    else
        body_write(&c->s, SLICE(""), (struct pieces){0}, (enum h1_framing)c->sending, true, trailers);
}

void h1_cli_reading(struct h1_cli *c, bool on)
{
    if (c->state == CLI_CLOSED || c->paused == !on)
        return;
    c->paused = !on;
    stream_reading(&c->s, on);
}

void h1_cli_poured(struct h1_cli *c)
{
    MUST(c->state == CLI_BODY && c->body.framing == H1_LENGTH && !c->in_n);
    c->body.left = 0;
    rest(c, 0);
}

const struct h1_chunked *h1_cli_trailers(const struct h1_cli *c) { return c->body.chunked; }

/* readable: behind the answer there is more in the kernel, if only the end of the connection. */
bool h1_cli_reusable(const struct h1_cli *c) { return c->state == CLI_IDLE && c->keep_alive && c->connected && !c->s.readable && !c->s.fail; }

void h1_cli_close(struct h1_cli *c)
{
    if (c->state == CLI_CLOSED)
        return;
    c->state = CLI_CLOSED;
    stream_close(&c->s);
}
