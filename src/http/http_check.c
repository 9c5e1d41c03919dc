/* http_check.c - one question to a server, over http_cli.
 *
 *     connect --> [TLS] --> (CONNECT: well)
 *                       '-> GET or POST --> head --> (GET: judged) --> body, trailers --> (gRPC: judged)
 *
 * The verdict is given once. The connection is closed at the end of that turn, because the client's end of HTTP/2 may not be
 * closed inside its own callbacks; released() frees. HTTP/1 is asked to close after the answer (RFC 9112 section 9.6).
 */
#include "http_check.h"
#include "grpc_health.h"

#define GRPC_ANSWER_BYTES_MAX 4096 /* of a HealthCheckResponse, framed; it has two bytes and whatever a later version adds */
#define TRAILERS_MAX 16

struct http_check {
    struct http_cli cli;
    struct http_call call;       /* under way while calling */
    struct http_cli_conf conf;
    struct task end;             /* closes the connection */
    enum http_check_kind kind;
    uint16_t status_min, status_max;
    bool calling;
    bool over;                   /* the verdict was given, or nobody wants it */
    struct buf head;             /* of the request, without its last lines */
    struct buf body;             /* gRPC: the answer so far */
    struct buf text;             /* what the verdict says */
    char message[GRPC_HEALTH_REQUEST_MAX];
    uint32_t message_n;
    void (*done)(void *owner, bool ok, const char *text);
    void *owner;
};

static struct http_check *check_of(struct http_cli *cli) { return CONTAINER_OF(cli, struct http_check, cli); }
static struct http_check *check_of_call(struct http_call *k) { return CONTAINER_OF(k, struct http_check, call); }

static void check_close(struct http_check *c)
{
    if (c->calling)
        http_call_cancel(&c->call);
    c->calling = false;
    http_cli_close(&c->cli);
}

static void check_end(struct task *t) { check_close(CONTAINER_OF(t, struct http_check, end)); }

/* c->text says why. */
static void check_verdict(struct http_check *c, bool ok)
{
    if (c->over)
        return;
    c->over = true;
    stream_tls_slot_end(http_cli_stream(&c->cli)); /* its owner may go before the connection does, and tickets may come until then */
    loop_defer(http_cli_stream(&c->cli)->loop, &c->end);
    c->done(c->owner, ok, c->text.p ? c->text.p : "");
}

static void check_failed(struct http_check *c, enum err e)
{
    const char *tls = e == ERR_TLS ? stream_tls_error(http_cli_stream(&c->cli)) : "";
    if (c->over)
        return;
    buf_adds(&c->text, *tls ? tls : err_text(e));
    check_verdict(c, false);
}

/* ---- the question ------------------------------------------------------------------------------------------------------- */

static void check_ask(struct http_check *c)
{
    enum h1_method method = c->kind == HTTP_CHECK_GRPC ? H1_POST : H1_GET;
    enum h1_framing framing = c->message_n ? H1_LENGTH : H1_NO_BODY;
    struct iovec v = {c->message, c->message_n};
    buf_adds(&c->head, c->cli.version == HTTP_1 ? "Connection: close\r\n\r\n" : "\r\n");
    c->calling = true;
    http_cli_request(&c->cli, &c->call, method, buf_slice(&c->head), framing, (struct pieces){&v, c->message_n ? 1 : 0, c->message_n}, true);
}

static void on_connected(struct http_cli *cli)
{
    struct http_check *c = check_of(cli);
    if (c->over)
        return;
    if (c->kind == HTTP_CHECK_CONNECT)
        check_verdict(c, true);
    else if (!c->calling)
        check_ask(c);
}

static void head_begin(struct http_check *c, const struct http_check_conf *conf)
{
    struct slice path = conf->kind == HTTP_CHECK_GRPC ? SLICE(GRPC_HEALTH_PATH) : conf->path;
    buf_printf(&c->head, "%s " SLICE_FMT " HTTP/1.1\r\nHost: " SLICE_FMT "\r\nUser-Agent: " SLICE_FMT "\r\n", conf->kind == HTTP_CHECK_GRPC ? "POST" : "GET",
               SLICE_ARG(path.n ? path : SLICE("/")), SLICE_ARG(conf->authority), SLICE_ARG(conf->agent));
    if (conf->kind == HTTP_CHECK_GET) {
        buf_adds(&c->head, "Accept: */*\r\n");
        return;
    }
    c->message_n = (uint32_t)grpc_health_request(conf->service, c->message);
    buf_printf(&c->head, "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: %u\r\n", c->message_n);
}

/* ---- the answer ----------------------------------------------------------------------------------------------------------- */

