/* dns.h - messages of the domain name system (RFC 1035, with EDNS(0) of RFC 6891): queries read, answers written, answers of others
 * read. Pure functions: no I/O, no allocation, no state but what the caller holds.
 *
 *     header   id | QR opcode AA TC RD RA Z AD CD rcode | counts of the four sections     12 bytes
 *     question name, type, class                                                          one, always
 *     records  name, type, class, TTL, length, data                                       answer, authority, additional
 *
 *     name     labels, each after its length (1 to 63), and 0; or, at any label, a pointer to an earlier place of the message
 *              that has the rest: two bytes, 11xxxxxx xxxxxxxx
 *
 * Names are kept as their bytes without pointers, with the letters as they came: a client that mixes cases to be harder to deceive
 * gets its own letters back. They are compared without regard to case (RFC 4343).
 */
#ifndef DNS_H
#define DNS_H

#include "base.h"

#define DNS_PORT 53
#define DNS_HEAD_BYTES 12
#define DNS_NAME_MAX 255         /* bytes of a name, lengths and the final 0 included (RFC 1035 section 2.3.4) */
#define DNS_LABEL_MAX 63
#define DNS_JUMPS_MAX 32         /* pointers followed within one name; each leads further back, so this is no matter of loops but of work */
#define DNS_UDP_BYTES 512        /* of an answer by UDP to a client that does not say what it takes (RFC 1035 section 2.3.4) */
#define DNS_EDNS_BYTES 1232      /* of an answer by UDP at most, whatever the client takes: never fragmented (DNS Flag Day 2020) */
#define DNS_MESSAGE_MAX 65535    /* by TCP, behind two bytes with the length (RFC 1035 section 4.2.2) */
#define DNS_TEXT_MAX 1024        /* of a name as text, with its escapes and NUL: at most four characters for a byte */
#define DNS_SUFFIXES_MAX 128     /* names and ends of names of one answer that later ones may point to */

enum dns_type {
    DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28, DNS_SRV = 33, DNS_OPT = 41,
    DNS_IXFR = 251, DNS_AXFR = 252, DNS_ANY = 255,
};
enum { DNS_CLASS_IN = 1, DNS_CLASS_ANY = 255 };
enum dns_rcode { DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4, DNS_REFUSED = 5, DNS_BADVERS = 16 };
const char *dns_rcode_text(enum dns_rcode r); /* as dig has it; never NULL */

/* ---- names ------------------------------------------------------------------------------------------------------- */

struct dns_name {
    uint8_t n;                   /* bytes used of wire; 1: the root */
    uint8_t wire[DNS_NAME_MAX];
};
/* "shop.default.svc.cluster.local", with or without a dot at its end; "" and "." are the root. No escapes. ERR_SYNTAX: an empty
 * label; ERR_LIMIT: a label or the name is too long. */
enum err dns_name_of(struct slice text, struct dns_name *out) WARN_UNUSED;
/* As master files have it (RFC 1035 section 5.1), without the dot at the end but for the root; returns its length. */
size_t dns_name_text(const struct dns_name *name, char out[DNS_TEXT_MAX]);
bool dns_name_eq(const struct dns_name *a, const struct dns_name *b);
/* True when name is top or below it; *below: its labels before those of top (for top itself none: the root). */
bool dns_name_below(const struct dns_name *name, const struct dns_name *top, struct dns_name *below);
uint32_t dns_name_labels(const struct dns_name *name); /* without the root */
/* Takes the first label off; empty at the root. It points into name. */
struct slice dns_label_next(const struct dns_name *name, size_t *at);

/* ---- queries ------------------------------------------------------------------------------------------------------ */

struct dns_question {
    struct dns_name name;
    uint16_t type, class;
};
struct dns_query {
    uint16_t id;
    uint8_t opcode;
    bool rd, cd;                 /* recursion desired; checking disabled */
    bool asked;                  /* question was read, and is repeated in the answer; else its name is the root */
    bool edns, dnssec_ok;        /* it had an OPT record; the DO bit of that */
    uint16_t udp_bytes;          /* the longest answer by UDP that the client takes: at least DNS_UDP_BYTES */
    struct dns_question question;
};
enum dns_verdict {
    DNS_OK,                      /* a question to be answered */
    DNS_BAD,                     /* to be answered with *rcode */
    DNS_DROP,                    /* no query (shorter than a head, or an answer): not to be answered at all */
};
/* Reads the one message p[0..n). With DNS_BAD everything that was read before the fault is in q. Refused: a number of questions other than one
 * (RFC 9619), records where none belong, OPT twice or not of the root (RFC 6891 section 6.1.1), bytes behind the end: FORMERR; opcodes other
 * than QUERY: NOTIMP; versions of EDNS above 0: BADVERS. */
