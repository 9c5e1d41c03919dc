/* conditions.c - conditions of Gateways, routes and policies, as Gateway API and Istio name them.
 *
 *     Gateway     Accepted, Programmed; for each listener also ResolvedRefs, Conflicted, attachedRoutes, supportedKinds
 *     routes      for each parent: Accepted, ResolvedRefs
 *     BackendTLSPolicy   for each Service (ancestor): Accepted, ResolvedRefs
 *     kinds of Istio, SMI and weir.dev   Reconciled: what apply would warn of now is its message
 *
 * All is worked out when it is asked for, from the set and the plan that is served. Reasons are those of the API where it has
 * one (gateway-api, apis/v1: shared_types and *_types).
 */
#include "api_int.h"

#define CONTROLLER "weir.local/gateway" /* controllerName in parents: a domain and a path, as Gateway API wants it */

void json_put(json_t *o, const char *key, json_t *value) { MUST(json_object_set_new(o, key, value) == 0); }

/* Reasons may quote what others said, cut anywhere; JSON is UTF-8 (RFC 8259 section 8.1). */
json_t *json_reason(const char *s)
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

json_t *json_condition(const char *type, bool on, const char *reason, const char *message)
{
    json_t *o = json_object();
    json_put(o, "type", json_string(type));
    json_put(o, "status", json_string(on ? "True" : "False"));
    json_put(o, "reason", json_string(reason));
    json_put(o, "message", json_reason(message));
    return o;
}

/* What is looked at. */
struct look {
    const struct api *api;
    const struct objset *set;
    const struct plan *plan; /* may be NULL: nothing compiled yet */
    const struct object *o;
};

static json_t *condition_printf(const char *type, const char *reason, const char *fmt, ...) PRINTF_LIKE(3, 4);
static json_t *condition_printf(const char *type, const char *reason, const char *fmt, ...)
{
    struct buf why = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&why, fmt, ap);
    va_end(ap);
    json_t *c = json_condition(type, false, reason, why.p);
    buf_free(&why);
    return c;
}

/* ---- which listeners take a route ------------------------------------------------------------------------------------------ */

