/* read.c - from the text of a file to objects in a set.
 *
 *     text --yaml.c--> trees --> kind? --walk.c--> checked --load*.c--> typed object --> set
 *
 * Everything goes on after an error, so that one run reports all of them. An object with errors is not put into the set.
 */
#include "plan_int.h"

#include <stdlib.h>

#define GATEWAY_GROUP "gateway.networking.k8s.io"
#define ISTIO_GROUP "networking.istio.io"

/* ---- kinds --------------------------------------------------------------------------------------------------------- */

/* How people name a kind. Words are compared without case; a plural is the name with s, or listed. Where two kinds have the same
 * name (Gateway), the name shown has the group behind it for the second, and without a group the first is meant. */
static const struct kind_names {
    const char *shown, *name, *group, *words; /* words: separated by spaces */
} kind_names[OBJ_KIND_COUNT] = {
    [OBJ_NAMESPACE] = {"Namespace", "Namespace", "", "ns"},
    [OBJ_CONFIGMAP] = {"ConfigMap", "ConfigMap", "", "cm"},
    [OBJ_SECRET] = {"Secret", "Secret", "", ""},
    [OBJ_SERVICE] = {"Service", "Service", "", "svc"},
    [OBJ_DEPLOYMENT] = {"Deployment", "Deployment", "apps", "deploy workload workloads"},
    [OBJ_GATEWAY] = {"Gateway", "Gateway", GATEWAY_GROUP, "gtw gw"},
    [OBJ_HTTPROUTE] = {"HTTPRoute", "HTTPRoute", GATEWAY_GROUP, "route routes"},
    [OBJ_GRPCROUTE] = {"GRPCRoute", "GRPCRoute", GATEWAY_GROUP, ""},
    [OBJ_TCPROUTE] = {"TCPRoute", "TCPRoute", GATEWAY_GROUP, ""},
    [OBJ_TLSROUTE] = {"TLSRoute", "TLSRoute", GATEWAY_GROUP, ""},
    [OBJ_REFERENCEGRANT] = {"ReferenceGrant", "ReferenceGrant", GATEWAY_GROUP, "refgrant"},
    [OBJ_BACKENDTLSPOLICY] = {"BackendTLSPolicy", "BackendTLSPolicy", GATEWAY_GROUP, "btlspolicy backendtlspolicies"},
    [OBJ_VIRTUALSERVICE] = {"VirtualService", "VirtualService", ISTIO_GROUP, "vs"},
    [OBJ_DESTINATIONRULE] = {"DestinationRule", "DestinationRule", ISTIO_GROUP, "dr"},
    [OBJ_ISTIO_GATEWAY] = {"Gateway." ISTIO_GROUP, "Gateway", ISTIO_GROUP, "gw"},
    [OBJ_SERVICEENTRY] = {"ServiceEntry", "ServiceEntry", ISTIO_GROUP, "se serviceentries"},
    [OBJ_SIDECAR] = {"Sidecar", "Sidecar", ISTIO_GROUP, ""},
    [OBJ_PEERAUTHENTICATION] = {"PeerAuthentication", "PeerAuthentication", "security.istio.io", "pa"},
    [OBJ_TRAFFICSPLIT] = {"TrafficSplit", "TrafficSplit", "split.smi-spec.io", "ts"},
    [OBJ_HTTPFILTER] = {"HTTPFilter", "HTTPFilter", "weir.dev", ""},
    [OBJ_BACKENDPOLICY] = {"BackendPolicy", "BackendPolicy", "weir.dev", "backendpolicies"},
    [OBJ_TOPIC] = {"Topic", "Topic", "weir.dev", ""},
    [OBJ_KEYSPACE] = {"Keyspace", "Keyspace", "weir.dev", ""},
    [OBJ_KAFKATOPIC] = {"KafkaTopic", "KafkaTopic", "kafka.strimzi.io", "kt"},
};

const char *obj_kind_name(enum obj_kind k)
{
    MUST(k < OBJ_KIND_COUNT);
    return kind_names[k].shown;
}

const char *obj_kind_group(enum obj_kind k) { return kind_names[k].group; }
const char *obj_kind_word(enum obj_kind k) { return kind_names[k].name; }

