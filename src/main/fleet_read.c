/* fleet_read.c - values of the fleet's keys: JSON to structs. CLUSTER.md has the formats.
 *
 * Keys under /weir/ are written by nodes, those under /services/ by anybody: what can't be understood is said and left out.
 */
#include "fleet_int.h"

#include <jansson.h>
#include <stdio.h>

#define PLACED_MAX 1000000u /* replicas on a node: more is nonsense */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static uint64_t number_of(const json_t *o, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n > 0 ? (uint64_t)n : 0;
}

static uint64_t json_integer_of(const json_t *n) { return (uint64_t)MAX(0, json_integer_value(n)); }

static json_t *object_of(const char *prefix, struct slice key, struct slice value)
{
    json_error_t at;
    json_t *o = json_loadb(value.p, value.n, 0, &at);
    if (json_is_object(o))
        return o;
    char text[200];
    (void)snprintf(text, sizeof text, "%s" SLICE_FMT, prefix, (int)MIN(key.n, 150), key.p);
    text_clean(text);
    log_warn("cluster", "%s holds no JSON object; it is left out", text);
    json_decref(o);
    return NULL;
}

static void labels_of(struct arena *a, json_t *map, struct kvs *out)
{
    const char *key;
    json_t *value;
    out->items = arena_zalloc(a, (json_object_size(map) + 1) * sizeof *out->items);
    json_object_foreach(map, key, value)
        if (json_is_string(value)) {
            struct slice v = arena_slice(a, slice_of(json_string_value(value), json_string_length(value)));
            out->items[out->n++] = (struct kv){.key = arena_strdup(a, key), .value = (char *)v.p, .value_n = v.n};
        }
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------------- */

static void *member_make(void *ctx, struct slice key, struct slice value)
{
    json_t *o = object_of("/weir/nodes/", key, value);
    if (!o)
        return NULL;
    struct member *m = mem_new(MEM_CTL, sizeof *m);
    arena_init(&m->mem, MEM_CTL, 1024);
    const char *gate = text_of(o, "gate");
    json_t *room = json_object_get(o, "allocatable");
    m->n = (struct fleet_node){.name = arena_slice(&m->mem, key).p, .gate = *gate ? arena_strdup(&m->mem, gate) : NULL, .locality = arena_strdup(&m->mem, text_of(o, "locality")),
                               .version = arena_strdup(&m->mem, text_of(o, "version")), .cpu_milli = number_of(room, "cpu_milli"), .memory = number_of(room, "memory_bytes"),
                               .since_ns = number_of(o, "since_ns"), .leaving = json_is_true(json_object_get(o, "leaving"))};
    m->instance = arena_strdup(&m->mem, text_of(o, "instance"));
    m->place = arena_strdup(&m->mem, text_of(o, "place"));
    labels_of(&m->mem, json_object_get(o, "labels"), &m->n.labels);
    json_decref(o);
    return m;
}

static void member_drop(void *data)
{
    struct member *m = data;
    arena_fini(&m->mem);
    mem_free(m);
}

/* ---- who holds a key: the leader's, claims', the event log's ---------------------------------------------------------------- */

void holder_json(const struct fleet *f, struct buf *out)
{
    buf_adds(out, "{\"node\":");
    buf_add_json(out, slice_cstr(f->conf.node));
    buf_adds(out, ",\"instance\":");
    buf_add_json(out, slice_cstr(f->conf.instance));
    buf_addc(out, '}');
}

static void *holder_make(void *ctx, struct slice key, struct slice value)
{
    struct buf id = {0};
    json_t *o = object_of("/weir/", key, value);
    if (!o)
        return NULL;
    buf_printf(&id, "%s/%s", text_of(o, "node"), text_of(o, "instance"));
    json_decref(o);
    return buf_take(&id, NULL);
}

bool holder_is(const char *holder, const char *node, const char *instance)
{
    size_t n = strlen(node);
    return holder && strncmp(holder, node, n) == 0 && holder[n] == '/' && strcmp(holder + n + 1, instance) == 0;
}

bool holder_is_me(const struct fleet *f, const char *holder) { return holder_is(holder, f->conf.node, f->conf.instance); }

/* ---- placement ---------------------------------------------------------------------------------------------------------------- */

static void *placed_make(void *ctx, struct slice key, struct slice value)
{
    const char *node;
    json_t *count, *o = object_of("/weir/placement/", key, value), *nodes = json_object_get(o, "nodes"), *moving = json_object_get(o, "moving");
    if (!o)
        return NULL;
    struct placed *p = mem_new(MEM_CTL, sizeof *p);
    arena_init(&p->mem, MEM_CTL, 512);
    p->unplaced = (uint32_t)MIN(number_of(o, "unplaced"), UINT32_MAX);
    p->replicas = (uint32_t)MIN(number_of(o, "replicas"), UINT32_MAX);
    p->why = arena_strdup(&p->mem, text_of(o, "why"));
    p->nodes = arena_zalloc(&p->mem, (json_object_size(nodes) + 1) * sizeof *p->nodes);
    json_object_foreach(nodes, node, count)
        p->nodes[p->n++] = (struct placed_node){arena_strdup(&p->mem, node), (uint32_t)MIN(json_integer_of(count), PLACED_MAX), (uint32_t)MIN(number_of(moving, node), PLACED_MAX)};
    json_decref(o);
    return p;
}

static void placed_drop(void *data)
{
    struct placed *p = data;
    arena_fini(&p->mem);
    mem_free(p);
}

uint32_t placed_on(const struct placed *p, const char *node)
{
    for (uint32_t i = 0; p && i < p->n; i++)
        if (strcmp(p->nodes[i].node, node) == 0)
            return p->nodes[i].count;
    return 0;
}

uint32_t placed_moving(const struct placed *p, const char *node)
{
    for (uint32_t i = 0; p && i < p->n; i++)
        if (strcmp(p->nodes[i].node, node) == 0)
            return MIN(p->nodes[i].moving, p->nodes[i].count);
    return 0;
}

/* ---- endpoints ------------------------------------------------------------------------------------------------------------------ */

void remote_unref(struct remote *r)
{
    MUST(r->refs > 0);
    if (--r->refs)
        return;
    arena_fini(&r->mem);
    mem_free(r);
}

static void remote_drop(void *data) { remote_unref(data); }

/* NAMESPACE/WORKLOAD/REPLICA; false when the key has other parts. */
static struct remote *remote_new(struct slice key)
{
    struct slice rest, ns = slice_cut(key, '/', &rest), workload = slice_cut(rest, '/', &rest);
    if (!ns.n || !workload.n || !rest.n || slice_find(rest, '/') >= 0)
        return NULL;
    struct remote *r = mem_new(MEM_CTL, sizeof *r);
    r->refs = 1;
    arena_init(&r->mem, MEM_CTL, 1024);
    r->ep = (struct fleet_endpoint){.ns = arena_slice(&r->mem, ns).p, .workload = arena_slice(&r->mem, workload).p, .replica = arena_slice(&r->mem, rest).p};
    return r;
}

static void *remote_make(void *ctx, struct slice key, struct slice value)
{
    json_t *o = object_of("/weir/endpoints/", key, value), *ports = json_object_get(o, "ports");
    struct remote *r = o ? remote_new(key) : NULL;
    if (r) {
        r->ep.node = arena_strdup(&r->mem, text_of(o, "node"));
        r->ep.id = number_of(o, "id");
        labels_of(&r->mem, json_object_get(o, "labels"), &r->ep.labels);
        r->ep.ports = arena_zalloc(&r->mem, (json_array_size(ports) + 1) * sizeof *r->ep.ports);
        for (size_t i = 0; i < json_array_size(ports); i++) {
            const json_t *p = json_array_get(ports, i);
            const char *name = text_of(p, "name");
            uint64_t port = number_of(p, "port");
            if (port && port <= UINT16_MAX)
                r->ep.ports[r->ep.ports_n++] = (struct container_port){*name ? arena_strdup(&r->mem, name) : NULL, (uint16_t)port};
        }
    }
    json_decref(o);
    return r;
}

_Static_assert(FLEET_SERVICE_BYTES_MAX == 4096, "external_wrong() says so");
/* NULL: a registration that can be used. r, o: NULL: the key has other parts; the value is no JSON. */
static const char *external_wrong(bool small, const struct remote *r, const json_t *o)
{
    struct addr a;
    uint64_t port = number_of(o, "port");
    if (!small)
        return "its key or its value is longer than 4 KiB";
    if (!r)
        return "the key has to be " SERVICES_PREFIX "NAMESPACE/SERVICE/ID";
    if (!json_is_object(o))
        return "its value has to be a JSON object, {\"address\": an IP address, \"port\": a number}";
    if (addr_parse(slice_cstr(text_of(o, "address")), 1, &a) != OK || a.family == ADDR_UNIX)
        return "its \"address\" has to be an IP address";
    if (port < 1 || port > 65535)
        return "its \"port\" has to be a number from 1 to 65535";
    const json_t *weight = json_object_get(o, "weight");
    return !weight || (json_is_integer(weight) && json_integer_value(weight) >= 0) ? NULL : "its \"weight\" has to be a whole number, 0 or more";
}

static void external_left_out(struct fleet *f, struct slice key, const char *why)
{
    char text[160], message[400];
    struct slice rest, ns = slice_cut(key, '/', &rest), service = slice_cut(rest, '/', &rest);
    (void)snprintf(text, sizeof text, SLICE_FMT, (int)MIN(key.n, 150), key.p);
    text_clean(text);
    (void)snprintf(message, sizeof message, SERVICES_PREFIX "%s is left out: %s", text, why);
    log_warn("cluster", "%s", message);
    f->ops.left_out(f->ctx, ns, service, message);
}

/* A service outside: an address, a port, and perhaps where it is. */
static void *external_make(void *ctx, struct slice key, struct slice value)
{
    bool small = key.n <= FLEET_SERVICE_BYTES_MAX && value.n <= FLEET_SERVICE_BYTES_MAX;
    json_t *o = small ? json_loadb(value.p, value.n, 0, NULL) : NULL;
    struct remote *r = small ? remote_new(key) : NULL;
    const char *wrong = external_wrong(small, r, o);
    if (!wrong) {
        const char *zone = text_of(o, "zone");
        r->ep.address = arena_strdup(&r->mem, text_of(o, "address"));
        r->ep.id = hash_slice(key);
        r->ep.locality = *zone ? arena_strdup(&r->mem, zone) : NULL;
        r->ep.weight = json_object_get(o, "weight") ? (uint32_t)MIN(number_of(o, "weight"), 1000000) : 1;
        r->ep.ports = arena_zalloc(&r->mem, sizeof *r->ep.ports);
        r->ep.ports[r->ep.ports_n++] = (struct container_port){NULL, (uint16_t)number_of(o, "port")};
    } else {
        external_left_out(ctx, key, wrong);
        if (r)
            remote_unref(r);
        r = NULL;
    }
    json_decref(o);
    return r;
}

/* ---- remembered --------------------------------------------------------------------------------------------------------------------- */

#define MEMORY_N 5
static const char *const memory_names[MEMORY_N] = {"nodes", "placement", "endpoints", "services", "log"};
static void memory_mirrors(struct fleet *f, struct mirror *out[MEMORY_N])
{
    out[0] = f->nodes;
    out[1] = f->placement;
    out[2] = f->endpoints;
    out[3] = f->services;
    out[4] = f->log;
}

/* {"of":"...","nodes":{"KEY":"VALUE", ...},"placement":{...},"endpoints":{...},"services":{...},"log":{...}} */
void fleet_remember(struct fleet *f, const char *of, struct buf *out)
{
    struct mirror *mirrors[MEMORY_N];
    memory_mirrors(f, mirrors);
    buf_adds(out, "{\"of\":");
    buf_add_json(out, slice_cstr(of));
    for (size_t i = 0; i < COUNT_OF(mirrors); i++) {
        size_t n;
        const struct mirror_item *const *items = mirror_items(mirrors[i], &n);
        buf_printf(out, ",\"%s\":{", memory_names[i]);
        bool any = false;
        for (size_t k = 0; k < n; k++) {
            if (!items[k]->data || memchr(items[k]->key.p, 0, items[k]->key.n) || memchr(items[k]->value, 0, items[k]->value_n))
                continue; /* nobody's: JSON's readers do not take it */
            buf_adds(out, any ? ",\n" : "\n");
            any = true;
            buf_add_json(out, items[k]->key);
            buf_addc(out, ':');
            buf_add_json(out, slice_of(items[k]->value, items[k]->value_n));
        }
        buf_addc(out, '}');
    }
    buf_adds(out, "}\n");
}

bool fleet_recall(struct fleet *f, const char *of, struct slice text)
{
    json_error_t at;
    struct mirror *mirrors[MEMORY_N];
    json_t *o = json_loadb(text.p, text.n, 0, &at), *value;
    bool good = json_is_object(o) && strcmp(text_of(o, "of"), of) == 0;
    const char *key;
    memory_mirrors(f, mirrors);
    for (size_t i = 0; i < COUNT_OF(mirrors) && good; i++)
        json_object_foreach(json_object_get(o, memory_names[i]), key, value)
            if (json_is_string(value) && !(mirrors[i] == f->nodes && strcmp(key, f->conf.node) == 0)) /* of itself it knows better: a reboot is another place */
                mirror_recall(mirrors[i], slice_cstr(key), slice_of(json_string_value(value), json_string_length(value)));
    json_decref(o);
    f->recalled = f->recalled || good;
    if (good)
        fleet_tell(f);
    return good;
}

static void on_changed(void *ctx) { fleet_tell(ctx); }

const struct mirror_ops member_ops = {member_make, member_drop, on_changed, true, 0};
const struct mirror_ops leader_ops = {holder_make, mem_free, on_changed, true, 0};
const struct mirror_ops placed_ops = {placed_make, placed_drop, on_changed, true, 0};
const struct mirror_ops remote_ops = {remote_make, remote_drop, on_changed, true, 0};
const struct mirror_ops external_ops = {external_make, remote_drop, on_changed, true, FLEET_SERVICES_MAX};
