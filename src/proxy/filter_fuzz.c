/* filter_fuzz.c - any bytes for the filters. The first byte chooses what the rest is; the corpus uses these letters:
 *
 *     p  the path of a static file, on the simulated disk     e  Accept-Encoding, then a line break, then a body to compress
 *     r  a Range, then a line break, then a length            d  a date
 *     j  JSON, then 0xff, then operations (see operations())  a  a part's path, then a line break, then a request target
 *     m  JSON bodies of parts, each ended by 0xff             c  Origin and what a preflight asks for, on two lines
 *
 * What must hold: nothing outside the root is asked of the disk; ranges lie inside; JSON that went in comes out as JSON; members that no operation
 * names stay; a filled target has no dot elements and no bytes that end it; bodies come back as they were when they are decompressed.
 */
#include "filter_int.h"
#include "sim.h"

#include <jansson.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
struct plan_regex *regex_new(struct slice text, bool whole, struct buf *why); /* plan's */

static struct slice cut(struct slice *s, char c)
{
    struct slice first = slice_cut(*s, c, s);
    return first;
}

/* A request with this target and these fields; NULL: it is not one. */
static const struct h1_head *head_of(struct slice target, const char *name, struct slice value, const char *name2, struct slice value2)
{
    static struct h1_head h;
    static struct buf b;
    buf_clear(&b);
    buf_adds(&b, "GET ");
    buf_add_slice(&b, target);
    buf_adds(&b, " HTTP/1.1\r\nHost: h\r\n");
    const char *names[2] = {name, name2};
    struct slice values[2] = {value, value2};
    for (int i = 0; i < 2; i++) {
        if (!names[i])
            continue;
        buf_printf(&b, "%s: ", names[i]);
        buf_add_slice(&b, values[i]);
        buf_adds(&b, "\r\n");
    }
    buf_adds(&b, "\r\n");
    size_t used;
    enum h1_error error;
    return h1_parse_request(b.p, b.n, &h1_limits_default, &h, &used, &error) == H1_DONE && used == b.n ? &h : NULL;
}

/* ---- static files --------------------------------------------------------------------------------------------------------------- */

/* A request on the disk of fuzz_path(). */
static void fuzz_file(const struct h1_head *h, struct head_out *o)
{
    struct static_filter spec = {.root = "/www", .index = "index.html", .precompressed = true};
    struct static_answer a;
    head_clear(o);
    static_request(&spec, h, h->path, o, &a);
    MUST(!o->over && a.text_n < sizeof a.text && (a.fd < 0 || a.text_n == 0));
    MUST(a.fd < 0 || a.status == 200 || a.status == 206);
    if (a.fd >= 0) {
        MUST(a.length > 0 && a.offset + a.length <= 10);
        file_close(a.fd);
    }
    head_tail(o);
    head_lit(o, "\r\n");
    static struct h1_head again; /* the head is one */
    size_t used;
    enum h1_error error;
    MUST(h1_parse_response(o->p, o->n, &h1_limits_default, H1_HEAD, &again, &used, &error) == H1_DONE && used == o->n && again.status == a.status);
}

static void fuzz_path(struct slice in)
{
    static struct head_out o;
    if (!o.p)
        head_out_init(&o);
    char path[STATIC_PATH_MAX];
    size_t n;
    if (static_path(in, path, &n)) {
        MUST(n < STATIC_PATH_MAX && path[n] == '\0' && strlen(path) == n && path[0] != '/');
        struct slice rest = slice_of(path, n);
        for (bool first = true; rest.n; first = false) {
            struct slice element = cut(&rest, '/');
            MUST(element.n == 0 || element.p[0] != '.' || (first && slice_is(element, ".well-known")));
        }
    }
    sim_start(&(struct sim_conf){.seed = 1});
    MUST(file_replace("/www/a.txt", "0123456789", 10, 0644) == OK);
    MUST(file_replace("/www/a.txt.gz", "gz", 2, 0644) == OK);
    MUST(file_replace("/www/sub/index.html", "sub", 3, 0644) == OK);
    MUST(file_replace("/www/.git/config", "secret", 6, 0644) == OK);
    MUST(file_replace("/secret", "secret", 6, 0644) == OK);
    struct slice target = cut(&in, ' ');
    const struct h1_head *h = head_of(target, "Range", cut(&in, ' '), "If-None-Match", in);
    if (h)
        fuzz_file(h, &o);
    sim_stop();
}

