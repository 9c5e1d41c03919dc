/* objects.c - GET of objects: each as its manifest says, with metadata completed and a "status" as Kubernetes has it.
 *
 *     objset (what is wanted)  --+
 *     api_workloads (replicas) --+-->  {"apiVersion":"v1","kind":"List","items":[{..., "status":{...}}]}
 *     plan (endpoints)         --+
 *
 * Topics get their status from the node, which asks the broker.
 *
 * What Kubernetes has no field for is added under names that it does not use: status.replicaStatuses, status.revision and
 * status.why of Deployments, status.address and status.endpoints of Services. Values of Secrets never leave: they are
 * replaced by a text that can't be applied back by mistake, for it is no base64.
 */
#include "api_int.h"
#include "merge.h"
#include "seal.h"
#include "json_buf.h"

#include <stdio.h>

/* One answer under construction. */
struct listing {
    struct api *api;
    const struct objset *set;
    const struct plan *plan; /* may be NULL: nothing compiled yet */
    json_t *workloads;       /* "ns/name" -> status */
    bool owners;             /* metadata.managedFields is wanted */
};

static json_t *text_or_null(const char *s) { return s ? json_string(s) : json_null(); }
static json_t *number(uint64_t v) { return json_integer((json_int_t)v); }

/* ---- Deployments ------------------------------------------------------------------------------------------------------ */

static json_t *replica_status(const struct replica_status *r)
{
    char when[32];
    json_t *o = json_object();
    json_put(o, "name", json_reason(r->name));
    if (r->node && *r->node)
        json_put(o, "node", json_reason(r->node));
    json_put(o, "phase", json_string(r->phase));
    json_put(o, "ready", json_boolean(r->ready));
    json_put(o, "upToDate", json_boolean(r->up_to_date));
    json_put(o, "pid", json_integer(r->pid));
    json_put(o, "restarts", json_integer(r->restarts));
    if (r->started_wall_ns)
        json_put(o, "startedAt", json_string(api_time_text(when, r->started_wall_ns)));
    json_put(o, "why", json_reason(r->why));
    return o;
}

