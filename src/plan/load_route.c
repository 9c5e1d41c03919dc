/* load_route.c - routes of the Gateway API (HTTPRoute, GRPCRoute, TCPRoute, TLSRoute) and SMI's TrafficSplit.
 *
 * What the API leaves to defaults is filled in here: a match without a path is the prefix "/", a rule without matches
 * matches everything, a backend without weight has 1, a redirect without status is a 302. Rules that span fields come from
 * the API's own validation: filters that exclude each other, ReplacePrefixMatch needs a PathPrefix, and so on. A GRPCRoute is a
 * route whose paths are "/service/method" (gRPC over HTTP/2, Requests).
 */
#include "plan_int.h"

/* ---- matches ------------------------------------------------------------------------------------------------------------ */

static void check_regex(struct reader *r, const struct ynode *n, const char *key, size_t i, const char *value)
{
    size_t mark = reader_push(r, ".%s[%zu]", key, i);
    load_check_regex(r, y_get(n, "value"), ".value", value);
    reader_pop(r, mark);
}

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
        bool twice = false, regex = load_is(list->items[i], "type", "RegularExpression");
        for (size_t k = 0; name && k < *out_n; k++)
            twice |= kv[k].name && (ignore_case ? slice_ieq(slice_cstr(name), slice_cstr(kv[k].name)) : strcmp(name, kv[k].name) == 0);
        if (!twice) { /* "if multiple entries specify equivalent names, only the first is considered" (HTTPRouteMatch) */
            kv[(*out_n)++] = (struct route_kv_match){.name = name, .m = {.kind = regex ? MATCH_REGEX : MATCH_EXACT, .value = value}};
            if (regex)
                check_regex(r, list->items[i], key, i, value);
            continue;
        }
        size_t mark = reader_push(r, ".%s[%zu].name", key, i);
        reader_warn(r, list->items[i], "", "remove it", "the name %s is given twice: the first counts", name);
        reader_pop(r, mark);
    }
}

/* Paths of the normal form that requests have when they are matched; a regular expression may be anything. */
static void check_path(struct reader *r, const struct ynode *path, const struct route_match_spec *m)
{
    const struct ynode *value = y_get(path, "value");
    if (!y_is_str(value))
        return;
    if (m->path_kind == MATCH_REGEX)
        load_check_regex(r, value, ".path.value", m->path);
    else if (!value_is_url_path(value->text))
        reader_error(r, value, ".path.value", "give a path that begins with '/', without empty, '.' or '..' elements, query or fragment", "not valid here: \"%.*s\"",
                     (int)MIN(value->text.n, 60), value->text.p);
}

static void load_match(struct reader *r, struct object *o, const struct ynode *n, struct route_match_spec *m)
{
    const struct ynode *path = y_get(n, "path");
    m->has_path = true;
    m->path = load_str(o, path, "value");
    if (!m->path)
        m->path = arena_strdup(&o->mem, "/");
    m->path_kind = load_is(path, "type", "Exact") ? MATCH_EXACT : load_is(path, "type", "RegularExpression") ? MATCH_REGEX : MATCH_PREFIX;
    check_path(r, path, m);
    m->method = load_str(o, n, "method");
    load_kv_matches(r, o, n, "headers", true, &m->headers, &m->headers_n);
    load_kv_matches(r, o, n, "queryParams", false, &m->queries, &m->queries_n);
}

/* The characters that mean something in a regular expression, made to mean themselves. */
static void add_literal(struct buf *b, struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (strchr("\\.+*?()[]{}|^$", s.p[i]))
            buf_addc(b, '\\');
        buf_addc(b, s.p[i]);
    }
}

