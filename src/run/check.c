/* check.c - one attempt of a probe over the network: connect, for httpGet a request and the head of its answer, for grpc a call of the
 * health service (http_check does that).
 *
 * Model: a check is a stream with a verdict. It gives exactly one verdict, through done(), unless it is cancelled; the
 * stream then closes and released() frees the memory, so whoever asked may be gone by then. It keeps no time: the asker
 * cancels it. The connection is closed as soon as the head is read (RFC 9112 section 9.6: the request said close).
 */
#include "http_check.h"
#include "run_int.h"

struct check {
    struct http_check *grpc;   /* grpc: in place of the stream */
    struct stream stream;
    struct run *run;           /* for counters; NULL once cancelled or done */
    const struct probe *spec;  /* the asker's; not used after the verdict */
    void (*done)(void *owner, bool ok, const char *text);
    void *owner;
    struct buf in;             /* the answer so far, at most RUN_CHECK_BYTES_MAX */
};

static void check_release(struct stream *s)
{
    struct check *c = CONTAINER_OF(s, struct check, stream);
    buf_free(&c->in);
    mem_free(c);
}

static void check_verdict(struct check *c, bool ok, const char *text)
{
    if (!c->run)
        return;
    c->run = NULL;
    stream_close(&c->stream);
    c->done(c->owner, ok, text);
}

/* Host: the header the manifest gives, its host field, or the address (RFC 9112 section 3.2). */
static void check_request(const struct probe *spec, struct buf *out)
{
    bool host = false, agent = false;
    buf_printf(out, "GET %s%s HTTP/1.1\r\n", spec->path && spec->path[0] == '/' ? "" : "/", spec->path ? spec->path : "");
    for (size_t i = 0; i < spec->headers.n; i++) {
        struct slice name = slice_cstr(spec->headers.items[i].key), value = slice_of(spec->headers.items[i].value, spec->headers.items[i].value_n);
        if (!h1_is_token(name) || !h1_is_value(value) || slice_ieq(name, SLICE("connection")))
            continue;
        host = host || slice_ieq(name, SLICE("host"));
        agent = agent || slice_ieq(name, SLICE("user-agent"));
        buf_printf(out, SLICE_FMT ": " SLICE_FMT "\r\n", SLICE_ARG(name), SLICE_ARG(value));
    }
    if (!host)
        buf_printf(out, "Host: %s:%u\r\n", spec->host && *spec->host ? spec->host : "127.0.0.1", spec->port);
    if (!agent)
        buf_adds(out, "User-Agent: weir-probe\r\n");
    buf_adds(out, "Accept: */*\r\nConnection: close\r\n\r\n");
}

static void check_connected(struct stream *s)
{
    struct check *c = CONTAINER_OF(s, struct check, stream);
    if (!c->run)
        return;
    if (c->spec->kind != PROBE_HTTP) {
        check_verdict(c, true, "");
        return;
    }
    struct buf req = {0};
    check_request(c->spec, &req);
    (void)stream_write_slice(s, buf_slice(&req));
    buf_free(&req);
}

/* The head of the final answer; interim ones (1xx) are passed over. */
static void check_head(struct check *c)
{
    struct h1_head h;
    enum h1_error why;
    size_t at = 0, used;
    for (;;) {
        used = 0;
        enum h1_result res = h1_parse_response(c->in.p + at, c->in.n - at, &h1_limits_default, H1_GET, &h, &used, &why);
        if (res == H1_BAD) {
            check_verdict(c, false, h1_error_text(why));
            return;
        }
        if (res == H1_MORE)
            return;
        if (h.status >= 200 || h.status == 101)
            break;
        at += used;
    }
    struct buf text = {0};
    buf_printf(&text, "%u", h.status);
    check_verdict(c, h.status >= 200 && h.status < 400, text.p);
    buf_free(&text);
}

static void check_data(struct stream *s, char *p, size_t n)
{
    struct check *c = CONTAINER_OF(s, struct check, stream);
    if (!c->run || c->spec->kind != PROBE_HTTP)
        return;
    size_t room = RUN_CHECK_BYTES_MAX - c->in.n;
    buf_add(&c->in, p, MIN(n, room));
    check_head(c);
    if (c->run && c->in.n == RUN_CHECK_BYTES_MAX) {
        c->run->limit_hits[LIMIT_PROBE_ANSWER]++;
        check_verdict(c, false, "the head of the answer is larger than 16 KiB");
    }
}

static void check_eof(struct stream *s)
{
    check_verdict(CONTAINER_OF(s, struct check, stream), false, "connection closed before an answer");
}

static void check_failed(struct stream *s, enum err e)
{
    struct check *c = CONTAINER_OF(s, struct check, stream);
    if (c->run)
        check_verdict(c, false, err_text(e));
}

static void check_drained(struct stream *s)
{
    (void)s; /* one small request: nothing waits for it */
}

static const struct stream_ops check_ops = {.connected = check_connected, .data = check_data, .eof = check_eof,
    .drained = check_drained, .failed = check_failed, .released = check_release};

/* The memory goes first: the verdict may start the next attempt. */
static void grpc_checked(void *owner, bool ok, const char *text)
{
    struct check c = *(struct check *)owner;
    mem_free(owner);
    c.done(c.owner, ok, text);
}

static void grpc_start(struct check *c, int fd, const struct addr *to)
{
    char authority[ADDR_TEXT_MAX];
    struct http_check_conf conf = {.kind = HTTP_CHECK_GRPC, .authority = slice_of(authority, addr_format(to, authority)), .agent = SLICE("weir-probe"),
                                   .service = slice_cstr(c->spec->service)};
    c->grpc = http_check_start(c->run->loop, fd, to, &conf, grpc_checked, c);
}

struct check *netcheck_start(struct run *r, int fd, const struct probe *spec, void (*done)(void *owner, bool ok, const char *text), void *owner)
{
    struct check *c = mem_new(MEM_RUN, sizeof *c);
    struct addr to = addr_ip4(0x7f000001u, spec->port);
    c->run = r;
    c->spec = spec;
    c->done = done;
    c->owner = owner;
    if (spec->kind == PROBE_GRPC)
        grpc_start(c, fd, &to);
    else
        stream_connect(&c->stream, r->loop, &check_ops, fd, &to);
    return c;
}

void netcheck_cancel(struct check *c)
{
    if (!c || !c->run)
        return;
    if (c->grpc) {
        http_check_cancel(c->grpc);
        mem_free(c);
        return;
    }
    c->run = NULL;
    stream_close(&c->stream);
}