static json_t *workload_conditions(const struct workload_status *w)
{
    const char *why = w->why ? w->why : "";
    json_t *list = json_array();
    bool enough = w->available >= w->wanted;
    json_array_append_new(list, json_condition("Available", enough, enough ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable", enough ? "" : why));
    if (w->unplaced) /* of a Pod, in Kubernetes */
        json_array_append_new(list, json_condition("PodScheduled", false, "Unschedulable", why));
    json_array_append_new(list, json_condition("Progressing", true, w->complete ? "NewReplicaSetAvailable" : "ReplicaSetUpdated", w->complete ? "" : why));
    return list;
}

static void workload_add(void *ctx, const struct workload_status *w)
{
    struct listing *l = ctx;
    struct buf key = {0};
    json_t *s = json_object(), *replicas = json_array();
    json_put(s, "observedGeneration", number(w->generation));
    json_put(s, "revision", number(w->revision));
    json_put(s, "replicas", json_integer(w->current));
    json_put(s, "updatedReplicas", json_integer(w->updated));
    json_put(s, "readyReplicas", json_integer(w->ready));
    json_put(s, "availableReplicas", json_integer(w->available));
    json_put(s, "unavailableReplicas", json_integer(w->wanted > w->available ? w->wanted - w->available : 0));
    if (w->unplaced)
        json_put(s, "unplacedReplicas", json_integer(w->unplaced));
    json_put(s, "complete", json_boolean(w->complete));
    json_put(s, "why", json_reason(w->why));
    json_put(s, "conditions", workload_conditions(w));
    for (size_t i = 0; i < w->replicas_n; i++)
        json_array_append_new(replicas, replica_status(&w->replicas[i]));
    json_put(s, "replicaStatuses", replicas);
    buf_printf(&key, "%s/%s", w->ns, w->name);
    json_put(l->workloads, key.p, s);
    buf_free(&key);
}

static json_t *deployment_status(struct listing *l, const struct object *o)
{
    struct buf key = {0};
    buf_printf(&key, "%s/%s", o->ns, o->name);
    json_t *s = json_object_get(l->workloads, key.p);
    buf_free(&key);
    return s ? json_incref(s) : json_object();
}

/* ---- Services ----------------------------------------------------------------------------------------------------------- */

static json_t *cluster_status(const struct plan_cluster *c)
{
    json_t *o = json_object(), *eps = json_array();
    json_put(o, "port", json_integer(c->port));
    json_put(o, "workload", text_or_null(c->workload));
    for (uint32_t i = 0; i < c->eps_n; i++) {
        char text[ADDR_TEXT_MAX];
        json_t *e = json_object();
        struct addr address = plan_endpoint_addr(&c->eps[i]);
        size_t n = addr_format(&address, text);
        json_put(e, "name", json_reason(c->eps[i].name));
        if (c->eps[i].remote) /* the address is its gate's */
            json_put(e, "node", json_reason(c->eps[i].remote->node));
        json_put(e, "address", json_stringn(text, n));
        json_array_append_new(eps, e);
    }
    json_put(o, "endpoints", eps);
    return o;
}

/* What a headless Service stands for: names below its own, and where they lead. */
static json_t *headless_replicas(const struct plan *p, const struct object *o)
{
    json_t *all = json_array();
    for (uint32_t i = 0; p && i < p->named_n; i++) {
        const struct plan_named *d = &p->named[i];
        char text[ADDR_TEXT_MAX];
        if (strcmp(d->ns, o->ns) != 0 || strcmp(d->service, o->name) != 0)
            continue;
        json_t *e = json_object();
        size_t n = addr_format_ip(&d->address, text);
        json_put(e, "name", json_reason(d->host));
        json_put(e, "address", json_stringn(text, n));
        json_array_append_new(all, e);
    }
    return all;
}

static json_t *service_status(struct listing *l, const struct object *o)
{
    char text[ADDR_TEXT_MAX];
    json_t *s = json_object(), *ports = json_array();
    if (o->svc.address.family != ADDR_NONE) {
        size_t n = addr_format_ip(&o->svc.address, text);
        json_put(s, "address", json_stringn(text, n));
    }
    for (uint32_t i = 0; l->plan && i < l->plan->clusters_n; i++) {
        const struct plan_cluster *c = &l->plan->clusters[i];
        if (strcmp(c->ns, o->ns) == 0 && strcmp(c->service, o->name) == 0)
            json_array_append_new(ports, cluster_status(c));
    }
    json_put(s, "endpoints", ports);
    if (o->svc.headless)
        json_put(s, "replicas", headless_replicas(l->plan, o));
    json_put(s, "loadBalancer", json_object());
    return s;
}

/* ---- one object ------------------------------------------------------------------------------------------------------------ */

/* data has every key (stringData included), no value. */
static void secret_redact(json_t *o, const struct object *obj, const struct keyring *keys)
{
    json_t *data = json_object();
    for (size_t i = 0; i < obj->data.n; i++) {
        const struct kv *v = &obj->data.items[i];
        char text[96], digest[VALUE_DIGEST_CHARS + 1];
        value_digest(keys, slice_of(v->value, v->value_n), digest);
        snprintf(text, sizeof text, "(redacted: %zu bytes, digest %s)", v->value_n, digest);
        json_put(data, v->key, json_string(text));
    }
    json_object_del(o, "stringData");
    json_put(o, "data", data);
    /* kubectl apply writes the whole manifest, values and all, into this one. */
    json_object_del(json_object_get(json_object_get(o, "metadata"), "annotations"), "kubectl.kubernetes.io/last-applied-configuration");
}

json_t *api_manifest(const struct object *obj, const struct keyring *keys)
{
    json_t *o = json_loads(obj->json, JSON_ALLOW_NUL, NULL);
    json_object_del(json_object_get(o, "metadata"), "managedFields");
    if (obj->kind == OBJ_SECRET)
        secret_redact(o, obj, keys);
    json_object_del(o, "status");
    return o ? o : json_null();
}

/* ---- topics, keyspaces --------------------------------------------------------------------------------------------------- */

static json_t *ready_status(const struct object *o, int state, struct buf *why)
{
    json_t *s = json_object(), *conditions = json_array();
    json_array_append_new(conditions, json_condition("Ready", state > 0, state > 0 ? "Ready" : state ? "Refused" : "Pending", why->n ? why->p : ""));
    json_put(s, "conditions", conditions);
    json_put(s, "observedGeneration", number(o->generation));
    buf_free(why);
    return s;
}

/* Ready, as Strimzi names it: the broker has the topic as the object wants it. */
static json_t *topic_status(struct listing *l, const struct object *o)
{
    struct buf why = {0};
    int state = -1;
    if (l->api->ops->topic)
        state = l->api->ops->topic(l->api->ctx, o, &why);
    else
        buf_adds(&why, "this node has no event log");
    json_t *s = ready_status(o, state, &why);
    json_put(s, "topicName", json_string(o->topic.topic));
    return s;
}

/* The same: the control store's API heeds it. */
static json_t *keyspace_status(struct listing *l, const struct object *o)
{
    struct buf why = {0};
    int state = -1;
    if (l->api->ops->keyspace)
        state = l->api->ops->keyspace(l->api->ctx, &why);
    else
        buf_adds(&why, "this node has no control store");
    return ready_status(o, state, &why);
}

static json_t *object_status(struct listing *l, const struct object *o)
{
    json_t *phase;
    switch (o->kind) {
    case OBJ_TOPIC:
    case OBJ_KAFKATOPIC: return topic_status(l, o);
    case OBJ_KEYSPACE: return keyspace_status(l, o);
    case OBJ_DEPLOYMENT: return deployment_status(l, o);
    case OBJ_SERVICE: return service_status(l, o);
    case OBJ_NAMESPACE:
        phase = json_object();
        json_put(phase, "phase", json_string("Active"));
        return phase;
    default: return conditions_status(l->api, l->set, l->plan, o);
    }
}

/* Who owns which field is much to read, and seldom wanted. */
static json_t *object_json(struct listing *l, const struct object *obj)
{
    char when[32];
    json_t *o = json_loads(obj->json, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(o)) { /* the reader made it: this would be our own mistake, shown rather than hidden */
        json_decref(o);
        o = json_object();
        json_put(o, "kind", json_string(obj_kind_name(obj->kind)));
    }
    json_t *meta = json_object_get(o, "metadata");
    if (!json_is_object(meta)) {
        json_put(o, "metadata", json_object());
        meta = json_object_get(o, "metadata");
    }
    json_put(meta, "name", json_string(obj->name));
    if (obj->kind != OBJ_NAMESPACE)
        json_put(meta, "namespace", json_string(obj->ns));
    if (obj->created_ns)
        json_put(meta, "creationTimestamp", json_string(api_time_text(when, obj->created_ns)));
    json_put(meta, "generation", number(obj->generation));
    if (l->owners)
        json_put(meta, "managedFields", merge_owners(o));
    else
        json_object_del(meta, "managedFields");
    if (obj->kind == OBJ_SECRET)
        secret_redact(o, obj, l->api->ops->keys(l->api->ctx));
    json_object_del(o, "status");
    json_t *status = object_status(l, obj);
    if (status)
        json_put(o, "status", status);
    return o;
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------ */

static void list_add(struct buf *out, json_t *item)
{
    if (out->p[out->n - 1] != '[')
        buf_addc(out, ',');
    (void)json_buf_add(item, JSON_COMPACT, out);
    json_decref(item);
}

/* Namespaces that nobody has declared: "default", and those in which there is something. */
static void list_add_namespaces(struct buf *out, const struct objset *set, const char *name)
{
    struct table seen = {0};
    static char mark;
    for (size_t i = 0; i < objset_n(set); i++)
        if (objset_at(set, i)->kind == OBJ_NAMESPACE)
            table_put(&seen, slice_cstr(objset_at(set, i)->name), &mark);
    for (size_t i = 0; i <= objset_n(set); i++) {
        const char *ns = i == 0 ? "default" : objset_at(set, i - 1)->kind == OBJ_NAMESPACE ? "" : objset_at(set, i - 1)->ns;
        if (!*ns || table_get(&seen, slice_cstr(ns)))
            continue;
        table_put(&seen, slice_cstr(ns), &mark);
        if (!name || strcmp(name, ns) == 0)
            list_add(out, json_pack("{s:s, s:s, s:{s:s}, s:{s:s}}", "apiVersion", "v1", "kind", "Namespace", "metadata", "name", ns, "status", "phase", "Active"));
    }
    table_fini(&seen);
}

static void answer_list(struct api_conn *c, enum obj_kind only)
{
    const char *ns = api_query(c, "namespace"), *name = api_query(c, "name");
    struct api *a = c->api;
    struct listing l = {.api = a, .set = a->ops->objects(a->ctx), .plan = a->ops->plan(a->ctx), .workloads = json_object(), .owners = api_query_flag(c, "owners")};
    if (only == OBJ_KIND_COUNT || only == OBJ_DEPLOYMENT)
        api_workloads(a, workload_add, &l);
    struct buf out = {0};
    buf_adds(&out, "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
    for (size_t i = 0; i < objset_n(l.set); i++) {
        const struct object *o = objset_at(l.set, i);
        if ((only != OBJ_KIND_COUNT && o->kind != only) || (name && strcmp(name, o->name) != 0))
            continue;
        if (ns && o->kind != OBJ_NAMESPACE && strcmp(ns, o->ns) != 0)
            continue;
        list_add(&out, object_json(&l, o));
    }
    if (only == OBJ_NAMESPACE)
        list_add_namespaces(&out, l.set, name);
    buf_adds(&out, "]}\n");
    json_decref(l.workloads);
    api_answer_json(c, 200, &out);
    buf_free(&out);
}

/* ---- what is seen, not applied ---------------------------------------------------------------------------------------------- */

void api_get_nodes(struct api_conn *c)
{
    struct buf out = {0};
    c->api->ops->nodes(c->api->ctx, &out);
    buf_addc(&out, '\n');
    api_answer_json(c, 200, &out);
    buf_free(&out);
}

/* The Node of an endpoint, its zone, and the replica; Kubernetes' names. */
static json_t *slice_endpoint(const struct plan_endpoint *ep, const char *own)
{
    char text[ADDR_TEXT_MAX];
    struct addr address = plan_endpoint_addr(ep);
    size_t n = addr_format_ip(&address, text);
    struct slice rest = slice_cstr(ep->locality);
    (void)slice_cut(rest, '/', &rest);
    struct slice zone = slice_cut(rest, '/', &rest);
    json_t *o = json_pack("{s:[o], s:{s:b}, s:{s:s, s:o}}", "addresses", json_stringn(text, n), "conditions", "ready", true, "targetRef", "kind",
                          ep->replica_id || ep->remote ? "Pod" : "Address", "name", json_reason(ep->name));
    if (ep->remote || ep->replica_id)
        json_put(o, "nodeName", json_reason(ep->remote ? ep->remote->node : own));
    json_t *place = zone.n ? json_stringn(zone.p, zone.n) : NULL;
    if (place)
        json_put(o, "zone", place);
    return o;
}

/* Endpoints of one port of a Service that may be in one EndpointSlice: it has one type of address and one port for all of them. */
struct slice_part {
    bool ip6;
    uint16_t port; /* 0: of other nodes' replicas alone, whose port those nodes know */
    json_t *endpoints;
};
struct slice_parts {
    struct table by_key; /* family and port -> struct slice_part */
    struct slice_part **items;
    size_t n, cap;
};

static struct slice_part *slice_part(struct slice_parts *parts, bool ip6, uint16_t port)
{
    const char key[] = {(char)ip6, (char)(port >> 8), (char)port};
    struct slice_part *p = table_get(&parts->by_key, slice_of(key, sizeof key));
    if (p)
        return p;
    p = mem_new(MEM_API, sizeof *p);
    *p = (struct slice_part){ip6, port, json_array()};
    table_put(&parts->by_key, slice_of(key, sizeof key), p);
    ARRAY_GROW(MEM_API, parts->items, parts->n, parts->cap);
    return parts->items[parts->n++] = p;
}

static json_t *slice_json(const struct plan_cluster *cl, const struct slice_part *p, const char *name)
{
    json_t *ports = json_array();
    if (p->port)
        json_array_append_new(ports, json_pack("{s:i, s:s}", "port", (int)p->port, "protocol", "TCP"));
    return json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s}}, s:s, s:o, s:O}", "apiVersion", "discovery.k8s.io/v1", "kind", "EndpointSlice", "metadata", "name", name, "namespace", cl->ns, "labels",
                     "kubernetes.io/service-name", cl->service, "addressType", p->ip6 ? "IPv6" : "IPv4", "ports", ports, "endpoints", p->endpoints);
}

