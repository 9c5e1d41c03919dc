/* apply.c - changes of the wanted state: POST /v1/apply, /v1/delete, /v1/rollback, /v1/down, /v1/upgrade.
 *
 *     apply:   files -> objset_read_parts() each -> no error? -> node_ops.change(): merged into what is there, with owners -> the connection waits until it is on disk
 *     answer:  {"diagnostics":[...],"changes":[...],"revision":N}, 200 applied (or would be), 422 nothing was; 409 {"error","remedy","conflicts":[...]}
 *
 * All or nothing: node_ops.change() is called once, with every object, and only when the reader found no error.
 */
#include "api_int.h"
#include "json_buf.h"

/* ---- reading the body ---------------------------------------------------------------------------------------------------- */

static bool flag_of(const json_t *body, const char *key) { return json_is_true(json_object_get(body, key)); }

/* Reads every file of body["files"] into s. False: the body is not as it must be, and the answer is given. */
static bool read_files(struct api_conn *c, const json_t *body, bool strict, struct objset *s, struct diags *d)
{
    const json_t *files = json_object_get(body, "files");
    const char *ns = api_json_str(body, "namespace", "default");
    size_t i;
    const json_t *f;
    if (!json_is_array(files)) {
        api_error(c, 400, "send {\"files\":[{\"file\":NAME,\"dir\":FOLDER,\"text\":YAML}]}", "the body has no list \"files\"");
        return false;
    }
    json_array_foreach (files, i, f) {
        const json_t *text = json_object_get(f, "text");
        if (!json_is_string(text)) {
            api_error(c, 400, "send {\"file\":NAME,\"dir\":FOLDER,\"text\":YAML}", "files[%zu] has no \"text\"", i);
            return false;
        }
        objset_read_parts(s, api_json_str(f, "file", "-"), api_json_str(f, "dir", "/"), slice_of(json_string_value(text), json_string_length(text)), ns, strict, d);
    }
    return true;
}

void node_change_note(struct node_change *c, enum obj_kind k, const char *ns, const char *name, const char *change)
{
    struct buf *out = &c->changes;
    buf_printf(out, "%s{\"kind\":\"%s\",\"namespace\":", out->n ? "," : "", obj_kind_name(k));
    buf_add_json(out, slice_cstr(ns));
    buf_adds(out, ",\"name\":");
    buf_add_json(out, slice_cstr(name));
    buf_printf(out, ",\"change\":\"%s\"}", change);
}

static void side_add(struct buf *out, const char *key, const struct object *o, const struct keyring *keys)
{
    json_t *side = o ? api_manifest(o, keys) : json_null();
    buf_printf(out, ",\"%s\":", key);
    (void)json_buf_add(side, JSON_COMPACT | JSON_ENCODE_ANY, out);
    json_decref(side);
}

void node_change_object(struct node_change *c, const struct object *old, const struct object *o)
{
    bool same = old && old->hash == o->hash && strcmp(old->dir, o->dir) == 0;
    node_change_note(c, o->kind, o->ns, o->name, !old ? "created" : same ? "unchanged" : "configured");
    if (!c->sides || same)
        return;
    c->changes.n--; /* its brace */
    side_add(&c->changes, "before", old, c->keys);
    side_add(&c->changes, "after", o, c->keys);
    buf_addc(&c->changes, '}');
}

/* ---- a change under way ------------------------------------------------------------------------------------------------------ */

/* The connection waits for it; when it has gone, the change takes place all the same. */
struct posted {
    struct node_change change;
    struct api_conn *c;      /* NULL: gone */
    json_t *body;            /* what change refers to is in it */
    struct merge_conf merge; /* APPLY */
    struct objset *files;    /* DELETE: the refs point into it; NULL */
    struct node_ref *refs;
    bool by_name;            /* DELETE: one object, which must be there */
};

static void posted_free(struct posted *p)
{
    diags_free(&p->change.diags);
    merge_conflicts_free(&p->change.conflicts);
    buf_free(&p->change.why);
    buf_free(&p->change.changes);
    objset_free(p->change.next);
    objset_free(p->files);
    mem_free(p->refs);
    json_decref(p->body);
    mem_free(p);
}

