/* compile_listener.c - Gateways to listeners: one for each address and port, whatever Gateways share it.
 *
 *   Gateway (Gateway API)   a listener has one hostname; routes name it as a parent, and it admits their namespaces
 *   Gateway (Istio)         a server has several hosts, each with a namespace of VirtualServices or none; VirtualServices name
 *                           the Gateway
 *
 * Both become sites (hostnames that own what they cover) and attachments (routes on sites) of one place; route_build.c makes
 * the host table of them. A place that ends TLS has one context for all its sites, chosen by server name.
 */
#include "compile_int.h"

/* A listening address while its Gateway listeners are gathered. */
struct place {
    struct addr address;
    const char *gateway;
    struct route_site *sites; uint32_t sites_n, sites_cap;
    struct tls_site *tls; uint32_t tls_n, tls_cap; /* sites that end TLS */
    struct route_attach *at; size_t at_n, at_cap;
    bool https, passed, tls_bytes, tcp, proxy_protocol;
};
struct places {
    struct place *items;
    uint32_t n, cap;
};

/* Names the address's sockets in the supervisor, which outlives engines, so it must be the same in every process: FNV-1a,
 * not hash_bytes(). Never 0, which means none; bits 61 to 63 are left to tokens of other kinds:
 * the admin port's, and those of listeners inside namespaces. */
static uint64_t address_token(const struct addr *a)
{
    char text[ADDR_TEXT_MAX];
    size_t n = addr_format(a, text);
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    h &= (1ull << 61) - 1;
    return h ? h : 1;
}

static struct place *place_at(struct places *l, const struct addr *a, const char *gateway)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (addr_eq(&l->items[i].address, a))
            return &l->items[i];
    ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
    l->items[l->n] = (struct place){.address = *a, .gateway = gateway};
    return &l->items[l->n++];
}

/* Listeners of the same hostname, of one Gateway or of several, are one: the first says how TLS is. */
static uint32_t place_site(struct compile *c, struct place *pl, const struct object *gw, const struct gw_listener *ln, struct slice pattern)
{
    bool ends_tls = ln->tls == LISTEN_TLS_TERMINATE || ln->tls == LISTEN_TLS_MUTUAL || ln->tls == LISTEN_TLS_OPTIONAL_MUTUAL;
    for (uint32_t i = 0; i < pl->sites_n; i++)
        if (slice_eq(pl->sites[i].pattern, pattern))
            return i;
    ARRAY_GROW(MEM_PLAN, pl->sites, pl->sites_n, pl->sites_cap);
    pl->sites[pl->sites_n] = (struct route_site){pattern, ln->https_redirect, ln->tls == LISTEN_TLS_PASSTHROUGH};
    if (ends_tls) {
        ARRAY_GROW(MEM_PLAN, pl->tls, pl->tls_n, pl->tls_cap);
        const char *name = !pattern.n ? "" : pattern.p[0] == '.' ? arena_printf(&c->scratch, "*" SLICE_FMT, SLICE_ARG(pattern)) : arena_printf(&c->scratch, SLICE_FMT, SLICE_ARG(pattern));
        pl->tls[pl->tls_n++] = (struct tls_site){slice_cstr(name), gw, ln};
    }
    return pl->sites_n++;
}

static void attach_add(struct place *pl, uint32_t site, struct slice pattern, const struct route_source *src, const struct tcp_one *tcp, const char *gateway)
{
    struct slice owner = pl->sites[site].pattern;
    if (!pattern_covers(owner, pattern) && !pattern_covers(pattern, owner))
        return; /* hostnames that do not intersect the listener's are left out (HTTPRouteSpec.hostnames) */
    ARRAY_GROW(MEM_PLAN, pl->at, pl->at_n, pl->at_cap);
    pl->at[pl->at_n++] = (struct route_attach){site, pattern, src, tcp, gateway};
}

static void attach_tcp(struct place *pl, uint32_t site, const struct tcp_one *one, const char *gateway)
{
    for (uint32_t i = 0; i < one->patterns_n; i++)
        attach_add(pl, site, one->patterns[i], NULL, one, gateway);
}

/* What a listener carries. HTTP ends at its routes; bytes are TCP, TLS that is passed through, or what TLS had inside. */
static bool carries_http(const struct gw_listener *ln) { return ln->tls != LISTEN_TLS_PASSTHROUGH && (ln->protocol == LISTEN_HTTP || ln->protocol == LISTEN_HTTPS); }

