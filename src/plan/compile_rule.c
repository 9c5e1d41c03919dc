/* compile_rule.c - what a rule does with requests: its backends, filters, mirrors, and the copy of its settings.
 *
 * A backend becomes a cluster, or NULL where its Service, port or subset is not there, or where it lies in another namespace
 * and no ReferenceGrant allows it. A backend that is the root of a TrafficSplit becomes the split's backends, with weights that
 * keep all shares:
 *
 *   3 : 1, and the first is split 90 : 10   -->   3*90 : 3*10 : 1*100
 */
#include "compile_int.h"

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

/* ---- backends ----------------------------------------------------------------------------------------------------------- */

/* A backend on its way, with a weight that may have been multiplied. */
struct share {
    struct plan_backend backend;
    uint64_t weight;
};
struct shares {
    struct share *items; /* in scratch */
    size_t n;
};

static const char *route_kind(const struct object *o) { return obj_kind_name(o->kind); }

/* Istio's kinds name hosts of any namespace; Gateway API's need a grant for another one. */
static bool backend_allowed(const struct compile *c, const struct object *o, const char *ns, const char *service)
{
    return strcmp(ns, o->ns) == 0 || o->kind == OBJ_VIRTUALSERVICE || grant_given(c, route_kind(o), o->ns, "Service", ns, service);
}

const struct target *backend_target(struct compile *c, const struct object *o, const struct route_backend *b)
{
    if (!b->service)
        return b->host ? target_find(c, o->ns, b->host) : NULL;
    const char *ns = b->ns && b->ns[0] ? b->ns : o->ns;
    return backend_allowed(c, o, ns, b->service) ? target_service(c, ns, b->service) : NULL;
}

bool backends_near(struct compile *c, const struct object *o, const struct route_backend *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct target *t = b[i].port ? NULL : backend_target(c, o, &b[i]);
        if (t && t->ports_n > 1)
            return true;
    }
    return false;
}

/* A split's own backends; a leaf has the root's port, or the only one it has. */
static const struct plan_cluster *leaf_cluster(struct compile *c, const struct object *split, const struct route_backend *b, uint16_t port)
{
    const struct target *t = b->service ? target_service(c, b->ns && b->ns[0] ? b->ns : split->ns, b->service) : b->host ? target_find(c, split->ns, b->host) : NULL;
    const struct plan_cluster *cl = target_cluster(c, t, b->port ? b->port : port, 0, b->subset);
    return cl || b->port ? cl : target_cluster(c, t, 0, 0, b->subset);
}

static uint64_t split_sum(const struct object *split)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < split->split.backends_n; i++)
        sum += split->split.backends[i].weight;
    return sum;
}

/* The split that divides what goes to cl; NULL: none, or none that sends anything anywhere. */
static const struct object *split_of(const struct target *t, const struct plan_cluster *cl, const char *subset)
{
    return t && t->split && cl && !subset && split_sum(t->split) ? t->split : NULL;
}

/* times: what all weights of the rule are multiplied by, so that the sum of the split divides them. */
static void shares_add(struct compile *c, struct shares *to, const struct object *split, struct plan_backend b, uint64_t weight, uint64_t times)
{
    if (!split) {
        to->items[to->n++] = (struct share){b, weight * times};
        return;
    }
    uint64_t sum = split_sum(split);
    for (size_t i = 0; i < split->split.backends_n; i++) {
        const struct route_backend *leaf = &split->split.backends[i];
        struct plan_backend one = b;
        one.cluster = leaf_cluster(c, split, leaf, b.cluster->port);
        uint64_t share = weight * leaf->weight * times / sum;
        to->items[to->n++] = (struct share){one, share ? share : weight && leaf->weight};
    }
}

/* Weights into 32 bits: halved together until their sum fits, none of them to 0. */
static uint32_t shares_keep(struct compile *c, const struct shares *from, struct plan_backend **out, uint32_t *weight_sum)
{
    uint64_t sum = 0;
    unsigned shift = 0;
    for (size_t i = 0; i < from->n; i++)
        sum += from->items[i].weight;
    while (sum >> shift > UINT32_MAX / 2)
        shift++;
    *out = keep_new(&c->keep, from->n * sizeof **out);
    *weight_sum = 0;
    for (size_t i = 0; i < from->n; i++) {
        uint64_t w = from->items[i].weight;
        (*out)[i] = from->items[i].backend;
        (*out)[i].weight = (uint32_t)(w >> shift ? w >> shift : w > 0);
        *weight_sum += (*out)[i].weight;
    }
    return (uint32_t)from->n;
}

