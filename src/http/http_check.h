/* http_check.h - one question to a server: is it well? Asked over a connection of its own, which ends with the answer.
 *
 * Three kinds: the connection is accepted (and its TLS handshake completed); GET gives an expected status; the gRPC health
 * protocol says SERVING. Used for the probes of workloads and for the health checks of endpoints.
 */
#ifndef HTTP_CHECK_H
#define HTTP_CHECK_H

#include "http.h"

enum http_check_kind { HTTP_CHECK_CONNECT, HTTP_CHECK_GET, HTTP_CHECK_GRPC };
/* All of it is copied, tls.ctx and tls.sessions excepted: the session slot is used until done() or http_check_cancel(). */
struct http_check_conf {
    enum http_check_kind kind;
    struct slice path;             /* GET; empty: "/" */
    struct slice authority;        /* GET, gRPC: the Host field */
    struct slice agent;            /* GET, gRPC: User-Agent */
    uint16_t status_min, status_max; /* GET: what is well */
    struct slice service;          /* gRPC: whom to ask about; empty: the whole server */
    enum http_version version;     /* GET: as http_cli_connect(); a gRPC check always speaks HTTP/2 */
    const struct http_tls *tls;    /* NULL: clear text */
    struct slice ahead;            /* bytes that go out before all else (a PROXY header) */
};

struct http_check;
/* fd: an unconnected socket, or -1. done() comes once, never from inside this call; text says what is wrong, or what was answered; it is
 * gone afterwards. The check keeps no time: whoever asked cancels it. It is not touched after done(). */
struct http_check *http_check_start(struct loop *l, int fd, const struct addr *a, const struct http_check_conf *conf,
                                    void (*done)(void *owner, bool ok, const char *text), void *owner);
void http_check_cancel(struct http_check *c); /* NULL-safe; no done(). Not from inside done(). */

#endif