/* Of one port of a Service: one slice with its replicas (or all there is), SERVICE-PORT, and SERVICE-PORT-FAMILY-PORT for those that registered themselves with another port, or
 * another type of address. only: the name of the one that is wanted; NULL. */
static void slices_add(struct buf *out, const struct plan_cluster *cl, const char *own, const char *only)
{
    struct slice_parts parts = {0};
    uint16_t port = 0;
    for (uint32_t i = 0; i < cl->eps_n && !port; i++)
        port = cl->eps[i].replica_id && !cl->eps[i].remote ? cl->eps[i].address.port : 0;
    const struct slice_part *first = NULL;
    for (uint32_t i = 0; i < cl->eps_n; i++) {
        const struct plan_endpoint *ep = &cl->eps[i];
        struct slice_part *p = slice_part(&parts, !ep->remote && ep->address.family == ADDR_IP6, ep->remote ? port : ep->address.port);
        json_array_append_new(p->endpoints, slice_endpoint(ep, own));
        first = !first && (ep->remote || ep->replica_id) ? p : first;
    }
    if (!parts.n)
        slice_part(&parts, false, 0);
    first = first ? first : parts.items[0];
    for (size_t i = 0; i < parts.n; i++) {
        struct slice_part *p = parts.items[i];
        struct buf name = {0};
        buf_printf(&name, "%s-%u", cl->service, cl->port);
        if (p != first)
            buf_printf(&name, "-%s-%u", p->ip6 ? "ipv6" : "ipv4", p->port);
        if (!only || strcmp(only, name.p) == 0)
            list_add(out, slice_json(cl, p, name.p));
        buf_free(&name);
        json_decref(p->endpoints);
        mem_free(p);
    }
    mem_free(parts.items);
    table_fini(&parts.by_key);
}

