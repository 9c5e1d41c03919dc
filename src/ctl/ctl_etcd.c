/* ctl_etcd.c - the engine of a cluster: opening and closing, calls that come in, what is done at the end of a turn. ETCD.md has the model.
 *
 * The store is there as soon as it is opened; its calls wait for a connection. All that calls its owner back happens in callbacks of connections and timers and
 * in remote_turn_run(), never inside a function of ctl.h.
 */
#include "ctl_etcd_int.h"

#include <stdio.h>

#define TLS_FILE_MAX (1u << 20) /* bytes of a PEM file */
#define HTTP_WINDOW_BYTES (1u << 20)
#define HTTP_CONN_WINDOW_BYTES (4u << 20)
#define STREAMS_OWN 16          /* of the store's own questions, beside sent_max calls */
#define ANSWER_FACTOR 3         /* an event has a value and the one before, and is never apart */

static void remote_gone(struct remote *r);

/* ---- calls ---- */

void remote_over(struct remote *r, struct ctl_call *call, enum ctl_error e, const char *why)
{
    call->error = e;
    call->why = why;
    call->revision = r->revision;
    list_push(&r->over, &call->link);
    r->calls_n++;
    remote_turn(r);
}

static void remote_submit(struct ctl *c, struct ctl_call *call)
{
    struct remote *r = (struct remote *)c;
    bool full = r->calls_n >= r->conf.calls_max && !call->exempt;
    enum ctl_error e = r->closing ? CTL_STOPPED : full ? CTL_TOO_MANY_REQUESTS : call_check(call, r->conf.txn_ops_max, r->conf.request_bytes_max);
    if (e == CTL_TOO_MANY_REQUESTS) counter_inc(&c->counters.calls_refused);
    if (e != CTL_OK) {
        remote_over(r, call, e, ctl_error_text(e));
        return;
    }
    r->calls_n++;
    rcall_new(r, call);
    rcalls_flush(r);
}

static void remote_tell_over(struct remote *r)
{
    struct list now;
    list_take(&r->over, &now); /* what their done() submits is for the next turn */
    while (!list_empty(&now)) {
        struct ctl_call *call = CONTAINER_OF(now.next, struct ctl_call, link);
        list_del(&call->link);
        r->calls_n--;
        counter_inc(&r->ctl.counters.calls);
        counter_inc(&r->ctl.counters.calls_failed);
        call->done(call);
    }
}

static void remote_turn_run(struct task *t)
{
    struct remote *r = CONTAINER_OF(t, struct remote, task);
    remote_tell_over(r);
    rwatches_turn(r);
    if (r->closing) rcalls_stop(r, r->cut);
    rconns_turn(r);
    remote_dial(r);
    rcalls_flush(r);
    if (r->closing) remote_gone(r);
}

static void remote_status(const struct ctl *c, struct ctl_status *out)
{
    const struct remote *r = (const struct remote *)c;
    *out = (struct ctl_status){.revision = r->revision, .compact_revision = r->compact, .bytes = r->bytes, .bytes_used = r->bytes_used, .watches = r->watches_n,
                               .nospace = r->nospace, .trouble = r->trouble, .why = r->trouble == CTL_OK ? "" : r->why};
}

/* ---- closing ---- */

static void remote_free(struct remote *r)
{
    struct timer *timers[] = {&r->again, &r->rest, &r->mark, &r->closing_timer};
    for (size_t i = 0; i < COUNT_OF(timers); i++) timer_clear(timers[i]);
    list_del(&r->task.link);
    rwatches_fini(r);
    for (size_t i = 0; i < r->peers_n; i++) {
        tls_session_slot_fini(&r->peers[i].session);
        mem_free(r->peers[i].host);
        mem_free(r->peers[i].authority);
    }
    mem_free(r->peers);
    tls_ctx_unref(r->tls);
    mem_free(r->user);
    mem_free(r->password);
    mem_free(r->token);
    if (r->out.p) head_out_fini(&r->out);
    buf_free(&r->body);
    buf_free(&r->head);
    arena_fini(&r->asking);
    arena_fini(&r->answer);
    mem_free(r);
}

