/* http1_parse.c - message heads: from bytes to struct h1_head, in one pass.
 *
 *     request-line = method SP target SP "HTTP/1." DIGIT CRLF            (RFC 9112 section 3)
 *     status-line  = "HTTP/1." DIGIT SP 3DIGIT [ SP reason ] CRLF        (section 4)
 *     field-line   = name ":" OWS value OWS CRLF                         (section 5)
 *     head         = [ CRLF ] ( request-line / status-line ) *field-line CRLF
 *
 * Every part takes its bytes in order and decides on a byte only when it is there. So for any input, a longer prefix either
 * gives the same refusal as a shorter one, or H1_MORE became something definite: how the bytes were cut on their way does not
 * matter. Nothing is copied or decoded; slices point into the input. What the fields mean together (framing, authority,
 * persistence) is http1_meaning.c.
 */
#include "http1_int.h"

const struct h1_limits h1_limits_default = {.head_bytes_max = 65536, .target_bytes_max = 8192, .fields_max = 100};

/* ---- field names ------------------------------------------------------------------------------------------------------ */

#define NAME_LEN_MAX 23
#define NAMES_PER_LEN 5

struct known_name {
    const char *text; /* NULL: the end of the row */
    uint8_t id;
};

/* By length, most frequent first. A name of http1_fields.def that is missing here fails http1_test.c. */
static const struct known_name names_by_len[NAME_LEN_MAX + 1][NAMES_PER_LEN + 1] = {
    [2] = {{"te", H1_TE}},
    [3] = {{"via", H1_VIA}},
    [4] = {{"host", H1_HOST}, {"date", H1_DATE}},
    [6] = {{"cookie", H1_COOKIE}, {"server", H1_SERVER}, {"expect", H1_EXPECT}},
    [7] = {{"upgrade", H1_UPGRADE}, {"trailer", H1_TRAILER}},
    [8] = {{"location", H1_LOCATION}},
    [9] = {{"forwarded", H1_FORWARDED}},
    [10] = {{"connection", H1_CONNECTION}, {"user-agent", H1_USER_AGENT}, {"set-cookie", H1_SET_COOKIE}, {"keep-alive", H1_KEEP_ALIVE},
            {"tracestate", H1_TRACESTATE}},
    [11] = {{"traceparent", H1_TRACEPARENT}},
    [12] = {{"content-type", H1_CONTENT_TYPE}, {"x-request-id", H1_X_REQUEST_ID}, {"max-forwards", H1_MAX_FORWARDS}},
    [14] = {{"content-length", H1_CONTENT_LENGTH}},
    [15] = {{"x-forwarded-for", H1_X_FORWARDED_FOR}},
    [16] = {{"x-forwarded-host", H1_X_FORWARDED_HOST}, {"x-forwarded-port", H1_X_FORWARDED_PORT}, {"proxy-connection", H1_PROXY_CONNECTION}},
    [17] = {{"transfer-encoding", H1_TRANSFER_ENCODING}, {"x-forwarded-proto", H1_X_FORWARDED_PROTO}},
    [18] = {{"proxy-authenticate", H1_PROXY_AUTHENTICATE}},
    [19] = {{"proxy-authorization", H1_PROXY_AUTHORIZATION}},
    [23] = {{"x-forwarded-client-cert", H1_X_FORWARDED_CLIENT_CERT}},
};

#define FOLD64 0x2020202020202020u

static inline bool fold_eq8(const char *p, const char *lower)
{
    uint64_t a, b;
    memcpy(&a, p, 8);
    memcpy(&b, lower, 8);
    return (a | FOLD64) == b;
}

static inline bool fold_eq4(const char *p, const char *lower)
{
    uint32_t a, b;
    memcpy(&a, p, 4);
    memcpy(&b, lower, 4);
    return (a | (uint32_t)FOLD64) == b;
}

/* Equal to lower but for case. Setting bit 0x20 folds letters and leaves '-' alone; what else it would confuse with them is
 * no tchar, so p must be a token. */
