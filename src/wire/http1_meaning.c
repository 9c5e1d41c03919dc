/* http1_meaning.c - what the parts of a head mean together: the forms of a request target, the authority, the framing of the
 * body, and whether the connection persists.
 *
 *     origin-form     /path?query                     all methods but CONNECT
 *     absolute-form   http://authority/path?query     all methods but CONNECT; http and https only
 *     authority-form  host:port                       CONNECT only
 *     asterisk-form   *                               OPTIONS only                        (RFC 9112 section 3.2)
 *
 * Framing is where requests are smuggled, so there is no leniency: each ambiguity that RFC 9112 sections 6.1 and 6.3 permit
 * either to repair or to refuse is refused.
 */
#include "http1_int.h"

/* ---- authority ------------------------------------------------------------------------------------------------------- */

/* The index behind an IPv6 literal in brackets, or 0. The address is checked for its alphabet, not for its meaning: an
 * impossible address matches no route. IPvFuture (RFC 3986 section 3.2.2) is refused; nothing uses it. */
static size_t ip_literal(struct slice a)
{
    bool colon = false;
    for (size_t i = 1; i < a.n; i++) {
        if (a.p[i] == ']')
            return colon ? i + 1 : 0;
        if (a.p[i] == ':')
            colon = true;
        else if (!h1_in(a.p[i], H1_C_HEX) && a.p[i] != '.')
            return 0;
    }
    return 0;
}

/* The index behind a reg-name or IPv4 address (RFC 3986 section 3.2.2), or 0. */
static size_t reg_name(struct slice a)
{
    size_t i = 0;
    while (i < a.n) {
        if (LIKELY(h1_in(a.p[i], H1_C_REG_NAME)))
            i++;
        else if (a.p[i] == '%' && a.n - i >= 3 && h1_in(a.p[i + 1], H1_C_HEX) && h1_in(a.p[i + 2], H1_C_HEX))
            i += 3;
        else
            break;
    }
    return i;
}

/* a = host [ ":" [ port ] ], with a host that is not empty (RFC 9110 section 4.2.1) and without userinfo (section 4.2.4). */
static bool authority_set(struct h1_head *h, struct slice a)
{
    if (a.n == 0)
        return false;
    size_t host_n = a.p[0] == '[' ? ip_literal(a) : reg_name(a);
    if (host_n == 0)
        return false;
    uint64_t port = 0;
    if (host_n < a.n) {
        struct slice digits = slice_of(a.p + host_n + 1, a.n - host_n - 1);
        if (a.p[host_n] != ':' || (digits.n && (slice_u64(digits, 65535, &port) || port == 0)))
            return false;
    }
    h->authority = a;
    h->host = slice_of(a.p, host_n);
    h->port = (uint16_t)port;
    return true;
}

/* ---- target ------------------------------------------------------------------------------------------------------------ */

/* The length of "http://" or "https://" at the front of s, or 0. */
static size_t scheme_len(struct slice s)
{
    if (s.n >= 7 && slice_ieq(slice_of(s.p, 7), SLICE("http://")))
        return 7;
    return s.n >= 8 && slice_ieq(slice_of(s.p, 8), SLICE("https://")) ? 8 : 0;
}

static enum h1_error absolute_form(struct h1_head *h, size_t path_end)
{
    struct slice t = h->target;
    size_t from = scheme_len(t), i = from;
    if (from == 0)
        return H1_E_TARGET;
    while (i < path_end && t.p[i] != '/')
        i++;
    if (!authority_set(h, slice_of(t.p + from, i - from)))
        return H1_E_HOST;
    if (i < path_end)
        h->path = slice_of(t.p + i, path_end - i);
    else /* an empty path means the root (RFC 3986 section 6.2.3), or the server as a whole (RFC 9112 section 3.2.4) */
        h->path = h->method_id == H1_OPTIONS && !h->has_query ? SLICE("*") : SLICE("/");
    return H1_OK;
}

/* Splits h->target; query is its first '?', or NULL. */
enum h1_error h1_target_split(struct h1_head *h, const char *query)
{
    struct slice t = h->target;
    size_t path_end = t.n;
    if (UNLIKELY(h->method_id == H1_CONNECT)) {
        if (query || !authority_set(h, t) || !h->port) /* the port is required (section 3.2.3) */
            return H1_E_TARGET;
        return H1_OK;
    }
    if (query) {
        path_end = (size_t)(query - t.p);
        h->has_query = true;
        h->query = slice_of(query + 1, t.n - path_end - 1);
    }
    if (LIKELY(t.n && t.p[0] == '/')) {
        h->path = slice_of(t.p, path_end);
        return H1_OK;
    }
    if (slice_is(t, "*")) {
        h->path = t;
        return h->method_id == H1_OPTIONS ? H1_OK : H1_E_TARGET;
    }
    return absolute_form(h, path_end);
}

/* ---- lists ------------------------------------------------------------------------------------------------------------- */

/* Iterates over the elements of all fields with one id (RFC 9110 section 5.6.1). */
struct list_walk {
    const struct h1_head *h;
    enum h1_name id;
    uint16_t next;     /* index of the field to look at next */
    bool in_field;
    struct slice rest; /* of the current field */
};

static struct list_walk walk_start(const struct h1_head *h, enum h1_name id)
{
    /* known[] is 1 + index; without such a field there is nothing to look at */
    return (struct list_walk){.h = h, .id = id, .next = h->known[id] ? (uint16_t)(h->known[id] - 1) : h->n};
}

