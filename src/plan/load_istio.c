/* load_istio.c - Istio's VirtualService and ServiceEntry (networking.istio.io v1alpha3, v1beta1, v1).
 *
 * The three versions are one schema; fields that were renamed on the way are read under both names. Rules of a VirtualService
 * hold in their order, the first that matches wins. Where Istio's result depends on how the request was matched, that is settled
 * here: rewrite.uri replaces what uri.prefix matched, or the whole path with uri.exact and uri.regex, so a rule that mixes
 * them becomes one rule for each match, in place.
 */
#include "plan_int.h"

#include <stdio.h>

/* ---- names ------------------------------------------------------------------------------------------------------------- */

/* "mesh", "ns/name", "name" (of the object's namespace), or the old "name.ns.svc.cluster.local" and "name.ns": as "ns/name" or "mesh". */
static char *gateway_name(struct object *o, struct slice s)
{
    struct slice rest, ns;
    if (slice_is(s, "mesh") || slice_find(s, '/') >= 0)
        return (char *)arena_slice(&o->mem, s).p;
    struct slice name = slice_cut(s, '.', &rest);
    ns = slice_cut(rest, '.', &rest);
    if (slice_is(rest, "svc.cluster.local") || (ns.n && !rest.n))
        return arena_printf(&o->mem, SLICE_FMT "/" SLICE_FMT, SLICE_ARG(ns), SLICE_ARG(name));
    return arena_printf(&o->mem, "%s/" SLICE_FMT, o->ns, SLICE_ARG(s));
}

static char **load_gateways(struct object *o, const struct ynode *map, size_t *n)
{
    const struct ynode *list = y_get(map, "gateways");
    *n = load_list_n(map, "gateways");
    char **names = load_array(o, *n, sizeof *names);
    for (size_t i = 0; i < *n; i++)
        names[i] = gateway_name(o, y_str(list->items[i]));
    return names;
}

/* ---- matches ------------------------------------------------------------------------------------------------------------ */

/* StringMatch: exactly one of exact, prefix and regex; none where presence is enough. Only headers and the like may be empty. */
static void load_string_match(struct reader *r, struct object *o, const struct ynode *n, const char *path, bool may_be_empty, struct string_match *m)
{
    static const char *const keys[] = {"exact", "prefix", "regex", NULL};
    static const enum match_kind kinds[] = {MATCH_EXACT, MATCH_STRING_PREFIX, MATCH_REGEX};
    m->kind = MATCH_PRESENT;
    if (!n || n->type != Y_MAP || (may_be_empty && !n->n))
        return;
    size_t mark = reader_push(r, "%s", path);
    const char *key = load_one_of(r, n, keys);
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (key == keys[i])
            m->kind = kinds[i];
    m->value = key ? load_str(o, n, key) : NULL;
    if (!m->value)
        m->kind = MATCH_PRESENT;
    if (m->kind == MATCH_REGEX)
        load_check_regex(r, y_get(n, key), ".regex", m->value);
    reader_pop(r, mark);
}

static struct string_match *load_string_match_new(struct reader *r, struct object *o, const struct ynode *map, const char *key)
{
    char path[32];
    if (!y_get(map, key))
        return NULL;
    struct string_match *m = load_array(o, 1, sizeof *m);
    snprintf(path, sizeof path, ".%s", key);
    load_string_match(r, o, y_get(map, key), path, false, m);
    return m;
}

/* headers, withoutHeaders, queryParams: maps of names to StringMatch, added to *out, which has room. */
static void load_match_map(struct reader *r, struct object *o, const struct ynode *map, const char *key, struct route_kv_match *out, size_t *out_n)
{
    const struct ynode *n = y_get(map, key);
    bool header = strcmp(key, "queryParams") != 0, invert = strcmp(key, "withoutHeaders") == 0;
    for (uint32_t i = 0; n && n->type == Y_MAP && i < n->n; i++) {
        struct route_kv_match *kv = &out[(*out_n)++];
        size_t mark = reader_push(r, ".%s[\"" SLICE_FMT "\"]", key, (int)MIN(n->pairs[i].key.n, 60), n->pairs[i].key.p);
        kv->name = (char *)arena_slice(&o->mem, n->pairs[i].key).p;
        load_string_match(r, o, n->pairs[i].value, "", true, &kv->m);
        kv->m.invert = invert;
        if (header && !h1_is_token(n->pairs[i].key))
            reader_error_at(r, n->pairs[i].line, n->pairs[i].column, n->pairs[i].key.n && n->pairs[i].key.p[0] == ':' ? "use uri, scheme, method and authority" : "give letters, digits and '-'",
                            "not a name of an HTTP field");
        reader_pop(r, mark);
    }
}

static size_t map_n(const struct ynode *map, const char *key)
{
    const struct ynode *n = y_get(map, key);
    return n && n->type == Y_MAP ? n->n : 0;
}

