/* filter_test.c - the filters alone: bodies in whole and byte by byte, heads from text, files in a folder of their own.
 *
 * Compressed bodies are undone by the coders' own libraries. Some tests print nanoseconds for each operation; nothing is asserted on them.
 */
#include "filter_int.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

/* plan's, not in its public header: the plan compiles expressions for filters, the test does here. */
struct plan_regex *regex_new(struct slice text, bool whole, struct buf *why);
void regex_unref(struct plan_regex *r);

#define ASSERT_TEXT(b, want) assert_text_(buf_slice(b), want, __LINE__)
static void assert_text_(struct slice got, const char *want, int line)
{
    if (!slice_is(got, want))
        fail_msg("line %d: \"" SLICE_FMT "\" is not \"%s\"", line, SLICE_ARG(got), want);
}

/* ---- heads ------------------------------------------------------------------------------------------------------------------- */

static struct h1_head *parse(bool request, const char *text)
{
    static struct h1_head heads[4];
    static unsigned next;
    struct h1_head *h = &heads[next++ % COUNT_OF(heads)];
    size_t used;
    enum h1_error error;
    size_t n = strlen(text);
    enum h1_result r = request ? h1_parse_request(text, n, &h1_limits_default, h, &used, &error)
                               : h1_parse_response(text, n, &h1_limits_default, H1_GET, h, &used, &error);
    if (r != H1_DONE || used != n)
        fail_msg("the test's own head does not parse: %s", text);
    return h;
}

/* A request whose text is kept until the next but some. */
static struct h1_head *request(const char *line, const char *fields)
{
    static struct buf texts[4];
    static unsigned next;
    struct buf *b = &texts[next++ % COUNT_OF(texts)];
    buf_clear(b);
    buf_printf(b, "%s HTTP/1.1\r\nHost: h\r\n%s\r\n", line, fields);
    return parse(true, b->p);
}

static struct h1_head *answer(const char *status, const char *fields)
{
    static struct buf texts[4];
    static unsigned next;
    struct buf *b = &texts[next++ % COUNT_OF(texts)];
    buf_clear(b);
    buf_printf(b, "HTTP/1.1 %s\r\n%s\r\n", status, fields);
    return parse(false, b->p);
}

/* ---- feeding ------------------------------------------------------------------------------------------------------------------- */

static enum err feed(struct body_filter *f, const char *p, size_t n, bool end, struct buf *out)
{
    struct iovec v = {(void *)(uintptr_t)p, n};
    return f->ops->feed(f, (struct pieces){&v, n ? 1 : 0, n}, end, out);
}

/* The whole body, step bytes at a time, and the end with the last of them or alone. */
static enum err feed_all(struct body_filter *f, struct slice body, size_t step, bool end_alone, struct buf *out)
{
    enum err e = OK;
    for (size_t at = 0; at < body.n && e == OK; at += step) {
        size_t n = MIN(step, body.n - at);
        e = feed(f, body.p + at, n, !end_alone && at + n == body.n, out);
    }
    if (e == OK && (end_alone || body.n == 0))
        e = feed(f, NULL, 0, true, out);
    return e;
}

static uint64_t since_ns;
static void print_ns(const char *what, uint64_t ops) { print_message("    %s: %llu ns/op\n", what, (unsigned long long)((mono_ns() - since_ns) / ops)); }

/* ---- compression ---------------------------------------------------------------------------------------------------------------- */

static const struct compress_filter all_codings = {.gzip = true, .br = true, .zstd = true};

static void gunzip(struct slice in, struct buf *out)
{
    z_stream z = {0};
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)in.p;
    z.avail_in = (uInt)in.n;
    int r;
    do {
        buf_reserve(out, 65536);
        z.next_out = (Bytef *)out->p + out->n;
        z.avail_out = 65536;
        r = inflate(&z, Z_NO_FLUSH);
        out->n += 65536 - z.avail_out;
    } while (r == Z_OK && (z.avail_in || z.avail_out == 0));
    assert_true(r == Z_STREAM_END || r == Z_OK || r == Z_BUF_ERROR);
    inflateEnd(&z);
}

static void unbrotli(struct slice in, struct buf *out)
{
    BrotliDecoderState *b = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    const uint8_t *next = (const uint8_t *)in.p;
    size_t left = in.n, room = 0;
    BrotliDecoderResult r;
    do {
        r = BrotliDecoderDecompressStream(b, &left, &next, &room, NULL, NULL);
        size_t n = 0;
        const uint8_t *p = BrotliDecoderTakeOutput(b, &n);
        buf_add(out, p, n);
    } while (r == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
    assert_int_not_equal(r, BROTLI_DECODER_RESULT_ERROR);
    BrotliDecoderDestroyInstance(b);
}

static void unzstd(struct slice in, struct buf *out)
{
    ZSTD_DCtx *z = ZSTD_createDCtx();
    ZSTD_inBuffer from = {in.p, in.n, 0};
    ZSTD_outBuffer to;
    do {
        buf_reserve(out, 65536);
        to = (ZSTD_outBuffer){out->p + out->n, 65536, 0};
        assert_false(ZSTD_isError(ZSTD_decompressStream(z, &to, &from)));
        out->n += to.pos;
    } while (from.pos < from.size || to.pos == to.size);
    ZSTD_freeDCtx(z);
}

static void undo(struct slice coding, struct slice in, struct buf *out)
{
    if (slice_is(coding, "gzip"))
        gunzip(in, out);
    else if (slice_is(coding, "br"))
        unbrotli(in, out);
    else
        unzstd(in, out);
}

/* Text that compresses as JSON of services does. */
static void make_json(struct buf *b, size_t bytes)
{
    uint32_t x = 12345;
    buf_addc(b, '[');
    while (b->n < bytes) {
        x = x * 1664525 + 1013904223;
        buf_printf(b, "%s{\"id\":%u,\"name\":\"article number %u\",\"price\":%u.%02u,\"stock\":%s}", b->n > 1 ? "," : "", x >> 12, x >> 20, x >> 24, x % 100,
                   x & 4096 ? "true" : "false");
    }
    buf_addc(b, ']');
}

static void make_noise(struct buf *b, size_t bytes)
{
    uint64_t x = 88172645463325252u;
    while (b->n < bytes) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        buf_add(b, &x, sizeof x);
    }
}

static struct body_filter *begin(const struct compress_filter *spec, const char *accept, const struct h1_head *h, struct slice *coding)
{
    struct buf field = {0};
    buf_printf(&field, "Accept-Encoding: %s\r\n", accept);
    uint16_t accepts = compress_accepts(request("GET /", field.p));
    buf_free(&field);
    return compress_begin(spec, accepts, h, coding);
}

static void check_trip(const char *coding, uint8_t level, struct slice body, size_t step, bool end_alone, const char *fields)
{
    struct compress_filter spec = all_codings;
    spec.level = level;
    struct slice chosen = {0};
    struct buf packed = {0}, back = {0};
    struct body_filter *f = begin(&spec, coding, answer("200 OK", fields), &chosen);
    assert_non_null(f);
    assert_text_(chosen, coding, __LINE__);
    assert_int_equal(feed_all(f, body, step, end_alone, &packed), OK);
    f->ops->free(f);
    undo(chosen, buf_slice(&packed), &back);
    assert_true(slice_eq(buf_slice(&back), body));
    buf_free(&packed);
    buf_free(&back);
}

static const char *const codings[] = {"gzip", "br", "zstd"};

