/* compile.c - from a checked objset and the live endpoints to one immutable plan.
 *
 *   Services    -> clusters, one for each port; live endpoints are found through an index of their labels
 *   clusters    -> mesh: address and port -> a rule with that one cluster
 *   HTTPRoutes  -> sources: rules, and their matches ranked by precedence, once for all listeners
 *   Gateways    -> listeners, one for each address and port; route_build.c makes their host and path tables
 *
 * Nothing fails: what a checked set cannot contain is asserted, what it can lack (a Service behind a backend, endpoints of
 * a Service, a named port of an endpoint) has a meaning in the plan. All that the plan keeps is copied into its arena; what
 * only the compilation needs lies in a second arena that goes at the end.
 */
#include "route_int.h"

#include <stdlib.h>

#define PLAN_CHUNK_BYTES 16384
#define SCRATCH_CHUNK_BYTES 65536

/* plan_compile() hands out the first member. */
struct plan_whole {
    struct plan plan;
    struct plan_life *life;
};
/* One label of one thing: for finding what a selector may match without trying everything. */
struct label_ref {
    uint64_t hash;   /* of namespace, key and value */
    uint32_t index;  /* of the thing */
};
struct label_index {
    struct label_ref *refs; /* by hash, then index */
    size_t n;
};
/* A listening address while its Gateway listeners are gathered. */
struct place {
    struct addr address;
    const char *gateway;
    struct slice *sites; uint32_t sites_n, sites_cap;
    struct route_attach *at; size_t at_n, at_cap;
};
/* One compilation. */
struct compile {
    struct plan_memory *m;
    const struct objset *s;
    const struct live_endpoint *eps; size_t eps_n;
    const struct live_address *ext; size_t ext_n;
    struct plan *plan;
    struct keep keep;
    struct arena scratch;
    struct label_index ep_labels, dep_labels;
    const struct object **deps; size_t deps_n;
    struct table clusters;        /* "ns/service:port" -> struct plan_cluster */
    struct route_source *sources; uint32_t sources_n;
    struct place *places; uint32_t places_n, places_cap;
};

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

/* Indices into eps of what the service selects, in their order; *n of them. */
static uint32_t *service_endpoints(struct compile *c, const struct object *o, uint32_t *n)
{
    size_t run_n;
    const struct label_ref *run = label_run(&c->ep_labels, o->ns, &o->svc.selector, &run_n);
    uint32_t *found = arena_alloc(&c->scratch, (run_n + 1) * sizeof *found);
    *n = 0;
    for (size_t i = 0; i < run_n; i++) {
        const struct live_endpoint *ep = &c->eps[run[i].index];
        if (strcmp(ep->ns, o->ns) == 0 && kvs_match(&o->svc.selector, ep->labels))
            found[(*n)++] = run[i].index;
    }
    return found;
}

static const char *service_workload(struct compile *c, const struct object *o, const uint32_t *found, uint32_t found_n)
{
    if (found_n)
        return c->eps[found[0]].deployment;
    size_t run_n;
    const struct label_ref *run = label_run(&c->dep_labels, o->ns, &o->svc.selector, &run_n);
    for (size_t i = 0; i < run_n; i++) {
        const struct object *dep = c->deps[run[i].index];
        if (strcmp(dep->ns, o->ns) == 0 && kvs_match(&o->svc.selector, &dep->dep.pod.labels))
            return dep->name;
    }
    return "unknown";
}

/* ---- clusters -------------------------------------------------------------------------------------------------------------- */

static void endpoint_slot(struct compile *c, struct plan_endpoint *ep, uint64_t cluster_id)
{
    struct {
        uint64_t cluster_id, replica_id;
        uint8_t ip[16];
        uint32_t family, port;
    } key = {cluster_id, ep->replica_id, {0}, 0, 0};
    if (!ep->replica_id) {
        memcpy(key.ip, ep->address.ip, sizeof key.ip);
        key.family = (uint32_t)ep->address.family;
        key.port = ep->address.port;
    }
    struct slot_take t = slots_take(c->m, SLOT_ENDPOINT, slice_of((const char *)&key, sizeof key));
    ep->slot = t.slot;
    ep->id = t.id;
}

