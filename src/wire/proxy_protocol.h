/* proxy_protocol.h - the PROXY protocol, versions 1 and 2: whose connection this is, said by the proxy in front in the first
 * bytes. Source: HAProxy's doc/proxy-protocol.txt. Pure functions: no I/O, no allocation, no state.
 *
 * The header comes before anything else, or the connection is not from who was promised: there is no guessing. Whoever
 * accepts these headers must know the peer, for they are taken at their word.
 */
#ifndef PROXY_PROTOCOL_H
#define PROXY_PROTOCOL_H

#include "base.h"

#define PP_V1_BYTES_MAX 107    /* section 2.1, the CRLF included */
#define PP_V2_BYTES_MAX 4096   /* of a version 2 header, ours: the format would allow 65,551 */

enum pp_family { PP_NONE, PP_IP4, PP_IP6, PP_UNIX };
struct pp_addr {
    enum pp_family family;
    uint16_t port;         /* host byte order; 0 for unix */
    uint8_t ip[16];        /* network byte order; the first 4 for IPv4 */
    struct slice path;     /* of unix, without the NULs behind it; at most PP_PATH_MAX */
};
#define PP_PATH_MAX 108

struct pp_header {
    uint8_t version;            /* 1 or 2 */
    bool local;                 /* no addresses are told (LOCAL, UNKNOWN, UNSPEC): those of the connection itself count */
    struct pp_addr src, dst;    /* who connected, and to where; both of one family */
    /* version 2 only; empty when absent */
    struct slice alpn;          /* what was negotiated */
    struct slice authority;     /* the host name that the client named: SNI */
    struct slice unique_id;
    bool has_ssl;
    uint8_t ssl_client;         /* PP_SSL_* bits */
    uint32_t ssl_verify;        /* 0: the client sent a certificate and it was verified */
    struct slice ssl_version, ssl_cn;
    bool has_crc;               /* it was there and right; when writing: add one */
};
enum { PP_SSL_CLIENT = 1 /* over TLS */, PP_SSL_CERT_CONN = 2 /* a certificate in this connection */, PP_SSL_CERT_SESS = 4 };

enum pp_error {
    PP_OK,
#define X(name, label, text) PP_E_##name,
#include "proxy_protocol_errors.def"
#undef X
    PP_ERROR_COUNT
};
const char *pp_error_label(enum pp_error e); /* lower_snake, for metrics */
const char *pp_error_text(enum pp_error e);  /* a sentence that names what is wrong */

enum pp_result { PP_MORE, PP_DONE, PP_BAD };

/* The header at p. PP_DONE: *used bytes were the header, slices in h point into p. PP_MORE: it is not complete in n bytes, and
 * nothing is wrong so far; never for n >= PP_V2_BYTES_MAX. PP_BAD: *error says why. */
enum pp_result pp_parse(const char *p, size_t n, struct pp_header *h, size_t *used, enum pp_error *error);

/* A version 1 header; UNKNOWN when local or of a family that it can't express. Returns its length. */
size_t pp_write_v1(const struct pp_header *h, char out[PP_V1_BYTES_MAX + 1]);
/* A version 2 header with the TLVs that h has. Returns its length, or 0 when that is above cap or PP_V2_BYTES_MAX. */
size_t pp_write_v2(const struct pp_header *h, char *out, size_t cap);

#endif
