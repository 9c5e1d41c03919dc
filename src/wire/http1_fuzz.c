/* http1_fuzz.c - the HTTP/1 codec on any bytes. The first byte chooses what the rest is; the corpus uses these letters:
 *
 *     q  a request               s  a response to GET       c  a chunked body
 *     l  a request, low limits   h  a response to HEAD      t  a response to CONNECT
 *
 * What must hold: slices lie inside the input; names and values keep their grammar; a head that is written out again and
 * parsed again is the same; input that is cut in two gives the same answer; chunked data is the same in whatever pieces it comes.
 */
#include "http1_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct h1_limits low_limits = {.head_bytes_max = 120, .target_bytes_max = 24, .fields_max = 3};

struct verdict {
    enum h1_result result;
    enum h1_error error;
    size_t used;
};

struct target {
    const struct h1_limits *lim;
    enum h1_method request_method; /* of responses */
    bool is_request;
};

static struct verdict parse(const struct target *t, const char *p, size_t n, struct h1_head *h)
{
    struct verdict v = {.error = H1_OK};
    v.result = t->is_request ? h1_parse_request(p, n, t->lim, h, &v.used, &v.error)
                             : h1_parse_response(p, n, t->lim, t->request_method, h, &v.used, &v.error);
    return v;
}

/* ---- heads ------------------------------------------------------------------------------------------------------------- */

static bool inside(struct slice s, const char *p, size_t n)
{
    return s.n == 0 || (s.p >= p && s.n <= n && (size_t)(s.p - p) <= n - s.n);
}

static void check_fields(const struct h1_head *h, const char *p, size_t n)
{
    MUST(h->n <= H1_FIELDS_MAX);
    uint16_t first[H1_NAME_COUNT] = {0};
    for (uint16_t i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        MUST(inside(f->name, p, n) && inside(f->value, p, n));
        MUST(h1_is_token(f->name) && h1_is_value(f->value));
        MUST(f->id == h1_name_id(f->name));
        if (f->id != H1_OTHER && !first[f->id])
            first[f->id] = (uint16_t)(i + 1);
        MUST(h1_find(h, f->name) != NULL);
    }
    MUST(memcmp(first, h->known, sizeof first) == 0);
    const struct h1_field *length = h1_get(h, H1_CONTENT_LENGTH), *coding = h1_get(h, H1_TRANSFER_ENCODING);
    MUST(!length || !coding);
    uint64_t value = 0;
    MUST(!length || (slice_u64(length->value, INT64_MAX, &value) == OK));
    MUST(h->framing != H1_LENGTH || (length && h->length == value));
    MUST(h->framing == H1_LENGTH || h->length == 0);
    MUST(h->framing != H1_CHUNKED || (coding && slice_ieq(coding->value, SLICE("chunked")) && h->minor == 1));
}

static void check_request(const struct h1_head *h, const char *p, size_t n)
{
    MUST(inside(h->method, p, n) && inside(h->target, p, n) && inside(h->query, p, n) && inside(h->authority, p, n));
    MUST(inside(h->host, p, n) && h->host.n <= h->authority.n);
    MUST(inside(h->path, p, n) || slice_is(h->path, "/") || slice_is(h->path, "*")); /* of a target that left it out */
    MUST(h1_is_token(h->method) && h->target.n > 0);
    MUST((h->method_id == H1_CONNECT) == (h->path.n == 0));
    MUST(h->path.n == 0 || h->path.p[0] == '/' || slice_is(h->path, "*"));
    MUST(h->authority.n || h->minor == 0);
    MUST(h->framing != H1_UNTIL_CLOSE);
    const struct h1_field *length = h1_get(h, H1_CONTENT_LENGTH), *coding = h1_get(h, H1_TRANSFER_ENCODING);
    MUST((h->framing == H1_LENGTH) == (length != NULL) && (h->framing == H1_CHUNKED) == (coding != NULL));
}

/* The head written out anew must mean the same. */
static void check_again(const struct target *t, const struct h1_head *h)
{
    static struct h1_head again;
    struct buf b = {0};
    if (t->is_request)
        buf_printf(&b, SLICE_FMT " " SLICE_FMT " HTTP/1.%d\r\n", SLICE_ARG(h->method), SLICE_ARG(h->target), h->minor);
    else
        buf_printf(&b, "HTTP/1.%d %d " SLICE_FMT "\r\n", h->minor, h->status, SLICE_ARG(h->reason));
    for (uint16_t i = 0; i < h->n; i++) {
        buf_add_slice(&b, h->fields[i].name);
        buf_add(&b, ": ", 2);
        buf_add_slice(&b, h->fields[i].value);
        buf_add(&b, "\r\n", 2);
    }
    buf_add(&b, "\r\n", 2);
    struct target wide = *t;
    struct h1_limits lim = h1_limits_default;
    lim.head_bytes_max *= 2; /* a space more per field */
    wide.lim = &lim;
    struct verdict v = parse(&wide, b.p, b.n, &again);
    MUST(v.result == H1_DONE && v.used == b.n);
    MUST(again.n == h->n && again.framing == h->framing && again.length == h->length && again.keep_alive == h->keep_alive);
    MUST(slice_eq(again.target, h->target) && slice_eq(again.host, h->host) && again.port == h->port && slice_eq(again.path, h->path));
    for (uint16_t i = 0; i < h->n; i++)
        MUST(slice_eq(again.fields[i].name, h->fields[i].name) && slice_eq(again.fields[i].value, h->fields[i].value));
    buf_free(&b);
}