/* The next element, trimmed, possibly empty; false at the end. */
static bool walk_next(struct list_walk *w, struct slice *element)
{
    while (!w->in_field) {
        if (w->next == w->h->n)
            return false;
        const struct h1_field *f = &w->h->fields[w->next++];
        w->in_field = f->id == w->id;
        w->rest = f->value;
    }
    w->in_field = slice_find(w->rest, ',') >= 0;
    *element = slice_trim(slice_cut(w->rest, ',', &w->rest));
    return true;
}

static bool list_has(const struct h1_head *h, enum h1_name id, struct slice token)
{
    struct slice element;
    for (struct list_walk w = walk_start(h, id); walk_next(&w, &element);)
        if (slice_ieq(element, token))
            return true;
    return false;
}

bool h1_connection_names(const struct h1_head *h, struct slice name)
{
    return h->known[H1_CONNECTION] && name.n && list_has(h, H1_CONNECTION, name);
}

/* ---- connection options ---------------------------------------------------------------------------------------------- */

static void connection_options(struct h1_head *h)
{
    bool closes = false, keeps = false, upgrades = false;
    struct slice option;
    for (struct list_walk w = walk_start(h, H1_CONNECTION); walk_next(&w, &option);) {
        if (slice_ieq(option, SLICE("close")))
            closes = true;
        else if (slice_ieq(option, SLICE("keep-alive")))
            keeps = true;
        else if (slice_ieq(option, SLICE("upgrade")))
            upgrades = true;
        else if (option.n && !slice_ieq(option, SLICE("te")))
            h->connection_lists = true;
    }
    h->keep_alive = !closes && (h->minor == 1 || keeps);
    h->upgrade = upgrades && h->known[H1_UPGRADE] && h->minor == 1; /* HTTP/1.0 has none (RFC 9110 section 7.8) */
    if (UNLIKELY(h->known[H1_TE]))
        h->te_trailers = list_has(h, H1_TE, SLICE("trailers"));
}

/* ---- framing ----------------------------------------------------------------------------------------------------------- */

/* Transfer-Encoding must be "chunked" and nothing else. is_request: a request whose last coding is not chunked has no
 * knowable end and is answered 400 (section 6.3); a response of that kind would last until the connection closes, but in a
 * coding that is not understood here. */
static enum h1_error transfer_codings(const struct h1_head *h, bool is_request)
{
    bool chunked = false, others = false;
    struct slice coding;
    for (struct list_walk w = walk_start(h, H1_TRANSFER_ENCODING); walk_next(&w, &coding);) {
        if (coding.n == 0)
            return H1_E_CODING_SYNTAX;
        if (chunked)
            return H1_E_CODING_LAST;
        if (slice_ieq(coding, SLICE("chunked")))
            chunked = true;
        else
            others = true;
    }
    if (!chunked && is_request)
        return H1_E_CODING_LAST;
    return others ? H1_E_CODING_UNKNOWN : H1_OK;
}

/* framing and length by the fields alone; `otherwise` when neither field is there. */
static enum h1_error framing(struct h1_head *h, bool is_request, enum h1_framing otherwise)
{
    h->framing = otherwise;
    const struct h1_field *length = h1_get(h, H1_CONTENT_LENGTH);
    if (h->known[H1_TRANSFER_ENCODING]) {
        if (length)
            return H1_E_LENGTH_AND_CODING;
        if (h->minor == 0)
            return H1_E_CODING_VERSION;
        h->framing = H1_CHUNKED;
        return transfer_codings(h, is_request);
    }
    if (length) {
        if (slice_u64(length->value, INT64_MAX, &h->length))
            return H1_E_CONTENT_LENGTH;
        h->framing = H1_LENGTH;
    }
    return H1_OK;
}

enum h1_error h1_request_finish(struct h1_head *h)
{
    const struct h1_field *host = h1_get(h, H1_HOST);
    if (UNLIKELY(!host && h->minor == 1))
        return H1_E_HOST_MISSING;
    if (LIKELY(host != NULL)) {
        /* The authority of the target, where there is one, wins over Host (section 3.2.2); Host must be valid all the same. */
        struct slice authority = h->authority, name = h->host;
        uint16_t port = h->port;
        if (!authority_set(h, host->value))
            return H1_E_HOST;
        if (UNLIKELY(authority.n)) {
            h->authority = authority;
            h->host = name;
            h->port = port;
        }
    }
    enum h1_error e = framing(h, true, H1_NO_BODY);
    if (UNLIKELY(e))
        return e;
    connection_options(h);
    if (UNLIKELY(h->known[H1_EXPECT]))
        h->expect_continue = h->minor == 1 && list_has(h, H1_EXPECT, SLICE("100-continue"));
    return H1_OK;
}

enum h1_error h1_response_finish(struct h1_head *h, enum h1_method request_method)
{
    enum h1_error e = framing(h, false, H1_UNTIL_CLOSE);
    if (UNLIKELY(e))
        return e;
    bool tunnel = request_method == H1_CONNECT && h->status / 100 == 2;
    if (request_method == H1_HEAD || tunnel || h->status < 200 || h->status == 204 || h->status == 304) {
        h->framing = H1_NO_BODY; /* whatever the fields say (section 6.3) */
        h->length = 0;
    }
    connection_options(h);
    if (h->framing == H1_UNTIL_CLOSE)
        h->keep_alive = false;
    return H1_OK;
}
