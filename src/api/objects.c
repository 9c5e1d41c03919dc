/* objects.c - GET of objects: each as its manifest says, with metadata completed and a "status" as Kubernetes has it.
 *
 *     objset (what is wanted)  --+
 *     run_status (replicas)    --+-->  {"apiVersion":"v1","kind":"List","items":[{..., "status":{...}}]}
 *     plan (endpoints)         --+
 *
 * What Kubernetes has no field for is added under names that it does not use: status.replicaStatuses, status.revision and
 * status.why of Deployments, status.address and status.endpoints of Services. Values of Secrets never leave: they are
 * replaced by a text that can't be applied back by mistake, for it is no base64.
 */
#include "api_int.h"

#include <stdio.h>

#define CONTROLLER "weir.local/gateway" /* controllerName in parents: a domain and a path, as Gateway API wants it */

/* One answer under construction. */
struct listing {
    struct api *api;
    const struct objset *set;
    const struct plan *plan; /* may be NULL: nothing compiled yet */
    json_t *workloads;       /* "ns/name" -> status */
};

static void set_new(json_t *o, const char *key, json_t *value) { MUST(json_object_set_new(o, key, value) == 0); }
static json_t *text_or_null(const char *s) { return s ? json_string(s) : json_null(); }

/* Reasons may quote what others said, cut anywhere; JSON is UTF-8 (RFC 8259 section 8.1). */
static json_t *reason_text(const char *s)
{
    json_t *text = json_string(s ? s : "");
    if (text)
        return text;
    char *clean = mem_strdup(MEM_API, s);
    text_clean(clean);
    text = json_string(clean);
    mem_free(clean);
    return text;
}

static json_t *number(uint64_t v) { return json_integer((json_int_t)v); }

static json_t *condition(const char *type, bool on, const char *reason, const char *message)
{
    json_t *o = json_object();
    set_new(o, "type", json_string(type));
    set_new(o, "status", json_string(on ? "True" : "False"));
    set_new(o, "reason", json_string(reason));
    set_new(o, "message", reason_text(message));
    return o;
}

/* ---- Deployments ------------------------------------------------------------------------------------------------------ */

static json_t *replica_status(const struct replica_status *r)
{
    char when[32];
    json_t *o = json_object();
    set_new(o, "name", json_string(r->name));
    set_new(o, "phase", json_string(r->phase));
    set_new(o, "ready", json_boolean(r->ready));
    set_new(o, "upToDate", json_boolean(r->up_to_date));
    set_new(o, "pid", json_integer(r->pid));
    set_new(o, "restarts", json_integer(r->restarts));
    if (r->started_wall_ns)
        set_new(o, "startedAt", json_string(api_time_text(when, r->started_wall_ns)));
    set_new(o, "why", reason_text(r->why));
    return o;
}

