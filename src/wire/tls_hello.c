/* tls_hello.c - the ClientHello of a TLS connection, read from outside.
 *
 *     records     type (1: 22, handshake) | version (2: 3, x) | length (2) | part of the message        RFC 8446 section 5.1
 *     message     type (1: ClientHello) | length (3) | version (2) | random (32) | session (1 + n) | ciphers (2 + n)
 *                 | compressions (1 + n) | extensions (2 + n), absent in very old ones                  RFC 8446 section 4.1.2
 *     extension   type (2) | length (2) | data                                                          RFC 8446 section 4.2
 *
 * A client may cut the message into any number of records. So the records are walked first; only when the message is complete is
 * it read, in place when it came in one record, else from a copy without the records' heads. Whatever a reader needs twice
 * is in the first bytes, so refusals of another protocol are immediate.
 *
 * Not read: DTLS, SSL 2 hellos, and the inner hello of Encrypted ClientHello, whose outer name is what can be routed by.
 */
#include "tls_hello.h"

#define RECORD_HEAD 5
#define RECORD_BYTES_MAX 16384
#define RECORD_HANDSHAKE 22
#define MESSAGE_HEAD 4
#define CLIENT_HELLO 1
enum { EXT_SERVER_NAME = 0, EXT_ALPN = 16 };

static const char *const labels[HELLO_ERROR_COUNT] = {
    "ok",
#define X(name, label, text) label,
#include "tls_hello_errors.def"
#undef X
};
static const char *const texts[HELLO_ERROR_COUNT] = {
    "ok",
#define X(name, label, text) text,
#include "tls_hello_errors.def"
#undef X
};

const char *hello_error_label(enum hello_error e) { return labels[(unsigned)e < HELLO_ERROR_COUNT ? e : 0]; }
const char *hello_error_text(enum hello_error e) { return texts[(unsigned)e < HELLO_ERROR_COUNT ? e : 0]; }

/* ---- reading with bounds ---- */

/* Takes a number of `width` bytes off *at. */
static bool take_number(struct slice *at, size_t width, size_t *out)
{
    if (at->n < width) return false;
    size_t v = 0;
    for (size_t i = 0; i < width; i++) v = v << 8 | (uint8_t)at->p[i];
    *at = slice_of(at->p + width, at->n - width);
    *out = v;
    return true;
}

/* Takes a block off *at that follows its length of `width` bytes. */
static bool take_block(struct slice *at, size_t width, struct slice *out)
{
    size_t n;
    if (!take_number(at, width, &n) || n > at->n) return false;
    *out = slice_of(at->p, n);
    *at = slice_of(at->p + n, at->n - n);
    return true;
}

/* ---- extensions ---- */

/* Host names are letters, digits, '-' and '.'; names with '_' are in use, too. Addresses don't belong here, but do no harm. */
static bool host_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == ':';
}

static enum hello_error read_host(struct slice name, struct tls_hello *h)
{
    if (name.n && name.p[name.n - 1] == '.') name.n--;
    if (name.n == 0 || name.n > HELLO_HOST_MAX) return HELLO_E_HOST;
    for (size_t i = 0; i < name.n; i++) {
        h->host[i] = ascii_lower(name.p[i]);
        if (!host_byte(h->host[i])) return HELLO_E_HOST;
    }
    h->host_n = (uint16_t)name.n;
    return HELLO_OK;
}

/* A list of names with types, of which only host_name (0) was ever defined; others are skipped. */
static enum hello_error read_server_names(struct slice ext, struct tls_hello *h)
{
    struct slice list, name;
    size_t type;
    if (!take_block(&ext, 2, &list) || ext.n || list.n == 0) return HELLO_E_FORM;
    while (list.n) {
        if (!take_number(&list, 1, &type) || !take_block(&list, 2, &name)) return HELLO_E_FORM;
        if (type) continue;
        if (h->host_n) return HELLO_E_DUPLICATE;
        enum hello_error e = read_host(name, h);
        if (e) return e;
    }
    return HELLO_OK;
}

static enum hello_error read_alpn(struct slice ext, struct tls_hello *h)
{
    struct slice list, name;
    if (!take_block(&ext, 2, &list) || ext.n) return HELLO_E_FORM;
    if (list.n == 0 || list.n > HELLO_ALPN_BYTES_MAX) return HELLO_E_ALPN;
    memcpy(h->alpn, list.p, list.n);
    h->alpn_n = (uint16_t)list.n;
    while (list.n) {
        if (!take_block(&list, 1, &name)) return HELLO_E_FORM;
        if (name.n == 0) return HELLO_E_ALPN;
    }
    return HELLO_OK;
}

static enum hello_error read_extensions(struct slice all, struct tls_hello *h)
{
    bool names_seen = false, alpn_seen = false;
    while (all.n) {
        size_t type;
        struct slice ext;
        if (!take_number(&all, 2, &type) || !take_block(&all, 2, &ext)) return HELLO_E_FORM;
        bool *seen = type == EXT_SERVER_NAME ? &names_seen : type == EXT_ALPN ? &alpn_seen : NULL;
        if (!seen) continue;
        if (*seen) return HELLO_E_DUPLICATE;
        *seen = true;
        enum hello_error e = type == EXT_ALPN ? read_alpn(ext, h) : read_server_names(ext, h);
        if (e) return e;
    }
    return HELLO_OK;
}