static inline bool token_eq(const char *p, const char *lower, size_t n)
{
    if (n >= 16)
        return fold_eq8(p, lower) && fold_eq8(p + 8, lower + 8) && fold_eq8(p + n - 8, lower + n - 8);
    if (n >= 8)
        return fold_eq8(p, lower) && fold_eq8(p + n - 8, lower + n - 8);
    if (n >= 4)
        return fold_eq4(p, lower) && fold_eq4(p + n - 4, lower + n - 4);
    return (p[0] | 0x20) == lower[0] && (p[1] | 0x20) == lower[1] && (p[n - 1] | 0x20) == lower[n - 1];
}

static inline enum h1_name token_id(const char *p, size_t n)
{
    if (n > NAME_LEN_MAX)
        return H1_OTHER;
    for (const struct known_name *k = names_by_len[n]; k->text; k++)
        if ((p[0] | 0x20) == k->text[0] && token_eq(p, k->text, n))
            return (enum h1_name)k->id;
    return H1_OTHER;
}

enum h1_name h1_token_id(const char *p, size_t n) { return token_id(p, n); }

enum h1_name h1_name_id(struct slice name)
{
    return h1_is_token(name) ? token_id(name.p, name.n) : H1_OTHER;
}

const struct h1_field *h1_find(const struct h1_head *h, struct slice name)
{
    enum h1_name id = h1_name_id(name);
    if (id != H1_OTHER)
        return h1_get(h, id);
    for (uint16_t i = 0; i < h->n; i++)
        if (h->fields[i].id == H1_OTHER && slice_ieq(h->fields[i].name, name))
            return &h->fields[i];
    return NULL;
}

/* ---- lines ------------------------------------------------------------------------------------------------------------- */

/* The CRLF at *pp; any byte but CR and LF there is refused as `otherwise`. */
static inline enum h1_error eol(const char **pp, const char *end, enum h1_error otherwise)
{
    const char *p = *pp;
    if (UNLIKELY(p == end))
        return H1_PART_MORE;
    if (UNLIKELY(*p != '\r'))
        return *p == '\n' ? H1_E_BARE_LF : otherwise;
    if (UNLIKELY(end - p < 2))
        return H1_PART_MORE;
    if (UNLIKELY(p[1] != '\n'))
        return H1_E_BARE_CR;
    *pp = p + 2;
    return H1_OK;
}

/* Why the bytes at p, which the caller stopped at with q, do not begin a field line. */
static enum h1_error field_name_error(const char *p, const char *q)
{
    if (*q == '\n')
        return H1_E_BARE_LF;
    if (*q == ' ' || *q == '\t')
        return p == q ? H1_E_OBS_FOLD : H1_E_FIELD_SPACE;
    return *q == '\r' ? H1_E_FIELD_COLON : H1_E_FIELD_NAME;
}

static inline enum h1_error field_line(const char **pp, const char *end, struct h1_field *f)
{
    const char *name = *pp, *colon = h1_scan_token(name, end);
    if (UNLIKELY(colon == end))
        return H1_PART_MORE;
    if (UNLIKELY(*colon != ':' || colon == name))
        return field_name_error(name, colon);
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    const char *stop = h1_scan_value(value, end), *p = stop;
    enum h1_error e = eol(&p, end, H1_E_FIELD_VALUE);
    if (UNLIKELY(e))
        return e;
    while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    f->name = slice_of(name, (size_t)(colon - name));
    f->value = slice_of(value, (size_t)(stop - value));
    *pp = p;
    return H1_OK;
}

enum h1_error h1_field_line(const char **pp, const char *end, struct h1_field *f)
{
    return field_line(pp, end, f);
}

/* All field lines and the empty line that ends them. */
static enum h1_error field_lines(const char **pp, const char *end, const struct h1_limits *lim, struct h1_head *h)
{
    uint16_t max = MIN(lim->fields_max, H1_FIELDS_MAX);
    for (;;) {
        if (UNLIKELY(*pp == end))
            return H1_PART_MORE;
        if (**pp == '\r')
            return eol(pp, end, H1_E_BARE_CR);
        if (UNLIKELY(h->n == max))
            return H1_E_FIELDS_COUNT;
        struct h1_field *f = &h->fields[h->n];
        enum h1_error e = field_line(pp, end, f);
        if (UNLIKELY(e))
            return e;
        f->id = token_id(f->name.p, f->name.n);
        h->n++;
        if (f->id == H1_OTHER)
            continue;
        if (LIKELY(!h->known[f->id]))
            h->known[f->id] = h->n;
        else if (f->id == H1_HOST)
            return H1_E_HOST_DUPLICATE;
        else if (f->id == H1_CONTENT_LENGTH)
            return H1_E_CONTENT_LENGTH_DUPLICATE; /* section 6.3 permits equal ones to be merged or refused: refused */
    }
}