/* A cut of the input gives the same answer, or asks for more. */
static void check_cut(const struct target *t, const char *p, size_t cut, struct verdict whole)
{
    static struct h1_head part;
    char *block = mem_grow(MEM_MISC, NULL, cut); /* exact, so that AddressSanitizer sees a read past the cut */
    if (cut)
        memcpy(block, p, cut);
    struct verdict v = parse(t, block, cut, &part);
    mem_free(block);
    if (v.result == H1_MORE)
        MUST(whole.result != H1_DONE || cut < whole.used);
    else
        MUST(v.result == whole.result && v.error == whole.error && v.used == whole.used);
}

static void head_input(const struct target *t, const char *p, size_t n)
{
    static struct h1_head h;
    struct verdict v = parse(t, p, n, &h);
    if (v.result == H1_DONE) {
        MUST(v.used > 0 && v.used <= n && v.used <= t->lim->head_bytes_max);
        check_fields(&h, p, v.used);
        if (t->is_request)
            check_request(&h, p, v.used);
        else
            MUST(inside(h.reason, p, v.used) && h.status >= 100 && h.status <= 999);
        check_again(t, &h);
        size_t from = 0;
        MUST(h1_head_end(p, n, &from) == v.used);
        from = 0;
        MUST(h1_head_end(p, v.used - 1, &from) == 0 && h1_head_end(p, n, &from) == v.used); /* found after a pause, too */
    } else if (v.result == H1_BAD) {
        MUST(v.error != H1_OK && v.error < H1_ERROR_COUNT);
    }
    size_t stride = n / 64 + 1; /* every cut of short inputs, 64 of long ones */
    for (size_t cut = 0; cut < n; cut += stride)
        check_cut(t, p, cut, v);
}

/* ---- chunked ------------------------------------------------------------------------------------------------------------ */

/* Reads p in pieces of `piece` bytes. */
static struct verdict dechunk(struct h1_chunked *c, const char *p, size_t n, size_t piece, struct buf *body)
{
    struct verdict v = {.result = H1_MORE};
    h1_chunked_init(c);
    while (v.used < n && v.result == H1_MORE) {
        size_t end = MIN(n, (v.used / piece + 1) * piece), taken = 0;
        struct slice data = {0};
        v.result = h1_chunked_next(c, p + v.used, end - v.used, &taken, &data, &v.error);
        if (v.result == H1_BAD)
            break;
        MUST(inside(data, p + v.used, taken) && taken <= end - v.used && taken > 0);
        buf_add_slice(body, data);
        v.used += taken;
    }
    return v;
}

static void chunked_input(const char *p, size_t n)
{
    static struct h1_chunked c, again;
    static struct h1_field fields[H1_TRAILER_BYTES_MAX / 4];
    struct buf body = {0}, part = {0};
    struct verdict v = dechunk(&c, p, n, n + 1, &body);
    static const size_t pieces[] = {1, 2, 3, 7, 64};
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        buf_clear(&part);
        struct verdict w = dechunk(&again, p, n, pieces[i], &part);
        MUST(w.result == v.result && w.error == v.error && slice_eq(buf_slice(&body), buf_slice(&part)));
        MUST(v.result == H1_BAD || w.used == v.used);
        if (v.result == H1_DONE)
            MUST(c.trailer_n == again.trailer_n && memcmp(c.trailer, again.trailer, c.trailer_n) == 0);
    }
    MUST(body.n <= n && c.trailer_n <= H1_TRAILER_BYTES_MAX);
    if (v.result == H1_DONE) {
        int count = h1_chunked_trailers(&c, fields, (int)COUNT_OF(fields));
        MUST(count >= 0);
        for (int i = 0; i < count; i++)
            MUST(h1_is_token(fields[i].name) && h1_is_value(fields[i].value) && inside(fields[i].name, c.trailer, c.trailer_n));
    }
    buf_free(&part);
    buf_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char letters[] = "qlshtc";
    if (n == 0)
        return 0;
    const char *letter = data[0] ? strchr(letters, data[0]) : NULL;
    char kind = letter ? *letter : letters[data[0] % 6];
    const char *p = (const char *)data + 1;
    struct target t = {.lim = kind == 'l' ? &low_limits : &h1_limits_default, .is_request = kind == 'q' || kind == 'l'};
    t.request_method = kind == 'h' ? H1_HEAD : kind == 't' ? H1_CONNECT : H1_GET;
    if (kind == 'c')
        chunked_input(p, n - 1);
    else
        head_input(&t, p, n - 1);
    return 0;
}
