/* check.c - what must hold between objects: references, selectors, ports.
 *
 * Runs over the whole set as it would be after applying. A reference to what is not there is an error, so that a typing
 * mistake is found at once and not as a 500 later. What merely has no effect (a Service that selects nothing) is a warning:
 * people apply Services before Deployments. So are hosts and subsets that Istio's kinds name: Istio takes them in any order,
 * and its users apply them so.
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
    for (size_t i = 0; i < pod->volumes_n; i++) {
        const struct volume *v = &pod->volumes[i];
        snprintf(path, sizeof path, "spec.template.spec.volumes[%zu]", i);
        for (size_t k = 0; k < v->sources_n; k++) {
            const struct volume_source *from = &v->sources[k];
            if (!from->optional && from->map)
                check_map_ref(c, path, from->secret, from->map, NULL);
            for (size_t m = 0; m < from->items_n && !from->optional && from->map; m++)
                if (objset_find(c->s, from->secret ? OBJ_SECRET : OBJ_CONFIGMAP, c->o->ns, from->map))
                    check_map_ref(c, path, from->secret, from->map, from->items[m].key);
        }
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

/* ---- Secrets and authorities -------------------------------------------------------------------------------------------- */

enum err objset_cert(const struct object *secret, struct buf *why)
{
    static const char *const keys[] = {"tls.crt", "tls.key"};
    struct slice pem[COUNT_OF(keys)];
    struct tls_ctx *ctx = NULL;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const struct kv *kv = kvs_get(&secret->data, slice_cstr(keys[i]));
        if (!kv) {
            buf_printf(why, "has no key %s", keys[i]);
            return ERR_NOTFOUND;
        }
        pem[i] = slice_of(kv->value, kv->value_n);
    }
    const struct tls_cert_conf cert = {.chain_pem = pem[0], .key_pem = pem[1]};
    struct buf said = {0};
    enum err e = tls_server_new(&(struct tls_server_conf){.certs = &cert, .certs_n = 1, .any_time = true}, &ctx, &said);
    if (e != OK)
        buf_printf(why, "is not sound: %s", said.n ? said.p : err_text(e));
    tls_ctx_unref(ctx);
    buf_free(&said);
    return e;
}

/* A certificate: a Secret that may be referred to, with tls.crt and tls.key. */
static void check_cert(struct check *c, const struct secret_ref *ref, const char *path)
{
    const struct object *o = ref->name ? objset_find(c->s, OBJ_SECRET, ref->ns, ref->name) : NULL;
    struct buf why = {0};
    if (!ref->name)
        return;
    if (!objset_granted(c->s, c->o, OBJ_SECRET, ref->ns, ref->name))
        check_add(c, DIAG_WARNING, 0, path, "add a ReferenceGrant in that namespace", "the Secret %s of the namespace %s is not granted: it is not used", ref->name,
                  ref->ns);
    else if (!o)
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name and the namespace", "there is no Secret %s in the namespace %s", ref->name, ref->ns);
    else if (objset_cert(o, &why) != OK)
        check_add(c, DIAG_ERROR, 0, path, "give a certificate in tls.crt and its key in tls.key, both in PEM", "the Secret %s %s", ref->name, why.p);
    buf_free(&why);
}

/* Authorities: a ConfigMap or Secret with ca.crt. maybe_cert: the Secret may be there for its certificate alone. */
static void check_ca(struct check *c, const struct secret_ref *ref, const char *path, bool maybe_cert)
{
    const struct object *map = ref->name ? objset_find(c->s, OBJ_CONFIGMAP, ref->ns, ref->name) : NULL;
    const struct object *o = map ? map : ref->name ? objset_find(c->s, OBJ_SECRET, ref->ns, ref->name) : NULL;
    if (!ref->name)
        return;
    if (!objset_granted(c->s, c->o, map ? OBJ_CONFIGMAP : OBJ_SECRET, ref->ns, ref->name))
        check_add(c, DIAG_WARNING, 0, path, "add a ReferenceGrant in that namespace", "%s of the namespace %s is not granted: it is not used", ref->name, ref->ns);
    else if (!o)
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name and the namespace", "there is no ConfigMap or Secret %s in the namespace %s", ref->name,
                  ref->ns);
    else if (!kvs_get(&o->data, SLICE("ca.crt")) && !maybe_cert)
        check_add(c, DIAG_ERROR, 0, path, "add the key", "the %s %s has no key ca.crt", obj_kind_word(o->kind), ref->name);
}

