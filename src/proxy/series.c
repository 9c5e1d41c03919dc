/* series.c - counters by label: istio_requests_total, its histogram, and istio_tcp_*, per worker, merged when they are read.
 *
 * A series is found in two steps: a small cache keyed by the plan's slots (emptied when the plan changes, because slots are
 * given to others then), and behind it a table keyed by the labels themselves. Series live as long as the worker. They are
 * published to readers by series_n; their counters are written by the worker alone.
 *
 * For sessions of bytes the first step is a cache of their own, keyed by what the labels are taken from: rules and clusters of plans that still live are
 * told apart by their addresses, and what a later plan puts there is met after the cache was emptied.
 *
 * A TCP session keeps the series that it was opened under, and its bytes are counted there, from time to time while it lasts; it
 * is closed under the series of its end, which has the flag.
 */
#include "proxy_int.h"
#include "prom.h"
#include "proxy_protocol.h"
#include "tls_hello.h"

/* Clients choose which of them come: all there are have a place. */
#define REFUSALS_NAMED 32 /* by http and by this room */
_Static_assert(H1_ERROR_COUNT + PP_ERROR_COUNT + HELLO_ERROR_COUNT + REFUSALS_NAMED < REFUSALS_MAX, "every reason is counted by itself");

const double proxy_duration_bounds_ms[PROXY_DURATION_BUCKETS] = {0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000};

/* In Envoy's order, where there are two. */
const char *flag_text(uint8_t flags)
{
    static const char *const names[2][FLAG_COUNT] = {{"-", "UF", "UH", "UT", "UC", "UO", "UPE", "NR", "NC", "DC", "FI", "SI", "URX", "UR", "OM"},
                                                     {"DI", "UF,DI", "UH,DI", "UT,DI", "UC,DI", "UO,DI", "DI,UPE", "NR,DI", "DI,NC", "DI,DC", "DI,FI", "DI,SI", "DI,URX", "UR,DI", "DI,OM"}};
    return names[(flags & FLAG_DI) != 0][flags & (FLAG_DI - 1)];
}

/* ---- counting --------------------------------------------------------------------------------------------------------- */

/* What a series is found by. */
struct labels {
    const struct door *door;
    const struct plan_cluster *cluster; /* NULL: unknown */
    const char *route;
    uint16_t status;
    uint8_t flag, protocol, grpc_status;
    bool mutual;
};

static const char *keep(const char *text) { return mem_strdup(MEM_METRIC, text ? text : "unknown"); }

/* The strings must be there before this publishes the series to readers. */
static struct series *series_add(struct proxy *p, struct slice key, const struct proxy_series *v, const char *flag)
{
    struct series *s = mem_new(MEM_METRIC, sizeof *s);
    s->s = *v;
    memcpy(s->s.flags, flag, strlen(flag) + 1);
    table_put(&p->series_index, key, s);
    p->series[p->series_n] = s;
    __atomic_store_n(&p->series_n, p->series_n + 1, __ATOMIC_RELEASE);
    return s;
}

/* There are too many combinations: what is new is counted here, by protocol alone. */
static struct series *series_other(struct proxy *p, uint8_t protocol)
{
    char key[] = {'o', 't', 'h', 'e', 'r', (char)('0' + protocol)};
    counter_inc(&p->c.series_over);
    struct series *s = table_get(&p->series_index, slice_of(key, sizeof key));
    if (s)
        return s;
    struct proxy_series v = {.source_workload = keep("other"), .source_ns = keep("other"), .reporter = "source", .service = keep(NULL),
                             .service_ns = keep(NULL), .workload = keep(NULL), .route = keep("other"), .protocol = protocol};
    return series_add(p, slice_of(key, sizeof key), &v, flag_text(FLAG_NONE));
}

