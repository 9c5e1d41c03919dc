/* http2.c - the field sections of HTTP/2 messages into struct h1_head. See http2.h.
 *
 * A section is judged field by field and, for what its fields mean together, at its end; the first fault found is the one
 * that is told. The meaning of authority, lengths and options is http1_meaning.c's, so that both versions obey one rule.
 */
#include "http2.h"
#include "http1_int.h"

#define FIELD_OVERHEAD 32 /* RFC 9113 section 6.5.2 */
#define FIELDS_OURS 2     /* that may be added here: host, upgrade */

struct fault {
    const char *label, *text;
};
static const struct fault fault_name = {"h2_field_name", "a field name is empty, is not a token, or has an upper-case letter (RFC 9113 section 8.2.1)"};
static const struct fault fault_value = {"h2_field_value", "a field value has a control character, or white space at an end (RFC 9113 section 8.2.1)"};
static const struct fault fault_pseudo = {"h2_pseudo_field", "a pseudo field is unknown, repeated, misplaced, missing or empty (RFC 9113 section 8.3)"};
static const struct fault fault_connection = {"h2_connection_field", "there is a field that only HTTP/1 may have (RFC 9113 section 8.2.2)"};
static const struct fault fault_scheme = {"h2_scheme", "the scheme is neither http nor https"};
static const struct fault fault_authority = {"h2_authority", ":authority and Host differ (RFC 9113 section 8.3.1)"};
static const struct fault fault_length = {"h2_content_length", "the Content-Length is not that of the body (RFC 9113 section 8.1.1)"};
static const struct fault fault_status = {"h2_status", "the status is not three digits from 100, or is 101 (RFC 9113 sections 8.3.2 and 8.6)"};

static bool refuse(struct h2_fields *f, const struct fault *why)
{
    f->status = 400;
    f->label = why->label;
    f->text = why->text;
    return false;
}

static bool refuse_h1(struct h2_fields *f, enum h1_error e)
{
    f->status = h1_error_status(e);
    f->label = h1_error_label(e);
    f->text = h1_error_text(e);
    return false;
}

void h2_fields_begin(struct h2_fields *f, enum h2_kind kind, const struct h1_limits *limits)
{
    memset(f->pseudo, 0, sizeof f->pseudo);
    f->limits = limits;
    f->bytes = 0;
    f->kind = (uint8_t)kind;
    f->regular = false;
    f->status = 0;
    f->label = f->text = NULL;
    buf_clear(&f->cookie);
    memset(&f->h, 0, offsetof(struct h1_head, fields));
}

void h2_fields_fini(struct h2_fields *f) { buf_free(&f->cookie); }

/* ---- field by field --------------------------------------------------------------------------------------------------- */

/* tchar without upper case: 1. */
static const uint8_t lower_token[256] = {
    ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['-'] = 1, ['.'] = 1, ['_'] = 1, ['~'] = 1, ['!'] = 1, ['$'] = 1, ['&'] = 1,
    ['\''] = 1, ['*'] = 1, ['+'] = 1, ['#'] = 1, ['%'] = 1, ['^'] = 1, ['`'] = 1, ['|'] = 1,
};

