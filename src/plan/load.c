/* load.c - from checked trees to typed objects: the helpers, and the small kinds (Service, ConfigMap, Secret).
 *
 * Loaders run after walk_map(), also on trees it found errors in, so that all errors come at once: a value of the wrong type
 * reads as absent, and only what spans several fields is reported here. What they fill lives in the object's own arena.
 */
#include "plan_int.h"
#include "route_int.h"

/* ---- helpers ------------------------------------------------------------------------------------------------------- */

char *load_str(struct object *o, const struct ynode *map, const char *key)
{
    const struct ynode *n = y_get(map, key);
    return y_is_str(n) ? (char *)arena_slice(&o->mem, n->text).p : NULL;
}

int64_t load_int(const struct ynode *map, const char *key, int64_t def, int64_t max)
{
    const struct ynode *n = y_get(map, key);
    return n && n->type == Y_INT && n->num >= 0 && n->num <= max ? n->num : def;
}

bool load_bool(const struct ynode *map, const char *key, bool def)
{
    const struct ynode *n = y_get(map, key);
    return n && n->type == Y_BOOL ? n->flag : def;
}

/* Lists that are not there are most of them: they are all the same one, which has no members. */
void *load_array(struct object *o, size_t n, size_t size)
{
    static const uint64_t none[128];
    MUST(size <= sizeof none);
    return n ? arena_zalloc(&o->mem, n * size) : (void *)(uintptr_t)none;
}

uint32_t load_list_n(const struct ynode *map, const char *key)
{
    const struct ynode *n = y_get(map, key);
    return n && n->type == Y_LIST ? n->n : 0;
}

void load_kvs(struct object *o, const struct ynode *map, struct kvs *out)
{
    *out = (struct kvs){0};
    if (!map || map->type != Y_MAP)
        return;
    out->items = load_array(o, map->n, sizeof *out->items);
    for (uint32_t i = 0; i < map->n; i++) {
        struct slice key = arena_slice(&o->mem, map->pairs[i].key), value = arena_slice(&o->mem, y_str(map->pairs[i].value));
        out->items[out->n++] = (struct kv){.key = (char *)key.p, .value = (char *)value.p, .value_n = value.n};
    }
}

char **load_strings(struct object *o, const struct ynode *map, const char *key, size_t *n)
{
    const struct ynode *list = y_get(map, key);
    *n = 0;
    if (!list || list->type != Y_LIST)
        return NULL;
    char **out = load_array(o, list->n + 1, sizeof *out);
    for (uint32_t i = 0; i < list->n; i++)
        out[(*n)++] = (char *)arena_slice(&o->mem, y_str(list->items[i])).p;
    return out;
}

uint32_t load_duration(const struct ynode *map, const char *key)
{
    uint32_t ms;
    const struct ynode *n = y_get(map, key);
    return y_is_str(n) && value_duration_ms(n->text, &ms) == OK ? ms : 0;
}

uint32_t load_go_duration(const struct ynode *map, const char *key, uint32_t def)
{
    uint32_t ms;
    const struct ynode *n = y_get(map, key);
    return y_is_str(n) && value_go_duration_ms(n->text, &ms) == OK ? ms : def;
}

double load_real(const struct ynode *map, const char *key, double def)
{
    const struct ynode *n = y_get(map, key);
    return !n ? def : n->type == Y_INT ? (double)n->num : n->type == Y_FLOAT ? n->real : def;
}

uint32_t load_ppm(const struct ynode *map, const char *key, uint32_t def)
{
    double v = load_real(map, key, -1);
    return v >= 0 && v <= 100 ? (uint32_t)(v * 10000 + 0.5) : def;
}

bool load_is(const struct ynode *map, const char *key, const char *value) { return slice_is(y_str(y_get(map, key)), value); }

