/* h2_cli.c - the client's end of an HTTP/2 connection: calls as streams.
 *
 *     h2_cli_request() --HEADERS--> [interim()] --> response() --> body() ... end: over
 *           '--(an upgrade waits for the peer's SETTINGS)    '--> reset, GOAWAY, malformed: failed(): over
 *
 * A connection may be started before it stands: what is asked waits in the stream of rt. It takes no more calls once the
 * peer said GOAWAY, once it broke, or when its stream ids are used up; when the last call is over then, ended() is told. An
 * answer that came whole is handed on whatever happens to the connection afterwards.
 *
 * A peer whose program hangs keeps its connection, for its kernel answers for it. Where the conf says so it is asked by PING when calls are
 * under way and not a byte has come for a while; one that is silent to that as well is gone (RFC 9113 section 6.7: PING is answered before all else).
 */
#include "h2_int.h"

#include <openssl/evp.h>

#define PROTOCOL_MAX 64 /* bytes of an Upgrade */
#define ACCEPT_BYTES 28 /* of Sec-WebSocket-Accept */

struct h2_call {
    struct h2_stream st;
    struct http_call *k;
    char *head;               /* of an upgrade that waits for SETTINGS; owned */
    uint32_t head_n;
    uint64_t interim_bytes;
    uint8_t method;           /* enum h1_method */
    uint8_t protocol_n, accept_n;
    bool tunnel_asked;
    char protocol[PROTOCOL_MAX];
    char accept[ACCEPT_BYTES + 1]; /* what HTTP/1.1 would have been answered (RFC 6455 section 4.2.2) */
};

struct h2_cli {
    struct h2_conn c;
    struct http_cli *cli;
    uint32_t calls;
    int32_t sent_id;          /* the highest stream whose HEADERS were framed */
    struct timer pulse;       /* with conf.ask_ms, while calls are under way */
    uint64_t pulse_bytes;     /* that had come when it was last set */
    bool asked;               /* a PING went out since then */
    enum err err;             /* with broken */
    bool connected;
    bool settled;             /* the peer's SETTINGS came */
    bool broken;
    bool told;                /* ended() was */
};

static struct h2_cli *cli_of(struct h2_conn *c) { return CONTAINER_OF(c, struct h2_cli, c); }
static struct h2_call *call_of(struct h2_stream *st) { return CONTAINER_OF(st, struct h2_call, st); }

/* ---- ends --------------------------------------------------------------------------------------------------------------- */

/* The owner is done with the call, or is about to be told so. */
static struct http_call *call_over(struct h2_call *call)
{
    if (call->st.id == 0)
        call->st.closed = true; /* nghttp2 never knew it */
    if (!call->st.over)
        cli_of(call->st.c)->calls--;
    h2_stream_over(&call->st);
    mem_free(call->head);
    call->head = NULL;
    h2_later(call->st.c);
    return call->k;
}

static void call_fail(struct h2_call *call, enum err e)
{
    struct h2_cli *v = cli_of(call->st.c);
    struct http_call *k = call_over(call);
    k->unsent |= call->st.id == 0 || call->st.id > v->sent_id || !v->connected;
    k->unsent |= e == ERR_TLS && !v->settled; /* TLS 1.3: our certificate was refused after we had begun to send; whoever reads has sent SETTINGS */
    v->cli->ops->failed(k, e);
}

/* A call whose answer has come whole, though not all of it was handed on, goes on. */
static void fail_all(struct h2_cli *v, enum err e)
{
    LIST_FOREACH(l, &v->c.streams) {
        struct h2_stream *st = CONTAINER_OF(l, struct h2_stream, link);
        if (!st->over && !st->in_end)
            h2_stream_fail(st, e);
    }
}

static void cli_broken(struct h2_conn *c, enum err e)
{
    struct h2_cli *v = cli_of(c);
    if (!v->broken) {
        v->broken = true;
        v->err = e;
        v->cli->ending = true;
        fail_all(v, e);
        h2_later(c);
    }
    if (v->calls == 0 && !v->told) {
        v->told = true;
        v->cli->ops->ended(v->cli, v->err);
    }
}

static void cli_turned(struct h2_conn *c)
{
    struct h2_cli *v = cli_of(c);
    if (!v->cli->ending && !nghttp2_session_check_request_allowed(c->ng))
        v->cli->ending = true;
    if (v->cli->ending && v->calls == 0 && !v->told) {
        v->told = true;
        v->cli->ops->ended(v->cli, v->broken ? v->err : ERR_CLOSED);
    }
}