static bool is_lower_token(struct slice s)
{
    uint8_t ok = s.n > 0;
    for (size_t i = 0; i < s.n; i++)
        ok &= lower_token[(unsigned char)s.p[i]];
    return ok;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static bool is_value(struct slice s)
{
    if (s.n == 0)
        return true;
    return !is_blank(s.p[0]) && !is_blank(s.p[s.n - 1]) && h1_scan_value(s.p, s.p + s.n) == s.p + s.n;
}

static const struct {
    const char *name;
    uint8_t kind; /* of the section it may be in */
} pseudo_known[H2_PSEUDO_COUNT] = {[H2_METHOD] = {":method", H2_REQUEST},
                                   [H2_SCHEME] = {":scheme", H2_REQUEST},
                                   [H2_AUTHORITY] = {":authority", H2_REQUEST},
                                   [H2_PATH] = {":path", H2_REQUEST},
                                   [H2_PROTOCOL] = {":protocol", H2_REQUEST},
                                   [H2_STATUS] = {":status", H2_RESPONSE}};

int h2_name(struct slice name)
{
    if (name.n > 1 && name.p[0] == ':') {
        for (int i = 0; i < H2_PSEUDO_COUNT; i++)
            if (slice_is(name, pseudo_known[i].name))
                return H2_NAME_PSEUDO + i;
        return H2_NAME_BAD_PSEUDO;
    }
    return is_lower_token(name) ? (int)h1_token_id(name.p, name.n) : H2_NAME_BAD;
}

static bool pseudo(struct h2_fields *f, int i, struct slice value)
{
    if (f->regular || f->pseudo[i].p || f->kind != pseudo_known[i].kind || value.n == 0)
        return refuse(f, &fault_pseudo);
    f->pseudo[i] = value;
    return true;
}

static void push(struct h2_fields *f, enum h1_name id, struct slice name, struct slice value)
{
    struct h1_head *h = &f->h;
    h->fields[h->n++] = (struct h1_field){name, value, id};
    if (id != H1_OTHER && !h->known[id])
        h->known[id] = h->n;
}

/* Crumbs are joined by "; " (section 8.2.3): HTTP/1 has one Cookie field. Empty ones leave nothing, or the value would end with a blank. */
static void crumb(struct h2_fields *f, struct slice value)
{
    struct h1_field *cookie = &f->h.fields[f->h.known[H1_COOKIE] - 1];
    if (!value.n)
        return;
    if (!f->cookie.n)
        buf_add_slice(&f->cookie, cookie->value);
    if (f->cookie.n)
        buf_add(&f->cookie, "; ", 2);
    buf_add_slice(&f->cookie, value);
    cookie->value = buf_slice(&f->cookie);
}

static bool trailer(struct h2_fields *f, enum h1_name id, struct slice name, struct slice value)
{
    struct h1_field field = {name, value, id};
    if (slice_starts(name, SLICE("grpc-")) || !h1_trailer_forbidden(&field))
        push(f, id, name, value);
    return true;
}

static bool regular(struct h2_fields *f, enum h1_name id, struct slice name, struct slice value)
{
    switch (id) {
    case H1_CONNECTION:
    case H1_KEEP_ALIVE:
    case H1_PROXY_CONNECTION:
    case H1_TRANSFER_ENCODING:
    case H1_UPGRADE:
        return refuse(f, &fault_connection);
    case H1_TE:
        if (!slice_ieq(value, SLICE("trailers")))
            return refuse(f, &fault_connection);
        break;
    case H1_COOKIE:
        if (!f->h.known[H1_COOKIE])
            break;
        crumb(f, value);
        return true;
    case H1_HOST:
        if (f->h.known[H1_HOST])
            return refuse_h1(f, H1_E_HOST_DUPLICATE);
        break;
    case H1_CONTENT_LENGTH:
        if (f->h.known[H1_CONTENT_LENGTH])
            return refuse_h1(f, H1_E_CONTENT_LENGTH_DUPLICATE);
        break;
    default:
        break;
    }
    if (f->h.n >= MIN(f->limits->fields_max, H1_FIELDS_MAX - FIELDS_OURS))
        return refuse_h1(f, H1_E_FIELDS_COUNT);
    if (f->kind == H2_TRAILERS)
        return trailer(f, id, name, value);
    push(f, id, name, value);
    return true;
}

bool h2_fields_add(struct h2_fields *f, int id, struct slice name, struct slice value)
{
    f->bytes += name.n + value.n + FIELD_OVERHEAD;
    if (UNLIKELY(f->label != NULL))
        return false;
    if (UNLIKELY(f->bytes > (f->kind == H2_TRAILERS ? H1_TRAILER_BYTES_MAX : f->limits->head_bytes_max)))
        return refuse_h1(f, f->kind == H2_TRAILERS ? H1_E_TRAILERS_SIZE : H1_E_HEAD_SIZE);
    if (UNLIKELY(!is_value(value)))
        return refuse(f, &fault_value);
    if (id >= H2_NAME_BAD)
        return refuse(f, id == H2_NAME_BAD ? &fault_name : &fault_pseudo);
    if (id >= H2_NAME_PSEUDO)
        return pseudo(f, id - H2_NAME_PSEUDO, value);
    f->regular = true;
    return regular(f, (enum h1_name)id, name, value);
}

/* ---- requests ----------------------------------------------------------------------------------------------------------- */

/* Host as HTTP/1 has it, whichever of both came. With any_authority one that says nothing. */
static bool host(struct h2_fields *f)
{
    struct slice authority = f->limits->any_authority ? SLICE("localhost") : f->pseudo[H2_AUTHORITY];
    const struct h1_field *h = h1_get(&f->h, H1_HOST);
    if (!authority.p)
        return true; /* h1_request_finish() misses Host */
    if (!h)
        push(f, H1_HOST, SLICE("host"), authority);
    else if (!f->limits->any_authority && !slice_ieq(h->value, authority))
        return refuse(f, &fault_authority);
    return true;
}

/* CONNECT (section 8.5): an authority with a port, and nothing else. */
static bool connect_target(struct h2_fields *f)
{
    struct h1_head *h = &f->h;
    if (f->pseudo[H2_SCHEME].p || f->pseudo[H2_PATH].p || !f->pseudo[H2_AUTHORITY].p)
        return refuse(f, &fault_pseudo);
    h->target = f->pseudo[H2_AUTHORITY];
    enum h1_error e = h1_target_split(h, NULL);
    return e ? refuse_h1(f, e) : true;
}

static bool path_target(struct h2_fields *f)
{
    struct h1_head *h = &f->h;
    struct slice path = f->pseudo[H2_PATH], scheme = f->pseudo[H2_SCHEME];
    const char *query;
    if (!path.p || !scheme.p)
        return refuse(f, &fault_pseudo);
    if (!slice_is(scheme, "http") && !slice_is(scheme, "https") && !slice_ieq(scheme, SLICE("http")) && !slice_ieq(scheme, SLICE("https")))
        return refuse(f, &fault_scheme);
    if (path.n > f->limits->target_bytes_max)
        return refuse_h1(f, H1_E_TARGET_SIZE);
    if (h1_scan_target(path.p, path.p + path.n, &query) != path.p + path.n || (path.p[0] != '/' && !slice_is(path, "*")))
        return refuse_h1(f, H1_E_TARGET);
    h->target = path;
    enum h1_error e = h1_target_split(h, query);
    return e ? refuse_h1(f, e) : true;
}

/* RFC 8441 section 4: CONNECT with :protocol is HTTP/1.1's GET with Upgrade. */
static bool extended(struct h2_fields *f)
{
    struct h1_head *h = &f->h;
    if (h->method_id != H1_CONNECT || !f->pseudo[H2_AUTHORITY].p || !h1_is_token(f->pseudo[H2_PROTOCOL]))
        return refuse(f, &fault_pseudo);
    if (h->known[H1_CONTENT_LENGTH])
        return refuse(f, &fault_length);
    h->method = SLICE("GET");
    h->method_id = H1_GET;
    push(f, H1_UPGRADE, SLICE("upgrade"), f->pseudo[H2_PROTOCOL]);
    return true;
}

bool h2_request_finish(struct h2_fields *f, bool end)
{
    struct h1_head *h = &f->h;
    if (f->label)
        return false;
    h->major = 2;
    h->minor = 1;
    h->method = f->pseudo[H2_METHOD];
    if (!h->method.p)
        return refuse(f, &fault_pseudo);
    if (!h1_is_token(h->method))
        return refuse_h1(f, H1_E_METHOD);
    h->method_id = h1_method_id(h->method.p, h->method.n);
    bool upgrade = f->pseudo[H2_PROTOCOL].p != NULL;
    if (upgrade && !extended(f))
        return false;
    bool tunnel = upgrade || h->method_id == H1_CONNECT;
    if (!(h->method_id == H1_CONNECT ? connect_target(f) : path_target(f)) || !host(f))
        return false;
    enum h1_error e = h1_request_finish(h);
    if (e)
        return refuse_h1(f, e);
    if (tunnel && (end || h->framing != H1_NO_BODY)) /* a tunnel that its client ends before it begins, or with a length */
        return refuse(f, &fault_length);
    if (end && h->length)
        return refuse(f, &fault_length);
    if (!end && !tunnel && h->framing == H1_NO_BODY)
        h->framing = H1_CHUNKED;
    h->upgrade = upgrade;
    return true;
}

/* ---- responses ------------------------------------------------------------------------------------------------------------- */

bool h2_response_finish(struct h2_fields *f, enum h1_method method, bool end)
{
    struct h1_head *h = &f->h;
    struct slice status = f->pseudo[H2_STATUS];
    uint64_t code;
    if (f->label)
        return false;
    if (!status.p)
        return refuse(f, &fault_pseudo);
    if (status.n != 3 || slice_u64(status, 999, &code) || code < 100 || code == 101)
        return refuse(f, &fault_status);
    h->major = 2;
    h->minor = 1;
    h->status = (uint16_t)code;
    enum h1_error e = h1_response_finish(h, method);
    if (e)
        return refuse_h1(f, e);
    h->keep_alive = true;
    if (h->framing == H1_UNTIL_CLOSE)
        h->framing = H1_CHUNKED;
    if (end && h->framing == H1_LENGTH && h->length)
        return refuse(f, &fault_length);
    return true;
}