char *load_joined(struct object *o, const struct ynode *map, const char *key)
{
    const struct ynode *list = y_get(map, key);
    struct buf b = {0};
    for (uint32_t i = 0; i < load_list_n(map, key); i++) {
        buf_adds(&b, i ? ", " : "");
        buf_add_slice(&b, y_str(list->items[i]));
    }
    char *text = b.n ? arena_strdup(&o->mem, b.p) : NULL;
    buf_free(&b);
    return text;
}

struct secret_ref load_secret_ref(struct object *o, const struct ynode *ref)
{
    struct secret_ref s = {.ns = load_str(o, ref, "namespace"), .name = load_str(o, ref, "name")};
    if (!s.ns)
        s.ns = o->ns;
    return s;
}

struct secret_ref *load_secret_refs(struct object *o, const struct ynode *map, const char *key, size_t *n)
{
    const struct ynode *list = y_get(map, key);
    *n = load_list_n(map, key);
    struct secret_ref *refs = load_array(o, *n, sizeof *refs);
    for (size_t i = 0; i < *n; i++)
        refs[i] = load_secret_ref(o, list->items[i]);
    return refs;
}

const char *load_one_of(struct reader *r, const struct ynode *n, const char *const *keys)
{
    const char *found = NULL;
    size_t count = 0;
    struct buf list = {0};
    for (const char *const *key = keys; *key; key++) {
        buf_printf(&list, "%s%s", list.n ? ", " : "", *key);
        if (y_get(n, *key)) {
            found = *key;
            count++;
        }
    }
    if (count != 1)
        reader_error(r, n, "", "give exactly one", "%s of %s", count ? "more than one" : "none", list.p);
    buf_free(&list);
    return count == 1 ? found : NULL;
}

/* Compiled once more with the plan; here only to say at once where it is wrong. */
void load_check_regex(struct reader *r, const struct ynode *n, const char *path, const char *regex)
{
    struct buf why = {0};
    if (!n || !regex)
        return;
    struct plan_regex *made = regex_new(slice_cstr(regex), false, &why);
    if (!made)
        reader_error(r, n, path, "correct the expression", "not a regular expression: %s", why.p);
    regex_unref(made);
    buf_free(&why);
}

const struct kv *kvs_get(const struct kvs *m, struct slice key)
{
    for (size_t i = 0; i < m->n; i++)
        if (slice_is(key, m->items[i].key))
            return &m->items[i];
    return NULL;
}

bool kvs_match(const struct kvs *want, const struct kvs *have)
{
    for (size_t i = 0; i < want->n; i++) {
        const struct kv *kv = kvs_get(have, slice_cstr(want->items[i].key));
        if (!kv || strcmp(kv->value, want->items[i].value) != 0)
            return false;
    }
    return true;
}

/* ---- ConfigMap, Secret ------------------------------------------------------------------------------------------------ */

/* Decoded (or not) pairs of map, added to data; replace: an earlier pair of the same key goes. */
static void data_add(struct reader *r, struct object *o, const struct ynode *map, const char *path, bool base64, bool replace)
{
    for (uint32_t i = 0; map && map->type == Y_MAP && i < map->n; i++) {
        const struct ypair *p = &map->pairs[i];
        struct buf decoded = {0};
        struct slice v = y_str(p->value);
        if (base64) {
            enum err e = value_base64(v, &decoded); /* malformed: reported by the walk */
            v = e == OK ? slice_of(decoded.p, decoded.n) : SLICE("");
        }
        struct slice copy = arena_slice(&o->mem, v);
        struct kv *before = (struct kv *)kvs_get(&o->data, p->key);
        if (before && !replace) {
            size_t mark = reader_push(r, "%s", path);
            reader_error_at(r, p->line, p->column, "keep one of them", "the key " SLICE_FMT " is in data as well", SLICE_ARG(p->key));
            reader_pop(r, mark);
        } else {
            struct kv *kv = before ? before : &o->data.items[o->data.n++];
            *kv = (struct kv){.key = (char *)arena_slice(&o->mem, p->key).p, .value = (char *)copy.p, .value_n = copy.n};
        }
        buf_free(&decoded);
    }
}