static void check_upstream_tls(struct check *c, const struct upstream_tls *tls, const char *path)
{
    if (tls->mode == TLS_MUTUAL)
        check_cert(c, &tls->cert, path);
    for (size_t i = 0; i < tls->ca_n; i++) {
        bool same = tls->cert.name && tls->ca[i].name && strcmp(tls->cert.name, tls->ca[i].name) == 0;
        if (!same || objset_find(c->s, OBJ_SECRET, tls->ca[i].ns, tls->ca[i].name)) /* else it was said of the certificate */
            check_ca(c, &tls->ca[i], path, same);
    }
}

/* ---- Gateways ------------------------------------------------------------------------------------------------------------- */

static bool addr_any(const struct addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->ip, zero, a->family == ADDR_IP6 ? 16 : 4) == 0;
}

/* Two sockets cannot have both addresses with one port: one of them is every address. The same address is one socket. */
static bool addresses_clash(const struct addr *x, const struct addr *y)
{
    bool every6 = (x->family == ADDR_IP6 && addr_any(x)) || (y->family == ADDR_IP6 && addr_any(y));
    if (x->family == y->family && memcmp(x->ip, y->ip, x->family == ADDR_IP6 ? 16 : 4) == 0)
        return false;
    return every6 || (x->family == y->family && (addr_any(x) || addr_any(y)));
}

static bool addresses_meet(const struct gateway *a, const struct gateway *b, bool *clash)
{
    bool same = false;
    *clash = false;
    for (size_t i = 0; i < a->addresses_n; i++)
        for (size_t k = 0; k < b->addresses_n; k++) {
            same |= addr_eq(&a->addresses[i], &b->addresses[k]);
            *clash |= addresses_clash(&a->addresses[i], &b->addresses[k]);
        }
    return same;
}

/* What a connection's first bytes are: listeners with the same may share a port. */
static int first_bytes(const struct gw_listener *ln) { return ln->protocol == LISTEN_HTTPS ? LISTEN_TLS : ln->protocol; }

/* Why two listeners cannot have the same address and port; NULL: they can. */
static const char *listeners_differ(const struct gw_listener *a, const struct gw_listener *b)
{
    if (first_bytes(a) != first_bytes(b))
        return "another protocol";
    if (a->proxy_protocol != b->proxy_protocol)
        return "another setting of weir.dev/proxy-protocol";
    return a->protocol == LISTEN_TCP ? "protocol TCP, where nothing tells connections apart" : NULL;
}

/* The listener k of the same Gateway, or any of another, on the port of listener i. */
static void check_shared_port(struct check *c, size_t i, const struct object *other, size_t others_n, const char *path)
{
    const struct gw_listener *ln = &c->o->gw.listeners[i];
    bool clash = false, same = other == c->o || addresses_meet(&c->o->gw, &other->gw, &clash);
    for (size_t k = 0; (same || clash) && k < others_n; k++) {
        const struct gw_listener *there = &other->gw.listeners[k];
        const char *why = there->port == ln->port && same ? listeners_differ(ln, there) : NULL;
        if (there->port == ln->port && clash)
            check_add(c, DIAG_ERROR, 0, path, "give one of them another port, or both the same address",
                      "the port %u is used by the %s %s/%s as well, on an address that covers the other", ln->port, obj_kind_name(other->kind), other->ns, other->name);
        else if (why)
            check_add(c, DIAG_ERROR, 0, path, "give one of them another port", "the port %u is used by the %s %s/%s as well, with %s", ln->port,
                      obj_kind_name(other->kind), other->ns, other->name, why);
        else
            continue;
        return;
    }
}

static void check_host_ports(struct check *c, uint16_t port, const char *path)
{
    for (size_t k = objset_first(c->s, OBJ_DEPLOYMENT, ""); k < objset_n(c->s) && objset_at(c->s, k)->kind == OBJ_DEPLOYMENT; k++) {
        const struct object *dep = objset_at(c->s, k);
        for (size_t p = 0; dep->dep.pod.host_network && p < dep->dep.pod.ports_n; p++)
            if (dep->dep.pod.ports[p].port == port)
                check_add(c, DIAG_ERROR, 0, path, "give one of them another port, or remove hostNetwork",
                          "the port %u is used by the Deployment %s/%s, on the host's network, as well", port, dep->ns, dep->name);
    }
}