/* ---- a peer that hangs -------------------------------------------------------------------------------------------------------- */

static void pulse_set(struct h2_cli *v, uint32_t ms)
{
    v->pulse_bytes = v->c.total_bytes;
    timer_set(v->c.s->loop, &v->pulse, ms);
}

static void pulse_fires(struct timer *t)
{
    struct h2_cli *v = CONTAINER_OF(t, struct h2_cli, pulse);
    const struct http_cli_conf *conf = v->cli->conf;
    if (v->c.closed || v->broken || !v->calls)
        return;
    bool heard = v->c.total_bytes != v->pulse_bytes || v->c.choked || !v->connected; /* choked: we do not read; not connected: the owner's limit holds */
    if (!heard && v->asked) {
        if (conf->count)
            counter_inc(&conf->count->h2_up_hung);
        cli_broken(&v->c, ERR_TIMEOUT);
        return;
    }
    v->asked = !heard;
    if (v->asked) {
        (void)nghttp2_submit_ping(v->c.ng, NGHTTP2_FLAG_NONE, NULL);
        h2_later(&v->c);
    }
    pulse_set(v, v->asked ? conf->hung_ms : conf->ask_ms);
}

/* A call begins: from now on somebody waits. */
static void pulse_begin(struct h2_cli *v)
{
    if (!v->cli->conf->ask_ms || timer_is_set(&v->pulse))
        return;
    v->asked = false;
    pulse_set(v, v->cli->conf->ask_ms);
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

static void field_add(struct h1_head *h, enum h1_name id, struct slice name, struct slice value)
{
    if (h->n == H1_FIELDS_MAX)
        return;
    h->fields[h->n++] = (struct h1_field){name, value, id};
    if (id != H1_OTHER)
        h->known[id] = h->n;
}

/* The peer agreed: an answer as HTTP/1.1 would have given it. */
static void tunnel_begin(struct h2_call *call, struct h1_head *h)
{
    h->framing = H1_TUNNEL;
    call->st.tunnel = true;
    if (!call->protocol_n)
        return;
    h->status = 101;
    h->upgrade = true;
    field_add(h, H1_UPGRADE, SLICE("upgrade"), slice_of(call->protocol, call->protocol_n));
    if (call->accept_n)
        field_add(h, H1_OTHER, SLICE("sec-websocket-accept"), slice_of(call->accept, call->accept_n));
}

static bool cli_judge(struct h2_stream *st, struct h2_block *b, bool end)
{
    struct h2_call *call = call_of(st);
    struct h1_head *h = &b->f.h;
    enum h1_method method = call->tunnel_asked ? H1_CONNECT : (enum h1_method)call->method;
    if (!h2_response_finish(&b->f, method, end) || (h->status < 200 && end)) {
        h2_stream_fault(st, NGHTTP2_PROTOCOL_ERROR);
        return false;
    }
    if (h->status < 200) {
        call->interim_bytes += b->f.bytes;
        if (call->interim_bytes > st->c->limits->head_bytes_max) { /* a flood of them has no end */
            h2_stream_fault(st, NGHTTP2_ENHANCE_YOUR_CALM);
            return false;
        }
        return true;
    }
    st->head_done = true;
    if (call->tunnel_asked && h->status / 100 == 2) {
        tunnel_begin(call, h);
        return true;
    }
    st->in_counted = h->framing == H1_LENGTH || h->framing == H1_NO_BODY;
    st->in_left = h->length;
    return true;
}

/* The answer has come: the call is over, and what is left of the request is not sent (of a tunnel it is). */
static void answer_end(struct h2_call *call)
{
    struct h2_stream *st = &call->st;
    if (st->tunnel && !st->out_end)
        h2_stream_end(st, SLICE(""));
    else if (!st->tunnel && !st->out_done)
        h2_stream_reset(st, NGHTTP2_CANCEL);
    call_over(call);
}

static void cli_head(struct h2_stream *st, const struct h1_head *h, struct pieces body, bool end)
{
    struct h2_call *call = call_of(st);
    const struct http_cli_ops *ops = cli_of(st->c)->cli->ops;
    struct http_call *k = call->k;
    k->answer_begun = true;
    if (h->status < 200 && h->framing != H1_TUNNEL) {
        ops->interim(k, h);
        return;
    }
    if (end)
        answer_end(call);
    ops->response(k, h, body, end);
}

static void cli_body(struct h2_stream *st, struct pieces body, bool end)
{
    struct h2_call *call = call_of(st);
    struct http_call *k = call->k;
    if (end)
        answer_end(call);
    cli_of(st->c)->cli->ops->body(k, body, end);
}

static void cli_drained(struct h2_stream *st) { cli_of(st->c)->cli->ops->drained(call_of(st)->k); }
static void cli_failed(struct h2_stream *st, enum err e) { call_fail(call_of(st), e); }

static void cli_closing(struct h2_stream *st, uint32_t code)
{
    struct h2_call *call = call_of(st);
    if (st->over || st->in_end)
        return;
    if (cli_of(st->c)->cli->conf->count)
        counter_inc(&cli_of(st->c)->cli->conf->count->h2_up_resets);
    call->k->reset_code = code;
    call->k->unsent |= code == NGHTTP2_REFUSED_STREAM; /* also the streams that a GOAWAY left out */
    h2_stream_fail(st, ERR_RESET);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

#define PSEUDO_MAX 5

static void accept_make(struct h2_call *call, struct slice key)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[128];
    unsigned char sha[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    call->accept_n = 0;
    if (!key.n || key.n > sizeof text - sizeof guid)
        return;
    memcpy(text, key.p, key.n);
    memcpy(text + key.n, guid, sizeof guid - 1);
    if (EVP_Digest(text, key.n + sizeof guid - 1, sha, &n, EVP_sha1(), NULL) != 1 || n != 20)
        return;
    EVP_EncodeBlock((unsigned char *)call->accept, sha, 20);
    call->accept_n = ACCEPT_BYTES;
}

/* The path of a target in absolute form. */
static struct slice path_of(struct slice target)
{
    if (target.n && target.p[0] != '/' && target.p[0] != '*')
        for (size_t i = 0; i + 2 < target.n; i++)
            if (memcmp(target.p + i, "://", 3) == 0) {
                const char *slash = memchr(target.p + i + 3, '/', target.n - i - 3);
                return slash ? slice_of(slash, (size_t)(target.p + target.n - slash)) : SLICE("/");
            }
    return target;
}

/* The pseudo fields, in front of the lines' fields. Returns the index of the first. */
static int pseudo_put(struct h2_call *call, struct h2_nva *a, struct slice method, struct slice target)
{
    const struct stream *s = call->st.c->s;
    nghttp2_nv fields[PSEUDO_MAX];
    struct h2_nva *p = a;
    int n = p->n;
    bool upgrade = call->tunnel_asked && call->method != H1_CONNECT;
    p->n = 0;
    h2_nva_put(p, SLICE(":method"), upgrade ? SLICE("CONNECT") : method);
    h2_nva_put(p, SLICE(":authority"), call->method == H1_CONNECT ? target : a->host);
    if (call->method != H1_CONNECT) {
        h2_nva_put(p, SLICE(":scheme"), s->tls ? SLICE("https") : SLICE("http"));
        h2_nva_put(p, SLICE(":path"), path_of(target));
    }
    if (upgrade)
        h2_nva_put(p, SLICE(":protocol"), slice_of(call->protocol, call->protocol_n));
    int got = p->n;
    memcpy(fields, a->v, (size_t)got * sizeof *fields);
    memcpy(a->v + PSEUDO_MAX - got, fields, (size_t)got * sizeof *fields);
    p->n = n;
    return PSEUDO_MAX - got;
}

/* Gives the request to nghttp2. no_copy: it is framed before head is gone. whole: it has no body. */
static bool submit(struct h2_call *call, struct slice head, bool no_copy, bool whole)
{
    struct h2_stream *st = &call->st;
    struct slice text = head, line = slice_cut(head, '\n', &text), method, target;
    struct h2_nva a;
    method = slice_cut(line, ' ', &target);
    target = slice_cut(target, ' ', &line);
    h2_nva_init(&a, no_copy);
    a.n = PSEUDO_MAX;
    h2_nva_lines(&a, text);
    if (call->tunnel_asked && call->method != H1_CONNECT) {
        call->protocol_n = (uint8_t)MIN(a.upgrade.n, PROTOCOL_MAX);
        memcpy(call->protocol, a.upgrade.p, call->protocol_n);
        accept_make(call, a.key);
    }
    int from = pseudo_put(call, &a, method, target);
    nghttp2_data_provider prd = h2_provider(st);
    int32_t id = a.over ? NGHTTP2_ERR_INVALID_ARGUMENT
                        : nghttp2_submit_request(st->c->ng, NULL, a.v + from, (size_t)(a.n - from), whole ? NULL : &prd, st);
    if (id < 0) {
        h2_stream_fail(st, ERR_LIMIT);
        return false;
    }
    st->id = id;
    st->out_open = true;
    st->out_done = whole;
    return true;
}

static bool may_tunnel(const struct h2_cli *v) { return nghttp2_session_get_remote_settings(v->c.ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1; }

size_t h2_cli_request(struct http_cli *cli, struct http_call *k, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end)
{
    struct h2_cli *v = cli->h2;
    bool tunnel = framing == H1_TUNNEL, waits = tunnel && method != H1_CONNECT && !v->settled;
    bool no_copy = h2_direct(&v->c) && h2_cli_room(cli) > 0;
    struct h2_call *call = h2_get(sizeof *call);
    MUST(call && !v->c.closed);
    h2_stream_init(&call->st, &v->c, 0, NULL);
    memset((char *)call + sizeof call->st, 0, offsetof(struct h2_call, protocol) - sizeof call->st);
    call->k = k;
    call->method = (uint8_t)method;
    call->tunnel_asked = tunnel;
    call->st.known = true;
    k->h2 = call;
    v->calls++;
    pulse_begin(v);
    if (v->broken || (tunnel && method != H1_CONNECT && v->settled && !may_tunnel(v))) {
        h2_stream_fail(&call->st, v->broken ? ERR_CLOSED : ERR_UNSUPPORTED);
        return 0;
    }
    if (waits) {
        call->head = mem_strndup(MEM_CONN, head.p, head.n);
        call->head_n = (uint32_t)head.n;
        return 0;
    }
    end = end && !tunnel; /* a tunnel's direction stays open */
    if (!submit(call, head, no_copy, end && !body.bytes))
        return 0;
    return h2_stream_send(&call->st, body, end);
}

/* The peer has said whether it takes extended CONNECT: those that waited go, or fail. */
static void settled(struct h2_cli *v)
{
    v->settled = true;
    LIST_FOREACH(l, &v->c.streams) {
        struct h2_call *call = call_of(CONTAINER_OF(l, struct h2_stream, link));
        if (!call->head || call->st.over)
            continue;
        if (may_tunnel(v))
            (void)submit(call, slice_of(call->head, call->head_n), false, false);
        else
            h2_stream_fail(&call->st, ERR_UNSUPPORTED);
        mem_free(call->head);
        call->head = NULL;
    }
}

/* ---- frames -------------------------------------------------------------------------------------------------------------------- */

static struct h2_stream *cli_begin(struct h2_conn *c, int32_t id) { return NULL; } /* a client gets no requests */

static void cli_frame(struct h2_conn *c, const nghttp2_frame *f)
{
    struct h2_cli *v = cli_of(c);
    if (f->hd.type == NGHTTP2_SETTINGS && !(f->hd.flags & NGHTTP2_FLAG_ACK) && !v->settled)
        settled(v);
    else if (f->hd.type == NGHTTP2_GOAWAY) {
        if (v->cli->conf->count && !v->cli->ending)
            counter_inc(&v->cli->conf->count->h2_up_goaways);
        v->cli->ending = true; /* nghttp2 closes the streams that it leaves out */
    }
}

static void cli_sent(struct h2_conn *c, const nghttp2_frame *f)
{
    if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST)
        cli_of(c)->sent_id = f->hd.stream_id;
}

static void cli_unknown(struct h2_conn *c) {}
static void cli_unsent(struct h2_conn *c, const nghttp2_frame *f) {} /* nghttp2 closes its stream: cli_closing() */
static void cli_invalid(struct h2_conn *c, const nghttp2_frame *f, int why) {}

static const struct h2_role cli_role = {.begin = cli_begin,
                                        .judge = cli_judge,
                                        .head = cli_head,
                                        .body = cli_body,
                                        .drained = cli_drained,
                                        .failed = cli_failed,
                                        .unknown = cli_unknown,
                                        .closing = cli_closing,
                                        .frame = cli_frame,
                                        .sent = cli_sent,
                                        .unsent = cli_unsent,
                                        .invalid = cli_invalid,
                                        .turned = cli_turned,
                                        .broken = cli_broken};

/* ---- the stream of rt ------------------------------------------------------------------------------------------------------------ */

static struct h2_cli *of_stream(struct stream *s) { return CONTAINER_OF(s, struct http_cli, h1.s)->h2; }

static void cli_connected(struct stream *s)
{
    struct h2_cli *v = of_stream(s);
    struct slice alpn = s->tls ? stream_tls_alpn(s) : SLICE("");
    v->connected = true;
    if (alpn.n && !slice_is(alpn, "h2")) { /* it was to be HTTP/2, and the peer chose something else */
        v->connected = false;
        cli_broken(&v->c, ERR_TLS);
        return;
    }
    v->cli->h1.connected = true; /* owners look there, whatever is spoken */
    v->cli->ops->connected(v->cli);
}

static void cli_data(struct stream *s, char *p, size_t n)
{
    struct h2_cli *v = of_stream(s);
    if (!v->broken)
        h2_conn_data(&v->c, p, n);
}

static void cli_eof(struct stream *s) { cli_broken(&of_stream(s)->c, ERR_CLOSED); }
static void cli_stream_failed(struct stream *s, enum err e) { cli_broken(&of_stream(s)->c, e); }
static void cli_stream_drained(struct stream *s) { h2_conn_drained(&of_stream(s)->c); }

static void cli_released(struct stream *s)
{
    struct http_cli *cli = CONTAINER_OF(s, struct http_cli, h1.s);
    struct h2_cli *v = cli->h2;
    timer_clear(&v->pulse);
    h2_conn_fini(&v->c);
    mem_free(v);
    cli->h2 = NULL;
    cli->ops->released(cli);
}

static const struct stream_ops cli_stream_ops = {.connected = cli_connected,
                                                 .data = cli_data,
                                                 .eof = cli_eof,
                                                 .drained = cli_stream_drained,
                                                 .failed = cli_stream_failed,
                                                 .released = cli_released};

void h2_cli_start(struct http_cli *cli)
{
    const struct http_cli_conf *conf = cli->conf;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, conf->window_bytes},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, conf->limits->head_bytes_max},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    struct h2_cli *v = mem_new(MEM_CONN, sizeof *v);
    struct stream *s = &cli->h1.s;
    if (conf->count)
        counter_inc(&conf->count->h2_up_connections);
    v->cli = cli;
    cli->h2 = v;
    s->ops = &cli_stream_ops;
    v->connected = !s->connecting && !s->tls_handshake;
    timer_init(&v->pulse, pulse_fires);
    MUST(h2_conn_init(&v->c, s, &cli_role, false, conf->limits, settings, COUNT_OF(settings), conf->conn_window_bytes));
}

