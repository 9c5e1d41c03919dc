/* filter_static.c - files below a folder, answered as RFC 9110 says: validators, preconditions, ranges, precompressed variants.
 *
 * The way of a request, in static_request():
 *
 *     method -> path -> find (file | index | fallback | redirect) -> variant -> preconditions (section 13.2.2) -> range (14.2) -> fields
 *
 * Safety. The path is decoded here, once; an element that begins with a dot, an encoded slash, a backslash, a control character make it "not
 * found", with one exception: ".well-known" as the first element (RFC 8615). The kernel opens the file beneath the root (openat2) and refuses
 * whatever leads out of it, symbolic links included; so no check here has to be right for that.
 *
 * A file's entity tag is made of its inode, size and time of change in nanoseconds: it differs between two files of the same name and between
 * two states of a file, unless the change keeps the size and falls into the same tick of the file system's clock.
 */
#include "filter_int.h"

#include <stdio.h>

/* ---- paths --------------------------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte at *at, decoded; -1: it may not be in a path of a file. */
static int path_byte(struct slice path, size_t *at)
{
    char c = path.p[(*at)++];
    if (c == '%') {
        if (path.n - *at < 2)
            return -1;
        int high = hex_digit(path.p[*at]), low = hex_digit(path.p[*at + 1]);
        if (high < 0 || low < 0)
            return -1;
        *at += 2;
        c = (char)(high << 4 | low);
        if (c == '/')
            return -1;
    }
    return (uint8_t)c < 0x20 || c == 0x7f || c == '\\' ? -1 : (uint8_t)c;
}

/* Elements that begin with a dot are hidden; so "." and ".." are. */
static bool hidden(const char *path, size_t n)
{
    struct slice known = SLICE(".well-known");
    for (size_t i = 0; i < n; i++) {
        if (path[i] != '.' || (i && path[i - 1] != '/'))
            continue;
        if (i || n < known.n || memcmp(path, known.p, known.n) != 0 || (n > known.n && path[known.n] != '/'))
            return true;
    }
    return false;
}

bool static_path(struct slice path, char out[STATIC_PATH_MAX], size_t *n)
{
    size_t at = 0, to = 0;
    while (at < path.n && path.p[at] == '/')
        at++;
    while (at < path.n) {
        int c = path_byte(path, &at);
        if (c < 0 || to == STATIC_PATH_MAX - 1)
            return false;
        out[to++] = (char)c;
    }
    out[to] = '\0';
    *n = to;
    return !hidden(out, to);
}

const char *static_type(struct slice name)
{
    static const struct { const char *extension, *type; } types[] = {
#define X(extension, type) {extension, type},
#include "filter_types.def"
#undef X
    };
    size_t at = name.n;
    while (at && name.p[at - 1] != '.' && name.p[at - 1] != '/')
        at--;
    struct slice extension = slice_of(name.p + at, name.n - at);
    if (at && name.p[at - 1] == '.')
        for (size_t i = 0; i < COUNT_OF(types); i++)
            if (slice_ieq(extension, slice_cstr(types[i].extension)))
                return types[i].type;
    return "application/octet-stream";
}

/* ---- finding the file ---------------------------------------------------------------------------------------------------------------- */

struct found {
    struct file_found file;
    char name[STATIC_PATH_MAX + 256]; /* below the root */
    size_t name_n;
    struct slice coding;              /* of the variant chosen; empty: the file itself */
};
enum find { FIND_FILE, FIND_NONE, FIND_REDIRECT, FIND_BROKEN };

static bool name_add(struct found *f, const char *more)
{
    size_t n = strlen(more);
    if (n >= sizeof f->name - f->name_n)
        return false;
    memcpy(f->name + f->name_n, more, n + 1);
    f->name_n += n;
    return true;
}

static enum err open_name(const struct static_filter *spec, struct found *f)
{
    return file_open_in(spec->root, f->name_n ? f->name : ".", &f->file);
}

/* OK with a folder is no file. What is neither, or may not be read, is as good as not there. */
static enum find open_file(const struct static_filter *spec, struct found *f, enum err *e)
{
    *e = open_name(spec, f);
    switch (*e) {
    case OK: return f->file.folder ? FIND_NONE : FIND_FILE;
    case ERR_NOTFOUND: case ERR_PERM: case ERR_INVALID: return FIND_NONE;
    default: return FIND_BROKEN;
    }
}

