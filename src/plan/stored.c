/* stored.c - objects as they are kept: one by one in the control store, all together in a file.
 *
 * An object is kept as its manifest, with metadata completed and what is not in a manifest (where it was read, its address) in a member of its own:
 *
 *     KIND.GROUP/NAMESPACE/NAME  ->  {"apiVersion":..., "kind":..., "metadata":{..., "generation":3}, ..., "weir.dev/stored":{"file":..., "added":[...]}}
 *
 * Whoever reads it finds what Kubernetes would show. What was added is listed in it, so that reading gives the manifest as it was given, byte for byte:
 * its hash tells whether a later apply changes anything. Values of Secrets are sealed (seal.c) whenever there is a keyring.
 */
#include "plan_int.h"
#include "seal.h"
#include "json_buf.h"

#include <time.h>

#define STATE_VERSION 2
#define STATE_VERSION_PLAIN 1 /* of Weir before the control store: the manifest as a member, with the rest beside it */
#define EXTRA "weir.dev/stored"
#define NO_NAMESPACE "-"      /* stands in keys for the namespace of what has none */

/* ---- keys ---------------------------------------------------------------------------------------------------------------- */

void object_key(enum obj_kind k, const char *ns, const char *name, struct buf *out)
{
    const char *group = obj_kind_group(k);
    buf_printf(out, "%s%s%s/%s/%s", obj_kind_word(k), *group ? "." : "", group, *ns ? ns : NO_NAMESPACE, name);
}