#define TIMES_MAX (1u << 20) /* with weights of at most 1,000,000 on both levels, products stay below 2^60 */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The least common multiple of the splits' sums: shares stay exactly what they are. Where it is too large, they are rounded. */
static uint64_t times_with(uint64_t times, uint64_t sum)
{
    uint64_t next = times / common_divisor(times, sum) * sum;
    return next > TIMES_MAX ? TIMES_MAX : next;
}

static uint32_t backends_fill(struct compile *c, const struct object *o, const struct route_backend *from, size_t n, uint16_t near, bool edits, struct plan_backend **out, uint32_t *weight_sum)
{
    const struct object **splits = arena_alloc(&c->scratch, (n + 1) * sizeof(void *));
    const struct plan_cluster **clusters = arena_alloc(&c->scratch, (n + 1) * sizeof(void *));
    uint64_t times = 1;
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        const struct target *t = backend_target(c, o, &from[i]);
        clusters[i] = target_cluster(c, t, from[i].port, near, from[i].subset);
        splits[i] = split_of(t, clusters[i], from[i].subset);
        total += splits[i] ? splits[i]->split.backends_n : 1;
        times = splits[i] ? times_with(times, split_sum(splits[i])) : times;
    }
    struct shares shares = {arena_alloc(&c->scratch, (total + 1) * sizeof *shares.items), 0};
    for (size_t i = 0; i < n; i++) {
        struct plan_backend b = {.cluster = clusters[i], .req = edits ? edit_new(&c->keep, &from[i].req) : NULL, .resp = edits ? edit_new(&c->keep, &from[i].resp) : NULL};
        shares_add(c, &shares, splits[i], b, from[i].weight, times);
    }
    return shares_keep(c, &shares, out, weight_sum);
}

uint32_t backends_default(struct compile *c, const struct target *t, const struct plan_cluster *cl, struct plan_backend **out, uint32_t *weight_sum)
{
    const struct object *split = split_of(t, cl, NULL);
    struct share *items = arena_alloc(&c->scratch, (1 + (split ? split->split.backends_n : 0)) * sizeof *items);
    struct shares shares = {items, 0};
    shares_add(c, &shares, split, (struct plan_backend){.cluster = cl}, 1, split ? split_sum(split) : 1);
    return shares_keep(c, &shares, out, weight_sum);
}

/* ---- settings ----------------------------------------------------------------------------------------------------------- */

static struct string_match *matches_keep(struct keep *k, const struct string_match *from, size_t n)
{
    struct string_match *to = keep_new(k, n * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        to[i] = from[i];
        to[i].value = keep_str(k, from[i].value);
    }
    return to;
}

static struct cors_policy cors_keep(struct keep *k, const struct cors_policy *from)
{
    struct cors_policy to = *from;
    to.origins = matches_keep(k, from->origins, from->origins_n);
    to.methods = keep_str(k, from->methods);
    to.headers = keep_str(k, from->headers);
    to.expose = keep_str(k, from->expose);
    return to;
}

static void *bytes_keep(struct keep *k, const void *p, size_t n)
{
    return p ? (void *)keep_slice(k, slice_of(p, n)).p : NULL;
}

/* Of a rule the request path needs what it does, not what it matches: matches, backends, mirrors, delegates and names of
 * filters stay behind, for those are in the tables and in plan_rule. */
static struct route_rule spec_bare(const struct route_rule *from)
{
    struct route_rule to = *from;
    to.matches = NULL;
    to.backends = NULL;
    to.mirrors = NULL;
    to.filters = NULL;
    to.matches_n = to.backends_n = to.mirrors_n = to.filters_n = 0;
    to.delegate_name = to.delegate_ns = NULL;
    to.line = 0;
    return to;
}

/* Nothing in it is pointed to, so its bytes are all of it. */
static bool spec_flat(const struct route_rule *s)
{
    return edit_empty(&s->req) && edit_empty(&s->resp) && !s->redirect && !s->rewrite_host && s->rewrite_path_kind == REWRITE_NONE && !s->retry.statuses_n && !s->cors.given && !s->session.given &&
           !s->direct && !s->name;
}

/* Most rules do nothing but send requests on: those share one copy. (Bytes between members may differ; that costs a copy.) */
static const struct route_rule *spec_share(struct compile *c, const struct route_rule *from)
{
    struct slice key = slice_of((const char *)from, sizeof *from);
    struct route_rule *to = table_get(&c->specs, key);
    if (!to) {
        to = keep_new(&c->keep, sizeof *to);
        *to = *from;
        table_put(&c->specs, key, to);
    }
    return to;
}

