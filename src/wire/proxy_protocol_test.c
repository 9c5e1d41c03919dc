/* proxy_protocol_test.c - PROXY protocol headers: tables of good and bad ones, each at every length of prefix; writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy_protocol.h"

static bool error_hit[PP_ERROR_COUNT];

/* Parses every prefix, in blocks of exactly that size; the whole decides what they may say. */
static enum pp_result parse(const char *p, size_t n, struct pp_header *h, size_t *used, enum pp_error *error)
{
    enum pp_result whole = pp_parse(p, n, h, used, error);
    for (size_t cut = 0; cut < n; cut++) {
        char *block = mem_grow(MEM_MISC, NULL, cut ? cut : 1);
        if (cut) memcpy(block, p, cut);
        struct pp_header part;
        size_t part_used = 0;
        enum pp_error part_error;
        enum pp_result r = pp_parse(block, cut, &part, &part_used, &part_error);
        if (r == PP_MORE) assert_true((whole != PP_DONE || cut < *used) && part_error == PP_OK);
        else assert_true(r == whole && part_error == *error && (r == PP_BAD || part_used == *used));
        mem_free(block);
    }
    if (whole == PP_BAD) error_hit[*error] = true;
    return whole;
}

static struct pp_header good(const char *p, size_t n, size_t used_want)
{
    struct pp_header h;
    size_t used = 0;
    enum pp_error error;
    assert_int_equal(parse(p, n, &h, &used, &error), PP_DONE);
    assert_int_equal(used, used_want);
    assert_int_equal(error, PP_OK);
    return h;
}

static void bad(const char *p, size_t n, enum pp_error want)
{
    struct pp_header h;
    size_t used = 0;
    enum pp_error error;
    assert_int_equal(parse(p, n, &h, &used, &error), PP_BAD);
    assert_string_equal(pp_error_label(error), pp_error_label(want));
}

#define GOOD(lit) good(lit, sizeof(lit) - 1, sizeof(lit) - 1)
#define BAD(lit, want) bad(lit, sizeof(lit) - 1, PP_E_##want)
#define SIG "\r\n\r\n\0\r\nQUIT\n"

/* ---- version 1 ---- */

static void test_v1(void **state)
{
    struct pp_header h = GOOD("PROXY TCP4 192.168.0.1 10.0.0.255 56324 443\r\n");
    static const uint8_t src[4] = {192, 168, 0, 1}, dst[4] = {10, 0, 0, 255};
    assert_true(h.version == 1 && !h.local && h.src.family == PP_IP4 && h.dst.family == PP_IP4);
    assert_memory_equal(h.src.ip, src, 4);
    assert_memory_equal(h.dst.ip, dst, 4);
    assert_true(h.src.port == 56324 && h.dst.port == 443);
    h = GOOD("PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 0 65535\r\n");
    assert_true(h.src.family == PP_IP6 && h.src.ip[0] == 0x20 && h.src.ip[15] == 1 && h.dst.ip[12] == 1 && h.dst.port == 65535);
    h = GOOD("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    assert_int_equal(h.src.ip[7], 0xff);
    h = GOOD("PROXY UNKNOWN\r\n");
    assert_true(h.local && h.src.family == PP_NONE);
    h = GOOD("PROXY UNKNOWN whatever is here\r\n");
    assert_true(h.local);
    h = GOOD("PROXY UNKNOWN to the very limit of 107 bytes: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    assert_true(h.local);
    good("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n", 48, 32);
}

static void test_v1_bad(void **state)
{
    BAD("GET / HTTP/1.1\r\n", SIGNATURE);
    BAD("PROXY\r\n", SIGNATURE);
    BAD("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", SIGNATURE);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", V1_LINE);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx", V1_LINE);
    BAD("PROXY UNKNOWN a\nb\r\n", V1_LINE);
    BAD("PROXY UNKNOWN to the very limit of 107 bytes: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", V1_SIZE);
    BAD("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", V1_FAMILY);
    BAD("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", V1_FAMILY);
    BAD("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", V1_FAMILY);
    BAD("PROXY TCP4\r\n", V1_FORM);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", V1_FORM);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", V1_FORM);
    BAD("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", V1_FORM);
    BAD("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP4 ::1 ::1 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP6 [::1] ::1 1 2\r\n", V1_ADDRESS);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", V1_PORT);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", V1_PORT);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 -2\r\n", V1_PORT);
    BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999999999999999999\r\n", V1_PORT);
}

/* ---- version 2 ---- */

#define IN4 "\x7f\0\0\1\x0a\0\0\2\x1f\x90\0\x50"