static void test_compress_trips(void **state)
{
    struct buf json = {0}, noise = {0};
    make_json(&json, 300000);
    make_noise(&noise, 200000);
    const size_t sizes[] = {0, 1, 2, 100, 1000, 16384, 65536, 262144};
    const size_t steps[] = {1000, 16384, 65536};
    for (size_t c = 0; c < COUNT_OF(codings); c++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            struct slice body = slice_of(json.p, sizes[i]);
            for (size_t k = 0; k < COUNT_OF(steps); k++)
                check_trip(codings[c], 0, body, steps[k], k & 1, "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
            struct buf fields = {0};
            buf_printf(&fields, "Content-Type: text/plain\r\nContent-Length: %zu\r\n", body.n);
            if (body.n) /* none is begun for an empty one */
                check_trip(codings[c], 0, body, 65536, false, fields.p);
            buf_free(&fields);
        }
        check_trip(codings[c], 0, slice_of(json.p, 1500), 1, true, "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
        check_trip(codings[c], 0, slice_of(json.p, 1500), 1, false, "Content-Type: text/plain\r\nContent-Length: 1500\r\n");
        /* a length that an earlier filter has made untrue does no harm */
        check_trip(codings[c], 0, slice_of(json.p, 100000), 16384, false, "Content-Type: text/plain\r\nContent-Length: 1500\r\n");
        check_trip(codings[c], 0, buf_slice(&noise), 65536, false, "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
    }
    buf_free(&json);
    buf_free(&noise);
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
}

/* What was fed is with the client as soon as a short read has emptied the socket. */
static void test_compress_flushes(void **state)
{
    for (size_t c = 0; c < COUNT_OF(codings); c++) {
        struct slice coding;
        struct buf packed = {0};
        struct body_filter *f = begin(&all_codings, codings[c], answer("200 OK", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"), &coding);
        for (int i = 1; i <= 50; i++) {
            assert_int_equal(feed(f, "data: tick\n", 11, false, &packed), OK);
            struct buf back = {0};
            undo(coding, buf_slice(&packed), &back);
            assert_int_equal(back.n, 11 * i);
            buf_free(&back);
        }
        size_t before = packed.n;
        assert_int_equal(feed(f, NULL, 0, false, &packed), OK); /* nothing came: nothing is said */
        assert_int_equal(packed.n, before);
        f->ops->free(f); /* in the middle: the client left */
        buf_free(&packed);
    }
}

static void test_compress_ratio(void **state)
{
    struct buf json = {0}, line = {0};
    make_json(&json, 1 << 20);
    for (size_t c = 0; c < COUNT_OF(codings); c++) {
        double ratios[2];
        for (int flushing = 0; flushing < 2; flushing++) {
            struct slice coding;
            struct buf packed = {0}, fields = {0};
            buf_printf(&fields, "Content-Type: application/json\r\n%s", flushing ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 1048576\r\n");
            struct body_filter *f = begin(&all_codings, codings[c], answer("200 OK", fields.p), &coding);
            since_ns = mono_ns();
            assert_int_equal(feed_all(f, buf_slice(&json), flushing ? 8192 : 65536, false, &packed), OK);
            uint64_t ns = mono_ns() - since_ns;
            f->ops->free(f);
            ratios[flushing] = (double)json.n / (double)packed.n;
            print_message("    %-4s %s: %.2f times smaller, %.0f MB/s\n", codings[c], flushing ? "flushed every 8 KiB" : "64 KiB at a time   ", ratios[flushing],
                          (double)json.n * 1000 / (double)ns);
            buf_free(&packed);
            buf_free(&fields);
        }
        assert_true(ratios[0] > 3);
        assert_true(ratios[1] > ratios[0] * 0.8);
    }
    buf_free(&json);
    buf_free(&line);
}

static void test_compress_memory(void **state)
{
    struct buf json = {0};
    make_json(&json, 1 << 20);
    for (size_t c = 0; c < COUNT_OF(codings); c++)
        for (uint8_t level = 0; level <= 9; level++) {
            filters_fini();
            assert_int_equal(mem_bytes(MEM_FILTER), 0);
            struct compress_filter spec = all_codings;
            spec.level = level;
            struct slice coding;
            struct buf packed = {0};
            struct body_filter *f = begin(&spec, codings[c], answer("200 OK", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"), &coding);
            compress_most_bytes();
            assert_int_equal(feed_all(f, buf_slice(&json), 65536, false, &packed), OK);
            size_t most = compress_most_bytes(), bound = compress_context_bytes(coding, level);
            if (level == 0 || level == 9)
                print_message("    %s level %d: %zu KiB\n", codings[c], level, most / 1024);
            assert_in_range(most, bound / 4, bound);
            f->ops->free(f);
            buf_free(&packed);
        }
    buf_free(&json);
}

/* A filter without a level has each coding's own, and not the same for all. */
static void test_compress_levels(void **state)
{
    static const struct { const char *coding; uint8_t level; } own[] = {{"gzip", 5}, {"br", 5}, {"zstd", 3}};
    struct buf json = {0};
    make_json(&json, 20000);
    for (size_t i = 0; i < COUNT_OF(own); i++) {
        size_t bytes[10];
        for (uint8_t level = 0; level <= 9; level++) {
            struct compress_filter spec = all_codings;
            spec.level = level;
            struct slice coding;
            struct buf packed = {0};
            struct body_filter *f = begin(&spec, own[i].coding, answer("200 OK", "Content-Type: text/plain\r\nContent-Length: 20000\r\n"), &coding);
            assert_true(slice_is(coding, own[i].coding));
            assert_int_equal(feed_all(f, buf_slice(&json), 65536, false, &packed), OK);
            bytes[level] = packed.n;
            f->ops->free(f);
            buf_free(&packed);
        }
        assert_int_equal(bytes[0], bytes[own[i].level]);
        assert_true(bytes[0] != bytes[1] && bytes[0] != bytes[9]);
    }
    buf_free(&json);
}

/* When contexts fill their share, the small ones are taken; then none. */
static void test_compress_limit(void **state)
{
    static struct body_filter *held[1000];
    struct slice coding = {0};
    size_t n = 0, of_zstd = 0;
    const struct h1_head *h = answer("200 OK", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
    uint16_t accepts = compress_accepts(request("GET /", "Accept-Encoding: zstd, gzip;q=0.5\r\n"));
    uint64_t refused = filter_counter_read(FILTER_COMPRESS_OVER);
    while (n < COUNT_OF(held) && (held[n] = compress_begin(&all_codings, accepts, h, &coding))) {
        of_zstd += slice_is(coding, "zstd");
        n++;
    }
    assert_int_equal(of_zstd, COMPRESS_LIVE_BYTES / compress_context_bytes(SLICE("zstd"), 0));
    assert_in_range(n, of_zstd + 1, COUNT_OF(held) - 1);
    assert_int_equal(filter_counter_read(FILTER_COMPRESS_OVER), refused + 1);
    held[7]->ops->free(held[7]);
    held[7] = compress_begin(&all_codings, accepts, h, &coding);
    assert_text_(coding, "zstd", __LINE__);
    for (size_t i = 0; i < n; i++)
        held[i]->ops->free(held[i]);
    assert_in_range(mem_bytes(MEM_FILTER), 1, COMPRESS_KEPT_BYTES + 65536); /* the rest went back */
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
}

static struct body_filter *begun_elsewhere;
static void begin_elsewhere(void *arg)
{
    struct slice coding;
    for (int i = 0; i < 2; i++) { /* one is left, and freed by another thread; the other's memory goes with this one */
        struct body_filter *f = compress_begin(&all_codings, 1 << 6, arg, &coding);
        struct buf out = {0};
        assert_int_equal(feed(f, "hello", 5, false, &out), OK);
        buf_free(&out);
        if (i)
            begun_elsewhere = f;
        else
            f->ops->free(f);
    }
}

static void test_compress_threads(void **state)
{
    filters_fini();
    struct thread *t = thread_start("other", begin_elsewhere, answer("200 OK", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"));
    thread_join(t);
    begun_elsewhere->ops->free(begun_elsewhere);
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
    check_trip("gzip", 0, SLICE("still in order"), 3, false, "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
}

/* Whatever allocation fails: no body is begun, or it ends with an error; nothing leaks. */
static void test_compress_no_memory(void **state)
{
    struct buf json = {0};
    make_json(&json, 100000);
    for (size_t c = 0; c < COUNT_OF(codings); c++)
        for (uint64_t nth = 1; nth < 40; nth++) {
            filters_fini();
            if (strcmp(codings[c], "br") == 0 && nth > 1)
                break; /* the library ends the process when memory is refused later: FILTERS.md */
            struct slice coding;
            struct buf packed = {0}, back = {0};
            mem_fail_nth(nth);
            struct body_filter *f = begin(&all_codings, codings[c], answer("200 OK", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"), &coding);
            enum err e = f ? feed_all(f, buf_slice(&json), 16384, false, &packed) : ERR_NOMEM;
            mem_fail_nth(0);
            if (e == OK) {
                undo(coding, buf_slice(&packed), &back);
                assert_true(slice_eq(buf_slice(&back), buf_slice(&json)));
            }
            if (f)
                f->ops->free(f);
            buf_free(&packed);
            buf_free(&back);
        }
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
    buf_free(&json);
}

static const char *negotiate(const struct compress_filter *spec, const char *fields)
{
    struct slice coding;
    struct body_filter *f = compress_begin(spec, compress_accepts(request("GET /", fields)), answer("200 OK", "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"), &coding);
    if (!f)
        return "identity";
    f->ops->free(f);
    return coding.p;
}

static void test_negotiation(void **state)
{
    static const struct { const char *accept, *want; } cases[] = {
        {"gzip, deflate, br, zstd", "zstd"},        {"gzip, deflate, br", "br"},         {"gzip", "gzip"},
        {"deflate", "identity"},                    {"", "identity"},                    {"identity", "identity"},
        {"br;q=0.9, gzip;q=0.91", "gzip"},          {"br;q=0.5,gzip;q=0.5", "br"},       {"zstd;q=0, br;q=0, *", "gzip"},
        {"*", "zstd"},                              {"*;q=0", "identity"},               {"gzip;q=0", "identity"},
        {"gzip;q=0.000", "identity"},               {"gzip;q=0.001", "gzip"},            {"gzip;q=1.000", "gzip"},
        {"gzip;q=1.001", "identity"},               {"gzip;q=2", "identity"},            {"gzip;q=-1", "identity"},
        {"gzip;q=0.1234", "identity"},              {"gzip;q=", "identity"},             {"gzip;q=a", "identity"},
        {"gzip; Q=0.5, br;q=0.4", "gzip"},          {"gzip ; q=0.2 , br ; q=0.3", "br"}, {"identity;q=0.5, *;q=0", "identity"}, /* RFC 9110 12.5.3 */
        {"gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"}, {"identity;q=1, gzip;q=0.5", "identity"}, {"identity, gzip", "gzip"},
        {"GZIP", "gzip"},                           {"x-gzip", "gzip"},                  {"compress, gzip", "gzip"},
        {"gzip;x=y;q=0.3, br;q=0.2", "gzip"},       {"gzip;x=\"a,b\";q=0.3, br;q=0.2", "gzip"}, {",, ,gzip,,", "gzip"},
        {"gzip;q=.5", "identity"},                  {"*;q=0.3, gzip;q=0.5", "gzip"},     {"zstd;q=0.1, br;q=0.2, gzip;q=0.3", "gzip"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_printf(&b, "Accept-Encoding: %s\r\n", cases[i].accept);
        const char *got = negotiate(&all_codings, b.p);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("Accept-Encoding: %s gave %s, not %s", cases[i].accept, got, cases[i].want);
        buf_free(&b);
    }
    assert_string_equal(negotiate(&all_codings, ""), "identity");
    assert_string_equal(negotiate(&all_codings, "Accept-Encoding: gzip\r\nAccept-Encoding: br\r\n"), "br");
    struct compress_filter gzip_only = {.gzip = true};
    assert_string_equal(negotiate(&gzip_only, "Accept-Encoding: zstd, br, gzip;q=0.1\r\n"), "gzip");
    assert_string_equal(negotiate(&gzip_only, "Accept-Encoding: zstd, br\r\n"), "identity");
    const struct h1_head *h = request("GET /", "Accept-Encoding: gzip, deflate, br, zstd\r\nUser-Agent: x\r\nAccept: */*\r\n");
    volatile uint16_t seen = 0;
    since_ns = mono_ns();
    for (int i = 0; i < 100000; i++)
        seen = (uint16_t)(seen | compress_accepts(h));
    print_ns("Accept-Encoding of a browser", 100000);
    assert_int_equal(seen, 1 | 1 << 3 | 1 << 6);
}

static void test_compress_which(void **state)
{
    static const struct { const char *status, *fields; bool want; } cases[] = {
        {"200 OK", "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n", true},
        {"200 OK", "Content-Type: TEXT/HTML; charset=utf-8\r\nTransfer-Encoding: chunked\r\n", true},
        {"404 Not Found", "Content-Type: application/problem+json\r\nContent-Length: 5000\r\n", true},
        {"200 OK", "Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n", false},
        {"200 OK", "Transfer-Encoding: chunked\r\n", false},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 99\r\n", false},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 100\r\n", true},
        {"206 Partial Content", "Content-Type: text/html\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/5000\r\n", false},
        {"304 Not Modified", "Content-Type: text/html\r\n", false},
        {"204 No Content", "Content-Type: text/html\r\n", false},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n", false},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 1000\r\nContent-Encoding: identity\r\n", true},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 1000\r\nCache-Control: max-age=1, No-Transform\r\n", false},
        {"200 OK", "Content-Type: text/html\r\nContent-Length: 1000\r\nRepr-Digest: sha-256=:AA==:\r\n", false},
        {"200 OK", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", false},
        {"200 OK", "Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n", false},
        {"200 OK", "Content-Type: application/grpc-web+json\r\nTransfer-Encoding: chunked\r\n", false},
    };
    struct compress_filter spec = all_codings;
    spec.min_bytes = 100;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (compress_varies(&spec, answer(cases[i].status, cases[i].fields)) != cases[i].want)
            fail_msg("%s %s: not %d", cases[i].status, cases[i].fields, cases[i].want);
    char *types[] = {"text/*", "text/event-stream", "image/bmp"};
    spec.types = types;
    spec.types_n = COUNT_OF(types);
    assert_true(compress_varies(&spec, answer("200 OK", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")));
    assert_true(compress_varies(&spec, answer("200 OK", "Content-Type: text/troff\r\nTransfer-Encoding: chunked\r\n")));
    assert_false(compress_varies(&spec, answer("200 OK", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")));
    spec.types[0] = "*/*";
    spec.types[1] = "text/x";
    assert_true(compress_varies(&spec, answer("200 OK", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")));
    assert_false(compress_varies(&spec, answer("200 OK", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")));
    assert_false(compress_varies(&spec, answer("200 OK", "Content-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n")));
}

static void test_body_changed(void **state)
{
    struct head_out o;
    head_out_init(&o);
    body_changed_etag(SLICE("\"a\""), &o);
    body_changed_etag(SLICE("W/\"b\""), &o);
    assert_text_(slice_of(o.p, o.n), "W/\"a\"W/\"b\"", __LINE__);
    head_out_fini(&o);
    assert_true(body_changed_drops(SLICE("Content-Digest")));
    assert_true(body_changed_drops(SLICE("accept-ranges")));
    assert_false(body_changed_drops(SLICE("etag")));
}

/* ---- CORS ------------------------------------------------------------------------------------------------------------------------- */

static bool match_plain(void *ctx, const struct string_match *m, struct slice value)
{
    if (m->kind == MATCH_EXACT)
        return slice_is(value, m->value);
    if (m->kind == MATCH_STRING_PREFIX)
        return slice_starts(value, slice_cstr(m->value));
    return m->kind == MATCH_PRESENT;
}

/* What a request of these fields is answered with; *ours: it is a preflight that we answer. */
static const char *cors(const struct cors_policy *c, const char *line, const char *fields, bool *ours)
{
    static struct head_out o;
    struct cors_state s;
    if (!o.p)
        head_out_init(&o);
    head_clear(&o);
    *ours = cors_request(c, request(line, fields), match_plain, NULL, &s);
    cors_put(c, &s, &o);
    o.p[o.n] = '\0';
    return o.p;
}

#define PREFLIGHT(origin) "Origin: " origin "\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: X-A, x-b\r\n"

static void test_cors(void **state)
{
    bool ours;
    struct string_match shop[] = {{.kind = MATCH_EXACT, .value = "https://shop.example"}, {.kind = MATCH_STRING_PREFIX, .value = "http://localhost:"}};
    struct cors_policy c = {.given = true, .origins = shop, .origins_n = 2, .methods = "GET, PUT", .headers = "X-A", .expose = "X-Id", .max_age_s = 600, .has_max_age = true};
    assert_string_equal(cors(&c, "GET /", "", &ours), "Vary: Origin\r\n");
    assert_false(ours);
    assert_string_equal(cors(&c, "GET /", "Origin: https://shop.example\r\n", &ours),
                        "Vary: Origin\r\nAccess-Control-Allow-Origin: https://shop.example\r\nAccess-Control-Expose-Headers: X-Id\r\n");
    assert_false(ours);
    assert_string_equal(cors(&c, "GET /", "Origin: https://shop.example.evil\r\n", &ours), "Vary: Origin\r\n");
    assert_string_equal(cors(&c, "OPTIONS /", PREFLIGHT("http://localhost:3000"), &ours),
                        "Vary: Origin\r\nAccess-Control-Allow-Origin: http://localhost:3000\r\nAccess-Control-Allow-Methods: GET, PUT\r\n"
                        "Access-Control-Allow-Headers: X-A\r\nAccess-Control-Max-Age: 600\r\n");
    assert_true(ours);
    /* another origin: answered without a grant, or passed on */
    assert_string_equal(cors(&c, "OPTIONS /", PREFLIGHT("null"), &ours), "Vary: Origin\r\n");
    assert_true(ours);
    c.forward_unmatched = true;
    cors(&c, "OPTIONS /", PREFLIGHT("null"), &ours);
    assert_false(ours);
    /* OPTIONS that is no preflight goes on */
    cors(&c, "OPTIONS /", "Origin: https://shop.example\r\n", &ours);
    assert_false(ours);
}

static void test_cors_everybody(void **state)
{
    bool ours;
    struct string_match all[] = {{.kind = MATCH_PRESENT}};
    struct cors_policy c = {.given = true, .origins = all, .origins_n = 1, .methods = "*", .headers = "*", .expose = "*"};
    assert_string_equal(cors(&c, "GET /", "Origin: https://a\r\n", &ours), "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: *\r\n");
    assert_string_equal(cors(&c, "GET /", "", &ours), "");
    assert_string_equal(cors(&c, "OPTIONS /", PREFLIGHT("https://a"), &ours),
                        "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: *\r\nAccess-Control-Allow-Headers: *\r\n");
    c.credentials = true; /* stars would be names: what was asked for is granted by name */
    assert_string_equal(cors(&c, "OPTIONS /", PREFLIGHT("https://a"), &ours),
                        "Vary: Origin\r\nAccess-Control-Allow-Origin: https://a\r\nAccess-Control-Allow-Credentials: true\r\n"
                        "Access-Control-Allow-Methods: PUT\r\nAccess-Control-Allow-Headers: X-A, x-b\r\n");
    assert_string_equal(cors(&c, "OPTIONS /", "Origin: https://a\r\nAccess-Control-Request-Method: P T\r\nAccess-Control-Request-Headers: a b\r\n", &ours),
                        "Vary: Origin\r\nAccess-Control-Allow-Origin: https://a\r\nAccess-Control-Allow-Credentials: true\r\n");
    assert_string_equal(cors(&c, "GET /", "Origin: https://a\r\n", &ours),
                        "Vary: Origin\r\nAccess-Control-Allow-Origin: https://a\r\nAccess-Control-Allow-Credentials: true\r\n");
    struct buf longer = {0};
    buf_adds(&longer, "Origin: https://");
    for (int i = 0; i < 300; i++)
        buf_addc(&longer, 'a');
    buf_adds(&longer, "\r\n");
    assert_string_equal(cors(&c, "GET /", longer.p, &ours), "Vary: Origin\r\n");
    buf_free(&longer);
    struct cors_policy none = {0};
    struct cors_state s;
    assert_false(cors_request(&none, request("OPTIONS /", PREFLIGHT("https://a")), match_plain, NULL, &s));
    assert_true(cors_owns(SLICE("Access-Control-Allow-Origin")));
    assert_true(cors_owns(SLICE("access-control-expose-headers")));
    assert_true(cors_owns(SLICE("Access-Control-Max-Age")));
    assert_false(cors_owns(SLICE("Access-Control-Allow-Private-Network")));
    assert_false(cors_owns(SLICE("Access-Control-Request-Method")));
    assert_false(cors_owns(SLICE("Vary")));
}

/* ---- JSON --------------------------------------------------------------------------------------------------------------------------- */

static void test_json_check(void **state)
{
    static const char *const good[] = {
        "1", "-0", "0.5", "1e9", "-12.25E-3", "true", "false", "null", "\"\"", "\"a\\n\\u00e9\\\"\"", "[]", "{}", " [ ] ", "\t{ \"a\" : [ 1 , { } ] }\r\n", "[1,2,3]",
        "{\"a\":1,\"b\":[{\"c\":null}]}", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\xef\xbb\xbf{}", "123456789012345678901234567890", "\"\\ud83d\\ude00\"", "\"\\ud800\"",
    };
    static const char *const bad[] = {
        "", " ", "01", "-", "1.", ".5", "1e", "+1", "tru", "truee", "nul", "'a'", "\"", "\"a", "\"\\x\"", "\"\\u12g4\"", "\"\\u123", "\"\n\"", "\"\x7f\xc0\x80\"", "\"\xed\xa0\x80\"",
        "\"\xf5\x80\x80\x80\"", "\"\xc3\"", "[", "]", "[1", "[1,]", "[,1]", "[1 2]", "{", "}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "[1}", "{\"a\":1]", "1 2",
        "{}{}", "NaN", "Infinity", "// c\n1", "[1]x", "\xef\xbb{}", "\"\\",
    };
    struct slice value;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        if (jtext_check(slice_cstr(good[i]), &value) != OK)
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (jtext_check(slice_cstr(bad[i]), &value) != ERR_SYNTAX)
            fail_msg("not refused: %s", bad[i]);
    /* a prefix is good only where it is a whole number */
    const char *text = good[13];
    for (size_t n = 0; n < strlen(text) - 2; n++)
        assert_int_equal(jtext_check(slice_of(text, n), &value), ERR_SYNTAX);
    assert_int_equal(jtext_check(slice_of("\"a\0b\"", 5), &value), ERR_SYNTAX);
    assert_int_equal(jtext_check(SLICE("\xef\xbb\xbf  [1] \n"), &value), OK);
    assert_text_(value, "[1]", __LINE__);
}

static void test_json_depth(void **state)
{
    struct buf b = {0};
    struct slice value;
    uint64_t deep = filter_counter_read(FILTER_JSON_DEEP);
    for (int more = 0; more < 2; more++) {
        buf_clear(&b);
        for (int i = 0; i < JSON_DEPTH_MAX + more; i++)
            buf_adds(&b, i % 2 ? "{\"a\":" : "[");
        buf_adds(&b, "1");
        for (int i = JSON_DEPTH_MAX + more - 1; i >= 0; i--)
            buf_adds(&b, i % 2 ? "}" : "]");
        assert_int_equal(jtext_check(buf_slice(&b), &value), more ? ERR_LIMIT : OK);
    }
    assert_int_equal(filter_counter_read(FILTER_JSON_DEEP), deep + 1);
    buf_clear(&b);
    for (int i = 0; i < 1000000; i++)
        buf_addc(&b, '[');
    assert_int_equal(jtext_check(buf_slice(&b), &value), ERR_LIMIT);
    buf_clear(&b);
    make_json(&b, 1 << 20);
    since_ns = mono_ns();
    assert_int_equal(jtext_check(buf_slice(&b), &value), OK);
    print_message("    checked at %llu MB/s\n", (unsigned long long)(b.n * 1000 / (mono_ns() - since_ns)));
    buf_free(&b);
}

/* RFC 6901 section 5. */
static void test_json_pointers(void **state)
{
    static const char doc[] = "{\"foo\": [\"bar\", \"baz\"], \"\": 0, \"a/b\": 1, \"c%d\": 2, \"e^f\": 3, \"g|h\": 4, \"i\\\\j\": 5, \"k\\\"l\": 6, \" \": 7, \"m~n\": 8}";
    static const struct { const char *pointer, *want; } cases[] = {
        {"", doc}, {"/foo", "[\"bar\", \"baz\"]"}, {"/foo/0", "\"bar\""}, {"/foo/1", "\"baz\""}, {"/", "0"}, {"/a~1b", "1"}, {"/c%d", "2"}, {"/e^f", "3"}, {"/g|h", "4"},
        {"/i\\j", "5"}, {"/k\"l", "6"}, {"/ ", "7"}, {"/m~0n", "8"}, {"/foo/2", NULL}, {"/foo/-", NULL}, {"/foo/00", NULL}, {"/foo/01", NULL}, {"/foo/x", NULL}, {"/x", NULL},
        {"/foo/0/x", NULL}, {"/foo/4294967296", NULL}, {"/fo", NULL}, {"/fooo", NULL},
    };
    struct slice value;
    struct jtext_place at;
    assert_int_equal(jtext_check(SLICE(doc), &value), OK);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(jtext_find(value, slice_cstr(cases[i].pointer), &at), OK);
        if (!at.value.p != !cases[i].want || (cases[i].want && !slice_is(at.value, cases[i].want)))
            fail_msg("%s gave \"" SLICE_FMT "\"", cases[i].pointer, SLICE_ARG(at.value));
    }
    assert_int_equal(jtext_find(value, SLICE("foo"), &at), ERR_INVALID);
    assert_int_equal(jtext_find(value, SLICE("/~"), &at), ERR_INVALID);
    assert_int_equal(jtext_find(value, SLICE("/~2"), &at), ERR_INVALID);
    assert_int_equal(jtext_find(SLICE("{\"a\":1,\"b\":2,\"\\u0061\":3}"), SLICE("/a"), &at), ERR_SYNTAX);
    assert_int_equal(jtext_find(SLICE("{\"a\":1,\"b\":2,\"\\u0061\":3}"), SLICE("/b"), &at), OK);
    assert_int_equal(jtext_find(SLICE("{\"\\u00e9\\ud83d\\ude00\":1}"), SLICE("/\xc3\xa9\xf0\x9f\x98\x80"), &at), OK);
    assert_text_(at.value, "1", __LINE__);
    struct buf b = {0};
    jtext_string(SLICE("\"a\\n\\u00e9\\ud83d\\ude00\\ud800x\\/\\\"\\b\\f\\r\\t\\\\\""), &b);
    ASSERT_TEXT(&b, "a\n\xc3\xa9\xf0\x9f\x98\x80\xef\xbf\xbdx/\"\b\f\r\t\\");
    buf_free(&b);
}

/* ---- transformations -------------------------------------------------------------------------------------------------------------------- */

#define SET(p, v) {.op = TRANSFORM_SET, .pointer = (p), .value = (v)}
#define REMOVE(p) {.op = TRANSFORM_REMOVE, .pointer = (p)}
#define RENAME(p, v) {.op = TRANSFORM_RENAME, .pointer = (p), .value = (v)}
#define REPLACE(p, r, v) {.op = TRANSFORM_REPLACE, .pointer = (p), .regex = (r), .value = (v)}

struct transform_case {
    struct http_filter spec;
    struct plan_filter pf;
    struct plan_regex *regexes[4];
};

static void transform_init(struct transform_case *t, struct transform_op *ops, size_t n)
{
    *t = (struct transform_case){.spec = {.kind = FILTER_TRANSFORM, .transform = {.ops = ops, .ops_n = n}}};
    struct buf why = {0};
    for (size_t i = 0; i < n; i++)
        if (ops[i].regex) {
            t->regexes[i] = regex_new(slice_cstr(ops[i].regex), false, &why);
            assert_non_null(t->regexes[i]);
        }
    buf_free(&why);
    t->pf = (struct plan_filter){.name = "ns/name", .spec = &t->spec, .regexes = (const struct plan_regex *const *)t->regexes};
}

static void transform_fini(struct transform_case *t)
{
    for (size_t i = 0; i < COUNT_OF(t->regexes); i++)
        regex_unref(t->regexes[i]);
}

static enum err run(const struct transform_case *t, const char *fields, struct slice body, size_t step, struct buf *out)
{
    struct body_filter *f = transform_begin(&t->pf, false, answer("200 OK", fields));
    assert_non_null(f);
    enum err e = feed_all(f, body, step, step == 3, out);
    f->ops->free(f);
    return e;
}

/* want NULL: refused as malformed. */
static void check_ops_(struct transform_op *ops, size_t n, const char *body, const char *want, int line)
{
    struct transform_case t;
    transform_init(&t, ops, n);
    const size_t steps[] = {1, 3, 1000000};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct buf out = {0};
        enum err e = run(&t, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", slice_cstr(body), steps[i], &out);
        assert_int_equal(e, want ? OK : ERR_SYNTAX);
        if (want) {
            struct slice value;
            assert_text_(buf_slice(&out), want, line);
            if (*want)
                assert_int_equal(jtext_check(buf_slice(&out), &value), OK);
        } else {
            assert_int_equal(out.n, 0);
        }
        buf_free(&out);
    }
    transform_fini(&t);
}
#define CHECK_OP(body, want, ...) check_ops_((struct transform_op[]){__VA_ARGS__}, 1, body, want, __LINE__)

static void test_transform_set(void **state)
{
    CHECK_OP("{\"a\":1}", "{\"a\":\"x\"}", SET("/a", "\"x\""));
    CHECK_OP("{\"a\":1}", "{\"a\":1,\"b\":true}", SET("/b", "true"));
    CHECK_OP("{}", "{\"b\":true}", SET("/b", "true"));
    CHECK_OP("{ }", "{\"b\":true }", SET("/b", "true"));
    CHECK_OP(" {\"a\": 12345678901234567890 , \"z\":1.10 } ", " {\"a\": 12345678901234567890 , \"z\":1.10,\"b\":{} } ", SET("/b", "{}"));
    CHECK_OP("{\"a\":{}}", "{\"a\":{\"b\":{\"c\":1}}}", SET("/a/b/c", "1"));
    CHECK_OP("{\"a\":1}", "{\"a\":1}", SET("/a/b", "1")); /* a is no object */
    CHECK_OP("{\"l\":[1,2]}", "{\"l\":[1,2,3]}", SET("/l/-", "3"));
    CHECK_OP("{\"l\":[1,2]}", "{\"l\":[1,2,3]}", SET("/l/2", "3"));
    CHECK_OP("{\"l\":[1,2]}", "{\"l\":[3,2]}", SET("/l/0", "3"));
    CHECK_OP("{\"l\":[1,2]}", "{\"l\":[1,2]}", SET("/l/3", "3"));
    CHECK_OP("[]", "[{\"a\":1}]", SET("/-/a", "1"));
    CHECK_OP("{\"a\":1}", "{\"a\":1,\"x/y~\\\"\":2}", SET("/x~1y~0\"", "2"));
    CHECK_OP("[1]", "null", SET("", "null"));
    CHECK_OP("", "", SET("/a", "1")); /* an empty body has nothing to change */
    CHECK_OP("{", NULL, SET("/a", "1"));
    CHECK_OP("{\"a\":1,\"a\":2}", NULL, SET("/a", "3"));
}

static void test_transform_remove(void **state)
{
    CHECK_OP("{\"a\":1}", "{}", REMOVE("/a"));
    CHECK_OP("{\"a\":1,\"b\":2}", "{\"b\":2}", REMOVE("/a"));
    CHECK_OP("{\"a\":1,\"b\":2}", "{\"a\":1}", REMOVE("/b"));
    CHECK_OP("{\"a\":1 , \"b\" : [2] , \"c\":3}", "{\"a\":1 , \"c\":3}", REMOVE("/b"));
    CHECK_OP("{ \"a\" : 1 }", "{  }", REMOVE("/a"));
    CHECK_OP("[1,2,3]", "[1,3]", REMOVE("/1"));
    CHECK_OP("[1,2,3]", "[1,2]", REMOVE("/2"));
    CHECK_OP("[[1]]", "[[]]", REMOVE("/0/0"));
    CHECK_OP("{\"a\":\"}\\\"]\",\"b\":{\"c\":\"x,\"}}", "{\"b\":{\"c\":\"x,\"}}", REMOVE("/a"));
    CHECK_OP("{\"a\":1}", "{\"a\":1}", REMOVE("/b/c"));
    CHECK_OP("[1]", "[1]", REMOVE(""));
    /* the second of two would survive: refused instead */
    CHECK_OP("{\"secret\":1,\"\\u0073ecret\":2}", NULL, REMOVE("/secret"));
}

static void test_transform_rename(void **state)
{
    CHECK_OP("{\"a\":1,\"b\":2}", "{\"x\":1,\"b\":2}", RENAME("/a", "/x"));
    CHECK_OP("{\"a\":1,\"b\":2}", "{\"b\":1}", RENAME("/a", "/b"));
    CHECK_OP("{\"a\":1,\"b\":{}}", "{\"b\":{\"c\":1}}", RENAME("/a", "/b/c"));
    CHECK_OP("{\"a\":{\"b\":1}}", "{\"a\":{},\"n\":{\"m\":1}}", RENAME("/a/b", "/n/m"));
    CHECK_OP("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1}}", RENAME("/a", "/a/b"));
    CHECK_OP("{\"a\":1}", "{\"a\":1}", RENAME("/a", "/a"));
    CHECK_OP("{\"a\":1}", "{\"a\":1}", RENAME("/x", "/y"));
    CHECK_OP("{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":2}", RENAME("/a", "/b/c")); /* b is no object: nothing is lost */
    CHECK_OP("[1,2]", "[2,1]", RENAME("/0", "/-"));
    CHECK_OP("[1,2]", "[1,2]", RENAME("/0", "/2")); /* no place once the first is out */
    CHECK_OP("{\"a\":{\"b\":\"long text\"}}", "{\"a\":\"long text\"}", RENAME("/a/b", "/a"));
}

static void test_transform_replace(void **state)
{
    CHECK_OP("{\"u\":\"http://a/x\\n\",\"v\":\"http:\"}", "{\"u\":\"https://a/x\\n\",\"v\":\"http:\"}", REPLACE("/u", "^http:", "https:"));
    CHECK_OP("{\"u\":1}", "{\"u\":1}", REPLACE("/u", "1", "2"));
    CHECK_OP("{\"a\":\"aa\"}", "{\"b\":\"bb\"}", REPLACE(NULL, "a", "b"));
    CHECK_OP("{\"a\":\"x-y\"}", "{\"a\":\"y_x\"}", REPLACE("/a", "([a-z])-([a-z])", "\\2_\\1"));
    CHECK_OP("{\"a\":\"x\"}", "{\"a\":\"\\\"\\\\\"}", REPLACE("/a", "x", "\"\\\\"));
    struct transform_op ops[] = {REPLACE(NULL, "Hello", "Goodbye"), SET("/a", "1")};
    struct transform_case t;
    struct buf out = {0};
    transform_init(&t, ops, 2);
    /* of the two, only the first is for text */
    assert_int_equal(run(&t, "Content-Type: text/plain\r\nContent-Length: 11\r\n", SLICE("Hello world"), 4, &out), OK);
    ASSERT_TEXT(&out, "Goodbye world");
    buf_clear(&out);
    assert_int_equal(run(&t, "Content-Type: application/vnd.x+json\r\nContent-Length: 11\r\n", SLICE("{\"Hello\":0}"), 4, &out), OK);
    ASSERT_TEXT(&out, "{\"Goodbye\":0,\"a\":1}");
    buf_free(&out);
    transform_fini(&t);
}

static void test_transform_then_compress(void **state)
{
    struct transform_op ops[] = {SET("/a", "1")};
    struct transform_case t;
    transform_init(&t, ops, 1);
    const struct h1_head *h = answer("200 OK", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n");
    for (size_t step = 1; step < 10; step += 4) {
        struct slice coding;
        struct buf packed = {0}, back = {0};
        struct body_filter *f = body_filter_chain(transform_begin(&t.pf, false, h), compress_begin(&all_codings, 1, h, &coding));
        assert_int_equal(feed_all(f, SLICE("{\"b\":2}"), step, step == 5, &packed), OK);
        undo(coding, buf_slice(&packed), &back);
        ASSERT_TEXT(&back, "{\"b\":2,\"a\":1}");
        f->ops->free(f);
        buf_clear(&packed);
        f = body_filter_chain(transform_begin(&t.pf, false, h), compress_begin(&all_codings, 1, h, &coding));
        assert_int_equal(feed_all(f, SLICE("{\"b\":2"), step, false, &packed), ERR_SYNTAX);
        f->ops->free(f);
        buf_free(&packed);
        buf_free(&back);
    }
    struct body_filter *one = transform_begin(&t.pf, false, h);
    assert_ptr_equal(body_filter_chain(one, NULL), one);
    assert_ptr_equal(body_filter_chain(NULL, one), one);
    assert_null(body_filter_chain(NULL, NULL));
    one->ops->free(one);
    transform_fini(&t);
}

static void test_transform_which(void **state)
{
    struct transform_op ops[] = {SET("/a", "1"), {.op = TRANSFORM_REMOVE, .pointer = "/b", .request = true}};
    struct transform_case t;
    transform_init(&t, ops, 1);
    assert_null(transform_begin(&t.pf, true, request("POST /", "Content-Type: application/json\r\nContent-Length: 2\r\n")));
    static const char *const left[] = {
        "Content-Type: text/plain\r\nContent-Length: 5\r\n", "Content-Length: 5\r\n", "Content-Type: application/json\r\nContent-Length: 0\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n", "Content-Type: application/jsonx\r\nContent-Length: 5\r\n",
        "Content-Type: application/json\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(left); i++)
        assert_null(transform_begin(&t.pf, false, answer("200 OK", left[i])));
    assert_null(transform_begin(&t.pf, false, answer("206 Partial Content", "Content-Type: application/json\r\nContent-Length: 5\r\n")));
    assert_null(transform_begin(&t.pf, false, answer("304 Not Modified", "Content-Type: application/json\r\n")));
    assert_true(transform_wants_plain(&t.pf));
    transform_fini(&t);
    transform_init(&t, ops + 1, 1);
    assert_false(transform_wants_plain(&t.pf));
    struct body_filter *f = transform_begin(&t.pf, true, request("POST /", "Content-Type: application/json; charset=utf-8\r\nContent-Length: 7\r\n"));
    struct buf out = {0};
    assert_int_equal(feed_all(f, SLICE("{\"b\":1}"), 2, false, &out), OK);
    ASSERT_TEXT(&out, "{}");
    f->ops->free(f);
    buf_free(&out);
    transform_fini(&t);
}

static void test_transform_limits(void **state)
{
    struct transform_op ops[] = {SET("/a", "1")};
    struct transform_case t;
    transform_init(&t, ops, 1);
    t.spec.transform.body_bytes_max = 10;
    struct buf out = {0};
    const char *fields = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    uint64_t over = filter_counter_read(FILTER_TRANSFORM_OVER), malformed = filter_counter_read(FILTER_TRANSFORM_MALFORMED);
    assert_int_equal(run(&t, fields, SLICE("[123456789]"), 1, &out), ERR_LIMIT);
    assert_int_equal(run(&t, fields, SLICE("[123456789]"), 100, &out), ERR_LIMIT);
    assert_int_equal(out.n, 0);
    assert_int_equal(filter_counter_read(FILTER_TRANSFORM_OVER), over + 2);
    assert_int_equal(run(&t, fields, SLICE("[12345678]"), 1, &out), OK);
    ASSERT_TEXT(&out, "[12345678]");
    buf_clear(&out);
    assert_int_equal(run(&t, fields, SLICE("[12345678"), 1, &out), ERR_SYNTAX);
    assert_int_equal(filter_counter_read(FILTER_TRANSFORM_MALFORMED), malformed + 1);
    t.spec.transform.body_bytes_max = 0; /* the default */
    struct buf bomb = {0};
    for (int i = 0; i < 100000; i++)
        buf_addc(&bomb, '[');
    assert_int_equal(run(&t, fields, buf_slice(&bomb), 65536, &out), ERR_LIMIT);
    for (size_t i = bomb.n; i <= TRANSFORM_BYTES_MAX; i++)
        buf_addc(&bomb, ' ');
    assert_int_equal(run(&t, fields, buf_slice(&bomb), 65536, &out), ERR_LIMIT);
    transform_fini(&t);
    /* text that grows: bounded */
    struct transform_op grow[] = {REPLACE(NULL, "a", "aaaaaaaaaaaaaaaaaaaaaaaa")};
    transform_init(&t, grow, 1);
    t.spec.transform.body_bytes_max = 1000;
    buf_clear(&bomb);
    for (int i = 0; i < 500; i++)
        buf_addc(&bomb, 'a');
    assert_int_equal(run(&t, "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n", buf_slice(&bomb), 100, &out), ERR_LIMIT);
    transform_fini(&t);
    buf_free(&bomb);
    buf_free(&out);
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
}

/* ---- dates --------------------------------------------------------------------------------------------------------------------------- */

static void test_dates(void **state)
{
    char text[HTTP_DATE_BYTES + 1];
    uint64_t s, now = 1700000000;
    http_date(784111777, text); /* RFC 9110 section 5.6.7 */
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    static const char *const same[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        assert_true(http_date_parse(slice_cstr(same[i]), now, &s));
        assert_int_equal(s, 784111777);
        for (size_t n = 0; n < strlen(same[i]); n++) { /* cut short, in a block of that length */
            char *block = mem_grow(MEM_MISC, NULL, n ? n : 1);
            memcpy(block, same[i], n);
            assert_false(http_date_parse(slice_of(block, n), now, &s));
            mem_free(block);
        }
    }
    static const char *const bad[] = {
        "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z", "784111777", "Sun, 06 Nov 1969 08:49:37 GMT",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(http_date_parse(slice_cstr(bad[i]), now, &s));
    assert_true(http_date_parse(SLICE("Saturday, 01-Jan-50 00:00:00 GMT"), now, &s)); /* within 50 years: 2050 */
    assert_int_equal(s, 2524608000);
    assert_true(http_date_parse(SLICE("Saturday, 01-Jan-00 00:00:00 GMT"), now, &s));
    assert_int_equal(s, 946684800);
    for (uint64_t t = 0; t < 253402300800u; t += 86399 * 37) { /* the whole calendar */
        http_date(t, text);
        assert_true(http_date_parse(slice_cstr(text), now, &s));
        assert_int_equal(s, t);
    }
    http_date(951782400, text);
    assert_string_equal(text, "Tue, 29 Feb 2000 00:00:00 GMT");
    http_date(UINT64_MAX, text);
    assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
}

/* ---- static files --------------------------------------------------------------------------------------------------------------------- */

static void test_static_paths(void **state)
{
    static const struct { const char *path, *want; } cases[] = {
        {"/a.txt", "a.txt"}, {"a.txt", "a.txt"}, {"", ""}, {"/", ""}, {"///a", "a"}, {"/a/b/", "a/b/"}, {"/a%20b", "a b"}, {"/%61", "a"}, {"/a//b", "a//b"}, {"/caf%C3%A9", "caf\xc3\xa9"},
        {"/.well-known/security.txt", ".well-known/security.txt"}, {"/.well-known", ".well-known"}, {"/a..b/c.", "a..b/c."}, {"/a%2e", "a."},
        {"/..", NULL}, {"/../a", NULL}, {"/a/..", NULL}, {"/a/../b", NULL}, {"/%2e%2e/a", NULL}, {"/a/%2E./b", NULL}, {"/.", NULL}, {"/./a", NULL}, {"/a/.", NULL}, {"/.git/config", NULL},
        {"/a/.env", NULL}, {"/%2egit", NULL}, {"/a%2fb", NULL}, {"/a%2Fb", NULL}, {"/a%00b", NULL}, {"/a%0ab", NULL}, {"/a%5cb", NULL}, {"/a\\b", NULL}, {"/a%", NULL}, {"/a%4", NULL},
        {"/a%g0", NULL}, {"/.well-knownx", NULL}, {"/a/.well-known/x", NULL}, {"/%7f", NULL}, {"/.well-known/.x", NULL}, {"/.well-known/../x", NULL},
    };
    char out[STATIC_PATH_MAX];
    size_t n;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool ok = static_path(slice_cstr(cases[i].path), out, &n);
        if (ok != (cases[i].want != NULL) || (ok && (strcmp(out, cases[i].want) != 0 || n != strlen(out))))
            fail_msg("%s: %s", cases[i].path, ok ? out : "refused");
    }
    char longest[STATIC_PATH_MAX + 1];
    memset(longest, 'a', sizeof longest);
    assert_true(static_path(slice_of(longest, STATIC_PATH_MAX - 1), out, &n));
    assert_false(static_path(slice_of(longest, STATIC_PATH_MAX), out, &n));
    assert_string_equal(static_type(SLICE("a/b.HTML")), "text/html; charset=utf-8");
    assert_string_equal(static_type(SLICE("b.tar.gz")), "application/gzip");
    assert_string_equal(static_type(SLICE("html")), "application/octet-stream");
    assert_string_equal(static_type(SLICE("a.html/b")), "application/octet-stream");
    assert_string_equal(static_type(SLICE("x.")), "application/octet-stream");
}

static void test_ranges(void **state)
{
    static const struct { const char *value; uint64_t length; enum range_result want; uint64_t offset, n; } cases[] = {
        {"bytes=0-499", 10000, RANGE_ONE, 0, 500}, /* RFC 9110 section 14.1.2 */
        {"bytes=500-999", 10000, RANGE_ONE, 500, 500}, {"bytes=-500", 10000, RANGE_ONE, 9500, 500}, {"bytes=9500-", 10000, RANGE_ONE, 9500, 500},
        {"bytes=0-0,-1", 10000, RANGE_NONE, 0, 0}, {"bytes= 0-999, 4500-5499, -1000", 10000, RANGE_NONE, 0, 0}, {"bytes=0-0", 10000, RANGE_ONE, 0, 1},
        {"bytes=-1", 10000, RANGE_ONE, 9999, 1}, {"bytes=9999-20000", 10000, RANGE_ONE, 9999, 1}, {"bytes=-20000", 10000, RANGE_ONE, 0, 10000},
        {"bytes=10000-", 10000, RANGE_UNSATISFIABLE, 0, 0}, {"bytes=-0", 10000, RANGE_UNSATISFIABLE, 0, 0}, {"bytes=0-", 0, RANGE_UNSATISFIABLE, 0, 0}, {"bytes=-5", 0, RANGE_NONE, 0, 0},
        {"bytes=5-4", 10, RANGE_NONE, 0, 0}, {"bytes=", 10, RANGE_NONE, 0, 0}, {"bytes=-", 10, RANGE_NONE, 0, 0}, {"bytes", 10, RANGE_NONE, 0, 0}, {"bytes=a-b", 10, RANGE_NONE, 0, 0},
        {"bytes=1", 10, RANGE_NONE, 0, 0}, {"items=0-1", 10, RANGE_NONE, 0, 0}, {"BYTES=0-1", 10, RANGE_ONE, 0, 2}, {"bytes=1-2-3", 10, RANGE_NONE, 0, 0}, {"bytes=+1-2", 10, RANGE_NONE, 0, 0},
        {"bytes=99999999999999999999999-", 10, RANGE_UNSATISFIABLE, 0, 0}, {"bytes=1-99999999999999999999999", 10, RANGE_ONE, 1, 9}, {"bytes=-99999999999999999999999", 10, RANGE_ONE, 0, 10},
        {"bytes=0-18446744073709551615", 10, RANGE_ONE, 0, 10},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t offset = 0, n = 0;
        enum range_result r = range_parse(slice_cstr(cases[i].value), cases[i].length, &offset, &n);
        if (r != cases[i].want || offset != cases[i].offset || n != cases[i].n)
            fail_msg("%s of %llu: %d, %llu + %llu", cases[i].value, (unsigned long long)cases[i].length, r, (unsigned long long)offset, (unsigned long long)n);
    }
}

/* A folder of its own, and what one request to it was answered. */
static struct {
    char root[64], outside[80];
    struct static_filter spec;
    struct head_out o;
    struct static_answer a;
    struct buf body;
} W;

static void put(const char *name, const char *text)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", W.root, name);
    assert_int_equal(file_replace(path.p, text, strlen(text), 0644), OK);
    struct timespec times[2] = {{784111777, 5}, {784111777, 5}};
    assert_int_equal(utimensat(AT_FDCWD, path.p, times, 0), 0);
    buf_free(&path);
}

static void folder(const char *name)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", W.root, name);
    assert_int_equal(mkdir(path.p, 0755), 0);
    buf_free(&path);
}

static void link_to(const char *target, const char *name)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", W.root, name);
    assert_int_equal(symlink(target, path.p), 0);
    buf_free(&path);
}

static int static_setup(void **state)
{
    snprintf(W.outside, sizeof W.outside, "/tmp/filter_test.XXXXXX");
    assert_non_null(mkdtemp(W.outside));
    snprintf(W.root, sizeof W.root, "%.50s/www", W.outside);
    head_out_init(&W.o);
    assert_int_equal(mkdir(W.root, 0755), 0);
    folder("sub");
    folder("empty");
    folder(".git");
    put("index.html", "<p>home");
    put("a.txt", "0123456789");
    put("null.txt", "");
    put("sub/index.html", "<p>sub");
    put("sub/app.js", "console.log(1)");
    put("sub/app.js.gz", "GZ");
    put("sub/app.js.br", "BR+");
    put("sub/app.js.zst", "ZSTD");
    put(".git/config", "secret");
    put("../secret.txt", "secret");
    put("with space.txt", "space");
    link_to("../secret.txt", "leads-out.txt");
    link_to("/etc/passwd", "absolute.txt");
    link_to("a.txt", "inside.txt");
    link_to("../a.txt", "sub/inside.txt");
    link_to("..", "up");
    link_to("loop", "loop");
    struct buf fifo = {0};
    buf_printf(&fifo, "%s/fifo", W.root);
    assert_int_equal(mkfifo(fifo.p, 0644), 0);
    buf_free(&fifo);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) { return remove(path); }

static int static_teardown(void **state)
{
    int r = nftw(W.outside, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    buf_free(&W.body);
    head_out_fini(&W.o);
    return r;
}

/* Asks, and reads the body that a caller would send. Returns the status. */
static uint16_t ask(const char *line, const char *fields)
{
    const struct h1_head *h = request(line, fields);
    W.spec.root = W.root;
    head_clear(&W.o);
    buf_clear(&W.body);
    static_request(&W.spec, h, h->path, &W.o, &W.a);
    W.o.p[W.o.n] = '\0';
    buf_add(&W.body, W.a.text, W.a.text_n);
    if (W.a.fd >= 0) {
        assert_int_equal(W.a.text_n, 0);
        buf_reserve(&W.body, W.a.length);
        assert_int_equal(pread(W.a.fd, W.body.p, W.a.length, (off_t)W.a.offset), W.a.length);
        W.body.n = W.a.length;
        file_close(W.a.fd);
    }
    return W.a.status;
}

/* The answer's field, as text; "" when absent. */
static const char *field(const char *name)
{
    static struct buf value;
    struct buf text = {0};
    buf_adds(&text, W.o.p);
    buf_adds(&text, "\r\n");
    const struct h1_field *f = h1_find(parse(false, text.p), slice_cstr(name));
    buf_clear(&value);
    buf_add_slice(&value, f ? f->value : SLICE(""));
    buf_free(&text);
    return value.p;
}

static void test_static_files(void **state)
{
    W.spec = (struct static_filter){.index = "index.html", .cache_control = "max-age=60"};
    assert_int_equal(ask("GET /a.txt", ""), 200);
    ASSERT_TEXT(&W.body, "0123456789");
    assert_string_equal(field("content-type"), "text/plain; charset=utf-8");
    assert_string_equal(field("last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_string_equal(field("cache-control"), "max-age=60");
    assert_string_equal(field("accept-ranges"), "bytes");
    assert_string_equal(field("vary"), "");
    assert_int_equal(field("etag")[0], '"');
    assert_int_equal(ask("HEAD /a.txt", "Range: bytes=0-1\r\n"), 200);
    assert_int_equal(W.a.fd, -1);
    assert_int_equal(W.a.length, 10);
    assert_int_equal(ask("GET /null.txt", ""), 200);
    assert_int_equal(W.a.fd, -1);
    assert_int_equal(W.a.length, 0);
    assert_int_equal(ask("GET /", ""), 200);
    ASSERT_TEXT(&W.body, "<p>home");
    assert_int_equal(ask("GET /sub/?q", ""), 200);
    ASSERT_TEXT(&W.body, "<p>sub");
    assert_int_equal(ask("GET /with%20space.txt", ""), 200);
    ASSERT_TEXT(&W.body, "space");
    assert_int_equal(ask("GET /sub?x=1&y", ""), 301);
    assert_string_equal(field("location"), "/sub/?x=1&y");
    assert_int_equal(ask("GET //sub", ""), 301);
    assert_string_equal(field("location"), "/sub/");
    assert_int_equal(ask("HEAD /sub", ""), 301);
    assert_int_equal(W.a.text_n, 0);
    assert_int_equal(ask("POST /a.txt", "Content-Length: 0\r\n"), 405);
    assert_string_equal(field("allow"), "GET, HEAD");
    static const char *const missing[] = {"GET /none", "GET /a.txt/", "GET /a.txt/b", "GET /empty/", "GET /fifo", "GET /loop", "GET /.git/config", "GET /sub/../a.txt", "GET /%2e%2e/secret.txt",
                                          "GET /leads-out.txt", "GET /absolute.txt", "GET /up/secret.txt", "GET /up/www/a.txt", "GET /a%2ftxt", "GET /index.html/"};
    for (size_t i = 0; i < COUNT_OF(missing); i++)
        if (ask(missing[i], "") != 404)
            fail_msg("%s: %d", missing[i], W.a.status);
    assert_int_equal(ask("GET /inside.txt", ""), 200);
    ASSERT_TEXT(&W.body, "0123456789");
    assert_int_equal(ask("GET /sub/inside.txt", ""), 200); /* leads up, but not out */
    uint64_t refused = filter_counter_read(FILTER_STATIC_REFUSED);
    ask("GET /.env", "");
    assert_int_equal(filter_counter_read(FILTER_STATIC_REFUSED), refused + 1);
    since_ns = mono_ns();
    for (int i = 0; i < 10000; i++)
        assert_int_equal(ask("GET /a.txt", ""), 200);
    print_ns("a file found, opened, read, closed", 10000);
}

static void test_static_fallback(void **state)
{
    W.spec = (struct static_filter){.index = "index.html", .fallback = "/index.html"};
    assert_int_equal(ask("GET /orders/7", ""), 200);
    ASSERT_TEXT(&W.body, "<p>home");
    assert_string_equal(field("content-type"), "text/html; charset=utf-8");
    assert_int_equal(ask("GET /empty/", ""), 200);
    assert_int_equal(ask("GET /a.txt", ""), 200);
    ASSERT_TEXT(&W.body, "0123456789");
    assert_int_equal(ask("GET /.git/config", ""), 404); /* what is refused stays refused */
    assert_int_equal(ask("GET /empty", ""), 301);
    W.spec.index = NULL;
    W.spec.fallback = NULL;
    assert_int_equal(ask("GET /sub/", ""), 404);
    W.spec.fallback = "none.html";
    assert_int_equal(ask("GET /sub/", ""), 404);
}

static void with(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "%s: %s\r\n", name, value);
}

static uint16_t ask_if(const char *line, const char *name, const char *value, const char *more)
{
    struct buf fields = {0};
    with(&fields, name, value);
    buf_adds(&fields, more);
    uint16_t status = ask(line, fields.p);
    buf_free(&fields);
    return status;
}

static void test_static_conditions(void **state)
{
    W.spec = (struct static_filter){.index = "index.html", .cache_control = "no-cache"};
    ask("GET /a.txt", "");
    char etag[80], weak[80], list[200];
    snprintf(etag, sizeof etag, "%.70s", field("etag"));
    snprintf(weak, sizeof weak, "W/%.70s", etag);
    snprintf(list, sizeof list, "\"x,y\", %s , \"z\"", weak);
    const char *then = "Sun, 06 Nov 1994 08:49:37 GMT", *before = "Sun, 06 Nov 1994 08:49:36 GMT", *after = "Mon, 07 Nov 1994 08:49:37 GMT";
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", etag, ""), 304);
    assert_int_equal(W.a.fd, -1);
    assert_string_equal(field("etag"), etag);
    assert_string_equal(field("cache-control"), "no-cache");
    assert_string_equal(field("content-type"), "");
    assert_int_equal(ask_if("HEAD /a.txt", "If-None-Match", weak, ""), 304);
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", list, ""), 304);
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", "*", ""), 304);
    assert_int_equal(ask_if("GET /none", "If-None-Match", "*", ""), 404);
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", "\"other\"", ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", "\"other\"", "If-Modified-Since: Mon, 07 Nov 1994 08:49:37 GMT\r\n"), 200); /* the date is not looked at */
    assert_int_equal(ask_if("GET /a.txt", "If-Modified-Since", then, ""), 304);
    assert_int_equal(ask_if("GET /a.txt", "If-Modified-Since", after, ""), 304);
    assert_int_equal(ask_if("GET /a.txt", "If-Modified-Since", before, ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Modified-Since", "yesterday", ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Match", etag, ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Match", "*", ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Match", weak, ""), 412); /* strong comparison */
    assert_int_equal(ask_if("GET /a.txt", "If-Match", "\"other\"", ""), 412);
    assert_int_equal(ask_if("GET /a.txt", "If-Match", etag, "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n"), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Unmodified-Since", before, ""), 412);
    assert_int_equal(ask_if("GET /a.txt", "If-Unmodified-Since", then, ""), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Range", etag, "Range: bytes=2-4\r\n"), 206);
    assert_int_equal(ask_if("GET /a.txt", "If-Range", weak, "Range: bytes=2-4\r\n"), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Range", "\"other\"", "Range: bytes=2-4\r\n"), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-Range", then, "Range: bytes=2-4\r\n"), 206);
    assert_int_equal(ask_if("GET /a.txt", "If-Range", after, "Range: bytes=2-4\r\n"), 200);
    assert_int_equal(ask_if("GET /a.txt", "If-None-Match", etag, "Range: bytes=2-4\r\n"), 304);
    /* a file changed just now: its date names no single state of it */
    struct buf path = {0};
    buf_printf(&path, "%s/new.txt", W.root);
    assert_int_equal(file_replace(path.p, "new", 3, 0644), OK);
    buf_free(&path);
    ask("GET /new.txt", "");
    char date[40];
    snprintf(date, sizeof date, "%.30s", field("last-modified"));
    assert_int_equal(ask_if("GET /new.txt", "If-Range", date, "Range: bytes=1-1\r\n"), 200);
}

static void test_static_ranges(void **state)
{
    W.spec = (struct static_filter){.index = "index.html"};
    assert_int_equal(ask("GET /a.txt", "Range: bytes=2-4\r\n"), 206);
    ASSERT_TEXT(&W.body, "234");
    assert_string_equal(field("content-range"), "bytes 2-4/10");
    assert_int_equal(ask("GET /a.txt", "Range: bytes=-3\r\n"), 206);
    ASSERT_TEXT(&W.body, "789");
    assert_int_equal(ask("GET /a.txt", "Range: bytes=8-\r\n"), 206);
    ASSERT_TEXT(&W.body, "89");
    assert_int_equal(ask("GET /a.txt", "Range: bytes=10-\r\n"), 416);
    assert_string_equal(field("content-range"), "bytes */10");
    assert_int_equal(ask("GET /a.txt", "Range: bytes=0-1,3-4\r\n"), 200);
    ASSERT_TEXT(&W.body, "0123456789");
    assert_int_equal(ask("GET /null.txt", "Range: bytes=0-\r\n"), 416);
    assert_int_equal(ask("GET /null.txt", "Range: bytes=-5\r\n"), 200);
}

static void test_static_precompressed(void **state)
{
    W.spec = (struct static_filter){.index = "index.html", .precompressed = true};
    static const struct { const char *accept, *coding, *body; } cases[] = {
        {"gzip", "gzip", "GZ"}, {"gzip, br", "br", "BR+"}, {"zstd, gzip, br", "zstd", "ZSTD"}, {"gzip;q=1, br;q=0.5", "gzip", "GZ"}, {"deflate", "", "console.log(1)"},
        {"gzip;q=0", "", "console.log(1)"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(ask_if("GET /sub/app.js", "Accept-Encoding", cases[i].accept, ""), 200);
        assert_string_equal(field("content-encoding"), cases[i].coding);
        assert_string_equal(field("content-type"), "text/javascript; charset=utf-8");
        assert_string_equal(field("vary"), "Accept-Encoding");
        ASSERT_TEXT(&W.body, cases[i].body);
    }
    char etag[80];
    ask("GET /sub/app.js", "Accept-Encoding: gzip\r\n");
    snprintf(etag, sizeof etag, "%.70s", field("etag"));
    assert_int_equal(ask_if("GET /sub/app.js", "If-None-Match", etag, "Accept-Encoding: gzip\r\n"), 304);
    assert_string_equal(field("vary"), "Accept-Encoding");
    assert_int_equal(ask_if("GET /sub/app.js", "If-None-Match", etag, "Accept-Encoding: br\r\n"), 200); /* another representation */
    assert_int_equal(ask("GET /a.txt", "Accept-Encoding: gzip\r\n"), 200); /* has no variants */
    assert_string_equal(field("content-encoding"), "");
    ASSERT_TEXT(&W.body, "0123456789");
}

/* ---- aggregation --------------------------------------------------------------------------------------------------------------------- */

/* want NULL: refused, with this reason. */
static void check_target(const char *path, const char *line, const char *fields, const char *want, const char *reason)
{
    struct aggregate_part part = {.name = "p", .path = (char *)(uintptr_t)path};
    struct buf out = {0};
    const char *missing = NULL;
    buf_adds(&out, "kept:");
    bool ok = aggregate_path(&part, request(line, fields), &out, &missing);
    assert_true(slice_starts(buf_slice(&out), SLICE("kept:")));
    if (ok != (want != NULL) || strcmp(out.p + 5, want ? want : "") != 0)
        fail_msg("%s of %s: %s", path, line, out.p);
    if (!ok) {
        struct aggregate_filter spec = {.parts = &part, .parts_n = 1};
        struct aggregate_result r = {.why = missing};
        struct buf merged = {0}, expected = {0};
        assert_int_equal(aggregate_merge(&spec, &r, &merged), 200);
        buf_printf(&expected, "{\"p\":null,\"partial\":true,\"missing\":[{\"part\":\"p\",\"reason\":\"%s\"}]}", reason);
        ASSERT_TEXT(&merged, expected.p);
        buf_free(&merged);
        buf_free(&expected);
    }
    buf_free(&out);
}

static void test_aggregate_paths(void **state)
{
    check_target("/users/{2}", "GET /page/42?x=1", "", "/users/42", NULL);
    check_target("/users/{1}/{2}", "GET /a%20b/c%2fd", "", "/users/a%20b/c%2Fd", NULL);
    check_target("/v1{path}", "GET /a/b%3f?q", "", "/v1/a/b%3F", NULL);
    check_target("/s?q={query:q}&n={query:n}", "GET /?n=5&q=a+b%26c", "", "/s?q=a%20b%26c&n=5", NULL);
    check_target("/s?q={query:q}", "GET /?q=", "", "/s?q=", NULL);
    check_target("/s?q={query:q}", "GET /?q", "", "/s?q=", NULL);
    check_target("/s?q={query:a b}", "GET /?a+b=1", "", "/s?q=1", NULL);
    check_target("/u/{header:X-User}", "GET /", "X-User: J\xc3\xb6rg & co\r\n", "/u/J%C3%B6rg%20%26%20co", NULL);
    check_target("/plain", "GET /", "", "/plain", NULL);
    check_target("/odd{", "GET /", "", "/odd{", NULL);
    check_target("/x%zz{1}", "GET /%zz", "", "/x%zz%25zz", NULL);
    check_target("/users/{3}", "GET /page/42", "", NULL, "no value for 3");
    check_target("/users/{2}", "GET /page/", "", NULL, "no value for 2");
    check_target("/users/{query:id}", "GET /?x=1", "", NULL, "no value for query:id");
    check_target("/users/{query:id}", "GET /?id=", "", NULL, "no value for query:id");
    check_target("/users/{header:X-Id}", "GET /", "", NULL, "no value for header:X-Id");
    check_target("/users/{query:id}/x", "GET /?id=..", "", NULL, "no value for query:id");
    check_target("/users/{query:id}", "GET /?id=%2e%2E", "", NULL, "no value for query:id");
    check_target("/users/.{query:id}/x", "GET /?id=.", "", NULL, "no value for query:id");
    check_target("/users{path}", "GET /a/%2e%2e/b", "", NULL, "no value for path");
    check_target("/users/{query:id}", "GET /?id=%00", "", NULL, "no value for query:id");
    check_target("/users/{query:id}", "GET /?id=a%0d%0ab", "", NULL, "no value for query:id");
    check_target("/users/{unknown}", "GET /a", "", NULL, "no value for unknown");
    check_target("/users/{0}", "GET /a", "", NULL, "no value for 0");
    struct buf line = {0};
    buf_adds(&line, "GET /?id=");
    for (int i = 0; i < AGGREGATE_PATH_MAX / 3; i++)
        buf_addc(&line, '!');
    check_target("/users/{query:id}", line.p, "", NULL, "no value for query:id");
    buf_free(&line);
}

#define CAME(text) {.arrived = true, .status = 200, .body = {(text), sizeof(text) - 1}}
#define LOST(reason) {.why = (reason)}

static void check_merge_(struct aggregate_part *parts, size_t n, const struct aggregate_result *results, uint16_t status, const char *want, int line)
{
    struct aggregate_filter spec = {.parts = parts, .parts_n = n};
    struct buf out = {0};
    struct slice value;
    assert_int_equal(aggregate_merge(&spec, results, &out), status);
    assert_text_(buf_slice(&out), want, line);
    assert_int_equal(jtext_check(buf_slice(&out), &value), OK);
    buf_free(&out);
}
#define CHECK_MERGE(parts, results, status, want) check_merge_(parts, COUNT_OF(parts), results, status, want, __LINE__)

static void test_aggregate_merge(void **state)
{
    struct aggregate_part two[] = {{.name = "user", .path = "/u"}, {.name = "orders", .path = "/o"}};
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME(" {\"id\": 7.10} \n"), CAME("[1, 2]")}), 200, "{\"user\":{\"id\": 7.10},\"orders\":[1, 2]}");
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("1"), LOST("timeout")}), 200,
                "{\"user\":1,\"orders\":null,\"partial\":true,\"missing\":[{\"part\":\"orders\",\"reason\":\"timeout\"}]}");
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("<html>"), LOST("status 500")}), 200,
                "{\"user\":null,\"orders\":null,\"partial\":true,\"missing\":[{\"part\":\"user\",\"reason\":\"not JSON\"},{\"part\":\"orders\",\"reason\":\"status 500\"}]}");
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("1}"), CAME("")}), 200,
                "{\"user\":null,\"orders\":null,\"partial\":true,\"missing\":[{\"part\":\"user\",\"reason\":\"not JSON\"},{\"part\":\"orders\",\"reason\":\"not JSON\"}]}");
    two[1].required = true;
    uint64_t failed = filter_counter_read(FILTER_AGGREGATE_FAILED);
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("1"), LOST("timeout")}), 504,
                "{\"error\":\"a part that this answer can't do without is missing\",\"missing\":[{\"part\":\"orders\",\"reason\":\"timeout\"}]}");
    CHECK_MERGE(two, ((struct aggregate_result[]){LOST("timeout"), LOST("refused")}), 502,
                "{\"error\":\"a part that this answer can't do without is missing\",\"missing\":[{\"part\":\"user\",\"reason\":\"timeout\"},{\"part\":\"orders\",\"reason\":\"refused\"}]}");
    assert_int_equal(filter_counter_read(FILTER_AGGREGATE_FAILED), failed + 2);
    two[0].pointer = "/data/0";
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("{\"data\":[{\"a\":1}]}"), CAME("2")}), 200, "{\"user\":{\"a\":1},\"orders\":2}");
    CHECK_MERGE(two, ((struct aggregate_result[]){CAME("{\"data\":[]}"), CAME("2")}), 200,
                "{\"user\":null,\"orders\":2,\"partial\":true,\"missing\":[{\"part\":\"user\",\"reason\":\"nothing at /data/0\"}]}");
    struct aggregate_filter none = {0};
    struct buf out = {0};
    assert_int_equal(aggregate_merge(&none, NULL, &out), 200);
    ASSERT_TEXT(&out, "{}");
    buf_free(&out);
}

static void test_aggregate_members(void **state)
{
    struct aggregate_part parts[] = {{.name = "", .path = "/a", .backend.service = "catalog"}, {.name = "stock", .path = "/b"}, {.name = "", .path = "/c", .backend.host = "c.example"}};
    CHECK_MERGE(parts, ((struct aggregate_result[]){CAME("{\"id\":1, \"stock\":\"?\", \"n\\u0061me\":\"x\"}"), CAME("5"), CAME("{\"name\":\"y\",\"e\":{}}")}), 200,
                "{\"id\":1,\"stock\":5,\"n\\u0061me\":\"y\",\"e\":{}}");
    CHECK_MERGE(parts, ((struct aggregate_result[]){CAME("[1]"), CAME("5"), LOST("too large")}), 200,
                "{\"stock\":5,\"partial\":true,\"missing\":[{\"part\":\"catalog\",\"reason\":\"not an object\"},{\"part\":\"c.example\",\"reason\":\"too large\"}]}");
    CHECK_MERGE(parts, ((struct aggregate_result[]){CAME("{\"missing\":1,\"partial\":false}"), LOST("refused"), CAME("{}")}), 200,
                "{\"missing\":[{\"part\":\"stock\",\"reason\":\"refused\"}],\"partial\":true,\"stock\":null}");
    struct aggregate_part odd[] = {{.name = "a \"b\"\n", .path = "/a"}};
    CHECK_MERGE(odd, ((struct aggregate_result[]){LOST("status \"500\"")}), 200,
                "{\"a \\\"b\\\"\\n\":null,\"partial\":true,\"missing\":[{\"part\":\"a \\\"b\\\"\\n\",\"reason\":\"status \\\"500\\\"\"}]}");
    struct aggregate_part three[] = {{.name = "user", .path = "/u"}, {.name = "orders", .path = "/o"}, {.name = "stock", .path = "/s"}};
    struct aggregate_filter spec = {.parts = three, .parts_n = 3};
    struct aggregate_result r[] = {CAME("{\"id\":7,\"name\":\"somebody\"}"), CAME("[{\"id\":1},{\"id\":2},{\"id\":3}]"), CAME("{\"a\":1,\"b\":2}")};
    struct buf out = {0};
    since_ns = mono_ns();
    for (int i = 0; i < 100000; i++) {
        buf_clear(&out);
        aggregate_merge(&spec, r, &out);
    }
    print_ns("three small parts merged", 100000);
    buf_free(&out);
    filters_fini();
    assert_int_equal(mem_bytes(MEM_FILTER), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compress_trips), cmocka_unit_test(test_compress_flushes), cmocka_unit_test(test_compress_ratio), cmocka_unit_test(test_compress_memory),
        cmocka_unit_test(test_compress_limit), cmocka_unit_test(test_compress_levels), cmocka_unit_test(test_compress_threads), cmocka_unit_test(test_compress_no_memory), cmocka_unit_test(test_negotiation), cmocka_unit_test(test_compress_which),
        cmocka_unit_test(test_body_changed), cmocka_unit_test(test_cors), cmocka_unit_test(test_cors_everybody), cmocka_unit_test(test_json_check), cmocka_unit_test(test_json_depth),
        cmocka_unit_test(test_json_pointers), cmocka_unit_test(test_transform_set), cmocka_unit_test(test_transform_remove), cmocka_unit_test(test_transform_rename),
        cmocka_unit_test(test_transform_replace), cmocka_unit_test(test_transform_then_compress), cmocka_unit_test(test_transform_which), cmocka_unit_test(test_transform_limits), cmocka_unit_test(test_dates),
        cmocka_unit_test(test_static_paths), cmocka_unit_test(test_ranges), cmocka_unit_test(test_static_files), cmocka_unit_test(test_static_fallback),
        cmocka_unit_test(test_static_conditions), cmocka_unit_test(test_static_ranges), cmocka_unit_test(test_static_precompressed), cmocka_unit_test(test_aggregate_paths),
        cmocka_unit_test(test_aggregate_merge), cmocka_unit_test(test_aggregate_members),
    };
    return cmocka_run_group_tests(tests, static_setup, static_teardown);
}
