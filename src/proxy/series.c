/* series.c - counters by label: istio_requests_total and its histogram, per worker, merged when they are read.
 *
 * A series is found in two steps: a small cache keyed by the plan's slots (emptied when the plan changes, because slots are
 * given to others then), and behind it a table keyed by the labels themselves. Series live as long as the worker. They are
 * published to readers by series_n; their counters are written by the worker alone.
 */
#include "proxy_int.h"
#include "prom.h"

const double proxy_duration_bounds_ms[PROXY_DURATION_BUCKETS] = {0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000};
const char *const flag_names[FLAG_COUNT] = {"-", "UF", "UH", "UT", "UC", "UO", "UPE", "NR", "NC", "DC", "DI", "FI", "SI", "URX", "UR", "OM"};

/* ---- counting --------------------------------------------------------------------------------------------------------- */

static const char *keep(const char *text) { return mem_strdup(MEM_METRIC, text ? text : "unknown"); }

static struct series *series_find(struct exchange *x)
{
    struct proxy *p = x->p;
    const struct door *o = x->door;
    const struct plan_cluster *c = x->cluster;
    const char *route = x->rule ? x->rule->route : "";
    struct buf key = {0};
    buf_printf(&key, "%u\n%s\n%s\n%s\n%s\n%u\n%u", o->token != 0, o->source_ns, o->source_workload, c ? c->host : "", route, x->status, x->flag);
    struct series *s = table_get(&p->series_index, buf_slice(&key));
    bool other = !s && p->series_n >= SERIES_MAX - 1;
    if (other) {
        counter_inc(&p->c.series_over);
        s = table_get(&p->series_index, SLICE("other"));
    }
    if (!s) {
        /* The strings must be there before series_new() publishes the series to readers. */
        struct proxy_series v = {.source_workload = keep(other ? "other" : o->source_workload),
                                 .source_ns = keep(other ? "other" : o->source_ns),
                                 .reporter = o->token && !other ? "gateway" : "source",
                                 .service = keep(c && !other ? c->service : NULL),
                                 .service_ns = keep(c && !other ? c->ns : NULL),
                                 .workload = keep(c && !other ? c->workload : NULL),
                                 .route = keep(other ? "other" : route),
                                 .status = other ? 0 : x->status};
        memcpy(v.flags, flag_names[other ? FLAG_NONE : x->flag], strlen(flag_names[other ? FLAG_NONE : x->flag]) + 1);
        struct slice k = other ? SLICE("other") : buf_slice(&key);
        s = mem_new(MEM_METRIC, sizeof *s);
        s->s = v;
        table_put(&p->series_index, k, s);
        p->series[p->series_n] = s;
        __atomic_store_n(&p->series_n, p->series_n + 1, __ATOMIC_RELEASE);
    }
    buf_free(&key);
    return s;
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
        key = (((x->door->id * m ^ x->rule->slot) * m ^ x->cluster->slot) * m ^ ((uint64_t)x->status << 4 | x->flag)) | 1ull << 63;
        uint32_t at = (uint32_t)((key * 0x9E3779B97F4A7C15ull) >> 54) & (SERIES_CACHE - 1);
        if (p->cache[at].key == key)
            s = p->cache[at].s;
        else {
            s = series_find(x);
            p->cache[at].key = key;
            p->cache[at].s = s;
        }
    } else
        s = series_find(x);
    uint64_t us = (loop_now_ns(p->loop) - x->start_ns) / 1000;
    counter_inc(&s->s.requests);
    counter_add(&s->s.duration_us_sum, us);
    counter_add(&s->s.request_bytes, x->request_bytes);
    counter_add(&s->s.response_bytes, x->response_bytes);
    counter_inc(&s->s.duration[bucket_of(us)]);
}

void series_swap(struct proxy *p) { memset(p->cache, 0, sizeof p->cache); }

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