/* 409: fields that others own, by name. */
static void answer_conflicts(struct api_conn *c, const struct merge_conflicts *all)
{
    struct buf out = {0}, what = {0};
    const struct merge_conflict *first = &all->items[0];
    buf_printf(&what, "%zu conflict%s: %s %s%s%s: %s owns %s%s", all->n, all->n == 1 ? "" : "s", first->kind, first->ns, *first->ns ? "/" : "", first->name, first->manager, first->field,
               all->n > 1 ? ", and others" : "");
    buf_adds(&out, "{\"error\":");
    buf_add_json(&out, buf_slice(&what));
    buf_adds(&out, ",\"remedy\":\"give these fields their present value, leave them out, or take them over with --force-conflicts; nothing was applied\",\"conflicts\":[");
    for (size_t i = 0; i < all->kept; i++) {
        const struct merge_conflict *x = &all->items[i];
        const char *const parts[][2] = {{"kind", x->kind}, {"namespace", x->ns}, {"name", x->name}, {"manager", x->manager}, {"field", x->field}};
        for (size_t k = 0; k < COUNT_OF(parts); k++) {
            buf_printf(&out, "%s\"%s\":", k ? "," : i ? ",{" : "{", parts[k][0]);
            buf_add_json(&out, slice_cstr(parts[k][1]));
        }
        buf_addc(&out, '}');
    }
    buf_adds(&out, "]}\n");
    api_answer_json(c, 409, &out);
    buf_free(&out);
    buf_free(&what);
}

/* What is not about the manifests: disk full, stopping, another change came first. */
static void answer_failed(struct api_conn *c, const struct node_change *n)
{
    const char *why = n->why.n ? n->why.p : err_text(n->error);
    switch (n->error) {
    case ERR_NOTFOUND: api_error(c, 404, "weir history lists what there is", "%s", why); break;
    case ERR_NOSPACE: api_error(c, 507, "make room; nothing was changed", "what is in order could not be saved: %s: %s", err_text(n->error), why); break;
    case ERR_INUSE: api_error(c, 409, "try again", "%s", why); break;
    case ERR_AGAIN: api_error(c, 409, "nothing was changed", "%s", why); break;
    default: api_error(c, 500, "see the node's log for the cause", "what is in order could not be saved: %s", why); break;
    }
}

static void answer_change(struct api_conn *c, const struct node_change *n)
{
    struct buf out = {0};
    bool refused = n->diags.errors > 0;
    buf_adds(&out, "{\"diagnostics\":");
    api_add_diags(&out, &n->diags);
    buf_printf(&out, ",\"changes\":[%s]", refused || !n->changes.p ? "" : n->changes.p);
    if (n->error == OK && n->revision && !n->dry_run)
        buf_printf(&out, ",\"revision\":%lld", (long long)n->revision);
    buf_adds(&out, "}\n");
    api_answer_json(c, refused ? 422 : 200, &out);
    buf_free(&out);
}

static void posted_done(struct node_change *n)
{
    struct posted *p = CONTAINER_OF(n, struct posted, change);
    const struct node_ref *r = n->refs;
    if (!p->c)
        ; /* nobody waits */
    else if (n->conflicts.n && !n->diags.errors)
        answer_conflicts(p->c, &n->conflicts);
    else if (n->error != OK && !n->diags.errors)
        answer_failed(p->c, n);
    else if (p->by_name && n->missing)
        api_error(p->c, 404, "list what is there with weir get all -A", "%s %s%s%s: %s", obj_kind_name(r->kind), r->ns, *r->ns ? "/" : "", r->name, err_text(ERR_NOTFOUND));
    else
        answer_change(p->c, n);
    posted_free(p);
}

static void posted_left(struct api_conn *c) { ((struct posted *)c->hold)->c = NULL; }

