/* objset.c - the set of objects: an array in the order of kind, namespace and name; and its file.
 *
 * Objects are immutable but for an address, a generation and a time, and are shared between copies of a set (struct
 * obj_box in plan_int.h), so copying a set costs a few hundred bytes per object. The file format is in README.md.
 */
#include "plan_int.h"

#include <jansson.h>

#define STATE_VERSION 1

/* ---- objects ------------------------------------------------------------------------------------------------------- */

struct object *object_new(enum obj_kind k)
{
    struct obj_box *box = mem_new(MEM_MANIFEST, sizeof *box);
    box->refs = 1;
    box->o.kind = k;
    box->o.generation = 1;
    box->o.created_ns = wall_ns();
    arena_init(&box->o.mem, MEM_MANIFEST, 512);
    return &box->o;
}

static struct obj_box *object_box(struct object *o) { return CONTAINER_OF(o, struct obj_box, o); }

void object_unref(struct object *o)
{
    struct obj_box *box = object_box(o);
    MUST(box->refs > 0);
    if (--box->refs)
        return;
    arena_fini(&o->mem);
    if (box->base)
        object_unref(&box->base->o);
    mem_free(box);
}

/* Addresses of a ServiceEntry's hosts are the box's own, as a Service's address is: never written in place. */
void entry_addresses_set(struct object *o, const struct addr *addresses)
{
    struct addr *own = arena_alloc(&o->mem, (o->entry.hosts_n + 1) * sizeof *own);
    memcpy(own, addresses, o->entry.hosts_n * sizeof *own);
    o->entry.addresses = own;
    o->entry.addresses_n = o->entry.hosts_n;
}

/* A new box with the same content. The memory stays with the first box, which lives as long as its copies. */
static struct object *object_copy(struct object *o)
{
    struct obj_box *from = object_box(o), *box = mem_new(MEM_MANIFEST, sizeof *box);
    box->o = *o;
    box->refs = 1;
    box->base = from->base ? from->base : from;
    box->base->refs++;
    arena_init(&box->o.mem, MEM_MANIFEST, 512);
    if (o->kind == OBJ_SERVICEENTRY)
        entry_addresses_set(&box->o, o->entry.addresses);
    return &box->o;
}

static int key_order(enum obj_kind k, const char *ns, const char *name, const struct object *o)
{
    if (k != o->kind)
        return k < o->kind ? -1 : 1;
    int c = strcmp(ns, o->ns);
    return c ? c : strcmp(name, o->name);
}

