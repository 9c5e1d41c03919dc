/* compile_cluster.c - what traffic can go to: targets, their clusters, their endpoints.
 *
 * A target is a name: of a Service (NAME.NS.svc.cluster.local) or of a ServiceEntry (each of its hosts). Each port of a
 * target is a cluster; and where a DestinationRule names subsets, each subset of each port is one more. Endpoints are
 *
 *   Service             live replicas of its namespace that its selector matches
 *   ExternalName        the addresses that the caller resolved
 *   ServiceEntry        its endpoints: addresses, Unix paths, or names that the caller resolved; or live replicas by its
 *                       workloadSelector
 *
 * A subset keeps those whose labels match.
 *
 * What a headless Service stands for are targets as well, each with the one endpoint (struct plan_named): the policy is the Service's, routes are not, for
 * who asks for one replica is to get that one.
 */
#include "compile_int.h"
#include "plan_int.h"

#include <stdlib.h>

/* ---- finding by labels ------------------------------------------------------------------------------------------------ */

static uint64_t label_hash(const char *ns, const struct kv *l)
{
    uint64_t parts[3] = {hash_slice(slice_cstr(ns)), hash_slice(slice_cstr(l->key)), hash_slice(slice_cstr(l->value))};
    return hash_bytes(parts, sizeof parts);
}

static int label_cmp(const void *pa, const void *pb)
{
    const struct label_ref *a = pa, *b = pb;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static void label_add(struct label_index *x, const char *ns, const struct kvs *labels, uint32_t index)
{
    for (size_t i = 0; i < labels->n; i++)
        x->refs[x->n++] = (struct label_ref){label_hash(ns, &labels->items[i]), index};
}

static void label_sort(struct label_index *x)
{
    if (x->n)
        qsort(x->refs, x->n, sizeof *x->refs, label_cmp);
}

static void labels_build(struct compile *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->eps_n; i++)
        n += c->eps[i].labels->n;
    c->ep_labels.refs = arena_alloc(&c->scratch, (n + 1) * sizeof(struct label_ref));
    for (size_t i = 0; i < c->eps_n; i++)
        label_add(&c->ep_labels, c->eps[i].ns, c->eps[i].labels, (uint32_t)i);
    label_sort(&c->ep_labels);
    n = 0;
    c->deps = arena_alloc(&c->scratch, (objset_n(c->s) + 1) * sizeof(void *));
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind != OBJ_DEPLOYMENT)
            continue;
        n += o->dep.pod.labels.n;
        c->deps[c->deps_n++] = o;
    }
    c->dep_labels.refs = arena_alloc(&c->scratch, (n + 1) * sizeof(struct label_ref));
    for (size_t i = 0; i < c->deps_n; i++)
        label_add(&c->dep_labels, c->deps[i]->ns, &c->deps[i]->dep.pod.labels, (uint32_t)i);
    label_sort(&c->dep_labels);
}

