/* rollout.c - POST /v1/rollout/restart and GET /v1/rollout/status.
 *
 * Status is a stream of JSON objects, one a line, one for each workload that is asked for. With follow, the state is looked
 * at again every POLL_MS and a line is sent for each workload whose line changed; the stream ends when all are complete. A
 * workload that disappears meanwhile ends it too, with a line that has "gone":true; and so do rollouts that make no progress any
 * more, as soon as nothing else is waited for: with a line that has "late" and how many.
 */
#include "api_int.h"
#include "json_buf.h"
#include <stdio.h>

#define POLL_MS 200

/* What one status request watches; hangs on conn->hold while it streams. */
struct rollout {
    char *ns, *name;   /* NULL: any */
    struct table last; /* "ns/name" -> the line sent last (mem_free) */
    struct buf out;    /* lines of this look */
    size_t seen;       /* workloads of this look */
    size_t incomplete; /* of them */
    size_t late;       /* of these, beyond their progress deadline */
};

/* Of all nodes: as kubectl does it, by an annotation of the template, which every node sees. In milliseconds, so that two restarts are two. It is nobody's who applies
 * the manifest, and stays when that is done. Only the annotation is given: what else of the workload is changed meanwhile, here or through another node, stays changed. */
static void restart_everywhere(struct api_conn *c, json_t *body, const char *ns, const char *name)
{
    const struct object *dep = objset_find(c->api->ops->objects(c->api->ctx), OBJ_DEPLOYMENT, ns, name);
    char when[32];
    uint64_t now = wall_ns();
    if (!dep || dep->dep.paused) {
        if (dep)
            api_error(c, 409, "resume it first: spec.paused", "%s/%s is paused, and can't be restarted", ns, name);
        else
            api_error(c, 404, "list workloads with weir get workloads -A", "there is no workload %s/%s", ns, name);
        json_decref(body);
        return;
    }
    struct buf json = {0};
    api_time_text(when, now);
    buf_adds(&json, "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"namespace\":");
    buf_add_json(&json, slice_cstr(ns));
    buf_adds(&json, ",\"name\":");
    buf_add_json(&json, slice_cstr(name));
    buf_printf(&json, "},\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"kubectl.kubernetes.io/restartedAt\":\"%.19s.%03uZ\"}}}}}", when, (unsigned)(now / 1000000u % 1000));
    api_change_text(c, body, buf_slice(&json), "weir-rollout", "rollout restart");
    buf_free(&json);
}

void api_post_restart(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    struct api *a = c->api;
    const char *ns = api_json_str(body, "namespace", "default"), *name = api_json_str(body, "name", "");
    struct run *run = a->ops->run(a->ctx);
    if (*name && a->ops->shared && a->ops->shared(a->ctx)) {
        restart_everywhere(c, body, ns, name);
        return;
    }
    enum err e = !*name ? ERR_INVALID : run ? run_restart(run, ns, name) : ERR_AGAIN;
    if (!*name)
        api_error(c, 400, "send {\"namespace\":NS,\"name\":NAME}", "the workload's name is missing");
    else if (e == ERR_NOTFOUND)
        api_error(c, 404, "list workloads with weir get workloads -A", "there is no workload %s/%s", ns, name);
    else if (e)
        api_error(c, e == ERR_AGAIN ? 503 : 500, "try again, and see the node's log", "restarting %s/%s failed: %s", ns, name, err_text(e));
    else
        api_answer(c, 202, "application/json", SLICE("{\"state\":\"restarting\"}\n"));
    json_decref(body);
}

static void line_add(struct buf *out, const struct workload_status *w)
{
    buf_adds(out, "{\"namespace\":");
    buf_add_json(out, slice_cstr(w->ns));
    buf_adds(out, ",\"name\":");
    buf_add_json(out, slice_cstr(w->name));
    buf_printf(out, ",\"generation\":%llu,\"revision\":%llu,\"wanted\":%u,\"current\":%u,\"updated\":%u,\"ready\":%u,\"available\":%u,\"complete\":%s,\"why\":",
               (unsigned long long)w->generation, (unsigned long long)w->revision, w->wanted, w->current, w->updated, w->ready, w->available,
               w->complete ? "true" : "false");
    buf_add_json(out, slice_cstr(w->why ? w->why : ""));
    buf_adds(out, "}\n");
}