/* The message without its head. */
static enum hello_error read_hello(struct slice m, struct tls_hello *h)
{
    struct slice session, ciphers, compressions, extensions;
    if (m.n < 34) return HELLO_E_FORM;
    m = slice_of(m.p + 34, m.n - 34); /* version and random */
    if (!take_block(&m, 1, &session) || !take_block(&m, 2, &ciphers) || !take_block(&m, 1, &compressions)) return HELLO_E_FORM;
    if (m.n == 0) return HELLO_OK; /* no extensions at all (RFC 5246 section 7.4.1.2) */
    if (!take_block(&m, 2, &extensions) || m.n) return HELLO_E_FORM;
    return read_extensions(extensions, h);
}

/* ---- records ---- */

/* Copies the first n bytes of the message, over the records, to out. */
static void message_copy(const char *p, size_t n, char *out)
{
    while (n) {
        size_t record = (size_t)(uint8_t)p[3] << 8 | (uint8_t)p[4], take = MIN(n, record);
        memcpy(out, p + RECORD_HEAD, take);
        out += take;
        n -= take;
        p += RECORD_HEAD + record;
    }
}

/* The record head at p, as far as it is there. */
static enum hello_result record_head(const char *p, size_t n, bool first, enum hello_error *error)
{
    *error = HELLO_E_RECORD;
    if (p[0] != RECORD_HANDSHAKE || (n > 1 && p[1] != 3)) return first ? HELLO_NOT_TLS : HELLO_BAD;
    if (n < RECORD_HEAD) return HELLO_MORE;
    size_t length = (size_t)(uint8_t)p[3] << 8 | (uint8_t)p[4];
    return length == 0 || length > RECORD_BYTES_MAX ? HELLO_BAD : HELLO_DONE;
}

/* The message's length with its head, once four bytes of it are there: its type is checked with the first. */
static enum hello_result message_head(const char *p, size_t have, size_t *message)
{
    char head[MESSAGE_HEAD];
    message_copy(p, MIN(MESSAGE_HEAD, have), head);
    if (head[0] != CLIENT_HELLO) return HELLO_BAD;
    if (have < MESSAGE_HEAD) return HELLO_MORE;
    *message = MESSAGE_HEAD + ((size_t)(uint8_t)head[1] << 16 | (size_t)(uint8_t)head[2] << 8 | (uint8_t)head[3]);
    return HELLO_DONE;
}

/* Walks the records until they hold the message: its length with its head, and where it ends. */
static enum hello_result find_message(const char *p, size_t n, size_t *message, size_t *end, enum hello_error *error)
{
    size_t have = 0;
    for (size_t at = 0; at < n;) {
        enum hello_result r = record_head(p + at, n - at, at == 0, error);
        if (r != HELLO_DONE) return r;
        size_t record = (size_t)(uint8_t)p[at + 3] << 8 | (uint8_t)p[at + 4], part = MIN(record, n - at - RECORD_HEAD);
        *error = HELLO_E_HANDSHAKE;
        if (have < MESSAGE_HEAD && have + part && message_head(p, have + part, message) == HELLO_BAD) return HELLO_BAD;
        *end = at + RECORD_HEAD + (*message - have);
        *error = HELLO_E_SIZE;
        if (*message && *end > HELLO_BYTES_MAX) return HELLO_BAD;
        if (*message && have + part >= *message) return HELLO_DONE;
        have += part;
        at += RECORD_HEAD + record;
    }
    return HELLO_MORE;
}

enum hello_result tls_hello_parse(const char *p, size_t n, struct tls_hello *h, enum hello_error *error)
{
    char copy[HELLO_BYTES_MAX];
    size_t message = 0, end = 0;
    h->bytes = 0;
    h->host_n = h->alpn_n = 0;
    n = MIN(n, HELLO_BYTES_MAX);
    enum hello_result r = find_message(p, n, &message, &end, error);
    if (r == HELLO_DONE) {
        bool whole = end == RECORD_HEAD + message;
        if (!whole) message_copy(p, message, copy);
        const char *m = whole ? p + RECORD_HEAD : copy;
        *error = read_hello(slice_of(m + MESSAGE_HEAD, message - MESSAGE_HEAD), h);
        h->bytes = end;
        return *error ? HELLO_BAD : HELLO_DONE;
    }
    if (r == HELLO_MORE && n == HELLO_BYTES_MAX) {
        *error = HELLO_E_SIZE;
        return HELLO_BAD;
    }
    if (r != HELLO_BAD) *error = HELLO_OK;
    return r;
}

bool tls_hello_alpn(const struct tls_hello *h, size_t *at, struct slice *name)
{
    if (*at >= h->alpn_n) return false;
    size_t n = (uint8_t)h->alpn[*at];
    *name = slice_of(h->alpn + *at + 1, n);
    *at += 1 + n;
    return true;
}
