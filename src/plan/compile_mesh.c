/* compile_mesh.c - calls from inside: service addresses, and the routes that are for them.
 *
 * Each port of each target with an address is an entry: how connections begin, the rule where nobody says anything else (the
 * cluster, or what a TrafficSplit makes of it), and tables, of which the first that is for the caller decides alone:
 *
 *   1. HTTPRoutes and GRPCRoutes whose parent is the Service: those of other namespaces, each for callers of its own
 *      (consumer routes), then those of the Service's namespace, for everybody (producer routes)
 *   2. VirtualServices for the mesh: by the most specific of their hosts that names the target, then the oldest; each for the
 *      namespaces that it is exported to
 *
 * A VirtualService's table is made once, or once for each port where its destinations leave theirs open.
 */
#include "compile_int.h"

#include <stdlib.h>

/* VirtualServices by host. */
struct virtual_list {
    struct virtual_service **items; /* oldest first */
    size_t n, cap;
};

static void virtuals_index(struct compile *c, struct table *hosts)
{
    for (uint32_t i = 0; i < c->virtuals_n; i++) {
        const struct http_route *r = &c->virtuals[i].o->route;
        for (size_t h = 0; c->virtuals[i].mesh && h < r->hostnames_n; h++) {
            struct slice key = host_full(c, c->virtuals[i].o->ns, r->hostnames[h]);
            struct virtual_list *l = table_get(hosts, key);
            if (!l) {
                l = arena_zalloc(&c->scratch, sizeof *l);
                table_put(hosts, key, l);
            }
            ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
            l->items[l->n++] = &c->virtuals[i];
        }
    }
}

static void virtuals_forget(struct table *hosts)
{
    for (struct table_slot *s = NULL; (s = table_next(hosts, s));)
        mem_free(((struct virtual_list *)s->value)->items);
    table_fini(hosts);
}

/* Gateway API's parents of kind Service: each target's routes. */
static void parents_index(struct compile *c)
{
    for (uint32_t i = 0; i < c->sources_n; i++) {
        const struct object *o = c->sources[i].object;
        for (size_t k = 0; k < o->route.parents_n; k++) {
            const struct parent_ref *ref = &o->route.parents[k];
            struct target *t = ref->service ? (struct target *)target_service(c, ref->ns && ref->ns[0] ? ref->ns : o->ns, ref->gateway) : NULL; /* ours to fill */
            if (!t)
                continue;
            if (!t->mesh_routes)
                t->mesh_routes = list_new(c);
            if (!t->mesh_routes->n || t->mesh_routes->items[t->mesh_routes->n - 1] != o)
                list_add(t->mesh_routes, o);
        }
    }
}

/* ---- tables ------------------------------------------------------------------------------------------------------------- */

static bool parent_port(const struct object *o, const struct target *t, uint16_t port)
{
    for (size_t k = 0; k < o->route.parents_n; k++) {
        const struct parent_ref *ref = &o->route.parents[k];
        if (ref->service && strcmp(ref->gateway, t->o->name) == 0 && strcmp(ref->ns && ref->ns[0] ? ref->ns : o->ns, t->o->ns) == 0 && (!ref->port || ref->port == port))
            return true;
    }
    return false;
}

static const struct route_source *source_of(const struct compile *c, const struct object *o)
{
    for (uint32_t i = 0; i < c->sources_n; i++)
        if (c->sources[i].object == o)
            return &c->sources[i];
    return NULL;
}

/* The table of all routes of namespace ns for this port; NULL: there are none. */
static const struct mesh_table *routes_table(struct compile *c, const struct target *t, uint16_t port, const char *ns)
{
    const struct route_source **sources = arena_alloc(&c->scratch, (t->mesh_routes->n + 1) * sizeof(void *));
    size_t n = 0;
    for (size_t i = 0; i < t->mesh_routes->n; i++)
        if (strcmp(t->mesh_routes->items[i]->ns, ns) == 0 && parent_port(t->mesh_routes->items[i], t, port))
            sources[n++] = source_of(c, t->mesh_routes->items[i]);
    if (!n)
        return NULL;
    struct mesh_table *m = keep_new(&c->keep, sizeof *m);
    m->http = paths_of(&c->keep, &c->scratch, sources, n, "mesh");
    if (strcmp(ns, t->o->ns) != 0) {
        m->from = (const char *const *)strings_keep(&c->keep, (char *[]){(char *)ns}, 1);
        m->from_n = 1;
    }
    return m;
}