static void load_uri(struct reader *r, struct object *o, const struct ynode *n, struct route_match_spec *m)
{
    struct string_match uri = {0};
    if (!y_get(n, "uri"))
        return;
    load_string_match(r, o, y_get(n, "uri"), ".uri", false, &uri);
    m->has_path = uri.value != NULL;
    m->path_kind = uri.kind;
    m->path = uri.value;
    m->path_ignore_case = load_bool(n, "ignoreUriCase", false);
}

static void load_http_match(struct reader *r, struct object *o, const struct ynode *n, struct route_match_spec *m)
{
    m->name = load_str(o, n, "name");
    load_uri(r, o, n, m);
    m->scheme = load_string_match_new(r, o, n, "scheme");
    m->method_match = load_string_match_new(r, o, n, "method");
    m->authority = load_string_match_new(r, o, n, "authority");
    m->headers = load_array(o, map_n(n, "headers") + map_n(n, "withoutHeaders"), sizeof *m->headers);
    load_match_map(r, o, n, "headers", m->headers, &m->headers_n);
    load_match_map(r, o, n, "withoutHeaders", m->headers, &m->headers_n);
    m->queries = load_array(o, map_n(n, "queryParams"), sizeof *m->queries);
    load_match_map(r, o, n, "queryParams", m->queries, &m->queries_n);
    m->port = (uint16_t)load_int(n, "port", 0, 65535);
    load_kvs(o, y_get(n, "sourceLabels"), &m->source_labels);
    m->source_ns = load_str(o, n, "sourceNamespace");
    m->gateways = load_gateways(o, n, &m->gateways_n);
}

/* ---- destinations --------------------------------------------------------------------------------------------------------- */

static void load_destination(struct object *o, const struct ynode *n, struct route_backend *be)
{
    be->host = load_str(o, n, "host");
    be->ns = o->ns; /* short names are completed with it */
    be->subset = load_str(o, n, "subset");
    be->port = (uint16_t)load_int(y_get(n, "port"), "number", 0, 65535);
    be->weight = 1;
}

/* Envoy puts something else for %NAME% and %NAME(...)% in a field's value (custom request headers of its documentation); here they are sent as they are. */
static bool has_command(struct slice v)
{
    for (size_t i = 0; i + 1 < v.n; i++) {
        size_t k = i + 1;
        while (v.p[i] == '%' && k < v.n && ((v.p[k] >= 'A' && v.p[k] <= 'Z') || v.p[k] == '_'))
            k++;
        if (k > i + 1 && k < v.n && (v.p[k] == '%' || v.p[k] == '('))
            return true;
    }
    return false;
}

/* Headers.HeaderOperations. Host and the fields of framing are the proxy's. */
static void load_operations(struct reader *r, struct object *o, const struct ynode *headers, const char *key, struct header_edit *edit)
{
    static const char *const maps[] = {"set", "add"};
    const struct ynode *n = y_get(headers, key);
    load_kvs(o, y_get(n, "set"), &edit->set);
    load_kvs(o, y_get(n, "add"), &edit->add);
    edit->remove = load_strings(o, n, "remove", &edit->remove_n);
    size_t mark = reader_push(r, ".headers.%s", key);
    for (size_t k = 0; k < COUNT_OF(maps); k++) {
        const struct ynode *map = y_get(n, maps[k]);
        for (uint32_t i = 0; map && map->type == Y_MAP && i < map->n; i++) {
            size_t inner = reader_push(r, ".%s[\"" SLICE_FMT "\"]", maps[k], (int)MIN(map->pairs[i].key.n, 60), map->pairs[i].key.p);
            load_check_edit_name(r, map->pairs[i].value, (k ? edit->add : edit->set).items[i].key);
            if (has_command(y_str(map->pairs[i].value)))
                reader_warn(r, map->pairs[i].value, "", "write the value itself; X-Forwarded-For, Forwarded and X-Request-Id are there in any case", "sent as it is: Envoy's %% commands are not known here");
            reader_pop(r, inner);
        }
    }
    for (size_t i = 0; i < edit->remove_n; i++) {
        size_t inner = reader_push(r, ".remove[%zu]", i);
        load_check_edit_name(r, y_get(n, "remove")->items[i], edit->remove[i]);
        reader_pop(r, inner);
    }
    reader_pop(r, mark);
}

/* One destination gets everything; of several, those without weight get nothing, as in Istio. */
static void load_weights(struct reader *r, const struct ynode *list, struct route_backend *backends, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; n > 1 && i < n; i++)
        sum += backends[i].weight = (uint32_t)load_int(list->items[i], "weight", 0, 1000000);
    if (n > 1 && !sum)
        reader_error(r, list, ".route", "give one of them a weight", "the weights add up to 0");
}

static void load_http_destinations(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *list = y_get(n, "route");
    rule->backends_n = load_list_n(n, "route");
    rule->backends = load_array(o, MAX(rule->backends_n, 1u), sizeof *rule->backends); /* its place says which rules were one (check.c), also when it is empty */
    for (size_t i = 0; i < rule->backends_n; i++) {
        size_t mark = reader_push(r, ".route[%zu]", i);
        load_destination(o, y_get(list->items[i], "destination"), &rule->backends[i]);
        load_operations(r, o, y_get(list->items[i], "headers"), "request", &rule->backends[i].req);
        load_operations(r, o, y_get(list->items[i], "headers"), "response", &rule->backends[i].resp);
        reader_pop(r, mark);
    }
    load_weights(r, list, rule->backends, rule->backends_n);
}

