/* http1_test.c - unit tests of the HTTP/1 codec. Every message is also parsed at each length of prefix, in a block of exactly
 * that length, so that wrong answers about cut messages and reads past the end show. At the end, every h1_error must have been
 * seen.
 */
#include "http1_int.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ASSERT_SLICE(s, text)                                                      \
    do {                                                                           \
        struct slice slice_ = (s), text_ = slice_cstr(text);                       \
        if (!slice_eq(slice_, text_))                                              \
            fail_msg("\"" SLICE_FMT "\" is not \"%s\"", SLICE_ARG(slice_), text);  \
    } while (0)

static bool error_seen[H1_ERROR_COUNT];

/* What one parse said. */
struct verdict {
    enum h1_result result;
    enum h1_error error;
    size_t used;
};

enum role { REQUEST, RESPONSE, RESPONSE_TO_HEAD, RESPONSE_TO_CONNECT };

static struct verdict parse_exact(enum role role, const struct h1_limits *lim, const char *p, size_t n, struct h1_head *h)
{
    static const enum h1_method methods[] = {[RESPONSE] = H1_GET, [RESPONSE_TO_HEAD] = H1_HEAD, [RESPONSE_TO_CONNECT] = H1_CONNECT};
    struct verdict v = {.error = H1_OK};
    v.result = role == REQUEST ? h1_parse_request(p, n, lim, h, &v.used, &v.error)
                               : h1_parse_response(p, n, lim, methods[role], h, &v.used, &v.error);
    return v;
}

/* Parses the whole of text and each prefix of it; h holds the whole one's result and points into text. */
static struct verdict parse_with(enum role role, const struct h1_limits *lim, struct slice text, struct h1_head *h)
{
    static struct h1_head part;
    struct verdict whole = parse_exact(role, lim, text.p, text.n, h);
    for (size_t n = 0; n < text.n; n++) {
        char *block = mem_strndup(MEM_MISC, text.p, n);
        block = mem_grow(MEM_MISC, block, n); /* without the NUL */
        struct verdict v = parse_exact(role, lim, block, n, &part);
        if (v.result == H1_BAD) {
            assert_int_equal(whole.result, H1_BAD);
            assert_string_equal(h1_error_label(v.error), h1_error_label(whole.error));
        } else if (v.result == H1_DONE) {
            assert_int_equal(whole.result, H1_DONE);
            assert_int_equal(v.used, whole.used);
        } else if (whole.result == H1_DONE) {
            assert_true(n < whole.used);
        }
        mem_free(block);
    }
    if (whole.result == H1_BAD)
        error_seen[whole.error] = true;
    return whole;
}

static struct h1_head head; /* large: not for the stack */

static void accept_request(const char *text)
{
    struct slice s = slice_cstr(text);
    struct verdict v = parse_with(REQUEST, &h1_limits_default, s, &head);
    if (v.result != H1_DONE)
        fail_msg("\"%s\": %s", text, v.result == H1_BAD ? h1_error_label(v.error) : "more");
    assert_int_equal(v.used, s.n);
    size_t from = 0;
    assert_int_equal(h1_head_end(s.p, s.n, &from), s.n);
}

static void accept_response(enum role role, const char *text)
{
    struct slice s = slice_cstr(text);
    struct verdict v = parse_with(role, &h1_limits_default, s, &head);
    if (v.result != H1_DONE)
        fail_msg("\"%s\": %s", text, v.result == H1_BAD ? h1_error_label(v.error) : "more");
    assert_int_equal(v.used, s.n);
}

