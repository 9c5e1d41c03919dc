/* config.c - ConfigMaps and Secrets as files, what a change of them restarts, and which of them may not change.
 *
 * Files follow their objects while processes run (run/volumes.c writes them); variables of the environment can't, so a workload is restarted when it
 * asks for that, and when it has a Secret in its environment. Which it is, is a hash over all that counts: run compares it with that of the last
 * start (run/config.c).
 */
#include "plan_int.h"

#include <jansson.h>

static const struct object *map_find(const struct objset *s, const char *ns, bool secret, const char *name)
{
    return name ? objset_find(s, secret ? OBJ_SECRET : OBJ_CONFIGMAP, ns, name) : NULL;
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------- */

static void volume_error(const struct object *dep, const struct volume *v, struct diags *d, const char *fmt, ...) PRINTF_LIKE(4, 5);
static void volume_error(const struct object *dep, const struct volume *v, struct diags *d, const char *fmt, ...)
{
    struct buf where = {0}, reason = {0};
    buf_printf(&where, "Deployment/%s/%s spec.template.spec.volumes %s", dep->ns, dep->name, v->name);
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&reason, fmt, ap);
    va_end(ap);
    diags_add(d, DIAG_ERROR, dep->file, dep->line, dep->column, where.p, "add it, or set optional: true", "%s", reason.p);
    buf_free(&where);
    buf_free(&reason);
}

static size_t source_files(const struct object *dep, const struct volume *v, const struct volume_source *from, const struct object *map, struct volume_file *out, struct diags *d)
{
    size_t n = 0;
    for (size_t i = 0; i < (from->items_n ? from->items_n : map->data.n); i++) {
        const struct volume_item *it = from->items_n ? &from->items[i] : NULL;
        const struct kv *kv = it ? kvs_get(&map->data, slice_cstr(it->key)) : &map->data.items[i];
        if (kv)
            out[n++] = (struct volume_file){.path = it ? it->path : kv->key, .bytes = slice_of(kv->value, kv->value_n), .mode = it && it->mode >= 0 ? (uint32_t)it->mode : v->mode};
        else if (!from->optional)
            volume_error(dep, v, d, "the %s %s has no key %s", from->secret ? "Secret" : "ConfigMap", map->name, it->key);
    }
    return n;
}

struct volume_file *objset_volume(const struct objset *s, const struct object *dep, const struct volume *v, struct arena *a, size_t *n, struct diags *d)
{
    size_t room = 1;
    for (size_t i = 0; i < v->sources_n; i++) {
        const struct object *map = map_find(s, dep->ns, v->sources[i].secret, v->sources[i].map);
        room += v->sources[i].items_n + (map ? map->data.n : 0);
    }
    struct volume_file *files = arena_alloc(a, room * sizeof *files);
    *n = 0;
    for (size_t i = 0; i < v->sources_n; i++) {
        const struct volume_source *from = &v->sources[i];
        const struct object *map = map_find(s, dep->ns, from->secret, from->map);
        if (map)
            *n += source_files(dep, v, from, map, files + *n, d);
        else if (!from->optional)
            volume_error(dep, v, d, "there is no %s %s in the namespace %s", from->secret ? "Secret" : "ConfigMap", from->map, dep->ns);
    }
    return files;
}

/* ---- what restarts --------------------------------------------------------------------------------------------------------------- */

static const char *annotation(const struct object *dep, const char *name)
{
    const struct kv *kv = kvs_get(&dep->annotations, slice_cstr(name));
    if (!kv)
        kv = kvs_get(&dep->dep.pod.annotations, slice_cstr(name));
    return kv ? kv->value : NULL;
}

/* One of those that count. */
static void hash_map(uint64_t *h, const struct objset *s, const char *ns, bool secret, const char *name, const char *only_key)
{
    const struct object *map = map_find(s, ns, secret, name);
    if (!*h)
        *h = STABLE_HASH_INIT;
    *h = stable_hash64(*h, slice_cstr(secret ? "\nsecret " : "\nconfigmap "));
    *h = stable_hash64(*h, slice_cstr(name));
    for (size_t i = 0; map && i < map->data.n; i++) {
        const struct kv *kv = &map->data.items[i];
        if (only_key && strcmp(kv->key, only_key) != 0)
            continue;
        const uint64_t sizes[2] = {strlen(kv->key), kv->value_n}; /* so that no two contents read the same */
        *h = stable_hash64(*h, slice_of((const char *)sizes, sizeof sizes));
        *h = stable_hash64(*h, slice_cstr(kv->key));
        *h = stable_hash64(*h, slice_of(kv->value, kv->value_n));
    }
}