static void check_gateway(struct check *c)
{
    static const enum obj_kind kinds[] = {OBJ_GATEWAY, OBJ_ISTIO_GATEWAY};
    const char *list = c->o->kind == OBJ_GATEWAY ? "spec.listeners" : "spec.servers";
    char path[64];
    for (size_t i = 0; i < c->o->gw.listeners_n; i++) {
        const struct gw_listener *ln = &c->o->gw.listeners[i];
        snprintf(path, sizeof path, "%s[%zu].port", list, i);
        check_shared_port(c, i, c->o, i, path);
        for (size_t n = 0; n < COUNT_OF(kinds); n++)
            for (size_t k = objset_first(c->s, kinds[n], ""); k < c->index && objset_at(c->s, k)->kind == kinds[n]; k++)
                check_shared_port(c, i, objset_at(c->s, k), objset_at(c->s, k)->gw.listeners_n, path);
        check_host_ports(c, ln->port, path);
        snprintf(path, sizeof path, "%s[%zu].tls", list, i);
        for (size_t k = 0; k < ln->certs_n && ln->tls != LISTEN_TLS_PASSTHROUGH; k++)
            check_cert(c, &ln->certs[k], path);
        for (size_t k = 0; k < ln->client_ca_n; k++)
            check_ca(c, &ln->client_ca[k], path, false);
        if (ln->ciphers && !tls_ciphers_known(ln->ciphers))
            check_add(c, DIAG_ERROR, 0, path, "give names such as ECDHE-RSA-AES128-GCM-SHA256 (openssl ciphers -v); those of TLS 1.3 can't be chosen",
                      "none of the ciphers is known for TLS 1.2: \"%.60s\"", ln->ciphers);
    }
}

/* ---- routes of the Gateway API ---------------------------------------------------------------------------------------------- */

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

/* A route for the mesh (GAMMA): its parent is a Service, and a port of it. */
static void check_service_parent(struct check *c, const struct parent_ref *p, const char *path)
{
    const struct object *svc = objset_find(c->s, OBJ_SERVICE, p->ns, p->gateway);
    if (!svc) {
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name and the namespace", "there is no Service %s in the namespace %s", p->gateway, p->ns);
        return;
    }
    for (size_t i = 0; i < svc->svc.ports_n; i++)
        if ((!p->port || p->port == svc->svc.ports[i].port) && (!p->section || strcmp(p->section, svc->svc.ports[i].name) == 0))
            return;
    check_add(c, DIAG_ERROR, 0, path, "correct sectionName and port", "the Service %s has no such port", p->gateway);
}

static void check_parent(struct check *c, const struct parent_ref *p, const char *path)
{
    const struct object *gw = objset_find(c->s, OBJ_GATEWAY, p->ns, p->gateway);
    size_t named = 0, carried = 0, allowed = 0, met = 0;
    if (!gw) {
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name and the namespace", "there is no Gateway %s in the namespace %s", p->gateway, p->ns);
        return;
    }
    for (size_t i = 0; i < gw->gw.listeners_n; i++) {
        const struct gw_listener *ln = &gw->gw.listeners[i];
        if ((p->section && strcmp(p->section, ln->name) != 0) || (p->port && p->port != ln->port))
            continue;
        named++;
        if (!(ln->kinds & 1u << c->o->kind))
            continue;
        carried++;
        if (!objset_listener_allows(c->s, gw, ln, c->o->ns))
            continue;
        allowed++;
        met += route_meets(&c->o->route, ln);
    }
    if (!named)
        check_add(c, DIAG_ERROR, 0, path, "correct sectionName and port", "the Gateway %s has no listener%s%s%s", p->gateway, p->section ? " named " : "",
                  p->section ? p->section : "", p->port ? " on this port" : "");
    else if (!carried)
        check_add(c, DIAG_ERROR, 0, path, "add a listener with the protocol, or allow the kind there", "no listener of the Gateway %s takes a %s", p->gateway,
                  obj_kind_word(c->o->kind));
    else if (!allowed)
        check_add(c, DIAG_ERROR, 0, path, "compare allowedRoutes.namespaces in the Gateway; from: All allows every namespace", "the Gateway %s allows no routes of the namespace %s",
                  p->gateway, c->o->ns);
    else if (!met)
        check_add(c, DIAG_WARNING, 0, path, "compare them", "no hostname of the route is one of the Gateway %s: nothing is served", p->gateway);
}

static bool service_has_port(const struct object *svc, uint16_t port)
{
    for (size_t i = 0; i < svc->svc.ports_n; i++)
        if (svc->svc.ports[i].port == port)
            return true;
    return port && svc->svc.external_name && !svc->svc.ports_n; /* then it has those that routes give */
}

static void check_backend(struct check *c, const struct route_backend *be, uint32_t line, const char *path)
{
    const struct object *svc = objset_find(c->s, OBJ_SERVICE, be->ns, be->service);
    if (!objset_granted(c->s, c->o, OBJ_SERVICE, be->ns, be->service))
        check_add(c, DIAG_WARNING, line, path, "add a ReferenceGrant in that namespace", "the Service %s of the namespace %s is not granted: its share fails", be->service,
                  be->ns);
    else if (!svc)
        check_add(c, DIAG_ERROR, line, path, "add it, or correct the name and the namespace", "there is no Service %s in the namespace %s", be->service, be->ns);
    else if (!service_has_port(svc, be->port))
        check_add(c, DIAG_ERROR, line, path, "give a port of the Service, not of its replicas", "the Service %s has no port %u", be->service, be->port);
}

