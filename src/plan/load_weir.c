/* load_weir.c - Weir's own HTTPFilter: what a route does beyond the open kinds. And CORS, which the Gateway API's filter shares.
 *
 * An HTTPFilter does one thing; a route has a list of them (ExtensionRef, or the annotation weir.dev/filters on a VirtualService),
 * applied in order. Paths of folders are taken from the manifest's folder, as workingDir is.
 */
#include "plan_int.h"

/* ---- CORS ----------------------------------------------------------------------------------------------------------------- */

/* An origin with "*" for the first part of its host: any name below; as a regular expression, with the rest literal. */
static char *wildcard_origin(struct object *o, struct slice s)
{
    struct buf b = {0};
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '*')
            buf_adds(&b, "[A-Za-z0-9.-]+");
        else if (s.p[i] == '.' || s.p[i] == '+')
            buf_printf(&b, "\\%c", s.p[i]);
        else
            buf_addc(&b, s.p[i]);
    }
    char *text = arena_strdup(&o->mem, b.p);
    buf_free(&b);
    return text;
}

void load_cors(struct reader *r, struct object *o, const struct ynode *n, struct cors_policy *cors)
{
    const struct ynode *list = y_get(n, "allowOrigins");
    if (!n || n->type != Y_MAP)
        return;
    cors->given = true;
    cors->origins_n = load_list_n(n, "allowOrigins");
    cors->origins = load_array(o, cors->origins_n, sizeof *cors->origins);
    for (size_t i = 0; i < cors->origins_n; i++) {
        struct slice s = y_str(list->items[i]);
        bool any = slice_is(s, "*"), wild = !any && slice_find(s, '*') >= 0;
        cors->origins[i] = (struct string_match){.kind = any ? MATCH_PRESENT : wild ? MATCH_REGEX : MATCH_EXACT,
                                                 .value = any ? NULL : wild ? wildcard_origin(o, s) : (char *)arena_slice(&o->mem, s).p};
        if (any && cors->origins_n > 1)
            reader_error(r, list, ".allowOrigins", "leave the others out", "\"*\" is every origin, and stands beside others");
    }
    cors->methods = load_joined(o, n, "allowMethods");
    cors->headers = load_joined(o, n, "allowHeaders");
    cors->expose = load_joined(o, n, "exposeHeaders");
    cors->credentials = load_bool(n, "allowCredentials", false);
    cors->has_max_age = true;
    cors->max_age_s = (uint32_t)load_int(n, "maxAge", 5, INT32_MAX); /* "default: 5" (HTTPCORSFilter.maxAge) */
    cors->forward_unmatched = load_is(n, "unmatchedPreflights", "Forward");
}

/* ---- the filters -------------------------------------------------------------------------------------------------------------- */

#define AGGREGATE_PARTS_MAX 32              /* services that one request is fanned out to */
#define AGGREGATE_PART_BYTES (1u << 20)     /* maxPartBytes' default */
#define TRANSFORM_BODY_BYTES (1u << 20)     /* maxBodyBytes' default */

static void load_compression(struct object *o, const struct ynode *n, struct compress_filter *f)
{
    static const char *const usual[] = {"text/html", "text/plain", "text/css", "text/javascript", "application/javascript", "application/json", "application/xml", "image/svg+xml"};
    const struct ynode *list = y_get(n, "algorithms");
    bool given = load_list_n(n, "algorithms") > 0;
    f->gzip = f->br = f->zstd = !given;
    for (uint32_t i = 0; i < load_list_n(n, "algorithms"); i++) {
        struct slice s = y_str(list->items[i]);
        f->gzip |= slice_is(s, "gzip");
        f->br |= slice_is(s, "br");
        f->zstd |= slice_is(s, "zstd");
    }
    f->min_bytes = (uint32_t)load_int(n, "minBytes", 1024, 1 << 30);
    f->level = (uint8_t)load_int(n, "level", 0, 9); /* absent: each coding has its own */
    f->types = load_strings(o, n, "contentTypes", &f->types_n);
    if (!f->types_n) {
        f->types = load_array(o, COUNT_OF(usual), sizeof *f->types);
        for (; f->types_n < COUNT_OF(usual); f->types_n++)
            f->types[f->types_n] = arena_strdup(&o->mem, usual[f->types_n]);
    }
}

static void load_static(struct reader *r, struct object *o, const struct ynode *n, struct static_filter *f)
{
    const char *root = load_str(o, n, "root"), *index = load_str(o, n, "index");
    while (root && root[0] == '.' && root[1] == '/')
        root += 2;
    if (root && root[0] == '/')
        f->root = arena_strdup(&o->mem, root);
    else if (root)
        f->root = strcmp(root, ".") == 0 || !root[0] ? o->dir : arena_printf(&o->mem, "%s/%s", strcmp(o->dir, "/") == 0 ? "" : o->dir, root);
    f->index = !index ? arena_strdup(&o->mem, "index.html") : index[0] ? arena_strdup(&o->mem, index) : NULL;
    f->fallback = load_str(o, n, "fallback");
    f->cache_control = load_str(o, n, "cacheControl");
    f->precompressed = load_bool(n, "precompressed", false);
    if (f->index && strchr(f->index, '/'))
        reader_error(r, y_get(n, "index"), ".index", "give the name of a file", "not a file's name: %s", f->index);
}

