/* http1.h - the HTTP/1.x codec: message heads and chunked bodies, from bytes to structs and back. Pure functions: no I/O,
 * no allocation, no state but what the caller holds.
 *
 * Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1). The parser is strict where leniency would be a way to smuggle: bare
 * LF or CR, obs-fold, space before a colon, several or conflicting lengths, several Hosts are errors. See wire/README.md.
 */
#ifndef HTTP1_H
#define HTTP1_H

#include "base.h"

/* ---- what a message is ------------------------------------------------------------------------------------------- */

/* Field names the code asks about; everything else is H1_OTHER. From http1_fields.def: X(ID, "lower-case-name"). */
enum h1_name {
    H1_OTHER,
#define X(id, name) H1_##id,
#include "http1_fields.def"
#undef X
    H1_NAME_COUNT
};
enum h1_method { H1_M_OTHER, H1_GET, H1_HEAD, H1_POST, H1_PUT, H1_DELETE, H1_CONNECT, H1_OPTIONS, H1_TRACE, H1_PATCH };

struct h1_field {
    struct slice name;   /* as sent */
    struct slice value;  /* without surrounding white space */
    enum h1_name id;
};

/* How the length of the body is known (RFC 9112 section 6.3). */
enum h1_framing {
    H1_NO_BODY, H1_LENGTH, H1_CHUNKED, H1_UNTIL_CLOSE,
    H1_TUNNEL /* bytes of another protocol in both directions, after 101 (section 7.8 of RFC 9110) or a CONNECT; never from the parser */
};

#define H1_FIELDS_MAX 128

struct h1_head {
    /* requests */
    struct slice method;
    enum h1_method method_id;
    struct slice target;       /* as sent */
    struct slice path;         /* of target, without query; "*" for OPTIONS * ; empty for CONNECT */
    struct slice query;        /* after '?', without it */
    bool has_query;
    struct slice authority;    /* host[:port]: of an absolute-form target, else of Host; empty when HTTP/1.0 sent none */
    struct slice host;         /* authority without the port; brackets of IPv6 kept */
    uint16_t port;             /* of the authority; 0 when absent */
    /* responses */
    uint16_t status;
    struct slice reason;
    /* both */
    uint8_t major;             /* 1, or 2 when an HTTP/2 stream was put into this form */
    uint8_t minor;             /* HTTP/1.<minor>: 0 or 1; 1 with major 2 */
    enum h1_framing framing;
    uint64_t length;           /* with H1_LENGTH */
    bool keep_alive;           /* this sender is willing to go on (RFC 9112 section 9.3) */
    bool expect_continue;      /* Expect: 100-continue, from an HTTP/1.1 client */
    bool upgrade;              /* Connection lists upgrade, and Upgrade is there */
    bool te_trailers;          /* TE lists trailers */
    bool connection_lists;     /* Connection names fields other than close, keep-alive, upgrade, te: see h1_connection_names() */
    uint16_t n;                /* fields */
    uint16_t known[H1_NAME_COUNT]; /* 1 + index of the first field with that id; 0: absent */
    struct h1_field fields[H1_FIELDS_MAX];
};

/* The first field with this id, or NULL. */
static inline const struct h1_field *h1_get(const struct h1_head *h, enum h1_name id)
{
    return h->known[id] ? &h->fields[h->known[id] - 1] : NULL;
}
/* The first field with this name (case folded), or NULL. */
const struct h1_field *h1_find(const struct h1_head *h, struct slice name);
enum h1_name h1_name_id(struct slice name); /* case folded */
/* Connection lists this field name (case folded), so it is hop-by-hop (RFC 9110 section 7.6.1). */
bool h1_connection_names(const struct h1_head *h, struct slice name);

/* ---- parsing heads ------------------------------------------------------------------------------------------------ */