/* Where the object is, or where it would be inserted. */
static size_t objset_index(const struct objset *s, enum obj_kind k, const char *ns, const char *name, bool *found)
{
    size_t lo = 0, hi = s->n;
    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = key_order(k, ns, name, s->items[mid]);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* ---- the set --------------------------------------------------------------------------------------------------------- */

struct objset *objset_new(void) { return mem_new(MEM_MANIFEST, sizeof(struct objset)); }

static void objset_clear(struct objset *s)
{
    for (size_t i = 0; i < s->n; i++)
        object_unref(s->items[i]);
    mem_free(s->items);
    *s = (struct objset){0};
}

void objset_free(struct objset *s)
{
    if (!s)
        return;
    objset_clear(s);
    mem_free(s);
}

void objset_put(struct objset *s, struct object *o)
{
    bool found;
    size_t i = objset_index(s, o->kind, o->ns, o->name, &found);
    if (found) {
        object_unref(s->items[i]);
        s->items[i] = o;
        return;
    }
    ARRAY_GROW(MEM_MANIFEST, s->items, s->n, s->cap);
    memmove(s->items + i + 1, s->items + i, (s->n - i) * sizeof *s->items);
    s->items[i] = o;
    s->n++;
}

size_t objset_n(const struct objset *s) { return s->n; }

const struct object *objset_at(const struct objset *s, size_t i)
{
    MUST(i < s->n);
    return s->items[i];
}

const struct object *objset_find(const struct objset *s, enum obj_kind k, const char *ns, const char *name)
{
    bool found;
    size_t i = objset_index(s, k, ns, name, &found);
    return found ? s->items[i] : NULL;
}

size_t objset_first(const struct objset *s, enum obj_kind k, const char *ns)
{
    bool found;
    return objset_index(s, k, ns, "", &found); /* no object has the name "" */
}

/* Names of the API in grants are compared with case, as Kubernetes does. */
static bool grant_holds(const struct reference_grant *g, const struct object *from, enum obj_kind to, const char *name)
{
    bool from_ok = false, to_ok = false;
    for (size_t i = 0; i < g->from_n && !from_ok; i++)
        from_ok = strcmp(g->from[i].group, obj_kind_group(from->kind)) == 0 && strcmp(g->from[i].kind, obj_kind_word(from->kind)) == 0 &&
                  strcmp(g->from[i].ns, from->ns) == 0;
    for (size_t i = 0; from_ok && i < g->to_n && !to_ok; i++)
        to_ok = strcmp(g->to[i].group, obj_kind_group(to)) == 0 && strcmp(g->to[i].kind, obj_kind_word(to)) == 0 &&
                (!g->to[i].name || strcmp(g->to[i].name, name) == 0);
    return to_ok;
}

bool objset_granted(const struct objset *s, const struct object *from, enum obj_kind to, const char *ns, const char *name)
{
    if (strcmp(from->ns, ns) == 0)
        return true;
    for (size_t i = objset_first(s, OBJ_REFERENCEGRANT, ns); i < s->n; i++) {
        const struct object *o = s->items[i];
        if (o->kind != OBJ_REFERENCEGRANT || strcmp(o->ns, ns) != 0)
            return false;
        if (grant_holds(&o->grant, from, to, name))
            return true;
    }
    return false;
}

bool objset_remove(struct objset *s, enum obj_kind k, const char *ns, const char *name)
{
    bool found;
    size_t i = objset_index(s, k, ns, name, &found);
    if (!found)
        return false;
    object_unref(s->items[i]);
    s->n--;
    memmove(s->items + i, s->items + i + 1, (s->n - i) * sizeof *s->items);
    return true;
}

struct objset *objset_copy(const struct objset *s)
{
    struct objset *copy = objset_new();
    copy->items = mem_new(MEM_MANIFEST, (s->n + 1) * sizeof *copy->items);
    copy->cap = s->n + 1;
    for (size_t i = 0; i < s->n; i++)
        copy->items[copy->n++] = object_copy(s->items[i]);
    return copy;
}

/* A host that was in old keeps its address. */
static void entry_inherit(struct object *o, const struct object *old)
{
    for (size_t i = 0; i < o->entry.hosts_n; i++)
        for (size_t k = 0; k < old->entry.hosts_n; k++)
            if (o->entry.addresses[i].family == ADDR_NONE && strcmp(o->entry.hosts[i], old->entry.hosts[k]) == 0)
                o->entry.addresses[i] = old->entry.addresses[k]; /* o is new: nobody shares it yet */
}

/* What an object keeps from the one it replaces. */
static void object_inherit(struct object *o, const struct object *old)
{
    bool same = o->hash == old->hash && strcmp(o->dir, old->dir) == 0;
    o->created_ns = old->created_ns;
    o->generation = old->generation + !same;
    if (o->kind == OBJ_SERVICE && o->svc.address.family == ADDR_NONE)
        o->svc.address = old->svc.address;
    if (o->kind == OBJ_SERVICEENTRY)
        entry_inherit(o, old);
}

void objset_merge(struct objset *into, struct objset *from)
{
    for (size_t i = 0; i < from->n; i++) {
        struct object *o = from->items[i];
        const struct object *old = objset_find(into, o->kind, o->ns, o->name);
        if (old)
            object_inherit(o, old);
        objset_put(into, o);
    }
    from->n = 0;
    objset_clear(from);
}

/* ---- the file: writing ------------------------------------------------------------------------------------------------- */

static void save_text(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    buf_add_json(out, slice_cstr(value));
}

static void save_addresses(const struct object *o, struct buf *out)
{
    char address[ADDR_TEXT_MAX];
    buf_adds(out, ",\"addresses\":[");
    for (size_t i = 0; i < o->entry.addresses_n; i++) {
        bool given = o->entry.addresses[i].family != ADDR_NONE;
        if (given)
            addr_format_ip(&o->entry.addresses[i], address);
        buf_printf(out, "%s\"%s\"", i ? "," : "", given ? address : "");
    }
    buf_addc(out, ']');
}

static void save_object(const struct object *o, struct buf *out)
{
    char address[ADDR_TEXT_MAX];
    buf_adds(out, "{\"kind\":");
    buf_add_json(out, slice_cstr(obj_kind_name(o->kind)));
    save_text(out, "namespace", o->ns);
    save_text(out, "name", o->name);
    save_text(out, "file", o->file);
    buf_printf(out, ",\"line\":%u,\"column\":%u", o->line, o->column);
    save_text(out, "dir", o->dir);
    buf_printf(out, ",\"created_ns\":%llu,\"generation\":%llu", (unsigned long long)o->created_ns, (unsigned long long)o->generation);
    if (o->kind == OBJ_SERVICE && o->svc.address.family != ADDR_NONE) {
        addr_format_ip(&o->svc.address, address);
        save_text(out, "address", address);
    }
    if (o->kind == OBJ_SERVICEENTRY)
        save_addresses(o, out);
    buf_printf(out, ",\"manifest\":%s}", o->json);
}

void objset_save(const struct objset *s, struct buf *out)
{
    buf_printf(out, "{\"version\":%d,\"objects\":[", STATE_VERSION);
    for (size_t i = 0; i < s->n; i++) {
        buf_adds(out, i ? ",\n" : "\n");
        save_object(s->items[i], out);
    }
    buf_adds(out, "\n]}\n");
}

/* ---- the file: reading --------------------------------------------------------------------------------------------------- */

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

static enum err load_entry(struct objset *s, json_t *entry, struct diags *d)
{
    struct arena a;
    arena_init(&a, MEM_MANIFEST, 16 << 10);
    struct from_json f = {.a = &a, .line = (uint32_t)entry_u64(entry, "line"), .column = (uint32_t)entry_u64(entry, "column")};
    json_t *manifest = json_object_get(entry, "manifest");
    struct ynode *doc = manifest ? tree_from_json(&f, manifest, 1) : NULL;
    struct reader r = {
        .file = entry_text(entry, "file"), .dir = entry_text(entry, "dir"), .default_ns = entry_text(entry, "namespace"), .silent = true, .d = d};
    struct object *o = doc && doc->type == Y_MAP && !f.failed ? reader_object(&r, doc) : NULL;
    if (o) {
        const char *address = entry_text(entry, "address");
        o->created_ns = entry_u64(entry, "created_ns");
        o->generation = MAX(entry_u64(entry, "generation"), 1u);
        if (o->kind == OBJ_SERVICE && address[0] && addr_parse(slice_cstr(address), 0, &o->svc.address) != OK)
            o->svc.address = (struct addr){0}; /* objset_addresses() gives another */
        if (o->kind == OBJ_SERVICEENTRY)
            load_addresses(o, json_object_get(entry, "addresses"));
        objset_put(s, o);
    }
    reader_fini(&r);
    arena_fini(&a);
    return o ? OK : ERR_INVALID;
}

enum err objset_load(struct objset *s, const char *file, struct slice text, struct diags *d)
{
    static const char remedy[] = "move the file away and apply the manifests again";
    json_error_t e;
    json_t *root = text.n > STATE_BYTES_MAX ? NULL : json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &e);
    if (!root) {
        if (text.n > STATE_BYTES_MAX)
            diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "the file has %zu bytes, and %u is the most", text.n, STATE_BYTES_MAX);
        else
            diags_add(d, DIAG_ERROR, file, (uint32_t)MAX(e.line, 0), (uint32_t)MAX(e.column, 0), "", remedy, "not JSON: %s", e.text);
        return ERR_SYNTAX;
    }
    enum err result = OK;
    json_t *objects = json_object_get(root, "objects");
    if (json_integer_value(json_object_get(root, "version")) != STATE_VERSION || !json_is_array(objects)) {
        diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "not a set of objects of version %d", STATE_VERSION);
        result = ERR_INVALID;
    }
    for (size_t i = 0; result == OK && i < json_array_size(objects); i++) {
        size_t errors = d->errors;
        result = load_entry(s, json_array_get(objects, i), d);
        if (result != OK && d->errors == errors)
            diags_add(d, DIAG_ERROR, file, 0, 0, "", remedy, "object %zu of the file cannot be read", i + 1);
    }
    json_decref(root);
    return result;
}