static void fuzz_range(struct slice in)
{
    struct slice value = cut(&in, '\n');
    uint64_t length = 0, offset = 0, n = 0;
    if (slice_u64(in, UINT64_MAX, &length) != OK)
        length = in.n;
    if (range_parse(value, length, &offset, &n) == RANGE_ONE)
        MUST(n > 0 && offset < length && n <= length - offset);
}

static void fuzz_date(struct slice in)
{
    uint64_t seconds, again;
    char text[HTTP_DATE_BYTES + 1];
    if (!http_date_parse(in, 1700000000, &seconds))
        return;
    http_date(seconds, text);
    MUST(http_date_parse(slice_of(text, HTTP_DATE_BYTES), 1700000000, &again) && again == seconds);
}

/* ---- compression ------------------------------------------------------------------------------------------------------------------ */

static void check_gzip(struct slice packed, struct slice body)
{
    struct buf back = {0};
    buf_reserve(&back, body.n + 1);
    z_stream z = {.next_in = (Bytef *)(uintptr_t)packed.p, .avail_in = (uInt)packed.n, .next_out = (Bytef *)back.p, .avail_out = (uInt)body.n + 1};
    MUST(inflateInit2(&z, 15 + 16) == Z_OK);
    MUST(inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0 && z.total_out == body.n);
    MUST(body.n == 0 || memcmp(back.p, body.p, body.n) == 0);
    inflateEnd(&z);
    buf_free(&back);
}