static size_t label_lower_bound(const struct label_index *x, uint64_t hash)
{
    size_t lo = 0, hi = x->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (x->refs[mid].hash < hash)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The shortest run of refs that one pair of the selector has: what it matches is among them. */
static const struct label_ref *label_run(const struct label_index *x, const char *ns, const struct kvs *selector, size_t *n)
{
    const struct label_ref *best = NULL;
    *n = 0;
    for (size_t i = 0; i < selector->n; i++) {
        uint64_t hash = label_hash(ns, &selector->items[i]);
        size_t lo = label_lower_bound(x, hash), hi = lo;
        while (hi < x->n && x->refs[hi].hash == hash && (!best || hi - lo <= *n))
            hi++;
        if (!best || hi - lo < *n) {
            best = &x->refs[lo];
            *n = hi - lo;
        }
    }
    return best;
}

/* Indices into eps of what the selector matches, in their order; *n of them. */
static uint32_t *selected_endpoints(struct compile *c, const char *ns, const struct kvs *selector, uint32_t *n)
{
    size_t run_n;
    const struct label_ref *run = label_run(&c->ep_labels, ns, selector, &run_n);
    uint32_t *found = arena_alloc(&c->scratch, (run_n + 1) * sizeof *found);
    *n = 0;
    for (size_t i = 0; i < run_n; i++) {
        const struct live_endpoint *ep = &c->eps[run[i].index];
        if (strcmp(ep->ns, ns) == 0 && kvs_match(selector, ep->labels))
            found[(*n)++] = run[i].index;
    }
    return found;
}

static const char *selected_workload(struct compile *c, const char *ns, const struct kvs *selector, const uint32_t *found, uint32_t found_n)
{
    if (found_n)
        return c->eps[found[0]].deployment;
    size_t run_n;
    const struct label_ref *run = label_run(&c->dep_labels, ns, selector, &run_n);
    for (size_t i = 0; i < run_n; i++) {
        const struct object *dep = c->deps[run[i].index];
        if (strcmp(dep->ns, ns) == 0 && kvs_match(selector, &dep->dep.pod.labels))
            return dep->name;
    }
    return "unknown";
}

/* ---- what endpoints have ------------------------------------------------------------------------------------------------- */

/* What the caller resolved for a name, in its order. */
struct address_list {
    const struct live_address **items;
    size_t n, cap;
};

static const struct address_list addresses_none;

static void addresses_index(struct compile *c)
{
    for (size_t i = 0; i < c->ext_n; i++) {
        struct slice key = slice_cstr(arena_printf(&c->scratch, "%s/%s", c->ext[i].ns, c->ext[i].service));
        struct address_list *l = table_get(&c->addresses, key);
        if (!l) {
            l = arena_zalloc(&c->scratch, sizeof *l);
            table_put(&c->addresses, key, l);
        }
        ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
        l->items[l->n++] = &c->ext[i];
    }
}

static const struct address_list *addresses_of(struct compile *c, const char *ns, const char *name)
{
    const struct address_list *l = table_get(&c->addresses, slice_cstr(arena_printf(&c->scratch, "%s/%s", ns, name)));
    return l ? l : &addresses_none;
}

/* The port on this endpoint that the service's port leads to; 0 when it has no port of that name. */
static uint16_t target_port(const struct service_port *sp, const struct live_endpoint *ep)
{
    if (!sp->target_name)
        return sp->target ? sp->target : sp->port;
    for (size_t i = 0; i < ep->ports_n; i++)
        if (ep->ports[i].name && strcmp(ep->ports[i].name, sp->target_name) == 0)
            return ep->ports[i].port;
    return 0;
}

/* ---- targets ------------------------------------------------------------------------------------------------------------ */

struct slice host_full(struct compile *c, const char *ns, const char *host)
{
    struct slice s = pattern_of(&c->scratch, host); /* lower case, "*." off */
    size_t dots = 0;
    for (size_t i = 0; i < s.n; i++)
        dots += s.p[i] == '.';
    const char *full = NULL;
    if (!s.n || s.p[0] == '.')
        return s;
    if (dots == 0)
        full = arena_printf(&c->scratch, SLICE_FMT ".%s.svc.cluster.local", SLICE_ARG(s), ns);
    else if (dots == 2 && slice_ends(s, SLICE(".svc")))
        full = arena_printf(&c->scratch, SLICE_FMT ".cluster.local", SLICE_ARG(s));
    else if (dots == 1)
        full = arena_printf(&c->scratch, SLICE_FMT ".svc.cluster.local", SLICE_ARG(s));
    if (!full || table_get(&c->hosts, slice_cstr(full)))
        return full ? slice_cstr(full) : s;
    /* "a" may be the host of a ServiceEntry, and "a.b" any name: they are Services only where there is one. */
    return dots == 1 || table_get(&c->hosts, s) ? s : slice_cstr(full);
}

const struct target *target_find(struct compile *c, const char *ns, const char *host)
{
    struct slice s = host_full(c, ns, host);
    const struct target *t = table_get(&c->hosts, s);
    for (struct slice up = s; !t && up.n; t = table_get(&c->hosts, up)) {
        up = pattern_up(up); /* a ServiceEntry for "*.example.com" */
        if (!up.n)
            return NULL;
    }
    if (t && t->o->kind == OBJ_SERVICEENTRY && !exported(t->o->entry.export_to, t->o->entry.export_to_n, t->o->ns, ns))
        return NULL;
    return t;
}

const struct target *target_service(struct compile *c, const char *ns, const char *service)
{
    return table_get(&c->hosts, slice_cstr(arena_printf(&c->scratch, "%s.%s.svc.cluster.local", service, ns)));
}

/* Of two for one host the first counts: Services come before ServiceEntries, and those oldest first. */
static void name_add(struct compile *c, struct target t)
{
    struct slice key = pattern_of(&c->scratch, t.host);
    if (!key.n || table_get(&c->hosts, key))
        return;
    c->targets[c->targets_n] = t;
    table_put(&c->hosts, key, &c->targets[c->targets_n++]);
}

/* ---- headless Services ---------------------------------------------------------------------------------------------------- */

static void taken_fill(struct compile *c)
{
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        const struct addr *all = o->kind == OBJ_SERVICE ? &o->svc.address : o->kind == OBJ_SERVICEENTRY ? o->entry.addresses : NULL;
        size_t n = !all ? 0 : o->kind == OBJ_SERVICE ? 1 : o->entry.addresses_n;
        for (size_t k = 0; k < n; k++) {
            uint32_t ip = addr_ip4_host(&all[k]);
            table_put(&c->taken, slice_of((const char *)&ip, sizeof ip), c);
        }
    }
}