static void endpoint_name(struct plan_endpoint *ep, const char *name)
{
    size_t n = MIN(strlen(name), sizeof ep->name - 1);
    memcpy(ep->name, name, n);
    ep->name[n] = '\0';
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

static void cluster_selected(struct compile *c, struct plan_cluster *cl, const struct service_port *sp, uint64_t id, const uint32_t *found, uint32_t found_n)
{
    cl->eps = keep_new(&c->keep, found_n * sizeof *cl->eps);
    for (uint32_t i = 0; i < found_n; i++) {
        const struct live_endpoint *live = &c->eps[found[i]];
        uint16_t port = target_port(sp, live);
        if (!port)
            continue;
        struct plan_endpoint *ep = &cl->eps[cl->eps_n++];
        ep->replica_id = live->replica_id;
        ep->inside = !live->ip;
        enum err e = addr_parse(live->ip ? slice_cstr(live->ip) : SLICE("127.0.0.1"), port, &ep->address);
        MUST(e == OK); /* run takes it from the replica it started */
        endpoint_name(ep, live->name);
        endpoint_slot(c, ep, id);
    }
}

/* ExternalName: the addresses that the caller resolved, at the target port where one is given. */
static void cluster_external(struct compile *c, struct plan_cluster *cl, const struct object *o, const struct service_port *sp, uint64_t id)
{
    uint16_t port = sp->target && !sp->target_name ? sp->target : sp->port;
    size_t n = strlen(o->svc.external_name) + sizeof ":65535";
    cl->authority = keep_new(&c->keep, n);
    const char *text = port == 80 ? o->svc.external_name : arena_printf(&c->scratch, "%s:%u", o->svc.external_name, port);
    memcpy(cl->authority, text, strlen(text) + 1);
    uint32_t eps_n = 0;
    for (size_t i = 0; i < c->ext_n; i++)
        eps_n += strcmp(c->ext[i].ns, o->ns) == 0 && strcmp(c->ext[i].service, o->name) == 0;
    cl->eps = keep_new(&c->keep, eps_n * sizeof *cl->eps);
    for (size_t i = 0; i < c->ext_n && eps_n; i++) {
        if (strcmp(c->ext[i].ns, o->ns) != 0 || strcmp(c->ext[i].service, o->name) != 0)
            continue;
        struct plan_endpoint *ep = &cl->eps[cl->eps_n++];
        char name[ADDR_TEXT_MAX];
        ep->address = c->ext[i].ip;
        ep->address.port = port;
        addr_format(&ep->address, name);
        endpoint_name(ep, name);
        endpoint_slot(c, ep, id);
    }
}

static struct slice cluster_key(struct compile *c, const char *ns, const char *service, uint16_t port)
{
    return slice_cstr(arena_printf(&c->scratch, "%s/%s:%u", ns, service, port));
}

static void clusters_of(struct compile *c, const struct object *o)
{
    const struct service *svc = &o->svc;
    uint32_t found_n = 0, *found = svc->external_name ? NULL : service_endpoints(c, o, &found_n);
    char *ns = keep_str(&c->keep, o->ns), *name = keep_str(&c->keep, o->name);
    char *host = keep_str(&c->keep, arena_printf(&c->scratch, "%s.%s.svc.cluster.local", o->name, o->ns));
    char *workload = keep_str(&c->keep, svc->external_name ? "unknown" : service_workload(c, o, found, found_n));
    for (size_t i = 0; i < svc->ports_n; i++) {
        const struct service_port *sp = &svc->ports[i];
        struct slice key = cluster_key(c, o->ns, o->name, sp->port);
        if (table_get(&c->clusters, key))
            continue; /* the same port once more, under another name */
        struct slot_take t = slots_take(c->m, SLOT_CLUSTER, key);
        struct plan_cluster *cl = &c->plan->clusters[c->plan->clusters_n++];
        *cl = (struct plan_cluster){.ns = ns, .service = name, .host = host, .workload = workload, .port = sp->port, .address = svc->address, .slot = t.slot};
        cl->address.port = sp->port;
        if (svc->external_name)
            cluster_external(c, cl, o, sp, t.id);
        else
            cluster_selected(c, cl, sp, t.id, found, found_n);
        table_put(&c->clusters, key, cl);
    }
}

static void compile_clusters(struct compile *c)
{
    size_t ports = 0;
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_SERVICE)
            ports += objset_at(c->s, i)->svc.ports_n;
    c->plan->clusters = keep_new(&c->keep, ports * sizeof *c->plan->clusters);
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_SERVICE)
            clusters_of(c, objset_at(c->s, i));
}

