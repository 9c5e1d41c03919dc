/* watch.c - GET /v1/watch: an object, and each change of it, one JSON object a line until the client leaves.
 *
 *     {"change":"present","generation":3,"object":{...}}      first: as it is; "absent" and null when it is not there
 *     {"change":"created"|"configured"|"deleted", ...}        then
 *
 * Objects are without status and owners, values of Secrets are sizes and digests. The set of objects is looked at every WATCH_MS: what changes twice
 * within that is one change. A slow reader gets the state as it is when it reads again.
 */
#include "api_int.h"
#include "json_buf.h"

#define WATCH_MS 50

/* One who watches. */
struct watching {
    enum obj_kind kind;
    char *ns, *name;
    bool there;          /* when last looked at */
    uint64_t hash, generation;
};

static void watching_free(struct watching *w)
{
    mem_free(w->ns);
    mem_free(w->name);
    mem_free(w);
}

static void watching_detach(struct api_conn *c)
{
    struct watching *w = c->hold;
    c->hold = NULL;
    watching_free(w);
}

/* Adds a line to out when there is something to tell. */
static void watching_look(struct api *a, struct watching *w, bool first, struct buf *out)
{
    const struct object *o = objset_find(a->ops->objects(a->ctx), w->kind, w->ns, w->name);
    bool same = w->there == (o != NULL) && (!o || (o->hash == w->hash && o->generation == w->generation));
    if (same && !first)
        return;
    const char *change = first ? (o ? "present" : "absent") : !o ? "deleted" : w->there ? "configured" : "created";
    json_t *object = o ? api_manifest(o, a->ops->keys(a->ctx)) : json_null();
    buf_printf(out, "{\"change\":\"%s\",\"generation\":%llu,\"object\":", change, o ? (unsigned long long)o->generation : 0ull);
    (void)json_buf_add(object, JSON_COMPACT | JSON_ENCODE_ANY, out);
    buf_adds(out, "}\n");
    json_decref(object);
    w->there = o != NULL;
    w->hash = o ? o->hash : 0;
    w->generation = o ? o->generation : 0;
}

static void watching_poll(struct timer *t)
{
    struct api_conn *c = CONTAINER_OF(t, struct api_conn, poll);
    struct buf out = {0};
    if (c->stream.out_bytes < c->api->limit[API_LIMIT_OUT_BYTES])
        watching_look(c->api, c->hold, false, &out);
    timer_set(c->api->loop, t, WATCH_MS);
    if (out.n)
        api_stream_chunk(c, buf_slice(&out));
    buf_free(&out);
}

void api_get_watch(struct api_conn *c)
{
    const char *kind = api_query(c, "kind"), *ns = api_query(c, "namespace"), *name = api_query(c, "name");
    enum obj_kind k;
    if (!kind || !obj_kind_parse(slice_cstr(kind), &k) || !name || !*name) {
        api_error(c, 400, "ask for /v1/watch?kind=KIND&namespace=NS&name=NAME", "no known kind, or no name");
        return;
    }
    struct watching *w = mem_new(MEM_API, sizeof *w);
    struct buf out = {0};
    w->kind = k;
    w->ns = mem_strdup(MEM_API, k == OBJ_NAMESPACE ? "" : ns && *ns ? ns : "default");
    w->name = mem_strdup(MEM_API, name);
    watching_look(c->api, w, true, &out);
    if (!api_stream_begin(c, "application/x-ndjson")) {
        watching_free(w); /* HEAD, answered */
    } else {
        c->hold = w;
        c->detach = watching_detach;
        api_stream_chunk(c, buf_slice(&out));
        api_stream_follow(c, watching_poll, WATCH_MS);
    }
    buf_free(&out);
}