static bool parent_is(const struct parent_ref *p, const struct object *gw, const char *section, uint16_t port)
{
    return !p->service && strcmp(p->gateway, gw->name) == 0 && strcmp(p->ns, gw->ns) == 0 && (!p->section || !section || strcmp(p->section, section) == 0) &&
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
static const char *listener_refuses(const struct objset *set, const struct object *route, const struct object *gw, const struct gw_listener *ln)
{
    if (!(ln->kinds & 1u << route->kind) || !objset_listener_allows(set, gw, ln, route->ns))
        return "NotAllowedByListeners";
    return route_hosts_meet(&route->route, ln) ? NULL : "NoMatchingListenerHostname";
}

/* ---- routes ------------------------------------------------------------------------------------------------------------------- */

static json_t *parent_accepted(const struct look *l, const struct parent_ref *p)
{
    const struct object *parent = objset_find(l->set, p->service ? OBJ_SERVICE : OBJ_GATEWAY, p->ns, p->gateway);
    const char *reason = "NoMatchingParent";
    if (!parent)
        return json_condition("Accepted", false, reason, p->service ? "there is no such Service" : "there is no such Gateway");
    for (size_t i = 0; p->service && i < parent->svc.ports_n; i++)
        if ((!p->port || p->port == parent->svc.ports[i].port) && (!p->section || strcmp(p->section, parent->svc.ports[i].name) == 0))
            return json_condition("Accepted", true, "Accepted", "");
    for (size_t i = 0; !p->service && i < parent->gw.listeners_n; i++) {
        const struct gw_listener *ln = &parent->gw.listeners[i];
        if (!parent_is(p, parent, ln->name, ln->port))
            continue;
        reason = listener_refuses(l->set, l->o, parent, ln);
        if (!reason)
            return json_condition("Accepted", true, "Accepted", "");
    }
    return json_condition("Accepted", false, reason, p->service ? "the Service has no such port" : "no listener of the Gateway takes this route");
}

static bool service_has_port(const struct object *svc, uint16_t port)
{
    for (size_t i = 0; i < svc->svc.ports_n; i++)
        if (svc->svc.ports[i].port == port)
            return true;
    return svc->svc.external_name && !svc->svc.ports_n;
}

/* What is wrong with a backend, as the condition ResolvedRefs; NULL: nothing. */
static json_t *backend_wrong(const struct look *l, const struct route_backend *b)
{
    const struct object *svc = objset_find(l->set, OBJ_SERVICE, b->ns, b->service);
    if (!objset_granted(l->set, l->o, OBJ_SERVICE, b->ns, b->service))
        return condition_printf("ResolvedRefs", "RefNotPermitted", "Service %s/%s is not granted by a ReferenceGrant", b->ns, b->service);
    if (svc && service_has_port(svc, b->port))
        return NULL;
    return condition_printf("ResolvedRefs", "BackendNotFound", "Service %s/%s %s%u", b->ns, b->service, svc ? "has no port " : "is not there; port ", b->port);
}

static json_t *backends_wrong(const struct look *l, const struct route_backend *backends, size_t n)
{
    json_t *wrong = NULL;
    for (size_t i = 0; i < n && !wrong; i++)
        wrong = backend_wrong(l, &backends[i]);
    return wrong;
}

static json_t *rule_wrong(const struct look *l, const struct route_rule *rule)
{
    json_t *wrong = backends_wrong(l, rule->backends, rule->backends_n);
    for (size_t i = 0; i < rule->mirrors_n && !wrong; i++)
        wrong = backend_wrong(l, &rule->mirrors[i].backend);
    for (size_t i = 0; i < rule->filters_n && !wrong; i++)
        if (!objset_find(l->set, OBJ_HTTPFILTER, l->o->ns, rule->filters[i]))
            wrong = condition_printf("ResolvedRefs", "FilterNotFound", "HTTPFilter %s/%s is not there", l->o->ns, rule->filters[i]);
    return wrong;
}

static json_t *route_resolved(const struct look *l)
{
    const struct http_route *r = &l->o->route;
    json_t *wrong = NULL;
    for (size_t i = 0; i < r->rules_n && !wrong; i++)
        wrong = rule_wrong(l, &r->rules[i]);
    for (size_t i = 0; i < r->tcp_n && !wrong; i++)
        wrong = backends_wrong(l, r->tcp[i].backends, r->tcp[i].backends_n);
    for (size_t i = 0; i < r->tls_n && !wrong; i++)
        wrong = backends_wrong(l, r->tls[i].backends, r->tls[i].backends_n);
    return wrong ? wrong : json_condition("ResolvedRefs", true, "ResolvedRefs", "");
}

static json_t *route_status(const struct look *l)
{
    json_t *s = json_object(), *parents = json_array();
    for (size_t i = 0; i < l->o->route.parents_n; i++) {
        const struct parent_ref *p = &l->o->route.parents[i];
        json_t *e = json_object(), *ref = json_object(), *conditions = json_array();
        if (p->service) {
            json_put(ref, "group", json_string(""));
            json_put(ref, "kind", json_string("Service"));
        }
        json_put(ref, "name", json_string(p->gateway));
        json_put(ref, "namespace", json_string(p->ns));
        if (p->section)
            json_put(ref, "sectionName", json_string(p->section));
        if (p->port)
            json_put(ref, "port", json_integer(p->port));
        json_put(e, "parentRef", ref);
        json_put(e, "controllerName", json_string(CONTROLLER));
        json_array_append_new(conditions, parent_accepted(l, p));
        json_array_append_new(conditions, route_resolved(l));
        json_put(e, "conditions", conditions);
        json_array_append_new(parents, e);
    }
    json_put(s, "parents", parents);
    return s;
}

/* ---- Gateways -------------------------------------------------------------------------------------------------------------------- */

static const enum obj_kind route_kinds[] = {OBJ_HTTPROUTE, OBJ_GRPCROUTE, OBJ_TCPROUTE, OBJ_TLSROUTE};

static unsigned attached_routes(const struct look *l, const struct gw_listener *ln)
{
    unsigned n = 0;
    for (size_t i = 0; i < objset_n(l->set); i++) {
        const struct object *o = objset_at(l->set, i);
        if (o->kind < OBJ_HTTPROUTE || o->kind > OBJ_TLSROUTE)
            continue;
        bool attached = false;
        for (size_t k = 0; k < o->route.parents_n && !attached; k++)
            attached = parent_is(&o->route.parents[k], l->o, ln->name, ln->port) && !listener_refuses(l->set, o, l->o, ln);
        n += attached;
    }
    return n;
}

/* What is wrong with a certificate, as the condition ResolvedRefs; NULL: nothing. */
static json_t *cert_wrong(const struct look *l, const struct secret_ref *ref)
{
    const struct object *o = objset_find(l->set, OBJ_SECRET, ref->ns, ref->name);
    if (!objset_granted(l->set, l->o, OBJ_SECRET, ref->ns, ref->name))
        return condition_printf("ResolvedRefs", "RefNotPermitted", "Secret %s/%s is not granted by a ReferenceGrant", ref->ns, ref->name);
    struct buf why = {0};
    json_t *wrong = NULL;
    if (!o)
        wrong = condition_printf("ResolvedRefs", "InvalidCertificateRef", "Secret %s/%s is not there", ref->ns, ref->name);
    else if (objset_cert(o, &why) != OK)
        wrong = condition_printf("ResolvedRefs", "InvalidCertificateRef", "Secret %s/%s %s", ref->ns, ref->name, why.p);
    buf_free(&why);
    return wrong;
}

static json_t *ca_wrong(const struct look *l, const struct secret_ref *ref)
{
    const struct object *map = objset_find(l->set, OBJ_CONFIGMAP, ref->ns, ref->name), *o = map ? map : objset_find(l->set, OBJ_SECRET, ref->ns, ref->name);
    if (!objset_granted(l->set, l->o, map ? OBJ_CONFIGMAP : OBJ_SECRET, ref->ns, ref->name))
        return condition_printf("ResolvedRefs", "RefNotPermitted", "%s/%s is not granted by a ReferenceGrant", ref->ns, ref->name);
    if (o && kvs_get(&o->data, SLICE("ca.crt")))
        return NULL;
    return condition_printf("ResolvedRefs", "InvalidCACertificateRef", "%s/%s %s", ref->ns, ref->name, o ? "has no ca.crt" : "is not there");
}

static json_t *listener_resolved(const struct look *l, const struct gw_listener *ln)
{
    json_t *wrong = NULL;
    for (size_t i = 0; i < ln->certs_n && !wrong && ln->tls != LISTEN_TLS_PASSTHROUGH; i++)
        wrong = cert_wrong(l, &ln->certs[i]);
    for (size_t i = 0; i < ln->client_ca_n && !wrong; i++)
        wrong = ca_wrong(l, &ln->client_ca[i]);
    return wrong ? wrong : json_condition("ResolvedRefs", true, "ResolvedRefs", "");
}

/* The plan listens on this port of every address of the Gateway, and the sockets are open; else *why may say what is in the way. */
static bool port_programmed(const struct look *l, uint16_t port, const char **why)
{
    size_t found = 0;
    *why = "";
    for (size_t a = 0; l->plan && a < l->o->gw.addresses_n; a++) {
        struct addr want = l->o->gw.addresses[a];
        want.port = port;
        if (l->api->ops->listens && !l->api->ops->listens(l->api->ctx, &want, why))
            return false;
        for (uint32_t i = 0; i < l->plan->listeners_n; i++)
            if (addr_eq(&l->plan->listeners[i].address, &want)) {
                found++;
                break;
            }
    }
    return found && found == l->o->gw.addresses_n;
}

static json_t *supported_kinds(const struct gw_listener *ln)
{
    json_t *list = json_array();
    for (size_t i = 0; i < COUNT_OF(route_kinds); i++)
        if (ln->kinds & 1u << route_kinds[i]) {
            json_t *k = json_object();
            json_put(k, "group", json_string("gateway.networking.k8s.io"));
            json_put(k, "kind", json_string(obj_kind_name(route_kinds[i])));
            json_array_append_new(list, k);
        }
    return list;
}

static bool is_true(const json_t *condition) { return strcmp(json_string_value(json_object_get(condition, "status")), "True") == 0; }

/* *on: the listener serves what it should. *trouble: why it has no socket, where that is known. */
static json_t *listener_status(const struct look *l, const struct gw_listener *ln, bool *on, const char **trouble)
{
    json_t *e = json_object(), *c = json_array(), *resolved = listener_resolved(l, ln);
    const char *why;
    bool served = port_programmed(l, ln->port, &why), sound = is_true(resolved);
    *on = served && sound;
    *trouble = *why ? why : *trouble;
    json_put(e, "name", json_string(ln->name));
    json_put(e, "supportedKinds", supported_kinds(ln));
    json_put(e, "attachedRoutes", json_integer(attached_routes(l, ln)));
    json_array_append_new(c, json_condition("Accepted", !*why, *why ? "PortUnavailable" : "Accepted", why));
    json_array_append_new(c, json_condition("Programmed", *on, *on ? "Programmed" : sound ? "Pending" : "Invalid", why));
    json_array_append_new(c, resolved);
    json_array_append_new(c, json_condition("Conflicted", false, "NoConflicts", ""));
    json_put(e, "conditions", c);
    return e;
}

static json_t *gateway_addresses(const struct object *o)
{
    char text[ADDR_TEXT_MAX];
    json_t *list = json_array();
    for (size_t i = 0; i < o->gw.addresses_n; i++) {
        json_t *a = json_object();
        size_t n = addr_format_ip(&o->gw.addresses[i], text);
        json_put(a, "type", json_string("IPAddress"));
        json_put(a, "value", json_stringn(text, n));
        json_array_append_new(list, a);
    }
    return list;
}

static json_t *gateway_status(const struct look *l)
{
    json_t *s = json_object(), *listeners = json_array(), *conditions = json_array();
    bool all = true;
    const char *trouble = "";
    for (size_t i = 0; i < l->o->gw.listeners_n; i++) {
        bool on;
        json_array_append_new(listeners, listener_status(l, &l->o->gw.listeners[i], &on, &trouble));
        all = all && on;
    }
    json_array_append_new(conditions, json_condition("Accepted", true, "Accepted", ""));
    json_array_append_new(conditions, json_condition("Programmed", all, all ? "Programmed" : "Pending", trouble));
    json_put(s, "addresses", gateway_addresses(l->o));
    json_put(s, "listeners", listeners);
    json_put(s, "conditions", conditions);
    return s;
}

/* ---- policies ------------------------------------------------------------------------------------------------------------------------ */

static json_t *backend_tls_status(const struct look *l)
{
    const struct backend_tls *tls = &l->o->backend_tls;
    json_t *s = json_object(), *ancestors = json_array();
    for (size_t i = 0; i < tls->services_n; i++) {
        json_t *e = json_object(), *ref = json_object(), *conditions = json_array(), *wrong = NULL;
        bool found = objset_find(l->set, OBJ_SERVICE, l->o->ns, tls->services[i]) != NULL;
        for (size_t k = 0; k < tls->ca_n && !wrong; k++)
            wrong = ca_wrong(l, &tls->ca[k]);
        json_put(ref, "group", json_string(""));
        json_put(ref, "kind", json_string("Service"));
        json_put(ref, "name", json_string(tls->services[i]));
        json_put(e, "ancestorRef", ref);
        json_put(e, "controllerName", json_string(CONTROLLER));
        json_array_append_new(conditions, json_condition("Accepted", found && !wrong, !found ? "TargetNotFound" : wrong ? "NoValidCACertificate" : "Accepted", ""));
        json_array_append_new(conditions, wrong ? wrong : json_condition("ResolvedRefs", true, "ResolvedRefs", ""));
        json_put(e, "conditions", conditions);
        json_array_append_new(ancestors, e);
    }
    json_put(s, "ancestors", ancestors);
    return s;
}

/* What apply would say of the object now: the first of it is the reason. */
static json_t *reconciled_status(const struct look *l)
{
    struct diags d = {0};
    json_t *s = json_object(), *conditions = json_array();
    objset_check_object(l->set, l->o, &d);
    json_array_append_new(conditions, json_condition("Reconciled", !d.n, d.n ? "ReferencesNotResolved" : "Reconciled", d.n ? d.items[0].reason : ""));
    json_put(s, "conditions", conditions);
    json_put(s, "observedGeneration", json_integer((json_int_t)l->o->generation));
    diags_free(&d);
    return s;
}

/* An Istio Gateway is Reconciled, and Programmed when its ports are listened on. */
static json_t *istio_gateway_status(const struct look *l)
{
    json_t *s = reconciled_status(l);
    bool on = true;
    const char *why = "";
    for (size_t i = 0; i < l->o->gw.listeners_n && on; i++)
        on = port_programmed(l, l->o->gw.listeners[i].port, &why);
    json_array_append_new(json_object_get(s, "conditions"), json_condition("Programmed", on, on ? "Programmed" : "Pending", why));
    json_put(s, "addresses", gateway_addresses(l->o));
    return s;
}

static json_t *entry_status(const struct look *l)
{
    char text[ADDR_TEXT_MAX];
    json_t *s = reconciled_status(l), *list = json_array();
    for (size_t i = 0; i < l->o->entry.addresses_n; i++) {
        if (l->o->entry.addresses[i].family == ADDR_NONE)
            continue;
        json_t *a = json_object();
        size_t n = addr_format_ip(&l->o->entry.addresses[i], text);
        json_put(a, "host", json_string(l->o->entry.hosts[i]));
        json_put(a, "value", json_stringn(text, n));
        json_array_append_new(list, a);
    }
    json_put(s, "addresses", list); /* as Istio's status of ServiceEntries has them */
    return s;
}

json_t *conditions_status(const struct api *a, const struct objset *set, const struct plan *plan, const struct object *o)
{
    const struct look l = {.api = a, .set = set, .plan = plan, .o = o};
    switch (o->kind) {
    case OBJ_GATEWAY: return gateway_status(&l);
    case OBJ_HTTPROUTE:
    case OBJ_GRPCROUTE:
    case OBJ_TCPROUTE:
    case OBJ_TLSROUTE: return route_status(&l);
    case OBJ_BACKENDTLSPOLICY: return backend_tls_status(&l);
    case OBJ_ISTIO_GATEWAY: return istio_gateway_status(&l);
    case OBJ_SERVICEENTRY: return entry_status(&l);
    case OBJ_VIRTUALSERVICE:
    case OBJ_DESTINATIONRULE:
    case OBJ_SIDECAR:
    case OBJ_PEERAUTHENTICATION:
    case OBJ_TRAFFICSPLIT:
    case OBJ_HTTPFILTER:
    case OBJ_BACKENDPOLICY: return reconciled_status(&l);
    default: return NULL;
    }
}
