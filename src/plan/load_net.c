/* load_net.c - Gateways and HTTPRoutes (Gateway API v1).
 *
 * What the API leaves to defaults is filled in here: a match without a path is the prefix "/", a rule without matches
 * matches everything, a backend without weight has 1, a redirect without status is a 302. Rules that span fields come from
 * the API's own validation: filters that exclude each other, ReplacePrefixMatch needs a PathPrefix, and so on.
 */
#include "plan_int.h"

static bool value_is(const struct ynode *map, const char *key, const char *value) { return slice_is(y_str(y_get(map, key)), value); }

/* ---- Gateway --------------------------------------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static void load_listeners(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "listeners");
    struct gateway *gw = &o->gw;
    gw->listeners_n = load_list_n(spec, "listeners");
    gw->listeners = load_array(o, gw->listeners_n, sizeof *gw->listeners);
    if (list && list->type == Y_LIST && !list->n)
        reader_error(r, list, "spec.listeners", "add one", "empty: nothing would listen");
    for (uint32_t i = 0; i < gw->listeners_n; i++) {
        const struct ynode *n = list->items[i];
        struct gw_listener *ln = &gw->listeners[i];
        ln->name = load_str(o, n, "name");
        ln->port = (uint16_t)load_int(n, "port", 0, 65535);
        ln->hostname = load_str(o, n, "hostname");
        if (ln->hostname && !ln->hostname[0])
            ln->hostname = NULL;
        ln->from_all = slice_is(y_str(y_path(n, "allowedRoutes.namespaces.from")), "All");
        for (uint32_t k = 0; k < i && ln->port; k++)
            if (gw->listeners[k].port == ln->port && same_text(gw->listeners[k].hostname, ln->hostname)) {
                size_t mark = reader_push(r, "spec.listeners[%u]", i);
                reader_error(r, n, "", "give it another port or hostname", "the same port and hostname as the listener at line %u", list->items[k]->line);
                reader_pop(r, mark);
            }
    }
}

/* An address that is every address takes the port from all others of its family (:: from IPv4 as well). */
static bool address_covers(const struct addr *any, const struct addr *other)
{
    static const uint8_t zero[16];
    bool every6 = any->family == ADDR_IP6 && memcmp(any->ip, zero, 16) == 0;
    bool every4 = any->family == ADDR_IP4 && memcmp(any->ip, zero, 4) == 0;
    return every6 || (every4 && other->family == ADDR_IP4);
}

void load_gateway(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *list = y_get(spec, "addresses");
    struct gateway *gw = &o->gw;
    if (!spec || spec->type != Y_MAP)
        return;
    load_listeners(r, o, spec);
    gw->addresses = load_array(o, load_list_n(spec, "addresses") + 1, sizeof *gw->addresses);
    for (uint32_t i = 0; i < load_list_n(spec, "addresses"); i++) {
        struct addr *a = &gw->addresses[gw->addresses_n];
        if (addr_parse(y_str(y_get(list->items[i], "value")), 0, a) != OK)
            continue; /* reported by the walk */
        for (size_t k = 0; k < gw->addresses_n; k++)
            if (addr_eq(a, &gw->addresses[k]) || address_covers(a, &gw->addresses[k]) || address_covers(&gw->addresses[k], a)) {
                size_t mark = reader_push(r, "spec.addresses[%u].value", i);
                reader_error(r, y_get(list->items[i], "value"), "", "keep one of them", "an address that another one of this list is or covers");
                reader_pop(r, mark);
                break;
            }
        gw->addresses_n++;
    }
    if (!gw->addresses_n)
        gw->addresses[gw->addresses_n++] = addr_ip4(0x7f000001, 0);
}

/* ---- matches ------------------------------------------------------------------------------------------------------------ */

static void load_kv_matches(struct reader *r, struct object *o, const struct ynode *map, const char *key, bool ignore_case, struct route_kv_match **out,
                            size_t *out_n)
{
    const struct ynode *list = y_get(map, key);
    size_t n = load_list_n(map, key);
    struct route_kv_match *kv = load_array(o, n, sizeof *kv);
    *out = kv;
    *out_n = 0;
    for (size_t i = 0; i < n; i++) {
        char *name = load_str(o, list->items[i], "name"), *value = load_str(o, list->items[i], "value");
        bool twice = false;
        for (size_t k = 0; name && k < *out_n; k++)
            twice |= kv[k].name && (ignore_case ? slice_ieq(slice_cstr(name), slice_cstr(kv[k].name)) : strcmp(name, kv[k].name) == 0);
        if (!twice) { /* "if multiple entries specify equivalent names, only the first is considered" (HTTPRouteMatch) */
            kv[(*out_n)++] = (struct route_kv_match){.name = name, .value = value};
            continue;
        }
        size_t mark = reader_push(r, ".%s[%zu].name", key, i);
        reader_warn(r, list->items[i], "", "remove it", "the name %s is given twice: the first counts", name);
        reader_pop(r, mark);
    }
}