/* ---- Gateway API -------------------------------------------------------------------------------------------------------- */

/* The route names this listener as a parent, and the listener allows the route's namespace. */
static bool route_allowed(const struct compile *c, const struct object *route, const struct object *gw, const struct gw_listener *ln)
{
    if (!objset_listener_allows(c->s, gw, ln, route->ns) || (ln->kinds && !(ln->kinds & 1u << route->kind)))
        return false;
    for (size_t i = 0; i < route->route.parents_n; i++) {
        const struct parent_ref *ref = &route->route.parents[i];
        const char *ns = ref->ns && ref->ns[0] ? ref->ns : route->ns;
        if (!ref->service && strcmp(ref->gateway, gw->name) == 0 && strcmp(ns, gw->ns) == 0 &&
            (!ref->section || !ref->section[0] || (ln->name && strcmp(ref->section, ln->name) == 0)) && (!ref->port || ref->port == ln->port))
            return true;
    }
    return false;
}

static void gateway_attach(struct compile *c, struct place *pl, uint32_t site, const struct object *gw, const struct gw_listener *ln)
{
    for (uint32_t r = 0; carries_http(ln) && r < c->sources_n; r++)
        if (route_allowed(c, c->sources[r].object, gw, ln))
            for (uint32_t i = 0; i < c->sources[r].patterns_n; i++)
                attach_add(pl, site, c->sources[r].patterns[i], &c->sources[r], NULL, "");
    for (uint32_t r = 0; !carries_http(ln) && r < c->tcp_routes_n; r++) {
        const struct tcp_route *t = &c->tcp_routes[r];
        bool fits = t->o->kind == OBJ_TLSROUTE ? ln->protocol == LISTEN_TLS || ln->protocol == LISTEN_HTTPS : ln->tls != LISTEN_TLS_PASSTHROUGH;
        for (uint32_t i = 0; fits && i < t->ones_n && route_allowed(c, t->o, gw, ln); i++)
            attach_tcp(pl, site, &t->ones[i], "");
    }
}

/* ---- Istio -------------------------------------------------------------------------------------------------------------- */

/* "ns/host", "./host", "*" "/host" or "host": the host, and whether VirtualServices of namespace ns may have it. */
static const char *server_host(const char *host, const char *own, const char *ns, bool *allowed)
{
    const char *slash = strchr(host, '/');
    struct slice in = slash ? slice_of(host, (size_t)(slash - host)) : SLICE("*");
    *allowed = !ns || slice_is(in, "*") || (slice_is(in, ".") ? strcmp(own, ns) == 0 : slice_is(in, ns));
    return slash ? slash + 1 : host;
}

static void virtual_attach(struct compile *c, struct place *pl, uint32_t site, const struct gw_listener *ln, struct virtual_service *v, const char *gateway)
{
    struct virtual_compiled *vc = virtual_at(c, v, ln->port);
    bool http = carries_http(ln);
    for (uint32_t i = 0; http && vc->http.ones_n && i < vc->http.patterns_n; i++)
        attach_add(pl, site, vc->http.patterns[i], &vc->http, NULL, gateway);
    if (http)
        return;
    for (uint32_t i = 0; i < vc->tls_n; i++)
        if (ln->tls == LISTEN_TLS_PASSTHROUGH && gateways_have(vc->tls[i].gateways, vc->tls[i].gateways_n, "", gateway))
            attach_tcp(pl, site, &vc->tls[i], gateway);
    for (uint32_t i = 0; i < vc->tcp_n; i++)
        if (gateways_have(vc->tcp[i].gateways, vc->tcp[i].gateways_n, "", gateway))
            attach_tcp(pl, site, &vc->tcp[i], gateway);
}

static void istio_attach(struct compile *c, struct place *pl, uint32_t site, const struct object *gw, const struct gw_listener *ln, const char *host, const char *gateway)
{
    for (uint32_t i = 0; i < c->virtuals_n; i++) {
        struct virtual_service *v = &c->virtuals[i];
        const struct http_route *r = &v->o->route;
        bool allowed;
        server_host(host, gw->ns, v->o->ns, &allowed);
        if (allowed && r->gateways_n && gateways_have(r->gateways, r->gateways_n, v->o->ns, gateway) && exported(r->export_to, r->export_to_n, v->o->ns, gw->ns))
            virtual_attach(c, pl, site, ln, v, gateway);
    }
}

