/* dns_test.c - DNS messages: queries of every kind of fault, answers with compression and truncation, answers of others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dns.h"

/* ---- building ---- */

static struct dns_name name_of(const char *text)
{
    struct dns_name n;
    assert_int_equal(dns_name_of(slice_cstr(text), &n), OK);
    return n;
}

static void assert_name(const struct dns_name *name, const char *want)
{
    char text[DNS_TEXT_MAX];
    assert_int_equal(dns_name_text(name, text), strlen(want));
    assert_string_equal(text, want);
}

/* A head with these counts, RD set. */
static void head(struct buf *b, uint8_t flags_high, uint8_t qd, uint8_t an, uint8_t ns, uint8_t ar)
{
    const char h[DNS_HEAD_BYTES] = {0x12, 0x34, (char)flags_high, 0, 0, (char)qd, 0, (char)an, 0, (char)ns, 0, (char)ar};
    buf_clear(b);
    buf_add(b, h, sizeof h);
}

#define QUESTION "\4Shop\7default\3svc\7cluster\5local\0\0\1\0\1"
#define OPT_1400 "\0\0\51\5\170\0\0\0\0\0\0"

static enum dns_verdict parse(const struct buf *b, struct dns_query *q, enum dns_rcode *rcode)
{
    char *exact = mem_grow(MEM_MISC, NULL, b->n ? b->n : 1);
    memcpy(exact, b->p, b->n);
    enum dns_verdict v = dns_query_parse(exact, b->n, q, rcode);
    mem_free(exact);
    return v;
}

static void bad(const struct buf *b, enum dns_rcode want)
{
    struct dns_query q;
    enum dns_rcode rcode;
    assert_int_equal(parse(b, &q, &rcode), DNS_BAD);
    assert_int_equal(rcode, want);
    assert_int_equal(q.id, 0x1234);
    char out[DNS_UDP_BYTES];
    struct dns_writer w;
    dns_answer_begin(&w, out, sizeof out, &q); /* what can't be read can be answered all the same */
    assert_true(dns_answer_end(&w, rcode, false, false) >= DNS_HEAD_BYTES);
    assert_int_equal(out[3] & 15, want & 15);
}

static struct dns_query query_for(const char *name, uint16_t type)
{
    struct dns_query q = {.id = 77, .rd = true, .asked = true, .udp_bytes = DNS_UDP_BYTES, .question = {name_of(name), type, DNS_CLASS_IN}};
    return q;
}

/* ---- names ---- */

static void test_names(void **state)
{
    struct dns_name n = name_of("Shop.default.svc.cluster.local."), below, top = name_of("SVC.cluster.LOCAL"), again = name_of("shop.DEFAULT.svc.cluster.local");
    assert_int_equal(n.n, 32);
    assert_name(&n, "Shop.default.svc.cluster.local");
    assert_true(dns_name_eq(&n, &again));
    assert_true(dns_name_below(&n, &top, &below));
    assert_name(&below, "Shop.default");
    assert_int_equal(dns_name_labels(&below), 2);
    assert_false(dns_name_below(&top, &n, &below));
    struct dns_name half = name_of("ault.svc.cluster.local"); /* the end of a label is not a label */
    assert_false(dns_name_below(&n, &half, &below));
    struct dns_name root = name_of(".");
    assert_int_equal(root.n, 1);
    assert_name(&root, ".");
    struct dns_name odd = {6, "\4a.\xff\\"};
    assert_name(&odd, "a\\.\\255\\\\");
}

static void test_name_limits(void **state)
{
    struct dns_name n;
    char text[300];
    assert_int_equal(dns_name_of(SLICE("a..b"), &n), ERR_SYNTAX);
    assert_int_equal(dns_name_of(SLICE(".a"), &n), ERR_SYNTAX);
    assert_int_equal(dns_name_of(SLICE("a.."), &n), ERR_SYNTAX);
    memset(text, 'x', sizeof text);
    assert_int_equal(dns_name_of(slice_of(text, 63), &n), OK);
    assert_int_equal(dns_name_of(slice_of(text, 64), &n), ERR_LIMIT);
    for (size_t i = 0; i < sizeof text; i += 2)
        text[i + 1] = '.';
    assert_int_equal(dns_name_of(slice_of(text, 253), &n), OK); /* 127 labels of one letter */
    assert_int_equal(n.n, DNS_NAME_MAX);
    assert_int_equal(dns_name_labels(&n), 127);
    assert_int_equal(dns_name_of(slice_of(text, 255), &n), ERR_LIMIT);
}