enum dns_verdict dns_query_parse(const char *p, size_t n, struct dns_query *q, enum dns_rcode *rcode) WARN_UNUSED;
/* The longest answer to q by UDP. */
size_t dns_udp_bytes(const struct dns_query *q);

/* ---- writing ------------------------------------------------------------------------------------------------------- */

enum dns_section { DNS_ANSWER = 1, DNS_AUTHORITY = 2, DNS_ADDITIONAL = 3 };
/* Writes one message into the caller's memory. A record that does not fit is left out as a whole, and with it all that would follow; if it
 * was one of the answer or authority section, TC is set (RFC 2181 section 9). All fields are dns.c's; counts and truncated may be read by others. */
struct dns_writer {
    char *p;
    size_t cap;                  /* without what the OPT record will take */
    size_t n;
    uint16_t counts[4];
    enum dns_section section;    /* of the last record: they come in order */
    bool full, truncated, edns;
    bool dnssec_ok;
    uint16_t rcode;
    uint16_t suffixes[DNS_SUFFIXES_MAX]; /* places of labels in p that can be pointed to */
    uint32_t suffixes_n;
};
struct dns_soa {
    struct dns_name mname, rname;
    uint32_t serial, refresh_s, retry_s, expire_s, minimum_s;
};
/* An answer to q in p[0..cap), DNS_UDP_BYTES at least: the head and the question. */
void dns_answer_begin(struct dns_writer *w, char *p, size_t cap, const struct dns_query *q);
void dns_add_a(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const uint8_t ip[4]);
void dns_add_aaaa(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const uint8_t ip[16]);
void dns_add_name(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, enum dns_type type, const struct dns_name *target); /* CNAME, PTR, NS */
void dns_add_srv(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, uint16_t priority, uint16_t weight, uint16_t port,
                 const struct dns_name *target);
void dns_add_txt(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, struct slice text); /* at most 255 bytes of it */
void dns_add_soa(struct dns_writer *w, enum dns_section s, const struct dns_name *name, uint32_t ttl_s, const struct dns_soa *soa);
/* aa: the answer is our own word. ra: we would ask others. Returns the message's length. */
size_t dns_answer_end(struct dns_writer *w, enum dns_rcode rcode, bool aa, bool ra);

/* A query of our own, with recursion desired; returns its length, at most DNS_UDP_BYTES. udp_bytes 0: without EDNS. */
size_t dns_query_write(char out[DNS_UDP_BYTES], uint16_t id, const struct dns_question *q, uint16_t udp_bytes, bool dnssec_ok, bool cd);

/* ---- answers of others ---------------------------------------------------------------------------------------------- */

struct dns_message {
    struct slice all;
    uint16_t id;
    bool answer, truncated;
    uint8_t opcode, rcode;       /* rcode: the four bits of the head */
    struct dns_question question;
    uint16_t counts[4];
    size_t records_at;           /* where the first record begins */
};
struct dns_record {
    enum dns_section section;
    struct dns_name name;
    uint16_t type, class;
    uint32_t ttl_s;
    struct slice data;           /* points into the message */
};
/* Reads head and question, and goes once through all records: ERR_SYNTAX when one does not fit its bytes, or there is not one question, or bytes
 * are left. */
enum err dns_message_parse(const char *p, size_t n, struct dns_message *m) WARN_UNUSED;
/* Record by record, *at is 0 at first; false behind the last one. */
struct dns_cursor { size_t at; uint32_t i; };
bool dns_record_next(const struct dns_message *m, struct dns_cursor *c, struct dns_record *r);
/* The name that is a record's data: of CNAME, PTR and NS. ERR_SYNTAX: it is none. */
enum err dns_record_target(const struct dns_message *m, const struct dns_record *r, struct dns_name *out) WARN_UNUSED;
/* True when m can be the answer to this question asked with this id (RFC 5452 section 9.1): the same question, letter by letter. */
bool dns_message_answers(const struct dns_message *m, uint16_t id, const struct dns_question *q);
/* Writes id over a message's own. */
void dns_id_set(char *p, uint16_t id);

#endif