/* GRPCMethodMatch as a path: "/service/method" (gRPC over HTTP/2, Requests). */
static void load_grpc_match(struct reader *r, struct object *o, const struct ynode *n, struct route_match_spec *m)
{
    const struct ynode *method = y_get(n, "method");
    struct slice service = y_str(y_get(method, "service")), name = y_str(y_get(method, "method"));
    bool regex = load_is(method, "type", "RegularExpression");
    struct buf b = {0};
    m->has_path = true;
    if (method && method->type == Y_MAP && !service.n && !name.n)
        reader_error(r, method, ".method", "add one of them", "neither service nor method");
    m->path_kind = regex || (name.n && !service.n) ? MATCH_REGEX : name.n ? MATCH_EXACT : MATCH_PREFIX;
    buf_addc(&b, '/');
    if (m->path_kind == MATCH_REGEX) {
        buf_printf(&b, "(?:%.*s)/", service.n ? (int)service.n : 5, service.n ? service.p : "[^/]+");
        if (regex)
            buf_printf(&b, "(?:%.*s)", name.n ? (int)name.n : 5, name.n ? name.p : "[^/]+");
        else
            add_literal(&b, name);
    } else {
        buf_add_slice(&b, service);
        buf_adds(&b, name.n ? "/" : "");
        buf_add_slice(&b, name);
    }
    m->path = arena_strdup(&o->mem, b.p);
    buf_free(&b);
    if (m->path_kind == MATCH_REGEX)
        load_check_regex(r, method, ".method", m->path);
    load_kv_matches(r, o, n, "headers", true, &m->headers, &m->headers_n);
}

static void load_matches(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *list = y_get(n, "matches");
    rule->matches_n = load_list_n(n, "matches");
    rule->matches = load_array(o, rule->matches_n, sizeof *rule->matches);
    for (uint32_t i = 0; i < rule->matches_n; i++) {
        size_t mark = reader_push(r, ".matches[%u]", i);
        if (o->kind == OBJ_GRPCROUTE)
            load_grpc_match(r, o, list->items[i], &rule->matches[i]);
        else
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
void load_check_edit_name(struct reader *r, const struct ynode *n, const char *name)
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
            load_check_edit_name(r, list->items[i], kvs->items[i].key);
            reader_pop(r, mark);
        }
    }
    for (size_t i = 0; i < edit->remove_n; i++) {
        size_t mark = reader_push(r, ".remove[%zu]", i);
        load_check_edit_name(r, y_get(n, "remove")->items[i], edit->remove[i]);
        reader_pop(r, mark);
    }
}

void load_header_edit(struct reader *r, struct object *o, const struct ynode *n, struct header_edit *edit)
{
    load_header_kvs(o, n, "set", &edit->set);
    load_header_kvs(o, n, "add", &edit->add);
    edit->remove = load_strings(o, n, "remove", &edit->remove_n);
    check_edit(r, n, edit);
}