/* The same for all headless Services that have it. */
static struct addr named_address(struct compile *c, const char *ns, const char *name)
{
    struct slice key = slice_cstr(arena_printf(&c->scratch, "%s/%s", ns, name));
    uintptr_t ip = (uintptr_t)table_get(&c->named, key);
    if (!c->taken.n)
        taken_fill(c);
    if (!ip) {
        uint32_t new = service_address_pick(&c->taken, slice_cstr(arena_printf(&c->scratch, "replica %s/%s", ns, name)));
        table_put(&c->taken, slice_of((const char *)&new, sizeof new), c);
        ip = new;
        table_put(&c->named, key, (void *)ip);
    }
    return addr_ip4((uint32_t)ip, 0);
}

/* replica or outside. */
static void named_add(struct compile *c, const struct target *whole, const char *label, const struct live_endpoint *replica, const struct live_address *outside)
{
    const struct object *o = whole->o;
    struct service_port *ports = arena_alloc(&c->scratch, (whole->ports_n + 1) * sizeof *ports);
    for (size_t i = 0; i < whole->ports_n; i++) {
        ports[i] = whole->ports[i];
        ports[i].port = ports[i].target = replica ? target_port(&whole->ports[i], replica) : outside->ip.port;
        ports[i].target_name = NULL;
    }
    name_add(c, (struct target){.o = o, .ports = ports, .ports_n = whole->ports_n, .address = named_address(c, o->ns, label), .whole = whole, .replica = replica, .outside = outside,
                                .service = keep_str(&c->keep, arena_printf(&c->scratch, "%s.%s", label, o->name)),
                                .host = keep_str(&c->keep, arena_printf(&c->scratch, "%s.%s.%s.svc.cluster.local", label, o->name, o->ns))});
}

/* "192-0-2-1-8080": a label of what has no name. */
static const char *address_label(struct compile *c, const struct addr *a)
{
    char text[ADDR_TEXT_MAX];
    size_t n = addr_format(a, text);
    for (size_t i = 0; i < n; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'z')))
            text[i] = '-';
    return arena_printf(&c->scratch, "%s%.*s", text[0] == '-' ? "a" : "", (int)n, text); /* of [::1]:80 */
}

static size_t named_count(struct compile *c, const struct object *o)
{
    uint32_t n = 0;
    if (o->svc.selector.n)
        (void)selected_endpoints(c, o->ns, &o->svc.selector, &n);
    return n + addresses_of(c, o->ns, o->name)->n;
}

static void named_targets(struct compile *c, const struct target *whole)
{
    const struct object *o = whole->o;
    uint32_t n = 0;
    const uint32_t *found = o->svc.selector.n ? selected_endpoints(c, o->ns, &o->svc.selector, &n) : NULL;
    const struct address_list *l = addresses_of(c, o->ns, o->name);
    for (uint32_t i = 0; i < n; i++)
        named_add(c, whole, c->eps[found[i]].name, &c->eps[found[i]], NULL);
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i]->registered)
            named_add(c, whole, address_label(c, &l->items[i]->ip), NULL, l->items[i]);
}