static bool kind_has_word(const struct kind_names *k, struct slice s)
{
    struct slice name = slice_cstr(k->name), words = slice_cstr(k->words);
    bool plural = s.n == name.n + 1 && ascii_lower(s.p[name.n]) == 's';
    if (slice_ieq(slice_of(s.p, plural ? name.n : s.n), name))
        return true;
    while (words.n && s.n)
        if (slice_ieq(slice_cut(words, ' ', &words), s))
            return true;
    return false;
}

/* Also with a group, or a version and a group, as kubectl writes it: deployments.apps, deployments.v1.apps. */
bool obj_kind_parse(struct slice s, enum obj_kind *out)
{
    struct slice group, rest;
    s = slice_cut(s, '.', &group);
    if (group.n > 1 && group.p[0] == 'v' && group.p[1] >= '0' && group.p[1] <= '9') {
        (void)slice_cut(group, '.', &rest);
        group = rest;
    }
    for (int k = 0; k < OBJ_KIND_COUNT; k++)
        if (kind_has_word(&kind_names[k], s) && (!group.n || slice_ieq(group, slice_cstr(kind_names[k].group)))) {
            *out = (enum obj_kind)k;
            return true;
        }
    return false;
}

uint64_t stable_hash64(uint64_t h, struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3u;
    return h;
}

/* ---- one object ------------------------------------------------------------------------------------------------------- */

static void reader_set_where(struct reader *r, const char *text)
{
    buf_clear(&r->where);
    buf_adds(&r->where, text);
    r->where_base = r->where.n;
}

/* The first word and the place of the object: "Deployment/default/catalog ". */
static void reader_begin(struct reader *r, struct slice kind, struct slice ns, struct slice name)
{
    struct buf b = {0};
    if (ns.n)
        buf_printf(&b, "%.*s/%.*s/%.*s ", (int)MIN(kind.n, 63), kind.p, (int)MIN(ns.n, 63), ns.p, (int)MIN(name.n, 253), name.p);
    else
        buf_printf(&b, "%.*s/%.*s ", (int)MIN(kind.n, 63), kind.p, (int)MIN(name.n, 253), name.p);
    reader_set_where(r, b.p);
    buf_free(&b);
}

/* A kind that is not read: why, as well as can be said. */
static void unknown_kind(struct reader *r, const struct ynode *doc, struct slice version, struct slice kind)
{
    struct slice group_version = version, rest;
    struct slice group = slice_find(version, '/') < 0 ? SLICE("") : slice_cut(group_version, '/', &rest);
    const struct ynode *at = y_get(doc, "kind");
    const struct not_built_row *row = not_built_find(group, kind);
    const char *known = kind_api_versions(kind);
    struct buf remedy = {0};
    if (row && row->status == ST_REFUSED) {
        reader_error(r, at, "", "", "refused: %s", row->note);
    } else if (row) {
        reader_warn(r, at, "", "", "%s", row->note);
    } else if (known) {
        buf_printf(&remedy, "write apiVersion: %s", known);
        reader_error(r, y_get(doc, "apiVersion"), "apiVersion", remedy.p, "%.*s has no kind %.*s known here", (int)MIN(version.n, 100), version.p,
                     SLICE_ARG(kind));
    } else {
        reader_warn(r, at, "", "remove it, or correct the spelling", "ignored: the kind %.*s of %.*s is not known here", (int)MIN(kind.n, 100), kind.p,
                    (int)MIN(version.n, 100), version.p);
    }
    buf_free(&remedy);
    if (r->seen_field)
        r->seen_field(r->ctx, at->line, "kind", row ? field_status_name(row->status) : "unknown", row ? row->note : "the kind is not known here");
}