/* ---- the mesh ---------------------------------------------------------------------------------------------------------------- */

static void compile_mesh(struct compile *c)
{
    uint32_t slot = slots_take(c->m, SLOT_ROUTE, SLICE("")).slot;
    struct plan *p = c->plan;
    struct plan_rule *rules = keep_new(&c->keep, p->clusters_n * sizeof *rules);
    struct plan_backend *backends = keep_new(&c->keep, p->clusters_n * sizeof *backends);
    char *name = keep_str(&c->keep, "");
    for (uint32_t i = 0; i < p->clusters_n; i++) {
        const struct addr *a = &p->clusters[i].address;
        if (a->family != ADDR_IP4)
            continue; /* no address was given: nobody can connect to it */
        backends[i] = (struct plan_backend){.cluster = &p->clusters[i], .weight = 1};
        rules[i] = (struct plan_rule){.route = name, .slot = slot, .backends = &backends[i], .backends_n = 1, .weight_sum = 1};
        char key[6];
        memcpy(key, a->ip, 4);
        key[4] = (char)(a->port >> 8);
        key[5] = (char)(a->port & 0xff);
        table_put(&p->mesh, slice_of(key, sizeof key), &rules[i]);
        c->keep.bytes += sizeof key + 1;
    }
    c->keep.bytes += p->mesh.cap * sizeof *p->mesh.slots;
}

/* ---- rules -------------------------------------------------------------------------------------------------------------------- */

static struct kvs kvs_keep(struct keep *k, const struct kvs *from)
{
    struct kvs to = {keep_new(k, from->n * sizeof *to.items), from->n};
    for (size_t i = 0; i < from->n; i++) {
        to.items[i].key = keep_str(k, from->items[i].key);
        to.items[i].value = (char *)keep_slice(k, slice_of(from->items[i].value, from->items[i].value_n)).p;
        to.items[i].value_n = from->items[i].value_n;
    }
    return to;
}

static struct header_edit edit_keep(struct keep *k, const struct header_edit *from)
{
    struct header_edit to = {kvs_keep(k, &from->set), kvs_keep(k, &from->add), keep_new(k, from->remove_n * sizeof(char *)), from->remove_n};
    for (size_t i = 0; i < from->remove_n; i++)
        to.remove[i] = keep_str(k, from->remove[i]);
    return to;
}

static bool edit_empty(const struct header_edit *e)
{
    return !e->set.n && !e->add.n && !e->remove_n;
}

/* A copy in the plan, or NULL when there is nothing to edit. */
static const struct header_edit *edit_new(struct keep *k, const struct header_edit *from)
{
    if (edit_empty(from))
        return NULL;
    struct header_edit *to = keep_new(k, sizeof *to);
    *to = edit_keep(k, from);
    return to;
}

/* Of a rule the request path needs what it does, not what it matches: matches and backends stay behind, for those are in
 * the tables and in plan_rule. */