/* ---- what a rule does -------------------------------------------------------------------------------------------------------- */

/* What becomes part of a request line, a Host or a Location: nothing that ends it there. not_in: characters that have no place in it either. */
static void check_target(struct reader *r, const struct ynode *map, const char *key, const char *path, const char *not_in, const char *remedy)
{
    const struct ynode *n = y_get(map, key);
    struct slice s = y_str(n);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || strchr(not_in, s.p[i])) {
            reader_error(r, n, path, remedy, "not valid here: \"%.*s\"", (int)MIN(s.n, 60), s.p);
            return;
        }
}

#define PREFIX_TOKEN "%PREFIX()%" /* Istio's own form for "the matched prefix is replaced" */

static void load_istio_redirect(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    struct slice uri = y_str(y_get(n, "uri")), port_text;
    char *authority = load_str(o, n, "authority");
    uint64_t port;
    rule->redirect = true;
    rule->redirect_scheme = load_str(o, n, "scheme");
    rule->redirect_status = (uint16_t)load_int(n, "redirectCode", 301, 399);
    rule->redirect_port = (uint16_t)load_int(n, "port", 0, 65535);
    rule->redirect_derive_port = load_is(n, "derivePort", "FROM_REQUEST_PORT");
    if (authority) { /* host, or host:port */
        struct slice host = slice_cut(slice_cstr(authority), ':', &port_text);
        if (slice_find(slice_cstr(authority), ':') >= 0 && slice_u64(port_text, 65535, &port) == OK && port)
            rule->redirect_port = (uint16_t)port;
        else if (slice_find(slice_cstr(authority), ':') >= 0)
            reader_error(r, y_get(n, "authority"), ".redirect.authority", "give HOST or HOST:PORT", "not an authority: %s", authority);
        rule->redirect_host = (char *)arena_slice(&o->mem, host).p;
    }
    check_target(r, n, "uri", ".redirect.uri", "", "encode spaces and control characters (%20)");
    check_target(r, n, "authority", ".redirect.authority", "/?#@\\", "give HOST or HOST:PORT");
    if (y_get(n, "port") && y_get(n, "derivePort"))
        reader_error(r, y_get(n, "derivePort"), ".redirect.derivePort", "keep one of them", "both port and derivePort");
    if (!uri.n)
        return;
    bool prefix = slice_starts(uri, SLICE(PREFIX_TOKEN));
    rule->redirect_path_kind = prefix ? REWRITE_PREFIX : REWRITE_FULL;
    rule->redirect_path = (char *)arena_slice(&o->mem, prefix ? slice_of(uri.p + strlen(PREFIX_TOKEN), uri.n - strlen(PREFIX_TOKEN)) : uri).p;
}

static void load_direct(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *text = y_path(n, "body.string"), *bytes = y_path(n, "body.bytes");
    struct buf decoded = {0};
    rule->direct = true;
    rule->direct_status = (uint16_t)load_int(n, "status", 200, 599);
    if (text && bytes)
        reader_error(r, bytes, ".directResponse.body.bytes", "keep one of them", "both string and bytes");
    if (y_is_str(bytes) && value_base64(bytes->text, &decoded) != OK)
        reader_error(r, bytes, ".directResponse.body.bytes", "encode it (RFC 4648 section 4), or use string", "not base64");
    struct slice body = arena_slice(&o->mem, y_is_str(text) ? text->text : buf_slice(&decoded));
    rule->direct_body = (char *)body.p;
    rule->direct_body_n = body.n;
    buf_free(&decoded);
}

static void load_istio_rewrite(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *regex = y_get(n, "uriRegexRewrite");
    rule->rewrite_host = load_str(o, n, "authority");
    if (y_get(n, "uri") && regex)
        reader_error(r, regex, ".rewrite.uriRegexRewrite", "keep one of them", "both uri and uriRegexRewrite");
    rule->rewrite_path = load_str(o, n, "uri");
    check_target(r, n, "uri", ".rewrite.uri", "#", "encode spaces and control characters (%20)");
    check_target(r, n, "authority", ".rewrite.authority", "/?#@\\", "give HOST or HOST:PORT");
    if (rule->rewrite_path)
        rule->rewrite_path_kind = REWRITE_PREFIX; /* split_rewrite() makes it FULL where nothing but the whole path matched */
    if (!regex || regex->type != Y_MAP)
        return;
    rule->rewrite_path_kind = REWRITE_REGEX;
    rule->rewrite_regex = load_str(o, regex, "match");
    rule->rewrite_path = load_str(o, regex, "rewrite");
    load_check_regex(r, y_get(regex, "match"), ".rewrite.uriRegexRewrite.match", rule->rewrite_regex);
}