static struct posted *posted_new(struct api_conn *c, json_t *body, enum node_change_kind kind)
{
    struct posted *p = mem_new(MEM_API, sizeof *p);
    p->c = c;
    p->body = body;
    p->change = (struct node_change){.kind = kind, .by = api_json_str(body, "by", ""), .what = api_json_str(body, "what", NULL), .dry_run = flag_of(body, "dry_run"), .keys = c->api->ops->keys(c->api->ctx), .done = posted_done};
    return p;
}

static void posted_go(struct posted *p)
{
    struct api *a = p->c->api;
    api_conn_hold(p->c, p, posted_left);
    a->ops->change(a->ctx, &p->change);
}

/* ---- apply -------------------------------------------------------------------------------------------------------------------- */

void api_post_apply(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    struct posted *p = posted_new(c, body, CHANGE_APPLY);
    struct node_change *n = &p->change;
    p->merge = (struct merge_conf){.manager = api_json_str(body, "manager", MERGE_MANAGER), .force = flag_of(body, "force"), .patch = flag_of(body, "patch"), .now_ns = wall_ns()};
    n->merge = &p->merge;
    n->sides = flag_of(body, "diff");
    n->next = objset_new();
    if (!merge_manager_valid(slice_cstr(p->merge.manager))) {
        api_error(c, 400, "give 1 to 128 printable characters without spaces", "not a manager's name");
        posted_free(p);
    } else if (!read_files(c, body, flag_of(body, "strict"), n->next, &n->diags)) {
        posted_free(p);
    } else if (n->diags.errors) {
        answer_change(c, n);
        posted_free(p);
    } else {
        posted_go(p);
    }
}

void api_change_text(struct api_conn *c, json_t *body, struct slice text, const char *manager, const char *what)
{
    struct posted *p = posted_new(c, body, CHANGE_APPLY);
    p->merge = (struct merge_conf){.manager = manager, .patch = true, .now_ns = wall_ns()};
    p->change.merge = &p->merge;
    p->change.what = what;
    p->change.next = objset_new();
    objset_read_parts(p->change.next, "-", "/", text, "default", false, &p->change.diags);
    if (p->change.diags.errors) {
        answer_change(c, &p->change);
        posted_free(p);
    } else {
        posted_go(p);
    }
}

/* ---- delete ---------------------------------------------------------------------------------------------------------------------- */

static void delete_by_name(struct posted *p)
{
    enum obj_kind k;
    struct api_conn *c = p->c;
    const char *kind = api_json_str(p->body, "kind", ""), *name = api_json_str(p->body, "name", "");
    bool known = obj_kind_parse(slice_cstr(kind), &k);
    if (!known)
        api_error(c, 400, "use a kind that Weir knows: Deployment, Service, HTTPRoute, Gateway, ConfigMap, Secret, Namespace", "unknown kind \"%s\"", kind);
    else if (!*name)
        api_error(c, 400, "send {\"kind\":KIND,\"namespace\":NS,\"name\":NAME}", "the object's name is missing");
    if (!known || !*name) {
        posted_free(p);
        return;
    }
    p->by_name = true;
    p->refs = mem_new(MEM_API, sizeof *p->refs);
    p->refs[0] = (struct node_ref){k, k == OBJ_NAMESPACE ? "" : api_json_str(p->body, "namespace", "default"), name};
    p->change.refs = p->refs;
    p->change.refs_n = 1;
    posted_go(p);
}

/* The objects that the files name, the last kinds first. */
static void delete_by_files(struct posted *p)
{
    struct node_change *n = &p->change;
    p->files = objset_new();
    if (!read_files(p->c, p->body, false, p->files, &n->diags)) {
        posted_free(p);
        return;
    }
    if (n->diags.errors) {
        answer_change(p->c, n);
        posted_free(p);
        return;
    }
    p->refs = mem_new(MEM_API, (objset_n(p->files) + 1) * sizeof *p->refs);
    for (size_t i = objset_n(p->files); i-- > 0;) {
        const struct object *o = objset_at(p->files, i);
        p->refs[n->refs_n++] = (struct node_ref){o->kind, o->ns, o->name};
    }
    n->refs = p->refs;
    posted_go(p);
}