/* RFC 6901: "" is the whole, else "/" before each token. */
static void check_pointer(struct reader *r, const struct ynode *n, const char *path)
{
    struct slice s = y_str(n);
    bool bad = s.n && s.p[0] != '/';
    for (size_t i = 0; i < s.n; i++)
        bad |= s.p[i] == '~' && (i + 1 == s.n || (s.p[i + 1] != '0' && s.p[i + 1] != '1'));
    if (bad)
        reader_error(r, n, path, "begin with '/', and write ~ as ~0 and / as ~1", "not a JSON pointer (RFC 6901): \"%.*s\"", (int)MIN(s.n, 60), s.p);
}

/* {1} to {9}, {path}, {query:NAME}, {header:NAME}; nothing else in braces. */
static void check_template(struct reader *r, const struct ynode *n)
{
    struct slice rest = y_str(n);
    while (slice_find(rest, '{') >= 0) {
        (void)slice_cut(rest, '{', &rest);
        struct slice all = rest, name = slice_cut(rest, '}', &rest);
        bool closed = slice_find(all, '}') >= 0, digit = name.n == 1 && name.p[0] >= '1' && name.p[0] <= '9';
        if (closed && (digit || slice_is(name, "path") || (slice_starts(name, SLICE("query:")) && name.n > 6) || (slice_starts(name, SLICE("header:")) && name.n > 7)))
            continue;
        reader_error(r, n, ".path", "known here: {1} to {9} (elements of the request's path), {path}, {query:NAME}, {header:NAME}", "not known: {%.*s%s",
                     (int)MIN(name.n, 60), name.p, closed ? "}" : "");
        return;
    }
}

static void load_part(struct reader *r, struct object *o, const struct ynode *n, struct aggregate_part *p)
{
    const struct ynode *ref = y_get(n, "backendRef");
    p->name = load_str(o, n, "name");
    if (!p->name)
        p->name = arena_strdup(&o->mem, "");
    p->backend = (struct route_backend){.service = load_str(o, ref, "name"), .ns = load_str(o, ref, "namespace"), .port = (uint16_t)load_int(ref, "port", 0, 65535), .weight = 1};
    if (!p->backend.ns)
        p->backend.ns = o->ns;
    p->path = load_str(o, n, "path");
    if (!p->path)
        p->path = arena_strdup(&o->mem, "{path}");
    p->timeout_ms = load_duration(n, "timeout");
    p->required = load_bool(n, "required", false);
    p->pointer = load_str(o, n, "pointer");
    check_pointer(r, y_get(n, "pointer"), ".pointer");
    check_template(r, y_get(n, "path"));
}

static void load_aggregate(struct reader *r, struct object *o, const struct ynode *n, struct aggregate_filter *f)
{
    const struct ynode *list = y_get(n, "parts");
    f->parts_n = load_list_n(n, "parts");
    f->parts = load_array(o, f->parts_n, sizeof *f->parts);
    if (list && list->type == Y_LIST && (!f->parts_n || f->parts_n > AGGREGATE_PARTS_MAX))
        reader_error(r, list, ".parts", "give 1 to 32", "%zu parts", f->parts_n);
    for (size_t i = 0; i < f->parts_n; i++) {
        size_t mark = reader_push(r, ".parts[%zu]", i);
        load_part(r, o, list->items[i], &f->parts[i]);
        reader_pop(r, mark);
    }
    f->timeout_ms = y_get(n, "timeout") ? load_duration(n, "timeout") : 5000;
    f->part_bytes_max = (size_t)load_int(n, "maxPartBytes", AGGREGATE_PART_BYTES, 1 << 30);
}

static char *json_text(struct object *o, const struct ynode *n)
{
    struct buf b = {0};
    if (n)
        y_json(n, false, &b);
    char *text = arena_strdup(&o->mem, n ? b.p : "null");
    buf_free(&b);
    return text;
}