static void check_name(struct reader *r, const struct kind_row *row, const struct ynode *doc)
{
    const struct ynode *name = y_path(doc, "metadata.name"), *ns = y_path(doc, "metadata.namespace");
    if (name && !y_is_str(name))
        reader_error(r, name, "metadata.name", "put it in quotes, and begin it with a letter", "must be a string");
    else if (name && row->obj == OBJ_SERVICE && !value_is_label1035(name->text))
        reader_error(r, name, "metadata.name", "give at most 63 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'",
                     "not a host name: \"%.*s\"", (int)MIN(name->text.n, 100), name->text.p);
    else if (name && (row->name_type == FT_LABEL ? !value_is_label(name->text) : !value_is_subdomain(name->text)))
        reader_error(r, name, "metadata.name", field_type_text(row->name_type), "not a valid name: \"%.*s\"", (int)MIN(name->text.n, 100), name->text.p);
    if (ns && !row->namespaced)
        reader_error(r, ns, "metadata.namespace", "remove it", "a %s is in no namespace", row->kind);
}

static void load_kind(struct reader *r, struct object *o, const struct ynode *doc)
{
    switch (o->kind) {
    case OBJ_CONFIGMAP:
    case OBJ_SECRET: load_data(r, o, doc); break;
    case OBJ_SERVICE: load_service(r, o, doc); break;
    case OBJ_DEPLOYMENT: load_deployment(r, o, doc); break;
    case OBJ_GATEWAY: load_gateway(r, o, doc); break;
    case OBJ_HTTPROUTE:
    case OBJ_GRPCROUTE: load_http_route(r, o, doc); break;
    case OBJ_TCPROUTE:
    case OBJ_TLSROUTE: load_stream_route(r, o, doc); break;
    case OBJ_REFERENCEGRANT: load_reference_grant(r, o, doc); break;
    case OBJ_BACKENDTLSPOLICY: load_backend_tls(r, o, doc); break;
    case OBJ_VIRTUALSERVICE: load_virtual_service(r, o, doc); break;
    case OBJ_DESTINATIONRULE: load_destination_rule(r, o, doc); break;
    case OBJ_ISTIO_GATEWAY: load_istio_gateway(r, o, doc); break;
    case OBJ_SERVICEENTRY: load_service_entry(r, o, doc); break;
    case OBJ_TRAFFICSPLIT: load_traffic_split(r, o, doc); break;
    case OBJ_HTTPFILTER: load_http_filter(r, o, doc); break;
    case OBJ_BACKENDPOLICY: load_backend_policy(r, o, doc); break;
    case OBJ_TOPIC:
    case OBJ_KAFKATOPIC: load_topic(r, o, doc); break;
    case OBJ_KEYSPACE: load_keyspace(r, o, doc); break;
    default: break; /* Namespace, Sidecar, PeerAuthentication: nothing is kept but the manifest */
    }
}

/* map without key; in itself when it has none. */
static const struct ynode *without(const struct ynode *map, const char *key, struct arena *a)
{
    if (!y_get(map, key))
        return map;
    struct ynode *n = arena_alloc(a, sizeof *n);
    *n = *map;
    n->pairs = arena_alloc(a, map->n * sizeof *n->pairs);
    n->n = 0;
    for (uint32_t i = 0; i < map->n; i++)
        if (!slice_is(map->pairs[i].key, key))
            n->pairs[n->n++] = map->pairs[i];
    return n;
}

/* Of the manifest without managedFields: who gave a field is no change of the object. json: the whole, in it. */
static uint64_t manifest_hash(const struct ynode *doc, struct buf *json)
{
    struct arena a;
    arena_init(&a, MEM_MANIFEST, 4096);
    const struct ynode *meta = y_get(doc, "metadata"), *bare = without(meta, "managedFields", &a);
    if (bare != meta) {
        struct ynode copy = *doc;
        copy.pairs = arena_alloc(&a, doc->n * sizeof *copy.pairs);
        for (uint32_t i = 0; i < doc->n; i++) {
            copy.pairs[i] = doc->pairs[i];
            if (doc->pairs[i].value == meta)
                copy.pairs[i].value = (struct ynode *)(uintptr_t)bare;
        }
        buf_clear(json);
        y_json(&copy, false, json);
    }
    arena_fini(&a);
    return stable_hash64(STABLE_HASH_INIT, buf_slice(json));
}

/* What Kubernetes writes into an object (and weir get shows) is nothing that was asked for: what comes back with it is the same manifest. */
static bool is_written(bool meta, struct slice key)
{
    static const char *const names[] = {"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion", "selfLink", "uid"};
    for (size_t i = 0; meta && i < COUNT_OF(names); i++)
        if (slice_is(key, names[i]))
            return true;
    return !meta && slice_is(key, "status");
}