static void load_match(struct reader *r, struct object *o, const struct ynode *n, struct route_match_spec *m)
{
    const struct ynode *path = y_get(n, "path");
    m->has_path = true;
    m->path = load_str(o, path, "value");
    if (!m->path)
        m->path = arena_strdup(&o->mem, "/");
    m->path_kind = value_is(path, "type", "Exact") ? MATCH_EXACT : value_is(path, "type", "RegularExpression") ? MATCH_REGEX_REFUSED : MATCH_PREFIX;
    m->method = load_str(o, n, "method");
    load_kv_matches(r, o, n, "headers", true, &m->headers, &m->headers_n);
    load_kv_matches(r, o, n, "queryParams", false, &m->queries, &m->queries_n);
}

static void load_matches(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *list = y_get(n, "matches");
    rule->matches_n = load_list_n(n, "matches");
    rule->matches = load_array(o, rule->matches_n, sizeof *rule->matches);
    for (uint32_t i = 0; i < rule->matches_n; i++) {
        size_t mark = reader_push(r, ".matches[%u]", i);
        load_match(r, o, list->items[i], &rule->matches[i]);
        reader_pop(r, mark);
    }
}

/* ---- filters ------------------------------------------------------------------------------------------------------------- */

static void load_header_kvs(struct object *o, const struct ynode *n, const char *key, struct kvs *out)
{
    const struct ynode *list = y_get(n, key);
    size_t count = load_list_n(n, key);
    out->items = load_array(o, count, sizeof *out->items);
    out->n = 0;
    for (size_t i = 0; i < count; i++) {
        char *name = load_str(o, list->items[i], "name"), *value = load_str(o, list->items[i], "value");
        out->items[out->n++] = (struct kv){.key = name, .value = value, .value_n = value ? strlen(value) : 0};
    }
}

/* Framing and the connection are the proxy's own business: a rule that edits these fields would break messages. */
static void check_edit_name(struct reader *r, const struct ynode *n, const char *name)
{
    static const char *const refused[] = {"connection", "content-length",    "host",   "keep-alive", "proxy-connection", "te",
                                          "trailer",    "transfer-encoding", "upgrade"};
    for (size_t i = 0; name && i < COUNT_OF(refused); i++)
        if (slice_ieq(slice_cstr(name), slice_cstr(refused[i])))
            reader_error(r, n, "", slice_is(slice_cstr(refused[i]), "host") ? "use URLRewrite with hostname" : "remove it",
                         "refused: the field %s belongs to the proxy", name);
}

static void check_edit(struct reader *r, const struct ynode *n, const struct header_edit *edit)
{
    static const char *const keys[] = {"set", "add"};
    for (size_t k = 0; k < COUNT_OF(keys); k++) {
        const struct ynode *list = y_get(n, keys[k]);
        const struct kvs *kvs = k ? &edit->add : &edit->set;
        for (size_t i = 0; i < kvs->n; i++) {
            size_t mark = reader_push(r, ".%s[%zu].name", keys[k], i);
            check_edit_name(r, list->items[i], kvs->items[i].key);
            reader_pop(r, mark);
        }
    }
    for (size_t i = 0; i < edit->remove_n; i++) {
        size_t mark = reader_push(r, ".remove[%zu]", i);
        check_edit_name(r, y_get(n, "remove")->items[i], edit->remove[i]);
        reader_pop(r, mark);
    }
}

static void load_header_edit(struct reader *r, struct object *o, const struct ynode *n, struct header_edit *edit)
{
    load_header_kvs(o, n, "set", &edit->set);
    load_header_kvs(o, n, "add", &edit->add);
    edit->remove = load_strings(o, n, "remove", &edit->remove_n);
    check_edit(r, n, edit);
}