static void test_v2(void **state)
{
    struct pp_header h = GOOD(SIG "\x21\x11\0\x0c" IN4);
    assert_true(h.version == 2 && !h.local && h.src.family == PP_IP4 && h.src.port == 8080 && h.dst.port == 80);
    assert_true(h.src.ip[0] == 127 && h.dst.ip[3] == 2);
    h = GOOD(SIG "\x21\x21\0\x24"
                 "0123456789abcdef0123456789ABCDEF\0\1\0\2");
    assert_true(h.src.family == PP_IP6 && h.src.ip[15] == 'f' && h.dst.ip[15] == 'F' && h.src.port == 1 && h.dst.port == 2);
    h = GOOD(SIG "\x20\0\0\0");
    assert_true(h.local);
    h = GOOD(SIG "\x20\xff\0\3???"); /* nothing of it is looked at */
    assert_true(h.local);
    h = GOOD(SIG "\x21\0\0\0"); /* PROXY, but of nothing known */
    assert_true(h.local);
    good(SIG "\x21\x11\0\x0c" IN4 "GET /", 33, 28);
}

static void test_v2_unix(void **state)
{
    char b[16 + 216] = SIG "\x21\x31\0\xd8/tmp/a";
    memset(b + 16 + 108, 'x', 108); /* no NUL: a path of full length */
    struct pp_header h = good(b, sizeof b, sizeof b);
    assert_true(h.src.family == PP_UNIX && slice_is(h.src.path, "/tmp/a") && h.dst.path.n == 108);
}

static void test_v2_tlvs(void **state)
{
    struct pp_header h = GOOD(SIG "\x21\x11\0\x43" IN4 "\1\0\2h2"
                                  "\2\0\5a.b.c"
                                  "\4\0\3\0\0\0"
                                  "\5\0\2id"
                                  "\xe5\0\0"
                                  "\x20\0\x19\5\0\0\0\1"
                                  "\x21\0\7TLSv1.3"
                                  "\x22\0\2me"
                                  "\x23\0\2xy");
    assert_true(slice_is(h.alpn, "h2") && slice_is(h.authority, "a.b.c") && slice_is(h.unique_id, "id") && !h.has_crc);
    assert_true(h.has_ssl && h.ssl_client == 5 && h.ssl_verify == 1 && slice_is(h.ssl_version, "TLSv1.3") && slice_is(h.ssl_cn, "me"));
    h = GOOD(SIG "\x21\x11\0\x13" IN4 "\3\0\4\x57\x9c\xd0\x74"); /* reckoned by another implementation */
    assert_true(h.has_crc);
}

static void test_v2_bad(void **state)
{
    BAD("\r\n\r\n\0\r\nQUIX", SIGNATURE);
    BAD(SIG "\x11\x11\0\x0c" IN4, V2_VERSION);
    BAD(SIG "\x22\x11\0\x0c" IN4, V2_COMMAND);
    BAD(SIG "\x21\x41\0\x0c" IN4, V2_FAMILY);
    BAD(SIG "\x21\x12\0\x0c" IN4, V2_TRANSPORT);
    BAD(SIG "\x21\x10\0\x0c" IN4, V2_TRANSPORT);
    BAD(SIG "\x21\x11\0\x0b" IN4, V2_ADDRESS);
    BAD(SIG "\x21\x21\0\x0c" IN4, V2_ADDRESS);
    BAD(SIG "\x21\x31\0\x0c" IN4, V2_ADDRESS);
    BAD(SIG "\x21\x11\x0f\xf1" IN4, V2_SIZE);
    BAD(SIG "\x20\0\xff\xff", V2_SIZE);
    BAD(SIG "\x21\x11\0\x0e" IN4 "\1\0", V2_TLV);
    BAD(SIG "\x21\x11\0\x10" IN4 "\1\0\2h", V2_TLV);
    BAD(SIG "\x21\x11\0\x13" IN4 "\x20\0\4\0\0\0\0", V2_TLV);
    BAD(SIG "\x21\x11\0\x12" IN4 "\3\0\3\0\0\0", V2_TLV);
    BAD(SIG "\x21\x11\0\x13" IN4 "\3\0\4\0\0\0\0", V2_CRC);
    char id[16 + 12 + 3 + 129] = SIG "\x21\x11\0\x90" IN4 "\5\0\x81";
    bad(id, sizeof id, PP_E_V2_TLV);
}

static void test_limit(void **state)
{
    static char b[PP_V2_BYTES_MAX + 1] = SIG "\x21\x11\x0f\xf0" IN4 "\xe0\x0f\xe1";
    good(b, sizeof b, PP_V2_BYTES_MAX);
}

/* ---- writing ---- */