static void refuse(enum role role, const struct h1_limits *lim, struct slice text, enum h1_error expected)
{
    struct verdict v = parse_with(role, lim, text, &head);
    if (v.result != H1_BAD || v.error != expected)
        fail_msg("\"" SLICE_FMT "\": %s, not %s", SLICE_ARG(text),
                 v.result == H1_BAD ? h1_error_label(v.error) : v.result == H1_MORE ? "more" : "accepted", h1_error_label(expected));
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static void test_request_whole(void **state)
{
    accept_request("GET /a/b%20c?x=1&y=?2 HTTP/1.1\r\nHost: example.com:8080\r\nX-Empty:\r\nx-tab: \t a\tb \t\r\n"
                   "Accept: */*\r\nACCEPT: text/plain;q=0.5\r\nX-8bit: gr\xc3\xbc\xc3\x9f""e\r\n\r\n");
    ASSERT_SLICE(head.method, "GET");
    assert_int_equal(head.method_id, H1_GET);
    ASSERT_SLICE(head.target, "/a/b%20c?x=1&y=?2");
    ASSERT_SLICE(head.path, "/a/b%20c");
    ASSERT_SLICE(head.query, "x=1&y=?2");
    assert_true(head.has_query);
    ASSERT_SLICE(head.authority, "example.com:8080");
    ASSERT_SLICE(head.host, "example.com");
    assert_int_equal(head.port, 8080);
    assert_int_equal(head.minor, 1);
    assert_int_equal(head.framing, H1_NO_BODY);
    assert_true(head.keep_alive);
    assert_false(head.expect_continue || head.upgrade || head.te_trailers || head.connection_lists);
    assert_int_equal(head.n, 6);
    ASSERT_SLICE(head.fields[1].name, "X-Empty");
    ASSERT_SLICE(head.fields[1].value, "");
    ASSERT_SLICE(head.fields[2].value, "a\tb");
    ASSERT_SLICE(head.fields[5].value, "gr\xc3\xbc\xc3\x9f""e");
    assert_int_equal(head.fields[0].id, H1_HOST);
    assert_int_equal(head.fields[3].id, H1_OTHER);
    assert_ptr_equal(h1_get(&head, H1_HOST), &head.fields[0]);
    assert_null(h1_get(&head, H1_COOKIE));
    assert_ptr_equal(h1_find(&head, SLICE("accept")), &head.fields[3]);
    assert_ptr_equal(h1_find(&head, SLICE("hOST")), &head.fields[0]);
    assert_null(h1_find(&head, SLICE("accep")));
}

static void test_request_methods(void **state)
{
    static const struct { const char *name; enum h1_method id; } cases[] = {
        {"GET", H1_GET}, {"HEAD", H1_HEAD}, {"POST", H1_POST}, {"PUT", H1_PUT}, {"DELETE", H1_DELETE}, {"OPTIONS", H1_OPTIONS},
        {"TRACE", H1_TRACE}, {"PATCH", H1_PATCH}, {"get", H1_M_OTHER}, {"GE", H1_M_OTHER}, {"GETT", H1_M_OTHER}, {"PROPFIND", H1_M_OTHER},
        {"!#$%&'*+-.^_`|~09azAZ", H1_M_OTHER}, {"PUR", H1_M_OTHER}, {"POSX", H1_M_OTHER}, {"PATCX", H1_M_OTHER}, {"DELETX", H1_M_OTHER},
        {"OPTIONX", H1_M_OTHER},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_printf(&b, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].name);
        accept_request(b.p);
        ASSERT_SLICE(head.method, cases[i].name);
        assert_int_equal(head.method_id, cases[i].id);
        buf_free(&b);
    }
}

