/* apply.c - changes of the wanted state: POST /v1/apply, /v1/delete, /v1/down.
 *
 *     apply:   files -> objset_read() each -> no error? -> changes computed against what is there -> node_ops.apply()
 *     answer:  {"diagnostics":[...],"changes":[...]}, 200 applied (or would be), 422 nothing was
 *
 * All or nothing: node_ops.apply() is called once, with every object, and only when the reader found no error. The set that
 * it is handed stays this file's to free.
 */
#include "api_int.h"

/* ---- reading the body ---------------------------------------------------------------------------------------------------- */

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
        objset_read(s, api_json_str(f, "file", "-"), api_json_str(f, "dir", "/"), slice_of(json_string_value(text), json_string_length(text)), ns, strict, d);
    }
    return true;
}

static void change_add(struct buf *out, const char *kind, const char *ns, const char *name, const char *change)
{
    if (out->n && out->p[out->n - 1] == '}')
        buf_addc(out, ',');
    buf_printf(out, "{\"kind\":\"%s\",\"namespace\":", kind);
    buf_add_json(out, slice_cstr(ns));
    buf_adds(out, ",\"name\":");
    buf_add_json(out, slice_cstr(name));
    buf_printf(out, ",\"change\":\"%s\"}", change);
}

/* ---- apply -------------------------------------------------------------------------------------------------------------------- */

static void changes_of(const struct objset *now, const struct objset *next, struct buf *out)
{
    for (size_t i = 0; i < objset_n(next); i++) {
        const struct object *o = objset_at(next, i);
        const struct object *old = objset_find(now, o->kind, o->ns, o->name);
        change_add(out, obj_kind_name(o->kind), o->ns, o->name, !old ? "created" : old->hash == o->hash ? "unchanged" : "configured");
    }
}

/* The node's verdict that is not about the manifests: disk full, stopping. */
static void answer_apply_failed(struct api_conn *c, enum err e)
{
    api_error(c,
              e == ERR_NOSPACE                   ? 507
              : e == ERR_INUSE || e == ERR_AGAIN ? 409
                                                 : 500,
              "see the node's log for the cause; nothing was applied", "the manifests are in order, but applying them failed: %s", err_text(e));
}

/* The files are read into next; what was found wrong so far is in d. */
static void apply_read(struct api_conn *c, struct objset *next, bool dry_run, struct diags *d)
{
    struct api *a = c->api;
    struct buf changes = {0}, out = {0};
    enum err e = OK;
    if (!d->errors) {
        changes_of(a->ops->objects(a->ctx), next, &changes);
        e = a->ops->apply(a->ctx, next, dry_run, d);
    }
    if (e && !d->errors) {
        answer_apply_failed(c, e);
    } else {
        buf_adds(&out, "{\"diagnostics\":");
        api_add_diags(&out, d);
        buf_printf(&out, ",\"changes\":[%s]}\n", d->errors || !changes.p ? "" : changes.p);
        api_answer_json(c, d->errors ? 422 : 200, &out);
    }
    buf_free(&out);
    buf_free(&changes);
}

void api_post_apply(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    struct objset *next = objset_new();
    struct diags d = {0};
    if (read_files(c, body, json_is_true(json_object_get(body, "strict")), next, &d))
        apply_read(c, next, json_is_true(json_object_get(body, "dry_run")), &d);
    diags_free(&d);
    objset_free(next);
    json_decref(body);
}

/* ---- delete ---------------------------------------------------------------------------------------------------------------------- */

/* Removes one object, notes the outcome in changes; false: it failed for another reason than not being there. */
static bool remove_one(struct api *a, enum obj_kind k, const char *ns, const char *name, struct buf *changes, enum err *why)
{
    enum err e = a->ops->remove(a->ctx, k, ns, name);
    change_add(changes, obj_kind_name(k), ns, name, e == OK ? "deleted" : e == ERR_NOTFOUND ? "not found" : "failed");
    if (e && e != ERR_NOTFOUND)
        *why = e;
    return e == OK || e == ERR_NOTFOUND;
}

static void delete_by_name(struct api_conn *c, const json_t *body)
{
    enum obj_kind k;
    const char *kind = api_json_str(body, "kind", ""), *name = api_json_str(body, "name", "");
    if (!obj_kind_parse(slice_cstr(kind), &k)) {
        api_error(c, 400, "use a kind that Weir knows: Deployment, Service, HTTPRoute, Gateway, ConfigMap, Secret, Namespace", "unknown kind \"%s\"", kind);
        return;
    }
    if (!*name) {
        api_error(c, 400, "send {\"kind\":KIND,\"namespace\":NS,\"name\":NAME}", "the object's name is missing");
        return;
    }
    const char *ns = k == OBJ_NAMESPACE ? "" : api_json_str(body, "namespace", "default");
    enum err e = c->api->ops->remove(c->api->ctx, k, ns, name);
    if (e) {
        api_error(c,
                  e == ERR_NOTFOUND                    ? 404
                  : e == ERR_INUSE || e == ERR_AGAIN ? 409
                                                     : 500,
                  e == ERR_NOTFOUND ? "list what is there with weir get all -A" : "see the node's log", "%s %s%s%s: %s", obj_kind_name(k), ns, *ns ? "/" : "",
                  name, err_text(e));
        return;
    }
    struct buf out = {0}, changes = {0};
    change_add(&changes, obj_kind_name(k), ns, name, "deleted");
    buf_printf(&out, "{\"diagnostics\":[],\"changes\":[%s]}\n", changes.p);
    api_answer_json(c, 200, &out);
    buf_free(&changes);
    buf_free(&out);
}

/* The objects that the files name, the last kinds first: routes go before the services they point to. */
static void delete_by_files(struct api_conn *c, const json_t *body)
{
    struct objset *s = objset_new();
    struct diags d = {0};
    struct buf changes = {0}, out = {0};
    enum err why = OK;
    if (read_files(c, body, false, s, &d)) {
        for (size_t i = objset_n(s); !d.errors && i-- > 0;) {
            const struct object *o = objset_at(s, i);
            if (!remove_one(c->api, o->kind, o->ns, o->name, &changes, &why))
                break;
        }
        buf_adds(&out, "{\"diagnostics\":");
        api_add_diags(&out, &d);
        buf_printf(&out, ",\"changes\":[%s]", changes.p ? changes.p : "");
        if (why)
            buf_printf(&out, ",\"error\":\"%s\",\"remedy\":\"see the node's log for the cause; what is listed as deleted is gone\"", err_text(why));
        buf_adds(&out, "}\n");
        api_answer_json(c, d.errors ? 422 : why ? 500 : 200, &out);
    }
    buf_free(&out);
    buf_free(&changes);
    diags_free(&d);
    objset_free(s);
}

void api_post_delete(struct api_conn *c)
{
    json_t *body = api_body_object(c);
    if (!body)
        return;
    if (json_object_get(body, "files"))
        delete_by_files(c, body);
    else
        delete_by_name(c, body);
    json_decref(body);
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