/* ---- all targets ------------------------------------------------------------------------------------------------------------ */

static int entry_cmp(const void *a, const void *b) { return object_age_cmp(*(const struct object *const *)a, *(const struct object *const *)b); }

static void targets_of_entry(struct compile *c, const struct object *o)
{
    const struct service_entry *e = &o->entry;
    for (size_t i = 0; i < e->hosts_n; i++) {
        char *host = keep_str(&c->keep, e->hosts[i]);
        for (char *p = host; *p; p++)
            *p = ascii_lower(*p);
        name_add(c, (struct target){.o = o, .service = host, .host = host, .ports = e->ports, .ports_n = e->ports_n,
                                      .address = i < e->addresses_n ? e->addresses[i] : (struct addr){0}});
    }
}

/* ---- an ExternalName without ports: it has those that routes to it give ----------------------------------------------------- */

static bool is_bare(const struct object *o) { return o->kind == OBJ_SERVICE && o->svc.external_name && !o->svc.ports_n; }

static void bare_wanted(struct compile *c, const struct object *o, const struct route_backend *b)
{
    const struct target *found = b->port ? backend_target(c, o, b) : NULL;
    if (!found || !is_bare(found->o))
        return;
    struct target *t = &c->targets[found - c->targets];
    for (size_t i = 0; i < t->ports_n; i++)
        if (t->ports[i].port == b->port)
            return;
    struct service_port *ports = arena_alloc(&c->scratch, (t->ports_n + 1) * sizeof *ports);
    if (t->ports_n)
        memcpy(ports, t->ports, t->ports_n * sizeof *ports);
    ports[t->ports_n] = (struct service_port){.name = arena_strdup(&c->scratch, ""), .port = b->port, .target = b->port};
    t->ports = ports;
    t->ports_n++;
}

static void bare_wanted_streams(struct compile *c, const struct object *o, const struct tcp_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < rules[i].backends_n; k++)
            bare_wanted(c, o, &rules[i].backends[k]);
}

static void bare_ports(struct compile *c)
{
    bool any = false;
    for (size_t i = 0; i < c->targets_n && !any; i++)
        any = is_bare(c->targets[i].o);
    for (size_t i = 0; i < objset_n(c->s) && any; i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind != OBJ_HTTPROUTE && o->kind != OBJ_GRPCROUTE && o->kind != OBJ_TCPROUTE && o->kind != OBJ_TLSROUTE && o->kind != OBJ_VIRTUALSERVICE)
            continue;
        for (size_t k = 0; k < o->route.rules_n; k++) {
            const struct route_rule *rule = &o->route.rules[k];
            for (size_t b = 0; b < rule->backends_n; b++)
                bare_wanted(c, o, &rule->backends[b]);
            for (size_t m = 0; m < rule->mirrors_n; m++)
                bare_wanted(c, o, &rule->mirrors[m].backend);
        }
        bare_wanted_streams(c, o, o->route.tcp, o->route.tcp_n);
        bare_wanted_streams(c, o, o->route.tls, o->route.tls_n);
    }
}

void compile_targets(struct compile *c)
{
    size_t n = 0, entries_n = 0;
    const struct object **entries = arena_alloc(&c->scratch, (objset_n(c->s) + 1) * sizeof(void *));
    labels_build(c);
    addresses_index(c);
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        n += o->kind == OBJ_SERVICE ? 1 + (o->svc.headless ? named_count(c, o) : 0) : o->kind == OBJ_SERVICEENTRY ? o->entry.hosts_n : 0;
        if (o->kind == OBJ_SERVICEENTRY)
            entries[entries_n++] = o;
    }
    c->targets = arena_zalloc(&c->scratch, (n + 1) * sizeof *c->targets);
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind != OBJ_SERVICE)
            continue;
        name_add(c, (struct target){.o = o, .service = keep_str(&c->keep, o->name), .ports = o->svc.ports, .ports_n = o->svc.ports_n, .address = o->svc.address,
                                    .host = keep_str(&c->keep, arena_printf(&c->scratch, "%s.%s.svc.cluster.local", o->name, o->ns))});
        if (o->svc.headless)
            named_targets(c, &c->targets[c->targets_n - 1]);
    }
    if (entries_n)
        qsort(entries, entries_n, sizeof(void *), entry_cmp);
    for (size_t i = 0; i < entries_n; i++)
        targets_of_entry(c, entries[i]);
    bare_ports(c);
}