/* ---- queries ---- */

static void test_query(void **state)
{
    struct buf b = {0};
    struct dns_query q;
    enum dns_rcode rcode;
    head(&b, 1, 1, 0, 0, 0);
    buf_add_slice(&b, SLICE(QUESTION));
    assert_int_equal(parse(&b, &q, &rcode), DNS_OK);
    assert_true(q.rd && !q.edns && q.asked && q.id == 0x1234 && q.question.type == DNS_A && q.question.class == DNS_CLASS_IN);
    assert_name(&q.question.name, "Shop.default.svc.cluster.local");
    assert_int_equal(dns_udp_bytes(&q), 512);

    b.p[11] = 1;
    buf_add_slice(&b, SLICE("\0\0\51\20\0\0\0\200\0\0\14\0\12\0\10cookies.")); /* 4,096, DO, a cookie */
    assert_int_equal(parse(&b, &q, &rcode), DNS_OK);
    assert_true(q.edns && q.dnssec_ok && q.udp_bytes == 4096);
    assert_int_equal(dns_udp_bytes(&q), DNS_EDNS_BYTES);
    for (size_t n = b.n; n-- > DNS_HEAD_BYTES;) { /* cut anywhere, it does not fit its counts */
        struct buf cut = {b.p, n, n};
        bad(&cut, DNS_FORMERR);
    }
    for (size_t n = 0; n < DNS_HEAD_BYTES; n++) {
        struct buf cut = {b.p, n, n};
        assert_int_equal(parse(&cut, &q, &rcode), DNS_DROP);
    }
    buf_free(&b);
}

static void test_query_faults(void **state)
{
    struct buf b = {0};
    struct dns_query q;
    enum dns_rcode rcode;
    static const struct { uint8_t flags, qd, an, ns, ar; struct slice body; enum dns_rcode want; } t[] = {
        {1, 0, 0, 0, 0, SLICE(""), DNS_FORMERR},
        {1, 2, 0, 0, 0, SLICE(QUESTION QUESTION), DNS_FORMERR},
        {1, 1, 1, 0, 0, SLICE(QUESTION OPT_1400), DNS_FORMERR},
        {1, 1, 0, 1, 0, SLICE(QUESTION OPT_1400), DNS_FORMERR},
        {1, 1, 0, 0, 0, SLICE(QUESTION "x"), DNS_FORMERR},
        {1, 1, 0, 0, 2, SLICE(QUESTION OPT_1400 OPT_1400), DNS_FORMERR},
        {1, 1, 0, 0, 1, SLICE(QUESTION "\1a\0\0\51\5\170\0\0\0\0\0\0"), DNS_FORMERR},       /* OPT of a name */
        {1, 1, 0, 0, 1, SLICE(QUESTION "\0\0\51\5\170\0\0\0\0\0\4\0\12\0\1"), DNS_FORMERR},    /* an option longer than its bytes */
        {1, 1, 0, 0, 1, SLICE(QUESTION "\0\0\51\5\170\0\1\0\0\0\0"), DNS_BADVERS},
        {1, 1, 0, 0, 0, SLICE("\300\14\0\1\0\1"), DNS_FORMERR},                              /* a pointer to itself */
        {1, 1, 0, 0, 0, SLICE("\1a\300\14\0\1\0\1"), DNS_FORMERR},                           /* to its own beginning */
        {1, 1, 0, 0, 0, SLICE("\300\0\0\1\0\1"), DNS_FORMERR},                               /* into the head */
        {1, 1, 0, 0, 0, SLICE("\300\40\0\1\0\1"), DNS_FORMERR},                              /* forward */
        {1, 1, 0, 0, 0, SLICE("\100a\0\0\1\0\1"), DNS_FORMERR},                              /* a kind of label that is none */
        {0x29, 1, 0, 0, 0, SLICE(QUESTION), DNS_NOTIMP},                                     /* UPDATE */
        {0x10, 1, 0, 0, 0, SLICE(QUESTION), DNS_NOTIMP},                                     /* STATUS */
    };
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        head(&b, t[i].flags, t[i].qd, t[i].an, t[i].ns, t[i].ar);
        buf_add_slice(&b, t[i].body);
        bad(&b, t[i].want);
    }
    head(&b, 0x81, 1, 0, 0, 0); /* an answer is never answered */
    buf_add_slice(&b, SLICE(QUESTION));
    assert_int_equal(parse(&b, &q, &rcode), DNS_DROP);
    buf_free(&b);
}