/* The namespaces of an exportTo list; none: all. */
static void table_exports(struct compile *c, struct mesh_table *m, const struct object *o)
{
    const struct http_route *r = &o->route;
    char **from = keep_new(&c->keep, r->export_to_n * sizeof *from);
    for (size_t i = 0; i < r->export_to_n; i++) {
        if (strcmp(r->export_to[i], "*") == 0) {
            m->from_n = 0;
            return;
        }
        from[m->from_n++] = keep_str(&c->keep, strcmp(r->export_to[i], ".") == 0 ? o->ns : r->export_to[i]);
    }
    m->from = (const char *const *)from;
}

static const struct plan_hosts *virtual_tls(struct compile *c, const struct virtual_compiled *vc)
{
    const struct route_site any = {.pattern = slice_of("", 0)};
    size_t n = 0, at_n = 0;
    for (uint32_t i = 0; i < vc->tls_n; i++)
        n += vc->tls[i].patterns_n;
    struct route_attach *at = arena_alloc(&c->scratch, (n + 1) * sizeof *at);
    for (uint32_t i = 0; i < vc->tls_n; i++)
        for (uint32_t k = 0; gateways_have(vc->tls[i].gateways, vc->tls[i].gateways_n, "", "mesh") && k < vc->tls[i].patterns_n; k++)
            at[at_n++] = (struct route_attach){.pattern = vc->tls[i].patterns[k], .tcp = &vc->tls[i], .gateway = "mesh"};
    return at_n ? hosts_build(&c->keep, &c->scratch, &any, 1, at, at_n) : NULL;
}

