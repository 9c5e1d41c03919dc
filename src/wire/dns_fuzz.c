/* dns_fuzz.c - messages from any bytes: reading never leaves them, and what is written from what was read reads the same. */
#include "dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_name(const struct dns_name *name)
{
    char text[DNS_TEXT_MAX];
    size_t at = 0;
    MUST(name->n >= 1);
    while (dns_label_next(name, &at).n)
        MUST(at < name->n);
    MUST(at + 1 == name->n);
    MUST(dns_name_text(name, text) < DNS_TEXT_MAX);
    static const struct dns_name root = {1, {0}};
    struct dns_name below;
    MUST(dns_name_below(name, &root, &below) && dns_name_eq(&below, name));
    MUST(dns_name_below(name, name, &below) && below.n == 1);
}

/* Records of all kinds, with names that share ends with the question's. */
static void add_all(struct dns_writer *w, const struct dns_query *q, uint32_t rounds)
{
    static const uint8_t ip[16] = {127, 128, 3, 4};
    struct dns_name local, end = q->question.name;
    MUST(dns_name_of(SLICE("ns.dns.cluster.local"), &local) == OK);
    if (end.n > 1)
        MUST(dns_name_below(&q->question.name, &(struct dns_name){1, {0}}, &end));
    struct dns_soa soa = {.mname = local, .rname = end, .serial = rounds, .minimum_s = 5};
    for (uint32_t i = 0; i < rounds; i++) {
        dns_add_a(w, DNS_ANSWER, &q->question.name, 5, ip);
        dns_add_name(w, DNS_ANSWER, &local, 5, DNS_CNAME, &end);
        dns_add_txt(w, DNS_ANSWER, &end, 5, SLICE("text"));
        dns_add_srv(w, DNS_ANSWER, &end, 5, 1, 2, 3, &local);
    }
    dns_add_soa(w, DNS_AUTHORITY, &local, 5, &soa);
    dns_add_aaaa(w, DNS_ADDITIONAL, &local, 5, ip);
}

static void check_answer(const struct dns_query *q, size_t cap, uint32_t rounds)
{
    static struct dns_writer w;
    static struct dns_message m;
    char *out = mem_grow(MEM_MISC, NULL, cap); /* exact, so that AddressSanitizer sees a write past its end */
    dns_answer_begin(&w, out, cap, q);
    add_all(&w, q, rounds);
    size_t n = dns_answer_end(&w, DNS_NXDOMAIN, true, false);
    MUST(n <= cap);
    if (q->asked) {
        MUST(dns_message_parse(out, n, &m) == OK && m.rcode == DNS_NXDOMAIN);
        MUST(dns_message_answers(&m, q->id, &q->question));
        MUST(m.truncated || m.counts[1] == 4 * rounds);
        struct dns_cursor c = {0};
        struct dns_record r;
        for (uint32_t i = 0; dns_record_next(&m, &c, &r) && r.section == DNS_ANSWER; i++) {
            struct dns_name target;
            MUST(r.type != DNS_A || dns_name_eq(&r.name, &q->question.name));
            MUST(r.type != DNS_CNAME || (dns_record_target(&m, &r, &target) == OK && dns_name_eq(&target, &q->question.name)));
        }
    }
    mem_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct dns_query q;
    static struct dns_message m;
    enum dns_rcode rcode;
    const char *p = (const char *)data;
    enum dns_verdict v = dns_query_parse(p, n, &q, &rcode);
    MUST((v == DNS_BAD) == (rcode != DNS_NOERROR));
    if (v != DNS_DROP) {
        MUST(dns_udp_bytes(&q) >= DNS_UDP_BYTES && dns_udp_bytes(&q) <= DNS_EDNS_BYTES);
        if (q.asked)
            check_name(&q.question.name);
        check_answer(&q, dns_udp_bytes(&q), (uint32_t)(n % 64));
        check_answer(&q, 20000, (uint32_t)(n % 7) * 100);
    }
    if (dns_message_parse(p, n, &m) != OK)
        return 0;
    struct dns_cursor c = {0};
    struct dns_record r;
    struct dns_name target;
    uint32_t records = 0;
    for (; dns_record_next(&m, &c, &r); records++) {
        check_name(&r.name);
        MUST(r.data.p >= p && r.data.p + r.data.n <= p + n);
        if (dns_record_target(&m, &r, &target) == OK)
            check_name(&target);
    }
    MUST(records == (uint32_t)m.counts[1] + m.counts[2] + m.counts[3]);
    char again[DNS_UDP_BYTES];
    size_t again_n = dns_query_write(again, m.id, &m.question, DNS_EDNS_BYTES, true, false);
    MUST(again_n <= sizeof again && dns_query_parse(again, again_n, &q, &rcode) == DNS_OK);
    MUST(q.edns && q.dnssec_ok && q.id == m.id && dns_name_eq(&q.question.name, &m.question.name));
    return 0;
}