static struct series *series_find(struct proxy *p, const struct labels *l)
{
    const struct door *o = l->door;
    const struct plan_cluster *c = l->cluster;
    struct buf key = {0};
    buf_printf(&key, "%u\n%s\n%s\n%s\n%s\n%u\n%u\n%u\n%u\n%u", (o->token != 0) + o->node, o->source_ns, o->source_workload, c ? c->host : "", l->route, l->status, l->flag,
               l->protocol, l->grpc_status, l->mutual);
    struct series *s = table_get(&p->series_index, buf_slice(&key));
    if (!s && p->series_n >= SERIES_MAX - PROXY_TCP - 1)
        s = series_other(p, l->protocol);
    if (!s) {
        struct proxy_series v = {.source_workload = keep(o->source_workload),
                                 .source_ns = keep(o->source_ns),
                                 .reporter = o->node ? "destination" : o->token ? "gateway" : "source",
                                 .service = keep(c ? c->service : NULL),
                                 .service_ns = keep(c ? c->ns : NULL),
                                 .workload = keep(c ? c->workload : NULL),
                                 .route = keep(l->route),
                                 .protocol = l->protocol,
                                 .grpc_status = l->grpc_status,
                                 .mutual = l->mutual,
                                 .status = l->status};
        s = series_add(p, buf_slice(&key), &v, flag_text(l->flag));
    }
    buf_free(&key);
    return s;
}

static struct series *series_of(const struct exchange *x)
{
    struct labels l = {.door = x->door,
                       .cluster = x->cluster,
                       .route = x->rule ? x->rule->route : "",
                       .status = x->status,
                       .flag = x->flag,
                       .protocol = x->grpc ? PROXY_GRPC : PROXY_HTTP,
                       .grpc_status = x->grpc_status,
                       .mutual = x->mutual};
    return series_find(x->p, &l);
}

static uint32_t bucket_of(uint64_t us)
{
    uint32_t b = 0;
    while (b < PROXY_DURATION_BUCKETS && (double)us > proxy_duration_bounds_ms[b] * 1000)
        b++;
    return b;
}

void series_count(struct exchange *x)
{
    struct proxy *p = x->p;
    struct series *s = NULL;
    uint64_t key = 0;
    bool cacheable = x->hold == p->hold && x->rule && x->cluster;
    if (LIKELY(cacheable)) {
        const uint64_t m = 0x9fb21c651e98df25ull; /* odd: no two small inputs meet, however many doors and rules there are */
        uint64_t end = (uint64_t)x->status << 16 | (uint64_t)x->flag << 8 | (uint64_t)x->grpc << 7 | (uint64_t)x->mutual << 6 | x->grpc_status;
        key = (((x->door->id * m ^ x->rule->slot) * m ^ x->cluster->slot) * m ^ end) | 1ull << 63;
        uint32_t at = (uint32_t)((key * 0x9E3779B97F4A7C15ull) >> 54) & (SERIES_CACHE - 1);
        if (p->cache[at].key == key)
            s = p->cache[at].s;
        else {
            s = series_of(x);
            p->cache[at].key = key;
            p->cache[at].s = s;
        }
    } else
        s = series_of(x);
    uint64_t us = (loop_now_ns(p->loop) - x->start_ns) / 1000;
    counter_inc(&s->s.requests);
    counter_add(&s->s.duration_us_sum, us);
    counter_add(&s->s.request_bytes, x->request_bytes);
    counter_add(&s->s.response_bytes, x->response_bytes);
    counter_inc(&s->s.duration[bucket_of(us)]);
}

/* ---- TCP sessions ---- */

struct series *series_tcp(struct proxy *p, const struct door *door, const struct plan_tcp_rule *r, const struct plan_cluster *c, enum flag f)
{
    const uint64_t m = 0x9fb21c651e98df25ull;
    uint64_t mix = ((door->id * m ^ (uintptr_t)r) * m ^ (uintptr_t)c) * m ^ (uint64_t)f << 58;
    struct series_tcp *k = &p->tcp_cache[mix >> 58 & (SERIES_TCP_CACHE - 1)];
    if (LIKELY(k->s && k->door == door->id && k->rule == r && k->cluster == c && k->flag == f))
        return k->s;
    struct labels l = {.door = door, .cluster = c, .route = r ? r->route : "", .flag = (uint8_t)f, .protocol = PROXY_TCP};
    *k = (struct series_tcp){door->id, r, c, series_find(p, &l), (uint8_t)f};
    return k->s;
}

void series_tcp_bytes(struct series *s, uint64_t received, uint64_t sent)
{
    counter_add(&s->s.request_bytes, received);
    counter_add(&s->s.response_bytes, sent);
}

