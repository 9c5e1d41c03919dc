/* objects.c - GET of objects: each as its manifest says, with metadata completed and a "status" as Kubernetes has it.
 *
 *     objset (what is wanted)  --+
 *     run_status (replicas)    --+-->  {"apiVersion":"v1","kind":"List","items":[{..., "status":{...}}]}
 *     plan (endpoints)         --+
 *
 * Topics get their status from the node, which asks the broker.
 *
 * What Kubernetes has no field for is added under names that it does not use: status.replicaStatuses, status.revision and
 * status.why of Deployments, status.address and status.endpoints of Services. Values of Secrets never leave: they are
 * replaced by a text that can't be applied back by mistake, for it is no base64.
 */
#include "api_int.h"

#include <stdio.h>

/* One answer under construction. */
struct listing {
    struct api *api;
    const struct objset *set;
    const struct plan *plan; /* may be NULL: nothing compiled yet */
    json_t *workloads;       /* "ns/name" -> status */
};

static json_t *text_or_null(const char *s) { return s ? json_string(s) : json_null(); }
static json_t *number(uint64_t v) { return json_integer((json_int_t)v); }

/* ---- Deployments ------------------------------------------------------------------------------------------------------ */

static json_t *replica_status(const struct replica_status *r)
{
    char when[32];
    json_t *o = json_object();
    json_put(o, "name", json_string(r->name));
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
        size_t n = addr_format(&c->eps[i].address, text);
        json_put(e, "name", json_string(c->eps[i].name));
        json_put(e, "address", json_stringn(text, n));
        json_array_append_new(eps, e);
    }
    json_put(o, "endpoints", eps);
    return o;
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
    json_put(s, "loadBalancer", json_object());
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
        json_put(data, obj->data.items[i].key, json_string(text));
    }
    json_object_del(o, "stringData");
    json_put(o, "data", data);
    /* kubectl apply writes the whole manifest, values and all, into this one. */
    json_object_del(json_object_get(json_object_get(o, "metadata"), "annotations"), "kubectl.kubernetes.io/last-applied-configuration");
}

/* ---- topics -------------------------------------------------------------------------------------------------------------- */

/* Ready, as Strimzi names it: the broker has the topic as the object wants it. */
static json_t *topic_status(struct listing *l, const struct object *o)
{
    struct buf why = {0};
    json_t *s = json_object(), *conditions = json_array();
    int state = -1;
    if (l->api->ops->topic)
        state = l->api->ops->topic(l->api->ctx, o, &why);
    else
        buf_adds(&why, "this node has no event log");
    json_array_append_new(conditions, json_condition("Ready", state > 0, state > 0 ? "Ready" : state ? "Refused" : "Pending", why.n ? why.p : ""));
    json_put(s, "conditions", conditions);
    json_put(s, "observedGeneration", number(o->generation));
    json_put(s, "topicName", json_string(o->topic.topic));
    buf_free(&why);
    return s;
}

static json_t *object_status(struct listing *l, const struct object *o)
{
    json_t *phase;
    switch (o->kind) {
    case OBJ_TOPIC:
    case OBJ_KAFKATOPIC: return topic_status(l, o);
    case OBJ_DEPLOYMENT: return deployment_status(l, o);
    case OBJ_SERVICE: return service_status(l, o);
    case OBJ_NAMESPACE:
        phase = json_object();
        json_put(phase, "phase", json_string("Active"));
        return phase;
    default: return conditions_status(l->set, l->plan, o);
    }
}

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
    if (obj->kind == OBJ_SECRET)
        secret_redact(o, obj);
    json_object_del(o, "status");
    json_t *status = object_status(l, obj);
    if (status)
        json_put(o, "status", status);
    return o;
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------ */

static int dump_to_buf(const char *p, size_t n, void *out)
{
    buf_add(out, p, n);
    return 0;
}

static void list_add(struct buf *out, json_t *item)
{
    if (out->p[out->n - 1] != '[')
        buf_addc(out, ',');
    json_dump_callback(item, dump_to_buf, out, JSON_COMPACT);
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
    struct listing l = {.api = a, .set = a->ops->objects(a->ctx), .plan = a->ops->plan(a->ctx), .workloads = json_object()};
    struct run *run = a->ops->run(a->ctx);
    if (run && (only == OBJ_KIND_COUNT || only == OBJ_DEPLOYMENT))
        run_status(run, workload_add, &l);
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