/* "HTTP/1.x", where x above 1 counts as 1 (RFC 9110 section 2.5); malformed is the error of the line it stands in. */
static enum h1_error version(const char **pp, const char *end, struct h1_head *h, enum h1_error malformed)
{
    static const char form[] = "HTTP/d.d";
    const char *p = *pp;
    if (LIKELY(end - p >= 8 && memcmp(p, "HTTP/1.1", 8) == 0)) {
        h->major = 1;
        h->minor = 1;
        *pp = p + 8;
        return H1_OK;
    }
    for (int i = 0; i < 8; i++) {
        if (p + i == end)
            return H1_PART_MORE;
        if (form[i] == 'd' ? !h1_in(p[i], H1_C_DIGIT) : p[i] != form[i])
            return p[i] == '\n' ? H1_E_BARE_LF : malformed;
    }
    if (p[5] != '1')
        return H1_E_VERSION;
    h->major = 1;
    h->minor = p[7] > '0';
    *pp = p + 8;
    return H1_OK;
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

/* Methods are case-sensitive (RFC 9110 section 9.1). */
enum h1_method h1_method_id(const char *p, size_t n)
{
    switch (n) {
    case 3: return memcmp(p, "GET", 3) == 0 ? H1_GET : memcmp(p, "PUT", 3) == 0 ? H1_PUT : H1_M_OTHER;
    case 4: return memcmp(p, "POST", 4) == 0 ? H1_POST : memcmp(p, "HEAD", 4) == 0 ? H1_HEAD : H1_M_OTHER;
    case 5: return memcmp(p, "PATCH", 5) == 0 ? H1_PATCH : memcmp(p, "TRACE", 5) == 0 ? H1_TRACE : H1_M_OTHER;
    case 6: return memcmp(p, "DELETE", 6) == 0 ? H1_DELETE : H1_M_OTHER;
    case 7: return memcmp(p, "OPTIONS", 7) == 0 ? H1_OPTIONS : memcmp(p, "CONNECT", 7) == 0 ? H1_CONNECT : H1_M_OTHER;
    default: return H1_M_OTHER;
    }
}

static enum h1_error method(const char **pp, const char *end, struct h1_head *h)
{
    const char *p = *pp, *stop = h1_scan_token(p, end);
    if (UNLIKELY(stop == end))
        return H1_PART_MORE;
    if (UNLIKELY(*stop != ' ' || stop == p))
        return *stop == '\n' ? H1_E_BARE_LF : *stop == '\r' ? H1_E_REQUEST_LINE : H1_E_METHOD;
    h->method = slice_of(p, (size_t)(stop - p));
    h->method_id = h1_method_id(p, h->method.n);
    *pp = stop + 1;
    return H1_OK;
}

static enum h1_error target(const char **pp, const char *end, const struct h1_limits *lim, struct h1_head *h)
{
    const char *p = *pp, *query, *stop = h1_scan_target(p, end, &query);
    if (UNLIKELY((size_t)(stop - p) > lim->target_bytes_max))
        return H1_E_TARGET_SIZE;
    if (UNLIKELY(stop == end))
        return H1_PART_MORE;
    if (UNLIKELY(*stop != ' '))
        return *stop == '\n' ? H1_E_BARE_LF : *stop == '\r' ? H1_E_REQUEST_LINE : H1_E_TARGET;
    h->target = slice_of(p, (size_t)(stop - p));
    *pp = stop + 1;
    return h1_target_split(h, query);
}

static enum h1_error request(const char **pp, const char *end, const struct h1_limits *lim, struct h1_head *h)
{
    enum h1_error e;
    if (UNLIKELY(**pp == '\r' && (e = eol(pp, end, H1_E_REQUEST_LINE)))) /* one empty line before (section 2.2) */
        return e;
    if ((e = method(pp, end, h)) || (e = target(pp, end, lim, h)) || (e = version(pp, end, h, H1_E_REQUEST_LINE)) ||
        (e = eol(pp, end, H1_E_REQUEST_LINE)) || (e = field_lines(pp, end, lim, h)))
        return e;
    return h1_request_finish(h);
}

/* ---- responses ------------------------------------------------------------------------------------------------------------- */

static enum h1_error status_line(const char **pp, const char *end, struct h1_head *h)
{
    enum h1_error e = version(pp, end, h, H1_E_STATUS_LINE);
    if (e)
        return e;
    const char *p = *pp;
    uint16_t status = 0;
    for (int i = 0; i < 4; i++, p++) {
        if (p == end)
            return H1_PART_MORE;
        if (i == 0 ? *p != ' ' : !h1_in(*p, H1_C_DIGIT))
            return *p == '\n' ? H1_E_BARE_LF : H1_E_STATUS_LINE;
        if (i > 0)
            status = (uint16_t)(status * 10 + (*p - '0'));
    }
    if (status < 100)
        return H1_E_STATUS_LINE;
    h->status = status;
    const char *stop = p;
    if (p < end && *p == ' ') { /* some servers leave it out with an empty reason */
        stop = h1_scan_value(++p, end);
        h->reason = slice_of(p, (size_t)(stop - p));
    }
    *pp = stop;
    return eol(pp, end, H1_E_STATUS_LINE);
}

static enum h1_error response(const char **pp, const char *end, const struct h1_limits *lim, enum h1_method request_method, struct h1_head *h)
{
    enum h1_error e = status_line(pp, end, h);
    if (e || (e = field_lines(pp, end, lim, h)))
        return e;
    return h1_response_finish(h, request_method);
}

/* ---- entry points ------------------------------------------------------------------------------------------------------------ */

static void head_init(struct h1_head *h)
{
    memset(h, 0, offsetof(struct h1_head, fields)); /* fields[] is large, and only its first n entries are ever read */
}

static enum h1_result head_result(enum h1_error e, const char *p, const char *at, size_t n, const struct h1_limits *lim, size_t *used,
                                  enum h1_error *error)
{
    if (LIKELY(e == H1_OK)) {
        *used = (size_t)(at - p);
        return H1_DONE;
    }
    if (e == H1_PART_MORE) {
        if (n < lim->head_bytes_max)
            return H1_MORE;
        e = H1_E_HEAD_SIZE; /* as many bytes as a head may have, and it is not complete */
    }
    *error = e;
    return H1_BAD;
}

enum h1_result h1_parse_request(const char *p, size_t n, const struct h1_limits *lim, struct h1_head *h, size_t *used, enum h1_error *error)
{
    const char *at = p;
    head_init(h);
    enum h1_error e = n ? request(&at, p + MIN(n, lim->head_bytes_max), lim, h) : H1_PART_MORE;
    return head_result(e, p, at, n, lim, used, error);
}

enum h1_result h1_parse_response(const char *p, size_t n, const struct h1_limits *lim, enum h1_method request_method, struct h1_head *h,
                                 size_t *used, enum h1_error *error)
{
    const char *at = p;
    head_init(h);
    enum h1_error e = n ? response(&at, p + MIN(n, lim->head_bytes_max), lim, request_method, h) : H1_PART_MORE;
    return head_result(e, p, at, n, lim, used, error);
}

size_t h1_head_end(const char *p, size_t n, size_t *from)
{
    /* An empty line ends the head whether its line ends are CRLF or (refused by the parser, but an end) LF; *from is left at
     * the LF behind which not enough is known. */
    size_t i = *from;
    for (;;) {
        const char *lf = i < n ? memchr(p + i, '\n', n - i) : NULL;
        if (!lf) {
            *from = n;
            return 0;
        }
        size_t at = (size_t)(lf - p);
        i = at + 1;
        if (at == 1 && p[0] == '\r')
            continue; /* the empty line before a request line */
        if (i < n && p[i] == '\n')
            return i + 1;
        if (i + 1 < n && p[i] == '\r' && p[i + 1] == '\n')
            return i + 2;
        if (i == n || (i + 1 == n && p[i] == '\r')) {
            *from = at;
            return 0;
        }
    }
}