/* A name as long as may be is taken, one byte more is not. */
static void test_query_longest_name(void **state)
{
    struct buf b = {0};
    struct dns_query q;
    enum dns_rcode rcode;
    for (int last = 61; last <= 62; last++) {
        head(&b, 1, 1, 0, 0, 0);
        for (int i = 0; i < 4; i++) {
            int n = i < 3 ? 63 : last;
            buf_addc(&b, (char)n);
            for (int k = 0; k < n; k++)
                buf_addc(&b, 'n');
        }
        buf_add(&b, "\0\0\1\0\1", 5);
        if (last == 61) {
            assert_int_equal(parse(&b, &q, &rcode), DNS_OK);
            assert_int_equal(q.question.name.n, DNS_NAME_MAX);
        } else {
            bad(&b, DNS_FORMERR);
        }
    }
    buf_free(&b);
}

/* ---- answers ---- */

static void test_answer(void **state)
{
    static const uint8_t ip[16] = {127, 200, 1, 2};
    char out[DNS_EDNS_BYTES];
    struct dns_query q = query_for("_http._tcp.SHOP.default.svc.cluster.local", DNS_SRV);
    q.edns = q.dnssec_ok = true;
    struct dns_name shop = name_of("shop.default.svc.cluster.local"), zone = name_of("cluster.local");
    struct dns_soa soa = {.mname = name_of("ns.dns.cluster.local"), .rname = name_of("hostmaster.cluster.local"), .serial = 9, .minimum_s = 5};
    struct dns_writer w;
    dns_answer_begin(&w, out, sizeof out, &q);
    dns_add_srv(&w, DNS_ANSWER, &q.question.name, 5, 0, 100, 80, &shop);
    dns_add_txt(&w, DNS_ANSWER, &shop, 5, SLICE("hello"));
    dns_add_name(&w, DNS_ANSWER, &zone, 6, DNS_CNAME, &shop);
    dns_add_soa(&w, DNS_AUTHORITY, &zone, 7, &soa);
    dns_add_a(&w, DNS_ADDITIONAL, &shop, 5, ip);
    dns_add_aaaa(&w, DNS_ADDITIONAL, &shop, 5, ip);
    size_t n = dns_answer_end(&w, DNS_NOERROR, true, false);
    struct dns_message m;
    struct dns_cursor c = {0};
    struct dns_record r;
    struct dns_name target;
    assert_int_equal(dns_message_parse(out, n, &m), OK);
    assert_true(m.answer && !m.truncated && m.id == 77 && out[2] & 4);
    assert_true(dns_message_answers(&m, 77, &q.question));
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_SRV && r.ttl_s == 5 && r.section == DNS_ANSWER);
    assert_name(&r.name, "_http._tcp.SHOP.default.svc.cluster.local"); /* the client's own letters */
    assert_int_equal(r.data.n, 6 + shop.n); /* not compressed */
    assert_memory_equal(r.data.p, "\0\0\0\144\0\120\4shop", 11);
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_TXT && slice_eq(r.data, SLICE("\5hello")));
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_CNAME && r.data.n == 2); /* a pointer alone */
    assert_int_equal(dns_record_target(&m, &r, &target), OK);
    assert_true(dns_name_eq(&target, &shop));
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_SOA && r.section == DNS_AUTHORITY && r.ttl_s == 7);
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_A && r.section == DNS_ADDITIONAL && r.data.n == 4 && memcmp(r.data.p, ip, 4) == 0);
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_AAAA && r.data.n == 16);
    assert_true(dns_record_next(&m, &c, &r) && r.type == DNS_OPT && r.class == DNS_EDNS_BYTES && r.ttl_s == 0x8000);
    assert_false(dns_record_next(&m, &c, &r));
}

