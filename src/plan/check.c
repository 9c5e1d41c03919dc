/* check.c - what must hold between objects: references, selectors, ports.
 *
 * Runs over the whole set as it would be after applying. A reference to what is not there is an error, so that a typing
 * mistake is found at once and not as a 500 later. What merely has no effect (a Service that selects nothing) is a warning:
 * people apply Services before Deployments.
 */
#include "plan_int.h"

#include <stdio.h>

struct check {
    const struct objset *s;
    struct diags *d;
    const struct object *o; /* that is being checked */
    size_t index;           /* of o in s */
};

static void check_add(struct check *c, enum diag_level lv, uint32_t line, const char *path, const char *remedy, const char *fmt, ...) PRINTF_LIKE(6, 7);
static void check_add(struct check *c, enum diag_level lv, uint32_t line, const char *path, const char *remedy, const char *fmt, ...)
{
    const struct object *o = c->o;
    struct buf where = {0}, reason = {0};
    buf_printf(&where, "%s/%s%s%s %s", obj_kind_name(o->kind), o->ns, o->ns[0] ? "/" : "", o->name, path);
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&reason, fmt, ap);
    va_end(ap);
    diags_add(c->d, lv, o->file, line ? line : o->line, line && line != o->line ? 1 : o->column, where.p, remedy, "%s", reason.p);
    buf_free(&where);
    buf_free(&reason);
}

/* ---- Deployments ------------------------------------------------------------------------------------------------------ */

static void check_map_ref(struct check *c, const char *path, bool secret, const char *map, const char *key)
{
    const char *kind = secret ? "Secret" : "ConfigMap";
    const struct object *o = objset_find(c->s, secret ? OBJ_SECRET : OBJ_CONFIGMAP, c->o->ns, map);
    if (!o)
        check_add(c, DIAG_ERROR, 0, path, "add it, or set optional: true", "there is no %s %s in the namespace %s", kind, map, c->o->ns);
    else if (key && !kvs_get(&o->data, slice_cstr(key)))
        check_add(c, DIAG_ERROR, 0, path, "add the key, or set optional: true", "the %s %s has no key %s", kind, map, key);
}

static void check_deployment(struct check *c)
{
    const struct pod_template *pod = &c->o->dep.pod;
    char path[96];
    for (size_t i = 0; i < pod->env_n; i++) {
        const struct env_var *v = &pod->env[i];
        snprintf(path, sizeof path, "spec.template.spec.containers[0].env[%zu].valueFrom", i);
        if (v->map && !v->optional)
            check_map_ref(c, path, v->secret, v->map, v->map_key);
    }
    for (size_t i = 0; i < pod->env_from_n; i++) {
        snprintf(path, sizeof path, "spec.template.spec.containers[0].envFrom[%zu]", i);
        if (!pod->env_from[i].optional)
            check_map_ref(c, path, pod->env_from[i].secret, pod->env_from[i].map, NULL);
    }
    if (pod->host_network && pod->ports_n && c->o->dep.replicas > 1)
        check_add(c, DIAG_WARNING, 0, "spec.template.spec.hostNetwork", "set replicas: 1, or remove hostNetwork",
                  "%u replicas share the host's ports: only one can listen on %u", c->o->dep.replicas, pod->ports[0].port);
}

/* ---- Services ----------------------------------------------------------------------------------------------------------- */

static bool has_port_name(const struct pod_template *pod, const char *name)
{
    for (size_t i = 0; i < pod->ports_n; i++)
        if (strcmp(pod->ports[i].name, name) == 0)
            return true;
    return false;
}

static void check_service_target(struct check *c, const struct object *dep)
{
    char path[64];
    for (size_t i = 0; i < c->o->svc.ports_n; i++) {
        const char *name = c->o->svc.ports[i].target_name;
        snprintf(path, sizeof path, "spec.ports[%zu].targetPort", i);
        if (name && !has_port_name(&dep->dep.pod, name))
            check_add(c, DIAG_ERROR, 0, path, "add the name to the container's ports, or give the number", "the Deployment %s has no port named %s", dep->name,
                      name);
    }
}

static void check_service(struct check *c)
{
    size_t matched = 0;
    if (c->o->svc.external_name)
        return;
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *dep = objset_at(c->s, i);
        if (dep->kind != OBJ_DEPLOYMENT || strcmp(dep->ns, c->o->ns) != 0 || !kvs_match(&c->o->svc.selector, &dep->dep.pod.labels))
            continue;
        matched++;
        check_service_target(c, dep);
    }
    if (!matched)
        check_add(c, DIAG_WARNING, 0, "spec.selector", "compare it with the labels of the template",
                  "matches no Deployment in the namespace %s: calls are answered with 503", c->o->ns);
}

/* ---- Gateways ------------------------------------------------------------------------------------------------------------- */

static bool addr_any(const struct addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->ip, zero, a->family == ADDR_IP6 ? 16 : 4) == 0;
}

/* Two sockets cannot have both addresses with one port: the same, or one of them every address. */
static bool addresses_clash(const struct gateway *a, const struct gateway *b)
{
    for (size_t i = 0; i < a->addresses_n; i++)
        for (size_t k = 0; k < b->addresses_n; k++) {
            const struct addr *x = &a->addresses[i], *y = &b->addresses[k];
            bool every6 = (x->family == ADDR_IP6 && addr_any(x)) || (y->family == ADDR_IP6 && addr_any(y));
            if (every6 || (x->family == y->family && (addr_any(x) || addr_any(y) || memcmp(x->ip, y->ip, x->family == ADDR_IP6 ? 16 : 4) == 0)))
                return true;
        }
    return false;
}

