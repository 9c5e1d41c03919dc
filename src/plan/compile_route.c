/* compile_route.c - what rules match: HTTPRoutes and GRPCRoutes (plain), VirtualServices (ordered).
 *
 * Each match of each rule becomes a route_one: a path, a rank, predicates, a rule. Of plain routes the rank is Gateway API's
 * precedence among matches of the same host and path, over all routes; of VirtualServices it is their order as written, older
 * objects first. A VirtualService is compiled once, or once for each port that traffic comes in on, where a destination
 * leaves its port open and the target has several.
 *
 * A delegate's rules stand in for the rule that names it. Each of their matches must be possible together with one of the
 * root's (Istio, "Delegate"): the merged match asks for both, and what the delegate leaves open it has from the root.
 */
#include "compile_int.h"

#include <stdlib.h>

/* ---- predicates --------------------------------------------------------------------------------------------------------- */

static struct route_pred pred_of(struct compile *c, const char *name, const struct string_match *m)
{
    struct route_pred p = {.kind = (uint8_t)m->kind, .invert = m->invert, .ignore_case = m->ignore_case};
    if (name)
        p.name = keep_slice(&c->keep, slice_cstr(name));
    if (m->kind == MATCH_REGEX)
        p.regex = regex_keep(c, m->value, true);
    else if (m->kind != MATCH_PRESENT)
        p.value = keep_slice(&c->keep, slice_cstr(m->value));
    return p;
}

/* Of several entries with one name the first counts (HTTPHeaderMatch, HTTPQueryParamMatch); of those that must not hold
 * (withoutHeaders) each does. */
static uint16_t preds_of(struct compile *c, const struct route_kv_match *from, size_t n, bool headers, const struct route_pred **out)
{
    struct route_pred *to = keep_new(&c->keep, n * sizeof *to);
    uint16_t to_n = 0;
    for (size_t i = 0; i < n; i++) {
        struct slice name = slice_cstr(from[i].name);
        bool again = false;
        for (uint16_t j = 0; j < to_n && !from[i].m.invert; j++)
            again |= !to[j].invert && (headers ? slice_ieq(to[j].name, name) : slice_eq(to[j].name, name));
        if (again)
            continue;
        to[to_n] = pred_of(c, from[i].name, &from[i].m);
        to[to_n++].id = headers ? h1_name_id(name) : H1_OTHER;
    }
    *out = to;
    return to_n;
}