void api_get_slices(struct api_conn *c)
{
    const char *ns = api_query(c, "namespace"), *name = api_query(c, "name");
    const struct plan *p = c->api->ops->plan(c->api->ctx);
    const struct objset *set = c->api->ops->objects(c->api->ctx);
    const char *node = c->api->ops->name ? c->api->ops->name(c->api->ctx) : "";
    struct buf out = {0};
    buf_adds(&out, "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
    for (uint32_t i = 0; p && i < p->clusters_n; i++) {
        const struct plan_cluster *cl = &p->clusters[i];
        if (cl->subset || (ns && strcmp(ns, cl->ns) != 0) || !objset_find(set, OBJ_SERVICE, cl->ns, cl->service))
            continue;
        slices_add(&out, cl, node, name);
    }
    buf_adds(&out, "]}\n");
    api_answer_json(c, 200, &out);
    buf_free(&out);
}

void api_get_objects(struct api_conn *c)
{
    const char *kind = api_query(c, "kind");
    enum obj_kind k = OBJ_KIND_COUNT;
    if (kind && !obj_kind_parse(slice_cstr(kind), &k))
        api_error(c, 400, "use a kind that Weir knows, such as Deployment, Service, HTTPRoute or VirtualService", "unknown kind \"%s\"", kind);
    else
        answer_list(c, k);
}

void api_get_namespaces(struct api_conn *c) { answer_list(c, OBJ_NAMESPACE); }
void api_get_workloads(struct api_conn *c) { answer_list(c, OBJ_DEPLOYMENT); }
void api_get_services(struct api_conn *c) { answer_list(c, OBJ_SERVICE); }
void api_get_routes(struct api_conn *c) { answer_list(c, OBJ_HTTPROUTE); }
void api_get_gateways(struct api_conn *c) { answer_list(c, OBJ_GATEWAY); }
void api_get_configmaps(struct api_conn *c) { answer_list(c, OBJ_CONFIGMAP); }
void api_get_secrets(struct api_conn *c) { answer_list(c, OBJ_SECRET); }