/* Why a message is refused. From http1_errors.def: X(NAME, status, "metric_label", "text for people"). */
enum h1_error {
    H1_OK,
#define X(name, status, label, text) H1_E_##name,
#include "http1_errors.def"
#undef X
    H1_ERROR_COUNT
};
uint16_t h1_error_status(enum h1_error e);     /* 400, 414, 431, 501, 505 ... */
const char *h1_error_label(enum h1_error e);   /* lower_snake, for metrics */
const char *h1_error_text(enum h1_error e);    /* a sentence that names what is wrong */

struct h1_limits {
    uint32_t head_bytes_max;    /* the whole head; default 65,536: 431 */
    uint32_t target_bytes_max;  /* default 8,192: 414 */
    uint16_t fields_max;        /* default 100, at most H1_FIELDS_MAX: 431 */
    bool any_authority;         /* HTTP/2: nobody looks at :authority, and it need not name a host; default false */
};
extern const struct h1_limits h1_limits_default;

enum h1_result { H1_MORE, H1_DONE, H1_BAD };

/* Parses one request head at p. H1_DONE: *used bytes were the head, slices in h point into p. H1_MORE: no complete head in
 * n bytes yet (and nothing wrong so far that is certain). H1_BAD: *error says why. One empty line before the request line
 * is skipped (RFC 9112 section 2.2). */
enum h1_result h1_parse_request(const char *p, size_t n, const struct h1_limits *lim, struct h1_head *h, size_t *used, enum h1_error *error);
/* The same for a response; request_method decides about bodies (HEAD, CONNECT). 1xx, 204 and 304 have none. */
enum h1_result h1_parse_response(const char *p, size_t n, const struct h1_limits *lim, enum h1_method request_method, struct h1_head *h, size_t *used, enum h1_error *error);
/* Where the head that starts at p ends (index past its last byte), or 0. from: where to go on searching, so that bytes that
 * come one by one cost O(n) in all; *from is moved on. */
size_t h1_head_end(const char *p, size_t n, size_t *from);

/* ---- chunked bodies (RFC 9112 section 7.1) ---------------------------------------------------------------------------- */

#define H1_TRAILER_BYTES_MAX 8192
#define H1_CHUNK_LINE_MAX 256   /* size and extensions */

struct h1_chunked {
    uint64_t left;       /* of the current chunk's data */
    uint32_t line_n;     /* bytes of the current size or trailer line so far */
    uint32_t trailer_n;  /* bytes of trailers so far */
    uint8_t state;       /* private */
    uint8_t digits;
    char trailer[H1_TRAILER_BYTES_MAX]; /* the trailer section so far, lines with CRLF, without the final empty line */
};
void h1_chunked_init(struct h1_chunked *c); /* touches all but trailer[] */
/* Takes bytes from p; *used of them. H1_MORE: *data (may be empty) is body data inside p, call again with what is left
 * (n - *used may be 0). H1_DONE: the last chunk and the trailers are read. H1_BAD: *error. */
enum h1_result h1_chunked_next(struct h1_chunked *c, const char *p, size_t n, size_t *used, struct slice *data, enum h1_error *error);
/* Parses the trailer section collected in c into fields (at most max); returns their number, or -1 when malformed or when
 * it has more. Fields that may not be trailers (framing, routing, authentication: RFC 9110 section 6.5.1) are left out. */
int h1_chunked_trailers(const struct h1_chunked *c, struct h1_field *fields, int max);

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

const char *h1_reason(uint16_t status); /* RFC 9110's phrase; "Unknown" when it has none */
/* The chunk-size line of n (> 0) bytes; returns its length. */
#define H1_CHUNK_HEAD_MAX 20
size_t h1_chunk_head(char out[H1_CHUNK_HEAD_MAX], uint64_t n);
/* token and field-value grammars (RFC 9110 sections 5.6.2 and 5.5). */
bool h1_is_token(struct slice s);
bool h1_is_value(struct slice s);

#endif