void series_tcp_opened(struct series *s) { counter_inc(&s->s.opened); }
void series_tcp_closed(struct series *s) { counter_inc(&s->s.closed); }

void series_swap(struct proxy *p)
{
    memset(p->cache, 0, sizeof p->cache);
    memset(p->tcp_cache, 0, sizeof p->tcp_cache);
}

void series_free(struct proxy *p)
{
    for (uint64_t i = 0; i < p->series_n; i++) {
        struct proxy_series *s = &p->series[i]->s;
        mem_free((void *)(uintptr_t)s->source_workload);
        mem_free((void *)(uintptr_t)s->source_ns);
        mem_free((void *)(uintptr_t)s->service);
        mem_free((void *)(uintptr_t)s->service_ns);
        mem_free((void *)(uintptr_t)s->workload);
        mem_free((void *)(uintptr_t)s->route);
        mem_free(p->series[i]);
    }
    mem_free(p->series);
    table_fini(&p->series_index);
}

/* Labels are a closed set of static strings; their places are found by pointer or text. The last place is for those that there is none for. */
void refusal_count(struct proxy *p, const char *label)
{
    for (int i = 0; i < REFUSALS_MAX; i++) {
        const char *at = __atomic_load_n(&p->refusal_labels[i], __ATOMIC_ACQUIRE);
        if (i == REFUSALS_MAX - 1)
            __atomic_store_n(&p->refusal_labels[i], "other", __ATOMIC_RELEASE);
        else if (!at)
            __atomic_store_n(&p->refusal_labels[i], label, __ATOMIC_RELEASE);
        else if (at != label && strcmp(at, label) != 0)
            continue;
        counter_inc(&p->c.refused[i]);
        return;
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static void merge_key(const struct proxy_series *s, struct buf *key)
{
    buf_clear(key);
    buf_printf(key, "%s\n%s\n%s\n%s\n%s\n%s\n%s\n%u\n%s\n%u\n%u\n%u", s->reporter, s->source_ns, s->source_workload, s->service, s->service_ns, s->workload, s->route,
               s->status, s->flags, s->protocol, s->grpc_status, s->mutual);
}

static void merge_add(struct proxy_series *to, const struct proxy_series *from)
{
    to->requests += counter_read(&from->requests);
    to->duration_us_sum += counter_read(&from->duration_us_sum);
    to->request_bytes += counter_read(&from->request_bytes);
    to->response_bytes += counter_read(&from->response_bytes);
    to->opened += counter_read(&from->opened);
    to->closed += counter_read(&from->closed);
    for (int b = 0; b <= PROXY_DURATION_BUCKETS; b++)
        to->duration[b] += counter_read(&from->duration[b]);
}

/* The strings stay the workers'. */
static struct proxy_series *merge_new(const struct proxy_series *s)
{
    struct proxy_series *to = mem_new(MEM_METRIC, sizeof *to);
    *to = (struct proxy_series){.source_workload = s->source_workload, .source_ns = s->source_ns, .reporter = s->reporter, .service = s->service,
                                .service_ns = s->service_ns, .workload = s->workload, .route = s->route, .status = s->status,
                                .protocol = s->protocol, .grpc_status = s->grpc_status, .mutual = s->mutual};
    memcpy(to->flags, s->flags, sizeof to->flags);
    return to;
}

static void merge(struct proxy *const *workers, uint32_t n, struct table *merged)
{
    struct buf key = {0};
    for (uint32_t w = 0; w < n; w++) {
        uint64_t count = __atomic_load_n(&workers[w]->series_n, __ATOMIC_ACQUIRE);
        for (uint64_t i = 0; i < count; i++) {
            const struct proxy_series *s = &workers[w]->series[i]->s;
            merge_key(s, &key);
            struct proxy_series *to = table_get(merged, buf_slice(&key));
            if (!to) {
                to = merge_new(s);
                table_put(merged, buf_slice(&key), to);
            }
            merge_add(to, s);
        }
    }
    buf_free(&key);
}

static void merged_free(struct table *merged)
{
    for (struct table_slot *t = NULL; (t = table_next(merged, t));)
        mem_free(t->value);
    table_fini(merged);
}

void proxy_series_each(struct proxy *const *workers, uint32_t n, void (*each)(void *ctx, const struct proxy_series *s), void *ctx)
{
    struct table merged = {0};
    merge(workers, n, &merged);
    for (struct table_slot *t = NULL; (t = table_next(&merged, t));) {
        const struct proxy_series *s = t->value;
        if (s->protocol != PROXY_TCP)
            each(ctx, s);
    }
    merged_free(&merged);
}

/* ---- /metrics --------------------------------------------------------------------------------------------------------------- */

/* Families of counters with the labels of a series. */
static const struct {
    const char *name, *help;
    size_t offset;
    bool tcp;
} series_families[] = {
    {"istio_requests_total", "Requests, by where they came from, where they went and how they ended.", offsetof(struct proxy_series, requests), false},
    {"weir_request_bytes_total", "Bytes of request bodies.", offsetof(struct proxy_series, request_bytes), false},
    {"weir_response_bytes_total", "Bytes of answers' bodies.", offsetof(struct proxy_series, response_bytes), false},
    {"istio_tcp_connections_opened_total", "Sessions whose bytes are passed on, begun.", offsetof(struct proxy_series, opened), true},
    {"istio_tcp_connections_closed_total", "Sessions whose bytes are passed on, ended; with how.", offsetof(struct proxy_series, closed), true},
    {"istio_tcp_received_bytes_total", "Bytes of such sessions from the client.", offsetof(struct proxy_series, request_bytes), true},
    {"istio_tcp_sent_bytes_total", "Bytes of such sessions to the client.", offsetof(struct proxy_series, response_bytes), true},
};

#define SERIES_LABELS_MAX 16

/* The labels of s, in l; host, status and code hold what they need. Istio's protocols: HTTP's version is not told apart. */
static size_t series_labels(const struct proxy_series *s, struct prom_label *l, struct buf *host, struct buf *status, struct buf *code)
{
    static const char *const protocols[] = {[PROXY_HTTP] = "http", [PROXY_GRPC] = "grpc", [PROXY_TCP] = "tcp"};
    size_t n = 0;
    if (strcmp(s->service, "unknown") == 0 || strchr(s->service, '.')) /* names of Services have no dots, hosts of ServiceEntries do */
        buf_adds(host, s->service);
    else
        buf_printf(host, "%s.%s.svc.cluster.local", s->service, s->service_ns);
    l[n++] = (struct prom_label){"reporter", slice_cstr(s->reporter)};
    l[n++] = (struct prom_label){"source_workload", slice_cstr(s->source_workload)};
    l[n++] = (struct prom_label){"source_workload_namespace", slice_cstr(s->source_ns)};
    l[n++] = (struct prom_label){"destination_workload", slice_cstr(s->workload)};
    l[n++] = (struct prom_label){"destination_workload_namespace", slice_cstr(s->service_ns)};
    l[n++] = (struct prom_label){"destination_service", buf_slice(host)};
    l[n++] = (struct prom_label){"destination_service_name", slice_cstr(s->service)};
    l[n++] = (struct prom_label){"destination_service_namespace", slice_cstr(s->service_ns)};
    l[n++] = (struct prom_label){"request_protocol", slice_cstr(protocols[s->protocol])};
    if (s->protocol != PROXY_TCP) {
        buf_add_u64(status, s->status);
        if (s->grpc_status)
            buf_add_u64(code, s->grpc_status - 1u);
        l[n++] = (struct prom_label){"response_code", buf_slice(status)};
        l[n++] = (struct prom_label){"grpc_response_status", buf_slice(code)};
    }
    l[n++] = (struct prom_label){"response_flags", slice_cstr(s->flags)};
    l[n++] = (struct prom_label){"connection_security_policy", s->mutual ? SLICE("mutual_tls") : SLICE("none")};
    l[n++] = (struct prom_label){"route", slice_cstr(s->route)};
    MUST(n <= SERIES_LABELS_MAX);
    return n;
}

/* A sample of the family, or of the histogram when that is the family's place. */
static void series_sample(const struct proxy_series *s, size_t family, struct buf *out)
{
    struct prom_label l[SERIES_LABELS_MAX];
    struct buf host = {0}, status = {0}, code = {0};
    size_t n = series_labels(s, l, &host, &status, &code);
    if (family < COUNT_OF(series_families))
        prom_u64(out, series_families[family].name, "", l, n, *(const uint64_t *)(const void *)((const char *)s + series_families[family].offset));
    else
        prom_histogram(out, "istio_request_duration_milliseconds", l, n, proxy_duration_bounds_ms, s->duration, PROXY_DURATION_BUCKETS, (double)s->duration_us_sum / 1000);
    buf_free(&host);
    buf_free(&status);
    buf_free(&code);
}

static void series_metrics(struct proxy *const *workers, uint32_t n, struct buf *out)
{
    struct table merged = {0};
    merge(workers, n, &merged);
    for (size_t f = 0; f <= COUNT_OF(series_families); f++) {
        bool tcp = f < COUNT_OF(series_families) && series_families[f].tcp;
        if (f < COUNT_OF(series_families))
            prom_family(out, series_families[f].name, PROM_COUNTER, series_families[f].help);
        else
            prom_family(out, "istio_request_duration_milliseconds", PROM_HISTOGRAM, "Time from a request's head to the end of its answer.");
        for (struct table_slot *t = NULL; (t = table_next(&merged, t));) {
            const struct proxy_series *s = t->value;
            if ((s->protocol == PROXY_TCP) == tcp)
                series_sample(s, f, out);
        }
    }
    merged_free(&merged);
}

static void refusals_metric(struct proxy *const *workers, uint32_t n, struct buf *out)
{
    prom_family(out, "weir_requests_refused_total", PROM_COUNTER, "Requests refused before routing, by reason.");
    struct table seen = {0};
    for (uint32_t w = 0; w < n; w++)
        for (int i = 0; i < REFUSALS_MAX; i++) {
            const char *label = __atomic_load_n(&workers[w]->refusal_labels[i], __ATOMIC_ACQUIRE);
            if (!label || table_get(&seen, slice_cstr(label)))
                continue;
            table_put(&seen, slice_cstr(label), (void *)(uintptr_t)label);
            uint64_t total = 0;
            for (uint32_t v = 0; v < n; v++)
                for (int k = 0; k < REFUSALS_MAX; k++) {
                    const char *other = __atomic_load_n(&workers[v]->refusal_labels[k], __ATOMIC_ACQUIRE);
                    if (other && strcmp(other, label) == 0)
                        total += counter_read(&workers[v]->c.refused[k]);
                }
            struct prom_label l = {"reason", slice_cstr(label)};
            prom_u64(out, "weir_requests_refused_total", "", &l, 1, total);
        }
    table_fini(&seen);
}

/* What the rooms below count on each worker's loop. */
static const struct {
    const char *name, *help, *reason; /* reason: NULL, or the value of the label */
    enum { OF_HTTP, OF_TLS } of;
    size_t offset;
} below[] = {
#define H(metric, text, field) {metric, text, NULL, OF_HTTP, offsetof(struct http_counters, field)}
#define T(metric, text, why, field) {metric, text, why, OF_TLS, offsetof(struct tls_counters, field)}
    H("weir_http2_connections_total", "Connections of clients and other nodes that spoke HTTP/2.", h2_connections),
    H("weir_http2_requests_total", "Requests of clients and other nodes over HTTP/2.", h2_requests),
    H("weir_http2_resets_total", "Streams that clients or other nodes reset.", h2_resets),
    H("weir_http2_resets_sent_total", "Streams of clients or other nodes that were reset for a fault of theirs.", h2_resets_ours),
    H("weir_http2_floods_total", "Connections of clients or other nodes that were ended because of a flood of resets or frames.", h2_calm),
    H("weir_http2_upstream_connections_total", "Connections to services that spoke HTTP/2.", h2_up_connections),
    H("weir_http2_upstream_resets_total", "Calls that services reset.", h2_up_resets),
    H("weir_http2_upstream_goaways_total", "Connections that services asked to leave.", h2_up_goaways),
    H("weir_http2_upstream_hung_total", "Connections to other nodes that were given up because the node did not even answer PING.", h2_up_hung),
    T("weir_tls_accepted_total", "TLS handshakes with clients that came to their end.", NULL, accepted),
    T("weir_tls_connected_total", "TLS handshakes with services that came to their end.", NULL, connected),
    T("weir_tls_resumed_total", "Of both, those that resumed an earlier session.", NULL, resumed),
    T("weir_tls_truncated_total", "TLS connections whose peer ended them without saying so.", NULL, truncated),
    T("weir_tls_kernel_total", "TLS connections whose records the kernel came to make, for a large body.", NULL, kernel),
    T("weir_tls_kernel_refused_total", "TLS connections for which it refused that.", NULL, kernel_refused),
    T("weir_tls_failed_total", "TLS handshakes and connections that failed by a fault of TLS, by reason.", "plain_http", plain_http),
    T("weir_tls_failed_total", NULL, "certificate", certificate),
    T("weir_tls_failed_total", NULL, "alert", alerts),
    T("weir_tls_failed_total", NULL, "parameters", parameters),
    T("weir_tls_failed_total", NULL, "closed", closed),
    T("weir_tls_failed_total", NULL, "limit", limits),
    T("weir_tls_failed_total", NULL, "kernel_key", kernel_outdated),
#undef H
#undef T
};

static void below_metrics(struct proxy *const *workers, uint32_t n, struct buf *out)
{
    uint64_t failed = 0, told = 0, misses = 0;
    for (size_t i = 0; i < COUNT_OF(below); i++) {
        uint64_t total = 0;
        for (uint32_t w = 0; w < n; w++) {
            const void *at = below[i].of == OF_HTTP ? (const void *)&workers[w]->http : (const void *)loop_tls_counters(workers[w]->loop);
            total += counter_read((const counter *)(const void *)((const char *)at + below[i].offset));
        }
        if (below[i].help)
            prom_family(out, below[i].name, PROM_COUNTER, below[i].help);
        struct prom_label l = {"reason", slice_cstr(below[i].reason ? below[i].reason : "")};
        prom_u64(out, below[i].name, "", &l, below[i].reason ? 1 : 0, total);
        if (below[i].reason)
            told += total;
    }
    for (uint32_t w = 0; w < n; w++) {
        failed += counter_read(&loop_tls_counters(workers[w]->loop)->failed);
        misses += loop_pipe_misses(workers[w]->loop);
    }
    struct prom_label other = {"reason", SLICE("other")}; /* the family above is the last one */
    prom_u64(out, "weir_tls_failed_total", "", &other, 1, failed > told ? failed - told : 0);
    prom_family(out, "weir_pipe_misses_total", PROM_COUNTER, "How often bytes were copied instead of spliced because the worker had no pipe left.");
    prom_u64(out, "weir_pipe_misses_total", "", NULL, 0, misses);
    prom_family(out, "weir_regex_overruns_total", PROM_COUNTER, "Matches of regular expressions that were given up because they took too many steps.");
    prom_u64(out, "weir_regex_overruns_total", "", NULL, 0, plan_regex_overruns());
}

/* What filters count for all workers together. */
static void filters_metrics(struct buf *out)
{
    static const struct { const char *name, *help; } filters[] = {
#define X(name, metric, text) {metric, text},
#include "filter_counters.def"
#undef X
    };
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        prom_family(out, filters[i].name, PROM_COUNTER, filters[i].help);
        prom_u64(out, filters[i].name, "", NULL, 0, filter_counter_read((enum filter_counter)i));
    }
}

void proxy_metrics(struct proxy *const *workers, uint32_t n, struct buf *out)
{
    series_metrics(workers, n, out);
    refusals_metric(workers, n, out);
    struct { const char *name, *help; size_t offset; } scalars[] = {
#define X(field, metric, text) {metric, text, offsetof(struct proxy_counters, field)},
#include "counters.def"
#undef X
    };
    for (size_t i = 0; i < COUNT_OF(scalars); i++) {
        bool gauge = !slice_ends(slice_cstr(scalars[i].name), SLICE("_total"));
        prom_family(out, scalars[i].name, gauge ? PROM_GAUGE : PROM_COUNTER, scalars[i].help);
        uint64_t total = 0;
        for (uint32_t w = 0; w < n; w++)
            total += counter_read((const counter *)(const void *)((const char *)&workers[w]->c + scalars[i].offset));
        prom_u64(out, scalars[i].name, "", NULL, 0, total);
    }
    below_metrics(workers, n, out);
    cluster_metrics(workers, n, out);
    filters_metrics(out);
}