/* Envoy's retry_on, as Istio passes it on: names and statuses, separated by commas. */
static const struct {
    const char *name;
    uint32_t on;
} retry_names[] = {{"5xx", RETRY_5XX},
                   {"gateway-error", RETRY_GATEWAY_ERROR},
                   {"connect-failure", RETRY_CONNECT_FAILURE},
                   {"reset", RETRY_RESET},
                   {"reset-before-request", RETRY_RESET_BEFORE_REQUEST},
                   {"refused-stream", RETRY_REFUSED_STREAM},
                   {"retriable-4xx", RETRY_4XX},
                   {"retriable-status-codes", RETRY_STATUSES},
                   {"cancelled", RETRY_GRPC_CANCELLED},
                   {"deadline-exceeded", RETRY_GRPC_DEADLINE},
                   {"internal", RETRY_GRPC_INTERNAL},
                   {"resource-exhausted", RETRY_GRPC_EXHAUSTED},
                   {"unavailable", RETRY_GRPC_UNAVAILABLE}};
static const char *const retry_unknown[] = {"retriable-headers", "envoy-ratelimited", "http3-post-connect-failure"};

static void load_retry_word(struct reader *r, const struct ynode *n, struct slice word, struct retry_policy *retry)
{
    uint64_t status;
    for (size_t i = 0; i < COUNT_OF(retry_names); i++)
        if (slice_is(word, retry_names[i].name)) {
            retry->on |= retry_names[i].on;
            return;
        }
    if (slice_u64(word, 599, &status) == OK && status >= 100) {
        retry->on |= RETRY_STATUSES;
        retry->statuses[retry->statuses_n++] = (uint16_t)status;
        return;
    }
    for (size_t i = 0; i < COUNT_OF(retry_unknown); i++)
        if (slice_is(word, retry_unknown[i])) {
            reader_warn(r, n, ".retries.retryOn", "remove it", "ignored: there is nothing here that %s could mean", retry_unknown[i]);
            return;
        }
    reader_error(r, n, ".retries.retryOn", "give conditions of Envoy's retry_on such as 5xx,reset,connect-failure, or statuses, separated by commas",
                 "not a condition: \"%.*s\"", (int)MIN(word.n, 60), word.p);
}

static void load_retries(struct reader *r, struct object *o, const struct ynode *n, struct retry_policy *retry)
{
    const struct ynode *on = y_get(n, "retryOn");
    if (!n || n->type != Y_MAP)
        return;
    retry->given = true;
    retry->attempts = (uint32_t)load_int(n, "attempts", 2, 100);
    retry->per_try_timeout_ms = load_go_duration(n, "perTryTimeout", 0);
    retry->backoff_base_ms = MAX(load_go_duration(n, "backoff", 25), 1u);
    retry->backoff_max_ms = retry->backoff_base_ms * 10;
    struct slice rest = y_str(on);
    retry->statuses = load_array(o, rest.n / 2 + 1, sizeof *retry->statuses);
    while (rest.n) {
        struct slice word = slice_trim(slice_cut(rest, ',', &rest));
        if (word.n)
            load_retry_word(r, on, word, retry);
    }
    if (!retry->on) { /* Istio's own: connect-failure,refused-stream,unavailable,cancelled,503 */
        retry->on = RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_GRPC_UNAVAILABLE | RETRY_GRPC_CANCELLED | RETRY_STATUSES;
        retry->statuses[retry->statuses_n++] = 503;
    }
}

/* percentage: {value}, or the old percent: N. */
static uint32_t load_share(struct reader *r, const struct ynode *n, const char *path, const char *what)
{
    const struct ynode *percentage = y_get(n, "percentage");
    if (!percentage && !y_get(n, "percent"))
        reader_warn(r, n, path, "add percentage: { value: 100 } for all", "no percentage is given: no request is %s", what);
    return percentage ? load_ppm(percentage, "value", 0) : load_ppm(n, "percent", 0);
}