static const struct route_pred *pred_new(struct compile *c, const struct string_match *m)
{
    if (!m)
        return NULL;
    struct route_pred *p = keep_new(&c->keep, sizeof *p);
    *p = pred_of(c, NULL, m);
    return p;
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

/* Where the path is found; one->path is set for all but the rest, whose text only ranks it. */
static void one_place(struct compile *c, struct route_one *one, const struct route_match_spec *from, bool ordered)
{
    enum match_kind kind = from->has_path ? from->path_kind : ordered ? MATCH_STRING_PREFIX : MATCH_PREFIX;
    struct slice path = slice_cstr(from->has_path ? from->path : "");
    one->place = from->path_ignore_case || kind == MATCH_REGEX || kind == MATCH_PRESENT ? ONE_REST : kind == MATCH_EXACT ? ONE_EXACT : ONE_PREFIX;
    if (kind == (ordered ? MATCH_PREFIX : MATCH_STRING_PREFIX))
        one->place = ONE_REST; /* the tables of the other kind have it */
    while (kind == MATCH_PREFIX && path.n && path.p[path.n - 1] == '/')
        path.n--; /* "When specified, a trailing / is ignored" (PathMatchPathPrefix) */
    one->path = arena_slice(&c->scratch, path);
}

static const struct route_more *more_of(struct compile *c, const struct route_one *one, const struct route_match_spec *from)
{
    bool source = from->source_ns || from->source_labels.n;
    if (one->place != ONE_REST && !from->method_match && !from->scheme && !from->authority && !from->port && !source)
        return NULL;
    struct route_more *m = keep_new(&c->keep, sizeof *m);
    *m = (struct route_more){.method = pred_new(c, from->method_match), .scheme = pred_new(c, from->scheme), .authority = pred_new(c, from->authority), .port = from->port, .source = source,
                             .source_ns = keep_str(&c->keep, from->source_ns), .source_labels = kvs_keep(&c->keep, &from->source_labels)};
    if (one->place == ONE_REST)
        m->path = pred_new(c, &(struct string_match){.kind = from->path_kind, .value = (char *)one->path.p, .ignore_case = from->path_ignore_case});
    return m;
}

static void one_fill(struct compile *c, struct route_one *one, const struct plan_rule *rule, const struct route_match_spec *from, bool ordered)
{
    one->cand.rule = rule;
    one_place(c, one, from, ordered);
    const struct route_more *more = more_of(c, one, from);
    if (!from->method && !from->headers_n && !from->queries_n && !more)
        return;
    struct route_preds *preds = keep_new(&c->keep, sizeof *preds);
    one->cand.preds = preds;
    preds->more = more;
    preds->headers_n = preds_of(c, from->headers, from->headers_n, true, &preds->headers);
    preds->queries_n = preds_of(c, from->queries, from->queries_n, false, &preds->queries);
    if (!from->method)
        return;
    preds->has_method = true;
    preds->method = method_id(from->method);
    preds->method_text = keep_slice(&c->keep, slice_cstr(from->method));
}

static const struct route_match_spec everything_match; /* "the default is a prefix path match on /" (HTTPRouteRule.matches) */

/* ---- HTTPRoute, GRPCRoute ----------------------------------------------------------------------------------------------- */

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
        ones_n += MAX(1, from[i].matches_n);
    src->object = o;
    src->name = name;
    src->ones = arena_zalloc(&c->scratch, ones_n * sizeof *src->ones);
    for (size_t i = 0; i < rules_n; i++) {
        rules[i].route = name;
        rules[i].slot = slot;
        rule_fill(c, &rules[i], o, &from[i], 0);
        for (size_t k = 0; k < MAX(1, from[i].matches_n); k++)
            one_fill(c, &src->ones[src->ones_n++], &rules[i], from[i].matches_n ? &from[i].matches[k] : &everything_match, false);
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
    if (!c && a->source != b->source)
        c = a->source < b->source ? -1 : 1; /* an HTTPRoute and a GRPCRoute of one name: all sources are in one array */
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
    if (n)
        qsort(all, n, sizeof *all, ranked_cmp);
    for (size_t i = 0; i < n; i++)
        all[i].one->order = (uint32_t)i;
}

/* ---- delegates ---------------------------------------------------------------------------------------------------------- */

/* A rule of a VirtualService after delegates were put in: owner wrote its destinations. */
struct flat_rule {
    const struct object *owner;
    struct route_rule rule; /* matches are in scratch where it was merged */
};
struct flat_list {
    struct flat_rule *items;
    size_t n, cap;
};

static bool text_conflict(const struct string_match *root, const struct string_match *leaf)
{
    if (!root || !leaf)
        return false;
    if (root->kind == MATCH_REGEX || leaf->kind == MATCH_REGEX)
        return root->kind != leaf->kind || strcmp(root->value, leaf->value) != 0;
    if (root->kind == MATCH_PRESENT)
        return false;
    struct slice a = slice_cstr(root->value), b = slice_cstr(leaf->value ? leaf->value : "");
    return root->kind == MATCH_EXACT ? leaf->kind != MATCH_EXACT || !slice_eq(a, b) : leaf->kind == MATCH_PRESENT || !slice_starts(b, a);
}

static bool kvs_conflict(const struct route_kv_match *root, size_t root_n, const struct route_kv_match *leaf, size_t leaf_n, bool headers)
{
    for (size_t i = 0; i < root_n; i++)
        for (size_t k = 0; k < leaf_n; k++) {
            struct slice a = slice_cstr(root[i].name), b = slice_cstr(leaf[k].name);
            if ((headers ? slice_ieq(a, b) : slice_eq(a, b)) && root[i].m.invert == leaf[k].m.invert && text_conflict(&root[i].m, &leaf[k].m))
                return true;
        }
    return false;
}

/* No request can be asked for both. */
static bool match_conflict(const struct route_match_spec *root, const struct route_match_spec *leaf)
{
    const struct string_match a = {.kind = root->path_kind, .value = root->path}, b = {.kind = leaf->path_kind, .value = leaf->path};
    if (root->has_path && leaf->has_path && (root->path_ignore_case != leaf->path_ignore_case || text_conflict(&a, &b)))
        return true;
    if (text_conflict(root->method_match, leaf->method_match) || text_conflict(root->scheme, leaf->scheme) || text_conflict(root->authority, leaf->authority))
        return true;
    if (root->method && leaf->method && strcmp(root->method, leaf->method) != 0)
        return true;
    if ((root->port && leaf->port && root->port != leaf->port) || (root->source_ns && leaf->source_ns && strcmp(root->source_ns, leaf->source_ns) != 0))
        return true;
    for (size_t i = 0; i < root->source_labels.n; i++) {
        const struct kv *kv = kvs_get(&leaf->source_labels, slice_cstr(root->source_labels.items[i].key));
        if (kv && strcmp(kv->value, root->source_labels.items[i].value) != 0)
            return true;
    }
    return kvs_conflict(root->headers, root->headers_n, leaf->headers, leaf->headers_n, true) || kvs_conflict(root->queries, root->queries_n, leaf->queries, leaf->queries_n, false);
}

/* The leaf's entries first: of one name the first counts, and the leaf's is the narrower. */
static void kvs_join(struct arena *a, struct route_kv_match **out, size_t *out_n, const struct route_kv_match *root, size_t root_n)
{
    struct route_kv_match *both = arena_alloc(a, (*out_n + root_n + 1) * sizeof *both);
    if (*out_n)
        memcpy(both, *out, *out_n * sizeof *both);
    if (root_n)
        memcpy(both + *out_n, root, root_n * sizeof *both);
    *out = both;
    *out_n += root_n;
}

static struct route_match_spec match_merge(struct arena *a, const struct route_match_spec *root, const struct route_match_spec *leaf)
{
    struct route_match_spec m = *leaf;
    if (!m.has_path) {
        m.has_path = root->has_path;
        m.path_kind = root->path_kind;
        m.path = root->path;
        m.path_ignore_case = root->path_ignore_case;
    }
    m.method = m.method ? m.method : root->method;
    m.method_match = m.method_match ? m.method_match : root->method_match;
    m.scheme = m.scheme ? m.scheme : root->scheme;
    m.authority = m.authority ? m.authority : root->authority;
    m.port = m.port ? m.port : root->port;
    m.source_ns = m.source_ns ? m.source_ns : root->source_ns;
    if (!m.gateways_n) {
        m.gateways = root->gateways;
        m.gateways_n = root->gateways_n;
    }
    kvs_join(a, &m.headers, &m.headers_n, root->headers, root->headers_n);
    kvs_join(a, &m.queries, &m.queries_n, root->queries, root->queries_n);
    struct kvs labels = {arena_alloc(a, (root->source_labels.n + leaf->source_labels.n + 1) * sizeof *labels.items), 0};
    for (size_t i = 0; i < leaf->source_labels.n; i++)
        labels.items[labels.n++] = leaf->source_labels.items[i];
    for (size_t i = 0; i < root->source_labels.n; i++)
        if (!kvs_get(&leaf->source_labels, slice_cstr(root->source_labels.items[i].key)))
            labels.items[labels.n++] = root->source_labels.items[i];
    m.source_labels = labels;
    return m;
}

/* False: one of the leaf's matches is possible with none of the root's, and the rule does not count. */
static bool matches_merge(struct arena *a, const struct route_rule *root, struct route_rule *leaf)
{
    if (!root->matches_n)
        return true;
    if (!leaf->matches_n) {
        leaf->matches = root->matches;
        leaf->matches_n = root->matches_n;
        return true;
    }
    struct route_match_spec *all = arena_alloc(a, root->matches_n * leaf->matches_n * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < leaf->matches_n; i++) {
        size_t before = n;
        for (size_t k = 0; k < root->matches_n; k++)
            if (!match_conflict(&root->matches[k], &leaf->matches[i]))
                all[n++] = match_merge(a, &root->matches[k], &leaf->matches[i]);
        if (n == before)
            return false;
    }
    leaf->matches = all;
    leaf->matches_n = n;
    return true;
}

static bool edit_none(const struct header_edit *e) { return !e->set.n && !e->add.n && !e->remove_n; }

/* What the delegate leaves open it has from the rule that names it. */
static void settings_merge(const struct route_rule *root, struct route_rule *leaf)
{
    if (!leaf->timeout_ms && !leaf->untimed) {
        leaf->timeout_ms = root->timeout_ms;
        leaf->untimed = root->untimed;
    }
    if (!leaf->retry.given)
        leaf->retry = root->retry;
    if (!leaf->hedge.max)
        leaf->hedge = root->hedge;
    if (!leaf->fault.delay_ppm && !leaf->fault.abort_ppm)
        leaf->fault = root->fault;
    if (!leaf->mirrors_n) {
        leaf->mirrors = root->mirrors;
        leaf->mirrors_n = root->mirrors_n;
    }
    if (!leaf->cors.given)
        leaf->cors = root->cors;
    if (!leaf->session.given)
        leaf->session = root->session;
    if (!leaf->rewrite_host && leaf->rewrite_path_kind == REWRITE_NONE) {
        leaf->rewrite_host = root->rewrite_host;
        leaf->rewrite_path_kind = root->rewrite_path_kind;
        leaf->rewrite_path = root->rewrite_path;
        leaf->rewrite_regex = root->rewrite_regex;
    }
    if (edit_none(&leaf->req) && edit_none(&leaf->resp)) {
        leaf->req = root->req;
        leaf->resp = root->resp;
    }
    leaf->name = leaf->name ? leaf->name : root->name;
}

static char **gateways_full(struct arena *a, const char *ns, char *const *names, size_t n)
{
    char **out = arena_alloc(a, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = strchr(names[i], '/') || strcmp(names[i], "mesh") == 0 ? names[i] : arena_printf(a, "%s/%s", ns, names[i]);
    return out;
}

/* A copy whose matches name Gateways with their namespaces. */
static struct route_rule rule_full(struct arena *a, const struct object *o, const struct route_rule *from)
{
    struct route_rule to = *from;
    to.matches = arena_alloc(a, (from->matches_n + 1) * sizeof *to.matches);
    for (size_t i = 0; i < from->matches_n; i++) {
        to.matches[i] = from->matches[i];
        to.matches[i].gateways = gateways_full(a, o->ns, from->matches[i].gateways, from->matches[i].gateways_n);
    }
    return to;
}

static void flat_add(struct flat_list *l, const struct object *owner, const struct route_rule *rule)
{
    ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
    l->items[l->n++] = (struct flat_rule){owner, *rule};
}

/* rewrite.uri replaces what uri.prefix matched, or the whole path with uri.exact and uri.regex (load_istio.c). Which of them a delegate's rule has is
 * known only here, where the matches of both are one; where they differ it becomes a rule for each match, in place. */
static void flat_add_merged(struct flat_list *l, const struct object *owner, const struct route_rule *rule)
{
    bool whole = false;
    for (size_t i = 0; i < rule->matches_n && rule->rewrite_path_kind == REWRITE_PREFIX; i++)
        whole |= rule->matches[i].has_path && rule->matches[i].path_kind != MATCH_STRING_PREFIX;
    if (!whole) {
        flat_add(l, owner, rule);
        return;
    }
    for (size_t i = 0; i < rule->matches_n; i++) {
        struct route_rule one = *rule;
        one.matches = &rule->matches[i];
        one.matches_n = 1;
        if (one.matches->has_path && one.matches->path_kind != MATCH_STRING_PREFIX)
            one.rewrite_path_kind = REWRITE_FULL;
        flat_add(l, owner, &one);
    }
}

/* A delegate of a delegate does not count: Istio has one level. */
static void flat_rules(struct compile *c, const struct object *o, struct flat_list *out)
{
    for (size_t i = 0; i < o->route.rules_n; i++) {
        struct route_rule root = rule_full(&c->scratch, o, &o->route.rules[i]);
        if (!root.delegate_name) {
            flat_add(out, o, &root);
            continue;
        }
        const struct object *d = objset_find(c->s, OBJ_VIRTUALSERVICE, root.delegate_ns ? root.delegate_ns : o->ns, root.delegate_name);
        for (size_t k = 0; d && d != o && k < d->route.rules_n; k++) {
            struct route_rule leaf = rule_full(&c->scratch, d, &d->route.rules[k]);
            if (leaf.delegate_name || !matches_merge(&c->scratch, &root, &leaf))
                continue;
            settings_merge(&root, &leaf);
            flat_add_merged(out, d, &leaf);
        }
    }
}

/* ---- VirtualService ----------------------------------------------------------------------------------------------------- */

bool gateways_have(char *const *gateways, size_t n, const char *ns, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        size_t k = strlen(ns);
        if (strcmp(gateways[i], name) == 0 || (!strchr(gateways[i], '/') && strncmp(name, ns, k) == 0 && name[k] == '/' && strcmp(name + k + 1, gateways[i]) == 0))
            return true;
    }
    return n == 0;
}

static int virtual_cmp(const void *pa, const void *pb)
{
    const struct virtual_service *a = pa, *b = pb;
    return object_age_cmp(a->o, b->o);
}

static bool tcp_near(struct compile *c, const struct object *o, const struct tcp_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (backends_near(c, o, rules[i].backends, rules[i].backends_n))
            return true;
    return false;
}

static void virtual_fill(struct compile *c, struct virtual_service *v, uint32_t *order, uint32_t *tcp_order)
{
    struct flat_list list = {0};
    const struct http_route *r = &v->o->route;
    flat_rules(c, v->o, &list);
    v->rules_n = list.n;
    v->rules = arena_alloc(&c->scratch, (list.n + 1) * sizeof *v->rules);
    if (list.n)
        memcpy(v->rules, list.items, list.n * sizeof *v->rules);
    mem_free(list.items);
    v->name = keep_str(&c->keep, arena_printf(&c->scratch, "%s/%s", v->o->ns, v->o->name));
    v->slot = slots_take(c->m, SLOT_ROUTE, slice_cstr(v->name)).slot;
    v->order = *order;
    v->tcp_order = *tcp_order;
    for (size_t i = 0; i < v->rules_n; i++) {
        const struct route_rule *rule = &v->rules[i].rule;
        *order += (uint32_t)MAX(1, rule->matches_n);
        v->near = v->near || backends_near(c, v->rules[i].owner, rule->backends, rule->backends_n);
        for (size_t k = 0; k < rule->mirrors_n; k++)
            v->near = v->near || backends_near(c, v->rules[i].owner, &rule->mirrors[k].backend, 1);
    }
    *tcp_order += (uint32_t)(r->tcp_n + r->tls_n);
    v->near = v->near || tcp_near(c, v->o, r->tcp, r->tcp_n) || tcp_near(c, v->o, r->tls, r->tls_n);
    v->mesh = !r->gateways_n || gateways_have(r->gateways, r->gateways_n, "", "mesh");
}

/* Delegates have no hosts of their own: only the rules that name them use them. */
static void compile_virtuals(struct compile *c)
{
    uint32_t order = 0, tcp_order = TCP_ORDER_VIRTUAL;
    c->virtuals = arena_zalloc(&c->scratch, (objset_n(c->s) + 1) * sizeof *c->virtuals);
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_VIRTUALSERVICE && objset_at(c->s, i)->route.hostnames_n)
            c->virtuals[c->virtuals_n++].o = objset_at(c->s, i);
    if (c->virtuals_n)
        qsort(c->virtuals, c->virtuals_n, sizeof *c->virtuals, virtual_cmp);
    for (uint32_t i = 0; i < c->virtuals_n; i++)
        virtual_fill(c, &c->virtuals[i], &order, &tcp_order);
}