/* Step by step: calls, then connections, then nothing is left. */
static void remote_gone(struct remote *r)
{
    if (r->calls_n || !rwatches_quiet(r)) return;
    LIST_FOREACH(it, &r->conns) rconn_stop(CONTAINER_OF(it, struct rconn, link));
    if (r->conns_n) return;
    void (*closed)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    remote_free(r);
    closed(ctx);
}

static void remote_cut(struct timer *t)
{
    struct remote *r = CONTAINER_OF(t, struct remote, closing_timer);
    r->cut = true;
    remote_turn(r);
}

static void remote_close(struct ctl *c, void (*done)(void *ctx), void *ctx)
{
    struct remote *r = (struct remote *)c;
    MUST(!r->closing);
    r->closing = true;
    r->closed = done;
    r->closed_ctx = ctx;
    timer_clear(&r->again);
    timer_clear(&r->mark);
    timer_set(r->loop, &r->closing_timer, CLOSE_MS);
    rwatches_stop(r);
    remote_turn(r);
}

/* ---- opening ---- */

static const struct ctl_engine remote_engine = {
    .submit = remote_submit, .watch_start = remote_watch_start, .watch_resume = remote_watch_resume, .watch_progress = remote_watch_progress,
    .watch_stop = remote_watch_stop, .status = remote_status, .close = remote_close,
};

void ctl_etcd_conf_default(struct ctl_etcd_conf *conf)
{
    *conf = (struct ctl_etcd_conf){
        .dial_ms = 2000, .request_ms = 5000, .pulse_ms = 1000, .silence_ms = 2000, .leaderless_ms = 2000, .backoff_min_ms = 100, .backoff_max_ms = 2000,
        .calls_max = 10000, .sent_max = 1000, .watches_max = 100000, .request_bytes_max = 1536u << 10, .txn_ops_max = 128, .answer_bytes_max = 64u << 20,
        .watch_bytes_max = 64u << 10, .watches_bytes_max = 16u << 20};
}

static enum err pem_read(const char *path, const char *what, struct buf *out, struct buf *why)
{
    enum err e = path ? file_read(path, out, TLS_FILE_MAX) : OK;
    if (e != OK) buf_printf(why, "the %s of the etcd cluster can't be read from %s: %s", what, path, err_text(e));
    return e;
}

static enum err tls_open(struct remote *r, struct buf *why)
{
    const struct ctl_etcd_conf *conf = &r->conf;
    static const struct slice alpn[] = {{"h2", 2}};
    struct buf ca = {0}, cert = {0}, key = {0};
    enum err e = pem_read(conf->ca_file, "certificate authority", &ca, why);
    if (e == OK) e = pem_read(conf->cert_file, "client's certificate", &cert, why);
    if (e == OK) e = pem_read(conf->key_file, "client's key", &key, why);
    if (e == OK) {
        struct tls_cert_conf shown = {.chain_pem = buf_slice(&cert), .key_pem = buf_slice(&key)};
        struct tls_client_conf tls = {.trust = conf->ca_file ? TLS_TRUST_CA : TLS_TRUST_SYSTEM, .ca_pem = buf_slice(&ca), .cert = cert.n ? &shown : NULL,
                                      .alpn = alpn, .alpn_n = COUNT_OF(alpn)};
        e = tls_client_new(&tls, &r->tls, why);
    }
    buf_free(&ca);
    buf_free(&cert);
    buf_free(&key);
    return e;
}