void compile_named(struct compile *c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < c->targets_n; i++)
        n += c->targets[i].whole != NULL;
    struct plan_named *all = keep_new(&c->keep, n * sizeof *all);
    for (size_t i = 0; i < c->targets_n; i++) {
        const struct target *t = &c->targets[i];
        if (!t->whole)
            continue;
        struct plan_named *d = &all[c->plan->named_n++];
        struct plan_named_port *ports = keep_new(&c->keep, t->ports_n * sizeof *ports);
        size_t label_n = strlen(t->service) - strlen(t->whole->service) - 1;
        *d = (struct plan_named){.ns = keep_str(&c->keep, t->o->ns), .service = t->whole->service, .host = keep_slice(&c->keep, slice_of(t->service, label_n)).p, .address = t->address, .ports = ports};
        for (size_t k = 0; k < t->ports_n; k++)
            if (t->ports[k].port)
                ports[d->ports_n++] = (struct plan_named_port){keep_str(&c->keep, t->ports[k].name ? t->ports[k].name : ""), t->ports[k].port};
    }
    c->plan->named = all;
}

/* ---- endpoints ---------------------------------------------------------------------------------------------------------- */

/* There are few of them, on many endpoints. */
static const char *locality_keep(struct compile *c, const char *locality)
{
    const char *kept = table_get(&c->localities, slice_cstr(locality));
    if (!kept) {
        kept = keep_str(&c->keep, locality);
        table_put(&c->localities, slice_cstr(locality), (void *)kept);
    }
    return kept;
}

/* What makes an endpoint the same one in the next plan, with the replica's number where it is one here. A replica's name says which on another
 * node; where that is, is part of what it is. */
static size_t place_bytes(const struct plan_endpoint *ep, const struct addr *address, char *out)
{
    char *at = out;
    for (const char *s = ep->remote ? ep->remote->sni : ""; *s; s++)
        *at++ = *s;
    for (const char *s = ep->remote ? ep->remote->node : ""; *s && at - out < TARGET_NAME_MAX + NODE_NAME_MAX; s++)
        *at++ = *s;
    *at++ = '@';
    *at++ = (char)address->family;
    memcpy(at, &address->port, sizeof address->port);
    at += sizeof address->port;
    size_t n = address->family == ADDR_UNIX ? strlen(address->path) : address->family == ADDR_IP4 ? 4 : sizeof address->ip;
    memcpy(at, address->family == ADDR_UNIX ? (const void *)address->path : address->ip, n);
    return (size_t)(at - out) + n;
}

static struct plan_address address_keep(struct compile *c, const struct addr *a, bool inside)
{
    struct plan_address kept = {.port = a->port, .family = (uint8_t)a->family, .inside = inside};
    if (a->family == ADDR_UNIX)
        kept.path = keep_str(&c->keep, a->path);
    else
        memcpy(kept.ip, a->ip, sizeof kept.ip);
    return kept;
}

struct addr plan_endpoint_addr(const struct plan_endpoint *ep)
{
    const struct plan_address *from = &ep->address;
    struct addr a = {.family = (enum addr_family)from->family, .port = from->port};
    if (from->family == ADDR_UNIX)
        memcpy(a.path, from->path, strlen(from->path)); /* it came from a struct addr */
    else
        memcpy(a.ip, from->ip, sizeof from->ip);
    return a;
}

