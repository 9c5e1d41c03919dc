/* cmd_get.c - weir get: objects as tables, JSON, YAML or names.
 *
 *     GET /v1/KIND?namespace=  ->  filter by the names given  ->  one table per kind, or one document
 *
 * `replicas` is a view of workloads: one row for each entry of status.replicaStatuses, which stands in for kubectl's pods.
 */
#include "cli.h"

enum format { FORMAT_TABLE, FORMAT_WIDE, FORMAT_JSON, FORMAT_YAML, FORMAT_NAME };

/* What was asked for. */
struct getting {
    const struct args *a;
    enum format format;
    bool all_ns;
    const char **names; /* empty: all */
    size_t names_n;
    bool *found;     /* for each of names */
    bool kinds_many; /* `get all`: rows carry the kind, empty tables are left out */
    size_t tables;   /* printed so far */
    size_t objects;  /* shown so far */
    json_t *items;   /* JSON and YAML: collected here */
};

/* ---- looking into JSON ------------------------------------------------------------------------------------------------ */

/* The member at a path of keys separated by dots; NULL when any is missing. */
static json_t *at(const json_t *o, const char *path)
{
    struct slice rest = slice_cstr(path);
    json_t *v = (json_t *)(uintptr_t)o;
    while (v && rest.n) {
        char key[64];
        struct slice k = slice_cut(rest, '.', &rest);
        snprintf(key, sizeof key, SLICE_FMT, SLICE_ARG(k));
        v = json_object_get(v, key);
    }
    return v;
}

static const char *text_at(const json_t *o, const char *path)
{
    const char *s = json_string_value(at(o, path));
    return s ? s : "";
}

static long long number_at(const json_t *o, const char *path) { return json_integer_value(at(o, path)); }