/* Of a map with these fields that which is kept; known: nothing else. */
static struct ynode *kept_of(const struct ynode *map, enum schema_id s, bool known, struct arena *a)
{
    struct ynode *n = arena_alloc(a, sizeof *n);
    *n = *map;
    n->pairs = arena_alloc(a, (map->n + 1) * sizeof *n->pairs);
    n->n = 0;
    for (uint32_t i = 0; i < map->n; i++)
        if (!is_written(s == SCH_META, map->pairs[i].key) && (!known || field_find(s, map->pairs[i].key)))
            n->pairs[n->n++] = map->pairs[i];
    return n;
}

/* The manifest as it is kept, in a. Of a Secret only fields that are known: nobody would seal the value that a misspelt one holds. */
static const struct ynode *kept(const struct ynode *doc, const struct kind_row *row, struct arena *a)
{
    bool known = row->obj == OBJ_SECRET;
    struct ynode *copy = kept_of(doc, row->schema, known, a);
    for (uint32_t i = 0; i < copy->n; i++)
        if (slice_is(copy->pairs[i].key, "metadata") && copy->pairs[i].value->type == Y_MAP)
            copy->pairs[i].value = kept_of(copy->pairs[i].value, SCH_META, known, a);
    return copy;
}

static void load_common(struct reader *r, struct object *o, const struct ynode *doc, const struct kind_row *row, struct slice ns)
{
    struct arena a;
    arena_init(&a, MEM_MANIFEST, 4096);
    o->ns = (char *)arena_slice(&o->mem, ns).p;
    o->name = (char *)arena_slice(&o->mem, y_str(y_path(doc, "metadata.name"))).p;
    o->file = arena_strdup(&o->mem, r->file);
    o->dir = arena_strdup(&o->mem, r->dir);
    o->line = doc->line;
    o->column = doc->column;
    load_kvs(o, y_path(doc, "metadata.labels"), &o->labels);
    load_kvs(o, y_path(doc, "metadata.annotations"), &o->annotations);
    struct buf json = {0};
    const struct ynode *manifest = kept(doc, row, &a);
    y_json(manifest, false, &json);
    o->json = (char *)arena_slice(&o->mem, buf_slice(&json)).p;
    o->hash = manifest_hash(manifest, &json);
    buf_free(&json);
    arena_fini(&a);
}

static int diag_order(const void *a, const void *b)
{
    const struct diag *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    int c = strcmp(x->where, y->where);
    return c ? c : strcmp(x->reason, y->reason);
}

/* What this file added, in the order of its text: the walk reports a map before what spans its fields. */
static void sort_diags(struct diags *d, size_t from)
{
    size_t end = MIN(d->n, (size_t)DIAGS_MAX); /* beyond is the word that there are more */
    if (end > from)
        qsort(d->items + from, end - from, sizeof *d->items, diag_order);
}

struct object *reader_object(struct reader *r, const struct ynode *doc)
{
    struct slice version = y_str(y_get(doc, "apiVersion")), kind = y_str(y_get(doc, "kind"));
    struct slice name = y_str(y_path(doc, "metadata.name")), ns = y_str(y_path(doc, "metadata.namespace"));
    const struct kind_row *row = kind_find(version, kind);
    if (!ns.n)
        ns = slice_cstr(r->default_ns);
    if (row && !row->namespaced)
        ns = SLICE("");
    reader_begin(r, row ? slice_cstr(obj_kind_name(row->obj)) : kind, ns, name);
    if (r->seen_object)
        r->seen_object(r->ctx, doc->line, r->where.p);
    if (!row) {
        unknown_kind(r, doc, version, kind);
        return NULL;
    }
    size_t errors = r->d->errors, first = r->d->n;
    struct object *o = object_new(row->obj);
    r->missing = 0;
    walk_map(r, row->schema, doc);
    check_name(r, row, doc);
    bool part = r->parts && name.n && r->missing && r->d->errors - errors == r->missing && r->d->n <= DIAGS_MAX; /* what it gives is right */
    load_common(r, o, doc, row, ns);
    load_kind(r, o, doc);
    if (part) {
        o->lacks = mem_new(MEM_MANIFEST, sizeof *o->lacks);
        diags_cut(r->d, first, errors, o->lacks);
        sort_diags(o->lacks, 0);
    } else if (r->d->errors != errors) {
        object_unref(o);
        return NULL;
    }
    return o;
}