bool object_key_parse(struct slice key, enum obj_kind *k, struct slice *ns, struct slice *name)
{
    struct slice kind = slice_cut(key, '/', name);
    *ns = slice_cut(*name, '/', name);
    if (slice_is(*ns, NO_NAMESPACE))
        *ns = SLICE("");
    for (int i = 0; i < OBJ_KIND_COUNT && name->n; i++) {
        struct slice rest, word = slice_cut(kind, '.', &rest);
        *k = (enum obj_kind)i;
        if (slice_is(word, obj_kind_word(*k)) && slice_is(rest, obj_kind_group(*k)))
            return slice_find(*name, '/') < 0;
    }
    return false;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static void put_new(json_t *o, const char *key, json_t *value)
{
    if (!value || json_object_set_new(o, key, value))
        MUST(false && "a JSON value can't be made: memory");
}

static json_t *address_json(const struct addr *a)
{
    char text[ADDR_TEXT_MAX];
    return a->family == ADDR_NONE ? json_string("") : json_stringn(text, addr_format_ip(a, text));
}

/* What the manifest does not say. added: the members of metadata that are put there. */
static json_t *extra_json(const struct object *o, json_t *added)
{
    json_t *e = json_object();
    put_new(e, "namespace", json_string(o->ns));
    put_new(e, "file", json_string(o->file));
    put_new(e, "line", json_integer(o->line));
    put_new(e, "column", json_integer(o->column));
    put_new(e, "dir", json_string(o->dir));
    put_new(e, "created_ns", json_integer((json_int_t)o->created_ns));
    put_new(e, "generation", json_integer((json_int_t)o->generation));
    if (o->kind == OBJ_SERVICE && o->svc.address.family != ADDR_NONE)
        put_new(e, "address", address_json(&o->svc.address));
    if (o->kind == OBJ_SERVICEENTRY) {
        json_t *list = json_array();
        for (size_t i = 0; i < o->entry.addresses_n; i++)
            json_array_append_new(list, address_json(&o->entry.addresses[i]));
        put_new(e, "addresses", list);
    }
    put_new(e, "added", added);
    return e;
}

static void meta_add(json_t *meta, json_t *added, const char *key, json_t *value)
{
    if (json_object_get(meta, key)) {
        json_decref(value);
        return;
    }
    put_new(meta, key, value);
    json_array_append_new(added, json_string(key));
}

static void meta_complete(const struct object *o, json_t *meta, json_t *added)
{
    char when[32];
    time_t t = (time_t)(o->created_ns / 1000000000u);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (o->ns[0])
        meta_add(meta, added, "namespace", json_string(o->ns));
    meta_add(meta, added, "creationTimestamp", json_string(when));
    meta_add(meta, added, "generation", json_integer((json_int_t)o->generation));
}

enum err object_store(const struct object *o, const struct keyring *keys, struct buf *out)
{
    json_t *m = json_loads(o->json, JSON_ALLOW_NUL, NULL), *meta = json_object_get(m, "metadata"), *added = json_array();
    if (!json_is_object(meta)) { /* a number beyond what JSON's readers take */
        json_decref(m);
        json_decref(added);
        return ERR_INVALID;
    }
    if (keys)
        seal_object(keys, o->ns, m);
    meta_complete(o, meta, added);
    json_t *extra = extra_json(o, added), *shadowed = json_object_get(m, EXTRA);
    if (shadowed)
        put_new(extra, "shadowed", json_incref(shadowed));
    put_new(m, EXTRA, extra);
    enum err e = json_buf_add(m, JSON_COMPACT, out);
    json_decref(m);
    return e;
}

void objset_save(const struct objset *s, const struct keyring *keys, struct buf *out)
{
    bool first = true;
    buf_printf(out, "{\"version\":%d,\"objects\":[", STATE_VERSION);
    for (size_t i = 0; i < s->n; i++) {
        struct buf one = {0};
        if (object_store(s->items[i], keys, &one) == OK) {
            buf_adds(out, first ? "\n" : ",\n");
            buf_add_slice(out, buf_slice(&one));
            first = false;
        }
        buf_free(&one);
    }
    buf_adds(out, "\n]}\n");
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

/* A tree from JSON, each node at the place where its object came from. Depth was limited when the manifest was read. */
struct from_json {
    struct arena *a;
    uint32_t line, column;
    bool failed;
};

static struct ynode *tree_from_json(struct from_json *f, json_t *j, uint32_t depth);

static void map_from_json(struct from_json *f, json_t *j, struct ynode *n, uint32_t depth)
{
    const char *key;
    json_t *value;
    n->pairs = arena_alloc(f->a, (json_object_size(j) + 1) * sizeof *n->pairs);
    json_object_foreach(j, key, value) n->pairs[n->n++] =
        (struct ypair){.key = arena_slice(f->a, slice_cstr(key)), .line = f->line, .column = f->column, .value = tree_from_json(f, value, depth + 1)};
}

static void scalar_from_json(struct from_json *f, json_t *j, struct ynode *n)
{
    char *text = NULL;
    if (json_is_string(j))
        n->text = arena_slice(f->a, slice_of(json_string_value(j), json_string_length(j)));
    else if (json_is_integer(j))
        text = arena_printf(f->a, "%lld", (long long)(n->num = json_integer_value(j)));
    else if (json_is_real(j))
        text = arena_printf(f->a, "%.17g", n->real = json_real_value(j));
    else
        text = arena_strdup(f->a, (n->flag = json_is_true(j)) ? "true" : json_is_null(j) ? "null" : "false");
    if (text)
        n->text = slice_cstr(text);
}

static struct ynode *tree_from_json(struct from_json *f, json_t *j, uint32_t depth)
{
    static const enum ytype types[] = {[JSON_OBJECT] = Y_MAP, [JSON_ARRAY] = Y_LIST, [JSON_STRING] = Y_STR, [JSON_INTEGER] = Y_INT,
                                       [JSON_REAL] = Y_FLOAT, [JSON_TRUE] = Y_BOOL,  [JSON_FALSE] = Y_BOOL, [JSON_NULL] = Y_NULL};
    struct ynode *n = arena_zalloc(f->a, sizeof *n);
    n->type = types[json_typeof(j)];
    n->line = f->line;
    n->column = f->column;
    n->complete = true;
    if (depth > MANIFEST_DEPTH_MAX) {
        f->failed = true;
        n->type = Y_NULL;
    } else if (json_is_object(j)) {
        map_from_json(f, j, n, depth);
    } else if (json_is_array(j)) {
        n->items = arena_alloc(f->a, (json_array_size(j) + 1) * sizeof(struct ynode *));
        for (size_t i = 0; i < json_array_size(j); i++)
            n->items[n->n++] = tree_from_json(f, json_array_get(j, i), depth + 1);
    } else {
        scalar_from_json(f, j, n);
    }
    return n;
}

static const char *entry_text(json_t *entry, const char *key)
{
    const char *s = json_string_value(json_object_get(entry, key));
    return s ? s : "";
}

static uint64_t entry_u64(json_t *entry, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(entry, key));
    return v > 0 ? (uint64_t)v : 0;
}

static void load_addresses(struct object *o, json_t *list)
{
    for (size_t i = 0; i < o->entry.addresses_n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || addr_parse(slice_cstr(text), 0, &o->entry.addresses[i]) != OK)
            o->entry.addresses[i] = (struct addr){0}; /* objset_addresses() gives another */
    }
}