static const struct mesh_table *virtual_table(struct compile *c, struct virtual_service *v, uint16_t port)
{
    struct virtual_compiled *vc = virtual_at(c, v, port);
    if (vc->mesh)
        return vc->mesh;
    struct mesh_table *m = keep_new(&c->keep, sizeof *m);
    const struct route_source *src = &vc->http;
    table_exports(c, m, v->o);
    if (src->ones_n)
        m->http = paths_of(&c->keep, &c->scratch, &src, 1, "mesh");
    m->tls = virtual_tls(c, vc);
    struct tcp_cand *cands = keep_new(&c->keep, vc->tcp_n * sizeof *cands);
    for (uint32_t i = 0; i < vc->tcp_n; i++)
        if (gateways_have(vc->tcp[i].gateways, vc->tcp[i].gateways_n, "", "mesh"))
            cands[m->tcp_n++] = vc->tcp[i].cand;
    m->tcp = cands;
    return vc->mesh = m;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------ */

/* Tables of one address while they are gathered. */
struct table_list {
    const struct mesh_table **items;
    size_t n, cap;
};

static void tables_add(struct table_list *l, const struct mesh_table *m)
{
    if (!m)
        return;
    ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
    l->items[l->n++] = m;
}

static void routes_tables(struct compile *c, const struct target *t, uint16_t port, struct table_list *out)
{
    const struct object_list *routes = t->mesh_routes;
    for (size_t i = 0; routes && i < routes->n; i++) {
        const char *ns = routes->items[i]->ns;
        bool seen = strcmp(ns, t->o->ns) == 0;
        for (size_t k = 0; k < i && !seen; k++)
            seen = strcmp(routes->items[k]->ns, ns) == 0;
        if (!seen)
            tables_add(out, routes_table(c, t, port, ns));
    }
    if (routes)
        tables_add(out, routes_table(c, t, port, t->o->ns));
}

/* One that is for everybody is the last: nobody gets past it. */
static void virtuals_tables(struct compile *c, const struct target *t, uint16_t port, const struct table *virtuals, struct table_list *out)
{
    for (struct slice p = pattern_of(&c->scratch, t->host); virtuals->n; p = pattern_up(p)) {
        const struct virtual_list *l = table_get(virtuals, p);
        for (size_t i = 0; l && i < l->n; i++) {
            tables_add(out, virtual_table(c, l->items[i], port));
            if (!out->items[out->n - 1]->from_n)
                return;
        }
        if (!p.n)
            return;
    }
}

static const struct mesh_table *const *tables_of(struct compile *c, const struct target *t, uint16_t port, const struct table *virtuals, uint32_t *n)
{
    struct table_list found = {0};
    routes_tables(c, t, port, &found);
    virtuals_tables(c, t, port, virtuals, &found);
    const struct mesh_table **out = keep_new(&c->keep, found.n * sizeof *out);
    for (size_t i = 0; i < found.n; i++)
        out[i] = found.items[i];
    *n = (uint32_t)found.n;
    mem_free(found.items);
    return out;
}

static void entry_fill(struct compile *c, struct mesh_entry *e, const struct target *t, const struct service_port *sp, const struct table *virtuals, char *name, uint32_t slot)
{
    const struct plan_cluster *cl = target_cluster(c, t, sp->port, 0, NULL);
    struct plan_backend *backends;
    uint32_t sum, n = backends_default(c, t, cl, &backends, &sum);
    e->protocol = port_protocol(sp);
    e->tables = tables_of(c, t, sp->port, virtuals, &e->tables_n);
    if (e->protocol == MESH_HTTP) {
        struct plan_rule *r = keep_new(&c->keep, sizeof *r);
        *r = (struct plan_rule){.route = name, .slot = slot, .backends = backends, .backends_n = n, .weight_sum = sum, .unfound_503 = true, .plain = true};
        e->rule = r;
    } else {
        struct plan_tcp_rule *r = keep_new(&c->keep, sizeof *r);
        *r = (struct plan_tcp_rule){name, slot, backends, n, sum};
        e->bytes = r;
    }
}

void compile_mesh(struct compile *c)
{
    struct plan *p = c->plan;
    struct table virtuals = {0};
    uint32_t slot = slots_take(c->m, SLOT_ROUTE, SLICE("")).slot;
    char *name = keep_str(&c->keep, "");
    virtuals_index(c, &virtuals);
    parents_index(c);
    for (size_t i = 0; i < c->targets_n; i++) {
        const struct target *t = &c->targets[i];
        for (size_t k = 0; k < t->ports_n && t->address.family == ADDR_IP4; k++) { /* no address: nobody can connect to it */
            char key[6];
            memcpy(key, t->address.ip, 4);
            key[4] = (char)(t->ports[k].port >> 8);
            key[5] = (char)(t->ports[k].port & 0xff);
            if (!t->ports[k].port || port_protocol(&t->ports[k]) == MESH_NONE || table_get(&p->mesh, slice_of(key, sizeof key)))
                continue;
            struct mesh_entry *e = keep_new(&c->keep, sizeof *e);
            entry_fill(c, e, t, &t->ports[k], &virtuals, name, slot);
            table_put(&p->mesh, slice_of(key, sizeof key), e);
            c->keep.bytes += sizeof key + 1;
        }
    }
    c->keep.bytes += p->mesh.cap * sizeof *p->mesh.slots;
    virtuals_forget(&virtuals);
}

/* Every Deployment may call. */
void compile_callers(struct compile *c)
{
    struct table *t = &c->plan->callers;
    for (size_t i = 0; i < c->deps_n; i++) {
        const struct object *o = c->deps[i];
        struct plan_caller *caller = keep_new(&c->keep, sizeof *caller);
        struct kvs *labels = keep_new(&c->keep, sizeof *labels);
        *labels = kvs_keep(&c->keep, &o->dep.pod.labels);
        *caller = (struct plan_caller){keep_str(&c->keep, o->ns), keep_str(&c->keep, o->name), labels};
        struct slice key = slice_cstr(arena_printf(&c->scratch, "%s/%s", o->ns, o->name));
        table_put(t, key, caller);
        c->keep.bytes += key.n + 1;
    }
    c->keep.bytes += t->cap * sizeof *t->slots;
}