/* A name whose labels repeat must not be taken for a part of itself, whatever the memory held before. */
static void test_repeated_labels(void **state)
{
    char out[DNS_UDP_BYTES];
    struct dns_message m;
    struct dns_writer w;
    for (int fill = 0; fill < 256; fill++) {
        memset(out, fill, sizeof out);
        struct dns_query q = query_for("a.a.a.a", DNS_A);
        dns_answer_begin(&w, out, sizeof out, &q);
        size_t n = dns_answer_end(&w, DNS_NXDOMAIN, true, true);
        assert_int_equal(dns_message_parse(out, n, &m), OK);
        assert_name(&m.question.name, "a.a.a.a");
        assert_int_equal(m.rcode, DNS_NXDOMAIN);
    }
}

static void fill_answer(const struct dns_query *q, size_t cap, uint32_t records, struct dns_message *m, char *out)
{
    static const uint8_t ip[4] = {127, 128, 0, 1};
    struct dns_writer w;
    dns_answer_begin(&w, out, cap, q);
    for (uint32_t i = 0; i < records; i++)
        dns_add_a(&w, DNS_ANSWER, &q->question.name, 5, ip);
    dns_add_a(&w, DNS_ADDITIONAL, &q->question.name, 5, ip);
    size_t n = dns_answer_end(&w, DNS_NOERROR, true, false);
    assert_true(n <= cap);
    assert_int_equal(dns_message_parse(out, n, m), OK);
}

static void test_truncation(void **state)
{
    static char out[DNS_MESSAGE_MAX];
    struct dns_query q = query_for("shop.default.svc.cluster.local", DNS_A);
    struct dns_message m;
    fill_answer(&q, 512, 28, &m, out); /* 12 + 36 + 28 * 16: 496; the additional record makes it 512 */
    assert_true(!m.truncated && m.counts[1] == 28 && m.counts[3] == 1);
    fill_answer(&q, 512, 29, &m, out); /* the last place is the answer's; what is only additional may be missing without a word */
    assert_true(!m.truncated && m.counts[1] == 29 && m.counts[3] == 0);
    fill_answer(&q, 512, 30, &m, out);
    assert_true(m.truncated && m.counts[1] == 29 && m.counts[3] == 0);
    q.edns = true; /* room for OPT is kept */
    fill_answer(&q, 512, 29, &m, out);
    assert_true(m.truncated && m.counts[1] == 28 && m.counts[3] == 1);
    fill_answer(&q, DNS_MESSAGE_MAX, 4000, &m, out);
    assert_true(!m.truncated && m.counts[1] == 4000 && m.counts[3] == 2);
    fill_answer(&q, DNS_MESSAGE_MAX, 5000, &m, out);
    assert_true(m.truncated && m.counts[1] > 4000);
}

static void test_badvers(void **state)
{
    char out[DNS_UDP_BYTES];
    struct dns_query q = query_for("a.b", DNS_A);
    struct dns_message m;
    struct dns_writer w;
    struct dns_cursor c = {0};
    struct dns_record r;
    q.edns = true;
    dns_answer_begin(&w, out, sizeof out, &q);
    size_t n = dns_answer_end(&w, DNS_BADVERS, false, false);
    assert_int_equal(dns_message_parse(out, n, &m), OK);
    assert_true(m.rcode == 0 && dns_record_next(&m, &c, &r) && r.ttl_s >> 24 == 1); /* 16 in two parts */
}

/* ---- answers of others ---- */