static void joined_add(struct buf *out, const char *separator, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void joined_add(struct buf *out, const char *separator, const char *fmt, ...)
{
    va_list ap;
    if (out->n)
        buf_adds(out, separator);
    va_start(ap, fmt);
    buf_vprintf(out, fmt, ap);
    va_end(ap);
}

static void cell_take(struct grid *g, struct buf *b)
{
    grid_add(g, "%s", b->p ? b->p : "");
    buf_free(b);
}

static void age_cell(struct grid *g, const json_t *o, const char *path)
{
    char age[16];
    age_text(json_string_value(at(o, path)), age);
    grid_add(g, "%s", age);
}

/* "True" or the reason of the condition that isn't. */
static const char *condition_text(const json_t *conditions, const char *type)
{
    size_t i;
    json_t *c;
    json_array_foreach (conditions, i, c)
        if (strcmp(text_at(c, "type"), type) == 0)
            return strcmp(text_at(c, "status"), "True") == 0 ? "True" : text_at(c, "reason");
    return "";
}

static const char *condition_message(const json_t *conditions, const char *type)
{
    size_t i;
    json_t *c;
    json_array_foreach (conditions, i, c)
        if (strcmp(text_at(c, "type"), type) == 0)
            return text_at(c, "message");
    return "";
}

static const char *worst_condition(const json_t *conditions)
{
    size_t i;
    json_t *c;
    json_array_foreach (conditions, i, c)
        if (strcmp(text_at(c, "status"), "True") != 0)
            return text_at(c, "reason");
    return json_array_size(conditions) ? "True" : "";
}

/* ---- rows, by kind ---------------------------------------------------------------------------------------------------- */

/* The state in words: why it isn't complete, or why a replica isn't ready or was restarted. */
static void workload_why(const json_t *o, struct buf *out)
{
    size_t i;
    json_t *r;
    const char *why = text_at(o, "status.why");
    if (*why)
        joined_add(out, "; ", "%s", why);
    json_array_foreach (at(o, "status.replicaStatuses"), i, r) {
        why = text_at(r, "why");
        if (*why && (!json_is_true(at(r, "ready")) || number_at(r, "restarts") > 0) && !(out->p && strstr(out->p, why)))
            joined_add(out, "; ", "%s", why);
    }
    if (!out->n)
        buf_adds(out, json_is_true(at(o, "status.complete")) ? "ok" : "in progress");
}

static long long restarts_of(const json_t *o)
{
    size_t i;
    json_t *r;
    long long n = 0;
    json_array_foreach (at(o, "status.replicaStatuses"), i, r)
        n += number_at(r, "restarts");
    return n;
}

/* "a,b:2": where its replicas are, and how many where there are several. */
static void nodes_cell(struct grid *g, const json_t *replicas)
{
    json_t *counts = json_object(), *r, *n;
    struct buf text = {0};
    const char *node;
    size_t i;
    json_array_foreach (replicas, i, r)
        if (*text_at(r, "node"))
            json_object_set_new(counts, text_at(r, "node"), json_integer(1 + json_integer_value(json_object_get(counts, text_at(r, "node")))));
    json_object_foreach (counts, node, n) {
        joined_add(&text, ",", "%s", node);
        if (json_integer_value(n) > 1)
            buf_printf(&text, ":%lld", (long long)json_integer_value(n));
    }
    if (!text.n)
        buf_addc(&text, '-');
    cell_take(g, &text);
    json_decref(counts);
}

static void row_workload(struct grid *g, const json_t *o, bool wide)
{
    struct buf why = {0}, pids = {0};
    json_t *wanted = at(o, "spec.replicas"), *r;
    size_t i;
    grid_add(g, "%lld/%lld", number_at(o, "status.readyReplicas"), wanted ? (long long)json_integer_value(wanted) : 1);
    grid_add(g, "%lld", number_at(o, "status.updatedReplicas"));
    grid_add(g, "%lld", number_at(o, "status.availableReplicas"));
    grid_add(g, "%lld", restarts_of(o));
    age_cell(g, o, "metadata.creationTimestamp");
    nodes_cell(g, at(o, "status.replicaStatuses"));
    if (wide) {
        grid_add(g, "%lld", number_at(o, "status.revision"));
        json_array_foreach (at(o, "status.replicaStatuses"), i, r)
            joined_add(&pids, ",", "%lld", number_at(r, "pid"));
        cell_take(g, &pids);
    }
    workload_why(o, &why);
    cell_take(g, &why);
}

static void row_replica(struct grid *g, const json_t *o, const json_t *r)
{
    grid_add(g, "%s", text_at(o, "metadata.name"));
    grid_add(g, "%s", json_is_true(at(r, "ready")) ? "yes" : "no");
    grid_add(g, "%s", text_at(r, "phase"));
    grid_add(g, "%lld", number_at(r, "restarts"));
    age_cell(g, r, "startedAt");
    grid_add(g, "%lld", number_at(r, "pid"));
    grid_add(g, "%s", *text_at(r, "node") ? text_at(r, "node") : "-");
    grid_add(g, "%s", text_at(r, "why"));
}

static void row_service(struct grid *g, const json_t *o, bool wide)
{
    struct buf ports = {0}, selector = {0}, eps = {0};
    size_t i, most = 0;
    json_t *p, *e;
    const char *key, *external = text_at(o, "spec.externalName");
    grid_add(g, "%s", *external ? external : at(o, "status.replicas") ? "None" : text_at(o, "status.address"));
    json_array_foreach (at(o, "spec.ports"), i, p)
        joined_add(&ports, ",", "%lld", number_at(p, "port"));
    cell_take(g, &ports);
    json_array_foreach (at(o, "status.endpoints"), i, p)
        most = MAX(most, json_array_size(at(p, "endpoints")));
    grid_add(g, "%zu", most);
    age_cell(g, o, "metadata.creationTimestamp");
    if (!wide)
        return;
    json_object_foreach (at(o, "spec.selector"), key, e)
        joined_add(&selector, ",", "%s=%s", key, json_string_value(e) ? json_string_value(e) : "");
    cell_take(g, &selector);
    json_array_foreach (at(json_array_get(at(o, "status.endpoints"), 0), "endpoints"), i, e)
        joined_add(&eps, ",", "%s", text_at(e, "name"));
    cell_take(g, &eps);
}

static void row_gateway(struct grid *g, const json_t *o, bool wide)
{
    struct buf addresses = {0}, ports = {0}, routes = {0};
    size_t i;
    json_t *e;
    json_array_foreach (at(o, "status.addresses"), i, e)
        joined_add(&addresses, ",", "%s", text_at(e, "value"));
    cell_take(g, &addresses);
    json_array_foreach (at(o, "spec.listeners"), i, e)
        joined_add(&ports, ",", "%lld", number_at(e, "port"));
    cell_take(g, &ports);
    json_array_foreach (at(o, "status.listeners"), i, e) /* in the order of spec.listeners: a number for each of PORTS */
        joined_add(&routes, ",", "%lld", number_at(e, "attachedRoutes"));
    cell_take(g, &routes);
    grid_add(g, "%s", condition_text(at(o, "status.conditions"), "Programmed"));
    age_cell(g, o, "metadata.creationTimestamp");
}

/* "/api -> catalog:80 9, catalog-v2:80 1" for each rule. */
static void route_rules(const json_t *o, struct buf *out)
{
    size_t i, k;
    json_t *rule, *b;
    json_array_foreach (at(o, "spec.rules"), i, rule) {
        const char *path = text_at(json_array_get(at(rule, "matches"), 0), "path.value");
        joined_add(out, "; ", "%s ->", *path ? path : "/");
        json_array_foreach (at(rule, "backendRefs"), k, b)
            buf_printf(out, "%s %s:%lld", k ? "," : "", text_at(b, "name"), number_at(b, "port"));
    }
}

static void row_route(struct grid *g, const json_t *o, bool wide)
{
    struct buf hosts = {0}, parents = {0}, rules = {0};
    const char *state = "True";
    size_t i;
    json_t *e;
    json_array_foreach (at(o, "status.parents"), i, e) {
        const char *s = worst_condition(at(e, "conditions"));
        joined_add(&parents, ",", "%s", text_at(e, "parentRef.name"));
        state = strcmp(state, "True") == 0 ? s : state;
    }
    cell_take(g, &parents);
    json_array_foreach (at(o, "spec.hostnames"), i, e)
        joined_add(&hosts, ",", "%s", json_string_value(e) ? json_string_value(e) : "");
    if (!hosts.n)
        buf_adds(&hosts, "*");
    cell_take(g, &hosts);
    grid_add(g, "%s", state);
    age_cell(g, o, "metadata.creationTimestamp");
    if (wide) {
        route_rules(o, &rules);
        cell_take(g, &rules);
    }
}

static void row_map(struct grid *g, const json_t *o, bool wide)
{
    struct buf keys = {0};
    const char *key;
    json_t *e;
    grid_add(g, "%zu", json_object_size(at(o, "data")) + json_object_size(at(o, "binaryData")));
    age_cell(g, o, "metadata.creationTimestamp");
    if (wide) {
        json_object_foreach (at(o, "data"), key, e)
            joined_add(&keys, ",", "%s", key);
        cell_take(g, &keys);
    }
}

static void row_secret(struct grid *g, const json_t *o, bool wide)
{
    const char *type = text_at(o, "type");
    grid_add(g, "%s", *type ? type : "Opaque");
    row_map(g, o, wide);
}

static void row_namespace(struct grid *g, const json_t *o, bool wide)
{
    grid_add(g, "%s", text_at(o, "status.phase"));
    age_cell(g, o, "metadata.creationTimestamp");
}

/* The strings of a list, or the member `key` of its maps, with commas between; "-" when there are none. */
static void list_cell(struct grid *g, const json_t *list, const char *key)
{
    struct buf text = {0};
    size_t i;
    json_t *e;
    json_array_foreach (list, i, e) {
        const char *s = key ? text_at(e, key) : json_string_value(e);
        joined_add(&text, ",", "%s", s && *s ? s : "-");
    }
    if (!text.n)
        buf_addc(&text, '-');
    cell_take(g, &text);
}

static void text_cell(struct grid *g, const json_t *o, const char *path, const char *absent)
{
    const char *s = text_at(o, path);
    grid_add(g, "%s", *s ? s : absent);
}

static void reconciled_cells(struct grid *g, const json_t *o)
{
    grid_add(g, "%s", condition_text(at(o, "status.conditions"), "Reconciled"));
    age_cell(g, o, "metadata.creationTimestamp");
}

static void row_age(struct grid *g, const json_t *o, bool wide) { age_cell(g, o, "metadata.creationTimestamp"); }

static void row_grant(struct grid *g, const json_t *o, bool wide)
{
    list_cell(g, at(o, "spec.from"), "namespace");
    list_cell(g, at(o, "spec.to"), "kind");
    age_cell(g, o, "metadata.creationTimestamp");
}

/* Policies of either kind: BackendTLSPolicy has conditions for each Service, BackendPolicy for itself. */
static void row_policy(struct grid *g, const json_t *o, bool wide)
{
    const char *state = condition_text(at(o, "status.conditions"), "Reconciled");
    size_t i;
    json_t *e;
    json_array_foreach (at(o, "status.ancestors"), i, e) {
        const char *s = worst_condition(at(e, "conditions"));
        state = !*state || strcmp(state, "True") == 0 ? s : state;
    }
    list_cell(g, at(o, "spec.targetRefs"), "name");
    grid_add(g, "%s", state);
    age_cell(g, o, "metadata.creationTimestamp");
}

static void row_virtual_service(struct grid *g, const json_t *o, bool wide)
{
    list_cell(g, at(o, "spec.gateways"), NULL);
    list_cell(g, at(o, "spec.hosts"), NULL);
    reconciled_cells(g, o);
}

static void row_destination_rule(struct grid *g, const json_t *o, bool wide)
{
    text_cell(g, o, "spec.host", "-");
    list_cell(g, at(o, "spec.subsets"), "name");
    reconciled_cells(g, o);
}

static void row_istio_gateway(struct grid *g, const json_t *o, bool wide)
{
    struct buf ports = {0}, hosts = {0};
    size_t i, k;
    json_t *server, *host;
    json_array_foreach (at(o, "spec.servers"), i, server) {
        joined_add(&ports, ",", "%lld", number_at(server, "port.number"));
        json_array_foreach (at(server, "hosts"), k, host)
            joined_add(&hosts, ",", "%s", json_string_value(host) ? json_string_value(host) : "");
    }
    list_cell(g, at(o, "status.addresses"), "value");
    cell_take(g, &ports);
    cell_take(g, &hosts);
    grid_add(g, "%s", condition_text(at(o, "status.conditions"), "Programmed"));
    age_cell(g, o, "metadata.creationTimestamp");
}

static void row_service_entry(struct grid *g, const json_t *o, bool wide)
{
    list_cell(g, at(o, "spec.hosts"), NULL);
    text_cell(g, o, "spec.location", "MESH_EXTERNAL");
    text_cell(g, o, "spec.resolution", "NONE");
    list_cell(g, at(o, "status.addresses"), "value");
    reconciled_cells(g, o);
}

static void row_peer(struct grid *g, const json_t *o, bool wide)
{
    text_cell(g, o, "spec.mtls.mode", "UNSET");
    age_cell(g, o, "metadata.creationTimestamp");
}

static void row_split(struct grid *g, const json_t *o, bool wide)
{
    text_cell(g, o, "spec.service", "-");
    list_cell(g, at(o, "spec.backends"), "service");
    reconciled_cells(g, o);
}

static void row_filter(struct grid *g, const json_t *o, bool wide)
{
    const char *key;
    json_t *e;
    const char *kind = "-";
    json_object_foreach (at(o, "spec"), key, e)
        kind = key;
    grid_add(g, "%s", kind);
    reconciled_cells(g, o);
}

static void row_topic(struct grid *g, const json_t *o, bool wide)
{
    text_cell(g, o, "status.topicName", "-");
    grid_add(g, "%lld", number_at(o, "spec.partitions") ? number_at(o, "spec.partitions") : 1);
    grid_add(g, "%s", condition_text(at(o, "status.conditions"), "Ready"));
    age_cell(g, o, "metadata.creationTimestamp");
    if (wide)
        grid_add(g, "%s", condition_message(at(o, "status.conditions"), "Ready"));
}

static void row_keyspace(struct grid *g, const json_t *o, bool wide)
{
    const json_t *acls = at(o, "spec.acls"), *acl;
    struct buf who = {0};
    size_t i;
    text_cell(g, o, "spec.prefix", "-");
    json_array_foreach(acls, i, acl) buf_printf(&who, "%s%s", i ? "," : "", text_at(acl, "principal"));
    grid_add(g, "%s", who.n ? who.p : "-");
    buf_free(&who);
    grid_add(g, "%s", condition_text(at(o, "status.conditions"), "Ready"));
    age_cell(g, o, "metadata.creationTimestamp");
    if (wide)
        grid_add(g, "%s", condition_message(at(o, "status.conditions"), "Ready"));
}

static void row_node(struct grid *g, const json_t *o, bool wide)
{
    const json_t *conditions = at(o, "status.conditions");
    bool ready = strcmp(condition_text(conditions, "Ready"), "True") == 0;
    grid_add(g, "%s%s", ready ? "Ready" : "NotReady", json_is_true(at(o, "status.leaving")) ? ",SchedulingDisabled" : "");
    grid_add(g, "%s", json_is_true(at(o, "status.leader")) ? "leader" : "-");
    age_cell(g, o, "metadata.creationTimestamp");
    text_cell(g, o, "status.nodeInfo.kubeletVersion", "-");
    grid_add(g, "%lld", number_at(o, "status.readyReplicas"));
    if (!wide)
        return;
    text_cell(g, json_array_get(at(o, "status.addresses"), 0), "address", "-");
    text_cell(g, o, "status.locality", "-");
    grid_add(g, "%s", condition_message(conditions, "Ready"));
}

static void row_slice(struct grid *g, const json_t *o, bool wide)
{
    size_t i;
    json_t *e;
    struct buf endpoints = {0}, nodes = {0};
    json_array_foreach (at(o, "endpoints"), i, e) {
        joined_add(&endpoints, ",", "%s", text_at(e, "targetRef.name"));
        joined_add(&nodes, ",", "%s", text_at(e, "nodeName"));
    }
    long long port = number_at(json_array_get(at(o, "ports"), 0), "port");
    text_cell(g, o, "addressType", "-");
    if (port)
        grid_add(g, "%lld", port);
    else
        grid_add(g, "%s", "-");
    cell_take(g, &endpoints);
    age_cell(g, o, "metadata.creationTimestamp");
    if (wide)
        cell_take(g, &nodes);
    buf_free(&nodes);
}

/* The columns behind NAMESPACE and NAME. */
static const struct layout {
    enum obj_kind kind;
    bool replicas;
    const char *heads[9], *wide[3]; /* NULL-terminated */
    bool wide_before_last;          /* the last narrow column stays last: free text */
    void (*row)(struct grid *, const json_t *, bool wide);
} layouts[] = {
    {OBJ_DEPLOYMENT, false, {"READY", "UP-TO-DATE", "AVAILABLE", "RESTARTS", "AGE", "NODE", "STATE"}, {"REVISION", "PIDS"}, true, row_workload},
    {OBJ_DEPLOYMENT, true, {"WORKLOAD", "READY", "PHASE", "RESTARTS", "AGE", "PID", "NODE", "WHY"}, {NULL}, false, NULL},
    {OBJ_SERVICE, false, {"ADDRESS", "PORTS", "ENDPOINTS", "AGE"}, {"SELECTOR", "REPLICAS"}, false, row_service},
    {OBJ_GATEWAY, false, {"ADDRESSES", "PORTS", "ROUTES", "PROGRAMMED", "AGE"}, {NULL}, false, row_gateway},
    {OBJ_HTTPROUTE, false, {"GATEWAYS", "HOSTNAMES", "ACCEPTED", "AGE"}, {"RULES"}, false, row_route},
    {OBJ_CONFIGMAP, false, {"DATA", "AGE"}, {"KEYS"}, false, row_map},
    {OBJ_SECRET, false, {"TYPE", "DATA", "AGE"}, {"KEYS"}, false, row_secret},
    {OBJ_NAMESPACE, false, {"STATUS", "AGE"}, {NULL}, false, row_namespace},
    {OBJ_GRPCROUTE, false, {"GATEWAYS", "HOSTNAMES", "ACCEPTED", "AGE"}, {NULL}, false, row_route},
    {OBJ_TCPROUTE, false, {"GATEWAYS", "HOSTNAMES", "ACCEPTED", "AGE"}, {NULL}, false, row_route},
    {OBJ_TLSROUTE, false, {"GATEWAYS", "HOSTNAMES", "ACCEPTED", "AGE"}, {NULL}, false, row_route},
    {OBJ_REFERENCEGRANT, false, {"FROM", "TO", "AGE"}, {NULL}, false, row_grant},
    {OBJ_BACKENDTLSPOLICY, false, {"SERVICES", "ACCEPTED", "AGE"}, {NULL}, false, row_policy},
    {OBJ_VIRTUALSERVICE, false, {"GATEWAYS", "HOSTS", "RECONCILED", "AGE"}, {NULL}, false, row_virtual_service},
    {OBJ_DESTINATIONRULE, false, {"HOST", "SUBSETS", "RECONCILED", "AGE"}, {NULL}, false, row_destination_rule},
    {OBJ_ISTIO_GATEWAY, false, {"ADDRESSES", "PORTS", "HOSTS", "PROGRAMMED", "AGE"}, {NULL}, false, row_istio_gateway},
    {OBJ_SERVICEENTRY, false, {"HOSTS", "LOCATION", "RESOLUTION", "ADDRESSES", "RECONCILED", "AGE"}, {NULL}, false, row_service_entry},
    {OBJ_SIDECAR, false, {"AGE"}, {NULL}, false, row_age},
    {OBJ_PEERAUTHENTICATION, false, {"MODE", "AGE"}, {NULL}, false, row_peer},
    {OBJ_TRAFFICSPLIT, false, {"SERVICE", "BACKENDS", "RECONCILED", "AGE"}, {NULL}, false, row_split},
    {OBJ_HTTPFILTER, false, {"KIND", "RECONCILED", "AGE"}, {NULL}, false, row_filter},
    {OBJ_BACKENDPOLICY, false, {"SERVICES", "RECONCILED", "AGE"}, {NULL}, false, row_policy},
    {OBJ_TOPIC, false, {"TOPIC", "PARTITIONS", "READY", "AGE"}, {"WHY"}, false, row_topic},
    {OBJ_KEYSPACE, false, {"PREFIX", "PRINCIPALS", "READY", "AGE"}, {"WHY"}, false, row_keyspace},
    {VIEW_NODE, false, {"STATUS", "ROLES", "AGE", "VERSION", "REPLICAS"}, {"ADDRESS", "LOCALITY", "WHY"}, false, row_node},
    {VIEW_ENDPOINTSLICE, false, {"ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"}, {"NODES"}, false, row_slice},
    {OBJ_KAFKATOPIC, false, {"TOPIC", "PARTITIONS", "READY", "AGE"}, {"WHY"}, false, row_topic},
};

static const struct layout *layout_of(const struct view *v)
{
    size_t i = 0;
    while (i < COUNT_OF(layouts) && (layouts[i].kind != v->kind || layouts[i].replicas != v->replicas))
        i++;
    MUST(i < COUNT_OF(layouts)); /* every view has one */
    return &layouts[i];
}

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

static size_t layout_heads(const struct getting *g, const struct layout *l, const char *out[16])
{
    size_t n = 0, narrow = 0, wide = 0;
    while (l->heads[narrow])
        narrow++;
    while (g->format == FORMAT_WIDE && wide < COUNT_OF(l->wide) && l->wide[wide])
        wide++;
    if (g->all_ns && l->kind != OBJ_NAMESPACE && l->kind != VIEW_NODE)
        out[n++] = "NAMESPACE";
    out[n++] = "NAME";
    for (size_t i = 0; i < narrow - (l->wide_before_last && wide); i++)
        out[n++] = l->heads[i];
    for (size_t i = 0; i < wide; i++)
        out[n++] = l->wide[i];
    if (l->wide_before_last && wide)
        out[n++] = l->heads[narrow - 1];
    return n;
}

static bool wanted(struct getting *g, const char *name)
{
    for (size_t i = 0; i < g->names_n; i++)
        if (strcmp(g->names[i], name) == 0)
            return g->found[i] = true;
    return g->names_n == 0;
}

static void row_begin(const struct getting *g, struct grid *grid, const struct view *v, const json_t *o, const char *name)
{
    if (g->all_ns && v->kind != OBJ_NAMESPACE && v->kind != VIEW_NODE)
        grid_add(grid, "%s", text_at(o, "metadata.namespace"));
    if (g->kinds_many)
        grid_add(grid, "%s/%s", v->prefix, name);
    else
        grid_add(grid, "%s", name);
}

static void rows_replicas(struct getting *g, struct grid *grid, const struct view *v, const json_t *o, size_t *rows)
{
    size_t i;
    json_t *r;
    bool whole = wanted(g, text_at(o, "metadata.name")); /* a workload's name means all of its replicas */
    json_array_foreach (at(o, "status.replicaStatuses"), i, r) {
        if (!whole && !wanted(g, text_at(r, "name")))
            continue;
        row_begin(g, grid, v, o, text_at(r, "name"));
        row_replica(grid, o, r);
        ++*rows;
    }
}

static void show_table(struct getting *g, const struct view *v, const json_t *items)
{
    const struct layout *l = layout_of(v);
    const char *heads[16];
    struct grid grid;
    struct buf out = {0};
    size_t i, rows = 0;
    json_t *o;
    grid_init(&grid, heads, 0);
    grid.columns = layout_heads(g, l, heads);
    for (i = 0; i < grid.columns; i++)
        grid_add(&grid, "%s", heads[i]);
    json_array_foreach (items, i, o) {
        if (v->replicas) {
            rows_replicas(g, &grid, v, o, &rows);
        } else if (wanted(g, text_at(o, "metadata.name"))) {
            row_begin(g, &grid, v, o, text_at(o, "metadata.name"));
            l->row(&grid, o, g->format == FORMAT_WIDE);
            rows++;
        }
    }
    if (rows) {
        if (g->tables++)
            putchar('\n');
        grid_write(&grid, &out);
        fwrite(out.p, 1, out.n, stdout);
        buf_free(&out);
    }
    g->objects += rows;
    grid_free(&grid);
}

/* ---- other formats ---------------------------------------------------------------------------------------------------- */

static void show_names(struct getting *g, const struct view *v, const json_t *items)
{
    size_t i, k;
    json_t *o, *r;
    json_array_foreach (items, i, o) {
        const char *name = text_at(o, "metadata.name");
        bool whole = wanted(g, name);
        if (!v->replicas && whole) {
            printf("%s/%s\n", v->prefix, name);
            g->objects++;
        }
        json_array_foreach (v->replicas ? at(o, "status.replicaStatuses") : NULL, k, r)
            if (whole || wanted(g, text_at(r, "name"))) {
                printf("%s/%s\n", v->prefix, text_at(r, "name"));
                g->objects++;
            }
    }
}

/* Replicas have no manifest: their entries are shown as they are in status, with the workload's name. */
static void collect(struct getting *g, const struct view *v, const json_t *items)
{
    size_t i, k;
    json_t *o, *r;
    json_array_foreach (items, i, o) {
        bool whole = wanted(g, text_at(o, "metadata.name"));
        if (!v->replicas && whole)
            json_array_append(g->items, o);
        json_array_foreach (v->replicas ? at(o, "status.replicaStatuses") : NULL, k, r)
            if (whole || wanted(g, text_at(r, "name"))) {
                json_object_set(r, "workload", at(o, "metadata.name"));
                json_object_set(r, "namespace", at(o, "metadata.namespace"));
                json_array_append(g->items, r);
            }
    }
    g->objects = json_array_size(g->items);
}

/* One object asked for by name is shown alone, else a List. */
static void show_document(struct getting *g)
{
    json_t *doc;
    if (g->names_n == 1 && json_array_size(g->items) == 1)
        doc = json_incref(json_array_get(g->items, 0));
    else
        doc = json_pack("{s:s, s:s, s:O}", "apiVersion", "v1", "kind", "List", "items", g->items);
    if (g->format == FORMAT_YAML) {
        yaml_write(doc, stdout);
    } else {
        json_dumpf(doc, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(doc);
}

static int show(struct getting *g, const struct view *v)
{
    struct buf target = {0};
    json_t *list;
    buf_adds(&target, v->endpoint);
    if (args_has(g->a, "show-managed-fields"))
        query_add(&target, "owners", "1");
    if (!g->all_ns && v->kind != OBJ_NAMESPACE)
        query_add(&target, "namespace", args_namespace(g->a));
    int code = node_get_json(g->a, target.p, &list);
    buf_free(&target);
    if (code)
        return code;
    const json_t *items = json_object_get(list, "items");
    if (g->format == FORMAT_NAME)
        show_names(g, v, items);
    else if (g->items)
        collect(g, v, items);
    else
        show_table(g, v, items);
    json_decref(list);
    return EXIT_OK;
}

/* ---- the command --------------------------------------------------------------------------------------------------------- */

static int format_of(const struct args *a, enum format *out)
{
    static const struct {
        const char *name;
        enum format f;
    } formats[] = {{"wide", FORMAT_WIDE}, {"json", FORMAT_JSON}, {"yaml", FORMAT_YAML}, {"name", FORMAT_NAME}};
    const char *v = args_str(a, "output", NULL);
    *out = FORMAT_TABLE;
    if (!v)
        return EXIT_OK;
    for (size_t i = 0; i < COUNT_OF(formats); i++)
        if (strcmp(v, formats[i].name) == 0) {
            *out = formats[i].f;
            return EXIT_OK;
        }
    return cli_fail(EXIT_USAGE, a->cmd->name, "use json, yaml, wide or name", "there is no output format \"%s\"", v);
}

static int unknown_kind(const struct args *a, const char *kind)
{
    struct buf known = {0};
    for (size_t i = 0; i < views_n; i++)
        joined_add(&known, ", ", "%s", views[i].name);
    int code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "there is no kind \"%s\"; use %s or all", kind, known.p);
    buf_free(&known);
    return code;
}

static int show_all(struct getting *g)
{
    int code = EXIT_OK;
    g->kinds_many = true;
    for (size_t i = 0; i < views_n && !code; i++)
        if (!views[i].replicas && views[i].kind != OBJ_NAMESPACE && views[i].kind < OBJ_KIND_COUNT)
            code = show(g, &views[i]);
    return code;
}

static int not_found(const struct getting *g)
{
    int code = EXIT_OK;
    for (size_t i = 0; i < g->names_n; i++)
        if (!g->found[i])
            code = cli_fail(EXIT_FAILED, g->a->cmd->name, "list what is there with weir get all -A", "%s is not there%s%s", g->names[i],
                            g->all_ns ? "" : " in namespace ", g->all_ns ? "" : args_namespace(g->a));
    return code;
}

static int show_kind(struct getting *g, const char *kind)
{
    const struct view *v = view_find(kind);
    if (strcmp(kind, "all") != 0)
        return v ? show(g, v) : unknown_kind(g->a, kind);
    if (g->names_n)
        return cli_fail(EXIT_USAGE, g->a->cmd->name, NULL, "\"all\" takes no names; name the kind instead");
    return show_all(g);
}

int cmd_get(struct args *a)
{
    struct getting g = {.a = a, .all_ns = args_has(a, "all-namespaces")};
    int code = format_of(a, &g.format);
    if (code)
        return code;
    if (!a->pos_n)
        return cli_fail(EXIT_USAGE, a->cmd->name, "e.g. weir get workloads, weir get all -A", "what to show is not given");
    char *kind = mem_strdup(MEM_MISC, a->pos[0]), *slash = strchr(kind, '/');
    g.names = mem_new(MEM_MISC, (a->pos_n + 1) * sizeof *g.names);
    g.found = mem_new(MEM_MISC, (a->pos_n + 1) * sizeof *g.found);
    if (slash) {
        *slash = 0;
        g.names[g.names_n++] = slash + 1;
    }
    for (size_t i = 1; i < a->pos_n; i++)
        g.names[g.names_n++] = a->pos[i];
    if (g.format == FORMAT_JSON || g.format == FORMAT_YAML)
        g.items = json_array();
    code = show_kind(&g, kind);
    if (!code && g.items && (g.objects || !g.names_n))
        show_document(&g);
    if (!code)
        code = not_found(&g);
    if (!code && !g.objects && !g.items)
        fprintf(stderr, g.all_ns ? "nothing found\n" : "nothing found in namespace %s\n", args_namespace(a));
    json_decref(g.items);
    mem_free(g.names);
    mem_free(g.found);
    mem_free(kind);
    return code;
}
