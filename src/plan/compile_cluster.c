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
 */
#include "compile_int.h"

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
static void target_add(struct compile *c, struct target t)
{
    struct slice key = pattern_of(&c->scratch, t.host);
    if (!key.n || table_get(&c->hosts, key))
        return;
    c->targets[c->targets_n] = t;
    table_put(&c->hosts, key, &c->targets[c->targets_n++]);
}

static int entry_cmp(const void *a, const void *b) { return object_age_cmp(*(const struct object *const *)a, *(const struct object *const *)b); }

static void targets_of_entry(struct compile *c, const struct object *o)
{
    const struct service_entry *e = &o->entry;
    for (size_t i = 0; i < e->hosts_n; i++) {
        char *host = keep_str(&c->keep, e->hosts[i]);
        for (char *p = host; *p; p++)
            *p = ascii_lower(*p);
        target_add(c, (struct target){.o = o, .service = host, .host = host, .ports = e->ports, .ports_n = e->ports_n,
                                      .address = i < e->addresses_n ? e->addresses[i] : (struct addr){0}});
    }
}

void compile_targets(struct compile *c)
{
    size_t n = 0, entries_n = 0;
    const struct object **entries = arena_alloc(&c->scratch, (objset_n(c->s) + 1) * sizeof(void *));
    labels_build(c);
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        n += o->kind == OBJ_SERVICE ? 1 : o->kind == OBJ_SERVICEENTRY ? o->entry.hosts_n : 0;
        if (o->kind == OBJ_SERVICEENTRY)
            entries[entries_n++] = o;
    }
    c->targets = arena_zalloc(&c->scratch, (n + 1) * sizeof *c->targets);
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind == OBJ_SERVICE)
            target_add(c, (struct target){.o = o, .service = keep_str(&c->keep, o->name), .ports = o->svc.ports, .ports_n = o->svc.ports_n, .address = o->svc.address,
                                          .host = keep_str(&c->keep, arena_printf(&c->scratch, "%s.%s.svc.cluster.local", o->name, o->ns))});
    }
    if (entries_n)
        qsort(entries, entries_n, sizeof(void *), entry_cmp);
    for (size_t i = 0; i < entries_n; i++)
        targets_of_entry(c, entries[i]);
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

/* Gives a new endpoint of cl, whose address is set, the rest. */
static void endpoint_add(struct compile *c, struct plan_cluster *cl, struct plan_endpoint ep, uint64_t cluster_id, uint32_t weight, const char *locality, const char *name)
{
    struct {
        uint64_t cluster_id, replica_id;
        char address[ADDR_TEXT_MAX];
    } key = {.cluster_id = cluster_id, .replica_id = ep.replica_id};
    size_t n = offsetof(__typeof__(key), address);
    if (!ep.replica_id)
        n += addr_format(&ep.address, key.address);
    struct slot_take t = slots_take(c->m, SLOT_ENDPOINT, slice_of((const char *)&key, n));
    if (t.again)
        return; /* the same address given twice */
    ep.slot = t.slot;
    ep.id = t.id;
    ep.since_ms = t.since_ms;
    ep.weight = weight ? weight : 1;
    ep.locality = locality ? locality_keep(c, locality) : c->plan->locality;
    ep.name = keep_str(&c->keep, name);
    ep.health = endpoint_health_ref(t.shared);
    cl->eps[cl->eps_n++] = ep;
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

static void cluster_selected(struct compile *c, struct plan_cluster *cl, const struct service_port *sp, uint64_t id, const struct kvs *labels, const uint32_t *found, uint32_t found_n)
{
    cl->eps = keep_new(&c->keep, found_n * sizeof *cl->eps);
    for (uint32_t i = 0; i < found_n; i++) {
        const struct live_endpoint *live = &c->eps[found[i]];
        uint16_t port = target_port(sp, live);
        if (!port || (labels && !kvs_match(labels, live->labels)))
            continue;
        struct plan_endpoint ep = {.replica_id = live->replica_id, .inside = !live->ip};
        enum err e = addr_parse(live->ip ? slice_cstr(live->ip) : SLICE("127.0.0.1"), port, &ep.address);
        MUST(e == OK); /* run takes it from the replica it started */
        endpoint_add(c, cl, ep, id, live->weight, live->locality, live->name);
    }
}

/* What the caller resolved for a name, in its order. */
struct address_list {
    const struct live_address **items;
    size_t n, cap;
};

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
    static const struct address_list none;
    const struct address_list *l = table_get(&c->addresses, slice_cstr(arena_printf(&c->scratch, "%s/%s", ns, name)));
    return l ? l : &none;
}

static void endpoint_outside(struct compile *c, struct plan_cluster *cl, struct addr a, uint16_t port, uint64_t id, uint32_t weight, const char *locality)
{
    char name[ADDR_TEXT_MAX];
    if (a.family != ADDR_UNIX)
        a.port = port;
    addr_format(&a, name);
    endpoint_add(c, cl, (struct plan_endpoint){.address = a}, id, weight, locality, name);
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
    for (size_t i = 0; i < ep->ports_n; i++) {
        uint64_t n;
        if (sp->name && strcmp(ep->ports[i].key, sp->name) == 0 && slice_u64(slice_cstr(ep->ports[i].value), UINT16_MAX, &n) == OK)
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
        endpoint_outside(c, cl, a, port, id, from->weight, from->locality);
        return;
    }
    const struct address_list *l = addresses_of(c, "", from->address);
    for (size_t i = 0; i < l->n; i++)
        endpoint_outside(c, cl, l->items[i]->ip, port, id, from->weight, from->locality);
}

static void cluster_entry(struct compile *c, struct plan_cluster *cl, const struct target *t, const struct service_port *sp, uint64_t id, const struct kvs *labels)
{
    const struct service_entry *e = &t->o->entry;
    struct entry_endpoint itself = {.address = (char *)t->host};
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
        if (!labels || kvs_match(labels, &from[i].labels))
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
    const struct kvs *labels = sub ? &sub->labels : NULL;
    if (t->o->kind == OBJ_SERVICE && t->o->svc.external_name)
        cluster_external(c, cl, t->o, sp, slot.id);
    else if (t->o->kind == OBJ_SERVICE || t->o->entry.selector.n)
        cluster_selected(c, cl, sp, slot.id, labels, found, found_n);
    else
        cluster_entry(c, cl, t, sp, slot.id, labels);
    cl->policy = policy_of(c, t, sp, sub ? sub->name : NULL, &cl->policy_hash);
    cluster_hash(cl);
    checks_expect(cl);
    table_put(&c->clusters, key, cl);
}

static void clusters_of(struct compile *c, const struct target *t)
{
    const struct kvs *selector = t->o->kind == OBJ_SERVICE ? &t->o->svc.selector : &t->o->entry.selector;
    uint32_t found_n = 0, *found = selector->n ? selected_endpoints(c, t->o->ns, selector, &found_n) : NULL;
    char *workload = keep_str(&c->keep, selector->n ? selected_workload(c, t->o->ns, selector, found, found_n) : "unknown");
    char *ns = keep_str(&c->keep, t->o->ns);
    uint32_t first = c->plan->clusters_n;
    for (size_t i = 0; i < t->ports_n; i++)
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
    addresses_index(c);
    for (size_t i = 0; i < c->targets_n; i++) {
        struct target *t = &c->targets[i];
        size_t subsets = 0;
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