/* ---- documents --------------------------------------------------------------------------------------------------------- */

/* The same object twice in one file is a mistake. */
static bool first_of_file(struct reader *r, const struct ynode *doc)
{
    uintptr_t before = (uintptr_t)table_put(&r->seen, buf_slice(&r->where), (void *)(uintptr_t)doc->line);
    if (before)
        reader_error(r, doc, "", "rename or remove one", "the object is in this file twice: first at line %u", (unsigned)before);
    return !before;
}

static void read_doc(struct reader *r, const struct ynode *doc);

static void read_list(struct reader *r, const struct ynode *doc)
{
    const struct ynode *items = y_get(doc, "items");
    if (items && items->type != Y_LIST)
        reader_error(r, items, "items", "begin each item with '- '", "is %s, and must be a list", ytype_name(items->type));
    for (uint32_t i = 0; items && items->type == Y_LIST && i < items->n; i++)
        read_doc(r, items->items[i]);
}

static void read_doc(struct reader *r, const struct ynode *doc)
{
    reader_set_where(r, "");
    if (doc->type != Y_MAP) {
        reader_error(r, doc, "", "begin with apiVersion and kind", "a document is %s, and must be an object", ytype_name(doc->type));
        return;
    }
    const struct ynode *version = y_get(doc, "apiVersion"), *kind = y_get(doc, "kind");
    if (!y_is_str(version) || !version->text.n)
        reader_error(r, version ? version : doc, "apiVersion", "add it, for example apiVersion: apps/v1", version ? "must be a string" : "missing");
    if (!y_is_str(kind) || !kind->text.n)
        reader_error(r, kind ? kind : doc, "kind", "add it, for example kind: Deployment", kind ? "must be a string" : "missing");
    if (!y_is_str(version) || !y_is_str(kind) || !version->text.n || !kind->text.n)
        return;
    if (slice_is(version->text, "v1") && slice_is(kind->text, "List")) {
        read_list(r, doc);
        return;
    }
    struct object *o = reader_object(r, doc);
    bool named = y_is_str(y_path(doc, "metadata.name"));
    if ((!named || first_of_file(r, doc)) && o && r->set)
        objset_put(r->set, o);
    else if (o)
        object_unref(o);
}

/* Reads the documents of text through r; r->set NULL: checks only. */
void reader_text(struct reader *r, struct slice text)
{
    struct arena a;
    struct ydocs docs = {0};
    arena_init(&a, MEM_MANIFEST, 64 << 10);
    size_t errors = r->d->errors, first = r->d->n;
    yaml_read(r->file, text, &a, &docs, r->d);
    for (size_t i = 0; i < docs.n; i++)
        read_doc(r, docs.items[i]);
    if (!docs.n && r->d->errors == errors) {
        reader_set_where(r, "");
        reader_warn_at(r, 0, 0, "add objects, or leave the file out", "the file holds no object");
    }
    sort_diags(r->d, first);
    ydocs_free(&docs);
    arena_fini(&a);
}

void reader_fini(struct reader *r)
{
    table_fini(&r->seen);
    buf_free(&r->where);
}

static void read_into(struct objset *s, const char *file, const char *dir, struct slice text, const char *default_ns, bool strict, bool parts, struct diags *d)
{
    struct reader r = {.file = file, .dir = dir, .default_ns = default_ns && default_ns[0] ? default_ns : "default", .strict = strict, .parts = parts, .d = d, .set = s};
    reader_text(&r, text);
    reader_fini(&r);
}

void objset_read(struct objset *s, const char *file, const char *dir, struct slice text, const char *default_ns, bool strict, struct diags *d)
{
    read_into(s, file, dir, text, default_ns, strict, false, d);
}

void objset_read_parts(struct objset *s, const char *file, const char *dir, struct slice text, const char *default_ns, bool strict, struct diags *d)
{
    read_into(s, file, dir, text, default_ns, strict, true, d);
}
