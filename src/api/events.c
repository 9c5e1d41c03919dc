/* events.c - GET /v1/events: what happened in the last hour, as a List, or with follow one JSON object a line, as it happens.
 *
 * Filters: namespace; for=KIND/NAME, the object that it happened to. A follower is looked after every POLL_MS; what happened again comes again.
 */
#include "api_int.h"

#define POLL_MS 200

/* What is asked for. The texts are its own. */
struct asked {
    char *ns, *kind, *name; /* NULL: any */
    uint64_t seen;          /* the last seq that was told */
    bool list;              /* items of a List; else lines */
    struct buf out;
};

static bool kind_is(const char *asked, const char *kind)
{
    enum obj_kind k;
    return slice_ieq(slice_cstr(asked), slice_cstr(kind)) || (obj_kind_parse(slice_cstr(asked), &k) && strcmp(obj_kind_name(k), kind) == 0);
}

static void take(void *ctx, const struct node_event *e)
{
    struct asked *a = ctx;
    const char *ns = *e->ns ? e->ns : "default";
    a->seen = e->seq;
    if ((a->ns && strcmp(a->ns, ns) != 0) || (a->name && strcmp(a->name, e->name) != 0) || (a->kind && !kind_is(a->kind, e->kind)))
        return;
    if (a->list && a->out.p[a->out.n - 1] != '[')
        buf_addc(&a->out, ',');
    buf_add_slice(&a->out, e->json);
    if (!a->list)
        buf_addc(&a->out, '\n');
}

static void asked_free(struct asked *a)
{
    mem_free(a->ns);
    mem_free(a->kind);
    mem_free(a->name);
    buf_free(&a->out);
    mem_free(a);
}

static void asked_left(struct api_conn *c)
{
    struct asked *a = c->hold;
    c->hold = NULL;
    asked_free(a);
}

static void poll_events(struct timer *t)
{
    struct api_conn *c = CONTAINER_OF(t, struct api_conn, poll);
    struct asked *a = c->hold;
    if (c->stream.out_bytes < c->api->limit[API_LIMIT_OUT_BYTES]) { /* a slow reader gets what is still there when it reads again */
        buf_clear(&a->out);
        c->api->ops->events(c->api->ctx, a->seen, take, a);
        if (a->out.n)
            api_stream_chunk(c, buf_slice(&a->out));
    }
    timer_set(c->api->loop, t, POLL_MS);
}

void api_get_events(struct api_conn *c)
{
    struct api *api = c->api;
    char *about = api_query(c, "for"), *slash = about ? strchr(about, '/') : NULL;
    if (about && (!slash || slash == about || !slash[1])) {
        api_error(c, 400, "write it as for=deployment/web or for=pod/NAME", "\"%s\" is no KIND/NAME", about);
        return;
    }
    struct asked *a = mem_new(MEM_API, sizeof *a);
    a->ns = mem_strdup(MEM_API, api_query(c, "namespace"));
    a->kind = about ? mem_strndup(MEM_API, about, (size_t)(slash - about)) : NULL;
    a->name = about ? mem_strdup(MEM_API, slash + 1) : NULL;
    a->list = !api_query_flag(c, "follow");
    if (a->list)
        buf_adds(&a->out, "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
    api->ops->events(api->ctx, 0, take, a);
    if (a->list) {
        buf_adds(&a->out, "]}\n");
        api_answer_json(c, 200, &a->out);
        asked_free(a);
    } else if (!api_stream_begin(c, "application/x-ndjson")) {
        asked_free(a); /* HEAD, answered */
    } else {
        c->hold = a;
        c->detach = asked_left;
        if (a->out.n)
            api_stream_chunk(c, buf_slice(&a->out));
        api_stream_follow(c, poll_events, POLL_MS);
    }
}