static void check_filters(struct check *c, const struct route_rule *rule, const char *path)
{
    bool here = rule->redirect || rule->direct, delays = false, transforms = false;
    for (size_t i = 0; i < rule->filters_n; i++) {
        const struct object *f = objset_find(c->s, OBJ_HTTPFILTER, c->o->ns, rule->filters[i]);
        if (!f) {
            check_add(c, DIAG_ERROR, rule->line, path, "add it, or correct the name", "there is no HTTPFilter %s in the namespace %s", rule->filters[i], c->o->ns);
            continue;
        }
        here |= f->filter.kind == FILTER_DIRECT || f->filter.kind == FILTER_STATIC || f->filter.kind == FILTER_AGGREGATE;
        delays |= f->filter.kind == FILTER_FAULT && f->filter.fault.delay_ppm;
        transforms |= f->filter.kind == FILTER_TRANSFORM;
    }
    if (here && transforms)
        check_add(c, DIAG_WARNING, rule->line, path, "let a service answer, or take the transformation out", "its transformation has no effect: Weir itself makes the rule's answers");
    if (here && rule->mirrors_n)
        check_add(c, DIAG_WARNING, rule->line, path, "let a service answer, or take the mirrors out", "its mirrors get nothing: Weir itself answers the rule's requests");
    if (here && (rule->rewrite_host || rule->rewrite_path_kind != REWRITE_NONE))
        check_add(c, DIAG_WARNING, rule->line, path, "let a service answer, or take the rewrite out", "its rewrite has no effect: Weir itself answers the rule's requests");
    if (here && delays)
        check_add(c, DIAG_WARNING, rule->line, path, "let a service answer, or take the delay out", "the delay of its fault has no effect: Weir itself answers the rule's requests");
}

static void check_http_rule(struct check *c, const struct route_rule *rule, size_t i)
{
    char path[96];
    for (size_t k = 0; k < rule->backends_n; k++) {
        snprintf(path, sizeof path, "spec.rules[%zu].backendRefs[%zu]", i, k);
        check_backend(c, &rule->backends[k], rule->line, path);
    }
    snprintf(path, sizeof path, "spec.rules[%zu].filters", i);
    for (size_t k = 0; k < rule->mirrors_n; k++)
        check_backend(c, &rule->mirrors[k].backend, rule->line, path);
    check_filters(c, rule, path);
}

static void check_stream_rules(struct check *c, const struct tcp_rule *rules, size_t n)
{
    char path[96];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < rules[i].backends_n; k++) {
            snprintf(path, sizeof path, "spec.rules[%zu].backendRefs[%zu]", i, k);
            check_backend(c, &rules[i].backends[k], rules[i].line, path);
        }
}

static void check_route(struct check *c)
{
    const struct http_route *route = &c->o->route;
    char path[96];
    for (size_t i = 0; i < route->parents_n; i++) {
        snprintf(path, sizeof path, "spec.parentRefs[%zu]", i);
        if (route->parents[i].service)
            check_service_parent(c, &route->parents[i], path);
        else
            check_parent(c, &route->parents[i], path);
    }
    for (size_t i = 0; i < route->rules_n; i++)
        check_http_rule(c, &route->rules[i], i);
    check_stream_rules(c, route->tcp, route->tcp_n);
    check_stream_rules(c, route->tls, route->tls_n);
}

/* ---- Istio's hosts ------------------------------------------------------------------------------------------------------------ */

/* "web", "web.ns", "web.ns.svc" and "web.ns.svc.cluster.local", seen from namespace ns. */
static const struct object *host_service(const struct objset *s, const char *host, const char *ns)
{
    struct slice rest, name = slice_cut(slice_cstr(host), '.', &rest), in = slice_cut(rest, '.', &rest);
    char name_text[64], ns_text[64];
    if (name.n >= sizeof name_text || in.n >= sizeof ns_text || (rest.n && !slice_is(rest, "svc") && !slice_is(rest, "svc.cluster.local")))
        return NULL;
    snprintf(name_text, sizeof name_text, SLICE_FMT, SLICE_ARG(name));
    snprintf(ns_text, sizeof ns_text, SLICE_FMT, SLICE_ARG(in));
    return objset_find(s, OBJ_SERVICE, in.n ? ns_text : ns, name_text);
}

static const struct object *host_entry(const struct objset *s, const char *host)
{
    for (size_t i = objset_first(s, OBJ_SERVICEENTRY, ""); i < objset_n(s) && objset_at(s, i)->kind == OBJ_SERVICEENTRY; i++) {
        const struct object *o = objset_at(s, i);
        for (size_t k = 0; k < o->entry.hosts_n; k++)
            if (hosts_meet(o->entry.hosts[k], host))
                return o;
    }
    return NULL;
}

