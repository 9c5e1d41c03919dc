/* tls_hello_test.c - ClientHellos: built, cut into segments and records, and broken at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tls_hello.h"

static bool error_hit[HELLO_ERROR_COUNT];

/* ---- building ---- */

static void add_number(struct buf *b, size_t v, size_t width)
{
    while (width--) buf_addc(b, (char)(v >> (8 * width)));
}

static void add_block(struct buf *b, struct slice s, size_t width)
{
    add_number(b, s.n, width);
    buf_add_slice(b, s);
}

static void add_ext(struct buf *b, size_t type, struct slice data)
{
    add_number(b, type, 2);
    add_block(b, data, 2);
}

static void add_sni(struct buf *exts, struct slice name)
{
    struct buf list = {0}, ext = {0};
    add_number(&list, 0, 1);
    add_block(&list, name, 2);
    add_block(&ext, buf_slice(&list), 2);
    add_ext(exts, 0, buf_slice(&ext));
    buf_free(&list);
    buf_free(&ext);
}

static void add_alpn(struct buf *exts, struct slice names)
{
    struct buf ext = {0};
    add_block(&ext, names, 2);
    add_ext(exts, 16, buf_slice(&ext));
    buf_free(&ext);
}

/* A handshake message; exts NULL: without the extensions' block. */
static void message_of(struct buf *m, const struct buf *exts)
{
    struct buf body = {0};
    buf_adds(&body, "\3\3");
    for (int i = 0; i < 32; i++) buf_addc(&body, (char)(i * 5));
    add_block(&body, SLICE("0123456789abcdef0123456789abcdef"), 1);
    add_block(&body, SLICE("\x13\1\x13\2\xc0\x2f"), 2);
    add_block(&body, SLICE("\0"), 1);
    if (exts) add_block(&body, buf_slice(exts), 2);
    buf_clear(m);
    add_number(m, 1, 1);
    add_block(m, buf_slice(&body), 3);
    buf_free(&body);
}

/* The message in records of at most `piece` bytes. */
static void records_of(struct buf *out, struct slice m, size_t piece)
{
    buf_clear(out);
    while (m.n) {
        size_t n = MIN(m.n, piece);
        buf_adds(out, "\x16\3\1");
        add_block(out, slice_of(m.p, n), 2);
        m = slice_of(m.p + n, m.n - n);
    }
}

/* ---- parsing ---- */

/* The whole, and every prefix in a block of exactly that size, or some 200 of a long input. */
static enum hello_result parse(struct slice in, struct tls_hello *h, enum hello_error *error)
{
    enum hello_result whole = tls_hello_parse(in.p, in.n, h, error);
    for (size_t cut = 0; cut < in.n; cut += in.n / 200 + 1) {
        static struct tls_hello part;
        char *block = mem_grow(MEM_MISC, NULL, cut ? cut : 1);
        if (cut) memcpy(block, in.p, cut);
        enum hello_error part_error;
        enum hello_result r = tls_hello_parse(block, cut, &part, &part_error);
        if (r == HELLO_MORE) assert_true((whole != HELLO_DONE || cut < h->bytes) && part_error == HELLO_OK);
        else assert_true(r == whole && part_error == *error);
        mem_free(block);
    }
    if (whole == HELLO_BAD) error_hit[*error] = true;
    else assert_int_equal(*error, HELLO_OK);
    return whole;
}

static void bad(struct slice in, enum hello_error want)
{
    static struct tls_hello h;
    enum hello_error error;
    assert_int_equal(parse(in, &h, &error), HELLO_BAD);
    assert_string_equal(hello_error_label(error), hello_error_label(want));
}

static void bad_exts(const struct buf *exts, enum hello_error want)
{
    struct buf m = {0}, in = {0};
    message_of(&m, exts);
    static const size_t pieces[] = {16384, 7};
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        records_of(&in, buf_slice(&m), pieces[i]);
        bad(buf_slice(&in), want);
    }
    buf_free(&m);
    buf_free(&in);
}

/* ---- tests ---- */

static void check_names(const struct tls_hello *h)
{
    assert_true(slice_is(tls_hello_host(h), "shop.example"));
    size_t at = 0;
    struct slice name;
    assert_true(tls_hello_alpn(h, &at, &name) && slice_is(name, "h2"));
    assert_true(tls_hello_alpn(h, &at, &name) && slice_is(name, "http/1.1"));
    assert_false(tls_hello_alpn(h, &at, &name));
}