static enum find find_fallback(const struct static_filter *spec, struct found *f, enum err *e)
{
    f->name_n = 0;
    if (!spec->fallback || !name_add(f, spec->fallback + (spec->fallback[0] == '/')))
        return FIND_NONE;
    return open_file(spec, f, e);
}

/* path: the request's, for the slash at its end. f->name is what it means below the root. */
static enum find find_file(const struct static_filter *spec, struct slice path, struct found *f, enum err *e)
{
    bool slash = slice_ends(path, SLICE("/"));
    enum find r = FIND_NONE;
    if (!slash) {
        r = open_file(spec, f, e);
        if (*e == OK && f->file.folder)
            return FIND_REDIRECT;
    } else if (spec->index && name_add(f, spec->index)) {
        r = open_file(spec, f, e);
    }
    return r == FIND_NONE ? find_fallback(spec, f, e) : r;
}

static void variant_try(const struct static_filter *spec, struct found *f, const char *suffix, struct slice coding)
{
    struct found v;
    v.name_n = 0;
    if (!name_add(&v, f->name) || !name_add(&v, suffix) || open_name(spec, &v) != OK)
        return;
    if (v.file.folder)
        return;
    file_close(f->file.fd);
    f->file = v.file;
    f->coding = coding;
}

/* Replaces the file by its compressed neighbour that the client likes best, where there is one. */
static void variant_choose(const struct static_filter *spec, const struct h1_head *h, struct found *f)
{
    static const struct { const char *suffix; struct slice coding; } variants[] = {{".zst", {"zstd", 4}}, {".br", {"br", 2}}, {".gz", {"gzip", 4}}};
    uint16_t accepts = compress_accepts(h);
    for (int rank = 4; accepts && rank > 0 && f->coding.n == 0; rank--)
        for (size_t i = 0; i < COUNT_OF(variants) && f->coding.n == 0; i++)
            if (compress_rank(accepts, variants[i].coding) == rank)
                variant_try(spec, f, variants[i].suffix, variants[i].coding);
}

/* ---- validators and preconditions ------------------------------------------------------------------------------------------------------ */

struct validators {
    char etag[64];               /* with its quotes; strong */
    size_t etag_n;
    uint64_t modified;           /* seconds */
    uint64_t now;                /* seconds */
};

static struct validators validators_of(const struct file_found *f)
{
    struct validators v = {.modified = f->mtime_ns / 1000000000, .now = wall_ns() / 1000000000};
    int n = snprintf(v.etag, sizeof v.etag, "\"%llx-%llx-%llx\"", (unsigned long long)f->inode, (unsigned long long)f->bytes, (unsigned long long)f->mtime_ns);
    MUST(n > 0 && (size_t)n < sizeof v.etag);
    v.etag_n = (size_t)n;
    v.modified = MIN(v.modified, v.now); /* a time in the future is never said (RFC 9110 section 8.8.2.1) */
    return v;
}

/* If-Match and If-None-Match: "*", or a list of tags. weak: W/ is passed over (RFC 9110 section 8.8.3.2). */
static bool tags_match(const struct h1_head *h, struct slice field, const struct validators *v, bool weak)
{
    struct list_at at = {0};
    struct slice tag, own = slice_of(v->etag, v->etag_n);
    while (list_next(h, field, &at, &tag)) {
        if (slice_is(tag, "*"))
            return true;
        if (weak && slice_starts(tag, SLICE("W/")))
            tag = slice_of(tag.p + 2, tag.n - 2);
        if (slice_eq(tag, own))
            return true;
    }
    return false;
}

/* The field's date; false: absent, or not a date, which makes the condition void. */
static bool date_of(const struct h1_head *h, struct slice field, uint64_t now, uint64_t *seconds)
{
    const struct h1_field *f = h1_find(h, field);
    return f && http_date_parse(f->value, now, seconds);
}

/* RFC 9110 section 13.2.2, steps 1 to 4: 200 to go on, else 304 or 412. */
static uint16_t preconditions(const struct h1_head *h, const struct validators *v)
{
    uint64_t date;
    if (h1_find(h, SLICE("if-match"))) {
        if (!tags_match(h, SLICE("if-match"), v, false))
            return 412;
    } else if (date_of(h, SLICE("if-unmodified-since"), v->now, &date) && v->modified > date) {
        return 412;
    }
    if (h1_find(h, SLICE("if-none-match")))
        return tags_match(h, SLICE("if-none-match"), v, true) ? 304 : 200;
    return date_of(h, SLICE("if-modified-since"), v->now, &date) && v->modified <= date ? 304 : 200;
}