static struct route_rule *spec_keep(struct keep *k, const struct route_rule *from)
{
    struct route_rule *to = keep_new(k, sizeof *to);
    *to = *from;
    to->req = edit_keep(k, &from->req);
    to->resp = edit_keep(k, &from->resp);
    to->redirect_scheme = keep_str(k, from->redirect_scheme);
    to->redirect_host = keep_str(k, from->redirect_host);
    to->redirect_path = keep_str(k, from->redirect_path);
    to->rewrite_host = keep_str(k, from->rewrite_host);
    to->rewrite_path = keep_str(k, from->rewrite_path);
    to->rewrite_regex = keep_str(k, from->rewrite_regex);
    to->retry.statuses = bytes_keep(k, from->retry.statuses, from->retry.statuses_n * sizeof *from->retry.statuses);
    to->cors = cors_keep(k, &from->cors);
    to->session.name = keep_str(k, from->session.name);
    to->session.path = keep_str(k, from->session.path);
    to->direct_body = bytes_keep(k, from->direct_body, from->direct_body_n);
    to->name = keep_str(k, from->name);
    return to;
}

/* ---- filters ------------------------------------------------------------------------------------------------------------ */

static void aggregate_keep(struct compile *c, const struct object *o, struct plan_filter *f, struct aggregate_filter *a)
{
    struct aggregate_part *parts = keep_new(&c->keep, a->parts_n * sizeof *parts);
    struct plan_part *clusters = keep_new(&c->keep, a->parts_n * sizeof *clusters);
    for (size_t i = 0; i < a->parts_n; i++) {
        const struct route_backend *b = &a->parts[i].backend;
        parts[i] = a->parts[i];
        clusters[i].cluster = target_cluster(c, backend_target(c, o, b), b->port, 0, b->subset);
        parts[i].name = keep_str(&c->keep, parts[i].name);
        parts[i].path = keep_str(&c->keep, parts[i].path);
        parts[i].pointer = keep_str(&c->keep, parts[i].pointer);
        parts[i].backend = (struct route_backend){.port = b->port, .weight = b->weight, .service = keep_str(&c->keep, b->service), .ns = keep_str(&c->keep, b->ns),
                                                  .host = keep_str(&c->keep, b->host), .subset = keep_str(&c->keep, b->subset),
                                                  .req = edit_keep(&c->keep, &b->req), .resp = edit_keep(&c->keep, &b->resp)};
    }
    a->parts = parts;
    f->parts = clusters;
}

static void transform_keep(struct compile *c, struct plan_filter *f, struct transform_filter *t)
{
    struct transform_op *ops = keep_new(&c->keep, t->ops_n * sizeof *ops);
    const struct plan_regex **regexes = keep_new(&c->keep, t->ops_n * sizeof(void *));
    for (size_t i = 0; i < t->ops_n; i++) {
        ops[i] = t->ops[i];
        ops[i].pointer = keep_str(&c->keep, ops[i].pointer);
        ops[i].value = keep_str(&c->keep, ops[i].value);
        ops[i].regex = keep_str(&c->keep, ops[i].regex);
        regexes[i] = regex_keep(c, ops[i].regex, false);
    }
    t->ops = ops;
    f->regexes = regexes;
}

static void filter_fill(struct compile *c, struct plan_filter *f, const struct object *o)
{
    struct http_filter *to = keep_new(&c->keep, sizeof *to);
    struct keep *k = &c->keep;
    *to = o->filter;
    f->name = keep_str(k, arena_printf(&c->scratch, "%s/%s", o->ns, o->name));
    f->spec = to;
    switch (to->kind) {
    case FILTER_COMPRESS: to->compress.types = strings_keep(k, to->compress.types, to->compress.types_n); break;
    case FILTER_STATIC:
        to->files.root = keep_str(k, to->files.root);
        to->files.index = keep_str(k, to->files.index);
        to->files.fallback = keep_str(k, to->files.fallback);
        to->files.cache_control = keep_str(k, to->files.cache_control);
        break;
    case FILTER_AGGREGATE: aggregate_keep(c, o, f, &to->aggregate); break;
    case FILTER_TRANSFORM: transform_keep(c, f, &to->transform); break;
    case FILTER_DIRECT:
        to->direct.body = bytes_keep(k, to->direct.body, to->direct.body_n);
        to->direct.type = keep_str(k, to->direct.type);
        break;
    case FILTER_CORS: to->cors = cors_keep(k, &to->cors); break;
    case FILTER_FAULT: case FILTER_UPGRADES: case FILTER_HEDGE: break;
    }
}