static void test_names(void **state)
{
    struct buf exts = {0}, m = {0}, in = {0};
    static struct tls_hello h;
    enum hello_error error;
    add_ext(&exts, 0x2a2a, SLICE("")); /* GREASE */
    add_sni(&exts, SLICE("Shop.Example."));
    add_ext(&exts, 43, SLICE("\2\3\4"));
    add_alpn(&exts, SLICE("\2h2\x08http/1.1"));
    message_of(&m, &exts);
    static const size_t pieces[] = {1, 2, 3, 4, 5, 50, 16384};
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        records_of(&in, buf_slice(&m), pieces[i]);
        size_t n = in.n;
        assert_int_equal(parse(buf_slice(&in), &h, &error), HELLO_DONE);
        assert_int_equal(h.bytes, n);
        check_names(&h);
        buf_adds(&in, "what follows");
        assert_int_equal(parse(buf_slice(&in), &h, &error), HELLO_DONE);
        assert_int_equal(h.bytes, n);
        check_names(&h);
    }
    buf_free(&exts);
    buf_free(&m);
    buf_free(&in);
}

static void test_without_names(void **state)
{
    struct buf exts = {0}, m = {0}, in = {0};
    static struct tls_hello h;
    enum hello_error error;
    for (int i = 0; i < 2; i++) {
        message_of(&m, i ? &exts : NULL);
        records_of(&in, buf_slice(&m), 16384);
        assert_int_equal(parse(buf_slice(&in), &h, &error), HELLO_DONE);
        assert_true(h.host_n == 0 && h.alpn_n == 0);
    }
    buf_free(&m);
    buf_free(&in);
}

static void test_not_tls(void **state)
{
    static const struct slice other[] = {SLICE("GET / HTTP/1.1\r\n"), SLICE("SSH-2.0-x"), SLICE("\x80\x2e\1\3\1"), SLICE("\0"),
                                         SLICE("\x16\xfe\xfd"), SLICE("\x15\3\1\0\2\1\0"), SLICE("\r\n\r\n")};
    static struct tls_hello h;
    enum hello_error error;
    for (size_t i = 0; i < COUNT_OF(other); i++) assert_int_equal(parse(other[i], &h, &error), HELLO_NOT_TLS);
    assert_int_equal(tls_hello_parse("", 0, &h, &error), HELLO_MORE);
}

static void test_bad_records(void **state)
{
    bad(SLICE("\x16\3\1\0\0"), HELLO_E_RECORD);
    bad(SLICE("\x16\3\1\x40\1"), HELLO_E_RECORD);
    bad(SLICE("\x16\3\1\0\1\1\x17\3\1\0\1\0"), HELLO_E_RECORD);
    bad(SLICE("\x16\3\1\0\1\1\x16\2"), HELLO_E_RECORD);
    bad(SLICE("\x16\3\1\0\4\2\0\0\0"), HELLO_E_HANDSHAKE);
    bad(SLICE("\x16\3\1\0\4\1\0\0\0"), HELLO_E_FORM);
    bad(SLICE("\x16\3\1\0\4\1\0\x40\0"), HELLO_E_SIZE);
}

static void test_limit(void **state)
{
    struct buf exts = {0}, m = {0}, in = {0}, pad = {0};
    static struct tls_hello h;
    enum hello_error error;
    message_of(&m, &exts);
    for (size_t over = 0; over < 2; over++) {
        buf_clear(&exts);
        buf_clear(&pad);
        while (pad.n < HELLO_BYTES_MAX - 5 - m.n - 4 + over) buf_addc(&pad, 'p');
        add_ext(&exts, 21, buf_slice(&pad));
        struct buf big = {0};
        message_of(&big, &exts);
        records_of(&in, buf_slice(&big), 16384);
        assert_int_equal(in.n, HELLO_BYTES_MAX + over);
        if (over) bad(buf_slice(&in), HELLO_E_SIZE);
        else assert_int_equal(parse(buf_slice(&in), &h, &error), HELLO_DONE);
        records_of(&in, buf_slice(&big), 1); /* the heads of the records count */
        bad(buf_slice(&in), HELLO_E_SIZE);
        buf_free(&big);
    }
    buf_free(&exts);
    buf_free(&m);
    buf_free(&in);
    buf_free(&pad);
}

