/* etcd_api.c - the etcd API as a whole: opening and closing it, its listener, its metrics, and the pages that are no gRPC.
 *
 * Connections and calls are etcd_call.c's, what calls mean is in etcd_kv.c, etcd_watch.c, etcd_lease.c and etcd_node.c. ETCD.md has the model.
 */
#include "etcd_int.h"
#include "prom.h"

#define TCP_KEEPALIVE 60, 15, 4 /* seconds, seconds, probes: a client that went without a word is noticed after two minutes */
#define HEAD_BYTES_MAX 16384u
#define IDLE_MS 600000u /* that a connection may be without calls */

static const uint32_t limits[ETCD_LIMIT_COUNT] = {
#define X(name, label, value, help) value,
#include "etcd_limits.def"
#undef X
};
static const char *const limit_labels[ETCD_LIMIT_COUNT] = {
#define X(name, label, value, help) label,
#include "etcd_limits.def"
#undef X
};

static const struct etcd_method methods[] = {
#define X(service, method, request, kind, fn) {service, method, request, ETCD_##kind, fn, NULL},
#define N(service, method, why) {service, method, NULL, ETCD_UNARY, NULL, why},
#include "etcd_methods.def"
#undef X
#undef N
};

static void methods_add(struct etcd_api *a)
{
    struct buf path = {0};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        buf_clear(&path);
        buf_printf(&path, "/%s/%s", methods[i].service, methods[i].name);
        union {
            const struct etcd_method *from;
            void *to;
        } p = {.from = &methods[i]};
        MUST(!table_put(&a->methods, buf_slice(&path), p.to));
    }
    buf_free(&path);
}

struct etcd_api *etcd_api_new(struct loop *l, struct ctl *ctl, const struct etcd_api_conf *conf)
{
    struct etcd_api *a = mem_new(MEM_API, sizeof *a);
    a->loop = l;
    a->ctl = ctl;
    a->conf = *conf;
    list_init(&a->conns);
    etcd_pool_init(a);
    memcpy(a->limit, limits, sizeof a->limit);
    head_out_init(&a->head);
    a->h1_limits = h1_limits_default;
    a->h1_limits.head_bytes_max = HEAD_BYTES_MAX;
    a->h1_limits.any_authority = true; /* clients of etcd write the endpoint there as they were given it: "http://127.0.0.1:2379" */
    http_srv_conf_default(&a->srv_conf);
    a->srv_conf.h1.limits = &a->h1_limits;
    a->srv_conf.h1.out = &a->head;
    a->srv_conf.h1.idle_timeout_ms = IDLE_MS;
    a->srv_conf.h1.body_timeout_ms = a->limit[ETCD_LIMIT_STALL_MS];
    a->srv_conf.streams_max = a->limit[ETCD_LIMIT_CALLS];
    a->srv_conf.count = &a->http;
    methods_add(a);
    return a;
}

/* ---- who asks ----------------------------------------------------------------------------------------------------------- */

static struct etcd_asker *asker_find(struct etcd_api *a, struct slice principal)
{
    struct etcd_asker *w = table_get(&a->askers, principal);
    if (w)
        return w;
    w = mem_new(MEM_API, sizeof *w);
    MUST(!table_put(&a->askers, principal, w));
    w->principal = table_key(&a->askers, principal);
    return w;
}

void etcd_asker_rest(struct etcd_api *a, struct etcd_asker *w)
{
    if (w->conns_n || w->calls_n)
        return;
    MUST(table_del(&a->askers, w->principal) == w && !w->watches_n && !w->in_bytes && !w->out_bytes);
    mem_free(w);
}

void etcd_limit_hit(struct etcd_api *a, enum etcd_limit l) { counter_inc(&a->limit_hits[l]); }

/* Nobody takes all of it, nor keeps the others from it: whoever has his share waits while half is taken. */
bool etcd_share_full(struct etcd_api *a, enum etcd_limit l, size_t all, size_t own, size_t more)
{
    size_t max = a->limit[l];
    bool full = all + more > max || (all + more > max / 2 && own + more > max / ETCD_SHARE);
    if (full)
        etcd_limit_hit(a, l);
    return full;
}

/* ---- connections coming --------------------------------------------------------------------------------------------------- */

static void conn_take(struct etcd_api *a, int fd, struct slice principal, bool host)
{
    struct etcd_asker *w = asker_find(a, principal);
    if (a->suspended || etcd_share_full(a, ETCD_LIMIT_CONNS, a->conns_n, w->conns_n, 1)) {
        etcd_asker_rest(a, w);
        socket_close(fd);
        return;
    }
    struct etcd_conn *conn = mem_new(MEM_API, sizeof *conn);
    conn->asker = w;
    conn->principal = w->principal;
    w->conns_n++;
    conn->host = host;
    conn->api = a;
    list_init(&conn->calls);
    list_push(&a->conns, &conn->link);
    a->conns_n++;
    http_srv_open(&conn->srv, a->loop, &a->srv_conf, &etcd_srv_ops, fd, NULL);
    stream_keepalive(http_srv_stream(&conn->srv), TCP_KEEPALIVE);
}

void etcd_api_accept(struct etcd_api *a, int fd, struct slice principal) { conn_take(a, fd, principal, false); }

static void accepted(struct listener *ln, int fd, const struct addr *peer) { conn_take(ln->owner, fd, ETCD_HOST_PRINCIPAL, true); }