static json_t *workload_conditions(const struct workload_status *w)
{
    const char *why = w->why ? w->why : "";
    json_t *list = json_array();
    bool enough = w->available >= w->wanted;
    json_array_append_new(list, condition("Available", enough, enough ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable", enough ? "" : why));
    json_array_append_new(list, condition("Progressing", true, w->complete ? "NewReplicaSetAvailable" : "ReplicaSetUpdated", w->complete ? "" : why));
    return list;
}

static void workload_add(void *ctx, const struct workload_status *w)
{
    struct listing *l = ctx;
    struct buf key = {0};
    json_t *s = json_object(), *replicas = json_array();
    set_new(s, "observedGeneration", number(w->generation));
    set_new(s, "revision", number(w->revision));
    set_new(s, "replicas", json_integer(w->current));
    set_new(s, "updatedReplicas", json_integer(w->updated));
    set_new(s, "readyReplicas", json_integer(w->ready));
    set_new(s, "availableReplicas", json_integer(w->available));
    set_new(s, "unavailableReplicas", json_integer(w->wanted > w->available ? w->wanted - w->available : 0));
    set_new(s, "complete", json_boolean(w->complete));
    set_new(s, "why", reason_text(w->why));
    set_new(s, "conditions", workload_conditions(w));
    for (size_t i = 0; i < w->replicas_n; i++)
        json_array_append_new(replicas, replica_status(&w->replicas[i]));
    set_new(s, "replicaStatuses", replicas);
    buf_printf(&key, "%s/%s", w->ns, w->name);
    set_new(l->workloads, key.p, s);
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
    set_new(o, "port", json_integer(c->port));
    set_new(o, "workload", text_or_null(c->workload));
    for (uint32_t i = 0; i < c->eps_n; i++) {
        char text[ADDR_TEXT_MAX];
        json_t *e = json_object();
        size_t n = addr_format(&c->eps[i].address, text);
        set_new(e, "name", json_string(c->eps[i].name));
        set_new(e, "address", json_stringn(text, n));
        json_array_append_new(eps, e);
    }
    set_new(o, "endpoints", eps);
    return o;
}

static json_t *service_status(struct listing *l, const struct object *o)
{
    char text[ADDR_TEXT_MAX];
    json_t *s = json_object(), *ports = json_array();
    if (o->svc.address.family != ADDR_NONE) {
        size_t n = addr_format_ip(&o->svc.address, text);
        set_new(s, "address", json_stringn(text, n));
    }
    for (uint32_t i = 0; l->plan && i < l->plan->clusters_n; i++) {
        const struct plan_cluster *c = &l->plan->clusters[i];
        if (strcmp(c->ns, o->ns) == 0 && strcmp(c->service, o->name) == 0)
            json_array_append_new(ports, cluster_status(c));
    }
    set_new(s, "endpoints", ports);
    set_new(s, "loadBalancer", json_object());
    return s;
}

/* ---- Gateways and HTTPRoutes ----------------------------------------------------------------------------------------- */

static bool parent_is(const struct parent_ref *p, const struct object *gw, const char *section, uint16_t port)
{
    return strcmp(p->gateway, gw->name) == 0 && strcmp(p->ns, gw->ns) == 0 && (!p->section || !section || strcmp(p->section, section) == 0) &&
           (!p->port || !port || p->port == port);
}

/* Two host patterns have a host in common: "*.a" covers "x.a" and "x.y.a" (Gateway API, Listener.hostname). */
static bool hosts_meet(const char *a, const char *b)
{
    struct slice x = slice_cstr(a), y = slice_cstr(b);
    bool wild_x = slice_starts(x, SLICE("*.")), wild_y = slice_starts(y, SLICE("*."));
    if (wild_x && slice_iends(y, slice_of(x.p + 1, x.n - 1)))
        return true;
    if (wild_y && slice_iends(x, slice_of(y.p + 1, y.n - 1)))
        return true;
    return slice_ieq(x, y);
}

static bool route_hosts_meet(const struct http_route *r, const struct gw_listener *ln)
{
    if (!ln->hostname || !r->hostnames_n)
        return true;
    for (size_t i = 0; i < r->hostnames_n; i++)
        if (hosts_meet(r->hostnames[i], ln->hostname))
            return true;
    return false;
}

/* The Gateway API's reason for whether this listener takes the route: NULL when it does. */
static const char *listener_refuses(const struct object *route, const struct object *gw, const struct gw_listener *ln)
{
    if (!ln->from_all && strcmp(route->ns, gw->ns) != 0)
        return "NotAllowedByListeners";
    return route_hosts_meet(&route->route, ln) ? NULL : "NoMatchingListenerHostname";
}

static json_t *parent_accepted(struct listing *l, const struct object *route, const struct parent_ref *p)
{
    const struct object *gw = objset_find(l->set, OBJ_GATEWAY, p->ns, p->gateway);
    if (!gw)
        return condition("Accepted", false, "NoMatchingParent", "there is no such Gateway");
    const char *reason = "NoMatchingParent";
    for (size_t i = 0; i < gw->gw.listeners_n; i++) {
        const struct gw_listener *ln = &gw->gw.listeners[i];
        if (!parent_is(p, gw, ln->name, ln->port))
            continue;
        reason = listener_refuses(route, gw, ln);
        if (!reason)
            return condition("Accepted", true, "Accepted", "");
    }
    return condition("Accepted", false, reason, "no listener of the Gateway takes this route");
}

static bool service_has_port(const struct object *svc, uint16_t port)
{
    for (size_t i = 0; i < svc->svc.ports_n; i++)
        if (svc->svc.ports[i].port == port)
            return true;
    return svc->svc.external_name && !svc->svc.ports_n;
}

static json_t *route_resolved(struct listing *l, const struct http_route *r)
{
    for (size_t i = 0; i < r->rules_n; i++)
        for (size_t k = 0; k < r->rules[i].backends_n; k++) {
            const struct route_backend *b = &r->rules[i].backends[k];
            const struct object *svc = objset_find(l->set, OBJ_SERVICE, b->ns, b->service);
            if (svc && service_has_port(svc, b->port))
                continue;
            struct buf why = {0};
            buf_printf(&why, "Service %s/%s %s%u", b->ns, b->service, svc ? "has no port " : "is not there; port ", b->port);
            json_t *c = condition("ResolvedRefs", false, "BackendNotFound", why.p);
            buf_free(&why);
            return c;
        }
    return condition("ResolvedRefs", true, "ResolvedRefs", "");
}

static json_t *route_status(struct listing *l, const struct object *o)
{
    json_t *s = json_object(), *parents = json_array();
    for (size_t i = 0; i < o->route.parents_n; i++) {
        const struct parent_ref *p = &o->route.parents[i];
        json_t *e = json_object(), *ref = json_object(), *conditions = json_array();
        set_new(ref, "name", json_string(p->gateway));
        set_new(ref, "namespace", json_string(p->ns));
        if (p->section)
            set_new(ref, "sectionName", json_string(p->section));
        if (p->port)
            set_new(ref, "port", json_integer(p->port));
        set_new(e, "parentRef", ref);
        set_new(e, "controllerName", json_string(CONTROLLER));
        json_array_append_new(conditions, parent_accepted(l, o, p));
        json_array_append_new(conditions, route_resolved(l, &o->route));
        set_new(e, "conditions", conditions);
        json_array_append_new(parents, e);
    }
    set_new(s, "parents", parents);
    return s;
}

static unsigned attached_routes(struct listing *l, const struct object *gw, const struct gw_listener *ln)
{
    unsigned n = 0;
    for (size_t i = 0; i < objset_n(l->set); i++) {
        const struct object *o = objset_at(l->set, i);
        if (o->kind != OBJ_HTTPROUTE)
            continue;
        bool attached = false;
        for (size_t k = 0; k < o->route.parents_n && !attached; k++)
            attached = parent_is(&o->route.parents[k], gw, ln->name, ln->port) && !listener_refuses(o, gw, ln);
        n += attached;
    }
    return n;
}

/* The plan serves this port of this Gateway. */
static bool gateway_programmed(struct listing *l, const struct object *gw, uint16_t port)
{
    struct buf key = {0};
    bool found = false;
    buf_printf(&key, "%s/%s", gw->ns, gw->name);
    for (uint32_t i = 0; l->plan && i < l->plan->listeners_n && !found; i++)
        found = strcmp(l->plan->listeners[i].gateway, key.p) == 0 && l->plan->listeners[i].address.port == port;
    buf_free(&key);
    return found;
}

static json_t *gateway_status(struct listing *l, const struct object *o)
{
    char text[ADDR_TEXT_MAX];
    json_t *s = json_object(), *addresses = json_array(), *listeners = json_array(), *conditions = json_array();
    bool all = true;
    for (size_t i = 0; i < o->gw.addresses_n; i++) {
        json_t *a = json_object();
        size_t n = addr_format_ip(&o->gw.addresses[i], text);
        set_new(a, "type", json_string("IPAddress"));
        set_new(a, "value", json_stringn(text, n));
        json_array_append_new(addresses, a);
    }
    for (size_t i = 0; i < o->gw.listeners_n; i++) {
        const struct gw_listener *ln = &o->gw.listeners[i];
        json_t *e = json_object(), *c = json_array();
        bool on = gateway_programmed(l, o, ln->port);
        all = all && on;
        set_new(e, "name", json_string(ln->name));
        set_new(e, "attachedRoutes", json_integer(attached_routes(l, o, ln)));
        json_array_append_new(c, condition("Accepted", true, "Accepted", ""));
        json_array_append_new(c, condition("Programmed", on, on ? "Programmed" : "Pending", ""));
        set_new(e, "conditions", c);
        json_array_append_new(listeners, e);
    }
    json_array_append_new(conditions, condition("Accepted", true, "Accepted", ""));
    json_array_append_new(conditions, condition("Programmed", all, all ? "Programmed" : "Pending", ""));
    set_new(s, "addresses", addresses);
    set_new(s, "listeners", listeners);
    set_new(s, "conditions", conditions);
    return s;
}

/* ---- one object ------------------------------------------------------------------------------------------------------------ */

/* data has every key (stringData included), no value. */
static void secret_redact(json_t *o, const struct object *obj)
{
    json_t *data = json_object();
    for (size_t i = 0; i < obj->data.n; i++) {
        char text[64];
        snprintf(text, sizeof text, "(redacted: %zu bytes)", obj->data.items[i].value_n);
        set_new(data, obj->data.items[i].key, json_string(text));
    }
    json_object_del(o, "stringData");
    set_new(o, "data", data);
    /* kubectl apply writes the whole manifest, values and all, into this one. */
    json_object_del(json_object_get(json_object_get(o, "metadata"), "annotations"), "kubectl.kubernetes.io/last-applied-configuration");
}

static json_t *object_status(struct listing *l, const struct object *o)
{
    json_t *phase;
    switch (o->kind) {
    case OBJ_DEPLOYMENT: return deployment_status(l, o);
    case OBJ_SERVICE: return service_status(l, o);
    case OBJ_HTTPROUTE: return route_status(l, o);
    case OBJ_GATEWAY: return gateway_status(l, o);
    case OBJ_NAMESPACE:
        phase = json_object();
        set_new(phase, "phase", json_string("Active"));
        return phase;
    default: return NULL;
    }
}

static json_t *object_json(struct listing *l, const struct object *obj)
{
    char when[32];
    json_t *o = json_loads(obj->json, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(o)) { /* the reader made it: this would be our own mistake, shown rather than hidden */
        json_decref(o);
        o = json_object();
        set_new(o, "kind", json_string(obj_kind_name(obj->kind)));
    }
    json_t *meta = json_object_get(o, "metadata");
    if (!json_is_object(meta)) {
        set_new(o, "metadata", json_object());
        meta = json_object_get(o, "metadata");
    }
    set_new(meta, "name", json_string(obj->name));
    if (obj->kind != OBJ_NAMESPACE)
        set_new(meta, "namespace", json_string(obj->ns));
    if (obj->created_ns)
        set_new(meta, "creationTimestamp", json_string(api_time_text(when, obj->created_ns)));
    set_new(meta, "generation", number(obj->generation));
    if (obj->kind == OBJ_SECRET)
        secret_redact(o, obj);
    json_object_del(o, "status");
    json_t *status = object_status(l, obj);
    if (status)
        set_new(o, "status", status);
    return o;
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------ */

static int dump_to_buf(const char *p, size_t n, void *out)
{
    buf_add(out, p, n);
    return 0;
}

static void answer_list(struct api_conn *c, enum obj_kind only)
{
    const char *ns = api_query(c, "namespace"), *name = api_query(c, "name");
    struct api *a = c->api;
    struct listing l = {.api = a, .set = a->ops->objects(a->ctx), .plan = a->ops->plan(a->ctx), .workloads = json_object()};
    struct run *run = a->ops->run(a->ctx);
    if (run && (only == OBJ_KIND_COUNT || only == OBJ_DEPLOYMENT))
        run_status(run, workload_add, &l);
    struct buf out = {0};
    bool first = true;
    buf_adds(&out, "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
    for (size_t i = 0; i < objset_n(l.set); i++) {
        const struct object *o = objset_at(l.set, i);
        if ((only != OBJ_KIND_COUNT && o->kind != only) || (name && strcmp(name, o->name) != 0))
            continue;
        if (ns && o->kind != OBJ_NAMESPACE && strcmp(ns, o->ns) != 0)
            continue;
        if (!first)
            buf_addc(&out, ',');
        first = false;
        json_t *j = object_json(&l, o);
        json_dump_callback(j, dump_to_buf, &out, JSON_COMPACT);
        json_decref(j);
    }
    buf_adds(&out, "]}\n");
    json_decref(l.workloads);
    api_answer_json(c, 200, &out);
    buf_free(&out);
}

void api_get_objects(struct api_conn *c)
{
    const char *kind = api_query(c, "kind");
    enum obj_kind k = OBJ_KIND_COUNT;
    if (kind && !obj_kind_parse(slice_cstr(kind), &k))
        api_error(c, 400, "use a kind that Weir knows: Deployment, Service, HTTPRoute, Gateway, ConfigMap, Secret, Namespace", "unknown kind \"%s\"", kind);
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