void load_data(struct reader *r, struct object *o, const struct ynode *doc)
{
    static const char *const sources[][3] = {{"data", "binaryData", NULL}, {"data", "stringData", NULL}};
    bool secret = o->kind == OBJ_SECRET;
    size_t n = 0;
    for (const char *const *key = sources[secret]; *key; key++) {
        const struct ynode *map = y_get(doc, *key);
        n += map && map->type == Y_MAP ? map->n : 0;
    }
    o->immutable = load_bool(doc, "immutable", false);
    o->data.items = load_array(o, n, sizeof *o->data.items);
    data_add(r, o, y_get(doc, "data"), "data", secret, false);
    data_add(r, o, y_get(doc, sources[secret][1]), sources[secret][1], !secret, secret);
}

/* ---- Service ---------------------------------------------------------------------------------------------------------- */

static void load_service_port(struct object *o, const struct ynode *n, struct service_port *p)
{
    p->name = load_str(o, n, "name");
    if (!p->name)
        p->name = arena_strdup(&o->mem, "");
    p->port = (uint16_t)load_int(n, "port", 0, 65535);
    p->target_name = load_str(o, n, "targetPort");
    p->target = p->target_name ? 0 : (uint16_t)load_int(n, "targetPort", p->port, 65535);
    p->app_protocol = load_str(o, n, "appProtocol");
}

static void load_service_ports(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "ports");
    o->svc.ports_n = load_list_n(spec, "ports");
    o->svc.ports = load_array(o, o->svc.ports_n, sizeof *o->svc.ports);
    for (uint32_t i = 0; i < o->svc.ports_n; i++) {
        const struct ynode *n = list->items[i];
        struct service_port *p = &o->svc.ports[i];
        load_service_port(o, n, p);
        size_t mark = reader_push(r, "spec.ports[%u]", i);
        if (o->svc.ports_n > 1 && n->type == Y_MAP && !y_get(n, "name"))
            reader_error(r, n, ".name", "name each port", "missing, where there are several ports");
        for (uint32_t k = 0; k < i && p->port; k++)
            if (o->svc.ports[k].port == p->port)
                reader_error(r, n, ".port", "give each its own", "the port %u is given twice: first at line %u", p->port, list->items[k]->line);
        reader_pop(r, mark);
    }
}

/* Also clusterIPs: [None]. */
static bool is_headless(const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "clusterIPs");
    bool listed = list && list->type == Y_LIST && list->n && slice_is(y_str(list->items[0]), "None");
    return listed || slice_is(y_str(y_get(spec, "clusterIP")), "None");
}

void load_service(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    if (!spec || spec->type != Y_MAP)
        return;
    bool external = slice_is(y_str(y_get(spec, "type")), "ExternalName");
    load_kvs(o, y_get(spec, "selector"), &o->svc.selector);
    load_service_ports(r, o, spec);
    o->svc.headless = !external && is_headless(spec);
    if (external)
        o->svc.external_name = load_str(o, spec, "externalName");
    if (external && !y_get(spec, "externalName"))
        reader_error(r, spec, "spec.externalName", "add it", "missing, with type ExternalName");
    if (!external && y_get(spec, "externalName"))
        reader_error(r, y_get(spec, "externalName"), "spec.externalName", "add type: ExternalName, or remove it", "has no meaning without type ExternalName");
    if (!external && !o->svc.selector.n)
        reader_warn(r, spec, "spec.selector", "add the labels of the workload's template, unless that is what is meant",
                    "missing: only what registers itself in the control store, below /services/%s/%s/, is called", o->ns, o->name);
    bool bare = !o->svc.ports_n && (!y_get(spec, "ports") || y_get(spec, "ports")->type == Y_LIST);
    if (bare && external)
        reader_warn(r, spec, "spec.ports", "list the ports that callers use", "missing: it is a name, and what can be called is only the ports that routes to it give");
    else if (bare)
        reader_error(r, spec, "spec.ports", "list the ports that callers use", "missing: nothing can be called");
}