static void load_op(struct reader *r, struct object *o, const struct ynode *n, bool request, struct transform_op *op)
{
    static const char *const keys[] = {"set", "remove", "rename", "replace", NULL};
    const char *key = n->type == Y_MAP ? load_one_of(r, n, keys) : NULL;
    const struct ynode *body = key ? y_get(n, key) : NULL;
    op->request = request;
    if (!body || body->type != Y_MAP)
        return;
    size_t mark = reader_push(r, ".%s", key);
    op->op = key == keys[0] ? TRANSFORM_SET : key == keys[1] ? TRANSFORM_REMOVE : key == keys[2] ? TRANSFORM_RENAME : TRANSFORM_REPLACE;
    op->pointer = load_str(o, body, key == keys[2] ? "from" : "pointer");
    check_pointer(r, y_get(body, key == keys[2] ? "from" : "pointer"), key == keys[2] ? ".from" : ".pointer");
    if (key == keys[0]) {
        op->value = json_text(o, y_get(body, "value"));
    } else if (key == keys[2]) {
        op->value = load_str(o, body, "to");
        check_pointer(r, y_get(body, "to"), ".to");
    } else if (key == keys[3]) {
        op->regex = load_str(o, body, "regex");
        op->value = load_str(o, body, "with");
        if (!op->value)
            op->value = arena_strdup(&o->mem, "");
        load_check_regex(r, y_get(body, "regex"), ".regex", op->regex);
    }
    reader_pop(r, mark);
}

static void load_transform(struct reader *r, struct object *o, const struct ynode *n, struct transform_filter *f)
{
    static const char *const sides[] = {"request", "response"};
    f->ops = load_array(o, load_list_n(n, sides[0]) + load_list_n(n, sides[1]), sizeof *f->ops);
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < load_list_n(n, sides[side]); i++) {
            size_t mark = reader_push(r, ".%s[%u]", sides[side], i);
            load_op(r, o, y_get(n, sides[side])->items[i], side == 0, &f->ops[f->ops_n++]);
            reader_pop(r, mark);
        }
    f->body_bytes_max = (size_t)load_int(n, "maxBodyBytes", TRANSFORM_BODY_BYTES, 1 << 30);
    if (!f->ops_n && n->type == Y_MAP)
        reader_error(r, n, "", "add steps under request or response", "no steps: nothing is transformed");
}

static void load_weir_fault(struct reader *r, const struct ynode *n, struct fault_policy *f)
{
    const struct ynode *delay = y_get(n, "delay"), *abort = y_get(n, "abort");
    f->abort_grpc = (int16_t)load_int(abort, "grpcStatus", -1, 16);
    f->abort_status = (uint16_t)load_int(abort, "status", 0, 599);
    f->abort_ppm = abort ? load_ppm(abort, "percent", 1000000) : 0;
    f->delay_ms = load_duration(delay, "duration");
    f->delay_ppm = delay ? load_ppm(delay, "percent", 1000000) : 0;
    if (!delay && !abort && n->type == Y_MAP)
        reader_error(r, n, "", "add delay, abort or both", "neither delay nor abort");
    if (abort && abort->type == Y_MAP && !f->abort_status == (f->abort_grpc < 0))
        reader_error(r, abort, ".abort", "give exactly one of them", f->abort_status ? "both status and grpcStatus" : "neither status nor grpcStatus");
}

void load_http_filter(struct reader *r, struct object *o, const struct ynode *doc)
{
    static const char *const keys[] = {"compression", "staticFiles", "aggregate", "transform", "directResponse", "fault", "upgrades", "hedge", "cors", NULL};
    const struct ynode *spec = y_get(doc, "spec");
    struct http_filter *f = &o->filter;
    if (!spec || spec->type != Y_MAP)
        return;
    size_t outer = reader_push(r, "spec");
    const char *key = load_one_of(r, spec, keys);
    reader_pop(r, outer);
    const struct ynode *n = key ? y_get(spec, key) : NULL;
    if (!n || n->type != Y_MAP)
        return;
    while (keys[f->kind] != key)
        f->kind++;
    size_t mark = reader_push(r, "spec.%s", key);
    switch (f->kind) {
    case FILTER_COMPRESS: load_compression(o, n, &f->compress); break;
    case FILTER_STATIC: load_static(r, o, n, &f->files); break;
    case FILTER_AGGREGATE: load_aggregate(r, o, n, &f->aggregate); break;
    case FILTER_TRANSFORM: load_transform(r, o, n, &f->transform); break;
    case FILTER_DIRECT:
        f->direct.status = (uint16_t)load_int(n, "status", 200, 599);
        f->direct.body = load_str(o, n, "body");
        f->direct.body_n = f->direct.body ? strlen(f->direct.body) : 0;
        f->direct.type = load_str(o, n, "contentType");
        break;
    case FILTER_FAULT: load_weir_fault(r, n, &f->fault); break;
    case FILTER_UPGRADES:
        f->upgrades.refused = load_bool(n, "refused", false);
        f->upgrades.connect = load_bool(n, "connect", false);
        break;
    case FILTER_HEDGE: f->hedge = (struct hedge_policy){.delay_ms = load_duration(n, "delay"), .max = (uint32_t)load_int(n, "maxRequests", 1, 10)}; break;
    case FILTER_CORS: load_cors(r, o, n, &f->cors); break;
    }
    reader_pop(r, mark);
}