/* Filters that set what a rule can say itself become part of its settings; true when f is one. */
static bool filter_fold(const struct http_filter *f, struct route_rule *spec)
{
    switch (f->kind) {
    case FILTER_FAULT: spec->fault = f->fault; return true;
    case FILTER_HEDGE: spec->hedge = f->hedge; return true;
    case FILTER_CORS: spec->cors = f->cors; spec->cors.given = true; return true;
    case FILTER_UPGRADES:
        spec->upgrades_refused = f->upgrades.refused;
        spec->connect = f->upgrades.connect;
        return true;
    case FILTER_COMPRESS: case FILTER_STATIC: case FILTER_AGGREGATE: case FILTER_TRANSFORM: case FILTER_DIRECT: break;
    }
    return false;
}

/* A filter is compiled once, for all rules that name it. */
static const struct plan_filter *filter_find(struct compile *c, const char *ns, const char *name)
{
    struct slice key = slice_cstr(arena_printf(&c->scratch, "%s/%s", ns, name));
    struct plan_filter *f = table_get(&c->filters, key);
    const struct object *o = f ? NULL : objset_find(c->s, OBJ_HTTPFILTER, ns, name);
    if (f || !o)
        return f;
    f = arena_zalloc(&c->scratch, sizeof *f);
    filter_fill(c, f, o);
    table_put(&c->filters, key, f);
    return f;
}

static void filters_fill(struct compile *c, struct plan_rule *r, struct route_rule *spec, const char *ns, const struct route_rule *from)
{
    struct plan_filter *filters = keep_new(&c->keep, from->filters_n * sizeof *filters);
    for (size_t i = 0; i < from->filters_n; i++) {
        const struct plan_filter *f = filter_find(c, ns, from->filters[i]);
        if (f && !filter_fold(f->spec, spec))
            filters[r->filters_n++] = *f;
    }
    r->filters = filters;
}

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static void mirrors_fill(struct compile *c, struct plan_rule *r, const struct object *o, const struct route_rule *from, uint16_t near)
{
    struct plan_mirror *mirrors = keep_new(&c->keep, from->mirrors_n * sizeof *mirrors);
    for (size_t i = 0; i < from->mirrors_n; i++) {
        const struct route_backend *b = &from->mirrors[i].backend;
        const struct plan_cluster *cl = target_cluster(c, backend_target(c, o, b), b->port, near, b->subset);
        if (cl) /* nobody waits for a mirror, so one that leads nowhere is left out */
            mirrors[r->mirrors_n++] = (struct plan_mirror){cl, from->mirrors[i].ppm};
    }
    r->mirrors = mirrors;
}

static void origins_fill(struct compile *c, struct plan_rule *r, const struct cors_policy *cors)
{
    if (!cors->given)
        return;
    const struct plan_regex **origins = keep_new(&c->keep, (cors->origins_n + 1) * sizeof(void *));
    for (size_t i = 0; i < cors->origins_n; i++)
        origins[i] = cors->origins[i].kind == MATCH_REGEX ? regex_keep(c, cors->origins[i].value, true) : NULL;
    r->origins = origins;
}

static bool rule_plain(const struct plan_rule *r, const struct route_rule *s)
{
    return !r->mirrors_n && !r->filters_n && !r->rewrite && !s->retry.given && !s->hedge.max && !s->fault.delay_ppm && !s->fault.abort_ppm && !s->cors.given && !s->session.given &&
           !s->redirect && !s->direct && !s->upgrades_refused && !s->connect;
}

void rule_fill(struct compile *c, struct plan_rule *r, const struct object *o, const struct route_rule *from, uint16_t near)
{
    struct route_rule spec = spec_bare(from);
    filters_fill(c, r, &spec, o->ns, from);
    r->spec = spec_flat(&spec) ? spec_share(c, &spec) : spec_keep(&c->keep, &spec);
    r->req = edit_empty(&from->req) ? NULL : &r->spec->req;
    r->resp = edit_empty(&from->resp) ? NULL : &r->spec->resp;
    r->timeout_ms = from->timeout_ms;
    r->backend_timeout_ms = from->backend_timeout_ms;
    r->untimed = from->untimed;
    r->unfound_503 = o->kind == OBJ_VIRTUALSERVICE;
    r->backends_n = backends_fill(c, o, from->backends, from->backends_n, near, true, &r->backends, &r->weight_sum);
    mirrors_fill(c, r, o, from, near);
    origins_fill(c, r, &r->spec->cors);
    r->rewrite = spec.rewrite_path_kind == REWRITE_REGEX ? regex_keep(c, spec.rewrite_regex, false) : NULL;
    r->plain = rule_plain(r, r->spec);
}

void tcp_rule_fill(struct compile *c, struct plan_tcp_rule *r, const struct object *o, const struct tcp_rule *from, uint16_t near)
{
    r->backends_n = backends_fill(c, o, from->backends, from->backends_n, near, false, &r->backends, &r->weight_sum);
}