static int16_t grpc_status(struct reader *r, const struct ynode *n)
{
    static const char *const names[] = {"OK",        "CANCELLED",     "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
                                        "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
                                        "UNIMPLEMENTED", "INTERNAL",  "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
    uint64_t number;
    if (!y_is_str(n))
        return -1;
    if (slice_u64(n->text, COUNT_OF(names) - 1, &number) == OK)
        return (int16_t)number;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (slice_is(n->text, names[i]))
            return (int16_t)i;
    reader_error(r, n, ".fault.abort.grpcStatus", "give a name such as UNAVAILABLE, or its number", "not a status of gRPC: \"%.*s\"", (int)MIN(n->text.n, 60), n->text.p);
    return -1;
}

static void load_fault(struct reader *r, const struct ynode *n, struct fault_policy *fault)
{
    const struct ynode *delay = y_get(n, "delay"), *abort = y_get(n, "abort");
    fault->abort_grpc = -1;
    if (delay && delay->type == Y_MAP) {
        fault->delay_ms = load_go_duration(delay, "fixedDelay", 0);
        fault->delay_ppm = load_share(r, delay, ".fault.delay.percentage", "delayed");
        if (!y_get(delay, "fixedDelay"))
            reader_error(r, delay, ".fault.delay.fixedDelay", "add it", "missing");
    }
    if (abort && abort->type == Y_MAP) {
        static const char *const keys[] = {"httpStatus", "grpcStatus", "http2Error", NULL};
        size_t mark = reader_push(r, ".fault.abort");
        (void)load_one_of(r, abort, keys);
        reader_pop(r, mark);
        fault->abort_status = (uint16_t)load_int(abort, "httpStatus", 0, 599);
        fault->abort_grpc = grpc_status(r, y_get(abort, "grpcStatus"));
        fault->abort_ppm = load_share(r, abort, ".fault.abort.percentage", "aborted");
    }
}

static void load_mirrors(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *one = y_get(n, "mirror"), *list = y_get(n, "mirrors");
    uint32_t all = 1000000;
    rule->mirrors = load_array(o, load_list_n(n, "mirrors") + (one != NULL), sizeof *rule->mirrors);
    if (one && list)
        reader_error(r, one, ".mirror", "move it into mirrors", "both mirror and mirrors");
    if (one) {
        struct mirror_policy *m = &rule->mirrors[rule->mirrors_n++];
        uint32_t old = load_ppm(n, "mirrorPercent", load_ppm(n, "mirror_percent", all));
        load_destination(o, one, &m->backend);
        m->ppm = y_get(n, "mirrorPercentage") ? load_ppm(y_get(n, "mirrorPercentage"), "value", 0) : old;
    }
    for (uint32_t i = 0; i < load_list_n(n, "mirrors"); i++) {
        struct mirror_policy *m = &rule->mirrors[rule->mirrors_n++];
        load_destination(o, y_get(list->items[i], "destination"), &m->backend);
        m->ppm = y_get(list->items[i], "percentage") ? load_ppm(y_get(list->items[i], "percentage"), "value", 0) : all;
    }
}

static void load_istio_cors(struct reader *r, struct object *o, const struct ynode *n, struct cors_policy *cors)
{
    const struct ynode *old = y_get(n, "allowOrigin"), *list = y_get(n, "allowOrigins"), *age = y_get(n, "maxAge");
    if (!n || n->type != Y_MAP)
        return;
    cors->given = true;
    cors->origins = load_array(o, load_list_n(n, "allowOrigin") + load_list_n(n, "allowOrigins"), sizeof *cors->origins);
    for (uint32_t i = 0; i < load_list_n(n, "allowOrigin"); i++) {
        struct slice s = y_str(old->items[i]);
        cors->origins[cors->origins_n++] =
            slice_is(s, "*") ? (struct string_match){.kind = MATCH_PRESENT} : (struct string_match){.kind = MATCH_EXACT, .value = (char *)arena_slice(&o->mem, s).p};
    }
    for (uint32_t i = 0; i < load_list_n(n, "allowOrigins"); i++) {
        size_t mark = reader_push(r, ".corsPolicy.allowOrigins[%u]", i);
        struct string_match *m = &cors->origins[cors->origins_n++];
        load_string_match(r, o, list->items[i], "", false, m);
        if (m->kind == MATCH_EXACT && strcmp(m->value, "*") == 0)
            *m = (struct string_match){.kind = MATCH_PRESENT};
        reader_pop(r, mark);
    }
    cors->methods = load_joined(o, n, "allowMethods");
    cors->headers = load_joined(o, n, "allowHeaders");
    cors->expose = load_joined(o, n, "exposeHeaders");
    cors->credentials = load_bool(n, "allowCredentials", false);
    cors->has_max_age = age != NULL;
    cors->max_age_s = load_go_duration(n, "maxAge", 0) / 1000;
    cors->forward_unmatched = !load_is(n, "unmatchedPreflights", "IGNORE"); /* Istio's default is to forward */
}

/* ---- http rules ------------------------------------------------------------------------------------------------------------------ */

static void load_delegate(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *delegate = y_get(n, "delegate");
    if (!delegate || delegate->type != Y_MAP)
        return;
    rule->delegate_name = load_str(o, delegate, "name");
    rule->delegate_ns = load_str(o, delegate, "namespace");
    if (!rule->delegate_ns)
        rule->delegate_ns = o->ns;
    if (rule->backends_n || rule->redirect || rule->direct)
        reader_error(r, delegate, ".delegate", "keep one of them", "a rule with a delegate has no route, redirect or directResponse");
}

/* weir.dev/filters: "name,name": HTTPFilters for all http rules, since Istio has no field for such. */
static void load_filter_names(struct reader *r, struct object *o, const struct ynode *doc, char ***names, size_t *n)
{
    const struct ynode *list = y_get(y_path(doc, "metadata.annotations"), "weir.dev/filters");
    struct slice rest = y_str(list);
    *n = 0;
    *names = load_array(o, rest.n / 2 + 1, sizeof **names);
    while (rest.n) {
        struct slice name = slice_trim(slice_cut(rest, ',', &rest));
        if (value_is_subdomain(name))
            (*names)[(*n)++] = (char *)arena_slice(&o->mem, name).p;
        else
            reader_error(r, list, "metadata.annotations[\"weir.dev/filters\"]", "give names of HTTPFilters of the same namespace, separated by commas",
                         "not a name: \"%.*s\"", (int)MIN(name.n, 60), name.p);
    }
}

static void load_http_actions(struct reader *r, struct object *o, const struct ynode *n, struct route_rule *rule)
{
    const struct ynode *redirect = y_get(n, "redirect"), *direct = y_get(n, "directResponse"), *rewrite = y_get(n, "rewrite");
    load_http_destinations(r, o, n, rule);
    if (redirect && redirect->type == Y_MAP)
        load_istio_redirect(r, o, redirect, rule);
    if (direct && direct->type == Y_MAP)
        load_direct(r, o, direct, rule);
    if (rewrite && rewrite->type == Y_MAP)
        load_istio_rewrite(r, o, rewrite, rule);
    load_delegate(r, o, n, rule);
    if ((rule->redirect || rule->direct) && rule->backends_n)
        reader_error(r, y_get(n, "route"), ".route", "keep one of them", "a rule with %s has no route", rule->redirect ? "redirect" : "directResponse");
    if (rule->redirect && rule->direct)
        reader_error(r, direct, ".directResponse", "keep one of them", "a rule with redirect has no directResponse");
    if (rule->redirect && rewrite)
        reader_error(r, rewrite, ".rewrite", "set uri and authority in redirect", "a rule with redirect has no rewrite");
    if (rule->direct && rewrite)
        reader_error(r, rewrite, ".rewrite", "remove it", "a rule with directResponse has no rewrite");
    if ((rule->redirect || rule->direct) && y_get(n, "fault")) /* as in Istio */
        reader_error(r, y_get(n, "fault"), ".fault", "keep one of them", "a rule with %s has no fault", rule->redirect ? "redirect" : "directResponse");
    rule->timeout_ms = load_go_duration(n, "timeout", 0);
    rule->untimed = y_get(n, "timeout") && !rule->timeout_ms;
    load_retries(r, o, y_get(n, "retries"), &rule->retry);
    load_fault(r, y_get(n, "fault"), &rule->fault);
    load_mirrors(r, o, n, rule);
    load_istio_cors(r, o, y_get(n, "corsPolicy"), &rule->cors);
    load_operations(r, o, y_get(n, "headers"), "request", &rule->req);
    load_operations(r, o, y_get(n, "headers"), "response", &rule->resp);
}

/* Whether rule's matches need rules of their own: its rewrite means another thing for each. */
static bool rewrite_mixed(const struct route_rule *rule)
{
    size_t whole = 0;
    for (size_t i = 0; i < rule->matches_n; i++)
        whole += rule->matches[i].has_path && rule->matches[i].path_kind != MATCH_STRING_PREFIX;
    return whole && whole < rule->matches_n;
}

/* Puts rule into the route, once or once for each match; rewrite.uri becomes what it means for these matches. */
static void add_rule(struct http_route *route, const struct route_rule *rule)
{
    bool split = rule->rewrite_path_kind == REWRITE_PREFIX && rewrite_mixed(rule);
    for (size_t i = 0; i < (split ? rule->matches_n : 1); i++) {
        struct route_rule *one = &route->rules[route->rules_n++];
        *one = *rule;
        if (split) {
            one->matches = &rule->matches[i];
            one->matches_n = 1;
        }
        const struct route_match_spec *m = one->matches;
        if (one->rewrite_path_kind == REWRITE_PREFIX && one->matches_n && m->has_path && m->path_kind != MATCH_STRING_PREFIX)
            one->rewrite_path_kind = REWRITE_FULL;
    }
}

static void load_http_rule(struct reader *r, struct object *o, const struct ynode *n, char **filters, size_t filters_n)
{
    const struct ynode *list = y_get(n, "match");
    struct route_rule rule = {.line = n->line, .name = load_str(o, n, "name"), .filters = filters, .filters_n = filters_n};
    rule.matches_n = load_list_n(n, "match");
    rule.matches = load_array(o, rule.matches_n, sizeof *rule.matches);
    for (size_t i = 0; i < rule.matches_n; i++) {
        size_t mark = reader_push(r, ".match[%zu]", i);
        load_http_match(r, o, list->items[i], &rule.matches[i]);
        reader_pop(r, mark);
    }
    load_http_actions(r, o, n, &rule);
    if (n->type == Y_MAP && !rule.backends_n && !rule.redirect && !rule.direct && !rule.delegate_name && !rule.filters_n)
        reader_error(r, n, ".route", "add route, redirect, directResponse or delegate", "missing: the rule does nothing");
    add_rule(&o->route, &rule);
}

static void load_http_rules(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *list = y_path(doc, "spec.http");
    char **filters;
    size_t filters_n, room = 0, n = list && list->type == Y_LIST ? list->n : 0;
    load_filter_names(r, o, doc, &filters, &filters_n);
    for (size_t i = 0; i < n; i++)
        room += MAX(load_list_n(list->items[i], "match"), 1u);
    o->route.rules = load_array(o, room, sizeof *o->route.rules);
    for (size_t i = 0; i < n; i++) {
        size_t mark = reader_push(r, "spec.http[%zu]", i);
        load_http_rule(r, o, list->items[i], filters, filters_n);
        reader_pop(r, mark);
    }
}

/* ---- tcp and tls rules -------------------------------------------------------------------------------------------------------------- */

static void load_stream_match(struct object *o, const struct ynode *n, struct tcp_rule *rule)
{
    rule->port = (uint16_t)load_int(n, "port", 0, 65535);
    load_kvs(o, y_get(n, "sourceLabels"), &rule->source_labels);
    rule->source_ns = load_str(o, n, "sourceNamespace");
    rule->gateways = load_gateways(o, n, &rule->gateways_n);
    rule->sni = load_strings(o, n, "sniHosts", &rule->sni_n);
}

/* One tcp_rule for each match, in order: any of them is enough, and the first rule that matches wins. */
static void load_stream_rule(struct reader *r, struct object *o, const struct ynode *n, struct tcp_rule *out, size_t *out_n)
{
    const struct ynode *list = y_get(n, "match"), *route = y_get(n, "route");
    struct tcp_rule rule = {.line = n->line, .name = load_str(o, n, "name")};
    rule.backends_n = load_list_n(n, "route");
    rule.backends = load_array(o, rule.backends_n, sizeof *rule.backends);
    for (size_t i = 0; i < rule.backends_n; i++)
        load_destination(o, y_get(route->items[i], "destination"), &rule.backends[i]);
    load_weights(r, route, rule.backends, rule.backends_n);
    if (n->type == Y_MAP && !rule.backends_n)
        reader_error(r, n, ".route", "add a destination", "missing: the rule does nothing");
    for (size_t i = 0; i < MAX(load_list_n(n, "match"), 1u); i++) {
        out[*out_n] = rule;
        load_stream_match(o, load_list_n(n, "match") ? list->items[i] : NULL, &out[(*out_n)++]);
    }
}

static struct tcp_rule *load_stream_rules(struct reader *r, struct object *o, const struct ynode *spec, const char *key, size_t *n)
{
    const struct ynode *list = y_get(spec, key);
    size_t room = 0;
    *n = 0;
    for (uint32_t i = 0; i < load_list_n(spec, key); i++)
        room += MAX(load_list_n(list->items[i], "match"), 1u);
    struct tcp_rule *rules = load_array(o, room, sizeof *rules);
    for (uint32_t i = 0; i < load_list_n(spec, key); i++) {
        size_t mark = reader_push(r, "spec.%s[%u]", key, i);
        load_stream_rule(r, o, list->items[i], rules, n);
        reader_pop(r, mark);
    }
    return rules;
}

void load_virtual_service(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    struct http_route *route = &o->route;
    route->ordered = true;
    if (!spec || spec->type != Y_MAP)
        return;
    route->hostnames = load_strings(o, spec, "hosts", &route->hostnames_n);
    route->gateways = load_gateways(o, spec, &route->gateways_n);
    route->export_to = load_strings(o, spec, "exportTo", &route->export_to_n);
    load_http_rules(r, o, doc);
    route->tcp = load_stream_rules(r, o, spec, "tcp", &route->tcp_n);
    route->tls = load_stream_rules(r, o, spec, "tls", &route->tls_n);
    if (!route->rules_n && !route->tcp_n && !route->tls_n)
        reader_error(r, spec, "spec.http", "add http, tcp or tls rules", "missing: nothing is routed");
    if (!route->hostnames_n && (route->tcp_n || route->tls_n || route->gateways_n))
        reader_error(r, spec, "spec.hosts", "add the hosts that callers name", "missing: only delegates, which have http rules and no gateways, go without");
}

/* ---- ServiceEntry ---------------------------------------------------------------------------------------------------------------------- */

static void load_entry_ports(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "ports");
    struct service_entry *e = &o->entry;
    e->ports_n = load_list_n(spec, "ports");
    e->ports = load_array(o, e->ports_n, sizeof *e->ports);
    for (size_t i = 0; i < e->ports_n; i++) {
        struct service_port *p = &e->ports[i];
        const struct ynode *n = list->items[i];
        struct slice protocol = y_str(y_get(n, "protocol"));
        p->name = load_str(o, n, "name");
        if (!p->name)
            p->name = arena_strdup(&o->mem, "");
        p->port = (uint16_t)load_int(n, "number", 0, 65535);
        p->target = (uint16_t)load_int(n, "targetPort", p->port, 65535);
        if (protocol.n) {
            p->app_protocol = (char *)arena_slice(&o->mem, protocol).p;
            for (char *c = p->app_protocol; *c; c++)
                *c = ascii_lower(*c);
        }
        for (size_t k = 0; k < i && p->port; k++)
            if (e->ports[k].port == p->port) {
                size_t mark = reader_push(r, "spec.ports[%zu].number", i);
                reader_error(r, n, "", "give each its own", "the port %u is given twice: first at line %u", p->port, list->items[k]->line);
                reader_pop(r, mark);
            }
    }
}

