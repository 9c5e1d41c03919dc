/* proxy_protocol.c - PROXY protocol headers, read and written.
 *
 *     version 1   "PROXY" SP ("TCP4" | "TCP6") SP source SP destination SP port SP port CR LF, or "PROXY UNKNOWN" ... CR LF
 *
 *     version 2   0   12 bytes   signature
 *                 12  1          version (2) in the high half, command in the low: 0 LOCAL, 1 PROXY
 *                 13  1          family in the high half: 0 none, 1 INET, 2 INET6, 3 UNIX; transport in the low: 0 none, 1 STREAM, 2 DGRAM
 *                 14  2          length of what follows
 *                 16             addresses: 12, 36 or 216 bytes; then TLVs: type (1), length (2), value
 *
 * Numbers are big-endian. A refusal of a prefix is the refusal of the whole, so it does not matter in which pieces the
 * bytes come. Nothing of a LOCAL header is looked at but its length.
 */
#include "proxy_protocol.h"
#include "crc32c.h"

#include <arpa/inet.h>
#include <stdio.h>

#define V2_HEAD 16
#define V2_SIGNATURE_N 12
#define V1_TEXT_MAX 46 /* of an address, with its NUL */
static const char v2_signature[V2_SIGNATURE_N] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

enum { V2_LOCAL, V2_PROXY };
enum { TLV_ALPN = 1, TLV_AUTHORITY = 2, TLV_CRC32C = 3, TLV_UNIQUE_ID = 5, TLV_SSL = 0x20, TLV_SSL_VERSION = 0x21, TLV_SSL_CN = 0x22 };
#define UNIQUE_ID_MAX 128 /* section 2.2.5 */

/* ---- errors ---- */

static const char *const labels[PP_ERROR_COUNT] = {
    "ok",
#define X(name, label, text) label,
#include "proxy_protocol_errors.def"
#undef X
};
static const char *const texts[PP_ERROR_COUNT] = {
    "ok",
#define X(name, label, text) text,
#include "proxy_protocol_errors.def"
#undef X
};

const char *pp_error_label(enum pp_error e) { return labels[(unsigned)e < PP_ERROR_COUNT ? e : 0]; }
const char *pp_error_text(enum pp_error e) { return texts[(unsigned)e < PP_ERROR_COUNT ? e : 0]; }

/* ---- numbers ---- */

