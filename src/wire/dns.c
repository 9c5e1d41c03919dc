/* dns.c - names, queries, answers: see dns.h for their form.
 *
 * Reading: every count is checked against the bytes that are there. A name may only point further back than where it stands itself, and what
 * was pointed at again only further back than that; so there is no loop, and DNS_JUMPS_MAX bounds the work for one name.
 *
 * Writing: a record is begun, and taken back as a whole if it does not fit. Room for the OPT record is set aside from the start, because an
 * answer to EDNS must have it (RFC 6891 section 6.1.1), above all when it is full.
 *
 * Not here: master files, DNSSEC (the DO bit is passed on), transfers, updates, TSIG.
 */
#include "dns.h"

#define POINTER 0xc0
#define POINTER_MAX 0x3fff
#define OPT_BYTES 11 /* of an OPT record without options */

enum { FLAG_QR = 0x8000, FLAG_AA = 0x0400, FLAG_TC = 0x0200, FLAG_RD = 0x0100, FLAG_RA = 0x0080, FLAG_CD = 0x0010, OPCODE_SHIFT = 11 };

static uint16_t get16(const char *p) { return (uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]); }
static uint32_t get32(const char *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static void put16(char *p, uint16_t v)
{
    p[0] = (char)(v >> 8);
    p[1] = (char)v;
}

static void put32(char *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

void dns_id_set(char *p, uint16_t id) { put16(p, id); }

const char *dns_rcode_text(enum dns_rcode r)
{
    switch (r) {
    case DNS_NOERROR: return "NOERROR";
    case DNS_FORMERR: return "FORMERR";
    case DNS_SERVFAIL: return "SERVFAIL";
    case DNS_NXDOMAIN: return "NXDOMAIN";
    case DNS_NOTIMP: return "NOTIMP";
    case DNS_REFUSED: return "REFUSED";
    case DNS_BADVERS: return "BADVERS";
    }
    return "other";
}

/* ---- names ---- */

enum err dns_name_of(struct slice text, struct dns_name *out)
{
    struct dns_name made = {0};
    if (text.n && text.p[text.n - 1] == '.')
        text.n--;
    while (text.n) {
        struct slice label = slice_cut(text, '.', &text);
        if (!label.n || (!text.n && label.p + label.n < text.p))
            return ERR_SYNTAX;
        if (label.n > DNS_LABEL_MAX || made.n + 1 + label.n + 1 > DNS_NAME_MAX)
            return ERR_LIMIT;
        made.wire[made.n] = (uint8_t)label.n;
        memcpy(made.wire + made.n + 1, label.p, label.n);
        made.n = (uint8_t)(made.n + 1 + label.n);
    }
    made.wire[made.n++] = 0;
    *out = made;
    return OK;
}

struct slice dns_label_next(const struct dns_name *name, size_t *at)
{
    DMUST(*at < name->n);
    size_t n = name->wire[*at];
    struct slice label = slice_of((const char *)name->wire + *at + 1, n);
    *at += n ? n + 1 : 0;
    return label;
}

size_t dns_name_text(const struct dns_name *name, char out[DNS_TEXT_MAX])
{
    size_t n = 0, at = 0;
    for (struct slice label; (label = dns_label_next(name, &at)).n;) {
        if (n)
            out[n++] = '.';
        for (size_t i = 0; i < label.n; i++) {
            uint8_t c = (uint8_t)label.p[i];
            if (c <= ' ' || c > '~') {
                out[n++] = '\\';
                out[n++] = (char)('0' + c / 100);
                out[n++] = (char)('0' + c / 10 % 10);
                out[n++] = (char)('0' + c % 10);
                continue;
            }
            if (strchr(".\\\"();@$", (char)c))
                out[n++] = '\\';
            out[n++] = (char)c;
        }
    }
    if (!n)
        out[n++] = '.';
    out[n] = 0;
    return n;
}

/* Lengths are below 'A', so they may be folded with the letters. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ascii_lower((char)a[i]) != ascii_lower((char)b[i]))
            return false;
    return true;
}

bool dns_name_eq(const struct dns_name *a, const struct dns_name *b) { return a->n == b->n && same_bytes(a->wire, b->wire, a->n); }

bool dns_name_below(const struct dns_name *name, const struct dns_name *top, struct dns_name *below)
{
    size_t at = 0, rest;
    while (name->n - at > top->n)
        at += (size_t)name->wire[at] + 1;
    rest = name->n - at;
    if (rest != top->n || !same_bytes(name->wire + at, top->wire, rest))
        return false;
    memcpy(below->wire, name->wire, at);
    below->wire[at] = 0;
    below->n = (uint8_t)(at + 1);
    return true;
}

uint32_t dns_name_labels(const struct dns_name *name)
{
    uint32_t n = 0;
    for (size_t at = 0; dns_label_next(name, &at).n;)
        n++;
    return n;
}

/* The name at *at of the message m, and *at behind it. */
static bool name_read(struct slice m, size_t *at, struct dns_name *out)
{
    size_t here = *at, first = here, end = 0, n = 0;
    for (uint32_t jumps = 0; here < m.n;) {
        uint8_t len = (uint8_t)m.p[here];
        if ((len & POINTER) == POINTER) {
            if (here + 2 > m.n || ++jumps > DNS_JUMPS_MAX)
                return false;
            end = end ? end : here + 2;
            here = get16(m.p + here) & POINTER_MAX;
            if (here >= first || here < DNS_HEAD_BYTES)
                return false;
            first = here;
            continue;
        }
        if (len > DNS_LABEL_MAX || here + 1 + len > m.n || n + 1 + len > DNS_NAME_MAX - (len ? 1u : 0u)) /* 01 and 10: never defined */
            return false;
        memcpy(out->wire + n, m.p + here, (size_t)len + 1);
        n += (size_t)len + 1;
        here += (size_t)len + 1;
        if (len)
            continue;
        out->n = (uint8_t)n;
        *at = end ? end : here;
        return true;
    }
    return false;
}

static bool question_read(struct slice m, size_t *at, struct dns_question *q)
{
    if (!name_read(m, at, &q->name) || m.n - *at < 4)
        return false;
    q->type = get16(m.p + *at);
    q->class = get16(m.p + *at + 2);
    *at += 4;
    return true;
}

static bool record_read(struct slice m, size_t *at, struct dns_record *r)
{
    if (!name_read(m, at, &r->name) || m.n - *at < 10)
        return false;
    r->type = get16(m.p + *at);
    r->class = get16(m.p + *at + 2);
    r->ttl_s = get32(m.p + *at + 4);
    size_t n = get16(m.p + *at + 8);
    *at += 10;
    if (m.n - *at < n)
        return false;
    r->data = slice_of(m.p + *at, n);
    *at += n;
    return true;
}

/* ---- queries ---- */

/* Options are not looked at but for their lengths (RFC 6891 section 6.1.2). */
static bool options_fit(struct slice o)
{
    while (o.n) {
        if (o.n < 4 || o.n - 4 < get16(o.p + 2))
            return false;
        size_t n = 4u + get16(o.p + 2);
        o = slice_of(o.p + n, o.n - n);
    }
    return true;
}

static enum dns_rcode opt_take(const struct dns_record *r, struct dns_query *q)
{
    if (q->edns || r->name.n != 1 || !options_fit(r->data))
        return DNS_FORMERR;
    q->edns = true;
    q->dnssec_ok = (r->ttl_s & 0x8000) != 0;
    q->udp_bytes = MAX(r->class, DNS_UDP_BYTES);
    return (r->ttl_s >> 16 & 0xff) ? DNS_BADVERS : DNS_NOERROR;
}

static enum dns_rcode query_read(struct slice m, struct dns_query *q)
{
    size_t at = DNS_HEAD_BYTES;
    struct dns_question asked;
    if (get16(m.p + 4) != 1 || get16(m.p + 6) || get16(m.p + 8) || !question_read(m, &at, &asked))
        return DNS_FORMERR;
    q->asked = true;
    q->question = asked;
    enum dns_rcode rcode = DNS_NOERROR;
    for (uint16_t i = 0; i < get16(m.p + 10); i++) {
        struct dns_record r;
        if (!record_read(m, &at, &r))
            return DNS_FORMERR;
        enum dns_rcode one = r.type == DNS_OPT ? opt_take(&r, q) : DNS_NOERROR;
        if (one == DNS_FORMERR)
            return one;
        rcode = one ? one : rcode;
    }
    return at == m.n ? rcode : DNS_FORMERR;
}

enum dns_verdict dns_query_parse(const char *p, size_t n, struct dns_query *q, enum dns_rcode *rcode)
{
    q->question = (struct dns_question){.name = {.n = 1}};
    q->udp_bytes = DNS_UDP_BYTES;
    q->asked = q->edns = q->dnssec_ok = false;
    *rcode = DNS_NOERROR;
    if (n < DNS_HEAD_BYTES || n > DNS_MESSAGE_MAX)
        return DNS_DROP;
    uint16_t flags = get16(p + 2);
    q->id = get16(p);
    q->opcode = (uint8_t)(flags >> OPCODE_SHIFT & 15);
    q->rd = (flags & FLAG_RD) != 0;
    q->cd = (flags & FLAG_CD) != 0;
    if (flags & FLAG_QR)
        return DNS_DROP; /* else two servers could be made to talk to each other for ever */
    *rcode = q->opcode ? DNS_NOTIMP : query_read(slice_of(p, n), q);
    return *rcode == DNS_NOERROR ? DNS_OK : DNS_BAD;
}

size_t dns_udp_bytes(const struct dns_query *q) { return MIN((size_t)q->udp_bytes, (size_t)DNS_EDNS_BYTES); }

/* ---- writing ---- */

/* True when the name at place at of what is written is the labels at w[0..n), without regard to case. */
static bool same_at(const struct dns_writer *w, size_t at, const uint8_t *name, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t len = (uint8_t)w->p[at];
        if ((len & POINTER) == POINTER) {
            at = get16(w->p + at) & POINTER_MAX;
            continue;
        }
        if (len != name[i] || !same_bytes((const uint8_t *)w->p + at, name + i, (size_t)len + 1))
            return false;
        at += (size_t)len + 1;
        i += (size_t)len + 1;
    }
    return true;
}

static bool put(struct dns_writer *w, const void *p, size_t n)
{
    if (w->cap - w->n < n)
        return false;
    memcpy(w->p + w->n, p, n);
    w->n += n;
    return true;
}

/* The place among the first `known` ones that has these labels; 0: there is none. */
static uint16_t suffix_find(const struct dns_writer *w, uint32_t known, const uint8_t *name, size_t n)
{
    for (uint32_t i = 0; i < known; i++)
        if (same_at(w, w->suffixes[i], name, n))
            return w->suffixes[i];
    return 0;
}

static bool put_name(struct dns_writer *w, const struct dns_name *name, bool compress)
{
    uint32_t known = w->suffixes_n; /* those of this very name are not complete yet */
    for (size_t at = 0; name->wire[at]; at += (size_t)name->wire[at] + 1) {
        uint16_t to = compress ? suffix_find(w, known, name->wire + at, name->n - at) : 0;
        if (to) {
            char pointer[2];
            put16(pointer, (uint16_t)(POINTER << 8 | to));
            return put(w, pointer, 2);
        }
        if (w->n <= POINTER_MAX && w->suffixes_n < DNS_SUFFIXES_MAX)
            w->suffixes[w->suffixes_n++] = (uint16_t)w->n;
        if (!put(w, name->wire + at, (size_t)name->wire[at] + 1))
            return false;
    }
    return put(w, "", 1);
}

void dns_answer_begin(struct dns_writer *w, char *p, size_t cap, const struct dns_query *q)
{
    MUST(cap >= DNS_UDP_BYTES); /* head, question and OPT take 281 at most */
    w->p = p;
    w->edns = q->edns;
    w->dnssec_ok = q->dnssec_ok;
    w->cap = MIN(cap, (size_t)DNS_MESSAGE_MAX) - (q->edns ? OPT_BYTES : 0);
    w->n = DNS_HEAD_BYTES;
    w->full = w->truncated = false;
    w->suffixes_n = 0;
    w->section = DNS_ANSWER;
    memset(w->counts, 0, sizeof w->counts);
    memset(p, 0, DNS_HEAD_BYTES);
    put16(p, q->id);
    put16(p + 2, (uint16_t)(FLAG_QR | q->opcode << OPCODE_SHIFT | (q->rd ? FLAG_RD : 0) | (q->cd ? FLAG_CD : 0)));
    if (!q->asked)
        return;
    char tail[4];
    put16(tail, q->question.type);
    put16(tail + 2, q->question.class);
    bool fits = put_name(w, &q->question.name, true) && put(w, tail, sizeof tail);
    MUST(fits);
    w->counts[0] = 1;
}

/* Where a record began, to be taken back. */
struct mark {
    size_t n, length_at;
    uint32_t suffixes_n;
};

static bool record_begin(struct dns_writer *w, enum dns_section s, const struct dns_name *name, enum dns_type type, uint32_t ttl_s, struct mark *m)
{
    MUST(s >= w->section);
    w->section = s;
    *m = (struct mark){.n = w->n, .suffixes_n = w->suffixes_n};
    char fixed[10];
    put16(fixed, (uint16_t)type);
    put16(fixed + 2, DNS_CLASS_IN);
    put32(fixed + 4, ttl_s);
    put16(fixed + 8, 0);
    bool fits = !w->full && put_name(w, name, true) && put(w, fixed, sizeof fixed);
    m->length_at = w->n - 2;
    return fits;
}

static void record_end(struct dns_writer *w, const struct mark *m, bool fits)
{
    if (fits && w->counts[w->section] < UINT16_MAX) {
        put16(w->p + m->length_at, (uint16_t)(w->n - m->length_at - 2));
        w->counts[w->section]++;
        return;
    }
    w->n = m->n;
    w->suffixes_n = m->suffixes_n;
    w->full = true;
    w->truncated = w->truncated || w->section != DNS_ADDITIONAL;
}

static void add_bytes(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, enum dns_type type, const void *p, size_t n)
{
    struct mark m;
    bool fits = record_begin(w, s, name, type, ttl_s, &m) && put(w, p, n);
    record_end(w, &m, fits);
}

void dns_add_a(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const uint8_t ip[4])
{
    add_bytes(w, s, name, ttl_s, DNS_A, ip, 4);
}

void dns_add_aaaa(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const uint8_t ip[16])
{
    add_bytes(w, s, name, ttl_s, DNS_AAAA, ip, 16);
}

void dns_add_name(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, enum dns_type type, const struct dns_name *target)
{
    struct mark m;
    bool fits = record_begin(w, s, name, type, ttl_s, &m) && put_name(w, target, true);
    record_end(w, &m, fits);
}

/* RFC 2782: the target is not compressed. */
void dns_add_srv(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, uint16_t priority, uint16_t weight, uint16_t port,
                 const struct dns_name *target)
{
    struct mark m;
    char fixed[6];
    put16(fixed, priority);
    put16(fixed + 2, weight);
    put16(fixed + 4, port);
    bool fits = record_begin(w, s, name, DNS_SRV, ttl_s, &m) && put(w, fixed, sizeof fixed) && put_name(w, target, false);
    record_end(w, &m, fits);
}

void dns_add_txt(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, struct slice text)
{
    char data[256];
    size_t n = MIN(text.n, (size_t)255);
    data[0] = (char)n;
    if (n)
        memcpy(data + 1, text.p, n);
    add_bytes(w, s, name, ttl_s, DNS_TXT, data, n + 1);
}

void dns_add_soa(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const struct dns_soa *soa)
{
    struct mark m;
    char fixed[20];
    put32(fixed, soa->serial);
    put32(fixed + 4, soa->refresh_s);
    put32(fixed + 8, soa->retry_s);
    put32(fixed + 12, soa->expire_s);
    put32(fixed + 16, soa->minimum_s);
    bool fits = record_begin(w, s, name, DNS_SOA, ttl_s, &m) && put_name(w, &soa->mname, true) && put_name(w, &soa->rname, true) && put(w, fixed, sizeof fixed);
    record_end(w, &m, fits);
}

/* An OPT record (RFC 6891 section 6.1): the class is what we take by UDP, the TTL the upper bits of the rcode, the version, and DO. */
static size_t opt_write(char *p, uint16_t udp_bytes, uint16_t rcode, bool dnssec_ok)
{
    p[0] = 0;
    put16(p + 1, DNS_OPT);
    put16(p + 3, udp_bytes);
    put32(p + 5, (uint32_t)(rcode >> 4) << 24 | (dnssec_ok ? 0x8000u : 0u));
    put16(p + 9, 0);
    return OPT_BYTES;
}

size_t dns_answer_end(struct dns_writer *w, enum dns_rcode rcode, bool aa, bool ra)
{
    uint16_t flags = get16(w->p + 2);
    flags = (uint16_t)(flags | (aa ? FLAG_AA : 0) | (ra ? FLAG_RA : 0) | (w->truncated ? FLAG_TC : 0) | (rcode & 15));
    put16(w->p + 2, flags);
    if (w->edns) {
        w->n += opt_write(w->p + w->n, DNS_EDNS_BYTES, (uint16_t)rcode, w->dnssec_ok);
        w->counts[DNS_ADDITIONAL]++;
    }
    for (size_t i = 0; i < 4; i++)
        put16(w->p + 4 + 2 * i, w->counts[i]);
    return w->n;
}

size_t dns_query_write(char out[DNS_UDP_BYTES], uint16_t id, const struct dns_question *q, uint16_t udp_bytes, bool dnssec_ok, bool cd)
{
    memset(out, 0, DNS_HEAD_BYTES);
    put16(out, id);
    put16(out + 2, (uint16_t)(FLAG_RD | (cd ? FLAG_CD : 0)));
    put16(out + 4, 1);
    size_t n = DNS_HEAD_BYTES;
    memcpy(out + n, q->name.wire, q->name.n);
    n += q->name.n;
    put16(out + n, q->type);
    put16(out + n + 2, q->class);
    n += 4;
    if (!udp_bytes)
        return n;
    put16(out + 10, 1);
    return n + opt_write(out + n, udp_bytes, 0, dnssec_ok);
}

/* ---- answers of others ---- */

enum err dns_message_parse(const char *p, size_t n, struct dns_message *m)
{
    if (n < DNS_HEAD_BYTES || n > DNS_MESSAGE_MAX)
        return ERR_SYNTAX;
    uint16_t flags = get16(p + 2);
    *m = (struct dns_message){.all = slice_of(p, n), .id = get16(p), .answer = flags & FLAG_QR, .truncated = flags & FLAG_TC,
                              .opcode = (uint8_t)(flags >> OPCODE_SHIFT & 15), .rcode = (uint8_t)(flags & 15)};
    for (size_t i = 0; i < 4; i++)
        m->counts[i] = get16(p + 4 + 2 * i);
    size_t at = DNS_HEAD_BYTES;
    if (m->counts[0] != 1 || !question_read(m->all, &at, &m->question))
        return ERR_SYNTAX;
    m->records_at = at;
    uint32_t records = (uint32_t)m->counts[1] + m->counts[2] + m->counts[3];
    struct dns_record r;
    for (uint32_t i = 0; i < records; i++) /* each takes 11 bytes at least, so their number is bounded by the bytes */
        if (!record_read(m->all, &at, &r))
            return ERR_SYNTAX;
    return at == n ? OK : ERR_SYNTAX;
}

bool dns_record_next(const struct dns_message *m, struct dns_cursor *c, struct dns_record *r)
{
    uint32_t answers = m->counts[1], authority = answers + m->counts[2], all = authority + m->counts[3];
    if (c->i == all)
        return false;
    size_t at = c->i ? c->at : m->records_at;
    bool fits = record_read(m->all, &at, r);
    MUST(fits); /* dns_message_parse() went through all of them */
    r->section = c->i < answers ? DNS_ANSWER : c->i < authority ? DNS_AUTHORITY : DNS_ADDITIONAL;
    *c = (struct dns_cursor){at, c->i + 1};
    return true;
}

enum err dns_record_target(const struct dns_message *m, const struct dns_record *r, struct dns_name *out)
{
    if (r->type != DNS_CNAME && r->type != DNS_PTR && r->type != DNS_NS)
        return ERR_SYNTAX;
    size_t at = (size_t)(r->data.p - m->all.p), end = at + r->data.n;
    return name_read(slice_of(m->all.p, end), &at, out) && at == end ? OK : ERR_SYNTAX;
}

bool dns_message_answers(const struct dns_message *m, uint16_t id, const struct dns_question *q)
{
    return m->answer && m->opcode == 0 && m->id == id && m->question.type == q->type && m->question.class == q->class && m->question.name.n == q->name.n &&
           memcmp(m->question.name.wire, q->name.wire, q->name.n) == 0;
}