/* Of cl, whose policy is set: at address, and of ep who it is; the rest is found here. */
static void endpoint_add(struct compile *c, struct plan_cluster *cl, struct plan_endpoint ep, const struct addr *address, uint64_t cluster_id, uint32_t weight, const char *locality, const char *name)
{
    const struct cluster_policy *p = cl->policy;
    struct {
        uint64_t cluster_id, replica_id;
        char place[TARGET_NAME_MAX + NODE_NAME_MAX + 1 + ADDR_TEXT_MAX];
    } key = {.cluster_id = cluster_id, .replica_id = ep.replica_id};
    size_t n = offsetof(__typeof__(key), place) + place_bytes(&ep, address, key.place); /* a replica at another port is another endpoint: workers connect to where it was first */
    struct slot_take t = slots_take(c->m, SLOT_ENDPOINT, slice_of((const char *)&key, n));
    if (t.again)
        return; /* the same address given twice */
    ep.address = address_keep(c, address, ep.address.inside);
    ep.slot = t.slot;
    ep.id = t.id;
    ep.since_ms = t.since_ms;
    ep.weight = weight ? weight : 1;
    ep.locality = locality ? locality_keep(c, locality) : c->plan->locality;
    ep.name = keep_str(&c->keep, name);
    ep.health = endpoint_health_ref(slots_health(c->m, t.slot, p->outlier.on || p->health.kind != HEALTH_NONE));
    cl->eps[cl->eps_n++] = ep;
}

static void endpoint_outside(struct compile *c, struct plan_cluster *cl, struct addr a, uint16_t port, uint64_t id, uint32_t weight, const char *locality)
{
    char name[ADDR_TEXT_MAX];
    if (a.family != ADDR_UNIX)
        a.port = port;
    addr_format(&a, name);
    endpoint_add(c, cl, (struct plan_endpoint){0}, &a, id, weight, locality, name);
}

static void endpoint_live(struct compile *c, struct plan_cluster *cl, const struct live_endpoint *live, uint16_t port, uint64_t id)
{
    struct plan_endpoint ep = {.replica_id = live->node ? 0 : live->replica_id, .address.inside = !live->node && !live->ip};
    struct addr a;
    if (live->node) {
        if (remote_fill(c, cl, live, port, &ep))
            endpoint_add(c, cl, ep, &live->gate, id, live->weight, live->locality, live->name);
        return;
    }
    enum err e = addr_parse(live->ip ? slice_cstr(live->ip) : SLICE("127.0.0.1"), port, &a);
    MUST(e == OK); /* run takes it from the replica it started */
    uint32_t n = cl->eps_n;
    endpoint_add(c, cl, ep, &a, id, live->weight, live->locality, live->name);
    if (c->node && cl->eps_n > n)
        target_add(c, cl, live, &cl->eps[n]);
}

static void cluster_selected(struct compile *c, struct plan_cluster *cl, const struct service_port *sp, uint64_t id, const struct kvs *labels, const uint32_t *found, uint32_t found_n)
{
    const struct address_list *registered = labels ? &addresses_none : addresses_of(c, cl->ns, cl->service);
    cl->eps = keep_new(&c->keep, (found_n + registered->n) * sizeof *cl->eps);
    for (size_t i = 0; i < registered->n; i++)
        if (registered->items[i]->registered)
            endpoint_outside(c, cl, registered->items[i]->ip, registered->items[i]->ip.port, id, registered->items[i]->weight, registered->items[i]->locality);
    for (uint32_t i = 0; i < found_n; i++) {
        const struct live_endpoint *live = &c->eps[found[i]];
        uint16_t port = target_port(sp, live);
        if (port && (!labels || kvs_match(labels, live->labels)))
            endpoint_live(c, cl, live, port, id);
    }
}

/* The one endpoint of what a headless Service stands for. */
static void cluster_named(struct compile *c, struct plan_cluster *cl, const struct target *t, const struct service_port *sp, uint64_t id)
{
    cl->eps = keep_new(&c->keep, sizeof *cl->eps);
    if (t->replica)
        endpoint_live(c, cl, t->replica, sp->port, id);
    else
        endpoint_outside(c, cl, t->outside->ip, sp->port, id, t->outside->weight, t->outside->locality);
}

/* ExternalName: the addresses that the caller resolved, at the target port where one is given. */
static void cluster_external(struct compile *c, struct plan_cluster *cl, const struct object *o, const struct service_port *sp, uint64_t id)
{
    uint16_t port = sp->target && !sp->target_name ? sp->target : sp->port;
    const struct address_list *l = addresses_of(c, o->ns, o->name);
    cl->authority = keep_str(&c->keep, port == 80 ? o->svc.external_name : arena_printf(&c->scratch, "%s:%u", o->svc.external_name, port));
    cl->eps = keep_new(&c->keep, l->n * sizeof *cl->eps);
    for (size_t i = 0; i < l->n; i++)
        endpoint_outside(c, cl, l->items[i]->ip, port, id, 1, NULL);
}