static enum err conf_check(const struct ctl_etcd_conf *conf, struct buf *why)
{
    if (!conf->endpoints_n) buf_adds(why, "an etcd cluster has at least one endpoint");
    else if (!conf->cert_file != !conf->key_file) buf_adds(why, "a client's certificate and its key go together");
    else if (!conf->tls && (conf->ca_file || conf->cert_file)) buf_adds(why, "certificates are for endpoints with https://");
    else if (conf->answer_bytes_max / ANSWER_FACTOR < conf->request_bytes_max) buf_adds(why, "an answer may have to hold two values as large as requests are");
    else if (!conf->dial_ms || !conf->request_ms || !conf->pulse_ms || !conf->silence_ms || !conf->backoff_min_ms) buf_adds(why, "a time of 0 ms is no limit");
    for (size_t i = 0; i < conf->endpoints_n; i++)
        if (conf->endpoints[i].addr.family == ADDR_NONE) buf_printf(why, "endpoint %zu of the etcd cluster has no address", i + 1);
    return why->n ? ERR_INVALID : OK;
}

static void peers_copy(struct remote *r)
{
    r->peers_n = r->conf.endpoints_n;
    r->round_left = (uint32_t)r->peers_n;
    r->peers = mem_new(MEM_CTL, r->peers_n * sizeof *r->peers);
    for (size_t i = 0; i < r->peers_n; i++) {
        const struct ctl_etcd_endpoint *from = &r->conf.endpoints[i];
        char at[ADDR_TEXT_MAX], text[ADDR_TEXT_MAX + 300];
        r->peers[i].addr = from->addr;
        addr_format_ip(&from->addr, at);
        r->peers[i].host = mem_strdup(MEM_CTL, from->host ? from->host : at);
        if (from->host) snprintf(text, sizeof text, "%.250s:%u", from->host, from->addr.port);
        else addr_format(&from->addr, text);
        r->peers[i].authority = mem_strdup(MEM_CTL, text);
    }
}

static void remote_init(struct remote *r)
{
    struct list *lists[] = {&r->conns, &r->waiting, &r->resting, &r->sent, &r->keeps, &r->over};
    for (size_t i = 0; i < COUNT_OF(lists); i++) list_init(lists[i]);
    timer_init(&r->again, remote_again);
    timer_init(&r->rest, rcall_rested);
    timer_init(&r->closing_timer, remote_cut);
    task_init(&r->task, remote_turn_run);
    arena_init(&r->asking, MEM_CTL, 8192);
    arena_init(&r->answer, MEM_CTL, 16384);
    head_out_init(&r->out);
    http_cli_conf_default(&r->http);
    r->http.limits = &h1_limits_default;
    r->http.out = &r->out;
    r->http.window_bytes = HTTP_WINDOW_BYTES;
    r->http.conn_window_bytes = HTTP_CONN_WINDOW_BYTES;
    r->http.streams_max = r->conf.sent_max + STREAMS_OWN;
    rwatches_init(r);
}

enum err ctl_etcd_open(const struct ctl_etcd_conf *conf, struct loop *loop, struct ctl **out, struct buf *why)
{
    if (conf_check(conf, why) != OK) return ERR_INVALID;
    struct remote *r = mem_new(MEM_CTL, sizeof *r);
    r->ctl.engine = &remote_engine;
    r->loop = loop;
    r->conf = *conf;
    r->trouble = CTL_UNAVAILABLE;
    remote_init(r);
    peers_copy(r);
    r->user = mem_strdup(MEM_CTL, conf->user);
    r->password = mem_strdup(MEM_CTL, conf->password);
    if (conf->tls && tls_open(r, why) != OK) {
        remote_free(r);
        return ERR_INVALID;
    }
    r->conf.endpoints = NULL; /* what it refers to is the caller's */
    r->conf.ca_file = r->conf.cert_file = r->conf.key_file = r->conf.user = r->conf.password = NULL;
    snprintf(r->why, sizeof r->why, "no connection stands yet");
    remote_turn(r);
    *out = &r->ctl;
    return OK;
}