static bool ports_have(const struct service_port *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++)
        if (ports[i].port == port)
            return true;
    return false;
}

/* Two hosts of manifests are the same Service or the same name. */
static bool same_host(const struct objset *s, const char *a, const char *a_ns, const char *b, const char *b_ns)
{
    const struct object *x = host_service(s, a, a_ns), *y = host_service(s, b, b_ns);
    return x || y ? x == y : strcmp(a, b) == 0;
}

static bool has_subset(const struct destination_rule *rule, const char *name)
{
    for (size_t i = 0; i < rule->subsets_n; i++)
        if (rule->subsets[i].name && strcmp(rule->subsets[i].name, name) == 0)
            return true;
    return false;
}

static void check_subset(struct check *c, const struct route_backend *be, uint32_t line, const char *path)
{
    for (size_t i = objset_first(c->s, OBJ_DESTINATIONRULE, ""); i < objset_n(c->s) && objset_at(c->s, i)->kind == OBJ_DESTINATIONRULE; i++) {
        const struct object *o = objset_at(c->s, i);
        if (has_subset(&o->dest, be->subset) && same_host(c->s, o->dest.host, o->ns, be->host, be->ns))
            return;
    }
    check_add(c, DIAG_WARNING, line, path, "add it to a DestinationRule for this host", "there is no subset %s of %s: its share is answered with 503", be->subset, be->host);
}

static void check_destination(struct check *c, const struct route_backend *be, uint32_t line, const char *path)
{
    const struct object *svc = be->host ? host_service(c->s, be->host, be->ns) : NULL, *entry = svc || !be->host ? NULL : host_entry(c->s, be->host);
    if (!be->host)
        return; /* reported by the walk */
    if (!svc && !entry) {
        check_add(c, DIAG_WARNING, line, path, "add a Service or a ServiceEntry, or correct the name", "there is no host %s: its share is answered with 503", be->host);
        return;
    }
    const struct service_port *ports = svc ? svc->svc.ports : entry->entry.ports;
    size_t ports_n = svc ? svc->svc.ports_n : entry->entry.ports_n;
    if (be->port && ports_n && !ports_have(ports, ports_n, be->port))
        check_add(c, DIAG_WARNING, line, path, "give a port of the host", "%s has no port %u: its share is answered with 503", be->host, be->port);
    if (!be->port && svc && svc->svc.external_name && !ports_n)
        check_add(c, DIAG_WARNING, line, path, "give the destination a port, or the Service", "%s has no ports but those that routes give: its share is answered with 503", be->host);
    if (be->subset)
        check_subset(c, be, line, path);
}

/* ---- VirtualServices ------------------------------------------------------------------------------------------------------------ */

static void check_vs_gateway(struct check *c, const char *name, const char *path)
{
    struct slice rest, ns = slice_cut(slice_cstr(name), '/', &rest);
    char ns_text[64];
    if (strcmp(name, "mesh") == 0 || ns.n >= sizeof ns_text)
        return;
    snprintf(ns_text, sizeof ns_text, SLICE_FMT, SLICE_ARG(ns));
    if (!objset_find(c->s, OBJ_ISTIO_GATEWAY, ns_text, rest.p))
        check_add(c, DIAG_WARNING, 0, path, "add it, or correct the name and the namespace", "there is no Gateway of networking.istio.io named %s in the namespace %s", rest.p,
                  ns_text);
}

static void check_delegate(struct check *c, const struct route_rule *rule, const char *path)
{
    const struct object *o = rule->delegate_name ? objset_find(c->s, OBJ_VIRTUALSERVICE, rule->delegate_ns, rule->delegate_name) : NULL;
    if (!rule->delegate_name)
        return;
    if (!o)
        check_add(c, DIAG_WARNING, rule->line, path, "add it, or correct the name and the namespace", "there is no VirtualService %s in the namespace %s: nothing is served",
                  rule->delegate_name, rule->delegate_ns);
    else if (o->route.hostnames_n)
        check_add(c, DIAG_WARNING, rule->line, path, "remove its hosts", "the VirtualService %s has hosts of its own, and is no delegate", rule->delegate_name);
    for (size_t i = 0; o && i < o->route.rules_n; i++)
        if (o->route.rules[i].delegate_name) {
            check_add(c, DIAG_WARNING, rule->line, path, "write its rules out", "the VirtualService %s delegates further, which is not followed", rule->delegate_name);
            return;
        }
}

static bool for_mesh(const struct http_route *route)
{
    for (size_t i = 0; i < route->gateways_n; i++)
        if (strcmp(route->gateways[i], "mesh") == 0)
            return true;
    return !route->gateways_n;
}