static void test_our_query(void **state)
{
    char out[DNS_UDP_BYTES];
    struct dns_question ask = {name_of("wWw.Example.org"), DNS_A, DNS_CLASS_IN};
    size_t n = dns_query_write(out, 4711, &ask, DNS_EDNS_BYTES, true, true);
    struct dns_query q;
    enum dns_rcode rcode;
    assert_int_equal(dns_query_parse(out, n, &q, &rcode), DNS_OK);
    assert_true(q.id == 4711 && q.rd && q.cd && q.edns && q.dnssec_ok && q.udp_bytes == DNS_EDNS_BYTES);
    assert_name(&q.question.name, "wWw.Example.org");
    n = dns_query_write(out, 1, &ask, 0, false, false);
    assert_int_equal(dns_query_parse(out, n, &q, &rcode), DNS_OK);
    assert_true(!q.edns && !q.cd);
}

static void test_answers_checked(void **state)
{
    char out[DNS_UDP_BYTES];
    struct dns_query q = query_for("www.example.org", DNS_A);
    struct dns_message m;
    struct dns_question other = q.question;
    fill_answer(&q, sizeof out, 1, &m, out);
    assert_true(dns_message_answers(&m, 77, &q.question));
    assert_false(dns_message_answers(&m, 78, &q.question));
    other.type = DNS_AAAA;
    assert_false(dns_message_answers(&m, 77, &other));
    other = q.question;
    other.name = name_of("www.example.orG"); /* letters count: whoever saw the question knows them */
    assert_false(dns_message_answers(&m, 77, &other));
    out[2] &= 0x7f; /* a query */
    assert_int_equal(dns_message_parse(out, m.all.n, &m), OK);
    assert_false(dns_message_answers(&m, 77, &q.question));
}

static void test_bad_messages(void **state)
{
    char out[DNS_UDP_BYTES];
    struct dns_query q = query_for("www.example.org", DNS_A);
    struct dns_message m, part;
    fill_answer(&q, sizeof out, 3, &m, out);
    for (size_t n = 0; n < m.all.n; n++) {
        char *exact = mem_grow(MEM_MISC, NULL, n ? n : 1);
        memcpy(exact, out, n);
        assert_int_equal(dns_message_parse(exact, n, &part), ERR_SYNTAX);
        mem_free(exact);
    }
    out[6] = (char)0xff; /* more records than there are bytes for */
    assert_int_equal(dns_message_parse(out, m.all.n, &part), ERR_SYNTAX);
}

/* Pointers to pointers are followed, as far as the limit. */
static void test_pointer_chain(void **state)
{
    struct buf b = {0};
    struct dns_message m;
    for (uint32_t chain = DNS_JUMPS_MAX - 1; chain <= DNS_JUMPS_MAX; chain++) {
        head(&b, 0x81, 1, 1, 0, 0);
        buf_add_slice(&b, SLICE("\1a\0\0\1\0\1"));               /* the name at 12, all ends at 19 */
        buf_add(&b, "\0\0\20\0\1\0\0\0\5", 9);                   /* TXT of the root, whose data are pointers: */
        buf_addc(&b, 0);
        buf_addc(&b, (char)(2 * chain));
        size_t at = b.n;
        for (uint32_t i = 0; i < chain; i++) {
            buf_addc(&b, (char)0xc0);
            buf_addc(&b, (char)(i ? at + 2 * (i - 1) : 12));
        }
        b.p[7] = 2;                                              /* a second record whose name is the last of them */
        buf_addc(&b, (char)0xc0);
        buf_addc(&b, (char)(at + 2 * (chain - 1)));
        buf_add(&b, "\0\1\0\1\0\0\0\5\0\4\1\2\3\4", 14);
        assert_int_equal(dns_message_parse(b.p, b.n, &m), chain < DNS_JUMPS_MAX ? OK : ERR_SYNTAX);
    }
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_name_limits), cmocka_unit_test(test_query), cmocka_unit_test(test_query_faults),
        cmocka_unit_test(test_query_longest_name), cmocka_unit_test(test_answer), cmocka_unit_test(test_repeated_labels), cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_badvers), cmocka_unit_test(test_our_query), cmocka_unit_test(test_answers_checked), cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_pointer_chain),
    };
    return cmocka_run_group_tests_name("dns", tests, NULL, NULL);
}