static enum path_rewrite load_path_edit(struct reader *r, struct object *o, const struct ynode *n, char **path)
{
    bool full = value_is(n, "type", "ReplaceFullPath"), prefix = value_is(n, "type", "ReplacePrefixMatch");
    if (!full && !prefix)
        return REWRITE_NONE;
    const char *key = full ? "replaceFullPath" : "replacePrefixMatch", *other = full ? "replacePrefixMatch" : "replaceFullPath";
    *path = load_str(o, n, key);
    if (!y_get(n, key))
        reader_error(r, n, ".path", "add it", "%s is missing", key);
    if (y_get(n, other))
        reader_error(r, y_get(n, other), ".path", "remove it", "%s has no meaning with type " SLICE_FMT, other, SLICE_ARG(y_str(y_get(n, "type"))));
    return full ? REWRITE_FULL : REWRITE_PREFIX;
}

/* The path that REWRITE_PREFIX replaces must be known: exactly one match, with a PathPrefix (the API's own rule). */
static void check_prefix(struct reader *r, const struct ynode *n, const struct route_rule *rule)
{
    if (rule->matches_n != 1 || rule->matches[0].path_kind != MATCH_PREFIX)
        reader_error(r, n, ".path.type", "give the rule one match, with path type PathPrefix, or use ReplaceFullPath",
                     "ReplacePrefixMatch needs exactly one match, with a PathPrefix");
}

static void load_redirect(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *status = y_get(n, "statusCode");
    rule->redirect = true;
    rule->redirect_scheme = load_str(o, n, "scheme");
    rule->redirect_host = load_str(o, n, "hostname");
    rule->redirect_port = (uint16_t)load_int(n, "port", 0, 65535);
    rule->redirect_status = (uint16_t)load_int(n, "statusCode", 302, 399);
    if (y_is_str(status))
        reader_error(r, status, ".statusCode", "write it without quotes", "a string, and must be a number");
    rule->redirect_path_kind = load_path_edit(r, o, y_get(n, "path"), &rule->redirect_path);
    if (rule->redirect_path_kind == REWRITE_PREFIX)
        check_prefix(r, n, rule);
}

static void load_rewrite(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    rule->rewrite_host = load_str(o, n, "hostname");
    rule->rewrite_path_kind = load_path_edit(r, o, y_get(n, "path"), &rule->rewrite_path);
    if (rule->rewrite_path_kind == REWRITE_PREFIX)
        check_prefix(r, n, rule);
}