/* For workloads, only one VirtualService speaks for a host (Istio: "not merged for sidecars"). */
static void check_vs_host(struct check *c, size_t h)
{
    const char *host = c->o->route.hostnames[h];
    char path[48];
    for (size_t i = objset_first(c->s, OBJ_VIRTUALSERVICE, ""); i < c->index; i++) {
        const struct object *o = objset_at(c->s, i);
        for (size_t k = 0; for_mesh(&o->route) && k < o->route.hostnames_n; k++) {
            if (!same_host(c->s, host, c->o->ns, o->route.hostnames[k], o->ns))
                continue;
            snprintf(path, sizeof path, "spec.hosts[%zu]", h);
            check_add(c, DIAG_WARNING, 0, path, "join them", "the VirtualService %s/%s is for the host %s as well: for workloads, the older one counts", o->ns, o->name, host);
            return;
        }
    }
}

static bool delegated_to(const struct objset *s, const struct object *o)
{
    for (size_t i = objset_first(s, OBJ_VIRTUALSERVICE, ""); i < objset_n(s) && objset_at(s, i)->kind == OBJ_VIRTUALSERVICE; i++) {
        const struct http_route *route = &objset_at(s, i)->route;
        for (size_t k = 0; k < route->rules_n; k++)
            if (route->rules[k].delegate_name && strcmp(route->rules[k].delegate_name, o->name) == 0 && strcmp(route->rules[k].delegate_ns, o->ns) == 0)
                return true;
    }
    return false;
}

static void check_vs_rule(struct check *c, const struct route_rule *rule)
{
    char path[64];
    for (size_t k = 0; k < rule->backends_n; k++) {
        snprintf(path, sizeof path, "spec.http.route[%zu].destination", k);
        check_destination(c, &rule->backends[k], rule->line, path);
    }
    for (size_t k = 0; k < rule->mirrors_n; k++)
        check_destination(c, &rule->mirrors[k].backend, rule->line, "spec.http.mirrors");
    for (size_t k = 0; k < rule->matches_n; k++)
        for (size_t g = 0; g < rule->matches[k].gateways_n; g++)
            check_vs_gateway(c, rule->matches[k].gateways[g], "spec.http.match.gateways");
    check_delegate(c, rule, "spec.http.delegate");
}

static void check_vs_streams(struct check *c, const struct tcp_rule *rules, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < rules[i].backends_n; k++)
            check_destination(c, &rules[i].backends[k], rules[i].line, path);
}

static void check_virtual_service(struct check *c)
{
    const struct http_route *route = &c->o->route;
    for (size_t i = 0; i < route->gateways_n; i++)
        check_vs_gateway(c, route->gateways[i], "spec.gateways");
    for (size_t i = 0; for_mesh(route) && i < route->hostnames_n; i++)
        check_vs_host(c, i);
    for (size_t i = 0; i < route->rules_n; i++)
        if (!i || route->rules[i].backends != route->rules[i - 1].backends) /* else the same rule, for another of its matches */
            check_vs_rule(c, &route->rules[i]);
    if (route->rules_n)
        check_filters(c, &route->rules[0], "metadata.annotations[\"weir.dev/filters\"]");
    check_vs_streams(c, route->tcp, route->tcp_n, "spec.tcp.route");
    check_vs_streams(c, route->tls, route->tls_n, "spec.tls.route");
    if (!route->hostnames_n && !delegated_to(c->s, c->o))
        check_add(c, DIAG_WARNING, 0, "spec.hosts", "add hosts, or a delegate in another VirtualService", "no hosts, and nothing delegates to it: it has no effect");
}

/* ---- policies ------------------------------------------------------------------------------------------------------------------------- */

static bool replicas_match(const struct objset *s, const struct object *svc, const struct kvs *labels)
{
    for (size_t i = objset_first(s, OBJ_DEPLOYMENT, svc->ns); i < objset_n(s); i++) {
        const struct object *dep = objset_at(s, i);
        if (dep->kind != OBJ_DEPLOYMENT || strcmp(dep->ns, svc->ns) != 0)
            return false;
        if (kvs_match(&svc->svc.selector, &dep->dep.pod.labels) && kvs_match(labels, &dep->dep.pod.labels))
            return true;
    }
    return false;
}

/* What keeps a rule from having the effect that Istio would give it: here the policy of a host is one for all its callers (compile_policy.c). */
static void check_destination_scope(struct check *c, const struct object *target)
{
    const struct destination_rule *rule = &c->o->dest;
    if (rule->workload_selector.n)
        check_add(c, DIAG_WARNING, 0, "spec.workloadSelector", "remove it, if the rule may hold for all", "the policy of a host is one for all its callers: this rule has no effect");
    else if (target && strcmp(target->ns, c->o->ns) != 0 && !exported(rule->export_to, rule->export_to_n, c->o->ns, target->ns))
        check_add(c, DIAG_WARNING, 0, "spec.exportTo", "add that namespace, if the rule may hold for all", "the policy of a host is one for all its callers, and %s is in the namespace %s: this rule has no effect",
                  rule->host, target->ns);
}