static void virtual_http(struct compile *c, struct virtual_service *v, struct route_source *src, uint16_t near)
{
    struct plan_rule *rules = keep_new(&c->keep, v->rules_n * sizeof *rules);
    size_t ones_n = 0;
    for (size_t i = 0; i < v->rules_n; i++)
        ones_n += MAX(1, v->rules[i].rule.matches_n);
    *src = (struct route_source){.object = v->o, .name = v->name, .ordered = true, .ones = arena_zalloc(&c->scratch, (ones_n + 1) * sizeof *src->ones)};
    for (size_t i = 0; i < v->rules_n; i++) {
        const struct route_rule *from = &v->rules[i].rule;
        rules[i].route = v->name;
        rules[i].slot = v->slot;
        rule_fill(c, &rules[i], v->rules[i].owner, from, near);
        for (size_t k = 0; k < MAX(1, from->matches_n); k++) {
            const struct route_match_spec *m = from->matches_n ? &from->matches[k] : &everything_match;
            struct route_one *one = &src->ones[src->ones_n];
            one_fill(c, one, &rules[i], m, true);
            one->order = v->order + src->ones_n++;
            one->gateways = m->gateways;
            one->gateways_n = m->gateways_n;
        }
    }
    source_patterns(c, src, &v->o->route);
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------- */

static const struct tcp_preds *tcp_preds_of(struct compile *c, const struct tcp_rule *from)
{
    bool source = from->source_ns || from->source_labels.n;
    if (!from->port && !source)
        return NULL;
    struct tcp_preds *p = keep_new(&c->keep, sizeof *p);
    *p = (struct tcp_preds){.port = from->port, .source = source, .source_ns = keep_str(&c->keep, from->source_ns), .source_labels = kvs_keep(&c->keep, &from->source_labels)};
    return p;
}

static struct tcp_one *tcp_ones(struct compile *c, const struct object *o, char *name, uint32_t slot, const struct tcp_rule *rules, size_t n, uint32_t order, uint16_t near)
{
    struct tcp_one *ones = arena_zalloc(&c->scratch, (n + 1) * sizeof *ones);
    struct plan_tcp_rule *made = keep_new(&c->keep, n * sizeof *made);
    for (size_t i = 0; i < n; i++) {
        const struct tcp_rule *from = &rules[i];
        made[i].route = name;
        made[i].slot = slot;
        tcp_rule_fill(c, &made[i], o, from, near);
        ones[i] = (struct tcp_one){.object = o, .order = order + (uint32_t)i, .cand = {&made[i], tcp_preds_of(c, from)},
                                   .gateways = gateways_full(&c->scratch, o->ns, from->gateways, from->gateways_n), .gateways_n = from->gateways_n};
        char *const *hosts = from->sni_n ? from->sni : o->route.hostnames;
        size_t hosts_n = from->sni_n ? from->sni_n : o->kind == OBJ_TLSROUTE ? o->route.hostnames_n : 0;
        ones[i].patterns = arena_alloc(&c->scratch, (hosts_n + 1) * sizeof(struct slice));
        for (size_t k = 0; k < hosts_n; k++)
            ones[i].patterns[ones[i].patterns_n++] = pattern_of(&c->scratch, hosts[k]);
        if (!hosts_n)
            ones[i].patterns[ones[i].patterns_n++] = pattern_of(&c->scratch, NULL);
    }
    return ones;
}

struct virtual_compiled *virtual_at(struct compile *c, struct virtual_service *v, uint16_t port)
{
    const struct http_route *r = &v->o->route;
    uint16_t near = v->near ? port : 0;
    for (struct virtual_compiled *vc = v->compiled; vc; vc = vc->next)
        if (vc->near == near)
            return vc;
    struct virtual_compiled *vc = arena_zalloc(&c->scratch, sizeof *vc);
    *vc = (struct virtual_compiled){.next = v->compiled, .near = near, .tcp_n = (uint32_t)r->tcp_n, .tls_n = (uint32_t)r->tls_n};
    v->compiled = vc;
    virtual_http(c, v, &vc->http, near);
    vc->tcp = tcp_ones(c, v->o, v->name, v->slot, r->tcp, r->tcp_n, v->tcp_order, near);
    vc->tls = tcp_ones(c, v->o, v->name, v->slot, r->tls, r->tls_n, v->tcp_order + (uint32_t)r->tcp_n, near);
    return vc;
}

static int tcp_route_cmp(const void *pa, const void *pb)
{
    const struct tcp_route *a = pa, *b = pb;
    return object_age_cmp(a->o, b->o);
}

static void compile_tcp_routes(struct compile *c)
{
    uint32_t order = 0;
    c->tcp_routes = arena_zalloc(&c->scratch, (objset_n(c->s) + 1) * sizeof *c->tcp_routes);
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_TCPROUTE || objset_at(c->s, i)->kind == OBJ_TLSROUTE)
            c->tcp_routes[c->tcp_routes_n++].o = objset_at(c->s, i);
    if (c->tcp_routes_n)
        qsort(c->tcp_routes, c->tcp_routes_n, sizeof *c->tcp_routes, tcp_route_cmp);
    for (uint32_t i = 0; i < c->tcp_routes_n; i++) {
        struct tcp_route *t = &c->tcp_routes[i];
        const struct http_route *r = &t->o->route;
        const struct tcp_rule *rules = t->o->kind == OBJ_TCPROUTE ? r->tcp : r->tls;
        t->ones_n = (uint32_t)(t->o->kind == OBJ_TCPROUTE ? r->tcp_n : r->tls_n);
        char *name = keep_str(&c->keep, arena_printf(&c->scratch, "%s/%s", t->o->ns, t->o->name));
        t->ones = tcp_ones(c, t->o, name, slots_take(c->m, SLOT_ROUTE, slice_cstr(name)).slot, rules, t->ones_n, order, 0);
        order += t->ones_n;
    }
}

void compile_routes(struct compile *c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < objset_n(c->s); i++)
        n += objset_at(c->s, i)->kind == OBJ_HTTPROUTE || objset_at(c->s, i)->kind == OBJ_GRPCROUTE;
    c->sources = arena_zalloc(&c->scratch, (n + 1) * sizeof *c->sources);
    for (size_t i = 0; i < objset_n(c->s); i++)
        if (objset_at(c->s, i)->kind == OBJ_HTTPROUTE || objset_at(c->s, i)->kind == OBJ_GRPCROUTE)
            source_fill(c, &c->sources[c->sources_n++], objset_at(c->s, i));
    sources_rank(c);
    compile_virtuals(c);
    compile_tcp_routes(c);
}