static void hash_named(uint64_t *h, const struct objset *s, const struct object *dep, bool secret, const char *names)
{
    struct slice rest = slice_cstr(names);
    while (rest.n) {
        struct slice name = slice_trim(slice_cut(rest, ',', &rest));
        char *text = mem_strndup(MEM_MANIFEST, name.p, name.n);
        if (name.n)
            hash_map(h, s, dep->ns, secret, text, NULL);
        mem_free(text);
    }
}

uint64_t objset_config_hash(const struct objset *s, const struct object *dep)
{
    const struct pod_template *pod = &dep->dep.pod;
    const char *own = annotation(dep, "weir.dev/restart-on-config"), *customary = annotation(dep, "reloader.stakater.com/auto");
    const char *said = own ? own : customary;
    bool all = said && strcmp(said, "true") == 0, secrets = all || !said || strcmp(said, "false") != 0;
    uint64_t h = 0;
    for (size_t i = 0; i < pod->env_n; i++)
        if (pod->env[i].map && (all || (secrets && pod->env[i].secret)))
            hash_map(&h, s, dep->ns, pod->env[i].secret, pod->env[i].map, pod->env[i].map_key);
    for (size_t i = 0; i < pod->env_from_n; i++)
        if (pod->env_from[i].map && (all || (secrets && pod->env_from[i].secret)))
            hash_map(&h, s, dep->ns, pod->env_from[i].secret, pod->env_from[i].map, NULL);
    for (size_t i = 0; all && i < pod->volumes_n; i++)
        for (size_t k = 0; k < pod->volumes[i].sources_n; k++)
            if (pod->volumes[i].sources[k].map)
                hash_map(&h, s, dep->ns, pod->volumes[i].sources[k].secret, pod->volumes[i].sources[k].map, NULL);
    const char *maps = annotation(dep, "configmap.reloader.stakater.com/reload"), *keys = annotation(dep, "secret.reloader.stakater.com/reload");
    if (maps)
        hash_named(&h, s, dep, false, maps);
    if (keys)
        hash_named(&h, s, dep, true, keys);
    return h;
}

/* ---- what may not change --------------------------------------------------------------------------------------------------------- */

static bool value_same(const struct kv *a, const struct kv *b) { return a && b && a->value_n == b->value_n && memcmp(a->value, b->value, a->value_n) == 0; }

/* The field has the same keys in both objects, with the same values, however these are written. */
static bool field_same(const struct object *a, const struct object *b, const char *field)
{
    json_t *x = json_loads(a->json, JSON_ALLOW_NUL, NULL), *y = json_loads(b->json, JSON_ALLOW_NUL, NULL);
    json_t *is = json_object_get(x, field), *was = json_object_get(y, field), *value;
    const char *key;
    bool same = json_object_size(is) == json_object_size(was);
    json_object_foreach(is, key, value)
        same = same && json_object_get(was, key) && value_same(kvs_get(&a->data, slice_cstr(key)), kvs_get(&b->data, slice_cstr(key)));
    json_decref(x);
    json_decref(y);
    return same;
}

static void immutable_error(const struct object *o, const char *field, struct diags *d)
{
    struct buf where = {0}, remedy = {0};
    const char *kind = obj_kind_name(o->kind);
    buf_printf(&where, "%s/%s/%s %s", kind, o->ns, o->name, field);
    buf_printf(&remedy, "make another %s and refer to that one, or delete this one first", kind);
    diags_add(d, DIAG_ERROR, o->file, o->line, o->column, where.p, remedy.p, "can't be changed, because the %s is immutable", kind);
    buf_free(&where);
    buf_free(&remedy);
}

void objset_check_immutable(const struct objset *now, const struct objset *given, struct diags *d)
{
    static const char *const kept[] = {"data", "binaryData"};
    for (size_t i = 0; i < objset_n(given); i++) {
        const struct object *o = objset_at(given, i);
        const struct object *was = o->kind == OBJ_CONFIGMAP || o->kind == OBJ_SECRET ? objset_find(now, o->kind, o->ns, o->name) : NULL;
        if (!was || !was->immutable)
            continue;
        for (size_t k = 0; k < COUNT_OF(kept); k++)
            if (!field_same(o, was, kept[k]))
                immutable_error(o, kept[k], d);
        if (!o->immutable)
            immutable_error(o, "immutable", d);
    }
}