static void check_destination_rule(struct check *c)
{
    const struct destination_rule *rule = &c->o->dest;
    const struct object *svc = host_service(c->s, rule->host, c->o->ns), *entry = svc || rule->host[0] == '*' ? NULL : host_entry(c->s, rule->host);
    char path[64];
    if (!svc && rule->host[0] != '*' && !entry)
        check_add(c, DIAG_WARNING, 0, "spec.host", "add a Service or a ServiceEntry, or correct the name", "there is no host %s: it has no effect", rule->host);
    check_destination_scope(c, svc ? svc : entry);
    for (size_t i = objset_first(c->s, OBJ_DESTINATIONRULE, c->o->ns); i < c->index; i++) {
        const struct object *o = objset_at(c->s, i);
        if (!rule->workload_selector.n && !o->dest.workload_selector.n && same_host(c->s, rule->host, c->o->ns, o->dest.host, o->ns))
            check_add(c, DIAG_WARNING, 0, "spec.host", "join them", "the DestinationRule %s is for the host %s as well: the older one's policy counts", o->name, rule->host);
    }
    check_upstream_tls(c, &rule->policy.tls, "spec.trafficPolicy.tls");
    for (size_t i = 0; i < rule->ports_n; i++)
        check_upstream_tls(c, &rule->ports[i].policy.tls, "spec.trafficPolicy.portLevelSettings");
    for (size_t i = 0; i < rule->subsets_n; i++) {
        snprintf(path, sizeof path, "spec.subsets[%zu].labels", i);
        if (svc && !svc->svc.external_name && !replicas_match(c->s, svc, &rule->subsets[i].labels))
            check_add(c, DIAG_WARNING, 0, path, "compare it with the labels of the templates", "no Deployment of the Service %s has these labels: the subset %s is empty",
                      svc->name, rule->subsets[i].name);
    }
}

/* A policy's Service; section: a port of it by its name, or NULL. */
static void check_target(struct check *c, const char *name, const char *section, size_t i)
{
    const struct object *svc = name ? objset_find(c->s, OBJ_SERVICE, c->o->ns, name) : NULL;
    char path[48];
    snprintf(path, sizeof path, "spec.targetRefs[%zu]", i);
    if (!svc) {
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name", "there is no Service %s in the namespace %s", name, c->o->ns);
        return;
    }
    for (size_t k = 0; section && k < svc->svc.ports_n; k++)
        if (strcmp(svc->svc.ports[k].name, section) == 0)
            return;
    if (section)
        check_add(c, DIAG_ERROR, 0, path, "give the name of a port of the Service", "the Service %s has no port named %s", name, section);
}

static void check_entry_target(struct check *c, const char *name, size_t i)
{
    char path[48];
    snprintf(path, sizeof path, "spec.targetRefs[%zu]", i);
    if (!name || !objset_find(c->s, OBJ_SERVICEENTRY, c->o->ns, name))
        check_add(c, DIAG_ERROR, 0, path, "add it, or correct the name", "there is no ServiceEntry %s in the namespace %s", name, c->o->ns);
}