enum { FILTER_REQ, FILTER_RESP, FILTER_REDIRECT, FILTER_REWRITE, FILTER_KINDS };
static const char *const filter_types[FILTER_KINDS] = {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"};
static const char *const filter_keys[FILTER_KINDS] = {"requestHeaderModifier", "responseHeaderModifier", "requestRedirect", "urlRewrite"};

/* The kind of filter n is, with its body in *body; FILTER_KINDS when it is none of ours. */
static int filter_kind(struct reader *r, const struct ynode *n, const struct ynode **body)
{
    int kind = FILTER_KINDS;
    for (int i = 0; i < FILTER_KINDS; i++)
        if (value_is(n, "type", filter_types[i]))
            kind = i;
    if (kind == FILTER_KINDS)
        return kind;
    *body = y_get(n, filter_keys[kind]);
    if (!*body)
        reader_error(r, n, "", "add it", "%s is missing, with type %s", filter_keys[kind], filter_types[kind]);
    for (int i = 0; i < FILTER_KINDS; i++)
        if (i != kind && y_get(n, filter_keys[i]))
            reader_error(r, y_get(n, filter_keys[i]), "", "put each in a filter of its own", "%s has no meaning with type %s", filter_keys[i],
                         filter_types[kind]);
    return *body && (*body)->type == Y_MAP ? kind : FILTER_KINDS;
}

/* Filters of a rule (rule given) or of a backendRef, whose edits go to req and resp. */
static void load_filters(struct reader *r, struct object *o, const struct ynode *owner, struct header_edit *req, struct header_edit *resp,
                         struct route_rule *rule)
{
    const struct ynode *list = y_get(owner, "filters");
    bool had[FILTER_KINDS + 1] = {false};
    for (uint32_t i = 0; i < load_list_n(owner, "filters"); i++) {
        const struct ynode *n = list->items[i], *body = NULL;
        size_t mark = reader_push(r, ".filters[%u]", i);
        int kind = filter_kind(r, n, &body);
        if (kind < FILTER_KINDS && had[kind])
            reader_error(r, n, "", "join them into one", "a second filter of type %s", filter_types[kind]);
        had[kind] = true;
        size_t inner = reader_push(r, ".%s", kind < FILTER_KINDS ? filter_keys[kind] : "");
        if (kind == FILTER_REQ || kind == FILTER_RESP)
            load_header_edit(r, o, body, kind == FILTER_REQ ? req : resp);
        else if (kind == FILTER_REDIRECT && rule)
            load_redirect(r, o, body, rule);
        else if (kind == FILTER_REWRITE && rule)
            load_rewrite(r, o, body, rule);
        reader_pop(r, inner);
        if (had[FILTER_REDIRECT] && had[FILTER_REWRITE] && (kind == FILTER_REDIRECT || kind == FILTER_REWRITE) && rule)
            reader_error(r, n, "", "keep one of them", "RequestRedirect and URLRewrite exclude each other");
        reader_pop(r, mark);
    }
}

/* ---- rules ------------------------------------------------------------------------------------------------------------------ */

static void load_backends(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *list = y_get(n, "backendRefs");
    rule->backends_n = load_list_n(n, "backendRefs");
    rule->backends = load_array(o, rule->backends_n, sizeof *rule->backends);
    for (uint32_t i = 0; i < rule->backends_n; i++) {
        struct route_backend *be = &rule->backends[i];
        const struct ynode *ref = list->items[i];
        be->service = load_str(o, ref, "name");
        be->ns = load_str(o, ref, "namespace");
        if (!be->ns)
            be->ns = o->ns;
        be->port = (uint16_t)load_int(ref, "port", 0, 65535);
        be->weight = (uint32_t)load_int(ref, "weight", 1, 1000000);
        size_t mark = reader_push(r, ".backendRefs[%u]", i);
        load_filters(r, o, ref, &be->req, &be->resp, NULL);
        reader_pop(r, mark);
    }
    if (rule->redirect && rule->backends_n)
        reader_error(r, list, ".backendRefs", "remove them, or the filter", "a rule with RequestRedirect has no backends");
    if (!rule->redirect && !rule->backends_n && n->type == Y_MAP)
        reader_warn(r, n, ".backendRefs", "add a Service", "none: requests of this rule are answered with 500");
}

static uint32_t load_duration(const struct ynode *map, const char *key)
{
    uint32_t ms;
    const struct ynode *n = y_get(map, key);
    return y_is_str(n) && value_duration_ms(n->text, &ms) == OK ? ms : 0;
}

static void load_rule(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *timeouts = y_get(n, "timeouts");
    rule->line = n->line;
    rule->name = load_str(o, n, "name");
    load_matches(r, o, n, rule);
    load_filters(r, o, n, &rule->req, &rule->resp, rule);
    load_backends(r, o, n, rule);
    rule->timeout_ms = load_duration(timeouts, "request");
    rule->backend_timeout_ms = load_duration(timeouts, "backendRequest");
    if (rule->timeout_ms && rule->backend_timeout_ms > rule->timeout_ms)
        reader_error(r, y_get(timeouts, "backendRequest"), ".timeouts.backendRequest", "give at most request", "longer than request");
}

static void load_parents(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "parentRefs");
    struct http_route *route = &o->route;
    route->parents_n = load_list_n(spec, "parentRefs");
    route->parents = load_array(o, route->parents_n, sizeof *route->parents);
    for (uint32_t i = 0; i < route->parents_n; i++) {
        struct parent_ref *p = &route->parents[i];
        const struct ynode *n = list->items[i];
        p->gateway = load_str(o, n, "name");
        p->ns = load_str(o, n, "namespace");
        if (!p->ns)
            p->ns = o->ns;
        p->section = load_str(o, n, "sectionName");
        p->port = (uint16_t)load_int(n, "port", 0, 65535);
    }
    if (!route->parents_n && (!list || list->type == Y_LIST))
        reader_warn(r, spec, "spec.parentRefs", "name the Gateway", "missing: no Gateway serves this route");
}

void load_http_route(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *rules = y_get(spec, "rules");
    struct http_route *route = &o->route;
    if (!spec || spec->type != Y_MAP)
        return;
    load_parents(r, o, spec);
    route->hostnames = load_strings(o, spec, "hostnames", &route->hostnames_n);
    route->rules_n = load_list_n(spec, "rules");
    route->rules = load_array(o, route->rules_n, sizeof *route->rules);
    if (rules && rules->type == Y_LIST && !rules->n)
        reader_error(r, rules, "spec.rules", "add one", "empty: nothing would be served");
    for (uint32_t i = 0; i < route->rules_n; i++) {
        size_t mark = reader_push(r, "spec.rules[%u]", i);
        load_rule(r, o, rules->items[i], &route->rules[i]);
        reader_pop(r, mark);
    }
}