static void test_bad_names(void **state)
{
    struct buf exts = {0};
    static const struct slice hosts[] = {SLICE(""), SLICE("."), SLICE("a b"), SLICE("a\0b"), SLICE("caf\xc3\xa9"), SLICE("a/b"), SLICE("*.a")};
    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        buf_clear(&exts);
        add_sni(&exts, hosts[i]);
        bad_exts(&exts, HELLO_E_HOST);
    }
    char longest[HELLO_HOST_MAX + 1];
    memset(longest, 'a', sizeof longest);
    buf_clear(&exts);
    add_sni(&exts, slice_of(longest, sizeof longest));
    bad_exts(&exts, HELLO_E_HOST);
    static const struct slice lists[] = {SLICE(""), SLICE("\0"), SLICE("\2h2\0")};
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        buf_clear(&exts);
        add_alpn(&exts, lists[i]);
        bad_exts(&exts, HELLO_E_ALPN);
    }
    char many[HELLO_ALPN_BYTES_MAX + 2];
    for (size_t i = 0; i < sizeof many; i++) many[i] = i % 2 ? 'x' : 1;
    buf_clear(&exts);
    add_alpn(&exts, slice_of(many, sizeof many));
    bad_exts(&exts, HELLO_E_ALPN);
    buf_free(&exts);
}

static void test_bad_form(void **state)
{
    struct buf exts = {0};
    add_alpn(&exts, SLICE("\3h2"));
    bad_exts(&exts, HELLO_E_FORM);
    static const struct slice names[] = {SLICE(""), SLICE("\0"), SLICE("\0\0"), SLICE("\0\1\0"), SLICE("\0\4\0\0\2a"), SLICE("\0\4\0\0\1a!")};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        buf_clear(&exts);
        add_ext(&exts, 0, names[i]);
        bad_exts(&exts, HELLO_E_FORM);
    }
    buf_clear(&exts);
    add_ext(&exts, 16, SLICE("\0\3\2h2!"));
    bad_exts(&exts, HELLO_E_FORM);
    buf_clear(&exts);
    add_ext(&exts, 5, SLICE("abc"));
    buf_addc(&exts, 0); /* half of a type */
    bad_exts(&exts, HELLO_E_FORM);
    buf_clear(&exts);
    add_sni(&exts, SLICE("a"));
    add_sni(&exts, SLICE("a"));
    bad_exts(&exts, HELLO_E_DUPLICATE);
    buf_clear(&exts);
    add_ext(&exts, 0, SLICE("\0\x08\0\0\1a\0\0\1b")); /* two host names in one list */
    bad_exts(&exts, HELLO_E_DUPLICATE);
    buf_clear(&exts);
    add_alpn(&exts, SLICE("\2h2"));
    add_alpn(&exts, SLICE("\2h2"));
    bad_exts(&exts, HELLO_E_DUPLICATE);
    buf_free(&exts);
}

/* The message's own length is cut at each place: never more than is there is read, and it is refused or has fewer names. */
static void test_cut_message(void **state)
{
    struct buf exts = {0}, m = {0}, in = {0}, cut = {0};
    static struct tls_hello h;
    enum hello_error error;
    add_sni(&exts, SLICE("shop.example"));
    add_alpn(&exts, SLICE("\2h2"));
    message_of(&m, &exts);
    for (size_t n = 0; n + 4 < m.n; n++) {
        buf_clear(&cut);
        add_number(&cut, 1, 1);
        add_block(&cut, slice_of(m.p + 4, n), 3);
        records_of(&in, buf_slice(&cut), 100);
        enum hello_result r = parse(buf_slice(&in), &h, &error);
        size_t without_exts = m.n - 4 - 2 - exts.n;
        assert_int_equal(r, n == without_exts ? HELLO_DONE : HELLO_BAD);
        if (r == HELLO_BAD) assert_int_equal(error, HELLO_E_FORM);
    }
    buf_free(&exts);
    buf_free(&m);
    buf_free(&in);
    buf_free(&cut);
}

/* Runs last. */
static void test_every_error_was_hit(void **state)
{
    for (int e = 1; e < HELLO_ERROR_COUNT; e++) {
        if (!error_hit[e]) fail_msg("no case for %s", hello_error_label((enum hello_error)e));
        assert_true(strlen(hello_error_text((enum hello_error)e)) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_without_names), cmocka_unit_test(test_not_tls),
        cmocka_unit_test(test_bad_records), cmocka_unit_test(test_limit), cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_bad_form), cmocka_unit_test(test_cut_message), cmocka_unit_test(test_every_error_was_hit),
    };
    return cmocka_run_group_tests_name("tls_hello", tests, NULL, NULL);
}
