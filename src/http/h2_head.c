/* h2_head.c - heads and trailers to be sent: from the lines of HTTP/1 to a list of fields.
 *
 * The lines were written by the owner and are sound. Names go out in lower case; Connection and what else frames HTTP/1 stays
 * behind (RFC 9113 section 8.2.2). Values that differ from request to request are not put into the compression table, where
 * they would only push out what repeats.
 */
#include "h2_int.h"

void h2_nva_init(struct h2_nva *a, bool no_copy)
{
    a->n = 0;
    a->flags = no_copy ? NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE : NGHTTP2_NV_FLAG_NONE;
    a->over = false;
    a->host = a->upgrade = a->key = (struct slice){0};
}

static void put(struct h2_nva *a, struct slice name, struct slice value, uint8_t flags)
{
    if (UNLIKELY(a->n == H2_NV_MAX)) {
        a->over = true;
        return;
    }
    a->v[a->n++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n, flags};
}

void h2_nva_put(struct h2_nva *a, struct slice name, struct slice value) { put(a, name, value, a->flags); }

void h2_nva_length(struct h2_nva *a, uint64_t length)
{
    size_t at = sizeof a->digits;
    do
        a->digits[--at] = (char)('0' + length % 10);
    while (length /= 10);
    put(a, SLICE("content-length"), slice_of(a->digits + at, sizeof a->digits - at), a->flags);
}

static bool has_token(struct slice list, struct slice token)
{
    while (list.n)
        if (slice_ieq(slice_trim(slice_cut(list, ',', &list)), token))
            return true;
    return false;
}

/* name, of which the length is known to be that of lower. Mostly it is in lower case, and this a comparison of a word or two. */
#define is(name, lower) is_one(name, "" lower, sizeof(lower) - 1)
static inline bool is_one(struct slice name, const char *lower, size_t n)
{
    return memcmp(name.p, lower, n) == 0 || (UNLIKELY(ascii_lower(name.p[0]) == lower[0]) && slice_ieq(name, slice_of(lower, n)));
}

/* True: the field stays behind; what it says may be noted. */
static bool left_out(struct h2_nva *a, struct slice name, struct slice value)
{
    switch (name.n) {
    case 2: return is(name, "te") && !has_token(value, SLICE("trailers"));
    case 4:
        if (!is(name, "host"))
            return false;
        a->host = value;
        return true;
    case 7:
        if (!is(name, "upgrade"))
            return false;
        a->upgrade = value;
        return true;
    case 10: return is(name, "connection") || is(name, "keep-alive");
    case 14: return is(name, "http2-settings");
    case 16: return is(name, "proxy-connection");
    case 17:
        if (is(name, "sec-websocket-key")) {
            a->key = value;
            return true;
        }
        return is(name, "transfer-encoding");
    case 20: return is(name, "sec-websocket-accept");
    default: return false;
    }
}

/* Differs from request to request. */
static bool varies(struct slice name)
{
    switch (name.n) {
    case 10: return is(name, "tracestate");
    case 11: return is(name, "traceparent");
    case 12: return is(name, "x-request-id");
    default: return false;
    }
}

/* Eight bytes at a time: the first ':' of the line, and whether there is a capital before it. Names are ASCII. */
static const char *name_end(const char *p, const char *end, bool *upper)
{
    const uint64_t each = 0x0101010101010101u, high = each << 7;
    uint64_t capitals = 0;
    for (; end - p >= 8; p += 8) {
        uint64_t w;
        memcpy(&w, p, sizeof w);
        uint64_t x = w ^ (each * ':'), colons = (x - each) & ~x & high;
        uint64_t here = (w + each * (0x80 - 'A')) & ~(w + each * (0x7f - 'Z')) & high;
        if (colons) {
            unsigned at = (unsigned)__builtin_ctzll(colons) / 8;
            *upper = (capitals | (here & ((1ull << 8 * at) - 1))) != 0;
            return p + at;
        }
        capitals |= here;
    }
    for (*upper = capitals != 0; p < end && *p != ':'; p++)
        *upper |= (unsigned char)(*p - 'A') < 26;
    return p;
}

/* As slice_trim(); a line has one blank in front of its value, mostly. */
static inline struct slice trim(struct slice v)
{
    if (v.n < 2 || v.p[0] != ' ' || UNLIKELY((unsigned char)v.p[1] <= ' ' || (unsigned char)v.p[v.n - 1] <= ' '))
        return slice_trim(v);
    return slice_of(v.p + 1, v.n - 1);
}

void h2_nva_lines(struct h2_nva *a, struct slice text)
{
    const char *p = text.p, *end = p + text.n;
    while (p < end && *p != '\r') {
        bool upper;
        const char *name = p, *colon = name_end(p, end, &upper);
        const char *value = colon + 1, *eol = value < end ? memchr(value, '\r', (size_t)(end - value)) : NULL;
        if (!eol)
            return;
        p = eol + 2;
        struct slice n = slice_of(name, (size_t)(colon - name)), v = trim(slice_of(value, (size_t)(eol - value)));
        if (UNLIKELY(n.n == 0) || left_out(a, n, v))
            continue;
        if (n.n == 2 && is(n, "te"))
            v = SLICE("trailers");
        uint8_t flags = upper ? (uint8_t)(a->flags & ~NGHTTP2_NV_FLAG_NO_COPY_NAME) : a->flags; /* the copy is in lower case */
        if (varies(n))
            flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        put(a, n, v, flags);
    }
}