static bool names_have(char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (names[i] && strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void check_backend_tls(struct check *c)
{
    const struct backend_tls *tls = &c->o->backend_tls;
    for (size_t i = 0; i < tls->services_n; i++)
        check_target(c, tls->services[i], tls->sections[i], i);
    for (size_t i = 0; i < tls->ca_n; i++)
        check_ca(c, &tls->ca[i], "spec.validation.caCertificateRefs", false);
}

static void check_backend_policy(struct check *c)
{
    const struct backend_policy *b = &c->o->backend;
    for (size_t i = 0; i < b->services_n; i++) {
        if (b->entries[i])
            check_entry_target(c, b->services[i], i);
        else
            check_target(c, b->services[i], NULL, i);
        for (size_t k = objset_first(c->s, OBJ_BACKENDPOLICY, c->o->ns); k < c->index; k++) {
            const struct object *o = objset_at(c->s, k);
            if (names_have(o->backend.services, o->backend.services_n, b->services[i]))
                check_add(c, DIAG_WARNING, 0, "spec.targetRefs", "join them", "the BackendPolicy %s is for the Service %s as well: of a block that both give, the older one's counts",
                          o->name, b->services[i]);
        }
    }
    check_upstream_tls(c, &b->policy.tls, "spec.tls");
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------------- */

/* SMI's splits are applied before their Services by the tools that write them. */
static void check_split(struct check *c)
{
    const struct traffic_split *split = &c->o->split;
    char path[64];
    if (!objset_find(c->s, OBJ_SERVICE, c->o->ns, split->service))
        check_add(c, DIAG_WARNING, 0, "spec.service", "add it, or correct the name", "there is no Service %s in the namespace %s: it has no effect", split->service, c->o->ns);
    for (size_t i = 0; i < split->backends_n; i++) {
        snprintf(path, sizeof path, "spec.backends[%zu].service", i);
        if (!objset_find(c->s, OBJ_SERVICE, c->o->ns, split->backends[i].service))
            check_add(c, DIAG_WARNING, 0, path, "add it, or correct the name", "there is no Service %s in the namespace %s: its share of requests fails",
                      split->backends[i].service, c->o->ns);
    }
}

static void check_entry(struct check *c)
{
    char path[48];
    for (size_t i = 0; i < c->o->entry.hosts_n; i++) {
        snprintf(path, sizeof path, "spec.hosts[%zu]", i);
        if (slice_ends(slice_cstr(c->o->entry.hosts[i]), SLICE(".svc.cluster.local")) && host_service(c->s, c->o->entry.hosts[i], c->o->ns))
            check_add(c, DIAG_WARNING, 0, path, "use another name", "%s is a Service: its own ports and replicas count", c->o->entry.hosts[i]);
    }
}

static void check_filter(struct check *c)
{
    char path[64];
    for (size_t i = 0; c->o->filter.kind == FILTER_AGGREGATE && i < c->o->filter.aggregate.parts_n; i++) {
        snprintf(path, sizeof path, "spec.aggregate.parts[%zu].backendRef", i);
        check_backend(c, &c->o->filter.aggregate.parts[i].backend, 0, path);
    }
}

/* Topics are known by one name in the whole node, whatever namespace and kind their objects have. */
static void check_topic(struct check *c)
{
    for (size_t i = 0; i < c->index; i++) {
        const struct object *o = objset_at(c->s, i);
        if ((o->kind == OBJ_TOPIC || o->kind == OBJ_KAFKATOPIC) && strcmp(o->topic.topic, c->o->topic.topic) == 0)
            check_add(c, DIAG_ERROR, 0, "spec.topicName", "remove one, or give it another name: the broker serves all namespaces", "the topic %s is that of %s %s/%s already",
                      c->o->topic.topic, obj_kind_name(o->kind), o->ns, o->name);
    }
}

/* The control store is one for all namespaces as well. */
static void check_keyspace(struct check *c)
{
    for (size_t i = 0; i < c->index; i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind == OBJ_KEYSPACE && strcmp(o->keyspace.prefix, c->o->keyspace.prefix) == 0)
            check_add(c, DIAG_ERROR, 0, "spec.prefix", "put the acls of both into one", "the prefix %s is that of Keyspace %s/%s already", c->o->keyspace.prefix, o->ns, o->name);
    }
}

static void check_object(struct check *c)
{
    switch (c->o->kind) {
    case OBJ_DEPLOYMENT: check_deployment(c); break;
    case OBJ_SERVICE: check_service(c); break;
    case OBJ_GATEWAY:
    case OBJ_ISTIO_GATEWAY: check_gateway(c); break;
    case OBJ_HTTPROUTE:
    case OBJ_GRPCROUTE:
    case OBJ_TCPROUTE:
    case OBJ_TLSROUTE: check_route(c); break;
    case OBJ_VIRTUALSERVICE: check_virtual_service(c); break;
    case OBJ_DESTINATIONRULE: check_destination_rule(c); break;
    case OBJ_BACKENDTLSPOLICY: check_backend_tls(c); break;
    case OBJ_BACKENDPOLICY: check_backend_policy(c); break;
    case OBJ_TRAFFICSPLIT: check_split(c); break;
    case OBJ_SERVICEENTRY: check_entry(c); break;
    case OBJ_HTTPFILTER: check_filter(c); break;
    case OBJ_TOPIC:
    case OBJ_KAFKATOPIC: check_topic(c); break;
    case OBJ_KEYSPACE: check_keyspace(c); break;
    default: break;
    }
}

void objset_check(const struct objset *s, struct diags *d)
{
    for (size_t i = 0; i < objset_n(s); i++)
        check_object(&(struct check){.s = s, .d = d, .o = objset_at(s, i), .index = i});
}

void objset_check_object(const struct objset *s, const struct object *o, struct diags *d)
{
    size_t i = objset_first(s, o->kind, o->ns);
    while (i < objset_n(s) && objset_at(s, i) != o)
        i++;
    MUST(i < objset_n(s));
    check_object(&(struct check){.s = s, .d = d, .o = o, .index = i});
}