static const struct route_rule *spec_keep(struct keep *k, const struct route_rule *from)
{
    struct route_rule *to = keep_new(k, sizeof *to);
    *to = *from;
    to->matches = NULL;
    to->matches_n = 0;
    to->backends = NULL;
    to->backends_n = 0;
    to->req = edit_keep(k, &from->req);
    to->resp = edit_keep(k, &from->resp);
    to->redirect_scheme = keep_str(k, from->redirect_scheme);
    to->redirect_host = keep_str(k, from->redirect_host);
    to->redirect_path = keep_str(k, from->redirect_path);
    to->rewrite_host = keep_str(k, from->rewrite_host);
    to->rewrite_path = keep_str(k, from->rewrite_path);
    to->name = keep_str(k, from->name);
    return to;
}

static void rule_fill(struct compile *c, struct plan_rule *r, const struct object *o, const struct route_rule *from)
{
    r->spec = spec_keep(&c->keep, from);
    r->req = edit_empty(&from->req) ? NULL : &r->spec->req;
    r->resp = edit_empty(&from->resp) ? NULL : &r->spec->resp;
    r->timeout_ms = from->timeout_ms;
    r->backend_timeout_ms = from->backend_timeout_ms;
    r->backends = keep_new(&c->keep, from->backends_n * sizeof *r->backends);
    r->backends_n = (uint32_t)from->backends_n;
    for (size_t i = 0; i < from->backends_n; i++) {
        const struct route_backend *b = &from->backends[i];
        const char *ns = b->ns && b->ns[0] ? b->ns : o->ns;
        r->backends[i] = (struct plan_backend){
            .cluster = table_get(&c->clusters, cluster_key(c, ns, b->service, b->port)),
            .weight = b->weight,
            .req = edit_new(&c->keep, &b->req),
            .resp = edit_new(&c->keep, &b->resp),
        };
        r->weight_sum += b->weight;
    }
}

/* ---- matches ------------------------------------------------------------------------------------------------------------------ */

/* Of several entries with one name the first counts (HTTPHeaderMatch, HTTPQueryParamMatch). */
static uint16_t preds_of(struct keep *k, const struct route_kv_match *from, size_t n, bool headers, const struct route_pred **out)
{
    struct route_pred *to = keep_new(k, n * sizeof *to);
    uint16_t to_n = 0;
    for (size_t i = 0; i < n; i++) {
        struct slice name = slice_cstr(from[i].name);
        bool again = false;
        for (uint16_t j = 0; j < to_n; j++)
            again |= headers ? slice_ieq(to[j].name, name) : slice_eq(to[j].name, name);
        if (!again)
            to[to_n++] = (struct route_pred){keep_slice(k, name), keep_slice(k, slice_cstr(from[i].value)), headers ? h1_name_id(name) : H1_OTHER};
    }
    *out = to;
    return to_n;
}

static enum h1_method method_id(const char *name)
{
    static const char *const names[] = {[H1_GET] = "GET", [H1_HEAD] = "HEAD", [H1_POST] = "POST", [H1_PUT] = "PUT", [H1_DELETE] = "DELETE",
        [H1_CONNECT] = "CONNECT", [H1_OPTIONS] = "OPTIONS", [H1_TRACE] = "TRACE", [H1_PATCH] = "PATCH"};
    for (unsigned m = H1_GET; m < COUNT_OF(names); m++)
        if (strcmp(names[m], name) == 0)
            return (enum h1_method)m;
    return H1_M_OTHER;
}

static void one_fill(struct compile *c, struct route_one *one, const struct plan_rule *rule, const struct route_match_spec *from)
{
    one->cand.rule = rule;
    one->exact = from->has_path && from->path_kind == MATCH_EXACT;
    one->path = from->has_path ? slice_cstr(from->path) : slice_of("", 0);
    while (!one->exact && one->path.n && one->path.p[one->path.n - 1] == '/')
        one->path.n--; /* "When specified, a trailing / is ignored" (PathMatchPathPrefix) */
    one->path = arena_slice(&c->scratch, one->path);
    if (!from->method && !from->headers_n && !from->queries_n)
        return;
    struct route_preds *preds = keep_new(&c->keep, sizeof *preds);
    one->cand.preds = preds;
    preds->headers_n = preds_of(&c->keep, from->headers, from->headers_n, true, &preds->headers);
    preds->queries_n = preds_of(&c->keep, from->queries, from->queries_n, false, &preds->queries);
    if (!from->method)
        return;
    preds->has_method = true;
    preds->method = method_id(from->method);
    preds->method_text = keep_slice(&c->keep, slice_cstr(from->method));
}

