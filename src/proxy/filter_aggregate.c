/* filter_aggregate.c - one answer out of several: the targets of the parts, and the merging of what came back.
 *
 * Targets. A placeholder's value comes from the client, so it is decoded and encoded anew with everything but unreserved characters
 * (RFC 3986 section 2.3) escaped: it can't end a path element or a parameter. A value that would make an element "." or ".." is refused, so
 * it can't climb either.
 *
 * Merging. A part's body is checked to be JSON (filter_json.c) and goes into the answer as it is, byte for byte; only a pointer, or merging of
 * members, looks inside, and still copies text. Bodies are at most part_bytes_max each, which the caller sees to.
 */
#include "filter_int.h"

/* ---- targets ------------------------------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte at *at, decoded; a percent sign that begins no escape stands for itself. */
static char decoded(struct slice s, size_t *at)
{
    char c = s.p[(*at)++];
    if (c != '%' || s.n - *at < 2 || hex_digit(s.p[*at]) < 0 || hex_digit(s.p[*at + 1]) < 0)
        return c;
    c = (char)(hex_digit(s.p[*at]) << 4 | hex_digit(s.p[*at + 1]));
    *at += 2;
    return c;
}

static bool unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

static void put_byte(struct buf *out, char c)
{
    static const char hex[] = "0123456789ABCDEF";
    if (unreserved(c)) {
        buf_addc(out, c);
        return;
    }
    const char escape[3] = {'%', hex[(uint8_t)c >> 4], hex[(uint8_t)c & 15]};
    buf_add(out, escape, sizeof escape);
}

enum form { PLAIN /* a field's value */, PATH /* percent-encoded */, WHOLE_PATH /* and slashes stay */, QUERY /* and '+' is a space */ };

/* False: a control character, which has no business in a target. */
static bool put_value(struct buf *out, struct slice s, enum form form)
{
    for (size_t at = 0; at < s.n;) {
        char raw = s.p[at], c = form == PLAIN ? s.p[at++] : decoded(s, &at);
        if ((uint8_t)c < 0x20 || c == 0x7f)
            return false;
        if (form == WHOLE_PATH && raw == '/')
            buf_addc(out, '/');
        else
            put_byte(out, form == QUERY && raw == '+' ? ' ' : c);
    }
    return true;
}

/* The nth element of a path, from 1. */
static struct slice path_element(struct slice path, uint64_t n)
{
    struct slice rest = path, element;
    do {
        if (rest.n == 0)
            return (struct slice){0};
        element = slice_cut(rest, '/', &rest); /* the first is what is before the first slash: empty */
    } while (n--);
    return element;
}

static bool key_is(struct slice key, struct slice name)
{
    size_t at = 0, i = 0;
    for (; at < key.n && i < name.n; i++) {
        char raw = key.p[at], c = decoded(key, &at);
        if ((raw == '+' ? ' ' : c) != name.p[i])
            return false;
    }
    return at == key.n && i == name.n;
}

/* The first parameter of that name; p NULL: none. */
static struct slice query_value(const struct h1_head *h, struct slice name)
{
    struct slice rest = h->has_query ? h->query : (struct slice){0}, value;
    while (rest.n) {
        struct slice key = slice_cut(slice_cut(rest, '&', &rest), '=', &value);
        if (key_is(key, name))
            return value.p ? value : SLICE("");
    }
    return (struct slice){0};
}

/* What the placeholder between the braces stands for; p NULL: nothing. */
static struct slice placeholder_value(const struct h1_head *h, struct slice name, enum form *form)
{
    struct slice key, kind = slice_cut(name, ':', &key);
    uint64_t n;
    *form = PLAIN;
    if (slice_is(kind, "query") && key.n) {
        *form = QUERY;
        return query_value(h, key);
    }
    if (slice_is(kind, "header") && key.n) {
        const struct h1_field *f = h1_find(h, key);
        return f ? f->value : (struct slice){0};
    }
    *form = slice_is(name, "path") ? WHOLE_PATH : PATH;
    if (*form == WHOLE_PATH)
        return h->path;
    return slice_u64(name, 1000, &n) == OK && n ? path_element(h->path, n) : (struct slice){0};
}

/* No element of the target's path is "." or "..". */
static bool climbs(struct slice target)
{
    struct slice rest, path = slice_cut(target, '?', &rest);
    while (path.n) {
        struct slice element = slice_cut(path, '/', &path);
        if (slice_is(element, ".") || slice_is(element, ".."))
            return true;
    }
    return false;
}

bool aggregate_path(const struct aggregate_part *part, const struct h1_head *h, struct buf *out, const char **missing)
{
    size_t begin = out->n;
    bool query = false; /* behind the '?', where a value may be empty */
    const char *culprit = NULL;
    for (const char *p = part->path; *p;) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        if (!end) {
            query = query || *p == '?';
            buf_addc(out, *p++);
            continue;
        }
        enum form form;
        struct slice value = placeholder_value(h, slice_of(p + 1, (size_t)(end - p - 1)), &form);
        culprit = p + 1;
        if (!value.p || (value.n == 0 && !query) || !put_value(out, value, form) || out->n - begin > AGGREGATE_PATH_MAX ||
            climbs(slice_of(out->p + begin, out->n - begin)))
            goto none;
        p = end + 1;
    }
    if (out->n - begin <= AGGREGATE_PATH_MAX && !climbs(slice_of(out->p + begin, out->n - begin)))
        return true;
none:
    out->n = begin;
    if (out->p)
        out->p[begin] = '\0';
    *missing = culprit ? culprit : "a path of that length";
    return false;
}

/* ---- merging ------------------------------------------------------------------------------------------------------------------------------ */

