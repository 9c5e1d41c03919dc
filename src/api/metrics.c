/* metrics.c - what watches a node: /metrics, /healthz, /readyz, /version, /v1/info.
 *
 * Each room writes its own families; this file only puts them one behind the other and adds the api's own.
 */
#include "api_int.h"
#include "prom.h"

#include <stdio.h>

static const struct {
    const char *label;
} limit_labels[] = {
#define X(name, label, value, help) {label},
#include "limits.def"
#undef X
};

static void own_metrics(const struct api *a, struct buf *out)
{
    static const struct prom_label unix_socket = {"listener", {"admin", 5}}, port = {"listener", {"public", 6}};
    prom_family(out, "weir_api_requests_total", PROM_COUNTER, "Requests that the admin interface answered.");
    prom_u64(out, "weir_api_requests_total", "", NULL, 0, counter_read(&a->requests));
    prom_family(out, "weir_api_failures_total", PROM_COUNTER, "Of those, answers with a status of 500 or more.");
    prom_u64(out, "weir_api_failures_total", "", NULL, 0, counter_read(&a->failures));
    prom_family(out, "weir_api_malformed_total", PROM_COUNTER, "Requests whose head was refused.");
    prom_u64(out, "weir_api_malformed_total", "", NULL, 0, counter_read(&a->malformed));
    prom_family(out, "weir_api_connections", PROM_GAUGE, "Open connections of the admin interface.");
    prom_u64(out, "weir_api_connections", "", &unix_socket, 1, a->admin_n);
    prom_u64(out, "weir_api_connections", "", &port, 1, a->public_n);
    prom_family(out, "weir_api_log_lines_dropped_total", PROM_COUNTER, "Followed log lines that a slow reader did not get.");
    prom_u64(out, "weir_api_log_lines_dropped_total", "", NULL, 0, counter_read(&a->lines_dropped));
    prom_family(out, "weir_api_limit_hits_total", PROM_COUNTER, "How often a limit of the admin interface was reached.");
    for (size_t i = 0; i < API_LIMIT_COUNT; i++) {
        struct prom_label l = {"limit", slice_cstr(limit_labels[i].label)};
        prom_u64(out, "weir_api_limit_hits_total", "", &l, 1, counter_read(&a->limit_hits[i]));
    }
}

void api_get_metrics(struct api_conn *c)
{
    struct api *a = c->api;
    struct buf out = {0};
    uint32_t workers_n = 0;
    struct proxy *const *workers = a->ops->workers(a->ctx, &workers_n);
    struct run *run = a->ops->run(a->ctx);
    a->ops->metrics(a->ctx, &out);
    if (workers_n)
        proxy_metrics(workers, workers_n, &out);
    if (run)
        run_metrics(run, &out);
    own_metrics(a, &out);
    api_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&out));
    buf_free(&out);
}

void api_get_healthz(struct api_conn *c) { api_answer(c, 200, "text/plain; charset=utf-8", SLICE("ok\n")); }

void api_get_readyz(struct api_conn *c)
{
    struct buf why = {0};
    if (c->api->ops->ready(c->api->ctx, &why)) { /* it serves; what is amiss all the same is told */
        struct buf text = {0};
        buf_printf(&text, "ready%s%s\n", why.n ? "; " : "", why.n ? why.p : "");
        api_answer(c, 200, "text/plain; charset=utf-8", buf_slice(&text));
        buf_free(&text);
    } else {
        if (!why.n)
            buf_adds(&why, "not ready");
        buf_addc(&why, '\n');
        api_answer(c, 503, "text/plain; charset=utf-8", buf_slice(&why));
    }
    buf_free(&why);
}

void api_get_version(struct api_conn *c) { api_answer(c, 200, "application/json", SLICE("{\"version\":\"" WEIR_VERSION "\"}\n")); }

void api_get_info(struct api_conn *c)
{
    struct buf out = {0};
    c->api->ops->info(c->api->ctx, &out);
    api_answer_json(c, 200, &out);
    buf_free(&out);
}