static void rule_matches(struct compile *c, struct route_source *src, const struct plan_rule *rule, const struct route_rule *from)
{
    static const struct route_match_spec everything; /* "the default is a prefix path match on /" (HTTPRouteRule.matches) */
    if (!from->matches_n)
        one_fill(c, &src->ones[src->ones_n++], rule, &everything);
    for (size_t i = 0; i < from->matches_n; i++)
        if (!from->matches[i].has_path || from->matches[i].path_kind != MATCH_REGEX_REFUSED) /* refused: it must match nothing */
            one_fill(c, &src->ones[src->ones_n++], rule, &from->matches[i]);
}

/* ---- routes ---------------------------------------------------------------------------------------------------------------------- */

static void source_patterns(struct compile *c, struct route_source *src, const struct http_route *route)
{
    src->patterns = arena_alloc(&c->scratch, (route->hostnames_n + 1) * sizeof *src->patterns);
    for (size_t i = 0; i < route->hostnames_n; i++)
        src->patterns[src->patterns_n++] = pattern_of(&c->scratch, route->hostnames[i]);
    if (!route->hostnames_n)
        src->patterns[src->patterns_n++] = pattern_of(&c->scratch, NULL);
}

static void source_fill(struct compile *c, struct route_source *src, const struct object *o)
{
    static const struct route_rule everything; /* rules default to one that matches everything (HTTPRouteSpec.rules) */
    const struct http_route *route = &o->route;
    const struct route_rule *from = route->rules_n ? route->rules : &everything;
    size_t rules_n = route->rules_n ? route->rules_n : 1, ones_n = 0;
    char *name = keep_str(&c->keep, arena_printf(&c->scratch, "%s/%s", o->ns, o->name));
    uint32_t slot = slots_take(c->m, SLOT_ROUTE, slice_cstr(name)).slot;
    struct plan_rule *rules = keep_new(&c->keep, rules_n * sizeof *rules);
    for (size_t i = 0; i < rules_n; i++)
        ones_n += from[i].matches_n ? from[i].matches_n : 1;
    src->object = o;
    src->name = name;
    src->ones = arena_zalloc(&c->scratch, ones_n * sizeof *src->ones);
    for (size_t i = 0; i < rules_n; i++) {
        rules[i].route = name;
        rules[i].slot = slot;
        rule_fill(c, &rules[i], o, &from[i]);
        rule_matches(c, src, &rules[i], &from[i]);
    }
    source_patterns(c, src, route);
}

/* A match on its way through the sort. Rules of one route lie in one array, so their addresses are in list order. */
struct ranked {
    struct route_one *one;
    const struct route_source *source;
};

/* HTTPRouteRule.matches: method, headers, query parameters; then the older route, the name, the place in the list. */
static int ranked_cmp(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    static const struct route_preds none;
    const struct route_preds *x = a->one->cand.preds ? a->one->cand.preds : &none, *y = b->one->cand.preds ? b->one->cand.preds : &none;
    if (x->has_method != y->has_method)
        return x->has_method ? -1 : 1;
    if (x->headers_n != y->headers_n)
        return x->headers_n > y->headers_n ? -1 : 1;
    if (x->queries_n != y->queries_n)
        return x->queries_n > y->queries_n ? -1 : 1;
    if (a->source->object->created_ns != b->source->object->created_ns)
        return a->source->object->created_ns < b->source->object->created_ns ? -1 : 1;
    int c = a->source == b->source ? 0 : strcmp(a->source->name, b->source->name);
    return c ? c : (a->one > b->one) - (a->one < b->one);
}