static uint16_t get16(const char *p) { return (uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]); }
static uint32_t get32(const char *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static char *put16(char *p, size_t v)
{
    p[0] = (char)(v >> 8);
    p[1] = (char)v;
    return p + 2;
}

static char *put32(char *p, uint32_t v)
{
    return put16(put16(p, v >> 16), v & 0xffff);
}

/* The checksum of the n bytes at p, with those from zero_at to zero_at + 4 taken as 0: they are where it stands. */
static uint32_t crc_around(const char *p, size_t n, size_t zero_at)
{
    uint32_t crc = crc32c(0, p, zero_at);
    crc = crc32c(crc, "\0\0\0", 4);
    return crc32c(crc, p + zero_at + 4, n - zero_at - 4);
}

/* ---- version 1, read ---- */

/* *end: the index past the line's CRLF. */
static enum pp_result v1_line(const char *p, size_t n, size_t *end, enum pp_error *error)
{
    size_t i = 0;
    while (i < n && i < PP_V1_BYTES_MAX - 1 && p[i] != '\r' && p[i] != '\n') i++;
    if (i == n) return PP_MORE;
    bool full = i == PP_V1_BYTES_MAX - 1;
    if (!full && p[i] == '\r' && i + 1 == n) return PP_MORE;
    if (full || p[i] != '\r' || p[i + 1] != '\n') {
        *error = full ? PP_E_V1_SIZE : PP_E_V1_LINE;
        return PP_BAD;
    }
    *end = i + 2;
    return PP_DONE;
}

static bool v1_address(struct slice text, int family, uint8_t ip[16])
{
    char z[V1_TEXT_MAX];
    if (text.n >= sizeof z || memchr(text.p, 0, text.n)) return false;
    memcpy(z, text.p, text.n);
    z[text.n] = 0;
    return inet_pton(family, z, ip) == 1;
}

static bool v1_port(struct slice text, uint16_t *port)
{
    uint64_t v;
    if (text.n > 1 && text.p[0] == '0') return false;
    if (text.n == 0 || slice_u64(text, UINT16_MAX, &v) != OK) return false;
    *port = (uint16_t)v;
    return true;
}

static enum pp_error v1_meaning(struct slice line, struct pp_header *h)
{
    struct slice rest, family = slice_cut(line, ' ', &rest);
    bool four = slice_is(family, "TCP4");
    h->local = slice_is(family, "UNKNOWN");
    if (h->local) return PP_OK; /* the rest of the line is ignored (section 2.1) */
    if (!four && !slice_is(family, "TCP6")) return PP_E_V1_FAMILY;
    h->src.family = h->dst.family = four ? PP_IP4 : PP_IP6;
    struct slice part[4];
    size_t spaces = 0;
    for (size_t i = 0; i < rest.n; i++) spaces += rest.p[i] == ' ';
    if (spaces != 3) return PP_E_V1_FORM;
    for (int i = 0; i < 4; i++) part[i] = slice_cut(rest, ' ', &rest);
    int af = four ? AF_INET : AF_INET6;
    if (!v1_address(part[0], af, h->src.ip) || !v1_address(part[1], af, h->dst.ip)) return PP_E_V1_ADDRESS;
    if (!v1_port(part[2], &h->src.port) || !v1_port(part[3], &h->dst.port)) return PP_E_V1_PORT;
    return PP_OK;
}

static enum pp_result v1_parse(const char *p, size_t n, struct pp_header *h, size_t *used, enum pp_error *error)
{
    size_t end = 0;
    enum pp_result r = v1_line(p, n, &end, error);
    if (r != PP_DONE) return r;
    h->version = 1;
    *error = v1_meaning(slice_of(p + 6, end - 2 - 6), h);
    if (*error) return PP_BAD;
    *used = end;
    return PP_DONE;
}

/* ---- version 2, read ---- */

/* Takes the next TLV off *at; false at the end of the bytes, with *error when that is in the midst of one. */
static bool tlv_next(struct slice *at, uint8_t *type, struct slice *value, enum pp_error *error)
{
    if (at->n == 0) return false;
    size_t n = at->n < 3 ? 0 : get16(at->p + 1);
    if (at->n < 3 || n > at->n - 3) {
        *error = PP_E_V2_TLV;
        return false;
    }
    *type = (uint8_t)at->p[0];
    *value = slice_of(at->p + 3, n);
    *at = slice_of(at->p + 3 + n, at->n - 3 - n);
    return true;
}

static enum pp_error v2_ssl(struct slice value, struct pp_header *h)
{
    if (value.n < 5 || h->has_ssl) return PP_E_V2_TLV;
    h->has_ssl = true;
    h->ssl_client = (uint8_t)value.p[0];
    h->ssl_verify = get32(value.p + 1);
    struct slice at = slice_of(value.p + 5, value.n - 5), part;
    enum pp_error error = PP_OK;
    for (uint8_t type; tlv_next(&at, &type, &part, &error);) {
        if (type == TLV_SSL_VERSION) h->ssl_version = part;
        if (type == TLV_SSL_CN) h->ssl_cn = part;
    }
    return error;
}

static enum pp_error v2_crc(const char *p, size_t n, struct slice value, struct pp_header *h)
{
    if (value.n != 4 || h->has_crc) return PP_E_V2_TLV;
    h->has_crc = true;
    return crc_around(p, n, (size_t)(value.p - p)) == get32(value.p) ? PP_OK : PP_E_V2_CRC;
}

/* The TLVs at `at` of the header p[0..n). Unknown types are skipped (section 2.2). */
static enum pp_error v2_tlvs(const char *p, size_t n, struct slice at, struct pp_header *h)
{
    struct slice value;
    enum pp_error error = PP_OK;
    for (uint8_t type; error == PP_OK && tlv_next(&at, &type, &value, &error);) {
        switch (type) {
        case TLV_ALPN: h->alpn = value; break;
        case TLV_AUTHORITY: h->authority = value; break;
        case TLV_UNIQUE_ID:
            h->unique_id = value;
            if (value.n > UNIQUE_ID_MAX) error = PP_E_V2_TLV;
            break;
        case TLV_SSL: error = v2_ssl(value, h); break;
        case TLV_CRC32C: error = v2_crc(p, n, value, h); break;
        default: break;
        }
    }
    return error;
}

static struct slice v2_path(const char *p)
{
    return slice_of(p, strnlen(p, PP_PATH_MAX));
}

static size_t v2_address_bytes(enum pp_family f)
{
    return f == PP_IP4 ? 12 : f == PP_IP6 ? 36 : f == PP_UNIX ? 2 * PP_PATH_MAX : 0;
}

static void v2_addresses(const char *p, struct pp_header *h)
{
    size_t ip_n = h->src.family == PP_IP4 ? 4 : 16;
    if (h->src.family == PP_UNIX) {
        h->src.path = v2_path(p);
        h->dst.path = v2_path(p + PP_PATH_MAX);
        return;
    }
    memcpy(h->src.ip, p, ip_n);
    memcpy(h->dst.ip, p + ip_n, ip_n);
    h->src.port = get16(p + 2 * ip_n);
    h->dst.port = get16(p + 2 * ip_n + 2);
}

/* The four bytes behind the signature, as far as they are there. */
static enum pp_error v2_head(const char *p, size_t n)
{
    if (n > 12 && (uint8_t)p[12] >> 4 != 2) return PP_E_V2_VERSION;
    if (n > 12 && (p[12] & 15) > V2_PROXY) return PP_E_V2_COMMAND;
    bool local = n > 12 && (p[12] & 15) == V2_LOCAL;
    if (n > 13 && !local && (uint8_t)p[13] >> 4 > PP_UNIX) return PP_E_V2_FAMILY;
    if (n > 13 && !local && (uint8_t)p[13] >> 4 != PP_NONE && (p[13] & 15) != 1) return PP_E_V2_TRANSPORT;
    if (n > 15 && V2_HEAD + (size_t)get16(p + 14) > PP_V2_BYTES_MAX) return PP_E_V2_SIZE;
    return PP_OK;
}

static enum pp_result v2_parse(const char *p, size_t n, struct pp_header *h, size_t *used, enum pp_error *error)
{
    *error = v2_head(p, n);
    if (*error) return PP_BAD;
    if (n < V2_HEAD) return PP_MORE;
    size_t length = get16(p + 14), all = V2_HEAD + length;
    bool local = (p[12] & 15) == V2_LOCAL;
    enum pp_family family = (enum pp_family)((uint8_t)p[13] >> 4);
    *error = PP_E_V2_ADDRESS;
    if (!local && length < v2_address_bytes(family)) return PP_BAD;
    *error = PP_OK;
    if (n < all) return PP_MORE;
    h->version = 2;
    h->local = local || family == PP_NONE;
    if (!h->local) {
        h->src.family = h->dst.family = family;
        v2_addresses(p + V2_HEAD, h);
    }
    size_t at = V2_HEAD + (local ? length : v2_address_bytes(family));
    *error = v2_tlvs(p, all, slice_of(p + at, all - at), h);
    if (*error) return PP_BAD;
    *used = all;
    return PP_DONE;
}

enum pp_result pp_parse(const char *p, size_t n, struct pp_header *h, size_t *used, enum pp_error *error)
{
    memset(h, 0, sizeof *h);
    *error = PP_OK;
    if (n == 0) return PP_MORE;
    struct slice v1 = SLICE("PROXY "), v2 = slice_of(v2_signature, V2_SIGNATURE_N);
    if (memcmp(p, v1.p, MIN(n, v1.n)) == 0) return n < v1.n ? PP_MORE : v1_parse(p, n, h, used, error);
    if (memcmp(p, v2.p, MIN(n, v2.n)) == 0) return n < v2.n ? PP_MORE : v2_parse(p, n, h, used, error);
    *error = PP_E_SIGNATURE;
    return PP_BAD;
}

/* ---- writing ---- */

size_t pp_write_v1(const struct pp_header *h, char out[PP_V1_BYTES_MAX + 1])
{
    bool four = h->src.family == PP_IP4;
    if (h->local || h->src.family != h->dst.family || (!four && h->src.family != PP_IP6))
        return (size_t)snprintf(out, PP_V1_BYTES_MAX + 1, "PROXY UNKNOWN\r\n");
    char src[V1_TEXT_MAX], dst[V1_TEXT_MAX];
    int af = four ? AF_INET : AF_INET6;
    MUST(inet_ntop(af, h->src.ip, src, sizeof src) && inet_ntop(af, h->dst.ip, dst, sizeof dst));
    int n = snprintf(out, PP_V1_BYTES_MAX + 1, "PROXY %s %s %s %u %u\r\n", four ? "TCP4" : "TCP6", src, dst, h->src.port, h->dst.port);
    MUST(n > 0 && n <= PP_V1_BYTES_MAX);
    return (size_t)n;
}

static size_t tlv_bytes(struct slice value) { return value.n ? 3 + value.n : 0; }
static size_t ssl_bytes(const struct pp_header *h) { return 5 + tlv_bytes(h->ssl_version) + tlv_bytes(h->ssl_cn); }

static char *tlv_put(char *at, uint8_t type, struct slice value)
{
    if (value.n == 0) return at;
    *at = (char)type;
    memcpy(put16(at + 1, value.n), value.p, value.n);
    return at + 3 + value.n;
}

static char *ssl_put(char *at, const struct pp_header *h)
{
    *at = TLV_SSL;
    at = put16(at + 1, ssl_bytes(h));
    *at = (char)h->ssl_client;
    at = put32(at + 1, h->ssl_verify);
    at = tlv_put(at, TLV_SSL_VERSION, h->ssl_version);
    return tlv_put(at, TLV_SSL_CN, h->ssl_cn);
}

static char *addresses_put(char *at, const struct pp_header *h, enum pp_family family)
{
    size_t ip_n = family == PP_IP4 ? 4 : 16;
    if (family == PP_NONE) return at;
    if (family == PP_UNIX) {
        memset(at, 0, 2 * PP_PATH_MAX);
        if (h->src.path.n) memcpy(at, h->src.path.p, h->src.path.n);
        if (h->dst.path.n) memcpy(at + PP_PATH_MAX, h->dst.path.p, h->dst.path.n);
        return at + 2 * PP_PATH_MAX;
    }
    memcpy(at, h->src.ip, ip_n);
    memcpy(at + ip_n, h->dst.ip, ip_n);
    return put16(put16(at + 2 * ip_n, h->src.port), h->dst.port);
}

size_t pp_write_v2(const struct pp_header *h, char *out, size_t cap)
{
    enum pp_family family = h->local || h->src.family != h->dst.family ? PP_NONE : h->src.family;
    bool paths = family == PP_UNIX;
    MUST(!paths || (h->src.path.n <= PP_PATH_MAX && h->dst.path.n <= PP_PATH_MAX));
    size_t all = V2_HEAD + v2_address_bytes(family);
    if (!h->local)
        all += tlv_bytes(h->alpn) + tlv_bytes(h->authority) + tlv_bytes(h->unique_id) + (h->has_ssl ? 3 + ssl_bytes(h) : 0) + (h->has_crc ? 7 : 0);
    if (all > cap || all > PP_V2_BYTES_MAX || h->unique_id.n > UNIQUE_ID_MAX) return 0;
    memcpy(out, v2_signature, V2_SIGNATURE_N);
    out[12] = h->local ? 0x20 | V2_LOCAL : 0x20 | V2_PROXY;
    out[13] = (char)(family == PP_NONE ? 0 : family << 4 | 1);
    char *at = addresses_put(put16(out + 14, all - V2_HEAD), h, family), *crc = NULL;
    if (h->local) return all;
    at = tlv_put(at, TLV_ALPN, h->alpn);
    at = tlv_put(at, TLV_AUTHORITY, h->authority);
    at = tlv_put(at, TLV_UNIQUE_ID, h->unique_id);
    if (h->has_ssl) at = ssl_put(at, h);
    if (h->has_crc) {
        crc = tlv_put(at, TLV_CRC32C, SLICE("\0\0\0\0")) - 4;
        put32(crc, crc_around(out, all, (size_t)(crc - out)));
    }
    return all;
}