void api_post_delete(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    struct posted *p = posted_new(c, body, CHANGE_DELETE);
    if (json_object_get(body, "files"))
        delete_by_files(p);
    else
        delete_by_name(p);
}

/* ---- rollback ---------------------------------------------------------------------------------------------------------------------- */

void api_post_rollback(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    const json_t *revision = json_object_get(body, "revision");
    if (!json_is_integer(revision) || json_integer_value(revision) < 1) {
        api_error(c, 400, "send {\"revision\":N}; weir history lists them", "the revision is missing, or no whole number from 1 on");
        json_decref(body);
        return;
    }
    enum obj_kind k;
    const char *kind = api_json_str(body, "kind", NULL), *name = api_json_str(body, "name", "");
    if (kind && (!obj_kind_parse(slice_cstr(kind), &k) || !*name)) {
        api_error(c, 400, "send {\"revision\":N,\"kind\":KIND,\"namespace\":NS,\"name\":NAME}, or the revision alone", "no known kind, or no name");
        json_decref(body);
        return;
    }
    struct posted *p = posted_new(c, body, CHANGE_ROLLBACK);
    if (kind) {
        p->refs = mem_new(MEM_API, sizeof *p->refs);
        p->refs[0] = (struct node_ref){k, k == OBJ_NAMESPACE ? "" : api_json_str(body, "namespace", "default"), name};
        p->change.refs = p->refs;
        p->change.refs_n = 1;
    }
    p->change.revision = json_integer_value(revision);
    p->change.sides = flag_of(body, "diff");
    posted_go(p);
}

/* ---- down ------------------------------------------------------------------------------------------------------------------------- */

void api_post_down(struct api_conn *c)
{
    struct api *a = c->api;
    c->keep_alive = false;
    api_answer(c, 202, "application/json", SLICE("{\"state\":\"stopping\"}\n"));
    a->ops->down(a->ctx);
}

/* ---- upgrade ---------------------------------------------------------------------------------------------------------------------- */

#define READY_MS 30000
#define DRAIN_MS 60000

static void upgrade_detach(struct api_conn *c) { c->api->upgrader = NULL; }

static uint32_t ms_of(const json_t *body, const char *key, uint32_t absent)
{
    const json_t *v = json_object_get(body, key);
    json_int_t n = json_integer_value(v);
    return json_is_integer(v) && n >= 0 ? (uint32_t)MIN(n, (json_int_t)UINT32_MAX) : absent;
}

/* The connection waits until another engine serves or the upgrade has failed. */
void api_post_upgrade(struct api_conn *c)
{
    struct api *a = c->api;
    struct buf why = {0};
    json_t *body = api_body_object(c);
    if (!body)
        return;
    const char *binary = json_string_value(json_object_get(body, "binary"));
    if (binary && binary[0] != '/')
        api_error(c, 400, "give an absolute path", "binary \"%s\" is no absolute path", binary);
    else if (a->upgrader)
        api_error(c, 409, "wait until it is over", "an upgrade is in progress");
    else if (a->ops->upgrade(a->ctx, binary, ms_of(body, "ready_ms", READY_MS), ms_of(body, "drain_ms", DRAIN_MS), &why) != OK)
        api_error(c, 409, "nothing was changed", "%s", why.p);
    else {
        a->upgrader = c;
        api_conn_hold(c, c, upgrade_detach);
    }
    buf_free(&why);
    json_decref(body);
}

void api_upgraded(struct api *a, enum err e, const char *text, int32_t new_pid)
{
    struct api_conn *c = a->upgrader;
    a->upgrader = NULL;
    if (!c)
        return; /* nobody waits */
    if (e == OK) {
        struct buf b = {0};
        c->keep_alive = false;
        buf_printf(&b, "{\"pid\":%d}\n", (int)new_pid);
        api_answer_json(c, 200, &b);
        buf_free(&b);
    } else {
        api_error(c, 409, e == ERR_AGAIN ? "wait until it is over" : "the running engine goes on, undisturbed", "%s", text);
    }
}