static void sources_rank(struct compile *c)
{
    size_t n = 0, total = 0;
    for (uint32_t i = 0; i < c->sources_n; i++)
        total += c->sources[i].ones_n;
    struct ranked *all = arena_alloc(&c->scratch, (total + 1) * sizeof *all);
    for (uint32_t i = 0; i < c->sources_n; i++)
        for (uint32_t j = 0; j < c->sources[i].ones_n; j++)
            all[n++] = (struct ranked){&c->sources[i].ones[j], &c->sources[i]};
    qsort(all, n, sizeof *all, ranked_cmp);
    for (size_t i = 0; i < n; i++)
        all[i].one->order = (uint32_t)i;
}

static void compile_routes(struct compile *c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < objset_n(c->s); i++)
        n += objset_at(c->s, i)->kind == OBJ_HTTPROUTE;
    c->sources = arena_zalloc(&c->scratch, (n + 1) * sizeof *c->sources);
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_HTTPROUTE)
            source_fill(c, &c->sources[c->sources_n++], objset_at(c->s, i));
    sources_rank(c);
}

/* ---- listeners -------------------------------------------------------------------------------------------------------------------- */

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

static struct place *place_at(struct compile *c, const struct addr *a, const char *gateway)
{
    for (uint32_t i = 0; i < c->places_n; i++)
        if (addr_eq(&c->places[i].address, a))
            return &c->places[i];
    ARRAY_GROW(MEM_PLAN, c->places, c->places_n, c->places_cap);
    c->places[c->places_n] = (struct place){.address = *a, .gateway = gateway};
    return &c->places[c->places_n++];
}

/* Listeners of the same hostname, of one Gateway or of several, are one. */
static uint32_t place_site(struct place *pl, struct slice pattern)
{
    for (uint32_t i = 0; i < pl->sites_n; i++)
        if (slice_eq(pl->sites[i], pattern))
            return i;
    ARRAY_GROW(MEM_PLAN, pl->sites, pl->sites_n, pl->sites_cap);
    pl->sites[pl->sites_n] = pattern;
    return pl->sites_n++;
}

/* The route names this listener as a parent, and the listener allows the route's namespace. */
static bool route_allowed(const struct object *route, const struct object *gw, const struct gw_listener *ln)
{
    if (!ln->from_all && strcmp(route->ns, gw->ns) != 0)
        return false;
    for (size_t i = 0; i < route->route.parents_n; i++) {
        const struct parent_ref *ref = &route->route.parents[i];
        const char *ns = ref->ns && ref->ns[0] ? ref->ns : route->ns;
        if (strcmp(ref->gateway, gw->name) == 0 && strcmp(ns, gw->ns) == 0 &&
            (!ref->section || !ref->section[0] || (ln->name && strcmp(ref->section, ln->name) == 0)) && (!ref->port || ref->port == ln->port))
            return true;
    }
    return false;
}

/* Hostnames that do not intersect the listener's are left out (HTTPRouteSpec.hostnames). */
static void route_attach(struct place *pl, uint32_t site, struct slice site_pattern, const struct route_source *src)
{
    for (uint32_t i = 0; i < src->patterns_n; i++) {
        struct slice p = src->patterns[i];
        if (!pattern_covers(site_pattern, p) && !pattern_covers(p, site_pattern))
            continue;
        ARRAY_GROW(MEM_PLAN, pl->at, pl->at_n, pl->at_cap);
        pl->at[pl->at_n++] = (struct route_attach){site, p, src};
    }
}

