/* http2.h - the field sections of HTTP/2 messages, put into the form that HTTP/1 has: struct h1_head. Framing and header
 * compression are not here: the fields come one by one, already decompressed.
 *
 * Sources: RFC 9113 section 8, RFC 8441 (extended CONNECT). What is accepted can be written as HTTP/1 without a change of
 * meaning: names are tokens in lower case, values have no CR, LF, NUL or other control character, nothing that frames HTTP/1
 * (Transfer-Encoding, Connection and their kin) passes, and the path, the authority, the method and the lengths obey the
 * rules of the HTTP/1 parser.
 */
#ifndef HTTP2_H
#define HTTP2_H

#include "http1.h"

enum h2_kind { H2_REQUEST, H2_RESPONSE, H2_TRAILERS };
enum h2_pseudo { H2_METHOD, H2_SCHEME, H2_AUTHORITY, H2_PATH, H2_PROTOCOL, H2_STATUS, H2_PSEUDO_COUNT };

/* One section while it is read. Names and values stay where the caller has them, until it is done with the head. */
struct h2_fields {
    const struct h1_limits *limits;
    struct slice pseudo[H2_PSEUDO_COUNT]; /* p NULL: not there */
    uint64_t bytes;          /* as RFC 9113 section 6.5.2 counts: 32 for each field more than its text */
    struct buf cookie;       /* crumbs joined (section 8.2.3), when there is more than one */
    uint8_t kind;
    bool regular;            /* a field that is not a pseudo field has come */
    /* Why it is refused; label NULL: it is not. */
    uint16_t status;
    const char *label, *text;
    struct h1_head h;
};
/* f->cookie must be valid or zero; it is kept from one section to the next, and freed by h2_fields_fini(). */
void h2_fields_begin(struct h2_fields *f, enum h2_kind kind, const struct h1_limits *limits);
void h2_fields_fini(struct h2_fields *f);
/* What a name is, wherever it stands: the enum h1_name of a regular field, H2_NAME_PSEUDO + its enum h2_pseudo, or H2_NAME_BAD (not a token in lower
 * case, an unknown pseudo field). The same name has the same answer, so that whoever meets it again may remember it. */
enum { H2_NAME_PSEUDO = 0x100, H2_NAME_BAD = 0x200, H2_NAME_BAD_PSEUDO };
int h2_name(struct slice name);
/* id: h2_name(name). False: the section is refused; what follows may be skipped. Of trailers, fields that may not be there are left out. */
bool h2_fields_add(struct h2_fields *f, int id, struct slice name, struct slice value);
/* The section is complete: f->h is filled as by h1_parse_request(), with major 2. end: no body follows. An extended CONNECT
 * becomes GET with an Upgrade field and h.upgrade; its framing, and that of CONNECT, is H1_NO_BODY. */
bool h2_request_finish(struct h2_fields *f, bool end);
/* The same for a response. method: H1_CONNECT also for an extended one. framing H1_CHUNKED: the length was not said. */
bool h2_response_finish(struct h2_fields *f, enum h1_method method, bool end);

#endif