/* Labels are a closed set of static strings; their places are found by pointer or text. */
void refusal_count(struct proxy *p, const char *label)
{
    for (int i = 0; i < REFUSALS_MAX - 1; i++) {
        const char *at = __atomic_load_n(&p->refusal_labels[i], __ATOMIC_ACQUIRE);
        if (!at)
            __atomic_store_n(&p->refusal_labels[i], label, __ATOMIC_RELEASE);
        else if (at != label && strcmp(at, label) != 0)
            continue;
        counter_inc(&p->c.refused[i]);
        return;
    }
    MUST(false && "more refusal labels than REFUSALS_MAX");
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static void merge_key(const struct proxy_series *s, struct buf *key)
{
    buf_clear(key);
    buf_printf(key, "%s\n%s\n%s\n%s\n%s\n%u\n%s", s->reporter, s->source_ns, s->source_workload, s->service, s->route, s->status, s->flags);
}

static void merge_add(struct proxy_series *to, const struct proxy_series *from)
{
    to->requests += counter_read(&from->requests);
    to->duration_us_sum += counter_read(&from->duration_us_sum);
    to->request_bytes += counter_read(&from->request_bytes);
    to->response_bytes += counter_read(&from->response_bytes);
    for (int b = 0; b <= PROXY_DURATION_BUCKETS; b++)
        to->duration[b] += counter_read(&from->duration[b]);
}

void proxy_series_each(struct proxy *const *workers, uint32_t n, void (*each)(void *ctx, const struct proxy_series *s), void *ctx)
{
    struct table merged = {0};
    struct buf key = {0};
    for (uint32_t w = 0; w < n; w++) {
        uint64_t count = __atomic_load_n(&workers[w]->series_n, __ATOMIC_ACQUIRE);
        for (uint64_t i = 0; i < count; i++) {
            const struct proxy_series *s = &workers[w]->series[i]->s;
            merge_key(s, &key);
            struct proxy_series *to = table_get(&merged, buf_slice(&key));
            if (!to) {
                to = mem_new(MEM_METRIC, sizeof *to);
                *to = (struct proxy_series){.source_workload = s->source_workload, .source_ns = s->source_ns, .reporter = s->reporter, .service = s->service,
                                            .service_ns = s->service_ns, .workload = s->workload, .route = s->route, .status = s->status};
                memcpy(to->flags, s->flags, sizeof to->flags);
                table_put(&merged, buf_slice(&key), to);
            }
            merge_add(to, s);
        }
    }
    buf_free(&key);
    for (struct table_slot *t = NULL; (t = table_next(&merged, t));) {
        each(ctx, t->value);
        mem_free(t->value);
    }
    table_fini(&merged);
}

/* ---- /metrics --------------------------------------------------------------------------------------------------------------- */

enum series_metric { M_REQUESTS, M_DURATION, M_REQUEST_BYTES, M_RESPONSE_BYTES };
struct metric_ctx {
    struct buf *out;
    enum series_metric what;
};

static void metric_each(void *ctx, const struct proxy_series *s)
{
    struct metric_ctx *m = ctx;
    struct buf status = {0}, host = {0};
    buf_add_u64(&status, s->status);
    if (strcmp(s->service, "unknown") == 0)
        buf_adds(&host, s->service);
    else
        buf_printf(&host, "%s.%s.svc.cluster.local", s->service, s->service_ns);
    struct prom_label l[] = {{"reporter", slice_cstr(s->reporter)},
                             {"source_workload", slice_cstr(s->source_workload)},
                             {"source_workload_namespace", slice_cstr(s->source_ns)},
                             {"destination_workload", slice_cstr(s->workload)},
                             {"destination_service", buf_slice(&host)},
                             {"destination_service_name", slice_cstr(s->service)},
                             {"destination_service_namespace", slice_cstr(s->service_ns)},
                             {"request_protocol", SLICE("http")},
                             {"response_code", buf_slice(&status)},
                             {"response_flags", slice_cstr(s->flags)},
                             {"connection_security_policy", SLICE("none")},
                             {"route", slice_cstr(s->route)}};
    size_t n = COUNT_OF(l);
    switch (m->what) {
    case M_REQUESTS:
        prom_u64(m->out, "istio_requests_total", "", l, n, s->requests);
        break;
    case M_DURATION:
        prom_histogram(m->out, "istio_request_duration_milliseconds", l, n, proxy_duration_bounds_ms, s->duration, PROXY_DURATION_BUCKETS, (double)s->duration_us_sum / 1000);
        break;
    case M_REQUEST_BYTES:
        prom_u64(m->out, "weir_request_bytes_total", "", l, n, s->request_bytes);
        break;
    case M_RESPONSE_BYTES:
        prom_u64(m->out, "weir_response_bytes_total", "", l, n, s->response_bytes);
        break;
    }
    buf_free(&status);
    buf_free(&host);
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
    struct metric_ctx m = {out, M_REQUESTS};
    prom_family(out, "istio_requests_total", PROM_COUNTER, "Requests, by where they came from, where they went and how they ended.");
    proxy_series_each(workers, n, metric_each, &m);
    m.what = M_DURATION;
    prom_family(out, "istio_request_duration_milliseconds", PROM_HISTOGRAM, "Time from a request's head to the end of its answer.");
    proxy_series_each(workers, n, metric_each, &m);
    m.what = M_REQUEST_BYTES;
    prom_family(out, "weir_request_bytes_total", PROM_COUNTER, "Bytes of request bodies.");
    proxy_series_each(workers, n, metric_each, &m);
    m.what = M_RESPONSE_BYTES;
    prom_family(out, "weir_response_bytes_total", PROM_COUNTER, "Bytes of answers' bodies.");
    proxy_series_each(workers, n, metric_each, &m);
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
    filters_metrics(out);
}