static bool has_listener_port(const struct gateway *gw, uint16_t port)
{
    for (size_t i = 0; i < gw->listeners_n; i++)
        if (gw->listeners[i].port == port)
            return true;
    return false;
}

/* Ports that other Gateways, and workloads on the host's network, use as well. */
static void check_gateway(struct check *c)
{
    const struct gateway *gw = &c->o->gw;
    char path[64];
    for (size_t i = 0; i < gw->listeners_n; i++) {
        uint16_t port = gw->listeners[i].port;
        snprintf(path, sizeof path, "spec.listeners[%zu].port", i);
        for (size_t k = 0; k < objset_n(c->s); k++) {
            const struct object *other = objset_at(c->s, k);
            if (other->kind == OBJ_GATEWAY && k < c->index && has_listener_port(&other->gw, port) && addresses_clash(gw, &other->gw))
                check_add(c, DIAG_ERROR, 0, path, "give one of them another port or address", "the port %u is used by the Gateway %s/%s as well", port,
                          other->ns, other->name);
            if (other->kind != OBJ_DEPLOYMENT || !other->dep.pod.host_network)
                continue;
            for (size_t p = 0; p < other->dep.pod.ports_n; p++)
                if (other->dep.pod.ports[p].port == port)
                    check_add(c, DIAG_ERROR, 0, path, "give one of them another port, or remove hostNetwork",
                              "the port %u is used by the Deployment %s/%s, on the host's network, as well", port, other->ns, other->name);
        }
    }
}

/* ---- HTTPRoutes ------------------------------------------------------------------------------------------------------------- */

/* Some host is meant by both (Gateway API, "hostname intersection"). NULL: any. */
static bool hosts_meet(const char *a, const char *b)
{
    if (!a || !b || strcmp(a, b) == 0)
        return true;
    bool wild_a = a[0] == '*', wild_b = b[0] == '*';
    struct slice x = slice_cstr(a), y = slice_cstr(b);
    struct slice tail_x = slice_of(a + 1, x.n - 1), tail_y = slice_of(b + 1, y.n - 1);
    return (wild_a && slice_ends(y, tail_x)) || (wild_b && slice_ends(x, tail_y));
}

static bool route_meets(const struct http_route *route, const struct gw_listener *ln)
{
    for (size_t i = 0; i < route->hostnames_n; i++)
        if (hosts_meet(route->hostnames[i], ln->hostname))
            return true;
    return !route->hostnames_n;
}

static void check_parent(struct check *c, const struct parent_ref *p, const char *path)
{
    const struct object *gw = objset_find(c->s, OBJ_GATEWAY, p->ns, p->gateway);
    size_t named = 0, allowed = 0, met = 0;
    if (!gw) {
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name and the namespace", "there is no Gateway %s in the namespace %s", p->gateway, p->ns);
        return;
    }
    for (size_t i = 0; i < gw->gw.listeners_n; i++) {
        const struct gw_listener *ln = &gw->gw.listeners[i];
        if ((p->section && strcmp(p->section, ln->name) != 0) || (p->port && p->port != ln->port))
            continue;
        named++;
        if (!ln->from_all && strcmp(gw->ns, c->o->ns) != 0)
            continue;
        allowed++;
        met += route_meets(&c->o->route, ln);
    }
    if (!named)
        check_add(c, DIAG_ERROR, 0, path, "correct sectionName and port", "the Gateway %s has no listener%s%s%s", p->gateway, p->section ? " named " : "",
                  p->section ? p->section : "", p->port ? " on this port" : "");
    else if (!allowed)
        check_add(c, DIAG_ERROR, 0, path, "set allowedRoutes.namespaces.from: All in the Gateway", "the Gateway %s allows no routes of the namespace %s",
                  p->gateway, c->o->ns);
    else if (!met)
        check_add(c, DIAG_WARNING, 0, path, "compare them", "no hostname of the route is one of the Gateway %s: nothing is served", p->gateway);
}

static void check_backend(struct check *c, const struct route_backend *be, uint32_t line, const char *path)
{
    const struct object *svc = objset_find(c->s, OBJ_SERVICE, be->ns, be->service);
    if (!svc) {
        check_add(c, DIAG_ERROR, line, path, "add it, or correct the name and the namespace", "there is no Service %s in the namespace %s", be->service,
                  be->ns);
        return;
    }
    for (size_t i = 0; i < svc->svc.ports_n; i++)
        if (svc->svc.ports[i].port == be->port)
            return;
    check_add(c, DIAG_ERROR, line, path, "give a port of the Service, not of its replicas", "the Service %s has no port %u", be->service, be->port);
}

static void check_route(struct check *c)
{
    const struct http_route *route = &c->o->route;
    char path[96];
    for (size_t i = 0; i < route->parents_n; i++) {
        snprintf(path, sizeof path, "spec.parentRefs[%zu]", i);
        check_parent(c, &route->parents[i], path);
    }
    for (size_t i = 0; i < route->rules_n; i++)
        for (size_t k = 0; k < route->rules[i].backends_n; k++) {
            snprintf(path, sizeof path, "spec.rules[%zu].backendRefs[%zu]", i, k);
            check_backend(c, &route->rules[i].backends[k], route->rules[i].line, path);
        }
}

void objset_check(const struct objset *s, struct diags *d)
{
    for (size_t i = 0; i < objset_n(s); i++) {
        struct check c = {.s = s, .d = d, .o = objset_at(s, i), .index = i};
        switch (c.o->kind) {
        case OBJ_DEPLOYMENT: check_deployment(&c); break;
        case OBJ_SERVICE: check_service(&c); break;
        case OBJ_GATEWAY: check_gateway(&c); break;
        case OBJ_HTTPROUTE: check_route(&c); break;
        default: break;
        }
    }
}