void etcd_api_listen(struct etcd_api *a, int fd)
{
    MUST(!a->listening);
    a->listening = true;
    a->listener.owner = a;
    listener_start(&a->listener, a->loop, fd, false, accepted);
}

static void listen_end(struct etcd_api *a)
{
    if (a->listening)
        listener_stop(&a->listener);
    a->listening = false;
}

void etcd_api_suspend(struct etcd_api *a)
{
    listen_end(a);
    a->suspended = true;
    LIST_FOREACH(l, &a->conns) {
        struct etcd_conn *conn = CONTAINER_OF(l, struct etcd_conn, link);
        LIST_FOREACH(k, &conn->calls) {
            struct etcd_call *call = CONTAINER_OF(k, struct etcd_call, link);
            if (call->method->kind == ETCD_STREAM)
                etcd_fail(call, GRPC_UNAVAILABLE, ctl_error_text(CTL_STOPPED));
        }
        http_srv_last(&conn->srv);
    }
}

bool etcd_api_busy(const struct etcd_api *a) { return a->asked_n > 0; }

void etcd_api_reap(struct etcd_api *a)
{
    if (!a->freed || a->conns_n || a->calls_n)
        return;
    etcd_pool_fini(a);
    head_out_fini(&a->head);
    buf_free(&a->out);
    buf_free(&a->text);
    etcd_access_free(a->access);
    table_fini(&a->askers);
    table_fini(&a->methods);
    mem_free(a);
}

void etcd_api_free(struct etcd_api *a)
{
    if (!a)
        return;
    listen_end(a);
    a->suspended = true;
    LIST_FOREACH(l, &a->conns)
        etcd_conn_close(CONTAINER_OF(l, struct etcd_conn, link));
    a->freed = true;
    etcd_api_reap(a);
}

/* ---- pages -------------------------------------------------------------------------------------------------------------- */

static void page(struct etcd_api *a, struct http_req *r, uint16_t status, const char *text)
{
    struct iovec v = {.iov_base = a->text.p, .iov_len = 0};
    buf_clear(&a->text);
    buf_adds(&a->text, text);
    v = (struct iovec){a->text.p, a->text.n};
    head_clear(&a->head);
    head_status(&a->head, status, SLICE(""));
    head_field(&a->head, SLICE("content-type"), status == 200 ? SLICE("application/json") : SLICE("text/plain"));
    http_req_answer(r, &a->head, H1_LENGTH, a->text.n, (struct pieces){&v, 1, a->text.n}, true);
}

void etcd_plain(struct etcd_api *a, struct http_req *r, const struct h1_head *h)
{
    struct ctl_status s;
    bool reads = h->method_id == H1_GET || h->method_id == H1_HEAD;
    if (reads && slice_is(h->path, "/health")) {
        ctl_status(a->ctl, &s);
        bool well = s.trouble == CTL_OK && !s.nospace;
        page(a, r, well ? 200 : 503, well ? "{\"health\":\"true\"}\n" : "{\"health\":\"false\"}\n");
    } else if (reads && slice_is(h->path, "/version")) {
        page(a, r, 200, "{\"etcdserver\":\"" ETCD_VERSION "\",\"etcdcluster\":\"" ETCD_VERSION "\"}\n");
    } else {
        page(a, r, 404, "The etcd API is gRPC here, over HTTP/2 by prior knowledge; its JSON gateway is not served.\n");
    }
}

/* ---- metrics ------------------------------------------------------------------------------------------------------------- */

static void one(struct buf *out, const char *name, enum prom_type type, const char *help, uint64_t value)
{
    prom_family(out, name, type, help);
    prom_u64(out, name, "", NULL, 0, value);
}

void etcd_api_metrics(const struct etcd_api *a, struct buf *out)
{
    one(out, "weir_etcd_connections", PROM_GAUGE, "connections to the etcd API", a->conns_n);
    one(out, "weir_etcd_calls", PROM_GAUGE, "calls of the etcd API under way, streams among them", a->calls_n);
    one(out, "weir_etcd_watches", PROM_GAUGE, "watches through the etcd API", counter_read(&a->watches));
    one(out, "weir_etcd_waiting_bytes", PROM_GAUGE, "bytes that wait for slow clients of the etcd API", a->out_bytes);
    one(out, "weir_etcd_requests_total", PROM_COUNTER, "calls of the etcd API answered; a stream counts when it ends", counter_read(&a->requests));
    one(out, "weir_etcd_failures_total", PROM_COUNTER, "of them, with a status other than OK", counter_read(&a->failures));
    one(out, "weir_etcd_events_total", PROM_COUNTER, "events sent to watches of the etcd API", counter_read(&a->events));
    one(out, "weir_etcd_denied_total", PROM_COUNTER, "requests and watches through the etcd API that their callers may not: by a Keyspace, or of the node's own keys", counter_read(&a->denied));
    prom_family(out, "weir_etcd_limit_hits_total", PROM_COUNTER, "how often a limit of the etcd API was hit");
    for (int i = 0; i < ETCD_LIMIT_COUNT; i++)
        prom_u64(out, "weir_etcd_limit_hits_total", "", &(struct prom_label){"limit", slice_cstr(limit_labels[i])}, 1, counter_read(&a->limit_hits[i]));
}