/* An address is an IP address, "unix:///path" with resolution STATIC, or a host name with DNS. */
static void check_entry_address(struct reader *r, const struct object *o, const struct ynode *n, const char *address)
{
    struct addr a;
    struct slice s = slice_cstr(address);
    bool is_unix = slice_starts(s, SLICE("unix:///")), is_ip = addr_parse(s, 0, &a) == OK && a.family != ADDR_UNIX;
    if (o->entry.resolution == ENTRY_NONE)
        return; /* an error of its own */
    if (!is_unix && !is_ip && !(o->entry.resolution == ENTRY_DNS && value_is_hostname(s, false)))
        reader_error(r, n, ".address", o->entry.resolution == ENTRY_DNS ? "give an IP address or a host name" : "give an IP address or unix:///PATH, or use resolution: DNS",
                     "not an address here: \"%.*s\"", (int)MIN(s.n, 60), s.p);
}

static const struct entry_endpoint_rest *load_entry_rest(struct object *o, const struct ynode *n)
{
    static const struct entry_endpoint_rest none;
    const struct ynode *ports = y_get(n, "ports"), *labels = y_get(n, "labels");
    if (!ports && !labels && !y_get(n, "locality"))
        return &none;
    struct entry_endpoint_rest *rest = load_array(o, 1, sizeof *rest);
    rest->ports.items = load_array(o, map_n(n, "ports"), sizeof *rest->ports.items);
    for (uint32_t k = 0; k < map_n(n, "ports"); k++) {
        struct slice number = arena_slice(&o->mem, ports->pairs[k].value->text);
        rest->ports.items[rest->ports.n++] = (struct kv){.key = (char *)arena_slice(&o->mem, ports->pairs[k].key).p, .value = (char *)number.p, .value_n = number.n};
    }
    load_kvs(o, labels, &rest->labels);
    rest->locality = load_str(o, n, "locality");
    return rest;
}

