/* history.c - the system's past: GET /v1/history, all revisions that are kept; /v1/history/N, what one did.
 *
 *     {"revision":7,"time","by","what","changes":[{"kind","namespace","name","change","before":OBJECT|null,"after":OBJECT|null}]}
 *
 * Objects are without status and owners, values of Secrets are sizes and digests.
 */
#include "api_int.h"
#include "json_buf.h"

struct asked {
    struct node_history h;
    struct api_conn *c; /* NULL: gone */
};

static void asked_left(struct api_conn *c) { ((struct asked *)c->hold)->c = NULL; }

static const struct object *found(const struct objset *set, const json_t *change)
{
    enum obj_kind k;
    if (!set || !obj_kind_parse(slice_cstr(api_json_str(change, "kind", "")), &k))
        return NULL;
    return objset_find(set, k, api_json_str(change, "namespace", ""), api_json_str(change, "name", ""));
}

static void change_complete(json_t *change, const struct node_history *h, const struct keyring *keys)
{
    const struct object *before = found(h->before, change), *after = found(h->after, change);
    json_put(change, "before", before ? api_manifest(before, keys) : json_null());
    json_put(change, "after", after ? api_manifest(after, keys) : json_null());
}

static void revision_complete(struct node_history *h, const struct keyring *keys)
{
    size_t i;
    json_t *change, *o = json_loadb(h->json.p, h->json.n, 0, NULL);
    json_array_foreach (json_object_get(o, "changes"), i, change)
        if (json_is_object(change))
            change_complete(change, h, keys);
    buf_clear(&h->json);
    (void)json_buf_add(o, JSON_COMPACT, &h->json);
    buf_addc(&h->json, '\n');
    json_decref(o);
}

static void asked_done(struct node_history *h)
{
    struct asked *a = CONTAINER_OF(h, struct asked, h);
    if (!a->c) {
        ; /* nobody waits */
    } else if (h->error == ERR_NOTFOUND) {
        api_error(a->c, 404, "weir history lists what there is", "%s", h->why.p);
    } else if (h->error != OK) {
        api_error(a->c, h->error == ERR_AGAIN ? 503 : 500, "try again, and see the node's log", "%s", h->why.p);
    } else {
        if (h->revision)
            revision_complete(h, a->c->api->ops->keys(a->c->api->ctx));
        api_answer_json(a->c, 200, &h->json);
    }
    objset_free(h->before);
    objset_free(h->after);
    buf_free(&h->why);
    buf_free(&h->json);
    mem_free(a);
}

static void ask(struct api_conn *c, int64_t revision)
{
    struct api *api = c->api;
    struct asked *a = mem_new(MEM_API, sizeof *a);
    a->c = c;
    a->h = (struct node_history){.revision = revision, .done = asked_done};
    api_conn_hold(c, a, asked_left);
    api->ops->history(api->ctx, &a->h);
}

void api_get_history(struct api_conn *c) { ask(c, 0); }

void api_get_revision(struct api_conn *c)
{
    uint64_t n;
    if (slice_u64(slice_cstr(strrchr(c->req.path, '/') + 1), INT64_MAX, &n) == OK && n && strrchr(c->req.path, '/') == c->req.path + sizeof "/v1/history" - 1)
        ask(c, (int64_t)n);
    else
        api_error(c, 404, "write it as /v1/history/7", "%s is no revision", c->req.path + sizeof "/v1/history/" - 1);
}