/* The endpoint's own number for the port's name, else the port's target. */
static uint16_t entry_port(const struct entry_endpoint *ep, const struct service_port *sp)
{
    for (size_t i = 0; i < ep->rest->ports.n; i++) {
        const struct kv *own = &ep->rest->ports.items[i];
        uint64_t n;
        if (sp->name && strcmp(own->key, sp->name) == 0 && slice_u64(slice_cstr(own->value), UINT16_MAX, &n) == OK)
            return (uint16_t)n;
    }
    return sp->target ? sp->target : sp->port;
}

/* The address as it stands, or what its name was resolved to. */
static void entry_endpoint_add(struct compile *c, struct plan_cluster *cl, const struct service_port *sp, uint64_t id, const struct entry_endpoint *from)
{
    struct addr a;
    uint16_t port = entry_port(from, sp);
    if (addr_parse(slice_cstr(from->address), port, &a) == OK) {
        endpoint_outside(c, cl, a, port, id, from->weight, from->rest->locality);
        return;
    }
    const struct address_list *l = addresses_of(c, "", from->address);
    for (size_t i = 0; i < l->n; i++)
        endpoint_outside(c, cl, l->items[i]->ip, port, id, from->weight, from->rest->locality);
}

static void cluster_entry(struct compile *c, struct plan_cluster *cl, const struct target *t, const struct service_port *sp, uint64_t id, const struct kvs *labels)
{
    const struct service_entry *e = &t->o->entry;
    const struct entry_endpoint_rest none = {0};
    struct entry_endpoint itself = {.address = (char *)t->host, .rest = &none};
    const struct entry_endpoint *from = e->endpoints;
    size_t from_n = e->endpoints_n, n = 0;
    if (!from_n && e->resolution != ENTRY_STATIC && !labels) {
        from = &itself; /* "If no endpoints are specified, the proxy will resolve the DNS address specified in the hosts field" */
        from_n = 1;
    }
    for (size_t i = 0; i < from_n; i++)
        n += MAX(1, addresses_of(c, "", from[i].address)->n);
    cl->eps = keep_new(&c->keep, n * sizeof *cl->eps);
    for (size_t i = 0; i < from_n; i++)
        if (!labels || kvs_match(labels, &from[i].rest->labels))
            entry_endpoint_add(c, cl, sp, id, &from[i]);
}

/* ---- clusters ------------------------------------------------------------------------------------------------------------ */

/* Also the key of the slot. Hosts of ServiceEntries have one slash more, so that no Service has the same key. */
static struct slice cluster_key(struct compile *c, const struct target *t, uint16_t port, const char *subset)
{
    return slice_cstr(arena_printf(&c->scratch, "%s/%s%s:%u%s%s", t->o->ns, t->o->kind == OBJ_SERVICE ? "" : "/", t->service, port, subset ? "|" : "", subset ? subset : ""));
}

/* What derived tables of endpoints depend on. */
static void cluster_hash(struct plan_cluster *cl)
{
    uint64_t h = cl->policy_hash;
    for (uint32_t i = 0; i < cl->eps_n; i++) {
        uint64_t parts[4] = {h, cl->eps[i].id, cl->eps[i].weight, hash_slice(slice_cstr(cl->eps[i].locality))};
        h = hash_bytes(parts, sizeof parts);
    }
    cl->policy_hash = h;
}

/* An endpoint that active checks are new for is not proven yet. Where they end, their worker takes its verdict back (proxy/health.c). */
static void checks_expect(const struct plan_cluster *cl)
{
    bool checks = cl->policy->health.kind != HEALTH_NONE;
    for (uint32_t i = 0; i < cl->eps_n; i++) {
        struct endpoint_health *h = cl->eps[i].health;
        if (checks && !h->expected)
            __atomic_store_n(&h->unchecked, 1, __ATOMIC_RELAXED);
        if (!h->nobody)
            h->expected = checks;
    }
}

