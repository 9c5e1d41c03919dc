/* top.c - GET /v1/top: raw counters per service and per workload, from which the client computes rates.
 *
 * Counters only grow for the life of an engine; "engine" changes with each engine, so that a client knows when they began
 * again. Services with no request so far are listed as well, from the plan; workloads from run. Durations are histograms:
 * counts per bucket (not cumulative) for bounds_ms, the last one above all bounds. duration_us_sum divided by the time that
 * passed is the mean number of requests in flight (Little's law), so no gauge is needed for that. "log" is the event log's: broker_top().
 */
#include "api_int.h"

#include <stdio.h>
#include <unistd.h>

/* One line of the answer. */
struct top_row {
    char *ns, *name;
    uint64_t requests, errors, duration_us_sum;
    uint64_t duration[PROXY_DURATION_BUCKETS + 1];
    uint32_t endpoints;
};
struct top {
    struct table services, workloads; /* "ns/name" -> struct top_row */
    struct arena mem;
    struct buf *out;
    bool first;
};

static struct top_row *row_get(struct top *t, struct table *table, const char *ns, const char *name)
{
    char *key = arena_printf(&t->mem, "%s/%s", ns, name);
    struct top_row *r = table_get(table, slice_cstr(key));
    if (!r) {
        r = arena_zalloc(&t->mem, sizeof *r);
        r->ns = arena_strdup(&t->mem, ns);
        r->name = arena_strdup(&t->mem, name);
        table_put(table, slice_cstr(key), r);
    }
    return r;
}

/* An error is an answer of 500 or more: what the client did wrong, or its leaving, is not the service's fault. */
static void row_count(struct top_row *r, const struct proxy_series *s)
{
    r->requests += s->requests;
    r->errors += s->status >= 500 ? s->requests : 0;
    r->duration_us_sum += s->duration_us_sum;
    for (size_t i = 0; i <= PROXY_DURATION_BUCKETS; i++)
        r->duration[i] += s->duration[i];
}

static void series_add(void *ctx, const struct proxy_series *s)
{
    struct top *t = ctx;
    const char *ns = s->service_ns ? s->service_ns : "";
    row_count(row_get(t, &t->services, ns, s->service ? s->service : "unknown"), s);
    if (s->workload && strcmp(s->workload, "unknown") != 0)
        row_count(row_get(t, &t->workloads, ns, s->workload), s);
}

static void plan_add(struct top *t, struct api *a)
{
    const struct plan *p = a->ops->plan(a->ctx);
    for (uint32_t i = 0; p && i < p->clusters_n; i++) {
        const struct plan_cluster *c = &p->clusters[i];
        struct top_row *svc = row_get(t, &t->services, c->ns, c->service);
        svc->endpoints = MAX(svc->endpoints, c->eps_n); /* the same replicas stand behind each port */
    }
}

static void row_write(struct buf *out, const struct top_row *r)
{
    buf_adds(out, "{\"namespace\":");
    buf_add_json(out, slice_cstr(r->ns));
    buf_adds(out, ",\"name\":");
    buf_add_json(out, slice_cstr(r->name));
    buf_printf(out, ",\"requests\":%llu,\"errors\":%llu,\"duration_us_sum\":%llu,\"duration\":[", (unsigned long long)r->requests,
               (unsigned long long)r->errors, (unsigned long long)r->duration_us_sum);
    for (size_t i = 0; i <= PROXY_DURATION_BUCKETS; i++)
        buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)r->duration[i]);
    buf_addc(out, ']');
}

static void services_write(struct top *t)
{
    bool first = true;
    for (struct table_slot *s = NULL; (s = table_next(&t->services, s));) {
        const struct top_row *r = s->value;
        if (!first)
            buf_addc(t->out, ',');
        first = false;
        row_write(t->out, r);
        buf_printf(t->out, ",\"endpoints\":%u}", r->endpoints);
    }
}

static void workload_write(void *ctx, const struct workload_status *w)
{
    struct top *t = ctx;
    uint64_t restarts = 0, memory = 0;
    for (size_t i = 0; i < w->replicas_n; i++) {
        restarts += w->replicas[i].restarts;
        memory += api_replica_memory(w->replicas[i].pid);
    }
    if (!t->first)
        buf_addc(t->out, ',');
    t->first = false;
    row_write(t->out, row_get(t, &t->workloads, w->ns, w->name));
    buf_printf(t->out, ",\"wanted\":%u,\"ready\":%u,\"restarts\":%llu,\"memory_bytes\":%llu,\"why\":", w->wanted, w->ready, (unsigned long long)restarts,
               (unsigned long long)memory);
    buf_add_json(t->out, slice_cstr(w->why ? w->why : ""));
    buf_addc(t->out, '}');
}

void api_get_top(struct api_conn *c)
{
    struct api *a = c->api;
    struct buf out = {0};
    struct top t = {.out = &out, .first = true};
    uint32_t workers_n = 0;
    struct proxy *const *workers = a->ops->workers(a->ctx, &workers_n);
    struct run *run = a->ops->run(a->ctx);
    arena_init(&t.mem, MEM_API, 16384);
    if (workers_n)
        proxy_series_each(workers, workers_n, series_add, &t);
    plan_add(&t, a);
    buf_printf(&out, "{\"mono_ns\":%llu,\"wall_ns\":%llu,\"engine\":%d,\"bounds_ms\":[", (unsigned long long)mono_ns(), (unsigned long long)wall_ns(),
               getpid());
    for (size_t i = 0; i < PROXY_DURATION_BUCKETS; i++)
        buf_printf(&out, "%s%g", i ? "," : "", proxy_duration_bounds_ms[i]);
    buf_adds(&out, "],\"services\":[");
    services_write(&t);
    buf_adds(&out, "],\"workloads\":[");
    if (run)
        run_status(run, workload_write, &t);
    buf_adds(&out, "],\"log\":");
    if (a->ops->log_top)
        a->ops->log_top(a->ctx, &out);
    else
        buf_adds(&out, "{}");
    buf_adds(&out, "}\n");
    api_answer_json(c, 200, &out);
    buf_free(&out);
    table_fini(&t.services);
    table_fini(&t.workloads);
    arena_fini(&t.mem);
}