/* ---- places ------------------------------------------------------------------------------------------------------------- */

static void place_note(struct place *pl, const struct gw_listener *ln)
{
    pl->passed |= ln->tls == LISTEN_TLS_PASSTHROUGH;
    pl->https |= ln->tls != LISTEN_TLS_NONE && ln->tls != LISTEN_TLS_PASSTHROUGH && carries_http(ln);
    pl->tls_bytes |= ln->tls != LISTEN_TLS_NONE && ln->tls != LISTEN_TLS_PASSTHROUGH && !carries_http(ln);
    pl->tcp |= ln->tls == LISTEN_TLS_NONE && !carries_http(ln);
    pl->proxy_protocol |= ln->proxy_protocol;
}

static void listener_place(struct compile *c, struct place *pl, const struct object *gw, const struct gw_listener *ln, const char *gateway)
{
    bool allowed, istio = gw->kind == OBJ_ISTIO_GATEWAY;
    place_note(pl, ln);
    for (size_t h = 0; h < (istio ? MAX(1, ln->hosts_n) : 1); h++) {
        const char *host = !istio ? ln->hostname : ln->hosts_n ? ln->hosts[h] : "*";
        struct slice pattern = pattern_of(&c->scratch, istio ? server_host(host, gw->ns, NULL, &allowed) : host);
        uint32_t site = place_site(c, pl, gw, ln, pattern);
        if (istio)
            istio_attach(c, pl, site, gw, ln, host, gateway);
        else
            gateway_attach(c, pl, site, gw, ln);
    }
}

static void gateway_places(struct compile *c, struct places *places, const struct object *gw)
{
    const struct addr local = addr_ip4(0x7f000001, 0);
    const struct addr *addresses = gw->gw.addresses_n ? gw->gw.addresses : &local;
    size_t addresses_n = gw->gw.addresses_n ? gw->gw.addresses_n : 1;
    const char *name = arena_printf(&c->scratch, "%s/%s", gw->ns, gw->name);
    for (size_t i = 0; i < gw->gw.listeners_n; i++)
        for (size_t j = 0; j < addresses_n; j++) {
            struct addr a = addresses[j];
            a.port = gw->gw.listeners[i].port;
            listener_place(c, place_at(places, &a, name), gw, &gw->gw.listeners[i], name);
        }
}

static void listener_fill(struct compile *c, struct plan_listener *ln, struct place *pl)
{
    *ln = (struct plan_listener){
        .address = pl->address,
        .token = address_token(&pl->address),
        .gateway = keep_str(&c->keep, pl->gateway),
        .protocol = pl->https ? LISTEN_HTTPS : pl->passed || pl->tls_bytes ? LISTEN_TLS : pl->tcp ? LISTEN_TCP : LISTEN_HTTP,
        .tls_peek = pl->passed,
        .proxy_protocol = pl->proxy_protocol,
        .tls = pl->tls_n ? tls_listener(c, pl->tls, pl->tls_n) : NULL,
        .hosts = hosts_build(&c->keep, &c->scratch, pl->sites, pl->sites_n, pl->at, pl->at_n),
    };
}

void compile_listeners(struct compile *c)
{
    struct places places = {0};
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_GATEWAY || objset_at(c->s, i)->kind == OBJ_ISTIO_GATEWAY)
            gateway_places(c, &places, objset_at(c->s, i));
    bool gate = c->node && c->node->listen.family != ADDR_NONE;
    struct plan_listener *ln = c->plan->listeners = keep_new(&c->keep, (places.n + gate) * sizeof *ln);
    if (gate)
        gate_listener(c, address_token(&c->node->listen), ln++);
    for (uint32_t i = 0; i < places.n; i++) {
        if (gate && addr_eq(&places.items[i].address, &c->node->listen))
            log_error("plan", "%s: its listener's address is the one that other nodes come to, and is not opened", places.items[i].gateway);
        else
            listener_fill(c, ln++, &places.items[i]);
        mem_free(places.items[i].sites);
        mem_free(places.items[i].tls);
        mem_free(places.items[i].at);
    }
    c->plan->listeners_n = (uint32_t)(ln - c->plan->listeners);
    mem_free(places.items);
}