static void rollout_look(void *ctx, const struct workload_status *w)
{
    struct rollout *r = ctx;
    if ((r->ns && strcmp(r->ns, w->ns) != 0) || (r->name && strcmp(r->name, w->name) != 0))
        return;
    r->seen++;
    r->incomplete += !w->complete;
    r->late += !w->complete && w->late;
    struct buf line = {0}, key = {0};
    line_add(&line, w);
    buf_printf(&key, "%s/%s", w->ns, w->name);
    const char *last = table_get(&r->last, buf_slice(&key));
    if (!last || strcmp(last, line.p) != 0) {
        buf_add_slice(&r->out, buf_slice(&line));
        mem_free(table_put(&r->last, buf_slice(&key), buf_take(&line, NULL)));
    }
    buf_free(&line);
    buf_free(&key);
}

static void rollout_free(struct rollout *r)
{
    for (struct table_slot *s = NULL; (s = table_next(&r->last, s));)
        mem_free(s->value);
    table_fini(&r->last);
    buf_free(&r->out);
    mem_free(r->ns);
    mem_free(r->name);
    mem_free(r);
}

static void rollout_detach(struct api_conn *c)
{
    struct rollout *r = c->hold;
    c->hold = NULL;
    rollout_free(r);
}

/* One look. True when there is nothing more to wait for. As kubectl does it, a rollout that is late is not waited for. */
static bool rollout_step(struct api *a, struct rollout *r)
{
    r->seen = r->incomplete = r->late = 0;
    buf_clear(&r->out);
    api_workloads(a, rollout_look, r);
    if (r->late && r->incomplete == r->late)
        buf_printf(&r->out, "{\"late\":%zu,\"complete\":false}\n", r->late);
    return r->seen == 0 || r->incomplete == r->late;
}

static void rollout_poll(struct timer *t)
{
    struct api_conn *c = CONTAINER_OF(t, struct api_conn, poll);
    struct rollout *r = c->hold;
    if (c->stream.out_bytes >= c->api->limit[API_LIMIT_OUT_BYTES]) { /* a slow reader gets the state as it is when it reads again */
        timer_set(c->api->loop, t, POLL_MS);
        return;
    }
    bool done = rollout_step(c->api, r);
    if (r->seen == 0)
        buf_adds(&r->out, "{\"gone\":true,\"complete\":false,\"why\":\"the workload was deleted meanwhile\"}\n");
    api_stream_chunk(c, buf_slice(&r->out));
    if (done)
        api_stream_end(c);
    else
        timer_set(c->api->loop, t, POLL_MS);
}

void api_get_rollout(struct api_conn *c)
{
    const char *ns = api_query(c, "namespace"), *name = NULL;
    struct rollout *r = mem_new(MEM_API, sizeof *r);
    (void)api_query_workload(c, &ns, &name);
    r->ns = mem_strdup(MEM_API, ns);
    r->name = mem_strdup(MEM_API, name);
    bool done = rollout_step(c->api, r);
    if (name && r->seen == 0) {
        api_error(c, 404, "list workloads with weir get workloads -A", "there is no workload %s/%s", ns, name);
        rollout_free(r);
    } else if (done || !api_query_flag(c, "follow")) {
        api_answer(c, 200, "application/x-ndjson", buf_slice(&r->out));
        rollout_free(r);
    } else if (!api_stream_begin(c, "application/x-ndjson")) {
        rollout_free(r); /* HEAD, answered */
    } else {
        c->hold = r;
        c->detach = rollout_detach;
        api_stream_chunk(c, buf_slice(&r->out));
        api_stream_follow(c, rollout_poll, POLL_MS);
    }
}