static enum path_rewrite load_path_edit(struct reader *r, struct object *o, const struct ynode *n, char **path)
{
    bool full = load_is(n, "type", "ReplaceFullPath"), prefix = load_is(n, "type", "ReplacePrefixMatch");
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

/* The path that REWRITE_PREFIX replaces must be known: exactly one match, with a PathPrefix (the API's own rule). A rule without matches has
 * one, of the prefix "/". */
static void check_prefix(struct reader *r, const struct ynode *n, const struct route_rule *rule)
{
    if (rule->matches_n > 1 || (rule->matches_n && rule->matches[0].path_kind != MATCH_PREFIX))
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
    rule->redirect_listener_port = true;
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

/* {numerator, denominator} or a whole percentage; all when neither is given. */
static uint32_t load_fraction(struct reader *r, const struct ynode *n)
{
    const struct ynode *fraction = y_get(n, "fraction");
    int64_t numerator = load_int(fraction, "numerator", 0, INT32_MAX), denominator = load_int(fraction, "denominator", 100, INT32_MAX);
    if (fraction && y_get(n, "percent"))
        reader_error(r, fraction, ".fraction", "keep one of them", "both percent and fraction");
    if (!fraction)
        return (uint32_t)load_int(n, "percent", 100, 100) * 10000;
    if (!denominator || numerator > denominator)
        reader_error(r, fraction, ".fraction", "give a numerator that is at most the denominator", "more than all");
    return denominator ? (uint32_t)MIN(numerator * 1000000 / denominator, 1000000) : 0;
}

static void load_ref(struct object *o, const struct ynode *ref, struct route_backend *be)
{
    be->service = load_str(o, ref, "name");
    be->ns = load_str(o, ref, "namespace");
    if (!be->ns)
        be->ns = o->ns;
    be->port = (uint16_t)load_int(ref, "port", 0, 65535);
    be->weight = (uint32_t)load_int(ref, "weight", 1, 1000000);
}

static void load_mirror(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    struct mirror_policy *m = &rule->mirrors[rule->mirrors_n++]; /* room for one of each filter: load_filters() */
    load_ref(o, y_get(n, "backendRef"), &m->backend);
    m->ppm = load_fraction(r, n);
}

static void load_extension(struct object *o, const struct ynode *n, struct route_rule *rule)
{
    char *name = load_str(o, n, "name");
    if (name)
        rule->filters[rule->filters_n++] = name;
}

enum filter_type { TYPE_REQ, TYPE_RESP, TYPE_REDIRECT, TYPE_REWRITE, TYPE_MIRROR, TYPE_CORS, TYPE_EXTENSION, TYPE_COUNT };
static const char *const filter_types[TYPE_COUNT] = {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite",
                                                     "RequestMirror",         "CORS",                   "ExtensionRef"};
static const char *const filter_keys[TYPE_COUNT] = {"requestHeaderModifier", "responseHeaderModifier", "requestRedirect", "urlRewrite",
                                                    "requestMirror",         "cors",                   "extensionRef"};

/* The kind of filter n is, with its body in *body; TYPE_COUNT when it is none of ours. */
static int filter_type(struct reader *r, const struct ynode *n, const struct ynode **body)
{
    int kind = TYPE_COUNT;
    for (int i = 0; i < TYPE_COUNT; i++)
        if (load_is(n, "type", filter_types[i]))
            kind = i;
    if (kind == TYPE_COUNT)
        return kind;
    *body = y_get(n, filter_keys[kind]);
    if (!*body)
        reader_error(r, n, "", "add it", "%s is missing, with type %s", filter_keys[kind], filter_types[kind]);
    for (int i = 0; i < TYPE_COUNT; i++)
        if (i != kind && y_get(n, filter_keys[i]))
            reader_error(r, y_get(n, filter_keys[i]), "", "put each in a filter of its own", "%s has no meaning with type %s", filter_keys[i],
                         filter_types[kind]);
    return *body && (*body)->type == Y_MAP ? kind : TYPE_COUNT;
}

static void load_filter(struct reader *r, struct object *o, const struct ynode *body, enum filter_type type, struct header_edit *req,
                        struct header_edit *resp, struct route_rule *rule)
{
    if (type == TYPE_REQ || type == TYPE_RESP)
        load_header_edit(r, o, body, type == TYPE_REQ ? req : resp);
    else if (!rule)
        return; /* reported by the walk: backendRefs have no such filters */
    else if (type == TYPE_REDIRECT)
        load_redirect(r, o, body, rule);
    else if (type == TYPE_REWRITE)
        load_rewrite(r, o, body, rule);
    else if (type == TYPE_MIRROR)
        load_mirror(r, o, body, rule);
    else if (type == TYPE_CORS)
        load_cors(r, o, body, &rule->cors);
    else
        load_extension(o, body, rule);
}

/* Filters of a rule (rule given) or of a backendRef, whose edits go to req and resp. */
static void load_filters(struct reader *r, struct object *o, const struct ynode *owner, struct header_edit *req, struct header_edit *resp,
                         struct route_rule *rule)
{
    const struct ynode *list = y_get(owner, "filters");
    uint32_t n_all = load_list_n(owner, "filters");
    bool had[TYPE_COUNT + 1] = {false};
    if (rule) {
        rule->mirrors = load_array(o, n_all, sizeof *rule->mirrors);
        rule->filters = load_array(o, n_all, sizeof *rule->filters);
    }
    for (uint32_t i = 0; i < n_all; i++) {
        const struct ynode *n = list->items[i], *body = NULL;
        size_t mark = reader_push(r, ".filters[%u]", i);
        int type = filter_type(r, n, &body);
        if (type < TYPE_COUNT && had[type] && type != TYPE_MIRROR && type != TYPE_EXTENSION)
            reader_error(r, n, "", "join them into one", "a second filter of type %s", filter_types[type]);
        had[type] = true;
        size_t inner = reader_push(r, ".%s", type < TYPE_COUNT ? filter_keys[type] : "");
        if (type < TYPE_COUNT)
            load_filter(r, o, body, (enum filter_type)type, req, resp, rule);
        reader_pop(r, inner);
        if (had[TYPE_REDIRECT] && had[TYPE_REWRITE] && (type == TYPE_REDIRECT || type == TYPE_REWRITE) && rule)
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
        load_ref(o, ref, be);
        size_t mark = reader_push(r, ".backendRefs[%u]", i);
        load_filters(r, o, ref, &be->req, &be->resp, NULL);
        reader_pop(r, mark);
    }
    if (rule->redirect && rule->backends_n)
        reader_error(r, list, ".backendRefs", "remove them, or the filter", "a rule with RequestRedirect has no backends");
    if (!rule->redirect && !rule->backends_n && !rule->filters_n && n->type == Y_MAP)
        reader_warn(r, n, ".backendRefs", "add a Service", "none: requests of this rule are answered with 500");
}

/* GEP-1731. Once a retry stanza is there, broken connections are retried too; codes default to what may pass. */
static void load_retry(struct object *o, const struct ynode *n, struct retry_policy *retry)
{
    static const uint16_t usual[] = {500, 502, 503, 504};
    const struct ynode *list = y_get(n, "codes");
    size_t n_codes = load_list_n(n, "codes");
    if (!n || n->type != Y_MAP)
        return;
    retry->given = true;
    retry->attempts = (uint32_t)load_int(n, "attempts", 2, 100);
    retry->on = RETRY_STATUSES | RETRY_CONNECT_FAILURE | RETRY_RESET | RETRY_REFUSED_STREAM;
    retry->statuses_n = n_codes ? n_codes : COUNT_OF(usual);
    retry->statuses = load_array(o, retry->statuses_n, sizeof *retry->statuses);
    for (size_t i = 0; i < retry->statuses_n; i++) {
        const struct ynode *code = n_codes ? list->items[i] : NULL;
        retry->statuses[i] = !code ? usual[i] : (uint16_t)(code->type == Y_INT && code->num >= 400 && code->num <= 599 ? code->num : 0);
    }
    retry->backoff_base_ms = y_get(n, "backoff") ? MAX(load_duration(n, "backoff"), 1u) : 25;
    retry->backoff_max_ms = retry->backoff_base_ms * 10;
}

/* GEP-1619. The cookie holds the replica's name and lives as long as the browser, or as absoluteTimeout says. */
void load_session(struct reader *r, struct object *o, const struct ynode *n, struct session_policy *session)
{
    const struct ynode *lifetime = y_path(n, "cookieConfig.lifetimeType");
    bool permanent = slice_is(y_str(lifetime), "Permanent");
    if (!n || n->type != Y_MAP)
        return;
    session->given = true;
    session->header = load_is(n, "type", "Header");
    session->name = load_str(o, n, "sessionName");
    if (!session->name)
        session->name = arena_strdup(&o->mem, session->header ? "x-weir-session" : "weir-session");
    session->path = arena_strdup(&o->mem, "/");
    session->ttl_s = permanent ? MAX((load_duration(n, "absoluteTimeout") + 999) / 1000, y_get(n, "absoluteTimeout") ? 1u : 0u) : 0;
    if (permanent && !y_get(n, "absoluteTimeout"))
        reader_error(r, lifetime, ".cookieConfig.lifetimeType", "add absoluteTimeout", "Permanent needs absoluteTimeout");
    if (permanent && session->header)
        reader_error(r, lifetime, ".cookieConfig.lifetimeType", "remove it, or use type Cookie", "has no meaning with type Header");
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
    rule->untimed = (y_get(timeouts, "request") && !rule->timeout_ms) || (y_get(timeouts, "backendRequest") && !rule->backend_timeout_ms);
    if (rule->timeout_ms && rule->backend_timeout_ms > rule->timeout_ms)
        reader_error(r, y_get(timeouts, "backendRequest"), ".timeouts.backendRequest", "give at most request", "longer than request");
    load_retry(o, y_get(n, "retry"), &rule->retry);
    size_t mark = reader_push(r, ".sessionPersistence");
    load_session(r, o, y_get(n, "sessionPersistence"), &rule->session);
    reader_pop(r, mark);
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
        p->service = load_is(n, "kind", "Service");
        if (p->service != (y_is_str(y_get(n, "group")) && !y_get(n, "group")->text.n)) {
            size_t mark = reader_push(r, "spec.parentRefs[%u]", i);
            reader_error(r, n, p->service ? ".group" : ".kind", p->service ? "add group: \"\"" : "add kind: Service, or remove group",
                         p->service ? "a Service is of the core group" : "a Gateway is not of the core group");
            reader_pop(r, mark);
        }
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

/* ---- TCPRoute, TLSRoute --------------------------------------------------------------------------------------------------------- */

static void load_stream_rule(struct reader *r, struct object *o, const struct ynode *n, struct tcp_rule *rule)
{
    const struct ynode *list = y_get(n, "backendRefs");
    rule->line = n->line;
    rule->name = load_str(o, n, "name");
    rule->sni = o->kind == OBJ_TLSROUTE ? o->route.hostnames : NULL;
    rule->sni_n = o->kind == OBJ_TLSROUTE ? o->route.hostnames_n : 0;
    rule->backends_n = load_list_n(n, "backendRefs");
    rule->backends = load_array(o, rule->backends_n, sizeof *rule->backends);
    for (size_t i = 0; i < rule->backends_n; i++)
        load_ref(o, list->items[i], &rule->backends[i]);
    if (!rule->backends_n && n->type == Y_MAP)
        reader_warn(r, n, ".backendRefs", "add a Service", "none: connections of this rule are closed");
}

void load_stream_route(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *rules = y_get(spec, "rules");
    struct http_route *route = &o->route;
    if (!spec || spec->type != Y_MAP)
        return;
    load_parents(r, o, spec);
    route->hostnames = load_strings(o, spec, "hostnames", &route->hostnames_n);
    size_t n = load_list_n(spec, "rules");
    struct tcp_rule *list = load_array(o, n, sizeof *list);
    if (o->kind == OBJ_TLSROUTE) {
        route->tls = list;
        route->tls_n = n;
    } else {
        route->tcp = list;
        route->tcp_n = n;
    }
    if (rules && rules->type == Y_LIST && n != 1)
        reader_error(r, rules, "spec.rules", "keep one", "%zu rules: nothing would tell them apart, so there must be exactly one", n);
    for (size_t i = 0; i < n; i++) {
        size_t mark = reader_push(r, "spec.rules[%zu]", i);
        load_stream_rule(r, o, rules->items[i], &list[i]);
        reader_pop(r, mark);
    }
}

/* ---- TrafficSplit ----------------------------------------------------------------------------------------------------------------- */

/* Weights of v1alpha1 are amounts ("500m"), where 1 is 1000m; later they are whole numbers. Only their ratio counts. */
static uint32_t split_weight(const struct ynode *n)
{
    uint64_t milli;
    const struct ynode *w = y_get(n, "weight");
    if (!w || (w->type != Y_STR && w->type != Y_INT) || value_quantity(w->text, 3, 1000000000, &milli) != OK)
        return 0;
    return (uint32_t)milli;
}

static uint32_t common_divisor(uint32_t a, uint32_t b) { return b ? common_divisor(b, a % b) : a; }

void load_traffic_split(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *list = y_get(spec, "backends");
    struct traffic_split *split = &o->split;
    uint32_t divisor = 0;
    uint64_t sum = 0;
    if (!spec || spec->type != Y_MAP)
        return;
    split->service = load_str(o, spec, "service");
    if (split->service) /* an FQDN is as good: the first part is the Service's name */
        split->service[strcspn(split->service, ".")] = '\0';
    split->backends_n = load_list_n(spec, "backends");
    split->backends = load_array(o, split->backends_n, sizeof *split->backends);
    for (size_t i = 0; i < split->backends_n; i++) {
        split->backends[i] = (struct route_backend){.service = load_str(o, list->items[i], "service"), .ns = o->ns, .weight = split_weight(list->items[i])};
        divisor = common_divisor(divisor, split->backends[i].weight);
        sum += split->backends[i].weight;
    }
    for (size_t i = 0; divisor && i < split->backends_n; i++)
        split->backends[i].weight = MIN(split->backends[i].weight / divisor, 1000000u);
    if (list && list->type == Y_LIST && !sum)
        reader_error(r, list, "spec.backends", "give one of them a weight", "the weights add up to 0");
}