struct object *object_from_json(json_t *manifest, const struct object_origin *from, struct diags *d)
{
    struct arena a;
    arena_init(&a, MEM_MANIFEST, 16 << 10);
    struct from_json f = {.a = &a, .line = from->line, .column = from->column};
    struct ynode *doc = manifest ? tree_from_json(&f, manifest, 1) : NULL;
    struct reader r = {.file = from->file, .dir = from->dir, .default_ns = from->ns, .silent = true, .d = d};
    struct object *o = doc && doc->type == Y_MAP && !f.failed ? reader_object(&r, doc) : NULL;
    reader_fini(&r);
    arena_fini(&a);
    return o;
}

/* With what is in extra. NULL: it was not read, and d says why if it was the manifest's fault. */
static struct object *load_manifest(json_t *manifest, json_t *extra, struct diags *d)
{
    struct object_origin from = {.file = entry_text(extra, "file"), .dir = entry_text(extra, "dir"), .ns = entry_text(extra, "namespace"),
                                 .line = (uint32_t)entry_u64(extra, "line"), .column = (uint32_t)entry_u64(extra, "column")};
    struct object *o = object_from_json(manifest, &from, d);
    if (o) {
        const char *address = entry_text(extra, "address");
        o->created_ns = entry_u64(extra, "created_ns");
        o->generation = MAX(entry_u64(extra, "generation"), 1u);
        if (o->kind == OBJ_SERVICE && address[0] && addr_parse(slice_cstr(address), 0, &o->svc.address) != OK)
            o->svc.address = (struct addr){0}; /* objset_addresses() gives another */
        if (o->kind == OBJ_SERVICEENTRY)
            load_addresses(o, json_object_get(extra, "addresses"));
    }
    return o;
}

/* As it was given: without what meta_complete() and object_store() added. */
static void manifest_restore(json_t *m, json_t *extra)
{
    size_t i;
    json_t *key, *meta = json_object_get(m, "metadata"), *shadowed = json_object_get(extra, "shadowed");
    json_array_foreach (json_object_get(extra, "added"), i, key)
        if (json_is_string(key))
            json_object_del(meta, json_string_value(key));
    if (shadowed)
        json_object_set(m, EXTRA, shadowed);
    else
        json_object_del(m, EXTRA);
}

/* NULL, and in why what a diagnostic can't say. */
static struct object *load_stored(json_t *m, const struct keyring *keys, struct diags *d, struct buf *why)
{
    json_t *extra = json_incref(json_object_get(m, EXTRA));
    struct object *o = NULL;
    if (!json_is_object(extra))
        buf_adds(why, "it has no member " EXTRA);
    else if (!keys || unseal_object(keys, entry_text(extra, "namespace"), m, why) == OK) {
        manifest_restore(m, extra);
        o = load_manifest(m, extra, d);
    }
    json_decref(extra);
    return o;
}