static void gateway_places(struct compile *c, const struct object *gw)
{
    const struct addr local = addr_ip4(0x7f000001, 0);
    const struct addr *addresses = gw->gw.addresses_n ? gw->gw.addresses : &local;
    size_t addresses_n = gw->gw.addresses_n ? gw->gw.addresses_n : 1;
    const char *name = arena_printf(&c->scratch, "%s/%s", gw->ns, gw->name);
    for (size_t i = 0; i < gw->gw.listeners_n; i++) {
        const struct gw_listener *ln = &gw->gw.listeners[i];
        struct slice pattern = pattern_of(&c->scratch, ln->hostname);
        for (size_t j = 0; j < addresses_n; j++) {
            struct addr a = addresses[j];
            a.port = ln->port;
            struct place *pl = place_at(c, &a, name);
            uint32_t site = place_site(pl, pattern);
            for (uint32_t r = 0; r < c->sources_n; r++)
                if (route_allowed(c->sources[r].object, gw, ln))
                    route_attach(pl, site, pattern, &c->sources[r]);
        }
    }
}

static void compile_listeners(struct compile *c)
{
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_GATEWAY)
            gateway_places(c, objset_at(c->s, i));
    c->plan->listeners = keep_new(&c->keep, c->places_n * sizeof *c->plan->listeners);
    c->plan->listeners_n = c->places_n;
    for (uint32_t i = 0; i < c->places_n; i++) {
        struct place *pl = &c->places[i];
        c->plan->listeners[i] = (struct plan_listener){
            .address = pl->address,
            .token = address_token(&pl->address),
            .gateway = keep_str(&c->keep, pl->gateway),
            .hosts = hosts_build(&c->keep, &c->scratch, pl->sites, pl->sites_n, pl->at, pl->at_n),
        };
        mem_free(pl->sites);
        mem_free(pl->at);
    }
    mem_free(c->places);
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------------------ */

static void compile_slots(struct compile *c)
{
    struct plan *p = c->plan;
    slots_end(c->m);
    p->cluster_slots = slots_top(c->m, SLOT_CLUSTER);
    p->endpoint_slots = slots_top(c->m, SLOT_ENDPOINT);
    p->route_slots = slots_top(c->m, SLOT_ROUTE);
    p->route_names = keep_new(&c->keep, p->route_slots * sizeof *p->route_names);
    for (uint32_t i = 0; i < p->route_slots; i++)
        p->route_names[i] = (char *)keep_slice(&c->keep, slots_key(c->m, SLOT_ROUTE, i)).p;
}

struct plan *plan_compile(struct plan_memory *m, const struct objset *s, const struct live_endpoint *eps, size_t eps_n, const struct live_address *ext, size_t ext_n)
{
    uint64_t start = mono_ns();
    struct plan_whole *whole = mem_new(MEM_PLAN, sizeof *whole);
    struct plan *p = &whole->plan;
    struct compile c = {.m = m, .s = s, .eps = eps, .eps_n = eps_n, .ext = ext, .ext_n = ext_n, .plan = p, .keep = {&p->mem, sizeof *whole}};
    arena_init(&p->mem, MEM_PLAN, PLAN_CHUNK_BYTES);
    arena_init(&c.scratch, MEM_PLAN, SCRATCH_CHUNK_BYTES);
    p->refs = 1;
    p->generation = slots_begin(m);
    labels_build(&c);
    compile_clusters(&c);
    compile_mesh(&c);
    compile_routes(&c);
    compile_listeners(&c);
    compile_slots(&c);
    whole->life = slots_life(m);
    p->bytes = c.keep.bytes;
    table_fini(&c.clusters);
    arena_fini(&c.scratch);
    p->compile_ns = mono_ns() - start;
    return p;
}

struct plan *plan_ref(struct plan *p)
{
    uint32_t before = __atomic_fetch_add(&p->refs, 1, __ATOMIC_RELAXED);
    MUST(before > 0 && before < UINT32_MAX);
    return p;
}

void plan_unref(struct plan *p)
{
    if (!p || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    struct plan_whole *whole = CONTAINER_OF(p, struct plan_whole, plan);
    struct plan_life *life = whole->life;
    table_fini(&p->mesh);
    arena_fini(&p->mem);
    mem_free(whole);
    plan_life_end(life);
}