/* ---- for the owner ----------------------------------------------------------------------------------------------------------------- */

uint32_t h2_cli_room(const struct http_cli *cli)
{
    const struct h2_cli *v = cli->h2;
    if (cli->ending || v->c.closed || !nghttp2_session_check_request_allowed(v->c.ng))
        return 0;
    uint32_t max = MIN(cli->conf->streams_max, nghttp2_session_get_remote_settings(v->c.ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS));
    return max > v->c.streams_n ? max - v->c.streams_n : 0;
}

uint32_t h2_cli_streams_told(const struct http_cli *cli)
{
    const struct h2_cli *v = cli->h2;
    return v->settled ? nghttp2_session_get_remote_settings(v->c.ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) : 0;
}

uint32_t h2_cli_calls(const struct http_cli *cli) { return cli->h2->calls; }

size_t h2_call_send(struct http_call *k, struct pieces body) { return k->h2->st.over ? 0 : h2_stream_send(&k->h2->st, body, false); }
size_t h2_call_queued(const struct http_call *k) { return k->h2->st.out.bytes; }

void h2_call_end(struct http_call *k, struct slice trailers)
{
    struct h2_stream *st = &k->h2->st;
    if (!st->over)
        h2_stream_end(st, st->tunnel ? SLICE("") : trailers);
}

void h2_call_reading(struct http_call *k, bool on) { h2_stream_reading(&k->h2->st, on); }
int h2_call_trailers(struct http_call *k, struct h1_field *fields, int max) { return h2_stream_trailers(&k->h2->st, fields, max); }

void h2_call_cancel(struct http_call *k)
{
    struct h2_stream *st = &k->h2->st;
    if (st->over)
        return;
    h2_stream_reset(st, NGHTTP2_CANCEL);
    call_over(k->h2);
    h2_flush(st->c);
}

void h2_cli_close(struct http_cli *cli)
{
    struct h2_cli *v = cli->h2;
    if (v->c.closed)
        return;
    v->told = true;
    h2_conn_close(&v->c);
    for (struct h2_stream *st; (st = h2_conn_open_stream(&v->c));)
        call_fail(call_of(st), ERR_CLOSED);
}