static void test_request_targets(void **state)
{
    static const struct { const char *line, *path, *query, *authority, *host; uint16_t port; } cases[] = {
        {"GET /", "/", NULL, "h", "h", 0},
        {"GET /?", "/", "", "h", "h", 0},
        {"GET //a/../b;c=d", "//a/../b;c=d", NULL, "h", "h", 0},
        {"GET /a\"<>\\^`{|}", "/a\"<>\\^`{|}", NULL, "h", "h", 0},
        {"GET http://Ex.org", "/", NULL, "Ex.org", "Ex.org", 0},
        {"GET http://ex.org?q", "/", "q", "ex.org", "ex.org", 0},
        {"GET HTTPS://ex.org:443/p?q", "/p", "q", "ex.org:443", "ex.org", 443},
        {"GET http://ex.org:/", "/", NULL, "ex.org:", "ex.org", 0},
        {"GET http://[::1]:65535/", "/", NULL, "[::1]:65535", "[::1]", 65535},
        {"OPTIONS *", "*", NULL, "h", "h", 0},
        {"OPTIONS http://ex.org:8001", "*", NULL, "ex.org:8001", "ex.org", 8001},
        {"OPTIONS http://ex.org/", "/", NULL, "ex.org", "ex.org", 0},
        {"CONNECT ex.org:443", "", NULL, "ex.org:443", "ex.org", 443},
        {"CONNECT [2001:db8::1.2.3.4]:80", "", NULL, "[2001:db8::1.2.3.4]:80", "[2001:db8::1.2.3.4]", 80},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_printf(&b, "%s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].line);
        accept_request(b.p);
        ASSERT_SLICE(head.path, cases[i].path);
        assert_int_equal(head.has_query, cases[i].query != NULL);
        ASSERT_SLICE(head.query, cases[i].query ? cases[i].query : "");
        ASSERT_SLICE(head.authority, cases[i].authority);
        ASSERT_SLICE(head.host, cases[i].host);
        assert_int_equal(head.port, cases[i].port);
        buf_free(&b);
    }
}

static void test_request_hosts(void **state)
{
    static const struct { const char *value, *host; uint16_t port; } good[] = {
        {"example.com", "example.com", 0}, {"EXAMPLE.com.", "EXAMPLE.com.", 0}, {"127.0.0.1:80", "127.0.0.1", 80}, {"a_b-c~:1", "a_b-c~", 1},
        {"[::]", "[::]", 0}, {"[fe80::1]:8080", "[fe80::1]", 8080}, {"a%20b", "a%20b", 0}, {"h:", "h", 0}, {"h:00080", "h", 80},
    };
    static const char *const bad[] = {
        "", "a b", "a/b", "user@h", "h:x", "h:65536", "h:0", "h:-1", ":80", "[::1", "[]", "[1.2.3.4]", "[::1]x", "[g::1]", "[v1.x:y]", "h:80:80", "a%2",
        "a%zz", "a,b c", "a?b", "a#b", "h\xc3\xbc", "a\\b", "99999999999999999999:99999999999999999999", "a\tb",
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct buf b = {0};
        buf_printf(&b, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i].value);
        accept_request(b.p);
        ASSERT_SLICE(head.authority, good[i].value);
        ASSERT_SLICE(head.host, good[i].host);
        assert_int_equal(head.port, good[i].port);
        buf_free(&b);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct buf b = {0};
        buf_printf(&b, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        refuse(REQUEST, &h1_limits_default, buf_slice(&b), H1_E_HOST);
        buf_clear(&b);
        if (bad[i][0] && !strpbrk(bad[i], " \t/?#\xc3")) { /* those end or spoil a target elsewhere */
            buf_printf(&b, "GET http://%s/ HTTP/1.1\r\nHost: h\r\n\r\n", bad[i]);
            refuse(REQUEST, &h1_limits_default, buf_slice(&b), H1_E_HOST);
        }
        buf_free(&b);
    }
    accept_request("GET / HTTP/1.0\r\n\r\n");
    assert_int_equal(head.authority.n, 0);
}

static void test_request_connection(void **state)
{
    static const struct { const char *fields; uint8_t minor; bool keep, upgrade, lists, te; } cases[] = {
        {"", 1, true, false, false, false},
        {"", 0, false, false, false, false},
        {"Connection: keep-alive\r\n", 0, true, false, false, false},
        {"Connection: close\r\n", 1, false, false, false, false},
        {"Connection: x, CLOSE\r\n", 1, false, false, true, false},
        {"Connection: keep-alive, close\r\n", 0, false, false, false, false},
        {"Connection: keep-alive\r\nConnection: close\r\n", 1, false, false, false, false},
        {"Connection: Keep-Alive\r\nA: b\r\nConnection:,, x-foo ,\r\n", 0, true, false, true, false},
        {"Connection: upgrade\r\n", 1, true, false, false, false},
        {"Connection: Upgrade\r\nUpgrade: websocket\r\n", 1, true, true, false, false},
        {"Connection: Upgrade\r\nUpgrade: websocket\r\n", 0, false, false, false, false},
        {"Upgrade: websocket\r\n", 1, true, false, false, false},
        {"Connection: TE\r\nTE: gzip;q=0.5, Trailers\r\n", 1, true, false, false, true},
        {"TE: trailersx\r\n", 1, true, false, false, false},
        {"Connection: closed\r\n", 1, true, false, true, false},
        {"Connection:\r\n", 1, true, false, false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_printf(&b, "GET / HTTP/1.%d\r\nHost: h\r\n%s\r\n", cases[i].minor, cases[i].fields);
        accept_request(b.p);
        assert_int_equal(head.minor, cases[i].minor);
        assert_int_equal(head.keep_alive, cases[i].keep);
        assert_int_equal(head.upgrade, cases[i].upgrade);
        assert_int_equal(head.connection_lists, cases[i].lists);
        assert_int_equal(head.te_trailers, cases[i].te);
        buf_free(&b);
    }
    accept_request("GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Foo, close\r\nConnection: bar\r\n\r\n");
    assert_true(h1_connection_names(&head, SLICE("x-foo")) && h1_connection_names(&head, SLICE("BAR")));
    assert_false(h1_connection_names(&head, SLICE("x-fo")) || h1_connection_names(&head, SLICE("")));
    accept_request("GET / HTTP/1.1\r\nHost: h\r\nConnection:\r\n\r\n");
    assert_false(h1_connection_names(&head, SLICE("")));
    accept_request("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n\r\n");
    assert_true(head.expect_continue);
    accept_request("GET / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
    assert_false(head.expect_continue);
    accept_request("GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n");
    assert_false(head.expect_continue);
}

static void test_request_framing(void **state)
{
    accept_request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(head.framing, H1_LENGTH);
    assert_int_equal(head.length, 0);
    accept_request("POST / HTTP/1.0\r\nContent-Length: 0009223372036854775807\r\n\r\n");
    assert_int_equal(head.framing, H1_LENGTH);
    assert_true(head.length == INT64_MAX);
    accept_request("POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n");
    assert_int_equal(head.framing, H1_CHUNKED);
    accept_request("POST / HTTP/1.9\r\nHost: h\r\n\r\n"); /* a later minor counts as 1 */
    assert_int_equal(head.minor, 1);
    accept_request("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_SLICE(head.method, "GET");
}

static void test_request_refused(void **state)
{
    static const struct { struct slice text; enum h1_error error; } cases[] = {
        {SLICE("\r\n\r\nGET / HTTP/1.1\r\n"), H1_E_REQUEST_LINE}, /* two empty lines */
        {SLICE("\nGET / HTTP/1.1\r\n"), H1_E_BARE_LF},
        {SLICE("\rGET / HTTP/1.1\r\n"), H1_E_BARE_CR},
        {SLICE("GET\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET\n"), H1_E_BARE_LF},
        {SLICE(" GET / HTTP/1.1\r\n"), H1_E_METHOD},
        {SLICE("G\tET / HTTP/1.1\r\n"), H1_E_METHOD},
        {SLICE("G(T / HTTP/1.1\r\n"), H1_E_METHOD},
        {SLICE("\x16\x03\x01\x02"), H1_E_METHOD}, /* TLS where HTTP is spoken */
        {SLICE("G\0T / HTTP/1.1\r\n"), H1_E_METHOD},
        {SLICE("GET /\r\n"), H1_E_REQUEST_LINE}, /* HTTP/0.9 */
        {SLICE("GET /\n"), H1_E_BARE_LF},
        {SLICE("GET  / HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET x HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET ?x HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET /a#b HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET /\x7f HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET /\0 HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET /\t HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET /\xc3\xbc HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET * HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("OPTIONS *x HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET ftp://h/ HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET h:80 HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET http:///a HTTP/1.1\r\n"), H1_E_HOST},
        {SLICE("GET http://u@h/ HTTP/1.1\r\n"), H1_E_HOST},
        {SLICE("CONNECT / HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("CONNECT h HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("CONNECT h: HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("CONNECT http://h:80/ HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("CONNECT h:80?x HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET / \r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / HTTP/1.1 \r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / HTTP/1.1  x\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / http/1.1\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / HTTP/1,1\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / HTTP/1.10\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET / HTTP/1.\n"), H1_E_BARE_LF},
        {SLICE("GET / HTTP/x.1\r\n"), H1_E_REQUEST_LINE},
        {SLICE("GET  HTTP/1.1\r\n"), H1_E_TARGET},
        {SLICE("GET / HTTP/2.0\r\n"), H1_E_VERSION},
        {SLICE("GET / HTTP/0.9\r\n"), H1_E_VERSION},
        {SLICE("PRI * HTTP/2.0\r\n"), H1_E_TARGET}, /* the HTTP/2 preface: asterisk-form is for OPTIONS */
        {SLICE("GET / HTTP/1.1\n"), H1_E_BARE_LF},
        {SLICE("GET / HTTP/1.1\r\r\n"), H1_E_BARE_CR},
        {SLICE("GET / HTTP/1.1\r\nA: b\nHost: h\r\n\r\n"), H1_E_BARE_LF},
        {SLICE("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"), H1_E_BARE_CR},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\n\n"), H1_E_BARE_LF},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\n\rX"), H1_E_BARE_CR},
        {SLICE("GET / HTTP/1.1\r\n Host: h\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("GET / HTTP/1.1\r\nA: b\r\n c\r\nHost: h\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("GET / HTTP/1.1\r\nA: b\r\n\tc\r\nHost: h\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("GET / HTTP/1.1\r\nHost : h\r\n\r\n"), H1_E_FIELD_SPACE},
        {SLICE("GET / HTTP/1.1\r\nHost\t: h\r\n\r\n"), H1_E_FIELD_SPACE},
        {SLICE("GET / HTTP/1.1\r\n: h\r\n\r\n"), H1_E_FIELD_NAME},
        {SLICE("GET / HTTP/1.1\r\nA(b: h\r\n\r\n"), H1_E_FIELD_NAME},
        {SLICE("GET / HTTP/1.1\r\nA\0b: h\r\n\r\n"), H1_E_FIELD_NAME},
        {SLICE("GET / HTTP/1.1\r\nA\x80: h\r\n\r\n"), H1_E_FIELD_NAME},
        {SLICE("GET / HTTP/1.1\r\nHost\r\n\r\n"), H1_E_FIELD_COLON},
        {SLICE("GET / HTTP/1.1\r\nHost\n\r\n"), H1_E_BARE_LF},
        {SLICE("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n"), H1_E_FIELD_VALUE},
        {SLICE("GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n"), H1_E_FIELD_VALUE},
        {SLICE("GET / HTTP/1.1\r\nA: \x0b" "b\r\n\r\n"), H1_E_FIELD_VALUE},
        {SLICE("GET / HTTP/1.1\r\n\r\n"), H1_E_HOST_MISSING},
        {SLICE("GET http://h/ HTTP/1.1\r\n\r\n"), H1_E_HOST_MISSING},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n"), H1_E_HOST_DUPLICATE},
        {SLICE("GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n"), H1_E_HOST_DUPLICATE},
        {SLICE("GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n"), H1_E_HOST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), H1_E_CONTENT_LENGTH_DUPLICATE},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-length: 2\r\n\r\n"), H1_E_CONTENT_LENGTH_DUPLICATE},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 5\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_LENGTH_AND_CODING},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\n"), H1_E_LENGTH_AND_CODING},
        {SLICE("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_CODING_VERSION},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), H1_E_CODING_UNKNOWN},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_CODING_UNKNOWN},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;a=b\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: identity\r\n\r\n"), H1_E_CODING_LAST},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n"), H1_E_CODING_SYNTAX},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n"), H1_E_CODING_SYNTAX},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n"), H1_E_CODING_SYNTAX},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0b" "chunked\r\n\r\n"), H1_E_FIELD_VALUE},
        {SLICE("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n"), H1_E_FIELD_SPACE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        refuse(REQUEST, &h1_limits_default, cases[i].text, cases[i].error);
}

static void test_request_limits(void **state)
{
    static const char text[] = "GET /aaaaa HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
    struct slice s = SLICE(text);
    struct h1_limits lim = {.head_bytes_max = (uint32_t)s.n, .target_bytes_max = 6, .fields_max = 2};
    assert_int_equal(parse_with(REQUEST, &lim, s, &head).result, H1_DONE); /* all limits exactly met */
    lim.head_bytes_max--;
    refuse(REQUEST, &lim, s, H1_E_HEAD_SIZE);
    lim.head_bytes_max = 65536;
    lim.target_bytes_max--;
    refuse(REQUEST, &lim, s, H1_E_TARGET_SIZE);
    lim.target_bytes_max++;
    lim.fields_max--;
    refuse(REQUEST, &lim, s, H1_E_FIELDS_COUNT);

    /* fields_max cannot exceed the room there is */
    struct buf b = {0};
    buf_printf(&b, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 1; i < H1_FIELDS_MAX; i++)
        buf_printf(&b, "a%d: %d\r\n", i, i);
    lim.fields_max = UINT16_MAX;
    struct buf whole = {0};
    buf_printf(&whole, "%s\r\n", b.p);
    assert_int_equal(parse_with(REQUEST, &lim, buf_slice(&whole), &head).result, H1_DONE);
    assert_int_equal(head.n, H1_FIELDS_MAX);
    buf_printf(&b, "one: more\r\n\r\n");
    refuse(REQUEST, &lim, buf_slice(&b), H1_E_FIELDS_COUNT);
    buf_free(&whole);
    buf_free(&b);

    assert_int_equal(h1_error_status(H1_E_HEAD_SIZE), 431);
    assert_int_equal(h1_error_status(H1_E_FIELDS_COUNT), 431);
    assert_int_equal(h1_error_status(H1_E_TARGET_SIZE), 414);
    assert_int_equal(h1_error_status(H1_E_VERSION), 505);
    assert_int_equal(h1_error_status(H1_E_CODING_UNKNOWN), 501);
    assert_string_equal(h1_error_label(H1_E_OBS_FOLD), "obs_fold");
    assert_non_null(strstr(h1_error_text(H1_E_OBS_FOLD), "line folding"));
}

/* Pipelined requests: each head ends where it ends, whatever comes behind. */
static void test_request_pipelined(void **state)
{
    struct slice s = SLICE("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n\x01garbage");
    struct verdict v = parse_exact(REQUEST, &h1_limits_default, s.p, s.n, &head);
    assert_int_equal(v.result, H1_DONE);
    ASSERT_SLICE(head.path, "/1");
    size_t from = 0;
    assert_int_equal(h1_head_end(s.p, s.n, &from), v.used);
    s = slice_of(s.p + v.used, s.n - v.used);
    v = parse_exact(REQUEST, &h1_limits_default, s.p, s.n, &head);
    assert_int_equal(v.result, H1_DONE);
    ASSERT_SLICE(head.host, "b");
    v = parse_exact(REQUEST, &h1_limits_default, s.p + v.used, s.n - v.used, &head);
    assert_int_equal(v.result, H1_BAD);
}

/* A byte of each value at each place of a name, a value and a target: the vector loops agree with the grammar. */
static void test_scanners(void **state)
{
    char text[80];
    for (size_t n = 1; n < 50; n++) {
        for (size_t at = 0; at < n; at++) {
            for (int c = 0; c < 256; c++) {
                memset(text, 'a', n);
                text[at] = (char)c;
                char *block = mem_grow(MEM_MISC, NULL, n); /* exact, for AddressSanitizer */
                memcpy(block, text, n);
                const char *end = block + n, *query;
                bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                bool token = alnum || (c && strchr("!#$%&'*+-.^_`|~", c));
                assert_ptr_equal(h1_scan_token(block, end), token ? end : block + at);
                bool value = c == '\t' || (c >= 0x20 && c != 0x7f);
                assert_ptr_equal(h1_scan_value(block, end), value ? end : block + at);
                bool target = c > 0x20 && c < 0x7f && c != '#';
                assert_ptr_equal(h1_scan_target(block, end, &query), target ? end : block + at);
                assert_ptr_equal(query, c == '?' ? block + at : NULL);
                block[n - 1] = '?';
                h1_scan_target(block, end, &query); /* a '?' behind the stop does not count */
                assert_ptr_equal(query, at == n - 1 || target ? (c == '?' && at < n - 1 ? block + at : end - 1) : NULL);
                mem_free(block);
            }
        }
    }
}

static void test_names(void **state)
{
    static const struct { enum h1_name id; const char *text; } names[] = {
#define X(id, name) {H1_##id, name},
#include "http1_fields.def"
#undef X
    };
    assert_int_equal(COUNT_OF(names), H1_NAME_COUNT - 1);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char text[32];
        size_t n = strlen(names[i].text);
        memcpy(text, names[i].text, n + 1);
        for (size_t k = 0; k <= n; k++) { /* upper case from the front */
            assert_int_equal(h1_name_id(slice_of(text, n)), names[i].id);
            if (text[k] >= 'a')
                text[k] = (char)(text[k] - 32);
        }
        for (size_t k = 0; k < n; k++) { /* a letter off, anywhere */
            memcpy(text, names[i].text, n + 1);
            text[k] = text[k] == 'x' ? 'y' : 'x';
            assert_true(h1_name_id(slice_of(text, n)) != names[i].id);
            text[k] = (char)(names[i].text[k] & ~0x20); /* '-' becomes CR, which folds back to '-' */
            assert_int_equal(h1_name_id(slice_of(text, n)), text[k] == '\r' ? H1_OTHER : names[i].id);
        }
        assert_int_equal(h1_name_id(slice_of(names[i].text, n - 1)) == names[i].id, false);
    }
    assert_int_equal(h1_name_id(SLICE("")), H1_OTHER);
    assert_int_equal(h1_name_id(SLICE("x")), H1_OTHER);
    assert_int_equal(h1_name_id(SLICE("a-very-long-name-of-a-field")), H1_OTHER);
}

static void test_head_end(void **state)
{
    static const struct { struct slice text; size_t end; } cases[] = {
        {SLICE("GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), 24},
        {SLICE("\r\nGET /\r\n\r\n"), 11},
        {SLICE("GET /\n\nrest"), 7},
        {SLICE("GET /\n\r\nrest"), 8},
        {SLICE("GET /\r\n\nrest"), 8},
        {SLICE("GET /\r\nA: b\r\n"), 0},
        {SLICE("GET /\r\n\rX\r\n"), 0},
        {SLICE(""), 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t from = 0;
        assert_int_equal(h1_head_end(cases[i].text.p, cases[i].text.n, &from), cases[i].end);
        from = 0;
        size_t end = 0, n = 0;
        while (!end && n < cases[i].text.n) { /* byte by byte, never far behind */
            end = h1_head_end(cases[i].text.p, ++n, &from);
            assert_true(end || from + 2 >= n);
        }
        assert_int_equal(end, cases[i].end);
        if (end)
            assert_int_equal(n, end);
    }
}

/* ---- responses ------------------------------------------------------------------------------------------------------------ */

static void test_response_whole(void **state)
{
    accept_response(RESPONSE, "HTTP/1.1 200 Very OK\t\xe4\r\nContent-Length: 12\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n");
    assert_int_equal(head.status, 200);
    ASSERT_SLICE(head.reason, "Very OK\t\xe4");
    assert_int_equal(head.framing, H1_LENGTH);
    assert_int_equal(head.length, 12);
    assert_int_equal(head.n, 3);
    assert_true(head.keep_alive);
    ASSERT_SLICE(h1_get(&head, H1_SET_COOKIE)->value, "a");
    accept_response(RESPONSE, "HTTP/1.1 999 \r\n\r\n");
    ASSERT_SLICE(head.reason, "");
    accept_response(RESPONSE, "HTTP/1.1 404\r\n\r\n");
    ASSERT_SLICE(head.reason, "");
}

static void test_response_framing(void **state)
{
    static const struct { enum role role; const char *text; enum h1_framing framing; bool keep; } cases[] = {
        {RESPONSE, "HTTP/1.1 200 OK\r\n\r\n", H1_UNTIL_CLOSE, false},
        {RESPONSE, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", H1_UNTIL_CLOSE, false},
        {RESPONSE, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", H1_LENGTH, true},
        {RESPONSE, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", H1_LENGTH, false},
        {RESPONSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1_CHUNKED, true},
        {RESPONSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", H1_CHUNKED, false},
        {RESPONSE, "HTTP/1.1 100 Continue\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", H1_LENGTH, true},
        {RESPONSE_TO_HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE_TO_HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE_TO_HEAD, "HTTP/1.1 200 OK\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE_TO_CONNECT, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", H1_NO_BODY, true},
        {RESPONSE_TO_CONNECT, "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", H1_LENGTH, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        accept_response(cases[i].role, cases[i].text);
        assert_int_equal(head.framing, cases[i].framing);
        assert_int_equal(head.keep_alive, cases[i].keep);
    }
}

static void test_response_refused(void **state)
{
    static const struct { struct slice text; enum h1_error error; } cases[] = {
        {SLICE("\r\nHTTP/1.1 200 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1  200 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 20 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 2000 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 099 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 +20 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 200 O\0K\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 200\tOK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/1.1 2\n"), H1_E_BARE_LF},
        {SLICE("ICY 200 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("<html>"), H1_E_STATUS_LINE},
        {SLICE("HTTP/2 200 OK\r\n\r\n"), H1_E_STATUS_LINE},
        {SLICE("HTTP/3.0 200 OK\r\n\r\n"), H1_E_VERSION},
        {SLICE("HTTP/1.1 200 OK\n\r\n"), H1_E_BARE_LF},
        {SLICE("HTTP/1.1 200 OK\rX\r\n\r\n"), H1_E_BARE_CR},
        {SLICE("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), H1_E_FIELD_SPACE},
        {SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_LENGTH_AND_CODING},
        {SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), H1_E_CONTENT_LENGTH_DUPLICATE},
        {SLICE("HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n"), H1_E_CONTENT_LENGTH},
        {SLICE("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_E_CODING_VERSION},
        {SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), H1_E_CODING_UNKNOWN},
        {SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), H1_E_CODING_UNKNOWN},
        {SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"), H1_E_CODING_LAST},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        refuse(RESPONSE, &h1_limits_default, cases[i].text, cases[i].error);
}

/* ---- chunked ---------------------------------------------------------------------------------------------------------------- */

static struct h1_chunked chunked;

/* Feeds text cut into pieces of `piece` bytes; data collects the body. */
static struct verdict dechunk(struct slice text, size_t piece, struct buf *data)
{
    struct verdict v = {.result = H1_MORE};
    h1_chunked_init(&chunked);
    while (v.used < text.n && v.result == H1_MORE) {
        size_t n = MIN(piece, text.n - v.used), used = 0;
        char *block = mem_grow(MEM_MISC, NULL, n);
        memcpy(block, text.p + v.used, n);
        while (used < n && v.result == H1_MORE) {
            struct slice got;
            size_t taken;
            v.result = h1_chunked_next(&chunked, block + used, n - used, &taken, &got, &v.error);
            if (v.result == H1_BAD)
                break;
            buf_add_slice(data, got);
            assert_true(taken > 0);
            used += taken;
        }
        v.used += used;
        mem_free(block);
    }
    return v;
}

static void accept_chunked(struct slice text, const char *body, const char *trailer, size_t used)
{
    for (size_t piece = 1; piece <= text.n; piece++) {
        struct buf data = {0};
        struct verdict v = dechunk(text, piece, &data);
        if (v.result != H1_DONE)
            fail_msg("\"" SLICE_FMT "\": %s", SLICE_ARG(text), v.result == H1_BAD ? h1_error_label(v.error) : "more");
        assert_int_equal(v.used, used);
        ASSERT_SLICE(buf_slice(&data), body);
        ASSERT_SLICE(slice_of(chunked.trailer, chunked.trailer_n), trailer);
        size_t taken;
        struct slice got;
        assert_int_equal(h1_chunked_next(&chunked, "x", 1, &taken, &got, &v.error), H1_DONE); /* done stays done */
        assert_int_equal(taken, 0);
        buf_free(&data);
    }
}

static void test_chunked_accepted(void **state)
{
    accept_chunked(SLICE("0\r\n\r\n"), "", "", 5);
    accept_chunked(SLICE("5\r\nhello\r\n0\r\n\r\nGET"), "hello", "", 15);
    accept_chunked(SLICE("5;a=b\r\nhello\r\n1 ; c=\"d;e\"\r\n!\r\n0000;x\r\n\r\n"), "hello!", "", 40);
    accept_chunked(SLICE("1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0B\r\nhello\r\nhell\r\n0\r\nA: b\r\nC:\r\n\r\n"),
                   "abcdefghijklmnopqrstuvwxyzhello\r\nhell", "A: b\r\nC:\r\n", 64);
    accept_chunked(SLICE("1;\r\na\r\n0;\xe4\t\r\n\r\n"), "a", "", 15);
}

static void test_chunked_refused(void **state)
{
    static const struct { struct slice text; enum h1_error error; } cases[] = {
        {SLICE("\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("g\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("0x5\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("-1\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("+1\r\n"), H1_E_CHUNK_SIZE},
        {SLICE(" 1\r\n"), H1_E_CHUNK_SIZE},
        {SLICE(";a\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("1 \r\n"), H1_E_CHUNK_SIZE},
        {SLICE("1 2\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("5,5\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("5\0\r\n"), H1_E_CHUNK_SIZE},
        {SLICE("8000000000000000\r\n"), H1_E_CHUNK_SIZE_OVERFLOW},
        {SLICE("10000000000000000\r\n"), H1_E_CHUNK_SIZE_OVERFLOW},
        {SLICE("00000000000000001\r\n"), H1_E_CHUNK_SIZE_OVERFLOW},
        {SLICE("5\nhello\r\n"), H1_E_BARE_LF},
        {SLICE("5\rhello\r\n"), H1_E_BARE_CR},
        {SLICE("5;a\nhello\r\n"), H1_E_BARE_LF},
        {SLICE("5;a\rb\r\nhello\r\n"), H1_E_BARE_CR},
        {SLICE("5;a\0b\r\nhello\r\n"), H1_E_CHUNK_EXTENSION},
        {SLICE("5;a\x7f\r\nhello\r\n"), H1_E_CHUNK_EXTENSION},
        {SLICE("5\r\nhello0\r\n\r\n"), H1_E_CHUNK_END},
        {SLICE("5\r\nhello\rX0\r\n\r\n"), H1_E_CHUNK_END},
        {SLICE("5\r\nhello\n0\r\n\r\n"), H1_E_BARE_LF},
        {SLICE("0\r\nA\r\n\r\n"), H1_E_FIELD_COLON},
        {SLICE("0\r\nA : b\r\n\r\n"), H1_E_FIELD_SPACE},
        {SLICE("0\r\n A: b\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("0\r\nA: b\r\n c\r\n\r\n"), H1_E_OBS_FOLD},
        {SLICE("0\r\nA: b\n\r\n"), H1_E_BARE_LF},
        {SLICE("0\r\n\n"), H1_E_BARE_LF},
        {SLICE("0\r\n\rX\r\n"), H1_E_BARE_CR},
        {SLICE("0\r\nA: \0\r\n\r\n"), H1_E_FIELD_VALUE},
        {SLICE("0\r\nGET / HTTP/1.1\r\n\r\n"), H1_E_FIELD_SPACE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t piece = 1; piece <= cases[i].text.n; piece++) {
            struct buf data = {0};
            struct verdict v = dechunk(cases[i].text, piece, &data);
            if (v.result != H1_BAD || v.error != cases[i].error)
                fail_msg("\"" SLICE_FMT "\" by %zu: %s, not %s", SLICE_ARG(cases[i].text), piece, h1_error_label(v.error),
                         h1_error_label(cases[i].error));
            error_seen[v.error] = true;
            buf_free(&data);
        }
}

static void test_chunked_limits(void **state)
{
    struct buf text = {0}, data = {0};
    buf_printf(&text, "1;%0*d\r\na\r\n0\r\n\r\n", H1_CHUNK_LINE_MAX - 2, 0);
    assert_int_equal(dechunk(buf_slice(&text), 7, &data).result, H1_DONE);
    buf_clear(&text);
    buf_printf(&text, "1;%0*d\r\na\r\n0\r\n\r\n", H1_CHUNK_LINE_MAX - 1, 0);
    struct verdict v = dechunk(buf_slice(&text), 7, &data);
    assert_int_equal(v.result, H1_BAD);
    assert_int_equal(v.error, H1_E_CHUNK_LINE_SIZE);
    error_seen[v.error] = true;

    /* trailers that fill the room to the last byte, and one byte more */
    for (int extra = 0; extra < 2; extra++) {
        for (size_t piece = 1; piece < 20000; piece = piece * 3 + 1) {
            buf_clear(&text);
            buf_printf(&text, "0\r\nA: %0*d\r\n\r\n", H1_TRAILER_BYTES_MAX - 5 + extra, 0);
            v = dechunk(buf_slice(&text), piece, &data);
            assert_int_equal(v.result, extra ? H1_BAD : H1_DONE);
            if (extra)
                assert_int_equal(v.error, H1_E_TRAILERS_SIZE);
        }
    }
    error_seen[H1_E_TRAILERS_SIZE] = true;
    buf_free(&text);
    buf_free(&data);
}

static void test_chunked_trailers(void **state)
{
    struct buf data = {0};
    struct h1_field fields[4];
    struct slice text = SLICE("0\r\nDigest: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nAuthorization: no\r\n"
                              "grpc-status: 0\r\nCache-Control: no-store\r\nX-Forwarded-For: 1.2.3.4\r\nServer: s\r\nA: \t b \r\n\r\n");
    assert_int_equal(dechunk(text, 3, &data).result, H1_DONE);
    assert_int_equal(h1_chunked_trailers(&chunked, fields, 4), 4);
    ASSERT_SLICE(fields[0].name, "Digest");
    ASSERT_SLICE(fields[1].name, "grpc-status");
    ASSERT_SLICE(fields[2].name, "Server");
    ASSERT_SLICE(fields[3].value, "b");
    assert_int_equal(h1_chunked_trailers(&chunked, fields, 3), -1);
    assert_int_equal(dechunk(SLICE("0\r\n\r\n"), 3, &data).result, H1_DONE);
    assert_int_equal(h1_chunked_trailers(&chunked, fields, 0), 0);
    memcpy(chunked.trailer, "A\r\n", 3); /* never collected so; must be told all the same */
    chunked.trailer_n = 3;
    assert_int_equal(h1_chunked_trailers(&chunked, fields, 4), -1);
    chunked.trailer_n = 2;
    assert_int_equal(h1_chunked_trailers(&chunked, fields, 4), -1);
    buf_free(&data);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

static void test_writing(void **state)
{
    char out[H1_CHUNK_HEAD_MAX];
    static const struct { uint64_t n; const char *text; } heads[] = {
        {1, "1\r\n"}, {15, "f\r\n"}, {16, "10\r\n"}, {0x1234abcd, "1234abcd\r\n"}, {UINT64_MAX, "ffffffffffffffff\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        ASSERT_SLICE(slice_of(out, h1_chunk_head(out, heads[i].n)), heads[i].text);
    assert_string_equal(h1_reason(200), "OK");
    assert_string_equal(h1_reason(431), "Request Header Fields Too Large");
    assert_string_equal(h1_reason(299), "Unknown");
    assert_string_equal(h1_reason(65535), "Unknown");
    assert_true(h1_is_token(SLICE("X-a.b")));
    assert_false(h1_is_token(SLICE("")) || h1_is_token(SLICE("a b")) || h1_is_token(SLICE("a:")));
    assert_true(h1_is_value(SLICE("")) && h1_is_value(SLICE("a \t\xff" "b")));
    assert_false(h1_is_value(SLICE(" a")) || h1_is_value(SLICE("a\t")) || h1_is_value(SLICE("a\r\nb")) || h1_is_value(SLICE("a\0")));
    for (int e = 0; e < H1_ERROR_COUNT; e++)
        assert_true(h1_error_status((enum h1_error)e) && h1_error_label((enum h1_error)e)[0] && h1_error_text((enum h1_error)e)[0]);
}

static void test_every_error_was_seen(void **state)
{
    for (int e = 1; e < H1_ERROR_COUNT; e++)
        if (!error_seen[e])
            fail_msg("no test hits %s", h1_error_label((enum h1_error)e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_whole), cmocka_unit_test(test_request_methods), cmocka_unit_test(test_request_targets),
        cmocka_unit_test(test_request_hosts), cmocka_unit_test(test_request_connection), cmocka_unit_test(test_request_framing),
        cmocka_unit_test(test_request_refused), cmocka_unit_test(test_request_limits), cmocka_unit_test(test_request_pipelined),
        cmocka_unit_test(test_scanners), cmocka_unit_test(test_names), cmocka_unit_test(test_head_end),
        cmocka_unit_test(test_response_whole), cmocka_unit_test(test_response_framing), cmocka_unit_test(test_response_refused),
        cmocka_unit_test(test_chunked_accepted), cmocka_unit_test(test_chunked_refused), cmocka_unit_test(test_chunked_limits),
        cmocka_unit_test(test_chunked_trailers), cmocka_unit_test(test_writing), cmocka_unit_test(test_every_error_was_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