/* Step 5. A date is a strong validator only when the file has been as it is for longer than the second it names (section 8.8.2.2). */
static bool range_wanted(const struct h1_head *h, const struct validators *v)
{
    const struct h1_field *f = h1_find(h, SLICE("if-range"));
    if (!f)
        return true;
    if (f->value.n && (f->value.p[0] == '"' || slice_starts(f->value, SLICE("W/"))))
        return slice_eq(f->value, slice_of(v->etag, v->etag_n));
    uint64_t date;
    return http_date_parse(f->value, v->now, &date) && date == v->modified && v->now > v->modified + 1;
}

/* ---- ranges (RFC 9110 section 14) --------------------------------------------------------------------------------------------------------- */

/* A position; what is larger than 64 bits is behind every end. */
static bool position(struct slice s, uint64_t *v)
{
    enum err e = slice_u64(s, UINT64_MAX - 1, v);
    if (e == ERR_LIMIT)
        *v = UINT64_MAX - 1;
    return e == OK || e == ERR_LIMIT;
}

enum range_result range_parse(struct slice value, uint64_t length, uint64_t *offset, uint64_t *n)
{
    struct slice set, last, unit = slice_cut(value, '=', &set);
    if (!slice_ieq(unit, SLICE("bytes")) || set.n == 0 || slice_find(set, ',') >= 0) /* several: all of it (section 14.2) */
        return RANGE_NONE;
    set = slice_trim(set);
    if (slice_find(set, '-') < 0)
        return RANGE_NONE;
    struct slice first = slice_cut(set, '-', &last);
    uint64_t from = 0, to = UINT64_MAX - 1;
    if ((first.n && !position(first, &from)) || (last.n && !position(last, &to)) || (first.n == 0 && last.n == 0))
        return RANGE_NONE;
    if (first.n == 0) { /* the last to bytes */
        if (to == 0)
            return RANGE_UNSATISFIABLE;
        if (length == 0)
            return RANGE_NONE;
        *n = MIN(to, length);
        *offset = length - *n;
        return RANGE_ONE;
    }
    if (from > to)
        return RANGE_NONE;
    if (from >= length)
        return RANGE_UNSATISFIABLE;
    *offset = from;
    *n = MIN(to, length - 1) - from + 1;
    return RANGE_ONE;
}