/* False: the call failed, and the verdict is given. */
static bool grpc_status(struct http_check *c, const struct h1_field *f)
{
    uint64_t code;
    if (f && slice_u64(f->value, UINT32_MAX, &code) == OK && code == 0)
        return true;
    if (f)
        buf_printf(&c->text, "grpc-status " SLICE_FMT "%s", SLICE_ARG(f->value), slice_is(f->value, "12") ? ": it has no health service" : slice_is(f->value, "5") ? ": it does not know that service" : "");
    else
        buf_adds(&c->text, "the answer has no grpc-status");
    check_verdict(c, false);
    return false;
}

static void grpc_end(struct http_check *c)
{
    struct h1_field fields[TRAILERS_MAX];
    const struct h1_field *status = NULL;
    int n = http_call_trailers(&c->call, fields, TRAILERS_MAX);
    uint64_t serving;
    for (int i = 0; i < n; i++)
        if (slice_ieq(fields[i].name, SLICE("grpc-status")))
            status = &fields[i];
    if (!grpc_status(c, status))
        return;
    enum err e = grpc_health_response(buf_slice(&c->body), &serving);
    if (e != OK)
        buf_printf(&c->text, "the answer is no HealthCheckResponse: %s", err_text(e));
    else
        buf_adds(&c->text, grpc_serving_text(serving));
    check_verdict(c, e == OK && serving == GRPC_SERVING);
}

static void grpc_take(struct http_check *c, struct pieces body, bool end)
{
    if (c->body.n + body.bytes > GRPC_ANSWER_BYTES_MAX) {
        buf_printf(&c->text, "the answer is larger than %u bytes", GRPC_ANSWER_BYTES_MAX);
        check_verdict(c, false);
        return;
    }
    for (int i = 0; i < body.n; i++)
        buf_add(&c->body, body.v[i].iov_base, body.v[i].iov_len);
    if (end)
        grpc_end(c);
}

static void on_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    struct http_check *c = check_of_call(k);
    c->calling = !end;
    if (c->over)
        return;
    const struct h1_field *refused = h1_find(h, SLICE("grpc-status"));
    if (c->kind == HTTP_CHECK_GET || h->status != 200) {
        buf_printf(&c->text, "%s%u", c->kind == HTTP_CHECK_GET ? "" : "HTTP status ", h->status);
        check_verdict(c, c->kind == HTTP_CHECK_GET && h->status >= c->status_min && h->status <= c->status_max);
    } else if (!refused) {
        grpc_take(c, body, end);
    } else if (grpc_status(c, refused)) { /* OK, but nothing was said */
        buf_adds(&c->text, "an empty answer");
        check_verdict(c, false);
    }
}

static void on_body(struct http_call *k, struct pieces body, bool end)
{
    struct http_check *c = check_of_call(k);
    c->calling = !end;
    if (!c->over && c->kind == HTTP_CHECK_GRPC)
        grpc_take(c, body, end);
}

static void on_failed(struct http_call *k, enum err e)
{
    struct http_check *c = check_of_call(k);
    c->calling = false;
    check_failed(c, e);
}

static void on_interim(struct http_call *k, const struct h1_head *h) {}
static void on_drained(struct http_call *k) {}
static void on_ended(struct http_cli *cli, enum err e) { check_failed(check_of(cli), e); }

static void on_released(struct http_cli *cli)
{
    struct http_check *c = check_of(cli);
    list_del(&c->end.link);
    buf_free(&c->head);
    buf_free(&c->body);
    buf_free(&c->text);
    mem_free(c);
}

static const struct http_cli_ops check_ops = {.connected = on_connected,
                                              .interim = on_interim,
                                              .response = on_response,
                                              .body = on_body,
                                              .drained = on_drained,
                                              .failed = on_failed,
                                              .ended = on_ended,
                                              .released = on_released};

/* ---- for the owner ---------------------------------------------------------------------------------------------------------- */

struct http_check *http_check_start(struct loop *l, int fd, const struct addr *a, const struct http_check_conf *conf,
                                    void (*done)(void *owner, bool ok, const char *text), void *owner)
{
    struct http_check *c = mem_new(MEM_CONN, sizeof *c);
    enum http_version version = conf->kind == HTTP_CHECK_GRPC ? HTTP_2 : conf->kind == HTTP_CHECK_CONNECT ? HTTP_1 : conf->version;
    c->kind = conf->kind;
    c->status_min = conf->status_min;
    c->status_max = conf->status_max;
    c->done = done;
    c->owner = owner;
    task_init(&c->end, check_end);
    http_cli_conf_default(&c->conf);
    c->conf.limits = &h1_limits_default;
    if (conf->kind != HTTP_CHECK_CONNECT)
        head_begin(c, conf);
    c->cli.ahead = conf->ahead;
    http_cli_connect(&c->cli, l, &c->conf, &check_ops, fd, a, version, conf->tls);
    c->cli.ahead = SLICE("");
    if (conf->kind != HTTP_CHECK_CONNECT && http_cli_room(&c->cli))
        check_ask(c);
    return c;
}

void http_check_cancel(struct http_check *c)
{
    if (!c || c->over)
        return;
    c->over = true;
    check_close(c);
}