const struct object *objset_find_stored(const struct objset *s, struct slice key)
{
    enum obj_kind k;
    struct slice ns, name;
    char text[640]; /* names have at most 253 characters */
    if (!object_key_parse(key, &k, &ns, &name) || ns.n + name.n + 2 > sizeof text)
        return NULL;
    memcpy(text, ns.p, ns.n);
    text[ns.n] = 0;
    memcpy(text + ns.n + 1, name.p, name.n);
    text[ns.n + 1 + name.n] = 0;
    return objset_find(s, k, text, text + ns.n + 1);
}

enum err objset_load_stored(struct objset *s, struct slice key, struct slice value, const struct keyring *keys, const char *remedy, struct diags *d)
{
    enum obj_kind k;
    struct slice ns, name;
    struct buf why = {0}, where = {0};
    size_t errors = d->errors;
    json_error_t je = {.text = ""};
    json_t *m = json_loadb(value.p ? value.p : "", value.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    struct object *o = m ? load_stored(m, keys, d, &why) : NULL;
    if (!m)
        buf_printf(&why, "it is no JSON: %s", je.text);
    if (o && (!object_key_parse(key, &k, &ns, &name) || k != o->kind || !slice_is(ns, o->ns) || !slice_is(name, o->name))) {
        buf_printf(&why, "it holds %s %s/%s", obj_kind_name(o->kind), o->ns, o->name);
        object_unref(o);
        o = NULL;
    }
    buf_add_slice(&where, key);
    static uint64_t serial;
    if (o) {
        o->serial = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
        objset_put(s, o);
    } else if (d->errors == errors)
        diags_add(d, DIAG_ERROR, where.p, 0, 0, "", remedy, "the stored object can't be read%s%s", why.n ? ": " : "", why.n ? why.p : "");
    buf_free(&where);
    buf_free(&why);
    json_decref(m);
    return o ? OK : ERR_INVALID;
}

/* One of the file, of either version. */
static enum err load_entry(struct objset *s, json_t *entry, bool plain, const struct keyring *keys, struct diags *d, struct buf *why)
{
    struct object *o = plain ? load_manifest(json_object_get(entry, "manifest"), entry, d) : load_stored(entry, keys, d, why);
    if (o)
        objset_put(s, o);
    return o ? OK : ERR_INVALID;
}

enum err objset_load(struct objset *s, const char *file, struct slice text, const struct keyring *keys, struct diags *d)
{
    static const char remedy[] = "move the file away and apply the manifests again";
    json_error_t e;
    json_t *root = text.n > STATE_BYTES_MAX ? NULL : json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!root) {
        if (text.n > STATE_BYTES_MAX)
            diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "the file has %zu bytes, and %u is the most", text.n, STATE_BYTES_MAX);
        else
            diags_add(d, DIAG_ERROR, file, (uint32_t)MAX(e.line, 0), (uint32_t)MAX(e.column, 0), "", remedy, "not JSON: %s", e.text);
        return ERR_SYNTAX;
    }
    enum err result = OK;
    json_t *objects = json_object_get(root, "objects");
    json_int_t version = json_integer_value(json_object_get(root, "version"));
    if ((version != STATE_VERSION && version != STATE_VERSION_PLAIN) || !json_is_array(objects)) {
        diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "not a set of objects of version %d or %d", STATE_VERSION_PLAIN, STATE_VERSION);
        result = ERR_INVALID;
    }
    for (size_t i = 0; result == OK && i < json_array_size(objects); i++) {
        struct buf why = {0};
        size_t errors = d->errors;
        result = load_entry(s, json_array_get(objects, i), version == STATE_VERSION_PLAIN, keys, d, &why);
        if (result != OK && d->errors == errors)
            diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "object %zu of the file cannot be read%s%s", i + 1, why.n ? ": " : "", why.n ? why.p : "");
        buf_free(&why);
    }
    json_decref(root);
    return result;
}