static void load_entry_endpoints(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "endpoints");
    struct service_entry *e = &o->entry;
    e->endpoints_n = load_list_n(spec, "endpoints");
    e->endpoints = load_array(o, e->endpoints_n, sizeof *e->endpoints);
    for (size_t i = 0; i < e->endpoints_n; i++) {
        const struct ynode *n = list->items[i];
        struct entry_endpoint *ep = &e->endpoints[i];
        size_t mark = reader_push(r, "spec.endpoints[%zu]", i);
        ep->address = load_str(o, n, "address");
        if (ep->address)
            check_entry_address(r, o, y_get(n, "address"), ep->address);
        ep->rest = load_entry_rest(o, n);
        ep->weight = (uint32_t)load_int(n, "weight", 1, 1000000);
        reader_pop(r, mark);
    }
}

/* Which of resolution, endpoints and workloadSelector go together (Istio's own validation). */
static void check_entry(struct reader *r, const struct object *o, const struct ynode *spec)
{
    const struct service_entry *e = &o->entry;
    if (!e->hosts_n && y_get(spec, "hosts"))
        reader_error(r, y_get(spec, "hosts"), "spec.hosts", "add the name that workloads call", "empty");
    if (e->endpoints_n && e->selector.n)
        reader_error(r, y_get(spec, "workloadSelector"), "spec.workloadSelector", "keep one of them", "both endpoints and workloadSelector");
    if (e->endpoints_n && e->resolution == ENTRY_NONE)
        reader_error(r, y_get(spec, "endpoints"), "spec.endpoints", "add resolution: STATIC or DNS", "has no meaning with resolution NONE");
    if (!e->endpoints_n && !e->selector.n && e->resolution == ENTRY_STATIC)
        reader_error(r, spec, "spec.endpoints", "list the addresses, or use resolution: DNS", "missing, with resolution STATIC");
    for (size_t i = 0; i < e->hosts_n; i++)
        if (e->hosts[i][0] == '*') {
            size_t mark = reader_push(r, "spec.hosts[%zu]", i);
            reader_warn(r, y_get(spec, "hosts")->items[i], "", "list the hosts that are called",
                        "%s cannot stand in the hosts file of workloads: only routes and DestinationRules find it", e->hosts[i]);
            reader_pop(r, mark);
        }
}

void load_service_entry(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    struct service_entry *e = &o->entry;
    if (!spec || spec->type != Y_MAP)
        return;
    e->hosts = load_strings(o, spec, "hosts", &e->hosts_n);
    e->resolution = load_is(spec, "resolution", "STATIC") ? ENTRY_STATIC : slice_starts(y_str(y_get(spec, "resolution")), SLICE("DNS")) ? ENTRY_DNS : ENTRY_NONE;
    e->inside = load_is(spec, "location", "MESH_INTERNAL");
    load_kvs(o, y_path(spec, "workloadSelector.labels"), &e->selector);
    load_entry_ports(r, o, spec);
    load_entry_endpoints(r, o, spec);
    e->sans = load_strings(o, spec, "subjectAltNames", &e->sans_n);
    e->export_to = load_strings(o, spec, "exportTo", &e->export_to_n);
    e->addresses_n = e->hosts_n;
    e->addresses = load_array(o, e->addresses_n, sizeof *e->addresses);
    check_entry(r, o, spec);
}