static void check_addr(const struct pp_addr *a, const struct pp_addr *b)
{
    assert_int_equal(a->family, b->family);
    assert_int_equal(a->port, b->port);
    assert_memory_equal(a->ip, b->ip, 16);
    assert_true(slice_eq(a->path, b->path));
}

static void test_write_v1(void **state)
{
    char out[PP_V1_BYTES_MAX + 1];
    struct pp_header h = {.src = {.family = PP_IP4, .port = 1, .ip = {1, 2, 3, 4}}, .dst = {.family = PP_IP4, .port = 65535, .ip = {5, 6, 7, 8}}};
    size_t n = pp_write_v1(&h, out);
    assert_true(slice_is(slice_of(out, n), "PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n"));
    h.src.family = h.dst.family = PP_IP6;
    memset(h.src.ip, 0xfe, 16);
    memset(h.dst.ip, 0xfe, 16);
    h.src.port = 65535;
    n = pp_write_v1(&h, out);
    struct pp_header back = good(out, n, n);
    check_addr(&h.src, &back.src);
    check_addr(&h.dst, &back.dst);
    h.dst.family = PP_UNIX;
    n = pp_write_v1(&h, out);
    assert_true(slice_is(slice_of(out, n), "PROXY UNKNOWN\r\n"));
}

static void test_write_v2(void **state)
{
    char out[PP_V2_BYTES_MAX];
    struct pp_header h = {.src = {.family = PP_IP4, .port = 8080, .ip = {127, 0, 0, 1}}, .dst = {.family = PP_IP4, .port = 80, .ip = {10, 0, 0, 2}}};
    size_t n = pp_write_v2(&h, out, sizeof out);
    assert_int_equal(n, 28);
    assert_memory_equal(out, SIG "\x21\x11\0\x0c" IN4, 28);
    h.alpn = SLICE("h2");
    h.authority = SLICE("shop.example");
    h.unique_id = SLICE("abc");
    h.has_ssl = h.has_crc = true;
    h.ssl_client = PP_SSL_CLIENT | PP_SSL_CERT_CONN;
    h.ssl_verify = 7;
    h.ssl_version = SLICE("TLSv1.3");
    h.ssl_cn = SLICE("client");
    n = pp_write_v2(&h, out, sizeof out);
    struct pp_header back = good(out, n, n);
    check_addr(&h.src, &back.src);
    check_addr(&h.dst, &back.dst);
    assert_true(slice_eq(back.alpn, h.alpn) && slice_eq(back.authority, h.authority) && slice_eq(back.unique_id, h.unique_id));
    assert_true(back.has_ssl && back.has_crc && back.ssl_client == 3 && back.ssl_verify == 7);
    assert_true(slice_eq(back.ssl_version, h.ssl_version) && slice_eq(back.ssl_cn, h.ssl_cn));
    for (size_t i = 28; i < n - 7; i++) { /* no bit of the TLVs can change unnoticed */
        out[i] ^= 0x10;
        struct pp_header x;
        size_t used;
        enum pp_error error;
        assert_true(pp_parse(out, n, &x, &used, &error) == PP_BAD || !x.has_crc);
        out[i] ^= 0x10;
    }
    assert_int_equal(pp_write_v2(&h, out, n - 1), 0);
    struct pp_header unix_h = {.src = {.family = PP_UNIX, .path = SLICE("/run/a")}, .dst = {.family = PP_UNIX}};
    n = pp_write_v2(&unix_h, out, sizeof out);
    back = good(out, n, n);
    check_addr(&unix_h.src, &back.src);
    check_addr(&unix_h.dst, &back.dst);
    struct pp_header local = {.local = true, .has_crc = true};
    assert_int_equal(pp_write_v2(&local, out, sizeof out), 16);
    assert_true(good(out, 16, 16).local);
}

/* Runs last. */
static void test_every_error_was_hit(void **state)
{
    for (int e = 1; e < PP_ERROR_COUNT; e++) {
        if (!error_hit[e]) fail_msg("no case for %s", pp_error_label((enum pp_error)e));
        assert_true(strlen(pp_error_text((enum pp_error)e)) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1), cmocka_unit_test(test_v1_bad), cmocka_unit_test(test_v2), cmocka_unit_test(test_v2_unix),
        cmocka_unit_test(test_v2_tlvs), cmocka_unit_test(test_v2_bad), cmocka_unit_test(test_limit), cmocka_unit_test(test_write_v1),
        cmocka_unit_test(test_write_v2), cmocka_unit_test(test_every_error_was_hit),
    };
    return cmocka_run_group_tests_name("proxy_protocol", tests, NULL, NULL);
}
