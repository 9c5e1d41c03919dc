/* access.c - the access log: one JSON object per request, written by the log thread. What must be remembered from the head
 * is put in its final form into exchange.log when the request begins; the rest follows when it ends. Costs nothing when off.
 */
#include "proxy_int.h"

#define LOGGED_FIELD_MAX 1024 /* bytes of a path or user agent that are logged */

static void json_field(struct buf *b, const char *name, struct slice value)
{
    buf_adds(b, ",\"");
    buf_adds(b, name);
    buf_adds(b, "\":");
    if (value.n > LOGGED_FIELD_MAX)
        value.n = LOGGED_FIELD_MAX;
    buf_add_json(b, value);
}

static void json_number(struct buf *b, const char *name, uint64_t value)
{
    buf_adds(b, ",\"");
    buf_adds(b, name);
    buf_adds(b, "\":");
    buf_add_u64(b, value);
}

void access_begin(struct exchange *x, const struct h1_head *h)
{
    if (!x->p->conf.access_log)
        return;
    const struct h1_field *agent = h1_get(h, H1_USER_AGENT);
    json_field(&x->log, "method", h->method);
    json_field(&x->log, "authority", h->authority);
    json_field(&x->log, "path", h->path);
    if (agent)
        json_field(&x->log, "user_agent", agent->value);
}

void access_end(struct exchange *x)
{
    struct log_file *f = x->p->conf.access_log;
    if (!f)
        return;
    struct buf b = {0};
    const struct door *o = x->door;
    uint64_t took_us = (loop_now_ns(x->p->loop) - x->start_ns) / 1000;
    buf_printf(&b, "{\"time_ms\":%llu,\"status\":%u,\"flags\":\"%s\",\"duration_ms\":%llu.%03u", (unsigned long long)(wall_ns() / 1000000u), x->status, flag_text(x->flag),
               (unsigned long long)(took_us / 1000), (unsigned)(took_us % 1000));
    buf_add_slice(&b, buf_slice(&x->log));
    json_number(&b, "bytes_in", x->request_bytes);
    json_number(&b, "bytes_out", x->response_bytes);
    json_number(&b, "tries", x->tries + 1u);
    json_field(&b, "client", slice_of(x->down->peer, x->down->peer_n));
    json_field(&b, "source", slice_cstr(o->source_workload));
    if (x->rule && x->rule->route[0])
        json_field(&b, "route", slice_cstr(x->rule->route));
    else if (x->tcp_rule && x->tcp_rule->route[0])
        json_field(&b, "route", slice_cstr(x->tcp_rule->route));
    if (x->cluster)
        json_field(&b, "service", slice_cstr(x->cluster->host));
    if (x->ep)
        json_field(&b, "endpoint", slice_cstr(x->ep->name));
    if (UNLIKELY(x->ep && x->ep->remote))
        json_field(&b, "to_node", slice_cstr(x->ep->remote->node));
    if (UNLIKELY(x->down->peer_node != NULL))
        json_field(&b, "from_node", slice_cstr(x->down->peer_node));
    if (x->trace_id[0])
        json_field(&b, "trace_id", slice_of((const char *)x->trace_id, sizeof x->trace_id));
    if (x->request_id_n)
        json_field(&b, "request_id", slice_of(x->request_id, x->request_id_n));
    buf_addc(&b, '}');
    if (!log_file_put(f, b.p, b.n))
        counter_inc(&x->p->c.log_dropped);
    buf_free(&b);
}