/* 200, 206 or 416, with offset and length of a. */
static void range_apply(const struct h1_head *h, const struct validators *v, uint64_t bytes, struct static_answer *a)
{
    a->status = 200;
    a->offset = 0;
    a->length = bytes;
    const struct h1_field *f = h1_find(h, SLICE("range"));
    if (!f || h->method_id != H1_GET || !range_wanted(h, v))
        return;
    switch (range_parse(f->value, bytes, &a->offset, &a->length)) {
    case RANGE_NONE: return;
    case RANGE_ONE: a->status = 206; return;
    case RANGE_UNSATISFIABLE: a->status = 416; return;
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------------------------------------- */

static void say(struct static_answer *a, const char *text)
{
    int n = snprintf(a->text, sizeof a->text, "%s\n", text);
    a->text_n = n < 0 ? 0 : (uint32_t)MIN((size_t)n, sizeof a->text - 1);
    a->length = a->text_n;
}

/* An answer with a sentence as its body, which HEAD is not sent. */
static void answer_text(const struct h1_head *h, struct head_out *o, struct static_answer *a, uint16_t status, const char *text)
{
    a->status = status;
    a->fd = -1;
    a->offset = 0;
    say(a, text);
    head_status(o, status, SLICE(""));
    head_lit(o, "Content-Type: text/plain; charset=utf-8\r\n");
    if (h->method_id == H1_HEAD)
        a->text_n = 0;
}

/* To the same path with a slash. One leading slash: two would name another host. */
static void answer_redirect(const struct h1_head *h, struct head_out *o, struct static_answer *a)
{
    struct slice path = h->path;
    while (path.n > 1 && path.p[0] == '/' && path.p[1] == '/')
        path = slice_of(path.p + 1, path.n - 1);
    answer_text(h, o, a, 301, "It is a folder: its address ends with a slash.");
    head_lit(o, "Location: ");
    head_slice(o, path);
    head_lit(o, "/");
    if (h->has_query) {
        head_lit(o, "?");
        head_slice(o, h->query);
    }
    head_lit(o, "\r\n");
}

static void put_content_range(struct head_out *o, const struct static_answer *a, uint64_t bytes)
{
    head_lit(o, "Content-Range: bytes ");
    if (a->status == 206) {
        head_u64(o, a->offset);
        head_lit(o, "-");
        head_u64(o, a->offset + a->length - 1);
    } else {
        head_lit(o, "*");
    }
    head_lit(o, "/");
    head_u64(o, bytes);
    head_lit(o, "\r\n");
}

/* What a 304 has as well (RFC 9110 section 15.4.5). */
static void put_validators(const struct static_filter *spec, const struct validators *v, struct head_out *o)
{
    char date[HTTP_DATE_BYTES + 1];
    head_field(o, SLICE("ETag"), slice_of(v->etag, v->etag_n));
    http_date(v->modified, date);
    head_field(o, SLICE("Last-Modified"), slice_of(date, HTTP_DATE_BYTES));
    if (spec->cache_control)
        head_field(o, SLICE("Cache-Control"), slice_cstr(spec->cache_control));
    if (spec->precompressed)
        head_lit(o, "Vary: Accept-Encoding\r\n");
}

static void put_file(const struct static_filter *spec, const struct found *f, const struct validators *v, struct head_out *o, const struct static_answer *a)
{
    head_status(o, a->status, SLICE(""));
    head_field(o, SLICE("Content-Type"), slice_cstr(static_type(slice_of(f->name, f->name_n))));
    if (f->coding.n)
        head_field(o, SLICE("Content-Encoding"), f->coding);
    put_validators(spec, v, o);
    head_lit(o, "Accept-Ranges: bytes\r\n");
    if (a->status == 206)
        put_content_range(o, a, f->file.bytes);
}

static void answer_file(const struct static_filter *spec, const struct h1_head *h, struct found *f, struct head_out *o, struct static_answer *a)
{
    if (spec->precompressed)
        variant_choose(spec, h, f);
    struct validators v = validators_of(&f->file);
    a->status = preconditions(h, &v);
    if (a->status == 200)
        range_apply(h, &v, f->file.bytes, a);
    switch (a->status) {
    case 304:
        head_status(o, 304, SLICE(""));
        put_validators(spec, &v, o);
        break;
    case 412: answer_text(h, o, a, 412, "The file is not in the state that the request depends on."); break;
    case 416:
        answer_text(h, o, a, 416, "The range begins behind the end of the file.");
        put_content_range(o, a, f->file.bytes);
        break;
    default:
        put_file(spec, f, &v, o, a);
        if (h->method_id == H1_GET && a->length) {
            a->fd = f->file.fd;
            return;
        }
        break;
    }
    file_close(f->file.fd);
}

void static_request(const struct static_filter *spec, const struct h1_head *h, struct slice path, struct head_out *o, struct static_answer *a)
{
    struct found f; /* not cleared: it is large */
    f.coding = (struct slice){0};
    enum err e = OK;
    *a = (struct static_answer){.fd = -1};
    if (h->method_id != H1_GET && h->method_id != H1_HEAD) {
        answer_text(h, o, a, 405, "Files are read with GET or HEAD.");
        head_lit(o, "Allow: GET, HEAD\r\n");
        return;
    }
    if (!static_path(path, f.name, &f.name_n)) {
        filter_count(FILTER_STATIC_REFUSED, 1);
        answer_text(h, o, a, 404, "There is no such file.");
        return;
    }
    switch (find_file(spec, h->path, &f, &e)) {
    case FIND_FILE: answer_file(spec, h, &f, o, a); break;
    case FIND_REDIRECT: answer_redirect(h, o, a); break;
    case FIND_NONE: answer_text(h, o, a, 404, "There is no such file."); break;
    case FIND_BROKEN:
        answer_text(h, o, a, 500, e == ERR_UNSUPPORTED ? "Static files need Linux 5.6 or newer: the kernel has no openat2()." : err_text(e));
        break;
    }
}
