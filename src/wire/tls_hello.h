/* tls_hello.h - what a TLS client asks for, read from the first bytes of its connection without taking part in the handshake:
 * the server name (SNI, RFC 6066 section 3) and the application protocols (ALPN, RFC 7301). For routing connections that
 * are passed through, still encrypted. Pure functions: no I/O, no allocation, no state.
 */
#ifndef TLS_HELLO_H
#define TLS_HELLO_H

#include "base.h"

#define HELLO_BYTES_MAX 16384     /* of the ClientHello and the heads of its records; then it is refused */
#define HELLO_HOST_MAX 255
#define HELLO_ALPN_BYTES_MAX 512  /* of the list of protocols */

struct tls_hello {
    size_t bytes;                 /* how many of the given bytes the ClientHello and its records took */
    uint16_t host_n, alpn_n;      /* 0: absent */
    char host[HELLO_HOST_MAX];    /* lower case, without a dot at its end */
    char alpn[HELLO_ALPN_BYTES_MAX]; /* names, each after a byte with its length: see tls_hello_alpn() */
};

enum hello_error {
    HELLO_OK,
#define X(name, label, text) HELLO_E_##name,
#include "tls_hello_errors.def"
#undef X
    HELLO_ERROR_COUNT
};
const char *hello_error_label(enum hello_error e); /* lower_snake, for metrics */
const char *hello_error_text(enum hello_error e);  /* a sentence that names what is wrong */

enum hello_result {
    HELLO_MORE,    /* not complete, nothing wrong so far; never for n >= HELLO_BYTES_MAX */
    HELLO_DONE,
    HELLO_NOT_TLS, /* another protocol */
    HELLO_BAD      /* TLS, but malformed: *error says how */
};
/* Reads p[0..n), the first bytes of a connection, all of them again with each call. h is valid with HELLO_DONE. */
enum hello_result tls_hello_parse(const char *p, size_t n, struct tls_hello *h, enum hello_error *error);

static inline struct slice tls_hello_host(const struct tls_hello *h) { return (struct slice){h->host, h->host_n}; }
/* Takes the next protocol off *at, which begins as 0; false at the end of the list. */
bool tls_hello_alpn(const struct tls_hello *h, size_t *at, struct slice *name);

#endif