static void cluster_make(struct compile *c, const struct target *t, const struct service_port *sp, const struct subset *sub, char *workload, const uint32_t *found, uint32_t found_n)
{
    struct slice key = cluster_key(c, t, sp->port, sub ? sub->name : NULL);
    if (table_get(&c->clusters, key))
        return; /* the same port once more, under another name */
    struct slot_take slot = slots_take(c->m, SLOT_CLUSTER, key);
    struct plan_cluster *cl = &c->plan->clusters[c->plan->clusters_n++];
    *cl = (struct plan_cluster){.ns = t->o->ns, .service = (char *)t->service, .host = (char *)t->host, .workload = workload, .port = sp->port, .address = t->address, .slot = slot.slot,
        .subset = sub ? keep_str(&c->keep, sub->name) : NULL, .shared = cluster_shared_ref(slot.shared)};
    cl->address.port = sp->port;
    cl->policy = policy_of(c, t->whole ? t->whole : t, t->whole ? &t->whole->ports[sp - t->ports] : sp, sub ? sub->name : NULL, &cl->policy_hash);
    const struct kvs *labels = sub ? &sub->labels : NULL;
    if (t->whole)
        cluster_named(c, cl, t, sp, slot.id);
    else if (t->o->kind == OBJ_SERVICE && t->o->svc.external_name)
        cluster_external(c, cl, t->o, sp, slot.id);
    else if (t->o->kind == OBJ_SERVICE || t->o->entry.selector.n)
        cluster_selected(c, cl, sp, slot.id, labels, found, found_n);
    else
        cluster_entry(c, cl, t, sp, slot.id, labels);
    cluster_hash(cl);
    checks_expect(cl);
    table_put(&c->clusters, key, cl);
}

static void clusters_of(struct compile *c, const struct target *t)
{
    const struct kvs *selector = t->o->kind == OBJ_SERVICE ? &t->o->svc.selector : &t->o->entry.selector;
    uint32_t found_n = 0, *found = selector->n && !t->whole ? selected_endpoints(c, t->o->ns, selector, &found_n) : NULL;
    char *workload = keep_str(&c->keep, t->replica ? t->replica->deployment : selector->n && !t->whole ? selected_workload(c, t->o->ns, selector, found, found_n) : "unknown");
    char *ns = keep_str(&c->keep, t->o->ns);
    uint32_t first = c->plan->clusters_n;
    for (size_t i = 0; i < t->ports_n; i++)
        if (t->ports[i].port) /* what a headless Service stands for may lack one */
            cluster_make(c, t, &t->ports[i], NULL, workload, found, found_n);
    for (size_t d = 0; d < t->dests_n; d++)
        for (size_t s = 0; s < t->dests[d]->dest.subsets_n; s++)
            for (size_t i = 0; i < t->ports_n; i++)
                if (subset_find(t, t->dests[d]->dest.subsets[s].name) == &t->dests[d]->dest.subsets[s])
                    cluster_make(c, t, &t->ports[i], &t->dests[d]->dest.subsets[s], workload, found, found_n);
    for (uint32_t i = first; i < c->plan->clusters_n; i++)
        c->plan->clusters[i].ns = ns;
}

void compile_clusters(struct compile *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->targets_n; i++) {
        struct target *t = &c->targets[i];
        size_t subsets = 0;
        if (!t->whole)
            policies_bind(c, t);
        for (size_t d = 0; d < t->dests_n; d++)
            subsets += t->dests[d]->dest.subsets_n;
        n += t->ports_n * (1 + subsets);
    }
    c->plan->clusters = keep_new(&c->keep, n * sizeof *c->plan->clusters);
    for (size_t i = 0; i < c->targets_n; i++)
        clusters_of(c, &c->targets[i]);
    for (struct table_slot *s = NULL; (s = table_next(&c->addresses, s));)
        mem_free(((struct address_list *)s->value)->items);
}

const struct plan_cluster *target_cluster(struct compile *c, const struct target *t, uint16_t port, uint16_t near, const char *subset)
{
    if (!t)
        return NULL;
    if (!port)
        port = t->ports_n == 1 ? t->ports[0].port : near;
    return table_get(&c->clusters, cluster_key(c, t, port, subset));
}