struct member { struct slice name /* quoted */, value; };
struct merge {
    struct member *items;
    size_t n, cap;
    struct table index;          /* name without quotes -> 1 + index in items */
    struct buf names;            /* scratch */
    struct buf missing;          /* the elements of the list */
    struct arena mem;            /* names in quotes of parts */
    bool failed, timeout;        /* a required part is missing; one of these for its timeout */
};

/* name: in quotes, and it lasts. */
static void member_put(struct merge *m, struct slice name, struct slice value)
{
    buf_clear(&m->names);
    jtext_string(name, &m->names);
    uintptr_t at = (uintptr_t)table_get(&m->index, buf_slice(&m->names));
    if (at) {
        m->items[at - 1].value = value;
        return;
    }
    ARRAY_GROW(MEM_FILTER, m->items, m->n, m->cap);
    m->items[m->n++] = (struct member){name, value};
    table_put(&m->index, buf_slice(&m->names), (void *)(uintptr_t)m->n);
}

static void named_put(struct merge *m, struct slice name, struct slice value)
{
    struct buf quoted = {0};
    buf_add_json(&quoted, name);
    member_put(m, arena_slice(&m->mem, buf_slice(&quoted)), value);
    buf_free(&quoted);
}

/* A part without a name is called by its service. */
static struct slice part_name(const struct aggregate_part *part)
{
    if (part->name && *part->name)
        return slice_cstr(part->name);
    return slice_cstr(part->backend.service ? part->backend.service : part->backend.host);
}

static void reason_put(const struct aggregate_part *part, const char *why, const char *pointer, struct buf *out)
{
    struct slice path = slice_cstr(part->path), rest, text = slice_cstr(why);
    struct buf reason = {0};
    if (path.n && why >= path.p && why < path.p + path.n) { /* of aggregate_path() */
        buf_adds(&reason, "no value for ");
        text = slice_cut(text, '}', &rest);
    }
    buf_add_slice(&reason, text);
    if (pointer)
        buf_adds(&reason, pointer);
    buf_add_json(out, buf_slice(&reason));
    buf_free(&reason);
}

static void part_missing(struct merge *m, const struct aggregate_part *part, const char *why, const char *pointer)
{
    if (part->required) {
        m->failed = true;
        m->timeout = m->timeout || strcmp(why, "timeout") == 0;
    }
    if (part->name && *part->name)
        named_put(m, part_name(part), SLICE("null"));
    buf_adds(&m->missing, m->missing.n > 1 ? ",{\"part\":" : "{\"part\":"); /* the bracket is there */
    buf_add_json(&m->missing, part_name(part));
    buf_adds(&m->missing, ",\"reason\":");
    reason_put(part, why, pointer, &m->missing);
    buf_addc(&m->missing, '}');
}

static void part_put(struct merge *m, const struct aggregate_part *part, const struct aggregate_result *r)
{
    struct slice value;
    if (!r->arrived) {
        part_missing(m, part, r->why ? r->why : "unknown", NULL);
        return;
    }
    enum err e = jtext_check(r->body, &value);
    if (e != OK) {
        part_missing(m, part, e == ERR_LIMIT ? "nested too deeply" : "not JSON", NULL);
        return;
    }
    if (part->pointer) {
        struct jtext_place at;
        e = jtext_find(value, slice_cstr(part->pointer), &at);
        if (e != OK || !at.value.p) {
            part_missing(m, part, e == ERR_SYNTAX ? "ambiguous: a name stands twice on the way to " : "nothing at ", part->pointer);
            return;
        }
        value = at.value;
    }
    if (part->name && *part->name) {
        named_put(m, slice_cstr(part->name), value);
    } else if (value.p[0] != '{') {
        part_missing(m, part, "not an object", NULL);
    } else {
        struct slice name;
        struct slice each;
        for (struct jtext_iter it = jtext_iter(value); jtext_next(&it, &name, &each);)
            member_put(m, name, each);
    }
}

static void write_merged(const struct merge *m, struct buf *out)
{
    buf_addc(out, '{');
    for (size_t i = 0; i < m->n; i++) {
        if (i)
            buf_addc(out, ',');
        buf_add_slice(out, m->items[i].name);
        buf_addc(out, ':');
        buf_add_slice(out, m->items[i].value);
    }
    buf_addc(out, '}');
}

static void write_failed(const struct merge *m, struct buf *out)
{
    buf_adds(out, "{\"error\":\"a part that this answer can't do without is missing\",\"missing\":");
    buf_add_slice(out, buf_slice(&m->missing));
    buf_addc(out, '}');
}

static void merge_fini(struct merge *m)
{
    mem_free(m->items);
    table_fini(&m->index);
    buf_free(&m->names);
    buf_free(&m->missing);
    arena_fini(&m->mem);
}

uint16_t aggregate_merge(const struct aggregate_filter *spec, const struct aggregate_result *results, struct buf *out)
{
    struct merge m = {0};
    arena_init(&m.mem, MEM_FILTER, 1024);
    buf_addc(&m.missing, '[');
    for (size_t i = 0; i < spec->parts_n; i++)
        part_put(&m, &spec->parts[i], &results[i]);
    bool partial = m.missing.n > 1;
    buf_addc(&m.missing, ']');
    if (m.failed) {
        filter_count(FILTER_AGGREGATE_FAILED, 1);
        write_failed(&m, out);
    } else {
        if (partial) {
            filter_count(FILTER_AGGREGATE_PARTIAL, 1);
            member_put(&m, SLICE("\"partial\""), SLICE("true"));
            member_put(&m, SLICE("\"missing\""), buf_slice(&m.missing));
        }
        write_merged(&m, out);
    }
    uint16_t status = !m.failed ? 200 : m.timeout ? 504 : 502;
    merge_fini(&m);
    return status;
}