static void fuzz_compress(struct slice in)
{
    static struct h1_head h;
    struct slice accept = cut(&in, '\n'), coding;
    const struct h1_head *q = head_of(SLICE("/"), "Accept-Encoding", accept, NULL, accept);
    uint16_t accepts = q ? compress_accepts(q) : 0;
    MUST(accepts < 512);
    const char text[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    size_t used;
    enum h1_error error;
    MUST(h1_parse_response(text, sizeof text - 1, &h1_limits_default, H1_GET, &h, &used, &error) == H1_DONE);
    const struct compress_filter spec = {.gzip = true, .br = true, .zstd = true, .level = (uint8_t)(in.n % 10)};
    struct body_filter *f = compress_begin(&spec, accepts, &h, &coding);
    MUST((f != NULL) == (accepts != 0));
    if (!f)
        return;
    struct buf out = {0};
    struct slice left = in;
    for (bool end = false; !end;) {
        size_t n = MIN(left.n, (size_t)(left.n ? 1 + (uint8_t)left.p[0] : 0));
        struct iovec v = {(void *)(uintptr_t)left.p, n};
        left = slice_of(left.p + n, left.n - n);
        end = left.n == 0;
        MUST(f->ops->feed(f, (struct pieces){&v, n ? 1 : 0, n}, end, &out) == OK);
    }
    f->ops->free(f);
    if (slice_is(coding, "gzip"))
        check_gzip(buf_slice(&out), in);
    MUST(out.n > 0);
    buf_free(&out);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------------------- */

/* Ours and jansson's opinion of a text. jansson knows no larger depth, refuses integers beyond 64 bits and reals beyond a double, and NUL in names; it passes over
 * a NUL behind a number. */
static bool json_same(struct slice text)
{
    struct slice value;
    enum err e = jtext_check(text, &value);
    json_error_t error;
    json_t *j = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    if (j && slice_find(text, '\0') < 0)
        MUST(e == OK || e == ERR_LIMIT);
    json_decref(j);
    return e == OK;
}

/* Operations, each: a letter (s r n x), the pointer up to a line break, the value up to a line break. */
static size_t operations(struct slice in, struct transform_op *ops, size_t max, char (*texts)[2][64])
{
    size_t n = 0;
    while (in.n && n < max) {
        char kind = in.p[0];
        in = slice_of(in.p + 1, in.n - 1);
        struct slice parts[2];
        parts[0] = cut(&in, '\n');
        parts[1] = cut(&in, '\n');
        for (int k = 0; k < 2; k++) {
            size_t len = MIN(parts[k].n, sizeof texts[n][k] - 1);
            if (len)
                memcpy(texts[n][k], parts[k].p, len);
            texts[n][k][len] = '\0';
        }
        struct slice value;
        ops[n] = (struct transform_op){.op = kind == 's' ? TRANSFORM_SET : kind == 'r' ? TRANSFORM_REMOVE : kind == 'n' ? TRANSFORM_RENAME : TRANSFORM_REPLACE,
                                       .pointer = texts[n][0], .value = texts[n][1]};
        if (ops[n].op == TRANSFORM_SET && jtext_check(slice_cstr(ops[n].value), &value) != OK) /* the plan's checker sees to it */
            ops[n].value = "0";
        n++;
    }
    return n;
}

static void fuzz_transform(struct slice in)
{
    static struct h1_head h;
    static struct plan_regex *regex;
    struct buf why = {0};
    if (!regex)
        regex = regex_new(SLICE("([a-z])b*"), false, &why);
    buf_free(&why);
    struct slice body = cut(&in, '\xff');
    struct transform_op ops[8];
    char texts[8][2][64];
    const struct plan_regex *regexes[8];
    for (size_t i = 0; i < COUNT_OF(regexes); i++)
        regexes[i] = regex;
    struct http_filter spec = {.kind = FILTER_TRANSFORM, .transform = {.ops = ops, .ops_n = operations(in, ops, COUNT_OF(ops), texts)}};
    const struct plan_filter pf = {.spec = &spec, .regexes = regexes};
    const char text[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    size_t used;
    enum h1_error error;
    MUST(h1_parse_response(text, sizeof text - 1, &h1_limits_default, H1_GET, &h, &used, &error) == H1_DONE);
    bool json = json_same(body), any_json = false, raw = false;
    for (size_t i = 0; i < spec.transform.ops_n; i++) {
        bool is_raw = ops[i].op == TRANSFORM_REPLACE && !*ops[i].pointer;
        raw = raw || is_raw;
        any_json = any_json || !is_raw;
    }
    struct body_filter *f = transform_begin(&pf, false, &h);
    MUST((f != NULL) == (spec.transform.ops_n > 0));
    if (!f)
        return;
    struct buf out = {0};
    struct slice value;
    struct iovec v = {(void *)(uintptr_t)body.p, body.n};
    enum err e = f->ops->feed(f, (struct pieces){&v, body.n ? 1 : 0, body.n}, true, &out);
    if (body.n == 0)
        MUST(e == OK && out.n == 0);
    else if (!raw && any_json)
        MUST(e == OK ? json && jtext_check(buf_slice(&out), &value) == OK : out.n == 0);
    f->ops->free(f);
    buf_free(&out);
}

/* ---- aggregation ---------------------------------------------------------------------------------------------------------------------- */

static void fuzz_target(struct slice in)
{
    struct slice line = cut(&in, '\n');
    char *path = mem_strndup(MEM_MISC, line.p, line.n);
    struct aggregate_part part = {.name = "p", .path = path};
    const struct h1_head *h = head_of(cut(&in, ' '), "X-A", in, NULL, in);
    struct buf out = {0};
    const char *missing = NULL;
    if (h && aggregate_path(&part, h, &out, &missing)) {
        MUST(out.n <= AGGREGATE_PATH_MAX);
        bool clean = true; /* the part's own text */
        for (const char *p = path; *p; p++)
            clean = clean && (uint8_t)*p > 0x20 && (uint8_t)*p < 0x7f && *p != '?' && *p != '#';
        struct slice rest = buf_slice(&out);
        for (size_t i = 0; clean && i < out.n; i++)
            MUST((uint8_t)out.p[i] > 0x20 && (uint8_t)out.p[i] < 0x7f && out.p[i] != '?' && out.p[i] != '#');
        while (clean && rest.n) {
            struct slice element = cut(&rest, '/');
            MUST(!slice_is(element, ".") && !slice_is(element, ".."));
        }
    } else if (h) {
        MUST(missing && out.n == 0);
    }
    buf_free(&out);
    mem_free(path);
}

static void fuzz_merge(struct slice in)
{
    struct aggregate_part parts[6] = {{.name = "a"}, {.name = ""}, {.name = "missing", .pointer = "/a"}, {.name = "", .required = true}, {.name = "\xff\""}, {.name = "f", .pointer = "/0/b~1c"}};
    struct aggregate_result results[6];
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        parts[i].path = "/x";
        struct slice body = cut(&in, '\xff');
        results[i] = (struct aggregate_result){.arrived = body.n > 0, .why = "timeout", .status = 200, .body = body};
    }
    struct aggregate_filter spec = {.parts = parts, .parts_n = COUNT_OF(parts)};
    struct buf out = {0};
    uint16_t status = aggregate_merge(&spec, results, &out);
    struct slice value;
    MUST(status == 200 || status == 502 || status == 504);
    enum err e = jtext_check(buf_slice(&out), &value);
    MUST(e == OK || e == ERR_LIMIT); /* one level deeper than its parts */
    buf_free(&out);
}

/* ---- CORS ------------------------------------------------------------------------------------------------------------------------------ */

static bool match_all(void *ctx, const struct string_match *m, struct slice value) { return value.n % 2; }

static void fuzz_cors(struct slice in)
{
    static struct head_out o;
    static struct h1_head h, again;
    static struct buf b;
    if (!o.p)
        head_out_init(&o);
    struct slice origin = cut(&in, '\n'), method = cut(&in, '\n');
    buf_clear(&b);
    buf_printf(&b, "OPTIONS / HTTP/1.1\r\nHost: h\r\nOrigin: " SLICE_FMT "\r\nAccess-Control-Request-Method: " SLICE_FMT "\r\nAccess-Control-Request-Headers: " SLICE_FMT "\r\n\r\n",
               SLICE_ARG(origin), SLICE_ARG(method), SLICE_ARG(in));
    size_t used;
    enum h1_error error;
    if (h1_parse_request(b.p, b.n, &h1_limits_default, &h, &used, &error) != H1_DONE)
        return;
    struct string_match m = {.kind = MATCH_REGEX};
    struct cors_policy c = {.given = true, .origins = &m, .origins_n = 1, .methods = "*", .headers = "*", .credentials = true};
    struct cors_state s;
    cors_request(&c, &h, match_all, NULL, &s);
    head_clear(&o);
    head_lit(&o, "HTTP/1.1 204 No Content\r\n");
    cors_put(&c, &s, &o);
    head_lit(&o, "\r\n");
    MUST(h1_parse_response(o.p, o.n, &h1_limits_default, H1_OPTIONS, &again, &used, &error) == H1_DONE && used == o.n);
    MUST(again.n == 1 + (s.allowed ? 2 + (s.want_method.n > 0) + (s.want_headers.n > 0) : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    struct slice in = slice_of((const char *)data + 1, n - 1);
    switch (data[0]) {
    case 'p': fuzz_path(in); break;
    case 'r': fuzz_range(in); break;
    case 'd': fuzz_date(in); break;
    case 'e': fuzz_compress(in); break;
    case 'j': fuzz_transform(in); break;
    case 'a': fuzz_target(in); break;
    case 'm': fuzz_merge(in); break;
    case 'c': fuzz_cors(in); break;
    default: break;
    }
    return 0;
}
